//! When a head chunk is full: Prometheus's rules (`memSeries.appendPreprocessor`), so that both cut at the same samples.

use crate::storage::chunk::words::Published;
use crate::storage::chunk::xor::HEADER_LEN;

/// Largest float chunk in bytes, header included.
pub const CHUNK_LEN_MAX: usize = 1024;
/// A chunk longer than this takes no further sample: one sample takes at most 19 bytes.
pub const CHUNK_LEN_BEFORE_APPEND_MAX: usize = CHUNK_LEN_MAX - 19;

/// Bytes that a histogram chunk should have, header included.
const HISTOGRAM_CHUNK_LEN: usize = 1024;
/// Samples that a histogram chunk has at least, unless its range ends.
const HISTOGRAM_SAMPLES_MIN: u16 = 10;

/// The numbers that the rules use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CutRules {
    /// Samples that a chunk should hold (`--storage.tsdb.samples-per-chunk`).
    pub samples_per_chunk: u16,
    /// Chunks do not cross multiples of this, in milliseconds.
    pub chunk_range_ms: i64,
}

impl Default for CutRules {
    fn default() -> Self {
        Self { samples_per_chunk: 120, chunk_range_ms: 2 * 3_600_000 }
    }
}

impl CutRules {
    /// End (exclusive) of the chunk range in which `t` lies; the first `next_at` of a chunk that starts at `t`.
    pub fn range_end(&self, t: i64) -> i64 {
        // Division towards zero, as in Go.
        (t / self.chunk_range_ms * self.chunk_range_ms).saturating_add(self.chunk_range_ms)
    }

    /// End (exclusive) of the range of `range_ms` in which `t` lies, as blocks have.
    pub fn end_of_range(&self, t: i64, range_ms: i64) -> i64 {
        Self { chunk_range_ms: range_ms.max(1), ..*self }.range_end(t)
    }

    /// Whether a sample at `t` begins a new chunk, given an open chunk of length `at` that spans `start() ..= last` and is
    /// to end before `next_at`; `next_at` is predicted anew when a quarter of the samples are in.
    #[inline]
    pub fn must_cut(&self, at: Published, start: impl FnOnce() -> i64, last: i64, next_at: &mut i64, t: i64) -> bool {
        if HEADER_LEN + (at.bits as usize).div_ceil(8) > CHUNK_LEN_BEFORE_APPEND_MAX {
            return true;
        }
        if at.samples == self.samples_per_chunk / 4 {
            *next_at = predicted_end(start(), last, *next_at, 4.0);
        }
        t >= *next_at || at.samples >= self.samples_per_chunk.saturating_mul(2)
    }

    /// The same for an open chunk of histograms, which is cut by its length: the end is predicted once (`is_predicted`), when
    /// a quarter of the bytes are in.
    pub fn must_cut_histogram(
        &self,
        at: Published,
        (start, last): (i64, i64),
        next_at: &mut i64,
        is_predicted: &mut bool,
        t: i64,
    ) -> bool {
        let len = HEADER_LEN + (at.bits as usize).div_ceil(8);
        // As in Prometheus: a chunk that a counter reset began keeps the mark of the one before, and the end of its range.
        let range_end = if *is_predicted { self.range_end(start) } else { *next_at };
        if !*is_predicted && HISTOGRAM_CHUNK_LEN / 4 <= len {
            *next_at = predicted_end(start, last, *next_at, HISTOGRAM_CHUNK_LEN as f64 / len as f64);
            *is_predicted = true;
        }
        let is_full = *next_at <= t || HISTOGRAM_CHUNK_LEN * 2 <= len;
        let must_cut = is_full && (HISTOGRAM_SAMPLES_MIN <= at.samples || range_end <= t);
        if must_cut {
            *is_predicted = false;
        }
        must_cut
    }
}

/// Parts the rest of the range evenly: by now one part in `parts` of a chunk took `start ..= last`.
fn predicted_end(start: i64, last: i64, range_end: i64, parts: f64) -> i64 {
    let rest = range_end.saturating_sub(start) as f64;
    let chunks = rest / (last.saturating_sub(start).saturating_add(1) as f64 * parts);
    if chunks <= 1.0 { range_end } else { (start as f64 + rest / chunks.floor()) as i64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Samples of each chunk for `count` samples every `step` milliseconds from `start`, 16 bits each.
    fn chunk_sizes(start: i64, step: i64, count: u16) -> Vec<u16> {
        let rules = CutRules::default();
        let (mut sizes, mut at, mut first, mut last) = (Vec::new(), Published::default(), 0, 0);
        let mut next_at = 0;
        for i in 0..i64::from(count) {
            let t = start + i * step;
            if at.samples == 0 || rules.must_cut(at, || first, last, &mut next_at, t) {
                if at.samples > 0 {
                    sizes.push(at.samples);
                }
                at = Published::default();
                first = t;
                next_at = rules.range_end(t);
            }
            at = Published { samples: at.samples + 1, bits: at.bits + 16 };
            last = t;
        }
        sizes.push(at.samples);
        sizes
    }

    #[test]
    fn a_regular_series_fills_its_range_evenly() {
        // 480 samples in two hours: four chunks of 120.
        assert_eq!(chunk_sizes(0, 15_000, 480), [120, 120, 120, 120]);
        // One sample a minute: one chunk of 120 in two hours, cut at the boundary.
        assert_eq!(chunk_sizes(0, 60_000, 240), [120, 120]);
    }

    #[test]
    fn chunks_end_with_their_range() {
        assert_eq!(chunk_sizes(7_200_000 - 30_000, 15_000, 10), [2, 8]);
        assert_eq!(CutRules::default().range_end(-1), 7_200_000);
    }

    #[test]
    fn a_rate_that_rises_after_the_prediction_is_cut_at_twice_the_target() {
        let rules = CutRules::default();
        let mut next_at = i64::MAX;
        assert!(!rules.must_cut(Published { samples: 239, bits: 0 }, || 0, 10, &mut next_at, 11));
        assert!(rules.must_cut(Published { samples: 240, bits: 0 }, || 0, 10, &mut next_at, 11));
    }

    #[test]
    fn long_chunks_are_cut_by_size() {
        let rules = CutRules::default();
        let mut next_at = i64::MAX;
        let bits = u32::try_from((CHUNK_LEN_BEFORE_APPEND_MAX - HEADER_LEN) * 8).unwrap();
        assert!(!rules.must_cut(Published { samples: 60, bits }, || 0, 10, &mut next_at, 11));
        assert!(rules.must_cut(Published { samples: 60, bits: bits + 1 }, || 0, 10, &mut next_at, 11));
    }
}
