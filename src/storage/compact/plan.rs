//! Which blocks become one next, by Prometheus's rules.
//!
//! Overlapping ones first. Otherwise those that together fill an aligned range of the next size, or that lie wholly before the
//! newest; never the newest itself, so that users can copy it before it changes. Last, single blocks of which much is deleted.
//! Blocks that hold only some series of their range are merged among their kind alone. Blocks of late samples that reach beyond
//! those of samples in order wait: what they would be merged into would seem to hold what the head still holds.

use crate::storage::block::meta::{BlockMeta, HINT_OUT_OF_ORDER, HINT_SELECTED_SERIES, HINT_STALE_SERIES};
use crate::storage::block::ulid::Ulid;

/// Each range is this many times the one before.
const RANGE_FACTOR: i64 = 3;
const RANGES_MAX: usize = 10;

/// Sizes of blocks from `min_ms` up to at most `max_ms`.
pub fn block_ranges(min_ms: i64, max_ms: i64) -> Vec<i64> {
    let sizes = std::iter::successors(Some(min_ms.max(1)), |size| size.checked_mul(RANGE_FACTOR));
    let ranges: Vec<i64> = sizes.take(RANGES_MAX).take_while(|size| *size <= max_ms).collect();
    if ranges.is_empty() { vec![min_ms.max(1)] } else { ranges }
}

/// How blocks are chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanRules {
    /// Sizes of blocks, ascending ([`block_ranges`]).
    pub ranges: Vec<i64>,
    /// Whether blocks that overlap are merged; if not, they stay as they are.
    pub merge_overlapping: bool,
}

/// The blocks to be made one, by their start; empty if there is nothing to do.
pub fn plan(metas: &[BlockMeta], rules: &PlanRules) -> Vec<Ulid> {
    let whole_until = metas.iter().filter(|meta| meta.is_whole()).map(|meta| meta.max_time).max();
    let waits = |meta: &BlockMeta| {
        meta.has_hint(HINT_OUT_OF_ORDER) && whole_until.is_some_and(|whole_until| whole_until < meta.max_time)
    };
    let of_class = |wanted: Option<&str>| -> Vec<&BlockMeta> {
        let class = |meta: &BlockMeta| [HINT_STALE_SERIES, HINT_SELECTED_SERIES].into_iter().find(|h| meta.has_hint(h));
        let mut metas: Vec<&BlockMeta> = metas.iter().filter(|meta| class(meta) == wanted && !waits(meta)).collect();
        metas.sort_by_key(|meta| (meta.min_time, meta.ulid));
        metas
    };
    let classes = [None, Some(HINT_STALE_SERIES), Some(HINT_SELECTED_SERIES)];
    let planned = classes.into_iter().map(|class| plan_class(&of_class(class), rules));
    planned.into_iter().find(|plan| !plan.is_empty()).unwrap_or_default()
}

fn plan_class(sorted: &[&BlockMeta], rules: &PlanRules) -> Vec<Ulid> {
    let ranges = &rules.ranges;
    let overlapping = if rules.merge_overlapping { overlapping(sorted) } else { Vec::new() };
    if !overlapping.is_empty() {
        return overlapping;
    }
    let Some((_, older)) = sorted.split_last() else { return Vec::new() };
    let group = select_range(older, ranges);
    if !group.is_empty() {
        return group;
    }
    let middle = ranges.get(ranges.len() / 2).copied().unwrap_or(i64::MAX);
    for meta in older.iter().rev() {
        let (tombstones, series) = (meta.stats.num_tombstones, meta.stats.num_series);
        if meta.max_time.saturating_sub(meta.min_time) < middle {
            // A small one is worth it only if, as it seems, nothing is left of it.
            if 0 < tombstones && series <= tombstones {
                return vec![meta.ulid];
            }
            break;
        }
        if 0.05 < tombstones as f64 / (series + 1) as f64 {
            return vec![meta.ulid];
        }
    }
    Vec::new()
}

/// The first run of blocks that overlap. One whose compaction has failed before is left alone, and so is what overlaps it.
fn overlapping(sorted: &[&BlockMeta]) -> Vec<Ulid> {
    let mut run: Vec<&BlockMeta> = Vec::new();
    let mut end = i64::MIN;
    let wanted = |run: &[&BlockMeta]| 1 < run.len() && !run.iter().any(|meta| meta.compaction.failed);
    for meta in sorted {
        if end <= meta.min_time {
            if wanted(&run) {
                break;
            }
            run.clear();
        }
        run.push(meta);
        end = end.max(meta.max_time);
    }
    if wanted(&run) { run.iter().map(|meta| meta.ulid).collect() } else { Vec::new() }
}

fn select_range(sorted: &[&BlockMeta], ranges: &[i64]) -> Vec<Ulid> {
    let Some(newest) = sorted.last().map(|meta| meta.min_time) else { return Vec::new() };
    for range in ranges.iter().skip(1) {
        for group in split_by_range(sorted, *range) {
            let (Some(first), Some(last)) = (group.first(), group.last()) else { continue };
            if group.len() < 2 || group.iter().any(|meta| meta.compaction.failed) {
                continue;
            }
            if last.max_time - first.min_time == *range || last.max_time <= newest {
                return group.iter().map(|meta| meta.ulid).collect();
            }
        }
    }
    Vec::new()
}

/// Groups of blocks that lie in the same aligned range; larger and misaligned ones are in none.
fn split_by_range<'a>(sorted: &[&'a BlockMeta], range: i64) -> Vec<Vec<&'a BlockMeta>> {
    let mut groups: Vec<(i64, Vec<&BlockMeta>)> = Vec::new();
    for meta in sorted {
        if let Some((end, group)) = groups.last_mut()
            && meta.max_time <= *end
        {
            group.push(meta);
            continue;
        }
        let start = meta.min_time.div_euclid(range) * range;
        if meta.max_time <= start.saturating_add(range) {
            groups.push((start.saturating_add(range), vec![meta]));
        } else {
            // What comes behind one that is in no group begins a new one.
            groups.push((i64::MIN, Vec::new()));
        }
    }
    groups.into_iter().map(|(_, group)| group).filter(|group| !group.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::random::Random;
    use crate::model::time::TimestampMs;

    const RANGES: [i64; 4] = [20, 60, 180, 540];

    #[track_caller]
    fn check(blocks: &[(i64, i64)], expected: &[(i64, i64)]) {
        check_with(blocks, |_| {}, expected);
    }

    #[track_caller]
    fn check_with(blocks: &[(i64, i64)], change: impl Fn(&mut BlockMeta), expected: &[(i64, i64)]) {
        let mut random = Random::seeded(3);
        let metas: Vec<BlockMeta> = blocks
            .iter()
            .map(|(min, max)| {
                let mut meta = BlockMeta::from_head(Ulid::new(TimestampMs(*min), &mut random), *min, *max);
                change(&mut meta);
                meta
            })
            .collect();
        let planned = plan(&metas, &PlanRules { ranges: RANGES.to_vec(), merge_overlapping: true });
        let range = |name: &Ulid| metas.iter().find(|m| m.ulid == *name).map(|m| (m.min_time, m.max_time)).unwrap();
        assert_eq!(planned.iter().map(range).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn ranges_grow_threefold() {
        assert_eq!(block_ranges(2, 54), [2, 6, 18, 54]);
        assert_eq!(block_ranges(2, 53), [2, 6, 18]);
        assert_eq!(block_ranges(2, 1), [2]);
    }

    #[test]
    fn blocks_are_merged_when_a_range_is_full_or_past() {
        check(&[], &[]);
        check(&[(0, 20)], &[]);
        check(&[(0, 20), (20, 40), (40, 60)], &[]);
        // The newest is left out, and one behind them tells that the range is full.
        check(&[(0, 20), (20, 40), (40, 60), (60, 80)], &[(0, 20), (20, 40), (40, 60)]);
        check(&[(60, 80), (40, 60), (20, 40), (0, 20)], &[(0, 20), (20, 40), (40, 60)]);
        // A gap is fine once a newer one shows that nothing will fill it.
        check(&[(0, 20), (40, 60), (60, 80), (80, 100)], &[(0, 20), (40, 60)]);
        check(&[(0, 20), (20, 40), (60, 80), (80, 100)], &[(0, 20), (20, 40)]);
        check(&[(0, 60), (60, 120), (120, 180), (180, 200)], &[(0, 60), (60, 120), (120, 180)]);
        check(&[(-60, -40), (-40, -20), (-20, 0), (0, 20)], &[(-60, -40), (-40, -20), (-20, 0)]);
        // One that crosses a boundary joins no group.
        check(&[(10, 70), (70, 80), (80, 100)], &[]);
    }

    #[test]
    fn overlapping_blocks_go_first_the_newest_included() {
        check(&[(0, 20), (10, 30), (30, 40)], &[(0, 20), (10, 30)]);
        check(&[(0, 20), (20, 40), (30, 50)], &[(20, 40), (30, 50)]);
        check(&[(0, 100), (10, 20), (30, 40)], &[(0, 100), (10, 20), (30, 40)]);
        check_with(&[(0, 20), (10, 30)], |meta| meta.compaction.failed = true, &[]);
    }

    #[test]
    fn failed_and_partial_blocks_stay_apart() {
        let blocks = [(0, 20), (20, 40), (40, 60), (60, 80)];
        check_with(&blocks, |meta| meta.compaction.failed = meta.min_time == 20, &[]);
        let stale = |meta: &mut BlockMeta| {
            if meta.min_time == 20 {
                meta.compaction.hints.push(HINT_STALE_SERIES.to_owned());
            }
        };
        check_with(&blocks, stale, &[(0, 20), (40, 60)]);
    }

    #[test]
    fn late_blocks_wait_for_those_in_order() {
        let late = |meta: &mut BlockMeta| {
            if 60 <= meta.min_time {
                meta.compaction.hints.push(HINT_OUT_OF_ORDER.to_owned());
            }
        };
        // The head still holds 60 to 80 in order.
        check_with(&[(40, 60), (60, 80), (80, 100)], late, &[]);
        check_with(&[(0, 20), (20, 40), (60, 80), (80, 100)], late, &[]);
        check_with(&[(0, 20), (20, 60), (40, 60), (60, 80), (80, 100)], late, &[(20, 60), (40, 60)]);
        // Of late ones alone, late ones are made.
        let filled = [(60, 80), (80, 100), (100, 120)];
        check_with(&[(60, 80), (80, 100), (100, 120), (120, 140)], late, &filled);
    }

    #[test]
    fn a_block_with_much_deleted_is_written_anew() {
        let deleted = |tombstones| {
            move |meta: &mut BlockMeta| {
                (meta.stats.num_series, meta.stats.num_tombstones) = (100, tombstones);
            }
        };
        check_with(&[(0, 540), (540, 560)], deleted(5), &[]);
        check_with(&[(0, 540), (540, 560)], deleted(6), &[(0, 540)]);
        check_with(&[(0, 20), (20, 40)], deleted(99), &[]);
        check_with(&[(0, 20), (20, 40)], deleted(100), &[(0, 20)]);
    }
}
