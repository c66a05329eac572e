use super::*;

fn histogram(schema: i32, offset: i32, buckets: &[f64]) -> FloatHistogram {
    FloatHistogram {
        schema,
        count: buckets.iter().sum(),
        positive_spans: vec![Span { offset, length: u32::try_from(buckets.len()).unwrap() }],
        positive_buckets: buckets.to_vec(),
        ..FloatHistogram::default()
    }
}

fn custom(bounds: &[f64], buckets: &[f64]) -> FloatHistogram {
    FloatHistogram { custom_values: bounds.to_vec(), ..histogram(CUSTOM_BUCKETS_SCHEMA, 0, buckets) }
}

#[test]
fn sums_have_the_coarser_resolution() {
    let mut sum = histogram(0, 0, &[5.0]);
    sum.add(&histogram(1, 0, &[1.0, 2.0])).unwrap();
    assert_eq!(sum, histogram(0, 0, &[6.0, 2.0]));
    let mut sum = histogram(1, 0, &[1.0, 2.0]);
    sum.add(&histogram(0, 0, &[5.0])).unwrap();
    assert_eq!(sum, histogram(0, 0, &[6.0, 2.0]));
}

#[test]
fn distant_buckets_make_two_spans() {
    let mut sum = histogram(0, 0, &[1.0]);
    sum.sub(&histogram(0, 3, &[2.0])).unwrap();
    assert_eq!(sum.positive_spans, [Span { offset: 0, length: 1 }, Span { offset: 2, length: 1 }]);
    assert_eq!((sum.positive_buckets.as_slice(), sum.count), (&[1.0, -2.0][..], -1.0));
}

#[test]
fn the_wider_zero_bucket_swallows_buckets() {
    // Bounds of schema 0 are powers of two: the buckets reach up to 1, 2 and 4.
    let mut sum = FloatHistogram { zero_threshold: 0.5, zero_count: 1.0, ..histogram(0, 0, &[1.0, 2.0, 4.0]) };
    let wide = FloatHistogram { zero_threshold: 1.5, zero_count: 8.0, ..FloatHistogram::default() };
    sum.add(&wide).unwrap();
    // 1.5 lies within the second bucket, so the zero bucket grows to its bound.
    assert_eq!((sum.zero_threshold, sum.zero_count), (2.0, 12.0));
    assert_eq!((sum.positive_spans[0].offset, sum.positive_buckets.as_slice()), (2, &[4.0][..]));
}

#[test]
fn listed_bounds_are_reduced_to_common_ones() {
    let mut sum = custom(&[1.0, 2.0, 4.0], &[1.0, 2.0, 3.0, 4.0]);
    let combined = sum.add(&custom(&[2.0, 3.0], &[10.0, 20.0, 30.0])).unwrap();
    assert!(combined.bounds_reconciled);
    assert_eq!((sum.custom_values.as_slice(), sum.positive_buckets.as_slice()), (&[2.0][..], &[13.0, 57.0][..]));
    assert_eq!(sum.add(&histogram(0, 0, &[1.0])), Err(IncompatibleSchemas));
}

#[test]
fn hints_that_contradict_each_other_are_noticed() {
    let hinted = |hint| FloatHistogram { counter_reset_hint: hint, ..histogram(0, 0, &[1.0]) };
    let mut sum = hinted(CounterResetHint::Reset);
    assert!(sum.add(&hinted(CounterResetHint::NotReset)).unwrap().resets_collide);
    assert_eq!(sum.counter_reset_hint, CounterResetHint::Unknown);
    assert!(!sum.add(&hinted(CounterResetHint::Gauge)).unwrap().resets_collide);
    assert_eq!(sum.counter_reset_hint, CounterResetHint::Gauge);
}

#[test]
fn compaction_drops_empty_buckets_and_joins_spans() {
    let mut tidy = histogram(0, -1, &[0.0, 1.0, 0.0, 0.0, 2.0, 0.0]);
    tidy.compact(0);
    assert_eq!(tidy.positive_spans, [Span { offset: 0, length: 1 }, Span { offset: 2, length: 1 }]);
    assert_eq!(tidy.positive_buckets, [1.0, 2.0]);
    tidy.compact(2);
    assert_eq!((tidy.positive_spans.len(), tidy.positive_buckets.as_slice()), (1, &[1.0, 0.0, 0.0, 2.0][..]));
    let mut joined = FloatHistogram {
        positive_spans: vec![Span { offset: 1, length: 1 }, Span { offset: 0, length: 1 }],
        positive_buckets: vec![1.0, 2.0],
        ..FloatHistogram::default()
    };
    joined.compact(0);
    assert_eq!(joined.positive_spans, [Span { offset: 1, length: 2 }]);
}

#[test]
fn sums_of_many_keep_small_counts_beside_large_ones() {
    let mut sum = HistogramSum::of(&histogram(0, 0, &[1.0]));
    for count in [1e100, 1.0, -1e100] {
        sum.add(&histogram(0, 0, &[count])).unwrap();
    }
    let total = sum.total();
    assert_eq!((total.count, total.positive_buckets.as_slice()), (2.0, &[2.0][..]));
    let mut mean = HistogramMean::of(&histogram(0, 0, &[f64::MAX]));
    mean.add(&histogram(0, 0, &[f64::MAX])).unwrap();
    assert_eq!(mean.mean().positive_buckets, [f64::MAX]);
}

#[test]
fn resets_are_lower_counts_or_missing_buckets() {
    let before = histogram(1, 0, &[1.0, 2.0]);
    assert!(!histogram(1, 0, &[1.0, 3.0]).detect_reset(&before));
    assert!(histogram(1, 0, &[0.0, 4.0]).detect_reset(&before));
    assert!(histogram(1, 0, &[4.0]).detect_reset(&before));
    // At a lower resolution the buckets are joined, at a higher one there must have been a reset.
    assert!(!histogram(0, 0, &[1.0, 2.0]).detect_reset(&before));
    assert!(histogram(2, 0, &[1.0, 3.0]).detect_reset(&before));
    let mut hinted = histogram(1, 0, &[0.0]);
    hinted.counter_reset_hint = CounterResetHint::NotReset;
    assert!(!hinted.detect_reset(&before));
    let before = custom(&[1.0, 2.0], &[1.0, 1.0, 1.0]);
    assert!(!custom(&[2.0], &[2.0, 1.0]).detect_reset(&before));
    assert!(custom(&[2.0], &[1.0, 5.0]).detect_reset(&before));
}

#[test]
fn buckets_print_in_ascending_order() {
    let both = FloatHistogram {
        zero_threshold: 0.5,
        zero_count: 1.0,
        count: 7.0,
        sum: 2.5,
        negative_spans: vec![Span { offset: 1, length: 1 }],
        negative_buckets: vec![3.0],
        ..histogram(0, 1, &[1.0, 0.0, 2.0])
    };
    assert_eq!(both.to_string(), "{count:7, sum:2.5, [-2,-1):3, [-0.5,0.5]:1, (1,2]:1, (4,8]:2}");
    assert_eq!(custom(&[5.0], &[1.0, 2.0]).to_string(), "{count:3, sum:0, [-Inf,5]:1, (5,+Inf]:2}");
    let text = both.test_expression();
    assert_eq!(text, "{{count:7 sum:2.5 z_bucket:1 z_bucket_w:0.5 offset:1 buckets:[1 0 2] n_offset:1 n_buckets:[3]}}");
}

#[test]
fn trimming_estimates_what_is_left() {
    let mut trimmed = custom(&[1.0, 2.0, 4.0], &[1.0, 2.0, 4.0, 0.0]);
    trimmed.trim(3.0, TrimSide::Upper);
    assert_eq!((trimmed.positive_buckets.as_slice(), trimmed.count), (&[1.0, 2.0, 2.0][..], 5.0));
    assert_eq!(trimmed.sum, 0.5 + 3.0 + 5.0);
    let mut whole = histogram(0, 0, &[1.0]);
    whole.trim(0.0, TrimSide::Lower);
    assert_eq!(whole, histogram(0, 0, &[1.0]));
}

#[test]
fn a_histogram_counts_for_as_many_samples_as_in_prometheus() {
    assert_eq!((FloatHistogram::default().sample_count(), histogram(0, 0, &[1.0; 3]).sample_count()), (11, 13));
}
