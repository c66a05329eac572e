//! Series as nearly all lines have them: `name{label="value",…}` with names that need no quotes, and neither blanks nor
//! escapes. The formats made of lines agree on these, so they are read in one pass, without tokens and without allocating.
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

use std::cmp::Ordering;

/// Most labels of a plain series.
const LABELS_MAX: usize = 32;

/// May stand in a metric name.
const METRIC: u8 = 1;
/// May stand in a label name.
const LABEL: u8 = 2;
/// May stand in a plain value.
const VALUE: u8 = 4;
/// May stand there, and is ASCII.
const ASCII: u8 = 8;

/// What each byte may stand in.
const CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    let mut rest: &mut [u8] = &mut classes;
    let mut byte = 0_u8;
    while let Some((class, after)) = rest.split_first_mut() {
        *class = match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' => METRIC | LABEL | VALUE | ASCII,
            b':' => METRIC | VALUE | ASCII,
            b'"' | b'\\' | b'\n' | 0 => 0,
            128.. => VALUE,
            _ => VALUE | ASCII,
        };
        byte = byte.wrapping_add(1);
        rest = after;
    }
    classes
};

/// Where a label stands in the text; its value begins behind `="`.
#[derive(Clone, Copy, Debug, Default)]
struct Span {
    name: u16,
    name_end: u16,
    value_end: u16,
}

const EQUAL_LEN: usize = "=\"".len();

/// A plain series and where its parts stand. All of it is UTF-8.
#[derive(Clone, Debug)]
pub struct PlainSeries<'a> {
    raw: &'a [u8],
    name_len: usize,
    count: usize,
    labels: [Span; LABELS_MAX],
}

impl<'a> PlainSeries<'a> {
    /// Reads the plain series that `line` begins with. Whether it is a whole one shows in what follows: a blank and a value.
    /// `None` for anything unusual, which the parsers read or refuse.
    pub fn scan(line: &'a [u8]) -> Option<Self> {
        let metric_len = name_len(line, METRIC)?;
        let (mut count, mut labels) = (0, [Span::default(); LABELS_MAX]);
        let mut at = metric_len;
        if line.get(at) == Some(&b'{') {
            at += 1;
            while *line.get(at)? != b'}' {
                let rest = line.get(at..)?;
                let label_len = name_len(rest, LABEL)?;
                let value = rest.get(label_len..)?.strip_prefix(b"=\"")?;
                let mut value_len = run_len(value, ASCII);
                if value.get(value_len).is_some_and(|b| !b.is_ascii()) {
                    value_len = run_len(value, VALUE);
                    std::str::from_utf8(value.get(..value_len)?).ok()?;
                }
                let (name_end, value_end) = (at + label_len, at + label_len + EQUAL_LEN + value_len);
                let offset = |place: usize| u16::try_from(place).ok();
                *labels.get_mut(count)? =
                    Span { name: offset(at)?, name_end: offset(name_end)?, value_end: offset(value_end)? };
                count += 1;
                at = match value.get(value_len..)? {
                    [b'"', b'}', ..] => value_end + 1,
                    [b'"', b',', ..] => value_end + 2,
                    _ => return None,
                };
            }
            at += 1;
        }
        Some(Self { raw: line.get(..at)?, name_len: metric_len, count, labels })
    }

    /// The series as it is written.
    pub fn raw(&self) -> &'a [u8] {
        self.raw
    }

    /// The metric name.
    pub fn metric(&self) -> &'a [u8] {
        self.raw.get(..self.name_len).unwrap_or_default()
    }

    /// The labels as they are written, or in the order of their names after [`Self::sort`].
    pub fn labels(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        let spans = self.labels.get(..self.count).unwrap_or_default();
        spans.iter().map(|span| (self.name(span), self.value(span)))
    }

    /// Sorts the labels by name; false if a name stands there twice.
    pub fn sort(&mut self) -> bool {
        for end in 1..self.count {
            // Most lines are sorted, or all but their last label.
            let mut at = end;
            while let Some([before, here]) = self.labels.get(at.wrapping_sub(1)..=at) {
                match order_of_names(self.name(before), self.name(here)) {
                    Ordering::Less => break,
                    Ordering::Equal => return false,
                    Ordering::Greater => self.labels.swap(at - 1, at),
                }
                at -= 1;
            }
        }
        true
    }

    fn name(&self, span: &Span) -> &'a [u8] {
        self.raw.get(usize::from(span.name)..usize::from(span.name_end)).unwrap_or_default()
    }

    fn value(&self, span: &Span) -> &'a [u8] {
        self.raw.get(usize::from(span.name_end) + EQUAL_LEN..usize::from(span.value_end)).unwrap_or_default()
    }
}

/// The order of two names; most differ in their first byte.
#[inline]
pub fn order_of_names(a: &[u8], b: &[u8]) -> Ordering {
    match a.first().cmp(&b.first()) {
        Ordering::Equal => a.cmp(b),
        differ => differ,
    }
}

/// True for a label name that needs no quotes.
pub fn is_plain_name(name: &[u8]) -> bool {
    name_len(name, LABEL) == Some(name.len())
}

/// Length of the name that `text` begins with; `None` if there is none.
#[inline]
fn name_len(text: &[u8], class: u8) -> Option<usize> {
    let starts = text.first().is_some_and(|b| !b.is_ascii_digit());
    Some(run_len(text, class)).filter(|len| starts && 0 < *len)
}

#[inline]
fn run_len(text: &[u8], class: u8) -> usize {
    let is_in = |b: &u8| CLASSES.get(usize::from(*b)).is_some_and(|classes| classes & class != 0);
    text.iter().position(|b| !is_in(b)).unwrap_or(text.len())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::exposition::content_type::Format;
    use crate::exposition::line::LineParser;
    use crate::exposition::text::{Entry, FamilyKind, SeriesLine, Step, TextParser};

    #[track_caller]
    fn check(line: &str, expected: &[(&str, &str)]) {
        let mut series = PlainSeries::scan(line.as_bytes()).unwrap();
        assert!(series.sort(), "{line}");
        let pairs = std::iter::once((&b""[..], series.metric())).chain(series.labels());
        let text = |raw| std::str::from_utf8(raw).unwrap();
        let found: Vec<_> = pairs.map(|(name, value)| (text(name), text(value))).collect();
        assert_eq!(found, expected, "{line}");
    }

    #[test]
    fn reads_plain_series() {
        check("a 1", &[("", "a")]);
        check(":a:b{} 1", &[("", ":a:b")]);
        check("a{b=\"c\"} 1", &[("", "a"), ("b", "c")]);
        check("a{d=\"é{},=\",b=\"\",} 1", &[("", "a"), ("b", ""), ("d", "é{},=")]);
        check("a{d=\"1\",c=\"2\",b=\"3\",a=\"4\"}", &[("", "a"), ("a", "4"), ("b", "3"), ("c", "2"), ("d", "1")]);
    }

    #[test]
    fn leaves_the_rest_to_the_parsers() {
        let unusual = [
            "",
            " a 1",
            "1a 1",
            "# a",
            "{\"a\"} 1",
            "a{\"b\"=\"c\"} 1",
            "a{ b=\"c\"} 1",
            "a{b=\"c\" } 1",
            "a{b =\"c\"} 1",
            "a{1=\"c\"} 1",
            "a{b:=\"c\"} 1",
            "a{b=\"\\\\\"} 1",
            "a{b=\"\n\"} 1",
            "a{b=\"\0\"} 1",
            "a{,} 1",
            "a{b=\"c\",,} 1",
            "a{b=\"c\"d=\"e\"} 1",
            "a{b=\"c",
            "a{b=\"c\"",
            "a{b",
            "a{",
            "a{b=c} 1",
        ];
        for line in unusual {
            assert!(PlainSeries::scan(line.as_bytes()).is_none(), "{line}");
        }
        assert!(PlainSeries::scan(b"a{b=\"\xff\"} 1").is_none());
        let of_labels = |count| (0..count).map(|at| format!("l{at}=\"x\",")).collect::<String>();
        let has = |count| PlainSeries::scan(format!("a{{{}}} 1", of_labels(count)).as_bytes()).is_some();
        assert!(has(LABELS_MAX) && !has(LABELS_MAX + 1));
        let mut twice = PlainSeries::scan(b"a{b=\"1\",c=\"1\",b=\"1\"}").unwrap();
        assert!(!twice.sort());
    }

    proptest! {
        #[test]
        fn agrees_with_the_parsers(
            head in "[a:1é]{0,2}(\\{([ab1]{0,2}=?\"[a}é\\\\\"\n\\x00]{0,2}\",?){0,4}\\}?)?",
            tail in " ?(1|1 2|x| 1|1 # \\{\\} 1)",
        ) {
            let line = format!("{head}{tail}\n");
            for format in [Format::Text, Format::OpenMetrics] {
                let mut parser = LineParser::new(format);
                let scanned = PlainSeries::scan(line.as_bytes())
                    .and_then(|series| Some((parser.scan_sample(&line.as_bytes()[series.raw().len()..])?, series)));
                let Some((rest, series)) = scanned else { continue };
                let raw = series.raw();
                let (value, timestamp_ms, exemplar) = (rest.value, rest.timestamp_ms, rest.exemplar);
                let entry = Entry::Series(SeriesLine { raw, value, timestamp_ms, exemplar, start_ms: None });
                let next = raw.len() + rest.len;
                prop_assert_eq!(parser.next_entry(line.as_bytes(), 0, true), Ok(Step::Entry { entry, next }));
                let mut pairs = Vec::new();
                prop_assert!(TextParser::new().series_labels(raw, FamilyKind::Unknown, &mut pairs));
                let found: Vec<_> = std::iter::once((&b"__name__"[..], series.metric())).chain(series.labels()).collect();
                let expected: Vec<_> = pairs.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect();
                prop_assert_eq!(found, expected);
            }
        }

        #[test]
        fn never_panics(raw: Vec<u8>) {
            let _ = PlainSeries::scan(&raw).map(|mut series| series.sort());
        }
    }
}
