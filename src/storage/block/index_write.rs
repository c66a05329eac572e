//! Writes the index of a block, version 2.
//! ```text
//! │ magic 0xBAAAD700 u32 │ version 2 u8 │
//! symbols   │ len u32 │ n u32 │ n × text │ crc32c │                                    sorted, unique
//! series    { zeros up to a multiple of 16 │ len uvarint │ labels │ chunks │ crc32c }  sorted by labels; id = place / 16
//!   labels  │ n uvarint │ n × (symbol of name uvarint, symbol of value uvarint) │
//!   chunks  │ n uvarint │ min t varint │ max t − min t uvarint │ ref uvarint │
//!           then (n − 1) × ( min t − last max t uvarint, max t − min t uvarint, ref − last ref varint )
//! postings  { zeros up to a multiple of 4 │ len u32 │ n u32 │ n × series id u32 │ crc32c }   by name and value; all series first
//! table     │ len u32 │ n u32 │ n × ( 2 u8, name, value, place of the postings uvarint ) │ crc32c │
//! TOC       │ symbols │ series │ label indices │ label index table │ postings │ postings table │ crc32c │    each u64
//! ```
//! Label indices are not written any more: their places are those where they would begin.

use std::hash::{BuildHasher, Hasher};
use std::path::{Path, PathBuf};

use foldhash::fast::FixedState;
use hashbrown::{HashMap, HashTable};

use crate::model::labels::Labels;
use crate::storage::block::bytes::{put_str, put_uvarint, put_varint, uvarint_len};
use crate::storage::block::chunks::ChunkMeta;
use crate::storage::block::{BlockError, IoContext};
use crate::storage::fs::{File, Fs};

pub(super) const MAGIC: u32 = 0xBAAA_D700;
/// Alignment of series in version 2; their ids count these steps.
pub(super) const SERIES_ALIGN: u64 = 16;
const POSTINGS_ALIGN: u64 = 4;
const WRITE_LEN: usize = 1 << 20;

/// Gathers what is written in turn.
struct Output {
    file: Box<dyn File>,
    path: PathBuf,
    len: u64,
    waiting: Vec<u8>,
    checksum: u32,
}

impl Output {
    fn put(&mut self, data: &[u8]) -> Result<(), BlockError> {
        self.waiting.extend_from_slice(data);
        self.len += data.len() as u64;
        if WRITE_LEN <= self.waiting.len() { self.flush() } else { Ok(()) }
    }

    /// The same, counted into the checksum.
    fn put_covered(&mut self, data: &[u8]) -> Result<(), BlockError> {
        self.checksum = crc32c::crc32c_append(self.checksum, data);
        self.put(data)
    }

    fn put_checksum(&mut self) -> Result<(), BlockError> {
        let checksum = std::mem::take(&mut self.checksum);
        self.put(&checksum.to_be_bytes())
    }

    fn pad(&mut self, align: u64) -> Result<(), BlockError> {
        let padding = usize::try_from(self.len.next_multiple_of(align) - self.len).unwrap_or(0);
        self.put([0; SERIES_ALIGN as usize].get(..padding).unwrap_or(&[]))
    }

    fn flush(&mut self) -> Result<(), BlockError> {
        let at = self.len - self.waiting.len() as u64;
        self.file.write_all_at(&self.waiting, at).context("write", &self.path)?;
        self.waiting.clear();
        Ok(())
    }

    fn section_len(&self, len: u64, what: &'static str) -> Result<[u8; 4], BlockError> {
        let len = u32::try_from(len).map_err(|_| BlockError::TooLarge { path: self.path.clone(), what })?;
        Ok(len.to_be_bytes())
    }
}

/// Finds the number of a text.
struct Symbols {
    texts: Vec<String>,
    numbers: HashTable<u32>,
    hasher: FixedState,
}

impl Symbols {
    fn new(texts: Vec<String>) -> Self {
        let hasher = FixedState::default();
        let mut numbers = HashTable::with_capacity(texts.len());
        for (number, text) in (0u32..).zip(&texts) {
            numbers.insert_unique(hash(&hasher, text), number, |other| {
                hash(&hasher, texts.get(*other as usize).map_or("", String::as_str))
            });
        }
        Self { texts, numbers, hasher }
    }

    fn number(&self, text: &str) -> Option<u32> {
        self.numbers.find(hash(&self.hasher, text), |number| self.text(*number) == text).copied()
    }

    fn text(&self, number: u32) -> &str {
        self.texts.get(number as usize).map_or("", String::as_str)
    }
}

fn hash(hasher: &FixedState, text: &str) -> u64 {
    let mut state = hasher.build_hasher();
    state.write(text.as_bytes());
    state.finish()
}

/// Writes one index: the symbols at once, then series in the order of their labels.
pub struct IndexWriter {
    out: Output,
    symbols: Symbols,
    series_from: u64,
    last: Option<Labels>,
    last_chunk: u64,
    /// Ids of the series, in order.
    ids: Vec<u32>,
    /// Numbers of label pairs (name and value symbol), given as they appear.
    pairs: HashMap<(u32, u32), u32, FixedState>,
    /// How many series have each pair.
    pair_counts: Vec<u32>,
    /// The pairs of all series, and where those of each series end.
    series_pairs: Vec<u32>,
    series_ends: Vec<usize>,
    buffer: Vec<u8>,
}

impl IndexWriter {
    /// Begins the index at `path`. `symbols` are all names and values that the series have, sorted and unique; the empty text
    /// among them, as Prometheus has it.
    pub fn create(fs: &dyn Fs, path: &Path, symbols: Vec<String>) -> Result<Self, BlockError> {
        let file = fs.create(path).context("create", path)?;
        let mut out = Output { file, path: path.to_path_buf(), len: 0, waiting: Vec::new(), checksum: 0 };
        out.put(&MAGIC.to_be_bytes())?;
        out.put(&[2])?;
        if symbols.windows(2).any(|pair| matches!(pair, [a, b] if b <= a)) {
            return Err(BlockError::input("symbols are not sorted"));
        }
        let len = 4 + symbols.iter().map(|text| uvarint_len(text.len() as u64) + text.len() as u64).sum::<u64>();
        out.put(&out.section_len(len, "the symbol table")?)?;
        let count = u32::try_from(symbols.len()).expect("each symbol takes a byte of a table below 4 GiB");
        out.put_covered(&count.to_be_bytes())?;
        let mut buffer = Vec::new();
        for text in &symbols {
            buffer.clear();
            put_str(&mut buffer, text);
            out.put_covered(&buffer)?;
        }
        out.put_checksum()?;
        let series_from = out.len;
        Ok(Self {
            out,
            symbols: Symbols::new(symbols),
            series_from,
            last: None,
            last_chunk: 0,
            ids: Vec::new(),
            pairs: HashMap::default(),
            pair_counts: Vec::new(),
            series_pairs: Vec::new(),
            series_ends: Vec::new(),
            buffer,
        })
    }

    /// Adds a series with its chunks, which do not overlap. Series come in the order of their labels.
    pub fn add_series(&mut self, labels: &Labels, chunks: &[ChunkMeta]) -> Result<(), BlockError> {
        if labels.is_empty() || self.last.as_ref().is_some_and(|last| labels <= last) {
            return Err(BlockError::input(format!("series {labels} is not behind the last")));
        }
        self.out.pad(SERIES_ALIGN)?;
        let id = u32::try_from(self.out.len / SERIES_ALIGN);
        let id =
            id.map_err(|_| BlockError::TooLarge { path: self.out.path.clone(), what: "exceeding max size of 64GiB" })?;
        self.buffer.clear();
        put_uvarint(&mut self.buffer, labels.len() as u64);
        for (name, value) in labels {
            let (Some(name_symbol), Some(value_symbol)) = (self.symbols.number(name), self.symbols.number(value))
            else {
                return Err(BlockError::input(format!("symbol entry for {name:?} or {value:?} does not exist")));
            };
            put_uvarint(&mut self.buffer, u64::from(name_symbol));
            put_uvarint(&mut self.buffer, u64::from(value_symbol));
            let next = u32::try_from(self.pair_counts.len())
                .map_err(|_| BlockError::TooLarge { path: self.out.path.clone(), what: "label pairs" })?;
            let pair = *self.pairs.entry((name_symbol, value_symbol)).or_insert(next);
            if pair == next {
                self.pair_counts.push(0);
            }
            if let Some(count) = self.pair_counts.get_mut(pair as usize) {
                *count += 1;
            }
            self.series_pairs.push(pair);
        }
        self.put_chunks(chunks)?;
        let mut head = Vec::with_capacity(5);
        put_uvarint(&mut head, self.buffer.len() as u64);
        self.out.put(&head)?;
        self.out.put_covered(&self.buffer)?;
        self.out.put_checksum()?;
        self.ids.push(id);
        self.series_ends.push(self.series_pairs.len());
        self.last = Some(labels.clone());
        Ok(())
    }

    fn put_chunks(&mut self, chunks: &[ChunkMeta]) -> Result<(), BlockError> {
        put_uvarint(&mut self.buffer, chunks.len() as u64);
        let mut last: Option<&ChunkMeta> = None;
        for chunk in chunks {
            if chunk.reference < self.last_chunk || chunk.max_t < chunk.min_t {
                return Err(BlockError::input("chunks are not in the order of their places"));
            }
            self.last_chunk = chunk.reference;
            match last {
                None => put_varint(&mut self.buffer, chunk.min_t),
                Some(last) if chunk.min_t <= last.max_t => {
                    return Err(BlockError::input(format!(
                        "chunk minT {} is not higher than previous chunk maxT {}",
                        chunk.min_t, last.max_t
                    )));
                }
                Some(last) => put_uvarint(&mut self.buffer, chunk.min_t.wrapping_sub(last.max_t) as u64),
            }
            put_uvarint(&mut self.buffer, chunk.max_t.wrapping_sub(chunk.min_t) as u64);
            match last {
                None => put_uvarint(&mut self.buffer, chunk.reference),
                Some(last) => put_varint(&mut self.buffer, chunk.reference.wrapping_sub(last.reference) as i64),
            }
            last = Some(chunk);
        }
        Ok(())
    }

    /// Writes postings, their table and the contents, makes the file durable and returns its length.
    pub fn finish(mut self) -> Result<u64, BlockError> {
        let postings_at = self.out.len;
        self.out.pad(POSTINGS_ALIGN)?;
        let ids = std::mem::take(&mut self.ids);
        let mut offsets = vec![self.put_postings(&ids)?];
        let (starts, by_pair) = self.transpose(&ids);
        drop(ids);
        let mut pairs: Vec<((u32, u32), u32)> = self.pairs.drain().collect();
        // Symbols are numbered in the order of their texts.
        pairs.sort_unstable();
        for (_, pair) in &pairs {
            let range = starts.get(*pair as usize).zip(starts.get(*pair as usize + 1));
            let postings = range.and_then(|(from, to)| by_pair.get(*from..*to)).unwrap_or(&[]);
            offsets.push(self.put_postings(postings)?);
        }
        drop(by_pair);
        let table_at = self.out.len;
        let names: Vec<(u32, u32)> = pairs.into_iter().map(|(symbols, _)| symbols).collect();
        self.put_table(&names, &offsets)?;
        let toc = [5, self.series_from, postings_at, table_at, postings_at, table_at];
        for place in toc {
            self.out.put_covered(&place.to_be_bytes())?;
        }
        self.out.put_checksum()?;
        self.out.flush()?;
        self.out.file.sync_data().context("sync", &self.out.path)?;
        Ok(self.out.len)
    }

    /// The ids of the series of each pair, pair by pair, and where those of each pair begin.
    fn transpose(&mut self, ids: &[u32]) -> (Vec<usize>, Vec<u32>) {
        let mut starts = Vec::with_capacity(self.pair_counts.len() + 1);
        let mut sum = 0usize;
        starts.push(0);
        for count in &self.pair_counts {
            sum += *count as usize;
            starts.push(sum);
        }
        let mut next = starts.clone();
        let mut by_pair = vec![0u32; sum];
        let mut from = 0;
        for (id, end) in ids.iter().zip(&self.series_ends) {
            for pair in self.series_pairs.get(from..*end).unwrap_or(&[]) {
                let Some(at) = next.get_mut(*pair as usize) else { continue };
                if let Some(place) = by_pair.get_mut(*at) {
                    *place = *id;
                }
                *at += 1;
            }
            from = *end;
        }
        (self.series_pairs, self.series_ends) = (Vec::new(), Vec::new());
        (starts, by_pair)
    }

    fn put_postings(&mut self, ids: &[u32]) -> Result<u64, BlockError> {
        self.out.pad(POSTINGS_ALIGN)?;
        let offset = self.out.len;
        let len = self.out.section_len(4 + 4 * ids.len() as u64, "a postings list")?;
        self.out.put(&len)?;
        let count = u32::try_from(ids.len()).expect("a list below 4 GiB has fewer entries");
        self.out.put_covered(&count.to_be_bytes())?;
        for chunk in ids.chunks(4096) {
            self.buffer.clear();
            for id in chunk {
                self.buffer.extend_from_slice(&id.to_be_bytes());
            }
            self.out.put_covered(&self.buffer)?;
        }
        self.out.put_checksum()?;
        Ok(offset)
    }

    /// The table: the list of all series under empty texts, then one entry a pair.
    fn put_table(&mut self, names: &[(u32, u32)], offsets: &[u64]) -> Result<(), BlockError> {
        let symbols = &self.symbols;
        let entries = || {
            let texts = names.iter().map(|(name, value)| (symbols.text(*name), symbols.text(*value)));
            std::iter::once(("", "")).chain(texts).zip(offsets)
        };
        let text_len = |text: &str| uvarint_len(text.len() as u64) + text.len() as u64;
        let len: u64 =
            entries().map(|((name, value), offset)| 1 + text_len(name) + text_len(value) + uvarint_len(*offset)).sum();
        self.out.put(&self.out.section_len(4 + len, "the postings offset table")?)?;
        let count = u32::try_from(offsets.len()).expect("a table below 4 GiB has fewer entries");
        self.out.put_covered(&count.to_be_bytes())?;
        for ((name, value), offset) in entries() {
            self.buffer.clear();
            self.buffer.push(2);
            put_str(&mut self.buffer, name);
            put_str(&mut self.buffer, value);
            put_uvarint(&mut self.buffer, *offset);
            self.out.put_covered(&self.buffer)?;
        }
        self.out.put_checksum()
    }
}
