//! Reads a whole log: the newest checkpoint, then the segments behind it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::model::sample::SeriesRef;
use crate::storage::fs::SharedFs;
use crate::storage::wal::ahead::{Inflated, each_record};
use crate::storage::wal::compare::{Beginning, ReadFile, settle_checkpoint, tell_missing};
use crate::storage::wal::exemplar_record::{RefExemplar, decode_exemplars};
use crate::storage::wal::fragment::Compression;
use crate::storage::wal::held::Held;
use crate::storage::wal::histogram_record::{RefHistogram, decode_started_histograms};
use crate::storage::wal::loss::{self, Loss};
use crate::storage::wal::manifest::{FirstBytes, Manifest, Part, Row};
use crate::storage::wal::marker_record::{RefMarker, decode_markers};
use crate::storage::wal::metadata_record::{RefMetadata, decode_metadata};
use crate::storage::wal::metrics::WalMetrics;
use crate::storage::wal::reader::{Inflater, SegmentReader};
use crate::storage::wal::record::{
    self, RecordError, RecordKind, RefSample, RefSeries, decode_series, decode_started_samples,
};
use crate::storage::wal::segments::{SegmentFile, checkpoint_name, list_checkpoints, list_segments, segment_name};
use crate::storage::wal::tombstone_record::{RefTombstone, decode_tombstones};
use crate::storage::wal::writer::Position;
use crate::storage::wal::{IoContext, WalError};
use crate::storage::wbl::WBL_DIR;

/// Takes what a log holds, in its order.
pub trait RecordSink {
    /// Series of one record; the sink may take them out.
    fn series(&mut self, series: &mut Vec<RefSeries>);
    /// Samples of one record.
    fn samples(&mut self, samples: &[RefSample]);
    /// Histograms of one record.
    fn histograms(&mut self, histograms: &[RefHistogram]);
    /// Start times of the samples or histograms of one record, if it has them: series, time and start.
    fn starts(&mut self, _: &mut dyn Iterator<Item = (SeriesRef, i64, i64)>) {}
    /// Samples of one record with a start each, of which 0 is none: both by themselves, where the sink has no use for them together.
    fn started_samples(&mut self, samples: &[RefSample], starts: &[i64]) {
        self.samples(samples);
        self.starts(&mut samples.iter().zip(starts).map(|(sample, start)| (sample.series, sample.t, *start)));
    }
    /// The same for histograms.
    fn started_histograms(&mut self, histograms: &[RefHistogram], starts: &[i64]) {
        self.histograms(histograms);
        self.starts(&mut histograms.iter().zip(starts).map(|(one, start)| (one.series, one.t, *start)));
    }
    /// Deleted ranges of one record.
    fn tombstones(&mut self, _: &[RefTombstone]) {}
    /// Exemplars of one record.
    fn exemplars(&mut self, _: &[RefExemplar]) {}
    /// Metadata of one record.
    fn metadata(&mut self, _: &[RefMetadata]) {}
    /// Markers of chunks of one record.
    fn markers(&mut self, _: &[RefMarker]) {}
    /// True if records with start times, which would be lost, are to come as other records.
    fn keeps_start_times(&self) -> bool {
        false
    }
    /// A record of another kind, type byte included.
    fn other(&mut self, _: RecordKind, _: &[u8]) {}
}

/// A stretch of a segment that was lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentDamage {
    /// The segment's file.
    pub path: PathBuf,
    /// Where the lost record begins.
    pub offset: u64,
    /// Bytes up to the next sound record.
    pub len: u64,
    /// What is wrong, in words.
    pub error: String,
    /// Whether it is the unfinished end of the newest segment, as a crash leaves it.
    pub torn_end: bool,
    /// What it has cost.
    pub loss: Loss,
}

/// A file or folder of the log that is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissingPart {
    /// Where it would stand.
    pub path: PathBuf,
    /// What it has cost.
    pub loss: Loss,
}

/// What reading a log has found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadReport {
    /// Segments read, those of the checkpoint included.
    pub segments: u64,
    /// Records by kind.
    pub records: BTreeMap<RecordKind, u64>,
    /// Samples read.
    pub samples: u64,
    /// The largest series reference of any record read.
    pub ref_max: u64,
    /// What was lost; [`super::Log::open`] has repaired it.
    pub damage: Vec<SegmentDamage>,
    /// Segments that are missing between others; empty ones stand there now.
    pub missing: Vec<MissingPart>,
    /// What else has to be there and is not: the checkpoint or parts of it, the first or last segments, a whole log.
    pub missing_files: Vec<MissingPart>,
    /// What all damage and all missing files have cost.
    pub lost: Loss,
}

impl LoadReport {
    /// Tells as well what an earlier reading of the same log has found and mended.
    pub(crate) fn add_found(&mut self, earlier: Self) {
        self.damage.splice(0..0, earlier.damage);
        self.missing.splice(0..0, earlier.missing);
        self.missing_files.splice(0..0, earlier.missing_files);
        self.lost.add(earlier.lost);
    }

    /// Notes that something is not there.
    pub(super) fn miss(&mut self, path: PathBuf, loss: Loss, is_filled: bool) {
        tracing::warn!(component = "tsdb", path = %path.display(), samples = loss.samples, reckoned = loss.is_reckoned,
            series = loss.series, deletions = loss.deletions, range = ?loss.range, "a part of the write log is missing");
        self.lost.add(loss);
        let list = if is_filled { &mut self.missing } else { &mut self.missing_files };
        list.push(MissingPart { path, loss });
    }

    /// Records that were passed over, by kind.
    pub fn skipped(&self) -> impl Iterator<Item = (RecordKind, u64)> + '_ {
        let skipped = |kind: &RecordKind| {
            use RecordKind::{Exemplars, Histograms, Metadata, MmapMarkers, Samples, SamplesV2, Series, Tombstones};
            let is_read = matches!(kind, Series | Samples | SamplesV2 | Histograms | Tombstones | Exemplars);
            !is_read && !matches!(kind, Metadata | MmapMarkers)
        };
        self.records.iter().filter(move |(kind, _)| skipped(kind)).map(|(kind, n)| (*kind, *n))
    }
}

/// Reads the log's records up to `until` without changing anything, as when a shard is rebuilt beside a live writer.
pub fn read_until(
    fs: &SharedFs,
    wal_dir: &Path,
    until: Position,
    sink: &mut dyn RecordSink,
) -> Result<LoadReport, WalError> {
    let mut loader = Loader::new(sink);
    let (checkpoint, segments) = plan(fs, wal_dir)?;
    for (dir, file) in checkpoint {
        let damage = loader.read_segment(fs, &dir.join(segment_name(file.segment)), None)?;
        loader.report.damage.extend(damage);
    }
    for file in segments {
        if until.segment < file.segment {
            break;
        }
        let limit = (file.segment == until.segment).then_some(until.offset);
        let damage = loader.read_segment(fs, &wal_dir.join(segment_name(file.segment)), limit)?;
        loader.report.damage.extend(damage);
    }
    Ok(loader.report)
}

pub(crate) fn load_and_repair(
    fs: &SharedFs,
    data_dir: &Path,
    wal_dir: &Path,
    metrics: &WalMetrics,
    sink: &mut dyn RecordSink,
    from: Option<Position>,
) -> Result<(LoadReport, Manifest), WalError> {
    let mut loader = Loader::new(sink);
    let mut manifest = Manifest::open(fs, wal_dir);
    // Segments of the log of late samples go without a checkpoint.
    let has_checkpoints = !wal_dir.ends_with(WBL_DIR);
    if from.is_none() {
        fill_checkpoint(fs, wal_dir, &mut loader.report)?;
    }
    let (mut checkpoint, mut segments) = plan(fs, wal_dir)?;
    if let Some(from) = from {
        checkpoint.clear();
        segments.retain(|file| from.segment <= file.segment);
        loader.start = from.offset;
    }
    let newest = segments.last().map(|file| file.segment);
    let covered = list_checkpoints(&**fs, wal_dir)?.last().copied();
    let first = covered.or_else(|| segments.first().map(|file| file.segment)).unwrap_or(0);
    // The segment that is begun behind the last counts as well.
    metrics.progress.begin(first, newest.max(covered).map_or(0, |newest| newest + 1));
    let files = checkpoint
        .into_iter()
        .map(|(dir, file)| (dir.join(segment_name(file.segment)), None, first))
        .chain(segments.iter().map(|f| (wal_dir.join(segment_name(f.segment)), Some(f.segment), f.segment)));
    let (mut read, mut in_checkpoint) = (Vec::new(), Held::default());
    for (path, segment, number) in files {
        let is_whole = loader.start == 0;
        let row = segment.filter(|_| is_whole).and_then(|segment| manifest.row(Part::Segment(segment)));
        loader.within.0 = row.map_or(0, |row| row.len);
        let damage = loader.read_segment(fs, &path, None)?;
        if segment.is_none() {
            in_checkpoint.add(loader.held);
        }
        metrics.progress.read(number);
        let (len, start) = std::mem::take(&mut loader.file);
        read.push(ReadFile {
            path,
            segment,
            len,
            start,
            is_mended: false,
            row,
            is_whole,
            held: loader.held,
            within: loader.within.1,
            damage,
        });
    }
    for at in 0..read.len() {
        let (before, rest) = read.split_at_mut(at);
        let Some(one) = rest.first_mut() else { break };
        one.compare();
        if !one.damage.is_empty() {
            let before = before.last().map(|before| before.path.as_path());
            one.mend((fs, data_dir), before, one.segment.is_some() && one.segment == newest)?;
        }
    }
    settle_checkpoint(&manifest, covered, in_checkpoint, &mut read, &mut loader.report.lost);
    metrics.corruptions.add(read.iter().filter(|one| !one.damage.is_empty()).count() as u64);
    let from_is_sound = read.first().is_none_or(|one| one.damage.is_empty());
    let damage: Vec<SegmentDamage> = read.iter_mut().flat_map(|one| std::mem::take(&mut one.damage)).collect();
    for one in &damage {
        tracing::warn!(component = "tsdb", path = %one.path.display(), offset = one.offset, bytes = one.len,
            torn_end = one.torn_end, error = %one.error, samples = one.loss.samples,
            reckoned = one.loss.is_reckoned, series = one.loss.series, deletions = one.loss.deletions,
            range = ?one.loss.range, "repaired the write log");
        loader.report.lost.add(one.loss);
    }
    loader.report.damage.extend(damage);
    if let Some(newest) = newest {
        // What a process had not synced when it was killed: nobody syncs this segment any more, and an orderly stop promises all.
        let path = wal_dir.join(segment_name(newest));
        if let Err(error) = fs.open_write(&path).and_then(|file| file.sync_data()) {
            tracing::warn!(component = "tsdb", path = %path.display(), %error, "the newest segment cannot be synced");
        }
    }
    // What stands before a snapshot was not read, and misses nothing.
    let begins = match from {
        Some(from) => Beginning::Snapshot(from.segment),
        None => match covered {
            Some(covered) => Beginning::Behind(covered),
            None if has_checkpoints => Beginning::Zero,
            None => Beginning::Anywhere,
        },
    };
    fill_gaps((fs, wal_dir), &segments, begins, &manifest, &mut loader.report)?;
    tell_missing(wal_dir, &segments, begins, &manifest, &mut loader.report);
    let mut rows: Vec<Row> = read.iter().filter_map(|one| one.now(fs)).collect();
    if let Beginning::Snapshot(from) = begins {
        // They were not read, and go with the next checkpoint.
        let read_anew: Vec<Part> = rows.iter().map(|row| row.part).collect();
        rows.extend(manifest.rows().filter(|row| match row.part {
            // One that was read from its middle is known as before, unless it was repaired.
            Part::Segment(number) if number == from => from_is_sound && !read_anew.contains(&row.part),
            Part::Segment(number) => number < from,
            Part::Checkpoint(_) => true,
        }));
    } else if let Some(covered) = covered {
        rows.push(Row::of_checkpoint(covered, in_checkpoint));
    }
    manifest.reset(rows);
    let report = loader.report;
    metrics.corruptions.add(report.missing.len() as u64 + report.missing_files.len() as u64);
    metrics.lost_samples.add(report.lost.samples);
    Ok((report, manifest))
}

type CheckpointFiles = Vec<(PathBuf, SegmentFile)>;

/// The files to read, in their order.
fn plan(fs: &SharedFs, wal_dir: &Path) -> Result<(CheckpointFiles, Vec<SegmentFile>), WalError> {
    let mut segments = list_segments(&**fs, wal_dir)?;
    let Some(covered) = list_checkpoints(&**fs, wal_dir)?.last().copied() else {
        return Ok((Vec::new(), segments));
    };
    let dir = wal_dir.join(checkpoint_name(covered));
    let files = list_segments(&**fs, &dir)?.into_iter().map(|file| (dir.clone(), file)).collect();
    segments.retain(|file| covered < file.segment);
    Ok((files, segments))
}

/// With what the log began: its newest checkpoint, or its first segment if nothing was removed yet. Another program that has
/// written here since may have removed what was known.
fn known_beginning(manifest: &Manifest, segments: &[SegmentFile]) -> Option<Row> {
    let newest_known = manifest.rows().filter_map(|row| row.part.segment()).max();
    let checkpoint = manifest.rows().filter(|row| row.part < Part::Segment(0)).max_by_key(|row| row.part);
    let is_foreign = newest_known < segments.last().map(|file| file.segment);
    checkpoint.or_else(|| manifest.row(Part::Segment(0)).filter(|_| !is_foreign))
}

/// Puts empty segments where numbers are missing: Prometheus does not open a log with gaps.
fn fill_gaps(
    (fs, wal_dir): (&SharedFs, &Path),
    segments: &[SegmentFile],
    begins: Beginning,
    manifest: &Manifest,
    report: &mut LoadReport,
) -> Result<(), WalError> {
    let path_of = |segment: u64| wal_dir.join(segment_name(segment));
    let mut gaps: Vec<(Option<u64>, u64)> = segments
        .windows(2)
        .filter_map(|pair| match pair {
            [before, after] if before.segment + 1 < after.segment => Some((Some(before.segment), after.segment)),
            _ => None,
        })
        .collect();
    match (begins, segments.first()) {
        (Beginning::Behind(covered), Some(first)) if covered + 1 < first.segment => {
            gaps.push((Some(covered), first.segment));
        }
        (Beginning::Zero, Some(first)) if 0 < first.segment => {
            let covered = match known_beginning(manifest, segments) {
                Some(Row { part: Part::Checkpoint(covered), held, .. }) if covered < first.segment => {
                    report.miss(wal_dir.join(checkpoint_name(covered)), Loss::of(held), false);
                    Some(covered)
                }
                // There was no checkpoint yet.
                Some(Row { part: Part::Segment(0), .. }) => None,
                _ => {
                    report.miss(wal_dir.join(checkpoint_name(first.segment - 1)), Loss::UNKNOWN, false);
                    Some(first.segment - 1)
                }
            };
            if covered.map_or(0, |covered| covered + 1) < first.segment {
                gaps.push((covered, first.segment));
            }
        }
        _ => {}
    }
    let mut files: Vec<PathBuf> = segments.iter().map(|file| path_of(file.segment)).collect();
    files.sort();
    let mut in_checkpoint = Vec::new();
    if let Beginning::Behind(covered) = begins {
        // What it stands for came before all of them.
        let dir = wal_dir.join(checkpoint_name(covered));
        in_checkpoint.extend(list_segments(&**fs, &dir)?.iter().map(|file| dir.join(segment_name(file.segment))));
    }
    for (before, after) in gaps {
        let missing = before.map_or(0, |before| before + 1)..after;
        let is_before = |path: &&PathBuf| **path < path_of(after);
        let near = || {
            let before = files.iter().rev().filter(is_before).chain(in_checkpoint.iter().rev());
            loss::of_gap(fs, before, files.iter().filter(|path| !is_before(path)))
        };
        let mut reckoned = None;
        for number in missing {
            let row = manifest.row(Part::Segment(number));
            let loss = row.map_or_else(|| *reckoned.get_or_insert_with(near), |row| Loss::of(row.held));
            report.miss(path_of(number), loss, true);
        }
    }
    for missing in &report.missing {
        fs.create(&missing.path).context("create", &missing.path)?;
    }
    if !report.missing.is_empty() {
        fs.sync_dir(wal_dir).context("sync", wal_dir)?;
    }
    Ok(())
}

/// Puts empty segments where some of the newest checkpoint's are missing, as Prometheus does not read it with gaps.
fn fill_checkpoint(fs: &SharedFs, wal_dir: &Path, report: &mut LoadReport) -> Result<(), WalError> {
    let Some(covered) = list_checkpoints(&**fs, wal_dir)?.last().copied() else { return Ok(()) };
    let dir = wal_dir.join(checkpoint_name(covered));
    let files = list_segments(&**fs, &dir)?;
    let end = files.last().map_or(1, |last| last.segment + 1);
    for missing in (0..end).filter(|number| !files.iter().any(|file| file.segment == *number)) {
        let path = dir.join(segment_name(missing));
        fs.create(&path).context("create", &path)?;
        fs.sync_dir(&dir).context("sync", &dir)?;
        report.miss(path, Loss::UNKNOWN, false);
    }
    Ok(())
}

/// Passes one record on, as if it stood in a log.
pub fn pass_on(record: &[u8], sink: &mut dyn RecordSink) -> Result<(), RecordError> {
    Loader::new(sink).take(Compression::None, record)
}

struct Loader<'a> {
    sink: &'a mut dyn RecordSink,
    report: LoadReport,
    /// Where reading begins in the next segment.
    start: u64,
    /// Length of the last segment, and how it begins.
    file: (u64, FirstBytes),
    /// What the last record holds.
    taken: Held,
    /// What the last segment holds, and of that what stands before `within.0`.
    held: Held,
    within: (u64, Held),
    inflater: Inflater,
    series: Vec<RefSeries>,
    samples: Vec<RefSample>,
    histograms: Vec<RefHistogram>,
}

impl<'a> Loader<'a> {
    fn new(sink: &'a mut dyn RecordSink) -> Self {
        let (series, samples, histograms) = (Vec::new(), Vec::new(), Vec::new());
        let (report, inflater) = (LoadReport::default(), Inflater::default());
        let (taken, held, within) = (Held::default(), Held::default(), (0, Held::default()));
        Self {
            sink,
            report,
            start: 0,
            file: Default::default(),
            taken,
            held,
            within,
            inflater,
            series,
            samples,
            histograms,
        }
    }

    /// Reads one segment; returns what is damaged in it.
    fn read_segment(&mut self, fs: &SharedFs, path: &Path, limit: Option<u64>) -> Result<Vec<SegmentDamage>, WalError> {
        let file = fs.open(path).context("open", path)?;
        self.file = FirstBytes::of(&*file).context("read", path)?;
        let mut reader = SegmentReader::new(file, limit).context("read", path)?;
        reader.skip_to(std::mem::take(&mut self.start));
        let mut damage = Vec::new();
        self.report.segments += 1;
        (self.held, self.within.1) = (Held::default(), Held::default());
        let mut inflater = std::mem::take(&mut self.inflater);
        let done = each_record(reader, &mut inflater, &mut |found| {
            let lost = |offset, end: u64, error: String| SegmentDamage {
                path: path.to_path_buf(),
                offset,
                len: end - offset,
                error,
                torn_end: false,
                loss: Loss::default(),
            };
            match found {
                Inflated::Damage(found) => damage.push(lost(found.offset, found.resumed, found.error.to_string())),
                Inflated::Record { offset, end, compression, bytes } => {
                    match bytes.and_then(|bytes| self.take(compression, bytes)) {
                        Ok(()) => {
                            self.held.add(self.taken);
                            if end <= self.within.0 {
                                self.within.1.add(self.taken);
                            }
                        }
                        Err(error) => damage.push(lost(offset, end, error.to_string())),
                    }
                }
            }
        });
        self.inflater = inflater;
        done.context("read", path).map(|()| damage)
    }

    /// Takes a record's decompressed bytes.
    fn take(&mut self, compression: Compression, bytes: &[u8]) -> Result<(), RecordError> {
        self.taken = Held::default();
        let kind = RecordKind::of(bytes);
        if kind == RecordKind::Unknown && compression == Compression::None && reads_as_snappy(bytes) {
            // The checksum does not cover the flags: a flipped bit there, not a record of the future.
            return Err(RecordError::Compression);
        }
        match kind {
            RecordKind::Series => {
                self.series.clear();
                decode_series(bytes, &mut self.series)?;
                let max = self.series.iter().map(|s| s.series.0).max().unwrap_or(0);
                self.report.ref_max = self.report.ref_max.max(max);
                self.taken = Held::of_series(self.series.len());
                self.sink.series(&mut self.series);
            }
            RecordKind::SamplesV2 | RecordKind::Histograms
                if record::has_start_times(bytes) && self.sink.keeps_start_times() =>
            {
                self.taken = Held::of_record(bytes).unwrap_or_default();
                self.sink.other(kind, bytes);
            }
            RecordKind::Histograms => {
                self.histograms.clear();
                let mut starts = Vec::new();
                decode_started_histograms(bytes, &mut self.histograms, &mut starts)?;
                let max = self.histograms.iter().map(|h| h.series.0).max().unwrap_or(0);
                self.report.ref_max = self.report.ref_max.max(max);
                self.report.samples += self.histograms.len() as u64;
                self.taken = Held::of_times(self.histograms.iter().map(|one| one.t));
                match starts[..] {
                    [] => self.sink.histograms(&self.histograms),
                    _ => self.sink.started_histograms(&self.histograms, &starts),
                }
                self.histograms.clear();
            }
            RecordKind::Samples | RecordKind::SamplesV2 => {
                self.samples.clear();
                let mut starts = Vec::new();
                let largest = decode_started_samples(bytes, &mut self.samples, &mut starts)?;
                self.report.ref_max = self.report.ref_max.max(largest.0);
                self.report.samples += self.samples.len() as u64;
                self.taken = Held::of_times(self.samples.iter().map(|one| one.t));
                match starts[..] {
                    [] => self.sink.samples(&self.samples),
                    _ => self.sink.started_samples(&self.samples, &starts),
                }
            }
            RecordKind::Tombstones => {
                let tombstones = decode_tombstones(bytes)?;
                // Of a series that is gone its ranges may be all that is left, and its reference must not be used again.
                let max = tombstones.iter().map(|one| one.series.0).max().unwrap_or(0);
                self.report.ref_max = self.report.ref_max.max(max);
                self.taken = Held::of_deletions(tombstones.len());
                self.sink.tombstones(&tombstones);
            }
            RecordKind::Metadata => {
                let mut metadata = Vec::new();
                decode_metadata(bytes, &mut metadata)?;
                self.sink.metadata(&metadata);
            }
            RecordKind::Exemplars => {
                let mut exemplars = Vec::new();
                decode_exemplars(bytes, &mut exemplars)?;
                let max = exemplars.iter().map(|e| e.series.0).max().unwrap_or(0);
                self.report.ref_max = self.report.ref_max.max(max);
                self.sink.exemplars(&exemplars);
            }
            RecordKind::MmapMarkers => self.sink.markers(&decode_markers(bytes)?),
            _ => self.sink.other(kind, bytes),
        }
        *self.report.records.entry(kind).or_default() += 1;
        Ok(())
    }
}

/// True if the bytes are a compressed record of a kind that we know.
fn reads_as_snappy(data: &[u8]) -> bool {
    let mut inflater = Inflater::default();
    inflater.inflate(Compression::Snappy, data).is_ok_and(|bytes| RecordKind::of(bytes) != RecordKind::Unknown)
}
