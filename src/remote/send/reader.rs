//! Reads the log for one destination: series become labels as the destination gets them, samples become items.
//!
//! First all series are learned that the log names before the place to begin at, from the newest checkpoint on; then
//! records are read in full. Series that a later checkpoint does not have are forgotten. Each step reads a bounded part,
//! as it runs on the compute pool.
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::config::relabel::relabel_builder;
use crate::model::exemplar::Exemplar;
use crate::model::labels::Labels;
use crate::model::metadata::SeriesMetadata;
use crate::model::sample::SeriesRef;
use crate::model::time::TimestampMs;
use crate::remote::send::encode::labels_v1;
use crate::remote::send::metrics::{Class, QueueMetrics, Reason};
use crate::remote::send::queue::{Item, ItemValue, SentExemplar};
use crate::remote::send::spec::Destination;
use crate::storage::wal::WalError;
use crate::storage::wal::cursor::{Cursor, Place};
use crate::storage::wal::exemplar_record::{RefExemplar, decode_exemplars};
use crate::storage::wal::fragment::Compression;
use crate::storage::wal::histogram_record::{RefHistogram, decode_started_histograms};
use crate::storage::wal::metadata_record::{RefMetadata, decode_metadata};
use crate::storage::wal::reader::Inflater;
use crate::storage::wal::record::{
    RecordError, RecordKind, RefSample, RefSeries, decode_series, decode_started_samples,
};
use crate::storage::wal::segments::{LogFiles, checkpoint_name};
use crate::storage::wal::tail::{Tail, Tailed};
use crate::storage::wal::writer::Position;

/// Bytes of records that a step reads.
const STEP_LEN: usize = 2 << 20;
/// Items after which a step ends at the latest; the last record may bring more.
pub const STEP_ITEMS: usize = 8_192;
/// How often to look for a new checkpoint.
const TIDY_EVERY: Duration = Duration::from_secs(5);

/// A series as the destination gets it.
#[derive(Debug)]
pub struct SentSeries {
    /// Its labels.
    pub labels: SentLabels,
    /// What the log says of its metric; version 2 sends it along.
    pub metadata: Option<SentMetadata>,
}

/// Labels in the form in which the protocol's version needs them.
#[derive(Clone, Debug)]
pub enum SentLabels {
    /// Encoded.
    V1(Box<[u8]>),
    /// As they are.
    V2(Labels),
}

/// What a metric is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SentMetadata {
    /// Number of the type.
    pub kind: u8,
    /// What it means.
    pub help: Arc<str>,
    /// Unit of its values.
    pub unit: Arc<str>,
}

/// What is known of a reference.
struct Known {
    /// `None` if `write_relabel_configs` drop it.
    series: Option<Arc<SentSeries>>,
    /// The last segment, or checkpoint, that names it.
    segment: u64,
}

/// How far a step has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// There is more to read.
    More,
    /// All that is written has been read.
    CaughtUp,
}

/// Where the log ends and how to read it.
pub struct LogReader {
    files: LogFiles,
    to: Arc<Destination>,
    metrics: Arc<QueueMetrics>,
    phase: Phase,
    /// What was done before, until reading has come to its end.
    done: Option<Cursor>,
    /// The end of the log was reached.
    is_tailing: bool,
    known: HashMap<u64, Known, foldhash::fast::FixedState>,
    /// The newest checkpoint whose series are known.
    checkpoint: Option<u64>,
    tidied_at: Duration,
    parts: Parts,
}

enum Phase {
    /// Learning series from these, last first; then reading from there on.
    Learning(Vec<(Tail, u64, Position)>, Place),
    Reading(Tail),
    /// Reading, and looking at the series of a new checkpoint meanwhile.
    Tidying(Tail, Tail, u64),
}

/// Buffers for the parts of a record.
#[derive(Default)]
struct Parts {
    inflater: Inflater,
    series: Vec<RefSeries>,
    samples: Vec<RefSample>,
    histograms: Vec<RefHistogram>,
    /// Of the samples or histograms, if the record has them.
    starts: Vec<i64>,
    exemplars: Vec<RefExemplar>,
    metadata: Vec<RefMetadata>,
}

/// What is done with samples.
enum Use<'a> {
    /// They are passed over.
    None,
    /// They become items, so many at most but for those of the last record.
    Send(&'a mut Vec<Item>, usize),
    /// They are counted.
    Count(&'a mut u64),
}

impl LogReader {
    /// Begins where `cursor` says. Errors when the log's folder cannot be read.
    pub fn open(
        files: LogFiles,
        to: Arc<Destination>,
        metrics: Arc<QueueMetrics>,
        cursor: Cursor,
    ) -> Result<Self, WalError> {
        let start = cursor.start();
        let checkpoint = files.checkpoints()?.last().copied();
        let mut learn = Vec::new();
        let (dir, first) = (files.dir().to_path_buf(), checkpoint.map_or(0, |covered| covered + 1));
        let first = files.segments()?.into_iter().map(|file| file.segment).find(|segment| first <= *segment);
        if let Some(first) = first.filter(|first| *first <= start.segment) {
            let from = Position { segment: first, offset: 0 };
            learn.push((files.tail(&dir, from), start.segment, start.position()));
        }
        if let Some(covered) = checkpoint {
            learn.push(checkpoint_tail(&files, covered)?);
        }
        let phase = Phase::Learning(learn, start);
        let (known, parts, tidied_at) = (HashMap::default(), Parts::default(), Duration::ZERO);
        Ok(Self {
            files,
            to,
            metrics,
            phase,
            done: Some(cursor),
            is_tailing: false,
            known,
            checkpoint,
            tidied_at,
            parts,
        })
    }

    /// Where the next item stands at the earliest.
    pub fn place(&self) -> Place {
        match &self.phase {
            Phase::Learning(_, start) => *start,
            Phase::Reading(tail) | Phase::Tidying(tail, ..) => tail.at().into(),
        }
    }

    /// How many references are known.
    pub fn series_count(&self) -> usize {
        self.known.len()
    }

    /// Reads on, up to `until`, until there are `items_max` items.
    pub fn step(
        &mut self,
        until: Position,
        (now, monotonic): (TimestampMs, Duration),
        items_max: usize,
        items: &mut Vec<Item>,
    ) -> Result<Progress, WalError> {
        if matches!(self.phase, Phase::Learning(..)) {
            self.learn()?;
            return Ok(Progress::More);
        }
        let progress = self.read(until, now, Use::Send(items, items_max))?;
        self.tidy(monotonic)?;
        Ok(progress)
    }

    /// Reads everything up to segment `last` without sending it, as that segment and those before are about to go. Returns
    /// how many items would have been sent.
    pub fn pass_over(&mut self, last: u64, now: TimestampMs) -> Result<u64, WalError> {
        while matches!(self.phase, Phase::Learning(..)) {
            self.learn()?;
        }
        let (until, mut count) = (Position { segment: last + 1, offset: 0 }, 0);
        while self.place().position() < until {
            self.read(until, now, Use::Count(&mut count))?;
            let at = self.place().position();
            if at.segment <= last && self.files.len_of(at.segment)?.is_none_or(|len| len <= at.offset) {
                // Nothing more comes in a finished segment.
                self.set_place(Position { segment: at.segment + 1, offset: 0 });
            }
        }
        Ok(count)
    }

    fn set_place(&mut self, at: Position) {
        let tail = self.files.tail(self.files.dir(), at);
        match &mut self.phase {
            Phase::Learning(_, start) => *start = at.into(),
            Phase::Reading(old) | Phase::Tidying(old, ..) => *old = tail,
        }
    }

    /// Learns some series. Items are read once all are known.
    fn learn(&mut self) -> Result<(), WalError> {
        let Phase::Learning(stages, start) = &mut self.phase else { return Ok(()) };
        let start = *start;
        let Some((mut tail, segment, until)) = stages.pop() else {
            self.phase = Phase::Reading(self.files.tail(self.files.dir(), start.position()));
            return Ok(());
        };
        let mut len = 0;
        while len < STEP_LEN {
            match tail.advance(until)? {
                Tailed::Record { compression, start, .. } => {
                    len += tail.record().len();
                    let of = if self.is_checkpoint(segment) { segment } else { start.segment };
                    let done = self.take(&tail, compression, of, start, TimestampMs(0), &mut Use::None);
                    self.note(done);
                }
                Tailed::Damage | Tailed::Gone { .. } => {}
                Tailed::CaughtUp => return Ok(()),
            }
        }
        if let Phase::Learning(stages, _) = &mut self.phase {
            stages.push((tail, segment, until));
        }
        Ok(())
    }

    fn is_checkpoint(&self, segment: u64) -> bool {
        self.checkpoint == Some(segment)
    }

    fn read(&mut self, until: Position, now: TimestampMs, mut what: Use<'_>) -> Result<Progress, WalError> {
        let spare = Phase::Learning(Vec::new(), Place::default());
        let mut phase = std::mem::replace(&mut self.phase, spare);
        let read = match &mut phase {
            Phase::Learning(..) => Ok(Progress::More),
            Phase::Reading(tail) | Phase::Tidying(tail, ..) => self.read_records(tail, until, now, &mut what),
        };
        self.phase = phase;
        read
    }

    fn read_records(
        &mut self,
        tail: &mut Tail,
        until: Position,
        now: TimestampMs,
        what: &mut Use<'_>,
    ) -> Result<Progress, WalError> {
        let mut len = 0;
        while len < STEP_LEN {
            match tail.advance(until)? {
                Tailed::Record { compression, start } => {
                    len += tail.record().len();
                    self.metrics.segment.set(start.segment as f64);
                    let done = self.take(tail, compression, start.segment, start, now, what);
                    self.note(done);
                }
                Tailed::Damage => self.metrics.undecodable.inc(),
                Tailed::Gone { from, to } => {
                    tracing::warn!(
                        component = "remote",
                        remote_name = self.to.name,
                        url = self.to.url,
                        from,
                        to,
                        "Segments of the log were removed before they were read"
                    );
                }
                Tailed::CaughtUp => {
                    self.is_tailing = true;
                    if self.done.as_ref().is_some_and(|done| done.read <= tail.at().into()) {
                        self.done = None;
                    }
                    return Ok(Progress::CaughtUp);
                }
            }
            if matches!(what, Use::Send(items, max) if *max <= items.len()) {
                break;
            }
        }
        Ok(Progress::More)
    }

    fn note(&self, done: Result<(), RecordError>) {
        if let Err(error) = done {
            self.metrics.undecodable.inc();
            tracing::debug!(component = "remote", remote_name = self.to.name, %error, "A record cannot be read");
        }
    }

    /// Takes the tail's record apart.
    fn take(
        &mut self,
        tail: &Tail,
        compression: Compression,
        segment: u64,
        start: Position,
        now: TimestampMs,
        what: &mut Use<'_>,
    ) -> Result<(), RecordError> {
        let mut parts = std::mem::take(&mut self.parts);
        let done = self.take_apart(&mut parts, tail.record(), compression, segment, start.into(), now, what);
        // What a long record has made of them is given back.
        parts.series.clear();
        parts.samples.clear();
        parts.histograms.clear();
        parts.starts.clear();
        parts.exemplars.clear();
        parts.metadata.clear();
        self.parts = parts;
        done
    }

    #[expect(clippy::too_many_arguments, reason = "a record with its surroundings; only called by `take`")]
    fn take_apart(
        &mut self,
        parts: &mut Parts,
        data: &[u8],
        compression: Compression,
        segment: u64,
        start: Place,
        now: TimestampMs,
        what: &mut Use<'_>,
    ) -> Result<(), RecordError> {
        let Parts { inflater, series, samples, histograms, starts, exemplars, metadata } = parts;
        let bytes = inflater.inflate(compression, data)?;
        self.metrics.read(bytes.first().copied());
        let wanted = !matches!(what, Use::None);
        let place = |index: usize| Place { index: index as u64, ..start };
        let start_of = |starts: &[i64], index: usize| starts.get(index).copied().unwrap_or(0);
        match RecordKind::of(bytes) {
            RecordKind::Series => {
                decode_series(bytes, series)?;
                series.iter().for_each(|one| self.series(one, segment));
            }
            RecordKind::Metadata if self.to.config.is_version_2() => {
                decode_metadata(bytes, metadata)?;
                metadata.drain(..).for_each(|one| self.metadata(one));
            }
            RecordKind::Samples | RecordKind::SamplesV2 if wanted => {
                decode_started_samples(bytes, samples, starts)?;
                for (index, one) in samples.iter().enumerate() {
                    let value = || ItemValue::Float(one.value);
                    let times = (one.t, start_of(starts, index));
                    self.item(one.series, times, place(index), now, Class::Sample, what, value);
                }
            }
            RecordKind::Histograms if wanted && self.to.config.send_native_histograms => {
                decode_started_histograms(bytes, histograms, starts)?;
                for (index, one) in histograms.iter().enumerate() {
                    if one.value.uses_custom_buckets() && !self.to.config.is_version_2() {
                        self.metrics.dropped(Class::Histogram, Reason::CustomBuckets, 1);
                        continue;
                    }
                    let value = || ItemValue::Histogram(one.value.clone());
                    let times = (one.t, start_of(starts, index));
                    self.item(one.series, times, place(index), now, Class::Histogram, what, value);
                }
            }
            RecordKind::Exemplars if wanted && self.to.config.send_exemplars => {
                decode_exemplars(bytes, exemplars)?;
                for (index, one) in exemplars.iter().enumerate() {
                    let Exemplar { labels, value, at, .. } = &one.exemplar;
                    let exemplar = || SentExemplar { labels: labels.clone(), value: *value };
                    let value = || ItemValue::Exemplar(Arc::new(exemplar()));
                    self.item(one.series, (at.0, 0), place(index), now, Class::Exemplar, what, value);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn series(&mut self, one: &RefSeries, segment: u64) {
        if let Some(known) = self.known.get_mut(&one.series.0) {
            known.segment = known.segment.max(segment);
            return;
        }
        let mut builder = one.labels.to_builder();
        for (name, value) in &self.to.external_labels {
            if builder.get(name).is_empty() {
                builder.set(name, value);
            }
        }
        let kept = relabel_builder(&mut builder, &self.to.config.write_relabel_configs);
        let series = kept.then(|| {
            let labels = builder.build();
            let version_2 = self.to.config.is_version_2();
            let labels = if version_2 { SentLabels::V2(labels) } else { SentLabels::V1(labels_v1(&labels)) };
            Arc::new(SentSeries { labels, metadata: None })
        });
        self.known.insert(one.series.0, Known { series, segment });
    }

    fn metadata(&mut self, one: RefMetadata) {
        let Some(series) = self.known.get_mut(&one.series.0).and_then(|known| known.series.as_mut()) else { return };
        let SeriesMetadata { kind, unit, help } = one.metadata;
        let said = SentMetadata { kind: kind.number(), help: help.into(), unit: unit.into() };
        if series.metadata.as_ref() != Some(&said) {
            *series = Arc::new(SentSeries { labels: series.labels.clone(), metadata: Some(said) });
        }
    }

    #[expect(clippy::too_many_arguments, reason = "an item with its surroundings; a struct would be unpacked at once")]
    fn item(
        &self,
        reference: SeriesRef,
        (t, start): (i64, i64),
        place: Place,
        now: TimestampMs,
        class: Class,
        what: &mut Use<'_>,
        value: impl FnOnce() -> ItemValue,
    ) {
        if self.done.as_ref().is_some_and(|done| done.is_done(reference, place)) {
            return;
        }
        let limit = self.to.config.queue_config.sample_age_limit.as_ms_i64();
        let reason = if 0 < limit && t < now.0.saturating_sub(limit) {
            Reason::TooOld
        } else {
            match self.known.get(&reference.0) {
                Some(Known { series: Some(series), .. }) => {
                    match what {
                        Use::None => {}
                        Use::Count(count) => **count += 1,
                        Use::Send(items, _) => {
                            self.metrics.saw(t);
                            if !self.is_tailing && class == Class::Sample {
                                self.metrics.early.inc();
                            }
                            let series = Arc::clone(series);
                            items.push(Item { series, reference, place, t, start, value: value() });
                        }
                    }
                    return;
                }
                Some(_) => Reason::DroppedSeries,
                None => Reason::UnknownSeries,
            }
        };
        if matches!(what, Use::Send(..)) {
            self.metrics.dropped(class, reason, 1);
        }
    }

    /// Forgets series that a new checkpoint does not have, a step at a time.
    fn tidy(&mut self, monotonic: Duration) -> Result<(), WalError> {
        match &self.phase {
            Phase::Reading(tail) if TIDY_EVERY <= monotonic.saturating_sub(self.tidied_at) => {
                self.tidied_at = monotonic;
                let (reading, newest) = (tail.at().segment, self.files.checkpoints()?.last().copied());
                let Some(newest) = newest.filter(|newest| Some(*newest) != self.checkpoint && *newest < reading) else {
                    return Ok(());
                };
                let (tail, ..) = checkpoint_tail(&self.files, newest)?;
                let spare = Phase::Learning(Vec::new(), Place::default());
                self.phase = match std::mem::replace(&mut self.phase, spare) {
                    Phase::Reading(reading) => Phase::Tidying(reading, tail, newest),
                    other => other,
                };
                Ok(())
            }
            Phase::Tidying(..) => self.tidy_step(),
            _ => Ok(()),
        }
    }

    fn tidy_step(&mut self) -> Result<(), WalError> {
        let Phase::Tidying(_, tail, checkpoint) = &mut self.phase else { return Ok(()) };
        let (checkpoint, mut len, mut is_read) = (*checkpoint, 0, false);
        let Parts { inflater, series, .. } = &mut self.parts;
        while len < STEP_LEN && !is_read {
            match tail.advance(END)? {
                Tailed::Record { compression, .. } => {
                    len += tail.record().len();
                    let Ok(bytes) = inflater.inflate(compression, tail.record()) else { continue };
                    if RecordKind::of(bytes) == RecordKind::Series && decode_series(bytes, series).is_ok() {
                        for one in series.drain(..) {
                            if let Some(known) = self.known.get_mut(&one.series.0) {
                                known.segment = known.segment.max(checkpoint);
                            }
                        }
                    }
                }
                Tailed::Damage | Tailed::Gone { .. } => {}
                Tailed::CaughtUp => is_read = true,
            }
        }
        if is_read {
            self.known.retain(|_, known| checkpoint <= known.segment);
            self.known.shrink_to_fit();
            self.checkpoint = Some(checkpoint);
            let spare = Phase::Learning(Vec::new(), Place::default());
            if let Phase::Tidying(reading, ..) = std::mem::replace(&mut self.phase, spare) {
                self.phase = Phase::Reading(reading);
            }
        }
        Ok(())
    }
}

/// Behind everything that a checkpoint can hold.
const END: Position = Position { segment: u64::MAX, offset: 0 };

/// A tail of the segments of a checkpoint, with its number and where it ends.
fn checkpoint_tail(files: &LogFiles, covered: u64) -> Result<(Tail, u64, Position), WalError> {
    let dir: PathBuf = Path::join(files.dir(), checkpoint_name(covered));
    Ok((files.tail(&dir, Position { segment: 0, offset: 0 }), covered, END))
}
