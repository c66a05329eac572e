//! Head chunks that another program has left (`chunks_head`). The log holds their samples as well, as long as it is whole; so they
//! are not read into the head, but checked against it: a start that would miss samples is refused. Samples that came out of
//! order are taken from them if the log of those lacks them.
//! ```text
//! file   │ magic 0x0130BC91 u32 │ version 1 u8 │ 3 zeros │ chunk │ chunk │ … │ zeros
//! chunk  │ series ref u64 │ min t u64 │ max t u64 │ encoding u8, bit 7: out of order │ len uvarint │ data │ crc32c of all before u32 │
//! ```

use std::io;
use std::path::{Path, PathBuf};

use crate::model::sample::SeriesRef;
use crate::storage::block::chunks::sample_count;
use crate::storage::block::rewrite::{self, Sample};
use crate::storage::chunk::decode::ChunkDecoder;
use crate::storage::chunk::written::{ChunkPlace, WrittenChunk};
use crate::storage::chunk::{ChunkError, Encoding};
use crate::storage::fs::{File, Fs, SharedFs};
use crate::storage::head::Head;
use crate::storage::head::late::{LateSample, LateValue};
use crate::storage::head::restore::Restorer;
use crate::storage::head::restore::late_times::FoundLate;
use crate::storage::replay::Aliases;
use crate::storage::wal::record::put_uvarint;
use crate::storage::wal::{IoContext, WalError};

/// Name of the folder in the data directory.
pub const HEAD_CHUNKS_DIR: &str = "chunks_head";
const HEADER_LEN: u64 = 8;
/// What a file begins with.
pub(crate) const FILE_HEADER: [u8; HEADER_LEN as usize] = [0x01, 0x30, 0xbc, 0x91, 1, 0, 0, 0];
/// Series, two times, encoding.
const CHUNK_HEADER_LEN: usize = 25;
pub(crate) const CHECKSUM_LEN: usize = 4;
/// Longest chunk that is looked at.
const DATA_LEN_MAX: u64 = 1 << 20;
const READ_LEN: usize = 1 << 20;
pub(crate) const OUT_OF_ORDER: u8 = 0x80;

/// Why a directory with head chunks is not opened.
#[derive(Debug, thiserror::Error)]
pub enum HeadChunksError {
    /// The disk says no.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// They hold what the log does not.
    #[error("{} holds {samples} samples in {chunks} chunks that the write log does not hold; they cannot be read yet", path.display())]
    NotInLog {
        /// The folder.
        path: PathBuf,
        /// Chunks with such samples.
        chunks: u64,
        /// Samples that would be missing, at least.
        samples: u64,
    },
}

/// What was found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeadChunksReport {
    /// Chunks whose samples the head holds.
    pub covered: u64,
    /// Chunks that blocks stand for, or of series that nobody names any more.
    pub obsolete: u64,
    /// Chunks of samples that came out of order.
    pub late: u64,
    /// Files that end in damage, which Prometheus passes over as well.
    pub damaged: u64,
}

/// Checks that the replayed head holds what the head chunks of `data_dir` hold from `min_valid` on. Their series' references
/// are not handed out again.
pub fn check(
    fs: &SharedFs,
    data_dir: &Path,
    head: &Head,
    aliases: &Aliases,
    min_valid: i64,
) -> Result<HeadChunksReport, HeadChunksError> {
    let dir = data_dir.join(HEAD_CHUNKS_DIR);
    let mut report = HeadChunksReport::default();
    let entries = match fs.list(&dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(report),
        Err(source) => return Err(HeadChunksError::Io { action: "list", path: dir, source }),
    };
    let (mut chunks, mut samples, mut ref_max) = (0, 0, 0);
    for entry in entries.into_iter().filter(|entry| !entry.is_dir && entry.name.parse::<u64>().is_ok()) {
        let path = dir.join(entry.name);
        let whole = each_chunk(&**fs, &path, &mut |chunk| {
            ref_max = ref_max.max(chunk.series.0);
            if chunk.encoding & OUT_OF_ORDER != 0 {
                // Those are in the head by now.
                report.late += 1;
                return;
            }
            match missing(chunk, head, aliases, min_valid) {
                None => report.obsolete += 1,
                Some(0) => report.covered += 1,
                Some(n) => {
                    chunks += 1;
                    samples += n;
                }
            }
        })
        .map_err(|source| HeadChunksError::Io { action: "read", path: path.clone(), source })?;
        report.damaged += u64::from(!whole);
    }
    head.reserve_refs(ref_max);
    if 0 < samples { Err(HeadChunksError::NotInLog { path: dir, chunks, samples }) } else { Ok(report) }
}

/// Chunks of samples that came out of order, as a start finds them in files: where they stand, and the times of their samples.
pub(crate) struct LateInFiles {
    /// Those before it stand in blocks.
    from: ChunkPlace,
    found: FoundLate,
    /// Of the chunk that was taken last.
    times: Vec<i64>,
    has_starts: bool,
    ref_max: SeriesRef,
}

impl LateInFiles {
    /// None yet; those before `from` are not wanted.
    pub(crate) fn from(from: ChunkPlace) -> Self {
        Self { from, found: FoundLate::default(), times: Vec::new(), has_starts: false, ref_max: SeriesRef(0) }
    }

    /// Takes a chunk of a file.
    pub(crate) fn take(&mut self, file: u64, chunk: &HeadChunk<'_>) {
        let place = ChunkPlace::new(file, chunk.offset).filter(|place| self.from <= *place);
        self.ref_max = self.ref_max.max(chunk.series);
        let Ok(encoding) = Encoding::from_id(chunk.encoding & !OUT_OF_ORDER) else { return };
        self.has_starts |= encoding == encoding.with_starts();
        if let (Some(place), Ok(())) = (place, times_of(encoding, chunk.data, &mut self.times)) {
            let samples = sample_count(encoding.id(), chunk.data);
            let (min_t, max_t) = (chunk.min_t, chunk.max_t);
            let written = WrittenChunk { place, min_t, max_t, samples, encoding };
            self.found.push(chunk.series, written, &self.times);
        }
    }

    /// Lets series begin with their chunks: they are not read into memory. Returns false if some have start times that the head does not
    /// store; then nothing was done.
    pub(crate) fn give(self, restorer: &mut Restorer<'_>) -> bool {
        restorer.taken(self.ref_max);
        if self.has_starts && !restorer.stores_starts() {
            return false;
        }
        restorer.begin_late(self.found);
        true
    }
}

fn times_of(encoding: Encoding, data: &[u8], times: &mut Vec<i64>) -> Result<(), ChunkError> {
    times.clear();
    let mut decoder = ChunkDecoder::of_chunk(encoding, data)?;
    while let Some(t) = decoder.next_t()? {
        times.push(t);
    }
    Ok(())
}

/// Puts samples of chunks from `from` on that came out of order and that the log of those lacks into the head, as Prometheus does at a
/// start. Returns the
/// number of the last file that holds any, and whether all files are sound.
pub(crate) fn restore_late(
    fs: &SharedFs,
    data_dir: &Path,
    from: ChunkPlace,
    restorer: &mut Restorer<'_>,
) -> Result<(Option<u64>, bool), WalError> {
    let dir = data_dir.join(HEAD_CHUNKS_DIR);
    if !fs.exists(&dir).context("read", &dir)? {
        return Ok((None, true));
    }
    let (mut last, mut is_whole, mut before) = (None, true, None);
    let mut samples = 0;
    for (number, path) in files(&**fs, &dir).context("list", &dir)? {
        is_whole &= before.replace(number).is_none_or(|before: u64| before + 1 == number);
        is_whole &= each_chunk(&**fs, &path, &mut |chunk| {
            let is_before = ChunkPlace::new(number, chunk.offset).is_none_or(|place| place < from);
            if chunk.encoding & OUT_OF_ORDER == 0 {
                return;
            }
            restorer.taken(chunk.series);
            if is_before {
                return;
            }
            last = last.max(Some(number));
            let encoding = Encoding::from_id(chunk.encoding & !OUT_OF_ORDER);
            if let Ok(found) = encoding.and_then(|encoding| rewrite::decode(encoding, chunk.data)) {
                let late = |one: Sample| LateSample::settled(one.t, one.start, LateValue::from(one.value));
                let found = found.into_iter().map(late).collect();
                samples += restorer.late_chunk(chunk.series, found).unwrap_or(0);
            }
        })
        .context("read", &path)?;
    }
    if 0 < samples {
        tracing::info!(component = "tsdb", samples, "Samples that came out of order were found in head chunks alone");
    }
    Ok((last, is_whole))
}

/// The files of the folder with their numbers, ascending.
fn files(fs: &dyn Fs, dir: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let entries = fs.list(dir)?.into_iter().filter(|entry| !entry.is_dir);
    let numbered = entries.filter_map(|entry| Some((entry.name.parse().ok()?, dir.join(entry.name))));
    let mut files: Vec<(u64, PathBuf)> = numbered.collect();
    files.sort_unstable();
    Ok(files)
}

/// A chunk of a file.
pub(crate) struct HeadChunk<'a> {
    /// Where in the file it begins; 0 if that was not asked for.
    pub(crate) offset: u64,
    pub(crate) series: SeriesRef,
    pub(crate) min_t: i64,
    pub(crate) max_t: i64,
    pub(crate) encoding: u8,
    pub(crate) data: &'a [u8],
}

/// Appends a chunk as it stands in a file.
pub(crate) fn put_chunk(series: SeriesRef, (min_t, max_t): (i64, i64), encoding: u8, data: &[u8], out: &mut Vec<u8>) {
    let from = out.len();
    out.extend_from_slice(&series.0.to_be_bytes());
    out.extend_from_slice(&min_t.to_be_bytes());
    out.extend_from_slice(&max_t.to_be_bytes());
    out.push(encoding);
    put_uvarint(data.len() as u64, out);
    out.extend_from_slice(data);
    let checksum = crc32c::crc32c(out.get(from..).unwrap_or_default());
    out.extend_from_slice(&checksum.to_be_bytes());
}

/// How many samples of the chunk the head lacks; `None` if nobody needs them there.
fn missing(chunk: &HeadChunk<'_>, head: &Head, aliases: &Aliases, min_valid: i64) -> Option<u64> {
    if chunk.max_t < min_valid {
        return None;
    }
    let series = aliases.get(&chunk.series).copied().unwrap_or(chunk.series);
    let from = chunk.min_t.max(min_valid);
    let held = head.count_samples(series, from, chunk.max_t)?;
    let wanted = match Encoding::from_id(chunk.encoding) {
        Ok(encoding) if from != chunk.min_t => {
            let mut decoder = ChunkDecoder::of_chunk(encoding, chunk.data).ok()?;
            let mut count = 0;
            while let Ok(Some(t)) = decoder.next_t() {
                count += u64::from(from <= t);
            }
            count
        }
        _ => u64::from(sample_count(chunk.encoding, chunk.data)),
    };
    Some(wanted.saturating_sub(held))
}

/// How a file ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileEnd {
    /// Behind a chunk, or in zeros.
    Sound,
    /// It was begun when the program ended, and holds nothing.
    Empty,
    /// Within a chunk that begins here.
    Torn(u64),
    /// What is there cannot be read.
    Damaged,
}

/// Calls `take` with each sound chunk; false if the file ends in damage.
pub(crate) fn each_chunk(fs: &dyn Fs, path: &Path, take: &mut dyn FnMut(&HeadChunk<'_>)) -> io::Result<bool> {
    each_chunk_to_end(fs, path, take).map(|end| matches!(end, FileEnd::Sound | FileEnd::Empty))
}

/// Calls `take` with each sound chunk.
pub(crate) fn each_chunk_to_end(fs: &dyn Fs, path: &Path, take: &mut dyn FnMut(&HeadChunk<'_>)) -> io::Result<FileEnd> {
    let file = fs.open(path)?;
    let mut header = [0; HEADER_LEN as usize];
    let have = file.read_at(&mut header, 0)?;
    if have < header.len() || header != FILE_HEADER {
        let is_begun = have < header.len() && header.get(..have) == FILE_HEADER.get(..have);
        return Ok(match header.iter().all(|byte| *byte == 0) {
            true => FileEnd::Empty,
            false if is_begun => FileEnd::Torn(0),
            false => FileEnd::Damaged,
        });
    }
    let mut window: Vec<u8> = Vec::new();
    let (mut at, mut used, mut at_end) = (HEADER_LEN, 0usize, false);
    loop {
        // The longest chunk fits into what is kept ready.
        if !at_end && window.len() - used < READ_LEN + DATA_LEN_MAX as usize {
            window.drain(..used);
            used = 0;
            let have = window.len();
            window.resize(2 * READ_LEN + DATA_LEN_MAX as usize, 0);
            let read = file.read_at(window.get_mut(have..).unwrap_or(&mut []), at + have as u64)?;
            at_end = have + read < window.len();
            window.truncate(have + read);
        }
        let rest = window.get(used..).unwrap_or(&[]);
        let head = rest.get(..CHUNK_HEADER_LEN.min(rest.len())).unwrap_or(&[]);
        if head.iter().all(|byte| *byte == 0) {
            // The rest is room that was taken and not written.
            let is_rest = rest.iter().all(|byte| *byte == 0) && (at_end || is_zero(&*file, at + rest.len() as u64)?);
            return Ok(if is_rest { FileEnd::Sound } else { FileEnd::Damaged });
        }
        let Some((len, mut chunk)) = parse(rest) else {
            let is_short = chunk_len(rest).map_or(rest.len() < CHUNK_HEADER_LEN + 5, |len| rest.len() < len);
            return Ok(if at_end && is_short { FileEnd::Torn(at) } else { FileEnd::Damaged });
        };
        chunk.offset = at;
        take(&chunk);
        used += len;
        at += len as u64;
    }
}

/// True if a file holds nothing but zeros from `at` on.
fn is_zero(file: &dyn File, mut at: u64) -> io::Result<bool> {
    let mut window = vec![0; READ_LEN];
    loop {
        let read = file.read_at(&mut window, at)?;
        if window.iter().take(read).any(|byte| *byte != 0) {
            return Ok(false);
        }
        if read < window.len() {
            return Ok(true);
        }
        at += read as u64;
    }
}

/// Bytes of the chunk that `data` begins with; `None` if its header is not all there, or says what cannot be.
pub(crate) fn chunk_len(data: &[u8]) -> Option<usize> {
    let (mut len, mut at) = (0u64, CHUNK_HEADER_LEN);
    for shift in (0..35).step_by(7) {
        let byte = *data.get(at)?;
        at += 1;
        len |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            break;
        }
    }
    let len = usize::try_from(len).ok().filter(|len| *len as u64 <= DATA_LEN_MAX)?;
    Some(at + len + CHECKSUM_LEN)
}

/// The first chunk of `data` with its length; `None` if it is not sound.
pub(crate) fn parse(data: &[u8]) -> Option<(usize, HeadChunk<'_>)> {
    let (series, rest) = data.split_first_chunk::<8>()?;
    let (min_t, rest) = rest.split_first_chunk::<8>()?;
    let (max_t, rest) = rest.split_first_chunk::<8>()?;
    let (encoding, mut rest) = rest.split_first()?;
    let mut data_len = 0u64;
    for shift in (0..35).step_by(7) {
        let (byte, behind) = rest.split_first()?;
        rest = behind;
        data_len |= u64::from(byte & 0x7f) << shift;
        if *byte < 0x80 {
            break;
        }
    }
    let data_len = usize::try_from(data_len).ok().filter(|len| *len as u64 <= DATA_LEN_MAX)?;
    let (chunk, behind) = rest.split_at_checked(data_len)?;
    let covered = data.len() - behind.len();
    let checksum = behind.first_chunk::<CHECKSUM_LEN>()?;
    if crc32c::crc32c(data.get(..covered)?) != u32::from_be_bytes(*checksum) {
        return None;
    }
    let chunk = HeadChunk {
        offset: 0,
        series: SeriesRef(u64::from_be_bytes(*series)),
        min_t: i64::from_be_bytes(*min_t),
        max_t: i64::from_be_bytes(*max_t),
        encoding: *encoding,
        data: chunk,
    };
    Some((covered + CHECKSUM_LEN, chunk))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::append::{AppendBatch, AppendSample, SeriesKey};
    use crate::model::clock::ManualClock;
    use crate::model::labels::Labels;
    use crate::model::time::TimestampMs;
    use crate::storage::chunk::encode_xor;
    use crate::storage::fs::sim::SimFs;
    use crate::storage::head::HeadOptions;

    /// Series, encoding, samples.
    type Chunk = (u64, u8, Vec<(i64, f64)>);

    fn file_of(chunks: &[Chunk]) -> Vec<u8> {
        let mut file = FILE_HEADER.to_vec();
        for (series, encoding, samples) in chunks {
            let from = file.len();
            let data = encode_xor(samples);
            file.extend(series.to_be_bytes());
            file.extend(samples[0].0.to_be_bytes());
            file.extend(samples[samples.len() - 1].0.to_be_bytes());
            file.push(*encoding);
            assert!(data.len() < 0x80);
            file.push(data.len() as u8);
            file.extend(data);
            let checksum = crc32c::crc32c(&file[from..]);
            file.extend(checksum.to_be_bytes());
        }
        file.extend([0; 100]);
        file
    }

    fn checked(file: &[u8], min_valid: i64) -> Result<HeadChunksReport, String> {
        let sim = SimFs::new();
        sim.put(Path::new("/data/chunks_head/000001"), file).unwrap();
        let head = Head::new(HeadOptions::new(ManualClock::at(TimestampMs(1_000_000))));
        let series = Labels::from_pairs([("a", "1")]);
        let sample = |at| AppendSample { series: SeriesKey::Labels(series.clone()), at: TimestampMs(at), value: 1.0 };
        // The first series gets reference 1.
        head.append_blocking(AppendBatch::of_floats((0..50).map(|i| sample(i * 10)).collect())).unwrap();
        let fs: SharedFs = Arc::new(sim);
        check(&fs, Path::new("/data"), &head, &Aliases::new(), min_valid).map_err(|error| error.to_string())
    }

    fn samples(times: std::ops::Range<i64>) -> Vec<(i64, f64)> {
        times.map(|i| (i * 10, 1.0)).collect()
    }

    #[test]
    fn chunks_that_the_log_holds_are_passed_over_and_others_refused() {
        let file = file_of(&[(1, 1, samples(0..20)), (1, 1, samples(20..50)), (77, 1, samples(0..3))]);
        assert_eq!(checked(&file, i64::MIN), Ok(HeadChunksReport { covered: 2, obsolete: 1, ..Default::default() }));
        let more = file_of(&[(1, 1, samples(0..20)), (1, 1, samples(40..60))]);
        let error = checked(&more, i64::MIN).unwrap_err();
        assert!(error.contains("10 samples in 1 chunks"), "{error}");
        // Blocks stand for them.
        assert_eq!(checked(&more, 600).map(|report| report.obsolete), Ok(2));
        assert_eq!(checked(&file_of(&[(1, 0x81, samples(0..2))]), i64::MIN).map(|report| report.late), Ok(1));
        let histograms = checked(&file_of(&[(1, 2, samples(0..60))]), i64::MIN).unwrap_err();
        assert!(histograms.contains("10 samples in 1 chunks"), "{histograms}");
    }

    #[test]
    fn damage_ends_a_file() {
        let mut file = file_of(&[(1, 1, samples(0..20)), (1, 1, samples(20..50))]);
        let at = file.len() - 110;
        file[at] ^= 1;
        assert_eq!(checked(&file, 0), Ok(HeadChunksReport { covered: 1, damaged: 1, ..Default::default() }));
        let sim = SimFs::new();
        for cut in 0..file.len() {
            sim.put(Path::new("/f"), &file[..cut]).unwrap();
            let mut seen = 0;
            let whole = each_chunk(&sim, Path::new("/f"), &mut |_| seen += 1).unwrap();
            assert!(seen <= 1 && (whole || seen == 0 || 8 < cut), "cut at {cut}");
        }
    }
}
