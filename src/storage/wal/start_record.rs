//! What records with start times have in front of each value.
//!
//! ```text
//! first       varint ref₀, varint t₀, varint st₀
//! each other  varint(ref − last ref), varint(t − t₀), 0 none │ 1 as before │ 2 varint(st − st₀)
//! ```
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

use crate::storage::wal::record::{put_varint, take_varint};

const NONE: u8 = 0;
const SAME: u8 = 1;
const OTHER: u8 = 2;

/// What has been written or read so far.
#[derive(Default)]
pub(super) struct Starting {
    first_t: i64,
    first_start: i64,
    series: u64,
    start: i64,
}

/// Writes series, time and start of an entry.
pub(super) fn put_start(at: &mut Starting, is_first: bool, entry: (u64, i64, i64), out: &mut Vec<u8>) {
    let (series, t, start) = entry;
    if is_first {
        *at = Starting { first_t: t, first_start: start, series, start };
        put_varint(series.cast_signed(), out);
        put_varint(t, out);
        put_varint(start, out);
        return;
    }
    put_varint(series.wrapping_sub(at.series).cast_signed(), out);
    put_varint(t.wrapping_sub(at.first_t), out);
    if start == 0 {
        out.push(NONE);
    } else if start == at.start {
        out.push(SAME);
    } else {
        out.push(OTHER);
        put_varint(start.wrapping_sub(at.first_start), out);
    }
    (at.series, at.start) = (series, start);
}

/// Reads series, time and start of an entry.
pub(super) fn take_start(at: &mut Starting, is_first: bool, rest: &mut &[u8]) -> Option<(u64, i64, i64)> {
    if is_first {
        let series = take_varint(rest)?.cast_unsigned();
        let (t, start) = (take_varint(rest)?, take_varint(rest)?);
        *at = Starting { first_t: t, first_start: start, series, start };
        return Some((series, t, start));
    }
    at.series = at.series.wrapping_add(take_varint(rest)?.cast_unsigned());
    let t = at.first_t.wrapping_add(take_varint(rest)?);
    let (marker, after) = rest.split_first()?;
    *rest = after;
    at.start = match *marker {
        NONE => 0,
        SAME => at.start,
        _ => at.first_start.wrapping_add(take_varint(rest)?),
    };
    Some((at.series, t, at.start))
}
