//! Remarks that kernels make about the samples they are given. They carry no position: that is the operator's.

use crate::model::go;

/// What a histogram was part of when something was noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HistogramUse {
    /// `+`, or a sum inside of a rate.
    Addition,
    /// `-`, or a difference inside of a rate.
    Subtraction,
    /// `sum`, `avg` and the like.
    Aggregation,
}

impl HistogramUse {
    fn as_str(self) -> &'static str {
        match self {
            Self::Addition => "addition",
            Self::Subtraction => "subtraction",
            Self::Aggregation => "aggregation",
        }
    }
}

/// A remark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Note {
    /// A window has floats and histograms.
    MixedFloatsHistograms,
    /// A group has floats and histograms.
    MixedInAggregation,
    /// A vector has both kinds of histograms for one metric.
    MixedClassicNative,
    /// A gauge where a counter was expected.
    NotCounter,
    /// A counter where a gauge was expected.
    NotGauge,
    /// Exponential and listed buckets.
    MixedSchemas,
    /// Histograms of a window that count floats only.
    IgnoredInMixedRange,
    /// Histograms of a group that counts floats only.
    IgnoredInAggregation(&'static str),
    /// Different listed bounds were reduced to common ones.
    BoundsReconciled(HistogramUse),
    /// One histogram says that there was a counter reset, another that there was none.
    ResetsCollide(HistogramUse),
    /// A sample began before the sample before it.
    StartOverlap,
    /// The quantile lies among observations that are not numbers.
    QuantileIsNan,
    /// Observations that are not numbers moved the quantile.
    QuantileIsSkewed,
    /// Observations that are not numbers are part of no fraction.
    FractionWithoutNan,
}

impl Note {
    /// True for warnings, false for infos.
    pub(crate) fn is_warning(self) -> bool {
        match self {
            Self::MixedFloatsHistograms
            | Self::MixedInAggregation
            | Self::MixedClassicNative
            | Self::NotCounter
            | Self::NotGauge
            | Self::MixedSchemas
            | Self::ResetsCollide(_)
            | Self::StartOverlap => true,
            Self::IgnoredInMixedRange
            | Self::IgnoredInAggregation(_)
            | Self::BoundsReconciled(_)
            | Self::QuantileIsNan
            | Self::QuantileIsSkewed
            | Self::FractionWithoutNan => false,
        }
    }

    /// Prometheus's text, without its prefix; `metric_name` is that of the series.
    pub(crate) fn text(self, metric_name: &str) -> String {
        let quoted = || go::quote(metric_name);
        let named = || if metric_name.is_empty() { String::new() } else { format!(" for metric name {}", quoted()) };
        match self {
            Self::MixedFloatsHistograms => {
                format!("encountered a mix of histograms and floats for metric name {}", quoted())
            }
            Self::MixedInAggregation => "encountered a mix of histograms and floats for aggregation".to_owned(),
            Self::MixedClassicNative => format!("vector contains a mix of classic and native histograms{}", named()),
            Self::NotCounter => format!("this native histogram metric is not a counter: {}", quoted()),
            Self::NotGauge => format!("this native histogram metric is not a gauge: {}", quoted()),
            Self::MixedSchemas => format!(
                "vector contains a mix of histograms with exponential and custom buckets schemas for metric name {}",
                quoted()
            ),
            Self::IgnoredInMixedRange => format!(
                "ignored histograms in a range containing both floats and histograms for metric name {}",
                quoted()
            ),
            Self::IgnoredInAggregation(name) => format!("ignored histogram in {name} aggregation"),
            Self::BoundsReconciled(used) => {
                format!("mismatched custom buckets were reconciled during {}", used.as_str())
            }
            Self::ResetsCollide(used) => format!("conflicting counter resets during histogram {}", used.as_str()),
            Self::StartOverlap => {
                format!("sample has start time that overlaps with previous sample timestamp for metric {}", quoted())
            }
            Self::QuantileIsNan => {
                format!("input to histogram_quantile has NaN observations, result is NaN{}", named())
            }
            Self::QuantileIsSkewed => {
                format!("input to histogram_quantile has NaN observations, result is skewed higher{}", named())
            }
            Self::FractionWithoutNan => format!(
                "input to histogram_fraction has NaN observations, which are excluded from all fractions{}",
                named()
            ),
        }
    }
}
