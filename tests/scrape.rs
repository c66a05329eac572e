//! Scrapes over the network, of good targets and of hostile ones. The peer speaks raw HTTP, so every byte is ours.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use url::Url;
use watchfire::client::{ClientOptions, HttpClient};
use watchfire::exposition::content_type::Format;
use watchfire::model::append::{AppendReport, AppendSample, SeriesHandle, SeriesKey, ShardId};
use watchfire::model::clock::SystemClock;
use watchfire::model::labels::Labels;
use watchfire::model::sample::{SeriesRef, is_stale};
use watchfire::model::time::TimestampMs;
use watchfire::scrape::cache::TargetCache;
use watchfire::scrape::metrics::ScrapeMetrics;
use watchfire::scrape::settings::{SamplePlan, ScrapeLimits, ScrapeSettings};
use watchfire::scrape::staging::StagingBudget;
use watchfire::scrape::{ScrapeContext, Scraped, once};
use watchfire::telemetry::metrics::Registry;

/// How the peer answers every request.
#[derive(Clone)]
enum Answer {
    /// These bytes.
    Bytes(Vec<u8>),
    /// These bytes, then nothing; the connection stays open.
    Stall(Vec<u8>),
    /// The first bytes, then the second ones again and again.
    Endless(Vec<u8>, Vec<u8>),
}

struct Peer {
    addr: SocketAddr,
    connections: Arc<AtomicUsize>,
    head: Arc<Mutex<String>>,
    /// Bytes of endless answers.
    sent: Arc<AtomicUsize>,
}

async fn peer(answer: Answer) -> Peer {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let (connections, head) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(String::new())));
    let sent = Arc::new(AtomicUsize::new(0));
    let peer = Peer { addr, connections: Arc::clone(&connections), head: Arc::clone(&head), sent: Arc::clone(&sent) };
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            connections.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(serve(stream, answer.clone(), Arc::clone(&head), Arc::clone(&sent)));
        }
    });
    peer
}

/// Answers requests until the client goes away; errors mean just that.
async fn serve(
    mut stream: TcpStream,
    answer: Answer,
    seen: Arc<Mutex<String>>,
    sent: Arc<AtomicUsize>,
) -> std::io::Result<()> {
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await?);
        }
        *seen.lock().unwrap() = String::from_utf8_lossy(&head).into_owned();
        match &answer {
            Answer::Bytes(bytes) => stream.write_all(bytes).await?,
            Answer::Stall(bytes) => {
                stream.write_all(bytes).await?;
                std::future::pending::<()>().await;
            }
            Answer::Endless(first, again) => {
                stream.write_all(first).await?;
                loop {
                    stream.write_all(again).await?;
                    sent.fetch_add(again.len(), Ordering::SeqCst);
                }
            }
        }
    }
}

fn ok_with(headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\n{headers}Content-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

const TEXT: &str = "Content-Type: text/plain; version=0.0.4\r\n";

const PROTOBUF: &str = "Content-Type: application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; \
                        encoding=delimited\r\n";

fn ok(body: &str) -> Vec<u8> {
    ok_with(TEXT, body.as_bytes())
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(body).unwrap();
    encoder.finish().unwrap()
}

struct Setup {
    settings: ScrapeSettings,
    limits: ScrapeLimits,
    timeout: Duration,
    client: HttpClient,
    cache: TargetCache,
    staging: Arc<StagingBudget>,
}

impl Setup {
    fn new() -> Self {
        let options = ClientOptions { user_agent: "unused".into(), follow_redirects: true };
        Self {
            settings: ScrapeSettings::default(),
            limits: ScrapeLimits { body_len_max: 4 << 20, line_len_max: 1 << 20, new_series_max: 0 },
            timeout: Duration::from_secs(30),
            client: HttpClient::new(options),
            cache: TargetCache::new(),
            staging: StagingBudget::new(64 << 20),
        }
    }

    fn plan(&self) -> SamplePlan {
        let target_labels = Labels::from_pairs([("instance", "i"), ("job", "j")]);
        SamplePlan { target_labels, settings: Arc::new(self.settings.clone()), relabel: None }
    }

    async fn scrape(&self, peer: &Peer) -> Scraped {
        let url = Url::parse(&format!("http://{}/metrics", peer.addr)).unwrap();
        let plan = self.plan();
        let (metrics, clock) = (ScrapeMetrics::new(&Registry::default()), SystemClock::new());
        let context = ScrapeContext {
            client: &self.client,
            has_usual_port: false,
            url: &url,
            timeout: self.timeout,
            plan: &plan,
            cache: &self.cache,
            staging: &self.staging,
            limits: self.limits,
            metrics: &metrics,
            clock: &clock,
        };
        once(&context, TimestampMs(1000)).await
    }
}

/// Scrapes on a clock that stands until the condition holds, and then jumps over the timeout. Whatever a busy machine
/// needs for a connection, the timeout finds the scrape where it is meant to.
async fn timed_out_when(setup: &Setup, peer: &Peer, condition: impl Fn() -> bool) -> Scraped {
    tokio::time::pause();
    let (hold, held) = std::sync::mpsc::channel::<()>();
    // A paused clock does not jump ahead by itself as long as a blocking task runs.
    let holder = tokio::task::spawn_blocking(move || held.recv().is_ok());
    let begun = std::time::Instant::now();
    let jump = async {
        while !condition() {
            assert!(begun.elapsed() < Duration::from_secs(300), "the scrape does not get there");
            tokio::task::yield_now().await;
        }
        // Timers are kept in whole milliseconds.
        tokio::time::advance(setup.timeout + Duration::from_millis(1)).await;
    };
    let (scraped, ()) = tokio::join!(setup.scrape(peer), jump);
    drop(hold);
    holder.await.unwrap();
    tokio::time::resume();
    scraped
}

fn labels_of(sample: &AppendSample) -> String {
    match &sample.series {
        SeriesKey::Labels(labels) => labels.to_string(),
        SeriesKey::Known(handle) => format!("{handle:?}"),
    }
}

/// A target that answers like this is down with this error, and its scrape is a whole commit of report series.
#[track_caller]
fn check_down(scraped: &Scraped, error: &str) {
    assert_eq!(scraped.error.as_ref().map(ToString::to_string).as_deref(), Some(error));
    let up = scraped.batch.samples.iter().find(|s| labels_of(s).contains("\"up\"")).unwrap();
    assert_eq!((up.value, up.at), (0.0, TimestampMs(1000)));
    assert_eq!(scraped.batch.samples.len(), 5);
}

#[tokio::test]
async fn requests_carry_the_headers_of_prometheus() {
    let peer = peer(Answer::Bytes(ok("a 1\n"))).await;
    let setup = Setup::new();
    let scraped = setup.scrape(&peer).await;
    assert_eq!(scraped.error, None);
    assert_eq!(labels_of(&scraped.batch.samples[0]), r#"{__name__="a", instance="i", job="j"}"#);
    let head = peer.head.lock().unwrap().to_lowercase();
    let agent = format!("user-agent: watchfire/{} (compatible; prometheus/3.14.0)\r\n", env!("CARGO_PKG_VERSION"));
    let accept = "accept: application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,application/openmetrics-text;\
         version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,\
         */*;q=0.2\r\n";
    for line in [
        "get /metrics http/1.1\r\n",
        accept,
        "accept-encoding: gzip\r\n",
        &agent,
        "x-prometheus-scrape-timeout-seconds: 30\r\n",
    ] {
        assert!(head.contains(line), "{line:?} in {head}");
    }
}

#[tokio::test]
async fn ten_scrapes_share_a_connection() {
    let peer = peer(Answer::Bytes(ok("a 1\n"))).await;
    let setup = Setup::new();
    for _ in 0..10 {
        assert_eq!(setup.scrape(&peer).await.error, None);
    }
    assert_eq!(peer.connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn bodies_of_common_clients_are_read() {
    let bodies = [
        (include_str!("data/exposition/node_exporter.txt"), 8),
        (include_str!("data/exposition/go_client.txt"), 12),
        (include_str!("data/exposition/java_client.txt"), 7),
        (include_str!("data/exposition/python_client.txt"), 6),
    ];
    for (body, samples) in bodies {
        for (headers, bytes) in [("", body.as_bytes().to_vec()), ("Content-Encoding: gzip\r\n", gzip(body.as_bytes()))]
        {
            let peer = peer(Answer::Bytes(ok_with(&format!("{TEXT}{headers}"), &bytes))).await;
            let scraped = Setup::new().scrape(&peer).await;
            assert_eq!(scraped.error, None);
            assert_eq!((scraped.counts.scraped, scraped.counts.post_relabel), (samples, samples), "{body}");
            assert_eq!(scraped.counts.body_len, body.len() as u64);
        }
    }
}

#[tokio::test]
async fn every_format_gives_the_same_series() {
    let text = "# TYPE a counter\na_total{b=\"c\"} 2.5\n# TYPE h histogram\nh_bucket{le=\"1\"} 3\n";
    let openmetrics =
        "# TYPE a counter\na_total{b=\"c\"} 2.5 # {id=\"1\"} 2\n# TYPE h histogram\nh_bucket{le=\"1.0\"} 3\n# EOF\n";
    let protobuf = [
        b"\x20\x0a\x07a_total\x18\x00\x22\x13\x0a\x06\x0a\x01b\x12\x01c\x1a\x09\x09".as_slice(),
        &2.5_f64.to_le_bytes(),
        b"\x18\x0a\x01h\x18\x04\x22\x11\x3a\x0f\x08\x03\x1a\x0b\x08\x03\x11",
        &1.0_f64.to_le_bytes(),
    ]
    .concat();
    let stored = |scraped: &Scraped| {
        assert_eq!(scraped.error, None);
        let samples = scraped.batch.samples.iter().map(|s| format!("{} {}", labels_of(s), s.value));
        samples.filter(|s| s.contains("a_total") || s.contains("1.0")).collect::<Vec<_>>()
    };
    let expected = [
        r#"{__name__="a_total", b="c", instance="i", job="j"} 2.5"#,
        r#"{__name__="h_bucket", instance="i", job="j", le="1.0"} 3"#,
    ];
    let bodies = [
        (TEXT, text.as_bytes()),
        ("Content-Type: application/openmetrics-text; version=1.0.0\r\n", openmetrics.as_bytes()),
        (PROTOBUF, &protobuf),
    ];
    for (headers, body) in bodies {
        let scraped = Setup::new().scrape(&peer(Answer::Bytes(ok_with(headers, body))).await).await;
        assert_eq!(stored(&scraped), expected, "{headers}");
    }
}

#[tokio::test]
async fn labels_of_clients_are_kept_exactly() {
    let peer = peer(Answer::Bytes(ok(include_str!("data/exposition/java_client.txt")))).await;
    let scraped = Setup::new().scrape(&peer).await;
    let found: Vec<String> = scraped.batch.samples.iter().map(labels_of).collect();
    assert!(
        found.contains(&r#"{__name__="requests_total", instance="i", job="j", path="C:\\temp\\\"x\""}"#.to_owned())
    );
    let stamped = scraped.batch.samples.iter().find(|s| labels_of(s).contains("queue_age")).unwrap();
    assert_eq!(stamped.at, TimestampMs(1_795_201_337_490));
}

#[tokio::test]
async fn answers_that_are_no_exposition_are_refused() {
    let html = ok_with("Content-Type: text/html\r\n", b"<html>");
    let unsupported =
        "received unsupported Content-Type \"text/html\" and no fallback_scrape_protocol specified for target";
    check_down(&Setup::new().scrape(&peer(Answer::Bytes(html.clone())).await).await, unsupported);

    let mut fallback = Setup::new();
    fallback.settings.fallback = Some(Format::Text);
    let html_as_text = "expected a valid start token, got \"<\" (\"INVALID\") while parsing: \"<\"";
    check_down(&fallback.scrape(&peer(Answer::Bytes(html)).await).await, html_as_text);

    let cut = ok_with("Content-Type: application/openmetrics-text\r\n", b"a 1\n");
    check_down(&Setup::new().scrape(&peer(Answer::Bytes(cut)).await).await, "data does not end with # EOF");
    let cut = ok_with(PROTOBUF, b"\x09\x0a");
    let insufficient = "clientpb: insufficient length of buffer, expected at least 10 bytes, got 2 bytes";
    check_down(&Setup::new().scrape(&peer(Answer::Bytes(cut)).await).await, insufficient);
    let long = ok_with(PROTOBUF, b"\xff\xff\xff\xff\x0f");
    let insufficient = "clientpb: insufficient length of buffer, expected at least 4294967300 bytes, got 5 bytes";
    check_down(&Setup::new().scrape(&peer(Answer::Bytes(long)).await).await, insufficient);

    let unavailable = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nbusy".to_vec();
    let status = "server returned HTTP status 503 Service Unavailable";
    check_down(&Setup::new().scrape(&peer(Answer::Bytes(unavailable)).await).await, status);

    let not_gzip = ok_with(&format!("{TEXT}Content-Encoding: gzip\r\n"), b"a 1\n");
    check_down(&Setup::new().scrape(&peer(Answer::Bytes(not_gzip)).await).await, "unexpected EOF");
    let garbage = ok_with(TEXT, &[0xff, 0xfe, 0x00, 0x7b, 0x22]);
    let invalid = "expected a valid start token, got \"\\xff\" (\"INVALID\") while parsing: \"\\xff\"";
    check_down(&Setup::new().scrape(&peer(Answer::Bytes(garbage)).await).await, invalid);
}

#[tokio::test]
async fn an_empty_answer_is_up() {
    let scraped = Setup::new().scrape(&peer(Answer::Bytes(ok_with("", b""))).await).await;
    assert_eq!((scraped.error, scraped.batch.samples.len()), (None, 5));
}

#[tokio::test]
async fn a_target_that_is_not_there_is_down() {
    let addr = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let gone = Peer { addr, connections: Arc::default(), head: Arc::default(), sent: Arc::default() };
    let error = format!("Get \"http://{addr}/metrics\": dial tcp {addr}: connect: connection refused");
    check_down(&Setup::new().scrape(&gone).await, &error);
}

#[tokio::test]
async fn a_stalling_target_costs_its_timeout() {
    let setup = Setup::new();
    let silent = peer(Answer::Stall(Vec::new())).await;
    let error = format!("Get \"http://{}/metrics\": context deadline exceeded", silent.addr);
    let asked = || !silent.head.lock().unwrap().is_empty();
    check_down(&timed_out_when(&setup, &silent, asked).await, &error);
    let half = format!("HTTP/1.1 200 OK\r\n{TEXT}Content-Length: 100\r\n\r\na 1\nb");
    let half = peer(Answer::Stall(half.into_bytes())).await;
    let scraped = timed_out_when(&setup, &half, || 0 < setup.staging.used()).await;
    check_down(&scraped, "context deadline exceeded");
    assert_eq!(scraped.counts.scraped, 0, "what broke off does not count");
}

#[tokio::test]
async fn a_refused_body_is_read_to_its_end() {
    let mut setup = Setup::new();
    setup.settings.extra_scrape_metrics = true;
    let size = |scraped: &Scraped| {
        let size = scraped.batch.samples.iter().find(|s| labels_of(s).contains("scrape_body_size_bytes")).unwrap();
        size.value
    };
    let bad = format!("a 1\n? 2\n{}", "b 3\n".repeat(50_000));
    let text = peer(Answer::Bytes(ok(&bad))).await;
    let html = peer(Answer::Bytes(ok_with("Content-Type: text/html\r\n", bad.as_bytes()))).await;
    for peer in [text, html] {
        for _ in 0..3 {
            let scraped = setup.scrape(&peer).await;
            assert!(scraped.error.is_some());
            assert_eq!(size(&scraped), f64::from(u32::try_from(bad.len()).unwrap()));
        }
        assert_eq!(peer.connections.load(Ordering::SeqCst), 1, "the connection is kept");
    }
    // An answer that does not end is told as such, whatever it began with.
    setup.timeout = Duration::from_millis(100);
    let half = format!("HTTP/1.1 200 OK\r\n{TEXT}Content-Length: 100\r\n\r\n? 1\n");
    let scraped = setup.scrape(&peer(Answer::Stall(half.into_bytes())).await).await;
    assert_eq!(scraped.error.as_ref().map(ToString::to_string).as_deref(), Some("context deadline exceeded"));
    assert_eq!(size(&scraped), 0.0);
}

#[tokio::test]
async fn endless_bodies_end_at_a_limit() {
    let start = format!("HTTP/1.1 200 OK\r\n{TEXT}\r\n").into_bytes();
    let endless = |again: &str| Answer::Endless(start.clone(), again.repeat(1000).into_bytes());
    let too_long = "body exceeds 4194304 bytes after decompression; see --watchfire.limit.scrape.body";
    check_down(&Setup::new().scrape(&peer(endless("a{x=\"1\"} 1\n")).await).await, too_long);
    check_down(&Setup::new().scrape(&peer(endless("# comment\n")).await).await, too_long);
    let line = "line exceeds 1048576 bytes; see --watchfire.limit.scrape.line";
    check_down(&Setup::new().scrape(&peer(endless("a")).await).await, line);

    let mut configured = Setup::new();
    configured.settings.body_size_limit = 1000;
    configured.settings.extra_scrape_metrics = true;
    let scraped = configured.scrape(&peer(endless("a 1\n")).await).await;
    assert_eq!(scraped.error.map(|e| e.to_string()).as_deref(), Some("body size limit exceeded"));
    let size = scraped.batch.samples.iter().find(|s| labels_of(s).contains("scrape_body_size_bytes")).unwrap();
    assert_eq!(size.value, -1.0);

    // Without limits the deadline holds, though there is always something to read.
    let mut unlimited = Setup::new();
    unlimited.limits = ScrapeLimits { body_len_max: 0, line_len_max: 0, new_series_max: 0 };
    let comments = peer(endless("# comment\n")).await;
    // More than the kernel holds for a client that does not read.
    let read = || 8 << 20 < comments.sent.load(Ordering::SeqCst);
    check_down(&timed_out_when(&unlimited, &comments, read).await, "context deadline exceeded");
}

#[tokio::test]
async fn too_many_new_series_fail_the_scrape_whole() {
    let mut setup = Setup::new();
    setup.limits.new_series_max = 2;
    let three = peer(Answer::Bytes(ok("a 1\nb 1\nc 1\n"))).await;
    let text = "scrape has more than 2 new series; see --watchfire.limit.scrape.new-series";
    check_down(&setup.scrape(&three).await, text);
    let two = peer(Answer::Bytes(ok("a 1\nb 1\n"))).await;
    let scraped = setup.scrape(&two).await;
    assert_eq!(scraped.error, None);
    // What storage has taken is not new, so the target may grow in steps.
    let handle = |index| (index, SeriesHandle { series: SeriesRef(u64::from(index)), shard: ShardId(0) });
    let report = AppendReport { resolved: (0..2).map(handle).collect(), ..AppendReport::default() };
    setup.cache.confirm(scraped.pending, &report, &setup.plan());
    assert_eq!(setup.scrape(&three).await.error, None);
}

#[tokio::test]
async fn a_gzip_bomb_ends_at_the_limit() {
    let bomb = gzip("# comment\n".repeat(8 << 20).as_bytes());
    let answer = ok_with(&format!("{TEXT}Content-Encoding: gzip\r\n"), &bomb);
    let setup = Setup::new();
    let too_long = "body exceeds 4194304 bytes after decompression; see --watchfire.limit.scrape.body";
    check_down(&setup.scrape(&peer(Answer::Bytes(answer)).await).await, too_long);
    assert_eq!(setup.staging.used(), 0);
}

#[tokio::test]
async fn a_flood_of_headers_is_cut_off() {
    let flood = peer(Answer::Endless(b"HTTP/1.1 200 OK\r\n".to_vec(), b"X-Flood: 1234567890\r\n".repeat(50))).await;
    let error = format!(
        "Get \"http://{}/metrics\": net/http: server response headers exceeded 65536 bytes; aborted",
        flood.addr
    );
    check_down(&Setup::new().scrape(&flood).await, &error);
}

#[tokio::test]
async fn a_target_that_breaks_marks_its_series() {
    let setup = Setup::new();
    let good = setup.scrape(&peer(Answer::Bytes(ok("a 1\nb 1\n"))).await).await;
    let plan = SamplePlan { target_labels: Labels::empty(), settings: Arc::default(), relabel: None };
    setup.cache.confirm(good.pending, &AppendReport::default(), &plan);
    let bad = setup.scrape(&peer(Answer::Bytes(ok("a 1\n?"))).await).await;
    assert!(bad.error.is_some());
    let stale = bad.batch.samples.iter().filter(|s| is_stale(s.value)).count();
    assert_eq!((stale, bad.batch.samples.len()), (2, 7));
}
