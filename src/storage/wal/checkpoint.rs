//! Drops what the head no longer needs: the oldest segments become a checkpoint, which holds what is still needed.
//!
//! By Prometheus's rule two thirds of the finished segments go at a time. The checkpoint is written to a temporary
//! folder, synced and renamed; only then the segments are removed. A crash in between leaves segments that the
//! checkpoint stands for, and the next start passes them over.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::model::give_way::give_way;
use crate::model::metadata::SeriesMetadata;
use crate::model::sample::SeriesRef;
use crate::model::time::TimestampMs;
use crate::storage::fs::SharedFs;
use crate::storage::wal::exemplar_record::{RefExemplar, encode_exemplars};
use crate::storage::wal::held::Held;
use crate::storage::wal::histogram_record::{RefHistogram, encode_histograms};
use crate::storage::wal::load::{RecordSink, read_until};
use crate::storage::wal::manifest::{Part, Row, SharedManifest};
use crate::storage::wal::metadata_record::{RefMetadata, encode_metadata};
use crate::storage::wal::metrics::WalMetrics;
use crate::storage::wal::record::{Record, RecordKind, RefSample, RefSeries, encode_samples, encode_series};
use crate::storage::wal::segments::{checkpoint_name, list_checkpoints, list_segments, segment_name};
use crate::storage::wal::tombstone_record::{RefTombstone, encode_tombstones};
use crate::storage::wal::writer::{Position, Writer};
use crate::storage::wal::{IoContext, WalError, WalOptions};

/// Bytes of records that are gathered before they are written.
const BATCH_LEN: usize = 4 << 20;

/// What a checkpoint has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CheckpointStats {
    /// Segments up to this one are gone.
    pub covered: u64,
    /// Series kept and dropped.
    pub series: (u64, u64),
    /// Samples kept and dropped.
    pub samples: (u64, u64),
}

/// A checkpoint to be made of finished segments, beside the live writer.
pub struct CheckpointJob {
    fs: SharedFs,
    dir: PathBuf,
    options: WalOptions,
    metrics: WalMetrics,
    manifest: Option<SharedManifest>,
    /// The last segment that it stands for.
    last: u64,
    /// Deleted ranges that end from here on are kept, though the samples around go.
    deletions_from: i64,
}

impl Writer {
    /// Ends the current segment and plans a checkpoint of two thirds of the others; `None` if there are too few.
    /// The job reads finished segments only, so it may run on another thread.
    pub fn plan_checkpoint(&mut self) -> Result<Option<CheckpointJob>, WalError> {
        let newest = self.position().segment;
        let first = self.first_segment()?;
        self.next_segment()?;
        let last = first + newest.saturating_sub(first) * 2 / 3;
        if last <= first {
            return Ok(None);
        }
        let (fs, dir) = (self.fs().clone(), self.dir().to_path_buf());
        Ok(Some(CheckpointJob {
            fs,
            dir,
            options: self.options(),
            metrics: self.metrics().clone(),
            manifest: self.manifest().cloned(),
            last,
            deletions_from: i64::MAX,
        }))
    }
}

impl CheckpointJob {
    /// Keeps deleted ranges that end at `oldest` or later as well: they hide samples that came out of order and are kept elsewhere.
    #[must_use]
    pub fn keeping_deletions(self, oldest: Option<TimestampMs>) -> Self {
        Self { deletions_from: oldest.map_or(i64::MAX, |at| at.0), ..self }
    }

    /// The last segment that the checkpoint is to stand for.
    pub fn last_segment(&self) -> u64 {
        self.last
    }

    /// Writes the checkpoint and removes what it stands for. `keep` tells which series references are still in use, or that
    /// it cannot tell; samples before `min_valid` are dropped. On an error the log is as before.
    pub fn run(
        self,
        min_valid: TimestampMs,
        keep: &mut dyn FnMut(SeriesRef) -> Option<bool>,
    ) -> Result<CheckpointStats, WalError> {
        self.metrics.truncations.inc();
        self.metrics.checkpoints.inc();
        let begun = self.metrics.clock.monotonic();
        let result = self.write(min_valid, keep);
        self.metrics.truncate_seconds.observe(self.metrics.clock.monotonic().saturating_sub(begun).as_secs_f64());
        if result.is_err() {
            self.metrics.checkpoints_failed.inc();
            self.metrics.truncations_failed.inc();
        }
        result
    }

    fn write(
        &self,
        min_valid: TimestampMs,
        keep: &mut dyn FnMut(SeriesRef) -> Option<bool>,
    ) -> Result<CheckpointStats, WalError> {
        let name = checkpoint_name(self.last);
        let temporary = self.dir.join(format!("{name}.tmp"));
        if self.fs.exists(&temporary).context("read", &temporary)? {
            self.fs.remove_dir_all(&temporary).context("remove", &temporary)?;
        }
        self.fs.create_dir_all(&temporary).context("create", &temporary)?;
        let options = WalOptions { hold_unsynced: false, ..self.options };
        // A registry of its own: a checkpoint is not the log.
        let metrics = WalMetrics::new(&Default::default(), &self.metrics.clock);
        let writer = Writer::create(self.fs.clone(), &temporary, 0, options, metrics)?;
        let stats = CheckpointStats { covered: self.last, ..CheckpointStats::default() };
        let (batch, metadata) = (Vec::new(), BTreeMap::new());
        let mut filter = Filter {
            keep,
            min_valid: min_valid.0,
            deletions_from: self.deletions_from.min(min_valid.0),
            writer,
            stats,
            batch,
            metadata,
            len: 0,
            held: Held::default(),
            failed: None,
        };
        let until = Position { segment: self.last, offset: u64::MAX };
        let read = read_until(&self.fs, &self.dir, until, &mut filter)?;
        if let Some(damage) = read.damage.into_iter().next() {
            // The next start repairs it, with a copy of the original; here it would be lost for good.
            return Err(WalError::Damaged { path: damage.path, offset: damage.offset, reason: damage.error });
        }
        let (stats, held) = filter.finish()?;
        self.fs.sync_dir(&temporary).context("sync", &temporary)?;
        let target = self.dir.join(&name);
        self.fs.rename(&temporary, &target).context("rename", &temporary)?;
        self.fs.sync_dir(&self.dir).context("sync", &self.dir)?;
        if let Some(manifest) = &self.manifest {
            let mut manifest = manifest.lock();
            manifest.note(Row::of_checkpoint(self.last, held));
            manifest.forget(|part| match part {
                Part::Segment(number) => number <= self.last,
                Part::Checkpoint(number) => number < self.last,
            });
        }
        self.remove_covered();
        Ok(stats)
    }

    /// What cannot be removed is passed over by readers and removed by the next checkpoint.
    fn remove_covered(&self) {
        let remove = || -> Result<(), WalError> {
            for file in list_segments(&*self.fs, &self.dir)? {
                if file.segment <= self.last {
                    let path = self.dir.join(segment_name(file.segment));
                    self.fs.remove_file(&path).context("remove", &path)?;
                }
            }
            for checkpoint in list_checkpoints(&*self.fs, &self.dir)? {
                if checkpoint < self.last {
                    let path = self.dir.join(checkpoint_name(checkpoint));
                    self.fs.remove_dir_all(&path).context("remove", &path)?;
                }
            }
            Ok(())
        };
        self.metrics.checkpoint_deletions.inc();
        if let Err(error) = remove() {
            self.metrics.checkpoint_deletions_failed.inc();
            tracing::warn!(component = "tsdb", dir = %Path::display(&self.dir), %error,
                "cannot remove segments that a checkpoint stands for");
        }
    }
}

/// Passes on what is still needed.
struct Filter<'a> {
    keep: &'a mut dyn FnMut(SeriesRef) -> Option<bool>,
    min_valid: i64,
    deletions_from: i64,
    writer: Writer,
    stats: CheckpointStats,
    batch: Vec<Record>,
    /// The latest of each series, written at the end.
    metadata: BTreeMap<SeriesRef, SeriesMetadata>,
    len: usize,
    /// What was written.
    held: Held,
    failed: Option<WalError>,
}

impl Filter<'_> {
    fn flush(&mut self) {
        self.batch.iter().for_each(|record| self.held.add(record.held()));
        if self.failed.is_none()
            && let Err(error) = self.writer.append(&self.batch)
        {
            self.failed = Some(error);
        }
        self.batch.clear();
        self.len = 0;
    }

    fn count(&mut self, from: usize) {
        give_way();
        self.len += self.batch.iter().skip(from).map(|r| r.as_bytes().len()).sum::<usize>();
        let max = BATCH_LEN.min(usize::try_from(self.writer.options().segment_len / 4).unwrap_or(BATCH_LEN));
        if max <= self.len {
            self.flush();
        }
    }

    fn finish(mut self) -> Result<(CheckpointStats, Held), WalError> {
        encode_metadata(self.metadata.iter().map(|(series, metadata)| (*series, metadata)), &mut self.batch);
        self.flush();
        match self.failed {
            Some(error) => Err(error),
            None => self.writer.sync().map(|()| (self.stats, self.held)),
        }
    }
}

impl RecordSink for Filter<'_> {
    fn series(&mut self, series: &mut Vec<RefSeries>) {
        let (all, from) = (series.len(), self.batch.len());
        series.retain(|s| match (self.keep)(s.series) {
            Some(keep) => keep,
            None => {
                self.failed.get_or_insert(WalError::Unsettled);
                false
            }
        });
        self.stats.series.0 += series.len() as u64;
        self.stats.series.1 += (all - series.len()) as u64;
        encode_series(series.iter().map(|s| (s.series, &s.labels)), &mut self.batch);
        self.count(from);
    }

    fn samples(&mut self, samples: &[RefSample]) {
        let from = self.batch.len();
        let min_valid = self.min_valid;
        let kept = samples.iter().filter(|s| min_valid <= s.t);
        let count = kept.clone().count() as u64;
        self.stats.samples.0 += count;
        self.stats.samples.1 += samples.len() as u64 - count;
        encode_samples(kept.copied(), &mut self.batch);
        self.count(from);
    }

    fn histograms(&mut self, histograms: &[RefHistogram]) {
        let from = self.batch.len();
        let min_valid = self.min_valid;
        let kept = histograms.iter().filter(|h| min_valid <= h.t);
        let count = kept.clone().count() as u64;
        self.stats.samples.0 += count;
        self.stats.samples.1 += histograms.len() as u64 - count;
        encode_histograms(kept.map(|h| (h.series, h.t, &h.value)), &mut self.batch);
        self.count(from);
    }

    fn tombstones(&mut self, tombstones: &[RefTombstone]) {
        let from = self.batch.len();
        let mut kept = Vec::with_capacity(tombstones.len());
        for one in tombstones.iter().filter(|one| self.deletions_from <= one.interval.max_t) {
            match (self.keep)(one.series) {
                Some(true) => kept.push(*one),
                Some(false) => {}
                None => {
                    self.failed.get_or_insert(WalError::Unsettled);
                }
            }
        }
        encode_tombstones(kept, &mut self.batch);
        self.count(from);
    }

    fn exemplars(&mut self, exemplars: &[RefExemplar]) {
        let from = self.batch.len();
        let kept = exemplars.iter().filter(|e| self.min_valid <= e.exemplar.at.0);
        encode_exemplars(kept.map(|e| (e.series, &e.exemplar)), &mut self.batch);
        self.count(from);
    }

    fn metadata(&mut self, metadata: &[RefMetadata]) {
        for RefMetadata { series, metadata } in metadata {
            match (self.keep)(*series) {
                Some(true) => drop(self.metadata.insert(*series, metadata.clone())),
                Some(false) => {}
                None => drop(self.failed.get_or_insert(WalError::Unsettled)),
            }
        }
    }

    fn keeps_start_times(&self) -> bool {
        true
    }

    /// What we do not read stays as it is: the directory may go back to a program that does.
    fn other(&mut self, _: RecordKind, bytes: &[u8]) {
        let from = self.batch.len();
        self.batch.push(Record::holding(Held::of_record(bytes).unwrap_or_default(), bytes.to_vec()));
        self.count(from);
    }
}
