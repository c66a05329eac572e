//! Time series storage, as plain code without actors: chunks, and the head that takes appends and serves reads.
//!
//! Data flow: `model::append::AppendBatch` → [`head::Head::route`] parts it by shard → each shard stages (checks), the
//! log writes, the shard applies → readers see the commit once all its parts are applied.

pub mod chunk;
pub mod fs;
pub mod head;
pub mod lock;
pub mod replay;
pub mod wal;
