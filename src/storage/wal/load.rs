//! Reads a whole log: the newest checkpoint, then the segments behind it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::storage::fs::SharedFs;
use crate::storage::wal::exemplar_record::{RefExemplar, decode_exemplars};
use crate::storage::wal::fragment::Compression;
use crate::storage::wal::histogram_record::{RefHistogram, decode_histograms};
use crate::storage::wal::metadata_record::{RefMetadata, decode_metadata};
use crate::storage::wal::metrics::WalMetrics;
use crate::storage::wal::reader::{Inflater, Item, SegmentReader};
use crate::storage::wal::record::{self, RecordKind, RefSample, RefSeries, decode_samples, decode_series};
use crate::storage::wal::repair::repair_segment;
use crate::storage::wal::segments::{SegmentFile, checkpoint_name, list_checkpoints, list_segments, segment_name};
use crate::storage::wal::tombstone_record::{RefTombstone, decode_tombstones};
use crate::storage::wal::writer::Position;
use crate::storage::wal::{IoContext, WalError};

/// Takes what a log holds, in its order.
pub trait RecordSink {
    /// Series of one record; the sink may take them out.
    fn series(&mut self, series: &mut Vec<RefSeries>);
    /// Samples of one record.
    fn samples(&mut self, samples: &[RefSample]);
    /// Histograms of one record.
    fn histograms(&mut self, histograms: &[RefHistogram]);
    /// Deleted ranges of one record.
    fn tombstones(&mut self, _: &[RefTombstone]) {}
    /// Exemplars of one record.
    fn exemplars(&mut self, _: &[RefExemplar]) {}
    /// Metadata of one record.
    fn metadata(&mut self, _: &[RefMetadata]) {}
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
    /// Numbers that are missing between the segments; empty segments stand there now.
    pub missing: Vec<u64>,
}

impl LoadReport {
    /// Records that were passed over, by kind.
    pub fn skipped(&self) -> impl Iterator<Item = (RecordKind, u64)> + '_ {
        let skipped = |kind: &RecordKind| {
            use RecordKind::{Exemplars, Histograms, Metadata, Samples, SamplesV2, Series, Tombstones};
            !matches!(kind, Series | Samples | SamplesV2 | Histograms | Tombstones | Exemplars | Metadata)
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
) -> Result<LoadReport, WalError> {
    let mut loader = Loader::new(sink);
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
        .map(|(dir, file)| (dir.join(segment_name(file.segment)), false, first))
        .chain(segments.iter().map(|f| (wal_dir.join(segment_name(f.segment)), Some(f.segment) == newest, f.segment)));
    for (path, is_newest, number) in files {
        let mut damage = loader.read_segment(fs, &path, None)?;
        metrics.progress.read(number);
        if damage.is_empty() {
            continue;
        }
        metrics.corruptions.inc();
        repair_segment(fs, data_dir, &path, is_newest, &mut damage)?;
        for one in &damage {
            tracing::warn!(component = "tsdb", path = %one.path.display(), offset = one.offset, bytes = one.len,
                torn_end = one.torn_end, error = %one.error, "repaired the write log");
        }
        loader.report.damage.extend(damage);
    }
    fill_gaps(fs, wal_dir, &segments, &mut loader.report)?;
    Ok(loader.report)
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

/// Puts empty segments where numbers are missing: Prometheus does not open a log with gaps.
fn fill_gaps(fs: &SharedFs, wal_dir: &Path, segments: &[SegmentFile], report: &mut LoadReport) -> Result<(), WalError> {
    for pair in segments.windows(2) {
        let [before, after] = pair else { continue };
        report.missing.extend(before.segment + 1..after.segment);
    }
    for missing in &report.missing {
        let path = wal_dir.join(segment_name(*missing));
        fs.create(&path).context("create", &path)?;
        tracing::warn!(component = "tsdb", path = %path.display(), "a segment of the write log is missing");
    }
    if !report.missing.is_empty() {
        fs.sync_dir(wal_dir).context("sync", wal_dir)?;
    }
    Ok(())
}

/// Passes one record on, as if it stood in a log.
pub fn pass_on(record: &[u8], sink: &mut dyn RecordSink) -> Result<(), record::RecordError> {
    Loader::new(sink).take(Compression::None, record)
}

struct Loader<'a> {
    sink: &'a mut dyn RecordSink,
    report: LoadReport,
    /// Where reading begins in the next segment.
    start: u64,
    inflater: Inflater,
    series: Vec<RefSeries>,
    samples: Vec<RefSample>,
    histograms: Vec<RefHistogram>,
}

impl<'a> Loader<'a> {
    fn new(sink: &'a mut dyn RecordSink) -> Self {
        let (series, samples, histograms) = (Vec::new(), Vec::new(), Vec::new());
        let (report, inflater) = (LoadReport::default(), Inflater::default());
        Self { sink, report, start: 0, inflater, series, samples, histograms }
    }

    /// Reads one segment; returns what is damaged in it.
    fn read_segment(&mut self, fs: &SharedFs, path: &Path, limit: Option<u64>) -> Result<Vec<SegmentDamage>, WalError> {
        let file = fs.open(path).context("open", path)?;
        let mut reader = SegmentReader::new(file, limit).context("read", path)?;
        reader.skip_to(std::mem::take(&mut self.start));
        let mut damage = Vec::new();
        self.report.segments += 1;
        while let Some(item) = reader.next_item().context("read", path)? {
            let lost = |offset, end: u64, error: String| SegmentDamage {
                path: path.to_path_buf(),
                offset,
                len: end - offset,
                error,
                torn_end: false,
            };
            match item {
                Item::Damage(found) => damage.push(lost(found.offset, found.resumed, found.error.to_string())),
                Item::Record { offset, end, compression, data } => {
                    if let Err(error) = self.take(compression, data) {
                        damage.push(lost(offset, end, error.to_string()));
                    }
                }
            }
        }
        Ok(damage)
    }

    fn take(&mut self, compression: Compression, data: &[u8]) -> Result<(), super::record::RecordError> {
        let bytes = self.inflater.inflate(compression, data)?;
        let kind = RecordKind::of(bytes);
        match kind {
            RecordKind::Series => {
                self.series.clear();
                decode_series(bytes, &mut self.series)?;
                let max = self.series.iter().map(|s| s.series.0).max().unwrap_or(0);
                self.report.ref_max = self.report.ref_max.max(max);
                self.sink.series(&mut self.series);
            }
            RecordKind::SamplesV2 | RecordKind::Histograms
                if record::has_start_times(bytes) && self.sink.keeps_start_times() =>
            {
                self.sink.other(kind, bytes);
            }
            RecordKind::Histograms => {
                self.histograms.clear();
                decode_histograms(bytes, &mut self.histograms)?;
                let max = self.histograms.iter().map(|h| h.series.0).max().unwrap_or(0);
                self.report.ref_max = self.report.ref_max.max(max);
                self.report.samples += self.histograms.len() as u64;
                self.sink.histograms(&self.histograms);
                self.histograms.clear();
            }
            RecordKind::Samples | RecordKind::SamplesV2 => {
                self.samples.clear();
                decode_samples(bytes, &mut self.samples)?;
                let max = self.samples.iter().map(|s| s.series.0).max().unwrap_or(0);
                self.report.ref_max = self.report.ref_max.max(max);
                self.report.samples += self.samples.len() as u64;
                self.sink.samples(&self.samples);
            }
            RecordKind::Tombstones => {
                let tombstones = decode_tombstones(bytes)?;
                // Of a series that is gone its ranges may be all that is left, and its reference must not be used again.
                let max = tombstones.iter().map(|one| one.series.0).max().unwrap_or(0);
                self.report.ref_max = self.report.ref_max.max(max);
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
            _ => self.sink.other(kind, bytes),
        }
        *self.report.records.entry(kind).or_default() += 1;
        Ok(())
    }
}
