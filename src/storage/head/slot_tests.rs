//! A column changes where it stands unless somebody reads it, and who does keeps what it holds.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::model::read::FloatColumn;
use crate::model::sample::SeriesRef;
use crate::model::time::TimeRange;
use crate::storage::chunk::cut::CutRules;
use crate::storage::head::column::{Column, Output, SeriesCell};
use crate::storage::head::commit::CommitId;
use crate::storage::head::series::WriterSeries;

/// Values whose chunks grow in many steps.
fn value(t: i64) -> f64 {
    (t as f64 * 0.37).sin()
}

/// Appends the sample of this time, as a commit of this number.
fn append(series: &mut WriterSeries, t: u64) {
    let commit = CommitId(t);
    series.append(t.cast_signed(), value(t.cast_signed()), commit, CommitId(0), &CutRules::default());
}

fn decoded(column: &Column, commit: u64) -> FloatColumn {
    let mut out = FloatColumn::default();
    column.decode(CommitId(commit), TimeRange::ALL, None, Output::Floats(&mut out)).unwrap();
    out
}

/// Samples with the times from 1 on, each with its value.
#[track_caller]
fn check(found: &FloatColumn, count: u64) {
    assert!(found.timestamps.iter().copied().eq(1..=count.cast_signed()), "{count}: {:?}", found.timestamps);
    for (t, own) in found.timestamps.iter().zip(&found.values) {
        assert_eq!(own.to_bits(), value(*t).to_bits());
    }
}

#[test]
fn a_column_stays_where_it_is_until_somebody_reads_it() {
    let mut series = WriterSeries::new(SeriesRef(1 << 39 | 5));
    assert_eq!(series.cell.series(), SeriesRef(1 << 39 | 5));
    append(&mut series, 1);
    let place = |cell: &SeriesCell| Arc::as_ptr(&cell.column().unwrap());
    let first = place(&series.cell);
    (2..=300).for_each(|t| append(&mut series, t));
    assert_eq!(place(&series.cell), first, "grown and cut in its place");
    let held = series.cell.column().unwrap();
    (301..=600).for_each(|t| append(&mut series, t));
    assert_ne!(place(&series.cell), first);
    // Its open chunk takes samples until it has to grow.
    let seen = decoded(&held, 1000);
    assert!((300..600).contains(&seen.len()));
    check(&seen, seen.len() as u64);
    check(&decoded(&held, 300), 300);
    check(&decoded(&series.cell.column().unwrap(), 1000), 600);
    let second = place(&series.cell);
    drop(held);
    (601..=900).for_each(|t| append(&mut series, t));
    assert_eq!(place(&series.cell), second);
    assert!(series.truncate(i64::MAX) > 1 && series.cell.column().is_none());
}

#[test]
fn readers_see_the_commits_of_their_view_while_the_column_changes() {
    const SAMPLES: u64 = 3000;
    let mut series = WriterSeries::new(SeriesRef(1));
    let cell = Arc::clone(&series.cell);
    let (applied, is_done) = (AtomicU64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for reader in 0..3u64 {
            let (cell, applied, is_done) = (&cell, &applied, &is_done);
            scope.spawn(move || {
                let (mut held, mut turn) = (None, reader);
                while !is_done.load(Ordering::Acquire) {
                    let commit = applied.load(Ordering::Acquire);
                    let column = cell.column();
                    match &column {
                        Some(column) => check(&decoded(column, commit), commit),
                        None => assert_eq!(commit, 0),
                    }
                    turn += 1;
                    // One that is kept for a while has to be left alone.
                    if turn % 4 == 0 {
                        held = column.map(|column| (column, commit));
                    }
                    if let Some((column, commit)) = &held {
                        check(&decoded(column, *commit), *commit);
                    }
                    if turn % 7 == 0 {
                        held = None;
                    }
                }
            });
        }
        for t in 1..=SAMPLES {
            append(&mut series, t);
            applied.store(t, Ordering::Release);
            if t % 3 == 0 {
                std::thread::yield_now();
            }
        }
        is_done.store(true, Ordering::Release);
    });
    check(&decoded(&cell.column().unwrap(), SAMPLES), SAMPLES);
}
