//! Decompression of bodies, in pieces that bound what one step can yield.
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

use std::io::{self, Write};

use flate2::write::MultiGzDecoder;

use crate::scrape::error::ScrapeError;

/// Compressed bytes for one step: deflate yields at most about a thousand times as many.
const GZIP_STEP: usize = 256;
/// Plain bytes for one step.
const PLAIN_STEP: usize = 64 << 10;

/// Turns what came over the wire into the body.
pub(super) enum Decoder {
    Plain,
    Gzip { inflate: Box<MultiGzDecoder<Vec<u8>>>, started: bool },
}

impl Decoder {
    /// The decoder for a `Content-Encoding`; anything but gzip is taken as it is, as in Prometheus.
    pub(super) fn for_encoding(encoding: &str) -> Self {
        match encoding {
            "gzip" => Self::Gzip { inflate: Box::new(MultiGzDecoder::new(Vec::new())), started: false },
            _ => Self::Plain,
        }
    }

    /// Bytes to hand to [`Self::step`] at a time.
    pub(super) fn step_len(&self) -> usize {
        match self {
            Self::Plain => PLAIN_STEP,
            Self::Gzip { .. } => GZIP_STEP,
        }
    }

    /// Decodes one piece and hands the body's bytes to `take`; answers how many there were.
    pub(super) fn step(
        &mut self,
        piece: &[u8],
        take: &mut dyn FnMut(&[u8]) -> Result<(), ScrapeError>,
    ) -> Result<usize, ScrapeError> {
        match self {
            Self::Plain => {
                take(piece)?;
                Ok(piece.len())
            }
            Self::Gzip { inflate, started } => {
                *started |= !piece.is_empty();
                inflate.write_all(piece).map_err(|e| gzip_error(&e))?;
                drain(inflate, take)
            }
        }
    }

    /// Hands out what is left at the end of the body. Errors when the compressed stream is cut.
    pub(super) fn finish(
        &mut self,
        take: &mut dyn FnMut(&[u8]) -> Result<(), ScrapeError>,
    ) -> Result<usize, ScrapeError> {
        match self {
            Self::Plain => Ok(0),
            // Go's reader wants a header even where nothing came.
            Self::Gzip { started: false, .. } => Err(ScrapeError::Gzip("EOF".to_owned())),
            Self::Gzip { inflate, .. } => {
                inflate.try_finish().map_err(|e| gzip_error(&e))?;
                drain(inflate, take)
            }
        }
    }
}

fn drain(
    inflate: &mut MultiGzDecoder<Vec<u8>>,
    take: &mut dyn FnMut(&[u8]) -> Result<(), ScrapeError>,
) -> Result<usize, ScrapeError> {
    let out = inflate.get_mut();
    let len = out.len();
    let taken = if len == 0 { Ok(()) } else { take(out) };
    out.clear();
    taken.map(|()| len)
}

/// The words of Go's gzip reader.
fn gzip_error(error: &io::Error) -> ScrapeError {
    let text = error.to_string();
    let words = match error.kind() {
        io::ErrorKind::UnexpectedEof => "unexpected EOF".to_owned(),
        _ if text.contains("header") => "gzip: invalid header".to_owned(),
        _ if text.contains("checksum") => "gzip: invalid checksum".to_owned(),
        _ => format!("flate: corrupt input: {text}"),
    };
    ScrapeError::Gzip(words)
}

#[cfg(test)]
mod tests {
    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn gzip(body: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(body).unwrap();
        encoder.finish().unwrap()
    }

    fn decode(raw: &[u8]) -> Result<Vec<u8>, ScrapeError> {
        let mut decoder = Decoder::for_encoding("gzip");
        let mut out = Vec::new();
        let step = decoder.step_len();
        for piece in raw.chunks(step) {
            decoder.step(piece, &mut |bytes| {
                out.extend_from_slice(bytes);
                Ok(())
            })?;
        }
        decoder.finish(&mut |bytes| {
            out.extend_from_slice(bytes);
            Ok(())
        })?;
        Ok(out)
    }

    #[test]
    fn reads_one_and_several_members() {
        let body = b"a 1\n".repeat(10_000);
        assert_eq!(decode(&gzip(&body)).unwrap(), body);
        let two = [gzip(b"a 1\n"), gzip(b"b 2\n")].concat();
        assert_eq!(decode(&two).unwrap(), b"a 1\nb 2\n");
    }

    #[test]
    fn damage_is_told_in_the_words_of_go() {
        let error = |raw: &[u8]| decode(raw).unwrap_err().to_string();
        assert_eq!(error(b"<html>not gzip</html>"), "gzip: invalid header");
        let whole = gzip(&b"a 1\n".repeat(100));
        assert_eq!(error(&whole[..whole.len() - 9]), "unexpected EOF");
        let mut damaged = whole.clone();
        let crc = damaged.len() - 8;
        damaged[crc] ^= 1;
        assert_eq!(error(&damaged), "gzip: invalid checksum");
        assert_eq!(error(b""), "EOF");
    }

    #[test]
    fn a_step_of_a_bomb_is_bounded() {
        let bomb = gzip(&vec![0; 64 << 20]);
        let mut decoder = Decoder::for_encoding("gzip");
        let step = decoder.step_len();
        for piece in bomb.chunks(step) {
            let len = decoder.step(piece, &mut |_| Ok(())).unwrap();
            assert!(len <= 2 << 20, "{len} bytes in one step");
        }
    }
}
