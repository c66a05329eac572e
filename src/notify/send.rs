//! One notification on the wire.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use url::Url;

use crate::client::header::HeaderValue;
use crate::client::{ClientError, HttpClient, Request};

/// How much of an answer is read so that its connection can be used again; longer ones close it.
const ANSWER_LEN_MAX: usize = 64 * 1024;

/// Why alerts were not delivered.
#[derive(Debug, thiserror::Error)]
pub enum SendFailure {
    /// No answer.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// An answer other than 2xx.
    #[error("bad response status {0}")]
    Status(String),
}

/// Posts `body` and waits for the answer, both by `deadline`.
pub async fn post(client: &HttpClient, url: &Url, body: Bytes, deadline: Instant) -> Result<(), SendFailure> {
    let request = Request::post(url.clone(), HeaderValue::from_static("application/json"), body);
    let mut response = client.send(request, deadline).await?;
    // What the answer says is of no use; a failure in its body changes nothing about its status.
    let _ = response.body.excerpt(ANSWER_LEN_MAX).await;
    if response.status.is_success() { Ok(()) } else { Err(SendFailure::Status(response.status_text())) }
}

/// When a request that begins now has to be answered.
pub fn deadline(timeout: Duration, drain: Option<Instant>) -> Instant {
    let own = Instant::now() + timeout;
    drain.map_or(own, |drain| own.min(drain))
}
