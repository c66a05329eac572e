//! One body, read as it comes: lines are cut, compared with the last scrape's, parsed where they differ, and staged.
//!
//! The usual line is known: the cursor stands on the same line of the last scrape, so reading it is a comparison of
//! bytes and a number parse. The first line that differs starts a *rewrite*: the lines so far are copied, and from then
//! on lines are looked up by hash where the cursor does not match. Nothing is visible before [`Reader::finish`].
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

use std::hash::BuildHasher;
use std::sync::Arc;

use foldhash::fast::RandomState;
use memchr::{memchr, memrchr};

use crate::exposition::content_type::Format;
use crate::exposition::exemplar::RawExemplar;
use crate::exposition::line::LineParser;
use crate::exposition::plain::PlainSeries;
use crate::exposition::protobuf::{FamilyReader, NativeSample};
use crate::exposition::text::{Entry as Line, FamilyKind, SeriesLine, Step, TextError, metadata_parts};
use crate::model::append::{AppendHistogram, AppendSample, HistogramValue, SeriesKey};
use crate::model::labels::Labels;
use crate::model::spare;
use crate::model::time::TimestampMs;
use crate::scrape::aside::Exemplars;
use crate::scrape::cache::{CacheState, Staged};
use crate::scrape::created::Created;
use crate::scrape::error::ScrapeError;
use crate::scrape::labels::{Assembler, assemble};
use crate::scrape::nhcb::{Collector, Part};
use crate::scrape::reference::References;
use crate::scrape::report;
use crate::scrape::rewrite::{Rewrite, UNSEEN};
use crate::scrape::sequence::{Entry, Line as CachedLine, Role, Sequence};
use crate::scrape::settings::{ClassicPart, SCHEMA_MIN, SamplePlan, ScrapeLimits, ScrapeSettings};
use crate::scrape::staging::StagingPermit;
use crate::scrape::synthesis::{Fate, Synthesis};

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

    pub(super) fn metadata(&mut self, old: &Sequence, raw: &[u8], role: Role) -> Result<(), ScrapeError> {
        self.end_collection(old)?;
        let kind = if role == Role::Type { self.parser.kind() } else { FamilyKind::Unknown };
        if role == Role::Type {
            self.begin_family(raw);
        }
        self.describe(raw, role, kind);
        let here = old.get(self.cursor).filter(|entry| entry.role() == role);
        let here = here.filter(|_| self.cached.read(old, self.cursor) == raw);
        match here {
            Some(entry) if !self.is_seen(self.cursor) => {
                self.keep(old, self.cursor, entry)?;
                self.cursor += 1;
            }
            _ => {
                // A changed or new family: what follows the cursor's own metadata may still match.
                let rewrite = self.rewriting(old)?;
                rewrite.next.push(raw, role, kind)?;
                let replaced = old.get(self.cursor).is_some_and(|entry| entry.role() == role);
                if replaced && !self.is_seen(self.cursor) && self.replaces(old, raw) {
                    self.cursor += 1;
                }
            }
        }
        Ok(())
    }

    /// True if the metadata line under the cursor is about the same family as `raw`.
    fn replaces(&self, old: &Sequence, raw: &[u8]) -> bool {
        let family = |line| metadata_parts(line).map(|(family, _)| family);
        family(&old.raw(self.cursor)) == family(raw)
    }

    /// A series that was parsed in full, on its way into a native histogram or not.
    pub(super) fn series(&mut self, old: &Sequence, line: SeriesLine<'_>) -> Result<(), ScrapeError> {
        if self.is_created(line.raw, line.value) {
            return Ok(());
        }
        let kind = self.parser.kind();
        let Some(collector) = self.collector.as_mut() else { return self.plain_series(old, line) };
        let (part, is_other) = collector.look(line.raw, kind);
        if is_other {
            self.end_collection(old)?;
        }
        if part == Part::None {
            return self.plain_series(old, line);
        }
        let at = self.explicit(line.timestamp_ms).map_or(self.at, TimestampMs);
        let exemplar = line.exemplar.filter(|_| self.plan.settings.extras.exemplars).map(|raw| raw.read(at));
        if let Some(collector) = self.collector.as_mut() {
            collector.take_part(part, &line, exemplar);
        }
        // The exemplar goes with the native series alone, as in Prometheus.
        self.counts.exemplars += u64::from(line.exemplar.is_some());
        match self.plan.settings.classic {
            ClassicPart::Converted => Ok(()),
            ClassicPart::Kept | ClassicPart::KeptAndConverted => {
                self.plain_series(old, SeriesLine { exemplar: None, ..line })
            }
        }
    }

    /// Reads the native series that the collected parts make, if there are any.
    fn end_collection(&mut self, old: &Sequence) -> Result<(), ScrapeError> {
        let Some(whole) = self.collector.as_mut().and_then(|collector| collector.end()) else { return Ok(()) };
        let (raw, timestamp_ms, start_ms) = (&whole.series[..], whole.timestamp_ms, whole.start_ms);
        self.start_ms = start_ms;
        self.exemplars.hold_read(whole.exemplars, (raw, FamilyKind::Histogram, self.plan))?;
        self.native = Some(whole.histogram);
        let line = SeriesLine { raw, value: 0.0, timestamp_ms, exemplar: None, start_ms };
        let read = self.any_series(old, line, None);
        self.native = None;
        self.exemplars.release();
        read
    }

    fn begin_family(&mut self, raw: &[u8]) {
        if self.plan.settings.extras.starts && self.format == Format::OpenMetrics {
            self.created.begin_family(raw);
        }
        if let Some(collector) = self.collector.as_mut()
            && let Some((name, _)) = metadata_parts(raw)
        {
            collector.begin_family(name);
        }
    }

    fn describe(&mut self, raw: &[u8], role: Role, kind: FamilyKind) {
        if let Some(synthesis) = self.synthesis.as_mut() {
            synthesis.describe(raw, role, kind);
        }
    }

    /// A series that was parsed in full: met before at another place, or new.
    fn plain_series(&mut self, old: &Sequence, line: SeriesLine<'_>) -> Result<(), ScrapeError> {
        let SeriesLine { raw, timestamp_ms, exemplar, start_ms, .. } = line;
        self.start_ms = start_ms;
        if exemplar.is_some() {
            self.hold_exemplars(raw, self.parser.kind(), exemplar, timestamp_ms)?;
        }
        let read = self.any_series(old, line, None);
        self.exemplars.release();
        read
    }

    /// A series and, if that was found out, where its parts stand.
    pub(super) fn any_series(
        &mut self,
        old: &Sequence,
        line: SeriesLine<'_>,
        plain: Option<&mut PlainSeries<'_>>,
    ) -> Result<(), ScrapeError> {
        let SeriesLine { raw, value, timestamp_ms, .. } = line;
        let under_cursor = old.get(self.cursor).filter(|entry| is_sample(*entry));
        let under_cursor = under_cursor.filter(|_| self.cached.read(old, self.cursor) == raw);
        if let Some(entry) = under_cursor.filter(|_| !self.is_seen(self.cursor)) {
            return self.known_series(old, self.cursor, entry, value, timestamp_ms);
        }
        self.rewriting(old)?;
        let hash = self.hasher.hash_one(raw);
        let hasher = &self.hasher;
        let index = self.rewrite.as_mut().and_then(|r| r.find_old(old, raw, hash, hasher));
        if let Some(index) = index {
            let entry = old.get(index);
            if let Some(entry) = entry.filter(|_| !self.is_seen(index)) {
                return self.known_series(old, index, entry, value, timestamp_ms);
            }
            let first = self.rewrite.as_ref().and_then(|r| r.moved.get(index)).map_or(0, |new| *new as usize);
            self.cursor = self.cursor.max(index + 1);
            return self.repeated(raw, first, value, timestamp_ms);
        }
        let known = self.rewrite.as_ref().and_then(|r| r.find_new(raw, hash));
        match known {
            Some(first) => self.repeated(raw, first, value, timestamp_ms),
            None => {
                let kind = self.parser.kind();
                let labels = match plain {
                    Some(series) => self.assembler.assemble(series, kind),
                    None => assemble(raw, kind, self.plan),
                };
                self.new_series((raw, hash), labels, value, timestamp_ms)
            }
        }
    }

    /// A series that has a native histogram in place of a value.
    pub(super) fn native_series(&mut self, old: &Sequence, sample: NativeSample<'_>) -> Result<(), ScrapeError> {
        let NativeSample { raw, histogram, timestamp_ms, exemplars, start_ms } = sample;
        self.end_collection(old)?;
        if let Some(collector) = self.collector.as_mut() {
            collector.inhibit(raw);
        }
        self.hold_exemplars(raw, self.parser.kind(), exemplars.iter().copied(), timestamp_ms)?;
        self.start_ms = start_ms;
        self.native = Some(histogram.clone());
        let line = SeriesLine { raw, value: 0.0, timestamp_ms, exemplar: None, start_ms };
        let read = self.any_series(old, line, None);
        // One that is dropped or repeated was not taken.
        self.native = None;
        self.exemplars.release();
        read
    }

    /// True for a line that tells the start of samples before it, where that is wanted.
    fn is_created(&mut self, raw: &[u8], value: f64) -> bool {
        let is_wanted = self.plan.settings.extras.starts && self.format == Format::OpenMetrics;
        let is_created = is_wanted && self.created.takes(raw, self.parser.kind(), value);
        if let Some(collector) = self.collector.as_mut().filter(|_| is_created) {
            collector.take_created(raw, Created::start_ms(value));
        }
        is_created
    }

    /// Reads the exemplars of a sample, if they are wanted; they are staged with it.
    fn hold_exemplars<'e>(
        &mut self,
        raw: &[u8],
        kind: FamilyKind,
        found: impl IntoIterator<Item = RawExemplar<'e>>,
        timestamp_ms: Option<i64>,
    ) -> Result<(), ScrapeError> {
        let at = self.explicit(timestamp_ms).map_or(self.at, TimestampMs);
        let counts = &mut self.counts.exemplars;
        let found = found.into_iter().inspect(|_| *counts += 1);
        if !self.plan.settings.extras.exemplars {
            found.for_each(drop);
            return Ok(());
        }
        self.exemplars.hold(found, at, (raw, kind, self.plan))
    }

    fn new_series(
        &mut self,
        (raw, hash): (&[u8], u64),
        labels: Result<Option<Labels>, ScrapeError>,
        value: f64,
        timestamp_ms: Option<i64>,
    ) -> Result<(), ScrapeError> {
        self.counts.scraped += 1;
        let kind = self.parser.kind();
        let labels = labels?;
        let explicit = self.explicit(timestamp_ms);
        let tracked = self.tracks(explicit);
        self.counts.post_relabel += u64::from(labels.is_some());
        let fate = self.fate_of_new(labels.as_ref());
        let fits = labels.is_none() || self.admit_as(fate);
        if !fits {
            return Ok(());
        }
        let role = if labels.is_some() { Role::Series } else { Role::Dropped };
        let Some(rewrite) = self.rewrite.as_mut() else { return Ok(()) };
        let index = rewrite.next.push(raw, role, kind)?;
        rewrite.index_new(index, hash);
        if let Some(entry) = rewrite.next.get_mut(index) {
            entry.set_tracked(tracked && labels.is_some());
        }
        if let Some(labels) = labels {
            self.count_new()?;
            self.label_bytes += labels.encoded_len() + 2 * size_of::<usize>();
            self.hold_fate(fate, UNSEEN as usize);
            self.push(index, SeriesKey::Labels(labels), explicit, value)?;
        }
        Ok(())
    }

    /// Counts a series that the last scrape did not have.
    fn count_new(&mut self) -> Result<(), ScrapeError> {
        self.counts.series_added += 1;
        let limit = self.new_series_max;
        if 0 < limit && limit < self.counts.series_added {
            return Err(ScrapeError::TooManyNewSeries { limit });
        }
        Ok(())
    }

    /// A series of the last scrape, at `index` of its lines.
    fn known_series(
        &mut self,
        old: &Sequence,
        index: usize,
        entry: Entry,
        value: f64,
        timestamp_ms: Option<i64>,
    ) -> Result<(), ScrapeError> {
        self.cursor = index + 1;
        match entry.role() {
            Role::Repeat => self.known_repeat(old, index, entry, value, timestamp_ms),
            Role::Series => {
                let place = self.keep(old, index, entry)?;
                self.sample(old, (index, place), entry, value, timestamp_ms)
            }
            Role::Dropped | Role::Help | Role::Type | Role::Unit => {
                self.counts.scraped += 1;
                self.keep(old, index, entry).map(drop)
            }
        }
    }

    /// A line that repeated an earlier one in the last scrape. Where that one is missing now, this one takes its place.
    fn known_repeat(
        &mut self,
        old: &Sequence,
        index: usize,
        entry: Entry,
        value: f64,
        timestamp_ms: Option<i64>,
    ) -> Result<(), ScrapeError> {
        let first = entry.repeats();
        let Some(rewrite) = &self.rewrite else {
            self.counts.scraped += 1;
            return self.repeat_sample(old, first, old.get(first), value, timestamp_ms);
        };
        let place = rewrite.moved.get(first).copied().unwrap_or(UNSEEN);
        if place == UNSEEN {
            let Some(original) = old.get(first) else { return Ok(()) };
            let place = self.keep(old, first, original)?;
            self.see(index, place);
            return self.sample(old, (first, place), original, value, timestamp_ms);
        }
        self.see(index, place as usize);
        self.repeated(&old.raw(index), place as usize, value, timestamp_ms)
    }

    /// A line that repeats line `first` of this scrape.
    fn repeated(&mut self, raw: &[u8], first: usize, value: f64, timestamp_ms: Option<i64>) -> Result<(), ScrapeError> {
        self.counts.scraped += 1;
        let Some(rewrite) = self.rewrite.as_mut() else { return Ok(()) };
        let original = rewrite.next.get(first);
        if original.is_some_and(|entry| entry.role() == Role::Dropped) {
            rewrite.next.push(raw, Role::Dropped, FamilyKind::Unknown)?;
            return Ok(());
        }
        if !self.over_limit {
            rewrite.next.push_repeat(raw, first)?;
        }
        let next = std::mem::take(&mut rewrite.next);
        let repeated = self.repeat_sample(&next, first, original, value, timestamp_ms);
        if let Some(rewrite) = self.rewrite.as_mut() {
            rewrite.next = next;
        }
        repeated
    }

    /// The sample of a repeated line: a duplicate, unless it has a time stamp of its own.
    fn repeat_sample(
        &mut self,
        lines: &Sequence,
        first: usize,
        original: Option<Entry>,
        value: f64,
        timestamp_ms: Option<i64>,
    ) -> Result<(), ScrapeError> {
        let Some(original) = original.filter(|entry| entry.role() == Role::Series) else { return Ok(()) };
        self.counts.post_relabel += 1;
        let explicit = self.explicit(timestamp_ms);
        if explicit.is_none() {
            self.counts.duplicates += 1;
            if let Some(synthesis) = self.synthesis.as_mut() {
                synthesis.duplicate(first);
            }
            return Ok(());
        }
        if self.admit()
            && let Some(key) = self.key(lines, first, original)?
        {
            self.hold_fate(Fate::Again, UNSEEN as usize);
            self.push(first, key, explicit, value)?;
        }
        Ok(())
    }

    /// The sample of a series of the last scrape, where its line is `index`; in this scrape it is `place`.
    fn sample(
        &mut self,
        old: &Sequence,
        (index, place): (usize, usize),
        entry: Entry,
        value: f64,
        timestamp_ms: Option<i64>,
    ) -> Result<(), ScrapeError> {
        self.counts.scraped += 1;
        self.counts.post_relabel += 1;
        let explicit = self.explicit(timestamp_ms);
        let fate = self.fate_of_known(old, index, entry)?;
        let tracked = self.tracks(explicit) || fate != Fate::Plain;
        if tracked != entry.tracked() {
            match self.rewrite.as_mut() {
                Some(rewrite) => {
                    if let Some(copy) = rewrite.next.get_mut(place) {
                        copy.set_tracked(tracked);
                    }
                }
                None => self.retracked.push(place as u32),
            }
        }
        if !self.admit_as(fate) {
            return Ok(());
        }
        // A reference was counted as new when it was made.
        if entry.handle().is_none() && !self.has_reference(index) {
            self.count_new()?;
        }
        if let Some(key) = self.key(old, index, entry)? {
            self.hold_fate(fate, index);
            self.push(place, key, explicit, value)?;
        }
        Ok(())
    }

    fn key(&mut self, lines: &Sequence, index: usize, entry: Entry) -> Result<Option<SeriesKey>, ScrapeError> {
        if let Some(handle) = entry.handle() {
            return Ok(Some(SeriesKey::Known(handle)));
        }
        let labels = assemble(&lines.raw(index), entry.kind(), self.plan)?;
        self.label_bytes += labels.as_ref().map_or(0, |l| l.encoded_len() + 2 * size_of::<usize>());
        Ok(labels.map(SeriesKey::Labels))
    }

    /// Counts a sample against `sample_limit`; false from the first one over it, when nothing more is staged.
    pub(super) fn admit(&mut self) -> bool {
        self.appended += 1;
        let limit = self.plan.settings.sample_limit;
        if limit != 0 && limit < self.appended && !self.over_limit {
            self.over_limit = true;
            self.samples = Vec::new();
            self.lines = Vec::new();
            self.histograms = Vec::new();
            self.histogram_lines = Vec::new();
            self.exemplars.clear();
            self.created = Created::default();
            if let Some(synthesis) = self.synthesis.as_mut() {
                synthesis.clear();
            }
            self.label_bytes = 0;
        }
        !self.over_limit
    }

    fn push(&mut self, line: usize, series: SeriesKey, explicit: Option<i64>, value: f64) -> Result<(), ScrapeError> {
        let at = explicit.map_or(self.at, TimestampMs);
        let start = self.start_ms.take().filter(|start| *start != 0 && self.plan.settings.extras.starts);
        if let Some(histogram) = self.native.take() {
            let place = self.histograms.len() as u32;
            let value = match self.synthesis.as_mut().filter(|synthesis| synthesis.is_held()) {
                Some(synthesis) => {
                    // Fitted when it is known what is stored.
                    synthesis.staged_histogram(place, line);
                    histogram
                }
                None => {
                    let Some(value) = fitted(histogram, &self.plan.settings) else {
                        self.over_buckets = true;
                        return Ok(());
                    };
                    value.validate().map_err(|error| ScrapeError::InvalidHistogram(error.to_string()))?;
                    value
                }
            };
            self.label_bytes += self.exemplars.stage(line as u32);
            self.label_bytes += value.memory_len() + size_of::<AppendHistogram>();
            self.created.starts.histograms.extend(start.map(|start| (place, start)));
            self.histograms.push(AppendHistogram { series, at, value });
            self.histogram_lines.push(line as u32);
            return Ok(());
        }
        self.label_bytes += self.exemplars.stage(line as u32);
        self.created.starts.samples.extend(start.map(|start| (self.samples.len() as u32, start)));
        self.created.staged(self.samples.len());
        if let Some(synthesis) = self.synthesis.as_mut() {
            synthesis.staged_sample(self.samples.len(), line);
        }
        self.samples.push(AppendSample { series, at, value });
        self.lines.push(line as u32);
        Ok(())
    }

    fn explicit(&self, timestamp_ms: Option<i64>) -> Option<i64> {
        timestamp_ms.filter(|_| self.plan.settings.honor_timestamps)
    }

    fn tracks(&self, explicit: Option<i64>) -> bool {
        explicit.is_none() || self.plan.settings.track_timestamps_staleness
    }

    fn is_seen(&self, index: usize) -> bool {
        let moved = self.rewrite.as_ref().and_then(|r| r.moved.get(index));
        moved.is_some_and(|new| *new != UNSEEN)
    }

    fn see(&mut self, index: usize, place: usize) {
        if let Some(moved) = self.rewrite.as_mut().and_then(|r| r.moved.get_mut(index)) {
            *moved = place as u32;
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

/// The histogram in a resolution that keeps to the limits; `None` if there is none.
pub(super) fn fitted(mut value: HistogramValue, settings: &ScrapeSettings) -> Option<HistogramValue> {
    let limit = if settings.bucket_limit == 0 { usize::MAX } else { settings.bucket_limit };
    loop {
        let (schema, buckets) = match &value {
            HistogramValue::Integer(h) => (h.schema, h.positive_buckets.len() + h.negative_buckets.len()),
            HistogramValue::Float(h) => (h.schema, h.positive_buckets.len() + h.negative_buckets.len()),
        };
        let wanted = if settings.schema_max < schema {
            settings.schema_max
        } else if buckets <= limit {
            return Some(value);
        } else if value.uses_custom_buckets() || schema <= SCHEMA_MIN {
            return None;
        } else {
            schema - 1
        };
        match &mut value {
            HistogramValue::Integer(h) => Arc::make_mut(h).reduce_resolution(wanted),
            HistogramValue::Float(h) => Arc::make_mut(h).reduce_resolution(wanted),
        }
    }
}

fn is_sample(entry: Entry) -> bool {
    matches!(entry.role(), Role::Series | Role::Dropped | Role::Repeat)
}
