//! What a log has been promised to hold, kept beside it: how long each segment was at its last sync, and what its records held. A log
//! that was cut between two records, or whose last segments are gone, looks like one that ended there; here it shows, and what
//! it cost is known to the sample. (RocksDB does the same: `track_and_verify_wals_in_manifest`.)
//!
//! ```text
//! wal.manifest, wbl.manifest   rows of 64 bytes, little-endian; the first begins with "WFLM" and the version, 1
//! row     kind u8: 0 none, 1 a segment, 2 a checkpoint; how many first bytes are known u8; 0 u16; crc32c of the first bytes u32; number u64;
//!         length u64; samples u64; names of series u32; deleted ranges u32; first and last time i64; crc32c of all before u32; 0 u32
//! ```
//! Rows are changed in their places after the log was synced, and not synced themselves: they never say more than the disk has. Each
//! start writes the file anew. It may be missing, old or damaged: then less is known, and nothing else follows. A segment that another
//! program has written since has other first bytes, or no row.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::storage::fs::{File, SharedFs};
use crate::storage::wal::held::Held;
use crate::storage::wal::segments::{checkpoint_name, segment_name};

const ROW_LEN: usize = 64;
const MAGIC: [u8; 8] = *b"WFLM\x01\0\0\0";
/// First bytes of a segment by which it is known again.
const HEAD_LEN: usize = 32;
/// Rows that are read: far more than a log has segments.
const ROWS_MAX: usize = 1 << 16;

/// What a row is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Part {
    /// The checkpoint that stands for all segments up to this one.
    Checkpoint(u64),
    /// The segment of this number.
    Segment(u64),
}

impl Part {
    /// The number of a segment.
    pub(crate) fn segment(self) -> Option<u64> {
        match self {
            Self::Segment(number) => Some(number),
            Self::Checkpoint(_) => None,
        }
    }

    /// Its name in the log's folder.
    pub(crate) fn file_name(self) -> String {
        match self {
            Self::Segment(number) => segment_name(number),
            Self::Checkpoint(number) => checkpoint_name(number),
        }
    }
}

/// The first bytes of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Start {
    len: u8,
    crc: u32,
}

impl Start {
    /// That of a file with these bytes.
    pub(crate) fn of(bytes: &[u8]) -> Self {
        let first = bytes.get(..HEAD_LEN).unwrap_or(bytes);
        Self { len: u8::try_from(first.len()).unwrap_or(0), crc: crc32c::crc32c(first) }
    }

    /// Whether a file with these first bytes is that one, as far as it reaches.
    pub(crate) fn is_of(self, first: &FirstBytes) -> bool {
        first.as_bytes().get(..usize::from(self.len)).is_none_or(|first| crc32c::crc32c(first) == self.crc)
    }
}

/// How a file begins.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct FirstBytes {
    bytes: [u8; HEAD_LEN],
    len: usize,
}

impl FirstBytes {
    /// Length of a file, and how it begins.
    pub(crate) fn of(file: &dyn File) -> std::io::Result<(u64, Self)> {
        let (len, mut first) = (file.len()?, Self::default());
        if 0 < len {
            first.len = file.read_at(&mut first.bytes, 0)?;
        }
        Ok((len, first))
    }

    /// As many as there are, up to a bound.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

/// What a part of the log has been promised to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    /// Which part.
    pub(crate) part: Part,
    /// Bytes that were synced; 0 for a checkpoint, which is never written to.
    pub(crate) len: u64,
    /// What the records in them hold.
    pub(crate) held: Held,
    /// How they begin.
    pub(crate) start: Start,
}

impl Row {
    /// That of a checkpoint which stands for all segments up to this one.
    pub(crate) fn of_checkpoint(covered: u64, held: Held) -> Self {
        Self { part: Part::Checkpoint(covered), len: 0, held, start: Start::default() }
    }

    fn encode(&self) -> [u8; ROW_LEN] {
        let (kind, number) = match self.part {
            Part::Segment(number) => (1, number),
            Part::Checkpoint(number) => (2, number),
        };
        let short = |n: u64| u32::try_from(n).unwrap_or(u32::MAX).to_le_bytes();
        let mut bytes = Vec::with_capacity(ROW_LEN);
        bytes.extend_from_slice(&[kind, self.start.len, 0, 0]);
        bytes.extend_from_slice(&self.start.crc.to_le_bytes());
        for wide in [number, self.len, self.held.samples] {
            bytes.extend_from_slice(&wide.to_le_bytes());
        }
        bytes.extend_from_slice(&short(self.held.series));
        bytes.extend_from_slice(&short(self.held.deletions));
        bytes.extend_from_slice(&self.held.min_t.to_le_bytes());
        bytes.extend_from_slice(&self.held.max_t.to_le_bytes());
        bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
        let mut row = [0; ROW_LEN];
        row.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
        row
    }

    /// `None` for an empty row and for one that was damaged.
    fn decode(row: &[u8]) -> Option<Self> {
        let wide = |at: usize| row.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes);
        let short = |at: usize| row.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes);
        if crc32c::crc32c(row.get(..56)?) != short(56)? {
            return None;
        }
        let part = match row.first()? {
            1 => Part::Segment(wide(8)?),
            2 => Part::Checkpoint(wide(8)?),
            _ => return None,
        };
        let held = Held {
            samples: wide(24)?,
            series: short(32)?.into(),
            deletions: short(36)?.into(),
            min_t: wide(40)?.cast_signed(),
            max_t: wide(48)?.cast_signed(),
        };
        let start = Start { len: *row.get(1)?, crc: short(4)? };
        Some(Self { part, len: wide(16)?, held, start })
    }
}

/// The rows of a log, and the file that they stand in.
pub(crate) struct Manifest {
    fs: SharedFs,
    path: PathBuf,
    file: Option<Box<dyn File>>,
    /// In the order of the file, behind its head.
    rows: Vec<Option<Row>>,
    /// Whether writing has failed, which is logged once.
    has_failed: bool,
}

/// A manifest in the hands of all that write its log.
pub(crate) type SharedManifest = Arc<Mutex<Manifest>>;

impl Manifest {
    /// That of the log in `dir`: `wal.manifest` stands beside `wal`. Where the file is missing or cannot be read there are no rows.
    pub(crate) fn open(fs: &SharedFs, dir: &Path) -> Self {
        let path = dir.with_extension("manifest");
        let read = || {
            let file = fs.open_write(&path).ok()?;
            let len = usize::try_from(file.len().ok()?).ok()?.min((ROWS_MAX + 1) * ROW_LEN);
            let mut bytes = vec![0; len];
            let read = file.read_at(&mut bytes, 0).ok()?;
            bytes.truncate(read);
            let rows = bytes.strip_prefix(&MAGIC)?.get(ROW_LEN - MAGIC.len()..)?;
            Some((file, rows.chunks(ROW_LEN).map(Row::decode).collect()))
        };
        let (file, rows) = read().map_or((None, Vec::new()), |(file, rows)| (Some(file), rows));
        Self { fs: SharedFs::clone(fs), path, file, rows, has_failed: false }
    }

    /// In the hands of all that write the log.
    pub(crate) fn shared(self) -> SharedManifest {
        Arc::new(Mutex::new(self))
    }

    /// What is known of a part.
    pub(crate) fn row(&self, part: Part) -> Option<Row> {
        self.rows().find(|row| row.part == part)
    }

    /// All rows.
    pub(crate) fn rows(&self) -> impl Iterator<Item = Row> + '_ {
        self.rows.iter().flatten().copied()
    }

    /// Notes what a part holds now. The log does not depend on it: an error is logged, once. Where there is no file, each new part tries
    /// to make one.
    pub(crate) fn note(&mut self, row: Row) {
        let known = self.rows.iter().position(|one| one.is_some_and(|one| one.part == row.part));
        let free = || self.rows.iter().position(Option::is_none);
        let at = known.or_else(free).unwrap_or(self.rows.len());
        match self.rows.get_mut(at) {
            Some(place) => *place = Some(row),
            None => self.rows.push(Some(row)),
        }
        if self.file.is_none() && known.is_none() {
            let rows = self.rows().collect();
            self.reset(rows);
        } else {
            self.write_row(at);
        }
    }

    /// Drops parts that are going to be removed. Returns when a power cut does not bring their rows back.
    pub(crate) fn forget(&mut self, is_gone: impl Fn(Part) -> bool) {
        let gone: Vec<usize> = (0..self.rows.len())
            .filter(|at| self.rows.get(*at).copied().flatten().is_some_and(|row| is_gone(row.part)))
            .collect();
        for at in &gone {
            self.rows.iter_mut().skip(*at).take(1).for_each(|row| *row = None);
            self.write_row(*at);
        }
        if let Some(file) = self.file.as_ref().filter(|_| !gone.is_empty())
            && let Err(error) = file.sync_data()
        {
            self.fail(&error);
        }
    }

    /// Writes the file anew with these rows. What it says otherwise would be wrong: where that fails there is none.
    pub(crate) fn reset(&mut self, rows: Vec<Row>) {
        self.rows = rows.into_iter().map(Some).collect();
        self.file = None;
        let temporary = self.path.with_extension("manifest.tmp");
        let mut bytes = vec![0; ROW_LEN];
        bytes.iter_mut().zip(MAGIC).for_each(|(to, from)| *to = from);
        self.rows().for_each(|row| bytes.extend_from_slice(&row.encode()));
        let write = || {
            let file = self.fs.create(&temporary)?;
            file.write_all_at(&bytes, 0)?;
            file.sync_data()?;
            self.fs.rename(&temporary, &self.path)?;
            self.fs.sync_dir(&crate::storage::fs::parent_of(&self.path))?;
            Ok(file)
        };
        match write() {
            Ok(file) => self.file = Some(file),
            Err(error) => {
                // If neither goes, the next start may tell of a loss that was told before.
                let _ = self.fs.remove_file(&temporary);
                let _ = self.fs.remove_file(&self.path);
                self.fail(&error);
            }
        }
    }

    fn write_row(&mut self, at: usize) {
        let Some(file) = &self.file else { return };
        let bytes = self.rows.get(at).copied().flatten().map_or([0; ROW_LEN], |row| row.encode());
        if let Err(error) = file.write_all_at(&bytes, ((at + 1) * ROW_LEN) as u64) {
            self.fail(&error);
        }
    }

    fn fail(&mut self, error: &std::io::Error) {
        if !std::mem::replace(&mut self.has_failed, true) {
            tracing::warn!(component = "tsdb", path = %self.path.display(), %error,
                "cannot note what the write log holds; should its end be lost, nobody will know");
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::storage::fs::Fs;
    use crate::storage::fs::sim::SimFs;

    fn row(part: Part, samples: u64) -> Row {
        let held = Held { samples, series: 3, deletions: 1, min_t: -5, max_t: 70 };
        Row { part, len: samples * 11, held, start: Start::of(b"abc") }
    }

    fn open(sim: &SimFs) -> Manifest {
        let fs: SharedFs = Arc::new(sim.clone());
        Manifest::open(&fs, Path::new("/data/wal"))
    }

    #[test]
    fn rows_come_back_and_go() {
        let sim = SimFs::new();
        sim.create_dir_all(Path::new("/data")).unwrap();
        let mut manifest = open(&sim);
        manifest.reset(vec![row(Part::Checkpoint(3), 8), row(Part::Segment(4), 9)]);
        manifest.note(row(Part::Segment(5), 10));
        manifest.note(row(Part::Segment(4), 20));
        let found: Vec<Row> = open(&sim).rows().collect();
        assert_eq!(found, [row(Part::Checkpoint(3), 8), row(Part::Segment(4), 20), row(Part::Segment(5), 10)]);
        manifest.forget(|part| part == Part::Segment(4));
        assert_eq!(open(&sim).row(Part::Segment(4)), None);
        assert_eq!(open(&sim).rows().count(), 2);
        manifest.note(row(Part::Segment(6), 30));
        assert_eq!(open(&sim).rows().count(), 3);
        assert_eq!(manifest.rows.len(), 3, "places are used again");
    }

    #[test]
    fn without_a_file_nothing_fails_and_the_next_segment_makes_one() {
        let sim = SimFs::new();
        sim.create_dir_all(Path::new("/data")).unwrap();
        let mut manifest = open(&sim);
        sim.fail_nth_with(1, u64::MAX, crate::storage::fs::sim::ENOSPC, None);
        manifest.reset(vec![row(Part::Segment(3), 10)]);
        manifest.note(row(Part::Segment(4), 20));
        manifest.note(row(Part::Segment(4), 30));
        sim.heal();
        assert_eq!(open(&sim).rows().count(), 0);
        manifest.note(row(Part::Segment(5), 40));
        let all = [row(Part::Segment(3), 10), row(Part::Segment(4), 30), row(Part::Segment(5), 40)];
        assert_eq!(open(&sim).rows().collect::<Vec<_>>(), all);
    }

    proptest! {
        #[test]
        fn a_flipped_bit_costs_a_row_at_most_and_never_changes_one(at in 0usize..4 * ROW_LEN, bit in 0u8..8) {
            let sim = SimFs::new();
            sim.create_dir_all(Path::new("/data")).unwrap();
            let rows = vec![row(Part::Checkpoint(3), 8), row(Part::Segment(4), 9), row(Part::Segment(5), 10)];
            open(&sim).reset(rows.clone());
            let path = Path::new("/data/wal.manifest");
            let mut bytes = sim.read(path).unwrap();
            bytes[at] ^= 1 << bit;
            sim.put(path, &bytes).unwrap();
            let found: Vec<Row> = open(&sim).rows().collect();
            prop_assert!(found.iter().all(|row| rows.contains(row)));
            prop_assert!(at < MAGIC.len() || 2 <= found.len());
        }
    }
}
