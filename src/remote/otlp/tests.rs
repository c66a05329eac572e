//! Whole requests, written as JSON.

use std::time::Duration;

use super::*;
use crate::config::OtlpConfig;
use crate::model::append::{AppendReport, HistogramValue, SampleRejection, SeriesKey};
use crate::model::histogram::CounterResetHint;
use crate::model::sample::is_stale;
use crate::model::time::TimestampMs;
use crate::remote::otlp::delta::Dropped;
use crate::remote::receive::Extras;
use crate::remote::receive::budget::{Budget, NoRoom};

const NOW: TimestampMs = TimestampMs(1_700_000_000_000);

fn config(strategy: &str) -> OtlpConfig {
    OtlpConfig {
        translation_strategy: strategy.to_owned(),
        label_name_underscore_sanitization: true,
        label_name_preserve_multiple_underscores: true,
        ..OtlpConfig::default()
    }
}

fn read(config: &OtlpConfig, text: &str) -> Converted {
    convert(BodyFormat::Json, text.as_bytes(), settings(config), &mut Budget::new(0).permit()).unwrap()
}

fn settings(config: &OtlpConfig) -> Settings<'_> {
    let extras = Extras { exemplars: true, ..Extras::default() };
    Settings { config, lookback_ms: 300_000, now: NOW, extras, deltas: Deltas::Refused }
}

/// The request of one resource and one scope.
fn request(resource: &str, metrics: &str) -> String {
    format!(
        r#"{{"resourceMetrics":[{{"resource":{{"attributes":[{resource}]}},"scopeMetrics":[{{
            "scope":{{"name":"s","version":"1","attributes":[{}]}},"metrics":[{metrics}]}}]}}]}}"#,
        text("k", "v"),
    )
}

fn text(key: &str, value: &str) -> String {
    format!(r#"{{"key":"{key}","value":{{"stringValue":"{value}"}}}}"#)
}

fn lines(converted: &Converted) -> Vec<String> {
    let floats = converted.batch.samples.iter().map(|sample| {
        let SeriesKey::Labels(labels) = &sample.series else { panic!("a reference") };
        let value = if is_stale(sample.value) { "stale".to_owned() } else { sample.value.to_string() };
        format!("{labels} {value}@{}", sample.at.0)
    });
    let histograms = converted.batch.histograms.iter().map(|sample| {
        let SeriesKey::Labels(labels) = &sample.series else { panic!("a reference") };
        let HistogramValue::Integer(value) = &sample.value else { panic!("float counts") };
        format!("{labels} schema {} count {} sum {} {:?}", value.schema, value.count, value.sum, value.positive_buckets)
    });
    floats.chain(histograms).collect()
}

#[test]
fn numbers_have_the_labels_of_their_resource() {
    let service = [text("service.name", "shop"), text("service.namespace", "eu"), text("host.name", "h1")].join(",");
    let metrics = format!(
        r#"{{"name":"http.requests","unit":"1","sum":{{"isMonotonic":true,"aggregationTemporality":2,"dataPoints":[
            {{"timeUnixNano":"1000000000","asInt":"3","attributes":[{},{}]}}]}}}},
           {{"name":"temp","unit":"Cel","gauge":{{"dataPoints":[
            {{"timeUnixNano":"2000000000","asDouble":1.5,"flags":1}}]}}}}"#,
        text("http.method", "GET"),
        text("http_method", "x"),
    );
    let mut rules = config("UnderscoreEscapingWithSuffixes");
    let converted = read(&rules, &request(&service, &metrics));
    assert_eq!(
        lines(&converted),
        [
            r#"{__name__="http_requests_total", http_method="GET;x", job="eu/shop"} 3@1000"#,
            r#"{__name__="temp_celsius", job="eu/shop"} stale@2000"#,
            r#"{__name__="target_info", host_name="h1", job="eu/shop"} 1@1000"#,
            r#"{__name__="target_info", host_name="h1", job="eu/shop"} 1@2000"#,
        ]
    );
    assert_eq!((converted.warnings.len(), converted.refusal()), (1, None));

    rules.promote_resource_attributes = vec!["host.name".to_owned()];
    rules.promote_scope_metadata = true;
    rules.keep_identifying_resource_attributes = true;
    let converted = read(&rules, &request(&service, r#"{"name":"a","gauge":{"dataPoints":[{"timeUnixNano":"0"}]}}"#));
    assert_eq!(
        lines(&converted),
        [
            "{__name__=\"a\", host_name=\"h1\", job=\"eu/shop\", otel_scope_k=\"v\", otel_scope_name=\"s\", \
             otel_scope_version=\"1\"} 0@0",
            "{__name__=\"target_info\", host_name=\"h1\", job=\"eu/shop\", service_name=\"shop\", \
             service_namespace=\"eu\"} 1@0",
        ]
    );
    let plain = read(&config("NoTranslation"), &request(&text("service.name", "x"), &metrics));
    assert_eq!(lines(&plain)[0], r#"{__name__="http.requests", "http.method"="GET", http_method="x", job="x"} 3@1000"#);
    assert_eq!(plain.batch.samples.len(), 2, "a resource with a name alone has nothing to tell");
}

#[test]
fn histograms_and_summaries_become_series() {
    let histogram = r#"{"name":"h","unit":"s","histogram":{"aggregationTemporality":2,"dataPoints":[{
        "timeUnixNano":"5000000","count":"6","sum":2.5,"bucketCounts":["0","4","2"],"explicitBounds":[0.5,1],
        "exemplars":[{"asDouble":1}]}]}}"#;
    let rules = config("UnderscoreEscapingWithSuffixes");
    let converted = read(&rules, &request("", histogram));
    assert_eq!(
        lines(&converted),
        [
            r#"{__name__="h_seconds_sum"} 2.5@5"#,
            r#"{__name__="h_seconds_count"} 6@5"#,
            r#"{__name__="h_seconds_bucket", le="0.5"} 0@5"#,
            r#"{__name__="h_seconds_bucket", le="1"} 4@5"#,
            r#"{__name__="h_seconds_bucket", le="+Inf"} 6@5"#,
        ]
    );
    assert_eq!((converted.exemplars, converted.batch.exemplars.len()), (1, 1));
    let custom = OtlpConfig { convert_histograms_to_nhcb: true, ..rules.clone() };
    let native = read(&custom, &request("", histogram));
    assert_eq!(lines(&native), [r#"{__name__="h_seconds"} schema -53 count 6 sum 2.5 [4, -2]"#]);
    assert!(native.batch.histograms[0].value.validate().is_ok());
    let exponential = r#"{"name":"e","exponentialHistogram":{"aggregationTemporality":"AGGREGATION_TEMPORALITY_CUMULATIVE",
        "dataPoints":[{"timeUnixNano":"5000000","count":"5","sum":7,"scale":1,"zeroCount":"1",
        "positive":{"offset":-1,"bucketCounts":["1","0","3"]}}]}}"#;
    let native = read(&rules, &request("", exponential));
    assert_eq!(lines(&native), [r#"{__name__="e"} schema 1 count 5 sum 7 [1, -1, 3]"#]);
    assert!(native.batch.histograms[0].value.validate().is_ok());
    let summary = r#"{"name":"q","summary":{"dataPoints":[{"timeUnixNano":"5000000","count":"2","sum":3,
        "quantileValues":[{"quantile":0.5,"value":1}]}]}}"#;
    assert_eq!(
        lines(&read(&rules, &request("", summary))),
        [r#"{__name__="q_sum"} 3@5"#, r#"{__name__="q_count"} 2@5"#, r#"{__name__="q", quantile="0.5"} 1@5"#]
    );
}

#[test]
fn what_cannot_be_translated_is_named_and_nothing_is_stored() {
    let metrics = r#"{"name":"a","sum":{"aggregationTemporality":1,"dataPoints":[{}]}},{"name":"b"},
        {"name":"c","gauge":{"dataPoints":[{"timeUnixNano":"5000000"}]}},
        {"name":"d","exponentialHistogram":{"aggregationTemporality":2,"dataPoints":[{"scale":-9}]}},
        {"name":"e","gauge":{"dataPoints":[]}}"#;
    let converted = read(&config("UnderscoreEscapingWithSuffixes"), &request("", metrics));
    let refusal = converted.refusal().unwrap();
    let text = "invalid temporality and type combination for metric \"a\"\n\
                could not get aggregation temporality for b as it has unsupported metric type Empty\n\
                cannot convert exponential to native histogram. Scale must be >= -4, was -9";
    assert_eq!((refusal.status, refusal.text.as_str(), converted.warnings.len()), (500, text, 1));
}

#[test]
fn the_first_refusal_of_each_metric_is_told() {
    let far = NOW.0 * 1_000_000 + 3_600_000_000_000;
    let metrics = format!(
        r#"{{"name":"a","gauge":{{"dataPoints":[{{"timeUnixNano":"1"}},{{"timeUnixNano":"2"}}]}}}},
           {{"name":"b","gauge":{{"dataPoints":[{{"timeUnixNano":"{far}"}}]}}}}"#
    );
    let converted = read(&config("UnderscoreEscapingWithSuffixes"), &request("", &metrics));
    let rejected =
        vec![(0, SampleRejection::OutOfOrder), (1, SampleRejection::OutOfOrder), (2, SampleRejection::OutOfBounds)];
    let reply = of_report(&converted, &AppendReport { rejected, ..AppendReport::default() });
    let text = "out of order sample\nout of bounds: timestamp is too far in the future";
    assert_eq!((reply.status, reply.text.as_str()), (400, text));
    assert_eq!(of_report(&converted, &AppendReport::default()).status, 200);
}

#[test]
fn a_target_that_was_there_for_ages_takes_no_more_than_is_given() {
    let resource = [text("service.name", "x"), text("a", "b")].join(",");
    let metrics = format!(
        r#"{{"name":"a","gauge":{{"dataPoints":[{{"timeUnixNano":"0"}},{{"timeUnixNano":"{}"}}]}}}}"#,
        NOW.0 * 1_000_000
    );
    let rules = config("UnderscoreEscapingWithSuffixes");
    let settings = settings(&rules);
    let body = request(&resource, &metrics);
    let refused = convert(BodyFormat::Json, body.as_bytes(), settings, &mut Budget::new(1 << 20).permit());
    assert!(matches!(refused, Err(OtlpError::Room(NoRoom::Ever { .. }))));
}

/// What is said of metrics goes to each of their series; what deltas count is not known.
#[test]
fn metrics_are_described() {
    let metrics = r#"{"name":"a","unit":"By/s","description":"Help.","sum":{"isMonotonic":true,"aggregationTemporality":2,
            "dataPoints":[{"timeUnixNano":"1000000","asInt":"1"}]}},
        {"name":"b","summary":{"dataPoints":[{"timeUnixNano":"1000000"},{"timeUnixNano":"2000000","flags":1}]}},
        {"name":"d","sum":{"aggregationTemporality":1,"dataPoints":[{"timeUnixNano":"1000000","asInt":"1"}]}},
        {"name":"e","exponentialHistogram":{"aggregationTemporality":1,"dataPoints":[{"timeUnixNano":"1000000",
            "exemplars":[{"asInt":"1"}]}]}},
        {"name":"g","gauge":{"dataPoints":[{"timeUnixNano":"1000000","exemplars":[{}]}]}}"#;
    let rules = config("UnderscoreEscapingWithSuffixes");
    let extras = Extras { metadata: true, ..Extras::default() };
    let settings = Settings { extras, deltas: Deltas::AsTheyAre, ..settings(&rules) };
    let resource = [text("service.name", "x"), text("z", "y")].join(",");
    let body = request(&resource, metrics);
    let converted = convert(BodyFormat::Json, body.as_bytes(), settings, &mut Budget::new(0).permit()).unwrap();
    assert_eq!(converted.refusal(), None);
    let described = converted.batch.metadata.iter().map(|one| {
        let SeriesKey::Labels(labels) = &one.series else { panic!("a reference") };
        let said = &one.metadata;
        format!("{} {:?} {:?} {:?}", labels.get("__name__").unwrap_or(""), said.kind, said.unit, said.help)
    });
    assert_eq!(
        described.collect::<Vec<_>>(),
        [
            r#"a_bytes_per_second_total Counter "bytes_per_second" "Help.""#,
            r#"b_sum Summary "" """#,
            r#"b_count Summary "" """#,
            r#"g Gauge "" """#,
            r#"target_info Gauge "" "Target metadata""#,
            r#"target_info Gauge "" "Target metadata""#,
        ]
    );
    assert_eq!((converted.undescribed, converted.exemplars), (2, 1), "gauges have no exemplars");
    let HistogramValue::Integer(histogram) = &converted.batch.histograms[0].value else { panic!("float counts") };
    assert_eq!(histogram.counter_reset_hint, CounterResetHint::Gauge);
}

/// Points of deltas become what their streams have come to; what cannot be added is left out, with its times.
#[test]
fn deltas_are_added_up() {
    let point = |name: &str, temporality: u8, start: u64, nanos: u64, value: u64, more: &str| {
        format!(
            r#"{{"name":"{name}","sum":{{"isMonotonic":true,"aggregationTemporality":{temporality},"dataPoints":[
            {{"startTimeUnixNano":"{start}000000","timeUnixNano":"{nanos}000000","asInt":"{value}"{more}}}]}}}}"#
        )
    };
    let (rules, streams) = (config("UnderscoreEscapingWithSuffixes"), DeltaStreams::new(0));
    let extras = Extras { starts: true, ..Extras::default() };
    let read = |resource: &str, metrics: &str| {
        let deltas = Deltas::Summed(&streams, Duration::ZERO);
        let settings = Settings { extras, deltas, ..settings(&rules) };
        let body = request(resource, metrics);
        convert(BodyFormat::Json, body.as_bytes(), settings, &mut Budget::new(0).permit()).unwrap()
    };
    let resource = [text("service.name", "x"), text("z", "y")].join(",");
    let first = read(&resource, &[point("a", 1, 5, 10, 2, ""), point("c", 2, 5, 10, 7, "")].join(","));
    let target = r#"{__name__="target_info", job="x", z="y"} 1@"#;
    let a = r#"{__name__="a_total", job="x"} "#;
    assert_eq!(
        lines(&first),
        [format!("{a}2@10"), r#"{__name__="c_total", job="x"} 7@10"#.to_owned(), format!("{target}10")]
    );
    let second = read(&resource, &[point("a", 1, 10, 20, 3, ""), point("a", 1, 10, 15, 3, "")].join(","));
    assert_eq!(lines(&second), [format!("{a}5@20"), format!("{target}20")]);
    assert_eq!((&second.dropped[..], &second.batch.starts.samples[..]), (&[Dropped::OutOfOrder][..], &[(0, 5)][..]));
    let all_late = read(&resource, &point("a", 1, 10, 20, 3, ""));
    assert_eq!((lines(&all_late).len(), all_late.refusal(), all_late.warnings.len()), (0, None, 0));
    let other = format!(r#","attributes":[{}]"#, text("k", "v"));
    let others = read("", &[point("a", 1, 20, 30, 1, ""), point("a", 1, 20, 30, 4, &other)].join(","));
    assert_eq!(lines(&others), [r#"{__name__="a_total"} 1@30"#, r#"{__name__="a_total", k="v"} 4@30"#]);
    assert_eq!(streams.len(), 3);
    assert_eq!(read("", &point("a", 0, 1, 1, 1, "")).errors.len(), 1);
}

proptest::proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(body in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300)) {
        let rules = config("UnderscoreEscapingWithSuffixes");
        let streams = DeltaStreams::new(0);
        let settings = Settings { deltas: Deltas::Summed(&streams, Duration::ZERO), ..settings(&rules) };
        for format in [BodyFormat::Protobuf, BodyFormat::Json] {
            let _ = convert(format, &body, settings, &mut Budget::new(1 << 24).permit());
        }
    }
}
