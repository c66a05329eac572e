//! What to do without a configuration file: when none is named and none lies here, a built-in one is used.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use crate::model::go;

/// The built-in configuration.
pub const DEFAULT_CONFIG: &str = include_str!("../../config/default.yml");
/// Name and content of the rule file that it names.
pub const RULES: (&str, &str) = ("default.rules.yml", include_str!("../../config/default.rules.yml"));
/// Where the server listens with the built-in configuration.
pub const DEFAULT_LISTEN_ADDRESS: &str = "127.0.0.1:9090";

const DEFAULT_FILE: &str = "prometheus.yml";

/// Where the configuration comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigSource {
    /// A file, which may turn out to be missing.
    File(PathBuf),
    /// [`DEFAULT_CONFIG`].
    BuiltIn,
}

/// Picks the configuration: a file that is named is used; else `./prometheus.yml` if it exists or if the program is called
/// `prometheus`; else the built-in one.
pub fn config_source(named: Option<&str>, program: &str, exists: &dyn Fn(&Path) -> bool) -> ConfigSource {
    match named {
        Some(path) => ConfigSource::File(PathBuf::from(path)),
        None if program == "prometheus" || exists(Path::new(DEFAULT_FILE)) => {
            ConfigSource::File(PathBuf::from(DEFAULT_FILE))
        }
        None => ConfigSource::BuiltIn,
    }
}

/// The built-in configuration for a server that listens on `own` below `route_prefix`, so that it scrapes itself
/// wherever flags have put it.
pub fn config_text(own: SocketAddr, route_prefix: &str) -> String {
    let reachable = match own.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => SocketAddr::new(Ipv4Addr::LOCALHOST.into(), own.port()),
        IpAddr::V6(ip) if ip.is_unspecified() => SocketAddr::new(Ipv6Addr::LOCALHOST.into(), own.port()),
        _ => own,
    };
    let text = DEFAULT_CONFIG.replace(DEFAULT_LISTEN_ADDRESS, &reachable.to_string());
    if route_prefix == "/" {
        return text;
    }
    let path = format!("    metrics_path: {}\n    static_configs:", go::quote(&format!("{route_prefix}/metrics")));
    text.replace("    static_configs:", &path)
}

/// The first line on the terminal of a server that runs bare: where it is, where its data is, what it watches.
pub fn banner(url: &str, data: &Path) -> String {
    format!(
        "Watchfire listens on {url}, keeps its data in {} and uses its built-in configuration \
         (--print-default-config shows it).",
        data.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_file_is_used_even_if_missing() {
        let file = |path: &str| ConfigSource::File(PathBuf::from(path));
        assert_eq!(config_source(Some("x.yml"), "watchfire", &|_| false), file("x.yml"));
        assert_eq!(
            config_source(None, "watchfire", &|path| path == Path::new("prometheus.yml")),
            file("prometheus.yml")
        );
        assert_eq!(config_source(None, "prometheus", &|_| false), file("prometheus.yml"));
        assert_eq!(config_source(None, "watchfire", &|_| false), ConfigSource::BuiltIn);
    }

    #[test]
    fn the_built_in_configuration_follows_the_flags() {
        let target = |own: &str, prefix: &str| {
            let text = config_text(own.parse().unwrap(), prefix);
            let config: serde_yaml::Value = serde_yaml::from_str(&text).unwrap();
            let job = &config["scrape_configs"][0];
            let target = job["static_configs"][0]["targets"][0].as_str().unwrap().to_owned();
            (target, job["metrics_path"].as_str().map(str::to_owned))
        };
        assert_eq!(target("127.0.0.1:9090", "/"), ("127.0.0.1:9090".to_owned(), None));
        assert_eq!(target("0.0.0.0:81", "/"), ("127.0.0.1:81".to_owned(), None));
        assert_eq!(target("[::]:81", "/p"), ("[::1]:81".to_owned(), Some("/p/metrics".to_owned())));
        assert!(banner("http://127.0.0.1:9090", Path::new("data/")).contains("keeps its data in data/ and"));
    }

    #[test]
    fn the_built_in_files_are_yaml() {
        for text in [DEFAULT_CONFIG, RULES.1] {
            serde_yaml::from_str::<serde_yaml::Value>(text).unwrap();
        }
    }
}
