//! When a failed attempt is made again, and what a failure counts as.

use std::time::Duration;

use crate::model::random::Random;

const FIRST: Duration = Duration::from_millis(500);
const FACTOR: f64 = 1.5;
/// Each delay is changed by up to half of it in either direction.
const JITTER: f64 = 0.5;
const MAX: Duration = Duration::from_secs(60);

/// Delays between attempts, counted from the beginning of one to the beginning of the next.
#[derive(Clone, Debug)]
pub struct Backoff {
    random: Random,
    current: Duration,
}

impl Backoff {
    /// Delays with jitter of this source.
    pub fn new(random: Random) -> Self {
        Self { random, current: FIRST }
    }

    /// The delay to the next attempt.
    pub fn next_delay(&mut self) -> Duration {
        let delay = self.current.mul_f64(1.0 - JITTER + 2.0 * JITTER * self.random.next_f64());
        self.current = self.current.mul_f64(FACTOR).min(MAX);
        delay
    }
}

/// What a failed notification counts as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureReason {
    /// None of the others: no connection, a bad URL.
    Other,
    /// The receiver says that it is our fault.
    ClientError,
    /// The receiver says that it is its fault.
    ServerError,
    /// It was given up, as on shutdown.
    ContextCanceled,
    /// There was no time for an attempt.
    ContextDeadlineExceeded,
    /// The receiver does not know us.
    AuthError,
    /// The receiver is told too much.
    RateLimited,
}

impl FailureReason {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Other,
        Self::ClientError,
        Self::ServerError,
        Self::ContextCanceled,
        Self::ContextDeadlineExceeded,
        Self::AuthError,
        Self::RateLimited,
    ];

    /// As it stands in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Other => "other",
            Self::ClientError => "clientError",
            Self::ServerError => "serverError",
            Self::ContextCanceled => "contextCanceled",
            Self::ContextDeadlineExceeded => "contextDeadlineExceeded",
            Self::AuthError => "authError",
            Self::RateLimited => "rateLimited",
        }
    }

    /// What a status counts as.
    pub fn of_status(status: u16) -> Self {
        match status {
            401 | 403 => Self::AuthError,
            429 => Self::RateLimited,
            400..=499 => Self::ClientError,
            500..=599 => Self::ServerError,
            _ => Self::Other,
        }
    }
}

/// An attempt that failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct AttemptError {
    /// What happened; without the URL.
    pub text: String,
    /// Whether another attempt may succeed.
    pub retry: bool,
    /// What it counts as.
    pub reason: FailureReason,
}

/// Judges the answer of a receiver: good for 2xx, worth another attempt for 5xx.
pub fn judge(status: u16, body: &str) -> Result<(), AttemptError> {
    if (200..=299).contains(&status) {
        return Ok(());
    }
    let details = if body.is_empty() { String::new() } else { format!(": {body}") };
    Err(AttemptError {
        text: format!("unexpected status code {status}{details}"),
        retry: (500..=599).contains(&status),
        reason: FailureReason::of_status(status),
    })
}

/// A notification that failed for good: `receiver/webhook[0]: notify retry canceled …`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{integration}: notify retry canceled {}after {attempts} attempts: {text}", if *.unrecoverable { "due to unrecoverable error " } else { "" })]
pub struct NotifyError {
    /// Receiver, kind and number.
    pub integration: String,
    /// Another attempt would have failed as well.
    pub unrecoverable: bool,
    /// Attempts made.
    pub attempts: u32,
    /// The last error.
    pub text: String,
    /// What it counts as.
    pub reason: FailureReason,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_to_a_minute() {
        let mut backoff = Backoff::new(Random::seeded(7));
        let delays: Vec<f64> = (0..20).map(|_| backoff.next_delay().as_secs_f64()).collect();
        let mut middle = 0.5;
        for delay in &delays {
            assert!(middle * 0.5 <= *delay && *delay <= middle * 1.5, "{delays:?}");
            middle = f64::min(middle * 1.5, 60.0);
        }
        let mut again = Backoff::new(Random::seeded(7));
        assert!(delays.iter().all(|delay| again.next_delay().as_secs_f64() == *delay));
    }

    #[test]
    fn answers_are_judged_as_alertmanager_does() {
        assert_eq!(judge(204, "x"), Ok(()));
        let error = |status, body: &str| judge(status, body).unwrap_err();
        assert_eq!(error(500, "oh").to_string(), "unexpected status code 500: oh");
        assert_eq!(error(404, "").to_string(), "unexpected status code 404");
        let kinds = [(503, true, "serverError"), (400, false, "clientError"), (401, false, "authError")];
        for (status, retry, reason) in kinds.into_iter().chain([(429, false, "rateLimited"), (302, false, "other")]) {
            let error = error(status, "");
            assert_eq!((error.retry, error.reason.as_str()), (retry, reason), "{status}");
        }
        let mut failed = NotifyError {
            integration: "team/webhook[0]".to_owned(),
            unrecoverable: true,
            attempts: 1,
            text: "unexpected status code 400".to_owned(),
            reason: FailureReason::ClientError,
        };
        let text = "notify retry canceled due to unrecoverable error after 1 attempts: unexpected status code 400";
        assert_eq!(failed.to_string(), format!("team/webhook[0]: {text}"));
        failed.unrecoverable = false;
        assert_eq!(
            failed.to_string(),
            "team/webhook[0]: notify retry canceled after 1 attempts: unexpected status code 400"
        );
    }
}
