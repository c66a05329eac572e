//! Asking the APIs of those who know targets: authenticated, by a deadline, with bounded answers.

use std::path::PathBuf;
use std::str::FromStr;

use serde::de::{Deserialize, DeserializeOwned, Deserializer};
use tokio::time::Instant;
use url::Url;

use crate::client::header::{ACCEPT, HeaderName, HeaderValue};
use crate::client::{ClientOptions, HttpClient, Request, Response, UnixClient};
use crate::config::http_client::HttpClientConfig;
use crate::discovery::error::LookError;
use crate::discovery::metrics::SourceMetrics;
use crate::telemetry::build_info;

/// A longer answer is refused.
pub(super) const BODY_LEN_MAX: usize = 64 << 20;
/// How much of a refusal is shown.
const EXCERPT_LEN_MAX: usize = 512;
/// Longer answers are parsed on a thread of their own.
const INLINE_LEN_MAX: usize = 32 << 10;

/// Asks one API. Clones share connections.
#[derive(Clone)]
pub(super) enum ApiClient {
    Http(HttpClient),
    Unix(UnixClient),
}

impl ApiClient {
    /// A client as a provider's configuration says.
    pub(super) fn new(config: &HttpClientConfig) -> Self {
        Self::Http(HttpClient::from_config(build_info::user_agent(), config))
    }

    /// The same client, whose connections are counted as those of `dialer`.
    pub(super) fn counted(self, metrics: &SourceMetrics, dialer: &str) -> Self {
        if let Self::Http(client) = &self {
            client.count_connections(metrics.registry(), dialer);
        }
        self
    }

    /// A client without credentials.
    pub(super) fn plain() -> Self {
        Self::Http(HttpClient::new(ClientOptions { user_agent: build_info::user_agent(), follow_redirects: true }))
    }

    /// A client of a server that listens on a socket in the file system.
    pub(super) fn unix(path: PathBuf) -> Self {
        Self::Unix(UnixClient::new(path, build_info::user_agent()))
    }

    /// Sends a request and waits for the head of the answer, whatever its status.
    pub(super) async fn send(&self, request: Request, deadline: Instant) -> Result<Response, LookError> {
        Ok(match self {
            Self::Http(client) => client.send(request, deadline).await?,
            Self::Unix(client) => client.send(request, deadline).await?,
        })
    }

    /// As [`ApiClient::send`], but errors unless the answer is a success.
    pub(super) async fn ask(&self, request: Request, deadline: Instant) -> Result<Response, LookError> {
        let mut response = self.send(request, deadline).await?;
        if response.status.is_success() {
            return Ok(response);
        }
        let (status, code) = (response.status_text(), response.status.as_u16());
        let excerpt = response.body.excerpt(EXCERPT_LEN_MAX).await.unwrap_or_default();
        let excerpt = String::from_utf8_lossy(&excerpt).trim().to_owned();
        Err(LookError::Status { status, code, excerpt })
    }

    /// Asks and reads the answer whole.
    pub(super) async fn read(&self, request: Request, deadline: Instant) -> Result<Vec<u8>, LookError> {
        let mut response = self.ask(request, deadline).await?;
        body(&mut response, BODY_LEN_MAX).await
    }

    /// Asks for a JSON document by GET.
    pub(super) async fn json<T>(&self, url: Url, deadline: Instant) -> Result<T, LookError>
    where
        T: DeserializeOwned + Send + 'static,
    {
        let content = self.read(json_request(url), deadline).await?;
        parse(content, |content| Ok(serde_json::from_slice(content)?)).await
    }
}

/// A GET of a JSON document.
pub(super) fn json_request(url: Url) -> Request {
    let mut request = Request::get(url);
    request.headers.push((ACCEPT, HeaderValue::from_static("application/json")));
    request
}

/// Adds a header that is neither printed nor sent to another host.
pub(super) fn secret_header(request: &mut Request, name: &str, value: &str) -> Result<(), LookError> {
    let bad = |what: &str| LookError::Other(format!("{what} of the header {name} is invalid"));
    let name = HeaderName::from_str(name).map_err(|_| bad("the name"))?;
    let mut value = HeaderValue::from_str(value).map_err(|_| bad("the value"))?;
    value.set_sensitive(true);
    request.headers.push((name, value));
    Ok(())
}

/// Reads an answer whole, if it is not too long.
pub(super) async fn body(response: &mut Response, len_max: usize) -> Result<Vec<u8>, LookError> {
    let mut content = Vec::new();
    while let Some(chunk) = response.body.chunk().await? {
        if len_max < content.len() + chunk.len() {
            return Err(LookError::TooLong { limit: len_max });
        }
        content.extend_from_slice(&chunk);
    }
    Ok(content)
}

/// Parses an answer, a long one on a thread of its own: this thread is that of many actors.
pub(super) async fn parse<T: Send + 'static>(
    content: Vec<u8>,
    parse: impl FnOnce(&[u8]) -> Result<T, LookError> + Send + 'static,
) -> Result<T, LookError> {
    if content.len() <= INLINE_LEN_MAX {
        return parse(&content);
    }
    match tokio::task::spawn_blocking(move || parse(&content)).await {
        Ok(parsed) => parsed,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(error) => Err(LookError::Other(error.to_string())),
        },
    }
}

/// Parses a URL of a configuration.
pub(super) fn url(text: &str) -> Result<Url, LookError> {
    Url::parse(text).map_err(|error| LookError::Other(format!("parse {text:?}: {error}")))
}

/// `base` with the path of the API below it, whether or not `base` ends with a slash.
pub(super) fn below(base: &Url, path: &str) -> Url {
    let mut url = base.clone();
    url.set_path(&format!("{}/{}", base.path().trim_end_matches('/'), path.trim_start_matches('/')));
    url.set_query(None);
    url
}

/// Reads a value that may be null as Go does: null is the default.
pub(super) fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// Structs of an API's JSON: fields that are missing or null have their default values, others are not looked at.
macro_rules! wire {
    ($($(#[$meta:meta])* struct $name:ident {
        $($(#[$field_meta:meta])* $field:ident: $type:ty = $key:literal),* $(,)?
    })*) => {$(
        $(#[$meta])*
        #[derive(Clone, Debug, Default, PartialEq, serde::Deserialize)]
        #[serde(default)]
        pub(super) struct $name {
            $(
                $(#[$field_meta])*
                #[serde(rename = $key, deserialize_with = "crate::discovery::api::or_default")]
                pub(super) $field: $type,
            )*
        }
    )*};
}
pub(super) use wire;
