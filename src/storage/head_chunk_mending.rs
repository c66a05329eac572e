//! Head chunks that are found damaged while the server runs. The log holds their samples: they are encoded again and put back to
//! where they stood, after the file was copied to `wal.damaged/`. What cannot be put back is held in memory.
//!
//! ```text
//! FileSet::load ─ the file is suspect ─ mend (compute pool): which chunks of it ─ the log ─┬─ the file is as it was
//!                                                                                          └─ a stand-in
//! ```
//! A read that meets such a chunk first is an error: samples are never left out in silence. What the log does not hold either is
//! lost, which is told once with its cost; from then on answers are given without it, with a warning.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};

use crate::model::labels::Labels;
use crate::model::sample::SeriesRef;
use crate::storage::block::chunks::{ChunkData, sample_count};
use crate::storage::block::rewrite::{self, Sample, Starts};
use crate::storage::chunk::written::{ChunkPlace, WrittenChunk};
use crate::storage::fs::File;
use crate::storage::head::late::LateValue;
use crate::storage::head::{DamagedSeries, Head};
use crate::storage::head_chunk_files::path_of;
use crate::storage::head_chunk_repair::keep_original;
use crate::storage::head_chunk_store::Files;
use crate::storage::head_chunks::{OUT_OF_ORDER, chunk_len, parse, put_chunk};
use crate::storage::wal::histogram_record::RefHistogram;
use crate::storage::wal::record::{RefSample, RefSeries};
use crate::storage::wal::writer::Position;
use crate::storage::wal::{IoContext, RecordSink, WAL_DIR, WalError, read_until};
use crate::storage::wbl::WBL_DIR;

/// Chunks that are mended at once.
const CHUNKS_MAX: usize = if cfg!(test) { 7 } else { 4096 };
/// Bytes of stand-ins at most: those of a whole file and more.
const STAND_INS_LEN_MAX: usize = 256 << 20;
/// Bytes of a chunk without samples.
const EMPTY_CHUNK: [u8; 3] = [0; 3];

/// Samples that neither a file nor the log holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LostSamples {
    /// The chunk that held them.
    pub(crate) place: ChunkPlace,
    /// They lie between these times, ends included.
    pub(crate) range: (i64, i64),
    /// How many.
    pub(crate) samples: u64,
}

/// What was lost, by series.
pub(crate) type Lost = HashMap<SeriesRef, Vec<LostSamples>>;

/// What stands for chunks that files do not hold any more, and which files are to be looked at.
#[derive(Debug, Default)]
pub(crate) struct StandIns {
    suspects: Mutex<BTreeSet<u64>>,
    held: RwLock<Held>,
    lost: RwLock<Arc<Lost>>,
}

#[derive(Debug, Default)]
struct Held {
    chunks: HashMap<ChunkPlace, Arc<[u8]>>,
    len: usize,
}

impl StandIns {
    /// Has a file looked at; false if that was asked before and has not been done yet.
    pub(crate) fn suspect(&self, file: u64) -> bool {
        self.suspects.lock().insert(file)
    }

    /// What stands for the chunk at a place.
    pub(crate) fn get(&self, place: ChunkPlace) -> Option<Arc<[u8]>> {
        self.held.read().chunks.get(&place).cloned()
    }

    /// What was lost.
    pub(crate) fn lost(&self) -> Arc<Lost> {
        Arc::clone(&self.lost.read())
    }

    /// True if there are files to be looked at.
    pub(crate) fn has_suspects(&self) -> bool {
        !self.suspects.lock().is_empty()
    }

    fn insert(&self, place: ChunkPlace, data: Vec<u8>) -> bool {
        let mut held = self.held.write();
        let len = held.len + data.len();
        if STAND_INS_LEN_MAX < len {
            return false;
        }
        held.len = len;
        held.chunks.insert(place, data.into());
        true
    }

    /// Forgets those whose chunks nothing knows any more.
    fn retain(&self, is_known: impl Fn(ChunkPlace) -> bool) {
        let mut held = self.held.write();
        held.chunks.retain(|place, _| is_known(*place));
        held.len = held.chunks.values().map(|data| data.len()).sum();
        drop(held);
        let mut lost = self.lost.write();
        if !lost.is_empty() {
            let left = |all: &Vec<LostSamples>| all.iter().copied().filter(|one| is_known(one.place)).collect();
            let left: HashMap<SeriesRef, Vec<LostSamples>> =
                lost.iter().map(|(series, all)| (*series, left(all))).collect();
            *lost = Arc::new(left.into_iter().filter(|(_, all)| !all.is_empty()).collect());
        }
    }
}

/// What mending has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mended {
    /// Chunks that stand in their files again.
    pub put_back: u64,
    /// Chunks that are held in memory.
    pub held: u64,
    /// Samples that the log does not hold.
    pub lost_samples: u64,
}

impl Head {
    /// True if a read has found a file of its chunks damaged since it was mended last.
    pub fn has_damaged_chunks(&self) -> bool {
        self.chunk_store().is_some_and(|store| store.files().stand_ins().has_suspects())
    }
}

/// Looks for the damaged chunks of files that were found damaged, and takes their samples from the log. Who calls it keeps the log's
/// files from being removed.
pub fn mend(head: &Head) -> Result<Mended, WalError> {
    let mut done = Mended::default();
    let Some(store) = head.chunk_store() else { return Ok(done) };
    let files = store.files();
    let suspects = files.stand_ins().suspects.lock().clone();
    if suspects.is_empty() {
        return Ok(done);
    }
    let mut costs: BTreeMap<u64, Cost> = BTreeMap::new();
    loop {
        let (damaged, known) = head.damaged_chunks(files, &suspects, CHUNKS_MAX);
        files.stand_ins().retain(|place| known.contains(&place));
        if damaged.is_empty() {
            break;
        }
        let mut gathered = Gathered::new(damaged);
        let (fs, data_dir) = files.place();
        // What is being written meanwhile is newer.
        let end = Position { segment: u64::MAX, offset: 0 };
        read_until(fs, &data_dir.join(WAL_DIR), end, &mut gathered)?;
        let late_dir = data_dir.join(WBL_DIR);
        if gathered.wants_late() && fs.exists(&late_dir).context("read", &late_dir)? {
            read_until(fs, &late_dir, end, &mut LateGathered(&mut gathered))?;
        }
        let before = done;
        put_all(files, head.min_valid(), gathered, &mut costs, &mut done);
        if done == before {
            // There is no room for what stands for them.
            break;
        }
    }
    for (file, cost) in &costs {
        let range = cost.range.map(|(min_t, max_t)| min_t..=max_t);
        let (chunks, samples, lost) = (cost.chunks, cost.samples, cost.lost);
        if lost == 0 {
            tracing::warn!(
                component = "tsdb",
                file,
                offset = cost.offset,
                chunks,
                samples,
                ?range,
                "Damaged head chunks were read again from the log; nothing is lost"
            );
        } else {
            tracing::error!(
                component = "tsdb",
                file,
                offset = cost.offset,
                chunks,
                samples,
                ?range,
                lost,
                "Damaged head chunks were read again from the log, which does not hold all of their samples; the rest is served"
            );
        }
    }
    files.counters().lost_samples.add(done.lost_samples);
    files.stand_ins().suspects.lock().retain(|file| !suspects.contains(file));
    Ok(done)
}

/// Damage of one file.
#[derive(Default)]
struct Cost {
    /// Of the first damaged chunk.
    offset: u64,
    chunks: u64,
    samples: u64,
    range: Option<(i64, i64)>,
    lost: u64,
}

/// Takes the samples of damaged chunks out of the log.
struct Gathered {
    series: Vec<GatheredSeries>,
    /// Places of a series with damaged chunks of samples in order, and of late ones.
    by_ref: HashMap<SeriesRef, [Option<usize>; 2], foldhash::fast::FixedState>,
    by_labels: HashMap<Labels, [Option<usize>; 2]>,
}

/// Takes the samples of damaged chunks out of the log of late samples.
struct LateGathered<'a>(&'a mut Gathered);

struct GatheredSeries {
    damaged: DamagedSeries,
    /// References that the log has for it.
    refs: Vec<SeriesRef>,
    /// Time of its newest sample so far: others that are not newer were not stored.
    newest: i64,
    /// By chunk.
    samples: Vec<Vec<Sample>>,
}

impl Gathered {
    fn new(damaged: Vec<DamagedSeries>) -> Self {
        let mut by_labels: HashMap<Labels, [Option<usize>; 2]> = HashMap::new();
        let mut by_ref: HashMap<_, [Option<usize>; 2], _> = HashMap::default();
        for (at, one) in damaged.iter().enumerate() {
            let places = by_labels.entry(one.labels.clone()).or_default();
            *(if one.are_late { &mut places[1] } else { &mut places[0] }) = Some(at);
            by_ref.insert(one.series, *places);
        }
        let series = |damaged: DamagedSeries| GatheredSeries {
            refs: vec![damaged.series],
            newest: i64::MIN,
            samples: damaged.chunks.iter().map(|_| Vec::new()).collect(),
            damaged,
        };
        Self { series: damaged.into_iter().map(series).collect(), by_ref, by_labels }
    }

    fn take(&mut self, series: SeriesRef, (t, start): (i64, i64), value: impl FnOnce() -> LateValue) {
        let Some(found) = self.by_ref.get(&series).and_then(|at| self.series.get_mut(at[0]?)) else { return };
        if t <= found.newest {
            return;
        }
        found.newest = t;
        let at = found.damaged.chunks.partition_point(|chunk| chunk.max_t < t);
        if let (Some(chunk), Some(samples)) = (found.damaged.chunks.get(at), found.samples.get_mut(at))
            && chunk.min_t <= t
        {
            samples.push(Sample { t, start, value: value().to_value() });
        }
    }

    fn wants_late(&self) -> bool {
        self.series.iter().any(|one| one.damaged.are_late)
    }

    /// A sample that came out of order may be of any chunk that it lies in. One that is not is in another chunk as well.
    fn take_late(&mut self, series: SeriesRef, (t, start): (i64, i64), value: &LateValue) {
        let Some(found) = self.by_ref.get(&series).and_then(|at| self.series.get_mut(at[1]?)) else { return };
        let value = value.to_value();
        for (chunk, samples) in found.damaged.chunks.iter().zip(&mut found.samples) {
            if chunk.min_t <= t && t <= chunk.max_t && value.is_of(chunk.encoding) {
                samples.push(Sample { t, start, value: value.clone() });
            }
        }
    }
}

/// The starts of samples that may have some.
fn or_none(starts: &[i64]) -> impl Iterator<Item = i64> + '_ {
    starts.iter().copied().chain(std::iter::repeat(0))
}

impl RecordSink for LateGathered<'_> {
    fn series(&mut self, _: &mut Vec<RefSeries>) {}

    fn samples(&mut self, samples: &[RefSample]) {
        self.started_samples(samples, &[]);
    }

    fn histograms(&mut self, histograms: &[RefHistogram]) {
        self.started_histograms(histograms, &[]);
    }

    fn started_samples(&mut self, samples: &[RefSample], starts: &[i64]) {
        for (one, start) in samples.iter().zip(or_none(starts)) {
            self.0.take_late(one.series, (one.t, start), &LateValue::Float(one.value));
        }
    }

    fn started_histograms(&mut self, histograms: &[RefHistogram], starts: &[i64]) {
        for (one, start) in histograms.iter().zip(or_none(starts)) {
            self.0.take_late(one.series, (one.t, start), &LateValue::Histogram(one.value.clone()));
        }
    }
}

impl RecordSink for Gathered {
    fn series(&mut self, series: &mut Vec<RefSeries>) {
        for one in series.drain(..) {
            let Some(places) = self.by_labels.get(&one.labels) else { continue };
            if self.by_ref.insert(one.series, *places).is_none()
                && let Some(found) = places[0].and_then(|at| self.series.get_mut(at))
            {
                found.refs.push(one.series);
            }
        }
    }

    fn samples(&mut self, samples: &[RefSample]) {
        self.started_samples(samples, &[]);
    }

    fn histograms(&mut self, histograms: &[RefHistogram]) {
        self.started_histograms(histograms, &[]);
    }

    fn started_samples(&mut self, samples: &[RefSample], starts: &[i64]) {
        for (one, start) in samples.iter().zip(or_none(starts)) {
            self.take(one.series, (one.t, start), || LateValue::Float(one.value));
        }
    }

    fn started_histograms(&mut self, histograms: &[RefHistogram], starts: &[i64]) {
        for (one, start) in histograms.iter().zip(or_none(starts)) {
            self.take(one.series, (one.t, start), || LateValue::Histogram(one.value.clone()));
        }
    }
}

/// Puts chunks back, or holds what stands for them.
fn put_all(files: &Files, min_valid: i64, gathered: Gathered, costs: &mut BTreeMap<u64, Cost>, done: &mut Mended) {
    let mut lost = Lost::clone(&files.stand_ins().lost());
    let places: HashSet<ChunkPlace> =
        gathered.series.iter().flat_map(|one| &one.damaged.chunks).map(|chunk| chunk.place).collect();
    let mut kept = HashMap::new();
    for GatheredSeries { damaged, refs, samples, .. } in gathered.series {
        let kind = if damaged.are_late { OUT_OF_ORDER } else { 0 };
        for (at, (chunk, samples)) in damaged.chunks.iter().zip(samples).enumerate() {
            let again = match damaged.beside.get(at) {
                Some(beside) => Again::of_late(chunk, samples, beside),
                None => Again::of(chunk, samples, min_valid),
            };
            let put_back = again.is_whole && {
                let keeps = kept.entry(chunk.place.file()).or_insert_with(|| {
                    let (fs, data_dir) = files.place();
                    keep_original(fs, data_dir, &path_of(data_dir, chunk.place.file())).is_ok()
                });
                *keeps && put_back(files, (chunk, kind), &refs, &again.data, &places)
            };
            let is_mended = if put_back && damaged.files.holds(chunk, kind, &mut Vec::new()) {
                done.put_back += 1;
                true
            } else {
                let is_held = files.stand_ins().insert(chunk.place, again.data);
                done.held += u64::from(is_held);
                is_held
            };
            if !is_mended {
                continue;
            }
            let cost = costs.entry(chunk.place.file()).or_default();
            if cost.chunks == 0 || chunk.place.offset() < cost.offset {
                cost.offset = chunk.place.offset();
            }
            cost.chunks += 1;
            cost.samples += u64::from(chunk.samples);
            cost.range =
                Some(cost.range.map_or((chunk.min_t, chunk.max_t), |(min_t, max_t)| {
                    (min_t.min(chunk.min_t), max_t.max(chunk.max_t))
                }));
            if 0 < again.lost {
                cost.lost += again.lost;
                done.lost_samples += again.lost;
                let range = (chunk.min_t, chunk.max_t);
                lost.entry(damaged.series).or_default().push(LostSamples {
                    place: chunk.place,
                    range,
                    samples: again.lost,
                });
            }
        }
    }
    *files.stand_ins().lost.write() = Arc::new(lost);
}

/// A chunk that was encoded again.
struct Again {
    data: Vec<u8>,
    /// It has all of its samples.
    is_whole: bool,
    /// Samples that it lacks and that could be read.
    lost: u64,
}

impl Again {
    /// Of a chunk of late samples, while `beside` are the times of those of other chunks that lie between its own. It is whole if
    /// what is in none of the others is as much as it had; otherwise it gets all of them, as it may have had any.
    fn of_late(chunk: &WrittenChunk, mut samples: Vec<Sample>, beside: &HashSet<i64>) -> Self {
        // Stable: of equal ones the first that came stays.
        samples.sort_by_key(|sample| sample.t);
        samples.dedup_by_key(|sample| sample.t);
        let own: Vec<Sample> = samples.iter().filter(|sample| !beside.contains(&sample.t)).cloned().collect();
        let ends = own.first().zip(own.last()).map(|(first, last)| (first.t, last.t));
        let is_whole = own.len() == usize::from(chunk.samples) && ends == Some((chunk.min_t, chunk.max_t));
        let mut encoded = Vec::new();
        let wanted = if is_whole { own } else { samples };
        let done = rewrite::encode(wanted, u16::MAX, Starts::of([chunk.encoding]), &mut encoded);
        let is_one = encoded.len() == 1;
        let data = encoded.into_iter().next().filter(|one| done.is_ok() && one.encoding == chunk.encoding.id());
        let data = data.map(|one| one.data);
        let kept = data.as_ref().map_or(0, |data| u64::from(sample_count(chunk.encoding.id(), data)));
        let lost = u64::from(chunk.samples).saturating_sub(kept);
        let is_whole = is_whole && is_one && lost == 0;
        Self { data: data.unwrap_or_else(|| EMPTY_CHUNK.to_vec()), is_whole, lost }
    }

    fn of(chunk: &WrittenChunk, mut samples: Vec<Sample>, min_valid: i64) -> Self {
        let count = usize::from(chunk.samples);
        let first_t = |samples: &[Sample]| samples.first().map(|sample| sample.t);
        let ends = |samples: &[Sample]| samples.last().map(|sample| sample.t) == Some(chunk.max_t);
        let is_whole = samples.len() == count && first_t(&samples) == Some(chunk.min_t) && ends(&samples);
        // Those before the bound are not in the log any more, and nobody reads them.
        let lacks_old = first_t(&samples).is_some_and(|t| chunk.min_t < min_valid && min_valid <= t) && ends(&samples);
        if !is_whole && first_t(&samples) == Some(chunk.min_t) {
            // What readers remember of a chunk they find by its first sample, and this one is another.
            samples.remove(0);
        }
        let mut encoded = Vec::new();
        let done = rewrite::encode(samples, u16::MAX, Starts::of([chunk.encoding]), &mut encoded);
        let fits = |one: &ChunkData| one.encoding == chunk.encoding.id();
        let is_one = done.is_ok() && encoded.len() == 1;
        match encoded.into_iter().next().filter(fits) {
            Some(one) => {
                let kept = usize::from(one.sample_count());
                let is_whole = is_whole && is_one && kept == count;
                let lost = if is_whole || lacks_old && is_one { 0 } else { count.saturating_sub(kept) as u64 };
                Self { data: one.data, is_whole, lost }
            }
            None => Self { data: EMPTY_CHUNK.to_vec(), is_whole: false, lost: u64::from(chunk.samples) },
        }
    }
}

/// Writes a chunk to where it stood, if what follows shows that it has the length that it had.
fn put_back(
    files: &Files,
    (chunk, kind): (&WrittenChunk, u8),
    refs: &[SeriesRef],
    data: &[u8],
    damaged: &HashSet<ChunkPlace>,
) -> bool {
    let (fs, data_dir) = files.place();
    let offset = chunk.place.offset();
    let write = || -> std::io::Result<bool> {
        let file = fs.open_write(&path_of(data_dir, chunk.place.file()))?;
        let len = file.len()?;
        let mut before = [0; 8];
        let _ = file.read_at(&mut before, offset)?;
        let named = SeriesRef(u64::from_be_bytes(before));
        let Some(series) = refs.iter().find(|one| **one == named).or(refs.first()) else { return Ok(false) };
        let mut whole = Vec::new();
        put_chunk(*series, (chunk.min_t, chunk.max_t), chunk.encoding.id() | kind, data, &mut whole);
        let end = offset + whole.len() as u64;
        let follows = match ChunkPlace::new(chunk.place.file(), end) {
            Some(next) if damaged.contains(&next) => true,
            _ if len <= end => offset <= len,
            _ => begins_chunk_or_zeros(&*file, end)?,
        };
        if follows {
            file.write_all_at(&whole, offset)?;
            file.sync_data()?;
        }
        Ok(follows)
    };
    write().unwrap_or_else(|error| {
        tracing::warn!(component = "tsdb", file = chunk.place.file(), offset, err = %error,
            "A head chunk cannot be put back and is held in memory");
        false
    })
}

fn begins_chunk_or_zeros(file: &dyn File, at: u64) -> std::io::Result<bool> {
    let mut window = vec![0; 4096];
    let mut have = file.read_at(&mut window, at)?;
    if let Some(len) = window.get(..have).and_then(chunk_len).filter(|len| have < *len) {
        window.resize(len, 0);
        have = file.read_at(&mut window, at)?;
    }
    let window = window.get(..have).unwrap_or_default();
    Ok(parse(window).is_some() || window.iter().all(|byte| *byte == 0))
}
