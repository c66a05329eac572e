//! The head at an orderly stop, so that the next start need not read the log: `chunk_snapshot.<segment>.<offset>`, in
//! Prometheus's format. It stands for all of the log before that place; finished chunks stand in `chunks_head`.
//! ```text
//! chunk_snapshot.000004.0000032768/00000000 …   records in segments, as in the log
//!   1 series      ref u64, labels, 0 u64, 0 uvarint │ 1 uvarint, open chunk
//!     open chunk  min t u64, max t u64, encoding u8, data (uvarint length, bytes), last sample
//!     last sample of floats: three times 16 zeros, 0 u64, value u64 │ of histograms: as in the log's records
//!   2 tombstones  uvarint length, 1 u8, { ref uvarint, min t varint, max t varint } …
//!   3 exemplars   as in the log's records, behind the type
//! chunk_snapshot.000004.0000032768/watchfire     ours, passed over by Prometheus: what the log before would tell
//!   next <next reference>
//!   file <number> <length>        of each file of chunks_head
//!   alias <reference> <first>     of series with several references
//!   end <number of series> <crc32c of all before>
//! ```
//! It is used only if the log still holds that place and all of it can be read; else the log is. It goes before the log is
//! shortened. Samples that came out of order are not part of it: they stand in `wbl`, which is read in any case.

use std::path::{Path, PathBuf};

use crate::model::clock::SharedClock;
use crate::model::labels::Labels;
use crate::model::read::ReadError;
use crate::model::sample::SeriesRef;
use crate::model::time::TimestampMs;
use crate::storage::chunk::Encoding;
use crate::storage::chunk::written::ChunkPlace;
use crate::storage::fs::SharedFs;
use crate::storage::head::Head;
use crate::storage::head::image::{ChunkImage, LastSample, OpenImage, SeriesImage};
use crate::storage::head_chunk_files::{self, ChunkFiles, Persisted};
use crate::storage::head_chunk_repair::free_place;
use crate::storage::replay::Aliases;
use crate::storage::wal::histogram_record::{put_histogram, take_value};
use crate::storage::wal::metrics::WalMetrics;
use crate::storage::wal::reader::{Inflater, Item, SegmentReader};
use crate::storage::wal::record::{
    Record, RecordError, RecordKind, labels_from, put_labels, put_uvarint, put_varint, take_bytes, take_u64,
    take_uvarint, take_varint,
};
use crate::storage::wal::segments::{list_checkpoints, list_segments, segment_name};
use crate::storage::wal::writer::{Position, Writer};
use crate::storage::wal::{IoContext, WAL_DIR, WalError, WalOptions};

const PREFIX: &str = "chunk_snapshot.";
/// Our own file in the folder.
const NOTES: &str = "watchfire";
/// Longest of these that is read.
const NOTES_LEN_MAX: u64 = 256 << 20;
/// Bytes of records that are written at once.
const BATCH_LEN: usize = 4 << 20;

const SERIES: u8 = 1;
const TOMBSTONES: u8 = 2;
const EXEMPLARS: u8 = 3;
/// Version of the tombstones' encoding.
const TOMBSTONES_V1: u8 = 1;

/// Why there is no snapshot, or why one is not used.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The disk says no.
    #[error(transparent)]
    Disk(#[from] WalError),
    /// A shard is away, or holds what cannot be read.
    #[error(transparent)]
    Head(#[from] ReadError),
    /// The files of `chunks_head` do not go with the head.
    #[error("the files of chunks_head do not go with the head: {0}")]
    Chunks(&'static str),
    /// A part of the snapshot cannot be read.
    #[error("segment {segment} of the snapshot is damaged at byte {offset}: {reason}")]
    Damaged {
        /// Which segment.
        segment: u64,
        /// Where.
        offset: u64,
        /// What is wrong.
        reason: String,
    },
    /// One of its segments is not there.
    #[error("segment {segment} of the snapshot is missing")]
    Missing {
        /// Which segment.
        segment: u64,
    },
    /// Our notes in it do not say what they should.
    #[error("the snapshot's notes are damaged")]
    Notes,
}

impl SnapshotError {
    /// True if the snapshot itself is damaged: it will never be of use.
    pub(crate) fn is_of_snapshot(&self) -> bool {
        matches!(self, Self::Damaged { .. } | Self::Notes | Self::Missing { .. })
    }
}

/// A snapshot that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    dir: PathBuf,
    /// It stands for the log before this place.
    pub position: Position,
}

/// What a snapshot says beside its series.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notes {
    /// References from here on are free.
    pub next_ref: u64,
    /// References of other series' later records.
    pub aliases: Aliases,
    files: Vec<(u64, u64)>,
    series: u64,
}

/// Takes what a snapshot holds.
pub trait SnapshotSink {
    /// A series.
    fn series(&mut self, series: SeriesRef, labels: Labels, open: Option<OpenImage>);
    /// Tombstones or exemplars, as a record of the log.
    fn record(&mut self, bytes: &[u8]);
}

/// The snapshots of a data directory, oldest first, whether or not they can be used.
pub fn list(fs: &SharedFs, data_dir: &Path) -> Result<Vec<Snapshot>, WalError> {
    let mut found = Vec::new();
    for entry in fs.list(data_dir).context("list", data_dir)?.into_iter().filter(|entry| entry.is_dir) {
        let position = entry.name.strip_prefix(PREFIX).and_then(|rest| rest.split_once('.'));
        let position = position.and_then(|(segment, offset)| Some((segment.parse().ok()?, offset.parse().ok()?)));
        if let Some((segment, offset)) = position {
            found.push(Snapshot { dir: data_dir.join(&entry.name), position: Position { segment, offset } });
        }
    }
    found.sort_by_key(|snapshot| snapshot.position);
    Ok(found)
}

/// The newest snapshot, if the log still holds the place where it was taken.
pub fn usable(fs: &SharedFs, data_dir: &Path) -> Result<Option<Snapshot>, WalError> {
    let Some(newest) = list(fs, data_dir)?.pop() else { return Ok(None) };
    let wal = data_dir.join(WAL_DIR);
    if !fs.exists(&wal).context("read", &wal)? {
        return Ok(None);
    }
    let Position { segment, offset } = newest.position;
    let is_covered = list_checkpoints(&**fs, &wal)?.last().is_some_and(|covered| segment <= *covered);
    let is_held = list_segments(&**fs, &wal)?.iter().any(|file| file.segment == segment && offset <= file.len);
    Ok(Some(newest).filter(|_| is_held && !is_covered))
}

/// Removes all snapshots, and what an interrupted stop has left, but `kept`.
pub fn remove_all(fs: &SharedFs, data_dir: &Path, kept: Option<&Path>) -> Result<(), WalError> {
    let mut removed = false;
    for entry in fs.list(data_dir).context("list", data_dir)? {
        let path = data_dir.join(&entry.name);
        if entry.is_dir && entry.name.starts_with(PREFIX) && Some(path.as_path()) != kept {
            fs.remove_dir_all(&path).context("remove", &path)?;
            removed = true;
        }
    }
    if removed {
        fs.sync_dir(data_dir).context("sync", data_dir)?;
    }
    Ok(())
}

impl Snapshot {
    /// Its folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Moves it to what is damaged, so that it is neither tried again nor lost to whoever wants to look at it. Should that fail, it
    /// is tried again.
    pub(crate) fn set_aside(&self, fs: &SharedFs, data_dir: &Path) {
        let name = self.dir.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let moved = free_place(fs, data_dir, &name).and_then(|target| {
            fs.rename(&self.dir, &target).context("rename", &self.dir)?;
            fs.sync_dir(data_dir).context("sync", data_dir)
        });
        if let Err(error) = moved {
            tracing::warn!(component = "tsdb", err = %error, "The damaged chunk snapshot cannot be set aside");
        }
    }

    /// Passes all that it holds to `sink`. On an error it may have passed a part.
    pub fn read(&self, fs: &SharedFs, sink: &mut dyn SnapshotSink) -> Result<(), SnapshotError> {
        let mut inflater = Inflater::default();
        let files = list_segments(&**fs, &self.dir)?;
        if files.is_empty() {
            return Err(SnapshotError::Missing { segment: 0 });
        }
        if let Some((missing, _)) = (0..).zip(&files).find(|(number, file)| *number != file.segment) {
            return Err(SnapshotError::Missing { segment: missing });
        }
        for file in files {
            let path = self.dir.join(segment_name(file.segment));
            let opened = fs.open(&path).context("open", &path)?;
            let mut reader = SegmentReader::new(opened, None).context("read", &path)?;
            let damaged = |offset, reason: String| SnapshotError::Damaged { segment: file.segment, offset, reason };
            while let Some(item) = reader.next_item().context("read", &path)? {
                match item {
                    Item::Damage(damage) => return Err(damaged(damage.offset, damage.error.to_string())),
                    Item::Record { offset, compression, data, .. } => {
                        let taken = inflater.inflate(compression, data).and_then(|bytes| pass_on(bytes, sink));
                        taken.map_err(|error| damaged(offset, error.to_string()))?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Our notes; `None` if another program has made it. Errors when they are damaged, or when files of `chunks_head` that they
    /// name are not there.
    pub fn notes(&self, fs: &SharedFs, data_dir: &Path) -> Result<Option<Notes>, SnapshotError> {
        let path = self.dir.join(NOTES);
        if !fs.exists(&path).context("read", &path)? {
            return Ok(None);
        }
        let file = fs.open(&path).context("open", &path)?;
        let len = file.len().context("read", &path)?;
        let len = usize::try_from(len).ok().filter(|_| len <= NOTES_LEN_MAX).ok_or(SnapshotError::Notes)?;
        let mut text = vec![0; len];
        file.read_at(&mut text, 0).context("read", &path)?;
        let notes = std::str::from_utf8(&text).ok().and_then(parse_notes).ok_or(SnapshotError::Notes)?;
        let files = head_chunk_files::list(&**fs, data_dir)?;
        let is_there = |(number, len): &(u64, u64)| files.iter().any(|f| f.number == *number && *len <= f.len);
        if !notes.files.iter().all(is_there) {
            return Err(SnapshotError::Chunks("one is missing"));
        }
        Ok(Some(notes))
    }
}

impl Notes {
    /// Number of the last file of `chunks_head` that was there.
    pub fn last_file(&self) -> Option<u64> {
        self.files.iter().map(|(number, _)| *number).max()
    }

    /// Series in the snapshot.
    pub fn series(&self) -> u64 {
        self.series
    }

    fn to_text(&self) -> String {
        use std::fmt::Write as _;
        let mut text = format!("next {}\n", self.next_ref);
        for (number, len) in &self.files {
            let _ = writeln!(text, "file {number} {len}");
        }
        for (reference, first) in &self.aliases {
            let _ = writeln!(text, "alias {} {}", reference.0, first.0);
        }
        let _ = write!(text, "end {}", self.series);
        let checksum = crc32c::crc32c(text.as_bytes());
        let _ = writeln!(text, " {checksum}");
        text
    }
}

fn parse_notes(text: &str) -> Option<Notes> {
    let mut notes = Notes::default();
    let mut before = 0;
    for line in text.split_inclusive('\n') {
        let checked = text.get(..before + line.rfind(' ')?)?;
        before += line.len();
        let mut words = line.strip_suffix('\n')?.split(' ');
        let (kind, first) = (words.next()?, words.next()?.parse().ok()?);
        let mut second = || words.next()?.parse::<u64>().ok();
        match kind {
            "next" => notes.next_ref = first,
            "file" => notes.files.push((first, second()?)),
            "alias" => drop(notes.aliases.insert(SeriesRef(first), SeriesRef(second()?))),
            "end" => {
                notes.series = first;
                return (second()? == u64::from(crc32c::crc32c(checked.as_bytes()))).then_some(notes);
            }
            _ => return None,
        }
    }
    None
}

fn pass_on(bytes: &[u8], sink: &mut dyn SnapshotSink) -> Result<(), RecordError> {
    const MALFORMED: RecordError = RecordError::Malformed { kind: "snapshot" };
    let (kind, mut rest) = bytes.split_first().ok_or(MALFORMED)?;
    match *kind {
        SERIES => {
            let series = SeriesRef(take_u64(&mut rest).ok_or(MALFORMED)?);
            let labels = labels_from(&mut rest)?;
            let open = take_open(&mut rest).ok_or(MALFORMED)?;
            sink.series(series, labels, open);
        }
        TOMBSTONES => {
            let encoded = take_bytes(&mut rest).ok_or(MALFORMED)?;
            sink.record(&tombstones_of_log(encoded).ok_or(MALFORMED)?);
        }
        // The log's type of the same content.
        EXEMPLARS => sink.record(&[&[4], rest].concat()),
        _ => return Err(MALFORMED),
    }
    Ok(())
}

/// What follows a series' labels: an open chunk, or none.
fn take_open(rest: &mut &[u8]) -> Option<Option<OpenImage>> {
    // Once a range of chunks; it says nothing any more.
    take_u64(rest)?;
    if take_uvarint(rest)? == 0 {
        return Some(None);
    }
    let (min_t, max_t) = (take_u64(rest)?.cast_signed(), take_u64(rest)?.cast_signed());
    let (encoding, after) = rest.split_first()?;
    *rest = after;
    let encoding = Encoding::from_id(*encoding).ok()?;
    let data = take_bytes(rest)?.to_vec();
    let last = match encoding {
        Encoding::Xor | Encoding::Xor2 => {
            let (_, after) = rest.split_at_checked(FLOAT_PADDING)?;
            *rest = after;
            LastSample::Float(take_u64(rest)?)
        }
        Encoding::Histogram | Encoding::HistogramStarts => LastSample::Histogram(take_value(true, rest)?),
        Encoding::FloatHistogram | Encoding::FloatHistogramStarts => LastSample::Histogram(take_value(false, rest)?),
    };
    Some(Some(OpenImage { chunk: ChunkImage { min_t, max_t, encoding, data }, last }))
}

/// Bytes before the last value of floats: older versions had the last four samples there.
const FLOAT_PADDING: usize = 3 * 16 + 8;

fn series_record(series: SeriesRef, labels: &Labels, open: Option<&OpenImage>) -> Record {
    let mut out = vec![SERIES];
    out.extend_from_slice(&series.0.to_be_bytes());
    put_labels(labels, &mut out);
    out.extend_from_slice(&[0; 8]);
    let Some(OpenImage { chunk, last }) = open else {
        out.push(0);
        return Record::from_bytes(out);
    };
    out.push(1);
    out.extend_from_slice(&chunk.min_t.to_be_bytes());
    out.extend_from_slice(&chunk.max_t.to_be_bytes());
    out.push(chunk.encoding.id());
    put_uvarint(chunk.data.len() as u64, &mut out);
    out.extend_from_slice(&chunk.data);
    match last {
        LastSample::Float(bits) => {
            out.extend_from_slice(&[0; FLOAT_PADDING]);
            out.extend_from_slice(&bits.to_be_bytes());
        }
        LastSample::Histogram(value) => put_histogram(value, &mut out),
    }
    Record::from_bytes(out)
}

/// The log's record of tombstones in a block's encoding.
fn tombstones_of_log(encoded: &[u8]) -> Option<Vec<u8>> {
    let mut rest = encoded.strip_prefix(&[TOMBSTONES_V1])?;
    let mut out = vec![3];
    while !rest.is_empty() {
        out.extend_from_slice(&take_uvarint(&mut rest)?.to_be_bytes());
        put_varint(take_varint(&mut rest)?, &mut out);
        put_varint(take_varint(&mut rest)?, &mut out);
    }
    Some(out)
}

/// The same the other way round.
fn tombstones_of_snapshot(record: &[u8]) -> Option<Record> {
    let mut rest = record.get(1..)?;
    let mut encoded = vec![TOMBSTONES_V1];
    while !rest.is_empty() {
        put_uvarint(take_u64(&mut rest)?, &mut encoded);
        put_varint(take_varint(&mut rest)?, &mut encoded);
        put_varint(take_varint(&mut rest)?, &mut encoded);
    }
    let mut out = vec![TOMBSTONES];
    put_uvarint(encoded.len() as u64, &mut out);
    out.extend_from_slice(&encoded);
    Some(Record::from_bytes(out))
}

/// What a stop knows beside the head.
pub struct Stop<'a> {
    /// Where the log ends: at a page's beginning, synced.
    pub position: Position,
    /// How the snapshot is compressed.
    pub options: WalOptions,
    /// References of other series' later records.
    pub aliases: &'a Aliases,
    /// The clock.
    pub clock: &'a SharedClock,
}

/// Writes a snapshot of a head that is written no more, and removes older ones. Returns the number of series; without any there
/// is nothing to write. On an error the log is what there is, as before.
pub fn write(fs: &SharedFs, data_dir: &Path, head: &Head, stop: &Stop<'_>) -> Result<u64, SnapshotError> {
    if head.series_count() == 0 {
        remove_all(fs, data_dir, None)?;
        return Ok(0);
    }
    let Position { segment, offset } = stop.position;
    let dir = data_dir.join(format!("{PREFIX}{segment:06}.{offset:010}"));
    let temporary = data_dir.join(format!("{PREFIX}{segment:06}.{offset:010}.tmp"));
    let known = match head.chunk_store() {
        Some(store) => {
            store.close()?;
            store.is_complete()
        }
        None => false,
    };
    let persisted = if known { Some(Persisted::known(&**fs, data_dir)?) } else { Persisted::read(&**fs, data_dir)? };
    let persisted = persisted.ok_or(SnapshotError::Chunks("one is damaged"))?;
    if !known && !persisted.is_empty() {
        // The head was read without them: that they hold what it holds cannot be told by their ends.
        return Err(SnapshotError::Chunks("it was read without them"));
    }
    // The snapshot stands for the log only together with all files.
    head_chunk_files::sync_last(&**fs, data_dir)?;
    let mut files = ChunkFiles::behind(fs, data_dir, &persisted);
    let written = write_parts(fs, head, stop, &temporary, (&persisted, &mut files)).and_then(|series| {
        let files = head_chunk_files::list(&**fs, data_dir)?.into_iter().map(|file| (file.number, file.len)).collect();
        let notes = Notes { next_ref: head.next_ref(), aliases: stop.aliases.clone(), files, series };
        write_notes(fs, &temporary, &notes)?;
        if fs.exists(&dir).context("read", &dir)? {
            fs.remove_dir_all(&dir).context("remove", &dir)?;
        }
        fs.rename(&temporary, &dir).context("rename", &temporary)?;
        fs.sync_dir(data_dir).context("sync", data_dir)?;
        Ok(series)
    });
    match written {
        Ok(series) => {
            remove_all(fs, data_dir, Some(&dir))?;
            Ok(series)
        }
        Err(error) => {
            let _ = fs.remove_dir_all(&temporary);
            files.undo();
            Err(error)
        }
    }
}

fn write_parts(
    fs: &SharedFs,
    head: &Head,
    stop: &Stop<'_>,
    temporary: &Path,
    (persisted, files): (&Persisted, &mut ChunkFiles),
) -> Result<u64, SnapshotError> {
    if fs.exists(temporary).context("read", temporary)? {
        fs.remove_dir_all(temporary).context("remove", temporary)?;
    }
    fs.create_dir_all(temporary).context("create", temporary)?;
    let options = WalOptions { hold_unsynced: false, ..stop.options };
    // A registry of its own: a snapshot is not the log.
    let metrics = WalMetrics::new(&Default::default(), stop.clock);
    let mut writer = Writer::create(fs.clone(), temporary, 0, options, metrics)?;
    let (mut batch, mut len, mut count) = (Vec::new(), 0, 0);
    head.for_each_series(|series: SeriesImage<'_>| {
        let open = write_sealed(&series, persisted, files)?;
        let record = series_record(series.series, &series.labels, open.as_ref());
        len += record.as_bytes().len();
        batch.push(record);
        count += 1;
        if BATCH_LEN.min(usize::try_from(options.segment_len / 4).unwrap_or(BATCH_LEN)) <= len {
            writer.append(&batch)?;
            batch.clear();
            len = 0;
        }
        Ok::<(), SnapshotError>(())
    })?;
    for other in head.other_records()? {
        match RecordKind::of(other.as_bytes()) {
            RecordKind::Tombstones => batch.extend(tombstones_of_snapshot(other.as_bytes())),
            RecordKind::Exemplars => {
                let body = other.as_bytes().get(1..).unwrap_or_default();
                batch.push(Record::from_bytes([&[EXEMPLARS], body].concat()));
            }
            _ => {}
        }
    }
    writer.append(&batch)?;
    writer.sync()?;
    files.finish()?;
    Ok(count)
}

/// Writes the finished chunks of a series that no file holds yet; returns the open one.
fn write_sealed(
    series: &SeriesImage<'_>,
    persisted: &Persisted,
    files: &mut ChunkFiles,
) -> Result<Option<OpenImage>, SnapshotError> {
    let end = persisted.end(series.series);
    let mut failed = None;
    let open = series.chunks(&mut |encoding, data| {
        if failed.is_none() {
            let written = OpenImage::of(encoding, data.to_vec()).map_err(|error| {
                SnapshotError::Head(ReadError::Corrupt(format!("head chunk of series {}: {error}", series.series.0)))
            });
            let written = written.and_then(|OpenImage { chunk, .. }| match end {
                Some(end) if chunk.max_t <= end => Ok(()),
                Some(end) if chunk.min_t <= end => Err(SnapshotError::Chunks("one ends within a chunk of the head")),
                _ => Ok(files.add(series.series, &chunk)?),
            });
            failed = written.err();
        }
    })?;
    match (failed, open) {
        (Some(error), _) => Err(error),
        // Its samples are in a finished chunk already, as another program has cut it.
        (None, Some(open)) if end.is_some_and(|end| open.chunk.min_t <= end && end < open.chunk.max_t) => {
            Err(SnapshotError::Chunks("one ends within the newest chunk of the head"))
        }
        (None, open) => Ok(open.filter(|open| end.is_none_or(|end| end < open.chunk.min_t))),
    }
}

fn write_notes(fs: &SharedFs, dir: &Path, notes: &Notes) -> Result<(), SnapshotError> {
    let path = dir.join(NOTES);
    let file = fs.create(&path).context("create", &path)?;
    file.write_all_at(notes.to_text().as_bytes(), 0).context("write", &path)?;
    file.sync_data().context("sync", &path)?;
    fs.sync_dir(dir).context("sync", dir)?;
    Ok(())
}

/// Removes snapshots, and head chunks before `bound`, before the log is shortened; chunks of late samples
/// count from `late_from` on, if that is a place. A damaged file goes unless `is_used`.
pub fn prepare_truncation(
    fs: &SharedFs,
    data_dir: &Path,
    bound: TimestampMs,
    late_from: Option<ChunkPlace>,
    is_used: &dyn Fn(u64) -> bool,
) -> Result<(), WalError> {
    remove_all(fs, data_dir, None)?;
    head_chunk_files::remove_before(&**fs, data_dir, bound.0, late_from, is_used)
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::storage::chunk::encode_xor;

    #[derive(Default)]
    struct Seen {
        series: Vec<(SeriesRef, Labels, Option<OpenImage>)>,
        records: Vec<Vec<u8>>,
    }

    impl SnapshotSink for Seen {
        fn series(&mut self, series: SeriesRef, labels: Labels, open: Option<OpenImage>) {
            self.series.push((series, labels, open));
        }

        fn record(&mut self, bytes: &[u8]) {
            self.records.push(bytes.to_vec());
        }
    }

    fn series() -> Record {
        let samples = [(10, 1.5), (20, 2.5)];
        let open = OpenImage::of(Encoding::Xor, encode_xor(&samples)).unwrap();
        series_record(SeriesRef(258), &Labels::from_pairs([("a", "bc")]), Some(&open))
    }

    #[test]
    fn records_have_the_bytes_of_the_format() {
        let bytes = series().as_bytes().to_vec();
        let head = [1, 0, 0, 0, 0, 0, 0, 1, 2, 1, 1, b'a', 2, b'b', b'c', 0, 0, 0, 0, 0, 0, 0, 0, 1];
        assert_eq!(bytes[..head.len()], head);
        let times = [[0, 0, 0, 0, 0, 0, 0, 10], [0, 0, 0, 0, 0, 0, 0, 20]].concat();
        assert_eq!(bytes[head.len()..head.len() + 16], times);
        assert_eq!(bytes[head.len() + 16], 1, "the encoding");
        assert_eq!(bytes[bytes.len() - 8..], 2.5f64.to_be_bytes());
        assert!(bytes[bytes.len() - 64..bytes.len() - 8].iter().all(|byte| *byte == 0));
        let mut seen = Seen::default();
        pass_on(&bytes, &mut seen).unwrap();
        let tombstones = [3, 0, 0, 0, 0, 0, 0, 0, 4, 2, 200, 1];
        let record = tombstones_of_snapshot(&tombstones).unwrap();
        assert_eq!(record.as_bytes(), [2, 5, 1, 4, 2, 200, 1]);
        pass_on(record.as_bytes(), &mut seen).unwrap();
        assert_eq!((seen.series.len(), seen.records), (1, vec![tombstones.to_vec()]));
        assert!(pass_on(&[9], &mut Seen::default()).is_err());
    }

    #[test]
    fn notes_that_were_changed_are_refused() {
        let aliases = Aliases::from([(SeriesRef(9), SeriesRef(3))]);
        let notes = Notes { next_ref: 17, aliases, files: vec![(1, 4096)], series: 5 };
        let text = notes.to_text();
        assert_eq!(parse_notes(&text), Some(notes));
        for at in 0..text.len() {
            let mut wrong = text.clone().into_bytes();
            wrong[at] ^= 1;
            assert_eq!(parse_notes(&String::from_utf8(wrong).unwrap()), None, "byte {at}");
            assert_eq!(parse_notes(&text[..at]), None, "cut at {at}");
        }
    }

    proptest! {
        #[test]
        fn decoders_never_panic(bytes in vec(any::<u8>(), 0..200), at: usize, to: u8, cut: usize) {
            for kind in [SERIES, TOMBSTONES, EXEMPLARS] {
                let _ = pass_on(&[&[kind], &bytes[..]].concat(), &mut Seen::default());
            }
            let mut record = series().as_bytes().to_vec();
            let len = record.len();
            record[at % len] = to;
            let _ = pass_on(&record[..cut % (len + 1)], &mut Seen::default());
            let _ = pass_on(&record, &mut Seen::default());
        }
    }
}
