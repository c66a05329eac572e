//! Why a request failed, in the words of Go's `net/http`.

use std::error::Error;
use std::io;

use hyper::header::LOCATION;
use url::Url;

use crate::client::connect::ConnectFailed;
use crate::client::first_bytes::FirstBytes;
use crate::client::wire::{Broken, Malformed};
use crate::client::{Request, Response};
use crate::model::go;

/// A failed request: `Get "http://host/metrics": context deadline exceeded`. Userinfo in the URL prints as `***`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{method} {}: {failure}", go::quote(.url))]
pub struct ClientError {
    method: &'static str,
    url: String,
    /// What happened.
    pub failure: Failure,
}

impl ClientError {
    pub(super) fn new(request: &Request, failure: Failure) -> Self {
        let method = match request.method.as_str() {
            "GET" => "Get",
            "POST" => "Post",
            "PUT" => "Put",
            "HEAD" => "Head",
            _ => "Do",
        };
        Self { method, url: shown(&request.url, request.has_usual_port), failure }
    }

    /// Of a request that was sent on too often: as in Go, the URL is where the last answer sends it, in the answer's words unless
    /// they may hold a password.
    pub(super) fn too_often(request: &Request, response: &Response) -> Self {
        let location = response.headers.get(LOCATION).and_then(|location| location.to_str().ok());
        let own = location.filter(|location| !location.contains('@'));
        let joined = || location.and_then(|location| request.url.join(location).ok());
        let url = own.map(str::to_owned).or_else(|| joined().map(|url| shown(&url, false)));
        let error = Self::new(request, Failure::TooManyRedirects);
        Self { url: url.unwrap_or_else(|| error.url.clone()), ..error }
    }
}

/// The URL with its password as Go's `URL.Redacted` prints it, and with its port where that was written.
fn shown(url: &Url, has_usual_port: bool) -> String {
    let mut shown = url.clone();
    if shown.password().is_some() {
        let _ = shown.set_password(Some("***"));
    }
    let text = String::from(shown);
    match url.port_or_known_default() {
        Some(port) if has_usual_port && url.port().is_none() => {
            let from = text.find("://").map_or(0, |at| at + 3);
            let end = text.get(from..).and_then(|rest| rest.find(['/', '?', '#'])).map_or(text.len(), |at| from + at);
            let (authority, rest) = text.split_at(end);
            format!("{authority}:{port}{rest}")
        }
        _ => text,
    }
}

/// What happened to a request or to its answer's body.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The deadline passed.
    #[error("context deadline exceeded")]
    Deadline,
    /// The peer closed the connection without an answer.
    #[error("EOF")]
    Eof,
    /// The peer closed the connection within the body.
    #[error("unexpected EOF")]
    UnexpectedEof,
    /// More redirects than are followed.
    #[error("stopped after 10 redirects")]
    TooManyRedirects,
    /// No connection could be made.
    #[error("dial tcp{address}: {reason}")]
    Dial {
        /// ` host:port`, or nothing when the name was not found.
        address: String,
        /// `connect: connection refused`, `lookup host: no such host`, …
        reason: String,
    },
    /// No connection to the proxy could be made.
    #[error("proxyconnect tcp: {0}")]
    Proxy(Box<Failure>),
    /// The peer's certificate or handshake was refused.
    #[error("tls: {0}")]
    Tls(String),
    /// The head of the answer is larger than we read.
    #[error("net/http: server response headers exceeded 65536 bytes; aborted")]
    HeadTooLarge,
    /// The peer has reset the connection, or takes nothing more.
    #[error("{0}")]
    Broken(String),
    /// Anything else, in our words.
    #[error("{0}")]
    Other(String),
}

impl Failure {
    pub(super) fn of_request(error: &hyper_util::client::legacy::Error) -> Self {
        if let Some(ConnectFailed(failure)) = find::<ConnectFailed>(error) {
            return failure.clone();
        }
        if let Some(error) = find::<rustls::Error>(error) {
            return Self::of_tls(error);
        }
        if let Some(error) = find::<hyper::Error>(error) {
            return Self::of_hyper(error, Self::Eof);
        }
        Self::Other(innermost(error))
    }

    pub(super) fn of_body(error: &hyper::Error) -> Self {
        Self::of_hyper(error, Self::UnexpectedEof)
    }

    fn of_hyper(error: &hyper::Error, at_end: Self) -> Self {
        // The connection ended before it took the request.
        if let Some(reason) = error.source().and_then(|source| source.downcast_ref::<hyper::Error>())
            && error.is_canceled()
        {
            return Self::of_hyper(reason, at_end);
        }
        if error.is_incomplete_message() || error.is_closed() {
            return at_end;
        }
        if error.is_parse() && error.to_string().contains("message head is too large") {
            return Self::HeadTooLarge;
        }
        if let Some(broken) = find::<Broken>(error) {
            return Self::Broken(broken.to_string());
        }
        if let Some(malformed) = find::<Malformed>(error) {
            return Self::Other(format!("net/http: HTTP/1.x transport connection broken: {malformed}"));
        }
        match find_io(error) {
            Some(io) if io.kind() == io::ErrorKind::UnexpectedEof => at_end,
            Some(io) if io.to_string().starts_with("Invalid chunk size") => {
                Self::Other("invalid byte in chunk length".into())
            }
            _ if error.is_parse() => Self::Other(format!("net/http: HTTP/1.x transport connection broken: {error}")),
            _ => Self::Other(innermost(error)),
        }
    }

    fn of_tls(error: &rustls::Error) -> Self {
        use rustls::{AlertDescription, CertificateError, InvalidMessage};
        let unverified = |text: &str| Self::Tls(format!("failed to verify certificate: x509: {text}"));
        match error {
            rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
                Self::Other("http: server gave HTTP response to HTTPS client".into())
            }
            rustls::Error::InvalidCertificate(reason) => match reason {
                CertificateError::UnknownIssuer => unverified("certificate signed by unknown authority"),
                CertificateError::NotValidForNameContext { expected, presented } => {
                    unverified(&wrong_name(&expected.to_str(), presented))
                }
                CertificateError::ExpiredContext { time, not_after: limit } => {
                    unverified(&wrong_time(time.as_secs(), "after", limit.as_secs()))
                }
                CertificateError::NotValidYetContext { time, not_before: limit } => {
                    unverified(&wrong_time(time.as_secs(), "before", limit.as_secs()))
                }
                reason => unverified(&reason.to_string()),
            },
            rustls::Error::AlertReceived(alert) => Self::Other(match alert {
                AlertDescription::ProtocolVersion => "remote error: tls: protocol version not supported".into(),
                AlertDescription::UnknownCA => "remote error: tls: unknown certificate authority".into(),
                AlertDescription::UnrecognisedName => "remote error: tls: unrecognized name".into(),
                other => format!("remote error: tls: {}", in_words(&format!("{other:?}"))),
            }),
            error => Self::Tls(error.to_string()),
        }
    }

    /// Of a TLS handshake.
    pub(super) fn of_handshake(error: &io::Error, first: &FirstBytes) -> Self {
        if let Some(error) = find::<rustls::Error>(error) {
            let is_no_record =
                matches!(error, rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType));
            if is_no_record && !first.are_http() {
                return Self::Other("tls: first record does not look like a TLS handshake".into());
            }
            return Self::of_tls(error);
        }
        if let Some(broken) = find::<Broken>(error) {
            return Self::Broken(broken.to_string());
        }
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::Eof,
            _ => Self::Other(innermost(error)),
        }
    }

    /// Of a TCP connection.
    pub(super) fn of_dial(error: &(dyn Error + 'static), host: &str, port: u16) -> Self {
        let address = format!(" {host}:{port}");
        let dial = |reason: &str| Self::Dial { address: address.clone(), reason: reason.to_owned() };
        if chain(error).contains("dns error") {
            return Self::Dial { address: String::new(), reason: format!("lookup {host}: no such host") };
        }
        match find_io(error) {
            Some(io) if io.kind() == io::ErrorKind::UnexpectedEof => Self::Eof,
            Some(io) => dial(&Self::socket_reason(io)),
            None => dial(&innermost(error)),
        }
    }

    /// Why a socket could not be connected.
    pub(super) fn socket_reason(error: &io::Error) -> String {
        let known = match error.kind() {
            io::ErrorKind::ConnectionRefused => "connect: connection refused",
            io::ErrorKind::HostUnreachable => "connect: no route to host",
            io::ErrorKind::NetworkUnreachable => "connect: network is unreachable",
            io::ErrorKind::ConnectionReset => "connect: connection reset by peer",
            io::ErrorKind::NotFound => "connect: no such file or directory",
            io::ErrorKind::PermissionDenied => "connect: permission denied",
            io::ErrorKind::TimedOut => "i/o timeout",
            _ => return innermost(error),
        };
        known.to_owned()
    }
}

/// Go's text for a certificate of other names. `presented` is the library's account of them, as `DnsName("host")`.
fn wrong_name(expected: &str, presented: &[String]) -> String {
    let inside = |name: &String, kind: &str| {
        let inner = name.strip_prefix(kind)?.strip_prefix('(')?.strip_suffix(')')?;
        Some(inner.trim_matches('"').to_owned())
    };
    let of_kind = |kind: &str| -> Vec<String> { presented.iter().filter_map(|name| inside(name, kind)).collect() };
    let valid = if expected.parse::<std::net::IpAddr>().is_ok() {
        let addresses = of_kind("IpAddress");
        if addresses.is_empty() {
            return format!("cannot validate certificate for {expected} because it doesn't contain any IP SANs");
        }
        addresses
    } else {
        of_kind("DnsName")
    };
    match valid.as_slice() {
        [] if presented.is_empty() => "certificate relies on legacy Common Name field, use SANs instead".to_owned(),
        [] => format!("certificate is not valid for any names, but wanted to match {expected}"),
        valid => format!("certificate is valid for {}, not {expected}", valid.join(", ")),
    }
}

/// Go's text for a certificate that holds at another time; times in UTC.
fn wrong_time(now_secs: u64, side: &str, limit_secs: u64) -> String {
    let shown = |secs: u64| {
        let time = i64::try_from(secs).ok().and_then(|secs| jiff::Timestamp::from_second(secs).ok());
        time.map_or_else(|| secs.to_string(), |time| time.to_string())
    };
    let (now, limit) = (shown(now_secs), shown(limit_secs));
    format!("certificate has expired or is not yet valid: current time {now} is {side} {limit}")
}

/// `BadCertificate` as `bad certificate`.
fn in_words(name: &str) -> String {
    let mut words = String::new();
    for letter in name.chars() {
        if letter.is_ascii_uppercase() && !words.is_empty() {
            words.push(' ');
        }
        words.push(letter.to_ascii_lowercase());
    }
    words
}

/// The first error of type `T` in the chain, looking into `io::Error` as well, which hides what it wraps.
fn find<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<T>() {
            return Some(found);
        }
        let inside = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref).and_then(|e| e.downcast_ref::<T>());
        if inside.is_some() {
            return inside;
        }
        next = error.source();
    }
    None
}

fn find_io<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a io::Error> {
    find::<io::Error>(error)
}

fn innermost(error: &(dyn Error + 'static)) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}

fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text.push_str(": ");
        text.push_str(&source.to_string());
        next = source.source();
    }
    text
}
