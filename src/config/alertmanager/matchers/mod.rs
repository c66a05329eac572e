//! Matchers of alerts, and the text that they are written in.
//!
//! There are two syntaxes: [`classic`], tolerant, with names as before UTF-8, and [`utf8`], strict. Both read each text; if
//! they differ the classic one holds, so that no file changes its meaning (Alertmanager's fallback mode).

mod classic;
mod utf8;

use std::cmp::Ordering;
use std::fmt;

use crate::model::go;
use crate::model::labels::Labels;
use crate::model::matcher::MatchOp;
use crate::model::regexp::Regexp;

/// A condition on one label of an alert; an absent label has the empty value. Differs from PromQL's in that a dot of a
/// regular expression is no line break.
#[derive(Clone, Debug)]
pub struct AlertMatcher {
    name: String,
    op: MatchOp,
    value: String,
    regexp: Option<Regexp>,
}

impl AlertMatcher {
    /// Errors when `op` asks for a regular expression and `value` is none.
    pub fn new(op: MatchOp, name: &str, value: &str) -> Result<Self, String> {
        let regexp = match op {
            MatchOp::Regex | MatchOp::NotRegex => {
                Some(Regexp::unanchored(&format!("^(?:{value})$")).map_err(|error| error.to_string())?)
            }
            MatchOp::Equal | MatchOp::NotEqual => None,
        };
        Ok(Self { name: name.to_owned(), op, value: value.to_owned(), regexp })
    }

    /// `name="value"`, which cannot fail.
    pub fn equal(name: &str, value: &str) -> Self {
        Self { name: name.to_owned(), op: MatchOp::Equal, value: value.to_owned(), regexp: None }
    }

    /// The same condition on another label.
    #[must_use]
    pub(super) fn renamed(self, name: &str) -> Self {
        Self { name: name.to_owned(), ..self }
    }

    /// The label that is looked at.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The comparison.
    pub fn op(&self) -> MatchOp {
        self.op
    }

    /// The right-hand side.
    pub fn value(&self) -> &str {
        &self.value
    }

    /// True if a label value fulfils the condition.
    pub fn matches(&self, value: &str) -> bool {
        let found = self.regexp.as_ref().is_some_and(|regexp| regexp.is_match(value));
        match self.op {
            MatchOp::Equal => value == self.value,
            MatchOp::NotEqual => value != self.value,
            MatchOp::Regex => found,
            MatchOp::NotRegex => !found,
        }
    }

    /// True if a label set fulfils the condition.
    pub fn matches_labels(&self, labels: &Labels) -> bool {
        self.matches(labels.get(&self.name).unwrap_or(""))
    }

    fn key(&self) -> (&str, &str, MatchOp) {
        (&self.name, &self.value, self.op)
    }
}

impl PartialEq for AlertMatcher {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}
impl Eq for AlertMatcher {}
impl PartialOrd for AlertMatcher {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for AlertMatcher {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

/// What an unquoted name or value must not hold.
fn is_reserved(c: char) -> bool {
    c.is_whitespace() || "{}!=~,\\\"'`".contains(c)
}

/// `name="value"` with three characters escaped; both sides quoted as in Go if the name has a reserved character. Stands
/// in keys of groups, so it never changes.
impl fmt::Display for AlertMatcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, op, value) = (&self.name, self.op.as_str(), &self.value);
        if name.contains(is_reserved) {
            return write!(f, "{}{op}{}", go::quote(name), go::quote(value));
        }
        let escaped = value.replace('\\', "\\\\").replace('\n', "\\n").replace('"', "\\\"");
        write!(f, "{name}{op}\"{escaped}\"")
    }
}

/// Parses any number of matchers. Texts that the two syntaxes read differently are logged.
pub fn parse_list(input: &str) -> Result<Vec<AlertMatcher>, String> {
    choose(input, utf8::parse_list(input), classic::parse_list(input))
}

/// Parses exactly one matcher, without braces.
pub fn parse_one(input: &str) -> Result<AlertMatcher, String> {
    if input.starts_with('{') || input.ends_with('}') {
        return Err(format!("unexpected open or close brace: {input}"));
    }
    choose(input, utf8::parse_one(input), classic::parse_one(input))
}

fn choose<T: PartialEq>(input: &str, new: Result<T, String>, old: Result<T, String>) -> Result<T, String> {
    match (new, old) {
        (Err(_), Err(error)) => Err(error),
        (Err(error), Ok(old)) => {
            let component = "alertmanager";
            tracing::warn!(
                component,
                input,
                err = error,
                "Matchers were read in the classic syntax, as they are no UTF-8 matchers"
            );
            Ok(old)
        }
        (Ok(new), Ok(old)) if new != old => {
            tracing::warn!(component = "alertmanager", input, "Matchers input has disagreement");
            Ok(old)
        }
        (Ok(new), _) => Ok(new),
    }
}

/// The two syntaxes by themselves, for tests.
pub mod syntax {
    pub use super::classic::parse_list as classic_list;
    pub use super::utf8::{parse_list as utf8_list, parse_one as utf8_one};
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn never_panics(text: String) {
            let _ = (parse_list(&text), parse_one(&text));
        }

        /// What is shown of a configuration can be read again.
        #[test]
        fn printed_matchers_come_back(name in ".+", value: String, op in 0..2) {
            let op = if op == 0 { MatchOp::Equal } else { MatchOp::NotEqual };
            let matcher = AlertMatcher::new(op, &name, &value).unwrap();
            prop_assert_eq!(parse_list(&matcher.to_string()), Ok(vec![matcher]));
        }
    }
}
