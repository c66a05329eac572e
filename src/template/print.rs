//! Prints single values by verb, flags, width and precision, as Go's `fmt` does.

use std::fmt::Write as _;

use super::OUTPUT_LEN_MAX;
use super::float_verbs;
use super::value::{Value, can_back_quote};
use crate::model::go;

/// Flags, width and precision of a verb.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Flags {
    pub(super) width: Option<usize>,
    pub(super) precision: Option<usize>,
    pub(super) minus: bool,
    pub(super) plus: bool,
    pub(super) sharp: bool,
    pub(super) space: bool,
    pub(super) zero: bool,
    /// `%+v`
    plus_v: bool,
    /// `%#v`
    sharp_v: bool,
}

/// Collects text up to the limit on output.
pub(super) struct Printer {
    out: String,
    full: bool,
    /// True within the text of a bad verb, where values do not print by their own text.
    erroring: bool,
    pub(super) flags: Flags,
}

impl Printer {
    pub(super) fn new() -> Self {
        Self { out: String::new(), full: false, erroring: false, flags: Flags::default() }
    }

    /// The text, or `None` if it is too long.
    pub(super) fn finish(self) -> Option<String> {
        (!self.full).then_some(self.out)
    }

    pub(super) fn is_full(&self) -> bool {
        self.full
    }

    pub(super) fn clear(&mut self) {
        self.flags = Flags::default();
    }

    pub(super) fn push(&mut self, text: &str) {
        if self.full || OUTPUT_LEN_MAX < self.out.len() + text.len() {
            self.full = true;
            return;
        }
        self.out.push_str(text);
    }

    /// Prints an argument by a verb of a format, whose `%+v` and `%#v` are of their own kind.
    pub(super) fn verb(&mut self, value: &Value, verb: char) {
        if verb == 'v' {
            self.flags.sharp_v = std::mem::take(&mut self.flags.sharp);
            self.flags.plus_v = std::mem::take(&mut self.flags.plus);
        }
        self.arg(value, verb);
    }

    /// Prints a value at the top.
    pub(super) fn arg(&mut self, value: &Value, verb: char) {
        match (value, verb) {
            (Value::Nil | Value::NilInterface, 'T' | 'v') => self.pad("<nil>"),
            (Value::Nil | Value::NilInterface, _) => self.push(&format!("%!{verb}(<nil>)")),
            (_, 'T') => self.string(&value.type_name(), 's'),
            (_, 'p' | 'w') => self.bad_verb(value, verb),
            _ => self.value(value, verb),
        }
    }

    fn value(&mut self, value: &Value, verb: char) {
        if self.full {
            return;
        }
        let by_own_text = !self.erroring && !self.flags.sharp_v && matches!(verb, 'v' | 's' | 'x' | 'X' | 'q');
        if by_own_text && let Some(text) = value.own_text() {
            return self.string(&text, verb);
        }
        match value {
            Value::Nil | Value::NilInterface => {
                self.push(if self.flags.sharp_v { "interface {}(nil)" } else { "<nil>" })
            }
            Value::Bool(truth) => match verb {
                't' | 'v' => self.pad(if *truth { "true" } else { "false" }),
                _ => self.bad_verb(value, verb),
            },
            Value::Int(number) | Value::Duration(number) | Value::Named { number, .. } => {
                self.integer(value, *number < 0, number.unsigned_abs(), verb);
            }
            Value::Uint(number) => self.integer(value, false, *number, verb),
            Value::Byte(number) => self.integer(value, false, u64::from(*number), verb),
            Value::Float(number) => self.float(value, *number, verb),
            Value::Str(text) => match verb {
                'v' | 's' | 'x' | 'X' | 'q' => self.string(text, verb),
                _ => self.bad_verb(value, verb),
            },
            Value::Time(time) => self.string(&time.to_string(), 's'),
            Value::Pointer(inner) => {
                self.push("&");
                self.value(inner, verb);
            }
            Value::List(list) => {
                let (open, close) = if self.flags.sharp_v { ("{", "}") } else { ("[", "]") };
                self.open(value, open);
                for (index, item) in list.items.iter().enumerate() {
                    self.separate(index);
                    self.value(item, verb);
                }
                self.push(close);
            }
            Value::Map(map) => {
                let (open, close) = if self.flags.sharp_v { ("{", "}") } else { ("map[", "]") };
                self.open(value, open);
                for (index, (key, item)) in map.entries.iter().enumerate() {
                    self.separate(index);
                    self.value(&Value::Str(key.clone()), verb);
                    self.push(":");
                    self.value(item, verb);
                }
                self.push(close);
            }
            Value::Struct(record) => {
                self.open(value, "{");
                for (index, (name, item)) in record.fields.iter().enumerate() {
                    self.separate(index);
                    if self.flags.plus_v || self.flags.sharp_v {
                        self.push(name);
                        self.push(":");
                    }
                    self.value(item, verb);
                }
                self.push("}");
            }
        }
    }

    fn open(&mut self, value: &Value, bracket: &str) {
        if self.flags.sharp_v {
            self.push(&value.type_name());
        }
        self.push(bracket);
    }

    fn separate(&mut self, index: usize) {
        if 0 < index {
            self.push(if self.flags.sharp_v { ", " } else { " " });
        }
    }

    fn bad_verb(&mut self, value: &Value, verb: char) {
        self.erroring = true;
        self.push(&format!("%!{verb}({}=", value.type_name()));
        self.value(value, 'v');
        self.push(")");
        self.erroring = false;
    }

    fn fill(&mut self, count: usize, zero: bool) {
        if self.full || OUTPUT_LEN_MAX < self.out.len() + count {
            self.full = true;
            return;
        }
        self.out.extend(std::iter::repeat_n(if zero { '0' } else { ' ' }, count));
    }

    /// Writes the text, filled up to the width.
    fn pad(&mut self, text: &str) {
        let missing = self.flags.width.unwrap_or(0).saturating_sub(text.chars().count());
        if self.flags.minus {
            self.push(text);
            self.fill(missing, false);
        } else {
            self.fill(missing, self.flags.zero);
            self.push(text);
        }
    }

    fn pad_with_spaces(&mut self, text: &str) {
        let zero = std::mem::take(&mut self.flags.zero);
        self.pad(text);
        self.flags.zero = zero;
    }

    fn string(&mut self, text: &str, verb: char) {
        match verb {
            'x' | 'X' => return self.hexadecimal(text.as_bytes(), verb == 'X'),
            'v' if self.flags.sharp_v => return self.quoted(text),
            'q' => return self.quoted(self.cut(text)),
            _ => {}
        }
        self.pad(self.cut(text));
    }

    /// At most as many characters as the precision says.
    fn cut<'s>(&self, text: &'s str) -> &'s str {
        let Some(precision) = self.flags.precision else { return text };
        text.char_indices().nth(precision).map_or(text, |(at, _)| text.get(..at).unwrap_or(text))
    }

    fn quoted(&mut self, text: &str) {
        if self.flags.sharp && can_back_quote(text) {
            return self.pad(&format!("`{text}`"));
        }
        let quoted = go::quote(text);
        self.pad(&if self.flags.plus { ascii_only(&quoted) } else { quoted });
    }

    fn hexadecimal(&mut self, raw: &[u8], upper: bool) {
        let count = self.flags.precision.unwrap_or(raw.len()).min(raw.len());
        let prefix = if upper { "0X" } else { "0x" };
        let mut text = String::new();
        for (index, byte) in raw.iter().take(count).enumerate() {
            if self.flags.space && 0 < index {
                text.push(' ');
            }
            if self.flags.sharp && (index == 0 || self.flags.space) {
                text.push_str(prefix);
            }
            let _ = if upper { write!(text, "{byte:02X}") } else { write!(text, "{byte:02x}") };
        }
        self.pad(&text);
    }

    fn integer(&mut self, value: &Value, negative: bool, magnitude: u64, verb: char) {
        let digits = match verb {
            'v' if self.flags.sharp_v && matches!(value, Value::Uint(_) | Value::Byte(_)) => format!("0x{magnitude:x}"),
            'v' | 'd' => magnitude.to_string(),
            'b' => format!("{magnitude:b}"),
            'o' | 'O' => format!("{magnitude:o}"),
            'x' => format!("{magnitude:x}"),
            'X' => format!("{magnitude:X}"),
            'c' => return self.pad(&character(negative, magnitude).to_string()),
            'q' => {
                let quoted = go::quote_rune(character(negative, magnitude));
                return self.pad(&if self.flags.plus { ascii_only(&quoted) } else { quoted });
            }
            'U' => return self.unicode(negative, magnitude),
            _ => return self.bad_verb(value, verb),
        };
        self.digits(negative, magnitude, digits, verb);
    }

    fn digits(&mut self, negative: bool, magnitude: u64, mut digits: String, verb: char) {
        let flags = self.flags;
        let signed = negative || flags.plus || flags.space;
        let precision = match flags.precision {
            Some(0) if magnitude == 0 => return self.fill(flags.width.unwrap_or(0), false),
            Some(precision) => precision,
            None if flags.zero && !flags.minus => flags.width.unwrap_or(0).saturating_sub(usize::from(signed)),
            None => 0,
        };
        if OUTPUT_LEN_MAX < precision {
            self.full = true;
            return;
        }
        if digits.len() < precision {
            digits = format!("{}{digits}", "0".repeat(precision - digits.len()));
        }
        let prefix = match verb {
            'b' if flags.sharp => "0b",
            'o' if flags.sharp && !digits.starts_with('0') => "0",
            'x' if flags.sharp => "0x",
            'X' if flags.sharp => "0X",
            'O' => "0o",
            _ => "",
        };
        let sign = match negative {
            true => "-",
            false if flags.plus => "+",
            false if flags.space => " ",
            false => "",
        };
        self.pad_with_spaces(&format!("{sign}{prefix}{digits}"));
    }

    fn unicode(&mut self, negative: bool, magnitude: u64) {
        let code = if negative { magnitude.wrapping_neg() } else { magnitude };
        let precision = self.flags.precision.unwrap_or(4).max(4);
        if OUTPUT_LEN_MAX < precision {
            self.full = true;
            return;
        }
        let mut digits = format!("{code:X}");
        if digits.len() < precision {
            digits = format!("{}{digits}", "0".repeat(precision - digits.len()));
        }
        let mut text = format!("U+{digits}");
        let c = u32::try_from(code).ok().and_then(char::from_u32);
        if let Some(c) = c.filter(|_| self.flags.sharp)
            && go::unicode_point(c).ends_with('\'')
        {
            let _ = write!(text, " '{c}'");
        }
        self.pad_with_spaces(&text);
    }

    fn float(&mut self, value: &Value, number: f64, verb: char) {
        let precision = self.flags.precision;
        let form = match verb {
            'v' => 'g',
            'F' => 'f',
            'e' | 'E' | 'f' | 'g' | 'G' | 'x' | 'X' | 'b' => verb,
            _ => return self.bad_verb(value, verb),
        };
        let precision = match form {
            'e' | 'E' | 'f' => Some(precision.unwrap_or(6)),
            _ => precision,
        };
        if precision.is_some_and(|precision| OUTPUT_LEN_MAX < precision) {
            self.full = true;
            return;
        }
        let text = float_verbs::text(number.abs(), form, precision);
        let text = if self.flags.sharp && form != 'b' && number.is_finite() {
            float_verbs::with_point(&text, form, precision)
        } else {
            text
        };
        self.signed_float(number, &text);
    }

    fn signed_float(&mut self, number: f64, text: &str) {
        let flags = self.flags;
        let negative = number.is_sign_negative() && !number.is_nan();
        let sign = match negative {
            true => "-",
            false if flags.plus => "+",
            false if flags.space => " ",
            false if number.is_infinite() => "+",
            false => "",
        };
        if !number.is_finite() {
            return self.pad_with_spaces(&format!("{sign}{text}"));
        }
        let width = flags.width.unwrap_or(0);
        let len = sign.len() + text.len();
        if flags.zero && !flags.minus && !sign.is_empty() && len < width {
            self.push(sign);
            self.fill(width - len, true);
            return self.push(text);
        }
        self.pad(&format!("{sign}{text}"));
    }
}

fn character(negative: bool, magnitude: u64) -> char {
    let code = if negative { None } else { u32::try_from(magnitude).ok() };
    code.and_then(char::from_u32).unwrap_or(char::REPLACEMENT_CHARACTER)
}

/// Escapes what is not ASCII in a quoted text.
fn ascii_only(quoted: &str) -> String {
    let mut out = String::with_capacity(quoted.len());
    for c in quoted.chars() {
        let code = u32::from(c);
        let _ = match code {
            0..0x80 => write!(out, "{c}"),
            0x80..0x1_0000 => write!(out, "\\u{code:04x}"),
            _ => write!(out, "\\U{code:08x}"),
        };
    }
    out
}
