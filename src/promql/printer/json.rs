//! Syntax trees as `/api/v1/parse_query` shows them. Keys are in alphabetical order, as Go's encoder writes maps.

use serde_json::{Value, json};

use crate::model::go;
use crate::model::matcher::Matcher;
use crate::promql::ast::{
    AtModifier, DurationExpr, DurationKind, DurationOperand, DurationValue, Expr, MatrixSelector, NumberLiteral,
    RangeExtension, SubqueryExpr, VectorMatching, VectorSelector,
};
use crate::promql::signatures::Function;

/// The tree as JSON. Durations are in milliseconds, and those that have to be computed appear as trees beside a zero.
pub fn to_json(expr: &Expr) -> Value {
    // The children come first, so that the large frames that objects take are not on the stack of the recursion.
    let mut children = Vec::new();
    for child in expr.children() {
        children.push(to_json(child));
    }
    node(expr, children)
}

/// One node over its finished children, which are in the order of [`Expr::children`].
fn node(expr: &Expr, children: Vec<Value>) -> Value {
    let mut children = children.into_iter();
    let mut child = || children.next().unwrap_or_default();
    match expr {
        Expr::Aggregate(e) => json!({
            "expr": child(),
            "grouping": e.grouping,
            "op": e.op.as_str(),
            "param": child(),
            "type": "aggregation",
            "without": e.without,
        }),
        Expr::Binary(e) => json!({
            "bool": e.return_bool,
            "lhs": child(),
            "matching": e.matching.as_ref().map(matching),
            "op": e.op.as_str(),
            "rhs": child(),
            "type": "binaryExpr",
        }),
        Expr::Call(e) => json!({ "args": children.collect::<Vec<_>>(), "func": function(e.func), "type": "call" }),
        Expr::Matrix(e) => matrix(e),
        Expr::Subquery(e) => subquery(e, child()),
        Expr::Number(e) => json!({ "type": "numberLiteral", "val": go::format_float_f(e.value) }),
        Expr::Paren(_) => json!({ "expr": child(), "type": "parenExpr" }),
        Expr::Text(e) => json!({ "type": "stringLiteral", "val": e.to_display_string() }),
        Expr::Unary(e) => json!({ "expr": child(), "op": e.op.as_str(), "type": "unaryExpr" }),
        Expr::Vector(e) => vector(e),
    }
}

fn matching(m: &VectorMatching) -> Value {
    json!({
        "card": m.card.as_str(),
        "fillValues": { "lhs": m.fill.lhs.map(number), "rhs": m.fill.rhs.map(number) },
        "include": m.include,
        "labels": m.labels,
        "on": m.on,
    })
}

fn function(func: &Function) -> Value {
    let arg_types: Vec<&str> = func.arg_types.iter().map(|t| t.as_str()).collect();
    json!({
        "argTypes": arg_types,
        "name": func.name,
        "returnType": func.return_type.as_str(),
        "variadic": func.variadic,
    })
}

fn matrix(e: &MatrixSelector) -> Value {
    let (range, range_expr) = duration(&e.window);
    let (offset, offset_expr) = duration(&e.selector.offset);
    json!({
        "anchored": e.selector.extension == Some(RangeExtension::Anchored),
        "matchers": matchers(&e.selector.matchers),
        "name": e.selector.name,
        "offset": offset,
        "offsetExpr": offset_expr,
        "range": range,
        "rangeExpr": range_expr,
        "smoothed": e.selector.extension == Some(RangeExtension::Smoothed),
        "startOrEnd": start_or_end(e.selector.at),
        "timestamp": timestamp(e.selector.at),
        "type": "matrixSelector",
    })
}

fn subquery(e: &SubqueryExpr, expr: Value) -> Value {
    let (range, range_expr) = duration(&e.window);
    let (offset, offset_expr) = duration(&e.offset);
    let (step, step_expr) = e.step.as_ref().map_or((0, Value::Null), duration);
    json!({
        "expr": expr,
        "offset": offset,
        "offsetExpr": offset_expr,
        "range": range,
        "rangeExpr": range_expr,
        "startOrEnd": start_or_end(e.at),
        "step": step,
        "stepExpr": step_expr,
        "timestamp": timestamp(e.at),
        "type": "subquery",
    })
}

fn vector(e: &VectorSelector) -> Value {
    let (offset, offset_expr) = duration(&e.offset);
    json!({
        "anchored": e.extension == Some(RangeExtension::Anchored),
        "matchers": matchers(&e.matchers),
        "name": e.name,
        "offset": offset,
        "offsetExpr": offset_expr,
        "smoothed": e.extension == Some(RangeExtension::Smoothed),
        "startOrEnd": start_or_end(e.at),
        "timestamp": timestamp(e.at),
        "type": "vectorSelector",
    })
}

/// A float as Go writes it: whole numbers without a decimal point.
fn number(value: f64) -> Value {
    // The bound keeps the cast exact.
    if value.fract() == 0.0 && value.abs() < 1e15 { json!(value as i64) } else { json!(value) }
}

fn matchers(matchers: &[Matcher]) -> Value {
    matchers.iter().map(|m| json!({ "name": m.name(), "type": m.op().as_str(), "value": m.value() })).collect()
}

fn timestamp(at: Option<AtModifier>) -> Option<i64> {
    match at {
        Some(AtModifier::Timestamp(ms)) => Some(ms),
        _ => None,
    }
}

fn start_or_end(at: Option<AtModifier>) -> Option<&'static str> {
    match at {
        Some(AtModifier::Start) => Some("start"),
        Some(AtModifier::End) => Some("end"),
        _ => None,
    }
}

/// Milliseconds, and the tree if they have to be computed.
fn duration(value: &DurationValue) -> (i64, Value) {
    match value {
        DurationValue::Literal(literal) => (literal.as_ms(), Value::Null),
        DurationValue::Expr(expr) => (0, duration_expr(expr)),
    }
}

fn duration_expr(e: &DurationExpr) -> Value {
    let (op, lhs, rhs) = match &e.kind {
        DurationKind::Step => ("step", None, None),
        DurationKind::Range => ("range", None, None),
        DurationKind::Unary { op, operand } => (op.as_str(), None, Some(operand)),
        DurationKind::Binary { op, lhs, rhs } => (op.as_str(), Some(lhs), Some(rhs)),
        DurationKind::Choice { op, lhs, rhs, .. } => (op.as_str(), Some(lhs), Some(rhs)),
    };
    let lhs = lhs.map_or(Value::Null, duration_operand);
    let rhs = rhs.map_or(Value::Null, duration_operand);
    duration_node(op, lhs, rhs, e.wrapped)
}

fn duration_node(op: &str, lhs: Value, rhs: Value, wrapped: bool) -> Value {
    json!({ "lhs": lhs, "op": op, "rhs": rhs, "type": "durationExpr", "wrapped": wrapped })
}

fn duration_operand(operand: &DurationOperand) -> Value {
    match operand {
        DurationOperand::Number(number) => duration_number(number),
        DurationOperand::Expr(expr) => duration_expr(expr),
    }
}

fn duration_number(number: &NumberLiteral) -> Value {
    json!({ "duration": number.is_duration, "type": "numberLiteral", "val": go::format_float_f(number.value) })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::promql::parser::{ParseOptions, parse_expr};

    #[track_caller]
    fn check(query: &str, wanted: &Value) {
        let expr = parse_expr(query, &ParseOptions::ALL).unwrap_or_else(|errors| panic!("{query}: {errors}"));
        // As text, because the order of keys counts.
        assert_eq!(to_json(&expr).to_string(), wanted.to_string());
    }

    #[test]
    fn trees_are_those_of_the_api() {
        let foo = json!({
            "anchored": false, "matchers": [{ "name": "__name__", "type": "=", "value": "foo" }], "name": "foo",
            "offset": 0, "offsetExpr": null, "smoothed": false, "startOrEnd": null, "timestamp": null,
            "type": "vectorSelector",
        });
        let one = json!({ "type": "numberLiteral", "val": "1" });
        check(
            "topk(1, foo)",
            &json!({
                "expr": foo, "grouping": [], "op": "topk", "param": one, "type": "aggregation", "without": false,
            }),
        );
        check(
            "sum(foo)",
            &json!({
                "expr": foo, "grouping": [], "op": "sum", "param": null, "type": "aggregation", "without": false,
            }),
        );
        check(
            "-foo > bool 1",
            &json!({
                "bool": true, "lhs": { "expr": foo, "op": "-", "type": "unaryExpr" }, "matching": null, "op": ">", "rhs": one,
                "type": "binaryExpr",
            }),
        );
        check(
            "pi()",
            &json!({
                "args": [], "func": { "argTypes": [], "name": "pi", "returnType": "scalar", "variadic": 0 }, "type": "call",
            }),
        );
        check(
            "(foo)[5m:] @ end() offset -step()",
            &json!({
                "expr": { "expr": foo, "type": "parenExpr" }, "offset": 0,
                "offsetExpr": {
                    "lhs": null, "op": "-",
                    "rhs": { "lhs": null, "op": "step", "rhs": null, "type": "durationExpr", "wrapped": false },
                    "type": "durationExpr", "wrapped": false,
                },
                "range": 300_000, "rangeExpr": null, "startOrEnd": "end", "step": 0, "stepExpr": null, "timestamp": null,
                "type": "subquery",
            }),
        );
    }
}
