//! What providers find on the machine that they run on. Tests have their own.

use std::path::PathBuf;
use std::sync::Arc;

/// Looks a variable of the environment up.
pub type Variables = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// Files and variables that belong to no configuration.
#[derive(Clone)]
pub struct Surroundings {
    /// Which DNS servers are asked.
    pub resolv_conf: PathBuf,
    /// Their port.
    pub dns_port: u16,
    /// The folder of a pod's service account in Kubernetes.
    pub service_account: PathBuf,
    /// How the API of the cluster that a pod runs in is spoken to.
    pub cluster_scheme: &'static str,
    /// Variables of the environment.
    pub variable: Variables,
}

impl Default for Surroundings {
    fn default() -> Self {
        Self {
            resolv_conf: "/etc/resolv.conf".into(),
            dns_port: 53,
            service_account: "/var/run/secrets/kubernetes.io/serviceaccount".into(),
            cluster_scheme: "https",
            variable: Arc::new(|name| std::env::var(name).ok().filter(|value| !value.is_empty())),
        }
    }
}

impl Surroundings {
    /// A variable of the environment, unless it is empty.
    pub fn variable(&self, name: &str) -> Option<String> {
        (self.variable)(name)
    }
}
