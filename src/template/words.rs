//! Words with a capital at the start, as Go's `cases.Title` writes them for American English.

/// What becomes of the letters behind the first of a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rest {
    /// They stay (`cases.NoLower`).
    Kept,
    Lowered,
}

/// The text with each word starting with a capital. Words break as in UAX 29, for the characters that texts of alerts
/// have: letters, digits and underscores stay together, also across `'`, `.` and `:` between letters.
pub(super) fn title(text: &str, rest: Rest) -> String {
    let mut out = String::with_capacity(text.len());
    let mut in_word = false;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c.is_alphabetic() {
            match (in_word, rest) {
                (false, _) => push_title(&mut out, c),
                (true, Rest::Kept) => out.push(c),
                (true, Rest::Lowered) => out.extend(c.to_lowercase()),
            }
            in_word = true;
            continue;
        }
        out.push(c);
        let joins = matches!(c, '\'' | '.' | ':' | '\u{2019}' | '\u{b7}');
        let stays = c == '_' || c.is_numeric() || is_mark(c);
        in_word = in_word && (stays || (joins && chars.peek().is_some_and(|next| next.is_alphanumeric())));
    }
    out
}

fn push_title(out: &mut String, c: char) {
    let digraph = match c {
        'Ǆ' | 'ǆ' => Some('ǅ'),
        'Ǉ' | 'ǉ' => Some('ǈ'),
        'Ǌ' | 'ǌ' => Some('ǋ'),
        'Ǳ' | 'ǳ' => Some('ǲ'),
        _ => None,
    };
    if let Some(title) = digraph {
        return out.push(title);
    }
    let mut upper = c.to_uppercase();
    out.extend(upper.next());
    // What becomes several letters, as `ß`, starts with the only capital.
    out.extend(upper.flat_map(char::to_lowercase));
}

fn is_mark(c: char) -> bool {
    ('\u{300}'..='\u{36f}').contains(&c)
}
