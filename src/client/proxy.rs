//! Which proxy a request takes: `proxy_url`, `no_proxy`, `proxy_from_environment`, as Prometheus chooses.

use std::sync::{Arc, LazyLock};

use hyper::header::{HeaderName, HeaderValue, PROXY_AUTHORIZATION};
use url::Url;

use crate::client::credentials::sensitive;
use crate::client::no_proxy::NoProxy;
use crate::client::{Failure, userinfo};
use crate::config::http_client::ProxyConfig;
use crate::model::go;

/// How a proxy is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// HTTP without TLS.
    Http,
    /// HTTP over TLS.
    Https,
    /// SOCKS 5. The proxy looks names up, whether the scheme says `socks5` or `socks5h`, as in Go.
    Socks,
}

/// A proxy.
#[derive(Clone)]
pub(super) struct Proxy {
    pub(super) kind: Kind,
    /// A name, or an address, that of version 6 in brackets.
    pub(super) host: String,
    pub(super) port: u16,
    /// User and password.
    pub(super) user: Option<(Vec<u8>, Vec<u8>)>,
    authorization: Option<HeaderValue>,
}

impl Proxy {
    /// Parses the URL that stands in `field`. Errors do not show it: it may hold a password.
    fn parse(text: &str, field: &str) -> Result<Arc<Self>, Failure> {
        let wrong = |reason: String| Failure::Other(format!("{field}: {reason}"));
        let url = Url::parse(text).map_err(|error| wrong(error.to_string()))?;
        let (kind, port) = match url.scheme() {
            "http" => (Kind::Http, 80),
            "https" => (Kind::Https, 443),
            "socks5" | "socks5h" => (Kind::Socks, 1080),
            other => return Err(wrong(format!("unsupported proxy scheme {}", go::quote(other)))),
        };
        let host =
            url.host_str().filter(|host| !host.is_empty()).ok_or_else(|| wrong("no host in proxy URL".into()))?;
        Ok(Arc::new(Self {
            kind,
            host: host.to_owned(),
            port: url.port().unwrap_or(port),
            user: userinfo::pair(&url),
            authorization: userinfo::basic_auth(&url),
        }))
    }

    /// The header by which an HTTP proxy knows its user.
    pub(super) fn authorization(&self) -> Option<&HeaderValue> {
        self.authorization.as_ref().filter(|_| self.kind != Kind::Socks)
    }
}

/// `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY` as they were when the process started.
#[derive(Clone, Debug, Default)]
pub struct ProxyEnvironment {
    http: String,
    https: String,
    no_proxy: String,
    is_cgi: bool,
}

static PROCESS: LazyLock<ProxyEnvironment> = LazyLock::new(|| ProxyEnvironment::of(|name| std::env::var(name).ok()));

impl ProxyEnvironment {
    /// What `variable` says of each name; names in capitals go first.
    pub fn of(variable: impl Fn(&str) -> Option<String>) -> Self {
        let either = |names: [&str; 2]| {
            names.into_iter().filter_map(&variable).find(|value| !value.is_empty()).unwrap_or_default()
        };
        Self {
            http: either(["HTTP_PROXY", "http_proxy"]),
            https: either(["HTTPS_PROXY", "https_proxy"]),
            no_proxy: either(["NO_PROXY", "no_proxy"]),
            is_cgi: variable("REQUEST_METHOD").is_some_and(|method| !method.is_empty()),
        }
    }

    /// That of this process.
    pub fn of_process() -> &'static Self {
        &PROCESS
    }
}

/// The proxies of a client, and the headers of its CONNECT requests.
#[derive(Clone, Default)]
pub(super) struct ProxyRules {
    choice: Choice,
    connect_headers: Vec<(HeaderName, HeaderValue)>,
    /// Why the headers cannot be sent.
    wrong_header: Option<Failure>,
}

#[derive(Clone, Default)]
enum Choice {
    #[default]
    Never,
    /// `proxy_url` alone: even for `localhost`.
    Always(Result<Arc<Proxy>, Failure>),
    ByTarget {
        http: Option<Result<Arc<Proxy>, Failure>>,
        https: Option<Result<Arc<Proxy>, Failure>>,
        except: NoProxy,
    },
}

impl ProxyRules {
    pub(super) fn new(config: &ProxyConfig, environment: &ProxyEnvironment) -> Self {
        let url = config.proxy_url.expose();
        let choice = if config.proxy_from_environment {
            let http = parse_loosely(&environment.http, "HTTP_PROXY");
            let cgi = "refusing to use HTTP_PROXY value in CGI environment; see golang.org/s/cgihttpproxy";
            let http = http.map(|proxy| if environment.is_cgi { Err(Failure::Other(cgi.into())) } else { proxy });
            let https = parse_loosely(&environment.https, "HTTPS_PROXY");
            Choice::ByTarget { http, https, except: NoProxy::parse(&environment.no_proxy) }
        } else if url.is_empty() {
            Choice::Never
        } else if config.no_proxy.is_empty() {
            Choice::Always(Proxy::parse(url, "proxy_url"))
        } else {
            let proxy = parse_loosely(url, "proxy_url");
            Choice::ByTarget { http: proxy.clone(), https: proxy, except: NoProxy::parse(&config.no_proxy) }
        };
        let (mut connect_headers, mut wrong_header) = (Vec::new(), None);
        for (name, values) in &config.proxy_connect_header {
            for value in values {
                match header(name, value.expose()) {
                    Ok(header) => connect_headers.push(header),
                    Err(failure) => wrong_header = Some(failure),
                }
            }
        }
        Self { choice, connect_headers, wrong_header }
    }

    /// The proxy for a target; `None` when it is asked directly.
    pub(super) fn choose(&self, is_https: bool, host: &str, port: u16) -> Result<Option<Arc<Proxy>>, Failure> {
        let proxy = match &self.choice {
            Choice::Never => return Ok(None),
            Choice::Always(proxy) => proxy,
            Choice::ByTarget { http, https, except } => match if is_https { https } else { http } {
                Some(proxy) if !except.covers(host, port) => proxy,
                _ => return Ok(None),
            },
        };
        proxy.clone().map(Some)
    }

    /// What a request to an `http` target has to carry for its proxy.
    pub(super) fn authorization(&self, url: &Url) -> Option<HeaderValue> {
        if url.scheme() != "http" {
            return None;
        }
        let proxy = self.choose(false, url.host_str()?, url.port_or_known_default()?).ok()??;
        proxy.authorization().cloned()
    }

    /// The headers of a CONNECT request to `proxy`.
    pub(super) fn connect_headers(&self, proxy: &Proxy) -> Result<Vec<(HeaderName, HeaderValue)>, Failure> {
        if let Some(failure) = &self.wrong_header {
            return Err(failure.clone());
        }
        let mut headers = self.connect_headers.clone();
        if let Some(authorization) = proxy.authorization() {
            headers.retain(|(name, _)| *name != PROXY_AUTHORIZATION);
            headers.push((PROXY_AUTHORIZATION, authorization.clone()));
        }
        Ok(headers)
    }
}

fn header(name: &str, value: &str) -> Result<(HeaderName, HeaderValue), Failure> {
    let value = sensitive(name, value.as_bytes())?;
    let name = HeaderName::from_bytes(name.as_bytes())
        .map_err(|_| Failure::Other(format!("net/http: invalid header field name {}", go::quote(name))))?;
    Ok((name, value))
}

/// A proxy that may be given as `host:port` alone; what is no URL either way means none, as in Go.
fn parse_loosely(text: &str, field: &str) -> Option<Result<Arc<Proxy>, Failure>> {
    if text.is_empty() {
        return None;
    }
    let has_host = Url::parse(text).is_ok_and(|url| url.host_str().is_some_and(|host| !host.is_empty()));
    if has_host {
        return Some(Proxy::parse(text, field));
    }
    Proxy::parse(&format!("http://{text}"), field).ok().map(Ok)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::url::ConfigUrl;

    fn rules(url: &str, no_proxy: &str) -> ProxyRules {
        let config = ProxyConfig {
            proxy_url: ConfigUrl::parse(url).unwrap(),
            no_proxy: no_proxy.to_owned(),
            ..ProxyConfig::default()
        };
        ProxyRules::new(&config, &ProxyEnvironment::default())
    }

    fn chosen(rules: &ProxyRules, url: &str) -> String {
        let url = Url::parse(url).unwrap();
        match rules.choose(url.scheme() == "https", url.host_str().unwrap(), url.port_or_known_default().unwrap()) {
            Ok(None) => "none".to_owned(),
            Ok(Some(proxy)) => format!("{:?} {}:{}", proxy.kind, proxy.host, proxy.port),
            Err(failure) => failure.to_string(),
        }
    }

    #[test]
    fn a_proxy_url_alone_holds_for_localhost_too() {
        let always = rules("http://proxy:3128", "");
        assert_eq!(chosen(&always, "http://localhost:1/"), "Http proxy:3128");
        assert_eq!(chosen(&always, "https://host/"), "Http proxy:3128");
        let except = rules("https://proxy", "example.com");
        assert_eq!(chosen(&except, "http://localhost:1/"), "none");
        assert_eq!(chosen(&except, "http://a.example.com/"), "none");
        assert_eq!(chosen(&except, "http://host/"), "Https proxy:443");
        assert_eq!(chosen(&rules("", ""), "http://host/"), "none");
    }

    #[test]
    fn schemes_have_their_ports() {
        assert_eq!(chosen(&rules("http://p", ""), "http://h/"), "Http p:80");
        assert_eq!(chosen(&rules("socks5://p", ""), "http://h/"), "Socks p:1080");
        assert_eq!(chosen(&rules("socks5h://p:1", ""), "http://h/"), "Socks p:1");
        assert_eq!(chosen(&rules("http://[::1]:1", ""), "http://h/"), "Http [::1]:1");
        assert_eq!(chosen(&rules("ftp://p", ""), "http://h/"), "proxy_url: unsupported proxy scheme \"ftp\"");
        assert_eq!(chosen(&rules("proxy:80", ""), "http://h/"), "proxy_url: unsupported proxy scheme \"proxy\"");
        assert_eq!(chosen(&rules("proxy:80", "x"), "http://h/"), "Http proxy:80");
    }

    #[test]
    fn the_environment_is_read_as_in_go() {
        let config = ProxyConfig { proxy_from_environment: true, ..ProxyConfig::default() };
        let with = |variables: &[(&str, &str)]| {
            let of = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
            ProxyRules::new(&config, &ProxyEnvironment::of(of))
        };
        let both = with(&[("http_proxy", "plain:1"), ("HTTPS_PROXY", "https://tls:2"), ("no_proxy", "not.here")]);
        assert_eq!(chosen(&both, "http://h/"), "Http plain:1");
        assert_eq!(chosen(&both, "https://h/"), "Https tls:2");
        assert_eq!(chosen(&both, "https://not.here/"), "none");
        assert_eq!(chosen(&both, "https://127.0.0.1/"), "none");
        let large = with(&[("http_proxy", "small:1"), ("HTTP_PROXY", "large:1"), ("https_proxy", "")]);
        assert_eq!(chosen(&large, "http://h/"), "Http large:1");
        assert_eq!(chosen(&large, "https://h/"), "none");
        let cgi = with(&[("HTTP_PROXY", "p:1"), ("REQUEST_METHOD", "GET")]);
        assert!(chosen(&cgi, "http://h/").starts_with("refusing to use HTTP_PROXY value in CGI environment"));
    }

    #[test]
    fn errors_do_not_show_the_url() {
        for url in ["ftp://me:hunter2@p", "http://me:hunter2@"] {
            let Ok(config) = ConfigUrl::parse(url) else { continue };
            let rules = ProxyRules::new(
                &ProxyConfig { proxy_url: config, ..ProxyConfig::default() },
                &ProxyEnvironment::default(),
            );
            let text = chosen(&rules, "http://h/");
            assert!(text.starts_with("proxy_url: ") && !text.contains("hunter2"), "{text}");
        }
    }
}
