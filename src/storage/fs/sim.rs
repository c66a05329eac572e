//! A file system in memory that fails on order, and forgets what was not synced when its power is cut.
//!
//! A file remembers its content as of the last sync, a folder its entries as of its last sync; a cut of the power goes
//! back to those, or, cut at random, to anything between those and what was not synced: entries of folders in any order, and
//! content by blocks. Operations that change something are counted, and the n-th can be made to fail: a failing write leaves the
//! first half of its data behind, or as many bytes as were ordered.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::model::random::Random;
use crate::storage::fs::{DirEntry, File, FileLock, Fs};

/// The file system. Clones share everything.
#[derive(Clone, Default)]
pub struct SimFs {
    disk: Arc<Mutex<Disk>>,
}

type Ino = usize;

#[derive(Default)]
struct Disk {
    nodes: Vec<Node>,
    locks: BTreeSet<PathBuf>,
    operations: u64,
    fail: Option<Failure>,
    /// Bytes of the write that failed first since it was ordered.
    cut_len: Option<usize>,
    /// Files whose content the disk does not give.
    unreadable: BTreeSet<Ino>,
}

#[derive(Clone, Copy)]
struct Failure {
    from: u64,
    until: u64,
    /// Number of the error as the system has it.
    code: i32,
    /// Bytes that a failing write leaves behind; half of them if that is not said.
    left: Option<usize>,
}

/// Number of the error of a device that fails.
pub const EIO: i32 = 5;
/// Number of the error of a full disk.
pub const ENOSPC: i32 = 28;
/// Bytes that a disk writes whole or not at all.
const SECTOR_LEN: usize = 512;

#[derive(Clone)]
enum Node {
    Dir { now: BTreeMap<String, Ino>, synced: BTreeMap<String, Ino> },
    File { now: Vec<u8>, synced: Vec<u8> },
}

impl Node {
    fn dir() -> Self {
        Self::Dir { now: BTreeMap::new(), synced: BTreeMap::new() }
    }
}

const ROOT: Ino = 0;

impl Disk {
    fn step(&mut self) -> io::Result<()> {
        self.operations += 1;
        match self.fail {
            Some(f) if f.from <= self.operations && self.operations <= f.until => {
                Err(io::Error::from_raw_os_error(f.code))
            }
            _ => Ok(()),
        }
    }

    fn root(&mut self) -> Ino {
        if self.nodes.is_empty() {
            self.nodes.push(Node::dir());
        }
        ROOT
    }

    fn find(&mut self, path: &Path) -> io::Result<Ino> {
        let mut at = self.root();
        for name in names(path) {
            let Node::Dir { now, .. } = &self.nodes[at] else { return Err(io::ErrorKind::NotADirectory.into()) };
            at = *now.get(&name).ok_or(io::ErrorKind::NotFound)?;
        }
        Ok(at)
    }

    fn parent(&mut self, path: &Path) -> io::Result<(Ino, String)> {
        let mut parts = names(path);
        let name = parts.pop().ok_or(io::ErrorKind::InvalidInput)?;
        let parent: PathBuf = parts.iter().collect();
        Ok((self.find(&parent)?, name))
    }

    fn entries(&mut self, dir: Ino) -> io::Result<&mut BTreeMap<String, Ino>> {
        match &mut self.nodes[dir] {
            Node::Dir { now, .. } => Ok(now),
            Node::File { .. } => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    fn data(&mut self, file: Ino) -> io::Result<&mut Vec<u8>> {
        match &mut self.nodes[file] {
            Node::File { now, .. } => Ok(now),
            Node::Dir { .. } => Err(io::ErrorKind::IsADirectory.into()),
        }
    }
}

fn names(path: &Path) -> Vec<String> {
    path.components()
        .filter_map(|part| match part {
            Component::Normal(name) => Some(name.to_string_lossy().into_owned()),
            _ => None,
        })
        .collect()
}

impl SimFs {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Operations so far that changed something or tried to.
    pub fn operations(&self) -> u64 {
        self.disk.lock().operations
    }

    /// Makes the `n`-th operation from now fail (1 is the next), and `more` after it.
    pub fn fail_nth(&self, n: u64, more: u64) {
        self.fail_nth_with(n, more, EIO, None);
    }

    /// The same with an error of the caller's choice and, if `left` says so, with that many bytes of a failing write left behind.
    pub fn fail_nth_with(&self, n: u64, more: u64, code: i32, left: Option<usize>) {
        let mut disk = self.disk.lock();
        let from = disk.operations + n;
        disk.fail = Some(Failure { from, until: from.saturating_add(more), code, left });
        disk.cut_len = None;
    }

    /// Bytes of the write that failed first since a failure was ordered; `None` if another operation was to fail, or none has.
    pub fn cut_len(&self) -> Option<usize> {
        self.disk.lock().cut_len
    }

    /// Makes every read of the file at `path` fail.
    pub fn fail_reads(&self, path: &Path) -> io::Result<()> {
        let mut disk = self.disk.lock();
        let file = disk.find(path)?;
        disk.unreadable.insert(file);
        Ok(())
    }

    /// Lets everything succeed again.
    pub fn heal(&self) {
        let mut disk = self.disk.lock();
        disk.fail = None;
        disk.unreadable.clear();
    }

    /// Forgets what was not synced, and who held locks.
    pub fn cut_power(&self) {
        let mut disk = self.disk.lock();
        disk.locks.clear();
        for node in &mut disk.nodes {
            match node {
                Node::Dir { now, synced } => now.clone_from(synced),
                Node::File { now, synced } => now.clone_from(synced),
            }
        }
    }

    /// The same, but of what was not synced anything may have reached the disk: names in any order, content sector by sector.
    pub fn cut_power_anyhow(&self, random: &mut Random) {
        let mut disk = self.disk.lock();
        disk.locks.clear();
        let mut coin = || random.next_u64() & 1 == 0;
        for node in &mut disk.nodes {
            match node {
                Node::Dir { now, synced } => {
                    let names: BTreeSet<String> = now.keys().chain(synced.keys()).cloned().collect();
                    for name in names {
                        let (new, old) = (now.get(&name).copied(), synced.get(&name).copied());
                        match if coin() { new } else { old } {
                            Some(ino) => drop(now.insert(name, ino)),
                            None => drop(now.remove(&name)),
                        }
                    }
                    synced.clone_from(now);
                }
                Node::File { now, synced } => {
                    let len = if coin() { now.len() } else { synced.len() };
                    now.resize(len, 0);
                    for from in (0..len).step_by(SECTOR_LEN) {
                        let to = (from + SECTOR_LEN).min(len);
                        if coin() {
                            for (at, byte) in now.iter_mut().enumerate().take(to).skip(from) {
                                *byte = synced.get(at).copied().unwrap_or(0);
                            }
                        }
                    }
                    synced.clone_from(now);
                }
            }
        }
    }

    /// A copy with a life of its own.
    pub fn fork(&self) -> Self {
        let disk = self.disk.lock();
        let copy = Disk { nodes: disk.nodes.clone(), ..Disk::default() };
        Self { disk: Arc::new(Mutex::new(copy)) }
    }

    /// The content of a file.
    pub fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let mut disk = self.disk.lock();
        let file = disk.find(path)?;
        disk.data(file).cloned()
    }

    /// Puts a file there, durably, with the folders above it; not counted as an operation.
    pub fn put(&self, path: &Path, data: &[u8]) -> io::Result<()> {
        let mut disk = self.disk.lock();
        let mut at = disk.root();
        let mut parts = names(path);
        let name = parts.pop().ok_or(io::ErrorKind::InvalidInput)?;
        for part in parts {
            at = add(&mut disk, at, &part, Node::dir())?;
        }
        let file = add(&mut disk, at, &name, Node::File { now: Vec::new(), synced: Vec::new() })?;
        disk.nodes[file] = Node::File { now: data.to_vec(), synced: data.to_vec() };
        Ok(())
    }
}

/// The entry `name` of a folder, made durably if it is not there.
fn add(disk: &mut Disk, dir: Ino, name: &str, node: Node) -> io::Result<Ino> {
    let new = disk.nodes.len();
    let ino = *disk.entries(dir)?.entry(name.to_owned()).or_insert(new);
    if ino == new {
        disk.nodes.push(node);
    }
    if let Node::Dir { synced, .. } = &mut disk.nodes[dir] {
        synced.insert(name.to_owned(), ino);
    }
    Ok(ino)
}

struct SimFile {
    disk: Arc<Mutex<Disk>>,
    ino: Ino,
}

impl File for SimFile {
    fn write_all_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        let mut disk = self.disk.lock();
        let done = disk.step();
        if done.is_err() && disk.fail.is_some_and(|fail| fail.from == disk.operations) {
            disk.cut_len = Some(data.len());
        }
        let left = disk.fail.and_then(|fail| fail.left).unwrap_or(data.len() / 2).min(data.len());
        let data = if done.is_ok() { data } else { &data[..left] };
        let offset = usize::try_from(offset).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let content = disk.data(self.ino)?;
        if content.len() < offset + data.len() {
            content.resize(offset + data.len(), 0);
        }
        content[offset..offset + data.len()].copy_from_slice(data);
        done
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut disk = self.disk.lock();
        if disk.unreadable.contains(&self.ino) {
            return Err(io::Error::from_raw_os_error(EIO));
        }
        let content = disk.data(self.ino)?;
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(content.len());
        let n = buffer.len().min(content.len() - from);
        buffer[..n].copy_from_slice(&content[from..from + n]);
        Ok(n)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.lock().data(self.ino)?.len() as u64)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        let mut disk = self.disk.lock();
        disk.step()?;
        let len = usize::try_from(len).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let content = disk.data(self.ino)?;
        content.resize(content.len().max(len), 0);
        Ok(())
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        let mut disk = self.disk.lock();
        disk.step()?;
        let len = usize::try_from(len).map_err(|_| io::ErrorKind::FileTooLarge)?;
        disk.data(self.ino)?.resize(len, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut disk = self.disk.lock();
        disk.step()?;
        if let Node::File { now, synced } = &mut disk.nodes[self.ino] {
            synced.clone_from(now);
        }
        Ok(())
    }
}

struct SimLock {
    disk: Arc<Mutex<Disk>>,
    path: PathBuf,
}

impl FileLock for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        self.disk.lock().locks.remove(&self.path);
    }
}

impl Fs for SimFs {
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut disk = self.disk.lock();
        disk.step()?;
        let mut at = disk.root();
        for name in names(path) {
            let new = disk.nodes.len();
            let next = *disk.entries(at)?.entry(name).or_insert(new);
            if next == new {
                disk.nodes.push(Node::dir());
            }
            at = next;
        }
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        let mut disk = self.disk.lock();
        let at = disk.find(dir)?;
        let entries = disk.entries(at)?.clone();
        let entry = |(name, ino): (String, Ino)| match &disk.nodes[ino] {
            Node::Dir { .. } => DirEntry { name, is_dir: true, len: 0 },
            Node::File { now, .. } => DirEntry { name, is_dir: false, len: now.len() as u64 },
        };
        Ok(entries.into_iter().map(entry).collect())
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        Ok(self.disk.lock().find(path).is_ok())
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn File>> {
        let mut disk = self.disk.lock();
        disk.step()?;
        let (parent, name) = disk.parent(path)?;
        let new = disk.nodes.len();
        let ino = *disk.entries(parent)?.entry(name).or_insert(new);
        if ino == new {
            disk.nodes.push(Node::File { now: Vec::new(), synced: Vec::new() });
        }
        disk.data(ino)?.clear();
        Ok(Box::new(SimFile { disk: Arc::clone(&self.disk), ino }))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn File>> {
        let ino = self.disk.lock().find(path)?;
        Ok(Box::new(SimFile { disk: Arc::clone(&self.disk), ino }))
    }

    fn open_write(&self, path: &Path) -> io::Result<Box<dyn File>> {
        self.open(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut disk = self.disk.lock();
        disk.step()?;
        let (old_parent, old_name) = disk.parent(from)?;
        let (new_parent, new_name) = disk.parent(to)?;
        let ino = disk.entries(old_parent)?.remove(&old_name).ok_or(io::ErrorKind::NotFound)?;
        disk.entries(new_parent)?.insert(new_name, ino);
        Ok(())
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut disk = self.disk.lock();
        disk.step()?;
        let ino = disk.find(from)?;
        let (parent, name) = disk.parent(to)?;
        disk.data(ino)?;
        let entries = disk.entries(parent)?;
        if entries.contains_key(&name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        entries.insert(name, ino);
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut disk = self.disk.lock();
        disk.step()?;
        let (parent, name) = disk.parent(path)?;
        disk.entries(parent)?.remove(&name).ok_or(io::ErrorKind::NotFound)?;
        Ok(())
    }

    /// One entry after the other, so that a part is left where one fails.
    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        for entry in self.list(path)? {
            let below = path.join(&entry.name);
            if entry.is_dir { self.remove_dir_all(&below)? } else { self.remove_file(&below)? }
        }
        self.remove_file(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut disk = self.disk.lock();
        disk.step()?;
        let ino = disk.find(path)?;
        if let Node::Dir { now, synced } = &mut disk.nodes[ino] {
            synced.clone_from(now);
        }
        Ok(())
    }

    /// A small one, so that the room kept on it is small as well.
    fn capacity(&self, _: &Path) -> io::Result<u64> {
        Ok(1 << 18)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn FileLock>> {
        if !self.exists(path)? {
            self.create(path)?;
        }
        if !self.disk.lock().locks.insert(path.to_path_buf()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(SimLock { disk: Arc::clone(&self.disk), path: path.to_path_buf() }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_power_cut_goes_back_to_what_was_synced() {
        let fs = SimFs::new();
        let (dir, file) = (Path::new("/d"), Path::new("/d/f"));
        fs.create_dir_all(dir).unwrap();
        fs.sync_dir(Path::new("/")).unwrap();
        let open = fs.create(file).unwrap();
        open.write_all_at(b"abc", 0).unwrap();
        open.sync_data().unwrap();
        let lost = fs.fork();
        lost.cut_power();
        assert!(!lost.exists(file).unwrap(), "its name was not synced");
        fs.sync_dir(dir).unwrap();
        open.write_all_at(b"def", 3).unwrap();
        fs.cut_power();
        assert_eq!(fs.read(file).unwrap(), b"abc");
    }

    #[test]
    fn a_folder_whose_removal_fails_is_left_with_the_rest() {
        let (fs, dir) = (SimFs::new(), Path::new("/d"));
        ["a", "b/c", "e"].iter().for_each(|name| fs.put(&dir.join(name), b"x").unwrap());
        fs.fail_nth(3, 0);
        assert!(fs.remove_dir_all(dir).is_err());
        let left: Vec<String> = fs.list(dir).unwrap().into_iter().map(|entry| entry.name).collect();
        assert_eq!(left, ["b", "e"]);
        fs.remove_dir_all(dir).unwrap();
        assert!(!fs.exists(dir).unwrap());
    }

    #[test]
    fn the_ordered_operation_fails_and_leaves_half_a_write() {
        let fs = SimFs::new();
        let file = fs.create(Path::new("/f")).unwrap();
        fs.fail_nth(2, 0);
        file.write_all_at(b"ab", 0).unwrap();
        assert!(file.write_all_at(b"cdef", 2).is_err());
        assert_eq!((fs.read(Path::new("/f")).unwrap(), fs.cut_len()), (b"abcd".to_vec(), Some(4)));
        file.truncate(2).unwrap();
        assert_eq!(fs.operations(), 4);
    }
}
