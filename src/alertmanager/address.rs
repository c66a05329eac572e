//! Where a webhook's messages go, by its configuration or by the file that it names.

use std::io::Read as _;

use url::Url;

use crate::alertmanager::retry::{AttemptError, FailureReason};
use crate::config::alertmanager::Webhook;
use crate::template::TemplateError;

/// Longest file with a URL.
const FILE_LEN_MAX: u64 = 64 * 1024;

/// Whether [`of`] reads a file or expands a template, so that it must not run on an actor's thread.
pub fn takes_time(webhook: &Webhook) -> bool {
    !webhook.url_file.is_empty() || webhook.url.is_template()
}

/// Where a webhook's message goes; secret. `expand` expands the URL where it is a template. Errors do not name it.
pub fn of(webhook: &Webhook, expand: impl FnOnce(&str) -> Result<String, TemplateError>) -> Result<Url, AttemptError> {
    let fatal = |text: String| AttemptError { text, retry: false, reason: FailureReason::Other };
    let mut text = match webhook.url_file.as_str() {
        "" => webhook.url.0.expose().clone(),
        file => read(file).map_err(|error| fatal(format!("read url_file: open {file}: {error}")))?,
    };
    if text.contains("{{") {
        // The error would show parts of the URL.
        let secret = |_| fatal("failed to template webhook URL: <redacted>".to_owned());
        text = expand(&text).map_err(secret)?;
    }
    if text.is_empty() {
        return Err(fatal("webhook URL is empty after templating".to_owned()));
    }
    Url::parse(&text).map_err(|_| fatal("Post \"<redacted>\": the URL is none".to_owned()))
}

fn read(file: &str) -> std::io::Result<String> {
    let mut text = String::new();
    std::fs::File::open(file)?.take(FILE_LEN_MAX).read_to_string(&mut text)?;
    Ok(text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::alertmanager::parse;

    fn plain(text: &str) -> Result<String, TemplateError> {
        panic!("{text} is no template")
    }

    fn webhook(lines: &str) -> Webhook {
        let yaml = format!("route: {{receiver: a}}\nreceivers: [{{name: a, webhook_configs: [{{{lines}}}]}}]");
        parse(&yaml).unwrap().receivers.remove(0).webhook_configs.remove(0).unwrap()
    }

    #[test]
    fn files_are_read_each_time() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("url");
        let webhook = webhook(&format!("url_file: '{}'", file.display()));
        assert!(takes_time(&webhook));
        let error = |webhook: &Webhook| of(webhook, plain).err().unwrap();
        assert!(error(&webhook).text.starts_with("read url_file: open "));
        std::fs::write(&file, " http://h/one \n").unwrap();
        assert_eq!(of(&webhook, plain).unwrap().as_str(), "http://h/one");
        std::fs::write(&file, "\n").unwrap();
        assert_eq!(error(&webhook).text, "webhook URL is empty after templating");
        std::fs::write(&file, "secret %%").unwrap();
        assert_eq!(error(&webhook).text, "Post \"<redacted>\": the URL is none");
    }

    #[test]
    fn an_inline_url_needs_no_file() {
        let webhook = webhook("url: 'http://h/'");
        assert!(!takes_time(&webhook));
        assert_eq!(of(&webhook, plain).unwrap().as_str(), "http://h/");
    }

    #[test]
    fn a_template_is_expanded_for_each_message() {
        let webhook = webhook("url: 'http://h/{{ .Status }}?token=hidden'");
        assert!(takes_time(&webhook));
        let to = of(&webhook, |text| Ok(text.replace("{{ .Status }}", "firing"))).unwrap();
        assert_eq!(to.as_str(), "http://h/firing?token=hidden");
        let error = of(&webhook, |text| Err(TemplateError(text.to_owned()))).unwrap_err();
        assert_eq!((error.text.as_str(), error.retry), ("failed to template webhook URL: <redacted>", false));
        let error = of(&webhook, |_| Ok(String::new())).unwrap_err();
        assert_eq!(error.text, "webhook URL is empty after templating");
    }
}
