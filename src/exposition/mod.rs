//! Scrape formats, one file each: what targets send us and what we send on `/metrics`.
//!
//! Data flow: `scrape` feeds bytes to [`text`], [`openmetrics`] or [`protobuf`] as they come; `http` renders gathered
//! families with [`encode`] or [`delimited`] and samples for other servers with [`federation`]. Which parser a response gets is decided by [`content_type`], which format we answer in by
//! [`negotiate`].

pub mod content_type;
pub mod delimited;
pub mod encode;
pub mod escape;
pub mod exemplar;
pub mod federation;
pub mod float;
mod lexer;
pub mod line;
pub mod negotiate;
pub mod openmetrics;
pub mod packed;
pub mod plain;
pub mod protobuf;
pub mod text;
