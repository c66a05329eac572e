//! Listings: how they are done, and what they may hold.

use std::sync::atomic::Ordering;

use parking_lot::Mutex;

use crate::actors::query_gateway::{Listed, Listing, RunListing};
use crate::model::give_way::give_way;
use crate::model::matcher::Matcher;
use crate::model::names::Names;
use crate::model::read::{ReadBudget, ReadError, ReadView, Scope};
use crate::promql::eval::{Charge, Helpers, QueryContext, run_each};

pub(super) fn over(error: crate::promql::eval::OverBudget) -> ReadError {
    ReadError::Budget(error.to_string())
}

/// What is to be listed, selector by selector: the first of each are enough for the first of all.
pub(super) fn scopes(request: &RunListing) -> impl Iterator<Item = Scope<'_>> {
    const EVERY: &[Vec<Matcher>] = &[Vec::new()];
    let selectors = if request.selectors.is_empty() { EVERY } else { &request.selectors };
    selectors.iter().map(|matchers| Scope::first(request.cut(), matchers, request.range))
}

pub(super) fn list(request: &RunListing, view: &dyn ReadView, budget: &dyn ReadBudget) -> Result<Listed, ReadError> {
    let mut series = Vec::new();
    let mut names = Vec::new();
    for scope in scopes(request) {
        match &request.listing {
            Listing::Series => {
                let mut found = view.series_labels(&scope, budget)?;
                if series.is_empty() { series = found } else { series.append(&mut found) }
            }
            Listing::LabelNames => names.push(view.label_names(&scope, budget)?),
            Listing::LabelValues(name) => names.push(view.label_values(name, &scope, budget)?),
        }
    }
    // What one selector found is sorted and without repetitions.
    if 1 < request.selectors.len() {
        series.sort();
        series.dedup();
        // The merged list stands beside its parts for a moment.
        budget.charge(names.iter().map(Names::memory_len).sum())?;
    }
    let mut names = Names::merged(names);
    series.truncate(request.cut());
    names.truncate(request.cut());
    Ok(match request.listing {
        Listing::Series => Listed::Series(series),
        Listing::LabelNames | Listing::LabelValues(_) => Listed::Names(names),
    })
}

/// What a listing may hold, charged to the query's ledger.
pub(super) struct ListingBudget {
    pub(super) held: Mutex<Charge>,
    ctx: QueryContext,
    helpers: Helpers,
}

impl ListingBudget {
    pub(super) fn open(ctx: QueryContext, helpers: Helpers) -> Result<Self, ReadError> {
        Ok(Self { held: Mutex::new(ctx.ledger.charge(0).map_err(over)?), ctx, helpers })
    }
}

impl ReadBudget for ListingBudget {
    fn charge(&self, bytes: usize) -> Result<(), ReadError> {
        self.held.lock().grow_ahead(bytes).map_err(over)
    }

    fn check(&self) -> Result<(), ReadError> {
        give_way();
        if self.ctx.cancelled.load(Ordering::Relaxed) {
            return Err(ReadError::Interrupted("query was canceled in query execution".into()));
        }
        match self.ctx.deadline {
            Some(deadline) if deadline <= self.ctx.clock.monotonic() => {
                Err(ReadError::Interrupted("query timed out in query execution".into()))
            }
            _ => Ok(()),
        }
    }

    fn run_each(&self, count: usize, job: &(dyn Fn(usize) + Sync)) {
        match self.helpers {
            Helpers::Never => (0..count).for_each(job),
            Helpers::WhereWorthIt | Helpers::Always => run_each(count, job),
        }
    }
}
