//! What the server says of itself: `/api/v1/features`, `/api/v1/notifications`, `/api/v1/status/self_metrics`.

use crate::http::envelope;
use crate::http::error::ApiError;
use crate::http::json::Json;
use crate::http::request::Context;
use crate::http::response::Response;
use crate::model::labels::Labels;
use crate::model::regexp::Regexp;
use crate::telemetry::metrics::{MetricFamily, MetricKind, MetricValue};

/// `GET /api/v1/features`.
pub(crate) async fn features(context: Context) -> Result<Response, ApiError> {
    let features = context.state.ports.features();
    Ok(envelope::data(|json| {
        // Names of operators stand as they are, as in Prometheus.
        for (number, (category, features)) in features.iter().enumerate() {
            json.raw(if number == 0 { "{" } else { "," });
            json.label_string(category);
            for (number, (name, is_there)) in features.iter().enumerate() {
                json.raw(if number == 0 { ":{" } else { "," });
                json.label_string(name);
                json.raw(if *is_there { ":true" } else { ":false" });
            }
            json.raw(if features.is_empty() { ":{}" } else { "}" });
        }
        json.raw(if features.is_empty() { "{}" } else { "}" });
    }))
}

/// `GET /api/v1/notifications`.
pub(crate) async fn notifications(context: Context) -> Result<Response, ApiError> {
    let notices = context.state.notices.clone();
    Ok(envelope::data(|json| notices.write(json)))
}

/// `GET /api/v1/notifications/live`: a stream of events.
pub(crate) async fn live(context: Context) -> Result<Response, ApiError> {
    let Some(listener) = context.state.notices.listen() else { return Ok(envelope::no_content()) };
    let response = Response::ok("text/event-stream", Vec::new()).with("Cache-Control", "no-cache");
    Ok(response.followed_by(listener))
}

/// `GET /api/v1/status/self_metrics`: our own metrics as the JSON of protocol buffers.
pub(crate) async fn self_metrics(context: Context) -> Result<Response, ApiError> {
    let filter = match context.params.get("metric_name_pattern") {
        "" => None,
        pattern => Some(
            Regexp::unanchored(&format!("^(?:{pattern})$"))
                .map_err(|error| ApiError::bad_data(format!("invalid metric_name_pattern: {error}")))?,
        ),
    };
    let mut families = context.state.ports.gathered();
    families.retain(|family| filter.as_ref().is_none_or(|filter| filter.is_match(&family.name)));
    Ok(envelope::data(|json| {
        let mut array = json.array();
        families.iter().for_each(|one| family(array.item(), one));
        array.end();
    }))
}

fn family(json: &mut Json, family: &MetricFamily) {
    let mut object = json.object();
    object.string("name", &family.name).string_if_any("help", &family.help);
    let kind = match family.kind {
        MetricKind::Counter => "COUNTER",
        MetricKind::Gauge => "GAUGE",
        MetricKind::Histogram => "HISTOGRAM",
        MetricKind::Summary => "SUMMARY",
    };
    object.string("type", kind);
    let mut array = object.key("metric").array();
    for (labels, value) in &family.metrics {
        metric(array.item(), family.kind, labels, value);
    }
    array.end();
    object.end();
}

fn metric(json: &mut Json, kind: MetricKind, labels: &Labels, value: &MetricValue) {
    let mut object = json.object();
    if !labels.is_empty() {
        let mut array = object.key("label").array();
        for (name, value) in labels {
            let mut pair = array.item().object();
            pair.string("name", name).string("value", value);
            pair.end();
        }
        array.end();
    }
    match value {
        MetricValue::Number(number) => {
            let mut one = object.key(if kind == MetricKind::Counter { "counter" } else { "gauge" }).object();
            double(one.key("value"), *number);
            one.end();
        }
        MetricValue::Summary { quantiles, sum, count } => {
            let mut one = object.key("summary").object();
            one.string("sampleCount", &count.to_string());
            double(one.key("sampleSum"), *sum);
            if !quantiles.is_empty() {
                let mut array = one.key("quantile").array();
                for (quantile, value) in quantiles {
                    let mut pair = array.item().object();
                    double(pair.key("quantile"), *quantile);
                    double(pair.key("value"), *value);
                    pair.end();
                }
                array.end();
            }
            one.end();
        }
        MetricValue::Histogram { buckets, sum, count } => {
            let mut one = object.key("histogram").object();
            one.string("sampleCount", &count.to_string());
            double(one.key("sampleSum"), *sum);
            let mut array = one.key("bucket").array();
            for (bound, cumulative) in buckets.iter().filter(|(bound, _)| bound.is_finite()) {
                let mut bucket = array.item().object();
                bucket.string("cumulativeCount", &cumulative.to_string());
                double(bucket.key("upperBound"), *bound);
                bucket.end();
            }
            array.end();
            one.end();
        }
    }
    object.end();
}

/// A float; those that JSON lacks are names.
fn double(json: &mut Json, value: f64) {
    match value {
        value if value.is_nan() => json.raw("\"NaN\""),
        f64::INFINITY => json.raw("\"Infinity\""),
        f64::NEG_INFINITY => json.raw("\"-Infinity\""),
        value => json.number(value),
    }
}
