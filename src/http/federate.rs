//! `/federate`: the newest samples of selected series, for other servers to scrape.

use actix_web::http::StatusCode;
use actix_web::web;

use crate::exposition::delimited;
use crate::exposition::federation::encode_newest;
use crate::exposition::negotiate::{Written, negotiate};
use crate::http::error::{ApiError, ErrorKind};
use crate::http::request::Context;
use crate::http::response::Response;

/// `GET /federate`. Several `match[]` select the union; without one the answer is empty.
pub(super) async fn federate(context: Context) -> Result<Response, ApiError> {
    let mut selectors = Vec::new();
    for text in context.params.all("match[]") {
        match context.state.ports.parse_selector(text) {
            // One that asks for nothing selects nothing, as in Prometheus.
            Ok(matchers) if matchers.is_empty() => {}
            Ok(matchers) => selectors.push(matchers),
            Err(error) => return Ok(Response::error(StatusCode::BAD_REQUEST, &error)),
        }
    }
    let negotiated = negotiate(context.accept.as_deref());
    let newest = match context.state.ports.newest(selectors).await {
        Ok(newest) => newest,
        Err(error) => {
            context.state.metrics.federation_errors.inc();
            let status = match error.kind {
                ErrorKind::Timeout => StatusCode::SERVICE_UNAVAILABLE,
                _ => StatusCode::INTERNAL_SERVER_ERROR,
            };
            return Ok(Response::error(status, &error.message));
        }
    };
    // The worker's thread is shared with other requests, and the answer may be large.
    let encoded = web::block(move || {
        let (samples, external) = (&newest.samples, &newest.external_labels);
        let body = match negotiated.format {
            Written::Delimited => delimited::encode_newest(samples, external, negotiated.escaping),
            _ => encode_newest(samples, external, &negotiated).into_bytes(),
        };
        Response::ok(&negotiated.content_type, body)
    });
    encoded.await.map_err(|error| ApiError::internal(format!("cannot write the answer: {error}")))
}
