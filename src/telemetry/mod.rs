//! What we tell about ourselves: metrics and logs, and what we find out about the machine we run on.

pub mod allocator;
pub mod build_info;
pub mod limits;
pub mod logging;
pub mod metrics;
pub mod process;
pub mod repeat;
pub mod summary;
