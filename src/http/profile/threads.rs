//! Threads: they stand where a program in Go has goroutines.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use crate::http::profile::wire::{Frame, Writer};
use crate::telemetry::process::{ThreadStat, threads};

/// Threads counted by name, each a stack of one place.
pub(super) fn profile() -> std::io::Result<Vec<u8>> {
    let mut counts: BTreeMap<String, i64> = BTreeMap::new();
    for thread in threads() {
        *counts.entry(thread.name).or_default() += 1;
    }
    let mut writer = Writer::new(&[("threads", "count")]);
    for (name, count) in counts {
        let place = writer.location(&[Frame { name: name.clone(), system_name: name, ..Frame::default() }]);
        writer.sample(&[place], &[count], &[]);
    }
    writer.finish(SystemTime::now(), Duration::ZERO, ("threads", "count", 1), "")
}

/// A line for each thread.
pub(super) fn text() -> String {
    let mut out = String::from("id\tname\tstate\tcpu_seconds\n");
    for ThreadStat { id, name, state, cpu_seconds } in threads() {
        let name: String = name.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
        // Writing to a string cannot fail.
        let _ = writeln!(out, "{id}\t{name}\t{state}\t{cpu_seconds}");
    }
    out
}
