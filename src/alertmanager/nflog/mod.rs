//! The notification log: what each receiver was told last of each group.
//!
//! ```text
//! entry ─ what stands in the file, as Alertmanager writes it      log ─ the newest entry of each group and receiver
//! file ── appended and synced for each change, rewritten at times
//! ```

pub mod entry;
pub mod file;
pub mod log;
