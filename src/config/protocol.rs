//! Formats that a scrape may ask for.

use super::yaml::{Decoded, Decoder, Node, Out, Yaml, text_of};

/// A scrape format by its name in configuration files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ScrapeProtocol {
    /// Length-delimited protobuf messages.
    PrometheusProto,
    /// Prometheus's text format, version 0.0.4.
    PrometheusText004,
    /// Prometheus's text format, version 1.0.0.
    PrometheusText100,
    /// OpenMetrics text, version 0.0.1.
    OpenMetricsText001,
    /// OpenMetrics text, version 1.0.0.
    OpenMetricsText100,
    /// Some other name; refused by validation.
    Unknown(String),
}

const NAMES: [(&str, ScrapeProtocol); 5] = [
    ("OpenMetricsText0.0.1", ScrapeProtocol::OpenMetricsText001),
    ("OpenMetricsText1.0.0", ScrapeProtocol::OpenMetricsText100),
    ("PrometheusProto", ScrapeProtocol::PrometheusProto),
    ("PrometheusText0.0.4", ScrapeProtocol::PrometheusText004),
    ("PrometheusText1.0.0", ScrapeProtocol::PrometheusText100),
];

impl ScrapeProtocol {
    /// What is asked for unless configured, best first.
    pub fn default_list() -> Vec<Self> {
        vec![Self::OpenMetricsText100, Self::OpenMetricsText001, Self::PrometheusText100, Self::PrometheusText004]
    }

    /// The same with protobuf first, for native histograms.
    pub fn proto_first_list() -> Vec<Self> {
        let mut list = Self::default_list();
        list.insert(0, Self::PrometheusProto);
        list
    }

    /// The name in configuration files.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Unknown(name) => name,
            known => NAMES.iter().find(|(_, protocol)| protocol == known).map_or("", |(name, _)| name),
        }
    }

    /// The media type of an `Accept` header, without weight and escaping; empty for unknown names.
    pub fn media_type(&self) -> &'static str {
        match self {
            Self::PrometheusProto => {
                "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"
            }
            Self::PrometheusText004 => "text/plain;version=0.0.4",
            Self::PrometheusText100 => "text/plain;version=1.0.0",
            Self::OpenMetricsText001 => "application/openmetrics-text;version=0.0.1",
            Self::OpenMetricsText100 => "application/openmetrics-text;version=1.0.0",
            Self::Unknown(_) => "",
        }
    }

    /// Errors for an unknown name.
    pub(super) fn check(&self) -> Result<(), String> {
        match self {
            Self::Unknown(name) => {
                let known: Vec<&str> = NAMES.iter().map(|(name, _)| *name).collect();
                Err(format!("unknown scrape protocol {name}, supported: [{}]", known.join(" ")))
            }
            _ => Ok(()),
        }
    }
}

impl Default for ScrapeProtocol {
    fn default() -> Self {
        Self::Unknown(String::new())
    }
}

/// Errors for an empty list, unknown names and repeats.
pub(super) fn check_list(protocols: &[ScrapeProtocol]) -> Result<(), String> {
    if protocols.is_empty() {
        return Err("scrape_protocols cannot be empty".to_owned());
    }
    for (index, protocol) in protocols.iter().enumerate() {
        let same = |other: &ScrapeProtocol| other.as_str().eq_ignore_ascii_case(protocol.as_str());
        if protocols.iter().take(index).any(same) {
            let all: Vec<&str> = protocols.iter().map(ScrapeProtocol::as_str).collect();
            return Err(format!("duplicated protocol in scrape_protocols, got [{}]", all.join(" ")));
        }
        protocol.check().map_err(|e| format!("scrape_protocols: {e}"))?;
    }
    Ok(())
}

impl Yaml for ScrapeProtocol {
    fn go_type() -> String {
        "config.ScrapeProtocol".to_owned()
    }
    fn decode(&mut self, node: &Node, decoder: &mut Decoder) -> Decoded {
        let Some(text) = text_of(node, decoder, "config.ScrapeProtocol")? else { return Ok(false) };
        let known = NAMES.iter().find(|(name, _)| *name == text);
        *self = known.map_or_else(|| Self::Unknown(text.to_owned()), |(_, protocol)| protocol.clone());
        Ok(true)
    }
    fn encode(&self) -> Out {
        Out::Text(self.as_str().to_owned())
    }
    fn is_zero(&self) -> bool {
        self.as_str().is_empty()
    }
}
