//! Holds what a log has against what its manifest says of it: ends that are cut off, parts that are gone, and what exactly they cost.

use std::path::{Path, PathBuf};

use crate::storage::fs::SharedFs;
use crate::storage::reserve;
use crate::storage::wal::WalError;
use crate::storage::wal::held::Held;
use crate::storage::wal::load::{LoadReport, SegmentDamage};
use crate::storage::wal::loss::{self, Loss};
use crate::storage::wal::manifest::{FirstBytes, Manifest, Part, Row, Start};
use crate::storage::wal::repair::repair_segment;
use crate::storage::wal::segments::SegmentFile;

/// Where the first segment of a log has to be.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Beginning {
    /// Whatever was dropped from the start, a checkpoint would stand for it.
    Zero,
    /// Behind the last one that a checkpoint covers.
    Behind(u64),
    /// Those before this one are known from elsewhere.
    Snapshot(u64),
    Anywhere,
}

/// A segment that was read.
pub(super) struct ReadFile {
    pub(super) path: PathBuf,
    /// Its number; `None` for one of the checkpoint.
    pub(super) segment: Option<u64>,
    /// Its bytes.
    pub(super) len: u64,
    /// How it begins.
    pub(super) start: FirstBytes,
    /// Whether a repair has changed it.
    pub(super) is_mended: bool,
    /// What it has been promised to hold.
    pub(super) row: Option<Row>,
    /// Whether it was read from its beginning.
    pub(super) is_whole: bool,
    /// What it holds, and of that what stands in the bytes that the row is about.
    pub(super) held: Held,
    pub(super) within: Held,
    pub(super) damage: Vec<SegmentDamage>,
}

impl ReadFile {
    /// Compares it with its row: an end that is missing is damage as well. A row of another file is dropped.
    pub(super) fn compare(&mut self) {
        let Some(row) = self.row else { return };
        let begins_damaged = self.damage.first().is_some_and(|one| one.offset == 0);
        if !begins_damaged && !row.start.is_of(&self.start) {
            self.row = None;
            return;
        }
        let len = self.len;
        let is_less = self.damage.is_empty() && !row.held.without(self.within).is_nothing();
        if len < row.len || is_less {
            let missing = row.len.saturating_sub(len);
            let error = format!("it ends {missing} bytes before what was written to it");
            let (path, loss) = (self.path.clone(), Loss::default());
            self.damage.push(SegmentDamage {
                path,
                offset: len.min(row.len),
                len: missing,
                error,
                torn_end: false,
                loss,
            });
        }
    }

    /// Says what the damage has cost, and repairs the file.
    pub(super) fn mend(
        &mut self,
        (fs, data_dir): (&SharedFs, &Path),
        before: Option<&Path>,
        is_newest: bool,
    ) -> Result<(), WalError> {
        loss::measure(fs, before, &self.path, &mut self.damage)?;
        if let Some(row) = &self.row {
            loss::settle(row, self.within, &mut self.damage);
        }
        // What is not there needs no repair.
        let len = self.len;
        let there = self.damage.iter().take_while(|one| one.offset < len).count();
        let damage = self.damage.get_mut(..there).unwrap_or_default();
        if !damage.is_empty() {
            self.is_mended = repair(fs, data_dir, &self.path, is_newest, damage)?;
            // What was not repaired is measured again by the next start.
            self.is_whole &= self.is_mended;
        }
        Ok(())
    }

    /// What the manifest says of it from now on.
    pub(super) fn now(&self, fs: &SharedFs) -> Option<Row> {
        let part = Part::Segment(self.segment?);
        if !self.is_whole {
            return self.row;
        }
        let (len, start) = match self.is_mended {
            true => FirstBytes::of(&*fs.open(&self.path).ok()?).ok()?,
            false => (self.len, self.start),
        };
        Some(Row { part, len, held: self.held, start: Start::of(start.as_bytes()) })
    }
}

/// Makes what was lost of the checkpoint exact, if it is known what it held. `lost` is what its missing parts have cost.
pub(super) fn settle_checkpoint(
    manifest: &Manifest,
    covered: Option<u64>,
    found: Held,
    read: &mut [ReadFile],
    lost: &mut Loss,
) {
    let Some(row) = covered.and_then(|covered| manifest.row(Part::Checkpoint(covered))) else { return };
    let left = row.held.without(found);
    let exact = Loss::of(left);
    // Damage that nothing follows may reach to the last sample.
    let end = read.iter().rfind(|one| one.segment.is_none()).map(|one| (one.path.clone(), one.len));
    let range = |one: &SegmentDamage| match (one.loss.range, exact.range) {
        (Some((from, _)), Some((_, to))) if end == Some((one.path.clone(), one.offset + one.len)) => Some((from, to)),
        (near, all) => near.or(all),
    };
    let mut parts: Vec<&mut ReadFile> = read.iter_mut().filter(|one| one.segment.is_none()).collect();
    let count = parts.iter().map(|one| one.damage.len()).sum::<usize>();
    if *lost != Loss::default() {
        // Nobody could tell what the missing part held.
        *lost = exact;
        parts.iter_mut().flat_map(|one| &mut one.damage).for_each(|one| one.loss = Loss::default());
    } else if let Some(last) = parts.last_mut()
        && count == 0
        && !left.is_nothing()
    {
        let (path, error) = (last.path.clone(), "it ends before what was written to it".to_owned());
        last.damage.push(SegmentDamage { path, offset: last.len, len: 0, error, torn_end: false, loss: exact });
    } else if count == 1 {
        parts.iter_mut().flat_map(|one| &mut one.damage).for_each(|one| {
            one.loss = Loss { range: range(one).filter(|_| 0 < exact.samples), ..exact };
        });
    }
}

/// Tells of parts that the manifest knows and that are not there: those behind the last segment, those before the first, a checkpoint.
pub(super) fn tell_missing(
    wal_dir: &Path,
    segments: &[SegmentFile],
    begins: Beginning,
    manifest: &Manifest,
    report: &mut LoadReport,
) {
    let newest_known = manifest.rows().filter_map(|row| row.part.segment()).max();
    let (first, last) = (segments.first().map(|file| file.segment), segments.last().map(|file| file.segment));
    // Another program has written here since, and may have removed what it did not need.
    let is_foreign = newest_known < last;
    let mut missing: Vec<Row> = manifest
        .rows()
        .filter(|row| !row.held.is_nothing())
        .filter(|row| match (row.part, begins) {
            (Part::Segment(number), _) if last.is_some_and(|last| number <= last) => {
                // Gaps are told already.
                !is_foreign && begins == Beginning::Anywhere && first.is_some_and(|first| number < first)
            }
            (Part::Segment(number), Beginning::Behind(covered)) => covered < number,
            (Part::Segment(number), Beginning::Snapshot(from)) => from <= number,
            (Part::Segment(_), _) => true,
            // Where segments are left, its absence shows without a manifest.
            (Part::Checkpoint(_), _) => begins == Beginning::Zero && segments.is_empty(),
        })
        .collect();
    missing.sort_by_key(|row| row.part);
    for row in missing {
        let path = wal_dir.join(row.part.file_name());
        report.miss(path, Loss::of(row.held), false);
    }
}

/// Repairs a segment, and tells whether it did. On a full disk it stays as it is, and the next start tries again: what is sound was read
/// all the same.
fn repair(
    fs: &SharedFs,
    data_dir: &Path,
    path: &Path,
    is_newest: bool,
    damage: &mut [SegmentDamage],
) -> Result<bool, WalError> {
    match repair_segment(fs, data_dir, path, is_newest, damage) {
        Err(WalError::Io { action, path, source }) if reserve::is_full(&source) => {
            tracing::error!(component = "tsdb", action, path = %path.display(), err = %source,
                "The write log cannot be repaired now; the next start tries again");
            Ok(false)
        }
        done => done.map(|()| true),
    }
}
