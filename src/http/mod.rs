//! The HTTP side: it parses, asks, and renders. What it asks is [`state::ServerPorts`]; what it renders are plain structs.
//!
//! Flow of a request: `server` listens → `service`, `rewritten`, `lenient` and `http2` make requests of bytes → `dispatch` finds the route and guards it
//! (readiness, size, time, panics) → a handler parses its parameters, asks a port and writes the answer → `dispatch` adds
//! headers, compresses and counts.

pub mod api;
mod body;
mod compress;
mod connections;
mod cors;
mod dispatch;
pub mod envelope;
pub mod error;
mod federate;
mod go_json;
mod guard;
mod held;
mod http2;
pub mod json;
mod lenient;
mod metrics;
pub mod notices;
mod page;
pub mod params;
mod paths;
mod pieces;
mod plain;
pub(crate) mod profile;
pub mod render;
mod request;
mod response;
mod rewritten;
mod routes;
pub mod server;
mod service;
pub mod state;
mod tls;
mod web_file;

pub use self::server::{HttpOptions, RunningServer, ServeError, check_web_config, serve};
pub use self::state::{HttpState, ServerPorts};
