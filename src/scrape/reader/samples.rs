//! Samples on their way to be staged: counted, held to the limits, put where they belong.

use std::sync::Arc;

use crate::model::append::{AppendHistogram, AppendSample, HistogramValue, SeriesKey};
use crate::model::time::TimestampMs;
use crate::scrape::created::Created;
use crate::scrape::error::ScrapeError;
use crate::scrape::labels::assemble;
use crate::scrape::reader::Reader;
use crate::scrape::rewrite::UNSEEN;
use crate::scrape::sequence::{Entry, Sequence};
use crate::scrape::settings::{SCHEMA_MIN, ScrapeSettings};
use crate::scrape::synthesis::Fate;

impl Reader<'_> {
    /// The sample of a series of the last scrape, where its line is `index`; in this scrape it is `place`.
    pub(super) fn sample(
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

    pub(super) fn key(
        &mut self,
        lines: &Sequence,
        index: usize,
        entry: Entry,
    ) -> Result<Option<SeriesKey>, ScrapeError> {
        if let Some(handle) = entry.handle() {
            return Ok(Some(SeriesKey::Known(handle)));
        }
        let labels = assemble(&lines.raw(index), entry.kind(), self.plan)?;
        self.label_bytes += labels.as_ref().map_or(0, |l| l.encoded_len() + 2 * size_of::<usize>());
        Ok(labels.map(SeriesKey::Labels))
    }

    /// Counts a sample against `sample_limit`; false from the first one over it, when nothing more is staged.
    pub(in crate::scrape) fn admit(&mut self) -> bool {
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

    pub(super) fn push(
        &mut self,
        line: usize,
        series: SeriesKey,
        explicit: Option<i64>,
        value: f64,
    ) -> Result<(), ScrapeError> {
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

    pub(super) fn explicit(&self, timestamp_ms: Option<i64>) -> Option<i64> {
        timestamp_ms.filter(|_| self.plan.settings.honor_timestamps)
    }

    pub(super) fn tracks(&self, explicit: Option<i64>) -> bool {
        explicit.is_none() || self.plan.settings.track_timestamps_staleness
    }

    pub(super) fn is_seen(&self, index: usize) -> bool {
        let moved = self.rewrite.as_ref().and_then(|r| r.moved.get(index));
        moved.is_some_and(|new| *new != UNSEEN)
    }

    pub(super) fn see(&mut self, index: usize, place: usize) {
        if let Some(moved) = self.rewrite.as_mut().and_then(|r| r.moved.get_mut(index)) {
            *moved = place as u32;
        }
    }
}

/// The histogram in a resolution that keeps to the limits; `None` if there is none.
pub(in crate::scrape) fn fitted(mut value: HistogramValue, settings: &ScrapeSettings) -> Option<HistogramValue> {
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
