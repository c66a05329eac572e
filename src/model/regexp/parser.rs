//! Parser of Go's regular expressions (`regexp/syntax` with the flags of `regexp.Compile`).
//!
//! It keeps the open groups on a list of its own instead of recursing, and reports what Go reports, in Go's words.

#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

use regex_syntax::hir::{ClassUnicode, Look};

use super::RegexpError;
use super::ast::Ast;
use super::class;

/// Deepest nesting of groups. Go allows 1000; deeper trees than this would need more stack than a worker has.
const NESTING_MAX: usize = 250;
/// Largest count in `{n,m}`, and largest product of nested counts.
const REPEAT_MAX: u32 = 1000;
/// Largest program in Go's instructions (its limit of 128 MiB).
const PROGRAM_LEN_MAX: u64 = (128 << 20) / 40;

/// What `(?ims-U)` switches.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Flags {
    /// `i`: letters match either case.
    pub fold: bool,
    /// `m`: `^` and `$` match at lines as well.
    pub multi_line: bool,
    /// `s`: the dot matches line feeds.
    pub dot_nl: bool,
    /// `U`: repetitions prefer few.
    pub ungreedy: bool,
}

/// A parsed pattern.
#[derive(Debug)]
pub(super) struct Parsed {
    pub ast: Ast,
    /// Names of the groups, group 0 (the whole match) first; the empty string for nameless ones.
    pub group_names: Vec<String>,
}

/// Parses `pattern`; the error carries Go's text.
pub(super) fn parse(pattern: &str, flags: Flags) -> Result<Parsed, RegexpError> {
    let mut parser = Parser {
        whole: pattern,
        flags,
        groups: Vec::new(),
        top: Level::default(),
        names: vec![String::new()],
        last_repeat: None,
    };
    parser.run()?;
    let names = parser.names;
    let ast = parser.top.finish();
    if ast.program_len() > PROGRAM_LEN_MAX {
        return Err(RegexpError::new("expression too large", pattern));
    }
    Ok(Parsed { ast, group_names: names })
}

/// Alternatives before the current one, and the parts of the current one.
#[derive(Default)]
struct Level {
    alternatives: Vec<Ast>,
    parts: Vec<Ast>,
}

impl Level {
    fn finish(mut self) -> Ast {
        self.alternatives.push(Ast::concat(self.parts));
        Ast::alternate(self.alternatives)
    }
}

/// An open parenthesis: what stood before it.
struct Group {
    outer: Level,
    flags: Flags,
    capture: Option<u32>,
}

struct Parser<'a> {
    whole: &'a str,
    flags: Flags,
    groups: Vec<Group>,
    top: Level,
    names: Vec<String>,
    /// The rest of the pattern from the repetition operator on that was read last, if it was read last.
    last_repeat: Option<&'a str>,
}

impl<'a> Parser<'a> {
    fn run(&mut self) -> Result<(), RegexpError> {
        let mut rest = self.whole;
        while let Some(c) = rest.chars().next() {
            let before = rest;
            let mut repeat = None;
            let after_c = tail(rest, c.len_utf8());
            rest = match c {
                '(' if rest.starts_with("(?") => self.group_or_flags(rest)?,
                '(' => {
                    self.names.push(String::new());
                    let index = self.last_group();
                    self.open(Some(index))?;
                    after_c
                }
                '|' => {
                    let parts = std::mem::take(&mut self.top.parts);
                    self.top.alternatives.push(Ast::concat(parts));
                    after_c
                }
                ')' => {
                    self.close()?;
                    after_c
                }
                '^' => self.push(Ast::Look(if self.flags.multi_line { Look::StartLF } else { Look::Start }), after_c),
                '$' => self.push(Ast::Look(if self.flags.multi_line { Look::EndLF } else { Look::End }), after_c),
                '.' => self.push(if self.flags.dot_nl { Ast::AnyChar } else { Ast::AnyCharNotNl }, after_c),
                '[' => {
                    let (class, after) = self.class(rest)?;
                    self.push(Ast::class(class), after)
                }
                '*' | '+' | '?' => {
                    repeat = Some(before);
                    let (min, max) = match c {
                        '*' => (0, None),
                        '+' => (1, None),
                        _ => (0, Some(1)),
                    };
                    self.repeat(min, max, before, after_c)?
                }
                '{' => match counted(rest) {
                    Some((min, max, after)) => {
                        repeat = Some(before);
                        self.counted(min, max, before, after)?
                    }
                    None => self.push_rune(u32::from('{'), after_c),
                },
                '\\' => self.escape(rest)?,
                _ => self.push_rune(u32::from(c), after_c),
            };
            self.last_repeat = repeat;
        }
        if self.groups.is_empty() { Ok(()) } else { Err(RegexpError::new("missing closing )", self.whole)) }
    }

    fn last_group(&self) -> u32 {
        u32::try_from(self.names.len() - 1).unwrap_or(u32::MAX)
    }

    fn push(&mut self, ast: Ast, rest: &'a str) -> &'a str {
        self.top.parts.push(ast);
        rest
    }

    fn push_rune(&mut self, rune: u32, rest: &'a str) -> &'a str {
        self.push(Ast::literal(rune, self.flags.fold), rest)
    }

    fn open(&mut self, capture: Option<u32>) -> Result<(), RegexpError> {
        if self.groups.len() >= NESTING_MAX {
            return Err(RegexpError::new("expression nests too deeply", self.whole));
        }
        let outer = std::mem::take(&mut self.top);
        self.groups.push(Group { outer, flags: self.flags, capture });
        Ok(())
    }

    fn close(&mut self) -> Result<(), RegexpError> {
        let group = self.groups.pop().ok_or_else(|| RegexpError::new("unexpected )", self.whole))?;
        let inner = std::mem::replace(&mut self.top, group.outer).finish();
        self.flags = group.flags;
        self.top.parts.push(match group.capture {
            Some(index) => Ast::Capture(index, Box::new(inner)),
            None => inner,
        });
        Ok(())
    }

    /// `(?:`, `(?i)`, `(?i-s:`, `(?P<name>`, `(?<name>`.
    fn group_or_flags(&mut self, text: &'a str) -> Result<&'a str, RegexpError> {
        let named = text.strip_prefix("(?P<").or_else(|| text.strip_prefix("(?<"));
        if let Some(after) = named.filter(|after| !after.is_empty()) {
            let Some((name, rest)) = after.split_once('>') else {
                return Err(RegexpError::new("invalid named capture", text));
            };
            if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
                return Err(RegexpError::new("invalid named capture", cut(text, rest)));
            }
            self.names.push(name.to_owned());
            let index = self.last_group();
            self.open(Some(index))?;
            return Ok(rest);
        }
        let mut rest = tail(text, 2);
        let mut flags = self.flags;
        let mut negative = false;
        let mut saw_flag = false;
        while let Some(c) = rest.chars().next() {
            rest = tail(rest, c.len_utf8());
            match c {
                'i' => flags.fold = !negative,
                'm' => flags.multi_line = !negative,
                's' => flags.dot_nl = !negative,
                'U' => flags.ungreedy = !negative,
                '-' if !negative => {
                    negative = true;
                    saw_flag = false;
                    continue;
                }
                ':' | ')' if !negative || saw_flag => {
                    if c == ':' {
                        self.open(None)?;
                    }
                    self.flags = flags;
                    return Ok(rest);
                }
                _ => break,
            }
            saw_flag = true;
        }
        Err(RegexpError::new("invalid or unsupported Perl syntax", cut(text, rest)))
    }

    fn counted(
        &mut self,
        min: Option<u32>,
        max: Option<Option<u32>>,
        before: &'a str,
        after: &'a str,
    ) -> Result<&'a str, RegexpError> {
        let too_large = || RegexpError::new("invalid repeat count", cut(before, after));
        let min = min.filter(|min| *min <= REPEAT_MAX).ok_or_else(too_large)?;
        let max = match max {
            None => None,
            Some(max) => Some(max.filter(|max| *max <= REPEAT_MAX && min <= *max).ok_or_else(too_large)?),
        };
        let rest = self.repeat(min, max, before, after)?;
        let counts = 2 <= min || max.is_some_and(|max| 2 <= max);
        if counts && !self.top.parts.last().is_some_and(|ast| ast.repeats_at_most(REPEAT_MAX)) {
            return Err(RegexpError::new("invalid repeat count", cut(before, rest)));
        }
        Ok(rest)
    }

    fn repeat(&mut self, min: u32, max: Option<u32>, before: &'a str, after: &'a str) -> Result<&'a str, RegexpError> {
        let (after, lazy) = after.strip_prefix('?').map_or((after, false), |rest| (rest, true));
        if let Some(last) = self.last_repeat {
            return Err(RegexpError::new("invalid nested repetition operator", cut(last, after)));
        }
        let Some(sub) = self.top.parts.pop() else {
            return Err(RegexpError::new("missing argument to repetition operator", cut(before, after)));
        };
        let greedy = lazy == self.flags.ungreedy;
        self.top.parts.push(Ast::Repeat { min, max, greedy, sub: Box::new(sub) });
        Ok(after)
    }

    fn escape(&mut self, text: &'a str) -> Result<&'a str, RegexpError> {
        let Some(c) = text.chars().nth(1) else {
            return Err(RegexpError::new("trailing backslash at end of expression", ""));
        };
        let rest = tail(text, 1 + c.len_utf8());
        match c {
            'A' => return Ok(self.push(Ast::Look(Look::Start), rest)),
            'z' => return Ok(self.push(Ast::Look(Look::End), rest)),
            'b' => return Ok(self.push(Ast::Look(Look::WordAscii), rest)),
            'B' => return Ok(self.push(Ast::Look(Look::WordAsciiNegate), rest)),
            'C' => return Err(RegexpError::new("invalid escape sequence", "\\C")),
            'Q' => {
                let (literal, rest) = rest.split_once("\\E").unwrap_or((rest, ""));
                for c in literal.chars() {
                    self.push_rune(u32::from(c), rest);
                }
                return Ok(rest);
            }
            _ => {}
        }
        if let Some((class, rest)) = self.group_escape(text)? {
            return Ok(self.push(Ast::class(class), rest));
        }
        let (rune, rest) = single_escape(text)?;
        Ok(self.push_rune(rune, rest))
    }

    /// `\pN`, `\p{Greek}`, `\d` and the like at the start of `text`.
    fn group_escape(&self, text: &'a str) -> Result<Option<(ClassUnicode, &'a str)>, RegexpError> {
        let mut chars = text.chars();
        if chars.next() != Some('\\') {
            return Ok(None);
        }
        let Some(letter) = chars.next() else { return Ok(None) };
        if letter != 'p' && letter != 'P' {
            let rest = chars.as_str();
            return Ok(class::perl(letter, self.flags.fold).map(|class| (class, rest)));
        }
        let (name, rest) = match chars.next() {
            // Go reads the missing letter as U+FFFD, which names no table.
            None => return Err(RegexpError::new("invalid character class range", text)),
            Some('{') => match chars.as_str().split_once('}') {
                Some(found) => found,
                None => return Err(RegexpError::new("invalid character class range", text)),
            },
            Some(c) => (cut(tail(text, 2), tail(text, 2 + c.len_utf8())), tail(text, 2 + c.len_utf8())),
        };
        let (plain, negated) = name.strip_prefix('^').map_or((name, false), |n| (n, true));
        let Some(mut class) = class::unicode(plain, self.flags.fold) else {
            return Err(RegexpError::new("invalid character class range", cut(text, rest)));
        };
        if negated != (letter == 'P') {
            class.negate();
        }
        Ok(Some((class, rest)))
    }

    /// `[…]` at the start of `text`.
    fn class(&self, text: &'a str) -> Result<(ClassUnicode, &'a str), RegexpError> {
        let inside = tail(text, 1);
        let (mut rest, negated) = inside.strip_prefix('^').map_or((inside, false), |r| (r, true));
        let mut class = ClassUnicode::empty();
        let mut first = true;
        while first || !rest.starts_with(']') {
            first = false;
            if let Some(named) = rest.strip_prefix("[:").and_then(|r| r.split_once(":]")) {
                let bracketed = cut(rest, named.1);
                let Some(group) = class::posix(bracketed, self.flags.fold) else {
                    return Err(RegexpError::new("invalid character class range", bracketed));
                };
                class.union(&group);
                rest = named.1;
                continue;
            }
            if let Some((group, after)) = self.group_escape(rest)? {
                class.union(&group);
                rest = after;
                continue;
            }
            let range = rest;
            let (low, after) = class_char(rest, text)?;
            rest = after;
            let mut high = low;
            if let Some(after) = rest.strip_prefix('-').filter(|r| !r.is_empty() && !r.starts_with(']')) {
                let (rune, after) = class_char(after, text)?;
                (high, rest) = (rune, after);
                if high < low {
                    return Err(RegexpError::new("invalid character class range", cut(range, rest)));
                }
            }
            class.union(&class::range(low, high, self.flags.fold));
        }
        if negated {
            class.negate();
        }
        Ok((class, tail(rest, 1)))
    }
}

/// One character of a class, escaped or not.
fn class_char<'a>(text: &'a str, whole_class: &str) -> Result<(u32, &'a str), RegexpError> {
    match text.chars().next() {
        None => Err(RegexpError::new("missing closing ]", whole_class)),
        Some('\\') => single_escape(text),
        Some(c) => Ok((u32::from(c), tail(text, c.len_utf8()))),
    }
}

/// An escape that stands for one rune: `\n`, `\x41`, `\x{10FFFF}`, `\101`, `\.`.
fn single_escape(text: &str) -> Result<(u32, &str), RegexpError> {
    let mut chars = text.chars();
    chars.next();
    let Some(c) = chars.next() else {
        return Err(RegexpError::new("trailing backslash at end of expression", ""));
    };
    let bad = |rest: &str| Err(RegexpError::new("invalid escape sequence", cut(text, rest)));
    let rest = chars.as_str();
    let rune = match c {
        // A single digit other than 0 would be a back-reference.
        '1'..='7' if !rest.starts_with(|d: char| d.is_digit(8)) => return bad(rest),
        '0'..='7' => {
            let digits = 1 + rest.bytes().take(2).take_while(|b| (b'0'..=b'7').contains(b)).count();
            let octal = cut(tail(text, 1), tail(text, 1 + digits));
            return Ok((u32::from_str_radix(octal, 8).unwrap_or(0), tail(text, 1 + digits)));
        }
        'x' => return hex_escape(text, rest),
        'a' => 0x07,
        'f' => 0x0c,
        'n' => 0x0a,
        'r' => 0x0d,
        't' => 0x09,
        'v' => 0x0b,
        _ if c.is_ascii() && !c.is_ascii_alphanumeric() => u32::from(c),
        _ => return bad(rest),
    };
    Ok((rune, rest))
}

fn hex_escape<'a>(text: &'a str, digits: &'a str) -> Result<(u32, &'a str), RegexpError> {
    let bad = |rest: &str| Err(RegexpError::new("invalid escape sequence", cut(text, rest)));
    let mut chars = digits.chars();
    let Some(first) = chars.next() else { return bad("") };
    if first != '{' {
        let Some(second) = chars.next() else { return bad("") };
        return match (first.to_digit(16), second.to_digit(16)) {
            (Some(high), Some(low)) => Ok((high * 16 + low, chars.as_str())),
            _ => bad(chars.as_str()),
        };
    }
    let mut rune = 0u32;
    let mut any = false;
    loop {
        match chars.next() {
            Some('}') if any => return Ok((rune, chars.as_str())),
            Some(c) => match c.to_digit(16) {
                Some(digit) if rune * 16 + digit <= u32::from(char::MAX) => rune = rune * 16 + digit,
                _ => return bad(chars.as_str()),
            },
            None => return bad(""),
        }
        any = true;
    }
}

/// `{n}`, `{n,}` or `{n,m}` at the start of `text`: the counts (an inner `None` is a number too large to hold) and the
/// rest. `None` if it has another form, and the brace is a literal.
#[allow(clippy::type_complexity, reason = "used once, right above")]
fn counted(text: &str) -> Option<(Option<u32>, Option<Option<u32>>, &str)> {
    let (min, rest) = integer(text.strip_prefix('{')?)?;
    let (max, rest) = match rest.strip_prefix(',') {
        None => (Some(min), rest),
        Some(rest) if rest.starts_with('}') => (None, rest),
        Some(rest) => {
            let (max, rest) = integer(rest)?;
            (Some(max), rest)
        }
    };
    Some((min, max, rest.strip_prefix('}')?))
}

/// A decimal number without leading zeros; an inner `None` if it is too large.
fn integer(text: &str) -> Option<(Option<u32>, &str)> {
    let len = text.bytes().take_while(u8::is_ascii_digit).count();
    let (digits, rest) = text.split_at_checked(len)?;
    if digits.is_empty() || (digits.len() > 1 && digits.starts_with('0')) {
        return None;
    }
    Some((digits.parse().ok(), rest))
}

/// `text` from byte `at` on; empty if that is no place in it.
fn tail(text: &str, at: usize) -> &str {
    text.get(at..).unwrap_or("")
}

/// The part of `text` before `rest`, which is its end.
fn cut<'a>(text: &'a str, rest: &str) -> &'a str {
    text.get(..text.len().saturating_sub(rest.len())).unwrap_or(text)
}
