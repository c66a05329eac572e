//! The strict syntax: names and values are any text, quoted as in Go where they hold reserved characters. Errors carry the
//! columns of the text at fault.

use super::{AlertMatcher, is_reserved};
use crate::model::matcher::MatchOp;

/// Parses matchers between optional braces.
pub fn parse_list(input: &str) -> Result<Vec<AlertMatcher>, String> {
    let mut lexer = Lexer { input, pos: 0, column: 0 };
    let mut matchers = Vec::new();
    let Some(first) = lexer.peek()? else { return Ok(matchers) };
    let braced = first.kind == Kind::OpenBrace;
    if braced {
        lexer.next()?;
        match lexer.peek()? {
            None => return lexer.close(braced).map(|()| matchers),
            Some(token) if token.kind == Kind::CloseBrace => return lexer.close(braced).map(|()| matchers),
            Some(_) => {}
        }
    } else if first.kind == Kind::CloseBrace {
        return lexer.close(braced).map(|()| matchers);
    }
    loop {
        matchers.push(matcher(&mut lexer)?);
        let wanted = "expected a comma or close brace";
        match lexer.expect_peek(&[Kind::Comma, Kind::CloseBrace], wanted)? {
            Some(Kind::Comma) => drop(lexer.next()?),
            _ => break,
        }
        let wanted = "expected a matcher or close brace after comma";
        match lexer.expect_peek(&[Kind::CloseBrace, Kind::Unquoted, Kind::Quoted], wanted)? {
            Some(Kind::Unquoted | Kind::Quoted) => {}
            _ => break,
        }
    }
    lexer.close(braced).map(|()| matchers)
}

/// Parses exactly one matcher.
pub fn parse_one(input: &str) -> Result<AlertMatcher, String> {
    let mut matchers = parse_list(input)?;
    match (matchers.pop(), matchers.len()) {
        (Some(matcher), 0) => Ok(matcher),
        (None, _) => Err("no matchers".to_owned()),
        (Some(_), before) => Err(format!("expected 1 matcher, found {}", before + 1)),
    }
}

fn matcher(lexer: &mut Lexer<'_>) -> Result<AlertMatcher, String> {
    let name = lexer.expect(&[Kind::Quoted, Kind::Unquoted], "expected label name")?.text()?;
    let operators = [Kind::Equal, Kind::NotEqual, Kind::Regex, Kind::NotRegex];
    let op = lexer.expect(&operators, "expected an operator such as '=', '!=', '=~' or '!~'")?;
    let op = match op.kind {
        Kind::Regex => MatchOp::Regex,
        Kind::NotEqual => MatchOp::NotEqual,
        Kind::NotRegex => MatchOp::NotRegex,
        _ => MatchOp::Equal,
    };
    let value = lexer.expect(&[Kind::Unquoted, Kind::Quoted], "expected label value")?.text()?;
    AlertMatcher::new(op, &name, &value).map_err(|error| format!("failed to create matcher: {error}"))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    OpenBrace,
    CloseBrace,
    Comma,
    Equal,
    NotEqual,
    Regex,
    NotRegex,
    Quoted,
    Unquoted,
}

#[derive(Clone, Copy)]
struct Token<'a> {
    kind: Kind,
    value: &'a str,
    /// Columns of its first character and behind its last.
    start: usize,
    end: usize,
}

impl Token<'_> {
    fn text(&self) -> Result<String, String> {
        if self.kind != Kind::Quoted {
            return Ok(self.value.to_owned());
        }
        unquote(self.value).ok_or_else(|| format!("{}:{}: {}: invalid input", self.start, self.end, self.value))
    }
}

struct Lexer<'a> {
    input: &'a str,
    pos: usize,
    column: usize,
}

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a str {
        self.input.get(self.pos..).unwrap_or("")
    }

    /// The next token without taking it; `None` at the end.
    fn peek(&self) -> Result<Option<Token<'a>>, String> {
        let mut ahead = Self { ..*self };
        ahead.next()
    }

    fn next(&mut self) -> Result<Option<Token<'a>>, String> {
        let spaces: usize = self.rest().chars().take_while(|c| c.is_whitespace()).map(char::len_utf8).sum();
        self.take(spaces);
        let rest = self.rest();
        let Some(first) = rest.chars().next() else { return Ok(None) };
        let (start, after) = (self.column, rest.get(first.len_utf8()..).unwrap_or(""));
        let (kind, len) = match first {
            '{' => (Kind::OpenBrace, 1),
            '}' => (Kind::CloseBrace, 1),
            ',' => (Kind::Comma, 1),
            '=' if after.starts_with('~') => (Kind::Regex, 2),
            '=' => (Kind::Equal, 1),
            '!' if after.starts_with('=') => (Kind::NotEqual, 2),
            '!' if after.starts_with('~') => (Kind::NotRegex, 2),
            '!' if after.is_empty() => {
                let end = start + 1;
                return Err(format!("{start}:{end}: unexpected end of input, expected one of '=~'"));
            }
            '!' => return Err(format!("{start}:{}: !: expected one of '=~'", start + 1)),
            '"' => match closing_quote(after) {
                Some(at) => (Kind::Quoted, at + 2),
                None => {
                    let end = start + rest.chars().count();
                    return Err(format!("{start}:{end}: {rest}: missing end \""));
                }
            },
            c if !is_reserved(c) => (Kind::Unquoted, rest.find(is_reserved).unwrap_or(rest.len())),
            c => return Err(format!("{start}:{}: {c}: invalid input", start + 1)),
        };
        let value = self.take(len);
        Ok(Some(Token { kind, value, start, end: self.column }))
    }

    fn take(&mut self, len: usize) -> &'a str {
        let taken = self.rest().get(..len).unwrap_or("");
        self.pos += taken.len();
        self.column += taken.chars().count();
        taken
    }

    /// The kind of the next token, which must be one of these; `None` at the end.
    fn expect_peek(&self, kinds: &[Kind], wanted: &str) -> Result<Option<Kind>, String> {
        let token = self.peek().map_err(|error| format!("{error}: {wanted}"))?;
        match token {
            Some(token) if !kinds.contains(&token.kind) => {
                Err(format!("{}:{}: unexpected {}: {wanted}", token.start, token.end, token.value))
            }
            token => Ok(token.map(|token| token.kind)),
        }
    }

    fn expect(&mut self, kinds: &[Kind], wanted: &str) -> Result<Token<'a>, String> {
        self.expect_peek(kinds, wanted)?;
        self.next()?.ok_or_else(|| format!("end of input: {wanted}"))
    }

    /// The closing brace if there was an opening one, and the end.
    fn close(&mut self, braced: bool) -> Result<(), String> {
        let column = self.column;
        if braced {
            let at = |error: String| format!("0:{column}: {error}: expected close brace");
            match self.peek().map_err(at)? {
                None => return Err(at("end of input".to_owned())),
                Some(token) if token.kind != Kind::CloseBrace => {
                    return Err(at(format!("{}:{}: unexpected {}", token.start, token.end, token.value)));
                }
                Some(_) => drop(self.next()?),
            }
        } else if let Ok(Some(token)) = self.peek()
            && token.kind == Kind::CloseBrace
        {
            return Err(format!("0:{}: }}: expected opening brace", token.end));
        }
        match self.next().map_err(|error| format!("{error}: expected end of input"))? {
            Some(token) => Err(format!("{}:{}: {}: expected end of input", token.start, token.end, token.value)),
            None => Ok(()),
        }
    }
}

/// Offset of the quote that ends a quoted text.
fn closing_quote(text: &str) -> Option<usize> {
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return Some(at),
            _ => {}
        }
    }
    None
}

/// Go's `strconv.Unquote` for double quotes; `None` for what it refuses, and for what is not UTF-8 afterwards.
fn unquote(quoted: &str) -> Option<String> {
    let inner = quoted.strip_prefix('"')?.strip_suffix('"')?;
    let mut out: Vec<u8> = Vec::with_capacity(inner.len());
    let mut rest = inner;
    while let Some(c) = rest.chars().next() {
        rest = rest.get(c.len_utf8()..)?;
        if c == '\n' {
            return None;
        }
        if c != '\\' {
            out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            continue;
        }
        let escape = rest.chars().next()?;
        rest = rest.get(escape.len_utf8()..)?;
        let simple = match escape {
            'a' => Some(7),
            'b' => Some(8),
            'f' => Some(12),
            'n' => Some(b'\n'),
            'r' => Some(b'\r'),
            't' => Some(b'\t'),
            'v' => Some(11),
            '\\' => Some(b'\\'),
            '"' => Some(b'"'),
            _ => None,
        };
        if let Some(byte) = simple {
            out.push(byte);
            continue;
        }
        let (digits, radix) = match escape {
            'x' => (2, 16),
            'u' => (4, 16),
            'U' => (8, 16),
            '0'..='7' => (2, 8),
            _ => return None,
        };
        let number = rest.get(..digits).filter(|number| number.chars().all(|c| c.is_digit(radix)))?;
        let value = u32::from_str_radix(number, radix).ok()?;
        rest = rest.get(digits..)?;
        match escape {
            'x' => out.push(u8::try_from(value).ok()?),
            'u' | 'U' => out.extend_from_slice(char::from_u32(value)?.encode_utf8(&mut [0; 4]).as_bytes()),
            first => out.push(u8::try_from(first.to_digit(8)? * 64 + value).ok()?),
        }
    }
    String::from_utf8(out).ok()
}
