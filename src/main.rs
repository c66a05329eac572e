//! Picks the member of the family and starts it.

use std::io::Write;
use std::process::ExitCode;

use watchfire::cli::{self, Decision};

/// Returns memory to the system soon after it is freed: steady usage counts more than the last allocation's speed.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

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
