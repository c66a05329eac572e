//! Alerts as they are held: the newest of what was heard of each, and how older and newer news make one.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use crate::model::alert::{Alert, Fingerprint};
use crate::model::labels::Labels;
use crate::model::time::TimestampMs;

/// An alert with when it was heard of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredAlert {
    /// The alert.
    pub alert: Alert,
    /// When it was heard of last.
    pub updated_at: TimestampMs,
    /// Its end is a guess, made because none was told.
    pub timeout: bool,
}

impl StoredAlert {
    /// An alert whose end was told.
    pub fn heard(alert: Alert, now: TimestampMs) -> Self {
        Self { alert, updated_at: now, timeout: false }
    }

    /// What the two make together: texts of the younger, the earliest start, and as end the latest that was told.
    fn merged(old: &Self, new: Self, now: TimestampMs) -> Self {
        let (old, mut new) = if new.updated_at < old.updated_at { (&new.clone(), old.clone()) } else { (old, new) };
        new.alert.starts_at = new.alert.starts_at.min(old.alert.starts_at);
        let later = new.alert.ends_at < old.alert.ends_at;
        let takes_end = if new.alert.is_resolved_at(now) { old.alert.is_resolved_at(now) } else { !old.timeout };
        if later && takes_end {
            new.alert.ends_at = old.alert.ends_at;
        }
        new
    }
}

/// All alerts, by identity.
#[derive(Debug, Default)]
pub struct AlertStore {
    alerts: BTreeMap<Fingerprint, StoredAlert>,
}

impl AlertStore {
    /// Takes news of an alert and returns what is known of it now.
    pub fn put(&mut self, new: StoredAlert, now: TimestampMs) -> StoredAlert {
        let identity = new.alert.fingerprint();
        let new = match self.alerts.get(&identity) {
            Some(old) if overlaps(&old.alert, &new.alert) => StoredAlert::merged(old, new, now),
            _ => new,
        };
        self.alerts.insert(identity, new.clone());
        new
    }

    /// Forgets alerts that are over. Groups hold on to theirs until their end was told.
    pub fn collect(&mut self, now: TimestampMs) {
        self.alerts.retain(|_, stored| !stored.alert.is_resolved_at(now));
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &StoredAlert> {
        self.alerts.values()
    }
}

/// Whether one of the new ends lies inside of the old range.
fn overlaps(old: &Alert, new: &Alert) -> bool {
    let inside = |at: TimestampMs| old.starts_at < at && at < old.ends_at;
    inside(new.ends_at) || inside(new.starts_at)
}

/// The order of alerts in a message: by `job`, by `instance`, then as label sets; alerts with such a label come first.
pub fn message_order(a: &Labels, b: &Labels) -> Ordering {
    for name in ["job", "instance"] {
        let order = match (a.get(name), b.get(name)) {
            (None, None) => Ordering::Equal,
            (None, Some(_)) => Ordering::Greater,
            (Some(_), None) => Ordering::Less,
            (Some(a), Some(b)) => a.cmp(b),
        };
        if order != Ordering::Equal {
            return order;
        }
    }
    label_set_order(a, b)
}

/// Smaller sets first; of equal size, the one that has the first label that they do not share, or its smaller value.
pub fn label_set_order(a: &Labels, b: &Labels) -> Ordering {
    a.len().cmp(&b.len()).then_with(|| {
        for ((a_name, a_value), (b_name, b_value)) in a.iter().zip(b) {
            let order = a_name.cmp(b_name).then_with(|| a_value.cmp(b_value));
            if order != Ordering::Equal {
                return order;
            }
        }
        Ordering::Equal
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn alert(name: &str, starts: i64, ends: i64) -> Alert {
        Alert {
            labels: Labels::from_pairs([("alertname", name)]),
            annotations: Labels::empty(),
            starts_at: TimestampMs(starts),
            ends_at: TimestampMs(ends),
            generator_url: String::new(),
        }
    }

    #[track_caller]
    fn check(old: (i64, i64), new: (i64, i64), now: i64, expected: (i64, i64)) {
        let mut store = AlertStore::default();
        store.put(StoredAlert::heard(alert("a", old.0, old.1), TimestampMs(1)), TimestampMs(now));
        let put = store.put(StoredAlert::heard(alert("a", new.0, new.1), TimestampMs(2)), TimestampMs(now));
        assert_eq!((put.alert.starts_at.0, put.alert.ends_at.0), expected);
    }

    #[test]
    fn news_are_merged_when_they_overlap() {
        // Still firing: the earliest start and the latest told end.
        check((10, 100), (20, 150), 30, (10, 150));
        check((10, 200), (20, 150), 30, (10, 200));
        // Resolved now: that end holds over one in the future.
        check((10, 200), (20, 40), 50, (10, 40));
        // Both are over: the later end.
        check((10, 45), (20, 40), 50, (10, 45));
        // Apart: the new one replaces the old.
        check((10, 20), (30, 60), 40, (30, 60));
        // The ends are not inside.
        check((10, 20), (10, 20), 15, (10, 20));
    }

    #[test]
    fn guessed_ends_do_not_hold() {
        let mut store = AlertStore::default();
        let guessed = StoredAlert { timeout: true, ..StoredAlert::heard(alert("a", 10, 500), TimestampMs(1)) };
        store.put(guessed, TimestampMs(20));
        let put = store.put(StoredAlert::heard(alert("a", 15, 300), TimestampMs(2)), TimestampMs(20));
        assert_eq!((put.alert.starts_at.0, put.alert.ends_at.0), (10, 300));
        store.collect(TimestampMs(300));
        assert_eq!(store.iter().count(), 0);
    }

    #[test]
    fn messages_are_in_alertmanagers_order() {
        let set = |pairs: &[(&str, &str)]| Labels::from_pairs(pairs.iter().copied());
        let mut sets = [
            set(&[("a", "1"), ("b", "2")]),
            set(&[("a", "9")]),
            set(&[("instance", "1"), ("z", "1")]),
            set(&[("instance", "2"), ("job", "b")]),
            set(&[("job", "b")]),
            set(&[("instance", "9"), ("job", "a")]),
        ];
        sets.sort_by(message_order);
        let printed: Vec<String> = sets.iter().map(ToString::to_string).collect();
        let expected = [
            r#"{instance="9", job="a"}"#,
            r#"{instance="2", job="b"}"#,
            r#"{job="b"}"#,
            r#"{instance="1", z="1"}"#,
            r#"{a="9"}"#,
            r#"{a="1", b="2"}"#,
        ];
        assert_eq!(printed, expected);
    }
}
