//! The `alerting` block: where alerts go and how they are relabelled on the way.

use super::discovery::DiscoveryConfigs;
use super::http_client::HttpClientConfig;
use super::names::ValidationScheme;
use super::relabel::RelabelConfig;
use super::remote_auth::SigV4Config;
use super::yaml::block::{Preset, block};
use super::yaml::{Abort, Decoded, Decoder, Node, Out, Yaml, text_of};
use crate::model::duration::PromDuration;

block! {
    /// Alertmanagers and the rules for alerts sent to them.
    pub struct AlertingConfig("config.AlertingConfig", "config.plain") {
        /// Rules for every alert.
        pub alert_relabel_configs: Vec<RelabelConfig> = "alert_relabel_configs", omitempty;
        /// Groups of Alertmanagers.
        pub alertmanagers: Vec<AlertmanagerConfig> = "alertmanagers", omitempty;
    }
}

block! {
    /// A group of Alertmanagers with the same settings.
    pub struct AlertmanagerConfig("*config.AlertmanagerConfig", "config.AlertmanagerConfig") {
        /// The HTTP client.
        pub http: HttpClientConfig = "", inline;
        /// Signing for AWS.
        pub sigv4: Option<SigV4Config> = "sigv4", omitempty;
        /// `http` or `https`; `http` unless set.
        pub scheme: String = "scheme", omitempty;
        /// What stands before the path of the API.
        pub path_prefix: String = "path_prefix", omitempty;
        /// Longest time for a request; 10 s unless set.
        pub timeout: PromDuration = "timeout", omitempty;
        /// Version of the API; there is only `v2`.
        pub api_version: ApiVersion = "api_version", always;
        /// Rules that make Alertmanagers from what discovery found.
        pub relabel_configs: Vec<RelabelConfig> = "relabel_configs", omitempty;
        /// Rules for the alerts sent to this group.
        pub alert_relabel_configs: Vec<RelabelConfig> = "alert_relabel_configs", omitempty;
        /// Where Alertmanagers are found.
        pub discovery: DiscoveryConfigs = "", inline;
    }
}

impl Preset for AlertingConfig {
    fn check(&mut self) -> Result<(), String> {
        if self.alert_relabel_configs.contains(&RelabelConfig::default()) {
            return Err("empty or null alert relabeling rule".to_owned());
        }
        Ok(())
    }
}

impl AlertingConfig {
    pub(super) fn validate(&mut self, scheme: ValidationScheme) -> Result<(), String> {
        // Prometheus crashes here.
        if self.alertmanagers.contains(&AlertmanagerConfig::default()) {
            return Err("empty or null Alertmanager section".to_owned());
        }
        let own = self.alert_relabel_configs.iter_mut();
        let of_groups = self
            .alertmanagers
            .iter_mut()
            .flat_map(|am| am.alert_relabel_configs.iter_mut().chain(&mut am.relabel_configs));
        own.chain(of_groups).try_for_each(|rule| rule.validate(scheme))
    }
}

impl Preset for AlertmanagerConfig {
    fn preset() -> Self {
        Self {
            scheme: "http".to_owned(),
            timeout: PromDuration::from_secs(10),
            api_version: ApiVersion::V2,
            http: HttpClientConfig::preset(),
            ..Self::default()
        }
    }

    fn check(&mut self) -> Result<(), String> {
        self.discovery.check()?;
        self.http.check()?;
        let authenticates =
            self.http.basic_auth.is_some() || self.http.authorization.is_some() || self.http.oauth2.is_some();
        if authenticates && self.sigv4.is_some() {
            return Err("at most one of basic_auth, authorization, oauth2, & sigv4 must be configured".to_owned());
        }
        if self.relabel_configs.is_empty() {
            self.discovery.check_static_targets()?;
        }
        let null = RelabelConfig::default();
        if self.relabel_configs.contains(&null) {
            return Err("empty or null Alertmanager target relabeling rule".to_owned());
        }
        if self.alert_relabel_configs.contains(&null) {
            return Err("empty or null Alertmanager alert relabeling rule".to_owned());
        }
        Ok(())
    }
}

/// Version of the Alertmanager's API.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ApiVersion {
    /// An explicit null.
    #[default]
    Unset,
    /// The only one there is.
    V2,
}

impl Yaml for ApiVersion {
    fn go_type() -> String {
        "config.AlertmanagerAPIVersion".to_owned()
    }
    fn decode(&mut self, node: &Node, decoder: &mut Decoder) -> Decoded {
        let Some(text) = text_of(node, decoder, "config.plain")? else { return Ok(false) };
        if text != "v2" {
            let message = format!("expected Alertmanager api version to be one of [v2] but got {text}");
            return Err(Abort::at(node, message));
        }
        *self = Self::V2;
        Ok(true)
    }
    fn encode(&self) -> Out {
        Out::Text(if *self == Self::V2 { "v2" } else { "" }.to_owned())
    }
    fn is_zero(&self) -> bool {
        *self == Self::Unset
    }
}
