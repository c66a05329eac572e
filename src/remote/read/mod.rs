//! Remote read as plain code: messages of both sides and the client.
//!
//! ```text
//! ReadRequest  { 1 queries Query …, 2 accepted_response_types enum … }
//! Query        { 1 start_ms int64, 2 end_ms int64, 3 matchers LabelMatcher …, 4 hints }
//! LabelMatcher { 1 type enum, 2 name, 3 value }
//! ReadResponse { 1 results QueryResult … }      QueryResult { 1 timeseries TimeSeries … }
//! TimeSeries   { 1 labels Label …, 2 samples Sample …, 3 exemplars, 4 histograms Histogram … }
//! Frame        │ length uvarint │ crc32c u32 BE │ ChunkedReadResponse │
//! ChunkedReadResponse { 1 chunked_series ChunkedSeries, 2 query_index int64 }
//! ChunkedSeries { 1 labels Label …, 2 chunks Chunk … }
//! Chunk        { 1 min_time_ms int64, 2 max_time_ms int64, 3 type enum, 4 data bytes }
//! ```
//! What chunks hold is not looked at here: that is the business of whoever reads storage's encodings.

mod answer;
mod client;
mod request;
mod write;

pub use answer::{AnswerError, FoundChunk, FoundSeries, Frames, sampled};
pub use client::{ReadBody, ReadClient, ReadFailure, ReadMetrics};
pub use request::{
    MatcherError, ReadMatcher, ReadQuery, ReadRequest, RequestError, ResponseType, decode_request, encode_request,
};
pub use write::{Frame, SampledWriter};

/// `Content-Type` of an answer with samples.
pub const SAMPLED_TYPE: &str = "application/x-protobuf";
/// `Content-Type` of an answer in frames.
pub const STREAMED_TYPE: &str = "application/x-streamed-protobuf; proto=prometheus.ChunkedReadResponse";

#[cfg(test)]
mod tests;
