//! `promtool tsdb list`, and what its siblings share.

use std::io::{self, Write};
use std::path::Path;

use super::{Command, ENABLE_FEATURE, EXPERIMENTAL, Given, OWN, flag, refuse};
use crate::cli::EXIT_FAILURE;
use crate::cli::bytes;
use crate::cli::flag_spec::{FlagSpec, Kind};
use crate::model::go_time;
use crate::storage::block::read::Block;
use crate::storage::read_only::ReadOnlyStore;

/// Where a database stands unless it is said.
pub(super) const DB_PATH: &str = "data/";

pub(super) const HUMAN_READABLE: FlagSpec =
    flag("human-readable", Kind::Switch, "false", OWN, "Print human readable values.");

static FLAGS: [FlagSpec; 3] = [EXPERIMENTAL, ENABLE_FEATURE, HUMAN_READABLE];

pub(super) static LIST: Command =
    Command { path: &["tsdb", "list"], words: "[<db path>]", summary: "List tsdb blocks.", flags: &FLAGS, run: list };

fn list(given: &Given) -> u8 {
    let [path] = match positional(given, [DB_PATH]) {
        Ok(words) => words,
        Err(code) => return code,
    };
    let listed = open(&path).map(|store| {
        let blocks: Vec<_> = store.blocks();
        table(&blocks.iter().map(|block| &**block).collect::<Vec<_>>(), true, given.values.bool("human-readable"))
    });
    finish(listed)
}

/// The words behind a command, or their defaults; no more than there are defaults.
pub(super) fn positional<const N: usize>(given: &Given, defaults: [&str; N]) -> Result<[String; N], u8> {
    if let Some(more) = given.words.get(N) {
        return Err(refuse(&format!("unexpected {more}")));
    }
    let mut at = 0;
    Ok(defaults.map(|default| {
        at += 1;
        given.words.get(at - 1).cloned().unwrap_or_else(|| default.to_owned())
    }))
}

/// Prints what there is to print, or why there is not; gives the exit code.
pub(super) fn finish(text: Result<String, String>) -> u8 {
    match text {
        Ok(text) => {
            let _ = io::stdout().write_all(text.as_bytes());
            0
        }
        Err(error) => {
            let _ = writeln!(io::stderr(), "{error}");
            EXIT_FAILURE
        }
    }
}

/// Errors unless there is such a folder.
pub(super) fn must_exist(path: &str) -> Result<(), String> {
    match std::fs::metadata(path) {
        Ok(_) => Ok(()),
        Err(error) => Err(format!("opening the db dir: stat {path}: {}", super::go_reason(&error))),
    }
}

/// Opens a database.
pub(super) fn open(path: &str) -> Result<ReadOnlyStore, String> {
    must_exist(path)?;
    ReadOnlyStore::open(Path::new(path))
}

/// Blocks in columns, as Go's tabwriter sets them.
pub(super) fn table(blocks: &[&Block], with_head: bool, human: bool) -> String {
    const HEAD: [&str; 8] =
        ["BLOCK ULID", "MIN TIME", "MAX TIME", "DURATION", "NUM SAMPLES", "NUM CHUNKS", "NUM SERIES", "SIZE"];
    let mut rows: Vec<[String; 8]> = Vec::new();
    if with_head {
        rows.push(HEAD.map(str::to_owned));
    }
    for block in blocks {
        let meta = block.meta();
        rows.push([
            meta.ulid.to_string(),
            time(meta.min_time, human),
            time(meta.max_time, human),
            go_time::format_duration((meta.max_time - meta.min_time).saturating_mul(1_000_000)),
            meta.stats.num_samples.to_string(),
            meta.stats.num_chunks.to_string(),
            meta.stats.num_series.to_string(),
            if human { bytes::format(block.len()) } else { block.len().to_string() },
        ]);
    }
    columns(&rows)
}

/// Pads all columns but the last to the same width, of at least 13, with two blanks between.
fn columns<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| {
        let longest = rows.iter().filter_map(|row| Some(row.get(column)?.chars().count())).max().unwrap_or(0);
        (longest + 2).max(13)
    };
    let widths: Vec<usize> = (0..N).map(width).collect();
    let mut out = String::new();
    for row in rows {
        for (number, (cell, width)) in row.iter().zip(&widths).enumerate() {
            match number + 1 < N {
                true => out.push_str(&format!("{cell:<width$}")),
                false => out.push_str(cell),
            }
        }
        out.push('\n');
    }
    out
}

fn time(ms: i64, human: bool) -> String {
    if !human {
        return ms.to_string();
    }
    let seconds = ms / 1000;
    let text = go_time::format_rfc3339_nano(seconds.saturating_mul(1_000_000_000));
    text.replace('T', " ").replace('Z', " +0000 UTC")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_printed_as_go_prints_them() {
        assert_eq!(time(1_700_000_123_999, true), "2023-11-14 22:15:23 +0000 UTC");
        assert_eq!(time(1_700_000_123_999, false), "1700000123999");
    }

    #[test]
    fn columns_are_set_as_by_tabwriter() {
        let rows = [["a".to_owned(), "b".to_owned(), "c".to_owned()], ["x".repeat(12), "y".to_owned(), "z".to_owned()]];
        let expected = "a             b            c\nxxxxxxxxxxxx  y            z\n";
        assert_eq!(columns(&rows), expected);
    }
}
