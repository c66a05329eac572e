//! In which of YAML's styles a text is written.

use super::scalar::{self, Scalar};

/// Longest key, in bytes, that stands on one line with its value.
const SIMPLE_KEY_LEN_MAX: usize = 128;

/// A style of scalars.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Style {
    Plain,
    SingleQuoted,
    DoubleQuoted,
    Literal,
}

/// The style in which Go's encoder asks for a text.
pub(super) fn style_of(text: &str) -> Style {
    if text.contains('\n') {
        Style::Literal
    } else if matches!(scalar::resolve(text), Scalar::Text) && !is_base60(text) {
        Style::Plain
    } else {
        Style::DoubleQuoted
    }
}

/// `[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?`, a number in YAML 1.1.
fn is_base60(text: &str) -> bool {
    let text = text.strip_prefix(['+', '-']).unwrap_or(text);
    let (head, fraction) = text.split_once('.').unwrap_or((text, ""));
    let mut parts = head.split(':');
    let first = parts.next().unwrap_or("");
    let mut count = 0;
    let rest = parts.all(|part| {
        count += 1;
        matches!(part.as_bytes(), [b'0'..=b'9'] | [b'0'..=b'5', b'0'..=b'9'])
    });
    let numeric = |text: &str| text.bytes().all(|b| b.is_ascii_digit() || b == b'_');
    first.starts_with(|c: char| c.is_ascii_digit()) && numeric(first) && rest && count > 0 && numeric(fraction)
}

pub(super) fn is_simple_key(key: &str) -> bool {
    !key.contains(is_break) && key.len() <= SIMPLE_KEY_LEN_MAX
}

pub(super) fn is_break(c: char) -> bool {
    matches!(c, '\n' | '\r' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

pub(super) fn is_printable(c: char) -> bool {
    matches!(c, '\n' | ' '..='~' | '\u{a0}'..='\u{d7ff}' | '\u{e000}'..='\u{fffd}') && c != '\u{feff}'
}

/// In which styles a text can be written.
pub(super) struct Analysis {
    pub multiline: bool,
    pub flow_plain: bool,
    pub block_plain: bool,
    pub single_quoted: bool,
    pub block: bool,
}

impl Analysis {
    pub(super) fn new(text: &str) -> Self {
        if text.is_empty() {
            return Self { multiline: false, flow_plain: false, block_plain: true, single_quoted: true, block: false };
        }
        let mut block_indicators = text.starts_with("---") || text.starts_with("...");
        let mut flow_indicators = block_indicators;
        let (mut line_breaks, mut special) = (false, false);
        let (mut break_space, mut space_break) = (false, false);
        let mut previous: Option<char> = None;
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            let followed_by_blank = chars.peek().is_none_or(|n| matches!(n, ' ' | '\t'));
            let preceded_by_blank = previous.is_none_or(|p| matches!(p, ' ' | '\t') || is_break(p));
            match (previous, c) {
                (
                    None,
                    '#' | ',' | '[' | ']' | '{' | '}' | '&' | '*' | '!' | '|' | '>' | '\'' | '"' | '%' | '@' | '`',
                ) => {
                    flow_indicators = true;
                    block_indicators = true;
                }
                (None, '-') if followed_by_blank => {
                    flow_indicators = true;
                    block_indicators = true;
                }
                (None, '?') | (_, ':') => {
                    flow_indicators = true;
                    block_indicators |= followed_by_blank;
                }
                (Some(_), ',' | '?' | '[' | ']' | '{' | '}') => flow_indicators = true,
                (Some(_), '#') if preceded_by_blank => {
                    flow_indicators = true;
                    block_indicators = true;
                }
                _ => {}
            }
            special |= !is_printable(c);
            line_breaks |= is_break(c);
            break_space |= c == ' ' && previous.is_some_and(is_break);
            space_break |= is_break(c) && previous == Some(' ');
            previous = Some(c);
        }
        let edge = |c: char| c == ' ' || is_break(c);
        let plain =
            !(text.starts_with(edge) || text.ends_with(edge) || break_space || space_break || special || line_breaks);
        Self {
            multiline: line_breaks,
            flow_plain: plain && !flow_indicators,
            block_plain: plain && !block_indicators,
            single_quoted: !(break_space || space_break || special),
            block: !(text.ends_with(' ') || space_break || special),
        }
    }
}
