//! The log of samples that came out of order (`wbl/`), in Prometheus's format: segments like those of the write-ahead log,
//! which hold samples and histograms of series that the write-ahead log names. It is written after that one, and what blocks
//! stand for is removed from it by whole segments.
//!
//! A marker says that all samples of a series which stand before it are in chunks of `chunks_head` up to a place, or behind it
//! once more. They are written while nothing of the series is on its way (`Shard::mark_late`), for Prometheus, which forgets what it
//! has of the series before one; a start of ours tells by the chunks themselves. What a start finds before a marker and in
//! no chunk is written again behind it ([`LateLog::repeat`]).

use std::io;
use std::path::{Path, PathBuf};

use crate::storage::fs::SharedFs;
use crate::storage::head::restore::Restorer;
use crate::storage::wal::histogram_record::RefHistogram;
use crate::storage::wal::loss::Loss;
use crate::storage::wal::marker_record::RefMarker;
use crate::storage::wal::metrics::WalMetrics;
use crate::storage::wal::record::{Record, RefSample, RefSeries};
use crate::storage::wal::segments::{list_segments, remove_unfinished, segment_name};
use crate::storage::wal::writer::{Position, Writer};
use crate::storage::wal::{
    Held, IoContext, LoadReport, Manifest, MissingPart, RecordSink, WalError, WalOptions, load_and_repair, read_until,
};

/// Name of the log's folder in the data directory.
pub const WBL_DIR: &str = "wbl";

/// Takes what the log holds.
struct LateSink<'r, 'head>(&'r mut Restorer<'head>);

impl RecordSink for LateSink<'_, '_> {
    fn series(&mut self, _: &mut Vec<RefSeries>) {}

    fn samples(&mut self, samples: &[RefSample]) {
        self.started_samples(samples, &[]);
    }

    fn histograms(&mut self, histograms: &[RefHistogram]) {
        self.started_histograms(histograms, &[]);
    }

    fn started_samples(&mut self, samples: &[RefSample], starts: &[i64]) {
        let starts = starts.iter().copied().chain(std::iter::repeat(0));
        samples.iter().zip(starts).for_each(|(one, start)| self.0.late_sample(one.series, (one.t, start), one.value));
    }

    fn started_histograms(&mut self, histograms: &[RefHistogram], starts: &[i64]) {
        let starts = starts.iter().copied().chain(std::iter::repeat(0));
        for (one, start) in histograms.iter().zip(starts) {
            self.0.late_histogram(one.series, (one.t, start), &one.value);
        }
    }

    fn markers(&mut self, markers: &[RefMarker]) {
        markers.iter().for_each(|one| self.0.late_marker(*one));
    }
}

/// Reads the log of `data_dir` back, if there is one, and repairs it. The series must be there already.
pub(crate) fn load(
    fs: &SharedFs,
    data_dir: &Path,
    metrics: &WalMetrics,
    restorer: &mut Restorer<'_>,
) -> Result<LoadReport, WalError> {
    let dir = data_dir.join(WBL_DIR);
    if !fs.exists(&dir).context("read", &dir)? || list_segments(&**fs, &dir)?.is_empty() {
        return Ok(missing_whole(fs, &dir, metrics));
    }
    remove_unfinished(&**fs, &dir)?;
    load_and_repair(fs, data_dir, &dir, metrics, &mut LateSink(restorer), None).map(|(report, _)| report)
}

/// What a log held that is not there, if there ever was one. See [`settle_missing`].
fn missing_whole(fs: &SharedFs, dir: &Path, metrics: &WalMetrics) -> LoadReport {
    let mut manifest = Manifest::open(fs, dir);
    let mut held = Held::default();
    manifest.rows().for_each(|row| held.add(row.held));
    if held.is_nothing() {
        return LoadReport::default();
    }
    metrics.corruptions.inc();
    manifest.reset(Vec::new());
    let missing = MissingPart { path: dir.to_path_buf(), loss: Loss::of(held) };
    LoadReport { lost: missing.loss, missing_files: vec![missing], ..LoadReport::default() }
}

/// Says what a log has cost that is not there at all: of its samples, `found` stand in chunks as well.
pub(crate) fn settle_missing(report: &mut LoadReport, found: u64, metrics: &WalMetrics) {
    if let [MissingPart { path, loss }] = &mut report.missing_files[..]
        && path.ends_with(WBL_DIR)
    {
        loss.samples = loss.samples.saturating_sub(found);
        loss.range = loss.range.filter(|_| 0 < loss.samples);
        // Of the samples in chunks, some may have been removed from the log, as blocks hold them.
        loss.is_reckoned |= 0 < found;
        tracing::warn!(component = "tsdb", path = %path.display(), samples = loss.samples, reckoned = loss.is_reckoned,
            range = ?loss.range, "the log of late samples is missing");
        metrics.lost_samples.add(loss.samples);
        report.lost = *loss;
    }
}

/// Reads the log beside a live writer, for a shard that is rebuilt. What is being written meanwhile belongs to other shards.
pub(crate) fn load_beside_writer(
    fs: &SharedFs,
    data_dir: &Path,
    restorer: &mut Restorer<'_>,
) -> Result<LoadReport, WalError> {
    let dir = data_dir.join(WBL_DIR);
    if !fs.exists(&dir).context("read", &dir)? {
        return Ok(LoadReport::default());
    }
    let end = Position { segment: u64::MAX, offset: 0 };
    read_until(fs, &dir, end, &mut LateSink(restorer))
}

/// Removes the segments before `first_kept`. What cannot be removed is removed by the next call.
pub fn remove_before(fs: &SharedFs, data_dir: &Path, first_kept: u64) -> Result<(), WalError> {
    let dir = data_dir.join(WBL_DIR);
    let mut has_removed = false;
    Manifest::open(fs, &dir).forget(|part| part.segment().is_some_and(|number| number < first_kept));
    for file in list_segments(&**fs, &dir)?.into_iter().filter(|file| file.segment < first_kept) {
        let path = dir.join(segment_name(file.segment));
        fs.remove_file(&path).context("remove", &path)?;
        has_removed = true;
    }
    if has_removed {
        // Should a power cut bring one back, it would bring back what is deleted of the blocks from now on.
        fs.sync_dir(&dir).context("sync", &dir)?;
    }
    Ok(())
}

/// Writes the log; its folder is made when the first sample comes.
pub struct LateLog {
    fs: SharedFs,
    data_dir: PathBuf,
    options: WalOptions,
    metrics: WalMetrics,
    writer: Option<Writer>,
}

impl LateLog {
    /// A writer of the log in `data_dir`, which has been read. Nothing is written yet.
    pub fn new(fs: SharedFs, data_dir: &Path, options: WalOptions, metrics: WalMetrics) -> Self {
        Self { fs, data_dir: data_dir.to_path_buf(), options, metrics, writer: None }
    }

    /// Writes the records of a batch of waiters, in one write. After an error none of them is in the log.
    pub fn append(&mut self, records: &[Record]) -> Result<(), WalError> {
        if records.is_empty() { Ok(()) } else { self.opened()?.append(records) }
    }

    /// Writes what a start has found before markers and in no chunk (`ReplayReport::late_again`), and returns when it survives a power
    /// cut. Chunks may be written only then: the first makes Prometheus believe markers of chunks that are gone.
    pub fn repeat(&mut self, records: &[Record]) -> Result<(), WalError> {
        self.append(records)?;
        self.sync()
    }

    /// Whether appending these records is a write and nothing else.
    pub fn only_writes(&self, records: &[Record]) -> bool {
        self.writer.as_ref().is_some_and(|writer| writer.only_writes(records))
    }

    /// From now on the last append cannot be taken back.
    pub fn settle_append(&mut self) {
        self.writer.iter_mut().for_each(Writer::settle_append);
    }

    /// Takes the last append back, as [`Writer::undo_append`] does.
    pub fn undo_append(&mut self) {
        self.writer.iter_mut().for_each(Writer::undo_append);
    }

    /// True if records may still be lost by a power cut.
    pub fn wants_sync(&self) -> bool {
        self.writer.as_ref().is_some_and(Writer::wants_sync)
    }

    /// Returns when all records so far survive a power cut.
    pub fn sync(&mut self) -> Result<(), WalError> {
        self.writer.as_mut().map_or(Ok(()), Writer::sync)
    }

    /// Goes on in a new segment, if anything was written.
    pub fn next_segment(&mut self) -> Result<(), WalError> {
        self.writer.as_mut().map_or(Ok(()), |writer| writer.next_segment().map(drop))
    }

    /// Ends what was written so far: records to come stand in the segment whose number is returned, or behind it. `None` if
    /// there is no log.
    pub fn cut(&mut self) -> Result<Option<u64>, WalError> {
        if let Some(writer) = &mut self.writer {
            return writer.next_segment().map(Some);
        }
        Ok(self.newest()?.map(|newest| newest + 1))
    }

    fn newest(&self) -> Result<Option<u64>, WalError> {
        let dir = self.data_dir.join(WBL_DIR);
        match self.fs.list(&dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            _ => Ok(list_segments(&*self.fs, &dir)?.last().map(|file| file.segment)),
        }
    }

    fn opened(&mut self) -> Result<&mut Writer, WalError> {
        if self.writer.is_none() {
            let dir = self.data_dir.join(WBL_DIR);
            self.fs.create_dir_all(&dir).context("create", &dir)?;
            self.fs.sync_dir(&self.data_dir).context("sync", &self.data_dir)?;
            let next = self.newest()?.map_or(0, |newest| newest + 1);
            let writer = Writer::create(self.fs.clone(), &dir, next, self.options, self.metrics.clone())?;
            let manifest = Manifest::open(&self.fs, &dir);
            self.writer = Some(writer.with_manifest(manifest.shared()));
        }
        self.writer.as_mut().ok_or(WalError::Unsettled)
    }
}
