//! The blocks of a data directory: which are open, which are damaged, which are to go.
//!
//! A damaged block is named in the log and kept out of the way, never deleted; a query of its range fails with its name.
//! A block that others were merged into stands for them: they are removed, also when a crash came before that.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use crate::storage::block::meta::{BlockMeta, META_FILE};
use crate::storage::block::metrics::BlockMetrics;
use crate::storage::block::pages::PageCache;
use crate::storage::block::read::Block;
use crate::storage::block::retention::{Kept, Retention};
use crate::storage::block::ulid::Ulid;
use crate::storage::block::verify::range_of;
use crate::storage::block::{BlockError, CREATION_SUFFIX, DELETION_SUFFIX, IoContext};
use crate::storage::fs::SharedFs;

/// What half-written blocks of old programs are called, behind their names.
const LEGACY_SUFFIX: &str = ".tmp";

/// A block that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DamagedBlock {
    /// Its folder's name.
    pub name: Ulid,
    /// Its range, end exclusive, if its description or its index could be read. Else it may hold anything that no other block
    /// holds, up to the time when it was made.
    pub range: Option<(i64, i64)>,
    /// How many samples it holds, if its description could be read.
    pub samples: Option<u64>,
    /// What is wrong.
    pub reason: String,
}

/// What becomes of a query that needs a damaged block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnDamage {
    /// It fails, and names the block.
    #[default]
    Fail,
    /// It is answered without what is damaged, with a warning that names the block.
    Warn,
}

/// The blocks at one moment.
#[derive(Debug, Default)]
pub struct CatalogState {
    /// Open ones, by their start.
    pub blocks: Vec<Arc<Block>>,
    /// Those that cannot be read.
    pub damaged: Vec<DamagedBlock>,
}

impl CatalogState {
    /// The end of the newest block that holds all samples of its range: the head need not hold older ones.
    pub fn whole_until(&self) -> Option<i64> {
        let whole = self.blocks.iter().filter(|block| block.meta().is_whole());
        whole.map(|block| block.holds_until()).max()
    }

    /// Blocks that cannot be read and may hold samples of `min ..= max`.
    pub fn damaged_in(&self, min: i64, max: i64) -> impl Iterator<Item = &DamagedBlock> {
        self.damaged.iter().filter(move |damaged| match damaged.range {
            Some((from, to)) => from <= max && min < to,
            None => {
                let max = max.min(damaged.name.made_at().0);
                min <= max && !self.covers(min, max)
            }
        })
    }

    /// True if open blocks leave nothing out between `min` and `max`.
    fn covers(&self, min: i64, max: i64) -> bool {
        let mut from = min;
        for meta in self.blocks.iter().map(|block| block.meta()) {
            if meta.min_time <= from {
                from = from.max(meta.max_time);
            }
        }
        max < from
    }

    /// The oldest time that a block covers.
    pub fn min_time(&self) -> Option<i64> {
        self.blocks.iter().map(|block| block.meta().min_time).min()
    }

    /// Bytes of all open blocks.
    pub fn len(&self) -> u64 {
        self.blocks.iter().map(|block| block.len()).sum()
    }

    /// True if no block is open.
    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }
}

/// An open block and its description as it stands on the disk now.
type Found = (Arc<Block>, BlockMeta);

/// The blocks of a data directory. One thread at a time changes it; views take what stands there.
pub struct Catalog {
    fs: SharedFs,
    dir: PathBuf,
    cache: Arc<PageCache>,
    metrics: BlockMetrics,
    state: ArcSwap<CatalogState>,
    warns: AtomicBool,
    floats_with_starts: AtomicBool,
    changing: Mutex<()>,
    /// Odd while a deletion is being shown, of head and blocks together.
    deletions: AtomicU64,
}

impl Catalog {
    /// A catalog of `dir` that is still empty; [`Catalog::open`] fills it.
    pub fn new(fs: SharedFs, dir: &Path, cache: Arc<PageCache>, metrics: BlockMetrics) -> Arc<Self> {
        let dir = dir.to_path_buf();
        Arc::new(Self {
            fs,
            dir,
            cache,
            metrics,
            state: ArcSwap::default(),
            warns: AtomicBool::new(false),
            floats_with_starts: AtomicBool::new(false),
            changing: Mutex::default(),
            deletions: AtomicU64::new(0),
        })
    }

    /// Removes what a crash has left half-done, then opens the blocks. Nothing else is removed.
    pub fn open(&self) -> Result<(), BlockError> {
        let _changing = self.changing.lock();
        for name in self.folders()? {
            let suffix = [CREATION_SUFFIX, DELETION_SUFFIX, LEGACY_SUFFIX].iter().find_map(|s| name.strip_suffix(s));
            if suffix.is_some_and(|block| Ulid::parse(block).is_ok()) {
                let path = self.dir.join(&name);
                tracing::info!(component = "tsdb", dir = name, "Found and deleted tmp block dir");
                self.fs.remove_dir_all(&path).context("remove", &path)?;
            }
        }
        let (found, damaged) = self.look()?;
        let replaced: BTreeSet<Ulid> = replaced(&found);
        self.install(found, damaged, &replaced);
        Ok(())
    }

    /// Opens the blocks as they stand, those that others have replaced as well, and changes nothing on the disk.
    pub fn open_as_it_is(&self) -> Result<(), BlockError> {
        let _changing = self.changing.lock();
        let (found, damaged) = self.look()?;
        self.install(found, damaged, &BTreeSet::new());
        Ok(())
    }

    /// The blocks now.
    pub fn state(&self) -> Arc<CatalogState> {
        self.state.load_full()
    }

    /// What becomes of queries that need a damaged block.
    pub fn on_damage(&self) -> OnDamage {
        if self.warns.load(Ordering::Relaxed) { OnDamage::Warn } else { OnDamage::Fail }
    }

    /// Sets that.
    pub fn set_on_damage(&self, what: OnDamage) {
        self.warns.store(what == OnDamage::Warn, Ordering::Relaxed);
    }

    /// Whether floats that are merged anew go into chunks with room for start times.
    pub fn floats_with_starts(&self) -> bool {
        self.floats_with_starts.load(Ordering::Relaxed)
    }

    /// Sets that, from now on.
    pub fn set_floats_with_starts(&self, have: bool) {
        self.floats_with_starts.store(have, Ordering::Relaxed);
    }

    /// Shows blocks with their new deleted ranges in place of what they were, in one step with what `also` shows.
    pub fn show_deleted<T>(&self, changed: Vec<Arc<Block>>, also: impl FnOnce() -> T) -> T {
        let _changing = self.changing.lock();
        let now = self.state.load_full();
        let replaced = |block: &Arc<Block>| {
            let same = changed.iter().find(|new| new.meta().ulid == block.meta().ulid && new.dir() == block.dir());
            Arc::clone(same.unwrap_or(block))
        };
        let (blocks, damaged) = (now.blocks.iter().map(replaced).collect(), now.damaged.clone());
        let next = CatalogState { blocks, damaged };
        self.metrics.measure(&next);
        let _showing = Showing::begin(&self.deletions);
        self.state.store(Arc::new(next));
        also()
    }

    /// Calls `open` such that what it opens lies wholly before or behind each deletion.
    pub(super) fn beside_deletions<T>(&self, open: impl Fn() -> T) -> T {
        loop {
            let before = self.deletions.load(Ordering::SeqCst);
            if before.is_multiple_of(2) {
                let opened = open();
                if self.deletions.load(Ordering::SeqCst) == before {
                    return opened;
                }
            }
            // Two stores are all that is waited for.
            std::thread::yield_now();
        }
    }

    /// What it counts.
    pub fn metrics(&self) -> &BlockMetrics {
        &self.metrics
    }

    /// The data directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// How its files are reached.
    pub fn fs(&self) -> &SharedFs {
        &self.fs
    }

    /// Looks for new and removed blocks, and removes those that others have replaced and those beyond the retention.
    /// `log_len` are the bytes that the head keeps on the disk.
    pub fn reload(&self, retention: Retention, log_len: u64) -> Result<(), BlockError> {
        let _changing = self.changing.lock();
        self.metrics.reloads.inc();
        let result = self.look_and_remove(retention, log_len);
        if result.is_err() {
            self.metrics.reloads_failed.inc();
        }
        result
    }

    fn look_and_remove(&self, retention: Retention, log_len: u64) -> Result<(), BlockError> {
        let (found, damaged) = self.look()?;
        let kept: Vec<Kept<'_>> = found.iter().map(|(block, meta)| Kept { meta, len: block.len() }).collect();
        let beyond = retention.beyond(&kept, log_len);
        self.metrics.time_retentions.add(u64::from(!beyond.time.is_empty()));
        self.metrics.size_retentions.add(u64::from(!beyond.size.is_empty()));
        let mut removed = replaced(&found);
        removed.extend(found.iter().filter(|(_, meta)| meta.compaction.deletable).map(|(_, meta)| meta.ulid));
        removed.extend(beyond.time);
        removed.extend(beyond.size);
        self.install(found, damaged, &removed);
        removed.into_iter().try_for_each(|name| self.remove(name))
    }

    fn folders(&self) -> Result<Vec<String>, BlockError> {
        let entries = match self.fs.list(&self.dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(source) => return Err(BlockError::Io { action: "list", path: self.dir.clone(), source }),
        };
        Ok(entries.into_iter().filter(|entry| entry.is_dir).map(|entry| entry.name).collect())
    }

    /// Opens what is new; each open block comes with its description as it stands on the disk now.
    fn look(&self) -> Result<(Vec<Found>, Vec<DamagedBlock>), BlockError> {
        let before = self.state.load_full();
        let open: BTreeMap<&Path, &Arc<Block>> = before.blocks.iter().map(|block| (block.dir(), block)).collect();
        let (mut found, mut damaged) = (Vec::new(), Vec::new());
        for name in self.folders()?.iter().filter_map(|name| Ulid::parse(name).ok()) {
            let dir = self.dir.join(name.to_string());
            let mut is_damaged = |meta: Option<&BlockMeta>, error: BlockError| {
                let reason = error.to_string();
                let listed = range_of(&*self.fs, &dir, &self.cache);
                let said = meta.map(|meta| (meta.min_time, meta.max_time));
                let range = match (said, listed) {
                    (Some((a, b)), Some((c, d))) => Some((a.min(c), b.max(d))),
                    (said, listed) => said.or(listed),
                };
                let samples = meta.map(|meta| meta.stats.num_samples);
                if !before.damaged.iter().any(|known| known.name == name && known.reason == reason) {
                    self.metrics.corruptions.inc();
                    tracing::error!(component = "tsdb", block = %name, err = reason, ?samples, ?range,
                        "A block cannot be read; it is kept as it is and left out");
                }
                damaged.push(DamagedBlock { name, range, samples, reason });
            };
            let meta = match BlockMeta::read(&*self.fs, &dir) {
                Ok(meta) if meta.ulid == name => meta,
                Ok(meta) => {
                    let reason = format!("it describes block {}", meta.ulid);
                    is_damaged(None, BlockError::corrupt(&dir.join(META_FILE), 0, reason));
                    continue;
                }
                Err(error) => {
                    is_damaged(None, error);
                    continue;
                }
            };
            let known = open.get(dir.as_path()).filter(|block| block.meta().ulid == meta.ulid);
            match known {
                Some(block) => found.push((Arc::clone(block), meta)),
                None => match self.open_block(&dir, &meta) {
                    Ok(block) => found.push((Arc::new(block), meta)),
                    Err(error) => is_damaged(Some(&meta), error),
                },
            }
        }
        Ok((found, damaged))
    }

    fn open_block(&self, dir: &Path, meta: &BlockMeta) -> Result<Block, BlockError> {
        Block::open_as(&*self.fs, dir, meta.clone(), &self.cache, Some(self.metrics.corruptions.clone()))
    }

    /// Shows readers what was found, less what is to be removed.
    fn install(&self, found: Vec<Found>, damaged: Vec<DamagedBlock>, without: &BTreeSet<Ulid>) {
        let kept = found.into_iter().map(|(block, _)| block).filter(|block| !without.contains(&block.meta().ulid));
        let mut blocks: Vec<Arc<Block>> = kept.collect();
        blocks.sort_by_key(|block| (block.meta().min_time, block.meta().max_time, block.meta().ulid));
        // One that another has replaced is nobody's loss.
        let damaged = damaged.into_iter().filter(|damaged| !without.contains(&damaged.name)).collect();
        let state = CatalogState { blocks, damaged };
        self.metrics.measure(&state);
        self.state.store(Arc::new(state));
    }

    /// Removes a block: renamed first, so that a crash leaves no half of it behind under its name.
    pub(crate) fn remove(&self, name: Ulid) -> Result<(), BlockError> {
        let dir = self.dir.join(name.to_string());
        if !self.fs.exists(&dir).context("read", &dir)? {
            return Ok(());
        }
        let leaving = self.dir.join(format!("{name}{DELETION_SUFFIX}"));
        if self.fs.exists(&leaving).context("read", &leaving)? {
            self.fs.remove_dir_all(&leaving).context("remove", &leaving)?;
        }
        self.fs.rename(&dir, &leaving).context("rename", &dir)?;
        self.fs.sync_dir(&self.dir).context("sync", &self.dir)?;
        self.fs.remove_dir_all(&leaving).context("remove", &leaving)?;
        tracing::info!(component = "tsdb", block = %name, "Deleting obsolete block");
        Ok(())
    }
}

/// A deletion that is being shown.
struct Showing<'a>(&'a AtomicU64);

impl<'a> Showing<'a> {
    fn begin(deletions: &'a AtomicU64) -> Self {
        deletions.fetch_add(1, Ordering::SeqCst);
        Self(deletions)
    }
}

impl Drop for Showing<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// The blocks that those found were made of.
fn replaced(found: &[Found]) -> BTreeSet<Ulid> {
    found.iter().flat_map(|(_, meta)| meta.compaction.parents.iter().map(|parent| parent.ulid)).collect()
}
