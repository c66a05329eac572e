//! Selections of random blocks against plain filtering.

use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;

use super::PageCache;
use super::catalog::Catalog;
use super::chunks::ChunkData;
use super::meta::BlockMeta;
use super::metrics::BlockMetrics;
use super::retention::Retention;
use super::ulid::Ulid;
use super::view::StoreView;
use super::write::BlockWriter;
use crate::model::labels::Labels;
use crate::model::matcher::{MatchOp, Matcher};
use crate::model::random::Random;
use crate::model::read::{ListingOf, ReadBudget, ReadError, ReadView, Scope, Unlimited};
use crate::model::time::{TimeRange, TimestampMs};
use crate::storage::chunk::encode_xor;
use crate::storage::fs::SharedFs;
use crate::storage::fs::sim::SimFs;

/// A block of these label sets, one sample each.
fn add_block(catalog: &Catalog, seed: u64, sets: &std::collections::BTreeSet<Labels>) {
    let mut symbols: Vec<String> = vec![String::new()];
    symbols.extend(sets.iter().flat_map(|set| set.iter()).flat_map(|(n, v)| [n.to_owned(), v.to_owned()]));
    symbols.sort();
    symbols.dedup();
    let ulid = Ulid::new(TimestampMs(1), &mut Random::seeded(seed));
    let meta = BlockMeta::from_head(ulid, 0, 100);
    let mut writer = BlockWriter::create(catalog.fs(), catalog.dir(), meta, symbols, 0).unwrap();
    for set in sets {
        let chunk = ChunkData { min_t: 5, max_t: 5, encoding: 1, data: encode_xor(&[(5, 1.0)]) };
        writer.add_series(set, &[chunk]).unwrap();
    }
    writer.publish().unwrap();
}

fn label_set() -> impl Strategy<Value = Labels> {
    let value = || prop_oneof![Just(String::new()), "[ab]{1,3}", "x[0-9]{1,2}", Just("é".to_owned())];
    (value(), value(), 0u32..300).prop_map(|(a, b, n)| {
        Labels::from_pairs([("__name__", "m".to_owned()), ("a", a), ("b", b), ("n", format!("{n:03}"))])
    })
}

fn matcher() -> impl Strategy<Value = Matcher> {
    let op = prop_oneof![Just(MatchOp::Equal), Just(MatchOp::NotEqual), Just(MatchOp::Regex), Just(MatchOp::NotRegex)];
    let name = prop_oneof![Just("a"), Just("b"), Just("n"), Just("__name__"), Just("none")];
    let value = prop_oneof![
        Just(""),
        Just("a"),
        Just("ab"),
        Just("m"),
        Just(".*"),
        Just(".+"),
        Just("a.*"),
        Just("x1|x2|aa|"),
        Just("0[0-4]."),
        Just("x.+"),
        Just("é|b"),
        Just("(?i)A+"),
        Just(".*9.*"),
        Just(".*a.*"),
        Just("299")
    ];
    (op, name, value).prop_map(|(op, name, value)| Matcher::new(op, name, value).expect("good patterns"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn selections_agree_with_plain_filtering(
        blocks in proptest::collection::vec(proptest::collection::btree_set(label_set(), 1..120), 1..3),
        matchers in proptest::collection::vec(matcher(), 0..4),
    ) {
        let fs: SharedFs = Arc::new(SimFs::new());
        let metrics = BlockMetrics::new(&Default::default());
        let catalog = Catalog::new(fs, Path::new("/data"), PageCache::new(0), metrics);
        for (seed, sets) in (1..).zip(&blocks) {
            add_block(&catalog, seed, sets);
        }
        catalog.reload(Retention::default(), 0).unwrap();
        let view = StoreView::of_blocks(catalog.state());
        let all: std::collections::BTreeSet<&Labels> = blocks.iter().flatten().collect();
        let expected: Vec<&Labels> =
            all.into_iter().filter(|set| matchers.iter().all(|matcher| matcher.matches_labels(set))).collect();
        let found = view.select(&matchers, TimeRange::ALL, &Unlimited).unwrap();
        prop_assert_eq!(found.iter().map(|series| &series.labels).collect::<Vec<_>>(), expected.clone());
        for name in ["a", "b", "n", "__name__", "none"] {
            let mut values: Vec<&str> = expected.iter().filter_map(|set| set.get(name)).collect();
            values.sort_unstable();
            values.dedup();
            // What is remembered the first time is used the third.
            for limit in [usize::MAX, usize::MAX, usize::MAX, 2] {
                let scope = Scope::first(limit, &matchers, TimeRange::ALL);
                let found = view.label_values(name, &scope, &Unlimited).unwrap();
                prop_assert!(found.iter().eq(values.iter().copied().take(limit)), "the first {} of {}", limit, name);
            }
        }
        for limit in [0, 1, 7, usize::MAX] {
            let scope = Scope::first(limit, &matchers, TimeRange::ALL);
            let listed = view.series_labels(&scope, &Unlimited).unwrap();
            prop_assert!(listed.iter().eq(expected.iter().copied().take(limit)), "the first {limit}");
            let mut values: Vec<&str> = expected.iter().filter_map(|set| set.get("n")).collect();
            values.sort_unstable();
            values.dedup();
            let found = view.label_values("n", &scope, &Unlimited).unwrap();
            prop_assert!(found.iter().eq(values.into_iter().take(limit)), "the first {limit} values");
        }
        let mut names: Vec<&str> = expected.iter().flat_map(|set| set.iter()).map(|(name, _)| name).collect();
        names.sort_unstable();
        names.dedup();
        prop_assert_eq!(view.label_names(&Scope::all(&matchers, TimeRange::ALL), &Unlimited).unwrap(), names);
    }
}

/// Lets so many bytes be held.
struct Meagre(std::sync::atomic::AtomicUsize);

impl Meagre {
    fn of(bytes: usize) -> Self {
        Self(bytes.into())
    }
}

impl ReadBudget for Meagre {
    fn charge(&self, bytes: usize) -> Result<(), ReadError> {
        let less = |left: usize| left.checked_sub(bytes);
        let taken =
            self.0.fetch_update(std::sync::atomic::Ordering::Relaxed, std::sync::atomic::Ordering::Relaxed, less);
        taken.map(drop).map_err(|_| ReadError::Budget("too much".to_owned()))
    }

    fn check(&self) -> Result<(), ReadError> {
        Ok(())
    }
}

/// Postings that fill several pages; the first of many series are listed without the others.
#[test]
fn a_limit_ends_the_work() {
    let set = |n: u32| {
        Labels::from_pairs([("__name__", "m".to_owned()), ("kind", format!("k{}", n % 7)), ("n", format!("{n:05}"))])
    };
    let sets: std::collections::BTreeSet<Labels> = (0..10_000).map(set).collect();
    let fs: SharedFs = Arc::new(SimFs::new());
    let catalog = Catalog::new(fs, Path::new("/data"), PageCache::new(0), BlockMetrics::new(&Default::default()));
    add_block(&catalog, 1, &sets);
    catalog.reload(Retention::default(), 0).unwrap();
    let view = StoreView::of_blocks(catalog.state());
    let regex = |pattern: &str| Matcher::new(MatchOp::Regex, "n", pattern).unwrap();
    for matchers in [vec![], vec![Matcher::equal("__name__", "m")], vec![Matcher::equal("kind", "k3")]] {
        let fitting = sets.iter().filter(|set| matchers.iter().all(|matcher| matcher.matches_labels(set)));
        let scope = Scope::first(5, &matchers, TimeRange::ALL);
        let listed = view.series_labels(&scope, &Meagre::of(1_000)).unwrap();
        assert!(listed.iter().eq(fitting.clone().take(5)));
        let all = Scope::all(&matchers, TimeRange::ALL);
        assert!(matches!(view.series_labels(&all, &Meagre::of(1_000)), Err(ReadError::Budget(_))));
        assert!(view.series_labels(&all, &Unlimited).unwrap().iter().eq(fitting));
        assert!(view.label_values("kind", &all, &Unlimited).unwrap().len() <= 7);
        assert_eq!(view.label_names(&all, &Unlimited).unwrap(), ["__name__", "kind", "n"]);
    }
    let before =
        view.series_labels(&Scope::first(5, &[], TimeRange::new(TimestampMs(6), TimestampMs(9)).unwrap()), &Unlimited);
    assert_eq!(before.unwrap().len(), 0, "no samples are there");
    // Known by a table: estimated as next to nothing, and all of its bits are right.
    let of_kind = [Matcher::new(MatchOp::Regex, "kind", "k[35]").unwrap()];
    let scope = Scope::all(&of_kind, TimeRange::ALL);
    let estimate = |name: &str, scope: &Scope<'_>| view.listing_estimate(ListingOf::Values(name), scope).unwrap();
    assert_eq!(estimate("n", &scope), None);
    for _ in 0..3 {
        let found = view.label_values("n", &scope, &Unlimited).unwrap();
        let expected = (0..10_000).filter(|n| n % 7 == 3 || n % 7 == 5).map(|n| format!("{n:05}"));
        assert!(found.iter().eq(expected.collect::<Vec<_>>()));
    }
    assert!(estimate("n", &scope).is_some_and(|us| us < 2_000), "{:?}", estimate("n", &scope));
    assert_eq!(estimate("kind", &Scope::all(&[regex("0.*")], TimeRange::ALL)), None);
    let plain = Scope::first(5, &[], TimeRange::ALL);
    assert!(estimate("n", &Scope::all(&[], TimeRange::ALL)) > estimate("n", &plain));
    // Few of the values, of many series and of few.
    for (pattern, kinds) in [("0.*", 7), ("09999|00001", 2), ("none.*", 0)] {
        let matchers = [regex(pattern)];
        let found = view.label_values("kind", &Scope::all(&matchers, TimeRange::ALL), &Unlimited).unwrap();
        assert_eq!(found.len(), kinds, "{pattern}");
    }
}
