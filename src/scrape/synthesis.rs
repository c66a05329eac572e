//! Start times for series of counters whose target tells none (`st-synthesis`), as a pass over what a scrape has staged.
//!
//! Data flow: [`Reader`] asks for the fate of each series as it reads it and notes a step for each that may be counted from a
//! reference → when all is read, and start times that the target tells are known, [`Reader::synthesize`] takes the steps in order:
//! first samples leave the batch, later ones are lessened and get their start → the references go into the target's cache. A
//! failed scrape changes no reference; storage's refusal of a sample takes its reference away.
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

use std::sync::Arc;

use crate::exposition::text::{FamilyKind, metadata_parts};
use crate::model::labels::Labels;
use crate::scrape::cache::start_of;
use crate::scrape::error::ScrapeError;
use crate::scrape::labels::assemble;
use crate::scrape::metadata::is_part_of;
use crate::scrape::reader::Reader;
use crate::scrape::reader::samples::fitted;
use crate::scrape::reference::{Reference, References};
use crate::scrape::rewrite::UNSEEN;
use crate::scrape::sequence::{Entry, Role, Sequence};

/// What becomes of a sample, unless the target tells its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is stored as it is.
    Plain,
    /// It becomes the reference of its series and is not stored.
    First,
    /// Its series has a reference.
    Later,
    /// Its series has had a sample in this scrape: it is as that one.
    Again,
}

/// A sample that may be counted from a reference, or a line whose reference goes.
#[derive(Clone, Copy, Debug)]
struct Step {
    what: What,
    fate: Fate,
    /// Its line in this scrape, and in the last one.
    line: u32,
    from: u32,
}

#[derive(Clone, Copy, Debug)]
enum What {
    /// Place among the samples.
    Sample(u32),
    /// Place among the histograms.
    Histogram(u32),
    /// A second sample for one time: its series begins anew, as in Prometheus.
    Duplicate,
}

/// What a scrape notes for its references.
#[derive(Debug, Default)]
pub(super) struct Synthesis {
    /// The family that was described last, and its type.
    family: String,
    kind: FamilyKind,
    /// Of the sample that is staged next: its fate and its line in the last scrape.
    held: Option<(Fate, u32)>,
    steps: Vec<Step>,
}

/// What leaves the batch, in ascending order.
#[derive(Default)]
struct Gone {
    samples: Vec<u32>,
    histograms: Vec<u32>,
    lines: Vec<u32>,
}

impl Synthesis {
    /// A line that describes a family.
    pub(super) fn describe(&mut self, raw: &[u8], role: Role, kind: FamilyKind) {
        let Some((family, _)) = metadata_parts(raw) else { return };
        let is_other = self.family.as_bytes() != family;
        if is_other {
            self.family = String::from_utf8_lossy(family).into_owned();
        }
        if role == Role::Type || is_other {
            self.kind = kind;
        }
    }

    /// True if samples of the family may be counts.
    fn is_counting(&self) -> bool {
        matches!(self.kind, FamilyKind::Counter | FamilyKind::Histogram | FamilyKind::Summary)
    }

    /// True if a series with these labels, after relabelling, is a count of the family.
    fn counts(&self, labels: &Labels) -> bool {
        let name = labels.metric_name();
        let is_count = self.kind != FamilyKind::Summary || name.ends_with("_count") || name.ends_with("_sum");
        self.is_counting() && is_count && is_part_of(name, &self.family, self.kind)
    }

    /// The next staged sample has this fate.
    pub(super) fn hold(&mut self, fate: Fate, from: usize) {
        self.held = (fate != Fate::Plain).then(|| (fate, u32::try_from(from).unwrap_or(UNSEEN)));
    }

    /// True if a fate is held.
    pub(super) fn is_held(&self) -> bool {
        self.held.is_some()
    }

    /// The sample of the held fate is staged in this place.
    pub(super) fn staged_sample(&mut self, place: usize, line: usize) {
        self.staged(What::Sample(place as u32), line);
    }

    /// The histogram of the held fate is staged in this place, as it came.
    pub(super) fn staged_histogram(&mut self, place: u32, line: usize) {
        self.staged(What::Histogram(place), line);
    }

    fn staged(&mut self, what: What, line: usize) {
        if let Some((fate, from)) = self.held.take() {
            self.steps.push(Step { what, fate, line: line as u32, from });
        }
    }

    /// The line has a second sample for one time.
    pub(super) fn duplicate(&mut self, line: usize) {
        self.steps.push(Step { what: What::Duplicate, fate: Fate::Again, line: line as u32, from: UNSEEN });
    }

    /// Forgets all steps.
    pub(super) fn clear(&mut self) {
        self.steps = Vec::new();
    }

    /// Bytes on the heap, with what the references will take.
    pub(super) fn heap_bytes(&self) -> usize {
        self.steps.capacity() * (size_of::<Step>() + size_of::<(u32, Reference)>())
    }
}

impl Reader<'_> {
    /// The fate of a series that the last scrape did not have.
    pub(super) fn fate_of_new(&self, labels: Option<&Labels>) -> Fate {
        match (&self.synthesis, labels) {
            (Some(synthesis), Some(labels)) if !self.tells_start() && synthesis.counts(labels) => Fate::First,
            _ => Fate::Plain,
        }
    }

    /// The fate of a series of the last scrape, whose line there was `index`.
    pub(super) fn fate_of_known(&self, old: &Sequence, index: usize, entry: Entry) -> Result<Fate, ScrapeError> {
        let Some(synthesis) = self.synthesis.as_ref().filter(|_| !self.tells_start()) else { return Ok(Fate::Plain) };
        if self.has_reference(index) {
            return Ok(Fate::Later);
        }
        if !synthesis.is_counting() {
            return Ok(Fate::Plain);
        }
        Ok(self.fate_of_new(assemble(&old.raw(index), entry.kind(), self.plan)?.as_ref()))
    }

    /// True if the start of the sample which is being read is told with it.
    fn tells_start(&self) -> bool {
        self.plan.settings.extras.starts && self.start_ms.is_some_and(|start| start != 0)
    }

    /// True if the last scrape has left a reference for its line `index`.
    pub(super) fn has_reference(&self, index: usize) -> bool {
        self.reference(index as u32).is_some()
    }

    fn reference(&self, index: u32) -> Option<&Reference> {
        self.previous.references.as_ref()?.get(&index)
    }

    /// Counts a sample against `sample_limit`, unless it is not stored.
    pub(super) fn admit_as(&mut self, fate: Fate) -> bool {
        if fate == Fate::First { !self.over_limit } else { self.admit() }
    }

    /// Notes the fate of the sample that is staged next.
    pub(super) fn hold_fate(&mut self, fate: Fate, from: usize) {
        if let Some(synthesis) = self.synthesis.as_mut() {
            synthesis.hold(fate, from);
        }
    }

    /// Takes references out of the batch, counts the others from theirs, and keeps the new references.
    pub(super) fn synthesize(&mut self) -> Result<(), ScrapeError> {
        let Some(synthesis) = self.synthesis.take() else { return Ok(()) };
        let mut starts = std::mem::take(&mut self.created).finish();
        let (mut sample_starts, mut histogram_starts) = (Vec::new(), Vec::new());
        let (mut next, mut gone) = (References::default(), Gone::default());
        for step in &synthesis.steps {
            let before = next.remove(&step.line).or_else(|| self.reference(step.from).cloned());
            let is_told = match step.what {
                What::Duplicate => continue,
                What::Sample(place) => start_of(&starts.samples, place as usize).is_some(),
                What::Histogram(place) => start_of(&starts.histograms, place as usize).is_some(),
            };
            let reference = if is_told {
                // It is stored after all.
                if step.fate == Fate::First && !self.admit() {
                    return Ok(());
                }
                None
            } else if before.is_none() && step.fate == Fate::Again {
                None
            } else {
                match step.what {
                    What::Sample(place) => self.count_sample(place, step.line, before, &mut sample_starts, &mut gone),
                    What::Histogram(place) => {
                        self.count_histogram(place, step.line, before, &mut histogram_starts, &mut gone)
                    }
                    What::Duplicate => None,
                }
            };
            if let What::Histogram(place) = step.what
                && gone.histograms.last() != Some(&place)
            {
                self.fit_staged(place, &mut gone)?;
            }
            // Nothing has begun at the epoch, as in Prometheus.
            if let Some(reference) = reference.filter(|reference| reference.start_ms != 0) {
                next.insert(step.line, reference);
            }
        }
        starts.samples.append(&mut sample_starts);
        starts.histograms.append(&mut histogram_starts);
        self.remove(gone, &mut starts.samples, &mut starts.histograms);
        self.created.starts = starts;
        self.references = Some(Arc::new(next));
        Ok(())
    }

    /// Counts a sample from its reference, or makes it one.
    fn count_sample(
        &mut self,
        place: u32,
        line: u32,
        before: Option<Reference>,
        starts: &mut Vec<(u32, i64)>,
        gone: &mut Gone,
    ) -> Option<Reference> {
        let sample = self.samples.get_mut(place as usize)?;
        let at = sample.at.0;
        if let Some(mut reference) = before
            && let Some(counted) = reference.count_float(sample.value, at)
        {
            sample.value = counted;
            starts.extend(Some((place, reference.start_ms)).filter(|(_, start)| *start != 0));
            return Some(reference);
        }
        let reference = Reference::at_float(sample.value, at);
        gone.samples.push(place);
        gone.lines.push(line);
        Some(reference)
    }

    fn count_histogram(
        &mut self,
        place: u32,
        line: u32,
        before: Option<Reference>,
        starts: &mut Vec<(u32, i64)>,
        gone: &mut Gone,
    ) -> Option<Reference> {
        let staged = self.histograms.get_mut(place as usize)?;
        let at = staged.at.0;
        if let Some(mut reference) = before
            && let Some(counted) = reference.count_histogram(&staged.value, at)
        {
            staged.value = counted;
            starts.extend(Some((place, reference.start_ms)).filter(|(_, start)| *start != 0));
            return Some(reference);
        }
        let reference = Reference::at_histogram(&staged.value, at);
        gone.histograms.push(place);
        gone.lines.push(line);
        Some(reference)
    }

    /// Brings a histogram that was staged as it came within the limits.
    fn fit_staged(&mut self, place: u32, gone: &mut Gone) -> Result<(), ScrapeError> {
        let Some(staged) = self.histograms.get_mut(place as usize) else { return Ok(()) };
        match fitted(staged.value.clone(), &self.plan.settings) {
            Some(value) => {
                value.validate().map_err(|error| ScrapeError::InvalidHistogram(error.to_string()))?;
                staged.value = value;
            }
            None => {
                self.over_buckets = true;
                gone.histograms.push(place);
            }
        }
        Ok(())
    }

    /// Takes samples out of the batch. Series that storage has never had get no stale marker.
    fn remove(&mut self, gone: Gone, sample_starts: &mut Vec<(u32, i64)>, histogram_starts: &mut Vec<(u32, i64)>) {
        let Gone { samples, histograms, mut lines } = gone;
        remove_places(&mut self.samples, &samples);
        remove_places(&mut self.lines, &samples);
        remove_places(&mut self.histograms, &histograms);
        remove_places(&mut self.histogram_lines, &histograms);
        for (starts, gone) in [(sample_starts, &samples), (histogram_starts, &histograms)] {
            starts.retain(|(place, _)| gone.binary_search(place).is_err());
            starts.sort_unstable();
            starts.iter_mut().for_each(|(place, _)| *place -= gone.partition_point(|one| one < place) as u32);
        }
        lines.sort_unstable();
        self.exemplars.drop_lines(&lines);
        let previous = Arc::clone(&self.previous);
        for line in lines {
            match self.rewrite.as_mut() {
                Some(rewrite) => {
                    if let Some(entry) = rewrite.next.get_mut(line as usize).filter(|entry| entry.handle().is_none()) {
                        entry.set_tracked(false);
                    }
                }
                None => {
                    let Some(entry) = previous.sequence.get(line as usize) else { continue };
                    let is_flipped = self.retracked.iter().filter(|one| **one == line).count() % 2 == 1;
                    if entry.handle().is_none() && entry.tracked() != is_flipped {
                        self.retracked.push(line);
                    }
                }
            }
        }
    }
}

/// Removes the elements at `places`, which ascend.
fn remove_places<T>(list: &mut Vec<T>, places: &[u32]) {
    if places.is_empty() {
        return;
    }
    let (mut at, mut left) = (0, places.iter().peekable());
    list.retain(|_| {
        let is_gone = left.next_if(|place| **place == at).is_some();
        at += 1;
        !is_gone
    });
}
