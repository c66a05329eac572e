//! Who a client says it is: `basic_auth`, `authorization`, `oauth2` and `http_headers` of its configuration.
//!
//! All of it becomes headers of the request, each marked as sensitive, so that it is neither printed nor sent to another
//! host after a redirect. Files are read again for each request: a rotated token works from the next one on.

use std::sync::Arc;

use hyper::header::{AUTHORIZATION, HeaderName, HeaderValue};
use tokio::time::Instant;

use crate::client::oauth2::OAuth2;
use crate::client::source::{Reader, Source};
use crate::client::{Failure, Request, userinfo};
use crate::config::http_client::HttpClientConfig;
use crate::model::go;
use crate::model::secret::Secret;

/// What a client sends beside the headers of a request. Clones are cheap.
#[derive(Clone)]
pub struct Credentials {
    sources: Arc<Sources>,
    reader: Reader,
    oauth2: Option<OAuth2>,
}

struct Sources {
    auth: Option<Auth>,
    headers: Vec<(String, Source)>,
    has_files: bool,
}

enum Auth {
    Basic { username: Source, password: Source },
    Scheme { name: String, credentials: Source },
}

impl Credentials {
    /// No credentials.
    pub fn none() -> Self {
        Self::of(None, Vec::new(), None)
    }

    /// Those of a configuration, tokens of `oauth2` among them. Names in a secret manager are not: who starts with a
    /// configuration refuses them (`config::inactive`).
    pub(super) fn from_config(config: &HttpClientConfig, oauth2: Option<OAuth2>) -> Self {
        let basic = config.basic_auth.as_ref().map(|basic| Auth::Basic {
            username: Source::new(&Secret::new(basic.username.clone()), &basic.username_file),
            password: Source::new(&basic.password, &basic.password_file),
        });
        let scheme = config.authorization.as_ref().map(|authorization| Auth::Scheme {
            name: authorization.auth_type.clone(),
            credentials: Source::new(&authorization.credentials, &authorization.credentials_file),
        });
        let mut headers = Vec::new();
        for (name, header) in config.http_headers.iter().flat_map(|headers| &headers.0) {
            let values = header.values.iter().map(|value| Source::Text(Secret::new(value.clone())));
            let secrets = header.secrets.iter().map(|secret| Source::Text(secret.clone()));
            let files = header.files.iter().map(|file| Source::File(file.as_str().to_owned()));
            headers.extend(values.chain(secrets).chain(files).map(|source| (name.clone(), source)));
        }
        Self::of(basic.or(scheme), headers, oauth2)
    }

    fn of(auth: Option<Auth>, headers: Vec<(String, Source)>, oauth2: Option<OAuth2>) -> Self {
        let auth_file = match &auth {
            Some(Auth::Basic { username, password }) => username.is_file() || password.is_file(),
            Some(Auth::Scheme { credentials, .. }) => credentials.is_file(),
            None => false,
        };
        let has_files = auth_file || headers.iter().any(|(_, source)| source.is_file());
        Self { sources: Arc::new(Sources { auth, headers, has_files }), reader: Reader::new(), oauth2 }
    }

    #[cfg(test)]
    pub(super) fn turns_left(&self) -> usize {
        self.reader.turns_left()
    }

    /// Adds what the request does not have: an `Authorization` header of its own, or userinfo in its URL, goes first,
    /// except before a token of OAuth 2. Errors name the file, never its content.
    pub(super) async fn add_to(&self, request: &mut Request, deadline: Instant) -> Result<(), Failure> {
        let authenticates = request.headers.iter().any(|(name, _)| *name == AUTHORIZATION)
            || userinfo::basic_auth(&request.url).is_some();
        let headers = if self.sources.has_files {
            let sources = Arc::clone(&self.sources);
            self.reader.run(deadline, move || sources.headers(authenticates)).await??
        } else {
            self.sources.headers(authenticates)?
        };
        request.headers.extend(headers);
        if let Some(oauth2) = &self.oauth2 {
            let token = oauth2.authorization(deadline).await?;
            request.headers.retain(|(name, _)| *name != AUTHORIZATION);
            request.headers.push((AUTHORIZATION, token));
        }
        Ok(())
    }
}

impl Sources {
    fn headers(&self, authenticates: bool) -> Result<Vec<(HeaderName, HeaderValue)>, Failure> {
        let mut headers = Vec::new();
        match self.auth.as_ref().filter(|_| !authenticates) {
            Some(Auth::Basic { username, password }) => {
                let mut pair = username.read_as("basic auth username")?;
                pair.push(b':');
                pair.extend(password.read_as("basic auth password")?);
                headers.push((AUTHORIZATION, userinfo::basic(&pair)));
            }
            Some(Auth::Scheme { name, credentials }) => {
                let mut text = name.clone().into_bytes();
                text.push(b' ');
                text.extend(credentials.read_as("authorization credentials")?);
                headers.push((AUTHORIZATION, sensitive("Authorization", &text)?));
            }
            None => {}
        }
        for (name, source) in &self.headers {
            let text = source
                .read()
                .map_err(|(path, reason)| Failure::Other(format!("unable to read headers file {path}: {reason}")))?;
            let value = sensitive(name, &text)?;
            let name = HeaderName::from_bytes(name.as_bytes())
                .map_err(|_| Failure::Other(format!("net/http: invalid header field name {}", go::quote(name))))?;
            headers.push((name, value));
        }
        Ok(headers)
    }
}

/// A header's value that is not printed and does not go to another host. Blanks around it are not sent, as in Go.
pub(super) fn sensitive(name: &str, text: &[u8]) -> Result<HeaderValue, Failure> {
    let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let start = text.iter().position(|byte| !is_blank(byte)).unwrap_or(text.len());
    let end = text.iter().rposition(|byte| !is_blank(byte)).map_or(start, |last| last + 1);
    let mut value = HeaderValue::from_bytes(text.get(start..end).unwrap_or_default())
        .map_err(|_| Failure::Other(format!("net/http: invalid header field value for {}", go::quote(name))))?;
    value.set_sensitive(true);
    Ok(value)
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credentials(<secret>)")
    }
}
