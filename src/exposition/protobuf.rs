//! Reader of the delimited protobuf format: `io.prometheus.client.MetricFamily` messages, each after its length.
//!
//! Data flow: `scrape` gives [`FamilyReader::step`] the bytes that are there → it reads one field of a family, at most a
//! metric, and hands out metadata and series, classic histograms and summaries as the series that they are in text.
//! Nothing is allocated for a series. Native histograms are handed out as such where they are wanted.
//!
//! A family of up to [`HELD_LEN_MAX`] bytes is waited for and checked whole first, as in Prometheus. A longer one is never
//! held: its name and type must stand before its metrics, as encoders write them, in the order of their numbers.
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

mod message;
mod native;

use crate::exposition::exemplar::RawExemplar;
use crate::exposition::packed;
use crate::exposition::protobuf::message::{Histogram, Summary, bucket, metric, native_exemplars, quantile};
use crate::exposition::text::{FamilyKind, SeriesLine, format_bound};
use crate::model::append::HistogramValue;
use crate::model::go;
use crate::model::wire::{Fields, Value, WireError, varint};

/// Longest length before a family, in bytes.
const FRAME_HEAD_LEN_MAX: usize = 5;

/// Longest family that is held, in bytes.
pub const HELD_LEN_MAX: usize = 64 << 10;
const HELD_LEN_MAX_U64: u64 = HELD_LEN_MAX as u64;

/// Why a body is refused. The texts are Prometheus's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtobufError {
    /// No length before a family.
    #[error("clientpb: invalid varint encountered")]
    InvalidVarint,
    /// The body ends within a family.
    #[error("clientpb: insufficient length of buffer, expected at least {expected} bytes, got {got} bytes")]
    Cut {
        /// Bytes of the family with its length.
        expected: u64,
        /// Bytes there.
        got: usize,
    },
    /// Name, help or type of a long family after its metrics. Prometheus takes them in any order.
    #[error("proto: MetricFamily: field {0} comes after metrics")]
    OutOfOrder(i32),
    /// A malformed message.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// A family name that is empty or not UTF-8.
    #[error("invalid metric name: {0}")]
    InvalidName(String),
    /// A help text that is not UTF-8.
    #[error("invalid help for metric {}: {help}", go::quote(.name))]
    InvalidHelp {
        /// Family name.
        name: String,
        /// The text, with replacement characters.
        help: String,
    },
    /// A type that is not known.
    #[error("unknown metric type for metric {}: {kind}", go::quote(.name))]
    UnknownType {
        /// Family name.
        name: String,
        /// Its number.
        kind: u64,
    },
    /// A label name that is empty or not UTF-8.
    #[error("invalid label name: {0}")]
    InvalidLabelName(String),
    /// A label value that is not UTF-8.
    #[error("invalid label value: {0}")]
    InvalidLabelValue(String),
    /// Spans that do not fit the buckets of a native histogram.
    #[error("histogram {}: {side} side: spans require {expected} buckets, have {found}", go::quote(.name))]
    Spans {
        /// Family name.
        name: String,
        /// `positive` or `negative`.
        side: &'static str,
        /// Buckets that the spans cover.
        expected: u64,
        /// Buckets there.
        found: u64,
    },
}

/// What becomes of the native part of histograms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NativePart {
    /// It is not looked at: every histogram is a classic one.
    Ignored,
    /// A histogram that has one is handed out as a native one.
    Wanted,
    /// The same, with the classic part behind it where there is one.
    WithClassic,
}

/// One thing that a family says. Bytes are those of [`packed`], comparable with those of the last scrape.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Item<'a> {
    /// Help text; only if there is one.
    Help {
        /// Family and text.
        raw: &'a [u8],
    },
    /// Unit; only if there is one, after the series.
    Unit {
        /// Family and unit.
        raw: &'a [u8],
    },
    /// Type; always, before the first series.
    Type {
        /// The type.
        kind: FamilyKind,
        /// Family and type.
        raw: &'a [u8],
    },
    /// A sample.
    Series(SeriesLine<'a>),
    /// A native histogram.
    Native(NativeSample<'a>),
}

/// A native histogram of a series.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NativeSample<'a> {
    /// Metric and labels.
    pub raw: &'a [u8],
    /// The histogram, not validated.
    pub histogram: &'a HistogramValue,
    /// Milliseconds since the epoch, if there is a time stamp.
    pub timestamp_ms: Option<i64>,
    /// The exemplars that have a time; others are not taken, as in Prometheus.
    pub exemplars: &'a [RawExemplar<'a>],
    /// The time at which it began to count.
    pub start_ms: Option<i64>,
}

type Sink<'s, E> = dyn FnMut(Item<'_>) -> Result<(), E> + 's;

/// Reads families, field by field.
#[derive(Debug, Default)]
pub struct FamilyReader {
    place: Place,
    family: Family,
    writer: Writer,
}

/// Where in a body the reader is.
#[derive(Clone, Copy, Debug, Default)]
enum Place {
    /// In front of the length of a family.
    #[default]
    Between,
    /// In front of a family that is held; it takes `len` bytes, its length included, of which `left` were not read.
    Waiting { len: u64, left: u64 },
    /// Within a family. `checked` says that it was held; the type is set from the first metric on.
    Within { len: u64, left: u64, checked: bool, kind: Option<FamilyKind> },
}

/// What a family says beside its metrics.
#[derive(Debug, Default)]
struct Family {
    name: Vec<u8>,
    help: Vec<u8>,
    unit: Vec<u8>,
    kind: u64,
}

/// Builds what is handed out.
#[derive(Debug, Default)]
struct Writer {
    raw: Vec<u8>,
    labels: Vec<u8>,
}

impl FamilyReader {
    /// Reads the length of a family or one field of it at the start of `buf`; answers how many bytes that took, or `None`
    /// if there are too few.
    pub fn step<E: From<ProtobufError>>(
        &mut self,
        buf: &[u8],
        native: NativePart,
        sink: &mut Sink<'_, E>,
    ) -> Result<Option<usize>, E> {
        let (len, left, checked, mut kind) = match self.place {
            Place::Between => return Ok(self.begin(buf)?),
            Place::Waiting { len, left } => {
                let whole = usize::try_from(left).ok().and_then(|left| buf.get(..left));
                let Some(message) = whole else { return Ok(None) };
                self.family.read(message).map_err(wire)?;
                (len, left, true, None)
            }
            Place::Within { len, left, checked, kind } => (len, left, checked, kind),
        };
        let window = usize::try_from(left).ok().and_then(|left| buf.get(..left)).unwrap_or(buf);
        let is_whole = window.len() as u64 == left;
        let mut fields = Fields::new("MetricFamily", window);
        let (field, value) = match fields.next() {
            Ok(Some(next)) => next,
            Ok(None) => return Ok(None),
            Err(WireError::Cut) if !is_whole => return Ok(None),
            Err(error) => return Err(wire(error).into()),
        };
        if !checked && kind.is_some() && matches!(field, 1..=3) {
            return Err(ProtobufError::OutOfOrder(field).into());
        }
        match field {
            1 | 2 | 3 | 5 => self.family.set(field, value).map_err(wire)?,
            4 => {
                let metric = value.bytes("Metric").map_err(wire)?;
                let kind = match kind {
                    Some(kind) => kind,
                    None => *kind.insert(self.writer.begin(&self.family, metric, sink)?),
                };
                self.writer.metric(&self.family, kind, metric, native, sink)?;
            }
            _ => match fields.step_over() {
                Err(WireError::Cut) if !is_whole => return Ok(None),
                stepped => stepped.map_err(wire)?,
            },
        }
        let read = window.len() - fields.rest_len();
        let left = left.saturating_sub(read as u64);
        self.place = if left == 0 { Place::Between } else { Place::Within { len, left, checked, kind } };
        if left == 0 && kind.is_some() {
            self.writer.end(&self.family, sink)?;
        }
        Ok(Some(read))
    }

    /// Errors if the body may not end here, with `rest` not read yet.
    pub fn finish(&self, rest: &[u8]) -> Result<(), ProtobufError> {
        match self.place {
            Place::Waiting { len, left } | Place::Within { len, left, .. } => {
                let got = usize::try_from(len.saturating_sub(left)).unwrap_or(usize::MAX).saturating_add(rest.len());
                Err(ProtobufError::Cut { expected: len, got })
            }
            Place::Between if rest.is_empty() => Ok(()),
            Place::Between => Err(ProtobufError::InvalidVarint),
        }
    }

    /// Reads the length of a family.
    fn begin(&mut self, buf: &[u8]) -> Result<Option<usize>, ProtobufError> {
        let head = buf.get(..FRAME_HEAD_LEN_MAX).unwrap_or(buf);
        let mut rest = head;
        match varint(&mut rest) {
            Ok(left) => {
                let head_len = head.len() - rest.len();
                self.family = Family::default();
                let len = left.saturating_add(head_len as u64);
                self.place = match left {
                    0 => Place::Between,
                    1..=HELD_LEN_MAX_U64 => Place::Waiting { len, left },
                    _ => Place::Within { len, left, checked: false, kind: None },
                };
                Ok(Some(head_len))
            }
            Err(WireError::Cut) if buf.len() < FRAME_HEAD_LEN_MAX => Ok(None),
            Err(_) => Err(ProtobufError::InvalidVarint),
        }
    }
}

impl Family {
    /// Reads everything but the metrics, which are only looked for.
    fn read(&mut self, message: &[u8]) -> Result<(), WireError> {
        let mut fields = Fields::new("MetricFamily", message);
        while let Some((field, value)) = fields.next()? {
            match field {
                1 | 2 | 3 | 5 => self.set(field, value)?,
                4 => drop(value.bytes("Metric")?),
                _ => {}
            }
        }
        Ok(())
    }

    fn set(&mut self, field: i32, value: Value<'_>) -> Result<(), WireError> {
        match field {
            1 => self.name = value.bytes("Name")?.to_vec(),
            2 => self.help = value.bytes("Help")?.to_vec(),
            3 => self.kind = value.varint("Type")?,
            _ => self.unit = value.bytes("Unit")?.to_vec(),
        }
        Ok(())
    }
}

impl Writer {
    /// Checks what stands before the first metric and hands it out; answers the type.
    fn begin<E: From<ProtobufError>>(
        &mut self,
        family: &Family,
        first: &[u8],
        sink: &mut Sink<'_, E>,
    ) -> Result<FamilyKind, E> {
        // Of two errors Prometheus tells that of the metric.
        let kind = check(family).map_err(|error| metric(first).err().map_or(error, wire))?;
        if !family.help.is_empty() {
            self.metadata(family, &family.help);
            sink(Item::Help { raw: &self.raw })?;
        }
        self.metadata(family, kind.name().as_bytes());
        sink(Item::Type { kind, raw: &self.raw })?;
        Ok(kind)
    }

    fn end<E>(&mut self, family: &Family, sink: &mut Sink<'_, E>) -> Result<(), E> {
        if family.unit.is_empty() || std::str::from_utf8(&family.unit).is_err() {
            return Ok(());
        }
        self.metadata(family, &family.unit);
        sink(Item::Unit { raw: &self.raw })
    }

    fn metadata(&mut self, family: &Family, text: &[u8]) {
        packed::start(&mut self.raw, &family.name, b"");
        packed::push(&mut self.raw, text);
    }

    fn metric<E: From<ProtobufError>>(
        &mut self,
        family: &Family,
        kind: FamilyKind,
        message: &[u8],
        native: NativePart,
        sink: &mut Sink<'_, E>,
    ) -> Result<(), E> {
        let metric = metric(message).map_err(wire)?;
        self.read_labels(message)?;
        let at = metric.timestamp_ms;
        match kind {
            FamilyKind::Counter => {
                let counter = &metric.counter;
                let (exemplar, start_ms) = (counter.exemplar, counter.start_ms);
                self.series(family, at, Part { exemplar, start_ms, ..Part::whole(counter.value) }, sink)
            }
            FamilyKind::Gauge => self.series(family, at, Part::whole(metric.gauge), sink),
            FamilyKind::Summary => self.summary(family, at, &metric.summary, sink),
            FamilyKind::Histogram | FamilyKind::GaugeHistogram => {
                let histogram = &metric.histogram;
                if native != NativePart::Ignored && histogram.is_native {
                    check_spans(family, histogram)?;
                    let read = native::read(histogram, kind == FamilyKind::GaugeHistogram).map_err(wire)?;
                    packed::start(&mut self.raw, &family.name, b"");
                    self.raw.extend_from_slice(&self.labels);
                    let mut found = Vec::new();
                    native_exemplars(histogram, &mut found).map_err(wire)?;
                    let found = found.into_iter().map(RawExemplar::Message).filter(RawExemplar::has_time);
                    let exemplars: Vec<_> = found.collect();
                    sink(Item::Native(NativeSample {
                        raw: &self.raw,
                        histogram: &read,
                        timestamp_ms: Some(at).filter(|at| *at != 0),
                        exemplars: &exemplars,
                        start_ms: histogram.start_ms,
                    }))?;
                    if native != NativePart::WithClassic || !histogram.has_buckets {
                        return Ok(());
                    }
                }
                self.buckets(family, at, histogram, sink)
            }
            _ => self.series(family, at, Part::whole(metric.untyped), sink),
        }
    }

    /// Reads the labels of a metric into `self.labels`.
    fn read_labels(&mut self, message: &[u8]) -> Result<(), ProtobufError> {
        self.labels.clear();
        let mut fields = Fields::new("Metric", message);
        while let Some((field, value)) = fields.next()? {
            if field == 1 {
                push_label(&mut self.labels, value.bytes("Label")?)?;
            }
        }
        Ok(())
    }

    fn summary<E: From<ProtobufError>>(
        &mut self,
        family: &Family,
        at: i64,
        summary: &Summary<'_>,
        sink: &mut Sink<'_, E>,
    ) -> Result<(), E> {
        let start_ms = summary.start_ms;
        self.series(family, at, Part { start_ms, ..Part::suffixed("_count", summary.count) }, sink)?;
        self.series(family, at, Part { start_ms, ..Part::suffixed("_sum", summary.sum) }, sink)?;
        let mut fields = Fields::new("Summary", summary.bytes);
        while let Some((field, value)) = fields.next().map_err(wire)? {
            if field != 3 {
                continue;
            }
            let (quantile, value) = value.bytes("Quantile").and_then(quantile).map_err(wire)?;
            let bound = format_bound(quantile);
            let part = Part { bound: Some(("quantile", &bound)), start_ms, ..Part::whole(value) };
            self.series(family, at, part, sink)?;
        }
        Ok(())
    }

    fn buckets<E: From<ProtobufError>>(
        &mut self,
        family: &Family,
        at: i64,
        histogram: &Histogram<'_>,
        sink: &mut Sink<'_, E>,
    ) -> Result<(), E> {
        let start_ms = histogram.start_ms;
        self.series(family, at, Part { start_ms, ..Part::suffixed("_count", histogram.count) }, sink)?;
        self.series(family, at, Part { start_ms, ..Part::suffixed("_sum", histogram.sum) }, sink)?;
        let mut fields = Fields::new("Histogram", histogram.bytes);
        while let Some((field, value)) = fields.next().map_err(wire)? {
            if field != 3 {
                continue;
            }
            let bucket = value.bytes("Bucket").and_then(bucket).map_err(wire)?;
            let bound = format_bound(bucket.bound);
            let (value, exemplar) = (bucket.count, bucket.exemplar);
            let part = Part { suffix: "_bucket", bound: Some(("le", &bound)), value, exemplar, start_ms };
            self.series(family, at, part, sink)?;
            if bucket.bound == f64::INFINITY {
                return Ok(());
            }
        }
        let bound = Some(("le", "+Inf"));
        self.series(family, at, Part { bound, start_ms, ..Part::suffixed("_bucket", histogram.count) }, sink)
    }

    fn series<E>(&mut self, family: &Family, at: i64, part: Part<'_>, sink: &mut Sink<'_, E>) -> Result<(), E> {
        packed::start(&mut self.raw, &family.name, part.suffix.as_bytes());
        self.raw.extend_from_slice(&self.labels);
        if let Some((name, value)) = part.bound {
            packed::push(&mut self.raw, name.as_bytes());
            packed::push(&mut self.raw, value.as_bytes());
        }
        // A time stamp of 0 cannot be told from none.
        let timestamp_ms = Some(at).filter(|at| *at != 0);
        let exemplar = part.exemplar.map(RawExemplar::Message);
        let (value, start_ms) = (part.value, part.start_ms);
        sink(Item::Series(SeriesLine { raw: &self.raw, value, timestamp_ms, exemplar, start_ms }))
    }
}

/// What tells one series of a metric from its others.
struct Part<'a> {
    suffix: &'static str,
    bound: Option<(&'static str, &'a str)>,
    value: f64,
    exemplar: Option<&'a [u8]>,
    start_ms: Option<i64>,
}

impl Part<'_> {
    fn whole(value: f64) -> Self {
        Self::suffixed("", value)
    }

    fn suffixed(suffix: &'static str, value: f64) -> Self {
        Self { suffix, bound: None, value, exemplar: None, start_ms: None }
    }
}

fn wire(error: WireError) -> ProtobufError {
    error.into()
}

fn check(family: &Family) -> Result<FamilyKind, ProtobufError> {
    let text = |raw: &[u8]| String::from_utf8_lossy(raw).into_owned();
    let name = text(&family.name);
    if name.is_empty() || std::str::from_utf8(&family.name).is_err() {
        return Err(ProtobufError::InvalidName(name));
    }
    if std::str::from_utf8(&family.help).is_err() {
        return Err(ProtobufError::InvalidHelp { name, help: text(&family.help) });
    }
    match family.kind {
        0 => Ok(FamilyKind::Counter),
        1 => Ok(FamilyKind::Gauge),
        2 => Ok(FamilyKind::Summary),
        3 => Ok(FamilyKind::Unknown),
        4 => Ok(FamilyKind::Histogram),
        5 => Ok(FamilyKind::GaugeHistogram),
        kind => Err(ProtobufError::UnknownType { name, kind }),
    }
}

fn push_label(out: &mut Vec<u8>, message: &[u8]) -> Result<(), ProtobufError> {
    let (mut label_name, mut label_value): (&[u8], &[u8]) = (&[], &[]);
    let text = |raw: &[u8]| String::from_utf8_lossy(raw).into_owned();
    let mut fields = Fields::new("LabelPair", message);
    while let Some((field, value)) = fields.next()? {
        match field {
            1 => {
                label_name = value.bytes("Name")?;
                if label_name.is_empty() || std::str::from_utf8(label_name).is_err() {
                    return Err(ProtobufError::InvalidLabelName(text(label_name)));
                }
            }
            2 => {
                label_value = value.bytes("Value")?;
                if std::str::from_utf8(label_value).is_err() {
                    return Err(ProtobufError::InvalidLabelValue(text(label_value)));
                }
            }
            _ => {}
        }
    }
    packed::push(out, label_name);
    packed::push(out, label_value);
    Ok(())
}

fn check_spans(family: &Family, histogram: &Histogram) -> Result<(), ProtobufError> {
    for (side, buckets) in [("positive", &histogram.positive), ("negative", &histogram.negative)] {
        let (expected, found) = (buckets.spanned, if histogram.is_float { buckets.counts } else { buckets.deltas });
        if expected != found {
            let name = String::from_utf8_lossy(&family.name).into_owned();
            return Err(ProtobufError::Spans { name, side, expected, found });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
