//! A stream of bytes with somebody who watches what is read from it, and words what fails.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Watches a stream.
pub(super) trait Watch: Unpin {
    /// Reads from the stream.
    fn read<W: AsyncRead + Unpin>(
        &mut self,
        wire: &mut W,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>>;

    /// What is told of a write that failed.
    fn write_failed(&self, error: io::Error) -> io::Error {
        error
    }
}

/// A stream that is watched.
pub(super) struct Watched<W, T> {
    wire: W,
    watch: T,
}

impl<W, T> Watched<W, T> {
    pub(super) fn new(wire: W, watch: T) -> Self {
        Self { wire, watch }
    }
}

impl<W: AsyncRead + Unpin, T: Watch> AsyncRead for Watched<W, T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { wire, watch } = &mut *self;
        watch.read(wire, cx, buf)
    }
}

impl<W: AsyncWrite + Unpin, T: Watch> AsyncWrite for Watched<W, T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.wire).poll_write(cx, buf).map_err(|error| self.watch.write_failed(error))
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
        Pin::new(&mut self.wire).poll_write_vectored(cx, bufs).map_err(|error| self.watch.write_failed(error))
    }
}
