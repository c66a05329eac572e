//! What a request can fail with. The only place that pairs an `errorType` with a status.

use actix_web::http::StatusCode;

use crate::model::go;

/// The class of a failure, which decides `errorType` and status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The request makes no sense.
    BadData,
    /// The query failed while it ran.
    Execution,
    /// The client has gone away.
    Canceled,
    /// Time or room ran out; asking again later may help.
    Timeout,
    /// Storage or we ourselves failed.
    Internal,
    /// The endpoint is switched off or not there yet. Prometheus answers 500 here, not 503.
    Unavailable,
    /// There is no such thing.
    NotFound,
    /// The `Accept` header cannot be met.
    NotAcceptable,
    /// Switched off by a flag; on our own endpoints alone.
    Forbidden,
}

impl ErrorKind {
    /// The `errorType` of the envelope.
    pub fn name(self) -> &'static str {
        self.pair().0
    }

    /// The status of the answer.
    pub fn status(self) -> StatusCode {
        StatusCode::from_u16(self.pair().1).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    fn pair(self) -> (&'static str, u16) {
        match self {
            Self::BadData => ("bad_data", 400),
            Self::Execution => ("execution", 422),
            Self::Canceled => ("canceled", 499),
            Self::Timeout => ("timeout", 503),
            Self::Internal => ("internal", 500),
            Self::Unavailable => ("unavailable", 500),
            Self::NotFound => ("not_found", 404),
            Self::NotAcceptable => ("not_acceptable", 406),
            Self::Forbidden => ("forbidden", 403),
        }
    }
}

/// A failure with the text that the client reads.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {message}", .kind.name())]
pub struct ApiError {
    /// Its class.
    pub kind: ErrorKind,
    /// The text, without the class.
    pub message: String,
}

impl ApiError {
    /// A failure of any class.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// A request that makes no sense.
    pub fn bad_data(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::BadData, message)
    }

    /// A parameter that makes no sense; ports report queries that do not parse this way, with the name `query`.
    pub fn invalid_parameter(name: &str, reason: impl std::fmt::Display) -> Self {
        Self::bad_data(format!("invalid parameter {}: {reason}", go::quote(name)))
    }

    /// A query that failed while it ran.
    pub fn execution(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Execution, message)
    }

    /// Time or room ran out.
    pub fn timeout(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Timeout, message)
    }

    /// The client has gone away.
    pub fn canceled(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Canceled, message)
    }

    /// Storage or we ourselves failed.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, message)
    }

    /// The endpoint is switched off or not there yet.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unavailable, message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_those_of_prometheus() {
        for (kind, name, status) in [
            (ErrorKind::BadData, "bad_data", 400),
            (ErrorKind::Execution, "execution", 422),
            (ErrorKind::Canceled, "canceled", 499),
            (ErrorKind::Timeout, "timeout", 503),
            (ErrorKind::Internal, "internal", 500),
            (ErrorKind::Unavailable, "unavailable", 500),
            (ErrorKind::NotFound, "not_found", 404),
            (ErrorKind::NotAcceptable, "not_acceptable", 406),
        ] {
            assert_eq!((kind.name(), kind.status().as_u16()), (name, status));
        }
        let error = ApiError::invalid_parameter("step", "no");
        assert_eq!(error.message, "invalid parameter \"step\": no");
    }
}
