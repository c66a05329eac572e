//! What the functions and operators of PromQL compute, one family a file: plain kernels over numbers and labels.
//!
//! A kernel knows nothing of plans, storage or limits; `eval` feeds it columns and windows.

pub(crate) mod change;
pub(crate) mod date;
pub(crate) mod element;
pub(crate) mod extended_rate;
pub(crate) mod histogram;
pub(crate) mod kahan;
pub(crate) mod label;
pub(crate) mod math;
pub(crate) mod native;
pub(crate) mod note;
pub(crate) mod order;
pub(crate) mod over_time;
pub(crate) mod quantile;
pub(crate) mod rate;
pub(crate) mod regression;
pub(crate) mod sample_rate;
pub(crate) mod start_time;
pub(crate) mod window;

use crate::model::histogram::FloatHistogram;
use crate::model::labels::Labels;

pub(crate) use crate::promql::functions::date::DatePart;
pub(crate) use crate::promql::functions::element::ElementOp;
pub(crate) use crate::promql::functions::label::{LabelJoin, LabelReplace};
pub(crate) use crate::promql::functions::order::Direction;
pub(crate) use crate::promql::functions::rate::RateKind;

/// Functions of instant vectors and scalars.
#[derive(Clone, Debug)]
pub(crate) enum InstantFunction {
    /// One float in, one out.
    Map(fn(f64) -> f64),
    /// `clamp(v, min, max)`
    Clamp,
    /// `clamp_min(v, min)`
    ClampMin,
    /// `clamp_max(v, max)`
    ClampMax,
    /// `round(v, to = 1)`
    Round,
    /// `hour(v = vector(time()))` and the like
    Date(DatePart),
    /// `time()`
    Time,
    /// `timestamp(v)` of something computed: the evaluation time
    Timestamp,
    /// `pi()`
    Pi,
    /// `scalar(v)`
    Scalar,
    /// `vector(s)`
    Vector,
    /// `max_of(a, b)`
    MaxOf,
    /// `min_of(a, b)`
    MinOf,
    /// `absent(v)` with the labels of its answer
    Absent(Labels),
    /// `sort(v)`, `sort_desc(v)`
    Sort(Direction),
    /// `sort_by_label(v, label…)`, `sort_by_label_desc(v, label…)`
    SortByLabel(Direction, Vec<String>),
    /// `label_replace(v, …)`
    LabelReplace(Box<LabelReplace>),
    /// `label_join(v, …)`
    LabelJoin(Box<LabelJoin>),
    /// `histogram_quantile(φ, v)`
    HistogramQuantile,
    /// `histogram_quantiles(v, label, φ…)`
    HistogramQuantiles {
        /// Label that gets the quantile.
        label: String,
    },
    /// `histogram_fraction(lower, upper, v)`
    HistogramFraction,
    /// `histogram_count(v)` and the like: one native histogram in, one float out.
    OfHistogram(fn(&FloatHistogram) -> f64),
    /// `start_timestamp(v)` of something computed, whose samples have no start.
    NoStart,
}

/// Functions of range vectors.
#[derive(Clone, Debug)]
pub(crate) enum RangeFunction {
    /// `rate`, `increase`, `delta`
    Rate(RateKind),
    /// `irate`
    Irate,
    /// `idelta`
    Idelta,
    /// `changes`
    Changes,
    /// `resets`
    Resets,
    /// `deriv`
    Deriv,
    /// `predict_linear(m, seconds)`
    PredictLinear,
    /// `double_exponential_smoothing(m, level, trend)`
    Smoothing,
    /// `avg_over_time`
    Avg,
    /// `sum_over_time`
    Sum,
    /// `count_over_time`
    Count,
    /// `min_over_time`
    Min,
    /// `max_over_time`
    Max,
    /// `stddev_over_time`
    Stddev,
    /// `stdvar_over_time`
    Stdvar,
    /// `quantile_over_time(φ, m)`
    Quantile,
    /// `mad_over_time`
    Mad,
    /// `first_over_time`
    First,
    /// `last_over_time`
    Last,
    /// `present_over_time`
    Present,
    /// `absent_over_time` with the labels of its answer
    Absent(Labels),
    /// `ts_of_first_over_time`
    TimeOfFirst,
    /// `ts_of_last_over_time`
    TimeOfLast,
    /// `ts_of_max_over_time`
    TimeOfMax,
    /// `ts_of_min_over_time`
    TimeOfMin,
}

impl RangeFunction {
    /// True for the functions whose result still is a value of the metric, so that it keeps its name.
    pub(crate) fn keeps_name(&self) -> bool {
        matches!(self, Self::First | Self::Last)
    }

    /// The function with the labels of its answer, where it makes one out of nothing.
    pub(crate) fn with_absent_labels(self, labels: Labels) -> Self {
        if matches!(self, Self::Absent(_)) { Self::Absent(labels) } else { self }
    }
}

/// The function of instant vectors and scalars with this name, for those without strings among their arguments.
pub(crate) fn instant_function(name: &str) -> Option<InstantFunction> {
    if let Some(map) = math::float_function(name) {
        return Some(InstantFunction::Map(map));
    }
    if let Some(part) = DatePart::of(name) {
        return Some(InstantFunction::Date(part));
    }
    Some(match name {
        "histogram_avg" => InstantFunction::OfHistogram(|h| h.sum / h.count),
        "histogram_count" => InstantFunction::OfHistogram(|h| h.count),
        "histogram_stddev" => InstantFunction::OfHistogram(|h| native::variance(h).sqrt()),
        "histogram_stdvar" => InstantFunction::OfHistogram(native::variance),
        "histogram_sum" => InstantFunction::OfHistogram(|h| h.sum),
        "start_timestamp" => InstantFunction::NoStart,
        "clamp" => InstantFunction::Clamp,
        "clamp_max" => InstantFunction::ClampMax,
        "clamp_min" => InstantFunction::ClampMin,
        "histogram_fraction" => InstantFunction::HistogramFraction,
        "histogram_quantile" => InstantFunction::HistogramQuantile,
        "max_of" => InstantFunction::MaxOf,
        "min_of" => InstantFunction::MinOf,
        "pi" => InstantFunction::Pi,
        "round" => InstantFunction::Round,
        "scalar" => InstantFunction::Scalar,
        "sort" => InstantFunction::Sort(Direction::Ascending),
        "sort_desc" => InstantFunction::Sort(Direction::Descending),
        "time" => InstantFunction::Time,
        "timestamp" => InstantFunction::Timestamp,
        "vector" => InstantFunction::Vector,
        _ => return None,
    })
}

/// The function of range vectors with this name.
pub(crate) fn range_function(name: &str) -> Option<RangeFunction> {
    Some(match name {
        "absent_over_time" => RangeFunction::Absent(Labels::empty()),
        "avg_over_time" => RangeFunction::Avg,
        "changes" => RangeFunction::Changes,
        "count_over_time" => RangeFunction::Count,
        "delta" => RangeFunction::Rate(RateKind::Delta),
        "deriv" => RangeFunction::Deriv,
        "double_exponential_smoothing" => RangeFunction::Smoothing,
        "first_over_time" => RangeFunction::First,
        "idelta" => RangeFunction::Idelta,
        "increase" => RangeFunction::Rate(RateKind::Increase),
        "irate" => RangeFunction::Irate,
        "last_over_time" => RangeFunction::Last,
        "mad_over_time" => RangeFunction::Mad,
        "max_over_time" => RangeFunction::Max,
        "min_over_time" => RangeFunction::Min,
        "predict_linear" => RangeFunction::PredictLinear,
        "present_over_time" => RangeFunction::Present,
        "quantile_over_time" => RangeFunction::Quantile,
        "rate" => RangeFunction::Rate(RateKind::Rate),
        "resets" => RangeFunction::Resets,
        "stddev_over_time" => RangeFunction::Stddev,
        "stdvar_over_time" => RangeFunction::Stdvar,
        "sum_over_time" => RangeFunction::Sum,
        "ts_of_first_over_time" => RangeFunction::TimeOfFirst,
        "ts_of_last_over_time" => RangeFunction::TimeOfLast,
        "ts_of_max_over_time" => RangeFunction::TimeOfMax,
        "ts_of_min_over_time" => RangeFunction::TimeOfMin,
        _ => return None,
    })
}
