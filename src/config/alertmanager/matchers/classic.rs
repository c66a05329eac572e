//! The classic syntax: `{name="value", …}` with braces, quotes and spaces left to the writer.

use super::AlertMatcher;
use crate::model::matcher::MatchOp;

/// Parses matchers between optional braces, separated by commas outside of quotes.
pub fn parse_list(input: &str) -> Result<Vec<AlertMatcher>, String> {
    let text = input.strip_prefix('{').unwrap_or(input);
    let text = text.strip_suffix('}').unwrap_or(text);
    let (mut quoted, mut escaped) = (false, false);
    let mut parts = Vec::new();
    let mut part = String::new();
    for c in text.chars() {
        match c {
            ',' if !quoted => {
                parts.push(std::mem::take(&mut part));
                continue;
            }
            // A comma within quotes leaves the escape as it is.
            ',' => {}
            '"' if escaped => escaped = false,
            '"' => quoted = !quoted,
            '\\' => escaped = !escaped,
            _ => escaped = false,
        }
        part.push(c);
    }
    let last = part.trim();
    if !last.is_empty() {
        parts.push(last.to_owned());
    }
    parts.iter().map(|part| parse_one(part)).collect()
}

/// Parses one matcher.
pub(super) fn parse_one(input: &str) -> Result<AlertMatcher, String> {
    let (name, op, value) = split(input).ok_or_else(|| format!("bad matcher format: {input}"))?;
    AlertMatcher::new(op, name, &unescape(value)?)
}

fn is_space(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\x0c' | '\r' | ' ')
}

/// Name, operator, and the value as written.
fn split(input: &str) -> Option<(&str, MatchOp, &str)> {
    let text = input.trim_start_matches(is_space);
    let len = text.bytes().take_while(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b':')).count();
    let (name, rest) = text.split_at_checked(len)?;
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let rest = rest.trim_start_matches(is_space);
    let ops = [("=~", MatchOp::Regex), ("=", MatchOp::Equal), ("!=", MatchOp::NotEqual), ("!~", MatchOp::NotRegex)];
    let (value, op) = ops.iter().find_map(|(text, op)| rest.strip_prefix(text).map(|value| (value, *op)))?;
    Some((name, op, value.trim_matches(is_space)))
}

fn unescape(written: &str) -> Result<String, String> {
    let (raw, mut open) = match written.strip_prefix('"') {
        Some(raw) => (raw, true),
        None => (written, false),
    };
    let stray = || format!("matcher value contains unescaped double quote: {written}");
    let mut value = String::with_capacity(raw.len());
    let mut escaped = false;
    let mut chars = raw.chars().peekable();
    while let Some(c) = chars.next() {
        let last = chars.peek().is_none();
        match c {
            'n' if escaped => value.push('\n'),
            '"' | '\\' if escaped => value.push(c),
            _ if escaped => {
                value.push('\\');
                value.push(c);
            }
            '\\' if !last => {
                escaped = true;
                continue;
            }
            '"' if !open || !last => return Err(stray()),
            '"' => open = false,
            c => value.push(c),
        }
        escaped = false;
    }
    if open { Err(stray()) } else { Ok(value) }
}
