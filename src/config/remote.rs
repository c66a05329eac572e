//! The `remote_write` and `remote_read` blocks.

use std::collections::BTreeMap;

use super::http_client::HttpClientConfig;
use super::names::{LabelSet, ValidationScheme};
use super::relabel::RelabelConfig;
use super::remote_auth::{AzureAdConfig, GoogleIamConfig, SigV4Config};
use super::url::ConfigUrl;
use super::yaml::block::{Preset, block, encode};
use crate::model::duration::PromDuration;

/// Headers that requests set by themselves, in lower case; `authorization` has a text of its own.
const RESERVED_HEADERS: [&str; 16] = [
    "host",
    "content-encoding",
    "content-length",
    "content-type",
    "user-agent",
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "www-authenticate",
    "accept-encoding",
    "x-prometheus-remote-write-version",
    "x-prometheus-remote-read-version",
    "x-amz-date",
    "x-amz-security-token",
    "x-amz-content-sha256",
];

const WRITE_V1: &str = "prometheus.WriteRequest";
const WRITE_V2: &str = "io.prometheus.write.v2.Request";

block! {
    /// A remote storage that samples are sent to.
    pub struct RemoteWriteConfig("*config.RemoteWriteConfig", "config.plain") {
        /// Where to.
        pub url: ConfigUrl = "url", always;
        /// Longest time for a request; 30 s unless set.
        pub remote_timeout: PromDuration = "remote_timeout", omitempty;
        /// Further headers.
        pub headers: BTreeMap<String, String> = "headers", omitempty;
        /// Rules for what is sent.
        pub write_relabel_configs: Vec<RelabelConfig> = "write_relabel_configs", omitempty;
        /// Name in metrics and logs.
        pub name: String = "name", omitempty;
        /// Sends exemplars.
        pub send_exemplars: bool = "send_exemplars", omitempty;
        /// Sends native histograms.
        pub send_native_histograms: bool = "send_native_histograms", omitempty;
        /// Spreads over all addresses of the host.
        pub round_robin_dns: bool = "round_robin_dns", omitempty;
        /// Message that is sent: version 1 or 2 of the protocol.
        pub protobuf_message: String = "protobuf_message", omitempty;
        /// Logs requests that failed.
        pub failed_request_logging: bool = "failed_request_logging", omitempty;
        /// The HTTP client.
        pub http: HttpClientConfig = "", inline;
        /// The queue.
        pub queue_config: QueueConfig = "queue_config", omitempty;
        /// Sending of metadata.
        pub metadata_config: MetadataConfig = "metadata_config", omitempty;
        /// Signing for AWS.
        pub sigv4: Option<SigV4Config> = "sigv4", omitempty;
        /// Signing in at Azure.
        pub azuread: Option<AzureAdConfig> = "azuread", omitempty;
        /// Signing in at Google.
        pub google_iam: Option<GoogleIamConfig> = "google_iam", omitempty;
    }
}

block! {
    /// The queue of a remote storage.
    pub struct QueueConfig("config.QueueConfig") {
        /// Samples held per shard.
        pub capacity: i64 = "capacity", omitempty;
        /// Most shards.
        pub max_shards: i64 = "max_shards", omitempty;
        /// Fewest shards.
        pub min_shards: i64 = "min_shards", omitempty;
        /// Most samples in a request.
        pub max_samples_per_send: i64 = "max_samples_per_send", omitempty;
        /// Longest time that a sample waits for a request to fill.
        pub batch_send_deadline: PromDuration = "batch_send_deadline", omitempty;
        /// First pause after a failure.
        pub min_backoff: PromDuration = "min_backoff", omitempty;
        /// Longest pause after failures.
        pub max_backoff: PromDuration = "max_backoff", omitempty;
        /// Repeats after status 429.
        pub retry_on_http_429: bool = "retry_on_http_429", omitempty;
        /// Older samples are dropped; 0 for never.
        pub sample_age_limit: PromDuration = "sample_age_limit", omitempty;
    }
}

block! {
    /// Sending of metadata.
    pub struct MetadataConfig("config.MetadataConfig") {
        /// Whether it is sent.
        pub send: bool = "send", always;
        /// How often.
        pub send_interval: PromDuration = "send_interval", always;
        /// Most entries in a request.
        pub max_samples_per_send: i64 = "max_samples_per_send", omitempty;
    }
}

block! {
    /// A remote storage that is asked for samples.
    pub struct RemoteReadConfig("*config.RemoteReadConfig", "config.plain") {
        /// Where.
        pub url: ConfigUrl = "url", always;
        /// Longest time for a request; 1 m unless set.
        pub remote_timeout: PromDuration = "remote_timeout", omitempty;
        /// Largest frame of a streamed answer, in bytes.
        pub chunked_read_limit: u64 = "chunked_read_limit", omitempty;
        /// Further headers.
        pub headers: BTreeMap<String, String> = "headers", omitempty;
        /// Asks for times that the local storage holds as well.
        pub read_recent: bool = "read_recent", omitempty;
        /// Name in metrics and logs.
        pub name: String = "name", omitempty;
        /// The HTTP client.
        pub http: HttpClientConfig = "", inline;
        /// Matchers that a query needs to be sent here.
        pub required_matchers: LabelSet = "required_matchers", omitempty;
        /// Selects by the external labels as well; on unless set.
        pub filter_external_labels: bool = "filter_external_labels", omitempty;
    }
}

impl Preset for RemoteWriteConfig {
    fn preset() -> Self {
        Self {
            remote_timeout: PromDuration::from_secs(30),
            protobuf_message: WRITE_V1.to_owned(),
            http: HttpClientConfig { enable_http2: false, ..HttpClientConfig::preset() },
            queue_config: QueueConfig {
                capacity: 10_000,
                max_shards: 50,
                min_shards: 1,
                max_samples_per_send: 2000,
                batch_send_deadline: PromDuration::from_secs(5),
                min_backoff: PromDuration::from_ms(30),
                max_backoff: PromDuration::from_secs(5),
                ..QueueConfig::default()
            },
            metadata_config: MetadataConfig {
                send: true,
                send_interval: PromDuration::from_secs(60),
                max_samples_per_send: 2000,
            },
            ..Self::default()
        }
    }

    fn check(&mut self) -> Result<(), String> {
        if !self.url.is_set() {
            return Err("url for remote_write is empty".to_owned());
        }
        if self.write_relabel_configs.contains(&RelabelConfig::default()) {
            return Err("empty or null relabeling rule in remote write config".to_owned());
        }
        check_headers(&self.headers)?;
        if ![WRITE_V1, WRITE_V2].contains(&self.protobuf_message.as_str()) {
            return Err(format!(
                "invalid protobuf_message value: unknown type for remote write protobuf message {}, supported: \
                 {WRITE_V1}, {WRITE_V2}",
                self.protobuf_message
            ));
        }
        self.http.check()?;
        self.queue_config.check()?;
        let ways = [
            (self.http.basic_auth.is_some(), "basic_auth"),
            (self.http.authorization.is_some(), "authorization"),
            (self.http.oauth2.is_some(), "oauth2"),
            (self.sigv4.is_some(), "sigv4"),
            (self.azuread.is_some(), "azuread"),
            (self.google_iam.is_some(), "google_iam"),
        ];
        let configured: Vec<&str> = ways.iter().filter(|(set, _)| *set).map(|(_, name)| *name).collect();
        if configured.len() > 1 {
            return Err(format!(
                "at most one of basic_auth, authorization, oauth2, sigv4, azuread or google_iam must be configured. \
                 Currently configured: [{}]",
                configured.join(" ")
            ));
        }
        Ok(())
    }
}

impl RemoteReadConfig {
    /// The block as it is shown, secrets redacted.
    pub fn to_yaml(&self) -> String {
        encode(self).to_yaml()
    }
}

impl RemoteWriteConfig {
    /// MD5 of the block as it is shown, without its secrets; its beginning stands for the name where there is none.
    pub fn hash(&self) -> String {
        use md5::Digest as _;

        use super::yaml::Yaml as _;
        let sum: [u8; 16] = md5::Md5::digest(self.encode().to_yaml().as_bytes()).into();
        sum.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// True if version 2 of the protocol is to be spoken.
    pub fn is_version_2(&self) -> bool {
        self.protobuf_message == WRITE_V2
    }

    pub(super) fn validate(&mut self, scheme: ValidationScheme) -> Result<(), String> {
        self.write_relabel_configs.iter_mut().try_for_each(|rule| rule.validate(scheme))
    }
}

impl QueueConfig {
    fn check(&self) -> Result<(), String> {
        let wrong = if self.max_shards <= 0 {
            "max_shards must be positive"
        } else if self.min_shards <= 0 {
            "min_shards must be positive"
        } else if self.min_shards > self.max_shards {
            "min_shards must not be greater than max_shards"
        } else if self.max_samples_per_send <= 0 {
            "max_samples_per_send must be positive"
        } else if self.capacity <= 0 {
            "capacity must be positive"
        } else if self.max_backoff < self.min_backoff {
            "max_backoff must not be less than min_backoff"
        } else {
            return Ok(());
        };
        Err(format!("remote write queue {wrong}"))
    }
}

impl Preset for RemoteReadConfig {
    fn preset() -> Self {
        Self {
            remote_timeout: PromDuration::from_secs(60),
            chunked_read_limit: 50_000_000,
            http: HttpClientConfig::preset(),
            filter_external_labels: true,
            ..Self::default()
        }
    }

    fn check(&mut self) -> Result<(), String> {
        if !self.url.is_set() {
            return Err("url for remote_read is empty".to_owned());
        }
        check_headers(&self.headers)?;
        self.http.check()
    }
}

fn check_headers(headers: &BTreeMap<String, String>) -> Result<(), String> {
    check_reserved(
        headers,
        "authorization header must be changed via the basic_auth, authorization, oauth2, sigv4, azuread or google_iam \
         parameter",
    )
}

/// Errors for headers that requests set by themselves; `authorization` is the text for that one.
pub(super) fn check_reserved(headers: &BTreeMap<String, String>, authorization: &str) -> Result<(), String> {
    for header in headers.keys() {
        let lower = header.to_lowercase();
        if lower == "authorization" {
            return Err(authorization.to_owned());
        }
        if RESERVED_HEADERS.contains(&lower.as_str()) {
            return Err(format!("{header} is a reserved header. It must not be changed"));
        }
    }
    Ok(())
}
