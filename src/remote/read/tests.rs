use super::*;
use crate::model::histogram::{FloatHistogram, Span};
use crate::model::labels::Labels;
use crate::model::matcher::{MatchOp, Matcher};
use crate::model::read::SampleColumn;

fn request() -> ReadRequest {
    let matcher = |kind, name: &str, value: &str| ReadMatcher { kind, name: name.into(), value: value.into() };
    let matchers = vec![matcher(0, "__name__", "up"), matcher(3, "job", "a|b"), matcher(1, "x", "")];
    let query = ReadQuery { start_ms: -5, end_ms: 1_700_000_000_000, matchers };
    ReadRequest { queries: vec![query, ReadQuery::default()], accepted: vec![1, 0] }
}

#[test]
fn requests_come_back() {
    assert_eq!(decode_request(&encode_request(&request())), Ok(request()));
    assert_eq!(decode_request(&encode_request(&ReadRequest::default())), Ok(ReadRequest::default()));
}

#[test]
fn what_lies_outside_of_the_hints_is_not_asked_for() {
    let asked = |query: &[u8]| {
        let message = [&[0x0a, query.len() as u8], query].concat();
        let request = decode_request(&snap::raw::Encoder::new().compress_vec(&message).unwrap()).unwrap();
        (request.queries[0].start_ms, request.queries[0].end_ms)
    };
    let range = [0x08, 10, 0x10, 100];
    assert_eq!(asked(&range), (10, 100));
    assert_eq!(asked(&[&range[..], &[0x22, 4, 0x18, 20, 0x20, 50]].concat()), (20, 50));
    assert_eq!(asked(&[&range[..], &[0x22, 5, 0x18, 5, 0x20, 0xff, 0x01]].concat()), (10, 100));
    assert_eq!(asked(&[&range[..], &[0x22, 2, 0x08, 15]].concat()), (10, 100), "hints without a range");
}

#[test]
fn what_is_no_request_is_refused_in_prometheus_s_words() {
    let text = |body: &[u8]| decode_request(body).unwrap_err().to_string();
    assert_eq!(text(b""), "snappy: corrupt input");
    assert_eq!(text(b"not snappy"), "snappy: corrupt input");
    assert_eq!(text(b"\x81\x80\x80\x10"), "snappy: decoded length 33554433 exceeds limit 33554432");
    assert_eq!(text(b"\xff\xff\xff\xff\xff\xff\x0f"), "snappy: corrupt input");
    let cut = snap::raw::Encoder::new().compress_vec(b"\x0a\x05").unwrap();
    assert_eq!(text(&cut), "unexpected EOF");
}

#[test]
fn the_first_known_kind_of_answer_is_given() {
    let of = |accepted: &[i32]| ReadRequest { queries: vec![], accepted: accepted.to_vec() }.response_type();
    assert_eq!(of(&[]), Ok(ResponseType::Samples));
    assert_eq!(of(&[7, 1, 0]), Ok(ResponseType::StreamedChunks));
    let text = "server does not support any of the requested response types: [7 8]; supported: map[SAMPLES:{} \
                STREAMED_XOR_CHUNKS:{}]";
    assert_eq!(of(&[7, 8]), Err(text.to_owned()));
}

#[test]
fn external_labels_are_not_looked_for_in_storage() {
    let query = request().queries.swap_remove(0);
    let external = Labels::from_pairs([("__name__", "up"), ("job", "a|b")]);
    let shown = |matchers: Vec<Matcher>| -> Vec<(String, MatchOp, String)> {
        matchers.iter().map(|m| (m.name().to_owned(), m.op(), m.value().to_owned())).collect()
    };
    let local = shown(query.local_matchers(&external).unwrap());
    assert_eq!(local[0], ("__name__".to_owned(), MatchOp::Equal, String::new()));
    assert_eq!(local[1], ("job".to_owned(), MatchOp::NotRegex, "a|b".to_owned()));
    assert_eq!(shown(query.local_matchers(&Labels::empty()).unwrap())[0].2, "up");
    let broken = |kind, value: &str| {
        let matchers = vec![ReadMatcher { kind, name: "a".into(), value: value.into() }];
        ReadQuery { matchers, ..ReadQuery::default() }.local_matchers(&Labels::empty()).unwrap_err().to_string()
    };
    assert_eq!(broken(4, ""), "invalid matcher type");
    assert_eq!(broken(2, "("), "error parsing regexp: missing closing ): `(`");
}

fn column() -> SampleColumn {
    let whole = FloatHistogram {
        count: 3.0,
        sum: 1.5,
        zero_threshold: 0.001,
        zero_count: 1.0,
        positive_spans: vec![Span { offset: -2, length: 2 }],
        positive_buckets: vec![1.0, 1.0],
        ..FloatHistogram::default()
    };
    let float = FloatHistogram { count: 2.5, zero_count: 0.5, schema: -1, ..whole.clone() };
    let mut column = SampleColumn::default();
    column.push_float(-1, 0, 0.0);
    column.push_float(1000, 0, f64::INFINITY);
    column.push_histogram(2000, 0, whole.into());
    column.push_histogram(3000, 0, float.into());
    column
}

#[test]
fn samples_come_back_with_external_labels_where_there_are_none() {
    let labels = Labels::from_pairs([("a", "1"), ("c", "own")]);
    let external = Labels::from_pairs([("b", "2"), ("c", "3"), ("d", "4")]);
    let mut writer = SampledWriter::default();
    writer.series(&labels, &external, &column());
    writer.end_query();
    let packed = writer.finish().unwrap();
    let message = snap::raw::Decoder::new().decompress_vec(&packed).unwrap();
    let mut found = Vec::new();
    sampled::<AnswerError>(&message, |labels, column| {
        found.push((labels, column));
        Ok(())
    })
    .unwrap();
    let all = Labels::from_pairs([("a", "1"), ("b", "2"), ("c", "own"), ("d", "4")]);
    assert_eq!(found, [(all, column())]);
    let none = sampled::<AnswerError>(b"", |_, _| Ok(())).unwrap_err();
    assert_eq!(none.to_string(), "responses: want 1, got 0");
}

#[test]
fn frames_are_closed_when_they_are_full_and_checked_when_read() {
    let labels = Labels::from_pairs([("a", "1")]);
    let chunk = |n: i64| FoundChunk { min_ms: n, max_ms: n + 1, encoding: 1, data: b"0123456789" };
    let mut out = Vec::new();
    let mut frame = Frame::new(&labels, &Labels::empty(), 3, 40);
    (0..3).for_each(|n| frame.chunk(&chunk(n), &mut out));
    frame.close(&mut out);
    frame.close(&mut out);
    let found: Vec<_> = Frames::new(&out, 1000).collect::<Result<_, _>>().unwrap();
    let series = |chunks: Vec<FoundChunk<'static>>| FoundSeries { labels: labels.clone(), chunks };
    assert_eq!(found, [series(vec![chunk(0), chunk(1)]), series(vec![chunk(2)])]);

    let error = |body: &[u8], len_max| Frames::new(body, len_max).find_map(Result::err).unwrap().to_string();
    let text = "chunkedReader: message size exceeded the limit 5 bytes; got: ";
    assert!(error(&out, 5).starts_with(text), "{}", error(&out, 5));
    assert_eq!(error(&out[..out.len() - 1], 1000), "unexpected EOF");
    let last = out.len() - 1;
    out[last] ^= 1;
    assert_eq!(error(&out, 1000), "chunkedReader: corrupted frame; checksum mismatch");
}
