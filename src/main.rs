//! Picks the member of the family and starts it.

use std::io::Write;
use std::process::ExitCode;

use watchfire::cli::{self, Decision};

/// Returns memory to the system soon after it is freed: steady usage counts more than the last allocation's speed.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Read by the allocator when it starts. Large allocations, as answers are, are kept for a while like others: fresh pages
/// for each answer take longer than its evaluation. One arena for each processor: there are more threads than these, and what
/// each arena keeps ready counts as used. What was freed counts as well for as long as it is kept for others: a second, in place
/// of ten. A thread keeps freed memory of its own for the smallest sizes alone: what it takes from there for series and their samples
/// lies scattered, and pages are held for little that is left in them. It looks through that store after each megabyte: after each
/// 64 KiB, as by default, that is several times a scrape.
#[allow(unsafe_code, reason = "the allocator finds its settings by the name of the symbol, which nothing else has")]
// SAFETY: jemalloc reads a pointer to a text that ends with a zero, which is what this static is.
#[unsafe(export_name = "_rjem_malloc_conf")]
pub static ALLOCATOR_SETTINGS: &[u8; 104] =
    b"oversize_threshold:0,percpu_arena:percpu,tcache_gc_incr_bytes:1048576,tcache_max:64,dirty_decay_ms:1000\0";

fn main() -> ExitCode {
    let mut args = std::env::args();
    let program = args.next().unwrap_or_default();
    let args: Vec<String> = args.collect();
    match cli::decide(&program, &args) {
        Decision::Print(text) => {
            // A reader that has gone away is no reason to fail.
            let _ = writeln!(std::io::stdout(), "{text}");
            ExitCode::SUCCESS
        }
        Decision::Fail { code, text } => {
            let _ = writeln!(std::io::stderr(), "{text}");
            ExitCode::from(code)
        }
        Decision::Run(program, args) => ExitCode::from(program.run(&args)),
        Decision::Serve(flags) => cli::server::run(*flags),
    }
}
