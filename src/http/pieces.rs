//! Answers that are written piece by piece, as the connection takes them, so that a large one is never in memory whole.
//!
//! A [`Script`] writes JSON a bit at a time; [`Pieces`] are what goes on the wire, compressed or not. [`AnswerBody`] hands them to
//! the connection: one at a time, with a turn for other requests between two, and holds the answer's share of memory until
//! the last one is with it. A client that takes longer for a piece than it may is cut off.

use std::io::Write;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use actix_web::body::{BodySize, MessageBody};
use bytes::Bytes;

use crate::http::compress::{Encoder, Encoding};
use crate::http::held::Held;
use crate::http::json::{Json, LabelObjects};
use crate::model::clock::SharedClock;
use crate::model::labels::Labels;
use crate::model::names::Names;
use crate::telemetry::metrics::Histogram;

/// Bytes of a piece, about: what takes well below a millisecond to write and to compress.
pub(super) const PIECE_LEN: usize = 32 << 10;
/// Most bytes that are handed to a connection at a time.
const HANDED_LEN: usize = 64 << 10;

/// Why an answer ends before its end.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct CutOff(String);

impl CutOff {
    pub(super) fn new(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }
}

/// What follows the beginning of an answer.
pub(super) trait Pieces: Send {
    /// The next piece, not empty; `None` after the last. An error ends the connection.
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Vec<u8>, CutOff>>>;

    /// Whether each piece is to go on the wire as soon as it is there, rather than when there is enough to compress.
    fn is_live(&self) -> bool {
        false
    }
}

/// Writes an answer bit by bit.
pub(super) trait Script: Send {
    /// Writes about [`PIECE_LEN`] bytes more; false once there is nothing more to write.
    fn write(&mut self, json: &mut Json) -> bool;

    /// The share of memory, once all is written.
    fn take_held(&mut self) -> Held {
        Held::default()
    }
}

/// Label sets, written one by one as an array and let go.
pub(super) struct EachSet {
    sets: std::vec::IntoIter<Labels>,
    objects: LabelObjects,
    is_first: bool,
    held: Held,
}

impl EachSet {
    /// An array of `sets`, which hold a share of memory.
    pub(super) fn new(sets: Vec<Labels>, held: Held) -> Self {
        Self { sets: sets.into_iter(), objects: LabelObjects::default(), is_first: true, held }
    }
}

impl Script for EachSet {
    fn write(&mut self, json: &mut Json) -> bool {
        let until = json.len() + PIECE_LEN;
        for labels in self.sets.by_ref() {
            json.raw(if std::mem::take(&mut self.is_first) { "[" } else { "," });
            self.objects.write(labels, json);
            if until <= json.len() {
                return true;
            }
        }
        json.raw(if std::mem::take(&mut self.is_first) { "[]" } else { "]" });
        false
    }

    fn take_held(&mut self) -> Held {
        std::mem::take(&mut self.held)
    }
}

/// Names, written one by one as an array.
pub(super) struct EachName {
    names: Names,
    next: usize,
    held: Held,
}

impl EachName {
    /// An array of `names`, which hold a share of memory.
    pub(super) fn new(names: Names, held: Held) -> Self {
        Self { names, next: 0, held }
    }
}

impl Script for EachName {
    fn write(&mut self, json: &mut Json) -> bool {
        let until = json.len() + PIECE_LEN;
        while let Some(name) = self.names.get(self.next) {
            json.raw(if self.next == 0 { "[" } else { "," });
            json.string(name);
            self.next += 1;
            if until <= json.len() {
                return true;
            }
        }
        json.raw(if self.next == 0 { "[]" } else { "]" });
        self.names = Names::default();
        false
    }

    fn take_held(&mut self) -> Held {
        std::mem::take(&mut self.held)
    }
}

/// A script and what follows it.
pub(super) struct Scripted {
    script: Box<dyn Script>,
    tail: Vec<u8>,
    is_done: bool,
}

impl Scripted {
    /// The rest of an answer.
    pub(super) fn new(script: Box<dyn Script>, tail: Vec<u8>) -> Self {
        Self { script, tail, is_done: false }
    }
}

impl Pieces for Scripted {
    fn poll_piece(&mut self, _: &mut Context<'_>) -> Poll<Option<Result<Vec<u8>, CutOff>>> {
        if self.is_done {
            return Poll::Ready(None);
        }
        let mut json = Json::with_room(PIECE_LEN + PIECE_LEN / 4);
        self.is_done = !self.script.write(&mut json);
        let mut piece = json.into_bytes();
        if self.is_done {
            // The script is kept for what it holds, until this is with the connection.
            piece.append(&mut self.tail);
        }
        Poll::Ready(Some(Ok(piece)))
    }
}

/// Pieces that are compressed as they come.
pub(super) struct Compressed {
    pieces: Box<dyn Pieces>,
    encoder: Option<Encoder>,
}

impl Compressed {
    /// `first` comes before `pieces`. Answers with what is to be sent first.
    pub(super) fn begin(
        encoding: Encoding,
        first: &[u8],
        pieces: Box<dyn Pieces>,
    ) -> std::io::Result<(Vec<u8>, Box<dyn Pieces>)> {
        let mut encoder = Encoder::new(encoding)?;
        encoder.write_all(first)?;
        let begun = encoder.take();
        Ok((begun, Box::new(Self { pieces, encoder: Some(encoder) })))
    }

    fn step(&mut self, piece: Option<&[u8]>) -> std::io::Result<Vec<u8>> {
        match (piece, &mut self.encoder) {
            (Some(piece), Some(encoder)) => {
                encoder.write_all(piece)?;
                Ok(encoder.take())
            }
            (_, encoder) => encoder.take().map_or(Ok(Vec::new()), Encoder::finish),
        }
    }
}

impl Pieces for Compressed {
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Vec<u8>, CutOff>>> {
        if self.encoder.is_none() {
            return Poll::Ready(None);
        }
        let piece = match self.pieces.poll_piece(cx) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error))),
            Poll::Ready(Some(Ok(piece))) => Some(piece),
            Poll::Ready(None) => None,
        };
        let is_last = piece.is_none();
        match self.step(piece.as_deref()) {
            Err(error) => Poll::Ready(Some(Err(CutOff::new(error.to_string())))),
            Ok(out) if out.is_empty() && !is_last => {
                // It fits into what the encoder gathers.
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Ok(out) => Poll::Ready((!out.is_empty()).then_some(Ok(out))),
        }
    }
}

/// What an answer is measured by when its last byte is with the connection.
pub(super) struct Measured {
    /// Sizes of the handler's answers.
    pub(super) size: Histogram,
    pub(super) clock: SharedClock,
    /// How long a client may take for a piece.
    pub(super) piece_within: Duration,
}

/// The body of an answer.
pub(super) struct AnswerBody {
    ready: Bytes,
    pieces: Option<Box<dyn Pieces>>,
    held: Held,
    measured: Option<Measured>,
    sent_len: u64,
    /// When the connection took the last piece that was there for it to take.
    handed_at: Option<Duration>,
    /// A turn of others is due before the next piece.
    yields: bool,
}

impl AnswerBody {
    pub(super) fn new(ready: Vec<u8>, pieces: Option<Box<dyn Pieces>>, held: Held, measured: Option<Measured>) -> Self {
        let ready = ready.into();
        Self { ready, pieces, held, measured, sent_len: 0, handed_at: None, yields: false }
    }

    /// True if the client took too long for what was handed over last.
    fn is_late(&mut self) -> bool {
        let Some(Measured { clock, piece_within, .. }) = &self.measured else { return false };
        self.handed_at.take().is_some_and(|at| *piece_within < clock.monotonic().saturating_sub(at))
    }

    fn hand_over(&mut self) -> Bytes {
        let piece = self.ready.split_to(self.ready.len().min(HANDED_LEN));
        self.sent_len += piece.len() as u64;
        self.handed_at = self.measured.as_ref().map(|measured| measured.clock.monotonic());
        piece
    }
}

impl MessageBody for AnswerBody {
    type Error = CutOff;

    fn size(&self) -> BodySize {
        if self.pieces.is_some() { BodySize::Stream } else { BodySize::Sized(self.ready.len() as u64) }
    }

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, CutOff>>> {
        if std::mem::take(&mut self.yields) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if self.is_late() {
            return Poll::Ready(Some(Err(CutOff::new("the client takes too long"))));
        }
        if !self.ready.is_empty() {
            return Poll::Ready(Some(Ok(self.hand_over())));
        }
        let Some(pieces) = &mut self.pieces else { return Poll::Ready(None) };
        match pieces.poll_piece(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Some(Ok(piece))) => {
                self.ready = piece.into();
                self.yields = true;
                Poll::Ready(Some(Ok(self.hand_over())))
            }
            Poll::Ready(Some(Err(error))) => {
                tracing::warn!(component = "web", err = %error, "An answer was cut off");
                self.pieces = None;
                Poll::Ready(Some(Err(error)))
            }
            Poll::Ready(None) => {
                self.pieces = None;
                self.held = Held::default();
                Poll::Ready(None)
            }
        }
    }
}

impl Drop for AnswerBody {
    fn drop(&mut self) {
        if let Some(measured) = &self.measured {
            measured.size.observe(self.sent_len as f64);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::task::Waker;

    use super::*;
    use crate::model::clock::ManualClock;
    use crate::model::time::TimestampMs;
    use crate::telemetry::metrics::Registry;

    fn scripted(count: usize) -> Box<dyn Pieces> {
        let sets = (0..count).map(|n| Labels::from_pairs([("a", "same".to_owned()), ("n", n.to_string())])).collect();
        Box::new(Scripted::new(Box::new(EachSet::new(sets, Held::default())), b"}".to_vec()))
    }

    fn expected(count: usize) -> String {
        let sets: Vec<String> = (0..count).map(|n| format!("{{\"a\":\"same\",\"n\":\"{n}\"}}")).collect();
        format!("{{\"a\":[{}]}}", sets.join(","))
    }

    /// All bytes and the longest piece.
    fn drain(mut body: AnswerBody) -> Result<(Vec<u8>, usize), CutOff> {
        let (mut all, mut longest) = (Vec::new(), 0);
        let mut cx = Context::from_waker(Waker::noop());
        loop {
            match Pin::new(&mut body).poll_next(&mut cx) {
                Poll::Pending => {}
                Poll::Ready(None) => return Ok((all, longest)),
                Poll::Ready(Some(piece)) => {
                    let piece = piece?;
                    longest = longest.max(piece.len());
                    all.extend_from_slice(&piece);
                }
            }
        }
    }

    #[test]
    fn arrays_of_any_length_are_written_in_bounded_pieces() {
        for count in [0, 1, 2, 100_000] {
            let body = AnswerBody::new(b"{\"a\":".to_vec(), Some(scripted(count)), Held::default(), None);
            assert_eq!(body.size(), BodySize::Stream);
            let (all, longest) = drain(body).unwrap();
            assert_eq!(String::from_utf8(all).unwrap(), expected(count));
            assert!(longest <= PIECE_LEN + 64, "{longest}");
        }
    }

    #[test]
    fn pieces_are_compressed_as_they_come() {
        for encoding in [Encoding::Gzip, Encoding::Deflate, Encoding::Zstd] {
            let (first, pieces) = Compressed::begin(encoding, b"{\"a\":", scripted(100_000)).unwrap();
            let (all, _) = drain(AnswerBody::new(first, Some(pieces), Held::default(), None)).unwrap();
            let mut text = String::new();
            match encoding {
                Encoding::Gzip => drop(flate2::read::GzDecoder::new(&all[..]).read_to_string(&mut text).unwrap()),
                Encoding::Deflate => drop(flate2::read::ZlibDecoder::new(&all[..]).read_to_string(&mut text).unwrap()),
                Encoding::Zstd => text = String::from_utf8(zstd::stream::decode_all(&all[..]).unwrap()).unwrap(),
            }
            assert!(all.len() * 2 < text.len());
            assert_eq!(text, expected(100_000));
        }
    }

    #[test]
    fn a_slow_client_is_cut_off_and_sizes_are_counted() {
        let (registry, clock) = (Registry::shared(), ManualClock::at(TimestampMs(0)));
        let size = registry.histogram("s", "h", &[], &[1e9]);
        let piece_within = Duration::from_secs(60);
        let measured = || {
            let clock: SharedClock = SharedClock::clone(&(std::sync::Arc::clone(&clock) as SharedClock));
            Measured { size: size.clone(), clock, piece_within }
        };
        let mut cx = Context::from_waker(Waker::noop());
        let mut body = AnswerBody::new(vec![0; 3 * HANDED_LEN], None, Held::default(), Some(measured()));
        assert!(matches!(Pin::new(&mut body).poll_next(&mut cx), Poll::Ready(Some(Ok(_)))));
        clock.advance(Duration::from_secs(60));
        assert!(matches!(Pin::new(&mut body).poll_next(&mut cx), Poll::Ready(Some(Ok(_)))));
        clock.advance(Duration::from_secs(61));
        assert!(matches!(Pin::new(&mut body).poll_next(&mut cx), Poll::Ready(Some(Err(_)))));
        drop(body);
        assert_eq!(drain(AnswerBody::new(vec![0; 5], None, Held::default(), Some(measured()))).unwrap().0.len(), 5);
    }
}
