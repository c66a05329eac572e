//! Watchfire: a monitoring server compatible with Prometheus, built from supervised actors.
//!
//! Modules in reading order: the vocabulary first, then the plain cores, then the actors that run them, then the edges.

pub mod model;
pub mod telemetry;

pub mod alertmanager;
pub mod client;
pub mod config;
pub mod discovery;
pub mod exposition;
pub mod notify;
pub mod promql;
pub mod promqltest;
pub mod remote;
pub mod rules;
pub mod scrape;
pub mod storage;
pub mod template;

pub mod actors;
pub mod http;

pub mod cli;
