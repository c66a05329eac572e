//! Listings of head and blocks together, beside plain filtering: series that end, go on, come late and are deleted in part.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;

use crate::model::append::{AppendBatch, AppendSample, SeriesKey};
use crate::model::clock::{ManualClock, SharedClock};
use crate::model::labels::Labels;
use crate::model::matcher::Matcher;
use crate::model::random::Random;
use crate::model::read::{ListingOf, Queryable, ReadView, Scope, Unlimited, without_files};
use crate::model::time::{TimeRange, TimestampMs};
use crate::storage::block::PageCache;
use crate::storage::block::catalog::Catalog;
use crate::storage::block::metrics::BlockMetrics;
use crate::storage::block::retention::Retention;
use crate::storage::block::view::StoreQueryable;
use crate::storage::compact::Step;
use crate::storage::compact::head::HeadCompaction;
use crate::storage::fs::SharedFs;
use crate::storage::fs::sim::SimFs;
use crate::storage::head::export::BlockRange;
use crate::storage::head::listing_tests::{labels, matcher};
use crate::storage::head::{Head, HeadOptions};

const RANGE_MS: i64 = 7_200_000;
/// When a series has samples: some of these bits.
const EARLY: u8 = 1;
const RECENT: u8 = 2;
const LATE: u8 = 4;

fn clock() -> SharedClock {
    ManualClock::at(TimestampMs(1_700_100_000_000))
}

/// Series that listings of names and values count, source by source, whatever is deleted of them.
struct Sources {
    /// Those of the block, and of the head.
    sets: [Vec<Labels>; 2],
    has_late: bool,
}

impl Sources {
    fn listed(&self, matchers: &[Matcher], range: TimeRange) -> Vec<&Labels> {
        let reaches = |from: i64, to: i64| range.overlaps(TimestampMs(from), TimestampMs(to));
        let of_block = reaches(0, RANGE_MS - 1);
        let of_head = reaches(RANGE_MS, RANGE_MS + 5_000) || (self.has_late && reaches(1_000_000, 1_000_000));
        let fits = |labels: &&Labels| matchers.iter().all(|matcher| matcher.matches_labels(labels));
        let sources = self.sets.iter().zip([of_block, of_head]).filter(|(_, counts)| *counts);
        sources.flat_map(|(sets, _)| sets).filter(fits).collect()
    }
}

fn filled(kinds: &[u8]) -> (Head, Arc<Catalog>, Sources) {
    let fs: SharedFs = Arc::new(SimFs::new());
    fs.create_dir_all(Path::new("/data")).unwrap();
    let catalog = Catalog::new(fs, Path::new("/data"), PageCache::new(0), BlockMetrics::new(&Default::default()));
    catalog.open().unwrap();
    let head = Head::new(HeadOptions { shards: 2, ..HeadOptions::new(clock()) });
    head.set_late_window(2 * RANGE_MS);
    let having = |bits: u8| (0u32..).zip(kinds).filter(move |(_, kind)| **kind & bits != 0).map(|(n, _)| n);
    let append = |bits: u8, t: i64| {
        let sample = |n: u32| AppendSample { series: SeriesKey::Labels(labels(n)), at: TimestampMs(t), value: 1.0 };
        head.append_blocking(AppendBatch::of_floats(having(bits).map(sample).collect())).unwrap();
    };
    [500_000, 2_000_000].into_iter().for_each(|t| append(EARLY, t));
    [RANGE_MS, RANGE_MS + 5_000].into_iter().for_each(|t| append(RECENT, t));
    let range = BlockRange { min_time: 0, max_time: RANGE_MS };
    let mut compaction = HeadCompaction::begin(&head, &catalog, range, 0, &clock(), &mut Random::seeded(4)).unwrap();
    while compaction.step(64).unwrap() == Step::More {}
    compaction.publish().unwrap();
    catalog.reload(Retention::default(), 0).unwrap();
    head.truncate_blocking(TimestampMs(RANGE_MS));
    append(LATE, 1_000_000);
    head.shards().iter().for_each(|shard| {
        shard.seal_tail();
    });
    // One job ends earlier than it did, of another nothing is left in the block.
    for (job, to) in [("j2", 1_000_000), ("j3", RANGE_MS - 1)] {
        let range = TimeRange::new(TimestampMs(0), TimestampMs(to)).unwrap();
        let deletion = catalog.plan_deletion(&[vec![Matcher::equal("job", job)]], range).unwrap();
        let (blocks, written) = catalog.write_deletion(deletion);
        written.unwrap();
        catalog.show_deleted(blocks, || ());
    }
    let of_block = if catalog.state().blocks.is_empty() { Vec::new() } else { having(EARLY).map(labels).collect() };
    let sets = [of_block, having(RECENT | LATE).map(labels).collect()];
    (head, catalog, Sources { sets, has_late: having(LATE).next().is_some() })
}

/// What is listed is the same where no file may be read, unless one would have to be.
fn check_here(view: &dyn ReadView, name: &str, scope: &Scope<'_>, values: &[&str]) {
    let list = || {
        view.listing_estimate(ListingOf::Values(name), scope)?;
        view.label_values(name, scope, &Unlimited)
    };
    let (found, wants_files) = without_files(list);
    match found {
        Ok(found) => assert!(found.iter().eq(values.iter().copied()), "{name} without files"),
        Err(error) => assert!(wants_files, "{error}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn head_and_blocks_are_listed_as_one(
        others in proptest::collection::vec(0u8..8, 1..250),
        conditions in proptest::collection::vec(proptest::collection::vec(matcher(), 0..4), 1..4),
    ) {
        // The head has one series at least.
        let kinds: Vec<u8> = std::iter::once(EARLY | RECENT).chain(others).collect();
        let (head, catalog, sources) = filled(&kinds);
        let store = StoreQueryable::new(head.queryable(), catalog);
        let view = store.view().unwrap();
        let range = |from, to| TimeRange::new(TimestampMs(from), TimestampMs(to)).unwrap();
        let ranges =
            [TimeRange::ALL, range(0, 3_000_000), range(RANGE_MS, RANGE_MS + 9_000), range(3 * RANGE_MS, 4 * RANGE_MS)];
        for (matchers, range) in conditions.iter().flat_map(|matchers| ranges.map(|range| (matchers, range))) {
            let listed = sources.listed(matchers, range);
            for name in ["__name__", "instance", "job", "uid", "zone", "none"] {
                let values: BTreeSet<&str> = listed.iter().filter_map(|labels| labels.get(name)).collect();
                // What is remembered the first time is used the third.
                for limit in [usize::MAX, usize::MAX, 3, usize::MAX] {
                    let scope = Scope::first(limit, matchers, range);
                    let first: Vec<&str> = values.iter().copied().take(limit).collect();
                    let found = view.label_values(name, &scope, &Unlimited).unwrap();
                    prop_assert!(found.iter().eq(first.iter().copied()), "{name} of {matchers:?} in {range:?}");
                    check_here(&*view, name, &scope, &first);
                }
            }
            let names: BTreeSet<&str> = listed.iter().flat_map(|set| set.iter().map(|(name, _)| name)).collect();
            let found = view.label_names(&Scope::all(matchers, range), &Unlimited).unwrap();
            prop_assert!(found.iter().eq(names), "names of {matchers:?} in {range:?}");
            let selected = view.select(matchers, range, &Unlimited).unwrap();
            prop_assert!(selected.iter().all(|series| listed.contains(&&series.labels)));
            for limit in [usize::MAX, 1, 7] {
                let found = view.series_labels(&Scope::first(limit, matchers, range), &Unlimited).unwrap();
                prop_assert!(found.iter().eq(selected.iter().map(|series| &series.labels).take(limit)));
            }
        }
    }
}
