//! Histograms in series descriptions: `{{schema:1 sum:3 count:22 buckets:[5 10 7] offset:-3}}`.

use super::{Parsed, Parser, range_of};
use crate::model::histogram::{CounterResetHint, FloatHistogram, Span};
use crate::promql::ast::{BinaryOp, PosRange};
use crate::promql::lexer::{Descriptor, Kind, ResetHint};

/// A histogram while its keys are read.
#[derive(Default)]
struct Builder {
    histogram: FloatHistogram,
    offset: i32,
    negative_offset: i32,
    seen: Vec<Descriptor>,
}

impl Parser<'_> {
    /// A histogram, and whether its counter reset hint was written down; `{{` is next or missing.
    pub(super) fn histogram_series_value(&mut self) -> Parsed<(FloatHistogram, bool)> {
        self.expect(Kind::OpenHistogram)?;
        let mut builder = Builder::default();
        loop {
            match self.peek() {
                Kind::Space => {
                    self.advance();
                    self.expect(Kind::CloseHistogram)?;
                    break;
                }
                Kind::CloseHistogram => {
                    self.advance();
                    break;
                }
                Kind::Descriptor(_) => {
                    self.histogram_desc_item(&mut builder)?;
                    self.histogram_desc_rest(&mut builder)?;
                    break;
                }
                _ => self.reject()?,
            }
        }
        let hint_set = builder.seen.contains(&Descriptor::CounterResetHint);
        Ok((builder.build(), hint_set))
    }

    /// What follows the first key, up to `}}`.
    fn histogram_desc_rest(&mut self, builder: &mut Builder) -> Parsed<()> {
        const CONTEXT: &str = "histogram description";
        const EXPECTED: &str = "histogram description key, e.g. buckets:[5 10 7]";
        loop {
            let item = self.histogram_desc_next(builder);
            if self.recover(item, CONTEXT, EXPECTED)? == Some(true) {
                return Ok(());
            }
        }
    }

    /// The next key, or `}}`: true at the end.
    fn histogram_desc_next(&mut self, builder: &mut Builder) -> Parsed<bool> {
        while self.accept(Kind::Space).is_none() {
            if self.accept(Kind::CloseHistogram).is_some() {
                return Ok(true);
            }
            self.reject()?;
        }
        loop {
            match self.peek() {
                Kind::CloseHistogram => {
                    self.advance();
                    return Ok(true);
                }
                Kind::Descriptor(_) => return self.histogram_desc_item(builder).map(|()| false),
                _ => self.reject()?,
            }
        }
    }

    /// A key, a colon and the value; the key is next.
    fn histogram_desc_item(&mut self, builder: &mut Builder) -> Parsed<()> {
        let key = self.advance();
        let Kind::Descriptor(descriptor) = key.kind else { return Ok(()) };
        self.expect(Kind::Colon)?;
        let mut parsed = Builder::default();
        let histogram = &mut parsed.histogram;
        match descriptor {
            Descriptor::Schema => histogram.schema = self.int()?,
            Descriptor::Offset => parsed.offset = self.int()?,
            Descriptor::NegativeOffset => parsed.negative_offset = self.int()?,
            Descriptor::Sum => histogram.sum = self.signed_or_unsigned_number()?,
            Descriptor::Count => histogram.count = self.signed_or_unsigned_number()?,
            Descriptor::ZeroBucket => histogram.zero_count = self.signed_or_unsigned_number()?,
            Descriptor::ZeroBucketWidth => histogram.zero_threshold = self.number()?,
            Descriptor::CustomValues => histogram.custom_values = self.bucket_set()?,
            Descriptor::Buckets => histogram.positive_buckets = self.bucket_set()?,
            Descriptor::NegativeBuckets => histogram.negative_buckets = self.bucket_set()?,
            Descriptor::CounterResetHint => histogram.counter_reset_hint = self.counter_reset_hint()?,
        }
        if builder.seen.contains(&descriptor) {
            let name = self.text(key).to_ascii_lowercase();
            self.error(PosRange::default(), format!("duplicate key \"{name}\" in histogram"));
            return Ok(());
        }
        builder.take(descriptor, parsed);
        Ok(())
    }

    /// A whole number, optionally with a minus sign.
    fn int(&mut self) -> Parsed<i32> {
        let negative = loop {
            match self.peek() {
                Kind::Number => break false,
                Kind::Op(BinaryOp::Sub) => {
                    self.advance();
                    break true;
                }
                _ => self.reject()?,
            }
        };
        let magnitude = self.uint()?;
        let value = i64::try_from(magnitude).ok().and_then(|m| i32::try_from(if negative { -m } else { m }).ok());
        Ok(value.unwrap_or_else(|| {
            self.error(range_of(self.last), "schema or offset of a histogram does not fit into 32 bits");
            0
        }))
    }

    fn counter_reset_hint(&mut self) -> Parsed<CounterResetHint> {
        loop {
            if let Kind::ResetHint(hint) = self.peek() {
                self.advance();
                return Ok(match hint {
                    ResetHint::Unknown => CounterResetHint::Unknown,
                    ResetHint::Reset => CounterResetHint::Reset,
                    ResetHint::NotReset => CounterResetHint::NotReset,
                    ResetHint::Gauge => CounterResetHint::Gauge,
                });
            }
            self.reject()?;
        }
    }

    /// Numbers in brackets, at least one.
    fn bucket_set(&mut self) -> Parsed<Vec<f64>> {
        self.expect(Kind::LeftBracket)?;
        let mut buckets = vec![self.signed_or_unsigned_number()?];
        loop {
            let next = self.next_bucket();
            // Prometheus drops what does not fit here without a word.
            match self.catch(next)? {
                Some(Some(bucket)) => buckets.push(bucket),
                Some(None) => return Ok(buckets),
                None => {}
            }
        }
    }

    /// A space and a number, or `None` at the right bracket.
    fn next_bucket(&mut self) -> Parsed<Option<f64>> {
        while self.accept(Kind::Space).is_none() {
            if self.accept(Kind::RightBracket).is_some() {
                return Ok(None);
            }
            self.reject()?;
        }
        loop {
            match self.peek() {
                Kind::RightBracket => {
                    self.advance();
                    return Ok(None);
                }
                kind if kind.is_sign() || matches!(kind, Kind::Number | Kind::Duration) => {
                    return self.signed_or_unsigned_number().map(Some);
                }
                _ => self.reject()?,
            }
        }
    }
}

impl Builder {
    /// Takes over the value of one key.
    fn take(&mut self, key: Descriptor, parsed: Self) {
        let (into, from) = (&mut self.histogram, parsed.histogram);
        match key {
            Descriptor::Schema => into.schema = from.schema,
            Descriptor::Offset => self.offset = parsed.offset,
            Descriptor::NegativeOffset => self.negative_offset = parsed.negative_offset,
            Descriptor::Sum => into.sum = from.sum,
            Descriptor::Count => into.count = from.count,
            Descriptor::ZeroBucket => into.zero_count = from.zero_count,
            Descriptor::ZeroBucketWidth => into.zero_threshold = from.zero_threshold,
            Descriptor::CustomValues => into.custom_values = from.custom_values,
            Descriptor::Buckets => into.positive_buckets = from.positive_buckets,
            Descriptor::NegativeBuckets => into.negative_buckets = from.negative_buckets,
            Descriptor::CounterResetHint => into.counter_reset_hint = from.counter_reset_hint,
        }
        self.seen.push(key);
    }

    fn build(self) -> FloatHistogram {
        let mut histogram = self.histogram;
        histogram.positive_spans = spans(self.offset, histogram.positive_buckets.len());
        histogram.negative_spans = spans(self.negative_offset, histogram.negative_buckets.len());
        histogram
    }
}

/// One span over all buckets, or none.
fn spans(offset: i32, len: usize) -> Vec<Span> {
    match u32::try_from(len) {
        Ok(0) => Vec::new(),
        length => vec![Span { offset, length: length.unwrap_or(u32::MAX) }],
    }
}
