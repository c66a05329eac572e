//! One panic hook for the process: a panic is a line in the log and a count, wherever it happens. Supervision decides what
//! becomes of the thread or actor.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::panic::PanicHookInfo;

use crate::telemetry::metrics::{Counter, Registry};

/// Replaces the standard hook, which writes to stderr past the log. Counts in `watchfire_panics_total`.
pub fn install_hook(registry: &Registry) {
    let total = registry.counter("watchfire_panics_total", "Panics, caught ones included.", &[]);
    std::panic::set_hook(Box::new(move |info| report(info, &total)));
}

fn report(info: &PanicHookInfo<'_>, total: &Counter) {
    total.inc();
    let thread = std::thread::current();
    let place = info.location().map_or_else(|| "unknown".to_owned(), ToString::to_string);
    let message = text(info.payload());
    let backtrace = Backtrace::capture();
    let stack = if backtrace.status() == BacktraceStatus::Captured { backtrace.to_string() } else { String::new() };
    tracing::error!(thread = thread.name().unwrap_or("unnamed"), place, err = message, stack, "panic");
}

/// The text that a panic carries.
pub fn text(payload: &(dyn std::any::Any + Send)) -> &str {
    match (payload.downcast_ref::<&'static str>(), payload.downcast_ref::<String>()) {
        (Some(text), _) => text,
        (None, Some(text)) => text,
        (None, None) => "a panic without text",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_texts_are_read() {
        let payload = |f: fn()| std::panic::catch_unwind(f).unwrap_err();
        assert_eq!(text(&*payload(|| std::panic::panic_any("fixed"))), "fixed");
        assert_eq!(text(&*payload(|| std::panic::panic_any(format!("made {}", 1)))), "made 1");
        assert_eq!(text(&*payload(|| std::panic::panic_any(7))), "a panic without text");
    }
}
