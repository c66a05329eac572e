//! The usual lines of a body: of series that storage knows, where they stood in the last scrape, with a value and nothing else.
//! Nearly all lines are such; [`Reader::parse`](super::reader::Reader) would read them the same, with more questions for each.
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

use crate::exposition::content_type::Format;
use crate::exposition::text;
use crate::model::append::{AppendSample, SeriesKey};
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
            && entry.role() == Role::Series
            && entry.tracked()
            && let Some(handle) = entry.handle()
            && let Some(tail) = rest.strip_prefix(self.cached.read(old, self.cursor))
            && let Some((value, len)) = text::scan_value_alone(tail)
        {
            self.samples.push(AppendSample { series: SeriesKey::Known(handle), at: self.at, value });
            self.lines.push(self.cursor as u32);
            self.cursor += 1;
            count += 1;
            rest = tail.get(len..).unwrap_or_default();
        }
        self.appended += count;
        self.counts.scraped += count;
        self.counts.post_relabel += count;
        buf.len() - rest.len()
    }
}
