//! What counts as the same answer: the same bytes, but for what upstream itself leaves open.
//!
//! - Functions that Go computes otherwise on processors without fused multiplication and addition: one unit in the last
//!   place there, and 1e-12 where they do not stand outermost.
//! - Sums and means over vectors that upstream keeps in no order (it gathers the series of a range query in a hash map): 1e-12.
//! - Comparisons and roundings of such sums, which may come out otherwise: values are not compared then.
//! - The warning about conflicting counter resets where only count and sum of histograms are read: upstream finds resets only
//!   between samples that it reads for the same or for neighbouring steps.
//! - Ties: which of equal elements `topk` takes, and the order in which equal elements are sorted; only values are compared.
//! - Elements that `limitk` takes out of a vector without order: only their number is compared.
//! - Which of several clashing series an error names when the vector has no order.
//! - The order of `sort_by_label` where a label is missing: upstream's comparison contradicts itself then.
//! - A float and a histogram that get the same labels at the same time: an error here, both or either there.
//! - Logarithms of numbers below the normal ones.
//! - A query that crashes in upstream's engine (`x[30s] anchored` without samples before the window).
//! - Which of several types is named that an operator does not combine, when the vector has no order: the last one counts.
//! - What is remarked about a group of mixed elements, when the vector has no order: the first ones decide.
//! - How many samples had to be fixed for `histogram_quantile`: upstream doubles the count at each further step.

use std::collections::BTreeMap;

use serde_json::Value as Json;
use watchfire::promql::ast::{AggregateOp, BinaryOp, Expr};
use watchfire::promql::parser::{ParseOptions, parse_expr};

/// Functions whose last digit depends on the processor.
const EXPONENTIAL: [&str; 4] = ["exp", "sinh", "cosh", "tanh"];

/// True if the reference computes [`EXPONENTIAL`] as we do.
fn is_fused() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("fma");
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// The error of elements with the same labels.
const SAME_LABELSET: &str = "vector cannot contain metrics with the same labelset";

/// How the error of a query begins that crashed in upstream's engine.
const CRASH: &str = "unexpected error: runtime error: ";

/// Remarks about a group of mixed elements. The first ones decide which there are, as those that come later are not looked at.
const OF_MIXED_GROUPS: [&str; 3] = [
    "encountered a mix of histograms and floats for aggregation",
    "mismatched custom buckets were reconciled during aggregation",
    "exponential and custom buckets",
];

/// How two answers to a query are compared.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Rules {
    /// Relative difference that is allowed.
    tolerance: f64,
    /// The order of a vector counts.
    is_ordered: bool,
    /// Labels by which it is sorted.
    sort_labels: Vec<String>,
    /// Elements may be others if their values are the same.
    has_ties: bool,
    /// Elements may be others.
    any_elements: bool,
    /// Values may be others, or missing.
    any_values: bool,
    /// Only count and sum of histograms are read somewhere.
    has_totals: bool,
    /// Errors and remarks may name other series.
    any_series: bool,
    /// There is a logarithm.
    has_logarithm: bool,
    /// Several metrics are selected at once, so that a float and a histogram may get the same labels.
    has_many_metrics: bool,
}

impl Rules {
    /// The rules for a query. `is_range` says whether it is evaluated at several times.
    pub(crate) fn of(text: &str, is_range: bool) -> Self {
        let Ok(expr) = parse_expr(text, &ParseOptions::ALL) else { return Self::default() };
        let mut rules = Self::default();
        let root = expr.unwrap_parens();
        rules.visit(root, is_range, true);
        if let Expr::Call(call) = root {
            rules.is_ordered = !is_range && call.func.name.starts_with("sort");
            let labels = call.args.iter().filter_map(|arg| match arg {
                Expr::Text(text) => Some(text.to_display_string()),
                _ => None,
            });
            rules.sort_labels = labels.collect();
        }
        if let Expr::Aggregate(aggregate) = root {
            rules.has_ties = matches!(aggregate.op, AggregateOp::Topk | AggregateOp::Bottomk);
        }
        rules
    }

    fn allow(&mut self, tolerance: f64) {
        self.tolerance = self.tolerance.max(tolerance);
    }

    fn visit(&mut self, expr: &Expr, is_range: bool, is_root: bool) {
        match expr {
            Expr::Vector(selector) => self.has_many_metrics |= selector.name.is_empty(),
            Expr::Matrix(matrix) => self.has_many_metrics |= matrix.selector.name.is_empty(),
            _ => {}
        }
        match expr {
            Expr::Call(call) if EXPONENTIAL.contains(&call.func.name) && !is_fused() => {
                self.allow(if is_root { f64::EPSILON } else { 1e-12 });
            }
            Expr::Aggregate(aggregate) if !is_in_order(&aggregate.expr, is_range) => {
                self.any_series = true;
                match aggregate.op {
                    AggregateOp::Sum | AggregateOp::Avg => self.allow(1e-12),
                    // What is left of large numbers that cancel each other.
                    AggregateOp::Stddev | AggregateOp::Stdvar => self.allow(1e-6),
                    AggregateOp::Limitk => self.any_elements = true,
                    _ => {}
                }
            }
            Expr::Binary(binary) => {
                if binary.op == BinaryOp::Pow && !is_fused() {
                    self.allow(1e-12);
                }
                let sides = [&binary.lhs, &binary.rhs];
                self.any_series |= sides.into_iter().any(|side| !is_in_order(side, is_range));
            }
            _ => {}
        }
        if let Expr::Call(call) = expr {
            self.has_logarithm |= ["ln", "log10"].contains(&call.func.name);
            self.has_totals |= ["histogram_count", "histogram_sum", "histogram_avg"].contains(&call.func.name);
        }
        let is_open = match expr {
            Expr::Binary(binary) => binary.op.is_comparison() || matches!(binary.op, BinaryOp::Mod),
            Expr::Call(call) => ["floor", "ceil", "round", "sgn", "changes", "resets"].contains(&call.func.name),
            Expr::Aggregate(aggregate) => !matches!(
                aggregate.op,
                AggregateOp::Sum
                    | AggregateOp::Avg
                    | AggregateOp::Min
                    | AggregateOp::Max
                    | AggregateOp::Count
                    | AggregateOp::Group
            ),
            _ => false,
        };
        if is_open {
            // Only what is below decides.
            let mut below = Self::default();
            expr.children().into_iter().for_each(|child| below.visit(child, is_range, false));
            self.any_values |= below.tolerance != 0.0;
        }
        let is_range = is_range || matches!(expr, Expr::Subquery(_));
        expr.children().into_iter().for_each(|child| self.visit(child, is_range, false));
    }
}

/// True if upstream keeps the series of this vector in the order of their creation.
fn is_in_order(expr: &Expr, is_range: bool) -> bool {
    match expr {
        Expr::Vector(_) | Expr::Matrix(_) => true,
        Expr::Paren(paren) => is_in_order(&paren.expr, is_range),
        Expr::Unary(unary) => is_in_order(&unary.expr, is_range),
        Expr::Call(call) => {
            let vector = call.args.iter().find(|arg| !matches!(arg, Expr::Number(_) | Expr::Text(_)));
            match vector {
                Some(matrix @ Expr::Matrix(_)) => is_in_order(matrix, is_range),
                Some(other) => !is_range && !matches!(other, Expr::Subquery(_)) && is_in_order(other, is_range),
                None => true,
            }
        }
        _ => false,
    }
}

/// The difference between two answers, if they differ. `theirs` is the reference's.
pub(crate) fn difference(rules: &Rules, theirs: &Json, ours: &Json) -> Result<(), String> {
    let is_clash = rules.has_many_metrics && ours["error"] == SAME_LABELSET;
    if is_clash || theirs["error"].as_str().is_some_and(|text| text.starts_with(CRASH)) {
        return Ok(());
    }
    if theirs["status"] != ours["status"] {
        return Err(format!("theirs: {}\nours:   {}", brief(theirs), brief(ours)));
    }
    if theirs["status"] == "error" {
        return errors(rules, theirs, ours);
    }
    remarks(rules, "warning", &theirs["warnings"], &ours["warnings"])?;
    remarks(rules, "info", &theirs["infos"], &ours["infos"])?;
    if rules.any_values {
        return Ok(());
    }
    let (theirs, ours) = (&theirs["data"], &ours["data"]);
    if theirs["resultType"] != ours["resultType"] {
        return Err(format!("types: {} and {}", theirs["resultType"], ours["resultType"]));
    }
    let (theirs, ours) = (&theirs["result"], &ours["result"]);
    match (theirs[0].is_object(), ours[0].is_object()) {
        (false, false) => same(rules, theirs, ours),
        _ => series(rules, theirs.as_array().unwrap(), ours.as_array().unwrap()),
    }
}

fn brief(answer: &Json) -> String {
    let mut text = answer.to_string();
    if 600 < text.len() {
        let end = (0..=600).rev().find(|end| text.is_char_boundary(*end)).unwrap();
        text.truncate(end);
        text.push('…');
    }
    text
}

fn errors(rules: &Rules, theirs: &Json, ours: &Json) -> Result<(), String> {
    let cut = |answer: &Json| {
        let text = answer["error"].as_str().unwrap().to_owned();
        let end = if rules.any_series { text.find(" for the match group ") } else { None };
        text[..end.unwrap_or(text.len())].to_owned()
    };
    if theirs["errorType"] == ours["errorType"] && cut(theirs) == cut(ours) {
        return Ok(());
    }
    Err(format!("theirs: {}\nours:   {}", brief(theirs), brief(ours)))
}

/// Remarks come in no order; of more than ten some are left out.
fn remarks(rules: &Rules, kind: &str, theirs: &Json, ours: &Json) -> Result<(), String> {
    let list = |texts: &Json| -> Vec<String> {
        let texts = texts.as_array().map_or(&[][..], Vec::as_slice);
        let mut texts: Vec<String> = texts.iter().map(|text| normal(text.as_str().unwrap())).collect();
        texts.sort();
        texts.dedup();
        texts
    };
    let (mut theirs, mut ours) = (list(theirs), list(ours));
    if rules.has_totals {
        for texts in [&mut theirs, &mut ours] {
            texts.retain(|text| !text.contains("conflicting counter resets"));
        }
    }
    if rules.any_series {
        for texts in [&mut theirs, &mut ours] {
            texts.retain(|text| !OF_MIXED_GROUPS.iter().any(|part| text.contains(part)));
            for text in texts.iter_mut().filter(|text| text.contains("incompatible sample types")) {
                text.truncate(text.find("\": ").unwrap_or(text.len()));
            }
            texts.dedup();
        }
    }
    let omitted = theirs.iter().find_map(|text| text.strip_suffix(&format!(" more {kind} annotations omitted")));
    let is_same = match omitted {
        None => theirs == ours,
        Some(omitted) => {
            let shown = theirs.iter().filter(|text| !text.ends_with("annotations omitted"));
            omitted.parse() == Ok(ours.len().saturating_sub(10)) && shown.into_iter().all(|text| ours.contains(text))
        }
    };
    if is_same { Ok(()) } else { Err(format!("{kind}s: theirs {theirs:#?}\nours {ours:#?}")) }
}

/// The text without the number in `over 7 samples from`.
fn normal(text: &str) -> String {
    match (text.find(", over "), text.rfind(" samples from ")) {
        (Some(from), Some(to)) if from < to => format!("{}{}", &text[..from], &text[to..]),
        _ => text.to_owned(),
    }
}

fn series(rules: &Rules, theirs: &[Json], ours: &[Json]) -> Result<(), String> {
    if rules.has_ties || rules.any_elements {
        return ties(rules, theirs, ours);
    }
    let key = |one: &Json| one["metric"].to_string();
    let has_labels = |one: &Json| rules.sort_labels.iter().all(|label| one["metric"][label].is_string());
    if rules.is_ordered && theirs.iter().all(has_labels) {
        let values = |all: &[Json]| all.iter().map(|one| one["value"][1].clone()).collect::<Vec<_>>();
        same(rules, &Json::Array(values(theirs)), &Json::Array(values(ours)))?;
    }
    let is_matrix = |all: &[Json]| all.iter().any(|one| one["values"].is_array() || one["histograms"].is_array());
    if is_matrix(theirs) {
        let order = |all: &[Json]| all.iter().map(key).collect::<Vec<_>>();
        if order(theirs) != order(ours) {
            return Err(format!("series: theirs {:#?}\nours {:#?}", order(theirs), order(ours)));
        }
    }
    let by_labels = |all: &[Json]| all.iter().map(|one| (key(one), one.clone())).collect::<BTreeMap<_, _>>();
    let (theirs, ours) = (by_labels(theirs), by_labels(ours));
    let missing = theirs.iter().find(|(labels, _)| !ours.contains_key(*labels));
    let extra = ours.iter().find(|(labels, _)| !theirs.contains_key(*labels));
    if let Some((which, (_, one))) = missing.map(|m| ("missing", m)).or(extra.map(|e| ("not expected", e))) {
        return Err(format!("{which}: {}; theirs are {}, ours {}", brief(one), theirs.len(), ours.len()));
    }
    theirs.iter().try_for_each(|(labels, one)| {
        same(rules, one, &ours[labels]).map_err(|difference| format!("{labels}: {difference}"))
    })
}

/// Compares how many values there are at each time, and which, whoever has them.
fn ties(rules: &Rules, theirs: &[Json], ours: &[Json]) -> Result<(), String> {
    let text = |value: &Json| if *value == "-0" { "\"0\"".to_owned() } else { value.to_string() };
    let by_time = |all: &[Json]| {
        let mut times: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for one in all {
            for kind in ["value", "histogram"] {
                if let Some(point) = one[kind].as_array() {
                    times.entry(point[0].to_string()).or_default().push(text(&point[1]));
                }
            }
            for kind in ["values", "histograms"] {
                for point in one[kind].as_array().map_or(&[][..], Vec::as_slice) {
                    times.entry(point[0].to_string()).or_default().push(text(&point[1]));
                }
            }
        }
        times.values_mut().for_each(|values| values.sort());
        times
    };
    let (theirs, ours) = (by_time(theirs), by_time(ours));
    let counts = |times: &BTreeMap<String, Vec<String>>| -> Vec<(String, usize)> {
        times.iter().map(|(time, values)| (time.clone(), values.len())).collect()
    };
    let is_same =
        if rules.any_elements || rules.tolerance != 0.0 { counts(&theirs) == counts(&ours) } else { theirs == ours };
    if is_same { Ok(()) } else { Err(format!("theirs {theirs:?}\nours {ours:?}")) }
}

/// Compares values; numbers within the tolerance, everything else exactly.
fn same(rules: &Rules, theirs: &Json, ours: &Json) -> Result<(), String> {
    match (theirs, ours) {
        _ if theirs == ours => Ok(()),
        (Json::Array(a), Json::Array(b)) if a.len() == b.len() => {
            a.iter().zip(b).try_for_each(|(a, b)| same(rules, a, b))
        }
        (Json::Object(a), Json::Object(b)) if a.len() == b.len() => a.iter().try_for_each(|(name, a)| {
            let Some(b) = b.get(name) else { return Err(format!("{name} is missing")) };
            same(rules, a, b)
        }),
        (Json::String(a), Json::String(b)) if is_close(a, b, rules.tolerance) => Ok(()),
        (Json::String(a), Json::String(b)) if rules.has_logarithm && is_tiny_logarithm(a, b) => Ok(()),
        _ => Err(format!("theirs {}, ours {}", brief(theirs), brief(ours))),
    }
}

/// True if both may be logarithms of a number below the normal ones, where Go is wrong on x86-64.
fn is_tiny_logarithm(a: &str, b: &str) -> bool {
    let is_tiny = |text: &str| text.parse::<f64>().is_ok_and(|v| v < -307.0);
    is_tiny(a) && is_tiny(b) && is_close(a, b, 0.06)
}

fn is_close(a: &str, b: &str, tolerance: f64) -> bool {
    match (a.parse::<f64>(), b.parse::<f64>()) {
        (Ok(a), Ok(b)) => (a - b).abs() <= tolerance * a.abs().max(b.abs()),
        _ => false,
    }
}
