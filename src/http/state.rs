//! What handlers share: the ports they ask, readiness, and the settings of the server.
//!
//! [`ServerPorts`] is everything that HTTP wants to know from the rest of the process. Its answers are futures, so a port
//! asks an actor with a deadline; a client that goes away drops the future, and with it the query.

use std::sync::Arc;

use arc_swap::ArcSwap;
use futures::future::BoxFuture;

use crate::actors::remote_read_server::RemoteReadServer;
use crate::actors::remote_receiver::RemoteReceiver;
use crate::config::ScrapeConfig;
use crate::http::api::admin::{AdminPorts, WalReplay};
use crate::http::api::types::{
    ActorInfo, AlertGroup, Alertmanagers, InstantQuery, LabelValuesRequest, Listed, NewestSamples, QueryAnswer,
    RangeQuery, Reload, RuleGroup, RunningQuery, Runtime, SelectRequest, TargetMetadata, Targets, TsdbStatus,
};
use crate::http::error::ApiError;
use crate::http::metrics::HttpMetrics;
use crate::http::notices::Notices;
use crate::model::clock::SharedClock;
use crate::model::exemplar::SeriesExemplars;
use crate::model::external_url::ExternalUrl;
use crate::model::labels::Labels;
use crate::model::matcher::Matcher;
use crate::model::names::Names;
use crate::model::regexp::Regexp;
use crate::model::time::TimestampMs;
use crate::promql::parser::ParseOptions;
use crate::telemetry::metrics::{Gauge, MetricFamily, Registry};

/// An answer that takes time.
pub type Answer<'a, T> = BoxFuture<'a, Result<T, ApiError>>;

/// The process's own metrics in an exposition format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exposition {
    /// `Content-Type` of the body.
    pub content_type: String,
    /// The encoded metrics.
    pub body: Vec<u8>,
}

/// What became of a request to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuitVerdict {
    /// The server stops now.
    Requested,
    /// It was stopping already.
    AlreadyStopping,
}

/// What HTTP asks of the rest of the process.
pub trait ServerPorts: Send + Sync + 'static {
    /// Evaluates a query at one time. A query that does not parse fails as `invalid_parameter("query", …)`.
    fn query_instant(&self, query: InstantQuery) -> Answer<'_, QueryAnswer>;
    /// Evaluates a query over a range.
    fn query_range(&self, query: RangeQuery) -> Answer<'_, QueryAnswer>;
    /// Label sets of series that match any of the selectors (never none), sorted, without repetitions.
    fn series(&self, request: SelectRequest) -> Answer<'_, Listed<Vec<Labels>>>;
    /// Names of labels of series that match any selector (none: all series), sorted.
    fn label_names(&self, request: SelectRequest) -> Answer<'_, Listed<Names>>;
    /// Values of a label of series that match any selector (none: all series), sorted.
    fn label_values(&self, request: LabelValuesRequest) -> Answer<'_, Listed<Names>>;
    /// Parses a series selector; the error is PromQL's text with its position.
    fn parse_selector(&self, text: &str) -> Result<Vec<Matcher>, String>;
    /// The language of queries.
    fn parse_options(&self) -> ParseOptions {
        ParseOptions::default()
    }
    /// Exemplars from `start` to `end` of the series that any of the selectors selects, sorted by labels.
    fn exemplars(
        &self,
        selectors: Vec<Vec<Matcher>>,
        start: TimestampMs,
        end: TimestampMs,
    ) -> Answer<'_, Vec<SeriesExemplars>>;
    /// All targets, active and dropped.
    fn targets(&self) -> Answer<'_, Targets>;
    /// What active targets tell of their metrics, or of one metric if it is named, by pool.
    fn target_metadata(&self, metric: &str) -> Answer<'_, Vec<TargetMetadata>>;
    /// The configuration of a scrape pool.
    fn scrape_config(&self, pool: &str) -> Option<Arc<ScrapeConfig>>;
    /// The newest sample of each series that any of the selectors selects, within the lookback.
    fn newest(&self, selectors: Vec<Vec<Matcher>>) -> Answer<'_, NewestSamples>;
    /// Figures of the head, with at most `limit` of the largest of each kind.
    fn tsdb_status(&self, limit: usize) -> Answer<'_, TsdbStatus>;
    /// Descriptions of the open blocks, each as JSON, by their start.
    fn blocks(&self) -> Answer<'_, Vec<serde_json::Value>>;
    /// What changes stored data; `None` while that is switched off.
    fn admin(&self) -> Option<&dyn AdminPorts> {
        None
    }
    /// How far reading the log back is, or was; answers while it is read.
    fn wal_replay(&self) -> Result<WalReplay, ApiError> {
        Ok(WalReplay::default())
    }
    /// What of the stored data is damaged or was found damaged at the start, one place a line.
    fn damage(&self) -> Vec<String> {
        Vec::new()
    }
    /// All rule groups with their rules and alerts.
    fn rule_groups(&self) -> Answer<'_, Vec<RuleGroup>>;
    /// Groups of alerts as the dispatcher in process has them.
    fn alert_groups(&self) -> Vec<AlertGroup>;
    /// The Alertmanagers that discovery found.
    fn alertmanagers(&self) -> Answer<'_, Alertmanagers>;
    /// The configuration in effect as YAML, secrets redacted.
    fn config_yaml(&self) -> Answer<'_, String>;
    /// Name and value of every flag, sorted by name.
    fn flags(&self) -> Vec<(String, String)>;
    /// What the process knows of itself.
    fn runtime(&self) -> Answer<'_, Runtime>;
    /// Reads the configuration again; answers after it has taken effect. The error is a text for the operator.
    fn reload(&self) -> BoxFuture<'_, Result<(), String>>;
    /// How the last reload went; `None` before the first.
    fn last_reload(&self) -> Option<Reload>;
    /// Asks the root to stop.
    fn quit(&self) -> QuitVerdict;
    /// Takes remote write; `None` while that is switched off.
    fn remote_write(&self) -> Option<Arc<RemoteReceiver>>;
    /// Takes OTLP metrics; `None` while that is switched off.
    fn otlp(&self) -> Option<Arc<RemoteReceiver>>;
    /// Answers remote read; `None` where there is nothing to read.
    fn remote_read(&self) -> Option<Arc<RemoteReadServer>> {
        None
    }
    /// Every actor; answers from a registry, so that it works while actors are stuck.
    fn actors(&self) -> Vec<ActorInfo>;
    /// Categories of features, and which of them are there and switched on.
    fn features(&self) -> Vec<(&'static str, Vec<(String, bool)>)> {
        Vec::new()
    }
    /// The queries of users that run or wait.
    fn running_queries(&self) -> Vec<RunningQuery> {
        Vec::new()
    }
    /// Ends such a query; false if there is none of that number.
    fn cancel_query(&self, id: u64) -> bool {
        let _ = id;
        false
    }
    /// The process's own metrics.
    fn gathered(&self) -> Vec<MetricFamily> {
        Vec::new()
    }
    /// The process's own metrics in a format that `accept` names; text 0.0.4 if it names none that we have.
    fn metrics(&self, accept: Option<&str>) -> Answer<'_, Exposition>;
}

/// How far the server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ready {
    /// Still starting: most endpoints answer 503.
    NotYet,
    /// All is well.
    Yes,
    /// Serving, but `/-/ready` answers 503 with the reason: a part has failed that cannot be done without.
    Impaired(String),
    /// Draining: most endpoints answer 503.
    Stopping,
}

/// Readiness, shared between the root, which sets it, and the server, which obeys.
#[derive(Clone, Debug)]
pub struct Readiness {
    state: Arc<ArcSwap<Ready>>,
    gauge: Gauge,
}

impl Readiness {
    /// Not ready yet; `prometheus_ready` is registered.
    pub fn new(registry: &Registry) -> Self {
        let help = "Whether Prometheus startup was fully completed and the server is ready for normal operation.";
        let gauge = registry.gauge("prometheus_ready", help, &[]);
        Self { state: Arc::new(ArcSwap::from_pointee(Ready::NotYet)), gauge }
    }

    /// Says how far the server is.
    pub fn set(&self, state: Ready) {
        self.gauge.set(if state == Ready::Yes { 1.0 } else { 0.0 });
        self.state.store(Arc::new(state));
    }

    /// How far the server is.
    pub fn get(&self) -> Arc<Ready> {
        self.state.load_full()
    }
}

/// Settings of the endpoints.
#[derive(Clone, Debug)]
pub struct HttpSettings {
    /// Where users find us; links and redirects use its path.
    pub external_url: ExternalUrl,
    /// Starts with `/`; ends with it only if it is nothing else.
    pub route_prefix: String,
    /// Origins that browsers may ask from.
    pub cors_origin: Regexp,
    /// Names by which the server may be asked for, beside addresses and `localhost`; `None` for any.
    pub hosts: Option<Regexp>,
    /// Whether `/-/reload` and `/-/quit` work.
    pub enable_lifecycle: bool,
    /// Whether queries can be ended from outside.
    pub enable_admin_api: bool,
    /// Whether `/debug/pprof/` answers.
    pub enable_pprof: bool,
    /// Largest limit of a search, 0 for any; `None` while searching is switched off.
    pub search_limit_max: Option<usize>,
    /// Title of the pages.
    pub page_title: String,
    /// The first listen address, by which we recognise ourselves among the targets.
    pub listen_address: String,
    /// Whether queries, rules and alerts are refused, as there are none (`--agent`).
    pub is_agent: bool,
}

/// What every handler can use.
pub struct HttpState {
    pub(super) ports: Arc<dyn ServerPorts>,
    pub(super) readiness: Readiness,
    pub(super) settings: HttpSettings,
    pub(super) clock: SharedClock,
    pub(super) metrics: HttpMetrics,
    pub(super) notices: Notices,
}

impl HttpState {
    /// Puts the parts together and registers the metrics of the server.
    pub fn new(
        ports: Arc<dyn ServerPorts>,
        readiness: Readiness,
        settings: HttpSettings,
        notices: Notices,
        clock: SharedClock,
        registry: &Arc<Registry>,
    ) -> Arc<Self> {
        Arc::new(Self { ports, readiness, settings, clock, metrics: HttpMetrics::new(registry), notices })
    }
}
