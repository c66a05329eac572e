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
        while count < room
            && let Some(entry) = old.get(self.cursor)
            && let Some(tail) = rest.strip_prefix(self.cached.read(old, self.cursor))
        {
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
            rest = tail.get(len..).unwrap_or_default();
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
