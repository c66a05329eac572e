//! The finished chunks of one series: the bytes of those that are held in memory and a directory of them, then where those stand that
//! were written to files. Written ones are older than held ones. A few written ones alone, as most series have most of the time, need
//! no allocation of their own.
//! ```text
//! │ chunk 0 │ chunk 1 │ … │ end of chunk 0 u32 LE, encoding u8 │ end of chunk 1, encoding │ … │ written chunks, see `written` │
//! │ length of these u32 LE │ number of held chunks u32 LE │ number of written ones, and bit 31 if the last of them is the open chunk u32 LE │
//! ```
//! Five bytes of overhead for a held chunk. The time of its first sample is read from the chunk itself, and the chunk that
//! follows bounds the time of its last.

use std::sync::Arc;

use crate::storage::chunk::decode::{ChunkDecoder, first_t};
use crate::storage::chunk::written::{WrittenChunk, WrittenChunks, WrittenList};
use crate::storage::chunk::xor::HEADER_LEN;
use crate::storage::chunk::{ChunkError, Encoding};
use crate::storage::head_chunk_store::{FileSet, Files};

/// Bytes that a held chunk takes in the directory.
pub const DIRECTORY_ENTRY_LEN: usize = 5;
/// Bytes behind written chunks.
const TRAILER_LEN: usize = 12;
/// In the number of written chunks: the last of them is the open chunk.
const HAS_OPEN: u32 = 1 << 31;
/// Bytes of written chunks that need no allocation of their own: six, mostly.
const FEW_LEN: usize = 38;

/// Finished chunks, oldest first. Immutable; adding, dropping or writing out makes a new one.
#[derive(Debug, Default)]
pub struct SealedChunks {
    /// Where written ones stand.
    files: Option<Arc<FileSet>>,
    place: Place,
}

#[derive(Debug)]
enum Place {
    /// Written ones alone: their number, and what `written` makes of them.
    Few(FewHeader, [u8; FEW_LEN]),
    /// As above.
    Any(Box<[u8]>),
}

/// Number of written chunks with the open one, and bit 7 if that is the last of them.
#[derive(Clone, Copy, Debug, Default)]
struct FewHeader(u8);

impl Default for Place {
    fn default() -> Self {
        Self::Few(FewHeader::default(), [0; FEW_LEN])
    }
}

/// One finished chunk.
#[derive(Clone, Copy, Debug)]
pub struct SealedChunk<'a> {
    /// How it is encoded.
    pub encoding: Encoding,
    body: Body<'a>,
}

#[derive(Clone, Copy, Debug)]
enum Body<'a> {
    /// As in files, without length and checksum.
    Held(&'a [u8]),
    Written(&'a FileSet, WrittenChunk),
}

impl<'a> SealedChunk<'a> {
    fn held(encoding: Encoding, data: &'a [u8]) -> Self {
        Self { encoding, body: Body::Held(data) }
    }

    /// Number of samples.
    pub fn sample_count(&self) -> u16 {
        match &self.body {
            Body::Held(data) => data.first_chunk().map_or(0, |raw| u16::from_be_bytes(*raw)),
            Body::Written(_, chunk) => chunk.samples,
        }
    }

    /// Time of the first sample.
    pub fn min_t(&self) -> Result<i64, ChunkError> {
        match &self.body {
            Body::Held(data) => {
                let bits = data.get(HEADER_LEN..).ok_or(ChunkError::Truncated { samples: 0 })?;
                first_t(self.encoding, bits, bits.len() * 8)
            }
            Body::Written(_, chunk) => Ok(chunk.min_t),
        }
    }

    /// Time of the last sample, if no decoding is needed to know it.
    pub fn known_max_t(&self) -> Option<i64> {
        match &self.body {
            Body::Held(_) => None,
            Body::Written(_, chunk) => Some(chunk.max_t),
        }
    }

    /// Time of the last sample; decodes a held chunk.
    pub fn max_t(&self) -> Result<i64, ChunkError> {
        if let Some(max_t) = self.known_max_t() {
            return Ok(max_t);
        }
        let mut buffer = Vec::new();
        let (mut decoder, mut last) = (self.decoder(&mut buffer)?, self.min_t()?);
        while let Some(t) = decoder.next_t()? {
            last = t;
        }
        Ok(last)
    }

    /// The chunk as in files, without length and checksum; a written one is read into `buffer`. Errors when the file does not
    /// hold it as it was written.
    pub fn data<'b>(&self, buffer: &'b mut Vec<u8>) -> Result<&'b [u8], ChunkError>
    where
        'a: 'b,
    {
        match &self.body {
            Body::Held(data) => Ok(data),
            Body::Written(files, chunk) => files.load(chunk, buffer),
        }
    }

    /// Decodes its samples.
    pub fn decoder<'b>(&self, buffer: &'b mut Vec<u8>) -> Result<ChunkDecoder<'b, [u8]>, ChunkError>
    where
        'a: 'b,
    {
        ChunkDecoder::of_chunk(self.encoding, self.data(buffer)?)
    }
}

impl SealedChunks {
    /// These chunks and one more at the end, the one that was open.
    pub fn with(&self, encoding: Encoding, chunk: &[u8]) -> Self {
        let parts = self.parts();
        if parts.has_open {
            return Parts { has_open: false, ..parts }.pack(None, self.files.clone());
        }
        parts.pack(Some((encoding, chunk)), self.files.clone())
    }

    /// Chunks of which none is held. With `has_open` the last is the open chunk, and is finished when another begins.
    pub fn all_written(list: &WrittenList, files: Arc<FileSet>, has_open: bool) -> Self {
        Self::of(std::iter::empty(), list, Some(files), has_open)
    }

    fn of<'a>(
        held: impl Iterator<Item = (Encoding, &'a [u8])>,
        list: &WrittenList,
        files: Option<Arc<FileSet>>,
        has_open: bool,
    ) -> Self {
        let (mut data, mut directory) = (Vec::new(), Vec::new());
        for (encoding, chunk) in held {
            data.extend_from_slice(chunk);
            push_entry(&mut directory, data.len(), encoding);
        }
        let (written, written_len) = (list.bytes(), list.len() as usize);
        let parts = Parts { data: &data, directory: &directory, written, written_len, has_open };
        parts.pack(None, files.filter(|_| !list.is_empty()))
    }

    /// These chunks without the `dropped` oldest.
    pub fn without_oldest(&self, dropped: usize) -> Self {
        let parts = self.parts();
        let mut list = WrittenList::default();
        for chunk in parts.all_written().skip(dropped.min(parts.closed_len())) {
            let follows = list.push(&chunk);
            debug_assert!(follows, "chunks follow each other");
        }
        let held = self.held().skip(dropped.saturating_sub(parts.closed_len()));
        let files = self.files.as_ref().zip(list.files()).map(|(files, (first, last))| files.narrowed(first, last));
        Self::of(held, &list, files, parts.has_open)
    }

    /// These chunks of which the held ones from the oldest on, as far as they are among `chunks`, stand in files from now on;
    /// `None` if there are none.
    pub fn with_written(&self, chunks: &[WrittenChunk], files: &Arc<Files>) -> Option<Self> {
        let parts = self.parts();
        if parts.has_open {
            // Held ones are newer than written ones.
            return None;
        }
        let first = self.iter().nth(parts.written_len)?.min_t().ok()?;
        let from = chunks.iter().position(|chunk| chunk.min_t == first)?;
        let chunks = chunks.get(from..)?;
        let mut list = WrittenList::default();
        for chunk in parts.all_written() {
            let follows = list.push(&chunk);
            debug_assert!(follows, "chunks follow each other");
        }
        let before = list.len();
        for (held, chunk) in self.iter().skip(parts.written_len).zip(chunks) {
            if held.min_t().ok() != Some(chunk.min_t) || !list.push(chunk) {
                return None;
            }
        }
        let moved = usize::try_from(list.len() - before).ok()?;
        let (first, last) = list.files()?;
        let set = files.set_of(first, last, self.files.as_deref());
        Some(Self::of(self.held().skip(moved), &list, Some(set), false))
    }

    /// These chunks and `others`, of which all are older than any that is held; `None` if they do not fit between each other. The
    /// files of `others` are open.
    pub fn with_earlier(&self, others: impl Iterator<Item = WrittenChunk>, files: &FileSet) -> Option<Self> {
        let parts = self.parts();
        let mut all: Vec<WrittenChunk> = parts.all_written().collect();
        let open = parts.has_open.then(|| all.last().copied()).flatten();
        all.extend(others);
        all.sort_by_key(|chunk| chunk.min_t);
        let mut list = WrittenList::default();
        if !all.iter().all(|chunk| list.push(chunk)) || open.is_some_and(|open| all.last() != Some(&open)) {
            return None;
        }
        if let Some(first) = self.iter().nth(parts.closed_len())
            && first.min_t().ok()? <= list.max_t()?
        {
            return None;
        }
        let (first, last) = list.files()?;
        Some(Self::of(self.held(), &list, Some(files.narrowed(first, last)), parts.has_open))
    }

    /// Number of chunks.
    pub fn len(&self) -> usize {
        let parts = self.parts();
        parts.closed_len() + parts.held_len()
    }

    /// Number of those that are held in memory.
    pub fn held_len(&self) -> usize {
        self.parts().held_len()
    }

    /// True if there is none, and the open chunk stands in no file.
    pub fn is_empty(&self) -> bool {
        self.files.is_none() && self.held_len() == 0
    }

    /// True if the open chunk stands in a file: nothing may be added to it.
    pub fn has_open(&self) -> bool {
        self.parts().has_open
    }

    /// Where the open chunk stands, if it does in a file.
    pub fn open_place(&self) -> Option<(&FileSet, WrittenChunk)> {
        let parts = self.parts();
        let open = parts.all_written().nth(parts.closed_len())?;
        Some((self.files.as_deref()?, open))
    }

    /// Samples in all chunks together.
    pub fn sample_count(&self) -> u32 {
        self.iter().map(|chunk| u32::from(chunk.sample_count())).sum()
    }

    /// The chunks, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = SealedChunk<'_>> {
        let parts = self.parts();
        let written = parts.all_written().take(parts.closed_len());
        let written = written.zip(std::iter::repeat(self.files.as_deref())).filter_map(|(chunk, files)| {
            Some(SealedChunk { encoding: chunk.encoding, body: Body::Written(files?, chunk) })
        });
        written.chain(self.held().map(|(encoding, data)| SealedChunk::held(encoding, data)))
    }

    /// The chunks that are held, oldest first.
    pub fn held(&self) -> impl Iterator<Item = (Encoding, &[u8])> {
        let parts = self.parts();
        let mut from = 0;
        parts.directory.chunks_exact(DIRECTORY_ENTRY_LEN).filter_map(move |entry| {
            let (end, encoding) = entry.split_first_chunk::<4>()?;
            let end = u32::from_le_bytes(*end) as usize;
            let data = parts.data.get(std::mem::replace(&mut from, end)..end)?;
            Some((Encoding::from_id(*encoding.first()?).ok()?, data))
        })
    }

    /// Those that stand in files, oldest first and without the open one, with their files.
    pub(crate) fn written(&self) -> Option<(&Arc<FileSet>, impl Iterator<Item = WrittenChunk> + '_)> {
        let parts = self.parts();
        let files = self.files.as_ref()?;
        Some((files, parts.all_written().take(parts.closed_len())))
    }

    /// Bytes in an allocation of their own.
    pub fn heap_len(&self) -> usize {
        match &self.place {
            Place::Few(..) => 0,
            Place::Any(blob) => blob.len(),
        }
    }

    fn parts(&self) -> Parts<'_> {
        match &self.place {
            Place::Few(header, written) => {
                let (written_len, has_open) = header.parts();
                Parts { written, written_len, has_open, ..Parts::default() }
            }
            Place::Any(blob) => Parts::of(blob).unwrap_or_default(),
        }
    }
}

impl FewHeader {
    const HAS_OPEN: u8 = 1 << 7;

    /// `None` if that are too many.
    fn of(written_len: usize, has_open: bool) -> Option<Self> {
        let written_len = u8::try_from(written_len).ok().filter(|len| *len < Self::HAS_OPEN)?;
        Some(Self(written_len | if has_open { Self::HAS_OPEN } else { 0 }))
    }

    fn parts(self) -> (usize, bool) {
        (usize::from(self.0 & !Self::HAS_OPEN), self.0 & Self::HAS_OPEN != 0)
    }
}

#[derive(Clone, Copy, Default)]
struct Parts<'a> {
    data: &'a [u8],
    directory: &'a [u8],
    /// There may be others behind the last of these.
    written: &'a [u8],
    /// With the open one.
    written_len: usize,
    has_open: bool,
}

impl<'a> Parts<'a> {
    fn of(blob: &'a [u8]) -> Option<Self> {
        let (rest, trailer) = blob.split_last_chunk::<TRAILER_LEN>()?;
        let number = |at: usize| trailer.get(at..)?.first_chunk().map(|raw| u32::from_le_bytes(*raw));
        let (len, held_len, written_len) = (number(0)? as usize, number(4)? as usize, number(8)?);
        let (rest, written) = rest.split_at_checked(rest.len().checked_sub(len)?)?;
        let split = rest.len().checked_sub(held_len * DIRECTORY_ENTRY_LEN)?;
        let (data, directory) = rest.split_at_checked(split)?;
        let has_open = written_len & HAS_OPEN != 0;
        Some(Self { data, directory, written, written_len: (written_len & !HAS_OPEN) as usize, has_open })
    }

    /// The open one as well.
    fn all_written(&self) -> impl Iterator<Item = WrittenChunk> + use<'a> {
        WrittenChunks::new(self.written).take(self.written_len)
    }

    /// Number of written ones without the open one.
    fn closed_len(&self) -> usize {
        self.written_len - usize::from(self.has_open)
    }

    fn held_len(&self) -> usize {
        self.directory.len() / DIRECTORY_ENTRY_LEN
    }

    /// The same with one more that is held.
    fn pack(&self, more: Option<(Encoding, &[u8])>, files: Option<Arc<FileSet>>) -> SealedChunks {
        let written = WrittenChunks::first_of(self.written, self.written_len);
        if more.is_none() && self.directory.is_empty() {
            let mut few = [0; FEW_LEN];
            let header = FewHeader::of(self.written_len, self.has_open);
            if let (Some(header), Some(to)) = (header, few.get_mut(..written.len())) {
                to.copy_from_slice(written);
                return SealedChunks { files, place: Place::Few(header, few) };
            }
        }
        let (encoding, chunk) = more.map_or((None, &[][..]), |(encoding, chunk)| (Some(encoding), chunk));
        let held_len = self.held_len() + usize::from(encoding.is_some());
        let data_len = self.data.len() + chunk.len();
        let mut blob = Vec::with_capacity(data_len + held_len * DIRECTORY_ENTRY_LEN + written.len() + TRAILER_LEN);
        blob.extend_from_slice(self.data);
        blob.extend_from_slice(chunk);
        blob.extend_from_slice(self.directory);
        if let Some(encoding) = encoding {
            push_entry(&mut blob, data_len, encoding);
        }
        blob.extend_from_slice(written);
        // A chunk has at most some kilobytes, and its place takes some bytes; a head keeps some hours of them.
        let number = |number: usize| u32::try_from(number).expect("the chunks of one series stay below 4 GiB");
        let of_open = if self.has_open { HAS_OPEN } else { 0 };
        for field in [number(written.len()), number(held_len), number(self.written_len) | of_open] {
            blob.extend_from_slice(&field.to_le_bytes());
        }
        SealedChunks { files, place: Place::Any(blob.into()) }
    }
}

fn push_entry(out: &mut Vec<u8>, end: usize, encoding: Encoding) {
    // A chunk has at most some kilobytes, and a head keeps some hours of them.
    let end = u32::try_from(end).expect("the chunks of one series stay below 4 GiB");
    out.extend_from_slice(&end.to_le_bytes());
    out.push(encoding.id());
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::model::sample::SeriesRef;
    use crate::storage::chunk::words::OpenWords;
    use crate::storage::chunk::written::ChunkPlace;
    use crate::storage::chunk::xor::XorEncoder;
    use crate::storage::fs::sim::SimFs;
    use crate::storage::fs::{Fs as _, SharedFs};
    use crate::storage::head_chunks::{FILE_HEADER, put_chunk};

    fn chunk_of(times: &[i64]) -> Vec<u8> {
        let mut encoder = XorEncoder::default();
        let first = encoder.encode(0, times[0], 1.0);
        let mut words = OpenWords::starting_with(&first);
        for (i, t) in times.iter().enumerate().skip(1) {
            let sample = encoder.encode(u16::try_from(i).unwrap(), *t, 1.5);
            let at = words.published();
            if !words.has_room(at, sample.len()) {
                words = words.grown(at, sample.len());
            }
            words.append(at, &sample);
        }
        words.to_chunk(words.published())
    }

    fn spans(sealed: &SealedChunks) -> Vec<(i64, i64)> {
        sealed.iter().map(|c| (c.min_t().unwrap(), c.max_t().unwrap())).collect()
    }

    #[test]
    fn chunks_are_added_found_and_dropped() {
        let mut sealed = SealedChunks::default();
        for start in [10, 100, 1000] {
            let chunk = chunk_of(&[start, start + 5, start + 7]);
            sealed = sealed.with(Encoding::Xor, &chunk);
        }
        assert_eq!(spans(&sealed), [(10, 17), (100, 107), (1000, 1007)]);
        assert_eq!((sealed.len(), sealed.sample_count()), (3, 9));
        let rest = sealed.without_oldest(1);
        assert_eq!(spans(&rest), [(100, 107), (1000, 1007)]);
        assert_eq!(rest.sample_count(), 6);
        assert!(sealed.without_oldest(3).is_empty() && sealed.iter().nth(3).is_none());
    }

    #[test]
    fn written_chunks_are_read_from_files_checked_and_dropped_like_others() {
        let sim = SimFs::new();
        let starts = [10, 100, 1000, 2000];
        let (mut sealed, mut written) = (SealedChunks::default(), Vec::new());
        for (file, start) in (1..).zip(starts) {
            let chunk = chunk_of(&[start, start + 5, start + 7]);
            sealed = sealed.with(Encoding::Xor, &chunk);
            let mut data = FILE_HEADER.to_vec();
            put_chunk(SeriesRef(1), (start, start + 7), Encoding::Xor.id(), &chunk, &mut data);
            sim.put(Path::new(&format!("/data/chunks_head/{file:06}")), &data).unwrap();
            let place = ChunkPlace::new(file, 8).unwrap();
            let (min_t, max_t) = (start, start + 7);
            written.push(WrittenChunk { place, min_t, max_t, samples: 3, encoding: Encoding::Xor });
        }
        let shared: SharedFs = Arc::new(sim.clone());
        let files = Files::new(&shared, Path::new("/data"), Default::default());
        let content = |sealed: &SealedChunks| -> Vec<Vec<u8>> {
            sealed.iter().map(|chunk| chunk.data(&mut Vec::new()).unwrap().to_vec()).collect()
        };
        let (before, all) = (content(&sealed), spans(&sealed));
        for moved in 1..=4 {
            let out = sealed.with_written(&written[..moved], &files).unwrap();
            assert_eq!((out.held_len(), out.len(), out.sample_count()), (4 - moved, 4, 12));
            assert_eq!((content(&out), spans(&out)), (before.clone(), all.clone()));
            for dropped in 0..=4 {
                let rest = out.without_oldest(dropped);
                assert_eq!((content(&rest), spans(&rest)), (before[dropped..].to_vec(), all[dropped..].to_vec()));
                assert_eq!((rest.sample_count() as usize, rest.is_empty()), (12 - 3 * dropped, dropped == 4));
                // What was written before it was dropped is told afterwards.
                let late = sealed.without_oldest(dropped).with_written(&written[..moved], &files);
                assert_eq!(late.map(|late| content(&late)), (dropped < moved).then(|| before[dropped..].to_vec()));
            }
            // The rest follows.
            let rest = out.with_written(&written[moved..], &files);
            assert_eq!(rest.map(|rest| rest.held_len()), (moved < 4).then_some(0));
            let chunk = chunk_of(&[3000, 3001]);
            assert_eq!(spans(&out.with(Encoding::Xor, &chunk)).last(), Some(&(3000, 3001)));
        }
        // The last is the open one until another begins.
        let mut list = WrittenList::default();
        written.iter().for_each(|chunk| assert!(list.push(chunk)));
        let open = SealedChunks::all_written(&list, files.set_of(1, 4, None), true);
        assert_eq!((open.len(), open.sample_count(), spans(&open)), (3, 9, all[..3].to_vec()));
        assert!(!open.without_oldest(3).is_empty());
        let chunk = chunk_of(&[2000, 2005, 2007]);
        let closed = open.with(Encoding::Xor, &chunk);
        assert_eq!((closed.len(), closed.sample_count(), content(&closed)), (4, 12, before.clone()));
        assert_eq!(spans(&open.without_oldest(2).with(Encoding::Xor, &chunk)), all[2..]);
        // A file that is removed can be read as long as something knows chunks in it; damage of another is told.
        sim.remove_file(Path::new("/data/chunks_head/000001")).unwrap();
        sim.put(Path::new("/data/chunks_head/000002"), &[0; 60]).unwrap();
        let read: Vec<_> = closed.iter().map(|chunk| chunk.data(&mut Vec::new()).map(<[u8]>::to_vec)).collect();
        assert_eq!(read[0].as_ref(), Ok(&before[0]));
        assert_eq!(read[1], Err(ChunkError::DamagedFile { file: 2, offset: 8 }));
    }
}
