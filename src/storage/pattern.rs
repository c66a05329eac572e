//! Reads from a matcher's regular expression what an index can use: exact values, or a prefix. Only forms that are
//! plain to see are recognised; everything else is matched value by value.

/// What the values that match look like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Shape<'a> {
    /// Exactly these values, from `a|b|c`; not sorted, maybe repeated.
    OneOf(Vec<&'a str>),
    /// Every value that starts with this text, from `text.*`.
    Prefix(&'a str),
    /// Every value with this text in it, which is not empty, from `.*text.*`.
    Contains(&'a str),
    /// Anything else; where there is a literal start, matching values begin with it.
    Other {
        /// May be empty.
        prefix: &'a str,
    },
}

/// The shape of the anchored pattern.
pub(crate) fn shape_of(pattern: &str) -> Shape<'_> {
    if pattern == ".+" {
        // No label has an empty value, so the index does not tell this from `.*`.
        return Shape::Prefix("");
    }
    let is_meta = |c: char| "\\.+*?()|[]{}^$".contains(c);
    if let Some(text) = pattern.strip_prefix(".*").and_then(|rest| rest.strip_suffix(".*"))
        && !text.is_empty()
        && !text.contains(is_meta)
    {
        return Shape::Contains(text);
    }
    if let Some(text) = pattern.strip_suffix(".*")
        && !text.contains(is_meta)
    {
        return Shape::Prefix(text);
    }
    let parts: Vec<&str> = pattern.split('|').collect();
    if parts.iter().all(|part| !part.contains(is_meta)) {
        return Shape::OneOf(parts);
    }
    if pattern.contains('|') {
        return Shape::Other { prefix: "" };
    }
    let literal = pattern.find(is_meta).unwrap_or(pattern.len());
    let (text, rest) = pattern.split_at(literal);
    // A repetition takes the last character with it.
    let optional = rest.starts_with(['*', '?', '{', '+']);
    let end = if optional { text.char_indices().last().map_or(0, |(i, _)| i) } else { text.len() };
    Shape::Other { prefix: &text[..end] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_forms_are_recognised() {
        assert_eq!(shape_of("a|b c|d-e"), Shape::OneOf(vec!["a", "b c", "d-e"]));
        assert_eq!(shape_of(""), Shape::OneOf(vec![""]));
        assert_eq!(shape_of("a|"), Shape::OneOf(vec!["a", ""]));
        assert_eq!(shape_of("node.*"), Shape::Prefix("node"));
        assert_eq!(shape_of(".*foo.*"), Shape::Contains("foo"));
        assert_eq!(shape_of(".*"), Shape::Prefix(""));
        assert_eq!(shape_of(".*.*"), Shape::Other { prefix: "" });
        assert_eq!(shape_of(".*a.b.*"), Shape::Other { prefix: "" });
        assert_eq!(shape_of("node.+"), Shape::Other { prefix: "node" });
        assert_eq!(shape_of("colou?r"), Shape::Other { prefix: "colo" });
        assert_eq!(shape_of("äö*"), Shape::Other { prefix: "ä" });
        assert_eq!(shape_of("a.b|c"), Shape::Other { prefix: "" });
        assert_eq!(shape_of("(?i)abc"), Shape::Other { prefix: "" });
        assert_eq!(shape_of(r"a\.b"), Shape::Other { prefix: "a" });
        assert_eq!(shape_of("a|b.*"), Shape::Other { prefix: "" });
    }
}
