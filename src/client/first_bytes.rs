//! What a peer says first, kept while a TLS handshake is tried: its failure then tells a peer that speaks HTTP from any other.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// How many bytes are kept: those of a record's header, or `HTTP/`.
const LEN_MAX: usize = 5;

/// The first bytes that a peer has sent so far.
#[derive(Clone, Debug, Default)]
pub(super) struct FirstBytes(Arc<Mutex<Vec<u8>>>);

impl FirstBytes {
    /// True if they begin an answer of HTTP.
    pub(super) fn are_http(&self) -> bool {
        self.0.lock().as_slice() == b"HTTP/"
    }
}

/// A stream whose first bytes are noted as they are read.
pub(super) struct Noting<W> {
    wire: W,
    /// None once all are there.
    first: Option<FirstBytes>,
}

impl<W> Noting<W> {
    pub(super) fn new(wire: W) -> (Self, FirstBytes) {
        let first = FirstBytes::default();
        (Self { wire, first: Some(first.clone()) }, first)
    }
}

impl<W: AsyncRead + Unpin> AsyncRead for Noting<W> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.wire).poll_read(cx, buf))?;
        if let Some(first) = &self.first {
            let mut noted = first.0.lock();
            let read = buf.filled().get(before..).unwrap_or_default();
            let room = LEN_MAX - noted.len().min(LEN_MAX);
            noted.extend(read.iter().take(room));
            if noted.len() == LEN_MAX {
                drop(noted);
                self.first = None;
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<W: AsyncWrite + Unpin> AsyncWrite for Noting<W> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.wire).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.wire.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.wire).poll_write_vectored(cx, bufs)
    }
}
