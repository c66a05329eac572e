//! How much a text looks like what was typed: from 0, not at all, to 1. The measures are those of Prometheus's search, digit by
//! digit.
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Texts that are not the same score at most this.
const NOT_SAME: f64 = 0.999;
/// Weight of a common start.
const START_WEIGHT: f64 = 0.1;
/// Characters of a common start that count.
const START_LEN_MAX: usize = 4;
/// What the position of a match takes from its score at most.
const POSITION_WEIGHT: f64 = 0.9;

/// Texts from this length on take so long that each step is worth a question whether to go on.
const CHECKED_FROM: usize = 1 << 10;

/// How texts are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Algorithm {
    /// What was typed occurs in the text, with gaps.
    Subsequence,
    /// What was typed occurs in the text, or has many characters in common with it.
    JaroWinkler,
}

/// When a search is given up: long texts take the square of their lengths.
#[derive(Debug)]
pub(super) struct Stop {
    until: Instant,
    /// Nobody waits for it any more.
    is_gone: AtomicBool,
}

impl Stop {
    /// One that lets a search go on until then.
    pub(super) fn at(until: Instant) -> Arc<Self> {
        Arc::new(Self { until, is_gone: AtomicBool::new(false) })
    }

    pub(super) fn is_over(&self) -> bool {
        self.is_gone.load(Ordering::Relaxed) || self.until <= Instant::now()
    }
}

/// Gives a search up when it is dropped.
pub(super) struct StopOnDrop(pub(super) Arc<Stop>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.is_gone.store(true, Ordering::Relaxed);
    }
}

/// Decides which texts are found.
pub(super) struct Filter {
    terms: Vec<Vec<char>>,
    threshold: f64,
    algorithm: Algorithm,
    case_sensitive: bool,
    /// The text that is being looked at.
    text: Vec<char>,
    stop: Arc<Stop>,
}

impl Filter {
    /// A text is found when it looks like any of the terms; without terms every text is.
    pub(super) fn new(
        terms: &[String],
        threshold: f64,
        algorithm: Algorithm,
        case_sensitive: bool,
        stop: Arc<Stop>,
    ) -> Self {
        let folded = |term: &String| if case_sensitive { term.clone() } else { term.to_lowercase() };
        let terms = terms.iter().filter(|term| !term.is_empty()).map(|term| folded(term).chars().collect()).collect();
        Self { terms, threshold, algorithm, case_sensitive, text: Vec::new(), stop }
    }

    /// Whether it is given up, so that scores mean nothing any more.
    pub(super) fn is_over(&self) -> bool {
        self.stop.is_over()
    }

    /// The best score of a text that is found.
    pub(super) fn score(&mut self, text: &str) -> Option<f64> {
        if self.terms.is_empty() {
            return Some(1.0);
        }
        self.text.clear();
        if self.case_sensitive {
            self.text.extend(text.chars());
        } else {
            self.text.extend(text.to_lowercase().chars());
        }
        let mut best: Option<f64> = None;
        for term in &self.terms {
            if CHECKED_FROM < self.text.len() && self.stop.is_over() {
                break;
            }
            let Some(score) = self.of_term(term) else { continue };
            best = Some(best.map_or(score, |best| best.max(score)));
            if 1.0 <= score {
                break;
            }
        }
        best
    }

    fn of_term(&self, term: &[char]) -> Option<f64> {
        match self.algorithm {
            Algorithm::Subsequence if self.text.starts_with(term) => Some(1.0),
            Algorithm::Subsequence => {
                Some(subsequence(term, &self.text, &self.stop)).filter(|score| 0.0 < *score && self.threshold <= *score)
            }
            Algorithm::JaroWinkler => substring(term, &self.text).or_else(|| {
                let fuzzy =
                    || Some(jaro_winkler(term, &self.text, &self.stop)).filter(|score| self.threshold <= *score);
                (0.0 < self.threshold).then(fuzzy).flatten()
            }),
        }
    }
}

/// A start scores 1, a later occurrence the less the later it is.
fn substring(term: &[char], text: &[char]) -> Option<f64> {
    let at = text.windows(term.len()).position(|window| window == term)?;
    let last = text.len() - term.len();
    Some(if at == 0 { 1.0 } else { 1.0 - POSITION_WEIGHT * at as f64 / last as f64 })
}

/// The squares of the runs of `term` in `text`, less the gaps, over the square of its length; the best beginning counts.
fn subsequence(term: &[char], text: &[char], stop: &Stop) -> f64 {
    let Some(last_start) = text.len().checked_sub(term.len()) else { return 0.0 };
    if term == text {
        return 1.0;
    }
    let Some(first) = term.first() else { return 1.0 };
    let mut best: Option<f64> = None;
    for (start, _) in text.iter().enumerate().take(last_start + 1).filter(|(_, c)| *c == first) {
        if stop.is_over() {
            break;
        }
        // If the rest does not occur behind this place, nor does it behind a later one.
        let Some(score) = from(start, term, text) else { break };
        best = Some(best.map_or(score, |best| best.max(score)));
    }
    let best = best.filter(|best| 0.0 <= *best).unwrap_or(0.0);
    best / (term.len() * term.len()) as f64 * NOT_SAME
}

fn from(start: usize, term: &[char], text: &[char]) -> Option<f64> {
    let unit = 1.0 / text.len() as f64;
    let mut score = 0.0;
    let mut wanted = term.iter().peekable();
    // Behind the last run.
    let mut end = 0;
    let mut at = start;
    while let Some(next) = wanted.peek() {
        at += text.get(at..)?.iter().position(|c| c == *next)?;
        let begin = at;
        while wanted.next_if(|next| text.get(at) == Some(*next)).is_some() {
            at += 1;
        }
        if end < begin {
            score -= (begin - end) as f64 * unit;
        }
        score += ((at - begin) * (at - begin)) as f64;
        end = at;
    }
    if end < text.len() {
        score -= (text.len() - end) as f64 * unit * 0.5;
    }
    Some(score)
}

/// Common characters near the same place, their order, and a common start.
fn jaro_winkler(a: &[char], b: &[char], stop: &Stop) -> f64 {
    if a == b {
        return 1.0;
    }
    let (short, long) = if b.len() < a.len() { (b, a) } else { (a, b) };
    let reach = (long.len() / 2).saturating_sub(1);
    let mut taken = vec![false; long.len()];
    let mut matched = Vec::with_capacity(short.len());
    for (place, c) in short.iter().enumerate() {
        // A thousand places of a short text take less than one question.
        if CHECKED_FROM < long.len() && stop.is_over() {
            return 0.0;
        }
        let window = place.saturating_sub(reach)..(place + reach + 1).min(long.len());
        let free = window.into_iter().find(|at| taken.get(*at) == Some(&false) && long.get(*at) == Some(c));
        if let Some(slot) = free.and_then(|at| taken.get_mut(at)) {
            *slot = true;
            matched.push(*c);
        }
    }
    if matched.is_empty() {
        return 0.0;
    }
    let in_order = long.iter().zip(&taken).filter(|(_, taken)| **taken).map(|(c, _)| c);
    let transposed = matched.iter().zip(in_order).filter(|(a, b)| a != b).count() as f64;
    let matches = matched.len() as f64;
    let (of_short, of_long) = (1.0 / short.len() as f64, 1.0 / long.len() as f64);
    let jaro = (matches * of_short + matches * of_long + (matches - transposed * 0.5) / matches) / 3.0;
    let start = short.iter().zip(long).take(START_LEN_MAX).take_while(|(a, b)| a == b).count();
    jaro + start as f64 * START_WEIGHT * (1.0 - jaro)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn chars(text: &str) -> Vec<char> {
        text.chars().collect()
    }

    fn never() -> Arc<Stop> {
        Stop::at(Instant::now() + Duration::from_secs(1 << 20))
    }

    #[test]
    fn who_leaves_ends_the_search() {
        // It would take a billion steps each time.
        let (term, text) = (chars(&"ab".repeat(2_000)), chars(&"ab".repeat(1 << 18)));
        let stop = never();
        drop(StopOnDrop(Arc::clone(&stop)));
        assert!(stop.is_over() && Stop::at(Instant::now()).is_over() && !never().is_over());
        assert_eq!((subsequence(&term, &text, &stop), jaro_winkler(&term, &text, &stop)), (0.0, 0.0));
    }

    #[track_caller]
    fn near(found: f64, expected: f64) {
        assert!((found - expected).abs() < 1e-9, "{found} {expected}");
    }

    #[test]
    fn subsequences_score_by_runs_and_gaps() {
        let score = |term: &str, text: &str| subsequence(&chars(term), &chars(text), &never());
        near(score("abc", "abc"), 1.0);
        near(score("abc", "xbc"), 0.0);
        near(score("abcd", "abc"), 0.0);
        // One run, and two characters behind it: (9 - 2 / 5 / 2) / 9.
        near(score("abc", "abcxx"), (9.0 - 0.2) / 9.0 * 0.999);
        // Two runs with a gap of one: (1 + 4 - 1 / 4) / 9.
        near(score("abc", "axbc"), (5.0 - 0.25) / 9.0 * 0.999);
        // The better of two beginnings.
        near(score("ab", "axab"), (4.0 - 0.5) / 4.0 * 0.999);
        near(score("äb", "xäb"), (4.0 - 1.0 / 3.0) / 4.0 * 0.999);
    }

    #[test]
    fn similar_texts_score_as_jaro_and_winkler_say() {
        let score = |a: &str, b: &str| jaro_winkler(&chars(a), &chars(b), &never());
        near(score("MARTHA", "MARHTA"), 0.961_111_111_111);
        near(score("DIXON", "DICKSONX"), 0.813_333_333_333);
        near(score("abc", "xyz"), 0.0);
        near(score("same", "same"), 1.0);
    }

    #[test]
    fn filters_take_any_term_and_fold_case() {
        let filter = |terms: &[&str], threshold, algorithm, case| {
            Filter::new(&terms.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>(), threshold, algorithm, case, never())
        };
        assert_eq!(filter(&[], 0.0, Algorithm::Subsequence, true).score("x"), Some(1.0));
        assert_eq!(filter(&[""], 0.0, Algorithm::Subsequence, true).score("x"), Some(1.0));
        let mut one = filter(&["Up", "http"], 0.0, Algorithm::Subsequence, false);
        assert_eq!(one.score("UPTIME"), Some(1.0));
        assert!(one.score("the_http").is_some_and(|score| score < 1.0));
        assert_eq!(one.score("x"), None);
        assert_eq!(filter(&["Up"], 0.0, Algorithm::Subsequence, true).score("uptime"), None);
        assert_eq!(filter(&["axc"], 0.9, Algorithm::Subsequence, true).score("a_x_c"), None);
        let mut two = filter(&["om"], 0.0, Algorithm::JaroWinkler, true);
        assert_eq!(two.score("om_x"), Some(1.0));
        assert_eq!(two.score("mom"), Some(1.0 - 0.9));
        assert_eq!(two.score("o_m"), None);
        assert!(filter(&["promtehus"], 0.8, Algorithm::JaroWinkler, true).score("prometheus").is_some());
    }

    proptest! {
        #[test]
        fn scores_are_between_0_and_1(a in "[ab_ä]{0,8}", b in "[ab_ä]{0,12}") {
            for score in [subsequence(&chars(&a), &chars(&b), &never()), jaro_winkler(&chars(&a), &chars(&b), &never())] {
                prop_assert!((0.0..=1.0).contains(&score), "{score}");
            }
        }
    }
}
