//! Templates with group references, as Go's `Regexp.Expand` reads them: `$1`, `${1}`, `$name`, `${name}`, `$$`.
//!
//! The longest name counts, so `$1x` is the group called `1x`. Unknown groups are empty; a `$` that starts no reference
//! stands for itself.

use std::ops::Range;

/// Appends `template` to `out`, references replaced by parts of `text`. `groups[i]` is the place of group `i`.
pub(super) fn expand(
    out: &mut String,
    template: &str,
    text: &str,
    names: &[String],
    group: impl Fn(usize) -> Option<Range<usize>>,
) {
    let mut rest = template;
    while let Some((plain, after)) = rest.split_once('$') {
        out.push_str(plain);
        rest = after;
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
            continue;
        }
        let Some((name, after)) = reference(rest) else {
            out.push('$');
            continue;
        };
        rest = after;
        let place = match number(name) {
            Some(index) => group(index),
            // A name may stand more than once; the first group with it that took part counts.
            None => (0..names.len()).filter(|i| names.get(*i).is_some_and(|n| n == name)).find_map(&group),
        };
        out.push_str(place.and_then(|range| text.get(range)).unwrap_or(""));
    }
    out.push_str(rest);
}

/// The name at the start of `text`, in braces or not, and what follows.
fn reference(text: &str) -> Option<(&str, &str)> {
    let (text, braced) = text.strip_prefix('{').map_or((text, false), |t| (t, true));
    let len = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    let (name, rest) = text.split_at_checked(len)?;
    if name.is_empty() {
        return None;
    }
    if braced { Some((name, rest.strip_prefix('}')?)) } else { Some((name, rest)) }
}

/// The name as a group number: digits without leading zeros, below 10^9 as in Go.
fn number(name: &str) -> Option<usize> {
    if name.len() > 1 && name.starts_with('0') || name.len() > 9 || !name.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    name.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(template: &str, expected: &str) {
        // The text matched by `(?P<a>h)(?P<rest>ello)`.
        let names = ["", "a", "rest"].map(String::from);
        let groups = [0..5, 0..1, 1..5];
        let mut out = String::new();
        expand(&mut out, template, "hello", &names, |i| groups.get(i).cloned());
        assert_eq!(out, expected, "{template}");
    }

    #[test]
    fn reads_references_as_go_does() {
        check("$0-$1-${2}", "hello-h-ello");
        check("$1x", "");
        check("${1}x", "hx");
        check("$a.$rest", "h.ello");
        check("$$1", "$1");
        check("$", "$");
        check("${1", "${1");
        check("${}", "${}");
        check("$01", "");
        check("$99", "");
        check("a$-b", "a$-b");
    }
}
