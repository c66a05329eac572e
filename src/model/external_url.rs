//! `--web.external-url` and `--web.route-prefix`: where users find us, and where our routes begin.

use url::Url;

use crate::model::go;

/// The URL under which users reach this server. The path has no slash at its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExternalUrl {
    /// `http` or `https`, mostly.
    pub scheme: String,
    /// Host, with the port if one was written.
    pub host: String,
    /// Empty, or a path that starts with `/` and does not end with it.
    pub path: String,
}

impl std::fmt::Display for ExternalUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}://{}{}", self.scheme, self.host, self.path)
    }
}

/// Why an external URL is refused. Prints as Prometheus does.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// Quotes from a shell or a unit file that were not taken off.
    #[error("URL must not begin or end with quotes")]
    Quoted,
    /// Not a URL.
    #[error("parse {}: {reason}", go::quote(.url))]
    Malformed {
        /// As written.
        url: String,
        /// Why not.
        reason: String,
    },
    /// The listen address, from which the URL is derived, is empty.
    #[error("missing port in address")]
    NoAddress,
    /// The listen address, from which the URL is derived, has no port.
    #[error("address {address}: {reason}")]
    Address {
        /// As written.
        address: String,
        /// Why not.
        reason: &'static str,
    },
}

/// The external URL as written, or derived from the machine's name and the port of the first listen address.
pub fn external_url(written: &str, hostname: &str, listen_address: &str) -> Result<ExternalUrl, UrlError> {
    if written.is_empty() {
        if listen_address.is_empty() {
            return Err(UrlError::NoAddress);
        }
        let (_, port) = split_host_port(listen_address)?;
        if !port.bytes().all(|byte| byte.is_ascii_digit()) {
            let url = format!("http://{hostname}:{port}/");
            return Err(UrlError::Malformed { url, reason: bad_port(port) });
        }
        return Ok(ExternalUrl { scheme: "http".to_owned(), host: format!("{hostname}:{port}"), path: String::new() });
    }
    let quoted = |end: Option<char>| matches!(end, Some('"' | '\''));
    if quoted(written.chars().next()) || quoted(written.chars().next_back()) {
        return Err(UrlError::Quoted);
    }
    let malformed = |reason: String| UrlError::Malformed { url: written.to_owned(), reason };
    let url = match Url::parse(written) {
        Ok(url) => url,
        // Go takes a bare path, and Prometheus then links relative to it.
        Err(url::ParseError::RelativeUrlWithoutBase) if written.starts_with(':') => {
            return Err(malformed("missing protocol scheme".to_owned()));
        }
        Err(url::ParseError::RelativeUrlWithoutBase)
            if written.split(['/', '?', '#']).next().is_some_and(|segment| segment.contains(':')) =>
        {
            return Err(malformed("first path segment in URL cannot contain colon".to_owned()));
        }
        Err(url::ParseError::RelativeUrlWithoutBase) => return Ok(relative(written)),
        Err(url::ParseError::InvalidPort) => return Err(malformed(bad_port(written_port(written)))),
        Err(error) => return Err(malformed(error.to_string())),
    };
    let host = match (url.host_str(), url.port()) {
        (Some(host), Some(port)) => format!("{host}:{port}"),
        (Some(host), None) => host.to_owned(),
        (None, _) => return Err(malformed("missing host".to_owned())),
    };
    let path = if url.path() == "/" { "" } else { url.path().trim_end_matches('/') };
    Ok(ExternalUrl { scheme: url.scheme().to_owned(), host, path: path.to_owned() })
}

fn bad_port(port: &str) -> String {
    format!("invalid port {} after host", go::quote(&format!(":{port}")))
}

/// What stands behind the last colon of the authority.
fn written_port(url: &str) -> &str {
    let authority = url.split_once("://").map_or(url, |(_, rest)| rest).split(['/', '?', '#']).next().unwrap_or("");
    authority.rsplit_once(':').map_or("", |(_, port)| port)
}

fn relative(written: &str) -> ExternalUrl {
    let path = written.trim_end_matches('/');
    let path = if path.is_empty() || path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    ExternalUrl { scheme: String::new(), host: String::new(), path }
}

/// The prefix of all routes: starts with `/`, and ends with it only if it is nothing else.
pub fn route_prefix(written: &str, external: &ExternalUrl) -> String {
    let prefix = if written.is_empty() { &external.path } else { written };
    format!("/{}", prefix.trim_matches('/'))
}

/// Splits `host:port`; a literal IPv6 address stands in brackets. The texts are those of Go's `net.SplitHostPort`.
pub fn split_host_port(address: &str) -> Result<(&str, &str), UrlError> {
    let fail = |reason| UrlError::Address { address: address.to_owned(), reason };
    let (host, port) = address.rsplit_once(':').ok_or_else(|| fail("missing port in address"))?;
    match host.strip_prefix('[') {
        Some(inner) => match inner.strip_suffix(']') {
            Some(host) if !host.contains(['[', ']']) => Ok((host, port)),
            _ if address.ends_with(']') => Err(fail("missing port in address")),
            _ => Err(fail("missing ']' in address")),
        },
        None if host.contains(':') => Err(fail("too many colons in address")),
        None if address.contains('[') => Err(fail("unexpected '[' in address")),
        None if address.contains(']') => Err(fail("unexpected ']' in address")),
        None => Ok((host, port)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(written: &str, route: &str, url: &str, prefix: &str) {
        let external = external_url(written, "vm", "0.0.0.0:9090").unwrap();
        assert_eq!((external.to_string().as_str(), route_prefix(route, &external).as_str()), (url, prefix));
    }

    #[test]
    fn derives_what_is_not_written() {
        check("", "", "http://vm:9090", "/");
        check("http://example.org/", "", "http://example.org", "/");
        check("https://example.org:8443/prom/", "", "https://example.org:8443/prom", "/prom");
        check("https://example.org/prom", "/", "https://example.org/prom", "/");
        check("", "/a/b/", "http://vm:9090", "/a/b");
    }

    #[test]
    fn refuses_with_the_known_texts() {
        let text = |written: &str, listen: &str| external_url(written, "vm", listen).unwrap_err().to_string();
        assert_eq!(text("\"http://x\"", ":9090"), "URL must not begin or end with quotes");
        assert_eq!(text("", "x"), "address x: missing port in address");
        assert_eq!(text("", ""), "missing port in address");
        assert_eq!(text("", ":x"), "parse \"http://vm:x/\": invalid port \":x\" after host");
        assert_eq!(text("http://u@x:y/z:1", ":9"), "parse \"http://u@x:y/z:1\": invalid port \":y\" after host");
        assert_eq!(text("::bad", ":9"), "parse \"::bad\": missing protocol scheme");
        assert_eq!(text("1x:9/a", ":9"), "parse \"1x:9/a\": first path segment in URL cannot contain colon");
        assert_eq!(text("", "::1:90"), "address ::1:90: too many colons in address");
        assert_eq!(text("", "[::1]"), "address [::1]: missing port in address");
        assert_eq!(split_host_port("[::1]:80").unwrap(), ("::1", "80"));
        assert_eq!(split_host_port(":80").unwrap(), ("", "80"));
    }
}
