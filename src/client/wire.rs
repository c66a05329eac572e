//! What is known of a connection when it fails: between whom it was, and how an answer began that is none. Texts are Go's.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::model::go;

/// Longest status line that is waited for.
const LINE_LEN_MAX: usize = 4096;

/// Who is at the two ends of a connection.
#[derive(Clone, Debug)]
pub(super) enum Ends {
    /// This machine's address and the other's.
    Tcp(SocketAddr, SocketAddr),
    /// A socket of this machine at a path.
    Unix(String),
}

impl fmt::Display for Ends {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(own, peer) => write!(f, "tcp {own}->{peer}"),
            Self::Unix(path) => write!(f, "unix @->{path}"),
        }
    }
}

/// A connection that the peer has reset, or no longer takes anything from.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{operation} {ends}: {operation}: {reason}")]
pub(super) struct Broken {
    operation: &'static str,
    ends: Ends,
    reason: &'static str,
}

/// An answer that does not begin as HTTP does.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Malformed(String);

/// A socket whose errors name its ends.
pub(super) struct Socket<S> {
    stream: S,
    ends: Ends,
}

impl<S> Socket<S> {
    pub(super) fn new(stream: S, ends: Ends) -> Self {
        Self { stream, ends }
    }

    fn told(&self, operation: &'static str, error: io::Error) -> io::Error {
        let kind = error.kind();
        let reason = match kind {
            io::ErrorKind::ConnectionReset => "connection reset by peer",
            io::ErrorKind::BrokenPipe => "broken pipe",
            _ => return error,
        };
        io::Error::new(kind, Broken { operation, ends: self.ends.clone(), reason })
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Socket<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf).map_err(|error| self.told("read", error))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Socket<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf).map_err(|error| self.told("write", error))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs).map_err(|error| self.told("write", error))
    }
}

/// A stream of HTTP/1 whose first answer is looked at as it is read: what is none fails with [`Malformed`].
pub(super) struct Answering<W> {
    wire: W,
    /// The first line so far; `None` once it was seen, or where nothing is to be looked at.
    line: Option<Vec<u8>>,
}

impl<W> Answering<W> {
    /// A stream, to be looked at if it `is_http1`.
    pub(super) fn new(wire: W, is_http1: bool) -> Self {
        Self { wire, line: is_http1.then(Vec::new) }
    }
}

impl<W: AsyncRead + Unpin> AsyncRead for Answering<W> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { wire, line: first } = &mut *self;
        let Some(line) = first else { return Pin::new(wire).poll_read(cx, buf) };
        let before = buf.filled().len();
        ready!(Pin::new(&mut *wire).poll_read(cx, buf))?;
        let mut is_whole = note(line, buf.filled().get(before..).unwrap_or_default());
        // What can be no answer is read up to the end of its line, which is to be told.
        while !is_whole && !line.iter().zip(b"HTTP/").all(|(read, wanted)| read == wanted) {
            let mut space = [0; 512];
            let mut more = ReadBuf::new(&mut space);
            ready!(Pin::new(&mut *wire).poll_read(cx, &mut more))?;
            is_whole = note(line, more.filled());
        }
        if !is_whole {
            return Poll::Ready(Ok(()));
        }
        let checked = if line.is_empty() { Ok(()) } else { check_status_line(line) };
        *first = None;
        Poll::Ready(checked.map_err(|malformed| io::Error::new(io::ErrorKind::InvalidData, malformed)))
    }
}

impl<W: AsyncWrite + Unpin> AsyncWrite for Answering<W> {
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

/// Adds what was read to the line, up to its end; true once that is there, or the stream's own end, or too much.
fn note(line: &mut Vec<u8>, read: &[u8]) -> bool {
    let end = memchr::memchr(b'\n', read);
    line.extend_from_slice(read.get(..end.unwrap_or(read.len())).unwrap_or_default());
    read.is_empty() || end.is_some() || LINE_LEN_MAX < line.len()
}

/// Whether Go's `http.ReadResponse` takes a line, which may end with a carriage return, for the first one of an answer.
pub(super) fn check_status_line(line: &[u8]) -> Result<(), Malformed> {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let malformed =
        |what: &str, text: &[u8]| Err(Malformed(format!("malformed HTTP {what} {}", go::quote_bytes(text))));
    let (version, code) = match split_at_blank(line) {
        (_, None) => return malformed("response", line),
        (version, Some(status)) => (version, split_at_blank(status.trim_ascii_start()).0),
    };
    if code.len() != 3 || !code.iter().all(u8::is_ascii_digit) {
        return malformed("status code", code);
    }
    match version {
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor] if major.is_ascii_digit() && minor.is_ascii_digit() => {
            Ok(())
        }
        other => malformed("version", other),
    }
}

fn split_at_blank(text: &[u8]) -> (&[u8], Option<&[u8]>) {
    match memchr::memchr(b' ', text) {
        Some(at) => (text.get(..at).unwrap_or_default(), text.get(at + 1..)),
        None => (text, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_lines_are_read_as_in_go() {
        let text = |line: &[u8]| check_status_line(line).map_or_else(|it| it.to_string(), |()| "ok".to_owned());
        for good in ["HTTP/1.1 200 OK\r", "HTTP/1.0 200", "HTTP/1.1   404 x"] {
            assert_eq!(text(good.as_bytes()), "ok", "{good}");
        }
        for (line, told) in [
            (&b"SSH-2.0-x\r"[..], "malformed HTTP response \"SSH-2.0-x\""),
            (b"\x15\x03\x01\x00\x02\x02F", "malformed HTTP response \"\\x15\\x03\\x01\\x00\\x02\\x02F\""),
            (b"SSH 200 x", "malformed HTTP version \"SSH\""),
            (b"HTTP/1.x 200 x", "malformed HTTP version \"HTTP/1.x\""),
            (b"HTTP/1.1 2000 x", "malformed HTTP status code \"2000\""),
            (b"220 mail.example ESMTP", "malformed HTTP status code \"mail.example\""),
        ] {
            assert_eq!(text(line), told);
        }
    }
}
