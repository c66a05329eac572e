//! All outgoing HTTP: scrapes, notifications, discovery. The only user of hyper.
//!
//! A [`HttpClient`] keeps connections alive and shares them among its clones. A request ends at its deadline wherever it
//! is: name lookup, connect, TLS, waiting for the head, or in the middle of the body. Error texts are those of Go's
//! `net/http`, which users of Prometheus know from the targets page.

mod connect;
mod credentials;
mod error;
mod redirect;
pub mod sigv4;
mod unix;
mod userinfo;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use hyper::{Method, StatusCode, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::capture_connection;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::time::{Instant, timeout_at};
use url::Url;

pub use credentials::Credentials;
pub use error::{ClientError, Failure};
/// Names and values of headers, for those who make requests.
pub use hyper::header;
pub use unix::UnixClient;

use crate::config::http_client::HttpClientConfig;
use connect::{Connector, History};

/// An idle connection is closed after this long, as in Prometheus.
const IDLE_TIMEOUT: Duration = Duration::from_secs(5 * 60);
/// Idle connections kept for each host, as in Prometheus.
const IDLE_PER_HOST_MAX: usize = 1000;
/// Largest head of an answer; also the size of a connection's read buffer at most.
const HEAD_LEN_MAX: usize = 64 * 1024;
/// Headers of an answer at most: as many of the shortest, `a:` and a line end, as fit its head.
const HEADERS_MAX: usize = HEAD_LEN_MAX / 4;

/// How a client behaves.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// Sent with every request.
    pub user_agent: String,
    /// Whether redirects are followed (10 at most).
    pub follow_redirects: bool,
}

/// A request. `headers` and the userinfo of `url` are sent to its host alone: a redirect to another host leaves them out.
/// Userinfo becomes basic authentication unless `headers` hold an `Authorization`, as in Go.
#[derive(Clone, Debug)]
pub struct Request {
    /// The method.
    pub method: Method,
    /// Where to.
    pub url: Url,
    /// Headers beside the user agent.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The body; empty for none.
    pub body: Bytes,
}

impl Request {
    /// A GET without headers of its own.
    pub fn get(url: Url) -> Self {
        Self { method: Method::GET, url, headers: Vec::new(), body: Bytes::new() }
    }

    /// A PUT without a body.
    pub fn put(url: Url) -> Self {
        Self { method: Method::PUT, url, headers: Vec::new(), body: Bytes::new() }
    }

    /// A POST of `body`.
    pub fn post(url: Url, content_type: HeaderValue, body: Bytes) -> Self {
        Self { method: Method::POST, url, headers: vec![(hyper::header::CONTENT_TYPE, content_type)], body }
    }
}

/// The head of an answer, and its body to be read.
#[derive(Debug)]
pub struct Response {
    /// Status code and reason.
    pub status: StatusCode,
    /// Headers.
    pub headers: HeaderMap,
    /// The body, chunk by chunk.
    pub body: ResponseBody,
}

impl Response {
    /// `503 Service Unavailable`, as Go prints a status.
    pub fn status_text(&self) -> String {
        match self.status.canonical_reason() {
            Some(reason) => format!("{} {reason}", self.status.as_u16()),
            None => self.status.as_u16().to_string(),
        }
    }
}

/// The body of an answer. Dropping it early closes the connection.
#[derive(Debug)]
pub struct ResponseBody {
    incoming: Incoming,
    deadline: Instant,
}

impl ResponseBody {
    /// The next piece as it came from the wire, `None` at the end. Errors at the deadline and when the peer breaks off.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, Failure> {
        loop {
            let frame = timeout_at(self.deadline, self.incoming.frame()).await.map_err(|_| Failure::Deadline)?;
            match frame {
                None => return Ok(None),
                Some(Err(error)) => return Err(Failure::of_body(&error)),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                    // Trailers are of no use to us.
                }
            }
        }
    }

    /// Reads at most `len_max` bytes and drops the rest; for error texts of a peer.
    pub async fn excerpt(&mut self, len_max: usize) -> Result<Vec<u8>, Failure> {
        let mut text = Vec::new();
        while text.len() < len_max {
            let Some(chunk) = self.chunk().await? else { break };
            let room = len_max - text.len();
            text.extend_from_slice(chunk.get(..room).unwrap_or(&chunk));
        }
        Ok(text)
    }
}

/// Makes requests; clones share connections.
#[derive(Clone)]
pub struct HttpClient {
    inner: Client<Connector, Full<Bytes>>,
    options: Arc<ClientOptions>,
    credentials: Credentials,
}

impl HttpClient {
    /// A client with its own connections and without credentials.
    pub fn new(options: ClientOptions) -> Self {
        Self::with_credentials(options, Credentials::none())
    }

    /// A client as a configuration says: redirects, credentials, headers. TLS settings, proxies and OAuth 2 are not looked
    /// at; a configuration with them must have been refused before.
    pub fn from_config(user_agent: String, config: &HttpClientConfig) -> Self {
        let options = ClientOptions { user_agent, follow_redirects: config.follow_redirects };
        Self::with_credentials(options, Credentials::from_config(config))
    }

    /// A client with its own connections that adds `credentials` to each request, for the request's own host alone.
    pub fn with_credentials(options: ClientOptions, credentials: Credentials) -> Self {
        let inner = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(IDLE_PER_HOST_MAX)
            .http1_max_buf_size(HEAD_LEN_MAX)
            .http1_max_headers(HEADERS_MAX)
            .build(connect::connector());
        Self { inner, options: Arc::new(options), credentials }
    }

    /// Sends the request and waits for the head of the answer; the body must be read by the same deadline.
    pub async fn send(&self, request: Request, deadline: Instant) -> Result<Response, ClientError> {
        let mut hop = request;
        let added = self.credentials.add_to(&mut hop, deadline).await;
        added.map_err(|failure| ClientError::new(&hop, failure))?;
        for followed in 0.. {
            let response = self.hop(&hop, deadline).await.map_err(|failure| ClientError::new(&hop, failure))?;
            if !self.options.follow_redirects {
                return Ok(response);
            }
            let Some(next) = redirect::target(&hop, &response) else { return Ok(response) };
            if followed == redirect::FOLLOWED_MAX {
                return Err(ClientError::new(&hop, Failure::TooManyRedirects));
            }
            let next = next.map_err(|failure| ClientError::new(&hop, failure))?;
            hop = redirect::follow(hop, next, response.status);
        }
        unreachable!("the loop ends at the limit of redirects")
    }

    /// One request and its answer. A request that may be repeated is sent once more when an idle connection turns out to
    /// have been closed by the peer, as Go does: the peer's idle timeout often equals the scrape interval.
    async fn hop(&self, request: &Request, deadline: Instant) -> Result<Response, Failure> {
        let repeatable = request.method == Method::GET || request.method == Method::HEAD;
        match self.exchange(request, deadline).await {
            Err((Failure::Eof, true)) if repeatable => {
                self.exchange(request, deadline).await.map_err(|(failure, _)| failure)
            }
            exchanged => exchanged.map_err(|(failure, _)| failure),
        }
    }

    /// The answer, or the failure and whether the connection had answered before.
    async fn exchange(&self, request: &Request, deadline: Instant) -> Result<Response, (Failure, bool)> {
        let mut message = self.message(request).map_err(|failure| (failure, false))?;
        let captured = capture_connection(&mut message);
        let answered = timeout_at(deadline, self.inner.request(message)).await;
        // What the connection remembers of itself goes with it, so churning targets leave nothing behind.
        let history = captured.connection_metadata().as_ref().and_then(|connected| {
            let mut extras = hyper::http::Extensions::new();
            connected.get_extras(&mut extras);
            extras.remove::<History>()
        });
        match answered {
            Err(_) => Err((Failure::Deadline, false)),
            Ok(Err(error)) => {
                let reused = history.is_some_and(|history| history.has_answered());
                Err((Failure::of_request(&error, &request.url), reused))
            }
            Ok(Ok(answer)) => {
                if let Some(history) = history {
                    history.answered();
                }
                let (head, incoming) = answer.into_parts();
                let body = ResponseBody { incoming, deadline };
                Ok(Response { status: head.status, headers: head.headers, body })
            }
        }
    }

    fn message(&self, request: &Request) -> Result<hyper::Request<Full<Bytes>>, Failure> {
        let invalid = |text: String| Failure::Other(text);
        let mut url = request.url.clone();
        url.set_fragment(None);
        // Userinfo belongs into a header; it is never sent as part of the target.
        let _ = url.set_username("");
        let _ = url.set_password(None);
        let uri: Uri = url.as_str().parse().map_err(|e: hyper::http::uri::InvalidUri| invalid(e.to_string()))?;
        let mut message = hyper::Request::new(Full::new(request.body.clone()));
        *message.method_mut() = request.method.clone();
        *message.uri_mut() = uri;
        for (name, value) in &request.headers {
            message.headers_mut().append(name.clone(), value.clone());
        }
        if !message.headers().contains_key(AUTHORIZATION)
            && let Some(basic) = userinfo::basic_auth(&request.url)
        {
            message.headers_mut().insert(AUTHORIZATION, basic);
        }
        let agent = HeaderValue::from_str(&self.options.user_agent).map_err(|e| invalid(e.to_string()))?;
        message.headers_mut().entry(USER_AGENT).or_insert(agent);
        Ok(message)
    }
}

impl std::fmt::Debug for HttpClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HttpClient").field("options", &self.options).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
