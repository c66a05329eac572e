//! Metadata for storage: of series that are new, and of those whose family is described otherwise than in the last scrape. And
//! how much it is.
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

use std::collections::{HashMap, HashSet};
use std::hash::BuildHasher;
use std::sync::Arc;

use foldhash::fast::RandomState;

use crate::exposition::content_type::Format;
use crate::exposition::openmetrics;
use crate::exposition::text::{FamilyKind, metadata_parts, unescape_help};
use crate::model::append::{AppendMetadata, SeriesKey};
use crate::model::metadata::{MetricType, SeriesMetadata};
use crate::scrape::cache::{CacheState, MetadataSize, families};
use crate::scrape::labels::assemble;
use crate::scrape::sequence::{Entry, Line, Role, Sequence};
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

/// How much the metadata lines of a sequence say, if the lines of each family are neighbours, as they should be; without making
/// anything of them.
pub(super) fn size_of_lines(lines: &Sequence, format: Format) -> Option<MetadataSize> {
    let mut size = MetadataSize::default();
    let hasher = RandomState::default();
    let mut met: HashSet<u64, RandomState> = HashSet::default();
    let (mut line, mut family_before) = (Line::default(), Vec::new());
    // Bytes of the family that is being looked at: type, help text, unit.
    let (mut of_kind, mut of_help, mut of_unit) = (0, 0, 0);
    let described = |entry: &Entry| matches!(entry.role(), Role::Help | Role::Type | Role::Unit);
    for (at, entry) in lines.iter().enumerate().filter(|(_, entry)| described(entry)) {
        let Some((family, text)) = metadata_parts(line.read(lines, at)) else { continue };
        let (Ok(_), Ok(text)) = (std::str::from_utf8(family), std::str::from_utf8(text)) else { return None };
        if size.entries == 0 || family != family_before {
            if !met.insert(hasher.hash_one(family)) {
                return None;
            }
            (of_kind, of_help, of_unit) = (FamilyKind::Unknown.name().len() as u64, 0, 0);
            size.entries += 1;
            size.bytes += of_kind;
            family.clone_into(&mut family_before);
        }
        let (part, len) = match entry.role() {
            Role::Help => match format {
                Format::Text => (&mut of_help, unescape_help(text).len()),
                Format::OpenMetrics => (&mut of_help, openmetrics::unescape_help(text).len()),
                Format::Protobuf => (&mut of_help, text.len()),
            },
            Role::Unit => (&mut of_unit, text.len()),
            _ => (&mut of_kind, entry.kind().name().len()),
        };
        // What is said twice counts once.
        size.bytes = size.bytes - *part + len as u64;
        *part = len as u64;
    }
    Some(size)
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
    use proptest::prelude::*;

    use super::*;
    use crate::scrape::cache::size_of_metadata;

    proptest! {
        #[test]
        fn lines_are_as_much_as_the_families_that_they_make(
            parts in proptest::collection::vec(("[ab]|é", 0..4_usize, "[x\\\\n\"é]{0,4}"), 0..9),
        ) {
            for format in [Format::Text, Format::OpenMetrics] {
                let mut lines = Sequence::default();
                for (family, role, text) in &parts {
                    let (role, word) = [(Role::Help, "HELP"), (Role::Type, "TYPE"), (Role::Unit, "UNIT"), (Role::Series, "x")][*role];
                    let kind = if role == Role::Type { FamilyKind::Counter } else { FamilyKind::Unknown };
                    lines.push(format!("# {word} {family} {text}").as_bytes(), role, kind).unwrap();
                }
                let expected = size_of_metadata(&families(&lines, format), &[]);
                if let Some(size) = size_of_lines(&lines, format) {
                    prop_assert_eq!(size, expected);
                } else {
                    prop_assert!(parts.len() > 2);
                }
            }
        }
    }

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
