//! Rule files: groups of recording and alerting rules, strict, with Prometheus's checks and error texts.
//! Behaviour is that of `model/rulefmt`. Expressions and templates are checked through functions that the caller gives,
//! as neither language is known here.

#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

use std::collections::BTreeMap;

use super::names::ValidationScheme;
use super::yaml::block::block;
use super::yaml::{self, Decoded, Decoder, Dialect, Node, Out, Yaml, YamlError};
use crate::model::duration::PromDuration;
use crate::model::go;

/// What Prometheus puts before each template of a rule, and so do the checks.
pub const TEMPLATE_DEFINITIONS: &str = "{{$labels := .Labels}}{{$externalLabels := .ExternalLabels}}\
    {{$externalURL := .ExternalURL}}{{$value := .Value}}";

/// How expressions and templates are checked.
#[derive(Clone, Copy)]
pub struct RuleChecks<'a> {
    /// Parses an expression; the error is the parser's text.
    pub expr: &'a dyn Fn(&str) -> Result<(), String>,
    /// Parses a template, given its name (`__alert_…`) and its text behind [`TEMPLATE_DEFINITIONS`].
    pub template: &'a dyn Fn(&str, &str) -> Result<(), String>,
    /// Takes unknown fields (`--rules.ignore-unknown-fields` of promtool).
    pub ignore_unknown_fields: bool,
}

/// A rule file.
#[derive(Clone, Debug, PartialEq)]
pub struct RuleFile {
    /// Its name.
    pub path: String,
    /// Its groups.
    pub groups: Vec<RuleGroup>,
    /// True if the file has further documents, which do not count; worth a warning.
    pub more_documents: bool,
}

/// Rules that are evaluated one after the other. Groups are equal if evaluating them is the same.
#[derive(Clone, Debug, PartialEq)]
pub struct RuleGroup {
    /// Name, unique in its file.
    pub name: String,
    /// Time between evaluations; the global one if zero.
    pub interval: PromDuration,
    /// How far back the rules look; the global one if not set.
    pub query_offset: Option<PromDuration>,
    /// Most series or alerts per rule; 0 for no limit.
    pub limit: i64,
    /// Labels for each rule, which a rule's own override.
    pub labels: BTreeMap<String, String>,
    /// The rules, in order.
    pub rules: Vec<Rule>,
}

/// A rule.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// What comes of it.
    pub kind: RuleKind,
    /// The PromQL expression.
    pub expr: String,
    /// Labels that are added, for alerts with templates.
    pub labels: BTreeMap<String, String>,
}

/// What comes of a rule.
#[derive(Clone, Debug, PartialEq)]
pub enum RuleKind {
    /// Series with this name.
    Record(String),
    /// Alerts.
    Alert {
        /// Name of the alerts.
        name: String,
        /// How long the condition has to hold.
        hold: PromDuration,
        /// How long an alert goes on after it.
        keep_firing_for: PromDuration,
        /// Annotations, with templates.
        annotations: BTreeMap<String, String>,
    },
}

impl Rule {
    /// Name of the series or of the alerts.
    pub fn name(&self) -> &str {
        match &self.kind {
            RuleKind::Record(name) | RuleKind::Alert { name, .. } => name,
        }
    }
}

/// Something wrong in a rule file, with Prometheus's text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// Not YAML, or not of the right shape.
    #[error("{0}")]
    Yaml(#[from] YamlError),
    /// Something about a group.
    #[error("{0}")]
    Group(String),
    /// Something about a rule. Places are lines and columns; 0 stands for what is not there.
    #[error("{}group {}, rule {rule}, {}: {message}", shown_places(.places), go::quote(group), go::quote(name))]
    Rule {
        /// Where; one or two places, or none.
        places: Vec<(usize, usize)>,
        /// Name of the group.
        group: String,
        /// Number of the rule in the group, from 1.
        rule: usize,
        /// Name of the rule.
        name: String,
        /// What is wrong.
        message: String,
    },
}

fn shown_places(places: &[(usize, usize)]) -> String {
    places.iter().map(|(line, column)| format!("{line}:{column}: ")).collect()
}

/// An error with the name of its file before it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {error}")]
pub struct RuleFileError {
    /// The file.
    pub path: String,
    /// What is wrong with it.
    pub error: RuleError,
}

/// Parses and checks a rule file. All errors are collected.
pub fn parse(
    path: &str,
    content: &[u8],
    scheme: ValidationScheme,
    checks: &RuleChecks<'_>,
) -> Result<RuleFile, Vec<RuleFileError>> {
    let named = |errors: Vec<RuleError>| -> Vec<RuleFileError> {
        errors.into_iter().map(|error| RuleFileError { path: path.to_owned(), error }).collect()
    };
    let (file, more_documents) = read(content, checks.ignore_unknown_fields).map_err(named)?;
    let errors = validate(&file, scheme, checks);
    if !errors.is_empty() {
        return Err(named(errors));
    }
    let groups = file.groups.into_iter().map(GroupBlock::finish).collect();
    Ok(RuleFile { path: path.to_owned(), groups, more_documents })
}

block! {
    struct FileBlock("rulefmt.RuleGroups") {
        groups: Vec<GroupBlock> = "groups", always;
    }
}

block! {
    struct GroupBlock("rulefmt.RuleGroup") {
        name: String = "name", always;
        interval: PromDuration = "interval", omitempty;
        query_offset: Option<PromDuration> = "query_offset", omitempty;
        limit: i64 = "limit", omitempty;
        rules: Vec<RuleBlock> = "rules", always;
        labels: BTreeMap<String, String> = "labels", omitempty;
    }
}

block! {
    struct RuleBlock("rulefmt.Rule") {
        record: Placed = "record", omitempty;
        alert: Placed = "alert", omitempty;
        expr: Placed = "expr", always;
        hold: PromDuration = "for", omitempty;
        keep_firing_for: PromDuration = "keep_firing_for", omitempty;
        labels: BTreeMap<String, String> = "labels", omitempty;
        annotations: BTreeMap<String, String> = "annotations", omitempty;
    }
}

// The shape that Prometheus reads for the places; it differs by the names in error texts, and by taking anything for the
// fields whose places are looked for.
block! {
    struct PlacesBlock("rulefmt.ruleGroups") {
        groups: Vec<GroupPlaces> = "groups", always;
    }
}

block! {
    struct GroupPlaces("rulefmt.RuleGroupNode") {
        name: String = "name", always;
        interval: PromDuration = "interval", omitempty;
        query_offset: Option<PromDuration> = "query_offset", omitempty;
        limit: i64 = "limit", omitempty;
        rules: Vec<RulePlaces> = "rules", always;
        labels: BTreeMap<String, String> = "labels", omitempty;
    }
}

block! {
    struct RulePlaces("rulefmt.RuleNode") {
        record: Anything = "record", omitempty;
        alert: Anything = "alert", omitempty;
        expr: Anything = "expr", always;
        hold: PromDuration = "for", omitempty;
        keep_firing_for: PromDuration = "keep_firing_for", omitempty;
        labels: BTreeMap<String, String> = "labels", omitempty;
        annotations: BTreeMap<String, String> = "annotations", omitempty;
    }
}

/// A value of any shape, which is not kept.
#[derive(Clone, Debug, Default, PartialEq)]
struct Anything;

impl Yaml for Anything {
    fn go_type() -> String {
        "yaml.Node".to_owned()
    }
    fn decode(&mut self, _: &Node, _: &mut Decoder) -> Decoded {
        Ok(true)
    }
    fn encode(&self) -> Out {
        Out::Null
    }
    fn is_zero(&self) -> bool {
        true
    }
}

/// A text that knows where it stands.
#[derive(Clone, Debug, Default, PartialEq)]
struct Placed {
    text: String,
    line: usize,
    column: usize,
}

impl Placed {
    fn place(&self) -> (usize, usize) {
        (self.line, self.column)
    }
}

impl Yaml for Placed {
    fn go_type() -> String {
        String::go_type()
    }
    fn decode(&mut self, node: &Node, decoder: &mut Decoder) -> Decoded {
        self.text.decode(node, decoder)
    }
    fn encode(&self) -> Out {
        self.text.encode()
    }
    fn is_zero(&self) -> bool {
        self.text.is_empty()
    }
    fn set_place(&mut self, line: usize, column: usize) {
        (self.line, self.column) = (line, column);
    }
}

/// The file as it stands, and whether there are further documents. Prometheus reads a file twice, once for its values
/// and once for its places, and reports the errors of both.
fn read(content: &[u8], ignore_unknown_fields: bool) -> Result<(FileBlock, bool), Vec<RuleError>> {
    let invalid = |_| vec![RuleError::Yaml(YamlError::Syntax("invalid leading UTF-8 octet".to_owned()))];
    let text = std::str::from_utf8(content).map_err(invalid)?;
    let (root, more) = match yaml::node::parse(text, Dialect::V3) {
        Ok(parsed) => parsed,
        Err(error) => return Err(vec![error.clone().into(), error.into()]),
    };
    let mut file = FileBlock::default();
    let Some(root) = root else { return Ok((file, more)) };
    let mut errors: Vec<RuleError> = Vec::new();
    if let Err(error) = yaml::read_node(&root, &mut file, Decoder::v3(!ignore_unknown_fields)) {
        errors.push(error.into());
        if let Err(error) = yaml::read_node(&root, &mut PlacesBlock::default(), Decoder::v3(false)) {
            errors.push(error.into());
        }
    }
    if errors.is_empty() { Ok((file, more)) } else { Err(errors) }
}

fn validate(file: &FileBlock, scheme: ValidationScheme, checks: &RuleChecks<'_>) -> Vec<RuleError> {
    let mut errors = Vec::new();
    let mut names: Vec<&str> = Vec::new();
    for group in &file.groups {
        if group.name.is_empty() {
            // Prometheus looks for the place in a part of its tree that is never filled.
            errors.push(RuleError::Group("0:0: Groupname must not be empty".to_owned()));
        }
        if names.contains(&group.name.as_str()) {
            let name = &group.name;
            errors.push(RuleError::Group(format!("0:0: groupname: \"{name}\" is repeated in the same file")));
        }
        for name in group.labels.keys() {
            if !is_rule_label(name, scheme) {
                errors.push(RuleError::Group(format!("invalid label name: {name}")));
            }
        }
        names.push(&group.name);
        for (index, rule) in group.rules.iter().enumerate() {
            let name = if rule.alert.text.is_empty() { &rule.record.text } else { &rule.alert.text };
            errors.extend(rule.faults(scheme, checks).into_iter().map(|(places, message)| RuleError::Rule {
                places,
                group: group.name.clone(),
                rule: index + 1,
                name: name.clone(),
                message,
            }));
        }
    }
    errors
}

fn is_rule_label(name: &str, scheme: ValidationScheme) -> bool {
    scheme.is_label_name(name) && name != "__name__"
}

/// Places and text of something wrong in a rule.
type Fault = (Vec<(usize, usize)>, String);

impl RuleBlock {
    fn faults(&self, scheme: ValidationScheme, checks: &RuleChecks<'_>) -> Vec<Fault> {
        let mut faults: Vec<Fault> = Vec::new();
        let both = vec![self.record.place(), self.alert.place()];
        match (self.record.text.is_empty(), self.alert.text.is_empty()) {
            (false, false) => faults.push((both, "only one of 'record' and 'alert' must be set".to_owned())),
            (true, true) => faults.push((both, "one of 'record' or 'alert' must be set".to_owned())),
            _ => {}
        }
        if self.expr.text.is_empty() {
            faults.push((vec![self.expr.place()], "field 'expr' must be set in rule".to_owned()));
        } else if let Err(error) = (checks.expr)(&self.expr.text) {
            faults.push((vec![self.expr.place()], format!("could not parse expression: {error}")));
        }
        if !self.record.text.is_empty() {
            let place = vec![self.record.place()];
            faults.extend(self.record_faults(scheme).into_iter().map(|message| (place.clone(), message)));
        }
        for name in self.labels.keys().filter(|name| !is_rule_label(name, scheme)) {
            faults.push((Vec::new(), format!("invalid label name: {name}")));
        }
        for name in self.annotations.keys().filter(|name| !scheme.is_label_name(name)) {
            faults.push((Vec::new(), format!("invalid annotation name: {name}")));
        }
        if !self.alert.text.is_empty() {
            faults.extend(self.template_faults(checks).into_iter().map(|message| (Vec::new(), message)));
        }
        faults
    }

    fn record_faults(&self, scheme: ValidationScheme) -> Vec<String> {
        let name = &self.record.text;
        let misplaced = [
            (!self.annotations.is_empty(), "annotations"),
            (!self.hold.is_zero(), "for"),
            (!self.keep_firing_for.is_zero(), "keep_firing_for"),
        ];
        let mut faults: Vec<String> = misplaced
            .iter()
            .filter(|(set, _)| *set)
            .map(|(_, field)| format!("invalid field '{field}' in recording rule"))
            .collect();
        if !scheme.is_metric_name(name) {
            faults.push(format!("invalid recording rule name: {name}"));
        }
        if name.contains(['{', '}']) {
            faults.push(format!("braces present in the recording rule name; should it be in expr?: {name}"));
        }
        faults
    }

    fn template_faults(&self, checks: &RuleChecks<'_>) -> Vec<String> {
        let template = format!("__alert_{}", self.alert.text);
        let parts = [("label", &self.labels), ("annotation", &self.annotations)];
        let mut faults = Vec::new();
        for (kind, texts) in parts {
            for (name, text) in texts {
                if let Err(error) = (checks.template)(&template, &format!("{TEMPLATE_DEFINITIONS}{text}")) {
                    faults.push(format!("{kind} {}: {error}", go::quote(name)));
                }
            }
        }
        faults
    }

    fn finish(self) -> Rule {
        let kind = if self.alert.text.is_empty() {
            RuleKind::Record(self.record.text)
        } else {
            RuleKind::Alert {
                name: self.alert.text,
                hold: self.hold,
                keep_firing_for: self.keep_firing_for,
                annotations: self.annotations,
            }
        };
        Rule { kind, expr: self.expr.text, labels: self.labels }
    }
}

impl GroupBlock {
    fn finish(self) -> RuleGroup {
        RuleGroup {
            name: self.name,
            interval: self.interval,
            query_offset: self.query_offset,
            limit: self.limit,
            labels: self.labels,
            rules: self.rules.into_iter().map(RuleBlock::finish).collect(),
        }
    }
}
