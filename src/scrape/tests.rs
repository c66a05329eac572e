//! Scrapes without a network: bodies go into the reader, batches into a store that behaves like the head.

use std::collections::HashMap;
use std::sync::Arc;

use proptest::prelude::*;

use crate::exposition::text::FamilyKind;
use crate::model::append::{AppendBatch, AppendReport, SampleRejection, SeriesHandle, SeriesKey, ShardId};
use crate::model::labels::Labels;
use crate::model::sample::{SeriesRef, is_stale};
use crate::model::time::TimestampMs;
use crate::scrape::cache::{Confirmed, Pending, TargetCache};
use crate::scrape::error::ScrapeError;
use crate::scrape::reader::{ReadCounts, Reader};
use crate::scrape::report::{self, Report};
use crate::scrape::settings::{SamplePlan, ScrapeLimits, ScrapeSettings};
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
        for (index, sample) in (0_u32..).zip(&batch.samples) {
            let series = match &sample.series {
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
            let value = if is_stale(sample.value) { "stale".to_owned() } else { sample.value.to_string() };
            self.log.push((self.series[series].to_string(), sample.at.0, value));
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
            at: 0,
        }
    }

    /// Reads a body in chunks of `step` bytes and publishes it, as `once` does.
    fn read(&mut self, body: &[u8], step: usize) -> (AppendBatch, Pending, ReadCounts, Option<ScrapeError>) {
        self.at += 1;
        let at = TimestampMs(self.at);
        let mut reader = Reader::new(&self.plan, self.cache.load(), at, self.limits, self.budget.permit());
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
    assert_eq!(error, Some(ScrapeError::StagingFull { limit: 1 << 20 }));
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

proptest! {
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
