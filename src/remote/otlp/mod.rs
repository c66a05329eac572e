//! Receiving OTLP metrics, as plain code: a request's bytes become one batch, by the rules of Prometheus's
//! `otlptranslator/prometheusremotewrite`.
//!
//! ```text
//! ExportMetricsServiceRequest { 1 ResourceMetrics { 1 Resource { 1 attributes }, 2 ScopeMetrics {
//!     1 scope { 1 name, 2 version, 3 attributes }, 2 Metric …, 3 schema_url } … } … }
//! ```
//! Messages are read one data point at a time, so that a request holds what its samples take.

mod convert;
mod delta;
mod json;
mod labels;
mod metrics;
mod names;
mod points;
mod reply;
mod value;

pub use convert::{Converted, OtlpError, Settings, convert};
pub use delta::{DeltaMode, DeltaStreams, Deltas};
pub use metrics::OtlpMetrics;
pub use reply::of_report;

/// What a JSON body takes while it is read, for each of its bytes.
const JSON_BYTES: u64 = 24;

/// How a body is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyFormat {
    /// Protocol buffers.
    Protobuf,
    /// JSON.
    Json,
}

/// How a body is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyPacking {
    /// Not.
    None,
    /// As a gzip stream.
    Gzip,
}

impl BodyFormat {
    /// The format of a content type. The error is the text of a 400.
    pub fn of(content_type: Option<&str>) -> Result<Self, String> {
        match content_type.unwrap_or("") {
            "application/x-protobuf" => Ok(Self::Protobuf),
            "application/json" => Ok(Self::Json),
            other => {
                let supported = "[application/json, application/x-protobuf]";
                Err(format!("unsupported content type: {other}, supported: {supported}"))
            }
        }
    }
}

impl BodyPacking {
    /// The compression of a content encoding. The error is the text of a 400.
    pub fn of(content_encoding: Option<&str>) -> Result<Self, String> {
        match content_encoding.unwrap_or("") {
            "" => Ok(Self::None),
            "gzip" => Ok(Self::Gzip),
            other => Err(format!("unsupported compression: {other}. Only \"gzip\" or no compression supported")),
        }
    }
}

#[cfg(test)]
mod tests;
