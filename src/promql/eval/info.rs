//! `info()`: adds labels of info metrics to series that share their identifying labels, step by step.

use std::collections::{BTreeMap, HashMap};

use crate::model::labels::{INSTANCE, JOB, Labels, LabelsBuilder, METRIC_NAME};
use crate::model::matcher::{MatchOp, Matcher};
use crate::promql::eval::column::ColumnBuilder;
use crate::promql::eval::error::EvalError;
use crate::promql::eval::exec::Exec;
use crate::promql::eval::matrix::{Matrix, Series};
use crate::promql::eval::samples::StepLoad;
use crate::promql::eval::selector::{self, SampleOrigin};
use crate::promql::eval::steps::Steps;
use crate::promql::eval::{self};
use crate::promql::plan::{Info, Selector};

/// Labels that a series and its info metrics have in common.
const IDENTIFYING: [&str; 2] = [INSTANCE, JOB];
/// The info metric that is looked at if none is named.
const TARGET_INFO: &str = "target_info";

/// Evaluates `info()`.
pub(crate) fn eval(exec: &mut Exec<'_>, info: &Info, steps: Steps) -> Result<Matrix, EvalError> {
    let base = eval::eval(exec, &info.inner, steps)?;
    let all = info.matchers.as_deref().unwrap_or(&[]);
    let (named, data): (Vec<&Matcher>, Vec<&Matcher>) = all.iter().partition(|m| m.name() == METRIC_NAME);
    let names = name_matchers(&named)?;
    // An info metric is not enriched itself.
    let is_info = |series: &Series| names.iter().all(|m| m.matches(series.labels.metric_name()));
    let ignored: Vec<bool> = base.series.iter().map(is_info).collect();
    let found = fetch(exec, info, &base, &ignored, &data, &names, steps)?;
    let mut join = Join { data: &data, base: &base, infos: &found, ignored: &ignored, outputs: Outputs::default() };
    let candidates = Candidates::of(&found);
    for step in 0..steps.count() {
        exec.spend(base.series.len() + found.len())?;
        join.step(step, &candidates)?;
    }
    let mut result = Matrix::new(exec)?;
    for (labels, base_index, mut builder) in join.outputs.into_series() {
        let drop_name = base.series[base_index].drop_name;
        if let Some(column) = builder.finish() {
            result.push(Series { labels, drop_name, column })?;
        }
    }
    result.merge_same_labelsets(exec)?;
    count(exec, &base, &found, &result, steps)?;
    Ok(result)
}

/// Counts as Prometheus does, which goes on holding the series and their info metrics beside the result.
fn count(
    exec: &mut Exec<'_>,
    base: &Matrix,
    infos: &[InfoSeries],
    result: &Matrix,
    steps: Steps,
) -> Result<(), EvalError> {
    let _held = exec.charge(StepLoad::len_for(steps).saturating_mul(6))?;
    let mut gathered = StepLoad::new(steps);
    gathered.add(base);
    infos.iter().flat_map(|info| info.taken_ms.keys()).for_each(|step| gathered.add_one(*step));
    let mut produced = StepLoad::new(steps);
    produced.add_output(result);
    gathered.check(&produced, &mut exec.samples)?;
    let held = exec.samples.current();
    exec.samples.settle(held, result.sample_count());
    Ok(())
}

/// The conditions on the names of info metrics: those given, together with `.+_info` if all of them only exclude.
fn name_matchers(given: &[&Matcher]) -> Result<Vec<Matcher>, EvalError> {
    let mut matchers: Vec<Matcher> = given.iter().map(|m| (*m).clone()).collect();
    if matchers.iter().any(|m| matches!(m.op(), MatchOp::Equal | MatchOp::Regex)) {
        return Ok(matchers);
    }
    if matchers.is_empty() {
        return Ok(vec![Matcher::equal(METRIC_NAME, TARGET_INFO)]);
    }
    let any_info = Matcher::new(MatchOp::Regex, METRIC_NAME, ".+_info");
    matchers.insert(0, any_info.map_err(|error| EvalError::Execution(error.to_string()))?);
    Ok(matchers)
}

/// An info series: when its sample at each step was taken.
struct InfoSeries {
    labels: Labels,
    taken_ms: BTreeMap<usize, i64>,
}

/// The info metrics that may belong to one of the series.
fn fetch(
    exec: &mut Exec<'_>,
    info: &Info,
    base: &Matrix,
    ignored: &[bool],
    data: &[&Matcher],
    names: &[Matcher],
    steps: Steps,
) -> Result<Vec<InfoSeries>, EvalError> {
    let mut matchers = Vec::new();
    let mut held = exec.charge(0)?;
    for label in IDENTIFYING {
        let enriched = base.series.iter().zip(ignored).filter(|(_, ignored)| !**ignored);
        let mut values: Vec<&str> = enriched.filter_map(|(series, _)| series.labels.get(label)).collect();
        values.sort_unstable();
        values.dedup();
        if !values.is_empty() {
            let bytes: usize = values.iter().map(|value| 256 + 4 * value.len()).sum();
            held.grow(bytes).map_err(|over| EvalError::Budget(over.to_string()))?;
            let pattern = values.into_iter().map(quote_meta).collect::<Vec<_>>().join("|");
            let matcher = Matcher::new(MatchOp::Regex, label, pattern);
            matchers.push(matcher.map_err(|error| EvalError::Execution(error.to_string()))?);
        }
    }
    if matchers.is_empty() {
        return Ok(Vec::new());
    }
    matchers.extend(data.iter().map(|m| (*m).clone()));
    matchers.extend(names.iter().cloned());
    let selector = Selector {
        matchers,
        offset_ms: info.offset_ms,
        pinned_ms: info.pinned_ms,
        data_ms: (i64::MIN, i64::MAX),
        totals_only: false,
        reader: None,
    };
    let mut found = Vec::new();
    selector::sample_times(exec, &selector, steps, |labels, origins| {
        if let Some(SampleOrigin { is_histogram: true, .. }) = origins.iter().find(|origin| origin.is_histogram) {
            let text = format!("this should be an info metric, with float samples: {labels}");
            return Err(EvalError::Execution(text));
        }
        let taken_ms = origins.iter().map(|origin| (origin.step, origin.at_ms)).collect();
        found.push(InfoSeries { labels: labels.clone(), taken_ms });
        Ok(())
    })?;
    Ok(found)
}

/// A text as a regular expression that matches just it.
fn quote_meta(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len());
    for c in text.chars() {
        if r"\.+*?()|[]{}^$".contains(c) {
            quoted.push('\\');
        }
        quoted.push(c);
    }
    quoted
}

/// Identifying labels of a series.
type Identity = [Option<String>; 2];

fn identity(labels: &Labels) -> Identity {
    IDENTIFYING.map(|name| labels.get(name).map(str::to_owned))
}

/// Info series by identity and name.
struct Candidates(HashMap<Identity, BTreeMap<String, Vec<usize>>>);

impl Candidates {
    fn of(infos: &[InfoSeries]) -> Self {
        let mut candidates: HashMap<Identity, BTreeMap<String, Vec<usize>>> = HashMap::new();
        for (index, info) in infos.iter().enumerate() {
            let by_name = candidates.entry(identity(&info.labels)).or_default();
            by_name.entry(info.labels.metric_name().to_owned()).or_default().push(index);
        }
        Self(candidates)
    }
}

/// Enriched series by base series and labels.
#[derive(Default)]
struct Outputs {
    place_of: HashMap<(usize, Labels), usize>,
    all: Vec<(Labels, usize, ColumnBuilder)>,
}

impl Outputs {
    fn builder(&mut self, base: usize, labels: Labels) -> &mut ColumnBuilder {
        let place = *self.place_of.entry((base, labels.clone())).or_insert_with(|| {
            self.all.push((labels, base, ColumnBuilder::new()));
            self.all.len() - 1
        });
        &mut self.all[place].2
    }

    fn into_series(self) -> impl Iterator<Item = (Labels, usize, ColumnBuilder)> {
        self.all.into_iter()
    }
}

struct Join<'a> {
    data: &'a [&'a Matcher],
    base: &'a Matrix,
    infos: &'a [InfoSeries],
    ignored: &'a [bool],
    outputs: Outputs,
}

impl Join<'_> {
    fn step(&mut self, step: usize, candidates: &Candidates) -> Result<(), EvalError> {
        let base = self.base;
        if !base.series.iter().any(|series| series.column.has(step)) {
            return Ok(());
        }
        // Of several info series with one name the newest counts, for all of them, so that conflicts are found.
        let mut newest: HashMap<(&Identity, &str), usize> = HashMap::new();
        for (identity, by_name) in &candidates.0 {
            for (name, indexes) in by_name {
                if let Some(index) = self.newest(indexes, step)? {
                    newest.insert((identity, name), index);
                }
            }
        }
        for (index, series) in base.series.iter().enumerate() {
            let Some(value) = series.column.value_at(step) else { continue };
            let labels = if self.ignored[index] {
                Some(series.labels.clone())
            } else {
                let by_name = candidates.0.get_key_value(&identity(&series.labels));
                let matched = by_name.into_iter().flat_map(|(identity, by_name)| {
                    by_name.keys().filter_map(|name| newest.get(&(identity, name.as_str())).copied())
                });
                self.enriched(&series.labels, &matched.collect::<Vec<_>>())?
            };
            if let Some(labels) = labels {
                self.outputs.builder(index, labels).push_value(step, value);
            }
        }
        Ok(())
    }

    fn newest(&self, indexes: &[usize], step: usize) -> Result<Option<usize>, EvalError> {
        let mut best: Option<(i64, usize)> = None;
        for index in indexes {
            let Some(at_ms) = self.infos[*index].taken_ms.get(&step).copied() else { continue };
            match best {
                Some((best_ms, _)) if best_ms > at_ms => {}
                Some((best_ms, other)) if best_ms == at_ms => {
                    let (known, new) = (&self.infos[other].labels, &self.infos[*index].labels);
                    let text = format!(
                        "found duplicate series for info metric: existing {known} @ {best_ms}, new {new} @ {at_ms}"
                    );
                    return Err(EvalError::Execution(text));
                }
                _ => best = Some((at_ms, *index)),
            }
        }
        Ok(best.map(|(_, index)| index))
    }

    /// The labels of a series with those of its info series; `None` if it has none and needs one.
    fn enriched(&self, labels: &Labels, infos: &[usize]) -> Result<Option<Labels>, EvalError> {
        let mut added = LabelsBuilder::new();
        for info in infos {
            for (name, value) in &self.infos[*info].labels {
                let is_wanted = self.data.is_empty() || self.data.iter().any(|m| m.name() == name);
                if name == METRIC_NAME || !is_wanted {
                    continue;
                }
                let known = added.get(name);
                if !known.is_empty() && known != value {
                    return Err(EvalError::Execution(format!("conflicting label: {name}")));
                }
                if !labels.contains(name) {
                    added.set(name, value);
                }
            }
        }
        if infos.is_empty() && !self.data.iter().all(|m| m.matches_empty()) {
            return Ok(None);
        }
        let mut enriched = labels.to_builder();
        added.iter().for_each(|(name, value)| {
            enriched.set(name, value);
        });
        Ok(Some(enriched.build()))
    }
}
