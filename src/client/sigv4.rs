//! Signatures of requests to Amazon's services, version 4.

use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderName, HeaderValue};
use sha2::{Digest as _, Sha256};

use crate::client::{Failure, Request};
use crate::model::go_time::format_rfc3339_nano;
use crate::model::secret::Secret;
use crate::model::time::TimestampMs;

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
/// The block of SHA-256, in bytes.
const BLOCK_LEN: usize = 64;

/// Who signs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AwsCredentials {
    /// Name of the key.
    pub access_key: String,
    /// The key.
    pub secret_key: Secret<String>,
    /// Comes with keys that expire.
    pub session_token: Option<Secret<String>>,
}

/// What a signature holds for.
#[derive(Clone, Copy, Debug)]
pub struct SigningScope<'a> {
    /// `eu-west-1`
    pub region: &'a str,
    /// `ec2`
    pub service: &'a str,
}

/// Signs a request as of `now`: adds the headers that carry the signature. Nothing that it covers may change afterwards: method,
/// URL, type and body.
pub fn sign(
    request: &mut Request,
    credentials: &AwsCredentials,
    scope: SigningScope<'_>,
    now: TimestampMs,
) -> Result<(), Failure> {
    let header = |text: &str| {
        let value = HeaderValue::from_str(text);
        value.map_err(|_| Failure::Other("a part of the signature is no header value".to_owned()))
    };
    // `2015-08-30T12:36:00Z` without its separators.
    let seconds = now.0.div_euclid(1000).saturating_mul(1_000_000_000);
    let stamp: String = format_rfc3339_nano(seconds).chars().filter(|c| !matches!(c, '-' | ':')).collect();
    let day = stamp.get(..8).unwrap_or_default().to_owned();
    let mut signed = vec![(HOST.as_str().to_owned(), host(request)), ("x-amz-date".to_owned(), stamp.clone())];
    request.headers.push((HeaderName::from_static("x-amz-date"), header(&stamp)?));
    if let Some(token) = &credentials.session_token {
        let mut value = header(token.expose())?;
        value.set_sensitive(true);
        request.headers.push((HeaderName::from_static("x-amz-security-token"), value));
        signed.push(("x-amz-security-token".to_owned(), token.expose().clone()));
    }
    if let Some((_, value)) = request.headers.iter().find(|(name, _)| *name == CONTENT_TYPE) {
        signed.push((CONTENT_TYPE.as_str().to_owned(), value.to_str().unwrap_or_default().to_owned()));
    }
    signed.sort();
    let names = signed.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(";");
    let headers: String = signed.iter().map(|(name, value)| format!("{name}:{}\n", value.trim())).collect();
    let canonical = format!(
        "{}\n{}\n{}\n{headers}\n{names}\n{}",
        request.method,
        request.url.path(),
        canonical_query(request),
        hex(&Sha256::digest(&request.body))
    );
    let scope_text = format!("{day}/{}/{}/aws4_request", scope.region, scope.service);
    let to_sign = format!("{ALGORITHM}\n{stamp}\n{scope_text}\n{}", hex(&Sha256::digest(canonical.as_bytes())));
    let mut key = format!("AWS4{}", credentials.secret_key.expose()).into_bytes();
    for part in [day.as_str(), scope.region, scope.service, "aws4_request"] {
        key = hmac(&key, part.as_bytes()).to_vec();
    }
    let signature = hex(&hmac(&key, to_sign.as_bytes()));
    let access_key = &credentials.access_key;
    let text =
        format!("{ALGORITHM} Credential={access_key}/{scope_text}, SignedHeaders={names}, Signature={signature}");
    let mut value = header(&text)?;
    value.set_sensitive(true);
    request.headers.push((AUTHORIZATION, value));
    Ok(())
}

fn host(request: &Request) -> String {
    let host = request.url.host_str().unwrap_or_default();
    request.url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

fn canonical_query(request: &Request) -> String {
    let encode = |text: &str| {
        let mut encoded = String::new();
        for byte in text.bytes() {
            match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => encoded.push(char::from(byte)),
                _ => encoded.push_str(&format!("%{byte:02X}")),
            }
        }
        encoded
    };
    let mut pairs: Vec<String> =
        request.url.query_pairs().map(|(name, value)| format!("{}={}", encode(&name), encode(&value))).collect();
    pairs.sort();
    pairs.join("&")
}

/// HMAC with SHA-256 (RFC 2104).
fn hmac(key: &[u8], message: &[u8]) -> [u8; 32] {
    let mut block = [0u8; BLOCK_LEN];
    if BLOCK_LEN < key.len() {
        block[..32].copy_from_slice(&Sha256::digest(key));
    } else {
        block[..key.len()].copy_from_slice(key);
    }
    let keyed = |pad: u8| Sha256::new().chain_update(block.map(|byte| byte ^ pad));
    let inner = keyed(0x36).chain_update(message).finalize();
    keyed(0x5c).chain_update(inner).finalize().into()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use url::Url;

    use super::*;

    #[test]
    fn hmac_is_that_of_rfc_4231() {
        let expected = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        assert_eq!(hex(&hmac(b"Jefe", b"what do ya want for nothing?")), expected);
        let expected = "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54";
        let message = b"Test Using Larger Than Block-Size Key - Hash Key First";
        assert_eq!(hex(&hmac(&[0xaa; 131], message)), expected);
    }

    #[test]
    fn the_signature_is_that_of_the_published_example() {
        let credentials = AwsCredentials {
            access_key: "AKIDEXAMPLE".to_owned(),
            secret_key: Secret::new("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".to_owned()),
            session_token: None,
        };
        let scope = SigningScope { region: "us-east-1", service: "service" };
        let mut request = Request::get(Url::parse("https://example.amazonaws.com/").unwrap());
        sign(&mut request, &credentials, scope, TimestampMs(1_440_938_160_500)).unwrap();
        let authorization =
            request.headers.iter().find(|(name, _)| *name == AUTHORIZATION).unwrap().1.to_str().unwrap();
        let expected = "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, \
                        SignedHeaders=host;x-amz-date, \
                        Signature=5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31";
        assert_eq!(authorization, expected);
    }
}
