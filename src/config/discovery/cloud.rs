//! Discovery in the clouds of several providers, A to L.

use super::expect_role;
use crate::config::http_client::HttpClientConfig;
use crate::config::yaml::Yaml as _;
use crate::config::yaml::block::{Preset, block};
use crate::model::duration::PromDuration;
use crate::model::go;
use crate::model::secret::Secret;

block! {
    /// `azure_sd_configs`.
    pub struct AzureSd("*azure.SDConfig", "azure.plain") {
        pub(crate) environment: String = "environment", omitempty;
        pub(crate) port: i64 = "port", always;
        pub(crate) subscription_id: String = "subscription_id", always;
        pub(crate) tenant_id: String = "tenant_id", omitempty;
        pub(crate) client_id: String = "client_id", omitempty;
        pub(crate) client_secret: Secret<String> = "client_secret", omitempty;
        pub(crate) refresh_interval: PromDuration = "refresh_interval", omitempty;
        pub(crate) authentication_method: String = "authentication_method", omitempty;
        pub(crate) resource_group: String = "resource_group", omitempty;
        pub(crate) http: HttpClientConfig = "", inline;
    }
}

block! {
    /// `digitalocean_sd_configs`.
    pub struct DigitalOceanSd("*digitalocean.SDConfig", "digitalocean.plain") {
        pub(crate) http: HttpClientConfig = "", inline;
        pub(crate) refresh_interval: PromDuration = "refresh_interval", always;
        pub(crate) port: i64 = "port", always;
        pub(crate) role: String = "role", always;
        pub(crate) httpclient: Option<bool> = "httpclient", always;
    }
}

block! {
    /// `gce_sd_configs`.
    pub struct GceSd("*gce.SDConfig", "gce.plain") {
        pub(crate) project: String = "project", always;
        pub(crate) zone: String = "zone", always;
        pub(crate) filter: String = "filter", omitempty;
        pub(crate) refresh_interval: PromDuration = "refresh_interval", omitempty;
        pub(crate) port: i64 = "port", always;
        pub(crate) tag_separator: String = "tag_separator", omitempty;
    }
}

block! {
    /// `hetzner_sd_configs`.
    pub struct HetznerSd("*hetzner.SDConfig", "hetzner.plain") {
        pub(crate) http: HttpClientConfig = "", inline;
        pub(crate) refresh_interval: PromDuration = "refresh_interval", always;
        pub(crate) port: i64 = "port", always;
        pub(crate) role: String = "role", always;
        pub(crate) label_selector: String = "label_selector", omitempty;
    }
}

block! {
    /// `ionos_sd_configs`.
    pub struct IonosSd("*ionos.SDConfig", "ionos.plain") {
        pub(crate) datacenter_id: String = "datacenter_id", always;
        pub(crate) http: HttpClientConfig = "", inline;
        pub(crate) refresh_interval: PromDuration = "refresh_interval", always;
        pub(crate) port: i64 = "port", always;
    }
}

block! {
    /// `linode_sd_configs`.
    pub struct LinodeSd("*linode.SDConfig", "linode.plain") {
        pub(crate) http: HttpClientConfig = "", inline;
        pub(crate) refresh_interval: PromDuration = "refresh_interval", always;
        pub(crate) port: i64 = "port", always;
        pub(crate) tag_separator: String = "tag_separator", omitempty;
        pub(crate) region: String = "region", omitempty;
    }
}

impl Preset for AzureSd {
    fn preset() -> Self {
        Self {
            port: 80,
            refresh_interval: PromDuration::from_secs(300),
            environment: "AzurePublicCloud".to_owned(),
            authentication_method: "OAuth".to_owned(),
            http: HttpClientConfig::preset(),
            ..Self::default()
        }
    }

    fn check(&mut self) -> Result<(), String> {
        let required = |missing: bool, name: &str| {
            if missing { Err(format!("azure SD configuration requires a {name}")) } else { Ok(()) }
        };
        required(self.subscription_id.is_empty(), "subscription_id")?;
        if self.authentication_method == "OAuth" {
            required(self.tenant_id.is_empty(), "tenant_id")?;
            required(self.client_id.is_empty(), "client_id")?;
            required(self.client_secret.is_zero(), "client_secret")?;
        }
        if !["OAuth", "ManagedIdentity", "SDK", "WorkloadIdentity"].contains(&self.authentication_method.as_str()) {
            return Err(format!(
                "unknown authentication_type {}. Supported types are \"OAuth\", \"ManagedIdentity\", \"SDK\" or \
                 \"WorkloadIdentity\"",
                go::quote(&self.authentication_method)
            ));
        }
        self.http.check()
    }
}

impl Preset for DigitalOceanSd {
    fn preset() -> Self {
        Self {
            port: 80,
            refresh_interval: PromDuration::from_secs(60),
            role: "droplets".to_owned(),
            http: HttpClientConfig::preset(),
            ..Self::default()
        }
    }

    fn check(&mut self) -> Result<(), String> {
        let missing = "role missing (one of: droplets, databases)";
        expect_role(&self.role, &["droplets", "databases"], missing, "DigitalOcean SD role")?;
        self.http.check()
    }
}

impl Preset for GceSd {
    fn preset() -> Self {
        Self {
            port: 80,
            tag_separator: ",".to_owned(),
            refresh_interval: PromDuration::from_secs(60),
            ..Self::default()
        }
    }

    fn check(&mut self) -> Result<(), String> {
        if self.project.is_empty() {
            return Err("GCE SD configuration requires a project".to_owned());
        }
        if self.zone.is_empty() {
            return Err("GCE SD configuration requires a zone".to_owned());
        }
        Ok(())
    }
}

impl Preset for HetznerSd {
    fn preset() -> Self {
        Self {
            port: 80,
            refresh_interval: PromDuration::from_secs(60),
            http: HttpClientConfig::preset(),
            ..Self::default()
        }
    }

    fn check(&mut self) -> Result<(), String> {
        expect_role(&self.role, &["robot", "hcloud"], "role missing (one of: robot, hcloud)", "role")?;
        self.http.check()
    }
}

impl Preset for IonosSd {
    fn preset() -> Self {
        Self {
            port: 80,
            refresh_interval: PromDuration::from_secs(60),
            http: HttpClientConfig::preset(),
            ..Self::default()
        }
    }

    fn check(&mut self) -> Result<(), String> {
        if self.datacenter_id.is_empty() {
            return Err("datacenter id can't be empty".to_owned());
        }
        self.http.check()
    }
}

impl Preset for LinodeSd {
    fn preset() -> Self {
        Self {
            port: 80,
            tag_separator: ",".to_owned(),
            refresh_interval: PromDuration::from_secs(60),
            http: HttpClientConfig::preset(),
            ..Self::default()
        }
    }

    fn check(&mut self) -> Result<(), String> {
        self.http.check()
    }
}
