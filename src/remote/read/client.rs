//! Asks another server for samples.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use md5::{Digest as _, Md5};
use tokio::time::Instant;
use url::Url;

use crate::client::header::{HeaderName, HeaderValue};
use crate::client::{HttpClient, Request, Response};
use crate::config::RemoteReadConfig;
use crate::model::go;
use crate::model::labels::Labels;
use crate::model::matcher::{MatchOp, Matcher};
use crate::model::time::TimeRange;
use crate::remote::read::request::{ReadMatcher, ReadQuery, ReadRequest, encode_request};
use crate::remote::read::{SAMPLED_TYPE, STREAMED_TYPE};
use crate::telemetry::build_info;
use crate::telemetry::metrics::{Gauge, Registry};

/// Most bytes of a refusal's text.
const REFUSAL_LEN_MAX: usize = 4096;
/// Go's default buckets and two more, as Prometheus has them.
const DURATIONS: [f64; 13] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 60.0];
const DURATION_HELP: &str = "Histogram of the latency for remote read requests. Note that for streamed responses this is \
                             only the duration of the initial call and does not include the processing of the stream.";

/// Metrics of all clients.
#[derive(Clone)]
pub struct ReadMetrics {
    registry: Arc<Registry>,
}

impl ReadMetrics {
    /// They appear with the first client.
    pub fn new(registry: &Arc<Registry>) -> Self {
        Self { registry: Arc::clone(registry) }
    }
}

/// One remote storage.
pub struct ReadClient {
    config: RemoteReadConfig,
    /// Labels by which it is asked as well, and which its series are stripped of.
    external: Labels,
    /// Or what is wrong with it, which each request is told.
    url: Result<Url, String>,
    shown: String,
    name: String,
    headers: Result<Vec<(HeaderName, HeaderValue)>, String>,
    client: HttpClient,
    metrics: ReadMetrics,
    in_flight: Gauge,
}

/// An answer as it came.
#[derive(Debug)]
pub struct ReadBody {
    /// Packed samples, or frames.
    pub bytes: Vec<u8>,
    /// The longest frame that is read; `None` for packed samples.
    pub frame_len_max: Option<u64>,
    /// Labels that the series are to be stripped of.
    pub stripped: Vec<String>,
}

/// Why there is no answer: the remote's fault, or the reader's own limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadFailure<E> {
    /// The text is a warning of the query.
    Remote(String),
    /// What `grow` said.
    Own(E),
}

impl ReadClient {
    /// A client as configured. `external` are the global external labels.
    pub fn new(config: &RemoteReadConfig, external: &Labels, metrics: &ReadMetrics) -> Self {
        let shown = config.url.redacted();
        let url = Url::parse(config.url.expose()).map_err(|error| format!("parse {}: {error}", go::quote(&shown)));
        let header = |(name, value): (&String, &String)| {
            let invalid = |what: &str| format!("net/http: invalid header field {what} {}", go::quote(name));
            let value = HeaderValue::from_str(value).map_err(|_| invalid("value for"))?;
            Ok((HeaderName::from_bytes(name.as_bytes()).map_err(|_| invalid("name"))?, value))
        };
        let name = match config.name.as_str() {
            "" => {
                let hash = Md5::digest(config.to_yaml().as_bytes());
                hash.iter().take(3).map(|byte| format!("{byte:02x}")).collect()
            }
            name => name.to_owned(),
        };
        let client = HttpClient::from_config(build_info::user_agent(), &config.http);
        client.count_connections(&metrics.registry, "remote_storage_read_client");
        let labels = [("remote_name", name.as_str()), ("url", &shown)];
        let help = "The number of in-flight remote read queries.";
        Self {
            in_flight: metrics.registry.gauge("prometheus_remote_read_client_queries", help, &labels),
            client,
            external: if config.filter_external_labels { external.clone() } else { Labels::empty() },
            config: config.clone(),
            metrics: metrics.clone(),
            url,
            shown,
            name,
            headers: config.headers.iter().map(header).collect(),
        }
    }

    /// Whether it is what a configuration asks for.
    pub fn is_of(&self, config: &RemoteReadConfig, external: &Labels) -> bool {
        let is_same = !config.filter_external_labels || self.external == *external;
        self.config == *config && is_same
    }

    /// Whether times that are stored here as well are asked for.
    pub fn reads_recent(&self) -> bool {
        self.config.read_recent
    }

    /// Whether a selection has all matchers that are required.
    pub fn wants(&self, matchers: &[Matcher]) -> bool {
        let has = |name: &str, value: &str| {
            matchers.iter().any(|m| m.op() == MatchOp::Equal && m.name() == name && m.value() == value)
        };
        self.config.required_matchers.iter().all(|(name, value)| has(name, value))
    }

    /// Where it is, without its password.
    pub fn shown(&self) -> &str {
        &self.shown
    }

    /// Asks for what fulfils `matchers` in `range`. Each piece of the answer is told to `grow` before it is kept, which may refuse.
    pub async fn read<E>(
        &self,
        matchers: &[Matcher],
        range: TimeRange,
        deadline: Instant,
        grow: impl FnMut(usize) -> Result<(), E>,
    ) -> Result<ReadBody, ReadFailure<E>> {
        let _in_flight = InFlight::enter(&self.in_flight);
        let mut sent: Vec<ReadMatcher> = matchers.iter().map(ReadMatcher::of).collect();
        let mut stripped = Vec::new();
        for (name, value) in self.external.iter().filter(|(name, _)| !matchers.iter().any(|m| m.name() == *name)) {
            sent.push(ReadMatcher { kind: 0, name: name.to_owned(), value: value.to_owned() });
            stripped.push(name.to_owned());
        }
        let query = ReadQuery { start_ms: range.min().0, end_ms: range.max().0, matchers: sent };
        let request = ReadRequest { queries: vec![query], accepted: vec![1, 0] };
        let timeout = self.config.remote_timeout.to_std();
        let deadline = deadline.min(Instant::now() + timeout);
        let began = Instant::now();
        let mut response = self.send(encode_request(&request), deadline).await.map_err(ReadFailure::Remote)?;
        let content_type = response.headers.get("content-type").and_then(|value| value.to_str().ok()).unwrap_or("");
        let (kind, frame_len_max) = match content_type {
            found if found.starts_with(SAMPLED_TYPE) => ("sampled", None),
            found if found.starts_with(STREAMED_TYPE) => ("chunked", Some(self.config.chunked_read_limit)),
            found => {
                let text = format!("unsupported content type: {found}");
                self.observe("unsupported", began.elapsed());
                self.count("unsupported", response.status.as_str());
                return Err(ReadFailure::Remote(text));
            }
        };
        self.observe(kind, began.elapsed());
        let status = response.status_text();
        let read = read_all(&mut response, grow).await;
        let code = if read.is_ok() { response.status.as_str() } else { "aborted_stream" };
        self.count(kind, code);
        let bytes = read.map_err(|failure| match failure {
            ReadFailure::Remote(text) if frame_len_max.is_none() => {
                ReadFailure::Remote(format!("error reading response. HTTP status code: {status}: {text}"))
            }
            failure => failure,
        })?;
        Ok(ReadBody { bytes, frame_len_max, stripped })
    }

    async fn send(&self, body: Vec<u8>, deadline: Instant) -> Result<Response, String> {
        let (url, headers) = (self.url.clone()?, self.headers.clone()?);
        let mut request = Request::post(url, HeaderValue::from_static("application/x-protobuf"), Bytes::from(body));
        for (name, value) in [
            ("content-encoding", "snappy"),
            ("accept-encoding", "snappy"),
            ("x-prometheus-remote-read-version", "0.1.0"),
        ] {
            request.headers.push((HeaderName::from_static(name), HeaderValue::from_static(value)));
        }
        request.headers.extend(headers);
        let answered = self.client.send(request, deadline).await;
        let mut response = answered.map_err(|error| format!("error sending request: {error}"))?;
        if response.status.is_success() {
            return Ok(response);
        }
        let text = response.body.excerpt(REFUSAL_LEN_MAX).await.unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let status = response.status_text();
        Err(format!("remote server {} returned http status {status}: {}", self.shown, text.trim_matches('\n')))
    }

    fn observe(&self, kind: &str, took: Duration) {
        let labels = [("remote_name", self.name.as_str()), ("url", &self.shown), ("response_type", kind)];
        let name = "prometheus_remote_read_client_request_duration_seconds";
        self.metrics.registry.histogram(name, DURATION_HELP, &labels, &DURATIONS).observe(took.as_secs_f64());
    }

    fn count(&self, kind: &str, code: &str) {
        let labels =
            [("remote_name", self.name.as_str()), ("url", &self.shown), ("response_type", kind), ("code", code)];
        let help = "The total number of remote read queries.";
        self.metrics.registry.counter("prometheus_remote_read_client_queries_total", help, &labels).inc();
    }
}

async fn read_all<E>(
    response: &mut Response,
    mut grow: impl FnMut(usize) -> Result<(), E>,
) -> Result<Vec<u8>, ReadFailure<E>> {
    let mut bytes = Vec::new();
    while let Some(piece) = response.body.chunk().await.map_err(|failure| ReadFailure::Remote(failure.to_string()))? {
        if bytes.capacity() < bytes.len() + piece.len() {
            // The list doubles, with the old one beside it while it is copied.
            let room = (bytes.len() + piece.len()).max(2 * bytes.len());
            grow(room - bytes.len()).map_err(ReadFailure::Own)?;
            bytes.reserve_exact(room - bytes.len());
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes)
}

impl std::fmt::Debug for ReadClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReadClient").field("url", &self.shown).finish_non_exhaustive()
    }
}

/// Counts a request in flight, also when nobody waits for it any more.
struct InFlight<'a>(&'a Gauge);

impl<'a> InFlight<'a> {
    fn enter(gauge: &'a Gauge) -> Self {
        gauge.add(1.0);
        Self(gauge)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.add(-1.0);
    }
}
