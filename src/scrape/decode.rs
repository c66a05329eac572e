//! Decompression of bodies, in pieces that bound what one step can yield.
//!
//! Gzip (RFC 1952) is read here, member by member, around the raw deflate stream of `flate2`: a step fills one buffer at
//! most, whatever the input expands to, and errors have the words of Go's reader.
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

use std::cell::RefCell;

use flate2::{Crc, Decompress, FlushDecompress, Status};

use crate::scrape::error::ScrapeError;

/// Plain bytes for one step.
const PLAIN_STEP: usize = 64 << 10;
/// Bytes that one step inflates at most. The inflater keeps the last 32 KiB of each step beside, so small steps are dear.
const INFLATED_STEP: usize = 64 << 10;
/// Bytes of a member's header before its optional parts.
const FIXED_HEADER_LEN: usize = 10;
/// Checksum and length behind a member's data.
const TRAILER_LEN: usize = 8;
/// Longest name or comment in a header, as in Go.
const HEADER_TEXT_LEN_MAX: usize = 512;

const FLAG_HEADER_CRC: u8 = 1 << 1;
const FLAG_EXTRA: u8 = 1 << 2;
const FLAG_NAME: u8 = 1 << 3;
const FLAG_COMMENT: u8 = 1 << 4;

/// Turns what came over the wire into the body.
pub(super) enum Decoder {
    Plain,
    Gzip(Box<Gunzip>),
}

/// What a step did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Step {
    /// Bytes of the input that are done with.
    pub(super) consumed: usize,
    /// Bytes of the body that were handed out.
    pub(super) produced: usize,
    /// More of the body may come without further input.
    pub(super) more: bool,
}

type Take<'a> = &'a mut dyn FnMut(&[u8]) -> Result<(), ScrapeError>;

impl Decoder {
    /// The decoder for a `Content-Encoding`; anything but gzip is taken as it is, as in Prometheus.
    pub(super) fn for_encoding(encoding: &str) -> Self {
        match encoding {
            "gzip" => Self::Gzip(Gunzip::again()),
            _ => Self::Plain,
        }
    }

    /// Decodes the beginning of `piece` and hands the body's bytes to `take`. To be called until nothing of the piece is left
    /// and no more may come.
    pub(super) fn step(&mut self, piece: &[u8], take: Take<'_>) -> Result<Step, ScrapeError> {
        match self {
            Self::Plain => {
                let part = piece.get(..PLAIN_STEP).unwrap_or(piece);
                if !part.is_empty() {
                    take(part)?;
                }
                Ok(Step { consumed: part.len(), produced: part.len(), more: false })
            }
            Self::Gzip(gunzip) => gunzip.step(piece, take),
        }
    }

    /// Takes the end of the body. Errors when the compressed stream is cut.
    pub(super) fn finish(self) -> Result<(), ScrapeError> {
        if let Self::Gzip(gunzip) = self {
            gunzip.finish()?;
            SPARE.set(Some(gunzip));
        }
        Ok(())
    }
}

thread_local! {
    /// One that has read a body to its end on this thread, for the next: its buffers are over 100 KB, which a scrape would clear.
    static SPARE: RefCell<Option<Box<Gunzip>>> = const { RefCell::new(None) };
}

/// Reads gzip.
pub(super) struct Gunzip {
    inflate: Decompress,
    crc: Crc,
    out: Box<[u8]>,
    state: State,
    /// At least one member has ended.
    has_member: bool,
}

/// Where the reader stands.
enum State {
    Header(Header),
    Data,
    Trailer { raw: [u8; TRAILER_LEN], len: usize },
}

/// A header so far.
#[derive(Default)]
struct Header {
    fixed: [u8; FIXED_HEADER_LEN],
    fixed_len: usize,
    /// Optional parts that are still to come.
    flags: u8,
    /// Bytes of the part that is being read.
    part_len: usize,
    /// Length of the extra field, then the checksum of the header: two bytes each.
    number: [u8; 2],
    crc: Crc,
}

impl Gunzip {
    fn new() -> Self {
        Self {
            inflate: Decompress::new(false),
            crc: Crc::new(),
            out: vec![0; INFLATED_STEP].into_boxed_slice(),
            state: State::Header(Header::default()),
            has_member: false,
        }
    }

    /// A reader at the beginning, made of one that is not used any more if there is one.
    fn again() -> Box<Self> {
        match SPARE.take() {
            Some(mut spare) => {
                spare.begin();
                spare.has_member = false;
                spare
            }
            None => Box::new(Self::new()),
        }
    }

    /// Begins a member.
    fn begin(&mut self) {
        self.inflate.reset(false);
        self.crc.reset();
        self.state = State::Header(Header::default());
    }

    fn step(&mut self, piece: &[u8], take: Take<'_>) -> Result<Step, ScrapeError> {
        let mut consumed = 0;
        loop {
            let rest = piece.get(consumed..).unwrap_or_default();
            match &mut self.state {
                State::Header(header) => {
                    let (used, done) = header.read(rest)?;
                    consumed += used;
                    if !done {
                        return Ok(Step { consumed, produced: 0, more: false });
                    }
                    self.state = State::Data;
                }
                State::Data => {
                    let before = (self.inflate.total_in(), self.inflate.total_out());
                    let status = self.inflate.decompress(rest, &mut self.out, FlushDecompress::None);
                    let status = status.map_err(|_| corrupt(self.inflate.total_in()))?;
                    let used = length(self.inflate.total_in() - before.0);
                    let produced = length(self.inflate.total_out() - before.1);
                    consumed += used;
                    let ended = status == Status::StreamEnd;
                    if ended {
                        self.state = State::Trailer { raw: [0; TRAILER_LEN], len: 0 };
                    } else if used == 0 && produced == 0 && !rest.is_empty() {
                        return Err(corrupt(self.inflate.total_in()));
                    }
                    let body = self.out.get(..produced).unwrap_or_default();
                    self.crc.update(body);
                    if !body.is_empty() {
                        take(body)?;
                    }
                    let more = !ended && produced == INFLATED_STEP;
                    if !ended || !body.is_empty() {
                        return Ok(Step { consumed, produced, more });
                    }
                }
                State::Trailer { raw, len } => {
                    for (to, from) in raw.iter_mut().skip(*len).zip(rest) {
                        *to = *from;
                        *len += 1;
                        consumed += 1;
                    }
                    if *len < TRAILER_LEN {
                        return Ok(Step { consumed, produced: 0, more: false });
                    }
                    let [c0, c1, c2, c3, l0, l1, l2, l3] = *raw;
                    let expected = (u32::from_le_bytes([c0, c1, c2, c3]), u32::from_le_bytes([l0, l1, l2, l3]));
                    // The length counts modulo 2^32.
                    if expected != (self.crc.sum(), self.inflate.total_out() as u32) {
                        return Err(ScrapeError::Gzip("gzip: invalid checksum".to_owned()));
                    }
                    self.has_member = true;
                    self.begin();
                }
            }
        }
    }

    fn finish(&self) -> Result<(), ScrapeError> {
        let words = match &self.state {
            State::Header(header) if header.fixed_len == 0 => {
                if self.has_member {
                    return Ok(());
                }
                // Go's reader wants a header even where nothing came.
                "EOF"
            }
            _ => "unexpected EOF",
        };
        Err(ScrapeError::Gzip(words.to_owned()))
    }
}

impl Header {
    /// Reads on; answers how much was taken, and whether the header is complete.
    fn read(&mut self, piece: &[u8]) -> Result<(usize, bool), ScrapeError> {
        let invalid = || ScrapeError::Gzip("gzip: invalid header".to_owned());
        for (at, byte) in piece.iter().enumerate() {
            if self.fixed_len < FIXED_HEADER_LEN {
                if let Some(to) = self.fixed.get_mut(self.fixed_len) {
                    *to = *byte;
                }
                self.fixed_len += 1;
                if self.fixed_len == FIXED_HEADER_LEN {
                    let [0x1f, 0x8b, 8, flags, ..] = self.fixed else { return Err(invalid()) };
                    self.flags = flags & (FLAG_HEADER_CRC | FLAG_EXTRA | FLAG_NAME | FLAG_COMMENT);
                    self.crc.update(&self.fixed);
                }
            } else {
                self.option(*byte).ok_or_else(invalid)?;
            }
            if self.fixed_len == FIXED_HEADER_LEN && self.flags == 0 {
                return Ok((at + 1, true));
            }
        }
        Ok((piece.len(), false))
    }

    /// Takes a byte of the first optional part that is not complete yet; `None` for one that cannot be.
    fn option(&mut self, byte: u8) -> Option<()> {
        let part =
            [FLAG_EXTRA, FLAG_NAME, FLAG_COMMENT, FLAG_HEADER_CRC].into_iter().find(|part| self.flags & part != 0)?;
        if let Some(to) = self.number.get_mut(self.part_len).filter(|_| part == FLAG_EXTRA || part == FLAG_HEADER_CRC) {
            *to = byte;
        }
        self.part_len += 1;
        let done = match part {
            FLAG_EXTRA => 2 <= self.part_len && self.part_len == 2 + usize::from(u16::from_le_bytes(self.number)),
            FLAG_HEADER_CRC => {
                // The low half of the checksum of what stands before.
                if self.part_len == 2 && u16::from_le_bytes(self.number) != self.crc.sum() as u16 {
                    return None;
                }
                self.part_len == 2
            }
            _ if byte != 0 && HEADER_TEXT_LEN_MAX <= self.part_len => return None,
            _ => byte == 0,
        };
        if part != FLAG_HEADER_CRC {
            self.crc.update(&[byte]);
        }
        if done {
            self.flags &= !part;
            self.part_len = 0;
        }
        Some(())
    }
}

fn corrupt(offset: u64) -> ScrapeError {
    ScrapeError::Gzip(format!("flate: corrupt input before offset {offset}"))
}

/// What a step has moved, which is not more than its buffers hold.
fn length(moved: u64) -> usize {
    usize::try_from(moved).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::write::GzEncoder;
    use flate2::{Compression, GzBuilder};
    use proptest::prelude::*;

    use super::*;

    fn gzip(body: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(body).unwrap();
        encoder.finish().unwrap()
    }

    fn decode_in_pieces(raw: &[u8], len: usize) -> Result<Vec<u8>, ScrapeError> {
        let mut decoder = Decoder::for_encoding("gzip");
        let mut out = Vec::new();
        for mut piece in raw.chunks(len) {
            loop {
                let step = decoder.step(piece, &mut |bytes| {
                    out.extend_from_slice(bytes);
                    Ok(())
                })?;
                piece = &piece[step.consumed..];
                if piece.is_empty() && !step.more {
                    break;
                }
            }
        }
        decoder.finish().map(|()| out)
    }

    fn decode(raw: &[u8]) -> Result<Vec<u8>, ScrapeError> {
        let whole = decode_in_pieces(raw, usize::MAX);
        for len in [1, 7, 1000] {
            assert_eq!(decode_in_pieces(raw, len), whole, "in pieces of {len}");
        }
        whole
    }

    #[test]
    fn reads_one_and_several_members() {
        let body = b"a 1\n".repeat(10_000);
        assert_eq!(decode(&gzip(&body)).unwrap(), body);
        let two = [gzip(b"a 1\n"), gzip(b"b 2\n")].concat();
        assert_eq!(decode(&two).unwrap(), b"a 1\nb 2\n");
        assert_eq!(decode(&gzip(b"")).unwrap(), b"");
        let exact = vec![b'x'; 2 * INFLATED_STEP];
        assert_eq!(decode(&gzip(&exact)).unwrap(), exact);
    }

    #[test]
    fn optional_parts_of_a_header_are_passed_over() {
        let built = GzBuilder::new().extra(vec![1, 2, 3]).filename("page").comment("none");
        let mut encoder = built.write(Vec::new(), Compression::fast());
        encoder.write_all(b"a 1\n").unwrap();
        let mut raw = encoder.finish().unwrap();
        assert_eq!(decode(&raw).unwrap(), b"a 1\n");
        // With a checksum of the header, right and wrong.
        let header_len = FIXED_HEADER_LEN + 2 + 3 + 5 + 5;
        raw[3] |= FLAG_HEADER_CRC;
        let mut crc = Crc::new();
        crc.update(&raw[..header_len]);
        raw.splice(header_len..header_len, (crc.sum() as u16).to_le_bytes());
        assert_eq!(decode(&raw).unwrap(), b"a 1\n");
        raw[header_len] ^= 1;
        assert_eq!(decode(&raw).unwrap_err().to_string(), "gzip: invalid header");
        let long = GzBuilder::new().filename("x".repeat(HEADER_TEXT_LEN_MAX)).write(Vec::new(), Compression::fast());
        assert_eq!(decode(&long.finish().unwrap()).unwrap_err().to_string(), "gzip: invalid header");
    }

    #[test]
    fn damage_is_told_in_the_words_of_go() {
        let error = |raw: &[u8]| decode(raw).unwrap_err().to_string();
        assert_eq!(error(b"<html>not gzip</html>"), "gzip: invalid header");
        let whole = gzip(&b"a 1\n".repeat(100));
        assert_eq!(error(&whole[..whole.len() - 9]), "unexpected EOF");
        assert_eq!(error(&whole[..5]), "unexpected EOF");
        assert_eq!(error(&[&whole[..], b"behind the last one"].concat()), "gzip: invalid header");
        let mut damaged = whole.clone();
        let crc = damaged.len() - 8;
        damaged[crc] ^= 1;
        assert_eq!(error(&damaged), "gzip: invalid checksum");
        let mut damaged = whole.clone();
        damaged[FIXED_HEADER_LEN] = 0xff;
        assert!(
            decode_in_pieces(&damaged, 1).unwrap_err().to_string().starts_with("flate: corrupt input before offset ")
        );
        assert_eq!(error(b""), "EOF");
    }

    #[test]
    fn a_step_of_a_bomb_is_bounded() {
        let bomb = gzip(&vec![0; 64 << 20]);
        let mut decoder = Decoder::for_encoding("gzip");
        let (mut rest, mut all) = (&bomb[..], 0);
        while !rest.is_empty() {
            let step = decoder.step(rest, &mut |_| Ok(())).unwrap();
            assert!(step.produced <= INFLATED_STEP && (0 < step.consumed || step.more || 0 < step.produced));
            all += step.produced;
            rest = &rest[step.consumed..];
        }
        assert_eq!((all, decoder.finish()), (64 << 20, Ok(())));
    }

    proptest! {
        #[test]
        fn never_panics_and_always_ends(raw: Vec<u8>, keeps_header: bool) {
            let raw = if keeps_header { [&gzip(b"")[..FIXED_HEADER_LEN], &raw].concat() } else { raw };
            let _ = decode_in_pieces(&raw, 3);
        }
    }
}
