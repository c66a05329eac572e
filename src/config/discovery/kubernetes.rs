//! Discovery in Kubernetes.

use super::expect_role;
use crate::config::http_client::HttpClientConfig;
use crate::config::path::FilePath;
use crate::config::url::ConfigUrl;
use crate::config::yaml::block::{Preset, block};

const ROLES: [&str; 6] = ["node", "pod", "service", "endpoints", "endpointslice", "ingress"];

block! {
    /// Which namespaces are looked at.
    pub(crate) struct Namespaces("kubernetes.NamespaceDiscovery", "kubernetes.plain") {
        pub(crate) own_namespace: bool = "own_namespace", always;
        pub(crate) names: Vec<String> = "names", always;
    }
}

block! {
    /// Which objects of a kind are looked at.
    pub(crate) struct Selector("kubernetes.SelectorConfig") {
        pub(crate) role: String = "role", omitempty;
        pub(crate) label: String = "label", omitempty;
        pub(crate) field: String = "field", omitempty;
    }
}

block! {
    /// What is looked up beside the objects themselves.
    pub(crate) struct AttachMetadata("kubernetes.AttachMetadataConfig") {
        pub(crate) node: bool = "node", always;
        pub(crate) namespace: bool = "namespace", always;
        pub(crate) deployment: bool = "deployment", always;
        pub(crate) job: bool = "job", always;
        pub(crate) cronjob: bool = "cronjob", always;
    }
}

block! {
    /// `kubernetes_sd_configs`.
    pub struct KubernetesSd("*kubernetes.SDConfig", "kubernetes.plain") {
        pub(crate) api_server: ConfigUrl = "api_server", omitempty;
        pub(crate) role: String = "role", always;
        pub(crate) kubeconfig_file: FilePath = "kubeconfig_file", always;
        pub(crate) http: HttpClientConfig = "", inline;
        pub(crate) namespaces: Namespaces = "namespaces", omitempty;
        pub(crate) selectors: Vec<Selector> = "selectors", omitempty;
        pub(crate) attach_metadata: AttachMetadata = "attach_metadata", omitempty;
    }
}

impl Preset for Namespaces {}

impl Preset for KubernetesSd {
    fn preset() -> Self {
        Self { http: HttpClientConfig::preset(), ..Self::default() }
    }

    fn check(&mut self) -> Result<(), String> {
        let missing = "role missing (one of: pod, service, endpoints, endpointslice, node, ingress)";
        expect_role(&self.role, &ROLES, missing, "Kubernetes SD role")?;
        self.http.check()?;
        let api_server = self.api_server.is_set();
        let kubeconfig = !self.kubeconfig_file.is_empty();
        let custom_http = self.http != HttpClientConfig::preset();
        let own_namespace = self.namespaces.own_namespace;
        let wrong = if api_server && kubeconfig {
            "cannot use 'kubeconfig_file' and 'api_server' simultaneously"
        } else if kubeconfig && custom_http {
            "cannot use a custom HTTP client configuration together with 'kubeconfig_file'"
        } else if !api_server && custom_http {
            "to use custom HTTP client configuration please provide the 'api_server' URL explicitly"
        } else if api_server && own_namespace {
            "cannot use 'api_server' and 'namespaces.own_namespace' simultaneously"
        } else if kubeconfig && own_namespace {
            "cannot use 'kubeconfig_file' and 'namespaces.own_namespace' simultaneously"
        } else {
            return self.check_selectors();
        };
        Err(wrong.to_owned())
    }
}

impl KubernetesSd {
    fn check_selectors(&self) -> Result<(), String> {
        let allowed: &[&str] = match self.role.as_str() {
            "pod" => &["pod", "node"],
            "service" => &["service"],
            "endpointslice" => &["pod", "service", "endpointslice"],
            "endpoints" => &["pod", "service", "endpoints"],
            "node" => &["node"],
            _ => &["ingress"],
        };
        for (index, selector) in self.selectors.iter().enumerate() {
            expect_role(&selector.role, &ROLES, "", "Kubernetes SD role")?;
            if self.selectors.iter().take(index).any(|earlier| earlier.role == selector.role) {
                return Err(format!("duplicated selector role: {}", selector.role));
            }
            if !allowed.contains(&selector.role.as_str()) {
                return Err(format!("{} role supports only {} selectors", self.role, allowed.join(", ")));
            }
            check_field_selector(&selector.field)?;
            check_label_selector(&selector.label)?;
        }
        Ok(())
    }
}

/// Terms joined by commas, each `path=value`, `path==value` or `path!=value`.
fn check_field_selector(text: &str) -> Result<(), String> {
    for term in text.split(',').filter(|term| !term.is_empty()) {
        if !term.contains('=') {
            return Err(format!("invalid selector: '{text}'; can't understand '{term}'"));
        }
    }
    Ok(())
}

/// Terms joined by commas outside of parentheses: `key`, `!key`, `key=value`, `key in (a,b)` and the like.
fn check_label_selector(text: &str) -> Result<(), String> {
    let mut depth = 0usize;
    let mut term = String::new();
    for c in text.chars().chain([',']) {
        match c {
            '(' => depth += 1,
            ')' if depth == 0 => return Err(format!("unable to parse requirement: found '{c}'")),
            ')' => depth -= 1,
            ',' if depth == 0 => {
                check_label_term(term.trim())?;
                term.clear();
                continue;
            }
            _ => {}
        }
        term.push(c);
    }
    if depth == 0 { Ok(()) } else { Err("unable to parse requirement: found '', expected: ',' or ')'".to_owned()) }
}

fn check_label_term(term: &str) -> Result<(), String> {
    let key = |text: &str| {
        let valid = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/');
        !text.is_empty() && text.chars().all(valid)
    };
    let (name, set) = match term.split_once('(') {
        Some((head, _)) => {
            let mut words = head.split_whitespace();
            let (name, word) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
            if !matches!(word, "in" | "notin") || words.next().is_some() {
                return Err(format!(
                    "unable to parse requirement: found '{word}', expected: in, notin, =, ==, !=, gt, lt"
                ));
            }
            (name, true)
        }
        None => (term, false),
    };
    let name = name.strip_prefix('!').unwrap_or(name).trim();
    if term.is_empty() || set && key(name) {
        return Ok(());
    }
    let name = name.split(['=', '!', '<', '>']).next().unwrap_or("").trim();
    if key(name) { Ok(()) } else { Err(format!("unable to parse requirement: found '{name}', expected: identifier")) }
}
