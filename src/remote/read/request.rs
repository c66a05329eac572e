//! What is asked: a request's bytes, read and written.
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

use crate::model::labels::Labels;
use crate::model::matcher::{MatchOp, Matcher};
use crate::model::regexp::RegexpError;
use crate::model::time::{TimeRange, TimestampMs};
use crate::model::wire::{Fields, WireError};
use crate::remote::read::write::{put_bytes, put_int};
use crate::remote::receive::unpack;

/// Longest request, as it comes and unpacked.
const REQUEST_LEN_MAX: usize = 32 << 20;
/// Most queries and matchers of a request: a byte of it makes at most one.
const PARTS_MAX: usize = 100_000;

/// A request.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ReadRequest {
    /// Each is answered by itself.
    pub queries: Vec<ReadQuery>,
    /// Numbers of the kinds of answer that the client reads, best first.
    pub accepted: Vec<i32>,
}

/// Which series, and when.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ReadQuery {
    /// First time.
    pub start_ms: i64,
    /// Last time.
    pub end_ms: i64,
    /// All must be fulfilled.
    pub matchers: Vec<ReadMatcher>,
}

/// A matcher as it is sent: its kind may be unknown, its expression broken.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ReadMatcher {
    /// 0 `=`, 1 `!=`, 2 `=~`, 3 `!~`.
    pub kind: i32,
    /// The label.
    pub name: String,
    /// The other side.
    pub value: String,
}

/// How a request is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseType {
    /// All samples in one message.
    Samples,
    /// Chunks, series by series.
    StreamedChunks,
}

/// Why a body is no request; the texts are those of Prometheus.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// It is no snappy block.
    #[error("snappy: corrupt input")]
    Snappy,
    /// It is longer than we take.
    #[error("snappy: decoded length {0} exceeds limit {REQUEST_LEN_MAX}")]
    OverLimit(u64),
    /// It is no message.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// A text in it is none.
    #[error("string field contains invalid UTF-8")]
    Utf8,
    /// It has more queries and matchers than anybody needs.
    #[error("the request has more than {PARTS_MAX} queries and matchers")]
    TooMany,
}

/// Why a matcher cannot be used; the texts are those of Prometheus.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MatcherError {
    /// There is no such kind.
    #[error("invalid matcher type")]
    Kind,
    /// Its expression is broken.
    #[error(transparent)]
    Regexp(#[from] RegexpError),
}

/// Unpacks and reads the body of a request.
pub fn decode_request(body: &[u8]) -> Result<ReadRequest, RequestError> {
    let len = match snap::raw::decompress_len(body) {
        _ if body.is_empty() => return Err(RequestError::Snappy),
        Ok(len) => len,
        Err(_) => return Err(RequestError::Snappy),
    };
    if REQUEST_LEN_MAX < len {
        return Err(RequestError::OverLimit(len as u64));
    }
    if unpack::is_beyond_snappy(len, body) {
        return Err(RequestError::Snappy);
    }
    let unpacked = snap::raw::Decoder::new().decompress_vec(body).map_err(|_| RequestError::Snappy)?;
    let mut request = ReadRequest::default();
    let mut parts_left = PARTS_MAX;
    let mut fields = Fields::new("ReadRequest", &unpacked);
    while let Some((field, value)) = fields.next()? {
        match field {
            1 => request.queries.push(query(value.bytes("Queries")?, &mut parts_left)?),
            2 => {
                let accepted = &mut request.accepted;
                // Go keeps the lowest 32 bits of an enum.
                value.varints("AcceptedResponseTypes", |kind| {
                    if accepted.len() < PARTS_MAX {
                        accepted.push(kind as i32);
                    }
                })?;
            }
            _ => {}
        }
    }
    Ok(request)
}

fn query(message: &[u8], parts_left: &mut usize) -> Result<ReadQuery, RequestError> {
    *parts_left = parts_left.checked_sub(1).ok_or(RequestError::TooMany)?;
    let (mut query, mut hinted) = (ReadQuery::default(), None);
    let mut fields = Fields::new("Query", message);
    while let Some((field, value)) = fields.next()? {
        match field {
            1 => query.start_ms = value.varint("StartTimestampMs")?.cast_signed(),
            2 => query.end_ms = value.varint("EndTimestampMs")?.cast_signed(),
            3 => {
                *parts_left = parts_left.checked_sub(1).ok_or(RequestError::TooMany)?;
                query.matchers.push(matcher(value.bytes("Matchers")?)?);
            }
            4 => hinted = Some(hints(value.bytes("Hints")?)?),
            _ => {}
        }
    }
    // What lies outside of them is not looked at, as in Prometheus.
    if let Some((start_ms, end_ms)) = hinted.filter(|range| *range != (0, 0)) {
        query.start_ms = query.start_ms.max(start_ms);
        query.end_ms = query.end_ms.min(end_ms);
    }
    Ok(query)
}

/// First and last time of which the client makes use.
fn hints(message: &[u8]) -> Result<(i64, i64), RequestError> {
    let (mut start_ms, mut end_ms) = (0, 0);
    let mut fields = Fields::new("ReadHints", message);
    while let Some((field, value)) = fields.next()? {
        match field {
            3 => start_ms = value.varint("StartMs")?.cast_signed(),
            4 => end_ms = value.varint("EndMs")?.cast_signed(),
            _ => {}
        }
    }
    Ok((start_ms, end_ms))
}

fn matcher(message: &[u8]) -> Result<ReadMatcher, RequestError> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).map_err(|_| RequestError::Utf8);
    let mut matcher = ReadMatcher::default();
    let mut fields = Fields::new("LabelMatcher", message);
    while let Some((field, value)) = fields.next()? {
        match field {
            1 => matcher.kind = value.varint("Type")? as i32,
            2 => matcher.name = text(value.bytes("Name")?)?,
            3 => matcher.value = text(value.bytes("Value")?)?,
            _ => {}
        }
    }
    Ok(matcher)
}

impl ReadRequest {
    /// The first kind of answer that we have of those that the client reads. The error is what it is told.
    pub fn response_type(&self) -> Result<ResponseType, String> {
        if self.accepted.is_empty() {
            return Ok(ResponseType::Samples);
        }
        let known = self.accepted.iter().find_map(|kind| match kind {
            0 => Some(ResponseType::Samples),
            1 => Some(ResponseType::StreamedChunks),
            _ => None,
        });
        known.ok_or_else(|| {
            let listed: Vec<String> = self.accepted.iter().map(i32::to_string).collect();
            format!(
                "server does not support any of the requested response types: [{}]; supported: map[SAMPLES:{{}} \
                 STREAMED_XOR_CHUNKS:{{}}]",
                listed.join(" ")
            )
        })
    }
}

impl ReadQuery {
    /// Matchers to select with: external labels are not stored, so that one that asks for its value asks for nothing there.
    pub fn local_matchers(&self, external: &Labels) -> Result<Vec<Matcher>, MatcherError> {
        let mut matchers = Vec::with_capacity(self.matchers.len());
        for sent in &self.matchers {
            let matcher = sent.to_matcher()?;
            // As in Prometheus a label that is not external counts as external and empty.
            let is_external =
                matcher.op() == MatchOp::Equal && external.get(matcher.name()).unwrap_or_default() == matcher.value();
            matchers.push(if is_external { Matcher::equal(matcher.name(), "") } else { matcher });
        }
        Ok(matchers)
    }

    /// When; `None` if the end lies before the start.
    pub fn range(&self) -> Option<TimeRange> {
        TimeRange::new(TimestampMs(self.start_ms), TimestampMs(self.end_ms)).ok()
    }
}

impl ReadMatcher {
    /// The matcher that is sent for another.
    pub fn of(matcher: &Matcher) -> Self {
        let kind = match matcher.op() {
            MatchOp::Equal => 0,
            MatchOp::NotEqual => 1,
            MatchOp::Regex => 2,
            MatchOp::NotRegex => 3,
        };
        Self { kind, name: matcher.name().to_owned(), value: matcher.value().to_owned() }
    }

    fn to_matcher(&self) -> Result<Matcher, MatcherError> {
        let op = match self.kind {
            0 => MatchOp::Equal,
            1 => MatchOp::NotEqual,
            2 => MatchOp::Regex,
            3 => MatchOp::NotRegex,
            _ => return Err(MatcherError::Kind),
        };
        Ok(Matcher::new(op, self.name.clone(), self.value.clone())?)
    }
}

/// The body of a request, packed.
pub fn encode_request(request: &ReadRequest) -> Vec<u8> {
    let mut message = Vec::new();
    for query in &request.queries {
        let mut one = Vec::new();
        put_int(&mut one, 1, query.start_ms);
        put_int(&mut one, 2, query.end_ms);
        for matcher in &query.matchers {
            let mut part = Vec::new();
            put_int(&mut part, 1, i64::from(matcher.kind));
            if !matcher.name.is_empty() {
                put_bytes(&mut part, 2, matcher.name.as_bytes());
            }
            if !matcher.value.is_empty() {
                put_bytes(&mut part, 3, matcher.value.as_bytes());
            }
            put_bytes(&mut one, 3, &part);
        }
        // Without steps and functions: what is asked for is what is selected.
        let mut hints = Vec::new();
        put_int(&mut hints, 3, query.start_ms);
        put_int(&mut hints, 4, query.end_ms);
        put_bytes(&mut one, 4, &hints);
        put_bytes(&mut message, 1, &one);
    }
    if !request.accepted.is_empty() {
        // Numbers below 128 take a byte each.
        let kinds: Vec<u8> = request.accepted.iter().filter_map(|kind| u8::try_from(*kind).ok()).collect();
        put_bytes(&mut message, 2, &kinds);
    }
    // It fails for inputs of more than 4 GiB alone.
    snap::raw::Encoder::new().compress_vec(&message).unwrap_or_default()
}
