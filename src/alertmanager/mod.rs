//! Our own Alertmanager, as plain code: who is told of which alerts, in which groups, when, and what was told before.
//!
//! ```text
//! alert ─ store (merge) ─ route (which nodes) ─ group (when) ─ dedup (whether) ─ retry, webhook (how) ─ nflog (what was)
//! ```
//! Nothing here has a timer or a thread; `actors::alert_dispatcher` and those below it run it. Behaviour and formats are
//! those of Alertmanager 0.34.

pub mod address;
pub mod alert;
pub mod dedup;
pub mod group;
pub mod metrics;
pub mod nflog;
pub mod payload;
pub mod retry;
pub mod route;
pub mod webhook;
