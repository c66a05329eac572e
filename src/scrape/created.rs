//! Start times of OpenMetrics: a `_created` line tells when the samples of its labels, which stand before it in its family, have
//! begun to count. Where start times are wanted it is no series.
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

use std::borrow::Cow;
use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher};

use foldhash::fast::FixedState;

use crate::exposition::text::{FamilyKind, TextParser, metadata_parts};
use crate::model::append::AppendStarts;
use crate::model::labels::{BUCKET, METRIC_NAME};

const SUFFIX: &str = "_created";
const QUANTILE: &str = "quantile";

/// Start times of a scrape, and what is known of the family that is being read.
#[derive(Debug, Default)]
pub(super) struct Created {
    family: String,
    /// The samples of each label set of the family, by its hash.
    samples: HashMap<u64, Vec<u32>, FixedState>,
    /// The label set of the sample that is being read.
    held: Option<u64>,
    pub(super) starts: AppendStarts,
}

impl Created {
    /// A `# TYPE` line.
    pub(super) fn begin_family(&mut self, raw: &[u8]) {
        self.samples.clear();
        self.family.clear();
        if let Some((family, _)) = metadata_parts(raw) {
            self.family.push_str(&String::from_utf8_lossy(family));
        }
    }

    /// Looks at a line; true if it is a `_created` one, whose `value` holds for samples before it.
    pub(super) fn takes(&mut self, raw: &[u8], kind: FamilyKind, value: f64) -> bool {
        self.held = None;
        let bound = match kind {
            FamilyKind::Counter => "",
            FamilyKind::Histogram => BUCKET,
            FamilyKind::Summary => QUANTILE,
            _ => return false,
        };
        let mut pairs: Vec<(Cow<'_, str>, Cow<'_, str>)> = Vec::new();
        TextParser::new().series_labels(raw, FamilyKind::Unknown, &mut pairs);
        let name = pairs.iter().find(|(name, _)| name == METRIC_NAME).map(|(_, value)| value.as_ref());
        let Some(rest) = name.and_then(|name| name.strip_prefix(self.family.as_str())) else { return false };
        let is_created = rest == SUFFIX;
        pairs.retain(|(name, _)| name != METRIC_NAME && name != bound);
        pairs.sort();
        let mut hasher = FixedState::default().build_hasher();
        for (name, value) in &pairs {
            // 0xff stands in no text.
            for text in [name, value] {
                hasher.write(text.as_bytes());
                hasher.write_u8(0xff);
            }
        }
        let hash = hasher.finish();
        if !is_created {
            self.held = Some(hash);
            return false;
        }
        let start = Self::start_ms(value);
        let of = self.samples.get(&hash).into_iter().flatten();
        self.starts.samples.extend(of.map(|at| (*at, start)).filter(|_| start != 0));
        true
    }

    /// What a `_created` line says: seconds, cut to milliseconds as in Prometheus.
    pub(super) fn start_ms(value: f64) -> i64 {
        (value * 1000.0) as i64
    }

    /// The sample that is being read is staged in this place.
    pub(super) fn staged(&mut self, at: usize) {
        if let Some(hash) = self.held.take() {
            self.samples.entry(hash).or_default().push(u32::try_from(at).unwrap_or(u32::MAX));
        }
    }

    /// All start times, in the order of their samples.
    pub(super) fn finish(self) -> AppendStarts {
        let mut starts = self.starts;
        starts.samples.sort_unstable();
        starts.samples.dedup_by_key(|(at, _)| *at);
        starts.histograms.sort_unstable();
        starts
    }
}
