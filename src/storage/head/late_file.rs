//! The bytes of a closed chunk of late samples: in memory until they stand in a file of head chunks, then read from there, and
//! checked, each time they are wanted.

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::model::sample::SeriesRef;
use crate::storage::chunk::{ChunkError, Encoding};
use crate::storage::fs::File;
use crate::storage::head_chunks::parse;

/// A file of head chunks that is open for reading. Who holds it can read it also when it was replaced or removed.
pub(crate) struct LateFile {
    path: PathBuf,
    file: Box<dyn File>,
}

impl LateFile {
    /// The file at `path`.
    pub(crate) fn new(path: PathBuf, file: Box<dyn File>) -> Arc<Self> {
        Arc::new(Self { path, file })
    }
}

impl fmt::Debug for LateFile {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}", self.path.display())
    }
}

/// Where a chunk stands in a file, with its header and its checksum.
#[derive(Clone, Debug)]
pub(crate) struct LatePlace {
    /// The file.
    pub(crate) file: Arc<LateFile>,
    /// Where it begins.
    pub(crate) offset: u64,
    /// Its bytes.
    pub(crate) len: u32,
}

/// A late chunk that a file holds.
#[derive(Clone, Debug)]
pub(crate) struct StoredLate {
    /// The series, as the file names it.
    pub(crate) series: SeriesRef,
    /// How it is encoded.
    pub(crate) encoding: Encoding,
    /// Time of its first sample.
    pub(crate) min_t: i64,
    /// Time of its last sample.
    pub(crate) max_t: i64,
    /// Samples in it.
    pub(crate) samples: u16,
    /// Where it stands.
    pub(crate) place: LatePlace,
}

/// The bytes of a chunk.
#[derive(Clone, Debug)]
pub(crate) enum LateData {
    /// In memory.
    Memory(Arc<[u8]>),
    /// In a file.
    Stored(LatePlace),
}

/// Why late samples cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LateError {
    /// A chunk cannot be decoded.
    #[error(transparent)]
    Chunk(#[from] ChunkError),
    /// The disk says no.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// What stands there is not the chunk that was written.
    #[error("{} is damaged at byte {offset}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where.
        offset: u64,
    },
}

impl LateData {
    /// The chunk as it is encoded.
    pub(crate) fn read(&self) -> Result<Cow<'_, [u8]>, LateError> {
        let place = match self {
            Self::Memory(data) => return Ok(Cow::Borrowed(data)),
            Self::Stored(place) => place,
        };
        let path = || place.file.path.clone();
        let mut bytes = vec![0; usize::try_from(place.len).unwrap_or(0)];
        let read = place.file.file.read_at(&mut bytes, place.offset);
        let read = read.map_err(|source| LateError::Io { path: path(), source })?;
        bytes.truncate(read);
        match parse(&bytes) {
            Some((_, chunk)) => Ok(Cow::Owned(chunk.data.to_vec())),
            None => Err(LateError::Damaged { path: path(), offset: place.offset }),
        }
    }

    /// Bytes in memory.
    pub(crate) fn memory_len(&self) -> usize {
        match self {
            Self::Memory(data) => data.len(),
            Self::Stored(_) => 0,
        }
    }
}
