//! The body of a request, read within bounds of size and time.

use std::sync::Arc;
use std::time::Duration;

use actix_web::HttpRequest;
use actix_web::http::StatusCode;
use actix_web::web::Payload;
use futures::StreamExt;

use crate::http::connections::Client;
use crate::http::dispatch::Bounds;
use crate::http::response::Response;
use crate::remote::receive::budget::{Budget, Held};

/// Bytes for which room is made ahead on a client's word.
const AHEAD_LEN_MAX: usize = 64 << 10;

/// A body that was not read yet, for handlers that take others than forms.
pub(super) struct Body {
    pub(super) content_encoding: Option<String>,
    pub(super) content_type: Option<String>,
    /// `None` for a form: its parameters were read.
    pub(super) reader: Option<BodyReader>,
}

/// Reads a body once.
pub(super) struct BodyReader {
    payload: Payload,
    len_max: usize,
    timeout: Duration,
    announced_len: usize,
    budget: Arc<Budget>,
    /// Who sends it.
    client: Option<Client>,
}

impl BodyReader {
    pub(super) fn new(request: &HttpRequest, payload: Payload, bounds: &Bounds) -> Self {
        let announced = request.headers().get("Content-Length").and_then(|value| value.to_str().ok()?.parse().ok());
        Self {
            payload,
            len_max: bounds.body_len_max,
            timeout: bounds.read_timeout,
            announced_len: announced.unwrap_or(0),
            budget: Arc::clone(&bounds.bodies),
            client: Client::of(request),
        }
    }

    /// Reads all of it, with its share of what bodies may take together, which is to be kept as long as what was read.
    pub(super) async fn read_all(self) -> Result<(Vec<u8>, Held), Response> {
        let mut held = self.budget.permit();
        let read = self.read(|len| held.add(len as u64)).await?;
        let body = read.map_err(|_| {
            let text = "bodies of requests hold twice --watchfire.limit.http.body, all that they may take";
            Response::error(StatusCode::SERVICE_UNAVAILABLE, text)
        })?;
        Ok((body, held))
    }

    /// Reads all of it. `take` is told the length of each piece before it is kept, and may refuse it: that ends the reading.
    /// The outer error is the answer to a body that is too long, too slow or cut off.
    pub(super) async fn read<E>(
        mut self,
        mut take: impl FnMut(usize) -> Result<(), E>,
    ) -> Result<Result<Vec<u8>, E>, Response> {
        let too_long = || {
            let text = "request body exceeds --watchfire.limit.http.body";
            Response::error(StatusCode::PAYLOAD_TOO_LARGE, text)
        };
        if self.len_max < self.announced_len {
            return Err(too_long());
        }
        let read = async {
            let _waiting = self.client.as_ref().map(Client::wait);
            let mut body = Vec::with_capacity(self.announced_len.min(AHEAD_LEN_MAX));
            while let Some(chunk) = self.payload.next().await {
                let chunk =
                    chunk.map_err(|_| Response::error(StatusCode::BAD_REQUEST, "cannot read the request's body"))?;
                if self.len_max < body.len() + chunk.len() {
                    return Err(too_long());
                }
                if let Err(refusal) = take(chunk.len()) {
                    return Ok(Err(refusal));
                }
                body.extend_from_slice(&chunk);
            }
            Ok(Ok(body))
        };
        let late = |_| Response::error(StatusCode::REQUEST_TIMEOUT, "request body took longer than --web.read-timeout");
        tokio::time::timeout(self.timeout, read).await.map_err(late)?
    }
}
