//! From target groups to the URLs of Alertmanagers, as in Prometheus `notifier/alertmanager.go`.

use std::collections::BTreeSet;

use url::Url;

use crate::config::path;
use crate::config::relabel::relabel;
use crate::config::{AlertmanagerConfig, TargetGroup};
use crate::model::labels::{Labels, LabelsBuilder};
use crate::model::{go, go_url};

const ADDRESS: &str = "__address__";
const SCHEME: &str = "__scheme__";
const ALERTS_PATH: &str = "__alerts_path__";
/// Path of the API below the prefix.
const API_PATH: &str = "api/v2/alerts";

/// Where alerts are posted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// For the request.
    pub url: Url,
    /// As Prometheus writes it: in the API, in labels of metrics, in logs.
    pub text: String,
}

/// The Alertmanagers of one configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Endpoints {
    /// Those that alerts are sent to, each URL once.
    pub active: Vec<Endpoint>,
    /// URLs of those that relabelling dropped.
    pub dropped: Vec<String>,
    /// Why groups were left out, whole.
    pub failures: Vec<EndpointError>,
}

/// Why a group makes no Alertmanagers.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// `__address__` has a path.
    #[error("{} is not a valid hostname", go::quote(.0))]
    NotAHostname(String),
    /// `__address__` is empty after relabelling.
    #[error("no address")]
    NoAddress,
    /// Scheme, address and path make no URL.
    #[error("invalid Alertmanager URL {}: {reason}", go::quote(.url))]
    BadUrl {
        /// What was put together.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// Alertmanagers that discovery has found.
#[derive(Clone, Copy, Debug)]
pub struct FoundGroup<'a> {
    /// Label sets of each, `__address__` among them.
    pub targets: &'a [Labels],
    /// Labels that all have.
    pub labels: &'a Labels,
}

/// The Alertmanagers that the groups of a configuration and its own rules come to. A group with a bad one is left out whole,
/// as in Prometheus.
pub fn endpoints(config: &AlertmanagerConfig, groups: &[TargetGroup]) -> Endpoints {
    let mut found = Endpoints::default();
    for group in groups {
        let address = |address: &String| Labels::from_pairs([(ADDRESS, address)]);
        let targets: Vec<Labels> = group.targets.iter().map(address).collect();
        let labels = Labels::from_pairs(group.labels.iter());
        found.add(config, FoundGroup { targets: &targets, labels: &labels });
    }
    found
}

impl Endpoints {
    /// Adds the Alertmanagers of one more group.
    pub fn add(&mut self, config: &AlertmanagerConfig, group: FoundGroup<'_>) {
        match of_group(config, group) {
            Ok((active, dropped)) => {
                let mut seen: BTreeSet<String> = self.active.iter().map(|endpoint| endpoint.text.clone()).collect();
                self.active.extend(active.into_iter().filter(|endpoint| seen.insert(endpoint.text.clone())));
                self.dropped.extend(dropped);
            }
            Err(error) => self.failures.push(error),
        }
    }
}

fn of_group(config: &AlertmanagerConfig, group: FoundGroup<'_>) -> Result<(Vec<Endpoint>, Vec<String>), EndpointError> {
    let alerts_path = path::join("/", format!("{}/{API_PATH}", config.path_prefix).trim_start_matches('/'));
    let (mut active, mut dropped) = (Vec::new(), Vec::new());
    for target in group.targets {
        let mut labels = LabelsBuilder::new();
        for (name, value) in target.iter() {
            labels.set(name, value);
        }
        labels.set(SCHEME, &config.scheme).set(ALERTS_PATH, &alerts_path);
        // Labels of the group go before the configuration, as there, but not before the target's own.
        for (name, value) in group.labels.iter().filter(|(name, _)| !target.contains(name)) {
            labels.set(name, value);
        }
        let labels = labels.build();
        match relabel(labels.clone(), &config.relabel_configs) {
            Some(labels) => active.push(endpoint(&labels)?),
            None => dropped.push(url_text(&labels)),
        }
    }
    Ok((active, dropped))
}

fn endpoint(labels: &Labels) -> Result<Endpoint, EndpointError> {
    let address = labels.get(ADDRESS).unwrap_or("");
    if address.contains('/') {
        return Err(EndpointError::NotAHostname(address.to_owned()));
    }
    // Without this the first part of the path would be taken for the host.
    if address.is_empty() {
        return Err(EndpointError::NoAddress);
    }
    let text = url_text(labels);
    let bad = |reason: String| EndpointError::BadUrl { url: text.clone(), reason };
    let url = Url::parse(&text).map_err(|error| bad(error.to_string()))?;
    match url.scheme() {
        "http" | "https" => Ok(Endpoint { url, text }),
        other => Err(bad(format!("unsupported protocol scheme {}", go::quote(other)))),
    }
}

fn url_text(labels: &Labels) -> String {
    let part = |name| labels.get(name).unwrap_or("");
    go_url::join(part(SCHEME), part(ADDRESS), part(ALERTS_PATH), &std::collections::BTreeMap::new())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{LoadOptions, load_str};

    /// The Alertmanagers of a configuration with static ones.
    fn found(yaml: &str) -> Endpoints {
        let text = format!("alerting: {{alertmanagers: [{yaml}]}}");
        let loaded = load_str("a.yml", &text, &LoadOptions::default()).unwrap();
        let config = &loaded.config.alerting.alertmanagers[0];
        endpoints(config, &config.discovery.static_configs)
    }

    fn active(yaml: &str) -> Vec<String> {
        found(yaml).active.into_iter().map(|endpoint| endpoint.text).collect()
    }

    #[test]
    fn scheme_address_and_prefix_make_the_url() {
        assert_eq!(active("{static_configs: [{targets: ['am:9093']}]}"), ["http://am:9093/api/v2/alerts"]);
        let prefixed = "{scheme: https, path_prefix: '/a//b/../c/', static_configs: [{targets: ['am', 'am', 'b']}]}";
        assert_eq!(active(prefixed), ["https://am/a/c/api/v2/alerts", "https://b/a/c/api/v2/alerts"]);
        let labelled = "{static_configs: [{targets: [am], labels: {__scheme__: https, __address__: x}}]}";
        assert_eq!(active(labelled), ["https://am/api/v2/alerts"]);
    }

    #[test]
    fn rules_change_and_drop() {
        let found = found(
            "{static_configs: [{targets: ['a:1', 'b:1', 'c:1'], labels: {zone: z}}], relabel_configs: [
               {source_labels: [__address__], regex: 'b:.*', action: drop},
               {source_labels: [__address__, zone], regex: 'c:1;z', target_label: __address__, replacement: 'a:1'},
               {target_label: __alerts_path__, replacement: /x y}]}",
        );
        assert_eq!(found.active.iter().map(|e| e.text.as_str()).collect::<Vec<_>>(), ["http://a:1/x%20y"]);
        assert_eq!(found.active[0].url.as_str(), "http://a:1/x%20y");
        assert_eq!((found.dropped, found.failures), (vec!["http://b:1/api/v2/alerts".to_owned()], Vec::new()));
    }

    #[test]
    fn a_bad_one_takes_its_group_with_it() {
        let rule = |replacement: &str| {
            format!(
                "{{static_configs: [{{targets: [bad, good]}}, {{targets: [other]}}], relabel_configs: [{{source_labels: \
                 [__address__], regex: bad, target_label: __address__, replacement: '{replacement}'}}]}}"
            )
        };
        for (replacement, error) in [
            ("a/b", "\"a/b\" is not a valid hostname".to_owned()),
            ("", "no address".to_owned()),
            (
                "user:pass@host",
                "invalid Alertmanager URL \"http://user:pass%40host/api/v2/alerts\": invalid port number".to_owned(),
            ),
        ] {
            let found = found(&rule(replacement));
            assert_eq!(found.active.len(), 1, "{found:?}");
            assert_eq!(found.failures[0].to_string(), error);
        }
    }
}
