//! `meta.json`: what a block holds and which blocks it was made of, in the text that Prometheus writes.

use std::collections::BTreeSet;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::storage::block::ulid::Ulid;
use crate::storage::block::{BlockError, IoContext};
use crate::storage::fs::Fs;

/// Name of the file within a block.
pub const META_FILE: &str = "meta.json";
/// The only version there is.
const VERSION: i64 = 1;
/// Longest file that is read; real ones have some hundred bytes for each block that they came from.
const LEN_MAX: u64 = 64 << 20;

/// Hint of blocks that hold samples which came out of order only.
pub const HINT_OUT_OF_ORDER: &str = "from-out-of-order";
/// Hint of blocks of series that had ended.
pub const HINT_STALE_SERIES: &str = "from-stale-series";
/// Hint of blocks of series that somebody has chosen.
pub const HINT_SELECTED_SERIES: &str = "from-selected-series";

/// What a block is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BlockMeta {
    /// Its name, which is that of its folder.
    pub ulid: Ulid,
    /// Start of its range, in milliseconds.
    pub min_time: i64,
    /// End of its range; samples are older.
    pub max_time: i64,
    /// What it holds.
    #[serde(default)]
    pub stats: BlockStats,
    /// Where it came from.
    #[serde(default)]
    pub compaction: Compaction,
    /// Version of the file.
    pub version: i64,
}

/// What a block holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BlockStats {
    /// Samples of all kinds.
    #[serde(skip_serializing_if = "is_zero")]
    pub num_samples: u64,
    /// Floats.
    #[serde(skip_serializing_if = "is_zero")]
    pub num_float_samples: u64,
    /// Native histograms.
    #[serde(skip_serializing_if = "is_zero")]
    pub num_histogram_samples: u64,
    /// Series.
    #[serde(skip_serializing_if = "is_zero")]
    pub num_series: u64,
    /// Chunks.
    #[serde(skip_serializing_if = "is_zero")]
    pub num_chunks: u64,
    /// Deleted ranges.
    #[serde(skip_serializing_if = "is_zero")]
    pub num_tombstones: u64,
}

/// Where a block came from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Compaction {
    /// 1 for a block from the head, one more than its parents' for others.
    pub level: i64,
    /// The blocks from the head that have gone into it.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_empty")]
    pub sources: Vec<Ulid>,
    /// It holds nothing any more and may be removed.
    #[serde(skip_serializing_if = "is_false")]
    pub deletable: bool,
    /// The blocks that it replaces.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_empty")]
    pub parents: Vec<BlockDesc>,
    /// A compaction of it has failed; it takes part in no other.
    #[serde(skip_serializing_if = "is_false")]
    pub failed: bool,
    /// How it came to be, if not from the head or blocks as a whole.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_empty")]
    pub hints: Vec<String>,
}

/// Name and range of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BlockDesc {
    /// Its name.
    pub ulid: Ulid,
    /// Start of its range.
    pub min_time: i64,
    /// End of its range, exclusive.
    pub max_time: i64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

fn is_false(flag: &bool) -> bool {
    !*flag
}

/// A key of the compaction that means nothing here: a hint in disguise, as far as anybody can tell.
fn unknown_key(text: &[u8]) -> Option<String> {
    const KNOWN: [&str; 7] = ["level", "sources", "deletable", "parents", "failed", "hints", "overlapping"];
    let value: serde_json::Value = serde_json::from_slice(text).ok()?;
    let keys = value.get("compaction")?.as_object()?.keys();
    keys.into_iter().find(|key| !KNOWN.contains(&key.as_str())).cloned()
}

/// Go writes an empty list as null in places.
fn null_as_empty<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

impl BlockMeta {
    /// A block that comes from the head.
    pub fn from_head(ulid: Ulid, min_time: i64, max_time: i64) -> Self {
        let compaction = Compaction { level: 1, sources: vec![ulid], ..Compaction::default() };
        Self { ulid, min_time, max_time, stats: BlockStats::default(), compaction, version: VERSION }
    }

    /// A block of samples that came out of order.
    pub fn from_late(ulid: Ulid, min_time: i64, max_time: i64) -> Self {
        let mut meta = Self::from_head(ulid, min_time, max_time);
        meta.compaction.hints.push(HINT_OUT_OF_ORDER.to_owned());
        meta
    }

    /// A block of series that have ended.
    pub fn from_ended(ulid: Ulid, min_time: i64, max_time: i64) -> Self {
        let mut meta = Self::from_head(ulid, min_time, max_time);
        meta.compaction.hints.push(HINT_STALE_SERIES.to_owned());
        meta
    }

    /// A block like `parent` without what is deleted of it.
    pub fn cleaned(ulid: Ulid, parent: &Self) -> Self {
        let mut meta = Self::from_head(ulid, parent.min_time, parent.max_time);
        meta.compaction.parents = vec![parent.desc()];
        let kept = [HINT_OUT_OF_ORDER, HINT_STALE_SERIES, HINT_SELECTED_SERIES].into_iter();
        meta.compaction.hints = kept.filter(|hint| parent.has_hint(hint)).map(str::to_owned).collect();
        meta
    }

    /// The block that replaces `parents`, of which there is at least one.
    pub fn merged(ulid: Ulid, parents: &[&Self]) -> Self {
        let level = parents.iter().map(|p| p.compaction.level).max().unwrap_or(0) + 1;
        let sources: BTreeSet<Ulid> = parents.iter().flat_map(|p| p.compaction.sources.iter().copied()).collect();
        let mut hints = Vec::new();
        // One that holds late samples only stays out of the way of the head; so do partial ones, which are never merged with
        // others.
        if parents.iter().all(|p| p.has_hint(HINT_OUT_OF_ORDER)) {
            hints.push(HINT_OUT_OF_ORDER.to_owned());
        }
        for hint in [HINT_SELECTED_SERIES, HINT_STALE_SERIES] {
            if parents.iter().any(|p| p.has_hint(hint)) {
                hints.push(hint.to_owned());
            }
        }
        let compaction = Compaction {
            level,
            sources: sources.into_iter().collect(),
            parents: parents.iter().map(|p| p.desc()).collect(),
            hints,
            ..Compaction::default()
        };
        Self {
            ulid,
            min_time: parents.iter().map(|p| p.min_time).min().unwrap_or(0),
            max_time: parents.iter().map(|p| p.max_time).max().unwrap_or(0),
            stats: BlockStats::default(),
            compaction,
            version: VERSION,
        }
    }

    /// Name and range.
    pub fn desc(&self) -> BlockDesc {
        BlockDesc { ulid: self.ulid, min_time: self.min_time, max_time: self.max_time }
    }

    /// True if it was made so.
    pub fn has_hint(&self, hint: &str) -> bool {
        self.compaction.hints.iter().any(|h| h == hint)
    }

    /// True if it holds all samples of its range that came in order, so that the head need not hold them.
    pub fn is_whole(&self) -> bool {
        // Whatever a hint says, also one that is not known: the block is not a usual one.
        self.compaction.hints.is_empty()
    }

    /// Reads the file of the block in `dir`. Errors for versions other than 1, with Prometheus's text.
    pub fn read(fs: &dyn Fs, dir: &Path) -> Result<Self, BlockError> {
        let path = dir.join(META_FILE);
        let file = fs.open(&path).context("open", &path)?;
        let len = file.len().context("read", &path)?;
        if LEN_MAX < len {
            return Err(BlockError::corrupt(&path, 0, format!("it has {len} bytes")));
        }
        let mut text = vec![0; usize::try_from(len).unwrap_or(0)];
        let read = file.read_at(&mut text, 0).context("read", &path)?;
        text.truncate(read);
        let mut meta: Self =
            serde_json::from_slice(&text).map_err(|error| BlockError::corrupt(&path, 0, error.to_string()))?;
        if meta.version != VERSION {
            return Err(BlockError::corrupt(&path, 0, format!("unexpected meta file version {}", meta.version)));
        }
        if meta.max_time < meta.min_time {
            return Err(BlockError::corrupt(&path, 0, "its range ends before it starts"));
        }
        meta.compaction.hints.extend(unknown_key(&text).map(|key| format!("unknown-{key}")));
        Ok(meta)
    }

    /// The text of the file.
    pub fn to_json(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let formatter = serde_json::ser::PrettyFormatter::with_indent(b"\t");
        let mut serializer = serde_json::Serializer::with_formatter(&mut out, formatter);
        self.serialize(&mut serializer).expect("a block's description has nothing that JSON cannot say");
        out
    }

    /// Writes the file of the block in `dir`, in one step; returns its length.
    pub fn write(&self, fs: &dyn Fs, dir: &Path) -> Result<u64, BlockError> {
        let text = self.to_json();
        super::write::write_in_one_step(fs, dir, META_FILE, &text)?;
        Ok(text.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::fs::sim::SimFs;

    fn ulid(last: char) -> Ulid {
        Ulid::parse(&format!("01BKGV7JC0RY8A6MACW02A2PJ{last}")).unwrap()
    }

    #[test]
    fn the_text_is_that_of_prometheus() {
        let mut meta = BlockMeta::from_head(ulid('D'), -5, 7_200_000);
        meta.stats.num_samples = 3;
        let text = String::from_utf8(meta.to_json()).unwrap();
        assert_eq!(
            text,
            "{\n\t\"ulid\": \"01BKGV7JC0RY8A6MACW02A2PJD\",\n\t\"minTime\": -5,\n\t\"maxTime\": 7200000,\n\t\"stats\": {\n\t\t\
             \"numSamples\": 3\n\t},\n\t\"compaction\": {\n\t\t\"level\": 1,\n\t\t\"sources\": [\n\t\t\t\
             \"01BKGV7JC0RY8A6MACW02A2PJD\"\n\t\t]\n\t},\n\t\"version\": 1\n}"
        );
        let fs = SimFs::new();
        let dir = Path::new("/b");
        let other = text.replace("\"version\": 1", "\"thanos\": {\"x\": []}, \"version\": 2");
        fs.put(&dir.join(META_FILE), other.as_bytes()).unwrap();
        let error = BlockMeta::read(&fs, dir).unwrap_err().to_string();
        assert!(error.contains("unexpected meta file version 2"), "{error}");
        fs.put(&dir.join(META_FILE), other.replace("\"version\": 2", "\"version\": 1").as_bytes()).unwrap();
        assert_eq!(BlockMeta::read(&fs, dir).unwrap(), meta);
    }

    #[test]
    fn a_merged_block_names_its_parents_and_keeps_hints_that_hold_for_it() {
        let mut late = BlockMeta::from_head(ulid('A'), 0, 10);
        late.compaction.hints.push(HINT_OUT_OF_ORDER.to_owned());
        let usual = BlockMeta::from_head(ulid('B'), 5, 20);
        let both = BlockMeta::merged(ulid('C'), &[&late, &usual]);
        assert_eq!((both.min_time, both.max_time, both.compaction.level), (0, 20, 2));
        assert_eq!(both.compaction.sources, [ulid('A'), ulid('B')]);
        assert_eq!(both.compaction.parents, [late.desc(), usual.desc()]);
        assert!(both.is_whole() && !late.is_whole());
        assert!(BlockMeta::merged(ulid('C'), &[&late]).has_hint(HINT_OUT_OF_ORDER));
    }
}
