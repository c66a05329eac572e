//! Signed assertions of the JWT bearer grant (RFC 7523): a token of claims, signed with an RSA key.

use std::time::{SystemTime, UNIX_EPOCH};

use rustls::SignatureScheme;
use serde_json::{Map, Value, json};

use crate::client::{Failure, jwt};
use crate::config::http_client as config;

/// How long an assertion holds, as in Prometheus.
const LIFETIME_SECS: u64 = 10 * 60;

/// What the client says of itself.
pub(super) struct Assertion {
    algorithm: &'static str,
    scheme: SignatureScheme,
    key_id: String,
    /// Claims that stay the same, those of the configuration last.
    fixed: Map<String, Value>,
    configured: Map<String, Value>,
}

impl Assertion {
    /// The assertion that a configuration asks for; `None` with another grant.
    pub(super) fn of(config: &config::OAuth2) -> Option<Self> {
        if config.grant_type != config::JWT_GRANT {
            return None;
        }
        let (algorithm, scheme) = match config.signature_algorithm.as_str() {
            "RS384" => ("RS384", SignatureScheme::RSA_PKCS1_SHA384),
            "RS512" => ("RS512", SignatureScheme::RSA_PKCS1_SHA512),
            _ => ("RS256", SignatureScheme::RSA_PKCS1_SHA256),
        };
        let or = |text: &str, other: &str| if text.is_empty() { other.to_owned() } else { text.to_owned() };
        let mut fixed = Map::new();
        fixed.insert("iss".to_owned(), or(&config.iss, &config.client_id).into());
        fixed.insert("sub".to_owned(), config.client_id.clone().into());
        fixed.insert("aud".to_owned(), or(&config.audience, config.token_url.expose()).into());
        if !config.scopes.is_empty() {
            fixed.insert("scope".to_owned(), config.scopes.join(" ").into());
        }
        let key_id = config.client_certificate_key_id.clone();
        Some(Self { algorithm, scheme, key_id, fixed, configured: config.claims.to_json() })
    }

    /// The assertion as of now, signed with a key in PEM.
    pub(super) fn sign(&self, key_pem: &[u8]) -> Result<String, Failure> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        self.sign_at(key_pem, now, &jwt::random_id()?)
    }

    fn sign_at(&self, key_pem: &[u8], now_secs: u64, id: &str) -> Result<String, Failure> {
        let mut header = json!({"alg": self.algorithm, "typ": "JWT"});
        if !self.key_id.is_empty() {
            header["kid"] = self.key_id.clone().into();
        }
        let mut claims = self.fixed.clone();
        claims.insert("jti".to_owned(), id.into());
        claims.insert("iat".to_owned(), now_secs.into());
        claims.insert("exp".to_owned(), (now_secs + LIFETIME_SECS).into());
        claims.extend(self.configured.clone());
        jwt::signed(&header, &Value::Object(claims), key_pem, self.scheme)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::base64;
    use crate::config::url::UrlText;
    use crate::model::secret::Secret;

    const KEY: &str = include_str!("../tests/rsa_key.pem");

    /// The signature is that of `openssl dgst -sha256 -sign`.
    #[test]
    fn the_text_and_its_signature_are_as_expected() {
        let mut config = config::OAuth2 {
            grant_type: config::JWT_GRANT.into(),
            client_id: "me".into(),
            token_url: UrlText::new("http://t/"),
            client_certificate_key: Secret::new(KEY.into()),
            client_certificate_key_id: "k1".into(),
            ..config::OAuth2::default()
        };
        let text = "scrape_configs: [{job_name: a, oauth2: {client_id: c, token_url: 'http://t', claims: {role: admin, iat: 5}}}]";
        let loaded = crate::config::load_str("a.yml", text, &crate::config::LoadOptions::default()).unwrap();
        config.claims = loaded.scrape_configs[0].http.oauth2.clone().unwrap().claims;
        let signed = Assertion::of(&config).unwrap().sign_at(KEY.as_bytes(), 1000, "id").unwrap();
        let parts: Vec<&str> = signed.split('.').collect();
        assert_eq!(parts[0], base64::url_safe(br#"{"alg":"RS256","typ":"JWT","kid":"k1"}"#));
        let claims = r#"{"iss":"me","sub":"me","aud":"http://t/","jti":"id","iat":5,"exp":1600,"role":"admin"}"#;
        assert_eq!(parts[1], base64::url_safe(claims.as_bytes()));
        assert_eq!(parts[2], SIGNATURE);
        assert!(Assertion::of(&config::OAuth2::default()).is_none());
    }

    #[test]
    fn only_rsa_keys_sign() {
        let config = config::OAuth2 { grant_type: config::JWT_GRANT.into(), ..config::OAuth2::default() };
        let assertion = Assertion::of(&config).unwrap();
        let error = assertion.sign(EC_KEY.as_bytes()).unwrap_err().to_string();
        assert_eq!(error, "key is not a valid RSA private key");
    }

    const SIGNATURE: &str = "M36MCxxfDhO3_F-JA_BMdZR193sUr7mwKTPuBNWn9yu-TP8k0741wuWRHwqD9arSNPUkRRil4uqBcVuZtO6mmAB6-5w6DSIr2brX\
                             uzjvsWRHJRVUNTmhOeJXxu2ij7LaBrs2ddXFMyXfXfwbqyo5cC6XjZlfWa-Ldoh2faFgOLSpunET3L2C0lC4L7VDrA9A62QiVPAw\
                             9UjRZPNB9JEyIWWTtqwxl1gR92gk0q1M-taQFLE-gAOf3Ko0cr2V3YwjjhcyP93q6o_XcHnwhBrAVJrFTbnXq_49DiOujuqa3fnH\
                             yZziOd1nddyrfWbPVC4McSj57ZBQ9WExjnxnp7nqYA";
    const EC_KEY: &str = "-----BEGIN PRIVATE KEY-----\n\
                          MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgYhuvEhjr+7UL9q1B\n\
                          mh77KhH6V1zmnYU33UajCwq8I1qhRANCAAR2SiU4wVggg1iXhnlb6f4Pml4dXBX8\n\
                          tKQqibRn7YQY+2NKLvwvis6LC7p3f1lM0o36TNtbjm2bWDq3Gyf/EBjW\n\
                          -----END PRIVATE KEY-----";
}
