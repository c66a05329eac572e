//! Who we are: our own name and version, and the Prometheus version that we are compatible with.
//! Clients choose features by the latter (`buildinfo.version`, `prometheus_build_info`), so both are constants here.

use crate::telemetry::metrics::Registry;

/// The Prometheus release whose behaviour is ours; reported wherever a client looks for Prometheus's version.
pub const COMPATIBLE_VERSION: &str = "3.14.0";
/// Our own version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The revision this was built from, or `unknown`; set `WATCHFIRE_REVISION` when building.
pub const REVISION: &str = match option_env!("WATCHFIRE_REVISION") {
    Some(revision) => revision,
    None => "unknown",
};
/// The branch this was built from, or empty; set `WATCHFIRE_BRANCH` when building.
pub const BRANCH: &str = match option_env!("WATCHFIRE_BRANCH") {
    Some(branch) => branch,
    None => "",
};
/// The language that stands where Prometheus names its Go version.
pub const LANGUAGE: &str = "rust";

/// The operating system as Go names it.
pub fn platform_os() -> &'static str {
    match std::env::consts::OS {
        "macos" => "darwin",
        other => other,
    }
}

/// The processor architecture as Go names it.
pub fn platform_arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        other => other,
    }
}

/// Lines of `--version`, in the shape of Prometheus's, without a final line break.
pub fn version_text(program: &str) -> String {
    format!(
        "{program}, version {VERSION} (branch: {BRANCH}, revision: {REVISION})\n  \
         compatible with:  prometheus {COMPATIBLE_VERSION}\n  \
         language:         {LANGUAGE}\n  \
         platform:         {}/{}",
        platform_os(),
        platform_arch()
    )
}

/// `User-Agent` of every request that we send.
pub fn user_agent() -> String {
    format!("Watchfire/{VERSION} (compatible; Prometheus/{COMPATIBLE_VERSION})")
}

/// Registers `prometheus_build_info` and `watchfire_build_info`, both with the value 1.
pub fn register(registry: &Registry) {
    let labels = [
        ("branch", BRANCH),
        ("goarch", platform_arch()),
        ("goos", platform_os()),
        ("goversion", LANGUAGE),
        ("revision", REVISION),
        ("tags", "unknown"),
        ("version", COMPATIBLE_VERSION),
    ];
    let help = "A metric with a constant '1' value labeled by version, revision, branch, goversion from which \
                prometheus was built, and the goos and goarch for the build.";
    registry.gauge("prometheus_build_info", help, &labels).set(1.0);
    let labels = [("version", VERSION), ("revision", REVISION), ("compatible_with", COMPATIBLE_VERSION)];
    let help = "A metric with a constant '1' value labeled by our own version and the Prometheus version we match.";
    registry.gauge("watchfire_build_info", help, &labels).set(1.0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_see_the_compatible_version() {
        let registry = Registry::default();
        register(&registry);
        let families = registry.gather();
        let info = families.iter().find(|family| family.name == "prometheus_build_info").unwrap();
        assert_eq!(info.metrics[0].0.get("version"), Some("3.14.0"));
        assert!(version_text("watchfire").starts_with("watchfire, version "));
        assert!(user_agent().ends_with("(compatible; Prometheus/3.14.0)"));
    }
}
