//! Which destinations a configuration asks for.

use crate::config::{Config, RemoteWriteConfig};
use crate::model::labels::Labels;

/// One destination as it is configured.
#[derive(Clone, Debug, PartialEq)]
pub struct Destination {
    /// Names the destination over restarts and reloads, as for its cursor: its name if it has one, else its URL, with a
    /// number if others have the same.
    pub identity: String,
    /// The label `remote_name`: the configured name, else the beginning of the configuration's hash.
    pub name: String,
    /// The label `url`: without user and password.
    pub url: String,
    /// All settings.
    pub config: RemoteWriteConfig,
    /// Labels of this server, for series that have none of the name.
    pub external_labels: Labels,
}

/// The destinations of a configuration, in its order. Errors when one stands there twice, in Prometheus's words.
pub fn destinations(config: &Config) -> Result<Vec<Destination>, String> {
    let external_labels = config.global.external_labels.labels();
    let (mut found, mut hashes): (Vec<Destination>, Vec<String>) = (Vec::new(), Vec::new());
    for block in &config.remote_write {
        let hash = block.hash();
        if hashes.contains(&hash) {
            let url = block.url.redacted();
            return Err(format!("duplicate remote write configs are not allowed, found duplicate for URL: {url}"));
        }
        let name = if block.name.is_empty() { hash.chars().take(6).collect() } else { block.name.clone() };
        let base = if block.name.is_empty() { without_userinfo(block.url.expose()) } else { block.name.clone() };
        let same = found.iter().filter(|other| other.identity.split('\n').next() == Some(base.as_str())).count();
        let identity = if same == 0 { base } else { format!("{base}\n{same}") };
        let url = without_userinfo(block.url.expose());
        found.push(Destination {
            identity,
            name,
            url,
            config: block.clone(),
            external_labels: external_labels.clone(),
        });
        hashes.push(hash);
    }
    Ok(found)
}

impl Destination {
    /// What it is called when changes are told: its name and URL.
    pub fn key(&self) -> String {
        format!("{} {}", self.name, self.url)
    }

    /// Name of the file with its cursor: letters and digits alone.
    pub fn file_name(&self) -> String {
        use sha2::{Digest as _, Sha256};
        let sum = Sha256::digest(self.identity.as_bytes());
        sum.iter().take(12).map(|byte| format!("{byte:02x}")).collect()
    }
}

/// A URL as everybody may see it.
fn without_userinfo(text: &str) -> String {
    crate::telemetry::logging::cut_userinfo(text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{LoadOptions, load_str};

    fn of(yaml: &str) -> Result<Vec<Destination>, String> {
        destinations(&load_str("a.yml", yaml, &LoadOptions::default()).unwrap().config)
    }

    #[test]
    fn names_and_identities_tell_destinations_apart() {
        let found = of("
global: {external_labels: {site: x}}
remote_write:
- {url: 'http://user:canary@host/w'}
- {url: 'http://host/w', send_exemplars: true}
- {url: 'http://host/w', name: main}
")
        .unwrap();
        let shown: Vec<_> = found.iter().map(|d| (d.identity.as_str(), d.url.as_str())).collect();
        let url = "http://host/w";
        assert_eq!(shown, [(url, url), ("http://host/w\n1", url), ("main", url)]);
        assert_eq!((found[0].name.len(), found[2].name.as_str()), (6, "main"));
        assert_ne!(found[0].file_name(), found[1].file_name());
        assert!(!format!("{found:?}").contains("canary"));
        assert_eq!(found[0].external_labels.get("site"), Some("x"));
    }

    #[test]
    fn the_same_destination_twice_is_refused() {
        let error = of("remote_write: [{url: 'http://u:p@h/w'}, {url: 'http://u:p@h/w'}]").unwrap_err();
        let expected = "duplicate remote write configs are not allowed, found duplicate for URL: http://u:xxxxx@h/w";
        assert_eq!(error, expected);
    }
}
