//! Reads the index of a block, versions 1 to 3; the layout stands in `index_write`.
//!
//! In memory are every 32nd symbol's and postings entry's place only; the rest is read by pages. Version 1 names symbols by
//! their place in the file and series by theirs, and its postings table is in no order: it is held whole.
//! Checked at opening: contents, symbols, postings table, by checksum and order; with each read: series and postings lists.

mod scan;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use hashbrown::HashMap;

use crate::model::labels::{Labels, LabelsRoom};
use crate::model::read::ReadError;
use crate::storage::block::BlockError;
use crate::storage::block::bytes::Slice;
use crate::storage::block::chunks::ChunkMeta;
use crate::storage::block::index_write::{MAGIC, SERIES_ALIGN};
use crate::storage::block::pages::{Cursor, HeldPage, KnownInBlocks, PageCache, PagedFile};
use crate::storage::block::pairing::Pairings;
use crate::storage::fs::Fs;

const HEADER_LEN: u64 = 5;
const TOC_LEN: u64 = 52;
const CHECKSUM_LEN: u64 = 4;
/// Of so many neighbours one is remembered.
const STEP: u64 = 32;
/// Longest series entry that is read: some thousand labels and chunks.
const SERIES_LEN_MAX: u64 = 64 << 20;
/// Symbols that a lookup remembers before it begins anew.
const MEMO_MAX: usize = 1 << 16;
/// Bytes of their texts, likewise.
const MEMO_TEXT_LEN_MAX: usize = 4 << 20;
const READ_LEN: u64 = 256 << 10;

/// An open index.
pub struct IndexReader {
    file: PagedFile,
    version: u8,
    toc: Toc,
    symbols: SymbolTable,
    postings: PostingsTable,
}

#[derive(Clone, Copy, Debug)]
struct Toc {
    symbols: u64,
    series: u64,
    label_indices: u64,
    postings: u64,
    postings_table: u64,
}

struct SymbolTable {
    count: u64,
    /// Where the first text begins.
    from: u64,
    end: u64,
    /// Distance of every 32nd text from there.
    steps: Vec<u32>,
}

enum PostingsTable {
    Sorted(BTreeMap<Box<str>, NameEntries>),
    Whole(BTreeMap<Box<str>, BTreeMap<Box<str>, u64>>),
}

/// Entries of one name in a sorted table.
struct NameEntries {
    count: u64,
    /// Every 32nd value and the place of its entry.
    steps: Vec<(Box<str>, u64)>,
}

/// A series as the index names it.
#[derive(Clone, Debug, PartialEq)]
pub struct IndexSeries {
    /// Its labels.
    pub labels: Labels,
    /// Its chunks, oldest first.
    pub chunks: Vec<ChunkMeta>,
}

/// Texts that were looked up lately, and room for the series that is read; for one selection or compaction.
#[derive(Default)]
pub struct SymbolMemo {
    /// Where each text stands in `text`.
    places: HashMap<u64, Range<usize>, foldhash::fast::RandomState>,
    text: String,
    body: Vec<u8>,
    page: HeldPage,
}

impl SymbolMemo {
    fn make_room(&mut self) {
        if MEMO_MAX <= self.places.len() || MEMO_TEXT_LEN_MAX <= self.text.len() {
            self.places.clear();
            self.text.clear();
        }
    }
}

/// Whether to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// With the next value.
    Go,
    /// No further value is wanted.
    Stop,
}

impl IndexReader {
    /// Opens and checks the index at `path`.
    pub fn open(fs: &dyn Fs, path: &Path, cache: &Arc<PageCache>) -> Result<Self, BlockError> {
        let file = PagedFile::open(fs, path, cache)?;
        if file.len() < HEADER_LEN + TOC_LEN {
            return Err(file.corrupt(0, "invalid size"));
        }
        let header = file.read_once(0, HEADER_LEN)?;
        let mut read = Slice::new(&header);
        let magic = read.u32().unwrap_or(0);
        if magic != MAGIC {
            return Err(file.corrupt(0, format!("invalid magic number {magic:x}")));
        }
        let version = read.u8().unwrap_or(0);
        if !(1..=3).contains(&version) {
            return Err(file.corrupt(4, format!("unknown index file version {version}")));
        }
        let toc = Toc::read(&file)?;
        let symbols = SymbolTable::read(&file, toc.symbols)?;
        let postings = PostingsTable::read(&file, toc, version)?;
        Ok(Self { file, version, toc, symbols, postings })
    }

    /// What is remembered of all indexes, and the number of this one there.
    pub(super) fn known(&self) -> (&KnownInBlocks, u64) {
        self.file.known()
    }

    /// Which values occur together in all indexes, as far as it is remembered, and the number of this one there.
    pub(super) fn pairings(&self) -> (&Pairings, u64) {
        self.file.pairings()
    }

    /// Bytes of the file.
    pub fn len(&self) -> u64 {
        self.file.len()
    }

    /// True if no label names stand in it.
    pub fn is_empty(&self) -> bool {
        self.names().next().is_none()
    }

    /// Bytes that the remembered symbols take.
    pub fn symbol_steps_len(&self) -> usize {
        size_of_val(&*self.symbols.steps)
    }

    /// The label names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let (sorted, whole) = match &self.postings {
            PostingsTable::Sorted(names) => (Some(names), None),
            PostingsTable::Whole(names) => (None, Some(names)),
        };
        let sorted = sorted.into_iter().flat_map(|names| names.keys());
        let whole = whole.into_iter().flat_map(|names| names.keys());
        sorted.chain(whole).map(|name| &**name).filter(|name| !name.is_empty())
    }

    /// Calls `take` with the values of a label from `from` on, in order, and the places of their postings.
    pub fn values_from(
        &self,
        name: &str,
        from: &str,
        take: &mut dyn FnMut(&str, u64) -> Result<Next, ReadError>,
    ) -> Result<(), ReadError> {
        let entries = match &self.postings {
            PostingsTable::Whole(names) => {
                let values = names.get(name).into_iter().flatten();
                for (value, offset) in values.filter(|(value, _)| from <= &***value) {
                    if take(value, *offset)? == Next::Stop {
                        break;
                    }
                }
                return Ok(());
            }
            PostingsTable::Sorted(names) => names.get(name),
        };
        let Some(entries) = entries else { return Ok(()) };
        let step = entries.steps.partition_point(|(value, _)| &**value <= from).saturating_sub(1);
        let Some((_, place)) = entries.steps.get(step) else { return Ok(()) };
        let mut cursor = self.file.cursor(*place);
        let mut is_reached = from.is_empty();
        // It was checked when the index was opened.
        let not_utf8 = || self.file.corrupt(*place, "a value is not UTF-8");
        let mut take = |text: &[u8], offset: u64| -> Result<Next, ReadError> {
            let text = std::str::from_utf8(text).map_err(|_| not_utf8())?;
            is_reached = is_reached || from <= text;
            if is_reached { take(text, offset) } else { Ok(Next::Go) }
        };
        let left = entries.count - (step as u64 * STEP).min(entries.count);
        each_entry(&mut cursor, left, &mut take).map(drop)
    }

    /// Where the postings of a label pair stand; `None` if no series has it.
    pub fn postings_of(&self, name: &str, value: &str) -> Result<Option<u64>, ReadError> {
        let mut found = None;
        self.values_from(name, value, &mut |first, offset| {
            found = (first == value).then_some(offset);
            Ok(Next::Stop)
        })?;
        Ok(found)
    }

    /// The ids of a postings list, ascending.
    pub fn postings(&self, offset: u64) -> Result<Vec<u32>, BlockError> {
        let (mut cursor, ids_len) = self.checked_list(offset)?;
        let mut ids: Vec<u32> = Vec::with_capacity(usize::try_from(ids_len / 4).unwrap_or(0));
        let mut on_two_pages: Vec<u8> = Vec::with_capacity(4);
        cursor.pass(ids_len, &mut |piece| {
            let missing = if on_two_pages.is_empty() { 0 } else { piece.len().min(4 - on_two_pages.len()) };
            let (raw, rest) = piece.split_at(missing);
            on_two_pages.extend_from_slice(raw);
            if let Some(raw) = on_two_pages.first_chunk::<4>() {
                ids.push(u32::from_be_bytes(*raw));
                on_two_pages.clear();
            }
            let whole = rest.chunks_exact(4);
            on_two_pages.extend_from_slice(whole.remainder());
            ids.extend(whole.filter_map(|raw| raw.first_chunk::<4>()).map(|raw| u32::from_be_bytes(*raw)));
            Next::Go
        })?;
        // Looked at without stopping, many are compared at a time.
        if ids.iter().zip(ids.iter().skip(1)).fold(true, |is_sorted, (a, b)| is_sorted & (a < b)) {
            Ok(ids)
        } else {
            Err(self.not_ascending(offset))
        }
    }

    fn not_ascending(&self, offset: u64) -> BlockError {
        self.file.corrupt(offset, "postings are not ascending")
    }

    /// Goes to the ids of a postings list, once all of it has been checked; says how many bytes they are.
    fn checked_list(&self, offset: u64) -> Result<(Cursor<'_>, u64), BlockError> {
        let mut cursor = self.file.cursor(offset);
        let mut head = Vec::with_capacity(4);
        cursor.bytes(4, &mut head)?;
        let len = Slice::new(&head).u32().map_or(0, u64::from);
        let (from, mut checksum) = (cursor.place(), 0);
        cursor.pass(len, &mut |piece| {
            checksum = crc32c::crc32c_append(checksum, piece);
            Next::Go
        })?;
        let mut expected = Vec::with_capacity(4);
        cursor.bytes(CHECKSUM_LEN, &mut expected)?;
        if Slice::new(&expected).u32() != Some(checksum) {
            return Err(self.file.corrupt(offset, "invalid checksum of postings"));
        }
        let mut cursor = self.file.cursor_on(from, cursor.into_page());
        head.clear();
        cursor.bytes(4.min(len), &mut head)?;
        let count = Slice::new(&head).u32().map_or(0, u64::from);
        let ids_len = len.saturating_sub(4);
        if ids_len != count.saturating_mul(4) {
            return Err(self.file.corrupt(offset, format!("unexpected postings length, should be {ids_len} bytes")));
        }
        Ok((cursor, ids_len))
    }

    /// Calls `take` with the ids of a postings list, ascending. All of it is checked before, however many are wanted.
    pub fn each_posting(&self, offset: u64, mut take: impl FnMut(u32) -> Next) -> Result<(), BlockError> {
        let (mut cursor, ids_len) = self.checked_list(offset)?;
        let (mut last, mut is_sorted) = (None, true);
        let mut on_two_pages = Vec::with_capacity(4);
        cursor.pass(ids_len, &mut |piece| {
            let mut rest = piece;
            while !on_two_pages.is_empty() || !rest.is_empty() {
                let id = match rest.split_first_chunk::<4>() {
                    Some((raw, behind)) if on_two_pages.is_empty() => {
                        rest = behind;
                        u32::from_be_bytes(*raw)
                    }
                    _ => {
                        let (raw, behind) = rest.split_at(rest.len().min(4 - on_two_pages.len()));
                        on_two_pages.extend_from_slice(raw);
                        rest = behind;
                        let Some(id) = Slice::new(&on_two_pages).u32() else { return Next::Go };
                        on_two_pages.clear();
                        id
                    }
                };
                is_sorted = last.is_none_or(|last| last < id);
                if !is_sorted || take(id) == Next::Stop {
                    return Next::Stop;
                }
                last = Some(id);
            }
            Next::Go
        })?;
        if is_sorted { Ok(()) } else { Err(self.not_ascending(offset)) }
    }

    /// How many ids the postings list says that it has.
    pub fn postings_len(&self, offset: u64) -> Result<usize, BlockError> {
        let mut head = Vec::with_capacity(8);
        self.file.cursor(offset).bytes(8, &mut head)?;
        let mut read = Slice::new(&head);
        let (_, count) = (read.u32(), read.u32());
        Ok(count.map_or(0, |count| count as usize))
    }

    /// The ids of all series, which is the order of their labels.
    pub fn all_postings(&self) -> Result<Vec<u32>, ReadError> {
        match self.place_of_all()? {
            Some(offset) => Ok(self.postings(offset)?),
            None => Ok(Vec::new()),
        }
    }

    /// Where the ids of all series stand; `None` if there are none.
    pub fn place_of_all(&self) -> Result<Option<u64>, ReadError> {
        self.postings_of("", "")
    }

    /// Number of values of a label.
    pub fn values_len(&self, name: &str) -> usize {
        match &self.postings {
            PostingsTable::Sorted(names) => names.get(name).map_or(0, |entries| entries.count as usize),
            PostingsTable::Whole(names) => names.get(name).map_or(0, BTreeMap::len),
        }
    }

    /// The series with this id.
    pub fn series(&self, id: u32, memo: &mut SymbolMemo) -> Result<IndexSeries, BlockError> {
        let (offset, body) = self.read_body(id, memo)?;
        let mut read = Slice::new(&body);
        let labels = self.read_labels(&mut read, offset, memo)?;
        let chunks = read_chunks(&mut read)
            .ok_or_else(|| self.file.corrupt(offset, "the chunks of a series are not readable"))?;
        memo.body = body;
        Ok(IndexSeries { labels, chunks })
    }

    /// Where the series with this id stands, and its entry, which is checked. It lies in the room of `memo`.
    fn read_body(&self, id: u32, memo: &mut SymbolMemo) -> Result<(u64, Vec<u8>), BlockError> {
        let offset = if self.version == 1 { u64::from(id) } else { u64::from(id) * SERIES_ALIGN };
        if offset < self.toc.series || self.toc.label_indices.max(self.toc.postings) <= offset {
            return Err(self.file.corrupt(offset, "no series stands there"));
        }
        // Series that are read one after the other mostly stand on the same page.
        let mut cursor = self.file.cursor_on(offset, std::mem::take(&mut memo.page));
        let len = cursor.uvarint()?;
        if SERIES_LEN_MAX < len {
            return Err(self.file.corrupt(offset, format!("a series entry of {len} bytes is announced")));
        }
        let mut body = std::mem::take(&mut memo.body);
        body.clear();
        cursor.bytes(len + CHECKSUM_LEN, &mut body)?;
        memo.page = cursor.into_page();
        let covered_len = match body.split_last_chunk::<4>() {
            Some((covered, checksum)) if crc32c::crc32c(covered) == u32::from_be_bytes(*checksum) => covered.len(),
            _ => return Err(self.file.corrupt(offset, "invalid checksum of a series")),
        };
        body.truncate(covered_len);
        Ok((offset, body))
    }

    fn read_labels(&self, read: &mut Slice<'_>, offset: u64, memo: &mut SymbolMemo) -> Result<Labels, BlockError> {
        let cut_short = || self.file.corrupt(offset, "the labels of a series are not readable");
        let count = read.uvarint().ok_or_else(cut_short)?;
        let mut room = LabelsRoom::default();
        let mut last: Option<Range<usize>> = None;
        memo.make_room();
        for _ in 0..count {
            let (name, value) = read.uvarint().zip(read.uvarint()).ok_or_else(cut_short)?;
            let (name, value) = (self.symbol(name, memo)?, self.symbol(value, memo)?);
            let text = |place: &Range<usize>| memo.text.get(place.clone()).unwrap_or("");
            if last.is_some_and(|last| text(&name) <= text(&last)) {
                return Err(self.file.corrupt(offset, "the labels of a series are not sorted"));
            }
            if !value.is_empty() {
                room.push(text(&name), text(&value));
            }
            last = Some(name);
        }
        Ok(room.take())
    }

    /// Where the text of a symbol stands in the memo.
    fn symbol(&self, number: u64, memo: &mut SymbolMemo) -> Result<Range<usize>, BlockError> {
        if let Some(place) = memo.places.get(&number) {
            return Ok(place.clone());
        }
        let table = &self.symbols;
        let mut cursor = if self.version == 1 {
            if number < table.from || table.end <= number {
                return Err(self.file.corrupt(number, "no symbol stands there"));
            }
            self.file.cursor(number)
        } else {
            let step = usize::try_from(number / STEP).ok().and_then(|step| table.steps.get(step));
            let Some(step) = step.filter(|_| number < table.count) else {
                return Err(self.file.corrupt(table.from, format!("unknown symbol offset {number}")));
            };
            let mut cursor = self.file.cursor(table.from + u64::from(*step));
            for _ in 0..number % STEP {
                let len = cursor.uvarint()?;
                cursor.skip(len);
            }
            cursor
        };
        let mut raw = Vec::new();
        let from = memo.text.len();
        memo.text.push_str(cursor.text(&mut raw)?);
        let place = from..memo.text.len();
        memo.places.insert(number, place.clone());
        Ok(place)
    }

    /// Calls `take` with every symbol, in the order of the file: sorted, but for version 1.
    pub fn symbols(&self, take: &mut dyn FnMut(&str)) -> Result<(), BlockError> {
        let mut cursor = self.file.cursor(self.symbols.from);
        let mut raw = Vec::new();
        for _ in 0..self.symbols.count {
            take(cursor.text(&mut raw)?);
        }
        Ok(())
    }
}

/// Takes value and postings' place of an entry of the table.
type TakeEntry<'a> = dyn FnMut(&[u8], u64) -> Result<Next, ReadError> + 'a;

/// Calls `take` with the next `count` entries of the table, as they stand.
fn each_entry(cursor: &mut Cursor<'_>, count: u64, take: &mut TakeEntry<'_>) -> Result<Next, ReadError> {
    let (mut left, mut value) = (count, Vec::new());
    while 0 < left {
        // Entry by entry as they stand on the page.
        let rest = cursor.rest()?;
        let (mut on_page, mut taken) = (Slice::new(rest), 0);
        while 0 < left
            && let Some((text, offset)) = read_entry_on_page(&mut on_page)
        {
            taken = rest.len() - on_page.len();
            left -= 1;
            if take(text, offset)? == Next::Stop {
                return Ok(Next::Stop);
            }
        }
        cursor.skip(taken as u64);
        if 0 < left {
            // One that reaches into the next page.
            let offset = read_entry(cursor, &mut value)?;
            left -= 1;
            if take(&value, offset)? == Next::Stop {
                return Ok(Next::Stop);
            }
        }
    }
    Ok(Next::Go)
}

/// The value and the postings' place of the table's next entry.
fn read_entry(cursor: &mut Cursor<'_>, value: &mut Vec<u8>) -> Result<u64, BlockError> {
    // The number of texts, which was checked, and the name.
    cursor.uvarint()?;
    let len = cursor.uvarint()?;
    cursor.skip(len);
    cursor.text(value)?;
    cursor.uvarint()
}

/// As [`read_entry`], of what is left of a page; `None` if the entry goes on behind it, or cannot be read.
fn read_entry_on_page<'a>(page: &mut Slice<'a>) -> Option<(&'a [u8], u64)> {
    page.uvarint()?;
    let len = page.uvarint()?;
    page.take(len)?;
    let len = page.uvarint()?;
    let text = page.take(len)?;
    Some((text, page.uvarint()?))
}

/// `None`: the bytes end, or what they say no writer has written.
fn read_chunks(read: &mut Slice<'_>) -> Option<Vec<ChunkMeta>> {
    let count = read.uvarint()?;
    // Each takes three bytes at least.
    if read.len() as u64 / 3 < count {
        return None;
    }
    let mut chunks: Vec<ChunkMeta> = Vec::with_capacity(usize::try_from(count).ok()?);
    for _ in 0..count {
        let last = chunks.last().copied();
        let min_t = match last {
            None => read.varint()?,
            Some(last) => last.max_t.checked_add_unsigned(read.uvarint()?)?,
        };
        let max_t = min_t.checked_add_unsigned(read.uvarint()?)?;
        let reference = match last {
            None => read.uvarint()?,
            Some(last) => last.reference.checked_add_signed(read.varint()?)?,
        };
        chunks.push(ChunkMeta { reference, min_t, max_t });
    }
    Some(chunks)
}

impl Toc {
    fn read(file: &PagedFile) -> Result<Self, BlockError> {
        let at = file.len() - TOC_LEN;
        let raw = file.read_once(at, TOC_LEN)?;
        let covered = match raw.split_last_chunk::<4>() {
            Some((covered, checksum)) if crc32c::crc32c(covered) == u32::from_be_bytes(*checksum) => covered,
            _ => return Err(file.corrupt(at, "read TOC: invalid checksum")),
        };
        let mut read = Slice::new(covered);
        let mut place = || match read.u64() {
            Some(place) if place <= at => Ok(place),
            _ => Err(file.corrupt(at, "read TOC: a section lies outside the file")),
        };
        let (symbols, series, label_indices) = (place()?, place()?, place()?);
        place()?;
        Ok(Self { symbols, series, label_indices, postings: place()?, postings_table: place()? })
    }
}

impl SymbolTable {
    fn read(file: &PagedFile, at: u64) -> Result<Self, BlockError> {
        if at == 0 {
            return Ok(Self { count: 0, from: 0, end: 0, steps: Vec::new() });
        }
        let mut section = Section::open(file, at)?;
        let count = u64::from(section.u32()?);
        let from = section.at();
        let mut steps = Vec::new();
        for number in 0..count {
            if number % STEP == 0 {
                let step = u32::try_from(section.at() - from);
                steps.push(step.map_err(|_| file.corrupt(at, "the symbol table is too long"))?);
            }
            section.text()?;
        }
        let end = section.at();
        section.finish()?;
        Ok(Self { count, from, end, steps })
    }
}

impl PostingsTable {
    fn read(file: &PagedFile, toc: Toc, version: u8) -> Result<Self, BlockError> {
        let at = toc.postings_table;
        if at == 0 {
            return Ok(Self::Sorted(BTreeMap::new()));
        }
        let mut section = Section::open(file, at)?;
        let count = section.u32()?;
        let mut sorted: BTreeMap<Box<str>, NameEntries> = BTreeMap::new();
        let mut whole: BTreeMap<Box<str>, BTreeMap<Box<str>, u64>> = BTreeMap::new();
        let (mut last_name, mut last_value) = (String::new(), String::new());
        for number in 0..count {
            let place = section.at();
            if section.uvarint()? != 2 {
                return Err(file.corrupt(place, "unexpected key length for posting table"));
            }
            let name = section.text()?.to_owned();
            let value = section.text()?.to_owned();
            let offset = section.uvarint()?;
            if file.len() <= offset {
                return Err(file.corrupt(place, "postings lie outside the file"));
            }
            if version == 1 {
                whole.entry(name.into()).or_default().insert(value.into(), offset);
                continue;
            }
            if 0 < number && (&name, &value) <= (&last_name, &last_value) {
                return Err(file.corrupt(place, "the postings table is not sorted"));
            }
            let entries = match sorted.get_mut(name.as_str()) {
                Some(entries) => entries,
                None => sorted.entry(name.as_str().into()).or_insert(NameEntries { count: 0, steps: Vec::new() }),
            };
            if entries.count % STEP == 0 {
                entries.steps.push((value.as_str().into(), place));
            }
            entries.count += 1;
            (last_name, last_value) = (name, value);
        }
        section.finish()?;
        Ok(if version == 1 { Self::Whole(whole) } else { Self::Sorted(sorted) })
    }
}

/// Reads a section once, from its length to its checksum.
struct Section<'a> {
    file: &'a PagedFile,
    start: u64,
    /// Where its body ends.
    end: u64,
    /// Place of the next byte to be read from the file.
    read_to: u64,
    data: Vec<u8>,
    used: usize,
    checksum: u32,
}

impl<'a> Section<'a> {
    fn open(file: &'a PagedFile, at: u64) -> Result<Self, BlockError> {
        let head = file.read_once(at, 4)?;
        let len = Slice::new(&head).u32().map_or(0, u64::from);
        let from = at + 4;
        let end = from.saturating_add(len);
        if file.len() < end.saturating_add(CHECKSUM_LEN) {
            return Err(file.corrupt(at, format!("a section of {len} bytes is announced")));
        }
        Ok(Self { file, start: at, end, read_to: from, data: Vec::new(), used: 0, checksum: 0 })
    }

    fn at(&self) -> u64 {
        self.read_to - (self.data.len() - self.used) as u64
    }

    /// Makes sure of `len` bytes, if the section has so many.
    fn fill(&mut self, len: u64) -> Result<(), BlockError> {
        let have = (self.data.len() - self.used) as u64;
        if len <= have || self.read_to == self.end {
            return Ok(());
        }
        let more = (len - have).max(READ_LEN).min(self.end - self.read_to);
        let new = self.file.read_once(self.read_to, more)?;
        self.checksum = crc32c::crc32c_append(self.checksum, &new);
        self.data.drain(..self.used);
        self.used = 0;
        self.data.extend_from_slice(&new);
        self.read_to += more;
        Ok(())
    }

    fn rest(&self) -> &[u8] {
        self.data.get(self.used..).unwrap_or(&[])
    }

    fn cut_short(&self) -> BlockError {
        self.file.corrupt(self.at(), "a section is cut short")
    }

    fn u32(&mut self) -> Result<u32, BlockError> {
        self.fill(4)?;
        let value = Slice::new(self.rest()).u32().ok_or_else(|| self.cut_short())?;
        self.used += 4;
        Ok(value)
    }

    fn uvarint(&mut self) -> Result<u64, BlockError> {
        self.fill(10)?;
        let mut read = Slice::new(self.rest());
        let before = read.len();
        let value = read.uvarint().ok_or_else(|| self.cut_short())?;
        self.used += before - read.len();
        Ok(value)
    }

    fn text(&mut self) -> Result<&str, BlockError> {
        let from = self.at();
        let len = self.uvarint()?;
        if self.end.saturating_sub(self.at()) < len {
            return Err(self.cut_short());
        }
        self.fill(len)?;
        let to =
            usize::try_from(len).ok().and_then(|len| self.used.checked_add(len)).ok_or_else(|| self.cut_short())?;
        if self.data.len() < to {
            return Err(self.cut_short());
        }
        let begin = std::mem::replace(&mut self.used, to);
        let raw = self.data.get(begin..to).unwrap_or(&[]);
        std::str::from_utf8(raw).map_err(|_| self.file.corrupt(from, "a text is not UTF-8"))
    }

    /// Checks the rest and the checksum.
    fn finish(mut self) -> Result<(), BlockError> {
        while self.read_to < self.end {
            self.used = self.data.len();
            self.fill(1)?;
        }
        let expected = self.file.read_once(self.end, CHECKSUM_LEN)?;
        if Slice::new(&expected).u32() != Some(self.checksum) {
            return Err(self.file.corrupt(self.start, "invalid checksum of a section"));
        }
        Ok(())
    }
}
