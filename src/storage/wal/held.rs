//! What records hold, by number and time.

use crate::storage::wal::histogram_record::decode_histograms;
use crate::storage::wal::record::{RecordKind, decode_samples, decode_series};
use crate::storage::wal::tombstone_record::decode_tombstones;

/// What some records hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    /// Samples and histograms.
    pub(crate) samples: u64,
    /// Names of series.
    pub(crate) series: u64,
    /// Deleted ranges.
    pub(crate) deletions: u64,
    /// The first time of a sample in milliseconds; above `max_t` if there is none.
    pub(crate) min_t: i64,
    /// The last one.
    pub(crate) max_t: i64,
}

impl Default for Held {
    fn default() -> Self {
        Self { samples: 0, series: 0, deletions: 0, min_t: i64::MAX, max_t: i64::MIN }
    }
}

impl Held {
    /// Names of series.
    pub(crate) fn of_series(count: usize) -> Self {
        Self { series: count as u64, ..Self::default() }
    }

    /// Deleted ranges.
    pub(crate) fn of_deletions(count: usize) -> Self {
        Self { deletions: count as u64, ..Self::default() }
    }

    /// Samples at these times.
    pub(crate) fn of_times(times: impl Iterator<Item = i64>) -> Self {
        let mut held = Self::default();
        times.for_each(|t| held.sample(t));
        held
    }

    /// What the bytes of a record hold; `None` if they cannot be read or say nothing of the kind.
    pub(crate) fn of_record(bytes: &[u8]) -> Option<Self> {
        match RecordKind::of(bytes) {
            RecordKind::Series => {
                let mut series = Vec::new();
                decode_series(bytes, &mut series).ok()?;
                Some(Self::of_series(series.len()))
            }
            RecordKind::Samples | RecordKind::SamplesV2 => {
                let mut samples = Vec::new();
                decode_samples(bytes, &mut samples).ok()?;
                Some(Self::of_times(samples.iter().map(|sample| sample.t)))
            }
            RecordKind::Histograms => {
                let mut histograms = Vec::new();
                decode_histograms(bytes, &mut histograms).ok()?;
                Some(Self::of_times(histograms.iter().map(|histogram| histogram.t)))
            }
            RecordKind::Tombstones => decode_tombstones(bytes).ok().map(|ranges| Self::of_deletions(ranges.len())),
            // Of damaged bytes, the kind may be what is wrong.
            _ => None,
        }
    }

    /// Adds a sample.
    #[inline]
    pub(crate) fn sample(&mut self, t: i64) {
        self.samples += 1;
        self.min_t = self.min_t.min(t);
        self.max_t = self.max_t.max(t);
    }

    /// Adds what others hold.
    pub(crate) fn add(&mut self, other: Self) {
        self.samples += other.samples;
        self.series += other.series;
        self.deletions += other.deletions;
        self.min_t = self.min_t.min(other.min_t);
        self.max_t = self.max_t.max(other.max_t);
    }

    /// What is left of it without `found`, with all of its time.
    pub(crate) fn without(self, found: Self) -> Self {
        Self {
            samples: self.samples.saturating_sub(found.samples),
            series: self.series.saturating_sub(found.series),
            deletions: self.deletions.saturating_sub(found.deletions),
            ..self
        }
    }

    /// Its first and last time, if it has samples.
    pub(crate) fn span(self) -> Option<(i64, i64)> {
        (self.min_t <= self.max_t).then_some((self.min_t, self.max_t))
    }

    /// True if nothing is missed where this is.
    pub(crate) fn is_nothing(self) -> bool {
        self.samples == 0 && self.series == 0 && self.deletions == 0
    }
}
