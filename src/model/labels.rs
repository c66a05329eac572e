//! Label sets: sorted by name, names unique, values not empty.
//!
//! A set is one shared buffer in the encoding that Prometheus hashes: for each pair, name then value, each preceded by
//! its length (one byte below 255, else `0xFF` and three bytes, least significant first). So [`Labels::hash64`] is the
//! hash of the buffer, equal to Prometheus's `Labels.Hash()`, and a clone costs one reference count.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use crate::model::go;

/// Label that holds the metric name.
pub const METRIC_NAME: &str = "__name__";
/// Label that holds the scrape job.
pub const JOB: &str = "job";
/// Label that holds the scraped instance.
pub const INSTANCE: &str = "instance";
/// Label of a classic histogram's bucket bound.
pub const BUCKET: &str = "le";
/// Longest name or value that the encoding can hold, in bytes.
pub const STRING_LEN_MAX: usize = (1 << 24) - 1;

/// An immutable label set. Equality, order and hash are those of the sequence of (name, value) pairs.
#[derive(Clone)]
pub struct Labels {
    data: Arc<[u8]>,
}

impl Labels {
    /// The empty set.
    pub fn empty() -> Self {
        Self { data: Arc::from(&[][..]) }
    }

    /// Builds a set from pairs in any order. Empty values are left out; of equal names the last pair counts.
    /// Names and values are cut at [`STRING_LEN_MAX`] bytes (callers limit them long before).
    pub fn from_pairs<N: AsRef<str>, V: AsRef<str>>(pairs: impl IntoIterator<Item = (N, V)>) -> Self {
        let mut builder = LabelsBuilder::new();
        for (name, value) in pairs {
            builder.set(name.as_ref(), value.as_ref());
        }
        builder.build()
    }

    /// Builds a set from pairs that are already sorted by name, unique and without empty values.
    pub fn from_sorted<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut data = Vec::with_capacity(128);
        let mut last: Option<&str> = None;
        for (name, value) in pairs {
            debug_assert!(last.is_none_or(|l| l < name), "labels must be sorted: {last:?} before {name:?}");
            last = Some(name);
            push_str(&mut data, name);
            push_str(&mut data, value);
        }
        Self { data: data.into() }
    }

    /// Value of the label `name`, or `None` if it is not in the set.
    pub fn get(&self, name: &str) -> Option<&str> {
        let mut pairs = self.iter();
        while let Some((n, v)) = pairs.next_raw() {
            match n.cmp(name.as_bytes()) {
                Ordering::Less => {}
                // The buffer is only ever filled from `&str`, so this check cannot fail.
                Ordering::Equal => return std::str::from_utf8(v).ok(),
                Ordering::Greater => return None,
            }
        }
        None
    }

    /// The metric name, or the empty string.
    pub fn metric_name(&self) -> &str {
        self.get(METRIC_NAME).unwrap_or("")
    }

    /// True if the label `name` is in the set.
    pub fn contains(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// The pairs in order of their names.
    pub fn iter(&self) -> LabelsIter<'_> {
        LabelsIter { rest: &self.data }
    }

    /// Number of labels.
    pub fn len(&self) -> usize {
        self.iter().count()
    }

    /// True if there is no label.
    pub fn is_empty(&self) -> bool {
        self.data.is_empty()
    }

    /// Bytes that the encoded set takes; what a memory budget counts.
    pub fn encoded_len(&self) -> usize {
        self.data.len()
    }

    /// xxHash64 of the encoding: equal to Prometheus's `Labels.Hash()`, used for offsets, sharding and `limit_ratio`.
    pub fn hash64(&self) -> u64 {
        twox_hash::XxHash64::oneshot(0, &self.data)
    }

    /// The set without the labels in `names`.
    pub fn without(&self, names: &[&str]) -> Self {
        Self::from_sorted(self.iter().filter(|(n, _)| !names.contains(n)))
    }

    /// The set with only the labels in `names`.
    pub fn keep_only(&self, names: &[&str]) -> Self {
        Self::from_sorted(self.iter().filter(|(n, _)| names.contains(n)))
    }

    /// A builder that starts from this set.
    pub fn to_builder(&self) -> LabelsBuilder {
        LabelsBuilder { pairs: self.iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect() }
    }
}

impl Default for Labels {
    fn default() -> Self {
        Self::empty()
    }
}

impl PartialEq for Labels {
    fn eq(&self, other: &Self) -> bool {
        self.data == other.data
    }
}
impl Eq for Labels {}
impl Hash for Labels {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(&self.data);
    }
}
impl PartialOrd for Labels {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Labels {
    /// Pair by pair, names before values; a prefix comes first (Prometheus `labels.Compare`).
    fn cmp(&self, other: &Self) -> Ordering {
        // Strings are ordered as their bytes are.
        let (mut left, mut right) = (self.iter(), other.iter());
        loop {
            match (left.next_raw(), right.next_raw()) {
                (None, None) => return Ordering::Equal,
                (a, b) => match a.cmp(&b) {
                    Ordering::Equal => {}
                    different => return different,
                },
            }
        }
    }
}

/// Prints `{a="1", b="x\"y"}`, the form of Prometheus's `Labels.String()`.
impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (i, (name, value)) in self.iter().enumerate() {
            if i > 0 {
                f.write_str(", ")?;
            }
            if is_legacy_label_name(name) {
                f.write_str(name)?;
            } else {
                f.write_str(&go::quote(name))?;
            }
            write!(f, "={}", go::quote(value))?;
        }
        f.write_str("}")
    }
}
impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<'a> IntoIterator for &'a Labels {
    type Item = (&'a str, &'a str);
    type IntoIter = LabelsIter<'a>;
    fn into_iter(self) -> LabelsIter<'a> {
        self.iter()
    }
}

/// Iterator over (name, value).
#[derive(Clone)]
pub struct LabelsIter<'a> {
    rest: &'a [u8],
}

impl<'a> LabelsIter<'a> {
    /// The next pair as bytes, without the check that makes strings of them.
    fn next_raw(&mut self) -> Option<(&'a [u8], &'a [u8])> {
        let name = self.take_raw()?;
        let value = self.take_raw()?;
        Some((name, value))
    }

    fn take_raw(&mut self) -> Option<&'a [u8]> {
        let (&first, rest) = self.rest.split_first()?;
        let (len, rest) = if first < 0xFF {
            (usize::from(first), rest)
        } else {
            let (head, rest) = rest.split_at_checked(3)?;
            let &[a, b, c] = head else { return None };
            (usize::from(a) | usize::from(b) << 8 | usize::from(c) << 16, rest)
        };
        let (raw, rest) = rest.split_at_checked(len)?;
        self.rest = rest;
        Some(raw)
    }
}

impl<'a> Iterator for LabelsIter<'a> {
    type Item = (&'a str, &'a str);
    fn next(&mut self) -> Option<Self::Item> {
        let (name, value) = self.next_raw()?;
        // The buffer is only ever filled from `&str`, so these checks cannot fail.
        Some((std::str::from_utf8(name).ok()?, std::str::from_utf8(value).ok()?))
    }
}

fn push_str(data: &mut Vec<u8>, text: &str) {
    let mut end = text.len().min(STRING_LEN_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let raw = &text.as_bytes()[..end];
    if raw.len() < 0xFF {
        data.push(raw.len() as u8);
    } else {
        data.push(0xFF);
        data.extend_from_slice(&(raw.len() as u32).to_le_bytes()[..3]);
    }
    data.extend_from_slice(raw);
}

/// Collects changes to a label set; kept sorted, so that reading back is cheap.
#[derive(Clone, Debug, Default)]
pub struct LabelsBuilder {
    pairs: Vec<(String, String)>,
}

impl LabelsBuilder {
    /// A builder for the empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets `name` to `value`; an empty value removes the label.
    pub fn set(&mut self, name: &str, value: &str) -> &mut Self {
        match self.pairs.binary_search_by(|(n, _)| n.as_str().cmp(name)) {
            Ok(i) if value.is_empty() => drop(self.pairs.remove(i)),
            Ok(i) => value.clone_into(&mut self.pairs[i].1),
            Err(_) if value.is_empty() => {}
            Err(i) => self.pairs.insert(i, (name.to_owned(), value.to_owned())),
        }
        self
    }

    /// Removes `name`.
    pub fn del(&mut self, name: &str) -> &mut Self {
        if let Ok(i) = self.pairs.binary_search_by(|(n, _)| n.as_str().cmp(name)) {
            self.pairs.remove(i);
        }
        self
    }

    /// Value of `name`, or the empty string.
    pub fn get(&self, name: &str) -> &str {
        self.pairs.binary_search_by(|(n, _)| n.as_str().cmp(name)).map_or("", |i| self.pairs[i].1.as_str())
    }

    /// True if `name` is set.
    pub fn contains(&self, name: &str) -> bool {
        self.pairs.binary_search_by(|(n, _)| n.as_str().cmp(name)).is_ok()
    }

    /// Keeps the pairs for which `keep(name, value)` holds.
    pub fn retain(&mut self, mut keep: impl FnMut(&str, &str) -> bool) {
        self.pairs.retain(|(n, v)| keep(n, v));
    }

    /// The pairs in order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.pairs.iter().map(|(n, v)| (n.as_str(), v.as_str()))
    }

    /// The finished set.
    pub fn build(&self) -> Labels {
        Labels::from_sorted(self.iter())
    }
}

/// True for `[a-zA-Z_][a-zA-Z0-9_]*`, the label names that need no quotes.
pub fn is_legacy_label_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// True for `[a-zA-Z_:][a-zA-Z0-9_:]*`, the metric names that need no quotes.
pub fn is_legacy_metric_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_' || b == b':')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b':')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sorts_and_drops_empty_values() {
        let labels = Labels::from_pairs([("b", "2"), ("a", "1"), ("c", ""), ("b", "3")]);
        assert_eq!(labels.to_string(), r#"{a="1", b="3"}"#);
        assert_eq!((labels.get("b"), labels.get("c"), labels.len()), (Some("3"), None, 2));
    }

    #[test]
    fn hash_is_that_of_prometheus() {
        // xxHash64 of nothing with seed 0.
        assert_eq!(Labels::empty().hash64(), 0xef46_db37_51d8_e999);
    }

    #[test]
    fn long_values_survive() {
        let long = "x".repeat(70_000);
        assert_eq!(Labels::from_pairs([("a", &long)]).get("a"), Some(long.as_str()));
    }

    #[test]
    fn orders_like_prometheus() {
        let a = Labels::from_pairs([("a", "1")]);
        let ab = Labels::from_pairs([("a", "1"), ("b", "1")]);
        let b = Labels::from_pairs([("b", "0")]);
        assert!(a < ab && ab < b && Labels::empty() < a);
        // Not the order of the encoding, in which a longer name stands behind a shorter one.
        let (long, short) = (Labels::from_pairs([("aa", "é")]), Labels::from_pairs([("b", "z")]));
        assert!(long < short);
        assert_eq!(long.cmp(&short), long.iter().cmp(short.iter()));
    }
}
