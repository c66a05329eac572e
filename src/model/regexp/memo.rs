//! The expressions compiled last: dashboards and rules ask with the same ones again and again, and building an automaton
//! takes far longer than most queries. Bounded in number and in what each may take; which are remembered changes nothing
//! but time.

use std::collections::VecDeque;

use parking_lot::Mutex;

use super::{Regexp, RegexpError};

/// Expressions that are remembered.
const COUNT_MAX: usize = 64;
/// Longest pattern that is remembered, in bytes.
const PATTERN_LEN_MAX: usize = 512;
/// Largest program that is remembered, in bytes.
const PROGRAM_LEN_MAX: usize = 64 << 10;

/// How a pattern is anchored.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// [`Regexp::anchored`]
    Anchored,
    /// [`Regexp::wrapped`]
    Wrapped,
}

/// The one asked for last comes last.
static MEMO: Mutex<VecDeque<(Form, Regexp)>> = Mutex::new(VecDeque::new());

/// The expression as remembered, or as `compile` makes it.
pub(super) fn get_or_compile(
    form: Form,
    pattern: &str,
    compile: impl FnOnce() -> Result<Regexp, RegexpError>,
) -> Result<Regexp, RegexpError> {
    if PATTERN_LEN_MAX < pattern.len() {
        return compile();
    }
    {
        let mut memo = MEMO.lock();
        let place = memo.iter().position(|(other, regexp)| *other == form && regexp.pattern() == pattern);
        if let Some(found) = place.and_then(|place| memo.remove(place)) {
            memo.push_back(found.clone());
            drop(memo);
            return found.1.charged_again(form);
        }
    }
    // Not under the lock: others need not wait for this one.
    let regexp = compile()?;
    if regexp.program_len() <= PROGRAM_LEN_MAX {
        let mut memo = MEMO.lock();
        if COUNT_MAX <= memo.len() {
            memo.pop_front();
        }
        memo.push_back((form, regexp.clone()));
    }
    Ok(regexp)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_kept_apart_and_the_memo_stays_within_its_bound() {
        for round in 0..3 {
            assert!(Regexp::anchored("a)(b").is_err() && Regexp::wrapped("a)(b").is_ok(), "{round}");
            assert!(Regexp::anchored("memo-.+x").unwrap().is_match("memo-1x"));
        }
        for number in 0..3 * COUNT_MAX {
            assert!(Regexp::anchored(&format!("{number}.*x.*")).unwrap().is_match(&format!("{number}-x-")));
        }
        assert!(MEMO.lock().len() <= COUNT_MAX);
    }
}
