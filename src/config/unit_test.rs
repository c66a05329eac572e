//! Files of unit tests for rules, as `promtool test rules` reads them.

use std::collections::BTreeMap;

use super::global::ExternalLabels;
use super::yaml::block::block;
use super::yaml::{self, Abort, Decoded, Decoder, Node, Out, Yaml, YamlError, text_of};
use crate::model::duration::PromDuration;
use crate::model::go;
use crate::model::go_number;
use crate::model::go_time;

block! {
    /// A whole file.
    pub struct UnitTestFile("main.unitTestFile") {
        /// Patterns of rule files.
        pub rule_files: Vec<String> = "rule_files", always;
        /// Time between evaluations; zero for a minute.
        pub evaluation_interval: PromDuration = "evaluation_interval", omitempty;
        /// Groups in the order in which they are evaluated.
        pub group_eval_order: Vec<String> = "group_eval_order", always;
        /// The tests.
        pub tests: Vec<TestGroup> = "tests", always;
        /// Whether floats that are neighbours count as equal.
        pub fuzzy_compare: bool = "fuzzy_compare", omitempty;
    }
}

block! {
    /// Series and what becomes of them.
    pub struct TestGroup("main.testGroup") {
        /// Distance of samples; zero for that of evaluations.
        pub interval: PromDuration = "interval", always;
        /// What is loaded.
        pub input_series: Vec<InputSeries> = "input_series", always;
        /// Alerts that are expected.
        pub alert_rule_test: Vec<AlertTest> = "alert_rule_test", omitempty;
        /// Results that are expected.
        pub promql_expr_test: Vec<ExprTest> = "promql_expr_test", omitempty;
        /// External labels for templates.
        pub external_labels: ExternalLabels = "external_labels", omitempty;
        /// External URL for templates.
        pub external_url: String = "external_url", omitempty;
        /// What the test is called.
        pub name: String = "name", omitempty;
        /// When it begins.
        pub start_timestamp: StartTime = "start_timestamp", omitempty;
    }
}

block! {
    /// A series to load.
    pub struct InputSeries("main.series") {
        /// Name and labels.
        pub series: String = "series", always;
        /// Values in the notation of test scripts.
        pub values: String = "values", always;
    }
}

block! {
    /// Alerts that are expected at some time.
    pub struct AlertTest("main.alertTestCase") {
        /// When.
        pub eval_time: PromDuration = "eval_time", always;
        /// Of which rules.
        pub alertname: String = "alertname", always;
        /// Which alerts fire.
        pub exp_alerts: Vec<ExpectedAlert> = "exp_alerts", always;
    }
}

block! {
    /// An alert that is expected.
    pub struct ExpectedAlert("main.alert") {
        /// Its labels without its name.
        pub exp_labels: BTreeMap<String, String> = "exp_labels", always;
        /// Its annotations.
        pub exp_annotations: BTreeMap<String, String> = "exp_annotations", always;
    }
}

block! {
    /// A result that is expected at some time.
    pub struct ExprTest("main.promqlTestCase") {
        /// The expression.
        pub expr: String = "expr", always;
        /// When.
        pub eval_time: PromDuration = "eval_time", always;
        /// The elements of its result.
        pub exp_samples: Vec<ExpectedSample> = "exp_samples", always;
    }
}

block! {
    /// An element that is expected.
    pub struct ExpectedSample("main.sample") {
        /// Its labels.
        pub labels: String = "labels", always;
        /// Its value, unless it is a histogram.
        pub value: f64 = "value", always;
        /// Its histogram in the notation of test scripts; empty for a float.
        pub histogram: String = "histogram", always;
    }
}

/// A time in nanoseconds since the epoch, written as RFC 3339 or in seconds; `None` if none is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StartTime(pub Option<i64>);

impl Yaml for StartTime {
    fn go_type() -> String {
        "main.testStartTimestamp".to_owned()
    }
    fn decode(&mut self, node: &Node, decoder: &mut Decoder) -> Decoded {
        let Some(text) = text_of(node, decoder, "string")? else { return Ok(false) };
        let seconds = go_number::parse_float(text).ok().map(|seconds| {
            let nanos = (seconds.fract() * 1e9) as i64;
            (seconds.trunc() as i64).saturating_mul(1_000_000_000).saturating_add(nanos)
        });
        let written = || {
            go_time::parse_rfc3339(text)
                .map(|(seconds, nanos)| seconds.saturating_mul(1_000_000_000).saturating_add(i64::from(nanos)))
        };
        let Some(nanos) = seconds.or_else(written) else {
            return Err(Abort::at(node, format!("cannot parse {} to a valid timestamp", go::quote(text))));
        };
        self.0 = Some(nanos);
        Ok(true)
    }
    fn encode(&self) -> Out {
        Out::Text(self.0.map(go_time::format_rfc3339_nano).unwrap_or_default())
    }
    fn is_zero(&self) -> bool {
        self.0.is_none()
    }
}

/// Reads a file; unknown fields are errors.
pub fn parse(content: &[u8]) -> Result<UnitTestFile, YamlError> {
    let text = std::str::from_utf8(content).map_err(|_| YamlError::Syntax("invalid leading UTF-8 octet".to_owned()))?;
    let mut file = UnitTestFile::default();
    yaml::read(text, &mut file)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_and_unknown_fields_are_named() {
        let text = "rule_files: [a.yml]\nevaluation_interval: 1m\ntests:\n- interval: 30s\n  start_timestamp: 2020-01-01T00:00:00Z\n  \
                    input_series:\n  - {series: up, values: 0x3}\n  promql_expr_test:\n  - expr: up\n    eval_time: 1m\n    \
                    exp_samples: [{labels: up, value: 1}]\n";
        let file = parse(text.as_bytes()).unwrap();
        let test = &file.tests[0];
        assert_eq!(
            (test.interval, test.start_timestamp.0),
            (PromDuration::from_secs(30), Some(1_577_836_800_000_000_000))
        );
        assert_eq!(test.promql_expr_test[0].exp_samples[0].value, 1.0);
        let error = parse(b"tests: [{what: 1}]\n").unwrap_err().to_string();
        assert!(error.contains("field what not found in type main.testGroup"), "{error}");
        assert!(
            parse(b"tests: [{start_timestamp: soon}]\n").unwrap_err().to_string().contains("cannot parse \"soon\"")
        );
    }
}
