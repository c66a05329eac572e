//! Userinfo of a URL as basic authentication (RFC 7617), as Go's client sends it.

use hyper::header::HeaderValue;
use url::Url;

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// `Basic …` of the URL's user and password, marked as sensitive; `None` for a URL without them.
pub(super) fn basic_auth(url: &Url) -> Option<HeaderValue> {
    if url.username().is_empty() && url.password().is_none() {
        return None;
    }
    let mut credentials = decode(url.username());
    credentials.push(b':');
    credentials.extend(decode(url.password().unwrap_or("")));
    Some(basic(&credentials))
}

/// `Basic …` of `user:password`, marked as sensitive.
pub(super) fn basic(credentials: &[u8]) -> HeaderValue {
    let text = format!("Basic {}", base64(credentials));
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

fn base64(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let byte = |index: usize| u32::from(group.get(index).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for place in 0..4 {
            let six = (bits >> (18 - 6 * place) & 0x3f) as usize;
            text.push(if place <= group.len() { char::from(ALPHABET[six]) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_rfc_4648() {
        let cases =
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("foobar", "Zm9vYmFy")];
        for (plain, encoded) in cases {
            assert_eq!(base64(plain.as_bytes()), encoded);
        }
        assert_eq!(base64(&[0xfb, 0xff, 0xfe]), "+//+");
    }

    #[test]
    fn userinfo_is_decoded() {
        let auth = |url: &str| basic_auth(&Url::parse(url).unwrap()).map(|v| v.to_str().unwrap().to_owned());
        assert_eq!(auth("http://host/"), None);
        assert_eq!(auth("http://user:p%40ss%zz@host/").unwrap(), format!("Basic {}", base64(b"user:p@ss%zz")));
        assert_eq!(auth("http://user@host/").unwrap(), format!("Basic {}", base64(b"user:")));
        assert_eq!(auth("http://:pass@host/").unwrap(), format!("Basic {}", base64(b":pass")));
    }
}
