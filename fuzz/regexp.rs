//! The regular expressions' front end: any pattern compiles or is refused, and shortcuts decide as the automaton does.

use watchfire::model::regexp::Regexp;

use crate::dice::Dice;
use crate::{corpus, mutate, run};

const TEXTS: [&str; 14] =
    ["", "a", "b", "foo", "foobar", "xfoo", "A", "ab", "aab", "é", "\n", "foo\nbar", "K\u{212a}k", "a.b"];

fn check(dice: &mut Dice, pattern: &str) {
    let _ = Regexp::unanchored(pattern);
    if let Ok(wrapped) = Regexp::wrapped(pattern) {
        TEXTS.iter().for_each(|text| drop(wrapped.expand_match(text, "$1-${2}$$$x")));
    }
    let Ok(anchored) = Regexp::anchored(pattern) else { return };
    // A second alternative that matches nothing keeps the shortcuts out.
    let slow = Regexp::unanchored(&format!("(?:^(?s:{pattern})$)|[^\\x00-\\x{{10FFFF}}]"));
    let own = mutate::mutated(dice, pattern, "foo");
    for text in TEXTS.iter().copied().chain([pattern, own.as_str()]) {
        let found = anchored.is_match(text);
        if let Ok(slow) = &slow {
            // `a)(b` is refused alone, but does not mean the same when it is wrapped.
            assert_eq!(found, slow.is_match(text), "on {text:?}");
        }
        if let Some(prefix) = anchored.prefix().filter(|_| found) {
            assert!(text.starts_with(prefix), "{text:?} without {prefix:?}");
        }
        if let Some(set) = anchored.set_matches() {
            assert_eq!(found, set.iter().any(|one| one == text), "{text:?} and {set:?}");
        }
        assert_eq!(anchored.captures(text).is_some(), found, "groups on {text:?}");
        assert_eq!(anchored.is_match_bytes(text.as_bytes()), found);
    }
    anchored.is_match_bytes(b"\xff\xfe");
}

#[test]
fn regexp() {
    let texts = corpus::patterns();
    let make = |dice: &mut Dice| {
        let (text, other) = (corpus::pick(dice, &texts), corpus::pick(dice, &texts));
        let mut text = text.to_owned();
        text.truncate((0..=text.len().min(200)).rev().find(|end| text.is_char_boundary(*end)).unwrap());
        let mut text = if dice.chance(40) {
            format!("{text}{}{other}", dice.pick(&["", "|", "(?:", ")*", "[", "{1,3}", "\\"]))
        } else {
            mutate::mutated(dice, &text, other)
        };
        text.truncate((0..=text.len().min(3_000)).rev().find(|end| text.is_char_boundary(*end)).unwrap());
        text
    };
    run("regexp", 3_000, make, check);
}
