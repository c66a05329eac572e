//! The head against a naive model, and under threads.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use proptest::prelude::*;

use super::*;
use crate::model::append::{AppendSample, SampleRejection, SeriesHandle, SeriesKey};
use crate::model::clock::ManualClock;
use crate::model::labels::Labels;
use crate::model::matcher::{MatchOp, Matcher};
use crate::model::read::{FloatColumn, LookedAt, ReadBudget, Scope, Unlimited, Wanted};
use crate::model::sample::{SeriesRef, stale_nan};
use crate::model::time::TimeRange;
use crate::storage::fs::SharedFs;
use crate::storage::fs::sim::SimFs;
use crate::storage::head::route::shard_of;
use crate::storage::head_chunk_files;
use crate::storage::head_chunk_store::{ChunkStore, Files};

const NOW: TimestampMs = TimestampMs(1_000_000);

fn head(shards: u16) -> Head {
    let rules = CutRules { samples_per_chunk: 8, chunk_range_ms: 10_000 };
    let mut options = HeadOptions { shards, rules, ..HeadOptions::new(ManualClock::at(NOW)) };
    if shards == 2 {
        // Nothing is remembered, as of selections of very many series.
        options.known_len_max = 0;
    }
    Head::new(options)
}

fn labels(name: &str, instance: &str) -> Labels {
    Labels::from_pairs([("__name__", name), ("instance", instance)])
}

fn sample(labels: &Labels, at: i64, value: f64) -> AppendSample {
    AppendSample { series: SeriesKey::Labels(labels.clone()), at: TimestampMs(at), value }
}

fn batch(samples: Vec<AppendSample>) -> AppendBatch {
    AppendBatch::of_floats(samples)
}

/// Label sets and samples of all selected series that have samples in `range`.
fn read(view: &dyn ReadView, matchers: &[Matcher], range: TimeRange) -> Vec<(Labels, Vec<(i64, u64)>)> {
    let selected = view.select(matchers, range, &Unlimited).unwrap();
    assert!(selected.iter().map(|s| &s.labels).is_sorted());
    // Listings of the first of them, and of all.
    for limit in [0, 1, 3, usize::MAX] {
        let listed = view.series_labels(&Scope::first(limit, matchers, range), &Unlimited).unwrap();
        assert!(listed.iter().eq(selected.iter().map(|series| &series.labels).take(limit)), "the first {limit}");
        let mut values = view.label_values("instance", &Scope::all(matchers, range), &Unlimited).unwrap();
        values.truncate(limit);
        assert_eq!(view.label_values("instance", &Scope::first(limit, matchers, range), &Unlimited).unwrap(), values);
    }
    let mut out = Vec::new();
    for series in selected {
        let mut column = FloatColumn::default();
        series.samples.decode(range, &mut column).unwrap();
        let mut newest = SampleColumn::default();
        series.samples.decode_newest(range, &mut newest).unwrap();
        let last =
            |column: &FloatColumn| column.timestamps.last().copied().zip(column.values.last().map(|v| v.to_bits()));
        assert_eq!(last(&newest.floats), last(&column));
        let samples: Vec<_> = column.timestamps.into_iter().zip(column.values.iter().map(|v| v.to_bits())).collect();
        if !samples.is_empty() {
            out.push((series.labels, samples));
        }
    }
    check_classes(view, matchers, range, &out);
    out
}

/// Labels, and samples with the bits of their values.
type Samples = (Labels, Vec<(i64, u64)>);

/// Floats of series that are selected without label sets, with the labels of their classes; `None` if they are not selected so.
pub(super) fn classed(
    view: &dyn ReadView,
    matchers: &[Matcher],
    range: TimeRange,
    looked_at: LookedAt<'_>,
    wanted: Wanted,
) -> Option<Vec<Samples>> {
    let series = view.select_classed(matchers, range, looked_at, &Unlimited).unwrap()?;
    let (mut column, mut seen) = (SampleColumn::default(), Vec::new());
    let mut take = |class: u32, column: &mut SampleColumn| {
        let floats = column.floats.timestamps.iter().copied().zip(column.floats.values.iter().map(|v| v.to_bits()));
        seen.push((series.classes()[class as usize].clone(), floats.collect::<Vec<_>>()));
        true
    };
    let half = series.series_count() / 2;
    for numbers in [0..half, half..series.series_count()] {
        series.decode(numbers, range, wanted, &mut column, &mut take).unwrap();
    }
    seen.retain(|(_, samples)| !samples.is_empty());
    Some(seen)
}

/// Series without label sets are the same series, whatever is looked at.
#[track_caller]
fn check_classes(view: &dyn ReadView, matchers: &[Matcher], range: TimeRange, all: &[Samples]) {
    let names = ["instance"];
    for looked_at in [LookedAt::AllBut(&[]), LookedAt::AllBut(&names), LookedAt::Only(&names), LookedAt::Only(&[])] {
        for wanted in [Wanted::All, Wanted::Newest] {
            let Some(mut seen) = classed(view, matchers, range, looked_at, wanted) else { continue };
            let mut expected: Vec<_> = all.iter().map(|(l, samples)| (looked_at.part_of(l), samples.clone())).collect();
            if wanted == Wanted::Newest {
                for (_, samples) in seen.iter_mut().chain(&mut expected) {
                    samples.drain(..samples.len() - 1);
                }
            }
            assert_eq!(seen, expected, "{looked_at:?} {wanted:?}");
        }
    }
}

fn everything() -> Vec<Matcher> {
    vec![Matcher::new(MatchOp::Regex, "__name__", ".+").unwrap()]
}

#[test]
fn rejections_and_reports_are_those_of_prometheus() {
    let head = head(2);
    let (a, b) = (labels("a", "1"), labels("b", "2"));
    let report = head
        .append_blocking(batch(vec![
            sample(&a, 1000, 1.0),
            sample(&b, 1000, 2.0),
            sample(&a, 900, 1.0),
            sample(&a, 1000, 1.0),
        ]))
        .unwrap();
    assert_eq!((report.appended, report.created), (3, 2));
    assert_eq!(report.rejected, [(2, SampleRejection::OutOfOrder)]);
    assert_eq!(report.resolved.iter().map(|(i, _)| *i).collect::<Vec<_>>(), [0, 1, 2, 3]);
    let handle = report.resolved[0].1;
    let known = |at, value| AppendSample { series: SeriesKey::Known(handle), at: TimestampMs(at), value };
    let stranger = SeriesHandle { series: SeriesRef(999), shard: ShardId(7) };
    let report = head
        .append_blocking(batch(vec![
            known(1000, 1.0),
            known(1000, 5.0),
            known(NOW.0 + bounds::FUTURE_MS_MAX + 1, 1.0),
            known(-4001, 1.0),
            AppendSample { series: SeriesKey::Known(stranger), at: TimestampMs(2000), value: 0.0 },
            known(2000, stale_nan()),
            AppendSample { series: SeriesKey::Labels(Labels::empty()), at: TimestampMs(2000), value: 0.0 },
        ]))
        .unwrap();
    assert_eq!((report.appended, report.created, report.resolved.len()), (2, 0, 0));
    let duplicate = SampleRejection::Duplicate { at: 1000, existing: 1.0, new: 5.0 };
    assert_eq!(
        duplicate.to_string(),
        "duplicate sample for timestamp 1000; overrides not allowed: existing 1, new value 5"
    );
    assert_eq!(
        report.rejected,
        [
            (1, duplicate),
            (2, SampleRejection::OutOfBounds),
            (3, SampleRejection::OutOfBounds),
            (4, SampleRejection::UnknownSeries),
            (6, SampleRejection::EmptyLabels)
        ]
    );
    let stats = head.stats();
    assert_eq!((stats.series, stats.chunks, stats.samples_appended), (2, 2, 3));
    assert_eq!((stats.min_time, stats.max_time), (Some(1000), Some(2000)));
    assert_eq!((stats.out_of_order, stats.out_of_bounds, stats.duplicates, stats.series_not_found), (1, 2, 1, 1));
}

#[test]
fn a_repeated_nan_is_the_same_sample_only_bit_by_bit() {
    let head = head(1);
    let a = labels("a", "1");
    let other = f64::from_bits(f64::NAN.to_bits() ^ 1);
    let rejected = |value: f64| head.append_blocking(batch(vec![sample(&a, 1000, value)])).unwrap().rejected;
    assert_eq!(rejected(f64::NAN), []);
    assert_eq!(rejected(f64::NAN), [], "repeated");
    for value in [other, stale_nan(), 1.0] {
        assert!(matches!(rejected(value)[..], [(0, SampleRejection::Duplicate { at: 1000, .. })]), "{value}");
    }
    let found = read(&*head.queryable().view().unwrap(), &everything(), TimeRange::ALL);
    assert_eq!(found.len(), 1);
}

#[test]
fn an_empty_head_becomes_no_block() {
    let head = head(2);
    assert_eq!(head.compactable(10_000), None);
    // Nor does one whose samples are all cut off.
    let a = labels("a", "1");
    head.append_blocking(batch(vec![sample(&a, 1000, 1.0)])).unwrap();
    assert!(head.truncate_blocking(TimestampMs(5_000)));
    assert_eq!((head.compactable(10_000), head.stats().series), (None, 0));
}

#[test]
fn a_full_head_refuses_series_and_takes_samples() {
    let options = HeadOptions { series_limit: 2, ..HeadOptions::new(ManualClock::at(NOW)) };
    let head = Head::new(options);
    let all: Vec<AppendSample> = (0..3).map(|i| sample(&labels("a", &i.to_string()), 1000, 1.0)).collect();
    let report = head.append_blocking(batch(all.clone())).unwrap();
    assert_eq!((report.appended, report.created), (2, 2));
    assert_eq!(report.rejected, [(2, SampleRejection::SeriesLimit { held: 2, limit: 2 })]);
    let later = all.into_iter().map(|s| AppendSample { at: TimestampMs(2000), ..s }).collect();
    assert_eq!(head.append_blocking(batch(later)).unwrap().appended, 2);
}

#[test]
fn staged_samples_are_invisible_and_count_for_the_order() {
    let head = head(1);
    let shard = &head.shards()[0];
    let a = labels("a", "1");
    let stage = |at: &[i64]| {
        let commit = head.begin(Some(TimestampMs(at[0])));
        let samples = at.iter().map(|at| sample(&a, *at, *at as f64)).collect();
        shard.stage(&commit, head.route(batch(samples)).remove(0).1).unwrap()
    };
    let seen = || read(&*head.queryable().view().unwrap(), &everything(), TimeRange::ALL);
    let times =
        |seen: Vec<(Labels, Vec<(i64, u64)>)>| -> Vec<i64> { seen.iter().flat_map(|s| &s.1).map(|s| s.0).collect() };

    let first = stage(&[1000, 1100]);
    assert_eq!((first.new_series().len(), first.samples().len()), (1, 2));
    let second = stage(&[1050, 1100, 1200]);
    assert_eq!(second.report().rejected, [(0, SampleRejection::OutOfOrder)]);
    assert_eq!(second.new_series().len(), 1, "the log has not confirmed the series record yet");
    assert!(seen().is_empty());
    // Applied the other way round: the later slice waits.
    shard.apply(second).unwrap();
    assert!(seen().is_empty());
    shard.apply(first).unwrap();
    assert_eq!(times(seen()), [1000, 1100, 1200]);

    // What is given up does not count, and what was staged after it does.
    let lost = stage(&[1300, 1400]);
    let kept = stage(&[1400, 1500]);
    assert_eq!((kept.report().appended, kept.samples().len()), (2, 2), "the repetition may not rely on the lost one");
    assert!(kept.new_series().is_empty());
    drop(lost);
    let retry = stage(&[1300]);
    assert_eq!(retry.report().rejected.len(), 1);
    drop(kept);
    let retry_all = stage(&[1300, 1400]);
    assert_eq!(retry_all.report().rejected, []);
    shard.apply(retry_all).unwrap();
    drop(retry);
    shard.tidy();
    assert_eq!(times(seen()), [1000, 1100, 1200, 1300, 1400]);
    assert_eq!(head.stats().commits_abandoned, 3);
}

#[test]
fn a_series_of_an_unfinished_commit_has_no_labels_for_readers() {
    let head = head(1);
    let commit = head.begin(Some(TimestampMs(1000)));
    let part = head.route(batch(vec![sample(&labels("a", "1"), 1000, 1.0)])).remove(0).1;
    let staged = head.shards()[0].stage(&commit, part).unwrap();
    head.shards()[0].apply(staged).unwrap();
    let view = head.queryable().view().unwrap();
    assert!(view.label_names(&Scope::all(&[], TimeRange::ALL), &Unlimited).unwrap().is_empty());
    assert!(view.label_values("instance", &Scope::all(&everything(), TimeRange::ALL), &Unlimited).unwrap().is_empty());
    assert!(view.select(&everything(), TimeRange::ALL, &Unlimited).unwrap().is_empty());
    drop(commit);
    assert!(view.select(&everything(), TimeRange::ALL, &Unlimited).unwrap().is_empty(), "a view does not change");
    let later = head.queryable().view().unwrap();
    assert_eq!(later.label_names(&Scope::all(&[], TimeRange::ALL), &Unlimited).unwrap(), ["__name__", "instance"]);
}

#[test]
fn truncation_waits_for_views_and_returns_memory() {
    let head = head(2);
    for at in (0..100).map(|i| 1000 + i * 500) {
        let gone = if at < 20_000 { Some(sample(&labels("gone", "1"), at, 1.0)) } else { None };
        head.append_blocking(batch(gone.into_iter().chain([sample(&labels("kept", "2"), at, 2.0)]).collect())).unwrap();
    }
    let before = head.stats();
    let old = head.queryable().view().unwrap();
    let seen = read(&*old, &everything(), TimeRange::ALL);
    assert!(!head.truncate_blocking(TimestampMs(30_000)));
    assert_eq!(read(&*old, &everything(), TimeRange::ALL), seen, "an old view misses nothing");
    let new = head.queryable().view().unwrap();
    let kept = read(&*new, &everything(), TimeRange::ALL);
    assert_eq!(kept.len(), 1);
    assert_eq!(kept[0].1.first().unwrap().0, 30_000);
    drop((old, new));
    assert!(head.truncate_blocking(TimestampMs(30_000)));
    let after = head.stats();
    assert_eq!((before.series, after.series, after.series_removed), (2, 1, 1));
    assert!(after.chunks < before.chunks / 2 + 2);
    assert_eq!(read(&*head.queryable().view().unwrap(), &everything(), TimeRange::ALL), kept);
    assert_eq!(after.min_time, Some(30_000));
    // The name comes back as another series.
    let report = head.append_blocking(batch(vec![sample(&labels("gone", "1"), 60_000, 1.0)])).unwrap();
    assert_eq!((report.created, report.resolved[0].1.series), (1, SeriesRef(3)));
}

#[test]
fn many_series_are_merged_found_and_collected() {
    let head = head(3);
    let count = 20_000;
    let of = |i: usize| {
        Labels::from_pairs([
            ("__name__", format!("metric_{}", i % 100)),
            ("job", "node".to_owned()),
            ("instance", format!("host-{}", i / 100)),
        ])
    };
    for chunk in (0..count).collect::<Vec<_>>().chunks(700) {
        let samples = chunk.iter().map(|i| sample(&of(*i), 1000, *i as f64)).collect();
        assert_eq!(head.append_blocking(batch(samples)).unwrap().created as usize, chunk.len());
    }
    // Every series is found again by its labels.
    let again = (0..count).map(|i| sample(&of(i), 2000, 1.0)).collect();
    assert_eq!(head.append_blocking(batch(again)).unwrap().created, 0);
    for shard in head.shards() {
        assert!(shard.readers.index.load().segments.len() < 8);
    }
    let view = head.queryable().view().unwrap();
    let select = |matchers: &[Matcher]| view.select(matchers, TimeRange::ALL, &Unlimited).unwrap();
    assert_eq!(select(&everything()).len(), count);
    assert_eq!(select(&[Matcher::equal("__name__", "metric_7")]).len(), 200);
    let regex = Matcher::new(MatchOp::Regex, "instance", "host-1[0-9]").unwrap();
    assert_eq!(select(&[Matcher::equal("__name__", "metric_7"), regex.clone()]).len(), 10);
    assert_eq!(view.label_values("instance", &Scope::all(&[regex], TimeRange::ALL), &Unlimited).unwrap().len(), 10);
    assert_eq!(view.label_values("instance", &Scope::all(&[], TimeRange::ALL), &Unlimited).unwrap().len(), 200);
    drop(view);
    let some = (0..count).step_by(4).map(|i| sample(&of(i), 9000, 1.0)).collect();
    head.append_blocking(batch(some)).unwrap();
    assert!(head.truncate_blocking(TimestampMs(5000)));
    assert_eq!(head.stats().series as usize, count / 4);
    for shard in head.shards() {
        let index = shard.readers.index.load();
        assert_eq!(index.gone_count(), 0);
    }
    assert_eq!(read(&*head.queryable().view().unwrap(), &everything(), TimeRange::ALL).len(), count / 4);
}

#[test]
fn values_of_a_label_with_many_are_those_of_visible_series() {
    let head = head(2);
    let of = |i: usize| labels(&format!("m{}", i % 3), &format!("i{i:05}"));
    let append = |range: std::ops::Range<usize>, at: i64| {
        let samples = range.map(|i| sample(&of(i), at, 1.0)).collect();
        head.append_blocking(batch(samples)).unwrap();
    };
    let check = |of_each: &str| {
        let view = head.queryable().view().unwrap();
        let selected = view.select(&everything(), TimeRange::ALL, &Unlimited).unwrap();
        for name in ["instance", "__name__"] {
            let values: std::collections::BTreeSet<&str> =
                selected.iter().filter_map(|series| series.labels.get(name)).collect();
            let found = view.label_values(name, &Scope::all(&[], TimeRange::ALL), &Unlimited).unwrap();
            assert_eq!(found.iter().collect::<Vec<_>>(), values.into_iter().collect::<Vec<_>>(), "{of_each}");
        }
        // Of some of the series: values and names, all and the first.
        let regex = |pattern: &str| Matcher::new(MatchOp::Regex, "__name__", pattern).unwrap();
        for matchers in [vec![Matcher::equal("__name__", "m1")], vec![regex("m1|m2")], vec![regex("m[12]")]] {
            let some: Vec<&Labels> = selected
                .iter()
                .map(|series| &series.labels)
                .filter(|labels| matchers.iter().all(|matcher| matcher.matches_labels(labels)))
                .collect();
            let values: std::collections::BTreeSet<&str> = some.iter().filter_map(|all| all.get("instance")).collect();
            let found = view.label_values("instance", &Scope::all(&matchers, TimeRange::ALL), &Unlimited).unwrap();
            assert!(found.iter().eq(values.iter().copied()), "{of_each}");
            let found = view.label_values("instance", &Scope::first(7, &matchers, TimeRange::ALL), &Unlimited).unwrap();
            assert!(found.iter().eq(values.into_iter().take(7)), "{of_each}");
            assert_eq!(
                view.label_names(&Scope::all(&matchers, TimeRange::ALL), &Unlimited).unwrap(),
                ["__name__", "instance"]
            );
            let listed = view.series_labels(&Scope::first(50, &matchers, TimeRange::ALL), &Unlimited).unwrap();
            assert!(listed.iter().eq(some.into_iter().take(50)), "{of_each}");
        }
        selected.len()
    };
    append(0..5_000, 1000);
    assert_eq!(check("new"), 5_000);
    // Series of a commit that is not complete are in the index, and in merged parts of it, before views see them.
    let commit = head.begin(Some(TimestampMs(1000)));
    let parts = head.route(batch((5_000..12_000).map(|i| sample(&of(i), 1000, 1.0)).collect()));
    for (shard, slice) in parts {
        let shard = &head.shards()[usize::from(shard.0)];
        let staged = shard.stage(&commit, slice).unwrap();
        shard.apply(staged).unwrap();
        shard.seal_tail();
        while let Some(job) = shard.merge_job() {
            shard.install(job.run());
        }
    }
    let before = head.queryable().view().unwrap();
    assert_eq!(check("not complete"), 5_000);
    drop(commit);
    assert_eq!(check("complete"), 12_000);
    let old = before.label_values("instance", &Scope::all(&[], TimeRange::ALL), &Unlimited).unwrap();
    assert_eq!(old.len(), 5_000, "a view does not change");
    drop(before);
    assert_eq!(check("once more"), 12_000);
    // Few are gone: the index keeps them. Then many.
    append(0..11_000, 20_000);
    assert!(head.truncate_blocking(TimestampMs(10_000)));
    assert_eq!((check("without some"), check("without some, known")), (11_000, 11_000));
    append(0..100, 40_000);
    assert!(head.truncate_blocking(TimestampMs(30_000)));
    assert_eq!(check("without most"), 100);
    append(11_500..11_600, 41_000);
    assert_eq!(check("back again"), 200);
}

#[test]
fn texts_within_values_are_found() {
    let head = head(2);
    let values = ["foo", "xfoo", "fo", "o", "foofoo", "barfox", "é-foo-é", "FOO", "of"];
    for round in 0..300 {
        let samples = values.iter().map(|v| sample(&labels("m", &format!("{v}{round}")), 1000, 1.0)).collect();
        head.append_blocking(batch(samples)).unwrap();
    }
    let view = head.queryable().view().unwrap();
    for pattern in [".*foo.*", ".*o1.*", ".*of.*", ".*é.*", ".*none.*", ".*29.*"] {
        for op in [MatchOp::Regex, MatchOp::NotRegex] {
            let matcher = Matcher::new(op, "instance", pattern).unwrap();
            let all = view.select(&everything(), TimeRange::ALL, &Unlimited).unwrap();
            let want = all.iter().filter(|series| matcher.matches_labels(&series.labels)).count();
            let found = view.select(&[matcher], TimeRange::ALL, &Unlimited).unwrap();
            assert_eq!(found.len(), want, "{op:?} {pattern}");
        }
    }
}

#[test]
fn a_read_ends_when_its_budget_says_so() {
    struct Meagre;
    impl ReadBudget for Meagre {
        fn charge(&self, bytes: usize) -> Result<(), ReadError> {
            if 300 < bytes { Err(ReadError::Budget("too much".into())) } else { Ok(()) }
        }
        fn check(&self) -> Result<(), ReadError> {
            Err(ReadError::Interrupted("late".into()))
        }
    }
    let head = head(1);
    head.append_blocking(batch(vec![sample(&labels("a", "1"), 1000, 1.0)])).unwrap();
    let view = head.queryable().view().unwrap();
    let late = Err(ReadError::Interrupted("late".into()));
    assert_eq!(view.select(&everything(), TimeRange::ALL, &Meagre).map(|s| s.len()), late);
    assert!(view.label_names(&Scope::all(&[], TimeRange::ALL), &Meagre).is_err());
    assert!(view.label_values("a", &Scope::all(&everything(), TimeRange::ALL), &Meagre).is_err());
}

/// Pairs of series on two shards, written together by several threads and always read together.
#[test]
fn readers_never_see_half_a_commit() {
    let head =
        Arc::new(Head::new(HeadOptions { shards: 2, ..HeadOptions::new(ManualClock::at(TimestampMs(1 << 40))) }));
    let on_shard = |name: &str, shard: u16| {
        (0..).map(|i| labels(name, &i.to_string())).find(|l| shard_of(l, 2) == ShardId(shard)).unwrap()
    };
    let running = AtomicBool::new(true);
    let pairs: Vec<(String, Labels, Labels)> =
        ["x", "y"].iter().map(|n| ((*n).to_owned(), on_shard(n, 0), on_shard(n, 1))).collect();
    std::thread::scope(|scope| {
        let reader = || {
            let (mut views, mut samples) = (0, 0);
            while running.load(Ordering::Relaxed) || views < 10 {
                let view = head.queryable().view().unwrap();
                for (name, ..) in &pairs {
                    let one = read(&*view, &[Matcher::equal("__name__", name.as_str())], TimeRange::ALL);
                    let two = read(&*view, &[Matcher::equal("__name__", name.as_str())], TimeRange::ALL);
                    assert_eq!(one, two, "a view does not change");
                    if let [(_, left), (_, right)] = one.as_slice() {
                        assert_eq!(left, right);
                        samples = samples.max(left.len());
                    } else {
                        assert!(one.is_empty(), "one half of a pair: {one:?}");
                    }
                }
                views += 1;
            }
            samples
        };
        let readers = [scope.spawn(reader), scope.spawn(reader)];
        let writers: Vec<_> = pairs
            .iter()
            .map(|(_, left, right)| {
                let head = &head;
                scope.spawn(move || {
                    for i in 0..2000i64 {
                        let both = batch(vec![sample(left, i, i as f64), sample(right, i, i as f64)]);
                        let commit = head.begin(None);
                        let staged: Vec<_> = head
                            .route(both)
                            .into_iter()
                            .map(|(shard, slice)| head.shards()[usize::from(shard.0)].stage(&commit, slice).unwrap())
                            .collect();
                        drop(commit);
                        for part in staged {
                            let shard = &head.shards()[usize::from(part.shard().0)];
                            assert_eq!(shard.apply(part).unwrap().appended, 1);
                            std::thread::yield_now();
                        }
                    }
                })
            })
            .collect();
        let ends: Vec<_> = writers.into_iter().map(|writer| writer.join()).collect();
        running.store(false, Ordering::Relaxed);
        ends.into_iter().for_each(|end| end.unwrap());
        for reader in readers {
            assert!(0 < reader.join().unwrap());
        }
    });
    assert_eq!(read(&*head.queryable().view().unwrap(), &everything(), TimeRange::ALL)[0].1.len(), 2000);
}

/// Prometheus's append rules over plain maps.
#[derive(Clone, Default)]
struct Model {
    series: BTreeMap<Labels, BTreeMap<i64, u64>>,
    newest: Option<i64>,
    min_valid: Option<i64>,
}

impl Model {
    fn append(&mut self, samples: &[(Labels, i64, f64)]) -> (u32, Vec<(u32, SampleRejection)>) {
        let (mut appended, mut rejected) = (0, Vec::new());
        let newest = self.newest.unwrap_or(samples.first().map_or(0, |s| s.1));
        let bound = (newest - 5000).max(self.min_valid.unwrap_or(i64::MIN));
        for (i, (labels, t, value)) in (0..).zip(samples) {
            if *t < bound || NOW.0 + 600_000 < *t {
                rejected.push((i, SampleRejection::OutOfBounds));
                continue;
            }
            let series = self.series.entry(labels.clone()).or_default();
            match series.last_key_value() {
                Some((last, _)) if t < last => rejected.push((i, SampleRejection::OutOfOrder)),
                Some((last, bits)) if t == last && *bits != value.to_bits() => {
                    let existing = f64::from_bits(*bits);
                    rejected.push((i, SampleRejection::Duplicate { at: *t, existing, new: *value }));
                }
                _ => {
                    series.insert(*t, value.to_bits());
                    appended += 1;
                    self.newest = self.newest.max(Some(*t));
                }
            }
        }
        (appended, rejected)
    }

    fn read(&self, matchers: &[Matcher], range: TimeRange) -> Vec<(Labels, Vec<(i64, u64)>)> {
        let from = range.min().0.max(self.min_valid.unwrap_or(i64::MIN));
        let mut out = Vec::new();
        for (labels, samples) in &self.series {
            let inside: Vec<(i64, u64)> =
                samples.iter().map(|(t, v)| (*t, *v)).filter(|(t, _)| from <= *t && *t <= range.max().0).collect();
            if !inside.is_empty() && matchers.iter().all(|m| m.matches_labels(labels)) {
                out.push((labels.clone(), inside));
            }
        }
        out
    }
}

#[derive(Clone, Debug)]
enum Op {
    Append(Vec<(u8, i64, u8)>),
    OpenView,
    CloseView,
    Truncate(i64),
    Seal,
    WriteChunks,
    /// How many jobs are begun and dropped, or have the disk fail at their n-th operation.
    FailToWrite(u64),
}

fn any_op() -> impl Strategy<Value = Op> {
    let sample = (0u8..24, prop_oneof![3 => 0i64..1500, 1 => -6000i64..0], 0u8..4);
    prop_oneof![
        12 => proptest::collection::vec(sample, 1..12).prop_map(Op::Append),
        2 => Just(Op::OpenView),
        2 => Just(Op::CloseView),
        1 => (0i64..8000).prop_map(Op::Truncate),
        1 => Just(Op::Seal),
        3 => Just(Op::WriteChunks),
        1 => (0u64..4).prop_map(Op::FailToWrite),
    ]
}

fn any_matchers() -> impl Strategy<Value = Vec<Matcher>> {
    let op = prop_oneof![Just(MatchOp::Equal), Just(MatchOp::NotEqual), Just(MatchOp::Regex), Just(MatchOp::NotRegex)];
    let value = prop_oneof![
        Just(""),
        Just("a"),
        Just("b"),
        Just("0"),
        Just("1"),
        Just("a|b"),
        Just("0|2|"),
        Just("a.*"),
        Just(".*"),
        Just(".+"),
        Just("[0-2]"),
        Just("b?"),
        Just("none")
    ];
    let name = prop_oneof![Just("__name__"), Just("instance"), Just("extra"), Just("absent")];
    let matcher = (op, name, value).prop_map(|(op, name, value)| Matcher::new(op, name, value).unwrap());
    proptest::collection::vec(matcher, 1..4)
}

fn universe(i: u8) -> Labels {
    let name = ["a", "b", "ab"][usize::from(i) % 3];
    let extra = if i.is_multiple_of(2) { "" } else { "yes" };
    Labels::from_pairs([("__name__", name), ("instance", &(i / 6).to_string()), ("extra", extra)])
}

fn check_against_model(shards: u16, ops: Vec<Op>, matchers: &[Vec<Matcher>]) {
    let head = head(shards);
    let sim = SimFs::new();
    let fs: SharedFs = Arc::new(sim.clone());
    fs.create_dir_all(Path::new("/data")).unwrap();
    head.attach_chunks(ChunkStore::new(Files::new(&fs, Path::new("/data"), Default::default()), 0));
    head.begin_chunk_writes();
    let mut model = Model::default();
    let mut views: Vec<(Arc<dyn ReadView>, Model)> = Vec::new();
    let mut base = 10_000;
    for op in ops {
        match op {
            Op::Append(samples) => {
                let values = [0.0, 1.5, f64::NAN, stale_nan()];
                let samples: Vec<(Labels, i64, f64)> =
                    samples.iter().map(|(s, t, v)| (universe(*s), base + t, values[usize::from(*v)])).collect();
                base += 300;
                let (appended, rejected) = model.append(&samples);
                let report =
                    head.append_blocking(batch(samples.iter().map(|(l, t, v)| sample(l, *t, *v)).collect())).unwrap();
                assert_eq!(report.appended, appended);
                // NaN is not equal to itself, so the texts are compared.
                assert_eq!(format!("{:?}", report.rejected), format!("{rejected:?}"));
            }
            Op::OpenView => views.push((head.queryable().view().unwrap(), model.clone())),
            Op::CloseView => drop(views.pop()),
            Op::Truncate(back) => {
                let bound = base - back;
                model.min_valid = model.min_valid.max(Some(bound));
                if head.truncate_blocking(TimestampMs(bound)) {
                    let min_valid = model.min_valid.unwrap();
                    model.series.retain(|_, samples| samples.last_key_value().is_some_and(|(t, _)| min_valid <= *t));
                }
                model.newest = model.newest.map(|newest| newest.max(bound));
            }
            Op::Seal => head.shards().iter().for_each(|shard| shard.seal_tail()),
            Op::WriteChunks => {
                head.write_chunks_blocking().unwrap();
                // What was removed from the folder is read by those who know it.
                if base % 900 == 0 {
                    head_chunk_files::remove_before(&*fs, Path::new("/data"), base - 5_000, None, &|_| true).unwrap();
                }
            }
            Op::FailToWrite(0) => {
                head.shards().iter().for_each(|shard| drop(shard.chunk_job()));
            }
            Op::FailToWrite(n) => {
                sim.fail_nth(n, 2);
                let _ = head.write_chunks_blocking();
                sim.heal();
            }
        }
        let now = (head.queryable().view().unwrap(), model.clone());
        for (view, model) in views.iter().chain([&now]) {
            assert_eq!(read(&**view, &everything(), TimeRange::ALL), model.read(&everything(), TimeRange::ALL));
        }
    }
    views.push((head.queryable().view().unwrap(), model));
    let range = TimeRange::new(TimestampMs(base - 3000), TimestampMs(base - 1000)).unwrap();
    for (view, model) in &views {
        for matchers in matchers {
            assert_eq!(read(&**view, matchers, TimeRange::ALL), model.read(matchers, TimeRange::ALL), "{matchers:?}");
            assert_eq!(read(&**view, matchers, range), model.read(matchers, range), "{matchers:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn the_head_agrees_with_a_naive_model(
        shards in 1u16..4,
        ops in proptest::collection::vec(any_op(), 1..60),
        matchers in proptest::collection::vec(any_matchers(), 1..12),
    ) {
        check_against_model(shards, ops, &matchers);
    }
}
