//! The writer's table of series: a paged slab, and the way from a series reference to a place in it.

use crate::model::sample::SeriesRef;
use crate::storage::head::ref_places::RefPlaces;
use crate::storage::head::series::WriterSeries;

/// Series in one page of the slab: growing never moves what is there.
const PAGE_LEN: usize = 1024;
const ID_BITS: u32 = 24;
/// Most series that one shard can hold.
pub(crate) const SERIES_PER_SHARD_MAX: usize = 1 << ID_BITS;
/// Series references stay below this: Prometheus cannot pack larger ones.
pub(crate) const SERIES_REF_MAX: u64 = 1 << 40;

/// Place of a series in its shard's slab; used again after the series is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct SeriesId(u32);

impl SeriesId {
    /// The number of the place.
    pub(crate) fn slot(self) -> u32 {
        self.0
    }

    /// The place of this number.
    pub(crate) fn from_slot(slot: u32) -> Self {
        Self(slot)
    }
}

/// All series of one shard.
#[derive(Debug, Default)]
pub(crate) struct SeriesTable {
    pages: Vec<Vec<Option<WriterSeries>>>,
    free: Vec<SeriesId>,
    len: usize,
    by_ref: RefPlaces,
}

impl SeriesTable {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Adds a series; `None` when the shard is full.
    pub(crate) fn insert(&mut self, series: WriterSeries) -> Option<SeriesId> {
        let reference = series.cell.series();
        let id = match self.free.pop() {
            Some(id) => id,
            None => self.new_slot()?,
        };
        let slot = self.slot_mut(id)?;
        *slot = Some(series);
        self.len += 1;
        debug_assert!(reference.0 < SERIES_REF_MAX);
        self.by_ref.insert(reference, id);
        Some(id)
    }

    /// Removes a series.
    pub(crate) fn remove(&mut self, id: SeriesId) {
        let Some(series) = self.slot_mut(id).and_then(Option::take) else { return };
        self.by_ref.remove(series.cell.series());
        self.free.push(id);
        self.len -= 1;
    }

    /// Where a series is.
    #[inline]
    pub(crate) fn find(&self, reference: SeriesRef) -> Option<SeriesId> {
        self.by_ref.find(reference)
    }

    #[inline]
    pub(crate) fn get(&self, id: SeriesId) -> Option<&WriterSeries> {
        self.pages.get(id.0 as usize / PAGE_LEN)?.get(id.0 as usize % PAGE_LEN)?.as_ref()
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, id: SeriesId) -> Option<&mut WriterSeries> {
        self.slot_mut(id)?.as_mut()
    }

    /// All series, to be parted among threads.
    pub(crate) fn whole(&mut self) -> SeriesPart<'_> {
        SeriesPart { first: 0, pages: &mut self.pages }
    }

    /// The number of the page that a place is in.
    pub(crate) fn page_of(slot: u32) -> usize {
        slot as usize / PAGE_LEN
    }

    /// Places that are or were in use; all ids lie below.
    pub(crate) fn slot_count(&self) -> usize {
        self.pages.iter().map(Vec::len).sum()
    }

    /// The id of a place below [`SeriesTable::slot_count`].
    pub(crate) fn id_at(&self, slot: usize) -> SeriesId {
        SeriesId(u32::try_from(slot).expect("slots are counted in 24 bits"))
    }

    fn slot_mut(&mut self, id: SeriesId) -> Option<&mut Option<WriterSeries>> {
        self.pages.get_mut(id.0 as usize / PAGE_LEN)?.get_mut(id.0 as usize % PAGE_LEN)
    }

    fn new_slot(&mut self) -> Option<SeriesId> {
        if self.pages.last().is_none_or(|page| page.len() == PAGE_LEN) {
            // The first page starts small: an idle shard costs nothing.
            self.pages.push(if self.pages.is_empty() { Vec::new() } else { Vec::with_capacity(PAGE_LEN) });
        }
        let before = (self.pages.len() - 1) * PAGE_LEN;
        let page = self.pages.last_mut()?;
        let slot = before + page.len();
        if SERIES_PER_SHARD_MAX <= slot {
            return None;
        }
        page.push(None);
        u32::try_from(slot).ok().map(SeriesId)
    }
}

/// Series at some of the table's places, for a thread of their own.
pub(crate) struct SeriesPart<'a> {
    /// Number of the first page.
    first: usize,
    pages: &'a mut [Vec<Option<WriterSeries>>],
}

impl<'a> SeriesPart<'a> {
    /// Number of pages.
    pub(crate) fn page_count(&self) -> usize {
        self.pages.len()
    }

    /// One past the number of the last page.
    pub(crate) fn end(&self) -> usize {
        self.first + self.pages.len()
    }

    /// Does the same with each series.
    pub(crate) fn each_mut(&mut self, act: impl Fn(&mut WriterSeries)) {
        self.pages.iter_mut().flatten().flatten().for_each(act);
    }

    /// The pages from `page` on as a part of their own, and those before.
    pub(crate) fn split_at(self, page: usize) -> (Self, Self) {
        let at = page.saturating_sub(self.first).min(self.pages.len());
        let (before, behind) = self.pages.split_at_mut(at);
        (Self { first: self.first, pages: before }, Self { first: self.first + at, pages: behind })
    }

    #[inline]
    pub(crate) fn get(&self, slot: u32) -> Option<&WriterSeries> {
        let page = (slot as usize / PAGE_LEN).checked_sub(self.first)?;
        self.pages.get(page)?.get(slot as usize % PAGE_LEN)?.as_ref()
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, slot: u32) -> Option<&mut WriterSeries> {
        let page = (slot as usize / PAGE_LEN).checked_sub(self.first)?;
        self.pages.get_mut(page)?.get_mut(slot as usize % PAGE_LEN)?.as_mut()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_are_found_by_reference_and_places_are_used_again() {
        let mut table = SeriesTable::default();
        let ids: Vec<SeriesId> = (1..=5000).map(|r| table.insert(WriterSeries::new(SeriesRef(r))).unwrap()).collect();
        for (reference, id) in (1..).zip(&ids) {
            assert_eq!(table.find(SeriesRef(reference)), Some(*id));
            assert_eq!(table.get(*id).unwrap().cell.series(), SeriesRef(reference));
        }
        table.remove(ids[10]);
        assert_eq!((table.find(SeriesRef(11)), table.len()), (None, 4999));
        assert_eq!(table.insert(WriterSeries::new(SeriesRef(SERIES_REF_MAX - 1))), Some(ids[10]));
        assert_eq!(table.find(SeriesRef(SERIES_REF_MAX - 1)), Some(ids[10]));
        assert_eq!(table.slot_count(), 5000);
    }
}
