//! The queries of users that run or wait, by number, and how one of them is ended from outside.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{QuerySpan, RunQuery};
use crate::actors::query_log::QueryOrigin;
use crate::model::clock::SharedClock;

/// Longest text that is shown of a query.
const TEXT_LEN_MAX: usize = 4096;

/// A query under way.
#[derive(Clone, Debug)]
pub struct RunningQuery {
    /// Its number; never used again.
    pub id: u64,
    /// PromQL as written, cut if it is long.
    pub text: String,
    /// When it is evaluated.
    pub span: QuerySpan,
    /// Who asks.
    pub origin: QueryOrigin,
    /// When it came, in nanoseconds since the epoch.
    pub since_nanos: i64,
}

/// All of them.
#[derive(Default)]
pub(super) struct RunningQueries {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    last_id: u64,
    queries: BTreeMap<u64, (RunningQuery, Arc<Ending>)>,
}

/// How a query learns that it is ended from outside.
#[derive(Default)]
struct Ending {
    told: Notify,
    /// For who evaluates without waiting.
    is_told: Arc<AtomicBool>,
}

/// A query's place in the list, given back on drop.
pub(super) struct Place {
    id: u64,
    ending: Arc<Ending>,
    state: Arc<Mutex<State>>,
}

impl RunningQueries {
    /// Lists a query for as long as the answer is held.
    pub(super) fn enter(&self, query: &RunQuery, clock: &SharedClock) -> Place {
        let ending = Arc::<Ending>::default();
        let text = query.text.get(..query.text.floor_char_boundary(TEXT_LEN_MAX)).unwrap_or_default().to_owned();
        let mut state = self.state.lock();
        state.last_id += 1;
        let id = state.last_id;
        let since_nanos = clock.unix_nanos();
        let shown = RunningQuery { id, text, span: query.span, origin: query.origin.clone(), since_nanos };
        state.queries.insert(id, (shown, Arc::clone(&ending)));
        Place { id, ending, state: Arc::clone(&self.state) }
    }

    pub(super) fn list(&self) -> Vec<RunningQuery> {
        self.state.lock().queries.values().map(|(query, _)| query.clone()).collect()
    }

    /// Ends a query; false if there is none of that number.
    pub(super) fn cancel(&self, id: u64) -> bool {
        let state = self.state.lock();
        let Some((_, ending)) = state.queries.get(&id) else { return false };
        ending.is_told.store(true, Ordering::Relaxed);
        // Kept for the query if it does not look yet.
        ending.told.notify_one();
        true
    }
}

impl Place {
    /// Returns when the query is ended from outside.
    pub(super) async fn ended(&self) {
        self.ending.told.notified().await;
    }

    /// Set when the query is ended from outside.
    pub(super) fn is_ended(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.ending.is_told)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.state.lock().queries.remove(&self.id);
    }
}
