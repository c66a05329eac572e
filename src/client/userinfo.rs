//! Userinfo of a URL as basic authentication (RFC 7617), as Go's client sends it.

use hyper::header::HeaderValue;
use url::Url;

use crate::client::base64;

/// `Basic …` of the URL's user and password, marked as sensitive; `None` for a URL without them.
pub(super) fn basic_auth(url: &Url) -> Option<HeaderValue> {
    let (mut credentials, password) = pair(url)?;
    credentials.push(b':');
    credentials.extend(password);
    Some(basic(&credentials))
}

/// User and password of a URL; `None` for a URL without them.
pub(super) fn pair(url: &Url) -> Option<(Vec<u8>, Vec<u8>)> {
    if url.username().is_empty() && url.password().is_none() {
        return None;
    }
    Some((decode(url.username()), decode(url.password().unwrap_or(""))))
}

/// `Basic …` of `user:password`, marked as sensitive.
pub(super) fn basic(credentials: &[u8]) -> HeaderValue {
    let text = format!("Basic {}", base64::standard(credentials));
    let mut value = HeaderValue::from_str(&text).expect("Base64 is always a header value");
    value.set_sensitive(true);
    value
}

/// Undoes percent-encoding; what is no escape stays.
fn decode(text: &str) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let escaped = tail.first_chunk::<2>().filter(|_| *first == b'%').and_then(|[high, low]| {
            let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
            Some(digit(*high)? << 4 | digit(*low)?)
        });
        decoded.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { &tail[2..] } else { tail };
    }
    decoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn userinfo_is_decoded() {
        let auth = |url: &str| basic_auth(&Url::parse(url).unwrap()).map(|v| v.to_str().unwrap().to_owned());
        assert_eq!(auth("http://host/"), None);
        assert_eq!(
            auth("http://user:p%40ss%zz@host/").unwrap(),
            format!("Basic {}", base64::standard(b"user:p@ss%zz"))
        );
        assert_eq!(auth("http://user@host/").unwrap(), format!("Basic {}", base64::standard(b"user:")));
        assert_eq!(auth("http://:pass@host/").unwrap(), format!("Basic {}", base64::standard(b":pass")));
    }
}
