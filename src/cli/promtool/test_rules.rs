//! `promtool test rules FILE…`: unit tests of rules. Series are loaded step by step, the rules evaluated at each interval,
//! and alerts and results compared with what is expected.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::{self, Write};
use std::path::Path;

use super::{
    Command, ENABLE_FEATURE, EXPERIMENTAL, Given, OWN, existing_files, flag, go_reason, parse_options, refuse,
};
use crate::cli::EXIT_FAILURE;
use crate::cli::flag_spec::{FlagSpec, Kind};
use crate::cli::promtool::check_rules::IGNORE_UNKNOWN_FIELDS;
use crate::cli::promtool::junit::{self, Suite};
use crate::cli::promtool::test_bench::{Bench, Element, Group, Input};
use crate::config::ValidationScheme;
use crate::config::glob::glob;
use crate::config::rules::{self, RuleChecks, RuleFileError};
use crate::config::unit_test::{self, AlertTest, ExprTest, TestGroup, UnitTestFile};
use crate::model::clock::SystemClock;
use crate::model::duration::PromDuration;
use crate::model::external_url::ExternalUrl;
use crate::model::go;
use crate::model::labels::Labels;
use crate::model::regexp::Regexp;
use crate::model::time::TimestampMs;
use crate::promql::parser::{ParseOptions, SequenceValue, parse_expr, parse_metric, parse_series_desc};
use crate::rules::alerting::AlertState;
use crate::rules::evaluate::Surroundings;
use crate::rules::spec::{GroupDefaults, GroupSpec};
use crate::rules::state::RuleState;
use crate::template;

#[rustfmt::skip]
static FLAGS: [FlagSpec; 7] = [
    flag("run", Kind::List, "", OWN, "If set, will only run test groups whose names match the regular expression. Can be specified multiple times."),
    flag("debug", Kind::Switch, "false", OWN, "Enable unit test debugging."),
    flag("diff", Kind::Switch, "false", OWN, "Print expected and received output; in columns is not built."),
    flag("junit", Kind::Text, "", OWN, "File path to store JUnit XML test results."),
    IGNORE_UNKNOWN_FIELDS,
    EXPERIMENTAL,
    ENABLE_FEATURE,
];

pub(super) static COMMAND: Command = Command {
    path: &["test", "rules"],
    words: "<test-rule-file>...",
    summary: "Unit tests for rules.",
    flags: &FLAGS,
    run,
};

fn run(given: &Given) -> u8 {
    if given.words.is_empty() {
        return refuse("required argument 'test-rule-file' not provided");
    }
    if let Err(error) = existing_files(&given.words) {
        return refuse(&error);
    }
    let patterns = given.values.list("run");
    let filter = match patterns {
        [] => None,
        patterns => match Regexp::unanchored(&patterns.join("|")) {
            Ok(filter) => Some(filter),
            Err(error) => return refuse(&format!("--run: {error}")),
        },
    };
    let mut settings = Settings {
        options: parse_options(&given.values),
        delayed_name_removal: false,
        ignore_unknown_fields: given.values.bool("ignore-unknown-fields"),
        debug: given.values.bool("debug"),
        filter,
    };
    let features = given.values.list("enable-feature");
    settings.delayed_name_removal =
        features.iter().flat_map(|list| list.split(',')).any(|name| name == "promql-delayed-name-removal");
    let (mut code, mut suites) = (0, Vec::new());
    for file in &given.words {
        let mut suite = Suite::new(file, SystemClock::shared().now());
        let errors = test_file(file, &settings, &mut suite);
        suites.push(suite);
        let (mut out, mut err) = (io::stdout(), io::stderr());
        if errors.is_empty() {
            let _ = writeln!(out, "  SUCCESS");
        } else {
            code = EXIT_FAILURE;
            let _ = writeln!(err, "  FAILED:");
            for error in errors {
                let _ = writeln!(err, "{error}");
                let _ = writeln!(out);
            }
        }
        let _ = writeln!(out);
    }
    let junit = given.values.text("junit");
    if !junit.is_empty()
        && let Err(error) = fs::write(junit, junit::document(&suites))
    {
        let _ = writeln!(io::stderr(), "failed to write JUnit XML: {error}");
    }
    code
}

/// How files are tested.
struct Settings {
    options: ParseOptions,
    delayed_name_removal: bool,
    ignore_unknown_fields: bool,
    debug: bool,
    filter: Option<Regexp>,
}

/// Tests a file; returns what failed.
fn test_file(path: &str, settings: &Settings, suite: &mut Suite) -> Vec<String> {
    let file = match load(path) {
        Ok(file) => file,
        Err(error) => {
            suite.abort(error.clone());
            return vec![error];
        }
    };
    let mut order: HashMap<&str, usize> = HashMap::new();
    for (place, name) in file.group_eval_order.iter().enumerate() {
        if order.insert(name, place).is_some() {
            let error = format!("group name repeated in evaluation order: {name}");
            suite.abort(error.clone());
            return vec![error];
        }
    }
    let interval = match file.evaluation_interval.is_zero() {
        true => PromDuration::from_secs(60),
        false => file.evaluation_interval,
    };
    let mut all = Vec::new();
    for (number, test) in file.tests.iter().enumerate() {
        if settings.filter.as_ref().is_some_and(|filter| !filter.is_match(&test.name)) {
            continue;
        }
        let name = if test.name.is_empty() { format!("unnamed#{number}") } else { test.name.clone() };
        let began = std::time::Instant::now();
        if settings.debug {
            let _ = writeln!(io::stderr(), "DEBUG: Starting test {name}");
        }
        let run = Run { file: &file, test, settings, interval, order: &order };
        let errors = run.test();
        if settings.debug {
            let _ = writeln!(io::stderr(), "DEBUG: Test {name} finished, took {:?}", began.elapsed());
        }
        suite.case_with(&name, errors.clone());
        all.extend(errors);
    }
    all
}

/// Reads a file and finds its rule files.
fn load(path: &str) -> Result<UnitTestFile, String> {
    let content = fs::read(path).map_err(|error| format!("open {path}: {}", go_reason(&error)))?;
    let mut file = unit_test::parse(&content).map_err(|error| error.to_string())?;
    let dir = Path::new(path).parent().unwrap_or(Path::new(""));
    let mut found = Vec::new();
    for pattern in &file.rule_files {
        let pattern = match Path::new(pattern).is_absolute() || pattern.is_empty() {
            true => pattern.clone(),
            false => cleaned(&dir.join(pattern)),
        };
        let names = glob(&pattern).map_err(|_| "syntax error in pattern".to_owned())?;
        if names.is_empty() {
            let _ = writeln!(io::stderr(), "  WARNING: no file match pattern {pattern}");
        }
        found.extend(names);
    }
    file.rule_files = found;
    Ok(file)
}

/// A path without what leads nowhere, as Go's `filepath.Join` makes it.
fn cleaned(path: &Path) -> String {
    use std::path::Component;
    let mut parts: Vec<Component<'_>> = Vec::new();
    for part in path.components() {
        match (part, parts.last()) {
            (Component::CurDir, _) => {}
            (Component::ParentDir, Some(Component::Normal(_))) => drop(parts.pop()),
            (Component::ParentDir, Some(Component::RootDir)) => {}
            _ => parts.push(part),
        }
    }
    parts.iter().collect::<std::path::PathBuf>().to_string_lossy().into_owned()
}

/// One test.
struct Run<'a> {
    file: &'a UnitTestFile,
    test: &'a TestGroup,
    settings: &'a Settings,
    interval: PromDuration,
    order: &'a HashMap<&'a str, usize>,
}

/// An alert as it is compared and shown.
type ShownAlert = (Labels, Labels);

impl Run<'_> {
    fn test(&self) -> Vec<String> {
        let start_ns = self.test.start_timestamp.0.unwrap_or(0);
        let step = match self.test.interval.is_zero() {
            true => self.interval,
            false => self.test.interval,
        };
        let mut inputs = match self.inputs(start_ns, step.as_ms_i64()) {
            Ok(inputs) => inputs,
            Err(error) => return vec![error],
        };
        let mut groups = match self.groups(step) {
            Ok(groups) => groups,
            Err(errors) => return errors,
        };
        if let Some(alert) = self.test.alert_rule_test.iter().find(|alert| alert.alertname.is_empty()) {
            let of = match self.test.name.as_str() {
                "" => String::new(),
                name => format!(" (in TestGroup {name})"),
            };
            let at = alert.eval_time;
            return vec![format!(
                "an item under alert_rule_test misses required attribute alertname at eval_time {at}{of}"
            )];
        }
        let bench = Bench::new(self.settings.options, self.settings.delayed_name_removal, self.interval.as_ms_i64());
        let mut by_time: BTreeMap<i64, Vec<&AlertTest>> = BTreeMap::new();
        for alert in &self.test.alert_rule_test {
            by_time.entry(alert.eval_time.as_ms_i64()).or_default().push(alert);
        }
        let mut due = by_time.into_iter().peekable();
        let around = self.surroundings();
        let mut errors = Vec::new();
        let (interval_ms, longest_ms) = (self.interval.as_ms_i64().max(1), self.longest_ms());
        let mut since_ms = 0;
        while since_ms <= longest_ms {
            let at_ns = start_ns.saturating_add(since_ms.saturating_mul(1_000_000));
            match bench.load(&mut inputs, at_ns.div_euclid(1_000_000)) {
                Err(error) => errors.push(error),
                Ok(()) => {
                    let failed = bench.evaluate(&mut groups, at_ns, &around);
                    if !failed.is_empty() {
                        errors.extend(failed);
                        return errors;
                    }
                }
            }
            while let Some((_, tests)) = due.next_if(|(at, _)| *at < since_ms.saturating_add(interval_ms)) {
                errors.extend(tests.iter().filter_map(|test| self.check_alerts(test, &groups)));
            }
            since_ms = since_ms.saturating_add(interval_ms);
        }
        for test in &self.test.promql_expr_test {
            errors.extend(self.check_expr(test, &bench, start_ns));
        }
        errors
    }

    fn longest_ms(&self) -> i64 {
        let alerts = self.test.alert_rule_test.iter().map(|alert| alert.eval_time);
        let times = alerts.chain(self.test.promql_expr_test.iter().map(|expr| expr.eval_time));
        times.map(PromDuration::as_ms_i64).max().unwrap_or(0)
    }

    fn inputs(&self, start_ns: i64, step_ms: i64) -> Result<Vec<Input>, String> {
        let mut inputs: Vec<(Labels, Vec<(i64, SequenceValue)>)> = Vec::new();
        for (number, input) in self.test.input_series.iter().enumerate() {
            let text = format!("{} {}", input.series, input.values);
            // Prometheus makes a script of the series, which begins with another line.
            let parsed = parse_series_desc(text.trim()).map_err(|error| {
                let error = error.to_string();
                let (line, rest) = error.split_once(':').unwrap_or(("1", &error));
                format!("{}:{rest}", line.parse::<usize>().unwrap_or(1) + number + 1)
            })?;
            let at = |place: usize| i64::try_from(place).unwrap_or(i64::MAX).saturating_mul(step_ms);
            let start_ms = start_ns.div_euclid(1_000_000);
            let samples = parsed.values.into_iter().enumerate();
            let samples: Vec<_> = samples
                .filter(|(_, value)| *value != SequenceValue::Omitted)
                .map(|(place, value)| (start_ms.saturating_add(at(place)), value))
                .collect();
            // Of a series that is given twice the last counts, as in Prometheus.
            match inputs.iter_mut().find(|(labels, _)| *labels == parsed.labels) {
                Some((_, old)) => *old = samples,
                None => inputs.push((parsed.labels, samples)),
            }
        }
        Ok(inputs
            .into_iter()
            .map(|(labels, samples)| Input { labels, samples: samples.into_iter().peekable() })
            .collect())
    }

    fn groups(&self, interval: PromDuration) -> Result<Vec<Group>, Vec<String>> {
        let options = self.settings.options;
        let expr = |text: &str| parse_expr(text, &options).map(drop).map_err(|error| error.to_string());
        let template = |name: &str, text: &str| template::check(name, text).map_err(|error| error.to_string());
        let ignore_unknown_fields = self.settings.ignore_unknown_fields;
        let checks = RuleChecks { expr: &expr, template: &template, ignore_unknown_fields };
        let defaults = GroupDefaults { interval, query_offset: PromDuration::ZERO, parser: options };
        let mut groups: BTreeMap<String, GroupSpec> = BTreeMap::new();
        for path in &self.file.rule_files {
            let content =
                fs::read(path).map_err(|error| vec![format!("{path}: open {path}: {}", go_reason(&error))])?;
            let parsed = rules::parse(path, &content, ValidationScheme::Utf8, &checks)
                .map_err(|errors| errors.iter().map(RuleFileError::to_string).collect::<Vec<_>>())?;
            for group in &parsed.groups {
                let spec = GroupSpec::new(path, group, &defaults);
                groups.insert(spec.key(), spec);
            }
        }
        let mut groups: Vec<Group> = groups
            .into_values()
            .map(|spec| Group { states: spec.rules.iter().map(|_| RuleState::new(true)).collect(), spec })
            .collect();
        groups.sort_by_key(|group| self.order.get(group.spec.name.as_str()).copied().unwrap_or(0));
        Ok(groups)
    }

    fn surroundings(&self) -> Surroundings {
        let url = self.test.external_url.as_str();
        let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
        let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let external_url = ExternalUrl { scheme: scheme.to_owned(), host: host.to_owned(), path: path.to_owned() };
        Surroundings { external_url, external_labels: self.test.external_labels.labels(), resend_delay: 0 }
    }

    /// What is wrong with the alerts that fire.
    fn check_alerts(&self, test: &AlertTest, groups: &[Group]) -> Option<String> {
        let mut got: Vec<ShownAlert> = Vec::new();
        for group in groups {
            for (rule, state) in group.spec.rules.iter().zip(&group.states) {
                if rule.alerting().is_none() || rule.name != test.alertname {
                    continue;
                }
                let firing = state
                    .alerts
                    .iter()
                    .filter(|(_, alert)| alert.state == AlertState::Firing && alert.resolved_at.is_none());
                got.extend(firing.map(|(labels, alert)| (labels.clone(), alert.annotations.clone())));
            }
        }
        let expected = |alert: &unit_test::ExpectedAlert| {
            let mut labels = alert.exp_labels.clone();
            labels.insert("alertname".to_owned(), test.alertname.clone());
            let of_map = |map: &BTreeMap<String, String>| {
                Labels::from_sorted(map.iter().map(|(name, value)| (name.as_str(), value.as_str())))
            };
            (of_map(&labels), of_map(&alert.exp_annotations))
        };
        let mut expected: Vec<ShownAlert> = test.exp_alerts.iter().map(expected).collect();
        got.sort();
        expected.sort();
        if got == expected {
            return None;
        }
        let name = match self.test.name.as_str() {
            "" => String::new(),
            name => format!("    name: {name},\n"),
        };
        let shown = |alerts: &[ShownAlert]| indented(&show_alerts(alerts), "            ");
        Some(format!(
            "{name}    alertname: {}, time: {}, \n        exp:{}, \n        got:{}",
            test.alertname,
            test.eval_time,
            shown(&expected),
            shown(&got)
        ))
    }

    /// What is wrong with the result of an expression.
    fn check_expr(&self, test: &ExprTest, bench: &Bench, start_ns: i64) -> Option<String> {
        let failed = |error: String| {
            Some(format!("    expr: {}, time: {}, err: {error}", go::quote(&test.expr), test.eval_time))
        };
        let at_ms = start_ns.div_euclid(1_000_000).saturating_add(test.eval_time.as_ms_i64());
        let mut got = match bench.vector(&test.expr, TimestampMs(at_ms)) {
            Ok(got) => got,
            Err(error) => return failed(error),
        };
        let mut expected = Vec::new();
        for sample in &test.exp_samples {
            match expected_sample(sample) {
                Ok(sample) => expected.push(sample),
                Err(error) => return failed(format!("labels {}: {error}", go::quote(&sample.labels))),
            }
        }
        got.sort_by(|a, b| a.labels.cmp(&b.labels));
        expected.sort_by(|a, b| a.labels.cmp(&b.labels));
        let same = |(a, b): (&Element, &Element)| a.equals(b, self.file.fuzzy_compare);
        if got.len() == expected.len() && expected.iter().zip(&got).all(same) {
            return None;
        }
        Some(format!(
            "    expr: {}, time: {},\n        exp: {}\n        got: {}",
            go::quote(&test.expr),
            test.eval_time,
            show_elements(&expected),
            show_elements(&got)
        ))
    }
}

fn expected_sample(sample: &unit_test::ExpectedSample) -> Result<Element, String> {
    let labels = parse_metric(&sample.labels).map_err(|error| error.to_string())?;
    if sample.histogram.is_empty() {
        return Ok(Element { labels, value: sample.value, histogram: String::new() });
    }
    let parsed = parse_series_desc(&format!("{{}} {}", sample.histogram)).map_err(|error| error.to_string())?;
    match parsed.values.as_slice() {
        [SequenceValue::Histogram { histogram, .. }] => {
            Ok(Element { labels, value: sample.value, histogram: histogram.test_expression() })
        }
        [SequenceValue::Float(value)] => Err(format!("expected histogram, got {}", go::format_float_g(*value))),
        [SequenceValue::Omitted] => Err("expected histogram, got _".to_owned()),
        values => Err(format!("expected 1 value, got {}", values.len())),
    }
}

impl Element {
    fn equals(&self, other: &Self, fuzzy: bool) -> bool {
        let (a, b) = (self.value, other.value);
        let near = fuzzy && (a.next_up() == b || a.next_down() == b);
        self.labels == other.labels && self.histogram == other.histogram && (a == b || near)
    }
}

fn show_elements(elements: &[Element]) -> String {
    if elements.is_empty() {
        return "nil".to_owned();
    }
    let shown = |element: &Element| match element.histogram.as_str() {
        "" => format!("{} {}", element.labels, go::format_float_e(element.value).replace('e', "E")),
        histogram => format!("{} {histogram}", element.labels),
    };
    elements.iter().map(shown).collect::<Vec<_>>().join(", ")
}

fn show_alerts(alerts: &[ShownAlert]) -> String {
    if alerts.is_empty() {
        return "[]".to_owned();
    }
    let shown = |(number, (labels, annotations)): (usize, &ShownAlert)| {
        let text = format!("\nLabels:{labels}\nAnnotations:{annotations}");
        format!("\n{number}:{}", indented(&text, "  "))
    };
    format!("[{}\n]", alerts.iter().enumerate().map(shown).collect::<Vec<_>>().join(","))
}

/// All lines but the first behind `indent`.
fn indented(text: &str, indent: &str) -> String {
    text.replace('\n', &format!("\n{indent}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alerts_are_shown_as_in_prometheus() {
        let labels = Labels::from_pairs([("a", "1")]);
        assert_eq!(show_alerts(&[]), "[]");
        assert_eq!(
            show_alerts(&[(labels.clone(), Labels::empty()), (labels.clone(), labels)]),
            "[\n0:\n  Labels:{a=\"1\"}\n  Annotations:{},\n1:\n  Labels:{a=\"1\"}\n  Annotations:{a=\"1\"}\n]"
        );
    }

    #[test]
    fn paths_are_cleaned() {
        for (path, expected) in [("a/./b", "a/b"), ("a/../b", "b"), ("../b", "../b"), ("/../b", "/b")] {
            assert_eq!(cleaned(Path::new(path)), expected);
        }
    }
}
