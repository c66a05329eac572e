//! Why an evaluation ended without a result. The texts that clients see are Prometheus's.

use crate::model::read::ReadError;

/// Where a query was when it was stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Before the first operator ran.
    Execution,
    /// Inside an operator.
    Evaluation,
}

impl std::fmt::Display for Phase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Execution => "query execution",
            Self::Evaluation => "expression evaluation",
        })
    }
}

/// Errors of an evaluation, by the error type that the API gives them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EvalError {
    /// The expression cannot be run as asked (`bad_data`).
    #[error("{0}")]
    BadQuery(String),
    /// The client has gone away (`canceled`).
    #[error("query was canceled in {0}")]
    Canceled(Phase),
    /// The deadline has passed (`timeout`).
    #[error("query timed out in {0}")]
    Timeout(Phase),
    /// More samples at once than `--query.max-samples` (`execution`).
    #[error("query processing would load too many samples into memory in query execution")]
    TooManySamples,
    /// More memory than the query or all queries may hold (`execution`); the text names limit and flag.
    #[error("{0}")]
    Budget(String),
    /// Series could not be selected (`execution`).
    #[error("expanding series: {0}")]
    Select(ReadError),
    /// Samples could not be read (`execution`).
    #[error("{0}")]
    Decode(ReadError),
    /// The data does not allow the operation (`execution`).
    #[error("{0}")]
    Execution(String),
}

impl EvalError {
    /// The error that Prometheus gives when two elements of a vector have the same labels.
    pub(crate) fn same_labelset() -> Self {
        Self::Execution("vector cannot contain metrics with the same labelset".to_owned())
    }

    /// A label set that the encoding cannot hold.
    pub(crate) fn label_too_long() -> Self {
        Self::Execution("label too long to encode".to_owned())
    }
}
