//! Discovery through registries and databases of services: Consul, DNS, Eureka, HTTP, PuppetDB, Uyuni, ZooKeeper.

use std::collections::BTreeMap;

use super::http_url;
use crate::config::http_client::{BasicAuth, HttpClientConfig};
use crate::config::url::{ConfigUrl, UrlText};
use crate::config::yaml::Yaml as _;
use crate::config::yaml::block::{Preset, block};
use crate::model::duration::PromDuration;
use crate::model::secret::Secret;

block! {
    /// `consul_sd_configs`.
    pub struct ConsulSd("*consul.SDConfig", "consul.plain") {
        pub(crate) server: String = "server", omitempty;
        pub(crate) path_prefix: String = "path_prefix", omitempty;
        pub(crate) token: Secret<String> = "token", omitempty;
        pub(crate) datacenter: String = "datacenter", omitempty;
        pub(crate) namespace: String = "namespace", omitempty;
        pub(crate) partition: String = "partition", omitempty;
        pub(crate) tag_separator: String = "tag_separator", omitempty;
        pub(crate) scheme: String = "scheme", omitempty;
        pub(crate) username: String = "username", omitempty;
        pub(crate) password: Secret<String> = "password", omitempty;
        pub(crate) allow_stale: bool = "allow_stale", always;
        pub(crate) refresh_interval: PromDuration = "refresh_interval", omitempty;
        pub(crate) services: Vec<String> = "services", omitempty;
        pub(crate) tags: Vec<String> = "tags", omitempty;
        pub(crate) node_meta: BTreeMap<String, String> = "node_meta", omitempty;
        pub(crate) filter: String = "filter", omitempty;
        pub(crate) health_filter: String = "health_filter", omitempty;
        pub(crate) http: HttpClientConfig = "", inline;
    }
}

block! {
    /// `dns_sd_configs`.
    pub struct DnsSd("*dns.SDConfig", "dns.plain") {
        pub(crate) names: Vec<String> = "names", always;
        pub(crate) refresh_interval: PromDuration = "refresh_interval", omitempty;
        pub(crate) record_type: String = "type", always;
        pub(crate) port: i64 = "port", always;
    }
}

block! {
    /// `eureka_sd_configs`.
    pub struct EurekaSd("*eureka.SDConfig", "eureka.plain") {
        pub(crate) server: UrlText = "server", omitempty;
        pub(crate) http: HttpClientConfig = "", inline;
        pub(crate) refresh_interval: PromDuration = "refresh_interval", omitempty;
    }
}

block! {
    /// `http_sd_configs`.
    pub struct HttpSd("*http.SDConfig", "http.plain") {
        pub(crate) http: HttpClientConfig = "", inline;
        pub(crate) refresh_interval: PromDuration = "refresh_interval", omitempty;
        pub(crate) url: UrlText = "url", always;
    }
}

block! {
    /// `nerve_sd_configs`.
    pub struct NerveSd("*zookeeper.NerveSDConfig", "zookeeper.plain") {
        pub(crate) servers: Vec<String> = "servers", always;
        pub(crate) paths: Vec<String> = "paths", always;
        pub(crate) timeout: PromDuration = "timeout", omitempty;
    }
}

block! {
    /// `puppetdb_sd_configs`.
    pub struct PuppetdbSd("*puppetdb.SDConfig", "puppetdb.plain") {
        pub(crate) http: HttpClientConfig = "", inline;
        pub(crate) refresh_interval: PromDuration = "refresh_interval", omitempty;
        pub(crate) url: UrlText = "url", always;
        pub(crate) query: String = "query", always;
        pub(crate) include_parameters: bool = "include_parameters", always;
        pub(crate) port: i64 = "port", always;
    }
}

block! {
    /// `serverset_sd_configs`.
    pub struct ServersetSd("*zookeeper.ServersetSDConfig", "zookeeper.plain") {
        pub(crate) servers: Vec<String> = "servers", always;
        pub(crate) paths: Vec<String> = "paths", always;
        pub(crate) timeout: PromDuration = "timeout", omitempty;
    }
}

block! {
    /// `uyuni_sd_configs`.
    pub struct UyuniSd("*uyuni.SDConfig", "uyuni.plain") {
        pub(crate) server: String = "server", always;
        pub(crate) username: String = "username", always;
        pub(crate) password: Secret<String> = "password", always;
        pub(crate) http: HttpClientConfig = "", inline;
        pub(crate) entitlement: String = "entitlement", omitempty;
        pub(crate) separator: String = "separator", omitempty;
        pub(crate) refresh_interval: PromDuration = "refresh_interval", omitempty;
    }
}

impl Preset for ConsulSd {
    fn preset() -> Self {
        Self {
            tag_separator: ",".to_owned(),
            scheme: "http".to_owned(),
            server: "localhost:8500".to_owned(),
            allow_stale: true,
            refresh_interval: PromDuration::from_secs(30),
            http: HttpClientConfig::preset(),
            ..Self::default()
        }
    }

    fn check(&mut self) -> Result<(), String> {
        if self.server.trim().is_empty() {
            return Err("consul SD configuration requires a server address".to_owned());
        }
        if !self.username.is_empty() || !self.password.is_zero() {
            if self.http.basic_auth.is_some() {
                return Err("at most one of consul SD configuration username and password and basic auth can be \
                            configured"
                    .to_owned());
            }
            self.http.basic_auth = Some(BasicAuth {
                username: self.username.clone(),
                password: self.password.clone(),
                ..BasicAuth::default()
            });
        }
        if !self.token.is_zero() && (self.http.authorization.is_some() || self.http.oauth2.is_some()) {
            return Err("at most one of consul SD token, authorization, or oauth2 can be configured".to_owned());
        }
        self.http.check()
    }
}

impl Preset for DnsSd {
    fn preset() -> Self {
        Self { refresh_interval: PromDuration::from_secs(30), record_type: "SRV".to_owned(), ..Self::default() }
    }

    fn check(&mut self) -> Result<(), String> {
        if self.names.is_empty() {
            return Err("DNS-SD config must contain at least one SRV record name".to_owned());
        }
        match self.record_type.to_ascii_uppercase().as_str() {
            "SRV" => Ok(()),
            "A" | "AAAA" | "MX" | "NS" if self.port == 0 => {
                Err("a port is required in DNS-SD configs for all record types except SRV".to_owned())
            }
            "A" | "AAAA" | "MX" | "NS" => Ok(()),
            _ => Err(format!("invalid DNS-SD records type {}", self.record_type)),
        }
    }
}

impl Preset for EurekaSd {
    fn preset() -> Self {
        Self { refresh_interval: PromDuration::from_secs(30), http: HttpClientConfig::preset(), ..Self::default() }
    }

    fn check(&mut self) -> Result<(), String> {
        if self.server.expose().is_empty() {
            return Err("eureka_sd: empty or null eureka server".to_owned());
        }
        let url = ConfigUrl::parse(self.server.expose())?;
        if url.scheme().is_empty() || url.host().is_empty() {
            return Err("eureka_sd: invalid eureka server URL".to_owned());
        }
        self.http.check()
    }
}

impl Preset for HttpSd {
    fn preset() -> Self {
        Self { refresh_interval: PromDuration::from_secs(60), http: HttpClientConfig::preset(), ..Self::default() }
    }

    fn check(&mut self) -> Result<(), String> {
        http_url(self.url.expose())?;
        self.http.check()
    }
}

impl Preset for PuppetdbSd {
    fn preset() -> Self {
        Self {
            port: 80,
            refresh_interval: PromDuration::from_secs(60),
            http: HttpClientConfig::preset(),
            ..Self::default()
        }
    }

    fn check(&mut self) -> Result<(), String> {
        http_url(self.url.expose())?;
        if self.query.is_empty() {
            return Err("query missing".to_owned());
        }
        self.http.check()
    }
}

impl Preset for UyuniSd {
    fn preset() -> Self {
        Self {
            entitlement: "monitoring_entitled".to_owned(),
            separator: ",".to_owned(),
            refresh_interval: PromDuration::from_secs(60),
            http: HttpClientConfig::preset(),
            ..Self::default()
        }
    }

    fn check(&mut self) -> Result<(), String> {
        if self.server.is_empty() {
            return Err("Uyuni SD configuration requires server host".to_owned());
        }
        ConfigUrl::parse(&self.server).map_err(|e| format!("Uyuni Server URL is not valid: {e}"))?;
        if self.username.is_empty() {
            return Err("Uyuni SD configuration requires a username".to_owned());
        }
        if self.password.is_zero() {
            return Err("Uyuni SD configuration requires a password".to_owned());
        }
        self.http.check()
    }
}

impl Preset for NerveSd {
    fn preset() -> Self {
        Self { timeout: PromDuration::from_secs(10), ..Self::default() }
    }

    fn check(&mut self) -> Result<(), String> {
        zookeeper("nerve", &self.servers, &self.paths)
    }
}

impl Preset for ServersetSd {
    fn preset() -> Self {
        Self { timeout: PromDuration::from_secs(10), ..Self::default() }
    }

    fn check(&mut self) -> Result<(), String> {
        zookeeper("serverset", &self.servers, &self.paths)
    }
}

fn zookeeper(kind: &str, servers: &[String], paths: &[String]) -> Result<(), String> {
    if servers.is_empty() {
        return Err(format!("{kind} SD config must contain at least one Zookeeper server"));
    }
    if paths.is_empty() {
        return Err(format!("{kind} SD config must contain at least one path"));
    }
    match paths.iter().find(|path| !path.starts_with('/')) {
        Some(path) => Err(format!("{kind} SD config paths must begin with '/': {path}")),
        None => Ok(()),
    }
}
