//! The server's flags with their meaning: checked, typed, ready to use.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::cli::features::{Conflict, Features};
use crate::cli::flag_parser::Values;
use crate::cli::flag_spec::{Effect, Scope};
use crate::cli::flag_table::FLAGS;
use crate::cli::limits::ResourceLimits;
use crate::cli::run_bare::{ConfigSource, DEFAULT_LISTEN_ADDRESS, config_source};
use crate::cli::{EXIT_FAILURE, EXIT_MODE, EXIT_USAGE};
use crate::model::duration::PromDuration;
use crate::model::external_url::{ExternalUrl, UrlError, external_url, route_prefix};
use crate::model::go;
use crate::model::regexp::{Regexp, RegexpError};
use crate::storage::block::catalog::OnDamage;
use crate::telemetry::limits::memory_limit;
use crate::telemetry::logging::{LogFormat, LogLevel};

/// Retention when neither flags nor configuration set one.
pub const RETENTION_DEFAULT: PromDuration = PromDuration::from_secs(15 * 86_400);
/// How far back an instant selector looks when the flag says zero.
const LOOKBACK_DEFAULT: PromDuration = PromDuration::from_secs(300);
/// Longest span of a compacted block.
const BLOCK_SPAN_MAX: PromDuration = PromDuration::from_secs(31 * 86_400);

/// Shortest segment of the write-ahead log in bytes.
const WAL_SEGMENT_MIN: u64 = 10 << 20;
/// Longest segment of the write-ahead log in bytes.
const WAL_SEGMENT_MAX: u64 = 256 << 20;
/// Shortest chunk file of a block in bytes.
const CHUNK_SEGMENT_MIN: u64 = 1 << 20;

/// Everything that the command line says to the server.
#[derive(Clone, Debug)]
pub struct ServerFlags {
    /// Where the configuration comes from.
    pub config: ConfigSource,
    /// How often to look for changed files, if at all (`--config.auto-reload`).
    pub auto_reload: Option<Duration>,
    /// `--log.level`.
    pub log_level: LogLevel,
    /// `--log.format`.
    pub log_format: LogFormat,
    /// `--enable-feature`.
    pub features: Features,
    /// `--web.*`.
    pub web: WebFlags,
    /// `--storage.tsdb.*`.
    pub storage: StorageFlags,
    /// `--query.*`.
    pub query: QueryFlags,
    /// `--rules.*`.
    pub rules: RuleFlags,
    /// `--alertmanager.*`.
    pub alerts: AlertFlags,
    /// `--scrape.*`.
    pub scrape: ScrapeFlags,
    /// `--storage.remote.*` and `--watchfire.remote-write.*`.
    pub remote: RemoteFlags,
    /// `--storage.agent.*`, with `--agent`.
    pub agent: Option<AgentFlags>,
    /// `--storage.remote.read-*`.
    pub remote_read: RemoteReadFlags,
    /// `--watchfire.limit.*`.
    pub limits: ResourceLimits,
    /// Names of given flags that have no effect yet; one warning each.
    pub inactive: Vec<&'static str>,
    values: Values,
}

/// `--web.*`.
#[derive(Clone, Debug)]
pub struct WebFlags {
    /// Addresses to listen on, as written; at least one.
    pub listen_addresses: Vec<String>,
    /// `--web.config.file`, if given.
    pub config_file: Option<String>,
    /// Longest time to read a request, and to keep an idle connection.
    pub read_timeout: Duration,
    /// Most connections over all listeners.
    pub connections_max: usize,
    /// Where users find us.
    pub external_url: ExternalUrl,
    /// Starts with `/`; ends with it only if it is nothing else.
    pub route_prefix: String,
    /// Whether `/-/reload` and `/-/quit` work.
    pub enable_lifecycle: bool,
    /// Whether data may be deleted and copied by request, and queries ended.
    pub enable_admin_api: bool,
    /// Whether `/debug/pprof/` answers.
    pub enable_pprof: bool,
    /// Largest limit of a search; 0 for any.
    pub search_limit_max: usize,
    /// Most who listen to notifications.
    pub notification_listeners_max: usize,
    /// Title of the pages.
    pub page_title: String,
    /// Origins that browsers may ask from.
    pub cors_origin: Regexp,
    /// Names by which the server may be asked for; `None` for any.
    pub hosts: Option<Regexp>,
    /// Whether remote write is taken.
    pub remote_write_receiver: bool,
    /// Whether OTLP metrics are taken.
    pub otlp_receiver: bool,
    /// Names of the messages that are taken.
    pub remote_write_messages: Vec<String>,
}

/// `--storage.remote.read-*`.
#[derive(Clone, Copy, Debug)]
pub struct RemoteReadFlags {
    /// Most samples of an answer; 0 for any number.
    pub samples: usize,
    /// Requests at a time; 0 for any number.
    pub concurrency: usize,
    /// Bytes of a frame.
    pub frame_len: usize,
}

/// When acknowledged writes are synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WalSync {
    /// Before they are acknowledged.
    Commit,
    /// Once a second.
    Interval,
    /// By the system alone.
    Off,
}

/// `--storage.tsdb.*`.
#[derive(Clone, Debug)]
pub struct StorageFlags {
    /// Directory of the data.
    pub path: PathBuf,
    /// `--storage.tsdb.retention.time`; zero if not given.
    pub retention_time: PromDuration,
    /// `--storage.tsdb.retention.size` in bytes; zero if not given.
    pub retention_size: u64,
    /// False with `--storage.tsdb.no-lockfile`.
    pub lockfile: bool,
    /// `--storage.tsdb.wal-sync`.
    pub wal_sync: WalSync,
    /// `--storage.tsdb.damaged-blocks`.
    pub on_damage: OnDamage,
    /// `--storage.tsdb.wal-compression-type`, or `None` without compression.
    pub wal_compression: Option<WalCompression>,
    /// Shortest span of a block.
    pub block_span_min: PromDuration,
    /// Longest span of a block; zero if not given.
    pub block_span_max: PromDuration,
    /// Bytes of a WAL segment; zero for the default.
    pub wal_segment_len: u64,
    /// Bytes of a chunk file of a block; zero for the default.
    pub chunk_segment_len: u64,
    /// Samples a chunk aims at.
    pub samples_per_chunk: i64,
    /// How often to look for new and removed blocks.
    pub block_reload_interval: PromDuration,
    /// Whether overlapping blocks are merged.
    pub overlapping_compaction: bool,
}

/// How WAL records are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WalCompression {
    /// The default.
    Snappy,
    /// Smaller and slower.
    Zstd,
}

/// `--query.*`.
#[derive(Clone, Copy, Debug)]
pub struct QueryFlags {
    /// How far back an instant selector looks.
    pub lookback: PromDuration,
    /// Longest time a query may take.
    pub timeout: PromDuration,
    /// Most queries at a time.
    pub concurrency_max: usize,
    /// Most samples a query may hold.
    pub samples_max: i64,
}

/// `--rules.*`.
#[derive(Clone, Copy, Debug)]
pub struct RuleFlags {
    /// Longest outage after which `for` is restored.
    pub outage_tolerance: PromDuration,
    /// Shortest time between an alert and its restored state.
    pub grace_period: PromDuration,
    /// Shortest time between two notifications of an alert.
    pub resend_delay: PromDuration,
}

/// `--alertmanager.*`.
#[derive(Clone, Debug)]
pub struct AlertFlags {
    /// Alerts that may wait for an Alertmanager.
    pub queue_capacity: usize,
    /// Most alerts sent at a time.
    pub batch_len_max: usize,
    /// Whether waiting alerts are sent when stopping.
    pub drain_on_shutdown: bool,
    /// Configuration of the built-in Alertmanager.
    pub config_file: Option<PathBuf>,
    /// Directory of silences and the notification log.
    pub storage_path: PathBuf,
}

/// How an agent shortens its log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AgentFlags {
    /// Samples younger than that before the last ones sent stay.
    pub min_time: PromDuration,
    /// Older samples go, whether they were sent or not.
    pub max_time: PromDuration,
    /// How often the log is shortened.
    pub truncate_every: PromDuration,
}

/// `--storage.remote.*` and `--watchfire.remote-write.*`.
#[derive(Clone, Copy, Debug)]
pub struct RemoteFlags {
    /// How long to go on sending when stopping or reloading.
    pub flush_deadline: Duration,
    /// Up to which size the log is kept for destinations; 0 for not at all.
    pub hold_wal: u64,
}

/// `--scrape.*`.
#[derive(Clone, Copy, Debug)]
pub struct ScrapeFlags {
    /// Whether timestamps are aligned with the schedule.
    pub adjust_timestamps: bool,
    /// How close they must be for that.
    pub timestamp_tolerance: Duration,
    /// Shortest time between two updates of target groups.
    pub discovery_reload_interval: PromDuration,
}

/// Why the flags, though well-formed, are refused.
#[derive(Debug, thiserror::Error)]
pub enum FlagError {
    /// Server flags with `--agent`.
    #[error("The following flag(s) can not be used in agent mode: [{}]", quoted(.0))]
    ServerOnly(Vec<&'static str>),
    /// Agent flags without `--agent`.
    #[error("The following flag(s) can only be used in agent mode: [{}]", quoted(.0))]
    AgentOnly(Vec<&'static str>),
    /// Features that exclude each other.
    #[error("Error parsing feature list: {0}")]
    Features(#[source] Conflict),
    /// `--web.search.max-limit` below zero.
    #[error("--web.search.max-limit must be non-negative; got {0} (use 0 to disable the cap)")]
    SearchLimit(i64),
    /// `--auto-gomemlimit.ratio` out of range.
    #[error("--auto-gomemlimit.ratio must be greater than 0 and less than or equal to 1.")]
    MemoryRatio,
    /// `--web.external-url` that is none.
    #[error("parse external URL {}: {error}", go::quote(.written))]
    ExternalUrl {
        /// As written.
        written: String,
        /// Why.
        error: UrlError,
    },
    /// `--web.cors.origin` that is no regular expression.
    #[error("could not compile CORS regex string {}: {error}", go::quote(.written))]
    Cors {
        /// As written.
        written: String,
        /// Why.
        error: RegexpError,
    },
    /// `--watchfire.web.hosts` that is no regular expression.
    #[error("could not compile --watchfire.web.hosts {}: {error}", go::quote(.written))]
    Hosts {
        /// As written.
        written: String,
        /// Why.
        error: RegexpError,
    },
    /// A flag that promises protection or a service which does not exist yet.
    #[error("--{0} is not built yet; the server does not start with it, because it would not do what it promises")]
    NotBuilt(&'static str),
    /// The size of a segment of the log out of range.
    #[error("flag '{0}' must be set between 10MB and 256MB")]
    SegmentSize(&'static str),
    /// `--storage.agent.checkpoint-batch-size` of nothing.
    #[error("--storage.agent.checkpoint-batch-size must be greater than 0.")]
    CheckpointBatch,
    /// `--storage.tsdb.max-block-chunk-segment-size` too small.
    #[error("flag 'storage.tsdb.max-block-chunk-segment-size' must be set over 1MB")]
    ChunkSegmentSize,
    /// A number that has to be positive.
    #[error("--{name} must be greater than 0; got {got}")]
    NotPositive {
        /// The flag.
        name: &'static str,
        /// Its value.
        got: i64,
    },
}

/// The interval of looking for changed files, with the flag or the feature that came before it.
fn auto_reload(values: &Values, features: &Features) -> Option<Duration> {
    let is_on = values.bool("config.auto-reload") || features.is_enabled("auto-reload-config");
    is_on.then(|| values.duration("config.auto-reload-interval").to_std().max(Duration::from_millis(1)))
}

fn quoted(names: &[&'static str]) -> String {
    names.iter().map(|name| format!("\"--{name}\"")).collect::<Vec<_>>().join(" ")
}

impl FlagError {
    /// The exit code that goes with it.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::ServerOnly(_) | Self::AgentOnly(_) => EXIT_MODE,
            Self::Features(_)
            | Self::SearchLimit(_)
            | Self::MemoryRatio
            | Self::SegmentSize(_)
            | Self::CheckpointBatch
            | Self::ChunkSegmentSize => EXIT_FAILURE,
            Self::ExternalUrl { .. }
            | Self::Cors { .. }
            | Self::Hosts { .. }
            | Self::NotBuilt(_)
            | Self::NotPositive { .. } => EXIT_USAGE,
        }
    }
}

impl ServerFlags {
    /// Gives parsed values their meaning. `program` is the name we were called by; `exists` looks for files.
    pub fn from_values(values: &Values, program: &str, exists: &dyn Fn(&Path) -> bool) -> Result<Self, FlagError> {
        let features = Features::parse(values.list("enable-feature")).map_err(FlagError::Features)?;
        check_mode(values)?;
        if values.bool("agent") && values.integer("storage.agent.checkpoint-batch-size") <= 0 {
            return Err(FlagError::CheckpointBatch);
        }
        check_ranges(values)?;
        let named = values.is_given("config.file").then(|| values.text("config.file"));
        let config = match config_source(named, program, exists) {
            // The built-in configuration has rules, which an agent does not have.
            ConfigSource::BuiltIn if values.bool("agent") => ConfigSource::File(values.text("config.file").into()),
            config => config,
        };
        let web = web(values, &config)?;
        let inactive = check_effects(values)?;
        let memory = memory_limit().map(|(bytes, _)| bytes);
        Ok(Self {
            log_level: match values.text("log.level") {
                "debug" => LogLevel::Debug,
                "warn" => LogLevel::Warn,
                "error" => LogLevel::Error,
                _ => LogLevel::Info,
            },
            log_format: if values.text("log.format") == "json" { LogFormat::Json } else { LogFormat::Logfmt },
            auto_reload: auto_reload(values, &features),
            features,
            web,
            storage: storage(values),
            query: QueryFlags {
                lookback: match values.duration("query.lookback-delta") {
                    PromDuration::ZERO => LOOKBACK_DEFAULT,
                    given => given,
                },
                timeout: values.duration("query.timeout"),
                concurrency_max: positive(values, "query.max-concurrency")?,
                samples_max: values.integer("query.max-samples"),
            },
            rules: RuleFlags {
                outage_tolerance: values.duration("rules.alert.for-outage-tolerance"),
                grace_period: values.duration("rules.alert.for-grace-period"),
                resend_delay: values.duration("rules.alert.resend-delay"),
            },
            alerts: alerts(values)?,
            scrape: ScrapeFlags {
                adjust_timestamps: values.bool("scrape.adjust-timestamps"),
                timestamp_tolerance: values.go_duration("scrape.timestamp-tolerance"),
                discovery_reload_interval: values.duration("scrape.discovery-reload-interval"),
            },
            remote: RemoteFlags {
                flush_deadline: values.duration("storage.remote.flush-deadline").to_std(),
                hold_wal: values.size("watchfire.remote-write.hold-wal").unwrap_or(0),
            },
            agent: agent(values),
            remote_read: remote_read(values),
            limits: ResourceLimits::from_values(values, memory),
            inactive,
            config,
            values: values.clone(),
        })
    }

    /// (time, size) to keep data for, as far as the flags decide: 15 days when they say nothing.
    pub fn retention(&self) -> (PromDuration, u64) {
        match (self.storage.retention_time, self.storage.retention_size) {
            (PromDuration::ZERO, 0) => (RETENTION_DEFAULT, 0),
            given => given,
        }
    }

    /// Name and value of every flag for `/api/v1/status/flags`, sorted by name. Retention and the span of blocks show what
    /// is in effect, which the configuration decides: `retention` is (time, size).
    pub fn status_values(&self, retention: (PromDuration, u64)) -> Vec<(String, String)> {
        let mut printed = self.values.printed();
        for (name, value) in &mut printed {
            match name.as_str() {
                "config.file" if self.config == ConfigSource::BuiltIn => "(built-in)".clone_into(value),
                "web.listen-address" => *value = self.web.listen_addresses.join(","),
                "web.route-prefix" => value.clone_from(&self.web.route_prefix),
                "storage.tsdb.retention.time" => *value = retention.0.to_string(),
                "storage.tsdb.retention.size" => *value = crate::cli::bytes::format(retention.1),
                "storage.tsdb.max-block-duration" => *value = self.block_span_max(retention.0).to_string(),
                _ => {}
            }
        }
        printed
    }

    /// Longest span of a block for a retention time: as given, else a tenth of it and at most 31 days.
    pub fn block_span_max(&self, retention: PromDuration) -> PromDuration {
        match (self.storage.block_span_max, retention) {
            (PromDuration::ZERO, PromDuration::ZERO) => BLOCK_SPAN_MAX,
            (PromDuration::ZERO, time) => PromDuration::from_ms(time.as_ms() / 10).min(BLOCK_SPAN_MAX),
            (given, _) => given,
        }
    }
}

fn check_ranges(values: &Values) -> Result<(), FlagError> {
    let search = values.integer("web.search.max-limit");
    if search < 0 {
        return Err(FlagError::SearchLimit(search));
    }
    let ratio = values.float("auto-gomemlimit.ratio");
    if !(0.0 < ratio && ratio <= 1.0) {
        return Err(FlagError::MemoryRatio);
    }
    let size = |name| values.size(name).unwrap_or(0);
    for name in ["storage.tsdb.wal-segment-size", "storage.agent.wal-segment-size"] {
        if !matches!(size(name), 0 | WAL_SEGMENT_MIN..=WAL_SEGMENT_MAX) {
            return Err(FlagError::SegmentSize(name));
        }
    }
    if matches!(size("storage.tsdb.max-block-chunk-segment-size"), 1..CHUNK_SEGMENT_MIN) {
        return Err(FlagError::ChunkSegmentSize);
    }
    Ok(())
}

fn check_mode(values: &Values) -> Result<(), FlagError> {
    let is_agent = values.bool("agent");
    let foreign = if is_agent { Scope::Server } else { Scope::Agent };
    let wrong: Vec<&'static str> = values
        .given()
        .iter()
        .copied()
        .filter(|name| FLAGS.iter().any(|spec| spec.name == *name && spec.scope == foreign))
        .collect();
    match (wrong.is_empty(), is_agent) {
        (true, _) => Ok(()),
        (false, true) => Err(FlagError::ServerOnly(wrong)),
        (false, false) => Err(FlagError::AgentOnly(wrong)),
    }
}

/// Refuses what promises and cannot keep; returns what merely has no effect. A flag set to its default asks for nothing.
fn check_effects(values: &Values) -> Result<Vec<&'static str>, FlagError> {
    let mut inactive = Vec::new();
    for spec in FLAGS.iter().filter(|spec| values.is_given(spec.name) && !values.is_default(spec)) {
        match spec.effect {
            Effect::Refused => return Err(FlagError::NotBuilt(spec.name)),
            Effect::Warned => inactive.push(spec.name),
            Effect::Works | Effect::Nothing => {}
        }
    }
    Ok(inactive)
}

fn web(values: &Values, config: &ConfigSource) -> Result<WebFlags, FlagError> {
    let listen_addresses = match config {
        ConfigSource::BuiltIn if !values.is_given("web.listen-address") => vec![DEFAULT_LISTEN_ADDRESS.to_owned()],
        _ => values.list("web.listen-address").to_vec(),
    };
    let written = values.text("web.external-url");
    let first = listen_addresses.first().map_or("", String::as_str);
    let external_url = external_url(written, &hostname(), first)
        .map_err(|error| FlagError::ExternalUrl { written: written.to_owned(), error })?;
    let cors = values.text("web.cors.origin");
    let cors_origin = Regexp::anchored(cors).map_err(|error| FlagError::Cors { written: cors.to_owned(), error })?;
    let hosts = Some(values.text("watchfire.web.hosts")).filter(|written| !written.is_empty());
    let hosts = hosts.map(|written| {
        Regexp::anchored(written).map_err(|error| FlagError::Hosts { written: written.to_owned(), error })
    });
    Ok(WebFlags {
        hosts: hosts.transpose()?,
        route_prefix: route_prefix(values.text("web.route-prefix"), &external_url),
        listen_addresses,
        config_file: Some(values.text("web.config.file")).filter(|file| !file.is_empty()).map(str::to_owned),
        read_timeout: values.duration("web.read-timeout").to_std(),
        connections_max: positive(values, "web.max-connections")?,
        external_url,
        enable_lifecycle: values.bool("web.enable-lifecycle"),
        enable_admin_api: values.bool("web.enable-admin-api"),
        enable_pprof: values.bool("watchfire.web.enable-pprof"),
        search_limit_max: usize::try_from(values.integer("web.search.max-limit")).unwrap_or(0),
        notification_listeners_max: usize::try_from(values.integer("web.max-notifications-subscribers")).unwrap_or(0),
        page_title: values.text("web.page-title").to_owned(),
        cors_origin,
        remote_write_receiver: values.bool("web.enable-remote-write-receiver"),
        otlp_receiver: values.bool("web.enable-otlp-receiver"),
        remote_write_messages: values.list("web.remote-write-receiver.accepted-protobuf-messages").to_vec(),
    })
}

/// The machine's name, or `localhost` where it has none.
pub fn hostname() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    if name.is_empty() { "localhost".to_owned() } else { name }
}

/// With `--agent`, how it shortens its log, with Prometheus's defaults where nothing is given.
fn agent(values: &Values) -> Option<AgentFlags> {
    if !values.bool("agent") {
        return None;
    }
    let or = |name: &str, default: PromDuration| match values.duration(name) {
        PromDuration::ZERO => default,
        given => given,
    };
    let truncate_every = or("storage.agent.wal-truncate-frequency", PromDuration::from_secs(2 * 3600));
    let min_time = or("storage.agent.retention.min-time", PromDuration::from_secs(300));
    let max_time = or("storage.agent.retention.max-time", PromDuration::from_secs(4 * 3600));
    Some(AgentFlags { min_time, max_time: max_time.max(min_time).max(truncate_every), truncate_every })
}

fn storage(values: &Values) -> StorageFlags {
    let part = if values.bool("agent") { "agent" } else { "tsdb" };
    let name = |of: &str| format!("storage.{part}.{of}");
    let compression = match values.text(&name("wal-compression-type")) {
        "zstd" => WalCompression::Zstd,
        _ => WalCompression::Snappy,
    };
    StorageFlags {
        path: PathBuf::from(values.text(&name("path"))),
        retention_time: values.duration("storage.tsdb.retention.time"),
        retention_size: values.size("storage.tsdb.retention.size").unwrap_or(0),
        lockfile: !values.bool(&name("no-lockfile")),
        wal_sync: match values.text("storage.tsdb.wal-sync") {
            "interval" => WalSync::Interval,
            "off" => WalSync::Off,
            _ => WalSync::Commit,
        },
        on_damage: match values.text("storage.tsdb.damaged-blocks") {
            "warn" => OnDamage::Warn,
            _ => OnDamage::Fail,
        },
        wal_compression: values.bool(&name("wal-compression")).then_some(compression),
        block_span_min: values.duration("storage.tsdb.min-block-duration"),
        block_span_max: values.duration("storage.tsdb.max-block-duration"),
        wal_segment_len: values.size(&name("wal-segment-size")).unwrap_or(0),
        chunk_segment_len: values.size("storage.tsdb.max-block-chunk-segment-size").unwrap_or(0),
        samples_per_chunk: values.integer("storage.tsdb.samples-per-chunk"),
        block_reload_interval: values.duration("storage.tsdb.block-reload-interval").max(PromDuration::from_secs(1)),
        overlapping_compaction: values.bool("storage.tsdb.allow-overlapping-compaction"),
    }
}

fn remote_read(values: &Values) -> RemoteReadFlags {
    let number = |name| usize::try_from(values.integer(name)).unwrap_or(0);
    RemoteReadFlags {
        samples: number("storage.remote.read-sample-limit"),
        concurrency: number("storage.remote.read-concurrent-limit"),
        frame_len: number("storage.remote.read-max-bytes-in-frame"),
    }
}

fn alerts(values: &Values) -> Result<AlertFlags, FlagError> {
    let path = |name: &str| Some(PathBuf::from(values.text(name))).filter(|path| !path.as_os_str().is_empty());
    Ok(AlertFlags {
        queue_capacity: positive(values, "alertmanager.notification-queue-capacity")?,
        batch_len_max: positive(values, "alertmanager.notification-batch-size")?,
        drain_on_shutdown: values.bool("alertmanager.drain-notification-queue-on-shutdown"),
        config_file: path("alertmanager.config.file"),
        storage_path: path("alertmanager.storage.path")
            .unwrap_or_else(|| Path::new(values.text("storage.tsdb.path")).join("alertmanager")),
    })
}

fn positive(values: &Values, name: &'static str) -> Result<usize, FlagError> {
    let got = values.integer(name);
    match usize::try_from(got) {
        Ok(number) if 0 < number => Ok(number),
        _ => Err(FlagError::NotPositive { name, got }),
    }
}
