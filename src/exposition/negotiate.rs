//! In which format and under which name we answer on `/metrics`, from the `Accept` header.
//!
//! The choice is that of Prometheus's own client library with OpenMetrics switched on, less the texts of protobuf, which
//! nobody asks for.

use crate::exposition::escape::Escaping;

/// A format that we write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// Text 0.0.4.
    Text,
    /// OpenMetrics 0.0.1.
    OpenMetrics001,
    /// OpenMetrics 1.0.0.
    OpenMetrics100,
    /// Protocol buffers with lengths.
    Delimited,
}

/// An answer's format and its `Content-Type`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Negotiated {
    /// The format.
    pub format: Written,
    /// The header's value; repeats the escaping scheme that was asked for.
    pub content_type: String,
    /// How names are written that old readers do not know. All our own names are the same in each scheme.
    pub escaping: Escaping,
}

const PROTOBUF: &str = "application/vnd.google.protobuf";
/// The message that a family is.
const MESSAGE: &str = "io.prometheus.client.MetricFamily";

struct Range<'a> {
    media_type: &'a str,
    version: &'a str,
    escaping: &'a str,
    proto: &'a str,
    encoding: &'a str,
    quality: f64,
}

/// The best format that `accept` names and we write; text if there is none.
pub fn negotiate(accept: Option<&str>) -> Negotiated {
    let mut ranges: Vec<Range<'_>> = accept.unwrap_or_default().split(',').map(range).collect();
    ranges.sort_by(|a, b| b.quality.total_cmp(&a.quality));
    let mut escaping = Escaping::Underscores;
    for range in &ranges {
        escaping = Escaping::parse(range.escaping).unwrap_or(escaping);
        let format = match (range.media_type, range.version) {
            (PROTOBUF, _) if range.proto == MESSAGE && range.encoding == "delimited" => Written::Delimited,
            ("text/plain", "" | "0.0.4") => Written::Text,
            ("application/openmetrics-text", "1.0.0") => Written::OpenMetrics100,
            ("application/openmetrics-text", "" | "0.0.1") => Written::OpenMetrics001,
            _ => continue,
        };
        return Negotiated { format, content_type: content_type(format, escaping), escaping };
    }
    Negotiated { format: Written::Text, content_type: content_type(Written::Text, escaping), escaping }
}

fn range(text: &str) -> Range<'_> {
    let mut parts = text.split(';').map(str::trim);
    let media_type = parts.next().unwrap_or_default();
    let mut range = Range { media_type, version: "", escaping: "", proto: "", encoding: "", quality: 1.0 };
    for (name, value) in parts.filter_map(|part| part.split_once('=')) {
        let value = value.trim().trim_matches('"');
        match name.trim() {
            "version" => range.version = value,
            "escaping" => range.escaping = value,
            "proto" => range.proto = value,
            "encoding" => range.encoding = value,
            "q" => range.quality = value.parse().unwrap_or(1.0),
            _ => {}
        }
    }
    range
}

fn content_type(format: Written, escaping: Escaping) -> String {
    let media_type = match format {
        Written::Text => "text/plain; version=0.0.4",
        Written::OpenMetrics001 => "application/openmetrics-text; version=0.0.1",
        Written::OpenMetrics100 => "application/openmetrics-text; version=1.0.0",
        Written::Delimited => {
            return format!("{PROTOBUF}; proto={MESSAGE}; encoding=delimited; escaping={}", escaping.as_str());
        }
    };
    format!("{media_type}; charset=utf-8; escaping={}", escaping.as_str())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(accept: &str, expected: &str) {
        assert_eq!(negotiate(Some(accept)).content_type, expected);
    }

    #[test]
    fn the_best_known_format_wins() {
        let text = "text/plain; version=0.0.4; charset=utf-8; escaping=underscores";
        assert_eq!(negotiate(None).content_type, text);
        check("", text);
        check("text/html,*/*;q=0.8", text);
        check("application/openmetrics-text;version=2.0.0", text);
        check("application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=text", text);
        check("application/vnd.google.protobuf;encoding=delimited", text);
        check(
            "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;\
             escaping=allow-utf-8;q=0.6,application/openmetrics-text;version=1.0.0;q=0.5",
            "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited; \
             escaping=allow-utf-8",
        );
        check(
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,text/plain;version=0.0.4;q=0.3",
            "application/openmetrics-text; version=1.0.0; charset=utf-8; escaping=allow-utf-8",
        );
        check(
            "application/openmetrics-text;version=\"0.0.1\"; q=0.2, text/plain;q=0.1",
            "application/openmetrics-text; version=0.0.1; charset=utf-8; escaping=underscores",
        );
        check(
            "application/openmetrics-text;q=0.2, text/plain;version=0.0.4;q=0.3;escaping=dots",
            &text.replace("underscores", "dots"),
        );
    }

    proptest! {
        #[test]
        fn never_panics(accept: String) {
            let _ = negotiate(Some(&accept));
        }
    }
}
