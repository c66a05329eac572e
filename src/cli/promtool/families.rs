//! Metric families of the text format, read as Prometheus's client library reads them: samples of a histogram or a summary are
//! one metric, and a family has one type and one help text.

use std::collections::HashMap;

use crate::model::go;
use crate::model::go_number::parse_float;

/// What a family measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Summary,
    Untyped,
    Histogram,
    GaugeHistogram,
}

impl Kind {
    /// Its name in lower case.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Summary => "summary",
            Self::Untyped => "untyped",
            Self::Histogram => "histogram",
            Self::GaugeHistogram => "gauge_histogram",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        match text.to_uppercase().as_str() {
            "COUNTER" => Some(Self::Counter),
            "GAUGE" => Some(Self::Gauge),
            "SUMMARY" => Some(Self::Summary),
            "UNTYPED" => Some(Self::Untyped),
            "HISTOGRAM" => Some(Self::Histogram),
            "GAUGE_HISTOGRAM" | "GAUGEHISTOGRAM" => Some(Self::GaugeHistogram),
            _ => None,
        }
    }

    fn is_histogram(self) -> bool {
        matches!(self, Self::Histogram | Self::GaugeHistogram)
    }
}

/// All samples of a name.
#[derive(Debug, Default)]
pub(super) struct Family {
    pub(super) name: String,
    kind: Option<Kind>,
    pub(super) help: Option<String>,
    pub(super) metrics: Vec<Metric>,
}

impl Family {
    pub(super) fn kind(&self) -> Kind {
        self.kind.unwrap_or(Kind::Untyped)
    }
}

/// A sample, or all samples of one histogram or summary.
#[derive(Debug, Default)]
pub(super) struct Metric {
    /// Labels in the order of the text, without `le` and `quantile` of their kinds.
    pub(super) labels: Vec<(String, String)>,
    pub(super) at_ms: Option<i64>,
    /// The value, unless it is one of those made of parts.
    pub(super) value: f64,
    pub(super) count: f64,
    pub(super) sum: f64,
    /// Buckets by upper bound, or quantiles, with their values.
    pub(super) parts: Vec<(f64, f64)>,
}

/// Which sample of a family a name stands for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Itself,
    Count,
    Sum,
}

/// Reads a text; families are sorted by name, without those that have no sample. The error is the client library's.
pub(super) fn read(text: &[u8]) -> Result<Vec<Family>, String> {
    let mut reader =
        Reader { text, at: 0, line: 0, families: Vec::new(), known: HashMap::new(), merged: HashMap::new() };
    let read = loop {
        match reader.line() {
            Ok(true) => {}
            Ok(false) => break Ok(()),
            Err(reason) => break Err(reason),
        }
    };
    read.map_err(|reason| format!("text format parsing error in line {}: {reason}", reader.line))?;
    let mut families = reader.families;
    families.retain(|family| !family.metrics.is_empty());
    families.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(families)
}

struct Reader<'a> {
    text: &'a [u8],
    at: usize,
    line: usize,
    families: Vec<Family>,
    known: HashMap<String, usize>,
    /// Histograms and summaries by family and labels.
    merged: HashMap<(usize, Vec<(String, String)>), usize>,
}

const ENDS: &str = "unexpected end of input stream";

impl Reader<'_> {
    fn peek(&self) -> Result<u8, String> {
        self.text.get(self.at).copied().ok_or_else(|| ENDS.to_owned())
    }

    fn skip_blanks(&mut self) {
        while matches!(self.text.get(self.at), Some(b' ' | b'\t')) {
            self.at += 1;
        }
    }

    /// The bytes up to one that fulfils `ends`, which must come.
    fn until(&mut self, ends: impl Fn(u8) -> bool) -> Result<String, String> {
        let rest = self.text.get(self.at..).unwrap_or_default();
        let len = rest.iter().position(|byte| ends(*byte)).ok_or(ENDS)?;
        self.at += len;
        Ok(String::from_utf8_lossy(rest.get(..len).unwrap_or_default()).into_owned())
    }

    fn word(&mut self) -> Result<String, String> {
        self.until(|byte| matches!(byte, b' ' | b'\t' | b'\n'))
    }

    /// Passes over the line end; the rest of the line as text.
    fn rest(&mut self) -> Result<String, String> {
        let rest = self.until(|byte| byte == b'\n')?;
        self.at += 1;
        Ok(rest)
    }

    /// A line; false at the end.
    fn line(&mut self) -> Result<bool, String> {
        self.line += 1;
        self.skip_blanks();
        match self.text.get(self.at) {
            None => return Ok(false),
            Some(b'\n') => self.at += 1,
            Some(b'#') => self.comment()?,
            Some(_) => self.sample()?,
        }
        Ok(true)
    }

    fn comment(&mut self) -> Result<(), String> {
        self.at += 1;
        self.skip_blanks();
        let keyword = self.word()?;
        self.skip_blanks();
        if !matches!(keyword.as_str(), "HELP" | "TYPE") {
            return self.rest().map(drop);
        }
        if self.peek()? == b'\n' {
            return self.rest().map(drop);
        }
        let name = self.name(NameOf::Metric)?;
        match self.peek()? {
            b'\n' => return self.rest().map(drop),
            b' ' | b'\t' => {}
            _ => return Err("invalid metric name in comment".to_owned()),
        }
        let (family, _) = self.family(&name)?;
        self.skip_blanks();
        let text = self.rest()?;
        if text.is_empty() {
            return Ok(());
        }
        let Some(family) = self.families.get_mut(family) else { return Ok(()) };
        if keyword == "HELP" {
            if family.help.is_some() {
                return Err(format!("second HELP line for metric name {}", go::quote(&family.name)));
            }
            family.help = Some(unescaped(&text)?);
        } else {
            if family.kind.is_some() {
                let name = go::quote(&family.name);
                return Err(format!("second TYPE line for metric name {name}, or TYPE reported after samples"));
            }
            let kind = Kind::parse(&text).ok_or_else(|| format!("unknown metric type {}", go::quote(&text)))?;
            family.kind = Some(kind);
        }
        Ok(())
    }

    /// A name, quoted or not; empty if there is none.
    fn name(&mut self, of: NameOf) -> Result<String, String> {
        if self.peek()? == b'"' {
            return self.quoted();
        }
        let rest = self.text.get(self.at..).unwrap_or_default();
        let fits = |(at, byte): (usize, &u8)| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'_' => true,
            b':' => of == NameOf::Metric,
            b'0'..=b'9' => 0 < at,
            _ => false,
        };
        let len = rest.iter().enumerate().take_while(|next| fits(*next)).count();
        self.at += len;
        self.peek()?;
        Ok(String::from_utf8_lossy(rest.get(..len).unwrap_or_default()).into_owned())
    }

    /// A text in quotes, the first of which stands here.
    fn quoted(&mut self) -> Result<String, String> {
        self.at += 1;
        let mut out = Vec::new();
        loop {
            let byte = self.peek()?;
            self.at += 1;
            match byte {
                b'"' => break,
                b'\n' => {
                    let text = go::quote(&String::from_utf8_lossy(&out));
                    return Err(format!("label value {text} contains unescaped new-line"));
                }
                b'\\' => {
                    let escaped = self.peek()?;
                    self.at += 1;
                    match escaped {
                        b'n' => out.push(b'\n'),
                        b'\\' | b'"' => out.push(escaped),
                        other => return Err(format!("invalid escape sequence '\\{}'", char::from(other))),
                    }
                }
                byte => out.push(byte),
            }
        }
        self.peek()?;
        String::from_utf8(out)
            .map_err(|error| format!("invalid label value {}", go::quote(&String::from_utf8_lossy(error.as_bytes()))))
    }

    /// The family that samples of a name belong to, and what they are there.
    fn family(&mut self, name: &str) -> Result<(usize, Part), String> {
        if name.is_empty() {
            return Err("invalid metric name".to_owned());
        }
        if let Some(known) = self.known.get(name) {
            return Ok((*known, Part::Itself));
        }
        let count = name.strip_suffix("_count").map(|base| (base, Part::Count));
        let sum = name.strip_suffix("_sum").map(|base| (base, Part::Sum));
        let bucket = name.strip_suffix("_bucket").map(|base| (base, Part::Itself));
        for (base, part) in [count, sum, bucket].into_iter().flatten() {
            let Some(known) = self.known.get(base) else { continue };
            let kind = self.families.get(*known).map(Family::kind);
            let is_bucket = name.ends_with("_bucket");
            if kind.is_some_and(Kind::is_histogram) || (kind == Some(Kind::Summary) && !is_bucket) {
                return Ok((*known, part));
            }
        }
        let next = self.families.len();
        self.families.push(Family { name: name.to_owned(), ..Family::default() });
        self.known.insert(name.to_owned(), next);
        Ok((next, Part::Itself))
    }

    fn sample(&mut self) -> Result<(), String> {
        let mut found = None;
        if self.peek()? != b'{' {
            let name = self.name(NameOf::Metric)?;
            found = Some(self.family(&name)?);
            self.skip_blanks();
        }
        let mut labels: Vec<(String, String)> = Vec::new();
        let mut part_at = None;
        if self.peek()? == b'{' {
            self.at += 1;
            let in_braces = found.is_none();
            self.labels(&mut found, in_braces, &mut labels, &mut part_at)?;
            self.skip_blanks();
        }
        let Some((index, part)) = found else { return Err("invalid metric name".to_owned()) };
        let word = self.word()?;
        let value = float(&word).ok_or_else(|| format!("expected float as value, got {}", go::quote(&word)))?;
        let mut at_ms = None;
        if self.peek()? != b'\n' {
            self.skip_blanks();
            let word = self.word()?;
            let wrong = || format!("expected integer as timestamp, got {}", go::quote(&word));
            at_ms = Some(word.parse().map_err(|_| wrong())?);
            self.skip_blanks();
        }
        match self.rest()? {
            rest if rest.is_empty() => {}
            rest => return Err(format!("spurious string after timestamp: {}", go::quote(&rest))),
        }
        let Some(family) = self.families.get_mut(index) else { return Ok(()) };
        let kind = *family.kind.get_or_insert(Kind::Untyped);
        if !kind.is_histogram() && kind != Kind::Summary {
            family.metrics.push(Metric { labels, at_ms, value, ..Metric::default() });
            return Ok(());
        }
        let mut key = labels.clone();
        key.sort();
        let place = *self.merged.entry((index, key)).or_insert(family.metrics.len());
        if place == family.metrics.len() {
            family.metrics.push(Metric { labels, ..Metric::default() });
        }
        let Some(metric) = family.metrics.get_mut(place) else { return Ok(()) };
        metric.at_ms = at_ms.or(metric.at_ms);
        match (part, part_at) {
            (Part::Count, _) if value < 0.0 && kind.is_histogram() => {
                return Err(format!("negative count for histogram {}", go::quote(&family.name)));
            }
            (Part::Count, _) => metric.count = value,
            (Part::Sum, _) => metric.sum = value,
            (Part::Itself, Some(_)) if value < 0.0 && kind.is_histogram() => {
                return Err(format!("negative bucket population for histogram {}", go::quote(&family.name)));
            }
            (Part::Itself, Some(at)) => metric.parts.push((at, value)),
            (Part::Itself, None) => {}
        }
        Ok(())
    }

    /// Labels up to the closing brace. A name alone is the metric's, if that stands in the braces.
    fn labels(
        &mut self,
        found: &mut Option<(usize, Part)>,
        in_braces: bool,
        labels: &mut Vec<(String, String)>,
        part_at: &mut Option<f64>,
    ) -> Result<(), String> {
        loop {
            self.skip_blanks();
            if self.peek()? == b'}' {
                self.at += 1;
                return Ok(());
            }
            let name = self.name(NameOf::Label)?;
            let family = found.and_then(|(index, _)| self.families.get(index));
            let shown = go::quote(family.map_or("", |family| family.name.as_str()));
            let kind = family.map_or(Kind::Untyped, Family::kind);
            if name.is_empty() {
                return Err(format!("invalid label name for metric {shown}"));
            }
            self.skip_blanks();
            let next = self.peek()?;
            if next != b'=' {
                if !in_braces {
                    return Err(format!("expected '=' after label name, found '{}'", char::from(next)));
                }
                if found.is_some() {
                    return Err(format!("multiple metric names for metric {shown}"));
                }
                *found = Some(self.family(&name)?);
                match next {
                    b',' => self.at += 1,
                    b'}' => {}
                    _ => return Err(format!("unexpected end of metric name '{}'", char::from(next))),
                }
                continue;
            }
            self.at += 1;
            if name == "__name__" {
                return Err("label name \"__name__\" is reserved".to_owned());
            }
            let is_part = (kind == Kind::Summary && name == "quantile") || (kind.is_histogram() && name == "le");
            if !is_part && labels.iter().any(|(known, _)| *known == name) {
                return Err(format!("duplicate label names for metric {shown}"));
            }
            self.skip_blanks();
            let quote = self.peek()?;
            if quote != b'"' {
                return Err(format!("expected '\"' at start of label value, found '{}'", char::from(quote)));
            }
            let value = self.quoted()?;
            if is_part {
                let wrong = || format!("expected float as value for '{name}' label, got {}", go::quote(&value));
                *part_at = Some(float(&value).ok_or_else(wrong)?).filter(|at| !at.is_nan());
            } else {
                labels.push((name, value.clone()));
            }
            self.skip_blanks();
            match self.peek()? {
                b',' => self.at += 1,
                b'}' => {}
                _ => return Err(format!("unexpected end of label value {}", go::quote(&value))),
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum NameOf {
    Metric,
    Label,
}

fn float(text: &str) -> Option<f64> {
    // The format takes neither hexadecimal floats nor underscores.
    parse_float(text).ok().filter(|_| !text.contains(['p', 'P', '_']))
}

fn unescaped(text: &str) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some('n') => out.push('\n'),
                Some(c @ ('\\' | '"')) => out.push(c),
                Some(other) => return Err(format!("invalid escape sequence '\\{other}'")),
                None => {}
            },
            c => out.push(c),
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn parts_of_histograms_and_summaries_are_one_metric() {
        let text =
            b"# HELP h A\\nB\n# TYPE h histogram\nh_bucket{a=\"1\",le=\"1\"} 2 5\nh_bucket{le=\"+Inf\",a=\"1\"} 3\n\
                     h_sum{a=\"1\"} 4.5\nh_count{a=\"1\"} 3\n# TYPE s summary\ns{quantile=\"0.5\"} 7\ns_count 1\n\
                     other_count 9\n{\"a b\",\"c d\"=\"e\"} 1\n";
        let families = read(text).unwrap();
        let names: Vec<(&str, usize)> = families.iter().map(|f| (f.name.as_str(), f.metrics.len())).collect();
        assert_eq!(names, [("a b", 1), ("h", 1), ("other_count", 1), ("s", 1)]);
        let h = &families[1];
        assert_eq!((h.help.as_deref(), h.metrics[0].at_ms), (Some("A\nB"), Some(5)));
        assert_eq!(h.metrics[0].parts, [(1.0, 2.0), (f64::INFINITY, 3.0)]);
        assert_eq!((h.metrics[0].sum, h.metrics[0].count), (4.5, 3.0));
        assert_eq!(families[3].metrics[0].parts, [(0.5, 7.0)]);
    }

    /// Compared with Prometheus's own tool.
    #[test]
    fn errors_name_the_line() {
        for (text, reason) in [
            ("a 1\nb{ 2\n", "line 2: invalid label name for metric \"b\""),
            ("a 1", "line 1: unexpected end of input stream"),
            ("# TYPE a foo\na 1\n", "line 1: unknown metric type \"foo\""),
            ("a x\n", "line 1: expected float as value, got \"x\""),
            (
                "a 1\na 1\n# TYPE a counter\n",
                "line 3: second TYPE line for metric name \"a\", or TYPE reported after samples",
            ),
            ("a{x=\"1\",x=\"2\"} 1\n", "line 1: duplicate label names for metric \"a\""),
            ("# HELP a x\n# HELP a y\na 1\n", "line 2: second HELP line for metric name \"a\""),
            ("a 1 x\n", "line 1: expected integer as timestamp, got \"x\""),
            ("1a 1\n", "line 1: invalid metric name"),
            ("# TYPE h histogram\nh_bucket{le=\"x\"} 1\n", "line 2: expected float as value for 'le' label, got \"x\""),
        ] {
            assert_eq!(read(text.as_bytes()).unwrap_err(), format!("text format parsing error in {reason}"), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_fine(text: Vec<u8>) {
            let _ = read(&text);
        }
        #[test]
        fn any_lines_are_fine(text in "(# (TYPE|HELP) |h|_count|_bucket|\\{|\\}|le=|\"|,| |1|\n|summary|\\\\){0,40}") {
            let _ = read(text.as_bytes());
        }
    }
}
