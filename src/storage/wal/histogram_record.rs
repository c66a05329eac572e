//! Records of native histograms.
//!
//! ```text
//! 7 whole, 9 whole with listed bounds, 8 float, 10 float with listed bounds
//!    ref₀ u64, t₀ u64, { varint(ref − ref₀), varint(t − t₀), histogram } …       the first counts as well
//! 12 whole, 13 float, with start times
//!    varint ref₀, varint t₀, varint st₀, histogram, { varint(ref − last ref), varint(t − t₀), start, histogram } …
//!    start      0 none │ 1 as before │ 2 varint(st − st₀)
//! histogram  hint u8, schema varint, threshold u64, zero count, count, sum u64, positive spans, negative spans,
//!            positive buckets, negative buckets, bounds (u64 each) if they are listed
//!    counts     whole: uvarint, buckets varint │ float: u64
//!    lists      n uvarint, n × element       a span is offset varint, length uvarint
//! ```

use std::collections::HashMap;

use crate::model::append::HistogramValue;
use crate::model::histogram::{CUSTOM_BUCKETS_SCHEMA, CounterResetHint, FloatHistogram, Histogram, Span};
use crate::model::sample::SeriesRef;
use crate::storage::wal::held::Held;
use crate::storage::wal::record::{
    RECORD_LEN_TARGET, Record, RecordError, put_uvarint, put_varint, take_u64, take_uvarint, take_varint,
};
use crate::storage::wal::start_record::{Starting, put_start, take_start};

/// Types of records: by listed bounds (no, yes) for each kind.
const WHOLE: [u8; 2] = [7, 9];
const FLOAT: [u8; 2] = [8, 10];
const WHOLE_WITH_STARTS: u8 = 12;
const FLOAT_WITH_STARTS: u8 = 13;
/// Finest resolution that is taken in; finer ones, of later versions, are reduced to it.
const SCHEMA_MAX: i32 = 8;
/// Finest resolution of later versions that is known.
const SCHEMA_KNOWN_MAX: i32 = 52;

/// A histogram as the log names it.
#[derive(Clone, Debug, PartialEq)]
pub struct RefHistogram {
    /// The series.
    pub series: SeriesRef,
    /// Milliseconds since the epoch.
    pub t: i64,
    /// The histogram.
    pub value: HistogramValue,
}

fn record_type(value: &HistogramValue) -> u8 {
    let is_custom = value.uses_custom_buckets();
    let [plain, custom] = if matches!(value, HistogramValue::Integer(_)) { WHOLE } else { FLOAT };
    if is_custom { custom } else { plain }
}

/// Records under way, one of each type.
#[derive(Default)]
struct Open {
    records: [OpenRecord; 4],
    /// The type of each series' histograms.
    types: HashMap<SeriesRef, u8, foldhash::fast::FixedState>,
}

#[derive(Default)]
struct OpenRecord {
    base: (u64, i64),
    bytes: Vec<u8>,
    held: Held,
}

/// Order in which records of different types are written.
const ORDER: [u8; 4] = [7, 9, 8, 10];

impl Open {
    fn flush(&mut self, out: &mut Vec<Record>) {
        for record in &mut self.records {
            if !record.bytes.is_empty() {
                out.push(Record::holding(std::mem::take(&mut record.held), std::mem::take(&mut record.bytes)));
            }
        }
        self.types.clear();
    }
}

/// Encodes histograms in records of each type. A series whose histograms change their type begins new ones, so that a reader
/// finds them in their order.
pub fn encode_histograms<'a>(
    histograms: impl IntoIterator<Item = (SeriesRef, i64, &'a HistogramValue)>,
    out: &mut Vec<Record>,
) {
    let mut open = Open::default();
    for (series, t, value) in histograms {
        let kind = record_type(value);
        if open.types.get(&series).is_some_and(|before| *before != kind) {
            open.flush(out);
        }
        open.types.insert(series, kind);
        let Some(record) = ORDER.iter().position(|k| *k == kind).and_then(|place| open.records.get_mut(place)) else {
            continue;
        };
        if record.bytes.is_empty() {
            record.base = (series.0, t);
            record.bytes.push(kind);
            record.bytes.extend_from_slice(&series.0.to_be_bytes());
            record.bytes.extend_from_slice(&t.to_be_bytes());
        }
        put_varint(series.0.wrapping_sub(record.base.0).cast_signed(), &mut record.bytes);
        put_varint(t.wrapping_sub(record.base.1), &mut record.bytes);
        put_histogram(value, &mut record.bytes);
        record.held.sample(t);
        if RECORD_LEN_TARGET <= record.bytes.len() {
            open.flush(out);
        }
    }
    open.flush(out);
}

/// Encodes histograms with their start times, those with whole counts and those with float counts in records of their own. A
/// series whose histograms change their type begins new ones.
pub fn encode_started_histograms<'a>(
    histograms: impl IntoIterator<Item = (SeriesRef, i64, i64, &'a HistogramValue)>,
    out: &mut Vec<Record>,
) {
    let mut open: [(Vec<u8>, Held, Starting); 2] = Default::default();
    let mut types: HashMap<SeriesRef, u8, foldhash::fast::FixedState> = HashMap::default();
    let flush = |open: &mut [(Vec<u8>, Held, Starting); 2], out: &mut Vec<Record>| {
        let records = open.iter_mut().map(|(bytes, held, _)| (std::mem::take(held), std::mem::take(bytes)));
        out.extend(records.filter(|(_, bytes)| !bytes.is_empty()).map(|(held, bytes)| Record::holding(held, bytes)));
    };
    for (series, t, start, value) in histograms {
        let is_whole = matches!(value, HistogramValue::Integer(_));
        let kind = if is_whole { WHOLE_WITH_STARTS } else { FLOAT_WITH_STARTS };
        if types.insert(series, kind).is_some_and(|before| before != kind) {
            flush(&mut open, out);
            types.clear();
            types.insert(series, kind);
        }
        let [whole, float] = &mut open;
        let (bytes, held, at) = if is_whole { whole } else { float };
        held.sample(t);
        let is_first = bytes.is_empty();
        if is_first {
            bytes.push(kind);
        }
        put_start(at, is_first, (series.0, t, start), bytes);
        match value {
            HistogramValue::Integer(histogram) => put_whole(histogram, bytes),
            HistogramValue::Float(histogram) => put_float(histogram, bytes),
        }
        if RECORD_LEN_TARGET <= bytes.len() {
            flush(&mut open, out);
            types.clear();
        }
    }
    flush(&mut open, out);
}

/// Appends a histogram.
pub(crate) fn put_histogram(value: &HistogramValue, out: &mut Vec<u8>) {
    match value {
        HistogramValue::Integer(histogram) => put_whole(histogram, out),
        HistogramValue::Float(histogram) => put_float(histogram, out),
    }
}

fn put_head(hint: CounterResetHint, schema: i32, zero_threshold: f64, out: &mut Vec<u8>) {
    out.push(match hint {
        CounterResetHint::Unknown => 0,
        CounterResetHint::Reset => 1,
        CounterResetHint::NotReset => 2,
        CounterResetHint::Gauge => 3,
    });
    put_varint(i64::from(schema), out);
    put_f64(zero_threshold, out);
}

fn put_f64(value: f64, out: &mut Vec<u8>) {
    out.extend_from_slice(&value.to_bits().to_be_bytes());
}

fn put_spans(spans: &[Span], out: &mut Vec<u8>) {
    put_uvarint(spans.len() as u64, out);
    for span in spans {
        put_varint(i64::from(span.offset), out);
        put_uvarint(u64::from(span.length), out);
    }
}

fn put_floats(values: &[f64], out: &mut Vec<u8>) {
    put_uvarint(values.len() as u64, out);
    values.iter().for_each(|value| put_f64(*value, out));
}

fn put_deltas(values: &[i64], out: &mut Vec<u8>) {
    put_uvarint(values.len() as u64, out);
    values.iter().for_each(|value| put_varint(*value, out));
}

fn put_whole(histogram: &Histogram, out: &mut Vec<u8>) {
    put_head(histogram.counter_reset_hint, histogram.schema, histogram.zero_threshold, out);
    put_uvarint(histogram.zero_count, out);
    put_uvarint(histogram.count, out);
    put_f64(histogram.sum, out);
    put_spans(&histogram.positive_spans, out);
    put_spans(&histogram.negative_spans, out);
    put_deltas(&histogram.positive_buckets, out);
    put_deltas(&histogram.negative_buckets, out);
    if histogram.uses_custom_buckets() {
        put_floats(&histogram.custom_values, out);
    }
}

fn put_float(histogram: &FloatHistogram, out: &mut Vec<u8>) {
    put_head(histogram.counter_reset_hint, histogram.schema, histogram.zero_threshold, out);
    put_f64(histogram.zero_count, out);
    put_f64(histogram.count, out);
    put_f64(histogram.sum, out);
    put_spans(&histogram.positive_spans, out);
    put_spans(&histogram.negative_spans, out);
    put_floats(&histogram.positive_buckets, out);
    put_floats(&histogram.negative_buckets, out);
    if histogram.uses_custom_buckets() {
        put_floats(&histogram.custom_values, out);
    }
}

/// Appends the histograms of a record of any of their types to `out`, which on an error is as before. Start times are passed
/// over.
pub fn decode_histograms(bytes: &[u8], out: &mut Vec<RefHistogram>) -> Result<(), RecordError> {
    decode_started_histograms(bytes, out, &mut Vec::new())
}

/// The same, with the start of each histogram in `starts` if the record has them.
pub fn decode_started_histograms(
    bytes: &[u8],
    out: &mut Vec<RefHistogram>,
    starts: &mut Vec<i64>,
) -> Result<(), RecordError> {
    let before = out.len();
    let done = read(bytes, out, starts);
    if done.is_none() {
        out.truncate(before);
    }
    done.ok_or(RecordError::Malformed { kind: "histograms" })
}

fn read(bytes: &[u8], out: &mut Vec<RefHistogram>, starts: &mut Vec<i64>) -> Option<()> {
    let (kind, mut rest) = bytes.split_first()?;
    if rest.is_empty() {
        return Some(());
    }
    let is_whole = WHOLE.contains(kind) || *kind == WHOLE_WITH_STARTS;
    if [WHOLE_WITH_STARTS, FLOAT_WITH_STARTS].contains(kind) {
        let mut at = Starting::default();
        let mut is_first = true;
        while !rest.is_empty() {
            let (series, t, start) = take_start(&mut at, is_first, &mut rest)?;
            is_first = false;
            out.push(RefHistogram { series: SeriesRef(series), t, value: take_value(is_whole, &mut rest)? });
            starts.push(start);
        }
        return Some(());
    }
    if !WHOLE.contains(kind) && !FLOAT.contains(kind) {
        return None;
    }
    let (base_ref, base_t) = (take_u64(&mut rest)?, take_u64(&mut rest)?.cast_signed());
    while !rest.is_empty() {
        let series = SeriesRef(base_ref.wrapping_add(take_varint(&mut rest)?.cast_unsigned()));
        let t = base_t.wrapping_add(take_varint(&mut rest)?);
        out.push(RefHistogram { series, t, value: take_value(is_whole, &mut rest)? });
    }
    Some(())
}

pub(crate) fn take_value(is_whole: bool, rest: &mut &[u8]) -> Option<HistogramValue> {
    // One of a schema that is not known stays as it is, which is no good.
    if is_whole {
        let mut histogram = take_whole(rest)?;
        if histogram.schema <= SCHEMA_KNOWN_MAX {
            histogram.reduce_resolution(SCHEMA_MAX);
        }
        return Some(histogram.into());
    }
    let mut histogram = take_float(rest)?;
    if histogram.schema <= SCHEMA_KNOWN_MAX {
        histogram.reduce_resolution(SCHEMA_MAX);
    }
    Some(histogram.into())
}

fn take_f64(rest: &mut &[u8]) -> Option<f64> {
    take_u64(rest).map(f64::from_bits)
}

fn take_head(rest: &mut &[u8]) -> Option<(CounterResetHint, i32, f64)> {
    let (hint, after) = rest.split_first()?;
    *rest = after;
    let hint = match hint {
        1 => CounterResetHint::Reset,
        2 => CounterResetHint::NotReset,
        3 => CounterResetHint::Gauge,
        _ => CounterResetHint::Unknown,
    };
    Some((hint, i32::try_from(take_varint(rest)?).ok()?, take_f64(rest)?))
}

/// A list whose elements take `element_len` bytes each at least: what is left bounds how many there are.
fn take_list<T>(rest: &mut &[u8], element_len: usize, mut take: impl FnMut(&mut &[u8]) -> Option<T>) -> Option<Vec<T>> {
    let count = usize::try_from(take_uvarint(rest)?).ok()?;
    if rest.len() / element_len < count {
        return None;
    }
    (0..count).map(|_| take(rest)).collect()
}

fn take_span(rest: &mut &[u8]) -> Option<Span> {
    let offset = i32::try_from(take_varint(rest)?).ok()?;
    Some(Span { offset, length: u32::try_from(take_uvarint(rest)?).ok()? })
}

fn take_whole(rest: &mut &[u8]) -> Option<Histogram> {
    let (counter_reset_hint, schema, zero_threshold) = take_head(rest)?;
    Some(Histogram {
        counter_reset_hint,
        schema,
        zero_threshold,
        zero_count: take_uvarint(rest)?,
        count: take_uvarint(rest)?,
        sum: take_f64(rest)?,
        positive_spans: take_list(rest, 2, take_span)?,
        negative_spans: take_list(rest, 2, take_span)?,
        positive_buckets: take_list(rest, 1, take_varint)?,
        negative_buckets: take_list(rest, 1, take_varint)?,
        custom_values: if schema == CUSTOM_BUCKETS_SCHEMA { take_list(rest, 8, take_f64)? } else { Vec::new() },
    })
}

fn take_float(rest: &mut &[u8]) -> Option<FloatHistogram> {
    let (counter_reset_hint, schema, zero_threshold) = take_head(rest)?;
    Some(FloatHistogram {
        counter_reset_hint,
        schema,
        zero_threshold,
        zero_count: take_f64(rest)?,
        count: take_f64(rest)?,
        sum: take_f64(rest)?,
        positive_spans: take_list(rest, 2, take_span)?,
        negative_spans: take_list(rest, 2, take_span)?,
        positive_buckets: take_list(rest, 8, take_f64)?,
        negative_buckets: take_list(rest, 8, take_f64)?,
        custom_values: if schema == CUSTOM_BUCKETS_SCHEMA { take_list(rest, 8, take_f64)? } else { Vec::new() },
    })
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn spans() -> impl Strategy<Value = Vec<Span>> {
        vec((any::<i32>(), any::<u32>()).prop_map(|(offset, length)| Span { offset, length }), 0..4)
    }

    fn value() -> impl Strategy<Value = HistogramValue> {
        let numbers = (any::<u64>(), any::<u64>(), -1e9..1e9f64, vec(any::<i64>(), 0..5), vec(0f64..1e9, 0..4));
        (any::<bool>(), any::<bool>(), 0usize..4, numbers, spans(), spans()).prop_map(
            |(is_whole, is_custom, hint, (count, zero, sum, deltas, bounds), positive, negative)| {
                use CounterResetHint::{Gauge, NotReset, Reset, Unknown};
                let whole = Histogram {
                    counter_reset_hint: [Unknown, Reset, NotReset, Gauge][hint],
                    schema: if is_custom { CUSTOM_BUCKETS_SCHEMA } else { 3 },
                    zero_threshold: 0.5,
                    zero_count: zero,
                    count,
                    sum,
                    positive_spans: positive,
                    positive_buckets: deltas.clone(),
                    negative_spans: negative,
                    negative_buckets: deltas,
                    custom_values: if is_custom { bounds } else { Vec::new() },
                };
                if is_whole { whole.into() } else { whole.to_float().into() }
            },
        )
    }

    proptest! {
        #[test]
        fn histograms_round_trip(all in vec((0u64..5, any::<i64>(), value()), 0..20)) {
            let mut records = Vec::new();
            encode_histograms(all.iter().map(|(r, t, value)| (SeriesRef(*r), *t, value)), &mut records);
            let mut back = Vec::new();
            for record in &records {
                decode_histograms(record.as_bytes(), &mut back).unwrap();
            }
            prop_assert_eq!(back.len(), all.len());
            // Each series' histograms come back in their order.
            for series in 0..5 {
                let own = back.iter().filter(|h| h.series.0 == series).map(|h| (h.t, &h.value));
                prop_assert!(own.eq(all.iter().filter(|(r, ..)| *r == series).map(|(_, t, value)| (*t, value))));
            }
        }

        #[test]
        fn started_histograms_round_trip(all in vec((0u64..5, any::<i64>(), 0i64..3, value()), 0..20)) {
            let mut records = Vec::new();
            let listed = all.iter().map(|(r, t, start, value)| (SeriesRef(*r), *t, *start, value));
            encode_started_histograms(listed, &mut records);
            let (mut back, mut starts) = (Vec::new(), Vec::new());
            for record in &records {
                decode_started_histograms(record.as_bytes(), &mut back, &mut starts).unwrap();
            }
            prop_assert_eq!((back.len(), starts.len()), (all.len(), all.len()));
            for series in 0..5 {
                let own = back.iter().zip(&starts).filter(|(h, _)| h.series.0 == series);
                let expected = all.iter().filter(|(r, ..)| *r == series).map(|(_, t, start, value)| (*t, *start, value));
                prop_assert!(own.map(|(h, start)| (h.t, *start, &h.value)).eq(expected));
            }
        }

        #[test]
        fn decoders_never_panic(mut bytes in vec(any::<u8>(), 0..200), kind in 6u8..14) {
            bytes.insert(0, kind);
            let mut out = Vec::new();
            prop_assert!(decode_histograms(&bytes, &mut out).is_ok() || out.is_empty());
        }
    }
}
