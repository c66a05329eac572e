//! What waits for a destination and what is under way to it, shard by shard, and how far each shard is.
//!
//! Invariant: items of a series go to one shard and leave it in the order of the log. The cursor is behind an item only
//! when that item was answered for, dropped, or never wanted.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::time::Instant;

use crate::model::append::HistogramValue;
use crate::model::labels::Labels;
use crate::model::sample::SeriesRef;
use crate::remote::send::metrics::{Class, Counts};
use crate::remote::send::reader::SentSeries;
use crate::storage::wal::cursor::{Cursor, Place};

/// One thing to send.
#[derive(Clone, Debug)]
pub struct Item {
    /// Of which series.
    pub series: Arc<SentSeries>,
    /// Its reference in the log, which decides the shard.
    pub reference: SeriesRef,
    /// Where it stands in the log.
    pub place: Place,
    /// Milliseconds since the epoch.
    pub t: i64,
    /// When it began to count, in milliseconds since the epoch; 0 if the log does not say. Version 2 alone sends it.
    pub start: i64,
    /// What it is.
    pub value: ItemValue,
}

/// What an item is.
#[derive(Clone, Debug)]
pub enum ItemValue {
    /// A float sample.
    Float(f64),
    /// A native histogram.
    Histogram(HistogramValue),
    /// An exemplar.
    Exemplar(Arc<SentExemplar>),
}

/// An exemplar.
#[derive(Debug)]
pub struct SentExemplar {
    /// Its own labels.
    pub labels: Labels,
    /// Its value.
    pub value: f64,
}

impl Item {
    /// What it is, as metrics tell.
    pub fn class(&self) -> Class {
        match self.value {
            ItemValue::Float(_) => Class::Sample,
            ItemValue::Exemplar(_) => Class::Exemplar,
            ItemValue::Histogram(_) => Class::Histogram,
        }
    }
}

/// Items that are sent in one request.
#[derive(Debug)]
pub struct Batch {
    /// In the order of the log.
    pub items: Vec<Item>,
    /// Everything of its shard before is in this batch or in one before it.
    end: Place,
}

impl Batch {
    /// How many there are of each class.
    pub fn counts(&self) -> Counts {
        let mut counts = [0; 3];
        for item in &self.items {
            counts[item.class() as usize] += 1;
        }
        counts
    }
}

#[derive(Default)]
struct Shard {
    waiting: VecDeque<Item>,
    /// When the oldest of `waiting` came.
    since: Option<Instant>,
    /// What is under way; a panic leaves it here.
    sending: Option<Arc<Batch>>,
    /// Everything of the shard before was answered for.
    done: Place,
}

impl Shard {
    fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.sending.is_none()
    }
}

/// What is between the log and a destination.
pub struct Flight {
    shards: Vec<Shard>,
    /// Read, and not given to its shard yet as that one is full.
    overflow: VecDeque<Item>,
    /// All items before were given to their shards or stand in `overflow`.
    read: Place,
    capacity: usize,
    /// How many items are held, of each class.
    held: Counts,
}

/// What a shard may do next.
#[derive(Debug)]
pub enum Next {
    /// Send this.
    Send(Arc<Batch>),
    /// Wait until then, or until something comes.
    Wait(Option<Instant>),
}

impl Flight {
    /// An empty one, of `count` shards that take `capacity` items each, for a log that is read on from `cursor`.
    pub fn new(count: usize, capacity: usize, cursor: &Cursor) -> Self {
        let (count, start) = (count.max(1), cursor.start());
        // With another number of shards, what a single one was ahead of the others is not known any more.
        let ahead = |index: usize| cursor.shards.get(index).filter(|_| cursor.shards.len() == count);
        let shard = |index| Shard { done: ahead(index).copied().unwrap_or(start), ..Shard::default() };
        let shards = (0..count).map(shard).collect();
        Self { shards, overflow: VecDeque::new(), read: start, capacity, held: [0; 3] }
    }

    /// How many shards there are.
    pub fn shard_count(&self) -> usize {
        self.shards.len()
    }

    fn shard_of(&self, item: &Item) -> usize {
        usize::try_from(item.reference.0 % self.shards.len() as u64).unwrap_or(0)
    }

    /// Takes what was read, all of the log up to `read`, and gives it to the shards as far as they have room.
    pub fn take(&mut self, items: &mut Vec<Item>, read: Place, now: Instant) {
        for item in items.iter() {
            self.held[item.class() as usize] += 1;
        }
        self.overflow.extend(items.drain(..));
        self.read = read;
        self.distribute(now);
    }

    /// Gives what is left over to the shards, in order; true if nothing is left.
    pub fn distribute(&mut self, now: Instant) -> bool {
        while let Some(item) = self.overflow.front() {
            let index = self.shard_of(item);
            let Some(shard) = self.shards.get_mut(index).filter(|shard| shard.waiting.len() < self.capacity) else {
                return false;
            };
            if let Some(item) = self.overflow.pop_front() {
                shard.since.get_or_insert(now);
                shard.waiting.push_back(item);
            }
        }
        true
    }

    /// What shard `index` may do: a batch when `len_max` items wait, when the oldest has waited for `patience`, or when all
    /// are to go at once.
    pub fn next(
        &mut self,
        index: usize,
        len_max: usize,
        patience: std::time::Duration,
        now: Instant,
        flush: bool,
    ) -> Next {
        let Some(shard) = self.shards.get_mut(index) else { return Next::Wait(None) };
        if let Some(batch) = &shard.sending {
            return Next::Send(Arc::clone(batch));
        }
        let Some(since) = shard.since.filter(|_| !shard.waiting.is_empty()) else { return Next::Wait(None) };
        let due = since.checked_add(patience).unwrap_or(since);
        if shard.waiting.len() < len_max && now < due && !flush {
            return Next::Wait(Some(due));
        }
        let len = shard.waiting.len().min(len_max);
        let items: Vec<Item> = shard.waiting.drain(..len).collect();
        // Those that are left have waited less; they are given the whole time again, as in Prometheus.
        shard.since = (!shard.waiting.is_empty()).then_some(now);
        let end = items.last().map_or(shard.done, |item| item.place.next());
        let batch = Arc::new(Batch { items, end });
        shard.sending = Some(Arc::clone(&batch));
        Next::Send(batch)
    }

    /// The batch of a shard was answered for.
    pub fn finish(&mut self, index: usize) {
        if let Some(shard) = self.shards.get_mut(index)
            && let Some(batch) = shard.sending.take()
        {
            shard.done = shard.done.max(batch.end);
            self.held.iter_mut().zip(batch.counts()).for_each(|(held, sent)| *held = held.saturating_sub(sent));
        }
    }

    /// All items before are in hand or done.
    pub fn read(&self) -> Place {
        self.read
    }

    /// True if nothing waits and nothing is under way.
    pub fn is_empty(&self) -> bool {
        self.overflow.is_empty() && self.shards.iter().all(Shard::is_idle)
    }

    /// True if shard `index` has nothing.
    pub fn is_idle(&self, index: usize) -> bool {
        self.shards.get(index).is_none_or(Shard::is_idle)
    }

    /// True if a request of the shard is under way.
    pub fn is_sending(&self) -> bool {
        self.shards.iter().any(|shard| shard.sending.is_some())
    }

    /// How many items are held, of each class.
    pub fn pending(&self) -> Counts {
        self.held
    }

    /// How many items that are held stand before `place`.
    pub fn held_before(&self, place: Place) -> u64 {
        let waiting = self.shards.iter().flat_map(|shard| &shard.waiting);
        let sending = self.shards.iter().filter_map(|shard| shard.sending.as_ref()).flat_map(|batch| &batch.items);
        waiting.chain(sending).chain(&self.overflow).filter(|item| item.place < place).count() as u64
    }

    /// How far all shards are.
    pub fn cursor(&self) -> Cursor {
        let place = |shard: &Shard| if shard.is_idle() { shard.done.max(self.read) } else { shard.done };
        let mut shards: Vec<Place> = self.shards.iter().map(place).collect();
        for item in &self.overflow {
            let index = self.shard_of(item);
            if let Some(place) = shards.get_mut(index) {
                *place = (*place).min(item.place);
            }
        }
        // After a restart a shard may be ahead of what was read again so far.
        let read = shards.iter().copied().max().unwrap_or_default().max(self.read);
        Cursor { read, shards }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::remote::send::reader::SentLabels;

    fn item(reference: u64, index: u64) -> Item {
        let series = Arc::new(SentSeries { labels: SentLabels::V1(Box::default()), metadata: None });
        let place = Place { segment: 1, offset: 100, index };
        Item { series, reference: SeriesRef(reference), place, t: 0, start: 0, value: ItemValue::Float(0.0) }
    }

    fn end(offset: u64) -> Place {
        Place { segment: 1, offset, index: 0 }
    }

    fn places(next: Next) -> Vec<u64> {
        match next {
            Next::Send(batch) => batch.items.iter().map(|item| item.place.index).collect(),
            Next::Wait(_) => Vec::new(),
        }
    }

    #[tokio::test]
    async fn the_cursor_follows_each_shard() {
        let now = Instant::now();
        let mut flight = Flight::new(2, 3, &Cursor::at(end(0)));
        // Seven items of series 1 and 2 by turns: the fourth of shard 1 finds no room, and holds the others up.
        let mut items: Vec<Item> = [1, 2, 1, 1, 1, 2, 1].into_iter().zip(0..).map(|(r, i)| item(r, i)).collect();
        flight.take(&mut items, end(200), now);
        assert_eq!(flight.pending(), [7, 0, 0]);
        let wait = Duration::from_secs(5);
        assert!(matches!(flight.next(0, 2, wait, now, false), Next::Wait(Some(due)) if due == now + wait));
        assert_eq!(places(flight.next(1, 2, wait, now, false)), [0, 2]);
        assert_eq!(places(flight.next(1, 2, wait, now, false)), [0, 2], "what is under way stays so");
        let cursor = flight.cursor();
        assert_eq!((cursor.read, cursor.shards), (end(200), vec![end(0), end(0)]));
        flight.finish(1);
        assert!(flight.distribute(now));
        let at = |index| Place { index, ..end(100) };
        assert_eq!(flight.cursor().shards, [end(0), at(3)]);
        assert_eq!(places(flight.next(0, 2, wait, now + wait, false)), [1, 5]);
        flight.finish(0);
        assert_eq!(flight.cursor().shards, [end(200), at(3)]);
        assert_eq!(flight.held_before(at(5)), 2);
        assert_eq!(places(flight.next(1, 9, wait, now, true)), [3, 4, 6]);
        flight.finish(1);
        assert!(flight.is_empty());
        assert_eq!(flight.cursor(), Cursor { read: end(200), shards: vec![end(200), end(200)] });
    }

    #[tokio::test]
    async fn a_restart_begins_where_each_shard_was() {
        let now = Instant::now();
        let mut flight = Flight::new(2, 10, &Cursor::at(end(0)));
        let mut items: Vec<Item> = (0..10).map(|i| item(i % 3, i)).collect();
        flight.take(&mut items, end(200), now);
        let patience = Duration::ZERO;
        let mut sent = places(flight.next(0, 2, patience, now, false));
        flight.finish(0);
        sent.extend(places(flight.next(1, 1, patience, now, false)));
        flight.finish(1);
        let cursor = flight.cursor();
        let rest = (0..10).filter(|i| !cursor.is_done(SeriesRef(i % 3), Place { index: *i, ..end(100) }));
        let mut all: Vec<u64> = rest.chain(sent).collect();
        all.sort_unstable();
        assert_eq!(all, (0..10).collect::<Vec<_>>());
        // One that has sent nothing yet leaves the cursor as it was.
        assert_eq!(Flight::new(2, 10, &cursor).cursor().shards, cursor.shards);
        let start = cursor.start();
        assert_eq!(Flight::new(3, 10, &cursor).cursor(), Cursor { read: start, shards: vec![start; 3] });
    }
}
