//! The newest entry of each group and receiver, and which of them the file has.

use std::collections::BTreeMap;

use crate::alertmanager::nflog::entry::{EntryKey, MeshEntry};

/// An entry may be kept for so long: five days, as in Alertmanager.
pub const RETENTION_NANOS: i64 = 120 * 3600 * 1_000_000_000;

#[derive(Clone, Debug)]
struct Held {
    entry: MeshEntry,
    /// It is in the file, synced.
    durable: bool,
}

/// What was told.
#[derive(Clone, Debug, Default)]
pub struct Log {
    entries: BTreeMap<EntryKey, Held>,
}

impl Log {
    /// Takes what was read from a file, in its order: later entries replace earlier ones. Returns how many entries are not
    /// needed any more, so whether the file should be rewritten.
    pub fn load(&mut self, read: Vec<MeshEntry>, now_nanos: i64) -> usize {
        let count = read.len();
        for entry in read {
            let Some(key) = entry.key() else { continue };
            self.entries.insert(key, Held { entry, durable: true });
        }
        self.expire(now_nanos);
        count.saturating_sub(self.entries.len())
    }

    /// The entry of a key, and whether it is in the file.
    pub fn get(&self, key: &EntryKey) -> Option<(&MeshEntry, bool)> {
        self.entries.get(key).map(|held| (&held.entry, held.durable))
    }

    /// Notes what was told, before it is in the file: should that fail, nobody is told again, but it is not done either.
    pub fn put(&mut self, entry: MeshEntry) {
        if let Some(key) = entry.key() {
            self.entries.insert(key, Held { entry, durable: false });
        }
    }

    /// The file has the entry.
    pub fn stored(&mut self, entry: &MeshEntry) {
        if let Some(held) = entry.key().and_then(|key| self.entries.get_mut(&key)) {
            held.durable |= held.entry == *entry;
        }
    }

    /// Forgets entries whose time is over.
    pub fn expire(&mut self, now_nanos: i64) {
        self.entries.retain(|_, held| !held.entry.has_expired(now_nanos));
    }

    /// All entries, for a new file.
    pub fn all(&self) -> Vec<MeshEntry> {
        self.entries.values().map(|held| held.entry.clone()).collect()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True if there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alertmanager::dedup::Hashes;
    use crate::alertmanager::nflog::entry::Receiver;

    fn entry(group: &str, at: i64, keep: i64) -> MeshEntry {
        let key = EntryKey { group_key: group.to_owned(), receiver: Receiver::default() };
        MeshEntry::told(&key, &Hashes::default(), at, keep)
    }

    #[test]
    fn the_last_entry_of_a_file_counts() {
        let mut log = Log::default();
        let superseded = log.load(vec![entry("a", 5, 100), entry("b", 1, 2), entry("a", 3, 100)], 50);
        assert_eq!((superseded, log.len()), (2, 1));
        let key = entry("a", 0, 0).key().unwrap();
        assert_eq!(log.get(&key), Some((&entry("a", 3, 100), true)));
    }

    #[test]
    fn entries_count_at_once_and_are_durable_once_stored() {
        let mut log = Log::default();
        let (first, second) = (entry("a", 1, 100), entry("a", 2, 100));
        log.put(first.clone());
        log.put(second.clone());
        log.stored(&first);
        let key = second.key().unwrap();
        assert_eq!(log.get(&key), Some((&second, false)));
        log.stored(&second);
        assert_eq!(log.get(&key), Some((&second, true)));
        log.expire(102);
        assert!(log.is_empty());
    }
}
