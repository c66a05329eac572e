//! Files of storage: whatever bytes stand there, they are read or refused, without a panic and without more memory than their length
//! warrants. Inputs are sound files with bytes changed, files cut short, and bytes at random.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use watchfire::model::clock::ManualClock;
use watchfire::model::labels::Labels;
use watchfire::model::read::{ReadView, SampleColumn, Scope, Unlimited};
use watchfire::model::sample::SeriesRef;
use watchfire::model::time::{TimeRange, TimestampMs};
use watchfire::storage::block::PageCache;
use watchfire::storage::block::catalog::Catalog;
use watchfire::storage::block::meta::BlockMeta;
use watchfire::storage::block::metrics::BlockMetrics;
use watchfire::storage::block::tombstones::Tombstones;
use watchfire::storage::block::view::StoreView;
use watchfire::storage::chunk::Encoding;
use watchfire::storage::chunk::decode::ChunkDecoder;
use watchfire::storage::fs::sim::SimFs;
use watchfire::storage::fs::{Fs, SharedFs};
use watchfire::storage::head::{Head, HeadOptions};
use watchfire::storage::head_chunks;
use watchfire::storage::replay;
use watchfire::storage::wal::WalOptions;
use watchfire::storage::wal::fragment::{Compression, frame};
use watchfire::storage::wal::histogram_record::decode_histograms;
use watchfire::storage::wal::metrics::WalMetrics;
use watchfire::storage::wal::reader::{Inflater, Item, SegmentReader};
use watchfire::storage::wal::record::{RefSample, decode_samples, decode_series, encode_samples, encode_series};

use crate::dice::Dice;
use crate::number;

/// What a reader may hold whatever the input: windows of files, tables.
pub(crate) const ROOM: usize = 8 << 20;
/// What it may hold for each byte of input beside that: a compressed byte is 22, and a decoded sample some words.
const ROOM_PER_BYTE: usize = 600;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

/// Counts what each thread holds.
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn count(bytes: isize) {
    // A thread that ends allocates after its values are gone.
    let held = HELD.try_with(|held| {
        held.set(held.get() + bytes);
        held.get()
    });
    if let Ok(held) = held {
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(held)));
    }
}

fn len(layout: Layout) -> isize {
    isize::try_from(layout.size()).unwrap_or(isize::MAX)
}

// SAFETY: everything is done by the system's allocator.
#[allow(unsafe_code, reason = "an allocator that counts")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(len(layout));
        // SAFETY: as this function's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(len(layout));
        // SAFETY: as this function's.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, given: *mut u8, layout: Layout) {
        count(-len(layout));
        // SAFETY: as this function's.
        unsafe { System.dealloc(given, layout) }
    }
}

/// The bytes with one to eight changes, or others.
fn mutated(dice: &mut Dice, sound: &[u8]) -> Vec<u8> {
    let mut bytes = sound.to_vec();
    if dice.chance(10) {
        return (0..dice.below(300)).map(|_| dice.below(256) as u8).collect();
    }
    for _ in 0..1 + dice.below(8) {
        let at = usize::try_from(dice.below(bytes.len() as u64 + 1)).unwrap();
        match dice.below(7) {
            0 if at < bytes.len() => bytes[at] ^= 1 << dice.below(8),
            1 if at < bytes.len() => bytes[at] = dice.below(256) as u8,
            2 => bytes.truncate(at),
            3 if at < bytes.len() => bytes[at] = [0, 0x7f, 0x80, 0xff][usize::try_from(dice.below(4)).unwrap()],
            4 => bytes.insert(at, 0xff),
            5 => {
                let end = bytes.len().min(at + 8);
                bytes[at..end].fill(0xff);
            }
            _ if at < bytes.len() => drop(bytes.remove(at)),
            _ => {}
        }
    }
    bytes
}

pub(crate) fn run(target: &str, count: u64, sound: &[Vec<u8>], case: impl Fn(&[u8])) {
    run_within(target, count, sound, ROOM, case);
}

/// Runs cases that may hold `room` bytes beside what their length warrants.
pub(crate) fn run_within(target: &str, count: u64, sound: &[Vec<u8>], room: usize, case: impl Fn(&[u8])) {
    let seed = number("WATCHFIRE_FUZZ_SEED").unwrap_or(1);
    let count = number("WATCHFIRE_FUZZ_CASES").unwrap_or(count);
    for index in 0..count {
        let mut dice = Dice::new(seed.wrapping_mul(0x0100_0000_01b3) ^ index);
        dice.next();
        let chosen = usize::try_from(dice.below(sound.len() as u64)).unwrap();
        let input = mutated(&mut dice, &sound[chosen]);
        let before = HELD.get();
        PEAK.set(before);
        let done = catch_unwind(AssertUnwindSafe(|| case(&input)));
        let peak = usize::try_from(PEAK.get() - before).unwrap();
        let shown = || {
            format!(
                "{target}: seed {seed}, case {index}, {} bytes: {:02x?}",
                input.len(),
                &input[..input.len().min(400)]
            )
        };
        assert!(done.is_ok(), "{}", shown());
        assert!(peak <= room + ROOM_PER_BYTE * input.len(), "{peak} bytes were held; {}", shown());
    }
    println!("{target}: {count} cases");
}

fn data(path: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(path)).unwrap()
}

/// Records of all kinds, as a log of Prometheus has them and as ours has them.
fn records() -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    let fs = SimFs::new();
    for log in logs() {
        fs.put(Path::new("/s"), &log).unwrap();
        let mut reader = SegmentReader::new(fs.open(Path::new("/s")).unwrap(), None).unwrap();
        let mut inflater = Inflater::default();
        while let Some(item) = reader.next_item().unwrap() {
            if let Item::Record { compression, data, .. } = item {
                found.extend(inflater.inflate(compression, data).map(<[u8]>::to_vec));
            }
        }
    }
    found.retain(|record| record.len() < 2_000);
    assert!(10 < found.len());
    found
}

fn logs() -> Vec<Vec<u8>> {
    let mut ours = Vec::new();
    let labels = Labels::from_pairs([("__name__", "m"), ("i", "1")]);
    let mut encoded = Vec::new();
    for n in 1..20 {
        encode_series([(SeriesRef(n), &labels)], &mut encoded);
        let sample = |i| RefSample { series: SeriesRef(n), t: i, value: i as f64 };
        encode_samples((0..5).map(sample), &mut encoded);
    }
    for record in &encoded {
        frame(record.as_bytes(), Compression::None, 0, &mut ours);
    }
    let mut logs = vec![ours, data("wal/prometheus-3.14")];
    let native = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/native/wal");
    for entry in std::fs::read_dir(native).into_iter().flatten().flatten() {
        logs.extend(std::fs::read(entry.path()));
    }
    logs.iter_mut().for_each(|log| log.truncate(40_000));
    logs
}

#[test]
fn log_records() {
    run("log_records", 6_000, &records(), |input| {
        let (mut series, mut samples, mut histograms) = (Vec::new(), Vec::new(), Vec::new());
        let _ = decode_series(input, &mut series);
        let _ = decode_samples(input, &mut samples);
        let _ = decode_histograms(input, &mut histograms);
        let _ = Inflater::default().inflate(Compression::Snappy, input);
    });
}

#[test]
fn log_segments() {
    run("log_segments", 250, &logs(), |input| {
        let sim = SimFs::new();
        sim.put(Path::new("/data/wal/00000000"), input).unwrap();
        let fs: SharedFs = Arc::new(sim);
        let clock = ManualClock::at(TimestampMs(2_000_000_000_000));
        let head = Head::new(HeadOptions::new(clock.clone()));
        let metrics = WalMetrics::new(&Default::default(), &(clock as watchfire::model::clock::SharedClock));
        let oldest = TimestampMs(i64::MIN);
        // Records that cannot be read are refused, the rest is not.
        let _ = replay::open(&fs, Path::new("/data"), WalOptions::default(), &metrics, &head, oldest);
    });
}

/// Chunks of the blocks that Prometheus has written, encoding first.
fn chunks() -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    for folder in ["blocks", "native"] {
        for entry in std::fs::read_dir(root.join(folder)).unwrap().flatten() {
            let Ok(file) = std::fs::read(entry.path().join("chunks/000001")) else { continue };
            let mut at = 8;
            while at + 8 < file.len() && found.len() < 400 {
                let (mut len, mut shift) = (0usize, 0);
                while let Some(byte) = file.get(at) {
                    at += 1;
                    len |= usize::from(byte & 0x7f) << shift;
                    shift += 7;
                    if *byte < 0x80 {
                        break;
                    }
                }
                found.extend(file.get(at..at + 1 + len).map(<[u8]>::to_vec));
                at += 1 + len + 4;
            }
        }
    }
    assert!(20 < found.len());
    // Those with start times.
    let mut kinds = [0; 7];
    let text = String::from_utf8(data("chunks/started.txt")).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    for pair in lines.chunks(2) {
        let id = match pair[0].split(' ').next() {
            Some("xor2") => 4,
            Some("histogram") => 5,
            _ => 6,
        };
        let bytes = pair[1].as_bytes().chunks(2).map(|two| std::str::from_utf8(two).unwrap());
        let bytes = bytes.map(|two| u8::from_str_radix(two, 16).unwrap());
        if kinds[id] < 12 {
            found.push(std::iter::once(id as u8).chain(bytes).collect());
        }
        kinds[id] += 1;
    }
    assert!(kinds[4..].iter().all(|count| 0 < *count), "{kinds:?}");
    found
}

#[test]
fn chunk_decoders() {
    run("chunk_decoders", 6_000, &chunks(), |input| {
        let Some((id, chunk)) = input.split_first() else { return };
        for id in [*id, 1, 2, 3, 4, 5, 6] {
            let Ok(encoding) = Encoding::from_id(id) else { continue };
            let Ok(decoder) = ChunkDecoder::of_chunk(encoding, chunk) else { continue };
            match decoder {
                ChunkDecoder::Floats(decoder) => {
                    let mut count = 0;
                    let _ = decoder.for_each(|_, _| {
                        count += 1;
                        true
                    });
                    assert!(count <= usize::from(u16::MAX));
                }
                ChunkDecoder::StartedFloats(mut decoder) => while let Ok(Some(_)) = decoder.next_sample() {},
                ChunkDecoder::Histograms(mut decoder) => {
                    while let Ok(Some(_)) = decoder.advance() {
                        drop(decoder.float_histogram());
                    }
                }
                ChunkDecoder::FloatHistograms(mut decoder) => {
                    while let Ok(Some(_)) = decoder.advance() {
                        drop(decoder.float_histogram());
                    }
                }
            }
        }
    });
}

/// Opens a block of which one file has these bytes, and reads all of it.
pub(crate) fn read_block(name: &str, files: &[(&str, &[u8])]) {
    let sim = SimFs::new();
    for (file, data) in files {
        sim.put(&Path::new("/data").join(name).join(file), data).unwrap();
    }
    let metrics = BlockMetrics::new(&Default::default());
    let catalog = Catalog::new(Arc::new(sim), Path::new("/data"), PageCache::new(0), metrics);
    catalog.open().unwrap();
    let view = StoreView::of_blocks(catalog.state());
    let _ = view.label_names(&Scope::all(&[], TimeRange::ALL), &Unlimited);
    for series in view.select(&[], TimeRange::ALL, &Unlimited).into_iter().flatten() {
        let _ = series.samples.decode_all(TimeRange::ALL, &mut SampleColumn::default());
    }
}

const BLOCK: &str = "01M8AB1KYMRFKX3DJAEBCFQ2SZ";

fn block_files() -> [(&'static str, Vec<u8>); 4] {
    ["index", "chunks/000001", "meta.json", "tombstones"].map(|file| (file, data(&format!("blocks/{BLOCK}/{file}"))))
}

fn block_with(changed: &str, count: u64) {
    let files = block_files();
    let sound = files.iter().find(|(name, _)| *name == changed).unwrap().1.clone();
    run(&format!("block {changed}"), count, &[sound], |input| {
        let with = files.each_ref().map(|(name, data)| (*name, if *name == changed { input } else { &data[..] }));
        read_block(BLOCK, &with);
    });
}

#[test]
fn block_indexes() {
    block_with("index", 150);
}

#[test]
fn block_chunks() {
    block_with("chunks/000001", 100);
}

#[test]
fn block_descriptions() {
    block_with("meta.json", 200);
    run("meta.json", 3_000, &[data(&format!("blocks/{BLOCK}/meta.json"))], |input| {
        let sim = SimFs::new();
        sim.put(Path::new("/b/meta.json"), input).unwrap();
        let _ = BlockMeta::read(&sim, Path::new("/b"));
    });
}

#[test]
fn block_tombstones() {
    let sound: Vec<Vec<u8>> = [data(&format!("blocks/{BLOCK}/tombstones"))].into();
    run("tombstones", 10_000, &sound, |input| drop(Tombstones::decode(input)));
    block_with("tombstones", 50);
}

#[test]
fn head_chunk_files() {
    let mut file = 0x0130_BC91u32.to_be_bytes().to_vec();
    file.extend([1, 0, 0, 0]);
    for chunk in chunks().iter().take(20) {
        let from = file.len();
        file.extend(7u64.to_be_bytes());
        file.extend(1_000i64.to_be_bytes());
        file.extend(2_000i64.to_be_bytes());
        file.push(chunk[0]);
        let mut len = chunk.len() - 1;
        while 0x80 <= len {
            file.push((len & 0x7f) as u8 | 0x80);
            len >>= 7;
        }
        file.push(len as u8);
        file.extend(&chunk[1..]);
        let checksum = crc32c::crc32c(&file[from..]);
        file.extend(checksum.to_be_bytes());
    }
    let head = Head::new(HeadOptions::new(ManualClock::at(TimestampMs(2_000_000_000_000))));
    run("head_chunk_files", 500, &[file], |input| {
        let sim = SimFs::new();
        sim.put(Path::new("/data/chunks_head/000001"), input).unwrap();
        let fs: SharedFs = Arc::new(sim);
        let _ = head_chunks::check(&fs, Path::new("/data"), &head, &Default::default(), 0);
    });
}
