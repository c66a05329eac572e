//! Spans and counts: taken apart into indexes, merged, reduced, put together again.

use crate::model::histogram::Span;
use crate::model::kahan::kahan_inc;

/// Indexes of the buckets with their places among the counts, as many as there are counts, whatever length the spans claim.
#[derive(Clone, Debug)]
pub struct Indexes<'a> {
    spans: std::slice::Iter<'a, Span>,
    left_in_span: u32,
    index: i64,
    place: usize,
    count: usize,
}

/// Indexes of `count` buckets.
pub fn indexes(spans: &[Span], count: usize) -> Indexes<'_> {
    Indexes { spans: spans.iter(), left_in_span: 0, index: 0, place: 0, count }
}

impl Iterator for Indexes<'_> {
    /// Place among the counts, and index.
    type Item = (usize, i64);

    fn next(&mut self) -> Option<Self::Item> {
        if self.place >= self.count {
            return None;
        }
        while self.left_in_span == 0 {
            let span = self.spans.next()?;
            self.index += i64::from(span.offset);
            self.left_in_span = span.length;
        }
        let item = (self.place, self.index);
        self.left_in_span -= 1;
        self.index += 1;
        self.place += 1;
        Some(item)
    }
}

/// Indexes with counts, those that fall into one bucket at a coarser resolution added up.
pub(super) fn reduced<'a>(spans: &'a [Span], counts: &'a [f64], shift: u32) -> impl Iterator<Item = (i64, f64)> + 'a {
    let at = move |place: usize| counts.get(place).copied().unwrap_or(0.0);
    let mut buckets = indexes(spans, counts.len()).peekable();
    std::iter::from_fn(move || {
        let (place, index) = buckets.next()?;
        let target = reduced_index(index, shift);
        let mut count = at(place);
        while let Some((place, _)) = buckets.next_if(|(_, index)| reduced_index(*index, shift) == target) {
            count += at(place);
        }
        Some((target, count))
    })
}

pub(super) fn reduced_index(index: i64, shift: u32) -> i64 {
    ((index - 1) >> shift.min(62)) + 1
}

/// Spans of buckets with these ascending indexes.
pub fn spans_of(indexes: impl IntoIterator<Item = i64>) -> Vec<Span> {
    let mut packer = SpanPacker::default();
    indexes.into_iter().for_each(|index| packer.push(index));
    packer.spans
}

/// Spans as they grow, bucket by bucket in ascending order.
#[derive(Default)]
struct SpanPacker {
    spans: Vec<Span>,
    next: i64,
}

impl SpanPacker {
    fn push(&mut self, index: i64) {
        match self.spans.last_mut() {
            Some(span) if index == self.next => span.length += 1,
            _ => self.spans.push(Span { offset: i32::try_from(index - self.next).unwrap_or(i32::MAX), length: 1 }),
        }
        self.next = index + 1;
    }
}

/// Spans and counts as they grow, bucket by bucket in ascending order.
#[derive(Default)]
pub(super) struct Packer {
    pub(super) spans: Vec<Span>,
    pub(super) counts: Vec<f64>,
    pub(super) compensation: Vec<f64>,
    next: i64,
}

impl Packer {
    pub(super) fn with_room_for(count: usize) -> Self {
        Self { counts: Vec::with_capacity(count), ..Self::default() }
    }

    pub(super) fn push(&mut self, index: i64, count: f64, compensation: f64) {
        match self.spans.last_mut() {
            Some(span) if index == self.next => span.length += 1,
            _ => self.spans.push(Span { offset: i32::try_from(index - self.next).unwrap_or(i32::MAX), length: 1 }),
        }
        self.next = index + 1;
        self.counts.push(count);
        self.compensation.push(compensation);
    }

    fn finish(self, spans: &mut Vec<Span>, counts: &mut Vec<f64>, compensation: Option<&mut Vec<f64>>) {
        (*spans, *counts) = (self.spans, self.counts);
        if let Some(compensation) = compensation {
            *compensation = self.compensation;
        }
    }
}

/// What is added to the buckets of one side.
#[derive(Clone, Copy)]
pub(super) struct Addend<'a> {
    pub(super) spans: &'a [Span],
    pub(super) counts: &'a [f64],
    /// 1 to add, -1 to subtract.
    pub(super) sign: f64,
    /// So many of the first buckets are left out.
    pub(super) skip: usize,
    /// Compensation of the counts; empty for none.
    pub(super) compensation: &'a [f64],
}

/// Adds buckets; new ones are inserted.
pub(super) fn add(
    spans: &mut Vec<Span>,
    counts: &mut Vec<f64>,
    mut compensation: Option<&mut Vec<f64>>,
    other: Addend<'_>,
) {
    let amount = |place: usize| {
        let count = other.counts.get(place).copied().unwrap_or(0.0) * other.sign;
        (count, other.compensation.get(place).copied().unwrap_or(0.0) * other.sign)
    };
    let sum = |own: f64, own_compensation: f64, place: usize, compensated: bool| {
        let (count, more) = amount(place);
        if !compensated {
            return (own + count, 0.0);
        }
        let (own, own_compensation) = kahan_inc(count, own, own_compensation);
        if more == 0.0 { (own, own_compensation) } else { kahan_inc(more, own, own_compensation) }
    };
    if *spans == other.spans && counts.len() == other.counts.len() {
        match compensation {
            None => {
                let pairs = counts.iter_mut().zip(other.counts).skip(other.skip);
                pairs.for_each(|(own, count)| *own += count * other.sign);
            }
            Some(compensation) => {
                let pairs = counts.iter_mut().zip(compensation.iter_mut()).enumerate().skip(other.skip);
                pairs.for_each(|(place, (own, kept))| (*own, *kept) = sum(*own, *kept, place, true));
            }
        }
        return;
    }
    let compensated = compensation.is_some();
    let kept = |place: usize| compensation.as_ref().and_then(|c| c.get(place)).copied().unwrap_or(0.0);
    let mut packer = Packer::with_room_for(counts.len() + other.counts.len());
    let mut mine = indexes(spans, counts.len()).peekable();
    let mut theirs = indexes(other.spans, other.counts.len()).skip(other.skip).peekable();
    loop {
        let (own, added) = match (mine.peek().copied(), theirs.peek().copied()) {
            (None, None) => break,
            (Some(own), Some(added)) if own.1 == added.1 => (Some(own), Some(added)),
            (Some(own), Some(added)) if own.1 < added.1 => (Some(own), None),
            (Some(own), None) => (Some(own), None),
            (_, added) => (None, added),
        };
        if own.is_some() {
            mine.next();
        }
        if added.is_some() {
            theirs.next();
        }
        let at = |place: usize| counts.get(place).copied().unwrap_or(0.0);
        match (own, added) {
            (Some((place, index)), Some((other_place, _))) => {
                let (count, compensation) = sum(at(place), kept(place), other_place, compensated);
                packer.push(index, count, compensation);
            }
            (Some((place, index)), None) => packer.push(index, at(place), kept(place)),
            (None, Some((place, index))) => {
                let (count, compensation) = amount(place);
                packer.push(index, count, compensation);
            }
            (None, None) => {}
        }
    }
    packer.finish(spans, counts, compensation.take());
}

/// Lowers the resolution.
pub(super) fn reduce(
    spans: &mut Vec<Span>,
    counts: &mut Vec<f64>,
    compensation: Option<&mut Vec<f64>>,
    from: i32,
    to: i32,
) {
    let shift = u32::try_from(from.saturating_sub(to)).unwrap_or(0);
    let mut packer = Packer::with_room_for(counts.len());
    match compensation {
        None => reduced(spans, counts, shift).for_each(|(index, count)| packer.push(index, count, 0.0)),
        Some(ref kept) => {
            let mut open: Option<(i64, f64, f64)> = None;
            for (place, index) in indexes(spans, counts.len()) {
                let target = reduced_index(index, shift);
                let count = counts.get(place).copied().unwrap_or(0.0);
                let more = kept.get(place).copied().unwrap_or(0.0);
                open = match open {
                    Some((index, sum, compensation)) if index == target => {
                        let (sum, compensation) = kahan_inc(count, sum, compensation);
                        let (sum, compensation) = kahan_inc(more, sum, compensation);
                        Some((index, sum, compensation))
                    }
                    done => {
                        done.into_iter().for_each(|(index, sum, c)| packer.push(index, sum, c));
                        Some((target, count, more))
                    }
                };
            }
            open.into_iter().for_each(|(index, sum, c)| packer.push(index, sum, c));
        }
    }
    packer.finish(spans, counts, compensation);
}

/// Drops empty buckets, except runs of at most `empty_max` between filled ones.
pub(super) fn compact(
    spans: &mut Vec<Span>,
    counts: &mut Vec<f64>,
    compensation: Option<&mut Vec<f64>>,
    empty_max: usize,
) {
    let is_tidy = |span: &Span| span.length > 0 && usize::try_from(span.offset).is_ok_and(|gap| gap > empty_max);
    let claimed: u64 = spans.iter().map(|span| u64::from(span.length)).sum();
    let all_there = claimed == counts.len() as u64;
    let rest_is_tidy = spans.iter().skip(1).all(is_tidy) && spans.first().is_none_or(|span| span.length > 0);
    if all_there && rest_is_tidy && counts.iter().all(|count| *count != 0.0) {
        return;
    }
    let mut packer = Packer::with_room_for(counts.len());
    for (place, index) in indexes(spans, counts.len()) {
        let count = counts.get(place).copied().unwrap_or(0.0);
        let kept = compensation.as_ref().and_then(|c| c.get(place)).copied().unwrap_or(0.0);
        if count == 0.0 && kept == 0.0 {
            continue;
        }
        let gap = index - packer.next;
        if !packer.spans.is_empty() && usize::try_from(gap).is_ok_and(|gap| gap <= empty_max) {
            (packer.next..index).for_each(|empty| packer.push(empty, 0.0, 0.0));
        }
        packer.push(index, count, kept);
    }
    packer.finish(spans, counts, compensation);
}

/// True if the spans name the same buckets in the same runs; spans without buckets do not count.
pub(super) fn same_spans(a: &[Span], b: &[Span]) -> bool {
    fn filled(spans: &[Span]) -> impl Iterator<Item = (i64, u32)> + '_ {
        let mut offset = 0;
        spans.iter().filter_map(move |span| {
            offset += i64::from(span.offset);
            (span.length > 0).then(|| (std::mem::take(&mut offset), span.length))
        })
    }
    filled(a).eq(filled(b))
}
