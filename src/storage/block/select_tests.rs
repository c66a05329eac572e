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
use crate::model::read::{ReadView, Unlimited};
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
        for name in ["a", "n"] {
            let mut values: Vec<&str> = expected.iter().filter_map(|set| set.get(name)).collect();
            values.sort_unstable();
            values.dedup();
            prop_assert_eq!(view.label_values(name, &matchers, TimeRange::ALL, &Unlimited).unwrap(), values);
        }
        let mut names: Vec<&str> = expected.iter().flat_map(|set| set.iter()).map(|(name, _)| name).collect();
        names.sort_unstable();
        names.dedup();
        prop_assert_eq!(view.label_names(&matchers, TimeRange::ALL, &Unlimited).unwrap(), names);
    }
}
