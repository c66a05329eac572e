//! Go's `fmt.Sprintf`, `Sprint` and `Sprintln` over template values.

use super::OUTPUT_LEN_MAX;
use super::print::Printer;
use super::value::Value;

/// Largest width and precision that a format may ask for.
const NUMBER_MAX: i64 = 1_000_000;

/// How an action prints its value; `None` if that is too long.
pub(super) fn printed(value: &Value) -> Option<String> {
    match value.indirect() {
        Value::Nil | Value::NilInterface => Some("<no value>".to_owned()),
        Value::Str(text) => Some(text.to_string()),
        value => {
            let mut printer = Printer::new();
            printer.arg(value, 'v');
            printer.finish()
        }
    }
}

/// As `%s` prints it, for error texts.
pub(super) fn as_text(value: &Value) -> String {
    let mut printer = Printer::new();
    printer.arg(value, 's');
    printer.finish().unwrap_or_default()
}

/// `fmt.Sprint`: spaces between what is not a text.
pub(super) fn sprint(values: &[Value]) -> Result<String, String> {
    let mut printer = Printer::new();
    let mut before_is_text = true;
    for value in values {
        let is_text = matches!(value, Value::Str(_));
        if !is_text && !before_is_text {
            printer.push(" ");
        }
        printer.arg(value, 'v');
        before_is_text = is_text;
    }
    printer.finish().ok_or_else(too_long)
}

/// `fmt.Sprintln`: spaces between all, a new line at the end.
pub(super) fn sprintln(values: &[Value]) -> Result<String, String> {
    let mut printer = Printer::new();
    for (index, value) in values.iter().enumerate() {
        if 0 < index {
            printer.push(" ");
        }
        printer.arg(value, 'v');
    }
    printer.push("\n");
    printer.finish().ok_or_else(too_long)
}

fn too_long() -> String {
    format!("text exceeds the limit of {OUTPUT_LEN_MAX} bytes")
}

/// `fmt.Sprintf`.
pub(super) fn sprintf(format: &str, args: &[Value]) -> Result<String, String> {
    let mut run = Format { rest: format, args, next: 0, reordered: false, good_index: true, printer: Printer::new() };
    run.all();
    run.printer.finish().ok_or_else(too_long)
}

struct Format<'a> {
    rest: &'a str,
    args: &'a [Value],
    /// Index of the next argument.
    next: usize,
    /// True once an argument was named by its number.
    reordered: bool,
    good_index: bool,
    printer: Printer,
}

impl Format<'_> {
    fn all(&mut self) {
        while let Some((text, rest)) = self.rest.split_once('%') {
            self.printer.push(text);
            self.rest = rest;
            if !self.verb() {
                self.printer.push("%!(NOVERB)");
                self.rest = "";
                break;
            }
            if self.printer.is_full() {
                return;
            }
        }
        self.printer.push(self.rest);
        if !self.reordered && self.next < self.args.len() {
            self.extra();
        }
    }

    fn extra(&mut self) {
        self.printer.clear();
        self.printer.push("%!(EXTRA ");
        let args = self.args;
        for (index, arg) in args.iter().skip(self.next).enumerate() {
            if 0 < index {
                self.printer.push(", ");
            }
            if matches!(arg, Value::Nil | Value::NilInterface) {
                self.printer.push("<nil>");
            } else {
                self.printer.push(&arg.type_name());
                self.printer.push("=");
                self.printer.arg(arg, 'v');
            }
        }
        self.printer.push(")");
    }

    fn take(&mut self, c: char) -> bool {
        match self.rest.strip_prefix(c) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    /// What follows a `%`; false if the format ends before the verb.
    fn verb(&mut self) -> bool {
        self.printer.clear();
        self.good_index = true;
        self.flags();
        let mut after_index = self.index();
        if self.take('*') {
            self.width_from_arg();
            after_index = false;
        } else {
            let width = self.number();
            self.printer.flags.width = width;
            if after_index && width.is_some() {
                self.good_index = false;
            }
        }
        if 1 < self.rest.len() && self.rest.starts_with('.') {
            self.take('.');
            if after_index {
                self.good_index = false;
            }
            after_index = self.index();
            if self.take('*') {
                self.precision_from_arg();
                after_index = false;
            } else {
                self.printer.flags.precision = Some(self.number().unwrap_or(0));
            }
        }
        if !after_index {
            self.index();
        }
        let Some(verb) = self.rest.chars().next() else { return false };
        self.rest = self.rest.get(verb.len_utf8()..).unwrap_or("");
        if verb == '%' {
            self.printer.push("%");
        } else if !self.good_index {
            self.printer.push(&format!("%!{verb}(BADINDEX)"));
        } else if let Some(arg) = self.args.get(self.next) {
            self.printer.verb(arg, verb);
            self.next += 1;
        } else {
            self.printer.push(&format!("%!{verb}(MISSING)"));
        }
        true
    }

    fn flags(&mut self) {
        while let Some(c) = self.rest.chars().next() {
            let flags = &mut self.printer.flags;
            match c {
                '#' => flags.sharp = true,
                '0' => flags.zero = true,
                '+' => flags.plus = true,
                '-' => flags.minus = true,
                ' ' => flags.space = true,
                _ => return,
            }
            self.take(c);
        }
    }

    fn number(&mut self) -> Option<usize> {
        let len = self.rest.bytes().take_while(u8::is_ascii_digit).count();
        let (digits, rest) = self.rest.split_at(len);
        if digits.is_empty() {
            return None;
        }
        match digits.parse::<usize>() {
            Ok(number) if number <= 10 * NUMBER_MAX as usize => {
                self.rest = rest;
                Some(number)
            }
            _ => {
                // Go gives up on the whole format here.
                self.rest = "";
                None
            }
        }
    }

    /// An argument's number in brackets; true if one was read.
    fn index(&mut self) -> bool {
        if !self.rest.starts_with('[') {
            return false;
        }
        self.reordered = true;
        let inner = self.rest.get(1..).unwrap_or("");
        let Some((digits, rest)) = inner.split_once(']') else {
            self.rest = inner;
            self.good_index = false;
            return false;
        };
        self.rest = rest;
        let number = digits.parse::<usize>().ok().filter(|_| digits.bytes().all(|b| b.is_ascii_digit()));
        match number {
            Some(number) if 0 < number && number <= self.args.len() => {
                self.next = number - 1;
                true
            }
            other => {
                self.good_index = false;
                other.is_some()
            }
        }
    }

    fn int_from_arg(&mut self) -> Option<i64> {
        let number = match self.args.get(self.next)? {
            Value::Int(number) | Value::Duration(number) | Value::Named { number, .. } => Some(*number),
            Value::Uint(number) => i64::try_from(*number).ok(),
            Value::Byte(number) => Some(i64::from(*number)),
            _ => None,
        };
        self.next += 1;
        number.filter(|number| number.abs() <= NUMBER_MAX)
    }

    fn width_from_arg(&mut self) {
        match self.int_from_arg() {
            Some(width) => {
                let flags = &mut self.printer.flags;
                if width < 0 {
                    flags.minus = true;
                    flags.zero = false;
                }
                flags.width = usize::try_from(width.unsigned_abs()).ok();
            }
            None => self.printer.push("%!(BADWIDTH)"),
        }
    }

    fn precision_from_arg(&mut self) {
        match self.int_from_arg().and_then(|precision| usize::try_from(precision).ok()) {
            Some(precision) => self.printer.flags.precision = Some(precision),
            None => self.printer.push("%!(BADPREC)"),
        }
    }
}
