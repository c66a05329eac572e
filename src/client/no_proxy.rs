//! Which hosts are asked without a proxy: the rules of `no_proxy` and `NO_PROXY`, as Go's `httpproxy` has them.

use std::net::IpAddr;

/// A parsed list. Entries that mean nothing are passed over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct NoProxy {
    all: bool,
    nets: Vec<(IpAddr, u8)>,
    addresses: Vec<(IpAddr, Option<String>)>,
    domains: Vec<Domain>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Domain {
    /// With its leading dot.
    suffix: String,
    port: Option<String>,
    /// Whether the name itself matches, beside those below it.
    itself: bool,
}

impl NoProxy {
    /// Reads a list of `*`, networks, addresses and names, the latter two perhaps with a port, parted by commas.
    pub(super) fn parse(list: &str) -> Self {
        let mut rules = Self::default();
        for entry in list.split(',') {
            let entry = entry.trim().to_lowercase();
            if entry == "*" {
                return Self { all: true, ..Self::default() };
            }
            rules.add(&entry);
        }
        rules
    }

    fn add(&mut self, entry: &str) {
        if let Some(net) = network(entry) {
            return self.nets.push(net);
        }
        let (host, port) = match split_port(entry) {
            Some((host, port)) => (host, Some(port).filter(|port| !port.is_empty())),
            None => (entry, None),
        };
        let port = port.map(str::to_owned);
        if host.is_empty() {
            return;
        }
        if let Ok(address) = host.parse::<IpAddr>() {
            return self.addresses.push((address.to_canonical(), port));
        }
        let host = if host.starts_with("*.") { host.trim_start_matches('*') } else { host };
        let (name, itself) = host.strip_prefix('.').map_or((host, true), |name| (name, false));
        let name = match url::Host::parse(name) {
            Ok(url::Host::Domain(ascii)) if !name.is_ascii() => ascii,
            _ => name.to_owned(),
        };
        self.domains.push(Domain { suffix: format!(".{name}"), port, itself });
    }

    /// Whether the host, an address or a name in lower case, is asked directly. `localhost` and loopback addresses always are.
    pub(super) fn covers(&self, host: &str, port: u16) -> bool {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if host == "localhost" {
            return true;
        }
        let port = port.to_string();
        let has_port = |wanted: &Option<String>| wanted.as_ref().is_none_or(|wanted| *wanted == port);
        match host.parse::<IpAddr>().map(|address| address.to_canonical()) {
            Ok(address) => {
                address.is_loopback()
                    || self.all
                    || self.nets.iter().any(|(net, bits)| contains(*net, *bits, address))
                    || self.addresses.iter().any(|(one, wanted)| *one == address && has_port(wanted))
            }
            Err(_) => {
                let is_below = |domain: &Domain| {
                    host.ends_with(&domain.suffix) || domain.itself && domain.suffix.strip_prefix('.') == Some(host)
                };
                self.all || self.domains.iter().any(|domain| is_below(domain) && has_port(&domain.port))
            }
        }
    }
}

/// `10.0.0.0/8`; an address of version 4 within version 6 counts as version 4.
fn network(text: &str) -> Option<(IpAddr, u8)> {
    let (address, bits) = text.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    let bits: u8 = bits.parse().ok().filter(|_| bits.bytes().all(|byte| byte.is_ascii_digit()))?;
    let width = if address.is_ipv4() { 32 } else { 128 };
    (bits <= width).then_some((address, bits))
}

fn contains(net: IpAddr, bits: u8, address: IpAddr) -> bool {
    match (net, address) {
        (IpAddr::V4(net), IpAddr::V4(address)) => {
            let differing = net.to_bits() ^ address.to_bits();
            differing.checked_shr(32 - u32::from(bits)).unwrap_or(0) == 0
        }
        (IpAddr::V6(net), IpAddr::V6(address)) => {
            let differing = net.to_bits() ^ address.to_bits();
            differing.checked_shr(128 - u32::from(bits)).unwrap_or(0) == 0
        }
        _ => false,
    }
}

/// Host without brackets, and port; `None` for a text that has no port.
fn split_port(text: &str) -> Option<(&str, &str)> {
    if let Some(rest) = text.strip_prefix('[') {
        let (host, after) = rest.split_once(']')?;
        return after.strip_prefix(':').filter(|port| !port.contains(':')).map(|port| (host, port));
    }
    text.split_once(':').filter(|(_, port)| !port.contains(':'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(list: &str, direct: &[(&str, u16)], by_proxy: &[(&str, u16)]) {
        let rules = NoProxy::parse(list);
        for (host, port) in direct {
            assert!(rules.covers(host, *port), "{list}: {host}:{port} is asked directly");
        }
        for (host, port) in by_proxy {
            assert!(!rules.covers(host, *port), "{list}: {host}:{port} is asked by the proxy");
        }
    }

    /// What is expected is what Go's `httpproxy` answers.
    #[test]
    fn rules_are_those_of_go() {
        let own = [("localhost", 1), ("127.0.0.1", 1), ("127.9.9.9", 80), ("[::1]", 1)];
        check("", &own, &[("example.com", 80), ("10.0.0.1", 80), ("localhost.example.com", 80)]);
        check("*", &[("example.com", 80), ("10.0.0.1", 80)], &[]);
        check("a, *", &[("example.com", 80)], &[]);
        check(
            " Foo.com ,,.sub.org,*.star.net:8080,:80",
            &[("foo.com", 80), ("bar.foo.com", 1), ("x.sub.org", 1), ("x.star.net", 8080)],
            &[("barfoo.com", 80), ("sub.org", 80), ("star.net", 8080), ("x.star.net", 80), ("10.0.0.1", 80)],
        );
        check(
            "10.0.0.0/8, 192.168.1.1:9090, 192.168.1.2, [fe80::1]:80, fe80::2, 2001:db8::/32",
            &[
                ("10.1.2.3", 80),
                ("192.168.1.1", 9090),
                ("192.168.1.2", 1),
                ("[fe80::1]", 80),
                ("[fe80::2]", 7),
                ("[2001:db8::5]", 7),
                ("[::ffff:10.0.0.1]", 7),
            ],
            &[("11.0.0.1", 80), ("192.168.1.1", 80), ("[fe80::1]", 81), ("[2001:db9::1]", 1), ("10.example.com", 1)],
        );
        check("0.0.0.0/0", &[("8.8.8.8", 1)], &[("[2001::1]", 1), ("example.com", 1)]);
        check("bücher.example", &[("xn--bcher-kva.example", 80), ("a.xn--bcher-kva.example", 80)], &[]);
        check("10.0.0.0/33,10.0.0.0/+8", &[], &[("10.0.0.1", 80)]);
    }
}
