//! Discovery in the clouds of several providers, M to Z.

use super::expect_role;
use crate::config::http_client::{HttpClientConfig, TlsConfig};
use crate::config::path::FilePath;
use crate::config::url::ConfigUrl;
use crate::config::yaml::Yaml as _;
use crate::config::yaml::block::{Preset, block};
use crate::model::duration::PromDuration;
use crate::model::go;
use crate::model::secret::Secret;

block! {
    /// `oci_sd_configs`.
    pub struct OciSd("*oci.SDConfig", "oci.plain") {
        pub(crate) auth: String = "auth", omitempty;
        pub(crate) tenancy: String = "tenancy", omitempty;
        pub(crate) user: String = "user", omitempty;
        pub(crate) fingerprint: String = "fingerprint", omitempty;
        pub(crate) key_file: FilePath = "key_file", omitempty;
        pub(crate) key_passphrase: Secret<String> = "key_passphrase", omitempty;
        pub(crate) key_passphrase_file: FilePath = "key_passphrase_file", omitempty;
        pub(crate) region: String = "region", always;
        pub(crate) compartments: Vec<String> = "compartments", omitempty;
        pub(crate) http: HttpClientConfig = "", inline;
        pub(crate) port: i64 = "port", always;
        pub(crate) refresh_interval: PromDuration = "refresh_interval", always;
    }
}

block! {
    /// `openstack_sd_configs`.
    pub struct OpenstackSd("*openstack.SDConfig", "openstack.plain") {
        pub(crate) identity_endpoint: String = "identity_endpoint", always;
        pub(crate) username: String = "username", always;
        pub(crate) userid: String = "userid", always;
        pub(crate) password: Secret<String> = "password", always;
        pub(crate) project_name: String = "project_name", always;
        pub(crate) project_id: String = "project_id", always;
        pub(crate) domain_name: String = "domain_name", always;
        pub(crate) domain_id: String = "domain_id", always;
        pub(crate) application_credential_name: String = "application_credential_name", always;
        pub(crate) application_credential_id: String = "application_credential_id", always;
        pub(crate) application_credential_secret: Secret<String> = "application_credential_secret", always;
        pub(crate) role: String = "role", always;
        pub(crate) region: String = "region", always;
        pub(crate) refresh_interval: PromDuration = "refresh_interval", always;
        pub(crate) port: i64 = "port", always;
        pub(crate) all_tenants: bool = "all_tenants", omitempty;
        pub(crate) tls_config: TlsConfig = "tls_config", omitempty;
        pub(crate) availability: String = "availability", omitempty;
    }
}

block! {
    /// `outscale_sd_configs`.
    pub struct OutscaleSd("*outscale.SDConfig", "outscale.plain") {
        pub(crate) endpoint: String = "endpoint", omitempty;
        pub(crate) region: String = "region", always;
        pub(crate) access_key: String = "access_key", always;
        pub(crate) secret_key: Secret<String> = "secret_key", always;
        pub(crate) secret_key_file: FilePath = "secret_key_file", always;
        pub(crate) refresh_interval: PromDuration = "refresh_interval", omitempty;
        pub(crate) port: i64 = "port", always;
        pub(crate) http: HttpClientConfig = "", inline;
    }
}

block! {
    /// `ovhcloud_sd_configs`.
    pub struct OvhcloudSd("*ovhcloud.SDConfig", "ovhcloud.plain") {
        pub(crate) endpoint: String = "endpoint", always;
        pub(crate) application_key: String = "application_key", always;
        pub(crate) application_secret: Secret<String> = "application_secret", always;
        pub(crate) consumer_key: Secret<String> = "consumer_key", always;
        pub(crate) refresh_interval: PromDuration = "refresh_interval", always;
        pub(crate) service: String = "service", always;
    }
}

block! {
    /// `scaleway_sd_configs`.
    pub struct ScalewaySd("*scaleway.SDConfig", "scaleway.plain") {
        pub(crate) project_id: String = "project_id", always;
        pub(crate) api_url: String = "api_url", omitempty;
        pub(crate) zone: String = "zone", always;
        pub(crate) access_key: String = "access_key", always;
        pub(crate) secret_key: Secret<String> = "secret_key", always;
        pub(crate) secret_key_file: FilePath = "secret_key_file", always;
        pub(crate) name_filter: String = "name_filter", omitempty;
        pub(crate) tags_filter: Vec<String> = "tags_filter", omitempty;
        pub(crate) http: HttpClientConfig = "", inline;
        pub(crate) refresh_interval: PromDuration = "refresh_interval", always;
        pub(crate) port: i64 = "port", always;
        pub(crate) role: String = "role", always;
    }
}

block! {
    /// `stackit_sd_configs`.
    pub struct StackitSd("*stackit.SDConfig", "stackit.plain") {
        pub(crate) http: HttpClientConfig = "", inline;
        pub(crate) project: String = "project", always;
        pub(crate) refresh_interval: PromDuration = "refresh_interval", omitempty;
        pub(crate) port: i64 = "port", omitempty;
        pub(crate) region: String = "region", omitempty;
        pub(crate) endpoint: String = "endpoint", omitempty;
        pub(crate) service_account_key: Secret<String> = "service_account_key", omitempty;
        pub(crate) private_key: Secret<String> = "private_key", omitempty;
        pub(crate) service_account_key_path: String = "service_account_key_path", omitempty;
        pub(crate) private_key_path: String = "private_key_path", omitempty;
        pub(crate) credentials_file_path: String = "credentials_file_path", omitempty;
    }
}

block! {
    /// `triton_sd_configs`.
    pub struct TritonSd("*triton.SDConfig", "triton.plain") {
        pub(crate) account: String = "account", always;
        pub(crate) role: String = "role", always;
        pub(crate) dns_suffix: String = "dns_suffix", always;
        pub(crate) endpoint: String = "endpoint", always;
        pub(crate) groups: Vec<String> = "groups", omitempty;
        pub(crate) port: i64 = "port", always;
        pub(crate) refresh_interval: PromDuration = "refresh_interval", omitempty;
        pub(crate) tls_config: TlsConfig = "tls_config", omitempty;
        pub(crate) version: i64 = "version", always;
    }
}

block! {
    /// `vultr_sd_configs`.
    pub struct VultrSd("*vultr.SDConfig", "vultr.plain") {
        pub(crate) http: HttpClientConfig = "", inline;
        pub(crate) refresh_interval: PromDuration = "refresh_interval", always;
        pub(crate) port: i64 = "port", always;
    }
}

impl Preset for OciSd {
    fn preset() -> Self {
        Self {
            port: 80,
            refresh_interval: PromDuration::from_secs(60),
            auth: "api_key".to_owned(),
            http: HttpClientConfig::preset(),
            ..Self::default()
        }
    }

    fn check(&mut self) -> Result<(), String> {
        if self.region.is_empty() {
            return Err("oci_sd: region is required".to_owned());
        }
        let passphrase = !self.key_passphrase.is_zero();
        let passphrase_file = !self.key_passphrase_file.is_empty();
        let keys = [
            (self.tenancy.is_empty(), "tenancy"),
            (self.user.is_empty(), "user"),
            (self.fingerprint.is_empty(), "fingerprint"),
            (self.key_file.is_empty(), "key_file"),
        ];
        match self.auth.as_str() {
            "api_key" => {
                if let Some((_, name)) = keys.iter().find(|(missing, _)| *missing) {
                    return Err(format!("oci_sd: api_key auth requires {name}"));
                }
                if passphrase && passphrase_file {
                    return Err(
                        "oci_sd: at most one of key_passphrase and key_passphrase_file must be configured".to_owned()
                    );
                }
            }
            "instance_principal" if passphrase || passphrase_file || keys.iter().any(|(missing, _)| !missing) => {
                return Err("oci_sd: instance_principal auth must not have tenancy, user, fingerprint, key_file, \
                            key_passphrase, or key_passphrase_file set"
                    .to_owned());
            }
            "instance_principal" => {}
            other => {
                let other = go::quote(other);
                return Err(format!(
                    "oci_sd: unknown auth method {other}, expected \"api_key\" or \"instance_principal\""
                ));
            }
        }
        if let Some(at) = self.compartments.iter().position(String::is_empty) {
            return Err(format!("oci_sd: compartments[{at}] must not be empty"));
        }
        if self.refresh_interval.is_zero() {
            return Err("oci_sd: refresh_interval must be positive, got 0s".to_owned());
        }
        self.http.check()
    }
}

impl Preset for OpenstackSd {
    fn preset() -> Self {
        Self {
            port: 80,
            refresh_interval: PromDuration::from_secs(60),
            availability: "public".to_owned(),
            ..Self::default()
        }
    }

    fn check(&mut self) -> Result<(), String> {
        if !["public", "internal", "admin"].contains(&self.availability.as_str()) {
            return Err(format!(
                "unknown availability {}, must be one of admin, internal or public",
                self.availability
            ));
        }
        let missing = "role missing (one of: instance, hypervisor, loadbalancer)";
        expect_role(&self.role, &["hypervisor", "instance", "loadbalancer"], missing, "OpenStack SD role")?;
        if self.region.is_empty() {
            return Err("openstack SD configuration requires a region".to_owned());
        }
        Ok(())
    }
}

impl Preset for OutscaleSd {
    fn preset() -> Self {
        Self {
            port: 80,
            refresh_interval: PromDuration::from_secs(60),
            region: "eu-west-2".to_owned(),
            http: HttpClientConfig::preset(),
            ..Self::default()
        }
    }

    fn check(&mut self) -> Result<(), String> {
        if self.region.is_empty() {
            return Err("outscale SD configuration requires a region".to_owned());
        }
        if self.access_key.is_empty() {
            return Err("outscale SD configuration requires access_key".to_owned());
        }
        if self.secret_key.is_zero() && self.secret_key_file.is_empty() {
            return Err("one of secret_key & secret_key_file must be configured".to_owned());
        }
        if !self.secret_key.is_zero() && !self.secret_key_file.is_empty() {
            return Err("at most one of secret_key & secret_key_file must be configured".to_owned());
        }
        if self.endpoint.is_empty() {
            self.endpoint = format!("https://api.{}.outscale.com/api/v1", self.region);
        }
        self.http.check()
    }
}

impl Preset for OvhcloudSd {
    fn preset() -> Self {
        Self { refresh_interval: PromDuration::from_secs(60), endpoint: "ovh-eu".to_owned(), ..Self::default() }
    }

    fn check(&mut self) -> Result<(), String> {
        if self.endpoint.is_empty() {
            return Err("endpoint can not be empty".to_owned());
        }
        if self.application_key.is_empty() {
            return Err("application key can not be empty".to_owned());
        }
        if self.application_secret.is_zero() {
            return Err("application secret can not be empty".to_owned());
        }
        if self.consumer_key.is_zero() {
            return Err("consumer key can not be empty".to_owned());
        }
        match self.service.as_str() {
            "dedicated_server" | "vps" => Ok(()),
            other => Err(format!("unknown service: {other}")),
        }
    }
}

impl Preset for ScalewaySd {
    fn preset() -> Self {
        Self {
            port: 80,
            refresh_interval: PromDuration::from_secs(60),
            zone: "fr-par-1".to_owned(),
            api_url: "https://api.scaleway.com".to_owned(),
            http: HttpClientConfig::preset(),
            ..Self::default()
        }
    }

    fn check(&mut self) -> Result<(), String> {
        let missing = "role missing (one of: instance, baremetal)";
        expect_role(&self.role, &["instance", "baremetal"], missing, "role")?;
        if self.project_id.is_empty() {
            return Err("project_id is mandatory".to_owned());
        }
        if self.secret_key.is_zero() && self.secret_key_file.is_empty() {
            return Err("one of secret_key & secret_key_file must be configured".to_owned());
        }
        if !self.secret_key.is_zero() && !self.secret_key_file.is_empty() {
            return Err("at most one of secret_key & secret_key_file must be configured".to_owned());
        }
        if self.access_key.is_empty() {
            return Err("access_key is mandatory".to_owned());
        }
        self.http.check()
    }
}

impl Preset for StackitSd {
    fn preset() -> Self {
        Self {
            port: 80,
            refresh_interval: PromDuration::from_secs(60),
            region: "eu01".to_owned(),
            http: HttpClientConfig::preset(),
            ..Self::default()
        }
    }

    fn check(&mut self) -> Result<(), String> {
        if self.endpoint.is_empty() && self.region.is_empty() {
            return Err("stackit_sd: endpoint and region missing".to_owned());
        }
        ConfigUrl::parse(&self.endpoint)
            .map_err(|e| format!("stackit_sd: invalid endpoint {}: {e}", go::quote(&self.endpoint)))?;
        self.http.check()
    }
}

impl Preset for TritonSd {
    fn preset() -> Self {
        Self {
            role: "container".to_owned(),
            port: 9163,
            version: 1,
            refresh_interval: PromDuration::from_secs(60),
            ..Self::default()
        }
    }

    fn check(&mut self) -> Result<(), String> {
        if self.role != "container" && self.role != "cn" {
            return Err("triton SD configuration requires role to be 'container' or 'cn'".to_owned());
        }
        if self.account.is_empty() {
            return Err("triton SD configuration requires an account".to_owned());
        }
        if self.dns_suffix.is_empty() {
            return Err("triton SD configuration requires a dns_suffix".to_owned());
        }
        if self.endpoint.is_empty() {
            return Err("triton SD configuration requires an endpoint".to_owned());
        }
        if self.refresh_interval.is_zero() {
            return Err("triton SD configuration requires RefreshInterval to be a positive integer".to_owned());
        }
        Ok(())
    }
}

impl Preset for VultrSd {
    fn preset() -> Self {
        Self { port: 80, refresh_interval: PromDuration::from_secs(60), http: HttpClientConfig::preset() }
    }

    fn check(&mut self) -> Result<(), String> {
        self.http.check()
    }
}
