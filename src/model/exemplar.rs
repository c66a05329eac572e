//! Exemplars: single observations, most with the trace that they belong to, beside the samples of a series.

use std::cmp::Ordering;

use crate::model::labels::Labels;
use crate::model::time::TimestampMs;

/// Most characters that names and values of an exemplar's labels have together.
pub const LABELS_LEN_MAX: usize = 128;

/// One exemplar.
#[derive(Clone, Debug, PartialEq)]
pub struct Exemplar {
    /// Mostly `trace_id`.
    pub labels: Labels,
    /// What was observed.
    pub value: f64,
    /// When; the time of the sample if nothing else was said.
    pub at: TimestampMs,
    /// Whether the time was said.
    pub has_time: bool,
}

impl Exemplar {
    /// Whether both tell the same. Of two that do not say their times the times do not count: a target that exposes one again
    /// and again tells nothing new.
    pub fn repeats(&self, other: &Self) -> bool {
        let same_time = self.at == other.at || !self.has_time && !other.has_time;
        same_time && self.value == other.value && self.labels == other.labels
    }

    /// Whether the labels are short enough.
    pub fn fits(&self) -> bool {
        let texts = self.labels.iter().flat_map(|(name, value)| [name, value]);
        texts.map(|text| text.chars().count()).sum::<usize>() <= LABELS_LEN_MAX
    }

    /// By time, then value, then labels.
    pub fn order(&self, other: &Self) -> Ordering {
        let values = self.value.partial_cmp(&other.value).unwrap_or(Ordering::Equal);
        self.at.cmp(&other.at).then(values).then_with(|| self.labels.cmp(&other.labels))
    }
}

/// Exemplars of one series, by time.
#[derive(Clone, Debug, PartialEq)]
pub struct SeriesExemplars {
    /// The labels of the series.
    pub series: Labels,
    /// At least one.
    pub exemplars: Vec<Exemplar>,
}

/// The labels of an exemplar from pairs in any order. Of equal names the first counts; empty values are left out.
pub fn labels_of<N: AsRef<str>, V: AsRef<str>>(mut pairs: Vec<(N, V)>) -> Labels {
    pairs.sort_by(|a, b| a.0.as_ref().cmp(b.0.as_ref()));
    pairs.dedup_by(|later, first| later.0.as_ref() == first.0.as_ref());
    let pairs = pairs.iter().map(|(name, value)| (name.as_ref(), value.as_ref()));
    Labels::from_sorted(pairs.filter(|(_, value)| !value.is_empty()))
}

/// Why an exemplar was not stored. The texts are Prometheus's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExemplarRejection {
    /// Older than the newest of its series.
    #[error("out of order exemplar")]
    OutOfOrder,
    /// Its labels are longer than [`LABELS_LEN_MAX`].
    #[error("label length for exemplar exceeds maximum of {LABELS_LEN_MAX} UTF-8 characters")]
    LabelsTooLong,
    /// The head has no sample of its series.
    #[error("unknown HeadSeriesRef when trying to add exemplar: 0")]
    UnknownSeries,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exemplar(at: i64, value: f64, has_time: bool) -> Exemplar {
        Exemplar { labels: labels_of(vec![("t", "x")]), value, at: TimestampMs(at), has_time }
    }

    #[test]
    fn times_that_were_not_said_do_not_tell_exemplars_apart() {
        assert!(exemplar(1, 2.0, false).repeats(&exemplar(5, 2.0, false)));
        assert!(!exemplar(1, 2.0, true).repeats(&exemplar(5, 2.0, false)));
        assert!(exemplar(5, 2.0, true).repeats(&exemplar(5, 2.0, false)));
        assert!(!exemplar(5, 2.0, true).repeats(&exemplar(5, 3.0, true)));
        assert!(!exemplar(5, f64::NAN, true).repeats(&exemplar(5, f64::NAN, true)));
    }

    #[test]
    fn characters_are_counted_not_bytes() {
        let with = |value: String| Exemplar { labels: labels_of(vec![("té", value)]), ..exemplar(1, 1.0, true) };
        assert!(with("é".repeat(126)).fits());
        assert!(!with("é".repeat(127)).fits());
    }

    #[test]
    fn labels_are_sorted_and_have_values() {
        let labels = labels_of(vec![("b", "2"), ("a", "1"), ("b", "3"), ("c", "")]);
        assert_eq!(labels.iter().collect::<Vec<_>>(), [("a", "1"), ("b", "2")]);
    }
}
