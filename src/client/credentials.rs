//! Who a client says it is: `basic_auth`, `authorization` and `http_headers` of its configuration.
//!
//! All of it becomes headers of the request, each marked as sensitive, so that it is neither printed nor sent to another
//! host after a redirect. Files are read again for each request: a rotated token works from the next one on.

use std::fs::File;
use std::io::{self, Read};
use std::sync::Arc;

use hyper::header::{AUTHORIZATION, HeaderName, HeaderValue};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use crate::client::{Failure, Request, userinfo};
use crate::config::http_client::HttpClientConfig;
use crate::model::go;
use crate::model::secret::Secret;

/// Largest file with a credential.
const FILE_LEN_MAX: u64 = 64 * 1024;
/// Requests of a client whose files are read at the same time. A file system that hangs holds as many threads, no more;
/// the other requests wait for their turn and end at their deadlines.
const READS_MAX: usize = 4;

/// What a client sends beside the headers of a request. Clones are cheap.
#[derive(Clone)]
pub struct Credentials {
    sources: Arc<Sources>,
    turns: Arc<Semaphore>,
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

enum Source {
    Text(Secret<String>),
    File(String),
}

impl Source {
    /// The file if there is one, else the text, which may be empty.
    fn new(text: &Secret<String>, file: &str) -> Self {
        if file.is_empty() { Self::Text(text.clone()) } else { Self::File(file.to_owned()) }
    }

    fn read(&self) -> Result<Vec<u8>, (&str, String)> {
        match self {
            Self::Text(text) => Ok(text.expose().as_bytes().to_vec()),
            Self::File(path) => read_file(path).map_err(|reason| (path.as_str(), reason)),
        }
    }

    fn credential(&self, what: &str) -> Result<Vec<u8>, Failure> {
        self.read().map_err(|(path, reason)| {
            Failure::Other(format!("unable to read {what}: unable to read file {path}: {reason}"))
        })
    }
}

/// The file's content without surrounding white space, or the reason in Go's words.
fn read_file(path: &str) -> Result<Vec<u8>, String> {
    let in_go = |action: &str, error: &io::Error| {
        let reason = match error.kind() {
            io::ErrorKind::NotFound => "no such file or directory".to_owned(),
            io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
            io::ErrorKind::IsADirectory => "is a directory".to_owned(),
            _ => error.to_string(),
        };
        format!("{action} {path}: {reason}")
    };
    let file = File::open(path).map_err(|error| in_go("open", &error))?;
    let mut content = Vec::new();
    file.take(FILE_LEN_MAX + 1).read_to_end(&mut content).map_err(|error| in_go("read", &error))?;
    if FILE_LEN_MAX < content.len() as u64 {
        return Err(format!("read {path}: larger than {FILE_LEN_MAX} bytes"));
    }
    Ok(content.trim_ascii().to_vec())
}

impl Credentials {
    /// No credentials.
    pub fn none() -> Self {
        Self::of(None, Vec::new())
    }

    /// Those of a configuration. Names in a secret manager, OAuth 2 and TLS are not among them: who starts with a
    /// configuration refuses them (`config::inactive`).
    pub fn from_config(config: &HttpClientConfig) -> Self {
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
        Self::of(basic.or(scheme), headers)
    }

    fn of(auth: Option<Auth>, headers: Vec<(String, Source)>) -> Self {
        let is_file = |source: &Source| matches!(source, Source::File(_));
        let auth_file = match &auth {
            Some(Auth::Basic { username, password }) => is_file(username) || is_file(password),
            Some(Auth::Scheme { credentials, .. }) => is_file(credentials),
            None => false,
        };
        let has_files = auth_file || headers.iter().any(|(_, source)| is_file(source));
        let sources = Arc::new(Sources { auth, headers, has_files });
        Self { sources, turns: Arc::new(Semaphore::new(READS_MAX)) }
    }

    #[cfg(test)]
    pub(super) fn turns_left(&self) -> usize {
        self.turns.available_permits()
    }

    /// Adds what the request does not have: an `Authorization` header of its own, or userinfo in its URL, goes first.
    /// Errors name the file, never its content.
    pub(super) async fn add_to(&self, request: &mut Request, deadline: Instant) -> Result<(), Failure> {
        let authenticates = request.headers.iter().any(|(name, _)| *name == AUTHORIZATION)
            || userinfo::basic_auth(&request.url).is_some();
        let headers = if self.sources.has_files {
            // Reading may block, on a network file system for long, and this is the thread of actors. Threads of the
            // runtime's own are there for that; the turn goes along and comes back when the file has been read.
            let turn = timeout_at(deadline, Arc::clone(&self.turns).acquire_owned()).await;
            let turn = turn.map_err(|_| Failure::Deadline)?;
            let sources = Arc::clone(&self.sources);
            let reading = tokio::task::spawn_blocking(move || {
                let headers = sources.headers(authenticates);
                drop(turn);
                headers
            });
            let read = timeout_at(deadline, reading).await.map_err(|_| Failure::Deadline)?;
            read.map_err(|error| Failure::Other(format!("reading credentials has failed: {error}")))??
        } else {
            self.sources.headers(authenticates)?
        };
        request.headers.extend(headers);
        Ok(())
    }
}

impl Sources {
    fn headers(&self, authenticates: bool) -> Result<Vec<(HeaderName, HeaderValue)>, Failure> {
        let mut headers = Vec::new();
        match self.auth.as_ref().filter(|_| !authenticates) {
            Some(Auth::Basic { username, password }) => {
                let mut pair = username.credential("basic auth username")?;
                pair.push(b':');
                pair.extend(password.credential("basic auth password")?);
                headers.push((AUTHORIZATION, userinfo::basic(&pair)));
            }
            Some(Auth::Scheme { name, credentials }) => {
                let mut text = name.clone().into_bytes();
                text.push(b' ');
                text.extend(credentials.credential("authorization credentials")?);
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
fn sensitive(name: &str, text: &[u8]) -> Result<HeaderValue, Failure> {
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
