//! Reads head and blocks as one: series by series, their samples merged by time. Blocks may overlap each other and the head;
//! of samples with the same time stamp one is kept.

use std::cmp::Ordering;
use std::sync::Arc;

use hashbrown::HashSet;

use crate::model::histogram::CounterResetHint;
use crate::model::labels::Labels;
use crate::model::matcher::{MatchOp, Matcher};
use crate::model::read::{
    FloatColumn, HistogramColumn, Queryable, ReadBudget, ReadError, ReadView, SampleColumn, SampleSource,
    SelectedSeries,
};
use crate::model::time::{TimeRange, TimestampMs};
use crate::storage::block::catalog::{Catalog, CatalogState};
use crate::storage::block::chunks::{ChunkMeta, ReadAhead, encoding_name};
use crate::storage::block::index_read::{Next, SymbolMemo};
use crate::storage::block::read::Block;
use crate::storage::block::select::select_ids;
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

/// Opens views of a head and of the blocks of a catalog.
pub struct StoreQueryable {
    head: Arc<dyn Queryable>,
    catalog: Arc<Catalog>,
}

impl StoreQueryable {
    /// Both as one.
    pub fn new(head: Arc<dyn Queryable>, catalog: Arc<Catalog>) -> Self {
        Self { head, catalog }
    }
}

impl Queryable for StoreQueryable {
    fn view(&self) -> Result<Arc<dyn ReadView>, ReadError> {
        self.catalog.beside_deletions(|| {
            // The head first: what it gives up between the two steps stands in a block by then.
            let head = self.head.view()?;
            let view: Arc<dyn ReadView> = Arc::new(StoreView { head: Some(head), blocks: self.catalog.state() });
            Ok(view)
        })
    }
}

/// A view of head and blocks.
pub struct StoreView {
    head: Option<Arc<dyn ReadView>>,
    blocks: Arc<CatalogState>,
}

impl StoreView {
    /// A view of blocks alone, for tools.
    pub fn of_blocks(blocks: Arc<CatalogState>) -> Self {
        Self { head: None, blocks }
    }

    /// The blocks that a read of `range` has to look at. Errors if one of them is damaged.
    fn touched(&self, range: TimeRange) -> Result<impl Iterator<Item = &Arc<Block>>, ReadError> {
        let (min, max) = (range.min().0, range.max().0);
        if let Some(damaged) = self.blocks.damaged.iter().find(|damaged| damaged.overlaps(min, max)) {
            return Err(ReadError::Corrupt(format!("block {} cannot be read: {}", damaged.name, damaged.reason)));
        }
        Ok(self.blocks.blocks.iter().filter(move |block| block.overlaps(min, max)))
    }

    /// Gathers texts of the head and of the blocks, sorted and unique.
    fn gather(
        &self,
        range: TimeRange,
        budget: &dyn ReadBudget,
        of_head: impl Fn(&dyn ReadView) -> Result<Vec<String>, ReadError>,
        of_block: impl Fn(&Arc<Block>, &mut dyn FnMut(&str) -> Result<(), ReadError>) -> Result<(), ReadError>,
    ) -> Result<Vec<String>, ReadError> {
        let of_head = match &self.head {
            Some(head) => of_head(&**head)?,
            None => Vec::new(),
        };
        let mut touched = self.touched(range)?.peekable();
        if touched.peek().is_none() {
            return Ok(of_head);
        }
        let mut texts = Texts { sorted: of_head, next: 0, more: HashSet::default() };
        for block in touched {
            budget.check()?;
            texts.next = 0;
            of_block(block, &mut |text| {
                if !text.is_empty() && !texts.holds(text) {
                    budget.charge(text.len() + 2 * size_of::<String>())?;
                    texts.more.insert(text.to_owned());
                }
                Ok(())
            })?;
            texts.settle();
        }
        Ok(texts.sorted)
    }
}

impl ReadView for StoreView {
    fn select(
        &self,
        matchers: &[Matcher],
        range: TimeRange,
        budget: &dyn ReadBudget,
    ) -> Result<Vec<SelectedSeries>, ReadError> {
        let mut sources = Vec::new();
        for block in self.touched(range)? {
            sources.push(select_block(block, matchers, range, budget)?);
        }
        if let Some(head) = &self.head {
            sources.push(head.select(matchers, range, budget)?);
        }
        sources.retain(|source| !source.is_empty());
        if sources.len() <= 1 {
            return Ok(sources.pop().unwrap_or_default());
        }
        joined(sources, budget)
    }

    fn label_names(
        &self,
        matchers: &[Matcher],
        range: TimeRange,
        budget: &dyn ReadBudget,
    ) -> Result<Vec<String>, ReadError> {
        let of_head = |head: &dyn ReadView| head.label_names(matchers, range, budget);
        self.gather(range, budget, of_head, |block, add| {
            if matchers.is_empty() {
                return block.index.names().try_for_each(add);
            }
            for_each_series(block, matchers, budget, |labels| labels.iter().try_for_each(|(name, _)| add(name)))
        })
    }

    fn label_values(
        &self,
        name: &str,
        matchers: &[Matcher],
        range: TimeRange,
        budget: &dyn ReadBudget,
    ) -> Result<Vec<String>, ReadError> {
        let of_head = |head: &dyn ReadView| head.label_values(name, matchers, range, budget);
        self.gather(range, budget, of_head, |block, add| {
            if matchers.is_empty() {
                let mut steps = 0;
                return block.index.values_from(name, "", &mut |value, _| {
                    steps += 1;
                    if steps % CHECK_EVERY == 0 {
                        budget.check()?;
                    }
                    add(value).map(|()| Next::Go)
                });
            }
            for_each_series(block, matchers, budget, |labels| add(labels.get(name).unwrap_or("")))
        })
    }

    fn series_estimate(&self, matchers: &[Matcher], range: TimeRange) -> Result<Option<usize>, ReadError> {
        let mut count = match &self.head {
            Some(head) => match head.series_estimate(matchers, range)? {
                Some(count) => count,
                None => return Ok(None),
            },
            None => 0,
        };
        for block in self.touched(range)? {
            let mut least = usize::MAX;
            for matcher in matchers.iter().filter(|m| m.op() == MatchOp::Equal && !m.value().is_empty()) {
                let of_pair = match block.index.postings_of(matcher.name(), matcher.value())? {
                    Some(offset) => block.index.postings_len(offset)?,
                    None => 0,
                };
                least = least.min(of_pair);
            }
            count = count.saturating_add(least);
        }
        Ok(Some(count))
    }
}

/// Texts without repetition. Those of the next source mostly come in order and are known.
struct Texts {
    sorted: Vec<String>,
    /// Behind the text of `sorted` that was found last.
    next: usize,
    /// What came since `sorted` was made and is not in it.
    more: HashSet<String, foldhash::fast::RandomState>,
}

impl Texts {
    fn holds(&mut self, text: &str) -> bool {
        if self.sorted.get(self.next).is_some_and(|next| next == text) {
            self.next += 1;
            return true;
        }
        match self.sorted.binary_search_by(|known| known.as_str().cmp(text)) {
            Ok(place) => {
                self.next = place + 1;
                true
            }
            Err(place) => {
                self.next = place;
                self.more.contains(text)
            }
        }
    }

    fn settle(&mut self) {
        if !self.more.is_empty() {
            self.sorted.extend(self.more.drain());
            self.sorted.sort_unstable();
        }
    }
}

/// Merges selections, each sorted, into one. What has the same labels becomes one series, its sources in their order.
fn joined(selections: Vec<Vec<SelectedSeries>>, budget: &dyn ReadBudget) -> Result<Vec<SelectedSeries>, ReadError> {
    let room = selections.iter().map(Vec::len).max().unwrap_or(0);
    let mut out: Vec<SelectedSeries> = Vec::with_capacity(room);
    let mut sources: Vec<_> = selections.into_iter().map(|selection| selection.into_iter().peekable()).collect();
    let mut same: Vec<Arc<dyn SampleSource>> = Vec::with_capacity(sources.len());
    loop {
        if out.len().is_multiple_of(CHECK_EVERY) {
            budget.check()?;
        }
        // The first of the smallest.
        let mut least: Option<(usize, &Labels)> = None;
        let mut is_shared = false;
        for (number, source) in sources.iter_mut().enumerate() {
            let Some(next) = source.peek() else { continue };
            match least.map(|(_, labels)| next.labels.cmp(labels)) {
                None | Some(Ordering::Less) => (least, is_shared) = (Some((number, &next.labels)), false),
                Some(Ordering::Equal) => is_shared = true,
                Some(Ordering::Greater) => {}
            }
        }
        let Some((number, _)) = least else { return Ok(out) };
        let Some(mut series) = sources.get_mut(number).and_then(Iterator::next) else { return Ok(out) };
        if is_shared {
            same.push(series.samples);
            for source in sources.iter_mut().skip(number + 1) {
                same.extend(source.next_if(|next| next.labels == series.labels).map(|next| next.samples));
            }
            series.samples = Arc::new(MergedSamples { sources: same.drain(..).collect() });
        }
        out.push(series);
    }
}

fn for_each_series(
    block: &Arc<Block>,
    matchers: &[Matcher],
    budget: &dyn ReadBudget,
    mut take: impl FnMut(&Labels) -> Result<(), ReadError>,
) -> Result<(), ReadError> {
    let mut memo = SymbolMemo::default();
    for (number, id) in select_ids(&block.index, matchers, budget)?.into_iter().enumerate() {
        if number % CHECK_EVERY == 0 {
            budget.check()?;
        }
        take(&block.index.series(id, &mut memo)?.labels)?;
    }
    Ok(())
}

/// The series of a block, in the order of their labels.
fn select_block(
    block: &Arc<Block>,
    matchers: &[Matcher],
    range: TimeRange,
    budget: &dyn ReadBudget,
) -> Result<Vec<SelectedSeries>, ReadError> {
    let mut memo = SymbolMemo::default();
    let ids = select_ids(&block.index, matchers, budget)?;
    let mut selected = Vec::with_capacity(ids.len());
    for (number, id) in ids.into_iter().enumerate() {
        if number % CHECK_EVERY == 0 {
            budget.check()?;
        }
        let series = block.index.series(id, &mut memo)?;
        let deleted = block.tombstones.of_series(u64::from(id));
        let chunks: Box<[ChunkMeta]> = series
            .chunks
            .into_iter()
            .filter(|chunk| range.overlaps(TimestampMs(chunk.min_t), TimestampMs(chunk.max_t)))
            .filter(|chunk| !deleted.iter().any(|i| i.min_t <= chunk.min_t && chunk.max_t <= i.max_t))
            .collect();
        if chunks.is_empty() {
            continue;
        }
        budget.charge(series.labels.encoded_len() + SELECTED_LEN + size_of_val(&*chunks) + size_of_val(deleted))?;
        let samples = BlockSeries { block: Arc::clone(block), chunks, deleted: deleted.into() };
        selected.push(SelectedSeries { labels: series.labels, samples: Arc::new(samples) });
    }
    Ok(selected)
}

/// Samples of one series in one block.
struct BlockSeries {
    block: Arc<Block>,
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
            let (id, data) = self.block.chunks.read(chunk.reference, until, &mut ahead)?;
            let Ok(encoding) = Encoding::from_id(id) else {
                return Err(ReadError::Unsupported(format!(
                    "block {} holds a chunk of encoding {} ({id}), which cannot be read yet",
                    self.block.meta().ulid,
                    encoding_name(id)
                )));
            };
            ChunkDecoder::of_chunk(encoding, data).and_then(&mut take).map_err(|error| {
                let path = self.block.chunks.path_of(chunk.reference).unwrap_or(self.block.dir());
                ReadError::Corrupt(format!("{}: chunk {}: {error}", path.display(), chunk.reference & 0xffff_ffff))
            })?;
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

/// Samples of one series in several places, oldest block first, the head last.
struct MergedSamples {
    sources: Box<[Arc<dyn SampleSource>]>,
}

impl SampleSource for MergedSamples {
    fn whole_histogram_times(&self, range: TimeRange, out: &mut Vec<i64>) -> Result<(), ReadError> {
        self.sources.iter().try_for_each(|source| source.whole_histogram_times(range, out))
    }

    fn decode(&self, range: TimeRange, out: &mut FloatColumn) -> Result<(), ReadError> {
        // A float may give way to a histogram of an older source, so histograms are looked at as well.
        let mut all = SampleColumn::default();
        self.decode_all(range, &mut all)?;
        out.timestamps.append(&mut all.floats.timestamps);
        out.values.append(&mut all.floats.values);
        Ok(())
    }

    fn decode_all(&self, range: TimeRange, out: &mut SampleColumn) -> Result<(), ReadError> {
        let (floats_from, histograms_from) = (out.floats.len(), out.histograms.len());
        for source in &self.sources {
            let (floats_to, histograms_to) = (out.floats.len(), out.histograms.len());
            let own = |times: &[i64], from: usize| times.get(from..).and_then(|own| own.last().copied());
            let newest = own(&out.floats.timestamps, floats_from).max(own(&out.histograms.timestamps, histograms_from));
            source.decode_all(range, out)?;
            let new_float = out.floats.timestamps.get(floats_to).copied();
            let new_histogram = out.histograms.timestamps.get(histograms_to).copied();
            let oldest_new = new_float.into_iter().chain(new_histogram).min();
            // Mostly a source begins where the one before it ended.
            if newest.zip(oldest_new).is_none_or(|(newest, oldest_new)| newest < oldest_new) {
                if histograms_from < histograms_to
                    && let Some(first) = out.histograms.values.get_mut(histograms_to)
                    && first.counter_reset_hint == CounterResetHint::NotReset
                {
                    Arc::make_mut(first).counter_reset_hint = CounterResetHint::Unknown;
                }
                continue;
            }
            let mut one = SampleColumn::default();
            one.floats.timestamps = out.floats.timestamps.split_off(floats_to);
            one.floats.values = out.floats.values.split_off(floats_to);
            one.histograms.timestamps = out.histograms.timestamps.split_off(histograms_to);
            one.histograms.values = out.histograms.values.split_off(histograms_to);
            // Sources of a different kind of sample at one time: that of the first source stays.
            let held = |times: &[i64], t: i64| times.binary_search(&t).is_ok();
            if !one.histograms.is_empty() && floats_from < out.floats.len() {
                let own = out.floats.timestamps.get(floats_from..).unwrap_or(&[]);
                without_times(&mut one.histograms, |t| held(own, t));
            }
            if !one.floats.is_empty() && histograms_from < out.histograms.len() {
                let own = out.histograms.timestamps.get(histograms_from..).unwrap_or(&[]);
                let kept = one.floats.timestamps.iter().zip(&one.floats.values).filter(|(t, _)| !held(own, **t));
                let (timestamps, values) = kept.map(|(t, value)| (*t, *value)).unzip();
                one.floats = FloatColumn { timestamps, values };
            }
            merge_behind(&mut out.floats, floats_from, &one.floats);
            merge_histograms(&mut out.histograms, histograms_from, &one.histograms);
        }
        // Storage keeps no starts; where others are known, there is one for each sample.
        if !out.float_starts.is_empty() {
            out.float_starts.resize(out.floats.len(), 0);
        }
        if !out.histogram_starts.is_empty() {
            out.histogram_starts.resize(out.histograms.len(), 0);
        }
        Ok(())
    }
}

/// Drops the histograms at some times.
fn without_times(column: &mut HistogramColumn, drops: impl Fn(i64) -> bool) {
    let mut kept = HistogramColumn::default();
    for (t, histogram) in column.timestamps.iter().zip(&column.values) {
        if !drops(*t) {
            kept.push(*t, Arc::clone(histogram));
        }
    }
    *column = kept;
}

/// Merges ascending histograms into those of `out` from `begin` on; of two with the same time stamp the one in `out` stays.
/// Where the sources alternate, what a histogram says of the one before it does not hold any more.
fn merge_histograms(out: &mut HistogramColumn, begin: usize, new: &HistogramColumn) {
    if new.is_empty() {
        return;
    }
    let mut own = out.timestamps.split_off(begin).into_iter().zip(out.values.split_off(begin)).peekable();
    let mut other = new.timestamps.iter().copied().zip(new.values.iter().cloned()).peekable();
    let mut last_is_own = None;
    loop {
        let takes_own = match (own.peek(), other.peek()) {
            (Some((a, _)), Some((b, _))) => {
                let (is_own, is_same) = (a <= b, a == b);
                if is_same {
                    other.next();
                }
                is_own
            }
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (None, None) => break,
        };
        let next = if takes_own { own.next() } else { other.next() };
        let Some((t, mut histogram)) = next else { break };
        let has_changed = last_is_own.replace(takes_own).is_some_and(|before| before != takes_own);
        if has_changed && histogram.counter_reset_hint == CounterResetHint::NotReset {
            Arc::make_mut(&mut histogram).counter_reset_hint = CounterResetHint::Unknown;
        }
        out.push(t, histogram);
    }
}

/// Merges ascending samples into those of `out` from `begin` on; of two with the same time stamp the one in `out` stays.
fn merge_behind(out: &mut FloatColumn, begin: usize, new: &FloatColumn) {
    let own_t = out.timestamps.split_off(begin);
    let own_v = out.values.split_off(begin);
    let mut own = own_t.into_iter().zip(own_v).peekable();
    let mut other = new.timestamps.iter().copied().zip(new.values.iter().copied()).peekable();
    loop {
        let next = match (own.peek(), other.peek()) {
            (Some((a, _)), Some((b, _))) if a == b => {
                other.next();
                own.next()
            }
            (Some((a, _)), Some((b, _))) if b < a => other.next(),
            (Some(_), _) => own.next(),
            (None, _) => other.next(),
        };
        let Some((t, value)) = next else { break };
        out.push(t, value);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    struct Plain(FloatColumn);

    impl SampleSource for Plain {
        fn decode(&self, range: TimeRange, out: &mut FloatColumn) -> Result<(), ReadError> {
            for (t, v) in self.0.timestamps.iter().zip(&self.0.values) {
                if range.contains(TimestampMs(*t)) {
                    out.push(*t, *v);
                }
            }
            Ok(())
        }
    }

    proptest! {
        #[test]
        fn merged_samples_ascend_and_the_first_source_wins(
            sources in proptest::collection::vec(proptest::collection::btree_set(0i64..60, 0..20), 1..4)
        ) {
            let column = |number: usize, times: &BTreeSet<i64>| {
                let mut column = FloatColumn::default();
                times.iter().for_each(|t| column.push(*t, number as f64));
                column
            };
            let plain = sources.iter().enumerate().map(|(n, times)| Arc::new(Plain(column(n, times))) as Arc<dyn SampleSource>);
            let merged = MergedSamples { sources: plain.collect() };
            let mut out = FloatColumn::default();
            out.push(-7, 9.0);
            merged.decode(TimeRange::ALL, &mut out).unwrap();
            let mut expected = FloatColumn::default();
            expected.push(-7, 9.0);
            for t in 0..60 {
                if let Some(first) = sources.iter().position(|times| times.contains(&t)) {
                    expected.push(t, first as f64);
                }
            }
            prop_assert_eq!(out, expected);
        }
    }
}
