//! Scrapes without a network: bodies go into the reader, batches into a store that behaves like the head.

mod synthesis;

use std::collections::HashMap;
use std::sync::Arc;

use proptest::prelude::*;

use crate::exposition::content_type::Format;
use crate::exposition::protobuf::NativePart;
use crate::exposition::text::FamilyKind;
use crate::model::append::{
    AppendBatch, AppendReport, AppendStarts, HistogramValue, SampleRejection, SeriesHandle, SeriesKey, ShardId,
};
use crate::model::exemplar::ExemplarRejection;
use crate::model::labels::Labels;
use crate::model::sample::{SeriesRef, is_stale};
use crate::model::time::TimestampMs;
use crate::scrape::cache::{Confirmed, Pending, TargetCache};
use crate::scrape::error::ScrapeError;
use crate::scrape::reader::{ReadCounts, Reader};
use crate::scrape::report::{self, Report};
use crate::scrape::settings::{ClassicPart, Extras, SamplePlan, ScrapeLimits, ScrapeSettings};
use crate::scrape::staging::StagingBudget;

/// Resolves series as storage does and keeps what it is given.
#[derive(Default)]
struct Store {
    series: Vec<Labels>,
    known: HashMap<Labels, usize>,
    forgotten: Vec<u64>,
    full: bool,
    by_labels: usize,
    log: Vec<(String, i64, String)>,
}

impl Store {
    fn append(&mut self, batch: &AppendBatch) -> AppendReport {
        let mut report = AppendReport::default();
        self.by_labels = 0;
        let float = |value: f64| if is_stale(value) { "stale".to_owned() } else { value.to_string() };
        let floats = batch.samples.iter().map(|s| (&s.series, s.at, float(s.value)));
        let histogram = |value: &HistogramValue| match value {
            HistogramValue::Integer(h) => format!("whole {} {} {:?}", h.schema, h.count, h.positive_buckets),
            HistogramValue::Float(h) => format!("float {} {} {:?}", h.schema, h.count, h.positive_buckets),
        };
        let histograms = batch.histograms.iter().map(|s| (&s.series, s.at, histogram(&s.value)));
        for (index, (key, at, value)) in (0_u32..).zip(floats.chain(histograms)) {
            let series = match key {
                SeriesKey::Known(handle) if self.forgotten.contains(&handle.series.0) => {
                    report.rejected.push((index, SampleRejection::UnknownSeries));
                    continue;
                }
                SeriesKey::Known(handle) => handle.series.0 as usize - 1,
                SeriesKey::Labels(labels) => {
                    self.by_labels += 1;
                    if self.full && !self.known.contains_key(labels) {
                        report.rejected.push((index, SampleRejection::SeriesLimit { held: 1, limit: 1 }));
                        continue;
                    }
                    let next = self.series.len();
                    let series = *self.known.entry(labels.clone()).or_insert(next);
                    if series == next {
                        self.series.push(labels.clone());
                    }
                    let series_ref = SeriesRef(series as u64 + 1);
                    report.resolved.push((index, SeriesHandle { series: series_ref, shard: ShardId(3) }));
                    series
                }
            };
            report.appended += 1;
            self.log.push((self.series[series].to_string(), at.0, value));
        }
        report
    }

    /// What was stored since the last look, report series left out.
    fn news(&mut self) -> Vec<String> {
        let log = std::mem::take(&mut self.log);
        let is_report = |labels: &str| report::NAMES.iter().any(|n| labels.contains(&format!("__name__=\"{n}\"")));
        log.into_iter().filter(|(l, ..)| !is_report(l)).map(|(l, at, v)| format!("{l} {v} @{at}")).collect()
    }
}

struct Target {
    cache: TargetCache,
    plan: SamplePlan,
    budget: Arc<StagingBudget>,
    store: Store,
    limits: ScrapeLimits,
    format: Format,
    at: i64,
}

impl Target {
    fn new(settings: ScrapeSettings) -> Self {
        Self {
            cache: TargetCache::new(),
            plan: SamplePlan { target_labels: Labels::empty(), settings: Arc::new(settings), relabel: None },
            budget: StagingBudget::new(0),
            store: Store::default(),
            limits: ScrapeLimits::for_memory(0),
            format: Format::Text,
            at: 0,
        }
    }

    /// Reads a body in chunks of `step` bytes and publishes it, as `once` does.
    fn read(&mut self, body: &[u8], step: usize) -> (AppendBatch, Pending, ReadCounts, Option<ScrapeError>) {
        self.at += 1;
        let at = TimestampMs(self.at);
        let mut reader = Reader::new(&self.plan, self.cache.load(), at, self.limits, self.budget.permit());
        reader.set_format(self.format);
        let fed = body.chunks(step).try_for_each(|chunk| reader.feed(chunk));
        let (counts, staged) = match fed {
            Ok(()) => reader.finish(),
            Err(error) => (reader.counts(), Err(error)),
        };
        let report = Report {
            at,
            up: staged.is_ok(),
            duration_seconds: 0.0,
            scraped: counts.scraped,
            post_relabel: counts.post_relabel,
            series_added: counts.series_added,
            timeout_seconds: 10.0,
            sample_limit: 0,
            body_len: 0,
        };
        match staged {
            Ok(staged) if !body.is_empty() => {
                let (batch, pending) = self.cache.publish(staged, &report, &self.plan);
                (batch, pending, counts, None)
            }
            other => {
                let (batch, pending) = self.cache.publish_stale(&report, &self.plan);
                (batch, pending, counts, other.err())
            }
        }
    }

    fn commit(&mut self, batch: &AppendBatch, pending: Pending) -> Confirmed {
        let answer = self.store.append(batch);
        self.cache.confirm(pending, &answer, &self.plan)
    }

    /// A whole scrape that storage accepts.
    fn scrape(&mut self, body: &str) -> (ReadCounts, Option<ScrapeError>) {
        let (batch, pending, counts, error) = self.read(body.as_bytes(), 7);
        self.commit(&batch, pending);
        (counts, error)
    }

    #[track_caller]
    fn expect(&mut self, expected: &[&str]) {
        assert_eq!(self.store.news(), expected);
    }
}

#[test]
fn the_second_scrape_names_series_by_handle() {
    let mut target = Target::new(ScrapeSettings::default());
    let (counts, _) = target.scrape("# TYPE a counter\na{x=\"1\"} 1\na{x=\"2\"} 2\n");
    assert_eq!((counts.scraped, counts.post_relabel, counts.series_added), (2, 2, 2));
    assert_eq!(target.store.by_labels, 2 + 5);
    target.expect(&["{__name__=\"a\", x=\"1\"} 1 @1", "{__name__=\"a\", x=\"2\"} 2 @1"]);
    let (counts, _) = target.scrape("# TYPE a counter\na{x=\"1\"} 3\na{x=\"2\"} 4\n");
    assert_eq!((counts.scraped, counts.series_added), (2, 0));
    assert_eq!(target.store.by_labels, 0);
    target.expect(&["{__name__=\"a\", x=\"1\"} 3 @2", "{__name__=\"a\", x=\"2\"} 4 @2"]);
}

#[test]
fn vanished_series_get_one_stale_marker() {
    let mut target = Target::new(ScrapeSettings::default());
    target.scrape("a 1\nb 1\nc 1\n");
    target.store.news();
    target.scrape("a 2\nc 2\n");
    target.expect(&["{__name__=\"a\"} 2 @2", "{__name__=\"c\"} 2 @2", "{__name__=\"b\"} stale @2"]);
    target.scrape("a 3\n");
    target.expect(&["{__name__=\"a\"} 3 @3", "{__name__=\"c\"} stale @3"]);
    target.scrape("a 4\n");
    target.expect(&["{__name__=\"a\"} 4 @4"]);
}

#[test]
fn order_may_change_and_series_may_come() {
    let mut target = Target::new(ScrapeSettings::default());
    target.scrape("a 1\nb 1\nc 1\n");
    target.store.news();
    target.scrape("c 2\na 2\nnew 2\nb 2\n");
    assert_eq!(target.store.by_labels, 1);
    assert_eq!(target.store.news().len(), 4);
    target.scrape("c 3\na 3\nnew 3\nb 3\n");
    assert_eq!((target.store.by_labels, target.store.news().len()), (0, 4));
}

#[test]
fn a_failed_scrape_marks_everything_once() {
    let mut target = Target::new(ScrapeSettings::default());
    target.scrape("a 1\nb 1\n");
    target.store.news();
    let (counts, error) = target.scrape("a 2\nb ?\n");
    assert_eq!((counts.scraped, counts.post_relabel), (1, 1));
    assert_eq!(error.unwrap().to_string(), "strconv.ParseFloat: parsing \"?\": invalid syntax while parsing: \"b ?\"");
    target.expect(&["{__name__=\"a\"} stale @2", "{__name__=\"b\"} stale @2"]);
    target.scrape("?");
    target.expect(&[]);
    // Nothing is added, as the series are known; what stays away has its marker already.
    let (counts, _) = target.scrape("a 4\n");
    assert_eq!(counts.series_added, 0);
    target.expect(&["{__name__=\"a\"} 4 @4"]);
}

#[test]
fn an_empty_body_is_a_good_scrape_that_marks_everything() {
    let mut target = Target::new(ScrapeSettings::default());
    target.scrape("a 1\n");
    target.store.news();
    let (_, error) = target.scrape("");
    assert_eq!(error, None);
    target.expect(&["{__name__=\"a\"} stale @2"]);
    assert_eq!(target.scrape("a 3\n").0.series_added, 0);
}

#[test]
fn a_second_sample_of_a_series_is_a_duplicate() {
    let mut target = Target::new(ScrapeSettings::default());
    for at in 1..4 {
        let (counts, _) = target.scrape("a 1\nb 1\na 2\n");
        assert_eq!((counts.scraped, counts.post_relabel, counts.duplicates), (3, 3, 1));
        assert_eq!(target.store.news(), [format!("{{__name__=\"a\"}} 1 @{at}"), format!("{{__name__=\"b\"}} 1 @{at}")]);
    }
    // The first of both lines goes: the second one stands for the series.
    let (counts, _) = target.scrape("b 1\na 2\n");
    assert_eq!(counts.duplicates, 0);
    target.expect(&["{__name__=\"b\"} 1 @4", "{__name__=\"a\"} 2 @4"]);
    let (counts, _) = target.scrape("b 1\na 2\na 3\n");
    assert_eq!((counts.duplicates, target.store.news().len()), (1, 2));
}

#[test]
fn two_spellings_of_a_series_leave_no_marker_behind() {
    let mut target = Target::new(ScrapeSettings::default());
    target.scrape("a{x=\"1\",y=\"2\"} 1\na{y=\"2\",x=\"1\"} 1\n");
    target.store.news();
    target.scrape("a{y=\"2\",x=\"1\"} 2\n");
    target.expect(&["{__name__=\"a\", x=\"1\", y=\"2\"} 2 @2"]);
}

#[test]
fn explicit_timestamps_are_kept_and_not_tracked() {
    let mut target = Target::new(ScrapeSettings::default());
    target.scrape("a 1 1000\na 2 2000\n");
    target.expect(&["{__name__=\"a\"} 1 @1000", "{__name__=\"a\"} 2 @2000"]);
    target.scrape("b 1\n");
    target.expect(&["{__name__=\"b\"} 1 @2"]);

    let tracking = ScrapeSettings { track_timestamps_staleness: true, ..Default::default() };
    let mut target = Target::new(tracking);
    target.scrape("a 1 1000\n");
    target.store.news();
    target.scrape("b 1\n");
    target.expect(&["{__name__=\"b\"} 1 @2", "{__name__=\"a\"} stale @2"]);

    let mut target = Target::new(ScrapeSettings { honor_timestamps: false, ..Default::default() });
    target.scrape("a 1 1000\n");
    target.expect(&["{__name__=\"a\"} 1 @1"]);
}

#[test]
fn a_series_that_loses_its_timestamp_becomes_tracked() {
    let mut target = Target::new(ScrapeSettings::default());
    target.scrape("a 1 1000\nb 1\n");
    target.scrape("a 1\nb 1\n");
    target.store.news();
    target.scrape("b 1\n");
    target.expect(&["{__name__=\"b\"} 1 @3", "{__name__=\"a\"} stale @3"]);
}

#[test]
fn the_sample_limit_fails_the_scrape_whole_and_counts_all() {
    let mut target = Target::new(ScrapeSettings { sample_limit: 2, ..Default::default() });
    let (_, error) = target.scrape("a 1\nb 1\n");
    assert_eq!(error, None);
    target.store.news();
    let (counts, error) = target.scrape("a 1\nb 1\nc 1\nd 1\n");
    assert_eq!(error, Some(ScrapeError::SampleLimit));
    assert_eq!((counts.scraped, counts.post_relabel, counts.series_added), (4, 4, 0));
    target.expect(&["{__name__=\"a\"} stale @2", "{__name__=\"b\"} stale @2"]);
    // The same where every line is known.
    assert_eq!(target.scrape("a 1\nb 1\n").1, None);
    target.plan.settings = Arc::new(ScrapeSettings { sample_limit: 1, ..Default::default() });
    let (counts, error) = target.scrape("a 1\nb 1\n");
    assert_eq!((error, counts.scraped, counts.post_relabel), (Some(ScrapeError::SampleLimit), 2, 2));
}

#[test]
fn a_known_line_may_have_more_than_one_blank_and_a_value() {
    let mut target = Target::new(ScrapeSettings::default());
    target.scrape("a 1\nb 1\nc 1\nd 1\n");
    target.store.news();
    let (counts, error) = target.scrape("a  2\nb 2 7\nc\t3\nd 4 \n");
    assert_eq!((error, counts.scraped, counts.series_added, target.store.by_labels), (None, 4, 0, 0));
    let stored = [("a", "2 @2"), ("b", "2 @7"), ("c", "3 @2"), ("d", "4 @2")];
    assert_eq!(target.store.news(), stored.map(|(name, sample)| format!("{{__name__=\"{name}\"}} {sample}")));
}

#[test]
fn dropped_series_are_scraped_but_not_stored() {
    let mut target = Target::new(ScrapeSettings::default());
    target.plan.relabel = Some(Arc::new(|labels: Labels| (labels.metric_name() != "b").then_some(labels)));
    for at in 1..3 {
        let (counts, _) = target.scrape("a 1\nb 1\nb 1\n");
        assert_eq!((counts.scraped, counts.post_relabel, counts.duplicates), (3, 1, 0));
        assert_eq!(target.store.news(), [format!("{{__name__=\"a\"}} 1 @{at}")]);
    }
}

#[test]
fn a_handle_that_storage_forgot_is_replaced_at_once() {
    let mut target = Target::new(ScrapeSettings::default());
    target.scrape("a 1\nb 1\n");
    target.store.news();
    target.store.forgotten = vec![1, 3];
    let (batch, pending, ..) = target.read(b"a 2\nb 2\n", 100);
    let confirmed = target.commit(&batch, pending);
    target.expect(&["{__name__=\"b\"} 2 @2"]);
    let (again, pending) = confirmed.resend.unwrap();
    assert_eq!(again.samples.len(), 2, "the series and one report series");
    target.store.forgotten.clear();
    let confirmed = target.commit(&again, pending);
    assert!(confirmed.resend.is_none());
    target.expect(&["{__name__=\"a\"} 2 @2"]);
    target.scrape("a 3\nb 3\n");
    assert_eq!(target.store.by_labels, 0);
}

#[test]
fn a_series_without_room_is_tried_again_and_leaves_no_marker() {
    let mut target = Target::new(ScrapeSettings::default());
    target.scrape("a 1\n");
    target.store.news();
    target.store.full = true;
    let (batch, pending, ..) = target.read(b"a 2\nb 2\n", 100);
    assert_eq!(target.commit(&batch, pending).series_limit, 1);
    target.store.full = false;
    assert_eq!(target.scrape("a 3\nb 3\n").0.series_added, 1);
    target.store.full = true;
    target.store.news();
    let (batch, pending, ..) = target.read(b"a 4\nb 4\nc 4\n", 100);
    target.commit(&batch, pending);
    target.store.news();
    target.scrape("a 5\nb 5\n");
    target.expect(&["{__name__=\"a\"} 5 @5", "{__name__=\"b\"} 5 @5"]);
}

#[test]
fn what_nobody_knows_about_is_marked_and_what_was_not_done_is_undone() {
    // The batch was lost or not: the new series gets its marker by labels, the vanished one gets it again.
    let mut target = Target::new(ScrapeSettings::default());
    target.scrape("a 1\nb 1\n");
    target.store.news();
    let (_, pending, ..) = target.read(b"a 2\nc 2\n", 100);
    drop(pending);
    target.scrape("a 3\n");
    target.expect(&["{__name__=\"a\"} 3 @3", "{__name__=\"c\"} stale @3", "{__name__=\"b\"} stale @3"]);

    let mut target = Target::new(ScrapeSettings::default());
    target.scrape("a 1\nb 1\n");
    target.store.news();
    let (_, pending, ..) = target.read(b"a 2\nc 2\n", 100);
    target.cache.abandon(pending);
    target.scrape("a 3\n");
    target.expect(&["{__name__=\"a\"} 3 @3", "{__name__=\"b\"} stale @3"]);

    // A failed scrape whose markers were not stored marks again.
    let (_, pending, ..) = target.read(b"?", 100);
    target.cache.abandon(pending);
    target.scrape("?");
    target.expect(&["{__name__=\"a\"} stale @5"]);
}

#[test]
fn the_end_of_a_target_marks_all_series_and_the_report() {
    let mut target = Target::new(ScrapeSettings::default());
    assert_eq!(target.cache.end_of_run(TimestampMs(9), &target.plan), None);
    target.scrape("a 1\n");
    let batch = target.cache.end_of_run(TimestampMs(9), &target.plan).unwrap();
    assert_eq!(batch.samples.len(), 1 + 5);
    assert!(batch.samples.iter().all(|s| is_stale(s.value) && matches!(s.series, SeriesKey::Known(_))));
}

#[test]
fn report_series_say_what_happened() {
    let mut target = Target::new(ScrapeSettings { extra_scrape_metrics: true, ..Default::default() });
    target.plan.target_labels = Labels::from_pairs([("job", "j")]);
    target.scrape("a 1\n");
    let log: Vec<_> =
        target.store.log.drain(..).skip(1).map(|(labels, _, value)| format!("{labels} {value}")).collect();
    assert_eq!(log.len(), 8);
    assert_eq!(log[0], "{__name__=\"up\", job=\"j\"} 1");
    assert_eq!(log[2], "{__name__=\"scrape_samples_scraped\", job=\"j\"} 1");
    assert_eq!(log[5], "{__name__=\"scrape_timeout_seconds\", job=\"j\"} 10");
}

#[test]
fn metadata_outlives_its_family_by_ten_scrapes() {
    let mut target = Target::new(ScrapeSettings::default());
    target.scrape("# HELP a Text\\n.\n# TYPE a counter\na 1\n# TYPE b gauge\nb 1\n");
    let metadata = target.cache.metadata();
    assert_eq!(
        (metadata[0].family.as_str(), metadata[0].kind, metadata[0].help.as_str()),
        ("a", FamilyKind::Counter, "Text\n.")
    );
    assert_eq!(metadata.len(), 2);
    let size = target.cache.metadata_size();
    let bytes: usize = metadata.iter().map(|m| m.kind.name().len() + m.help.len() + m.unit.len()).sum();
    assert_eq!((size.entries, size.bytes), (2, bytes as u64));
    for _ in 0..10 {
        target.scrape("# TYPE b gauge\nb 1\n");
    }
    assert_eq!(target.cache.metadata().len(), 2);
    target.scrape("# TYPE b gauge\nb 1\n");
    assert_eq!(target.cache.metadata().len(), 1);
}

#[test]
fn a_line_over_the_limit_fails_the_scrape() {
    let mut target = Target::new(ScrapeSettings::default());
    target.limits.line_len_max = 64;
    assert_eq!(target.scrape(&format!("a{{x=\"{}\"}} 1\n", "y".repeat(40))).1, None);
    for body in ["y".repeat(100), format!("a{{x=\"{}", "y\n".repeat(100))] {
        assert_eq!(target.scrape(&body).1, Some(ScrapeError::LineTooLong { limit: 64 }));
    }
}

#[test]
fn the_staging_budget_fails_the_scrape_that_needs_too_much() {
    let mut target = Target::new(ScrapeSettings::default());
    target.budget = StagingBudget::new(1 << 20);
    let body: String = (0..100_000).map(|i| format!("a{{x=\"{i}\"}} 1\n")).collect();
    let (batch, pending, _, error) = target.read(body.as_bytes(), 16 << 10);
    assert!(matches!(error, Some(ScrapeError::StagingShare { limit: 0x10_0000, .. })), "{error:?}");
    target.commit(&batch, pending);
    assert_eq!(target.budget.used(), 0);
}

#[test]
fn a_cached_series_costs_at_most_100_bytes() {
    let mut target = Target::new(ScrapeSettings::default());
    let body: String = (0..2000)
        .map(|i| format!("node_cpu_seconds_total{{cpu=\"{}\",mode=\"softirq{}\"}} {i}\n", i / 8, i % 8))
        .collect();
    let (counts, _) = target.scrape(&body);
    let bytes_each = target.cache.heap_bytes() / usize::try_from(counts.scraped).unwrap();
    assert!(bytes_each <= 100, "{bytes_each}");
}

fn openmetrics() -> Target {
    Target { format: Format::OpenMetrics, ..Target::new(ScrapeSettings::default()) }
}

#[test]
fn openmetrics_lines_are_known_whatever_exemplars_they_carry() {
    let mut target = openmetrics();
    let body = |value: u32, id: &str| {
        format!(
            "# TYPE a counter\n# UNIT a_seconds seconds\na_total{{x=\"1\"}} {value} # {{id=\"{id}\"}} 1.5 {value}\n\
             a_created{{x=\"1\"}} 17\n# EOF\n"
        )
    };
    let (counts, error) = target.scrape(&body(1, "q"));
    assert_eq!((error, counts.scraped, counts.series_added, counts.exemplars), (None, 2, 2, 1));
    target.expect(&["{__name__=\"a_total\", x=\"1\"} 1 @1", "{__name__=\"a_created\", x=\"1\"} 17 @1"]);
    let before = target.cache.load();
    let (counts, error) = target.scrape(&body(2, "rst\\\"\\n"));
    assert_eq!((error, counts.series_added, counts.exemplars, target.store.by_labels), (None, 0, 1, 0));
    target.expect(&["{__name__=\"a_total\", x=\"1\"} 2 @2", "{__name__=\"a_created\", x=\"1\"} 17 @2"]);
    assert!(Arc::ptr_eq(&before.sequence, &target.cache.load().sequence), "nothing was written anew");
    let bad = "# TYPE a counter\n# UNIT a_seconds seconds\na_total{x=\"1\"} 1 # {id} 1\n# EOF\n";
    let text = "expected equal, got \"} \" (\"BCLOSE\") while parsing: \"a_total{x=\\\"1\\\"} 1 # {id} \"";
    assert_eq!(target.scrape(bad).1.unwrap().to_string(), text);
}

#[test]
fn openmetrics_ends_with_its_last_line() {
    let error = |body: &str| openmetrics().scrape(body).1.map(|e| e.to_string()).unwrap_or_default();
    assert_eq!(error("a 1\n# EOF\n"), "");
    assert_eq!(error("a 1\n# EOF"), "");
    assert_eq!(error("a 1\n# EOF\n\0\0"), "");
    assert_eq!(error(""), "");
    for body in ["a 1\n", "a 1", "# EO", "# TYPE a gauge\n"] {
        assert!(!error(body).is_empty(), "{body:?}");
    }
    assert_eq!(error("a 1\n"), "data does not end with # EOF");
    for body in ["# EOF\n\n", "# EOF\na 1\n", "# EOFa 1", "# EOF\n# EOF\n"] {
        assert_eq!(error(body), "unexpected data after # EOF", "{body:?}");
    }
}

#[test]
fn what_follows_a_value_in_openmetrics_is_no_line() {
    let mut target = openmetrics();
    assert_eq!(target.scrape("a 1\nb 2\n# EOF\n").1, None);
    // Both where `b` is known and where it is new.
    for body in ["a 1 # b 2\n# EOF\n", "a 1 # c 2\n# EOF\n"] {
        let error = target.scrape(body).1.unwrap().to_string();
        assert!(error.starts_with("expected a valid start token, got"), "{error}");
    }
}

#[test]
fn a_target_that_changes_its_format_keeps_its_series() {
    let mut target = Target::new(ScrapeSettings::default());
    target.scrape("# TYPE a gauge\na{x=\"1\"} 1\nb 1\n");
    target.store.news();
    target.format = Format::OpenMetrics;
    let (counts, error) = target.scrape("# TYPE a gauge\na{x=\"1\"} 2\n# EOF\n");
    assert_eq!((error, counts.series_added, target.store.by_labels), (None, 0, 0));
    target.expect(&["{__name__=\"a\", x=\"1\"} 2 @2", "{__name__=\"b\"} stale @2"]);
    // What only the text format takes is not recognised as the line of the last scrape.
    target.format = Format::Text;
    target.scrape("a  1\n");
    target.format = Format::OpenMetrics;
    assert!(target.scrape("a  1\n# EOF\n").1.is_some());
}

#[test]
fn metadata_of_openmetrics_has_units_and_more_types() {
    let mut target = openmetrics();
    target.scrape("# HELP a_b \\\"x\\\"\n# TYPE a_b stateset\n# UNIT a_b b\na_b 1\n# EOF\n");
    let found = &target.cache.metadata()[0];
    assert_eq!((found.kind, found.help.as_str(), found.unit.as_str()), (FamilyKind::StateSet, "\"x\"", "b"));
    target.format = Format::Text;
    target.scrape("# HELP a_b \\\"x\\\"\n# TYPE a_b gauge\na_b 1\n");
    let found = &target.cache.metadata()[0];
    assert_eq!((found.kind, found.help.as_str(), found.unit.as_str()), (FamilyKind::Gauge, "\\\"x\\\"", ""));
}

/// Families of protobuf: `c_total{x="1"}`, a histogram `h` with the bucket 0.5, and one with nothing in it.
fn families(value: f64) -> Vec<u8> {
    [
        b"\x22\x0a\x07c_total\x12\x02Hi\x22\x13\x0a\x06\x0a\x01x\x12\x011\x1a\x09\x09".as_slice(),
        &value.to_le_bytes(),
        b"\x18\x0a\x01h\x18\x04\x22\x11\x3a\x0f\x08\x07\x1a\x0b\x08\x03\x11",
        &0.5_f64.to_le_bytes(),
        b"\x00",
    ]
    .concat()
}

#[test]
fn protobuf_is_read_as_it_comes_and_known_the_second_time() {
    let expected = |at: i64, value: &str| {
        [
            format!("{{__name__=\"c_total\", x=\"1\"}} {value} @{at}"),
            format!("{{__name__=\"h_count\"}} 7 @{at}"),
            format!("{{__name__=\"h_sum\"}} 0 @{at}"),
            format!("{{__name__=\"h_bucket\", le=\"0.5\"}} 3 @{at}"),
            format!("{{__name__=\"h_bucket\", le=\"+Inf\"}} 7 @{at}"),
        ]
    };
    for step in 1..=families(0.0).len() {
        let mut target = Target { format: Format::Protobuf, ..Target::new(ScrapeSettings::default()) };
        for (at, value) in [(1, "1.5"), (2, "2.5")] {
            let before = target.cache.load();
            let (batch, pending, counts, error) = target.read(&families(value.parse().unwrap()), step);
            target.commit(&batch, pending);
            assert_eq!(Arc::ptr_eq(&before.sequence, &target.cache.load().sequence), at == 2);
            assert_eq!((error, counts.scraped), (None, 5), "{step}");
            assert_eq!(target.store.news(), expected(at, value), "{step}");
            assert_eq!(target.store.by_labels, if at == 1 { 10 } else { 0 });
        }
        let metadata = target.cache.metadata();
        assert_eq!((metadata[0].family.as_str(), metadata[0].help.as_str()), ("c_total", "Hi"));
        assert_eq!(metadata[1].kind, FamilyKind::Histogram);
    }
}

/// A family with a native histogram `h` of three neighbouring buckets with these counts, and one classic bucket; its count is
/// one more where it is broken.
fn native_family(counts: [u8; 3], broken: bool) -> Vec<u8> {
    let zigzag = |delta: i8| (delta << 1 ^ delta >> 7).cast_unsigned();
    let delta = |a: u8, b: u8| zigzag(b.cast_signed() - a.cast_signed());
    let [a, b, c] = counts;
    let count = a + b + c + u8::from(broken);
    let deltas = [zigzag(a.cast_signed()), delta(a, b), delta(b, c)];
    let span = [0x62, 4, 0x08, 2, 0x10, 3];
    let bucket = [b"\x1a\x0b\x08\x01\x11".as_slice(), &0.5_f64.to_le_bytes()].concat();
    let histogram = [&[0x08, count][..], &bucket, &[0x28, 4], &span, &[0x6a, 3], &deltas].concat();
    let metric = [&[0x3a, histogram.len() as u8][..], &histogram].concat();
    let family = [b"\x0a\x01h\x18\x04\x22".as_slice(), &[metric.len() as u8], &metric].concat();
    [&[family.len() as u8][..], &family].concat()
}

fn native_target(settings: ScrapeSettings) -> Target {
    Target { format: Format::Protobuf, ..Target::new(settings) }
}

fn read_native(target: &mut Target, body: &[u8]) -> Option<ScrapeError> {
    let (batch, pending, _, error) = target.read(body, 5);
    let mut confirmed = target.commit(&batch, pending);
    if let Some((batch, pending)) = confirmed.resend.take() {
        target.commit(&batch, pending);
    }
    error
}

/// Series and exemplars of a batch: labels, value and time.
fn exemplars(batch: &AppendBatch) -> Vec<String> {
    let show = |one: &crate::model::append::AppendExemplar| {
        let exemplar = &one.exemplar;
        let own = if exemplar.has_time { "" } else { " of the sample" };
        format!("{} {} {} @{}{own}", one.series, exemplar.labels, exemplar.value, exemplar.at.0)
    };
    batch.exemplars.iter().map(show).collect()
}

fn with_exemplars(format: Format, settings: ScrapeSettings) -> Target {
    let extras = Extras { exemplars: true, ..Extras::default() };
    Target { format, ..Target::new(ScrapeSettings { extras, ..settings }) }
}

#[test]
fn exemplars_go_with_their_samples() {
    let mut target = with_exemplars(Format::OpenMetrics, ScrapeSettings::default());
    target.plan.target_labels = Labels::from_pairs([("job", "j")]);
    let relabel = |labels: Labels| Some(labels).filter(|labels| labels.get("x") != Some("drop"));
    target.plan.relabel = Some(Arc::new(relabel));
    let body = "# TYPE a counter\na_total{x=\"1\"} 1 # {id=\"q\",\"ü\"=\"v\"} 1.5 7\na_total{x=\"2\"} 2 # {} 3\n\
                a_total{x=\"drop\"} 2 # {id=\"d\"} 3\na_total{x=\"2\"} 2 # {id=\"twice\"} 3\n# EOF\n";
    let expected = |at: i64| {
        [
            "{__name__=\"a_total\", job=\"j\", x=\"1\"} {id=\"q\", \"ü\"=\"v\"} 1.5 @7000".to_owned(),
            format!("{{__name__=\"a_total\", job=\"j\", x=\"2\"}} {{}} 3 @{at} of the sample"),
        ]
    };
    for at in 1..3 {
        let (batch, pending, counts, error) = target.read(body.as_bytes(), 11);
        assert_eq!((error, counts.exemplars), (None, 4));
        assert_eq!(exemplars(&batch), expected(at));
        let late = AppendReport {
            exemplars_rejected: vec![(0, ExemplarRejection::OutOfOrder), (1, ExemplarRejection::LabelsTooLong)],
            ..target.store.append(&batch)
        };
        assert_eq!(target.cache.confirm(pending, &late, &target.plan).late_exemplars, 1);
    }
    let limited = ScrapeSettings { sample_limit: 1, ..ScrapeSettings::default() };
    let mut limited = with_exemplars(Format::OpenMetrics, limited);
    assert_eq!(exemplars(&limited.read(body.as_bytes(), 11).0), Vec::<String>::new());
}

#[test]
fn exemplars_of_buckets_go_with_the_native_histogram() {
    let settings = ScrapeSettings { classic: ClassicPart::Converted, ..ScrapeSettings::default() };
    let mut target = with_exemplars(Format::OpenMetrics, settings);
    let body = "# TYPE h histogram\nh_bucket{le=\"1\"} 1 # {id=\"a\"} 0.5 7\nh_bucket{le=\"+Inf\"} 3 # {id=\"b\"} 4 6\nh_count 3\n# EOF\n";
    for _ in 0..2 {
        let (batch, pending, counts, error) = target.read(body.as_bytes(), 11);
        assert_eq!((error, counts.exemplars, batch.histograms.len()), (None, 2, 1));
        assert_eq!(exemplars(&batch), ["{__name__=\"h\"} {id=\"b\"} 4 @6000", "{__name__=\"h\"} {id=\"a\"} 0.5 @7000"]);
        target.commit(&batch, pending);
    }
}

#[test]
fn metadata_is_told_of_new_series_and_changed_families() {
    let mut target = Target::new(ScrapeSettings {
        extras: Extras { metadata: true, ..Extras::default() },
        ..ScrapeSettings::default()
    });
    let mut told = |body: &str| -> Vec<String> {
        let (batch, pending, _, error) = target.read(body.as_bytes(), 9);
        assert_eq!(error, None);
        target.commit(&batch, pending);
        let show = |one: &crate::model::append::AppendMetadata| {
            let series = match &one.series {
                SeriesKey::Known(handle) => format!("#{}", handle.series.0),
                SeriesKey::Labels(labels) => labels.metric_name().to_owned(),
            };
            format!("{series} {:?} {}", one.metadata.kind, one.metadata.help)
        };
        batch.metadata.iter().map(show).collect()
    };
    let body = |help: &str, more: &str| {
        format!("# HELP a {help}\n# TYPE a counter\na_total 1\n# TYPE h histogram\nh_count 1\nh_sum 1\nother 1\n{more}")
    };
    let first = ["a_total Counter x", "h_count Histogram ", "h_sum Histogram "];
    assert_eq!(told(&body("x", "")), first);
    assert_eq!(told(&body("x", "")), Vec::<String>::new());
    assert_eq!(told(&body("x", "# TYPE g gauge\ng 1\n")), ["g Gauge "]);
    assert_eq!(told(&body("y\\n", "")), ["#1 Counter y\n"]);
}

#[test]
fn created_lines_tell_starts_where_these_are_wanted() {
    let extras = Extras { starts: true, ..Extras::default() };
    let settings = ScrapeSettings { extras, ..ScrapeSettings::default() };
    let mut target = Target { format: Format::OpenMetrics, ..Target::new(settings) };
    let body = "# TYPE g gauge\ng 1\ng_created 5\n# TYPE a counter\na_total{x=\"1\"} 1\na_created{x=\"1\"} 1.5\n\
                a_total{x=\"2\"} 2\na_created{x=\"2\"} 2\na_created{x=\"3\"} 3\n# TYPE h histogram\n\
                h_bucket{le=\"+Inf\"} 1\nh_sum 1\nh_count 1\nh_created 4\n# EOF\n";
    for _ in 0..2 {
        let (batch, pending, counts, error) = target.read(body.as_bytes(), 13);
        assert_eq!((error, counts.scraped), (None, 7));
        assert_eq!(batch.starts.samples, [(2, 1500), (3, 2000), (4, 4000), (5, 4000), (6, 4000)]);
        target.commit(&batch, pending);
    }
    assert_eq!(target.store.by_labels, 0, "all lines are known");
    let (_, error) = openmetrics().scrape(body);
    assert_eq!(error, None);
}

#[test]
fn a_converted_histogram_begins_when_its_created_line_says() {
    let extras = Extras { starts: true, ..Extras::default() };
    let body = "# TYPE h histogram\nh_created{a=\"0\"} 9\nh_bucket{a=\"0\",le=\"+Inf\"} 1\nh_count{a=\"0\"} 1\n\
                h_bucket{le=\"+Inf\",a=\"1\"} 1\nh_sum{a=\"1\"} 1\nh_count{a=\"1\"} 1\nh_created{a=\"1\"} 4.5\n# EOF\n";
    for (classic, lines) in [(ClassicPart::Converted, 0), (ClassicPart::KeptAndConverted, 3)] {
        let settings = ScrapeSettings { extras, classic, ..ScrapeSettings::default() };
        let mut target = Target { format: Format::OpenMetrics, ..Target::new(settings) };
        for _ in 0..2 {
            let (batch, pending, _, error) = target.read(body.as_bytes(), 13);
            assert_eq!((error, batch.histograms.len()), (None, 2));
            // A line before the histogram is of none, as in Prometheus.
            assert_eq!((batch.starts.histograms, batch.starts.samples.len()), (vec![(1, 4500)], lines));
            let batch = AppendBatch { starts: AppendStarts::default(), ..batch };
            target.commit(&batch, pending);
        }
    }
}

#[test]
fn what_is_sent_again_has_its_exemplars_and_start_times() {
    let extras = Extras { exemplars: true, starts: true, ..Extras::default() };
    let settings = ScrapeSettings { extras, ..ScrapeSettings::default() };
    let mut target = Target { format: Format::OpenMetrics, ..Target::new(settings) };
    let body = "# TYPE a counter\na_total{x=\"1\"} 1 # {id=\"p\"} 1 7\na_created{x=\"1\"} 1\n\
                a_total{x=\"2\"} 2 # {id=\"q\"} 2 8\na_created{x=\"2\"} 2\n# EOF\n";
    let (batch, pending, ..) = target.read(body.as_bytes(), 13);
    target.commit(&batch, pending);
    target.store.forgotten.push(2);
    let (batch, pending, ..) = target.read(body.as_bytes(), 13);
    let gone = AppendReport {
        exemplars_rejected: vec![(0, ExemplarRejection::OutOfOrder), (1, ExemplarRejection::UnknownSeries)],
        ..target.store.append(&batch)
    };
    let (again, _) = target.cache.confirm(pending, &gone, &target.plan).resend.unwrap();
    assert_eq!(exemplars(&again), ["{__name__=\"a_total\", x=\"2\"} {id=\"q\"} 2 @8000"]);
    assert_eq!((again.samples.len(), again.starts.samples), (1, vec![(0, 2000)]));
}

#[test]
fn native_histograms_are_stored_known_again_and_marked_when_they_go() {
    let wanted = || ScrapeSettings { native: NativePart::Wanted, ..ScrapeSettings::default() };
    let mut target = native_target(wanted());
    assert_eq!(read_native(&mut target, &native_family([1, 2, 0], false)), None);
    target.expect(&["{__name__=\"h\"} whole 2 3 [1, 1] @1"]);
    assert_eq!(read_native(&mut target, &native_family([1, 2, 5], false)), None);
    assert_eq!(target.store.by_labels, 0);
    target.expect(&["{__name__=\"h\"} whole 2 8 [1, 1, 3] @2"]);
    // Storage has forgotten the series: it is named by labels at once.
    target.store.forgotten.push(1);
    assert_eq!(read_native(&mut target, &native_family([1, 3, 5], false)), None);
    target.expect(&["{__name__=\"h\"} whole 2 9 [1, 2, 2] @3"]);
    target.store.forgotten.clear();
    assert_eq!(read_native(&mut target, &families(1.0)), None);
    assert!(target.store.news().contains(&"{__name__=\"h\"} stale @4".to_owned()));
    // With its classic part; without the native one.
    let mut both = native_target(ScrapeSettings { native: NativePart::WithClassic, ..wanted() });
    assert_eq!(read_native(&mut both, &native_family([1, 2, 0], false)), None);
    assert_eq!(both.store.news().len(), 5);
    let mut classic = native_target(ScrapeSettings::default());
    assert_eq!(read_native(&mut classic, &native_family([1, 2, 0], false)), None);
    assert_eq!(classic.store.news().len(), 4);
}

#[test]
fn native_histograms_keep_to_limits_and_broken_ones_fail_the_scrape() {
    let wanted = || ScrapeSettings { native: NativePart::Wanted, ..ScrapeSettings::default() };
    let body = native_family([1, 2, 5], false);
    let run = |settings: ScrapeSettings, body: &[u8]| {
        let mut target = native_target(settings);
        let error = read_native(&mut target, body).map(|error| error.to_string());
        (error, target.store.news())
    };
    // Buckets 1, 2 and 3 of schema 2 are 1 and 2 of schema 1, and both are 1 of schema 0.
    let at_most = |bucket_limit| run(ScrapeSettings { bucket_limit, ..wanted() }, &body);
    assert_eq!(at_most(2).1, ["{__name__=\"h\"} whole 1 8 [3, 2] @1"]);
    assert_eq!(at_most(1).1, ["{__name__=\"h\"} whole 0 8 [8] @1"]);
    let coarse = run(ScrapeSettings { schema_max: 1, ..wanted() }, &body);
    assert_eq!(coarse.1, ["{__name__=\"h\"} whole 1 8 [3, 2] @1"]);
    let (error, stored) = run(wanted(), &native_family([1, 2, 5], true));
    assert_eq!(stored.len(), 0);
    assert!(error.unwrap().starts_with("8 observations found in buckets, but the Count field is 9"));
    let (error, stored) = run(ScrapeSettings { sample_limit: 1, ..wanted() }, &[&body[..], &families(1.0)].concat());
    assert_eq!((error.as_deref(), stored.len()), (Some("sample limit exceeded"), 0));
}

const CLASSIC: &str = "# HELP h x\n# TYPE h histogram\nh_bucket{a=\"1\",le=\"1\"} 1\nh_bucket{a=\"1\",le=\"+Inf\"} 3\n\
                       h_sum{a=\"1\"} 5\nh_count{a=\"1\"} 3\nh_bucket{le=\"1\",a=\"2\"} 1.5\nh_bucket{le=\"+Inf\",a=\"2\"} 2\n\
                       h_sum{a=\"2\"} 6\nh_count{a=\"2\"} 2\n# TYPE g gauge\ng_bucket{le=\"1\"} 4\nh_count 7\n";

#[test]
fn classic_histograms_become_native_ones() {
    let with = |classic| ScrapeSettings { classic, ..ScrapeSettings::default() };
    let expected = |at| {
        [
            format!("{{__name__=\"h\", a=\"1\"}} whole -53 3 [1, 1] @{at}"),
            format!("{{__name__=\"h\", a=\"2\"}} float -53 2 [1.5, 0.5] @{at}"),
        ]
    };
    let mut target = Target::new(with(ClassicPart::Converted));
    for at in 1..=3 {
        let (batch, pending, counts, error) = target.read(CLASSIC.as_bytes(), if at == 2 { 3 } else { 1_000 });
        let mut confirmed = target.commit(&batch, pending);
        assert!(confirmed.resend.take().is_none());
        assert_eq!((error, counts.scraped), (None, 4));
        let mut news = target.store.news();
        news.sort();
        let others =
            ["{__name__=\"g_bucket\", le=\"1\"} 4", "{__name__=\"h_count\"} 7"].map(|text| format!("{text} @{at}"));
        assert_eq!(news, [&others[..1], &expected(at)[..], &others[1..]].concat());
        if 1 < at {
            assert_eq!((counts.series_added, target.store.by_labels), (0, 0), "known series were built anew");
        }
    }
    // A histogram that is gone gets its marker; one that does not add up is left out, its marker too comes.
    let broken = CLASSIC.replace("h_sum{a=\"1\"} 5\nh_count{a=\"1\"} 3", "h_count{a=\"1\"} 4");
    target.scrape(&broken);
    let news = target.store.news();
    assert!(news.contains(&"{__name__=\"h\", a=\"1\"} stale @4".to_owned()), "{news:?}");
    assert_eq!(news.iter().filter(|text| text.contains("a=\"1\"")).count(), 1, "{news:?}");

    let mut both = Target::new(with(ClassicPart::KeptAndConverted));
    for _ in 0..2 {
        assert_eq!(both.scrape(CLASSIC).0.scraped, 12);
        assert_eq!(both.store.news().len(), 12);
    }
    assert_eq!(both.store.by_labels, 0);
    let mut plain = Target::new(ScrapeSettings::default());
    assert_eq!(plain.scrape(CLASSIC).0.scraped, 10);
}

#[test]
fn the_classic_part_of_a_native_histogram_is_not_converted() {
    let classic = ClassicPart::Converted;
    let body = native_family([1, 2, 0], false);
    let run = |native| {
        let mut target = native_target(ScrapeSettings { native, classic, ..ScrapeSettings::default() });
        let first = read_native(&mut target, &body);
        target.store.news();
        assert_eq!((first, read_native(&mut target, &body)), (None, None));
        assert_eq!(target.store.by_labels, 0);
        target.store.news()
    };
    assert_eq!(run(NativePart::Wanted), ["{__name__=\"h\"} whole 2 3 [1, 1] @2"]);
    assert_eq!(run(NativePart::Ignored), ["{__name__=\"h\"} whole -53 3 [1, 1] @2"]);
    assert_eq!(run(NativePart::WithClassic).len(), 5);
}

#[test]
fn a_long_protobuf_family_is_read_as_it_comes() {
    let metric = |i: u32| {
        let label = format!("{i:06}");
        [
            b"\x22\x18\x0a\x0b\x0a\x01x\x12\x06".as_slice(),
            label.as_bytes(),
            b"\x12\x09\x09",
            &f64::from(i).to_le_bytes(),
        ]
        .concat()
    };
    let metrics: Vec<u8> = (0..5_000).flat_map(metric).collect();
    let body = |before: &[u8], after: &[u8]| {
        let len = before.len() + metrics.len() + after.len();
        let head = [len as u8 | 0x80, (len >> 7) as u8 | 0x80, (len >> 14) as u8];
        [head.as_slice(), before, &metrics, after].concat()
    };
    for step in [1_000, 1 << 20] {
        let mut target = Target { format: Format::Protobuf, ..Target::new(ScrapeSettings::default()) };
        target.budget = StagingBudget::new(2 << 20);
        let (batch, pending, counts, error) = target.read(&body(b"\x0a\x01g\x18\x01", b"\x2a\x01u"), step);
        target.commit(&batch, pending);
        assert_eq!((error, counts.scraped, counts.series_added), (None, 5_000, 5_000));
        assert_eq!(target.store.news()[4_999], "{__name__=\"g\", x=\"004999\"} 4999 @1");
        assert_eq!(
            (target.cache.metadata()[0].kind, target.cache.metadata()[0].unit.as_str()),
            (FamilyKind::Gauge, "u")
        );
        let error = target.read(&body(b"\x0a\x01g", b"\x18\x01"), step).3.unwrap();
        assert_eq!(error.to_string(), "proto: MetricFamily: field 3 comes after metrics");
    }
}

#[test]
fn a_cut_protobuf_body_fails_the_scrape() {
    let body = families(1.0);
    for len in 1..body.len() {
        let mut target = Target { format: Format::Protobuf, ..Target::new(ScrapeSettings::default()) };
        let (.., error) = target.read(&body[..len], 3);
        // A body may end after the first family.
        assert_eq!(error.is_none(), len == 35 || len == 60, "{len}: {error:?}");
    }
    let mut target = Target { format: Format::Protobuf, ..Target::new(ScrapeSettings::default()) };
    target.limits.line_len_max = 16;
    assert_eq!(target.read(&body, 9).3, None);
    // A metric of 16 MiB, of which the first bytes have come.
    let long = [b"\xff\xff\xff\x7f\x0a\x01a\x22\x80\x80\x80\x08".as_slice(), &[0; 70_000]].concat();
    assert_eq!(target.read(&long, 1 << 20).3, Some(ScrapeError::MetricTooLong { limit: 65_536 }));
}

proptest! {
    /// Bodies cut anywhere give the same samples, counts and error as whole ones, for new lines and known ones.
    #[test]
    fn where_a_body_is_cut_does_not_matter(
        body in "(# (TYPE|HELP|UNIT) (a|\"b\n\") (a|counter|x)\n|[ab](\\{(a=\"\\\\?[x\n\"\x00]?\",?){0,2}\\})? 1( [0-9 ]{0,2})?( # \\{[a=\"]{0,4}\\} 1)?\n|# EOF\n|\\{\"a\n\"\\} 1\n){0,8}[a# E\"\x00]{0,3}",
        open: bool,
    ) {
        let run = |step: usize| {
            let mut target = Target::new(ScrapeSettings::default());
            if open {
                target.format = Format::OpenMetrics;
            }
            let mut told = Vec::new();
            for body in [body.as_bytes(), body.as_bytes(), b"a 1\n# EOF\n", body.as_bytes()] {
                let (batch, pending, mut counts, error) = target.read(body, step);
                target.commit(&batch, pending);
                // After an error nobody reads on.
                counts.body_len = 0;
                told.push((target.store.news(), counts, error.map(|e| e.to_string())));
            }
            told
        };
        let whole = run(usize::MAX);
        for step in [1, 2, 3, 7] {
            prop_assert_eq!(&run(step), &whole, "in steps of {}", step);
        }
    }

    #[test]
    fn garbage_never_panics_in_any_format(bodies in prop::collection::vec(any::<Vec<u8>>(), 1..4), step in 1_usize..9) {
        for format in Format::ALL {
            let mut target = Target { format, ..Target::new(ScrapeSettings::default()) };
            for body in &bodies {
                let (batch, pending, ..) = target.read(body, step);
                target.commit(&batch, pending);
            }
        }
    }

    /// Whatever changes between scrapes and however bodies are cut, the store holds what a naive reading gives.
    #[test]
    fn agrees_with_a_naive_reading(
        scrapes in prop::collection::vec(prop::collection::vec((0_u8..12, any::<bool>()), 0..24), 1..6),
        step in 1_usize..40,
    ) {
        let mut target = Target::new(ScrapeSettings::default());
        let mut live: Vec<String> = Vec::new();
        for lines in scrapes {
            let body: String = std::iter::once("# x\n".to_owned())
                .chain(lines.iter().map(|(n, wide)| format!("m{n}{} {n}\n", if *wide { "{l=\"a\nb\"}" } else { "" })))
                .collect();
            let (batch, pending, counts, error) = target.read(body.as_bytes(), step);
            prop_assert_eq!(error, None);
            target.commit(&batch, pending);
            let mut now: Vec<String> = Vec::new();
            for (n, wide) in &lines {
                let label = if *wide { ", l=\"a\\nb\"" } else { "" };
                let name = format!("{{__name__=\"m{n}\"{label}}}");
                if !now.contains(&name) {
                    now.push(name);
                }
            }
            let mut expected: Vec<String> = now.iter().map(|name| {
                let n = name.trim_start_matches("{__name__=\"m").split('"').next().unwrap();
                format!("{name} {n} @{}", target.at)
            }).collect();
            expected.extend(live.iter().filter(|l| !now.contains(l)).map(|l| format!("{l} stale @{}", target.at)));
            let mut found = target.store.news();
            found.sort();
            expected.sort();
            prop_assert_eq!(found, expected);
            prop_assert_eq!(counts.scraped, lines.len() as u64);
            prop_assert_eq!(counts.duplicates, (lines.len() - now.len()) as u64);
            live = now;
        }
    }

    #[test]
    fn garbage_never_panics(scrapes in prop::collection::vec("[ab{}\"=# \\n\\\\0-9.\\x00TYPEHL]{0,80}", 1..4), step in 1_usize..9) {
        let mut target = Target::new(ScrapeSettings::default());
        for body in scrapes {
            let (batch, pending, ..) = target.read(body.as_bytes(), step);
            target.commit(&batch, pending);
        }
    }
}
