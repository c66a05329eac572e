//! Operators on two values.

use std::sync::Arc;

use crate::model::go_math;
use crate::model::histogram::{CounterResetHint, FloatHistogram, TrimSide};
use crate::promql::ast::BinaryOp;
use crate::promql::functions::note::{HistogramUse, Note};

/// Arithmetic and comparison operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ElementOp {
    /// `+`
    Add,
    /// `-`
    Sub,
    /// `*`
    Mul,
    /// `/`
    Div,
    /// `%`
    Mod,
    /// `^`
    Pow,
    /// `atan2`
    Atan2,
    /// `==`
    Equal,
    /// `!=`
    NotEqual,
    /// `<`
    Less,
    /// `<=`
    LessEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterEqual,
    /// `</`
    TrimUpper,
    /// `>/`
    TrimLower,
}

impl ElementOp {
    /// The operator, if `op` is one on elements.
    pub(crate) fn of(op: BinaryOp) -> Option<Self> {
        Some(match op {
            BinaryOp::Add => Self::Add,
            BinaryOp::Sub => Self::Sub,
            BinaryOp::Mul => Self::Mul,
            BinaryOp::Div => Self::Div,
            BinaryOp::Mod => Self::Mod,
            BinaryOp::Pow => Self::Pow,
            BinaryOp::Atan2 => Self::Atan2,
            BinaryOp::Equal => Self::Equal,
            BinaryOp::NotEqual => Self::NotEqual,
            BinaryOp::Less => Self::Less,
            BinaryOp::LessEqual => Self::LessEqual,
            BinaryOp::Greater => Self::Greater,
            BinaryOp::GreaterEqual => Self::GreaterEqual,
            BinaryOp::TrimUpper => Self::TrimUpper,
            BinaryOp::TrimLower => Self::TrimLower,
            BinaryOp::And | BinaryOp::Or | BinaryOp::Unless => return None,
        })
    }

    /// True for the operators whose result is not a value of the metric any more.
    pub(crate) fn changes_metric(self) -> bool {
        !self.is_comparison() && !self.is_trim()
    }

    /// True for the operators that trim histograms; they have no result for floats.
    pub(crate) fn is_trim(self) -> bool {
        matches!(self, Self::TrimUpper | Self::TrimLower)
    }

    /// The operator as it is written.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Add => "+",
            Self::Sub => "-",
            Self::Mul => "*",
            Self::Div => "/",
            Self::Mod => "%",
            Self::Pow => "^",
            Self::Atan2 => "atan2",
            Self::Equal => "==",
            Self::NotEqual => "!=",
            Self::Less => "<",
            Self::LessEqual => "<=",
            Self::Greater => ">",
            Self::GreaterEqual => ">=",
            Self::TrimUpper => "</",
            Self::TrimLower => ">/",
        }
    }

    /// True for comparisons.
    pub(crate) fn is_comparison(self) -> bool {
        matches!(self, Self::Equal | Self::NotEqual | Self::Less | Self::LessEqual | Self::Greater | Self::GreaterEqual)
    }

    /// The result of arithmetic; of a comparison 1 or 0.
    #[inline]
    pub(crate) fn scalar(self, lhs: f64, rhs: f64) -> f64 {
        match self {
            Self::Add => lhs + rhs,
            Self::Sub => lhs - rhs,
            Self::Mul => lhs * rhs,
            Self::Div => lhs / rhs,
            Self::Mod => lhs % rhs,
            Self::Pow => go_math::pow(lhs, rhs),
            Self::Atan2 => go_math::atan2(lhs, rhs),
            Self::TrimUpper | Self::TrimLower => f64::NAN,
            comparison => f64::from(u8::from(comparison.holds(lhs, rhs))),
        }
    }

    /// True if a comparison holds; arithmetic keeps every element.
    #[inline]
    pub(crate) fn holds(self, lhs: f64, rhs: f64) -> bool {
        match self {
            Self::Equal => lhs == rhs,
            Self::NotEqual => lhs != rhs,
            Self::Less => lhs < rhs,
            Self::LessEqual => lhs <= rhs,
            Self::Greater => lhs > rhs,
            Self::GreaterEqual => lhs >= rhs,
            _ => true,
        }
    }
}

/// One side of an operation.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Operand<'a> {
    /// A float.
    Float(f64),
    /// A histogram.
    Histogram(&'a Arc<FloatHistogram>),
}

impl Operand<'_> {
    fn kind(self) -> &'static str {
        match self {
            Self::Float(_) => "float",
            Self::Histogram(_) => "histogram",
        }
    }
}

/// The value of an operation.
#[derive(Clone, Debug)]
pub(crate) enum ElementValue {
    /// A float.
    Float(f64),
    /// A histogram.
    Histogram(Arc<FloatHistogram>),
}

impl ElementValue {
    /// Bytes of a histogram.
    pub(crate) fn memory_len(&self) -> usize {
        match self {
            Self::Float(_) => 0,
            Self::Histogram(histogram) => histogram.memory_len(),
        }
    }
}

/// What an operation on two elements comes to.
#[derive(Clone, Debug)]
pub(crate) struct Combination {
    /// The value, that of the left side for a comparison.
    pub(crate) value: ElementValue,
    /// False if a comparison does not hold.
    pub(crate) holds: bool,
    /// What is worth a remark.
    pub(crate) note: Option<Note>,
}

/// Why two elements cannot be combined, or what makes their combination doubtful.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CombineError {
    /// The operator is not defined for these kinds; an info with this text.
    Types(String),
    /// Exponential and listed buckets.
    Schemas,
    /// One histogram tells of a counter reset and the other of none; there is no result then.
    ResetsCollide(HistogramUse),
}

impl ElementOp {
    /// Combines two elements of any kind.
    pub(crate) fn combine(self, lhs: Operand<'_>, rhs: Operand<'_>) -> Result<Combination, CombineError> {
        let histogram = |value: FloatHistogram| Combination {
            value: ElementValue::Histogram(Arc::new(value)),
            holds: true,
            note: None,
        };
        let changed = |from: &FloatHistogram, change: &dyn Fn(&mut FloatHistogram)| {
            let mut value = from.clone();
            change(&mut value);
            value.compact(0);
            Ok(histogram(value))
        };
        match (self, lhs, rhs) {
            (op, Operand::Float(lhs), Operand::Float(rhs)) if !op.is_trim() => {
                let value = if op.is_comparison() { lhs } else { op.scalar(lhs, rhs) };
                Ok(Combination { value: ElementValue::Float(value), holds: op.holds(lhs, rhs), note: None })
            }
            (Self::Mul, Operand::Float(factor), Operand::Histogram(h))
            | (Self::Mul, Operand::Histogram(h), Operand::Float(factor)) => changed(h, &|h| h.mul(factor)),
            (Self::Div, Operand::Histogram(h), Operand::Float(divisor)) => changed(h, &|h| h.div(divisor)),
            (Self::TrimUpper | Self::TrimLower, Operand::Histogram(h), Operand::Float(at)) => {
                let side = if self == Self::TrimUpper { TrimSide::Upper } else { TrimSide::Lower };
                let mut trimmed = FloatHistogram::clone(h);
                trimmed.trim(at, side);
                Ok(histogram(trimmed))
            }
            (Self::Add | Self::Sub, Operand::Histogram(lhs), Operand::Histogram(rhs)) => {
                let mut value = FloatHistogram::clone(lhs);
                let (combined, used) = if self == Self::Add {
                    (value.add(rhs), HistogramUse::Addition)
                } else {
                    (value.sub(rhs), HistogramUse::Subtraction)
                };
                let combined = combined.map_err(|_| CombineError::Schemas)?;
                if self == Self::Sub {
                    value.counter_reset_hint = CounterResetHint::Gauge;
                }
                value.compact(0);
                if combined.resets_collide {
                    return Err(CombineError::ResetsCollide(used));
                }
                let note = combined.bounds_reconciled.then_some(Note::BoundsReconciled(used));
                Ok(Combination { note, ..histogram(value) })
            }
            (Self::Equal | Self::NotEqual, Operand::Histogram(lhs), Operand::Histogram(rhs)) => Ok(Combination {
                value: ElementValue::Histogram(Arc::clone(lhs)),
                holds: lhs.equals(rhs) == (self == Self::Equal),
                note: None,
            }),
            _ => {
                let (op, lhs, rhs) = (self.as_str(), lhs.kind(), rhs.kind());
                let text =
                    format!("incompatible sample types encountered for binary operator \"{op}\": {lhs} {op} {rhs}");
                Err(CombineError::Types(text))
            }
        }
    }
}
