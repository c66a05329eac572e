//! Series of native histograms and of both kinds of samples in the head.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::model::append::{AppendHistogram, AppendSample, HistogramValue, SampleRejection, SeriesHandle, SeriesKey};
use crate::model::clock::ManualClock;
use crate::model::histogram::{CounterResetHint, FloatHistogram, Histogram, Span};
use crate::model::labels::Labels;
use crate::model::read::Unlimited;
use crate::model::sample::{STALE_NAN_BITS, stale_nan};
use crate::storage::fs::sim::SimFs;
use crate::storage::head::shard::ShardState;
use crate::storage::wal::histogram_record::decode_histograms;
use crate::storage::wal::record::{RecordKind, decode_samples, decode_series, encode_staged};

const NOW: TimestampMs = TimestampMs(1_000_000);

fn head(shards: u16) -> Head {
    let rules = CutRules { samples_per_chunk: 8, chunk_range_ms: 10_000 };
    Head::new(HeadOptions { shards, rules, ..HeadOptions::new(ManualClock::at(NOW)) })
}

fn labels(name: &str) -> Labels {
    Labels::from_pairs([("__name__", name)])
}

fn key(name: &str) -> SeriesKey {
    SeriesKey::Labels(labels(name))
}

/// `count` observations in each of two buckets from `first` on.
fn whole(first: i32, count: i64) -> Histogram {
    Histogram {
        schema: 2,
        zero_threshold: 0.001,
        zero_count: 1,
        count: 1 + 2 * count.unsigned_abs(),
        sum: 0.5 * count as f64,
        positive_spans: vec![Span { offset: first, length: 2 }],
        positive_buckets: vec![count, 0],
        ..Histogram::default()
    }
}

fn one(name: &str, at: i64, value: impl Into<HistogramValue>) -> AppendBatch {
    let mut batch = AppendBatch::default();
    batch.push_histogram(key(name), TimestampMs(at), value);
    batch
}

fn float(name: &str, at: i64, value: f64) -> AppendBatch {
    AppendBatch::of_floats(vec![AppendSample { series: key(name), at: TimestampMs(at), value }])
}

/// A sample as a reader sees it: bits of a float, or the text of a histogram without empty buckets.
#[derive(Clone, Debug, PartialEq)]
enum Shown {
    Float(u64),
    Histogram(String),
}

fn shown(histogram: &FloatHistogram) -> Shown {
    if histogram.is_stale() {
        return Shown::Histogram("stale".to_owned());
    }
    let mut plain = FloatHistogram { counter_reset_hint: CounterResetHint::Unknown, ..histogram.clone() };
    plain.compact(0);
    Shown::Histogram(format!("{plain:?}"))
}

fn columns(view: &dyn ReadView) -> Vec<(String, SampleColumn)> {
    let selected = view.select(&[], TimeRange::ALL, &Unlimited).unwrap();
    let decode = |series: &crate::model::read::SelectedSeries| {
        let mut column = SampleColumn::default();
        series.samples.decode_all(TimeRange::ALL, &mut column).unwrap();
        (series.labels.get("__name__").unwrap().to_owned(), column)
    };
    selected.iter().map(decode).collect()
}

type Model = BTreeMap<String, BTreeMap<i64, Shown>>;

fn read(view: &dyn ReadView) -> Model {
    let mut model = Model::new();
    for (name, column) in columns(view) {
        let own = model.entry(name).or_default();
        own.extend(
            column.floats.timestamps.iter().zip(&column.floats.values).map(|(t, v)| (*t, Shown::Float(v.to_bits()))),
        );
        own.extend(column.histograms.timestamps.iter().zip(&column.histograms.values).map(|(t, h)| (*t, shown(h))));
    }
    model.retain(|_, samples| !samples.is_empty());
    model
}

fn refused(head: &Head, batch: AppendBatch) -> Option<SampleRejection> {
    let report = head.append_blocking(batch).unwrap();
    assert!(report.rejected.len() <= 1);
    report.rejected.first().map(|(_, rejection)| *rejection)
}

#[test]
fn rejections_are_those_of_prometheus() {
    let head = head(1);
    assert_eq!(refused(&head, one("h", 1000, whole(0, 3))), None);
    assert_eq!(refused(&head, one("h", 1000, whole(0, 3))), None, "the same again");
    let duplicate = refused(&head, one("h", 1000, whole(0, 4))).unwrap();
    assert_eq!(duplicate.to_string(), "duplicate sample for timestamp");
    let other_kind = refused(&head, one("h", 1000, whole(0, 3).to_float())).unwrap();
    assert_eq!(other_kind, SampleRejection::DuplicateHistogram);
    assert_eq!(
        refused(&head, float("h", 1000, 2.5)).unwrap().to_string(),
        "duplicate sample for timestamp 1000; overrides not allowed: existing is a histogram, new value 2.5"
    );
    assert_eq!(refused(&head, one("h", 999, whole(0, 3))), Some(SampleRejection::OutOfOrder));
    assert_eq!(refused(&head, one("h", NOW.0 * 2, whole(0, 3))), Some(SampleRejection::OutOfBounds));
    let broken = Histogram { count: 9, ..whole(0, 3) };
    let invalid = refused(&head, one("h", 2000, broken)).unwrap();
    assert_eq!(
        invalid.to_string(),
        "7 observations found in buckets, but the Count field is 9: histogram's observation count should equal the \
         number of observations found in the buckets (in absence of NaN)"
    );
    assert_eq!(refused(&head, float("f", 1000, 1.0)), None);
    assert_eq!(refused(&head, one("f", 1000, whole(0, 1))), Some(SampleRejection::DuplicateHistogram));
    let stats = head.stats();
    assert_eq!((stats.series, stats.histograms_appended, stats.samples_appended), (2, 1, 1));
    assert_eq!((stats.duplicates, stats.out_of_order, stats.out_of_bounds), (4, 1, 1));
}

#[test]
fn indexes_in_reports_go_on_behind_the_samples() {
    let head = head(3);
    let mut batch = AppendBatch::default();
    for name in ["a", "b", "c"] {
        batch.push_float(key(name), TimestampMs(1000), 1.0);
        batch.push_histogram(key(&format!("{name}_h")), TimestampMs(1000), whole(0, 1));
    }
    batch.push_histogram(key("a"), TimestampMs(900), whole(0, 1));
    batch.push_histogram(key("b"), TimestampMs(2000), whole(0, 1));
    let report = head.append_blocking(batch).unwrap();
    assert_eq!((report.appended, report.created), (7, 6));
    assert_eq!(report.rejected, [(6, SampleRejection::OutOfOrder)]);
    assert_eq!(report.resolved.iter().map(|(index, _)| *index).collect::<Vec<_>>(), (0..8).collect::<Vec<u32>>());
    let handle: SeriesHandle = report.resolved[3].1;
    let known = AppendHistogram { series: SeriesKey::Known(handle), at: TimestampMs(2000), value: whole(0, 2).into() };
    let batch = AppendBatch { histograms: vec![known], ..AppendBatch::default() };
    assert_eq!((batch.len(), batch.first_at()), (1, Some(TimestampMs(2000))));
    assert_eq!(head.append_blocking(batch).unwrap().appended, 1);
    assert_eq!(read(&*head.queryable().view().unwrap())["a_h"].len(), 2);
}

#[test]
fn a_float_marker_ends_a_series_of_histograms_as_one_of_them() {
    let head = head(1);
    for (name, value) in [("whole", HistogramValue::from(whole(0, 3))), ("float", whole(0, 3).to_float().into())] {
        assert_eq!(refused(&head, one(name, 1000, value.clone())), None);
        assert_eq!(refused(&head, float(name, 2000, stale_nan())), None);
        assert_eq!(refused(&head, float(name, 2500, stale_nan())), None);
        assert_eq!(refused(&head, one(name, 3000, value)), None);
    }
    for (_, column) in columns(&*head.queryable().view().unwrap()) {
        assert_eq!((column.floats.len(), &column.histograms.timestamps[..]), (0, &[1000, 2000, 2500, 3000][..]));
        let stale: Vec<bool> = column.histograms.values.iter().map(|h| h.is_stale()).collect();
        assert_eq!(stale, [false, true, true, false]);
        assert_eq!(column.histograms.values[1].sum.to_bits(), STALE_NAN_BITS);
    }
    // The histogram behind the marker has begun a chunk.
    assert_eq!(head.stats().chunks, 4);
}

#[test]
fn new_buckets_change_the_open_chunk_and_disturb_no_view() {
    let head = head(1);
    assert_eq!(refused(&head, one("h", 1000, whole(0, 1))), None);
    assert_eq!(refused(&head, one("h", 1100, whole(0, 2))), None);
    let old = head.queryable().view().unwrap();
    let wide = Histogram {
        positive_spans: vec![Span { offset: -3, length: 7 }],
        positive_buckets: vec![1, 1, 1, 1, 0, 0, 0],
        count: 23,
        ..whole(0, 1)
    };
    assert_eq!(refused(&head, one("h", 1200, wide.clone())), None);
    assert_eq!(read(&*old)["h"].len(), 2);
    let now = columns(&*head.queryable().view().unwrap()).remove(0).1;
    assert_eq!(head.stats().chunks, 1);
    assert_eq!(now.histograms.values[0].positive_buckets, [0.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0]);
    assert_eq!(now.histograms.values[2].positive_buckets, wide.to_float().positive_buckets);
    let hints: Vec<_> = now.histograms.values.iter().map(|h| h.counter_reset_hint).collect();
    assert_eq!(hints, [CounterResetHint::Unknown, CounterResetHint::NotReset, CounterResetHint::NotReset]);
    // A reset begins a chunk.
    assert_eq!(refused(&head, one("h", 1300, whole(0, 1))), None);
    assert_eq!(head.stats().chunks, 2);
}

#[test]
fn what_is_staged_is_checked_and_given_up_with_its_slice() {
    let head = head(1);
    let shard = &head.shards()[0];
    let commit = head.begin(Some(TimestampMs(1000)));
    let mut batch = float("f", 1000, 1.0);
    batch.push_histogram(key("h"), TimestampMs(1000), whole(0, 1));
    batch.push_histogram(key("h"), TimestampMs(1000), whole(0, 1));
    batch.push_histogram(key("h"), TimestampMs(1000), whole(0, 2));
    batch.push_histogram(key("f"), TimestampMs(1000), whole(0, 2));
    let staged = shard.stage(&commit, head.route(batch).remove(0).1).unwrap();
    let refused: Vec<_> = staged.report().rejected.iter().map(|(index, why)| (*index, *why)).collect();
    assert_eq!(refused, [(3, SampleRejection::DuplicateHistogram), (4, SampleRejection::DuplicateHistogram)]);
    assert_eq!((staged.samples().len(), staged.histograms().len(), staged.new_series().len()), (1, 2, 2));
    let records = encode_staged(&[&staged]);
    let kinds: Vec<RecordKind> = records.iter().map(|r| RecordKind::of(r.as_bytes())).collect();
    assert_eq!(kinds, [RecordKind::Series, RecordKind::Samples, RecordKind::Histograms]);
    let (mut series, mut samples, mut histograms) = (Vec::new(), Vec::new(), Vec::new());
    decode_series(records[0].as_bytes(), &mut series).unwrap();
    decode_samples(records[1].as_bytes(), &mut samples).unwrap();
    decode_histograms(records[2].as_bytes(), &mut histograms).unwrap();
    assert_eq!((series.len(), samples.len(), histograms.len()), (2, 1, 2));
    // Staged behind it, by the measure of what waits.
    let later = shard.stage(&commit, head.route(one("h", 900, whole(0, 9))).remove(0).1).unwrap();
    assert_eq!(later.report().rejected, [(0, SampleRejection::OutOfOrder)]);
    drop((staged, later, commit));
    assert_eq!(refused_none(&head, one("h", 900, whole(0, 9))), 1);
    assert_eq!(read(&*head.queryable().view().unwrap())["h"].keys().copied().collect::<Vec<_>>(), [900]);
}

fn refused_none(head: &Head, batch: AppendBatch) -> u32 {
    let report = head.append_blocking(batch).unwrap();
    assert_eq!(report.rejected, []);
    report.appended
}

#[derive(Clone, Debug)]
enum Step {
    Float(f64),
    Stale,
    Whole(i32, i64),
    Fraction(i32, i64),
    Gauge(i32, i64),
}

fn steps() -> impl Strategy<Value = Vec<(usize, i64, Step)>> {
    let buckets = || (-3i32..4, 0i64..40);
    let step = prop_oneof![
        2 => (0i32..9).prop_map(|v| Step::Float(f64::from(v))),
        1 => Just(Step::Stale),
        4 => buckets().prop_map(|(first, count)| Step::Whole(first, count)),
        2 => buckets().prop_map(|(first, count)| Step::Fraction(first, count)),
        1 => buckets().prop_map(|(first, count)| Step::Gauge(first, count)),
    ];
    proptest::collection::vec((0usize..3, 0i64..900, step), 1..120)
}

fn value_of(step: &Step) -> Result<f64, HistogramValue> {
    match step {
        Step::Float(value) => Ok(*value),
        Step::Stale => Ok(stale_nan()),
        Step::Whole(first, count) => Err(whole(*first, *count).into()),
        Step::Fraction(first, count) => Err(whole(*first, *count).to_float().into()),
        Step::Gauge(first, count) => {
            Err(Histogram { counter_reset_hint: CounterResetHint::Gauge, ..whole(*first, *count) }.into())
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    /// Whatever is appended in whatever order of kinds is read back, at once and by older views, from a head that was restored
    /// from the log, and out of blocks.
    #[test]
    fn mixed_series_agree_with_a_naive_model(steps in steps(), shards in 1u16..4) {
        let head = head(shards);
        let restored = Head::new(HeadOptions { shards: 2, ..HeadOptions::new(ManualClock::at(NOW)) });
        let mut model = Model::new();
        let mut views = Vec::new();
        let mut t = 20_000;
        let mut records = Vec::new();
        for (number, (series, wait, step)) in steps.iter().enumerate() {
            t += wait;
            let name = format!("s{series}");
            let value = value_of(step);
            let own = model.entry(name.clone()).or_default();
            let is_newer = own.last_key_value().is_none_or(|(last, _)| *last < t);
            let seen = match (&value, own.last_key_value()) {
                (Ok(v), Some((_, Shown::Histogram(_)))) if v.to_bits() == STALE_NAN_BITS => Shown::Histogram("stale".to_owned()),
                (Ok(v), _) => Shown::Float(v.to_bits()),
                (Err(HistogramValue::Integer(h)), _) => shown(&h.to_float()),
                (Err(HistogramValue::Float(h)), _) => shown(h),
            };
            if is_newer {
                own.insert(t, seen);
            }
            let batch = match value {
                Ok(value) => float(&name, t, value),
                Err(histogram) => one(&name, t, histogram),
            };
            let commit = head.begin(batch.first_at());
            let (shard, slice) = head.route(batch).remove(0);
            let shard = &head.shards()[usize::from(shard.0)];
            let staged = shard.stage(&commit, slice).unwrap();
            records.extend(encode_staged(&[&staged]));
            drop(commit);
            let report = shard.apply(staged).unwrap();
            prop_assert!(!is_newer || report.rejected.is_empty());
            if number % 30 == 0 {
                views.push((head.queryable().view().unwrap(), model.clone()));
            }
        }
        let view = head.queryable().view().unwrap();
        views.push((view, model.clone()));
        for (view, expected) in &views {
            prop_assert_eq!(&read(&**view), expected);
        }
        // Hints: what is said not to be a reset is none.
        for (_, column) in columns(&*views[views.len() - 1].0) {
            for pair in column.histograms.values.windows(2) {
                let plain = FloatHistogram { counter_reset_hint: CounterResetHint::Unknown, ..FloatHistogram::clone(&pair[1]) };
                let claims = pair[1].counter_reset_hint == CounterResetHint::NotReset && !pair[1].is_stale();
                prop_assert!(!claims || pair[0].is_stale() || !plain.detect_reset(&pair[0]));
            }
        }
        let mut restorer = restored.restore(None, TimestampMs(i64::MIN));
        for record in &records {
            use crate::storage::wal::RecordSink as _;
            match RecordKind::of(record.as_bytes()) {
                RecordKind::Series => {
                    let mut series = Vec::new();
                    decode_series(record.as_bytes(), &mut series).unwrap();
                    series.iter().for_each(|one| restorer.series(one.series, &one.labels));
                }
                RecordKind::Samples => {
                    let mut samples = Vec::new();
                    decode_samples(record.as_bytes(), &mut samples).unwrap();
                    restorer.samples(&samples);
                }
                _ => {
                    let mut histograms = Vec::new();
                    decode_histograms(record.as_bytes(), &mut histograms).unwrap();
                    restorer.histograms(&histograms);
                }
            }
        }
        prop_assert_eq!(restorer.finish().bad_histograms, 0);
        prop_assert_eq!(&read(&*restored.queryable().view().unwrap()), &model);
        // Cut in the middle, as a block takes it.
        let middle = (20_000 + t) / 2;
        let mut export = head.export(middle);
        let mut exported = 0;
        while let Some((_, chunks)) = export.next_series().unwrap() {
            prop_assert!(chunks.windows(2).all(|pair| pair[0].max_t < pair[1].min_t));
            prop_assert!(chunks.iter().all(|chunk| chunk.max_t < middle));
            exported += chunks.iter().map(|chunk| usize::from(chunk.sample_count())).sum::<usize>();
        }
        let expected: usize = model.values().map(|own| own.range(..middle).count()).sum();
        prop_assert_eq!(exported, expected);
    }
}

#[test]
fn histograms_come_back_with_a_shard_and_go_with_a_truncation() {
    let sim = SimFs::new();
    let head = head(1);
    for i in 0..40i64 {
        assert_eq!(refused(&head, one("h", 1000 + i * 1000, whole(0, i))), None);
    }
    assert_eq!(sim.operations(), 0);
    assert!(head.truncate_blocking(TimestampMs(30_000)));
    let left = read(&*head.queryable().view().unwrap());
    assert_eq!(left["h"].keys().next(), Some(&30_000));
    assert_eq!(head.count_samples(SeriesRef(1), 0, 35_000), Some(6));
    assert!(head.truncate_blocking(TimestampMs(50_000)));
    assert_eq!((head.stats().series, head.stats().chunks), (0, 0));
    let shard = &head.shards()[0];
    shard.begin_rebuild("a test");
    shard.set_state(ShardState::Ready);
    assert_eq!(refused(&head, one("h", 60_000, whole(0, 1))), None);
}
