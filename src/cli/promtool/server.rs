//! A Prometheus server as `promtool` asks it: requests of its API, and the texts for what goes wrong.

use std::io::{self, Write as _};
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;
use url::Url;

use super::{Given, OWN, existing_files, flag, refuse};
use crate::cli::EXIT_FAILURE;
use crate::cli::flag_spec::{FlagSpec, Kind};
use crate::client::header::{HeaderName, HeaderValue};
use crate::client::{ClientOptions, HttpClient, Request, Response};
use crate::config::http_client::HttpClientConfig;
use crate::telemetry::build_info;

/// How to ask: credentials, TLS, proxies.
pub(super) const HTTP_CONFIG: FlagSpec = flag(
    "http.config.file",
    Kind::Text,
    "",
    OWN,
    "HTTP client configuration file, see details at https://prometheus.io/docs/prometheus/latest/configuration/promtool",
);

/// What `--http.config.file` says; `None` if it is not given. The error is the exit code, with everything told.
pub(super) fn http_config(given: &Given) -> Result<Option<HttpClientConfig>, u8> {
    let path = given.values.text("http.config.file");
    if path.is_empty() {
        return Ok(None);
    }
    existing_files(&[path.to_owned()]).map_err(|reason| refuse(&reason))?;
    HttpClientConfig::load(path).map(Some).map_err(|error| {
        let _ = writeln!(io::stderr(), "promtool: error: Failed to load HTTP config file: {error}");
        EXIT_FAILURE
    })
}

/// Longest answer that is read.
const ANSWER_LEN_MAX: usize = 1 << 30;

/// The server at a URL.
pub(super) struct Server {
    url: Url,
    client: HttpClient,
    headers: Vec<(HeaderName, HeaderValue)>,
    within: Duration,
}

/// An answer, read whole.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
}

impl Server {
    /// A server; without a scheme it is `http`. `headers` are `name=value`. The error is for the user.
    pub(super) fn new(
        url: &str,
        headers: &[String],
        within: Duration,
        config: Option<&HttpClientConfig>,
    ) -> Result<Self, String> {
        let written =
            if url.contains("://") { url.to_owned() } else { format!("http://{}", url.trim_start_matches('/')) };
        let url = Url::parse(&written).map_err(|error| format!("parse {}: {error}", crate::model::go::quote(url)))?;
        let mut parsed = Vec::new();
        for header in headers {
            let (name, value) =
                header.split_once(['=', ':']).ok_or_else(|| format!("expected KEY=VALUE got '{header}'"))?;
            let name = HeaderName::from_bytes(name.trim().as_bytes()).map_err(|error| error.to_string())?;
            let value = HeaderValue::from_str(value.trim()).map_err(|error| error.to_string())?;
            parsed.push((name, value));
        }
        let user_agent = format!("promtool/{}", build_info::COMPATIBLE_VERSION);
        let client = match config {
            Some(config) => HttpClient::from_config(user_agent, config),
            None => HttpClient::new(ClientOptions { user_agent, follow_redirects: true }),
        };
        Ok(Self { url, client, headers: parsed, within })
    }

    /// The URL of a path below the server's own.
    pub(super) fn at(&self, path: &[&str]) -> Url {
        let mut url = self.url.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        url
    }

    /// Sends one request; the error is the client's text.
    pub(super) fn send(&self, mut request: Request) -> Result<Answer, String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| error.to_string())?;
        request.headers.extend(self.headers.iter().cloned());
        let deadline = Instant::now() + self.within;
        runtime.block_on(async {
            let answer = self.client.send(request, deadline).await.map_err(|error| error.to_string())?;
            read(answer).await
        })
    }

    /// The data of an API answer. `form` are the parameters of a POST.
    pub(super) fn data(&self, path: &[&str], form: &[(&str, String)]) -> Result<Value, String> {
        let mut url = self.at(path);
        url.query_pairs_mut().extend_pairs(form);
        let body = url.query().unwrap_or("").to_owned();
        url.set_query(None);
        let content_type = HeaderValue::from_static("application/x-www-form-urlencoded");
        data_of(&self.send(Request::post(url, content_type, body.into()))?)
    }

    /// The same by GET.
    pub(super) fn data_by_get(&self, path: &[&str], query: &[(&str, String)]) -> Result<Value, String> {
        let mut url = self.at(path);
        url.query_pairs_mut().extend_pairs(query);
        data_of(&self.send(Request::get(url))?)
    }
}

async fn read(mut answer: Response) -> Result<Answer, String> {
    let mut body = Vec::new();
    while let Some(chunk) = answer.body.chunk().await.map_err(|failure| failure.to_string())? {
        if ANSWER_LEN_MAX - body.len() < chunk.len() {
            return Err(format!("the answer has more than {ANSWER_LEN_MAX} bytes"));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Answer { status: answer.status.as_u16(), body })
}

/// What an answer holds, or the error that it tells, in the words of Prometheus's client.
fn data_of(answer: &Answer) -> Result<Value, String> {
    let status = answer.status;
    if !(200..300).contains(&status) && status != 400 && status != 422 {
        let kind = match status {
            400..500 => "client_error: client error",
            500..600 => "server_error: server error",
            _ => "bad_response: bad response code",
        };
        let shown = if kind.starts_with("bad") { format!("{kind} {status}") } else { format!("{kind}: {status}") };
        let detail = String::from_utf8_lossy(&answer.body).trim().to_owned();
        return Err(if detail.is_empty() { shown } else { format!("{shown} (detail: {detail})") });
    }
    let mut json: Value = serde_json::from_slice(&answer.body).map_err(|error| format!("bad_response: {error}"))?;
    if json["status"] == "error" {
        let text = |name: &str| json[name].as_str().unwrap_or_default().to_owned();
        return Err(format!("{}: {}", text("errorType"), text("error")));
    }
    Ok(json["data"].take())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_told_as_prometheus_tells_them() {
        let error = |status, body: &str| data_of(&Answer { status, body: body.into() }).unwrap_err();
        let refused = r#"{"status":"error","errorType":"bad_data","error":"no"}"#;
        assert_eq!(error(400, refused), "bad_data: no");
        assert_eq!(error(503, "gone\n"), "server_error: server error: 503 (detail: gone)");
        assert_eq!(error(404, ""), "client_error: client error: 404");
        assert_eq!(data_of(&Answer { status: 200, body: br#"{"status":"success","data":[1]}"#.into() }).unwrap()[0], 1);
    }

    #[test]
    fn paths_stand_below_the_url() {
        let at = |url: &str| Server::new(url, &[], Duration::ZERO, None).unwrap().at(&["-", "ready"]).to_string();
        assert_eq!(at("localhost:9090"), "http://localhost:9090/-/ready");
        assert_eq!(at("https://a/b/"), "https://a/b/-/ready");
    }
}
