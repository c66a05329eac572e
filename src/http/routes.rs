//! The routes: which path and method lead to which handler, and what stands before it. `dispatch` obeys.
//!
//! Paths are matched here rather than by actix's router, because clients see the difference: 404 and 405 texts, `Allow`,
//! redirects for trailing slashes and the `handler` label of the metrics are those of Prometheus.

use actix_web::http::Method;
use futures::future::{FutureExt, LocalBoxFuture};

use crate::http::api::{
    about, admin, labels, metadata, openapi, queries, query, read, relabel_steps, rules, search, status, syntax,
    targets, tsdb, watchfire, write,
};
use crate::http::error::ApiError;
use crate::http::federate;
use crate::http::page;
use crate::http::plain;
use crate::http::profile;
use crate::http::request::Context;
use crate::http::response::Response;

/// Turns a request into an answer.
pub(super) type Handler = fn(Context) -> LocalBoxFuture<'static, Result<Response, ApiError>>;

/// What kind of endpoint a route is, which decides headers and the shape of failures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    /// JSON envelopes, cross-origin headers, compression.
    Api,
    /// Texts.
    Plain,
    /// Pages for people, with security headers.
    Page,
}

/// Whether a route answers before the server is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gate {
    Open,
    Ready,
}

/// One path.
pub(super) struct Route {
    /// Path below the route prefix. `*` stands for one path segment that is not empty.
    pub(super) path: &'static str,
    /// Value of the label `handler`.
    pub(super) label: &'static str,
    pub(super) family: Family,
    pub(super) gate: Gate,
    pub(super) methods: &'static [(Method, Handler)],
}

macro_rules! route {
    ($path:literal, $label:literal, $family:ident, $gate:ident, $($method:ident => $handler:path),+) => {
        Route {
            path: $path,
            label: $label,
            family: Family::$family,
            gate: Gate::$gate,
            methods: &[$((Method::$method, |context| $handler(context).boxed_local())),+],
        }
    };
}

/// All routes below the route prefix.
#[rustfmt::skip]
pub(super) const ROUTES: &[Route] = &[
    route!("/", "/", Plain, Open, GET => plain::home),
    route!("/graph", "/graph", Plain, Open, GET => plain::graph),
    route!("/version", "/version", Plain, Open, GET => plain::version),
    route!("/metrics", "/metrics", Plain, Open, GET => plain::metrics),
    route!("/federate", "/federate", Plain, Ready, GET => federate::federate),
    route!("/-/healthy", "/-/healthy", Plain, Open, GET => plain::healthy, HEAD => plain::head),
    route!("/-/ready", "/-/ready", Plain, Ready, GET => plain::ready, HEAD => plain::head_ready),
    route!("/-/reload", "/-/reload", Plain, Open, GET => plain::post_only, POST => plain::reload, PUT => plain::reload),
    route!("/-/quit", "/-/quit", Plain, Open, GET => plain::post_only, POST => plain::quit, PUT => plain::quit),

    route!("/debug/pprof/", "/debug/*subpath", Plain, Open, GET => profile::index),
    route!("/debug/pprof/*", "/debug/*subpath", Plain, Open, GET => profile::named, POST => profile::named),

    route!("/query", "/query", Page, Open, GET => page::query),
    route!("/alerts", "/alerts", Page, Open, GET => page::alerts),
    route!("/rules", "/rules", Page, Open, GET => page::rules),
    route!("/targets", "/targets", Page, Open, GET => page::targets),
    route!("/actors", "/actors", Page, Open, GET => page::actors),
    route!("/config", "/config", Page, Open, GET => page::config),
    route!("/flags", "/flags", Page, Open, GET => page::flags),
    route!("/status", "/status", Page, Open, GET => page::status),
    route!("/assets/*", "/assets/*filepath", Page, Open, GET => page::asset),
    route!("/favicon.svg", "/favicon.svg", Page, Open, GET => page::favicon),

    route!("/api/v1/query", "/api/v1/query", Api, Ready, GET => query::instant, POST => query::instant),
    route!("/api/v1/query_range", "/api/v1/query_range", Api, Ready, GET => query::range, POST => query::range),
    route!("/api/v1/query_exemplars", "/api/v1/query_exemplars", Api, Ready, GET => syntax::query_exemplars, POST => syntax::query_exemplars),
    route!("/api/v1/parse_query", "/api/v1/parse_query", Api, Ready, GET => syntax::parse_query, POST => syntax::parse_query),
    route!("/api/v1/format_query", "/api/v1/format_query", Api, Ready, GET => syntax::format_query, POST => syntax::format_query),
    route!("/api/v1/series", "/api/v1/series", Api, Ready, GET => labels::series, POST => labels::series),
    route!("/api/v1/labels", "/api/v1/labels", Api, Ready, GET => labels::names, POST => labels::names),
    route!("/api/v1/label/*/values", "/api/v1/label/:name/values", Api, Ready, GET => labels::values),
    route!("/api/v1/search/metric_names", "/api/v1/search/metric_names", Api, Ready, GET => search::metric_names, POST => search::metric_names),
    route!("/api/v1/search/label_names", "/api/v1/search/label_names", Api, Ready, GET => search::label_names, POST => search::label_names),
    route!("/api/v1/search/label_values", "/api/v1/search/label_values", Api, Ready, GET => search::label_values, POST => search::label_values),
    route!("/api/v1/targets", "/api/v1/targets", Api, Ready, GET => targets::targets),
    route!("/api/v1/scrape_pools", "/api/v1/scrape_pools", Api, Ready, GET => targets::pools),
    route!("/api/v1/scrape_pools/config", "/api/v1/scrape_pools/config", Api, Ready, GET => relabel_steps::config),
    route!("/api/v1/targets/metadata", "/api/v1/targets/metadata", Api, Ready, GET => metadata::targets),
    route!("/api/v1/targets/relabel_steps", "/api/v1/targets/relabel_steps", Api, Ready, GET => relabel_steps::steps),
    route!("/api/v1/metadata", "/api/v1/metadata", Api, Ready, GET => metadata::metrics),
    route!("/api/v1/alertmanagers", "/api/v1/alertmanagers", Api, Ready, GET => targets::alertmanagers),
    route!("/api/v1/rules", "/api/v1/rules", Api, Ready, GET => rules::rules),
    route!("/api/v1/alerts", "/api/v1/alerts", Api, Ready, GET => rules::alerts),
    route!("/api/v1/read", "/api/v1/read", Plain, Ready, POST => read::read),
    route!("/api/v1/write", "/api/v1/write", Plain, Ready, POST => write::write),
    route!("/api/v1/otlp/v1/metrics", "/api/v1/otlp/v1/metrics", Plain, Ready, POST => write::otlp),
    route!("/api/v1/status/config", "/api/v1/status/config", Api, Ready, GET => status::config),
    route!("/api/v1/status/flags", "/api/v1/status/flags", Api, Ready, GET => status::flags),
    route!("/api/v1/status/buildinfo", "/api/v1/status/buildinfo", Api, Ready, GET => status::build),
    route!("/api/v1/status/tsdb", "/api/v1/status/tsdb", Api, Ready, GET => tsdb::status),
    route!("/api/v1/status/tsdb/blocks", "/api/v1/status/tsdb/blocks", Api, Ready, GET => tsdb::blocks),
    route!("/api/v1/status/self_metrics", "/api/v1/status/self_metrics", Api, Ready, GET => about::self_metrics),
    route!("/api/v1/openapi.yaml", "/api/v1/openapi.yaml", Api, Open, GET => openapi::openapi),
    route!("/api/v1/features", "/api/v1/features", Api, Ready, GET => about::features),
    route!("/api/v1/notifications", "/api/v1/notifications", Api, Open, GET => about::notifications),
    route!("/api/v1/notifications/live", "/api/v1/notifications/live", Api, Open, GET => about::live),
    route!("/api/v1/status/walreplay", "/api/v1/status/walreplay", Api, Open, GET => admin::wal_replay),
    route!("/api/v1/admin/tsdb/delete_series", "/api/v1/admin/tsdb/delete_series", Api, Ready, POST => admin::delete_series, PUT => admin::delete_series),
    route!("/api/v1/admin/tsdb/clean_tombstones", "/api/v1/admin/tsdb/clean_tombstones", Api, Ready, POST => admin::clean_tombstones, PUT => admin::clean_tombstones),
    route!("/api/v1/admin/tsdb/snapshot", "/api/v1/admin/tsdb/snapshot", Api, Ready, POST => admin::snapshot, PUT => admin::snapshot),
    route!("/api/v1/status/runtimeinfo", "/api/v1/status/runtimeinfo", Api, Ready, GET => status::runtime),

    route!("/api/watchfire/v1/queries", "/api/watchfire/v1/queries", Api, Open, GET => queries::list),
    route!("/api/watchfire/v1/queries/*", "/api/watchfire/v1/queries/:id", Api, Open, DELETE => queries::cancel),
    route!("/api/watchfire/v1/queries/*/cancel", "/api/watchfire/v1/queries/:id/cancel", Api, Open, POST => queries::cancel),
    route!("/api/watchfire/v1/actors", "/api/watchfire/v1/actors", Api, Open, GET => watchfire::actors),
    route!("/api/watchfire/v1/reload", "/api/watchfire/v1/reload", Api, Open, GET => watchfire::last_reload, POST => watchfire::reload),
];

/// Labels of routes that an agent refuses.
const NOT_OF_AGENTS: [&str; 13] = [
    "/api/v1/query",
    "/api/v1/query_range",
    "/api/v1/query_exemplars",
    "/api/v1/parse_query",
    "/api/v1/format_query",
    "/api/v1/series",
    "/api/v1/labels",
    "/api/v1/label/:name/values",
    "/api/v1/alertmanagers",
    "/api/v1/rules",
    "/api/v1/alerts",
    "/api/v1/status/tsdb",
    "/api/v1/status/tsdb/blocks",
];

/// `/` when all routes have a prefix.
pub(super) const ROOT: &Route = &route!("/", "/", Plain, Open, GET => plain::to_prefix);

/// Where a path leads.
pub(super) enum Match {
    /// To a route, with the variable part of the path.
    Found(&'static Route, Option<String>),
    /// Nowhere, but the same path with its trailing slash taken off or put on does.
    Redirect(String),
    /// Nowhere.
    Nothing,
}

/// Finds the route of a decoded path.
pub(super) fn find(prefix: &str, path: &str) -> Match {
    if let Some((route, parameter)) = lookup(prefix, path) {
        return Match::Found(route, parameter);
    }
    let other = match path.strip_suffix('/') {
        Some(shorter) => shorter.to_owned(),
        None => format!("{path}/"),
    };
    if lookup(prefix, &other).is_some() { Match::Redirect(other) } else { Match::Nothing }
}

fn lookup(prefix: &str, path: &str) -> Option<(&'static Route, Option<String>)> {
    let below = if prefix == "/" { Some(path) } else { path.strip_prefix(prefix) };
    match below {
        Some(below) => ROUTES.iter().find_map(|route| Some((route, fits(route.path, below)?))),
        None if path == "/" => Some((ROOT, None)),
        None => None,
    }
}

/// The variable part, if the path fits the pattern.
fn fits(pattern: &str, path: &str) -> Option<Option<String>> {
    let Some((head, tail)) = pattern.split_once('*') else { return (pattern == path).then_some(None) };
    let part = path.strip_prefix(head)?.strip_suffix(tail)?;
    (!part.is_empty() && !part.contains('/')).then(|| Some(part.to_owned()))
}

impl Route {
    /// True if there is nothing behind it in an agent.
    pub(super) fn is_missing_in_agents(&self) -> bool {
        NOT_OF_AGENTS.contains(&self.label)
            || self.label.starts_with("/api/v1/admin/")
            || self.label.starts_with("/api/v1/search/")
    }

    /// True if it changes data, or what the server does.
    pub(super) fn is_changing(&self) -> bool {
        const OTHERS: [&str; 5] =
            ["/-/reload", "/-/quit", "/api/watchfire/v1/reload", "/api/v1/write", "/api/v1/otlp/v1/metrics"];
        OTHERS.contains(&self.label)
            || self.label.starts_with("/api/v1/admin/")
            || self.label.starts_with("/api/watchfire/v1/queries/")
    }

    pub(super) fn handler(&self, method: &Method) -> Option<Handler> {
        self.methods.iter().find(|(known, _)| known == method).map(|(_, handler)| *handler)
    }

    /// The header `Allow`.
    pub(super) fn allow(&self) -> String {
        let mut names: Vec<&str> = self.methods.iter().map(|(method, _)| method.as_str()).collect();
        names.push("OPTIONS");
        names.sort_unstable();
        names.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(prefix: &str, path: &str, expected: &str) {
        let got = match find(prefix, path) {
            Match::Found(route, parameter) => format!("{} {}", route.label, parameter.unwrap_or_default()),
            Match::Redirect(to) => format!("-> {to}"),
            Match::Nothing => "nothing".to_owned(),
        };
        assert_eq!(got.trim(), expected, "{prefix} {path}");
    }

    #[test]
    fn paths_are_found_below_the_prefix() {
        check("/", "/", "/");
        check("/", "/api/v1/query", "/api/v1/query");
        check("/", "/api/v1/label/a b/values", "/api/v1/label/:name/values a b");
        check("/", "/api/v1/label//values", "nothing");
        check("/", "/api/v1/label/a/b/values", "nothing");
        check("/", "/-/healthy/", "-> /-/healthy");
        check("/", "/nope", "nothing");
        check("/prom", "/prom/-/ready", "/-/ready");
        check("/prom", "/prom", "-> /prom/");
        check("/prom", "/", "/");
        check("/prom", "/-/ready", "nothing");
        check("/prom", "/prometheus/-/ready", "nothing");
    }

    #[test]
    fn allow_lists_all_methods() {
        let Match::Found(route, _) = find("/", "/-/quit") else { panic!("no route") };
        assert_eq!(route.allow(), "GET, OPTIONS, POST, PUT");
    }
}
