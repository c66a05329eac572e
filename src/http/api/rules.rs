//! `/api/v1/rules` and `/api/v1/alerts`.

use std::fmt::Write as _;

use sha2::{Digest, Sha256};

use crate::http::api::matchers_plain;
use crate::http::api::types::{Alert, Alerting, Rule, RuleGroup};
use crate::http::envelope;
use crate::http::error::ApiError;
use crate::http::json::{Json, Object};
use crate::http::params::Params;
use crate::http::request::Context;
use crate::http::response::Response;
use crate::model::go;
use crate::model::go_number;
use crate::model::matcher::Matcher;

/// `GET /api/v1/rules`.
pub(crate) async fn rules(context: Context) -> Result<Response, ApiError> {
    let filter = Filter::read(&context)?;
    let page = Page::read(&context.params)?;
    let mut groups = context.state.ports.rule_groups().await?;
    sort(&mut groups);
    let (groups, next_token) = page.cut(groups, &filter)?;
    Ok(envelope::data(|json| {
        let mut object = json.object();
        let mut array = object.key("groups").array();
        groups.iter().for_each(|group| write_group(array.item(), group, filter.exclude_alerts));
        array.end();
        object.string_if_any("groupNextToken", &next_token);
        object.end();
    }))
}

/// `GET /api/v1/alerts`.
pub(crate) async fn alerts(context: Context) -> Result<Response, ApiError> {
    let mut groups = context.state.ports.rule_groups().await?;
    sort(&mut groups);
    let rules = groups.iter().flat_map(|group| &group.rules);
    let alerts = rules.filter_map(|rule| rule.alerting.as_ref()).flat_map(|alerting| &alerting.alerts);
    Ok(envelope::data(|json| {
        let mut object = json.object();
        let mut array = object.key("alerts").array();
        alerts.for_each(|alert| write_alert(array.item(), alert));
        array.end();
        object.end();
    }))
}

/// Sorts by file, then by name.
pub(crate) fn sort(groups: &mut [RuleGroup]) {
    groups.sort_by(|a, b| (&a.file, &a.name).cmp(&(&b.file, &b.name)));
}

struct Filter {
    names: Vec<String>,
    groups: Vec<String>,
    files: Vec<String>,
    selectors: Vec<Vec<Matcher>>,
    alerting: bool,
    recording: bool,
    exclude_alerts: bool,
}

impl Filter {
    fn read(context: &Context) -> Result<Self, ApiError> {
        let all = |name: &str| context.params.all(name).map(str::to_owned).collect();
        let selectors = matchers_plain(context)?;
        let kind = context.params.get_query("type").to_lowercase();
        if !matches!(kind.as_str(), "" | "alert" | "record") {
            return Err(ApiError::invalid_parameter("type", format!("not supported value {}", go::quote(&kind))));
        }
        let exclude_alerts = match context.params.get_query("exclude_alerts").to_lowercase().as_str() {
            "" => false,
            text => go_number::parse_bool(text).map_err(|error| {
                ApiError::invalid_parameter("exclude_alerts", format!("error converting exclude_alerts: {error}"))
            })?,
        };
        Ok(Self {
            names: all("rule_name[]"),
            groups: all("rule_group[]"),
            files: all("file[]"),
            selectors,
            alerting: kind != "record",
            recording: kind != "alert",
            exclude_alerts,
        })
    }

    /// The group with the rules that are wanted; `None` if none is.
    fn apply(&self, mut group: RuleGroup) -> Option<RuleGroup> {
        let wanted = |names: &[String], name: &String| names.is_empty() || names.contains(name);
        if !wanted(&self.groups, &group.name) || !wanted(&self.files, &group.file) {
            return None;
        }
        group.rules.retain(|rule| {
            let selected = self.selectors.is_empty()
                || self.selectors.iter().any(|all| all.iter().all(|matcher| matcher.matches_labels(&rule.labels)));
            let kind = if rule.alerting.is_some() { self.alerting } else { self.recording };
            selected && kind && wanted(&self.names, &rule.name)
        });
        (!group.rules.is_empty()).then_some(group)
    }
}

/// Which part of the groups is wanted.
struct Page {
    limit: Option<usize>,
    token: String,
}

impl Page {
    fn read(params: &Params) -> Result<Self, ApiError> {
        let (limit, token) = (params.get_query("group_limit"), params.get_query("group_next_token"));
        if limit.is_empty() {
            return if token.is_empty() {
                Ok(Self { limit: None, token: String::new() })
            } else {
                let text = "group_limit needs to be present in order to paginate over the groups";
                Err(ApiError::invalid_parameter("group_next_token", text))
            };
        }
        let invalid = |text: String| ApiError::invalid_parameter("group_limit", text);
        let limit = go_number::parse_int_32(limit)
            .map_err(|error| invalid(format!("group_limit needs to be a valid number: {error}")))?;
        match usize::try_from(limit) {
            Ok(limit) if 0 < limit => Ok(Self { limit: Some(limit), token: token.to_owned() }),
            _ => Err(invalid("group_limit needs to be greater than 0".to_owned())),
        }
    }

    /// The groups of this page, filtered, and the token of the next page, empty if this is the last.
    fn cut(&self, groups: Vec<RuleGroup>, filter: &Filter) -> Result<(Vec<RuleGroup>, String), ApiError> {
        let Some(limit) = self.limit else {
            return Ok((groups.into_iter().filter_map(|group| filter.apply(group)).collect(), String::new()));
        };
        let mut begun = self.token.is_empty();
        let mut page = Vec::new();
        for group in groups {
            begun = begun || token(&group) == self.token;
            let Some(group) = Some(group).filter(|_| begun).and_then(|group| filter.apply(group)) else { continue };
            if page.len() == limit {
                return Ok((page, token(&group)));
            }
            page.push(group);
        }
        if !begun {
            let text = format!("invalid group_next_token '{}'. were rule groups changed?", self.token);
            return Err(ApiError::invalid_parameter("group_next_token", text));
        }
        Ok((page, String::new()))
    }
}

fn token(group: &RuleGroup) -> String {
    let digest = Sha256::digest(format!("{};{}", group.file, group.name));
    let mut out = String::with_capacity(64);
    for byte in digest {
        let _ = write!(out, "{byte:02x}");
    }
    out
}

fn write_group(json: &mut Json, group: &RuleGroup, exclude_alerts: bool) {
    let mut object = json.object();
    object.string("name", &group.name).string("file", &group.file);
    let mut array = object.key("rules").array();
    group.rules.iter().for_each(|rule| write_rule(array.item(), rule, exclude_alerts));
    array.end();
    object
        .number("interval", group.interval)
        .integer("limit", group.limit)
        .number("evaluationTime", group.evaluation_time)
        .time("lastEvaluation", group.last_evaluation);
    object.end();
}

fn write_rule(json: &mut Json, rule: &Rule, exclude_alerts: bool) {
    let mut object = json.object();
    if let Some(alerting) = &rule.alerting {
        object.string("state", alerting.state.as_str());
    }
    object.string("name", &rule.name).string("query", &rule.query);
    if let Some(alerting) = &rule.alerting {
        object.number("duration", alerting.hold).number("keepFiringFor", alerting.keep_firing_for);
    }
    object.labels("labels", &rule.labels);
    if let Some(alerting) = &rule.alerting {
        write_alerting(&mut object, alerting, exclude_alerts);
    }
    object
        .string("health", rule.health.as_str())
        .string_if_any("lastError", &rule.last_error)
        .number("evaluationTime", rule.evaluation_time)
        .time("lastEvaluation", rule.last_evaluation)
        .string("type", if rule.alerting.is_some() { "alerting" } else { "recording" });
    object.end();
}

fn write_alerting(object: &mut Object<'_>, alerting: &Alerting, exclude_alerts: bool) {
    object.labels("annotations", &alerting.annotations);
    let json = object.key("alerts");
    if exclude_alerts {
        return json.raw("null");
    }
    let mut array = json.array();
    alerting.alerts.iter().for_each(|alert| write_alert(array.item(), alert));
    array.end();
}

fn write_alert(json: &mut Json, alert: &Alert) {
    let mut object = json.object();
    object
        .labels("labels", &alert.labels)
        .labels("annotations", &alert.annotations)
        .string("state", alert.state.as_str())
        .time("activeAt", alert.active_at);
    if alert.keep_firing_since.is_some() {
        object.time("keepFiringSince", alert.keep_firing_since);
    }
    object.string("value", &go::format_float_e(alert.value));
    object.end();
}
