//! One round of a group: each rule from its query to storage's answer. Runs in the actor's task, and may be given up at any
//! await: what has been learned so far is stored by then.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{APPEND_WITHIN, ASK_MARGIN, Current, GroupDeps, RuleSlot, Times};
use crate::actors::query_gateway::RunRule;
use crate::actors::storage_client::{AppendFailure, Priority};
use crate::model::append::AppendReport;
use crate::rules::RuleError;
use crate::rules::alerting::ActiveAlerts;
use crate::rules::evaluate::{Evaluated, Settled, evaluate, stale_markers};
use crate::rules::metrics::Iteration;
use crate::rules::query::QueryError;
use crate::rules::restore::restore;
use crate::rules::spec::RuleSpec;
use crate::rules::state::{Health, RuleState};
use crate::telemetry::repeat::Verdict;

impl GroupDeps {
    /// One evaluation of all rules. Ends early when the group is changed or removed meanwhile.
    pub(super) async fn iterate(&self, current: Arc<Current>, at: i64) {
        let clock = &self.runtime.clock;
        let (began, began_nanos) = (clock.monotonic(), clock.unix_nanos());
        let (mut samples, mut rules_took) = (0, Duration::ZERO);
        for (index, rule, slot) in current.rules() {
            if self.is_superseded(&current) {
                return;
            }
            let (rule_began, rule_began_nanos) = (clock.monotonic(), clock.unix_nanos());
            self.metrics.evaluations.inc();
            samples += self.evaluate(&current, (index, rule, slot), at).await;
            let took = clock.monotonic().saturating_sub(rule_began);
            self.metrics.rule_took(took);
            rules_took += took;
            slot.update(|state| (state.evaluated_at, state.took) = (Some(rule_began_nanos), took));
        }
        self.end_leftover(&current, at).await;
        let took = clock.monotonic().saturating_sub(began);
        *current.times.lock() = Times { evaluated_at: Some(began_nanos), took };
        self.metrics.iterated(&Iteration { began_seconds: began_nanos as f64 / 1e9, took, rules_took, samples });
        self.failed.store(None);
        let left = self.restore_in.lock().as_mut().map(|left| {
            *left = left.saturating_sub(1);
            *left
        });
        if left == Some(0) {
            self.restore(&current).await;
        }
    }

    /// One rule from its query to storage's answer. Returns how many samples it gave.
    async fn evaluate(
        &self,
        current: &Arc<Current>,
        (index, rule, slot): (usize, &RuleSpec, &RuleSlot),
        at: i64,
    ) -> usize {
        let before = slot.state.load_full();
        let job = {
            let (spec, before, around) =
                (Arc::clone(&current.spec), Arc::clone(&before), self.runtime.around.load_full());
            let job = RunRule::new(move |queries| evaluate(&spec, &spec.rules[index], &before, at, &around, queries));
            job.of_group(&current.spec.file, &current.spec.name)
        };
        let evaluated = self.ask(job).await.and_then(|evaluated| evaluated);
        if self.is_superseded(current) {
            return 0;
        }
        let mut evaluated = match evaluated {
            Ok(evaluated) => evaluated,
            Err(error) => {
                self.not_evaluated(rule, slot, index, &error);
                return 0;
            }
        };
        self.metrics.expanded(evaluated.expansions.count, evaluated.expansions.failed);
        slot.update(|state| {
            (state.alerts, state.series) = (Arc::clone(&evaluated.alerts), Arc::clone(&evaluated.held));
            (state.health, state.last_error) = (Health::Good, String::new());
        });
        if !evaluated.send.is_empty() {
            self.runtime.sink.send(std::mem::take(&mut evaluated.send));
        }
        let batch = std::mem::take(&mut evaluated.batch);
        let stored = self.runtime.storage.append(batch, Priority::Normal, Instant::now() + APPEND_WITHIN).await;
        self.stored(rule, slot, index, (&before, &evaluated), stored);
        evaluated.sample_count
    }

    async fn ask<T: Send + 'static>(&self, job: RunRule<T>) -> Result<T, RuleError> {
        let deadline = Instant::now() + self.runtime.query_timeout + ASK_MARGIN;
        match self.gateway.read(job, deadline).await {
            Ok(answer) => answer.map_err(|failure| RuleError::Query(failure.into())),
            Err(error) => Err(RuleError::Query(QueryError { text: format!("query engine: {error}"), canceled: false })),
        }
    }

    /// The rule keeps its alerts and its series.
    fn not_evaluated(&self, rule: &RuleSpec, slot: &RuleSlot, index: usize, error: &RuleError) {
        self.metrics.failures.inc();
        let text = error.to_string();
        slot.update(|state| {
            (state.health, state.last_error) = (Health::Bad, text.clone());
            if error.clears_alerts() {
                state.alerts = Arc::new(ActiveAlerts::new());
            }
        });
        if !error.is_canceled() {
            self.log(rule, slot, index, "Evaluating rule failed", &text);
        }
    }

    fn stored(
        &self,
        rule: &RuleSpec,
        slot: &RuleSlot,
        index: usize,
        (before, evaluated): (&RuleState, &Evaluated),
        stored: Result<AppendReport, AppendFailure>,
    ) {
        let settled = match stored {
            Ok(report) => evaluated.settle(&report),
            Err(failure) => {
                self.metrics.failures.inc();
                slot.update(|state| {
                    (state.health, state.last_error) = (Health::Bad, failure.to_string());
                    if failure.nothing_was_done() {
                        state.series = Arc::clone(&before.series);
                    }
                });
                return self.log(rule, slot, index, "Rule sample appending failed", &failure.to_string());
            }
        };
        let Settled { series, out_of_order, too_old, duplicates, other, last_error } = settled;
        slot.update(|state| {
            state.series = series;
            if !last_error.is_empty() {
                (state.health, state.last_error) = (Health::Bad, last_error);
            }
        });
        let dropped = |count: usize| format!("num_dropped {count}");
        if 0 < out_of_order {
            let what = "Error on ingesting out-of-order result from rule evaluation";
            self.log(rule, slot, index, what, &dropped(out_of_order));
        } else if 0 < too_old {
            let what = "Error on ingesting too old result from rule evaluation";
            self.log(rule, slot, index, what, &dropped(too_old));
        } else if 0 < duplicates {
            let what = "Error on ingesting results from rule evaluation with different value but same timestamp";
            self.log(rule, slot, index, what, &dropped(duplicates));
        } else if let Some((reason, count)) = other {
            let what = "Rule evaluation result discarded";
            self.log(rule, slot, index, what, &format!("{reason}, num_dropped {count}"));
        } else if let Some(error) = evaluated.expansions.errors.first() {
            self.log(rule, slot, index, "Expanding alert template failed", error);
        } else {
            slot.log.lock().succeeded();
        }
    }

    /// Logs what is wrong with a rule when it changes, then once a minute.
    fn log(&self, rule: &RuleSpec, slot: &RuleSlot, index: usize, what: &str, err: &str) {
        let now = self.runtime.clock.monotonic();
        let Verdict::Log { repeated } = slot.log.lock().failed(&format!("{what}: {err}"), now) else { return };
        let spec = self.spec.load();
        let (file, group, name) = (spec.file.as_str(), spec.name.as_str(), rule.name.as_str());
        tracing::warn!(component = "rule manager", file, group, name, index, err, repeated, "{what}");
    }

    /// Ends the series of rules that are gone.
    async fn end_leftover(&self, current: &Current, at: i64) {
        let leftover = current.leftover.lock().clone();
        if leftover.is_empty() {
            return;
        }
        let batch = stale_markers(&leftover, current.spec.data_time(at));
        match self.runtime.storage.append(batch, Priority::Reserved, Instant::now() + APPEND_WITHIN).await {
            // Markers are refused of series that another rule goes on with.
            Ok(_) => current.leftover.lock().clear(),
            Err(failure) => self.warn_stale(&failure),
        }
    }

    fn warn_stale(&self, failure: &AppendFailure) {
        let spec = self.spec.load();
        let (file, group) = (spec.file.as_str(), spec.name.as_str());
        let what = "Stale sample appending for previous configuration failed";
        tracing::warn!(component = "rule manager", file, group, err = %failure, "{what}");
    }

    /// Looks up since when the alerts were active before the process started.
    async fn restore(&self, current: &Arc<Current>) {
        let began = self.runtime.clock.monotonic();
        for (index, rule, slot) in current.rules() {
            let before = slot.state.load_full();
            if before.restored || rule.alerting().is_none() {
                continue;
            }
            let (spec, limits) = (Arc::clone(&current.spec), self.runtime.restore);
            let (alerts, now) = (Arc::clone(&before.alerts), self.runtime.clock.unix_nanos());
            let job = RunRule::new(move |queries| {
                let rule = &spec.rules[index];
                rule.alerting().map(|alert| restore(rule, alert, &alerts, now, &limits, queries))
            });
            let restored = self.ask(job).await.and_then(|restored| Ok(restored.transpose()?));
            if self.is_superseded(current) {
                return;
            }
            // There is no second try: the alerts fire in the end.
            let alerts = restored.unwrap_or_else(|error| {
                let (file, group) = (current.spec.file.as_str(), current.spec.name.as_str());
                let alertname = rule.name.as_str();
                let what = "Failed to restore 'for' state";
                tracing::error!(component = "rule manager", file, group, alertname, err = %error, "{what}");
                None
            });
            slot.update(|state| {
                state.restored = true;
                if let Some(alerts) = alerts {
                    state.alerts = Arc::new(alerts);
                }
            });
        }
        *self.restore_in.lock() = None;
        self.metrics.restored(self.runtime.clock.monotonic().saturating_sub(began));
    }

    /// Writes the stale markers of a group that is gone, for the time at which it went: series that another group goes on
    /// with have newer samples by now, and refuse them. Returns whether there is nothing left to do.
    pub(super) async fn end(&self, removed_at: i64) -> bool {
        let current = self.current.load_full();
        let mut series = current.leftover.lock().clone();
        series
            .extend(current.rules.iter().flat_map(|slot| slot.state.load().series.iter().cloned().collect::<Vec<_>>()));
        if series.is_empty() {
            return true;
        }
        let batch = stale_markers(&series, current.spec.data_time(removed_at));
        let ended = self.runtime.storage.append(batch, Priority::Reserved, Instant::now() + APPEND_WITHIN).await;
        if let Err(failure) = &ended {
            self.warn_stale(failure);
        }
        ended.is_ok()
    }
}
