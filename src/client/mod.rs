//! All outgoing HTTP: scrapes, notifications, discovery. The only user of hyper.
//!
//! ```text
//! Request ─ credentials (oauth2 fetches tokens) ─ hop ─ connect: proxy? tunnel? tls? ─ hyper
//!                                                  └ redirect: the next hop, without secrets on another host
//! ```
//! A [`HttpClient`] keeps connections alive and shares them among its clones. A request ends at its deadline wherever it
//! is: name lookup, connect, TLS, waiting for the head, or in the middle of the body. Error texts are those of Go's
//! `net/http`, which users of Prometheus know from the targets page.

mod base64;
pub mod cloud;
mod connect;
mod credentials;
mod dialer;
mod error;
mod first_bytes;
mod jwt;
mod no_proxy;
mod oauth2;
mod proxy;
mod redirect;
mod resolve;
pub mod sigv4;
mod source;
mod tls;
mod transport;
mod tunnel;
mod unix;
mod userinfo;
mod watched;
mod wire;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::ext::ReasonPhrase;
use hyper::header::{AUTHORIZATION, HOST, HeaderMap, HeaderName, HeaderValue, PROXY_AUTHORIZATION, USER_AGENT};
use hyper::{Method, StatusCode, Uri};
use hyper_util::client::legacy::connect::capture_connection;
use tokio::time::{Instant, timeout_at};
use url::Url;

pub use credentials::Credentials;
pub use error::{ClientError, Failure};
/// Names and values of headers, for those who make requests.
pub use hyper::header;
pub use proxy::ProxyEnvironment;
pub use unix::UnixClient;

use crate::config::http_client::{HttpClientConfig, TlsConfig};
use crate::model::go;
use crate::telemetry::metrics::Registry;
use connect::History;
use oauth2::OAuth2;
use proxy::ProxyRules;
use tls::TlsSettings;
use transport::{Connections, Room, Transport};

/// An idle connection is closed after this long, as in Prometheus.
const IDLE_TIMEOUT: Duration = Duration::from_secs(5 * 60);
/// Idle connections kept for each host, as in Prometheus.
const IDLE_PER_HOST_MAX: usize = 1000;
/// Largest head of an answer; also the size of a connection's read buffer at most.
const HEAD_LEN_MAX: usize = 64 * 1024;
/// Headers of an answer at most: as many of the shortest, `a:` and a line end, as fit its head.
const HEADERS_MAX: usize = HEAD_LEN_MAX / 4;
/// Headers for which there is room at first: hyper clears 48 bytes for each whenever an answer comes.
const USUAL_HEADERS_MAX: usize = 128;
/// The same for an answer of HTTP/2.
const HTTP2_HEAD_LEN_MAX: u32 = 64 * 1024;
/// What a peer may send ahead on a stream of HTTP/2, in bytes.
const STREAM_WINDOW: u32 = 256 * 1024;
/// What a peer may send ahead on all streams of a connection.
const WINDOW: u32 = 1024 * 1024;
/// A connection of HTTP/2 on which nothing came for this long is asked whether it lives, as in Prometheus.
const PING_AFTER: Duration = Duration::from_secs(60);

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
    /// The URL was written with the port that its scheme has anyway, which is then said to the peer and in errors.
    pub has_usual_port: bool,
    /// Headers beside the user agent.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The body; empty for none.
    pub body: Bytes,
}

impl Request {
    /// A GET without headers of its own.
    pub fn get(url: Url) -> Self {
        Self { method: Method::GET, url, has_usual_port: false, headers: Vec::new(), body: Bytes::new() }
    }

    /// A PUT without a body.
    pub fn put(url: Url) -> Self {
        Self { method: Method::PUT, ..Self::get(url) }
    }

    /// A POST of `body`.
    pub fn post(url: Url, content_type: HeaderValue, body: Bytes) -> Self {
        Self {
            method: Method::POST,
            headers: vec![(hyper::header::CONTENT_TYPE, content_type)],
            body,
            ..Self::get(url)
        }
    }
}

/// The head of an answer, and its body to be read.
#[derive(Debug)]
pub struct Response {
    /// Status code.
    pub status: StatusCode,
    /// The reason as the peer words it, where that is not the usual one.
    reason: Option<ReasonPhrase>,
    /// Headers.
    pub headers: HeaderMap,
    /// The body, chunk by chunk.
    pub body: ResponseBody,
}

impl Response {
    /// `503 Service Unavailable`, as Go prints a status: in the words of the peer.
    pub fn status_text(&self) -> String {
        let own = self.reason.as_ref().map(|reason| String::from_utf8_lossy(reason.as_bytes()));
        let reason = own.as_deref().or_else(|| self.status.canonical_reason()).unwrap_or("");
        format!("{} {reason}", self.status.as_u16()).trim_end().to_owned()
    }

    fn new(head: hyper::http::response::Parts, body: ResponseBody) -> Self {
        let reason = head.extensions.get::<ReasonPhrase>().cloned();
        Self { status: head.status, reason, headers: head.headers, body }
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

/// The words that belong to a status code; empty for one that has none.
pub fn status_reason(status: u16) -> &'static str {
    StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason()).unwrap_or("")
}

/// Shows the counters of a dialer that has made no connection yet.
pub fn show_dialer(registry: &Registry, dialer: &str) {
    dialer::DialerMetrics::new(registry, dialer);
}

/// Signs requests before they are sent.
pub trait Signer: Send + Sync {
    /// Adds the headers that carry the signature; credentials may be fetched for it until the deadline.
    fn sign<'a>(&'a self, request: &'a mut Request, deadline: Instant) -> BoxFuture<'a, Result<(), Failure>>;
}

/// Makes requests; clones share connections.
#[derive(Clone)]
pub struct HttpClient {
    transport: Transport,
    options: Arc<ClientOptions>,
    credentials: Credentials,
    signer: Option<Arc<dyn Signer>>,
}

impl HttpClient {
    /// A client with its own connections, without credentials and without a proxy.
    pub fn new(options: ClientOptions) -> Self {
        let tls = TlsSettings::new(&TlsConfig::default(), true);
        Self::with_parts(options, Credentials::none(), ProxyRules::default(), tls)
    }

    /// A client as a configuration says: redirects, credentials, headers, tokens, proxies, TLS. What is wrong with files or
    /// URLs in it shows at each request, until it is right.
    pub fn from_config(user_agent: String, config: &HttpClientConfig) -> Self {
        Self::from_config_in(user_agent, config, ProxyEnvironment::of_process())
    }

    /// The same with another environment than that of the process.
    pub fn from_config_in(user_agent: String, config: &HttpClientConfig, environment: &ProxyEnvironment) -> Self {
        let oauth2 = config.oauth2.as_ref().map(|oauth2| OAuth2::new(&user_agent, oauth2, environment));
        let options = ClientOptions { user_agent, follow_redirects: config.follow_redirects };
        let credentials = Credentials::from_config(config, oauth2);
        let tls = TlsSettings::new(&config.tls_config, config.enable_http2);
        Self::with_parts(options, credentials, ProxyRules::new(&config.proxy, environment), tls)
    }

    /// The same client with connections of its own, all over one socket of the machine: whatever host a URL names, the
    /// program at the socket is asked. Credentials and tokens are shared.
    pub fn over_unix_socket(&self, path: &str) -> Self {
        Self { transport: self.transport.over_unix_socket(path), ..self.clone() }
    }

    fn with_parts(options: ClientOptions, credentials: Credentials, proxies: ProxyRules, tls: TlsSettings) -> Self {
        let transport = Transport::new(proxies, tls, options.user_agent.clone());
        Self { transport, options: Arc::new(options), credentials, signer: None }
    }

    /// The same client, whose requests are signed.
    #[must_use]
    pub fn signed_by(self, signer: Arc<dyn Signer>) -> Self {
        Self { signer: Some(signer), ..self }
    }

    /// The same client with connections of its own, spread over all addresses of a host.
    #[must_use]
    pub fn spread_over_addresses(&self) -> Self {
        Self { transport: self.transport.spread(), ..self.clone() }
    }

    /// Counts the connections of this client and its clones as those of `dialer`. Only the first call has an effect.
    pub fn count_connections(&self, registry: &Registry, dialer: &str) {
        self.transport.count_connections(registry, dialer);
    }

    /// Sends the request and waits for the head of the answer; the body must be read by the same deadline.
    pub async fn send(&self, request: Request, deadline: Instant) -> Result<Response, ClientError> {
        let mut hop = request;
        if let Some(signer) = &self.signer {
            let signed = signer.sign(&mut hop, deadline).await;
            signed.map_err(|failure| ClientError::new(&hop, failure))?;
        }
        let added = self.credentials.add_to(&mut hop, deadline).await;
        added.map_err(|failure| ClientError::new(&hop, failure))?;
        for followed in 0.. {
            let response = self.hop(&hop, deadline).await.map_err(|failure| ClientError::new(&hop, failure))?;
            if !self.options.follow_redirects {
                return Ok(response);
            }
            let Some(next) = redirect::target(&hop, &response) else { return Ok(response) };
            if followed == redirect::FOLLOWED_MAX {
                return Err(ClientError::too_often(&hop, &response));
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
        // An answer with more headers than usual is asked for again, where that changes nothing, and with room for all from then on.
        let mut room = if repeatable { self.transport.room() } else { Room::Most };
        let mut may_repeat = repeatable;
        loop {
            let connections = self.transport.connections(room, deadline).await?;
            match self.exchange(&connections, request, deadline).await {
                Err((Failure::Eof | Failure::Broken(_), true)) if may_repeat => may_repeat = false,
                Err((Failure::HeadTooLarge, _)) if room == Room::Usual => {
                    self.transport.widen();
                    room = Room::Most;
                }
                exchanged => return exchanged.map_err(|(failure, _)| failure),
            }
        }
    }

    /// The answer, or the failure and whether the connection had answered before.
    async fn exchange(
        &self,
        connections: &Connections,
        request: &Request,
        deadline: Instant,
    ) -> Result<Response, (Failure, bool)> {
        let mut message = self.message(request).map_err(|failure| (failure, false))?;
        let captured = capture_connection(&mut message);
        let answered = timeout_at(deadline, connections.request(message)).await;
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
                Err((Failure::of_request(&error), reused))
            }
            Ok(Ok(answer)) => {
                if let Some(history) = history {
                    history.answered();
                }
                let (head, incoming) = answer.into_parts();
                let body = ResponseBody { incoming, deadline };
                Ok(Response::new(head, body))
            }
        }
    }

    fn message(&self, request: &Request) -> Result<hyper::Request<Full<Bytes>>, Failure> {
        let invalid = |text: String| Failure::Other(text);
        if !matches!(request.url.scheme(), "http" | "https") {
            return Err(invalid(format!("unsupported protocol scheme {}", go::quote(request.url.scheme()))));
        }
        let mut url = Cow::Borrowed(&request.url);
        if url.fragment().is_some() || !url.username().is_empty() || url.password().is_some() {
            let url = url.to_mut();
            url.set_fragment(None);
            // Userinfo belongs into a header; it is never sent as part of the target.
            let _ = url.set_username("");
            let _ = url.set_password(None);
        }
        let uri: Uri = url.as_str().parse().map_err(|e: hyper::http::uri::InvalidUri| invalid(e.to_string()))?;
        let mut message = hyper::Request::new(Full::new(request.body.clone()));
        *message.method_mut() = request.method.clone();
        *message.uri_mut() = uri;
        // Those, and what is added here and by hyper.
        message.headers_mut().reserve(request.headers.len() + 4);
        for (name, value) in &request.headers {
            message.headers_mut().append(name.clone(), value.clone());
        }
        if !message.headers().contains_key(AUTHORIZATION)
            && let Some(basic) = userinfo::basic_auth(&request.url)
        {
            message.headers_mut().insert(AUTHORIZATION, basic);
        }
        if let Some(authorization) = self.transport.proxies().authorization(&request.url) {
            message.headers_mut().insert(PROXY_AUTHORIZATION, authorization);
        }
        if let Some((host, port)) = request.url.host_str().zip(request.url.port_or_known_default())
            && request.has_usual_port
        {
            let host = HeaderValue::from_str(&format!("{host}:{port}")).map_err(|e| invalid(e.to_string()))?;
            message.headers_mut().entry(HOST).or_insert(host);
        }
        if !message.headers().contains_key(USER_AGENT) {
            let agent = HeaderValue::from_str(&self.options.user_agent).map_err(|e| invalid(e.to_string()))?;
            message.headers_mut().insert(USER_AGENT, agent);
        }
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
