//! Remote protocols as plain code: what others write to us, what we write to others, and what is read from either side.

pub mod otlp;
pub mod read;
pub mod receive;
pub mod send;
