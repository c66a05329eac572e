//! What listings and selections read of an index in passing: values with a text in them, and the labels of series as numbers.

use std::ops::Range;

use memchr::memmem;

use super::{IndexReader, Next, PostingsTable, STEP, SymbolMemo, each_entry};
use crate::model::read::{ReadBudget, ReadError};
use crate::storage::block::BlockError;
use crate::storage::block::bytes::Slice;
use crate::storage::block::index_write::SERIES_ALIGN;

/// Groups of neighbours between two looks at the budget.
const CHECK_EVERY: usize = 64;

impl IndexReader {
    /// Calls `take` with the places of the postings of the values of a label in which `finder` finds something, in their order. Neighbours
    /// are searched as they stand, and looked at one by one where it does.
    pub(in crate::storage::block) fn values_containing(
        &self,
        name: &str,
        finder: &memmem::Finder<'_>,
        budget: &dyn ReadBudget,
        take: &mut dyn FnMut(u64),
    ) -> Result<(), ReadError> {
        let entries = match &self.postings {
            PostingsTable::Whole(_) => {
                return self.values_from(name, "", &mut |value, place| {
                    if finder.find(value.as_bytes()).is_some() {
                        take(place);
                    }
                    Ok(Next::Go)
                });
            }
            PostingsTable::Sorted(names) => names.get(name),
        };
        let Some(entries) = entries else { return Ok(()) };
        let mut take_entry = |value: &[u8], place: u64| {
            if finder.find(value).is_some() {
                take(place);
            }
            Ok(Next::Go)
        };
        let mut cursor = self.file.cursor(0);
        let (mut left, mut steps) = (entries.count, entries.steps.iter().enumerate().peekable());
        while let Some((number, (_, place))) = steps.next() {
            if number % CHECK_EVERY == 0 {
                budget.check()?;
            }
            let count = left.min(STEP);
            left -= count;
            cursor.move_to(*place);
            let len = steps.peek().and_then(|(_, (_, next))| usize::try_from(next.saturating_sub(*place)).ok());
            let is_without = match len {
                Some(len) => cursor.rest()?.get(..len).is_some_and(|group| finder.find(group).is_none()),
                None => false,
            };
            if !is_without {
                each_entry(&mut cursor, count, &mut take_entry)?;
            }
        }
        Ok(())
    }

    /// Puts the symbols of names and values of the labels of a series into `out`, in the order of names. Their texts are not looked at.
    pub(in crate::storage::block) fn label_symbols(
        &self,
        id: u32,
        memo: &mut SymbolMemo,
        out: &mut Vec<(u64, u64)>,
    ) -> Result<(), BlockError> {
        out.clear();
        let (offset, body) = self.read_body(id, memo)?;
        let cut_short = || self.file.corrupt(offset, "the labels of a series are not readable");
        let mut read = Slice::new(&body);
        for _ in 0..read.uvarint().ok_or_else(cut_short)? {
            out.push(read.uvarint().zip(read.uvarint()).ok_or_else(cut_short)?);
        }
        memo.body = body;
        Ok(())
    }

    /// The text of a symbol.
    pub(in crate::storage::block) fn symbol_text<'m>(
        &self,
        symbol: u64,
        memo: &'m mut SymbolMemo,
    ) -> Result<&'m str, BlockError> {
        memo.make_room();
        let place = self.symbol(symbol, memo)?;
        Ok(memo.text.get(place).unwrap_or(""))
    }

    /// Ids of series lie in this range.
    pub(in crate::storage::block) fn id_range(&self) -> Range<u32> {
        let align = if self.version == 1 { 1 } else { SERIES_ALIGN };
        let id = |offset: u64| u32::try_from(offset / align).unwrap_or(u32::MAX);
        id(self.toc.series)..id(self.toc.label_indices.max(self.toc.postings)).saturating_add(1)
    }
}
