//! Small numbers by series reference. References are handed out in sequence, so they stand together by sixteen: neighbours
//! cost no second search, and a log in which few of them are left costs a cache line for each.

use std::collections::HashMap;

const PAGE_BITS: u32 = 4;
const PAGE_LEN: usize = 1 << PAGE_BITS;

/// A table in which every reference has a number, at first zero.
#[derive(Default)]
pub(crate) struct RefTable<N> {
    pages: Vec<[N; PAGE_LEN]>,
    index: HashMap<u64, u32, foldhash::fast::FixedState>,
    /// The page that was found last: its key, plus one, and its place.
    last: (u64, u32),
}

impl<N: Copy + Default> RefTable<N> {
    /// The number of a reference.
    #[inline]
    pub(crate) fn get(&mut self, reference: u64) -> N {
        let key = reference >> PAGE_BITS;
        if self.last.0 != key + 1 {
            let Some(page) = self.index.get(&key) else { return N::default() };
            self.last = (key + 1, *page);
        }
        self.read(self.last.1, reference)
    }

    /// Sets the number of a reference.
    pub(crate) fn set(&mut self, reference: u64, number: N) {
        let next = u32::try_from(self.pages.len()).expect("a shard has fewer series than 2^32");
        let page = *self.index.entry(reference >> PAGE_BITS).or_insert(next);
        if page == next {
            self.pages.push([N::default(); PAGE_LEN]);
        }
        if let Some(place) = self.pages.get_mut(page as usize).and_then(|page| page.get_mut(place_of(reference))) {
            *place = number;
        }
    }

    #[inline]
    fn read(&self, page: u32, reference: u64) -> N {
        let page = self.pages.get(page as usize);
        page.and_then(|page| page.get(place_of(reference))).copied().unwrap_or_default()
    }
}

#[inline]
fn place_of(reference: u64) -> usize {
    // The remainder is below a page's length.
    (reference % PAGE_LEN as u64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reference_has_its_own_number() {
        let mut table = RefTable::<u32>::default();
        let references = [1, 2, 15, 16, 17, 1 << 39, u64::MAX, u64::MAX >> 4];
        for (number, reference) in (1..).zip(references) {
            assert_eq!(table.get(reference), 0);
            table.set(reference, number);
        }
        for (number, reference) in (1..).zip(references) {
            assert_eq!(table.get(reference), number);
        }
        assert_eq!((table.get(3), table.get(1 << 20)), (0, 0));
    }
}
