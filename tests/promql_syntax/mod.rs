//! Our trees in the form of the reference's: its names of nodes and fields, zero values left out.

use serde_json::{Value, json};
use watchfire::model::histogram::{CounterResetHint, FloatHistogram, Span};
use watchfire::model::matcher::Matcher;
use watchfire::promql::ast::*;

/// The tree in the reference's form.
pub(crate) fn reference_json(expr: &Expr) -> Value {
    match expr {
        Expr::Aggregate(e) => json!({
            "$type": "AggregateExpr", "Op": constant(e.op.as_str()), "Expr": reference_json(&e.expr),
            "Param": e.param.as_ref().map(reference_json), "Grouping": e.grouping, "Without": e.without,
            "PosRange": range(e.range),
        }),
        Expr::Binary(e) => json!({
            "$type": "BinaryExpr", "Op": binary_op(e.op), "LHS": reference_json(&e.lhs), "RHS": reference_json(&e.rhs),
            "ReturnBool": e.return_bool, "VectorMatching": e.matching.as_ref().map(matching),
        }),
        Expr::Call(e) => json!({
            "$type": "Call", "Func": { "Name": e.func.name }, "PosRange": range(e.range),
            "Args": e.args.iter().map(reference_json).collect::<Vec<_>>(),
        }),
        Expr::Matrix(e) => {
            let (literal, expr) = duration(&e.window);
            json!({
                "$type": "MatrixSelector", "VectorSelector": vector(&e.selector), "Range": literal, "RangeExpr": expr,
                "EndPos": e.range.end,
            })
        }
        Expr::Subquery(e) => subquery(e),
        Expr::Number(e) => number(e),
        Expr::Paren(e) => {
            json!({ "$type": "ParenExpr", "Expr": reference_json(&e.expr), "PosRange": range(e.range) })
        }
        Expr::Text(e) => json!({
            "$type": "StringLiteral", "Val": e.to_display_string(), "PosRange": range(e.range),
        }),
        Expr::Unary(e) => json!({
            "$type": "UnaryExpr", "Op": sign(e.op), "Expr": reference_json(&e.expr), "StartPos": e.range.start,
        }),
        Expr::Vector(e) => vector(e),
    }
}

fn subquery(e: &SubqueryExpr) -> Value {
    let (range, range_expr) = duration(&e.window);
    let (offset, offset_expr) = duration(&e.offset);
    let (step, step_expr) = e.step.as_ref().map_or((0, Value::Null), duration);
    json!({
        "$type": "SubqueryExpr", "Expr": reference_json(&e.expr), "Range": range, "RangeExpr": range_expr,
        "OriginalOffset": offset, "OriginalOffsetExpr": offset_expr, "Step": step, "StepExpr": step_expr,
        "Timestamp": timestamp(e.at), "StartOrEnd": start_or_end(e.at), "EndPos": e.range.end,
    })
}

fn vector(e: &VectorSelector) -> Value {
    let (offset, offset_expr) = duration(&e.offset);
    json!({
        "$type": "VectorSelector", "Name": e.name, "LabelMatchers": e.matchers.iter().map(matcher).collect::<Vec<_>>(),
        "OriginalOffset": offset, "OriginalOffsetExpr": offset_expr,
        "Timestamp": timestamp(e.at), "StartOrEnd": start_or_end(e.at),
        "Anchored": e.extension == Some(RangeExtension::Anchored),
        "Smoothed": e.extension == Some(RangeExtension::Smoothed),
        "BypassEmptyMatcherCheck": e.allow_empty_match, "PosRange": range(e.range),
    })
}

fn matcher(m: &Matcher) -> Value {
    json!({ "type": m.op().as_str(), "name": m.name(), "value": m.value() })
}

fn matching(m: &VectorMatching) -> Value {
    let card = match m.card {
        Cardinality::OneToOne => "CardOneToOne",
        Cardinality::ManyToOne => "CardManyToOne",
        Cardinality::OneToMany => "CardOneToMany",
        Cardinality::ManyToMany => "CardManyToMany",
    };
    json!({
        "$type": "VectorMatching", "Card": card, "MatchingLabels": m.labels, "On": m.on, "Include": m.include,
        "FillValues": { "LHS": m.fill.lhs, "RHS": m.fill.rhs },
    })
}

fn number(e: &NumberLiteral) -> Value {
    let value = if e.value.is_finite() { json!(e.value) } else { json!(watchfire::model::go::format_float_f(e.value)) };
    json!({ "$type": "NumberLiteral", "Val": value, "Duration": e.is_duration, "PosRange": range(e.range) })
}

fn duration(value: &DurationValue) -> (i64, Value) {
    match value {
        DurationValue::Literal(literal) => (literal.0, Value::Null),
        DurationValue::Expr(expr) => (0, duration_expr(expr)),
    }
}

fn duration_expr(e: &DurationExpr) -> Value {
    let mut node = json!({ "$type": "DurationExpr", "Wrapped": e.wrapped });
    let fields = match &e.kind {
        DurationKind::Step => json!({ "Op": "STEP", "StartPos": e.range.start, "EndPos": e.range.end }),
        DurationKind::Range => json!({ "Op": "RANGE", "StartPos": e.range.start, "EndPos": e.range.end }),
        DurationKind::Unary { op, operand } => {
            json!({ "Op": sign(*op), "RHS": duration_operand(operand), "StartPos": e.range.start })
        }
        DurationKind::Binary { op, lhs, rhs } => json!({
            "Op": constant_of_symbol(op.as_str()), "LHS": duration_operand(lhs), "RHS": duration_operand(rhs),
        }),
        DurationKind::Choice { op, lhs, rhs, call } => json!({
            "Op": constant(op.as_str()), "LHS": duration_operand(lhs), "RHS": duration_operand(rhs),
            "StartPos": call.start, "EndPos": call.end,
        }),
    };
    for (key, value) in fields.as_object().unwrap() {
        node[key] = value.clone();
    }
    node
}

fn duration_operand(operand: &DurationOperand) -> Value {
    match operand {
        DurationOperand::Number(n) => number(n),
        DurationOperand::Expr(e) => duration_expr(e),
    }
}

fn timestamp(at: Option<AtModifier>) -> Option<i64> {
    match at {
        Some(AtModifier::Timestamp(ms)) => Some(ms),
        _ => None,
    }
}

fn start_or_end(at: Option<AtModifier>) -> Option<&'static str> {
    match at {
        Some(AtModifier::Start) => Some("START"),
        Some(AtModifier::End) => Some("END"),
        _ => None,
    }
}

fn sign(sign: Sign) -> &'static str {
    match sign {
        Sign::Plus => "ADD",
        Sign::Minus => "SUB",
    }
}

fn binary_op(op: BinaryOp) -> String {
    match op {
        BinaryOp::And => "LAND".to_owned(),
        BinaryOp::Or => "LOR".to_owned(),
        BinaryOp::Unless => "LUNLESS".to_owned(),
        BinaryOp::Atan2 => "ATAN2".to_owned(),
        op => constant_of_symbol(op.as_str()).to_owned(),
    }
}

fn constant_of_symbol(symbol: &str) -> &'static str {
    match symbol {
        "+" => "ADD",
        "-" => "SUB",
        "*" => "MUL",
        "/" => "DIV",
        "%" => "MOD",
        "^" => "POW",
        "==" => "EQLC",
        "!=" => "NEQ",
        "<" => "LSS",
        "<=" => "LTE",
        ">" => "GTR",
        ">=" => "GTE",
        "</" => "TRIM_UPPER",
        ">/" => "TRIM_LOWER",
        other => panic!("no constant for {other}"),
    }
}

fn constant(name: &str) -> String {
    name.to_ascii_uppercase()
}

fn range(range: PosRange) -> Value {
    json!({ "$type": "posrange.PositionRange", "Start": range.start, "End": range.end })
}

/// A histogram in the reference's form.
pub(crate) fn histogram_json(h: &FloatHistogram) -> Value {
    let hint = match h.counter_reset_hint {
        CounterResetHint::Unknown => "UnknownCounterReset",
        CounterResetHint::Reset => "CounterReset",
        CounterResetHint::NotReset => "NotCounterReset",
        CounterResetHint::Gauge => "GaugeType",
    };
    let span = |s: &Span| json!({ "Offset": s.offset, "Length": s.length });
    json!({
        "Schema": h.schema, "Count": h.count, "Sum": h.sum, "ZeroCount": h.zero_count, "ZeroThreshold": h.zero_threshold,
        "PositiveSpans": h.positive_spans.iter().map(span).collect::<Vec<_>>(), "PositiveBuckets": h.positive_buckets,
        "NegativeSpans": h.negative_spans.iter().map(span).collect::<Vec<_>>(), "NegativeBuckets": h.negative_buckets,
        "CustomValues": h.custom_values, "CounterResetHint": hint,
    })
}

/// The same value with numbers as floats and without zero values, which the data leaves out in places. Positions that
/// nothing uses are left out as well: the ends of signed and parenthesised durations.
pub(crate) fn simplified(value: &Value) -> Value {
    match value {
        Value::Array(items) => items.iter().map(simplified).collect(),
        Value::Object(fields) => {
            let sign_only = fields.get("$type") == Some(&json!("DurationExpr"))
                && fields.get("LHS").is_none_or(Value::is_null)
                && fields.contains_key("RHS");
            let kept = fields
                .iter()
                .filter(|(key, _)| !(sign_only && *key == "EndPos"))
                .map(|(key, value)| (key.clone(), simplified(value)))
                .filter(|(_, value)| !is_zero(value))
                .collect();
            Value::Object(kept)
        }
        Value::Number(number) => json!(number.as_f64()),
        other => other.clone(),
    }
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty() || text == "CardOneToOne" || text == "UnknownCounterReset",
        Value::Array(items) => items.is_empty(),
        // An empty list of arguments is an object with nothing but its type.
        Value::Object(fields) => {
            fields.is_empty() || (fields.len() == 1 && fields.get("$type") == Some(&json!("Expressions")))
        }
    }
}
