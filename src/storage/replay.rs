//! From the log back into the head: at start, and for one shard after a panic tore it.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::model::append::ShardId;
use crate::model::labels::Labels;
use crate::model::sample::SeriesRef;
use crate::model::time::TimestampMs;
use crate::storage::chunk::written::{ChunkPlace, WrittenChunk};
use crate::storage::chunk_snapshot::{self, Snapshot, SnapshotError, SnapshotSink};
use crate::storage::fs::SharedFs;
use crate::storage::head::Head;
use crate::storage::head::image::OpenImage;
use crate::storage::head::restore::{RestoreStats, Restorer};
use crate::storage::head::shard::ShardState;
use crate::storage::head_chunk_files::{self, Extent};
use crate::storage::head_chunk_repair::{self, ChunkDamage};
use crate::storage::head_chunk_store::{ChunkStore, Files};
use crate::storage::head_chunks::{self, HeadChunk, LateInFiles};
use crate::storage::late_floor;
use crate::storage::wal::exemplar_record::{RefExemplar, decode_exemplars};
use crate::storage::wal::histogram_record::RefHistogram;
use crate::storage::wal::loss::Loss;
use crate::storage::wal::metadata_record::RefMetadata;
use crate::storage::wal::metrics::WalMetrics;
use crate::storage::wal::record::{Record, RefSample, RefSeries};
use crate::storage::wal::tombstone_record::RefTombstone;
use crate::storage::wal::writer::{Position, Writer};
use crate::storage::wal::{IoContext, LoadReport, Log, RecordSink, WAL_DIR, WalError, WalOptions, pass_on, read_until};
use crate::storage::wbl;
use crate::telemetry::allocator;

/// What a start has found in the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplayReport {
    /// Of the files: what was read, damaged and repaired.
    pub log: LoadReport,
    /// Of the log of samples that came out of order.
    pub late_log: LoadReport,
    /// Records that the log of those has to get once more before chunks are written: see [`wbl::LateLog::repeat`].
    pub late_again: Vec<Record>,
    /// The last of the files with head chunks that hold samples which came out of order and were read into the head.
    pub late_chunk_file: Option<u64>,
    /// Of the head: what came into it.
    pub head: RestoreStats,
    /// Damage of the files of finished chunks, which were repaired.
    pub chunk_damage: Vec<ChunkDamage>,
    /// Why a snapshot was not used.
    pub snapshot_error: Option<String>,
    /// What the head was read from.
    pub from: ReadFrom,
    /// How long it took.
    pub took: Duration,
}

/// What a head was read from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReadFrom {
    /// A snapshot, the files of finished chunks, and what the log has behind it.
    Snapshot,
    /// The files of finished chunks and the log.
    #[default]
    ChunksAndLog,
    /// The log alone: the chunks do not go with it.
    Log,
}

/// References of other series' later records, by the later reference. A checkpoint has to keep their records as long as
/// the series lives.
pub type Aliases = HashMap<SeriesRef, SeriesRef>;

impl RecordSink for Restorer<'_> {
    fn series(&mut self, series: &mut Vec<RefSeries>) {
        for one in series.drain(..) {
            self.take_series(one.series, one.labels);
        }
    }

    fn samples(&mut self, samples: &[RefSample]) {
        for sample in samples {
            self.sample(sample.series, sample.t, sample.value);
        }
    }

    fn histograms(&mut self, histograms: &[RefHistogram]) {
        for one in histograms {
            self.histogram(one.series, one.t, &one.value);
        }
    }

    fn starts(&mut self, starts: &mut dyn Iterator<Item = (SeriesRef, i64, i64)>) {
        starts.for_each(|(series, t, start)| self.start(series, t, start));
    }

    fn tombstones(&mut self, tombstones: &[RefTombstone]) {
        for one in tombstones {
            self.tombstone(one.series, one.interval);
        }
    }

    fn exemplars(&mut self, exemplars: &[RefExemplar]) {
        exemplars.iter().for_each(|one| self.exemplar(one));
    }

    fn metadata(&mut self, metadata: &[RefMetadata]) {
        metadata.iter().for_each(|one| Restorer::metadata(self, one.series, &one.metadata));
    }
}

/// What the head is filled from, in the order in which they are tried.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Source {
    /// A snapshot, finished chunks, and what the log has behind it.
    Snapshot(Snapshot),
    /// Finished chunks and the log.
    ChunksAndLog,
    /// The log alone.
    Log,
}

/// Fills an empty head from what stands in `data_dir`, and makes the log ready to be written: from a snapshot and what the log has
/// behind it, or from all of the log. Samples before `oldest`, the bound of retention, are passed over, and so are series that
/// have no others.
pub fn open(
    fs: &SharedFs,
    data_dir: &Path,
    options: WalOptions,
    metrics: &WalMetrics,
    head: &Head,
    oldest: TimestampMs,
) -> Result<(Writer, ReplayReport), WalError> {
    let begun = metrics.clock.monotonic();
    // One of another program does not say which chunks go with it: should some be missing, nothing would tell.
    let is_ours = |snapshot: &Snapshot| !matches!(snapshot.notes(fs, data_dir), Ok(None));
    let (snapshot, foreign) = match chunk_snapshot::usable(fs, data_dir)? {
        Some(snapshot) if is_ours(&snapshot) => (Some(snapshot), None),
        found => (None, found),
    };
    let sources = snapshot.map(Source::Snapshot).into_iter().chain([Source::ChunksAndLog, Source::Log]);
    let (mut earlier, mut chunk_damage, mut snapshot_error) = (LoadReport::default(), Vec::new(), None);
    let files = Files::new(fs, data_dir, metrics.of_chunks());
    let late_from = late_floor::load(&**fs, data_dir);
    for source in sources {
        let mut restorer = head.restore(None, oldest);
        // Beside a snapshot files are sound to their end.
        let tail = if snapshot_error.is_none() { Tail::MayBeTorn } else { Tail::MustBeSound };
        let from_files = (fs, data_dir, &files, late_from);
        let prepared = prepare(from_files, (&source, tail), &mut restorer, (metrics, &mut chunk_damage));
        let reason = match prepared {
            Ok(Prepared { known, late }) => {
                let from = known.as_ref().map(|known| known.position);
                let opened = Log::open_from(fs, data_dir, options, metrics, &mut restorer, from);
                let (writer, mut log) = opened?;
                // What is read without chunks fits by itself.
                if restorer.settle() == 0 || source == Source::Log {
                    let has_late = fs.exists(&data_dir.join(wbl::WBL_DIR)).context("read", data_dir)?;
                    // What one step has let go of would count beside what the next one takes.
                    let give_back = || {
                        if has_late {
                            allocator::give_back();
                        }
                    };
                    give_back();
                    let aliases = known.iter().flat_map(|known| &known.aliases);
                    aliases.for_each(|(reference, first)| restorer.alias(*reference, *first));
                    if late.is_some() {
                        let last = head_chunk_files::list(&**fs, data_dir)?.last().map_or(0, |file| file.number);
                        head.attach_chunks(ChunkStore::new(Arc::clone(&files), last));
                    }
                    let adopts_late = late.is_some_and(|late| late.give(&mut restorer));
                    give_back();
                    // Whatever the rest comes from: the log of late samples is read from its beginning.
                    let mut late_log = wbl::load(fs, data_dir, metrics, &mut restorer)?;
                    let late_again = restorer.late_again();
                    give_back();
                    let late_chunk_file = match adopts_late {
                        true => None,
                        false => restore_late((fs, data_dir, late_from), &mut restorer, (metrics, &mut chunk_damage))?,
                    };
                    settle_cost(&mut chunk_damage, &mut restorer, metrics);
                    if let Some(foreign) = &foreign
                        && let Err(error) = foreign.read(fs, &mut ExemplarsAlone(&mut restorer))
                    {
                        metrics.snapshot_errors.inc();
                        snapshot_error = Some(error.to_string());
                        tracing::error!(component = "tsdb", dir = %foreign.dir().display(), %error,
                            "Exemplars of the chunk snapshot cannot be read; samples are read from chunks and log");
                    }
                    let mut restored = restorer.finish();
                    wbl::settle_missing(&mut late_log, restored.late, metrics);
                    if let Some(known) = known {
                        head.note_aliases(known.aliases.values());
                        restored.aliases.extend(known.aliases);
                        head.reserve_refs(known.ref_max);
                    }
                    // Without this, series whose samples are all too old would stay for ever.
                    head.truncate_blocking(oldest);
                    metrics.unknown_sample_refs.add(restored.unknown_refs);
                    metrics.unknown_metadata_refs.add(restored.unknown_metadata_refs);
                    metrics.unknown_exemplar_refs.add(restored.unknown_exemplar_refs);
                    log.add_found(earlier);
                    let took = metrics.clock.monotonic().saturating_sub(begun);
                    let from = source.what();
                    let report = ReplayReport {
                        log,
                        late_log,
                        late_again,
                        late_chunk_file,
                        head: restored,
                        chunk_damage,
                        snapshot_error,
                        from,
                        took,
                    };
                    return Ok((writer, report));
                }
                log.add_found(earlier);
                earlier = log;
                "the chunks of a series do not fit".to_owned()
            }
            // The log alone is read in the end, whose errors are the start's.
            Err(error) => {
                if let Source::Snapshot(snapshot) = &source {
                    metrics.snapshot_errors.inc();
                    snapshot_error = Some(error.to_string());
                    tracing::error!(component = "tsdb", dir = %snapshot.dir().display(), %error,
                        "The chunk snapshot is not used; nothing is lost, as the log holds what it holds");
                    if error.is_of_snapshot() {
                        snapshot.set_aside(fs, data_dir);
                    }
                }
                error.to_string()
            }
        };
        tracing::warn!(component = "tsdb", from = ?source.what(), err = reason, "The head is read from more of the log");
        restorer.abandon();
        head.forget_restored(&reason);
    }
    unreachable!("the log alone is enough")
}

impl Source {
    fn what(&self) -> ReadFrom {
        match self {
            Self::Snapshot(_) => ReadFrom::Snapshot,
            Self::ChunksAndLog => ReadFrom::ChunksAndLog,
            Self::Log => ReadFrom::Log,
        }
    }
}

/// What is known of the log before a place.
struct Known {
    position: Position,
    aliases: Aliases,
    ref_max: u64,
}

/// Takes late chunks from the files, which are repaired if one is damaged.
fn restore_late(
    (fs, data_dir, from): (&SharedFs, &Path, ChunkPlace),
    restorer: &mut Restorer<'_>,
    (metrics, damage): (&WalMetrics, &mut Vec<ChunkDamage>),
) -> Result<Option<u64>, WalError> {
    let (last, is_whole) = head_chunks::restore_late(fs, data_dir, from, restorer)?;
    if is_whole {
        return Ok(last);
    }
    repair_chunks(fs, data_dir, metrics, damage)?;
    head_chunks::restore_late(fs, data_dir, from, restorer).map(|(last, _)| last)
}

fn repair_chunks(
    fs: &SharedFs,
    data_dir: &Path,
    metrics: &WalMetrics,
    damage: &mut Vec<ChunkDamage>,
) -> Result<(), WalError> {
    let found = head_chunk_repair::repair(fs, data_dir)?;
    metrics.chunk_corruptions.add(found.len() as u64);
    damage.extend(found.into_iter().filter(|one| !damage.contains(one)).collect::<Vec<_>>());
    Ok(())
}

/// Says of each damage what it has cost: samples that their log holds as well have cost nothing.
fn settle_cost(damage: &mut [ChunkDamage], restorer: &mut Restorer<'_>, metrics: &WalMetrics) {
    for one in damage {
        if let Some(late) = one.late {
            let held = restorer.late_between(late.series, late.range);
            let samples = late.samples.saturating_sub(held);
            let range = Some(late.range).filter(|_| 0 < samples);
            one.loss = Loss { samples, range, ..Loss::default() };
        }
        metrics.lost_samples.add(one.loss.samples);
        tracing::warn!(component = "tsdb", path = %one.path.display(), offset = one.offset, bytes = one.len,
            samples = one.loss.samples, reckoned = one.loss.is_reckoned, range = ?one.loss.range,
            "head chunks are damaged; the original is kept, and what is sound goes on");
    }
}

/// Whether the last file of finished chunks may end within a chunk.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Tail {
    /// As it may after a kill: what is cut off stands in the log.
    MayBeTorn,
    MustBeSound,
}

/// What there is beside the log.
#[derive(Default)]
struct Prepared {
    /// Of a snapshot.
    known: Option<Known>,
    /// Chunks of samples that came out of order, if all chunks in the files are among those that were read.
    late: Option<LateInFiles>,
}

/// Reads what is there beside the log.
fn prepare(
    (fs, data_dir, files, late_from): (&SharedFs, &Path, &Arc<Files>, ChunkPlace),
    (source, tail): (&Source, Tail),
    restorer: &mut Restorer<'_>,
    (metrics, damage): (&WalMetrics, &mut Vec<ChunkDamage>),
) -> Result<Prepared, SnapshotError> {
    let notes = match source {
        Source::Snapshot(snapshot) => snapshot.notes(fs, data_dir)?,
        Source::ChunksAndLog => None,
        Source::Log => return Ok(Prepared::default()),
    };
    // A snapshot names a series once; chunks may stand under another of its references.
    let none = Aliases::new();
    let aliases = notes.as_ref().map_or(&none, |notes| &notes.aliases);
    let read = |restorer: &mut Restorer<'_>| {
        let mut late = LateInFiles::from(late_from);
        read_chunks((fs, data_dir, files), aliases, restorer, Some(&mut late)).map(|extent| (extent, late))
    };
    let (mut extent, late) = read(restorer)?;
    // A snapshot needs the files of its time whole.
    let may_cut = |file: u64, len: u64| match source {
        Source::Snapshot(_) => notes.as_ref().is_some_and(|notes| notes.last_file().is_none_or(|last| last < file)),
        // One that holds nothing is no loss in any case.
        Source::ChunksAndLog | Source::Log => tail == Tail::MayBeTorn || len == 0,
    };
    if let Extent::Torn { file, len } = extent
        && may_cut(file, len)
    {
        head_chunk_files::cut(&**fs, data_dir, file, len)?;
        tracing::info!(component = "tsdb", file, len, "The last file of head chunks ended within a chunk and was cut");
        extent = Extent::Whole;
    }
    let is_whole = extent == Extent::Whole;
    if !is_whole {
        repair_chunks(fs, data_dir, metrics, damage)?;
    }
    let Source::Snapshot(snapshot) = source else {
        // What is left behind the damage is of use as well.
        let (extent, late) = if is_whole { (extent, late) } else { read(restorer)? };
        return Ok(Prepared { known: None, late: Some(late).filter(|_| extent == Extent::Whole) });
    };
    if !is_whole {
        return Err(SnapshotError::Chunks("one is damaged"));
    }
    let mut sink = FromSnapshot { restorer: &mut *restorer, series: 0 };
    snapshot.read(fs, &mut sink)?;
    let notes = notes.filter(|notes| notes.series() == sink.series).ok_or(SnapshotError::Notes)?;
    let ref_max = notes.next_ref.saturating_sub(1);
    let known = Known { position: snapshot.position, aliases: notes.aliases, ref_max };
    Ok(Prepared { known: Some(known), late: Some(late) })
}

/// Gives all finished chunks to `restorer`, in place of those that it has been given; those of `aliases` as the first's. Chunks of
/// samples that came out of order go to `late`. Returns how far files could be read.
fn read_chunks(
    (fs, data_dir, files): (&SharedFs, &Path, &Arc<Files>),
    aliases: &Aliases,
    restorer: &mut Restorer<'_>,
    mut late: Option<&mut LateInFiles>,
) -> Result<Extent, WalError> {
    restorer.set_files(files);
    let mut take = |series: SeriesRef, chunk: WrittenChunk| {
        restorer.chunk(aliases.get(&series).copied().unwrap_or(series), chunk);
    };
    let mut take_late = |file: u64, chunk: &HeadChunk<'_>| {
        if let Some(late) = &mut late {
            late.take(file, chunk);
        }
    };
    head_chunk_files::read(&**fs, data_dir, &mut take, &mut take_late)
}

struct FromSnapshot<'a, 'b> {
    restorer: &'a mut Restorer<'b>,
    series: u64,
}

impl SnapshotSink for FromSnapshot<'_, '_> {
    fn series(&mut self, series: SeriesRef, labels: Labels, open: Option<OpenImage>) {
        self.series += 1;
        self.restorer.series_with(series, labels, open);
    }

    fn record(&mut self, bytes: &[u8]) {
        // One that cannot be read is none that we know.
        let _ = pass_on(bytes, self.restorer);
    }
}

/// Passes exemplars on, and nothing else.
struct ExemplarsAlone<'a, 'b>(&'a mut Restorer<'b>);

impl SnapshotSink for ExemplarsAlone<'_, '_> {
    fn series(&mut self, _: SeriesRef, _: Labels, _: Option<OpenImage>) {}

    fn record(&mut self, bytes: &[u8]) {
        let mut exemplars = Vec::new();
        // A record of another kind is none of exemplars.
        if decode_exemplars(bytes, &mut exemplars).is_ok() {
            exemplars.iter().for_each(|one| self.0.exemplar_of_snapshot(one));
        }
    }
}

/// Fills a shard again from its finished chunks and the log after a panic, up to `until`, where the writer stands. Call
/// [`crate::storage::head::shard::Shard::begin_rebuild`] first; on success the shard is ready, else it has failed.
/// The other shards and the writer go on meanwhile.
pub fn rebuild_shard(
    fs: &SharedFs,
    data_dir: &Path,
    head: &Head,
    shard: ShardId,
    until: Position,
) -> Result<RestoreStats, WalError> {
    let mut read = rebuild_from(fs, (data_dir, until), head, shard, head.chunk_store().map(|store| &**store));
    let found = head.shards().iter().find(|s| s.id() == shard);
    if let Some(store) = head.chunk_store()
        && let Some(found) = found
        && read.as_ref().map_or(true, |stats| 0 < stats.misfits)
    {
        tracing::warn!(component = "tsdb", shard = shard.0, "Head chunks do not go with the log; no more are written");
        store.give_up();
        found.begin_rebuild("its chunks do not go with the log");
        read = rebuild_from(fs, (data_dir, until), head, shard, None);
    }
    let state = match &read {
        Ok(_) => ShardState::Ready,
        Err(error) => ShardState::Failed { reason: error.to_string() },
    };
    if let Some(shard) = found {
        shard.truncate();
        shard.set_state(state);
    }
    read
}

fn rebuild_from(
    fs: &SharedFs,
    (data_dir, until): (&Path, Position),
    head: &Head,
    shard: ShardId,
    store: Option<&ChunkStore>,
) -> Result<RestoreStats, WalError> {
    let mut restorer = head.restore(Some(shard), TimestampMs(i64::MIN));
    if let Some(store) = store {
        // Nothing is added meanwhile, and nothing afterwards that the shard had before.
        let appender = store.lock();
        let extent = read_chunks((fs, data_dir, store.files()), &Aliases::new(), &mut restorer, None)?;
        drop(appender);
        if extent != Extent::Whole {
            store.give_up();
        }
    }
    let read = read_until(fs, &data_dir.join(WAL_DIR), until, &mut restorer);
    // What Prometheus has left in head chunks stands in the log of late samples as well, or in blocks by now.
    let read = read.and_then(|_| wbl::load_beside_writer(fs, data_dir, &mut restorer));
    let misfits = restorer.settle();
    let stats = restorer.finish();
    read.map(|_| RestoreStats { misfits, ..stats })
}

/// True if a record of `series` has to stay in the log: it lives in the head, under this reference or another.
pub fn is_live(head: &Head, aliases: &Aliases, series: SeriesRef) -> bool {
    let holds = |series| head.shards().iter().any(|shard| shard.holds(series));
    holds(series) || aliases.get(&series).is_some_and(|first| holds(*first))
}

/// Tells a checkpoint which series references are still in use; `None` when that cannot be known, as a shard's partition
/// is thrown away and read back from the very files that the checkpoint is to replace.
pub fn keeper<'a>(head: &'a Head, aliases: &'a Aliases) -> impl FnMut(SeriesRef) -> Option<bool> + 'a {
    let whole = || head.shards().iter().map(|shard| shard.whole()).collect::<Option<Vec<u64>>>();
    let before = whole();
    move |series| {
        let live = is_live(head, aliases, series);
        (live || before.is_some() && whole() == before).then_some(live)
    }
}

#[cfg(test)]
mod chunk_tests;
#[cfg(test)]
mod exemplar_tests;
#[cfg(test)]
mod mending_tests;
#[cfg(test)]
mod snapshot_tests;
#[cfg(test)]
mod start_tests;
#[cfg(test)]
mod tests;
