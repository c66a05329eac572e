//! Series descriptions: the little language in which test files write the samples of a series.
//!
//! ```text
//! name{label="value"} 1 -2 _ stale 0+10x5 _x3 {{schema:0 sum:5 count:2 buckets:[1 1]}}x2
//! ```

use std::sync::Arc;

use super::{Parsed, Parser, range_of};
use crate::model::go;
use crate::model::histogram::FloatHistogram;
use crate::model::labels::Labels;
use crate::model::sample;
use crate::promql::ast::BinaryOp;
use crate::promql::lexer::{Kind, Token};

/// Most values, buckets of computed histograms included, that one description may stand for.
pub const SEQUENCE_LEN_MAX: u64 = 1 << 22;

const SERIES_VALUES: &str = "series values";

/// A series and its samples, one an interval.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SeriesDescription {
    /// The series.
    pub labels: Labels,
    /// Its values in order of time.
    pub values: Vec<SequenceValue>,
}

/// The value at one point in time.
#[derive(Clone, Debug, PartialEq)]
pub enum SequenceValue {
    /// There is no sample.
    Omitted,
    /// A float; the stale marker for `stale`.
    Float(f64),
    /// A native histogram.
    Histogram {
        /// The histogram; equal neighbours share it.
        histogram: Arc<FloatHistogram>,
        /// True if the counter reset hint was written down, and not just left at its default.
        counter_reset_hint_set: bool,
    },
}

impl Parser<'_> {
    /// A metric and the values behind it.
    pub(super) fn series_description(&mut self) -> Parsed<SeriesDescription> {
        let labels = self.metric()?;
        let mut values = Vec::new();
        let begin = self.series_values_begin();
        self.recover(begin, SERIES_VALUES, "")?;
        while self.accept(Kind::Space).is_some() {
            if !starts_item(self.peek()) {
                continue;
            }
            let item = self.series_item(&mut values);
            if self.recover(item, SERIES_VALUES, "")?.is_none() {
                values.clear();
            }
        }
        Ok(SeriesDescription { labels, values })
    }

    fn series_values_begin(&mut self) -> Parsed<()> {
        while !matches!(self.peek(), Kind::Eof | Kind::Failed | Kind::Space) {
            self.reject()?;
        }
        Ok(())
    }

    /// One value, or several by repetition; a token that starts one is next.
    fn series_item(&mut self, values: &mut Vec<SequenceValue>) -> Parsed<()> {
        match self.peek() {
            Kind::Blank => {
                self.advance();
                let count = if self.accept(Kind::Times).is_some() { self.uint()? } else { 1 };
                self.extend(values, count, std::iter::repeat(SequenceValue::Omitted))
            }
            Kind::OpenHistogram => self.histogram_item(values),
            _ => self.float_item(values),
        }
    }

    /// A float, alone or repeated with an increment. A repetition yields one value more than it says, that of time zero.
    fn float_item(&mut self, values: &mut Vec<SequenceValue>) -> Parsed<()> {
        let mut value = self.series_value()?;
        let mut step = None;
        if self.peek().is_sign() {
            step = Some(self.signed_number()?);
            self.expect(Kind::Times)?;
        } else if self.accept(Kind::Times).is_none() {
            values.push(SequenceValue::Float(value));
            return Ok(());
        }
        let count = self.uint()?.saturating_add(1);
        let series = std::iter::from_fn(|| {
            let current = value;
            if let Some(step) = step {
                value += step;
            }
            Some(SequenceValue::Float(current))
        });
        self.extend(values, count, series)
    }

    fn series_value(&mut self) -> Parsed<f64> {
        if self.peek() == Kind::Identifier {
            let word = self.advance();
            if self.text(word) != "stale" {
                self.unexpected(SERIES_VALUES, "number or \"stale\"");
            }
            return Ok(sample::stale_nan());
        }
        self.signed_or_unsigned_number()
    }

    /// A histogram, alone, repeated, or with an increment or decrement.
    fn histogram_item(&mut self, values: &mut Vec<SequenceValue>) -> Parsed<()> {
        let (base, hint_set) = self.histogram_series_value()?;
        let factor = match self.peek() {
            Kind::Times => {
                self.advance();
                let count = self.uint()?.saturating_add(1);
                return self.extend(values, count, std::iter::repeat(histogram_value(base, hint_set)));
            }
            Kind::Op(BinaryOp::Add) => 1.0,
            Kind::Op(BinaryOp::Sub) => -1.0,
            _ => {
                values.push(histogram_value(base, hint_set));
                return Ok(());
            }
        };
        self.advance();
        let (step, hint_set) = self.histogram_series_value()?;
        self.expect(Kind::Times)?;
        let count = self.uint()?;
        self.histogram_series(values, HistogramSeries { base, step, factor, count, hint_set })
    }

    fn histogram_series(&mut self, values: &mut Vec<SequenceValue>, series: HistogramSeries) -> Parsed<()> {
        let HistogramSeries { base, step, factor, count, hint_set } = series;
        let size =
            1 + [&base, &step].map(|h| h.positive_buckets.len() + h.negative_buckets.len()).iter().sum::<usize>();
        self.charge(values.len(), count.saturating_add(1).saturating_mul(size as u64))?;
        let mut current = base;
        values.push(histogram_value(current.clone(), hint_set));
        for _ in 0..count {
            if step.schema < current.schema {
                let (from, to) = (step.schema, current.schema);
                let problem = format!("error combining histograms: cannot merge from schema {from} to {to}");
                self.error(range_of(self.last), problem);
                break;
            }
            let combined = if factor < 0.0 { current.sub(&step) } else { current.add(&step) };
            if let Err(error) = combined {
                self.error(range_of(self.last), error.to_string());
                break;
            }
            values.push(histogram_value(current.clone(), hint_set));
        }
        Ok(())
    }

    /// Appends `count` values.
    fn extend(
        &mut self,
        values: &mut Vec<SequenceValue>,
        count: u64,
        series: impl Iterator<Item = SequenceValue>,
    ) -> Parsed<()> {
        self.charge(values.len(), count)?;
        values.extend((0..count).zip(series).map(|(_, value)| value));
        Ok(())
    }

    /// Ends the parse if `more` values do not fit behind those that there are.
    fn charge(&mut self, len: usize, more: u64) -> Parsed<()> {
        if SEQUENCE_LEN_MAX < more.saturating_add(len as u64) {
            let problem = format!("series description stands for more than {SEQUENCE_LEN_MAX} values");
            self.error(range_of(self.last), problem);
            return Err(super::Stop::Abort);
        }
        Ok(())
    }

    /// A whole number without sign.
    pub(super) fn uint(&mut self) -> Parsed<u64> {
        let token = self.expect(Kind::Number)?;
        Ok(self.uint_value(token))
    }

    pub(super) fn uint_value(&mut self, token: Token) -> u64 {
        let text = self.text(token);
        text.parse().unwrap_or_else(|_| {
            let all_digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
            let reason = if all_digits { "value out of range" } else { "invalid syntax" };
            let problem = format!("strconv.ParseUint: parsing {}: {reason}", go::quote(text));
            self.error(range_of(token), format!("invalid repetition in series values: {problem}"));
            0
        })
    }
}

/// A histogram that grows by `factor` times `step`, `count` times.
struct HistogramSeries {
    base: FloatHistogram,
    step: FloatHistogram,
    factor: f64,
    count: u64,
    hint_set: bool,
}

fn starts_item(kind: Kind) -> bool {
    kind.is_sign()
        || matches!(kind, Kind::Blank | Kind::Duration | Kind::Identifier | Kind::OpenHistogram | Kind::Number)
}

fn histogram_value(histogram: FloatHistogram, counter_reset_hint_set: bool) -> SequenceValue {
    SequenceValue::Histogram { histogram: Arc::new(histogram), counter_reset_hint_set }
}
