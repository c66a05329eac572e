//! One body, read as it comes: lines are cut, compared with the last scrape's, parsed where they differ, and staged.
//!
//! The usual line is known: the cursor stands on the same line of the last scrape, so reading it is a comparison of
//! bytes and a number parse. The first line that differs starts a *rewrite*: the lines so far are copied, and from then
//! on lines are looked up by hash where the cursor does not match. Nothing is visible before [`Reader::finish`].
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

use std::sync::Arc;

use foldhash::fast::RandomState;
use memchr::{memchr, memrchr};

use crate::exposition::content_type::Format;
use crate::exposition::line::LineParser;
use crate::exposition::protobuf::FamilyReader;
use crate::exposition::text::{Entry as Line, FamilyKind, Step, TextError};
use crate::model::append::{AppendHistogram, AppendSample, HistogramValue};
use crate::model::spare;
use crate::model::time::TimestampMs;
use crate::scrape::aside::Exemplars;
use crate::scrape::cache::{CacheState, Staged};
use crate::scrape::created::Created;
use crate::scrape::error::ScrapeError;
use crate::scrape::labels::Assembler;
use crate::scrape::nhcb::Collector;
use crate::scrape::reference::References;
use crate::scrape::report;
use crate::scrape::rewrite::{Rewrite, UNSEEN};
use crate::scrape::sequence::{Entry, Line as CachedLine, Role, Sequence};
use crate::scrape::settings::{ClassicPart, SamplePlan, ScrapeLimits};
use crate::scrape::staging::StagingPermit;
use crate::scrape::synthesis::Synthesis;

mod lines;
pub(super) mod samples;

/// Input that is read between two looks at the staging budget.
const PIECE_LEN_MAX: usize = 64 << 10;
/// Staged bytes of a sample beside its labels: in the batch, its origin, and its value for a second try.
const SAMPLE_BYTES: usize = size_of::<AppendSample>() + size_of::<u32>() + 2 * size_of::<u64>();
/// What a scrape counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadCounts {
    /// Samples exposed.
    pub scraped: u64,
    /// Samples left after relabelling.
    pub post_relabel: u64,
    /// Series that the last scrape did not have.
    pub series_added: u64,
    /// Second samples of a series without time stamp.
    pub duplicates: u64,
    /// Exemplars.
    pub exemplars: u64,
    /// Bytes read, decompressed.
    pub body_len: u64,
}

/// Reads one body.
pub struct Reader<'a> {
    pub(super) plan: &'a SamplePlan,
    pub(super) previous: Arc<CacheState>,
    pub(super) at: TimestampMs,
    pub(super) line_len_max: usize,
    /// 0 for no limit.
    new_series_max: u64,
    assembler: Assembler<'a>,
    hasher: RandomState,
    pub(super) format: Format,
    pub(super) parser: LineParser,
    pub(super) families: FamilyReader,
    /// Bytes of a line or of a protobuf family that is not complete yet.
    pub(super) carry: Vec<u8>,
    /// The carried line ran over a line end inside quotes: parsing again pays only from this length on.
    retry_len: usize,
    /// A NUL has ended the text; what follows does not count.
    terminated: bool,
    /// `# EOF` has ended OpenMetrics; nothing may follow.
    ended: bool,
    pub(super) cursor: usize,
    /// The line of the last scrape that was read last.
    pub(super) cached: CachedLine,
    pub(super) rewrite: Option<Rewrite>,
    pub(super) retracked: Vec<u32>,
    pub(super) samples: Vec<AppendSample>,
    pub(super) lines: Vec<u32>,
    /// Native histograms, and the line of each.
    pub(super) histograms: Vec<AppendHistogram>,
    pub(super) histogram_lines: Vec<u32>,
    /// That of the series which is being read, in place of its value.
    native: Option<HistogramValue>,
    /// Parts of classic histograms, where they are converted.
    pub(super) collector: Option<Box<Collector>>,
    pub(super) exemplars: Exemplars,
    /// The start time of the sample that is being read, if the format tells it there.
    pub(super) start_ms: Option<i64>,
    pub(super) created: Created,
    /// Notes for start times that are made up, where they are.
    pub(super) synthesis: Option<Box<Synthesis>>,
    /// What they are counted from next time.
    pub(super) references: Option<Arc<References>>,
    label_bytes: usize,
    pub(super) appended: u64,
    pub(super) over_limit: bool,
    pub(super) over_buckets: bool,
    pub(super) counts: ReadCounts,
    permit: StagingPermit,
}

impl<'a> Reader<'a> {
    /// A reader whose samples without time stamp are stamped `at`.
    pub(super) fn new(
        plan: &'a SamplePlan,
        previous: Arc<CacheState>,
        at: TimestampMs,
        limits: ScrapeLimits,
        permit: StagingPermit,
    ) -> Self {
        // As many samples as last time, and the report series that the cache adds.
        let expected = previous.sequence.len() + report::NAMES.len();
        Self {
            plan,
            previous,
            at,
            line_len_max: if limits.line_len_max == 0 { usize::MAX } else { limits.line_len_max },
            new_series_max: limits.new_series_max,
            assembler: Assembler::new(plan),
            hasher: RandomState::default(),
            format: Format::Text,
            parser: LineParser::new(Format::Text),
            families: FamilyReader::default(),
            carry: Vec::new(),
            retry_len: 0,
            terminated: false,
            ended: false,
            cursor: 0,
            cached: CachedLine::default(),
            rewrite: None,
            retracked: Vec::new(),
            samples: spare::samples(expected),
            lines: Vec::with_capacity(expected),
            histograms: Vec::new(),
            histogram_lines: Vec::new(),
            native: None,
            collector: (plan.settings.classic != ClassicPart::Kept).then(Box::default),
            exemplars: Exemplars::default(),
            start_ms: None,
            created: Created::default(),
            synthesis: plan.settings.extras.synthesis.then(Box::default),
            references: None,
            label_bytes: 0,
            appended: 0,
            over_limit: false,
            over_buckets: false,
            counts: ReadCounts::default(),
            permit,
        }
    }

    /// Says which format the body is in; text unless told so before the first bytes.
    pub(super) fn set_format(&mut self, format: Format) {
        self.format = format;
        self.parser = LineParser::new(format);
    }

    /// What was counted so far; also valid after an error.
    pub(super) fn counts(&self) -> ReadCounts {
        self.counts
    }

    /// Takes the next bytes of the body.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Result<(), ScrapeError> {
        self.counts.body_len += bytes.len() as u64;
        for piece in bytes.chunks(PIECE_LEN_MAX) {
            if self.terminated {
                return Ok(());
            }
            match self.format {
                Format::Protobuf => self.feed_frames(piece)?,
                Format::Text | Format::OpenMetrics => self.feed_piece(piece)?,
            }
            self.charge()?;
        }
        Ok(())
    }

    /// Counts bytes that are not looked at, because the scrape has failed.
    pub(super) fn pass_over(&mut self, bytes: &[u8]) {
        self.counts.body_len += bytes.len() as u64;
    }

    /// Takes the end of the body.
    pub(super) fn finish(mut self) -> (ReadCounts, Result<Staged, ScrapeError>) {
        let read = self.finish_reading();
        let counts = self.counts;
        (counts, read.and_then(|()| self.stage()))
    }

    fn finish_reading(&mut self) -> Result<(), ScrapeError> {
        if self.format == Format::Protobuf {
            self.finish_frames()?;
        } else if !self.is_over() && !self.carry.is_empty() {
            let mut rest = std::mem::take(&mut self.carry);
            if self.format == Format::Text {
                // Prometheus ends every body with a line end; error texts show it.
                rest.push(b'\n');
            }
            self.parse(&rest, true)?;
        }
        let previous = Arc::clone(&self.previous);
        self.end_collection(&previous.sequence)?;
        if self.format == Format::OpenMetrics && !self.ended && 0 < self.counts.body_len {
            return Err(TextError::EndMissing.into());
        }
        if !self.over_limit {
            self.synthesize()?;
        }
        if self.over_limit {
            Err(ScrapeError::SampleLimit)
        } else if self.over_buckets {
            Err(ScrapeError::BucketLimit)
        } else {
            Ok(())
        }
    }

    fn feed_piece(&mut self, mut piece: &[u8]) -> Result<(), ScrapeError> {
        self.check_end(piece)?;
        if self.is_over() {
            return Ok(());
        }
        while !self.carry.is_empty() && !piece.is_empty() {
            let (line, rest) = piece.split_at(memchr(b'\n', piece).map_or(piece.len(), |end| end + 1));
            self.carry.extend_from_slice(line);
            piece = rest;
            let over = self.line_len_max < self.carry.len();
            if self.carry.last() == Some(&b'\n') && (over || self.retry_len <= self.carry.len()) {
                let mut carry = std::mem::take(&mut self.carry);
                let consumed = self.parse(&carry, false)?;
                carry.drain(..consumed);
                // Doubling keeps the work linear when a hostile string holds many line ends.
                self.retry_len = carry.len().saturating_mul(2);
                self.carry = carry;
            }
            self.check_line_len()?;
            self.check_end(piece)?;
            if self.is_over() {
                return Ok(());
            }
        }
        let complete = memrchr(b'\n', piece).map_or(0, |end| end + 1);
        let (lines, tail) = piece.split_at(complete);
        let consumed = self.parse(lines, false)?;
        self.check_end(tail)?;
        if self.is_over() {
            return Ok(());
        }
        if let Some(open) = lines.get(consumed..).filter(|open| !open.is_empty()) {
            self.carry.extend_from_slice(open);
            self.retry_len = open.len().saturating_mul(2);
        } else if !tail.is_empty() {
            self.retry_len = 0;
        }
        self.carry.extend_from_slice(tail);
        self.check_line_len()
    }

    /// True once nothing that follows can count.
    fn is_over(&self) -> bool {
        self.terminated || self.ended
    }

    /// Errors for anything after `# EOF`; only NULs are stepped over there, as in Prometheus.
    fn check_end(&self, rest: &[u8]) -> Result<(), ScrapeError> {
        let data_follows = self.ended && rest.iter().any(|b| *b != 0);
        if data_follows { Err(TextError::DataAfterEnd.into()) } else { Ok(()) }
    }

    fn check_line_len(&self) -> Result<(), ScrapeError> {
        if self.line_len_max < self.carry.len() {
            return Err(ScrapeError::LineTooLong { limit: self.line_len_max });
        }
        Ok(())
    }

    fn charge(&mut self) -> Result<(), ScrapeError> {
        let rewrite = self.rewrite.as_ref().map_or(0, Rewrite::heap_bytes);
        let noted = self.synthesis.as_ref().map_or(0, |synthesis| synthesis.heap_bytes());
        let bytes = self.samples.capacity() * SAMPLE_BYTES + self.label_bytes + self.carry.capacity() + rewrite + noted;
        self.permit.cover(bytes as u64)
    }

    /// Reads the entries of `buf`, which ends with a line end; answers how much of it is done with.
    fn parse(&mut self, buf: &[u8], last: bool) -> Result<usize, ScrapeError> {
        let previous = Arc::clone(&self.previous);
        let mut at = 0;
        loop {
            at += self.usual_lines(&previous.sequence, buf.get(at..).unwrap_or_default());
            let Some(rest) = buf.get(at..).filter(|rest| !rest.is_empty()) else { break };
            if let Some(len) = self.known_line(&previous.sequence, rest)? {
                at += len;
                continue;
            }
            if let Some(len) = self.plain_line(&previous.sequence, rest)? {
                at += len;
                continue;
            }
            match self.parser.next_entry(buf, at, last)? {
                Step::Incomplete => return Ok(at),
                Step::End => return Ok(buf.len()),
                Step::Terminated => {
                    self.terminated = true;
                    return Ok(buf.len());
                }
                Step::Ended { next } => {
                    self.ended = true;
                    self.check_end(buf.get(next..).unwrap_or_default())?;
                    return Ok(buf.len());
                }
                Step::Entry { entry, next } => {
                    match entry {
                        Line::Help { raw, .. } => self.metadata(&previous.sequence, raw, Role::Help)?,
                        Line::Type { raw, .. } => self.metadata(&previous.sequence, raw, Role::Type)?,
                        Line::Unit { raw, .. } => self.metadata(&previous.sequence, raw, Role::Unit)?,
                        Line::Comment => {}
                        Line::Series(line) => self.series(&previous.sequence, line)?,
                    }
                    at = next;
                }
            }
        }
        Ok(buf.len())
    }

    /// Reads the line at the start of `rest` if it is the one that the cursor stands on; answers its length.
    fn known_line(&mut self, old: &Sequence, rest: &[u8]) -> Result<Option<usize>, ScrapeError> {
        // What is a line in one format may be none in another.
        if self.format != self.previous.format || !self.parser.is_at_line_start() {
            return Ok(None);
        }
        let Some(entry) = old.get(self.cursor) else { return Ok(None) };
        if let Some(collector) = &self.collector
            && (collector.is_collecting() || is_sample(entry) && entry.kind() == FamilyKind::Histogram)
        {
            return Ok(None);
        }
        if self.is_seen(self.cursor) {
            return Ok(None);
        }
        let mut cached = std::mem::take(&mut self.cached);
        let read = self.cached_line(old, entry, cached.read(old, self.cursor), rest);
        self.cached = cached;
        read
    }

    /// Reads the line at the start of `rest` if it is `raw`, on which the cursor stands.
    #[inline]
    fn cached_line(
        &mut self,
        old: &Sequence,
        entry: Entry,
        raw: &[u8],
        rest: &[u8],
    ) -> Result<Option<usize>, ScrapeError> {
        let Some(tail) = rest.strip_prefix(raw) else { return Ok(None) };
        match entry.role() {
            Role::Help | Role::Type | Role::Unit => {
                if tail.first() != Some(&b'\n') {
                    return Ok(None);
                }
                if entry.role() == Role::Type {
                    self.parser.set_kind(entry.kind());
                    self.begin_family(raw);
                }
                self.describe(raw, entry.role(), entry.kind());
                self.keep(old, self.cursor, entry)?;
                self.cursor += 1;
                Ok(Some(raw.len() + 1))
            }
            Role::Series | Role::Dropped | Role::Repeat => {
                let Some(scanned) = self.parser.scan_sample(tail) else { return Ok(None) };
                if scanned.exemplar.is_some() {
                    self.hold_exemplars(raw, entry.kind(), scanned.exemplar, scanned.timestamp_ms)?;
                }
                self.is_created(raw, scanned.value);
                self.known_series(old, self.cursor, entry, scanned.value, scanned.timestamp_ms)?;
                self.exemplars.release();
                Ok(Some(raw.len() + scanned.len))
            }
        }
    }

    /// Takes a line of the last scrape over; answers its index in this one.
    fn keep(&mut self, old: &Sequence, index: usize, entry: Entry) -> Result<usize, ScrapeError> {
        match self.rewrite.as_mut() {
            Some(rewrite) => rewrite.keep(old, index, entry),
            None => Ok(index),
        }
    }

    /// Starts the rewrite, unless it has started: the lines before the cursor are those of the last scrape.
    fn rewriting(&mut self, old: &Sequence) -> Result<&mut Rewrite, ScrapeError> {
        let cursor = self.cursor;
        let retracked = std::mem::take(&mut self.retracked);
        let rewrite = self.rewrite.get_or_insert_with(|| Rewrite::new(old, cursor));
        rewrite.flip_tracked(&retracked);
        Ok(rewrite)
    }

    fn stage(mut self) -> Result<Staged, ScrapeError> {
        let previous = Arc::clone(&self.previous);
        let old = &previous.sequence;
        if self.rewrite.is_none() && (self.cursor < old.len() || !self.retracked.is_empty()) {
            self.rewriting(old)?;
        }
        let mut staged = Staged {
            samples: self.samples,
            lines: self.lines,
            histograms: self.histograms,
            histogram_lines: self.histogram_lines,
            exemplars: self.exemplars.staged,
            exemplar_lines: self.exemplars.lines,
            starts: self.created.finish(),
            next: None,
            vanished: Vec::new(),
            format: self.format,
            references: self.references,
            permit: Some(self.permit),
        };
        if let Some(rewrite) = self.rewrite {
            for (index, new) in rewrite.moved.iter().enumerate() {
                let gone = old.get(index).filter(|entry| *new == UNSEEN && entry.role() == Role::Series);
                if gone.is_some_and(Entry::tracked) {
                    staged.vanished.push(index as u32);
                }
            }
            staged.next = Some(rewrite.next);
        }
        Ok(staged)
    }
}

fn is_sample(entry: Entry) -> bool {
    matches!(entry.role(), Role::Series | Role::Dropped | Role::Repeat)
}
