//! The command line: which member of the family is meant, its flags, and what the process answers before it serves.
//!
//! [`decide`] is a plain function of the arguments; `main` acts on the [`Decision`].

pub mod bytes;
pub mod check_sd;
pub mod features;
pub mod flag_parser;
pub mod flag_spec;
pub mod flag_table;
pub mod flags;
mod help;
mod install_links;
pub mod limits;
pub mod promtool;
pub mod run_bare;
pub mod sd_listen;
pub mod sd_notify;
pub mod server;
pub mod signals;

use std::path::Path;

use crate::cli::flag_parser::Outcome;
use crate::cli::flags::{FlagError, ServerFlags};
use crate::telemetry::build_info;

/// Members of the family other than the server, by the names that call them.
pub const MEMBERS: [&str; 6] =
    ["alertmanager", "promtool", "amtool", "pushgateway", "blackbox-exporter", "snmp-exporter"];
/// Sub-commands that are no members of the family.
pub const TOOLS: [&str; 1] = ["install-links"];

/// Exit code for a runtime failure, and for words that make no command line.
pub const EXIT_FAILURE: u8 = 1;
/// Exit code for bad values of flags, configuration or rules.
pub const EXIT_USAGE: u8 = 2;
/// Exit code for flags that do not fit the mode.
pub const EXIT_MODE: u8 = 3;

/// What the arguments ask for.
#[derive(Debug)]
pub enum Decision {
    /// Run the server.
    Serve(Box<ServerFlags>),
    /// Run another member of the family, or a tool.
    Run(Program, Vec<String>),
    /// Print to stdout and exit 0.
    Print(String),
    /// Print to stderr and exit with the code.
    Fail {
        /// Exit code.
        code: u8,
        /// What to tell, without a final line break.
        text: String,
    },
}

/// What can be run besides the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// `promtool`.
    Promtool,
    /// `install-links`.
    InstallLinks,
}

impl Program {
    /// The program of a sub-command, if it is built.
    fn of(name: &str) -> Option<Self> {
        match name {
            "promtool" => Some(Self::Promtool),
            "install-links" => Some(Self::InstallLinks),
            _ => None,
        }
    }

    /// Runs it to its end; gives the exit code.
    pub fn run(self, args: &[String]) -> u8 {
        match self {
            Self::Promtool => promtool::run(args),
            Self::InstallLinks => install_links::run(args),
        }
    }
}

/// Reads the arguments; `program` is the name by which we were called, `args` what follows it.
pub fn decide(program: &str, args: &[String]) -> Decision {
    let name = Path::new(program).file_name().and_then(|name| name.to_str()).unwrap_or("watchfire");
    let called_as = name.replace('_', "-");
    if MEMBERS.contains(&called_as.as_str()) {
        return sub_command(&called_as, args);
    }
    if let Some((first, rest)) = args.split_first().filter(|(first, _)| is_sub_command(first)) {
        return sub_command(first, rest);
    }
    match flag_parser::parse(flag_table::FLAGS, args) {
        Ok(Outcome::Help) => Decision::Print(help::server(flag_table::FLAGS)),
        Ok(Outcome::Version) => Decision::Print(build_info::version_text("watchfire")),
        Ok(Outcome::Values(values)) if values.bool("print-default-config") => {
            Decision::Print(run_bare::DEFAULT_CONFIG.trim_end().to_owned())
        }
        Ok(Outcome::Values(values)) => match ServerFlags::from_values(&values, name, &|path| path.exists()) {
            Ok(flags) => Decision::Serve(Box::new(flags)),
            Err(error) => fail(&error),
        },
        Err(error) => Decision::Fail {
            code: if error.is_structural() { EXIT_FAILURE } else { EXIT_USAGE },
            text: format!("Error parsing command line arguments: {error}\nRun '{name} --help' for the list of flags."),
        },
    }
}

fn is_sub_command(word: &str) -> bool {
    MEMBERS.contains(&word) || TOOLS.contains(&word)
}

fn sub_command(name: &str, args: &[String]) -> Decision {
    match Program::of(name) {
        Some(program) => Decision::Run(program, args.to_vec()),
        None => Decision::Fail { code: EXIT_USAGE, text: format!("watchfire {name}: not built yet") },
    }
}

fn fail(error: &FlagError) -> Decision {
    Decision::Fail { code: error.exit_code(), text: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_fails(program: &str, args: &[&str], code: u8, start: &str) {
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        match decide(program, &args) {
            Decision::Fail { code: got, text } => {
                assert_eq!(got, code, "{text}");
                assert!(text.starts_with(start), "{text:?} does not start with {start:?}");
            }
            other => panic!("{args:?} gave {other:?}"),
        }
    }

    #[test]
    fn sub_commands_count_as_first_argument_only() {
        check_fails("watchfire", &["amtool", "check"], 2, "watchfire amtool: not built yet");
        check_fails("/usr/bin/blackbox_exporter", &[], 2, "watchfire blackbox-exporter: not built yet");
        check_fails(
            "watchfire",
            &["--log.level=info", "promtool"],
            1,
            "Error parsing command line arguments: unexpected promtool",
        );
    }

    #[test]
    fn the_name_of_the_program_is_a_sub_command() {
        let args = |words: &[&str]| -> Vec<String> { words.iter().map(|word| (*word).to_owned()).collect() };
        for (program, words) in [("/usr/bin/promtool", &["test", "-h"][..]), ("watchfire", &["promtool", "test", "-h"])]
        {
            let decision = decide(program, &args(words));
            assert!(matches!(decision, Decision::Run(Program::Promtool, rest) if rest == args(&["test", "-h"])));
        }
        let decision = decide("prometheus", &args(&["install-links", "x"]));
        assert!(matches!(decision, Decision::Run(Program::InstallLinks, rest) if rest == args(&["x"])));
    }

    #[test]
    fn exit_codes_are_those_of_prometheus() {
        check_fails("watchfire", &["--foo"], 1, "Error parsing command line arguments: unknown long flag '--foo'");
        let text = "The following flag(s) can only be used in agent mode: [\"--storage.agent.path\"]";
        check_fails("watchfire", &["--storage.agent.path=x"], 3, text);
        let text = "The following flag(s) can not be used in agent mode: [\"--storage.tsdb.path\" \"--query.timeout\"]";
        check_fails("watchfire", &["--agent", "--storage.tsdb.path=x", "--query.timeout=1s"], 3, text);
        let text = "parse external URL \"\\\"x\": URL must not begin or end with quotes";
        check_fails("watchfire", &["--web.external-url=\"x"], 2, text);
        check_fails("watchfire", &["--web.cors.origin=("], 2, "could not compile CORS regex string \"(\": ");
        let text = "--web.search.max-limit must be non-negative; got -1 (use 0 to disable the cap)";
        check_fails("watchfire", &["--web.search.max-limit=-1"], 1, text);
        check_fails("watchfire", &["--auto-gomemlimit.ratio=2"], 1, "--auto-gomemlimit.ratio must be greater than 0");
    }

    #[test]
    fn help_and_version_win_over_other_flags() {
        let args = |words: &[&str]| -> Vec<String> { words.iter().map(|word| (*word).to_owned()).collect() };
        assert!(matches!(decide("watchfire", &args(&["-h"])), Decision::Print(text) if text.contains("--config.file")));
        let version = decide("watchfire", &args(&["--version", "--query.timeout=x"]));
        assert!(matches!(version, Decision::Print(text) if text.starts_with("watchfire, version ")));
        let config = decide("watchfire", &args(&["--print-default-config"]));
        assert!(matches!(config, Decision::Print(text) if text.contains("scrape_configs")));
    }
}
