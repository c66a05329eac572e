//! What decides how the samples of a target are read and bounded.

use std::sync::Arc;

use crate::config::ScrapeProtocol;
use crate::exposition::content_type::Format;
use crate::exposition::protobuf::NativePart;
use crate::model::labels::Labels;
use crate::scrape::failure_log::FailureLog;
use crate::scrape::request::accept_header;

/// Which metric and label names are valid.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NameScheme {
    /// Any UTF-8 that is not empty.
    #[default]
    Utf8,
    /// `[a-zA-Z_:][a-zA-Z0-9_:]*` for metrics, the same without colons for labels.
    Legacy,
}

/// What becomes of classic histograms (`convert_classic_histograms_to_nhcb`, `always_scrape_classic_histograms`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClassicPart {
    /// They are stored as they come.
    #[default]
    Kept,
    /// They become native histograms with listed bounds.
    Converted,
    /// Both.
    KeptAndConverted,
}

/// Finest resolution of native histograms that there is, and the coarsest.
const SCHEMA_MAX: i32 = 8;
pub(super) const SCHEMA_MIN: i32 = -4;

/// The finest resolution whose buckets grow by `factor` at least (`native_histogram_min_bucket_factor`).
pub fn schema_of_factor(factor: f64) -> i32 {
    let factor = if factor <= 1.0 { 1.00271 } else { factor };
    let schema = (-factor.log2().log2()).floor();
    // Within the two by now.
    schema.clamp(f64::from(SCHEMA_MIN), f64::from(SCHEMA_MAX)) as i32
}

/// Sample-related fields of a scrape configuration; 0 means no limit, as there.
#[derive(Clone, Debug)]
pub struct ScrapeSettings {
    /// Exposed labels win over the target's.
    pub honor_labels: bool,
    /// Explicit time stamps are used.
    pub honor_timestamps: bool,
    /// Series with explicit time stamps get stale markers as well.
    pub track_timestamps_staleness: bool,
    /// Ask for gzip.
    pub enable_compression: bool,
    /// The `Accept` header: formats asked for, best first.
    pub accept: String,
    /// What becomes of the native part of histograms in protobuf.
    pub native: NativePart,
    /// Classic histograms become native ones with listed bounds; whether they stay beside them.
    pub classic: ClassicPart,
    /// Most buckets of a native histogram, whose resolution is lowered to keep to it; 0 for no limit.
    pub bucket_limit: usize,
    /// Finest resolution of native histograms.
    pub schema_max: i32,
    /// Format of responses whose `Content-Type` names none.
    pub fallback: Option<Format>,
    /// Which names are valid.
    pub names: NameScheme,
    /// Bytes of a body, decompressed; a body of exactly this size is too large.
    pub body_size_limit: u64,
    /// Samples after relabelling.
    pub sample_limit: u64,
    /// Labels of a series.
    pub label_limit: usize,
    /// Bytes of a label name.
    pub label_name_length_limit: usize,
    /// Bytes of a label value.
    pub label_value_length_limit: usize,
    /// Three more report series.
    pub extra_scrape_metrics: bool,
    /// Where failed scrapes are noted.
    pub failure_log: Option<FailureLog>,
    /// What is taken in beside samples.
    pub extras: Extras,
}

/// The defaults of a scrape configuration.
impl Default for ScrapeSettings {
    fn default() -> Self {
        Self {
            honor_labels: false,
            honor_timestamps: true,
            track_timestamps_staleness: false,
            enable_compression: true,
            accept: accept_header(&ScrapeProtocol::default_list(), "allow-utf-8"),
            native: NativePart::Ignored,
            classic: ClassicPart::Kept,
            bucket_limit: 0,
            schema_max: SCHEMA_MAX,
            fallback: None,
            names: NameScheme::Utf8,
            body_size_limit: 0,
            sample_limit: 0,
            label_limit: 0,
            label_name_length_limit: 0,
            label_value_length_limit: 0,
            extra_scrape_metrics: false,
            failure_log: None,
            extras: Extras::default(),
        }
    }
}

/// Metric relabelling: the label set to store, or `None` to drop the sample.
pub type MetricRelabel = dyn Fn(Labels) -> Option<Labels> + Send + Sync;

/// Everything about a target that its samples depend on. A change of any of it needs a new
/// [`TargetCache`](crate::scrape::cache::TargetCache), as cached series would keep their old labels.
#[derive(Clone)]
pub struct SamplePlan {
    /// The target's public labels: none starts with `__`.
    pub target_labels: Labels,
    /// Sample-related configuration.
    pub settings: Arc<ScrapeSettings>,
    /// `metric_relabel_configs`, if there are any.
    pub relabel: Option<Arc<MetricRelabel>>,
}

/// What is taken in beside samples, as feature flags say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extras {
    /// Exemplars.
    pub exemplars: bool,
    /// Metadata, for the log.
    pub metadata: bool,
    /// Start times; `_created` lines of OpenMetrics are no series then.
    pub starts: bool,
    /// Start times are made up for counters whose target tells none.
    pub synthesis: bool,
}

/// Limits of our own that keep the process alive; 0 lifts one (`--watchfire.limit.<name>`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScrapeLimits {
    /// `scrape.body`: bytes of one body after decompression.
    pub body_len_max: u64,
    /// `scrape.line`: bytes of one line.
    pub line_len_max: usize,
    /// `scrape.new-series`: series of one scrape that the last one did not have.
    pub new_series_max: u64,
}

impl ScrapeLimits {
    /// The defaults for a process that may use `memory_bytes`; that of new series follows the head's room, see
    /// [`NewSeriesLimit`].
    pub fn for_memory(memory_bytes: u64) -> Self {
        Self { body_len_max: (memory_bytes / 64).max(64 << 20), line_len_max: 1 << 20, new_series_max: 0 }
    }
}

/// `scrape.new-series`: how many series a scrape may have that the last one did not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NewSeriesLimit {
    /// An eighth of the room that is left in the head's budget.
    Automatic,
    /// As many; 0 for any number.
    Fixed(u64),
}

impl NewSeriesLimit {
    /// The limit of one scrape, 0 for none; `room` is that of the head now, `None` when it has no budget.
    pub fn for_room(self, room: Option<u64>) -> u64 {
        match self {
            Self::Fixed(limit) => limit,
            // With little room left a target may still grow by a series: storage counts exactly.
            Self::Automatic => room.map_or(0, |room| (room / 8).max(1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolutions_follow_from_the_least_growth() {
        let schemas = [0.0, 1.0, 1.002, 1.003, 1.1, 2.0, 4.0, 65_536.0, 1e9].map(schema_of_factor);
        assert_eq!(schemas, [8, 8, 8, 7, 2, 0, -1, -4, -4]);
    }

    #[test]
    fn a_scrape_may_take_an_eighth_of_the_room() {
        let automatic = |room| NewSeriesLimit::Automatic.for_room(room);
        assert_eq!((automatic(Some(800)), automatic(Some(7)), automatic(Some(0))), (100, 1, 1));
        assert_eq!(automatic(None), 0);
        assert_eq!((NewSeriesLimit::Fixed(5).for_room(Some(800)), NewSeriesLimit::Fixed(0).for_room(Some(8))), (5, 0));
    }
}
