//! What of a plan need not be done twice: equal parts, and selectors that look at the same series.
//!
//! A number is given to each part that selects something. Parts with the same number compute the same from the same samples at
//! the same times: they agree in everything but where they stand in the text. Selectors with the same conditions whose times
//! meet form a [`Read`]. That is all this pass says; `eval` decides what it makes of it.

use std::collections::HashMap;
use std::fmt::Debug;

use crate::model::matcher::Matcher;
use crate::promql::ast::PosRange;
use crate::promql::eval::Shortcuts;
use crate::promql::plan::node::{Node, Operation, RangeSelector, RangeSource, Selector, Share, Subquery};

/// What of a plan need not be done twice.
#[derive(Debug, Default)]
pub(crate) struct Sharing {
    /// How often a part of each class is asked for, if each is kept as long as it is asked for again.
    pub(crate) uses: Vec<u32>,
    /// Selections for several selectors each.
    pub(crate) reads: Vec<Read>,
    /// The read of each selector, by its reader's number.
    read_of: Vec<Option<usize>>,
}

/// One selection for several selectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Read {
    /// First and last time of the samples that they get.
    pub(crate) range_ms: (i64, i64),
    /// How many selectors.
    pub(crate) selectors: u32,
    /// How many of them decode what they select, if it is worth to keep it for the next; else 0.
    pub(crate) decodes: u32,
}

impl Sharing {
    /// Finds out about the parts of a plan, and notes in them what they are.
    pub(crate) fn of(root: &mut Node, is_instant: bool, shortcuts: Shortcuts) -> Self {
        if !shortcuts.common_parts && !shortcuts.common_reads {
            return Self::default();
        }
        let mut pass = Pass::default();
        let place = Place { number: pass.number(b"root"), has_one_step: is_instant };
        pass.describe(root, place);
        pass.uses = vec![0; pass.numbers.len() + 1];
        pass.finds_parts = shortcuts.common_parts;
        pass.count(root, place);
        let reads = if shortcuts.common_reads { pass.readers } else { Vec::new() };
        let (reads, read_of) = joined(&reads);
        let uses = if shortcuts.common_parts { pass.uses } else { Vec::new() };
        Self { uses, reads, read_of }
    }

    /// The read that a selector is part of.
    pub(crate) fn read_of(&self, selector: &Selector) -> Option<usize> {
        let reader = usize::try_from(selector.reader?).ok()?;
        self.read_of.get(reader).copied().flatten()
    }
}

/// Times at which a part is evaluated.
#[derive(Clone, Copy)]
struct Place {
    number: u32,
    has_one_step: bool,
}

/// A selector as it is met in the order of evaluation.
#[derive(Clone, Copy)]
struct Reader {
    /// Equal for equal conditions.
    series: u32,
    data_ms: (i64, i64),
    /// It looks at the newest sample alone.
    is_newest_only: bool,
}

/// What is known of a part once its own parts are known.
#[derive(Clone, Copy)]
struct Described {
    number: u32,
    layout: u32,
    start: usize,
    selects: bool,
}

#[derive(Default)]
struct Pass {
    /// Numbers of texts that say what a part computes, or how it stands.
    numbers: HashMap<Vec<u8>, u32>,
    uses: Vec<u32>,
    finds_parts: bool,
    readers: Vec<Reader>,
}

/// A text that is equal for equal parts.
struct Key {
    text: Vec<u8>,
    /// How the parts of it stand to each other.
    layout: Vec<u8>,
    start: usize,
    selects: bool,
}

impl Key {
    fn new(range: PosRange) -> Self {
        let mut key = Self { text: Vec::with_capacity(64), layout: Vec::new(), start: range.start, selects: false };
        key.layout.push(u8::from(range == PosRange::default()));
        key
    }

    fn number(&mut self, number: u64) {
        self.text.extend_from_slice(&number.to_le_bytes());
    }

    fn signed(&mut self, number: i64) {
        self.text.extend_from_slice(&number.to_le_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.text.extend_from_slice(bytes);
    }

    /// Something whose debug text says all that matters.
    fn shown(&mut self, what: &dyn Debug) {
        self.bytes(format!("{what:?}").as_bytes());
    }

    fn optional(&mut self, number: Option<i64>) {
        self.number(u64::from(number.is_some()));
        self.signed(number.unwrap_or(0));
    }

    fn matchers(&mut self, matchers: &[Matcher]) {
        self.number(matchers.len() as u64);
        for matcher in matchers {
            self.bytes(matcher.op().as_str().as_bytes());
            self.bytes(matcher.name().as_bytes());
            self.bytes(matcher.value().as_bytes());
        }
    }

    fn selector(&mut self, selector: &Selector) {
        self.selects = true;
        self.matchers(&selector.matchers);
        self.signed(selector.offset_ms);
        self.optional(selector.pinned_ms);
        self.signed(selector.data_ms.0);
        self.signed(selector.data_ms.1);
        self.number(u64::from(selector.totals_only));
    }

    fn range_selector(&mut self, selector: &RangeSelector) {
        self.signed(selector.range_ms);
        self.shown(&selector.extension);
        self.selector(&selector.selector);
    }

    fn place(&mut self, start: usize, is_known: bool) {
        let distance = if is_known { start.wrapping_sub(self.start) } else { usize::MAX };
        self.layout.extend_from_slice(&(distance as u64).to_le_bytes());
    }

    fn part(&mut self, part: Described) {
        self.selects |= part.selects;
        self.text.extend_from_slice(&part.number.to_le_bytes());
        self.layout.extend_from_slice(&part.layout.to_le_bytes());
        self.place(part.start, true);
    }
}

impl Pass {
    fn number(&mut self, text: &[u8]) -> u32 {
        if let Some(number) = self.numbers.get(text) {
            return *number;
        }
        let number = u32::try_from(self.numbers.len() + 1).unwrap_or(u32::MAX);
        self.numbers.insert(text.to_vec(), number);
        number
    }

    fn inside_subquery(&mut self, place: Place, subquery: &Subquery) -> Place {
        let Subquery { range_ms, step_ms, offset_ms, pinned_ms, .. } = *subquery;
        let mut key = Key::new(PosRange::default());
        key.shown(&("subquery", place.number, range_ms, step_ms, offset_ms, pinned_ms));
        Place { number: self.number(&key.text), has_one_step: false }
    }

    fn inside_invariant(&mut self, place: Place) -> Place {
        let mut key = Key::new(PosRange::default());
        key.shown(&("once", place.number));
        Place { number: self.number(&key.text), has_one_step: true }
    }

    fn describe(&mut self, node: &mut Node, place: Place) -> Described {
        let mut key = Key::new(node.range);
        key.number(u64::from(place.number));
        self.operation(&mut key, &mut node.operation, place);
        // Texts of the two kinds differ in their first byte.
        key.text.insert(0, b'p');
        key.layout.insert(0, b'l');
        let described = Described {
            number: self.number(&key.text),
            layout: self.number(&key.layout),
            start: key.start,
            selects: key.selects,
        };
        if described.selects {
            node.share = Share { class: described.number, layout: described.layout };
        }
        described
    }

    fn operation(&mut self, key: &mut Key, operation: &mut Operation, place: Place) {
        match operation {
            Operation::Number(value) => {
                key.bytes(b"number");
                key.number(value.to_bits());
            }
            Operation::Text(text) => {
                key.bytes(b"text");
                key.bytes(text.as_bytes());
            }
            Operation::Fail(error) => {
                key.bytes(b"fail");
                key.shown(error);
            }
            Operation::Select(selector) => {
                key.bytes(b"select");
                key.selector(selector);
            }
            Operation::Smoothed(selector) => {
                key.bytes(b"smoothed");
                key.selector(selector);
            }
            Operation::Timestamp(selector, time) => {
                key.bytes(b"timestamp");
                key.shown(time);
                key.selector(selector);
            }
            Operation::SelectRange(selector) => {
                key.bytes(b"range");
                key.range_selector(selector);
            }
            Operation::Subquery(subquery) => {
                key.bytes(b"subquery");
                self.subquery(key, subquery, place);
            }
            Operation::Info(info) => {
                key.bytes(b"info");
                key.number(u64::from(info.matchers.is_some()));
                key.matchers(info.matchers.as_deref().unwrap_or(&[]));
                key.optional(info.pinned_ms);
                key.signed(info.offset_ms);
                self.part(key, &mut info.inner, place);
            }
            Operation::Call(call) => {
                key.bytes(b"call");
                key.shown(&call.function);
                call.args.iter_mut().for_each(|arg| self.part(key, arg, place));
            }
            Operation::RangeCall(call) => {
                key.bytes(b"range call");
                key.shown(&call.function);
                key.number(u64::from(call.names_go_late));
                key.place(call.source_range.start, call.source_range != PosRange::default());
                match &mut call.source {
                    RangeSource::Selector(selector) => key.range_selector(selector),
                    RangeSource::Subquery(subquery) => self.subquery(key, subquery, place),
                }
                call.scalars.iter_mut().for_each(|scalar| self.part(key, scalar, place));
            }
            Operation::Aggregate(aggregate) => {
                key.bytes(b"aggregate");
                key.shown(&aggregate.fold);
                key.shown(&aggregate.grouping);
                aggregate.param.iter_mut().for_each(|param| self.part(key, param, place));
                self.part(key, &mut aggregate.inner, place);
            }
            Operation::SelectK(select) => {
                key.bytes(b"select k");
                key.shown(&(select.which, &select.grouping));
                self.part(key, &mut select.k, place);
                self.part(key, &mut select.inner, place);
            }
            Operation::Scalars(binary) => {
                key.bytes(b"scalars");
                key.shown(&binary.op);
                self.sides(key, &mut binary.sides, place);
            }
            Operation::VectorScalar(binary) => {
                key.bytes(b"vector and scalar");
                key.shown(&(binary.op, binary.scalar_is_left, binary.return_bool));
                self.sides(key, &mut binary.sides, place);
            }
            Operation::Vectors(binary) => {
                key.bytes(b"vectors");
                key.shown(&(binary.op, binary.return_bool, &binary.matching));
                self.sides(key, &mut binary.sides, place);
            }
            Operation::Set(set) => {
                key.bytes(b"set");
                key.shown(&(set.op, &set.matching));
                self.sides(key, &mut set.sides, place);
            }
            Operation::Negate(inner) => {
                key.bytes(b"negate");
                self.part(key, inner, place);
            }
            Operation::Same(inner) => {
                key.bytes(b"same");
                self.part(key, inner, place);
            }
            Operation::StepInvariant(inner) => {
                key.bytes(b"once");
                let place = self.inside_invariant(place);
                self.part(key, inner, place);
            }
        }
    }

    fn part(&mut self, key: &mut Key, node: &mut Node, place: Place) {
        let described = self.describe(node, place);
        key.part(described);
    }

    fn sides(&mut self, key: &mut Key, sides: &mut (Node, Node), place: Place) {
        self.part(key, &mut sides.0, place);
        self.part(key, &mut sides.1, place);
    }

    fn subquery(&mut self, key: &mut Key, subquery: &mut Subquery, place: Place) {
        let Subquery { range_ms, step_ms, offset_ms, pinned_ms, .. } = *subquery;
        key.shown(&(range_ms, step_ms, offset_ms, pinned_ms));
        let place = self.inside_subquery(place, subquery);
        self.part(key, &mut subquery.inner, place);
    }

    /// Counts what is asked for, in the order of evaluation. What has been evaluated before is not looked into again.
    fn count(&mut self, node: &mut Node, place: Place) {
        if node.share.class == 0 {
            return;
        }
        if self.finds_parts
            && let Some(uses) = usize::try_from(node.share.class).ok().and_then(|class| self.uses.get_mut(class))
        {
            *uses = uses.saturating_add(1);
            if *uses > 1 {
                return;
            }
        }
        match &mut node.operation {
            Operation::Number(_) | Operation::Text(_) | Operation::Fail(_) => {}
            Operation::Select(selector) => self.reader(selector, place.has_one_step),
            Operation::Smoothed(selector) | Operation::Timestamp(selector, _) => self.reader(selector, false),
            Operation::SelectRange(range) => self.reader(&mut range.selector, false),
            Operation::Subquery(subquery) => self.count_subquery(subquery, place),
            Operation::Info(info) => self.count(&mut info.inner, place),
            Operation::Call(call) => call.args.iter_mut().for_each(|arg| self.count(arg, place)),
            Operation::RangeCall(call) => {
                // A subquery is evaluated before the scalars, a selector after them.
                if let RangeSource::Subquery(subquery) = &mut call.source {
                    self.count_subquery(subquery, place);
                }
                call.scalars.iter_mut().for_each(|scalar| self.count(scalar, place));
                if let RangeSource::Selector(range) = &mut call.source {
                    self.reader(&mut range.selector, false);
                }
            }
            Operation::Aggregate(aggregate) => {
                aggregate.param.iter_mut().for_each(|param| self.count(param, place));
                self.count(&mut aggregate.inner, place);
            }
            Operation::SelectK(select) => {
                self.count(&mut select.k, place);
                self.count(&mut select.inner, place);
            }
            Operation::Scalars(binary) => self.count_sides(&mut binary.sides, place),
            Operation::VectorScalar(binary) => self.count_sides(&mut binary.sides, place),
            Operation::Vectors(binary) => self.count_sides(&mut binary.sides, place),
            Operation::Set(set) => self.count_sides(&mut set.sides, place),
            Operation::Negate(inner) | Operation::Same(inner) => self.count(inner, place),
            Operation::StepInvariant(inner) => {
                let place = self.inside_invariant(place);
                self.count(inner, place);
            }
        }
    }

    fn count_sides(&mut self, sides: &mut (Node, Node), place: Place) {
        self.count(&mut sides.0, place);
        self.count(&mut sides.1, place);
    }

    fn count_subquery(&mut self, subquery: &mut Subquery, place: Place) {
        let place = self.inside_subquery(place, subquery);
        self.count(&mut subquery.inner, place);
    }

    fn reader(&mut self, selector: &mut Selector, is_newest_only: bool) {
        let mut key = Key::new(PosRange::default());
        key.bytes(b"series");
        key.matchers(&selector.matchers);
        let series = self.number(&key.text);
        selector.reader = u32::try_from(self.readers.len()).ok();
        self.readers.push(Reader { series, data_ms: selector.data_ms, is_newest_only });
    }
}

/// Least time of which decoded samples need not be decoded again, for it to be worth to keep them.
const SPARED_MS_MIN: i64 = 600_000;

/// Selectors of the same series whose times lie so close that one selection serves them, and the read of each.
fn joined(readers: &[Reader]) -> (Vec<Read>, Vec<Option<usize>>) {
    let mut read_of = vec![None; readers.len()];
    let mut reads = Vec::new();
    let mut order: Vec<(usize, Reader)> = readers.iter().copied().enumerate().collect();
    order.sort_by_key(|(place, reader)| (reader.series, reader.data_ms, *place));
    let span = |(min_ms, max_ms): (i64, i64)| max_ms.saturating_sub(min_ms).max(0);
    let mut rest = order.as_slice();
    while let Some((first, others)) = rest.split_first() {
        let (mut range_ms, mut spans) = (first.1.data_ms, span(first.1.data_ms));
        let mut count = 1;
        for (_, reader) in others.iter().take_while(|(_, reader)| reader.series == first.1.series) {
            let wider = (range_ms.0.min(reader.data_ms.0), range_ms.1.max(reader.data_ms.1));
            let all = spans.saturating_add(span(reader.data_ms));
            if span(wider) > all.saturating_mul(2) {
                break;
            }
            (range_ms, spans) = (wider, all);
            count += 1;
        }
        let (members, after) = rest.split_at(count);
        rest = after;
        if count == 1 {
            continue;
        }
        for (place, _) in members {
            read_of[*place] = Some(reads.len());
        }
        let decoding = members.iter().filter(|(_, reader)| !reader.is_newest_only);
        let (decodes, spans) =
            decoding.fold((0, 0i64), |(n, sum), (_, r)| (n + 1, sum.saturating_add(span(r.data_ms))));
        let spared = spans.saturating_sub(span(range_ms));
        let is_worth_it = decodes > 1 && SPARED_MS_MIN <= spared && spans / 4 <= spared;
        let selectors = u32::try_from(count).unwrap_or(u32::MAX);
        reads.push(Read { range_ms, selectors, decodes: if is_worth_it { decodes } else { 0 } });
    }
    (reads, read_of)
}

#[cfg(test)]
mod tests {
    use crate::promql::eval::{EngineOptions, Shortcuts};
    use crate::promql::parser::{ParseOptions, parse_expr};
    use crate::promql::plan::{QueryTimes, plan};

    #[track_caller]
    fn check(text: &str, uses: &[u32], reads: &[(u32, u32)]) {
        let expr = parse_expr(text, &ParseOptions::ALL).unwrap();
        let times = QueryTimes { start_ms: 0, end_ms: 3_600_000, step_ms: 15_000 };
        let opts = EngineOptions { shortcuts: Shortcuts::ALL, ..EngineOptions::default() };
        let sharing = plan(&expr, times, &opts).unwrap().sharing;
        let mut found: Vec<u32> = sharing.uses.iter().copied().filter(|uses| *uses > 1).collect();
        found.sort_unstable();
        assert_eq!(found, uses, "{text}");
        let found: Vec<_> = sharing.reads.iter().map(|read| (read.selectors, read.decodes)).collect();
        assert_eq!(found, reads, "{text}");
    }

    #[test]
    fn equal_parts_are_found_at_equal_times() {
        check("rate(x[5m])", &[], &[]);
        check("sum(rate(x[5m])) / sum( rate(x[300]) )", &[2], &[]);
        check("sum(rate(x[5m])) / sum(rate(x[5m])) + sum by (a) (rate(x[5m]))", &[2, 2], &[]);
        check("x{a=\"b\"} + x{a=\"c\"}", &[], &[]);
        check("max_over_time(x[1h:1m]) - min_over_time(x[1h:1m])", &[2], &[]);
        check("max_over_time(x[1h:1m]) - min_over_time(x[1h:2m])", &[], &[(2, 2)]);
        check("scalar(x @ 10) + scalar(x @ 10)", &[2], &[]);
        check("(1 + time()) * (1 + time())", &[], &[]);
    }

    #[test]
    fn selectors_of_the_same_series_are_one_read_if_their_times_are_close() {
        check("rate(x[5m]) / rate(x[1h])", &[], &[(2, 2)]);
        check("x - x offset 5m", &[], &[(2, 2)]);
        check("x - x offset 1d", &[], &[]);
        check("x - x offset 1d + x offset 2m", &[], &[(2, 2)]);
        check("x{a=\"b\"} - y{a=\"b\"}", &[], &[]);
    }
}
