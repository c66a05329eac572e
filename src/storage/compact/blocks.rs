//! Several blocks become one. Chunks that do not overlap go over as they are; others are decoded, merged and cut anew. What
//! tombstones delete is left out.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crate::model::clock::SharedClock;
use crate::model::give_way::give_way;
use crate::model::labels::Labels;
use crate::model::random::Random;
use crate::storage::block::BlockError;
use crate::storage::block::catalog::Catalog;
use crate::storage::block::chain::GoHeap;
use crate::storage::block::chunks::{ChunkData, ReadAhead, encoding_name};
use crate::storage::block::index_read::{IndexSeries, SymbolMemo};
use crate::storage::block::meta::BlockMeta;
use crate::storage::block::read::Block;
use crate::storage::block::rewrite;
use crate::storage::block::tombstones::Interval;
use crate::storage::block::ulid::Ulid;
use crate::storage::block::write::BlockWriter;
use crate::storage::chunk::{ChunkError, Encoding};
use crate::storage::compact::{CompactError, Step, count_run};

/// A block of blocks in the making.
pub struct BlockCompaction {
    sources: Vec<Source>,
    next: GoHeap<Entry>,
    /// Sources whose series were taken last: they go on in this order, which among equals decides.
    current: Vec<usize>,
    /// Taken when it is published.
    writer: Option<BlockWriter>,
    catalog: Arc<Catalog>,
    clock: SharedClock,
    began: Duration,
}

/// A block that goes in.
struct Source {
    block: Arc<Block>,
    ids: std::vec::IntoIter<u32>,
    memo: SymbolMemo,
    ahead: ReadAhead,
}

/// The next series of one source.
struct Entry {
    series: IndexSeries,
    id: u32,
    source: usize,
}

impl Entry {
    fn comes_before(&self, other: &Self) -> bool {
        self.series.labels < other.series.labels
    }
}

impl BlockCompaction {
    /// Begins the block that replaces `sources`, of which there is at least one.
    pub fn begin(
        catalog: &Arc<Catalog>,
        sources: Vec<Arc<Block>>,
        segment_len: u64,
        clock: &SharedClock,
        random: &mut Random,
    ) -> Result<Self, CompactError> {
        let parents: Vec<&BlockMeta> = sources.iter().map(|block| block.meta()).collect();
        let meta = BlockMeta::merged(Ulid::new(clock.now(), random), &parents);
        Self::begin_as(meta, catalog, sources, segment_len, clock)
    }

    /// Begins the block that replaces `source` without what is deleted of it. It begins anew as a block of the first level, as in
    /// Prometheus.
    pub fn clean(
        catalog: &Arc<Catalog>,
        source: Arc<Block>,
        segment_len: u64,
        clock: &SharedClock,
        random: &mut Random,
    ) -> Result<Self, CompactError> {
        let meta = BlockMeta::cleaned(Ulid::new(clock.now(), random), source.meta());
        Self::begin_as(meta, catalog, vec![source], segment_len, clock)
    }

    fn begin_as(
        meta: BlockMeta,
        catalog: &Arc<Catalog>,
        sources: Vec<Arc<Block>>,
        segment_len: u64,
        clock: &SharedClock,
    ) -> Result<Self, CompactError> {
        let began = clock.monotonic();
        let parents: Vec<&BlockMeta> = sources.iter().map(|block| block.meta()).collect();
        let mut end = i64::MIN;
        let overlaps = parents.iter().any(|parent| {
            let overlaps = parent.min_time < end;
            end = end.max(parent.max_time);
            overlaps
        });
        if overlaps {
            catalog.metrics().vertical.inc();
            tracing::info!(component = "tsdb", ulid = %meta.ulid, "Found overlapping blocks during compaction");
        }
        let mut symbols = BTreeSet::new();
        for block in &sources {
            block.index().symbols(&mut |symbol| {
                if !symbols.contains(symbol) {
                    symbols.insert(symbol.to_owned());
                }
            })?;
        }
        catalog.metrics().populating.set(1.0);
        let symbols = symbols.into_iter().collect();
        let writer = BlockWriter::create(catalog.fs(), catalog.dir(), meta, symbols, segment_len)?;
        let (catalog, clock) = (Arc::clone(catalog), SharedClock::clone(clock));
        let (next, writer, current) = (GoHeap::default(), Some(writer), Vec::new());
        let mut compaction = Self { sources: Vec::new(), next, current, writer, catalog, clock, began };
        for block in sources {
            let ids = block.index().all_postings()?.into_iter();
            compaction.sources.push(Source { block, ids, memo: SymbolMemo::default(), ahead: ReadAhead::default() });
        }
        for source in 0..compaction.sources.len() {
            compaction.enter_next(source)?;
        }
        Ok(compaction)
    }

    /// Writes up to `series_max` series.
    pub fn step(&mut self, series_max: usize) -> Result<Step, CompactError> {
        for _ in 0..series_max {
            give_way();
            let Some((labels, chunks)) = self.next_series()? else { return Ok(Step::Done) };
            if let Some(writer) = &mut self.writer {
                writer.add_series(&labels, &chunks)?;
            }
        }
        Ok(Step::More)
    }

    /// Publishes the block. `None`: nothing was left of its sources, which are marked to be removed.
    pub fn publish(mut self) -> Result<Option<BlockMeta>, CompactError> {
        let sources: Vec<Arc<Block>> = self.sources.iter().map(|source| Arc::clone(&source.block)).collect();
        let took = self.clock.monotonic().saturating_sub(self.began);
        let catalog = Arc::clone(&self.catalog);
        let Some(writer) = self.writer.take() else { return Ok(None) };
        let published = writer.publish()?;
        match &published {
            Some(meta) => tracing::info!(component = "tsdb", count = sources.len(), mint = meta.min_time,
                maxt = meta.max_time, ulid = %meta.ulid, duration = ?took, "compact blocks"),
            None => {
                for block in &sources {
                    let mut meta = BlockMeta::read(&**catalog.fs(), block.dir())?;
                    meta.compaction.deletable = true;
                    meta.write(&**catalog.fs(), block.dir())?;
                }
                tracing::info!(component = "tsdb", count = sources.len(), "compact blocks resulted in empty block");
            }
        }
        Ok(published)
    }

    fn next_series(&mut self) -> Result<Option<(Labels, Vec<ChunkData>)>, CompactError> {
        for source in std::mem::take(&mut self.current) {
            self.enter_next(source)?;
        }
        let Some(first) = self.next.pop(Entry::comes_before) else { return Ok(None) };
        let labels = first.series.labels.clone();
        let mut chunks = vec![self.read_chunks(&first)?];
        self.current.push(first.source);
        while self.next.first().is_some_and(|next| next.series.labels == labels) {
            let Some(same) = self.next.pop(Entry::comes_before) else { break };
            chunks.push(self.read_chunks(&same)?);
            self.current.push(same.source);
        }
        Ok(Some((labels, without_overlaps(chunks, self.catalog.floats_with_starts())?)))
    }

    fn enter_next(&mut self, source: usize) -> Result<(), CompactError> {
        let Some(from) = self.sources.get_mut(source) else { return Ok(()) };
        if let Some(id) = from.ids.next() {
            let series = from.block.index().series(id, &mut from.memo)?;
            self.next.push(Entry { series, id, source }, Entry::comes_before);
        }
        Ok(())
    }

    fn read_chunks(&mut self, entry: &Entry) -> Result<Vec<ChunkData>, CompactError> {
        let Some(from) = self.sources.get_mut(entry.source) else { return Ok(Vec::new()) };
        let deleted = from.block.tombstones.of_series(u64::from(entry.id));
        let until = entry.series.chunks.last().map_or(0, |chunk| chunk.reference);
        let mut chunks = Vec::with_capacity(entry.series.chunks.len());
        for meta in &entry.series.chunks {
            let (encoding, data) = from.block.chunks.read(meta.reference, until, &mut from.ahead)?;
            let chunk = ChunkData { min_t: meta.min_t, max_t: meta.max_t, encoding, data: data.to_vec() };
            if deleted.iter().any(|interval| interval.min_t <= meta.max_t && meta.min_t <= interval.max_t) {
                chunks.extend(without_deleted(&chunk, deleted)?);
            } else {
                chunks.push(chunk);
            }
        }
        Ok(chunks)
    }
}

impl Drop for BlockCompaction {
    fn drop(&mut self) {
        count_run(self.catalog.metrics(), self.clock.monotonic().saturating_sub(self.began));
    }
}

/// What tombstones leave of a chunk.
fn without_deleted(chunk: &ChunkData, deleted: &[Interval]) -> Result<Vec<ChunkData>, BlockError> {
    if deleted.iter().any(|interval| interval.min_t <= chunk.min_t && chunk.max_t <= interval.max_t) {
        return Ok(Vec::new());
    }
    let drops = |t| deleted.iter().any(|interval| interval.contains(t));
    rewrite::without(encoding_of(chunk)?, &chunk.data, drops).map_err(damaged)
}

fn encoding_of(chunk: &ChunkData) -> Result<Encoding, BlockError> {
    Encoding::from_id(chunk.encoding).map_err(|_| {
        let name = encoding_name(chunk.encoding);
        BlockError::input(format!("chunks of encoding {name} cannot be merged or cut yet"))
    })
}

fn damaged(error: ChunkError) -> BlockError {
    BlockError::input(error.to_string())
}

/// Chunks of several sources, each in the order of time, as those that follow each other in time; of chunks that overlap and are not
/// the same, the samples are merged and cut anew.
fn without_overlaps(mut sources: Vec<Vec<ChunkData>>, floats_with_starts: bool) -> Result<Vec<ChunkData>, BlockError> {
    if sources.len() <= 1 {
        return Ok(sources.pop().unwrap_or_default());
    }
    let less = |a: &Next, b: &Next| (a.chunk.min_t, a.chunk.max_t) < (b.chunk.min_t, b.chunk.max_t);
    let mut heap = GoHeap::default();
    sources.into_iter().filter_map(|chunks| Next::of(chunks.into_iter())).for_each(|first| heap.push(first, less));
    let mut out = Vec::new();
    while let Some(Next { chunk, rest }) = heap.pop(less) {
        Next::of(rest).into_iter().for_each(|next| heap.push(next, less));
        let mut end = chunk.max_t;
        let mut group = vec![chunk];
        while heap.first().is_some_and(|next| next.chunk.min_t <= end) {
            let Some(Next { chunk, rest }) = heap.pop(less) else { break };
            Next::of(rest).into_iter().for_each(|next| heap.push(next, less));
            if group.last() != Some(&chunk) {
                end = end.max(chunk.max_t);
                group.push(chunk);
            }
        }
        merge_group(&mut group, floats_with_starts, &mut out)?;
    }
    Ok(out)
}

/// The next chunk of a source and those behind it.
struct Next {
    chunk: ChunkData,
    rest: std::vec::IntoIter<ChunkData>,
}

impl Next {
    fn of(mut rest: std::vec::IntoIter<ChunkData>) -> Option<Self> {
        rest.next().map(|chunk| Self { chunk, rest })
    }
}

fn merge_group(
    group: &mut Vec<ChunkData>,
    floats_with_starts: bool,
    out: &mut Vec<ChunkData>,
) -> Result<(), BlockError> {
    if group.len() <= 1 {
        out.append(group);
        return Ok(());
    }
    let chunks: Vec<ChunkData> = std::mem::take(group);
    let mut parts: Vec<(Encoding, &[u8])> = Vec::with_capacity(chunks.len());
    for chunk in &chunks {
        parts.push((encoding_of(chunk)?, &chunk.data));
    }
    rewrite::merge(&parts, floats_with_starts, out).map_err(damaged)
}
