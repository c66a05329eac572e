//! Numbers for the series of a segment that agree in the labels which somebody looks at: found by the numbers of label pairs,
//! without a look at their texts.

use std::ops::Range;

use hashbrown::HashMap;

use crate::model::labels::{Labels, LabelsRoom};
use crate::model::read::LookedAt;
use crate::storage::head::index::segment::{PairId, Segment};

/// A tree of label pairs: a class is that of the pairs before its last one, and that pair. Class 0 has none.
pub(crate) struct Classes<'a> {
    segment: &'a Segment,
    /// Pairs of the names that were given.
    named: Vec<Range<PairId>>,
    /// True if those are looked at, false if all others are.
    only: bool,
    made: Vec<(u32, PairId)>,
    number_of: HashMap<(u32, PairId), u32, foldhash::fast::RandomState>,
    /// Pairs of the series before, and the class up to each: neighbours have most in common.
    path: Vec<(PairId, u32)>,
}

impl<'a> Classes<'a> {
    /// No classes but that of series without any such label.
    pub(crate) fn new(segment: &'a Segment, looked_at: LookedAt<'_>) -> Self {
        let (names, only) = match looked_at {
            LookedAt::Only(names) => (names, true),
            LookedAt::AllBut(names) => (names, false),
        };
        let named = names.iter().map(|name| segment.pairs_of_name(name)).filter(|pairs| !pairs.is_empty()).collect();
        Self { segment, named, only, made: Vec::new(), number_of: HashMap::default(), path: Vec::new() }
    }

    /// One more than the greatest number of a class.
    pub(crate) fn len(&self) -> usize {
        self.made.len() + 1
    }

    /// The class of the series at a position.
    pub(crate) fn number(&mut self, position: u32) -> u32 {
        let (mut class, mut depth, mut is_same) = (0, 0, true);
        for pair in self.segment.pairs(position) {
            if self.named.iter().any(|named| named.contains(pair)) != self.only {
                continue;
            }
            match self.path.get(depth) {
                Some((before, known)) if is_same && before == pair => class = *known,
                _ => {
                    if is_same {
                        self.path.truncate(depth);
                        is_same = false;
                    }
                    let next = self.made.len() as u32 + 1;
                    let made = &mut self.made;
                    let before = class;
                    class = *self.number_of.entry((before, *pair)).or_insert_with(|| {
                        made.push((before, *pair));
                        next
                    });
                    self.path.push((*pair, class));
                }
            }
            depth += 1;
        }
        self.path.truncate(depth);
        class
    }

    /// The labels of a class that are looked at.
    pub(crate) fn labels(&self, class: u32) -> Labels {
        let (mut pairs, mut class) = (Vec::new(), class);
        while let Some((before, pair)) = (class as usize).checked_sub(1).and_then(|at| self.made.get(at)) {
            pairs.push(*pair);
            class = *before;
        }
        let mut room = LabelsRoom::default();
        for pair in pairs.into_iter().rev() {
            let (name, value) = self.segment.pair(pair);
            room.push(name, value);
        }
        room.take()
    }
}
