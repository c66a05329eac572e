//! What is wrong with parts of a request, in its order, as one text of bounded length.

/// Longest text of all problems of a request; what is over it is only counted.
const TEXT_LEN_MAX: usize = 64 << 10;

/// What a problem of a series is about, in the order in which they are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum About {
    Labels,
    Samples,
    Histograms,
    Exemplars,
}

/// Number of a series in the request, and what is wrong with it.
pub(super) type Place = (u32, About);

/// Texts with the place in the request that they belong to.
#[derive(Clone, Debug, Default)]
pub(super) struct Problems {
    texts: Vec<(Place, String)>,
    len: usize,
    omitted: u64,
}

impl Problems {
    pub(super) fn is_empty(&self) -> bool {
        self.texts.is_empty()
    }

    /// Adds a problem; its text is made only if there is room for it.
    pub(super) fn add(&mut self, place: Place, text: impl FnOnce() -> String) {
        if TEXT_LEN_MAX <= self.len {
            self.omitted += 1;
            return;
        }
        let mut text = text();
        if TEXT_LEN_MAX < text.len() {
            text.truncate(text.floor_char_boundary(TEXT_LEN_MAX));
            text.push('…');
        }
        self.len += text.len() + 1;
        self.texts.push((place, text));
    }

    /// One line for each, in the order of the request.
    pub(super) fn text(mut self) -> String {
        self.texts.sort_by_key(|(place, _)| *place);
        let mut lines: Vec<String> = self.texts.into_iter().map(|(_, text)| text).collect();
        if 0 < self.omitted {
            lines.push(format!("and {} more", self.omitted));
        }
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_stand_in_order_and_are_bounded() {
        let mut problems = Problems::default();
        problems.add((5, About::Samples), || "b".to_owned());
        problems.add((1, About::Exemplars), || "a".to_owned());
        problems.add((5, About::Samples), || "c".to_owned());
        assert_eq!(problems.clone().text(), "a\nb\nc");
        problems.add((6, About::Labels), || "é".repeat(TEXT_LEN_MAX));
        problems.add((7, About::Labels), || unreachable!("there is no room"));
        let text = problems.text();
        assert!(text.ends_with("…\nand 1 more") && text.len() < 2 * TEXT_LEN_MAX);
    }
}
