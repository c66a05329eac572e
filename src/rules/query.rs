//! What a rule asks of its surroundings. The query gateway answers within its limits of time, samples and memory.

use crate::model::labels::Labels;
use crate::model::matcher::Matcher;
use crate::model::result::{QueryValue, VectorElement};
use crate::model::sample::Sample;
use crate::model::time::{TimeRange, TimestampMs};
use crate::promql::eval::Charge;
use crate::rules::RuleError;

/// Why a query has no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct QueryError {
    /// The engine's text.
    pub text: String,
    /// Somebody ended it on purpose.
    pub canceled: bool,
}

/// The result of an instant query.
pub struct Queried {
    /// Its value.
    pub value: QueryValue,
    /// What the value holds of the query's memory.
    pub held: Charge,
}

/// Queries on behalf of one rule, synchronous, on the caller's thread.
pub trait RuleQueries {
    /// Evaluates an expression at one time.
    fn instant(&self, expr: &str, at: TimestampMs) -> Result<Queried, QueryError>;

    /// The newest sample in the range of each series that fulfils all matchers and has one.
    fn newest(&self, matchers: &[Matcher], range: TimeRange) -> Result<Vec<(Labels, Sample)>, QueryError>;
}

/// The elements of a vector; a scalar is one element without labels. Anything else is no result of a rule.
pub(crate) fn elements(value: QueryValue) -> Result<Vec<VectorElement>, RuleError> {
    match value {
        QueryValue::Vector(elements) => Ok(elements),
        QueryValue::Scalar(point) => Ok(vec![VectorElement { labels: Labels::empty(), point, histogram: None }]),
        QueryValue::Text { .. } | QueryValue::Matrix(_) => {
            let text = "rule result is not a vector or scalar".to_owned();
            Err(QueryError { text, canceled: false }.into())
        }
    }
}
