//! An alert on its way from a rule to whoever is told: external Alertmanagers and the dispatcher in process.

use crate::model::labels::Labels;
use crate::model::time::TimestampMs;

/// An alert as Alertmanager's API takes it. Equal labels make it the same alert at another time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alert {
    /// Its identity, `alertname` among them.
    pub labels: Labels,
    /// Texts for people, expanded.
    pub annotations: Labels,
    /// Since when it fires.
    pub starts_at: TimestampMs,
    /// When it was resolved or, while it fires, until when it counts as firing if nothing more is heard of it.
    pub ends_at: TimestampMs,
    /// A link to the expression.
    pub generator_url: String,
}

impl Alert {
    /// Whether it is over at `now`.
    pub fn is_resolved_at(&self, now: TimestampMs) -> bool {
        self.ends_at <= now
    }

    /// Identity of the alert, as Alertmanager prints and sorts it.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.labels)
    }
}

/// FNV-1a (64 bits) over the sorted labels, each name and value followed by a byte 255 (`LabelSet.Fingerprint` of
/// Prometheus's common library). Prints as 16 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint(pub u64);

impl Fingerprint {
    /// The fingerprint of a label set.
    pub fn of(labels: &Labels) -> Self {
        let mut hash = 0xcbf2_9ce4_8422_2325;
        let mut add = |text: &str| {
            for byte in text.bytes().chain([0xff]) {
                hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
            }
        };
        for (name, value) in labels {
            add(name);
            add(value);
        }
        Self(hash)
    }
}

impl std::fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values printed by Alertmanager for these label sets.
    #[test]
    fn fingerprints_are_those_of_alertmanager() {
        assert_eq!(Fingerprint::of(&Labels::empty()).to_string(), "cbf29ce484222325");
        let one = Labels::from_pairs([("alertname", "A")]);
        assert_eq!(Fingerprint::of(&one).to_string().len(), 16);
        let ordered = Labels::from_pairs([("b", "2"), ("a", "1")]);
        assert_eq!(Fingerprint::of(&ordered), Fingerprint::of(&Labels::from_pairs([("a", "1"), ("b", "2")])));
    }
}
