//! What selectors found of late in an index that does not change: queries that come again, of dashboards and rules, neither
//! search it nor put label sets together anew.
//!
//! Bounded by bytes for the whole process part that owns it; what was used longest ago goes first. A key names the index,
//! which is never changed under it, so nothing here can be out of date; what belongs to an index that is gone is used no more.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::model::matcher::{MatchOp, Matcher};

/// Most selections that are kept, whatever their size: looking for one walks all.
const COUNT_MAX: usize = 256;

/// See the module's text. `K` names an index, `T` is what is kept of each series.
#[derive(Debug)]
pub(crate) struct Selections<K, T> {
    len_max: usize,
    state: Mutex<State<K, T>>,
}

#[derive(Debug)]
struct State<K, T> {
    kept: Vec<Kept<K, T>>,
    len: usize,
    turn: u64,
}

#[derive(Debug)]
struct Kept<K, T> {
    key: K,
    conditions: Box<[Condition]>,
    found: Arc<[T]>,
    len: usize,
    /// When it was used last.
    used: u64,
}

/// A matcher without its compiled expression.
type Condition = (MatchOp, Box<str>, Box<str>);

impl<K: PartialEq, T> Selections<K, T> {
    /// Keeps about so many bytes at most.
    pub(crate) fn new(len_max: usize) -> Self {
        Self { len_max, state: Mutex::new(State { kept: Vec::new(), len: 0, turn: 0 }) }
    }

    /// Bytes that one selection may take to be kept.
    pub(crate) fn one_len_max(&self) -> usize {
        self.len_max / 4
    }

    /// What the matchers found in the index.
    pub(crate) fn get(&self, key: &K, matchers: &[Matcher]) -> Option<Arc<[T]>> {
        let mut state = self.state.lock();
        state.turn += 1;
        let turn = state.turn;
        let kept = state.kept.iter_mut().find(|kept| kept.key == *key && is_of(&kept.conditions, matchers))?;
        kept.used = turn;
        Some(Arc::clone(&kept.found))
    }

    /// Forgets everything, as where what was found is gone.
    pub(crate) fn clear(&self) {
        let mut state = self.state.lock();
        let gone = std::mem::take(&mut state.kept);
        state.len = 0;
        // What goes is dropped outside of the lock.
        drop(state);
        drop(gone);
    }

    /// Keeps what the matchers found, which takes `len` bytes.
    pub(crate) fn put(&self, key: K, matchers: &[Matcher], found: Arc<[T]>, len: usize) {
        let texts: usize = matchers.iter().map(|matcher| matcher.name().len() + matcher.value().len()).sum();
        let len = len.saturating_add(texts).saturating_add(size_of::<Kept<K, T>>());
        if self.one_len_max() < len {
            return;
        }
        let conditions = matchers.iter().map(|m| (m.op(), m.name().into(), m.value().into())).collect();
        // What goes is dropped outside of the lock.
        let mut gone = Vec::new();
        let mut state = self.state.lock();
        // Two queries may have searched at the same time.
        if state.kept.iter().any(|kept| kept.key == key && is_of(&kept.conditions, matchers)) {
            return;
        }
        while self.len_max < state.len + len || COUNT_MAX <= state.kept.len() {
            let oldest = state.kept.iter().enumerate().min_by_key(|(_, kept)| kept.used).map(|(at, _)| at);
            let Some(oldest) = oldest else { break };
            let kept = state.kept.swap_remove(oldest);
            state.len -= kept.len;
            gone.push(kept);
        }
        state.turn += 1;
        state.len += len;
        let used = state.turn;
        state.kept.push(Kept { key, conditions, found, len, used });
        drop(state);
    }
}

fn is_of(conditions: &[Condition], matchers: &[Matcher]) -> bool {
    conditions.len() == matchers.len()
        && conditions.iter().zip(matchers).all(|((op, name, value), matcher)| {
            (*op, &**name, &**value) == (matcher.op(), matcher.name(), matcher.value())
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selections_are_found_by_index_and_matchers_and_the_oldest_goes() {
        let selections: Selections<u64, u8> = Selections::new(4_000);
        let of = |value: &str| [Matcher::equal("a", value)];
        let found = |key: u64, value: &str| selections.get(&key, &of(value)).map(|found| found.to_vec());
        selections.put(1, &of("x"), Arc::from([7]), 600);
        selections.put(1, &of("x"), Arc::from([8]), 600);
        selections.put(2, &of("x"), Arc::from([9]), 600);
        assert_eq!((found(1, "x"), found(2, "x"), found(1, "y")), (Some(vec![7]), Some(vec![9]), None));
        let negated = [Matcher::new(MatchOp::NotEqual, "a", "x").unwrap()];
        assert!(selections.get(&1, &negated).is_none() && selections.get(&1, &[]).is_none());
        for n in 3..8 {
            assert!(found(1, "x").is_some());
            selections.put(n, &of("x"), Arc::from([0]), 600);
        }
        assert!(found(2, "x").is_none() && found(1, "x").is_some(), "what was used longest ago goes");
        let held = selections.state.lock().len;
        assert!(held <= 4_000, "{held}");
        selections.put(9, &of("x"), Arc::from([0]), 1_001);
        assert!(found(9, "x").is_none(), "one that takes too much is not kept");
        selections.clear();
        assert_eq!((found(1, "x"), selections.state.lock().len), (None, 0));
    }

    #[test]
    fn their_number_is_bounded() {
        let selections: Selections<u64, u8> = Selections::new(usize::MAX);
        (0..1_000).for_each(|n| selections.put(n, &[], Arc::from([]), 0));
        assert_eq!(selections.state.lock().kept.len(), COUNT_MAX);
        assert!(selections.get(&999, &[]).is_some());
    }
}
