//! Which values of two labels occur together in a block: values of one label under conditions on another are known by it without a look
//! at the series. Found out from the postings of both labels, the second time that somebody asks. Blocks do not change.
//!
//! Bounds: a table has [`BITS_MAX`] bits, those of all blocks [`ALL_LEN_MAX`] bytes; what was used longest ago goes first.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::model::matcher::Matcher;
use crate::model::read::{ReadBudget, ReadError, may_read_files};
use crate::storage::block::index_read::{IndexReader, Next};

/// 128 KiB.
const BITS_MAX: usize = 1 << 20;
/// For the process part that shares a cache of pages.
const ALL_LEN_MAX: usize = 8 << 20;
/// Two labels that were asked for once are remembered as well, so many of them.
const COUNT_MAX: usize = 1024;
/// While a table is found out there are two bytes for each id that the index has room for: 32 MiB.
const IDS_MAX: usize = 16 << 20;

/// What is remembered of all blocks.
#[derive(Default)]
pub(super) struct Pairings(Mutex<State>);

#[derive(Default)]
struct State {
    kept: Vec<Kept>,
    /// Bytes of tables.
    len: usize,
    turn: u64,
}

struct Kept {
    /// Number of the index, and both labels.
    key: (u64, Box<str>, Box<str>),
    what: What,
    used: u64,
}

#[derive(Clone)]
enum What {
    /// Somebody has asked once.
    Asked,
    Known(Arc<Pairing>),
    /// Some of the postings are damaged: who needs them is told of it.
    Unreadable,
}

/// When a table is worth finding it out.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Worth {
    AtOnce,
    TheSecondTime,
}

/// A row for each value of a label, in it a bit for each value of another one, and one behind them for series without that.
pub(super) struct Pairing {
    row_len: usize,
    bits: Box<[u64]>,
}

/// Words of a row for so many values of the other label.
pub(super) fn row_len(others_len: usize) -> usize {
    others_len / 64 + 1
}

impl Pairing {
    /// Whether any series has the value with this number and one of those that have a bit in `wanted`, which is a row.
    pub(super) fn has_any(&self, value: usize, wanted: &[u64]) -> bool {
        let row = self.bits.get(value * self.row_len..(value + 1) * self.row_len).unwrap_or_default();
        row.iter().zip(wanted).any(|(has, wanted)| has & wanted != 0)
    }

    fn heap_len(&self) -> usize {
        size_of_val(&*self.bits)
    }

    /// Reads all postings of both labels.
    fn read(index: &IndexReader, name: &str, other: &str, budget: &dyn ReadBudget) -> Result<Self, ReadError> {
        let ids = index.id_range();
        budget.charge(ids.len() * size_of::<u16>())?;
        // Which value of the other label each series has, counted from 1.
        let mut other_of = vec![0u16; ids.len()];
        let mut number: u16 = 0;
        index.values_from(other, "", &mut |_, place| {
            budget.check()?;
            number = number.saturating_add(1);
            index.each_posting(place, |id| {
                if let Some(other) = id.checked_sub(ids.start).and_then(|at| other_of.get_mut(at as usize)) {
                    *other = number;
                }
                Next::Go
            })?;
            Ok(Next::Go)
        })?;
        let row_len = row_len(usize::from(number));
        let mut bits = vec![0u64; index.values_len(name) * row_len];
        let mut rows = bits.chunks_exact_mut(row_len);
        index.values_from(name, "", &mut |_, place| {
            budget.check()?;
            let Some(row) = rows.next() else { return Ok(Next::Stop) };
            index.each_posting(place, |id| {
                let other = id.checked_sub(ids.start).and_then(|at| other_of.get(at as usize)).copied().unwrap_or(0);
                let bit = usize::from(other.checked_sub(1).unwrap_or(number));
                if let Some(word) = row.get_mut(bit / 64) {
                    *word |= 1 << (bit % 64);
                }
                Next::Go
            })?;
            Ok(Next::Go)
        })?;
        Ok(Self { row_len, bits: bits.into() })
    }
}

/// A bit for each value of a label that fulfils all matchers, which ask for it, and one behind them for series without that label.
pub(super) fn fulfilling(
    index: &IndexReader,
    label: &str,
    matchers: &[&Matcher],
    budget: &dyn ReadBudget,
) -> Result<Vec<u64>, ReadError> {
    let len = index.values_len(label);
    let mut bits = vec![0u64; row_len(len)];
    let mut set = |bit: usize| {
        if let Some(word) = bits.get_mut(bit / 64) {
            *word |= 1 << (bit % 64);
        }
    };
    let mut number = 0;
    index.values_from(label, "", &mut |value, _| {
        if number % 256 == 0 {
            budget.check()?;
        }
        if matchers.iter().all(|matcher| matcher.matches(value)) {
            set(number);
        }
        number += 1;
        Ok(Next::Go)
    })?;
    if matchers.iter().all(|matcher| matcher.matches_empty()) {
        set(len);
    }
    Ok(bits)
}

impl Pairings {
    fn what(&self, key: (u64, &str, &str)) -> Option<What> {
        let mut state = self.0.lock();
        state.turn += 1;
        let turn = state.turn;
        let kept = state.kept.iter_mut().find(|kept| kept.is_of(key))?;
        kept.used = turn;
        Some(kept.what.clone())
    }

    fn put(&self, key: (u64, &str, &str), what: What) {
        let heap_len = what.heap_len();
        // What goes is dropped outside of the lock.
        let mut gone = Vec::new();
        let mut state = self.0.lock();
        if let Some(at) = state.kept.iter().position(|kept| kept.is_of(key)) {
            gone.push(state.take(at));
        }
        while ALL_LEN_MAX < state.len + heap_len || COUNT_MAX <= state.kept.len() {
            let oldest = state.kept.iter().enumerate().min_by_key(|(_, kept)| kept.used).map(|(at, _)| at);
            let Some(oldest) = oldest else { break };
            gone.push(state.take(oldest));
        }
        state.turn += 1;
        let used = state.turn;
        state.len += heap_len;
        state.kept.push(Kept { key: (key.0, key.1.into(), key.2.into()), what, used });
        drop(state);
    }
}

impl State {
    fn take(&mut self, at: usize) -> Kept {
        let kept = self.kept.swap_remove(at);
        self.len -= kept.what.heap_len();
        kept
    }
}

impl Kept {
    fn is_of(&self, key: (u64, &str, &str)) -> bool {
        (self.key.0, &*self.key.1, &*self.key.2) == key
    }
}

impl What {
    fn heap_len(&self) -> usize {
        if let Self::Known(pairing) = self { pairing.heap_len() } else { 0 }
    }
}

impl IndexReader {
    /// Which values of a label occur with which of another, if it is remembered.
    pub(super) fn known_pairing(&self, name: &str, other: &str) -> Option<Arc<Pairing>> {
        let (pairings, number) = self.pairings();
        match pairings.what((number, name, other))? {
            What::Known(pairing) => Some(pairing),
            What::Asked | What::Unreadable => None,
        }
    }

    /// Which values of a label occur with which of another. `None` where it is not worth to find it out yet, or would take too much.
    pub(super) fn pairing(
        &self,
        name: &str,
        other: &str,
        worth: Worth,
        budget: &dyn ReadBudget,
    ) -> Result<Option<Arc<Pairing>>, ReadError> {
        let (rows, others) = (self.values_len(name), self.values_len(other));
        if rows == 0
            || others == 0
            || BITS_MAX / 64 < rows.saturating_mul(row_len(others))
            || usize::from(u16::MAX) <= others
            || IDS_MAX < self.id_range().len()
        {
            return Ok(None);
        }
        let (pairings, number) = self.pairings();
        let key = (number, name, other);
        match pairings.what(key) {
            Some(What::Known(pairing)) => return Ok(Some(pairing)),
            Some(What::Unreadable) => return Ok(None),
            None if worth == Worth::TheSecondTime => {
                pairings.put(key, What::Asked);
                return Ok(None);
            }
            // It takes longer than a thread may be held that may not wait for files either.
            None | Some(What::Asked) if !may_read_files() => return Ok(None),
            None | Some(What::Asked) => {}
        }
        match Pairing::read(self, name, other, budget) {
            Ok(pairing) => {
                let pairing = Arc::new(pairing);
                pairings.put(key, What::Known(Arc::clone(&pairing)));
                Ok(Some(pairing))
            }
            Err(ReadError::Corrupt(_)) => {
                pairings.put(key, What::Unreadable);
                Ok(None)
            }
            // There is a way that holds less.
            Err(ReadError::Budget(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(words: usize) -> What {
        What::Known(Arc::new(Pairing { row_len: 1, bits: vec![0; words].into() }))
    }

    #[test]
    fn tables_of_all_blocks_stay_within_their_bounds_and_the_oldest_goes() {
        let pairings = Pairings::default();
        let lens = |pairings: &Pairings| {
            let state = pairings.0.lock();
            (state.kept.len(), state.len)
        };
        for number in 0..100 {
            pairings.put((number, "a", "b"), known(BITS_MAX / 64));
            assert!(pairings.what((0, "a", "b")).is_some(), "what is used stays");
        }
        assert_eq!(lens(&pairings).1, ALL_LEN_MAX);
        assert!(pairings.what((1, "a", "b")).is_none() && pairings.what((0, "b", "a")).is_none());
        for number in 0..2 * COUNT_MAX as u64 {
            pairings.put((number, "c", "d"), What::Asked);
        }
        assert_eq!(lens(&pairings), (COUNT_MAX, 0));
        // One that is found out twice at a time stands there once.
        let last = 2 * COUNT_MAX as u64 - 1;
        [5, 7].into_iter().for_each(|words| pairings.put((last, "c", "d"), known(words)));
        assert_eq!(lens(&pairings), (COUNT_MAX, 56));
    }
}
