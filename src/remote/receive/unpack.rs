//! Decompression, bounded by what the body declares and by what it holds.

use std::io::Read as _;

use crate::remote::receive::format::Packing;

/// Largest request, before and after decompression; Prometheus's figure.
pub const DECODED_LEN_MAX: usize = 32 << 20;
/// Largest window that a zstd frame without a declared size may ask for: 8 MiB, what level 19 uses.
const WINDOW_LOG_MAX: u32 = 23;
/// First guess at the size of such a frame.
const FIRST_LEN: usize = 64 << 10;

/// Why a body cannot be decompressed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnpackError {
    /// It is no snappy block; the text is that of Prometheus's library.
    #[error("s2: corrupt input")]
    Snappy,
    /// It is no zstd frame.
    #[error("zstd: {0}")]
    Zstd(String),
    /// It is larger than it may be.
    #[error("decoded size exceeds the {DECODED_LEN_MAX} bytes limit")]
    TooLong,
}

/// True if `body` cannot hold as much as it declares: three bytes of snappy stand for 64 at most. No memory is taken for it.
pub(in crate::remote) fn is_beyond_snappy(declared: usize, body: &[u8]) -> bool {
    body.len().saturating_mul(22) < declared
}

/// The size that `body` declares; `None` if it does not say. Errors when that is too much, or the body cannot be read.
pub fn decoded_len(packing: Packing, body: &[u8]) -> Result<Option<usize>, UnpackError> {
    let declared = match packing {
        Packing::Snappy if body.is_empty() => return Err(UnpackError::Snappy),
        Packing::Snappy => match snap::raw::decompress_len(body) {
            Ok(len) => Some(len),
            Err(snap::Error::TooBig { .. }) => return Err(UnpackError::TooLong),
            Err(_) => return Err(UnpackError::Snappy),
        },
        Packing::Zstd => match zstd::zstd_safe::get_frame_content_size(body) {
            Ok(Some(len)) => Some(usize::try_from(len).map_err(|_| UnpackError::TooLong)?),
            Ok(None) => None,
            Err(error) => return Err(UnpackError::Zstd(error.to_string())),
        },
    };
    match declared {
        Some(len) if DECODED_LEN_MAX < len => Err(UnpackError::TooLong),
        Some(len) if packing == Packing::Snappy && is_beyond_snappy(len, body) => Err(UnpackError::Snappy),
        declared => Ok(declared),
    }
}

/// Decompresses `body`, whose declared size is `declared`, into `out` and returns how many bytes of it are the result.
/// `out` is made longer as it is needed, and never shorter.
pub fn unpack(packing: Packing, body: &[u8], declared: Option<usize>, out: &mut Vec<u8>) -> Result<usize, UnpackError> {
    let Some(len) = declared else { return unpack_undeclared(body, out) };
    if out.len() < len {
        // Not `resize`, which would copy what is there.
        *out = vec![0; len];
    }
    let room = out.get_mut(..len).unwrap_or_default();
    match packing {
        Packing::Snappy => snap::raw::Decoder::new().decompress(body, room).map_err(|_| UnpackError::Snappy),
        Packing::Zstd => zstd::bulk::decompress_to_buffer(body, room).map_err(of_zstd),
    }
}

fn unpack_undeclared(body: &[u8], out: &mut Vec<u8>) -> Result<usize, UnpackError> {
    let mut decoder = zstd::stream::read::Decoder::with_buffer(body).map_err(of_zstd)?;
    decoder.window_log_max(WINDOW_LOG_MAX).map_err(of_zstd)?;
    let mut len = 0;
    loop {
        if out.len() <= len {
            if DECODED_LEN_MAX < len {
                return Err(UnpackError::TooLong);
            }
            out.resize((2 * len).clamp(FIRST_LEN, DECODED_LEN_MAX + 1), 0);
        }
        match decoder.read(out.get_mut(len..).unwrap_or_default()).map_err(of_zstd)? {
            0 if DECODED_LEN_MAX < len => return Err(UnpackError::TooLong),
            0 => return Ok(len),
            read => len += read,
        }
    }
}

fn of_zstd(error: std::io::Error) -> UnpackError {
    UnpackError::Zstd(error.to_string())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn both(packing: Packing, body: &[u8]) -> Result<Vec<u8>, UnpackError> {
        let declared = decoded_len(packing, body)?;
        let mut out = vec![7; 3];
        let len = unpack(packing, body, declared, &mut out)?;
        out.truncate(len);
        Ok(out)
    }

    #[test]
    fn bodies_of_both_kinds_come_back() {
        let text = b"some text, some text, some text".repeat(5000);
        let snappy = snap::raw::Encoder::new().compress_vec(&text).unwrap();
        assert_eq!(both(Packing::Snappy, &snappy), Ok(text.clone()));
        assert_eq!(both(Packing::Snappy, &[0]), Ok(vec![]));
        assert_eq!(both(Packing::Zstd, &zstd::bulk::compress(&text, 3).unwrap()), Ok(text.clone()));
        let mut stream = zstd::stream::write::Encoder::new(Vec::new(), 3).unwrap();
        stream.write_all(&text).unwrap();
        let undeclared = stream.finish().unwrap();
        assert_eq!(decoded_len(Packing::Zstd, &undeclared), Ok(None));
        assert_eq!(both(Packing::Zstd, &undeclared), Ok(text));
    }

    #[test]
    fn bombs_are_refused_at_their_declared_size() {
        let mut declared = vec![];
        let mut n = DECODED_LEN_MAX + 1;
        while 0x80 <= n {
            declared.push(n as u8 | 0x80);
            n >>= 7;
        }
        declared.push(n as u8);
        assert_eq!(both(Packing::Snappy, &declared), Err(UnpackError::TooLong));
        assert_eq!(both(Packing::Snappy, b"\xff\xff\xff\xff\x0f"), Err(UnpackError::TooLong));
        let bomb = vec![0; DECODED_LEN_MAX + 1];
        let frame = zstd::bulk::compress(&bomb, 1).unwrap();
        assert!(frame.len() < 100_000);
        assert_eq!(both(Packing::Zstd, &frame), Err(UnpackError::TooLong));
        let mut stream = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        stream.write_all(&bomb).unwrap();
        let undeclared = stream.finish().unwrap();
        assert_eq!(both(Packing::Zstd, &undeclared), Err(UnpackError::TooLong));
        // The second frame is more than the first has declared.
        let twice = [zstd::bulk::compress(b"a", 1).unwrap(), frame].concat();
        assert!(matches!(both(Packing::Zstd, &twice), Err(UnpackError::Zstd(_))));
    }

    #[test]
    fn what_is_no_block_is_refused() {
        for body in [&b""[..], b"\x05\x00", b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", b"not snappy"] {
            assert_eq!(both(Packing::Snappy, body), Err(UnpackError::Snappy), "{body:?}");
        }
        assert!(matches!(both(Packing::Zstd, b"not zstd"), Err(UnpackError::Zstd(_))));
        assert!(matches!(both(Packing::Zstd, b""), Err(UnpackError::Zstd(_))));
    }
}
