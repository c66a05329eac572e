//! Messages of remote write as the published schemas have them, to be encoded by another library than ours.

use prost::Message;

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Label {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "2")]
    pub value: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Sample {
    #[prost(double, tag = "1")]
    pub value: f64,
    #[prost(int64, tag = "2")]
    pub timestamp: i64,
    /// Of version 2 alone.
    #[prost(int64, tag = "3")]
    pub start_timestamp: i64,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Exemplar {
    #[prost(message, repeated, tag = "1")]
    pub labels: Vec<Label>,
    #[prost(double, tag = "2")]
    pub value: f64,
    #[prost(int64, tag = "3")]
    pub timestamp: i64,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Histogram {
    #[prost(uint64, tag = "1")]
    pub count_int: u64,
    #[prost(double, tag = "3")]
    pub sum: f64,
    #[prost(uint64, tag = "6")]
    pub zero_count_int: u64,
    #[prost(int64, tag = "15")]
    pub timestamp: i64,
    /// Of version 2 alone.
    #[prost(int64, tag = "17")]
    pub start_timestamp: i64,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct TimeSeries {
    #[prost(message, repeated, tag = "1")]
    pub labels: Vec<Label>,
    #[prost(message, repeated, tag = "2")]
    pub samples: Vec<Sample>,
    #[prost(message, repeated, tag = "3")]
    pub exemplars: Vec<Exemplar>,
    #[prost(message, repeated, tag = "4")]
    pub histograms: Vec<Histogram>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct MetricMetadata {
    #[prost(string, tag = "2")]
    pub metric_family_name: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct WriteRequest {
    #[prost(message, repeated, tag = "1")]
    pub timeseries: Vec<TimeSeries>,
    #[prost(message, repeated, tag = "3")]
    pub metadata: Vec<MetricMetadata>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ExemplarV2 {
    #[prost(uint32, repeated, tag = "1")]
    pub labels_refs: Vec<u32>,
    #[prost(double, tag = "2")]
    pub value: f64,
    #[prost(int64, tag = "3")]
    pub timestamp: i64,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Metadata {
    #[prost(int32, tag = "1")]
    pub kind: i32,
    #[prost(uint32, tag = "3")]
    pub help_ref: u32,
    #[prost(uint32, tag = "4")]
    pub unit_ref: u32,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct TimeSeriesV2 {
    #[prost(uint32, repeated, tag = "1")]
    pub labels_refs: Vec<u32>,
    #[prost(message, repeated, tag = "2")]
    pub samples: Vec<Sample>,
    #[prost(message, repeated, tag = "3")]
    pub histograms: Vec<Histogram>,
    #[prost(message, repeated, tag = "4")]
    pub exemplars: Vec<ExemplarV2>,
    #[prost(message, optional, tag = "5")]
    pub metadata: Option<Metadata>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Request {
    #[prost(string, repeated, tag = "4")]
    pub symbols: Vec<String>,
    #[prost(message, repeated, tag = "5")]
    pub timeseries: Vec<TimeSeriesV2>,
}

/// A histogram with one observation, of zero.
pub(crate) fn histogram(timestamp: i64) -> Histogram {
    Histogram { count_int: 1, zero_count_int: 1, timestamp, ..Histogram::default() }
}

/// Labels from pairs.
pub(crate) fn labels(pairs: &[(&str, &str)]) -> Vec<Label> {
    pairs.iter().map(|(name, value)| Label { name: (*name).to_owned(), value: (*value).to_owned() }).collect()
}

/// A series of version 1 from its labels and (time, value) pairs.
pub(crate) fn series(pairs: &[(&str, &str)], samples: &[(i64, f64)]) -> TimeSeries {
    TimeSeries { labels: labels(pairs), samples: points(samples), ..TimeSeries::default() }
}

/// Samples from (time, value) pairs.
pub(crate) fn points(samples: &[(i64, f64)]) -> Vec<Sample> {
    samples
        .iter()
        .map(|(timestamp, value)| Sample { value: *value, timestamp: *timestamp, start_timestamp: 0 })
        .collect()
}

/// A request of version 1.
pub(crate) fn v1(timeseries: Vec<TimeSeries>) -> Vec<u8> {
    WriteRequest { timeseries, ..WriteRequest::default() }.encode_to_vec()
}

/// Builds a request of version 2.
pub(crate) struct V2(pub Request);

impl V2 {
    pub(crate) fn new() -> Self {
        Self(Request { symbols: vec![String::new()], timeseries: Vec::new() })
    }

    pub(crate) fn symbol(&mut self, text: &str) -> u32 {
        let known = self.0.symbols.iter().position(|symbol| symbol == text);
        let at = known.unwrap_or_else(|| {
            self.0.symbols.push(text.to_owned());
            self.0.symbols.len() - 1
        });
        u32::try_from(at).unwrap()
    }

    pub(crate) fn series(&mut self, pairs: &[(&str, &str)], samples: &[(i64, f64)]) -> &mut TimeSeriesV2 {
        let labels_refs = pairs.iter().flat_map(|(name, value)| [self.symbol(name), self.symbol(value)]).collect();
        self.0.timeseries.push(TimeSeriesV2 { labels_refs, samples: points(samples), ..TimeSeriesV2::default() });
        self.0.timeseries.last_mut().unwrap()
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        self.0.encode_to_vec()
    }
}
