//! Discovery among containers and their schedulers: Docker, Kuma, Marathon, Nomad.

use crate::config::http_client::HttpClientConfig;
use crate::config::path::FilePath;
use crate::config::url::ConfigUrl;
use crate::config::yaml::Yaml as _;
use crate::config::yaml::block::{Preset, block};
use crate::model::duration::PromDuration;
use crate::model::secret::Secret;

block! {
    /// A condition on what is listed.
    pub(crate) struct Filter("moby.Filter") {
        pub(crate) name: String = "name", always;
        pub(crate) values: Vec<String> = "values", always;
    }
}

block! {
    /// `docker_sd_configs`.
    pub struct DockerSd("*moby.DockerSDConfig", "moby.plain") {
        pub(crate) http: HttpClientConfig = "", inline;
        pub(crate) host: String = "host", always;
        pub(crate) port: i64 = "port", always;
        pub(crate) filters: Vec<Filter> = "filters", always;
        pub(crate) host_networking_host: String = "host_networking_host", always;
        pub(crate) refresh_interval: PromDuration = "refresh_interval", always;
        pub(crate) match_first_network: bool = "match_first_network", always;
    }
}

block! {
    /// `dockerswarm_sd_configs`.
    pub struct DockerSwarmSd("*moby.DockerSwarmSDConfig", "moby.plain") {
        pub(crate) http: HttpClientConfig = "", inline;
        pub(crate) host: String = "host", always;
        pub(crate) role: String = "role", always;
        pub(crate) port: i64 = "port", always;
        pub(crate) filters: Vec<Filter> = "filters", always;
        pub(crate) refresh_interval: PromDuration = "refresh_interval", always;
    }
}

block! {
    /// `kuma_sd_configs`.
    pub struct KumaSd("*xds.SDConfig", "xds.plainKumaConf") {
        pub(crate) http: HttpClientConfig = "", inline;
        pub(crate) refresh_interval: PromDuration = "refresh_interval", omitempty;
        pub(crate) fetch_timeout: PromDuration = "fetch_timeout", omitempty;
        pub(crate) server: String = "server", omitempty;
        pub(crate) client_id: String = "client_id", omitempty;
    }
}

block! {
    /// `marathon_sd_configs`.
    pub struct MarathonSd("*marathon.SDConfig", "marathon.plain") {
        pub(crate) servers: Vec<String> = "servers", omitempty;
        pub(crate) refresh_interval: PromDuration = "refresh_interval", omitempty;
        pub(crate) auth_token: Secret<String> = "auth_token", omitempty;
        pub(crate) auth_token_file: FilePath = "auth_token_file", omitempty;
        pub(crate) http: HttpClientConfig = "", inline;
    }
}

block! {
    /// `nomad_sd_configs`.
    pub struct NomadSd("*nomad.SDConfig", "nomad.plain") {
        pub(crate) allow_stale: bool = "allow_stale", always;
        pub(crate) http: HttpClientConfig = "", inline;
        pub(crate) namespace: String = "namespace", always;
        pub(crate) refresh_interval: PromDuration = "refresh_interval", always;
        pub(crate) region: String = "region", always;
        pub(crate) server: String = "server", always;
        pub(crate) tag_separator: String = "tag_separator", omitempty;
    }
}

impl Preset for DockerSd {
    fn preset() -> Self {
        Self {
            port: 80,
            host_networking_host: "localhost".to_owned(),
            match_first_network: true,
            refresh_interval: PromDuration::from_secs(60),
            http: HttpClientConfig::preset(),
            ..Self::default()
        }
    }

    fn check(&mut self) -> Result<(), String> {
        if self.host.is_empty() {
            return Err("host missing".to_owned());
        }
        ConfigUrl::parse(&self.host)?;
        self.http.check()
    }
}

impl Preset for DockerSwarmSd {
    fn preset() -> Self {
        Self {
            port: 80,
            refresh_interval: PromDuration::from_secs(60),
            http: HttpClientConfig::preset(),
            ..Self::default()
        }
    }

    fn check(&mut self) -> Result<(), String> {
        if self.host.is_empty() {
            return Err("host missing".to_owned());
        }
        ConfigUrl::parse(&self.host)?;
        match self.role.as_str() {
            "services" | "nodes" | "tasks" => {}
            "" => return Err("role missing (one of: tasks, services, nodes)".to_owned()),
            role => return Err(format!("invalid role {role}, expected tasks, services, or nodes")),
        }
        self.http.check()
    }
}

impl Preset for KumaSd {
    fn preset() -> Self {
        Self {
            refresh_interval: PromDuration::from_secs(15),
            fetch_timeout: PromDuration::from_secs(120),
            http: HttpClientConfig::preset(),
            ..Self::default()
        }
    }

    fn check(&mut self) -> Result<(), String> {
        if self.server.is_empty() {
            return Err("kuma SD server must not be empty: ".to_owned());
        }
        let url = ConfigUrl::parse(&self.server)?;
        if url.scheme().is_empty() || url.host().is_empty() {
            return Err(format!("kuma SD server must not be empty and have a scheme: {}", self.server));
        }
        self.http.check()
    }
}

impl Preset for MarathonSd {
    fn preset() -> Self {
        Self { refresh_interval: PromDuration::from_secs(30), http: HttpClientConfig::preset(), ..Self::default() }
    }

    fn check(&mut self) -> Result<(), String> {
        if self.servers.is_empty() {
            return Err("marathon_sd: must contain at least one Marathon server".to_owned());
        }
        let (token, file) = (!self.auth_token.is_zero(), !self.auth_token_file.is_empty());
        if token && file {
            return Err("marathon_sd: at most one of auth_token & auth_token_file must be configured".to_owned());
        }
        if token || file {
            let bearer = !self.http.bearer_token.is_zero() || !self.http.bearer_token_file.is_empty();
            let others = if self.http.basic_auth.is_some() {
                "basic_auth, auth_token & auth_token_file"
            } else if bearer {
                "bearer_token, bearer_token_file, auth_token & auth_token_file"
            } else if self.http.authorization.is_some() {
                "auth_token, auth_token_file & authorization"
            } else {
                return self.http.check();
            };
            return Err(format!("marathon_sd: at most one of {others} must be configured"));
        }
        self.http.check()
    }
}

impl Preset for NomadSd {
    fn preset() -> Self {
        Self {
            allow_stale: true,
            namespace: "default".to_owned(),
            region: "global".to_owned(),
            server: "http://localhost:4646".to_owned(),
            tag_separator: ",".to_owned(),
            refresh_interval: PromDuration::from_secs(60),
            http: HttpClientConfig::preset(),
        }
    }

    fn check(&mut self) -> Result<(), String> {
        if self.server.trim().is_empty() {
            return Err("nomad SD configuration requires a server address".to_owned());
        }
        self.http.check()
    }
}
