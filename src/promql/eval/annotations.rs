//! Remarks that operators make, collected as Prometheus collects them: one per text, where the latest position counts.

use std::collections::HashMap;

use crate::model::go;
use crate::model::result::Annotations;
use crate::model::time::TimestampMs;
use crate::promql::ast::PosRange;
use crate::promql::eval::error::EvalError;
use crate::promql::eval::ledger::Charge;
use crate::promql::functions::note::Note;

const WARNING: &str = "PromQL warning: ";
const INFO: &str = "PromQL info: ";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Severity {
    Warning,
    Info,
}

#[derive(Debug)]
struct Remark {
    severity: Severity,
    text: String,
    /// Its place; the empty one for what has none.
    range: PosRange,
    detail: Detail,
}

/// What is summed up over the appearances of a remark.
#[derive(Clone, Copy, Debug)]
enum Detail {
    None,
    Repair(BucketRepair),
    /// How often it appeared.
    Occurrences(u64),
}

/// What was repaired in the buckets of a classic histogram to make them grow with their bounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct BucketRepair {
    /// Lowest bound whose count was raised.
    pub(crate) min_bound: f64,
    /// Highest bound whose count was raised.
    pub(crate) max_bound: f64,
    /// Largest raise.
    pub(crate) max_raise: f64,
    /// First evaluation time.
    pub(crate) first_ms: i64,
    /// Last evaluation time.
    pub(crate) last_ms: i64,
    /// Number of repaired histograms.
    pub(crate) count: u64,
}

impl BucketRepair {
    fn merge(&mut self, other: &Self) {
        self.min_bound = self.min_bound.min(other.min_bound);
        self.max_bound = self.max_bound.max(other.max_bound);
        self.max_raise = self.max_raise.max(other.max_raise);
        self.first_ms = self.first_ms.min(other.first_ms);
        self.last_ms = self.last_ms.max(other.last_ms);
        self.count += other.count;
    }
}

/// The remarks of one evaluation, in the order of their first appearance.
#[derive(Debug)]
pub(crate) struct AnnotationSet {
    remarks: Vec<Remark>,
    by_text: HashMap<String, usize>,
    charge: Charge,
}

impl AnnotationSet {
    /// An empty set whose texts are charged to `charge`.
    pub(crate) fn new(charge: Charge) -> Self {
        Self { remarks: Vec::new(), by_text: HashMap::new(), charge }
    }

    /// Adds a warning; `text` comes without the prefix.
    pub(crate) fn warn(&mut self, text: &str, range: PosRange) -> Result<(), EvalError> {
        self.add(Severity::Warning, format!("{WARNING}{text}"), range, Detail::None)
    }

    /// Adds an info; `text` comes without the prefix.
    pub(crate) fn info(&mut self, text: &str, range: PosRange) -> Result<(), EvalError> {
        self.add(Severity::Info, format!("{INFO}{text}"), range, Detail::None)
    }

    /// Adds what a kernel remarked about a series of this metric.
    pub(crate) fn note(&mut self, note: Note, metric_name: &str, range: PosRange) -> Result<(), EvalError> {
        let text = note.text(metric_name);
        if note == Note::StartOverlap {
            return self.add(Severity::Warning, format!("{WARNING}{text}"), range, Detail::Occurrences(1));
        }
        if note.is_warning() { self.warn(&text, range) } else { self.info(&text, range) }
    }

    /// Adds the info about repaired buckets; repairs under one text are summed up.
    pub(crate) fn bucket_repair(
        &mut self,
        metric_name: &str,
        repair: BucketRepair,
        range: PosRange,
    ) -> Result<(), EvalError> {
        let text = format!(
            "{INFO}input to histogram_quantile needed to be fixed for monotonicity (see \
             https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile){}",
            for_metric_name(metric_name)
        );
        self.add(Severity::Info, text, range, Detail::Repair(repair))
    }

    /// True if there is no remark.
    pub(crate) fn is_empty(&self) -> bool {
        self.remarks.is_empty()
    }

    /// Adds the remarks of another set, whose places lie `further` on in the text, or before by as much as that wraps around.
    pub(crate) fn add_all(&mut self, other: &Self, further: usize) -> Result<(), EvalError> {
        for Remark { severity, text, range, detail } in &other.remarks {
            let moved = PosRange { start: range.start.wrapping_add(further), end: range.end.wrapping_add(further) };
            let place = if *range == PosRange::default() { *range } else { moved };
            self.add(*severity, text.clone(), place, *detail)?;
        }
        Ok(())
    }

    fn add(&mut self, severity: Severity, text: String, range: PosRange, detail: Detail) -> Result<(), EvalError> {
        if let Some(known) = self.by_text.get(&text).and_then(|i| self.remarks.get_mut(*i)) {
            match (&mut known.detail, detail) {
                // Summed-up remarks keep the position of the first.
                (Detail::Repair(sum), Detail::Repair(more)) => sum.merge(&more),
                (Detail::Occurrences(sum), Detail::Occurrences(more)) => *sum += more,
                _ => known.range = range,
            }
            return Ok(());
        }
        let bytes = 2 * text.len() + size_of::<Remark>() + 64;
        self.charge.grow(bytes).map_err(|over| EvalError::Budget(over.to_string()))?;
        self.by_text.insert(text.clone(), self.remarks.len());
        self.remarks.push(Remark { severity, text, range, detail });
        Ok(())
    }

    /// The texts with their positions in `query`.
    pub(crate) fn render(self, query: &str) -> Annotations {
        let mut rendered = Annotations::default();
        for remark in self.remarks {
            let place = line_and_column(query, remark.range.start);
            let detail = match remark.detail {
                Detail::Repair(repair) => repair_detail(&repair),
                Detail::Occurrences(count) if count > 1 => format!(" ({count} occurrences)"),
                Detail::None | Detail::Occurrences(_) => String::new(),
            };
            let text = format!("{}{detail} ({place})", remark.text);
            match remark.severity {
                Severity::Warning => rendered.warnings.push(text),
                Severity::Info => rendered.infos.push(text),
            }
        }
        rendered
    }
}

/// ` for metric name "x"`, or nothing for a series without name.
pub(crate) fn for_metric_name(metric_name: &str) -> String {
    if metric_name.is_empty() { String::new() } else { format!(" for metric name {}", go::quote(metric_name)) }
}

fn repair_detail(repair: &BucketRepair) -> String {
    format!(
        ", from buckets {} to {}, with a max diff of {}, over {} samples from {} to {}",
        go::format_float_g(repair.min_bound),
        go::format_float_g(repair.max_bound),
        go::format_float_g_digits(repair.max_raise, 2),
        repair.count,
        rfc3339(repair.first_ms),
        rfc3339(repair.last_ms),
    )
}

/// `time.Unix(ms/1000, 0).UTC().Format(time.RFC3339)`.
fn rfc3339(at_ms: i64) -> String {
    match jiff::Timestamp::from_second(at_ms / 1000) {
        Ok(at) => at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        // Beyond the years that a calendar date can name.
        Err(_) => TimestampMs(at_ms).to_string(),
    }
}

/// Line and column of a byte position, both from 1; the column counts bytes.
fn line_and_column(query: &str, at: usize) -> String {
    if query.is_empty() {
        return "unknown position".to_owned();
    }
    let Some(before) = query.as_bytes().get(..at) else { return "invalid position".to_owned() };
    let line = before.iter().filter(|b| **b == b'\n').count() + 1;
    let line_start = before.iter().rposition(|b| *b == b'\n').map_or(0, |i| i + 1);
    format!("{line}:{}", at - line_start + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::promql::eval::ledger::QueryLedger;

    fn set() -> AnnotationSet {
        AnnotationSet::new(QueryLedger::unlimited().charge(0).unwrap())
    }

    #[test]
    fn equal_texts_are_one_remark_at_the_latest_place() {
        let mut set = set();
        set.warn("a", PosRange::new(0, 1)).unwrap();
        set.info("a", PosRange::new(0, 1)).unwrap();
        set.warn("a", PosRange::new(3, 4)).unwrap();
        let rendered = set.render("x\ny z");
        assert_eq!(rendered.warnings, ["PromQL warning: a (2:2)"]);
        assert_eq!(rendered.infos, ["PromQL info: a (1:1)"]);
    }

    #[test]
    fn repairs_are_summed_up() {
        let mut set = set();
        let repair = BucketRepair {
            min_bound: 0.1,
            max_bound: 0.2,
            max_raise: 1.25,
            first_ms: 60_000,
            last_ms: 60_000,
            count: 1,
        };
        set.bucket_repair("x", repair, PosRange::new(0, 1)).unwrap();
        set.bucket_repair("x", BucketRepair { max_bound: 3.0, last_ms: 120_000, ..repair }, PosRange::new(2, 3))
            .unwrap();
        let text = set.render("abc").infos.remove(0);
        assert!(
            text.ends_with(
                " for metric name \"x\", from buckets 0.1 to 3, with a max diff of 1.2, over 2 samples \
                 from 1970-01-01T00:01:00Z to 1970-01-01T00:02:00Z (1:1)"
            ),
            "{text}"
        );
    }
}
