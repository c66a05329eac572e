//! A series of the head as a selection hands it on: its samples are decoded on the thread that reads them.

use std::sync::Arc;

use crate::model::read::{FloatColumn, ReadError, SampleColumn, SampleSource};
use crate::model::sample::SeriesRef;
use crate::model::time::TimeRange;
use crate::storage::block::merged::{Begin, settle_source};
use crate::storage::head::column::{Column, Output};
use crate::storage::head::deletion;
use crate::storage::head::late::LateChunks;
use crate::storage::head::starts::{Run, start_at};
use crate::storage::head::view::{ViewInner, corrupt};

/// A selected series: keeps its view, and so all that the view pins.
#[derive(Debug)]
pub(super) struct HeadSeries {
    pub(super) view: Arc<ViewInner>,
    pub(super) shard: usize,
    pub(super) series: SeriesRef,
    /// Its samples when it was selected: all that the view sees are there.
    pub(super) column: Option<Arc<Column>>,
    /// Those that came out of order.
    pub(super) late: Option<Arc<LateChunks>>,
}

impl HeadSeries {
    /// Errors if the shard is away.
    fn check(&self) -> Result<(), ReadError> {
        if let Some(shard) = self.view.shards.get(self.shard) {
            shard.readers.check(shard.generation)?;
        }
        Ok(())
    }

    fn decode_to(&self, range: TimeRange, out: Output<'_>) -> Result<(), ReadError> {
        self.check()?;
        self.view.leaves_out(self.series, range);
        let Some(late) = &self.late else { return self.decode_in_order(range, out) };
        match out {
            Output::Floats(out) => {
                // A float may give way to a histogram of the same time, so histograms are looked at as well.
                let mut all = SampleColumn::default();
                self.decode_merged(late, range, &mut all)?;
                out.timestamps.append(&mut all.floats.timestamps);
                out.values.append(&mut all.floats.values);
                Ok(())
            }
            Output::All(out) => self.decode_merged(late, range, out),
        }
    }

    fn decode_in_order(&self, range: TimeRange, out: Output<'_>) -> Result<(), ReadError> {
        let (Some(column), Some(range)) = (&self.column, self.view.clamp(range)) else { return Ok(()) };
        let marks = self.view.marks_of(self.shard, self.series);
        let decode = |out: Output<'_>| column.decode(self.view.commit(), range, Some(marks), out);
        let Output::All(out) = out else { return decode(out).map_err(|e| corrupt(self.series, e)) };
        let from = (out.floats.len(), out.histograms.len());
        decode(Output::All(out)).map_err(|e| corrupt(self.series, e))?;
        let shard = self.view.shards.get(self.shard);
        let runs = shard.map_or_else(Vec::new, |shard| shard.readers.starts.runs(self.series));
        if !runs.is_empty() {
            set_starts(&runs, from.0, &out.floats.timestamps, &mut out.float_starts);
            set_starts(&runs, from.1, &out.histograms.timestamps, &mut out.histogram_starts);
        }
        Ok(())
    }

    /// Merges what came in order and what did not; of samples with the same time the one that came in order stays.
    fn decode_merged(&self, late: &LateChunks, range: TimeRange, out: &mut SampleColumn) -> Result<(), ReadError> {
        let begin = Begin::of(out);
        self.decode_in_order(range, Output::All(out))?;
        let of_late = Begin::of(out);
        late.decode(range, self.view.commit(), out).map_err(|e| corrupt(self.series, e))?;
        settle_source(out, begin, of_late);
        if !out.float_starts.is_empty() {
            out.float_starts.resize(out.floats.len(), 0);
        }
        if !out.histogram_starts.is_empty() {
            out.histogram_starts.resize(out.histograms.len(), 0);
        }
        Ok(())
    }
}

impl SampleSource for HeadSeries {
    fn decode(&self, range: TimeRange, out: &mut FloatColumn) -> Result<(), ReadError> {
        let from = out.len();
        self.decode_to(range, Output::Floats(out))?;
        match self.view.deleted_of(self.series) {
            [] => {}
            deleted => deletion::drop_floats(deleted, from, out),
        }
        Ok(())
    }

    fn decode_all(&self, range: TimeRange, out: &mut SampleColumn) -> Result<(), ReadError> {
        let from = (out.floats.len(), out.histograms.len());
        self.decode_to(range, Output::All(out))?;
        match self.view.deleted_of(self.series) {
            [] => {}
            deleted => deletion::drop_samples(deleted, from, out),
        }
        Ok(())
    }

    fn whole_histogram_times(&self, range: TimeRange, out: &mut Vec<i64>) -> Result<(), ReadError> {
        let of_column = self.column.as_ref().map_or(Ok(()), |column| column.whole_histogram_times(out));
        let of_late = |late: &LateChunks| late.whole_histogram_times(range, self.view.commit(), out);
        of_column.and_then(|()| self.late.as_deref().map_or(Ok(()), of_late)).map_err(|e| corrupt(self.series, e))
    }

    fn reference(&self) -> Option<u64> {
        Some(self.series.0)
    }

    fn decode_newest(&self, range: TimeRange, out: &mut SampleColumn) -> Result<(), ReadError> {
        let is_simple = self.late.is_none() && self.view.deleted_of(self.series).is_empty();
        if !is_simple || self.view.leaves_out(self.series, range) {
            return self.decode_all(range, out);
        }
        self.check()?;
        let (Some(column), Some(range)) = (&self.column, self.view.clamp(range)) else { return Ok(()) };
        let marks = self.view.marks_of(self.shard, self.series);
        column.decode_newest(self.view.commit(), range, Some(marks), out).map_err(|e| corrupt(self.series, e))
    }
}

/// Gives the samples from number `from` on the starts of the runs.
fn set_starts(runs: &[Run], from: usize, times: &[i64], starts: &mut Vec<i64>) {
    starts.resize(from, 0);
    starts.extend(times.iter().skip(from).map(|t| start_at(runs, *t)));
}
