//! What we tell about ourselves: metrics and logs.

pub mod metrics;
