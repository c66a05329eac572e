//! Storage for scripts: series in plain maps.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use crate::model::labels::Labels;
use crate::model::matcher::Matcher;
use crate::model::read::{FloatColumn, Queryable, ReadBudget, ReadError, ReadView, SampleSource, SelectedSeries};
use crate::model::time::TimeRange;

/// What a script runs against.
pub trait TestStorage {
    /// Stores samples of one series, ascending by time; visible when this returns. The error says why not.
    fn append(&mut self, labels: &Labels, samples: &[(i64, f64)]) -> Result<(), String>;
    /// Forgets everything.
    fn clear(&mut self) -> Result<(), String>;
    /// Where queries read.
    fn queryable(&self) -> &dyn Queryable;
}

type Table = BTreeMap<Labels, BTreeMap<i64, f64>>;

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
}

impl TestStorage for MemoryStorage {
    fn append(&mut self, labels: &Labels, samples: &[(i64, f64)]) -> Result<(), String> {
        let mut series = self.series.write().unwrap_or_else(PoisonError::into_inner);
        series.entry(labels.clone()).or_default().extend(samples.iter().copied());
        Ok(())
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

    fn label_names(
        &self,
        matchers: &[Matcher],
        range: TimeRange,
        _: &dyn ReadBudget,
    ) -> Result<Vec<String>, ReadError> {
        let names =
            self.matching(matchers, range).flat_map(|(labels, _)| labels.iter().map(|(name, _)| name.to_owned()));
        Ok(sorted(names))
    }

    fn label_values(
        &self,
        name: &str,
        matchers: &[Matcher],
        range: TimeRange,
        _: &dyn ReadBudget,
    ) -> Result<Vec<String>, ReadError> {
        let values = self.matching(matchers, range).filter_map(|(labels, _)| labels.get(name).map(str::to_owned));
        Ok(sorted(values))
    }
}

fn sorted(texts: impl Iterator<Item = String>) -> Vec<String> {
    let mut texts: Vec<String> = texts.collect();
    texts.sort_unstable();
    texts.dedup();
    texts
}

struct Samples {
    column: FloatColumn,
}

impl Samples {
    fn of(samples: &BTreeMap<i64, f64>) -> Self {
        let column =
            FloatColumn { timestamps: samples.keys().copied().collect(), values: samples.values().copied().collect() };
        Self { column }
    }

    fn overlaps(&self, range: TimeRange) -> bool {
        let (from, to) = self.bounds(range);
        from < to
    }

    fn bounds(&self, range: TimeRange) -> (usize, usize) {
        let from = self.column.timestamps.partition_point(|at| *at < range.min().0);
        let to = self.column.timestamps.partition_point(|at| *at <= range.max().0);
        (from, to)
    }
}

impl SampleSource for Samples {
    fn decode(&self, range: TimeRange, out: &mut FloatColumn) -> Result<(), ReadError> {
        let (from, to) = self.bounds(range);
        out.timestamps.extend_from_slice(&self.column.timestamps[from..to]);
        out.values.extend_from_slice(&self.column.values[from..to]);
        Ok(())
    }
}
