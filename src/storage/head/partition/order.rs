//! How a sample stands to the newest of its series, and where it goes by that.

use crate::model::append::SampleRejection;
use crate::storage::head::bounds::{AppendBounds, Lateness};
use crate::storage::head::native::Newest;

/// How a sample stands to the newest of its series.
pub(super) enum Order {
    Newer,
    /// Same time, same bits.
    Repeated,
    /// Older, and within the window for late samples.
    Late,
    /// Right, and held up by samples that are newer than there can be.
    Returned,
}

/// Where a sample goes, by Prometheus's rules: in order if it can, else to the late ones if it may.
pub(super) fn place_of(
    bounds: AppendBounds,
    newest: Option<(i64, Newest<'_>)>,
    t: i64,
    new: Newest<'_>,
) -> Result<Order, SampleRejection> {
    let refusal = if bounds.takes_in_order(t) {
        match order_of(newest, t, new) {
            Err(SampleRejection::OutOfOrder) => SampleRejection::OutOfOrder,
            decided => return decided,
        }
    } else {
        SampleRejection::OutOfBounds
    };
    match bounds.lateness(t) {
        Lateness::NoWindow => Err(refusal),
        Lateness::Within => Ok(Order::Late),
        Lateness::TooOld => Err(SampleRejection::TooOld),
    }
}

pub(super) fn order_of(newest: Option<(i64, Newest<'_>)>, t: i64, new: Newest<'_>) -> Result<Order, SampleRejection> {
    let Some((last, existing)) = newest.filter(|(last, _)| t <= *last) else { return Ok(Order::Newer) };
    if t < last {
        return Err(SampleRejection::OutOfOrder);
    }
    let is_same = match (existing, new) {
        (Newest::Float(existing), Newest::Float(new)) => {
            if existing != new {
                let (existing, new) = (f64::from_bits(existing), f64::from_bits(new));
                return Err(SampleRejection::Duplicate { at: t, existing, new });
            }
            true
        }
        (_, Newest::Float(new)) => {
            return Err(SampleRejection::DuplicateOfHistogram { at: t, new: f64::from_bits(new) });
        }
        (Newest::Whole(existing), Newest::Whole(new)) => new.equals(existing),
        (Newest::FloatHistogram(existing), Newest::FloatHistogram(new)) => new.equals(existing),
        _ => false,
    };
    if is_same { Ok(Order::Repeated) } else { Err(SampleRejection::DuplicateHistogram) }
}
