//! `scrape_configs`: the jobs.

use std::collections::BTreeMap;

use super::discovery::DiscoveryConfigs;
use super::global::GlobalConfig;
use super::http_client::HttpClientConfig;
use super::names::ValidationScheme;
use super::path::FilePath;
use super::protocol::{self, ScrapeProtocol};
use super::relabel::RelabelConfig;
use super::size::ByteSize;
use super::yaml::block::{Preset, block};
use crate::model::duration::PromDuration;
use crate::model::go;

const ESCAPING_SCHEMES: [&str; 4] = ["allow-utf-8", "underscores", "dots", "values"];

block! {
    /// One job: where its targets are found and how they are scraped.
    pub struct ScrapeConfig("*config.ScrapeConfig", "config.ScrapeConfig") {
        /// Value of the `job` label; unique.
        pub job_name: String = "job_name", always;
        /// Labels of the target win over those of the server.
        pub honor_labels: bool = "honor_labels", omitempty;
        /// Time stamps of the target are kept; on unless set.
        pub honor_timestamps: bool = "honor_timestamps", always;
        /// Stale markers for series with time stamps of their own.
        pub track_timestamps_staleness: bool = "track_timestamps_staleness", always;
        /// Parameters of the request.
        pub params: BTreeMap<String, Vec<String>> = "params", omitempty;
        /// Time between scrapes.
        pub scrape_interval: PromDuration = "scrape_interval", omitempty;
        /// Longest time for a scrape.
        pub scrape_timeout: PromDuration = "scrape_timeout", omitempty;
        /// Formats asked for, best first; always set after loading.
        pub scrape_protocols: Option<Vec<ScrapeProtocol>> = "scrape_protocols", omitempty;
        /// Format that is assumed if the target names none.
        pub fallback_scrape_protocol: ScrapeProtocol = "fallback_scrape_protocol", omitempty;
        /// Scrapes native histograms.
        pub scrape_native_histograms: Option<bool> = "scrape_native_histograms", omitempty;
        /// Scrapes classic histograms beside native ones.
        pub always_scrape_classic_histograms: Option<bool> = "always_scrape_classic_histograms", omitempty;
        /// Turns classic histograms into native ones with custom buckets.
        pub convert_classic_histograms_to_nhcb: Option<bool> = "convert_classic_histograms_to_nhcb", omitempty;
        /// Log of failed scrapes.
        pub scrape_failure_log_file: FilePath = "scrape_failure_log_file", omitempty;
        /// Path of the request; `/metrics` unless set.
        pub metrics_path: String = "metrics_path", omitempty;
        /// `http` or `https`; `http` unless set.
        pub scheme: String = "scheme", omitempty;
        /// Asks for a compressed response; on unless set.
        pub enable_compression: bool = "enable_compression", always;
        /// Largest response, uncompressed; 0 for no limit.
        pub body_size_limit: ByteSize = "body_size_limit", omitempty;
        /// Most samples per scrape; 0 for no limit.
        pub sample_limit: u64 = "sample_limit", omitempty;
        /// Most targets; 0 for no limit.
        pub target_limit: u64 = "target_limit", omitempty;
        /// Most labels per sample; 0 for no limit.
        pub label_limit: u64 = "label_limit", omitempty;
        /// Longest label name; 0 for no limit.
        pub label_name_length_limit: u64 = "label_name_length_limit", omitempty;
        /// Longest label value; 0 for no limit.
        pub label_value_length_limit: u64 = "label_value_length_limit", omitempty;
        /// Most buckets of a native histogram; 0 for no limit.
        pub native_histogram_bucket_limit: u64 = "native_histogram_bucket_limit", omitempty;
        /// Least growth from bucket to bucket of a native histogram; 0 for any.
        pub native_histogram_min_bucket_factor: f64 = "native_histogram_min_bucket_factor", omitempty;
        /// Most dropped targets remembered; 0 for no limit.
        pub keep_dropped_targets: u64 = "keep_dropped_targets", omitempty;
        /// Which names are valid; always set after loading.
        pub metric_name_validation_scheme: ValidationScheme = "metric_name_validation_scheme", omitempty;
        /// How the target is asked to escape names; always set after loading.
        pub metric_name_escaping_scheme: String = "metric_name_escaping_scheme", omitempty;
        /// Stores further samples about each scrape.
        pub extra_scrape_metrics: Option<bool> = "extra_scrape_metrics", omitempty;
        /// The HTTP client.
        pub http: HttpClientConfig = "", inline;
        /// Rules that make targets from what discovery found.
        pub relabel_configs: Vec<RelabelConfig> = "relabel_configs", omitempty;
        /// Rules for each scraped sample.
        pub metric_relabel_configs: Vec<RelabelConfig> = "metric_relabel_configs", omitempty;
        /// Where targets are found.
        pub discovery: DiscoveryConfigs = "", inline;
    }
}

block! {
    /// The content of a file named by `scrape_config_files`.
    pub(super) struct ScrapeConfigFile("config.ScrapeConfigs") {
        pub(super) scrape_configs: Vec<ScrapeConfig> = "scrape_configs", omitempty;
    }
}

impl Preset for ScrapeConfig {
    fn preset() -> Self {
        Self {
            metrics_path: "/metrics".to_owned(),
            scheme: "http".to_owned(),
            honor_timestamps: true,
            enable_compression: true,
            http: HttpClientConfig::preset(),
            ..Self::default()
        }
    }

    fn check(&mut self) -> Result<(), String> {
        self.discovery.check()?;
        if self.job_name.is_empty() {
            return Err("job_name is empty".to_owned());
        }
        self.http.check()?;
        if self.relabel_configs.is_empty() {
            self.discovery.check_static_targets()?;
        }
        let null = RelabelConfig::default();
        if self.relabel_configs.contains(&null) {
            return Err("empty or null target relabeling rule in scrape config".to_owned());
        }
        if self.metric_relabel_configs.contains(&null) {
            return Err("empty or null metric relabeling rule in scrape config".to_owned());
        }
        Ok(())
    }
}

impl ScrapeConfig {
    /// Fills in what the global block says, and checks the result.
    pub(super) fn validate(&mut self, global: &GlobalConfig) -> Result<(), String> {
        if *self == Self::default() {
            return Err("empty or null scrape config section".to_owned());
        }
        let job = go::quote(&self.job_name);
        if self.scrape_interval.is_zero() {
            self.scrape_interval = global.scrape_interval;
        }
        if self.scrape_timeout > self.scrape_interval {
            return Err(format!("scrape timeout greater than scrape interval for scrape config with job name {job}"));
        }
        if self.scrape_timeout.is_zero() {
            self.scrape_timeout = global.scrape_timeout.min(self.scrape_interval);
        }
        self.inherit_limits(global);
        self.scrape_native_histograms = self.scrape_native_histograms.or(global.scrape_native_histograms);
        self.extra_scrape_metrics = self.extra_scrape_metrics.or(global.extra_scrape_metrics);
        let native = self.scrape_native_histograms == Some(true);
        let protocols = self.scrape_protocols.get_or_insert_with(|| match &global.scrape_protocols {
            Some(protocols) => protocols.clone(),
            None if native => ScrapeProtocol::proto_first_list(),
            None => ScrapeProtocol::default_list(),
        });
        protocol::check_list(protocols).map_err(|e| format!("{e} for scrape config with job name {job}"))?;
        if !self.fallback_scrape_protocol.as_str().is_empty() {
            self.fallback_scrape_protocol
                .check()
                .map_err(|e| format!("invalid fallback_scrape_protocol for scrape config with job name {job}: {e}"))?;
        }
        self.choose_schemes(global)?;
        self.convert_classic_histograms_to_nhcb.get_or_insert(global.convert_classic_histograms_to_nhcb);
        self.always_scrape_classic_histograms.get_or_insert(global.always_scrape_classic_histograms);
        let scheme = self.metric_name_validation_scheme;
        let rules = self.relabel_configs.iter_mut().chain(&mut self.metric_relabel_configs);
        rules.into_iter().try_for_each(|rule| rule.validate(scheme))
    }

    fn inherit_limits(&mut self, global: &GlobalConfig) {
        let inherit = |own: &mut u64, global: u64| {
            if *own == 0 {
                *own = global;
            }
        };
        inherit(&mut self.sample_limit, global.sample_limit);
        inherit(&mut self.target_limit, global.target_limit);
        inherit(&mut self.label_limit, global.label_limit);
        inherit(&mut self.label_name_length_limit, global.label_name_length_limit);
        inherit(&mut self.label_value_length_limit, global.label_value_length_limit);
        inherit(&mut self.keep_dropped_targets, global.keep_dropped_targets);
        if self.body_size_limit == ByteSize::default() {
            self.body_size_limit = global.body_size_limit;
        }
        if self.scrape_failure_log_file.is_empty() {
            self.scrape_failure_log_file = global.scrape_failure_log_file.clone();
        }
    }

    fn choose_schemes(&mut self, global: &GlobalConfig) -> Result<(), String> {
        let of_scheme = |scheme: ValidationScheme| match scheme {
            ValidationScheme::Legacy => "underscores",
            ValidationScheme::Utf8 | ValidationScheme::Unset => "allow-utf-8",
        };
        let unknown = |whose: &str, name: &str| {
            format!(
                "unknown {whose} name escaping method specified, must be one of 'allow-utf-8', 'underscores', 'dots', \
                 or 'values', got {}",
                go::quote(name)
            )
        };
        let inherits = self.metric_name_validation_scheme == ValidationScheme::Unset;
        if inherits {
            self.metric_name_validation_scheme = global.metric_name_validation_scheme;
        }
        let global_escaping = match global.metric_name_escaping_scheme.as_str() {
            "" => of_scheme(global.metric_name_validation_scheme),
            name if ESCAPING_SCHEMES.contains(&name) => name,
            name => return Err(unknown("global", name)),
        };
        if self.metric_name_escaping_scheme.is_empty() {
            let escaping = if inherits { global_escaping } else { of_scheme(self.metric_name_validation_scheme) };
            escaping.clone_into(&mut self.metric_name_escaping_scheme);
        }
        match self.metric_name_escaping_scheme.as_str() {
            "allow-utf-8" if self.metric_name_validation_scheme != ValidationScheme::Utf8 => {
                Err("utf8 metric names requested but validation scheme is not set to UTF8".to_owned())
            }
            name if ESCAPING_SCHEMES.contains(&name) => Ok(()),
            name => Err(unknown("scrape config", name)),
        }
    }
}
