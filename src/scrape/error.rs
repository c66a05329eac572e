//! Why a scrape failed. The texts are what `/targets` shows as `lastError`, Prometheus's where it has one.

use crate::client::{ClientError, Failure};
use crate::exposition::content_type::UnknownFormat;
use crate::exposition::protobuf::ProtobufError;
use crate::exposition::text::TextError;
use crate::model::go;

/// Why a scrape failed whole.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScrapeError {
    /// No answer.
    #[error(transparent)]
    Request(#[from] ClientError),
    /// The answer broke off.
    #[error(transparent)]
    Body(#[from] Failure),
    /// An answer other than 200.
    #[error("server returned HTTP status {0}")]
    Status(String),
    /// `body_size_limit` of the configuration.
    #[error("body size limit exceeded")]
    BodySizeLimit,
    /// Our own limit of a body.
    #[error("body exceeds {limit} bytes after decompression; see --watchfire.limit.scrape.body")]
    BodyTooLong {
        /// The limit in bytes.
        limit: u64,
    },
    /// Our own limit of a line.
    #[error("line exceeds {limit} bytes; see --watchfire.limit.scrape.line")]
    LineTooLong {
        /// The limit in bytes.
        limit: usize,
    },
    /// The same of a metric in protobuf.
    #[error("metric exceeds {limit} bytes; see --watchfire.limit.scrape.line")]
    MetricTooLong {
        /// The limit in bytes.
        limit: usize,
    },
    /// Our own limit of all scrapes together.
    #[error("scrapes in flight exceed {limit} bytes in total; see --watchfire.limit.scrape.staged-total")]
    StagingFull {
        /// The limit in bytes.
        limit: u64,
    },
    /// The same limit, of which one scrape may not take all while others hold some.
    #[error(
        "scrape needs {needed} bytes, more than its share of the {limit} of all scrapes in flight; \
         see --watchfire.limit.scrape.staged-total"
    )]
    StagingShare {
        /// What it would hold.
        needed: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// Our own limit of new series.
    #[error("scrape has more than {limit} new series; see --watchfire.limit.scrape.new-series")]
    TooManyNewSeries {
        /// The limit.
        limit: u64,
    },
    /// More series text than 32-bit offsets can address.
    #[error("series of one scrape exceed 4 GiB of text")]
    TooMuchText,
    /// Bad gzip.
    #[error("{0}")]
    Gzip(String),
    /// A format that we cannot read.
    #[error(transparent)]
    ContentType(#[from] UnknownFormat),
    /// Malformed text.
    #[error(transparent)]
    Text(#[from] TextError),
    /// Malformed protobuf.
    #[error(transparent)]
    Protobuf(#[from] ProtobufError),
    /// `sample_limit` of the configuration.
    #[error("sample limit exceeded")]
    SampleLimit,
    /// `native_histogram_bucket_limit` of the configuration.
    #[error("histogram bucket limit exceeded")]
    BucketLimit,
    /// A native histogram whose parts do not fit each other.
    #[error("{0}")]
    InvalidHistogram(String),
    /// `label_limit` of the configuration.
    #[error("label_limit exceeded (metric: {metric}, number of labels: {count}, limit: {limit})")]
    LabelLimit {
        /// Metric name, its first 50 characters.
        metric: String,
        /// Labels found.
        count: usize,
        /// Labels allowed.
        limit: usize,
    },
    /// `label_name_length_limit` of the configuration.
    #[error("label_name_length_limit exceeded (metric: {metric}, label name: {name}, length: {len}, limit: {limit})")]
    LabelNameLength {
        /// Metric name, its first 50 characters.
        metric: String,
        /// Label name, its first 50 characters.
        name: String,
        /// Bytes found.
        len: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// `label_value_length_limit` of the configuration.
    #[error(
        "label_value_length_limit exceeded (metric: {metric}, label name: {name}, value: {}, length: {len}, limit: {limit})",
        go::quote(.value)
    )]
    LabelValueLength {
        /// Metric name, its first 50 characters.
        metric: String,
        /// Label name, its first 50 characters.
        name: String,
        /// Label value, its first 50 characters.
        value: String,
        /// Bytes found.
        len: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// A series without a name after relabelling.
    #[error("missing metric name (__name__ label)")]
    NameMissing,
    /// A name that the configured scheme does not allow.
    #[error("invalid metric name or label names: {0}")]
    InvalidName(String),
    /// A label twice in one series.
    #[error("label name {} is not unique: invalid sample", go::quote(.0))]
    LabelTwice(String),
}

impl ScrapeError {
    /// True if the answer is complete and what it holds is refused by a rule that Prometheus has as well.
    pub(super) fn is_about_content(&self) -> bool {
        match self {
            Self::Request(_)
            | Self::Body(_)
            | Self::Status(_)
            | Self::BodySizeLimit
            | Self::BodyTooLong { .. }
            | Self::LineTooLong { .. }
            | Self::MetricTooLong { .. }
            | Self::StagingFull { .. }
            | Self::StagingShare { .. }
            | Self::TooManyNewSeries { .. }
            | Self::TooMuchText
            | Self::Gzip(_) => false,
            Self::ContentType(_)
            | Self::Text(_)
            | Self::Protobuf(_)
            | Self::SampleLimit
            | Self::BucketLimit
            | Self::InvalidHistogram(_)
            | Self::LabelLimit { .. }
            | Self::LabelNameLength { .. }
            | Self::LabelValueLength { .. }
            | Self::NameMissing
            | Self::InvalidName(_)
            | Self::LabelTwice(_) => true,
        }
    }
}
