//! Tokens of Microsoft Entra (`azuread`): of a managed identity, an application's secret, certificate or federated token, or
//! of whatever of these the machine offers (`sdk`).

use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use rustls::SignatureScheme;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use tokio::time::{Duration, Instant};

use crate::client::cloud::{Asker, CloudSurroundings, Renewal, Token, add_header, form, secret, url};
use crate::client::{Failure, Request, base64, jwt};
use crate::config::remote_auth::AzureAdConfig;
use crate::model::go;
use crate::model::secret::Secret;

/// How long an assertion holds.
const ASSERTION_SECS: u64 = 10 * 60;
/// A machine that does not answer within this is no virtual machine of Azure.
const PROBE_MAX: Duration = Duration::from_secs(1);
/// A longer secret of Azure Arc is none.
const ARC_SECRET_LEN_MAX: usize = 4096;
const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

pub(super) struct Azure {
    asker: Asker,
    surroundings: CloudSurroundings,
    authority: String,
    scope: String,
    /// In the order in which they are tried, or why there are none.
    ways: Result<Vec<Way>, String>,
    /// The one that has given a token.
    found: Mutex<Option<usize>>,
}

/// One way to sign in.
enum Way {
    Secret { app: App, secret: Secret<String> },
    Certificate { app: App, certificate: Certificate },
    Federated { app: App, token_file: String },
    Managed { client_id: Option<String>, probes: bool },
}

struct App {
    tenant: String,
    client_id: String,
}

struct Certificate {
    path: String,
    key_path: String,
    sends_chain: bool,
}

/// Why a way gives no token.
enum Missing {
    /// It is not there on this machine: the next is tried.
    Unavailable(Failure),
    /// It is there and has failed.
    Failed(Failure),
}

impl From<Failure> for Missing {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl Azure {
    pub(super) fn new(config: &AzureAdConfig, asker: Asker, surroundings: CloudSurroundings) -> Self {
        let (authority, audience) = match config.cloud.as_str() {
            "AzureChina" => ("https://login.chinacloudapi.cn", "https://monitor.azure.cn//.default"),
            "AzureGovernment" => ("https://login.microsoftonline.us", "https://monitor.azure.us//.default"),
            _ => ("https://login.microsoftonline.com", "https://monitor.azure.com//.default"),
        };
        let authority = surroundings.azure_authority.clone().unwrap_or_else(|| authority.to_owned());
        let scope = if config.scope.is_empty() { audience.to_owned() } else { config.scope.clone() };
        let ways = ways(config, &surroundings);
        Self { asker, surroundings, authority, scope, ways, found: Mutex::new(None) }
    }

    pub(super) async fn fetch(&self, deadline: Instant) -> Result<Token, Failure> {
        let ways = self.ways.as_ref().map_err(|reason| Failure::Other(reason.clone()))?;
        let found = *self.found.lock();
        if let Some(way) = found.and_then(|found| ways.get(found)) {
            return self.by(way, deadline).await.map_err(|missing| match missing {
                Missing::Unavailable(failure) | Missing::Failed(failure) => failure,
            });
        }
        let mut reasons = Vec::new();
        for (number, way) in ways.iter().enumerate() {
            match self.by(way, deadline).await {
                Ok(token) => {
                    *self.found.lock() = Some(number);
                    return Ok(token);
                }
                Err(Missing::Unavailable(failure)) => reasons.push(failure.to_string()),
                Err(Missing::Failed(failure)) => return Err(failure),
            }
        }
        if reasons.is_empty() {
            reasons.push("no credentials are found in the environment".to_owned());
        }
        Err(Failure::Other(reasons.join("; ")))
    }

    async fn by(&self, way: &Way, deadline: Instant) -> Result<Token, Missing> {
        match way {
            Way::Secret { app, secret } => self.application(app, &[("client_secret", secret.expose())], deadline).await,
            Way::Certificate { app, certificate } => {
                let assertion = self.assertion(app, certificate, deadline).await?;
                self.asserted(app, &assertion, deadline).await
            }
            Way::Federated { app, token_file } => {
                let token = self.asker.file(token_file, "federated token", deadline).await?;
                self.asserted(app, &String::from_utf8_lossy(&token), deadline).await
            }
            Way::Managed { client_id, probes } => self.managed(client_id.as_deref(), *probes, deadline).await,
        }
    }

    async fn asserted(&self, app: &App, assertion: &str, deadline: Instant) -> Result<Token, Missing> {
        let shown = [("client_assertion", assertion), ("client_assertion_type", ASSERTION_TYPE)];
        self.application(app, &shown, deadline).await
    }

    /// Asks for the token of an application, which shows who it is by the first of `shown`.
    async fn application(&self, app: &App, shown: &[(&str, &str)], deadline: Instant) -> Result<Token, Missing> {
        let own = [("client_id", app.client_id.as_str()), ("client_info", "1"), ("grant_type", "client_credentials")];
        let mut fields: Vec<(&str, &str)> = [&own[..], shown].concat();
        fields.push(("scope", &self.scope));
        let request = form(url(&self.token_url(app))?, &fields);
        let secrets: Vec<&str> = shown.iter().take(1).map(|(_, value)| *value).collect();
        let answer = self.asker.object(request, &secrets, deadline).await.map_err(|(_, failure)| failure)?;
        Ok(Token::of(&answer, Renewal::HalfWay)?)
    }

    fn token_url(&self, app: &App) -> String {
        format!("{}/{}/oauth2/v2.0/token", self.authority.trim_end_matches('/'), app.tenant)
    }

    /// A signed text that only the owner of the certificate's key can make.
    async fn assertion(&self, app: &App, certificate: &Certificate, deadline: Instant) -> Result<String, Failure> {
        let mut pem = self.asker.file(&certificate.path, "certificate", deadline).await?;
        if !certificate.key_path.is_empty() {
            pem.push(b'\n');
            pem.extend(self.asker.file(&certificate.key_path, "private key", deadline).await?);
        }
        let (audience, client_id) = (self.token_url(app), app.client_id.clone());
        let sends_chain = certificate.sends_chain;
        // Signing takes milliseconds.
        self.asker.reader.run(deadline, move || sign(&pem, &audience, &client_id, sends_chain)).await?
    }

    async fn managed(&self, client_id: Option<&str>, probes: bool, deadline: Instant) -> Result<Token, Missing> {
        let variable = |name: &str| (self.surroundings.variable)(name);
        let resource = self.scope.strip_suffix("/.default").unwrap_or(&self.scope);
        let refused = |what: &str| Missing::Failed(Failure::Other(format!("{what} support user-assigned identities")));
        let get = |base: &str, version: &str, id: Option<(&str, &str)>| -> Result<Request, Failure> {
            let mut url = url(base)?;
            url.query_pairs_mut().append_pair("api-version", version).append_pair("resource", resource);
            if let Some((name, id)) = id {
                url.query_pairs_mut().append_pair(name, id);
            }
            Ok(Request::get(url))
        };
        let endpoints = (variable("IDENTITY_ENDPOINT"), variable("IDENTITY_HEADER"));
        let arc = self.surroundings.azure_arc.0.exists() || variable("IMDS_ENDPOINT").is_some();
        let id = client_id.map(|id| ("client_id", id));
        let (request, shown) = match (endpoints, variable("MSI_ENDPOINT"), variable("MSI_SECRET")) {
            ((Some(_), Some(_)), ..) if variable("IDENTITY_SERVER_THUMBPRINT").is_some() => {
                return Err(Failure::Other("Service Fabric is not asked for tokens".to_owned()).into());
            }
            ((Some(endpoint), Some(header)), ..) => {
                let mut request = get(&endpoint, "2019-08-01", id)?;
                add_header(&mut request, "x-identity-header", &header)?;
                (request, header)
            }
            (_, Some(endpoint), Some(shown)) => {
                let other = variable("DEFAULT_IDENTITY_CLIENT_ID");
                let id = client_id.or(other.as_deref()).map(|id| ("clientid", id));
                let mut request = get(&endpoint, "2017-09-01", id)?;
                add_header(&mut request, "secret", &shown)?;
                (request, shown)
            }
            (_, Some(_), None) if client_id.is_some() => return Err(refused("Cloud Shell does not")),
            (_, Some(endpoint), None) => {
                let mut request = form(url(&endpoint)?, &[("resource", resource)]);
                add_header(&mut request, "metadata", "true")?;
                (request, String::new())
            }
            ((endpoint, _), ..) if arc => {
                if client_id.is_some() {
                    return Err(refused("Azure Arc does not"));
                }
                let endpoint =
                    endpoint.unwrap_or_else(|| "http://127.0.0.1:40342/metadata/identity/oauth2/token".to_owned());
                let mut request = get(&endpoint, "2020-06-01", None)?;
                add_header(&mut request, "metadata", "true")?;
                let key = self.arc_secret(request.clone(), deadline).await?;
                add_header(&mut request, "authorization", &format!("Basic {}", key.expose()))?;
                (request, key.expose().clone())
            }
            _ => {
                let mut request = get(&self.surroundings.azure_metadata, "2018-02-01", id)?;
                if probes {
                    self.probe(&request, deadline).await?;
                }
                add_header(&mut request, "metadata", "true")?;
                (request, String::new())
            }
        };
        let answer =
            self.asker.object(request, &[&shown], deadline).await.map_err(|(status, failure)| match status {
                Some(400) if client_id.is_some() => Missing::Failed(Failure::Other(format!(
                    "the requested identity isn't assigned to this resource: {failure}"
                ))),
                Some(400) => Missing::Unavailable(Failure::Other(format!(
                    "failed to authenticate a system assigned identity: {failure}"
                ))),
                _ => Missing::Failed(failure),
            })?;
        Ok(Token::of(&answer, Renewal::HalfWay)?)
    }

    /// Whether anybody answers at the address of the metadata service.
    async fn probe(&self, request: &Request, deadline: Instant) -> Result<(), Missing> {
        let mut probe = request.clone();
        probe.url.set_query(None);
        let deadline = deadline.min(Instant::now() + PROBE_MAX);
        let answered = self.asker.send(probe, deadline).await;
        answered.map(|_| ()).map_err(|failure| {
            Missing::Unavailable(Failure::Other(format!("managed identity is not available: {failure}")))
        })
    }

    /// The content of the file that the first answer of Azure Arc names.
    async fn arc_secret(&self, request: Request, deadline: Instant) -> Result<Secret<String>, Failure> {
        let wrong = |text: String| Failure::Other(text);
        let response = self.asker.send(request, deadline).await?;
        if response.status.as_u16() != 401 {
            return Err(wrong(format!("expected a 401 response, received {}", response.status.as_u16())));
        }
        let header = response.headers.get("www-authenticate").and_then(|value| value.to_str().ok());
        let header = header.ok_or_else(|| wrong("response has no www-authenticate header".to_owned()))?;
        let path = header.strip_prefix("Basic realm=").map(|path| path.trim_matches('"'));
        let path = path.ok_or_else(|| wrong("the www-authenticate header names no file".to_owned()))?;
        // Another program could have the secret of any file sent to it.
        let place = std::path::Path::new(path);
        let is_good = place.parent() == Some(self.surroundings.azure_arc.1.as_path())
            && place.extension().is_some_and(|extension| extension == "key");
        if !is_good {
            return Err(wrong(format!("unexpected file path {} from the identity endpoint", go::quote(path))));
        }
        let content = self.asker.file(path, "secret of Azure Arc", deadline).await?;
        if ARC_SECRET_LEN_MAX < content.len() {
            return Err(wrong(format!("the secret of Azure Arc has more than {ARC_SECRET_LEN_MAX} bytes")));
        }
        Ok(secret(String::from_utf8_lossy(&content).into_owned()))
    }
}

/// The ways of a configuration.
fn ways(config: &AzureAdConfig, surroundings: &CloudSurroundings) -> Result<Vec<Way>, String> {
    let app = |tenant: &str, client_id: &str| App { tenant: tenant.to_owned(), client_id: client_id.to_owned() };
    if let Some(way) = &config.managed_identity {
        let client_id = Some(way.client_id.clone()).filter(|id| !id.is_empty());
        return Ok(vec![Way::Managed { client_id, probes: false }]);
    }
    if let Some(way) = &config.workload_identity {
        let app = app(&way.tenant_id, &way.client_id);
        return Ok(vec![Way::Federated { app, token_file: way.token_file_path.clone() }]);
    }
    if let Some(way) = &config.oauth {
        let app = app(&way.tenant_id, &way.client_id);
        return Ok(vec![Way::Secret { app, secret: way.client_secret.clone() }]);
    }
    if let Some(way) = &config.certificate {
        let certificate = Certificate {
            path: way.certificate_path.clone(),
            key_path: way.certificate_key_path.clone(),
            sends_chain: way.send_certificate_chain,
        };
        return Ok(vec![Way::Certificate { app: app(&way.tenant_id, &way.client_id), certificate }]);
    }
    let tenant = config.sdk.as_ref().map_or("", |way| way.tenant_id.as_str());
    found_ways(tenant, surroundings)
}

/// What the environment offers, in the order of Azure's libraries. Their programs for developers are not run.
fn found_ways(tenant: &str, surroundings: &CloudSurroundings) -> Result<Vec<Way>, String> {
    const NAMES: [&str; 3] = ["EnvironmentCredential", "WorkloadIdentityCredential", "ManagedIdentityCredential"];
    const OTHERS: [&str; 3] = ["AzureCLICredential", "AzureDeveloperCLICredential", "AzurePowerShellCredential"];
    let variable = |name: &str| (surroundings.variable)(name);
    let selected = variable("AZURE_TOKEN_CREDENTIALS");
    let is_one = |names: &[&str], wanted: &str| names.iter().any(|name| name.eq_ignore_ascii_case(wanted));
    let wants = |name: &str| match selected.as_deref() {
        None | Some("prod") => true,
        Some(wanted) => wanted.eq_ignore_ascii_case(name),
    };
    match selected.as_deref() {
        None | Some("prod") => {}
        Some(wanted) if is_one(&NAMES, wanted) => {}
        Some(wanted) if wanted == "dev" || is_one(&OTHERS, wanted) => {
            return Err(format!("AZURE_TOKEN_CREDENTIALS is {}: such programs are not run", go::quote(wanted)));
        }
        Some(wanted) => return Err(format!("invalid AZURE_TOKEN_CREDENTIALS value {}", go::quote(wanted))),
    }
    let (id, own_tenant) = (variable("AZURE_CLIENT_ID"), variable("AZURE_TENANT_ID"));
    let mut ways = Vec::new();
    if let (true, Some(client_id), Some(tenant)) = (wants(NAMES[0]), id.clone(), own_tenant.clone()) {
        let app = App { tenant, client_id };
        if let Some(text) = variable("AZURE_CLIENT_SECRET") {
            ways.push(Way::Secret { app, secret: secret(text) });
        } else if let Some(path) = variable("AZURE_CLIENT_CERTIFICATE_PATH") {
            let sends_chain = variable("AZURE_CLIENT_SEND_CERTIFICATE_CHAIN");
            let sends_chain = sends_chain.is_some_and(|text| text == "1" || text.eq_ignore_ascii_case("true"));
            let certificate = Certificate { path, key_path: String::new(), sends_chain };
            ways.push(Way::Certificate { app, certificate });
        }
    }
    let tenant = Some(tenant.to_owned()).filter(|tenant| !tenant.is_empty()).or(own_tenant);
    let federated = (id.clone(), tenant, variable("AZURE_FEDERATED_TOKEN_FILE"));
    if let (true, (Some(client_id), Some(tenant), Some(token_file))) = (wants(NAMES[1]), federated) {
        ways.push(Way::Federated { app: App { tenant, client_id }, token_file });
    }
    if wants(NAMES[2]) {
        let is_alone = selected.as_deref().is_some_and(|wanted| wanted.eq_ignore_ascii_case(NAMES[2]));
        ways.push(Way::Managed { client_id: id, probes: !is_alone });
    }
    Ok(ways)
}

fn sign(pem: &[u8], audience: &str, client_id: &str, sends_chain: bool) -> Result<String, Failure> {
    let wrong = |text: &str| Failure::Other(format!("failed to parse certificate data: {text}"));
    if pem.first() == Some(&0x30) {
        return Err(wrong("PKCS#12 is not read, only PEM"));
    }
    let chain: Vec<CertificateDer<'_>> = CertificateDer::pem_slice_iter(pem).flatten().collect();
    let first = chain.first().ok_or_else(|| wrong("found no certificate"))?;
    let thumbprint = base64::url_safe(&Sha256::digest(first));
    let mut header = json!({"alg": "PS256", "typ": "JWT", "x5t#S256": thumbprint});
    if sends_chain {
        header["x5c"] = chain.iter().map(|one| Value::from(base64::standard(one))).collect();
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let mut claims = Map::new();
    claims.insert("aud".to_owned(), audience.into());
    claims.insert("exp".to_owned(), (now + ASSERTION_SECS).into());
    claims.insert("iss".to_owned(), client_id.into());
    claims.insert("jti".to_owned(), jwt::random_id()?.into());
    claims.insert("nbf".to_owned(), now.into());
    claims.insert("sub".to_owned(), client_id.into());
    jwt::signed(&header, &Value::Object(claims), pem, SignatureScheme::RSA_PSS_SHA256)
}
