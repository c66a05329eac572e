//! The newest exemplars of all series: a ring of bounded length, from which a new one takes the place of the oldest.
//!
//! ```text
//! slots    exemplar, series, previous and next of the series │ …      in the order in which they came; `next` is the oldest
//! series   labels, oldest, newest │ …                                 by time; places are used again
//! lookup   hash of labels → place of the series
//! ```
//! One ring serves all shards, as its bound and its order are those of the whole head: a ring for each shard would drop
//! exemplars of a busy shard while another has old ones. It lies behind one lock, beside the shards: a shard that panics or is
//! rebuilt loses none of them. The lock is held for one exemplar; a reader holds it for [`STEP_LEN`] series, or for the
//! exemplars of one, and matches labels without it. Nothing in here panics on input: a place that does not exist is nothing.
//!
//! The rules are those of Prometheus's circular exemplar storage: of a series an exemplar must not be older than the newest by
//! more than the window for late ones; of the same time they come by value, then by the hash of their labels.
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use hashbrown::HashTable;
use parking_lot::Mutex;

use crate::model::exemplar::{Exemplar, ExemplarRejection, SeriesExemplars};
use crate::model::labels::Labels;
use crate::model::matcher::Matcher;
use crate::storage::head::shared::count;

/// Series that are looked at under one hold of the lock.
const STEP_LEN: usize = 1024;
/// Most exemplars that a ring holds: places are 32 bits wide.
const CAPACITY_MAX: usize = u32::MAX as usize - 1;
/// No place.
const NONE: u32 = u32::MAX;

/// Figures of the ring, for `prometheus_tsdb_exemplar_*`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ExemplarStats {
    /// Exemplars stored since the process started.
    pub appended: u64,
    /// Exemplars that came too late.
    pub out_of_order: u64,
    /// Exemplars held.
    pub held: u64,
    /// Series of which some are held.
    pub series: u64,
    /// Time of the one that came first, in milliseconds; 0 without any.
    pub oldest_at: i64,
    /// Exemplars that may be held.
    pub capacity: u64,
}

/// What is to become of an exemplar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Store,
    /// It is there already, or nothing is stored.
    Skip,
}

/// The exemplars of a head; see the module's text.
#[derive(Debug, Default)]
pub struct Exemplars {
    ring: Mutex<Ring>,
    /// That of the ring, to be read without the lock.
    capacity: AtomicUsize,
    appended: AtomicU64,
    out_of_order: AtomicU64,
}

#[derive(Debug, Default)]
struct Ring {
    capacity: usize,
    window_ms: i64,
    slots: Vec<Slot>,
    /// Where the next one goes once all slots are taken: the oldest.
    next: usize,
    series: Vec<Option<Series>>,
    free: Vec<u32>,
    lookup: HashTable<u32>,
}

#[derive(Debug)]
struct Slot {
    exemplar: Exemplar,
    series: u32,
    previous: u32,
    next: u32,
}

#[derive(Debug)]
struct Series {
    labels: Labels,
    hash: u64,
    oldest: u32,
    newest: u32,
}

/// Bytes of an exemplar without its labels' text, and of a series that has some.
#[cfg(test)]
pub(crate) const SIZES: (usize, usize) = (size_of::<Slot>(), size_of::<Option<Series>>());

impl Exemplars {
    /// From now on at most `capacity` exemplars are held, the newest of those that are there; none for 0. Returns how many
    /// stayed.
    pub fn resize(&self, capacity: usize) -> usize {
        let capacity = capacity.min(CAPACITY_MAX);
        let mut ring = self.ring.lock();
        if ring.capacity != capacity {
            ring.resize(capacity);
            self.capacity.store(capacity, Ordering::Relaxed);
        }
        ring.slots.len()
    }

    /// How much older than the newest of its series an exemplar may be.
    pub fn set_window(&self, window_ms: i64) {
        self.ring.lock().window_ms = window_ms.max(0);
    }

    /// Whether any exemplar is stored.
    pub fn is_enabled(&self) -> bool {
        0 < self.capacity()
    }

    /// How many may be held.
    pub fn capacity(&self) -> usize {
        self.capacity.load(Ordering::Relaxed)
    }

    /// Checks an exemplar of the series with these labels against those that are there.
    pub(crate) fn check(&self, series: &Labels, hash: u64, new: &Exemplar) -> Result<Verdict, ExemplarRejection> {
        let ring = self.ring.lock();
        let place = ring.find(series, hash);
        ring.check(place, new)
    }

    /// Stores an exemplar unless it is late by now; one that was stored meanwhile is passed over.
    pub(crate) fn add(&self, series: &Labels, hash: u64, new: &Exemplar) {
        match self.ring.lock().add(series, hash, new) {
            Ok(Verdict::Store) => count(&self.appended, 1),
            Ok(Verdict::Skip) => {}
            Err(ExemplarRejection::OutOfOrder) => count(&self.out_of_order, 1),
            Err(ExemplarRejection::LabelsTooLong | ExemplarRejection::UnknownSeries) => {}
        }
    }

    /// The exemplars of `from ..= to` of the series that fulfil all matchers of any of the selectors, sorted by labels. What
    /// comes in meanwhile may be missing.
    pub fn select(&self, selectors: &[Vec<Matcher>], from: i64, to: i64) -> Vec<SeriesExemplars> {
        let is_wanted = |labels: &Labels| {
            selectors.iter().any(|matchers| matchers.iter().all(|matcher| matcher.matches_labels(labels)))
        };
        let mut wanted: Vec<(Labels, u64)> = Vec::new();
        let mut at = 0;
        loop {
            let Some(step) = self.ring.lock().step(at, from, to) else { break };
            at += STEP_LEN;
            wanted.extend(step.into_iter().filter(|(labels, _)| is_wanted(labels)));
        }
        let found = wanted.into_iter().map(|(series, hash)| {
            let exemplars = self.ring.lock().between(&series, hash, from, to);
            SeriesExemplars { series, exemplars }
        });
        let mut found: Vec<_> = found.filter(|found| !found.exemplars.is_empty()).collect();
        found.sort_by(|a, b| a.series.cmp(&b.series));
        found
    }

    /// Its figures.
    pub fn stats(&self) -> ExemplarStats {
        let ring = self.ring.lock();
        let number = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        ExemplarStats {
            appended: self.appended.load(Ordering::Relaxed),
            out_of_order: self.out_of_order.load(Ordering::Relaxed),
            held: number(ring.slots.len()),
            series: number(ring.lookup.len()),
            oldest_at: ring.slots.get(ring.oldest()).map_or(0, |slot| slot.exemplar.at.0),
            capacity: number(ring.capacity),
        }
    }
}

impl Ring {
    fn slot(&self, at: u32) -> Option<&Slot> {
        self.slots.get(at as usize)
    }

    fn slot_mut(&mut self, at: u32) -> Option<&mut Slot> {
        self.slots.get_mut(at as usize)
    }

    fn series(&self, place: u32) -> Option<&Series> {
        self.series.get(place as usize)?.as_ref()
    }

    fn series_mut(&mut self, place: u32) -> Option<&mut Series> {
        self.series.get_mut(place as usize)?.as_mut()
    }

    fn time(&self, at: u32) -> Option<i64> {
        self.slot(at).map(|slot| slot.exemplar.at.0)
    }

    /// The slot that came first.
    fn oldest(&self) -> usize {
        if self.slots.len() < self.capacity { 0 } else { self.next }
    }

    fn find(&self, labels: &Labels, hash: u64) -> Option<u32> {
        let is_it = |place: &u32| self.series(*place).is_some_and(|s| s.hash == hash && s.labels == *labels);
        self.lookup.find(hash, is_it).copied()
    }

    fn check(&self, place: Option<u32>, new: &Exemplar) -> Result<Verdict, ExemplarRejection> {
        if self.capacity == 0 {
            return Ok(Verdict::Skip);
        }
        if !new.fits() {
            return Err(ExemplarRejection::LabelsTooLong);
        }
        let newest = place.and_then(|place| self.slot(self.series(place)?.newest));
        let Some(newest) = newest.map(|slot| &slot.exemplar) else { return Ok(Verdict::Store) };
        if newest.repeats(new) {
            return Ok(Verdict::Skip);
        }
        let (at, last) = (new.at.0, newest.at.0);
        let is_late = at < last && at <= last.saturating_sub(self.window_ms);
        let is_smaller = at == last
            && (new.value < newest.value || new.value == newest.value && new.labels.hash64() < newest.labels.hash64());
        if is_late || is_smaller { Err(ExemplarRejection::OutOfOrder) } else { Ok(Verdict::Store) }
    }

    fn add(&mut self, labels: &Labels, hash: u64, new: &Exemplar) -> Result<Verdict, ExemplarRejection> {
        let known = self.find(labels, hash);
        if self.check(known, new)? == Verdict::Skip {
            return Ok(Verdict::Skip);
        }
        let t = new.at.0;
        if let Some(place) = known
            && self.is_between(place, t)
            && self.before(place, t).and_then(|at| self.time(at)) == Some(t)
        {
            // Native histograms have several of a time; comparing with all would take too long.
            return Ok(Verdict::Skip);
        }
        let place = known.unwrap_or_else(|| self.new_series(labels, hash));
        let slot = Slot { exemplar: new.clone(), series: place, previous: NONE, next: NONE };
        let at = if self.slots.len() < self.capacity {
            self.slots.push(slot);
            u32::try_from(self.slots.len() - 1).unwrap_or(NONE)
        } else {
            let at = u32::try_from(self.next).unwrap_or(NONE);
            self.unlink(at, Some(place));
            if let Some(old) = self.slot_mut(at) {
                *old = slot;
            }
            self.next = (self.next + 1) % self.capacity.max(1);
            at
        };
        self.link(at, place, t);
        Ok(Verdict::Store)
    }

    /// Whether a time is not before the oldest of the series and before its newest.
    fn is_between(&self, place: u32, t: i64) -> bool {
        let Some(series) = self.series(place) else { return false };
        self.time(series.oldest).is_some_and(|oldest| oldest <= t)
            && self.time(series.newest).is_some_and(|last| t < last)
    }

    /// The last slot of the series that is not after `t`. Late ones mostly lie close to the newest.
    fn before(&self, place: u32, t: i64) -> Option<u32> {
        let mut at = self.series(place)?.newest;
        while let Some(slot) = self.slot(at) {
            if slot.exemplar.at.0 <= t {
                return Some(at);
            }
            at = slot.previous;
        }
        None
    }

    /// Puts a slot in its place among those of its series.
    fn link(&mut self, at: u32, place: u32, t: i64) {
        let previous = self.before(place, t).unwrap_or(NONE);
        let Some(series) = self.series_mut(place) else { return };
        let next = if previous == NONE { series.oldest } else { NONE };
        let next = self.slot(previous).map_or(next, |slot| slot.next);
        if let Some(slot) = self.slot_mut(at) {
            (slot.previous, slot.next) = (previous, next);
        }
        match self.slot_mut(previous) {
            Some(slot) => slot.next = at,
            None => self.set_end(place, |series| series.oldest = at),
        }
        match self.slot_mut(next) {
            Some(slot) => slot.previous = at,
            None => self.set_end(place, |series| series.newest = at),
        }
    }

    fn set_end(&mut self, place: u32, set: impl FnOnce(&mut Series)) {
        if let Some(series) = self.series_mut(place) {
            set(series);
        }
    }

    /// Takes a slot out of its series, which goes with its last one unless it is `kept`.
    fn unlink(&mut self, at: u32, kept: Option<u32>) {
        let Some(&Slot { series: place, previous, next, .. }) = self.slot(at) else { return };
        match self.slot_mut(previous) {
            Some(slot) => slot.next = next,
            None => self.set_end(place, |series| series.oldest = next),
        }
        match self.slot_mut(next) {
            Some(slot) => slot.previous = previous,
            None => self.set_end(place, |series| series.newest = previous),
        }
        let is_empty = self.series(place).is_some_and(|series| series.oldest == NONE);
        if is_empty && kept != Some(place) {
            self.drop_series(place);
        }
    }

    fn new_series(&mut self, labels: &Labels, hash: u64) -> u32 {
        let series = Some(Series { labels: labels.clone(), hash, oldest: NONE, newest: NONE });
        let place = match self.free.pop() {
            Some(place) => place,
            None => {
                self.series.push(None);
                u32::try_from(self.series.len() - 1).unwrap_or(NONE)
            }
        };
        if let Some(slot) = self.series.get_mut(place as usize) {
            *slot = series;
        }
        let all = &self.series;
        let hash_of = |place: &u32| all.get(*place as usize).and_then(Option::as_ref).map_or(0, |series| series.hash);
        self.lookup.insert_unique(hash, place, hash_of);
        place
    }

    fn drop_series(&mut self, place: u32) {
        let Some(series) = self.series.get_mut(place as usize).and_then(Option::take) else { return };
        if let Ok(entry) = self.lookup.find_entry(series.hash, |other| *other == place) {
            entry.remove();
        }
        self.free.push(place);
    }

    /// Keeps the newest `capacity`, in the order in which they came.
    fn resize(&mut self, capacity: usize) {
        let len = self.slots.len();
        let excess = len.saturating_sub(capacity);
        let first = self.oldest();
        for n in 0..excess {
            self.unlink(u32::try_from((first + n) % len.max(1)).unwrap_or(NONE), None);
        }
        self.slots.rotate_left(first.min(len));
        self.slots.drain(..excess);
        self.slots.shrink_to_fit();
        let moved = |at: u32| match at {
            NONE => NONE,
            at => {
                let rotated = (at as usize + len - first) % len.max(1);
                rotated.checked_sub(excess).and_then(|at| u32::try_from(at).ok()).unwrap_or(NONE)
            }
        };
        for slot in &mut self.slots {
            (slot.previous, slot.next) = (moved(slot.previous), moved(slot.next));
        }
        for series in self.series.iter_mut().flatten() {
            (series.oldest, series.newest) = (moved(series.oldest), moved(series.newest));
        }
        self.capacity = capacity;
        self.next = 0;
    }

    /// Of the series from place `at` on those that may have exemplars of `from ..= to`; `None` behind the last.
    fn step(&self, at: usize, from: i64, to: i64) -> Option<Vec<(Labels, u64)>> {
        let rest = self.series.get(at..).filter(|rest| !rest.is_empty())?;
        let reaches = |series: &&Series| {
            self.time(series.oldest).is_some_and(|oldest| oldest <= to)
                && self.time(series.newest).is_some_and(|newest| from <= newest)
        };
        let step = rest.iter().take(STEP_LEN).flatten().filter(reaches);
        Some(step.map(|series| (series.labels.clone(), series.hash)).collect())
    }

    fn between(&self, labels: &Labels, hash: u64, from: i64, to: i64) -> Vec<Exemplar> {
        let mut found = Vec::new();
        let mut at = self.find(labels, hash).and_then(|place| self.series(place)).map_or(NONE, |series| series.oldest);
        while let Some(slot) = self.slot(at).filter(|slot| slot.exemplar.at.0 <= to) {
            if from <= slot.exemplar.at.0 {
                found.push(slot.exemplar.clone());
            }
            at = slot.next;
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::exemplar::labels_of;
    use crate::model::time::TimestampMs;

    fn series(name: &str) -> Labels {
        Labels::from_pairs([("__name__", name)])
    }

    fn exemplar(at: i64, value: f64) -> Exemplar {
        let labels = labels_of(vec![("trace_id", format!("{at}-{value}"))]);
        Exemplar { labels, value, at: TimestampMs(at), has_time: true }
    }

    fn ring(capacity: usize) -> Exemplars {
        let exemplars = Exemplars::default();
        exemplars.resize(capacity);
        exemplars
    }

    fn add(ring: &Exemplars, name: &str, at: i64, value: f64) {
        let labels = series(name);
        ring.add(&labels, labels.hash64(), &exemplar(at, value));
    }

    fn all(ring: &Exemplars) -> Vec<(String, Vec<i64>)> {
        let any = vec![vec![Matcher::equal("nobody", "")]];
        let found = ring.select(&any, i64::MIN, i64::MAX).into_iter();
        found.map(|one| (one.series.metric_name().to_owned(), one.exemplars.iter().map(|e| e.at.0).collect())).collect()
    }

    #[track_caller]
    fn check(ring: &Exemplars, expected: &[(&str, &[i64])]) {
        let expected: Vec<_> = expected.iter().map(|(name, times)| ((*name).to_owned(), times.to_vec())).collect();
        assert_eq!(all(ring), expected);
    }

    #[test]
    fn the_newest_take_the_places_of_the_oldest() {
        let ring = ring(3);
        for (name, at) in [("b", 1), ("a", 2), ("b", 3), ("a", 4)] {
            add(&ring, name, at, 1.0);
        }
        check(&ring, &[("a", &[2, 4]), ("b", &[3])]);
        add(&ring, "a", 5, 1.0);
        add(&ring, "a", 6, 1.0);
        check(&ring, &[("a", &[4, 5, 6])]);
        let stats = ring.stats();
        assert_eq!((stats.held, stats.series, stats.oldest_at, stats.appended, stats.capacity), (3, 1, 4, 6, 3));
        let of = |selectors: &[Vec<Matcher>], from, to| ring.select(selectors, from, to).len();
        assert_eq!(of(&[vec![Matcher::equal("__name__", "b")], vec![Matcher::equal("__name__", "a")]], 5, 5), 1);
        assert_eq!(of(&[vec![Matcher::equal("__name__", "a")]], 7, 9), 0);
        assert_eq!(of(&[], 0, 9), 0);
    }

    #[test]
    fn late_and_repeated_ones_are_not_stored() {
        let ring = ring(10);
        let labels = series("a");
        let hash = labels.hash64();
        let verdict = |at, value| ring.check(&labels, hash, &exemplar(at, value));
        add(&ring, "a", 10, 2.0);
        assert_eq!(verdict(10, 2.0), Ok(Verdict::Skip));
        assert_eq!(verdict(10, 3.0), Ok(Verdict::Store));
        assert_eq!(verdict(10, 1.0), Err(ExemplarRejection::OutOfOrder));
        assert_eq!(verdict(9, 5.0), Err(ExemplarRejection::OutOfOrder));
        add(&ring, "a", 9, 5.0);
        assert_eq!((ring.stats().out_of_order, ring.stats().held), (1, 1));
        ring.set_window(5);
        assert_eq!(verdict(6, 5.0), Ok(Verdict::Store));
        assert_eq!(verdict(5, 5.0), Err(ExemplarRejection::OutOfOrder));
        for at in [6, 8, 7, 8] {
            add(&ring, "a", at, 5.0);
        }
        check(&ring, &[("a", &[6, 7, 8, 10])]);
        let long = Exemplar { labels: labels_of(vec![("t", "x".repeat(128))]), ..exemplar(20, 1.0) };
        assert_eq!(ring.check(&labels, hash, &long), Err(ExemplarRejection::LabelsTooLong));
    }

    #[test]
    fn without_room_nothing_is_stored_and_nothing_refused() {
        let ring = ring(2);
        add(&ring, "a", 1, 1.0);
        assert_eq!(ring.resize(0), 0);
        add(&ring, "a", 2, 1.0);
        check(&ring, &[]);
        assert_eq!((ring.is_enabled(), ring.stats().out_of_order), (false, 0));
        assert_eq!(ring.resize(2), 0);
        add(&ring, "a", 3, 1.0);
        check(&ring, &[("a", &[3])]);
    }

    /// The same, one list of all in the order in which they came.
    #[derive(Default)]
    struct Naive {
        capacity: usize,
        window: i64,
        all: Vec<(usize, Exemplar)>,
    }

    impl Naive {
        fn add(&mut self, series: usize, new: Exemplar) {
            let own: Vec<&Exemplar> = self.all.iter().filter(|(s, _)| *s == series).map(|(_, e)| e).collect();
            // Of equal times the last that came is the newest.
            let newest = own.iter().max_by_key(|e| e.at.0);
            if let Some(newest) = newest {
                let (t, last) = (new.at.0, newest.at.0);
                let smaller = t == last
                    && (new.value < newest.value
                        || new.value == newest.value && new.labels.hash64() < newest.labels.hash64());
                let oldest = own.iter().map(|e| e.at.0).min().unwrap();
                let taken = t < last && oldest <= t && own.iter().any(|e| e.at.0 == t);
                if newest.repeats(&new) || t < last && t <= last - self.window || smaller || taken {
                    return;
                }
            }
            if self.capacity == 0 {
                return;
            }
            self.all.push((series, new));
            self.trim();
        }

        fn trim(&mut self) {
            self.all.drain(..self.all.len().saturating_sub(self.capacity));
        }
    }

    proptest! {
        #[test]
        fn behaves_as_one_list(
            steps in prop::collection::vec((0usize..4, 0i64..40, 0i64..3, 0usize..30, 0usize..12), 0..200),
            window in 0i64..20,
        ) {
            let ring = ring(5);
            ring.set_window(window);
            let mut naive = Naive { capacity: 5, window, all: Vec::new() };
            for (number, at, value, kind, size) in steps {
                if kind == 0 {
                    ring.resize(size);
                    naive.capacity = size;
                    naive.trim();
                } else {
                    add(&ring, &number.to_string(), at, value as f64);
                    naive.add(number, exemplar(at, value as f64));
                }
                let mut expected: Vec<(String, Vec<i64>)> = Vec::new();
                for number in 0..4 {
                    let own = naive.all.iter().filter(|(s, _)| *s == number);
                    let mut times: Vec<i64> = own.map(|(_, e)| e.at.0).collect();
                    times.sort_unstable();
                    if !times.is_empty() {
                        expected.push((number.to_string(), times));
                    }
                }
                prop_assert_eq!(all(&ring), expected);
                prop_assert_eq!(ring.stats().held as usize, naive.all.len());
            }
        }
    }
}
