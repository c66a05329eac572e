//! The request of a scrape.

use std::time::Duration;

use url::Url;

use crate::client::Request;
use crate::client::header::{ACCEPT, ACCEPT_ENCODING, HeaderName, HeaderValue, USER_AGENT};
use crate::config::ScrapeProtocol;
use crate::model::go;
use crate::scrape::settings::ScrapeSettings;

/// Weight of the first format in the `Accept` header, in tenths: one more than there are formats.
const WEIGHT_MAX: usize = 6;
/// How we name ourselves to targets.
pub const AGENT: &str = concat!("Watchfire/", env!("CARGO_PKG_VERSION"), " (compatible; Prometheus/3.14.0)");

const TIMEOUT_HEADER: HeaderName = HeaderName::from_static("x-prometheus-scrape-timeout-seconds");

/// The `Accept` header for these formats, best first; `escaping` is asked of the formats that know of it.
pub fn accept_header(protocols: &[ScrapeProtocol], escaping: &str) -> String {
    let mut header = String::new();
    let mut weight = WEIGHT_MAX;
    for protocol in protocols {
        header.push_str(protocol.media_type());
        if matches!(protocol, ScrapeProtocol::PrometheusText100 | ScrapeProtocol::OpenMetricsText100) {
            header.push_str(&format!(";escaping={escaping}"));
        }
        header.push_str(&format!(";q=0.{weight},"));
        weight = weight.saturating_sub(1);
    }
    header.push_str(&format!("*/*;q=0.{weight}"));
    header
}

/// The GET with Prometheus's headers.
pub(super) fn request(url: Url, settings: &ScrapeSettings, timeout: Duration) -> Request {
    let encoding = if settings.enable_compression { "gzip" } else { "identity" };
    let seconds = go::format_float_f(timeout.as_secs_f64());
    let mut request = Request::get(url);
    request.headers =
        vec![(ACCEPT_ENCODING, HeaderValue::from_static(encoding)), (USER_AGENT, HeaderValue::from_static(AGENT))];
    // Configured lists hold known names only, and those are header values.
    request.headers.extend(HeaderValue::from_str(&settings.accept).ok().map(|value| (ACCEPT, value)));
    // Digits and a point are always a header value.
    request.headers.extend(HeaderValue::from_str(&seconds).ok().map(|value| (TIMEOUT_HEADER, value)));
    request
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_accept_header_is_that_of_prometheus() {
        assert_eq!(
            accept_header(&ScrapeProtocol::default_list(), "allow-utf-8"),
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,application/openmetrics-text;\
             version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,\
             */*;q=0.2"
        );
        assert_eq!(
            accept_header(&ScrapeProtocol::proto_first_list(), "underscores"),
            "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.6,\
             application/openmetrics-text;version=1.0.0;escaping=underscores;q=0.5,application/openmetrics-text;\
             version=0.0.1;q=0.4,text/plain;version=1.0.0;escaping=underscores;q=0.3,text/plain;version=0.0.4;q=0.2,\
             */*;q=0.1"
        );
        assert_eq!(
            accept_header(&[ScrapeProtocol::PrometheusText004], "dots"),
            "text/plain;version=0.0.4;q=0.6,*/*;q=0.5"
        );
    }
}
