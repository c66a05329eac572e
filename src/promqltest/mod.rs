//! The test-script language of PromQL and its runner: `load` series, `eval` expressions, compare with what is expected.
//!
//! The language is that of Prometheus's `promqltest` package, so its scripts run here unchanged; users write their own. A
//! script is parsed by [`Script::parse`] and run by [`run`] against any [`TestStorage`]; each `eval` has an outcome of its
//! own, and an instant one is also evaluated as a range query and with `@` in every selector, which must not change it.

mod compare;
mod memory;
mod nhcb;
mod pinned;
mod run;
mod script;
mod show;
mod starts;

pub use crate::promqltest::memory::{MemoryStorage, TestStorage};
pub use crate::promqltest::run::{
    Difference, EvalOutcome, LoadFailure, Report, Settings, run, run_selected, upstream_options,
};
pub use crate::promqltest::script::{
    Annotated, Command, EvalCommand, EvalTimes, ExpectedSeries, LoadCommand, LoadedSeries, Script, ScriptError, Text,
};
