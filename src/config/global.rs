//! The `global` and `runtime` blocks.

use super::names::ValidationScheme;
use super::path::FilePath;
use super::protocol::{self, ScrapeProtocol};
use super::size::ByteSize;
use super::yaml::block::{Preset, block};
use super::yaml::{Abort, Decoded, Decoder, Kind, Node, Out, Yaml, decode, text_of};
use crate::model::duration::PromDuration;
use crate::model::go;
use crate::model::labels::Labels;

block! {
    /// Values that hold for all jobs and rules unless they set their own.
    pub struct GlobalConfig("config.GlobalConfig", "config.plain") {
        /// Time between scrapes; 1 m unless set.
        pub scrape_interval: PromDuration = "scrape_interval", omitempty;
        /// Longest time for a scrape; 10 s or the interval, whichever is less, unless set.
        pub scrape_timeout: PromDuration = "scrape_timeout", omitempty;
        /// Formats asked for, best first; chosen per job unless set.
        pub scrape_protocols: Option<Vec<ScrapeProtocol>> = "scrape_protocols", omitempty;
        /// Time between evaluations of a rule group, and default step of subqueries; 1 m unless set.
        pub evaluation_interval: PromDuration = "evaluation_interval", omitempty;
        /// How far back rules look; 0 unless set.
        pub rule_query_offset: PromDuration = "rule_query_offset", omitempty;
        /// Log of finished queries.
        pub query_log_file: FilePath = "query_log_file", omitempty;
        /// Log of failed scrapes.
        pub scrape_failure_log_file: FilePath = "scrape_failure_log_file", omitempty;
        /// Labels added to everything that leaves the server.
        pub external_labels: ExternalLabels = "external_labels", omitempty;
        /// Largest response, uncompressed; 0 for no limit.
        pub body_size_limit: ByteSize = "body_size_limit", omitempty;
        /// Most samples per scrape; 0 for no limit.
        pub sample_limit: u64 = "sample_limit", omitempty;
        /// Most targets per job; 0 for no limit.
        pub target_limit: u64 = "target_limit", omitempty;
        /// Most labels per sample; 0 for no limit.
        pub label_limit: u64 = "label_limit", omitempty;
        /// Longest label name; 0 for no limit.
        pub label_name_length_limit: u64 = "label_name_length_limit", omitempty;
        /// Longest label value; 0 for no limit.
        pub label_value_length_limit: u64 = "label_value_length_limit", omitempty;
        /// Most dropped targets remembered per job; 0 for no limit.
        pub keep_dropped_targets: u64 = "keep_dropped_targets", omitempty;
        /// Which names are valid; UTF-8 unless set.
        pub metric_name_validation_scheme: ValidationScheme = "metric_name_validation_scheme", omitempty;
        /// How targets are asked to escape names; empty for what follows from the validation scheme.
        pub metric_name_escaping_scheme: String = "metric_name_escaping_scheme", omitempty;
        /// Scrapes native histograms.
        pub scrape_native_histograms: Option<bool> = "scrape_native_histograms", omitempty;
        /// Turns classic histograms into native ones with custom buckets.
        pub convert_classic_histograms_to_nhcb: bool = "convert_classic_histograms_to_nhcb", omitempty;
        /// Scrapes classic histograms beside native ones.
        pub always_scrape_classic_histograms: bool = "always_scrape_classic_histograms", omitempty;
        /// Stores further samples about each scrape.
        pub extra_scrape_metrics: Option<bool> = "extra_scrape_metrics", omitempty;
    }
}

block! {
    /// Settings of the process.
    pub struct RuntimeConfig("config.RuntimeConfig") {
        /// Percentage for Go's garbage collector; kept and shown, without effect here.
        pub gogc: i64 = "gogc", omitempty;
    }
}

impl Preset for GlobalConfig {
    fn check(&mut self) -> Result<(), String> {
        if self.metric_name_validation_scheme == ValidationScheme::Unset {
            self.metric_name_validation_scheme = ValidationScheme::Utf8;
        }
        for (name, value) in &self.external_labels.raw {
            match std::str::from_utf8(name) {
                Ok(name) if self.metric_name_validation_scheme.is_label_name(name) => {}
                _ => return Err(format!("{} is not a valid label name", go::quote_bytes(name))),
            }
            if std::str::from_utf8(value).is_err() {
                return Err(format!("{} is not a valid label value", go::quote_bytes(value)));
            }
        }
        if self.scrape_interval.is_zero() {
            self.scrape_interval = PromDuration::from_secs(60);
        }
        if self.scrape_timeout > self.scrape_interval {
            return Err("global scrape timeout greater than scrape interval".to_owned());
        }
        if self.scrape_timeout.is_zero() {
            self.scrape_timeout = PromDuration::from_secs(10).min(self.scrape_interval);
        }
        if self.evaluation_interval.is_zero() {
            self.evaluation_interval = PromDuration::from_secs(60);
        }
        if let Some(protocols) = &self.scrape_protocols {
            protocol::check_list(protocols).map_err(|e| format!("{e} for global config"))?;
        }
        Ok(())
    }
}

impl GlobalConfig {
    /// What holds without a `global` block.
    pub(super) fn without_block() -> Self {
        Self {
            scrape_interval: PromDuration::from_secs(60),
            scrape_timeout: PromDuration::from_secs(10),
            evaluation_interval: PromDuration::from_secs(60),
            metric_name_validation_scheme: ValidationScheme::Utf8,
            metric_name_escaping_scheme: "allow-utf-8".to_owned(),
            ..Self::default()
        }
    }
}

/// `external_labels`: kept as bytes until they are checked, as a file may hold any.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ExternalLabels {
    raw: Vec<(Vec<u8>, Vec<u8>)>,
}

impl ExternalLabels {
    /// The labels. Those whose value expanded to nothing are left out.
    pub fn labels(&self) -> Labels {
        Labels::from_pairs(self.pairs())
    }

    fn pairs(&self) -> Vec<(String, String)> {
        let text = |raw: &[u8]| String::from_utf8_lossy(raw).into_owned();
        self.raw.iter().map(|(name, value)| (text(name), text(value))).collect()
    }

    /// Replaces `$NAME` and `${NAME}` in the values. Returns the names that `lookup` knows nothing of.
    pub(super) fn expand(&mut self, lookup: &dyn Fn(&str) -> Option<String>) -> Vec<String> {
        let mut missing = Vec::new();
        for (_, value) in &mut self.raw {
            let text = String::from_utf8_lossy(value);
            *value = super::env::expand(&text, lookup, &mut missing).into_bytes();
        }
        missing
    }
}

impl Yaml for ExternalLabels {
    fn go_type() -> String {
        "map[string]string".to_owned()
    }
    fn decode(&mut self, node: &Node, decoder: &mut Decoder) -> Decoded {
        let Kind::Mapping(pairs) = &node.kind else { return Ok(decoder.mismatch(node, &Self::go_type())) };
        self.raw.clear();
        for (key, value) in pairs {
            let (Some(name), Some(text)) = (bytes_of(key, decoder)?, bytes_of(value, decoder)?) else { continue };
            if self.raw.iter().any(|(n, _)| *n == name) {
                let name = go::quote_bytes(&name);
                decoder.errors.push(format!("line {}: key {name} already set in map", value.line));
                continue;
            }
            self.raw.push((name, text));
        }
        self.raw.sort();
        Ok(true)
    }
    fn encode(&self) -> Out {
        Out::sorted_mapping(self.pairs().into_iter().map(|(name, value)| (name, Out::Text(value))).collect())
    }
    fn is_zero(&self) -> bool {
        // Prometheus writes an empty label set as an empty mapping.
        self.raw.is_empty()
    }
}

/// The bytes of a scalar, which may be written as `!!binary`.
fn bytes_of(node: &Node, decoder: &mut Decoder) -> Result<Option<Vec<u8>>, Abort> {
    let node = node.resolved();
    if let (Kind::Scalar { text, .. }, "tag:yaml.org,2002:binary") = (&node.kind, node.tag.as_str()) {
        return decode::binary(node, text).map(Some);
    }
    if node.is_null() {
        return Ok(Some(Vec::new()));
    }
    Ok(text_of(node, decoder, "string")?.map(|text| text.as_bytes().to_vec()))
}
