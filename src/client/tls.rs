//! TLS towards targets and proxies.

use std::sync::{Arc, LazyLock};

use rustls::ClientConfig;
use rustls::pki_types::ServerName;

use crate::client::Failure;

/// What a connection needs to know of TLS.
#[derive(Clone)]
pub(super) struct TlsParts {
    pub(super) to_target: Arc<ClientConfig>,
    /// Proxies are spoken to in HTTP/1.1.
    pub(super) to_proxy: Arc<ClientConfig>,
}

/// The TLS configuration of clients without settings of their own; the system's roots are read at its first use.
static SYSTEM: LazyLock<Arc<ClientConfig>> = LazyLock::new(|| {
    let mut roots = rustls::RootCertStore::empty();
    // A machine without roots can still scrape plain HTTP; HTTPS then fails with "unknown authority".
    for root in rustls_native_certs::load_native_certs().certs {
        let _ = roots.add(root);
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring supports the default protocol versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
});

impl TlsParts {
    /// The system's roots and no certificate of ours.
    pub(super) fn of_system() -> Self {
        Self { to_target: Arc::clone(&SYSTEM), to_proxy: Arc::clone(&SYSTEM) }
    }

    /// The name that the certificate of `host` has to carry.
    pub(super) fn name_of(&self, host: &str) -> Result<ServerName<'static>, Failure> {
        let name = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        ServerName::try_from(name).map_err(|_| Failure::Tls(format!("invalid server name {host}")))
    }
}
