//! Queries that read from remote storages as well. A query is run to learn what it selects, and run again with the answers
//! until it selects nothing new: requests hold neither a turn nor a thread of the pool. Queries of rules, which run within
//! a job, wait for their answers on the lane of the rules.

use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::time::Instant;

use super::listing::over;
use super::{GatewayDeps, QueryFailure};
use crate::actors::pool::Lane;
use crate::actors::remote_reads::{FetchNow, JoinedQueryable, Missing, Reading, Wanted};
use crate::model::read::{Queryable, ReadBudget, ReadError, ReadView};
use crate::model::time::TimeRange;
use crate::promql::eval::{EvalError, OverBudget, QueryContext, QueryLedger};
use crate::telemetry::repeat::Verdict;

/// How often a query is run to learn what it selects. Only functions that select by what was selected need more than one.
const PASSES_MAX: usize = 16;
/// How often a rule that waits for answers looks whether it is still wanted.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Where a query reads from.
pub(super) struct Source {
    queryable: Arc<dyn Queryable>,
    joined: Option<Arc<JoinedQueryable>>,
}

impl Source {
    /// Our own storage alone.
    pub(super) fn local(deps: &GatewayDeps) -> Self {
        Self { queryable: Arc::clone(&deps.queryable), joined: None }
    }

    fn joined(joined: Arc<JoinedQueryable>) -> Self {
        Self { queryable: Arc::clone(&joined) as Arc<dyn Queryable>, joined: Some(joined) }
    }

    pub(super) fn view(&self) -> Result<Arc<dyn ReadView>, ReadError> {
        self.queryable.view()
    }

    /// Whether it is our own storage alone.
    pub(super) fn is_local(&self) -> bool {
        self.joined.is_none()
    }

    /// Whether all that was selected was there.
    pub(super) fn is_complete(&self) -> bool {
        self.joined.as_ref().is_none_or(|joined| !joined.has_noted())
    }

    /// Warnings of a listing of labels.
    pub(super) fn of_labels(&self, range: TimeRange) -> Vec<String> {
        self.joined.as_ref().map_or_else(Vec::new, |joined| joined.reading.of_labels(range))
    }
}

fn of_budget(over: OverBudget) -> QueryFailure {
    QueryFailure::Eval(EvalError::Budget(over.to_string()))
}

impl GatewayDeps {
    /// As [`GatewayDeps::admit`], for a job that reads. Answers with warnings as well. The job may run more than once.
    pub(super) async fn admit_reading<T: Send + 'static>(
        self: Arc<Self>,
        lane: Lane,
        deadline: Instant,
        job: impl Fn(&Self, QueryContext, Duration, &Source) -> Result<T, QueryFailure> + Send + Sync + 'static,
    ) -> Result<(T, Vec<String>), QueryFailure> {
        let Some(reading) = self.remotes.get().and_then(|remotes| remotes.reading()) else {
            let run = move |deps: &Self, ctx, queue| job(deps, ctx, queue, &Source::local(deps));
            return Ok((self.admit(lane, deadline, run).await?, Vec::new()));
        };
        let (job, ledger) = (Arc::new(job), QueryLedger::open(&self.memory, self.limits.query_bytes_max));
        let mut fetched = None;
        for _ in 0..PASSES_MAX {
            let missing = Arc::new(Missing::Note(Mutex::default()));
            let (local, reading_of_pass) = (Arc::clone(&self.queryable), Arc::clone(&reading));
            let joined = Arc::new(JoinedQueryable { local, reading: reading_of_pass, missing });
            let (source, job, account) = (Source::joined(Arc::clone(&joined)), Arc::clone(&job), Arc::clone(&ledger));
            let (reading_of_pass, answers) = (Arc::clone(&reading), fetched.take());
            let run = move |deps: &Self, mut ctx: QueryContext, queue| {
                if let Some(answers) = answers {
                    reading_of_pass.take(answers, &account).map_err(of_budget)?;
                }
                ctx.ledger = account;
                job(deps, ctx, queue, &source)
            };
            let ran = Arc::clone(&self).admit(lane, deadline, run).await;
            let noted = joined.take_noted();
            match ran {
                // What the evaluation of nothing comes to is no result.
                Ok(_) | Err(QueryFailure::Eval(EvalError::Execution(_))) if !noted.is_empty() => {}
                ran => return Ok((ran?, reading.warnings())),
            }
            fetched = Some(reading.fetch(noted, deadline, &ledger).await.map_err(of_budget)?);
        }
        let text = "the query selects from remote storage by what it selects, too many times over";
        Err(QueryFailure::Eval(EvalError::Execution(text.to_owned())))
    }

    /// Where the queries of a rule's job read from.
    pub(super) fn source_of_rules(&self, deadline: Instant, ctx: &QueryContext) -> Source {
        let reading = self.remotes.get().and_then(|remotes| remotes.reading());
        let (Some(reading), Some(runtime)) = (reading, self.runtime.get()) else { return Source::local(self) };
        let fetch = fetch_on(runtime.clone(), deadline, Arc::clone(&ctx.ledger));
        let (local, missing) = (Arc::clone(&self.queryable), Arc::new(Missing::Fetch(fetch)));
        Source::joined(Arc::new(JoinedQueryable { local, reading, missing }))
    }

    /// Tells in the log what was missing for a rule.
    pub(super) fn tell_warnings(&self, source: &Source) {
        let Some(joined) = &source.joined else { return };
        for warning in joined.reading.warnings() {
            if let Verdict::Log { repeated } = self.told.lock().failed(&warning, self.clock.monotonic()) {
                tracing::warn!(component = "rule manager", warning, repeated, "Rule evaluated without remote storage");
            }
        }
    }
}

/// Asks on `runtime` and waits on the calling thread, one of the pool's.
fn fetch_on(runtime: Handle, deadline: Instant, ledger: Arc<QueryLedger>) -> Box<FetchNow> {
    Box::new(move |reading: &Arc<Reading>, wanted: Wanted, budget: &dyn ReadBudget| {
        let (answer_to, answer) = mpsc::sync_channel(1);
        let (asking, account) = (Arc::clone(reading), Arc::clone(&ledger));
        let asked = runtime.spawn(async move {
            let fetched = asking.fetch(vec![wanted], deadline, &account).await;
            // Nobody waits any more.
            let _ = answer_to.send(fetched);
        });
        loop {
            match answer.recv_timeout(LOOK_EVERY) {
                Ok(fetched) => return reading.take(fetched.map_err(over)?, &ledger).map_err(over),
                Err(RecvTimeoutError::Timeout) => {
                    if let Err(error) = budget.check() {
                        asked.abort();
                        return Err(error);
                    }
                }
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(ReadError::Interrupted("query was canceled in query execution".to_owned()));
                }
            }
        }
    })
}
