//! The newest sample of each selected series, for `/federate`.

use std::sync::Arc;
use std::time::Duration;

use actix::prelude::{Handler, Message, ResponseActFuture};
use actix::{ActorFutureExt, WrapFuture};
use futures::future::FutureExt;

use super::listing::ListingBudget;
use super::{GatewayDeps, QueryFailure, QueryGateway, while_wanted};
use crate::actors::context::Context;
use crate::actors::mailbox::Admitted;
use crate::actors::pool::Lane;
use crate::model::matcher::Matcher;
use crate::model::read::{NewestSample, ReadBudget, ReadError, ReadView, SampleColumn, SelectedSeries};
use crate::model::time::{TimeRange, TimestampMs};
use crate::promql::eval::{Charge, Helpers, QueryContext};

/// Find the newest sample of each series within the server's lookback before `at`. Series that have ended are left out.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<Newest, QueryFailure>")]
pub struct RunNewest {
    /// A series counts when it fulfils all matchers of any of these.
    pub selectors: Vec<Vec<Matcher>>,
    /// No sample later than this.
    pub at: TimestampMs,
}

/// Samples by metric name, then by labels; each series once.
#[derive(Debug)]
pub struct Newest {
    /// The samples.
    pub samples: Vec<NewestSample>,
    /// Keeps their memory charged.
    pub held: Charge,
}

impl Handler<Admitted<RunNewest>> for QueryGateway {
    type Result = ResponseActFuture<Self, Result<Newest, QueryFailure>>;

    fn handle(&mut self, request: Admitted<RunNewest>, _: &mut Context<Self>) -> Self::Result {
        let asker = request.asker();
        let (request, slot) = request.into_parts();
        let deadline = self.deadline(None);
        let deps = Arc::clone(&self.deps);
        let lookback_ms = deps.engine.lookback_ms;
        let find = move |deps: &GatewayDeps, ctx: QueryContext, _: Duration| {
            let budget = ListingBudget::open(ctx, Helpers::Never)?;
            let view = deps.queryable.view()?;
            let samples = newest(&request, lookback_ms, &*view, &budget)?;
            Ok(Newest { samples, held: budget.held.into_inner() })
        };
        let work = async move { deps.admit(Lane::Queries, deadline, find).await };
        let work = while_wanted(asker, work);
        Box::pin(work.boxed_local().into_actor(self).map(move |done, _, _| {
            drop(slot);
            done
        }))
    }
}

fn newest(
    request: &RunNewest,
    lookback_ms: i64,
    view: &dyn ReadView,
    budget: &dyn ReadBudget,
) -> Result<Vec<NewestSample>, ReadError> {
    let start = TimestampMs(request.at.0.saturating_sub(lookback_ms).saturating_add(1));
    let Ok(range) = TimeRange::new(start, request.at) else { return Ok(Vec::new()) };
    let mut found: Vec<SelectedSeries> = Vec::new();
    for matchers in &request.selectors {
        found.extend(view.select(matchers, range, budget)?);
    }
    found.sort_by(|a, b| a.labels.cmp(&b.labels));
    found.dedup_by(|a, b| a.labels == b.labels);
    let mut samples = Vec::new();
    let mut column = SampleColumn::default();
    for series in found {
        budget.check()?;
        column.clear();
        series.samples.decode_all(range, &mut column)?;
        if let Some(sample) = NewestSample::of(series.labels, &column) {
            let histogram = sample.histogram.as_ref().map_or(0, |histogram| histogram.memory_len());
            budget.charge(std::mem::size_of::<NewestSample>() + histogram)?;
            samples.push(sample);
        }
    }
    samples.sort_by(|a, b| a.labels.get("__name__").cmp(&b.labels.get("__name__")));
    Ok(samples)
}
