//! `alertmanager.yml`: what the dispatcher in process works by; strict, with Alertmanager's defaults, checks and error
//! texts.
//!
//! ```text
//! parse ─ yaml (text → typed blocks) ─ checks across blocks      every good file passes, whatever it asks for
//! load_file ─ parse ─ not_built ─ paths                          refuses what is not built, by name
//! matchers ── the two syntaxes of matchers and how they yield to each other
//! ```

mod global;
pub mod matchers;
mod receiver;
mod route;
mod unbuilt;

use std::io;

pub use self::global::Global;
pub use self::receiver::{GoDuration, Receiver, Webhook, WebhookUrl};
pub use self::route::{ALL_LABELS, MatchRegexp, Matchers, Route};

use self::unbuilt::{Ask, Unbuilt};
use super::load::reason;
use super::path;
use super::yaml::block::{Preset, block};
use super::yaml::{self, Decoder, Dialect, Yaml as _, YamlError};
use crate::model::go;

block! {
    /// Time intervals with a name, of which only the name is looked at.
    pub struct MuteTimeInterval("config.MuteTimeInterval", "config.plain") {
        /// The name.
        pub name: String = "name", always;
        times: Unbuilt = "time_intervals", omitempty;
    }
}

block! {
    /// Time intervals with a name, of which only the name is looked at.
    pub struct TimeInterval("config.TimeInterval", "config.plain") {
        /// The name.
        pub name: String = "name", always;
        times: Unbuilt = "time_intervals", omitempty;
    }
}

block! {
    /// A whole file. Parsed ones are checked.
    pub struct Config("config.Config", "config.plain") {
        /// Values for all receivers.
        pub global: Option<Global> = "global", omitempty;
        /// The root of the routing tree; set once parsed.
        pub route: Option<Route> = "route", omitempty;
        inhibit_rules: Unbuilt = "inhibit_rules", omitempty;
        /// Who can be notified.
        pub receivers: Vec<Receiver> = "receivers", omitempty;
        templates: Vec<String> = "templates", always;
        mute_time_intervals: Vec<MuteTimeInterval> = "mute_time_intervals", omitempty;
        time_intervals: Vec<TimeInterval> = "time_intervals", omitempty;
        tracing: Unbuilt = "tracing", omitempty;
        event_recorder: Unbuilt = "event_recorder", omitempty;
    }
}

impl Preset for MuteTimeInterval {
    fn check(&mut self) -> Result<(), String> {
        if self.name.is_empty() { Err("missing name in mute time interval".to_owned()) } else { Ok(()) }
    }
}

impl Preset for TimeInterval {
    fn check(&mut self) -> Result<(), String> {
        if self.name.is_empty() { Err("missing name in time interval".to_owned()) } else { Ok(()) }
    }
}

impl Preset for Config {
    fn check(&mut self) -> Result<(), String> {
        let global = self.global.get_or_insert_with(Global::preset);
        let mut names: Vec<&str> = Vec::new();
        for receiver in &mut self.receivers {
            if names.contains(&receiver.name.as_str()) {
                return Err(format!("notification config name {} is not unique", go::quote(&receiver.name)));
            }
            receiver.complete(global)?;
            names.push(&receiver.name);
        }
        let Some(root) = &self.route else { return Err("no routes provided".to_owned()) };
        root.check_root()?;
        root.check_receivers(&names)?;
        let mut intervals: Vec<&str> = Vec::new();
        let of_kind = |what: &'static str| move |name| (what, name);
        let mute = self.mute_time_intervals.iter().map(|i| i.name.as_str()).map(of_kind("mute time interval"));
        let plain = self.time_intervals.iter().map(|i| i.name.as_str()).map(of_kind("time interval"));
        for (what, name) in mute.chain(plain) {
            if intervals.contains(&name) {
                return Err(format!("{what} {} is not unique", go::quote(name)));
            }
            intervals.push(name);
        }
        root.check_intervals(&intervals)
    }
}

/// Why a file was not loaded. The texts are Alertmanager's.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A file that cannot be read.
    #[error("open {path}: {}", reason(.source))]
    Read {
        /// The file.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// The file is not good.
    #[error(transparent)]
    Parse(#[from] YamlError),
    /// The file is good and asks for what is not built.
    #[error("{} not built yet", are(.0))]
    NotBuilt(Vec<String>),
}

fn are(fields: &[String]) -> String {
    format!("{} {}", fields.join(", "), if fields.len() == 1 { "is" } else { "are" })
}

/// Loads a file that the dispatcher can work by.
pub fn load_file(file: &str) -> Result<Config, LoadError> {
    let content = std::fs::read(file).map_err(|source| LoadError::Read { path: file.to_owned(), source })?;
    let text = std::str::from_utf8(&content);
    let text = text.map_err(|_| YamlError::Syntax("invalid leading UTF-8 octet".to_owned()))?;
    let mut config = parse(text)?;
    let missing = config.not_built();
    if !missing.is_empty() {
        return Err(LoadError::NotBuilt(missing));
    }
    config.resolve_paths(&path::dir_of(file));
    Ok(config)
}

/// Parses and checks a file, whatever it asks for.
pub fn parse(text: &str) -> Result<Config, YamlError> {
    let mut config = Config::default();
    let (root, _) = yaml::node::parse(text, Dialect::V2)?;
    if let Some(root) = &root {
        yaml::read_node(root, &mut config, Decoder::v2())?;
    }
    let wrong = |message: &str, field: &str| {
        let place = [field.to_owned()];
        let line = root.as_ref().map_or(0, |root| root.line_at(&place));
        Err(YamlError::Value { message: message.to_owned(), line, field: field.to_owned() })
    };
    match &config.route {
        None => wrong("no route provided in config", ""),
        Some(root) if root.continues => wrong("cannot have continue in root route", "route"),
        Some(_) => Ok(config),
    }
}

impl Config {
    /// A configuration that notifies nobody, for a server without a file: one route that groups by the name of the alert.
    pub fn silent() -> Self {
        let receiver = Receiver::silent("none");
        let route = Route::silent(&receiver.name);
        Self { global: Some(Global::preset()), route: Some(route), receivers: vec![receiver], ..Self::default() }
    }

    /// The configuration as YAML with defaults filled in and secrets replaced.
    pub fn to_yaml(&self) -> String {
        self.encode().to_yaml()
    }

    /// What the file asks for and is not built: names of fields with the places of entries, counted from 0.
    pub fn not_built(&self) -> Vec<String> {
        let mut found = Vec::new();
        let tops = [
            ("inhibit_rules", self.inhibit_rules.asks()),
            ("templates", !self.templates.is_empty()),
            ("mute_time_intervals", !self.mute_time_intervals.is_empty()),
            ("time_intervals", !self.time_intervals.is_empty()),
            ("tracing", self.tracing.asks()),
            ("event_recorder", self.event_recorder.asks()),
        ];
        found.extend(tops.into_iter().filter(|(_, set)| *set).map(|(name, _)| name.to_owned()));
        if let Some(global) = &self.global {
            global.not_built("global", &mut found);
        }
        if let Some(route) = &self.route {
            route.not_built("route", &mut found);
        }
        for (index, receiver) in self.receivers.iter().enumerate() {
            receiver.not_built(&format!("receivers[{index}]"), &mut found);
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(text: &str, expected: &str) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("alertmanager.yml");
        std::fs::write(&file, text).unwrap();
        assert_eq!(load_file(file.to_str().unwrap()).unwrap_err().to_string(), expected, "{text}");
    }

    fn with_webhook(lines: &str) -> String {
        format!(
            "route: {{receiver: a}}\nreceivers:\n- name: a\n  webhook_configs:\n  - {}\n",
            lines.replace('\n', "\n    ")
        )
    }

    #[test]
    fn what_is_not_built_is_named() {
        refused(
            "global: {smtp_from: a@b, slack_api_url: 'http://x/'}\nroute: {receiver: a, routes: [{labels: {a: b}}]}\n\
             receivers: [{name: a, email_configs: [{to: x}]}]\ninhibit_rules: [{equal: [a]}]\ntemplates: [x]\n",
            "inhibit_rules, templates, global.smtp_from, global.slack_api_url, route.routes[0].labels, \
             receivers[0].email_configs are not built yet",
        );
        let place = "receivers[0].webhook_configs[0]";
        let one = |field: &str| format!("{place}.{field} is not built yet");
        refused(
            &with_webhook(
                "url: http://h/\nhttp_config: {oauth2: {client_id: c, token_url: 'http://t', client_secret_ref: x}}",
            ),
            &one("http_config.oauth2.client_secret_ref"),
        );
        refused(
            &with_webhook("url: http://h/\nhttp_config: {tls_config: {ca_ref: x}}"),
            &one("http_config.tls_config.ca_ref"),
        );
        refused(&with_webhook("url: http://h/\npayload: {a: b}"), &one("payload"));
    }

    #[test]
    fn texts_are_those_of_alertmanager() {
        refused(&with_webhook("max_alerts: 1"), "one of url or url_file must be configured");
        refused(&with_webhook("url: http://h/\nurl_file: x"), "at most one of url & url_file must be configured");
        refused(&with_webhook("url: ftp://h/"), "invalid URL: unsupported scheme \"ftp\" for URL");
        refused(&with_webhook("url: http:///x"), "invalid URL: missing host for URL");
        refused(&with_webhook("url: http://h:pass/"), "invalid URL: parse \"[REDACTED]\": invalid port");
        refused(
            &with_webhook("url: http://h/\nurls: x"),
            "yaml: unmarshal errors:\n  line 6: field urls not found in type webhook.plain",
        );
        refused(
            "route: {receiver: a, bad: 1}",
            "yaml: unmarshal errors:\n  line 1: field bad not found in type config.plain",
        );
        refused(
            "route: {receiver: a}\nreceivers: [{name: a}]\nroute2: 1\n",
            "yaml: unmarshal errors:\n  line 3: field route2 not found in type config.plain",
        );
    }

    #[test]
    fn secrets_are_not_shown() {
        let text = with_webhook("url: http://hidden/token\nhttp_config: {basic_auth: {username: u, password: hidden}}");
        let config = parse(&text).unwrap();
        for shown in [format!("{config:?}"), config.to_yaml()] {
            assert!(!shown.contains("hidden"), "{shown}");
        }
    }

    #[test]
    fn silence_is_a_good_configuration() {
        let silent = Config::silent();
        assert_eq!(silent.not_built(), Vec::<String>::new());
        assert!(parse(&silent.to_yaml()).is_ok());
    }
}
