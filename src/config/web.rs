//! `--web.config.file`: TLS, authentication, headers and the rate limit of our own HTTP server. Schema, defaults and texts
//! of errors are those of Prometheus's exporter-toolkit.

use std::collections::BTreeMap;

use super::alertmanager::GoDuration;
use super::http_client::TlsVersion;
use super::load::reason;
use super::path::{self, FilePath};
use super::yaml::block::{Preset, block};
use super::yaml::{self, Abort, Decoded, Decoder, Dialect, Node, Out, Yaml, YamlError, text_of};
use crate::model::go;
use crate::model::secret::Secret;

/// Cipher suites by Go's names; those that our TLS library has not are taken, and left out with a warning.
const CIPHERS: [&str; 13] = [
    "TLS_AES_128_GCM_SHA256",
    "TLS_AES_256_GCM_SHA384",
    "TLS_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
];
const CURVES: [&str; 4] = ["CurveP256", "CurveP384", "CurveP521", "X25519"];

/// Headers that may be set, with the values that they may have; none: any.
const HEADERS: [(&str, &[&str]); 5] = [
    ("Strict-Transport-Security", &[]),
    ("X-Content-Type-Options", &["nosniff"]),
    ("X-Frame-Options", &["deny", "sameorigin"]),
    ("X-XSS-Protection", &[]),
    ("Content-Security-Policy", &[]),
];

block! {
    /// The whole file.
    pub struct WebConfig("web.Config") {
        /// TLS.
        pub tls: TlsServerConfig = "tls_server_config", omitempty;
        /// HTTP/2 and headers.
        pub http: HttpServerConfig = "http_server_config", omitempty;
        /// How many requests are answered.
        pub rate_limit: RateLimit = "rate_limit", omitempty;
        /// Hashes of passwords, by user name.
        pub users: BTreeMap<String, Secret<String>> = "basic_auth_users", omitempty;
    }
}

block! {
    /// `tls_server_config`.
    pub struct TlsServerConfig("web.TLSConfig") {
        /// Text of the certificate chain.
        pub cert: String = "cert", omitempty;
        /// Text of the key.
        pub key: Secret<String> = "key", omitempty;
        /// Text of the authorities of clients.
        pub client_ca: String = "client_ca", omitempty;
        /// File with the certificate chain.
        pub cert_file: FilePath = "cert_file", omitempty;
        /// File with the key.
        pub key_file: FilePath = "key_file", omitempty;
        /// What clients must show; see [`ClientAuth`].
        pub client_auth: String = "client_auth_type", omitempty;
        /// File with the authorities of clients.
        pub client_ca_file: FilePath = "client_ca_file", omitempty;
        /// Cipher suites, by Go's names; all if empty.
        pub ciphers: Vec<Cipher> = "cipher_suites", omitempty;
        /// Groups for the key exchange, by Go's names; all if empty.
        pub curves: Vec<Curve> = "curve_preferences", omitempty;
        /// Oldest version; TLS 1.2 unless set.
        pub min_version: Option<TlsVersion> = "min_version", omitempty;
        /// Newest version; TLS 1.3 unless set.
        pub max_version: Option<TlsVersion> = "max_version", omitempty;
        /// Whether our order of cipher suites counts; it always does, as in Go.
        pub prefer_server_ciphers: Option<bool> = "prefer_server_cipher_suites", omitempty;
        /// Alternative names of which a client's certificate must have one; any if not given, none if the list is empty.
        pub client_sans: Option<Vec<String>> = "client_allowed_sans", omitempty;
    }
}

block! {
    /// `http_server_config`.
    pub struct HttpServerConfig("web.HTTPConfig") {
        /// Whether HTTP/2 is spoken over TLS; on unless set.
        pub http2: Option<bool> = "http2", omitempty;
        /// Headers of all answers.
        pub headers: BTreeMap<String, String> = "headers", omitempty;
    }
}

block! {
    /// `rate_limit`: a bucket of `burst` requests that gets one more each `interval`.
    pub struct RateLimit("web.RateLimiterConfig") {
        /// Size of the bucket.
        pub burst: i64 = "burst", omitempty;
        /// Time for one more; zero for no limit.
        pub interval: GoDuration = "interval", omitempty;
    }
}

/// The name of a cipher suite.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cipher(pub String);

/// The name of a group for the key exchange.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Curve(pub String);

/// Reads a name out of a list.
macro_rules! known_name {
    ($name:ident, $go:literal, $known:ident, $what:literal) => {
        impl Yaml for $name {
            fn go_type() -> String {
                $go.to_owned()
            }
            fn decode(&mut self, node: &Node, decoder: &mut Decoder) -> Decoded {
                let Some(text) = text_of(node, decoder, "string")? else { return Ok(false) };
                if !$known.contains(&text) {
                    return Err(Abort::at(node, format!(concat!("unknown ", $what, ": {}"), text)));
                }
                text.clone_into(&mut self.0);
                Ok(true)
            }
            fn encode(&self) -> Out {
                Out::Text(self.0.clone())
            }
            fn is_zero(&self) -> bool {
                self.0.is_empty()
            }
        }
    };
}

known_name!(Cipher, "web.Cipher", CIPHERS, "cipher");
known_name!(Curve, "web.Curve", CURVES, "curve");

/// What clients must show of themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAuth {
    /// Nothing.
    None,
    /// A certificate is asked for; any is taken, and none as well.
    Request,
    /// Any certificate.
    RequireAny,
    /// A certificate of the authorities, or none.
    VerifyIfGiven,
    /// A certificate of the authorities.
    RequireAndVerify,
}

impl TlsServerConfig {
    /// Whether TLS is spoken. Errors if the block is half filled in.
    pub fn is_on(&self) -> Result<bool, String> {
        let has_cert = !self.cert.is_empty() || !self.cert_file.is_empty();
        let has_key = !self.key.expose().is_empty() || !self.key_file.is_empty();
        match (has_cert, has_key) {
            (false, false) if !self.has_client_ca() && self.client_auth.is_empty() => Ok(false),
            (false, _) => Err("missing one of cert or cert_file".to_owned()),
            (true, false) => Err("missing one of key or key_file".to_owned()),
            (true, true) => Ok(true),
        }
    }

    /// What clients must show.
    pub fn client_auth(&self) -> Result<ClientAuth, String> {
        let auth = match self.client_auth.as_str() {
            "" | "NoClientCert" => ClientAuth::None,
            "RequestClientCert" => ClientAuth::Request,
            "RequireAnyClientCert" | "RequireClientCert" => ClientAuth::RequireAny,
            "VerifyClientCertIfGiven" => ClientAuth::VerifyIfGiven,
            "RequireAndVerifyClientCert" => ClientAuth::RequireAndVerify,
            other => return Err(format!("invalid ClientAuth: {other}")),
        };
        if auth == ClientAuth::None && self.has_client_ca() {
            return Err("client CA's have been configured without a Client Auth Policy".to_owned());
        }
        Ok(auth)
    }

    fn has_client_ca(&self) -> bool {
        !self.client_ca.is_empty() || !self.client_ca_file.is_empty()
    }
}

impl WebConfig {
    /// Parses a file; `dir` is its folder, from which relative paths count.
    pub fn parse(text: &str, dir: &str) -> Result<Self, YamlError> {
        let mut config = Self::default();
        let (root, _) = yaml::node::parse(text, Dialect::V2)?;
        if let Some(root) = &root {
            yaml::read_node(root, &mut config, Decoder::v2())?;
        }
        for (name, value) in &config.http.headers {
            let wrong = |message: String| {
                let place = ["http_server_config", "headers", name].map(str::to_owned);
                let line = root.as_ref().map_or(0, |root| root.line_at(&place));
                Err(YamlError::Value { message, line, field: place.join(".") })
            };
            match HEADERS.iter().find(|(known, _)| known == name) {
                None => return wrong(format!("HTTP header {} can not be configured", go::quote(name))),
                Some((_, [])) => {}
                Some((_, allowed)) if allowed.contains(&value.as_str()) => {}
                Some((_, allowed)) => {
                    let allowed: Vec<String> = allowed.iter().map(|value| go::quote(value)).collect();
                    let (allowed, value) = (allowed.join(" "), go::quote(value));
                    let text = format!("invalid value for {name}. Expected one of: [{allowed}], but got: {value}");
                    return wrong(text);
                }
            }
        }
        config.resolve_paths(dir);
        Ok(config)
    }

    /// Reads a file. Errors name it.
    pub fn load(file: &str) -> Result<Self, String> {
        let content = std::fs::read(file).map_err(|error| format!("open {file}: {}", reason(&error)))?;
        let text = String::from_utf8(content).map_err(|_| format!("{file}: yaml: invalid leading UTF-8 octet"))?;
        Self::parse(&text, &path::dir_of(file)).map_err(|error| format!("{file}: {error}"))
    }
}

impl Preset for WebConfig {}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str, expected: &str) {
        let error = WebConfig::parse(text, "").unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }

    #[test]
    fn a_whole_file_is_read() {
        let text = "
tls_server_config:
  cert_file: c.pem
  key_file: /k.pem
  client_auth_type: RequireAndVerifyClientCert
  client_ca_file: ca.pem
  client_allowed_sans: [a, 10.0.0.1]
  min_version: TLS13
  cipher_suites: [TLS_AES_128_GCM_SHA256]
  curve_preferences: [X25519, CurveP256]
  prefer_server_cipher_suites: true
http_server_config: {http2: false, headers: {X-Frame-Options: deny, Content-Security-Policy: x}}
rate_limit: {burst: 5, interval: 1s}
basic_auth_users: {alice: $2y$10$abc}
";
        let config = WebConfig::parse(text, "/etc").unwrap();
        assert_eq!((&*config.tls.cert_file, &*config.tls.key_file), ("/etc/c.pem", "/k.pem"));
        assert_eq!(config.tls.client_auth(), Ok(ClientAuth::RequireAndVerify));
        assert_eq!(config.tls.is_on(), Ok(true));
        assert_eq!((config.http.http2, config.rate_limit.burst), (Some(false), 5));
        assert_eq!(config.users["alice"].expose(), "$2y$10$abc");
        assert!(!format!("{config:?}").contains("$2y"), "hashes are secret");
        assert_eq!(WebConfig::parse("", "").unwrap(), WebConfig::default());
    }

    #[test]
    fn errors_are_those_of_the_toolkit() {
        refused("tls: {}", "line 1: field tls not found in type web.Config");
        refused("tls_server_config: {cipher_suites: [X]}", "unknown cipher: X");
        refused("tls_server_config: {curve_preferences: [X]}", "unknown curve: X");
        refused("tls_server_config: {min_version: TLS9}", "unknown TLS version: TLS9");
        refused("http_server_config: {headers: {X-Foo: a}}", "HTTP header \"X-Foo\" can not be configured");
        let text = "invalid value for X-Frame-Options. Expected one of: [\"deny\" \"sameorigin\"], but got: \"no\"";
        refused("http_server_config: {headers: {X-Frame-Options: no}}", text);
        let tls = |text: &str| WebConfig::parse(&format!("tls_server_config: {{{text}}}"), "").unwrap().tls;
        assert_eq!(tls("cert: a").is_on(), Err("missing one of key or key_file".to_owned()));
        assert_eq!(tls("key: a").is_on(), Err("missing one of cert or cert_file".to_owned()));
        assert_eq!(tls("client_auth_type: Foo").client_auth(), Err("invalid ClientAuth: Foo".to_owned()));
        let text = "client CA's have been configured without a Client Auth Policy";
        assert_eq!(tls("client_ca: x, cert: a, key: b").client_auth(), Err(text.to_owned()));
        assert!(WebConfig::load("/no/such/file").unwrap_err().contains("no such file or directory"));
    }
}
