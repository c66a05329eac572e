//! The encodings of native histograms (Prometheus encodings 2, with whole counts, and 3, with float counts), byte for byte.
//! ```text
//! │ sample count u16 BE │ counter reset: 2 bits, 6 zeros │ layout │ samples …
//! layout      zero threshold, schema varbit, positive spans, negative spans, bounds if they are listed
//!   threshold 0 u8 │ exponent + 243 u8 of a power of two │ 255 u8, 64 bits
//!   spans     n varbit, n × (length varbit, offset varbit)
//!   bounds    n varbit, n × (thousandths + 1 varbit │ 0, 64 bits)
//! sample      time, count, zero count, sum, positive buckets, negative buckets
//!   time      varbit; then the change of its change
//!   whole     varbit: the count, or the difference to the bucket before; then the change of its change
//!   sum, float   64 bits, then xor-ed as floats in XOR chunks
//! ```
//! A stale marker has a sum only: no buckets, and in the first sample an empty layout. All histograms of a chunk have the same
//! layout: when one comes with more buckets, the chunk is encoded anew (`encode`).

pub mod decode;
pub mod encode;
mod field;
mod layout;
pub mod starts;
mod state;

#[cfg(test)]
mod tests;

pub use state::Native;

/// What the header of a chunk says of counter resets at its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum ResetHeader {
    /// Nothing.
    #[default]
    Unknown = 0,
    /// There was none.
    NotReset = 0b01,
    /// There was one.
    Reset = 0b10,
    /// Gauges have none.
    Gauge = 0b11,
}

impl ResetHeader {
    pub(crate) fn from_bits(bits: u64) -> Self {
        match bits & 0b11 {
            0b01 => Self::NotReset,
            0b10 => Self::Reset,
            0b11 => Self::Gauge,
            _ => Self::Unknown,
        }
    }
}
