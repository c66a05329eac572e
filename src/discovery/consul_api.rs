//! Consul's HTTP API: blocking queries of the catalog and of services' health.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::de::DeserializeOwned;
use tokio::time::Instant;
use url::Url;

use crate::config::discovery::ConsulSd;
use crate::discovery::api::{self, ApiClient, BODY_LEN_MAX, json_request, secret_header, wire};
use crate::discovery::error::LookError;
use crate::discovery::metrics::SourceMetrics;

/// How long Consul may hold an answer back until there are news.
const WAIT: Duration = Duration::from_secs(120);
/// What is added to that: Consul adds some of its own.
const WAIT_MARGIN: Duration = Duration::from_secs(15);
/// How long an answer may take that is not held back.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// Names of services and their tags.
pub(super) type Services = BTreeMap<String, Option<Vec<String>>>;

wire! {
    struct Entry {
        node: Node = "Node",
        service: Service = "Service",
        checks: Vec<Check> = "Checks",
    }

    struct Node {
        name: String = "Node",
        address: String = "Address",
        meta: BTreeMap<String, String> = "Meta",
        tagged_addresses: BTreeMap<String, String> = "TaggedAddresses",
    }

    struct Service {
        id: String = "ID",
        tags: Vec<String> = "Tags",
        meta: BTreeMap<String, String> = "Meta",
        address: String = "Address",
        port: i64 = "Port",
        namespace: String = "Namespace",
        partition: String = "Partition",
    }

    struct Check {
        id: String = "CheckID",
        status: String = "Status",
    }

    struct Agent {
        config: AgentConfig = "Config",
    }

    struct AgentConfig {
        datacenter: Option<String> = "Datacenter",
    }
}

/// How long an answer may take: without an index it is not held back.
fn within(index: u64) -> Duration {
    if index == 0 { ANSWER_WITHIN } else { WAIT + WAIT_MARGIN }
}

/// A Consul agent.
pub(super) struct Consul {
    client: ApiClient,
    base: Url,
    config: ConsulSd,
}

impl Consul {
    pub(super) fn new(config: &ConsulSd, metrics: &SourceMetrics) -> Result<Self, LookError> {
        // The server may carry a scheme, which goes before the configured one.
        let (scheme, server) = match config.server.split_once("://") {
            Some((scheme, server)) => (scheme, server),
            None => (config.scheme.as_str(), config.server.as_str()),
        };
        let (client, authority) = match scheme {
            "unix" => (ApiClient::unix(server.into()), "http://unix".to_owned()),
            "http" | "https" => {
                let client = ApiClient::new(&config.http).counted(metrics, "consul_sd");
                (client, format!("{scheme}://{server}"))
            }
            other => return Err(LookError::Other(format!("Unknown protocol scheme: {other}"))),
        };
        let prefix = config.path_prefix.trim_matches('/');
        let base = api::below(&api::url(&authority)?, prefix);
        Ok(Self { client, base, config: config.clone() })
    }

    /// The datacenter of the agent itself.
    pub(super) async fn datacenter(&self) -> Result<String, LookError> {
        let (agent, _): (Agent, _) = self.ask(self.url(&["agent", "self"]), ANSWER_WITHIN).await?;
        let missing = || LookError::Other("invalid value '<nil>' for Config.Datacenter".to_owned());
        agent.config.datacenter.ok_or_else(missing)
    }

    /// All services, once they differ from those of `index`.
    pub(super) async fn services(&self, index: u64) -> Result<(Services, u64), LookError> {
        let url = self.query(&["catalog", "services"], index, &self.config.filter);
        self.ask(url, within(index)).await
    }

    /// The instances of a service, once they differ from those of `index`.
    pub(super) async fn health(&self, service: &str, index: u64) -> Result<(Vec<Entry>, u64), LookError> {
        let mut url = self.query(&["health", "service", service], index, &self.config.health_filter);
        for tag in &self.config.tags {
            url.query_pairs_mut().append_pair("tag", tag);
        }
        self.ask(url, within(index)).await
    }

    fn url(&self, path: &[&str]) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().push("v1").extend(path);
        }
        let config = &self.config;
        for (name, value) in [("dc", &config.datacenter), ("ns", &config.namespace), ("partition", &config.partition)] {
            if !value.is_empty() {
                url.query_pairs_mut().append_pair(name, value);
            }
        }
        url
    }

    fn query(&self, path: &[&str], index: u64, filter: &str) -> Url {
        let mut url = self.url(path);
        let mut pairs = url.query_pairs_mut();
        if self.config.allow_stale {
            pairs.append_pair("stale", "");
        }
        if index != 0 {
            pairs.append_pair("index", &index.to_string());
        }
        pairs.append_pair("wait", &format!("{}ms", WAIT.as_millis()));
        for (name, value) in &self.config.node_meta {
            pairs.append_pair("node-meta", &format!("{name}:{value}"));
        }
        if !filter.is_empty() {
            pairs.append_pair("filter", filter);
        }
        drop(pairs);
        url
    }

    async fn ask<T: DeserializeOwned + Send + 'static>(
        &self,
        url: Url,
        within: Duration,
    ) -> Result<(T, u64), LookError> {
        let mut request = json_request(url);
        if !self.config.token.expose().is_empty() {
            secret_header(&mut request, "x-consul-token", self.config.token.expose())?;
        }
        let mut response = self.client.ask(request, Instant::now() + within).await?;
        let index = response.headers.get("x-consul-index").and_then(|value| value.to_str().ok()?.parse().ok());
        let content = api::body(&mut response, BODY_LEN_MAX).await?;
        let parsed = api::parse(content, |content| Ok(serde_json::from_slice(content)?)).await?;
        Ok((parsed, index.unwrap_or(0)))
    }
}

/// The worst of an instance's checks; empty if one of them is in a state that we do not know.
pub(super) fn aggregated_status(checks: &[Check]) -> &'static str {
    let mut worst = 0;
    for check in checks {
        let maintenance = check.id == "_node_maintenance" || check.id.starts_with("_service_maintenance:");
        worst = worst.max(match check.status.as_str() {
            _ if maintenance => 3,
            "passing" => 0,
            "warning" => 1,
            "critical" => 2,
            _ => return "",
        });
    }
    match worst {
        0 => "passing",
        1 => "warning",
        2 => "critical",
        _ => "maintenance",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_check_counts() {
        let status = |checks: &[(&str, &str)]| {
            let check = |(id, status): &(&str, &str)| Check { id: (*id).to_owned(), status: (*status).to_owned() };
            aggregated_status(&checks.iter().map(check).collect::<Vec<_>>())
        };
        assert_eq!(status(&[]), "passing");
        assert_eq!(status(&[("a", "warning"), ("b", "passing")]), "warning");
        assert_eq!(status(&[("a", "warning"), ("b", "critical")]), "critical");
        assert_eq!(status(&[("_service_maintenance:x", "critical"), ("b", "critical")]), "maintenance");
        assert_eq!(status(&[("a", "odd")]), "");
    }
}
