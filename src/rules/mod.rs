//! Recording and alerting rules as plain state machines: no runtime, no clock of their own, no storage.
//!
//! In reading order: [`spec`] is what a file says; [`schedule`] when a group is due; [`query`] what a rule asks of its
//! surroundings; [`evaluate`] takes one rule from its query to what is appended and sent, by way of [`recording`] and
//! [`alerting`]; [`state`] is what a group remembers from one evaluation to the next and across reloads; [`restore`]
//! finds the `for` of alerts again after a restart; [`metrics`] are Prometheus's.
//!
//! Data flow: an actor holds a [`state::RuleState`] for each rule → a job on the compute pool calls
//! [`evaluate::evaluate`] with it → the actor stores the new state, sends the alerts, appends the batch, and settles
//! with storage's report ([`evaluate::Evaluated::settle`]).
//! Invariants: a failed evaluation changes no alert and forgets no series; every series that may have been written is
//! in the state before it is written.

#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

pub mod alerting;
pub mod evaluate;
pub mod metrics;
pub mod query;
pub mod recording;
pub mod restore;
pub mod schedule;
pub mod spec;
pub mod state;
#[cfg(test)]
mod testing;

use crate::rules::query::QueryError;

/// Why an evaluation gave nothing. The texts are Prometheus's; `/api/v1/rules` shows them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// The expression was not evaluated.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// Two series of a recording rule would be the same.
    #[error("vector contains metrics with the same labelset after applying rule labels")]
    SameSeries,
    /// Two alerts of an alerting rule would be the same.
    #[error("vector contains metrics with the same labelset after applying alert labels")]
    SameAlert,
    /// More series than the group allows.
    #[error("exceeded limit of {limit} with {count} series")]
    TooManySeries {
        /// `limit` of the group.
        limit: i64,
        /// Series that there would be.
        count: usize,
    },
    /// More alerts than the group allows; the rule has none now.
    #[error("exceeded limit of {limit} with {count} alerts")]
    TooManyAlerts {
        /// `limit` of the group.
        limit: i64,
        /// Alerts that there would be.
        count: usize,
    },
}

impl RuleError {
    /// Whether the rule loses its alerts by it.
    pub fn clears_alerts(&self) -> bool {
        matches!(self, Self::TooManyAlerts { .. })
    }

    /// Whether somebody ended the query on purpose, which is nothing to log.
    pub fn is_canceled(&self) -> bool {
        matches!(self, Self::Query(QueryError { canceled: true, .. }))
    }
}

/// Whether there are more than `limit` of them; 0 is no limit.
pub(crate) fn exceeds(limit: i64, count: usize) -> bool {
    0 < limit && usize::try_from(limit).is_ok_and(|limit| limit < count)
}
