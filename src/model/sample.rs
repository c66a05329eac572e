//! Samples, series references and the special floats of Prometheus's data model.

use crate::model::time::TimestampMs;

/// Bits of the NaN that marks the end of a series ("stale marker", Prometheus `model/value`).
pub const STALE_NAN_BITS: u64 = 0x7ff0_0000_0000_0002;
/// Bits of the one NaN that parsers and arithmetic store for "not a number".
pub const NORMAL_NAN_BITS: u64 = 0x7ff8_0000_0000_0001;

/// The stale marker as a float.
pub fn stale_nan() -> f64 {
    f64::from_bits(STALE_NAN_BITS)
}

/// The canonical NaN as a float.
pub fn normal_nan() -> f64 {
    f64::from_bits(NORMAL_NAN_BITS)
}

/// True if `value` is the stale marker. Compares bits: it is the only NaN that means "the series has ended".
pub fn is_stale(value: f64) -> bool {
    value.to_bits() == STALE_NAN_BITS
}

/// Identifies a series for as long as its data directory lives. Comes from one counter for all shards, stays below
/// 2^40, does not encode the shard and is never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SeriesRef(pub u64);

/// One float sample.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// When the value was observed.
    pub at: TimestampMs,
    /// The observed value; the stale marker ends the series.
    pub value: f64,
}
