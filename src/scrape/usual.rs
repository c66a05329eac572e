//! The usual lines of a body: of series that storage knows, where they stood in the last scrape, with a value and nothing else, and
//! those that describe their families. Nearly all lines are such; [`Reader::parse`](super::reader::Reader) would read them the same,
//! with more questions for each. And lines of new series, if they are plain.
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

use crate::exposition::content_type::Format;
use crate::exposition::plain::PlainSeries;
use crate::exposition::text::{self, SeriesLine};
use crate::model::append::{AppendSample, SeriesKey};
use crate::scrape::error::ScrapeError;
use crate::scrape::reader::Reader;
use crate::scrape::sequence::{Role, Sequence};

impl Reader<'_> {
    /// Reads the usual lines that `buf` begins with; answers their length.
    pub(super) fn usual_lines(&mut self, old: &Sequence, buf: &[u8]) -> usize {
        let is_text = self.format == Format::Text && self.previous.format == Format::Text;
        if !is_text || self.rewrite.is_some() || self.collector.is_some() || self.synthesis.is_some() || self.over_limit
        {
            return 0;
        }
        let limit = match self.plan.settings.sample_limit {
            0 => u64::MAX,
            limit => limit,
        };
        // The sample that is over the limit, if there is one, is not usual.
        let room = limit.saturating_sub(self.appended);
        let (mut count, mut rest) = (0, buf);
        // The line before, where it was read here: what the next one shares with it is looked up there.
        let mut before: &[u8] = &[];
        while count < room
            && let Some(entry) = old.get(self.cursor)
        {
            let (shared, own) = old.parts_of(entry);
            let tail = match before.get(..shared) {
                Some(start) => behind(rest, start).and_then(|rest| behind(rest, own)),
                None => rest.strip_prefix(self.cached.read(old, self.cursor)),
            };
            let Some(tail) = tail else { break };
            let len = match entry.role() {
                Role::Series if entry.tracked() => {
                    let Some(handle) = entry.handle() else { break };
                    let Some((value, len)) = text::scan_value_alone(tail) else { break };
                    self.samples.push(AppendSample { series: SeriesKey::Known(handle), at: self.at, value });
                    self.lines.push(self.cursor as u32);
                    count += 1;
                    len
                }
                Role::Help | Role::Type | Role::Unit if tail.first() == Some(&b'\n') => {
                    if entry.role() == Role::Type {
                        self.parser.set_kind(entry.kind());
                    }
                    1
                }
                _ => break,
            };
            self.cursor += 1;
            (before, _) = rest.split_at(rest.len() - tail.len());
            rest = tail.get(len..).unwrap_or_default();
        }
        if rest.len() < buf.len() {
            self.cached.set(before, self.cursor);
        }
        self.appended += count;
        self.counts.scraped += count;
        self.counts.post_relabel += count;
        buf.len() - rest.len()
    }

    /// Reads the line at the start of `rest` if it is a plain one with a value and a time stamp at most, and nothing else is wanted of
    /// it; answers its length. Of a series that was not met before it is known then where its labels stand.
    pub(super) fn plain_line(&mut self, old: &Sequence, rest: &[u8]) -> Result<Option<usize>, ScrapeError> {
        let wants_starts = self.plan.settings.extras.starts && self.format == Format::OpenMetrics;
        if wants_starts || self.collector.is_some() || !self.parser.is_at_line_start() {
            return Ok(None);
        }
        let Some(mut series) = PlainSeries::scan(rest) else { return Ok(None) };
        let raw = series.raw();
        let scanned = rest.get(raw.len()..).and_then(|tail| self.parser.scan_sample(tail));
        let Some(scanned) = scanned.filter(|scanned| scanned.exemplar.is_none()) else { return Ok(None) };
        self.start_ms = None;
        let (value, timestamp_ms) = (scanned.value, scanned.timestamp_ms);
        let line = SeriesLine { raw, value, timestamp_ms, exemplar: None, start_ms: None };
        let len = raw.len() + scanned.len;
        self.any_series(old, line, Some(&mut series)).map(|()| Some(len))
    }
}

/// `rest` behind `prefix`, if it begins with it. Both are a few words long: less than the work of a call.
#[inline]
fn behind<'a>(rest: &'a [u8], prefix: &[u8]) -> Option<&'a [u8]> {
    let (head, tail) = rest.split_at_checked(prefix.len())?;
    is_same(head, prefix).then_some(tail)
}

/// Whether both are the same; they are equally long.
#[inline]
fn is_same(a: &[u8], b: &[u8]) -> bool {
    // The last word may overlap the one before.
    if let (Some(x), Some(y)) = (a.last_chunk::<8>(), b.last_chunk::<8>()) {
        return x == y && a.as_chunks::<8>().0.iter().zip(b.as_chunks::<8>().0).all(|(x, y)| x == y);
    }
    if let (Some(x), Some(y)) = (a.last_chunk::<4>(), b.last_chunk::<4>()) {
        return x == y && a.first_chunk::<4>() == b.first_chunk::<4>();
    }
    a.iter().zip(b).all(|(x, y)| x == y)
}

#[cfg(test)]
mod tests {
    use super::behind;

    #[test]
    fn a_prefix_is_found_whatever_its_length() {
        let text: Vec<u8> = (0..40).collect();
        for len in 0..=40 {
            assert_eq!(behind(&text, &text[..len]), Some(&text[len..]));
            for wrong in 0..len {
                let mut other = text[..len].to_vec();
                other[wrong] ^= 0x80;
                assert_eq!(behind(&text, &other), None, "{len} {wrong}");
            }
        }
        assert_eq!(behind(&text[..5], &text), None);
    }
}
