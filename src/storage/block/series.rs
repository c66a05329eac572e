//! The series of one block: which there are, and their samples.

use std::sync::Arc;

use crate::model::histogram::CounterResetHint;
use crate::model::labels::Labels;
use crate::model::matcher::Matcher;
use crate::model::read::{FloatColumn, ReadBudget, ReadError, SampleColumn, SampleSource, SelectedSeries};
use crate::model::time::{TimeRange, TimestampMs};
use crate::storage::block::chunks::{ChunkMeta, ReadAhead, encoding_name};
use crate::storage::block::index_read::{IndexSeries, Next, SymbolMemo};
use crate::storage::block::notes::Notes;
use crate::storage::block::pages::KnownInBlock;
use crate::storage::block::read::Block;
use crate::storage::block::select::each_id;
use crate::storage::block::tombstones::Interval;
use crate::storage::chunk::decode::ChunkDecoder;
use crate::storage::chunk::histogram::Native;
use crate::storage::chunk::histogram::decode::HistogramDecoder;
use crate::storage::chunk::xor::XorDecoder;
use crate::storage::chunk::xor2::{StartedSample, Xor2Decoder};
use crate::storage::chunk::{ChunkError, Encoding};

/// Steps between two looks at the budget.
const CHECK_EVERY: usize = 256;
/// What a selected series takes beside its label text and its chunks' places.
const SELECTED_LEN: usize = size_of::<SelectedSeries>() + size_of::<BlockSeries>() + 64;

/// Calls `take` with id, chunks and labels of the series that fit, in the order of their labels, until it has enough.
pub(super) fn each_series(
    block: &Arc<Block>,
    matchers: &[Matcher],
    budget: &dyn ReadBudget,
    notes: &Notes,
    mut take: impl FnMut(u32, &[ChunkMeta], &Labels) -> Result<Next, ReadError>,
) -> Result<(), ReadError> {
    let (known, number) = block.index.known();
    let mut steps = 0;
    let mut step = || {
        steps += 1;
        if steps % CHECK_EVERY == 1 { budget.check() } else { Ok(()) }
    };
    if let Some(found) = known.get(&number, matchers) {
        for one in found.iter() {
            step()?;
            if take(one.id, &one.chunks, &one.labels)? == Next::Stop {
                break;
            }
        }
        return Ok(());
    }
    let mut memo = SymbolMemo::default();
    // What was found is remembered if it does not take too much.
    let (mut found, mut len, mut is_whole) = (Vec::new(), 0, true);
    each_id(&block.index, matchers, budget, |id| {
        step()?;
        let IndexSeries { labels, chunks } = match block.index.series(id, &mut memo) {
            Ok(series) => series,
            Err(error) => {
                notes.met(block, error.into())?;
                // It is to be told of each time.
                is_whole = false;
                return Ok(Next::Go);
            }
        };
        let next = take(id, &chunks, &labels)?;
        is_whole &= next == Next::Go;
        if len <= known.one_len_max() {
            len += size_of::<KnownInBlock>() + 64 + labels.encoded_len() + size_of_val(&*chunks);
            found.push(KnownInBlock { id, labels, chunks: chunks.into() });
        }
        Ok(next)
    })?;
    if is_whole && len <= known.one_len_max() {
        known.put(number, matchers, found.into(), len);
    }
    Ok(())
}

/// The series of a block, in the order of their labels.
pub(super) fn select_block(
    block: &Arc<Block>,
    matchers: &[Matcher],
    range: TimeRange,
    budget: &dyn ReadBudget,
    notes: &Arc<Notes>,
) -> Result<Vec<SelectedSeries>, ReadError> {
    let mut selected = Vec::new();
    each_series(block, matchers, budget, notes, |id, chunks, labels| {
        let deleted = block.tombstones.of_series(u64::from(id));
        let chunks: Box<[ChunkMeta]> =
            chunks.iter().filter(|chunk| is_wanted(chunk, range, deleted)).copied().collect();
        if !chunks.is_empty() {
            budget.charge(labels.encoded_len() + SELECTED_LEN + size_of_val(&*chunks) + size_of_val(deleted))?;
            let (block, notes) = (Arc::clone(block), Arc::clone(notes));
            let samples = BlockSeries { block, notes, chunks, deleted: deleted.into() };
            selected.push(SelectedSeries { labels: labels.clone(), samples: Arc::new(samples) });
        }
        Ok(Next::Go)
    })?;
    Ok(selected)
}

/// Whether a chunk may have samples in the range that are not deleted.
pub(super) fn is_wanted(chunk: &ChunkMeta, range: TimeRange, deleted: &[Interval]) -> bool {
    range.overlaps(TimestampMs(chunk.min_t), TimestampMs(chunk.max_t))
        && !deleted.iter().any(|i| i.min_t <= chunk.min_t && chunk.max_t <= i.max_t)
}

/// Samples of one series in one block.
struct BlockSeries {
    block: Arc<Block>,
    notes: Arc<Notes>,
    chunks: Box<[ChunkMeta]>,
    deleted: Box<[Interval]>,
}

impl BlockSeries {
    /// Calls `take` with the decoder of each chunk that reaches into `range`.
    fn each_chunk(
        &self,
        range: TimeRange,
        mut take: impl FnMut(ChunkDecoder<'_, [u8]>) -> Result<(), ChunkError>,
    ) -> Result<(), ReadError> {
        let wanted = |chunk: &&ChunkMeta| range.overlaps(TimestampMs(chunk.min_t), TimestampMs(chunk.max_t));
        let Some(until) = self.chunks.iter().rfind(wanted).map(|chunk| chunk.reference) else { return Ok(()) };
        let mut ahead = ReadAhead::default();
        for chunk in self.chunks.iter().filter(wanted) {
            let (id, data) = match self.block.chunks.read(chunk.reference, until, &mut ahead) {
                Ok(read) => read,
                Err(error) => {
                    let text = format!("{error}; it costs samples from {} to {} ms", chunk.min_t, chunk.max_t);
                    self.notes.met(&self.block, ReadError::Corrupt(text))?;
                    continue;
                }
            };
            let Ok(encoding) = Encoding::from_id(id) else {
                return Err(ReadError::Unsupported(format!(
                    "block {} holds a chunk of encoding {} ({id}), which cannot be read yet",
                    self.block.meta().ulid,
                    encoding_name(id)
                )));
            };
            let taken = ChunkDecoder::of_chunk(encoding, data).and_then(&mut take).map_err(|error| {
                let path = self.block.chunks.path_of(chunk.reference).unwrap_or(self.block.dir());
                ReadError::Corrupt(format!("{}: chunk {}: {error}", path.display(), chunk.reference & 0xffff_ffff))
            });
            taken.or_else(|error| self.notes.met(&self.block, error))?;
        }
        Ok(())
    }

    fn is_deleted(&self, t: i64) -> bool {
        self.deleted.iter().any(|interval| interval.contains(t))
    }

    fn take_floats(
        &self,
        range: TimeRange,
        decoder: XorDecoder<'_, [u8]>,
        last: &mut Option<i64>,
        out: &mut FloatColumn,
    ) -> Result<(), ChunkError> {
        let (min, max) = (range.min().0, range.max().0);
        let from = out.len();
        if self.deleted.is_empty() {
            decoder.clone().append_to(min, max, out)?;
            let new = out.timestamps.get(from..).unwrap_or(&[]);
            let is_later = last.zip(new.first()).is_none_or(|(last, first)| last < *first);
            if is_later && new.iter().zip(new.iter().skip(1)).fold(true, |sorted, (a, b)| sorted & (a < b)) {
                *last = new.last().copied().or(*last);
                return Ok(());
            }
            out.timestamps.truncate(from);
            out.values.truncate(from);
        }
        decoder.for_each(|t, value| {
            // Chunks of one series do not overlap in a sound block; in another one, time does not go back all the same.
            if min <= t && t <= max && last.is_none_or(|last| last < t) {
                *last = Some(t);
                if !self.is_deleted(t) {
                    out.push(t, value);
                }
            }
            true
        })
    }

    fn take_started(
        &self,
        range: TimeRange,
        mut decoder: Xor2Decoder<'_, [u8]>,
        last: &mut Option<i64>,
        mut take: impl FnMut(StartedSample),
    ) -> Result<(), ChunkError> {
        while let Some(sample) = decoder.next_sample()? {
            if range.contains(TimestampMs(sample.t)) && last.is_none_or(|last| last < sample.t) {
                *last = Some(sample.t);
                if !self.is_deleted(sample.t) {
                    take(sample);
                }
            }
        }
        Ok(())
    }

    fn take_histograms<H: Native>(
        &self,
        range: TimeRange,
        mut decoder: HistogramDecoder<'_, [u8], H>,
        last: &mut Option<i64>,
        out: &mut SampleColumn,
    ) -> Result<(), ChunkError> {
        // A chunk has no reset inside, but what came before it is not known if its first samples are deleted.
        let (mut is_first, mut lacks_first) = (true, false);
        while let Some(t) = decoder.advance()? {
            if last.is_some_and(|last| t <= last) || !range.contains(TimestampMs(t)) {
                continue;
            }
            *last = Some(t);
            if self.is_deleted(t) {
                lacks_first |= is_first;
                continue;
            }
            let mut histogram = decoder.float_histogram();
            if is_first && lacks_first && histogram.counter_reset_hint == CounterResetHint::NotReset {
                histogram.counter_reset_hint = CounterResetHint::Unknown;
            }
            is_first = false;
            out.push_histogram(t, decoder.start(), Arc::new(histogram));
        }
        Ok(())
    }
}

impl SampleSource for BlockSeries {
    fn decode(&self, range: TimeRange, out: &mut FloatColumn) -> Result<(), ReadError> {
        let mut last = None;
        self.each_chunk(range, |decoder| match decoder {
            ChunkDecoder::Floats(decoder) => self.take_floats(range, decoder, &mut last, out),
            ChunkDecoder::StartedFloats(decoder) => {
                self.take_started(range, *decoder, &mut last, |sample| out.push(sample.t, sample.value))
            }
            ChunkDecoder::Histograms(_) | ChunkDecoder::FloatHistograms(_) => Ok(()),
        })
    }

    fn decode_all(&self, range: TimeRange, out: &mut SampleColumn) -> Result<(), ReadError> {
        let mut last = None;
        self.each_chunk(range, |decoder| match decoder {
            ChunkDecoder::Floats(decoder) => {
                self.take_floats(range, decoder, &mut last, &mut out.floats)?;
                if !out.float_starts.is_empty() {
                    out.float_starts.resize(out.floats.len(), 0);
                }
                Ok(())
            }
            ChunkDecoder::StartedFloats(decoder) => self.take_started(range, *decoder, &mut last, |sample| {
                out.push_float(sample.t, sample.start, sample.value);
            }),
            ChunkDecoder::Histograms(decoder) => self.take_histograms(range, *decoder, &mut last, out),
            ChunkDecoder::FloatHistograms(decoder) => self.take_histograms(range, *decoder, &mut last, out),
        })
    }

    fn whole_histogram_times(&self, range: TimeRange, out: &mut Vec<i64>) -> Result<(), ReadError> {
        self.each_chunk(range, |decoder| {
            if let ChunkDecoder::Histograms(mut decoder) = decoder {
                while let Some(t) = decoder.advance()? {
                    out.push(t);
                }
            }
            Ok(())
        })
    }
}
