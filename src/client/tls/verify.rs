//! Whether a certificate may be trusted, as Go judges it.

use std::collections::HashSet;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use sha2::{Digest as _, Sha256};

/// The authorities that are trusted.
pub(super) struct Roots {
    store: Arc<RootCertStore>,
    /// Hashes of their certificates.
    hashes: HashSet<[u8; 32]>,
}

impl Roots {
    /// What cannot be read among the certificates is left out.
    pub(super) fn of(certs: impl IntoIterator<Item = CertificateDer<'static>>) -> Self {
        let (mut store, mut hashes) = (RootCertStore::empty(), HashSet::new());
        for cert in certs {
            let hash = Sha256::digest(&cert).into();
            if store.add(cert).is_ok() {
                hashes.insert(hash);
            }
        }
        Self { store: Arc::new(store), hashes }
    }

    /// The certificates of a text; `None` when there are none.
    pub(super) fn of_pem(pem: &[u8]) -> Option<Self> {
        let roots = Self::of(CertificateDer::pem_slice_iter(pem).filter_map(Result::ok));
        (!roots.store.is_empty()).then_some(roots)
    }
}

/// Judges servers.
#[derive(Debug)]
pub(super) struct Verifier {
    judge: Judge,
    algorithms: WebPkiSupportedAlgorithms,
}

enum Judge {
    /// `insecure_skip_verify`.
    TakesAll,
    /// There is no authority to trust.
    TakesNone,
    ByRoots {
        webpki: Arc<WebPkiServerVerifier>,
        hashes: HashSet<[u8; 32]>,
    },
}

impl std::fmt::Debug for Judge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::TakesAll => "TakesAll",
            Self::TakesNone => "TakesNone",
            Self::ByRoots { .. } => "ByRoots",
        })
    }
}

impl Verifier {
    pub(super) fn new(roots: &Roots, provider: &Arc<CryptoProvider>, takes_all: bool) -> Self {
        let algorithms = provider.signature_verification_algorithms;
        let built = WebPkiServerVerifier::builder_with_provider(Arc::clone(&roots.store), Arc::clone(provider)).build();
        let judge = match built {
            _ if takes_all => Judge::TakesAll,
            // Without roots there is nothing to build of.
            Err(_) => Judge::TakesNone,
            Ok(webpki) => Judge::ByRoots { webpki, hashes: roots.hashes.clone() },
        };
        Self { judge, algorithms }
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let (webpki, hashes) = match &self.judge {
            Judge::TakesAll => return Ok(ServerCertVerified::assertion()),
            Judge::TakesNone => return Err(unknown_issuer(end_entity, server_name)),
            Judge::ByRoots { webpki, hashes } => (webpki, hashes),
        };
        match webpki.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            // A server's own certificate among the trusted ones is trusted, be it that of an authority, as those are that
            // were made by hand, or be its issuer unknown. The times have been checked before.
            Err(Error::InvalidCertificate(reason)) if is_about_issuer(&reason) => {
                let hash: [u8; 32] = Sha256::digest(end_entity).into();
                if !hashes.contains(&hash) {
                    return Err(unknown_issuer(end_entity, server_name));
                }
                verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
                Ok(ServerCertVerified::assertion())
            }
            judged => judged,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// What is wrong with a certificate that nobody vouches for: that it is of another name goes first, as in Go.
fn unknown_issuer(end_entity: &CertificateDer<'_>, server_name: &ServerName<'_>) -> Error {
    let named = ParsedCertificate::try_from(end_entity).map(|cert| verify_server_name(&cert, server_name));
    match named {
        Ok(Err(of_another_name)) => of_another_name,
        Ok(Ok(())) | Err(_) => Error::InvalidCertificate(CertificateError::UnknownIssuer),
    }
}

/// Whether the certificate is in order but for who has signed it.
fn is_about_issuer(reason: &CertificateError) -> bool {
    match reason {
        // An issuer of that name is known, but it is another one.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => true,
        // The library of the library has no other way to say so.
        CertificateError::Other(reason) => reason.0.to_string() == "CaUsedAsEndEntity",
        _ => false,
    }
}
