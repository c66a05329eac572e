//! Series that several places have, as one: their samples merged by time. Of samples with the same time stamp one is kept.

use std::collections::HashMap;
use std::sync::Arc;

use crate::model::histogram::{CounterResetHint, FloatHistogram};
use crate::model::read::{
    FloatColumn, HistogramColumn, ReadBudget, ReadError, SampleColumn, SampleSource, SelectedSeries,
};
use crate::model::time::TimeRange;
use crate::storage::block::chain::{GoHeap, picks};

/// Steps between two looks at the budget.
const CHECK_EVERY: usize = 256;

/// Merges selections, each sorted, into one. What has the same labels becomes one series, its sources in the order in which
/// Prometheus would have them.
pub fn joined(selections: Vec<Vec<SelectedSeries>>, budget: &dyn ReadBudget) -> Result<Vec<SelectedSeries>, ReadError> {
    let room = selections.iter().map(Vec::len).max().unwrap_or(0);
    let mut out: Vec<SelectedSeries> = Vec::with_capacity(room);
    let mut rest: Vec<_> = selections.into_iter().map(Vec::into_iter).collect();
    let less = |a: &(usize, SelectedSeries), b: &(usize, SelectedSeries)| a.1.labels < b.1.labels;
    let mut heap = GoHeap::default();
    // Sources whose series were taken last: they go on in this order.
    let mut current: Vec<usize> = (0..rest.len()).collect();
    let mut same: Vec<Arc<dyn SampleSource>> = Vec::with_capacity(rest.len());
    loop {
        if out.len().is_multiple_of(CHECK_EVERY) {
            budget.check()?;
        }
        for source in current.drain(..) {
            if let Some(next) = rest.get_mut(source).and_then(Iterator::next) {
                heap.push((source, next), less);
            }
        }
        let Some((source, mut series)) = heap.pop(less) else { return Ok(out) };
        current.push(source);
        while heap.first().is_some_and(|(_, next)| next.labels == series.labels) {
            let Some((source, next)) = heap.pop(less) else { break };
            current.push(source);
            if same.is_empty() {
                same.push(Arc::clone(&series.samples));
            }
            same.push(next.samples);
        }
        if !same.is_empty() {
            series.samples = Arc::new(MergedSamples { sources: same.drain(..).collect() });
        }
        out.push(series);
    }
}

/// Samples of one series in several places, in Prometheus's order.
struct MergedSamples {
    sources: Box<[Arc<dyn SampleSource>]>,
}

impl SampleSource for MergedSamples {
    fn whole_histogram_times(&self, range: TimeRange, out: &mut Vec<i64>) -> Result<(), ReadError> {
        self.sources.iter().try_for_each(|source| source.whole_histogram_times(range, out))
    }

    fn decode(&self, range: TimeRange, out: &mut FloatColumn) -> Result<(), ReadError> {
        // A float may give way to a histogram of another source, so histograms are looked at as well.
        let mut all = SampleColumn::default();
        self.decode_all(range, &mut all)?;
        out.timestamps.append(&mut all.floats.timestamps);
        out.values.append(&mut all.floats.values);
        Ok(())
    }

    fn decode_all(&self, range: TimeRange, out: &mut SampleColumn) -> Result<(), ReadError> {
        let mut parts = Vec::with_capacity(self.sources.len());
        for source in &self.sources {
            let mut part = SampleColumn::default();
            source.decode_all(range, &mut part)?;
            parts.push(part);
        }
        merge(parts, out);
        Ok(())
    }

    fn decode_newest(&self, range: TimeRange, out: &mut SampleColumn) -> Result<(), ReadError> {
        // The newest of all is the newest of its source; those of the others stand before it and say whether a counter was reset.
        let mut parts = Vec::with_capacity(self.sources.len());
        let (mut newest, mut is_tied) = (None, false);
        for source in &self.sources {
            let mut part = SampleColumn::default();
            source.decode_newest(range, &mut part)?;
            let Some((_, last)) = span_of(&part) else { continue };
            is_tied = newest == Some(last) || is_tied && Some(last) < newest;
            newest = newest.max(Some(last));
            parts.push(part);
        }
        if is_tied {
            // Which of them stays depends on what is before them.
            return self.decode_all(range, out);
        }
        merge(parts, out);
        Ok(())
    }
}

/// Times of the first and the last sample of a column.
fn span_of(column: &SampleColumn) -> Option<(i64, i64)> {
    let (floats, histograms) = (&column.floats.timestamps, &column.histograms.timestamps);
    let first = floats.first().into_iter().chain(histograms.first()).min()?;
    let last = floats.last().into_iter().chain(histograms.last()).max()?;
    Some((*first, *last))
}

/// Appends the samples of all parts, merged by time.
fn merge(parts: Vec<SampleColumn>, out: &mut SampleColumn) {
    let mut spans: Vec<(i64, i64, usize)> =
        parts.iter().enumerate().filter_map(|(n, part)| span_of(part).map(|(first, last)| (first, last, n))).collect();
    spans.sort_unstable();
    let begin = Begin::of(out);
    if spans.windows(2).all(|pair| matches!(pair, [a, b] if a.1 < b.0)) {
        // Mostly a source begins where the one before it ended.
        let mut parts: Vec<Option<SampleColumn>> = parts.into_iter().map(Some).collect();
        for (_, _, number) in spans {
            let Some(part) = parts.get_mut(number).and_then(Option::take) else { continue };
            let of_source = Begin::of(out);
            append(part, out);
            settle_source(out, begin, of_source);
        }
    } else {
        pick(&parts, out);
    }
    // Where some are known, there is one for each sample.
    if !out.float_starts.is_empty() {
        out.float_starts.resize(out.floats.len(), 0);
    }
    if !out.histogram_starts.is_empty() {
        out.histogram_starts.resize(out.histograms.len(), 0);
    }
}

fn append(mut part: SampleColumn, out: &mut SampleColumn) {
    if !part.float_starts.is_empty() {
        out.float_starts.resize(out.floats.len(), 0);
        out.float_starts.append(&mut part.float_starts);
    }
    if !part.histogram_starts.is_empty() {
        out.histogram_starts.resize(out.histograms.len(), 0);
        out.histogram_starts.append(&mut part.histogram_starts);
    }
    out.floats.timestamps.append(&mut part.floats.timestamps);
    out.floats.values.append(&mut part.floats.values);
    out.histograms.timestamps.append(&mut part.histograms.timestamps);
    out.histograms.values.append(&mut part.histograms.values);
}

/// A sample of a part: its number among the floats or among the histograms.
#[derive(Clone, Copy)]
enum Place {
    Float(usize),
    Histogram(usize),
}

/// Appends the samples of parts that overlap: of several with the same time stamp the one that stays in Prometheus.
fn pick(parts: &[SampleColumn], out: &mut SampleColumn) {
    let places: Vec<(Vec<i64>, Vec<Place>)> = parts.iter().map(places_of).collect();
    let times: Vec<&[i64]> = places.iter().map(|(times, _)| times.as_slice()).collect();
    for picked in picks(&times) {
        let (Some(part), Some((times, places))) = (parts.get(picked.source), places.get(picked.source)) else {
            continue;
        };
        let (Some(t), Some(place)) = (times.get(picked.index), places.get(picked.index)) else { continue };
        match *place {
            Place::Float(at) => {
                let start = part.float_starts.get(at).copied().unwrap_or(0);
                out.push_float(*t, start, part.floats.values.get(at).copied().unwrap_or(f64::NAN));
            }
            Place::Histogram(at) => {
                let Some(histogram) = part.histograms.values.get(at) else { continue };
                let mut histogram = Arc::clone(histogram);
                // Where the sources alternate, what a histogram says of the one before it does not hold any more.
                let holds = picked.is_consecutive || histogram.counter_reset_hint == CounterResetHint::Reset;
                if !holds {
                    let hint = match parts.iter().any(|other| is_known_to_follow(other, *t, &histogram, out)) {
                        true => CounterResetHint::NotReset,
                        false if histogram.counter_reset_hint == CounterResetHint::NotReset => {
                            CounterResetHint::Unknown
                        }
                        false => histogram.counter_reset_hint,
                    };
                    if hint != histogram.counter_reset_hint {
                        Arc::make_mut(&mut histogram).counter_reset_hint = hint;
                    }
                }
                out.push_histogram(*t, part.histogram_starts.get(at).copied().unwrap_or(0), histogram);
            }
        }
    }
}

/// True if a source has this very histogram at this time, says that it goes on from the one before it, and that one is the newest
/// of `out`, whoever it was taken from.
fn is_known_to_follow(part: &SampleColumn, t: i64, histogram: &FloatHistogram, out: &SampleColumn) -> bool {
    let is_same = |a: &FloatHistogram, b: &FloatHistogram| {
        let hint = b.counter_reset_hint;
        *b == FloatHistogram { counter_reset_hint: hint, ..a.clone() }
    };
    let Ok(at) = part.histograms.timestamps.binary_search(&t) else { return false };
    let Some(own) = part.histograms.values.get(at) else { return false };
    let Some(before) = at.checked_sub(1) else { return false };
    let before = part.histograms.timestamps.get(before).zip(part.histograms.values.get(before));
    let newest = out.histograms.timestamps.last().zip(out.histograms.values.last());
    let (Some((time, before)), Some((newest_time, newest))) = (before, newest) else { return false };
    own.counter_reset_hint == CounterResetHint::NotReset
        && time == newest_time
        && out.floats.timestamps.last().is_none_or(|float| float < newest_time)
        && is_same(own, histogram)
        && is_same(before, newest)
}

/// All samples of a part in the order of their times.
fn places_of(part: &SampleColumn) -> (Vec<i64>, Vec<Place>) {
    let floats = part.floats.timestamps.iter().enumerate().map(|(at, t)| (*t, Place::Float(at)));
    let histograms = part.histograms.timestamps.iter().enumerate().map(|(at, t)| (*t, Place::Histogram(at)));
    let mut all: Vec<(i64, Place)> = floats.chain(histograms).collect();
    if !part.histograms.is_empty() {
        all.sort_by_key(|(t, _)| *t);
    }
    all.into_iter().unzip()
}

/// Lengths of a column before something was appended to it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Begin {
    floats: usize,
    histograms: usize,
}

impl Begin {
    /// Of a column as it is now.
    pub(crate) fn of(out: &SampleColumn) -> Self {
        Self { floats: out.floats.len(), histograms: out.histograms.len() }
    }
}

/// Merges what one source has appended, from `of_source` on, with what those before it have, from `begin` on, and starts
/// with them.
pub(crate) fn settle_source(out: &mut SampleColumn, begin: Begin, of_source: Begin) {
    let (floats_from, histograms_from) = (begin.floats, begin.histograms);
    let (floats_to, histograms_to) = (of_source.floats, of_source.histograms);
    let own = |times: &[i64], from: usize, to: usize| times.get(from..to).and_then(|own| own.last().copied());
    let newest = own(&out.floats.timestamps, floats_from, floats_to).max(own(
        &out.histograms.timestamps,
        histograms_from,
        histograms_to,
    ));
    let new_float = out.floats.timestamps.get(floats_to).copied();
    let new_histogram = out.histograms.timestamps.get(histograms_to).copied();
    let oldest_new = new_float.into_iter().chain(new_histogram).min();
    // Mostly a source begins where the one before it ended.
    if newest.zip(oldest_new).is_none_or(|(newest, oldest_new)| newest < oldest_new) {
        if histograms_from < histograms_to
            && let Some(first) = out.histograms.values.get_mut(histograms_to)
            && first.counter_reset_hint == CounterResetHint::NotReset
        {
            Arc::make_mut(first).counter_reset_hint = CounterResetHint::Unknown;
        }
        return;
    }
    let starts = (
        take_starts(floats_from, &out.floats.timestamps, &mut out.float_starts),
        take_starts(histograms_from, &out.histograms.timestamps, &mut out.histogram_starts),
    );
    let mut one = SampleColumn::default();
    one.floats.timestamps = out.floats.timestamps.split_off(floats_to);
    one.floats.values = out.floats.values.split_off(floats_to);
    one.histograms.timestamps = out.histograms.timestamps.split_off(histograms_to);
    one.histograms.values = out.histograms.values.split_off(histograms_to);
    // Sources of a different kind of sample at one time: that of the first source stays.
    let held = |times: &[i64], t: i64| times.binary_search(&t).is_ok();
    if !one.histograms.is_empty() && floats_from < out.floats.len() {
        let own = out.floats.timestamps.get(floats_from..).unwrap_or(&[]);
        without_times(&mut one.histograms, |t| held(own, t));
    }
    if !one.floats.is_empty() && histograms_from < out.histograms.len() {
        let own = out.histograms.timestamps.get(histograms_from..).unwrap_or(&[]);
        let kept = one.floats.timestamps.iter().zip(&one.floats.values).filter(|(t, _)| !held(own, **t));
        let (timestamps, values) = kept.map(|(t, value)| (*t, *value)).unzip();
        one.floats = FloatColumn { timestamps, values };
    }
    merge_behind(&mut out.floats, floats_from, &one.floats);
    merge_histograms(&mut out.histograms, histograms_from, &one.histograms);
    give_starts(&starts.0, floats_from, &out.floats.timestamps, &mut out.float_starts);
    give_starts(&starts.1, histograms_from, &out.histograms.timestamps, &mut out.histogram_starts);
}

/// Takes the start times of the samples from number `from` on, by time; of two the first counts, as with the samples.
fn take_starts(from: usize, times: &[i64], starts: &mut Vec<i64>) -> HashMap<i64, i64> {
    let mut taken = HashMap::new();
    for (t, start) in times.iter().zip(starts.iter()).skip(from) {
        taken.entry(*t).or_insert(*start);
    }
    starts.truncate(from);
    taken
}

/// Gives samples from number `from` on the start times that were taken.
fn give_starts(taken: &HashMap<i64, i64>, from: usize, times: &[i64], starts: &mut Vec<i64>) {
    if !taken.is_empty() {
        starts.resize(from, 0);
        starts.extend(times.iter().skip(from).map(|t| taken.get(t).copied().unwrap_or(0)));
    }
}

/// Drops the histograms at some times.
fn without_times(column: &mut HistogramColumn, drops: impl Fn(i64) -> bool) {
    let mut kept = HistogramColumn::default();
    for (t, histogram) in column.timestamps.iter().zip(&column.values) {
        if !drops(*t) {
            kept.push(*t, Arc::clone(histogram));
        }
    }
    *column = kept;
}

/// Merges ascending histograms into those of `out` from `begin` on; of two with the same time stamp the one in `out` stays.
/// Where the sources alternate, what a histogram says of the one before it does not hold any more.
fn merge_histograms(out: &mut HistogramColumn, begin: usize, new: &HistogramColumn) {
    if new.is_empty() {
        return;
    }
    let mut own = out.timestamps.split_off(begin).into_iter().zip(out.values.split_off(begin)).peekable();
    let mut other = new.timestamps.iter().copied().zip(new.values.iter().cloned()).peekable();
    let mut last_is_own = None;
    loop {
        let takes_own = match (own.peek(), other.peek()) {
            (Some((a, _)), Some((b, _))) => {
                let (is_own, is_same) = (a <= b, a == b);
                if is_same {
                    other.next();
                }
                is_own
            }
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (None, None) => break,
        };
        let next = if takes_own { own.next() } else { other.next() };
        let Some((t, mut histogram)) = next else { break };
        let has_changed = last_is_own.replace(takes_own).is_some_and(|before| before != takes_own);
        if has_changed && histogram.counter_reset_hint == CounterResetHint::NotReset {
            Arc::make_mut(&mut histogram).counter_reset_hint = CounterResetHint::Unknown;
        }
        out.push(t, histogram);
    }
}

/// Merges ascending samples into those of `out` from `begin` on; of two with the same time stamp the one in `out` stays.
fn merge_behind(out: &mut FloatColumn, begin: usize, new: &FloatColumn) {
    let own_t = out.timestamps.split_off(begin);
    let own_v = out.values.split_off(begin);
    let mut own = own_t.into_iter().zip(own_v).peekable();
    let mut other = new.timestamps.iter().copied().zip(new.values.iter().copied()).peekable();
    loop {
        let next = match (own.peek(), other.peek()) {
            (Some((a, _)), Some((b, _))) if a == b => {
                other.next();
                own.next()
            }
            (Some((a, _)), Some((b, _))) if b < a => other.next(),
            (Some(_), _) => own.next(),
            (None, _) => other.next(),
        };
        let Some((t, value)) = next else { break };
        out.push(t, value);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::model::labels::Labels;
    use crate::model::read::Unlimited;
    use crate::model::time::TimestampMs;

    struct Plain(FloatColumn);

    impl SampleSource for Plain {
        fn decode(&self, range: TimeRange, out: &mut FloatColumn) -> Result<(), ReadError> {
            for (t, v) in self.0.timestamps.iter().zip(&self.0.values) {
                if range.contains(TimestampMs(*t)) {
                    out.push(*t, *v);
                }
            }
            Ok(())
        }
    }

    /// Series by number, with the times of their samples, in each source; and for each series the sources that are seen.
    type Overlaps = (&'static [&'static [(u32, &'static [i64])]], &'static [(u32, &'static [(i64, usize)])]);

    /// Blocks that overlap, and which of them Prometheus 3.14 answers from.
    #[rustfmt::skip]
    const OVERLAPS: &[Overlaps] = &[
        (
            &[
                &[(0, &[1, 3, 4, 5, 6, 7]), (1, &[0, 2, 4, 8]), (2, &[0, 3, 5, 8]), (3, &[0, 2, 3, 4, 7, 8]), (4, &[0, 2, 5, 6, 8]), (5, &[2, 4, 7])],
                &[(0, &[0, 1, 2, 3, 5, 7]), (1, &[1, 3, 5, 8]), (2, &[0, 1, 3, 4, 5, 6, 8]), (3, &[2, 6, 7, 8]), (4, &[0, 2, 3, 5, 6, 7, 8]), (5, &[0, 1, 4, 5, 7, 8])],
            ],
            &[
                (0, &[(0, 1), (1, 0), (2, 1), (3, 0), (4, 0), (5, 1), (6, 0), (7, 1)]),
                (1, &[(0, 0), (1, 1), (2, 0), (3, 1), (4, 0), (5, 1), (8, 0)]),
                (2, &[(0, 1), (1, 1), (3, 0), (4, 1), (5, 0), (6, 1), (8, 0)]),
                (3, &[(0, 0), (2, 1), (3, 0), (4, 0), (6, 1), (7, 0), (8, 0)]),
                (4, &[(0, 1), (2, 1), (3, 1), (5, 0), (6, 0), (7, 1), (8, 0)]),
                (5, &[(0, 1), (1, 1), (2, 0), (4, 1), (5, 1), (7, 0), (8, 1)]),
            ],
        ),
        (
            &[
                &[(0, &[0, 3, 4, 8]), (1, &[1, 5, 7]), (2, &[2, 4, 5]), (3, &[0, 2, 3, 4, 5, 8]), (4, &[0, 5, 8]), (5, &[2, 3, 4, 7, 8])],
                &[(1, &[0, 2, 4, 6]), (2, &[1, 3, 4, 5, 7, 8]), (3, &[0, 2, 4, 5, 6]), (4, &[0, 2, 3, 5, 6, 7, 8]), (5, &[0, 1, 3, 4, 7, 8])],
                &[(1, &[0, 1, 2, 6]), (2, &[0, 3, 4, 6, 7]), (4, &[0, 1, 3, 8])],
            ],
            &[
                (0, &[(0, 0), (3, 0), (4, 0), (8, 0)]),
                (1, &[(0, 1), (1, 0), (2, 1), (4, 1), (5, 0), (6, 1), (7, 0)]),
                (2, &[(0, 2), (1, 1), (2, 0), (3, 1), (4, 1), (5, 1), (6, 2), (7, 1), (8, 1)]),
                (3, &[(0, 0), (2, 0), (3, 0), (4, 1), (5, 1), (6, 1), (8, 0)]),
                (4, &[(0, 0), (1, 2), (2, 1), (3, 2), (5, 0), (6, 1), (7, 1), (8, 0)]),
                (5, &[(0, 1), (1, 1), (2, 0), (3, 1), (4, 1), (7, 1), (8, 1)]),
            ],
        ),
        (
            &[
                &[(0, &[0, 1, 2, 3, 4]), (1, &[0, 2, 3, 7, 8]), (2, &[0, 1, 3, 4, 5, 8]), (4, &[0, 1, 2, 4, 5, 7]), (5, &[2, 3, 4, 5, 6, 7, 8])],
                &[(0, &[1, 2, 3, 4, 5, 7, 8]), (1, &[2, 4, 5, 7]), (2, &[1, 3, 8]), (4, &[0, 1, 2, 4, 5, 7, 8]), (5, &[0, 1, 2, 3, 4])],
                &[(0, &[0, 1, 2, 3, 4, 6, 7]), (1, &[0, 1, 2, 5, 6, 8]), (2, &[5, 7, 8]), (5, &[0, 1, 2, 3, 7, 8])],
                &[(0, &[0, 1, 3, 4, 6, 8]), (1, &[0, 1, 3, 4, 6, 7, 8]), (2, &[0, 1, 2, 5, 6, 8]), (3, &[0, 2, 6, 7, 8])],
            ],
            &[
                (0, &[(0, 3), (1, 0), (2, 0), (3, 1), (4, 3), (5, 1), (6, 2), (7, 2), (8, 3)]),
                (1, &[(0, 2), (1, 2), (2, 2), (3, 0), (4, 1), (5, 1), (6, 3), (7, 3), (8, 3)]),
                (2, &[(0, 3), (1, 3), (2, 3), (3, 1), (4, 0), (5, 3), (6, 3), (7, 2), (8, 3)]),
                (3, &[(0, 3), (2, 3), (6, 3), (7, 3), (8, 3)]),
                (4, &[(0, 0), (1, 0), (2, 0), (4, 0), (5, 0), (7, 0), (8, 1)]),
                (5, &[(0, 1), (1, 1), (2, 1), (3, 2), (4, 0), (5, 0), (6, 0), (7, 2), (8, 2)]),
            ],
        ),
    ];

    #[test]
    fn of_samples_with_one_time_stamp_that_of_prometheus_stays() {
        for (blocks, expected) in OVERLAPS {
            let of_block = |(number, series): (usize, &&[(u32, &[i64])])| -> Vec<SelectedSeries> {
                let one = |(name, times): &(u32, &[i64])| {
                    let mut column = FloatColumn::default();
                    times.iter().for_each(|t| column.push(*t, number as f64));
                    let labels = Labels::from_pairs([("s", &name.to_string())]);
                    SelectedSeries { labels, samples: Arc::new(Plain(column)) }
                };
                series.iter().map(one).collect()
            };
            let selections = blocks.iter().enumerate().map(of_block).collect();
            let joined = joined(selections, &Unlimited).unwrap();
            assert_eq!(joined.len(), expected.len());
            for (series, (name, sources)) in joined.iter().zip(*expected) {
                let mut column = FloatColumn::default();
                series.samples.decode(TimeRange::ALL, &mut column).unwrap();
                let seen: Vec<(i64, usize)> =
                    column.timestamps.into_iter().zip(column.values.into_iter().map(|value| value as usize)).collect();
                assert_eq!(seen, *sources, "series {name} of {} blocks", blocks.len());
            }
        }
    }

    proptest! {
        #[test]
        fn merged_samples_ascend_and_each_time_is_there_once(
            sources in proptest::collection::vec(proptest::collection::btree_set(0i64..60, 0..20), 1..5)
        ) {
            let column = |number: usize, times: &BTreeSet<i64>| {
                let mut column = FloatColumn::default();
                times.iter().for_each(|t| column.push(*t, number as f64));
                column
            };
            let plain = sources.iter().enumerate().map(|(n, times)| Arc::new(Plain(column(n, times))) as Arc<dyn SampleSource>);
            let merged = MergedSamples { sources: plain.collect() };
            let mut out = FloatColumn::default();
            out.push(-7, 9.0);
            merged.decode(TimeRange::ALL, &mut out).unwrap();
            let mut newest = SampleColumn::default();
            merged.decode_newest(TimeRange::ALL, &mut newest).unwrap();
            prop_assert_eq!(newest.floats.timestamps.last(), out.timestamps.get(1..).and_then(<[i64]>::last));
            let all: BTreeSet<i64> = sources.iter().flatten().copied().chain([-7]).collect();
            prop_assert_eq!(&out.timestamps, &all.into_iter().collect::<Vec<_>>());
            for (t, value) in out.timestamps.iter().zip(&out.values).skip(1) {
                prop_assert!(sources[*value as usize].contains(t));
            }
        }
    }
}
