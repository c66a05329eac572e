//! The answer: what storage says of a batch, in the words and status codes of Prometheus.

use crate::model::append::{AppendReport, SampleRejection};
use crate::model::exemplar::ExemplarRejection;
use crate::remote::receive::budget::NoRoom;
use crate::remote::receive::collect::{Decoded, Subject};
use crate::remote::receive::format::Message;
use crate::remote::receive::{DecodeError, UnpackError, v1, v2};

/// What was written, for the headers of version 2.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Float samples.
    pub samples: u64,
    /// Native histograms.
    pub histograms: u64,
    /// Exemplars.
    pub exemplars: u64,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// Figures for the headers, which only version 2 has.
    pub written: Option<Written>,
    /// The error, empty for success.
    pub text: String,
}

const NO_CONTENT: u16 = 204;
const BAD_REQUEST: u16 = 400;
const TOO_LARGE: u16 = 413;
const UNAVAILABLE: u16 = 503;

impl Reply {
    /// A request of which nothing was written.
    pub fn refused(status: u16, message: Option<Message>, text: impl Into<String>) -> Self {
        let written = message.filter(|message| *message == Message::V2).map(|_| Written::default());
        Self { status, written, text: text.into() }
    }

    /// A request that cannot be taken now, and may be sent again.
    pub fn unavailable(message: Message, text: impl Into<String>) -> Self {
        Self::refused(UNAVAILABLE, Some(message), text)
    }

    /// A body that cannot be read.
    pub fn undecodable(message: Message, error: &DecodeError) -> Self {
        let status = match error {
            DecodeError::Room(room) => Self::status_of_room(*room),
            DecodeError::Wire(_) => BAD_REQUEST,
            DecodeError::TooMany => TOO_LARGE,
        };
        Self::refused(status, Some(message), error.to_string())
    }

    /// A body that cannot be decompressed. As in Prometheus the message is not looked at before that.
    pub fn packed(error: &UnpackError) -> Self {
        Self::refused(BAD_REQUEST, None, error.to_string())
    }

    /// A request for which there is no memory.
    pub fn no_room(room: NoRoom) -> Self {
        Self::refused(Self::status_of_room(room), None, room.to_string())
    }

    fn status_of_room(room: NoRoom) -> u16 {
        match room {
            NoRoom::Now { .. } => UNAVAILABLE,
            NoRoom::Ever { .. } => TOO_LARGE,
        }
    }
}

/// Whether a batch with this refusal is not stored at all in version 1. One that the head has no room for leaves the
/// others be: series that it has go on.
pub(super) fn is_fatal(rejection: &SampleRejection) -> bool {
    !matches!(rejection, SampleRejection::SeriesLimit { .. })
}

/// The answer to a batch that was stored as `report` says; `body` is the request.
pub fn of_report(message: Message, body: &[u8], decoded: &Decoded, report: &AppendReport) -> Reply {
    let text_of = |subject: Subject<'_>, rejection: &SampleRejection| match rejection {
        SampleRejection::OutOfBounds if subject.is_future => {
            format!("{rejection}: timestamp is too far in the future")
        }
        _ => rejection.to_string(),
    };
    if message == Message::V1 {
        // The first in the order of the request, in which a series has its samples before its histograms.
        let fatal = report.reported().filter(|(_, rejection)| is_fatal(rejection));
        let first = fatal.map(|(index, rejection)| (decoded.subject(*index, body), rejection));
        if let Some((subject, rejection)) = first.min_by_key(|(subject, _)| subject.place) {
            return Reply::refused(BAD_REQUEST, Some(message), text_of(subject, rejection));
        }
    }
    let mut problems = decoded.problems.clone();
    let (mut samples, mut histograms) = (decoded.batch_samples_len(), u64::from(decoded.histograms_len));
    // It was read before, so it can be read again.
    let symbols = match message {
        Message::V2 if !report.rejected.is_empty() || !report.exemplars_rejected.is_empty() => {
            v2::symbols(body).unwrap_or_default()
        }
        _ => Vec::new(),
    };
    // Samples that stand against others of the request are counted as written, as in Prometheus, which drops them later on.
    for (index, rejection) in report.reported() {
        match decoded.is_histogram(*index) {
            true => histograms = histograms.saturating_sub(1),
            false => samples = samples.saturating_sub(1),
        }
        let subject = decoded.subject(*index, body);
        problems.add(subject.place, || {
            let series = match message {
                Message::V1 => v1::show_labels(subject.message),
                Message::V2 => v2::show_labels(subject.message, &symbols),
            };
            format!("{} for series {series}", text_of(subject, rejection))
        });
    }
    for (index, rejection) in &report.exemplars_rejected {
        if message == Message::V2 && *rejection == ExemplarRejection::OutOfOrder {
            let subject = decoded.exemplar(*index, body);
            problems.add(subject.place, || {
                format!("{rejection} for series {}", v2::show_labels(subject.message, &symbols))
            });
        }
    }
    let exemplars = decoded.exemplars.saturating_sub(report.exemplars_rejected.len() as u64);
    let written = Written { samples, histograms, exemplars };
    let written = (message == Message::V2).then_some(written);
    if problems.is_empty() {
        return Reply { status: NO_CONTENT, written, text: String::new() };
    }
    Reply { status: BAD_REQUEST, written, text: problems.text() }
}
