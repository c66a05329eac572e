//! The counts of a histogram as encoder and decoder keep them, and what both kinds of histograms have in common.

use std::fmt::Debug;

use crate::model::histogram::integer::{absolute, deltas};
use crate::model::histogram::layout::indexes;
use crate::model::histogram::{CounterResetHint, FloatHistogram, Histogram, Span};
use crate::storage::chunk::Encoding;
use crate::storage::chunk::bits::{BitReader, LongBits, WordSource};
use crate::storage::chunk::histogram::ResetHeader;
use crate::storage::chunk::histogram::field::Xor;
use crate::storage::chunk::histogram::layout::Layout;

/// What an encoder has found out about a counter reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reset {
    /// There was none.
    No,
    /// There was one.
    Yes,
    /// It did not look.
    Unknown,
}

/// Counts of the last sample.
pub trait Counts: Clone + Debug + Send + Sync + Sized {
    /// The histogram that they are of.
    type Of: Native;
    /// Writes count and zero count of a first sample.
    fn begin(of: &Self::Of, out: &mut LongBits) -> Self;
    /// Writes the buckets of a first sample.
    fn begin_buckets(&mut self, of: &Self::Of, out: &mut LongBits);
    /// Writes count and zero count.
    fn write(&mut self, of: &Self::Of, out: &mut LongBits);
    /// Writes the buckets.
    fn write_buckets(&mut self, of: &Self::Of, out: &mut LongBits);
    /// Reads count and zero count of a first sample.
    fn read_first<S: WordSource + ?Sized>(from: &mut BitReader<'_, S>) -> Option<Self>;
    /// Reads the buckets of a first sample, as many on each side.
    fn read_first_buckets<S: WordSource + ?Sized>(
        &mut self,
        counts: [usize; 2],
        from: &mut BitReader<'_, S>,
    ) -> Option<()>;
    /// Reads count and zero count.
    fn read<S: WordSource + ?Sized>(&mut self, from: &mut BitReader<'_, S>) -> Option<()>;
    /// Reads the buckets.
    fn read_buckets<S: WordSource + ?Sized>(&mut self, from: &mut BitReader<'_, S>) -> Option<()>;
    /// True if the count or the zero count of `of` is lower.
    fn exceed(&self, of: &Self::Of) -> [bool; 2];
    /// Counts of a side.
    fn side(&self, side: usize) -> Vec<<Self::Of as Native>::Count>;
    /// The histogram with these counts.
    fn build(&self, layout: &Layout, sum: f64, hint: CounterResetHint) -> Self::Of;
    /// The same, with float counts.
    fn build_float(&self, layout: &Layout, sum: f64, hint: CounterResetHint) -> FloatHistogram;
}

/// A native histogram of one of the two kinds.
pub trait Native: Clone + Debug + Send + Sync + Sized {
    /// Observations in a bucket.
    type Count: Copy + PartialOrd + Default + Debug;
    /// The counts of the last sample.
    type Counts: Counts<Of = Self>;
    /// How its chunks are encoded.
    const ENCODING: Encoding;

    /// A marker that ends a series.
    fn marker(sum: f64) -> Self;
    /// What is known of a counter reset.
    fn hint(&self) -> CounterResetHint;
    /// Sum of all observations.
    fn sum(&self) -> f64;
    /// What its chunk would have in common.
    fn layout(&self) -> Layout;
    /// Resolution and width of the zero bucket.
    fn resolution(&self) -> (i32, f64);
    /// Listed bounds.
    fn custom_values(&self) -> &[f64];
    /// Spans of the positive or the negative side.
    fn spans(&self, side: usize) -> &[Span];
    /// Counts of the positive or the negative side.
    fn counts(&self, side: usize) -> Vec<Self::Count>;
    /// The same with these spans, which name all filled buckets.
    fn with_spans(&self, spans: &[Vec<Span>; 2]) -> Self;
    /// The header of a chunk that this encoder began for want of room in the last one.
    fn header_after(reset: Reset) -> ResetHeader;
    /// The header of a chunk that this encoder began as the histogram did not fit into the last one.
    fn header_of_cut(reset: Reset) -> ResetHeader;
}

/// Counts of buckets moved to other spans; those that the old spans do not name are empty.
fn moved<C: Copy + Default>(from: &[Span], counts: &[C], to: &[Span]) -> Vec<C> {
    let mut own = indexes(from, counts.len()).zip(counts.iter().copied()).peekable();
    let target_count = to.iter().map(|span| span.length as usize).sum();
    let at = |(_, index)| {
        while own.next_if(|((_, own), _)| *own < index).is_some() {}
        own.next_if(|((_, own), _)| *own == index).map_or_else(C::default, |(_, count)| count)
    };
    indexes(to, target_count).map(at).collect()
}

fn resolved(header: Reset) -> ResetHeader {
    match header {
        Reset::No => ResetHeader::NotReset,
        Reset::Yes => ResetHeader::Reset,
        Reset::Unknown => ResetHeader::Unknown,
    }
}

/// A whole number with its last change.
#[derive(Clone, Copy, Debug, Default)]
struct Whole {
    value: i64,
    change: i64,
}

impl Whole {
    fn write(&mut self, value: i64, out: &mut LongBits) {
        let change = value.wrapping_sub(self.value);
        out.push_varbit_int(change.wrapping_sub(self.change));
        *self = Self { value, change };
    }

    fn read<S: WordSource + ?Sized>(&mut self, from: &mut BitReader<'_, S>) -> Option<()> {
        self.change = self.change.wrapping_add(from.read_varbit_int()?);
        self.value = self.value.wrapping_add(self.change);
        Some(())
    }
}

/// Counts of a histogram with whole counts.
#[derive(Clone, Debug)]
pub struct WholeCounts {
    count: Whole,
    zero: Whole,
    buckets: [Vec<Whole>; 2],
}

fn sides(of: &Histogram) -> [&[i64]; 2] {
    [&of.positive_buckets, &of.negative_buckets]
}

impl Counts for WholeCounts {
    type Of = Histogram;

    fn begin(of: &Histogram, out: &mut LongBits) -> Self {
        out.push_varbit_uint(of.count);
        out.push_varbit_uint(of.zero_count);
        let whole = |value: u64| Whole { value: value.cast_signed(), change: 0 };
        Self { count: whole(of.count), zero: whole(of.zero_count), buckets: Default::default() }
    }

    fn begin_buckets(&mut self, of: &Histogram, out: &mut LongBits) {
        for (own, buckets) in self.buckets.iter_mut().zip(sides(of)) {
            buckets.iter().for_each(|value| out.push_varbit_int(*value));
            *own = buckets.iter().map(|value| Whole { value: *value, change: 0 }).collect();
        }
    }

    fn write(&mut self, of: &Histogram, out: &mut LongBits) {
        if of.is_stale() {
            // Nothing but further markers follows.
            out.push(0, 2);
            return;
        }
        self.count.write(of.count.cast_signed(), out);
        self.zero.write(of.zero_count.cast_signed(), out);
    }

    fn write_buckets(&mut self, of: &Histogram, out: &mut LongBits) {
        for (own, buckets) in self.buckets.iter_mut().zip(sides(of)) {
            own.iter_mut().zip(buckets).for_each(|(own, value)| own.write(*value, out));
        }
    }

    fn read_first<S: WordSource + ?Sized>(from: &mut BitReader<'_, S>) -> Option<Self> {
        let mut whole = || Some(Whole { value: from.read_varbit_uint()?.cast_signed(), change: 0 });
        Some(Self { count: whole()?, zero: whole()?, buckets: Default::default() })
    }

    fn read_first_buckets<S: WordSource + ?Sized>(
        &mut self,
        counts: [usize; 2],
        from: &mut BitReader<'_, S>,
    ) -> Option<()> {
        for (own, count) in self.buckets.iter_mut().zip(counts) {
            own.reserve_exact(count);
            for _ in 0..count {
                own.push(Whole { value: from.read_varbit_int()?, change: 0 });
            }
        }
        Some(())
    }

    fn read<S: WordSource + ?Sized>(&mut self, from: &mut BitReader<'_, S>) -> Option<()> {
        self.count.read(from)?;
        self.zero.read(from)
    }

    fn read_buckets<S: WordSource + ?Sized>(&mut self, from: &mut BitReader<'_, S>) -> Option<()> {
        self.buckets.iter_mut().flatten().try_for_each(|bucket| bucket.read(from))
    }

    fn exceed(&self, of: &Histogram) -> [bool; 2] {
        [of.count < self.count.value.cast_unsigned(), of.zero_count < self.zero.value.cast_unsigned()]
    }

    fn side(&self, side: usize) -> Vec<i64> {
        let values: Vec<i64> = self.buckets.get(side).into_iter().flatten().map(|bucket| bucket.value).collect();
        absolute(&values).collect()
    }

    fn build(&self, layout: &Layout, sum: f64, hint: CounterResetHint) -> Histogram {
        let [positive, negative] = &self.buckets;
        let [positive_spans, negative_spans] = layout.spans.clone();
        let values = |buckets: &[Whole]| buckets.iter().map(|bucket| bucket.value).collect();
        Histogram {
            counter_reset_hint: hint,
            schema: layout.schema,
            zero_threshold: layout.zero_threshold,
            zero_count: self.zero.value.cast_unsigned(),
            count: self.count.value.cast_unsigned(),
            sum,
            positive_spans,
            positive_buckets: values(positive),
            negative_spans,
            negative_buckets: values(negative),
            custom_values: layout.custom_values.clone(),
        }
    }

    fn build_float(&self, layout: &Layout, sum: f64, hint: CounterResetHint) -> FloatHistogram {
        let [positive, negative] = &self.buckets;
        let [positive_spans, negative_spans] = layout.spans.clone();
        let floats = |buckets: &[Whole]| {
            let mut count = 0i64;
            let add = |bucket: &Whole| {
                count = count.wrapping_add(bucket.value);
                count as f64
            };
            buckets.iter().map(add).collect()
        };
        FloatHistogram {
            counter_reset_hint: hint,
            schema: layout.schema,
            zero_threshold: layout.zero_threshold,
            zero_count: self.zero.value.cast_unsigned() as f64,
            count: self.count.value.cast_unsigned() as f64,
            sum,
            positive_spans,
            positive_buckets: floats(positive),
            negative_spans,
            negative_buckets: floats(negative),
            custom_values: layout.custom_values.clone(),
        }
    }
}

impl Native for Histogram {
    type Count = i64;
    type Counts = WholeCounts;
    const ENCODING: Encoding = Encoding::Histogram;

    fn marker(sum: f64) -> Self {
        Self::stale(sum)
    }

    fn hint(&self) -> CounterResetHint {
        self.counter_reset_hint
    }

    fn sum(&self) -> f64 {
        self.sum
    }

    fn layout(&self) -> Layout {
        Layout {
            schema: self.schema,
            zero_threshold: self.zero_threshold,
            spans: [self.positive_spans.clone(), self.negative_spans.clone()],
            custom_values: self.custom_values.clone(),
        }
    }

    fn resolution(&self) -> (i32, f64) {
        (self.schema, self.zero_threshold)
    }

    fn custom_values(&self) -> &[f64] {
        &self.custom_values
    }

    fn spans(&self, side: usize) -> &[Span] {
        if side == 0 { &self.positive_spans } else { &self.negative_spans }
    }

    fn counts(&self, side: usize) -> Vec<i64> {
        absolute(if side == 0 { &self.positive_buckets } else { &self.negative_buckets }).collect()
    }

    fn with_spans(&self, spans: &[Vec<Span>; 2]) -> Self {
        let [positive, negative] = spans;
        Self {
            positive_buckets: deltas(moved(&self.positive_spans, &self.counts(0), positive)),
            positive_spans: positive.clone(),
            negative_buckets: deltas(moved(&self.negative_spans, &self.counts(1), negative)),
            negative_spans: negative.clone(),
            custom_values: self.custom_values.clone(),
            ..*self
        }
    }

    fn header_after(reset: Reset) -> ResetHeader {
        resolved(reset)
    }

    fn header_of_cut(reset: Reset) -> ResetHeader {
        resolved(reset)
    }
}

/// Counts of a histogram with float counts.
#[derive(Clone, Debug)]
pub struct FloatCounts {
    count: Xor,
    zero: Xor,
    buckets: [Vec<Xor>; 2],
}

fn float_sides(of: &FloatHistogram) -> [&[f64]; 2] {
    [&of.positive_buckets, &of.negative_buckets]
}

impl Counts for FloatCounts {
    type Of = FloatHistogram;

    fn begin(of: &FloatHistogram, out: &mut LongBits) -> Self {
        out.push(of.count.to_bits(), 64);
        out.push(of.zero_count.to_bits(), 64);
        Self { count: Xor::written(of.count), zero: Xor::written(of.zero_count), buckets: Default::default() }
    }

    fn begin_buckets(&mut self, of: &FloatHistogram, out: &mut LongBits) {
        for (own, buckets) in self.buckets.iter_mut().zip(float_sides(of)) {
            buckets.iter().for_each(|value| out.push(value.to_bits(), 64));
            *own = buckets.iter().map(|value| Xor::written(*value)).collect();
        }
    }

    fn write(&mut self, of: &FloatHistogram, out: &mut LongBits) {
        self.count.write(of.count, out);
        self.zero.write(of.zero_count, out);
    }

    fn write_buckets(&mut self, of: &FloatHistogram, out: &mut LongBits) {
        for (own, buckets) in self.buckets.iter_mut().zip(float_sides(of)) {
            own.iter_mut().zip(buckets).for_each(|(own, value)| own.write(*value, out));
        }
    }

    fn read_first<S: WordSource + ?Sized>(from: &mut BitReader<'_, S>) -> Option<Self> {
        Some(Self { count: Xor::read_first(from)?, zero: Xor::read_first(from)?, buckets: Default::default() })
    }

    fn read_first_buckets<S: WordSource + ?Sized>(
        &mut self,
        counts: [usize; 2],
        from: &mut BitReader<'_, S>,
    ) -> Option<()> {
        for (own, count) in self.buckets.iter_mut().zip(counts) {
            for _ in 0..count {
                own.push(Xor::read_first(from)?);
            }
        }
        Some(())
    }

    fn read<S: WordSource + ?Sized>(&mut self, from: &mut BitReader<'_, S>) -> Option<()> {
        self.count.read(from)?;
        self.zero.read(from)
    }

    fn read_buckets<S: WordSource + ?Sized>(&mut self, from: &mut BitReader<'_, S>) -> Option<()> {
        self.buckets.iter_mut().flatten().try_for_each(|bucket| bucket.read(from))
    }

    fn exceed(&self, of: &FloatHistogram) -> [bool; 2] {
        [of.count < self.count.value(), of.zero_count < self.zero.value()]
    }

    fn side(&self, side: usize) -> Vec<f64> {
        self.buckets.get(side).into_iter().flatten().map(|bucket| bucket.value()).collect()
    }

    fn build(&self, layout: &Layout, sum: f64, hint: CounterResetHint) -> FloatHistogram {
        let [positive, negative] = &self.buckets;
        let [positive_spans, negative_spans] = layout.spans.clone();
        let values = |buckets: &[Xor]| buckets.iter().map(|bucket| bucket.value()).collect();
        FloatHistogram {
            counter_reset_hint: hint,
            schema: layout.schema,
            zero_threshold: layout.zero_threshold,
            zero_count: self.zero.value(),
            count: self.count.value(),
            sum,
            positive_spans,
            positive_buckets: values(positive),
            negative_spans,
            negative_buckets: values(negative),
            custom_values: layout.custom_values.clone(),
        }
    }

    fn build_float(&self, layout: &Layout, sum: f64, hint: CounterResetHint) -> FloatHistogram {
        self.build(layout, sum, hint)
    }
}

impl Native for FloatHistogram {
    type Count = f64;
    type Counts = FloatCounts;
    const ENCODING: Encoding = Encoding::FloatHistogram;

    fn marker(sum: f64) -> Self {
        Self { sum, ..Self::default() }
    }

    fn hint(&self) -> CounterResetHint {
        self.counter_reset_hint
    }

    fn sum(&self) -> f64 {
        self.sum
    }

    fn layout(&self) -> Layout {
        Layout {
            schema: self.schema,
            zero_threshold: self.zero_threshold,
            spans: [self.positive_spans.clone(), self.negative_spans.clone()],
            custom_values: self.custom_values.clone(),
        }
    }

    fn resolution(&self) -> (i32, f64) {
        (self.schema, self.zero_threshold)
    }

    fn custom_values(&self) -> &[f64] {
        &self.custom_values
    }

    fn spans(&self, side: usize) -> &[Span] {
        if side == 0 { &self.positive_spans } else { &self.negative_spans }
    }

    fn counts(&self, side: usize) -> Vec<f64> {
        if side == 0 { self.positive_buckets.clone() } else { self.negative_buckets.clone() }
    }

    fn with_spans(&self, spans: &[Vec<Span>; 2]) -> Self {
        let [positive, negative] = spans;
        Self {
            positive_buckets: moved(&self.positive_spans, &self.positive_buckets, positive),
            positive_spans: positive.clone(),
            negative_buckets: moved(&self.negative_spans, &self.negative_buckets, negative),
            negative_spans: negative.clone(),
            custom_values: self.custom_values.clone(),
            ..*self
        }
    }

    fn header_after(reset: Reset) -> ResetHeader {
        if reset == Reset::Yes { ResetHeader::Reset } else { ResetHeader::NotReset }
    }

    fn header_of_cut(reset: Reset) -> ResetHeader {
        if reset == Reset::Yes { ResetHeader::Reset } else { ResetHeader::Unknown }
    }
}
