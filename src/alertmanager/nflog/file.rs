//! The file `nflog`: a sequence of entries, each behind its length. Changes are appended and synced; at times the whole is
//! written anew under another name and renamed. Alertmanager reads it, as it takes the last entry of each key as well.
//!
//! Invariant: behind `len` stands nothing that was acknowledged, so a failed write is cut off before the next.
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use prost::Message as _;

use crate::alertmanager::nflog::entry::{ENTRY_LEN_MAX, MeshEntry};

/// The file and where its good part ends.
#[derive(Debug)]
pub struct NflogFile {
    folder: PathBuf,
    open: Option<(File, u64)>,
}

/// A tail that was cut off because it holds no entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Where the good part ends.
    pub at: u64,
    /// What was cut.
    pub len: u64,
    /// Why.
    pub reason: String,
}

/// What a file held.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Loaded {
    /// Entries in their order.
    pub entries: Vec<MeshEntry>,
    /// What was no entry.
    pub cut: Option<Cut>,
}

impl NflogFile {
    /// The file in `folder`; nothing is touched yet.
    pub fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), open: None }
    }

    fn path(&self) -> PathBuf {
        self.folder.join("nflog")
    }

    /// Reads the file, or makes an empty one, and cuts off a damaged tail.
    pub fn load(&mut self) -> io::Result<Loaded> {
        fs::create_dir_all(&self.folder)?;
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(self.path())?;
        let total = file.metadata()?.len();
        let (entries, good, reason) = read_entries(&file, total)?;
        let cut = (good < total).then(|| Cut { at: good, len: total - good, reason });
        if cut.is_some() {
            file.set_len(good)?;
            file.sync_all()?;
        }
        sync_folder(&self.folder)?;
        self.open = Some((file, good));
        Ok(Loaded { entries, cut })
    }

    /// Appends entries and syncs them. After an error none of them is in the file.
    pub fn append(&mut self, entries: &[MeshEntry]) -> io::Result<()> {
        if self.open.is_none() {
            self.load()?;
        }
        let Some((file, len)) = &mut self.open else { return Err(io::Error::other("the file is not open")) };
        let bytes = encode(entries)?;
        let written = file.set_len(*len).and_then(|()| file.write_all_at(&bytes, *len)).and_then(|()| file.sync_data());
        match written {
            Ok(()) => {
                *len += bytes.len() as u64;
                Ok(())
            }
            Err(error) => {
                // What a failed sync has left is unknown: the next append cuts it off, or reads the file anew.
                if file.set_len(*len).and_then(|()| file.sync_data()).is_err() {
                    self.open = None;
                }
                Err(error)
            }
        }
    }

    /// Writes the file anew with these entries alone. After an error the old file is as it was. Returns its length.
    pub fn rewrite(&mut self, entries: &[MeshEntry]) -> io::Result<u64> {
        fs::create_dir_all(&self.folder)?;
        let bytes = encode(entries)?;
        let next = self.folder.join("nflog.tmp");
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&next)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(&next, self.path())?;
        let len = bytes.len() as u64;
        self.open = Some((file, len));
        sync_folder(&self.folder)?;
        Ok(len)
    }
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

fn encode(entries: &[MeshEntry]) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    for entry in entries {
        let len = entry.encoded_len();
        if ENTRY_LEN_MAX < len {
            return Err(io::Error::other(format!("an entry of {len} bytes is longer than {ENTRY_LEN_MAX}")));
        }
        bytes.extend(entry.encode_length_delimited_to_vec());
    }
    Ok(bytes)
}

/// The entries, where the last good one ends, and what is wrong behind it.
fn read_entries(file: &File, total: u64) -> io::Result<(Vec<MeshEntry>, u64, String)> {
    let mut reader = BufReader::new(file);
    let (mut entries, mut good) = (Vec::new(), 0u64);
    while good < total {
        let (len, prefix) = match read_len(&mut reader)? {
            Some(read) => read,
            None => return Ok((entries, good, "the length of an entry is cut short or too large".to_owned())),
        };
        let end = good + prefix + len as u64;
        if ENTRY_LEN_MAX < len || total < end {
            return Ok((entries, good, format!("an entry of {len} bytes does not fit")));
        }
        let mut raw = vec![0; len];
        reader.read_exact(&mut raw)?;
        match MeshEntry::decode(raw.as_slice()) {
            Ok(entry) if entry.key().is_some() => entries.push(entry),
            Ok(_) => return Ok((entries, good, "an entry names no receiver".to_owned())),
            Err(error) => return Ok((entries, good, error.to_string())),
        }
        good = end;
    }
    Ok((entries, good, String::new()))
}

/// A length and the bytes that it took; `None` for what is none.
fn read_len(reader: &mut impl io::Read) -> io::Result<Option<(usize, u64)>> {
    let (mut value, mut taken) = (0u64, 0u64);
    loop {
        let mut byte = [0u8];
        if reader.read(&mut byte)? == 0 || 4 < taken {
            return Ok(None);
        }
        let [byte] = byte;
        value |= u64::from(byte & 0x7f) << (7 * taken);
        taken += 1;
        if byte & 0x80 == 0 {
            return Ok(usize::try_from(value).ok().map(|value| (value, taken)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alertmanager::dedup::Hashes;
    use crate::alertmanager::nflog::entry::{EntryKey, Receiver};

    fn entry(group: &str) -> MeshEntry {
        let receiver = Receiver { group_name: "r".to_owned(), integration: "webhook".to_owned(), idx: 0 };
        let key = EntryKey { group_key: group.to_owned(), receiver };
        MeshEntry::told(&key, &Hashes { firing: vec![7; 100], resolved: Vec::new() }, 1, 2)
    }

    #[test]
    fn what_is_appended_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("alertmanager");
        let mut file = NflogFile::new(&folder);
        assert_eq!(file.load().unwrap(), Loaded::default());
        file.append(&[entry("a"), entry("b")]).unwrap();
        file.append(&[entry("a")]).unwrap();
        assert_eq!(NflogFile::new(&folder).load().unwrap().entries, [entry("a"), entry("b"), entry("a")]);
        file.rewrite(&[entry("b")]).unwrap();
        file.append(&[entry("c")]).unwrap();
        assert_eq!(NflogFile::new(&folder).load().unwrap().entries, [entry("b"), entry("c")]);
    }

    /// At whatever byte a crash or damage cuts the file, the entries before are kept and it can be written again.
    #[test]
    fn a_damaged_tail_is_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("nflog");
        let good = encode(&[entry("a"), entry("b")]).unwrap();
        let first = encode(&[entry("a")]).unwrap().len();
        for len in 0..good.len() {
            fs::write(&path, &good[..len]).unwrap();
            let mut file = NflogFile::new(folder.path());
            let loaded = file.load().unwrap();
            let kept = usize::from(first <= len);
            assert_eq!(loaded.entries.len(), kept, "{len}");
            assert_eq!(loaded.cut.is_some(), len != 0 && len != first, "{len}");
            file.append(&[entry("c")]).unwrap();
            assert_eq!(NflogFile::new(folder.path()).load().unwrap().entries.len(), kept + 1, "{len}");
        }
        for tail in [&[0xff; 20][..], &[0, 1, 2], b"\x02\x0a\x00", &[0x80, 0x80, 0x80, 0x7f]] {
            fs::write(&path, [&good[..], tail].concat()).unwrap();
            let loaded = NflogFile::new(folder.path()).load().unwrap();
            assert_eq!((loaded.entries.len(), loaded.cut.map(|cut| cut.at)), (2, Some(good.len() as u64)));
        }
    }

    #[test]
    fn errors_leave_the_file_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let mut file = NflogFile::new(folder.path());
        file.append(&[entry("a")]).unwrap();
        let mut huge = entry("b");
        huge.entry.as_mut().unwrap().group_key = vec![0; ENTRY_LEN_MAX];
        assert!(file.append(&[entry("c"), huge.clone()]).is_err());
        assert!(file.rewrite(&[huge]).is_err());
        assert_eq!(NflogFile::new(folder.path()).load().unwrap().entries, [entry("a")]);
        // A folder that cannot be made: an error each time, and never a panic.
        let mut nowhere = NflogFile::new(&folder.path().join("nflog").join("below"));
        assert!(nowhere.load().is_err() && nowhere.append(&[entry("a")]).is_err());
    }
}
