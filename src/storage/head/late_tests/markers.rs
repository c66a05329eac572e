//! Markers in the log of late samples: what Prometheus makes of them at a start, at any moment.

use std::collections::BTreeSet;

use super::*;
use crate::model::append::HistogramValue;
use crate::model::sample::SeriesRef;
use crate::storage::chunk::Encoding;
use crate::storage::fs::Fs as _;
use crate::storage::head::Marked;
use crate::storage::head::starts::StartPolicy;
use crate::storage::head_chunks::{HEAD_CHUNKS_DIR, OUT_OF_ORDER, each_chunk};
use crate::storage::wal::histogram_record::RefHistogram;
use crate::storage::wal::marker_record::RefMarker;
use crate::storage::wal::record::{RecordKind, RefSample, RefSeries};
use crate::storage::wal::writer::Position;
use crate::storage::wal::{RecordSink, WAL_DIR, read_until};
use crate::storage::wbl::WBL_DIR;

const CHUNK_LEN: usize = 4;

type Times = BTreeSet<i64>;

/// What Prometheus has after a start, by its rules: times by series.
#[derive(Default)]
struct Upstream {
    names: BTreeMap<String, SeriesRef>,
    aliases: BTreeMap<SeriesRef, SeriesRef>,
    in_order: BTreeMap<SeriesRef, Times>,
    /// Of chunks of samples in order.
    mapped: BTreeMap<SeriesRef, Times>,
    /// Of the chunks in files, and the place of the last of all.
    in_files: BTreeMap<SeriesRef, Times>,
    last: u64,
    closed: BTreeMap<SeriesRef, Times>,
    open: BTreeMap<SeriesRef, Times>,
    /// The log of late samples is read.
    is_late: bool,
}

impl Upstream {
    fn sample(&mut self, series: SeriesRef, t: i64) {
        let series = self.aliases.get(&series).copied().unwrap_or(series);
        if !self.is_late {
            let own = self.in_order.entry(series).or_default();
            // The other log has those that came late, too, and they are passed over there.
            if own.last().is_none_or(|newest| *newest < t) {
                own.insert(t);
            }
            return;
        }
        let open = self.open.entry(series).or_default();
        if CHUNK_LEN <= open.len() {
            self.closed.entry(series).or_default().append(open);
        }
        open.insert(t);
    }
}

impl RecordSink for Upstream {
    fn series(&mut self, series: &mut Vec<RefSeries>) {
        for one in series.drain(..) {
            let first = *self.names.entry(one.labels.to_string()).or_insert(one.series);
            if first != one.series {
                self.aliases.insert(one.series, first);
            }
            // Chunks are those of the reference that was named last.
            let chunks = self.in_files.get(&one.series).cloned().unwrap_or_default();
            self.closed.insert(first, chunks);
        }
    }

    fn samples(&mut self, samples: &[RefSample]) {
        samples.iter().for_each(|one| self.sample(one.series, one.t));
    }

    fn histograms(&mut self, histograms: &[RefHistogram]) {
        histograms.iter().for_each(|one| self.sample(one.series, one.t));
    }

    fn markers(&mut self, markers: &[RefMarker]) {
        for one in markers.iter().filter(|one| one.place <= self.last) {
            let series = self.aliases.get(&one.series).copied().unwrap_or(one.series);
            self.open.insert(series, Times::new());
        }
    }
}

/// What Prometheus would have of the logs and the files of chunks after a kill now.
pub(super) fn upstream(sim: &SimFs) -> BTreeSet<(String, i64)> {
    let fs: SharedFs = Arc::new(sim.clone());
    let mut found = Upstream::default();
    let dir = Path::new(DATA).join(HEAD_CHUNKS_DIR);
    let mut names: Vec<String> =
        fs.list(&dir).map_or_else(|_| Vec::new(), |all| all.into_iter().map(|e| e.name).collect());
    names.retain(|name| name.parse::<u64>().is_ok());
    names.sort();
    for name in names {
        let number: u64 = name.parse().unwrap();
        let (before, mut chunks) = (found.last, Vec::new());
        let sound = each_chunk(&*fs, &dir.join(name), &mut |chunk| {
            found.last = ChunkPlace::new(number, chunk.offset).unwrap().number();
            let is_late = chunk.encoding & OUT_OF_ORDER != 0;
            let encoding = Encoding::from_id(chunk.encoding & !OUT_OF_ORDER).unwrap();
            let samples = crate::storage::block::rewrite::decode(encoding, chunk.data).unwrap();
            chunks.push((is_late, chunk.series, samples.into_iter().map(|one| one.t).collect::<Times>()));
        });
        if !sound.unwrap() {
            // It removes the file, and those behind it.
            found.last = before;
            break;
        }
        for (is_late, series, times) in chunks {
            let of_kind = if is_late { &mut found.in_files } else { &mut found.mapped };
            of_kind.entry(series).or_default().extend(times);
        }
    }
    let end = Position { segment: u64::MAX, offset: 0 };
    read_until(&fs, &Path::new(DATA).join(WAL_DIR), end, &mut found).unwrap();
    found.is_late = true;
    if sim.exists(&Path::new(DATA).join(WBL_DIR)).unwrap() {
        read_until(&fs, &Path::new(DATA).join(WBL_DIR), end, &mut found).unwrap();
    }
    let of = |series: &SeriesRef| {
        let all = [&found.in_order, &found.mapped, &found.closed, &found.open];
        all.into_iter().filter_map(|times| times.get(series)).flatten().copied().collect::<Vec<i64>>()
    };
    found.names.iter().flat_map(|(name, series)| of(series).into_iter().map(|t| (name.clone(), t))).collect()
}

/// The records of the log of late samples, by kind.
fn records(sim: &SimFs, kind: RecordKind) -> u64 {
    struct Nothing;
    impl RecordSink for Nothing {
        fn series(&mut self, _: &mut Vec<RefSeries>) {}
        fn samples(&mut self, _: &[RefSample]) {}
        fn histograms(&mut self, _: &[RefHistogram]) {}
    }
    let fs: SharedFs = Arc::new(sim.clone());
    let end = Position { segment: u64::MAX, offset: 0 };
    let read = read_until(&fs, &Path::new(DATA).join(WBL_DIR), end, &mut Nothing).unwrap();
    read.records.get(&kind).copied().unwrap_or(0)
}

fn open(sim: &SimFs) -> Store {
    Store::open_with(sim, head_of(HeadOptions { late_chunk_len: CHUNK_LEN, ..options() }, WINDOW_MS))
}

impl Store {
    /// Writes markers, as the shards' actors do it.
    pub(super) fn mark(&mut self) {
        for shard in self.head.shards() {
            while shard.mark_late(2, |records| {
                self.late_log.append(&records).unwrap();
                Marked::Done
            }) {}
        }
    }

    fn keys_of_all(&self) -> BTreeSet<(String, i64)> {
        let all = self.content().into_iter();
        all.flat_map(|(name, samples)| samples.into_iter().map(move |(t, _)| (name.clone(), t))).collect()
    }
}

#[track_caller]
fn check(store: &Store, what: &str) {
    let found = upstream(&store.sim);
    let missing: Vec<_> = store.keys_of_all().into_iter().filter(|key| !found.contains(key)).collect();
    assert!(missing.is_empty(), "{what}: {missing:?}");
}

#[test]
fn a_series_is_marked_when_all_of_it_stands_in_files() {
    let sim = SimFs::new();
    let mut store = open(&sim);
    store.append(floats((0..3).map(|series| (series, 100_000)))).unwrap();
    let append = |store: &mut Store, series: u32, times: std::ops::Range<i64>| {
        times.for_each(|t| drop(store.append(floats([(series, 60_000 + t * 10)])).unwrap()));
    };
    let markers = |store: &mut Store| {
        store.mark();
        check(store, "markers");
        records(&store.sim, RecordKind::MmapMarkers)
    };
    append(&mut store, 1, 0..4);
    assert_eq!(markers(&mut store), 0, "nothing is written");
    append(&mut store, 2, 0..5);
    store.head.write_chunks_blocking().unwrap();
    assert_eq!(markers(&mut store), 1, "a sample of the second series stands in no chunk");
    append(&mut store, 1, 4..8);
    append(&mut store, 2, 5..8);
    store.head.write_chunks_blocking().unwrap();
    // What waits for the log, or to be applied, may stand in the log already.
    let commit = store.head.begin(Some(TimestampMs(70_000)));
    let (id, slice) = store.head.route(floats([(1, 70_000)])).remove(0);
    let shard = Arc::clone(&store.head.shards()[usize::from(id.0)]);
    let mut staged = shard.stage(&commit, slice).unwrap();
    drop(commit);
    assert_eq!(markers(&mut store), 2, "only the second series");
    store.late_log.append(&LogRecords::of_staged(&[&staged]).late).unwrap();
    staged.set_logged();
    assert_eq!(markers(&mut store), 2);
    shard.apply(staged).unwrap();
    assert_eq!(markers(&mut store), 2);
    // The next chance is the next chunk.
    append(&mut store, 1, 20..23);
    store.head.write_chunks_blocking().unwrap();
    assert_eq!(markers(&mut store), 3);
    // A log that is not free is asked again.
    append(&mut store, 2, 30..34);
    store.head.write_chunks_blocking().unwrap();
    for shard in store.head.shards() {
        shard.mark_late(9, |_| Marked::NotNow);
    }
    assert_eq!(markers(&mut store), 4);
    let content = store.content();
    let again = open(&sim.fork());
    assert_eq!((again.content(), again.report.late_again.len()), (content, 0));
    assert_eq!(again.report.late_log.skipped().count(), 0);
}

#[test]
fn a_log_that_ends_anywhere_in_a_marker_has_all_samples() {
    let sim = SimFs::new();
    let mut store = open(&sim);
    store.append(floats((0..3).map(|series| (series, 100_000)))).unwrap();
    for t in 0..12 {
        store.append(floats((0..3).map(|series| (series, 60_000 + t * 10)))).unwrap();
    }
    store.head.write_chunks_blocking().unwrap();
    let path = files_of(&sim, WBL_DIR).pop().unwrap();
    let before = sim.read(&path).unwrap().len();
    store.mark();
    store.append(floats([(1, 70_000)])).unwrap();
    let (data, keys) = (sim.read(&path).unwrap(), store.keys_of_all());
    assert!(before + 30 < data.len());
    drop(store);
    for len in before..=data.len() {
        let copy = sim.fork();
        copy.put(&path, &data[..len]).unwrap();
        let mut wanted = keys.clone();
        if len < data.len() {
            wanted.remove(&(labels(1).to_string(), 70_000));
        }
        assert!(upstream(&copy).is_superset(&wanted), "{len}");
        let again = open(&copy);
        assert_eq!((again.keys_of_all(), again.report.late_again.len()), (wanted, 0), "{len}");
    }
}

fn files_of(sim: &SimFs, dir: &str) -> Vec<std::path::PathBuf> {
    let dir = Path::new(DATA).join(dir);
    let mut all: Vec<_> = sim.list(&dir).unwrap_or_default().into_iter().map(|entry| dir.join(entry.name)).collect();
    all.sort();
    all
}

#[test]
fn what_a_marker_promises_and_no_chunk_holds_is_logged_again() {
    for stored in [false, true] {
        let sim = SimFs::new();
        let open = |sim: &SimFs| {
            let starts = StartPolicy { zero_samples: false, stored };
            Store::open_with(sim, head_of(HeadOptions { late_chunk_len: 4, starts, ..options() }, WINDOW_MS))
        };
        let mut store = open(&sim);
        let of = |t: i64| {
            let histogram =
                |n: i64| Histogram { count: n as u64, zero_count: n as u64, sum: 1.0, ..Histogram::default() };
            let key = |series| SeriesKey::Labels(labels(series));
            let mut batch = AppendBatch::default();
            batch.push_float(key(0), TimestampMs(t), t as f64);
            batch.push_histogram(key(1), TimestampMs(t), histogram(t));
            batch.push_histogram(key(2), TimestampMs(t), HistogramValue::from(histogram(t).to_float()));
            batch.starts.samples.push((0, t - 5));
            batch.starts.histograms.extend([(0, t - 5), (1, t - 6)]);
            batch
        };
        let columns = |store: &Store| (0..3).map(|series| format!("{:?}", store.column(series))).collect::<Vec<_>>();
        store.append(of(100_000)).unwrap();
        for t in 0..8 {
            store.append(of(60_000 + t * 10)).unwrap();
        }
        store.head.write_chunks_blocking().unwrap();
        store.mark();
        assert_eq!(records(&sim, RecordKind::MmapMarkers), 2);
        store.append(of(61_000)).unwrap();
        let wanted = columns(&store);
        drop(store);
        // As a power cut leaves it: the last file is gone, its marker is not.
        for path in files_of(&sim, HEAD_CHUNKS_DIR) {
            sim.remove_file(&path).unwrap();
        }
        let mut store = open(&sim);
        assert_eq!(columns(&store), wanted);
        assert!(!store.report.late_again.is_empty());
        let again = open(&sim.fork());
        assert_eq!((columns(&again), again.report.late_again.len()), (wanted.clone(), 0), "once is enough");
        // Chunks that are written from now on make Prometheus believe the markers.
        for t in 20..40 {
            store.append(floats([(7, 60_000 + t * 10), (7, 100_000 + t)])).unwrap();
        }
        store.head.write_chunks_blocking().unwrap();
        check(&store, "after new chunks");
        store.mark();
        check(&store, "after new markers");
        let again = open(&sim.fork());
        assert_eq!((columns(&again), again.report.late_again.len()), (wanted, 0));
    }
}

#[test]
fn at_any_moment_prometheus_would_find_all_samples() {
    let (mut marked, mut repeated) = (0, 0);
    for seed in 0..8 {
        let mut random = Random::seeded(seed);
        let mut sim = SimFs::new();
        let mut store = open(&sim);
        let mut waiting: Vec<(Staged, bool)> = Vec::new();
        store.append(floats((0..3).map(|series| (series, 100_000)))).unwrap();
        for step in 0..160 {
            let late = |random: &mut Random| (random.below(3) as u32, 50_000 + random.below(45_000) as i64);
            let what = random.below(100);
            match what {
                0..40 => {
                    let count = 1 + random.below(2);
                    let samples: Vec<(u32, i64)> = (0..count).map(|_| late(&mut random)).collect();
                    store.append(floats(samples)).unwrap();
                }
                40..50 => {
                    let commit = store.head.begin(None);
                    let (id, slice) = store.head.route(floats([late(&mut random)])).remove(0);
                    let staged = store.head.shards()[usize::from(id.0)].stage(&commit, slice).unwrap();
                    waiting.push((staged, false));
                }
                50..60 => {
                    // In any order.
                    let at = random.below(1 + waiting.len() as u64) as usize;
                    if let Some((staged, is_logged)) = waiting.get_mut(at).filter(|(_, is_logged)| !is_logged) {
                        let records = LogRecords::of_staged(&[staged]);
                        store.writer.append(&records.wal).unwrap();
                        store.late_log.append(&records.late).unwrap();
                        staged.set_logged();
                        *is_logged = true;
                    }
                }
                60..72 => {
                    if let Some(at) = waiting.iter().position(|(_, is_logged)| *is_logged) {
                        let (staged, _) = waiting.remove(at);
                        store.head.shards()[usize::from(staged.shard().0)].apply(staged).unwrap();
                    }
                }
                72..78 => store.head.write_chunks_blocking().unwrap(),
                78..96 => {
                    store.head.write_chunks_blocking().unwrap();
                    store.mark();
                }
                _ => {
                    // A kill, a power cut, or a chunk that is damaged at the next start.
                    waiting.clear();
                    drop(store);
                    sim = sim.fork();
                    if 97 < what {
                        sim.cut_power_anyhow(&mut random);
                    } else if 96 < what
                        && let Some(path) = files_of(&sim, HEAD_CHUNKS_DIR).pop()
                    {
                        let mut data = sim.read(&path).unwrap();
                        let at = random.below(data.len() as u64) as usize;
                        data[at] ^= 1;
                        sim.put(&path, &data).unwrap();
                    }
                    marked += records_or_none(&sim);
                    store = open(&sim);
                    repeated += usize::from(!store.report.late_again.is_empty());
                }
            }
            if 50 <= what {
                check(&store, &format!("seed {seed}, step {step}, {what}"));
            }
        }
    }
    assert!(10 < marked && 0 < repeated, "{marked} {repeated}");
}

fn records_or_none(sim: &SimFs) -> u64 {
    if sim.exists(&Path::new(DATA).join(WBL_DIR)).unwrap() { records(sim, RecordKind::MmapMarkers) } else { 0 }
}

#[test]
fn series_that_the_log_names_twice_get_no_markers() {
    let sim = SimFs::new();
    let mut store = open(&sim);
    store.append(floats([(1, 100_000), (2, 100_000)])).unwrap();
    // Another program has named the first series once more.
    let mut again = Vec::new();
    crate::storage::wal::record::encode_series([(SeriesRef(77), &labels(1))], &mut again);
    store.writer.append(&again).unwrap();
    drop(store);
    let mut store = open(&sim);
    for t in 0..4 {
        store.append(floats([(1, 60_000 + t), (2, 60_000 + t)])).unwrap();
    }
    store.head.write_chunks_blocking().unwrap();
    let mut marked = Vec::new();
    for shard in store.head.shards() {
        shard.mark_late(9, |records| {
            marked.extend(
                records
                    .iter()
                    .flat_map(|one| crate::storage::wal::marker_record::decode_markers(one.as_bytes()).unwrap()),
            );
            store.late_log.append(&records).unwrap();
            Marked::Done
        });
    }
    let names: Vec<u64> = marked.iter().map(|one| one.series.0).collect();
    assert_eq!(names, [2]);
    check(&store, "of two names");
}
