//! `/api/v1/targets`, `/api/v1/scrape_pools` and `/api/v1/alertmanagers`.

use crate::http::api::types::{ActiveTarget, Targets};
use crate::http::envelope;
use crate::http::error::ApiError;
use crate::http::json::{Array, Json};
use crate::http::request::Context;
use crate::http::response::Response;
use crate::http::state::HttpSettings;
use crate::model::external_url::split_host_port;

/// `GET /api/v1/targets`.
pub(crate) async fn targets(context: Context) -> Result<Response, ApiError> {
    let state = context.params.get_query("state").to_lowercase();
    let pool = context.params.get_query("scrapePool").to_owned();
    let shows = |kind: &str| matches!(state.as_str(), "" | "any") || state == kind;
    let (active, dropped) = (shows("active"), shows("dropped"));
    let mut targets = context.state.ports.targets().await?;
    sort(&mut targets);
    let wanted = |name: &str| pool.is_empty() || pool == name;
    Ok(envelope::data(|json| {
        let mut object = json.object();
        let mut array = object.key("activeTargets").array();
        for target in targets.active.iter().filter(|target| active && wanted(&target.scrape_pool)) {
            write_active(array.item(), target, &context.state.settings);
        }
        array.end();
        let mut array = object.key("droppedTargets").array();
        for target in targets.dropped.iter().filter(|target| dropped && wanted(&target.scrape_pool)) {
            let mut object = array.item().object();
            object.labels("discoveredLabels", &target.discovered_labels).string("scrapePool", &target.scrape_pool);
            object.end();
        }
        array.end();
        let counts = object.key("droppedTargetCounts");
        if dropped {
            let mut object = counts.object();
            for (pool, count) in &targets.dropped_counts {
                object.integer(pool, i64::try_from(*count).unwrap_or(i64::MAX));
            }
            object.end();
        } else {
            counts.raw("null");
        }
        object.end();
    }))
}

/// `GET /api/v1/scrape_pools`.
pub(crate) async fn pools(context: Context) -> Result<Response, ApiError> {
    let mut pools = context.state.ports.targets().await?.pools;
    pools.sort();
    Ok(envelope::data(|json| {
        let mut object = json.object();
        object.key("scrapePools").strings(&pools);
        object.end();
    }))
}

/// `GET /api/v1/alertmanagers`.
pub(crate) async fn alertmanagers(context: Context) -> Result<Response, ApiError> {
    let found = context.state.ports.alertmanagers().await?;
    let write = |mut array: Array<'_>, urls: &[String]| {
        for url in urls {
            let mut object = array.item().object();
            object.string("url", url);
            object.end();
        }
        array.end();
    };
    Ok(envelope::data(|json| {
        let mut object = json.object();
        write(object.key("activeAlertmanagers").array(), &found.active);
        write(object.key("droppedAlertmanagers").array(), &found.dropped);
        object.end();
    }))
}

/// Sorts by pool and keeps the order within one.
pub(crate) fn sort(targets: &mut Targets) {
    targets.active.sort_by(|a, b| a.scrape_pool.cmp(&b.scrape_pool));
    targets.dropped.sort_by(|a, b| a.scrape_pool.cmp(&b.scrape_pool));
}

fn write_active(json: &mut Json, target: &ActiveTarget, settings: &HttpSettings) {
    let mut object = json.object();
    object
        .labels("discoveredLabels", &target.discovered_labels)
        .labels("labels", &target.labels)
        .string("scrapePool", &target.scrape_pool)
        .string("scrapeUrl", &target.scrape_url)
        .string("globalUrl", &global_url(&target.scrape_url, settings))
        .string("lastError", &target.last_error)
        .time("lastScrape", target.last_scrape)
        .number("lastScrapeDuration", target.last_scrape_duration)
        .string("health", target.health.as_str())
        .string("scrapeInterval", &target.scrape_interval)
        .string("scrapeTimeout", &target.scrape_timeout);
    object.end();
}

/// The URL under which users reach a target: a local one is shown with our own external name, and if it is ourselves also
/// with our external port and scheme.
pub(crate) fn global_url(scrape_url: &str, settings: &HttpSettings) -> String {
    let parts = || {
        let (scheme, rest) = scrape_url.split_once("://")?;
        let at = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, tail) = rest.split_at(at);
        let (host, port) = host_and_port(authority);
        if !matches!(host, "127.0.0.1" | "localhost" | "::1") {
            return None;
        }
        let (_, own_port) = split_host_port(&settings.listen_address).ok()?;
        let external = &settings.external_url;
        if port == own_port {
            return Some(format!("{}://{}{tail}", external.scheme, external.host));
        }
        let (host, _) = host_and_port(&external.host);
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        let port = if port.is_empty() { String::new() } else { format!(":{port}") };
        Some(format!("{scheme}://{host}{port}{tail}"))
    };
    parts().unwrap_or_else(|| scrape_url.to_owned())
}

/// Host without brackets and port, empty if there is none.
fn host_and_port(authority: &str) -> (&str, &str) {
    match split_host_port(authority) {
        Ok(pair) => pair,
        Err(_) => (authority.trim_start_matches('[').trim_end_matches(']'), ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::external_url::external_url;
    use crate::model::regexp::Regexp;

    #[test]
    fn local_targets_get_our_external_name() {
        let settings = |url: &str| HttpSettings {
            is_agent: false,
            external_url: external_url(url, "vm", "0.0.0.0:9090").unwrap(),
            route_prefix: "/".to_owned(),
            cors_origin: Regexp::anchored(".*").unwrap(),
            hosts: None,
            enable_lifecycle: false,
            enable_admin_api: false,
            enable_pprof: false,
            search_limit_max: None,
            page_title: String::new(),
            listen_address: "0.0.0.0:9090".to_owned(),
        };
        for (external, target, expected) in [
            ("", "http://localhost:9090/metrics", "http://vm:9090/metrics"),
            ("", "http://localhost:1/metrics?a=b", "http://vm:1/metrics?a=b"),
            ("https://x.org/prom", "http://127.0.0.1:9090/prom/metrics", "https://x.org/prom/metrics"),
            ("https://x.org/prom", "http://[::1]:9100/metrics", "http://x.org:9100/metrics"),
            ("https://x.org", "http://localhost/metrics", "http://x.org/metrics"),
            ("https://x.org", "http://other:9090/metrics", "http://other:9090/metrics"),
        ] {
            assert_eq!(global_url(target, &settings(external)), expected, "{external} {target}");
        }
    }
}
