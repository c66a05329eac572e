//! The answer: what storage says of a batch, in the words and status codes of Prometheus.

use crate::model::append::{AppendReport, SampleRejection};
use crate::remote::receive::budget::NoRoom;
use crate::remote::receive::collect::Decoded;
use crate::remote::receive::format::Message;
use crate::remote::receive::labels::Pairs;
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
    let text_of = |index: u32, rejection: &SampleRejection| match rejection {
        SampleRejection::OutOfBounds if decoded.is_future(index) => {
            format!("{rejection}: timestamp is too far in the future")
        }
        _ => rejection.to_string(),
    };
    let mut problems = decoded.problems.clone();
    match message {
        Message::V1 => {
            if let Some((index, rejection)) = report.reported().find(|(_, rejection)| is_fatal(rejection)) {
                return Reply::refused(BAD_REQUEST, Some(message), text_of(*index, rejection));
            }
            for (index, rejection) in report.reported() {
                problems.add(*index, || {
                    let mut pairs = Pairs::default();
                    let read = v1::read_labels(decoded.message_of(*index, body), &mut pairs);
                    debug_assert!(read.is_ok(), "it was read before");
                    format!("{rejection} for series {pairs}")
                });
            }
        }
        Message::V2 if !report.rejected.is_empty() => {
            // Read before, so it can be read again.
            let symbols = v2::symbols(body).unwrap_or_default();
            for (index, rejection) in report.reported() {
                problems.add(*index, || {
                    let series = v2::show_labels(decoded.message_of(*index, body), &symbols);
                    format!("{} for series {series}", text_of(*index, rejection))
                });
            }
        }
        Message::V2 => {}
    }
    // As in Prometheus, which drops samples that stand against others of the request later on.
    let samples = u64::from(report.appended) + report.against_staged.len() as u64;
    let written = Written { samples, histograms: 0, exemplars: decoded.exemplars };
    let written = (message == Message::V2).then_some(written);
    if problems.is_empty() {
        return Reply { status: NO_CONTENT, written, text: String::new() };
    }
    Reply { status: BAD_REQUEST, written, text: problems.text() }
}
