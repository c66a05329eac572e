//! JSON in parameters: read by our library, refused in the words of Go's, which clients show.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::model::go;

/// Reads an object of strings; `null` stands for an empty object and for an empty string. The error is Go's text.
pub(super) fn string_map(text: &str) -> Result<BTreeMap<String, String>, String> {
    check(text)?;
    let value: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let wrong = |value: &Value, wanted: &str| {
        let found = match value {
            Value::Null => "null",
            Value::Bool(_) => "bool",
            Value::Number(_) => "number",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        };
        format!("json: cannot unmarshal {found} into Go value of type {wanted}")
    };
    let fields = match value {
        Value::Null => return Ok(BTreeMap::new()),
        Value::Object(fields) => fields,
        other => return Err(wrong(&other, "map[string]string")),
    };
    let field = |(name, value)| match value {
        Value::String(text) => Ok((name, text)),
        Value::Null => Ok((name, String::new())),
        other => Err(wrong(&other, "string")),
    };
    fields.into_iter().map(field).collect()
}

/// What may come next.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    Value,
    ValueOrEnd,
    Key,
    KeyOrEnd,
    Colon,
    /// What follows a value.
    After,
}

/// Errors with Go's text unless this is JSON.
fn check(text: &str) -> Result<(), String> {
    let mut scan = Scan { text: text.as_bytes(), at: 0 };
    let (mut next, mut open) = (Next::Value, Vec::new());
    loop {
        scan.skip_blanks();
        let Some(byte) = scan.text.get(scan.at).copied() else {
            let is_whole = next == Next::After && open.is_empty();
            return if is_whole { Ok(()) } else { Err(ENDS.to_owned()) };
        };
        next = match (next, byte) {
            (Next::ValueOrEnd, b']') | (Next::KeyOrEnd, b'}') => {
                scan.at += 1;
                open.pop();
                Next::After
            }
            (Next::Value | Next::ValueOrEnd, b'{') => {
                scan.at += 1;
                open.push(b'{');
                Next::KeyOrEnd
            }
            (Next::Value | Next::ValueOrEnd, b'[') => {
                scan.at += 1;
                open.push(b'[');
                Next::ValueOrEnd
            }
            (Next::Value | Next::ValueOrEnd, _) => {
                scan.plain(byte)?;
                Next::After
            }
            (Next::Key | Next::KeyOrEnd, b'"') => {
                scan.string()?;
                Next::Colon
            }
            (Next::Key | Next::KeyOrEnd, byte) => return invalid(byte, "looking for beginning of object key string"),
            (Next::Colon, b':') => {
                scan.at += 1;
                Next::Value
            }
            (Next::Colon, byte) => return invalid(byte, "after object key"),
            (Next::After, byte) => {
                let (end, again, place) = match open.last() {
                    None => return invalid(byte, "after top-level value"),
                    Some(b'{') => (b'}', Next::Key, "after object key:value pair"),
                    Some(_) => (b']', Next::Value, "after array element"),
                };
                scan.at += 1;
                match byte {
                    b',' => again,
                    byte if byte == end => {
                        open.pop();
                        Next::After
                    }
                    byte => return invalid(byte, place),
                }
            }
        };
    }
}

const ENDS: &str = "unexpected end of JSON input";

fn invalid(byte: u8, place: &str) -> Result<(), String> {
    let shown = match byte {
        b'\'' => "'\\''".to_owned(),
        b'"' => "'\"'".to_owned(),
        byte => {
            let quoted = go::quote(&char::from(byte).to_string());
            format!("'{}'", quoted.trim_matches('"'))
        }
    };
    Err(format!("invalid character {shown} {place}"))
}

struct Scan<'a> {
    text: &'a [u8],
    at: usize,
}

impl Scan<'_> {
    fn skip_blanks(&mut self) {
        while matches!(self.text.get(self.at), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
    }

    /// The next byte; behind the end a blank, as Go's scanner sees it.
    fn peek(&self) -> u8 {
        self.text.get(self.at).copied().unwrap_or(b' ')
    }

    /// A string, number or word that begins with `byte`.
    fn plain(&mut self, byte: u8) -> Result<(), String> {
        match byte {
            b'"' => self.string(),
            b'-' | b'0'..=b'9' => self.number(),
            b't' => self.word("true"),
            b'f' => self.word("false"),
            b'n' => self.word("null"),
            byte => invalid(byte, "looking for beginning of value"),
        }
    }

    fn word(&mut self, word: &str) -> Result<(), String> {
        for expected in word.bytes() {
            let byte = self.peek();
            if byte != expected {
                return invalid(byte, &format!("in literal {word} (expecting '{}')", char::from(expected)));
            }
            self.at += 1;
        }
        Ok(())
    }

    fn digits(&mut self, place: &str) -> Result<(), String> {
        if !self.peek().is_ascii_digit() {
            return invalid(self.peek(), place);
        }
        while self.peek().is_ascii_digit() {
            self.at += 1;
        }
        Ok(())
    }

    fn number(&mut self) -> Result<(), String> {
        if self.peek() == b'-' {
            self.at += 1;
        }
        match self.peek() {
            b'0' => self.at += 1,
            _ => self.digits("in numeric literal")?,
        }
        if self.peek() == b'.' {
            self.at += 1;
            self.digits("after decimal point in numeric literal")?;
        }
        if matches!(self.peek(), b'e' | b'E') {
            self.at += 1;
            if matches!(self.peek(), b'+' | b'-') {
                self.at += 1;
            }
            self.digits("in exponent of numeric literal")?;
        }
        Ok(())
    }

    fn string(&mut self) -> Result<(), String> {
        self.at += 1;
        while let Some(byte) = self.text.get(self.at).copied() {
            self.at += 1;
            match byte {
                b'"' => return Ok(()),
                b'\\' => {
                    let escape = self.peek();
                    self.at += 1;
                    match escape {
                        b'b' | b'f' | b'n' | b'r' | b't' | b'\\' | b'/' | b'"' => {}
                        b'u' => {
                            for _ in 0..4 {
                                if !self.peek().is_ascii_hexdigit() {
                                    return invalid(self.peek(), "in \\u hexadecimal character escape");
                                }
                                self.at += 1;
                            }
                        }
                        byte => return invalid(byte, "in string escape code"),
                    }
                }
                byte if byte < b' ' => return invalid(byte, "in string literal"),
                _ => {}
            }
        }
        Err(ENDS.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Compared with a Prometheus 3.14.0 server.
    #[test]
    fn errors_are_those_of_go() {
        for (text, error) in [
            ("x", "invalid character 'x' looking for beginning of value"),
            ("{", ENDS),
            ("{\"a\"", ENDS),
            ("{\"a\":\"b\",", ENDS),
            ("  ", ENDS),
            ("\"a", ENDS),
            ("{\"a\":\"b\"}x", "invalid character 'x' after top-level value"),
            ("{\"a\":1}", "json: cannot unmarshal number into Go value of type string"),
            ("{\"a\":{}}", "json: cannot unmarshal object into Go value of type string"),
            ("{\"a\":true}", "json: cannot unmarshal bool into Go value of type string"),
            ("{\"a\":\"b\",}", "invalid character '}' looking for beginning of object key string"),
            ("[]", "json: cannot unmarshal array into Go value of type map[string]string"),
            ("\"x\"", "json: cannot unmarshal string into Go value of type map[string]string"),
            ("tru", "invalid character ' ' in literal true (expecting 'e')"),
            ("nul1", "invalid character '1' in literal null (expecting 'l')"),
            ("{\"a\":\"\\q\"}", "invalid character 'q' in string escape code"),
            ("{\"a\":\"x\ny\"}", "invalid character '\\n' in string literal"),
            ("{\"a\":\"\u{1}\"}", "invalid character '\\x01' in string literal"),
            ("{\"a\" \"b\"}", "invalid character '\"' after object key"),
            ("{\"a\":\"b\" \"c\"}", "invalid character '\"' after object key:value pair"),
            ("{\"a\":01}", "invalid character '1' after object key:value pair"),
            ("{\"a\":-}", "invalid character '}' in numeric literal"),
            ("-", "invalid character ' ' in numeric literal"),
            ("{\"a\":1.}", "invalid character '}' after decimal point in numeric literal"),
            ("{\"a\":1e}", "invalid character '}' in exponent of numeric literal"),
            ("[1,]", "invalid character ']' looking for beginning of value"),
            ("[1 2]", "invalid character '2' after array element"),
            ("{\"a\":\"\\u12g4\"}", "invalid character 'g' in \\u hexadecimal character escape"),
            ("{\"a\":é}", "invalid character 'Ã' looking for beginning of value"),
            ("{\"a\":[}", "invalid character '}' looking for beginning of value"),
        ] {
            assert_eq!(string_map(text).unwrap_err(), error, "{text}");
        }
        let read = string_map("{\"a\":\"b\\n\",\"c\":null} ").unwrap();
        assert_eq!(read.into_iter().collect::<Vec<_>>(), [("a".into(), "b\n".into()), ("c".into(), String::new())]);
        assert_eq!(string_map("null"), Ok(BTreeMap::new()));
    }

    proptest! {
        /// Both libraries agree on what is JSON, but for lone surrogates, depth and numbers out of range.
        #[test]
        fn what_is_json_is_clear(text in "[\\[\\]{}:,\" \\\\u1e.n+-]{0,20}|\\{\"a\":(\"b\"|1|null|\\[1,2\\])\\}") {
            let ours = check(&text).is_ok();
            match serde_json::from_str::<Value>(&text) {
                Ok(_) => prop_assert!(ours),
                Err(error) if error.to_string().contains("out of range") || text.contains("\\u") => {}
                Err(_) => prop_assert!(!ours),
            }
        }
    }
}
