use super::*;
use crate::model::read::{Scope, Unlimited};
use crate::model::sample::stale_nan;
use crate::promql::eval::MemoryPool;
use crate::remote::read::{FoundChunk, Frame, SampledWriter};
use crate::storage::block::rewrite::of_column;
use crate::telemetry::metrics::Registry;

fn column(times: std::ops::Range<i64>) -> SampleColumn {
    let mut column = SampleColumn::default();
    times.clone().for_each(|t| column.push_float(t, 0, if t % 50 == 7 { stale_nan() } else { t as f64 / 3.0 }));
    let histogram = |n: i64| FloatHistogram { count: n as f64, zero_count: n as f64, ..FloatHistogram::default() };
    (times.end..times.end + 5).for_each(|t| column.push_histogram(t, 0, Arc::new(histogram(t))));
    column
}

/// Times with the bits of values, and with counts.
type Bits = (Vec<(i64, u64)>, Vec<(i64, f64)>);

fn bits(column: &SampleColumn) -> Bits {
    let floats = column.floats.timestamps.iter().copied().zip(column.floats.values.iter().map(|v| v.to_bits()));
    let histograms = column.histograms.timestamps.iter().copied().zip(column.histograms.values.iter().map(|h| h.count));
    (floats.collect(), histograms.collect())
}

fn framed(series: &[(&Labels, SampleColumn)], frame_len: usize) -> Vec<u8> {
    let mut out = Vec::new();
    for (labels, column) in series {
        let mut frame = Frame::new(labels, &Labels::empty(), 0, frame_len);
        for chunk in of_column(column).unwrap() {
            let (min_ms, max_ms) = (chunk.min_t, chunk.max_t);
            frame.chunk(&FoundChunk { min_ms, max_ms, encoding: chunk.encoding, data: &chunk.data }, &mut out);
        }
        frame.close(&mut out);
    }
    out
}

fn decoded(series: &SelectedSeries, range: TimeRange) -> SampleColumn {
    let mut out = SampleColumn::default();
    series.samples.decode_all(range, &mut out).unwrap();
    out
}

#[test]
fn both_kinds_of_answer_are_read_and_stripped() {
    let (a, b) = (Labels::from_pairs([("a", "1"), ("r", "x")]), Labels::from_pairs([("a", "2")]));
    let ledger = QueryLedger::unlimited();
    let mut writer = SampledWriter::default();
    writer.series(&b, &Labels::empty(), &column(5..9));
    writer.series(&a, &Labels::empty(), &column(0..400));
    writer.end_query();
    let stripped = vec!["r".to_owned()];
    let packed = ReadBody { bytes: writer.finish().unwrap(), frame_len_max: None, stripped: stripped.clone() };
    let bytes = framed(&[(&a, column(0..400)), (&b, column(5..9))], 100);
    let frames = ReadBody { bytes, frame_len_max: Some(10_000), stripped };
    for body in [packed, frames] {
        let series = read_body(&body, &ledger).unwrap();
        let labels: Vec<&Labels> = series.iter().map(|series| &series.labels).collect();
        assert_eq!(labels, [&Labels::from_pairs([("a", "1")]), &b]);
        assert_eq!(bits(&decoded(&series[0], TimeRange::ALL)), bits(&column(0..400)));
        let range = TimeRange::new(TimestampMs(398), TimestampMs(401)).unwrap();
        let part = decoded(&series[0], range);
        assert_eq!((part.floats.timestamps, part.histograms.timestamps), (vec![398, 399], vec![400, 401]));
        assert!(0 < ledger.used());
        drop(series);
        assert_eq!(ledger.used(), 0);
    }
}

#[test]
fn parts_that_overlap_are_put_in_order() {
    let labels = Labels::from_pairs([("a", "1")]);
    let bytes = framed(&[(&labels, column(50..60)), (&labels, column(0..55))], 1 << 20);
    let body = ReadBody { bytes, frame_len_max: Some(1 << 20), stripped: vec![] };
    let series = read_body(&body, &QueryLedger::unlimited()).unwrap();
    let found = decoded(&series[0], TimeRange::ALL);
    assert_eq!(found.floats.timestamps, (0..60).collect::<Vec<_>>());
    assert_eq!(found.histograms.timestamps, (60..65).collect::<Vec<_>>());
}

#[test]
fn what_cannot_be_read_or_held_is_an_error() {
    let ledger = QueryLedger::open(&MemoryPool::new(0), 4_000);
    let body = |bytes: &[u8], frame_len_max| ReadBody { bytes: bytes.to_vec(), frame_len_max, stripped: vec![] };
    let text = |body: &ReadBody, ledger| match read_body(body, ledger).err().unwrap() {
        Unreadable::Remote(error) => error.to_string(),
        Unreadable::Own(over) => over.to_string(),
    };
    let unlimited = QueryLedger::unlimited();
    assert_eq!(text(&body(b"x", None), &unlimited), "error reading response: snappy: corrupt input");
    assert_eq!(text(&body(b"\x05abc", Some(9)), &unlimited), "unexpected EOF");
    let labels = Labels::from_pairs([("a", "1")]);
    let long = body(&framed(&[(&labels, column(0..4_000))], 1 << 20), Some(1 << 20));
    assert!(text(&long, &ledger).contains("4000 bytes of memory"));
    // A declared length is charged before it is made room for.
    assert!(text(&body(b"\xff\xff\xff\x7f", None), &ledger).contains("4000 bytes of memory"));
    assert_eq!(ledger.used(), 0);
}

fn reads(yaml: &str, local_start: i64) -> Arc<Reading> {
    let text = format!("remote_read:\n{yaml}");
    let loaded = crate::config::load_str("p.yml", &text, &crate::config::LoadOptions::default()).unwrap();
    let reads = RemoteReads::new(ReadMetrics::new(&Registry::shared()));
    reads.set_local_start(move || local_start);
    assert!(reads.reading().is_none());
    reads.set(&loaded.config.remote_read, &Labels::from_pairs([("r", "1")]));
    reads.reading().unwrap()
}

#[test]
fn only_what_is_missing_here_is_asked_for() {
    let reading =
        reads("- {url: 'http://a', required_matchers: {job: x}}\n- {url: 'http://b', read_recent: true}\n", 100);
    let range = |min, max| TimeRange::new(TimestampMs(min), TimestampMs(max)).unwrap();
    let (job, other) = (vec![Matcher::equal("job", "x")], vec![Matcher::equal("job", "y")]);
    let asked = |matchers: &[Matcher], range: TimeRange| -> Vec<Option<(i64, i64)>> {
        let of = |client: &Arc<ReadClient>| reading.range_of(client, &Wanted::new(matchers, range));
        reading.clients.iter().map(|client| of(client).map(|range| (range.min().0, range.max().0))).collect()
    };
    assert_eq!(asked(&job, range(50, 200)), [Some((50, 100)), Some((50, 200))]);
    assert_eq!(asked(&job, range(100, 200)), [Some((100, 100)), Some((100, 200))]);
    assert_eq!(asked(&job, range(101, 200)), [None, Some((101, 200))]);
    assert_eq!(asked(&other, range(50, 200)), [None, Some((50, 200))]);
    assert_eq!(reading.of_labels(range(101, 200)), ["not implemented"]);
    assert_eq!(reads("- {url: 'http://a'}\n", 100).of_labels(range(101, 200)), [""; 0]);
}

struct Nothing;

impl ReadView for Nothing {
    fn select(&self, _: &[Matcher], _: TimeRange, _: &dyn ReadBudget) -> Result<Vec<SelectedSeries>, ReadError> {
        Ok(Vec::new())
    }
    fn label_names(&self, _: &Scope<'_>, _: &dyn ReadBudget) -> Result<Names, ReadError> {
        Ok(Names::default())
    }
    fn label_values(&self, _: &str, _: &Scope<'_>, _: &dyn ReadBudget) -> Result<Names, ReadError> {
        Ok(Names::default())
    }
}

impl Queryable for Nothing {
    fn view(&self) -> Result<Arc<dyn ReadView>, ReadError> {
        Ok(Arc::new(Self))
    }
}

#[test]
fn a_client_that_failed_once_gives_nothing_and_a_warning() {
    let reading = reads("- {url: 'http://a', read_recent: true}\n- {url: 'http://b', read_recent: true}\n", 0);
    let ledger = QueryLedger::unlimited();
    let labels = Labels::from_pairs([("a", "1")]);
    let missing = Arc::new(Missing::Note(Mutex::default()));
    let joined = JoinedQueryable { local: Arc::new(Nothing), reading: Arc::clone(&reading), missing };
    let select = |name: &str| {
        joined.view().unwrap().select(&[Matcher::equal("m", name)], TimeRange::ALL, &Unlimited).unwrap().len()
    };
    assert_eq!((select("x"), select("y")), (0, 0));
    assert!(joined.has_noted());
    let noted = joined.take_noted();
    let answer = || {
        let bytes = framed(&[(&labels, column(0..3))], 1 << 20);
        (ReadBody { bytes, frame_len_max: Some(1 << 20), stripped: vec![] }, ledger.charge(0).unwrap())
    };
    let (x, y) = (noted[0].clone(), noted[1].clone());
    let answers = vec![
        (0, x.clone(), Ok(answer())),
        (0, y.clone(), Ok(answer())),
        (1, x, Ok(answer())),
        (1, y, Err("remote_read: it is down".to_owned())),
    ];
    reading.take(Fetched(answers), &ledger).unwrap();
    assert_eq!((select("x"), select("y"), joined.has_noted()), (1, 1, false));
    assert_eq!(reading.warnings(), ["remote_read: it is down"]);
}

#[test]
fn a_server_that_is_named_twice_is_told() {
    let of = |yaml: &str| {
        let text = format!("remote_read:\n{yaml}");
        let loaded = crate::config::load_str("p.yml", &text, &crate::config::LoadOptions::default()).unwrap();
        repeated(&loaded.config.remote_read)
    };
    assert_eq!(of("- {url: 'http://a'}\n- {url: 'http://b'}\n- {url: 'http://a', read_recent: true}\n"), None);
    let text = "duplicate remote read configs are not allowed, found duplicate for URL: http://u:xxxxx@a";
    assert_eq!(of("- {url: 'http://u:p@a'}\n- {url: 'http://b'}\n- {url: 'http://u:p@a'}\n").as_deref(), Some(text));
}
