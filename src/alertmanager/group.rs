//! The life of a group of alerts: when it is flushed, what it tells then, and when it ends. Time comes from outside:
//! due times are monotonic, so a step of the clock moves none; what is resolved is judged by the clock.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::alertmanager::alert::{StoredAlert, message_order};
use crate::model::alert::{Alert, Fingerprint};
use crate::model::time::TimestampMs;

/// What time it is.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// By the clock.
    pub wall: TimestampMs,
    /// Since a fixed moment.
    pub monotonic: Duration,
}

#[derive(Clone, Debug)]
struct Held {
    stored: StoredAlert,
    /// Grows with each news, so that a flush can tell whether an alert is still what it told.
    version: u64,
    /// It was part of a flush.
    processed: bool,
}

/// An alert as one flush tells it.
#[derive(Clone, Debug)]
pub struct FlushAlert {
    /// The alert.
    pub alert: Alert,
    /// Whether it counts as resolved throughout the flush.
    pub resolved: bool,
    version: u64,
}

impl FlushAlert {
    /// An alert outside of any group, for tests of messages.
    pub fn new(alert: Alert, resolved: bool) -> Self {
        Self { alert, resolved, version: 0 }
    }
}

/// What a due time asks for.
#[derive(Debug)]
pub enum Tick {
    /// It is not due yet.
    Early,
    /// Tell these, in this order, and say how it went with [`GroupState::flushed`].
    Flush(Vec<FlushAlert>),
}

/// Whether a group goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// It has alerts.
    Goes,
    /// It has none, takes none, and is never flushed again.
    Ended,
}

/// Alerts of a group, and its timer.
#[derive(Clone, Debug)]
pub struct GroupState {
    alerts: BTreeMap<Fingerprint, Held>,
    due: Duration,
    versions: u64,
    ended: bool,
}

impl GroupState {
    /// A group with its first alert. It waits for more, unless the alert has waited as long already.
    pub fn new(first: StoredAlert, group_wait: Duration, now: Now) -> Self {
        let wait_ms = i64::try_from(group_wait.as_millis()).unwrap_or(i64::MAX);
        let old_enough = first.alert.starts_at.saturating_add(wait_ms) < now.wall;
        let wait = if old_enough { Duration::ZERO } else { group_wait };
        let mut group =
            Self { alerts: BTreeMap::new(), due: now.monotonic.saturating_add(wait), versions: 0, ended: false };
        group.insert(first);
        group
    }

    /// Takes an alert; `Ended` when the group takes none any more.
    pub fn insert(&mut self, stored: StoredAlert) -> Life {
        if self.ended {
            return Life::Ended;
        }
        self.versions += 1;
        let identity = stored.alert.fingerprint();
        let processed = self.alerts.get(&identity).is_some_and(|held| held.processed);
        self.alerts.insert(identity, Held { stored, version: self.versions, processed });
        Life::Goes
    }

    /// How long until the next flush.
    pub fn wait(&self, now: Now) -> Duration {
        self.due.saturating_sub(now.monotonic)
    }

    /// Begins a flush if it is due. The timer is set anew first: a flush that takes longer than `group_interval` is
    /// followed by the next at once.
    pub fn tick(&mut self, group_interval: Duration, now: Now) -> Tick {
        if self.ended || now.monotonic < self.due {
            return Tick::Early;
        }
        self.due = now.monotonic.saturating_add(group_interval);
        let mut alerts = Vec::with_capacity(self.alerts.len());
        for held in self.alerts.values_mut() {
            held.processed = true;
            let resolved = held.stored.alert.is_resolved_at(now.wall);
            alerts.push(FlushAlert { alert: held.stored.alert.clone(), resolved, version: held.version });
        }
        alerts.sort_by(|a, b| message_order(&a.alert.labels, &b.alert.labels));
        Tick::Flush(alerts)
    }

    /// A flush has succeeded: what it told as resolved goes, unless there is news of it.
    pub fn flushed(&mut self, told: &[FlushAlert]) -> Life {
        for alert in told.iter().filter(|alert| alert.resolved) {
            let identity = alert.alert.fingerprint();
            if self.alerts.get(&identity).is_some_and(|held| held.version == alert.version) {
                self.alerts.remove(&identity);
            }
        }
        self.life()
    }

    /// Lets go of alerts that belong elsewhere.
    pub fn retain(&mut self, belongs: impl Fn(&Fingerprint) -> bool) -> Life {
        self.alerts.retain(|identity, _| belongs(identity));
        self.life()
    }

    fn life(&mut self) -> Life {
        self.ended |= self.alerts.is_empty();
        if self.ended { Life::Ended } else { Life::Goes }
    }

    /// Whether the group has ended.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// The alerts, each with whether it was part of a flush.
    pub fn alerts(&self) -> impl Iterator<Item = (&StoredAlert, bool)> {
        self.alerts.values().map(|held| (&held.stored, held.processed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alertmanager::alert::tests::alert;

    const INTERVAL: Duration = Duration::from_secs(10);

    fn at(secs: u64) -> Now {
        Now { wall: TimestampMs(1_000_000 + secs as i64 * 1000), monotonic: Duration::from_secs(secs) }
    }

    fn heard(name: &str, ends_secs: u64) -> StoredAlert {
        StoredAlert::heard(alert(name, 1_000_000, at(ends_secs).wall.0), at(0).wall)
    }

    fn group(first: StoredAlert) -> GroupState {
        GroupState::new(first, Duration::from_secs(3), at(0))
    }

    #[track_caller]
    fn flush(group: &mut GroupState, now: u64) -> Vec<FlushAlert> {
        match group.tick(INTERVAL, at(now)) {
            Tick::Flush(alerts) => alerts,
            Tick::Early => panic!("it is not due"),
        }
    }

    #[test]
    fn a_group_waits_for_more_alerts() {
        let mut group = group(heard("a", 100));
        assert_eq!(group.wait(at(1)), Duration::from_secs(2));
        assert!(matches!(group.tick(INTERVAL, at(2)), Tick::Early));
        assert_eq!(group.insert(heard("b", 100)), Life::Goes);
        assert_eq!(flush(&mut group, 3).len(), 2);
        assert_eq!(group.wait(at(3)), INTERVAL);
    }

    #[test]
    fn old_alerts_do_not_wait() {
        let old = StoredAlert::heard(alert("a", 1_000_000 - 3001, 2_000_000), at(0).wall);
        assert_eq!(group(old).wait(at(0)), Duration::ZERO);
        let just = StoredAlert::heard(alert("a", 1_000_000 - 3000, 2_000_000), at(0).wall);
        assert_eq!(group(just).wait(at(0)), Duration::from_secs(3));
    }

    #[test]
    fn resolved_alerts_go_once_they_were_told() {
        let mut group = group(heard("a", 2));
        group.insert(heard("b", 100));
        let told = flush(&mut group, 3);
        assert_eq!(told.iter().map(|a| a.resolved).collect::<Vec<_>>(), [true, false]);
        // The flush has failed: nothing is said of it, and all is told again.
        let told = flush(&mut group, 13);
        // One fires anew while it is told as resolved.
        group.insert(heard("a", 200));
        assert_eq!((group.flushed(&told), group.alerts().count()), (Life::Goes, 2));
        let told = flush(&mut group, 500);
        assert_eq!((told.len(), group.flushed(&told)), (2, Life::Ended));
        assert_eq!(group.insert(heard("a", 900)), Life::Ended);
        assert!(matches!(group.tick(INTERVAL, at(900)), Tick::Early));
    }

    #[test]
    fn a_slow_flush_is_followed_at_once() {
        let mut group = group(heard("a", 1000));
        flush(&mut group, 3);
        assert_eq!(group.wait(at(20)), Duration::ZERO);
        flush(&mut group, 20);
        assert_eq!(group.wait(at(20)), INTERVAL);
    }

    #[test]
    fn a_step_of_the_clock_moves_no_flush() {
        let mut group = group(heard("a", 100));
        let stepped = Now { wall: TimestampMs(9_000_000_000), monotonic: Duration::from_secs(1) };
        assert_eq!(group.wait(stepped), Duration::from_secs(2));
        assert!(matches!(group.tick(INTERVAL, stepped), Tick::Early));
    }

    #[test]
    fn alerts_that_belong_elsewhere_go() {
        let mut group = group(heard("a", 100));
        group.insert(heard("b", 100));
        let kept = heard("a", 100).alert.fingerprint();
        assert_eq!(group.retain(|identity| *identity == kept), Life::Goes);
        assert_eq!(group.retain(|_| false), Life::Ended);
        assert!(group.has_ended());
    }
}
