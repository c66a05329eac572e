//! Ports that answer from tables and remember what they were asked.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use futures::FutureExt;
use futures::future::BoxFuture;
use watchfire::config::{LoadOptions, ScrapeConfig, load_str};
use watchfire::http::api::types::*;
use watchfire::http::error::ApiError;
use watchfire::http::state::{Answer, Exposition, QuitVerdict, ServerPorts};
use watchfire::model::exemplar::{Exemplar, SeriesExemplars, labels_of};
use watchfire::model::labels::Labels;
use watchfire::model::matcher::{MatchOp, Matcher};
use watchfire::model::names::Names;
use watchfire::model::read::NewestSample;
use watchfire::model::result::{Annotations, MatrixSeries, Point, QueryValue, VectorElement};
use watchfire::model::time::TimestampMs;
use watchfire::promql::parser::ParseOptions;
use watchfire::telemetry::metrics::{MetricFamily, MetricKind, MetricValue};

#[derive(Default)]
pub(crate) struct FakePorts {
    pub instant: Mutex<Vec<InstantQuery>>,
    pub range: Mutex<Vec<RangeQuery>>,
    pub selects: Mutex<Vec<SelectRequest>>,
    pub label_values: Mutex<Vec<LabelValuesRequest>>,
    pub reloads: AtomicUsize,
    pub reload_fails: AtomicBool,
    pub quits: AtomicUsize,
    pub cancelled: AtomicUsize,
    pub dropped_queries: std::sync::Arc<AtomicUsize>,
}

fn answer<'a, T: Send + 'a>(value: T) -> Answer<'a, T> {
    async move { Ok(value) }.boxed()
}

fn up(instance: &str) -> Labels {
    Labels::from_pairs([("__name__", "up"), ("instance", instance), ("job", "<j>&")])
}

fn evaluated(value: QueryValue) -> QueryAnswer {
    QueryAnswer {
        value,
        annotations: Annotations::default(),
        stats: QueryStats { eval_total: 0.5, ..Default::default() },
        held: Held::default(),
    }
}

/// Counts when it is dropped: a query whose client went away.
struct Dropped(std::sync::Arc<AtomicUsize>);
impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl ServerPorts for FakePorts {
    fn query_instant(&self, query: InstantQuery) -> Answer<'_, QueryAnswer> {
        let at = query.at;
        let text = query.query.clone();
        self.instant.lock().unwrap().push(query);
        let point = |value| Point { at, value };
        match text.as_str() {
            "" => {
                let error = "unknown position: parse error: no expression found in input";
                async move { Err(ApiError::invalid_parameter("query", error)) }.boxed()
            }
            "1e-7" => answer(evaluated(QueryValue::Scalar(point(1e-7)))),
            "text" => answer(evaluated(QueryValue::Text { at, text: "<b>".to_owned() })),
            "none" => answer(evaluated(QueryValue::Vector(vec![]))),
            "timeout" => async { Err(ApiError::timeout("query timed out in expression evaluation")) }.boxed(),
            "panic" => async { panic!("a handler that panics") }.boxed(),
            "hang" => {
                let guard = Dropped(self.dropped_queries.clone());
                async move {
                    let _guard = guard;
                    futures::future::pending().await
                }
                .boxed()
            }
            "big" => {
                let element =
                    |n: usize| VectorElement { labels: up(&format!("i{n}")), point: point(n as f64), histogram: None };
                answer(evaluated(QueryValue::Vector((0..5000).map(element).collect())))
            }
            "remarks" => answer(QueryAnswer {
                annotations: Annotations {
                    warnings: vec!["PromQL warning: <w>".to_owned()],
                    infos: vec!["PromQL info: i (1:1)".to_owned()],
                },
                ..evaluated(QueryValue::Vector(vec![]))
            }),
            _ => answer(evaluated(QueryValue::Vector(vec![
                VectorElement { labels: up("a:1"), point: point(0.0), histogram: None },
                VectorElement { labels: up("b:1"), point: point(1.0), histogram: None },
            ]))),
        }
    }

    fn exemplars(
        &self,
        selectors: Vec<Vec<Matcher>>,
        start: TimestampMs,
        end: TimestampMs,
    ) -> Answer<'_, Vec<SeriesExemplars>> {
        let has_some = selectors.iter().flatten().any(|matcher| matcher.value() == "with_exemplars");
        let exemplar = |at: i64, value, pairs: &[(&str, &str)]| Exemplar {
            labels: labels_of(pairs.to_vec()),
            value,
            at: TimestampMs(at),
            has_time: true,
        };
        let all = vec![exemplar(1_500, 0.5, &[("trace_id", "a")]), exemplar(2_000, f64::INFINITY, &[])];
        let exemplars: Vec<_> = all.into_iter().filter(|one| start <= one.at && one.at <= end).collect();
        async move {
            Ok(if has_some {
                vec![SeriesExemplars { series: Labels::from_pairs([("__name__", "up")]), exemplars }]
            } else {
                Vec::new()
            })
        }
        .boxed()
    }

    fn query_range(&self, query: RangeQuery) -> Answer<'_, QueryAnswer> {
        let points = vec![Point { at: query.start, value: 1.0 }, Point { at: query.end, value: 2.5 }];
        self.range.lock().unwrap().push(query);
        answer(evaluated(QueryValue::Matrix(vec![MatrixSeries { labels: up("a:1"), points, histograms: Vec::new() }])))
    }

    fn series(&self, request: SelectRequest) -> Answer<'_, Listed<Vec<Labels>>> {
        self.selects.lock().unwrap().push(request);
        answer(Listed { items: vec![up("a:1"), up("b:1")], warnings: vec![], held: Held::default() })
    }

    fn label_names(&self, request: SelectRequest) -> Answer<'_, Listed<Names>> {
        self.selects.lock().unwrap().push(request);
        answer(Listed {
            items: ["__name__", "instance", "job"].into_iter().collect(),
            warnings: vec![],
            held: Held::default(),
        })
    }

    fn label_values(&self, request: LabelValuesRequest) -> Answer<'_, Listed<Names>> {
        self.label_values.lock().unwrap().push(request);
        answer(Listed {
            items: ["<x>", "y"].into_iter().collect(),
            warnings: vec!["w".to_owned()],
            held: Held::default(),
        })
    }

    fn parse_options(&self) -> ParseOptions {
        ParseOptions::ALL
    }

    fn parse_selector(&self, text: &str) -> Result<Vec<Matcher>, String> {
        match text {
            "{}" => Ok(vec![]),
            "{" => Err("1:2: parse error: unexpected end of input inside braces".to_owned()),
            r#"{sev="p"}"# => Ok(vec![Matcher::equal("sev", "p")]),
            r#"{x=~".*"}"# => Ok(vec![Matcher::new(MatchOp::Regex, "x", ".*").unwrap()]),
            name => Ok(vec![Matcher::equal("__name__", name)]),
        }
    }

    fn targets(&self) -> Answer<'_, Targets> {
        let target = |pool: &str, url: &str, health, error: &str| ActiveTarget {
            discovered_labels: Labels::from_pairs([("__address__", "localhost:9090"), ("job", pool)]),
            labels: Labels::from_pairs([("instance", "localhost:9090"), ("job", pool)]),
            scrape_pool: pool.to_owned(),
            scrape_url: url.to_owned(),
            last_error: error.to_owned(),
            last_scrape: Some(UnixNanos(1_435_781_450_500_000_000)),
            last_scrape_duration: 0.0625,
            health,
            scrape_interval: "15s".to_owned(),
            scrape_timeout: "10s".to_owned(),
        };
        answer(Targets {
            pools: vec!["p".to_owned(), "down".to_owned(), "gone".to_owned()],
            active: vec![
                target("p", "http://localhost:9090/metrics", TargetHealth::Up, ""),
                target("down", "http://other:1/m?a=<script>", TargetHealth::Down, "connection refused <b>"),
            ],
            dropped: vec![DroppedTarget {
                discovered_labels: Labels::from_pairs([("__address__", "x:1")]),
                scrape_pool: "gone".to_owned(),
            }],
            dropped_counts: BTreeMap::from([("down".to_owned(), 0), ("gone".to_owned(), 1), ("p".to_owned(), 0)]),
            missing: vec![("down".to_owned(), "dns/down/0: no <answer>".to_owned())],
        })
    }

    fn target_metadata(&self, metric: &str) -> Answer<'_, Vec<TargetMetadata>> {
        let line = |family: &str, kind, help: &str| MetricMetadata {
            family: family.to_owned(),
            kind,
            help: help.to_owned(),
            unit: String::new(),
        };
        let of = |instance: &str, lines: Vec<MetricMetadata>| TargetMetadata {
            labels: up(instance).without(&["__name__"]),
            metadata: lines.into_iter().filter(|line| metric.is_empty() || line.family == metric).collect(),
        };
        answer(vec![
            of("a:1", vec![line("x", "counter", "<X>"), line("y", "gauge", "Y.")]),
            of("b:1", vec![line("x", "counter", "<X>"), line("x", "gauge", "Other.")]),
        ])
    }

    fn scrape_config(&self, pool: &str) -> Option<Arc<ScrapeConfig>> {
        let text = "scrape_configs: [{job_name: a, relabel_configs: [{source_labels: [x, y], target_label: z}, \
                    {regex: no, source_labels: [x], action: keep}, {regex: z, action: labeldrop}]}]";
        let loaded = load_str("prometheus.yml", text, &LoadOptions::default()).unwrap();
        loaded.scrape_configs.into_iter().find(|job| job.job_name == pool).map(Arc::new)
    }

    fn newest(&self, selectors: Vec<Vec<Matcher>>) -> Answer<'_, NewestSamples> {
        if selectors.iter().flatten().any(|matcher| matcher.name() == "sev") {
            return async { Err(ApiError::internal("shard 1 is not available: it failed")) }.boxed();
        }
        let sample = |instance: &str| NewestSample { labels: up(instance), at_ms: 1500, value: 1.0, histogram: None };
        let samples = if selectors.is_empty() { vec![] } else { vec![sample("a:1"), sample("b:1")] };
        answer(NewestSamples { samples, external_labels: vec![("r".to_owned(), "e".to_owned())], held: None })
    }

    fn tsdb_status(&self, limit: usize) -> Answer<'_, TsdbStatus> {
        let counts = |names: &[&str]| {
            let all = names.iter().zip([3, 1]).map(|(name, value)| NameCount { name: (*name).to_owned(), value });
            all.take(limit).collect()
        };
        answer(TsdbStatus {
            series: 4,
            label_pairs: 5,
            chunks: 6,
            min_time: None,
            max_time: Some(7),
            series_by_metric: counts(&["up", "<x>"]),
            values_by_label: counts(&["__name__", "job"]),
            bytes_by_label: vec![],
            series_by_pair: counts(&["job=a", "job=b"]),
        })
    }

    fn blocks(&self) -> Answer<'_, Vec<serde_json::Value>> {
        answer(vec![serde_json::json!({"ulid": "01", "minTime": 1, "compaction": {"level": 1}})])
    }

    fn rule_groups(&self) -> Answer<'_, Vec<RuleGroup>> {
        answer(vec![group("b.yml", "z"), group("a.yml", "y")])
    }

    fn alert_groups(&self) -> Vec<AlertGroup> {
        vec![AlertGroup {
            labels: Labels::from_pairs([("alertname", "Al<b>")]),
            receiver: "team".to_owned(),
            alerts: vec![Labels::from_pairs([("alertname", "Al<b>"), ("n", "1")])],
            next_flush: 30.0,
            failure: "no <y>".to_owned(),
        }]
    }

    fn alertmanagers(&self) -> Answer<'_, Alertmanagers> {
        answer(Alertmanagers { active: vec!["http://am:9093/api/v2/alerts".to_owned()], dropped: vec![] })
    }

    fn config_yaml(&self) -> Answer<'_, String> {
        answer("global:\n  x: <secret>\n".to_owned())
    }

    fn flags(&self) -> Vec<(String, String)> {
        vec![("a.b".to_owned(), "1".to_owned()), ("web.cors.origin".to_owned(), ".*".to_owned())]
    }

    fn runtime(&self) -> Answer<'_, Runtime> {
        answer(Runtime {
            start_time: UnixNanos(1_000_000_000),
            reload_success: true,
            last_config_time: None,
            corruption_count: 2,
            storage_retention: "15d or 1GiB".to_owned(),
        })
    }

    fn reload(&self) -> BoxFuture<'_, Result<(), String>> {
        self.reloads.fetch_add(1, Ordering::SeqCst);
        let fails = self.reload_fails.load(Ordering::SeqCst);
        async move { if fails { Err("one or more errors <x>".to_owned()) } else { Ok(()) } }.boxed()
    }

    fn last_reload(&self) -> Option<Reload> {
        let names = |names: &[&str]| ReloadNames {
            count: names.len() + 1,
            first: names.iter().map(|name| (*name).to_owned()).collect(),
        };
        let section =
            ReloadSection { what: "job".to_owned(), added: names(&["a"]), kept: 2, ..ReloadSection::default() };
        (0 < self.reloads.load(Ordering::SeqCst)).then(|| Reload {
            trigger: "http".to_owned(),
            started: UnixNanos(1_000_000_000),
            duration: 0.5,
            error: Some("no <x>".to_owned()),
            plan: vec![section],
            unconfirmed: vec!["scrape_pool a: no answer in time".to_owned()],
            in_progress: false,
        })
    }

    fn quit(&self) -> QuitVerdict {
        match self.quits.fetch_add(1, Ordering::SeqCst) {
            0 => QuitVerdict::Requested,
            _ => QuitVerdict::AlreadyStopping,
        }
    }

    fn remote_write(&self) -> Option<std::sync::Arc<watchfire::actors::remote_receiver::RemoteReceiver>> {
        None
    }

    fn otlp(&self) -> Option<std::sync::Arc<watchfire::actors::remote_receiver::RemoteReceiver>> {
        None
    }

    fn actors(&self) -> Vec<ActorInfo> {
        vec![ActorInfo {
            kind: "scrape_target".to_owned(),
            name: "p/<img src=x>".to_owned(),
            parent: String::new(),
            state: "failed".to_owned(),
            queue: 1,
            slots: 2,
            refused: 3,
            expired: 4,
            handled: 5,
            restarts: 6,
            last_panic: "index out of bounds".to_owned(),
            failing: "no answer".to_owned(),
            since: Some(UnixNanos(1_000_000_000)),
        }]
    }

    fn features(&self) -> Vec<(&'static str, Vec<(String, bool)>)> {
        let named = |name: &str, is_there| (name.to_owned(), is_there);
        vec![("api", vec![named("a", true), named("b", false)]), ("promql_operators", vec![named("</", true)])]
    }

    fn running_queries(&self) -> Vec<RunningQuery> {
        vec![RunningQuery {
            id: 7,
            text: "up > 1".to_owned(),
            kind: "range",
            start: TimestampMs(1_000),
            end: TimestampMs(2_500),
            step_ms: 500,
            since: UnixNanos(1_435_781_450_781_000_000),
            client_ip: "10.0.0.1".to_owned(),
        }]
    }

    fn cancel_query(&self, id: u64) -> bool {
        if id == 7 {
            self.cancelled.fetch_add(1, Ordering::SeqCst);
        }
        id == 7
    }

    fn gathered(&self) -> Vec<MetricFamily> {
        let family = |name: &str, help: &str, kind, labels: &[(&str, &str)], value| MetricFamily {
            name: name.to_owned(),
            help: help.to_owned(),
            kind,
            metrics: vec![(Labels::from_pairs(labels.iter().copied()), value)],
        };
        let histogram = MetricValue::Histogram { buckets: vec![(1.0, 1), (f64::INFINITY, 1)], sum: 0.5, count: 1 };
        let summary = MetricValue::Summary { quantiles: vec![(0.5, f64::INFINITY)], sum: 1.5, count: 2 };
        vec![
            family("a_total", "A.", MetricKind::Counter, &[("x", "1")], MetricValue::Number(3.0)),
            family("g", "", MetricKind::Gauge, &[], MetricValue::Number(f64::NAN)),
            family("h", "", MetricKind::Histogram, &[], histogram),
            family("s", "", MetricKind::Summary, &[], summary),
        ]
    }

    fn metrics(&self, accept: Option<&str>) -> Answer<'_, Exposition> {
        let body = format!("# accept {}\nup 1\n", accept.unwrap_or("-")).into_bytes();
        answer(Exposition { content_type: "text/plain; version=0.0.4; charset=utf-8".to_owned(), body })
    }
}

fn group(file: &str, name: &str) -> RuleGroup {
    let at = Some(UnixNanos(1_435_781_451_000_000_001));
    let rule = |name: &str, query: &str, labels: Labels, alerting| Rule {
        name: name.to_owned(),
        query: query.to_owned(),
        labels,
        health: RuleHealth::Ok,
        last_error: String::new(),
        evaluation_time: 0.000198306,
        last_evaluation: at,
        alerting,
    };
    let alert = Alert {
        labels: Labels::from_pairs([("alertname", "Al"), ("sev", "p")]),
        annotations: Labels::from_pairs([("s", "hi <1>")]),
        state: AlertState::Firing,
        active_at: at,
        keep_firing_since: None,
        value: 1.0,
    };
    let alerting = Alerting {
        state: AlertState::Firing,
        hold: 300.0,
        keep_firing_for: 0.0,
        annotations: Labels::from_pairs([("s", "hi {{ $value }}")]),
        alerts: vec![alert.clone(), Alert { keep_firing_since: at, value: 1e-9, ..alert }],
    };
    let mut failing = rule("bad", "x", Labels::empty(), None);
    failing.health = RuleHealth::Err;
    failing.last_error = "no <y>".to_owned();
    RuleGroup {
        name: name.to_owned(),
        file: file.to_owned(),
        interval: 1.0,
        limit: 0,
        evaluation_time: 0.5,
        last_evaluation: None,
        rules: vec![
            rule("a:b", "vector(1)", Labels::from_pairs([("x", "<y>&")]), None),
            rule("Al", "vector(1) > 0", Labels::from_pairs([("sev", "p")]), Some(alerting)),
            failing,
        ],
    }
}

/// Time stamps for checks of what was asked.
pub(crate) fn ms(at: TimestampMs) -> i64 {
    at.0
}
