//! The queries under way, in a file for whoever asks after a crash which of them it was. Prometheus's `queries.active`: a
//! `[`, then a slot of 1,000 bytes for each query that may run, JSON and a comma, or zeros.
//!
//! No actor: queries enter and leave in memory, and a thread of its own writes the slots that have changed, so that a disk
//! that hangs holds no query up. What comes and goes within [`GATHER`] is never written. Bound: the slots; a query that
//! finds none free is not noted. Failure: writes that fail are logged and left. Shutdown: the thread writes what is left.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::actors::go_io::reason;
use crate::model::clock::SharedClock;
use crate::telemetry::repeat::{RepeatLimiter, Verdict};

/// The file's name in the data directory.
pub const FILE_NAME: &str = "queries.active";
const SLOT_LEN: usize = 1000;
/// How long a query runs before it is written.
const GATHER: Duration = Duration::from_millis(2);
/// How long the end of the process waits for the disk.
const CLOSE_WITHIN: Duration = Duration::from_secs(2);

/// The queries under way.
pub struct ActiveQueries {
    shared: Arc<Shared>,
    clock: SharedClock,
}

/// A query's place; given back on drop.
pub struct ActiveQuery {
    shared: Arc<Shared>,
    slot: usize,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    slots: Vec<Slot>,
    free: Vec<usize>,
    is_dirty: bool,
    is_closed: bool,
    /// The thread has written everything and has ended.
    is_done: bool,
}

#[derive(Default)]
struct Slot {
    entry: Option<Vec<u8>>,
    is_dirty: bool,
    /// The file's slot holds something.
    is_written: bool,
}

impl ActiveQueries {
    /// Tells in the log which queries did not end in the last run, makes the file anew for `slot_count` queries and starts
    /// the thread. The error is what the operator reads.
    pub fn open(folder: &Path, slot_count: usize, clock: SharedClock) -> Result<Self, String> {
        let path = folder.join(FILE_NAME);
        let file_len = 1 + slot_count * SLOT_LEN;
        tell_unfinished(&path, file_len);
        let in_go = |action: &str, error: &io::Error| format!("{action} {}: {}", path.display(), reason(error));
        let failed = |text: String| format!("create active query log: {text}");
        let mut options = OpenOptions::new();
        let file = options.create(true).read(true).write(true).truncate(true).open(&path);
        let file = file.map_err(|error| failed(in_go("open", &error)))?;
        let mut empty = vec![0; file_len];
        empty[0] = b'[';
        let written = file.write_all_at(&empty, 0).and_then(|()| file.sync_all());
        written.map_err(|error| failed(in_go("write", &error)))?;
        let slots: Vec<Slot> = (0..slot_count).map(|_| Slot::default()).collect();
        let free = (0..slot_count).rev().collect();
        let state = State { slots, free, is_dirty: false, is_closed: false, is_done: false };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
        let (for_thread, its_clock) = (Arc::clone(&shared), SharedClock::clone(&clock));
        let thread = std::thread::Builder::new().name("active-queries".to_owned());
        thread
            .spawn(move || for_thread.write_changes(&file, &its_clock))
            .map_err(|error| failed(format!("cannot start a thread: {error}")))?;
        Ok(Self { shared, clock })
    }

    /// Notes a query for as long as the answer is held. `None` if all places are taken.
    pub fn enter(&self, query: &str) -> Option<ActiveQuery> {
        let entry = encode(query, self.clock.now().0.div_euclid(1000));
        let mut state = self.shared.state.lock();
        let slot = state.free.pop()?;
        state.set(slot, Some(entry));
        drop(state);
        self.shared.changed.notify_one();
        Some(ActiveQuery { shared: Arc::clone(&self.shared), slot })
    }

    /// Ends the thread when it has written what is left, or leaves it to a disk that hangs.
    pub fn close(&self) {
        let mut state = self.shared.state.lock();
        state.is_closed = true;
        self.shared.changed.notify_all();
        self.shared.changed.wait_while_for(&mut state, |state| !state.is_done, CLOSE_WITHIN);
    }
}

impl Drop for ActiveQueries {
    fn drop(&mut self) {
        self.shared.state.lock().is_closed = true;
        self.shared.changed.notify_all();
    }
}

impl Drop for ActiveQuery {
    fn drop(&mut self) {
        let mut state = self.shared.state.lock();
        state.set(self.slot, None);
        state.free.push(self.slot);
        drop(state);
        self.shared.changed.notify_one();
    }
}

impl State {
    fn set(&mut self, slot: usize, entry: Option<Vec<u8>>) {
        if let Some(slot) = self.slots.get_mut(slot) {
            slot.entry = entry;
            slot.is_dirty = true;
            self.is_dirty = true;
        }
    }

    /// What is to be written: offsets and contents.
    fn take_changes(&mut self) -> Vec<(u64, Vec<u8>)> {
        self.is_dirty = false;
        let mut changes = Vec::new();
        for (index, slot) in self.slots.iter_mut().enumerate().filter(|(_, slot)| slot.is_dirty) {
            slot.is_dirty = false;
            if slot.entry.is_none() && !slot.is_written {
                continue;
            }
            slot.is_written = slot.entry.is_some();
            let mut bytes = slot.entry.clone().unwrap_or_default();
            bytes.resize(SLOT_LEN, 0);
            if slot.is_written {
                bytes[SLOT_LEN - 1] = b',';
            }
            changes.push((1 + (index * SLOT_LEN) as u64, bytes));
        }
        changes
    }
}

impl Shared {
    fn write_changes(&self, file: &File, clock: &SharedClock) {
        let mut limiter = RepeatLimiter::default();
        loop {
            let mut state = self.state.lock();
            self.changed.wait_while(&mut state, |state| !state.is_dirty && !state.is_closed);
            // Most queries end before they would be written.
            self.changed.wait_while_for(&mut state, |state| !state.is_closed, GATHER);
            let (changes, is_closed) = (state.take_changes(), state.is_closed);
            drop(state);
            for (at, bytes) in changes {
                let Err(error) = file.write_all_at(&bytes, at) else { continue };
                if let Verdict::Log { repeated } = limiter.failed(&error.to_string(), clock.monotonic()) {
                    let message = "Cannot write the log of active queries";
                    tracing::error!(component = "activeQueryTracker", err = %error, repeated, "{message}");
                }
            }
            if is_closed {
                self.state.lock().is_done = true;
                self.changed.notify_all();
                return;
            }
        }
    }
}

/// Logs what a former process has left in the file.
fn tell_unfinished(path: &Path, file_len: usize) {
    let component = "activeQueryTracker";
    let mut left = Vec::new();
    let read = File::open(path).and_then(|file| file.take(file_len as u64).read_to_end(&mut left));
    match read {
        Ok(_) => {
            if let Some(queries) = unfinished(&left) {
                tracing::info!(component, queries, "These queries didn't finish in prometheus' last run:");
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(err) => tracing::error!(component, %err, "Failed to read query log file"),
    }
}

/// The entries of a file as one JSON list, if there are any.
fn unfinished(file: &[u8]) -> Option<String> {
    let mut text: Vec<u8> = file.iter().copied().filter(|byte| *byte != 0).collect();
    if text.len() <= 1 {
        return None;
    }
    text.pop();
    text.push(b']');
    Some(String::from_utf8_lossy(&text).into_owned())
}

/// An entry that fits a slot: a query that is too long is cut at a character.
fn encode(query: &str, at_s: i64) -> Vec<u8> {
    let write = |query: &str| format!("{{\"query\":{},\"timestamp_sec\":{at_s}}}", json_string(query));
    let room = SLOT_LEN - 1;
    let mut len = query.floor_char_boundary(room.saturating_sub(write("").len()));
    loop {
        let entry = write(&query[..len]);
        if entry.len() <= room {
            return entry.into_bytes();
        }
        // Escapes take more room than what they stand for.
        len = query.floor_char_boundary(len.saturating_sub((entry.len() - room).div_ceil(6)));
    }
}

/// A string as Go writes it in JSON.
fn json_string(text: &str) -> String {
    let quoted = serde_json::Value::from(text).to_string();
    let escaped = quoted.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026");
    escaped.replace('\u{2028}', "\\u2028").replace('\u{2029}', "\\u2029")
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::model::clock::ManualClock;
    use crate::model::time::TimestampMs;

    fn open(folder: &Path, slots: usize) -> ActiveQueries {
        let clock: SharedClock = ManualClock::at(TimestampMs(1_700_000_000_000));
        ActiveQueries::open(folder, slots, clock).unwrap()
    }

    #[track_caller]
    fn eventually(folder: &Path, is_met: impl Fn(&[u8]) -> bool) -> Vec<u8> {
        let began = Instant::now();
        loop {
            let file = std::fs::read(folder.join(FILE_NAME)).unwrap();
            if is_met(&file) {
                return file;
            }
            assert!(began.elapsed() < Duration::from_secs(60), "{:?}", unfinished(&file));
            std::thread::yield_now();
        }
    }

    #[test]
    fn the_file_is_prometheus_s() {
        let folder = tempfile::tempdir().unwrap();
        let active = open(folder.path(), 3);
        let (_one, two) = (active.enter("up < 1").unwrap(), active.enter("b").unwrap());
        let file = eventually(folder.path(), |file| file[1000] == b',' && file[2000] == b',');
        assert_eq!(file.len(), 3001);
        let first = br#"{"query":"up \u003c 1","timestamp_sec":1700000000}"#;
        assert_eq!((&file[..1], &file[1..=first.len()]), (&b"["[..], &first[..]));
        assert!(file[1 + first.len()..1000].iter().chain(&file[2001..]).all(|byte| *byte == 0));
        assert!(active.enter("c").is_some_and(|_c| active.enter("d").is_none()));
        drop(two);
        eventually(folder.path(), |file| file[1001..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn what_did_not_end_is_found_by_the_next_process() {
        let folder = tempfile::tempdir().unwrap();
        let active = open(folder.path(), 2);
        let (_a, _b) = (active.enter("a"), active.enter("b"));
        active.close();
        let file = std::fs::read(folder.path().join(FILE_NAME)).unwrap();
        let expected = r#"[{"query":"a","timestamp_sec":1700000000},{"query":"b","timestamp_sec":1700000000}]"#;
        assert_eq!(unfinished(&file).unwrap(), expected);
        let again = open(folder.path(), 1);
        again.close();
        assert_eq!(unfinished(&std::fs::read(folder.path().join(FILE_NAME)).unwrap()), None);
    }

    #[test]
    fn long_queries_are_cut_at_a_character() {
        for query in ["é".repeat(1000), "\"\u{1}<".repeat(900), "x".repeat(949), "y".repeat(5000)] {
            let entry = encode(&query, 1_700_000_000);
            assert!(entry.len() <= 999);
            let read: serde_json::Value = serde_json::from_slice(&entry).unwrap();
            let kept = read["query"].as_str().unwrap();
            assert!(query.starts_with(kept) && kept.len() > 150, "{}", kept.len());
        }
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_named() {
        let error = ActiveQueries::open(Path::new("/nowhere"), 1, ManualClock::at(TimestampMs(0))).err().unwrap();
        assert_eq!(error, "create active query log: open /nowhere/queries.active: no such file or directory");
    }
}
