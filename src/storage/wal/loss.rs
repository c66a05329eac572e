//! What damage of the log has cost: how many samples, of which time. Told from what can still be read of the damaged bytes, and
//! where nothing can, reckoned from the records around them.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::model::go_time::format_rfc3339_nano;
use crate::storage::fs::SharedFs;
use crate::storage::wal::fragment::{Compression, FRAGMENT_HEADER_LEN, FragmentHeader, FragmentKind, page_rest};
use crate::storage::wal::held::Held;
use crate::storage::wal::load::SegmentDamage;
use crate::storage::wal::manifest::Row;
use crate::storage::wal::reader::{Inflater, Item, SegmentReader};
use crate::storage::wal::{IoContext, WalError};

/// Bytes of a damaged stretch that are looked at; what is longer is reckoned.
const LOOKED_AT_MAX: u64 = 8 << 20;
/// Records on either side that tell the time.
const NEIGHBOURS: usize = 3;

/// What was lost at a place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Loss {
    /// Samples.
    pub samples: u64,
    /// Whether they were reckoned: the damaged bytes did not tell.
    pub is_reckoned: bool,
    /// Names of series. Samples of such a series are lost as well, also those that are still there.
    pub series: u64,
    /// Deleted ranges. Samples in them are answered again.
    pub deletions: u64,
    /// Times, in milliseconds, between which the lost samples lie, as far as it can be told.
    pub range: Option<(i64, i64)>,
}

impl Loss {
    /// Nobody can tell.
    pub(crate) const UNKNOWN: Self = Self { samples: 0, is_reckoned: true, series: 0, deletions: 0, range: None };

    /// All of this.
    pub(crate) fn of(held: Held) -> Self {
        let Held { samples, series, deletions, .. } = held;
        Self { samples, is_reckoned: false, series, deletions, range: held.span().filter(|_| 0 < samples) }
    }

    /// Adds another loss.
    pub fn add(&mut self, other: Self) {
        self.samples += other.samples;
        self.series += other.series;
        self.deletions += other.deletions;
        self.is_reckoned |= other.is_reckoned;
        self.range = joined(self.range, other.range);
    }
}

impl fmt::Display for Loss {
    /// How many samples of which time.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::UNKNOWN {
            return f.write_str("nobody can tell what was lost");
        }
        let about = if self.is_reckoned { "about " } else { "" };
        write!(f, "{about}{} samples lost", self.samples)?;
        if 0 < self.series {
            write!(f, ", names of {} series", self.series)?;
        }
        if 0 < self.deletions {
            write!(f, ", {} deleted ranges", self.deletions)?;
        }
        if let Some((from, to)) = self.range {
            let time = |ms: i64| format_rfc3339_nano(ms.saturating_mul(1_000_000));
            write!(f, ", from {} to {}", time(from), time(to))?;
        }
        Ok(())
    }
}

/// A sound record of samples.
struct Sound {
    offset: u64,
    len: u64,
    held: Held,
}

fn joined(a: Option<(i64, i64)>, b: Option<(i64, i64)>) -> Option<(i64, i64)> {
    match (a, b) {
        (Some((a, b)), Some((c, d))) => Some((a.min(c), b.max(d))),
        (one, other) => one.or(other),
    }
}

/// Says of each damage of the segment at `path` what it has cost. `before` is the segment before it.
pub(crate) fn measure(
    fs: &SharedFs,
    before: Option<&Path>,
    path: &Path,
    damage: &mut [SegmentDamage],
) -> Result<(), WalError> {
    let sound = sound_records(fs, path)?;
    let sound_before = before.and_then(|before| sound_records(fs, before).ok()).unwrap_or_default();
    let last_before = sound_before.last().and_then(|last| last.held.span());
    // How many samples a byte stands for, here or else in the segment before.
    let nearest = if sound.is_empty() { &sound_before } else { &sound };
    let (samples, len) = nearest.iter().fold((0, 0), |(n, len), one| (n + one.held.samples, len + one.len));
    let file = fs.open(path).context("open", path)?;
    for one in damage {
        let looked_at = one.len.min(LOOKED_AT_MAX);
        let mut data = vec![0; usize::try_from(looked_at).unwrap_or(0)];
        let read = file.read_at(&mut data, one.offset).context("read", path)?;
        data.truncate(read);
        let (held, unknown) = lenient(&data, one.offset);
        // What is behind the end says nothing.
        let unknown = unknown + one.len.saturating_sub(read as u64);
        // What says nothing may hold a sample at least.
        let reckoned = (unknown.saturating_mul(samples)).div_ceil(len.max(1)).max(u64::from(0 < unknown));
        let at = sound.partition_point(|record| record.offset < one.offset);
        let spans = |records: &[Sound]| records.iter().fold(None, |span, record| joined(span, record.held.span()));
        let near_before = spans(sound.get(at.saturating_sub(NEIGHBOURS)..at).unwrap_or(&[]));
        let near_after = spans(sound.get(at..(at + NEIGHBOURS).min(sound.len())).unwrap_or(&[]));
        let range = joined(joined(near_before.or(last_before), near_after), held.span());
        let samples = held.samples + reckoned;
        let range = range.filter(|_| 0 < samples);
        let (series, deletions) = (held.series, held.deletions);
        one.loss = Loss { samples, is_reckoned: 0 < unknown, series, deletions, range };
    }
    Ok(())
}

/// Makes what damage has cost exact where `row` says what the segment has to hold: `found` is what it still holds of that. Damage
/// behind it stays as it was measured.
pub(crate) fn settle(row: &Row, found: Held, damage: &mut [SegmentDamage]) {
    let mut left = row.held.without(found);
    let mut inside: Vec<&mut SegmentDamage> = damage.iter_mut().filter(|one| one.offset < row.len).collect();
    let is_one = inside.len() == 1;
    let Some(last) = inside.pop() else { return };
    for one in inside {
        let loss = &mut one.loss;
        loss.samples = loss.samples.min(left.samples);
        loss.series = loss.series.min(left.series);
        loss.deletions = loss.deletions.min(left.deletions);
        left = left.without(Held { samples: loss.samples, series: loss.series, deletions: loss.deletions, ..left });
    }
    let exact = Loss::of(left);
    // Where nothing stands behind it, it may reach to the last sample.
    let range = match (last.loss.range, exact.range) {
        (Some((from, _)), Some((_, to))) if row.len <= last.offset + last.len => Some((from.min(to), to)),
        (near, all) => near.or(all),
    };
    let range = range.filter(|_| 0 < exact.samples);
    last.loss = Loss { range, is_reckoned: !is_one && last.loss.is_reckoned, ..exact };
}

/// What a segment that is missing has cost, about: `before` are those before it, the nearest first, `after` those behind.
pub(crate) fn of_gap<'a>(
    fs: &SharedFs,
    before: impl Iterator<Item = &'a PathBuf>,
    after: impl Iterator<Item = &'a PathBuf>,
) -> Loss {
    // Many a segment is empty: each start begins one.
    let read = |path: &PathBuf| sound_records(fs, path).ok().filter(|sound| !sound.is_empty());
    let before = before.take(NEIGHBOURS).find_map(read).unwrap_or_default();
    let after = after.take(NEIGHBOURS).find_map(read).unwrap_or_default();
    let samples = |records: &[Sound]| records.iter().map(|record| record.held.samples).sum::<u64>();
    let from = before.last().and_then(|record| record.held.span()).map(|(_, max_t)| max_t);
    let to = after.first().and_then(|record| record.held.span()).map(|(min_t, _)| min_t);
    let range = from.or(to).zip(to.or(from)).map(|(from, to)| (from.min(to), from.max(to)));
    Loss { samples: samples(&before).max(samples(&after)), is_reckoned: true, range, ..Loss::default() }
}

/// The sound records of samples in a segment.
fn sound_records(fs: &SharedFs, path: &Path) -> Result<Vec<Sound>, WalError> {
    let mut reader = SegmentReader::new(fs.open(path).context("open", path)?, None).context("read", path)?;
    let (mut sound, mut inflater) = (Vec::new(), Inflater::default());
    while let Some(item) = reader.next_item().context("read", path)? {
        if let Item::Record { offset, end, compression, data } = item
            && let Some(held) = held(&mut inflater, compression, data)
            && 0 < held.samples
        {
            sound.push(Sound { offset, len: end - offset, held });
        }
    }
    Ok(sound)
}

/// What a record holds; `None` if it cannot be read.
fn held(inflater: &mut Inflater, compression: Compression, data: &[u8]) -> Option<Held> {
    Held::of_record(inflater.inflate(compression, data).ok()?)
}

/// Reads damaged bytes without asking for checksums: what their records would hold, and the bytes of those that say nothing.
fn lenient(data: &[u8], offset: u64) -> (Held, u64) {
    let (mut all, mut unknown, mut at) = (Held::default(), 0, 0);
    let (mut inflater, mut parts, mut parts_len) = (Inflater::default(), Vec::new(), 0u64);
    while let Some(rest) = data.get(at..).filter(|rest| !rest.is_empty()) {
        let page = page_rest(offset + at as u64);
        if page < FRAGMENT_HEADER_LEN || rest.first() == Some(&0) {
            // Padding, unless the byte that says so is what is wrong.
            let stretch = rest.get(..page.min(rest.len())).unwrap_or(rest);
            if stretch.iter().any(|byte| *byte != 0) {
                unknown += stretch.len() as u64;
            }
            at += page;
            continue;
        }
        let header = rest.first_chunk().and_then(|raw| FragmentHeader::decode(*raw).ok());
        let body = header.and_then(|header| {
            let end = FRAGMENT_HEADER_LEN + usize::from(header.len);
            Some((header, end)).filter(|_| end <= page).zip(rest.get(FRAGMENT_HEADER_LEN..end))
        });
        let Some(((header, end), body)) = body else {
            // It does not say where the next one begins.
            unknown += (rest.len().min(page)) as u64;
            at += page;
            continue;
        };
        if matches!(header.kind, FragmentKind::Full | FragmentKind::First) {
            unknown += parts_len;
            parts_len = 0;
            parts.clear();
        }
        parts.extend_from_slice(body);
        parts_len += end as u64;
        at += end;
        if matches!(header.kind, FragmentKind::Full | FragmentKind::Last) {
            let other = if header.compression == Compression::None { Compression::Snappy } else { Compression::None };
            let read = held(&mut inflater, header.compression, &parts).or_else(|| held(&mut inflater, other, &parts));
            match read {
                Some(held) => all.add(held),
                None => unknown += parts_len,
            }
            parts_len = 0;
            parts.clear();
        }
    }
    // Times that no neighbour bears out may be what was damaged.
    (all, unknown + parts_len)
}
