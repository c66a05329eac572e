//! Remote protocols as plain code: what others write to us, and what we write to others.

pub mod otlp;
pub mod receive;
pub mod send;
mod wire;

pub use wire::WireError;
