//! How far somebody who reads the log is done with it, in a small file that survives restarts and kill -9.
//!
//! ```text
//! watchfire log cursor 1
//! read 12 4096 0               segment, offset of a record, entries of that record that are done
//! shard 12 2048 17             one line for each shard: what it has done of its series
//! shard 12 4096 0
//! crc 5a2b00ff                 CRC-32C of everything before
//! ```
//! A series belongs to the shard that its reference has as the remainder by their number. The file is replaced as a whole:
//! written under another name, synced, renamed.

#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

use std::fmt::Write as _;
use std::path::Path;

use crate::model::sample::SeriesRef;
use crate::storage::fs::{SharedFs, parent_of};
use crate::storage::wal::writer::Position;
use crate::storage::wal::{IoContext, WalError};

const MAGIC: &str = "watchfire log cursor 1";
/// Longer than any that is written.
const LEN_MAX: u64 = 1 << 20;

/// A place within a record: all entries before it are meant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Number of the segment.
    pub segment: u64,
    /// Where the record begins.
    pub offset: u64,
    /// How many of its entries are meant.
    pub index: u64,
}

impl From<Position> for Place {
    fn from(Position { segment, offset }: Position) -> Self {
        Self { segment, offset, index: 0 }
    }
}

impl Place {
    /// Where the record begins.
    pub fn position(self) -> Position {
        Position { segment: self.segment, offset: self.offset }
    }

    /// The place behind this entry.
    #[must_use]
    pub fn next(self) -> Self {
        Self { index: self.index + 1, ..self }
    }
}

/// What is done of a log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    /// Everything from here on is not done, whatever its shard.
    pub read: Place,
    /// By shard: everything of its series before is done. None of them is behind `read`.
    pub shards: Vec<Place>,
}

impl Cursor {
    /// Nothing before `at` is wanted.
    pub fn at(at: Place) -> Self {
        Self { read: at, shards: Vec::new() }
    }

    /// Where reading has to begin.
    pub fn start(&self) -> Place {
        self.shards.iter().copied().min().unwrap_or(self.read).min(self.read)
    }

    /// Whether an entry at `place` is done.
    pub fn is_done(&self, series: SeriesRef, place: Place) -> bool {
        if self.read <= place {
            return false;
        }
        let shard = usize::try_from(series.0 % self.shards.len().max(1) as u64).unwrap_or(0);
        self.shards.get(shard).is_none_or(|done| place < *done)
    }

    fn print(&self) -> String {
        let mut text = format!("{MAGIC}\n");
        let places = std::iter::once(("read", &self.read)).chain(self.shards.iter().map(|place| ("shard", place)));
        for (name, place) in places {
            // Writing into a string cannot fail.
            let _ = writeln!(text, "{name} {} {} {}", place.segment, place.offset, place.index);
        }
        let crc = crc32c::crc32c(text.as_bytes());
        let _ = writeln!(text, "crc {crc:08x}");
        text
    }

    fn parse(text: &str) -> Option<Self> {
        let (body, crc) = text.strip_suffix('\n')?.rsplit_once('\n')?;
        let body_len = body.len() + 1;
        let crc = u32::from_str_radix(crc.strip_prefix("crc ")?, 16).ok()?;
        if crc32c::crc32c(text.as_bytes().get(..body_len)?) != crc {
            return None;
        }
        let mut lines = body.lines();
        if lines.next()? != MAGIC {
            return None;
        }
        let place = |line: &str, name: &str| -> Option<Place> {
            let mut numbers = line.strip_prefix(name)?.strip_prefix(' ')?.split(' ').map(|n| n.parse().ok());
            Some(Place { segment: numbers.next()??, offset: numbers.next()??, index: numbers.next()?? })
        };
        let read = place(lines.next()?, "read")?;
        let shards = lines.map(|line| place(line, "shard")).collect::<Option<Vec<_>>>()?;
        Some(Self { read, shards })
    }
}

/// The cursor in a file; `None` if there is none, or if the file does not hold one.
pub fn load(fs: &SharedFs, path: &Path) -> Result<Option<Cursor>, WalError> {
    if !fs.exists(path).context("read", path)? {
        return Ok(None);
    }
    let file = fs.open(path).context("open", path)?;
    let len = file.len().context("read", path)?.min(LEN_MAX);
    let mut raw = vec![0; usize::try_from(len).unwrap_or(0)];
    let read = file.read_at(&mut raw, 0).context("read", path)?;
    let cursor = std::str::from_utf8(raw.get(..read).unwrap_or_default()).ok().and_then(Cursor::parse);
    if cursor.is_none() {
        tracing::warn!(component = "remote", path = %path.display(), "A cursor is damaged and is not used");
    }
    Ok(cursor)
}

/// Replaces the cursor in a file, whose folder is there. It survives a power cut when this returns.
pub fn save(fs: &SharedFs, path: &Path, cursor: &Cursor) -> Result<(), WalError> {
    let temporary = path.with_extension("tmp");
    let file = fs.create(&temporary).context("create", &temporary)?;
    file.write_all_at(cursor.print().as_bytes(), 0).context("write", &temporary)?;
    file.sync_data().context("sync", &temporary)?;
    drop(file);
    fs.rename(&temporary, path).context("rename", &temporary)?;
    let folder = parent_of(path);
    fs.sync_dir(&folder).context("sync", &folder)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::storage::fs::sim::SimFs;

    fn place() -> impl Strategy<Value = Place> {
        (0u64..9, any::<u64>(), 0u64..9).prop_map(|(segment, offset, index)| Place { segment, offset, index })
    }

    proptest! {
        #[test]
        fn cursors_round_trip(read in place(), shards in proptest::collection::vec(place(), 0..9), cut in 0usize..40) {
            let cursor = Cursor { read, shards };
            let fs: SharedFs = Arc::new(SimFs::new());
            fs.create_dir_all(Path::new("/c")).unwrap();
            let path = Path::new("/c/a");
            prop_assert_eq!(load(&fs, path).unwrap(), None);
            save(&fs, path, &cursor).unwrap();
            prop_assert_eq!(load(&fs, path).unwrap(), Some(cursor.clone()));
            let text = cursor.print();
            prop_assert_eq!(Cursor::parse(&text[..text.len() - 1 - cut]), None);
        }

        #[test]
        fn whatever_is_no_cursor_is_told(text in "\\PC{0,100}") {
            prop_assert_eq!(Cursor::parse(&text), None);
        }
    }

    #[test]
    fn each_shard_has_a_place_of_its_own() {
        let at = |offset, index| Place { segment: 1, offset, index };
        let cursor = Cursor { read: at(900, 0), shards: vec![at(100, 3), at(900, 0)] };
        assert_eq!(cursor.start(), at(100, 3));
        let done = |series, place| cursor.is_done(SeriesRef(series), place);
        assert!(done(2, at(100, 2)) && !done(2, at(100, 3)) && done(3, at(100, 3)) && !done(3, at(900, 0)));
        assert!(Cursor::at(at(5, 0)).is_done(SeriesRef(2), at(4, 9)));
        assert!(!Cursor::at(at(5, 0)).is_done(SeriesRef(2), at(5, 0)));
    }
}
