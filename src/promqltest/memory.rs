//! Storage for scripts: series in plain maps.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use crate::model::histogram::{CounterResetHint, FloatHistogram};
use crate::model::labels::Labels;
use crate::model::matcher::Matcher;
use crate::model::names::Names;
use crate::model::read::{
    FloatColumn, Queryable, ReadBudget, ReadError, ReadView, SampleColumn, SampleSource, Scope, SelectedSeries,
};
use crate::model::time::TimeRange;
use crate::promqltest::show::Series;

/// What a script runs against.
pub trait TestStorage {
    /// Stores floats of one series, ascending by time and behind what it has; visible when this returns. The error says
    /// why not.
    fn append(&mut self, labels: &Labels, samples: &[(i64, f64)]) -> Result<(), String>;
    /// Stores samples of any kind, with their start timestamps. Storage that cannot hold them leaves out what it cannot.
    fn append_all(&mut self, labels: &Labels, samples: &SampleColumn) -> Result<(), String> {
        let floats = samples.floats.timestamps.iter().copied().zip(samples.floats.values.iter().copied());
        self.append(labels, &floats.collect::<Vec<_>>())
    }
    /// Forgets everything.
    fn clear(&mut self) -> Result<(), String>;
    /// Where queries read.
    fn queryable(&self) -> &dyn Queryable;
}

type Table = BTreeMap<Labels, BTreeMap<i64, Stored>>;

/// A sample with its start; 0 if that is not known.
#[derive(Clone, Debug)]
struct Stored {
    start_ms: i64,
    value: StoredValue,
}

#[derive(Clone, Debug)]
enum StoredValue {
    Float(f64),
    Histogram(Arc<FloatHistogram>),
}

impl StoredValue {
    fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Float(a), Self::Float(b)) => a.to_bits() == b.to_bits(),
            (Self::Histogram(a), Self::Histogram(b)) => a == b,
            _ => false,
        }
    }
}

/// Series in plain maps. Slow and simple: other storage is compared with it.
#[derive(Debug, Default)]
pub struct MemoryStorage {
    series: RwLock<Table>,
}

impl MemoryStorage {
    /// Empty storage.
    pub fn new() -> Self {
        Self::default()
    }

    /// All of the samples, or none: they have to lie behind those that are there, as in Prometheus's storage.
    fn insert(&self, labels: &Labels, added: Vec<(i64, Stored)>) -> Result<(), String> {
        let mut series = self.series.write().unwrap_or_else(PoisonError::into_inner);
        let stored = series.entry(labels.clone()).or_default();
        if let Some((last_ms, last)) = stored.last_key_value() {
            for (at_ms, sample) in &added {
                if at_ms < last_ms {
                    return Err(format!("{}: out of order sample at {at_ms} ms", Series(labels)));
                }
                if at_ms == last_ms && !sample.value.is_same(&last.value) {
                    return Err(format!("{}: duplicate sample for timestamp {at_ms} ms", Series(labels)));
                }
            }
        }
        stored.extend(added);
        Ok(())
    }
}

impl TestStorage for MemoryStorage {
    fn append(&mut self, labels: &Labels, samples: &[(i64, f64)]) -> Result<(), String> {
        let floats =
            samples.iter().map(|(at_ms, value)| (*at_ms, Stored { start_ms: 0, value: StoredValue::Float(*value) }));
        self.insert(labels, floats.collect())
    }

    fn append_all(&mut self, labels: &Labels, samples: &SampleColumn) -> Result<(), String> {
        let mut added = Vec::new();
        let start = |starts: &[i64], place: usize| starts.get(place).copied().unwrap_or(0);
        for (place, (at_ms, value)) in samples.floats.timestamps.iter().zip(&samples.floats.values).enumerate() {
            let start_ms = start(&samples.float_starts, place);
            added.push((*at_ms, Stored { start_ms, value: StoredValue::Float(*value) }));
        }
        let histograms = samples.histograms.timestamps.iter().zip(&samples.histograms.values);
        for (place, (at_ms, histogram)) in histograms.enumerate() {
            let value = StoredValue::Histogram(Arc::clone(histogram));
            added.push((*at_ms, Stored { start_ms: start(&samples.histogram_starts, place), value }));
        }
        self.insert(labels, added)
    }

    fn clear(&mut self) -> Result<(), String> {
        self.series.write().unwrap_or_else(PoisonError::into_inner).clear();
        Ok(())
    }

    fn queryable(&self) -> &dyn Queryable {
        self
    }
}

impl Queryable for MemoryStorage {
    fn view(&self) -> Result<Arc<dyn ReadView>, ReadError> {
        let series = self.series.read().unwrap_or_else(PoisonError::into_inner);
        let table = series.iter().map(|(labels, samples)| (labels.clone(), Arc::new(Samples::of(samples)))).collect();
        Ok(Arc::new(MemoryView { table }))
    }
}

struct MemoryView {
    table: Vec<(Labels, Arc<Samples>)>,
}

impl MemoryView {
    fn matching<'a>(
        &'a self,
        matchers: &'a [Matcher],
        range: TimeRange,
    ) -> impl Iterator<Item = &'a (Labels, Arc<Samples>)> {
        self.table.iter().filter(move |(labels, samples)| {
            samples.overlaps(range) && matchers.iter().all(|matcher| matcher.matches_labels(labels))
        })
    }
}

impl ReadView for MemoryView {
    fn select(
        &self,
        matchers: &[Matcher],
        range: TimeRange,
        budget: &dyn ReadBudget,
    ) -> Result<Vec<SelectedSeries>, ReadError> {
        let mut selected = Vec::new();
        for (labels, samples) in self.matching(matchers, range) {
            budget.check()?;
            budget.charge(labels.encoded_len())?;
            selected.push(SelectedSeries { labels: labels.clone(), samples: Arc::clone(samples) as _ });
        }
        Ok(selected)
    }

    fn label_names(&self, scope: &Scope<'_>, _: &dyn ReadBudget) -> Result<Names, ReadError> {
        let matching = self.matching(scope.matchers, scope.range);
        Ok(matching.flat_map(|(labels, _)| labels.iter().map(|(name, _)| name.to_owned())).collect())
    }

    fn label_values(&self, name: &str, scope: &Scope<'_>, _: &dyn ReadBudget) -> Result<Names, ReadError> {
        let matching = self.matching(scope.matchers, scope.range);
        Ok(matching.filter_map(|(labels, _)| labels.get(name).map(str::to_owned)).collect())
    }
}

struct Samples {
    column: SampleColumn,
}

impl Samples {
    fn of(samples: &BTreeMap<i64, Stored>) -> Self {
        let mut column = SampleColumn::default();
        let mut before: Option<&Arc<FloatHistogram>> = None;
        for (at_ms, stored) in samples {
            match &stored.value {
                StoredValue::Float(value) => {
                    column.push_float(*at_ms, stored.start_ms, *value);
                    before = None;
                }
                StoredValue::Histogram(histogram) => {
                    let hint = hint_when_read(before, histogram);
                    let read = if hint == histogram.counter_reset_hint {
                        Arc::clone(histogram)
                    } else {
                        Arc::new(FloatHistogram { counter_reset_hint: hint, ..FloatHistogram::clone(histogram) })
                    };
                    column.push_histogram(*at_ms, stored.start_ms, read);
                    before = Some(histogram);
                }
            }
        }
        Self { column }
    }

    fn overlaps(&self, range: TimeRange) -> bool {
        [&self.column.floats.timestamps, &self.column.histograms.timestamps].into_iter().any(|times| {
            let (from, to) = bounds(times, range);
            from < to
        })
    }
}

/// The hint that Prometheus's storage gives back: counters without a reset between them share a chunk, and all but the first
/// of a chunk are known to have none. Of the first nothing is known, whatever it was stored with.
fn hint_when_read(before: Option<&Arc<FloatHistogram>>, histogram: &FloatHistogram) -> CounterResetHint {
    let is_gauge = |h: &FloatHistogram| h.counter_reset_hint == CounterResetHint::Gauge;
    if is_gauge(histogram) {
        return CounterResetHint::Gauge;
    }
    let Some(before) = before.filter(|before| !is_gauge(before)) else { return CounterResetHint::Unknown };
    if histogram.counter_reset_hint == CounterResetHint::Reset {
        return CounterResetHint::Unknown;
    }
    if histogram.is_stale() {
        return CounterResetHint::NotReset;
    }
    let mut unhinted = histogram.clone();
    unhinted.counter_reset_hint = CounterResetHint::Unknown;
    let starts_chunk = before.is_stale()
        || histogram.schema != before.schema
        || histogram.zero_threshold != before.zero_threshold
        || (histogram.uses_custom_buckets() && histogram.custom_values != before.custom_values)
        || unhinted.detect_reset(before);
    if starts_chunk { CounterResetHint::Unknown } else { CounterResetHint::NotReset }
}

fn bounds(times: &[i64], range: TimeRange) -> (usize, usize) {
    let from = times.partition_point(|at| *at < range.min().0);
    let to = times.partition_point(|at| *at <= range.max().0);
    (from, to)
}

impl SampleSource for Samples {
    fn decode(&self, range: TimeRange, out: &mut FloatColumn) -> Result<(), ReadError> {
        let floats = &self.column.floats;
        let (from, to) = bounds(&floats.timestamps, range);
        out.timestamps.extend_from_slice(&floats.timestamps[from..to]);
        out.values.extend_from_slice(&floats.values[from..to]);
        Ok(())
    }

    fn decode_all(&self, range: TimeRange, out: &mut SampleColumn) -> Result<(), ReadError> {
        let column = &self.column;
        let (from, to) = bounds(&column.floats.timestamps, range);
        if column.float_starts.is_empty() {
            out.floats.timestamps.extend_from_slice(&column.floats.timestamps[from..to]);
            out.floats.values.extend_from_slice(&column.floats.values[from..to]);
        } else {
            for at in from..to {
                let start_ms = column.float_starts.get(at).copied().unwrap_or(0);
                out.push_float(column.floats.timestamps[at], start_ms, column.floats.values[at]);
            }
        }
        let (from, to) = bounds(&column.histograms.timestamps, range);
        for at in from..to {
            let start_ms = column.histogram_starts.get(at).copied().unwrap_or(0);
            out.push_histogram(column.histograms.timestamps[at], start_ms, Arc::clone(&column.histograms.values[at]));
        }
        Ok(())
    }
}
