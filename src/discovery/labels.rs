//! Label names and addresses as Prometheus's discovery writes them.

use std::fmt::Display;
use std::net::Ipv6Addr;

use crate::model::labels::LabelsBuilder;

/// A label name made of any text: what no name may hold becomes `_`.
pub(super) fn sanitize(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '_' }).collect()
}

/// `host:port`, with brackets around a host that has colons.
pub(super) fn host_port(host: &str, port: impl Display) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// An address of version 6 as Go prints it: one that stands for an address of version 4 is printed like that.
pub(super) fn ipv6_text(address: Ipv6Addr) -> String {
    address.to_ipv4_mapped().map_or_else(|| address.to_string(), |mapped| mapped.to_string())
}

/// Sets a label for each pair, its name being `prefix` and the pair's sanitised name.
pub(super) fn set_each<'a>(
    labels: &mut LabelsBuilder,
    prefix: &str,
    pairs: impl IntoIterator<Item = (&'a String, &'a String)>,
) {
    for (name, value) in pairs {
        labels.set(&format!("{prefix}{}", sanitize(name)), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses_are_those_of_prometheus() {
        assert_eq!(sanitize("app.kubernetes.io/näme_1"), "app_kubernetes_io_n_me_1");
        assert_eq!(host_port("h", 80), "h:80");
        assert_eq!(host_port("::1", "80"), "[::1]:80");
        assert_eq!(ipv6_text("::ffff:1.2.3.4".parse().unwrap()), "1.2.3.4");
        assert_eq!(ipv6_text("2001:db8::1".parse().unwrap()), "2001:db8::1");
    }
}
