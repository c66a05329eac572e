//! One attempt to deliver a message to a webhook.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, timeout};
use url::Url;

use crate::alertmanager::retry::{AttemptError, FailureReason, judge};
use crate::client::header::HeaderValue;
use crate::client::{Failure, HttpClient, Request};
use crate::model::go_time;

/// What is read of an answer; its text stands in errors.
const ANSWER_LEN_MAX: usize = 64 * 1024;
/// How long a good answer's body is waited for, so that the connection can be used again.
const GOOD_BODY_WITHIN: Duration = Duration::from_secs(1);

/// Sends `body` and judges the answer. `limit` bounds this attempt, `deadline` all of them. Errors do not show the URL.
pub async fn post(
    client: &HttpClient,
    to: Url,
    body: Bytes,
    limit: Option<Duration>,
    deadline: Instant,
) -> Result<(), AttemptError> {
    let own = limit.map(|limit| Instant::now() + limit).filter(|own| *own < deadline);
    let request = Request::post(to, HeaderValue::from_static("application/json"), body);
    let failed = |failure: &Failure| {
        let text = match (failure, own, limit) {
            (Failure::Deadline, Some(_), Some(limit)) => {
                let nanos = i64::try_from(limit.as_nanos()).unwrap_or(i64::MAX);
                format!("configured webhook timeout reached ({})", go_time::format_duration(nanos))
            }
            (failure, _, _) => failure.to_string(),
        };
        AttemptError { text: format!("Post \"<redacted>\": {text}"), retry: true, reason: FailureReason::Other }
    };
    let sent = client.send(request, own.unwrap_or(deadline)).await;
    let mut answer = sent.map_err(|error| failed(&error.failure))?;
    let reading = answer.body.excerpt(ANSWER_LEN_MAX);
    if answer.status.is_success() {
        // Whatever becomes of the body: the message was taken.
        let _ = timeout(GOOD_BODY_WITHIN, reading).await;
        return Ok(());
    }
    let text = reading.await.unwrap_or_default();
    judge(answer.status.as_u16(), &String::from_utf8_lossy(&text))
}
