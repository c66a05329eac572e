//! Configuration: `prometheus.yml`, the files that it names, and rule files; strict, with Prometheus's defaults, checks
//! and error texts.
//!
//! ```text
//! load_file ─ yaml (text → typed blocks) ─ finish (defaults across blocks, checks) ─ env, paths ─┬─ scrape_config_files
//!                                                                                                 └─ rules (rule_files)
//! inactive ── which settings of a loaded configuration have no effect yet
//! relabel ─── relabelling itself, as the rules are part of the configuration
//! ```
//! One file for each block. [`yaml`] is the only module that knows a YAML library.

pub mod alerting;
pub mod alertmanager;
mod claims;
pub mod discovery;
mod env;
pub mod glob;
pub mod global;
pub mod http_client;
pub mod inactive;
pub mod kubeconfig;
mod load;
pub mod names;
pub mod path;
pub mod protocol;
pub mod relabel;
pub mod remote;
pub mod remote_auth;
pub mod rules;
pub mod scrape;
pub mod size;
pub mod storage;
pub mod target_groups;
pub mod unit_test;
pub mod url;
pub mod web;
mod yaml;

pub use self::alerting::{AlertingConfig, AlertmanagerConfig};
pub use self::global::{GlobalConfig, RuntimeConfig};

pub use self::inactive::{Inactive, Kind as InactiveKind, inactive};
pub use self::load::{ConfigError, FlagDefaults, LoadOptions, LoadedConfig, digest_of, load_file, load_str};
pub use self::names::ValidationScheme;
pub use self::path::FilePath;
pub use self::protocol::ScrapeProtocol;
pub use self::relabel::{Action, RelabelConfig, relabel, relabel_builder};
pub use self::remote::{RemoteReadConfig, RemoteWriteConfig};
pub use self::scrape::ScrapeConfig;
pub use self::size::ByteSize;
pub use self::storage::{OtlpConfig, RetentionConfig, StorageConfig, TracingConfig};
pub use self::target_groups::TargetGroup;
pub use self::yaml::YamlError;

use self::yaml::Yaml as _;
use self::yaml::block::{Preset, block};
use crate::model::go;

block! {
    /// A whole configuration file. Loaded ones are complete: defaults filled in, everything checked.
    pub struct Config("config.Config", "config.plain") {
        /// Values for all jobs and rules.
        pub global: GlobalConfig = "global", always;
        /// Settings of the process.
        pub runtime: RuntimeConfig = "runtime", omitempty;
        /// Where alerts go.
        pub alerting: AlertingConfig = "alerting", omitempty;
        /// Patterns of rule files.
        pub rule_files: Vec<FilePath> = "rule_files", omitempty;
        /// Patterns of files with further jobs.
        pub scrape_config_files: Vec<FilePath> = "scrape_config_files", omitempty;
        /// The jobs of this file.
        pub scrape_configs: Vec<ScrapeConfig> = "scrape_configs", omitempty;
        /// Settings of storage.
        pub storage: StorageConfig = "storage", omitempty;
        /// Where traces of the server go.
        pub tracing: TracingConfig = "tracing", omitempty;
        /// Remote storages that are written to.
        pub remote_write: Vec<RemoteWriteConfig> = "remote_write", omitempty;
        /// Remote storages that are read from.
        pub remote_read: Vec<RemoteReadConfig> = "remote_read", omitempty;
        /// OTLP.
        pub otlp: OtlpConfig = "otlp", omitempty;
    }
}

impl Preset for Config {
    fn preset() -> Self {
        Self {
            global: GlobalConfig::without_block(),
            runtime: RuntimeConfig { gogc: default_gogc() },
            otlp: OtlpConfig::preset(),
            ..Self::default()
        }
    }
}

/// Something wrong with a value that lies at `path`.
struct Problem {
    message: String,
    path: Vec<String>,
}

impl Problem {
    fn at(path: &[&str]) -> impl FnOnce(String) -> Self + use<> {
        let path = path.iter().map(|step| (*step).to_owned()).collect();
        move |message| Self { message, path }
    }
}

impl Config {
    /// The configuration as YAML with defaults filled in and secrets replaced, as `/api/v1/status/config` shows it.
    pub fn to_yaml(&self) -> String {
        self.encode().to_yaml()
    }

    /// What is deleted when; flags count where the file says nothing.
    pub fn retention(&self) -> RetentionConfig {
        self.storage.tsdb.as_ref().and_then(|tsdb| tsdb.retention.clone()).unwrap_or_default()
    }

    /// One job as YAML, secrets replaced.
    pub fn job_to_yaml(job: &ScrapeConfig) -> String {
        job.encode().to_yaml()
    }

    /// Fills in what depends on other blocks, and checks across blocks.
    fn finish(&mut self, defaults: &FlagDefaults) -> Result<(), Problem> {
        if self.global.is_zero() {
            self.global = GlobalConfig::without_block();
        }
        if self.runtime.is_zero() {
            self.runtime.gogc = default_gogc();
        }
        let retention = RetentionConfig {
            time: defaults.retention_time,
            size: defaults.retention_size,
            ..RetentionConfig::default()
        };
        self.storage.complete(retention);
        self.global.scrape_native_histograms.get_or_insert(defaults.scrape_native_histograms);
        self.global.extra_scrape_metrics.get_or_insert(defaults.extra_scrape_metrics);
        if self.global.scrape_protocols.is_none() && defaults.proto_first {
            self.global.scrape_protocols = Some(ScrapeProtocol::proto_first_list());
        }
        check_patterns(&self.rule_files, "rule").map_err(Problem::at(&["rule_files"]))?;
        check_patterns(&self.scrape_config_files, "scrape config").map_err(Problem::at(&["scrape_config_files"]))?;
        self.finish_jobs()?;
        let scheme = self.global.metric_name_validation_scheme;
        self.alerting.validate(scheme).map_err(Problem::at(&["alerting"]))?;
        self.finish_remote(scheme)
    }

    fn finish_jobs(&mut self) -> Result<(), Problem> {
        let mut names: Vec<String> = Vec::new();
        for (index, job) in self.scrape_configs.iter_mut().enumerate() {
            let index = index.to_string();
            let path = ["scrape_configs", index.as_str()];
            job.validate(&self.global).map_err(Problem::at(&path))?;
            if names.contains(&job.job_name) {
                let message = format!("found multiple scrape configs with job name {}", go::quote(&job.job_name));
                return Err(Problem::at(&path)(message));
            }
            names.push(job.job_name.clone());
        }
        Ok(())
    }

    fn finish_remote(&mut self, scheme: ValidationScheme) -> Result<(), Problem> {
        let mut names: Vec<String> = Vec::new();
        for (index, remote) in self.remote_write.iter_mut().enumerate() {
            let index = index.to_string();
            let path = ["remote_write", index.as_str()];
            if *remote == RemoteWriteConfig::default() {
                return Err(Problem::at(&path)("empty or null remote write config section".to_owned()));
            }
            if !remote.name.is_empty() && names.contains(&remote.name) {
                let name = go::quote(&remote.name);
                return Err(Problem::at(&path)(format!("found multiple remote write configs with job name {name}")));
            }
            remote.validate(scheme).map_err(Problem::at(&path))?;
            names.push(remote.name.clone());
        }
        names.clear();
        for (index, remote) in self.remote_read.iter().enumerate() {
            let index = index.to_string();
            let path = ["remote_read", index.as_str()];
            if *remote == RemoteReadConfig::default() {
                return Err(Problem::at(&path)("empty or null remote read config section".to_owned()));
            }
            if !remote.name.is_empty() && names.contains(&remote.name) {
                let name = go::quote(&remote.name);
                return Err(Problem::at(&path)(format!("found multiple remote read configs with job name {name}")));
            }
            names.push(remote.name.clone());
        }
        Ok(())
    }
}

/// Errors for a star before the last element of a path.
fn check_patterns(patterns: &[FilePath], what: &str) -> Result<(), String> {
    match patterns.iter().find(|pattern| pattern.split_once('*').is_some_and(|(_, after)| after.contains('/'))) {
        Some(pattern) => Err(format!("invalid {what} file path {}", go::quote(pattern))),
        None => Ok(()),
    }
}

/// What Go's environment variable says, else Prometheus's default.
fn default_gogc() -> i64 {
    match std::env::var("GOGC") {
        Ok(value) if value.eq_ignore_ascii_case("off") => -1,
        Ok(value) => value.parse().unwrap_or(75),
        Err(_) => 75,
    }
}
