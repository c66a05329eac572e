//! What comes beside the samples of a scrape: exemplars. They are held until it is known whether their sample is stored.
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

use crate::exposition::exemplar::RawExemplar;
use crate::exposition::text::FamilyKind;
use crate::model::append::AppendExemplar;
use crate::model::exemplar::Exemplar;
use crate::model::labels::Labels;
use crate::model::time::TimestampMs;
use crate::scrape::error::ScrapeError;
use crate::scrape::labels::assemble;
use crate::scrape::settings::SamplePlan;

/// What an exemplar takes beside its labels, with the place of its line.
const EXEMPLAR_BYTES: usize = size_of::<AppendExemplar>() + size_of::<u32>();

/// Exemplars of a scrape.
#[derive(Debug, Default)]
pub(super) struct Exemplars {
    /// Of the sample that is being read.
    held: Vec<Exemplar>,
    series: Option<Labels>,
    pub(super) staged: Vec<AppendExemplar>,
    /// The line of each.
    pub(super) lines: Vec<u32>,
}

impl Exemplars {
    /// Reads those of a sample, in the order in which storage wants them. Those without a time are of `at`.
    pub(super) fn hold<'a>(
        &mut self,
        found: impl IntoIterator<Item = RawExemplar<'a>>,
        at: TimestampMs,
        (raw, kind, plan): (&[u8], FamilyKind, &SamplePlan),
    ) -> Result<(), ScrapeError> {
        self.hold_read(found.into_iter().map(|raw| raw.read(at)), (raw, kind, plan))
    }

    /// As [`Self::hold`], for exemplars that were read before.
    pub(super) fn hold_read(
        &mut self,
        found: impl IntoIterator<Item = Exemplar>,
        (raw, kind, plan): (&[u8], FamilyKind, &SamplePlan),
    ) -> Result<(), ScrapeError> {
        self.release();
        self.held.extend(found);
        if !self.held.is_empty() {
            self.held.sort_by(Exemplar::order);
            // The head knows exemplars by labels, as their series may be gone before them.
            self.series = assemble(raw, kind, plan)?;
        }
        Ok(())
    }

    /// Stages what is held: its sample, of this line, is stored. Answers how many bytes that takes.
    pub(super) fn stage(&mut self, line: u32) -> usize {
        let Some(series) = self.series.take() else { return 0 };
        let mut bytes = 0;
        for exemplar in self.held.drain(..) {
            bytes += EXEMPLAR_BYTES + exemplar.labels.encoded_len();
            self.staged.push(AppendExemplar { series: series.clone(), exemplar });
            self.lines.push(line);
        }
        bytes + series.encoded_len()
    }

    /// Lets go of what is held: its sample is not stored.
    pub(super) fn release(&mut self) {
        self.held.clear();
        self.series = None;
    }

    /// Drops those of these lines, which ascend.
    pub(super) fn drop_lines(&mut self, gone: &[u32]) {
        let lines = std::mem::take(&mut self.lines);
        let mut is_kept = lines.iter().map(|line| gone.binary_search(line).is_err());
        self.staged.retain(|_| is_kept.next().unwrap_or(true));
        self.lines = lines.into_iter().filter(|line| gone.binary_search(line).is_err()).collect();
    }

    /// Drops all.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}
