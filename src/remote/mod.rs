//! Remote protocols as plain code: what others write to us.

pub mod otlp;
pub mod receive;
mod wire;

pub use wire::WireError;
