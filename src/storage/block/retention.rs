//! Which blocks are kept no longer, by Prometheus's rules: whole blocks, the oldest first.

use std::collections::BTreeSet;
use std::io;

use crate::model::steady_clock::SteadyClock;
use crate::storage::block::meta::BlockMeta;
use crate::storage::block::ulid::Ulid;
use crate::storage::head::bounds::FUTURE_MS_MAX;

/// How much is kept, as users say it; zero means no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RetentionRule {
    /// Milliseconds by which a block may end before the newest.
    pub time_ms: i64,
    /// Bytes of all blocks, the log included.
    pub len_max: u64,
    /// Share of the disk that they may take, in percent; prevails over the bytes.
    pub disk_percent: f64,
}

impl RetentionRule {
    /// The limits on a disk of this size. Where the size cannot be had the bytes hold, as in Prometheus.
    pub fn on_disk(self, capacity: impl FnOnce() -> io::Result<u64>) -> Retention {
        let Self { time_ms, mut len_max, disk_percent } = self;
        if 0.0 < disk_percent {
            match capacity() {
                // A share of a 64-bit size that is at most the whole; the cast holds at the ends.
                Ok(total) if 0 < total => len_max = (total as f64 * disk_percent / 100.0) as u64,
                Ok(_) => {
                    tracing::warn!(component = "tsdb", "The disk has no size, the limit in percent is not looked at")
                }
                Err(error) => tracing::warn!(component = "tsdb", err = %error,
                    "Unable to retrieve filesystem size of database directory, skip percentage limitation and default to fixed size limitation"),
            }
        }
        Retention { time_ms, len_max }
    }
}

/// How much is kept; zero means no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// Milliseconds by which a block may end before the newest.
    pub time_ms: i64,
    /// Bytes of all blocks, the log included.
    pub len_max: u64,
}

/// A block as retention sees it.
#[derive(Clone, Copy, Debug)]
pub struct Kept<'a> {
    /// What it is.
    pub meta: &'a BlockMeta,
    /// Bytes of its files.
    pub len: u64,
}

/// What retention wants removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Beyond {
    /// Blocks that end too early.
    pub time: BTreeSet<Ulid>,
    /// Blocks for which there is no room.
    pub size: BTreeSet<Ulid>,
}

impl Retention {
    /// The same by a clock: nothing goes while a step of it is in doubt, and a block that is dated ahead of the time by which data ages, as
    /// by a clock that is or was wrong, makes no other old. `newest` is the end of the newest block.
    #[must_use]
    pub fn by_clock(self, clock: &SteadyClock, newest: Option<i64>) -> Self {
        if !clock.is_settled() {
            return Self::default();
        }
        let ahead = newest.map_or(0, |newest| newest.saturating_sub(clock.aging().0));
        let time_ms = match self.time_ms {
            0 => 0,
            time_ms if ahead <= FUTURE_MS_MAX => time_ms,
            time_ms => time_ms.saturating_add(ahead),
        };
        Self { time_ms, ..self }
    }

    /// The blocks beyond the limits; `log_len` are the bytes that the head keeps on the disk.
    pub fn beyond(self, blocks: &[Kept<'_>], log_len: u64) -> Beyond {
        let mut blocks = blocks.to_vec();
        // Newest first.
        blocks.sort_by_key(|block| std::cmp::Reverse((block.meta.max_time, block.meta.ulid)));
        let from = |at: Option<usize>| {
            let late = at.and_then(|at| blocks.get(at..)).unwrap_or(&[]);
            late.iter().map(|block| block.meta.ulid).collect()
        };
        let newest = blocks.first().map_or(i64::MIN, |block| block.meta.max_time);
        let is_old = |block: &Kept<'_>| self.time_ms <= newest.saturating_sub(block.meta.max_time);
        let too_old = (0 < self.time_ms).then(|| blocks.iter().skip(1).position(is_old).map(|at| at + 1)).flatten();
        let mut sum = log_len;
        let is_beyond = |block: &Kept<'_>| {
            sum = sum.saturating_add(block.len);
            self.len_max < sum
        };
        let too_much = if 0 < self.len_max { blocks.iter().position(is_beyond) } else { None };
        Beyond { time: from(too_old), size: from(too_much) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::random::Random;
    use crate::model::time::TimestampMs;

    fn check(retention: Retention, log_len: u64, expected_time: &[usize], expected_size: &[usize]) {
        // Four blocks of ten units and a hundred bytes, in no order.
        let mut random = Random::seeded(1);
        let mut block = |n: i64| BlockMeta::from_head(Ulid::new(TimestampMs(n), &mut random), n * 10, n * 10 + 10);
        let metas = [block(2), block(0), block(3), block(1)];
        let kept: Vec<Kept<'_>> = metas.iter().map(|meta| Kept { meta, len: 100 }).collect();
        let names = |wanted: &[usize]| wanted.iter().map(|n| metas[*n].ulid).collect::<BTreeSet<_>>();
        let beyond = retention.beyond(&kept, log_len);
        assert_eq!((beyond.time, beyond.size), (names(expected_time), names(expected_size)));
    }

    #[test]
    fn a_share_of_the_disk_prevails_over_bytes_if_the_disk_tells_its_size() {
        let rule = |disk_percent| RetentionRule { time_ms: 5, len_max: 70, disk_percent };
        let limit = |disk_percent, capacity| rule(disk_percent).on_disk(|| capacity).len_max;
        assert_eq!(limit(12.5, Ok(1000)), 125);
        assert_eq!(limit(0.0, Ok(1000)), 70);
        assert_eq!(limit(12.5, Err(io::ErrorKind::Unsupported.into())), 70);
        assert_eq!(limit(12.5, Ok(0)), 70);
    }

    #[test]
    fn whole_blocks_go_oldest_first() {
        let time = |time_ms| Retention { time_ms, len_max: 0 };
        check(time(0), 0, &[], &[]);
        check(time(31), 0, &[], &[]);
        check(time(30), 0, &[1], &[]);
        check(time(10), 0, &[0, 3, 1], &[]);
        // The newest is never too old.
        check(time(1), 0, &[0, 3, 1], &[]);
        let size = |len_max| Retention { time_ms: 0, len_max };
        check(size(400), 0, &[], &[]);
        check(size(399), 0, &[], &[1]);
        check(size(400), 1, &[], &[1]);
        check(size(50), 0, &[], &[2, 0, 3, 1]);
        check(Retention { time_ms: 30, len_max: 250 }, 0, &[1], &[3, 1]);
    }
}
