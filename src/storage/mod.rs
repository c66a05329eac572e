//! Time series storage, as plain code without actors: chunks, the head that takes appends and serves reads, and the log
//! that keeps it.
//!
//! Data flow: `model::append::AppendBatch` → [`head::Head::route`] parts it by shard → each shard stages (checks), the
//! log writes, the shard applies → readers see the commit once all its parts are applied. At start [`replay`] fills the head
//! from the log. All file I/O goes through [`fs`].

pub mod block;
pub mod chunk;
pub mod chunk_snapshot;
pub mod clock_file;
pub mod compact;
pub mod fs;
pub mod head;
pub mod head_chunk_files;
pub mod head_chunk_mending;
pub mod head_chunk_repair;
pub mod head_chunk_store;
pub mod head_chunks;
mod label_sets;
pub mod late_floor;
pub mod lock;
mod pattern;
mod postings;
pub mod read_only;
pub mod replay;
pub mod reserve;
mod selections;
pub mod wal;
pub mod wbl;

#[cfg(test)]
mod clock_tests;
#[cfg(test)]
mod damage_tests;
#[cfg(test)]
mod deletion_tests;
#[cfg(test)]
mod listing_tests;
