//! Cross-origin headers of API answers, as Prometheus sends them; and which requests browsers send on behalf of other sites.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::model::regexp::Regexp;

/// Headers for a request from `origin`, if it names one. An origin that does not match gets no permission.
pub(super) fn headers(allowed: &Regexp, origin: Option<&str>) -> Vec<(&'static str, String)> {
    let mut headers = vec![("Vary", "Origin".to_owned())];
    let Some(origin) = origin.filter(|origin| !origin.is_empty()) else { return headers };
    for (name, value) in [
        ("Access-Control-Allow-Headers", "Accept, Authorization, Content-Type, Origin"),
        ("Access-Control-Allow-Methods", "GET, POST, OPTIONS"),
        ("Access-Control-Expose-Headers", "Date"),
    ] {
        headers.push((name, value.to_owned()));
    }
    if allowed.is_match(origin) {
        headers.push(("Access-Control-Allow-Origin", origin.to_owned()));
    }
    headers
}

/// What a browser tells of where a request comes from.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Source<'a> {
    /// `Sec-Fetch-Site`.
    pub(super) fetch_site: Option<&'a str>,
    /// `Origin`.
    pub(super) origin: Option<&'a str>,
    /// `Host`.
    pub(super) host: Option<&'a str>,
}

/// Whether a page of another site has had a browser send a request: a form of it needs nobody's permission. Sites that
/// `allowed` names are none of these, unless it names all. Programs that are no browsers tell nothing of all this.
pub(super) fn is_foreign(allowed: &Regexp, source: Source<'_>) -> bool {
    let own = match (source.fetch_site, source.origin) {
        (Some(site), _) => matches!(site, "same-origin" | "none"),
        (None, None) => true,
        (None, Some(origin)) => origin.split_once("://").map(|(_, host)| host) == source.host,
    };
    let names_all = || allowed.is_match("https://any.invalid");
    !own && !source.origin.is_some_and(|origin| allowed.is_match(origin) && !names_all())
}

/// Whether a server of those names may be asked for by this one, with or without a port. Addresses and `localhost` always may: what
/// keeps pages away whose own name was made to point here is that they have a name.
pub(super) fn is_own_host(names: &Regexp, asked: &str) -> bool {
    let asked = asked.rsplit_once('@').map_or(asked, |(_, host)| host);
    if let Some(address) = asked.strip_prefix('[') {
        return address.split_once(']').is_some_and(|(address, _)| address.parse::<Ipv6Addr>().is_ok());
    }
    let name = asked.split_once(':').map_or(asked, |(name, _)| name);
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    name == "localhost" || name.parse::<Ipv4Addr>().is_ok() || names.is_match(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_names_are_addresses_and_those_that_are_given() {
        let names = Regexp::anchored("prom\\.example|vm").unwrap();
        for own in [
            "prom.example",
            "PROM.example:9090",
            "vm",
            "vm.:80",
            "10.0.0.1:9090",
            "[::1]:9090",
            "[fe80::1]",
            "localhost:1",
        ] {
            assert!(is_own_host(&names, own), "{own}");
        }
        for other in
            ["evil.example", "prom.example.evil", "xvm", "", "[::1", "[vm]", "vm@evil", "127.0.0.1.evil.example", "1"]
        {
            assert!(!is_own_host(&names, other), "{other}");
        }
    }

    fn allowed(pattern: &str, origin: Option<&str>) -> Option<String> {
        let headers = headers(&Regexp::anchored(pattern).unwrap(), origin);
        assert_eq!(headers[0], ("Vary", "Origin".to_owned()));
        headers.into_iter().find(|(name, _)| *name == "Access-Control-Allow-Origin").map(|(_, value)| value)
    }

    #[test]
    fn matching_origins_are_echoed() {
        assert_eq!(allowed(".*", Some("http://x")).as_deref(), Some("http://x"));
        assert_eq!(allowed("https?://(a|b)\\.com", Some("https://a.com")).as_deref(), Some("https://a.com"));
        assert_eq!(allowed("https?://(a|b)\\.com", Some("https://a.com.evil.org")), None);
        assert_eq!(allowed(".*", None), None);
    }

    #[test]
    fn requests_on_behalf_of_other_sites_are_told() {
        for (fetch_site, origin, all, some) in [
            (None, None, false, false),
            (None, Some("http://here:9090"), false, false),
            (None, Some("http://here:9091"), true, true),
            (None, Some("http://a.com"), true, false),
            (None, Some("null"), true, true),
            (Some("same-origin"), Some("http://here:9090"), false, false),
            (Some("none"), None, false, false),
            (Some("same-site"), Some("http://here:9091"), true, true),
            (Some("cross-site"), Some("http://a.com"), true, false),
            (Some("cross-site"), None, true, true),
        ] {
            let source = Source { fetch_site, origin, host: Some("here:9090") };
            let foreign = |pattern| is_foreign(&Regexp::anchored(pattern).unwrap(), source);
            assert_eq!((foreign(".*"), foreign("http://(a|b)\\.com")), (all, some), "{source:?}");
        }
    }
}
