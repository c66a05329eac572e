//! Metadata for storage: of series that are new, and of those whose family is described otherwise than in the last scrape.
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

use std::collections::HashMap;
use std::sync::Arc;

use crate::exposition::content_type::Format;
use crate::exposition::text::{FamilyKind, metadata_parts};
use crate::model::append::{AppendMetadata, SeriesKey};
use crate::model::metadata::{MetricType, SeriesMetadata};
use crate::scrape::cache::{CacheState, families};
use crate::scrape::labels::assemble;
use crate::scrape::sequence::{Line, Role, Sequence};
use crate::scrape::settings::SamplePlan;

fn type_of(kind: FamilyKind) -> MetricType {
    match kind {
        FamilyKind::Unknown => MetricType::Unknown,
        FamilyKind::Counter => MetricType::Counter,
        FamilyKind::Gauge => MetricType::Gauge,
        FamilyKind::Histogram => MetricType::Histogram,
        FamilyKind::GaugeHistogram => MetricType::GaugeHistogram,
        FamilyKind::Summary => MetricType::Summary,
        FamilyKind::Info => MetricType::Info,
        FamilyKind::StateSet => MetricType::StateSet,
    }
}

struct Family {
    kind: FamilyKind,
    metadata: Arc<SeriesMetadata>,
    has_changed: bool,
}

/// What `next` says that storage does not know from `before`.
pub(super) fn news(before: &CacheState, next: &Sequence, format: Format, plan: &SamplePlan) -> Vec<AppendMetadata> {
    let known: HashMap<String, _> =
        families(&before.sequence, before.format).into_iter().map(|family| (family.family.clone(), family)).collect();
    let described: HashMap<String, Family> = families(next, format)
        .into_iter()
        .map(|family| {
            let has_changed = known.get(&family.family) != Some(&family);
            let kind = family.kind;
            let metadata = SeriesMetadata { kind: type_of(kind), unit: family.unit, help: family.help };
            (family.family, Family { kind, metadata: Arc::new(metadata), has_changed })
        })
        .collect();
    let mut found = Vec::new();
    let mut current: Option<(&str, &Family)> = None;
    let mut line = Line::default();
    for (index, entry) in next.iter().enumerate() {
        let raw = line.read(next, index);
        match entry.role() {
            Role::Help | Role::Type | Role::Unit => {
                let family = metadata_parts(raw).map(|(family, _)| String::from_utf8_lossy(family));
                let family = family.and_then(|name| described.get_key_value(name.as_ref()));
                current = family.map(|(name, family)| (name.as_str(), family));
            }
            Role::Series => {
                let Some((name, family)) = current else { continue };
                if entry.handle().is_some() && !family.has_changed {
                    continue;
                }
                let Ok(Some(labels)) = assemble(raw, entry.kind(), plan) else { continue };
                if !is_part_of(labels.metric_name(), name, family.kind) {
                    continue;
                }
                let series = entry.handle().map_or(SeriesKey::Labels(labels), SeriesKey::Known);
                found.push(AppendMetadata { series, metadata: Arc::clone(&family.metadata) });
            }
            Role::Dropped | Role::Repeat => {}
        }
    }
    found
}

/// Whether a series of this name belongs to a family, as the suffixes of its type say.
pub(super) fn is_part_of(name: &str, family: &str, kind: FamilyKind) -> bool {
    let suffixes: &[&str] = match kind {
        FamilyKind::Counter => &["_total"],
        FamilyKind::Histogram => &["_bucket", "_sum", "_count"],
        FamilyKind::GaugeHistogram => &["_bucket", "_gsum", "_gcount"],
        FamilyKind::Summary => &["_sum", "_count"],
        FamilyKind::Info => &["_info"],
        FamilyKind::Unknown | FamilyKind::Gauge | FamilyKind::StateSet => &[],
    };
    let own = match kind {
        // These families may be called after their series.
        FamilyKind::Counter => family.strip_suffix("_total").unwrap_or(family),
        FamilyKind::Info => family.strip_suffix("_info").unwrap_or(family),
        _ => family,
    };
    let cut = suffixes.iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(name);
    name.starts_with(family) && cut == own
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suffixes_tell_whose_a_series_is() {
        use FamilyKind::{Counter, Gauge, Histogram, Info, Summary};
        let cases = [
            ("a_total", "a", Counter, true),
            ("a_total", "a_total", Counter, true),
            ("a", "a", Counter, true),
            ("a_created", "a", Counter, false),
            ("h_bucket", "h", Histogram, true),
            ("h_sum", "h", Histogram, true),
            ("h", "h", Histogram, true),
            ("hh_sum", "h", Histogram, false),
            ("s_bucket", "s", Summary, false),
            ("g_total", "g", Gauge, false),
            ("i_info", "i", Info, true),
            ("x", "g", Gauge, false),
        ];
        for (name, family, kind, expected) in cases {
            assert_eq!(is_part_of(name, family, kind), expected, "{name} {family}");
        }
    }
}
