//! Writing YAML as Go's yaml.v2 does (libyaml's emitter with its defaults): two spaces of indent, lists not indented in
//! mappings, plain scalars where they read back the same, lines folded at blanks after column 80.

use super::style::{Analysis, Style, is_break, is_printable, is_simple_key, style_of};

/// Lines are folded at the first blank beyond this column.
const WIDTH: usize = 80;
const INDENT: usize = 2;

/// A value to be written.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Out {
    Null,
    /// A number or a boolean, written as it stands.
    Plain(String),
    /// A text, quoted where it has to be.
    Text(String),
    Sequence(Vec<Out>),
    /// A list in brackets.
    Flow(Vec<Out>),
    Mapping(Vec<(String, Out)>),
}

impl Out {
    /// A mapping with its keys in the order that Go's encoder gives them.
    pub(crate) fn sorted_mapping(mut pairs: Vec<(String, Self)>) -> Self {
        pairs.sort_by(|(a, _), (b, _)| natural_order(a, b));
        Self::Mapping(pairs)
    }

    /// The document.
    pub(crate) fn to_yaml(&self) -> String {
        let mut emitter =
            Emitter { out: String::new(), column: 0, whitespace: true, indention: true, indent: None, flow_level: 0 };
        emitter.node(self, Context::Root);
        emitter.write_indent();
        emitter.out
    }
}

/// Go's order of text keys: runs of digits by value, letters after other characters.
fn natural_order(a: &str, b: &str) -> std::cmp::Ordering {
    use std::cmp::Ordering;
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let Some(at) = a.iter().zip(&b).position(|(x, y)| x != y) else { return a.len().cmp(&b.len()) };
    let (x, y) = (a[at], b[at]);
    match (x.is_alphabetic(), y.is_alphabetic()) {
        (true, true) => return x.cmp(&y),
        (true, false) => return Ordering::Greater,
        (false, true) => return Ordering::Less,
        (false, false) => {}
    }
    // A zero within a number counts as a digit of it only after another digit.
    let inside = (x == '0' || y == '0') && a[..at].iter().rev().take_while(|c| c.is_ascii_digit()).any(|c| *c != '0');
    let run = |text: &[char]| {
        let digits: Vec<char> = text[at..].iter().copied().take_while(char::is_ascii_digit).collect();
        let start = i128::from(inside);
        let value = digits.iter().fold(start, |n, c| n.wrapping_mul(10).wrapping_add(i128::from(u32::from(*c) - 48)));
        (value, digits.len())
    };
    run(&a).cmp(&run(&b)).then(x.cmp(&y))
}

#[derive(Clone, Copy, PartialEq)]
enum Context {
    Root,
    Sequence,
    SimpleKey,
    MappingValue,
}

struct Emitter {
    out: String,
    column: usize,
    /// The last character was a blank, or nothing was written yet.
    whitespace: bool,
    /// Only indentation and `-`, `?`, `:` stand on this line.
    indention: bool,
    indent: Option<usize>,
    flow_level: usize,
}

impl Emitter {
    fn node(&mut self, value: &Out, context: Context) {
        match value {
            Out::Null => self.scalar("null", Style::Plain, context),
            Out::Plain(text) => self.scalar(text, Style::Plain, context),
            Out::Text(text) => self.scalar(text, style_of(text), context),
            Out::Sequence(items) if items.is_empty() || self.flow_level > 0 => self.flow_sequence(items),
            Out::Flow(items) => self.flow_sequence(items),
            Out::Sequence(items) => {
                let saved = self.indent;
                let indentless = context == Context::MappingValue && !self.indention;
                self.increase_indent(false, indentless);
                for item in items {
                    self.write_indent();
                    self.indicator("-", true, false, true);
                    self.node(item, Context::Sequence);
                }
                self.indent = saved;
            }
            Out::Mapping(pairs) if pairs.is_empty() || self.flow_level > 0 => self.flow_mapping(pairs),
            Out::Mapping(pairs) => {
                let saved = self.indent;
                self.increase_indent(false, false);
                for (key, value) in pairs {
                    self.write_indent();
                    if is_simple_key(key) {
                        self.scalar(key, style_of(key), Context::SimpleKey);
                        self.indicator(":", false, false, false);
                    } else {
                        self.indicator("?", true, false, true);
                        self.scalar(key, style_of(key), Context::MappingValue);
                        self.write_indent();
                        self.indicator(":", true, false, true);
                    }
                    self.node(value, Context::MappingValue);
                }
                self.indent = saved;
            }
        }
    }

    fn flow_sequence(&mut self, items: &[Out]) {
        let saved = self.indent;
        self.indicator("[", true, true, false);
        self.increase_indent(true, false);
        self.flow_level += 1;
        for (index, item) in items.iter().enumerate() {
            if index > 0 {
                self.indicator(",", false, false, false);
            }
            if self.column > WIDTH {
                self.write_indent();
            }
            self.node(item, Context::Sequence);
        }
        self.flow_level -= 1;
        self.indent = saved;
        self.indicator("]", false, false, false);
    }

    fn flow_mapping(&mut self, pairs: &[(String, Out)]) {
        let saved = self.indent;
        self.indicator("{", true, true, false);
        self.increase_indent(true, false);
        self.flow_level += 1;
        for (index, (key, value)) in pairs.iter().enumerate() {
            if index > 0 {
                self.indicator(",", false, false, false);
            }
            if self.column > WIDTH {
                self.write_indent();
            }
            self.scalar(key, style_of(key), Context::SimpleKey);
            self.indicator(":", false, false, false);
            self.node(value, Context::MappingValue);
        }
        self.flow_level -= 1;
        self.indent = saved;
        self.indicator("}", false, false, false);
    }

    fn scalar(&mut self, text: &str, wanted: Style, context: Context) {
        let style = self.allowed_style(text, wanted, context);
        let saved = self.indent;
        self.increase_indent(true, false);
        let may_fold = context != Context::SimpleKey;
        match style {
            Style::Plain => self.plain(text, may_fold),
            Style::SingleQuoted => self.single_quoted(text, may_fold),
            Style::DoubleQuoted => self.double_quoted(text, may_fold),
            Style::Literal => self.literal(text),
        }
        self.indent = saved;
    }

    fn allowed_style(&self, text: &str, wanted: Style, context: Context) -> Style {
        let allowed = Analysis::new(text);
        let simple_key = context == Context::SimpleKey;
        let mut style = wanted;
        if simple_key && allowed.multiline {
            style = Style::DoubleQuoted;
        }
        if style == Style::Plain {
            let plain = if self.flow_level > 0 { allowed.flow_plain } else { allowed.block_plain };
            if !plain || text.is_empty() && (self.flow_level > 0 || simple_key) {
                style = Style::SingleQuoted;
            }
        }
        if style == Style::SingleQuoted && !allowed.single_quoted {
            style = Style::DoubleQuoted;
        }
        if style == Style::Literal && (!allowed.block || self.flow_level > 0 || simple_key) {
            style = Style::DoubleQuoted;
        }
        style
    }

    fn increase_indent(&mut self, flow: bool, indentless: bool) {
        self.indent = Some(match self.indent {
            None if flow => INDENT,
            None => 0,
            Some(indent) if indentless => indent,
            Some(indent) => indent + INDENT,
        });
    }

    fn write_indent(&mut self) {
        let indent = self.indent.unwrap_or(0);
        if !self.indention || self.column > indent || self.column == indent && !self.whitespace {
            self.line_break();
        }
        while self.column < indent {
            self.put(' ');
        }
        self.whitespace = true;
        self.indention = true;
    }

    fn indicator(&mut self, text: &str, needs_whitespace: bool, is_whitespace: bool, is_indention: bool) {
        if needs_whitespace && !self.whitespace {
            self.put(' ');
        }
        text.chars().for_each(|c| self.put(c));
        self.whitespace = is_whitespace;
        self.indention = self.indention && is_indention;
    }

    fn put(&mut self, c: char) {
        self.out.push(c);
        self.column += 1;
    }

    fn line_break(&mut self) {
        self.out.push('\n');
        self.column = 0;
    }

    /// Breaks the line with the character that the text has for it.
    fn break_as(&mut self, c: char) {
        self.out.push(c);
        self.column = 0;
    }

    fn plain(&mut self, text: &str, may_fold: bool) {
        if !self.whitespace {
            self.put(' ');
        }
        let mut spaces = false;
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            if c == ' ' && may_fold && !spaces && self.column > WIDTH && chars.peek() != Some(&' ') {
                self.write_indent();
            } else {
                self.put(c);
            }
            spaces = c == ' ';
            self.indention = false;
        }
        self.whitespace = false;
        self.indention = false;
    }

    fn single_quoted(&mut self, text: &str, may_fold: bool) {
        self.indicator("'", true, false, false);
        let mut spaces = false;
        let mut breaks = false;
        let mut chars = text.chars().peekable();
        let mut first = true;
        while let Some(c) = chars.next() {
            let inner = !first && chars.peek().is_some();
            first = false;
            if c == ' ' {
                if may_fold && !spaces && self.column > WIDTH && inner && chars.peek() != Some(&' ') {
                    self.write_indent();
                } else {
                    self.put(' ');
                }
                spaces = true;
            } else if is_break(c) {
                if !breaks && c == '\n' {
                    self.line_break();
                }
                self.break_as(c);
                self.indention = true;
                breaks = true;
            } else {
                if breaks {
                    self.write_indent();
                }
                self.put(c);
                if c == '\'' {
                    self.put('\'');
                }
                self.indention = false;
                spaces = false;
                breaks = false;
            }
        }
        self.indicator("'", false, false, false);
        self.whitespace = false;
        self.indention = false;
    }

    fn double_quoted(&mut self, text: &str, may_fold: bool) {
        self.indicator("\"", true, false, false);
        let mut spaces = false;
        let mut first = true;
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            let inner = !first && chars.peek().is_some();
            first = false;
            if !is_printable(c) || is_break(c) || c == '"' || c == '\\' {
                self.escape(c);
                spaces = false;
            } else if c == ' ' {
                if may_fold && !spaces && self.column > WIDTH && inner {
                    self.write_indent();
                    if chars.peek() == Some(&' ') {
                        self.put('\\');
                    }
                } else {
                    self.put(' ');
                }
                spaces = true;
            } else {
                self.put(c);
                spaces = false;
            }
        }
        self.indicator("\"", false, false, false);
        self.whitespace = false;
        self.indention = false;
    }

    fn escape(&mut self, c: char) {
        let short = match c {
            '\0' => '0',
            '\x07' => 'a',
            '\x08' => 'b',
            '\t' => 't',
            '\n' => 'n',
            '\x0b' => 'v',
            '\x0c' => 'f',
            '\r' => 'r',
            '\x1b' => 'e',
            '"' => '"',
            '\\' => '\\',
            '\u{85}' => 'N',
            '\u{a0}' => '_',
            '\u{2028}' => 'L',
            '\u{2029}' => 'P',
            _ => {
                let code = match u32::from(c) {
                    code @ ..=0xFF => format!("\\x{code:02X}"),
                    code @ ..=0xFFFF => format!("\\u{code:04X}"),
                    code => format!("\\U{code:08X}"),
                };
                return code.chars().for_each(|c| self.put(c));
            }
        };
        self.put('\\');
        self.put(short);
    }

    fn literal(&mut self, text: &str) {
        self.indicator("|", true, false, false);
        if text.starts_with(|c| c == ' ' || is_break(c)) {
            self.indicator("2", false, false, false);
        }
        let mut tail = text.chars().rev();
        match (tail.next(), tail.next()) {
            (Some(last), _) if !is_break(last) => self.indicator("-", false, false, false),
            (Some(_), None) => self.indicator("+", false, false, false),
            (Some(_), Some(before)) if is_break(before) => self.indicator("+", false, false, false),
            _ => {}
        }
        self.line_break();
        self.indention = true;
        self.whitespace = true;
        let mut breaks = true;
        for c in text.chars() {
            if is_break(c) {
                self.break_as(c);
                self.indention = true;
                breaks = true;
            } else {
                if breaks {
                    self.write_indent();
                }
                self.put(c);
                self.indention = false;
                breaks = false;
            }
        }
    }
}
