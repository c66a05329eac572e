//! A small data directory is damaged at one place at a time, at every kind of file: it opens all the same, no answer is ever wrong,
//! what is missing is reported with its cost, and nothing that was there is thrown away.
//!
//! Places are sampled by a seed; `WATCHFIRE_DAMAGE_ALL=1` takes every one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::model::append::{AppendBatch, HistogramValue, SeriesKey};
use crate::model::clock::{ManualClock, SharedClock};
use crate::model::histogram::FloatHistogram;
use crate::model::labels::Labels;
use crate::model::random::Random;
use crate::model::read::{Queryable, ReadError, SampleColumn, Unlimited};
use crate::model::sample::SeriesRef;
use crate::model::time::{TimeRange, TimestampMs};
use crate::storage::block::PageCache;
use crate::storage::block::catalog::{Catalog, OnDamage};
use crate::storage::block::meta::BlockMeta;
use crate::storage::block::metrics::BlockMetrics;
use crate::storage::block::retention::Retention;
use crate::storage::block::tombstones::{Interval, Tombstones};
use crate::storage::block::view::StoreQueryable;
use crate::storage::chunk::cut::CutRules;
use crate::storage::compact::Step;
use crate::storage::compact::blocks::BlockCompaction;
use crate::storage::compact::head::HeadCompaction;
use crate::storage::fs::sim::SimFs;
use crate::storage::fs::{Fs, SharedFs};
use crate::storage::head::{Head, HeadOptions};
use crate::storage::replay::{self, ReplayReport, keeper};
use crate::storage::reserve::RESERVE_FILE;
use crate::storage::wal::fragment::{Compression, PAGE_LEN};
use crate::storage::wal::loss::Loss;
use crate::storage::wal::metrics::WalMetrics;
use crate::storage::wal::record::encode_staged;
use crate::storage::wal::segments::segment_name;
use crate::storage::wal::tombstone_record::{RefTombstone, encode_tombstones};
use crate::storage::wal::writer::Writer;
use crate::storage::wal::{DAMAGED_DIR, WAL_DIR, WalOptions};
use crate::telemetry::metrics::Registry;

const DATA: &str = "/data";
/// Start of the first block, in milliseconds.
const START: i64 = 1_700_000_000_000;
const RANGE_MS: i64 = 10_000;
const STEP_MS: i64 = 1_000;
const SERIES: i64 = 6;

/// Series and time, and the bits of what is there.
type Content = BTreeMap<(String, i64), u64>;

fn clock() -> SharedClock {
    ManualClock::at(TimestampMs(START + 3_600_000))
}

fn head() -> Head {
    let rules = CutRules { chunk_range_ms: RANGE_MS, ..CutRules::default() };
    Head::new(HeadOptions { shards: 2, rules, ..HeadOptions::new(clock()) })
}

fn options(compression: Compression) -> WalOptions {
    WalOptions { segment_len: 4 * PAGE_LEN as u64, compression, hold_unsynced: true }
}

/// An opened directory.
struct Opened {
    head: Head,
    catalog: Arc<Catalog>,
    writer: Writer,
    report: ReplayReport,
    wal_metrics: WalMetrics,
}

/// Opens as the server does.
fn open(sim: &SimFs, compression: Compression) -> Opened {
    let fs: SharedFs = Arc::new(sim.clone());
    fs.create_dir_all(Path::new(DATA)).unwrap();
    let block_metrics = BlockMetrics::new(&Registry::default());
    let catalog = Catalog::new(fs.clone(), Path::new(DATA), PageCache::new(0), block_metrics);
    catalog.open().unwrap();
    let oldest = TimestampMs(catalog.state().whole_until().unwrap_or(i64::MIN));
    let (head, wal_metrics) = (head(), WalMetrics::new(&Registry::default(), &clock()));
    let (writer, report) =
        replay::open(&fs, Path::new(DATA), options(compression), &wal_metrics, &head, oldest).unwrap();
    Opened { head, catalog, writer, report, wal_metrics }
}

impl Opened {
    fn content(&self, range: (i64, i64)) -> Result<Content, ReadError> {
        let queryable = StoreQueryable::new(self.head.queryable(), Arc::clone(&self.catalog));
        let range = TimeRange::new(TimestampMs(range.0), TimestampMs(range.1)).unwrap();
        let mut content = Content::new();
        for series in queryable.view()?.select(&[], range, &Unlimited)? {
            let mut column = SampleColumn::default();
            series.samples.decode_all(range, &mut column)?;
            let mut put = |t: i64, bits| assert_eq!(content.insert((series.labels.to_string(), t), bits), None);
            column.floats.timestamps.iter().zip(&column.floats.values).for_each(|(t, v)| put(*t, v.to_bits()));
            let histograms = column.histograms.timestamps.iter().zip(&column.histograms.values);
            histograms.for_each(|(t, h)| put(*t, h.sum.to_bits()));
        }
        Ok(content)
    }

    /// Appends one commit as the actors do: stage, log, apply.
    fn append(&mut self, n: i64) {
        let at = TimestampMs(START + n * STEP_MS);
        let mut batch = AppendBatch::default();
        for i in 0..SERIES {
            let labels = Labels::from_pairs([("__name__", "m".to_owned()), ("instance", format!("i{i}"))]);
            if i == 0 {
                let histogram = FloatHistogram { sum: (n * 10) as f64, count: 3.0, ..FloatHistogram::default() };
                batch.push_histogram(SeriesKey::Labels(labels), at, HistogramValue::Float(Arc::new(histogram)));
            } else {
                batch.push_float(SeriesKey::Labels(labels), at, (n * 100 + i) as f64 / 7.0);
            }
        }
        let commit = self.head.begin(Some(at));
        let shard = |id: crate::model::append::ShardId| &self.head.shards()[usize::from(id.0)];
        let slices = self.head.route(batch);
        let staged: Vec<_> =
            slices.into_iter().map(|(id, slice)| (id, shard(id).stage(&commit, slice).unwrap())).collect();
        self.writer.append(&encode_staged(&staged.iter().map(|(_, part)| part).collect::<Vec<_>>())).unwrap();
        drop(commit);
        for (id, part) in staged {
            assert_eq!(shard(id).apply(part).unwrap().rejected, []);
        }
    }

    fn compact(&mut self) {
        let range = self.head.compactable(RANGE_MS).unwrap();
        let mut random = Random::seeded(u64::try_from(range.max_time).unwrap());
        let mut compaction =
            HeadCompaction::begin(&self.head, &self.catalog, range, 400, &clock(), &mut random).unwrap();
        while compaction.step(100).unwrap() == Step::More {}
        compaction.publish().unwrap().unwrap();
        self.catalog.reload(Retention::default(), 0).unwrap();
        self.head.truncate_blocking(TimestampMs(range.max_time));
    }
}

/// A directory with two blocks, of which one has tombstones, a checkpoint and some segments; and what it holds.
fn scene(compression: Compression) -> (SimFs, Content) {
    let sim = SimFs::new();
    let mut opened = open(&sim, compression);
    for n in 0..36 {
        opened.append(n);
        if n % 6 == 5 {
            opened.writer.next_segment().unwrap();
        }
        if n == 17 || n == 27 {
            opened.compact();
        }
    }
    let job = opened.writer.plan_checkpoint().unwrap().unwrap();
    let aliases = opened.report.head.aliases.clone();
    job.run(TimestampMs(START + 2 * RANGE_MS), &mut keeper(&opened.head, &aliases)).unwrap();
    for n in 36..40 {
        opened.append(n);
    }
    let block = Arc::clone(&opened.catalog.state().blocks[0]);
    let id = block.index().all_postings().unwrap()[2];
    let mut tombstones = Tombstones::default();
    tombstones.add(u64::from(id), Interval { min_t: START + 2_000, max_t: START + 4_000 });
    tombstones.write(&sim, block.dir()).unwrap();
    let mut meta = BlockMeta::read(&sim, block.dir()).unwrap();
    meta.stats.num_tombstones = 1;
    meta.write(&sim, block.dir()).unwrap();
    opened.writer.sync().unwrap();
    drop(opened);
    let content = open(&sim.fork(), compression).content((i64::MIN, i64::MAX)).unwrap();
    assert_eq!(content.len() as i64, 40 * SERIES - 3);
    (sim, content)
}

pub(in crate::storage) fn files(sim: &SimFs, dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in sim.list(dir).unwrap() {
        let path = dir.join(&entry.name);
        if entry.is_dir {
            found.extend(files(sim, &path));
        } else if entry.name != RESERVE_FILE {
            found.push(path);
        }
    }
    found
}

#[derive(Clone, Debug)]
pub(in crate::storage) enum Harm {
    Flip { at: usize, by: u8 },
    Cut { len: usize },
    Remove,
}

pub(in crate::storage) fn harmed(sim: &SimFs, path: &Path, harm: &Harm) -> SimFs {
    let copy = sim.fork();
    let mut data = sim.read(path).unwrap();
    match harm {
        Harm::Flip { at, by } => data[*at] ^= by,
        Harm::Cut { len } => data.truncate(*len),
        Harm::Remove => {
            copy.remove_file(path).unwrap();
            return copy;
        }
    }
    copy.put(path, &data).unwrap();
    copy
}

/// The harms that a file suffers, each at a time.
pub(in crate::storage) fn harms(data: &[u8], wanted: usize, random: &mut Random) -> Vec<Harm> {
    // Of the zeros that fill pages, some are enough.
    let used = data.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let all = std::env::var_os("WATCHFIRE_DAMAGE_ALL").is_some();
    let mut draw = |below: usize| usize::try_from(random.next_u64() % below.max(1) as u64).unwrap();
    let mut found = vec![Harm::Remove, Harm::Cut { len: 0 }];
    let places: Vec<usize> =
        if all || used <= wanted { (0..used).collect() } else { (0..wanted).map(|_| draw(used)).collect() };
    for at in places {
        let by = [1, 2, 4, 8, 16, 32, 64, 128, 255, 0x55][draw(10)];
        found.push(Harm::Flip { at, by });
        if all || draw(3) == 0 {
            found.push(Harm::Cut { len: at });
        }
    }
    if used < data.len() {
        found.extend([Harm::Flip { at: used + draw(data.len() - used), by: 1 }, Harm::Cut { len: data.len() - 1 }]);
    }
    found
}

/// Windows of the scene: the two blocks, and what the log holds.
const WINDOWS: [(i64, i64); 3] = [
    (START, START + RANGE_MS - 1),
    (START + RANGE_MS, START + 2 * RANGE_MS - 1),
    (START + 2 * RANGE_MS, START + 10 * RANGE_MS),
];

fn in_window(content: &Content, (from, to): (i64, i64)) -> Content {
    content.iter().filter(|((_, t), _)| from <= *t && *t <= to).map(|(key, bits)| (key.clone(), *bits)).collect()
}

/// What is missing in `found`; panics if anything in it is wrong.
#[track_caller]
fn missing(found: &Content, expected: &Content, what: &str) -> Vec<(String, i64)> {
    for (key, bits) in found {
        assert_eq!(expected.get(key), Some(bits), "{what}: a wrong value of {key:?}");
    }
    expected.keys().filter(|key| !found.contains_key(*key)).cloned().collect()
}

fn check_block(sim: &SimFs, content: &Content, path: &Path, harm: &Harm) {
    let what = format!("{} {harm:?}", path.display());
    let copy = harmed(sim, path, harm);
    let name = path.components().nth(2).unwrap().as_os_str().to_string_lossy().into_owned();
    let opened = open(&copy, Compression::None);
    let mut failed = 0;
    for window in WINDOWS {
        let expected = in_window(content, window);
        match opened.content(window) {
            Ok(found) => assert_eq!(missing(&found, &expected, &what), [], "{what}: silently missing"),
            Err(error) => {
                assert!(error.to_string().contains(&name), "{what}: {error}");
                failed += 1;
            }
        }
    }
    // With the other setting, what is left is answered, with a warning.
    opened.catalog.set_on_damage(OnDamage::Warn);
    let queryable = StoreQueryable::new(opened.head.queryable(), Arc::clone(&opened.catalog));
    let found = opened.content((i64::MIN, i64::MAX)).unwrap();
    let lost = missing(&found, content, &what);
    if 0 < failed {
        assert_eq!(failed, 1, "{what}: a healthy block was not served");
        let view = queryable.view().unwrap();
        for series in view.select(&[], TimeRange::ALL, &Unlimited).unwrap() {
            series.samples.decode_all(TimeRange::ALL, &mut SampleColumn::default()).unwrap();
        }
        let warnings = view.warnings();
        assert!(warnings.iter().any(|warning| warning.contains(&name)), "{what}: {warnings:?}");
        let state = opened.catalog.state();
        let parts: usize = state.blocks.iter().map(|block| block.damage().len()).sum();
        assert!(0 < state.damaged.len() + parts, "{what}: not reported");
    } else {
        assert_eq!(lost, [], "{what}");
    }
    // Retention of everything but a byte removes healthy blocks, and never a damaged one.
    let before = copy.list(Path::new(DATA)).unwrap();
    assert!(before.iter().any(|entry| entry.name == name), "{what}: the block is gone");
    drop(opened);
    let after = files(&copy, &Path::new(DATA).join(&name));
    for file in files(sim, &Path::new(DATA).join(&name)).iter().filter(|file| *file != path) {
        assert!(
            after.contains(file) && copy.read(file).unwrap() == sim.read(file).unwrap(),
            "{what}: {}",
            file.display()
        );
    }
}

#[test]
fn damage_of_a_block_is_named_costs_that_block_alone_and_no_answer_is_wrong() {
    let (sim, content) = scene(Compression::None);
    let mut random = Random::seeded(4);
    let mut count = 0;
    for path in files(&sim, Path::new(DATA)) {
        if path.starts_with(Path::new(DATA).join(WAL_DIR)) || path.parent() == Some(Path::new(DATA)) {
            continue;
        }
        let wanted = if path.ends_with("index") { 90 } else { 45 };
        for harm in harms(&sim.read(&path).unwrap(), wanted, &mut random) {
            check_block(&sim, &content, &path, &harm);
            count += 1;
        }
    }
    assert!(300 < count, "{count}");
}

fn check_log(sim: &SimFs, content: &Content, path: &Path, harm: &Harm, compression: Compression) {
    let what = format!("{} {harm:?} {compression:?}", path.display());
    let copy = harmed(sim, path, harm);
    let original = copy.read(path).unwrap_or_default();
    let opened = open(&copy, compression);
    for window in &WINDOWS[..2] {
        assert_eq!(missing(&opened.content(*window).unwrap(), &in_window(content, *window), &what), [], "{what}");
    }
    let found = opened.content(WINDOWS[2]).unwrap();
    let lost = missing(&found, &in_window(content, WINDOWS[2]), &what);
    let (log, head) = (&opened.report.log, &opened.report.head);
    let is_found = !log.damage.is_empty() || !log.missing.is_empty() || !log.missing_files.is_empty();
    let reported = log.lost.samples + head.unknown_refs;
    let has_manifest = sim.exists(&Path::new(DATA).join("wal.manifest")).unwrap();
    // Without a manifest, a cut between two records, or of the newest segment as a whole, looks like a log that was ended there.
    let is_end = matches!(harm, Harm::Cut { .. } | Harm::Remove) && !has_manifest;
    if !lost.is_empty() && (!is_end || is_found) {
        assert!(is_found && 0 < reported, "{what}: {lost:?} are not reported");
        assert!(0 < opened.wal_metrics.corruptions.get(), "{what}");
        let torn = log.damage.iter().any(|damage| damage.torn_end);
        if has_manifest || !log.lost.is_reckoned {
            assert_eq!(reported, lost.len() as u64, "{what}: {log:?} {head:?}");
        }
        let spans: Vec<(i64, i64)> = [log.lost.range, head.unknown_span].into_iter().flatten().collect();
        let told = |t: i64| spans.iter().any(|(from, to)| *from <= t && t <= *to);
        // Of a whole segment that is missing the number is reckoned, and the time is that between its neighbours.
        let is_gap = !log.missing.is_empty() && log.missing_files.is_empty();
        let is_told = lost.iter().all(|(_, t)| told(*t));
        assert!((torn || log.lost.is_reckoned && !is_gap) && !has_manifest || is_told, "{what}: {spans:?} {lost:?}");
    }
    if has_manifest && lost.is_empty() {
        assert_eq!(reported, 0, "{what}: nothing was lost");
    }
    if let Harm::Flip { .. } = harm {
        // Whatever one byte does, it costs the records of its segment at most.
        assert!(lost.len() as i64 <= 7 * SERIES || head.unknown_refs != 0, "{what}: {} lost", lost.len());
        assert!(lost.is_empty() || is_found, "{what}");
    }
    // Nothing was thrown away: the bytes stand where they stood, or aside.
    if is_found && !matches!(harm, Harm::Remove) {
        let here = copy.read(path).unwrap();
        let aside = Path::new(DATA).join(DAMAGED_DIR);
        let aside = if copy.exists(&aside).unwrap() { files(&copy, &aside) } else { Vec::new() };
        let kept = aside.iter().any(|file| {
            let kept = copy.read(file).unwrap();
            kept == original || original.starts_with(&here) && original.ends_with(&kept) && !kept.is_empty()
        });
        assert!(here == original || kept, "{what}: {aside:?}");
    }
    drop(opened);
    let again = open(&copy, compression);
    assert_eq!(again.report.log.damage, [], "{what}: not repaired");
    assert_eq!(again.report.log.missing_files, [], "{what}: told twice");
    assert_eq!(again.content(WINDOWS[2]).unwrap(), found, "{what}");
}

#[test]
fn damage_of_the_log_costs_what_it_touched_alone_and_is_told_with_its_cost() {
    let mut random = Random::seeded(5);
    let mut count = 0;
    let all = [(Compression::None, true), (Compression::Snappy, true), (Compression::None, false)];
    for (compression, has_manifest) in all {
        let (sim, content) = scene(compression);
        if !has_manifest {
            // As another program leaves a log.
            sim.remove_file(&Path::new(DATA).join("wal.manifest")).unwrap();
        }
        for path in files(&sim, &Path::new(DATA).join(WAL_DIR)) {
            for harm in harms(&sim.read(&path).unwrap(), 70, &mut random) {
                check_log(&sim, &content, &path, &harm, compression);
                count += 1;
            }
        }
    }
    assert!(350 < count, "{count}");
}

#[test]
fn damage_of_a_manifest_costs_nothing_and_tells_of_no_loss() {
    let (sim, content) = scene(Compression::Snappy);
    let path = Path::new(DATA).join("wal.manifest");
    let mut random = Random::seeded(6);
    for harm in harms(&sim.read(&path).unwrap(), 200, &mut random) {
        let opened = open(&harmed(&sim, &path, &harm), Compression::Snappy);
        assert_eq!(opened.content((i64::MIN, i64::MAX)).unwrap(), content, "{harm:?}");
        let log = &opened.report.log;
        assert_eq!((log.lost.samples, &log.damage[..], &log.missing_files[..]), (0, &[][..], &[][..]), "{harm:?}");
        assert_eq!(opened.wal_metrics.corruptions.get(), 0, "{harm:?}");
    }
}

#[test]
fn a_deletion_that_the_log_has_lost_is_told() {
    let (sim, content) = scene(Compression::None);
    let mut opened = open(&sim, Compression::None);
    let at = opened.writer.position();
    let series = SeriesRef(1);
    let stone =
        RefTombstone { series, interval: Interval { min_t: START + 2 * RANGE_MS, max_t: START + 3 * RANGE_MS } };
    let mut records = Vec::new();
    encode_tombstones([stone], &mut records);
    opened.writer.append(&records).unwrap();
    opened.writer.sync().unwrap();
    drop(opened);
    let path = Path::new(DATA).join(WAL_DIR).join(segment_name(at.segment));
    let record = usize::try_from(at.offset).unwrap();
    for harm in [Harm::Flip { at: record + 12, by: 1 }, Harm::Cut { len: record }, Harm::Remove] {
        let opened = open(&harmed(&sim, &path, &harm), Compression::None);
        let lost = opened.report.log.lost;
        assert_eq!((lost.samples, lost.deletions, lost.range), (0, 1, None), "{harm:?}");
        assert_eq!(lost.to_string(), "0 samples lost, 1 deleted ranges");
        assert_eq!(opened.content((i64::MIN, i64::MAX)).unwrap(), content, "{harm:?}");
    }
    let sound = open(&sim.fork(), Compression::None);
    assert_eq!(sound.report.log.lost, Loss::default());
    assert!(sound.content((i64::MIN, i64::MAX)).unwrap().len() < content.len());
}

#[test]
fn first_segments_that_are_gone_before_there_was_a_checkpoint_are_told_with_their_cost() {
    let sim = SimFs::new();
    for segment in 0..4 {
        let mut opened = open(&sim, Compression::None);
        (0..=segment).for_each(|n| opened.append(10 * segment + n));
        opened.writer.sync().unwrap();
        opened.writer.next_segment().unwrap();
    }
    let path = |segment: u64| Path::new(DATA).join(WAL_DIR).join(segment_name(segment));
    let newest = sim.list(&Path::new(DATA).join(WAL_DIR)).unwrap().len() as u64;
    assert_eq!(open(&sim.fork(), Compression::None).report.log.lost, Loss::default());
    for gone in 1..newest {
        let copy = sim.fork();
        (0..gone).for_each(|segment| copy.remove_file(&path(segment)).unwrap());
        let opened = open(&copy, Compression::None);
        let log = &opened.report.log;
        assert_eq!((log.lost.samples + log.samples, log.lost.is_reckoned), (10 * SERIES as u64, false), "{gone}");
        assert_eq!(opened.wal_metrics.lost_samples.get(), log.lost.samples, "{gone}");
        assert_eq!(log.missing.len() as u64, gone);
        drop(opened);
        assert_eq!(open(&copy, Compression::None).report.log.lost, Loss::default(), "{gone}: told once");
    }
}

#[test]
fn a_block_without_any_readable_description_fails_only_what_no_other_block_answers() {
    let (sim, content) = scene(Compression::None);
    let first = files(&sim, Path::new(DATA)).into_iter().find(|path| path.ends_with("index")).unwrap();
    let dir = first.parent().unwrap().to_path_buf();
    for file in files(&sim, &dir) {
        sim.remove_file(&file).unwrap();
    }
    let opened = open(&sim, Compression::None);
    let name = dir.file_name().unwrap().to_string_lossy().into_owned();
    let error = opened.content(WINDOWS[0]).unwrap_err().to_string();
    assert!(error.contains(&name), "{error}");
    assert_eq!(opened.content(WINDOWS[1]).unwrap(), in_window(&content, WINDOWS[1]));
    assert!(sim.exists(&dir).unwrap());
}

#[test]
fn blocks_that_are_damaged_are_not_merged_away() {
    let (sim, _) = scene(Compression::None);
    let chunks = files(&sim, Path::new(DATA)).into_iter().find(|path| path.ends_with("chunks/000001")).unwrap();
    let mut data = sim.read(&chunks).unwrap();
    data[20] ^= 1;
    sim.put(&chunks, &data).unwrap();
    let opened = open(&sim, Compression::None);
    let sources = opened.catalog.state().blocks.clone();
    assert_eq!(sources.len(), 2, "a damaged chunk is found when it is read");
    let begun = BlockCompaction::begin(&opened.catalog, sources, 0, &clock(), &mut Random::seeded(1));
    let failed = begun.and_then(|mut compaction| {
        while compaction.step(10)? == Step::More {}
        compaction.publish()
    });
    assert!(failed.is_err());
    opened.catalog.reload(Retention::default(), 0).unwrap();
    assert_eq!(opened.catalog.state().blocks.len(), 2);
    assert_eq!(sim.read(&chunks).unwrap(), data);
}
