//! Which format a response is in: its `Content-Type`, else the fallback that the configuration names.
//!
//! Texts are those of Prometheus and of Go's `mime.ParseMediaType`; the conformance cases pin them.
#![deny(clippy::indexing_slicing)]

use crate::model::go;

/// A scrape format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Text formats 0.0.4 and 1.0.0.
    Text,
    /// OpenMetrics 0.0.1 and 1.0.0.
    OpenMetrics,
    /// Length-delimited protobuf.
    Protobuf,
}

impl Format {
    /// Every format.
    pub const ALL: [Self; 3] = [Self::Text, Self::OpenMetrics, Self::Protobuf];

    /// The media type that stands for the format.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain",
            Self::OpenMetrics => "application/openmetrics-text",
            Self::Protobuf => "application/vnd.google.protobuf",
        }
    }
}

/// Why a `Content-Type` does not name a format.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Problem {
    Blank,
    Malformed(&'static str),
    Unsupported,
}

/// A response whose format is not known. Prints Prometheus's text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct UnknownFormat {
    text: String,
}

/// The format of a response, and the remark to log when `fallback` had to be used. `content_type` is empty when the
/// header is missing. Errors when there is no fallback either.
pub fn negotiated(
    content_type: &str,
    fallback: Option<Format>,
) -> Result<(Format, Option<UnknownFormat>), UnknownFormat> {
    let problem = match named(content_type) {
        Ok(format) => return Ok((format, None)),
        Err(problem) => problem,
    };
    match fallback {
        Some(format) => Ok((format, Some(describe(content_type, &problem, fallback)))),
        None => Err(describe(content_type, &problem, None)),
    }
}

fn named(content_type: &str) -> Result<Format, Problem> {
    if content_type.is_empty() {
        return Err(Problem::Blank);
    }
    let media_type = parse_media_type(content_type).map_err(Problem::Malformed)?;
    Format::ALL.into_iter().find(|format| format.media_type() == media_type).ok_or(Problem::Unsupported)
}

fn describe(content_type: &str, problem: &Problem, fallback: Option<Format>) -> UnknownFormat {
    let received = go::quote(content_type);
    let using = fallback.map(|format| format!("using fallback_scrape_protocol {}", go::quote(format.media_type())));
    let none = "and no fallback_scrape_protocol specified for target";
    let text = match (problem, using) {
        (Problem::Blank, None) => format!("non-compliant scrape target sending blank Content-Type {none}"),
        (Problem::Blank, Some(using)) => format!("non-compliant scrape target sending blank Content-Type, {using}"),
        (Problem::Malformed(reason), None) => {
            format!("cannot parse Content-Type {received} and no fallback_scrape_protocol for target\n{reason}")
        }
        (Problem::Malformed(reason), Some(using)) => {
            format!("could not parse received Content-Type {received}, {using}\n{reason}")
        }
        (Problem::Unsupported, None) => format!("received unsupported Content-Type {received} {none}"),
        (Problem::Unsupported, Some(using)) => format!("received unsupported Content-Type {received}, {using}"),
    };
    UnknownFormat { text }
}

/// The media type in lower case, if type and parameters are well formed (RFC 1521, as Go reads it).
fn parse_media_type(text: &str) -> Result<String, &'static str> {
    let base = text.split(';').next().unwrap_or_default();
    let media_type = base.to_lowercase().trim().to_owned();
    check_type(&media_type)?;
    let mut rest = text.get(base.len()..).unwrap_or_default().trim_start();
    let mut seen: Vec<(String, String)> = Vec::new();
    while !rest.is_empty() {
        let Some((name, value, after)) = parameter(rest) else {
            return if rest.trim() == ";" { Ok(media_type) } else { Err("mime: invalid media parameter") };
        };
        if seen.iter().any(|(n, v)| *n == name && *v != value) {
            return Err("mime: duplicate parameter name");
        }
        seen.push((name, value));
        rest = after.trim_start();
    }
    Ok(media_type)
}

fn check_type(media_type: &str) -> Result<(), &'static str> {
    let (main, rest) = token(media_type);
    if main.is_empty() {
        return Err("mime: no media type");
    }
    if rest.is_empty() {
        return Ok(());
    }
    let rest = rest.strip_prefix('/').ok_or("mime: expected slash after first token")?;
    let (sub, rest) = token(rest);
    if sub.is_empty() {
        return Err("mime: expected token after slash");
    }
    if rest.is_empty() { Ok(()) } else { Err("mime: unexpected content after media subtype") }
}

/// `; name=value`, and what follows it.
fn parameter(text: &str) -> Option<(String, String, &str)> {
    let (name, rest) = token(text.trim_start().strip_prefix(';')?.trim_start());
    let rest = rest.trim_start().strip_prefix('=')?.trim_start();
    if name.is_empty() {
        return None;
    }
    let (value, after) = match rest.strip_prefix('"') {
        Some(inner) => quoted_value(inner)?,
        None => {
            let (value, after) = token(rest);
            (value.to_owned(), after)
        }
    };
    if value.is_empty() && after.len() == rest.len() {
        return None;
    }
    Some((name.to_lowercase(), value, after))
}

fn quoted_value(inner: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = inner.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, inner.get(at + 1..)?)),
            '\\' => value.push(chars.next()?.1),
            '\r' | '\n' => return None,
            _ => value.push(c),
        }
    }
    None
}

fn token(text: &str) -> (&str, &str) {
    let is_part = |c: char| c.is_ascii_graphic() && !"()<>@,;:\\\"/[]?=".contains(c);
    let end = text.find(|c| !is_part(c)).unwrap_or(text.len());
    text.split_at(end)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(content_type: &str, expected: Result<Format, &str>) {
        let found = negotiated(content_type, None).map(|(format, _)| format).map_err(|e| e.to_string());
        assert_eq!(found, expected.map_err(str::to_owned));
    }

    #[test]
    fn knows_the_formats() {
        check("text/plain; version=0.0.4; charset=utf-8", Ok(Format::Text));
        check("TEXT/Plain;", Ok(Format::Text));
        check("application/openmetrics-text; version=\"1.0.0\"", Ok(Format::OpenMetrics));
    }

    #[test]
    fn words_problems_as_prometheus() {
        check(
            "",
            Err(
                "non-compliant scrape target sending blank Content-Type and no fallback_scrape_protocol specified for target",
            ),
        );
        check(
            "text/html",
            Err("received unsupported Content-Type \"text/html\" and no fallback_scrape_protocol specified for target"),
        );
        check(
            "text/plain; x",
            Err(
                "cannot parse Content-Type \"text/plain; x\" and no fallback_scrape_protocol for target\nmime: invalid media parameter",
            ),
        );
        let (format, remark) = negotiated("invalid/", Some(Format::Text)).unwrap();
        assert_eq!(format, Format::Text);
        assert_eq!(
            remark.unwrap().to_string(),
            "could not parse received Content-Type \"invalid/\", using fallback_scrape_protocol \"text/plain\"\nmime: expected token after slash"
        );
    }

    proptest! {
        #[test]
        fn never_panics(text: String) {
            let _ = negotiated(&text, None);
        }
    }
}
