//! Reads a segment ahead of whoever takes its records in: a thread reads, checks and decompresses them while those before are taken
//! in. What is read ahead is bounded: two batches, and the one that is being taken in.

#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

use std::io;
use std::ops::Range;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::Builder;

use crate::storage::wal::fragment::Compression;
use crate::storage::wal::reader::{Damage, Inflater, Item, SegmentReader};
use crate::storage::wal::record::RecordError;

/// Bytes of a segment for which a thread is worth it; few in tests, so that there are some.
const AHEAD_LEN_MIN: u64 = if cfg!(test) { 1 << 10 } else { 1 << 20 };
/// Decompressed bytes of a batch, beyond which no further record is added.
const BATCH_LEN: usize = if cfg!(test) { 1 << 10 } else { 256 << 10 };

/// What stands next in a segment.
pub(super) enum Inflated<'a> {
    /// A record: where it begins and ends, how it is compressed, and its decompressed bytes.
    Record { offset: u64, end: u64, compression: Compression, bytes: Result<&'a [u8], RecordError> },
    /// Something else.
    Damage(Damage),
}

/// Calls `take` with all that the rest of a segment holds, in its order. Errors when the file cannot be read.
pub(super) fn each_record(
    mut reader: SegmentReader,
    inflater: &mut Inflater,
    take: &mut dyn FnMut(Inflated<'_>),
) -> io::Result<()> {
    if AHEAD_LEN_MIN <= reader.rest_len() {
        let read_from = &mut reader;
        let begun = std::thread::scope(|scope| {
            let (to, batches) = sync_channel::<io::Result<Batch>>(1);
            let (to_fill, emptied) = sync_channel::<Batch>(2);
            let ahead = Builder::new().name("wal-read".to_owned());
            let ahead = ahead.spawn_scoped(scope, move || read_ahead(read_from, &to, &emptied));
            ahead.ok().map(|_| take_all(&batches, &to_fill, take))
        });
        if let Some(done) = begun {
            return done;
        }
        // There is no thread to be had, and nothing was read.
    }
    while let Some(item) = reader.next_item()? {
        take(match item {
            Item::Damage(damage) => Inflated::Damage(damage),
            Item::Record { offset, end, compression, data } => {
                Inflated::Record { offset, end, compression, bytes: inflater.inflate(compression, data) }
            }
        });
    }
    Ok(())
}

/// Records that stand behind each other.
#[derive(Default)]
struct Batch {
    /// Decompressed bytes, up to `used`; what is behind is room.
    bytes: Vec<u8>,
    used: usize,
    found: Vec<Found>,
}

enum Found {
    Record { offset: u64, end: u64, compression: Compression, bytes: Result<Range<usize>, RecordError> },
    Damage(Damage),
}

/// Ends early when nobody takes what is read: whoever did is gone, and has told why.
fn read_ahead(reader: &mut SegmentReader, to: &SyncSender<io::Result<Batch>>, emptied: &Receiver<Batch>) {
    let (mut inflater, mut batch) = (Inflater::default(), Batch::default());
    loop {
        let read = batch.add_next(reader, &mut inflater);
        let is_last = !matches!(read, Ok(true));
        if is_last || BATCH_LEN <= batch.used {
            let next = emptied.try_recv().unwrap_or_default();
            if to.send(Ok(std::mem::replace(&mut batch, next))).is_err() {
                return;
            }
        }
        if is_last {
            if let Err(error) = read {
                let _ = to.send(Err(error));
            }
            return;
        }
    }
}

fn take_all(
    batches: &Receiver<io::Result<Batch>>,
    to_fill: &SyncSender<Batch>,
    take: &mut dyn FnMut(Inflated<'_>),
) -> io::Result<()> {
    // It ends with the thread that reads.
    for batch in batches {
        let mut batch = batch?;
        batch.take_all(take);
        // At the end nobody fills it.
        let _ = to_fill.try_send(batch);
    }
    Ok(())
}

impl Batch {
    /// Adds what the reader finds next; false at the end.
    fn add_next(&mut self, reader: &mut SegmentReader, inflater: &mut Inflater) -> io::Result<bool> {
        let Some(item) = reader.next_item()? else { return Ok(false) };
        self.found.push(match item {
            Item::Damage(damage) => Found::Damage(damage),
            Item::Record { offset, end, compression, data } => {
                let from = self.used;
                let inflated = inflater.inflate_to(compression, data, (&mut self.bytes, from));
                self.used = *inflated.as_ref().unwrap_or(&from);
                Found::Record { offset, end, compression, bytes: inflated.map(|to| from..to) }
            }
        });
        Ok(true)
    }

    /// Leaves it empty.
    fn take_all(&mut self, take: &mut dyn FnMut(Inflated<'_>)) {
        for found in self.found.drain(..) {
            take(match found {
                Found::Damage(damage) => Inflated::Damage(damage),
                Found::Record { offset, end, compression, bytes } => {
                    let bytes = bytes.map(|range| self.bytes.get(range).unwrap_or_default());
                    Inflated::Record { offset, end, compression, bytes }
                }
            });
        }
        self.used = 0;
        // One of a long record is not kept.
        self.bytes.truncate(2 * BATCH_LEN);
        self.bytes.shrink_to(2 * BATCH_LEN);
    }
}
