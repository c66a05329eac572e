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
        let mut room = LabelsRoom::default();
        for (name, value) in pairs {
            room.push(name, value);
        }
        room.take()
    }

    /// Value of the label `name`, or `None` if it is not in the set.
    pub fn get(&self, name: &str) -> Option<&str> {
        // The buffer is only ever filled from `&str`, so this check cannot fail.
        std::str::from_utf8(self.find(name)?).ok()
    }

    fn find(&self, name: &str) -> Option<&[u8]> {
        let mut pairs = self.iter();
        while let Some((n, v)) = pairs.next_raw() {
            // Lengths mostly differ; an order would have to look at the texts.
            if n.len() == name.len() && n == name.as_bytes() {
                return Some(v);
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
        self.find(name).is_some()
    }

    /// The set as it is encoded; equal for equal sets only.
    pub fn as_bytes(&self) -> &[u8] {
        &self.data
    }

    /// The pairs in order of their names, as bytes and with the bytes that encode each.
    pub fn iter_raw(&self) -> impl Iterator<Item = RawPair<'_>> {
        let mut pairs = self.iter();
        std::iter::from_fn(move || {
            let before = pairs.rest;
            let (name, value) = pairs.next_raw()?;
            Some(RawPair { name, value, encoded: before.get(..before.len() - pairs.rest.len())? })
        })
    }

    /// The pairs in order of their names.
    pub fn iter(&self) -> LabelsIter<'_> {
        LabelsIter { rest: &self.data }
    }

    /// Number of bytes that the encodings of two sets begin with in common.
    pub fn common_len(&self, other: &Self) -> usize {
        common_len(&self.data, &other.data)
    }

    /// Number of labels.
    pub fn len(&self) -> usize {
        self.iter_raw().count()
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
        self.filtered(|name| !names.iter().any(|n| n.as_bytes() == name))
    }

    /// The set with only the labels in `names`.
    pub fn keep_only(&self, names: &[&str]) -> Self {
        self.filtered(|name| names.iter().any(|n| n.as_bytes() == name))
    }

    /// The set with only the labels whose name fulfils `keep`.
    pub fn filtered(&self, mut keep: impl FnMut(&[u8]) -> bool) -> Self {
        let mut room = LabelsRoom::default();
        self.iter_raw().filter(|pair| keep(pair.name)).for_each(|pair| room.push_encoded(pair.encoded));
        room.take()
    }

    /// A builder that starts from this set.
    pub fn to_builder(&self) -> LabelsBuilder {
        LabelsBuilder { pairs: self.iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect() }
    }
}

/// A pair of a label set as bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawPair<'a> {
    /// The name.
    pub name: &'a [u8],
    /// The value.
    pub value: &'a [u8],
    /// Both as they are encoded.
    pub encoded: &'a [u8],
}

/// Room in which one label set after the other is put together; the finished set is allocated once, at its size.
#[derive(Debug, Default)]
pub struct LabelsRoom {
    data: SmallBytes,
}

impl LabelsRoom {
    /// Appends a pair. Names ascend, values are not empty.
    pub fn push(&mut self, name: &str, value: &str) {
        if !self.data.push_short(name.as_bytes(), value.as_bytes()) {
            push_str(&mut self.data, name);
            push_str(&mut self.data, value);
        }
    }

    /// As [`Self::push`] of texts that were found to be UTF-8 before; what is not is left out.
    #[inline]
    pub fn push_utf8(&mut self, name: &[u8], value: &[u8]) {
        debug_assert!(std::str::from_utf8(name).is_ok() && std::str::from_utf8(value).is_ok(), "texts must be UTF-8");
        if !self.data.push_short(name, value)
            && let (Ok(name), Ok(value)) = (std::str::from_utf8(name), std::str::from_utf8(value))
        {
            self.push(name, value);
        }
    }

    /// Appends a pair as another set encodes it, or several.
    pub fn push_encoded(&mut self, encoded: &[u8]) {
        self.data.extend(encoded);
    }

    /// Drops what stands in the room.
    pub fn clear(&mut self) {
        self.data.clear();
    }

    /// The finished set; the room is empty afterwards.
    pub fn take(&mut self) -> Labels {
        let labels = Labels { data: self.data.as_slice().into() };
        debug_assert!(
            labels.iter().zip(labels.iter().skip(1)).all(|((a, _), (b, _))| a < b),
            "labels must be sorted: {labels:?}"
        );
        self.data.clear();
        labels
    }
}

/// Bytes that stand on the stack while they are few.
#[derive(Debug)]
struct SmallBytes {
    few: [u8; FEW_BYTES],
    len: usize,
    /// All bytes, once they are more than few.
    many: Vec<u8>,
}

/// Most label sets are shorter.
const FEW_BYTES: usize = 256;

impl Default for SmallBytes {
    fn default() -> Self {
        Self { few: [0; FEW_BYTES], len: 0, many: Vec::new() }
    }
}

impl SmallBytes {
    fn extend(&mut self, bytes: &[u8]) {
        if self.many.is_empty() {
            if let Some(room) = self.few.get_mut(self.len..self.len + bytes.len()) {
                room.copy_from_slice(bytes);
                self.len += bytes.len();
                return;
            }
            self.many.extend_from_slice(&self.few[..self.len]);
        }
        self.many.extend_from_slice(bytes);
    }

    /// Appends a pair of two short texts, encoded, if they have room among the few bytes; false if nothing was done.
    #[inline]
    fn push_short(&mut self, name: &[u8], value: &[u8]) -> bool {
        let is_long = |text: &[u8]| 0xFF <= text.len();
        if is_long(name) || is_long(value) || !self.many.is_empty() {
            return false;
        }
        let end = self.len + 2 + name.len() + value.len();
        let Some(room) = self.few.get_mut(self.len..end) else { return false };
        let (name_room, value_room) = room.split_at_mut(1 + name.len());
        for (room, text) in [(name_room, name), (value_room, value)] {
            if let Some((head, rest)) = room.split_first_mut() {
                *head = text.len() as u8;
                rest.copy_from_slice(text);
            }
        }
        self.len = end;
        true
    }

    fn as_slice(&self) -> &[u8] {
        if self.many.is_empty() { &self.few[..self.len] } else { &self.many }
    }

    fn clear(&mut self) {
        self.len = 0;
        self.many.clear();
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
        let (left, right) = (&self.data, &other.data);
        let differs_at = common_len(left, right);
        if differs_at == left.len().min(right.len()) {
            return left.len().cmp(&right.len());
        }
        // The first text that reaches beyond the bytes in common decides; both have it at the same place. Strings are
        // ordered as their bytes are.
        let (mut a, mut b) = (self.iter(), other.iter());
        loop {
            let (text, other_text) = (a.take_raw(), b.take_raw());
            if differs_at < left.len() - a.rest.len() || text.is_none() || other_text.is_none() {
                return text.cmp(&other_text);
            }
        }
    }
}

/// Number of bytes that two texts begin with in common.
fn common_len(left: &[u8], right: &[u8]) -> usize {
    let (mut a, mut b) = (left, right);
    while let (Some((x, rest_a)), Some((y, rest_b))) = (a.split_first_chunk::<8>(), b.split_first_chunk::<8>()) {
        if x != y {
            break;
        }
        (a, b) = (rest_a, rest_b);
    }
    left.len() - a.len() + a.iter().zip(b).take_while(|(x, y)| x == y).count()
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

fn push_str(data: &mut SmallBytes, text: &str) {
    let mut end = text.len().min(STRING_LEN_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let raw = &text.as_bytes()[..end];
    if raw.len() < 0xFF {
        data.extend(&[raw.len() as u8]);
    } else {
        let [a, b, c, _] = (raw.len() as u32).to_le_bytes();
        data.extend(&[0xFF, a, b, c]);
    }
    data.extend(raw);
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
    use proptest::prelude::*;

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

    proptest! {
        #[test]
        fn the_order_is_that_of_the_pairs(
            a in proptest::collection::vec(("[ab]{1,2}|x{250,260}", "[ab]{1,9}|x{254,257}"), 0..4),
            b in proptest::collection::vec(("[ab]{1,2}|x{250,260}", "[ab]{1,9}|x{254,257}"), 0..4),
        ) {
            let (a, b) = (Labels::from_pairs(a), Labels::from_pairs(b));
            prop_assert_eq!(a.cmp(&b), a.iter().cmp(b.iter()));
            let raw: Vec<_> = a.iter_raw().map(|pair| (pair.name, pair.value)).collect();
            let pairs: Vec<_> = a.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect();
            prop_assert_eq!(raw, pairs);
            let encoded: Vec<u8> = a.iter_raw().flat_map(|pair| pair.encoded.to_vec()).collect();
            prop_assert_eq!(encoded, a.as_bytes());
            prop_assert_eq!(a.without(&["a", "bb"]).len() + a.keep_only(&["a", "bb"]).len(), a.len());
        }
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
