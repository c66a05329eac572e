//! A shard as its actor and readers know it: the partition behind a lock that the shard's thread takes, and others while it
//! is free, and beside it what readers load without waiting.
//!
//! It lives in the actor's `deps` and so outlives a panic. [`Shard::recover`] tells the restarted actor whether the
//! partition may be kept: applying happens between two marks (`Applying`), and only a panic inside them tears it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use arc_swap::ArcSwap;
use parking_lot::{Mutex, MutexGuard};

use crate::model::append::{AppendReport, ShardId};
use crate::model::metadata::SeriesMetadata;
use crate::model::read::ReadError;
use crate::model::sample::SeriesRef;
use crate::storage::head::HeadError;
use crate::storage::head::bounds::AppendBounds;
use crate::storage::head::chunk_writes::Outcome;
use crate::storage::head::column::SeriesCell;
use crate::storage::head::commit::{Commit, CommitId};
use crate::storage::head::index::{Index, LookJob, MergeJob, MergedSegment};
use crate::storage::head::late::table::LateTable;
use crate::storage::head::partition::Partition;
use crate::storage::head::partition::staged::{
    NewSeries, StagedBatch, StagedExemplar, StagedHistogram, StagedLate, StagedMetadata, StagedSample, reuse,
};
use crate::storage::head::route::Slice;
use crate::storage::head::shared::HeadShared;
use crate::storage::head::starts::Starts;
use crate::storage::head::truncate::Reclaimed;

/// Whether a shard can be read and written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ShardState {
    /// As usual.
    Ready,
    /// Its partition is being restored.
    Rebuilding {
        /// Why.
        reason: String,
    },
    /// It could not be restored.
    Failed {
        /// Why.
        reason: String,
    },
}

/// What readers of a shard load.
#[derive(Debug)]
pub(crate) struct ShardReaders {
    pub(crate) id: ShardId,
    pub(crate) index: ArcSwap<Index>,
    /// Samples that came out of order.
    pub(crate) late: ArcSwap<LateTable>,
    pub(crate) starts: Starts,
    /// Counts steps that took samples away, after which a series may have none that a view sees.
    pub(crate) losses: AtomicU64,
    /// All that lies before this time has been dropped.
    pub(crate) dropped_before: AtomicI64,
    status: ArcSwap<Status>,
    /// A panic has cut an applied batch short.
    torn: AtomicBool,
    /// The next application is to panic between its marks.
    #[cfg(debug_assertions)]
    tear: AtomicBool,
}

/// The two marks around the application of a batch: made before it, [`Applying::done`] after it. If a panic comes between,
/// readers are turned away before the batch's commit can count as complete.
pub(crate) struct Applying<'a> {
    readers: &'a ShardReaders,
    done: bool,
}

impl<'a> Applying<'a> {
    pub(crate) fn begin(readers: &'a ShardReaders) -> Self {
        Self { readers, done: false }
    }

    pub(crate) fn done(mut self) {
        self.done = true;
    }
}

/// The place of a sample or a histogram in its batch, and its start time.
pub type PlacedStart = (u32, i64);

impl Drop for Applying<'_> {
    fn drop(&mut self) {
        if !self.done {
            self.readers.torn.store(true, Ordering::SeqCst);
        }
    }
}

#[derive(Debug)]
struct Status {
    state: ShardState,
    /// Counts rebuilds: a view of an earlier partition must not be read any more.
    generation: u64,
}

impl ShardReaders {
    fn new(id: ShardId) -> Self {
        let status = Status { state: ShardState::Ready, generation: 0 };
        Self {
            id,
            index: ArcSwap::default(),
            late: ArcSwap::default(),
            starts: Starts::default(),
            losses: AtomicU64::new(0),
            dropped_before: AtomicI64::new(i64::MIN),
            status: ArcSwap::from_pointee(status),
            torn: AtomicBool::new(false),
            #[cfg(debug_assertions)]
            tear: AtomicBool::new(false),
        }
    }

    pub(crate) fn generation(&self) -> u64 {
        self.status.load().generation
    }

    fn state(&self) -> ShardState {
        self.status.load().state.clone()
    }

    /// Panics if a fault test wants it.
    pub(crate) fn may_tear(&self) {
        #[cfg(debug_assertions)]
        assert!(!self.tear.swap(false, Ordering::SeqCst), "failpoint between the marks");
    }

    /// Errors unless the shard is ready and still has the partition of `generation`.
    pub(crate) fn check(&self, generation: u64) -> Result<(), ReadError> {
        let status = self.status.load();
        let reason = match &status.state {
            ShardState::Ready if self.torn.load(Ordering::SeqCst) => "a panic has cut a commit short".to_owned(),
            ShardState::Ready if status.generation == generation => return Ok(()),
            ShardState::Ready => "it was rebuilt while the query ran".to_owned(),
            ShardState::Rebuilding { reason } => format!("it is being rebuilt: {reason}"),
            ShardState::Failed { reason } => format!("it has failed: {reason}"),
        };
        Err(ReadError::ShardUnavailable { shard: usize::from(self.id.0), reason })
    }
}

/// A commit in progress with the bounds that its samples are judged by; begun by `Head::begin`. Clones are handles.
#[derive(Clone, Debug)]
pub struct HeadCommit {
    pub(crate) commit: Commit,
    pub(crate) bounds: AppendBounds,
}

impl HeadCommit {
    /// The commit's number.
    pub fn id(&self) -> CommitId {
        self.commit.id()
    }

    /// Which time stamps it accepts.
    pub fn bounds(&self) -> AppendBounds {
        self.bounds
    }
}

/// What a restarted actor finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recovery {
    /// The partition is whole.
    Kept,
    /// The panic hit while a batch was being applied; see [`Shard::begin_rebuild`].
    MustRebuild,
}

/// One shard of the head.
#[derive(Debug)]
pub struct Shard {
    pub(super) shared: Arc<HeadShared>,
    pub(crate) readers: Arc<ShardReaders>,
    partition: Mutex<Partition>,
    /// Set while a slice is staged.
    staging: AtomicBool,
    dropped: Arc<Mutex<Vec<Dropped>>>,
    /// Held by every staged slice that the log may still take.
    unlogged: Arc<()>,
    /// What has become of jobs that write chunks.
    pub(super) chunk_outcomes: Mutex<VecDeque<Outcome>>,
}

/// A staged batch that was dropped; the shard gives it up, or applies it if the log has it.
#[derive(Debug)]
struct Dropped {
    generation: u64,
    slot: u64,
    batch: Arc<StagedBatch>,
    /// Of a batch in the log.
    logged: Option<Commit>,
}

/// A checked slice that waits for the log. Dropping it gives the slice up, or, once the log has it, leaves it to the shard
/// to be applied: what comes back after a restart must not be missing before.
#[derive(Debug)]
pub struct Staged {
    shard: ShardId,
    generation: u64,
    slot: u64,
    batch: Arc<StagedBatch>,
    stores_starts: bool,
    report: AppendReport,
    /// Taken when it is applied.
    commit: Option<Commit>,
    dropped: Arc<Mutex<Vec<Dropped>>>,
    /// Given back when the log has it.
    unlogged: Option<Arc<()>>,
}

impl Staged {
    /// The shard that has staged it.
    pub fn shard(&self) -> ShardId {
        self.shard
    }

    /// Series records to be logged before the samples.
    pub fn new_series(&self) -> &[NewSeries] {
        &self.batch.new_series
    }

    /// Samples to be logged.
    pub fn samples(&self) -> &[StagedSample] {
        &self.batch.samples
    }

    /// Histograms to be logged, after the samples.
    pub fn histograms(&self) -> &[StagedHistogram] {
        &self.batch.histograms
    }

    /// Samples that came out of order, to be logged after all others.
    pub fn late(&self) -> &[StagedLate] {
        &self.batch.late
    }

    /// Start times of some samples and of some histograms, by their place; `None` if none are stored.
    pub fn starts(&self) -> Option<(&[PlacedStart], &[PlacedStart])> {
        self.stores_starts.then_some((&self.batch.sample_starts, &self.batch.histogram_starts))
    }

    /// Exemplars to be logged, after the histograms.
    pub fn exemplars(&self) -> &[StagedExemplar] {
        &self.batch.exemplars
    }

    /// Metadata to be logged, behind the series.
    pub fn metadata(&self) -> &[StagedMetadata] {
        &self.batch.metadata
    }

    /// The log has it: from now on it is applied, whatever becomes of this value.
    pub fn set_logged(&mut self) {
        self.unlogged = None;
    }

    /// What will have become of the slice once it is applied; indexes are those of the whole batch.
    pub fn report(&self) -> &AppendReport {
        &self.report
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if let Some(commit) = self.commit.take() {
            let logged = self.unlogged.is_none().then_some(commit);
            let (generation, slot, batch) = (self.generation, self.slot, Arc::clone(&self.batch));
            self.dropped.lock().push(Dropped { generation, slot, batch, logged });
        }
    }
}

impl Shard {
    pub(crate) fn new(id: ShardId, shared: &Arc<HeadShared>) -> Self {
        let readers = Arc::new(ShardReaders::new(id));
        let partition = Partition::new(id, Arc::clone(shared), Arc::clone(&readers));
        Self {
            shared: Arc::clone(shared),
            readers,
            partition: Mutex::new(partition),
            staging: AtomicBool::new(false),
            dropped: Arc::default(),
            unlogged: Arc::default(),
            chunk_outcomes: Mutex::default(),
        }
    }

    /// Its number.
    pub fn id(&self) -> ShardId {
        self.readers.id
    }

    /// Whether it can be read and written.
    pub fn state(&self) -> ShardState {
        self.readers.state()
    }

    /// Checks a slice of a commit: order, bounds, series. Readers see nothing of it. Samples of one series are checked
    /// against each other and against what was staged before. Errors when the shard is not ready.
    pub fn stage(&self, commit: &HeadCommit, slice: Slice) -> Result<Staged, HeadError> {
        Ok(self.stage_in(self.ready()?, commit, slice))
    }

    /// As [`Shard::stage`], for who is not the shard's thread: `None`, with nothing done, if the partition is taken now.
    pub fn try_stage(&self, commit: &HeadCommit, slice: &mut Slice) -> Option<Result<Staged, HeadError>> {
        let partition = self.checked(self.partition.try_lock()?);
        Some(partition.map(|partition| self.stage_in(partition, commit, std::mem::take(slice))))
    }

    fn stage_in(&self, mut partition: MutexGuard<'_, Partition>, commit: &HeadCommit, slice: Slice) -> Staged {
        self.staging.store(true, Ordering::SeqCst);
        let (slot, batch, report) = partition.stage(commit.bounds, slice);
        self.staging.store(false, Ordering::SeqCst);
        Staged {
            shard: self.id(),
            generation: self.readers.generation(),
            slot,
            batch,
            stores_starts: self.shared.starts.stored,
            report,
            commit: Some(commit.commit.clone()),
            dropped: Arc::clone(&self.dropped),
            unlogged: Some(Arc::clone(&self.unlogged)),
        }
    }

    /// Applies a staged slice whose records the log has. It is applied after all slices that were staged before it;
    /// readers see it once all parts of its commit are applied. A shard that was rebuilt meanwhile has it if the log has.
    /// Errors when the shard is not ready, and when it was rebuilt without it.
    pub fn apply(&self, staged: Staged) -> Result<AppendReport, HeadError> {
        self.apply_in(self.ready()?, staged)
    }

    /// As [`Shard::apply`], for who is not the shard's thread: `None`, with nothing done, if the partition is taken now.
    pub fn try_apply(&self, staged: &mut Option<Staged>) -> Option<Result<AppendReport, HeadError>> {
        let partition = self.checked(self.partition.try_lock()?);
        let staged = staged.take()?;
        Some(partition.and_then(|partition| self.apply_in(partition, staged)))
    }

    fn apply_in(
        &self,
        mut partition: MutexGuard<'_, Partition>,
        mut staged: Staged,
    ) -> Result<AppendReport, HeadError> {
        assert_eq!(staged.shard, self.id(), "a slice is applied by the shard that staged it");
        if staged.generation != self.readers.generation() {
            if staged.unlogged.is_none() {
                staged.batch.store_exemplars(&self.shared.exemplars);
                // Its commit goes with it: what the log has was read back.
                staged.commit = None;
                return Ok(std::mem::take(&mut staged.report));
            }
            return Err(self.unavailable("it was rebuilt after the samples were checked"));
        }
        if let Some(commit) = staged.commit.take() {
            partition.apply(staged.slot, commit);
            drop(partition);
            reuse(&mut staged.batch);
        }
        Ok(std::mem::take(&mut staged.report))
    }

    /// For fault tests: the next batch panics while it is applied.
    #[cfg(debug_assertions)]
    pub fn tear_next(&self) {
        self.readers.tear.store(true, Ordering::SeqCst);
    }

    /// To be called by the restarted actor after a panic.
    pub fn recover(&self) -> Recovery {
        if self.readers.torn.load(Ordering::SeqCst) {
            return Recovery::MustRebuild;
        }
        if self.staging.swap(false, Ordering::SeqCst) {
            self.partition.lock().repair_staging();
        }
        Recovery::Kept
    }

    /// Throws the partition away: reads fail from now on, staged slices count as given up.
    pub fn begin_rebuild(&self, reason: impl Into<String>) {
        let mut partition = self.partition.lock();
        let generation = self.readers.generation() + 1;
        let state = ShardState::Rebuilding { reason: reason.into() };
        self.readers.status.store(Arc::new(Status { state, generation }));
        *partition = Partition::new(self.id(), Arc::clone(&self.shared), Arc::clone(&self.readers));
        self.readers.index.store(Arc::default());
        self.readers.late.store(Arc::default());
        self.readers.starts.clear();
        self.readers.torn.store(false, Ordering::SeqCst);
        self.staging.store(false, Ordering::SeqCst);
    }

    /// Ends a rebuild, or marks the shard as failed.
    pub fn set_state(&self, state: ShardState) {
        let generation = self.readers.generation();
        self.readers.status.store(Arc::new(Status { state, generation }));
    }

    /// The next merge of index segments that is worth its cost, to be run off the shard's thread.
    pub fn merge_job(&self) -> Option<MergeJob> {
        self.partition.lock().merge_job()
    }

    /// A look at series of which it is not known any more whether views see them, to be run off the shard's thread.
    pub fn look_job(&self) -> Option<LookJob> {
        self.partition.lock().look_job()
    }

    /// Puts a merged segment in place; one that comes too late is dropped.
    pub fn install(&self, merged: MergedSegment) {
        self.partition.lock().install(merged);
    }

    /// Series that selections scan, as they are not in a segment yet.
    pub fn tail_len(&self) -> usize {
        self.readers.index.load().tail.len()
    }

    /// Turns the newest series into a segment, so that selections need not scan them; for idle moments.
    pub fn seal_tail(&self) {
        let mut partition = self.partition.lock();
        if 0 < partition.index.tail.len() {
            partition.seal_tail();
        }
    }

    /// Tables of values that occur together, in all segments.
    #[cfg(test)]
    pub(crate) fn pairings_len(&self) -> usize {
        self.partition.lock().index.segments.iter().map(|segment| segment.pairings_len()).sum()
    }

    /// Orders the removal of samples before the head's lower bound; [`Shard::reclaim`] does it in steps.
    pub fn truncate(&self) {
        self.partition.lock().truncate();
    }

    /// Does the next step of an ordered truncation, looking at `series_max` series at most.
    pub fn reclaim(&self, series_max: usize) -> Reclaimed {
        let mut partition = self.partition.lock();
        self.collect_dropped(&mut partition);
        partition.reclaim(series_max)
    }

    /// Orders the removal of late samples up to `epoch`, for which blocks stand; [`Shard::reclaim`] does it in steps.
    pub(super) fn drop_late(&self, epoch: u64) {
        self.partition.lock().drop_late(epoch);
    }

    /// Series in its table.
    pub fn series_count(&self) -> usize {
        self.partition.lock().table.len()
    }

    /// True if a series with this reference is in its table, or was evicted and the log may still have samples of it that a start
    /// reads.
    pub fn holds(&self, series: SeriesRef) -> bool {
        let partition = self.partition.lock();
        partition.table.find(series).is_some() || partition.evicted.contains_key(&series)
    }

    /// What the log says of the series with this reference.
    pub fn metadata(&self, series: SeriesRef) -> Option<Arc<SeriesMetadata>> {
        self.partition.lock().metadata.get(&series).cloned()
    }

    /// What readers know of the series with this reference.
    pub(super) fn cell(&self, series: SeriesRef) -> Option<Arc<SeriesCell>> {
        let mut partition = self.partition.lock();
        let id = partition.table.find(series)?;
        partition.table.get_mut(id).map(|series| Arc::clone(&series.cell))
    }

    /// Gives up slices that were dropped, or applies them if the log has them; otherwise the next stage or apply does it.
    pub fn tidy(&self) {
        // Whoever holds it does the same, or restores it.
        let Some(mut partition) = self.partition.try_lock() else { return };
        if !self.readers.torn.load(Ordering::SeqCst) {
            self.collect_dropped(&mut partition);
        }
    }

    /// Staged slices that the log may still take.
    pub fn unlogged(&self) -> usize {
        Arc::strong_count(&self.unlogged) - 1
    }

    /// The number of the partition, which changes when it is thrown away; `None` while it is not whole.
    pub fn whole(&self) -> Option<u64> {
        let status = self.readers.status.load();
        (status.state == ShardState::Ready && !self.readers.torn.load(Ordering::SeqCst)).then_some(status.generation)
    }

    /// True if a panic has cut an applied batch short, and nothing was done about it yet.
    pub fn is_torn(&self) -> bool {
        self.state() == ShardState::Ready && self.readers.torn.load(Ordering::SeqCst)
    }

    /// The partition, for whoever restores it.
    pub(super) fn lock_partition(&self) -> MutexGuard<'_, Partition> {
        self.partition.lock()
    }

    fn ready(&self) -> Result<MutexGuard<'_, Partition>, HeadError> {
        // Asked before the lock as well: whoever rebuilds the partition holds it all the while.
        if let ShardState::Rebuilding { reason } | ShardState::Failed { reason } = self.readers.state() {
            return Err(self.unavailable(&reason));
        }
        self.checked(self.partition.lock())
    }

    /// The partition, if it is whole.
    fn checked<'a>(&self, mut partition: MutexGuard<'a, Partition>) -> Result<MutexGuard<'a, Partition>, HeadError> {
        match self.readers.state() {
            ShardState::Ready if self.readers.torn.load(Ordering::SeqCst) => {
                Err(self.unavailable("a panic has cut a commit short"))
            }
            ShardState::Ready => {
                // Whoever has staged last was cut short by a panic.
                if self.staging.swap(false, Ordering::SeqCst) {
                    partition.repair_staging();
                }
                self.collect_dropped(&mut partition);
                Ok(partition)
            }
            ShardState::Rebuilding { reason } | ShardState::Failed { reason } => Err(self.unavailable(&reason)),
        }
    }

    fn unavailable(&self, reason: &str) -> HeadError {
        HeadError::ShardUnavailable { shard: self.id().0, reason: reason.to_owned() }
    }

    fn collect_dropped(&self, partition: &mut Partition) {
        let dropped = std::mem::take(&mut *self.dropped.lock());
        let generation = self.readers.generation();
        for one in dropped {
            match one.logged {
                Some(_) if one.generation != generation => one.batch.store_exemplars(&self.shared.exemplars),
                None if one.generation != generation => {}
                Some(commit) => partition.apply(one.slot, commit),
                None => partition.abandon(one.slot),
            }
        }
        partition.apply_ready();
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;
    use crate::model::append::{AppendBatch, AppendSample, SeriesKey};
    use crate::model::clock::ManualClock;
    use crate::model::labels::Labels;
    use crate::model::matcher::Matcher;
    use crate::model::read::{FloatColumn, SampleSource, Unlimited};
    use crate::model::time::{TimeRange, TimestampMs};
    use crate::storage::head::{Head, HeadOptions};

    fn batch(at: i64) -> AppendBatch {
        let series = SeriesKey::Labels(Labels::from_pairs([("__name__", "up")]));
        AppendBatch::of_floats(vec![AppendSample { series, at: TimestampMs(at), value: 1.0 }])
    }

    fn head() -> Head {
        Head::new(HeadOptions::new(ManualClock::at(TimestampMs(1_000_000))))
    }

    fn select(head: &Head) -> Result<usize, ReadError> {
        let view = head.queryable().view()?;
        Ok(view.select(&[Matcher::equal("__name__", "up")], TimeRange::ALL, &Unlimited)?.len())
    }

    #[test]
    fn a_panic_between_the_marks_turns_readers_away_until_the_shard_is_rebuilt() {
        let head = head();
        head.append_blocking(batch(1000)).unwrap();
        let shard = &head.shards()[0];
        let before = head.queryable().view().unwrap();
        assert_eq!(shard.recover(), Recovery::Kept);
        catch_unwind(AssertUnwindSafe(|| {
            let _marks = Applying::begin(&shard.readers);
            panic!("while applying");
        }))
        .unwrap_err();
        assert_eq!(shard.recover(), Recovery::MustRebuild);
        assert!(matches!(select(&head), Err(ReadError::ShardUnavailable { shard: 0, .. })));
        assert!(head.append_blocking(batch(2000)).is_err());

        shard.begin_rebuild("a test");
        assert!(select(&head).unwrap_err().to_string().contains("a test"));
        shard.set_state(ShardState::Ready);
        assert_eq!((select(&head), head.stats().series, head.stats().chunks), (Ok(0), 0, 0));
        assert_eq!(head.append_blocking(batch(2000)).unwrap().created, 1);
        assert_eq!(select(&head), Ok(1));
        let old = before.select(&[Matcher::equal("__name__", "up")], TimeRange::ALL, &Unlimited);
        assert!(matches!(old, Err(ReadError::ShardUnavailable { .. })), "a view of the torn partition is not read");
    }

    #[test]
    fn views_see_commits_of_several_threads_whole() {
        const WRITERS: usize = 3;
        const SERIES: usize = 20;
        const COMMITS: usize = 200;
        let head = head();
        let shard = &head.shards()[0];
        let series_of = |writer: usize| -> Vec<SeriesKey> {
            let labels = |n: usize| Labels::from_pairs([("writer", writer.to_string()), ("n", n.to_string())]);
            let series = |n: usize| SeriesKey::Labels(labels(n));
            let first = (0..SERIES).map(|n| AppendSample { series: series(n), at: TimestampMs(1), value: 0.0 });
            let report = head.append_blocking(AppendBatch::of_floats(first.collect())).unwrap();
            report.resolved.into_iter().map(|(_, handle)| SeriesKey::Known(handle)).collect()
        };
        let known: Vec<Vec<SeriesKey>> = (0..WRITERS).map(series_of).collect();
        let append = |keys: &[SeriesKey], at: i64| {
            let sample = |key: &SeriesKey| AppendSample { series: key.clone(), at: TimestampMs(at), value: at as f64 };
            let mut slice = head.route(AppendBatch::of_floats(keys.iter().map(sample).collect())).remove(0).1;
            assert!(slice.is_usual());
            let commit = head.begin(None);
            let staged = std::iter::from_fn(|| Some(shard.try_stage(&commit, &mut slice))).flatten().next();
            drop(commit);
            let mut staged = Some(staged.unwrap().unwrap());
            let applied = std::iter::from_fn(|| Some(shard.try_apply(&mut staged))).flatten().next();
            assert_eq!(applied.unwrap().unwrap().appended as usize, SERIES);
        };
        let seen = |writer: usize| -> Vec<usize> {
            let view = head.queryable().view().unwrap();
            let matcher = Matcher::equal("writer", writer.to_string());
            let selected = view.select(&[matcher], TimeRange::ALL, &Unlimited).unwrap();
            let count = |samples: &dyn SampleSource| {
                let mut column = FloatColumn::default();
                samples.decode(TimeRange::ALL, &mut column).unwrap();
                column.len()
            };
            selected.iter().map(|series| count(&*series.samples)).collect()
        };
        std::thread::scope(|scope| {
            let append = &append;
            let start = |keys| scope.spawn(move || (2..=COMMITS).for_each(|at| append(keys, at as i64)));
            let writers: Vec<_> = known.iter().map(Vec::as_slice).map(start).collect();
            loop {
                let ended = writers.iter().all(|writer| writer.is_finished());
                for writer in 0..WRITERS {
                    let counts = seen(writer);
                    assert!(counts.len() == SERIES && counts.iter().all(|count| *count == counts[0]), "{counts:?}");
                    assert!(!ended || counts[0] == COMMITS, "{counts:?}");
                }
                if ended {
                    break;
                }
            }
        });
    }

    #[test]
    fn slices_staged_before_a_rebuild_are_given_up() {
        let head = head();
        let shard = &head.shards()[0];
        let commit = head.begin(None);
        let (_, slice) = head.route(batch(1000)).remove(0);
        let staged = shard.stage(&commit, slice).unwrap();
        drop(commit);
        shard.begin_rebuild("a test");
        shard.set_state(ShardState::Ready);
        assert!(shard.apply(staged).is_err());
        head.append_blocking(batch(1000)).unwrap();
        assert_eq!(select(&head), Ok(1), "the lost commit holds up nothing");
    }

    #[test]
    fn staging_that_panicked_leaves_no_trace() {
        let head = head();
        let shard = &head.shards()[0];
        head.append_blocking(batch(1000)).unwrap();
        let commit = head.begin(None);
        let waiting = shard.stage(&commit, head.route(batch(2000)).remove(0).1).unwrap();
        shard.staging.store(true, Ordering::SeqCst);
        assert_eq!(shard.recover(), Recovery::Kept);
        let late = shard.stage(&commit, head.route(batch(1500)).remove(0).1).unwrap();
        assert_eq!(late.report().rejected.len(), 1, "the waiting sample still counts");
        assert_eq!(shard.apply(waiting).unwrap().appended, 1);
    }
}
