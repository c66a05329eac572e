//! Signing in at doubles of the clouds' token endpoints, as the test says they answer.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use rcgen::{CertificateParams, KeyPair};
use sha2::Digest as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;
use crate::config::remote_auth::{AzureCertificate, AzureOAuth, AzureSdk, ManagedIdentity, WorkloadIdentity};

const KEY: &str = include_str!("../tests/rsa_key.pem");
const ID: &str = "11111111-2222-3333-4444-555555555555";

/// Heads and bodies of requests.
type Seen = Arc<Mutex<Vec<(String, String)>>>;

/// What an endpoint answers to a head and a body.
type Answers = Arc<dyn Fn(&str, &str) -> String + Send + Sync>;

async fn double(answers: impl Fn(&str, &str) -> String + Send + Sync + 'static) -> (SocketAddr, Seen) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (addr, seen, answers) = (listener.local_addr().unwrap(), Seen::default(), Arc::new(answers) as Answers);
    let all = Arc::clone(&seen);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (answers, seen) = (Arc::clone(&answers), Arc::clone(&seen));
            tokio::spawn(async move {
                loop {
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") {
                        match stream.read_u8().await {
                            Ok(byte) => head.push(byte),
                            Err(_) => return,
                        }
                    }
                    let head = String::from_utf8(head).unwrap();
                    let len = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
                    let mut body = vec![0; len.unwrap_or(0)];
                    if stream.read_exact(&mut body).await.is_err() {
                        return;
                    }
                    let body = String::from_utf8(body).unwrap();
                    let answer = answers(&head, &body);
                    seen.lock().push((head, body));
                    if stream.write_all(answer.as_bytes()).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    (addr, all)
}

fn answer(status: &str, more: &str, text: &str) -> String {
    format!("HTTP/1.1 {status}\r\n{more}Content-Length: {}\r\n\r\n{text}", text.len())
}

fn token(text: &str) -> String {
    answer("200 OK", "Content-Type: application/json\r\n", text)
}

fn surroundings(variables: &[(&str, &str)]) -> CloudSurroundings {
    let all: BTreeMap<String, String> =
        variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    CloudSurroundings {
        variable: Arc::new(move |name| all.get(name).cloned()),
        azure_arc: ("/none/himds".into(), "/none/tokens".into()),
        ..CloudSurroundings::default()
    }
}

fn azure(config: AzureAdConfig, surroundings: &CloudSurroundings) -> CloudLogin {
    CloudLogin::azure(&config, "test".to_owned(), surroundings)
}

/// The headers that a request gets, or the error.
async fn signed(login: &CloudLogin) -> Result<Vec<(String, String)>, String> {
    let mut request = Request::get(Url::parse("http://host/w").unwrap());
    let deadline = Instant::now() + Duration::from_secs(60);
    login.sign(&mut request, deadline).await.map_err(|failure| failure.to_string())?;
    assert!(!format!("{request:?}").contains("Bearer"), "{request:?}");
    Ok(request.headers.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect())
}

async fn bearer(login: &CloudLogin) -> Result<String, String> {
    signed(login).await.map(|headers| headers[0].1.clone())
}

fn oauth() -> AzureAdConfig {
    let (client_id, tenant_id) = (ID.to_owned(), "tenant".to_owned());
    AzureAdConfig {
        oauth: Some(AzureOAuth { client_id, tenant_id, client_secret: Secret::new("hunter2 x".to_owned()) }),
        ..AzureAdConfig::default()
    }
}

async fn advance(seconds: u64) {
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(seconds)).await;
    tokio::time::resume();
}

#[tokio::test]
async fn a_token_is_shared_renewed_half_way_and_used_to_its_end() {
    let fails = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let failing = Arc::clone(&fails);
    let (addr, seen) = double(move |_, body| {
        if failing.load(std::sync::atomic::Ordering::Relaxed) {
            return answer("401 Unauthorized", "", &format!(r#"{{"error":"no","error_description":"{body}"}}"#));
        }
        token(r#"{"token_type":"Bearer","expires_in":3600,"access_token":"t1"}"#)
    })
    .await;
    let around = CloudSurroundings { azure_authority: Some(format!("http://{addr}/")), ..surroundings(&[]) };
    let login = azure(oauth(), &around);
    for got in futures::future::join_all([(); 5].map(|()| bearer(&login))).await {
        assert_eq!(got.unwrap(), "Bearer t1");
    }
    let (head, body) = seen.lock()[0].clone();
    assert!(head.starts_with("POST /tenant/oauth2/v2.0/token HTTP/1.1\r\n"), "{head}");
    assert_eq!(
        body,
        format!(
            "client_id={ID}&client_info=1&grant_type=client_credentials&client_secret=hunter2+x&\
             scope=https%3A%2F%2Fmonitor.azure.com%2F%2F.default"
        )
    );
    assert_eq!(seen.lock().len(), 1, "all share a token");
    advance(1799).await;
    bearer(&login).await.unwrap();
    assert_eq!(seen.lock().len(), 1);
    fails.store(true, std::sync::atomic::Ordering::Relaxed);
    advance(2).await;
    assert_eq!((bearer(&login).await.unwrap(), seen.lock().len()), ("Bearer t1".to_owned(), 2));
    assert_eq!((bearer(&login).await.unwrap(), seen.lock().len()), ("Bearer t1".to_owned(), 2), "not at each request");
    advance(1800).await;
    let error = bearer(&login).await.unwrap_err();
    assert!(error.starts_with("Failed to get access token: 401 Unauthorized: no: client_id="), "{error}");
    assert!(error.contains("<secret>") && !error.contains("hunter2"), "{error}");
    fails.store(false, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(bearer(&login).await.unwrap(), "Bearer t1");
}

#[tokio::test]
async fn managed_identities_are_asked_for_where_the_machine_says() {
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("a.key");
    std::fs::write(&key, "arc secret").unwrap();
    let realm = key.to_str().unwrap().to_owned();
    let (addr, seen) = double(move |head, _| {
        if head.contains("api-version=2020-06-01") && !head.contains("authorization: ") {
            return answer("401 Unauthorized", &format!("WWW-Authenticate: Basic realm={realm}\r\n"), "");
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        token(&format!(r#"{{"access_token":"t","expires_on":"{}"}}"#, now + 3600))
    })
    .await;
    let base = format!("http://{addr}/x");
    let with = |client_id: &str| AzureAdConfig {
        managed_identity: Some(ManagedIdentity { client_id: client_id.to_owned() }),
        scope: "api://me/.default".to_owned(),
        ..AzureAdConfig::default()
    };
    let last = || seen.lock().last().cloned().unwrap();
    let service = [("IDENTITY_ENDPOINT", base.as_str()), ("IDENTITY_HEADER", "h")];
    bearer(&azure(with(ID), &surroundings(&service))).await.unwrap();
    let expected = format!("GET /x?api-version=2019-08-01&resource=api%3A%2F%2Fme&client_id={ID} HTTP/1.1\r\n");
    assert!(last().0.starts_with(&expected) && last().0.contains("x-identity-header: h\r\n"), "{}", last().0);
    let machine = CloudSurroundings { azure_metadata: base.clone(), ..surroundings(&[]) };
    bearer(&azure(with(""), &machine)).await.unwrap();
    let expected = "GET /x?api-version=2018-02-01&resource=api%3A%2F%2Fme HTTP/1.1\r\n";
    assert!(last().0.starts_with(expected) && last().0.contains("metadata: true\r\n"), "{}", last().0);
    let ml = [("MSI_ENDPOINT", base.as_str()), ("MSI_SECRET", "s"), ("DEFAULT_IDENTITY_CLIENT_ID", "d")];
    bearer(&azure(with(""), &surroundings(&ml))).await.unwrap();
    assert!(last().0.contains("2017-09-01&resource=api%3A%2F%2Fme&clientid=d ") && last().0.contains("secret: s\r\n"));
    bearer(&azure(with(""), &surroundings(&ml[..1]))).await.unwrap();
    assert!(last().0.starts_with("POST /x ") && last().1 == "resource=api%3A%2F%2Fme", "{:?}", last());
    let tokens = folder.path().to_path_buf();
    let arc = surroundings(&[("IDENTITY_ENDPOINT", base.as_str()), ("IMDS_ENDPOINT", "y")]);
    let good = CloudSurroundings { azure_arc: ("/none".into(), tokens), ..arc.clone() };
    bearer(&azure(with(""), &good)).await.unwrap();
    assert!(last().0.contains("authorization: Basic arc secret\r\n"), "{}", last().0);
    let error = bearer(&azure(with(""), &arc)).await.unwrap_err();
    assert!(error.contains("unexpected file path"), "another folder's files are not sent: {error}");
    let error = bearer(&azure(with(ID), &good)).await.unwrap_err();
    assert_eq!(error, "Failed to get access token: Azure Arc does not support user-assigned identities");
}

#[tokio::test]
async fn applications_show_certificates_and_federated_tokens() {
    let (addr, seen) = double(|_, _| token(r#"{"expires_in":"60","access_token":"t"}"#)).await;
    let around = CloudSurroundings { azure_authority: Some(format!("http://{addr}")), ..surroundings(&[]) };
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let workload = WorkloadIdentity {
        client_id: ID.to_owned(),
        tenant_id: ID.to_owned(),
        token_file_path: file("token", "federated\n"),
    };
    let config = AzureAdConfig { workload_identity: Some(workload), ..AzureAdConfig::default() };
    bearer(&azure(config, &around)).await.unwrap();
    let body = seen.lock()[0].1.clone();
    let shown = "client_assertion=federated&client_assertion_type=urn%3Aietf%3Aparams%3Aoauth%3A\
                 client-assertion-type%3Ajwt-bearer&scope=";
    assert!(body.contains(shown), "{body}");

    let key = KeyPair::from_pem(KEY).unwrap();
    let certificate = CertificateParams::new(vec!["me".to_owned()]).unwrap().self_signed(&key).unwrap();
    let with = |certificate_path: String, send_certificate_chain: bool| AzureAdConfig {
        certificate: Some(AzureCertificate {
            client_id: ID.to_owned(),
            tenant_id: "tenant".to_owned(),
            certificate_path,
            certificate_key_path: file("key.pem", KEY),
            send_certificate_chain,
            ..AzureCertificate::default()
        }),
        ..AzureAdConfig::default()
    };
    let path = file("cert.pem", &certificate.pem());
    bearer(&azure(with(path, true), &around)).await.unwrap();
    let body = seen.lock()[1].1.clone();
    let assertion = body.split("client_assertion=").nth(1).unwrap().split('&').next().unwrap().to_owned();
    let thumbprint = crate::client::base64::url_safe(&sha2::Sha256::digest(certificate.der()));
    let head = format!(
        r#"{{"alg":"PS256","typ":"JWT","x5c":["{}"],"x5t#S256":"{thumbprint}"}}"#,
        crate::client::base64::standard(certificate.der())
    );
    let parsed: Value = serde_json::from_str(&head).unwrap();
    let expected = crate::client::base64::url_safe(parsed.to_string().as_bytes());
    let parts: Vec<&str> = assertion.split('.').collect();
    assert_eq!((parts.len(), parts[0].len()), (3, expected.len()), "head, claims, signature");
    let error = bearer(&azure(with(file("x.pfx", "0\u{82}"), false), &around)).await.unwrap_err();
    assert!(error.contains("PKCS#12 is not read"), "{error}");
    assert!(bearer(&azure(with("/none/x".to_owned(), false), &around)).await.unwrap_err().contains("/none/x"));
}

#[tokio::test]
async fn the_environment_is_searched_in_azures_order() {
    let (addr, seen) = double(|head, _| match head.starts_with("GET ") {
        true => answer("400 Bad Request", "", r#"{"error":{"code":"c","message":"m"}}"#),
        false => token(r#"{"expires_in":60,"access_token":"t"}"#),
    })
    .await;
    let sdk = |variables: &[(&str, &str)]| {
        let around = CloudSurroundings {
            azure_authority: Some(format!("http://{addr}")),
            azure_metadata: format!("http://{addr}/imds"),
            ..surroundings(variables)
        };
        azure(AzureAdConfig { sdk: Some(AzureSdk::default()), ..AzureAdConfig::default() }, &around)
    };
    let both = [("AZURE_CLIENT_ID", "id"), ("AZURE_TENANT_ID", "t"), ("AZURE_CLIENT_SECRET", "s")];
    bearer(&sdk(&both)).await.unwrap();
    assert!(seen.lock()[0].1.contains("client_id=id&") && seen.lock()[0].1.contains("client_secret=s"));
    let error = bearer(&sdk(&[])).await.unwrap_err();
    let told = "failed to authenticate a system assigned identity: 400 Bad Request: c: m";
    assert_eq!(error, format!("Failed to get access token: {told}"));
    // It is looked whether anybody is there before anything is asked for.
    assert!(seen.lock()[1].0.starts_with("GET /imds HTTP") && seen.lock()[2].0.starts_with("GET /imds?api-version="));
    let error = bearer(&sdk(&[("AZURE_TOKEN_CREDENTIALS", "dev")])).await.unwrap_err();
    assert!(error.contains("such programs are not run"), "{error}");
    let error = bearer(&sdk(&[("AZURE_TOKEN_CREDENTIALS", "WorkloadIdentityCredential")])).await.unwrap_err();
    assert!(error.contains("no credentials are found"), "{error}");
}

#[tokio::test]
async fn google_knows_service_accounts_users_and_machines() {
    let (addr, seen) = double(|head, body| match (head.contains(" /no "), body) {
        (true, _) => answer("400 Bad Request", "", &format!(r#"{{"error":"bad","error_description":"{body}"}}"#)),
        _ => token(r#"{"access_token":"t","expires_in":3599,"token_type":"Bearer"}"#),
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: String| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let google = |file: &str, variables: &[(&str, &str)]| {
        let around = CloudSurroundings { google_tokens: format!("http://{addr}/no"), ..surroundings(variables) };
        CloudLogin::google(&GoogleIamConfig { credentials_file: file.to_owned() }, "test".to_owned(), &around)
    };
    let account = serde_json::json!({
        "type": "service_account", "client_email": "me@x", "private_key": KEY, "private_key_id": "k",
        "token_uri": format!("http://{addr}/t"), "quota_project_id": "p",
    });
    let account = file("account.json", account.to_string());
    let headers = signed(&google(&account, &[])).await.unwrap();
    assert_eq!(headers[0].1, "Bearer t");
    assert_eq!((headers[1].0.as_str(), headers[1].1.as_str()), ("x-goog-user-project", "p"));
    let (head, body) = seen.lock()[0].clone();
    assert!(head.starts_with("POST /t ") && body.starts_with("assertion=ey"), "{head}{body}");
    assert!(body.ends_with("&grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer"), "{body}");

    let user = r#"{"type":"authorized_user","client_id":"c","client_secret":"hunter2","refresh_token":"hunter3"}"#;
    let user = file("user.json", user.to_owned());
    let error = bearer(&google("", &[("GOOGLE_APPLICATION_CREDENTIALS", &user)])).await.unwrap_err();
    let form = "grant_type=refresh_token&client_id=c&client_secret=<secret>&refresh_token=<secret>";
    assert_eq!(error, format!("google: cannot fetch token: 400 Bad Request: bad: {form}"));
    let error = bearer(&google(&user, &[])).await.unwrap_err();
    assert!(error.contains(r#"credentials of type "authorized_user", expected "service_account""#), "{error}");
    let error = bearer(&google(&file("bad.json", "{\"private_key\": hunter2".to_owned()), &[])).await.unwrap_err();
    assert!(error.contains("is no file with credentials") && !error.contains("hunter2"), "{error}");

    let machine = google("", &[("GCE_METADATA_HOST", &addr.to_string()), ("GOOGLE_CLOUD_QUOTA_PROJECT", "q")]);
    assert_eq!(signed(&machine).await.unwrap()[1].1, "q");
    let head = seen.lock().last().unwrap().0.clone();
    let expected = "GET /computeMetadata/v1/instance/service-accounts/default/token?\
                    scopes=https%3A%2F%2Fwww.googleapis.com%2Fauth%2Fmonitoring.write HTTP/1.1\r\n";
    assert!(head.starts_with(expected) && head.contains("metadata-flavor: Google\r\n"), "{head}");
}
