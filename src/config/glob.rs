//! File name patterns, as Go's `filepath.Glob` reads them: `*`, `?`, `[a-z]`, `[^a-z]` and `\` within path elements.

use std::path::Path;

/// A pattern with an unclosed class, an empty range or a backslash at its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("syntax error in pattern")]
pub struct BadPattern;

/// Names of existing files that match, sorted within each folder. A pattern without special characters yields itself if
/// there is such a file. Folders that cannot be read count as empty.
pub fn glob(pattern: &str) -> Result<Vec<String>, BadPattern> {
    matches(pattern, "")?;
    if !has_meta(pattern) {
        let exists = Path::new(pattern).symlink_metadata().is_ok();
        return Ok(if exists { vec![pattern.to_owned()] } else { Vec::new() });
    }
    let (dir, file) = match pattern.rfind('/') {
        Some(0) => ("/", pattern.get(1..).unwrap_or("")),
        Some(at) => (pattern.get(..at).unwrap_or(""), pattern.get(at + 1..).unwrap_or("")),
        None => (".", pattern),
    };
    let dirs = if has_meta(dir) && dir != pattern { glob(dir)? } else { vec![dir.to_owned()] };
    let mut found = Vec::new();
    for dir in dirs {
        let Ok(entries) = std::fs::read_dir(&dir) else { continue };
        let mut names: Vec<String> = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
        names.sort();
        for name in names {
            if matches(file, &name)? {
                found.push(super::path::join(&dir, &name));
            }
        }
    }
    Ok(found)
}

fn has_meta(text: &str) -> bool {
    text.contains(['*', '?', '[', '\\'])
}

/// True if the whole name matches the pattern (`filepath.Match`).
fn matches(pattern: &str, name: &str) -> Result<bool, BadPattern> {
    let tokens = parse(pattern)?;
    let name: Vec<char> = name.chars().collect();
    // Where to go on after the last star: after that token, with one more character eaten by the star.
    let mut retry: Option<(usize, usize)> = None;
    let (mut token, mut at) = (0, 0);
    loop {
        match (tokens.get(token), name.get(at)) {
            (Some(Token::Star), _) => {
                retry = Some((token + 1, at));
                token += 1;
                continue;
            }
            (Some(one), Some(c)) if one.takes(*c) => {
                token += 1;
                at += 1;
                continue;
            }
            (None, None) => return Ok(true),
            _ => {}
        }
        match retry {
            Some((after, eaten)) if name.get(eaten).is_some_and(|c| *c != '/') => {
                retry = Some((after, eaten + 1));
                (token, at) = (after, eaten + 1);
            }
            _ => return Ok(false),
        }
    }
}

enum Token {
    Star,
    Any,
    One(char),
    Class { negated: bool, ranges: Vec<(char, char)> },
}

impl Token {
    fn takes(&self, c: char) -> bool {
        match self {
            Self::Star => false,
            Self::Any => c != '/',
            Self::One(wanted) => c == *wanted,
            Self::Class { negated, ranges } => ranges.iter().any(|(low, high)| *low <= c && c <= *high) != *negated,
        }
    }
}

fn parse(pattern: &str) -> Result<Vec<Token>, BadPattern> {
    let mut chars = pattern.chars().peekable();
    let mut tokens = Vec::new();
    while let Some(c) = chars.next() {
        tokens.push(match c {
            '*' => Token::Star,
            '?' => Token::Any,
            '\\' => Token::One(chars.next().ok_or(BadPattern)?),
            '[' => {
                let negated = chars.next_if_eq(&'^').is_some();
                let mut ranges = Vec::new();
                while ranges.is_empty() || chars.next_if_eq(&']').is_none() {
                    let low = class_char(&mut chars)?;
                    let high = if chars.next_if_eq(&'-').is_some() { class_char(&mut chars)? } else { low };
                    ranges.push((low, high));
                }
                Token::Class { negated, ranges }
            }
            _ => Token::One(c),
        });
    }
    Ok(tokens)
}

fn class_char(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<char, BadPattern> {
    let c = match chars.next() {
        None | Some('-' | ']') => return Err(BadPattern),
        Some('\\') => chars.next().ok_or(BadPattern)?,
        Some(c) => c,
    };
    // The class has to end some time.
    if chars.peek().is_none() { Err(BadPattern) } else { Ok(c) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_like_go() {
        let yes = |pattern: &str, name: &str| matches(pattern, name) == Ok(true);
        assert!(yes("*.yml", "a.yml") && !yes("*.yml", "a.yaml") && !yes("*", "a/b"));
        assert!(yes("a*b*c", "aXbYbZc") && !yes("a*b*c", "aXbY"));
        assert!(yes("[a-c]?[^x]", "bzy") && !yes("[a-c]?[^x]", "bzx"));
        assert!(yes("\\*", "*") && !yes("\\*", "a"));
        for bad in ["[", "[]", "[a", "[a-]", "a\\", "[-]"] {
            assert_eq!(matches(bad, "x"), Err(BadPattern), "{bad}");
        }
    }

    #[test]
    fn lists_files_in_order() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["b.yml", "a.yml", "c.json"] {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        let root = dir.path().to_str().unwrap();
        assert_eq!(glob(&format!("{root}/*.yml")).unwrap(), [format!("{root}/a.yml"), format!("{root}/b.yml")]);
        assert_eq!(glob(&format!("{root}/c.json")).unwrap(), [format!("{root}/c.json")]);
        assert_eq!(glob(&format!("{root}/none.json")).unwrap(), Vec::<String>::new());
    }
}
