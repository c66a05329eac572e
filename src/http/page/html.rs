//! HTML that cannot be injected into: markup is `&'static str`, everything else is escaped.

use std::fmt::Display;

/// A page under construction.
#[derive(Debug, Default)]
pub(super) struct Html {
    out: String,
}

impl Html {
    /// Markup of ours.
    pub(super) fn raw(&mut self, markup: &'static str) -> &mut Self {
        self.out.push_str(markup);
        self
    }

    /// Anything else, escaped for text and for attribute values in double quotes.
    pub(super) fn text(&mut self, text: impl Display) -> &mut Self {
        escape_into(&mut self.out, &text.to_string());
        self
    }

    /// A cell of a table.
    pub(super) fn cell(&mut self, text: impl Display) -> &mut Self {
        self.raw("<td>").text(text).raw("</td>")
    }

    /// A link if the address is one of a web page, else plain text: `javascript:` addresses become no link.
    pub(super) fn link(&mut self, url: &str) -> &mut Self {
        if url.starts_with("http://") || url.starts_with("https://") {
            self.raw("<a rel=\"noreferrer\" href=\"").text(url).raw("\">").text(url).raw("</a>")
        } else {
            self.text(url)
        }
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.out.into_bytes()
    }
}

/// Escapes text for HTML, attribute values included.
pub(crate) fn escape_into(out: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&#34;"),
            '\'' => out.push_str("&#39;"),
            '\0' => out.push(char::REPLACEMENT_CHARACTER),
            _ => out.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_web_addresses_become_links() {
        let link = |url: &str| {
            String::from_utf8({
                let mut html = Html::default();
                html.link(url);
                html.into_bytes()
            })
            .unwrap()
        };
        assert!(link("http://x/\"><script>").starts_with("<a rel=\"noreferrer\" href=\"http://x/&#34;&gt;&lt;script"));
        assert_eq!(link("javascript:alert(1)"), "javascript:alert(1)");
    }

    proptest! {
        #[test]
        fn no_markup_survives(text in ".*") {
            let mut out = String::new();
            escape_into(&mut out, &text);
            prop_assert!(!out.contains(['<', '>', '"', '\'']));
        }
    }
}
