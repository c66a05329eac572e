//! What answers hold of the memory of queries: charged from the evaluation until the last byte is sent.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use actix_web::body::{BodySize, MessageBody};
use bytes::Bytes;

/// Most bytes that are handed to a connection at a time.
const PIECE_LEN: usize = 64 << 10;

/// The account of an answer.
pub trait AnswerMemory: Send {
    /// Charges `bytes` more; the error is what the client reads.
    fn grow(&mut self, bytes: usize) -> Result<(), String>;
    /// Sets the charge to `bytes`, which is at most what is charged; more is not given back.
    fn settle(&mut self, bytes: usize);
}

/// An answer's share, given back on drop; the default holds nothing.
#[derive(Default)]
pub struct Held(Option<Box<dyn AnswerMemory>>);

impl Held {
    /// A share under an account.
    pub fn new(memory: impl AnswerMemory + 'static) -> Self {
        Self(Some(Box::new(memory)))
    }

    /// As [`AnswerMemory::grow`].
    pub fn grow(&mut self, bytes: usize) -> Result<(), String> {
        self.0.as_mut().map_or(Ok(()), |memory| memory.grow(bytes))
    }

    /// As [`AnswerMemory::settle`].
    pub fn settle(&mut self, bytes: usize) {
        if let Some(memory) = &mut self.0 {
            memory.settle(bytes);
        }
    }
}

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_some() { "Held(..)" } else { "Held" })
    }
}

/// A body that is sent piece by piece, and holds its share until all of it is with the connection.
pub(super) struct HeldBody {
    rest: Bytes,
    _held: Held,
}

impl HeldBody {
    pub(super) fn new(body: Vec<u8>, held: Held) -> Self {
        Self { rest: body.into(), _held: held }
    }
}

impl MessageBody for HeldBody {
    type Error = Infallible;

    fn size(&self) -> BodySize {
        BodySize::Sized(self.rest.len() as u64)
    }

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, Infallible>>> {
        let len = self.rest.len().min(PIECE_LEN);
        Poll::Ready((0 < len).then(|| Ok(self.rest.split_to(len))))
    }
}
