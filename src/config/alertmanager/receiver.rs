//! Receivers: who is notified, and how.

use std::collections::BTreeMap;

use crate::config::alertmanager::global::{Global, http_not_built};
use crate::config::alertmanager::unbuilt::{Unbuilt, set_beside};
use crate::config::http_client::HttpClientConfig;
use crate::config::url::ConfigUrl;
use crate::config::yaml::block::{Preset, block};
use crate::config::yaml::{Abort, Decoded, Decoder, Node, Out, Yaml, text_of};
use crate::model::go;
use crate::model::go_time;
use crate::model::secret::Secret;

block! {
    /// Who is notified: a name, and the integrations that notify.
    pub struct Receiver("config.Receiver", "config.plain") {
        /// The name that routes use.
        pub name: String = "name", always;
        /// Labels of the receiver itself; `name` is always among them.
        pub labels: BTreeMap<String, String> = "labels", omitempty;
        discord: Vec<Unbuilt> = "discord_configs", omitempty;
        email: Vec<Unbuilt> = "email_configs", omitempty;
        incidentio: Vec<Unbuilt> = "incidentio_configs", omitempty;
        pagerduty: Vec<Unbuilt> = "pagerduty_configs", omitempty;
        slack: Vec<Unbuilt> = "slack_configs", omitempty;
        /// Webhooks.
        pub webhook_configs: Vec<Option<Webhook>> = "webhook_configs", omitempty;
        opsgenie: Vec<Unbuilt> = "opsgenie_configs", omitempty;
        wechat: Vec<Unbuilt> = "wechat_configs", omitempty;
        pushover: Vec<Unbuilt> = "pushover_configs", omitempty;
        victorops: Vec<Unbuilt> = "victorops_configs", omitempty;
        sns: Vec<Unbuilt> = "sns_configs", omitempty;
        telegram: Vec<Unbuilt> = "telegram_configs", omitempty;
        webex: Vec<Unbuilt> = "webex_configs", omitempty;
        msteams: Vec<Unbuilt> = "msteams_configs", omitempty;
        msteamsv2: Vec<Unbuilt> = "msteamsv2_configs", omitempty;
        jira: Vec<Unbuilt> = "jira_configs", omitempty;
        rocketchat: Vec<Unbuilt> = "rocketchat_configs", omitempty;
        mattermost: Vec<Unbuilt> = "mattermost_configs", omitempty;
    }
}

block! {
    /// A POST of JSON.
    pub struct Webhook("webhook.WebhookConfig", "webhook.plain") {
        /// Whether the end of alerts is told; on unless set.
        pub send_resolved: bool = "send_resolved", always;
        /// The HTTP client; that of `global` unless set.
        pub http_config: Option<HttpClientConfig> = "http_config", omitempty;
        /// Where to.
        pub url: WebhookUrl = "url", omitempty;
        /// A file with where to; not relative to the folder of the configuration, as in Alertmanager.
        pub url_file: String = "url_file", always;
        /// Alerts in a message at most; 0 for any number.
        pub max_alerts: u64 = "max_alerts", always;
        /// Longest time for one attempt; zero for the whole time that there is.
        pub timeout: GoDuration = "timeout", always;
        payload: Unbuilt = "payload", omitempty;
    }
}

impl Preset for Receiver {
    fn check(&mut self) -> Result<(), String> {
        if self.name.is_empty() {
            return Err("missing name in receiver".to_owned());
        }
        if let Some(label) = self.labels.get("name").filter(|label| **label != self.name) {
            let (name, label) = (go::quote(&self.name), go::quote(label));
            return Err(format!("receiver label \"name\" must match receiver name {name}, got {label}"));
        }
        self.labels.insert("name".to_owned(), self.name.clone());
        Ok(())
    }
}

impl Preset for Webhook {
    fn preset() -> Self {
        Self { send_resolved: true, ..Self::default() }
    }

    fn check(&mut self) -> Result<(), String> {
        match (self.url.is_zero(), self.url_file.is_empty()) {
            (true, true) => Err("one of url or url_file must be configured".to_owned()),
            (false, false) => Err("at most one of url & url_file must be configured".to_owned()),
            _ => Ok(()),
        }
    }
}

impl Receiver {
    /// One without integrations.
    pub(super) fn silent(name: &str) -> Self {
        let labels = BTreeMap::from([("name".to_owned(), name.to_owned())]);
        Self { name: name.to_owned(), labels, ..Self::default() }
    }

    /// Fills in what comes from `global`. Null entries of integrations are refused.
    pub(super) fn complete(&mut self, global: &Global) -> Result<(), String> {
        for webhook in &mut self.webhook_configs {
            let Some(webhook) = webhook else { return Err("missing webhook config".to_owned()) };
            if webhook.http_config.is_none() {
                webhook.http_config.clone_from(&global.http_config);
            }
        }
        let kinds = [
            ("email", &self.email),
            ("pushover", &self.pushover),
            ("pagerduty", &self.pagerduty),
            ("incidentio", &self.incidentio),
            ("victorops", &self.victorops),
            ("sns", &self.sns),
            ("telegram", &self.telegram),
            ("discord", &self.discord),
            ("webex", &self.webex),
            ("msteams", &self.msteams),
            ("msteamsv2", &self.msteamsv2),
            ("jira", &self.jira),
            ("mattermost", &self.mattermost),
        ];
        match kinds.iter().find(|(_, entries)| entries.contains(&Unbuilt::Null)) {
            Some((kind, _)) => Err(format!("missing {kind} config")),
            None => Ok(()),
        }
    }

    pub(super) fn not_built(&self, place: &str, found: &mut Vec<String>) {
        set_beside(self, &["name", "labels", "webhook_configs"], place, found);
        for (index, webhook) in self.webhook_configs.iter().enumerate() {
            let (Some(webhook), place) = (webhook, format!("{place}.webhook_configs[{index}]")) else { continue };
            if !webhook.payload.is_zero() {
                found.push(format!("{place}.payload"));
            }
            if let Some(http) = &webhook.http_config {
                http_not_built(http, &format!("{place}.http_config"), found);
            }
        }
    }
}

/// A secret URL, which may be a template.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WebhookUrl(pub Secret<String>);

impl WebhookUrl {
    /// Whether it has to be expanded for each message.
    pub fn is_template(&self) -> bool {
        self.0.expose().contains("{{")
    }
}

/// What is wrong with a URL, without the URL.
fn check_url(text: &str) -> Result<(), String> {
    let url = ConfigUrl::parse(text).map_err(|error| {
        let reason = error.strip_prefix(&format!("parse {}: ", go::quote(text))).unwrap_or("");
        // What is quoted there is part of the URL.
        let reason = reason.split('"').next().unwrap_or("").trim_end();
        format!("parse \"[REDACTED]\": {reason}")
    })?;
    match url.scheme().as_str() {
        "http" | "https" if url.host().is_empty() => Err("missing host for URL".to_owned()),
        "http" | "https" => Ok(()),
        scheme => Err(format!("unsupported scheme {} for URL", go::quote(scheme))),
    }
}

impl Yaml for WebhookUrl {
    fn go_type() -> String {
        "common.SecretTemplateURL".to_owned()
    }
    fn decode(&mut self, node: &Node, decoder: &mut Decoder) -> Decoded {
        let Some(text) = text_of(node, decoder, "common.plain")? else { return Ok(false) };
        *self = Self(Secret::new(text.to_owned()));
        if !text.is_empty() && text != "<secret>" && !self.is_template() {
            check_url(text).map_err(|error| Abort::at(node, format!("invalid URL: {error}")))?;
        }
        Ok(true)
    }
    fn encode(&self) -> Out {
        self.0.encode()
    }
    fn is_zero(&self) -> bool {
        self.0.is_zero()
    }
}

/// A duration as Go writes it (`1h30m`, `1.5s`), in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GoDuration {
    /// Nanoseconds; may be negative.
    pub nanos: i64,
}

impl Yaml for GoDuration {
    fn go_type() -> String {
        "time.Duration".to_owned()
    }
    fn decode(&mut self, node: &Node, decoder: &mut Decoder) -> Decoded {
        let Some(text) = text_of(node, decoder, "time.Duration")? else { return Ok(false) };
        // A number alone counts nanoseconds.
        match go_time::parse_duration(text).or_else(|| text.parse().ok()) {
            Some(nanos) => self.nanos = nanos,
            None => return Ok(decoder.mismatch(node, "time.Duration")),
        }
        Ok(true)
    }
    fn encode(&self) -> Out {
        Out::Text(go_time::format_duration(self.nanos))
    }
    fn is_zero(&self) -> bool {
        self.nanos == 0
    }
}
