//! Builds segments: from the tail's series, and from older segments. Series that are gone are left out.

use std::cmp::Ordering;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use hashbrown::HashMap;

use crate::storage::head::column::SeriesCell;
use crate::storage::head::index::pairing::Pairings;
use crate::storage::head::index::segment::{AsOf, Lookup, PairId, Seen, Segment, SegmentId, Texts, lookup_hash};
use crate::storage::head::index::tail::TailEntry;

/// A series on its way into a segment.
struct Draft {
    cell: Arc<SeriesCell>,
    hash: u32,
    /// Where its pairs stand in the common buffer.
    pairs: std::ops::Range<u32>,
}

/// The segment of these series.
pub(crate) fn from_tail<'a>(entries: impl Iterator<Item = &'a TailEntry>) -> Segment {
    let entries: Vec<&TailEntry> = entries.filter(|e| !e.cell.is_gone()).collect();
    let mut numbers: HashMap<(&str, &str), PairId> = HashMap::new();
    for pair in entries.iter().flat_map(|e| e.labels.iter()) {
        numbers.insert(pair, 0);
    }
    let mut pairs: Vec<(&str, &str)> = numbers.keys().copied().collect();
    pairs.sort_unstable();
    for (number, pair) in (0..).zip(&pairs) {
        numbers.insert(*pair, number);
    }
    let mut buffer: Vec<PairId> = Vec::new();
    let mut drafts = Vec::with_capacity(entries.len());
    for entry in &entries {
        let from = count(buffer.len());
        buffer.extend(entry.labels.iter().map(|pair| numbers[&pair]));
        let (cell, hash) = (Arc::clone(&entry.cell), lookup_hash(entry.hash));
        drafts.push(Draft { cell, hash, pairs: from..count(buffer.len()) });
    }
    finish(pairs.into_iter(), drafts, &buffer)
}

/// The segment of all living series of `sources`.
pub(crate) fn merge(sources: &[Arc<Segment>], as_of: AsOf) -> Segment {
    let living: Vec<Vec<u32>> = sources.iter().map(|s| living_positions(s)).collect();
    let (pairs, renumbered) = merge_pairs(sources, &living);
    let mut buffer: Vec<PairId> = Vec::with_capacity(sources.iter().map(|s| s.label_pairs.len()).sum());
    let mut drafts = Vec::with_capacity(living.iter().map(Vec::len).sum());
    for ((source, positions), numbers) in sources.iter().zip(&living).zip(&renumbered) {
        let hashes = source.lookup.hashes(source.len());
        for position in positions {
            let from = count(buffer.len());
            buffer.extend(source.pairs(*position).iter().map(|pair| numbers[*pair as usize]));
            let cell = Arc::clone(source.cell(*position));
            drafts.push(Draft { cell, hash: hashes[*position as usize], pairs: from..count(buffer.len()) });
        }
    }
    let segment = finish(pairs.into_iter(), drafts, &buffer);
    let seen = Seen::of(&segment, as_of, |cell| cell.is_visible(as_of.commit));
    // While the head is being restored none is seen; readers find out later.
    if seen.not_yet.len() < segment.len() / 4 {
        segment.set_seen(seen);
    }
    segment
}

fn living_positions(segment: &Segment) -> Vec<u32> {
    (0..count(segment.len())).filter(|position| !segment.cell(*position).is_gone()).collect()
}

type Pairs<'a> = Vec<(&'a str, &'a str)>;

/// The pairs that living series use, sorted and without repetition, and for each source its numbers for them.
fn merge_pairs<'a>(sources: &'a [Arc<Segment>], living: &[Vec<u32>]) -> (Pairs<'a>, Vec<Vec<PairId>>) {
    const UNUSED: PairId = PairId::MAX;
    let mut renumbered: Vec<Vec<PairId>> = sources.iter().map(|s| vec![UNUSED; s.values.len()]).collect();
    let mut all: Vec<((&str, &str), usize, PairId)> = Vec::new();
    for (number, source) in sources.iter().enumerate() {
        for position in &living[number] {
            for pair in source.pairs(*position) {
                renumbered[number][*pair as usize] = 0;
            }
        }
        // Sorted runs, one for each source, which the sort below finds and merges.
        for name in 0..source.names.len() {
            for pair in source.name_starts[name]..source.name_starts[name + 1] {
                if renumbered[number][pair as usize] != UNUSED {
                    all.push(((source.names.get(name), source.value(pair)), number, pair));
                }
            }
        }
    }
    all.sort_by(|a, b| a.0.cmp(&b.0));
    let mut pairs: Pairs<'a> = Vec::with_capacity(all.len());
    for (pair, source, old) in all {
        if pairs.last() != Some(&pair) {
            pairs.push(pair);
        }
        renumbered[source][old as usize] = count(pairs.len() - 1);
    }
    (pairs, renumbered)
}

/// Sorts the series by their pairs, which is the order of their labels, and inverts them.
fn finish<'a>(
    pairs: impl Iterator<Item = (&'a str, &'a str)> + Clone,
    mut drafts: Vec<Draft>,
    buffer: &[PairId],
) -> Segment {
    let pairs_of = |draft: &Draft| &buffer[draft.pairs.start as usize..draft.pairs.end as usize];
    drafts.sort_by(|a, b| Ord::cmp(pairs_of(a), pairs_of(b)));

    let mut names: Vec<&str> = Vec::new();
    let mut name_starts: Vec<PairId> = Vec::new();
    let mut pair_count = 0;
    for (name, _) in pairs.clone() {
        if names.last().map(|last| (*last).cmp(name)) != Some(Ordering::Equal) {
            names.push(name);
            name_starts.push(pair_count);
        }
        pair_count += 1;
    }
    name_starts.push(pair_count);

    let mut label_pairs = Vec::with_capacity(drafts.iter().map(|d| d.pairs.len()).sum());
    let mut label_starts = Vec::with_capacity(drafts.len() + 1);
    for draft in &drafts {
        label_starts.push(count(label_pairs.len()));
        label_pairs.extend_from_slice(pairs_of(draft));
    }
    label_starts.push(count(label_pairs.len()));
    let (posting_starts, postings) = invert(pair_count as usize, &label_starts, &label_pairs);
    let hashes: Vec<u32> = drafts.iter().map(|d| d.hash).collect();
    Segment {
        id: SegmentId::default(),
        names: Texts::from_strs(names.into_iter()),
        name_starts: name_starts.into(),
        values: Texts::from_strs(pairs.map(|(_, value)| value)),
        posting_starts: posting_starts.into(),
        postings: postings.into(),
        cells: drafts.into_iter().map(|d| d.cell).collect(),
        label_starts: label_starts.into(),
        label_pairs: label_pairs.into(),
        lookup: Lookup::new(&hashes),
        seen: ArcSwapOption::empty(),
        pairings: Pairings::default(),
    }
}

/// Counting sort: starts of each pair's postings, and the postings.
fn invert(pair_count: usize, label_starts: &[u32], label_pairs: &[PairId]) -> (Vec<u32>, Vec<u32>) {
    let mut starts = vec![0u32; pair_count + 1];
    for pair in label_pairs {
        starts[*pair as usize + 1] += 1;
    }
    for i in 1..starts.len() {
        starts[i] += starts[i - 1];
    }
    let mut next = starts.clone();
    let mut postings = vec![0; label_pairs.len()];
    for (position, bounds) in (0u32..).zip(label_starts.windows(2)) {
        for pair in &label_pairs[bounds[0] as usize..bounds[1] as usize] {
            let at = &mut next[*pair as usize];
            postings[*at as usize] = position;
            *at += 1;
        }
    }
    (starts, postings)
}

fn count(len: usize) -> u32 {
    u32::try_from(len).expect("a shard holds less than 2^24 series and 2^32 labels")
}
