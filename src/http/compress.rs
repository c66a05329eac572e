//! Compression of answers: gzip, deflate or zstd, whichever `Accept-Encoding` names first.

use std::io::{self, Write};

use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};

/// A way to compress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    Gzip,
    Deflate,
    Zstd,
}

/// A compression under way; what is compressed by now can be taken at any time.
pub(super) enum Encoder {
    Gzip(GzEncoder<Vec<u8>>),
    Deflate(ZlibEncoder<Vec<u8>>),
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
}

impl Encoder {
    pub(super) fn new(encoding: Encoding) -> io::Result<Self> {
        // It halves the time of the default and costs a few percent of size.
        let level = Compression::new(3);
        Ok(match encoding {
            Encoding::Gzip => Self::Gzip(GzEncoder::new(Vec::new(), level)),
            Encoding::Deflate => Self::Deflate(ZlibEncoder::new(Vec::new(), level)),
            Encoding::Zstd => Self::Zstd(zstd::stream::write::Encoder::new(Vec::new(), ZSTD_LEVEL)?),
        })
    }

    /// What is compressed and was not taken yet.
    pub(super) fn take(&mut self) -> Vec<u8> {
        std::mem::take(match self {
            Self::Gzip(encoder) => encoder.get_mut(),
            Self::Deflate(encoder) => encoder.get_mut(),
            Self::Zstd(encoder) => encoder.get_mut(),
        })
    }

    /// The end.
    pub(super) fn finish(self) -> io::Result<Vec<u8>> {
        match self {
            Self::Gzip(encoder) => encoder.finish(),
            Self::Deflate(encoder) => encoder.finish(),
            Self::Zstd(encoder) => encoder.finish(),
        }
    }

    fn writer(&mut self) -> &mut dyn Write {
        match self {
            Self::Gzip(encoder) => encoder,
            Self::Deflate(encoder) => encoder,
            Self::Zstd(encoder) => encoder,
        }
    }
}

impl Write for Encoder {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        self.writer().write(piece)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer().flush()
    }
}

/// The fastest of its levels, which compresses JSON as well as gzip.
const ZSTD_LEVEL: i32 = 1;

impl Encoding {
    /// The first of ours that the header names. Weights are not looked at, as in Prometheus: `gzip;q=0` is no match.
    pub(super) fn accepted(header: Option<&str>) -> Option<Self> {
        header?.split(',').find_map(|name| match name.trim() {
            "gzip" => Some(Self::Gzip),
            "deflate" => Some(Self::Deflate),
            // Prometheus does not have it; its clients do not ask for it.
            "zstd" => Some(Self::Zstd),
            _ => None,
        })
    }

    /// Gzip, if the header gives it more weight than no compression; how `/metrics` decides in Prometheus.
    pub(super) fn negotiated(header: Option<&str>) -> Option<Self> {
        let (mut plain, mut gzip) = (0.0_f64, 0.0_f64);
        for item in header?.split(',') {
            let (name, parameters) = item.split_once(';').unwrap_or((item, ""));
            let weight = parameters.split(';').find_map(|parameter| parameter.trim().strip_prefix("q="));
            let weight = weight.map_or(1.0, |text| text.trim().parse().unwrap_or(0.0));
            match name.trim() {
                "gzip" => gzip = gzip.max(weight),
                "identity" | "*" => plain = plain.max(weight),
                _ => {}
            }
        }
        (plain < gzip).then_some(Self::Gzip)
    }

    /// Its name in `Content-Encoding`.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
            Self::Zstd => "zstd",
        }
    }

    /// The compressed body.
    pub(super) fn compress(self, body: &[u8]) -> io::Result<Vec<u8>> {
        let mut encoder = Encoder::new(self)?;
        encoder.write_all(body)?;
        encoder.finish()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn the_first_known_name_wins() {
        for (header, expected) in [
            (Some("br, deflate, gzip"), Some(Encoding::Deflate)),
            (Some("gzip,deflate"), Some(Encoding::Gzip)),
            (Some("gzip;q=0"), None),
            (Some("identity"), None),
            (Some("zstd, gzip"), Some(Encoding::Zstd)),
            (Some("gzip, deflate, br, zstd"), Some(Encoding::Gzip)),
            (None, None),
        ] {
            assert_eq!(Encoding::accepted(header), expected, "{header:?}");
        }
    }

    #[test]
    fn metrics_are_compressed_by_weight() {
        for (header, expected) in [
            (Some("deflate, gzip"), Some(Encoding::Gzip)),
            (Some("gzip;q=0.1, zstd;q=0.9"), Some(Encoding::Gzip)),
            (Some("gzip;q=0.5, identity"), None),
            (Some("gzip;q=0"), None),
            (Some("GZIP"), None),
            (Some("deflate"), None),
            (Some("*"), None),
            (Some(""), None),
            (None, None),
        ] {
            assert_eq!(Encoding::negotiated(header), expected, "{header:?}");
        }
    }

    #[test]
    fn bodies_decompress_to_themselves() {
        let body = b"abc".repeat(1000);
        let mut out = Vec::new();
        flate2::read::GzDecoder::new(&Encoding::Gzip.compress(&body).unwrap()[..]).read_to_end(&mut out).unwrap();
        assert_eq!(out, body);
        out.clear();
        flate2::read::ZlibDecoder::new(&Encoding::Deflate.compress(&body).unwrap()[..]).read_to_end(&mut out).unwrap();
        assert_eq!(out, body);
        assert_eq!(zstd::stream::decode_all(&Encoding::Zstd.compress(&body).unwrap()[..]).unwrap(), body);
    }
}
