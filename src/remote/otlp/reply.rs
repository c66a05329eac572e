//! The answer to an OTLP request. As in Prometheus a request with anything wrong in it is not stored at all.

use crate::model::append::{AppendReport, SampleRejection};
use crate::remote::otlp::convert::{Converted, OtlpError};
use crate::remote::receive::Reply;
use crate::remote::receive::budget::NoRoom;

const OK: u16 = 200;
const BAD_REQUEST: u16 = 400;
const TOO_LARGE: u16 = 413;
const INTERNAL: u16 = 500;
const UNAVAILABLE: u16 = 503;

impl From<&OtlpError> for Reply {
    fn from(error: &OtlpError) -> Self {
        let status = match error {
            OtlpError::Malformed(_) => BAD_REQUEST,
            OtlpError::Room(NoRoom::Now { .. }) => UNAVAILABLE,
            OtlpError::Room(NoRoom::Ever { .. }) => TOO_LARGE,
        };
        Self::refused(status, None, error.to_string())
    }
}

impl Converted {
    /// The answer to a request that cannot be translated whole.
    pub fn refusal(&self) -> Option<Reply> {
        let lines: Vec<&str> = self.errors.iter().map(|(_, reason)| reason.as_str()).collect();
        (!lines.is_empty()).then(|| Reply::refused(INTERNAL, None, lines.join("\n")))
    }

    /// The metric that a sample or histogram belongs to.
    fn metric_of(&self, index: u32) -> u32 {
        let after = match index.checked_sub(self.samples_len) {
            None => self.metrics.partition_point(|(sample, _, _)| *sample <= index),
            Some(histogram) => self.metrics.partition_point(|(_, first, _)| *first <= histogram),
        };
        after.checked_sub(1).and_then(|at| self.metrics.get(at)).map_or(0, |(_, _, metric)| *metric)
    }
}

/// The answer to a batch that was stored, or refused, as `report` says: the first error of each metric.
pub fn of_report(converted: &Converted, report: &AppendReport) -> Reply {
    let mut told: Vec<(u32, String)> = Vec::new();
    let mut is_bad_request = true;
    for (index, rejection) in report.reported() {
        let metric = converted.metric_of(*index);
        if told.iter().any(|(known, _)| *known == metric) {
            continue;
        }
        // Everything else is an error of ours in Prometheus's eyes, and so is a histogram that is malformed.
        is_bad_request &= !matches!(rejection, SampleRejection::InvalidHistogram(_));
        let text = match rejection {
            SampleRejection::OutOfBounds if converted.future.contains(index) => {
                format!("{rejection}: timestamp is too far in the future")
            }
            _ => rejection.to_string(),
        };
        told.push((metric, text));
    }
    if told.is_empty() {
        return Reply { status: OK, written: None, text: String::new() };
    }
    told.sort_by_key(|(metric, _)| *metric);
    let lines: Vec<String> = told.into_iter().map(|(_, text)| text).collect();
    let status = if is_bad_request { BAD_REQUEST } else { INTERNAL };
    Reply::refused(status, None, lines.join("\n"))
}
