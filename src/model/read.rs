//! What the query engine asks of storage, and nothing more: a consistent view, series that match, decoded columns.
//!
//! Data flow: the gateway opens a [`ReadView`] (a few reference counts and one commit number) → a selector asks
//! [`ReadView::select`] → each series is decoded on the reader's own thread into a [`SampleColumn`].

use std::cell::Cell;
use std::ops::Range;
use std::sync::Arc;

use crate::model::histogram::FloatHistogram;
use crate::model::labels::Labels;
use crate::model::matcher::Matcher;
use crate::model::names::Names;
use crate::model::sample::is_stale;
use crate::model::time::TimeRange;

/// Time stamps (ascending, unique) and values of one series, side by side and of equal length.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FloatColumn {
    /// Milliseconds since the epoch, strictly ascending.
    pub timestamps: Vec<i64>,
    /// The value at the same index; may be the stale marker.
    pub values: Vec<f64>,
}

impl FloatColumn {
    /// Number of samples.
    pub fn len(&self) -> usize {
        self.timestamps.len()
    }

    /// True if there is no sample.
    pub fn is_empty(&self) -> bool {
        self.timestamps.is_empty()
    }

    /// Makes room for more samples.
    pub fn reserve(&mut self, more: usize) {
        self.timestamps.reserve(more);
        self.values.reserve(more);
    }

    /// Appends one sample.
    #[inline]
    pub fn push(&mut self, timestamp_ms: i64, value: f64) {
        self.timestamps.push(timestamp_ms);
        self.values.push(value);
    }

    /// Drops all samples and keeps the room.
    pub fn clear(&mut self) {
        self.timestamps.clear();
        self.values.clear();
    }
}

/// Time stamps (ascending, unique) and histograms of one series, side by side and of equal length.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HistogramColumn {
    /// Milliseconds since the epoch, strictly ascending.
    pub timestamps: Vec<i64>,
    /// The histogram at the same index; may be a stale marker.
    pub values: Vec<Arc<FloatHistogram>>,
}

impl HistogramColumn {
    /// Number of samples.
    pub fn len(&self) -> usize {
        self.timestamps.len()
    }

    /// True if there is no sample.
    pub fn is_empty(&self) -> bool {
        self.timestamps.is_empty()
    }

    /// Appends one sample.
    pub fn push(&mut self, timestamp_ms: i64, histogram: Arc<FloatHistogram>) {
        self.timestamps.push(timestamp_ms);
        self.values.push(histogram);
    }
}

/// All samples of one series: floats and histograms apart, no time in both. Start timestamps stand beside them where any is
/// known: one for each sample, 0 for those whose start is not known.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SampleColumn {
    /// The floats.
    pub floats: FloatColumn,
    /// When each float's counter began; empty if nothing is known.
    pub float_starts: Vec<i64>,
    /// The histograms.
    pub histograms: HistogramColumn,
    /// When each histogram's counter began; empty if nothing is known.
    pub histogram_starts: Vec<i64>,
}

impl SampleColumn {
    /// Number of samples.
    pub fn len(&self) -> usize {
        self.floats.len() + self.histograms.len()
    }

    /// True if there is no sample.
    pub fn is_empty(&self) -> bool {
        self.floats.is_empty() && self.histograms.is_empty()
    }

    /// Appends a float; a `start_ms` of 0 is not known.
    pub fn push_float(&mut self, timestamp_ms: i64, start_ms: i64, value: f64) {
        push_start(&mut self.float_starts, self.floats.len(), start_ms);
        self.floats.push(timestamp_ms, value);
    }

    /// Appends a histogram; a `start_ms` of 0 is not known.
    pub fn push_histogram(&mut self, timestamp_ms: i64, start_ms: i64, histogram: Arc<FloatHistogram>) {
        push_start(&mut self.histogram_starts, self.histograms.len(), start_ms);
        self.histograms.push(timestamp_ms, histogram);
    }

    /// Drops all samples and keeps the room.
    pub fn clear(&mut self) {
        self.floats.clear();
        self.float_starts.clear();
        self.histograms.timestamps.clear();
        self.histograms.values.clear();
        self.histogram_starts.clear();
    }

    /// Takes out the markers that end a series.
    pub fn drop_stale_markers(&mut self) {
        let floats = &mut self.floats;
        // Almost always there is none: looked for without stopping, many are compared at a time.
        let has_any = floats.values.iter().fold(false, |found, v| found | is_stale(*v));
        if let Some(first) = has_any.then(|| floats.values.iter().position(|v| is_stale(*v))).flatten() {
            let mut kept = first;
            for at in first..floats.len() {
                if !is_stale(floats.values[at]) {
                    floats.values[kept] = floats.values[at];
                    floats.timestamps[kept] = floats.timestamps[at];
                    if let Some(start) = self.float_starts.get(at).copied() {
                        self.float_starts[kept] = start;
                    }
                    kept += 1;
                }
            }
            floats.values.truncate(kept);
            floats.timestamps.truncate(kept);
            self.float_starts.truncate(kept);
        }
        let histograms = &mut self.histograms;
        if histograms.values.iter().any(|h| h.is_stale()) {
            let is_live: Vec<bool> = histograms.values.iter().map(|h| !h.is_stale()).collect();
            keep(&mut histograms.timestamps, &is_live);
            keep(&mut histograms.values, &is_live);
            keep(&mut self.histogram_starts, &is_live);
        }
    }

    /// Bytes of the room for samples, and of the histograms in it.
    pub fn memory_len(&self) -> usize {
        let floats = self.floats.timestamps.capacity() + self.floats.values.capacity() + self.float_starts.capacity();
        let histograms = self.histograms.timestamps.capacity()
            + self.histograms.values.capacity()
            + self.histogram_starts.capacity();
        let held: usize = self.histograms.values.iter().map(|histogram| histogram.memory_len()).sum();
        (floats + histograms) * 8 + held
    }
}

fn keep<T>(values: &mut Vec<T>, is_kept: &[bool]) {
    let mut kept = is_kept.iter();
    values.retain(|_| kept.next().copied().unwrap_or(true));
}

/// Keeps starts only from the first known one on; those before it become unknown ones.
fn push_start(starts: &mut Vec<i64>, before: usize, start_ms: i64) {
    if start_ms != 0 || !starts.is_empty() {
        starts.resize(before, 0);
        starts.push(start_ms);
    }
}

/// Why a read failed. A read gives everything it was asked for or one of these; never a part.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// A shard is being rebuilt or has failed.
    #[error("shard {shard} is not available: {reason}")]
    ShardUnavailable {
        /// Which shard.
        shard: usize,
        /// What it is doing instead.
        reason: String,
    },
    /// The caller's budget is used up; the text names limit and flag.
    #[error("{0}")]
    Budget(String),
    /// The caller's deadline has passed or it has gone away.
    #[error("{0}")]
    Interrupted(String),
    /// Stored data is damaged; the text names the place.
    #[error("{0}")]
    Corrupt(String),
    /// Stored data is of a kind that cannot be read yet; the text names the place.
    #[error("{0}")]
    Unsupported(String),
}

/// What a read may hold and how long it may take. Storage calls it as it collects label sets and decodes chunks.
pub trait ReadBudget: Send + Sync {
    /// Charges `bytes` that the read is about to hold; the error ends the read.
    fn charge(&self, bytes: usize) -> Result<(), ReadError>;
    /// Errors when the read should end: deadline, cancellation.
    fn check(&self) -> Result<(), ReadError>;
    /// Runs jobs 0 to `count`, each once, and returns when all are done: one after the other, unless there are threads to spare.
    fn run_each(&self, count: usize, job: &(dyn Fn(usize) + Sync)) {
        (0..count).for_each(job);
    }
}

/// Whether the calling thread may wait for a disk.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Files {
    Readable,
    Refused,
    /// And a read has wanted one.
    Wanted,
}

thread_local! {
    static FILES: Cell<Files> = const { Cell::new(Files::Readable) };
}

/// Runs `work`, in which no read waits for a disk: one that would have to read a file ends with an error. Says as well whether
/// one did; its error is no news of the data then.
pub fn without_files<T>(work: impl FnOnce() -> T) -> (T, bool) {
    struct Restore(Files);
    impl Drop for Restore {
        fn drop(&mut self) {
            FILES.set(self.0);
        }
    }
    let _restore = Restore(FILES.replace(Files::Refused));
    let done = work();
    (done, FILES.get() == Files::Wanted)
}

/// Whether a read may read files on this thread. Storage asks before it does.
pub fn may_read_files() -> bool {
    if FILES.get() != Files::Readable {
        FILES.set(Files::Wanted);
    }
    FILES.get() == Files::Readable
}

/// A budget without limits, for tests and tools.
#[derive(Debug, Default)]
pub struct Unlimited;

impl ReadBudget for Unlimited {
    fn charge(&self, _: usize) -> Result<(), ReadError> {
        Ok(())
    }
    fn check(&self) -> Result<(), ReadError> {
        Ok(())
    }
}

/// Samples of one series as the view sees them. Both functions may be called more than once and from any thread.
pub trait SampleSource: Send + Sync {
    /// Appends the floats in `range` to `out`, oldest first.
    fn decode(&self, range: TimeRange, out: &mut FloatColumn) -> Result<(), ReadError>;

    /// Appends all samples in `range` to `out`, oldest first. Sources that have floats without starts alone need not
    /// implement it.
    fn decode_all(&self, range: TimeRange, out: &mut SampleColumn) -> Result<(), ReadError> {
        self.decode(range, &mut out.floats)
    }

    /// As [`Self::decode_all`] for those who look at the newest sample alone: of those in `range`, older ones may be left out, and
    /// start timestamps.
    fn decode_newest(&self, range: TimeRange, out: &mut SampleColumn) -> Result<(), ReadError> {
        self.decode_all(range, out)
    }

    /// Appends the times in `range` of histograms with whole counts to `out`: for tools that print samples as they are stored.
    fn whole_histogram_times(&self, _range: TimeRange, _out: &mut Vec<i64>) -> Result<(), ReadError> {
        Ok(())
    }

    /// The reference of the series in the log, if it stands there alone.
    fn reference(&self) -> Option<u64> {
        None
    }
}

/// The newest sample of a series.
#[derive(Clone, Debug, PartialEq)]
pub struct NewestSample {
    /// The series' full label set.
    pub labels: Labels,
    /// Milliseconds since the epoch.
    pub at_ms: i64,
    /// The value, unless it is a histogram.
    pub value: f64,
    /// The histogram, if it is one.
    pub histogram: Option<Arc<FloatHistogram>>,
}

impl NewestSample {
    /// The last sample of a column; `None` if there is none or it ends the series.
    pub fn of(labels: Labels, column: &SampleColumn) -> Option<Self> {
        let float = column.floats.timestamps.last().copied().zip(column.floats.values.last().copied());
        let histogram = column.histograms.timestamps.last().copied().zip(column.histograms.values.last());
        let (at_ms, value, histogram) = match (float, histogram) {
            (Some((at, value)), histogram) if histogram.is_none_or(|(other, _)| other < at) => {
                (!is_stale(value)).then_some((at, value, None))?
            }
            (_, Some((at, value))) => (!value.is_stale()).then(|| (at, 0.0, Some(Arc::clone(value))))?,
            _ => return None,
        };
        Some(Self { labels, at_ms, value, histogram })
    }
}

/// One selected series.
#[derive(Clone)]
pub struct SelectedSeries {
    /// Its full label set.
    pub labels: Labels,
    /// Its samples.
    pub samples: Arc<dyn SampleSource>,
}

/// Which labels of series are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LookedAt<'a> {
    /// Those with these names.
    Only(&'a [&'a str]),
    /// All but those with these names.
    AllBut(&'a [&'a str]),
}

impl LookedAt<'_> {
    /// The labels of a set that are looked at.
    pub fn part_of(self, labels: &Labels) -> Labels {
        match self {
            Self::Only(names) => labels.keep_only(names),
            Self::AllBut(names) => labels.without(names),
        }
    }
}

/// Which samples of a range are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Each.
    All,
    /// The newest; others may be there or not, and start timestamps.
    Newest,
}

/// Selected series without their label sets, in the order of these. Series that agree in the labels that are looked at form a
/// class.
pub trait ClassedSeries: Send + Sync {
    /// Number of series, of which some may have no samples.
    fn series_count(&self) -> usize;

    /// The labels that are looked at, for each class.
    fn classes(&self) -> &[Labels];

    /// For each of the series with these numbers, in their order: puts the wanted samples in `range` into `column`, without start
    /// timestamps, and calls `take` with the number of the series' class. Ends when that returns false.
    fn decode(
        &self,
        numbers: Range<usize>,
        range: TimeRange,
        wanted: Wanted,
        column: &mut SampleColumn,
        take: &mut dyn FnMut(u32, &mut SampleColumn) -> bool,
    ) -> Result<(), ReadError>;
}

/// What a listing is about: the series that [`ReadView::select`] would give, and how much of what they have.
#[derive(Clone, Copy, Debug)]
pub struct Scope<'a> {
    /// The series fulfil all of these; none: all series.
    pub matchers: &'a [Matcher],
    /// They may have samples here.
    pub range: TimeRange,
    /// The first so many results are enough; others may be there or not.
    pub limit: usize,
}

impl<'a> Scope<'a> {
    /// All results.
    pub fn all(matchers: &'a [Matcher], range: TimeRange) -> Self {
        Self { matchers, range, limit: usize::MAX }
    }

    /// The first `limit` results.
    pub fn first(limit: usize, matchers: &'a [Matcher], range: TimeRange) -> Self {
        Self { matchers, range, limit }
    }
}

/// What is listed of the series in a scope.
#[derive(Clone, Copy, Debug)]
pub enum ListingOf<'a> {
    /// Their label sets.
    LabelSets,
    /// Names of their labels.
    Names,
    /// Values of this label.
    Values(&'a str),
}

/// A consistent view of storage: each commit whole or not at all, in all its selections.
pub trait ReadView: Send + Sync {
    /// Series that fulfil all `matchers` and may have samples in `range`, sorted by labels.
    fn select(
        &self,
        matchers: &[Matcher],
        range: TimeRange,
        budget: &dyn ReadBudget,
    ) -> Result<Vec<SelectedSeries>, ReadError>;

    /// The same series for whoever looks at some of their labels alone; `None` where [`Self::select`] is as short a way.
    fn select_classed(
        &self,
        matchers: &[Matcher],
        range: TimeRange,
        looked_at: LookedAt<'_>,
        budget: &dyn ReadBudget,
    ) -> Result<Option<Box<dyn ClassedSeries>>, ReadError> {
        let _ = (matchers, range, looked_at, budget);
        Ok(None)
    }

    /// Names of all labels of the series in the scope, sorted.
    fn label_names(&self, scope: &Scope<'_>, budget: &dyn ReadBudget) -> Result<Names, ReadError>;

    /// Values of the label `name` over the series in the scope, sorted.
    fn label_values(&self, name: &str, scope: &Scope<'_>, budget: &dyn ReadBudget) -> Result<Names, ReadError>;

    /// Label sets of the series in the scope, sorted.
    fn series_labels(&self, scope: &Scope<'_>, budget: &dyn ReadBudget) -> Result<Vec<Labels>, ReadError> {
        let selected = self.select(scope.matchers, scope.range, budget)?;
        Ok(selected.into_iter().take(scope.limit).map(|series| series.labels).collect())
    }

    /// About how many series [`ReadView::select`] would give or look at, rather too many than too few, and found at little
    /// cost; `None` if there is no such figure.
    fn series_estimate(&self, matchers: &[Matcher], range: TimeRange) -> Result<Option<usize>, ReadError> {
        let _ = (matchers, range);
        Ok(None)
    }

    /// About how many microseconds a listing takes in memory, rather too many than too few, and found at little cost; `None` if there is no such
    /// figure, or files may have to be read.
    fn listing_estimate(&self, listing: ListingOf<'_>, scope: &Scope<'_>) -> Result<Option<usize>, ReadError> {
        // To look at a series takes one.
        let _ = listing;
        if self.reads_files(scope.range) { Ok(None) } else { self.series_estimate(scope.matchers, scope.range) }
    }

    /// Whether samples in `range` may have to be read from files.
    fn reads_files(&self, range: TimeRange) -> bool {
        let _ = range;
        false
    }

    /// What reads of this view have left out so far, in words: what was lost, and what is damaged if the operator wants answers without
    /// that.
    fn warnings(&self) -> Vec<String> {
        Vec::new()
    }
}

/// Opens views. Storage implements it; tests implement it over plain maps.
pub trait Queryable: Send + Sync {
    /// A view of everything committed by now.
    fn view(&self) -> Result<Arc<dyn ReadView>, ReadError>;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::sample::stale_nan;

    #[test]
    fn files_are_refused_where_the_caller_cannot_wait() {
        assert!(may_read_files());
        let (inner, wanted) = without_files(|| {
            let outer = without_files(|| 1);
            assert_eq!(outer, (1, false));
            let refused = std::panic::catch_unwind(|| without_files(|| assert!(may_read_files())));
            assert!(refused.is_err());
            may_read_files()
        });
        assert_eq!((inner, wanted), (false, true));
        assert!(may_read_files() && !without_files(|| ()).1);
    }

    #[test]
    fn stale_markers_disappear() {
        let stale = stale_nan();
        let floats = FloatColumn { timestamps: vec![1, 2, 3, 4], values: vec![1.0, stale, f64::NAN, stale] };
        let mut column = SampleColumn { floats, float_starts: vec![5, 6, 7, 8], ..SampleColumn::default() };
        let ended = FloatHistogram { sum: stale, ..FloatHistogram::default() };
        column.push_histogram(5, 0, Arc::new(FloatHistogram::default()));
        column.push_histogram(6, 0, Arc::new(ended));
        column.drop_stale_markers();
        assert_eq!((column.floats.timestamps, column.float_starts), (vec![1, 3], vec![5, 7]));
        assert_eq!(column.histograms.timestamps, [5]);
    }
}
