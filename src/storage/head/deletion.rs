//! Deleting from the head: ranges of series are hidden from views to come, and left out of blocks.
//!
//! A range ends at the newest sample that the deletion has seen, so what is appended later is visible. All ranges of a
//! deletion take effect in one step, whatever shards their series are in: views hold the ranges of the moment at which they
//! were opened. The caller has the ranges in the log before.
//!
//! Order: whoever opens a view loads the ranges before the head's lower bound, and ranges are forgotten only once they lie
//! below that bound; so no view misses a range of samples that it shows.

use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use crate::model::histogram::{CounterResetHint, FloatHistogram};
use crate::model::matcher::Matcher;
use crate::model::read::{FloatColumn, ReadError, SampleColumn, Unlimited};
use crate::model::sample::SeriesRef;
use crate::model::time::TimeRange;
use crate::storage::block::tombstones::{Interval, Tombstones};
use crate::storage::head::view::HeadView;
use crate::storage::head::{Head, HeadStats};
use crate::storage::wal::tombstone_record::RefTombstone;

/// The deleted ranges of all shards.
#[derive(Debug, Default)]
pub(crate) struct Deleted {
    current: ArcSwap<Tombstones>,
    /// Held by whoever changes them.
    changing: Mutex<()>,
}

impl Deleted {
    /// The ranges now.
    pub(crate) fn load(&self) -> Arc<Tombstones> {
        self.current.load_full()
    }

    /// Adds ranges, all at once.
    pub(crate) fn add(&self, more: impl IntoIterator<Item = RefTombstone>) {
        let mut more = more.into_iter().peekable();
        if more.peek().is_none() {
            return;
        }
        let _changing = self.changing.lock();
        let mut next = Tombstones::clone(&self.current.load());
        more.for_each(|one| next.add(one.series.0, one.interval));
        self.current.store(Arc::new(next));
    }

    /// Forgets ranges that end before `min_valid`.
    fn forget_before(&self, min_valid: i64) {
        let _changing = self.changing.lock();
        let now = self.current.load();
        if now.iter().any(|(_, interval)| interval.max_t < min_valid) {
            let left = now.iter().filter(|(_, interval)| min_valid <= interval.max_t);
            self.current.store(Arc::new(left.collect()));
        }
    }
}

/// A deletion that has been worked out and is not in effect yet.
pub struct HeadDeletion {
    view: HeadView,
    ranges: Vec<RefTombstone>,
}

impl HeadDeletion {
    /// What is to be logged before.
    pub fn ranges(&self) -> &[RefTombstone] {
        &self.ranges
    }
}

impl Head {
    /// Works out what a deletion of `range` from the series that any of the selectors selects hides. Errors when a shard is away.
    pub fn plan_deletion(&self, selectors: &[Vec<Matcher>], range: TimeRange) -> Result<HeadDeletion, ReadError> {
        let view = HeadView::open(&self.shared, self.shards());
        let newest_of_all = HeadStats::of(&self.shared).max_time;
        let mut ranges = Vec::new();
        for matchers in selectors {
            view.each_selected(matchers, &Unlimited, |series, newest| {
                // From the beginning of the range, also where that is before what the head holds: the log still has samples that
                // are in blocks now, and nothing tells a start of them once these are cleaned or gone. For the same reason series of
                // which the head has no sample are among them.
                let interval = newest
                    .or(newest_of_all)
                    .map(|newest| Interval { min_t: range.min().0, max_t: range.max().0.min(newest) });
                ranges
                    .extend(interval.filter(|i| i.min_t <= i.max_t).map(|interval| RefTombstone { series, interval }));
            })?;
        }
        view.check()?;
        Ok(HeadDeletion { view, ranges })
    }

    /// Puts a deletion into effect. Errors when a shard was rebuilt since it was planned: its series may go by other references
    /// now, and the deletion has to be planned again.
    pub fn delete(&self, deletion: HeadDeletion) -> Result<(), ReadError> {
        deletion.view.check()?;
        self.shared.deleted.add(deletion.ranges);
        Ok(())
    }

    /// Forgets deleted ranges of which the head holds nothing any more.
    pub fn forget_deleted(&self) {
        let oldest_late = self.oldest_late().map_or(i64::MAX, |at| at.0);
        self.shared.deleted.forget_before(self.shared.min_valid().min(oldest_late));
    }

    /// Deleted ranges that are kept.
    pub fn deleted_len(&self) -> usize {
        self.shared.deleted.load().len()
    }

    /// Deletes on the caller's thread, without a log: for tests and tools.
    pub fn delete_blocking(&self, selectors: &[Vec<Matcher>], range: TimeRange) -> Result<(), ReadError> {
        self.delete(self.plan_deletion(selectors, range)?)
    }
}

/// True if `min_t ..= max_t` is deleted as a whole.
pub(crate) fn covers(deleted: &[Interval], min_t: i64, max_t: i64) -> bool {
    deleted.iter().any(|interval| interval.min_t <= min_t && max_t <= interval.max_t)
}

/// True if `t` is deleted. The ranges are ascending.
pub(crate) fn hits(deleted: &[Interval], t: i64) -> bool {
    let at = deleted.partition_point(|interval| interval.max_t < t);
    deleted.get(at).is_some_and(|interval| interval.contains(t))
}

/// Takes the values of deleted times out of a column, from number `from` on; an empty column stays empty.
fn drop_from<T>(deleted: &[Interval], from: usize, timestamps: &[i64], values: &mut Vec<T>) {
    if values.is_empty() {
        return;
    }
    let mut kept = from;
    for (at, t) in timestamps.iter().enumerate().skip(from) {
        if !hits(deleted, *t) {
            values.swap(kept, at);
            kept += 1;
        }
    }
    values.truncate(kept);
}

/// Takes deleted samples out of what was appended to `out` from number `from` on.
pub(crate) fn drop_floats(deleted: &[Interval], from: usize, out: &mut FloatColumn) {
    drop_from(deleted, from, &out.timestamps, &mut out.values);
    let timestamps = out.timestamps.clone();
    drop_from(deleted, from, &timestamps, &mut out.timestamps);
}

/// The same for samples of all kinds; `from` are the numbers of the first float and the first histogram.
pub(crate) fn drop_samples(deleted: &[Interval], from: (usize, usize), out: &mut SampleColumn) {
    drop_from(deleted, from.0, &out.floats.timestamps, &mut out.float_starts);
    drop_floats(deleted, from.0, &mut out.floats);
    let histograms = &mut out.histograms;
    // What a histogram says of the one before it does not hold once that is gone.
    for (at, pair) in (1..).zip(histograms.timestamps.windows(2)).skip(from.1) {
        let follows_a_gap = matches!(pair, [before, t] if hits(deleted, *before) && !hits(deleted, *t));
        if let Some(value) = histograms.values.get_mut(at).filter(|_| follows_a_gap)
            && value.counter_reset_hint == CounterResetHint::NotReset
        {
            let unknown = CounterResetHint::Unknown;
            *value = Arc::new(FloatHistogram { counter_reset_hint: unknown, ..FloatHistogram::clone(value) });
        }
    }
    drop_from(deleted, from.1, &histograms.timestamps, &mut histograms.values);
    drop_from(deleted, from.1, &histograms.timestamps, &mut out.histogram_starts);
    let timestamps = histograms.timestamps.clone();
    drop_from(deleted, from.1, &timestamps, &mut histograms.timestamps);
}

/// Ranges that a log names, as the head's series go by them.
#[derive(Debug, Default)]
pub(crate) struct RestoredDeletions(Vec<RefTombstone>);

impl RestoredDeletions {
    /// A range of `series`, whose newest sample so far is at `last_t`.
    pub(crate) fn add(&mut self, series: SeriesRef, interval: Interval, last_t: Option<i64>) {
        // A series that was given up hides what it had; it may come back under its old reference.
        let is_whole = interval.min_t == i64::MIN && interval.max_t == i64::MAX;
        let interval = match last_t {
            Some(last_t) if is_whole => Interval { max_t: last_t, ..interval },
            None if is_whole => return,
            // Of one without samples in order it may hide samples that came late.
            _ => interval,
        };
        self.0.push(RefTombstone { series, interval });
    }

    pub(crate) fn into_ranges(self) -> Vec<RefTombstone> {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::append::{AppendBatch, AppendSample, SeriesKey};
    use crate::model::clock::ManualClock;
    use crate::model::labels::Labels;
    use crate::model::matcher::MatchOp;
    use crate::model::read::{LookedAt, ReadView, Wanted};
    use crate::model::time::TimestampMs;
    use crate::storage::head::HeadOptions;
    use crate::storage::head::tests::classed;

    fn head_with(shards: u16, series: usize, times: std::ops::Range<i64>) -> Head {
        let head = Head::new(HeadOptions { shards, ..HeadOptions::new(ManualClock::at(TimestampMs(10_000_000))) });
        append(&head, series, times);
        head
    }

    fn append(head: &Head, series: usize, times: std::ops::Range<i64>) {
        for t in times {
            let sample = |i: usize| AppendSample {
                series: SeriesKey::Labels(Labels::from_pairs([("__name__", "m".to_owned()), ("job", i.to_string())])),
                at: TimestampMs(t * 1000),
                value: t as f64,
            };
            let report = head.append_blocking(AppendBatch::of_floats((0..series).map(sample).collect())).unwrap();
            assert_eq!(report.rejected, []);
        }
    }

    fn matcher(value: &str) -> Vec<Vec<Matcher>> {
        vec![vec![Matcher::new(MatchOp::Regex, "job", value).unwrap()]]
    }

    fn range(from: i64, to: i64) -> TimeRange {
        TimeRange::new(TimestampMs(from * 1000), TimestampMs(to * 1000)).unwrap()
    }

    /// Per series the times in seconds.
    fn seen(view: &dyn ReadView) -> Vec<(String, Vec<i64>)> {
        let classed = classed(view, &[], TimeRange::ALL, LookedAt::Only(&["job"]), Wanted::All).unwrap();
        let series = view.select(&[], TimeRange::ALL, &Unlimited).unwrap().into_iter();
        let seen: Vec<(String, Vec<i64>)> = series
            .map(|one| {
                let (mut floats, mut all) = (FloatColumn::default(), SampleColumn::default());
                one.samples.decode(TimeRange::ALL, &mut floats).unwrap();
                one.samples.decode_all(TimeRange::ALL, &mut all).unwrap();
                assert_eq!(floats, all.floats);
                assert!(floats.timestamps.iter().zip(&floats.values).all(|(t, v)| *t == *v as i64 * 1000));
                let job = one.labels.get("job").unwrap_or("").to_owned();
                (job, floats.timestamps.iter().map(|t| t / 1000).collect())
            })
            .collect();
        let seconds = |samples: Vec<(i64, u64)>| samples.into_iter().map(|(t, _)| t / 1000).collect::<Vec<_>>();
        let job = |labels: &Labels| labels.get("job").unwrap_or("").to_owned();
        let classed = classed.into_iter().map(|(labels, samples)| (job(&labels), seconds(samples)));
        assert!(classed.eq(seen.iter().filter(|(_, times)| !times.is_empty()).cloned()));
        seen
    }

    #[test]
    fn what_is_deleted_is_hidden_from_views_to_come_and_what_follows_is_seen() {
        for shards in [1, 3] {
            let head = head_with(shards, 5, 0..500);
            let before = head.queryable().view().unwrap();
            head.delete_blocking(&matcher("[0-2]"), range(100, 399)).unwrap();
            head.delete_blocking(&matcher("2"), range(390, 10_000)).unwrap();
            let times = |job: usize| match job {
                0 | 1 => (0..100).chain(400..500).collect::<Vec<_>>(),
                2 => (0..100).collect(),
                _ => (0..500).collect(),
            };
            let view = head.queryable().view().unwrap();
            assert_eq!(seen(&*view), (0..5).map(|job| (job.to_string(), times(job))).collect::<Vec<_>>());
            assert!(seen(&*before).iter().all(|(_, times)| times.len() == 500), "views that were open before");
            // Samples that come later are not in the deleted range, though its end lay beyond them.
            append(&head, 5, 500..510);
            let view = head.queryable().view().unwrap();
            assert!(seen(&*view).iter().all(|(_, times)| times.ends_with(&[508, 509])));
            assert_eq!(head.deleted_len(), 3);
        }
    }

    #[test]
    fn a_series_without_a_chunk_that_is_left_is_not_selected() {
        let head = head_with(1, 2, 0..500);
        head.delete_blocking(&matcher("1"), range(0, 10_000)).unwrap();
        let selected = |from, to| head.queryable().view().unwrap().select(&[], range(from, to), &Unlimited).unwrap();
        assert_eq!(selected(0, 100).len(), 1, "all chunks in the range are deleted");
        assert_eq!(selected(0, 1000).len(), 2, "the open chunk reaches on, as in Prometheus");
    }

    #[test]
    fn ranges_are_forgotten_with_their_samples() {
        let head = head_with(2, 4, 0..300);
        head.delete_blocking(&matcher(".*"), range(10, 19)).unwrap();
        head.delete_blocking(&matcher(".*"), range(200, 219)).unwrap();
        head.forget_deleted();
        assert_eq!(head.deleted_len(), 8);
        head.truncate_blocking(TimestampMs(150_000));
        head.forget_deleted();
        assert_eq!(head.deleted_len(), 4);
        let view = head.queryable().view().unwrap();
        assert!(seen(&*view).iter().all(|(_, times)| *times == (150..200).chain(220..300).collect::<Vec<_>>()));
    }
}
