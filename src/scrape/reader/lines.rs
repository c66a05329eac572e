//! What becomes of a line that was parsed: metadata, and series that are new, known or repeated.

use std::hash::BuildHasher;

use crate::exposition::content_type::Format;
use crate::exposition::exemplar::RawExemplar;
use crate::exposition::plain::PlainSeries;
use crate::exposition::protobuf::NativeSample;
use crate::exposition::text::{FamilyKind, SeriesLine, metadata_parts};
use crate::model::append::SeriesKey;
use crate::model::labels::Labels;
use crate::model::time::TimestampMs;
use crate::scrape::created::Created;
use crate::scrape::error::ScrapeError;
use crate::scrape::labels::assemble;
use crate::scrape::nhcb::Part;
use crate::scrape::reader::{Reader, is_sample};
use crate::scrape::rewrite::UNSEEN;
use crate::scrape::sequence::{Entry, Role, Sequence};
use crate::scrape::settings::ClassicPart;
use crate::scrape::synthesis::Fate;

impl Reader<'_> {
    pub(in crate::scrape) fn metadata(&mut self, old: &Sequence, raw: &[u8], role: Role) -> Result<(), ScrapeError> {
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
    pub(in crate::scrape) fn series(&mut self, old: &Sequence, line: SeriesLine<'_>) -> Result<(), ScrapeError> {
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
    pub(super) fn end_collection(&mut self, old: &Sequence) -> Result<(), ScrapeError> {
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

    pub(super) fn begin_family(&mut self, raw: &[u8]) {
        if self.plan.settings.extras.starts && self.format == Format::OpenMetrics {
            self.created.begin_family(raw);
        }
        if let Some(collector) = self.collector.as_mut()
            && let Some((name, _)) = metadata_parts(raw)
        {
            collector.begin_family(name);
        }
    }

    pub(super) fn describe(&mut self, raw: &[u8], role: Role, kind: FamilyKind) {
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
    pub(in crate::scrape) fn any_series(
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
    pub(in crate::scrape) fn native_series(
        &mut self,
        old: &Sequence,
        sample: NativeSample<'_>,
    ) -> Result<(), ScrapeError> {
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
    pub(super) fn is_created(&mut self, raw: &[u8], value: f64) -> bool {
        let is_wanted = self.plan.settings.extras.starts && self.format == Format::OpenMetrics;
        let is_created = is_wanted && self.created.takes(raw, self.parser.kind(), value);
        if let Some(collector) = self.collector.as_mut().filter(|_| is_created) {
            collector.take_created(raw, Created::start_ms(value));
        }
        is_created
    }

    /// Reads the exemplars of a sample, if they are wanted; they are staged with it.
    pub(super) fn hold_exemplars<'e>(
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
    pub(super) fn count_new(&mut self) -> Result<(), ScrapeError> {
        self.counts.series_added += 1;
        let limit = self.new_series_max;
        if 0 < limit && limit < self.counts.series_added {
            return Err(ScrapeError::TooManyNewSeries { limit });
        }
        Ok(())
    }

    /// A series of the last scrape, at `index` of its lines.
    pub(super) fn known_series(
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
}
