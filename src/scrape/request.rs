//! The request of a scrape.

use std::time::Duration;

use url::Url;

use crate::client::Request;
use crate::client::header::{ACCEPT, ACCEPT_ENCODING, HeaderName, HeaderValue, USER_AGENT};
use crate::model::go;
use crate::scrape::settings::ScrapeSettings;

/// Formats that we ask for. The list follows what is built: it grows by OpenMetrics and protobuf with their parsers.
const ACCEPTED: &str = "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
/// How we name ourselves to targets.
pub const AGENT: &str = concat!("Watchfire/", env!("CARGO_PKG_VERSION"), " (compatible; Prometheus/3.14.0)");

const TIMEOUT_HEADER: HeaderName = HeaderName::from_static("x-prometheus-scrape-timeout-seconds");

/// The GET with Prometheus's headers.
pub(super) fn request(url: Url, settings: &ScrapeSettings, timeout: Duration) -> Request {
    let encoding = if settings.enable_compression { "gzip" } else { "identity" };
    let seconds = go::format_float_f(timeout.as_secs_f64());
    let mut request = Request::get(url);
    request.headers = vec![
        (ACCEPT, HeaderValue::from_static(ACCEPTED)),
        (ACCEPT_ENCODING, HeaderValue::from_static(encoding)),
        (USER_AGENT, HeaderValue::from_static(AGENT)),
    ];
    // Digits and a point are always a header value.
    request.headers.extend(HeaderValue::from_str(&seconds).ok().map(|value| (TIMEOUT_HEADER, value)));
    request
}
