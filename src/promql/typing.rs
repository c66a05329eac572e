//! The types of expressions: which operands an operator, call or modifier takes.
//!
//! The rules are functions of the operands' types alone. The parser calls them for each node as soon as the node's text is
//! complete, and reports what they find only if there are no syntax errors. Checking nodes one by one, and not a finished
//! tree, lets a faulty chain of any length report all of its errors without first becoming a tree of that height.

use std::collections::HashSet;

use crate::model::go;
use crate::model::labels::METRIC_NAME;
use crate::promql::ast::{AggregateOp, BinaryOp, Cardinality, PosRange, VectorMatching, VectorSelector};
use crate::promql::parser::ParseError;
use crate::promql::signatures::{Function, ValueType};

/// What the rules need to know of an operand.
#[derive(Clone, Copy, Debug)]
pub(super) struct Typed {
    pub(super) value_type: ValueType,
    pub(super) range: PosRange,
}

impl Typed {
    fn is_scalar(self) -> bool {
        self.value_type == ValueType::Scalar
    }

    fn is_vector(self) -> bool {
        self.value_type == ValueType::Vector
    }
}

/// A binary operation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Operation {
    pub(super) op: BinaryOp,
    pub(super) return_bool: bool,
    pub(super) lhs: Typed,
    pub(super) rhs: Typed,
    pub(super) range: PosRange,
}

/// Collects type errors.
pub(super) struct TypeChecker<'a> {
    query: &'a str,
    errors: Vec<ParseError>,
}

impl<'a> TypeChecker<'a> {
    pub(super) fn new(query: &'a str) -> Self {
        Self { query, errors: Vec::new() }
    }

    pub(super) fn has_errors(&self) -> bool {
        !self.errors.is_empty()
    }

    pub(super) fn into_errors(self) -> Vec<ParseError> {
        self.errors
    }

    /// A place in the list of errors, for [`TypeChecker::take_since`].
    pub(super) fn mark(&self) -> usize {
        self.errors.len()
    }

    /// Removes the errors found since `mark`, to be put back in another order.
    pub(super) fn take_since(&mut self, mark: usize) -> Vec<ParseError> {
        self.errors.split_off(mark.min(self.errors.len()))
    }

    /// Puts errors back.
    pub(super) fn extend(&mut self, errors: Vec<ParseError>) {
        self.errors.extend(errors);
    }

    /// A selector names its metric once, and must not select everything by mistake.
    pub(super) fn selector(&mut self, selector: &VectorSelector) {
        if !selector.name.is_empty() {
            // The last matcher is that of the name itself.
            let inside_braces = selector.matchers.split_last().map_or(0, |(_, rest)| rest.len());
            for matcher in selector.matchers.iter().take(inside_braces).filter(|m| m.name() == METRIC_NAME) {
                let (name, other) = (go::quote(&selector.name), go::quote(matcher.value()));
                self.error(selector.range, format!("metric name must not be set twice: {name} or {other}"));
            }
            return;
        }
        if !selector.allow_empty_match && selector.matchers.iter().all(|m| m.matches_empty()) {
            self.error(selector.range, "vector selector must contain at least one non-empty matcher");
        }
    }

    /// A subquery evaluates an instant vector.
    pub(super) fn subquery(&mut self, inner: ValueType, range: PosRange) {
        if inner != ValueType::Vector {
            self.error(range, format!("subquery is only allowed on instant vector, got {inner} instead"));
        }
    }

    /// Signs go with numbers.
    pub(super) fn unary(&mut self, operand: Typed, range: PosRange) {
        if !operand.is_scalar() && !operand.is_vector() {
            let found = go::quote(operand.value_type.documented());
            let allowed = "expressions of type scalar or instant vector";
            self.error(range, format!("unary expression only allowed on {allowed}, got {found}"));
        }
    }

    /// What is aggregated is an instant vector.
    pub(super) fn aggregate_operand(&mut self, operand: Typed) {
        self.expect(operand, ValueType::Vector, "aggregation expression");
    }

    /// The parameter of an aggregation is a scalar, or a string for `count_values`.
    pub(super) fn aggregate_parameter(&mut self, op: AggregateOp, param: Typed) {
        let wanted = if op == AggregateOp::CountValues { ValueType::Text } else { ValueType::Scalar };
        self.expect(param, wanted, "aggregation parameter");
    }

    /// A call has as many arguments as the function takes.
    pub(super) fn call(&mut self, func: &Function, arg_count: usize, range: PosRange) {
        let declared = func.arg_types.len();
        // Almost always there is nothing to say.
        let in_call = || format!("argument(s) in call to {}, got {arg_count}", go::quote(func.name));
        if func.variadic == 0 {
            if arg_count != declared {
                self.error(range, format!("expected {declared} {}", in_call()));
            }
            return;
        }
        let min = declared.saturating_sub(1);
        if arg_count < min {
            self.error(range, format!("expected at least {min} {}", in_call()));
        } else if let Ok(more) = usize::try_from(func.variadic)
            && min + more < arg_count
        {
            self.error(range, format!("expected at most {} {}", min + more, in_call()));
        }
    }

    /// An argument has the declared type.
    pub(super) fn argument(&mut self, func: &Function, wanted: ValueType, arg: Typed) {
        if arg.value_type != wanted {
            let (wanted, found) = (wanted.documented(), arg.value_type.documented());
            self.error(
                arg.range,
                format!("expected type {wanted} in call to function {}, got {found}", go::quote(func.name)),
            );
        }
    }

    /// The second argument of `info()` is a selector without name. `has_name` is `None` if it is no selector at all.
    pub(super) fn info_selector(&mut self, arg: Typed, has_name: Option<bool>, call: PosRange) {
        if !arg.is_vector() {
            let found = arg.value_type.documented();
            self.error(call, format!("expected type instant vector in call to function \"info\", got {found}"));
        }
        match has_name {
            Some(false) => {}
            Some(true) => self.error(arg.range, "expected label selectors only, got vector selector instead"),
            None => self.error(arg.range, "expected label selectors only"),
        }
    }

    /// The rules of binary operators. Returns how vectors are matched, or `None` if an operand is none.
    pub(super) fn binary(&mut self, operation: Operation, mut matching: VectorMatching) -> Option<VectorMatching> {
        let Operation { op, return_bool, lhs, rhs, range } = operation;
        if return_bool && !op.is_comparison() {
            let range = self.operator_range(operation);
            self.error(range, "bool modifier can only be used on comparison operators");
        }
        if op.is_comparison() && !return_bool && lhs.is_scalar() && rhs.is_scalar() {
            let range = self.operator_range(operation);
            self.error(range, "comparisons between scalars must use BOOL modifier");
        }
        if op.is_set() && matching.card == Cardinality::OneToOne {
            matching.card = Cardinality::ManyToMany;
        }
        if matching.on {
            self.included_labels(operation, &matching);
        }
        for operand in [lhs, rhs].into_iter().filter(|o| !o.is_scalar() && !o.is_vector()) {
            self.error(operand.range, "binary expression must contain only scalar and instant vector types");
        }
        let has_fill = matching.fill.lhs.is_some() || matching.fill.rhs.is_some();
        let vectors = lhs.is_vector() && rhs.is_vector();
        if !vectors {
            if !matching.labels.is_empty() {
                self.error(range, "vector matching only allowed between instant vectors");
            }
            if has_fill {
                self.error(range, "filling in missing series only allowed between instant vectors");
            }
        } else if op.is_set() {
            if matching.card != Cardinality::ManyToMany {
                self.error(range, format!("no grouping allowed for {} operation", go::quote(op.as_str())));
                self.error(range, "set operations must always be many-to-many");
            }
            if has_fill {
                self.error(range, "filling in missing series not allowed for set operators");
            }
        }
        if op.is_set() && (lhs.is_scalar() || rhs.is_scalar()) {
            let op = go::quote(op.as_str());
            self.error(range, format!("set operator {op} not allowed in binary scalar expression"));
        }
        vectors.then_some(matching)
    }

    /// A label that is matched on is the same on both sides and cannot be copied.
    fn included_labels(&mut self, operation: Operation, matching: &VectorMatching) {
        let include = &matching.include;
        // A table only for lists that nobody writes by hand.
        let table: Option<HashSet<&str>> = (16 < include.len()).then(|| include.iter().map(String::as_str).collect());
        let is_included = |label: &String| match &table {
            Some(table) => table.contains(label.as_str()),
            None => include.contains(label),
        };
        for label in matching.labels.iter().filter(|label| is_included(label)) {
            let range = self.operator_range(operation);
            let label = go::quote(label);
            self.error(range, format!("label {label} must not occur in ON and GROUP clause at once"));
        }
    }

    /// The text between the operands. As in Prometheus, its end is the last byte and not the one behind it.
    fn operator_range(&self, operation: Operation) -> PosRange {
        let bytes = self.query.as_bytes();
        let is_space = |index: usize| matches!(bytes.get(index), Some(b' ' | b'\t' | b'\n' | b'\r'));
        let mut start = operation.lhs.range.end;
        while is_space(start) {
            start += 1;
        }
        let mut end = operation.rhs.range.start.saturating_sub(1);
        while is_space(end) {
            end = end.saturating_sub(1);
        }
        PosRange::new(start, end)
    }

    fn expect(&mut self, operand: Typed, wanted: ValueType, context: &str) {
        if operand.value_type != wanted {
            let (wanted, found) = (wanted.documented(), operand.value_type.documented());
            self.error(operand.range, format!("expected type {wanted} in {context}, got {found}"));
        }
    }

    /// Adds an error.
    pub(super) fn error(&mut self, range: PosRange, message: impl Into<String>) {
        ParseError::push(&mut self.errors, range, message);
    }
}
