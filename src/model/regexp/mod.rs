//! Regular expressions with the meaning that they have in Go (RE2 syntax), over regex-automata.
//!
//! A parser of our own reads Go's syntax (`parser`), because Rust's differs in some forty ways: `\d`, `\w` and `\b` are
//! ASCII, `\Q…\E` and octal escapes exist, `{` may be a literal, classes have no set operations. What selectors mostly
//! hold — literals, lists, prefixes — is then decided without an automaton (`fast`).

mod ast;
mod budget;
mod class;
mod expand;
mod fast;
mod memo;
mod parser;

use std::borrow::Cow;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use regex_automata::meta::Regex;
use regex_automata::util::captures::Captures as Slots;
use regex_syntax::hir::{Hir, Look};

use self::ast::Ast;
pub use self::budget::{Account, within};
use self::fast::Fast;
use self::memo::Form;
use self::parser::{Flags, Parsed};

/// Largest compiled program, in bytes; a larger one is refused instead of filling memory.
const PROGRAM_LEN_MAX: usize = 64 << 20;
/// Longest pattern whose program is built only when groups are asked for; it fits into the limit whatever it holds.
const LAZY_PATTERN_LEN_MAX: usize = 16 << 10;

/// Why a pattern is not a regular expression; the text is Go's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("error parsing regexp: {code}: `{part}`")]
pub struct RegexpError {
    code: &'static str,
    part: String,
}

impl RegexpError {
    fn new(code: &'static str, part: &str) -> Self {
        Self { code, part: part.to_owned() }
    }

    fn too_large(pattern: &str) -> Self {
        Self::new("expression too large", pattern)
    }
}

/// A compiled expression; clones share it.
#[derive(Clone)]
pub struct Regexp {
    pattern: Arc<str>,
    shared: Arc<Shared>,
}

struct Shared {
    hir: Hir,
    group_names: Vec<String>,
    /// True for expressions that match a text as a whole or not at all.
    anchored: bool,
    prefix: String,
    fast: Option<Fast>,
    program: OnceLock<Option<Regex>>,
    /// What the expression was charged with, its tree left out.
    charged: OnceLock<usize>,
}

/// A match and its groups.
pub struct Captures<'r, 't> {
    regexp: &'r Regexp,
    text: &'t str,
    groups: Groups,
}

enum Groups {
    /// Group 0 and perhaps group 1 are the whole text, and there is none beyond.
    Whole {
        count: usize,
    },
    Slots(Slots),
}

impl Regexp {
    /// Compiles `^(?s:pattern)$`, the form of matchers. Errors quote the pattern as it stands.
    pub fn anchored(pattern: &str) -> Result<Self, RegexpError> {
        memo::get_or_compile(Form::Anchored, pattern, || Self::compile_anchored(pattern))
    }

    fn compile_anchored(pattern: &str) -> Result<Self, RegexpError> {
        let parsed = Self::parse(pattern, Flags { dot_nl: true, ..Flags::default() })?;
        let ast = Ast::concat(vec![Ast::Look(Look::Start), parsed.ast, Ast::Look(Look::End)]);
        Self::compile(pattern, pattern, Parsed { ast, ..parsed })
    }

    /// Compiles the text `^(?s:pattern)$`, the form of relabelling and `label_replace`. It differs from
    /// [`Regexp::anchored`] where the pattern does not stand by itself (`a)(b`), and errors quote the whole text.
    pub fn wrapped(pattern: &str) -> Result<Self, RegexpError> {
        memo::get_or_compile(Form::Wrapped, pattern, || {
            let full = format!("^(?s:{pattern})$");
            Self::compile(pattern, &full, Self::parse(&full, Flags::default())?)
        })
    }

    /// Compiles the pattern as it stands, for templates' `match` and `reReplaceAll`.
    pub fn unanchored(pattern: &str) -> Result<Self, RegexpError> {
        Self::compile(pattern, pattern, Self::parse(pattern, Flags::default())?)
    }

    /// The pattern as written, without anchors.
    pub fn pattern(&self) -> &str {
        &self.pattern
    }

    /// Bytes of the program, if it is built.
    fn program_len(&self) -> usize {
        self.shared.program.get().and_then(Option::as_ref).map_or(0, Regex::memory_usage)
    }

    /// True if the text matches.
    pub fn is_match(&self, text: &str) -> bool {
        if let Some(fast) = &self.shared.fast {
            return fast.is_match(text);
        }
        text.starts_with(&self.shared.prefix) && self.shared.program().is_some_and(|program| program.is_match(text))
    }

    /// True if the bytes match; each byte that is not part of valid UTF-8 counts as one U+FFFD, as in Go.
    pub fn is_match_bytes(&self, raw: &[u8]) -> bool {
        match std::str::from_utf8(raw) {
            Ok(text) => self.is_match(text),
            Err(_) => self.is_match(&replace_invalid(raw)),
        }
    }

    /// All texts that match, if the expression is anchored and says the same as a list of literals. The list may hold
    /// the empty text, and may be empty if nothing matches.
    pub fn set_matches(&self) -> Option<&[String]> {
        self.shared.fast.as_ref().and_then(Fast::set)
    }

    /// A text that everything that matches starts with, if the expression is anchored and there is one.
    pub fn prefix(&self) -> Option<&str> {
        (!self.shared.prefix.is_empty()).then_some(self.shared.prefix.as_str())
    }

    /// Number of groups, the whole match included.
    pub fn group_count(&self) -> usize {
        self.shared.group_names.len()
    }

    /// The first match with its groups.
    pub fn captures<'r, 't>(&'r self, text: &'t str) -> Option<Captures<'r, 't>> {
        if self.shared.anchored && self.shared.whole_groups() {
            let groups = Groups::Whole { count: self.group_count() };
            return self.is_match(text).then_some(Captures { regexp: self, text, groups });
        }
        if self.shared.fast.as_ref().is_some_and(|fast| !fast.is_match(text)) {
            return None;
        }
        let program = self.shared.program()?;
        let mut slots = program.create_captures();
        program.captures(text, &mut slots);
        slots.is_match().then_some(Captures { regexp: self, text, groups: Groups::Slots(slots) })
    }

    /// The template with the groups of the first match filled in, or `None` if nothing matches.
    pub fn expand_match(&self, text: &str, template: &str) -> Option<String> {
        Some(self.captures(text)?.expand(template))
    }

    /// The text with every match replaced by the template with its groups filled in (`ReplaceAllString`).
    pub fn replace_all(&self, text: &str, template: &str) -> String {
        if self.shared.anchored {
            return self.expand_match(text, template).unwrap_or_else(|| text.to_owned());
        }
        let Some(program) = self.shared.program() else { return text.to_owned() };
        let mut out = String::with_capacity(text.len());
        let mut done = 0;
        for slots in program.captures_iter(text) {
            let Some(found) = slots.get_match() else { continue };
            out.push_str(text.get(done..found.start()).unwrap_or(""));
            Captures { regexp: self, text, groups: Groups::Slots(slots) }.expand_into(&mut out, template);
            done = found.end();
        }
        out.push_str(text.get(done..).unwrap_or(""));
        out
    }

    /// Charges an expression that was compiled before as if it were compiled now: what a query may ask for does not depend on
    /// what others have asked.
    fn charged_again(self, form: Form) -> Result<Self, RegexpError> {
        let full = match form {
            Form::Anchored => self.pattern.to_string(),
            Form::Wrapped => format!("^(?s:{})$", self.pattern),
        };
        let len = self.shared.charged.get().copied().unwrap_or(0);
        if budget::spend_tree(&full) && budget::spend(len) { Ok(self) } else { Err(RegexpError::too_large(&full)) }
    }

    fn parse(pattern: &str, flags: Flags) -> Result<Parsed, RegexpError> {
        if !budget::spend_tree(pattern) {
            return Err(RegexpError::too_large(pattern));
        }
        parser::parse(pattern, flags)
    }

    fn compile(pattern: &str, full: &str, parsed: Parsed) -> Result<Self, RegexpError> {
        let Parsed { ast, group_names } = parsed;
        let inner = fast::between_anchors(&ast.simplified());
        let shared = Shared {
            hir: ast.to_hir(),
            group_names,
            anchored: inner.is_some(),
            prefix: inner.as_ref().map(|i| i.literal_prefix().0).unwrap_or_default(),
            fast: inner.as_ref().and_then(Fast::new),
            program: OnceLock::new(),
            charged: OnceLock::new(),
        };
        let needs_program = shared.fast.is_none() || !shared.whole_groups() && full.len() > LAZY_PATTERN_LEN_MAX;
        let program_len = match needs_program.then(|| shared.program()) {
            Some(Some(program)) => program.memory_usage().saturating_add(budget::PROGRAM_LEN_BASE),
            // Made later, if at all.
            None => pattern.len().saturating_mul(budget::PROGRAM_LEN_PER_BYTE),
            Some(None) => usize::MAX,
        };
        if program_len == usize::MAX || !budget::spend(program_len) {
            return Err(RegexpError::too_large(full));
        }
        let _ = shared.charged.set(program_len);
        Ok(Self { pattern: pattern.into(), shared: Arc::new(shared) })
    }
}

/// Two expressions are equal if they are written alike and anchored alike.
impl PartialEq for Regexp {
    fn eq(&self, other: &Self) -> bool {
        self.pattern == other.pattern && self.shared.anchored == other.shared.anchored
    }
}
impl Eq for Regexp {}

impl std::fmt::Debug for Regexp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Regexp(`{}`)", self.pattern)
    }
}

impl Shared {
    /// The automaton, built on first use. `None` only for programs over the limit, which no constructor lets pass.
    fn program(&self) -> Option<&Regex> {
        self.program
            .get_or_init(|| {
                let config = Regex::config().nfa_size_limit(Some(PROGRAM_LEN_MAX));
                Regex::builder().configure(config).build_from_hir(&self.hir).ok()
            })
            .as_ref()
    }

    /// True if every group spans the whole match: there is none, or the one of `(.*)`.
    fn whole_groups(&self) -> bool {
        self.group_names.len() == 1 || self.group_names.len() == 2 && self.hir_is_one_group()
    }

    fn hir_is_one_group(&self) -> bool {
        use regex_syntax::hir::HirKind;
        match self.hir.kind() {
            HirKind::Concat(parts) => matches!(
                parts.iter().map(Hir::kind).collect::<Vec<_>>().as_slice(),
                [HirKind::Look(Look::Start), HirKind::Capture(_), HirKind::Look(Look::End)]
            ),
            _ => false,
        }
    }
}

impl<'t> Captures<'_, 't> {
    /// The text of group `index`, 0 being the whole match; `None` if it took no part or there is no such group.
    pub fn get(&self, index: usize) -> Option<&'t str> {
        self.text.get(self.place(index)?)
    }

    /// The template with the groups filled in (`Regexp.Expand`).
    pub fn expand(&self, template: &str) -> String {
        let mut out = String::with_capacity(template.len() + self.text.len());
        self.expand_into(&mut out, template);
        out
    }

    fn expand_into(&self, out: &mut String, template: &str) {
        expand::expand(out, template, self.text, &self.regexp.shared.group_names, |i| self.place(i));
    }

    fn place(&self, index: usize) -> Option<Range<usize>> {
        match &self.groups {
            Groups::Whole { count } => (index < *count).then_some(0..self.text.len()),
            Groups::Slots(slots) => slots.get_group(index).map(|span| span.range()),
        }
    }
}

/// The text with U+FFFD for each byte that is not part of valid UTF-8.
fn replace_invalid(raw: &[u8]) -> Cow<'_, str> {
    let mut out = String::with_capacity(raw.len());
    for chunk in raw.utf8_chunks() {
        out.push_str(chunk.valid());
        out.extend(chunk.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER));
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests;
