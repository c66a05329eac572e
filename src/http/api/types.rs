//! What ports take and give: plain structs, without JSON and without actors. JSON shapes are written by the endpoints.

use std::collections::BTreeMap;
use std::time::Duration;

pub use crate::http::held::{AnswerMemory, Held};
pub use crate::http::json::UnixNanos;
use crate::model::duration::PromDuration;
use crate::model::labels::Labels;
use crate::model::matcher::Matcher;
use crate::model::read::NewestSample;
use crate::model::result::{Annotations, QueryValue};
use crate::model::time::TimestampMs;

/// Whom a request comes from, and how it was asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestOrigin {
    /// The client's address without its port.
    pub client_ip: String,
    /// The method.
    pub method: String,
    /// The path, decoded.
    pub path: String,
}

/// A query at one time.
#[derive(Clone, Debug, PartialEq)]
pub struct InstantQuery {
    /// PromQL as written.
    pub query: String,
    /// Evaluation time.
    pub at: TimestampMs,
    /// Client's timeout; the server's own caps it.
    pub timeout: Option<Duration>,
    /// Lookback of this query, if not the server's.
    pub lookback: Option<PromDuration>,
    /// Whether counts by step are wanted (`stats=all`).
    pub per_step_stats: bool,
    /// Who asks, for the query log.
    pub origin: RequestOrigin,
}

/// A query over a range.
#[derive(Clone, Debug, PartialEq)]
pub struct RangeQuery {
    /// PromQL as written.
    pub query: String,
    /// First evaluation time.
    pub start: TimestampMs,
    /// Last evaluation time; not before `start`.
    pub end: TimestampMs,
    /// Step in milliseconds; at least 1.
    pub step_ms: i64,
    /// Client's timeout; the server's own caps it.
    pub timeout: Option<Duration>,
    /// Lookback of this query, if not the server's.
    pub lookback: Option<PromDuration>,
    /// Whether counts by step are wanted (`stats=all`).
    pub per_step_stats: bool,
    /// Who asks, for the query log.
    pub origin: RequestOrigin,
}

/// The outcome of a query.
#[derive(Debug)]
pub struct QueryAnswer {
    /// Its value.
    pub value: QueryValue,
    /// Its remarks.
    pub annotations: Annotations,
    /// What it took.
    pub stats: QueryStats,
    /// What it holds of the queries' memory.
    pub held: Held,
}

/// A query that runs or waits.
#[derive(Clone, Debug, PartialEq)]
pub struct RunningQuery {
    /// Its number.
    pub id: u64,
    /// PromQL as written.
    pub text: String,
    /// `instant` or `range`.
    pub kind: &'static str,
    /// First evaluation.
    pub start: TimestampMs,
    /// Last evaluation.
    pub end: TimestampMs,
    /// Step in milliseconds; 0 for one evaluation.
    pub step_ms: i64,
    /// When it came.
    pub since: UnixNanos,
    /// The client's address; empty if it does not come from HTTP.
    pub client_ip: String,
}

/// What a query took; times in seconds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct QueryStats {
    /// Evaluation as a whole.
    pub eval_total: f64,
    /// Sorting of the result.
    pub result_sort: f64,
    /// Parsing, planning, selecting.
    pub preparation: f64,
    /// Evaluation proper.
    pub inner_eval: f64,
    /// Waiting for its turn.
    pub queue: f64,
    /// From taking its turn to the result.
    pub exec_total: f64,
    /// Samples that steps looked at, windows counted at each step.
    pub queryable_samples: i64,
    /// The same by step (time, count); only where asked for.
    pub queryable_samples_per_step: Option<Vec<(TimestampMs, i64)>>,
    /// Samples decoded.
    pub samples_read: i64,
    /// The same by step (time, count); only where asked for.
    pub samples_read_per_step: Option<Vec<(TimestampMs, i64)>>,
    /// Most samples held at a time.
    pub peak_samples: i64,
}

/// A request about series.
#[derive(Clone, Debug, PartialEq)]
pub struct SelectRequest {
    /// A series counts if it matches any of these; none: every series counts.
    pub selectors: Vec<Vec<Matcher>>,
    /// First time of interest.
    pub start: TimestampMs,
    /// Last time of interest; may lie before `start`, and then there is nothing.
    pub end: TimestampMs,
    /// Most results of interest plus one, so that a cut is seen; 0 for all.
    pub hint_limit: usize,
}

/// A request about the values of a label.
#[derive(Clone, Debug, PartialEq)]
pub struct LabelValuesRequest {
    /// The label.
    pub name: String,
    /// Of which series and when.
    pub select: SelectRequest,
}

/// A list, `T`, with remarks.
#[derive(Debug, Default)]
pub struct Listed<T> {
    /// The items.
    pub items: T,
    /// Warnings of storage.
    pub warnings: Vec<String>,
    /// What it holds of the queries' memory.
    pub held: Held,
}

/// What is known of a target's health.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetHealth {
    /// Not scraped yet.
    Unknown,
    /// The last scrape worked.
    Up,
    /// The last scrape failed.
    Down,
}

impl TargetHealth {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Up => "up",
            Self::Down => "down",
        }
    }
}

/// What a target tells of a metric.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricMetadata {
    /// Name of the metric's family.
    pub family: String,
    /// `counter`, `gauge`, ….
    pub kind: &'static str,
    /// The help text.
    pub help: String,
    /// The unit; empty if none is told.
    pub unit: String,
}

/// What a target tells of its metrics.
#[derive(Clone, Debug, PartialEq)]
pub struct TargetMetadata {
    /// The target's labels.
    pub labels: Labels,
    /// By family.
    pub metadata: Vec<MetricMetadata>,
}

/// The text for a pool that does not exist.
#[derive(Clone, Copy, Debug)]
pub struct MissingPool<'a>(pub &'a str);

impl std::fmt::Display for MissingPool<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "scrape pool {} not found", crate::model::go::quote(self.0))
    }
}

/// A name and its count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameCount {
    /// The name.
    pub name: String,
    /// How many.
    pub value: u64,
}

/// Figures of the head.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TsdbStatus {
    /// Series.
    pub series: u64,
    /// Distinct pairs of label name and value.
    pub label_pairs: u64,
    /// Chunks, open ones included.
    pub chunks: u64,
    /// Oldest time; `None` while it is empty.
    pub min_time: Option<i64>,
    /// Newest time; `None` while it is empty.
    pub max_time: Option<i64>,
    /// Series by metric name, the largest.
    pub series_by_metric: Vec<NameCount>,
    /// Values by label name, the largest.
    pub values_by_label: Vec<NameCount>,
    /// Bytes by label name, the largest.
    pub bytes_by_label: Vec<NameCount>,
    /// Series by pair, the largest.
    pub series_by_pair: Vec<NameCount>,
}

/// Newest samples for another server.
#[derive(Debug, Default)]
pub struct NewestSamples {
    /// By metric name.
    pub samples: Vec<NewestSample>,
    /// Labels for series that have none of that name, sorted by name.
    pub external_labels: Vec<(String, String)>,
    /// Keeps the samples' memory charged.
    pub held: Option<crate::promql::eval::Charge>,
}

/// A target that is scraped.
#[derive(Clone, Debug, PartialEq)]
pub struct ActiveTarget {
    /// Labels before relabelling.
    pub discovered_labels: Labels,
    /// Labels that its samples get.
    pub labels: Labels,
    /// Its pool: the job's name.
    pub scrape_pool: String,
    /// The address that is scraped, with parameters.
    pub scrape_url: String,
    /// Why the last scrape failed; empty if it did not.
    pub last_error: String,
    /// When the last scrape began.
    pub last_scrape: Option<UnixNanos>,
    /// How long it took, in seconds.
    pub last_scrape_duration: f64,
    /// Its health.
    pub health: TargetHealth,
    /// Interval as written in its labels.
    pub scrape_interval: String,
    /// Timeout as written in its labels.
    pub scrape_timeout: String,
}

/// A target that relabelling dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DroppedTarget {
    /// Labels before relabelling.
    pub discovered_labels: Labels,
    /// Its pool.
    pub scrape_pool: String,
}

/// All targets.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Targets {
    /// Names of the pools, those without targets included.
    pub pools: Vec<String>,
    /// Targets that are scraped; the order within a pool is kept.
    pub active: Vec<ActiveTarget>,
    /// Targets that were dropped (as many as are kept).
    pub dropped: Vec<DroppedTarget>,
    /// How many were dropped, by pool.
    pub dropped_counts: BTreeMap<String, u64>,
    /// What is missing and why, by pool: discovery that fails or is not built.
    pub missing: Vec<(String, String)>,
}

/// State of an alert or an alerting rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AlertState {
    /// Not evaluated yet.
    Unknown,
    /// Nothing to tell.
    Inactive,
    /// True, but not for long enough.
    Pending,
    /// Firing.
    Firing,
}

impl AlertState {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Inactive => "inactive",
            Self::Pending => "pending",
            Self::Firing => "firing",
        }
    }
}

/// An active alert.
#[derive(Clone, Debug, PartialEq)]
pub struct Alert {
    /// Its labels.
    pub labels: Labels,
    /// Its annotations, expanded.
    pub annotations: Labels,
    /// Pending or firing.
    pub state: AlertState,
    /// Since when its condition holds.
    pub active_at: Option<UnixNanos>,
    /// Since when it fires only because of `keep_firing_for`.
    pub keep_firing_since: Option<UnixNanos>,
    /// The value of its expression.
    pub value: f64,
}

/// Health of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RuleHealth {
    /// Not evaluated yet.
    Unknown,
    /// The last evaluation worked.
    Ok,
    /// The last evaluation failed.
    Err,
}

impl RuleHealth {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Ok => "ok",
            Self::Err => "err",
        }
    }
}

/// What an alerting rule has and a recording rule has not.
#[derive(Clone, Debug, PartialEq)]
pub struct Alerting {
    /// State of the rule: the worst of its alerts.
    pub state: AlertState,
    /// `for` in seconds.
    pub hold: f64,
    /// `keep_firing_for` in seconds.
    pub keep_firing_for: f64,
    /// Annotations as written.
    pub annotations: Labels,
    /// Its active alerts.
    pub alerts: Vec<Alert>,
}

/// A rule.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// Name of the alert or of the recorded series.
    pub name: String,
    /// Its expression as the printer prints it.
    pub query: String,
    /// Labels as written.
    pub labels: Labels,
    /// Its health.
    pub health: RuleHealth,
    /// Why the last evaluation failed; empty if it did not.
    pub last_error: String,
    /// How long the last evaluation took, in seconds.
    pub evaluation_time: f64,
    /// When it began.
    pub last_evaluation: Option<UnixNanos>,
    /// Set for alerting rules.
    pub alerting: Option<Alerting>,
}

/// A rule group.
#[derive(Clone, Debug, PartialEq)]
pub struct RuleGroup {
    /// Its name.
    pub name: String,
    /// The file that it stands in.
    pub file: String,
    /// Evaluation interval in seconds.
    pub interval: f64,
    /// Most alerts or series of a rule; 0 for no limit.
    pub limit: i64,
    /// How long the last evaluation took, in seconds.
    pub evaluation_time: f64,
    /// When it began.
    pub last_evaluation: Option<UnixNanos>,
    /// Its rules, in order.
    pub rules: Vec<Rule>,
}

/// A group of alerts of the dispatcher in process.
#[derive(Clone, Debug, PartialEq)]
pub struct AlertGroup {
    /// Labels that its alerts have in common.
    pub labels: Labels,
    /// Who is told.
    pub receiver: String,
    /// Labels of its alerts.
    pub alerts: Vec<Labels>,
    /// How long until it is told next, in seconds.
    pub next_flush: f64,
    /// Why the last message failed; empty if it did not.
    pub failure: String,
}

/// The Alertmanagers that discovery found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Alertmanagers {
    /// URLs that alerts are sent to.
    pub active: Vec<String>,
    /// URLs that relabelling dropped.
    pub dropped: Vec<String>,
}

/// What the process knows of itself, beyond what the machine tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Runtime {
    /// When it started.
    pub start_time: UnixNanos,
    /// Whether the last reload worked.
    pub reload_success: bool,
    /// When the configuration in effect was loaded.
    pub last_config_time: Option<UnixNanos>,
    /// Damage found in the WAL since the start.
    pub corruption_count: i64,
    /// As `15d or 1GiB`.
    pub storage_retention: String,
}

/// An actor as `GET /api/watchfire/v1/actors` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActorInfo {
    /// What it is: `scrape_target`.
    pub kind: String,
    /// Which one, unique among its kind.
    pub name: String,
    /// Name of its parent; empty for the root.
    pub parent: String,
    /// `starting`, `running`, `rebuilding`, `backing-off`, `failed` or `draining`.
    pub state: String,
    /// Messages that wait.
    pub queue: u64,
    /// Messages that may wait.
    pub slots: u64,
    /// Messages refused because the queue was full.
    pub refused: u64,
    /// Messages that waited past their deadline.
    pub expired: u64,
    /// Messages handled.
    pub handled: u64,
    /// Restarts since the start.
    pub restarts: u64,
    /// The last panic's text; empty if there was none.
    pub last_panic: String,
    /// Why its work fails though it is well itself; empty if it does not.
    pub failing: String,
    /// Since when it is in its state.
    pub since: Option<UnixNanos>,
}

/// Names of things, the first ones of them all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReloadNames {
    /// How many there are.
    pub count: usize,
    /// The first of them.
    pub first: Vec<String>,
}

/// What a reload did to the things of one sort.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReloadSection {
    /// Which: `job`, `target`, `rule_group` and so on.
    pub what: String,
    /// New ones.
    pub added: ReloadNames,
    /// Those that went.
    pub removed: ReloadNames,
    /// Those that were there before and after, and differ.
    pub changed: ReloadNames,
    /// How many stayed as they were.
    pub kept: usize,
}

/// How the last reload went, as `GET /api/watchfire/v1/reload` shows it.
#[derive(Clone, Debug, PartialEq)]
pub struct Reload {
    /// Who asked: `signal`, `http`, `file` or `restart`.
    pub trigger: String,
    /// When it began.
    pub started: UnixNanos,
    /// How long it took, in seconds.
    pub duration: f64,
    /// Why it failed, if it did.
    pub error: Option<String>,
    /// What it did; nothing when the configuration was refused.
    pub plan: Vec<ReloadSection>,
    /// Actors that did not confirm in time.
    pub unconfirmed: Vec<String>,
    /// Whether another one is being applied now.
    pub in_progress: bool,
}
