//! Every flag of the server in one table: Prometheus 3.14's, visible and hidden, and ours. What a flag does when it is not
//! built yet stands here too, and nowhere else.

use crate::cli::flag_spec::{Effect, FlagSpec, Kind, Scope};

const GENERAL: &str = "General";
const WEB: &str = "Web";
const STORAGE: &str = "Storage";
const AGENT: &str = "Agent mode";
const REMOTE: &str = "Remote read and write";
const QUERY: &str = "Queries";
const RULES: &str = "Rules and alerts";
const SCRAPE: &str = "Scraping";
const LIMITS: &str = "Limits (0 lifts one, as in Prometheus)";

const MESSAGES: &[&str] = &["prometheus.WriteRequest", "io.prometheus.write.v2.Request"];
const COMPRESSIONS: &[&str] = &["snappy", "zstd"];

const fn flag(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    group: &'static str,
    help: &'static str,
) -> FlagSpec {
    FlagSpec { name, kind, default, scope: Scope::Any, hidden: false, effect: Effect::Works, group, help }
}

const fn switch(name: &'static str, default: &'static str, group: &'static str, help: &'static str) -> FlagSpec {
    flag(name, Kind::Switch, default, group, help)
}

const fn server(mut spec: FlagSpec) -> FlagSpec {
    spec.scope = Scope::Server;
    spec
}

const fn agent(mut spec: FlagSpec) -> FlagSpec {
    spec.scope = Scope::Agent;
    spec
}

const fn hidden(mut spec: FlagSpec) -> FlagSpec {
    spec.hidden = true;
    spec
}

const fn effect(effect: Effect, mut spec: FlagSpec) -> FlagSpec {
    spec.effect = effect;
    spec
}

use Effect::{Nothing, Refused, Warned};
use Kind::{AutoSize, Duration, Float, GoDuration, Integer, List, LogFormat, LogLevel, Messages, Size, Text, Word};

/// All flags of the server. `--help` and `--version` belong to the parser.
#[rustfmt::skip]
pub const FLAGS: &[FlagSpec] = &[
    flag("config.file", Text, "prometheus.yml", GENERAL, "Configuration file. Without this flag and without ./prometheus.yml a built-in configuration is used."),
    switch("config.auto-reload", "false", GENERAL, "Reload when the configuration file or a file that it names changes."),
    flag("config.auto-reload-interval", Duration, "30s", GENERAL, "How often --config.auto-reload looks for changes."),
    switch("print-default-config", "false", GENERAL, "Print the built-in configuration and exit."),
    flag("enable-feature", List, "", GENERAL, "Feature names to enable, comma separated. Can be repeated."),
    switch("agent", "", GENERAL, "Run as an agent: scrape and send on, without queries and rules."),
    flag("log.level", LogLevel, "info", GENERAL, "Lowest severity to log: debug, info, warn or error."),
    flag("log.format", LogFormat, "logfmt", GENERAL, "Shape of log lines: logfmt or json."),
    effect(Nothing, switch("auto-gomaxprocs", "true", GENERAL, "Accepted for compatibility; the number of threads always follows the processors granted.")),
    effect(Nothing, switch("auto-gomemlimit", "true", GENERAL, "Accepted for compatibility; see --watchfire.memory-limit.")),
    effect(Nothing, flag("auto-gomemlimit.ratio", Float, "0.9", GENERAL, "Accepted for compatibility.")),
    effect(Nothing, flag("auto-gomemlimit.refresh-interval", Duration, "0s", GENERAL, "Accepted for compatibility.")),
    hidden(effect(Refused, switch("write-documentation", "false", GENERAL, "Print these flags as documentation."))),

    flag("web.listen-address", List, "0.0.0.0:9090", WEB, "Address to listen on. Can be repeated. 127.0.0.1:9090 with the built-in configuration."),
    flag("web.config.file", Text, "", WEB, "File that configures TLS, authentication and headers of our own server."),
    flag("web.read-timeout", Duration, "5m", WEB, "Longest time to read a request, and to keep an idle connection."),
    flag("web.max-connections", Integer, "512", WEB, "Most connections at a time over all listeners; for a further one that which has been idle longest is closed."),
    flag("web.max-notifications-subscribers", Integer, "16", WEB, "Most subscribers of live notifications."),
    flag("web.external-url", Text, "", WEB, "URL under which users reach this server. Its path prefixes all endpoints."),
    flag("web.route-prefix", Text, "", WEB, "Prefix of the internal routes; the path of --web.external-url by default."),
    effect(Warned, flag("web.user-assets", Text, "", WEB, "Directory to serve under /user.")),
    switch("web.enable-lifecycle", "false", WEB, "Allow POST /-/reload and /-/quit."),
    switch("web.enable-admin-api", "false", WEB, "Allow the endpoints that delete and snapshot data."),
    switch("web.enable-remote-write-receiver", "false", WEB, "Accept remote write requests on /api/v1/write."),
    flag("web.remote-write-receiver.accepted-protobuf-messages", Messages(MESSAGES), "prometheus.WriteRequest,io.prometheus.write.v2.Request", WEB, "Remote write messages to accept."),
    switch("web.enable-otlp-receiver", "false", WEB, "Accept OTLP metrics on /api/v1/otlp/v1/metrics."),
    effect(Warned, flag("web.console.templates", Text, "consoles", WEB, "Directory of console templates.")),
    effect(Warned, flag("web.console.libraries", Text, "console_libraries", WEB, "Directory of console libraries.")),
    flag("web.page-title", Text, "Prometheus Time Series Collection and Processing Server", WEB, "Title of the pages."),
    flag("web.cors.origin", Text, ".*", WEB, "Origins that browsers may ask from: a regular expression for the whole origin."),
    server(flag("web.search.max-limit", Integer, "10000", WEB, "Largest limit of the search API; 0 lifts it.")),

    server(flag("storage.tsdb.path", Text, "data/", STORAGE, "Directory of the data.")),
    server(flag("storage.tsdb.retention.time", Duration, "", STORAGE, "How long to keep samples; 15d when neither this nor the size is given. The configuration file takes precedence.")),
    server(flag("storage.tsdb.retention.size", Size, "", STORAGE, "How many bytes of blocks to keep, as 512MB. The configuration file takes precedence.")),
    server(switch("storage.tsdb.no-lockfile", "false", STORAGE, "Do not lock the data directory.")),
    server(flag("storage.tsdb.wal-sync", Word(&["commit", "interval", "off"]), "commit", STORAGE, "When acknowledged writes are synced to disk: before they are acknowledged, once a second, or by the system alone.")),
    server(flag("storage.tsdb.damaged-blocks", Word(&["error", "warn"]), "error", STORAGE, "What becomes of a query that needs a block that cannot be read: an error that names it, or an answer without it and a warning.")),
    server(effect(Nothing, flag("storage.tsdb.head-chunks-write-queue-size", Integer, "0", STORAGE, "Accepted for compatibility; the queue of the chunk writer has its own bound."))),
    server(effect(Refused, flag("storage.tsdb.delay-compact-file.path", Text, "", STORAGE, "File that lists uploaded blocks; others are not compacted."))),
    server(hidden(flag("storage.tsdb.min-block-duration", Duration, "2h", STORAGE, "Shortest span of a block."))),
    server(hidden(flag("storage.tsdb.max-block-duration", Duration, "", STORAGE, "Longest span of a compacted block; a tenth of the retention, at most 31d."))),
    server(hidden(flag("storage.tsdb.max-block-chunk-segment-size", Size, "", STORAGE, "Largest chunk file of a block."))),
    server(hidden(flag("storage.tsdb.wal-segment-size", Size, "", STORAGE, "Size of a WAL segment, 10MB to 256MB."))),
    server(hidden(switch("storage.tsdb.allow-overlapping-compaction", "true", STORAGE, "Merge overlapping blocks."))),
    server(hidden(switch("storage.tsdb.wal-compression", "true", STORAGE, "Compress the WAL."))),
    server(hidden(flag("storage.tsdb.wal-compression-type", Word(COMPRESSIONS), "snappy", STORAGE, "How the WAL is compressed."))),
    server(hidden(flag("storage.tsdb.samples-per-chunk", Integer, "120", STORAGE, "Samples a chunk aims at."))),
    server(hidden(effect(Nothing, flag("storage.tsdb.delayed-compaction.max-percent", Integer, "10", STORAGE, "Largest delay of a compaction in percent of its range.")))),
    server(hidden(flag("storage.tsdb.block-reload-interval", Duration, "1m", STORAGE, "How often to look for new and removed blocks."))),

    agent(flag("storage.agent.path", Text, "data-agent/", AGENT, "Directory of the data.")),
    agent(switch("storage.agent.wal-compression", "true", AGENT, "Compress the WAL.")),
    agent(flag("storage.agent.retention.min-time", Duration, "5m", AGENT, "Youngest samples that may be deleted.")),
    agent(flag("storage.agent.retention.max-time", Duration, "4h", AGENT, "Age at which samples are deleted whether sent or not.")),
    agent(effect(Nothing, switch("storage.agent.checkpoint-from-in-memory-series", "false", AGENT, "Accepted for compatibility; checkpoints are made of the WAL."))),
    agent(effect(Nothing, flag("storage.agent.checkpoint-batch-size", Integer, "1000", AGENT, "Accepted for compatibility."))),
    agent(switch("storage.agent.no-lockfile", "false", AGENT, "Do not lock the data directory.")),
    agent(hidden(flag("storage.agent.wal-segment-size", Size, "", AGENT, "Size of a WAL segment."))),
    agent(hidden(flag("storage.agent.wal-compression-type", Word(COMPRESSIONS), "snappy", AGENT, "How the WAL is compressed."))),
    agent(hidden(flag("storage.agent.wal-truncate-frequency", Duration, "", AGENT, "How often the WAL is truncated; 2h."))),

    flag("storage.remote.flush-deadline", Duration, "1m", REMOTE, "How long to go on sending when stopping or reloading; when stopping within 30s for everything."),
    server(flag("storage.remote.read-sample-limit", Integer, "5e7", REMOTE, "Most samples of a remote read that is not streamed; 0 for any number.")),
    server(flag("storage.remote.read-concurrent-limit", Integer, "10", REMOTE, "Most remote reads at a time; 0 for any number.")),
    server(flag("storage.remote.read-max-bytes-in-frame", Integer, "1048576", REMOTE, "Largest frame of a streamed remote read.")),

    server(flag("query.lookback-delta", Duration, "5m", QUERY, "How far back an instant selector looks for a sample.")),
    server(flag("query.timeout", Duration, "2m", QUERY, "Longest time a query may take.")),
    server(flag("query.max-concurrency", Integer, "20", QUERY, "Most queries at a time.")),
    server(flag("query.max-samples", Integer, "50000000", QUERY, "Most samples a query may hold in memory.")),

    server(flag("rules.alert.for-outage-tolerance", Duration, "1h", RULES, "Longest outage after which the state of `for` is restored.")),
    server(flag("rules.alert.for-grace-period", Duration, "10m", RULES, "Shortest time between an alert and its restored state.")),
    server(flag("rules.alert.resend-delay", Duration, "1m", RULES, "Shortest time between two notifications of an alert.")),
    server(effect(Nothing, flag("rules.max-concurrent-evals", Integer, "4", RULES, "Most rules evaluated at a time, with the feature concurrent-rule-eval."))),
    server(flag("alertmanager.notification-queue-capacity", Integer, "10000", RULES, "Alerts that may wait for an Alertmanager.")),
    server(flag("alertmanager.notification-batch-size", Integer, "256", RULES, "Most alerts sent to an Alertmanager at a time.")),
    server(switch("alertmanager.drain-notification-queue-on-shutdown", "true", RULES, "Send waiting alerts when stopping.")),
    server(flag("alertmanager.config.file", Text, "", RULES, "Configuration of the built-in Alertmanager; without it alerts are shown and nobody is notified.")),
    server(flag("alertmanager.storage.path", Text, "", RULES, "Directory of silences and the notification log; <storage.tsdb.path>/alertmanager by default.")),

    hidden(flag("scrape.adjust-timestamps", Kind::Switch, "true", SCRAPE, "Align timestamps with the schedule when they are close.")),
    hidden(flag("scrape.timestamp-tolerance", GoDuration, "2ms", SCRAPE, "How close is close.")),
    hidden(flag("scrape.discovery-reload-interval", Duration, "5s", SCRAPE, "Shortest time between two updates of target groups.")),

    flag("watchfire.remote-write.hold-wal", AutoSize, "", REMOTE, "Keep the WAL for destinations that have not been sent all of it, until it is as large as this; not at all by default."),

    flag("watchfire.memory-limit", AutoSize, "", LIMITS, "Memory to plan with; that of the cgroup or the machine by default."),
    flag("watchfire.limit.scrape.body", AutoSize, "", LIMITS, "Largest scrape after decompression; 1/64 of memory, at least 64MiB."),
    flag("watchfire.limit.scrape.line", AutoSize, "", LIMITS, "Longest line of a scrape; 1MiB."),
    flag("watchfire.limit.scrape.staged-total", AutoSize, "", LIMITS, "Samples of all scrapes in flight; 1/32 of memory."),
    flag("watchfire.limit.scrape.new-series", Integer, "-1", LIMITS, "New series of one scrape; -1 for 1/8 of the room left for series."),
    flag("watchfire.limit.http.header", AutoSize, "", LIMITS, "Largest header of a request; 64KiB."),
    flag("watchfire.limit.http.body", AutoSize, "", LIMITS, "Largest body of a request; 32MiB."),
    flag("watchfire.limit.remote-write", AutoSize, "", LIMITS, "Memory of remote write requests in flight; 1/16 of memory, at least 64MiB."),
    flag("watchfire.web.hosts", Text, "", WEB, "Names by which this server may be asked for: a regular expression for the whole host, without port. Addresses and localhost always may; any name by default."),
    switch("watchfire.web.enable-pprof", "false", WEB, "Answer on /debug/pprof/ with profiles of the process."),
    flag("watchfire.limit.query.memory", AutoSize, "", LIMITS, "Memory of one query; a quarter of that of all."),
    flag("watchfire.limit.query.memory-total", AutoSize, "", LIMITS, "Memory of all queries; a quarter of memory."),
];
