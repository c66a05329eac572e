//! Whether a flush has news for a receiver, by what the notification log says it was told last.

use std::collections::HashSet;

use twox_hash::XxHash64;

use crate::alertmanager::group::FlushAlert;
use crate::alertmanager::nflog::entry::Entry;
use crate::model::labels::Labels;

/// Why a receiver is notified; part of the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It was never told of the group, or last that all is over.
    FirstNotification,
    /// An alert fires that it was not told of.
    NewAlerts,
    /// An alert is over that it was not told of.
    SomeResolved,
    /// Nothing fires any more.
    AllResolved,
    /// It was told long ago.
    RepeatInterval,
}

impl Reason {
    /// As it stands in messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::FirstNotification => "first notification",
            Self::NewAlerts => "new alerts added",
            Self::SomeResolved => "some alerts resolved",
            Self::AllResolved => "all alerts resolved",
            Self::RepeatInterval => "repeat interval elapsed",
        }
    }
}

/// Identity of an alert in the notification log: xxHash64 of its names and values, each followed by a byte 255.
pub fn hash(labels: &Labels) -> u64 {
    let mut bytes = Vec::with_capacity(labels.encoded_len());
    for text in labels.iter().flat_map(|(name, value)| [name, value]) {
        bytes.extend_from_slice(text.as_bytes());
        bytes.push(0xff);
    }
    XxHash64::oneshot(0, &bytes)
}

/// What a flush holds, by hashes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hashes {
    /// Alerts that fire.
    pub firing: Vec<u64>,
    /// Alerts that are over.
    pub resolved: Vec<u64>,
}

impl Hashes {
    /// Those of a flush.
    pub fn of(alerts: &[FlushAlert]) -> Self {
        let mut hashes = Self::default();
        for alert in alerts {
            let side = if alert.resolved { &mut hashes.resolved } else { &mut hashes.firing };
            side.push(hash(&alert.alert.labels));
        }
        hashes
    }
}

/// Timing and taste of a receiver.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// It wants to know of ends.
    pub send_resolved: bool,
    /// After so many nanoseconds it is told again.
    pub repeat_nanos: i64,
    /// When the flush began, in nanoseconds since the epoch.
    pub tick_nanos: i64,
}

/// Why the receiver has to be notified; `None` if it knows all that matters.
pub fn reason(entry: Option<&Entry>, now: &Hashes, asked: Asked) -> Option<Reason> {
    let Some(entry) = entry else { return (!now.firing.is_empty()).then_some(Reason::FirstNotification) };
    if !subset(&now.firing, &entry.firing_alerts) {
        let first = entry.firing_alerts.is_empty();
        return Some(if first { Reason::FirstNotification } else { Reason::NewAlerts });
    }
    if now.firing.is_empty() {
        // Whatever it wants to know: the log has to forget what fired.
        return (!entry.firing_alerts.is_empty()).then_some(Reason::AllResolved);
    }
    if asked.send_resolved && !subset(&now.resolved, &entry.resolved_alerts) {
        return Some(Reason::SomeResolved);
    }
    let told = entry.timestamp.as_ref().map_or(0, crate::alertmanager::nflog::entry::Timestamp::nanos_since_epoch);
    (told < asked.tick_nanos.saturating_sub(asked.repeat_nanos)).then_some(Reason::RepeatInterval)
}

fn subset(part: &[u64], all: &[u64]) -> bool {
    let all: HashSet<u64> = all.iter().copied().collect();
    part.iter().all(|hash| all.contains(hash))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alertmanager::nflog::entry::Timestamp;

    const SECOND: i64 = 1_000_000_000;

    fn entry(firing: &[u64], resolved: &[u64], at_secs: i64) -> Entry {
        Entry {
            firing_alerts: firing.to_vec(),
            resolved_alerts: resolved.to_vec(),
            timestamp: Some(Timestamp::of_nanos(at_secs * SECOND)),
            ..Entry::default()
        }
    }

    #[track_caller]
    fn check(entry: Option<Entry>, firing: &[u64], resolved: &[u64], send_resolved: bool, expected: Option<Reason>) {
        let hashes = Hashes { firing: firing.to_vec(), resolved: resolved.to_vec() };
        let asked = Asked { send_resolved, repeat_nanos: 100 * SECOND, tick_nanos: 1000 * SECOND };
        assert_eq!(reason(entry.as_ref(), &hashes, asked), expected);
    }

    #[test]
    fn reasons_are_those_of_alertmanager() {
        check(None, &[1], &[], true, Some(Reason::FirstNotification));
        check(None, &[], &[1], true, None);
        check(Some(entry(&[1], &[], 950)), &[1, 2], &[], true, Some(Reason::NewAlerts));
        check(Some(entry(&[], &[1], 950)), &[1], &[], true, Some(Reason::FirstNotification));
        check(Some(entry(&[1], &[], 950)), &[], &[1], true, Some(Reason::AllResolved));
        check(Some(entry(&[1], &[], 950)), &[], &[1], false, Some(Reason::AllResolved));
        check(Some(entry(&[], &[1], 950)), &[], &[1, 2], true, None);
        check(Some(entry(&[1, 2], &[], 950)), &[1], &[2], true, Some(Reason::SomeResolved));
        check(Some(entry(&[1, 2], &[], 950)), &[1], &[2], false, None);
        check(Some(entry(&[1, 2], &[2], 950)), &[1], &[2], true, None);
        check(Some(entry(&[1], &[], 900)), &[1], &[], true, None);
        check(Some(entry(&[1], &[], 899)), &[1], &[], true, Some(Reason::RepeatInterval));
        // One that fired and is gone without having been told as over is no news.
        check(Some(entry(&[1, 2], &[], 950)), &[1], &[], true, None);
    }

    #[test]
    fn hashes_are_those_of_alertmanager() {
        // xxHash64 of nothing.
        assert_eq!(hash(&Labels::empty()), 0xef46_db37_51d8_e999);
        assert_eq!(hash(&Labels::from_pairs([("a", "b")])), XxHash64::oneshot(0, b"a\xffb\xff"));
    }
}
