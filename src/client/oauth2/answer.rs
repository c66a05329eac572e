//! What a token endpoint answers.

use std::time::Duration;

use hyper::StatusCode;
use hyper::header::HeaderValue;
use serde_json::Value;
use tokio::time::Instant;

use crate::client::Failure;
use crate::client::credentials::sensitive;
use crate::model::{go, go_url};

/// What is shown of an answer that holds no token.
const SHOWN_LEN_MAX: usize = 1024;

/// A token. It has no `Debug`: nothing shows it.
pub(super) struct Token {
    access_token: String,
    token_type: String,
    ends: Option<Instant>,
}

impl Token {
    /// Whether the token has not ended by then.
    pub(super) fn holds_at(&self, at: Instant) -> bool {
        self.ends.is_none_or(|ends| at <= ends)
    }

    /// The value of the `Authorization` header.
    pub(super) fn header(&self) -> Result<HeaderValue, Failure> {
        let scheme = match self.token_type.to_ascii_lowercase().as_str() {
            "" | "bearer" => "Bearer",
            "mac" => "MAC",
            "basic" => "Basic",
            _ => self.token_type.as_str(),
        };
        sensitive("Authorization", format!("{scheme} {}", self.access_token).as_bytes())
    }
}

#[derive(Default)]
struct Fields {
    access_token: String,
    token_type: String,
    expires_in: i64,
    error: String,
    error_description: String,
    error_uri: String,
}

/// The token of an answer, or why there is none. What an error shows of the answer does not hold `secret`.
pub(super) fn read(
    status: StatusCode,
    status_text: &str,
    content_type: &str,
    body: &[u8],
    secret: &[u8],
) -> Result<Token, String> {
    let refused = || format!("oauth2: cannot fetch token: {status_text}\nResponse: {}", shown(body, secret));
    let media_type = content_type.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    let fields = match media_type.as_str() {
        "application/x-www-form-urlencoded" | "text/plain" => Ok(of_form(body)),
        _ => of_json(body),
    };
    let fields = match fields {
        Ok(fields) => fields,
        Err(_) if !status.is_success() => return Err(refused()),
        Err(error) => return Err(error),
    };
    if !fields.error.is_empty() {
        let mut text = format!("oauth2: {}", go::quote(&without(&fields.error, secret)));
        for part in [&fields.error_description, &fields.error_uri].into_iter().filter(|part| !part.is_empty()) {
            text.push(' ');
            text.push_str(&go::quote(&without(part, secret)));
        }
        return Err(text);
    }
    if !status.is_success() {
        return Err(refused());
    }
    if fields.access_token.is_empty() {
        return Err("oauth2: server response missing access_token".to_owned());
    }
    let ends = match fields.expires_in {
        0 => None,
        seconds => Some(Instant::now() + Duration::from_secs(u64::try_from(seconds).unwrap_or(0))),
    };
    Ok(Token { access_token: fields.access_token, token_type: fields.token_type, ends })
}

fn of_form(body: &[u8]) -> Fields {
    let mut fields = Fields::default();
    for (name, value) in url::form_urlencoded::parse(body) {
        let place = match &*name {
            "access_token" => &mut fields.access_token,
            "token_type" => &mut fields.token_type,
            "error" => &mut fields.error,
            "error_description" => &mut fields.error_description,
            "error_uri" => &mut fields.error_uri,
            "expires_in" => {
                fields.expires_in = value.parse().map_or(0, within_range);
                continue;
            }
            _ => continue,
        };
        if place.is_empty() {
            *place = value.into_owned();
        }
    }
    fields
}

fn of_json(body: &[u8]) -> Result<Fields, String> {
    // The error of the parser may quote the answer, which may hold a token.
    let object: serde_json::Map<String, Value> = serde_json::from_slice(body).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        format!("oauth2: cannot parse json: invalid answer at line {line} column {column}")
    })?;
    let mut fields = Fields::default();
    for (name, value) in &object {
        let name = name.to_ascii_lowercase();
        let place = match name.as_str() {
            "access_token" => &mut fields.access_token,
            "token_type" => &mut fields.token_type,
            "error" => &mut fields.error,
            "error_description" => &mut fields.error_description,
            "error_uri" => &mut fields.error_uri,
            "expires_in" => {
                fields.expires_in = seconds(value)?;
                continue;
            }
            _ => continue,
        };
        match value {
            Value::String(text) => place.clone_from(text),
            Value::Null => {}
            _ => return Err(format!("oauth2: cannot parse json: {name} is not a text")),
        }
    }
    Ok(fields)
}

/// A whole number, be it in quotes.
fn seconds(value: &Value) -> Result<i64, String> {
    let number = match value {
        Value::Null => Some(0),
        Value::Number(number) => number.as_i64().or_else(|| number.as_u64().map(|_| i64::MAX)),
        Value::String(text) => text.parse().ok(),
        _ => None,
    };
    number.map(within_range).ok_or_else(|| "oauth2: cannot parse json: expires_in is not a whole number".to_owned())
}

/// Longer than 68 years is as good as for ever. What is below 0 has ended.
fn within_range(seconds: i64) -> i64 {
    seconds.min(i64::from(i32::MAX))
}

/// The start of an answer, for an error.
fn shown(body: &[u8], secret: &[u8]) -> String {
    let text = without(&String::from_utf8_lossy(body), secret);
    match text.char_indices().nth(SHOWN_LEN_MAX) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or("")),
        None => text,
    }
}

/// The text with the secret taken out, as it is and as it stands in a form.
fn without(text: &str, secret: &[u8]) -> String {
    let secret = String::from_utf8_lossy(secret);
    if secret.is_empty() {
        return text.to_owned();
    }
    text.replace(&*secret, "<secret>").replace(&go_url::query_escape(&secret), "<secret>")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_ok(content_type: &str, body: &str) -> Result<Token, String> {
        read(StatusCode::OK, "200 OK", content_type, body.as_bytes(), b"s3cret")
    }

    fn header(token: &Token) -> String {
        token.header().unwrap().to_str().unwrap().to_owned()
    }

    #[tokio::test(start_paused = true)]
    async fn tokens_are_read_as_in_go() {
        let now = Instant::now();
        let json = read_ok("application/json; charset=utf-8", r#"{"access_token":"a","expires_in":"60"}"#).unwrap();
        assert_eq!((header(&json).as_str(), json.ends), ("Bearer a", Some(now + Duration::from_secs(60))));
        let form = read_ok("text/plain", "access_token=a%2Bb&token_type=mac&expires_in=5").unwrap();
        assert_eq!((header(&form).as_str(), form.ends), ("MAC a+b", Some(now + Duration::from_secs(5))));
        let bare = read_ok("", r#"{"Access_Token":"a","token_type":"Own","expires_in":null,"more":[1]}"#).unwrap();
        assert_eq!((header(&bare).as_str(), bare.ends), ("Own a", None));
        assert!(header(&read_ok("", r#"{"access_token":"a","expires_in":99999999999}"#).unwrap()).ends_with(" a"));
    }

    #[test]
    fn errors_read_as_in_go_and_show_no_secret() {
        let error = |status: u16, kind: &str, body: &str| {
            let status = StatusCode::from_u16(status).unwrap();
            let text = format!("{} {}", status.as_u16(), status.canonical_reason().unwrap());
            match read(status, &text, kind, body.as_bytes(), b"s3 cret") {
                Ok(_) => panic!("{body} gives a token"),
                Err(text) => text,
            }
        };
        assert_eq!(
            error(401, "", r#"{"error":"invalid_client","error_description":"s3 cret is wrong","error_uri":"u"}"#),
            r#"oauth2: "invalid_client" "<secret> is wrong" "u""#
        );
        assert_eq!(error(200, "", r#"{"error":"e","access_token":"a"}"#), r#"oauth2: "e""#);
        assert_eq!(
            error(500, "text/html", "no client_secret=s3+cret"),
            "oauth2: cannot fetch token: 500 Internal Server Error\nResponse: no client_secret=<secret>"
        );
        assert_eq!(error(400, "", "{}"), "oauth2: cannot fetch token: 400 Bad Request\nResponse: {}");
        assert_eq!(error(200, "", "{}"), "oauth2: server response missing access_token");
        let broken = error(200, "", "{\"access_token\": \"t0k\nen\"");
        assert!(broken.starts_with("oauth2: cannot parse json: ") && !broken.contains("t0k"), "{broken}");
        let long = error(500, "", &"x".repeat(5000));
        assert!(long.ends_with("x…") && long.len() < 1200, "{long}");
    }
}
