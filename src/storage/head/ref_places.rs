//! The way from a series reference to the series' place in its shard. References are handed out in sequence, so they stand
//! together by eight: the series of a scrape, which were created one after the other, cost one search for eight of them. Mostly
//! the next eight stand right behind, and are not searched for either.

use std::cell::Cell;

use hashbrown::HashTable;

use crate::model::sample::SeriesRef;
use crate::storage::head::table::SeriesId;

const GROUP_BITS: u32 = 3;
const GROUP_LEN: usize = 1 << GROUP_BITS;
/// Groups that are allocated together: growing never moves what is there.
const BLOCK_LEN: usize = 512;
/// Parts of the search table, so that no single growth takes long.
const PARTS: usize = 16;
/// Bits of a group's number: as many groups as there can be places, each in a group of its own.
const NUMBER_BITS: u32 = 24;

/// Neighbours.
#[derive(Clone, Copy, Debug, Default)]
struct Group {
    /// Their key plus one; 0 for a group that holds nothing.
    key: u64,
    /// The place of each plus one; 0 for none.
    places: [u32; GROUP_LEN],
}

/// Places by reference.
#[derive(Debug, Default)]
pub(crate) struct RefPlaces {
    blocks: Vec<Box<[Group; BLOCK_LEN]>>,
    /// Groups that were taken from the blocks so far.
    used: u32,
    /// Of these, groups that hold nothing any more.
    free: Vec<u32>,
    /// `key of the group << 24 | its number`, spread over the parts by hash.
    numbers: [HashTable<u64>; PARTS],
    /// The group that was found last: its key plus one, and its number.
    last: Cell<(u64, u32)>,
}

impl RefPlaces {
    /// Where a series is.
    #[inline]
    pub(crate) fn find(&self, reference: SeriesRef) -> Option<SeriesId> {
        let number = self.number_of(key_of(reference))?;
        let place = *self.group(number)?.places.get(within(reference))?;
        Some(SeriesId::from_slot(place.checked_sub(1)?))
    }

    /// Notes where a series is.
    pub(crate) fn insert(&mut self, reference: SeriesRef, id: SeriesId) {
        let key = key_of(reference);
        let number = match self.number_of(key) {
            Some(number) => number,
            None => {
                let number = self.free.pop().unwrap_or_else(|| self.take_new());
                let hash = hash_of(key);
                self.numbers[part_of(hash)].insert_unique(hash, pack(key, number), |packed| hash_of(unpack(*packed).0));
                number
            }
        };
        let Some(group) = self.group_mut(number) else { return };
        group.key = key + 1;
        if let Some(place) = group.places.get_mut(within(reference)) {
            *place = id.slot() + 1;
        }
    }

    /// Forgets a series.
    pub(crate) fn remove(&mut self, reference: SeriesRef) {
        let key = key_of(reference);
        let Some(number) = self.number_of(key) else { return };
        let Some(group) = self.group_mut(number) else { return };
        if let Some(place) = group.places.get_mut(within(reference)) {
            *place = 0;
        }
        if group.places.iter().all(|place| *place == 0) {
            group.key = 0;
            let hash = hash_of(key);
            if let Ok(entry) = self.numbers[part_of(hash)].find_entry(hash, |packed| unpack(*packed).0 == key) {
                entry.remove();
                self.free.push(number);
            }
            self.last.set((0, 0));
        }
    }

    #[inline]
    fn number_of(&self, key: u64) -> Option<u32> {
        let (last_key, last_number) = self.last.get();
        if last_key == key + 1 {
            return Some(last_number);
        }
        let next = last_number + 1;
        if self.group(next).is_some_and(|group| group.key == key + 1) {
            self.last.set((key + 1, next));
            return Some(next);
        }
        let hash = hash_of(key);
        let packed = self.numbers[part_of(hash)].find(hash, |packed| unpack(*packed).0 == key)?;
        let number = unpack(*packed).1;
        self.last.set((key + 1, number));
        Some(number)
    }

    fn take_new(&mut self) -> u32 {
        if self.used as usize == self.blocks.len() * BLOCK_LEN {
            self.blocks.push(Box::new([Group::default(); BLOCK_LEN]));
        }
        self.used += 1;
        self.used - 1
    }

    #[inline]
    fn group(&self, number: u32) -> Option<&Group> {
        self.blocks.get(number as usize / BLOCK_LEN)?.get(number as usize % BLOCK_LEN)
    }

    fn group_mut(&mut self, number: u32) -> Option<&mut Group> {
        self.blocks.get_mut(number as usize / BLOCK_LEN)?.get_mut(number as usize % BLOCK_LEN)
    }
}

fn key_of(reference: SeriesRef) -> u64 {
    reference.0 >> GROUP_BITS
}

#[inline]
fn within(reference: SeriesRef) -> usize {
    // The remainder is below a group's length.
    (reference.0 % GROUP_LEN as u64) as usize
}

fn pack(key: u64, number: u32) -> u64 {
    debug_assert!(key >> (u64::BITS - NUMBER_BITS) == 0 && number >> NUMBER_BITS == 0);
    key << NUMBER_BITS | u64::from(number)
}

fn unpack(packed: u64) -> (u64, u32) {
    (packed >> NUMBER_BITS, (packed & ((1 << NUMBER_BITS) - 1)) as u32)
}

/// Keys are a sequence; this spreads them over all bits (multiply and fold).
fn hash_of(key: u64) -> u64 {
    let wide = u128::from(key ^ 0x2545_f491_4f6c_dd1d) * 0x9e37_79b9_7f4a_7c15;
    (wide >> 64) as u64 ^ wide as u64
}

fn part_of(hash: u64) -> usize {
    // Bits that hashbrown uses neither for its place (low) nor for its tag (high seven).
    (hash >> 40) as usize % PARTS
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn id(slot: u32) -> SeriesId {
        SeriesId::from_slot(slot)
    }

    #[test]
    fn groups_that_hold_nothing_are_used_again() {
        let mut places = RefPlaces::default();
        for generation in 0..50_u64 {
            for reference in 0..800 {
                places.insert(SeriesRef(generation * 1000 + reference), id(reference as u32));
            }
            for reference in 0..800 {
                places.remove(SeriesRef(generation * 1000 + reference));
                assert_eq!(places.find(SeriesRef(generation * 1000 + reference)), None);
            }
        }
        assert_eq!((places.used, places.blocks.len()), (100, 1));
    }

    proptest! {
        #[test]
        fn agrees_with_a_map(steps in proptest::collection::vec((0..3_u8, 0..60_u64, any::<bool>()), 0..400)) {
            let (mut places, mut model) = (RefPlaces::default(), BTreeMap::new());
            for (slot, (what, reference, is_far)) in (0..).zip(steps) {
                let reference = SeriesRef(if is_far { (1 << 39) + reference } else { reference });
                match what {
                    0 => {
                        model.entry(reference.0).or_insert_with(|| {
                            places.insert(reference, id(slot));
                            id(slot)
                        });
                    }
                    1 => {
                        model.remove(&reference.0);
                        places.remove(reference);
                    }
                    _ => prop_assert_eq!(places.find(reference), model.get(&reference.0).copied()),
                }
            }
            for (reference, place) in model {
                prop_assert_eq!(places.find(SeriesRef(reference)), Some(place));
            }
        }
    }
}
