//! Alerts that wait for one Alertmanager, in the order in which they came. Invariant: never more than the capacity; the
//! oldest make room, as newer ones say more about how things are.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::model::alert::Alert;

/// Bounds of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueLimits {
    /// Alerts that may wait (`--alertmanager.notification-queue-capacity`).
    pub capacity: usize,
    /// Alerts sent at a time (`--alertmanager.notification-batch-size`).
    pub batch_len_max: usize,
}

/// The queue.
#[derive(Debug)]
pub struct AlertQueue {
    limits: QueueLimits,
    waiting: VecDeque<Arc<Alert>>,
}

impl AlertQueue {
    /// An empty queue.
    pub fn new(limits: QueueLimits) -> Self {
        Self { limits, waiting: VecDeque::new() }
    }

    /// Adds alerts and returns how many were dropped to make room, the oldest first; of more than fit, the first.
    pub fn push(&mut self, alerts: &[Arc<Alert>]) -> usize {
        let too_many = alerts.len().saturating_sub(self.limits.capacity);
        let alerts = alerts.get(too_many..).unwrap_or_default();
        let too_old = (self.waiting.len() + alerts.len()).saturating_sub(self.limits.capacity);
        self.waiting.drain(..too_old);
        self.waiting.extend(alerts.iter().cloned());
        too_many + too_old
    }

    /// Takes the oldest alerts, as many as may be sent at a time; none when none wait.
    pub fn next_batch(&mut self) -> Vec<Arc<Alert>> {
        let len = self.waiting.len().min(self.limits.batch_len_max);
        self.waiting.drain(..len).collect()
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether none wait.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Drops all, and its memory; returns how many there were.
    pub fn clear(&mut self) -> usize {
        std::mem::take(&mut self.waiting).len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::labels::Labels;
    use crate::model::time::TimestampMs;

    fn alerts(numbers: std::ops::Range<i64>) -> Vec<Arc<Alert>> {
        let alert = |n| Alert {
            labels: Labels::empty(),
            annotations: Labels::empty(),
            starts_at: TimestampMs(n),
            ends_at: TimestampMs(n),
            generator_url: String::new(),
        };
        numbers.map(|n| Arc::new(alert(n))).collect()
    }

    fn take(queue: &mut AlertQueue) -> Vec<i64> {
        queue.next_batch().iter().map(|alert| alert.starts_at.0).collect()
    }

    #[test]
    fn the_oldest_make_room() {
        let mut queue = AlertQueue::new(QueueLimits { capacity: 5, batch_len_max: 2 });
        assert_eq!(queue.push(&alerts(0..4)), 0);
        assert_eq!(queue.push(&alerts(4..7)), 2);
        assert_eq!((queue.len(), take(&mut queue), take(&mut queue)), (5, vec![2, 3], vec![4, 5]));
        assert_eq!((take(&mut queue), take(&mut queue), queue.is_empty()), (vec![6], vec![], true));
    }

    #[test]
    fn of_more_than_fit_the_newest_are_kept() {
        let mut queue = AlertQueue::new(QueueLimits { capacity: 3, batch_len_max: 256 });
        queue.push(&alerts(0..1));
        assert_eq!(queue.push(&alerts(1..6)), 3);
        assert_eq!(take(&mut queue), [3, 4, 5]);
        queue.push(&alerts(0..2));
        assert_eq!((queue.clear(), queue.len()), (2, 0));
    }
}
