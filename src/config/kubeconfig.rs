//! A kubeconfig file, as far as it says how a cluster's API is reached: the server and the HTTP settings of its current context.

use std::path::Path;

use serde::Deserialize;

use super::http_client::{Authorization, BasicAuth, HttpClientConfig, TlsConfig};
use super::url::ConfigUrl;
use super::yaml::block::Preset as _;
use crate::model::secret::Secret;

/// How a cluster's API is reached.
#[derive(Clone, Debug, PartialEq)]
pub struct KubeConfig {
    /// URL of the API server.
    pub server: String,
    /// Credentials, certificates and proxy.
    pub http: HttpClientConfig,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct File {
    clusters: Vec<Named<Cluster>>,
    users: Vec<Named<User>>,
    contexts: Vec<Named<Context>>,
    current_context: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Named<T> {
    name: String,
    #[serde(alias = "cluster", alias = "user", alias = "context")]
    content: Option<T>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct Cluster {
    server: String,
    certificate_authority: String,
    certificate_authority_data: String,
    insecure_skip_tls_verify: bool,
    tls_server_name: String,
    proxy_url: String,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct User {
    client_certificate: String,
    client_certificate_data: String,
    client_key: String,
    client_key_data: String,
    token: String,
    #[serde(rename = "tokenFile")]
    token_file: String,
    username: String,
    password: String,
    exec: Option<serde_yaml::Value>,
    auth_provider: Option<serde_yaml::Value>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Context {
    cluster: String,
    user: String,
}

/// Reads the text of the file `path`; names of other files are relative to its folder. Errors name what is missing, never
/// a credential.
pub fn parse(path: &str, text: &str) -> Result<KubeConfig, String> {
    let file: File =
        serde_yaml::from_str(text).map_err(|error| format!("error loading config file {path:?}: {error}"))?;
    let context = find(file.contexts, &file.current_context).ok_or_else(|| {
        format!("invalid configuration: context was not found for specified context: {}", file.current_context)
    })?;
    let cluster = find(file.clusters, &context.cluster)
        .filter(|cluster| !cluster.server.is_empty())
        .ok_or_else(|| format!("invalid configuration: no server found for cluster {:?}", context.cluster))?;
    let user = find(file.users, &context.user).unwrap_or_default();
    if user.exec.is_some() || user.auth_provider.is_some() {
        return Err(format!(
            "the user {:?} of {path:?} has credentials of another program, which is not run",
            context.user
        ));
    }
    let folder = Path::new(path).parent().unwrap_or(Path::new(""));
    let beside = |name: &str| match name.is_empty() {
        true => String::new(),
        false => folder.join(name).to_string_lossy().into_owned(),
    };
    // Data goes before files, as in Kubernetes's own client.
    let either = |data: &str, name: &str| -> Result<(String, String), String> {
        if data.is_empty() { Ok((String::new(), beside(name))) } else { Ok((decoded(data)?, String::new())) }
    };
    let (ca, ca_file) = either(&cluster.certificate_authority_data, &cluster.certificate_authority)?;
    let (cert, cert_file) = either(&user.client_certificate_data, &user.client_certificate)?;
    let (key, key_file) = either(&user.client_key_data, &user.client_key)?;
    let mut http = HttpClientConfig::preset();
    http.tls_config = TlsConfig {
        ca,
        ca_file: ca_file.as_str().into(),
        cert,
        cert_file: cert_file.as_str().into(),
        key: Secret::new(key),
        key_file: key_file.as_str().into(),
        server_name: cluster.tls_server_name,
        insecure_skip_verify: cluster.insecure_skip_tls_verify,
        ..TlsConfig::default()
    };
    if !cluster.proxy_url.is_empty() {
        http.proxy.proxy_url = ConfigUrl::parse(&cluster.proxy_url)?;
    }
    if !user.token.is_empty() || !user.token_file.is_empty() {
        http.authorization = Some(Authorization {
            auth_type: "Bearer".to_owned(),
            credentials_file: beside(&user.token_file).as_str().into(),
            credentials: Secret::new(if user.token_file.is_empty() { user.token } else { String::new() }),
            ..Authorization::default()
        });
    } else if !user.username.is_empty() {
        let password = Secret::new(user.password);
        http.basic_auth = Some(BasicAuth { username: user.username, password, ..BasicAuth::default() });
    }
    Ok(KubeConfig { server: cluster.server, http })
}

/// How a pod whose service account's folder is `folder` reaches the API of its cluster.
pub fn of_service_account(folder: &str) -> HttpClientConfig {
    let mut http = HttpClientConfig::preset();
    // Without the file the system's authorities hold, as in Kubernetes's own client.
    let authority = format!("{folder}/ca.crt");
    if std::path::Path::new(&authority).exists() {
        http.tls_config.ca_file = authority.as_str().into();
    }
    http.authorization = Some(Authorization {
        auth_type: "Bearer".to_owned(),
        credentials_file: format!("{folder}/token").as_str().into(),
        ..Authorization::default()
    });
    http
}

fn find<T>(list: Vec<Named<T>>, name: &str) -> Option<T> {
    list.into_iter().find(|one| one.name == name)?.content
}

/// Text in base 64.
fn decoded(data: &str) -> Result<String, String> {
    let bad = || "invalid configuration: data is not text in base64".to_owned();
    let mut bytes = Vec::with_capacity(data.len() / 4 * 3);
    let (mut bits, mut count) = (0u32, 0u32);
    for byte in data.trim_end().trim_end_matches('=').bytes().filter(|byte| !byte.is_ascii_whitespace()) {
        let digit = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return Err(bad()),
        };
        bits = (bits << 6 | u32::from(digit)) & 0xffff;
        count += 6;
        if 8 <= count {
            count -= 8;
            bytes.push(u8::try_from(bits >> count & 0xff).unwrap_or(0));
        }
    }
    String::from_utf8(bytes).map_err(|_| bad())
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "
apiVersion: v1
kind: Config
current-context: here
contexts:
- {name: there, context: {cluster: none, user: none}}
- {name: here, context: {cluster: c, user: u, namespace: n}}
clusters:
- {name: c, cluster: {server: 'https://1.2.3.4:6443', certificate-authority: ca.pem, tls-server-name: api}}
users:
- {name: u, user: {client-certificate-data: Y2VydA==, client-key-data: 'a2V5', tokenFile: /t}}
";

    #[test]
    fn the_current_context_counts() {
        let read = parse("/k/config", FILE).unwrap();
        let (tls, authorization) = (&read.http.tls_config, read.http.authorization.as_ref().unwrap());
        assert_eq!(read.server, "https://1.2.3.4:6443");
        assert_eq!((tls.ca_file.as_str(), tls.cert.as_str(), tls.key.expose().as_str()), ("/k/ca.pem", "cert", "key"));
        assert_eq!((tls.server_name.as_str(), authorization.credentials_file.as_str()), ("api", "/t"));
        let basic = parse("c", &FILE.replace("tokenFile: /t", "username: a, password: b")).unwrap().http.basic_auth;
        assert_eq!(basic.unwrap().username, "a");
    }

    #[test]
    fn what_is_missing_is_said() {
        let error = |from: &str, to: &str| parse("c", &FILE.replace(from, to)).unwrap_err();
        let expected = "invalid configuration: context was not found for specified context: x";
        assert_eq!(error("current-context: here", "current-context: x"), expected);
        assert_eq!(
            error("here, context: {cluster: c", "here, context: {cluster: x"),
            "invalid configuration: no server found for cluster \"x\""
        );
        assert!(error("Y2VydA==", "'?'").contains("base64"));
        assert!(error("tokenFile: /t", "exec: {command: aws}").contains("another program"));
        assert!(parse("c", "[").is_err());
    }
}
