//! The built binary scrapes each format and answers `/metrics` in two.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::fs;

use support::{Behaviour, Exporter, Server, request, wait_for};

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PROTOBUF: &str = "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited";

/// A protobuf message under construction; lengths stay below 128.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn number(mut self, field: u8, value: u8) -> Self {
        self.0.extend([field << 3, value]);
        self
    }

    fn double(mut self, field: u8, value: f64) -> Self {
        self.0.push(field << 3 | 1);
        self.0.extend(value.to_le_bytes());
        self
    }

    fn bytes(mut self, field: u8, value: &[u8]) -> Self {
        self.0.extend([field << 3 | 2, u8::try_from(value.len()).unwrap()]);
        self.0.extend(value);
        self
    }

    fn message(self, field: u8, value: Self) -> Self {
        self.bytes(field, &value.0)
    }
}

fn family(name: &str, kind: u8, metric: Message) -> Vec<u8> {
    let family = Message::default().bytes(1, name.as_bytes()).number(3, kind).message(4, metric);
    [&[u8::try_from(family.0.len()).unwrap()], family.0.as_slice()].concat()
}

fn new() -> Message {
    Message::default()
}

fn start(folder: &std::path::Path, jobs: &[(&str, &Exporter, &str)]) -> Server {
    let mut config = "global: {scrape_interval: 100ms}\nscrape_configs:\n".to_owned();
    for (job, exporter, more) in jobs {
        let targets = format!("static_configs: [{{targets: ['{}']}}]", exporter.addr);
        config.push_str(&format!("- {{job_name: {job}, {targets}{more}}}\n"));
    }
    fs::write(folder.join("prometheus.yml"), config).unwrap();
    Server::start(folder, &["--config.file=prometheus.yml"])
}

#[test]
fn targets_of_all_formats_give_the_same_series() {
    let text = Exporter::start(
        "# TYPE c counter\nc_total{x=\"1\"} 5\n# TYPE h histogram\nh_bucket{le=\"1\"} 3\nh_bucket{le=\"+Inf\"} 4\nh_sum 2.5\nh_count 4\n",
    );
    let openmetrics = Exporter::start("");
    let body = "# TYPE c counter\nc_total{x=\"1\"} 5.0 # {trace=\"a\"} 1 2.5\n# TYPE h histogram\nh_bucket{le=\"1.0\"} 3\n\
                h_bucket{le=\"+Inf\"} 4\nh_sum 2.5\nh_count 4\n# EOF\n";
    openmetrics.set(Behaviour::Typed(OPENMETRICS.to_owned(), body.into()));
    let protobuf = Exporter::start("");
    let label = new().bytes(1, b"x").bytes(2, b"1");
    let counter = family("c_total", 0, new().message(1, label).message(3, new().double(1, 5.0)));
    let bucket = new().number(1, 3).double(2, 1.0);
    let histogram = family("h", 4, new().message(7, new().number(1, 4).double(2, 2.5).message(3, bucket)));
    let native_only = family("n", 4, new().message(7, new().number(1, 4).number(7, 4).message(12, new().number(2, 0))));
    protobuf.set(Behaviour::Typed(PROTOBUF.to_owned(), [counter, histogram, native_only].concat()));

    let folder = tempfile::tempdir().unwrap();
    let native = ", scrape_native_histograms: true";
    let server = start(
        folder.path(),
        &[("text", &text, ""), ("openmetrics", &openmetrics, ""), ("protobuf", &protobuf, native)],
    );
    let values = |job: &str| {
        wait_for(job, || {
            let selector = format!("{{job=\"{job}\",__name__=~\"c_total|h_.*\"}}");
            let mut found: Vec<String> = server
                .query(&selector)
                .into_iter()
                .map(|(labels, value)| {
                    let of = |name: &str| labels[name].as_str().unwrap_or("").to_owned();
                    format!("{} x={} le={} {value}", of("__name__"), of("x"), of("le"))
                })
                .collect();
            found.sort();
            Some(found).filter(|found| found.len() == 5)
        })
    };
    let expected =
        ["c_total x=1 le= 5", "h_bucket x= le=+Inf 4", "h_bucket x= le=1.0 3", "h_count x= le= 4", "h_sum x= le= 2.5"];
    for job in ["text", "openmetrics", "protobuf"] {
        assert_eq!(values(job), expected, "{job}");
    }
    let name = "watchfire_scrape_exemplars_dropped_total";
    wait_for(name, || {
        let text = server.get("/metrics").text();
        let line = text.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
        Some(()).filter(|()| !line.ends_with(" 0"))
    });
    assert_eq!(server.query("n_count"), []);
    let counts = server.query("histogram_count(n)");
    assert_eq!(counts.iter().map(|(_, value)| value.to_string()).collect::<Vec<_>>(), ["4"]);

    // Openmetrics that breaks off fails the scrape, and says so.
    openmetrics.set(Behaviour::Typed(OPENMETRICS.to_owned(), "c_total 5\n".into()));
    wait_for("the error", || {
        let targets = server.get("/api/v1/targets?state=active").json();
        let all = targets["data"]["activeTargets"].as_array().unwrap().clone();
        all.into_iter().find(|target| target["lastError"] == "data does not end with # EOF")
    });
}

#[test]
fn targets_are_asked_for_the_configured_formats() {
    let (plain, chosen) = (Exporter::start("a 1\n"), Exporter::start("a 1\n"));
    chosen.set(Behaviour::Typed("text/nonsense".to_owned(), b"a 1\n# EOF\n".to_vec()));
    let folder = tempfile::tempdir().unwrap();
    let more = ", scrape_protocols: [PrometheusProto, OpenMetricsText1.0.0, PrometheusText0.0.4], \
                metric_name_escaping_scheme: dots, fallback_scrape_protocol: OpenMetricsText1.0.0";
    let server = start(folder.path(), &[("plain", &plain, ""), ("chosen", &chosen, more)]);
    let accept = |exporter: &Exporter| {
        let head = wait_for("a request", || exporter.heads().into_iter().next());
        head.lines().find(|line| line.to_lowercase().starts_with("accept:")).unwrap().to_owned()
    };
    let expected = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,application/openmetrics-text;\
                    version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;\
                    q=0.3,*/*;q=0.2";
    assert!(accept(&plain).ends_with(expected), "{}", accept(&plain));
    let expected = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.6,\
                    application/openmetrics-text;version=1.0.0;escaping=dots;q=0.5,text/plain;version=0.0.4;q=0.4,\
                    */*;q=0.3";
    assert!(accept(&chosen).ends_with(expected), "{}", accept(&chosen));
    // The fallback format is read: as text the last line would be a comment.
    wait_for("a sample", || server.single("a{job=\"chosen\"}"));
    assert!(!server.log().contains("no effect yet"), "{}", server.log());
}

#[test]
fn own_metrics_come_in_openmetrics_when_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), &[]);
    let get = |accept: &str| request(&server.addr, "GET", "/metrics", &[("Accept", accept)], b"").unwrap();
    let open = get("application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,text/plain;q=0.4");
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8; escaping=allow-utf-8";
    assert_eq!(open.header("content-type"), Some(content_type));
    assert!(open.text().ends_with("\n# EOF\n"));
    let text = get("text/plain;version=0.0.4");
    assert_eq!(text.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8; escaping=underscores"));
    assert!(!text.text().contains("# EOF"));
    // Each counter has its samples under the same name in both.
    let names = |text: &str| {
        let name = |line: &str| line.split(['{', ' ']).next().unwrap_or("").to_owned();
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        lines.map(name).collect::<std::collections::BTreeSet<_>>()
    };
    let (open, text) = (names(&open.text()), names(&text.text()));
    // Text was asked for later: series may have come, but none may have another name.
    let other_names: Vec<_> = open.difference(&text).collect();
    assert!(other_names.is_empty() && 50 < open.len(), "{other_names:?}");
    let own = wait_for("own series", || server.single("count({__name__=~\"prometheus_.*\"})"));
    assert!(50.0 < own, "{own}");
}
