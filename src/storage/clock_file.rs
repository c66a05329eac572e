//! What is known of the clock, in the file `watchfire-clock.json` of the data directory: [`ClockMemory`] as JSON, replaced as a whole.
//! Prometheus does not look at it.

use std::path::{Path, PathBuf};

use crate::model::steady_clock::ClockMemory;
use crate::storage::fs::{Fs, parent_of};
use crate::storage::wal::{IoContext, WalError};

/// Longer than any that is written.
const LEN_MAX: u64 = 1 << 16;

fn path_of(data_dir: &Path) -> PathBuf {
    data_dir.join("watchfire-clock.json")
}

/// What an earlier process knew; `None` if it left nothing, or nothing that can be read, which is told.
pub fn load(fs: &dyn Fs, data_dir: &Path) -> Option<ClockMemory> {
    let path = path_of(data_dir);
    let read = || {
        if !fs.exists(&path)? {
            return Ok(None);
        }
        let file = fs.open(&path)?;
        let mut raw = vec![0; usize::try_from(file.len()?.min(LEN_MAX)).unwrap_or(0)];
        let read = file.read_at(&mut raw, 0)?;
        raw.truncate(read);
        serde_json::from_slice(&raw).map(Some).map_err(std::io::Error::from)
    };
    read().unwrap_or_else(|error: std::io::Error| {
        tracing::warn!(component = "tsdb", path = %path.display(), err = %error,
            "What was known of the clock cannot be read and is not used");
        None
    })
}

/// Replaces it; it survives a power cut when this returns.
pub fn save(fs: &dyn Fs, data_dir: &Path, memory: &ClockMemory) -> Result<(), WalError> {
    let path = path_of(data_dir);
    let temporary = path.with_extension("tmp");
    let raw = serde_json::to_vec(memory).map_err(std::io::Error::from).context("write", &path)?;
    let file = fs.create(&temporary).context("create", &temporary)?;
    file.write_all_at(&raw, 0).context("write", &temporary)?;
    file.sync_data().context("sync", &temporary)?;
    drop(file);
    fs.rename(&temporary, &path).context("rename", &temporary)?;
    let folder = parent_of(&path);
    fs.sync_dir(&folder).context("sync", &folder)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::steady_clock::Line;
    use crate::storage::fs::sim::SimFs;

    #[test]
    fn what_is_known_comes_back_whole_or_not_at_all() {
        let (fs, dir) = (SimFs::new(), Path::new("/data"));
        fs.create_dir_all(dir).unwrap();
        assert_eq!(load(&fs, dir), None);
        let memory = ClockMemory {
            origin: Some("boot".to_owned()),
            lines: vec![Line { ahead_ms: i64::MIN, since_ms: 5 }, Line { ahead_ms: i64::MAX, since_ms: -7 }],
            doubted_since_ms: Some(1),
            aged_ms: 2,
            aged_at_ms: 3,
            behind_ms: 4,
            ahead_until_ms: None,
        };
        save(&fs, dir, &memory).unwrap();
        assert_eq!(load(&fs, dir), Some(memory.clone()));
        let path = path_of(dir);
        for damage in ["", "{", "[1]", "{\"lines\": 5}", "\u{0}\u{0}"] {
            let file = fs.create(&path).unwrap();
            file.write_all_at(damage.as_bytes(), 0).unwrap();
            assert_eq!(load(&fs, dir), None, "{damage}");
        }
        save(&fs, dir, &memory).unwrap();
        // At each failing operation the old one is there, or the new one.
        for at in 0..6 {
            let fork = fs.fork();
            fork.fail_nth(at, u64::MAX);
            let newer = ClockMemory { aged_ms: 9, ..memory.clone() };
            let saved = save(&fork, dir, &newer);
            fork.heal();
            let found = load(&fork, dir);
            assert!(found.as_ref() == Some(&newer) || saved.is_err() && found.as_ref() == Some(&memory), "{at}");
        }
    }
}
