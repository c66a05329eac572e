//! The `storage`, `tracing` and `otlp` blocks.

use std::collections::BTreeMap;

use super::http_client::TlsConfig;
use super::remote;
use super::size::ByteSize;
use super::yaml::block::{Preset, block};
use super::yaml::{Abort, Decoded, Decoder, Node, Out, Yaml, text_of};
use crate::model::duration::PromDuration;
use crate::model::go;

block! {
    /// Settings of storage that a reload may change.
    pub struct StorageConfig("config.StorageConfig") {
        /// The time series database; always set after loading.
        pub tsdb: Option<TsdbConfig> = "tsdb", omitempty;
        /// The exemplar storage.
        pub exemplars: Option<ExemplarsConfig> = "exemplars", omitempty;
    }
}

block! {
    /// The time series database.
    pub struct TsdbConfig("config.TSDBConfig", "config.plain") {
        /// How far out of order samples may arrive, in milliseconds. Prometheus shows it and reads it under this name,
        /// and overwrites it with the next field.
        pub out_of_order_time_window_ms: i64 = "outofordertimewindow", always;
        /// How far out of order samples may arrive; 0 for not at all.
        pub out_of_order_time_window: PromDuration = "out_of_order_time_window", omitempty;
        /// Share of stale series from which on they are compacted at once; 0 for never.
        pub stale_series_compaction_threshold: f64 = "stale_series_compaction_threshold", omitempty;
        /// Encodings of chunks.
        pub chunk_encoding: ChunkEncodingConfig = "chunk_encoding", omitempty;
        /// What is deleted when; always set after loading. A block in the file replaces what flags say as a whole.
        pub retention: Option<RetentionConfig> = "retention", omitempty;
    }
}

block! {
    /// Encodings of chunks.
    pub struct ChunkEncodingConfig("config.ChunkEncodingConfig") {
        /// `xor`, `xor2`, or empty for what the feature flag says.
        pub floats: String = "floats", omitempty;
    }
}

block! {
    /// What is deleted when. Zeros set no limit.
    pub struct RetentionConfig("config.TSDBRetentionConfig", "config.plain") {
        /// Age.
        pub time: PromDuration = "time", omitempty;
        /// Size of all blocks.
        pub size: ByteSize = "size", omitempty;
        /// Share of the disk, in percent.
        pub percentage: f64 = "percentage", omitempty;
    }
}

block! {
    /// The exemplar storage.
    pub struct ExemplarsConfig("config.ExemplarsConfig") {
        /// Exemplars held; none at 0 and below.
        pub max_exemplars: i64 = "max_exemplars", omitempty;
    }
}

block! {
    /// Where traces of the server itself go.
    pub struct TracingConfig("config.TracingConfig", "config.plain") {
        /// Protocol; gRPC unless set.
        pub client_type: TracingClient = "client_type", omitempty;
        /// Where to; empty without a `tracing` block.
        pub endpoint: String = "endpoint", omitempty;
        /// Share of traces that are sent, 0 to 1.
        pub sampling_fraction: f64 = "sampling_fraction", omitempty;
        /// Without TLS.
        pub insecure: bool = "insecure", omitempty;
        /// TLS.
        pub tls_config: TlsConfig = "tls_config", omitempty;
        /// Further headers.
        pub headers: BTreeMap<String, String> = "headers", omitempty;
        /// `gzip` or empty.
        pub compression: String = "compression", omitempty;
        /// Longest time for a request; 0 for the protocol's default.
        pub timeout: PromDuration = "timeout", omitempty;
    }
}

block! {
    /// How OTLP metrics become series.
    pub struct OtlpConfig("config.OTLPConfig", "config.plain") {
        /// All resource attributes become labels.
        pub promote_all_resource_attributes: bool = "promote_all_resource_attributes", omitempty;
        /// Resource attributes that become labels.
        pub promote_resource_attributes: Vec<String> = "promote_resource_attributes", omitempty;
        /// Resource attributes that do not, if all others do.
        pub ignore_resource_attributes: Vec<String> = "ignore_resource_attributes", omitempty;
        /// How names are translated.
        pub translation_strategy: String = "translation_strategy", omitempty;
        /// Keeps the attributes that identify the service in `target_info`.
        pub keep_identifying_resource_attributes: bool = "keep_identifying_resource_attributes", omitempty;
        /// Turns histograms into native ones with custom buckets.
        pub convert_histograms_to_nhcb: bool = "convert_histograms_to_nhcb", omitempty;
        /// The scope's name, version and attributes become labels.
        pub promote_scope_metadata: bool = "promote_scope_metadata", omitempty;
        /// Puts `key_` before label names that start with an underscore; on unless set.
        pub label_name_underscore_sanitization: bool = "label_name_underscore_sanitization", omitempty;
        /// Keeps runs of underscores; on unless set.
        pub label_name_preserve_multiple_underscores: bool = "label_name_preserve_multiple_underscores", omitempty;
    }
}

impl Preset for TsdbConfig {
    fn check(&mut self) -> Result<(), String> {
        if !["", "xor", "xor2"].contains(&self.chunk_encoding.floats.as_str()) {
            return Err(format!(
                "'storage.tsdb.chunk_encoding.floats' must be 'xor' or 'xor2', or the field must be omitted entirely, \
                 got {}",
                go::quote(&self.chunk_encoding.floats)
            ));
        }
        self.out_of_order_time_window_ms = self.out_of_order_time_window.as_ms_i64();
        Ok(())
    }
}

impl StorageConfig {
    /// Adds the parts that are always there; `retention` holds without a block in the file.
    pub(super) fn complete(&mut self, retention: RetentionConfig) {
        self.tsdb.get_or_insert_default().retention.get_or_insert(retention);
    }
}

impl Preset for RetentionConfig {
    fn check(&mut self) -> Result<(), String> {
        if self.size.bytes() < 0 {
            return Err(format!("'storage.tsdb.retention.size' must be greater than or equal to 0, got {}", self.size));
        }
        if !(0.0..=100.0).contains(&self.percentage) {
            return Err(format!(
                "'storage.tsdb.retention.percentage' must be in the range [0, 100], got {}",
                go::format_float_g(self.percentage)
            ));
        }
        Ok(())
    }
}

impl Preset for TracingConfig {
    fn preset() -> Self {
        Self { client_type: TracingClient::Grpc, ..Self::default() }
    }

    fn check(&mut self) -> Result<(), String> {
        remote::check_reserved(&self.headers, "custom authorization header configuration is not yet supported")?;
        if self.endpoint.is_empty() {
            return Err("tracing endpoint must be set".to_owned());
        }
        if !matches!(self.compression.as_str(), "" | "gzip") {
            return Err(format!("invalid compression type {} provided, valid options: gzip", self.compression));
        }
        Ok(())
    }
}

/// Protocol for traces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TracingClient {
    /// No `tracing` block.
    #[default]
    Unset,
    /// gRPC.
    Grpc,
    /// HTTP.
    Http,
}

impl Yaml for TracingClient {
    fn go_type() -> String {
        "config.TracingClientType".to_owned()
    }
    fn decode(&mut self, node: &Node, decoder: &mut Decoder) -> Decoded {
        let Some(text) = text_of(node, decoder, "config.plain")? else { return Ok(false) };
        *self = match text {
            "grpc" => Self::Grpc,
            "http" => Self::Http,
            _ => {
                let message = format!("expected tracing client type to be to be http or grpc, but got {text}");
                return Err(Abort::at(node, message));
            }
        };
        Ok(true)
    }
    fn encode(&self) -> Out {
        Out::Text(
            match self {
                Self::Unset => "",
                Self::Grpc => "grpc",
                Self::Http => "http",
            }
            .to_owned(),
        )
    }
    fn is_zero(&self) -> bool {
        *self == Self::Unset
    }
}

const STRATEGIES: [&str; 4] = [
    "UnderscoreEscapingWithSuffixes",
    "UnderscoreEscapingWithoutSuffixes",
    "NoUTF8EscapingWithSuffixes",
    "NoTranslation",
];

impl Preset for OtlpConfig {
    fn preset() -> Self {
        Self {
            translation_strategy: "UnderscoreEscapingWithSuffixes".to_owned(),
            label_name_underscore_sanitization: true,
            label_name_preserve_multiple_underscores: true,
            ..Self::default()
        }
    }

    fn check(&mut self) -> Result<(), String> {
        if self.promote_all_resource_attributes {
            if !self.promote_resource_attributes.is_empty() {
                return Err(
                    "'promote_all_resource_attributes' and 'promote_resource_attributes' cannot be configured \
                            simultaneously"
                        .to_owned(),
                );
            }
            return trim_attributes(&mut self.ignore_resource_attributes, "ignored")
                .map_err(|e| format!("invalid 'ignore_resource_attributes': {e}"));
        }
        if !self.ignore_resource_attributes.is_empty() {
            return Err(
                "'ignore_resource_attributes' cannot be configured unless 'promote_all_resource_attributes' is \
                        true"
                    .to_owned(),
            );
        }
        trim_attributes(&mut self.promote_resource_attributes, "promoted")
            .map_err(|e| format!("invalid 'promote_resource_attributes': {e}"))
    }
}

impl OtlpConfig {
    /// Checks the strategy against whether UTF-8 names are allowed.
    pub(super) fn validate(&self, utf8: bool) -> Result<(), String> {
        let strategy = self.translation_strategy.as_str();
        if !strategy.is_empty() && !STRATEGIES.contains(&strategy) {
            return Err(format!("unsupported OTLP translation strategy {}", go::quote(strategy)));
        }
        if !utf8 && ["NoUTF8EscapingWithSuffixes", "NoTranslation"].contains(&strategy) {
            return Err(format!(
                "OTLP translation strategy {} is not allowed when UTF8 is disabled",
                go::quote(strategy)
            ));
        }
        Ok(())
    }
}

fn trim_attributes(attributes: &mut [String], adjective: &str) -> Result<(), String> {
    let mut seen: Vec<String> = Vec::new();
    let mut wrong: Vec<String> = Vec::new();
    for attribute in attributes.iter_mut() {
        let trimmed = attribute.trim().to_owned();
        if trimmed.is_empty() {
            wrong.push(format!("empty {adjective} OTel resource attribute"));
        } else if seen.contains(&trimmed) {
            wrong.push(format!("duplicated {adjective} OTel resource attribute {}", go::quote(&trimmed)));
        } else {
            seen.push(trimmed.clone());
            *attribute = trimmed;
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
}
