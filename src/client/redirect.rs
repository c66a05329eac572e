//! Redirects, as Go's client follows them.

use hyper::header::{CONTENT_TYPE, LOCATION};
use hyper::{Method, StatusCode};
use url::Url;

use crate::client::{Failure, Request, Response};

/// Redirects followed for one request at most.
pub(super) const FOLLOWED_MAX: usize = 10;

/// Where the answer sends the request: `None` when nowhere, an error when the place is no URL.
pub(super) fn target(request: &Request, response: &Response) -> Option<Result<Url, Failure>> {
    let redirects = matches!(response.status.as_u16(), 301 | 302 | 303 | 307 | 308);
    let location = response.headers.get(LOCATION).filter(|_| redirects)?;
    let parsed = location
        .to_str()
        .map_err(|_| Failure::Other("failed to parse Location header: not text".into()))
        .and_then(|text| {
            let joined = request.url.join(text);
            joined.map_err(|e| Failure::Other(format!("failed to parse Location header {text:?}: {e}")))
        })
        .and_then(|url| match url.scheme() {
            "http" | "https" => Ok(url),
            other => Err(Failure::Other(format!("unsupported protocol scheme {other:?}"))),
        });
    Some(parsed)
}

/// The request that follows the redirect. Headers that were meant for the first host do not reach another one, and a POST
/// becomes a GET unless the status says to keep it.
pub(super) fn follow(request: Request, next: Url, status: StatusCode) -> Request {
    let same_host = request.url.host() == next.host()
        && request.url.port_or_known_default() == next.port_or_known_default()
        && request.url.scheme() == next.scheme();
    let keeps_method = matches!(status.as_u16(), 307 | 308) || matches!(request.method, Method::GET | Method::HEAD);
    let mut headers = if same_host { request.headers } else { harmless(request.headers) };
    if keeps_method {
        return Request { method: request.method, url: next, has_usual_port: false, headers, body: request.body };
    }
    headers.retain(|(name, _)| *name != CONTENT_TYPE);
    Request { method: Method::GET, url: next, has_usual_port: false, headers, body: bytes::Bytes::new() }
}

/// What may be sent to any host: how to answer, never who we are. Configured headers are sensitive whatever their name.
fn harmless(
    headers: Vec<(hyper::header::HeaderName, hyper::header::HeaderValue)>,
) -> Vec<(hyper::header::HeaderName, hyper::header::HeaderValue)> {
    let known = ["accept", "accept-encoding", "content-type", "x-prometheus-scrape-timeout-seconds"];
    headers.into_iter().filter(|(name, value)| known.contains(&name.as_str()) && !value.is_sensitive()).collect()
}
