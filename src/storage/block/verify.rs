//! Checks that the parts of a block fit each other. `meta.json` has no checksum, and a chunk segment that is missing or cut shows
//! only when it is read: a block whose parts contradict each other is damaged, and has to be known as such before it is asked.
//!
//! Small indexes are checked whole, of large ones some hundred series.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use crate::model::read::ReadError;
use crate::storage::block::chunks::{ChunkReader, ReadAhead};
use crate::storage::block::index_read::{IndexReader, Next, SymbolMemo};
use crate::storage::block::meta::BlockMeta;
use crate::storage::block::pages::PageCache;
use crate::storage::block::{BlockError, INDEX_FILE};
use crate::storage::fs::Fs;

/// Bytes of an index that is checked whole.
const WHOLE_LEN_MAX: u64 = 8 << 20;
/// Series that are looked at in a larger one, about.
const SAMPLED: usize = 512;

/// What a look at the series has shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Content {
    /// Times of the oldest and the newest sample that were seen; `None` without chunks.
    pub(super) span: Option<(i64, i64)>,
    /// Series and chunks, if all were looked at.
    pub(super) counts: Option<(u64, u64)>,
}

/// Compares what the index at `dir` lists with the description and with the chunk segments.
pub(super) fn verify(
    dir: &Path,
    meta: &BlockMeta,
    index: &IndexReader,
    chunks: &ChunkReader,
) -> Result<Content, BlockError> {
    let path = dir.join(INDEX_FILE);
    let corrupt = |reason: String| BlockError::corrupt(&path, 0, reason);
    let (content, newest) = look(index).map_err(|error| corrupt(error.to_string()))?;
    if let Some((min_t, max_t)) = content.span
        && (min_t < meta.min_time || meta.max_time <= max_t)
    {
        let reason =
            format!("its chunks span {min_t} to {max_t}, and meta.json says {} to {}", meta.min_time, meta.max_time);
        return Err(corrupt(reason));
    }
    if content.counts.is_some_and(|(series, _)| series == 0) && 0 < meta.stats.num_series {
        return Err(corrupt(format!("it lists no series, and meta.json says {}", meta.stats.num_series)));
    }
    // The last chunk of each segment: it is there only if the segment is whole.
    let mut ahead = ReadAhead::default();
    for reference in newest.values() {
        chunks.read(*reference, *reference, &mut ahead)?;
    }
    if let Some((series, count)) = content.counts {
        let said = (meta.stats.num_series, meta.stats.num_chunks);
        if said != (0, 0) && said != (series, count) {
            tracing::warn!(component = "tsdb", block = %meta.ulid, series, chunks = count, ?said,
                "meta.json counts other series and chunks than the index lists; its figures are wrong");
        }
    }
    Ok(content)
}

/// The range of a block whose description cannot be read, end exclusive; `None` if its index tells nothing either.
pub(super) fn range_of(fs: &dyn Fs, dir: &Path, cache: &Arc<PageCache>) -> Option<(i64, i64)> {
    let index = IndexReader::open(fs, &dir.join(INDEX_FILE), cache).ok()?;
    let (content, _) = look(&index).ok()?;
    content.span.map(|(min_t, max_t)| (min_t, max_t.saturating_add(1)))
}

/// Looks at series; tells their chunks' times as well as the last chunk of each segment.
fn look(index: &IndexReader) -> Result<(Content, BTreeMap<u64, u64>), ReadError> {
    let ids = index.all_postings()?;
    let is_whole = index.len() <= WHOLE_LEN_MAX;
    let step = if is_whole { 1 } else { ids.len().div_ceil(SAMPLED).max(1) };
    let (mut content, mut newest) = (Content::default(), BTreeMap::new());
    let (mut memo, mut series_count, mut chunk_count) = (SymbolMemo::default(), 0u64, 0u64);
    for id in ids.iter().step_by(step).chain(ids.last().filter(|_| 1 < step)) {
        let series = index.series(*id, &mut memo)?;
        series_count += 1;
        chunk_count += series.chunks.len() as u64;
        for chunk in &series.chunks {
            let (min_t, max_t) = content.span.unwrap_or((chunk.min_t, chunk.max_t));
            content.span = Some((min_t.min(chunk.min_t), max_t.max(chunk.max_t)));
            let last = newest.entry(chunk.reference >> 32).or_insert(chunk.reference);
            *last = (*last).max(chunk.reference);
        }
    }
    if is_whole {
        content.counts = Some((series_count, chunk_count));
        check_postings(index)?;
    }
    Ok((content, newest))
}

/// Reads every postings list.
fn check_postings(index: &IndexReader) -> Result<(), ReadError> {
    for name in index.names() {
        index.values_from(name, "", &mut |_, offset| {
            index.postings(offset)?;
            Ok(Next::Go)
        })?;
    }
    Ok(())
}
