//! Chunks: compressed runs of samples of one series, in Prometheus's encodings.
//!
//! An *open* chunk ([`words::OpenWords`]) grows under one writer while readers decode it; a *sealed* chunk
//! ([`sealed::SealedChunks`]) is the same bits as bytes, exactly as they stand in chunk files and blocks.

#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

pub mod bits;
pub mod cut;
pub mod decode;
pub mod histogram;
pub mod sealed;
mod starts;
pub mod words;
pub mod written;
pub mod xor;
pub mod xor2;

/// A chunk of these samples, which are at most 65,535, as it stands in files.
pub fn encode_xor(samples: &[(i64, f64)]) -> Vec<u8> {
    let mut encoder = xor::XorEncoder::default();
    let mut open: Option<words::OpenWords> = None;
    for (count, (t, value)) in (0u16..).zip(samples) {
        let sample = encoder.encode(count, *t, *value);
        open = Some(match open {
            None => words::OpenWords::starting_with(&sample),
            Some(words) => {
                let at = words.published();
                let words = if words.has_room(at, sample.len()) { words } else { words.grown(at, sample.len()) };
                words.append(at, &sample);
                words
            }
        });
    }
    open.map_or_else(|| vec![0; xor::HEADER_LEN], |words| words.to_chunk(words.published()))
}

/// How a chunk encodes its samples; the numbers are those of Prometheus's files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Encoding {
    /// Floats: delta-of-delta time stamps, XOR-ed values.
    Xor = 1,
    /// Histograms with whole counts.
    Histogram = 2,
    /// Histograms with float counts.
    FloatHistogram = 3,
    /// Floats that may have start times.
    Xor2 = 4,
    /// Histograms with whole counts and start times.
    HistogramStarts = 5,
    /// Histograms with float counts and start times.
    FloatHistogramStarts = 6,
}

impl Encoding {
    /// The encoding with this number; errors for numbers that are none.
    pub fn from_id(id: u8) -> Result<Self, ChunkError> {
        match id {
            1 => Ok(Self::Xor),
            2 => Ok(Self::Histogram),
            3 => Ok(Self::FloatHistogram),
            4 => Ok(Self::Xor2),
            5 => Ok(Self::HistogramStarts),
            6 => Ok(Self::FloatHistogramStarts),
            _ => Err(ChunkError::UnknownEncoding { id }),
        }
    }

    /// The encoding of the same samples that has room for start times.
    pub fn with_starts(self) -> Self {
        match self {
            Self::Xor | Self::Xor2 => Self::Xor2,
            Self::Histogram | Self::HistogramStarts => Self::HistogramStarts,
            Self::FloatHistogram | Self::FloatHistogramStarts => Self::FloatHistogramStarts,
        }
    }

    /// Its number in files.
    pub fn id(self) -> u8 {
        self as u8
    }
}

/// Why a chunk cannot be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChunkError {
    /// The bits end before the announced number of samples.
    #[error("chunk ends after {samples} samples")]
    Truncated {
        /// Samples that could be read.
        samples: u16,
    },
    /// A field holds a value that no encoder writes.
    #[error("invalid chunk data after {samples} samples")]
    Invalid {
        /// Samples that could be read.
        samples: u16,
    },
    /// The encoding byte names no encoding that this version reads.
    #[error("unknown chunk encoding {id}")]
    UnknownEncoding {
        /// The byte.
        id: u8,
    },
    /// A file does not hold a chunk as it was written.
    #[error("file {file} of chunks_head is damaged at byte {offset}")]
    DamagedFile {
        /// Its number.
        file: u64,
        /// Where the chunk begins.
        offset: u64,
    },
    /// A file cannot be read.
    #[error("file {file} of chunks_head cannot be read: {kind}")]
    UnreadableFile {
        /// Its number.
        file: u64,
        /// Why not.
        kind: std::io::ErrorKind,
    },
}

#[cfg(test)]
mod golden_tests;
