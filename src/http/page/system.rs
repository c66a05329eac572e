//! `/actors`, `/config`, `/flags` and `/status`: the server itself.

use std::collections::HashSet;

use super::html::Html;
use super::{note, page};
use crate::http::api::types::ActorInfo;
use crate::http::error::ApiError;
use crate::http::request::Context;
use crate::http::response::Response;
use crate::model::go_time;
use crate::telemetry::{build_info, limits, process};

/// Deepest level of the tree that is indented further.
const DEPTH_MAX: usize = 12;

/// `GET /actors`.
pub(crate) async fn actors(context: Context) -> Result<Response, ApiError> {
    let actors = context.state.ports.actors();
    let failed = actors.iter().filter(|actor| actor.state == "failed").count();
    Ok(page(&context.state, "/actors", "Actors", |html| {
        html.raw("<p class=\"muted\">").text(format!("{} actors, {failed} failed", actors.len())).raw("</p>");
        html.raw("<table><thead><tr><th>Actor</th><th>State</th><th>Queue</th><th>Handled</th><th>Refused</th>");
        html.raw("<th>Expired</th><th>Restarts</th><th>Last panic</th><th>Failing</th></tr></thead><tbody>");
        for (depth, actor) in tree(&actors) {
            html.raw("<tr><td>");
            for _ in 0..depth.min(DEPTH_MAX) {
                html.raw("&emsp;");
            }
            html.raw("<b>").text(&actor.kind).raw("</b> ").text(&actor.name).raw("</td><td class=\"");
            html.text(&actor.state).raw("\">").text(&actor.state).raw("</td>");
            html.cell(format!("{} / {}", actor.queue, actor.slots)).cell(actor.handled).cell(actor.refused);
            html.cell(actor.expired).cell(actor.restarts).cell(&actor.last_panic).cell(&actor.failing).raw("</tr>");
        }
        html.raw("</tbody></table>");
    }))
}

/// Actors with their depth, children below their parents. Those whose parent is unknown stand at the top; a circle of
/// parents, which would be a bug, is shown flat rather than not at all.
fn tree(actors: &[ActorInfo]) -> Vec<(usize, &ActorInfo)> {
    let names: HashSet<&str> = actors.iter().map(|actor| actor.name.as_str()).collect();
    let is_root = |actor: &ActorInfo| actor.parent == actor.name || !names.contains(actor.parent.as_str());
    let mut shown = HashSet::new();
    let mut out = Vec::with_capacity(actors.len());
    let mut stack: Vec<(usize, usize)> =
        actors.iter().enumerate().filter(|(_, actor)| is_root(actor)).map(|(i, _)| (0, i)).rev().collect();
    let mut children: std::collections::HashMap<&str, Vec<usize>> = std::collections::HashMap::new();
    for (i, actor) in actors.iter().enumerate().filter(|(_, actor)| !is_root(actor)) {
        children.entry(&actor.parent).or_default().push(i);
    }
    while let Some((depth, i)) = stack.pop() {
        let Some(actor) = actors.get(i).filter(|_| shown.insert(i)) else { continue };
        out.push((depth, actor));
        let below = children.remove(actor.name.as_str()).unwrap_or_default();
        stack.extend(below.into_iter().rev().map(|child| (depth + 1, child)));
    }
    out.extend(actors.iter().enumerate().filter(|(i, _)| !shown.contains(i)).map(|(_, actor)| (0, actor)));
    out
}

/// `GET /config`.
pub(crate) async fn config(context: Context) -> Result<Response, ApiError> {
    let yaml = context.state.ports.config_yaml().await?;
    Ok(page(&context.state, "/config", "Configuration", |html| {
        html.raw("<p class=\"muted\">As it is in effect, with defaults filled in and secrets left out.</p><pre>");
        html.text(&yaml).raw("</pre>");
    }))
}

/// `GET /flags`.
pub(crate) async fn flags(context: Context) -> Result<Response, ApiError> {
    let flags = context.state.ports.flags();
    Ok(page(&context.state, "/flags", "Flags", |html| {
        html.raw("<table><thead><tr><th>Flag</th><th>Value</th></tr></thead><tbody>");
        for (name, value) in &flags {
            pair(html, &format!("--{name}"), value);
        }
        html.raw("</tbody></table>");
    }))
}

/// `GET /status`.
pub(crate) async fn status(context: Context) -> Result<Response, ApiError> {
    let runtime = context.state.ports.runtime().await?;
    let damage = context.state.ports.damage();
    let time = |at: Option<crate::http::json::UnixNanos>| {
        at.map_or_else(|| "never".to_owned(), |at| go_time::format_rfc3339_nano(at.0))
    };
    let mib = |bytes: u64| format!("{} MiB", bytes >> 20);
    Ok(page(&context.state, "/status", "Status", |html| {
        if !runtime.reload_success {
            note(html, "error", "The last reload of the configuration failed; the previous one stays in effect.");
        }
        html.raw("<table><tbody>");
        pair(html, "Version", build_info::VERSION);
        pair(html, "Compatible with", &format!("Prometheus {}", build_info::COMPATIBLE_VERSION));
        pair(html, "Revision", build_info::REVISION);
        pair(html, "Started", &time(Some(runtime.start_time)));
        pair(html, "Configuration loaded", &time(runtime.last_config_time));
        pair(html, "Retention", &runtime.storage_retention);
        pair(html, "WAL corruptions", &runtime.corruption_count.to_string());
        pair(html, "Resident memory", &mib(process::resident_bytes()));
        pair(html, "Memory limit", &limits::memory_limit().map_or_else(String::new, |(bytes, _)| mib(bytes)));
        pair(html, "Processors", &limits::cpu_count().to_string());
        pair(html, "Threads", &process::thread_count().to_string());
        html.raw("</tbody></table>");
        if !damage.is_empty() {
            html.raw("<h2>Damage</h2>");
            note(
                html,
                "error",
                "Some of the stored data is damaged, or was found damaged at the start. Nothing of it was removed.",
            );
            html.raw("<ul>");
            for place in &damage {
                html.raw("<li><code>").text(place).raw("</code></li>");
            }
            html.raw("</ul>");
        }
    }))
}

fn pair(html: &mut Html, name: &str, value: &str) {
    html.raw("<tr><th>").text(name).raw("</th><td><code>").text(value).raw("</code></td></tr>");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn actor(name: &str, parent: &str) -> ActorInfo {
        ActorInfo {
            kind: "k".to_owned(),
            name: name.to_owned(),
            parent: parent.to_owned(),
            state: "running".to_owned(),
            queue: 0,
            slots: 0,
            refused: 0,
            expired: 0,
            handled: 0,
            restarts: 0,
            last_panic: String::new(),
            failing: String::new(),
            since: None,
        }
    }

    #[test]
    fn children_stand_below_their_parents_and_nobody_is_lost() {
        let actors = [
            actor("b", "root"),
            actor("root", ""),
            actor("c", "b"),
            actor("a", "root"),
            actor("x", "y"),
            actor("y", "x"),
        ];
        let shown: Vec<(usize, &str)> = tree(&actors).into_iter().map(|(d, a)| (d, a.name.as_str())).collect();
        assert_eq!(shown, [(0, "root"), (1, "b"), (2, "c"), (1, "a"), (0, "x"), (0, "y")]);
    }
}
