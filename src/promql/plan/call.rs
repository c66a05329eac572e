//! Function calls: strings are taken out of the arguments and checked, range vectors become window sources.

use crate::model::labels::{Labels, LabelsBuilder, METRIC_NAME};
use crate::model::matcher::{MatchOp, Matcher};
use crate::model::regexp::Regexp;
use crate::promql::ast::{Call as CallExpr, Expr, PosRange, RangeExtension, StringLiteral, VectorSelector};
use crate::promql::eval::EvalError;
use crate::promql::functions::{self, Direction, InstantFunction, LabelJoin, LabelReplace};
use crate::promql::plan::node::{Call, Info, Node, Operation, RangeCall, RangeSource, SampleTime};
use crate::promql::plan::step_invariant::Invariance;
use crate::promql::plan::{Context, Lowered, Planner, duration};

/// Functions whose value depends on the evaluation time even if their arguments do not (Prometheus's
/// `AtModifierUnsafeFunctions`). `timestamp` is among them unless its argument is a pinned selector.
const TIME_DEPENDENT: [&str; 15] = [
    "day_of_month",
    "day_of_week",
    "day_of_year",
    "days_in_month",
    "end",
    "hour",
    "minute",
    "month",
    "predict_linear",
    "range",
    "start",
    "step",
    "time",
    "timestamp",
    "year",
];

/// True if the value of a function may differ from step to step although its arguments do not.
pub(crate) fn depends_on_time(function: &str) -> bool {
    TIME_DEPENDENT.binary_search(&function).is_ok()
}

impl Planner<'_> {
    pub(super) fn call(&self, call: &CallExpr, context: Context) -> Lowered {
        let range = call.range;
        if let Some(value) = self.folded(call.func.name) {
            return Ok((Node::new(Operation::Number(value), range), Invariance::OF_LITERAL));
        }
        let args: Vec<&Expr> = call.args.iter().map(Expr::unwrap_parens).collect();
        let mut nodes = Vec::with_capacity(args.len());
        let context = Context { parts: context.parts.inside_call(call.func.name), ..context };
        for arg in &args {
            nodes.push(self.lower(arg, context)?);
        }
        let all_invariant = nodes.iter().all(|(_, invariance)| invariance.is_invariant);
        let name = call.func.name;
        let pinned_timestamp = name == "timestamp" && all_invariant && matches!(args.as_slice(), [Expr::Vector(_)]);
        let invariant = all_invariant && (pinned_timestamp || !depends_on_time(name));
        let nodes: Vec<Node> =
            nodes.into_iter().map(|(node, invariance)| if invariant { node } else { invariance.wrap(node) }).collect();
        let operation =
            if name == "info" { self.info(&args, nodes, context)? } else { or_fail(operation(call, &args, nodes))? };
        let invariance = if invariant { Invariance::OF_OPERATION } else { Invariance::NONE };
        Ok((Node::new(operation, range), invariance))
    }

    /// `info(vector, selector)`. The first selector inside says when info metrics are looked at.
    fn info(&self, args: &[&Expr], nodes: Vec<Node>, context: Context) -> Result<Operation, EvalError> {
        let inner = nodes.into_iter().next();
        let (Some(inner), Some(first)) = (inner, args.first()) else {
            return Err(EvalError::Execution("info() without its argument".to_owned()));
        };
        let matchers = match args.get(1) {
            Some(Expr::Vector(selector)) => Some(selector.matchers.clone()),
            _ => None,
        };
        let (pinned_ms, offset_ms) = self.first_selector_time(first, context)?.unwrap_or((None, 0));
        Ok(Operation::Info(Box::new(Info { inner, matchers, pinned_ms, offset_ms })))
    }

    /// When the first selector in an expression looks: the time of the innermost `@` on it or on the subqueries around it,
    /// and the offsets up to there.
    fn first_selector_time(&self, expr: &Expr, context: Context) -> Result<Option<(Option<i64>, i64)>, EvalError> {
        let of_selector = |selector: &VectorSelector| {
            Ok(Some((self.pinned(selector.at, context), duration::offset(&selector.offset, self.times)?)))
        };
        match expr {
            Expr::Vector(selector) => of_selector(selector),
            Expr::Matrix(matrix) => of_selector(&matrix.selector),
            Expr::Subquery(subquery) => Ok(match self.first_selector_time(&subquery.expr, context)? {
                Some((None, offset_ms)) => {
                    let more_ms = duration::offset(&subquery.offset, self.times)?;
                    Some((self.pinned(subquery.at, context), offset_ms.saturating_add(more_ms)))
                }
                found => found,
            }),
            _ => {
                for child in expr.children() {
                    if let Some(found) = self.first_selector_time(child, context)? {
                        return Ok(Some(found));
                    }
                }
                Ok(None)
            }
        }
    }

    /// The value of the functions that tell about the query.
    fn folded(&self, name: &str) -> Option<f64> {
        let times = self.times;
        match name {
            "start" => Some(times.start_ms as f64 / 1000.0),
            "end" => Some(times.end_ms as f64 / 1000.0),
            "range" => Some(times.end_ms.saturating_sub(times.start_ms) as f64 / 1000.0),
            "step" if times.start_ms == times.end_ms => Some(0.0),
            "step" => Some(times.step_ms as f64 / 1000.0),
            _ => None,
        }
    }
}

/// What cannot be executed fails when its turn comes: another error may come before it, or it may never be evaluated.
pub(super) fn or_fail(operation: Result<Operation, EvalError>) -> Result<Operation, EvalError> {
    match operation {
        Err(error @ EvalError::Execution(_)) => Ok(Operation::Fail(error)),
        other => other,
    }
}

fn operation(call: &CallExpr, args: &[&Expr], nodes: Vec<Node>) -> Result<Operation, EvalError> {
    let name = call.func.name;
    if let Some(function) = functions::range_function(name) {
        return range_call(function, name, nodes);
    }
    // Of a selector these look at samples, which have times of their own.
    let time = match name {
        "timestamp" => Some(SampleTime::Own),
        "start_timestamp" => Some(SampleTime::Start),
        _ => None,
    };
    if let (Some(time), [Node { operation: Operation::Select(selector) | Operation::Smoothed(selector), .. }]) =
        (time, nodes.as_slice())
    {
        return Ok(Operation::Timestamp(selector.clone(), time));
    }
    let function = instant_function(name, args)?;
    let args = nodes.into_iter().filter(|node| !is_text(node)).collect();
    Ok(Operation::Call(Box::new(Call { function, args, range: call.range })))
}

fn is_text(node: &Node) -> bool {
    match &node.operation {
        Operation::Text(_) => true,
        Operation::StepInvariant(inner) => is_text(inner),
        _ => false,
    }
}

/// Functions of anchored windows, and of smoothed ones.
const ANCHORED: [&str; 5] = ["changes", "delta", "increase", "rate", "resets"];
const SMOOTHED: [&str; 3] = ["delta", "increase", "rate"];

/// Errors with Prometheus's text if a function cannot look beyond the edges of its windows.
fn check_extension(extension: Option<RangeExtension>, name: &str) -> Result<(), EvalError> {
    let (modifier, functions): (_, &[&str]) = match extension {
        None => return Ok(()),
        Some(RangeExtension::Anchored) => ("anchored", &ANCHORED),
        Some(RangeExtension::Smoothed) => ("smoothed", &SMOOTHED),
    };
    if functions.contains(&name) {
        return Ok(());
    }
    let functions = functions.join(", ");
    let text = format!("{modifier} modifier can only be used with: {functions} - not with {name}");
    Err(EvalError::Execution(text))
}

fn range_call(function: functions::RangeFunction, name: &str, nodes: Vec<Node>) -> Result<Operation, EvalError> {
    let mut source = None;
    let mut scalars = Vec::new();
    for node in nodes {
        match node.operation {
            Operation::SelectRange(selector) => {
                check_extension(selector.extension, name)?;
                let absent = absent_labels(&selector.selector.matchers);
                source = Some((RangeSource::Selector(selector), node.range, absent));
            }
            // Prometheus puts a selector without position in the place of a subquery.
            Operation::Subquery(subquery) => {
                source = Some((RangeSource::Subquery(*subquery), PosRange::default(), Labels::empty()));
            }
            _ => scalars.push(node),
        }
    }
    let (source, source_range, absent) =
        source.ok_or_else(|| EvalError::Execution("function of a range vector without one".to_owned()))?;
    let function = function.with_absent_labels(absent);
    Ok(Operation::RangeCall(Box::new(RangeCall { function, source, source_range, scalars, names_go_late: false })))
}

fn instant_function(name: &str, args: &[&Expr]) -> Result<InstantFunction, EvalError> {
    if let Some(function) = functions::instant_function(name) {
        return Ok(function);
    }
    match name {
        "absent" => Ok(InstantFunction::Absent(match args {
            [Expr::Vector(selector)] => absent_labels(&selector.matchers),
            _ => Labels::empty(),
        })),
        "sort_by_label" => Ok(InstantFunction::SortByLabel(Direction::Ascending, label_names(args)?)),
        "sort_by_label_desc" => Ok(InstantFunction::SortByLabel(Direction::Descending, label_names(args)?)),
        "label_replace" => label_replace(args),
        "label_join" => label_join(args),
        "histogram_quantiles" => Ok(InstantFunction::HistogramQuantiles { label: utf8(text(args, 1)?)?.to_owned() }),
        _ => Err(EvalError::BadQuery(format!("function \"{name}\" is not supported yet"))),
    }
}

fn label_names(args: &[&Expr]) -> Result<Vec<String>, EvalError> {
    (1..args.len()).map(|i| Ok(utf8(text(args, i)?)?.to_owned())).collect()
}

fn label_replace(args: &[&Expr]) -> Result<InstantFunction, EvalError> {
    let pattern = text(args, 4)?;
    let invalid = || {
        let shown = pattern.to_display_string();
        EvalError::Execution(format!("invalid regular expression in label_replace(): {shown}"))
    };
    let regexp = Regexp::anchored(pattern.as_str().ok_or_else(invalid)?).map_err(|_| invalid())?;
    Ok(InstantFunction::LabelReplace(Box::new(LabelReplace {
        target: label_name(text(args, 1)?, "destination", "label_replace")?,
        replacement: utf8(text(args, 2)?)?.to_owned(),
        source: utf8(text(args, 3)?)?.to_owned(),
        regexp,
    })))
}

fn label_join(args: &[&Expr]) -> Result<InstantFunction, EvalError> {
    let mut sources = Vec::new();
    for i in 3..args.len() {
        sources.push(label_name(text(args, i)?, "source", "label_join")?);
    }
    Ok(InstantFunction::LabelJoin(Box::new(LabelJoin {
        target: label_name(text(args, 1)?, "destination", "label_join")?,
        separator: utf8(text(args, 2)?)?.to_owned(),
        sources,
    })))
}

/// A label name: any UTF-8 but the empty string.
fn label_name(literal: &StringLiteral, role: &str, function: &str) -> Result<String, EvalError> {
    match literal.as_str() {
        Some(name) if !name.is_empty() => Ok(name.to_owned()),
        _ => {
            let shown = literal.to_display_string();
            Err(EvalError::Execution(format!("invalid {role} label name in {function}(): {shown}")))
        }
    }
}

fn text<'a>(args: &[&'a Expr], index: usize) -> Result<&'a StringLiteral, EvalError> {
    match args.get(index) {
        Some(Expr::Text(literal)) => Ok(literal),
        _ => Err(EvalError::Execution(format!("argument {} of a function must be a string literal", index + 1))),
    }
}

fn utf8(literal: &StringLiteral) -> Result<&str, EvalError> {
    literal.as_str().ok_or_else(|| {
        let shown = crate::model::go::quote_bytes(&literal.value);
        EvalError::Execution(format!("string {shown} is not valid UTF-8, which labels have to be"))
    })
}

/// Labels that the conditions fix to one value: those of `absent`'s answer. A label with several conditions, even equal
/// ones, is left out, as it always was.
fn absent_labels(matchers: &[Matcher]) -> Labels {
    let mut builder = LabelsBuilder::new();
    let mut seen: Vec<&str> = Vec::new();
    for matcher in matchers.iter().filter(|m| m.name() != METRIC_NAME) {
        if matcher.op() == MatchOp::Equal && !seen.contains(&matcher.name()) {
            builder.set(matcher.name(), matcher.value());
            seen.push(matcher.name());
        } else {
            builder.del(matcher.name());
        }
    }
    builder.build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_of_time_dependent_functions_is_sorted() {
        assert!(TIME_DEPENDENT.windows(2).all(|pair| pair[0] < pair[1]));
        assert!(depends_on_time("time") && !depends_on_time("rate"));
    }

    #[test]
    fn absent_keeps_labels_with_one_equality() {
        let matchers = [
            Matcher::equal("__name__", "x"),
            Matcher::equal("job", "a"),
            Matcher::equal("job", "b"),
            Matcher::equal("foo", "bar"),
            Matcher::new(MatchOp::Regex, "z", ".+").unwrap(),
        ];
        assert_eq!(absent_labels(&matchers).to_string(), r#"{foo="bar"}"#);
    }
}
