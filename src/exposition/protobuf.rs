//! Reader of the delimited protobuf format: `io.prometheus.client.MetricFamily` messages, each after its length.
//!
//! Data flow: `scrape` cuts frames with [`frame`] → [`FamilyReader::read`] walks a family and hands out metadata and
//! series, classic histograms and summaries as the series that they are in text. Nothing is decoded into structs, and
//! nothing is allocated for a series. Native histograms are recognised and not yet handed out.
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

mod message;

use crate::exposition::packed;
use crate::exposition::protobuf::message::{Histogram, Summary, bucket, metric, quantile};
use crate::exposition::text::{FamilyKind, SeriesLine, format_bound};
use crate::exposition::wire::{Fields, WireError, varint};
use crate::model::go;

/// Longest length before a family, in bytes.
const FRAME_HEAD_LEN_MAX: usize = 5;

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

/// A family at the start of a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame {
    /// It is there whole: its bytes are `start..end`, the next one starts at `end`.
    Whole {
        /// Where the message starts.
        start: usize,
        /// Where it ends.
        end: usize,
    },
    /// It takes so many bytes, its length included, and there are fewer.
    Partial {
        /// Bytes that it takes.
        len: u64,
    },
    /// Not even its length is there.
    Unknown,
}

/// Finds the family at the start of `buf`.
pub fn frame(buf: &[u8]) -> Result<Frame, ProtobufError> {
    let head = buf.get(..FRAME_HEAD_LEN_MAX).unwrap_or(buf);
    match varint(head) {
        Ok(Some((len, start))) => {
            let whole =
                usize::try_from(len).ok().and_then(|len| start.checked_add(len)).filter(|end| *end <= buf.len());
            Ok(match whole {
                Some(end) => Frame::Whole { start, end },
                None => Frame::Partial { len: len.saturating_add(start as u64) },
            })
        }
        Ok(None) if buf.len() < FRAME_HEAD_LEN_MAX => Ok(Frame::Unknown),
        Ok(None) | Err(_) => Err(ProtobufError::InvalidVarint),
    }
}

/// What becomes of the native part of histograms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NativePart {
    /// It is not looked at: every histogram is a classic one.
    Ignored,
    /// It is checked; a histogram that has nothing else is reported as [`Item::NativeOnly`].
    Wanted,
}

/// One thing that a family says. Bytes are those of [`packed`], comparable with those of the last scrape.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Item<'a> {
    /// Help text; only if there is one.
    Help {
        /// Family and text.
        raw: &'a [u8],
    },
    /// Unit; only if there is one.
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
    /// A native histogram without classic buckets.
    NativeOnly,
}

type Sink<'s, E> = dyn FnMut(Item<'_>) -> Result<(), E> + 's;

/// Reads families; keeps its buffers from one to the next.
#[derive(Debug, Default)]
pub struct FamilyReader {
    raw: Vec<u8>,
    labels: Vec<u8>,
}

/// What a family says beside its metrics.
#[derive(Default)]
struct Family<'a> {
    name: &'a [u8],
    help: &'a [u8],
    kind: u64,
    unit: &'a [u8],
    has_metrics: bool,
}

impl FamilyReader {
    /// Hands what the family says to `sink`, in the order of Prometheus.
    pub fn read<E: From<ProtobufError>>(
        &mut self,
        message: &[u8],
        native: NativePart,
        sink: &mut Sink<'_, E>,
    ) -> Result<(), E> {
        let family = family(message)?;
        if !family.has_metrics {
            return Ok(());
        }
        let kind = check(&family)?;
        if !family.help.is_empty() {
            self.metadata(family.name, family.help);
            sink(Item::Help { raw: &self.raw })?;
        }
        if !family.unit.is_empty() && std::str::from_utf8(family.unit).is_ok() {
            self.metadata(family.name, family.unit);
            sink(Item::Unit { raw: &self.raw })?;
        }
        self.metadata(family.name, kind.name().as_bytes());
        sink(Item::Type { kind, raw: &self.raw })?;
        let mut fields = Fields::new("MetricFamily", message);
        while let Some((field, value)) = fields.next().map_err(wire)? {
            match field {
                4 => self.metric(&family, kind, value.bytes("Metric").map_err(wire)?, native, sink)?,
                _ => fields.skip(value).map_err(wire)?,
            }
        }
        Ok(())
    }

    fn metadata(&mut self, family: &[u8], text: &[u8]) {
        packed::start(&mut self.raw, family, b"");
        packed::push(&mut self.raw, text);
    }

    fn metric<E: From<ProtobufError>>(
        &mut self,
        family: &Family<'_>,
        kind: FamilyKind,
        message: &[u8],
        native: NativePart,
        sink: &mut Sink<'_, E>,
    ) -> Result<(), E> {
        let metric = metric(message).map_err(wire)?;
        self.read_labels(message)?;
        let at = metric.timestamp_ms;
        match kind {
            FamilyKind::Counter => self.series(family, at, Part::whole(metric.counter.0, metric.counter.1), sink),
            FamilyKind::Gauge => self.series(family, at, Part::whole(metric.gauge, false), sink),
            FamilyKind::Summary => self.summary(family, at, &metric.summary, sink),
            FamilyKind::Histogram | FamilyKind::GaugeHistogram => {
                let histogram = &metric.histogram;
                if native == NativePart::Wanted && histogram.is_native {
                    check_spans(family, histogram)?;
                    if !histogram.has_buckets {
                        return sink(Item::NativeOnly);
                    }
                }
                self.buckets(family, at, histogram, sink)
            }
            _ => self.series(family, at, Part::whole(metric.untyped, false), sink),
        }
    }

    /// Reads the labels of a metric into `self.labels`.
    fn read_labels(&mut self, message: &[u8]) -> Result<(), ProtobufError> {
        self.labels.clear();
        let mut fields = Fields::new("Metric", message);
        while let Some((field, value)) = fields.next()? {
            match field {
                1 => push_label(&mut self.labels, value.bytes("Label")?)?,
                _ => fields.skip(value)?,
            }
        }
        Ok(())
    }

    fn summary<E: From<ProtobufError>>(
        &mut self,
        family: &Family<'_>,
        at: i64,
        summary: &Summary<'_>,
        sink: &mut Sink<'_, E>,
    ) -> Result<(), E> {
        self.series(family, at, Part::suffixed("_count", summary.count), sink)?;
        self.series(family, at, Part::suffixed("_sum", summary.sum), sink)?;
        let mut fields = Fields::new("Summary", summary.bytes);
        while let Some((field, value)) = fields.next().map_err(wire)? {
            if field != 3 {
                fields.skip(value).map_err(wire)?;
                continue;
            }
            let (quantile, value) = value.bytes("Quantile").and_then(quantile).map_err(wire)?;
            let bound = format_bound(quantile);
            let part = Part { suffix: "", bound: Some(("quantile", &bound)), value, exemplar: false };
            self.series(family, at, part, sink)?;
        }
        Ok(())
    }

    fn buckets<E: From<ProtobufError>>(
        &mut self,
        family: &Family<'_>,
        at: i64,
        histogram: &Histogram<'_>,
        sink: &mut Sink<'_, E>,
    ) -> Result<(), E> {
        self.series(family, at, Part::suffixed("_count", histogram.count), sink)?;
        self.series(family, at, Part::suffixed("_sum", histogram.sum), sink)?;
        let mut fields = Fields::new("Histogram", histogram.bytes);
        while let Some((field, value)) = fields.next().map_err(wire)? {
            if field != 3 {
                fields.skip(value).map_err(wire)?;
                continue;
            }
            let bucket = value.bytes("Bucket").and_then(bucket).map_err(wire)?;
            let bound = format_bound(bucket.bound);
            let (value, exemplar) = (bucket.count, bucket.exemplar);
            let part = Part { suffix: "_bucket", bound: Some(("le", &bound)), value, exemplar };
            self.series(family, at, part, sink)?;
            if bucket.bound == f64::INFINITY {
                return Ok(());
            }
        }
        let (value, exemplar) = (histogram.count, false);
        self.series(family, at, Part { suffix: "_bucket", bound: Some(("le", "+Inf")), value, exemplar }, sink)
    }

    fn series<E>(&mut self, family: &Family<'_>, at: i64, part: Part<'_>, sink: &mut Sink<'_, E>) -> Result<(), E> {
        packed::start(&mut self.raw, family.name, part.suffix.as_bytes());
        self.raw.extend_from_slice(&self.labels);
        if let Some((name, value)) = part.bound {
            packed::push(&mut self.raw, name.as_bytes());
            packed::push(&mut self.raw, value.as_bytes());
        }
        // A time stamp of 0 cannot be told from none.
        let timestamp_ms = Some(at).filter(|at| *at != 0);
        sink(Item::Series(SeriesLine { raw: &self.raw, value: part.value, timestamp_ms, exemplar: part.exemplar }))
    }
}

/// What tells one series of a metric from its others.
struct Part<'a> {
    suffix: &'static str,
    bound: Option<(&'static str, &'a str)>,
    value: f64,
    exemplar: bool,
}

impl Part<'_> {
    fn whole(value: f64, exemplar: bool) -> Self {
        Self { suffix: "", bound: None, value, exemplar }
    }

    fn suffixed(suffix: &'static str, value: f64) -> Self {
        Self { suffix, bound: None, value, exemplar: false }
    }
}

fn wire(error: WireError) -> ProtobufError {
    error.into()
}

fn family(message: &[u8]) -> Result<Family<'_>, ProtobufError> {
    let mut family = Family::default();
    let mut fields = Fields::new("MetricFamily", message);
    while let Some((field, value)) = fields.next()? {
        match field {
            1 => family.name = value.bytes("Name")?,
            2 => family.help = value.bytes("Help")?,
            3 => family.kind = value.varint("Type")?,
            4 => {
                value.bytes("Metric")?;
                family.has_metrics = true;
            }
            5 => family.unit = value.bytes("Unit")?,
            _ => fields.skip(value)?,
        }
    }
    Ok(family)
}

fn check(family: &Family<'_>) -> Result<FamilyKind, ProtobufError> {
    let text = |raw: &[u8]| String::from_utf8_lossy(raw).into_owned();
    let name = text(family.name);
    if name.is_empty() || std::str::from_utf8(family.name).is_err() {
        return Err(ProtobufError::InvalidName(name));
    }
    if std::str::from_utf8(family.help).is_err() {
        return Err(ProtobufError::InvalidHelp { name, help: text(family.help) });
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
            _ => fields.skip(value)?,
        }
    }
    packed::push(out, label_name);
    packed::push(out, label_value);
    Ok(())
}

fn check_spans(family: &Family<'_>, histogram: &Histogram) -> Result<(), ProtobufError> {
    for (side, buckets) in [("positive", &histogram.positive), ("negative", &histogram.negative)] {
        let (expected, found) = (buckets.spanned, if histogram.is_float { buckets.counts } else { buckets.deltas });
        if expected != found {
            let name = String::from_utf8_lossy(family.name).into_owned();
            return Err(ProtobufError::Spans { name, side, expected, found });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
