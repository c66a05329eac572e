//! Docker's API, over a socket in the file system, TCP or HTTP: what Docker and Docker Swarm have in common.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::de::DeserializeOwned;
use tokio::time::Instant;
use url::Url;

use crate::client::Request;
use crate::config::http_client::HttpClientConfig;
use crate::discovery::api::{self, ApiClient, wire};
use crate::discovery::error::LookError;
use crate::discovery::labels::set_each;
use crate::discovery::refresh::look_within;
use crate::model::labels::{Labels, LabelsBuilder};

/// Filters of a list: names with their values.
pub(super) type Filters = BTreeMap<String, Vec<String>>;

/// A daemon.
pub(super) struct Docker {
    client: ApiClient,
    base: Url,
    timeout: Duration,
    /// The version of the API that the daemon speaks, once it is known. It is the first part of every path.
    version: Option<String>,
}

wire! {
    /// A network.
    struct Network {
        id: String = "Id",
        name: String = "Name",
        scope: String = "Scope",
        internal: bool = "Internal",
        ingress: bool = "Ingress",
        labels: BTreeMap<String, String> = "Labels",
    }
}

impl Docker {
    /// The daemon at `host`. The HTTP settings are those of `http` and `https` alone, as in Prometheus.
    pub(super) fn new(host: &str, http: &HttpClientConfig, timeout: Duration) -> Result<Self, LookError> {
        let unable = || LookError::Other(format!("unable to parse docker host {host:?}"));
        let (scheme, rest) = host.split_once("://").ok_or_else(unable)?;
        let (client, base) = match scheme {
            "unix" => (ApiClient::unix(rest.into()), "http://docker/".to_owned()),
            "tcp" => (ApiClient::plain(), format!("http://{rest}")),
            "http" | "https" => (ApiClient::new(http), host.to_owned()),
            _ => return Err(LookError::Other(format!("protocol not available: {scheme}"))),
        };
        Ok(Self { client, base: api::url(&base)?, timeout, version: None })
    }

    /// A list, parsed; all requests of one look share a deadline.
    pub(super) async fn list<T>(&mut self, path: &str, filters: &Filters, deadline: Instant) -> Result<T, LookError>
    where
        T: DeserializeOwned + Send + 'static,
    {
        let version = match &self.version {
            Some(version) => version.clone(),
            None => self.ask_version(deadline).await?,
        };
        let mut url = api::below(&self.base, &format!("{version}/{path}"));
        if !filters.is_empty() {
            let set = |values: &Vec<String>| values.iter().map(|value| (value.clone(), true)).collect();
            let sets: BTreeMap<&String, BTreeMap<String, bool>> =
                filters.iter().map(|(name, values)| (name, set(values))).collect();
            url.query_pairs_mut().append_pair("filters", &serde_json::to_string(&sets)?);
        }
        let listed = self.client.json(url, deadline).await;
        // After a failure the daemon may be another one.
        self.version = listed.is_ok().then_some(version);
        listed
    }

    /// The first part of paths, empty for a daemon that does not say which version it speaks.
    async fn ask_version(&self, deadline: Instant) -> Result<String, LookError> {
        let response = self.client.ask(Request::get(api::below(&self.base, "_ping")), deadline).await?;
        let version = response.headers.get("api-version").and_then(|value| value.to_str().ok());
        let is_version = |text: &&str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
        Ok(version.filter(is_version).map_or(String::new(), |version| format!("v{version}")))
    }

    /// By when a look that begins now has to be over.
    pub(super) fn deadline(&self) -> Instant {
        Instant::now() + look_within(self.timeout)
    }

    /// Labels of all networks, by the network's id; each label's name begins with `prefix`.
    pub(super) async fn networks(
        &mut self,
        prefix: &str,
        deadline: Instant,
    ) -> Result<BTreeMap<String, Labels>, LookError> {
        let networks: Vec<Network> = self.list("networks", &Filters::new(), deadline).await?;
        let labels = |network: Network| {
            let mut labels = LabelsBuilder::new();
            let mut set = |name: &str, value: &str| {
                labels.set(&format!("{prefix}network_{name}"), value);
            };
            set("id", &network.id);
            set("name", &network.name);
            set("scope", &network.scope);
            set("internal", &network.internal.to_string());
            set("ingress", &network.ingress.to_string());
            set_each(&mut labels, &format!("{prefix}network_label_"), &network.labels);
            (network.id, labels.build())
        };
        Ok(networks.into_iter().map(labels).collect())
    }
}

/// The filters of a configuration.
pub(super) fn filters<'a>(configured: impl IntoIterator<Item = (&'a String, &'a Vec<String>)>) -> Filters {
    let mut filters = Filters::new();
    for (name, values) in configured {
        if !values.is_empty() {
            filters.entry(name.clone()).or_default().extend(values.iter().cloned());
        }
    }
    filters
}

/// Copies all labels.
pub(super) fn copy(labels: &mut LabelsBuilder, from: Option<&Labels>) {
    for (name, value) in from.iter().flat_map(|labels| labels.iter()) {
        labels.set(name, value);
    }
}
