//! The files of finished head chunks as a stop writes and a start reads them; their layout stands in `head_chunks`.
//!
//! Files are numbered without gaps and hold a series' chunks in the order of their times. A stop adds only what no file holds
//! yet; files of which every sample is too old are removed, oldest first.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use crate::model::sample::SeriesRef;
use crate::storage::block::chunks::sample_count;
use crate::storage::chunk::Encoding;
use crate::storage::chunk::written::{ChunkPlace, WrittenChunk};
use crate::storage::fs::{File, Fs, SharedFs};
use crate::storage::head::image::ChunkImage;
use crate::storage::head_chunks::{
    FILE_HEADER, FileEnd, HEAD_CHUNKS_DIR, HeadChunk, OUT_OF_ORDER, each_chunk, each_chunk_to_end, put_chunk,
};
use crate::storage::wal::{IoContext, WalError};

/// Longest file.
pub(crate) const FILE_LEN_MAX: u64 = 128 << 20;
/// Bytes that are written at once.
const WRITE_LEN: usize = 1 << 20;

/// A file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkFile {
    /// Its number.
    pub number: u64,
    /// Its length in bytes.
    pub len: u64,
}

/// The files of a data directory, by number.
pub fn list(fs: &dyn Fs, data_dir: &Path) -> Result<Vec<ChunkFile>, WalError> {
    let dir = data_dir.join(HEAD_CHUNKS_DIR);
    let entries = match fs.list(&dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(WalError::Io { action: "list", path: dir, source }),
    };
    let file = |entry: crate::storage::fs::DirEntry| {
        let number = entry.name.parse().ok().filter(|_| !entry.is_dir)?;
        Some(ChunkFile { number, len: entry.len })
    };
    let mut files: Vec<ChunkFile> = entries.into_iter().filter_map(file).collect();
    files.sort_unstable_by_key(|file| file.number);
    Ok(files)
}

pub(crate) fn path_of(data_dir: &Path, number: u64) -> PathBuf {
    data_dir.join(HEAD_CHUNKS_DIR).join(format!("{number:06}"))
}

/// Takes a chunk of a series: where it stands.
pub type ChunkSink<'a> = dyn FnMut(SeriesRef, WrittenChunk) + 'a;

/// How far files could be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// To the end.
    Whole,
    /// The last file ends within a chunk, as one that was being written when the process or the power went; it is sound up to here.
    Torn {
        /// The file.
        file: u64,
        /// Its sound length.
        len: u64,
    },
    /// Up to damage, or to a gap.
    Damaged,
}

/// Takes a chunk of samples that came out of order, with the number of its file.
pub(crate) type LateChunkSink<'a> = dyn FnMut(u64, &HeadChunk<'_>) + 'a;

/// Calls `take` with each chunk up to the first damage or gap, and `take_late` with those of samples that came out of order. Those of
/// encodings that we do not know are passed over. Returns how far files could be read.
pub(crate) fn read(
    fs: &dyn Fs,
    data_dir: &Path,
    take: &mut ChunkSink<'_>,
    take_late: &mut LateChunkSink<'_>,
) -> Result<Extent, WalError> {
    let (mut extent, mut before) = (Extent::Whole, None);
    for file in list(fs, data_dir)? {
        // Only the last file can have been written when something ended.
        if extent != Extent::Whole || before.is_some_and(|before: u64| before + 1 != file.number) {
            return Ok(Extent::Damaged);
        }
        before = Some(file.number);
        let path = path_of(data_dir, file.number);
        let mut take = |chunk: &HeadChunk<'_>| {
            if chunk.encoding & OUT_OF_ORDER != 0 {
                return take_late(file.number, chunk);
            }
            let place = ChunkPlace::new(file.number, chunk.offset);
            if let (Ok(encoding), Some(place)) = (Encoding::from_id(chunk.encoding), place) {
                let samples = sample_count(chunk.encoding, chunk.data);
                let (min_t, max_t) = (chunk.min_t, chunk.max_t);
                take(chunk.series, WrittenChunk { place, min_t, max_t, samples, encoding });
            }
        };
        extent = match each_chunk_to_end(fs, &path, &mut take).context("read", &path)? {
            FileEnd::Sound => Extent::Whole,
            FileEnd::Empty => Extent::Torn { file: file.number, len: 0 },
            FileEnd::Torn(len) => Extent::Torn { file: file.number, len },
            FileEnd::Damaged => Extent::Damaged,
        };
    }
    Ok(extent)
}

/// Has the last file survive a power cut, whoever has written it: others are synced before the next one begins.
pub fn sync_last(fs: &dyn Fs, data_dir: &Path) -> Result<(), WalError> {
    let Some(last) = list(fs, data_dir)?.pop() else { return Ok(()) };
    let path = path_of(data_dir, last.number);
    fs.open(&path).and_then(|file| file.sync_data()).context("sync", &path)?;
    let dir = data_dir.join(HEAD_CHUNKS_DIR);
    fs.sync_dir(&dir).context("sync", &dir)?;
    fs.sync_dir(data_dir).context("sync", data_dir)
}

/// Cuts a torn file to its sound length, or removes it where it holds nothing.
pub fn cut(fs: &dyn Fs, data_dir: &Path, file: u64, len: u64) -> Result<(), WalError> {
    let path = path_of(data_dir, file);
    if len <= FILE_HEADER.len() as u64 {
        return fs.remove_file(&path).context("remove", &path);
    }
    let file = fs.open_write(&path).context("open", &path)?;
    file.truncate(len).context("cut", &path)?;
    file.sync_data().context("sync", &path)
}

/// Calls `read` with each file up to the first that it finds damaged, or to a gap; false if there is one.
fn each_file(
    fs: &dyn Fs,
    data_dir: &Path,
    read: &mut dyn FnMut(ChunkFile, &Path) -> io::Result<bool>,
) -> Result<bool, WalError> {
    let mut before = None;
    for file in list(fs, data_dir)? {
        if before.is_some_and(|before: u64| before + 1 != file.number) {
            return Ok(false);
        }
        before = Some(file.number);
        let path = path_of(data_dir, file.number);
        if !read(file, &path).context("read", &path)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// What the files hold.
#[derive(Debug, Default)]
pub struct Persisted {
    /// Time of the last sample in them, by series.
    ends: HashMap<SeriesRef, i64, foldhash::fast::FixedState>,
    /// Number of the last file.
    last: u64,
}

impl Persisted {
    /// Files of which the head knows what they hold.
    pub fn known(fs: &dyn Fs, data_dir: &Path) -> Result<Self, WalError> {
        let last = list(fs, data_dir)?.last().map_or(0, |file| file.number);
        Ok(Self { ends: HashMap::default(), last })
    }

    /// Looks at all files; `None` if one is damaged, so that nothing can follow it.
    pub fn read(fs: &dyn Fs, data_dir: &Path) -> Result<Option<Self>, WalError> {
        let mut found = Self::default();
        let whole = each_file(fs, data_dir, &mut |file, path| {
            found.last = file.number;
            each_chunk(fs, path, &mut |chunk| {
                if chunk.encoding & OUT_OF_ORDER == 0 {
                    let end = found.ends.entry(chunk.series).or_insert(chunk.max_t);
                    *end = chunk.max_t.max(*end);
                }
            })
        })?;
        Ok(whole.then_some(found))
    }

    /// True if they hold no chunks of samples in order.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Where the samples of a series end that the files hold.
    pub fn end(&self, series: SeriesRef) -> Option<i64> {
        self.ends.get(&series).copied()
    }
}

/// Writes further files.
pub struct ChunkFiles {
    fs: SharedFs,
    data_dir: PathBuf,
    /// Number of the last file.
    last: u64,
    /// Numbers of the files that it has made.
    made: Vec<u64>,
    file: Option<(PathBuf, Box<dyn File>)>,
    written: u64,
    buffer: Vec<u8>,
}

impl ChunkFiles {
    /// Begins behind what is there.
    pub fn behind(fs: &SharedFs, data_dir: &Path, persisted: &Persisted) -> Self {
        let (fs, data_dir, last) = (fs.clone(), data_dir.to_path_buf(), persisted.last);
        Self { fs, data_dir, last, made: Vec::new(), file: None, written: 0, buffer: Vec::new() }
    }

    /// Adds a chunk.
    pub fn add(&mut self, series: SeriesRef, chunk: &ChunkImage) -> Result<(), WalError> {
        let before = self.buffer.len();
        if self.file.is_none() {
            self.begin()?;
        }
        put_chunk(series, (chunk.min_t, chunk.max_t), chunk.encoding.id(), &chunk.data, &mut self.buffer);
        let added = self.buffer.len() - before;
        if WRITE_LEN <= self.buffer.len() {
            self.write()?;
        }
        // The next chunk is about as long.
        if FILE_LEN_MAX < self.written + (self.buffer.len() + added) as u64 {
            self.end()?;
        }
        Ok(())
    }

    fn begin(&mut self) -> Result<(), WalError> {
        let dir = self.data_dir.join(HEAD_CHUNKS_DIR);
        self.fs.create_dir_all(&dir).context("create", &dir)?;
        let path = path_of(&self.data_dir, self.last + 1);
        let file = self.fs.create(&path).context("create", &path)?;
        self.last += 1;
        self.made.push(self.last);
        self.file = Some((path, file));
        self.written = 0;
        self.buffer.extend_from_slice(&FILE_HEADER);
        Ok(())
    }

    fn write(&mut self) -> Result<(), WalError> {
        if let Some((path, file)) = &self.file {
            file.write_all_at(&self.buffer, self.written).context("write", path)?;
            self.written += self.buffer.len() as u64;
            self.buffer.clear();
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), WalError> {
        self.write()?;
        if let Some((path, file)) = self.file.take() {
            file.sync_data().context("sync", &path)?;
        }
        Ok(())
    }

    /// Returns when all files will survive a power cut.
    pub fn finish(&mut self) -> Result<(), WalError> {
        self.end()?;
        if !self.made.is_empty() {
            let dir = self.data_dir.join(HEAD_CHUNKS_DIR);
            self.fs.sync_dir(&dir).context("sync", &dir)?;
            self.fs.sync_dir(&self.data_dir).context("sync", &self.data_dir)?;
        }
        Ok(())
    }

    /// Removes the files that it has made.
    pub fn undo(&mut self) {
        self.file = None;
        while let Some(number) = self.made.pop() {
            // One that stays is read again: its chunks are those of the log.
            let _ = self.fs.remove_file(&path_of(&self.data_dir, number));
        }
    }
}

/// Takes the chunks of samples in order out of the files: the log does not bear them out, and holds what they should hold. The next stop
/// writes them anew.
pub fn remove_in_order(fs: &dyn Fs, data_dir: &Path) -> Result<(), WalError> {
    for file in list(fs, data_dir)? {
        let path = path_of(data_dir, file.number);
        let (mut kept, mut has_some) = (FILE_HEADER.to_vec(), false);
        let whole = each_chunk(fs, &path, &mut |chunk| {
            if chunk.encoding & OUT_OF_ORDER == 0 {
                has_some = true;
            } else {
                put_chunk(chunk.series, (chunk.min_t, chunk.max_t), chunk.encoding, chunk.data, &mut kept);
            }
        });
        if !whole.context("read", &path)? || !has_some {
            continue;
        }
        let temporary = path.with_extension("tmp");
        let new = fs.create(&temporary).context("create", &temporary)?;
        new.write_all_at(&kept, 0).context("write", &temporary)?;
        new.sync_data().context("sync", &temporary)?;
        fs.rename(&temporary, &path).context("rename", &temporary)?;
    }
    Ok(())
}

/// Removes the files of which every sample is older than `bound`, up to the first that has others. Those that came out of order are
/// needed from `late_from` on, if that is a place. What a damaged one held cannot be known: it goes when nothing uses it any more, which
/// `is_used` says.
pub fn remove_before(
    fs: &dyn Fs,
    data_dir: &Path,
    bound: i64,
    late_from: Option<ChunkPlace>,
    is_used: &dyn Fn(u64) -> bool,
) -> Result<(), WalError> {
    let mut files = list(fs, data_dir)?;
    // The last one stays, so that numbers are not used again.
    files.pop();
    for file in files {
        let path = path_of(data_dir, file.number);
        let mut is_needed = false;
        let whole = each_chunk(fs, &path, &mut |chunk| {
            let is_late = chunk.encoding & OUT_OF_ORDER != 0;
            let place = ChunkPlace::new(file.number, chunk.offset);
            is_needed |= if is_late { late_from.is_some() && late_from <= place } else { bound <= chunk.max_t };
        });
        let may_hold_late = late_from.is_some_and(|from| from.file() <= file.number);
        // Those that cannot be read at all are damaged as well.
        let is_damaged = !whole.unwrap_or(false);
        if is_needed || is_damaged && (may_hold_late || is_used(file.number)) {
            return Ok(());
        }
        fs.remove_file(&path).context("remove", &path)?;
    }
    Ok(())
}
