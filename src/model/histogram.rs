//! Native histograms: exponential buckets (schemas -4 to 8) or listed bounds (schema -53); with float counts, and with whole
//! ones as clients expose them (`integer`).
//!
//! The digits of every operation are those of Prometheus's `model/histogram`: bucket by bucket, in the same order. Buckets
//! are kept as counts beside spans of indexes; `layout` is the only file that takes the two apart and puts them together.

mod arithmetic;
mod bounds;
mod buckets;
pub mod classic;
pub mod integer;
mod kahan;
pub mod layout;
mod reset;
mod text;
mod trim;
mod validate;

pub use crate::model::histogram::arithmetic::{Combined, IncompatibleSchemas};
pub use crate::model::histogram::buckets::Bucket;
pub use crate::model::histogram::integer::Histogram;
pub use crate::model::histogram::kahan::{HistogramMean, HistogramSum};
pub use crate::model::histogram::trim::TrimSide;
pub use crate::model::histogram::validate::{InvalidBounds, InvalidBuckets, InvalidHistogram, has_sound_layout};

use crate::model::sample::is_stale;

/// Schema of histograms whose bounds are listed.
pub const CUSTOM_BUCKETS_SCHEMA: i32 = -53;

/// What is known of a counter reset between this histogram and the one before it in its series.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum CounterResetHint {
    /// Nothing: the buckets have to be compared.
    #[default]
    Unknown,
    /// There was one.
    Reset,
    /// There was none.
    NotReset,
    /// A gauge has no resets.
    Gauge,
}

/// A run of neighbouring buckets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Span {
    /// Gap to the span before; in the first span, the index of the first bucket.
    pub offset: i32,
    /// Number of buckets.
    pub length: u32,
}

/// A histogram with absolute counts. All values are possible here; storage checks what it takes in.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FloatHistogram {
    /// What is known of a counter reset.
    pub counter_reset_hint: CounterResetHint,
    /// Resolution: bounds grow by a factor of 2^(2^-schema).
    pub schema: i32,
    /// Width of the zero bucket on either side of zero.
    pub zero_threshold: f64,
    /// Observations in the zero bucket.
    pub zero_count: f64,
    /// All observations.
    pub count: f64,
    /// Sum of all observations; the stale marker ends the series.
    pub sum: f64,
    /// Which positive buckets there are.
    pub positive_spans: Vec<Span>,
    /// Counts of the positive buckets.
    pub positive_buckets: Vec<f64>,
    /// Which negative buckets there are.
    pub negative_spans: Vec<Span>,
    /// Counts of the negative buckets.
    pub negative_buckets: Vec<f64>,
    /// Upper bounds of listed buckets, ascending and without infinity.
    pub custom_values: Vec<f64>,
}

impl FloatHistogram {
    /// True if the bounds are listed in `custom_values`.
    pub fn uses_custom_buckets(&self) -> bool {
        self.schema == CUSTOM_BUCKETS_SCHEMA
    }

    /// True for the marker that ends a series of histograms.
    pub fn is_stale(&self) -> bool {
        is_stale(self.sum)
    }

    /// Bytes that Prometheus counts for a histogram; a float sample counts 16 there.
    pub fn size(&self) -> usize {
        const STRUCT_LEN: usize = 168;
        let spans = self.positive_spans.len() + self.negative_spans.len();
        let floats = self.positive_buckets.len() + self.negative_buckets.len() + self.custom_values.len();
        STRUCT_LEN + 8 * (spans + floats)
    }

    /// How many float samples the histogram counts for in the limits and figures of a query.
    pub fn sample_count(&self) -> usize {
        (self.size() + 8) / 16
    }

    /// Bytes that the histogram takes in memory.
    pub fn memory_len(&self) -> usize {
        let spans = self.positive_spans.capacity() + self.negative_spans.capacity();
        let floats =
            self.positive_buckets.capacity() + self.negative_buckets.capacity() + self.custom_values.capacity();
        size_of::<Self>() + 16 + spans * size_of::<Span>() + floats * size_of::<f64>()
    }

    /// True if the two are the same data, bit for bit: the same buckets, empty ones included. Hints do not count. This is
    /// what `==` compares in queries.
    pub fn equals(&self, other: &Self) -> bool {
        let same = |a: f64, b: f64| a.to_bits() == b.to_bits();
        let same_all = |a: &[f64], b: &[f64]| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(*a, *b));
        self.schema == other.schema
            && same(self.count, other.count)
            && same(self.sum, other.sum)
            && (!self.uses_custom_buckets() || self.custom_values == other.custom_values)
            && self.zero_threshold == other.zero_threshold
            && same(self.zero_count, other.zero_count)
            && layout::same_spans(&self.negative_spans, &other.negative_spans)
            && same_all(&self.negative_buckets, &other.negative_buckets)
            && layout::same_spans(&self.positive_spans, &other.positive_spans)
            && same_all(&self.positive_buckets, &other.positive_buckets)
    }

    /// True if both have the same buckets, whatever their counts.
    pub fn has_layout_of(&self, other: &Self) -> bool {
        layout::same_spans(&self.negative_spans, &other.negative_spans)
            && layout::same_spans(&self.positive_spans, &other.positive_spans)
    }

    /// Drops empty buckets, except runs of at most `empty_max` between filled ones.
    pub fn compact(&mut self, empty_max: usize) {
        layout::compact(&mut self.positive_spans, &mut self.positive_buckets, None, empty_max);
        layout::compact(&mut self.negative_spans, &mut self.negative_buckets, None, empty_max);
    }

    /// Lowers the resolution to `schema`; does nothing for listed bounds or a schema that is not lower.
    pub fn reduce_resolution(&mut self, schema: i32) {
        if self.uses_custom_buckets() || self.schema <= schema {
            return;
        }
        let from = self.schema;
        layout::reduce(&mut self.positive_spans, &mut self.positive_buckets, None, from, schema);
        layout::reduce(&mut self.negative_spans, &mut self.negative_buckets, None, from, schema);
        self.schema = schema;
    }

    /// True if one of the numbers is infinite, as a sum of large ones becomes.
    pub fn has_overflow(&self) -> bool {
        let own = [self.zero_count, self.count, self.sum];
        let lists = [&self.positive_buckets, &self.negative_buckets, &self.custom_values];
        own.iter().chain(lists.into_iter().flatten()).any(|v| v.is_infinite())
    }
}

#[cfg(test)]
mod tests;
