//! Which values of two labels occur together in a segment: values of one label under a condition on another are known by it without
//! a look at series. Found out in one pass over the segment, the second time that somebody asks. Segments do not change.
//!
//! Bounds: a table has [`BITS_MAX`] bits, all of a segment [`ALL_BITS_MAX`].

use std::ops::Range;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::model::read::ReadError;
use crate::storage::head::index::segment::{PairId, Segment};
use crate::storage::head::index::select::Ticker;

/// 128 KiB.
const BITS_MAX: usize = 1 << 20;
/// 256 KiB.
const ALL_BITS_MAX: usize = 2 << 20;
/// Two labels that were asked for once are remembered as well, so many of them.
const ASKED_MAX: usize = 64;
/// Fewer series are looked at each time.
const SERIES_MIN: usize = 1024;

/// What a segment remembers.
#[derive(Debug, Default)]
pub(crate) struct Pairings(Mutex<Vec<Asked>>);

#[derive(Debug)]
struct Asked {
    /// First pairs of both names.
    names: (PairId, PairId),
    /// `None` after the first time.
    table: Option<Arc<Pairing>>,
}

/// A row for each value of a label, in it a bit for each value of the other one, and one behind them for series without that.
#[derive(Debug)]
pub(crate) struct Pairing {
    first: PairId,
    row_len: usize,
    bits: Box<[u64]>,
}

/// Words of a row that has a bit for each of these pairs and one more.
pub(crate) fn row_len(others: &Range<PairId>) -> usize {
    others.len() / 64 + 1
}

impl Pairing {
    fn of(
        segment: &Segment,
        of_name: &Range<PairId>,
        others: &Range<PairId>,
        ticker: &mut Ticker<'_>,
    ) -> Result<Self, ReadError> {
        let row_len = row_len(others);
        let mut bits = vec![0u64; of_name.len() * row_len];
        for position in 0..segment.len() as u32 {
            ticker.tick()?;
            let Some(value) = segment.pair_in(position, of_name) else { continue };
            let other = segment.pair_in(position, others).unwrap_or(others.end) - others.start;
            let row = (value - of_name.start) as usize * row_len;
            bits[row + other as usize / 64] |= 1 << (other % 64);
        }
        Ok(Self { first: of_name.start, row_len, bits: bits.into() })
    }

    /// Whether any series has the value and one of those that have a bit in `wanted`, which is a row.
    pub(crate) fn has_any(&self, value: PairId, wanted: &[u64]) -> bool {
        let row = (value - self.first) as usize * self.row_len;
        let row = self.bits.get(row..row + self.row_len).unwrap_or_default();
        row.iter().zip(wanted).any(|(has, wanted)| has & wanted != 0)
    }
}

impl Segment {
    /// Which values of a label occur with which of another, of which there are some. `None` the first time that somebody asks, and where remembering it would
    /// take too much, or looking takes little.
    pub(crate) fn pairing(
        &self,
        of_name: &Range<PairId>,
        others: &Range<PairId>,
        ticker: &mut Ticker<'_>,
    ) -> Result<Option<Arc<Pairing>>, ReadError> {
        let words = of_name.len() * row_len(others);
        if self.len() < SERIES_MIN || BITS_MAX / 64 < words {
            return Ok(None);
        }
        let names = (of_name.start, others.start);
        let is_it = |asked: &&Asked| asked.names == names;
        {
            let mut known = self.pairings.0.lock();
            let Some(asked) = known.iter().find(is_it) else {
                if known.len() < ASKED_MAX {
                    known.push(Asked { names, table: None });
                }
                return Ok(None);
            };
            if let Some(table) = &asked.table {
                return Ok(Some(Arc::clone(table)));
            }
            let held: usize = known.iter().filter_map(|asked| asked.table.as_ref()).map(|table| table.bits.len()).sum();
            if ALL_BITS_MAX / 64 < held + words {
                return Ok(None);
            }
        }
        let table = Arc::new(Pairing::of(self, of_name, others, ticker)?);
        if let Some(asked) = self.pairings.0.lock().iter_mut().find(|asked| asked.names == names) {
            asked.table = Some(Arc::clone(&table));
        }
        Ok(Some(table))
    }

    /// Whether it is remembered which values of two labels occur together.
    pub(crate) fn knows_pairing(&self, of_name: &Range<PairId>, others: &Range<PairId>) -> bool {
        let names = (of_name.start, others.start);
        self.pairings.0.lock().iter().any(|asked| asked.names == names && asked.table.is_some())
    }

    /// Tables that are remembered.
    #[cfg(test)]
    pub(crate) fn pairings_len(&self) -> usize {
        self.pairings.0.lock().iter().filter(|asked| asked.table.is_some()).count()
    }
}
