//! Files of a data directory beside the log's newest segment and the blocks: the log of late samples, chunks of the head, snapshots,
//! checkpoints, indexes of version 1, and the small files that are ours.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use watchfire::model::append::{AppendBatch, AppendSample, SeriesKey};
use watchfire::model::clock::{ManualClock, SharedClock};
use watchfire::model::labels::Labels;
use watchfire::model::read::{SampleColumn, Unlimited};
use watchfire::model::time::{TimeRange, TimestampMs};
use watchfire::storage::chunk_snapshot;
use watchfire::storage::fs::sim::SimFs;
use watchfire::storage::fs::{Fs, SharedFs};
use watchfire::storage::head::{Head, HeadOptions};
use watchfire::storage::replay;
use watchfire::storage::wal::WalOptions;
use watchfire::storage::wal::cursor;
use watchfire::storage::wal::metrics::WalMetrics;
use watchfire::storage::{clock_file, head_chunk_store, head_chunks, late_floor};

use crate::storage::{read_block, run};

const DATA: &str = "/data";

fn clock() -> SharedClock {
    ManualClock::at(TimestampMs(2_000_000_000_000))
}

/// Files below a folder, by their paths in it.
fn files(root: &Path, below: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(root.join(below)).unwrap().flatten() {
        let path = below.join(entry.file_name());
        if entry.path().is_dir() {
            found.extend(files(root, &path));
        } else if !entry.file_name().to_string_lossy().contains('.') {
            found.push((path.clone(), std::fs::read(root.join(&path)).unwrap()));
        }
    }
    found
}

fn golden(name: &str) -> Vec<(PathBuf, Vec<u8>)> {
    files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data"), Path::new(name))
        .into_iter()
        .map(|(path, data)| (path.strip_prefix(name).unwrap().to_owned(), data))
        .collect()
}

/// What our own stop leaves: chunks of the head, a snapshot with our notes, the log.
fn ours() -> Vec<(PathBuf, Vec<u8>)> {
    let sim = SimFs::new();
    let fs: SharedFs = Arc::new(sim.clone());
    fs.create_dir_all(Path::new(DATA)).unwrap();
    let head = Head::new(HeadOptions::new(clock()));
    let metrics = WalMetrics::new(&Default::default(), &clock());
    let oldest = TimestampMs(i64::MIN);
    let (mut writer, report) =
        replay::open(&fs, Path::new(DATA), WalOptions::default(), &metrics, &head, oldest).unwrap();
    head.attach_chunks(head_chunk_store::begin_anew(&fs, Path::new(DATA), Default::default()).unwrap());
    head.begin_chunk_writes();
    for t in 0..300 {
        let sample = |i: usize| AppendSample {
            series: SeriesKey::Labels(Labels::from_pairs([("__name__", "m".to_owned()), ("i", i.to_string())])),
            at: TimestampMs(1_700_000_000_000 + t * 15_000),
            value: (t * i as i64) as f64,
        };
        head.append_blocking(AppendBatch::of_floats((0..4).map(sample).collect())).unwrap();
    }
    let position = writer.finish().unwrap();
    let (aliases, clock) = (&report.head.aliases, clock());
    let stop = chunk_snapshot::Stop { position, options: WalOptions::default(), aliases, clock: &clock };
    assert_eq!(chunk_snapshot::write(&fs, Path::new(DATA), &head, &stop).unwrap(), 4);
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::from(DATA)];
    while let Some(folder) = folders.pop() {
        for entry in sim.list(&folder).unwrap() {
            let path = folder.join(&entry.name);
            if entry.is_dir {
                folders.push(path);
            } else if entry.name != "reserved" {
                let name = path.strip_prefix(DATA).unwrap().to_owned();
                found.push((name, sim.read(&path).unwrap()));
            }
        }
    }
    found
}

/// Opens a directory as a server does, and reads all that it holds.
fn open(files: &[(PathBuf, Vec<u8>)]) {
    let sim = SimFs::new();
    for (path, data) in files {
        sim.put(&Path::new(DATA).join(path), data).unwrap();
    }
    let fs: SharedFs = Arc::new(sim);
    let head = Head::new(HeadOptions { shards: 2, ..HeadOptions::new(clock()) });
    let metrics = WalMetrics::new(&Default::default(), &clock());
    let oldest = TimestampMs(i64::MIN);
    let Ok((_, report)) = replay::open(&fs, Path::new(DATA), WalOptions::default(), &metrics, &head, oldest) else {
        return;
    };
    let _ = head_chunks::check(&fs, Path::new(DATA), &head, &report.head.aliases, i64::MIN);
    let view = head.queryable().view().unwrap();
    for series in view.select(&[], TimeRange::ALL, &Unlimited).into_iter().flatten() {
        let _ = series.samples.decode_all(TimeRange::ALL, &mut SampleColumn::default());
    }
}

/// Changes one file of a directory at a time.
fn each_file(target: &str, count: u64, files: &[(PathBuf, Vec<u8>)], skip: &str) {
    open(files);
    for (number, (path, data)) in files.iter().enumerate() {
        if data.is_empty() || !skip.is_empty() && path.starts_with(skip) {
            continue;
        }
        // Of the zeros that fill a page, some are enough: changes are to hit what is there.
        let used = data.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        let sound = [data[..data.len().min(used + 20)].to_vec()];
        let rest = data[sound[0].len()..].to_vec();
        run(&format!("{target} {}", path.display()), count, &sound, |input| {
            let mut changed = files.to_vec();
            changed[number].1 = [input, &rest].concat();
            open(&changed);
        });
    }
}

#[test]
fn logs_of_late_samples() {
    each_file("late", 50, &golden("late"), "");
}

#[test]
fn snapshots_of_prometheus() {
    each_file("snapshot", 50, &golden("snapshot"), "wal");
}

#[test]
fn snapshots_of_ours() {
    let files = ours();
    let names: Vec<String> = files.iter().map(|(path, _)| path.display().to_string()).collect();
    assert!(names.iter().any(|name| name.ends_with("/watchfire")), "our notes: {names:?}");
    assert!(names.iter().any(|name| name.starts_with("chunks_head/")), "chunks: {names:?}");
    each_file("our snapshot", 50, &files, "wal");
}

#[test]
fn checkpoints() {
    let mut files = golden("late");
    for (path, _) in &mut files {
        if path.ends_with("wal/00000000") {
            *path = "wal/checkpoint.00000000/00000000".into();
        }
    }
    files.push(("wal/00000001".into(), Vec::new()));
    files.retain(|(path, _)| path.starts_with("wal"));
    each_file("checkpoint", 60, &files, "");
}

/// Name of a file, what is in a sound one, and what reads it.
type SmallFile<'a> = (&'a str, &'a [u8], &'a dyn Fn(&SharedFs));

#[test]
fn small_files() {
    let small: [SmallFile<'_>; 3] = [
        (
            "watchfire-clock.json",
            br#"{"origin":"boot","lines":[{"ahead_ms":5,"since_ms":-7}],"doubted_since_ms":1,"aged_ms":2,"aged_at_ms":3,"behind_ms":4,"ahead_until_ms":null}"#,
            &|fs| drop(clock_file::load(&**fs, Path::new(DATA))),
        ),
        ("watchfire-late-chunks.json", br#"{"file":3,"offset":4096}"#, &|fs| {
            let _ = late_floor::load(&**fs, Path::new(DATA));
        }),
        ("remote-write/1f", b"watchfire log cursor 1\nread 12 4096 0\nshard 12 2048 17\ncrc 5a2b00ff\n", &|fs| {
            let _ = cursor::load(fs, &Path::new(DATA).join("remote-write/1f"));
        }),
    ];
    for (name, sound, read) in small {
        run(name, 3_000, &[sound.to_vec()], |input| {
            let sim = SimFs::new();
            sim.put(&Path::new(DATA).join(name), input).unwrap();
            let fs: SharedFs = Arc::new(sim);
            read(&fs);
        });
    }
}

#[test]
fn block_indexes_of_version_1() {
    let name = "01DXXFZDYD1MQW6079WK0K6EDQ";
    let of = |file: &str| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/index-v1").join(name).join(file);
        std::fs::read(path).unwrap()
    };
    let others = ["chunks/000001", "meta.json", "tombstones"].map(|file| (file, of(file)));
    run("index of version 1", 60, &[of("index")], |input| {
        let mut files: Vec<(&str, &[u8])> = others.iter().map(|(name, data)| (*name, &data[..])).collect();
        files.push(("index", input));
        read_block(name, &files);
    });
}
