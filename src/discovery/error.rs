//! Why a source of target groups could not be looked at.

use crate::client::{ClientError, Failure};
use crate::config::target_groups::TargetGroupError;

/// Why a look failed. Texts that Prometheus has are its own.
#[derive(Debug, thiserror::Error)]
pub enum LookError {
    /// No answer.
    #[error(transparent)]
    Request(#[from] ClientError),
    /// The answer broke off.
    #[error(transparent)]
    Body(#[from] Failure),
    /// The answer is a refusal.
    #[error("server returned HTTP status {status}{}", after(excerpt))]
    Status {
        /// Code and reason.
        status: String,
        /// The code alone.
        code: u16,
        /// The beginning of what the server said.
        excerpt: String,
    },
    /// The answer is longer than we read.
    #[error("the answer is longer than {limit} bytes")]
    TooLong {
        /// The limit.
        limit: usize,
    },
    /// The answer is not of the type that was asked for.
    #[error("unsupported content type {0:?}")]
    ContentType(String),
    /// The answer is not what was asked for.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    /// The answer holds no target groups.
    #[error(transparent)]
    Groups(#[from] TargetGroupError),
    /// Something that was needed on the way failed.
    #[error("{what}: {source}")]
    While {
        /// What was being done.
        what: &'static str,
        /// Why it failed.
        #[source]
        source: Box<LookError>,
    },
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

fn after(excerpt: &str) -> String {
    if excerpt.is_empty() { String::new() } else { format!(": {excerpt}") }
}

impl LookError {
    /// Says what was being done.
    pub(super) fn during(self, what: &'static str) -> Self {
        Self::While { what, source: Box::new(self) }
    }

    /// The code of the answer that refused, if one did.
    pub(super) fn status_code(&self) -> Option<u16> {
        match self {
            Self::Status { code, .. } => Some(*code),
            Self::While { source, .. } => source.status_code(),
            _ => None,
        }
    }
}
