//! Target groups from an HTTP endpoint, as in Prometheus `discovery/http`.

use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt};
use tokio::time::Instant;

use crate::client::header::{ACCEPT, CONTENT_TYPE, HeaderName, HeaderValue};
use crate::client::{Request, Response};
use crate::config::discovery::HttpSd;
use crate::config::target_groups;
use crate::discovery::TargetGroup;
use crate::discovery::api::{self, ApiClient, BODY_LEN_MAX};
use crate::discovery::error::LookError;
use crate::discovery::metrics::SourceMetrics;
use crate::discovery::refresh::{Refreshed, Source, look_within};
use crate::model::go;

/// The label that says which endpoint a target is from.
const URL: &str = "__meta_url";

/// One endpoint.
pub struct HttpSource {
    url: String,
    interval: Duration,
    client: ApiClient,
    metrics: Arc<SourceMetrics>,
}

impl HttpSource {
    /// The endpoint of a configuration.
    pub fn new(config: &HttpSd, metrics: &Arc<SourceMetrics>) -> Self {
        Self {
            url: config.url.expose().to_owned(),
            interval: config.refresh_interval.to_std(),
            client: ApiClient::new(&config.http).counted(metrics, "http"),
            metrics: Arc::clone(metrics),
        }
    }

    async fn groups(&self) -> Result<Refreshed, LookError> {
        let deadline = Instant::now() + look_within(self.interval);
        let mut request = Request::get(api::url(&self.url)?);
        request.headers.push((ACCEPT, HeaderValue::from_static("application/json")));
        let interval = HeaderValue::from_str(&go::format_float_f(self.interval.as_secs_f64()));
        let interval = interval.map_err(|error| LookError::Other(error.to_string()))?;
        request.headers.push((HeaderName::from_static("x-prometheus-refresh-interval-seconds"), interval));
        let mut response = self.client.send(request, deadline).await?;
        check(&response)?;
        let content = api::body(&mut response, BODY_LEN_MAX).await?;
        let url = self.url.clone();
        api::parse(content, move |content| Ok(groups(&url, content)?.into())).await
    }
}

impl Source for HttpSource {
    fn look(&mut self) -> BoxFuture<'_, Result<Refreshed, LookError>> {
        async { self.groups().await.inspect_err(|_| self.metrics.http_failures.inc()) }.boxed()
    }
}

fn check(response: &Response) -> Result<(), LookError> {
    if response.status.as_u16() != 200 {
        let (status, code) = (response.status_text(), response.status.as_u16());
        return Err(LookError::Status { status, code, excerpt: String::new() });
    }
    let content_type = response.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    if is_json(content_type) { Ok(()) } else { Err(LookError::ContentType(content_type.to_owned())) }
}

/// `^(?i:application\/json(;\s*charset=("utf-8"|utf-8))?)$`
fn is_json(content_type: &str) -> bool {
    let lower = content_type.trim().to_ascii_lowercase();
    let Some(parameters) = lower.strip_prefix("application/json") else { return false };
    let charset = || parameters.strip_prefix(';')?.trim_start().strip_prefix("charset=");
    parameters.is_empty() || matches!(charset(), Some("utf-8" | "\"utf-8\""))
}

fn groups(url: &str, content: &[u8]) -> Result<Vec<TargetGroup>, LookError> {
    let mut groups = target_groups::parse_answer(content)?;
    for (index, group) in groups.iter_mut().enumerate() {
        group.source = format!("{url}:{index}");
        group.labels.0.insert(URL.to_owned(), url.to_owned());
    }
    Ok(groups.iter().map(TargetGroup::from).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_types_are_those_that_prometheus_takes() {
        for good in ["application/json", "Application/JSON; charset=UTF-8", "application/json;charset=\"utf-8\" "] {
            assert!(is_json(good), "{good}");
        }
        for bad in ["", "text/json", "application/json; charset=latin1", "application/jsonx", "application/json;"] {
            assert!(!is_json(bad), "{bad}");
        }
    }

    #[test]
    fn groups_have_their_source_and_the_url() {
        let found = groups("http://h/x", br#"[{"targets":["a:1"],"labels":{"x":"y"}},{"targets":[]}]"#).unwrap();
        let labels = crate::model::labels::Labels::from_pairs([("x", "y"), ("__meta_url", "http://h/x")]);
        assert_eq!((found[0].source.as_str(), &found[0].labels), ("http://h/x:0", &labels));
        assert_eq!(found[1].source, "http://h/x:1");
        assert_eq!(groups("u", b"[null]").unwrap_err().to_string(), "nil target group item found");
        assert!(groups("u", br#"{"targets":[]}"#).is_err());
    }
}
