//! Settings that load, as every good file does, but have no effect yet.
//!
//! [`TABLE`] is the one list of them: the daemon refuses to run with a *protective* one and warns once of an *additive*
//! one, `docs/compatibility.md` shows the list, and a test compares the two. A setting that comes to work loses its row.

use super::yaml::{Out, Yaml as _};
use super::{Config, LoadedConfig};

/// What ignoring a setting would do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It would take protection away: the daemon refuses the configuration.
    Protective,
    /// Something would be missing: the daemon warns.
    Additive,
}

/// A setting without effect.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Names of the fields down to it, joined by dots; `[]` stands for each entry of a list, and a last name that starts
    /// with a star for all fields that end with the rest.
    pub field: &'static str,
    /// What ignoring it would do.
    pub kind: Kind,
    /// What happens instead, or what does not happen.
    pub why: &'static str,
    /// Tells whether a value asks for something, given that the field is written when a configuration is shown.
    asks: fn(&Out) -> bool,
}

/// A setting of a configuration that has no effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inactive {
    /// The field, as in [`Row::field`] but with a star replaced.
    pub field: String,
    /// Where it is set: the field with the numbers of entries, counted from 0, and the names of jobs.
    pub places: Vec<String>,
    /// What ignoring it does.
    pub kind: Kind,
    /// What happens instead, or what does not happen.
    pub why: &'static str,
}

const NO_MANAGER: &str = "there is no secret manager to ask";

/// Everything that has no effect yet.
pub const TABLE: &[Row] = &[
    protective("scrape_configs[].basic_auth.username_ref", NO_MANAGER),
    protective("scrape_configs[].basic_auth.password_ref", NO_MANAGER),
    protective("scrape_configs[].authorization.credentials_ref", NO_MANAGER),
    protective("scrape_configs[].oauth2", "requests to targets are not authenticated yet"),
    protective("scrape_configs[].tls_config", "targets are asked with the system's certificates only"),
    protective("scrape_configs[].proxy_url", "targets are asked directly"),
    protective("scrape_configs[].proxy_from_environment", "targets are asked directly"),
    additive("scrape_configs[].*_sd_configs", "targets of this discovery are not found", present),
    additive("scrape_configs[].scrape_failure_log_file", "failed scrapes are not logged to a file", present),
    additive("scrape_configs[].convert_classic_histograms_to_nhcb", "histograms are stored as they come", is_true),
    protective("alerting.alertmanagers[].basic_auth.username_ref", NO_MANAGER),
    protective("alerting.alertmanagers[].basic_auth.password_ref", NO_MANAGER),
    protective("alerting.alertmanagers[].authorization.credentials_ref", NO_MANAGER),
    protective("alerting.alertmanagers[].oauth2", "requests to Alertmanagers are not authenticated yet"),
    protective("alerting.alertmanagers[].sigv4", "requests to Alertmanagers are not signed yet"),
    protective("alerting.alertmanagers[].tls_config", "Alertmanagers are asked with the system's certificates only"),
    protective("alerting.alertmanagers[].proxy_url", "Alertmanagers are asked directly"),
    protective("alerting.alertmanagers[].proxy_from_environment", "Alertmanagers are asked directly"),
    additive("alerting.alertmanagers[].file_sd_configs", "Alertmanagers of this discovery are not found", present),
    additive("alerting.alertmanagers[].*_sd_configs", "Alertmanagers of this discovery are not found", present),
    additive("global.query_log_file", "queries are not logged to a file", present),
    additive("storage.tsdb.out_of_order_time_window", "samples out of order are refused", present),
    additive("storage.tsdb.stale_series_compaction_threshold", "stale series wait for the usual compaction", present),
    additive("storage.tsdb.chunk_encoding.floats", "chunks are written as xor", asks_for_xor2),
    additive("storage.exemplars", "exemplars are not stored", present),
    additive("tracing", "traces are not sent", present),
    additive("remote_write", "samples are not sent to remote storage", present),
    additive("remote_read", "remote storage is not asked", present),
    additive("otlp", "OTLP is not received", differs_from_default_otlp),
];

const fn protective(field: &'static str, why: &'static str) -> Row {
    Row { field, kind: Kind::Protective, why, asks: present }
}

const fn additive(field: &'static str, why: &'static str, asks: fn(&Out) -> bool) -> Row {
    Row { field, kind: Kind::Additive, why, asks }
}

/// What is set in a configuration and has no effect.
pub fn inactive(config: &Config) -> Vec<Inactive> {
    let tree = config.encode();
    let mut found: Vec<Inactive> = Vec::new();
    for row in TABLE {
        let path: Vec<&str> = row.field.split('.').collect();
        visit(&tree, &path, "", "", &mut |field, place, value| {
            if !(row.asks)(value) || TABLE.iter().any(|other| other.field != row.field && other.field == field) {
                return;
            }
            match found.iter_mut().find(|inactive| inactive.field == field) {
                Some(inactive) => inactive.places.push(place.to_owned()),
                None => found.push(Inactive {
                    field: field.to_owned(),
                    places: vec![place.to_owned()],
                    kind: row.kind,
                    why: row.why,
                }),
            }
        });
    }
    found
}

impl LoadedConfig {
    /// What is set without effect, in the main file and in the files with further jobs.
    pub fn inactive(&self) -> Vec<Inactive> {
        inactive(&Config { scrape_configs: self.scrape_configs.clone(), ..self.config.clone() })
    }
}

/// Fields that end with `_sd_configs` but belong to a discovery that works.
const WORKING_DISCOVERY: [&str; 1] = ["file_sd_configs"];

/// Calls `seen` with field, place and value for each value that `path` leads to.
fn visit(node: &Out, path: &[&str], field: &str, place: &str, seen: &mut dyn FnMut(&str, &str, &Out)) {
    let Some((step, rest)) = path.split_first() else { return seen(field, place, node) };
    let Out::Mapping(pairs) = node else { return };
    let (name, each) = step.strip_suffix("[]").map_or((*step, false), |name| (name, true));
    let matches = |key: &str| match name.strip_prefix('*') {
        Some(suffix) => key.ends_with(suffix) && !WORKING_DISCOVERY.contains(&key),
        None => key == name,
    };
    for (key, value) in pairs.iter().filter(|(key, _)| matches(key)) {
        let join = |start: &str| if start.is_empty() { key.clone() } else { format!("{start}.{key}") };
        let (field, place) = (join(field), join(place));
        match value {
            Out::Sequence(items) if each => {
                for (index, item) in items.iter().enumerate() {
                    let place = format!("{place}[{index}]{}", job_name(item));
                    visit(item, rest, &format!("{field}[]"), &place, seen);
                }
            }
            _ => visit(value, rest, &field, &place, seen),
        }
    }
}

fn job_name(item: &Out) -> String {
    let Out::Mapping(pairs) = item else { return String::new() };
    match pairs.iter().find(|(key, _)| key == "job_name") {
        Some((_, Out::Text(name))) => format!(" ({name})"),
        _ => String::new(),
    }
}

fn present(_: &Out) -> bool {
    true
}

fn is_true(value: &Out) -> bool {
    matches!(value, Out::Plain(text) if text == "true")
}

fn asks_for_xor2(value: &Out) -> bool {
    matches!(value, Out::Text(text) if text == "xor2")
}

fn differs_from_default_otlp(value: &Out) -> bool {
    use super::yaml::block::Preset as _;
    *value != super::OtlpConfig::preset().encode()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{LoadOptions, load_str};

    fn fields(text: &str) -> Vec<(String, Kind, usize)> {
        let loaded = load_str("prometheus.yml", text, &LoadOptions::default()).unwrap();
        loaded.inactive().into_iter().map(|i| (i.field, i.kind, i.places.len())).collect()
    }

    #[test]
    fn what_works_is_not_listed() {
        let text = "
global: {scrape_interval: 5s, sample_limit: 5, external_labels: {a: b}}
alerting: {alertmanagers: [{static_configs: [{targets: [am]}], alert_relabel_configs: [{regex: a, action: labeldrop}]}]}
scrape_configs:
- job_name: a
  scrape_protocols: [PrometheusProto, PrometheusText0.0.4]
  metric_name_escaping_scheme: dots
  static_configs: [{targets: [h]}]
  basic_auth: {username: u, password_file: p}
  http_headers: {X-Key: {secrets: [s]}}
  relabel_configs: [{action: labeldrop, regex: x}]
";
        assert_eq!(fields(text), []);
        assert_eq!(fields(""), []);
    }

    #[test]
    fn each_field_is_listed_once_with_its_places() {
        let text = "
global: {query_log_file: q, convert_classic_histograms_to_nhcb: true}
scrape_configs:
- {job_name: a, basic_auth: {username: u, password_ref: p}, consul_sd_configs: [{}]}
- {job_name: b, bearer_token: x, proxy_url: 'http://p'}
- {job_name: c, basic_auth: {username: u, password_ref: p}}
alerting: {alertmanagers: [{file_sd_configs: [{files: [a.json]}], sigv4: {}}]}
otlp: {promote_scope_metadata: true}
remote_write: [{url: http://h}]
";
        let found = fields(text);
        let of = |field: &str| found.iter().find(|(f, ..)| f == field).map(|(_, kind, places)| (*kind, *places));
        assert_eq!(of("scrape_configs[].basic_auth.password_ref"), Some((Kind::Protective, 2)));
        assert_eq!(of("scrape_configs[].proxy_url"), Some((Kind::Protective, 1)));
        assert_eq!(of("scrape_configs[].consul_sd_configs"), Some((Kind::Additive, 1)));
        assert_eq!(of("scrape_configs[].convert_classic_histograms_to_nhcb"), Some((Kind::Additive, 3)));
        assert_eq!(of("alerting.alertmanagers[].file_sd_configs"), Some((Kind::Additive, 1)));
        assert_eq!(of("alerting.alertmanagers[].sigv4"), Some((Kind::Protective, 1)));
        assert_eq!(of("otlp"), Some((Kind::Additive, 1)));
        assert_eq!(of("remote_write"), Some((Kind::Additive, 1)));
        assert_eq!(of("global.query_log_file"), Some((Kind::Additive, 1)));
        assert_eq!(found.len(), 9);
    }

    #[test]
    fn places_name_the_job() {
        let text = "scrape_configs: [{job_name: a}, {job_name: b, proxy_url: 'http://p'}]";
        let loaded = load_str("prometheus.yml", text, &LoadOptions::default()).unwrap();
        assert_eq!(loaded.inactive()[0].places, ["scrape_configs[1] (b).proxy_url"]);
    }

    /// A row whose field no configuration can have would never be seen.
    #[test]
    fn every_row_names_a_field() {
        use crate::config::yaml::{Decoder, read_node};
        for row in TABLE.iter().filter(|row| !row.field.contains('*')) {
            let mut text = String::new();
            for step in row.field.split('.').rev() {
                text = match (step.strip_suffix("[]"), text.is_empty()) {
                    (Some(name), _) => format!("{{{name}: [{text}]}}"),
                    (None, true) => format!("{{{step}: {{nobody: 1}}}}"),
                    (None, false) => format!("{{{step}: {text}}}"),
                };
            }
            let (root, _) = crate::config::yaml::node::parse(&text, crate::config::yaml::Dialect::V2).unwrap();
            let error = read_node(&root.unwrap(), &mut Config::default(), Decoder::v2()).unwrap_err().to_string();
            let name = row.field.rsplit('.').next().unwrap();
            assert!(!error.contains(&format!("field {name} not found")), "{}: {error}", row.field);
        }
    }
}
