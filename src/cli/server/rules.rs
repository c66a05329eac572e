//! Rules as the server has them: how rule files are checked, what groups a configuration asks for, how the API shows them.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::actors::alert_sink::AlertSink;
use crate::actors::mailbox::BoundedAddr;
use crate::actors::policy::Policy;
use crate::actors::query_gateway::QueryGateway;
use crate::actors::rule_group::{GroupView, RuleRuntime};
use crate::actors::storage_client::StorageClient;
use crate::cli::flags::ServerFlags;
use crate::config::LoadedConfig;
use crate::config::rules::RuleChecks;
use crate::http::api::types::{self as api, UnixNanos};
use crate::model::clock::SharedClock;
use crate::model::labels::Labels;
use crate::promql::parser::{ParseOptions, parse_expr};
use crate::rules::alerting::{ActiveAlert, AlertState};
use crate::rules::evaluate::Surroundings;
use crate::rules::metrics::RuleMetrics;
use crate::rules::restore::RestoreLimits;
use crate::rules::spec::{AlertSpec, GroupDefaults, GroupSpec, RuleSpec};
use crate::rules::state::{Health, RuleState};
use crate::telemetry::metrics::Registry;
use crate::template;

/// The language of queries that the flags ask for.
pub(super) fn parse_options(flags: &ServerFlags) -> ParseOptions {
    ParseOptions {
        experimental_functions: flags.features.is_enabled("promql-experimental-functions"),
        extended_range_selectors: flags.features.is_enabled("promql-extended-range-selectors"),
        fill_modifiers: flags.features.is_enabled("promql-binop-fill-modifiers"),
        ..ParseOptions::default()
    }
}

/// Calls `load` with the checks of rule files: expressions that cannot be evaluated and templates that do not parse are
/// refused.
pub(super) fn with_checks<T>(flags: &ServerFlags, load: impl FnOnce(RuleChecks<'_>) -> T) -> T {
    let options = parse_options(flags);
    let expr = |text: &str| parse_expr(text, &options).map(drop).map_err(|error| error.to_string());
    let template = |name: &str, text: &str| template::check(name, text).map_err(|error| error.to_string());
    load(RuleChecks { expr: &expr, template: &template, ignore_unknown_fields: false })
}

/// The groups that a configuration asks for. Of a file that two patterns name, one counts.
pub(super) fn specs(flags: &ServerFlags, loaded: &LoadedConfig) -> Vec<GroupSpec> {
    let global = &loaded.config.global;
    let defaults = GroupDefaults {
        interval: global.evaluation_interval,
        query_offset: global.rule_query_offset,
        parser: parse_options(flags),
    };
    let mut specs = BTreeMap::new();
    for file in &loaded.rule_files {
        for group in &file.groups {
            let spec = GroupSpec::new(&file.path, group, &defaults);
            specs.insert(spec.key(), spec);
        }
    }
    specs.into_values().collect()
}

/// What rules know of the server.
pub(super) fn surroundings(flags: &ServerFlags, external_labels: Labels) -> Surroundings {
    Surroundings {
        external_url: flags.web.external_url.clone(),
        external_labels,
        resend_delay: flags.rules.resend_delay.as_ms_i64().saturating_mul(1_000_000),
    }
}

/// What all groups share.
pub(super) fn runtime(
    flags: &ServerFlags,
    registry: &Arc<Registry>,
    clock: &SharedClock,
    gateway: &BoundedAddr<QueryGateway>,
    storage: &StorageClient,
    sink: Arc<dyn AlertSink>,
) -> Arc<RuleRuntime> {
    let nanos = |duration: crate::model::duration::PromDuration| duration.as_ms_i64().saturating_mul(1_000_000);
    Arc::new(RuleRuntime {
        gateway: gateway.clone(),
        query_timeout: flags.query.timeout.to_std(),
        storage: storage.clone(),
        sink,
        metrics: RuleMetrics::new(registry, clock),
        clock: SharedClock::clone(clock),
        around: ArcSwap::from_pointee(surroundings(flags, Labels::empty())),
        restore: RestoreLimits {
            outage_tolerance: nanos(flags.rules.outage_tolerance),
            grace_period: nanos(flags.rules.grace_period),
        },
        policy: Policy::PERMANENT,
    })
}

/// A group as the API shows it.
pub(super) fn shown(view: &GroupView) -> api::RuleGroup {
    api::RuleGroup {
        name: view.spec.name.clone(),
        file: view.spec.file.clone(),
        interval: view.spec.interval.as_secs_f64(),
        limit: view.spec.limit,
        evaluation_time: view.took.as_secs_f64(),
        last_evaluation: view.evaluated_at.map(UnixNanos),
        rules: view.spec.rules.iter().zip(&view.rules).map(|(rule, state)| shown_rule(rule, state)).collect(),
    }
}

fn shown_rule(rule: &RuleSpec, state: &RuleState) -> api::Rule {
    api::Rule {
        name: rule.name.clone(),
        query: rule.expr.clone(),
        labels: rule.labels.clone(),
        health: match state.health {
            Health::Unknown => api::RuleHealth::Unknown,
            Health::Good => api::RuleHealth::Ok,
            Health::Bad => api::RuleHealth::Err,
        },
        last_error: state.last_error.clone(),
        evaluation_time: state.took.as_secs_f64(),
        last_evaluation: state.evaluated_at.map(UnixNanos),
        alerting: rule.alerting().map(|alert| shown_alerting(alert, state)),
    }
}

fn shown_alerting(alert: &AlertSpec, state: &RuleState) -> api::Alerting {
    let of_alert = |state: AlertState| match state {
        AlertState::Inactive => api::AlertState::Inactive,
        AlertState::Pending => api::AlertState::Pending,
        AlertState::Firing => api::AlertState::Firing,
    };
    let worst = state.alerts.values().map(|alert| alert.state).max().unwrap_or(AlertState::Inactive);
    let shown = |(labels, alert): (&Labels, &ActiveAlert)| api::Alert {
        labels: labels.clone(),
        annotations: alert.annotations.clone(),
        state: of_alert(alert.state),
        active_at: Some(UnixNanos(alert.active_at)),
        keep_firing_since: alert.keep_firing_since.map(UnixNanos),
        value: alert.value,
    };
    api::Alerting {
        state: if state.evaluated_at.is_none() { api::AlertState::Unknown } else { of_alert(worst) },
        hold: alert.hold.as_secs_f64(),
        keep_firing_for: alert.keep_firing_for.as_secs_f64(),
        annotations: alert.annotations.clone(),
        alerts: state.alerts.iter().filter(|(_, alert)| alert.resolved_at.is_none()).map(shown).collect(),
    }
}
