//! Blocks that Prometheus has written (`tests/data/blocks`, `promtool tsdb create-blocks-from openmetrics`, 3.14): they are
//! read, and written again byte for byte; every damaged byte of their indexes is found or harmless.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::catalog::Catalog;
use super::chunks::{ChunkData, ReadAhead};
use super::index_read::{IndexReader, SymbolMemo};
use super::metrics::BlockMetrics;
use super::read::Block;
use super::view::StoreView;
use super::write::BlockWriter;
use super::{INDEX_FILE, PageCache};
use crate::model::matcher::{MatchOp, Matcher};
use crate::model::read::{FloatColumn, ReadView, Scope, Unlimited};
use crate::model::time::{TimeRange, TimestampMs};
use crate::storage::fs::sim::SimFs;
use crate::storage::fs::{RealFs, SharedFs};

pub(super) const FIRST: &str = "01M8AB1KYMRFKX3DJAEBCFQ2SZ";
pub(super) const SECOND: &str = "01M8AB1M0NQQ6J0JGN96PMCAYD";
/// Start of the first block.
pub(super) const START_MS: i64 = 1_699_999_200_000;

pub(super) fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/blocks").join(name)
}

fn open(name: &str) -> Block {
    Block::open(&RealFs, &golden(name), &PageCache::new(0)).unwrap()
}

/// All series with the bytes of their chunks.
pub(super) fn contents(block: &Block) -> Vec<(crate::model::labels::Labels, Vec<ChunkData>)> {
    let (mut memo, mut ahead) = (SymbolMemo::default(), ReadAhead::default());
    let ids = block.index.all_postings().unwrap();
    let read = |id: &u32| {
        let series = block.index.series(*id, &mut memo).unwrap();
        let chunks = series.chunks.iter().map(|meta| {
            let (encoding, data) = block.chunks.read(meta.reference, meta.reference, &mut ahead).unwrap();
            ChunkData { min_t: meta.min_t, max_t: meta.max_t, encoding, data: data.to_vec() }
        });
        (series.labels, chunks.collect())
    };
    ids.iter().map(read).collect()
}

fn catalog(dir: &Path) -> Arc<Catalog> {
    let catalog = Catalog::new(RealFs::shared(), dir, PageCache::new(0), BlockMetrics::new(&Default::default()));
    catalog.open().unwrap();
    catalog
}

#[test]
fn a_block_of_prometheus_is_written_again_byte_for_byte() {
    for name in [FIRST, SECOND] {
        let block = open(name);
        let fs: SharedFs = Arc::new(SimFs::new());
        let mut symbols = Vec::new();
        block.index.symbols(&mut |symbol| symbols.push(symbol.to_owned())).unwrap();
        assert_eq!(symbols.first().map(String::as_str), Some(""));
        let meta = super::meta::BlockMeta { stats: Default::default(), ..block.meta().clone() };
        let mut writer = BlockWriter::create(&fs, Path::new("/data"), meta, symbols, 0).unwrap();
        for (labels, chunks) in contents(&block) {
            writer.add_series(&labels, &chunks).unwrap();
        }
        assert_eq!(writer.publish().unwrap().as_ref(), Some(block.meta()));
        for file in ["index", "chunks/000001", "tombstones", "meta.json"] {
            let ours = fs.open(&Path::new("/data").join(name).join(file)).unwrap();
            let mut bytes = vec![0; usize::try_from(ours.len().unwrap()).unwrap()];
            ours.read_at(&mut bytes, 0).unwrap();
            assert_eq!(bytes, std::fs::read(golden(name).join(file)).unwrap(), "{name}/{file}");
        }
    }
}

#[test]
fn blocks_are_found_and_queried_as_one() {
    let catalog = catalog(&golden(""));
    let state = catalog.state();
    let names: Vec<String> = state.blocks.iter().map(|b| b.meta().ulid.to_string()).collect();
    assert_eq!(names, [FIRST, SECOND]);
    assert_eq!(state.whole_until(), Some(1_700_013_592_001));
    let view = StoreView::of_blocks(state);
    let count = |matchers: &[Matcher], range: TimeRange| -> (usize, usize) {
        let series = view.select(matchers, range, &Unlimited).unwrap();
        assert!(series.windows(2).all(|pair| pair[0].labels < pair[1].labels));
        let mut column = FloatColumn::default();
        for one in &series {
            let from = column.len();
            one.samples.decode(range, &mut column).unwrap();
            assert!(column.timestamps[from..].windows(2).all(|pair| pair[0] < pair[1]));
        }
        (series.len(), column.len())
    };
    let is = |op, name: &str, value: &str| Matcher::new(op, name, value).unwrap();
    use MatchOp::{Equal, NotEqual, NotRegex, Regex};
    assert_eq!(count(&[], TimeRange::ALL), (45, 5720));
    assert_eq!(count(&[is(Equal, "__name__", "up")], TimeRange::ALL), (2, 1920));
    assert_eq!(count(&[is(Regex, "v", "00[1-3]|017")], TimeRange::ALL), (4, 96));
    assert_eq!(count(&[is(Regex, "v", "03.*")], TimeRange::ALL), (10, 240));
    assert_eq!(count(&[is(Regex, "v", "007|039|nope")], TimeRange::ALL), (2, 48));
    assert_eq!(count(&[is(Regex, "v", ".+"), is(NotRegex, "v", "0[0-2].*")], TimeRange::ALL), (10, 240));
    assert_eq!(count(&[is(NotEqual, "v", ""), is(NotEqual, "v", "000")], TimeRange::ALL), (39, 936));
    assert_eq!(count(&[is(Equal, "v", ""), is(NotEqual, "job", "x")], TimeRange::ALL), (3, 2840));
    assert_eq!(count(&[is(Regex, "v", ".*"), is(Equal, "code", "500")], TimeRange::ALL), (1, 960));
    assert_eq!(count(&[is(Equal, "nope", "x")], TimeRange::ALL), (0, 0));
    let quarter = TimeRange::new(TimestampMs(START_MS), TimestampMs(START_MS + 900_000)).unwrap();
    assert_eq!(count(&[is(Equal, "code", "200")], quarter), (1, 61));
    let before = TimeRange::new(TimestampMs(0), TimestampMs(START_MS - 1)).unwrap();
    assert_eq!(count(&[], before), (0, 0));

    let names = view.label_names(&Scope::all(&[], TimeRange::ALL), &Unlimited).unwrap();
    assert_eq!(names, ["__name__", "__u", "code", "instance", "job", "path", "v", "zz"]);
    let up = [is(Equal, "__name__", "up")];
    assert_eq!(
        view.label_names(&Scope::all(&up, TimeRange::ALL), &Unlimited).unwrap(),
        ["__name__", "instance", "job"]
    );
    assert_eq!(view.label_values("__u", &Scope::all(&[], TimeRange::ALL), &Unlimited).unwrap(), ["é\"q"]);
    assert_eq!(view.label_values("v", &Scope::all(&[], TimeRange::ALL), &Unlimited).unwrap().len(), 40);
    assert_eq!(view.label_values("instance", &Scope::all(&up, TimeRange::ALL), &Unlimited).unwrap(), ["a:1", "b:1"]);
    assert_eq!(view.label_values("v", &Scope::all(&[], before), &Unlimited).unwrap(), [] as [&str; 0]);
}

#[test]
fn a_block_with_an_index_of_version_1_is_read() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/index-v1");
    let index = std::fs::read(root.join("01DXXFZDYD1MQW6079WK0K6EDQ/index")).unwrap();
    assert_eq!(index[4], 1, "the version");
    let view = StoreView::of_blocks(catalog(&root).state());
    let matchers = [Matcher::new(MatchOp::Regex, "foo", "bar|baz").unwrap()];
    let all = view.select(&[], TimeRange::ALL, &Unlimited).unwrap();
    assert_eq!(all.len(), 102);
    let mut column = FloatColumn::default();
    all.iter().for_each(|series| series.samples.decode(TimeRange::ALL, &mut column).unwrap());
    assert_eq!(column.len(), 102);
    let chosen = view.select(&matchers, TimeRange::ALL, &Unlimited).unwrap();
    assert_eq!(chosen.len(), all.iter().filter(|series| matchers[0].matches_labels(&series.labels)).count());
    let names = view.label_names(&Scope::all(&[], TimeRange::ALL), &Unlimited).unwrap();
    for name in names.iter() {
        let values = view.label_values(name, &Scope::all(&[], TimeRange::ALL), &Unlimited).unwrap();
        for value in values.iter() {
            let matcher = [Matcher::equal(name, value)];
            let found = view.select(&matcher, TimeRange::ALL, &Unlimited).unwrap();
            assert_eq!(found.len(), all.iter().filter(|series| series.labels.get(name) == Some(value)).count());
        }
    }
}

#[test]
fn every_damaged_byte_of_an_index_is_found_or_changes_nothing() {
    let good = std::fs::read(golden(FIRST).join(INDEX_FILE)).unwrap();
    let everything = |data: &[u8]| -> Option<Vec<String>> {
        let sim = SimFs::new();
        sim.put(Path::new("/index"), data).unwrap();
        let index = IndexReader::open(&sim, Path::new("/index"), &PageCache::new(0)).ok()?;
        let mut memo = SymbolMemo::default();
        let mut seen = Vec::new();
        for name in index.names() {
            let mut places = Vec::new();
            index
                .values_from(name, "", &mut |value, place| {
                    places.push((value.to_owned(), place));
                    Ok(super::index_read::Next::Go)
                })
                .ok()?;
            for (value, place) in places {
                seen.push(format!("{name}={value}: {:?}", index.postings(place).ok()?));
            }
        }
        for id in index.all_postings().ok()? {
            seen.push(format!("{:?}", index.series(id, &mut memo).ok()?));
        }
        Some(seen)
    };
    let expected = everything(&good).unwrap();
    for at in (0..good.len()).step_by(3) {
        let mut flipped = good.clone();
        flipped[at] ^= 1 << (at % 8);
        // Padding, and what stands nowhere but in checksummed places that were not needed, may change.
        if let Some(seen) = everything(&flipped) {
            assert_eq!(seen, expected, "byte {at}");
        }
        if at % 30 == 0 {
            assert_eq!(everything(&good[..at]), None, "cut at {at}");
        }
    }
}
