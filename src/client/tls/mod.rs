//! TLS towards targets and proxies: `tls_config`, with files that may change while the client lives.
//!
//! [`TlsSettings`] is what the configuration says, [`Material`] what its files held, [`TlsParts`] what a connection needs.
//! Files are looked at before each request, and read again when they are not the ones that were read; then the client makes
//! new connections with new parts.

mod verify;

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, SupportedProtocolVersion};

use crate::client::Failure;
use crate::client::source::Source;
use crate::config::http_client::{TlsConfig, TlsVersion};
use crate::model::secret::Secret;
use verify::{Roots, Verifier};

/// Largest file with certificates; bundles of all public authorities have some 250 KB.
const FILE_LEN_MAX: u64 = 4 << 20;
/// A file that was changed this shortly before it was read may have been changed again without a trace in its times.
const SETTLED_AFTER: Duration = Duration::from_secs(2);

/// What a connection needs to know of TLS.
#[derive(Clone)]
pub(super) struct TlsParts {
    pub(super) to_target: Arc<ClientConfig>,
    /// Proxies are spoken to in HTTP/1.1.
    pub(super) to_proxy: Arc<ClientConfig>,
    /// The name that certificates have to carry, whoever is asked.
    server_name: Option<String>,
}

impl TlsParts {
    /// The name that the certificate of `host` has to carry.
    pub(super) fn name_of(&self, host: &str) -> Result<ServerName<'static>, Failure> {
        let name = self.server_name.as_deref().unwrap_or(host);
        let name = name.trim_start_matches('[').trim_end_matches(']').to_owned();
        ServerName::try_from(name.clone()).map_err(|_| Failure::Tls(format!("invalid server name {name}")))
    }
}

/// The TLS settings of a client.
#[derive(Clone)]
pub(super) struct TlsSettings {
    ca: Option<Source>,
    identity: Option<(Source, Source)>,
    server_name: Option<String>,
    skips_verification: bool,
    versions: Result<Vec<&'static SupportedProtocolVersion>, Failure>,
    speaks_http2: bool,
}

/// What the sources of the settings held when they were read.
pub(super) struct Material {
    ca: Option<Vec<u8>>,
    identity: Option<(Vec<u8>, Vec<u8>)>,
    stamps: Vec<Stamp>,
    read_at: SystemTime,
}

/// What tells one state of a file from another.
#[derive(PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    len: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Material {
    pub(super) fn holds_the_same(&self, other: &Self) -> bool {
        self.ca == other.ca && self.identity == other.identity
    }
}

impl TlsSettings {
    pub(super) fn new(config: &TlsConfig, speaks_http2: bool) -> Self {
        let source = |text: &str, file: &str| {
            let text = Secret::new(text.to_owned());
            (!text.expose().is_empty() || !file.is_empty()).then(|| Source::new(&text, file))
        };
        let cert = source(&config.cert, &config.cert_file);
        let key = source(config.key.expose(), &config.key_file);
        Self {
            ca: source(&config.ca, &config.ca_file),
            identity: cert.zip(key),
            server_name: Some(config.server_name.clone()).filter(|name| !name.is_empty()),
            skips_verification: config.insecure_skip_verify,
            versions: versions(config.min_version, config.max_version),
            speaks_http2,
        }
    }

    /// Whether [`TlsSettings::read`] reads files.
    pub(super) fn has_files(&self) -> bool {
        self.sources().any(Source::is_file)
    }

    fn sources(&self) -> impl Iterator<Item = &Source> {
        self.ca.iter().chain(self.identity.iter().flat_map(|(cert, key)| [cert, key]))
    }

    /// Certificates and key as they are now.
    pub(super) fn read(&self) -> Result<Material, Failure> {
        // Before reading: a change meanwhile shows the next time.
        let (stamps, read_at) = (self.stamps(), SystemTime::now());
        let read = |source: &Source, what: &str| source.read_up_to(FILE_LEN_MAX, what);
        let ca = self.ca.as_ref().map(|ca| read(ca, "CA cert")).transpose()?;
        let identity = match &self.identity {
            Some((cert, key)) => Some((read(cert, "client cert")?, read(key, "client key")?)),
            None => None,
        };
        Ok(Material { ca, identity, stamps: stamps.unwrap_or_default(), read_at })
    }

    /// Whether the files are surely those that were read. May block.
    pub(super) fn is_current(&self, material: &Material) -> bool {
        let settled = |stamp: &Stamp| {
            let age = u64::try_from(stamp.changed.0).map(|secs| SystemTime::UNIX_EPOCH + Duration::from_secs(secs));
            age.is_ok_and(|changed| changed + SETTLED_AFTER < material.read_at)
        };
        self.stamps().is_some_and(|stamps| stamps.iter().all(settled) && stamps == material.stamps)
    }

    fn stamps(&self) -> Option<Vec<Stamp>> {
        let of = |data: Metadata| Stamp {
            device: data.dev(),
            inode: data.ino(),
            len: data.size(),
            modified: (data.mtime(), data.mtime_nsec()),
            changed: (data.ctime(), data.ctime_nsec()),
        };
        self.sources().filter_map(Source::path).map(|path| std::fs::metadata(path).ok().map(of)).collect()
    }

    /// What connections need, of what was read. Error texts are those of Prometheus.
    pub(super) fn parts(&self, material: &Material) -> Result<TlsParts, Failure> {
        let versions = self.versions.clone()?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let roots = match (&material.ca, &self.ca) {
            (Some(pem), Some(source)) => Arc::new(
                Roots::of_pem(pem)
                    .ok_or_else(|| Failure::Other(format!("unable to use specified CA cert {}", described(source))))?,
            ),
            _ => Arc::clone(&SYSTEM_ROOTS),
        };
        let verifier = Verifier::new(&roots, &provider, self.skips_verification);
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&versions)
            .map_err(|error| Failure::Other(format!("tls_config: {error}")))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = match (&material.identity, &self.identity) {
            (Some((cert, key)), Some(sources)) => {
                let wrong = |reason: String| {
                    let (cert, key) = (described(&sources.0), described(&sources.1));
                    Failure::Other(format!("unable to use specified client cert ({cert}) & key ({key}): tls: {reason}"))
                };
                let certs: Vec<CertificateDer<'static>> =
                    CertificateDer::pem_slice_iter(cert).filter_map(Result::ok).collect();
                if certs.is_empty() {
                    return Err(wrong("failed to find any PEM data in certificate input".into()));
                }
                let key = PrivateKeyDer::from_pem_slice(key);
                let key = key.map_err(|_| wrong("failed to find any PEM data in key input".into()))?;
                builder.with_client_auth_cert(certs, key).map_err(|error| {
                    wrong(match error {
                        rustls::Error::InconsistentKeys(_) => "private key does not match public key".into(),
                        error => error.to_string(),
                    })
                })?
            }
            _ => builder.with_no_client_auth(),
        };
        let to_proxy = Arc::new(config.clone());
        if self.speaks_http2 {
            config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        }
        Ok(TlsParts { to_target: Arc::new(config), to_proxy, server_name: self.server_name.clone() })
    }

    /// What clients without settings of their own share, sessions included.
    pub(super) fn shared(&self) -> Option<TlsParts> {
        static SHARED: [LazyLock<TlsParts>; 2] =
            [LazyLock::new(|| of_system(false)), LazyLock::new(|| of_system(true))];
        let plain = self.ca.is_none()
            && self.identity.is_none()
            && self.server_name.is_none()
            && !self.skips_verification
            && self.versions.as_ref().is_ok_and(|versions| versions.len() == 2);
        let [http1, http2] = &SHARED;
        plain.then(|| TlsParts::clone(if self.speaks_http2 { http2 } else { http1 }))
    }
}

/// The roots of the system, read at their first use.
static SYSTEM_ROOTS: LazyLock<Arc<Roots>> = LazyLock::new(|| {
    // A machine without roots can still scrape plain HTTP; HTTPS then fails with "unknown authority".
    Arc::new(Roots::of(rustls_native_certs::load_native_certs().certs))
});

fn of_system(speaks_http2: bool) -> TlsParts {
    let settings = TlsSettings::new(&TlsConfig::default(), speaks_http2);
    let material = Material { ca: None, identity: None, stamps: Vec::new(), read_at: SystemTime::UNIX_EPOCH };
    settings.parts(&material).expect("ring supports the default protocol versions")
}

/// `inline` or `file /path`.
fn described(source: &Source) -> String {
    source.path().map_or_else(|| "inline".to_owned(), |path| format!("file {path}"))
}

/// The versions between the two that we speak. 1.0 and 1.1 are not among them: as the lowest they mean 1.2.
fn versions(
    lowest: Option<TlsVersion>,
    highest: Option<TlsVersion>,
) -> Result<Vec<&'static SupportedProtocolVersion>, Failure> {
    if lowest.zip(highest).is_some_and(|(lowest, highest)| highest < lowest) {
        return Err(Failure::Other(
            "tls_config.max_version must be greater than or equal to tls_config.min_version if both are specified"
                .to_owned(),
        ));
    }
    let spoken = [(TlsVersion::Tls12, &TLS12), (TlsVersion::Tls13, &TLS13)];
    let within = |version: &TlsVersion| {
        lowest.is_none_or(|lowest| lowest <= *version) && highest.is_none_or(|highest| *version <= highest)
    };
    let chosen: Vec<_> = spoken.into_iter().filter(|(version, _)| within(version)).map(|(_, chosen)| chosen).collect();
    if chosen.is_empty() {
        return Err(Failure::Other("tls_config.max_version: TLS 1.0 and 1.1 are not spoken".to_owned()));
    }
    Ok(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_those_between_the_two() {
        use TlsVersion::{Tls10, Tls11, Tls12, Tls13};
        let chosen = |lowest, highest| {
            versions(lowest, highest).map(|chosen| chosen.into_iter().map(|v| v.version).collect::<Vec<_>>())
        };
        let (two, three) = (rustls::ProtocolVersion::TLSv1_2, rustls::ProtocolVersion::TLSv1_3);
        assert_eq!(chosen(None, None), Ok(vec![two, three]));
        assert_eq!(chosen(Some(Tls10), None), Ok(vec![two, three]));
        assert_eq!(chosen(Some(Tls13), None), Ok(vec![three]));
        assert_eq!(chosen(None, Some(Tls12)), Ok(vec![two]));
        assert!(chosen(None, Some(Tls11)).unwrap_err().to_string().starts_with("tls_config.max_version: "));
        assert!(chosen(Some(Tls13), Some(Tls12)).unwrap_err().to_string().contains("must be greater than or equal"));
    }

    #[test]
    fn files_are_read_again_unless_they_are_surely_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca");
        std::fs::write(&path, "one").unwrap();
        let ca_file = path.to_string_lossy().into_owned().into();
        let settings = TlsSettings::new(&TlsConfig { ca_file, ..TlsConfig::default() }, false);
        let mut material = settings.read().unwrap();
        assert!(!settings.is_current(&material), "it was written a moment before");
        material.read_at += Duration::from_secs(60);
        assert!(settings.is_current(&material));
        std::fs::write(&path, "another").unwrap();
        assert!(!settings.is_current(&material));
        std::fs::remove_file(&path).unwrap();
        assert!(!settings.is_current(&material));
    }
}
