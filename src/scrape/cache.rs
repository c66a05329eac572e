//! What a target remembers from one scrape to the next: its lines in order, where storage keeps their series, and which
//! of them have a stale marker already.
//!
//! Data flow: [`Reader`](crate::scrape::reader::Reader) compares a scrape with the published state → the new state is
//! published *before* the batch is sent → storage answers → [`TargetCache::confirm`] notes the handles. An actor that
//! restarts in between finds a state that may know too many series, never too few: lines that vanished stay in it until
//! their stale markers are confirmed, so no series is forgotten without one.
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

use std::collections::HashSet;
use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::exposition::content_type::Format;
use crate::exposition::openmetrics;
use crate::exposition::text::{FamilyKind, metadata_parts, unescape_help};
use crate::model::append::{
    AppendBatch, AppendExemplar, AppendHistogram, AppendReport, AppendSample, AppendStarts, HistogramValue,
    LateSamples, SampleRejection, SeriesHandle, SeriesKey,
};
use crate::model::exemplar::ExemplarRejection;
use crate::model::sample::stale_nan;
use crate::model::time::TimestampMs;
use crate::scrape::labels::{assemble, report_labels};
use crate::scrape::metadata;
use crate::scrape::reference::{Reference, References};
use crate::scrape::report;
use crate::scrape::sequence::{Entry, Line, Role, Sequence};
use crate::scrape::settings::SamplePlan;
use crate::scrape::staging::StagingPermit;

/// Scrapes for which metadata outlives its family.
const METADATA_KEPT_SCRAPES: u64 = 10;

/// What a target says about a metric family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FamilyMetadata {
    /// Family name.
    pub family: String,
    /// Its type.
    pub kind: FamilyKind,
    /// Its help text.
    pub help: String,
    /// Its unit, if it has one.
    pub unit: String,
}

/// How much metadata a target's families have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MetadataSize {
    /// Families.
    pub entries: u64,
    /// Bytes of their types, help texts and units.
    pub bytes: u64,
}

#[derive(Clone, Debug)]
pub(super) struct Retired {
    metadata: FamilyMetadata,
    last_seen: u64,
}

#[derive(Clone, Debug)]
pub(super) struct CacheState {
    pub(super) sequence: Arc<Sequence>,
    /// The format in which the lines were read.
    pub(super) format: Format,
    report: [Option<SeriesHandle>; report::NAMES.len()],
    /// All series have a stale marker, as the last scrape failed.
    pub(super) marked: bool,
    /// At least one scrape has been committed.
    committed: bool,
    /// Successful scrapes so far.
    scrapes: u64,
    retired: Arc<[Retired]>,
    described: MetadataSize,
    /// What counters are counted from, where start times are made up.
    pub(super) references: Option<Arc<References>>,
}

/// The published memory of one target. Owned by what outlives the target's actor; one scrape at a time writes it.
#[derive(Debug)]
pub struct TargetCache {
    state: ArcSwap<CacheState>,
}

impl Default for TargetCache {
    fn default() -> Self {
        let state = CacheState {
            sequence: Sequence::shared_empty(),
            format: Format::Text,
            report: [None; report::NAMES.len()],
            marked: false,
            committed: false,
            scrapes: 0,
            retired: Arc::from([]),
            described: MetadataSize::default(),
            references: None,
        };
        Self { state: ArcSwap::from_pointee(state) }
    }
}

/// Where the samples of a batch come from, by index in the batch.
#[derive(Debug, Default)]
struct Origins {
    /// Line of each sample that comes from a series, in the order of the batch.
    lines: Vec<u32>,
    /// Stale markers that follow them.
    markers: usize,
    /// Report series that follow those: index in [`report::NAMES`].
    reports: Vec<usize>,
    /// Line of each histogram; they stand behind all samples.
    histograms: Vec<u32>,
    /// Line of each exemplar; those of a line are neighbours.
    exemplars: Vec<u32>,
}

enum Origin {
    Line(usize),
    Marker,
    Report(usize),
}

impl Origins {
    /// Exemplars refused as late, of series whose exemplars were all refused so: others are news of a set that is exposed again
    /// and again.
    fn late_exemplars(&self, rejected: &[(u32, ExemplarRejection)]) -> u64 {
        let is_late = |index: usize| {
            let at = rejected.binary_search_by_key(&index, |(index, _)| *index as usize).ok();
            at.and_then(|at| rejected.get(at)).is_some_and(|(_, why)| *why == ExemplarRejection::OutOfOrder)
        };
        let (mut late, mut at) = (0, 0);
        for of_line in self.exemplars.chunk_by(|a, b| a == b) {
            let indexes = at..at + of_line.len();
            at = indexes.end;
            if indexes.into_iter().all(is_late) {
                late += of_line.len() as u64;
            }
        }
        late
    }

    fn of(&self, index: u32) -> Option<Origin> {
        let index = usize::try_from(index).ok()?;
        if let Some(line) = self.lines.get(index) {
            return Some(Origin::Line(*line as usize));
        }
        let past_lines = index - self.lines.len();
        match past_lines.checked_sub(self.markers) {
            None => Some(Origin::Marker),
            Some(slot) => match slot.checked_sub(self.reports.len()) {
                None => self.reports.get(slot).copied().map(Origin::Report),
                Some(place) => self.histograms.get(place).map(|line| Origin::Line(*line as usize)),
            },
        }
    }
}

/// A batch that storage has not answered yet. Holds the scrape's share of the staging budget.
///
/// Afterwards exactly one of these: [`TargetCache::confirm`] with the answer, [`TargetCache::abandon`] when nothing was
/// done, or drop it when nobody knows.
#[derive(Debug)]
pub struct Pending {
    origins: Origins,
    /// Time and value of each sample, for those that must be sent again by labels.
    values: Vec<(TimestampMs, f64)>,
    /// The same of the histograms.
    histograms: Vec<(TimestampMs, HistogramValue)>,
    /// What went with them, and would go with them again.
    exemplars: Vec<AppendExemplar>,
    starts: AppendStarts,
    before: Arc<CacheState>,
    /// Lines of the new state, without those that are kept only until their markers are confirmed.
    lines_len: usize,
    marked: bool,
    _permit: Option<StagingPermit>,
}

/// What became of a batch, and what has to be sent again.
#[derive(Debug, Default)]
pub struct Confirmed {
    /// Samples refused as older than the newest of their series.
    pub out_of_order: u64,
    /// Samples refused as a second value for a time stamp.
    pub duplicates: u64,
    /// Samples refused as too old or too far ahead.
    pub out_of_bounds: u64,
    /// Exemplars refused as older than the newest of their series.
    pub late_exemplars: u64,
    /// Samples refused for want of room for new series.
    pub series_limit: u64,
    /// Samples whose handle storage no longer knows, named by labels: append them at once.
    pub resend: Option<(AppendBatch, Pending)>,
}

/// What one scrape gives to storage, before it is published.
#[derive(Debug)]
pub(super) struct Staged {
    pub(super) samples: Vec<AppendSample>,
    /// Line of each sample.
    pub(super) lines: Vec<u32>,
    pub(super) histograms: Vec<AppendHistogram>,
    /// Line of each histogram.
    pub(super) histogram_lines: Vec<u32>,
    pub(super) exemplars: Vec<AppendExemplar>,
    /// Line of each exemplar.
    pub(super) exemplar_lines: Vec<u32>,
    pub(super) starts: AppendStarts,
    /// The new lines, unless they are those of the last scrape.
    pub(super) next: Option<Sequence>,
    /// Lines of the last scrape that are missing now.
    pub(super) vanished: Vec<u32>,
    pub(super) format: Format,
    pub(super) references: Option<Arc<References>>,
    pub(super) permit: Option<StagingPermit>,
}

impl TargetCache {
    /// A cache of a target that was never scraped.
    pub fn new() -> Self {
        Self::default()
    }

    pub(super) fn load(&self) -> Arc<CacheState> {
        self.state.load_full()
    }

    /// Bytes that the cache holds on the heap.
    pub fn heap_bytes(&self) -> usize {
        let state = self.state.load();
        let entry_bytes = size_of::<(u32, Reference)>() + 1;
        state.sequence.heap_bytes() + state.references.as_ref().map_or(0, |known| known.capacity() * entry_bytes)
    }

    /// Metadata of the target's families, including those that went less than ten scrapes ago, sorted by name.
    pub fn metadata(&self) -> Vec<FamilyMetadata> {
        let state = self.state.load();
        let mut found = families(&state.sequence, state.format);
        for retired in state.retired.iter() {
            let known = found.iter().any(|m| m.family == retired.metadata.family);
            if !known && state.scrapes - retired.last_seen <= METADATA_KEPT_SCRAPES {
                found.push(retired.metadata.clone());
            }
        }
        found.sort_by(|a, b| a.family.cmp(&b.family));
        found
    }

    /// How much [`Self::metadata`] is.
    pub fn metadata_size(&self) -> MetadataSize {
        self.state.load().described
    }

    /// Publishes a good scrape and makes its batch: samples, stale markers of vanished series, report series.
    pub(super) fn publish(&self, staged: Staged, report: &report::Report, plan: &SamplePlan) -> (AppendBatch, Pending) {
        let before = self.load();
        let mut samples = staged.samples;
        let mut origins = Origins {
            lines: staged.lines,
            histograms: staged.histogram_lines,
            exemplars: staged.exemplar_lines,
            ..Origins::default()
        };
        let keep_marked = before.marked;
        let (format, scrapes) = (staged.format, before.scrapes + 1);
        let references = staged.references;
        let mut next = CacheState { format, marked: false, committed: true, scrapes, references, ..(*before).clone() };
        let mut lines_len = before.sequence.len();
        let mut described = Vec::new();
        if let Some(mut sequence) = staged.next {
            if plan.settings.extras.metadata {
                described = metadata::news(&before, &sequence, format, plan);
            }
            lines_len = sequence.len();
            // A target that had no families before has none to remember.
            let is_first = before.sequence.len() == 0 && before.retired.is_empty();
            if let Some(size) = is_first.then(|| metadata::size_of_lines(&sequence, format)).flatten() {
                next.described = size;
            } else {
                let current = families(&sequence, format);
                next.retired = retire(&before, &current);
                next.described = size_of_metadata(&current, &next.retired);
            }
            if !keep_marked {
                origins.markers = push_markers(&mut samples, &before, &staged.vanished, &sequence, report.at, plan);
                let mut line = Line::default();
                for index in staged.vanished.iter().map(|index| *index as usize) {
                    let Some(entry) = before.sequence.get(index) else { continue };
                    // A text beyond 4 GiB has failed the scrape before; here it would only cost a repeated marker.
                    if sequence.push_copy(line.read(&before.sequence, index), entry).is_err() {
                        break;
                    }
                }
            }
            sequence.shrink();
            next.sequence = Arc::new(sequence);
        }
        self.push_report(&mut samples, &mut origins, &before, report, plan);
        self.state.store(Arc::new(next));
        let batch = AppendBatch {
            samples,
            histograms: staged.histograms,
            exemplars: staged.exemplars,
            metadata: described,
            late: late(plan),
            starts: staged.starts,
        };
        pending(batch, origins, before, lines_len, false, staged.permit)
    }

    /// Publishes a failed or empty scrape and makes its batch: stale markers of all series, report series.
    pub(super) fn publish_stale(&self, report: &report::Report, plan: &SamplePlan) -> (AppendBatch, Pending) {
        let before = self.load();
        let mut samples = Vec::new();
        let mut origins =
            Origins { markers: push_all_markers(&mut samples, &before, report.at, plan), ..Origins::default() };
        self.push_report(&mut samples, &mut origins, &before, report, plan);
        // The series count as marked once storage has confirmed the markers.
        self.state.store(Arc::new(CacheState { committed: true, ..(*before).clone() }));
        let lines_len = before.sequence.len();
        let batch = AppendBatch { late: late(plan), ..AppendBatch::of_floats(samples) };
        pending(batch, origins, before, lines_len, true, None)
    }

    /// The batch that ends a target: stale markers of all its series and of its report series. `None` when it was never
    /// scraped. Storage refuses markers of series that another target has taken over, as out of order.
    pub fn end_of_run(&self, at: TimestampMs, plan: &SamplePlan) -> Option<AppendBatch> {
        let state = self.load();
        if !state.committed {
            return None;
        }
        let mut samples = Vec::new();
        push_all_markers(&mut samples, &state, at, plan);
        for (slot, name) in report::NAMES.iter().enumerate().take(report::count(&plan.settings)) {
            let series = report_key(&state, slot, name, plan);
            samples.push(AppendSample { series, at, value: stale_nan() });
        }
        Some(AppendBatch { late: late(plan), ..AppendBatch::of_floats(samples) })
    }

    /// Notes storage's answer: handles of new series, and the loss of those that storage no longer knows.
    pub fn confirm(&self, pending: Pending, report: &AppendReport, plan: &SamplePlan) -> Confirmed {
        let known = self.load();
        let told_nothing =
            report.resolved.is_empty() && report.rejected.is_empty() && report.exemplars_rejected.is_empty();
        if told_nothing && !pending.marked && known.sequence.len() <= pending.lines_len {
            return Confirmed::default();
        }
        let mut state = CacheState::clone(&known);
        let late_exemplars = match report.exemplars_rejected.as_slice() {
            [] => 0,
            rejected => pending.origins.late_exemplars(rejected),
        };
        let mut confirmed = Confirmed { late_exemplars, ..Confirmed::default() };
        let mut again: Vec<u32> = Vec::new();
        let touched = |index: &u32| matches!(pending.origins.of(*index), Some(Origin::Line(_)));
        let changes = pending.lines_len < state.sequence.len()
            || report.resolved.iter().any(|(index, _)| touched(index))
            || report.rejected.iter().any(|(index, _)| touched(index));
        let mut sequence = changes.then(|| state.sequence.head(pending.lines_len));
        for (index, handle) in &report.resolved {
            match pending.origins.of(*index) {
                Some(Origin::Line(line)) => {
                    if let Some(entry) = sequence.as_mut().and_then(|s| s.get_mut(line)) {
                        entry.set_handle(Some(*handle));
                    }
                }
                Some(Origin::Report(slot)) => {
                    if let Some(known) = state.report.get_mut(slot) {
                        *known = Some(*handle);
                    }
                }
                Some(Origin::Marker) | None => {}
            }
        }
        for (index, rejection) in &report.rejected {
            match pending.origins.of(*index) {
                Some(Origin::Line(line)) => {
                    let entry = sequence.as_mut().and_then(|s| s.get_mut(line));
                    let is_told = report.against_staged.binary_search(index).is_err();
                    if is_told && *rejection != SampleRejection::UnknownSeries {
                        // What was refused leaves a gap: the series is counted anew.
                        forget_reference(&mut state.references, line);
                    }
                    match rejection {
                        SampleRejection::OutOfOrder => confirmed.out_of_order += 1,
                        SampleRejection::Duplicate { .. }
                        | SampleRejection::DuplicateOfHistogram { .. }
                        | SampleRejection::DuplicateHistogram => confirmed.duplicates += 1,
                        // What a reader takes in was checked.
                        SampleRejection::InvalidHistogram(_) => {}
                        // Prometheus gives the whole scrape up for one that is too old.
                        SampleRejection::OutOfBounds | SampleRejection::TooOld => confirmed.out_of_bounds += 1,
                        SampleRejection::UnknownSeries => {
                            again.push(*index);
                            if let Some(entry) = entry {
                                entry.set_handle(None);
                            }
                        }
                        // A series without labels is refused like one for which there is no room.
                        SampleRejection::SeriesLimit { .. } | SampleRejection::EmptyLabels => {
                            confirmed.series_limit += 1;
                            if let Some(entry) = entry {
                                entry.set_handle(None);
                                entry.set_tracked(false);
                            }
                        }
                    }
                }
                Some(Origin::Report(slot)) if *rejection == SampleRejection::UnknownSeries => {
                    again.push(*index);
                    if let Some(known) = state.report.get_mut(slot) {
                        *known = None;
                    }
                }
                // Markers and report samples that are out of order belong to a target that came back: expected.
                Some(Origin::Report(_) | Origin::Marker) | None => {}
            }
        }
        if let Some(sequence) = sequence {
            state.sequence = Arc::new(sequence);
        }
        state.marked |= pending.marked;
        self.state.store(Arc::new(state));
        confirmed.resend = self.resend(&pending, &again, report, plan);
        confirmed
    }

    /// Undoes the publication of a batch of which storage has done nothing.
    pub fn abandon(&self, pending: Pending) {
        self.state.store(pending.before);
    }

    /// The samples `again`, by labels, with their start times and those exemplars whose series was not there.
    fn resend(
        &self,
        pending: &Pending,
        again: &[u32],
        report: &AppendReport,
        plan: &SamplePlan,
    ) -> Option<(AppendBatch, Pending)> {
        let state = self.load();
        let mut samples = Vec::with_capacity(again.len());
        let mut histograms = Vec::new();
        let mut starts = AppendStarts::default();
        let mut origins = Origins::default();
        let mut reports = Vec::new();
        for index in again {
            let behind = (*index as usize).checked_sub(pending.values.len());
            if let Some((at, value)) = behind.and_then(|place| pending.histograms.get(place)) {
                if let Some(Origin::Line(line)) = pending.origins.of(*index)
                    && let Some(series) = line_key(&state.sequence, line, plan)
                {
                    let start = behind.and_then(|place| start_of(&pending.starts.histograms, place));
                    starts.histograms.extend(start.map(|start| (histograms.len() as u32, start)));
                    histograms.push(AppendHistogram { series, at: *at, value: value.clone() });
                    origins.histograms.push(line as u32);
                }
                continue;
            }
            let Some((at, value)) = pending.values.get(*index as usize).copied() else { continue };
            match pending.origins.of(*index) {
                Some(Origin::Line(line)) => {
                    if let Some(series) = line_key(&state.sequence, line, plan) {
                        let start = start_of(&pending.starts.samples, *index as usize);
                        starts.samples.extend(start.map(|start| (samples.len() as u32, start)));
                        samples.push(AppendSample { series, at, value });
                        origins.lines.push(line as u32);
                    }
                }
                Some(Origin::Report(slot)) => reports.push((slot, at, value)),
                Some(Origin::Marker) | None => {}
            }
        }
        for (slot, at, value) in reports {
            if let Some(name) = report::NAMES.get(slot) {
                samples.push(AppendSample { series: report_key(&state, slot, name, plan), at, value });
                origins.reports.push(slot);
            }
        }
        if samples.is_empty() && histograms.is_empty() {
            return None;
        }
        let mut exemplars = Vec::new();
        for (index, rejection) in &report.exemplars_rejected {
            let (exemplar, line) =
                (pending.exemplars.get(*index as usize), pending.origins.exemplars.get(*index as usize));
            if let (ExemplarRejection::UnknownSeries, Some(exemplar), Some(line)) = (rejection, exemplar, line) {
                exemplars.push(exemplar.clone());
                origins.exemplars.push(*line);
            }
        }
        let (lines_len, marked) = (state.sequence.len(), pending.marked);
        // Samples that are named by labels cannot be unknown, so nothing of them is needed a third time.
        let (values, of_histograms, starts_again) = (Vec::new(), Vec::new(), AppendStarts::default());
        let resent = Pending {
            origins,
            values,
            histograms: of_histograms,
            exemplars: Vec::new(),
            starts: starts_again,
            before: state,
            lines_len,
            marked,
            _permit: None,
        };
        Some((
            AppendBatch { samples, histograms, exemplars, starts, late: late(plan), ..AppendBatch::default() },
            resent,
        ))
    }

    fn push_report(
        &self,
        samples: &mut Vec<AppendSample>,
        origins: &mut Origins,
        before: &CacheState,
        report: &report::Report,
        plan: &SamplePlan,
    ) {
        let values = report.values();
        let named = report::NAMES.iter().zip(values).enumerate().take(report::count(&plan.settings));
        for (slot, (name, value)) in named {
            samples.push(AppendSample { series: report_key(before, slot, name, plan), at: report.at, value });
            origins.reports.push(slot);
        }
    }
}

fn pending(
    batch: AppendBatch,
    origins: Origins,
    before: Arc<CacheState>,
    lines_len: usize,
    marked: bool,
    permit: Option<StagingPermit>,
) -> (AppendBatch, Pending) {
    let values = batch.samples.iter().map(|sample| (sample.at, sample.value)).collect();
    let histograms = batch.histograms.iter().map(|sample| (sample.at, sample.value.clone())).collect();
    let (exemplars, starts) = (batch.exemplars.clone(), batch.starts.clone());
    let pending =
        Pending { origins, values, histograms, exemplars, starts, before, lines_len, marked, _permit: permit };
    (batch, pending)
}

/// What becomes of late samples of a scrape: what is counted from a reference is counted in order.
fn late(plan: &SamplePlan) -> LateSamples {
    if plan.settings.extras.synthesis { LateSamples::Refused } else { LateSamples::MarkersRefused }
}

fn forget_reference(references: &mut Option<Arc<References>>, line: usize) {
    if let Some(references) = references
        && let Ok(line) = u32::try_from(line)
        && references.contains_key(&line)
    {
        Arc::make_mut(references).remove(&line);
    }
}

/// The start time of the sample at `index`, in a list that is sorted by it.
pub(super) fn start_of(starts: &[(u32, i64)], index: usize) -> Option<i64> {
    let at = starts.binary_search_by_key(&index, |(of, _)| *of as usize).ok()?;
    starts.get(at).map(|(_, start)| *start)
}

/// How storage is told the series of a line: by handle, else by labels; `None` when relabelling drops it now.
fn line_key(sequence: &Sequence, line: usize, plan: &SamplePlan) -> Option<SeriesKey> {
    let entry = sequence.get(line)?;
    match entry.handle() {
        Some(handle) => Some(SeriesKey::Known(handle)),
        None => assemble(&sequence.raw(line), entry.kind(), plan).ok().flatten().map(SeriesKey::Labels),
    }
}

fn report_key(state: &CacheState, slot: usize, name: &str, plan: &SamplePlan) -> SeriesKey {
    match state.report.get(slot).copied().flatten() {
        Some(handle) => SeriesKey::Known(handle),
        None => SeriesKey::Labels(report_labels(name, &plan.target_labels)),
    }
}

fn push_all_markers(samples: &mut Vec<AppendSample>, state: &CacheState, at: TimestampMs, plan: &SamplePlan) -> usize {
    if state.marked {
        return 0;
    }
    let start = samples.len();
    for (index, entry) in state.sequence.iter().enumerate() {
        if entry.role() == Role::Series && entry.tracked() {
            let key = line_key(&state.sequence, index, plan);
            samples.extend(key.map(|series| AppendSample { series, at, value: stale_nan() }));
        }
    }
    samples.len() - start
}

/// Appends a stale marker for each line in `vanished`, unless another line of `next` stands for the same series.
fn push_markers(
    samples: &mut Vec<AppendSample>,
    before: &CacheState,
    vanished: &[u32],
    next: &Sequence,
    at: TimestampMs,
    plan: &SamplePlan,
) -> usize {
    if vanished.is_empty() {
        return 0;
    }
    let start = samples.len();
    let handle_of = |index: &u32| before.sequence.get(*index as usize).and_then(|entry| entry.handle());
    let mut gone: HashSet<SeriesHandle> = vanished.iter().filter_map(handle_of).collect();
    for entry in next.iter() {
        if let Some(handle) = entry.handle() {
            gone.remove(&handle);
        }
    }
    for index in vanished {
        let still_exposed = handle_of(index).is_some_and(|handle| !gone.remove(&handle));
        if !still_exposed {
            let key = line_key(&before.sequence, *index as usize, plan);
            samples.extend(key.map(|series| AppendSample { series, at, value: stale_nan() }));
        }
    }
    samples.len() - start
}

/// Metadata that the next state keeps for a while, as its families have no line in `next`.
fn retire(before: &CacheState, current: &[FamilyMetadata]) -> Arc<[Retired]> {
    let current: HashSet<&str> = current.iter().map(|m| m.family.as_str()).collect();
    let left = families(&before.sequence, before.format).into_iter();
    let left = left.map(|metadata| Retired { metadata, last_seen: before.scrapes });
    let older = before.retired.iter().filter(|r| before.scrapes - r.last_seen < METADATA_KEPT_SCRAPES).cloned();
    let mut seen = HashSet::new();
    left.chain(older)
        .filter(|r| !current.contains(r.metadata.family.as_str()) && seen.insert(r.metadata.family.clone()))
        .collect()
}

pub(super) fn size_of_metadata(current: &[FamilyMetadata], retired: &[Retired]) -> MetadataSize {
    let mut size = MetadataSize::default();
    for metadata in current.iter().chain(retired.iter().map(|retired| &retired.metadata)) {
        size.entries += 1;
        size.bytes += (metadata.kind.name().len() + metadata.help.len() + metadata.unit.len()) as u64;
    }
    size
}

/// The families that the metadata lines of a sequence describe.
pub(super) fn families(sequence: &Sequence, format: Format) -> Vec<FamilyMetadata> {
    let mut order: Vec<FamilyMetadata> = Vec::new();
    let mut index_of = std::collections::HashMap::new();
    let mut line = Line::default();
    let described = |entry: &Entry| matches!(entry.role(), Role::Help | Role::Type | Role::Unit);
    for (at, entry) in sequence.iter().enumerate().filter(|(_, entry)| described(entry)) {
        let Some((family, text)) = metadata_parts(line.read(sequence, at)) else { continue };
        let name = String::from_utf8_lossy(family).into_owned();
        let index = *index_of.entry(name.clone()).or_insert_with(|| {
            let (kind, help, unit) = (FamilyKind::Unknown, String::new(), String::new());
            order.push(FamilyMetadata { family: name, kind, help, unit });
            order.len() - 1
        });
        let Some(metadata) = order.get_mut(index) else { continue };
        let text = String::from_utf8_lossy(text);
        match entry.role() {
            Role::Help => {
                metadata.help = match format {
                    Format::Text => unescape_help(&text).into_owned(),
                    Format::OpenMetrics => openmetrics::unescape_help(&text).into_owned(),
                    Format::Protobuf => text.into_owned(),
                };
            }
            Role::Unit => metadata.unit = text.into_owned(),
            _ => metadata.kind = entry.kind(),
        }
    }
    order
}
