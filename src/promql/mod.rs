//! PromQL: from query text to result.
//!
//! Separate passes over plain data, in reading order: [`ast`] and [`signatures`] are the vocabulary, `lexer` and [`parser`]
//! make trees with the rules of `typing`, [`printer`] turns trees back into text, and [`eval`] does the rest. Interface texts
//! and positions are those of Prometheus 3.14.

pub mod ast;
pub mod eval;
pub(crate) mod functions;
mod lexer;
pub mod parser;
pub(crate) mod plan;
pub mod printer;
pub mod signatures;
mod typing;

pub(crate) use crate::promql::functions::histogram::{almost_equal, parse_bound as parse_bucket_bound};
pub(crate) use crate::promql::plan::depends_on_time;
