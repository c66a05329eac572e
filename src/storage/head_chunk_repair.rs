//! Repairs the files of head chunks: what is sound before and behind the damage stays, the original is kept in `wal.damaged/`.
//!
//! Chunks of samples in order stand in the log as well, as long as it is whole, and so cost nothing. Behind damage they are left out:
//! a series' chunks must have no hole, and the next stop writes them anew. Those of samples that came out of order may stand nowhere
//! else, and all that are sound are kept. A file that is missing between two others is put there again, without chunks:
//! Prometheus does not open a folder with gaps.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::model::sample::SeriesRef;
use crate::storage::block::chunks::sample_count;
use crate::storage::chunk::Encoding;
use crate::storage::fs::{SharedFs, copy_durably, parent_of};
use crate::storage::head_chunk_files;
use crate::storage::head_chunks::{FILE_HEADER, HEAD_CHUNKS_DIR, HeadChunk, OUT_OF_ORDER, parse};
use crate::storage::reserve;
use crate::storage::wal::loss::Loss;
use crate::storage::wal::{DAMAGED_DIR, IoContext, WalError};

/// Longest file that is looked at; ours and Prometheus's have 128 MiB.
const FILE_LEN_MAX: u64 = 1 << 30;
/// Bytes of a chunk before its length.
const CHUNK_HEADER_LEN: usize = 25;

/// A stretch of a file that was lost, or a file that is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChunkDamage {
    /// The file.
    pub path: PathBuf,
    /// Where the stretch begins.
    pub offset: u64,
    /// Its bytes; 0 if the file is missing.
    pub len: u64,
    /// The late chunk that stood there, if that can still be told.
    pub late: Option<DamagedLate>,
    /// What it has cost, once that is known.
    pub loss: Loss,
}

/// A damaged chunk of samples that came out of order, as far as its header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DamagedLate {
    /// Its series.
    pub series: SeriesRef,
    /// Times of its first and its last sample.
    pub range: (i64, i64),
    /// Samples in it.
    pub samples: u64,
}

/// Repairs all files of the folder that are damaged, and fills gaps. Files that cannot be replaced now, as the disk is full, stay as
/// they are until the next start.
pub(crate) fn repair(fs: &SharedFs, data_dir: &Path) -> Result<Vec<ChunkDamage>, WalError> {
    let mut found = Vec::new();
    let mut before: Option<u64> = None;
    // Chunks in order that stand behind damage are not to be counted on.
    let mut has_hole = false;
    let files = head_chunk_files::list(&**fs, data_dir)?;
    let last = files.last().map(|file| file.number);
    for file in files {
        for missing in before.map_or(file.number, |before| before + 1)..file.number {
            let path = head_chunk_files::path_of(data_dir, missing);
            found.push(ChunkDamage { path: path.clone(), offset: 0, len: 0, late: None, loss: Loss::UNKNOWN });
            unless_full(replace(fs, data_dir, &path, &FILE_HEADER))?;
            has_hole = true;
        }
        before = Some(file.number);
        let path = head_chunk_files::path_of(data_dir, file.number);
        let data = read(fs, &path, file.len)?;
        if data.iter().all(|byte| *byte == 0) && Some(file.number) != last {
            // The last one may have been begun when the program ended; of another the content is lost.
            let len = data.len() as u64;
            found.push(ChunkDamage { path: path.clone(), offset: 0, len, late: None, loss: Loss::UNKNOWN });
            unless_full(replace(fs, data_dir, &path, &FILE_HEADER))?;
            has_hole = true;
            continue;
        }
        let (sound, damaged) = pieces(&data);
        let damage: Vec<ChunkDamage> =
            damaged.iter().map(|range| damage_of(&path, &data, range.clone(), &sound)).collect();
        let first_hole = damage.iter().filter(|one| one.late.is_none()).map(|one| one.offset).min();
        let is_behind = |range: &Range<usize>| has_hole || first_hole.is_some_and(|hole| hole <= range.start as u64);
        let is_kept = |range: &&Range<usize>| !is_behind(range) || is_late(&data, range);
        if damage.is_empty() && sound.iter().all(|range| is_kept(&range)) {
            continue;
        }
        let mut kept = FILE_HEADER.to_vec();
        let chunks = sound.iter().filter(is_kept).filter_map(|range| data.get(range.clone()));
        chunks.for_each(|chunk| kept.extend_from_slice(chunk));
        unless_full(keep_original(fs, data_dir, &path).and_then(|()| replace(fs, data_dir, &path, &kept)))?;
        has_hole |= first_hole.is_some();
        found.extend(damage);
    }
    Ok(found)
}

fn unless_full(done: Result<(), WalError>) -> Result<(), WalError> {
    match done {
        Err(WalError::Io { action, path, source }) if reserve::is_full(&source) => {
            tracing::error!(component = "tsdb", action, path = %path.display(), err = %source,
                "Head chunks cannot be repaired now; the next start tries again");
            Ok(())
        }
        done => done,
    }
}

fn read(fs: &SharedFs, path: &Path, len: u64) -> Result<Vec<u8>, WalError> {
    let file = fs.open(path).context("open", path)?;
    let too_long =
        || WalError::Io { action: "read", path: path.to_path_buf(), source: io::ErrorKind::FileTooLarge.into() };
    let len = usize::try_from(len).ok().filter(|_| len <= FILE_LEN_MAX).ok_or_else(too_long)?;
    let mut data = vec![0; len];
    let read = file.read_at(&mut data, 0).context("read", path)?;
    data.truncate(read);
    Ok(data)
}

/// The sound chunks of a file and what is damaged between them.
fn pieces(data: &[u8]) -> (Vec<Range<usize>>, Vec<Range<usize>>) {
    let (mut sound, mut damaged): (Vec<Range<usize>>, Vec<Range<usize>>) = (Vec::new(), Vec::new());
    if data.iter().all(|byte| *byte == 0) {
        // A file that was begun when the program ended.
        return (sound, damaged);
    }
    let mut at = FILE_HEADER.len().min(data.len());
    if data.get(..at) != Some(&FILE_HEADER[..]) {
        damaged.push(0..at);
    }
    while let Some(rest) = data.get(at..).filter(|rest| rest.iter().any(|byte| *byte != 0)) {
        if let Some((len, _)) = parse(rest).filter(|(_, chunk)| is_plausible(chunk)) {
            sound.push(at..at + len);
            at += len;
            continue;
        }
        let next = (at + 1..data.len()).find(|next| data.get(*next..).is_some_and(begins_soundly));
        let end = next.unwrap_or_else(|| data.iter().rposition(|byte| *byte != 0).map_or(data.len(), |last| last + 1));
        match damaged.last_mut() {
            Some(before) if before.end == at => before.end = end.max(at + 1),
            _ => damaged.push(at..end.max(at + 1)),
        }
        at = end.max(at + 1);
    }
    (sound, damaged)
}

/// True if a chunk begins here; most places are ruled out at a glance.
fn begins_soundly(data: &[u8]) -> bool {
    // References stay below 2^40.
    data.starts_with(&[0, 0, 0])
        && data.get(24).is_some_and(|encoding| Encoding::from_id(encoding & !OUT_OF_ORDER).is_ok())
        && parse(data).is_some_and(|(_, chunk)| is_plausible(&chunk))
}

fn is_late(data: &[u8], range: &Range<usize>) -> bool {
    data.get(range.clone()).and_then(parse).is_some_and(|(_, chunk)| chunk.encoding & OUT_OF_ORDER != 0)
}

fn is_plausible(chunk: &HeadChunk<'_>) -> bool {
    chunk.min_t <= chunk.max_t && chunk.series.0 != 0
}

/// What is known of a damaged stretch.
fn damage_of(path: &Path, data: &[u8], range: Range<usize>, sound: &[Range<usize>]) -> ChunkDamage {
    let stretch = data.get(range.clone()).unwrap_or_default();
    let late = late_of(stretch);
    let loss = match late {
        Some(_) => Loss::default(),
        // What the file header has lost is the header alone.
        None if range.end <= FILE_HEADER.len() => Loss::default(),
        None => reckoned(stretch.len(), data, sound),
    };
    let (offset, len) = (range.start as u64, range.len() as u64);
    ChunkDamage { path: path.to_path_buf(), offset, len, late, loss }
}

/// The late chunk that a stretch holds, if only its checksum does not fit.
fn late_of(stretch: &[u8]) -> Option<DamagedLate> {
    let word = |at: usize| Some(u64::from_be_bytes(*stretch.get(at..)?.first_chunk()?));
    let (series, min_t, max_t) = (word(0)?, word(8)?.cast_signed(), word(16)?.cast_signed());
    let encoding = *stretch.get(24)?;
    let is_sound = series >> 40 == 0 && min_t <= max_t && Encoding::from_id(encoding & !OUT_OF_ORDER).is_ok();
    if !is_sound || encoding & OUT_OF_ORDER == 0 {
        return None;
    }
    let (mut len, mut at) = (0usize, CHUNK_HEADER_LEN);
    for shift in (0..28).step_by(7) {
        let byte = *stretch.get(at)?;
        at += 1;
        len |= usize::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            break;
        }
    }
    // More than one chunk may be lost in a longer stretch.
    let chunk = stretch.get(at..at.checked_add(len)?).filter(|_| at + len + 4 == stretch.len())?;
    let samples = u64::from(sample_count(encoding & !OUT_OF_ORDER, chunk));
    Some(DamagedLate { series: SeriesRef(series), range: (min_t, max_t), samples })
}

/// What a stretch of so many bytes holds of late samples, by the late chunks of its file.
fn reckoned(len: usize, data: &[u8], sound: &[Range<usize>]) -> Loss {
    let (mut samples, mut bytes, mut range): (u64, usize, Option<(i64, i64)>) = (0, 0, None);
    for piece in sound {
        let Some((_, chunk)) = data.get(piece.clone()).and_then(parse) else { continue };
        bytes += piece.len();
        if chunk.encoding & OUT_OF_ORDER != 0 {
            samples += u64::from(sample_count(chunk.encoding & !OUT_OF_ORDER, chunk.data));
            range = Some(range.map_or((chunk.min_t, chunk.max_t), |(a, b)| (a.min(chunk.min_t), b.max(chunk.max_t))));
        }
    }
    let samples = (len as u64).saturating_mul(samples).div_ceil(bytes.max(1) as u64);
    Loss { samples, is_reckoned: true, range, ..Loss::default() }
}

/// Puts a file in the place of another, in one step.
fn replace(fs: &SharedFs, data_dir: &Path, path: &Path, data: &[u8]) -> Result<(), WalError> {
    let temporary = path.with_extension("tmp");
    reserve::with_room(fs, data_dir, || {
        let file = fs.create(&temporary).context("create", &temporary)?;
        file.write_all_at(data, 0).context("write", &temporary)?;
        file.sync_data().context("sync", &temporary)
    })?;
    fs.rename(&temporary, path).context("rename", &temporary)?;
    let dir = parent_of(path);
    fs.sync_dir(&dir).context("sync", &dir)
}

pub(crate) fn keep_original(fs: &SharedFs, data_dir: &Path, path: &Path) -> Result<(), WalError> {
    let own = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let target = free_place(fs, data_dir, &format!("{HEAD_CHUNKS_DIR}.{own}"))?;
    reserve::with_room(fs, data_dir, || copy_durably(&**fs, path, &target).context("copy to", &target))
}

/// A path in the folder of originals at which nothing stands yet; the folder is there afterwards.
pub(crate) fn free_place(fs: &SharedFs, data_dir: &Path, name: &str) -> Result<PathBuf, WalError> {
    let dir = data_dir.join(DAMAGED_DIR);
    fs.create_dir_all(&dir).context("create", &dir)?;
    fs.sync_dir(data_dir).context("sync", data_dir)?;
    let mut target = dir.join(name);
    let mut attempt = 1;
    while fs.exists(&target).context("read", &target)? {
        target = dir.join(format!("{name}.{attempt}"));
        attempt += 1;
    }
    Ok(target)
}
