//! The seam between storage and the disk: everything that storage does with files goes through [`Fs`], so that a test
//! can fail, cut or forget any operation ([`sim::SimFs`]).
//!
//! Files are written at given places and never through a map: a full disk has to be an error, not a signal. New files
//! have mode 0666 and new folders 0777, less the umask, as Prometheus's.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::FlockOperation;

pub mod sim;

/// How modules hold the file system.
pub type SharedFs = Arc<dyn Fs>;

/// What stands in a folder.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DirEntry {
    /// Its name within the folder.
    pub name: String,
    /// Whether it is a folder itself.
    pub is_dir: bool,
    /// Its length in bytes; 0 for a folder.
    pub len: u64,
}

/// An open file.
pub trait File: Send + Sync {
    /// Writes all of `data` at `offset`. After an error any part of it may have been written.
    fn write_all_at(&self, data: &[u8], offset: u64) -> io::Result<()>;
    /// Reads into `buffer` from `offset` and returns how much; less than asked for only at the file's end.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Its length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// True if it holds nothing.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Makes it `len` bytes long, with space on the disk for all of them.
    fn allocate(&self, len: u64) -> io::Result<()>;
    /// Cuts it to `len` bytes.
    fn truncate(&self, len: u64) -> io::Result<()>;
    /// Returns when data and length will survive a power cut.
    fn sync_data(&self) -> io::Result<()>;
}

/// A held lock; dropping it gives it back.
pub trait FileLock: Send + Sync {}

/// A file system.
pub trait Fs: Send + Sync {
    /// Makes a folder and those above it; it may exist.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;
    /// What stands in a folder, by name.
    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>>;
    /// True if something stands at `path`.
    fn exists(&self, path: &Path) -> io::Result<bool>;
    /// Makes an empty file for reading and writing; one that exists is emptied.
    fn create(&self, path: &Path) -> io::Result<Box<dyn File>>;
    /// Opens a file for reading.
    fn open(&self, path: &Path) -> io::Result<Box<dyn File>>;
    /// Opens a file that exists for reading and writing.
    fn open_write(&self, path: &Path) -> io::Result<Box<dyn File>>;
    /// Renames a file or folder; a file at `to` is replaced in one step.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Gives a file a second name, which must not exist.
    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    /// Removes a folder with all that it holds.
    fn remove_dir_all(&self, path: &Path) -> io::Result<()>;
    /// Returns when the folder's entries will survive a power cut.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// Bytes of the file system that `path` stands on, used ones included.
    fn capacity(&self, path: &Path) -> io::Result<u64> {
        let _ = path;
        Err(io::ErrorKind::Unsupported.into())
    }
    /// Locks the file at `path`, made if need be, against other processes; `WouldBlock` if one holds it.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn FileLock>>;
}

/// The machine's file system.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealFs;

impl RealFs {
    /// The same, shared.
    pub fn shared() -> SharedFs {
        Arc::new(Self)
    }
}

struct RealFile(fs::File);

impl File for RealFile {
    fn write_all_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(data, offset)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match self.0.read_at(rest, offset + done as u64) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        Ok(rustix::fs::fallocate(&self.0, rustix::fs::FallocateFlags::empty(), 0, len)?)
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}

struct RealLock(#[expect(dead_code, reason = "the lock lasts as long as the file is open")] fs::File);

impl FileLock for RealLock {}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).mode(0o666);
    options
}

impl Fs for RealFs {
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o777).create(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            // A name that is not UTF-8 is none of ours; it is shown with marks and so matches nothing.
            let name = entry.file_name().to_string_lossy().into_owned();
            let metadata = match fs::metadata(entry.path()) {
                Ok(metadata) => metadata,
                // Removed meanwhile, or a link to nowhere.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            let len = if metadata.is_dir() { 0 } else { metadata.len() };
            entries.push(DirEntry { name, is_dir: metadata.is_dir(), len });
        }
        entries.sort();
        Ok(entries)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        path.try_exists()
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn File>> {
        Ok(Box::new(RealFile(options().write(true).create(true).truncate(true).open(path)?)))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn File>> {
        Ok(Box::new(RealFile(options().open(path)?)))
    }

    fn open_write(&self, path: &Path) -> io::Result<Box<dyn File>> {
        Ok(Box::new(RealFile(options().write(true).open(path)?)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::hard_link(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir_all(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        fs::File::open(path)?.sync_all()
    }

    fn capacity(&self, path: &Path) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(path)?;
        Ok(stat.f_blocks.saturating_mul(stat.f_frsize))
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn FileLock>> {
        let file = options().write(true).create(true).truncate(false).open(path)?;
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        // Whoever held it before removes the file when it ends: the one that is locked now must still stand there.
        let (ours, there) = (file.metadata()?, fs::metadata(path));
        match there {
            Ok(there) if (there.dev(), there.ino()) == (ours.dev(), ours.ino()) => Ok(Box::new(RealLock(file))),
            Ok(_) => Err(io::ErrorKind::WouldBlock.into()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(io::ErrorKind::WouldBlock.into()),
            Err(error) => Err(error),
        }
    }
}

/// Copies a file and makes the copy durable, its name included.
pub fn copy_durably(fs: &dyn Fs, from: &Path, to: &Path) -> io::Result<()> {
    const STEP_LEN: usize = 1 << 20;
    let (source, copy) = (fs.open(from)?, fs.create(to)?);
    let mut buffer = vec![0; STEP_LEN];
    let mut offset = 0;
    loop {
        let n = source.read_at(&mut buffer, offset)?;
        copy.write_all_at(buffer.get(..n).unwrap_or_default(), offset)?;
        offset += n as u64;
        if n < STEP_LEN {
            break;
        }
    }
    copy.sync_data()?;
    fs.sync_dir(&parent_of(to))
}

/// The folder that holds `path`.
pub fn parent_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent.to_path_buf(),
        _ => PathBuf::from("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_written_at_their_places_and_listed_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let (fs, path) = (RealFs, dir.path().join("a/b"));
        fs.create_dir_all(&path).unwrap();
        let file = fs.create(&path.join("2")).unwrap();
        file.write_all_at(b"hello world", 0).unwrap();
        file.truncate(5).unwrap();
        file.sync_data().unwrap();
        let mut buffer = [0; 8];
        assert_eq!((file.read_at(&mut buffer, 1).unwrap(), &buffer[..4]), (4, &b"ello"[..]));
        fs.rename(&path.join("2"), &path.join("1")).unwrap();
        copy_durably(&fs, &path.join("1"), &path.join("3")).unwrap();
        let names: Vec<_> = fs.list(&path).unwrap().into_iter().map(|e| (e.name, e.len)).collect();
        assert_eq!(names, [("1".to_owned(), 5), ("3".to_owned(), 5)]);
        assert!(fs.list(&dir.path().join("a")).unwrap()[0].is_dir);
    }

    #[test]
    fn a_file_system_has_a_size() {
        let dir = tempfile::tempdir().unwrap();
        assert!(1 << 20 < RealFs.capacity(dir.path()).unwrap());
        assert!(RealFs.capacity(&dir.path().join("none")).is_err());
    }

    #[test]
    fn a_lock_is_held_by_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let held = RealFs.lock(&path).unwrap();
        assert_eq!(RealFs.lock(&path).err().unwrap().kind(), io::ErrorKind::WouldBlock);
        drop(held);
        RealFs.lock(&path).unwrap();
    }
}
