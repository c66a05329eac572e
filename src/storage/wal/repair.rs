//! Repairs a segment: what is sound before and behind the damage stays, the original is kept aside.
//!
//! The unfinished end that a crash leaves in the newest segment is cut off in place. Anything else is rewritten: a copy
//! of the original goes to `wal.damaged/`, the sound records go to a temporary file, which then takes the segment's
//! place in one step. A crash in between leaves the original where it was.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use crate::storage::fs::{File, SharedFs, copy_durably, parent_of};
use crate::storage::reserve;
use crate::storage::wal::fragment::{FragmentError, frame, page_rest};
use crate::storage::wal::load::SegmentDamage;
use crate::storage::wal::reader::{Item, SegmentReader};
use crate::storage::wal::{DAMAGED_DIR, IoContext, WalError};

/// Bytes of rewritten records that are written at once.
const WRITE_LEN: usize = 1 << 20;
/// Bytes of a torn end that are kept: a batch and more.
const END_LEN_MAX: u64 = 64 << 20;

/// Repairs the segment at `path`, in which `damage` was found; marks what is a torn end.
pub(crate) fn repair_segment(
    fs: &SharedFs,
    data_dir: &Path,
    path: &Path,
    is_newest: bool,
    damage: &mut [SegmentDamage],
) -> Result<(), WalError> {
    if is_newest && let [only] = &mut *damage {
        let file = fs.open_write(path).context("open", path)?;
        let at_end = only.offset + only.len == file.len().context("read", path)?;
        if at_end && only.error == FragmentError::Torn.to_string() {
            only.torn_end = true;
            reserve::with_room(fs, data_dir, || keep_end(fs, data_dir, path, only.offset, &*file))?;
            file.truncate(only.offset).context("cut back", path)?;
            return file.sync_data().context("sync", path);
        }
    }
    reserve::with_room(fs, data_dir, || keep_original(fs, data_dir, path))?;
    let temporary = path.with_extension("tmp");
    let bad = damage.iter().map(|d| d.offset).collect();
    reserve::with_room(fs, data_dir, || rewrite(fs, path, &temporary, &bad))?;
    fs.rename(&temporary, path).context("rename", &temporary)?;
    let dir = parent_of(path);
    fs.sync_dir(&dir).context("sync", &dir)
}

/// Keeps what a torn end holds: mostly half a record that nobody was promised, but a flipped length looks the same.
fn keep_end(fs: &SharedFs, data_dir: &Path, path: &Path, from: u64, file: &dyn File) -> Result<(), WalError> {
    let len = file.len().context("read", path)?.saturating_sub(from).min(END_LEN_MAX);
    let mut end = vec![0; usize::try_from(len).unwrap_or(0)];
    let read = file.read_at(&mut end, from).context("read", path)?;
    end.truncate(read);
    let target = free_name(fs, data_dir, path, &format!(".from-{from}"))?;
    let kept = fs.create(&target).context("create", &target)?;
    kept.write_all_at(&end, 0).context("write", &target)?;
    kept.sync_data().context("sync", &target)
}

/// A path in the folder of originals at which nothing stands, named after the segment at `path`.
fn free_name(fs: &SharedFs, data_dir: &Path, path: &Path, suffix: &str) -> Result<PathBuf, WalError> {
    let dir = data_dir.join(DAMAGED_DIR);
    fs.create_dir_all(&dir).context("create", &dir)?;
    fs.sync_dir(data_dir).context("sync", data_dir)?;
    // A checkpoint's segments keep the checkpoint's name in front.
    let parent = parent_of(path).file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let own = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let name = if parent.starts_with("checkpoint.") || parent == crate::storage::wbl::WBL_DIR {
        format!("{parent}.{own}{suffix}")
    } else {
        format!("{own}{suffix}")
    };
    let mut target = dir.join(&name);
    let mut attempt = 1;
    while fs.exists(&target).context("read", &target)? {
        target = dir.join(format!("{name}.{attempt}"));
        attempt += 1;
    }
    Ok(target)
}

fn keep_original(fs: &SharedFs, data_dir: &Path, path: &Path) -> Result<(), WalError> {
    let target = free_name(fs, data_dir, path, "")?;
    copy_durably(&**fs, path, &target).context("copy to", &target)
}

/// Writes the sound records of `path` to `temporary`, without those that begin at the places in `bad`.
fn rewrite(fs: &SharedFs, path: &Path, temporary: &Path, bad: &HashSet<u64>) -> Result<(), WalError> {
    let mut reader = SegmentReader::new(fs.open(path).context("open", path)?, None).context("read", path)?;
    let file = fs.create(temporary).context("create", temporary)?;
    let (mut buffer, mut written) = (Vec::new(), 0u64);
    while let Some(item) = reader.next_item().context("read", path)? {
        if let Item::Record { offset, compression, data, .. } = item
            && !bad.contains(&offset)
        {
            frame(data, compression, written, &mut buffer);
            if WRITE_LEN <= buffer.len() {
                file.write_all_at(&buffer, written).context("write", temporary)?;
                written += buffer.len() as u64;
                buffer.clear();
            }
        }
    }
    // The last page is filled up, as at the end of every finished segment.
    let rest = page_rest(written + buffer.len() as u64);
    if rest < super::fragment::PAGE_LEN {
        buffer.resize(buffer.len() + rest, 0);
    }
    file.write_all_at(&buffer, written).context("write", temporary)?;
    file.sync_data().context("sync", temporary)
}
