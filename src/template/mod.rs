//! Templates of alerts and notifications: Go's `text/template` with Prometheus's and with Alertmanager's functions.
//!
//! A text becomes tokens (`lexer`), these become trees (`parse`, `ast`), which are executed (`exec`, `call`) over values
//! (`value`). Nothing here fails on hostile templates: nesting, work and output are bounded, each with an error of its own.
//! Texts are UTF-8: where Go would keep other bytes, they become U+FFFD.

#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

mod ast;
mod builtins;
mod call;
mod encoding;
mod exec;
mod float_verbs;
mod format;
mod functions;
mod humanize;
mod json;
mod layout;
mod lexer;
mod literal;
mod methods;
pub mod notification;
mod parse;
mod print;
mod regexps;
mod time;
mod tokens;
mod value;
mod words;

pub use self::exec::MissingKey;
pub use self::time::Time;
pub use self::value::{List, ListKind, Map, MapKind, Struct, Value};

use self::exec::{TreeSet, execute};
use self::functions::PrometheusFunctions;
use self::regexps::Regexps;
use crate::model::external_url::ExternalUrl;
use crate::model::labels::Labels;
use crate::model::time::TimestampMs;

/// Longest text that a template gives, and that any value in it may be.
pub const OUTPUT_LEN_MAX: usize = 1 << 20;
/// Most steps of one expansion: nodes and calls, and 64 bytes of text each that functions work on.
pub const STEPS_MAX: usize = 2_000_000;

/// What precedes the text of each alert's template.
const ALERT_DEFINITIONS: &str = "{{$labels := .Labels}}{{$externalLabels := .ExternalLabels}}\
    {{$externalURL := .ExternalURL}}{{$value := .Value}}";
/// The type of an alert's data, as errors name it.
const ALERT_DATA: &str = "struct { Labels map[string]string; ExternalLabels map[string]string; ExternalURL string; \
    Value interface {} }";

/// Why a template was not expanded. The text is Prometheus's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TemplateError(pub String);

/// One element of what a template's `query` function gets.
#[derive(Clone, Debug, PartialEq)]
pub struct QueriedSample {
    /// Its labels, the metric's name among them.
    pub labels: Labels,
    /// Its value.
    pub value: f64,
}

/// What a template may ask of its surroundings.
#[derive(Clone, Copy)]
pub struct Environment<'a> {
    /// Where users find us.
    pub external_url: &'a ExternalUrl,
    /// The time that `now` gives and at which queries are evaluated.
    pub at: TimestampMs,
    /// Evaluates an instant query at `at`; the error is the engine's text.
    pub query: &'a dyn Fn(&str) -> Result<Vec<QueriedSample>, String>,
}

/// What a template of an alerting rule is about: `.Labels`, `.ExternalLabels`, `.ExternalURL` and `.Value`, also as
/// `$labels`, `$externalLabels`, `$externalURL` and `$value`.
#[derive(Clone, Copy, Debug)]
pub struct AlertData<'a> {
    /// Labels of the element that the expression gave.
    pub labels: &'a Labels,
    /// Labels of this server.
    pub external_labels: &'a Labels,
    /// Value of the element.
    pub value: f64,
}

/// Parses a template to find mistakes (`ParseTest`): `text` as a rule file's checks give it.
pub fn check(name: &str, text: &str) -> Result<(), TemplateError> {
    parse::parse(name, text, &is_function).map(|_| ()).map_err(TemplateError)
}

/// Expands the template of an alerting rule, `text` as written.
pub fn expand_alert(
    name: &str,
    text: &str,
    data: &AlertData<'_>,
    environment: &Environment<'_>,
) -> Result<String, TemplateError> {
    expand_alert_value(name, text, data, Value::Float(data.value), environment)
}

/// Expands the template of an alerting rule whose element has a value that is no float, such as a histogram;
/// `data.value` does not count.
pub fn expand_alert_value(
    name: &str,
    text: &str,
    data: &AlertData<'_>,
    value: Value,
    environment: &Environment<'_>,
) -> Result<String, TemplateError> {
    // Most labels and annotations are plain texts.
    if !text.contains("{{") && text.len() <= OUTPUT_LEN_MAX {
        return Ok(text.to_owned());
    }
    let fields = vec![
        ("Labels", Value::labels(MapKind::Strings, data.labels)),
        ("ExternalLabels", Value::labels(MapKind::Strings, data.external_labels)),
        ("ExternalURL", Value::text(environment.external_url.to_string())),
        ("Value", value),
    ];
    let query = |expr: &str| {
        let samples = (environment.query)(expr)?;
        Ok(samples.iter().map(|sample| Value::sample(&sample.labels, Value::Float(sample.value))).collect())
    };
    let text = format!("{ALERT_DEFINITIONS}{text}");
    let surroundings = Surroundings { external_url: environment.external_url, at: environment.at, query: &query };
    expand(name, &text, &Value::record(ALERT_DATA, fields), MissingKey::Zero, &surroundings)
}

/// What a template over arbitrary data may ask of its surroundings.
#[derive(Clone, Copy)]
pub struct Surroundings<'a> {
    /// Where users find us.
    pub external_url: &'a ExternalUrl,
    /// The time that `now` gives and at which queries are evaluated.
    pub at: TimestampMs,
    /// Evaluates an instant query at `at` into values made by [`Value::sample`]; the error is the engine's text.
    pub query: &'a dyn Fn(&str) -> Result<Vec<Value>, String>,
}

/// Expands a template with Prometheus's functions over any data, without the definitions of alerts.
pub fn expand(
    name: &str,
    text: &str,
    data: &Value,
    missing_key: MissingKey,
    surroundings: &Surroundings<'_>,
) -> Result<String, TemplateError> {
    let functions = PrometheusFunctions {
        external_url: surroundings.external_url,
        at: surroundings.at,
        query: surroundings.query,
        regexps: Regexps::default(),
    };
    let parsed = parse::parse(name, text, &is_function)
        .map_err(|error| TemplateError(format!("error parsing template {name}: {error}")))?;
    let mut trees = TreeSet::default();
    trees.add(parsed);
    // The parser gives a tree for the text itself, however empty.
    let Some(tree) = trees.get(name) else { return Ok(String::new()) };
    execute(tree, &trees, &functions, missing_key, data)
        .map_err(|error| TemplateError(format!("error executing template {name}: {error}")))
}

fn is_function(name: &str) -> bool {
    functions::signature(name).is_some() || builtins::signature(name).is_some()
}
