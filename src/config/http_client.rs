//! Settings of outgoing HTTP: authentication, TLS, proxy, headers. They stand inline in every block that talks HTTP.

use std::collections::BTreeMap;

use super::claims::Claims;
use super::path::{self, FilePath};
use super::url::{ConfigUrl, UrlText};
use super::yaml::block::{Preset, block};
use super::yaml::{Abort, Decoded, Decoder, Kind, Node, Out, Yaml, read, text_of};
use crate::model::go;
use crate::model::secret::Secret;

/// The grant type by which a signed assertion is exchanged for a token.
pub const JWT_GRANT: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

/// Headers that a request sets by itself, in Go's canonical spelling.
const RESERVED_HEADERS: [&str; 18] = [
    "Authorization",
    "Host",
    "Content-Encoding",
    "Content-Length",
    "Content-Type",
    "User-Agent",
    "Connection",
    "Keep-Alive",
    "Proxy-Authenticate",
    "Proxy-Authorization",
    "Www-Authenticate",
    "Accept-Encoding",
    "X-Prometheus-Remote-Write-Version",
    "X-Prometheus-Remote-Read-Version",
    "X-Prometheus-Scrape-Timeout-Seconds",
    "X-Amz-Date",
    "X-Amz-Security-Token",
    "X-Amz-Content-Sha256",
];

block! {
    /// `basic_auth`: at most one source each for name and password.
    pub struct BasicAuth("config.BasicAuth", "config.plain") {
        /// User name.
        pub username: String = "username", omitempty;
        /// File with the user name.
        pub username_file: FilePath = "username_file", omitempty;
        /// Name in a secret manager.
        pub username_ref: String = "username_ref", omitempty;
        /// Password.
        pub password: Secret<String> = "password", omitempty;
        /// File with the password.
        pub password_file: FilePath = "password_file", omitempty;
        /// Name in a secret manager.
        pub password_ref: String = "password_ref", omitempty;
    }
}

block! {
    /// `authorization`: the header of that name.
    pub struct Authorization("config.Authorization") {
        /// Scheme, `Bearer` unless set.
        pub auth_type: String = "type", omitempty;
        /// What follows the scheme.
        pub credentials: Secret<String> = "credentials", omitempty;
        /// File with what follows the scheme.
        pub credentials_file: FilePath = "credentials_file", omitempty;
        /// Name in a secret manager.
        pub credentials_ref: String = "credentials_ref", omitempty;
    }
}

block! {
    /// `oauth2`: client credentials or a signed assertion, exchanged for a token.
    pub struct OAuth2("config.OAuth2", "config.plain") {
        /// Name of the client.
        pub client_id: String = "client_id", omitempty;
        /// Its secret.
        pub client_secret: Secret<String> = "client_secret", omitempty;
        /// File with the secret.
        pub client_secret_file: FilePath = "client_secret_file", omitempty;
        /// Name in a secret manager.
        pub client_secret_ref: String = "client_secret_ref", omitempty;
        /// Key id of the assertion.
        pub client_certificate_key_id: String = "client_certificate_key_id", omitempty;
        /// Key that signs the assertion.
        pub client_certificate_key: Secret<String> = "client_certificate_key", omitempty;
        /// File with that key; not made absolute, as in Prometheus.
        pub client_certificate_key_file: String = "client_certificate_key_file", omitempty;
        /// Name in a secret manager.
        pub client_certificate_key_ref: String = "client_certificate_key_ref", omitempty;
        /// `client_credentials` or the JWT bearer grant.
        pub grant_type: String = "grant_type", omitempty;
        /// RS256 unless set.
        pub signature_algorithm: String = "signature_algorithm", omitempty;
        /// Issuer of the assertion.
        pub iss: String = "iss", omitempty;
        /// Audience of the assertion.
        pub audience: String = "audience", omitempty;
        /// Further claims of the assertion.
        pub claims: Claims = "claims", omitempty;
        /// Scopes asked for.
        pub scopes: Vec<String> = "scopes", omitempty;
        /// Where tokens are had.
        pub token_url: UrlText = "token_url", omitempty;
        /// Further parameters of the token request.
        pub endpoint_params: BTreeMap<String, String> = "endpoint_params", omitempty;
        /// TLS towards the token endpoint.
        pub tls_config: TlsConfig = "tls_config", omitempty;
        /// Proxy towards the token endpoint.
        pub proxy: ProxyConfig = "", inline;
    }
}

block! {
    /// `tls_config`: the client's side of TLS.
    pub struct TlsConfig("config.TLSConfig", "config.plain") {
        /// Text of the authorities' certificates.
        pub ca: String = "ca", omitempty;
        /// Text of the client certificate.
        pub cert: String = "cert", omitempty;
        /// Text of the client key.
        pub key: Secret<String> = "key", omitempty;
        /// File with the authorities' certificates.
        pub ca_file: FilePath = "ca_file", omitempty;
        /// File with the client certificate.
        pub cert_file: FilePath = "cert_file", omitempty;
        /// File with the client key.
        pub key_file: FilePath = "key_file", omitempty;
        /// Name in a secret manager.
        pub ca_ref: String = "ca_ref", omitempty;
        /// Name in a secret manager.
        pub cert_ref: String = "cert_ref", omitempty;
        /// Name in a secret manager.
        pub key_ref: String = "key_ref", omitempty;
        /// Name that the server's certificate has to carry.
        pub server_name: String = "server_name", omitempty;
        /// Takes any certificate.
        pub insecure_skip_verify: bool = "insecure_skip_verify", always;
        /// Lowest version spoken.
        pub min_version: Option<TlsVersion> = "min_version", omitempty;
        /// Highest version spoken.
        pub max_version: Option<TlsVersion> = "max_version", omitempty;
    }
}

block! {
    /// Proxy settings, inline.
    pub struct ProxyConfig("config.ProxyConfig") {
        /// The proxy.
        pub proxy_url: ConfigUrl = "proxy_url", omitempty;
        /// Hosts that are asked without it.
        pub no_proxy: String = "no_proxy", omitempty;
        /// Takes the proxy from the usual environment variables.
        pub proxy_from_environment: bool = "proxy_from_environment", omitempty;
        /// Headers of CONNECT requests.
        pub proxy_connect_header: BTreeMap<String, Vec<Secret<String>>> = "proxy_connect_header", omitempty;
    }
}

block! {
    /// Values of one header.
    pub struct Header("config.Header") {
        /// Values as they stand.
        pub values: Vec<String> = "values", omitempty;
        /// Values that are not shown.
        pub secrets: Vec<Secret<String>> = "secrets", omitempty;
        /// Files with values.
        pub files: Vec<FilePath> = "files", omitempty;
    }
}

block! {
    /// All settings of an HTTP client.
    pub struct HttpClientConfig("config.HTTPClientConfig", "config.plain") {
        /// Basic authentication.
        pub basic_auth: Option<BasicAuth> = "basic_auth", omitempty;
        /// The `Authorization` header.
        pub authorization: Option<Authorization> = "authorization", omitempty;
        /// OAuth 2.
        pub oauth2: Option<Box<OAuth2>> = "oauth2", omitempty;
        /// Older spelling of `authorization`; empty after loading.
        pub bearer_token: Secret<String> = "bearer_token", omitempty;
        /// Older spelling of `authorization`; empty after loading.
        pub bearer_token_file: FilePath = "bearer_token_file", omitempty;
        /// TLS.
        pub tls_config: TlsConfig = "tls_config", omitempty;
        /// Follows redirects; on unless set.
        pub follow_redirects: bool = "follow_redirects", always;
        /// Speaks HTTP/2 over TLS; on unless set, except for remote write.
        pub enable_http2: bool = "enable_http2", always;
        /// Proxy.
        pub proxy: ProxyConfig = "", inline;
        /// Further headers.
        pub http_headers: Option<Headers> = "http_headers", omitempty;
    }
}

impl Preset for BasicAuth {}
impl Preset for OAuth2 {
    fn check(&mut self) -> Result<(), String> {
        self.proxy.check()
    }
}

impl Preset for TlsConfig {
    fn check(&mut self) -> Result<(), String> {
        let many = |a: bool, b: bool, c: bool| usize::from(a) + usize::from(b) + usize::from(c) > 1;
        if many(!self.ca.is_empty(), !self.ca_file.is_empty(), !self.ca_ref.is_empty()) {
            return Err("at most one of ca, ca_file & ca_ref must be configured".to_owned());
        }
        if many(!self.cert.is_empty(), !self.cert_file.is_empty(), !self.cert_ref.is_empty()) {
            return Err("at most one of cert, cert_file & cert_ref must be configured".to_owned());
        }
        if many(!self.key.is_zero(), !self.key_file.is_empty(), !self.key_ref.is_empty()) {
            return Err("at most one of key and key_file must be configured".to_owned());
        }
        let cert = !(self.cert.is_empty() && self.cert_file.is_empty() && self.cert_ref.is_empty());
        let key = !(self.key.is_zero() && self.key_file.is_empty() && self.key_ref.is_empty());
        match (cert, key) {
            (true, false) => Err("exactly one of key or key_file must be configured when a client certificate is \
                                  configured"
                .to_owned()),
            (false, true) => {
                Err("exactly one of cert or cert_file must be configured when a client key is configured".to_owned())
            }
            _ => Ok(()),
        }
    }
}

impl ProxyConfig {
    fn check(&self) -> Result<(), String> {
        let url = !self.proxy_url.expose().is_empty();
        let wrong = if !self.proxy_connect_header.is_empty() && !self.proxy_from_environment && !url {
            "if proxy_connect_header is configured, proxy_url or proxy_from_environment must also be configured"
        } else if self.proxy_from_environment && url {
            "if proxy_from_environment is configured, proxy_url must not be configured"
        } else if self.proxy_from_environment && !self.no_proxy.is_empty() {
            "if proxy_from_environment is configured, no_proxy must not be configured"
        } else if !self.proxy_url.is_set() && !self.no_proxy.is_empty() {
            "if no_proxy is configured, proxy_url must also be configured"
        } else {
            return Ok(());
        };
        Err(wrong.to_owned())
    }
}

impl Preset for HttpClientConfig {
    fn preset() -> Self {
        Self { follow_redirects: true, enable_http2: true, ..Self::default() }
    }

    fn check(&mut self) -> Result<(), String> {
        self.check_basic()?;
        let bearer = !self.bearer_token.is_zero() || !self.bearer_token_file.is_empty();
        match &mut self.authorization {
            Some(authorization) => {
                if bearer {
                    return Err("authorization is not compatible with bearer_token & bearer_token_file".to_owned());
                }
                authorization.check()?;
                if self.basic_auth.is_some() || self.oauth2.is_some() {
                    return Err("at most one of basic_auth, oauth2 & authorization must be configured".to_owned());
                }
            }
            None if bearer => {
                self.authorization = Some(Authorization {
                    auth_type: "Bearer".to_owned(),
                    credentials: std::mem::take(&mut self.bearer_token),
                    credentials_file: std::mem::take(&mut self.bearer_token_file),
                    credentials_ref: String::new(),
                });
            }
            None => {}
        }
        if let Some(oauth2) = &self.oauth2 {
            if self.basic_auth.is_some() {
                return Err("at most one of basic_auth, oauth2 & authorization must be configured".to_owned());
            }
            oauth2.check_client()?;
        }
        self.proxy.check()?;
        for name in self.http_headers.iter().flat_map(|headers| headers.0.keys()) {
            let canonical = canonical_header(name);
            if RESERVED_HEADERS.contains(&canonical.as_str()) {
                return Err(format!("setting header {} is not allowed", go::quote(&canonical)));
            }
        }
        Ok(())
    }
}

impl HttpClientConfig {
    /// Reads a file that holds nothing else, as tools take it. Paths in it count from its folder.
    pub fn load(file: &str) -> Result<Self, String> {
        let text = std::fs::read_to_string(file).map_err(|error| error.to_string())?;
        let mut config = Self::preset();
        read(&text, &mut config).map_err(|error| error.to_string())?;
        config.resolve_paths(&path::dir_of(file));
        Ok(config)
    }

    fn check_basic(&self) -> Result<(), String> {
        let token = !self.bearer_token.is_zero();
        let token_file = !self.bearer_token_file.is_empty();
        if token && token_file {
            return Err("at most one of bearer_token & bearer_token_file must be configured".to_owned());
        }
        if (self.basic_auth.is_some() || self.oauth2.is_some()) && (token || token_file) {
            return Err(
                "at most one of basic_auth, oauth2, bearer_token & bearer_token_file must be configured".to_owned()
            );
        }
        let Some(basic) = &self.basic_auth else { return Ok(()) };
        let many = |a: bool, b: bool, c: bool| usize::from(a) + usize::from(b) + usize::from(c) > 1;
        if many(!basic.username.is_empty(), !basic.username_file.is_empty(), !basic.username_ref.is_empty()) {
            return Err(
                "at most one of basic_auth username, username_file & username_ref must be configured".to_owned()
            );
        }
        if many(!basic.password.is_zero(), !basic.password_file.is_empty(), !basic.password_ref.is_empty()) {
            return Err(
                "at most one of basic_auth password, password_file & password_ref must be configured".to_owned()
            );
        }
        Ok(())
    }
}

impl Authorization {
    fn check(&mut self) -> Result<(), String> {
        let sources =
            [!self.credentials.is_zero(), !self.credentials_file.is_empty(), !self.credentials_ref.is_empty()];
        if sources.into_iter().filter(|set| *set).count() > 1 {
            return Err("at most one of authorization credentials & credentials_file must be configured".to_owned());
        }
        self.auth_type = self.auth_type.trim().to_owned();
        if self.auth_type.is_empty() {
            "Bearer".clone_into(&mut self.auth_type);
        }
        if self.auth_type.eq_ignore_ascii_case("basic") {
            return Err("authorization type cannot be set to \"basic\", use \"basic_auth\" instead".to_owned());
        }
        Ok(())
    }
}

impl OAuth2 {
    fn check_client(&self) -> Result<(), String> {
        if self.client_id.is_empty() {
            return Err("oauth2 client_id must be configured".to_owned());
        }
        if self.token_url.expose().is_empty() {
            return Err("oauth2 token_url must be configured".to_owned());
        }
        let many = |a: bool, b: bool, c: bool| usize::from(a) + usize::from(b) + usize::from(c) > 1;
        if self.grant_type == JWT_GRANT {
            let key = !self.client_certificate_key.is_zero();
            let file = !self.client_certificate_key_file.is_empty();
            if many(key, file, !self.client_certificate_key_ref.is_empty()) {
                return Err(format!(
                    "at most one of oauth2 client_certificate_key, client_certificate_key_file & \
                     client_certificate_key_ref must be configured using grant-type={JWT_GRANT}"
                ));
            }
            if !matches!(self.signature_algorithm.as_str(), "" | "RS256" | "RS384" | "RS512") {
                return Err("valid signature algorithms are RS256, RS384 and RS512".to_owned());
            }
            return Ok(());
        }
        let secret = !self.client_secret.is_zero();
        if many(secret, !self.client_secret_file.is_empty(), !self.client_secret_ref.is_empty()) {
            return Err("at most one of oauth2 client_secret, client_secret_file & client_secret_ref must be \
                        configured using grant-type=client_credentials"
                .to_owned());
        }
        Ok(())
    }
}

/// Go's `http.CanonicalHeaderKey`: each word starts with a capital; names with other characters stay as they are.
fn canonical_header(name: &str) -> String {
    if !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b)) {
        return name.to_owned();
    }
    let mut upper = true;
    name.chars()
        .map(|c| {
            let shown = if upper { c.to_ascii_uppercase() } else { c.to_ascii_lowercase() };
            upper = c == '-';
            shown
        })
        .collect()
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    /// 1.0
    #[default]
    Tls10,
    /// 1.1
    Tls11,
    /// 1.2
    Tls12,
    /// 1.3
    Tls13,
}

impl Yaml for TlsVersion {
    fn go_type() -> String {
        "config.TLSVersion".to_owned()
    }
    fn decode(&mut self, node: &Node, decoder: &mut Decoder) -> Decoded {
        let Some(text) = text_of(node, decoder, "string")? else { return Ok(false) };
        *self = match text {
            "TLS10" => Self::Tls10,
            "TLS11" => Self::Tls11,
            "TLS12" => Self::Tls12,
            "TLS13" => Self::Tls13,
            _ => return Err(Abort::at(node, format!("unknown TLS version: {text}"))),
        };
        Ok(true)
    }
    fn encode(&self) -> Out {
        Out::Text(format!("{self:?}").to_ascii_uppercase())
    }
    fn is_zero(&self) -> bool {
        false
    }
}

/// Headers by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Headers(pub BTreeMap<String, Header>);

impl Yaml for Headers {
    fn go_type() -> String {
        "config.Headers".to_owned()
    }
    fn decode(&mut self, node: &Node, decoder: &mut Decoder) -> Decoded {
        if !matches!(node.kind, Kind::Mapping(_)) {
            return Ok(decoder.mismatch(node, "config.Headers"));
        }
        self.0.decode(node, decoder)
    }
    fn encode(&self) -> Out {
        self.0.encode()
    }
    fn is_zero(&self) -> bool {
        self.0.is_empty()
    }
    fn resolve_paths(&mut self, dir: &str) {
        self.0.resolve_paths(dir);
    }
}
