//! References to environment variables in texts, as Go's `os.Expand` reads them.

/// Replaces `$NAME` and `${NAME}`; `$$` stands for `$`. What `lookup` does not know, or knows as empty, becomes nothing
/// and is added to `missing`.
pub(super) fn expand(text: &str, lookup: &dyn Fn(&str) -> Option<String>, missing: &mut Vec<String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((plain, after)) = rest.split_once('$') {
        if after.is_empty() {
            break;
        }
        out.push_str(plain);
        let (name, taken) = name_of(after);
        rest = after.get(taken..).unwrap_or("");
        match name {
            // Broken syntax eats what it has read; a lone dollar stays.
            "" if taken > 0 => {}
            "" => out.push('$'),
            "$" => out.push('$'),
            _ => match lookup(name).filter(|value| !value.is_empty()) {
                Some(value) => out.push_str(&value),
                None => missing.push(name.to_owned()),
            },
        }
    }
    out.push_str(rest);
    out
}

/// The name at the start of `text`, which follows a `$`, and how many bytes it takes with its braces.
fn name_of(text: &str) -> (&str, usize) {
    let special = |b: u8| b.is_ascii_digit() || b"*#$@!?-".contains(&b);
    let word = |text: &str| text.bytes().take_while(|b| b.is_ascii_alphanumeric() || *b == b'_').count();
    let head = text.bytes().next().unwrap_or(0);
    if head == b'{' {
        if let Some(second) = text.as_bytes().get(1).copied().filter(|b| special(*b))
            && text.get(2..).is_some_and(|rest| rest.starts_with('}'))
            && second.is_ascii()
        {
            return (text.get(1..2).unwrap_or(""), 3);
        }
        return match text.find('}') {
            Some(1) => ("", 2),
            Some(end) => (text.get(1..end).unwrap_or(""), end + 1),
            None => ("", 1),
        };
    }
    if special(head) {
        return (text.get(..1).unwrap_or(""), 1);
    }
    let len = word(text);
    (text.get(..len).unwrap_or(""), len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &str) {
        let lookup = |name: &str| (name == "TEST").then(|| "value".to_owned());
        assert_eq!(expand(text, &lookup, &mut Vec::new()), expected, "{text}");
    }

    #[test]
    fn expands_as_go_does() {
        check("foo${TEST}bar", "foovaluebar");
        check("$TEST.x", "value.x");
        check("foo$${TEST}", "foo${TEST}");
        check("foo$$bar", "foo$bar");
        check("${NONE}", "");
        check("$", "$");
        check("a$ b", "a$ b");
        check("${}x", "x");
        check("${TEST", "TEST");
        check("é$TESTé", "évalueé");
    }

    #[test]
    fn names_what_is_missing() {
        let mut missing = Vec::new();
        expand("$A ${B}", &|_| None, &mut missing);
        assert_eq!(missing, ["A", "B"]);
    }
}
