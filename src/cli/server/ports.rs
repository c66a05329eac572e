//! What HTTP asks of the process, answered by asking actors. The only place where the endpoints' plain types and the
//! actors' messages meet.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::actors::alert_dispatcher::{DispatcherHandle, GroupView};
use crate::actors::config_reloader::{self, PlanSection, RunReload, Trigger};
use crate::actors::discovery::DiscoveryDeps;
use crate::actors::mailbox::SendError;
use crate::actors::notifier_manager::NotifierOverview;
use crate::actors::pool::{ComputePool, Lane};
use crate::actors::query_gateway::{
    FoundListing, Listed as ListedNames, Listing, QueryClient, QueryFailure, QueryOutcome, QuerySpan, RunListing,
    RunNewest, RunQuery,
};
use crate::actors::query_log::QueryOrigin;
use crate::actors::registry::ActorTree;
use crate::actors::remote_read_server::RemoteReadServer;
use crate::actors::remote_receiver::RemoteReceiver;
use crate::actors::rule_manager::RulesOverview;
use crate::actors::scrape_manager::ScrapeOverview;
use crate::actors::scrape_target::TargetShared;
use crate::cli::flags::ServerFlags;
use crate::cli::server::admin::Admin;
use crate::cli::server::blocks;
use crate::cli::server::feature_list::{self, FeatureList};
use crate::cli::server::parts::Reloader;
use crate::cli::server::rules;
use crate::cli::server::running::Running;
use crate::config::ScrapeConfig;
use crate::exposition::delimited;
use crate::exposition::encode::encode;
use crate::exposition::negotiate::{Written, negotiate};
use crate::http::api::admin::{AdminPorts, WalReplay};
use crate::http::api::types::{
    ActiveTarget, ActorInfo, AlertGroup, Alertmanagers, AnswerMemory, DroppedTarget, Held, InstantQuery,
    LabelValuesRequest, Listed, MetricMetadata, NameCount, NewestSamples, QueryAnswer, QueryStats, RangeQuery, Reload,
    ReloadNames, ReloadSection, RequestOrigin, RuleGroup, RunningQuery, Runtime, SelectRequest, TargetHealth,
    TargetMetadata, Targets, TsdbStatus, UnixNanos,
};
use crate::http::error::ApiError;
use crate::http::state::{Answer, Exposition, QuitVerdict, ServerPorts};
use crate::model::clock::SharedClock;
use crate::model::exemplar::SeriesExemplars;
use crate::model::labels::Labels;
use crate::model::matcher::Matcher;
use crate::model::names::Names;
use crate::model::read::ReadError;
use crate::model::time::{TimeRange, TimestampMs};
use crate::promql::eval::{Charge, EvalError};
use crate::promql::parser::{ParseOptions, parse_metric_selector};
use crate::scrape::cache::FamilyMetadata;
use crate::scrape::target::{SCRAPE_INTERVAL, SCRAPE_TIMEOUT, Target};
use crate::storage::block::catalog::Catalog;
use crate::storage::head::Head;
use crate::storage::head::cardinality::NameCount as StoredCount;
use crate::telemetry::metrics::{MetricFamily, Registry};

/// Longest time that a client waits for a reload, those before it included.
const RELOAD_WITHIN: Duration = Duration::from_secs(600);
/// Added to a query's own timeout: its error is better than ours.
const ASK_MARGIN: Duration = Duration::from_secs(10);

/// The process as HTTP sees it.
pub(super) struct Ports {
    pub(super) queries: QueryClient,
    pub(super) tree: Arc<ActorTree>,
    pub(super) scrapes: Arc<ScrapeOverview>,
    pub(super) discovery: Arc<DiscoveryDeps>,
    pub(super) notifiers: Arc<NotifierOverview>,
    pub(super) rules: Arc<RulesOverview>,
    pub(super) registry: Arc<Registry>,
    pub(super) clock: SharedClock,
    pub(super) pool: Arc<ComputePool>,
    pub(super) head: Arc<Head>,
    pub(super) catalog: Arc<Catalog>,
    pub(super) flags: Arc<ServerFlags>,
    pub(super) running: Arc<Running>,
    pub(super) dispatcher: DispatcherHandle,
    /// Takes remote write and OTLP, if either is switched on.
    pub(super) receiver: Option<Arc<RemoteReceiver>>,
    /// Answers remote read.
    pub(super) reader: Arc<RemoteReadServer>,
    /// Set once the configuration can be read again.
    pub(super) reloader: OnceLock<Reloader>,
    /// What changes stored data, asked only if it is switched on.
    pub(super) admin: Admin,
    pub(super) quit: watch::Sender<bool>,
}

impl Ports {
    fn deadline(&self, timeout: Option<Duration>) -> Instant {
        let longest = self.flags.query.timeout.to_std();
        Instant::now() + timeout.unwrap_or(longest).min(longest) + ASK_MARGIN
    }

    /// Whether steps are counted: when asked for, and when the feature is on.
    fn counts_steps(&self, asked: bool) -> bool {
        asked && self.flags.features.is_enabled("promql-per-step-stats")
    }

    async fn query(&self, query: RunQuery) -> Result<QueryAnswer, ApiError> {
        let deadline = self.deadline(query.timeout);
        let (start, step_ms) = match query.span {
            QuerySpan::Instant { at } => (at, 1),
            QuerySpan::Range { start, step_ms, .. } => (start, step_ms),
        };
        let outcome = self.queries.query(query, deadline).await.map_err(of_send)?.map_err(of_query)?;
        Ok(answer(outcome, start, step_ms))
    }

    async fn list(
        &self,
        listing: Listing,
        request: SelectRequest,
    ) -> Result<(ListedNames, Vec<String>, Held), ApiError> {
        let SelectRequest { selectors, start, end, hint_limit } = request;
        let Ok(range) = TimeRange::new(start, end) else {
            let series = matches!(listing, Listing::Series);
            let listed = if series { ListedNames::Series(Vec::new()) } else { ListedNames::Names(Names::default()) };
            return Ok((listed, Vec::new(), Held::default()));
        };
        let listing = RunListing { listing, selectors, range, limit: hint_limit };
        let found = self.queries.list(listing, self.deadline(None)).await.map_err(of_send)?.map_err(of_query)?;
        let FoundListing { listed, warnings, held } = found;
        Ok((listed, warnings, Held::new(Charged(held))))
    }

    async fn names(&self, listing: Listing, request: SelectRequest) -> Result<Listed<Names>, ApiError> {
        let (listed, warnings, held) = self.list(listing, request).await?;
        match listed {
            ListedNames::Names(items) => Ok(Listed { items, warnings, held }),
            ListedNames::Series(_) => Err(ApiError::internal("names were asked for and series answered")),
        }
    }
}

fn origin(RequestOrigin { client_ip, method, path }: RequestOrigin) -> QueryOrigin {
    QueryOrigin::Http { client_ip, method, path }
}

fn answer(outcome: QueryOutcome, start: TimestampMs, step_ms: i64) -> QueryAnswer {
    let QueryOutcome { evaluated, timings } = outcome;
    let count = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    let times = || (0i64..).map(|step| TimestampMs(start.0.saturating_add(step.saturating_mul(step_ms))));
    let by_step = |counts: &[u64]| times().zip(counts.iter().map(|n| count(*n))).collect();
    let stats = QueryStats {
        eval_total: timings.eval().as_secs_f64(),
        result_sort: timings.sort.as_secs_f64(),
        preparation: timings.prepare.as_secs_f64(),
        inner_eval: timings.inner_eval.as_secs_f64(),
        queue: timings.queue.as_secs_f64(),
        exec_total: timings.total().as_secs_f64(),
        queryable_samples: count(evaluated.stats.total_samples),
        queryable_samples_per_step: evaluated.by_step.as_ref().map(|counts| by_step(&counts.total)),
        samples_read: count(evaluated.stats.samples_read),
        samples_read_per_step: evaluated.by_step.as_ref().map(|counts| by_step(&counts.read)),
        peak_samples: count(evaluated.stats.peak_samples as u64),
    };
    let held = Held::new(Charged(evaluated.held));
    QueryAnswer { value: evaluated.value, annotations: evaluated.annotations, stats, held }
}

/// What an answer holds of its query's account.
struct Charged(Charge);

impl AnswerMemory for Charged {
    fn grow(&mut self, bytes: usize) -> Result<(), String> {
        self.0.grow(bytes).map_err(|over| over.to_string())
    }

    fn settle(&mut self, bytes: usize) {
        self.0.shrink(self.0.bytes().saturating_sub(bytes));
    }
}

/// A time of a target as its label says it, which need not be in the shortest form.
fn as_written(target: &Target, label: &str) -> String {
    target.private_labels.get(label).unwrap_or_default().to_owned()
}

fn of_send(error: SendError) -> ApiError {
    match error {
        SendError::Full => ApiError::timeout("too many queries are waiting (--query.max-concurrency)"),
        SendError::Deadline => ApiError::timeout("query timed out in query queue"),
        SendError::Restarted | SendError::Gone => ApiError::internal(format!("query engine: {error}")),
    }
}

fn of_query(failure: QueryFailure) -> ApiError {
    match failure {
        QueryFailure::Parse(text) => ApiError::invalid_parameter("query", text),
        QueryFailure::QueueTimeout | QueryFailure::Overloaded(_) => ApiError::timeout(failure.to_string()),
        QueryFailure::Panicked(_) => ApiError::internal(failure.to_string()),
        QueryFailure::Eval(error) => match error {
            EvalError::BadQuery(text) => ApiError::invalid_parameter("query", text),
            EvalError::Canceled(_) => ApiError::canceled(error.to_string()),
            EvalError::Timeout(_) => ApiError::timeout(error.to_string()),
            EvalError::TooManySamples
            | EvalError::Budget(_)
            | EvalError::Select(_)
            | EvalError::Decode(_)
            | EvalError::Execution(_) => ApiError::execution(error.to_string()),
        },
        QueryFailure::Read(error) => match error {
            ReadError::Interrupted(text) => ApiError::timeout(text),
            ReadError::ShardUnavailable { .. } => ApiError::internal(error.to_string()),
            ReadError::Budget(_) | ReadError::Corrupt(_) | ReadError::Unsupported(_) => {
                ApiError::execution(error.to_string())
            }
        },
    }
}

impl ServerPorts for Ports {
    fn query_instant(&self, query: InstantQuery) -> Answer<'_, QueryAnswer> {
        let run = RunQuery {
            text: query.query,
            span: QuerySpan::Instant { at: query.at },
            timeout: query.timeout,
            lookback_ms: query.lookback.map(|lookback| lookback.as_ms_i64()),
            lane: Lane::Queries,
            counts_steps: self.counts_steps(query.per_step_stats),
            origin: origin(query.origin),
        };
        self.query(run).boxed()
    }

    fn query_range(&self, query: RangeQuery) -> Answer<'_, QueryAnswer> {
        let run = RunQuery {
            text: query.query,
            span: QuerySpan::Range { start: query.start, end: query.end, step_ms: query.step_ms },
            timeout: query.timeout,
            lookback_ms: query.lookback.map(|lookback| lookback.as_ms_i64()),
            lane: Lane::Queries,
            counts_steps: self.counts_steps(query.per_step_stats),
            origin: origin(query.origin),
        };
        self.query(run).boxed()
    }

    fn series(&self, request: SelectRequest) -> Answer<'_, Listed<Vec<Labels>>> {
        async move {
            let (listed, warnings, held) = self.list(Listing::Series, request).await?;
            match listed {
                ListedNames::Series(items) => Ok(Listed { items, warnings, held }),
                ListedNames::Names(_) => Err(ApiError::internal("series were asked for and names answered")),
            }
        }
        .boxed()
    }

    fn label_names(&self, request: SelectRequest) -> Answer<'_, Listed<Names>> {
        self.names(Listing::LabelNames, request).boxed()
    }

    fn label_values(&self, request: LabelValuesRequest) -> Answer<'_, Listed<Names>> {
        self.names(Listing::LabelValues(request.name), request.select).boxed()
    }

    fn parse_options(&self) -> ParseOptions {
        rules::parse_options(&self.flags)
    }

    fn parse_selector(&self, text: &str) -> Result<Vec<Matcher>, String> {
        parse_metric_selector(text).map_err(|error| error.to_string())
    }

    fn exemplars(
        &self,
        selectors: Vec<Vec<Matcher>>,
        start: TimestampMs,
        end: TimestampMs,
    ) -> Answer<'_, Vec<SeriesExemplars>> {
        if !self.head.exemplars().is_enabled() {
            return async { Ok(Vec::new()) }.boxed();
        }
        let head = Arc::clone(&self.head);
        let select = move |_: &_| head.exemplars().select(&selectors, start.0, end.0);
        let selected = self.pool.run(Lane::Queries, self.deadline(None), select);
        async move { selected.await.map_err(|error| ApiError::internal(error.to_string())) }.boxed()
    }

    fn targets(&self) -> Answer<'_, Targets> {
        let mut targets = Targets { missing: self.discovery.missing(), ..Targets::default() };
        for pool in self.scrapes.pools() {
            targets.pools.push(pool.name.clone());
            targets.dropped_counts.insert(pool.name.clone(), pool.dropped_count);
            targets.dropped.extend(pool.dropped.iter().map(|discovered| DroppedTarget {
                discovered_labels: discovered.clone(),
                scrape_pool: pool.name.clone(),
            }));
            for shared in &pool.active {
                let (target, status) = (&shared.target, shared.status());
                targets.active.push(ActiveTarget {
                    discovered_labels: Labels::clone(&shared.discovered()),
                    labels: target.labels.clone(),
                    scrape_pool: pool.name.clone(),
                    scrape_url: target.scrape_url.clone(),
                    health: match (status.last_scrape_nanos, status.last_error.is_empty()) {
                        (None, true) => TargetHealth::Unknown,
                        (_, false) => TargetHealth::Down,
                        (Some(_), true) => TargetHealth::Up,
                    },
                    last_error: status.last_error,
                    last_scrape: status.last_scrape_nanos.map(UnixNanos),
                    last_scrape_duration: status.last_duration.as_secs_f64(),
                    scrape_interval: as_written(target, SCRAPE_INTERVAL),
                    scrape_timeout: as_written(target, SCRAPE_TIMEOUT),
                });
            }
        }
        async move { Ok(targets) }.boxed()
    }

    fn target_metadata(&self, metric: &str) -> Answer<'_, Vec<TargetMetadata>> {
        let known = |family: FamilyMetadata| MetricMetadata {
            kind: family.kind.name(),
            family: family.family,
            help: family.help,
            unit: family.unit,
        };
        let of = |shared: &Arc<TargetShared>| TargetMetadata {
            labels: shared.target.labels.clone(),
            metadata: match metric {
                "" => shared.cache.metadata().into_iter().map(known).collect(),
                name => shared.cache.metadata().into_iter().filter(|family| family.family == name).map(known).collect(),
            },
        };
        let mut pools = self.scrapes.pools();
        pools.sort_by(|a, b| a.name.cmp(&b.name));
        let found = pools.iter().flat_map(|pool| pool.active.iter().map(of)).collect();
        async move { Ok(found) }.boxed()
    }

    fn scrape_config(&self, pool: &str) -> Option<Arc<ScrapeConfig>> {
        self.running.config().jobs.iter().find(|job| job.job_name == pool).map(Arc::clone)
    }

    fn newest(&self, selectors: Vec<Vec<Matcher>>) -> Answer<'_, NewestSamples> {
        async move {
            let request = RunNewest { selectors, at: self.clock.now() };
            let found =
                self.queries.gateway().read(request, self.deadline(None)).await.map_err(of_send)?.map_err(of_query)?;
            let external = self.running.config().external_labels.clone();
            let mut labels: Vec<_> = external.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
            if !external.contains("instance") {
                labels.push(("instance".to_owned(), String::new()));
                labels.sort();
            }
            Ok(NewestSamples { samples: found.samples, external_labels: labels, held: Some(found.held) })
        }
        .boxed()
    }

    fn tsdb_status(&self, limit: usize) -> Answer<'_, TsdbStatus> {
        let head = Arc::clone(&self.head);
        let counted =
            self.pool.run(Lane::Storage, self.deadline(None), move |_| (head.stats(), head.cardinality(limit)));
        async move {
            let counted = counted.await.map_err(|error| ApiError::internal(error.to_string()))?;
            let (stats, found) = counted;
            let all = |counts: Vec<StoredCount>| {
                counts.into_iter().map(|one| NameCount { name: one.name, value: one.count }).collect()
            };
            Ok(TsdbStatus {
                series: stats.series,
                label_pairs: found.label_pairs,
                chunks: stats.chunks,
                min_time: stats.min_time,
                max_time: stats.max_time,
                series_by_metric: all(found.series_by_metric),
                values_by_label: all(found.values_by_label),
                bytes_by_label: all(found.bytes_by_label),
                series_by_pair: all(found.series_by_pair),
            })
        }
        .boxed()
    }

    fn blocks(&self) -> Answer<'_, Vec<serde_json::Value>> {
        let state = self.catalog.state();
        let described = state.blocks.iter().map(|block| serde_json::to_value(block.meta())).collect::<Result<_, _>>();
        async move { described.map_err(|error| ApiError::internal(format!("error getting block metadata: {error}"))) }
            .boxed()
    }

    fn admin(&self) -> Option<&dyn AdminPorts> {
        self.flags.web.enable_admin_api.then_some(&self.admin)
    }

    fn wal_replay(&self) -> Result<WalReplay, ApiError> {
        let (min, max, current) = self.admin.replay.get();
        Ok(WalReplay { min, max, current })
    }

    fn damage(&self) -> Vec<String> {
        let state = self.catalog.state();
        let mut lines: Vec<String> = state.damaged.iter().map(blocks::damage_line).collect();
        for block in &state.blocks {
            lines.extend(block.damage().iter().map(|part| format!("block {}: {part}", block.meta().ulid)));
        }
        lines.extend_from_slice(self.admin.replay.damage());
        lines
    }

    fn rule_groups(&self) -> Answer<'_, Vec<RuleGroup>> {
        async { Ok(self.rules.groups().iter().map(rules::shown).collect()) }.boxed()
    }

    fn alert_groups(&self) -> Vec<AlertGroup> {
        let group = |group: GroupView| AlertGroup {
            labels: group.labels,
            receiver: group.receiver,
            alerts: group.alerts.into_iter().map(|view| view.alert.labels).collect(),
            next_flush: group.next_flush.as_secs_f64(),
            failure: group.failure.unwrap_or_default(),
        };
        self.dispatcher.overview().into_iter().map(group).collect()
    }

    fn alertmanagers(&self) -> Answer<'_, Alertmanagers> {
        let found = Alertmanagers { active: self.notifiers.active(), dropped: self.notifiers.dropped() };
        async { Ok(found) }.boxed()
    }

    fn config_yaml(&self) -> Answer<'_, String> {
        async { Ok(self.running.config().yaml.clone()) }.boxed()
    }

    fn flags(&self) -> Vec<(String, String)> {
        self.flags.status_values(self.running.config().retention)
    }

    fn runtime(&self) -> Answer<'_, Runtime> {
        async { Ok(self.running.runtime()) }.boxed()
    }

    fn reload(&self) -> BoxFuture<'_, Result<(), String>> {
        async {
            let Some(reloader) = self.reloader.get() else { return Err("the server is starting".to_owned()) };
            let deadline = Instant::now() + RELOAD_WITHIN;
            let asked = reloader.addr.ask(RunReload { trigger: Trigger::Http }, deadline).await;
            asked.unwrap_or_else(|error| Err(format!("config_reloader: {error}")))
        }
        .boxed()
    }

    fn last_reload(&self) -> Option<Reload> {
        let deps = &self.reloader.get()?.deps;
        let last = deps.last()?;
        let names = |names: &config_reloader::Names| ReloadNames { count: names.count, first: names.first.clone() };
        let section = |section: &PlanSection| ReloadSection {
            what: section.what.to_owned(),
            added: names(&section.added),
            removed: names(&section.removed),
            changed: names(&section.changed),
            kept: section.kept,
        };
        Some(Reload {
            trigger: last.trigger.as_str().to_owned(),
            started: UnixNanos(last.began_nanos),
            duration: last.took.as_secs_f64(),
            error: last.error.clone(),
            plan: last.plan.sections.iter().map(section).collect(),
            unconfirmed: last.unconfirmed.clone(),
            in_progress: deps.is_applying(),
        })
    }

    fn quit(&self) -> QuitVerdict {
        if self.quit.send_replace(true) { QuitVerdict::AlreadyStopping } else { QuitVerdict::Requested }
    }

    fn remote_write(&self) -> Option<Arc<RemoteReceiver>> {
        self.receiver.clone().filter(|_| self.flags.web.remote_write_receiver)
    }

    fn otlp(&self) -> Option<Arc<RemoteReceiver>> {
        self.receiver.clone().filter(|_| self.flags.web.otlp_receiver)
    }

    fn remote_read(&self) -> Option<Arc<RemoteReadServer>> {
        Some(Arc::clone(&self.reader))
    }

    fn actors(&self) -> Vec<ActorInfo> {
        let row = |row: crate::actors::registry::ActorRow| ActorInfo {
            kind: row.kind.to_owned(),
            name: row.name,
            parent: row.parent.unwrap_or_default(),
            state: row.state.as_str().to_owned(),
            queue: u64::from(row.queue),
            slots: u64::from(row.slots),
            refused: row.refused,
            expired: row.expired,
            handled: row.handled,
            restarts: row.restarts,
            last_panic: row.last_panic.unwrap_or_default(),
            failing: row.failing.unwrap_or_default(),
            since: Some(UnixNanos(row.since.0.saturating_mul(1_000_000))),
        };
        self.tree.rows().into_iter().map(row).collect()
    }

    fn features(&self) -> FeatureList {
        feature_list::features(&self.flags)
    }

    fn running_queries(&self) -> Vec<RunningQuery> {
        let shown = |query: crate::actors::query_gateway::RunningQuery| {
            let (kind, start, end, step_ms) = match query.span {
                QuerySpan::Instant { at } => ("instant", at, at, 0),
                QuerySpan::Range { start, end, step_ms } => ("range", start, end, step_ms),
            };
            let client_ip = match query.origin {
                QueryOrigin::Http { client_ip, .. } => client_ip,
                _ => String::new(),
            };
            let since = UnixNanos(query.since_nanos);
            RunningQuery { id: query.id, text: query.text, kind, start, end, step_ms, since, client_ip }
        };
        self.queries.deps().running_queries().into_iter().map(shown).collect()
    }

    fn cancel_query(&self, id: u64) -> bool {
        self.queries.deps().cancel_query(id)
    }

    fn gathered(&self) -> Vec<MetricFamily> {
        self.registry.gather()
    }

    fn metrics(&self, accept: Option<&str>) -> Answer<'_, Exposition> {
        let negotiated = negotiate(accept);
        async move {
            let families = self.registry.gather();
            let body = match negotiated.format {
                Written::Delimited => delimited::encode(&families, negotiated.escaping),
                format => encode(&families, format).into_bytes(),
            };
            Ok(Exposition { content_type: negotiated.content_type, body })
        }
        .boxed()
    }
}
