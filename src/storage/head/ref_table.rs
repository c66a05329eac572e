//! Small numbers by series reference. References are handed out in sequence, so they stand together by sixteen: neighbours
//! cost no second search, and a log in which few of them are left costs a cache line for each. As long as they stand close
//! together, no hash is needed to find them.

use std::collections::HashMap;

const PAGE_BITS: u32 = 4;
const PAGE_LEN: usize = 1 << PAGE_BITS;

/// Keys for each page that the table of low keys may have.
const LOW_PER_PAGE: u64 = 8;

/// A table in which every reference has a number, at first zero.
#[derive(Default)]
pub(crate) struct RefTable<N> {
    pages: Vec<[N; PAGE_LEN]>,
    /// By key, as long as they stand close together: the page, plus one, or zero.
    low: Vec<u32>,
    /// Pages of the others.
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
            let Some(page) = self.page_of(key) else { return N::default() };
            self.last = (key + 1, page);
        }
        self.read(self.last.1, reference)
    }

    /// The same, to be changed; `None` where none was set near it.
    #[inline]
    pub(crate) fn get_mut(&mut self, reference: u64) -> Option<&mut N> {
        let key = reference >> PAGE_BITS;
        if self.last.0 != key + 1 {
            self.last = (key + 1, self.page_of(key)?);
        }
        self.pages.get_mut(self.last.1 as usize)?.get_mut(place_of(reference))
    }

    /// Sets the number of a reference.
    pub(crate) fn set(&mut self, reference: u64, number: N) {
        let key = reference >> PAGE_BITS;
        let page = match self.page_of(key) {
            Some(page) => page,
            None => self.new_page(key),
        };
        if let Some(place) = self.pages.get_mut(page as usize).and_then(|page| page.get_mut(place_of(reference))) {
            *place = number;
        }
    }

    #[inline]
    fn page_of(&self, key: u64) -> Option<u32> {
        let low = usize::try_from(key).ok().and_then(|key| self.low.get(key));
        match low {
            Some(0) | None if self.index.is_empty() => None,
            Some(0) | None => self.index.get(&key).copied(),
            Some(page) => Some(page - 1),
        }
    }

    fn new_page(&mut self, key: u64) -> u32 {
        let page = u32::try_from(self.pages.len()).expect("a shard has fewer series than 2^32");
        self.pages.push([N::default(); PAGE_LEN]);
        if key < LOW_PER_PAGE * self.pages.len() as u64 {
            let place = usize::try_from(key).expect("it is below a small multiple of a length");
            self.low.resize(self.low.len().max(place + 1), 0);
            if let Some(at) = self.low.get_mut(place) {
                *at = page + 1;
            }
        } else {
            self.index.insert(key, page);
        }
        page
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
