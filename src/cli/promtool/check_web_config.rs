//! `promtool check web-config`: can a server start with these files?

use std::io::{self, Write};

use super::{Command, ENABLE_FEATURE, EXPERIMENTAL, Given, existing_files, refuse};
use crate::cli::EXIT_FAILURE;
use crate::cli::flag_spec::FlagSpec;
use crate::http::check_web_config;

static FLAGS: [FlagSpec; 2] = [EXPERIMENTAL, ENABLE_FEATURE];

pub(super) static COMMAND: Command = Command {
    path: &["check", "web-config"],
    words: "<web-config-files>...",
    summary: "Check if the web config files are valid or not.",
    flags: &FLAGS,
    run,
};

fn run(given: &Given) -> u8 {
    if given.words.is_empty() {
        return refuse("required argument 'web-config-files' not provided");
    }
    if let Err(error) = existing_files(&given.words) {
        return refuse(&error);
    }
    let mut failed = false;
    for file in &given.words {
        let line = match check_web_config(file) {
            Ok(()) => format!("{file} SUCCESS"),
            Err(error) => {
                failed = true;
                // The file stands in front already.
                format!("{file} FAILED: {}", error.strip_prefix(&format!("{file}: ")).unwrap_or(&error))
            }
        };
        let _ = writeln!(io::stderr(), "{line}");
    }
    if failed { EXIT_FAILURE } else { 0 }
}
