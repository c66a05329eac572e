//! Tokens of OAuth 2: fetched when they are needed, kept until shortly before they end, shared by all requests of a client.
//!
//! One request for a token is under way at a time, on a task of its own: a request with a short deadline neither ends it
//! nor starts another. All who wait get its answer, be it an error. The secret is read again for each request; another
//! secret means another token. Error texts are those of Go's `oauth2`.

mod answer;
mod assertion;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt as _, Shared};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use parking_lot::Mutex;
use tokio::time::{Instant, timeout_at};
use url::Url;

use crate::client::credentials::Credentials;
use crate::client::proxy::{ProxyEnvironment, ProxyRules};
use crate::client::source::{Reader, Source};
use crate::client::tls::TlsSettings;
use crate::client::{ClientOptions, Failure, HttpClient, Request, userinfo};
use crate::config::http_client as config;
use crate::model::{go, go_url};
use answer::Token;
use assertion::Assertion;

/// Longest time for a token to come.
const FETCH_MAX: Duration = Duration::from_secs(30);
/// A token is not used within this time before its end, as in Go.
const EARLY: Duration = Duration::from_secs(10);
/// What is read of an answer, as in Go.
const ANSWER_LEN_MAX: usize = 1 << 20;

/// The source of a client's tokens. Clones share them.
#[derive(Clone)]
pub(super) struct OAuth2 {
    inner: Arc<Inner>,
}

struct Inner {
    client: HttpClient,
    grant: Grant,
    client_id: String,
    token_url: String,
    scopes: String,
    params: BTreeMap<String, String>,
    secret: Source,
    reader: Reader,
    state: Mutex<State>,
}

enum Grant {
    ClientCredentials,
    Assertion(Arc<Assertion>),
}

/// How a client shows its id and secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    Header,
    Params,
}

type Fetch = Shared<BoxFuture<'static, Result<Arc<Token>, Failure>>>;

#[derive(Default)]
struct State {
    secret: Option<Vec<u8>>,
    /// What the endpoint takes, once it has taken it.
    style: Option<Style>,
    token: Option<Arc<Token>>,
    fetch: Option<Fetch>,
    /// Counts fetches; the result of one that is not the last is not kept.
    number: u64,
}

impl OAuth2 {
    pub(super) fn new(user_agent: &str, config: &config::OAuth2, environment: &ProxyEnvironment) -> Self {
        // A token endpoint does not redirect; the body of the request holds the secret.
        let options = ClientOptions { user_agent: user_agent.to_owned(), follow_redirects: false };
        let proxies = ProxyRules::new(&config.proxy, environment);
        let tls = TlsSettings::new(&config.tls_config, false);
        let client = HttpClient::with_parts(options, Credentials::none(), proxies, tls);
        let assertion = Assertion::of(config);
        let secret = match &assertion {
            Some(_) => Source::new(&config.client_certificate_key, &config.client_certificate_key_file),
            None => Source::new(&config.client_secret, &config.client_secret_file),
        };
        let inner = Inner {
            client,
            grant: assertion.map_or(Grant::ClientCredentials, |assertion| Grant::Assertion(Arc::new(assertion))),
            client_id: config.client_id.clone(),
            token_url: config.token_url.expose().to_owned(),
            scopes: config.scopes.join(" "),
            params: config.endpoint_params.clone(),
            secret,
            reader: Reader::new(),
            state: Mutex::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// The value of the `Authorization` header: a token that holds for a while, fetched if there is none.
    pub(super) async fn authorization(&self, deadline: Instant) -> Result<HeaderValue, Failure> {
        let secret = self.secret(deadline).await?;
        let (number, fetch) = match self.inner.token_or_fetch(secret) {
            Ok(token) => return token.header(),
            Err(fetch) => fetch,
        };
        let fetched = timeout_at(deadline, fetch).await.map_err(|_| Failure::Deadline)?;
        // The fetch has done so itself, unless it panicked or its thread has ended.
        self.inner.settle(number, &fetched);
        fetched?.header()
    }

    async fn secret(&self, deadline: Instant) -> Result<Vec<u8>, Failure> {
        const WHAT: &str = "oauth2 client secret";
        if !self.inner.secret.is_file() {
            return self.inner.secret.read_as(WHAT);
        }
        let source = self.inner.secret.clone();
        self.inner.reader.run(deadline, move || source.read_as(WHAT)).await?
    }
}

impl Inner {
    /// The token that is there, or the fetch to wait for.
    fn token_or_fetch(self: &Arc<Self>, secret: Vec<u8>) -> Result<Arc<Token>, (u64, Fetch)> {
        let mut state = self.state.lock();
        if state.secret.as_ref() != Some(&secret) {
            *state = State { secret: Some(secret.clone()), number: state.number, ..State::default() };
        }
        if let Some(token) = state.token.as_ref().filter(|token| token.holds_at(Instant::now() + EARLY)) {
            return Ok(Arc::clone(token));
        }
        if state.fetch.is_none() {
            state.number += 1;
            state.fetch = Some(spawn(Arc::clone(self), state.number, secret));
        }
        Err((state.number, state.fetch.clone().expect("a fetch was put there")))
    }

    /// Keeps what has come of the fetch with this number.
    fn settle(&self, number: u64, fetched: &Result<Arc<Token>, Failure>) {
        let mut state = self.state.lock();
        if state.number != number || state.fetch.is_none() {
            return;
        }
        state.fetch = None;
        state.token = fetched.as_ref().ok().cloned();
    }

    async fn fetch(&self, secret: &[u8]) -> Result<Token, Failure> {
        let deadline = Instant::now() + FETCH_MAX;
        match &self.grant {
            Grant::ClientCredentials => {
                let params = self.params("client_credentials", None)?;
                self.by_client_credentials(params, secret, deadline).await
            }
            Grant::Assertion(assertion) => {
                let (claims, key) = (Arc::clone(assertion), secret.to_vec());
                // Signing takes milliseconds.
                let signed = self.reader.run(deadline, move || claims.sign(&key)).await??;
                let params = self.params(config::JWT_GRANT, Some(signed))?;
                let text = |failure: Failure| Failure::Other(format!("oauth2: cannot fetch token: {failure}"));
                self.exchange(&params, None, secret, deadline).await.map_err(|refused| match refused {
                    Refused::Unreached(failure) => text(failure),
                    Refused::Answered(failure) => failure,
                })
            }
        }
    }

    /// Tries both ways of showing the secret until the endpoint has taken one, as Go does.
    async fn by_client_credentials(
        &self,
        params: BTreeMap<String, String>,
        secret: &[u8],
        deadline: Instant,
    ) -> Result<Token, Failure> {
        let known = self.state.lock().style;
        let style = known.unwrap_or(Style::Header);
        let first = self.in_style(style, &params, secret, deadline).await;
        let (style, result) = match (first, known) {
            (Err(_), None) => (Style::Params, self.in_style(Style::Params, &params, secret, deadline).await),
            (first, _) => (style, first),
        };
        if result.is_ok() {
            self.state.lock().style = Some(style);
        }
        result.map_err(|refused| match refused {
            Refused::Unreached(failure) | Refused::Answered(failure) => failure,
        })
    }

    async fn in_style(
        &self,
        style: Style,
        params: &BTreeMap<String, String>,
        secret: &[u8],
        deadline: Instant,
    ) -> Result<Token, Refused> {
        let text = String::from_utf8_lossy(secret);
        match style {
            Style::Header => {
                let pair = format!("{}:{}", go_url::query_escape(&self.client_id), go_url::query_escape(&text));
                self.exchange(params, Some(userinfo::basic(pair.as_bytes())), secret, deadline).await
            }
            Style::Params => {
                let mut params = params.clone();
                let shown = [("client_id", self.client_id.as_str()), ("client_secret", &text)];
                for (name, value) in shown.into_iter().filter(|(_, value)| !value.is_empty()) {
                    params.insert(name.to_owned(), value.to_owned());
                }
                self.exchange(&params, None, secret, deadline).await
            }
        }
    }

    /// One request to the endpoint and its answer.
    async fn exchange(
        &self,
        params: &BTreeMap<String, String>,
        authorization: Option<HeaderValue>,
        secret: &[u8],
        deadline: Instant,
    ) -> Result<Token, Refused> {
        let url = Url::parse(&self.token_url)
            .map_err(|error| Refused::Unreached(Failure::Other(format!("oauth2 token_url: {error}"))))?;
        let form: Vec<String> = params
            .iter()
            .map(|(name, value)| format!("{}={}", go_url::query_escape(name), go_url::query_escape(value)))
            .collect();
        let form_type = HeaderValue::from_static("application/x-www-form-urlencoded");
        let mut request = Request::post(url, form_type, Bytes::from(form.join("&")));
        request.headers.extend(authorization.map(|value| (AUTHORIZATION, value)));
        let sent = self.client.send(request, deadline).await;
        let mut response = sent.map_err(|error| Refused::Unreached(Failure::Other(error.to_string())))?;
        let body =
            response.body.excerpt(ANSWER_LEN_MAX).await.map_err(|failure| {
                Refused::Answered(Failure::Other(format!("oauth2: cannot fetch token: {failure}")))
            })?;
        let content_type = response.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
        answer::read(response.status, &response.status_text(), content_type, &body, secret)
            .map_err(|text| Refused::Answered(Failure::Other(text)))
    }

    /// The form without what tells who the client is. Configured parameters add to it; only `grant_type` may be replaced.
    fn params(&self, grant: &str, assertion: Option<String>) -> Result<BTreeMap<String, String>, Failure> {
        let mut params = BTreeMap::from([("grant_type".to_owned(), grant.to_owned())]);
        params.extend(assertion.map(|assertion| ("assertion".to_owned(), assertion)));
        if !self.scopes.is_empty() {
            params.insert("scope".to_owned(), self.scopes.clone());
        }
        for (name, value) in &self.params {
            if name != "grant_type" && params.contains_key(name) {
                return Err(Failure::Other(format!("oauth2: cannot overwrite parameter {}", go::quote(name))));
            }
            params.insert(name.clone(), value.clone());
        }
        Ok(params)
    }
}

/// Why there is no token: no answer, or an answer without one.
enum Refused {
    Unreached(Failure),
    Answered(Failure),
}

/// Starts a fetch. It goes on when nobody waits any more, until its own deadline.
fn spawn(inner: Arc<Inner>, number: u64, secret: Vec<u8>) -> Fetch {
    let fetching: BoxFuture<'static, Result<Arc<Token>, Failure>> = Box::pin(async move {
        let fetched = inner.fetch(&secret).await.map(Arc::new);
        inner.settle(number, &fetched);
        fetched
    });
    let task = tokio::spawn(fetching);
    let outcome = task.map(|joined| {
        joined.unwrap_or_else(|error| Err(Failure::Other(format!("oauth2: cannot fetch token: {error}"))))
    });
    outcome.boxed().shared()
}
