//! Labels of a scraped series: exposed ones, the target's, relabelling, checks; the order is that of Prometheus.
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

use std::borrow::Cow;
use std::cmp::Ordering;

use crate::exposition::packed;
use crate::exposition::plain::{PlainSeries, is_plain_name, order_of_names};
use crate::exposition::text::{FamilyKind, TextParser, is_bound, normal_bound};
use crate::model::labels::{Labels, LabelsRoom, METRIC_NAME, RawPair, is_legacy_label_name, is_legacy_metric_name};
use crate::scrape::error::ScrapeError;
use crate::scrape::report;
use crate::scrape::settings::{NameScheme, SamplePlan, ScrapeSettings};

type Pair<'a> = (Cow<'a, str>, Cow<'a, str>);

/// Prefix of exposed labels that the target's labels displace.
const EXPORTED_PREFIX: &str = "exported_";
/// Longest part of a name or value that an error shows, in characters.
const SHOWN_CHARS_MAX: usize = 50;

/// The labels to store for `raw`, the bytes of a series that a parser has accepted; `None` when relabelling drops it, or when it
/// stands where the scrape reports about the target.
pub(super) fn assemble(raw: &[u8], kind: FamilyKind, plan: &SamplePlan) -> Result<Option<Labels>, ScrapeError> {
    match PlainSeries::scan(raw).filter(|series| series.raw().len() == raw.len()) {
        Some(mut series) => Assembler::new(plan).assemble(&mut series, kind),
        None => assemble_any(raw, kind, plan),
    }
}

/// Assembles the labels of one plain series after the other, in one pass wherever that comes to the same.
pub(super) struct Assembler<'p> {
    plan: &'p SamplePlan,
    /// The target's labels, unless a name of theirs may not be valid.
    target: Option<Vec<RawPair<'p>>>,
    room: LabelsRoom,
}

impl<'p> Assembler<'p> {
    pub(super) fn new(plan: &'p SamplePlan) -> Self {
        let is_plain = |pair: &RawPair<'_>| is_plain_name(pair.name) && pair.name != METRIC_NAME.as_bytes();
        let target = plan.target_labels.iter_raw().map(|pair| Some(pair).filter(is_plain)).collect();
        Self { plan, target, room: LabelsRoom::default() }
    }

    /// As [`assemble`] of a series whose parts are known.
    pub(super) fn assemble(
        &mut self,
        series: &mut PlainSeries<'_>,
        kind: FamilyKind,
    ) -> Result<Option<Labels>, ScrapeError> {
        let plan = self.plan;
        self.room.clear();
        if self.merge(series, kind).is_none() {
            return assemble_any(series.raw(), kind, plan);
        }
        let labels = self.room.take();
        if plan.relabel.is_some() {
            return conclude(labels, None, true, plan);
        }
        // There is a name, and all names are valid.
        check_limits(&labels, &plan.settings)?;
        Ok(Some(labels).filter(|labels| !is_report(series.metric(), labels, plan)))
    }

    /// Puts the exposed labels and the target's into the room, sorted, those without a value left out. `None` where they need a
    /// longer look: for a name that stands twice, and for one that the target has as well.
    fn merge(&mut self, series: &mut PlainSeries<'_>, kind: FamilyKind) -> Option<()> {
        let mut target = self.target.as_deref()?;
        if !series.sort() {
            return None;
        }
        let mut merged = Merged { metric: Some(series.metric()), room: &mut self.room };
        for (name, value) in series.labels() {
            while let Some((pair, rest)) = target.split_first()
                && order_of_names(pair.name, name) == Ordering::Less
            {
                merged.push_target(pair)?;
                target = rest;
            }
            if let Some((pair, rest)) = target.split_first()
                && pair.name == name
            {
                if self.plan.settings.honor_labels {
                    target = rest;
                } else if value.is_empty() {
                    continue;
                } else {
                    return None;
                }
            }
            merged.go_to(name)?;
            if value.is_empty() {
                continue;
            }
            match kind {
                FamilyKind::Histogram | FamilyKind::Summary => merged.push_bound(kind, name, value)?,
                _ => merged.room.push_utf8(name, value),
            }
        }
        for pair in target {
            merged.push_target(pair)?;
        }
        merged.end();
        Some(())
    }
}

/// A label set in which the metric name finds its place.
struct Merged<'a> {
    /// The metric name, until it stands in the room.
    metric: Option<&'a [u8]>,
    room: &'a mut LabelsRoom,
}

impl Merged<'_> {
    /// Says that the label `name` comes next; `None` if it is that of the metric.
    fn go_to(&mut self, name: &[u8]) -> Option<()> {
        match order_of_names(name, METRIC_NAME.as_bytes()) {
            Ordering::Less => {}
            Ordering::Equal => return None,
            Ordering::Greater => self.end(),
        }
        Some(())
    }

    fn push_target(&mut self, pair: &RawPair<'_>) -> Option<()> {
        self.go_to(pair.name)?;
        self.room.push_encoded(pair.encoded);
        Some(())
    }

    /// Appends a label that may be a bucket bound or a quantile.
    fn push_bound(&mut self, kind: FamilyKind, name: &[u8], value: &[u8]) -> Option<()> {
        let (name, value) = (std::str::from_utf8(name).ok()?, std::str::from_utf8(value).ok()?);
        if is_bound(kind, name) {
            self.room.push(name, &normal_bound(value));
        } else {
            self.room.push(name, value);
        }
        Some(())
    }

    /// Puts the metric name where it is, if it does not stand anywhere.
    fn end(&mut self) {
        if let Some(metric) = self.metric.take() {
            self.room.push_utf8(METRIC_NAME.as_bytes(), metric);
        }
    }
}

/// [`assemble`] for any series.
fn assemble_any(raw: &[u8], kind: FamilyKind, plan: &SamplePlan) -> Result<Option<Labels>, ScrapeError> {
    let mut exposed: Vec<Pair<'_>> = Vec::with_capacity(16);
    let names_are_utf8 = match packed::parts(raw) {
        Some(mut parts) => {
            let mut name = Some(METRIC_NAME);
            while let (Some(label), Some(value)) = (name, parts.next()) {
                exposed.push((Cow::Borrowed(label), Cow::Borrowed(value)));
                name = parts.next();
            }
            true
        }
        // Series of OpenMetrics are written as those of the text format.
        None => TextParser::new().series_labels(raw, kind, &mut exposed),
    };
    exposed.sort_by(|a, b| a.0.cmp(&b.0));
    let mut merged = merge(exposed, &plan.target_labels, plan.settings.honor_labels);
    merged.retain(|(_, value)| !value.is_empty());
    merged.sort_by(|a, b| a.0.cmp(&b.0));
    let twice = merged.windows(2).find(|w| matches!(w, [a, b] if a.0 == b.0)).and_then(|w| Some(w.first()?.0.clone()));
    merged.dedup_by(|later, earlier| later.0 == earlier.0);
    let labels = Labels::from_sorted(merged.iter().map(|(name, value)| (name.as_ref(), value.as_ref())));
    conclude(labels, twice, names_are_utf8, plan)
}

/// Relabels and checks what was merged; `twice` is a name that stood there twice.
fn conclude(
    labels: Labels,
    twice: Option<Cow<'_, str>>,
    names_are_utf8: bool,
    plan: &SamplePlan,
) -> Result<Option<Labels>, ScrapeError> {
    let relabelled = match &plan.relabel {
        Some(relabel) => relabel(labels),
        None => Some(labels),
    };
    let Some(labels) = relabelled.filter(|labels| !labels.is_empty()) else { return Ok(None) };
    check_names(&labels, plan.settings.names, names_are_utf8)?;
    check_limits(&labels, &plan.settings)?;
    match twice.filter(|name| labels.contains(name)) {
        Some(name) => Err(ScrapeError::LabelTwice(name.into_owned())),
        None => Ok(Some(labels).filter(|labels| !is_report(labels.metric_name().as_bytes(), labels, plan))),
    }
}

/// Whether a target speaks of itself as the report of its scrape does. Prometheus keeps what it says: a target can hide there
/// that it is down, or claim to be.
fn is_report(metric: &[u8], labels: &Labels, plan: &SamplePlan) -> bool {
    if !report::may_be_name(metric) {
        return false;
    }
    let names = report::NAMES.iter().take(report::count(&plan.settings));
    names.filter(|name| name.as_bytes() == metric).any(|name| *labels == report_labels(name, &plan.target_labels))
}

/// Labels of a report series: its name and the target's. As in Prometheus, a target label that has the exported form of a
/// later target label's name is taken for a displaced one, and gives way.
pub(super) fn report_labels(name: &str, target: &Labels) -> Labels {
    let mut builder = target.to_builder();
    for (label, _) in target {
        let displaced = format!("{EXPORTED_PREFIX}{label}");
        if displaced.as_str() < label {
            builder.del(&displaced);
        }
    }
    builder.set(METRIC_NAME, name);
    builder.build()
}

/// Joins exposed labels, sorted by name, with the target's. Empty values still count as present here.
fn merge<'a>(exposed: Vec<Pair<'a>>, target: &'a Labels, honor: bool) -> Vec<Pair<'a>> {
    let mut merged: Vec<Pair<'a>> = Vec::with_capacity(exposed.len() + target.len());
    if honor {
        let given = |name: &str| exposed.iter().any(|(n, _)| n == name);
        let missing = target.iter().filter(|(name, _)| !given(name));
        merged.extend(missing.map(|(name, value)| (Cow::Borrowed(name), Cow::Borrowed(value))));
        merged.extend(exposed);
        return merged;
    }
    let mut displaced: Vec<Pair<'a>> = Vec::new();
    for (name, value) in exposed {
        if !target.contains(&name) {
            merged.push((name, value));
        } else if !value.is_empty() && displaced.iter().all(|(n, _)| *n != name) {
            displaced.push((name, value));
        }
    }
    merged.extend(target.iter().map(|(name, value)| (Cow::Borrowed(name), Cow::Borrowed(value))));
    displaced.sort_by_key(|(name, _)| name.len());
    for (name, value) in displaced {
        let mut free = format!("{EXPORTED_PREFIX}{name}");
        while merged.iter().any(|(n, v)| *n == free && !v.is_empty()) {
            free.insert_str(0, EXPORTED_PREFIX);
        }
        merged.retain(|(n, _)| *n != free);
        merged.push((Cow::Owned(free), value));
    }
    merged
}

fn check_names(labels: &Labels, scheme: NameScheme, names_are_utf8: bool) -> Result<(), ScrapeError> {
    if !labels.contains(METRIC_NAME) {
        return Err(ScrapeError::NameMissing);
    }
    let valid = |(name, value): (&str, &str)| match scheme {
        NameScheme::Utf8 => !name.is_empty(),
        NameScheme::Legacy if name == METRIC_NAME => is_legacy_metric_name(value),
        NameScheme::Legacy => is_legacy_label_name(name),
    };
    if names_are_utf8 && labels.iter().all(valid) { Ok(()) } else { Err(ScrapeError::InvalidName(labels.to_string())) }
}

fn check_limits(labels: &Labels, settings: &ScrapeSettings) -> Result<(), ScrapeError> {
    let metric = || shown(labels.metric_name());
    let limit = settings.label_limit;
    if 0 < limit && limit < labels.len() {
        return Err(ScrapeError::LabelLimit { metric: metric(), count: labels.len(), limit });
    }
    let (name_max, value_max) = (settings.label_name_length_limit, settings.label_value_length_limit);
    if name_max == 0 && value_max == 0 {
        return Ok(());
    }
    let is_over = |len: usize, max: usize| 0 < max && max < len;
    let are_over = |pair: RawPair<'_>| is_over(pair.name.len(), name_max) || is_over(pair.value.len(), value_max);
    if !labels.iter_raw().any(are_over) {
        return Ok(());
    }
    for (name, value) in labels {
        if 0 < name_max && name_max < name.len() {
            let (len, limit) = (name.len(), name_max);
            return Err(ScrapeError::LabelNameLength { metric: metric(), name: shown(name), len, limit });
        }
        if 0 < value_max && value_max < value.len() {
            let (len, limit) = (value.len(), value_max);
            let (name, value) = (shown(name), shown(value));
            return Err(ScrapeError::LabelValueLength { metric: metric(), name, value, len, limit });
        }
    }
    Ok(())
}

fn shown(text: &str) -> String {
    text.chars().take(SHOWN_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;

    fn plan(target: &[(&str, &str)], settings: ScrapeSettings) -> SamplePlan {
        let target_labels = Labels::from_pairs(target.iter().copied());
        SamplePlan { target_labels, settings: Arc::new(settings), relabel: None }
    }

    #[track_caller]
    fn check(plan: &SamplePlan, raw: &str, expected: &str) {
        let found = match assemble(raw.as_bytes(), FamilyKind::Unknown, plan) {
            Ok(Some(labels)) => labels.to_string(),
            Ok(None) => "dropped".to_owned(),
            Err(error) => error.to_string(),
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn the_target_displaces_exposed_labels() {
        let plan = plan(&[("job", "j"), ("instance", "i")], ScrapeSettings::default());
        check(&plan, "a{x=\"\"}", r#"{__name__="a", instance="i", job="j"}"#);
        check(&plan, "a{job=\"x\"}", r#"{__name__="a", exported_job="x", instance="i", job="j"}"#);
        check(&plan, "a{job=\"\"}", r#"{__name__="a", instance="i", job="j"}"#);
        check(
            &plan,
            "a{job=\"x\",exported_job=\"y\"}",
            r#"{__name__="a", exported_exported_job="x", exported_job="y", instance="i", job="j"}"#,
        );
    }

    #[test]
    fn report_series_have_the_labels_of_the_target() {
        let labels =
            |target: &[(&str, &str)]| report_labels("up", &Labels::from_pairs(target.iter().copied())).to_string();
        assert_eq!(labels(&[("job", "j"), ("a", "1")]), r#"{__name__="up", a="1", job="j"}"#);
        assert_eq!(labels(&[("exported_foo", "x"), ("foo", "y")]), r#"{__name__="up", foo="y"}"#);
        assert_eq!(labels(&[("exported_a", "x"), ("a", "y")]), r#"{__name__="up", a="y", exported_a="x"}"#);
    }

    #[test]
    fn exposed_labels_win_when_honored_even_empty_ones() {
        let plan =
            plan(&[("job", "j"), ("instance", "i")], ScrapeSettings { honor_labels: true, ..Default::default() });
        check(&plan, "a{job=\"x\",instance=\"\"}", r#"{__name__="a", job="x"}"#);
    }

    #[test]
    fn checks_names_in_the_configured_scheme() {
        let legacy = plan(&[], ScrapeSettings { names: NameScheme::Legacy, ..Default::default() });
        check(&legacy, "{\"a.b\"}", r#"invalid metric name or label names: {__name__="a.b"}"#);
        let utf8 = plan(&[], ScrapeSettings::default());
        check(&utf8, "{\"a.b\"}", r#"{__name__="a.b"}"#);
        check(&utf8, "{\"\",x=\"1\"}", "missing metric name (__name__ label)");
        check(&utf8, "a{b=\"1\",b=\"2\"}", "label name \"b\" is not unique: invalid sample");
        let raw = b"{\"a\xff\"}";
        assert!(matches!(assemble(raw, FamilyKind::Unknown, &utf8), Err(ScrapeError::InvalidName(_))));
    }

    #[test]
    fn limits_are_worded_as_in_prometheus() {
        let with = |settings| plan(&[("job", "j")], settings);
        check(
            &with(ScrapeSettings { label_limit: 2, ..Default::default() }),
            "a{b=\"c\"}",
            "label_limit exceeded (metric: a, number of labels: 3, limit: 2)",
        );
        let long = "n".repeat(60);
        check(
            &with(ScrapeSettings { label_name_length_limit: 9, ..Default::default() }),
            &format!("a{{{long}=\"c\"}}"),
            &format!(
                "label_name_length_limit exceeded (metric: a, label name: {}, length: 60, limit: 9)",
                "n".repeat(50)
            ),
        );
        check(
            &with(ScrapeSettings { label_value_length_limit: 9, ..Default::default() }),
            &format!("a{{b=\"{long}\"}}"),
            &format!(
                "label_value_length_limit exceeded (metric: a, label name: b, value: \"{}\", length: 60, limit: 9)",
                "n".repeat(50)
            ),
        );
    }

    #[test]
    fn relabelling_may_change_and_drop() {
        let mut plan = plan(&[], ScrapeSettings::default());
        plan.relabel = Some(Arc::new(|labels: Labels| (labels.metric_name() != "b").then(|| labels.without(&["x"]))));
        check(&plan, "a{x=\"1\",y=\"2\"}", r#"{__name__="a", y="2"}"#);
        check(&plan, "b", "dropped");
        check(&plan, "a{x=\"1\",x=\"2\"}", r#"{__name__="a"}"#);
    }

    /// Names that meet each other, the target's and the metric's.
    const NAME: &str = "[abA_]|ab|le|quantile|job|instance|(exported_){1,2}job|__name__|[é1:]";
    const VALUE: &str = "|[xy]|1|0\\.50|1e6|\\+Inf|é|\\\\n|\\\\|x{9}";

    proptest! {
        /// Series of all sorts, of which most are plain: what is merged in one pass is what the long way comes to.
        #[test]
        fn plain_series_get_the_labels_of_any_others(
            metric in "[a:]|a_bucket|up|scrape_timeout_seconds|1|é|",
            exposed in proptest::collection::vec((NAME, VALUE, "( |, )?"), 0..5),
            (target, honor_labels, legacy) in (proptest::collection::btree_map(NAME, "[xy]", 0..4), any::<bool>(), any::<bool>()),
            (label_limit, name_limit, value_limit) in (0..6_usize, 0..9_usize, 0..9_usize),
            (kind, relabels) in (0..3_usize, any::<bool>()),
            broken in proptest::option::weighted(0.1, any::<u8>()),
        ) {
            let settings = ScrapeSettings {
                honor_labels,
                names: if legacy { NameScheme::Legacy } else { NameScheme::Utf8 },
                label_limit,
                // Small ones would leave little else to see.
                label_name_length_limit: if name_limit < 5 { 0 } else { name_limit },
                label_value_length_limit: if value_limit < 5 { 0 } else { value_limit },
                extra_scrape_metrics: true,
                ..Default::default()
            };
            let target: Vec<_> = target.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            let mut plan = plan(&target, settings);
            let relabel: fn(Labels) -> Option<Labels> = |labels| (!labels.contains("A")).then(|| labels.without(&["ab"]));
            plan.relabel = relabels.then(|| Arc::new(relabel) as Arc<_>);
            let kind = [FamilyKind::Histogram, FamilyKind::Summary, FamilyKind::Unknown][kind];
            let mut raw = metric.into_bytes();
            raw.push(b'{');
            for (name, value, blank) in &exposed {
                raw.extend(format!("{name}=\"{value}\"{blank},").bytes());
            }
            raw.push(b'}');
            if let Some(byte) = broken {
                let at = usize::from(byte) % raw.len();
                raw[at] = byte;
            }
            let found = assemble(&raw, kind, &plan);
            prop_assert_eq!(&found, &assemble_any(&raw, kind, &plan), "{}", String::from_utf8_lossy(&raw));
            if let Ok(Some(labels)) = found {
                let copy = Labels::from_pairs(&labels);
                prop_assert_eq!(labels, copy);
            }
        }
    }

    #[test]
    fn most_series_are_merged_in_one_pass() {
        let merges = |target: &[(&str, &str)], raw: &str| {
            let mut series = PlainSeries::scan(raw.as_bytes()).unwrap();
            let plan = plan(target, ScrapeSettings::default());
            Assembler::new(&plan).merge(&mut series, FamilyKind::Unknown).is_some()
        };
        let target = [("instance", "i"), ("job", "j")];
        assert!(merges(&target, "a") && merges(&target, "a{z=\"1\",b=\"\",A=\"x\",job=\"\"}") && merges(&[], "a"));
        assert!(!merges(&target, "a{job=\"x\"}") && !merges(&[("é", "x")], "a") && !merges(&[], "a{b=\"1\",b=\"2\"}"));
        assert!(!merges(&[], "a{__name__=\"b\"}") && !merges(&[("__name__", "b")], "a"));
    }
}
