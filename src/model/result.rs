//! What a query yields, between the engine that makes it and the edges that render it.

use std::sync::Arc;

use crate::model::histogram::FloatHistogram;
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

/// One evaluated histogram.
#[derive(Clone, Debug, PartialEq)]
pub struct HistogramPoint {
    /// As of a [`Point`].
    pub at: TimestampMs,
    /// The value.
    pub histogram: Arc<FloatHistogram>,
}

/// One element of an instant vector.
#[derive(Clone, Debug, PartialEq)]
pub struct VectorElement {
    /// Its labels.
    pub labels: Labels,
    /// Its point; the value is NaN for a histogram.
    pub point: Point,
    /// The value, if it is a histogram.
    pub histogram: Option<Arc<FloatHistogram>>,
}

/// One series of a range result.
#[derive(Clone, Debug, PartialEq)]
pub struct MatrixSeries {
    /// Its labels.
    pub labels: Labels,
    /// Its floats, by time.
    pub points: Vec<Point>,
    /// Its histograms, by time.
    pub histograms: Vec<HistogramPoint>,
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
