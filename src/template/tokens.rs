//! Tokens that were read ahead of the parser, up to three.

use super::lexer::{Kind, Lexer, Token};

/// The last tokens, of which `peeked` are still to be given. The parser's errors name the line of the last one read.
pub(super) struct Lookahead {
    last: Token,
    second: Token,
    third: Token,
    peeked: usize,
}

impl Default for Lookahead {
    fn default() -> Self {
        Self { last: Token::none(), second: Token::none(), third: Token::none(), peeked: 0 }
    }
}

impl Lookahead {
    pub(super) fn next(&mut self, lexer: &mut Lexer<'_>) -> Token {
        if self.peeked == 0 {
            self.last = lexer.next_token();
        } else {
            self.peeked -= 1;
        }
        match self.peeked {
            0 => self.last.clone(),
            1 => self.second.clone(),
            _ => self.third.clone(),
        }
    }

    pub(super) fn next_non_space(&mut self, lexer: &mut Lexer<'_>) -> Token {
        loop {
            let token = self.next(lexer);
            if token.kind != Kind::Space {
                return token;
            }
        }
    }

    pub(super) fn peek(&mut self, lexer: &mut Lexer<'_>) -> Token {
        let token = self.next(lexer);
        self.backup();
        token
    }

    /// Gives the token that was given last again.
    pub(super) fn backup(&mut self) {
        self.peeked += 1;
    }

    /// Puts a token back before the one that was peeked at.
    pub(super) fn backup2(&mut self, token: Token) {
        self.second = token;
        self.peeked = 2;
    }

    /// Puts two tokens back before the one that was peeked at.
    pub(super) fn backup3(&mut self, first: Token, second: Token) {
        self.second = second;
        self.third = first;
        self.peeked = 3;
    }

    /// The line of the last token that was read.
    pub(super) fn line(&self) -> usize {
        self.last.line
    }
}

/// The name of a field without its dot.
pub(super) fn field_name(token: &Token) -> String {
    token.text.trim_start_matches('.').to_owned()
}
