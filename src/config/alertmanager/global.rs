//! The `global` block, and which settings of HTTP clients work.

use crate::config::alertmanager::unbuilt::{Unbuilt, set_beside};
use crate::config::http_client::{HttpClientConfig, TlsConfig, TlsVersion};
use crate::config::yaml::block::{Preset, block};
use crate::model::duration::PromDuration;

block! {
    /// Values for all receivers.
    pub struct Global("config.GlobalConfig", "config.plain") {
        /// How long an alert without an end counts as firing; 5 m unless set.
        pub resolve_timeout: PromDuration = "resolve_timeout", always;
        /// How receivers are asked that do not say so themselves.
        pub http_config: Option<HttpClientConfig> = "http_config", omitempty;
        jira_api_url: Unbuilt = "jira_api_url", omitempty;
        smtp_from: Unbuilt = "smtp_from", omitempty;
        smtp_hello: Unbuilt = "smtp_hello", omitempty;
        smtp_smarthost: Unbuilt = "smtp_smarthost", omitempty;
        smtp_auth_username: Unbuilt = "smtp_auth_username", omitempty;
        smtp_auth_password: Unbuilt = "smtp_auth_password", omitempty;
        smtp_auth_password_file: Unbuilt = "smtp_auth_password_file", omitempty;
        smtp_auth_secret: Unbuilt = "smtp_auth_secret", omitempty;
        smtp_auth_secret_file: Unbuilt = "smtp_auth_secret_file", omitempty;
        smtp_auth_identity: Unbuilt = "smtp_auth_identity", omitempty;
        smtp_require_tls: Unbuilt = "smtp_require_tls", omitempty;
        smtp_tls_config: Unbuilt = "smtp_tls_config", omitempty;
        smtp_force_implicit_tls: Unbuilt = "smtp_force_implicit_tls", omitempty;
        slack_api_url: Unbuilt = "slack_api_url", omitempty;
        slack_api_url_file: Unbuilt = "slack_api_url_file", omitempty;
        slack_app_token: Unbuilt = "slack_app_token", omitempty;
        slack_app_token_file: Unbuilt = "slack_app_token_file", omitempty;
        slack_app_url: Unbuilt = "slack_app_url", omitempty;
        pagerduty_url: Unbuilt = "pagerduty_url", omitempty;
        opsgenie_api_url: Unbuilt = "opsgenie_api_url", omitempty;
        opsgenie_api_key: Unbuilt = "opsgenie_api_key", omitempty;
        opsgenie_api_key_file: Unbuilt = "opsgenie_api_key_file", omitempty;
        wechat_api_url: Unbuilt = "wechat_api_url", omitempty;
        wechat_api_secret: Unbuilt = "wechat_api_secret", omitempty;
        wechat_api_secret_file: Unbuilt = "wechat_api_secret_file", omitempty;
        wechat_api_corp_id: Unbuilt = "wechat_api_corp_id", omitempty;
        victorops_api_url: Unbuilt = "victorops_api_url", omitempty;
        victorops_api_key: Unbuilt = "victorops_api_key", omitempty;
        victorops_api_key_file: Unbuilt = "victorops_api_key_file", omitempty;
        telegram_api_url: Unbuilt = "telegram_api_url", omitempty;
        telegram_bot_token: Unbuilt = "telegram_bot_token", omitempty;
        telegram_bot_token_file: Unbuilt = "telegram_bot_token_file", omitempty;
        webex_api_url: Unbuilt = "webex_api_url", omitempty;
        rocketchat_api_url: Unbuilt = "rocketchat_api_url", omitempty;
        rocketchat_token: Unbuilt = "rocketchat_token", omitempty;
        rocketchat_token_file: Unbuilt = "rocketchat_token_file", omitempty;
        rocketchat_token_id: Unbuilt = "rocketchat_token_id", omitempty;
        rocketchat_token_id_file: Unbuilt = "rocketchat_token_id_file", omitempty;
        mattermost_webhook_url: Unbuilt = "mattermost_webhook_url", omitempty;
        mattermost_webhook_url_file: Unbuilt = "mattermost_webhook_url_file", omitempty;
    }
}

impl Preset for Global {
    fn preset() -> Self {
        Self {
            resolve_timeout: PromDuration::from_secs(5 * 60),
            http_config: Some(HttpClientConfig::preset()),
            ..Self::default()
        }
    }
}

impl Global {
    pub(super) fn not_built(&self, place: &str, found: &mut Vec<String>) {
        set_beside(self, &["resolve_timeout", "http_config"], place, found);
        if let Some(http) = &self.http_config {
            http_not_built(http, &format!("{place}.http_config"), found);
        }
    }
}

/// The settings of receivers' HTTP clients that work.
const BUILT: [&str; 11] = [
    "basic_auth",
    "authorization",
    "oauth2",
    "tls_config",
    "follow_redirects",
    "enable_http2",
    "proxy_url",
    "no_proxy",
    "proxy_from_environment",
    "proxy_connect_header",
    "http_headers",
];

/// What receivers' HTTP clients do not do.
pub(super) fn http_not_built(http: &HttpClientConfig, place: &str, found: &mut Vec<String>) {
    set_beside(http, &BUILT, place, found);
    tls_not_built(&http.tls_config, &format!("{place}.tls_config"), found);
    if let Some(oauth2) = &http.oauth2 {
        const NOT_BUILT: [&str; 2] = ["client_secret_ref", "client_certificate_key_ref"];
        let mut set = Vec::new();
        set_beside(&**oauth2, &[], &format!("{place}.oauth2"), &mut set);
        found.extend(set.into_iter().filter(|field| NOT_BUILT.iter().any(|name| field.ends_with(name))));
        tls_not_built(&oauth2.tls_config, &format!("{place}.oauth2.tls_config"), found);
    }
    if let Some(basic) = &http.basic_auth {
        const BUILT: [&str; 4] = ["username", "username_file", "password", "password_file"];
        set_beside(basic, &BUILT, &format!("{place}.basic_auth"), found);
    }
    if let Some(authorization) = &http.authorization {
        const BUILT: [&str; 3] = ["type", "credentials", "credentials_file"];
        set_beside(authorization, &BUILT, &format!("{place}.authorization"), found);
    }
}

/// There is no secret manager, and no TLS before 1.2.
fn tls_not_built(tls: &TlsConfig, place: &str, found: &mut Vec<String>) {
    for (name, reference) in [("ca_ref", &tls.ca_ref), ("cert_ref", &tls.cert_ref), ("key_ref", &tls.key_ref)] {
        if !reference.is_empty() {
            found.push(format!("{place}.{name}"));
        }
    }
    if tls.max_version.is_some_and(|highest| highest < TlsVersion::Tls12) {
        found.push(format!("{place}.max_version"));
    }
}
