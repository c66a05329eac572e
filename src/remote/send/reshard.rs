//! How many shards a destination needs, by Prometheus's rule: as many as the time for one sample allows to keep up with
//! what comes in, and to catch up on a twentieth of what is behind each second.

use std::time::Duration;

/// How often the number is decided on.
pub const DECIDE_EVERY: Duration = Duration::from_secs(10);
/// Weight of the newest rate in an average.
const WEIGHT: f64 = 0.2;
/// A change of less than this part of the shards is not made.
const TOLERANCE: f64 = 0.3;
/// Whoever is further behind, in seconds, does not give shards up.
const BEHIND_MAX: f64 = 10.0;

/// A rate per second, averaged with exponentially falling weights.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rate {
    last_total: f64,
    rate: Option<f64>,
}

impl Rate {
    /// Takes the total so far, once each [`DECIDE_EVERY`]; returns the rate.
    pub fn tick(&mut self, total: f64) -> f64 {
        let new = (total - self.last_total).max(0.0);
        self.last_total = total;
        let now = new / DECIDE_EVERY.as_secs_f64();
        match &mut self.rate {
            Some(rate) => *rate += WEIGHT * (now - *rate),
            None if 0.0 < new => self.rate = Some(now),
            None => {}
        }
        self.rate.unwrap_or(0.0)
    }
}

/// What the decision rests on.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Load {
    /// Samples that came in, a second.
    pub incoming: f64,
    /// Samples that were answered for, a second.
    pub outgoing: f64,
    /// Samples that were dropped, a second.
    pub dropped: f64,
    /// Seconds spent on sending, a second.
    pub sending: f64,
    /// Seconds between the newest sample that came in and the newest that was sent.
    pub delay: f64,
}

/// Bounds of the number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardBounds {
    /// Fewest.
    pub min: usize,
    /// Most.
    pub max: usize,
}

/// The number as computed, for the metric, and the number to have; nothing if nothing was sent.
pub fn desired(load: Load, current: usize, bounds: ShardBounds) -> Option<(f64, usize)> {
    if load.outgoing <= 0.0 {
        return None;
    }
    let kept = load.outgoing / (load.dropped + load.outgoing);
    let pending = load.delay * load.incoming * kept;
    let per_sample = load.sending / load.outgoing;
    let wanted = per_sample * (load.incoming * kept + 0.05 * pending);
    let (now, rounded) = (current as f64, wanted.ceil());
    if now * (1.0 - TOLERANCE) <= rounded && rounded <= now * (1.0 + TOLERANCE) {
        return Some((wanted, current));
    }
    // A number beyond the bounds, or none at all, is brought within them.
    let number = if rounded.is_finite() { rounded.clamp(0.0, 1e9) as usize } else { bounds.max };
    if number < current && BEHIND_MAX < load.delay {
        return Some((wanted, current));
    }
    Some((wanted, number.clamp(bounds.min, bounds.max)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: ShardBounds = ShardBounds { min: 1, max: 50 };

    fn number(load: Load, current: usize) -> Option<usize> {
        desired(load, current, BOUNDS).map(|(_, number)| number)
    }

    #[test]
    fn rates_are_averaged() {
        let mut rate = Rate::default();
        assert_eq!(rate.tick(0.0), 0.0);
        assert_eq!(rate.tick(1000.0), 100.0);
        assert_eq!(rate.tick(1000.0), 80.0);
        assert_eq!(rate.tick(3000.0), 104.0);
    }

    #[test]
    fn the_number_follows_the_load() {
        let load = Load { incoming: 1000.0, outgoing: 1000.0, sending: 1.0, ..Load::default() };
        assert_eq!(number(Load::default(), 3), None);
        assert_eq!(number(load, 1), Some(1));
        // Each sample takes five times as long; half of what comes in is dropped.
        assert_eq!(number(Load { sending: 5.0, ..load }, 1), Some(5));
        assert_eq!(number(Load { sending: 5.0, incoming: 2000.0, dropped: 1000.0, ..load }, 1), Some(5));
        // Within the tolerance nothing changes.
        assert_eq!(number(Load { sending: 5.0, ..load }, 4), Some(4));
        assert_eq!(number(Load { sending: 500.0, ..load }, 4), Some(50));
        // A minute behind: 60 s × 1000/s × 5 % on top. Nobody who is behind gives shards up.
        assert_eq!(number(Load { sending: 1.0, delay: 60.0, ..load }, 1), Some(4));
        assert_eq!(number(Load { sending: 1.0, delay: 60.0, ..load }, 9), Some(9));
        assert_eq!(number(Load { sending: 1.0, delay: 1.0, ..load }, 9), Some(2));
    }
}
