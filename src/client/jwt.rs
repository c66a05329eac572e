//! Signed tokens (JWT, RFC 7519) that show who a client is: claims, signed with an RSA key.

use rustls::SignatureScheme;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::Value;

use crate::client::{Failure, base64};

/// A token of this head and these claims, signed with a key in PEM.
pub(super) fn signed(
    header: &Value,
    claims: &Value,
    key_pem: &[u8],
    scheme: SignatureScheme,
) -> Result<String, Failure> {
    let wrong = |text: &str| Failure::Other(text.to_owned());
    let key = PrivateKeyDer::from_pem_slice(key_pem)
        .map_err(|_| wrong("invalid key: Key must be a PEM encoded PKCS1 or PKCS8 key"))?;
    let key = rustls::crypto::ring::sign::any_supported_type(&key);
    let signer = key.ok().and_then(|key| key.choose_scheme(&[scheme]));
    let signer = signer.ok_or_else(|| wrong("key is not a valid RSA private key"))?;
    let part = |value: &Value| base64::url_safe(value.to_string().as_bytes());
    let text = format!("{}.{}", part(header), part(claims));
    let signature = signer.sign(text.as_bytes()).map_err(|error| Failure::Other(error.to_string()))?;
    Ok(format!("{text}.{}", base64::url_safe(&signature)))
}

/// A random UUID (version 4).
pub(super) fn random_id() -> Result<String, Failure> {
    let mut bytes = [0_u8; 16];
    let random = rustls::crypto::ring::default_provider().secure_random;
    random.fill(&mut bytes).map_err(|_| Failure::Other("no random numbers".into()))?;
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok([&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_random_uuids() {
        let (one, other) = (random_id().unwrap(), random_id().unwrap());
        assert_ne!(one, other);
        assert_eq!((one.len(), &one[14..15]), (36, "4"));
    }
}
