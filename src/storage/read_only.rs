//! A data directory opened for tools: nothing in it is changed, and it may be in use by a server.

use std::path::Path;
use std::sync::Arc;

use crate::model::clock::SystemClock;
use crate::model::read::{Queryable, ReadView};
use crate::model::time::TimestampMs;
use crate::storage::block::PageCache;
use crate::storage::block::catalog::Catalog;
use crate::storage::block::metrics::BlockMetrics;
use crate::storage::block::read::Block;
use crate::storage::block::view::{StoreQueryable, StoreView};
use crate::storage::fs::{RealFs, SharedFs};
use crate::storage::head::{Head, HeadOptions};
use crate::storage::head_chunks;
use crate::storage::late_floor;
use crate::storage::wal::writer::Position;
use crate::storage::wal::{WAL_DIR, read_until};
use crate::storage::wbl;
use crate::telemetry::metrics::Registry;

/// Bytes of index pages that are kept.
const CACHE_LEN: u64 = 64 << 20;

/// An open data directory.
pub struct ReadOnlyStore {
    fs: SharedFs,
    catalog: Arc<Catalog>,
}

/// What is read of it.
pub struct ReadOnlyView {
    /// Head and blocks.
    pub view: Arc<dyn ReadView>,
    /// True if only the head has a part in it.
    pub is_head_alone: bool,
}

impl ReadOnlyStore {
    /// Opens the blocks in `dir`. Errors, in words, if one of them is damaged and not replaced by another; those without a readable
    /// description are passed over, as in Prometheus.
    pub fn open(dir: &Path) -> Result<Self, String> {
        let fs = RealFs::shared();
        let metrics = BlockMetrics::new(&Registry::default());
        let catalog = Catalog::new(fs.clone(), dir, PageCache::new(CACHE_LEN), metrics);
        catalog.open_as_it_is().map_err(|error| error.to_string())?;
        let state = catalog.state();
        let replaced =
            |name| state.blocks.iter().any(|block| block.meta().compaction.parents.iter().any(|p| p.ulid == name));
        let damaged = state.damaged.iter().filter(|damaged| damaged.samples.is_some() && !replaced(damaged.name));
        let errors: Vec<String> =
            damaged.map(|damaged| format!("corrupted block {}: {}", damaged.name, damaged.reason)).collect();
        if errors.is_empty() { Ok(Self { fs, catalog }) } else { Err(errors.join("\n")) }
    }

    /// Its blocks, by their start.
    pub fn blocks(&self) -> Vec<Arc<Block>> {
        self.catalog.state().blocks.clone()
    }

    /// What it holds; the log is read only if samples of `min ..= max` may stand there alone. Damage of the log costs what is
    /// damaged, and is returned in words.
    pub fn view(&self, min: i64, max: i64) -> Result<(ReadOnlyView, Vec<String>), String> {
        let state = self.catalog.state();
        let whole_until = state.blocks.last().map_or(i64::MIN, |block| block.meta().max_time);
        if max < whole_until {
            let view = Arc::new(StoreView::of_blocks(state));
            return Ok((ReadOnlyView { view, is_head_alone: false }, Vec::new()));
        }
        let log = self.catalog.dir().join(WAL_DIR);
        if !self.fs.exists(&log).unwrap_or(true) {
            let log = log.display();
            return Err(format!("read WAL: find last checkpoint: open {log}: no such file or directory"));
        }
        let head = Head::new(HeadOptions::new(SystemClock::shared()));
        let mut restorer = head.restore(None, TimestampMs(whole_until));
        let until = Position { segment: u64::MAX, offset: u64::MAX };
        let report = read_until(&self.fs, &log, until, &mut restorer).map_err(|error| format!("read WAL: {error}"))?;
        let late = wbl::load_beside_writer(&self.fs, self.catalog.dir(), &mut restorer);
        let late = late.map_err(|error| format!("read WBL: {error}"))?;
        let from = late_floor::load(&*self.fs, self.catalog.dir());
        let of_chunks = head_chunks::restore_late(&self.fs, self.catalog.dir(), from, &mut restorer);
        let (_, chunks_are_whole) = of_chunks.map_err(|error| format!("read head chunks: {error}"))?;
        restorer.finish();
        let damage = report.damage.iter().chain(&late.damage).filter(|damage| !damage.torn_end);
        let damage =
            damage.map(|damage| format!("{}: byte {}: {}", damage.path.display(), damage.offset, damage.error));
        let of_chunks =
            (!chunks_are_whole).then(|| "head chunks of samples that came out of order are damaged".to_owned());
        let damage = damage.chain(of_chunks).collect();
        let is_head_alone = !state.blocks.iter().any(|block| block.overlaps(min, max));
        let view = StoreQueryable::new(head.queryable(), Arc::clone(&self.catalog)).view();
        let view = view.map_err(|error| error.to_string())?;
        Ok((ReadOnlyView { view, is_head_alone }, damage))
    }
}
