//! Our own metrics: a registry of families whose values are atomics, gathered on demand. Encoding lives in `exposition`.
//!
//! Handles are cheap clones; taking one again with the same name and labels yields the same value, so an actor that
//! restarts goes on counting where it stopped.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use crate::model::clock::SharedClock;
use crate::model::labels::Labels;
use crate::telemetry::summary::Summary;

/// What a family measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts observations by bucket.
    Histogram,
    /// Sum, count and quantiles of observations.
    Summary,
}

/// A count that only grows.
#[derive(Clone, Debug, Default)]
pub struct Counter {
    count: Arc<AtomicU64>,
}

impl Counter {
    /// Adds one.
    pub fn inc(&self) {
        self.add(1);
    }
    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.count.fetch_add(n, Ordering::Relaxed);
    }
    /// The count so far.
    pub fn get(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }
}

/// A value that goes up and down.
#[derive(Clone, Debug, Default)]
pub struct Gauge {
    bits: Arc<AtomicU64>,
}

impl Gauge {
    /// Sets the value.
    pub fn set(&self, value: f64) {
        self.bits.store(value.to_bits(), Ordering::Relaxed);
    }
    /// Adds `delta`, which may be negative.
    pub fn add(&self, delta: f64) {
        let _ = self
            .bits
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |bits| Some((f64::from_bits(bits) + delta).to_bits()));
    }
    /// The value now.
    pub fn get(&self) -> f64 {
        f64::from_bits(self.bits.load(Ordering::Relaxed))
    }
}

#[derive(Debug)]
struct HistogramCells {
    bounds: Box<[f64]>,
    counts: Box<[AtomicU64]>,
    sum_bits: AtomicU64,
}

/// Counts observations by bucket.
#[derive(Clone, Debug)]
pub struct Histogram {
    cells: Arc<HistogramCells>,
}

impl Histogram {
    fn new(bounds: &[f64]) -> Self {
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self { cells: Arc::new(HistogramCells { bounds: bounds.into(), counts, sum_bits: AtomicU64::new(0) }) }
    }

    /// Counts one observation.
    pub fn observe(&self, value: f64) {
        let index = self.cells.bounds.partition_point(|bound| *bound < value);
        if let Some(count) = self.cells.counts.get(index) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        let add = |bits| Some((f64::from_bits(bits) + value).to_bits());
        let _ = self.cells.sum_bits.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }

    fn gather(&self) -> MetricValue {
        let mut cumulative = 0;
        let mut buckets = Vec::with_capacity(self.cells.counts.len());
        for (i, count) in self.cells.counts.iter().enumerate() {
            cumulative += count.load(Ordering::Relaxed);
            buckets.push((self.cells.bounds.get(i).copied().unwrap_or(f64::INFINITY), cumulative));
        }
        let sum = f64::from_bits(self.cells.sum_bits.load(Ordering::Relaxed));
        MetricValue::Histogram { buckets, sum, count: cumulative }
    }
}

/// A gathered value.
#[derive(Clone, Debug, PartialEq)]
pub enum MetricValue {
    /// A counter or a gauge.
    Number(f64),
    /// Cumulative buckets (bound, count), the last bound `+Inf`.
    Histogram {
        /// (upper bound, cumulative count), ascending.
        buckets: Vec<(f64, u64)>,
        /// Sum of observations.
        sum: f64,
        /// Number of observations.
        count: u64,
    },
    /// (quantile, value) pairs with sum and count.
    Summary {
        /// (quantile, value), ascending; NaN where nothing was observed lately.
        quantiles: Vec<(f64, f64)>,
        /// Sum of observations.
        sum: f64,
        /// Number of observations.
        count: u64,
    },
}

/// A gathered family: values sorted by labels.
#[derive(Clone, Debug, PartialEq)]
pub struct MetricFamily {
    /// Metric name.
    pub name: String,
    /// Help text.
    pub help: String,
    /// What it measures.
    pub kind: MetricKind,
    /// One value for each label set.
    pub metrics: Vec<(Labels, MetricValue)>,
}

impl MetricFamily {
    /// A family of one number without labels, for collectors.
    pub fn single(name: &str, help: &str, kind: MetricKind, value: f64) -> Self {
        let metrics = vec![(Labels::empty(), MetricValue::Number(value))];
        Self { name: name.to_owned(), help: help.to_owned(), kind, metrics }
    }
}

#[derive(Clone, Debug)]
enum Cell {
    Counter(Counter),
    Gauge(Gauge),
    Histogram(Histogram),
    Summary(Summary),
}

struct Family {
    help: String,
    kind: MetricKind,
    cells: BTreeMap<Labels, Cell>,
}

type Collect = Box<dyn Fn() -> Vec<MetricFamily> + Send + Sync>;

/// All families of a process. Tests make one of their own.
#[derive(Default)]
pub struct Registry {
    families: Mutex<BTreeMap<String, Family>>,
    collectors: Mutex<Vec<Collect>>,
    view: OnceLock<View>,
}

/// What is shown of all families, under which names.
pub type View = fn(MetricFamily) -> Option<MetricFamily>;

/// Label pairs of a metric, as callers write them.
pub type LabelPairs<'a> = &'a [(&'a str, &'a str)];

impl Registry {
    /// An empty registry, shared.
    pub fn shared() -> Arc<Self> {
        Arc::new(Self::default())
    }

    fn cell(&self, name: &str, help: &str, kind: MetricKind, labels: LabelPairs<'_>, make: impl Fn() -> Cell) -> Cell {
        let mut families = self.families.lock();
        let family = families.entry(name.to_owned()).or_insert_with(|| Family {
            help: help.to_owned(),
            kind,
            cells: BTreeMap::new(),
        });
        assert!(family.kind == kind, "metric {name} is registered as {:?} and asked for as {kind:?}", family.kind);
        family.cells.entry(Labels::from_pairs(labels.iter().copied())).or_insert_with(make).clone()
    }

    /// The counter with this name and these labels, made at the first call.
    pub fn counter(&self, name: &str, help: &str, labels: LabelPairs<'_>) -> Counter {
        match self.cell(name, help, MetricKind::Counter, labels, || Cell::Counter(Counter::default())) {
            Cell::Counter(counter) => counter,
            _ => unreachable!("a family holds cells of its own kind"),
        }
    }

    /// The gauge with this name and these labels, made at the first call.
    pub fn gauge(&self, name: &str, help: &str, labels: LabelPairs<'_>) -> Gauge {
        match self.cell(name, help, MetricKind::Gauge, labels, || Cell::Gauge(Gauge::default())) {
            Cell::Gauge(gauge) => gauge,
            _ => unreachable!("a family holds cells of its own kind"),
        }
    }

    /// The histogram with this name and these labels; `bounds` ascend and leave `+Inf` out.
    pub fn histogram(&self, name: &str, help: &str, labels: LabelPairs<'_>, bounds: &[f64]) -> Histogram {
        match self.cell(name, help, MetricKind::Histogram, labels, || Cell::Histogram(Histogram::new(bounds))) {
            Cell::Histogram(histogram) => histogram,
            _ => unreachable!("a family holds cells of its own kind"),
        }
    }

    /// The summary with this name and these labels; `quantiles` ascend and may be none. The clock of the first call stays.
    pub fn summary(
        &self,
        name: &str,
        help: &str,
        labels: LabelPairs<'_>,
        quantiles: &[f64],
        clock: &SharedClock,
    ) -> Summary {
        let make = || Cell::Summary(Summary::new(quantiles, clock.clone()));
        match self.cell(name, help, MetricKind::Summary, labels, make) {
            Cell::Summary(summary) => summary,
            _ => unreachable!("a family holds cells of its own kind"),
        }
    }

    /// Forgets one label set of a family, as when its target goes.
    pub fn remove(&self, name: &str, labels: LabelPairs<'_>) {
        if let Some(family) = self.families.lock().get_mut(name) {
            family.cells.remove(&Labels::from_pairs(labels.iter().copied()));
        }
    }

    /// Adds a source that is asked at each gathering, for values that live elsewhere.
    pub fn collect_with(&self, collect: impl Fn() -> Vec<MetricFamily> + Send + Sync + 'static) {
        self.collectors.lock().push(Box::new(collect));
    }

    /// From now on families are shown as `view` says; the first one stays.
    pub fn set_view(&self, view: View) {
        let _ = self.view.set(view);
    }

    /// All families, sorted by name; families of one name from several sources are joined.
    pub fn gather(&self) -> Vec<MetricFamily> {
        let mut all: BTreeMap<String, MetricFamily> = BTreeMap::new();
        for (name, family) in self.families.lock().iter() {
            let metrics = family.cells.iter().map(|(labels, cell)| (labels.clone(), cell.gather())).collect();
            let gathered = MetricFamily { name: name.clone(), help: family.help.clone(), kind: family.kind, metrics };
            all.insert(name.clone(), gathered);
        }
        for collect in self.collectors.lock().iter() {
            for family in collect() {
                match all.entry(family.name.clone()) {
                    std::collections::btree_map::Entry::Vacant(slot) => drop(slot.insert(family)),
                    std::collections::btree_map::Entry::Occupied(mut slot) => {
                        slot.get_mut().metrics.extend(family.metrics)
                    }
                }
            }
        }
        let mut families: Vec<_> = all.into_values().filter(|family| !family.metrics.is_empty()).collect();
        if let Some(view) = self.view.get() {
            families = families.into_iter().filter_map(view).collect();
            families.sort_by(|a, b| a.name.cmp(&b.name));
        }
        families.iter_mut().for_each(|family| family.metrics.sort_by(|a, b| a.0.cmp(&b.0)));
        families
    }
}

impl Cell {
    fn gather(&self) -> MetricValue {
        match self {
            Self::Counter(counter) => MetricValue::Number(counter.get() as f64),
            Self::Gauge(gauge) => MetricValue::Number(gauge.get()),
            Self::Histogram(histogram) => histogram.gather(),
            Self::Summary(summary) => summary.gather(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_view_renames_and_hides() {
        let registry = Registry::default();
        for name in ["a", "b", "c"] {
            registry.counter(name, "", &[]).inc();
        }
        registry.set_view(|family| match family.name.as_str() {
            "a" => Some(MetricFamily { name: "x".to_owned(), ..family }),
            "b" => None,
            _ => Some(family),
        });
        let names: Vec<String> = registry.gather().into_iter().map(|family| family.name).collect();
        assert_eq!(names, ["c", "x"]);
    }

    #[test]
    fn the_same_name_and_labels_are_the_same_value() {
        let registry = Registry::default();
        registry.counter("a_total", "A.", &[("x", "1")]).inc();
        registry.counter("a_total", "A.", &[("x", "1")]).add(2);
        let families = registry.gather();
        assert_eq!(families[0].metrics, vec![(Labels::from_pairs([("x", "1")]), MetricValue::Number(3.0))]);
        registry.remove("a_total", &[("x", "1")]);
        assert!(registry.gather().is_empty());
    }

    #[test]
    fn histogram_buckets_are_cumulative() {
        let registry = Registry::default();
        let histogram = registry.histogram("h", "H.", &[], &[1.0, 2.0]);
        [0.5, 1.0, 1.5, 9.0].into_iter().for_each(|v| histogram.observe(v));
        let expected =
            MetricValue::Histogram { buckets: vec![(1.0, 2), (2.0, 3), (f64::INFINITY, 4)], sum: 12.0, count: 4 };
        assert_eq!(registry.gather()[0].metrics[0].1, expected);
    }
}
