//! TLS of our own server: certificates and the authorities of clients as their files stand now, read again within a second
//! of a change. Versions, cipher suites, groups and protocols are those of the start.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{
    ClientHello, ResolvesServerCert, ServerSessionMemoryCache, StoresServerSessions, WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, RootCertStore, ServerConfig,
    SignatureScheme, SupportedProtocolVersion,
};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::config::http_client::TlsVersion;
use crate::config::web::{ClientAuth, TlsServerConfig, WebConfig};
use crate::http::web_file::{Looks, Stamp, WebFile};
use crate::model::clock::SharedClock;

/// Sessions that clients may take up again.
const SESSIONS_MAX: usize = 256;

/// The name of HTTP/2 where TLS settles on a protocol.
pub(super) const HTTP2: &[u8] = b"h2";

/// The server's side of TLS; `None` if the file does not ask for it. Errors have exporter-toolkit's texts where it has them.
pub(super) fn server_config(file: &Arc<WebFile>, clock: SharedClock) -> Result<Option<ServerConfig>, String> {
    let config = file.current()?;
    if !config.tls.is_on()? {
        return Ok(None);
    }
    let provider = Arc::new(provider(&config.tls));
    let first = Material::read(&config.tls, &provider)?;
    let keeper = Arc::new(Keeper {
        file: Arc::clone(file),
        looks: Looks::new(clock),
        provider: Arc::clone(&provider),
        current: ArcSwap::from_pointee(Ok(first)),
        generation: AtomicU64::new(0),
    });
    let versions = versions(&config.tls)?;
    let mut built = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&versions)
        .map_err(|error| format!("tls_server_config: {error}"))?
        .with_client_cert_verifier(Arc::clone(&keeper) as _)
        .with_cert_resolver(Arc::clone(&keeper) as _);
    let cache = ServerSessionMemoryCache::new(SESSIONS_MAX);
    built.session_storage = Arc::new(Sessions { keeper, cache });
    built.alpn_protocols = vec![b"http/1.1".to_vec()];
    if config.http.http2.unwrap_or(true) {
        built.alpn_protocols.insert(0, HTTP2.to_vec());
    }
    Ok(Some(built))
}

fn versions(config: &TlsServerConfig) -> Result<Vec<&'static SupportedProtocolVersion>, String> {
    let min = config.min_version.unwrap_or(TlsVersion::Tls12);
    let max = config.max_version.unwrap_or(TlsVersion::Tls13);
    let known = [(TlsVersion::Tls12, &rustls::version::TLS12), (TlsVersion::Tls13, &rustls::version::TLS13)];
    let versions: Vec<_> =
        known.into_iter().filter(|(version, _)| min <= *version && *version <= max).map(|(_, known)| known).collect();
    if versions.is_empty() {
        return Err("tls_server_config: only TLS12 and TLS13 are spoken, and max_version excludes them".to_owned());
    }
    Ok(versions)
}

/// Cipher suites and groups that are asked for and known.
fn provider(config: &TlsServerConfig) -> CryptoProvider {
    let mut provider = rustls::crypto::ring::default_provider();
    if !config.ciphers.is_empty() {
        let wanted = |name: &str| config.ciphers.iter().any(|cipher| cipher.0 == name);
        // Versions 1.3 and 1.2 are chosen apart: as in Go, the list is about 1.2 and leaves all suites of 1.3 in.
        provider.cipher_suites.retain(|suite| {
            let name = format!("{:?}", suite.suite()).replace("TLS13_", "TLS_");
            suite.tls13().is_some() || wanted(&name)
        });
    }
    if !config.curves.is_empty() {
        let go_name = |group: rustls::NamedGroup| match group {
            rustls::NamedGroup::secp256r1 => "CurveP256",
            rustls::NamedGroup::secp384r1 => "CurveP384",
            rustls::NamedGroup::X25519 => "X25519",
            _ => "",
        };
        provider.kx_groups.retain(|group| config.curves.iter().any(|curve| curve.0 == go_name(group.name())));
        for curve in config.curves.iter().filter(|curve| curve.0 == "CurveP521") {
            tracing::warn!(component = "web", curve = curve.0, "A curve of curve_preferences is not there");
        }
    }
    provider
}

/// The system's words for an error, as Go prints them.
fn go_words(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_lowercase()
}

/// What handshakes need.
struct Material {
    config: Arc<TlsServerConfig>,
    /// Files and how they stood when they were read.
    stamps: Vec<(String, Option<Stamp>)>,
    key: Arc<CertifiedKey>,
    auth: ClientAuth,
    /// Checks the chains of clients; where they are checked.
    chains: Option<Arc<dyn ClientCertVerifier>>,
}

impl Material {
    fn read(config: &TlsServerConfig, provider: &Arc<CryptoProvider>) -> Result<Self, String> {
        config.is_on()?;
        let auth = config.client_auth()?;
        let files = [&config.cert_file, &config.key_file, &config.client_ca_file];
        let files = files.into_iter().filter(|file| !file.is_empty());
        let stamps = files.map(|file| (file.as_str().to_owned(), Stamp::of(file))).collect();
        let source = |text: &str, file: &str, what: &str| match file {
            "" => Ok(text.as_bytes().to_vec()),
            file => std::fs::read(file).map_err(|error| {
                let reason = format!("open {file}: {}", go_words(&error));
                // Go's words, which do not name the setting for the authorities.
                if what == "client_ca" { reason } else { format!("failed to read {what}_file ({file}): {reason}") }
            }),
        };
        let cert = source(&config.cert, &config.cert_file, "cert")?;
        let key = source(config.key.expose(), &config.key_file, "key")?;
        let bad_pair = |text: String| format!("failed to load X509KeyPair: {text}");
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&cert)
            .collect::<Result<_, _>>()
            .map_err(|error| bad_pair(format!("the certificate: {error}")))?;
        let key = PrivateKeyDer::from_pem_slice(&key).map_err(|error| bad_pair(format!("the key: {error}")))?;
        let key = CertifiedKey::from_der(chain, key, provider).map_err(|error| bad_pair(error.to_string()))?;
        let chains = match auth {
            ClientAuth::VerifyIfGiven | ClientAuth::RequireAndVerify => {
                let authorities = source(&config.client_ca, &config.client_ca_file, "client_ca")?;
                let mut roots = RootCertStore::empty();
                for cert in CertificateDer::pem_slice_iter(&authorities) {
                    let cert = cert.map_err(|error| format!("client_ca: {error}"))?;
                    roots.add(cert).map_err(|error| format!("client_ca: {error}"))?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
                Some(verifier.build().map_err(|error| format!("client_ca: {error}"))?)
            }
            ClientAuth::None | ClientAuth::Request | ClientAuth::RequireAny => None,
        };
        Ok(Self { config: Arc::new(config.clone()), stamps, key: Arc::new(key), auth, chains })
    }

    fn is_of(&self, config: &WebConfig) -> bool {
        *self.config == config.tls && self.stamps.iter().all(|(file, stamp)| Stamp::of(file) == *stamp)
    }
}

/// Gives handshakes what the files say now.
struct Keeper {
    file: Arc<WebFile>,
    looks: Looks,
    provider: Arc<CryptoProvider>,
    current: ArcSwap<Result<Material, String>>,
    /// How often that has changed.
    generation: AtomicU64,
}

impl Keeper {
    fn material(&self) -> Arc<Result<Material, String>> {
        if self.looks.is_due() {
            self.look();
        }
        self.current.load_full()
    }

    fn look(&self) {
        let config = self.file.current();
        let before = self.current.load_full();
        if let (Ok(config), Ok(material)) = (&config, &*before)
            && material.is_of(config)
        {
            return;
        }
        let read = config.and_then(|config| Material::read(&config.tls, &self.provider));
        match (&read, &*before) {
            (Err(err), Err(known)) if err == known => {}
            (Err(err), _) => tracing::error!(component = "web", err, "TLS handshakes fail: the files are no good"),
            (Ok(_), _) => tracing::info!(component = "web", "Certificates have been read again"),
        }
        // Before and after: what is between belongs to neither.
        self.generation.fetch_add(1, Ordering::SeqCst);
        self.current.store(Arc::new(read));
        self.generation.fetch_add(1, Ordering::SeqCst);
    }
}

/// Sessions that may go on without another look at certificates: only while the files are those by which they began. Who is
/// not let in any more shall not come in by a session of before.
struct Sessions {
    keeper: Arc<Keeper>,
    cache: Arc<ServerSessionMemoryCache>,
}

impl Sessions {
    fn key(&self, key: &[u8]) -> Vec<u8> {
        self.keeper.material();
        let generation = self.keeper.generation.load(Ordering::SeqCst);
        [&generation.to_le_bytes(), key].concat()
    }
}

impl std::fmt::Debug for Sessions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sessions")
    }
}

impl StoresServerSessions for Sessions {
    fn put(&self, key: Vec<u8>, value: Vec<u8>) -> bool {
        self.cache.put(self.key(&key), value)
    }

    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.cache.get(&self.key(key))
    }

    fn take(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.cache.take(&self.key(key))
    }

    fn can_cache(&self) -> bool {
        self.cache.can_cache()
    }
}

impl std::fmt::Debug for Keeper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keeper")
    }
}

impl ResolvesServerCert for Keeper {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.material().as_ref().as_ref().ok().map(|material| Arc::clone(&material.key))
    }
}

impl ClientCertVerifier for Keeper {
    fn offer_client_auth(&self) -> bool {
        self.material().as_ref().as_ref().map_or(true, |material| material.auth != ClientAuth::None)
    }

    fn client_auth_mandatory(&self) -> bool {
        let mandatory = |auth| matches!(auth, ClientAuth::RequireAny | ClientAuth::RequireAndVerify);
        self.material().as_ref().as_ref().map_or(true, |material| mandatory(material.auth))
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let material = self.material();
        let Ok(material) = &*material else {
            return Err(Error::General("the files of tls_server_config are no good".to_owned()));
        };
        if let Some(chains) = &material.chains {
            chains.verify_client_cert(end_entity, intermediates, now)?;
        }
        if let Some(allowed) = &material.config.client_sans
            && !has_name(end_entity, allowed)
        {
            let text = format!("could not find allowed SANs in client cert, found: {allowed:?}");
            return Err(CertificateError::Other(OtherError(Arc::new(std::io::Error::other(text)))).into());
        }
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// True if one of the certificate's alternative names is allowed.
fn has_name(cert: &CertificateDer<'_>, allowed: &[String]) -> bool {
    let Ok((_, cert)) = X509Certificate::from_der(cert) else { return false };
    let Ok(Some(names)) = cert.subject_alternative_name() else { return false };
    names.value.general_names.iter().any(|name| {
        let name = match name {
            GeneralName::DNSName(name) | GeneralName::RFC822Name(name) | GeneralName::URI(name) => (*name).to_owned(),
            GeneralName::IPAddress(bytes) => match (<[u8; 4]>::try_from(*bytes), <[u8; 16]>::try_from(*bytes)) {
                (Ok(v4), _) => std::net::Ipv4Addr::from(v4).to_string(),
                (_, Ok(v6)) => std::net::Ipv6Addr::from(v6).to_string(),
                _ => return false,
            },
            _ => return false,
        };
        allowed.contains(&name)
    })
}
