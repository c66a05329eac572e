//! Which labels and values the head's series have, and how many: the figures of `/api/v1/status/tsdb`.
//!
//! The pairs of all segments and tails are walked once, in order, as one sorted list; only the largest of each kind are
//! kept, so a head with millions of values takes no more memory than a small one.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;

use crate::model::labels::METRIC_NAME;
use crate::storage::head::Head;
use crate::storage::head::index::Index;
use crate::storage::head::index::segment::Segment;

/// A name and its count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameCount {
    /// A name, a value, or both joined by `=`.
    pub name: String,
    /// How many, or bytes.
    pub count: u64,
}

/// The largest of each kind, largest first, of equal ones the first by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cardinality {
    /// Distinct pairs of name and value.
    pub label_pairs: u64,
    /// Series by metric name.
    pub series_by_metric: Vec<NameCount>,
    /// Values by label name.
    pub values_by_label: Vec<NameCount>,
    /// Bytes that the pairs of a label take, once for each series, by label name.
    pub bytes_by_label: Vec<NameCount>,
    /// Series by pair.
    pub series_by_pair: Vec<NameCount>,
}

impl Head {
    /// The `limit` largest of each kind. Walks all pairs, so it belongs on the compute pool.
    pub fn cardinality(&self, limit: usize) -> Cardinality {
        let indexes: Vec<Arc<Index>> = self.shards().iter().map(|shard| shard.readers.index.load_full()).collect();
        let tails: Vec<BTreeMap<(&str, &str), u64>> = indexes.iter().map(|index| tail_pairs(index)).collect();
        let mut runs: Vec<Run<'_>> = Vec::new();
        for (index, tail) in indexes.iter().zip(&tails) {
            runs.extend(index.segments.iter().map(|segment| segment_run(segment)));
            runs.push(Box::new(tail.iter().map(|((name, value), count)| (*name, *value, *count))));
        }
        let mut counted = Counted::new(limit);
        merge(runs, |name, value, count| counted.pair(name, value, count));
        counted.finish()
    }
}

/// Pairs in order, with the number of their series.
type Run<'a> = Box<dyn Iterator<Item = (&'a str, &'a str, u64)> + 'a>;

fn segment_run(segment: &Segment) -> Run<'_> {
    let has_gone = 0 < segment.gone_count();
    let pairs = segment.name_ranges().flatten();
    Box::new(pairs.filter_map(move |pair| {
        let postings = segment.postings(pair);
        let live = if has_gone {
            postings.iter().filter(|position| !segment.cell(**position).is_gone()).count()
        } else {
            postings.len()
        };
        let (name, value) = segment.pair(pair);
        (0 < live).then_some((name, value, live as u64))
    }))
}

fn tail_pairs(index: &Index) -> BTreeMap<(&str, &str), u64> {
    let mut pairs = BTreeMap::new();
    for entry in index.tail.iter(index.tail.len()).filter(|entry| !entry.cell.is_gone()) {
        for pair in &entry.labels {
            *pairs.entry(pair).or_insert(0) += 1;
        }
    }
    pairs
}

/// Walks sorted runs as one, equal pairs together.
fn merge<'a>(mut runs: Vec<Run<'a>>, mut each: impl FnMut(&'a str, &'a str, u64)) {
    let mut heads: BinaryHeap<Reverse<(&str, &str, usize, u64)>> = BinaryHeap::new();
    for (at, run) in runs.iter_mut().enumerate() {
        heads.extend(run.next().map(|(name, value, count)| Reverse((name, value, at, count))));
    }
    let mut current: Option<(&str, &str, u64)> = None;
    while let Some(Reverse((name, value, at, count))) = heads.pop() {
        let next = runs.get_mut(at).and_then(Iterator::next);
        heads.extend(next.map(|(name, value, count)| Reverse((name, value, at, count))));
        match &mut current {
            Some((n, v, sum)) if (*n, *v) == (name, value) => *sum += count,
            _ => {
                if let Some((name, value, sum)) = current.replace((name, value, count)) {
                    each(name, value, sum);
                }
            }
        }
    }
    if let Some((name, value, sum)) = current {
        each(name, value, sum);
    }
}

struct Counted<'a> {
    found: Cardinality,
    metrics: Largest,
    values: Largest,
    bytes: Largest,
    pairs: Largest,
    /// The label that is walked: name, values, bytes.
    label: Option<(&'a str, u64, u64)>,
}

impl<'a> Counted<'a> {
    fn new(limit: usize) -> Self {
        let largest = || Largest { limit, heap: BinaryHeap::new() };
        let (metrics, values, bytes, pairs) = (largest(), largest(), largest(), largest());
        Self { found: Cardinality::default(), metrics, values, bytes, pairs, label: None }
    }

    fn pair(&mut self, name: &'a str, value: &'a str, series: u64) {
        self.found.label_pairs += 1;
        if name == METRIC_NAME {
            self.metrics.offer(series, || value.to_owned());
        }
        self.pairs.offer(series, || format!("{name}={value}"));
        let bytes = (encoded_len(name) + encoded_len(value)) * series;
        match &mut self.label {
            Some((current, values, sum)) if *current == name => {
                *values += 1;
                *sum += bytes;
            }
            _ => {
                self.end_label();
                self.label = Some((name, 1, bytes));
            }
        }
    }

    fn end_label(&mut self) {
        if let Some((name, values, bytes)) = self.label.take() {
            self.values.offer(values, || name.to_owned());
            self.bytes.offer(bytes, || name.to_owned());
        }
    }

    fn finish(mut self) -> Cardinality {
        self.end_label();
        Cardinality {
            label_pairs: self.found.label_pairs,
            series_by_metric: self.metrics.finish(),
            values_by_label: self.values.finish(),
            bytes_by_label: self.bytes.finish(),
            series_by_pair: self.pairs.finish(),
        }
    }
}

/// Bytes of a text in a label set as Prometheus keeps it: its length takes one byte, or four from 255 bytes on.
fn encoded_len(text: &str) -> u64 {
    text.len() as u64 + if text.len() < 255 { 1 } else { 4 }
}

/// The largest counts seen; names come in order, so of equal counts the earlier stay.
struct Largest {
    limit: usize,
    heap: BinaryHeap<(Reverse<u64>, String)>,
}

impl Largest {
    fn offer(&mut self, count: u64, name: impl FnOnce() -> String) {
        let is_full = self.limit <= self.heap.len();
        if is_full && self.heap.peek().is_none_or(|(Reverse(least), _)| count <= *least) {
            return;
        }
        if is_full {
            self.heap.pop();
        }
        self.heap.push((Reverse(count), name()));
    }

    fn finish(self) -> Vec<NameCount> {
        let sorted = self.heap.into_sorted_vec();
        sorted.into_iter().map(|(Reverse(count), name)| NameCount { name, count }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::append::{AppendBatch, AppendSample, SeriesKey};
    use crate::model::clock::ManualClock;
    use crate::model::labels::Labels;
    use crate::model::time::TimestampMs;
    use crate::storage::head::HeadOptions;

    fn counts(found: &[NameCount]) -> Vec<(&str, u64)> {
        found.iter().map(|one| (one.name.as_str(), one.count)).collect()
    }

    fn head() -> Head {
        Head::new(HeadOptions { shards: 3, ..HeadOptions::new(ManualClock::at(TimestampMs(0))) })
    }

    #[test]
    fn counts_over_shards_segments_and_tails() {
        let head = head();
        let append = |pairs: &[(&str, &str)]| {
            let series = SeriesKey::Labels(Labels::from_pairs(pairs.iter().copied()));
            let sample = AppendSample { series, at: TimestampMs(1), value: 1.0 };
            head.append_blocking(AppendBatch::of_floats(vec![sample])).unwrap();
        };
        for n in 0..5_000 {
            let instance = format!("i{}", n % 2_500);
            append(&[("__name__", if n < 2_500 { "a" } else { "b" }), ("instance", &instance)]);
        }
        append(&[("__name__", "b"), ("only", "x")]);
        let found = head.cardinality(2);
        assert_eq!(found.label_pairs, 2_500 + 3);
        assert_eq!(counts(&found.series_by_metric), [("b", 2_501), ("a", 2_500)]);
        assert_eq!(counts(&found.values_by_label), [("instance", 2_500), ("__name__", 2)]);
        assert_eq!(counts(&found.series_by_pair), [("__name__=b", 2_501), ("__name__=a", 2_500)]);
        assert_eq!(counts(&found.bytes_by_label)[1], ("__name__", 5_001 * (9 + 2)));
        // Of equal counts the first by name.
        assert_eq!(counts(&head.cardinality(3).series_by_pair)[2], ("instance=i0", 2));
    }

    #[test]
    fn an_empty_head_has_none() {
        assert_eq!(head().cardinality(5), Cardinality::default());
    }
}
