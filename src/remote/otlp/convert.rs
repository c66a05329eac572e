//! From a request to a batch, metric by metric.
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

use std::collections::HashSet;
use std::sync::Arc;

use twox_hash::XxHash3_128;

use crate::config::OtlpConfig;
use crate::model::append::{AppendBatch, AppendExemplar, AppendMetadata, SeriesKey};
use crate::model::exemplar::Exemplar;
use crate::model::go;
use crate::model::histogram::{CounterResetHint, Histogram};
use crate::model::labels::{BUCKET, Labels, LabelsBuilder, METRIC_NAME};
use crate::model::metadata::{MetricType, SeriesMetadata};
use crate::model::sample::is_stale;
use crate::model::time::TimestampMs;
use crate::model::wire::{Fields, Value, WireError};
use crate::remote::otlp::delta::{Deltas, Dropped, StreamKey};
use crate::remote::otlp::labels::{Labeller, ResourceLabels, ScopeLabels};
use crate::remote::otlp::metrics::Warning;
use crate::remote::otlp::names::{self, Kind};
use crate::remote::otlp::points::{self, Data, Explicit, Point};
use crate::remote::otlp::value::{Attribute, attribute};
use crate::remote::otlp::{BodyFormat, JSON_BYTES, json};
use crate::remote::receive::budget::{Held, NoRoom};
use crate::remote::receive::{AHEAD_MS_MAX, DecodeError, Extras};

/// What a sample takes in a batch, in a shard's slice, among the staged ones and in a record, without its labels.
const SAMPLE_BYTES: u64 = 256;
/// Samples of `target_info` that a request may have; with the default lookback, those of a month.
const TOLD_MAX: usize = 20_000;
const QUANTILE: &str = "quantile";
const INFINITE: &str = "+Inf";
/// The temporality of values since the point before, and of those since a start that stays.
const DELTA: u64 = 1;
const CUMULATIVE: u64 = 2;

/// What decides how a request is read.
#[derive(Clone, Copy, Debug)]
pub struct Settings<'a> {
    /// The rules for names and labels.
    pub config: &'a OtlpConfig,
    /// `--query.lookback-delta`: `target_info` has a sample for each half of it.
    pub lookback_ms: i64,
    /// Tells which samples lie in the future.
    pub now: TimestampMs,
    /// What is taken in beside samples.
    pub extras: Extras,
    /// What becomes of deltas.
    pub deltas: Deltas<'a>,
}

/// A request that was read.
#[derive(Debug, Default)]
pub struct Converted {
    /// What is to be stored, unless there are errors.
    pub batch: AppendBatch,
    /// Of which these are float samples, also when the batch itself has been given away.
    pub(super) samples_len: u32,
    /// What cannot be translated, with the number of its metric.
    pub(super) errors: Vec<(u32, String)>,
    /// What is odd.
    pub warnings: Vec<Warning>,
    /// Exemplars that were read.
    pub exemplars: u64,
    /// Samples of metrics of which nothing is said.
    pub undescribed: u64,
    /// Points that are not added to their streams.
    pub dropped: Vec<Dropped>,
    /// First sample and first histogram of each metric that has any, with its number.
    pub(super) metrics: Vec<(u32, u32, u32)>,
    /// Later samples are too far ahead.
    pub(super) future: HashSet<u32>,
}

/// Why a body is not a request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OtlpError {
    /// It is malformed.
    #[error("{0}")]
    Malformed(String),
    /// There is no memory for it.
    #[error(transparent)]
    Room(#[from] NoRoom),
}

impl From<WireError> for OtlpError {
    fn from(error: WireError) -> Self {
        Self::Malformed(error.to_string())
    }
}

impl From<DecodeError> for OtlpError {
    fn from(error: DecodeError) -> Self {
        match error {
            DecodeError::Room(room) => Self::Room(room),
            other => Self::Malformed(other.to_string()),
        }
    }
}

/// Reads the bytes of a request.
pub fn convert(
    format: BodyFormat,
    body: &[u8],
    settings: Settings<'_>,
    held: &mut Held,
) -> Result<Converted, OtlpError> {
    let mut conversion = Conversion {
        labeller: Labeller::new(settings.config),
        settings,
        held,
        told: HashSet::new(),
        metric: 0,
        start: 0,
        description: Arc::default(),
        is_delta: false,
        out: Converted::default(),
    };
    match format {
        BodyFormat::Protobuf => conversion.request(body)?,
        BodyFormat::Json => {
            conversion.held.add(JSON_BYTES * body.len() as u64)?;
            conversion.request(&json::to_protobuf(body).map_err(OtlpError::Malformed)?)?;
        }
    }
    conversion.out.samples_len = conversion.count(conversion.out.batch.samples.len())?;
    Ok(conversion.out)
}

/// Why a metric is not translated: the request is malformed, or the metric is, which is told with all others.
enum Stop {
    Request(OtlpError),
    Metric(String),
}

impl<E: Into<OtlpError>> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Request(error.into())
    }
}

/// What surrounds a metric.
struct Around {
    resource: ResourceLabels,
    scope: Option<ScopeLabels>,
    /// Hashes of what identifies both.
    resource_key: StreamKey,
    scope_key: StreamKey,
}

struct Conversion<'a> {
    labeller: Labeller<'a>,
    settings: Settings<'a>,
    held: &'a mut Held,
    /// Samples of `target_info` that there are: hash of the labels, and time.
    told: HashSet<(u64, i64)>,
    /// Number of the metric, or of the `target_info`, that is being read.
    metric: u32,
    /// When the point that is being read began to count; 0 if that is not said.
    start: i64,
    /// What is said of the metric that is being read.
    description: Arc<SeriesMetadata>,
    /// It has deltas that are stored as they are.
    is_delta: bool,
    out: Converted,
}

impl Conversion<'_> {
    fn request(&mut self, body: &[u8]) -> Result<(), OtlpError> {
        let mut fields = Fields::new("ExportMetricsServiceRequest", body);
        while let Some((field, value)) = fields.next()? {
            if field == 1 {
                self.resource(value.bytes("ResourceMetrics")?)?;
            }
        }
        Ok(())
    }

    fn resource(&mut self, message: &[u8]) -> Result<(), OtlpError> {
        let mut attributes = Vec::new();
        let mut fields = Fields::new("ResourceMetrics", message);
        while let Some((field, value)) = fields.next()? {
            if field == 1 {
                self.attributes("Resource", 1, value.bytes("Resource")?, &mut attributes)?;
            }
        }
        let resource = match self.labeller.resource(&attributes) {
            Ok(resource) => resource,
            Err(reason) => {
                self.error(reason);
                return Ok(());
            }
        };
        let resource_key = if self.sums() { key_of(&[], &attributes) } else { 0 };
        let mut around = Around { resource, scope: None, resource_key, scope_key: 0 };
        let mut span = None;
        let mut fields = Fields::new("ResourceMetrics", message);
        while let Some((field, value)) = fields.next()? {
            if field == 2 {
                self.scope(value.bytes("ScopeMetrics")?, &mut around, &mut span)?;
            }
        }
        if let Some((earliest, latest)) = span {
            self.target_info(&attributes, &around.resource, earliest, latest)?;
        }
        Ok(())
    }

    fn attributes(
        &mut self,
        name: &'static str,
        number: i32,
        message: &[u8],
        out: &mut Vec<Attribute>,
    ) -> Result<(), OtlpError> {
        self.held.add(2 * message.len() as u64)?;
        let mut fields = Fields::new(name, message);
        while let Some((field, value)) = fields.next()? {
            if field == number {
                out.push(attribute(value.bytes("Attributes")?)?);
            }
        }
        Ok(())
    }

    fn scope(&mut self, message: &[u8], around: &mut Around, span: &mut Option<(u64, u64)>) -> Result<(), OtlpError> {
        let (mut name, mut version, mut schema_url, mut attributes) =
            (String::new(), String::new(), String::new(), Vec::new());
        let mut fields = Fields::new("ScopeMetrics", message);
        while let Some((field, value)) = fields.next()? {
            match field {
                1 => {
                    let scope = value.bytes("Scope")?;
                    self.attributes("InstrumentationScope", 3, scope, &mut attributes)?;
                    let mut fields = Fields::new("InstrumentationScope", scope);
                    while let Some((field, value)) = fields.next()? {
                        match field {
                            1 => name = text(value, "Name")?,
                            2 => version = text(value, "Version")?,
                            _ => {}
                        }
                    }
                }
                3 => schema_url = text(value, "SchemaUrl")?,
                _ => {}
            }
        }
        if self.sums() {
            let texts = [&around.resource_key.to_le_bytes()[..], name.as_bytes(), version.as_bytes()];
            around.scope_key = key_of(&texts, &attributes);
        }
        match self.labeller.scope([&name, &version, &schema_url], &attributes) {
            Ok(scope) => around.scope = scope,
            Err(reason) => {
                self.error(reason);
                return Ok(());
            }
        }
        let mut fields = Fields::new("ScopeMetrics", message);
        while let Some((field, value)) = fields.next()? {
            if field != 2 {
                continue;
            }
            match self.metric(value.bytes("Metrics")?, around, span) {
                Ok(()) => self.metric += 1,
                Err(Stop::Metric(reason)) => self.error(reason),
                Err(Stop::Request(error)) => return Err(error),
            }
        }
        Ok(())
    }

    fn metric(&mut self, message: &[u8], around: &Around, span: &mut Option<(u64, u64)>) -> Result<(), Stop> {
        let (mut name, mut help, mut unit, mut data) = (String::new(), String::new(), String::new(), None);
        let mut fields = Fields::new("Metric", message);
        while let Some((field, value)) = fields.next()? {
            match field {
                1 => name = text(value, "Name")?,
                2 => help = text(value, "Description")?,
                3 => unit = text(value, "Unit")?,
                5 | 7 | 9 | 10 | 11 => data = Some((field, value.bytes("Data")?)),
                _ => {}
            }
        }
        let Some((kind, data)) = data else {
            let kind = "has unsupported metric type Empty";
            return Err(Stop::Metric(format!("could not get aggregation temporality for {name} as it {kind}")));
        };
        let (mut temporality, mut is_monotonic, mut count) = (0, false, 0u64);
        let mut times: Option<(u64, u64)> = None;
        let mut fields = Fields::new("Data", data);
        while let Some((field, value)) = fields.next()? {
            match field {
                1 => {
                    count += 1;
                    widen(&mut times, time_of(value.bytes("DataPoints")?)?);
                }
                2 => temporality = value.varint("AggregationTemporality")?,
                3 => is_monotonic = value.varint("IsMonotonic")? != 0,
                _ => {}
            }
        }
        let summed = match self.settings.deltas {
            Deltas::Summed(..) if matches!(kind, 7 | 9 | 10) && temporality == DELTA => {
                let numbers = [kind.to_le_bytes()[0], u8::from(is_monotonic)];
                let parts = [&around.scope_key.to_le_bytes()[..], name.as_bytes(), unit.as_bytes(), &numbers];
                let summed = self.summed(kind, data, key_of(&parts, &[]))?;
                if summed.is_empty() {
                    return Ok(());
                }
                times = None;
                summed.iter().for_each(|(point, _)| widen(&mut times, point.nanos));
                temporality = CUMULATIVE;
                Some(summed)
            }
            _ => None,
        };
        if let Some((earliest, latest)) = times {
            widen(span, earliest);
            widen(span, latest);
        }
        self.is_delta = matches!(kind, 7 | 9 | 10) && temporality == DELTA;
        let takes_deltas = matches!(self.settings.deltas, Deltas::AsTheyAre);
        if matches!(kind, 7 | 9 | 10) && temporality != CUMULATIVE && !(takes_deltas && self.is_delta) {
            let name = go::quote(&name);
            return Err(Stop::Metric(format!("invalid temporality and type combination for metric {name}")));
        }
        let (named_by, described_as) = match kind {
            5 => (Kind::Gauge, MetricType::Gauge),
            7 if is_monotonic => (Kind::MonotonicCounter, MetricType::Counter),
            7 => (Kind::Other, MetricType::Gauge),
            9 | 10 => (Kind::Other, MetricType::Histogram),
            _ => (Kind::Other, MetricType::Summary),
        };
        let family = self.labeller.names.metric(&name, &unit, named_by).map_err(Stop::Metric)?;
        let described_as = if self.is_delta { MetricType::Unknown } else { described_as };
        self.description = Arc::new(SeriesMetadata { kind: described_as, unit: names::unit(&unit), help });
        if count == 0 {
            self.out.warnings.push(Warning::EmptyDataPoints);
            return Ok(());
        }
        self.begin()?;
        if let Some(summed) = summed {
            return summed.into_iter().try_for_each(|(point, data)| self.data(point, data, &family, around));
        }
        let mut fields = Fields::new("Data", data);
        while let Some((field, value)) = fields.next()? {
            if field != 1 {
                continue;
            }
            let message = value.bytes("DataPoints")?;
            // Its attributes, twice: as they are and as labels.
            self.held.add(2 * message.len() as u64)?;
            match kind {
                5 => {
                    let (mut point, number) = points::number(message)?;
                    // Gauges have none in Prometheus's eyes.
                    (point.exemplars, point.bad_exemplar) = (Vec::new(), false);
                    self.data(point, Data::Number(number), &family, around)?;
                }
                7 | 9 | 10 => {
                    let (point, data) = point_of(kind, message)?;
                    self.data(point, data, &family, around)?;
                }
                _ => self.summary(message, &family, around)?,
            }
        }
        Ok(())
    }

    /// The points of a metric of deltas, added to their streams; those that cannot be added are left out.
    fn summed(&mut self, kind: i32, data: &[u8], metric_key: StreamKey) -> Result<Vec<(Point, Data)>, OtlpError> {
        let Deltas::Summed(streams, now) = self.settings.deltas else { return Ok(Vec::new()) };
        let mut summed = Vec::new();
        let mut fields = Fields::new("Data", data);
        while let Some((field, value)) = fields.next()? {
            if field != 1 {
                continue;
            }
            let message = value.bytes("DataPoints")?;
            let (mut point, mut data) = point_of(kind, message)?;
            // Its attributes, three times, and what its stream is then.
            self.held.add(SAMPLE_BYTES + 3 * message.len() as u64)?;
            let key = key_of(&[&metric_key.to_le_bytes()], &point.attributes);
            match streams.add(key, now, &mut point, &mut data) {
                Ok(()) => {
                    self.held.add(2 * data.memory_len())?;
                    summed.push((point, data));
                }
                Err(why) => self.out.dropped.push(why),
            }
        }
        Ok(summed)
    }

    /// Whether deltas are added up.
    fn sums(&self) -> bool {
        matches!(self.settings.deltas, Deltas::Summed(..))
    }

    fn data(&mut self, mut point: Point, data: Data, family: &str, around: &Around) -> Result<(), Stop> {
        match data {
            Data::Number(number) => self.number(point, number.value(), family, around),
            Data::Explicit(histogram) if self.settings.config.convert_histograms_to_nhcb => {
                let (native, is_odd) = points::native_of_explicit(&point, &histogram);
                self.native(&mut point, native, is_odd, family, around)
            }
            Data::Explicit(histogram) => self.classic(point, &histogram, family, around),
            Data::Exponential(histogram) => {
                let (native, is_odd) = points::native_of_exponential(&point, &histogram).map_err(Stop::Metric)?;
                self.native(&mut point, native, is_odd, family, around)
            }
        }
    }

    fn number(&mut self, mut point: Point, number: f64, family: &str, around: &Around) -> Result<(), Stop> {
        self.start = point.start();
        let mut labels = self.labels(&mut point, around)?;
        labels.set(METRIC_NAME, family);
        let labels = labels.build();
        self.float(labels.clone(), point.t, point.value(number))?;
        self.count_exemplars(&point)?;
        self.exemplars(&point, &labels, &point.exemplars)
    }

    fn classic(&mut self, mut point: Point, histogram: &Explicit, family: &str, around: &Around) -> Result<(), Stop> {
        self.start = point.start();
        let mut labels = self.labels(&mut point, around)?;
        let count = point.value(histogram.count as f64);
        if let Some(sum) = histogram.sum {
            labels.set(METRIC_NAME, &format!("{family}_sum"));
            self.float(labels.build(), point.t, point.value(sum))?;
        }
        labels.set(METRIC_NAME, &format!("{family}_count"));
        self.float(labels.build(), point.t, count)?;
        labels.set(METRIC_NAME, &format!("{family}_bucket"));
        self.count_exemplars(&point)?;
        let mut above = point.exemplars.as_slice();
        let mut below = 0u64;
        for (bound, in_bucket) in histogram.bounds.iter().zip(&histogram.counts) {
            below = below.wrapping_add(*in_bucket);
            labels.set(BUCKET, &format_bound(*bound));
            let labels = labels.build();
            self.float(labels.clone(), point.t, point.value(below as f64))?;
            // Both buckets and exemplars come in the order of their values.
            let len = above.iter().position(|exemplar| *bound < exemplar.value).unwrap_or(above.len());
            let (within, rest) = above.split_at(len);
            self.exemplars(&point, &labels, within)?;
            above = rest;
        }
        labels.set(BUCKET, INFINITE);
        let labels = labels.build();
        self.float(labels.clone(), point.t, count)?;
        self.exemplars(&point, &labels, above)
    }

    fn native(
        &mut self,
        point: &mut Point,
        mut histogram: Histogram,
        is_odd: bool,
        family: &str,
        around: &Around,
    ) -> Result<(), Stop> {
        if is_odd {
            self.out.warnings.push(Warning::ZeroCountNonZeroSum);
        }
        let mut labels = self.labels(point, around)?;
        labels.set(METRIC_NAME, family);
        self.count_exemplars(point)?;
        let labels = labels.build();
        self.exemplars(point, &labels, &point.exemplars)?;
        self.held.add(SAMPLE_BYTES + labels.encoded_len() as u64 + histogram.memory_len() as u64)?;
        if self.is_delta {
            // Each stands for itself, so that no reset is looked for.
            histogram.counter_reset_hint = CounterResetHint::Gauge;
        }
        let at = TimestampMs(point.t);
        if self.settings.extras.starts && point.start() != 0 {
            let place = self.count(self.out.batch.histograms.len())?;
            self.out.batch.starts.histograms.push((place, point.start()));
        }
        self.describe(&labels, point.is_stale)?;
        self.out.batch.push_histogram(SeriesKey::Labels(labels), at, histogram);
        Ok(())
    }

    fn summary(&mut self, message: &[u8], family: &str, around: &Around) -> Result<(), Stop> {
        let (mut point, summary) = points::summary(message)?;
        self.start = point.start();
        let mut labels = self.labels(&mut point, around)?;
        labels.set(METRIC_NAME, &format!("{family}_sum"));
        self.float(labels.build(), point.t, point.value(summary.sum))?;
        labels.set(METRIC_NAME, &format!("{family}_count"));
        self.float(labels.build(), point.t, point.value(summary.count as f64))?;
        labels.set(METRIC_NAME, family);
        for (quantile, value) in &summary.quantiles {
            labels.set(QUANTILE, &format_bound(*quantile));
            self.float(labels.build(), point.t, point.value(*value))?;
        }
        Ok(())
    }

    /// Tells that the resource was there while its samples came: one sample for each half of the lookback.
    fn target_info(
        &mut self,
        attributes: &[Attribute],
        resource: &ResourceLabels,
        earliest: u64,
        latest: u64,
    ) -> Result<(), OtlpError> {
        let labels = match self.labeller.target_info(attributes, resource, &mut self.out.warnings) {
            Ok(Some(labels)) => labels,
            Ok(None) => return Ok(()),
            Err(reason) => {
                self.error(reason);
                return Ok(());
            }
        };
        self.begin()?;
        self.start = 0;
        let help = "Target metadata".to_owned();
        self.description = Arc::new(SeriesMetadata { kind: MetricType::Gauge, unit: String::new(), help });
        self.metric += 1;
        let hash = labels.hash64();
        let step = (self.settings.lookback_ms / 2).max(1).cast_unsigned().saturating_mul(1_000_000);
        // Times that lie far apart would make millions of a small request.
        let left = TOLD_MAX.saturating_sub(self.told.len()).max(1) as u64;
        let step = step.max(latest.saturating_sub(earliest).div_ceil(left));
        let mut nanos = earliest;
        loop {
            let at = nanos.min(latest);
            let t = at.cast_signed() / 1_000_000;
            if self.told.insert((hash, t)) {
                self.float(labels.clone(), t, 1.0)?;
            }
            if latest <= nanos {
                return Ok(());
            }
            nanos = nanos.saturating_add(step);
        }
    }

    fn labels(&mut self, point: &mut Point, around: &Around) -> Result<LabelsBuilder, Stop> {
        let (resource, scope) = (&around.resource, around.scope.as_ref());
        self.labeller.point(&mut point.attributes, resource, scope, &mut self.out.warnings).map_err(Stop::Metric)
    }

    /// Stores exemplars of a series, unless the point ends it.
    fn exemplars(&mut self, point: &Point, series: &Labels, exemplars: &[Exemplar]) -> Result<(), Stop> {
        if !self.settings.extras.exemplars || point.is_stale {
            return Ok(());
        }
        for exemplar in exemplars {
            self.held.add(SAMPLE_BYTES + (series.encoded_len() + exemplar.labels.encoded_len()) as u64)?;
            self.out.batch.exemplars.push(AppendExemplar { series: series.clone(), exemplar: exemplar.clone() });
        }
        Ok(())
    }

    fn count_exemplars(&mut self, point: &Point) -> Result<(), Stop> {
        self.out.exemplars += point.exemplars.len() as u64;
        match point.bad_exemplar {
            true => Err(Stop::Metric("unsupported exemplar value type: Empty".to_owned())),
            false => Ok(()),
        }
    }

    fn float(&mut self, labels: Labels, t: i64, value: f64) -> Result<(), OtlpError> {
        self.held.add(SAMPLE_BYTES + labels.encoded_len() as u64)?;
        if self.settings.now.0.saturating_add(AHEAD_MS_MAX) < t {
            let index = self.count(self.out.batch.samples.len())?;
            self.out.future.insert(index);
        }
        if self.settings.extras.starts && self.start != 0 {
            let place = self.count(self.out.batch.samples.len())?;
            self.out.batch.starts.samples.push((place, self.start));
        }
        self.describe(&labels, is_stale(value))?;
        self.out.batch.push_float(SeriesKey::Labels(labels), TimestampMs(t), value);
        Ok(())
    }

    /// What is said of the metric belongs to this series, unless the sample ends it.
    fn describe(&mut self, labels: &Labels, ends: bool) -> Result<(), OtlpError> {
        if *self.description == SeriesMetadata::default() {
            self.out.undescribed += 1;
        } else if self.settings.extras.metadata && !ends {
            let metadata_len = self.description.help.len() + self.description.unit.len();
            self.held.add(SAMPLE_BYTES + metadata_len as u64)?;
            let (series, metadata) = (SeriesKey::Labels(labels.clone()), Arc::clone(&self.description));
            self.out.batch.metadata.push(AppendMetadata { series, metadata });
        }
        Ok(())
    }

    /// What is appended from now on belongs to the metric.
    fn begin(&mut self) -> Result<(), OtlpError> {
        let (samples, histograms) =
            (self.count(self.out.batch.samples.len())?, self.count(self.out.batch.histograms.len())?);
        self.out.metrics.push((samples, histograms, self.metric));
        Ok(())
    }

    fn error(&mut self, reason: String) {
        self.out.errors.push((self.metric, reason));
        self.metric += 1;
    }

    fn count(&self, len: usize) -> Result<u32, OtlpError> {
        u32::try_from(len).map_err(|_| DecodeError::TooMany.into())
    }
}

/// A point of a kind that can be added up.
fn point_of(kind: i32, message: &[u8]) -> Result<(Point, Data), WireError> {
    Ok(match kind {
        7 => points::number(message).map(|(point, number)| (point, Data::Number(number)))?,
        9 => points::explicit(message).map(|(point, histogram)| (point, Data::Explicit(histogram)))?,
        _ => points::exponential(message).map(|(point, histogram)| (point, Data::Exponential(histogram)))?,
    })
}

/// A hash of texts, and of attributes in whatever order.
fn key_of(texts: &[&[u8]], attributes: &[Attribute]) -> StreamKey {
    let mut hasher = XxHash3_128::new();
    let mut write = |text: &[u8]| {
        hasher.write(&(text.len() as u64).to_le_bytes());
        hasher.write(text);
    };
    texts.iter().for_each(|text| write(text));
    let mut sorted: Vec<&Attribute> = attributes.iter().collect();
    sorted.sort_by(|a, b| a.key.cmp(&b.key));
    for attribute in sorted {
        write(attribute.key.as_bytes());
        write(attribute.value.as_bytes());
    }
    hasher.finish_128()
}

fn widen(span: &mut Option<(u64, u64)>, nanos: u64) {
    let (earliest, latest) = span.get_or_insert((nanos, nanos));
    (*earliest, *latest) = ((*earliest).min(nanos), (*latest).max(nanos));
}

/// The time of a data point of any kind.
fn time_of(message: &[u8]) -> Result<u64, WireError> {
    let mut nanos = 0;
    let mut fields = Fields::new("DataPoint", message);
    while let Some((field, value)) = fields.next()? {
        if field == 3 {
            nanos = value.double("TimeUnixNano")?.to_bits();
        }
    }
    Ok(nanos)
}

fn text(value: Value<'_>, field: &'static str) -> Result<String, WireError> {
    Ok(String::from_utf8_lossy(value.bytes(field)?).into_owned())
}

/// As Go's `strconv.FormatFloat(bound, 'f', -1, 64)`.
fn format_bound(bound: f64) -> String {
    go::format_float_f(bound)
}
