//! Changes to a text: bits, bytes, pieces, tokens that have hurt parsers before, and nesting.

use crate::dice::Dice;

/// Pieces that are put in.
const TOKENS: [&str; 58] = [
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    "{{",
    "}}",
    ",",
    ":",
    "\"",
    "'",
    "`",
    "\\",
    "\\x",
    "\\u00",
    "\\777",
    "#",
    "\n",
    "@",
    "=~",
    "!=",
    "==",
    "</",
    ">/",
    "^",
    "-",
    "+",
    "*",
    " offset ",
    " @ ",
    "start()",
    "step()",
    " by ",
    " on ",
    " group_left ",
    " bool ",
    " smoothed",
    " anchored",
    " fill ",
    "NaN",
    "Inf",
    "0x",
    "1e",
    "1e400",
    "1e-400",
    "9223372036854775807",
    "-9223372036854775808",
    "99999999999999999999999",
    "292y",
    "300y",
    "1ms",
    "0s",
    "1y1w1d1h1m1s1ms",
    "\u{0}",
    "\u{fffd}",
    "é",
    "\u{10ffff}",
];

/// The text with one to eight changes; `other` is mixed in.
pub(crate) fn mutated(dice: &mut Dice, text: &str, other: &str) -> String {
    let mut bytes = text.as_bytes().to_vec();
    for _ in 0..1 + dice.below(8) {
        let at = place(dice, bytes.len());
        match dice.below(9) {
            0 if at < bytes.len() => bytes[at] ^= 1 << dice.below(8),
            1 if at < bytes.len() => drop(bytes.remove(at)),
            2 => bytes.insert(at, dice.below(256) as u8),
            3 | 4 => drop(bytes.splice(at..at, dice.pick(&TOKENS).bytes())),
            5 => {
                let to = at + place(dice, bytes.len() - at);
                drop(bytes.drain(at..to));
            }
            6 if bytes.len() < 100_000 => {
                let to = at + place(dice, (bytes.len() - at).min(40));
                let piece = bytes[at..to].repeat(1 + place(dice, 4));
                drop(bytes.splice(at..at, piece));
            }
            7 => {
                let (from, to) = (place(dice, other.len()), place(dice, other.len()));
                let piece = &other.as_bytes()[from.min(to)..from.max(to)];
                drop(bytes.splice(at..at, piece.iter().copied()));
            }
            _ if dice.chance(4) => {
                let (open, close) =
                    [("(", ")"), ("-", ""), ("sum(", ")"), ("(", ""), ("1+", ""), ("[", "]"), ("1^", "")]
                        [place(dice, 6)];
                let depth = [20, 300, 700, 5_000][place(dice, 3)];
                bytes = [open.repeat(depth).as_bytes(), &bytes, close.repeat(depth).as_bytes()].concat();
            }
            _ => {}
        }
    }
    // What an API takes from bytes is what is left of them as text.
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A number from 0 to `len`.
fn place(dice: &mut Dice, len: usize) -> usize {
    usize::try_from(dice.below(len as u64 + 1)).unwrap()
}
