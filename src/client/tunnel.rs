//! Tunnels through proxies: CONNECT of HTTP, and SOCKS 5 (RFC 1928, RFC 1929). Error texts are those of Go.

use std::io;
use std::net::IpAddr;

use hyper::header::{HeaderName, HeaderValue};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::client::wire::check_status_line;
use crate::client::{Failure, HEAD_LEN_MAX};

/// Asks the proxy at the other end of `stream` for a tunnel to `target`, which is `host:port`.
pub(super) async fn connect(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    target: &str,
    user_agent: &str,
    headers: &[(HeaderName, HeaderValue)],
) -> Result<(), Failure> {
    let mut request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n").into_bytes();
    if !headers.iter().any(|(name, _)| *name == hyper::header::USER_AGENT) {
        request.extend_from_slice(format!("User-Agent: {user_agent}\r\n").as_bytes());
    }
    for (name, value) in headers {
        request.extend_from_slice(name.as_str().as_bytes());
        request.extend_from_slice(b": ");
        request.extend_from_slice(value.as_bytes());
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"\r\n");
    stream.write_all(&request).await.map_err(|error| broken("write", &error))?;
    stream.flush().await.map_err(|error| broken("write", &error))?;
    let head = read_head(stream).await?;
    let line = head.split(|byte| *byte == b'\n').next().unwrap_or_default();
    accepted(line.strip_suffix(b"\r").unwrap_or(line))
}

/// The answer up to its empty line. What follows is dropped: a server that speaks TLS waits to be spoken to.
async fn read_head(stream: &mut (impl AsyncRead + Unpin)) -> Result<Vec<u8>, Failure> {
    let mut head = Vec::with_capacity(512);
    loop {
        let from = head.len().saturating_sub(3);
        let mut piece = [0; 512];
        let read = stream.read(&mut piece).await.map_err(|error| broken("read", &error))?;
        if read == 0 {
            return Err(Failure::UnexpectedEof);
        }
        head.extend_from_slice(piece.get(..read).unwrap_or_default());
        let fresh = head.get(from..).unwrap_or_default();
        if fresh.windows(2).any(|pair| pair == b"\n\n") || fresh.windows(4).any(|four| four == b"\r\n\r\n") {
            return Ok(head);
        }
        if HEAD_LEN_MAX < head.len() {
            return Err(Failure::HeadTooLarge);
        }
    }
}

/// Whether a status line says that the tunnel stands.
fn accepted(line: &[u8]) -> Result<(), Failure> {
    check_status_line(line).map_err(|malformed| Failure::Other(malformed.to_string()))?;
    let line = String::from_utf8_lossy(line.trim_ascii_end());
    let status = line.split_once(' ').map_or("", |(_, status)| status.trim_start());
    let (code, reason) = status.split_once(' ').map_or((status, None), |(code, reason)| (code, Some(reason)));
    if code == "200" {
        return Ok(());
    }
    Err(Failure::Other(reason.unwrap_or("unknown status code").to_owned()))
}

const SOCKS_VERSION: u8 = 5;
const NO_AUTHENTICATION: u8 = 0;
const BY_PASSWORD: u8 = 2;
const NONE_ACCEPTED: u8 = 0xff;

/// Asks the SOCKS proxy at the other end for a connection to `host`, a name or an address that may stand in brackets.
pub(super) async fn socks(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    user: Option<&(Vec<u8>, Vec<u8>)>,
    host: &str,
    port: u16,
) -> Result<(), String> {
    let methods: &[u8] = if user.is_some() { &[2, NO_AUTHENTICATION, BY_PASSWORD] } else { &[1, NO_AUTHENTICATION] };
    send(stream, &[&[SOCKS_VERSION], methods].concat()).await?;
    let [version, method] = receive(stream).await?;
    check_version(version)?;
    match (method, user) {
        (NONE_ACCEPTED, _) => return Err("no acceptable authentication methods".into()),
        (NO_AUTHENTICATION, _) | (_, None) => {}
        (BY_PASSWORD, Some((name, password))) => authenticate(stream, name, password).await?,
        (other, Some(_)) => return Err(format!("unsupported authentication method {other}")),
    }
    let mut request = vec![SOCKS_VERSION, 1, 0];
    match host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().map(|address| address.to_canonical()) {
        Ok(IpAddr::V4(address)) => {
            request.push(1);
            request.extend(address.octets());
        }
        Ok(IpAddr::V6(address)) => {
            request.push(4);
            request.extend(address.octets());
        }
        Err(_) => {
            request.push(3);
            request.push(u8::try_from(host.len()).map_err(|_| "FQDN too long".to_owned())?);
            request.extend(host.bytes());
        }
    }
    request.extend(port.to_be_bytes());
    send(stream, &request).await?;
    let [version, reply, reserved, kind] = receive(stream).await?;
    check_version(version)?;
    if reply != 0 {
        return Err(format!("unknown error {}", reply_text(reply)));
    }
    if reserved != 0 {
        return Err("non-zero reserved field".into());
    }
    // The proxy's own address is of no use, but it stands before the first byte of the target.
    let address_len = match kind {
        1 => 4,
        4 => 16,
        3 => usize::from(receive::<1>(stream).await?[0]),
        other => return Err(format!("unknown address type {other}")),
    };
    let mut bound = vec![0; address_len + 2];
    stream.read_exact(&mut bound).await.map_err(|error| io_text(&error))?;
    Ok(())
}

async fn authenticate(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    name: &[u8],
    password: &[u8],
) -> Result<(), String> {
    let (Ok(name_len), Ok(password_len)) = (u8::try_from(name.len()), u8::try_from(password.len())) else {
        return Err("invalid username/password".into());
    };
    if name_len == 0 {
        return Err("invalid username/password".into());
    }
    send(stream, &[&[1, name_len], name, &[password_len], password].concat()).await?;
    match receive(stream).await? {
        [1, 0] => Ok(()),
        [1, _] => Err("username/password authentication failed".into()),
        _ => Err("invalid username/password version".into()),
    }
}

fn check_version(version: u8) -> Result<(), String> {
    if version == SOCKS_VERSION { Ok(()) } else { Err(format!("unexpected protocol version {version}")) }
}

fn reply_text(reply: u8) -> String {
    let text = match reply {
        1 => "general SOCKS server failure",
        2 => "connection not allowed by ruleset",
        3 => "network unreachable",
        4 => "host unreachable",
        5 => "connection refused",
        6 => "TTL expired",
        7 => "command not supported",
        8 => "address type not supported",
        other => return format!("unknown code: {other}"),
    };
    text.to_owned()
}

async fn send(stream: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> Result<(), String> {
    stream.write_all(bytes).await.map_err(|error| io_text(&error))?;
    stream.flush().await.map_err(|error| io_text(&error))
}

async fn receive<const N: usize>(stream: &mut (impl AsyncRead + Unpin)) -> Result<[u8; N], String> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes).await.map_err(|error| io_text(&error))?;
    Ok(bytes)
}

fn io_text(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => "EOF".to_owned(),
        _ => error.to_string(),
    }
}

fn broken(action: &str, error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => Failure::UnexpectedEof,
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Failure::Broken(io_text(error)),
        _ => Failure::Other(format!("{action}: {}", io_text(error))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_lines_are_read_as_in_go() {
        let text =
            |line: &str| accepted(line.as_bytes()).map_or_else(|failure| failure.to_string(), |()| "ok".to_owned());
        assert_eq!(text("HTTP/1.1 200 Connection established"), "ok");
        assert_eq!(text("HTTP/1.0 200"), "ok");
        assert_eq!(text("HTTP/1.1 407 Proxy Authentication Required"), "Proxy Authentication Required");
        assert_eq!(text("HTTP/1.1 502"), "unknown status code");
        assert_eq!(text("HTTP/1.1 2000 x"), "malformed HTTP status code \"2000\"");
        assert_eq!(text("SSH-2.0-x"), "malformed HTTP response \"SSH-2.0-x\"");
        assert_eq!(text("SSH 200 x"), "malformed HTTP version \"SSH\"");
    }
}
