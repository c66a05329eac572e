//! Chunk segments of a block.
//! ```text
//! segment  │ magic 0x85BD40DD u32 │ version 1 u8 │ 3 zeros │ chunk │ chunk │ …        chunks/000001, at most 512 MiB
//! chunk    │ len uvarint │ encoding u8 │ data … │ crc32c of encoding and data u32 │
//! ```
//! A reference is the segment's index (from 0) in the upper 32 bits and the chunk's place in the lower.

use std::path::{Path, PathBuf};

use crate::storage::block::bytes::{Slice, put_uvarint};
use crate::storage::block::{BlockError, IoContext, read_at};
use crate::storage::chunk::Encoding;
use crate::storage::fs::{File, Fs, SharedFs};

/// Usual length of a segment.
pub const SEGMENT_LEN: u64 = 512 << 20;
const MAGIC: u32 = 0x85BD_40DD;
const VERSION: u8 = 1;
const HEADER_LEN: u64 = 8;
/// Most bytes of a length before a chunk; what a writer reckons with.
const LEN_FIELD_MAX: u64 = 5;
const CHECKSUM_LEN: u64 = 4;
/// Bytes that are gathered for one write.
const WRITE_LEN: usize = 1 << 20;
/// Bytes that are read at least: most chunks are shorter.
const READ_LEN_MIN: u64 = 2 << 10;
/// Bytes that are read ahead at most for the chunks of one series.
const READ_LEN_MAX: u64 = 1 << 20;
/// Longest chunk that is read; a writer's chunks have about a kilobyte.
const CHUNK_LEN_MAX: u64 = 64 << 20;

/// A chunk as it stands in a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChunkData {
    /// Time of its first sample.
    pub min_t: i64,
    /// Time of its last sample.
    pub max_t: i64,
    /// Number of its encoding.
    pub encoding: u8,
    /// Its bytes, sample count first.
    pub data: Vec<u8>,
}

impl ChunkData {
    /// Number of samples, from the header.
    pub fn sample_count(&self) -> u16 {
        sample_count(self.encoding, &self.data)
    }

    /// True if it holds floats.
    pub fn is_float(&self) -> bool {
        is_float_encoding(self.encoding)
    }
}

/// Number of samples of a chunk, from its header.
pub fn sample_count(encoding: u8, data: &[u8]) -> u16 {
    let count = data.first_chunk().map_or(0, |raw| u16::from_be_bytes(*raw));
    // With start times, the upper two bits tell of counter resets.
    if encoding == 5 || encoding == 6 { count & 0x3fff } else { count }
}

/// True for the encodings of floats: XOR, with or without start times.
pub fn is_float_encoding(id: u8) -> bool {
    id == Encoding::Xor.id() || id == 4
}

/// What an encoding is called, for messages.
pub fn encoding_name(id: u8) -> &'static str {
    match id {
        1 => "XOR",
        2 => "histogram",
        3 => "floathistogram",
        4 => "XOR2",
        5 => "histogramST",
        6 => "floathistogramST",
        _ => "unknown",
    }
}

/// Where a chunk stands and what time it spans.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkMeta {
    /// Segment and place.
    pub reference: u64,
    /// Time of its first sample.
    pub min_t: i64,
    /// Time of its last sample.
    pub max_t: i64,
}

/// Writes the segments of one block.
pub struct ChunkWriter {
    fs: SharedFs,
    dir: PathBuf,
    segment_len: u64,
    segment: Option<Segment>,
    /// Bytes of finished segments.
    finished_len: u64,
    finished: u32,
}

struct Segment {
    file: Box<dyn File>,
    path: PathBuf,
    /// Bytes of it, those that wait included.
    len: u64,
    waiting: Vec<u8>,
}

impl ChunkWriter {
    /// Makes the folder `dir`. A `segment_len` of 0 is the usual one.
    pub fn create(fs: &SharedFs, dir: &Path, segment_len: u64) -> Result<Self, BlockError> {
        fs.create_dir_all(dir).context("create", dir)?;
        let segment_len = if segment_len == 0 { SEGMENT_LEN } else { segment_len };
        Ok(Self { fs: fs.clone(), dir: dir.to_path_buf(), segment_len, segment: None, finished_len: 0, finished: 0 })
    }

    /// Writes the chunks of one series, in their order. By Prometheus's rule a segment is left when the next chunk, reckoned
    /// with the longest length field, does not fit.
    pub fn write_series(&mut self, chunks: &[ChunkData]) -> Result<Vec<ChunkMeta>, BlockError> {
        let mut metas = Vec::with_capacity(chunks.len());
        // What stood in the segment before this series, and what its chunks may take there, both as Prometheus reckons.
        let mut before = self.segment.as_ref().map(|segment| segment.len).filter(|len| HEADER_LEN < *len);
        let mut reckoned = 0;
        for (index, chunk) in chunks.iter().enumerate() {
            let size = LEN_FIELD_MAX + 1 + chunk.data.len() as u64 + CHECKSUM_LEN;
            reckoned += size;
            let is_full = match before {
                Some(before) => self.segment_len < before + reckoned,
                None => index != 0 && self.segment_len < HEADER_LEN + reckoned,
            };
            if is_full {
                (before, reckoned) = (None, size);
            }
            if is_full || self.segment.is_none() {
                self.cut()?;
            }
            metas.push(self.write(chunk)?);
        }
        Ok(metas)
    }

    /// Makes everything durable and returns the bytes of all segments.
    pub fn finish(mut self) -> Result<u64, BlockError> {
        self.finish_segment()?;
        self.fs.sync_dir(&self.dir).context("sync", &self.dir)?;
        Ok(self.finished_len)
    }

    fn write(&mut self, chunk: &ChunkData) -> Result<ChunkMeta, BlockError> {
        let index = self.finished;
        let segment = self.segment.as_mut().expect("a segment was cut before the first chunk");
        if u64::from(u32::MAX) < segment.len {
            return Err(BlockError::TooLarge { path: segment.path.clone(), what: "a chunk's place" });
        }
        let reference = u64::from(index) << 32 | segment.len;
        let from = segment.waiting.len();
        put_uvarint(&mut segment.waiting, chunk.data.len() as u64);
        let covered = segment.waiting.len();
        segment.waiting.push(chunk.encoding);
        segment.waiting.extend_from_slice(&chunk.data);
        let checksum = crc32c::crc32c(segment.waiting.get(covered..).unwrap_or(&[]));
        segment.waiting.extend_from_slice(&checksum.to_be_bytes());
        segment.len += (segment.waiting.len() - from) as u64;
        if WRITE_LEN <= segment.waiting.len() {
            segment.flush()?;
        }
        Ok(ChunkMeta { reference, min_t: chunk.min_t, max_t: chunk.max_t })
    }

    fn cut(&mut self) -> Result<(), BlockError> {
        self.finish_segment()?;
        let path = self.dir.join(format!("{:06}", self.finished + 1));
        let file = self.fs.create(&path).context("create", &path)?;
        let mut waiting = MAGIC.to_be_bytes().to_vec();
        waiting.extend_from_slice(&[VERSION, 0, 0, 0]);
        self.segment = Some(Segment { file, path, len: HEADER_LEN, waiting });
        Ok(())
    }

    fn finish_segment(&mut self) -> Result<(), BlockError> {
        let Some(mut segment) = self.segment.take() else { return Ok(()) };
        segment.flush()?;
        segment.file.sync_data().context("sync", &segment.path)?;
        self.finished_len += segment.len;
        self.finished += 1;
        Ok(())
    }
}

impl Segment {
    fn flush(&mut self) -> Result<(), BlockError> {
        let at = self.len - self.waiting.len() as u64;
        self.file.write_all_at(&self.waiting, at).context("write", &self.path)?;
        self.waiting.clear();
        Ok(())
    }
}

/// Reads chunks; files are read at places and stay open, so a block that is removed can be read to its end.
pub struct ChunkReader {
    segments: Vec<ReadSegment>,
}

struct ReadSegment {
    file: Box<dyn File>,
    path: PathBuf,
    len: u64,
}

/// Bytes of a segment that were read ahead.
#[derive(Default)]
pub struct ReadAhead {
    segment: usize,
    from: u64,
    data: Vec<u8>,
}

impl ChunkReader {
    /// Opens the segments in `dir` and checks their headers.
    pub fn open(fs: &dyn Fs, dir: &Path) -> Result<Self, BlockError> {
        let mut names: Vec<(u64, String)> = fs
            .list(dir)
            .context("list", dir)?
            .into_iter()
            .filter(|entry| !entry.is_dir)
            .filter_map(|entry| Some((entry.name.parse().ok()?, entry.name)))
            .collect();
        names.sort();
        let mut segments = Vec::with_capacity(names.len());
        for (expected, (number, name)) in (1..).zip(names) {
            let path = dir.join(name);
            if number != expected {
                return Err(BlockError::corrupt(&dir.join(format!("{expected:06}")), 0, "the segment is missing"));
            }
            let file = fs.open(&path).context("open", &path)?;
            let len = file.len().context("read", &path)?;
            let mut header = [0; HEADER_LEN as usize];
            if file.read_at(&mut header, 0).context("read", &path)? < header.len() {
                return Err(BlockError::corrupt(&path, 0, "invalid segment header"));
            }
            let mut read = Slice::new(&header);
            match (read.u32(), read.u8()) {
                (Some(MAGIC), Some(VERSION)) => {}
                (Some(MAGIC), version) => {
                    let reason = format!("invalid chunk format version {}", version.unwrap_or(0));
                    return Err(BlockError::corrupt(&path, 4, reason));
                }
                (magic, _) => {
                    let reason = format!("invalid magic number {:x}", magic.unwrap_or(0));
                    return Err(BlockError::corrupt(&path, 0, reason));
                }
            }
            segments.push(ReadSegment { file, path, len });
        }
        Ok(Self { segments })
    }

    /// Bytes of all segments.
    pub fn len(&self) -> u64 {
        self.segments.iter().map(|segment| segment.len).sum()
    }

    /// True if there is no segment.
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// The path of the segment that a reference names, for messages.
    pub fn path_of(&self, reference: u64) -> Option<&Path> {
        let index = usize::try_from(reference >> 32).ok()?;
        self.segments.get(index).map(|segment| segment.path.as_path())
    }

    /// The encoding and the bytes of a chunk, checksum verified. `until` is the reference of the last chunk that will be asked
    /// for next: what lies before it is read ahead.
    pub fn read<'a>(&self, reference: u64, until: u64, ahead: &'a mut ReadAhead) -> Result<(u8, &'a [u8]), BlockError> {
        let (index, from) = split(reference);
        let Some(segment) = self.segments.get(index) else {
            let path = self.segments.first().map_or_else(PathBuf::new, |segment| segment.path.clone());
            return Err(BlockError::corrupt(&path, 0, format!("segment index {index} out of range")));
        };
        let wanted = match split(until) {
            (same, last) if same == index && from <= last => last - from + READ_LEN_MIN,
            _ => READ_LEN_MIN,
        };
        let head = segment.fetch(ahead, index, from, LEN_FIELD_MAX, wanted.min(READ_LEN_MAX))?;
        let mut read = Slice::new(head);
        let before = read.len();
        let Some(len) = read.uvarint().filter(|len| *len <= CHUNK_LEN_MAX) else {
            return Err(BlockError::corrupt(&segment.path, from, "reading the chunk's length failed"));
        };
        let field_len = (before - read.len()) as u64;
        let total = field_len + 1 + len + CHECKSUM_LEN;
        if segment.len < from.saturating_add(total) {
            let available = segment.len.saturating_sub(from);
            let reason = format!(
                "segment doesn't include enough bytes to read the chunk - required:{total}, available:{available}"
            );
            return Err(BlockError::corrupt(&segment.path, from, reason));
        }
        let whole = segment.fetch(ahead, index, from, total, total)?;
        let cut_short = || BlockError::corrupt(&segment.path, from, "the chunk is cut short");
        let covered = whole.get(usize::try_from(field_len).unwrap_or(0)..).ok_or_else(cut_short)?;
        let (covered, checksum) = covered
            .get(..usize::try_from(1 + len + CHECKSUM_LEN).unwrap_or(0))
            .and_then(|c| c.split_last_chunk::<4>())
            .ok_or_else(cut_short)?;
        let (expected, actual) = (u32::from_be_bytes(*checksum), crc32c::crc32c(covered));
        if expected != actual {
            let reason = format!("checksum mismatch expected:{expected:x}, actual:{actual:x}");
            return Err(BlockError::corrupt(&segment.path, from, reason));
        }
        let (encoding, data) = covered.split_first().ok_or_else(cut_short)?;
        Ok((*encoding, data))
    }
}

impl ReadSegment {
    /// The bytes from `from` on: at least `need` of them if the file goes on that far, about `wanted` if they are read now.
    fn fetch<'a>(
        &self,
        ahead: &'a mut ReadAhead,
        index: usize,
        from: u64,
        need: u64,
        wanted: u64,
    ) -> Result<&'a [u8], BlockError> {
        let have_to = ahead.from + ahead.data.len() as u64;
        let end = self.len.min(from.saturating_add(need));
        if ahead.segment != index || from < ahead.from || have_to < end || have_to <= from {
            let len = wanted.max(need).min(self.len.saturating_sub(from));
            (ahead.segment, ahead.from) = (index, from);
            ahead.data.clear();
            ahead.data.resize(usize::try_from(len).unwrap_or(0), 0);
            let read = read_at(&*self.file, &self.path, &mut ahead.data, from)?;
            ahead.data.truncate(read);
        }
        let skip = usize::try_from(from - ahead.from).unwrap_or(usize::MAX);
        Ok(ahead.data.get(skip..).unwrap_or(&[]))
    }
}

fn split(reference: u64) -> (usize, u64) {
    (usize::try_from(reference >> 32).unwrap_or(usize::MAX), reference & u64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::storage::fs::sim::SimFs;

    fn chunk(min_t: i64, len: usize) -> ChunkData {
        ChunkData { min_t, max_t: min_t + 9, encoding: 1, data: vec![min_t as u8; len] }
    }

    fn written(segment_len: u64, series: &[Vec<ChunkData>]) -> (SharedFs, Vec<ChunkMeta>) {
        let fs: SharedFs = Arc::new(SimFs::new());
        let mut writer = ChunkWriter::create(&fs, Path::new("/chunks"), segment_len).unwrap();
        let metas = series.iter().flat_map(|chunks| writer.write_series(chunks).unwrap()).collect();
        writer.finish().unwrap();
        (fs, metas)
    }

    #[test]
    fn segments_are_cut_when_the_next_chunk_may_not_fit_and_chunks_are_read_back() {
        let series: Vec<Vec<ChunkData>> =
            (0..4).map(|s| (0..3).map(|c| chunk(s * 100 + c * 10, 50)).collect()).collect();
        let (fs, metas) = written(200, &series);
        let reader = ChunkReader::open(&*fs, Path::new("/chunks")).unwrap();
        let segments: Vec<u64> = metas.iter().map(|meta| meta.reference >> 32).collect();
        assert_eq!(segments, [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]);
        let mut ahead = ReadAhead::default();
        for (chunk, meta) in series.iter().flatten().zip(&metas) {
            let (encoding, data) = reader.read(meta.reference, metas.last().unwrap().reference, &mut ahead).unwrap();
            assert_eq!((encoding, data), (1, &chunk.data[..]));
        }
        assert!(reader.read(9 << 32, 0, &mut ahead).unwrap_err().to_string().contains("segment index 9 out of range"));
    }

    #[test]
    fn a_chunk_longer_than_a_segment_gets_one_of_its_own() {
        let (fs, metas) = written(100, &[vec![chunk(0, 10), chunk(10, 500), chunk(20, 10)]]);
        assert_eq!(metas.iter().map(|m| m.reference).collect::<Vec<_>>(), [8, 1 << 32 | 8, 2 << 32 | 8]);
        let reader = ChunkReader::open(&*fs, Path::new("/chunks")).unwrap();
        let mut ahead = ReadAhead::default();
        assert_eq!(reader.read(1 << 32 | 8, 0, &mut ahead).unwrap().1.len(), 500);
    }

    #[test]
    fn every_flipped_byte_of_a_chunk_and_every_cut_is_found() {
        let chunk = chunk(5, 20);
        let (fs, metas) = written(0, &[vec![chunk.clone()]]);
        let file = fs.open(Path::new("/chunks/000001")).unwrap();
        let mut good = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
        file.read_at(&mut good, 0).unwrap();
        for at in 0..good.len() {
            // The zeros behind the version mean nothing.
            if (5..8).contains(&at) {
                continue;
            }
            let (mut flipped, cut) = (good.clone(), good[..at].to_vec());
            flipped[at] ^= 0x10;
            for data in [flipped, cut] {
                let sim = SimFs::new();
                sim.put(Path::new("/chunks/000001"), &data).unwrap();
                let read = ChunkReader::open(&sim, Path::new("/chunks"))
                    .and_then(|reader| Ok(reader.read(metas[0].reference, 0, &mut ReadAhead::default())?.1.to_vec()));
                assert!(read.is_err(), "byte {at}");
            }
        }
    }
}
