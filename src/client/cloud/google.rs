//! Tokens of Google (`google_iam`): of a service account, of a user, or of the virtual machine.

use std::time::{SystemTime, UNIX_EPOCH};

use rustls::SignatureScheme;
use serde::Deserialize;
use serde_json::json;
use tokio::time::{Duration, Instant};

use crate::client::cloud::{Asker, CloudSurroundings, Renewal, Token, add_header, form, url};
use crate::client::credentials::sensitive;
use crate::client::{Failure, Request, jwt};
use crate::config::http_client::JWT_GRANT;
use crate::config::remote_auth::GoogleIamConfig;
use crate::model::go;
use crate::model::secret::Secret;

/// What a token is asked for.
const SCOPE: &str = "https://www.googleapis.com/auth/monitoring.write";
/// How long an assertion holds, as in Google's libraries.
const ASSERTION_SECS: u64 = 3600;
/// A token is renewed so long before its end, as there.
const EARLY: Duration = Duration::from_secs(225);

pub(super) struct Google {
    asker: Asker,
    surroundings: CloudSurroundings,
    /// Empty unless the configuration names one.
    file: String,
}

/// A file with credentials. It has no `Debug`: nothing shows it.
#[derive(Deserialize)]
struct Credentials {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    client_email: String,
    #[serde(default)]
    private_key: String,
    #[serde(default)]
    private_key_id: String,
    #[serde(default)]
    token_uri: String,
    #[serde(default)]
    client_id: String,
    #[serde(default)]
    client_secret: String,
    #[serde(default)]
    refresh_token: String,
    #[serde(default)]
    quota_project_id: String,
}

impl Google {
    pub(super) fn new(config: &GoogleIamConfig, asker: Asker, surroundings: CloudSurroundings) -> Self {
        Self { asker, surroundings, file: config.credentials_file.clone() }
    }

    pub(super) async fn fetch(&self, deadline: Instant) -> Result<Token, Failure> {
        let variable = |name: &str| (self.surroundings.variable)(name);
        let mut token = if !self.file.is_empty() {
            let credentials = self.read(&self.file, deadline).await?;
            // As in Prometheus: a configured file has nothing else.
            if credentials.kind != "service_account" {
                let kind = go::quote(&credentials.kind);
                return Err(Failure::Other(format!("credentials of type {kind}, expected \"service_account\"")));
            }
            self.of_file(credentials, deadline).await?
        } else if let Some(path) = variable("GOOGLE_APPLICATION_CREDENTIALS") {
            let credentials = self.read(&path, deadline).await?;
            self.of_file(credentials, deadline).await?
        } else if let Some(path) = self.well_known().filter(|path| std::path::Path::new(path).exists()) {
            let credentials = self.read(&path, deadline).await?;
            self.of_file(credentials, deadline).await?
        } else {
            self.of_machine(deadline).await?
        };
        if let Some(project) = variable("GOOGLE_CLOUD_QUOTA_PROJECT") {
            token.project = Some(sensitive("X-Goog-User-Project", project.as_bytes())?);
        }
        Ok(token)
    }

    /// Where the programs for users leave what they have.
    fn well_known(&self) -> Option<String> {
        let folder = (self.surroundings.variable)("CLOUDSDK_CONFIG")
            .or_else(|| (self.surroundings.variable)("HOME").map(|home| format!("{home}/.config/gcloud")))?;
        Some(format!("{folder}/application_default_credentials.json"))
    }

    async fn read(&self, path: &str, deadline: Instant) -> Result<Credentials, Failure> {
        let content = self.asker.file(path, "credentials", deadline).await?;
        // The error of the parser may quote the file.
        serde_json::from_slice(&content).map_err(|error| {
            let (line, column) = (error.line(), error.column());
            Failure::Other(format!("{path} is no file with credentials: line {line} column {column}"))
        })
    }

    async fn of_file(&self, credentials: Credentials, deadline: Instant) -> Result<Token, Failure> {
        let project = credentials.quota_project_id.clone();
        let mut token = match credentials.kind.as_str() {
            "service_account" => self.of_service_account(credentials, deadline).await?,
            "authorized_user" => {
                let Credentials { client_id, client_secret, refresh_token, .. } = credentials;
                let fields = [
                    ("grant_type", "refresh_token"),
                    ("client_id", &client_id),
                    ("client_secret", &client_secret),
                    ("refresh_token", &refresh_token),
                ];
                let request = form(url(&self.surroundings.google_tokens)?, &fields);
                self.ask(request, &[&client_secret, &refresh_token], deadline).await?
            }
            other => return Err(Failure::Other(format!("credentials of type {} are not read", go::quote(other)))),
        };
        if !project.is_empty() {
            token.project = Some(sensitive("X-Goog-User-Project", project.as_bytes())?);
        }
        Ok(token)
    }

    async fn of_service_account(&self, credentials: Credentials, deadline: Instant) -> Result<Token, Failure> {
        let Credentials { client_email, private_key, private_key_id, token_uri, .. } = credentials;
        let uri = if token_uri.is_empty() { self.surroundings.google_tokens.clone() } else { token_uri };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let claims = json!({
            "iss": client_email, "scope": SCOPE, "aud": uri, "iat": now, "exp": now + ASSERTION_SECS,
        });
        let header = json!({"alg": "RS256", "typ": "JWT", "kid": private_key_id});
        let key = Secret::new(private_key);
        // Signing takes milliseconds.
        let sign = move || jwt::signed(&header, &claims, key.expose().as_bytes(), SignatureScheme::RSA_PKCS1_SHA256);
        let assertion = self.asker.reader.run(deadline, sign).await??;
        let request = form(url(&uri)?, &[("assertion", &assertion), ("grant_type", JWT_GRANT)]);
        self.ask(request, &[&assertion], deadline).await
    }

    async fn of_machine(&self, deadline: Instant) -> Result<Token, Failure> {
        let host = (self.surroundings.variable)("GCE_METADATA_HOST");
        let host = host.as_deref().unwrap_or(&self.surroundings.google_metadata);
        let path = "computeMetadata/v1/instance/service-accounts/default/token";
        let mut url = url(&format!("http://{host}/{path}"))?;
        url.query_pairs_mut().append_pair("scopes", SCOPE);
        let mut request = Request::get(url);
        add_header(&mut request, "metadata-flavor", "Google")?;
        self.ask(request, &[], deadline)
            .await
            .map_err(|failure| Failure::Other(format!("could not find default credentials; of the machine: {failure}")))
    }

    async fn ask(&self, request: Request, secrets: &[&str], deadline: Instant) -> Result<Token, Failure> {
        let answer = self.asker.object(request, secrets, deadline).await.map_err(|(_, failure)| failure)?;
        Token::of(&answer, Renewal::Before(EARLY))
    }
}
