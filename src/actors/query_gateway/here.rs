//! Requests of next to no work, answered on the thread that asks: the four changes of threads by way of the gateway and the
//! pool take longer than such a request does. A thread of HTTP has other clients, so all of it is bounded by estimate and by
//! time, and nothing waits for a disk; what is more after all goes the usual way, and nothing of the attempt is counted.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tokio::time::Instant;

use super::listing::{ListingBudget, list, scopes};
use super::quick::{Bounds, Files};
use super::{FoundListing, GatewayDeps, Listing, QueryFailure, QueryGateway, QueryOutcome, RunListing, RunQuery};
use crate::actors::mailbox::{BoundedAddr, Lent, SendError};
use crate::actors::panics::catch;
use crate::model::read::without_files;
use crate::promql::eval::{Helpers, QueryContext, QueryLedger};

/// How long a thread of HTTP may be held.
const RUNS_FOR: Duration = Duration::from_micros(750);
/// Values to compute, estimated: about half of that time.
const BOUNDS: Bounds = Bounds { work_max: 5_000.0, runs_for: RUNS_FOR, files: Files::Refused };
/// What a listing may be estimated to take.
const LISTING_MAX_US: usize = 500;

/// How users ask the gateway. All clones share its slots.
#[derive(Clone)]
pub struct QueryClient {
    gateway: BoundedAddr<QueryGateway>,
    deps: Arc<GatewayDeps>,
}

impl QueryClient {
    /// Asks this gateway, which has been given `deps`.
    pub fn new(gateway: BoundedAddr<QueryGateway>, deps: Arc<GatewayDeps>) -> Self {
        Self { gateway, deps }
    }

    /// The gateway itself.
    pub fn gateway(&self) -> &BoundedAddr<QueryGateway> {
        &self.gateway
    }

    /// What the gateway was given.
    pub fn deps(&self) -> &Arc<GatewayDeps> {
        &self.deps
    }

    /// Evaluates a query. Holds the calling thread for a millisecond at most.
    pub async fn query(
        &self,
        query: RunQuery,
        deadline: Instant,
    ) -> Result<Result<QueryOutcome, QueryFailure>, SendError> {
        if let Some(lent) = self.gateway.lend()
            && let Some(done) = self.deps.query_here(&query, lent)
        {
            return Ok(done);
        }
        self.gateway.read(query, deadline).await
    }

    /// Lists series, names or values. Holds the calling thread for a millisecond at most.
    pub async fn list(
        &self,
        request: RunListing,
        deadline: Instant,
    ) -> Result<Result<FoundListing, QueryFailure>, SendError> {
        if let Some(lent) = self.gateway.lend()
            && let Some(done) = self.deps.list_here(&request, lent)
        {
            return Ok(done);
        }
        self.gateway.read(request, deadline).await
    }
}

impl GatewayDeps {
    fn query_here(&self, query: &RunQuery, _slot: Lent) -> Option<Result<QueryOutcome, QueryFailure>> {
        if !self.may_be_quick(query) {
            return None;
        }
        let place = self.running.enter(query, &self.clock);
        let ctx = self.context_here(query.timeout, place.is_ended());
        self.metrics.running.add(1.0);
        let done = catch(|| self.evaluate_quickly(query, ctx, Duration::ZERO, &BOUNDS));
        self.metrics.running.add(-1.0);
        // A panic is the request's own error, as on the pool.
        let done = done.unwrap_or_else(|text| Some(Err(QueryFailure::Panicked(text))))?;
        self.metrics.here.inc();
        Some(done.map(|(evaluated, timings)| QueryOutcome { evaluated, timings }))
    }

    fn list_here(&self, request: &RunListing, _slot: Lent) -> Option<Result<FoundListing, QueryFailure>> {
        if self.has_remotes() {
            return None;
        }
        let ctx = self.context_here(None, Arc::default());
        let (done, wants_files) = without_files(|| catch(|| self.listed_here(request, ctx)));
        let done = done.unwrap_or_else(|text| Some(Err(QueryFailure::Panicked(text))))?;
        if done.is_err() && wants_files {
            return None;
        }
        self.metrics.here.inc();
        Some(done)
    }

    fn listed_here(&self, request: &RunListing, ctx: QueryContext) -> Option<Result<FoundListing, QueryFailure>> {
        let (clock, until) = (Arc::clone(&ctx.clock), ctx.deadline);
        let list = || -> Result<Option<FoundListing>, QueryFailure> {
            let view = self.queryable.view()?;
            let mut takes_us: usize = 0;
            for scope in scopes(request) {
                match view.listing_estimate(request.listing.of(), &scope)? {
                    Some(more) => takes_us = takes_us.saturating_add(more),
                    None => return Ok(None),
                }
            }
            let lists_all = request.selectors.is_empty() && matches!(request.listing, Listing::Series);
            if LISTING_MAX_US < takes_us || lists_all {
                return Ok(None);
            }
            let budget = ListingBudget::open(ctx, Helpers::Never)?;
            let listed = list(request, &*view, &budget)?;
            Ok(Some(FoundListing { listed, warnings: view.warnings(), held: budget.held.into_inner() }))
        };
        let done = list();
        if done.is_err() && until.is_some_and(|until| until <= clock.monotonic()) {
            return None;
        }
        done.transpose()
    }

    fn context_here(&self, timeout: Option<Duration>, cancelled: Arc<AtomicBool>) -> QueryContext {
        let timeout = timeout.unwrap_or(self.limits.timeout).min(self.limits.timeout).min(RUNS_FOR);
        QueryContext {
            deadline: Some(self.clock.monotonic() + timeout),
            cancelled,
            ledger: QueryLedger::open(&self.memory, self.limits.query_bytes_max),
            clock: Arc::clone(&self.clock),
            text: String::new(),
        }
    }
}
