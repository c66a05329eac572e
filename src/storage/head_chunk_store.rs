//! Finished chunks on disk while the server runs: one writer that adds them to the last file of `chunks_head`, and readers that
//! read them one by one, without a map, so that they take no memory until they are asked for. Their layout stands in `head_chunks`.
//!
//! ```text
//! Shard::chunk_job ─ Job::run (compute pool) ─ ChunkStore::append ─ Shard::install_chunks: the series knows places, not bytes
//! query ─ SealedChunk::data ─ FileSet::load: one read, checked
//! ```
//! Nothing relies on these files: the log holds each of their samples until blocks do. So they are synced only when one is full,
//! before the next begins; then a power cut can take the end of the last file alone, and no series ever has a hole. What a
//! failing disk does not take stays in memory and is tried again.
//!
//! A series knows the files that it needs ([`FileSet`]): one that is removed can be read until nothing needs it any more.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::{Mutex, MutexGuard};

use crate::model::read::may_read_files;
use crate::storage::block::chunks::sample_count;
use crate::storage::chunk::ChunkError;
use crate::storage::chunk::written::{ChunkPlace, WrittenChunk};
use crate::storage::fs::{File, SharedFs};
use crate::storage::head_chunk_files::{self, FILE_LEN_MAX, path_of};
use crate::storage::head_chunk_mending::StandIns;
use crate::storage::head_chunks::{CHECKSUM_LEN, FILE_HEADER, HEAD_CHUNKS_DIR, OUT_OF_ORDER, chunk_len, parse};
use crate::storage::wal::{IoContext, WalError};
use crate::telemetry::metrics::Counter;

/// Bytes that are read for a chunk at first: all of nearly any.
const READ_LEN: usize = 1280;

/// A file, open for reading.
pub struct ChunkFile {
    number: u64,
    file: Box<dyn File>,
}

/// Counts what goes wrong with files.
#[derive(Clone, Debug, Default)]
pub struct ChunkCounters {
    /// Times that a file was found damaged.
    pub damaged: Counter,
    /// Samples that damage has cost.
    pub lost_samples: Counter,
}

impl fmt::Debug for ChunkFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ChunkFile({})", self.number)
    }
}

/// The files of a data directory that something reads.
pub struct Files {
    fs: SharedFs,
    data_dir: PathBuf,
    counters: ChunkCounters,
    known: Mutex<Known>,
    /// For chunks that files do not hold any more.
    stand_ins: StandIns,
}

impl fmt::Debug for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Files({})", self.data_dir.display())
    }
}

#[derive(Default)]
struct Known {
    files: BTreeMap<u64, Weak<ChunkFile>>,
    sets: HashMap<(u64, u64), Weak<FileSet>>,
}

/// Files that some series need, in the order of their numbers. Series of the same age share one.
#[derive(Debug)]
pub struct FileSet {
    owner: Arc<Files>,
    first: u64,
    /// `None` for one that is gone, as nothing needs it.
    files: Box<[Option<Arc<ChunkFile>>]>,
}

impl Files {
    /// Those of a data directory. What is wrong with them counts in `counters`.
    pub fn new(fs: &SharedFs, data_dir: &Path, counters: ChunkCounters) -> Arc<Self> {
        let (fs, data_dir, known) = (fs.clone(), data_dir.to_path_buf(), Mutex::default());
        Arc::new(Self { fs, data_dir, counters, known, stand_ins: StandIns::default() })
    }

    /// Where they stand.
    pub(crate) fn place(&self) -> (&SharedFs, &Path) {
        (&self.fs, &self.data_dir)
    }

    pub(crate) fn counters(&self) -> &ChunkCounters {
        &self.counters
    }

    /// What stands for chunks that they do not hold any more.
    pub(crate) fn stand_ins(&self) -> &StandIns {
        &self.stand_ins
    }

    /// The files of these numbers, ends included; those of `before` among them stay open though they may be removed.
    pub fn set_of(self: &Arc<Self>, first: u64, last: u64, before: Option<&FileSet>) -> Arc<FileSet> {
        let mut known = self.known.lock();
        if let Some(set) = known.sets.get(&(first, last)).and_then(Weak::upgrade) {
            return set;
        }
        known.sets.retain(|_, set| 0 < set.strong_count());
        known.files.retain(|_, file| 0 < file.strong_count());
        let file = |number: u64| {
            let held = before.and_then(|before| before.file(number)).cloned();
            let held = held.or_else(|| known.files.get(&number).and_then(Weak::upgrade));
            held.or_else(|| self.open(number, &mut known))
        };
        let files = (first..=last).map(file).collect();
        let set = Arc::new(FileSet { owner: Arc::clone(self), first, files });
        known.sets.insert((first, last), Arc::downgrade(&set));
        set
    }

    /// Whether something may read a file.
    pub(crate) fn uses(&self, number: u64) -> bool {
        self.known.lock().files.get(&number).is_some_and(|file| 0 < file.strong_count())
    }

    /// Whoever needs one that cannot be opened finds that out when it reads.
    fn open(&self, number: u64, known: &mut Known) -> Option<Arc<ChunkFile>> {
        let file = self.fs.open(&path_of(&self.data_dir, number)).ok()?;
        Some(Self::enter(number, file, known))
    }

    fn enter(number: u64, file: Box<dyn File>, known: &mut Known) -> Arc<ChunkFile> {
        let file = Arc::new(ChunkFile { number, file });
        known.files.insert(number, Arc::downgrade(&file));
        file
    }
}

impl FileSet {
    fn file(&self, number: u64) -> Option<&Arc<ChunkFile>> {
        let index = usize::try_from(number.checked_sub(self.first)?).ok()?;
        self.files.get(index)?.as_ref()
    }

    /// Those of these numbers among them.
    pub fn narrowed(&self, first: u64, last: u64) -> Arc<Self> {
        self.owner.set_of(first, last, Some(self))
    }

    /// Reads a chunk into `buffer` and returns it without length and checksum. Errors when it does not stand there as it was written,
    /// unless something stands for it.
    pub fn load<'b>(&self, chunk: &WrittenChunk, buffer: &'b mut Vec<u8>) -> Result<&'b [u8], ChunkError> {
        self.load_kind(chunk, 0, buffer)
    }

    /// The same for a chunk of samples that came out of order.
    pub fn load_late<'b>(&self, chunk: &WrittenChunk, buffer: &'b mut Vec<u8>) -> Result<&'b [u8], ChunkError> {
        self.load_kind(chunk, OUT_OF_ORDER, buffer)
    }

    /// Whose files they are.
    pub(crate) fn owner(&self) -> &Arc<Files> {
        &self.owner
    }

    fn load_kind<'b>(&self, chunk: &WrittenChunk, kind: u8, buffer: &'b mut Vec<u8>) -> Result<&'b [u8], ChunkError> {
        let file = chunk.place.file();
        if !may_read_files() {
            return Err(ChunkError::UnreadableFile { file, kind: io::ErrorKind::WouldBlock });
        }
        let found = match self.read(chunk, kind, buffer) {
            Ok(found) => found,
            Err(error) => {
                let Some(data) = self.owner.stand_ins.get(chunk.place) else {
                    self.suspect(chunk.place);
                    return Err(error);
                };
                data.as_ref().clone_into(buffer);
                0..buffer.len()
            }
        };
        Ok(buffer.get(found).unwrap_or_default())
    }

    /// Whether a chunk stands where it was written. `kind` is 0, or [`OUT_OF_ORDER`].
    pub(crate) fn holds(&self, chunk: &WrittenChunk, kind: u8, buffer: &mut Vec<u8>) -> bool {
        self.read(chunk, kind, buffer).is_ok()
    }

    /// Reads a chunk into `buffer`; returns where in it the chunk is. `kind` is a bit of its encoding.
    fn read(&self, chunk: &WrittenChunk, kind: u8, buffer: &mut Vec<u8>) -> Result<Range<usize>, ChunkError> {
        let (number, offset) = (chunk.place.file(), chunk.place.offset());
        let unreadable = |kind| ChunkError::UnreadableFile { file: number, kind };
        let file = self.file(number).ok_or(unreadable(io::ErrorKind::NotFound))?;
        let mut have = read_at_least(file, buffer, offset, READ_LEN).map_err(|error| unreadable(error.kind()))?;
        if let Some(len) = buffer.get(..have).and_then(chunk_len).filter(|len| have < *len) {
            have = read_at_least(file, buffer, offset, len).map_err(|error| unreadable(error.kind()))?;
        }
        match buffer.get(..have).and_then(parse) {
            Some((len, found))
                if (found.min_t, found.max_t, found.encoding)
                    == (chunk.min_t, chunk.max_t, chunk.encoding.id() | kind)
                    && sample_count(chunk.encoding.id(), found.data) == chunk.samples =>
            {
                let end = len - CHECKSUM_LEN;
                Ok(end - found.data.len()..end)
            }
            _ => Err(ChunkError::DamagedFile { file: number, offset }),
        }
    }

    /// Has a file looked at.
    fn suspect(&self, place: ChunkPlace) {
        if self.owner.stand_ins.suspect(place.file()) {
            self.owner.counters.damaged.inc();
            tracing::error!(
                component = "tsdb",
                file = place.file(),
                offset = place.offset(),
                "A file of head chunks is damaged; the log holds their samples"
            );
        }
    }
}

/// Reads `len` bytes, or up to the end of the file.
fn read_at_least(file: &ChunkFile, buffer: &mut Vec<u8>, offset: u64, len: usize) -> io::Result<usize> {
    if buffer.len() < len {
        buffer.resize(len, 0);
    }
    file.file.read_at(buffer.get_mut(..len).unwrap_or_default(), offset)
}

/// The one writer of a head's finished chunks.
#[derive(Debug)]
pub struct ChunkStore {
    files: Arc<Files>,
    is_open: AtomicBool,
    /// The head knows all chunks in the files.
    is_complete: AtomicBool,
    writing: Mutex<Writing>,
    /// By epoch of samples that came out of order: where the first of their chunks stands that is still needed.
    late: Mutex<BTreeMap<u64, ChunkPlace>>,
    /// Chunks that were written.
    written: AtomicU64,
    /// Writes that failed.
    failed: AtomicU64,
}

#[derive(Debug)]
struct Writing {
    /// Number of the last file.
    last: u64,
    /// The last file was made by an earlier process, and is not known to be synced.
    is_foreign: bool,
    current: Option<Current>,
}

#[derive(Debug)]
struct Current {
    file: Arc<ChunkFile>,
    path: PathBuf,
    len: u64,
    /// A failed write may have left something behind the end.
    has_rest: bool,
}

/// A writer behind files that hold no more chunks of samples in order: the head has been read from the log alone, and what stands
/// in files does not go with it.
pub fn begin_anew(fs: &SharedFs, data_dir: &Path, counters: ChunkCounters) -> Result<ChunkStore, WalError> {
    head_chunk_files::remove_in_order(&**fs, data_dir)?;
    let last = head_chunk_files::list(&**fs, data_dir)?.last().map_or(0, |file| file.number);
    Ok(ChunkStore::new(Files::new(fs, data_dir, counters), last))
}

impl ChunkStore {
    /// Goes on behind the file with number `last`; nothing is written before [`Self::open`].
    pub fn new(files: Arc<Files>, last: u64) -> Self {
        let writing = Writing { last, is_foreign: 0 < last, current: None };
        Self {
            files,
            is_open: AtomicBool::new(false),
            is_complete: AtomicBool::new(true),
            writing: Mutex::new(writing),
            late: Mutex::default(),
            written: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        }
    }

    /// Chunks are written from now on.
    pub fn open(&self) {
        self.is_open.store(true, Ordering::Release);
    }

    /// Whether chunks are written.
    pub fn is_open(&self) -> bool {
        self.is_open.load(Ordering::Acquire)
    }

    /// Whether the head knows all chunks in the files.
    pub fn is_complete(&self) -> bool {
        self.is_complete.load(Ordering::Acquire)
    }

    /// Writes no more: the files hold chunks that the head does not know of.
    pub fn give_up(&self) {
        self.is_complete.store(false, Ordering::Release);
        self.is_open.store(false, Ordering::Release);
        // Whoever writes now is done afterwards.
        drop(self.lock());
    }

    /// Notes a chunk of samples that came out of order.
    pub(crate) fn note_late(&self, epoch: u64, place: ChunkPlace) {
        let mut late = self.late.lock();
        let first = late.entry(epoch).or_insert(place);
        *first = place.min(*first);
    }

    /// The place of the first chunk of samples that came out of order and are not in blocks; `None` if there is none.
    pub fn late_from(&self) -> Option<ChunkPlace> {
        self.late.lock().values().min().copied()
    }

    /// Blocks stand for the samples that came out of order of the epochs up to this one. Returns the place before which the files hold
    /// no others; `None` if they hold none at all.
    pub(crate) fn drop_late(&self, epoch: u64) -> Option<ChunkPlace> {
        // In this order: nothing is added meanwhile.
        let writing = self.writing.lock();
        let mut late = self.late.lock();
        if late.is_empty() {
            return None;
        }
        late.retain(|own, _| epoch < *own);
        let end = match &writing.current {
            Some(current) => ChunkPlace::new(writing.last, current.len),
            None => ChunkPlace::new(writing.last + 1, 0),
        };
        late.values().min().copied().or(end)
    }

    /// What readers use.
    pub fn files(&self) -> &Arc<Files> {
        &self.files
    }

    /// Chunks that were written.
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Writes that failed.
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// Writes no more. Returns when all that was written will survive a power cut.
    pub fn close(&self) -> Result<(), WalError> {
        self.is_open.store(false, Ordering::Release);
        self.lock().finish()
    }

    /// Keeps the files as they are until it is dropped.
    pub fn lock(&self) -> Appender<'_> {
        Appender { store: self, writing: self.writing.lock() }
    }
}

/// The right to write.
pub struct Appender<'a> {
    store: &'a ChunkStore,
    writing: MutexGuard<'a, Writing>,
}

impl Appender<'_> {
    /// Adds `chunks` chunks as they stand in files; returns the file and the place of the first. On an error nothing was added.
    pub fn append(&mut self, data: &[u8], chunks: u64) -> Result<(Arc<ChunkFile>, ChunkPlace), WalError> {
        let added = self.try_append(data);
        let counter = if added.is_ok() { &self.store.written } else { &self.store.failed };
        counter.fetch_add(if added.is_ok() { chunks } else { 1 }, Ordering::Relaxed);
        added
    }

    fn try_append(&mut self, data: &[u8]) -> Result<(Arc<ChunkFile>, ChunkPlace), WalError> {
        let is_full = |current: &Current| FILE_LEN_MAX < current.len + data.len() as u64;
        if self.writing.current.as_ref().is_some_and(is_full) {
            self.finish()?;
            self.writing.current = None;
        }
        if self.writing.current.is_none() {
            self.begin()?;
        }
        let Some(current) = &mut self.writing.current else { unreachable!("it was begun above") };
        current.cut_rest()?;
        if let Err(error) = current.file.file.write_all_at(data, current.len).context("write", &current.path) {
            current.has_rest = true;
            // Should that fail as well it is done before the next write.
            let _ = current.cut_rest();
            return Err(error);
        }
        let place = ChunkPlace::new(current.file.number, current.len).expect("files are short and few");
        current.len += data.len() as u64;
        Ok((Arc::clone(&current.file), place))
    }

    /// Begins the next file; the one before is synced.
    fn begin(&mut self) -> Result<(), WalError> {
        let Files { fs, data_dir, .. } = &*self.store.files;
        if self.writing.is_foreign {
            head_chunk_files::sync_last(&**fs, data_dir)?;
            self.writing.is_foreign = false;
        }
        let dir = data_dir.join(HEAD_CHUNKS_DIR);
        fs.create_dir_all(&dir).context("create", &dir)?;
        let number = self.writing.last + 1;
        let path = path_of(data_dir, number);
        let file = fs.create(&path).context("create", &path)?;
        if let Err(error) = file.write_all_at(&FILE_HEADER, 0).context("write", &path) {
            // One that stays is made anew.
            let _ = fs.remove_file(&path);
            return Err(error);
        }
        let file = Files::enter(number, file, &mut self.store.files.known.lock());
        self.writing.last = number;
        self.writing.current = Some(Current { file, path, len: FILE_HEADER.len() as u64, has_rest: false });
        Ok(())
    }

    /// Syncs the file that is being written.
    fn finish(&mut self) -> Result<(), WalError> {
        let Some(current) = &mut self.writing.current else { return Ok(()) };
        current.cut_rest()?;
        current.file.file.sync_data().context("sync", &current.path)?;
        let Files { fs, data_dir, .. } = &*self.store.files;
        let dir = data_dir.join(HEAD_CHUNKS_DIR);
        fs.sync_dir(&dir).context("sync", &dir)?;
        fs.sync_dir(data_dir).context("sync", data_dir)
    }
}

impl Current {
    fn cut_rest(&mut self) -> Result<(), WalError> {
        if self.has_rest {
            self.file.file.truncate(self.len).context("cut", &self.path)?;
            self.has_rest = false;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::sample::SeriesRef;
    use crate::storage::chunk::{Encoding, encode_xor};
    use crate::storage::fs::sim::SimFs;
    use crate::storage::head_chunks::{each_chunk, put_chunk};

    fn one(series: u64, t: i64) -> Vec<u8> {
        let mut out = Vec::new();
        put_chunk(SeriesRef(series), (t, t + 1), 1, &encode_xor(&[(t, 1.0), (t + 1, 2.0)]), &mut out);
        out
    }

    fn held(sim: &SimFs) -> Vec<(u64, i64)> {
        let mut found = Vec::new();
        for number in 1.. {
            let path = path_of(Path::new("/data"), number);
            if !crate::storage::fs::Fs::exists(sim, &path).unwrap() {
                return found;
            }
            let whole = each_chunk(sim, &path, &mut |chunk| found.push((chunk.series.0, chunk.min_t))).unwrap();
            assert!(whole, "{}", path.display());
        }
        unreachable!()
    }

    #[test]
    fn whichever_operation_fails_files_hold_whole_chunks_and_the_store_goes_on() {
        let mut tried = 0;
        for n in 1.. {
            let sim = SimFs::new();
            let shared: SharedFs = Arc::new(sim.clone());
            shared.create_dir_all(Path::new("/data")).unwrap();
            shared.sync_dir(Path::new("/")).unwrap();
            let store = ChunkStore::new(Files::new(&shared, Path::new("/data"), ChunkCounters::default()), 0);
            let (mut stored, mut places) = (Vec::new(), Vec::new());
            sim.fail_nth(n, n % 3);
            let mut has_failed = false;
            for t in 0..6 {
                match store.lock().append(&one(7, t * 10), 1) {
                    Ok((_, place)) => {
                        stored.push((7, t * 10));
                        places.push((place, t * 10));
                    }
                    Err(_) => has_failed = true,
                }
            }
            sim.heal();
            let (_, place) = store.lock().append(&one(8, 100), 1).unwrap();
            stored.push((8, 100));
            places.push((place, 100));
            assert_eq!(held(&sim), stored, "operation {n}");
            for (place, t) in places {
                let set = store.files().set_of(place.file(), place.file(), None);
                let chunk = WrittenChunk { place, min_t: t, max_t: t + 1, samples: 2, encoding: Encoding::Xor };
                set.load(&chunk, &mut Vec::new()).unwrap();
                assert!(set.load(&WrittenChunk { samples: 3, ..chunk }, &mut Vec::new()).is_err());
            }
            store.close().unwrap();
            sim.cut_power();
            assert_eq!(held(&sim), stored, "operation {n}, after a power cut");
            assert_eq!((store.failed() != 0, store.written()), (has_failed, stored.len() as u64));
            if !has_failed {
                break;
            }
            tried += 1;
        }
        assert!(6 < tried, "{tried}");
    }
}
