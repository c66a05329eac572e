//! Receiving remote write 1.0 and 2.0, as plain code: a request's bytes become one batch, storage's report an answer.
//!
//! ```text
//! headers ─ Format ─ unpack ─ decode ─ AppendBatch ─ (storage) ─ AppendReport ─ Reply
//!                               └ SeriesCache: encoded labels → series, so that known series need no labels
//! ```
//! Bounds: a request's declared size is checked before anything is allocated, and all that it holds is charged to the
//! [`budget::Budget`] of all requests in flight, piece by piece.

pub mod budget;
pub mod cache;
mod collect;
mod format;
pub(super) mod histogram;
mod labels;
mod metrics;
mod problems;
mod reply;
pub(super) mod unpack;
mod v1;
mod v2;

pub use collect::{Decoded, Rows};
pub use format::{Accepted, Format, Message, Packing};
#[cfg(test)]
pub(in crate::remote) use histogram::histogram as read_histogram;
pub use metrics::ReceiveMetrics;
pub use reply::{Reply, Written, of_report};
pub use unpack::{DECODED_LEN_MAX, UnpackError, decoded_len, unpack};

use crate::model::time::TimestampMs;
use crate::model::wire::WireError;
use crate::remote::receive::budget::{Held, NoRoom};
use crate::remote::receive::cache::SeriesCache;

/// How far ahead of the clock a sample may be.
pub const AHEAD_MS_MAX: i64 = 10 * 60_000;

/// Why a body is not a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// It is malformed.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// There is no memory for it.
    #[error(transparent)]
    Room(#[from] NoRoom),
    /// It has more samples than can be counted.
    #[error("the request has too many samples")]
    TooMany,
}

/// Whether series are looked up in the cache.
#[derive(Clone, Copy, Debug)]
pub enum Lookup<'a> {
    /// Those that are found there are named by their reference.
    Cached(&'a SeriesCache),
    /// All are named by their labels, as storage has not known some reference of the cache. What it says of them is to be
    /// entered there.
    ByLabels(&'a SeriesCache),
}

/// What is taken in beside samples, as feature flags say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extras {
    /// Exemplars.
    pub exemplars: bool,
    /// Metadata of version 2.0, for the log.
    pub metadata: bool,
    /// Start times, of version 2.0 and OTLP.
    pub starts: bool,
}

/// Reads the bytes of a request. `now` tells which samples lie in the future.
pub fn decode(
    message: Message,
    body: &[u8],
    now: TimestampMs,
    lookup: Lookup<'_>,
    extras: Extras,
    held: &mut Held,
) -> Result<Decoded, DecodeError> {
    let mut rows = Rows::new(now, lookup, extras, held, body.len());
    match message {
        Message::V1 => v1::decode(body, &mut rows)?,
        Message::V2 => v2::decode(body, &mut rows)?,
    }
    rows.done()
}

#[cfg(test)]
mod tests;
