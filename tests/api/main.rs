//! Every route: status, headers, body, as Prometheus answers them. The expected texts were compared with the answers of a
//! Prometheus 3.14.0 server.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod attacks;
mod client;
mod described;
#[path = "../promql_differential/dice.rs"]
#[expect(dead_code, reason = "not all of it is needed here")]
mod dice;
mod edges;
mod fake;
mod fuzzed;
mod http2;
mod metadata;
#[path = "../../fuzz/mutate.rs"]
mod mutate;
mod pages;
mod plain;
mod replay;
mod secure;
mod streaming;
#[path = "../support/mod.rs"]
mod support;
mod syntax;
mod v1;
