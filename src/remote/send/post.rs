//! One request on the wire, and what its answer means.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use url::Url;

use crate::client::header::{CONTENT_ENCODING, HeaderMap, HeaderName, HeaderValue};
use crate::client::{HttpClient, Request, Response};
use crate::config::RemoteWriteConfig;
use crate::model::time::TimestampMs;
use crate::remote::send::metrics::Counts;

/// How much of an error's text is told.
const TEXT_LEN_MAX: usize = 1024;
/// How much of an answer is read so that its connection can be used again; longer ones close it.
const ANSWER_LEN_MAX: usize = 64 * 1024;
/// Longer waits are not kept: the destination may be up again.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(24 * 3600);

/// Where to and how.
pub struct Endpoint {
    client: HttpClient,
    /// The URL, or why it is none.
    url: Result<Url, String>,
    headers: Vec<(HeaderName, HeaderValue)>,
    version_2: bool,
    timeout: Duration,
    retries_429: bool,
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// It was taken. What the answer says is written, by class; `None` if it says nothing of it.
    Taken(Option<Counts>),
    /// It may be sent again, after this long if the answer says so.
    Again {
        /// Not before; zero if the answer does not say.
        after: Duration,
        /// Why.
        error: String,
    },
    /// It must not be sent again.
    Refused {
        /// What the answer says is written all the same.
        written: Counts,
        /// Why.
        error: String,
    },
}

impl Endpoint {
    /// The destination of a configuration, asked through `client`.
    pub fn new(config: &RemoteWriteConfig, client: HttpClient) -> Self {
        let text = config.url.expose();
        let url = Url::parse(text).map_err(|error| format!("parse {:?}: {error}", config.url.redacted()));
        let version_2 = config.is_version_2();
        let fixed =
            |name: &'static str, value: &'static str| (HeaderName::from_static(name), HeaderValue::from_static(value));
        let version = if version_2 { "2.0.0" } else { "0.1.0" };
        let mut headers = vec![
            (CONTENT_ENCODING, HeaderValue::from_static("snappy")),
            fixed("x-prometheus-remote-write-version", version),
        ];
        for (name, value) in &config.headers {
            // A header that is none is refused when the configuration is read by Go as it is sent; here it is left out.
            if let (Ok(name), Ok(mut value)) = (HeaderName::try_from(name.as_str()), HeaderValue::try_from(value)) {
                value.set_sensitive(true);
                headers.push((name, value));
            }
        }
        let timeout = config.remote_timeout.to_std();
        Self { client, url, headers, version_2, timeout, retries_429: config.queue_config.retry_on_http_429 }
    }

    /// Sends a request for the `attempt`-th time, counted from 0. `now` tells how long a date is ahead.
    pub async fn post(&self, body: Bytes, attempt: u32, now: TimestampMs) -> Outcome {
        let url = match &self.url {
            Ok(url) => url.clone(),
            Err(error) => return Outcome::Refused { written: [0; 3], error: error.clone() },
        };
        let content_type = match self.version_2 {
            true => HeaderValue::from_static("application/x-protobuf;proto=io.prometheus.write.v2.Request"),
            false => HeaderValue::from_static("application/x-protobuf"),
        };
        let mut request = Request::post(url, content_type, body);
        request.headers.extend(self.headers.iter().cloned());
        if 0 < attempt {
            request.headers.push((HeaderName::from_static("retry-attempt"), HeaderValue::from(attempt)));
        }
        let deadline = Instant::now() + self.timeout;
        match self.client.send(request, deadline).await {
            Err(error) => Outcome::Again { after: Duration::ZERO, error: error.to_string() },
            Ok(response) => self.judge(response, now).await,
        }
    }

    async fn judge(&self, mut response: Response, now: TimestampMs) -> Outcome {
        let written = written(&response.headers);
        let status = response.status;
        if status.is_success() {
            // What the answer's body says is of no use; a failure in it changes nothing about the status.
            let _ = response.body.excerpt(ANSWER_LEN_MAX).await;
            return Outcome::Taken(written);
        }
        let text = response.body.excerpt(TEXT_LEN_MAX).await.unwrap_or_default();
        let error =
            format!("server returned HTTP status {}: {}", response.status_text(), String::from_utf8_lossy(&text));
        if status.is_server_error() || (status.as_u16() == 429 && self.retries_429) {
            return Outcome::Again { after: retry_after(&response.headers, now), error };
        }
        Outcome::Refused { written: written.unwrap_or([0; 3]), error }
    }
}

/// How many samples, exemplars and histograms an answer says are written.
fn written(headers: &HeaderMap) -> Option<Counts> {
    let number = |what: &str| {
        let value = headers.get(format!("x-prometheus-remote-write-{what}-written"))?;
        value.to_str().ok()?.parse::<u64>().ok()
    };
    let all = [number("samples"), number("exemplars"), number("histograms")];
    all.iter().any(Option::is_some).then(|| all.map(|count| count.unwrap_or(0)))
}

/// Seconds or a date; zero for anything else, and for what lies behind.
fn retry_after(headers: &HeaderMap, now: TimestampMs) -> Duration {
    let Some(text) = headers.get("retry-after").and_then(|value| value.to_str().ok()) else { return Duration::ZERO };
    let seconds = match jiff::fmt::rfc2822::parse(text) {
        Ok(date) => date.timestamp().as_millisecond().saturating_sub(now.0) / 1000,
        Err(_) => text.trim().parse::<i64>().unwrap_or(0),
    };
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0)).min(RETRY_AFTER_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_seconds_or_dates() {
        let of = |text: &str| {
            let headers = HeaderMap::from_iter([(HeaderName::from_static("retry-after"), text.parse().unwrap())]);
            retry_after(&headers, TimestampMs(1_445_412_470_000)).as_secs()
        };
        assert_eq!([of("5"), of("-5"), of("x"), of("0"), of("999999999")], [5, 0, 0, 0, 86_400]);
        assert_eq!(of("Wed, 21 Oct 2015 07:28:00 GMT"), 10);
        assert_eq!(of("Wed, 21 Oct 2015 07:27:00 GMT"), 0);
    }

    #[test]
    fn what_is_written_stands_in_headers() {
        let mut headers = HeaderMap::new();
        assert_eq!(written(&headers), None);
        let name = HeaderName::from_static("x-prometheus-remote-write-samples-written");
        headers.insert(name, HeaderValue::from_static("7"));
        assert_eq!(written(&headers), Some([7, 0, 0]));
    }
}
