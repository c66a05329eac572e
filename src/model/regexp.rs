//! Regular expressions with the meaning that they have in Go (RE2 syntax), over regex-automata.

use std::sync::Arc;

use regex_automata::meta::Regex;
use regex_automata::util::syntax;

/// Largest compiled program, in bytes; a larger one is refused instead of filling memory.
const PROGRAM_LEN_MAX: usize = 4 << 20;

/// Why a pattern is not a regular expression.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("error parsing regexp: {message}")]
pub struct RegexpError {
    message: String,
}

/// A compiled expression; clones share it.
#[derive(Clone, Debug)]
pub struct Regexp {
    pattern: Arc<str>,
    program: Arc<Regex>,
}

impl Regexp {
    /// Compiles `^(?s:pattern)$`, the form of matchers, relabelling and `label_replace`.
    pub fn anchored(pattern: &str) -> Result<Self, RegexpError> {
        Self::compile(pattern, &format!("^(?s:{pattern})$"))
    }

    /// Compiles the pattern as it stands, for templates' `match` and `reReplaceAll`.
    pub fn unanchored(pattern: &str) -> Result<Self, RegexpError> {
        Self::compile(pattern, pattern)
    }

    fn compile(pattern: &str, full: &str) -> Result<Self, RegexpError> {
        // The pattern has to stand by itself: `a)(b` must not borrow the parentheses around it.
        let check = regex_syntax::ParserBuilder::new().build().parse(pattern);
        check.map_err(|e| RegexpError { message: e.to_string() })?;
        let program = Regex::builder()
            .configure(Regex::config().nfa_size_limit(Some(PROGRAM_LEN_MAX)))
            .syntax(syntax::Config::new().unicode(true))
            .build(full)
            .map_err(|e| RegexpError { message: e.to_string() })?;
        Ok(Self { pattern: pattern.into(), program: Arc::new(program) })
    }

    /// The pattern as written, without anchors.
    pub fn pattern(&self) -> &str {
        &self.pattern
    }

    /// True if the text matches.
    pub fn is_match(&self, text: &str) -> bool {
        self.program.is_match(text)
    }
}
