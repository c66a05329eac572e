//! Labels of a request: checked as Prometheus checks them, shown as it shows them.

use std::fmt;

use crate::model::go;
use crate::model::labels::{Labels, METRIC_NAME, STRING_LEN_MAX, is_legacy_label_name};

/// Names and values as they came: bytes that may be no text.
#[derive(Default)]
pub(super) struct Pairs<'a> {
    pairs: Vec<(&'a [u8], &'a [u8])>,
}

/// What is wrong with a label set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault<'a> {
    /// There is no metric name, or a name or value that is none.
    Invalid,
    /// A name stands there twice.
    Duplicate(&'a [u8]),
}

impl<'a> Pairs<'a> {
    pub(super) fn clear(&mut self) {
        self.pairs.clear();
    }

    pub(super) fn push(&mut self, name: &'a [u8], value: &'a [u8]) {
        self.pairs.push((name, value));
    }

    /// Sorts the pairs and makes labels of them. Empty values count for the checks and are then left out.
    pub(super) fn check(&mut self) -> Result<Labels, Fault<'a>> {
        if !self.pairs.is_sorted_by(|a, b| a.0 < b.0) {
            self.pairs.sort_by(|a, b| a.0.cmp(b.0));
        }
        let mut texts: Vec<(&str, &str)> = Vec::with_capacity(self.pairs.len());
        let mut named = false;
        for (name, value) in &self.pairs {
            let (Ok(name), Ok(value)) = (std::str::from_utf8(name), std::str::from_utf8(value)) else {
                return Err(Fault::Invalid);
            };
            // Longer ones cannot be stored.
            let fits = name.len() <= STRING_LEN_MAX && value.len() <= STRING_LEN_MAX;
            let is_name = name == METRIC_NAME;
            if name.is_empty() || !fits || is_name && value.is_empty() {
                return Err(Fault::Invalid);
            }
            named |= is_name;
            texts.push((name, value));
        }
        if !named {
            return Err(Fault::Invalid);
        }
        let twice = self.pairs.windows(2).find_map(|pairs| match pairs {
            [(a, _), (b, _)] if a == b => Some(*a),
            _ => None,
        });
        match twice {
            Some(name) => Err(Fault::Duplicate(name)),
            None => Ok(Labels::from_sorted(texts.into_iter().filter(|(_, value)| !value.is_empty()))),
        }
    }

    /// Why the series is refused.
    pub(super) fn describe(&self, fault: Fault<'_>) -> String {
        match fault {
            Fault::Invalid => format!("invalid metric name or labels, got {self}"),
            Fault::Duplicate(name) => {
                let name = String::from_utf8_lossy(name);
                format!("invalid labels for series, labels {self}, duplicated label {name}")
            }
        }
    }
}

/// `{a="1", b="2"}`, in the order in which they stand.
impl fmt::Display for Pairs<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (i, (name, value)) in self.pairs.iter().enumerate() {
            if 0 < i {
                f.write_str(", ")?;
            }
            match std::str::from_utf8(name) {
                Ok(name) if is_legacy_label_name(name) => f.write_str(name)?,
                _ => f.write_str(&go::quote_bytes(name))?,
            }
            write!(f, "={}", go::quote_bytes(value))?;
        }
        f.write_str("}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(written: &[(&[u8], &[u8])], expected: &str) {
        let mut pairs = Pairs::default();
        written.iter().for_each(|(name, value)| pairs.push(name, value));
        let got = match pairs.check() {
            Ok(labels) => labels.to_string(),
            Err(fault) => pairs.describe(fault),
        };
        assert_eq!(got, expected);
    }

    #[test]
    fn labels_are_checked_as_prometheus_checks_them() {
        check(&[(b"b", b"2"), (b"__name__", b"m"), (b"c", b"")], r#"{__name__="m", b="2"}"#);
        check(&[(b"__name__", b"m.x"), ("é".as_bytes(), b"2")], "{__name__=\"m.x\", \"é\"=\"2\"}");
        let invalid = |shown: &str| format!("invalid metric name or labels, got {shown}");
        check(&[], &invalid("{}"));
        check(&[(b"a", b"1")], &invalid(r#"{a="1"}"#));
        check(&[(b"__name__", b"")], &invalid(r#"{__name__=""}"#));
        check(&[(b"__name__", b"m"), (b"", b"1")], &invalid(r#"{""="1", __name__="m"}"#));
        check(&[(b"__name__", b"m"), (b"a", b"\xff")], &invalid(r#"{__name__="m", a="\xff"}"#));
        let twice = "invalid labels for series, labels {__name__=\"m\", a=\"1\", a=\"\"}, duplicated label a";
        check(&[(b"a", b"1"), (b"__name__", b"m"), (b"a", b"")], twice);
        let long = vec![b'x'; STRING_LEN_MAX + 1];
        let mut pairs = Pairs::default();
        pairs.push(b"__name__", &long);
        assert_eq!(pairs.check().unwrap_err(), Fault::Invalid);
    }
}
