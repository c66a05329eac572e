//! `/targets`, `/rules` and `/alerts`: what is watched, and what is wrong.

use super::html::Html;
use super::{note, page, seconds, series_name};
use crate::http::api::rules::sort as sort_groups;
use crate::http::api::targets::{global_url, sort as sort_targets};
use crate::http::api::types::{ActiveTarget, Alert, AlertGroup, Rule, RuleGroup, UnixNanos};
use crate::http::error::ApiError;
use crate::http::request::Context;
use crate::http::response::Response;
use crate::model::go;
use crate::model::go_time;

/// `GET /targets`.
pub(crate) async fn targets(context: Context) -> Result<Response, ApiError> {
    let mut targets = context.state.ports.targets().await?;
    sort_targets(&mut targets);
    let mut pools = targets.pools.clone();
    pools.sort();
    let now = context.state.clock.unix_nanos();
    Ok(page(&context.state, "/targets", "Targets", |html| {
        if pools.is_empty() {
            note(html, "info", "No scrape pool is configured.");
        }
        for pool in &pools {
            let members: Vec<&ActiveTarget> = targets.active.iter().filter(|t| &t.scrape_pool == pool).collect();
            let up = members.iter().filter(|target| target.health.as_str() == "up").count();
            let dropped = targets.dropped_counts.get(pool).copied().unwrap_or(0);
            html.raw("<h2>").text(pool).raw("</h2><p class=\"muted\">");
            html.text(format!("{up} of {} up, {dropped} dropped by relabelling", members.len())).raw("</p>");
            for (_, why) in targets.missing.iter().filter(|(missing_in, _)| missing_in == pool) {
                note(html, "error", why);
            }
            if members.is_empty() {
                continue;
            }
            html.raw("<table><thead><tr><th>Endpoint</th><th>State</th><th>Labels</th><th>Last scrape</th>");
            html.raw("<th>Duration</th><th>Error</th></tr></thead><tbody>");
            for target in members {
                html.raw("<tr><td>").link(&global_url(&target.scrape_url, &context.state.settings)).raw("</td>");
                state_cell(html, target.health.as_str());
                html.raw("<td><code>").text(&target.labels).raw("</code></td>");
                html.cell(ago(now, target.last_scrape)).cell(seconds(target.last_scrape_duration));
                html.cell(&target.last_error).raw("</tr>");
            }
            html.raw("</tbody></table>");
        }
    }))
}

/// `GET /rules`.
pub(crate) async fn rules(context: Context) -> Result<Response, ApiError> {
    let groups = groups(&context).await?;
    let now = context.state.clock.unix_nanos();
    Ok(page(&context.state, "/rules", "Rules", |html| {
        if groups.is_empty() {
            note(html, "info", "No rule group is configured.");
        }
        for group in &groups {
            html.raw("<h2>").text(&group.name).raw("</h2><p class=\"muted\">").text(&group.file);
            html.text(format!(", every {}", seconds(group.interval)));
            html.text(format!(", last evaluated {}", ago(now, group.last_evaluation))).raw("</p>");
            html.raw("<table><thead><tr><th>Rule</th><th>Expression</th><th>Health</th><th>Duration</th>");
            html.raw("<th>Error</th></tr></thead><tbody>");
            for rule in &group.rules {
                let kind = if rule.alerting.is_some() { "alert" } else { "record" };
                html.raw("<tr><td>").text(kind).raw(": <b>").text(&rule.name).raw("</b></td>");
                html.raw("<td><code>").text(&rule.query).raw("</code></td>");
                state_cell(html, rule.health.as_str());
                html.cell(seconds(rule.evaluation_time)).cell(&rule.last_error).raw("</tr>");
            }
            html.raw("</tbody></table>");
        }
    }))
}

/// `GET /alerts`.
pub(crate) async fn alerts(context: Context) -> Result<Response, ApiError> {
    let groups = groups(&context).await?;
    let now = context.state.clock.unix_nanos();
    Ok(page(&context.state, "/alerts", "Alerts", |html| {
        let alerting: Vec<(&RuleGroup, &Rule)> = groups
            .iter()
            .flat_map(|group| group.rules.iter().map(move |rule| (group, rule)))
            .filter(|(_, rule)| rule.alerting.is_some())
            .collect();
        if alerting.is_empty() {
            note(html, "info", "No alerting rule is configured.");
        }
        for (group, rule) in alerting {
            let Some(alerting) = &rule.alerting else { continue };
            html.raw("<h2>").text(&rule.name).raw(" <span class=\"").raw(alerting.state.as_str()).raw("\">");
            html.text(alerting.state.as_str()).raw("</span></h2><p class=\"muted\">");
            html.text(format!("{} in {}, for {}", group.name, group.file, seconds(alerting.hold))).raw("</p>");
            html.raw("<pre>").text(&rule.query).raw("</pre>");
            if !alerting.alerts.is_empty() {
                alert_table(html, &alerting.alerts, now);
            }
        }
        let groups = context.state.ports.alert_groups();
        if !groups.is_empty() {
            group_table(html, &groups);
        }
    }))
}

/// What the dispatcher in process tells whom.
fn group_table(html: &mut Html, groups: &[AlertGroup]) {
    html.raw("<h2>Notifications</h2><table><thead><tr><th>Group</th><th>Receiver</th><th>Alerts</th>");
    html.raw("<th>Next in</th><th>Error</th></tr></thead><tbody>");
    for group in groups {
        let receiver = if group.receiver.is_empty() { "nobody" } else { &group.receiver };
        html.raw("<tr><td><code>").text(&group.labels).raw("</code></td>").cell(receiver).raw("<td>");
        for alert in &group.alerts {
            html.raw("<code>").text(alert).raw("</code><br>");
        }
        html.raw("</td>").cell(seconds(group.next_flush)).cell(&group.failure).raw("</tr>");
    }
    html.raw("</tbody></table>");
}

async fn groups(context: &Context) -> Result<Vec<RuleGroup>, ApiError> {
    let mut groups = context.state.ports.rule_groups().await?;
    sort_groups(&mut groups);
    Ok(groups)
}

fn alert_table(html: &mut Html, alerts: &[Alert], now: i64) {
    html.raw("<table><thead><tr><th>Labels</th><th>State</th><th>Active</th><th>Value</th><th>Annotations</th>");
    html.raw("</tr></thead><tbody>");
    for alert in alerts {
        html.raw("<tr><td><code>").text(series_name(&alert.labels)).raw("</code></td>");
        state_cell(html, alert.state.as_str());
        html.cell(ago(now, alert.active_at)).cell(go::format_float_json(alert.value)).raw("<td>");
        for (name, value) in &alert.annotations {
            html.raw("<b>").text(name).raw("</b>: ").text(value).raw("<br>");
        }
        html.raw("</td></tr>");
    }
    html.raw("</tbody></table>");
}

fn state_cell(html: &mut Html, state: &'static str) {
    html.raw("<td class=\"").raw(state).raw("\">").raw(state).raw("</td>");
}

/// How long ago something was: `12s ago`.
fn ago(now: i64, at: Option<UnixNanos>) -> String {
    let Some(UnixNanos(at)) = at else { return "never".to_owned() };
    let elapsed = now.saturating_sub(at).max(0);
    // Whole seconds are enough for people, except below one.
    let rounded =
        if elapsed < 1_000_000_000 { elapsed / 1_000_000 * 1_000_000 } else { elapsed / 1_000_000_000 * 1_000_000_000 };
    format!("{} ago", go_time::format_duration(rounded))
}
