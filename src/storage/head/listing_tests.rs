//! Listings agree with plain filtering, whatever way they take.

use std::collections::BTreeSet;

use proptest::prelude::*;

use crate::model::append::{AppendBatch, AppendSample, SeriesKey};
use crate::model::clock::ManualClock;
use crate::model::labels::Labels;
use crate::model::matcher::{MatchOp, Matcher};
use crate::model::read::{ListingOf, Scope, Unlimited};
use crate::model::time::{TimeRange, TimestampMs};
use crate::storage::head::{Head, HeadOptions, LookJob};

/// Series whose labels hang together, as those of targets do; one in three lacks a label.
pub(in crate::storage) fn labels(n: u32) -> Labels {
    let (job, instance) = (n % 4, n % 12);
    let zone = if n.is_multiple_of(3) { "" } else { ["a", "b"][(n % 2) as usize] };
    Labels::from_pairs([
        ("__name__", "x".to_owned()),
        ("instance", format!("i{instance:02}")),
        ("job", format!("j{job}")),
        ("uid", format!("{:03}-{}", 999 - n, if n.is_multiple_of(10) { "foo" } else { "bar" })),
        ("zone", zone.to_owned()),
    ])
}

pub(in crate::storage) fn matcher() -> impl Strategy<Value = Matcher> {
    let conditions = vec![
        (MatchOp::Equal, "__name__", "x"),
        (MatchOp::Equal, "job", "j1"),
        (MatchOp::Equal, "job", "nothing"),
        (MatchOp::NotEqual, "job", "j1"),
        (MatchOp::Regex, "job", "j1|j2"),
        (MatchOp::NotRegex, "job", "j[0-2]"),
        (MatchOp::Equal, "instance", "i05"),
        (MatchOp::Regex, "instance", "i0.*"),
        (MatchOp::Regex, "uid", ".*foo.*"),
        (MatchOp::NotRegex, "uid", ".*foo.*"),
        (MatchOp::Regex, "uid", "9.*"),
        (MatchOp::Equal, "uid", "998-bar"),
        (MatchOp::Equal, "zone", ""),
        (MatchOp::NotEqual, "zone", ""),
        (MatchOp::Regex, "zone", "a|"),
        (MatchOp::NotEqual, "none", "a"),
    ];
    proptest::sample::select(conditions).prop_map(|(op, name, value)| Matcher::new(op, name, value).unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn listings_agree_with_plain_filtering(
        count in 1u32..900,
        parts in 1usize..4,
        remembers in any::<bool>(),
        matchers in proptest::collection::vec(matcher(), 0..4),
        since in prop_oneof![Just(0), Just(1_500)],
        until in prop_oneof![Just(i64::MAX), Just(1_500), Just(10)],
    ) {
        let mut options = HeadOptions { shards: 2, ..HeadOptions::new(ManualClock::at(TimestampMs(1 << 42))) };
        if !remembers {
            options.known_len_max = 0;
        }
        let head = Head::new(options);
        let all: Vec<u32> = (0..count).collect();
        for some in all.chunks((count as usize).div_ceil(parts)) {
            let sample = |n: &u32| AppendSample {
                series: SeriesKey::Labels(labels(*n)),
                at: TimestampMs(1_000 + 1_000 * i64::from(n % 2)),
                value: 1.0,
            };
            head.append_blocking(AppendBatch::of_floats(some.iter().map(sample).collect())).unwrap();
            for shard in head.shards() {
                shard.seal_tail();
                if parts == 2 {
                    while let Some(job) = shard.merge_job() {
                        shard.install(job.run());
                    }
                }
            }
        }
        let view = head.queryable().view().unwrap();
        let since = since.min(until);
        let range = TimeRange::new(TimestampMs(since), TimestampMs(until)).unwrap();
        let fits = |labels: &Labels| matchers.iter().all(|matcher| matcher.matches_labels(labels));
        let expected: Vec<Labels> = all.iter().map(|n| labels(*n)).filter(fits).filter(|_| 1_000 <= until).collect();
        let selected = view.select(&matchers, range, &Unlimited).unwrap();
        // Series end and begin with their samples, unlike names and values of labels, which the head has as long as it has them.
        let has_samples = |n: &&u32| (since..=until).contains(&(1_000 + 1_000 * i64::from(**n % 2)));
        let mut within: Vec<Labels> = all.iter().filter(has_samples).map(|n| labels(*n)).filter(fits).collect();
        within.sort();
        prop_assert!(selected.iter().map(|series| &series.labels).eq(&within));
        for limit in [0, 1, 5, 100, usize::MAX] {
            let scope = Scope::first(limit, &matchers, range);
            for name in ["__name__", "instance", "job", "uid", "zone", "none"] {
                let values: BTreeSet<&str> = expected.iter().filter_map(|labels| labels.get(name)).collect();
                let found = view.label_values(name, &scope, &Unlimited).unwrap();
                prop_assert!(found.iter().eq(values.into_iter().take(limit)), "the first {limit} values of {name}");
            }
            let listed = view.series_labels(&scope, &Unlimited).unwrap();
            prop_assert!(listed.iter().eq(selected.iter().map(|series| &series.labels).take(limit)), "first {limit}");
        }
        let names: BTreeSet<&str> = expected.iter().flat_map(|labels| labels.iter().map(|(name, _)| name)).collect();
        let found = view.label_names(&Scope::all(&matchers, range), &Unlimited).unwrap();
        prop_assert!(found.iter().eq(names));
    }
}

/// Values of each label under some conditions, three times each, beside plain filtering of the series.
fn check_values(head: &Head, all: &[Labels], what: &str) {
    let view = head.queryable().view().unwrap();
    let range = TimeRange::new(TimestampMs(0), TimestampMs(i64::MAX)).unwrap();
    let matcher = |op, name, value| Matcher::new(op, name, value).unwrap();
    let conditions = [
        vec![matcher(MatchOp::Equal, "job", "j1")],
        vec![matcher(MatchOp::Regex, "job", "j1|j2")],
        vec![matcher(MatchOp::NotEqual, "zone", "")],
        vec![matcher(MatchOp::Equal, "zone", "")],
        vec![matcher(MatchOp::Regex, "zone", "a|")],
        vec![matcher(MatchOp::Equal, "none", "a")],
        vec![matcher(MatchOp::NotEqual, "none", "a"), matcher(MatchOp::Equal, "instance", "i05")],
        vec![matcher(MatchOp::NotEqual, "job", "j1"), matcher(MatchOp::NotEqual, "job", "j2")],
        vec![matcher(MatchOp::Equal, "job", "j1"), matcher(MatchOp::Equal, "zone", "a")],
        vec![matcher(MatchOp::Regex, "instance", "i0.*"), matcher(MatchOp::Equal, "zone", "b")],
        vec![matcher(MatchOp::Equal, "uid", "998-bar")],
    ];
    for matchers in &conditions {
        let fits = |labels: &&Labels| matchers.iter().all(|matcher| matcher.matches_labels(labels));
        for name in ["__name__", "instance", "job", "zone"] {
            let values: BTreeSet<&str> = all.iter().filter(fits).filter_map(|labels| labels.get(name)).collect();
            for (time, limit) in [usize::MAX, usize::MAX, 2, usize::MAX].into_iter().enumerate() {
                let found = view.label_values(name, &Scope::first(limit, matchers, range), &Unlimited).unwrap();
                let is_same = found.iter().eq(values.iter().copied().take(limit));
                assert!(is_same, "{what}, time {time}: {name} under {matchers:?}");
            }
        }
    }
}

#[test]
fn values_that_occur_together_are_remembered() {
    let head = Head::new(HeadOptions { shards: 1, ..HeadOptions::new(ManualClock::at(TimestampMs(1 << 42))) });
    let append = |series: &[Labels], t: i64| {
        let sample =
            |one: &Labels| AppendSample { series: SeriesKey::Labels(one.clone()), at: TimestampMs(t), value: 1.0 };
        head.append_blocking(AppendBatch::of_floats(series.iter().map(sample).collect())).unwrap();
        for shard in head.shards() {
            shard.seal_tail();
            while let Some(job) = shard.merge_job() {
                shard.install(job.run());
            }
        }
    };
    let series = |n: u32| {
        let mut series = labels(n % 900).to_builder();
        series.set("uid", &format!("{n:04}"));
        series.build()
    };
    let mut known: Vec<Labels> = (0..2_500).map(series).collect();
    append(&known, 1_000);
    let estimate = |name: &str, scope: &Scope<'_>| {
        head.queryable().view().unwrap().listing_estimate(ListingOf::Values(name), scope).unwrap().unwrap()
    };
    let of_job = [Matcher::equal("job", "j1")];
    let (under, all) = (Scope::all(&of_job, TimeRange::ALL), Scope::all(&[], TimeRange::ALL));
    assert!(200 < estimate("instance", &under), "all series may have to be looked at");
    check_values(&head, &known, "all are seen");
    assert!(estimate("instance", &under) < 100, "a small segment has no table: {}", estimate("instance", &under));
    assert!(estimate("instance", &all) < 10 && 50 < estimate("uid", &all) && 500 < estimate("uid", &under));
    assert!(estimate("uid", &Scope::first(10, &[], TimeRange::ALL)) < 10);
    // The first label sets, by what each of the conditions holds for.
    let two = [Matcher::equal("job", "j1"), Matcher::equal("zone", "b")];
    let none = [Matcher::equal("job", "j1"), Matcher::equal("zone", "c")];
    let sets = |limit: usize, matchers: &[Matcher]| {
        let scope = Scope::first(limit, matchers, TimeRange::ALL);
        head.queryable().view().unwrap().listing_estimate(ListingOf::LabelSets, &scope).unwrap().unwrap()
    };
    assert_eq!((sets(usize::MAX, &of_job), sets(10, &none)), (625, 0));
    assert!(sets(10, &of_job) < 20 && sets(10, &of_job) < sets(10, &two) && sets(10, &two) < 60);
    assert!(head.shards().iter().any(|shard| 0 < shard.pairings_len()), "nothing is remembered");
    // The series of one job go on, all others end.
    known.retain(|labels| labels.get("job") == Some("j2"));
    append(&known, 9_000_000);
    assert!(head.truncate_blocking(TimestampMs(8_000_000)));
    check_values(&head, &known, "most are gone");
    // A few more end: what views see is looked for once, when their samples have been dropped.
    known.truncate(known.len() - 20);
    append(&known, 19_000_000);
    assert!(head.truncate_blocking(TimestampMs(18_000_000)));
    let jobs: Vec<_> = head.shards().iter().filter_map(|shard| shard.look_job()).collect();
    assert!(!jobs.is_empty());
    jobs.into_iter().for_each(LookJob::run);
    assert!(head.shards().iter().all(|shard| shard.look_job().is_none()));
    check_values(&head, &known, "a few more are gone");
}
