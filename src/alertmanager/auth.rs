//! Where a webhook's messages go and with which headers, by its configuration; reads the files that it names.

use std::path::Path;

use url::Url;

use crate::alertmanager::retry::{AttemptError, FailureReason};
use crate::client::header::{AUTHORIZATION, HeaderName, HeaderValue};
use crate::config::alertmanager::Webhook;
use crate::config::http_client::HttpClientConfig;

/// Longest file with a URL or a secret.
const FILE_LEN_MAX: u64 = 1 << 20;

/// Where to send to.
#[derive(Clone)]
pub struct Destination {
    /// The URL; secret.
    pub url: Url,
    /// Headers beside the usual ones; secret.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

/// Whether [`destination`] reads files, so that it must not run on an actor's thread.
pub fn reads_files(webhook: &Webhook) -> bool {
    let http = webhook.http_config.as_ref();
    let basic = http.and_then(|http| http.basic_auth.as_ref());
    let authorization = http.and_then(|http| http.authorization.as_ref());
    let headers = http.and_then(|http| http.http_headers.as_ref());
    !webhook.url_file.is_empty()
        || basic.is_some_and(|basic| !(basic.username_file.is_empty() && basic.password_file.is_empty()))
        || authorization.is_some_and(|authorization| !authorization.credentials_file.is_empty())
        || headers.is_some_and(|headers| headers.0.values().any(|header| !header.files.is_empty()))
}

/// Where a webhook's messages go now. Errors name no secret.
pub fn destination(webhook: &Webhook) -> Result<Destination, AttemptError> {
    let text = match webhook.url_file.as_str() {
        "" => webhook.url.0.expose().clone(),
        file => read(file).map_err(|error| fatal(format!("read url_file: {error}")))?,
    };
    if text.is_empty() {
        return Err(fatal("webhook URL is empty after templating".to_owned()));
    }
    let mut url = Url::parse(&text).map_err(|_| fatal("Post \"<redacted>\": the URL is none".to_owned()))?;
    let mut headers = Vec::new();
    if let Some(http) = &webhook.http_config {
        authenticate(http, &mut url, &mut headers).map_err(|text| AttemptError {
            text: format!("Post \"<redacted>\": {text}"),
            retry: true,
            reason: FailureReason::Other,
        })?;
    }
    Ok(Destination { url, headers })
}

fn fatal(text: String) -> AttemptError {
    AttemptError { text, retry: false, reason: FailureReason::Other }
}

fn read(file: &str) -> Result<String, String> {
    use std::io::Read as _;
    let wrong = |error: std::io::Error| format!("open {file}: {error}");
    let mut text = String::new();
    let opened = std::fs::File::open(Path::new(file)).map_err(wrong)?;
    opened.take(FILE_LEN_MAX).read_to_string(&mut text).map_err(wrong)?;
    Ok(text.trim().to_owned())
}

fn either(inline: &str, file: &str, what: &str) -> Result<String, String> {
    if file.is_empty() {
        return Ok(inline.to_owned());
    }
    read(file).map_err(|error| format!("unable to read {what}: {error}"))
}

fn authenticate(
    http: &HttpClientConfig,
    url: &mut Url,
    headers: &mut Vec<(HeaderName, HeaderValue)>,
) -> Result<(), String> {
    if let Some(basic) = &http.basic_auth {
        let user = either(&basic.username, &basic.username_file, "basic auth username file")?;
        let password = either(basic.password.expose(), &basic.password_file, "basic auth password file")?;
        // The client makes basic authentication of it, and never sends it as part of the URL.
        let set = url.set_username(&user).and_then(|()| url.set_password(Some(&password)));
        set.map_err(|()| "the URL takes no credentials".to_owned())?;
    }
    if let Some(authorization) = &http.authorization {
        let file = &authorization.credentials_file;
        let credentials = either(authorization.credentials.expose(), file, "authorization credentials file")?;
        let value = secret_value(&format!("{} {credentials}", authorization.auth_type))?;
        headers.push((AUTHORIZATION, value));
    }
    for (name, header) in http.http_headers.iter().flat_map(|headers| &headers.0) {
        let name: HeaderName = name.parse().map_err(|_| format!("{name:?} is no name of a header"))?;
        let mut add = |value: &str| secret_value(value).map(|value| headers.push((name.clone(), value)));
        header.values.iter().try_for_each(|value| add(value))?;
        header.secrets.iter().try_for_each(|value| add(value.expose()))?;
        for file in &header.files {
            add(&read(file).map_err(|error| format!("unable to read headers file: {error}"))?)?;
        }
    }
    Ok(())
}

fn secret_value(text: &str) -> Result<HeaderValue, String> {
    let mut value = HeaderValue::from_str(text).map_err(|_| "a header has a value that cannot be sent".to_owned())?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::alertmanager::parse;

    fn webhook(lines: &str) -> Webhook {
        let yaml = format!("route: {{receiver: a}}\nreceivers: [{{name: a, webhook_configs: [{{{lines}}}]}}]");
        parse(&yaml).unwrap().receivers.remove(0).webhook_configs.remove(0).unwrap()
    }

    fn headers(lines: &str) -> Vec<(String, String)> {
        let destination = destination(&webhook(&format!("url: 'http://h/', http_config: {{{lines}}}"))).unwrap();
        let shown = |(name, value): (HeaderName, HeaderValue)| {
            (name.to_string(), String::from_utf8(value.as_bytes().to_vec()).unwrap())
        };
        destination.headers.into_iter().map(shown).collect()
    }

    #[test]
    fn credentials_and_headers_are_sent() {
        let one = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(headers("authorization: {credentials: x}"), [one("authorization", "Bearer x")]);
        assert_eq!(headers("http_headers: {X-A: {values: [a], secrets: [b]}}"), [one("x-a", "a"), one("x-a", "b")]);
        let basic = webhook("url: 'http://h/', http_config: {basic_auth: {username: 'u:', password: 'p@'}}");
        assert_eq!(destination(&basic).unwrap().url.as_str(), "http://u%3A:p%40@h/");
        assert!(!reads_files(&basic));
    }

    #[test]
    fn files_are_read_each_time() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("url");
        let webhook = webhook(&format!("url_file: '{}'", file.display()));
        assert!(reads_files(&webhook));
        let error = |webhook: &Webhook| destination(webhook).err().unwrap();
        assert!(error(&webhook).text.starts_with("read url_file: open "));
        std::fs::write(&file, " http://h/one \n").unwrap();
        assert_eq!(destination(&webhook).unwrap().url.as_str(), "http://h/one");
        std::fs::write(&file, "\n").unwrap();
        assert_eq!(error(&webhook).text, "webhook URL is empty after templating");
        std::fs::write(&file, "secret:%%").unwrap();
        assert!(
            destination(&webhook).is_ok_and(|d| d.url.scheme() == "secret") || !error(&webhook).text.contains("secret")
        );
    }
}
