//! `promtool check service-discovery`: what a job's discovery finds, before and after relabelling.

use std::io;

use super::{Command, ENABLE_FEATURE, EXPERIMENTAL, Given, OWN, existing_files, flag, refuse};
use crate::cli::check_sd::check_service_discovery;
use crate::cli::flag_spec::{FlagSpec, Kind};

static FLAGS: [FlagSpec; 3] = [
    flag("timeout", Kind::Duration, "30s", OWN, "The time to wait for discovery results."),
    EXPERIMENTAL,
    ENABLE_FEATURE,
];

pub(super) static COMMAND: Command = Command {
    path: &["check", "service-discovery"],
    words: "<config-file> <job>",
    summary: "Perform service discovery for the given job name and report the results, including relabeling.",
    flags: &FLAGS,
    run,
};

fn run(given: &Given) -> u8 {
    let [file, job] = given.words.as_slice() else {
        let missing = if given.words.is_empty() { "config-file" } else { "job" };
        return refuse(&match given.words.get(2) {
            Some(extra) => format!("unexpected {extra}"),
            None => format!("required argument '{missing}' not provided"),
        });
    };
    if let Err(error) = existing_files(std::slice::from_ref(file)) {
        return refuse(&error);
    }
    let within = given.values.duration("timeout").to_std();
    check_service_discovery(file, job, within, &mut io::stdout(), &mut io::stderr())
}
