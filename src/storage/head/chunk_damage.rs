//! Which chunks of a head do not stand in their files any more.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use crate::model::labels::Labels;
use crate::model::sample::SeriesRef;
use crate::storage::chunk::written::{ChunkPlace, WrittenChunk};
use crate::storage::head::Head;
use crate::storage::head::late::WrittenLate;
use crate::storage::head::view::HeadView;
use crate::storage::head_chunk_store::{FileSet, Files};
use crate::storage::head_chunks::OUT_OF_ORDER;

/// A series with damaged chunks.
#[derive(Debug)]
pub(crate) struct DamagedSeries {
    pub(crate) series: SeriesRef,
    pub(crate) labels: Labels,
    /// In the order in which they were written.
    pub(crate) chunks: Vec<WrittenChunk>,
    /// Whether their samples came out of order.
    pub(crate) are_late: bool,
    /// If so, for each: times of samples of other chunks that lie between its own.
    pub(crate) beside: Vec<HashSet<i64>>,
    /// Where they should stand.
    pub(crate) files: Arc<FileSet>,
}

impl Head {
    /// Reads all chunks of files with these numbers, and returns those that are damaged and for which nothing stands, about `count_max` of
    /// them at most; and the places of all chunks for which something stands.
    pub(crate) fn damaged_chunks(
        &self,
        files: &Files,
        numbers: &BTreeSet<u64>,
        count_max: usize,
    ) -> (Vec<DamagedSeries>, HashSet<ChunkPlace>) {
        let view = HeadView::open(&self.shared, self.shards());
        let (mut found, mut known, mut count, mut buffer) = (Vec::new(), HashSet::new(), 0, Vec::new());
        view.for_each_named(|cell, labels| {
            let column = cell.column();
            let sealed = column.as_ref().and_then(|column| column.sealed.as_deref());
            let Some((set, chunks)) = sealed.and_then(|sealed| sealed.written()) else { return };
            let mut damaged = Vec::new();
            for chunk in chunks {
                if files.stand_ins().get(chunk.place).is_some() {
                    known.insert(chunk.place);
                } else if count + damaged.len() < count_max
                    && numbers.contains(&chunk.place.file())
                    && !set.holds(&chunk, 0, &mut buffer)
                {
                    damaged.push(chunk);
                }
            }
            if !damaged.is_empty() {
                count += damaged.len();
                let (series, files) = (cell.series(), Arc::clone(set));
                let (labels, beside) = (labels(), Vec::new());
                found.push(DamagedSeries { series, labels, chunks: damaged, are_late: false, beside, files });
            }
        });
        view.for_each_late(|series, labels, late| {
            let Some((set, chunks)) = late.in_files() else { return };
            let mut damaged = Vec::new();
            for WrittenLate { chunk, .. } in chunks {
                if files.stand_ins().get(chunk.place).is_some() {
                    known.insert(chunk.place);
                } else if count + damaged.len() < count_max
                    && numbers.contains(&chunk.place.file())
                    && !set.holds(chunk, OUT_OF_ORDER, &mut buffer)
                {
                    damaged.push(*chunk);
                }
            }
            if !damaged.is_empty() {
                count += damaged.len();
                let beside = damaged.iter().map(|chunk| late.times_beside(chunk)).collect();
                let files = Arc::clone(set);
                found.push(DamagedSeries { series, labels, chunks: damaged, are_late: true, beside, files });
            }
        });
        (found, known)
    }

    /// Whether something may read one of its files of finished chunks; so it is if what it reads is not known.
    pub fn uses_chunk_file(&self, number: u64) -> bool {
        self.chunk_store().is_none_or(|store| !store.is_complete() || store.files().uses(number))
    }

    /// Time before which nothing is read.
    pub(crate) fn min_valid(&self) -> i64 {
        self.shared.min_valid()
    }
}
