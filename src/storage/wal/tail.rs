//! Follows a log that is being written, record by record, from a given place on.
//!
//! What may be read is what the writer says it has written: the reader never looks behind that place, so it sees neither
//! half a record nor one that is taken back. Segments that were removed before they were read are told, not passed over
//! in silence.

#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

use std::io;
use std::path::{Path, PathBuf};

use crate::storage::fs::SharedFs;
use crate::storage::wal::fragment::Compression;
use crate::storage::wal::reader::{Item, SegmentReader};
use crate::storage::wal::segments::{list_segments, segment_name};
use crate::storage::wal::writer::Position;
use crate::storage::wal::{IoContext, WalError};

/// What comes next in a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tailed {
    /// A record, whose bytes [`Tail::record`] has.
    Record {
        /// Where it begins.
        start: Position,
        /// How it is compressed.
        compression: Compression,
    },
    /// Bytes that hold no sound record.
    Damage,
    /// The segments from `from` on, up to but without `to`, are not there any more.
    Gone {
        /// The first of them.
        from: u64,
        /// The one that is read next.
        to: u64,
    },
    /// All that is written has been read.
    CaughtUp,
}

/// A reader of the segments of one folder.
pub struct Tail {
    fs: SharedFs,
    dir: PathBuf,
    at: Position,
    open: Option<(u64, SegmentReader)>,
}

impl Tail {
    /// Reads the segments in `dir` from `at` on, where a record begins.
    pub fn new(fs: SharedFs, dir: &Path, at: Position) -> Self {
        Self { fs, dir: dir.to_path_buf(), at, open: None }
    }

    /// Where the next record begins at the earliest.
    pub fn at(&self) -> Position {
        self.at
    }

    /// The bytes of the last record, as they stand in the segment.
    pub fn record(&self) -> &[u8] {
        self.open.as_ref().map_or(&[], |(_, reader)| reader.last_record())
    }

    /// What comes next before `until`, the place up to which the log is written. A segment before that one is finished.
    pub fn advance(&mut self, until: Position) -> Result<Tailed, WalError> {
        while self.at < until {
            let segment = self.at.segment;
            let limit = (segment == until.segment).then_some(until.offset);
            let path = self.dir.join(segment_name(segment));
            let (_, mut reader) = match self.open.take().filter(|(open, _)| *open == segment) {
                Some(open) => open,
                None => match self.fs.open(&path) {
                    Ok(file) => {
                        let mut reader = SegmentReader::new(file, limit).context("read", &path)?;
                        reader.seek(self.at.offset);
                        (segment, reader)
                    }
                    Err(error) if error.kind() == io::ErrorKind::NotFound => return self.pass_gap(segment, until),
                    Err(source) => return Err(WalError::Io { action: "open", path, source }),
                },
            };
            reader.extend(limit).context("read", &path)?;
            let found = match reader.next_item().context("read", &path)? {
                Some(Item::Record { offset, end, compression, .. }) => {
                    self.at.offset = end;
                    Some(Tailed::Record { start: Position { segment, offset }, compression })
                }
                Some(Item::Damage(damage)) => {
                    self.at.offset = damage.resumed;
                    Some(Tailed::Damage)
                }
                None => None,
            };
            if found.is_none() && segment < until.segment {
                self.at = Position { segment: segment + 1, offset: 0 };
                continue;
            }
            self.open = Some((segment, reader));
            return Ok(found.unwrap_or(Tailed::CaughtUp));
        }
        Ok(Tailed::CaughtUp)
    }

    /// Goes on with the first segment behind `segment` that is there.
    fn pass_gap(&mut self, segment: u64, until: Position) -> Result<Tailed, WalError> {
        let next = list_segments(&*self.fs, &self.dir)?.into_iter().find(|file| segment < file.segment);
        match next.filter(|file| file.segment <= until.segment) {
            Some(file) => {
                self.at = Position { segment: file.segment, offset: 0 };
                Ok(Tailed::Gone { from: segment, to: file.segment })
            }
            None => Ok(Tailed::CaughtUp),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::clock::SystemClock;
    use crate::model::sample::SeriesRef;
    use crate::storage::fs::sim::SimFs;
    use crate::storage::wal::WalOptions;
    use crate::storage::wal::metrics::WalMetrics;
    use crate::storage::wal::record::{Record, RefSample, decode_samples, encode_samples};
    use crate::storage::wal::writer::Writer;

    fn writer(fs: &SharedFs) -> Writer {
        fs.create_dir_all(Path::new("/w")).unwrap();
        let metrics = WalMetrics::new(&Default::default(), &SystemClock::shared());
        let options = WalOptions { segment_len: 128 << 10, compression: Compression::None, ..WalOptions::default() };
        Writer::create(fs.clone(), Path::new("/w"), 0, options, metrics).unwrap()
    }

    fn samples(from: i64, count: i64) -> Vec<Record> {
        let mut records = Vec::new();
        let sample = |t| RefSample { series: SeriesRef(1), t, value: 0.5 };
        encode_samples((from..from + count).map(sample), &mut records);
        records
    }

    /// The times of all samples up to `until`, with -1 for a gap.
    fn read(tail: &mut Tail, until: Position) -> Vec<i64> {
        let mut found = Vec::new();
        loop {
            match tail.advance(until).unwrap() {
                Tailed::Record { .. } => {
                    let mut out = Vec::new();
                    decode_samples(tail.record(), &mut out).unwrap();
                    found.extend(out.iter().map(|sample| sample.t));
                }
                Tailed::Gone { .. } => found.push(-1),
                Tailed::Damage => panic!("damage"),
                Tailed::CaughtUp => return found,
            }
        }
    }

    #[test]
    fn a_log_is_followed_as_it_grows_over_segments() {
        let fs: SharedFs = std::sync::Arc::new(SimFs::new());
        let (mut writer, start) = (writer(&fs), Position { segment: 0, offset: 0 });
        let mut tail = Tail::new(fs.clone(), Path::new("/w"), start);
        assert!(read(&mut tail, writer.position()).is_empty());
        let mut expected = Vec::new();
        for round in 0..200 {
            let before = writer.position();
            writer.append(&samples(round * 100, 100)).unwrap();
            // What is not told is not read.
            assert!(read(&mut tail, before).is_empty());
            let found = read(&mut tail, writer.position());
            assert_eq!(found, (round * 100..round * 100 + 100).collect::<Vec<_>>());
            expected.extend(found);
        }
        assert!(0 < writer.position().segment);
        let mut again = Tail::new(fs.clone(), Path::new("/w"), start);
        assert_eq!(read(&mut again, writer.position()), expected);
    }

    #[test]
    fn removed_segments_are_told() {
        let fs: SharedFs = std::sync::Arc::new(SimFs::new());
        let mut writer = writer(&fs);
        for round in 0..4 {
            writer.append(&samples(round * 10, 1)).unwrap();
            writer.next_segment().unwrap();
        }
        let mut tail = Tail::new(fs.clone(), Path::new("/w"), Position { segment: 0, offset: 0 });
        assert_eq!(read(&mut tail, Position { segment: 0, offset: u64::MAX }), [0]);
        fs.remove_file(Path::new("/w/00000001")).unwrap();
        fs.remove_file(Path::new("/w/00000002")).unwrap();
        assert_eq!(read(&mut tail, writer.position()), [-1, 30]);
    }
}
