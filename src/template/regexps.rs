//! Regular expressions in templates, compiled once in an expansion.

use std::cell::RefCell;
use std::collections::BTreeMap;

use super::value::{Value, back_quoted};
use crate::model::regexp::{Regexp, RegexpError};

/// Longest text that a replacement may give before it is tried, in bytes.
const REPLACED_LEN_MAX: usize = 16 << 20;
/// Most expressions that are kept.
const KEPT_MAX: usize = 64;
/// Steps that compiling an expression counts for, as it may take long.
const COMPILE_STEPS: usize = 20_000;

/// The expressions of an expansion.
#[derive(Default)]
pub(super) struct Regexps(RefCell<BTreeMap<String, Regexp>>);

impl Regexps {
    /// The steps that using the pattern counts for.
    pub(super) fn steps(&self, pattern: &Value) -> usize {
        let known = pattern.as_str().is_some_and(|pattern| self.0.borrow().contains_key(pattern));
        if known { 0 } else { COMPILE_STEPS }
    }

    fn get(&self, pattern: &str) -> Result<Regexp, RegexpError> {
        if let Some(known) = self.0.borrow().get(pattern) {
            return Ok(known.clone());
        }
        let regexp = Regexp::unanchored(pattern)?;
        let mut kept = self.0.borrow_mut();
        if kept.len() < KEPT_MAX {
            kept.insert(pattern.to_owned(), regexp.clone());
        }
        Ok(regexp)
    }

    /// `regexp.MatchString`.
    pub(super) fn matches(&self, pattern: &str, text: &str) -> Result<Value, String> {
        let regexp = self.get(pattern).map_err(|error| error.to_string())?;
        Ok(Value::Bool(regexp.is_match(text)))
    }

    /// `regexp.MustCompile(pattern).ReplaceAllString(text, template)`.
    pub(super) fn replace(&self, pattern: &str, template: &str, text: &str) -> Result<Value, String> {
        let wrong = |error| format!("regexp: Compile({}): {error}", back_quoted(pattern));
        let regexp = self.get(pattern).map_err(wrong)?;
        // Each of at most `len + 1` matches adds the template, and each of its groups adds at most the whole text.
        let groups = template.matches('$').count();
        let len = text.len().saturating_add(1).saturating_mul(1 + template.len() + groups);
        if REPLACED_LEN_MAX < len {
            return Err(format!("replacement may exceed the limit of {REPLACED_LEN_MAX} bytes"));
        }
        Ok(Value::text(regexp.replace_all(text, template)))
    }
}
