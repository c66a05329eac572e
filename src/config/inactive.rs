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
    /// Names of the fields down to it, joined by dots; `[]` stands for each entry of a list, and a name that starts
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
const NO_OLD_TLS: &str = "TLS 1.0 and 1.1 are not spoken";

/// Everything that has no effect yet.
pub const TABLE: &[Row] = &[
    protective("scrape_configs[].basic_auth.username_ref", NO_MANAGER),
    protective("scrape_configs[].basic_auth.password_ref", NO_MANAGER),
    protective("scrape_configs[].authorization.credentials_ref", NO_MANAGER),
    protective("scrape_configs[].oauth2.client_secret_ref", NO_MANAGER),
    protective("scrape_configs[].oauth2.client_certificate_key_ref", NO_MANAGER),
    protective("scrape_configs[].oauth2.tls_config.*_ref", NO_MANAGER),
    Row { asks: is_too_old, ..protective("scrape_configs[].oauth2.tls_config.max_version", NO_OLD_TLS) },
    protective("scrape_configs[].tls_config.*_ref", NO_MANAGER),
    Row { asks: is_too_old, ..protective("scrape_configs[].tls_config.max_version", NO_OLD_TLS) },
    protective("scrape_configs[].*_sd_configs[].basic_auth.username_ref", NO_MANAGER),
    protective("scrape_configs[].*_sd_configs[].basic_auth.password_ref", NO_MANAGER),
    protective("scrape_configs[].*_sd_configs[].authorization.credentials_ref", NO_MANAGER),
    protective("scrape_configs[].*_sd_configs[].oauth2.client_secret_ref", NO_MANAGER),
    protective("scrape_configs[].*_sd_configs[].oauth2.client_certificate_key_ref", NO_MANAGER),
    protective("scrape_configs[].*_sd_configs[].oauth2.tls_config.*_ref", NO_MANAGER),
    Row { asks: is_too_old, ..protective("scrape_configs[].*_sd_configs[].oauth2.tls_config.max_version", NO_OLD_TLS) },
    protective("scrape_configs[].*_sd_configs[].tls_config.*_ref", NO_MANAGER),
    Row { asks: is_too_old, ..protective("scrape_configs[].*_sd_configs[].tls_config.max_version", NO_OLD_TLS) },
    additive("scrape_configs[].*_sd_configs", "targets of this discovery are not found", present),
    protective("alerting.alertmanagers[].basic_auth.username_ref", NO_MANAGER),
    protective("alerting.alertmanagers[].basic_auth.password_ref", NO_MANAGER),
    protective("alerting.alertmanagers[].authorization.credentials_ref", NO_MANAGER),
    protective("alerting.alertmanagers[].oauth2.client_secret_ref", NO_MANAGER),
    protective("alerting.alertmanagers[].oauth2.client_certificate_key_ref", NO_MANAGER),
    protective("alerting.alertmanagers[].oauth2.tls_config.*_ref", NO_MANAGER),
    Row { asks: is_too_old, ..protective("alerting.alertmanagers[].oauth2.tls_config.max_version", NO_OLD_TLS) },
    protective("alerting.alertmanagers[].tls_config.*_ref", NO_MANAGER),
    Row { asks: is_too_old, ..protective("alerting.alertmanagers[].tls_config.max_version", NO_OLD_TLS) },
    protective("alerting.alertmanagers[].*_sd_configs[].basic_auth.username_ref", NO_MANAGER),
    protective("alerting.alertmanagers[].*_sd_configs[].basic_auth.password_ref", NO_MANAGER),
    protective("alerting.alertmanagers[].*_sd_configs[].authorization.credentials_ref", NO_MANAGER),
    protective("alerting.alertmanagers[].*_sd_configs[].oauth2.client_secret_ref", NO_MANAGER),
    protective("alerting.alertmanagers[].*_sd_configs[].oauth2.client_certificate_key_ref", NO_MANAGER),
    protective("alerting.alertmanagers[].*_sd_configs[].oauth2.tls_config.*_ref", NO_MANAGER),
    Row {
        asks: is_too_old,
        ..protective("alerting.alertmanagers[].*_sd_configs[].oauth2.tls_config.max_version", NO_OLD_TLS)
    },
    protective("alerting.alertmanagers[].*_sd_configs[].tls_config.*_ref", NO_MANAGER),
    Row {
        asks: is_too_old,
        ..protective("alerting.alertmanagers[].*_sd_configs[].tls_config.max_version", NO_OLD_TLS)
    },
    additive("alerting.alertmanagers[].*_sd_configs", "Alertmanagers of this discovery are not found", present),
    additive("tracing", "traces are not sent", present),
    protective("remote_write[].basic_auth.username_ref", NO_MANAGER),
    protective("remote_write[].basic_auth.password_ref", NO_MANAGER),
    protective("remote_write[].authorization.credentials_ref", NO_MANAGER),
    protective("remote_write[].oauth2.client_secret_ref", NO_MANAGER),
    protective("remote_write[].oauth2.client_certificate_key_ref", NO_MANAGER),
    protective("remote_write[].oauth2.tls_config.*_ref", NO_MANAGER),
    Row { asks: is_too_old, ..protective("remote_write[].oauth2.tls_config.max_version", NO_OLD_TLS) },
    protective("remote_write[].tls_config.*_ref", NO_MANAGER),
    Row { asks: is_too_old, ..protective("remote_write[].tls_config.max_version", NO_OLD_TLS) },
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
const WORKING_DISCOVERY: [&str; 8] = [
    "consul_sd_configs",
    "dns_sd_configs",
    "docker_sd_configs",
    "dockerswarm_sd_configs",
    "ec2_sd_configs",
    "file_sd_configs",
    "http_sd_configs",
    "kubernetes_sd_configs",
];

/// Whether targets of the discovery that a field configures are found.
pub fn working_discovery(field: &str) -> bool {
    WORKING_DISCOVERY.contains(&field)
}

/// Calls `seen` with field, place and value for each value that `path` leads to.
fn visit(node: &Out, path: &[&str], field: &str, place: &str, seen: &mut dyn FnMut(&str, &str, &Out)) {
    let Some((step, rest)) = path.split_first() else { return seen(field, place, node) };
    let Out::Mapping(pairs) = node else { return };
    let (name, each) = step.strip_suffix("[]").map_or((*step, false), |name| (name, true));
    let matches = |key: &str| match name.strip_prefix('*') {
        // Of a discovery that does not work nothing is asked, whatever stands in it.
        Some(suffix) => key.ends_with(suffix) && working_discovery(key) != rest.is_empty(),
        None => key == name,
    };
    let all_of_ec2 = |key: &str, value: &Out| key == "aws_sd_configs" && asks_for_ec2_alone(value);
    for (key, value) in pairs.iter().filter(|(key, value)| matches(key) && !all_of_ec2(key, value)) {
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

/// Whether all entries of `aws_sd_configs` are of the role whose targets are found.
fn asks_for_ec2_alone(value: &Out) -> bool {
    let is_ec2 = |entry: &Out| match entry {
        Out::Mapping(pairs) => pairs.contains(&("role".to_owned(), Out::Text("ec2".to_owned()))),
        _ => false,
    };
    matches!(value, Out::Sequence(entries) if entries.iter().all(is_ec2))
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

fn is_too_old(value: &Out) -> bool {
    matches!(value, Out::Text(text) if text == "TLS10" || text == "TLS11")
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
remote_write: [{url: 'http://h', round_robin_dns: true, sigv4: {region: r}}, {url: 'http://i', oauth2: {client_id: c, token_url: 'http://t'}}]
global: {scrape_interval: 5s, sample_limit: 5, external_labels: {a: b}}
alerting:
  alertmanagers:
  - static_configs: [{targets: [am]}]
    alert_relabel_configs: [{regex: a, action: labeldrop}]
    tls_config: {ca_file: x, max_version: TLS13}
    oauth2: {client_id: c, token_url: 'http://t', tls_config: {cert_file: x, key_file: y}}
scrape_configs:
- job_name: a
  scrape_protocols: [PrometheusProto, PrometheusText0.0.4]
  metric_name_escaping_scheme: dots
  static_configs: [{targets: [h]}]
  basic_auth: {username: u, password_file: p}
  http_headers: {X-Key: {secrets: [s]}}
  proxy_url: http://p
  no_proxy: x
  tls_config: {ca_file: x, server_name: y, min_version: TLS10, max_version: TLS12}
- job_name: b
  oauth2: {client_id: c, client_secret: s, token_url: 'http://t', proxy_from_environment: true, tls_config: {ca: x}}
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
- {job_name: a, basic_auth: {username: u, password_ref: p}, nomad_sd_configs: [{}]}
- {job_name: b, bearer_token: x, tls_config: {cert_ref: x, key_ref: y, max_version: TLS11}}
- {job_name: c, basic_auth: {username: u, password_ref: p}}
alerting: {alertmanagers: [{nomad_sd_configs: [{}], file_sd_configs: [{files: [a.json]}], sigv4: {}}]}
remote_write: [{url: http://h, azuread: {managed_identity: {}}, tls_config: {cert_ref: x, key_ref: y}}]
";
        let found = fields(text);
        let of = |field: &str| found.iter().find(|(f, ..)| f == field).map(|(_, kind, places)| (*kind, *places));
        assert_eq!(of("scrape_configs[].basic_auth.password_ref"), Some((Kind::Protective, 2)));
        assert_eq!(of("scrape_configs[].tls_config.cert_ref"), Some((Kind::Protective, 1)));
        assert_eq!(of("scrape_configs[].tls_config.key_ref"), Some((Kind::Protective, 1)));
        assert_eq!(of("scrape_configs[].tls_config.max_version"), Some((Kind::Protective, 1)));
        assert_eq!(of("scrape_configs[].nomad_sd_configs"), Some((Kind::Additive, 1)));
        assert_eq!(of("alerting.alertmanagers[].nomad_sd_configs"), Some((Kind::Additive, 1)));
        assert_eq!(of("remote_write[].tls_config.cert_ref"), Some((Kind::Protective, 1)));
        assert_eq!(found.len(), 8);
    }

    #[test]
    fn discovery_that_works_is_searched_for_what_does_not() {
        let text = "scrape_configs: [{job_name: a, http_sd_configs: [{url: 'http://h', basic_auth: {password_ref: x}}], \
                    nomad_sd_configs: [{basic_auth: {password_ref: x}}], consul_sd_configs: [{tls_config: {ca_ref: x, \
                    max_version: TLS10}}, {tls_config: {max_version: TLS13}}]}]";
        let expected = [
            ("http_sd_configs[].basic_auth.password_ref", Kind::Protective),
            ("consul_sd_configs[].tls_config.ca_ref", Kind::Protective),
            ("consul_sd_configs[].tls_config.max_version", Kind::Protective),
            ("nomad_sd_configs", Kind::Additive),
        ];
        let expected = expected.map(|(field, kind)| (format!("scrape_configs[].{field}"), kind, 1));
        assert_eq!(fields(text), expected);
    }

    #[test]
    fn of_aws_only_ec2_works() {
        let of = |roles: &str| {
            let entries: Vec<String> = roles.split(' ').map(|role| format!("{{role: {role}, region: r}}")).collect();
            fields(&format!("scrape_configs: [{{job_name: a, aws_sd_configs: [{}]}}]", entries.join(", ")))
        };
        assert_eq!(of("ec2 ec2"), []);
        assert_eq!(of("ec2 rds"), [("scrape_configs[].aws_sd_configs".to_owned(), Kind::Additive, 1)]);
    }

    #[test]
    fn places_name_the_job() {
        let text = "scrape_configs: [{job_name: a}, {job_name: b, tls_config: {ca_ref: x}}]";
        let loaded = load_str("prometheus.yml", text, &LoadOptions::default()).unwrap();
        assert_eq!(loaded.inactive()[0].places, ["scrape_configs[1] (b).tls_config.ca_ref"]);
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
