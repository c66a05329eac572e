//! Functions that rewrite labels: `label_replace`, `label_join`.

use crate::model::labels::{Labels, LabelsRoom};
use crate::model::regexp::Regexp;

/// Arguments of `label_replace`.
#[derive(Clone, Debug)]
pub(crate) struct LabelReplace {
    /// Label that is written.
    pub(crate) target: String,
    /// What is written, with `$1` and the like.
    pub(crate) replacement: String,
    /// Label that is matched.
    pub(crate) source: String,
    /// Expression that has to match as a whole.
    pub(crate) regexp: Regexp,
}

impl LabelReplace {
    /// The value of the target label, or `None` if the expression does not match.
    pub(crate) fn value(&self, labels: &Labels) -> Option<String> {
        self.regexp.expand_match(labels.get(&self.source).unwrap_or(""), &self.replacement)
    }
}

/// Arguments of `label_join`.
#[derive(Clone, Debug)]
pub(crate) struct LabelJoin {
    /// Label that is written.
    pub(crate) target: String,
    /// What stands between the values.
    pub(crate) separator: String,
    /// Labels whose values are joined.
    pub(crate) sources: Vec<String>,
}

impl LabelJoin {
    /// Bytes of the joined value; known before it is built, so that it can be charged.
    pub(crate) fn value_len(&self, labels: &Labels) -> usize {
        let values: usize = self.sources.iter().map(|name| labels.get(name).map_or(0, str::len)).sum();
        values.saturating_add(self.separator.len().saturating_mul(self.sources.len().saturating_sub(1)))
    }

    /// The value of the target label.
    pub(crate) fn value(&self, labels: &Labels) -> String {
        let mut joined = String::with_capacity(self.value_len(labels));
        for (i, name) in self.sources.iter().enumerate() {
            if i > 0 {
                joined.push_str(&self.separator);
            }
            joined.push_str(labels.get(name).unwrap_or(""));
        }
        joined
    }
}

/// `labels` with `name` set to `value`; an empty value removes the label.
pub(crate) fn with_label(labels: &Labels, name: &str, value: &str) -> Labels {
    let mut room = LabelsRoom::default();
    let mut is_placed = value.is_empty();
    for pair in labels.iter_raw() {
        if !is_placed && name.as_bytes() <= pair.name {
            room.push(name, value);
            is_placed = true;
        }
        if pair.name != name.as_bytes() {
            room.push_encoded(pair.encoded);
        }
    }
    if !is_placed {
        room.push(name, value);
    }
    room.take()
}

/// `labels` with the values that `other` has of these names; of those that it has not, there is none in the result.
pub(crate) fn with_labels_of(labels: &Labels, names: &[String], other: &Labels) -> Labels {
    let is_named = |name: &[u8]| names.iter().any(|n| n.as_bytes() == name);
    let mut room = LabelsRoom::default();
    let mut taken = other.iter_raw().filter(|pair| is_named(pair.name)).peekable();
    for pair in labels.iter_raw().filter(|pair| !is_named(pair.name)) {
        while let Some(before) = taken.next_if(|other| other.name < pair.name) {
            room.push_encoded(before.encoded);
        }
        room.push_encoded(pair.encoded);
    }
    taken.for_each(|pair| room.push_encoded(pair.encoded));
    room.take()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_labels_are_taken_of_another_set() {
        let names = ["a", "d", "x", "z"].map(str::to_owned);
        let other = Labels::from_pairs([("a", "1"), ("b", "no"), ("x", "3"), ("z", "5")]);
        let mut one_by_one = labels();
        for name in &names {
            one_by_one = with_label(&one_by_one, name, other.get(name).unwrap_or(""));
        }
        assert_eq!(with_labels_of(&labels(), &names, &other), one_by_one);
        assert_eq!(one_by_one.to_string(), r#"{a="1", b="2", x="3", z="5"}"#);
    }

    fn labels() -> Labels {
        Labels::from_pairs([("b", "2"), ("d", "4")])
    }

    #[test]
    fn labels_are_set_in_place() {
        assert_eq!(with_label(&labels(), "a", "1").to_string(), r#"{a="1", b="2", d="4"}"#);
        assert_eq!(with_label(&labels(), "b", "x").to_string(), r#"{b="x", d="4"}"#);
        assert_eq!(with_label(&labels(), "b", "").to_string(), r#"{d="4"}"#);
        assert_eq!(with_label(&labels(), "e", "5").to_string(), r#"{b="2", d="4", e="5"}"#);
    }

    #[test]
    fn join_knows_its_length() {
        let join = LabelJoin {
            target: "x".into(),
            separator: "--".into(),
            sources: vec!["b".into(), "missing".into(), "d".into()],
        };
        assert_eq!(join.value(&labels()), "2----4");
        assert_eq!(join.value_len(&labels()), 6);
    }

    #[test]
    fn replace_expands_groups() {
        let replace = |pattern: &str, replacement: &str| {
            let regexp = Regexp::anchored(pattern).unwrap();
            LabelReplace { target: "x".into(), replacement: replacement.into(), source: "b".into(), regexp }
                .value(&Labels::from_pairs([("b", "one-two")]))
        };
        assert_eq!(replace("(.*)-(.*)", "$2-${1}x$$").as_deref(), Some("two-onex$"));
        assert_eq!(replace("(?P<first>.*)-.*", "$first.").as_deref(), Some("one."));
        assert_eq!(replace("(.*)-(.*)", "$1x").as_deref(), Some(""));
        assert_eq!(replace("one", "y"), None);
    }
}
