//! XML as Amazon's services answer: elements and text. Attributes and what else XML has are passed over.

#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

use crate::discovery::error::LookError;

/// Elements within each other.
const DEPTH_MAX: usize = 64;

/// An element.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Element {
    name: String,
    text: String,
    children: Vec<Element>,
}

impl Element {
    /// The first child with this name.
    pub(super) fn child(&self, name: &str) -> Option<&Element> {
        self.children.iter().find(|child| child.name == name)
    }

    /// The text of the first child with this name, unless it is empty.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.child(name).map(|child| child.text.trim()).filter(|text| !text.is_empty())
    }

    /// The items of the list that is the child with this name.
    pub(super) fn items(&self, name: &str) -> impl Iterator<Item = &Element> {
        self.child(name).into_iter().flat_map(|list| &list.children)
    }

    /// The element with this name, wherever it stands below.
    pub(super) fn find(&self, name: &str) -> Option<&Element> {
        self.child(name).or_else(|| self.children.iter().find_map(|child| child.find(name)))
    }
}

/// Reads a document; answers with its outermost element.
pub(super) fn parse(content: &[u8]) -> Result<Element, LookError> {
    let bad = |what: &str| LookError::Other(format!("the answer is no XML: {what}"));
    let mut rest = std::str::from_utf8(content).map_err(|_| bad("it is not UTF-8"))?;
    // The element at the bottom stands for the document.
    let mut open = vec![Element::default()];
    while let Some((text, tail)) = rest.split_once('<') {
        if let Some(current) = open.last_mut() {
            current.text.push_str(&unescaped(text));
        }
        let (passed_over, end) = match tail {
            _ if tail.starts_with("!--") => (true, "-->"),
            _ if tail.starts_with("![CDATA[") => (true, "]]>"),
            _ => (tail.starts_with(['?', '!']), ">"),
        };
        let (tag, tail) = tail.split_once(end).ok_or_else(|| bad("it ends within a tag"))?;
        rest = tail;
        if let (Some(data), Some(current)) = (tag.strip_prefix("![CDATA["), open.last_mut()) {
            current.text.push_str(data);
        }
        if passed_over {
            continue;
        }
        if let Some(name) = tag.strip_prefix('/') {
            let closed = open.pop().filter(|closed| closed.name == name.trim_end());
            let closed = closed.ok_or_else(|| bad("an end has no beginning"))?;
            open.last_mut().ok_or_else(|| bad("an end has no beginning"))?.children.push(closed);
            continue;
        }
        let name = tag.split([' ', '\t', '\n', '\r', '/']).next().unwrap_or_default().to_owned();
        let element = Element { name, ..Element::default() };
        if tag.ends_with('/') {
            open.last_mut().ok_or_else(|| bad("it has no beginning"))?.children.push(element);
        } else if open.len() <= DEPTH_MAX {
            open.push(element);
        } else {
            return Err(bad("it is too deep"));
        }
    }
    match (open.pop(), open.is_empty()) {
        (Some(mut document), true) if document.children.len() == 1 => {
            document.children.pop().ok_or_else(|| bad("it has no element"))
        }
        _ => Err(bad("it ends within an element")),
    }
}

fn unescaped(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, tail)) = rest.split_once('&') {
        plain.push_str(before);
        let known = tail.split_once(';').and_then(|(name, after)| Some((entity(name)?, after)));
        match known {
            Some((c, after)) => {
                plain.push(c);
                rest = after;
            }
            None => {
                plain.push('&');
                rest = tail;
            }
        }
    }
    plain.push_str(rest);
    plain
}

fn entity(name: &str) -> Option<char> {
    match name {
        "lt" => Some('<'),
        "gt" => Some('>'),
        "amp" => Some('&'),
        "quot" => Some('"'),
        "apos" => Some('\''),
        _ => {
            let number = name.strip_prefix('#')?;
            let code = match number.strip_prefix(['x', 'X']) {
                Some(hex) => u32::from_str_radix(hex, 16),
                None => number.parse(),
            };
            char::from_u32(code.ok()?)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn elements_and_text_are_read() {
        let text = "<?xml version=\"1.0\"?>\n<!-- a > b --><r xmlns=\"u\">\n <s><item><k>a&amp;b&#x41;&bad;</k></item>\
                    <item/></s><c><![CDATA[<x>]]></c><e></e></r>\n";
        let root = parse(text.as_bytes()).unwrap();
        assert_eq!(root.items("s").count(), 2);
        assert_eq!(root.items("s").next().unwrap().text("k"), Some("a&bA&bad;"));
        assert_eq!((root.text("c"), root.text("e"), root.text("none")), (Some("<x>"), None, None));
        assert_eq!(root.find("k").unwrap().text, "a&bA&bad;");
        for bad in ["", "<a>", "</a>", "<a></b>", "<a", "<a/><b/>", &"<a>".repeat(100)] {
            assert!(parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in "[<>/a&;!\\[\\]?\\- #x]{0,60}") {
            let _ = parse(text.as_bytes());
        }
    }
}
