//! Request targets as careless clients write them, over HTTP/2: as [`crate::http::lenient`] does for HTTP/1, what the parser of
//! our library refuses in the query of a URL and Go does not is escaped on its way to it.
//!
//! ```text
//! frame of headers   │ length u24 │ 1 │ flags │ stream u32 │ padding, priority │ block │ padding │
//! block              fields one after another; a path: │ 0000 or 0001, name 4 or 5 │ length, perhaps Huffman │ bytes │
//! ```
//! Invariant: nothing is changed but the value of a path that stands there as it is, in a block of one frame, and that the
//! client does not have us remember: what client and library remember of headers stays the same. Whatever is not understood
//! passes as it came, and the library judges it alone.
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

use crate::http::lenient;
use crate::http::rewritten::{Rewrite, Rewritten};

/// What a connection begins with: `PRI * HTTP/2.0` and so on.
const PREFACE_LEN: usize = 24;
const FRAME_HEAD_LEN: usize = 9;
/// The longest frame that is taken, as long as a client may send unless it is told otherwise.
const FRAME_LEN_MAX: usize = 16 << 10;
const HEADERS: u8 = 1;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;

/// A connection of HTTP/2 whose request targets are escaped.
pub(super) fn escaped<T>(io: T) -> Rewritten<T, Frames> {
    Rewritten::new(io, Frames::default())
}

/// Where in the stream of frames the next byte stands.
#[derive(Debug)]
pub(super) struct Frames {
    /// Bytes that pass as they are.
    untouched: usize,
    /// The head of the next frame, or a whole frame of headers, as far as it has come.
    kept: Vec<u8>,
}

impl Default for Frames {
    fn default() -> Self {
        Self { untouched: PREFACE_LEN, kept: Vec::new() }
    }
}

impl Rewrite for Frames {
    // The library of HTTP/2 takes frame by frame.
    const TURN_LEN: usize = usize::MAX;

    fn rewrite(&mut self, came: &[u8]) -> Option<Vec<u8>> {
        if self.pass_untouched(came.len()) {
            return None;
        }
        let mut out = Vec::with_capacity(came.len());
        self.pass(came, &mut out);
        Some(out)
    }
}

impl Frames {
    /// True if the next `len` bytes pass as they are; they are counted then.
    fn pass_untouched(&mut self, len: usize) -> bool {
        let all = len <= self.untouched;
        if all {
            self.untouched -= len;
        }
        all
    }

    /// Takes the next bytes of the stream, and appends what is to be read in their place.
    fn pass(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) {
        while !bytes.is_empty() {
            if 0 < self.untouched {
                let (now, after) = bytes.split_at(bytes.len().min(self.untouched));
                out.extend_from_slice(now);
                self.untouched -= now.len();
                bytes = after;
                continue;
            }
            let wanted = self.wanted();
            let (now, after) = bytes.split_at(bytes.len().min(wanted.saturating_sub(self.kept.len())));
            self.kept.extend_from_slice(now);
            bytes = after;
            if self.kept.len() == FRAME_HEAD_LEN && self.wanted() == FRAME_HEAD_LEN {
                self.untouched = self.frame_len();
            }
            if self.kept.len() == self.wanted() {
                let frame = std::mem::take(&mut self.kept);
                out.extend_from_slice(&escaped_frame(&frame).unwrap_or(frame));
            }
        }
    }

    /// The length of the frame whose head was kept, without the head.
    fn frame_len(&self) -> usize {
        match *self.kept.as_slice() {
            [a, b, c, ..] => usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c),
            _ => 0,
        }
    }

    /// How many bytes are kept before they go on: a head, or a frame of headers that is all of its block.
    fn wanted(&self) -> usize {
        match *self.kept.as_slice() {
            [_, _, _, HEADERS, flags, _, _, _, _, ..]
                if flags & END_HEADERS != 0 && self.frame_len() <= FRAME_LEN_MAX =>
            {
                FRAME_HEAD_LEN + self.frame_len()
            }
            _ => FRAME_HEAD_LEN,
        }
    }
}

/// A frame of headers with its path escaped; `None` where there is nothing to do.
fn escaped_frame(frame: &[u8]) -> Option<Vec<u8>> {
    let (head, payload) = frame.split_at_checked(FRAME_HEAD_LEN)?;
    let flags = *head.get(4)?;
    let (mut start, mut end) = (0, payload.len());
    if flags & PADDED != 0 {
        end = end.checked_sub(usize::from(*payload.first()?))?;
        start += 1;
    }
    if flags & PRIORITY != 0 {
        start += 5;
    }
    let block = escaped_block(payload.get(start..end)?)?;
    let len = start + block.len() + (payload.len() - end);
    if FRAME_LEN_MAX < len {
        return None;
    }
    let [_, a, b, c] = u32::try_from(len).ok()?.to_be_bytes();
    let mut out = vec![a, b, c];
    out.extend_from_slice(head.get(3..)?);
    out.extend_from_slice(payload.get(..start)?);
    out.extend_from_slice(&block);
    out.extend_from_slice(payload.get(end..)?);
    Some(out)
}

/// A block of headers with its path escaped; `None` where there is nothing to do.
fn escaped_block(block: &[u8]) -> Option<Vec<u8>> {
    let mut rest = block;
    while let Some(&first) = rest.first() {
        match first {
            // A field that is remembered; a change of how much is.
            0x80.. => drop(integer(&mut rest, 7)?),
            0x20..=0x3f => drop(integer(&mut rest, 5)?),
            _ => {
                let is_remembered = 0x40 <= first;
                let name = integer(&mut rest, if is_remembered { 6 } else { 4 })?;
                if name == 0 {
                    text(&mut rest)?;
                }
                let value_at = block.len() - rest.len();
                let (is_packed, value) = text(&mut rest)?;
                if !matches!(name, 4 | 5) {
                    continue;
                }
                if is_remembered {
                    return None;
                }
                let value = if is_packed { unpacked(value)? } else { value.to_vec() };
                let path = String::from_utf8(value).ok()?;
                let escaped = lenient::escaped(&path);
                if escaped == path {
                    return None;
                }
                let mut out = block.get(..value_at)?.to_vec();
                push_integer(&mut out, 7, escaped.len());
                out.extend_from_slice(escaped.as_bytes());
                out.extend_from_slice(rest);
                return Some(out);
            }
        }
    }
    None
}

/// An integer that begins in the lower `bits` of a byte.
fn integer(rest: &mut &[u8], bits: u32) -> Option<usize> {
    let (first, mut after) = rest.split_first()?;
    let most = (1_usize << bits) - 1;
    let mut value = usize::from(*first) & most;
    if value == most {
        // Nothing of a frame is longer than three further bytes can say.
        for shift in [0, 7, 14] {
            let (byte, behind) = after.split_first()?;
            after = behind;
            value += (usize::from(*byte) & 0x7f) << shift;
            if *byte < 0x80 {
                *rest = after;
                return Some(value);
            }
        }
        return None;
    }
    *rest = after;
    Some(value)
}

/// Writes an integer into a byte of its own and, if it has no room there, those behind it.
fn push_integer(out: &mut Vec<u8>, bits: u32, value: usize) {
    let most = (1_usize << bits) - 1;
    let byte = |value: usize| u8::try_from(value).unwrap_or(u8::MAX);
    if value < most {
        return out.push(byte(value));
    }
    out.push(byte(most));
    let mut left = value - most;
    while 0x80 <= left {
        out.push(byte(left & 0x7f | 0x80));
        left >>= 7;
    }
    out.push(byte(left));
}

/// Whether a text is packed, and its bytes.
fn text<'a>(rest: &mut &'a [u8]) -> Option<(bool, &'a [u8])> {
    let is_packed = 0x80 <= *rest.first()?;
    let len = integer(rest, 7)?;
    let (text, after) = rest.split_at_checked(len)?;
    *rest = after;
    Some((is_packed, text))
}

/// The Huffman code of HPACK (RFC 7541, appendix B): the bits of each byte's code, `a` for five. Codes are in the order of
/// their lengths, those of one length in the order of the bytes, so that they need not be told.
const CODE_BITS: &[u8; 256] = b"isxxxxxxxtzxxzxxxxxxxxzxxxxxxxxxbffhibdgffdgdbbbaaabbbbbbbcdkbhfibcccccccccccccccccccccc\
dcdioijbkabababbbaccbbbabcbaabccccckgjixprpprrrsrssssststtrstssssqrsrsstrqprrssqsrrtqrssqqrqsrssprrrsrrsvvporsruvvvwwvtuoq\
vwwvwtqqvvxwwwptpqrqqsrruuttvsvwvvwwwwwxwwwwwv";
const BITS_MAX: usize = 30;

/// How many codes there are of each length, and all bytes in the order of their codes.
const CODE: ([u32; BITS_MAX + 1], [u8; 256]) = code();

#[allow(clippy::indexing_slicing, reason = "evaluated by the compiler")]
const fn code() -> ([u32; BITS_MAX + 1], [u8; 256]) {
    let (mut counts, mut bytes) = ([0; BITS_MAX + 1], [0; 256]);
    let (mut bits, mut next) = (1, 0);
    while bits <= BITS_MAX {
        let mut byte = 0;
        while byte < 256 {
            if (CODE_BITS[byte] - b'a') as usize + 5 == bits {
                counts[bits] += 1;
                bytes[next] = byte as u8;
                next += 1;
            }
            byte += 1;
        }
        bits += 1;
    }
    (counts, bytes)
}

/// The text of a packed one; `None` if it is none.
fn unpacked(packed: &[u8]) -> Option<Vec<u8>> {
    let (counts, bytes) = &CODE;
    let mut text = Vec::with_capacity(packed.len() * 8 / 5);
    // The code that is being read, the first one of its length, how many are shorter, its length.
    let (mut code, mut first, mut shorter, mut bits) = (0_u32, 0_u32, 0_u32, 0_usize);
    for byte in packed {
        for place in (0..8).rev() {
            code = code << 1 | u32::from(byte >> place & 1);
            first <<= 1;
            bits += 1;
            let count = *counts.get(bits)?;
            if code - first < count {
                text.push(*bytes.get(usize::try_from(shorter + code - first).ok()?)?);
                (code, first, shorter, bits) = (0, 0, 0, 0);
            } else {
                first += count;
                shorter += count;
            }
        }
    }
    // What is left is padding: the beginning of the longest code, which is all ones.
    (bits < 8 && code + 1 == 1 << bits).then_some(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let [_, a, b, c] = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&[a, b, c, kind, flags, 0, 0, 0, 1], payload].concat()
    }

    fn path(first: u8, value: &str) -> Vec<u8> {
        let mut block = vec![0x82, 0x3f, 0x00, 0x87, first];
        push_integer(&mut block, 7, value.len());
        block.extend_from_slice(value.as_bytes());
        block.extend_from_slice(b"\x40\x01x\x01\"");
        block
    }

    /// What comes out of a connection that comes in pieces of some length.
    fn through(frames: &[u8], piece: usize) -> Vec<u8> {
        let mut state = Frames::default();
        let input = [&[0; PREFACE_LEN], frames].concat();
        let mut out = Vec::new();
        for piece in input.chunks(piece) {
            out.extend(state.rewrite(piece).unwrap_or_else(|| piece.to_vec()));
        }
        assert_eq!(out[..PREFACE_LEN], [0; PREFACE_LEN]);
        out.split_off(PREFACE_LEN)
    }

    #[track_caller]
    fn check(frames: &[u8], expected: &[u8]) {
        for piece in [1, 2, 3, 7, 10_000] {
            assert_eq!(through(frames, piece), expected, "in pieces of {piece}");
        }
    }

    #[test]
    fn packed_texts_are_those_of_the_standard() {
        let packed = [0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff];
        assert_eq!(unpacked(&packed).unwrap(), b"www.example.com");
        assert_eq!(unpacked(&[0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf]).unwrap(), b"no-cache");
        // The longest code, too much padding, padding that is none.
        for wrong in [&[0xff; 4][..], &[0x07, 0xff, 0xff], &[0x06]] {
            assert_eq!(unpacked(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn paths_are_escaped_and_nothing_else() {
        let data = frame(0, 0, b"\x00\x00\x00\x01\x04\"\"\"");
        let (plain, escaped) = ("/q?query=up{a=\"b\"}>0", "/q?query=up{a=%22b%22}%3E0");
        for first in [0x04, 0x05, 0x14] {
            let request = |path_text: &str| frame(HEADERS, END_HEADERS, &path(first, path_text));
            check(
                &[request(plain), data.clone(), request(plain)].concat(),
                &[request(escaped), data.clone(), request(escaped)].concat(),
            );
        }
        // Beside padding and a priority.
        let dressed = |text: &str| [&[3, 0, 0, 0, 0, 9], &path(4, text)[..], &[0; 3]].concat();
        let flags = END_HEADERS | PADDED | PRIORITY;
        check(&frame(HEADERS, flags, &dressed(plain)), &frame(HEADERS, flags, &dressed(escaped)));
        // One that is remembered, one that goes on in another frame, one in a field of another name.
        for untouched in [
            frame(HEADERS, END_HEADERS, &path(0x44, plain)),
            frame(HEADERS, 0, &path(0x04, plain)),
            frame(HEADERS, END_HEADERS, &path(0x06, plain)),
            frame(HEADERS, END_HEADERS, &path(0x04, escaped)),
            frame(HEADERS, END_HEADERS, b"\x04\x7f\xff\xff\xff\xff"),
            frame(HEADERS, END_HEADERS | PADDED, b"\xff\x04\x01\""),
            frame(HEADERS, END_HEADERS, b""),
            frame(4, 0, b""),
        ] {
            check(&untouched, &untouched);
        }
    }

    proptest! {
        /// Pieces do not matter, and no bytes are too much.
        #[test]
        fn any_frames_pass(bytes in proptest::collection::vec(any::<u8>(), 0..200), piece in 1..50_usize, sound in any::<bool>()) {
            let input = if sound { frame(HEADERS, END_HEADERS, &bytes) } else { bytes };
            let whole = through(&input, input.len().max(1) + PREFACE_LEN);
            prop_assert_eq!(&through(&input, piece), &whole);
            // What is not there yet is kept.
            prop_assert!(!sound || input.len() <= whole.len());
        }

        #[test]
        fn integers_are_read_as_written(value in 0..20_000_usize, bits in 4..8_u32) {
            let mut out = Vec::new();
            push_integer(&mut out, bits, value);
            out.push(7);
            let mut rest = &out[..];
            prop_assert_eq!(integer(&mut rest, bits), Some(value));
            prop_assert_eq!(rest, [7]);
        }
    }
}
