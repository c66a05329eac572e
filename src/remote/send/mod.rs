//! Sending to remote storage: remote write 1.0 and 2.0 out of the write-ahead log.
//!
//! ```text
//! wal ─ reader: records → items of series as the destination knows them ─ queue: one waiting list a shard, and a cursor
//!       queue ─ encode: a request of many items ─ post ─ the answer moves the cursor
//! ```
//! Data flow: `actors::remote_write_queue` has [`reader::LogReader`] read on the compute pool into [`queue::Flight`],
//! takes batches out of it shard by shard, has [`encode`] make requests of them, and [`post::Endpoint`] send them. What
//! was answered is done: [`queue::Flight::cursor`] says up to where, and that is what is written to the disk.

pub mod encode;
pub mod metrics;
pub mod post;
pub mod queue;
pub mod reader;
pub mod reshard;
pub mod spec;
