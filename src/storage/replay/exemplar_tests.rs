//! Exemplars and metadata from the batch to the head, through the log and back, and what a torn shard means for them.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::model::append::{AppendBatch, AppendExemplar, AppendMetadata, AppendReport, AppendSample, SeriesKey};
use crate::model::clock::ManualClock;
use crate::model::exemplar::{Exemplar, ExemplarRejection, SeriesExemplars, labels_of};
use crate::model::labels::Labels;
use crate::model::matcher::Matcher;
use crate::model::metadata::{MetricType, SeriesMetadata};
use crate::storage::fs::sim::SimFs;
use crate::storage::head::HeadOptions;
use crate::storage::wal::record::{RecordKind, encode_staged};
use crate::telemetry::metrics::Registry;

const DATA: &str = "/data";

fn head(shards: u16) -> Head {
    let head = Head::new(HeadOptions { shards, ..HeadOptions::new(ManualClock::at(TimestampMs(2_000_000_000_000))) });
    head.exemplars().resize(100);
    head
}

fn reopen(fs: &SimFs, head: &Head) -> (Writer, ReplayReport) {
    let shared: SharedFs = Arc::new(fs.clone());
    shared.create_dir_all(Path::new(DATA)).unwrap();
    let clock: crate::model::clock::SharedClock = ManualClock::at(TimestampMs(0));
    let metrics = WalMetrics::new(&Registry::default(), &clock);
    open(&shared, Path::new(DATA), WalOptions::default(), &metrics, head, TimestampMs(i64::MIN)).unwrap()
}

fn labels(number: i64) -> Labels {
    Labels::from_pairs([("__name__", "m"), ("instance", &number.to_string())])
}

fn exemplar(at: i64) -> Exemplar {
    let labels = labels_of(vec![("trace_id", at.to_string())]);
    Exemplar { labels, value: at as f64, at: TimestampMs(at), has_time: true }
}

/// A sample and an exemplar for each of the series.
fn batch(numbers: std::ops::Range<i64>, at: i64) -> AppendBatch {
    let sample = |number: i64| {
        let series = SeriesKey::Labels(labels(number));
        AppendSample { series, at: TimestampMs(at), value: 1.0 }
    };
    let with = |number: i64| AppendExemplar { series: labels(number), exemplar: exemplar(at + number) };
    let exemplars = numbers.clone().map(with).collect();
    AppendBatch { exemplars, ..AppendBatch::of_floats(numbers.map(sample).collect()) }
}

/// Appends as the actors do: stage, log, apply.
fn append(head: &Head, writer: &mut Writer, batch: AppendBatch) -> AppendReport {
    let commit = head.begin(None);
    let slices = head.route(batch);
    let shard = |id: ShardId| &head.shards()[usize::from(id.0)];
    let mut staged: Vec<_> =
        slices.into_iter().map(|(id, slice)| (id, shard(id).stage(&commit, slice).unwrap())).collect();
    writer.append(&encode_staged(&staged.iter().map(|(_, s)| s).collect::<Vec<_>>())).unwrap();
    staged.iter_mut().for_each(|(_, part)| part.set_logged());
    let mut report = AppendReport::default();
    staged.into_iter().for_each(|(id, part)| report.absorb(shard(id).apply(part).unwrap()));
    report.sort();
    report
}

fn content(head: &Head) -> Vec<SeriesExemplars> {
    let mut found = head.exemplars().select(&[vec![Matcher::equal("__name__", "m")]], i64::MIN, i64::MAX);
    // The log does not tell whether an exemplar had its own time.
    found.iter_mut().flat_map(|one| &mut one.exemplars).for_each(|one| one.has_time = false);
    found
}

#[test]
fn exemplars_come_back_whatever_the_number_of_shards() {
    let fs = SimFs::new();
    let before = head(3);
    let (mut writer, _) = reopen(&fs, &before);
    for at in [1000, 2000, 3000] {
        append(&before, &mut writer, batch(0..20, at));
    }
    drop(writer);
    assert_eq!(content(&before).iter().map(|one| one.exemplars.len()).sum::<usize>(), 60);
    for shards in [1, 3, 5] {
        let after = head(shards);
        let (_, report) = reopen(&fs, &after);
        assert_eq!(content(&after), content(&before));
        assert_eq!((report.head.unknown_exemplar_refs, report.log.skipped().count()), (0, 0));
    }
    let small = head(2);
    small.exemplars().resize(20);
    reopen(&fs, &small);
    assert_eq!(content(&small).iter().map(|one| one.exemplars.len()).sum::<usize>(), 20);
    assert!(content(&small).iter().all(|one| 3000 <= one.exemplars[0].at.0));
    let off = head(2);
    off.exemplars().resize(0);
    let (_, report) = reopen(&fs, &off);
    assert_eq!((content(&off).len(), report.head.series), (0, 20));
}

#[test]
fn a_checkpoint_keeps_what_is_young_enough() {
    let fs = SimFs::new();
    let before = head(1);
    let (mut writer, _) = reopen(&fs, &before);
    for at in [1000, 2000, 3000] {
        append(&before, &mut writer, batch(0..5, at));
        writer.next_segment().unwrap();
    }
    let aliases = Aliases::new();
    let job = writer.plan_checkpoint().unwrap().unwrap();
    job.run(TimestampMs(2000), &mut keeper(&before, &aliases)).unwrap();
    drop(writer);
    let after = head(2);
    reopen(&fs, &after);
    let times: Vec<i64> = content(&after)[0].exemplars.iter().map(|one| one.at.0).collect();
    assert_eq!(times, [2000, 3000]);
}

#[test]
fn refusals_are_told_and_do_not_hold_up_samples() {
    let fs = SimFs::new();
    let head = head(2);
    let (mut writer, _) = reopen(&fs, &head);
    append(&head, &mut writer, batch(0..2, 1000));
    let with = |series, exemplar| AppendExemplar { series, exemplar };
    let mut next = batch(0..1, 2000);
    let long = Exemplar { labels: labels_of(vec![("t", "x".repeat(200))]), ..exemplar(2000) };
    next.exemplars = vec![
        with(labels(1), exemplar(500)),
        with(labels(0), exemplar(1000)),
        with(labels(7), exemplar(2000)),
        with(labels(0), long),
        with(labels(0), exemplar(2000)),
    ];
    let report = append(&head, &mut writer, next);
    use ExemplarRejection::{LabelsTooLong, OutOfOrder, UnknownSeries};
    assert_eq!(report.exemplars_rejected, [(0, OutOfOrder), (2, UnknownSeries), (3, LabelsTooLong)]);
    assert_eq!((report.appended, head.exemplars().stats().held), (1, 3));
    drop(writer);
    let after = self::head(1);
    reopen(&fs, &after);
    assert_eq!(content(&after), content(&head));
}

#[test]
fn a_torn_shard_loses_none() {
    let fs = SimFs::new();
    let head = head(1);
    let (mut writer, _) = reopen(&fs, &head);
    append(&head, &mut writer, batch(0..3, 1000));
    let shard = &head.shards()[0];
    shard.tear_next();
    catch_unwind(AssertUnwindSafe(|| append(&head, &mut writer, batch(0..3, 2000)))).unwrap_err();
    // One that waits in the queue, and comes after the partition was thrown away.
    shard.begin_rebuild("a test");
    shard.set_state(ShardState::Ready);
    let commit = head.begin(None);
    let mut late = shard.stage(&commit, head.route(batch(0..3, 3000)).remove(0).1).unwrap();
    writer.append(&encode_staged(&[&late])).unwrap();
    late.set_logged();
    shard.begin_rebuild("a test");
    let shared: SharedFs = Arc::new(fs.clone());
    rebuild_shard(&shared, Path::new(DATA), &head, shard.id(), writer.position()).unwrap();
    shard.apply(late).unwrap();
    let times: Vec<i64> = content(&head)[0].exemplars.iter().map(|one| one.at.0).collect();
    assert_eq!(times, [1000, 2000, 3000]);
}

#[test]
fn those_of_series_without_samples_are_nobodys() {
    let fs = SimFs::new();
    let head = head(1);
    let (mut writer, _) = reopen(&fs, &head);
    let exemplars = vec![AppendExemplar { series: labels(1), exemplar: exemplar(1000) }];
    let report = append(&head, &mut writer, AppendBatch { exemplars, ..AppendBatch::default() });
    assert_eq!(report.exemplars_rejected, [(0, ExemplarRejection::UnknownSeries)]);
    assert_eq!((head.series_count(), head.exemplars().stats().held), (0, 0));
}

#[test]
fn metadata_comes_back_and_is_logged_once() {
    let fs = SimFs::new();
    let before = head(2);
    let (mut writer, _) = reopen(&fs, &before);
    let describe = |help: &str, numbers: std::ops::Range<i64>| -> Vec<AppendMetadata> {
        let metadata = SeriesMetadata { kind: MetricType::Gauge, unit: "s".to_owned(), help: help.to_owned() };
        let metadata = Arc::new(metadata);
        numbers
            .map(|n| AppendMetadata { series: SeriesKey::Labels(labels(n)), metadata: Arc::clone(&metadata) })
            .collect()
    };
    // The last series has no sample, so it is nobody's.
    let with = |at: i64, help: &str| AppendBatch { metadata: describe(help, 0..6), ..batch(0..5, at) };
    for (at, help) in [(1000, "old"), (2000, "old"), (3000, "new"), (4000, "new")] {
        append(&before, &mut writer, with(at, help));
        writer.next_segment().unwrap();
    }
    let help_of = |head: &Head, reference: u64| {
        let found = head.shards().iter().find_map(|shard| shard.metadata(SeriesRef(reference)));
        found.map(|metadata| metadata.help.clone())
    };
    assert_eq!(help_of(&before, 1).as_deref(), Some("new"));
    let after = head(1);
    let (mut writer, report) = reopen(&fs, &after);
    let records = |report: &ReplayReport| report.log.records.get(&RecordKind::Metadata).copied();
    assert_eq!((records(&report), report.head.unknown_metadata_refs), (Some(2), 0));
    assert!((1..=5).all(|reference| help_of(&after, reference).as_deref() == Some("new")));
    append(&after, &mut writer, with(5000, "new"));
    // A checkpoint keeps the latest.
    let job = writer.plan_checkpoint().unwrap().unwrap();
    job.run(TimestampMs(4000), &mut keeper(&after, &Aliases::new())).unwrap();
    drop(writer);
    let last = head(3);
    let (_, report) = reopen(&fs, &last);
    assert!(records(&report).is_some_and(|records| records <= 2));
    assert!((1..=5).all(|reference| help_of(&last, reference).as_deref() == Some("new")));
    assert_eq!(help_of(&last, 6), None);
}
