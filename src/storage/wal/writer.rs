//! Appends records to the newest segment.
//!
//! A batch is one write, and it is in the log whole or not at all:
//! - After a failed write the segment is cut back to its last good record before anything else is written. While that
//!   fails, appends are refused; each one tries again, so a full disk heals by itself.
//! - After a failed sync nobody knows which of the written pages are on the disk, and a second sync would not tell. The
//!   records since the last sync are still here: they are written again to a new segment, and that one is synced.
//!   Reading a record twice changes nothing.
//! - A full disk is the same. To write the unsynced records again, and to end in order, the room is used that is kept for it
//!   (`storage::reserve`).
//! - After a panic in a write the segment is cut back like after a failed one; an append whose waiters were never
//!   answered can be taken back ([`Writer::undo_append`]).

use std::path::{Path, PathBuf};

use crate::storage::fs::{File, SharedFs};
use crate::storage::reserve;
use crate::storage::wal::fragment::{Compression, PAGE_LEN, frame, framed_len_max, pad_page};
use crate::storage::wal::held::Held;
use crate::storage::wal::manifest::{Part, Row, SharedManifest, Start};
use crate::storage::wal::metrics::WalMetrics;
use crate::storage::wal::record::Record;
use crate::storage::wal::segments::{list_segments, segment_name, storage_len};
use crate::storage::wal::{IoContext, WalError, WalOptions};

/// What Prometheus's encoder calls its default speed.
const ZSTD_LEVEL: i32 = 3;

/// A place in the log: everything before it is whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Number of the segment.
    pub segment: u64,
    /// Bytes before it in the segment.
    pub offset: u64,
}

/// Writes one folder of segments.
pub struct Writer {
    fs: SharedFs,
    dir: PathBuf,
    options: WalOptions,
    metrics: WalMetrics,
    segment: u64,
    file: Box<dyn File>,
    /// Bytes of whole records, with padding.
    good_len: u64,
    /// Of these, bytes that are known to be on the disk.
    synced_len: u64,
    /// What the records before `good_len` hold, and those before `synced_len`.
    held: Held,
    synced: Held,
    /// How the segment begins.
    start: Start,
    /// Told of what is synced, if there is one.
    manifest: Option<SharedManifest>,
    /// Records behind `synced_len`.
    unsynced: Packed,
    /// Those of the last append; kept for its room.
    packed: Packed,
    state: State,
    last_append: Option<LastAppend>,
    /// Where room is kept for a full disk, if any is.
    reserve_in: Option<PathBuf>,
    buffer: Vec<u8>,
    encoder: snap::raw::Encoder,
    /// Only where records are written so.
    zstd: Option<zstd::bulk::Compressor<'static>>,
    /// Where the next call of its kind is to panic.
    #[cfg(debug_assertions)]
    tear: Option<Tear>,
}

/// Where the last append begins.
struct LastAppend {
    segment: u64,
    offset: u64,
    /// What the records before it hold.
    held: Held,
    /// Unsynced records before it, and what they hold.
    unsynced: (usize, Held),
}

/// For fault tests: what is to be cut short by a panic.
#[cfg(debug_assertions)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tear {
    /// A write, with half of its bytes written.
    Write,
    /// A sync, before the disk was asked.
    Sync,
}

/// Records as they are in the file, end to end: allocated together, and used again.
#[derive(Default)]
struct Packed {
    /// How each is compressed, and how long it is then.
    parts: Vec<(Compression, usize)>,
    bytes: Vec<u8>,
    /// What they hold.
    held: Held,
}

/// More room than this is given back.
const PACKED_ROOM_MAX: usize = 8 << 20;

impl Packed {
    fn iter(&self) -> impl Iterator<Item = (Compression, &[u8])> {
        let mut rest = self.bytes.as_slice();
        self.parts.iter().map(move |(compression, len)| {
            let (data, after) = rest.split_at_checked(*len).unwrap_or((rest, &[]));
            rest = after;
            (*compression, data)
        })
    }

    fn extend(&mut self, other: &Self) {
        self.parts.extend_from_slice(&other.parts);
        self.bytes.extend_from_slice(&other.bytes);
        self.held.add(other.held);
    }

    /// Keeps the first `count` records, which hold this.
    fn truncate(&mut self, (count, held): (usize, Held)) {
        self.parts.truncate(count);
        self.bytes.truncate(self.parts.iter().map(|(_, len)| *len).sum());
        self.held = held;
    }

    fn clear(&mut self) {
        if PACKED_ROOM_MAX < self.bytes.capacity() {
            *self = Self::default();
        }
        self.truncate((0, Held::default()));
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Sound,
    /// Bytes of a failed write may lie behind `good_len`.
    MustCut,
    /// A sync has failed: the segment is not written any more.
    MustRewrite,
}

impl Writer {
    /// Begins a new segment `segment` in `dir`. Errors when it cannot be made.
    pub(crate) fn create(
        fs: SharedFs,
        dir: &Path,
        segment: u64,
        options: WalOptions,
        metrics: WalMetrics,
    ) -> Result<Self, WalError> {
        let file = create_segment(&fs, dir, segment)?;
        metrics.segment_current.set(segment as f64);
        let writer = Self {
            fs,
            dir: dir.to_path_buf(),
            options,
            metrics,
            segment,
            file,
            good_len: 0,
            synced_len: 0,
            held: Held::default(),
            synced: Held::default(),
            start: Start::default(),
            manifest: None,
            unsynced: Packed::default(),
            packed: Packed::default(),
            state: State::Sound,
            last_append: None,
            reserve_in: None,
            buffer: Vec::new(),
            encoder: snap::raw::Encoder::new(),
            zstd: (options.compression == Compression::Zstd)
                .then(|| zstd::bulk::Compressor::new(ZSTD_LEVEL))
                .transpose()
                .context("compress with zstd into", dir)?,
            #[cfg(debug_assertions)]
            tear: None,
        };
        writer.measure();
        Ok(writer)
    }

    /// The same, with room kept in the data directory.
    pub(crate) fn with_reserve(self, data_dir: &Path) -> Self {
        Self { reserve_in: Some(data_dir.to_path_buf()), ..self }
    }

    /// The same, with what is synced noted in the log's manifest.
    pub(crate) fn with_manifest(self, manifest: SharedManifest) -> Self {
        let writer = Self { manifest: Some(manifest), ..self };
        writer.note_synced();
        writer
    }

    /// Where what is synced is noted.
    pub(crate) fn manifest(&self) -> Option<&SharedManifest> {
        self.manifest.as_ref()
    }

    /// Where the next record will stand at the earliest.
    pub fn position(&self) -> Position {
        Position { segment: self.segment, offset: self.good_len }
    }

    /// Bytes of records that wait for a sync; the writer syncs by itself before they fill half a segment.
    pub fn unsynced_len(&self) -> usize {
        self.unsynced.bytes.len()
    }

    /// True if records may still be lost by a power cut.
    pub fn wants_sync(&self) -> bool {
        self.synced_len < self.good_len || self.state == State::MustRewrite
    }

    /// Whether appending these records is a write and nothing else: no repair, no new segment, no sync.
    pub fn only_writes(&self, records: &[Record]) -> bool {
        let len: u64 = records.iter().map(|record| framed_len_max(record.as_bytes().len()) as u64).sum();
        self.state == State::Sound
            && self.good_len + len <= self.options.segment_len
            && self.unsynced_len() as u64 + len <= self.options.segment_len / 2
    }

    /// Writes the records of a batch of waiters, in one write. When this returns an error none of them is in the log.
    pub fn append(&mut self, records: &[Record]) -> Result<(), WalError> {
        if records.is_empty() {
            return Ok(());
        }
        let result = self.try_append(records);
        if result.is_err() {
            self.metrics.writes_failed.inc();
        }
        result
    }

    /// Takes the last append back, for whoever has told nobody that it was done and was cut short by a panic: its records
    /// must not be there after a restart. It stays if its records stand in another segment by now, as after a failed sync.
    pub fn undo_append(&mut self) {
        let Some(last) = self.last_append.take().filter(|last| last.segment == self.segment) else { return };
        (self.good_len, self.held) = (last.offset, last.held);
        self.unsynced.truncate(last.unsynced);
        if last.offset < self.synced_len {
            (self.synced_len, self.synced) = (last.offset, last.held);
            self.note_synced();
        }
        if self.state != State::MustRewrite {
            self.state = State::MustCut;
            // If this fails, the next append tries again before it writes.
            let _ = self.cut_back();
        }
    }

    /// From now on the last append cannot be taken back.
    pub(crate) fn settle_append(&mut self) {
        self.last_append = None;
    }

    /// For fault tests: lets the next write or sync panic.
    #[cfg(debug_assertions)]
    pub fn tear_next(&mut self, what: Tear) {
        self.tear = Some(what);
    }

    fn try_append(&mut self, records: &[Record]) -> Result<(), WalError> {
        self.last_append = None;
        self.recover()?;
        let mut packed = std::mem::take(&mut self.packed);
        self.pack(records, &mut packed);
        let appended = self.append_packed(&packed);
        self.packed = packed;
        appended
    }

    fn append_packed(&mut self, packed: &Packed) -> Result<(), WalError> {
        let len: u64 = packed.parts.iter().map(|(_, len)| framed_len_max(*len) as u64).sum();
        if self.options.segment_len < len {
            return Err(WalError::BatchTooLong { len, max: self.options.segment_len });
        }
        if self.options.segment_len < self.good_len + len {
            self.next_segment()?;
        }
        self.buffer.clear();
        let start = self.good_len;
        let unsynced = (self.unsynced.parts.len(), self.unsynced.held);
        self.last_append = Some(LastAppend { segment: self.segment, offset: start, held: self.held, unsynced });
        for (compression, data) in packed.iter() {
            let parts = frame(data, compression, start, &mut self.buffer);
            self.metrics.part_writes.add(parts);
        }
        self.write_buffer()?;
        self.held.add(packed.held);
        self.metrics.part_bytes.add(self.buffer.len() as u64);
        if self.options.hold_unsynced {
            self.unsynced.extend(packed);
            if self.options.segment_len / 2 < self.unsynced_len() as u64 {
                // The batch is in the log; a failure to sync shows in the state and in the next call.
                if let Err(error) = self.sync() {
                    tracing::warn!(component = "tsdb", %error, "cannot sync the write log");
                }
            }
        }
        Ok(())
    }

    /// Whether `len` bytes, and a page at least, could be written behind the last record: for whoever waits for a full disk to
    /// have room again.
    pub fn probe(&mut self, len: usize) -> Result<(), WalError> {
        self.recover()?;
        self.state = State::MustCut;
        let mut places = (self.good_len..).step_by(PAGE_LEN).take(len.div_ceil(PAGE_LEN).max(1));
        let written = places.try_for_each(|at| self.file.write_all_at(&[0; PAGE_LEN], at));
        let cut = self.cut_back();
        written.context("write", &self.segment_path())?;
        cut?;
        if let Some(data_dir) = &self.reserve_in {
            reserve::hold(&self.fs, data_dir);
        }
        Ok(())
    }

    /// Returns when all records so far survive a power cut. On an error they are still held and a later call tries
    /// again; none of them counts as durable.
    pub fn sync(&mut self) -> Result<(), WalError> {
        match self.state {
            State::MustRewrite => return self.rewrite(),
            State::MustCut => {
                // The good part can be synced whether or not the rest is cut; the state remembers.
                let _ = self.cut_back();
            }
            State::Sound => {}
        }
        if self.good_len <= self.synced_len {
            return Ok(());
        }
        #[cfg(debug_assertions)]
        if self.tear.take_if(|tear| *tear == Tear::Sync).is_some() {
            panic!("failpoint within a sync of the log");
        }
        let begun = self.metrics.clock.monotonic();
        let synced = self.file.sync_data();
        self.metrics.fsync_seconds.observe((self.metrics.clock.monotonic().saturating_sub(begun)).as_secs_f64());
        match synced {
            Ok(()) => {
                self.forget_unsynced();
                Ok(())
            }
            Err(error) => {
                let path = self.segment_path();
                tracing::warn!(component = "tsdb", segment = self.segment, %error, path = %path.display(),
                    "sync of the write log failed; its records are written again to a new segment");
                self.state = State::MustRewrite;
                self.rewrite()?;
                // What is not held cannot be written again: whoever asked must not take it for durable.
                match self.options.hold_unsynced {
                    true => Ok(()),
                    false => Err(WalError::Io { action: "sync", path, source: error }),
                }
            }
        }
    }

    /// Ends the current segment and begins the next, as before a checkpoint. Returns the number of the new one.
    pub fn next_segment(&mut self) -> Result<u64, WalError> {
        self.recover()?;
        self.buffer.clear();
        pad_page(self.good_len, &mut self.buffer);
        if !self.buffer.is_empty() {
            self.write_buffer()?;
        }
        let before = self.segment;
        self.sync()?;
        // A failed sync has begun a new segment already.
        if self.segment == before {
            let file = create_segment(&self.fs, &self.dir, before + 1)?;
            self.enter(before + 1, file, 0);
            self.held = Held::default();
            self.note_synced();
        }
        if let Some(data_dir) = &self.reserve_in {
            reserve::hold(&self.fs, data_dir);
        }
        self.measure();
        Ok(self.segment)
    }

    /// Fills the last page up and syncs all, as at an orderly end. Returns where the log ends.
    pub fn finish(&mut self) -> Result<Position, WalError> {
        self.recover()?;
        self.buffer.clear();
        pad_page(self.good_len, &mut self.buffer);
        if !self.buffer.is_empty() {
            self.write_buffer()?;
        }
        self.sync()?;
        Ok(self.position())
    }

    /// Writes the buffer behind the last good record.
    fn write_buffer(&mut self) -> Result<(), WalError> {
        let end = self.good_len + self.buffer.len() as u64;
        // Until it is done: a panic leaves it so.
        self.state = State::MustCut;
        #[cfg(debug_assertions)]
        if self.tear.take_if(|tear| *tear == Tear::Write).is_some() {
            let half = self.buffer.len() / 2;
            let _ = self.file.write_all_at(self.buffer.get(..half).unwrap_or_default(), self.good_len);
            panic!("failpoint within a write of the log");
        }
        if let Err(source) = self.file.write_all_at(&self.buffer, self.good_len) {
            // If this fails as well, the next append tries again before it writes.
            let _ = self.cut_back();
            return Err(WalError::Io { action: "write", path: self.segment_path(), source });
        }
        self.state = State::Sound;
        if self.good_len == 0 {
            self.start = Start::of(&self.buffer);
        }
        self.metrics.page_flushes.inc();
        self.metrics.completed_pages.add(end / PAGE_LEN as u64 - self.good_len / PAGE_LEN as u64);
        self.good_len = end;
        Ok(())
    }

    /// Makes the segment fit for appends again.
    fn recover(&mut self) -> Result<(), WalError> {
        match self.state {
            State::Sound => Ok(()),
            State::MustCut => self.cut_back(),
            State::MustRewrite => self.rewrite(),
        }
    }

    fn cut_back(&mut self) -> Result<(), WalError> {
        self.file.truncate(self.good_len).context("cut back", &self.segment_path())?;
        self.state = State::Sound;
        Ok(())
    }

    /// Writes the unsynced records to a new segment and syncs it.
    fn rewrite(&mut self) -> Result<(), WalError> {
        let segment = self.segment + 1;
        self.buffer.clear();
        for (compression, data) in self.unsynced.iter() {
            frame(data, compression, 0, &mut self.buffer);
        }
        let path = self.dir.join(segment_name(segment));
        let write = || {
            let file = create_segment(&self.fs, &self.dir, segment)?;
            file.write_all_at(&self.buffer, 0).context("write", &path)?;
            file.sync_data().context("sync", &path)?;
            Ok(file)
        };
        let written = match &self.reserve_in {
            Some(data_dir) => reserve::with_room(&self.fs, data_dir, write),
            None => write(),
        };
        match written {
            Ok(file) => {
                let (doubtful, sound_len) = (self.segment_path(), self.synced_len);
                let old = self.enter(segment, file, self.buffer.len() as u64);
                (self.held, self.start) = (self.unsynced.held, Start::of(&self.buffer));
                self.state = State::Sound;
                self.forget_unsynced();
                // What the failed sync left there stands in the new segment now. If the cut fails, a reader finds the
                // records twice, or damage without loss.
                let held = self.options.hold_unsynced;
                if held && let Err(error) = old.truncate(sound_len).and_then(|()| old.sync_data()) {
                    tracing::warn!(component = "tsdb", path = %doubtful.display(), %error,
                        "cannot cut the segment whose sync failed");
                }
                self.measure();
                Ok(())
            }
            Err(error) => {
                // An empty or half-written segment is made anew by the next attempt if it cannot be removed now.
                let _ = self.fs.remove_file(&path);
                Err(error)
            }
        }
    }

    fn enter(&mut self, segment: u64, file: Box<dyn File>, len: u64) -> Box<dyn File> {
        (self.segment, self.good_len, self.synced_len) = (segment, len, 0);
        (self.synced, self.start) = (Held::default(), Start::default());
        self.metrics.segment_current.set(segment as f64);
        std::mem::replace(&mut self.file, file)
    }

    fn forget_unsynced(&mut self) {
        (self.synced_len, self.synced) = (self.good_len, self.held);
        self.unsynced.clear();
        self.note_synced();
    }

    fn note_synced(&self) {
        if let Some(manifest) = &self.manifest {
            let part = Part::Segment(self.segment);
            manifest.lock().note(Row { part, len: self.synced_len, held: self.synced, start: self.start });
        }
    }

    /// Makes `packed` hold these records, compressed where that makes them shorter.
    fn pack(&mut self, records: &[Record], packed: &mut Packed) {
        packed.clear();
        let Packed { parts, bytes, held } = packed;
        for record in records {
            held.add(record.held());
            let (raw, from) = (record.as_bytes(), bytes.len());
            let compression = self.options.compression;
            let compressed = match compression {
                Compression::Snappy => {
                    bytes.resize(from + snap::raw::max_compress_len(raw.len()), 0);
                    self.encoder.compress(raw, bytes.get_mut(from..).unwrap_or_default()).ok()
                }
                Compression::Zstd => self.zstd.as_mut().and_then(|zstd| zstd.compress(raw).ok()).map(|data| {
                    bytes.extend_from_slice(&data);
                    data.len()
                }),
                Compression::None => None,
            };
            match compressed.filter(|len| *len < raw.len()) {
                Some(len) => {
                    self.metrics.bytes_saved.add((raw.len() - len) as u64);
                    bytes.truncate(from + len);
                    parts.push((compression, len));
                }
                None => {
                    bytes.truncate(from);
                    bytes.extend_from_slice(raw);
                    parts.push((Compression::None, raw.len()));
                }
            }
        }
    }

    fn segment_path(&self) -> PathBuf {
        self.dir.join(segment_name(self.segment))
    }

    /// Brings the size metric up to date.
    pub(crate) fn measure(&self) {
        if let Ok(len) = storage_len(&*self.fs, &self.dir) {
            self.metrics.storage_bytes.set(len as f64);
        }
    }

    pub(crate) fn fs(&self) -> &SharedFs {
        &self.fs
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn options(&self) -> WalOptions {
        self.options
    }

    pub(crate) fn metrics(&self) -> &WalMetrics {
        &self.metrics
    }

    /// Number of the oldest segment.
    pub(crate) fn first_segment(&self) -> Result<u64, WalError> {
        Ok(list_segments(&*self.fs, &self.dir)?.first().map_or(self.segment, |s| s.segment))
    }
}

/// Makes an empty segment whose name is durable.
fn create_segment(fs: &SharedFs, dir: &Path, segment: u64) -> Result<Box<dyn File>, WalError> {
    let path = dir.join(segment_name(segment));
    let file = fs.create(&path).context("create", &path)?;
    fs.sync_dir(dir).context("sync", dir)?;
    Ok(file)
}
