//! Signing in at Azure and Google for remote write (`azuread`, `google_iam`): a token goes into each request.
//!
//! Tokens are fetched when they are needed and shared by all requests of a destination. One fetch is under way at a time,
//! on a task of its own. A token is renewed ahead of its end; while that fails it is used until then. Where tokens come
//! from is what the vendors' own libraries look at: files, variables of the environment, addresses of the machine.

mod azure;
mod google;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt as _, Shared};
use hyper::header::{AUTHORIZATION, HeaderName, HeaderValue};
use parking_lot::Mutex;
use serde_json::{Map, Value};
use tokio::time::{Instant, timeout_at};
use url::Url;

use crate::client::credentials::{Credentials, sensitive};
use crate::client::proxy::{ProxyEnvironment, ProxyRules};
use crate::client::source::{Reader, Source};
use crate::client::tls::TlsSettings;
use crate::client::{ClientOptions, Failure, HttpClient, Request, Response, Signer};
use crate::config::http_client::{ProxyConfig, TlsConfig};
use crate::config::remote_auth::{AzureAdConfig, GoogleIamConfig};
use crate::model::go_url;
use crate::model::secret::Secret;
use azure::Azure;
use google::Google;

/// Longest time for a token to come.
const FETCH_MAX: Duration = Duration::from_secs(30);
/// After a renewal that has failed the next is not tried for this long.
const RETRY_AFTER: Duration = Duration::from_secs(30);
/// What is read of an answer.
const ANSWER_LEN_MAX: usize = 1 << 20;
/// What is shown of one.
const SHOWN_LEN_MAX: usize = 1024;

/// Looks a variable of the environment up.
pub type Variable = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// What is found on the machine and in the world that belongs to no configuration. Tests have their own.
#[derive(Clone)]
pub struct CloudSurroundings {
    /// A variable of the environment, unless it is empty.
    pub variable: Variable,
    /// Where Azure's tokens are asked for, instead of at the cloud's own address.
    pub azure_authority: Option<String>,
    /// Where virtual machines of Azure ask for tokens.
    pub azure_metadata: String,
    /// The program that stands on machines that Azure Arc manages, and the folder of its secrets.
    pub azure_arc: (PathBuf, PathBuf),
    /// Where Google exchanges what a user has for a token.
    pub google_tokens: String,
    /// Where virtual machines of Google ask for tokens, unless the environment names another host.
    pub google_metadata: String,
}

impl Default for CloudSurroundings {
    fn default() -> Self {
        Self {
            variable: Arc::new(|name| std::env::var(name).ok().filter(|value| !value.is_empty())),
            azure_authority: None,
            azure_metadata: "http://169.254.169.254/metadata/identity/oauth2/token".to_owned(),
            azure_arc: ("/opt/azcmagent/bin/himds".into(), "/var/opt/azcmagent/tokens".into()),
            google_tokens: "https://oauth2.googleapis.com/token".to_owned(),
            google_metadata: "169.254.169.254".to_owned(),
        }
    }
}

/// Puts the tokens of one destination into its requests. Clones share them.
#[derive(Clone)]
pub struct CloudLogin {
    inner: Arc<Inner>,
}

struct Inner {
    cloud: Cloud,
    state: Mutex<State>,
}

enum Cloud {
    Azure(Azure),
    Google(Google),
}

type Fetch = Shared<BoxFuture<'static, Result<Arc<Token>, Failure>>>;

#[derive(Default)]
struct State {
    token: Option<Arc<Token>>,
    fetch: Option<Fetch>,
    /// Counts fetches; the result of one that is not the last is not kept.
    number: u64,
    /// Not before then, after a renewal that has failed.
    next_renewal: Option<Instant>,
}

/// A token. It has no `Debug`: nothing shows it.
struct Token {
    header: HeaderValue,
    /// Who pays for the requests, where the credentials say so.
    project: Option<HeaderValue>,
    renew_at: Instant,
    ends: Instant,
}

impl CloudLogin {
    /// Signing in by an `azuread` block.
    pub fn azure(config: &AzureAdConfig, user_agent: String, surroundings: &CloudSurroundings) -> Self {
        Self::of(Cloud::Azure(Azure::new(config, Asker::new(user_agent), surroundings.clone())))
    }

    /// Signing in by a `google_iam` block.
    pub fn google(config: &GoogleIamConfig, user_agent: String, surroundings: &CloudSurroundings) -> Self {
        Self::of(Cloud::Google(Google::new(config, Asker::new(user_agent), surroundings.clone())))
    }

    fn of(cloud: Cloud) -> Self {
        Self { inner: Arc::new(Inner { cloud, state: Mutex::default() }) }
    }
}

impl Signer for CloudLogin {
    fn sign<'a>(&'a self, request: &'a mut Request, deadline: Instant) -> BoxFuture<'a, Result<(), Failure>> {
        async move {
            let token = self.inner.token(deadline).await?;
            request.headers.push((AUTHORIZATION, token.header.clone()));
            let project = token.project.iter().cloned();
            request.headers.extend(project.map(|project| (HeaderName::from_static("x-goog-user-project"), project)));
            Ok(())
        }
        .boxed()
    }
}

impl Inner {
    async fn token(self: &Arc<Self>, deadline: Instant) -> Result<Arc<Token>, Failure> {
        let (number, fetch, old) = {
            let (mut state, now) = (self.state.lock(), Instant::now());
            let old = state.token.clone().filter(|token| now < token.ends);
            let waits = state.next_renewal.is_some_and(|at| now < at);
            if let Some(token) = old.as_ref().filter(|token| now < token.renew_at || waits) {
                return Ok(Arc::clone(token));
            }
            if state.fetch.is_none() {
                state.number += 1;
                state.fetch = Some(spawn(Arc::clone(self), state.number));
            }
            (state.number, state.fetch.clone().expect("a fetch was put there"), old)
        };
        let fetched = timeout_at(deadline, fetch).await.map_err(|_| Failure::Deadline)?;
        // The fetch has done so itself, unless it panicked or its thread has ended.
        self.settle(number, &fetched);
        fetched.or_else(|failure| old.ok_or(failure))
    }

    /// Keeps what has come of the fetch with this number.
    fn settle(&self, number: u64, fetched: &Result<Arc<Token>, Failure>) {
        let mut state = self.state.lock();
        if state.number != number || state.fetch.is_none() {
            return;
        }
        state.fetch = None;
        match fetched {
            Ok(token) => (state.token, state.next_renewal) = (Some(Arc::clone(token)), None),
            Err(_) => state.next_renewal = Some(Instant::now() + RETRY_AFTER),
        }
    }

    async fn fetch(&self) -> Result<Token, Failure> {
        let deadline = Instant::now() + FETCH_MAX;
        let fetched = match &self.cloud {
            Cloud::Azure(azure) => timeout_at(deadline, azure.fetch(deadline)).await,
            Cloud::Google(google) => timeout_at(deadline, google.fetch(deadline)).await,
        };
        fetched.unwrap_or(Err(Failure::Deadline)).map_err(|failure| match self.cloud {
            Cloud::Azure(_) => Failure::Other(format!("Failed to get access token: {failure}")),
            Cloud::Google(_) => Failure::Other(format!("google: cannot fetch token: {failure}")),
        })
    }
}

/// Starts a fetch. It goes on when nobody waits any more, until its own deadline.
fn spawn(inner: Arc<Inner>, number: u64) -> Fetch {
    let task = tokio::spawn(async move {
        let fetched = inner.fetch().await.map(Arc::new);
        inner.settle(number, &fetched);
        fetched
    });
    let outcome =
        task.map(|joined| joined.unwrap_or_else(|error| Err(Failure::Other(format!("cannot fetch token: {error}")))));
    outcome.boxed().shared()
}

/// When a token is renewed.
#[derive(Clone, Copy)]
enum Renewal {
    /// When half of its time is over, as Prometheus does for Azure.
    HalfWay,
    /// So long before its end, or half-way if that is later.
    Before(Duration),
}

impl Token {
    /// The token of an answer in JSON.
    fn of(answer: &Map<String, Value>, renewal: Renewal) -> Result<Self, Failure> {
        let wrong = |text: &str| Failure::Other(text.to_owned());
        let token = answer.get("access_token").and_then(Value::as_str).filter(|token| !token.is_empty());
        let token = token.ok_or_else(|| wrong("access token is empty"))?;
        let seconds = match (answer.get("expires_in"), answer.get("expires_on")) {
            (Some(value), _) if number(value).is_some() => number(value).unwrap_or(0),
            (_, Some(value)) => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
                let at = number(value).ok_or_else(|| wrong("the end of the access token cannot be read"))?;
                at.saturating_sub(now.cast_signed())
            }
            _ => return Err(wrong("the access token has no end")),
        };
        let lifetime = Duration::from_secs(u64::try_from(seconds).unwrap_or(0).min(u64::from(u32::MAX)));
        if lifetime.is_zero() {
            return Err(wrong("access token expiry is less than the current time"));
        }
        let fresh = match renewal {
            Renewal::HalfWay => lifetime / 2,
            Renewal::Before(time) => lifetime.saturating_sub(time).max(lifetime / 2),
        };
        let now = Instant::now();
        let header = sensitive("Authorization", format!("Bearer {token}").as_bytes())?;
        Ok(Self { header, project: None, renew_at: now + fresh, ends: now + lifetime })
    }
}

/// A whole number, be it in quotes.
fn number(value: &Value) -> Option<i64> {
    match value {
        Value::Number(number) => number.as_i64().or_else(|| number.as_f64().map(|number| number as i64)),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

/// Asks for tokens, and reads files for it.
struct Asker {
    client: HttpClient,
    reader: Reader,
}

impl Asker {
    fn new(user_agent: String) -> Self {
        // A token endpoint does not redirect; requests hold secrets.
        let options = ClientOptions { user_agent, follow_redirects: false };
        let proxy = ProxyConfig { proxy_from_environment: true, ..ProxyConfig::default() };
        let proxies = ProxyRules::new(&proxy, ProxyEnvironment::of_process());
        let tls = TlsSettings::new(&TlsConfig::default(), false);
        let client = HttpClient::with_parts(options, Credentials::none(), proxies, tls);
        Self { client, reader: Reader::new() }
    }

    async fn send(&self, request: Request, deadline: Instant) -> Result<Response, Failure> {
        self.client.send(request, deadline).await.map_err(|error| Failure::Other(error.to_string()))
    }

    /// The object of an answer that is a success. What an error shows of another one does not hold `secrets`.
    async fn object(
        &self,
        request: Request,
        secrets: &[&str],
        deadline: Instant,
    ) -> Result<Map<String, Value>, (Option<u16>, Failure)> {
        let mut response = self.send(request, deadline).await.map_err(|failure| (None, failure))?;
        let status = response.status.as_u16();
        let body = response.body.excerpt(ANSWER_LEN_MAX).await.map_err(|failure| (None, failure))?;
        let object = serde_json::from_slice::<Map<String, Value>>(&body).ok();
        let failed = |text: String| (Some(status), Failure::Other(text));
        if response.status.is_success() {
            return object.ok_or_else(|| failed("the answer is no object of JSON".to_owned()));
        }
        let told = object.as_ref().map_or_else(|| String::from_utf8_lossy(&body).into_owned(), told);
        Err(failed(format!("{}: {}", response.status_text(), without(&told, secrets))))
    }

    /// The content of a file, without white space around it.
    async fn file(&self, path: &str, what: &'static str, deadline: Instant) -> Result<Vec<u8>, Failure> {
        let source = Source::File(path.to_owned());
        self.reader.run(deadline, move || source.read_as(what)).await?
    }
}

/// What an endpoint says of an error.
fn told(object: &Map<String, Value>) -> String {
    let text = |name: &str| object.get(name).and_then(Value::as_str);
    let inner = |name: &str| object.get("error")?.get(name)?.as_str();
    let code = text("error").or_else(|| inner("code"));
    let parts = [code, text("error_description").or_else(|| inner("message"))];
    parts.into_iter().flatten().collect::<Vec<_>>().join(": ")
}

/// The start of a text, with the secrets taken out, as they are and as they stand in a form.
fn without(text: &str, secrets: &[&str]) -> String {
    let mut text = text.to_owned();
    for secret in secrets.iter().filter(|secret| !secret.is_empty()) {
        text = text.replace(secret, "<secret>").replace(&go_url::query_escape(secret), "<secret>");
    }
    match text.char_indices().nth(SHOWN_LEN_MAX) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or("")),
        None => text,
    }
}

/// A POST of a form.
fn form(url: Url, fields: &[(&str, &str)]) -> Request {
    let form: Vec<String> = fields
        .iter()
        .map(|(name, value)| format!("{}={}", go_url::query_escape(name), go_url::query_escape(value)))
        .collect();
    let form_type = HeaderValue::from_static("application/x-www-form-urlencoded");
    Request::post(url, form_type, Bytes::from(form.join("&")))
}

/// Adds a header that is neither printed nor sent to another host.
fn add_header(request: &mut Request, name: &'static str, value: &str) -> Result<(), Failure> {
    let value = sensitive(name, value.as_bytes())?;
    request.headers.push((HeaderName::from_static(name), value));
    Ok(())
}

fn url(text: &str) -> Result<Url, Failure> {
    // What is wrong with it is not shown with it: it comes from the environment.
    Url::parse(text).map_err(|error| Failure::Other(format!("the URL of the token endpoint: {error}")))
}

/// A text that hides.
fn secret(text: String) -> Secret<String> {
    Secret::new(text)
}
