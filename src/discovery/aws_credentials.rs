//! Who we are towards Amazon's services, and in which region: what the configuration says, else the environment, the shared
//! files, a token of a web identity, a container's or a machine's metadata. Keys that expire are fetched anew in time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt};
use tokio::time::Instant;
use url::Url;

use crate::client::header::HeaderValue;
use crate::client::sigv4::{AwsCredentials, SigningScope, sign};
use crate::client::{Request, Response};
use crate::discovery::api::{self, ApiClient, BODY_LEN_MAX, secret_header, wire};
use crate::discovery::aws_xml::{self, Element};
use crate::discovery::error::LookError;
use crate::discovery::surroundings::Surroundings;
use crate::model::clock::SharedClock;
use crate::model::go_time::parse_rfc3339;
use crate::model::secret::Secret;
use crate::model::time::TimestampMs;

/// Keys are fetched anew so long before they expire.
const RENEW_BEFORE: Duration = Duration::from_secs(300);
/// How long the metadata service may take, which is not there on most machines.
const METADATA_WITHIN: Duration = Duration::from_secs(5);
/// Profiles that refer to others.
const PROFILES_MAX: usize = 5;
const METADATA: &str = "http://169.254.169.254";
const CONTAINER_METADATA: &str = "http://169.254.170.2";
const FORM: &str = "application/x-www-form-urlencoded; charset=utf-8";

/// What the configuration says of it. All of it may be empty.
#[derive(Clone, Debug, Default)]
pub(super) struct AwsSettings {
    pub(super) region: String,
    pub(super) access_key: String,
    pub(super) secret_key: Secret<String>,
    pub(super) profile: String,
    pub(super) role_arn: String,
    pub(super) external_id: String,
    /// Roles are asked for at the endpoint that follows FIPS.
    pub(super) fips: bool,
}

/// Makes signed requests.
pub(super) struct Aws {
    client: ApiClient,
    settings: AwsSettings,
    surroundings: Surroundings,
    clock: SharedClock,
    region: Option<String>,
    keys: Option<Keys>,
}

/// Credentials and until when they hold.
#[derive(Clone)]
struct Keys {
    credentials: AwsCredentials,
    expires: Option<TimestampMs>,
}

wire! {
    struct KeysJson {
        access_key: String = "AccessKeyId",
        secret_key: String = "SecretAccessKey",
        token: String = "Token",
        expires: String = "Expiration",
    }

    struct Identity {
        region: String = "region",
    }
}

type Profile = BTreeMap<String, String>;

impl Aws {
    pub(super) fn new(
        client: ApiClient,
        settings: AwsSettings,
        surroundings: &Surroundings,
        clock: &SharedClock,
    ) -> Self {
        let (surroundings, clock) = (surroundings.clone(), Arc::clone(clock));
        Self { client, settings, surroundings, clock, region: None, keys: None }
    }

    /// The region: of the configuration, the environment, the shared files, or the machine's.
    pub(super) async fn region(&mut self) -> Result<String, LookError> {
        if let Some(region) = &self.region {
            return Ok(region.clone());
        }
        let region = self.find_region().await.map_err(|error| error.during("could not determine AWS region"))?;
        self.region = Some(region.clone());
        Ok(region)
    }

    async fn find_region(&self) -> Result<String, LookError> {
        let variable = |name| self.surroundings.variable(name);
        let known = [
            Some(self.settings.region.clone()).filter(|region| !region.is_empty()),
            variable("AWS_REGION"),
            variable("AWS_DEFAULT_REGION"),
        ];
        if let Some(region) = known.into_iter().flatten().next() {
            return Ok(region);
        }
        // The region is that of the environment's profile, whichever the configuration takes keys from, as in Prometheus.
        if let Some(region) =
            self.profile(&self.environment_profile()).await.and_then(|mut profile| profile.remove("region"))
        {
            return Ok(region);
        }
        let identity = self.metadata("latest/dynamic/instance-identity/document").await;
        let identity = identity.map_err(|error| error.during("failed to get region from IMDS"))?;
        let identity: Identity = serde_json::from_slice(&identity)?;
        match identity.region.as_str() {
            "" => Err(LookError::Other("region not found in AWS config or IMDS".to_owned())),
            region => Ok(region.to_owned()),
        }
    }

    /// Calls an action of a service's query API.
    pub(super) async fn call(
        &mut self,
        (service, endpoint): (&str, Option<&str>),
        form: &[(String, String)],
        deadline: Instant,
    ) -> Result<Element, LookError> {
        let (region, keys) = self.credentials(deadline).await?;
        self.post((service, endpoint), form, &region, Some(&keys), deadline).await
    }

    /// The region and the keys to sign with.
    pub(super) async fn credentials(&mut self, deadline: Instant) -> Result<(String, AwsCredentials), LookError> {
        let region = self.region().await?;
        let keys = match &self.keys {
            Some(keys) if self.holds(keys) => keys.clone(),
            _ => {
                let keys = self.find_keys(&region, deadline).await?;
                self.keys = Some(keys.clone());
                keys
            }
        };
        Ok((region, keys.credentials))
    }

    /// The next call looks for credentials anew.
    pub(super) fn forget_keys(&mut self) {
        self.keys = None;
    }

    fn holds(&self, keys: &Keys) -> bool {
        let margin = i64::try_from(RENEW_BEFORE.as_millis()).unwrap_or(i64::MAX);
        keys.expires.is_none_or(|expires| self.clock.now().0 < expires.0.saturating_sub(margin))
    }

    async fn post(
        &self,
        (service, endpoint): (&str, Option<&str>),
        form: &[(String, String)],
        region: &str,
        credentials: Option<&AwsCredentials>,
        deadline: Instant,
    ) -> Result<Element, LookError> {
        let own = format!("AWS_ENDPOINT_URL_{}", service.to_uppercase());
        let configured = endpoint.map(str::to_owned).or_else(|| self.surroundings.variable(&own));
        let configured = configured.or_else(|| self.surroundings.variable("AWS_ENDPOINT_URL"));
        let domain = if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
        let host = if service == "sts" && self.settings.fips { "sts-fips" } else { service };
        let url = api::url(&configured.unwrap_or_else(|| format!("https://{host}.{region}.{domain}/")))?;
        let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
        let mut request = Request::post(url, HeaderValue::from_static(FORM), body.into());
        if let Some(credentials) = credentials {
            sign(&mut request, credentials, SigningScope { region, service }, self.clock.now())?;
        }
        let mut response = self.client.send(request, deadline).await?;
        let content = api::body(&mut response, BODY_LEN_MAX).await?;
        if response.status.is_success() {
            return api::parse(content, aws_xml::parse).await;
        }
        Err(refused(&response, &content))
    }

    async fn find_keys(&self, region: &str, deadline: Instant) -> Result<Keys, LookError> {
        let settings = &self.settings;
        let keys = if !settings.access_key.is_empty() && !settings.secret_key.expose().is_empty() {
            fixed(settings.access_key.clone(), settings.secret_key.expose().clone(), None)
        } else {
            self.own_keys(region, deadline).await?
        };
        if settings.role_arn.is_empty() {
            return Ok(keys);
        }
        let external_id = Some(settings.external_id.as_str()).filter(|id| !id.is_empty());
        self.assume(&keys, &settings.role_arn, external_id, region, deadline).await
    }

    /// The keys that there are without the configuration's own.
    async fn own_keys(&self, region: &str, deadline: Instant) -> Result<Keys, LookError> {
        let variable = |name| self.surroundings.variable(name);
        if self.settings.profile.is_empty() {
            if let Some(keys) = self.keys_of_environment() {
                return Ok(keys);
            }
            if let (Some(file), Some(role)) = (variable("AWS_WEB_IDENTITY_TOKEN_FILE"), variable("AWS_ROLE_ARN")) {
                return self.assume_by_token(&file, &role, region, deadline).await;
            }
        }
        let name = self.profile_name();
        match self.profile(&name).await {
            Some(_) => self.keys_of_profile(name, region, 0, deadline).await,
            None if !self.settings.profile.is_empty() => {
                Err(LookError::Other(format!("failed to get shared config profile, {name}")))
            }
            None => self.keys_of_machine().await,
        }
    }

    fn keys_of_environment(&self) -> Option<Keys> {
        let variable = |name| self.surroundings.variable(name);
        let access = variable("AWS_ACCESS_KEY_ID").or_else(|| variable("AWS_ACCESS_KEY"))?;
        let secret = variable("AWS_SECRET_ACCESS_KEY").or_else(|| variable("AWS_SECRET_KEY"))?;
        Some(fixed(access, secret, variable("AWS_SESSION_TOKEN")))
    }

    fn keys_of_profile<'a>(
        &'a self,
        name: String,
        region: &'a str,
        depth: usize,
        deadline: Instant,
    ) -> BoxFuture<'a, Result<Keys, LookError>> {
        let keys = async move {
            let bad = |text: String| LookError::Other(text);
            let Some(mut profile) = self.profile(&name).await else {
                return Err(bad(format!("failed to get shared config profile, {name}")));
            };
            let role = profile.remove("role_arn");
            let token_file = profile.remove("web_identity_token_file");
            if let (Some(role), Some(file)) = (&role, token_file) {
                return self.assume_by_token(&file, role, region, deadline).await;
            }
            let own = match (profile.remove("aws_access_key_id"), profile.remove("aws_secret_access_key")) {
                (Some(access), Some(secret)) => Some(fixed(access, secret, profile.remove("aws_session_token"))),
                _ => None,
            };
            let Some(role) = role else {
                return match own {
                    Some(keys) => Ok(keys),
                    None if profile.contains_key("credential_process") || profile.contains_key("sso_start_url") => {
                        Err(bad(format!("the profile {name} has credentials of another program, which is not run")))
                    }
                    None => self.keys_of_machine().await,
                };
            };
            let source = match (profile.remove("source_profile"), profile.remove("credential_source").as_deref()) {
                (Some(source), _) if source == name => {
                    own.ok_or_else(|| bad(format!("the profile {name} refers to itself and has no keys")))?
                }
                (Some(_), _) if depth == PROFILES_MAX => {
                    return Err(bad("too many profiles refer to others".to_owned()));
                }
                (Some(source), _) => self.keys_of_profile(source, region, depth + 1, deadline).await?,
                (None, Some("Environment")) => {
                    self.keys_of_environment().ok_or_else(|| bad("the environment has no credentials".to_owned()))?
                }
                (None, _) => self.keys_of_machine().await?,
            };
            let external_id = profile.remove("external_id");
            self.assume(&source, &role, external_id.as_deref(), region, deadline).await
        };
        keys.boxed()
    }

    /// Keys of the container or of the machine that we run on.
    async fn keys_of_machine(&self) -> Result<Keys, LookError> {
        let variable = |name| self.surroundings.variable(name);
        let relative =
            variable("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI").map(|path| format!("{CONTAINER_METADATA}{path}"));
        let content = match relative.or_else(|| variable("AWS_CONTAINER_CREDENTIALS_FULL_URI")) {
            Some(uri) => {
                let mut request = Request::get(api::url(&uri)?);
                if let Some(token) = variable("AWS_CONTAINER_AUTHORIZATION_TOKEN") {
                    secret_header(&mut request, "authorization", &token)?;
                }
                self.client.read(request, Instant::now() + METADATA_WITHIN).await?
            }
            None => {
                let list = "latest/meta-data/iam/security-credentials/";
                let roles = self.metadata(list).await.map_err(|error| error.during("no EC2 IMDS role found"))?;
                let role = String::from_utf8_lossy(&roles).lines().next().unwrap_or_default().trim().to_owned();
                self.metadata(&format!("{list}{role}")).await?
            }
        };
        let keys: KeysJson = serde_json::from_slice(&content)?;
        if keys.access_key.is_empty() {
            return Err(LookError::Other("the metadata service has no credentials".to_owned()));
        }
        let token = Some(keys.token).filter(|token| !token.is_empty());
        Ok(Keys { expires: time(&keys.expires), ..fixed(keys.access_key, keys.secret_key, token) })
    }

    /// A document of the machine's metadata service, asked with a session's token.
    async fn metadata(&self, path: &str) -> Result<Vec<u8>, LookError> {
        if self
            .surroundings
            .variable("AWS_EC2_METADATA_DISABLED")
            .is_some_and(|value| value.eq_ignore_ascii_case("true"))
        {
            return Err(LookError::Other(
                "access disabled to EC2 IMDS via client option, or \"AWS_EC2_METADATA_DISABLED\" \
                                         environment variable"
                    .to_owned(),
            ));
        }
        let base =
            self.surroundings.variable("AWS_EC2_METADATA_SERVICE_ENDPOINT").unwrap_or_else(|| METADATA.to_owned());
        let base: Url = api::url(&base)?;
        let deadline = Instant::now() + METADATA_WITHIN;
        let mut session = Request::put(api::below(&base, "latest/api/token"));
        secret_header(&mut session, "x-aws-ec2-metadata-token-ttl-seconds", "300")?;
        let token = self.client.read(session, deadline).await?;
        let mut request = Request::get(api::below(&base, path));
        secret_header(&mut request, "x-aws-ec2-metadata-token", String::from_utf8_lossy(&token).trim())?;
        self.client.read(request, deadline).await
    }

    /// Takes a role by keys that may.
    async fn assume(
        &self,
        keys: &Keys,
        role: &str,
        external_id: Option<&str>,
        region: &str,
        deadline: Instant,
    ) -> Result<Keys, LookError> {
        let mut form = role_form("AssumeRole", role, self.clock.now());
        form.push(("DurationSeconds".to_owned(), "900".to_owned()));
        form.extend(external_id.map(|id| ("ExternalId".to_owned(), id.to_owned())));
        let answer = self.post(("sts", None), &form, region, Some(&keys.credentials), deadline).await;
        assumed(answer.map_err(|error| error.during("failed to assume the role"))?)
    }

    /// Takes a role by the token of a web identity.
    async fn assume_by_token(
        &self,
        file: &str,
        role: &str,
        region: &str,
        deadline: Instant,
    ) -> Result<Keys, LookError> {
        let token =
            read(file.to_owned()).await.ok_or_else(|| LookError::Other(format!("unable to read file at {file}")))?;
        let mut form = role_form("AssumeRoleWithWebIdentity", role, self.clock.now());
        form.push(("WebIdentityToken".to_owned(), token.trim().to_owned()));
        let answer = self.post(("sts", None), &form, region, None, deadline).await;
        assumed(answer.map_err(|error| error.during("failed to assume the role"))?)
    }

    fn profile_name(&self) -> String {
        match self.settings.profile.as_str() {
            "" => self.environment_profile(),
            name => name.to_owned(),
        }
    }

    fn environment_profile(&self) -> String {
        let named = self.surroundings.variable("AWS_PROFILE");
        named.or_else(|| self.surroundings.variable("AWS_DEFAULT_PROFILE")).unwrap_or_else(|| "default".to_owned())
    }

    /// A profile of the shared files; what stands in the file of credentials goes before.
    async fn profile(&self, name: &str) -> Option<Profile> {
        let home = self.surroundings.variable("HOME").unwrap_or_default();
        let file = |variable, own: &str| {
            let named = self.surroundings.variable(variable);
            named.unwrap_or_else(|| format!("{home}/.aws/{own}"))
        };
        let config = read(file("AWS_CONFIG_FILE", "config")).await.unwrap_or_default();
        let credentials = read(file("AWS_SHARED_CREDENTIALS_FILE", "credentials")).await.unwrap_or_default();
        let section = if name == "default" { name.to_owned() } else { format!("profile {name}") };
        let of_config = section_of(&config, &section).or_else(|| section_of(&config, &format!("profile {name}")));
        match (of_config, section_of(&credentials, name)) {
            (None, None) => None,
            (of_config, of_credentials) => {
                let mut profile = of_config.unwrap_or_default();
                profile.extend(of_credentials.unwrap_or_default());
                Some(profile)
            }
        }
    }
}

fn fixed(access_key: String, secret_key: String, token: Option<String>) -> Keys {
    let credentials =
        AwsCredentials { access_key, secret_key: Secret::new(secret_key), session_token: token.map(Secret::new) };
    Keys { credentials, expires: None }
}

fn role_form(action: &str, role: &str, now: TimestampMs) -> Vec<(String, String)> {
    let session = format!("watchfire-{}", now.0);
    let pairs =
        [("Action", action), ("Version", "2011-06-15"), ("RoleArn", role), ("RoleSessionName", session.as_str())];
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec()
}

fn assumed(answer: Element) -> Result<Keys, LookError> {
    let missing = || LookError::Other("the answer to the assumption of a role has no credentials".to_owned());
    let credentials = answer.find("Credentials").ok_or_else(missing)?;
    let text = |name| credentials.text(name).map(str::to_owned);
    let (access, secret) = (text("AccessKeyId").ok_or_else(missing)?, text("SecretAccessKey").ok_or_else(missing)?);
    let expires = credentials.text("Expiration").and_then(time);
    Ok(Keys { expires, ..fixed(access, secret, text("SessionToken")) })
}

fn time(text: &str) -> Option<TimestampMs> {
    let (seconds, _) = parse_rfc3339(text)?;
    Some(TimestampMs(seconds.saturating_mul(1000)))
}

/// What a service says when it refuses.
fn refused(response: &Response, content: &[u8]) -> LookError {
    let (status, code) = (response.status_text(), response.status.as_u16());
    let error = aws_xml::parse(content).ok().and_then(|answer| {
        let error = answer.find("Error")?;
        Some(format!("api error {}: {}", error.text("Code")?, error.text("Message").unwrap_or("")))
    });
    LookError::Status { status, code, excerpt: error.unwrap_or_default() }
}

/// The pairs of a section of an INI file.
fn section_of(text: &str, wanted: &str) -> Option<Profile> {
    let (mut within, mut found) = (false, None);
    for line in text.lines() {
        let bare = line.trim();
        if bare.is_empty() || bare.starts_with(['#', ';']) {
            continue;
        }
        if let Some(name) = bare.strip_prefix('[').and_then(|rest| rest.split_once(']')).map(|(name, _)| name) {
            within = name.split_whitespace().eq(wanted.split_whitespace());
            if within {
                found.get_or_insert_with(Profile::new);
            }
        } else if let (true, Some(section), Some((name, value))) = (within, &mut found, bare.split_once('=')) {
            let value = value.split(" #").next().unwrap_or_default().trim();
            section.insert(name.trim().to_lowercase(), value.to_owned());
        }
    }
    found
}

/// A small file's text, read on a thread of its own.
async fn read(path: String) -> Option<String> {
    const LEN_MAX: u64 = 1 << 20;
    let read = move || {
        use std::io::Read as _;
        let mut text = String::new();
        std::fs::File::open(path).ok()?.take(LEN_MAX).read_to_string(&mut text).ok()?;
        Some(text)
    };
    tokio::task::spawn_blocking(read).await.ok().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_are_read() {
        let text = "# c\n[default]\nregion = r1\n[profile  a]\nRegion=r2 # here\n aws_access_key_id = k=1\n[b]\nx=1\n";
        let of = |name: &str| section_of(text, name);
        assert_eq!(of("default").unwrap()["region"], "r1");
        let a = of("profile a").unwrap();
        assert_eq!((a["region"].as_str(), a["aws_access_key_id"].as_str()), ("r2", "k=1"));
        assert_eq!((of("a"), of("c")), (None, None));
    }
}
