//! Orders that change stored data, on their way from HTTP to the compactor.

use std::sync::Arc;
use std::time::Duration;

use futures::future::FutureExt;
use tokio::time::Instant;

use crate::actors::compactor::Compactor;
use crate::actors::mailbox::{BoundedAddr, SendError};
use crate::actors::tsdb_admin::{CleanTombstones, DeleteSeries, TakeSnapshot};
use crate::http::api::admin::AdminPorts;
use crate::http::error::ApiError;
use crate::http::state::Answer;
use crate::model::matcher::Matcher;
use crate::model::time::TimeRange;
use crate::storage::wal::progress::ReplayProgress;

/// Longest time that a client waits, for the compaction that runs as well. The order is carried out all the same.
const WITHIN: Duration = Duration::from_secs(3600);

/// Reaches the compactor.
pub(super) struct Admin {
    pub(super) compactor: BoundedAddr<Compactor>,
    pub(super) replay: Arc<ReplayProgress>,
}

fn of_answer<T>(answer: Result<Result<T, String>, SendError>) -> Result<T, ApiError> {
    match answer {
        Ok(done) => done.map_err(ApiError::internal),
        Err(SendError::Full) => Err(ApiError::internal("too many orders wait for the compactor")),
        Err(error) => Err(ApiError::internal(format!("compactor: {error}"))),
    }
}

impl AdminPorts for Admin {
    fn delete_series(&self, selectors: Vec<Vec<Matcher>>, range: TimeRange) -> Answer<'_, ()> {
        let order = DeleteSeries { selectors, range };
        async move { of_answer(self.compactor.ask(order, Instant::now() + WITHIN).await) }.boxed()
    }

    fn clean_tombstones(&self) -> Answer<'_, ()> {
        async { of_answer(self.compactor.ask(CleanTombstones, Instant::now() + WITHIN).await) }.boxed()
    }

    fn snapshot(&self, skip_head: bool) -> Answer<'_, String> {
        async move { of_answer(self.compactor.ask(TakeSnapshot { skip_head }, Instant::now() + WITHIN).await) }.boxed()
    }
}
