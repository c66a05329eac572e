//! Streams of deltas: what has come of each is added up, so that sums since the stream began are stored
//! (`otlp-deltatocumulative`). The rules are those of OpenTelemetry's `deltatocumulative` processor, which Prometheus runs.
//!
//! Bounds: a new stream that would take more memory than is given is not taken; one that has brought nothing for five minutes
//! is forgotten, and begins anew when it comes back. Streams are parted, so that requests rarely wait for each other.
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::remote::otlp::points::{Data, Explicit, Exponential, Number, Point};

/// A stream that was silent for longer is forgotten.
const STALE_AFTER: Duration = Duration::from_mins(5);
/// How often to look for such.
const SWEEP_EVERY: Duration = Duration::from_mins(1);
/// Parts, each with a lock.
const PARTS: usize = 64;
/// What a stream takes beside its buckets.
const STREAM_BYTES: u64 = 256;
/// Buckets of a side of a histogram; more are joined.
const BUCKETS_MAX: i64 = 160;
/// After so many times of joining neighbours all buckets of a side are one, or two around the middle.
const HALVINGS_MAX: i64 = 40;

/// What becomes of deltas.
#[derive(Clone, Copy, Debug)]
pub enum Deltas<'a> {
    /// They are an error.
    Refused,
    /// They are stored as they are (`otlp-native-delta-ingestion`).
    AsTheyAre,
    /// They are added up here; the time is monotonic.
    Summed(&'a DeltaStreams, Duration),
}

/// The same for all requests.
#[derive(Debug)]
pub enum DeltaMode {
    /// Deltas are an error.
    Refused,
    /// They are stored as they are.
    AsTheyAre,
    /// They are added up.
    Summed(DeltaStreams),
}

impl DeltaMode {
    /// For a request that comes at a monotonic time.
    pub fn at(&self, monotonic: Duration) -> Deltas<'_> {
        match self {
            Self::Refused => Deltas::Refused,
            Self::AsTheyAre => Deltas::AsTheyAre,
            Self::Summed(streams) => Deltas::Summed(streams, monotonic),
        }
    }
}

/// Why a point was not added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dropped {
    /// It is no newer than the newest of its stream.
    OutOfOrder,
    /// It began before its stream did.
    OlderStart,
    /// There is no memory for another stream.
    Limit,
}

/// Which stream a point belongs to: a hash of all that identifies it.
pub(super) type StreamKey = u128;

/// The streams of all senders.
#[derive(Debug)]
pub struct DeltaStreams {
    parts: Vec<Mutex<Part>>,
    count: AtomicU64,
    bytes: AtomicU64,
    bytes_max: u64,
}

#[derive(Debug, Default)]
struct Part {
    streams: HashMap<StreamKey, Stream, foldhash::fast::FixedState>,
    swept_at: Duration,
}

#[derive(Debug)]
struct Stream {
    seen_at: Duration,
    start_nanos: u64,
    nanos: u64,
    is_stale: bool,
    sum: Data,
    bytes: u64,
}

impl DeltaStreams {
    /// No streams yet. They may take `bytes_max` in memory, or any amount if that is 0.
    pub fn new(bytes_max: u64) -> Self {
        let parts = (0..PARTS).map(|_| Mutex::default()).collect();
        let bytes_max = if bytes_max == 0 { u64::MAX } else { bytes_max };
        Self { parts, count: AtomicU64::new(0), bytes: AtomicU64::new(0), bytes_max }
    }

    /// How many streams there are.
    pub fn len(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds a point to its stream, and makes of it what the stream is then.
    pub(super) fn add(&self, key: StreamKey, now: Duration, point: &mut Point, data: &mut Data) -> Result<(), Dropped> {
        let place = (key % PARTS as u128) as usize;
        let Some(part) = self.parts.get(place) else { return Err(Dropped::Limit) };
        let mut part = part.lock();
        if SWEEP_EVERY <= now.saturating_sub(part.swept_at) {
            part.swept_at = now;
            part.streams.retain(|_, stream| {
                let stays = now.saturating_sub(stream.seen_at) <= STALE_AFTER;
                if !stays {
                    self.bytes.fetch_sub(stream.bytes, Ordering::Relaxed);
                    self.count.fetch_sub(1, Ordering::Relaxed);
                }
                stays
            });
        }
        let Some(stream) = part.streams.get_mut(&key) else {
            let stream = Stream::of(point, data, now);
            let before = self.bytes.fetch_add(stream.bytes, Ordering::Relaxed);
            if self.bytes_max < before.saturating_add(stream.bytes) {
                self.bytes.fetch_sub(stream.bytes, Ordering::Relaxed);
                return Err(Dropped::Limit);
            }
            part.streams.insert(key, stream);
            self.count.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        };
        stream.seen_at = now;
        let before = stream.bytes;
        let added = stream.add(point, data);
        stream.bytes = STREAM_BYTES + stream.sum.memory_len();
        self.bytes.fetch_add(stream.bytes.wrapping_sub(before), Ordering::Relaxed);
        added?;
        (point.start_nanos, point.is_stale) = (stream.start_nanos, stream.is_stale);
        point.set_time(stream.nanos);
        data.clone_from(&stream.sum);
        Ok(())
    }
}

impl Stream {
    fn of(point: &Point, data: &Data, now: Duration) -> Self {
        let bytes = STREAM_BYTES + data.memory_len();
        let (start_nanos, nanos, is_stale) = (point.start_nanos, point.nanos, point.is_stale);
        Self { seen_at: now, start_nanos, nanos, is_stale, sum: data.clone(), bytes }
    }

    fn add(&mut self, point: &Point, data: &mut Data) -> Result<(), Dropped> {
        if self.nanos == 0 {
            *self = Self::of(point, data, self.seen_at);
            return Ok(());
        }
        if point.start_nanos < self.start_nanos {
            return Err(Dropped::OlderStart);
        }
        if point.nanos <= self.nanos {
            return Err(Dropped::OutOfOrder);
        }
        match (&mut self.sum, &mut *data) {
            (Data::Number(sum), Data::Number(more)) => *sum = add_numbers(*sum, *more),
            (Data::Explicit(sum), Data::Explicit(more)) if same_bounds(sum, more) => add_explicit(sum, more),
            (Data::Exponential(sum), Data::Exponential(more)) => add_exponential(sum, more),
            // Bounds that have changed: the histogram begins anew.
            _ => *self = Self::of(point, data, self.seen_at),
        }
        self.nanos = point.nanos;
        Ok(())
    }
}

/// A value of another type than before begins anew; a point without a value adds nothing.
fn add_numbers(sum: Number, more: Number) -> Number {
    match (sum, more) {
        (Number::Int(sum), Number::Int(more)) => Number::Int(sum.wrapping_add(more)),
        (Number::Double(sum), Number::Double(more)) => Number::Double(sum + more),
        (_, Number::Int(more)) => Number::Int(more),
        (_, Number::Double(more)) => Number::Double(0.0 + more),
        (sum, Number::None) => sum,
    }
}

fn same_bounds(a: &Explicit, b: &Explicit) -> bool {
    a.bounds.len() == b.bounds.len() && a.bounds.iter().zip(&b.bounds).all(|(a, b)| a == b)
}

fn add_sums(sum: Option<f64>, more: Option<f64>) -> Option<f64> {
    Some(sum? + more?)
}

fn add_explicit(sum: &mut Explicit, more: &Explicit) {
    for (count, more) in sum.counts.iter_mut().zip(&more.counts) {
        *count = count.wrapping_add(*more);
    }
    sum.count = sum.count.wrapping_add(more.count);
    sum.sum = add_sums(sum.sum, more.sum);
}

fn add_exponential(sum: &mut Exponential, more: &mut Exponential) {
    if sum.scale != more.scale {
        let (finer, scale) = if sum.scale < more.scale { (&mut *more, sum.scale) } else { (&mut *sum, more.scale) };
        downscale(finer, i64::from(scale));
    }
    let from = i64::from(sum.scale);
    let fits = fitting(from, &sum.positive, &more.positive).min(fitting(from, &sum.negative, &more.negative));
    if fits != from {
        downscale(sum, fits);
        downscale(more, fits);
    }
    if sum.zero_threshold != more.zero_threshold {
        // The one with the narrower middle is widened, at least to the other's.
        match sum.zero_threshold < more.zero_threshold {
            true => widen_zero(sum, more.zero_threshold),
            false => widen_zero(more, sum.zero_threshold),
        }
    }
    merge(&mut sum.positive, &more.positive);
    merge(&mut sum.negative, &more.negative);
    sum.count = sum.count.wrapping_add(more.count);
    sum.zero_count = sum.zero_count.wrapping_add(more.zero_count);
    sum.sum = add_sums(sum.sum, more.sum);
}

/// Index of the first bucket, and counts.
type Buckets = (i32, Vec<u64>);

fn lower(buckets: &Buckets) -> i64 {
    i64::from(buckets.0)
}

fn upper(buckets: &Buckets) -> i64 {
    lower(buckets) + i64::try_from(buckets.1.len()).unwrap_or(i64::MAX)
}

fn count_at(buckets: &Buckets, index: i64) -> u64 {
    let place = usize::try_from(index - lower(buckets)).ok();
    place.and_then(|place| buckets.1.get(place)).copied().unwrap_or(0)
}

/// The indexes from the first to behind the last bucket of both that has observations. Without any it is empty, and stands
/// behind the last bucket.
fn occupied(a: &Buckets, b: &Buckets) -> (i64, i64) {
    let (mut first, mut last) = (None::<i64>, None::<i64>);
    for buckets in [a, b] {
        for (index, _) in (lower(buckets)..).zip(&buckets.1).filter(|(_, count)| **count != 0) {
            first = Some(first.map_or(index, |first| first.min(index)));
            last = Some(last.map_or(index, |last| last.max(index)));
        }
    }
    let end = upper(a).max(upper(b));
    first.zip(last).map_or((end, end), |(first, last)| (first, last + 1))
}

/// The scale at which both sides together have few enough buckets.
fn fitting(mut scale: i64, a: &Buckets, b: &Buckets) -> i64 {
    let (mut from, mut to) = occupied(a, b);
    while BUCKETS_MAX < to - from {
        from /= 2;
        to /= 2;
        scale -= 1;
    }
    scale
}

fn downscale(histogram: &mut Exponential, to: i64) {
    let halvings = i64::from(histogram.scale).saturating_sub(to).min(HALVINGS_MAX);
    for _ in 0..halvings {
        halve(&mut histogram.positive);
        halve(&mut histogram.negative);
    }
    histogram.scale = i32::try_from(to).unwrap_or(i32::MIN);
}

/// Joins each two neighbours. The room that is left over stays, as empty buckets.
fn halve(buckets: &mut Buckets) {
    let (offset, counts) = buckets;
    let shifted = usize::from(offset.rem_euclid(2) != 0);
    *offset = offset.div_euclid(2);
    let len = counts.len();
    let joined: Vec<u64> = (0..(len + shifted).div_ceil(2))
        .map(|place| {
            let at = |place: usize| place.checked_sub(shifted).and_then(|at| counts.get(at)).copied().unwrap_or(0);
            at(2 * place).wrapping_add(at(2 * place + 1))
        })
        .collect();
    *counts = joined;
    counts.resize(len.max(counts.len()), 0);
}

fn merge(sum: &mut Buckets, more: &Buckets) {
    if more.1.is_empty() {
        return;
    }
    if sum.1.is_empty() {
        sum.clone_from(more);
        return;
    }
    let (from, to) = occupied(sum, more);
    let counts = (from..to).map(|index| count_at(sum, index).wrapping_add(count_at(more, index))).collect();
    *sum = (i32::try_from(from).unwrap_or(i32::MAX), counts);
}

/// Makes the middle at least so wide: buckets within it are counted there, and it ends where a bucket ends.
fn widen_zero(histogram: &mut Exponential, width: f64) {
    let zero = index_of(histogram.scale, width);
    let mut observed = histogram.zero_count;
    for side in [&mut histogram.positive, &mut histogram.negative] {
        let from = (zero.saturating_add(1)).clamp(lower(side), upper(side));
        let within = usize::try_from(from - lower(side)).unwrap_or(0).min(side.1.len());
        observed = side.1.drain(..within).fold(observed, u64::wrapping_add);
        side.0 = i32::try_from(from).unwrap_or(i32::MAX);
    }
    histogram.zero_count = observed;
    histogram.zero_threshold = upper_bound(histogram.scale, zero);
}

/// The bucket that a value falls into.
fn index_of(scale: i32, value: f64) -> i64 {
    let scale = scale.clamp(-1100, 1100);
    let (fraction, exponent) = frexp(value);
    if fraction == 0.5 {
        let power = i64::from(exponent - 1);
        let index = match u32::try_from(scale) {
            Ok(scale) => i128::from(power) << scale.min(60),
            Err(_) => i128::from(power) >> scale.unsigned_abs().min(63),
        };
        return i64::try_from(index - 1).unwrap_or(if power < 0 { i64::MIN } else { i64::MAX });
    }
    // A float that no integer can hold becomes the largest or smallest.
    (value.ln() * (std::f64::consts::LOG2_E * f64::from(scale).exp2())).floor() as i64
}

/// Where the bucket ends.
fn upper_bound(scale: i32, index: i64) -> f64 {
    let width = std::f64::consts::LN_2 * (-f64::from(scale.clamp(-1100, 1100))).exp2();
    (index.saturating_add(1) as f64 * width).exp()
}

/// A fraction from 0.5 up to 1, and the power of two to multiply it with.
fn frexp(value: f64) -> (f64, i32) {
    if value == 0.0 || !value.is_finite() {
        return (value, 0);
    }
    let bits = value.to_bits();
    let exponent = i32::try_from(bits >> 52 & 0x7ff).unwrap_or(0);
    if exponent == 0 {
        let (fraction, exponent) = frexp(value * 2f64.powi(54));
        return (fraction, exponent - 54);
    }
    (f64::from_bits(bits & !(0x7ff << 52) | 1022 << 52), exponent - 1022)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn point(start: u64, nanos: u64) -> Point {
        let mut point = Point { start_nanos: start, ..Point::default() };
        point.set_time(nanos);
        point
    }

    fn number(streams: &DeltaStreams, at: Duration, start: u64, nanos: u64, more: Number) -> Result<Number, Dropped> {
        let (mut point, mut data) = (point(start, nanos), Data::Number(more));
        streams.add(7, at, &mut point, &mut data)?;
        match data {
            Data::Number(sum) => Ok(sum),
            _ => panic!("another kind"),
        }
    }

    #[test]
    fn numbers_add_up_until_they_are_silent_too_long() {
        let streams = DeltaStreams::new(0);
        let add = |at: u64, start: u64, nanos: u64, more| number(&streams, SECOND * at as u32, start, nanos, more);
        assert_eq!(add(0, 5, 10, Number::Int(2)), Ok(Number::Int(2)));
        assert_eq!(add(1, 10, 20, Number::Int(3)), Ok(Number::Int(5)));
        assert_eq!(add(2, 20, 20, Number::Int(3)), Err(Dropped::OutOfOrder));
        assert_eq!(add(2, 4, 30, Number::Int(3)), Err(Dropped::OlderStart));
        assert_eq!(add(3, 20, 30, Number::None), Ok(Number::Int(5)));
        assert_eq!(add(3, 20, 40, Number::Double(0.5)), Ok(Number::Double(0.5)), "another type begins anew");
        assert_eq!(add(303, 30, 50, Number::Double(1.0)), Ok(Number::Double(1.5)), "five minutes are not too long");
        assert_eq!((add(700, 60, 70, Number::Double(1.0)), streams.len()), (Ok(Number::Double(1.0)), 1));
    }

    #[test]
    fn there_are_no_more_streams_than_fit() {
        let streams = DeltaStreams::new(2 * STREAM_BYTES);
        let add = |key, nanos| {
            let (mut point, mut data) = (point(0, nanos), Data::Number(Number::Int(1)));
            streams.add(key, SECOND, &mut point, &mut data)
        };
        assert_eq!((add(1, 1), add(2, 1), add(3, 1)), (Ok(()), Ok(()), Err(Dropped::Limit)));
        assert_eq!((add(1, 2), streams.len(), streams.is_empty()), (Ok(()), 2, false));
    }

    #[test]
    fn histograms_add_up_and_begin_anew_with_other_bounds() {
        let streams = DeltaStreams::new(0);
        let mut nanos = 0;
        let mut add = |bounds: &[f64], counts: &[u64], sum: Option<f64>| {
            nanos += 1;
            let count = counts.iter().sum();
            let (bounds, counts) = (bounds.to_vec(), counts.to_vec());
            let (mut point, mut data) = (point(0, nanos), Data::Explicit(Explicit { count, sum, counts, bounds }));
            streams.add(7, SECOND, &mut point, &mut data).unwrap();
            let Data::Explicit(sum) = data else { panic!("another kind") };
            (sum.counts, sum.count, sum.sum)
        };
        assert_eq!(add(&[1.0], &[2, 1], Some(1.5)), (vec![2, 1], 3, Some(1.5)));
        assert_eq!(add(&[1.0], &[1, 5], Some(2.0)), (vec![3, 6], 9, Some(3.5)));
        assert_eq!(add(&[1.0], &[1, 0], None), (vec![4, 6], 10, None));
        assert_eq!(add(&[2.0], &[1, 0], Some(1.0)), (vec![1, 0], 1, Some(1.0)));
    }

    /// The cases are those of the processor's own tests.
    #[test]
    fn buckets_are_joined_and_merged_as_by_the_processor() {
        let halved = |offset: i32, counts: &[u64]| {
            let mut buckets = (offset, counts.to_vec());
            halve(&mut buckets);
            buckets
        };
        assert_eq!(halved(0, &[1; 4]), (0, vec![2, 2, 0, 0]));
        assert_eq!(halved(1, &[1; 11]), (0, [&[1, 2, 2, 2, 2, 2][..], &[0; 5]].concat()));
        assert_eq!(halved(-1, &[4, 0, 3, 0, 3, 0, 0, 8]), (-1, vec![4, 3, 3, 0, 8, 0, 0, 0]));
        assert_eq!((halved(-3, &[]).0, halved(-4, &[]).0, halved(7, &[]).0), (-2, -2, 3));
        let merged = |a: (i32, &[u64]), b: (i32, &[u64])| {
            let mut sum = (a.0, a.1.to_vec());
            merge(&mut sum, &(b.0, b.1.to_vec()));
            sum
        };
        assert_eq!(merged((-1, &[1, 1, 1]), (-2, &[1, 1])), (-2, vec![1, 2, 1, 1]));
        assert_eq!(merged((-2, &[1, 1]), (1, &[1, 1])), (-2, vec![1, 1, 0, 1, 1]));
        assert_eq!(merged((0, &[]), (1, &[0, 1])), (1, vec![0, 1]));
        let mut wide = Exponential {
            zero_count: 2,
            positive: (-1, vec![1, 2, 3, 4, 5]),
            negative: (-1, vec![1, 2, 3, 4, 5]),
            ..Exponential::default()
        };
        widen_zero(&mut wide, 3.0);
        assert_eq!((wide.zero_count, wide.positive, wide.zero_threshold.round()), (2 + 2 * 6, (2, vec![4, 5]), 4.0));
    }

    #[test]
    fn histograms_of_any_scale_come_to_an_end() {
        let of = |scale: i32, offset: i32| Exponential {
            scale,
            positive: (offset, vec![1]),
            count: 1,
            ..Exponential::default()
        };
        let mut sum = of(i32::MAX, i32::MIN);
        add_exponential(&mut sum, &mut of(5, i32::MAX));
        assert_eq!((sum.count, sum.positive.1.iter().sum::<u64>()), (2, 2));
        assert!(sum.positive.1.len() <= 170, "{} buckets", sum.positive.1.len());
        let mut sum = of(3, 10);
        add_exponential(&mut sum, &mut of(1, 3));
        assert_eq!((sum.scale, sum.positive), (1, (2, vec![1, 1])));
        for (scale, value) in [(i32::MAX, 1e300), (i32::MIN, 1e-300), (0, 0.0), (0, f64::NAN), (2, -1.0)] {
            let mut one = of(scale, 0);
            widen_zero(&mut one, value);
            assert_eq!(one.zero_count + one.positive.1.iter().sum::<u64>(), 1);
        }
        assert_eq!((index_of(0, 4.0), index_of(1, 4.0), index_of(0, 3.0), index_of(-1, 16.0)), (1, 3, 1, 1));
    }
}
