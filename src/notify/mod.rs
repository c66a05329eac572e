//! Alerts on their way to external Alertmanagers, as plain code: what becomes of an alert's labels, where it is sent, how
//! it waits and what is written on the wire.
//!
//! Data flow: [`prepare`] adds external labels and relabels, once for all and once more for each configuration of
//! Alertmanagers → [`queue`] holds the alerts of one Alertmanager → [`payload`] writes a batch as JSON → [`send`] posts it.
//! [`endpoint`] says which Alertmanagers there are, [`metrics`] counts. Nothing here knows of actors.

pub mod endpoint;
pub mod metrics;
pub mod payload;
pub mod prepare;
pub mod queue;
pub mod send;
