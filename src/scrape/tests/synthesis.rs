//! Start times that are made up for counters whose target tells none; what is expected is what Prometheus stores.

use super::*;

fn synthesizing(format: Format, settings: ScrapeSettings) -> Target {
    let extras = Extras { synthesis: true, starts: format == Format::OpenMetrics, ..Extras::default() };
    Target { format, ..Target::new(ScrapeSettings { extras, ..settings }) }
}

/// What a scrape gives to storage, report series left out: series, value and time, and since when it counts.
fn given(target: &mut Target, body: &[u8]) -> Vec<String> {
    given_unless(target, body, &[])
}

/// The same, where storage refuses the sample of one series as out of order.
fn given_unless(target: &mut Target, body: &[u8], refused: &[&str]) -> Vec<String> {
    let (batch, pending, _, error) = target.read(body, 9);
    assert_eq!(error, None);
    let mut answer = target.store.append(&batch);
    let log = std::mem::take(&mut target.store.log);
    let (floats, mut given) = (batch.samples.len(), Vec::new());
    for (index, (labels, at, value)) in (0_u32..).zip(&log) {
        let name = labels.trim_start_matches("{__name__=").trim_end_matches('}').replace('"', "");
        if report::NAMES.contains(&name.as_str()) {
            continue;
        }
        let place = index as usize;
        let starts = if place < floats { &batch.starts.samples } else { &batch.starts.histograms };
        let of = if place < floats { place } else { place - floats } as u32;
        let start = starts.iter().find(|(at, _)| *at == of).map(|(_, start)| format!(" since {start}"));
        let line = format!("{name} {value} @{at}{}", start.unwrap_or_default());
        if refused.contains(&name.as_str()) {
            answer.rejected.push((index, SampleRejection::OutOfOrder));
        } else {
            given.push(line);
        }
    }
    target.cache.confirm(pending, &answer, &target.plan);
    given
}

#[track_caller]
fn check(target: &mut Target, body: &str, expected: &[&str]) {
    assert_eq!(given(target, body.as_bytes()), expected);
}

#[test]
fn counters_are_counted_from_their_first_sample() {
    let mut target = synthesizing(Format::OpenMetrics, ScrapeSettings::default());
    check(&mut target, "# TYPE a counter\na_total 10\n# TYPE g gauge\ng 10\n# EOF\n", &["g 10 @1"]);
    check(
        &mut target,
        "# TYPE a counter\na_total 15\n# TYPE g gauge\ng 12\n# EOF\n",
        &["a_total 5 @2 since 1", "g 12 @2"],
    );
    assert_eq!(target.store.by_labels, 1, "the counter is new to storage");
    check(&mut target, "# TYPE a counter\na_total 4\n# EOF\n", &["a_total 4 @3 since 2", "g stale @3"]);
    // A start that is told ends the reference.
    check(&mut target, "# TYPE a counter\na_total 20\na_created 1.5\n# EOF\n", &["a_total 20 @4 since 1500"]);
    check(&mut target, "# TYPE a counter\na_total 25\n# EOF\n", &[]);
    check(&mut target, "# TYPE a counter\na_total 32\n# EOF\n", &["a_total 7 @6 since 5"]);
    // An empty answer or one that fails changes no reference.
    check(&mut target, "", &["a_total stale @7"]);
    assert!(target.scrape("# TYPE a counter\na_total 90\nb ?\n").1.is_some());
    target.store.log.clear();
    check(&mut target, "# TYPE a counter\na_total 33\n# EOF\n", &["a_total 8 @9 since 5"]);
    // What was away is counted anew.
    check(&mut target, "# TYPE g gauge\ng 1\n# EOF\n", &["g 1 @10", "a_total stale @10"]);
    check(&mut target, "# TYPE a counter\na_total 34\n# TYPE g gauge\ng 1\n# EOF\n", &["g 1 @11"]);
}

#[test]
fn only_counts_of_their_family_are_counted() {
    let body = |n: i32| {
        format!(
            "untyped_total {n}\n# TYPE s summary\ns{{quantile=\"0.5\"}} {n}\ns_sum {n}\ns_count {n}\n# HELP x of another\n\
             s_count2 {n}\n# TYPE c counter\n# HELP c Later.\nc {n}\nd {n}\n# TYPE h histogram\nh_bucket{{le=\"1\"}} {n}\n\
             h_sum {n}\nh_created {n}\n# HELP z None.\nc2_total {n}\n"
        )
    };
    let mut target = synthesizing(Format::Text, ScrapeSettings::default());
    let first = given(&mut target, body(7).as_bytes());
    let plain = ["untyped_total", "s, quantile=0.5", "s_count2", "d", "h_created", "c2_total"];
    assert_eq!(first, plain.map(|name| format!("{name} 7 @1")));
    let (_, added) = (given(&mut target, body(9).as_bytes()), target.store.by_labels);
    assert_eq!(added, 5, "the others are known");
    let third = given(&mut target, body(10).as_bytes());
    let counted = |name: &str| !plain.contains(&name);
    let names = [
        "untyped_total",
        "s, quantile=0.5",
        "s_sum",
        "s_count",
        "s_count2",
        "c",
        "d",
        "h_bucket, le=1.0",
        "h_sum",
        "h_created",
        "c2_total",
    ];
    let show = |name| if counted(name) { format!("{name} 3 @3 since 1") } else { format!("{name} 10 @3") };
    assert_eq!(third, names.map(show));
    assert_eq!(target.store.by_labels, 0);
}

#[test]
fn a_refused_sample_and_a_duplicate_begin_anew() {
    let body = |n: i32| format!("# TYPE a counter\na {n}\n# TYPE b counter\nb {n}\n").into_bytes();
    let mut target = synthesizing(Format::Text, ScrapeSettings::default());
    assert_eq!(given(&mut target, &body(1)), Vec::<String>::new());
    assert_eq!(given_unless(&mut target, &body(9), &["a"]), ["b 8 @2 since 1"]);
    assert_eq!(given(&mut target, &body(3)), ["b 3 @3 since 2"]);
    assert_eq!(given(&mut target, &body(4)), ["a 1 @4 since 3", "b 4 @4 since 2"]);
    let twice = "# TYPE a counter\na 5\na 6\n# TYPE b counter\nb 5\n";
    check(&mut target, twice, &["a 2 @5 since 3", "b 5 @5 since 2"]);
    check(&mut target, twice, &["b 5 @6 since 2"]);
    // All may not be out of order.
    let (batch, ..) = target.read(&body(7), 9);
    assert_eq!(batch.late, crate::model::append::LateSamples::Refused);
}

#[test]
fn references_are_new_series_but_no_samples_of_the_limit_and_get_no_marker() {
    let settings = || ScrapeSettings { sample_limit: 2, ..ScrapeSettings::default() };
    let mut target = synthesizing(Format::Text, settings());
    let (counts, error) = target.scrape("# TYPE a counter\na{x=\"1\"} 1\na{x=\"2\"} 1\na{x=\"3\"} 1\n");
    assert_eq!((error, counts.scraped, counts.post_relabel, counts.series_added), (None, 3, 3, 3));
    target.store.log.clear();
    let (counts, error) = target.scrape("# TYPE a counter\na{x=\"1\"} 1\na{x=\"2\"} 3\n");
    assert_eq!((error, counts.series_added), (None, 0));
    target.expect(&["{__name__=\"a\", x=\"1\"} 0 @2", "{__name__=\"a\", x=\"2\"} 2 @2"]);
    assert_eq!(
        target.scrape("# TYPE a counter\na{x=\"1\"} 1\na{x=\"2\"} 3\na{x=\"3\"} 1\na{x=\"4\"} 1\n").1,
        None,
        "two are references"
    );
    target.store.log.clear();
    let (_, error) = target.scrape("# TYPE a counter\na{x=\"1\"} 1\na{x=\"2\"} 3\na{x=\"3\"} 1\n");
    assert_eq!(error, Some(ScrapeError::SampleLimit));
    target.expect(&["{__name__=\"a\", x=\"1\"} stale @4", "{__name__=\"a\", x=\"2\"} stale @4"]);
    // A reference whose start is told next is not new again.
    let mut target = synthesizing(Format::OpenMetrics, settings());
    assert_eq!(target.scrape("# TYPE a counter\na_total 1\n# EOF\n").0.series_added, 1);
    assert_eq!(target.scrape("# TYPE a counter\na_total 1\na_created 1\n# EOF\n").0.series_added, 0);
    // Where starts are told after all, what looked like references counts.
    let mut target = synthesizing(Format::OpenMetrics, settings());
    let told = "# TYPE a counter\na_total{x=\"1\"} 1\na_created{x=\"1\"} 1\na_total{x=\"2\"} 1\na_created{x=\"2\"} 1\n";
    assert_eq!(target.scrape(&format!("{told}a_total{{x=\"3\"}} 1\n# EOF\n")).1, None);
    let more = "a_total{x=\"4\"} 1\na_created{x=\"4\"} 1\n# EOF\n";
    assert_eq!(target.scrape(&format!("{told}{more}")).1, Some(ScrapeError::SampleLimit));
}

#[test]
fn samples_with_times_of_their_own_are_counted_and_marked_when_they_go() {
    let mut target = synthesizing(Format::Text, ScrapeSettings::default());
    check(&mut target, "# TYPE a counter\na 1 1000\na 3 2000\n", &["a 2 @2000 since 1000"]);
    check(&mut target, "# TYPE a counter\na 4 3000\nb 1\n", &["a 3 @3000 since 1000", "b 1 @2"]);
    check(&mut target, "b 1\n", &["b 1 @3", "a stale @3"]);
    // One that has only been a reference is no series yet.
    check(&mut target, "# TYPE a counter\na 5 5000\nb 1\n", &["b 1 @4"]);
    check(&mut target, "b 1\n", &["b 1 @5"]);
}

#[test]
fn exemplars_of_a_reference_are_left_out() {
    let extras = Extras { exemplars: true, synthesis: true, ..Extras::default() };
    let mut target =
        Target { format: Format::OpenMetrics, ..Target::new(ScrapeSettings { extras, ..ScrapeSettings::default() }) };
    let body = "# TYPE a counter\na_total 1 # {id=\"p\"} 1 7\n# TYPE g gauge\ng 1 # {id=\"q\"} 1 7\n# EOF\n";
    for expected in [1, 2] {
        let (batch, pending, ..) = target.read(body.as_bytes(), 9);
        assert_eq!(batch.exemplars.len(), expected);
        target.commit(&batch, pending);
    }
}

#[test]
fn histograms_of_both_kinds_are_counted() {
    let settings = ScrapeSettings { native: NativePart::Wanted, bucket_limit: 2, ..ScrapeSettings::default() };
    let mut target = synthesizing(Format::Protobuf, settings);
    assert_eq!(given(&mut target, &native_family([1, 2, 1], false)), Vec::<String>::new());
    // Within the limit of buckets, as one of the three has counted nothing since.
    assert_eq!(given(&mut target, &native_family([1, 3, 4], false)), ["h whole 2 4 [1, 2] @2 since 1"]);
    assert_eq!(given(&mut target, &native_family([0, 2, 4], false)), ["h whole 2 6 [2, 2] @3 since 2"]);
    let (_, _, _, error) = target.read(&native_family([1, 1, 1], true), 9);
    assert!(error.is_some(), "{error:?}");

    let settings = ScrapeSettings { classic: ClassicPart::Converted, ..ScrapeSettings::default() };
    let mut target = synthesizing(Format::Text, settings);
    let body = |low: i32, all: i32| {
        format!(
            "# TYPE h histogram\nh_bucket{{le=\"1\"}} {low}\nh_bucket{{le=\"+Inf\"}} {all}\nh_sum 1\nh_count {all}\n"
        )
    };
    check(&mut target, &body(1, 3), &[]);
    check(&mut target, &body(2, 6), &["h whole -53 3 [1, 1] @2 since 1"]);
    check(&mut target, &body(2, 2), &["h whole -53 2 [2] @3 since 2"]);
}

#[test]
fn starts_that_protobuf_tells_are_kept() {
    // `c_total` of 5 with a created timestamp of 3 s.
    let counter = [b"\x1a\x0f\x09".as_slice(), &5_f64.to_le_bytes(), b"\x1a\x04\x08\x03\x10\x00"].concat();
    let family = [b"\x0a\x07c_total\x18\x00\x22".as_slice(), &[counter.len() as u8], &counter].concat();
    let body = [&[family.len() as u8][..], &family].concat();
    let mut target = synthesizing(Format::Protobuf, ScrapeSettings::default());
    assert_eq!(given(&mut target, &body), Vec::<String>::new(), "not read without the feature for it");
    assert_eq!(given(&mut target, &body), ["c_total 0 @2 since 1"]);
    let extras = Extras { synthesis: true, starts: true, ..Extras::default() };
    let settings = ScrapeSettings { extras, ..ScrapeSettings::default() };
    let mut target = Target { format: Format::Protobuf, ..Target::new(settings) };
    for at in 1..3 {
        assert_eq!(given(&mut target, &body), [format!("c_total 5 @{at} since 3000")]);
    }
}
