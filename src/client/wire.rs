//! What is known of a connection when it fails: between whom it was, and how an answer began that is none. Texts are Go's.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};

use crate::client::watched::Watch;
use crate::model::go;

/// Longest head that is looked at.
const HEAD_LEN_MAX: usize = 8192;

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

impl Ends {
    fn told(&self, operation: &'static str, error: io::Error) -> io::Error {
        let kind = error.kind();
        let reason = match kind {
            io::ErrorKind::ConnectionReset => "connection reset by peer",
            io::ErrorKind::BrokenPipe => "broken pipe",
            _ => return error,
        };
        io::Error::new(kind, Broken { operation, ends: self.clone(), reason })
    }
}

impl Watch for Ends {
    fn read<W: AsyncRead + Unpin>(
        &mut self,
        wire: &mut W,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(wire).poll_read(cx, buf).map_err(|error| self.told("read", error))
    }

    fn write_failed(&self, error: io::Error) -> io::Error {
        self.told("write", error)
    }
}

/// Looks at the first answer of HTTP/1 as it is read: what is none fails with [`Malformed`]. Holds the head so far; none once it was
/// seen, is too long to be looked at, or there is nothing to look at.
pub(super) struct FirstHead(Option<Vec<u8>>);

impl FirstHead {
    /// Who looks, if the stream `is_http1`.
    pub(super) fn new(is_http1: bool) -> Self {
        Self(is_http1.then(Vec::new))
    }
}

impl Watch for FirstHead {
    fn read<W: AsyncRead + Unpin>(
        &mut self,
        wire: &mut W,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Some(head) = &mut self.0 else { return Pin::new(wire).poll_read(cx, buf) };
        let before = buf.filled().len();
        ready!(Pin::new(&mut *wire).poll_read(cx, buf))?;
        let read = buf.filled().get(before..).unwrap_or_default();
        head.extend_from_slice(read);
        let mut is_all = read.is_empty();
        // What can be no answer is read up to the end of its line, which is to be told.
        let mut space = [0; 512];
        while !is_all && is_odd(head) {
            let mut more = ReadBuf::new(&mut space);
            ready!(Pin::new(&mut *wire).poll_read(cx, &mut more))?;
            head.extend_from_slice(more.filled());
            is_all = more.filled().is_empty();
        }
        let looked = look_at(head, is_all);
        if !matches!(looked, Ok(Looked::Unfinished)) {
            self.0 = None;
        }
        Poll::Ready(looked.map(drop).map_err(|malformed| io::Error::new(io::ErrorKind::InvalidData, malformed)))
    }
}

enum Looked {
    /// There is more to come.
    Unfinished,
    /// Nothing speaks against it.
    Done,
}

/// True of the beginning of a line that no answer begins with.
fn is_odd(head: &[u8]) -> bool {
    let is_begun = head.iter().zip(b"HTTP/").all(|(read, wanted)| read == wanted);
    !is_begun && head.len() < HEAD_LEN_MAX && !head.contains(&b'\n')
}

/// Looks at what there is of a head; it may be all there will be.
fn look_at(head: &[u8], is_all: bool) -> Result<Looked, Malformed> {
    let mut lines = head.split_inclusive(|byte| *byte == b'\n');
    let is_whole = |line: &&[u8]| line.ends_with(b"\n");
    let knows_codings = match lines.next() {
        None => return Ok(if is_all { Looked::Done } else { Looked::Unfinished }),
        Some(line) if is_whole(&line) || is_all => {
            check_status_line(without_end(line))?;
            !line.starts_with(b"HTTP/1.0")
        }
        Some(_) => return Ok(Looked::Unfinished),
    };
    let mut fields = Fields::default();
    for line in lines.take_while(is_whole) {
        match without_end(line) {
            b"" => return fields.check(knows_codings).map(|()| Looked::Done),
            line => fields.add(line)?,
        }
    }
    Ok(if is_all || HEAD_LEN_MAX < head.len() { Looked::Done } else { Looked::Unfinished })
}

fn without_end(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// The fields that say how long a body is.
#[derive(Default)]
struct Fields<'a> {
    lengths: Vec<&'a [u8]>,
    codings: Vec<&'a [u8]>,
}

impl<'a> Fields<'a> {
    fn add(&mut self, line: &'a [u8]) -> Result<(), Malformed> {
        // A line that goes on.
        if matches!(line.first(), Some(b' ' | b'\t')) {
            return Ok(());
        }
        let Some(at) = memchr::memchr(b':', line) else {
            return Err(Malformed(format!("malformed MIME header: missing colon: {}", go::quote_bytes(line))));
        };
        let (name, value) = (line.get(..at).unwrap_or_default(), line.get(at + 1..).unwrap_or_default().trim_ascii());
        if name.eq_ignore_ascii_case(b"content-length") {
            self.lengths.push(value);
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            self.codings.push(value);
        }
        Ok(())
    }

    /// HTTP/1.0 knows no codings.
    fn check(&self, knows_codings: bool) -> Result<(), Malformed> {
        let list = |values: &[&[u8]]| values.iter().map(|value| go::quote_bytes(value)).collect::<Vec<_>>().join(" ");
        match self.codings.as_slice() {
            _ if !knows_codings => {}
            [] => {}
            [one] if one.eq_ignore_ascii_case(b"chunked") => return Ok(()),
            [one] => return Err(Malformed(format!("unsupported transfer encoding: {}", go::quote_bytes(one)))),
            many => return Err(Malformed(format!("too many transfer encodings: [{}]", list(many)))),
        }
        let Some((first, others)) = self.lengths.split_first() else { return Ok(()) };
        if others.iter().any(|other| other != first) {
            let text = "http: message cannot contain multiple Content-Length headers; got";
            return Err(Malformed(format!("{text} [{}]", list(&self.lengths))));
        }
        let is_number = !first.is_empty() && first.iter().all(u8::is_ascii_digit);
        if is_number { Ok(()) } else { Err(Malformed(format!("bad Content-Length {}", go::quote_bytes(first)))) }
    }
}

/// Whether Go's `http.ReadResponse` takes a line, without its end, for the first one of an answer.
pub(super) fn check_status_line(line: &[u8]) -> Result<(), Malformed> {
    let malformed =
        |what: &str, text: &[u8]| Err(Malformed(format!("malformed HTTP {what} {}", go::quote_bytes(text))));
    let (version, code) = match split_at_blank(line) {
        (_, None) => return malformed("response", line),
        (version, Some(status)) => {
            let from = status.iter().position(|byte| *byte != b' ').unwrap_or(status.len());
            (version, split_at_blank(status.get(from..).unwrap_or_default()).0)
        }
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
    fn heads_are_read_as_in_go() {
        let text = |head: &[u8], is_all: bool| match look_at(head, is_all) {
            Ok(Looked::Done) => "done".to_owned(),
            Ok(Looked::Unfinished) => "unfinished".to_owned(),
            Err(malformed) => malformed.to_string(),
        };
        for good in ["HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.0 200\n\n", "HTTP/1.1   404 x\r\nA:b\r\n c\r\n\r\nx"] {
            assert_eq!(text(good.as_bytes(), false), "done", "{good}");
        }
        for part in ["", "H", "HTTP/1.1 200 OK\r", "HTTP/1.1 200 OK\r\nA: b\r\nnot whole"] {
            assert_eq!(text(part.as_bytes(), false), "unfinished", "{part}");
        }
        assert_eq!(text(b"", true), "done", "it is for others to say that there is none");
        for (line, told) in [
            (&b"SSH-2.0-x\r\n"[..], "malformed HTTP response \"SSH-2.0-x\""),
            (b"\r\n", "malformed HTTP response \"\""),
            (b"\x15\x03\x01\x00\x02\x02F", "malformed HTTP response \"\\x15\\x03\\x01\\x00\\x02\\x02F\""),
            (b"SSH 200 x", "malformed HTTP version \"SSH\""),
            (b"HTTP/1.x 200 x", "malformed HTTP version \"HTTP/1.x\""),
            (b"HTTP/1.1 2000 x", "malformed HTTP status code \"2000\""),
            (b"220 mail.example ESMTP", "malformed HTTP status code \"mail.example\""),
        ] {
            assert_eq!(text(line, true), told);
        }
        for (fields, told) in [
            ("no colon", "malformed MIME header: missing colon: \"no colon\""),
            ("Content-Length: x", "bad Content-Length \"x\""),
            ("content-length: 3\r\nContent-Length: 3", "done"),
            (
                "content-length: 3\r\nContent-Length: 4",
                "http: message cannot contain multiple Content-Length headers; got [\"3\" \"4\"]",
            ),
            ("Transfer-Encoding: foo", "unsupported transfer encoding: \"foo\""),
            ("Transfer-Encoding: Chunked\r\nContent-Length: x", "done"),
        ] {
            assert_eq!(text(format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n").as_bytes(), false), told);
        }
        assert_eq!(text(b"HTTP/1.0 200 OK\r\nTransfer-Encoding: foo\r\n\r\n", false), "done", "it knows no codings");
    }
}
