//! Bodies and parameters that clients send: whatever comes, it is read or refused, without a panic and without more memory than
//! its length warrants. Whole requests, with their heads, are sent by `tests/api/fuzzed.rs`.

use std::time::Duration;

use watchfire::config::OtlpConfig;
use watchfire::config::web::WebConfig;
use watchfire::exposition::negotiate::negotiate;
use watchfire::http::params::{Params, parse_duration, parse_time};
use watchfire::model::time::TimestampMs;
use watchfire::remote::otlp::{BodyFormat, BodyPacking, DeltaStreams, Deltas, Settings, convert};
use watchfire::remote::read::{ReadMatcher, ReadQuery, ReadRequest, decode_request, encode_request};
use watchfire::remote::receive::budget::Budget;
use watchfire::remote::receive::cache::SeriesCache;
use watchfire::remote::receive::{
    Accepted, DECODED_LEN_MAX, Extras, Format, Lookup, Message, Packing, decode, decoded_len, unpack,
};

use crate::{mutate, run, storage};

const NOW: TimestampMs = TimestampMs(1_700_000_000_000);
const EXTRAS: Extras = Extras { exemplars: true, metadata: true, starts: true };

/// A field that holds bytes or a message.
fn part(field: u8, bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![field << 3 | 2];
    let mut len = bytes.len();
    while 0x80 <= len {
        out.push(len as u8 | 0x80);
        len >>= 7;
    }
    out.push(len as u8);
    [out, bytes.to_vec()].concat()
}

/// A field that holds a number.
fn number(field: u8, value: u8) -> Vec<u8> {
    vec![field << 3, value & 0x7f]
}

/// A field that holds 64 bits.
fn fixed(field: u8, value: f64) -> Vec<u8> {
    [vec![field << 3 | 1], value.to_le_bytes().to_vec()].concat()
}

fn whole(parts: &[Vec<u8>]) -> Vec<u8> {
    parts.concat()
}

/// Requests of remote write 1.0.
fn first_version() -> Vec<Vec<u8>> {
    let label = |name: &str, value: &str| part(1, &whole(&[part(1, name.as_bytes()), part(2, value.as_bytes())]));
    let sample = part(2, &whole(&[fixed(1, 1.5), number(2, 100)]));
    let exemplar = part(3, &whole(&[label("trace", "x"), fixed(2, 2.0), number(3, 9)]));
    let span = whole(&[number(1, 2), number(2, 2)]);
    let histogram = whole(&[
        number(1, 5),
        fixed(3, 9.5),
        number(4, 1),
        fixed(5, 0.001),
        number(6, 1),
        part(11, &span),
        part(12, &[2, 1]),
        number(15, 7),
    ]);
    let series = whole(&[label("__name__", "m"), label("job", "a"), sample.clone(), sample, exemplar]);
    let histograms = whole(&[label("__name__", "h"), part(4, &histogram)]);
    let metadata = whole(&[number(1, 1), part(2, b"m"), part(4, b"Help."), part(5, b"s")]);
    vec![
        whole(&[part(1, &series), part(1, &histograms), part(3, &metadata)]),
        part(1, &series).repeat(20),
        part(1, &histograms),
    ]
}

/// Requests of remote write 2.0.
fn second_version() -> Vec<Vec<u8>> {
    let symbols: Vec<u8> =
        ["", "__name__", "m", "job", "a", "Help.", "s"].iter().flat_map(|text| part(4, text.as_bytes())).collect();
    let sample = part(2, &whole(&[fixed(1, 1.5), number(2, 100)]));
    let exemplar = part(4, &whole(&[part(1, &[3, 4]), fixed(2, 2.0), number(3, 9)]));
    let metadata = part(5, &whole(&[number(1, 1), number(3, 5), number(4, 6)]));
    let series = part(5, &whole(&[part(1, &[1, 2, 3, 4]), sample.clone(), sample, exemplar, metadata, number(6, 1)]));
    vec![whole(&[symbols.clone(), series.clone()]), whole(&[symbols, series.repeat(30)])]
}

fn read_requests() -> Vec<Vec<u8>> {
    let matcher = |kind, name: &str, value: &str| ReadMatcher { kind, name: name.to_owned(), value: value.to_owned() };
    let query = ReadQuery {
        start_ms: 1,
        end_ms: 1_000,
        matchers: vec![matcher(0, "__name__", "m"), matcher(2, "job", "a.*|b")],
    };
    let request = ReadRequest { queries: vec![query.clone(), query], accepted: vec![1, 0] };
    let packed = encode_request(&request);
    vec![packed, encode_request(&ReadRequest::default())]
}

const OTLP: &str = r#"{"resourceMetrics":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"shop"}},
{"key":"l","value":{"arrayValue":{"values":[{"intValue":"3"},{"doubleValue":1.5},{"boolValue":true}]}}}]},"scopeMetrics":[{
"scope":{"name":"s","version":"1"},"metrics":[{"name":"a.b","unit":"By","sum":{"isMonotonic":true,"aggregationTemporality":2,
"dataPoints":[{"startTimeUnixNano":"1","timeUnixNano":"1000000000","asInt":"3","exemplars":[{"timeUnixNano":"5","asDouble":1,
"traceId":"aa","spanId":"bb"}]}]}},{"name":"h","histogram":{"aggregationTemporality":2,"dataPoints":[{"timeUnixNano":"2000000000",
"count":"3","sum":4.5,"bucketCounts":["1","2"],"explicitBounds":[1.0]}]}},{"name":"e","exponentialHistogram":{
"aggregationTemporality":2,"dataPoints":[{"timeUnixNano":"3000000000","count":"3","scale":2,"zeroCount":"1","positive":{"offset":1,
"bucketCounts":["1","1"]}}]}},{"name":"q","summary":{"dataPoints":[{"timeUnixNano":"4000000000","count":"3","sum":1,
"quantileValues":[{"quantile":0.5,"value":2}]}]}},{"name":"g","gauge":{"dataPoints":[{"timeUnixNano":"5","asDouble":"NaN"}]}},{"name":"d","sum":{"aggregationTemporality":1,
"dataPoints":[{"startTimeUnixNano":"1","timeUnixNano":"2000000000","asInt":"3"}]}}]}]}]}"#;

/// The same by hand, as protocol buffers.
fn otlp() -> Vec<Vec<u8>> {
    let attribute = part(1, &whole(&[part(1, b"service.name"), part(2, &part(1, b"shop"))]));
    let point = part(1, &whole(&[fixed(3, f64::from_bits(1_000_000_000)), fixed(4, 1.5)]));
    let gauge = part(2, &whole(&[part(1, b"g"), part(3, b"s"), part(5, &point)]));
    let sum = part(2, &whole(&[part(1, b"c"), part(7, &whole(&[point, number(2, 2), number(3, 1)]))]));
    let bounds = part(7, &1.0_f64.to_le_bytes());
    let buckets = part(6, &[1u64.to_le_bytes(), 2u64.to_le_bytes()].concat());
    let counts = part(1, &whole(&[fixed(3, 1.0), fixed(4, f64::from_bits(3)), fixed(5, 4.5), buckets, bounds]));
    let histogram = part(2, &whole(&[part(1, b"h"), part(9, &whole(&[counts, number(2, 2)]))]));
    let scope = part(2, &whole(&[part(1, &part(1, b"scope")), gauge.clone(), sum, histogram, gauge]));
    vec![part(1, &whole(&[part(1, &attribute), scope]))]
}

#[test]
fn remote_write_messages() {
    for (message, sound) in [(Message::V1, first_version()), (Message::V2, second_version())] {
        let cache = SeriesCache::new();
        storage::run("remote write", 3_000, &sound, |input| {
            let mut held = Budget::new(64 << 20).permit();
            let _ = decode(message, input, NOW, Lookup::Cached(&cache), EXTRAS, &mut held);
        });
    }
}

#[test]
fn remote_read_requests() {
    storage::run("remote read", 3_000, &read_requests(), |input| {
        let Ok(request) = decode_request(input) else { return };
        let _ = (request.response_type(), decode_request(&encode_request(&request)).unwrap());
    });
    // Behind the compression.
    let unpacked: Vec<_> =
        read_requests().iter().map(|packed| snap::raw::Decoder::new().decompress_vec(packed).unwrap()).collect();
    storage::run("remote read, unpacked", 3_000, &unpacked, |input| {
        let packed = snap::raw::Encoder::new().compress_vec(input).unwrap();
        if let Ok(request) = decode_request(&packed) {
            let _ = request.response_type();
        }
    });
}

#[test]
fn otlp_messages() {
    let config = OtlpConfig::default();
    let streams = DeltaStreams::new(1 << 20);
    let deltas = Deltas::Summed(&streams, Duration::ZERO);
    let settings = Settings { config: &config, lookback_ms: 300_000, now: NOW, extras: EXTRAS, deltas };
    for (format, sound) in [(BodyFormat::Protobuf, otlp()), (BodyFormat::Json, vec![OTLP.as_bytes().to_vec()])] {
        let first = convert(format, &sound[0], settings, &mut Budget::new(0).permit()).unwrap();
        assert!(!first.batch.samples.is_empty(), "{format:?}");
        storage::run("otlp", 2_000, &sound, |input| {
            let mut held = Budget::new(64 << 20).permit();
            let _ = convert(format, input, settings, &mut held);
        });
    }
    let json = |dice: &mut _| mutate::mutated(dice, OTLP, "{\"resourceMetrics\":[[[{\"a\":1e999}]]]}");
    run("otlp, as text", 1_000, json, |_, text| {
        let mut held = Budget::new(64 << 20).permit();
        let _ = convert(BodyFormat::Json, text.as_bytes(), settings, &mut held);
    });
}

/// A head that declares much makes nobody hold it: what is over the limit is refused by what it declares.
#[test]
fn packed_bodies() {
    let plain = whole(&first_version());
    let snappy = snap::raw::Encoder::new().compress_vec(&plain).unwrap();
    let zstd = zstd::encode_all(plain.as_slice(), 1).unwrap();
    let bomb = zstd::encode_all(vec![0; 1 << 20].as_slice(), 1).unwrap();
    for (packing, sound) in [(Packing::Snappy, vec![snappy]), (Packing::Zstd, vec![zstd, bomb])] {
        let len_max = DECODED_LEN_MAX + (1 << 20);
        storage::run_within("packed body", 3_000, &sound, len_max, |input| {
            let Ok(declared) = decoded_len(packing, input) else { return };
            assert!(declared.is_none_or(|len| len <= DECODED_LEN_MAX));
            if declared.is_some_and(|len| 4 << 20 < len) {
                return;
            }
            let mut out = Vec::new();
            if let Ok(len) = unpack(packing, input, declared, &mut out) {
                assert!(len <= DECODED_LEN_MAX && len <= out.len());
            }
        });
    }
}

#[test]
fn parameters() {
    const FORMS: [&str; 6] = [
        "query=up%7Bjob%3D%22a%22%7D&time=1435781430.781&timeout=1m30s&limit=10&lookback_delta=5m",
        "match%5B%5D=up&match[]=%7B__name__%3D~%22.%2B%22%7D&start=2015-07-01T20:10:51.781+02:00&end=-292273086-05-16T16:47:06Z",
        "query=a+b&start=1e300&end=-Inf&step=0x10p-2&limit=-1&timeout=-5s",
        "search[]=a&search[]=b&fuzz_threshold=70&sort_by=score&batch_size=%31",
        "a=%zz&b=1;2&=&&c&%E2%28%A1=%FF",
        "time=1_0&start=nan&end=9223372036854775807&step=1y1w1d1h1m1s1ms",
    ];
    let make = |dice: &mut crate::dice::Dice| {
        let (text, other) = (dice.pick(&FORMS), dice.pick(&FORMS));
        mutate::mutated(dice, text, other)
    };
    run("parameters", 5_000, make, |_, text| {
        let (query, body) =
            text.split_at(text.len() / 2 - (0..4).find(|n| text.is_char_boundary(text.len() / 2 - n)).unwrap());
        for params in [Params::read(text.as_bytes(), b""), Params::read(query.as_bytes(), body.as_bytes())] {
            let params = params.unwrap();
            let _ = (params.time("time"), params.time_range(), params.timeout(), params.limit(), params.lookback());
            let _ = params.all("match[]").chain(params.all("search[]")).map(str::len).sum::<usize>();
            for name in ["start", "end", "step", "time", "timeout"] {
                let _ = (parse_time(params.get(name)), parse_duration(params.get(name)));
            }
        }
        let _ = (parse_time(text), parse_duration(text));
    });
}

#[test]
fn headers_of_bodies() {
    const HEADERS: [&str; 7] = [
        "application/x-protobuf;proto=io.prometheus.write.v2.Request",
        "application/x-protobuf; proto = prometheus.WriteRequest;a=b",
        "application/json",
        "snappy",
        "gzip;q=0.5, zstd, deflate",
        "",
        "application/x-www-form-urlencoded; charset=utf-8",
    ];
    let make = |dice: &mut crate::dice::Dice| {
        let (text, other) = (dice.pick(&HEADERS), dice.pick(&HEADERS));
        mutate::mutated(dice, text, other)
    };
    let accepted = Accepted::named(["prometheus.WriteRequest", "io.prometheus.write.v2.Request"]);
    run("headers of bodies", 2_000, make, |_, text| {
        let _ = (Packing::of(Some(text)), BodyFormat::of(Some(text)), BodyPacking::of(Some(text)));
        let _ = Format::of(Packing::Snappy, Some(text), &accepted);
    });
}

#[test]
fn formats_that_are_asked_for() {
    const HEADERS: [&str; 6] = [
        "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,text/plain;version=0.0.4;q=0.5",
        "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.7",
        "text/plain;version=\"0.0.4\";escaping=values , */*;q=0.1",
        "application/openmetrics-text; version=0.0.1; escaping=dots;q=1e309",
        ";;;,q=,=;q==-1,;q=nan",
        "",
    ];
    let make = |dice: &mut crate::dice::Dice| {
        let (text, other) = (dice.pick(&HEADERS), dice.pick(&HEADERS));
        mutate::mutated(dice, text, other)
    };
    run("formats that are asked for", 3_000, make, |_, text| {
        let chosen = negotiate(Some(text));
        // What is answered says so itself, in one line.
        assert!(chosen.content_type.bytes().all(|byte| (b' '..0x7f).contains(&byte)), "{}", chosen.content_type);
        assert_eq!(negotiate(Some(&chosen.content_type)).format, chosen.format, "{}", chosen.content_type);
    });
}

#[test]
fn web_configurations() {
    const FILES: [&str; 2] = [
        "tls_server_config:\n  cert_file: c.pem\n  key_file: /k.pem\n  client_auth_type: RequireAndVerifyClientCert\n  \
         client_ca_file: ca.pem\n  client_allowed_sans: [a, 10.0.0.1]\n  min_version: TLS13\n  max_version: TLS13\n  \
         cipher_suites: [TLS_AES_128_GCM_SHA256]\n  curve_preferences: [X25519, CurveP256]\n",
        "http_server_config: {http2: false, headers: {X-Frame-Options: deny, Content-Security-Policy: x}}\n\
         rate_limit: {burst: 5, interval: 1s}\nbasic_auth_users: {alice: $2y$10$abc, 'b': ''}\n",
    ];
    let make = |dice: &mut crate::dice::Dice| {
        let (text, other) = (dice.pick(&FILES), dice.pick(&FILES));
        mutate::mutated(dice, text, other)
    };
    run("web configuration", 1_500, make, |_, text| {
        if let Ok(config) = WebConfig::parse(text, "/etc") {
            let _ = (config.tls.is_on(), config.tls.client_auth());
        }
    });
}
