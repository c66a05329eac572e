//! JSON as Go's `encoding/json` writes it, with the characters that HTML minds escaped; for bodies that are compared byte by
//! byte.

use std::fmt::Write as _;

use crate::model::labels::Labels;

/// Appends a text in quotes.
pub fn push_text(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\0'..='\u{1f}' | '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

/// Appends labels as an object, by their names.
pub fn push_labels(out: &mut String, labels: &Labels) {
    out.push('{');
    for (index, (name, value)) in labels.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        push_text(out, name);
        out.push(':');
        push_text(out, value);
    }
    out.push('}');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_escaped_as_by_go() {
        let mut out = String::new();
        push_text(&mut out, "\"\\\n\r\t\u{8}\u{c}\u{1}<>&\u{2028}é");
        assert_eq!(out, r#""\"\\\n\r\t\b\f\u0001\u003c\u003e\u0026\u2028é""#);
        out.clear();
        push_labels(&mut out, &Labels::from_pairs([("b", "2"), ("a", "<1>")]));
        assert_eq!(out, r#"{"a":"\u003c1\u003e","b":"2"}"#);
    }
}
