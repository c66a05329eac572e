//! A block is written while the disk fails at every step in turn, with power cuts: it is there whole or not at all.

use std::path::Path;
use std::sync::Arc;

use super::catalog::Catalog;
use super::golden_tests::{FIRST, contents, golden};
use super::meta::BlockMeta;
use super::metrics::BlockMetrics;
use super::read::Block;
use super::retention::Retention;
use super::write::BlockWriter;
use super::{BlockError, CREATION_SUFFIX, PageCache};
use crate::storage::fs::sim::SimFs;
use crate::storage::fs::{Fs, RealFs, SharedFs};

const DATA: &str = "/data";

fn write(fs: &SharedFs, source: &Block) -> Result<Option<BlockMeta>, BlockError> {
    let mut symbols = Vec::new();
    source.index.symbols(&mut |symbol| symbols.push(symbol.to_owned()))?;
    let meta = BlockMeta { stats: Default::default(), ..source.meta().clone() };
    let mut writer = BlockWriter::create(fs, Path::new(DATA), meta, symbols, 2_000)?;
    for (labels, chunks) in contents(source) {
        writer.add_series(&labels, &chunks)?;
    }
    writer.publish()
}

fn catalog(sim: &SimFs) -> Arc<Catalog> {
    let metrics = BlockMetrics::new(&Default::default());
    Catalog::new(Arc::new(sim.clone()), Path::new(DATA), PageCache::new(0), metrics)
}

#[test]
fn a_block_is_there_whole_or_not_at_all_whatever_fails() {
    let source = Block::open(&RealFs, &golden(FIRST), &PageCache::new(0)).unwrap();
    let fresh = || {
        let sim = SimFs::new();
        sim.put(Path::new("/data/wal/00000000"), b"").unwrap();
        sim
    };
    let all = fresh();
    let begun = all.operations();
    write(&(Arc::new(all.clone()) as SharedFs), &source).unwrap();
    let steps = all.operations() - begun;
    assert!(15 < steps);
    for n in 1..=steps {
        for (more, power_cut) in [(0, false), (0, true), (1_000, false), (1_000, true)] {
            let sim = fresh();
            sim.fail_nth(n, more);
            let written = write(&(Arc::new(sim.clone()) as SharedFs), &source);
            assert!(written.is_err(), "step {n}");
            sim.heal();
            if power_cut {
                sim.cut_power();
            }
            let catalog = catalog(&sim);
            catalog.open().unwrap();
            let state = catalog.state();
            assert_eq!(state.damaged, [], "step {n}");
            for block in &state.blocks {
                assert_eq!(contents(block), contents(&source), "step {n}");
            }
            let left = sim.list(Path::new(DATA)).unwrap();
            assert!(!left.iter().any(|entry| entry.name.ends_with(CREATION_SUFFIX)), "step {n}: {left:?}");
        }
    }
}

#[test]
fn a_damaged_block_is_named_and_left_where_it_is() {
    let sim = SimFs::new();
    for file in ["index", "chunks/000001", "meta.json", "tombstones"] {
        let mut data = std::fs::read(golden(FIRST).join(file)).unwrap();
        if file == "index" {
            data[20] ^= 1;
        }
        sim.put(&Path::new(DATA).join(FIRST).join(file), &data).unwrap();
    }
    sim.put(Path::new("/data/01M8AB1KYMRFKX3DJAEBCFQ2S0.tmp-for-creation/index"), b"x").unwrap();
    sim.put(Path::new("/data/notes.tmp/keep"), b"x").unwrap();
    let catalog = catalog(&sim);
    catalog.open().unwrap();
    catalog.reload(Retention { time_ms: 1, len_max: 1 }, 100).unwrap();
    let state = catalog.state();
    assert!(state.blocks.is_empty());
    let damaged = &state.damaged[0];
    assert_eq!((damaged.name.to_string().as_str(), damaged.range.is_some()), (FIRST, true));
    assert!(damaged.reason.contains("index") && damaged.reason.contains("checksum"), "{}", damaged.reason);
    let names: Vec<String> = sim.list(Path::new(DATA)).unwrap().into_iter().map(|entry| entry.name).collect();
    assert_eq!(names, [FIRST, "notes.tmp"]);
}
