//! What a query yields, between the engine that makes it and the edges that render it.

use crate::model::labels::Labels;
use crate::model::time::TimestampMs;

/// One evaluated point.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// Evaluation time (or sample time, for a bare range selector).
    pub at: TimestampMs,
    /// The value.
    pub value: f64,
}

/// One element of an instant vector.
#[derive(Clone, Debug, PartialEq)]
pub struct VectorElement {
    /// Its labels.
    pub labels: Labels,
    /// Its point.
    pub point: Point,
}

/// One series of a range result.
#[derive(Clone, Debug, PartialEq)]
pub struct MatrixSeries {
    /// Its labels.
    pub labels: Labels,
    /// Its points, by time.
    pub points: Vec<Point>,
}

/// The value of a query.
#[derive(Clone, Debug, PartialEq)]
pub enum QueryValue {
    /// A number at a time.
    Scalar(Point),
    /// A string at a time.
    Text {
        /// Evaluation time.
        at: TimestampMs,
        /// The string.
        text: String,
    },
    /// An instant vector, in the order of the evaluation.
    Vector(Vec<VectorElement>),
    /// Series with points, sorted by labels.
    Matrix(Vec<MatrixSeries>),
}

/// Remarks of an evaluation, already rendered with their positions; each list without repetitions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Annotations {
    /// Texts that start with `PromQL warning: `, or warnings of storage.
    pub warnings: Vec<String>,
    /// Texts that start with `PromQL info: `.
    pub infos: Vec<String>,
}
