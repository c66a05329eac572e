//! What other servers read from us: series in full, for `POST /api/v1/read`.

use std::sync::Arc;
use std::time::Duration;

use actix::prelude::{Handler, Message, ResponseActFuture};
use actix::{ActorFutureExt, WrapFuture};
use futures::future::FutureExt;

use super::listing::ListingBudget;
use super::remotes::Source;
use super::{GatewayDeps, QueryFailure, QueryGateway, while_wanted};
use crate::actors::context::Context;
use crate::actors::mailbox::Admitted;
use crate::actors::pool::Lane;
use crate::model::labels::Labels;
use crate::model::matcher::Matcher;
use crate::model::read::{ReadBudget, SampleColumn, SelectedSeries};
use crate::model::time::TimeRange;
use crate::promql::eval::{Charge, Helpers, QueryContext};
use crate::remote::read::SampledWriter;

/// Select series for another server.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<RemoteRead, QueryFailure>")]
pub struct RunRemoteRead {
    /// By query: matchers, and a range unless it is empty.
    pub selections: Vec<(Vec<Matcher>, Option<TimeRange>)>,
    /// Write all samples; else the series are only selected.
    pub sampled: Option<Sampled>,
}

/// How samples are written.
#[derive(Clone, Debug)]
pub struct Sampled {
    /// Most samples for a query; 0 for any number.
    pub limit: usize,
    /// Labels that series get unless they have them.
    pub external: Labels,
}

/// An answer to [`RunRemoteRead`].
pub enum RemoteRead {
    /// The packed message, and what it holds.
    Samples(Vec<u8>, Charge),
    /// A query has more samples than the limit.
    OverLimit,
    /// Series by query, sorted by labels, and what they hold.
    Series(Vec<(TimeRange, Vec<SelectedSeries>)>, Charge),
}

impl Handler<Admitted<RunRemoteRead>> for QueryGateway {
    type Result = ResponseActFuture<Self, Result<RemoteRead, QueryFailure>>;

    fn handle(&mut self, request: Admitted<RunRemoteRead>, _: &mut Context<Self>) -> Self::Result {
        let asker = request.asker();
        let (request, slot) = request.into_parts();
        let deadline = self.deadline(None);
        let deps = Arc::clone(&self.deps);
        let find = move |_: &GatewayDeps, ctx: QueryContext, _: Duration, source: &Source| read(&request, ctx, source);
        let work = async move {
            let (read, warnings) = deps.admit_reading(Lane::Queries, deadline, find).await?;
            for warning in warnings {
                tracing::warn!(component = "remote", err = warning, "Warnings on remote read query");
            }
            Ok(read)
        };
        let work = while_wanted(asker, work);
        Box::pin(work.boxed_local().into_actor(self).map(move |done, _, _| {
            drop(slot);
            done
        }))
    }
}

fn read(request: &RunRemoteRead, ctx: QueryContext, source: &Source) -> Result<RemoteRead, QueryFailure> {
    let budget = ListingBudget::open(ctx, Helpers::Never)?;
    let view = source.view()?;
    let mut selected = Vec::with_capacity(request.selections.len());
    for (matchers, range) in &request.selections {
        selected.push(match range {
            Some(range) => (*range, view.select(matchers, *range, &budget)?),
            None => (TimeRange::ALL, Vec::new()),
        });
    }
    match &request.sampled {
        Some(sampled) if source.is_complete() => write(selected, sampled, budget),
        _ => Ok(RemoteRead::Series(selected, budget.held.into_inner())),
    }
}

fn write(
    selected: Vec<(TimeRange, Vec<SelectedSeries>)>,
    sampled: &Sampled,
    budget: ListingBudget,
) -> Result<RemoteRead, QueryFailure> {
    let (mut writer, mut column, mut charged) = (SampledWriter::default(), SampleColumn::default(), 0);
    for (range, series) in selected {
        let mut samples = 0;
        for series in series {
            budget.check()?;
            column.clear();
            series.samples.decode_all(range, &mut column)?;
            samples += column.len();
            if 0 < sampled.limit && sampled.limit < samples {
                return Ok(RemoteRead::OverLimit);
            }
            writer.series(&series.labels, &sampled.external, &column);
            let held = writer.held_len() + column.memory_len();
            if charged < held {
                budget.charge(held - charged)?;
                charged = held;
            }
        }
        writer.end_query();
    }
    // The packed message stands beside the plain one for a moment.
    budget.charge(writer.held_len())?;
    let body = writer.finish().ok_or_else(over_long)?;
    let mut held = budget.held.into_inner();
    held.shrink(held.bytes().saturating_sub(body.capacity()));
    Ok(RemoteRead::Samples(body, held))
}

fn over_long() -> QueryFailure {
    QueryFailure::Panicked("snappy: decoded block is too large".to_owned())
}
