//! Request targets as careless clients write them: `/api/v1/query?query=up{job="x"}>0`. Go takes every byte there but spaces
//! and control characters; the parser of our HTTP library takes less. So bytes that it refuses are escaped (`%22`) on their
//! way to it, which means the same. Everything else passes as it came.
//!
//! Invariant: nothing but the target of a request line is changed, and a line of a head that ends without a carriage return: it
//! is made one that the parser refuses. To know where the next one begins, the ends of heads are
//! found as the parser finds them, and a body's end by `Content-Length`. Where that is not certain (other encodings, upgrades,
//! lengths that are not plain numbers) the rest of the connection passes untouched, and the parser judges it alone.
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

use std::future::Future as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Sleep, sleep};

use crate::http::connections::Progress;
use crate::http::rewritten::{Rewrite, Rewritten};

/// The beginning of a header line that is looked at; a length and its name are shorter.
const LINE_LEN_MAX: usize = 64;
/// Bytes that the HTTP library takes before it looks at them. It takes all that there is otherwise, and never gives the room
/// back while the connection lasts.
const TURN_LEN: usize = 7 << 10;
/// With less room than this in its buffer, of 8 KiB at first, it doubles it before it asks for more.
const SPARE_LEN: usize = 1 << 10;

/// A connection of HTTP/1 whose request targets are escaped.
pub(super) type Lenient<T> = Rewritten<T, Requests>;

/// What comes on a connection of HTTP/1. The HTTP library bounds the time for the first head; here that for others is.
pub(super) struct Requests {
    heads: Heads,
    progress: Arc<Progress>,
    /// Longest time for a head to come.
    head_within: Duration,
    /// How many requests had begun when bytes came while none was in progress.
    came_after: Option<u32>,
    /// How many requests had begun, and the time by which the next one must have.
    late: Option<(u32, Pin<Box<Sleep>>)>,
}

impl Requests {
    /// Nothing has come yet.
    pub(super) fn new(head_within: Duration) -> Self {
        let (heads, progress) = (Heads::default(), Arc::default());
        Self { heads, progress, head_within, came_after: None, late: None }
    }

    /// What the connection is doing.
    pub(super) fn progress(&self) -> &Arc<Progress> {
        &self.progress
    }
}

impl Rewrite for Requests {
    const TURN_LEN: usize = TURN_LEN;
    const SPARE_LEN: usize = SPARE_LEN;

    fn rewrite(&mut self, came: &[u8]) -> Option<Vec<u8>> {
        self.came_after = self.progress.begun_and_over();
        self.heads.pass(came)
    }

    fn poll_waiting(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let begun = self.progress.begun_and_over().filter(|begun| 0 < *begun);
        let waits = match self.heads.at {
            At::Method | At::Target | At::Version | At::Header => true,
            // It is not known where a head begins: nothing else can come while no request is in progress.
            At::Rest => begun.is_some() && self.came_after == begun,
            At::Begin | At::Body(_) => false,
        };
        let Some(begun) = begun.filter(|_| waits) else {
            self.late = None;
            return Poll::Pending;
        };
        let (of, late) = self.late.get_or_insert_with(|| (begun, Box::pin(sleep(self.head_within))));
        if *of != begun {
            (*of, *late) = (begun, Box::pin(sleep(self.head_within)));
        }
        late.as_mut().poll(cx)
    }
}

/// Where in the stream of requests the next byte stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// Before a request; empty lines are passed over here.
    Begin,
    Method,
    Target,
    /// What follows the target on its line.
    Version,
    Header,
    /// Bytes of a body that are to come.
    Body(u64),
    /// Nothing is changed any more.
    Rest,
}

/// Follows the heads of the requests of a connection.
#[derive(Debug)]
struct Heads {
    at: At,
    /// The method, or the header line that is being read: its beginning.
    line: Vec<u8>,
    /// Length of the body of this request, once it is told.
    body_len: Option<u64>,
    /// Where this request ends cannot be told.
    is_uncertain: bool,
    /// The last byte was a carriage return.
    was_return: bool,
}

impl Default for Heads {
    fn default() -> Self {
        Self { at: At::Begin, line: Vec::new(), body_len: None, is_uncertain: false, was_return: false }
    }
}

impl Heads {
    /// Takes the next bytes of the stream; what is to be read in their place, if something had to be escaped.
    fn pass(&mut self, mut bytes: &[u8]) -> Option<Vec<u8>> {
        let all = bytes;
        let mut escaped: Option<Vec<u8>> = None;
        while let Some((&byte, rest)) = bytes.split_first() {
            match self.at {
                At::Rest => break,
                At::Body(left) => {
                    let here = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
                    let (body, after) = bytes.split_at(here);
                    if let Some(out) = &mut escaped {
                        out.extend_from_slice(body);
                    }
                    let left = left - here as u64;
                    self.at = if left == 0 { At::Begin } else { At::Body(left) };
                    bytes = after;
                    continue;
                }
                At::Target if needs_escape(byte) => {
                    let done = all.len() - bytes.len();
                    let out = escaped.get_or_insert_with(|| all.get(..done).unwrap_or_default().to_vec());
                    out.extend_from_slice(&escape(byte));
                    bytes = rest;
                    continue;
                }
                // Some end a line there and some do not, and would see other requests. The parser refuses what stands instead.
                At::Version | At::Header if byte == b'\n' && !self.was_return => {
                    let done = all.len() - bytes.len();
                    let out = escaped.get_or_insert_with(|| all.get(..done).unwrap_or_default().to_vec());
                    out.push(0);
                    self.at = At::Rest;
                    bytes = rest;
                    continue;
                }
                _ => self.step(byte),
            }
            self.was_return = byte == b'\r';
            if let Some(out) = &mut escaped {
                out.push(byte);
            }
            bytes = rest;
        }
        if let Some(out) = &mut escaped {
            out.extend_from_slice(bytes);
        }
        escaped
    }

    /// A byte of a head.
    fn step(&mut self, byte: u8) {
        match (self.at, byte) {
            (At::Begin, b'\r' | b'\n') => {}
            (At::Begin | At::Method, b' ') => {
                // A tunnel has no further requests.
                self.is_uncertain = self.line.eq_ignore_ascii_case(b"CONNECT");
                self.line.clear();
                self.at = At::Target;
            }
            (At::Method, b'\r' | b'\n') => self.at = At::Rest,
            (At::Begin | At::Method, byte) => {
                self.at = At::Method;
                self.keep(byte);
            }
            (At::Target, b' ') => self.at = At::Version,
            (At::Target, b'\r' | b'\n') => self.at = At::Rest,
            (At::Version, b'\n') => self.at = At::Header,
            (At::Header, b'\n') => self.header(),
            (At::Header, byte) => self.keep(byte),
            (At::Target | At::Version | At::Body(_) | At::Rest, _) => {}
        }
    }

    fn keep(&mut self, byte: u8) {
        if self.line.len() <= LINE_LEN_MAX {
            self.line.push(byte);
        }
    }

    /// A header line is over, or with an empty one the head.
    fn header(&mut self) {
        let line = std::mem::take(&mut self.line);
        let text = line.strip_suffix(b"\r").unwrap_or(&line);
        if text.is_empty() {
            let body_len = self.body_len.take();
            self.at = match (std::mem::take(&mut self.is_uncertain), body_len) {
                (true, _) => At::Rest,
                (false, None | Some(0)) => At::Begin,
                (false, Some(len)) => At::Body(len),
            };
        } else {
            let colon = text.iter().position(|byte| *byte == b':').unwrap_or(text.len());
            let (name, value) = text.split_at(colon);
            let name = name.trim_ascii();
            if name.eq_ignore_ascii_case(b"content-length") {
                let digits = value.strip_prefix(b":").unwrap_or(value).trim_ascii();
                let is_plain = line.len() <= LINE_LEN_MAX && digits.iter().all(u8::is_ascii_digit);
                let len = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok());
                let len = len.filter(|_| is_plain && self.body_len.is_none());
                self.is_uncertain |= len.is_none();
                self.body_len = len.or(self.body_len);
            } else if name.eq_ignore_ascii_case(b"transfer-encoding")
                || name.eq_ignore_ascii_case(b"upgrade")
                || text.starts_with(b" ")
                || text.starts_with(b"\t")
            {
                self.is_uncertain = true;
            }
        }
        // Its room is kept for the next line.
        self.line = line;
        self.line.clear();
    }
}

/// A target that came by itself.
pub(super) fn escaped(target: &str) -> String {
    let mut bytes = Vec::with_capacity(target.len());
    for byte in target.bytes() {
        if needs_escape(byte) { bytes.extend_from_slice(&escape(byte)) } else { bytes.push(byte) }
    }
    // Bytes beyond ASCII are escaped.
    String::from_utf8(bytes).unwrap_or_default()
}

/// What the parser refuses in a target and Go does not. A `#` would begin what the parser drops.
fn needs_escape(byte: u8) -> bool {
    matches!(byte, b'"' | b'<' | b'>' | b'`' | b'#' | 0x80..)
}

fn escape(byte: u8) -> [u8; 3] {
    let digit = |value: u8| if value < 10 { b'0' + value } else { b'A' + value - 10 };
    [b'%', digit(byte >> 4), digit(byte & 15)]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What comes out of a stream that comes in pieces of some length.
    fn through(input: &[u8], piece: usize) -> Vec<u8> {
        let mut heads = Heads::default();
        input.chunks(piece).flat_map(|piece| heads.pass(piece).unwrap_or_else(|| piece.to_vec())).collect()
    }

    #[track_caller]
    fn check(input: &str, expected: &str) {
        for piece in [1, 2, 3, 7, input.len()] {
            assert_eq!(String::from_utf8_lossy(&through(input.as_bytes(), piece)), expected, "in pieces of {piece}");
        }
    }

    #[test]
    fn targets_are_escaped_and_nothing_else() {
        check(
            "GET /q?query=up{job=\"x\",a=`é`}>0#|^\\ HTTP/1.1\r\nHost: \"é\"\r\n\r\n",
            "GET /q?query=up{job=%22x%22,a=%60%C3%A9%60}%3E0%23|^\\ HTTP/1.1\r\nHost: \"é\"\r\n\r\n",
        );
        // The next request of the connection as well, also when a body or empty lines stand between them.
        check(
            "GET /\" HTTP/1.1\r\n\r\n\nGET /< HTTP/1.1\r\n\r\n",
            "GET /%22 HTTP/1.1\r\n\r\n\nGET /%3C HTTP/1.1\r\n\r\n",
        );
        check(
            "\r\nPOST /\" HTTP/1.1\r\ncontent-LENGTH: 11\r\n\r\nGET /\" HTTP\r\n\r\nGET /\" HTTP/1.1\r\n\r\n",
            "\r\nPOST /%22 HTTP/1.1\r\ncontent-LENGTH: 11\r\n\r\nGET /\" HTTP\r\n\r\nGET /%22 HTTP/1.1\r\n\r\n",
        );
        check("POST /\" HTTP/1.1\r\nContent-Length: 0\r\n\r\nGET /\" H\r\n\r\n", {
            "POST /%22 HTTP/1.1\r\nContent-Length: 0\r\n\r\nGET /%22 H\r\n\r\n"
        });
    }

    #[test]
    fn lines_that_end_without_a_return_are_made_to_fail() {
        check("GET /\" HTTP/1.1\nHost: a\r\n\r\n", "GET /%22 HTTP/1.1\0Host: a\r\n\r\n");
        check("GET / HTTP/1.1\r\nA: b\nC: d\n\n", "GET / HTTP/1.1\r\nA: b\0C: d\n\n");
        check("GET / HTTP/1.1\r\nA: b\r\n\nGET /\" H", "GET / HTTP/1.1\r\nA: b\r\n\0GET /\" H");
        // Bodies may have any lines.
        let body = "POST / HTTP/1.1\r\nContent-Length: 4\r\n\r\na\nb\nGET / HTTP/1.1\r\n\r\n";
        check(body, body);
    }

    #[test]
    fn where_the_end_is_not_certain_nothing_is_changed_after_it() {
        for line in [
            "Transfer-Encoding: chunked",
            "TRANSFER-ENCODING:x",
            "Transfer-Encoding : chunked",
            "Upgrade: websocket",
            "Content-Length: +5",
            "Content-Length: x",
            "Content-Length:",
            "Content-Length: 1, 1",
            "Content-Length: 99999999999999999999",
            "Content-Length: 1\r\nContent-Length: 1",
            "A: b\r\n Content-Length: 5",
            "Content-Length:                                                               1",
        ] {
            let head = format!("POST /\" HTTP/1.1\r\n{line}\r\n\r\n");
            let rest = "GET /\" HTTP/1.1\r\n\r\n";
            check(&format!("{head}{rest}"), &format!("{}{rest}", head.replace("/\"", "/%22")));
        }
        let tunnel = "CONNECT \" HTTP/1.1\r\n\r\n";
        check(&format!("{tunnel}GET /\" HTTP/1.1\r\n\r\n"), "CONNECT %22 HTTP/1.1\r\n\r\nGET /\" HTTP/1.1\r\n\r\n");
        check("no request\r\n\"", "no request\r\n\"");
        check("GET\r\n GET /\" HTTP/1.1", "GET\r\n GET /\" HTTP/1.1");
    }

    proptest! {
        /// Pieces do not matter, only escapes are added, and none of them ends a line or a target.
        #[test]
        fn any_bytes_pass(input in proptest::collection::vec(any::<u8>(), 0..200), piece in 1..50usize) {
            let whole = through(&input, input.len().max(1));
            prop_assert_eq!(&through(&input, piece), &whole);
            let ends = |bytes: &[u8]| bytes.iter().filter(|byte| **byte <= b' ').count();
            prop_assert_eq!(ends(&input), ends(&whole));
            let escaped = (whole.len() - input.len()) / 2;
            prop_assert!(escaped <= input.iter().filter(|byte| needs_escape(**byte)).count());
        }

        #[test]
        fn any_requests_pass(parts in proptest::collection::vec(0..8usize, 0..30), piece in 1..50usize) {
            const PARTS: [&str; 8] =
                ["GET /\"", " HTTP/1.1\r\n", "\r\n", "Content-Length: 3\r\n", "a\"b", " ", "Upgrade: x\r\n", "\n"];
            let input: String = parts.iter().map(|part| PARTS[*part]).collect();
            let whole = through(input.as_bytes(), input.len().max(1));
            prop_assert_eq!(&through(input.as_bytes(), piece), &whole);
            let whole = String::from_utf8(whole).unwrap().replace("%22", "\"").replace('\0', "\n");
            prop_assert_eq!(whole, input);
        }
    }
}
