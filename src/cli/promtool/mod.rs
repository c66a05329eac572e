//! `promtool`: a file for each sub-command, and here which there are, their flags, and how arguments find them.
//!
//! Global flags may stand anywhere, those of a sub-command behind its name.

mod check_config;
mod check_metrics;
mod check_rules;
mod check_service_discovery;
mod check_web_config;
mod debug;
mod families;
mod junit;
mod push_metrics;
mod query;
mod query_analyze;
mod server;
mod test_bench;
mod test_promql;
mod test_rules;
mod tsdb;
mod tsdb_analyze;
mod tsdb_bench;
mod tsdb_dump;
mod tsdb_import;

use std::io::{self, Write};

use crate::cli::flag_parser::{self, Outcome, Values};
use crate::cli::flag_spec::{Effect, FlagSpec, Kind, Scope};
use crate::cli::{EXIT_FAILURE, EXIT_USAGE, help};
use crate::model::go;
use crate::promql::parser::ParseOptions;
use crate::telemetry::build_info;

/// A sub-command.
struct Command {
    /// Its name, word by word.
    path: &'static [&'static str],
    /// How its words are written in the usage.
    words: &'static str,
    /// What it does.
    summary: &'static str,
    /// Its flags and the global ones.
    flags: &'static [FlagSpec],
    /// Runs it; gives the exit code.
    run: fn(&Given) -> u8,
}

/// What a sub-command is given.
struct Given {
    values: Values,
    /// Words behind its name.
    words: Vec<String>,
}

static COMMANDS: [&Command; 24] = [
    &check_config::COMMAND,
    &check_metrics::COMMAND,
    &check_rules::COMMAND,
    &check_service_discovery::COMMAND,
    &check_web_config::COMMAND,
    &debug::ALL,
    &debug::METRICS_ONLY,
    &debug::PPROF,
    &push_metrics::COMMAND,
    &query::HEALTHY,
    &query::READY,
    &query::INSTANT,
    &query::RANGE,
    &query::SERIES,
    &query::LABELS,
    &query_analyze::COMMAND,
    &test_promql::COMMAND,
    &test_rules::COMMAND,
    &tsdb::LIST,
    &tsdb_analyze::COMMAND,
    &tsdb_bench::COMMAND,
    &tsdb_dump::DUMP,
    &tsdb_dump::DUMP_OPENMETRICS,
    &tsdb_import::COMMAND,
];

/// Sub-commands of Prometheus's promtool that are not there yet.
const NOT_BUILT: &[&str] = &["promql", "tsdb create-blocks-from rules"];

const GLOBAL: &str = "Global";
const OWN: &str = "Flags";

const EXPERIMENTAL: FlagSpec = flag("experimental", Kind::Switch, "false", GLOBAL, "Enable experimental commands.");
const ENABLE_FEATURE: FlagSpec =
    flag("enable-feature", Kind::List, "", GLOBAL, "Comma separated names of features to enable.");

const fn flag(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    group: &'static str,
    help: &'static str,
) -> FlagSpec {
    FlagSpec { name, kind, default, scope: Scope::Any, hidden: false, effect: Effect::Works, group, help }
}

/// Runs the sub-command that `args` name; gives the exit code.
pub(super) fn run(args: &[String]) -> u8 {
    let Split { command, path, rest } = split(args);
    let Some(command) = command else {
        return if path.is_empty() { without_command(&rest) } else { unknown(&path) };
    };
    match flag_parser::parse_with_words(command.flags, &long_names(command, rest)) {
        Ok((Outcome::Help, _)) => print(&command.usage()),
        Ok((Outcome::Version, _)) => print(&build_info::version_text("promtool")),
        Ok((Outcome::Values(values), words)) => (command.run)(&Given { values, words }),
        Err(error) => refuse(&error.to_string()),
    }
}

/// The long names of the letters that some sub-commands know.
fn long_names(command: &Command, args: Vec<String>) -> Vec<String> {
    let long = |arg: String| {
        let name = match arg.as_str() {
            "-r" => "human-readable",
            "-q" => "quiet",
            "-o" => "format",
            _ => return arg,
        };
        if command.flags.iter().any(|flag| flag.name == name) { format!("--{name}") } else { arg }
    };
    args.into_iter().map(long).collect()
}

impl Command {
    fn usage(&self) -> String {
        let head = format!("usage: promtool {} [<flags>] {}\n\n{}\n", self.path.join(" "), self.words, self.summary);
        help::table(head, self.flags)
    }
}

/// Arguments, parted.
struct Split<'a> {
    command: Option<&'static Command>,
    /// The words that name it, or all words if they name none.
    path: Vec<&'a str>,
    /// All other arguments, in order.
    rest: Vec<String>,
}

/// Finds the words that name a sub-command: the first ones that are neither flags nor values of flags.
fn split(args: &[String]) -> Split<'_> {
    let mut found = Split { command: None, path: Vec::new(), rest: Vec::new() };
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        if arg.starts_with('-') {
            found.rest.push(arg.clone());
            if takes_next(arg) {
                found.rest.extend(args.next().cloned());
            }
            continue;
        }
        found.path.push(arg);
        found.command = COMMANDS.into_iter().find(|command| command.path == found.path);
        if found.command.is_some() {
            break;
        }
    }
    found.rest.extend(args.cloned());
    found
}

/// True for a flag of any sub-command whose value is the next argument.
fn takes_next(arg: &str) -> bool {
    if arg == "-o" {
        return true;
    }
    let Some(name) = arg.strip_prefix("--").filter(|name| !name.contains('=')) else { return false };
    let mut all = COMMANDS.iter().flat_map(|command| command.flags);
    all.any(|flag| flag.name == name && flag.kind != Kind::Switch)
}

fn without_command(args: &[String]) -> u8 {
    static FLAGS: [FlagSpec; 2] = [EXPERIMENTAL, ENABLE_FEATURE];
    match flag_parser::parse_with_words(&FLAGS, args) {
        Ok((Outcome::Version, _)) => print(&build_info::version_text("promtool")),
        Ok((Outcome::Help, _)) => print(&overview()),
        Ok((Outcome::Values(_), _)) => {
            let _ = writeln!(io::stdout(), "{}", overview());
            EXIT_FAILURE
        }
        Err(error) => refuse(&error.to_string()),
    }
}

fn overview() -> String {
    let mut text = "usage: promtool [<flags>] <command> [<args> ...]\n\nTooling for the Prometheus monitoring system.\n\nCommands:\n".to_owned();
    for command in COMMANDS {
        text.push_str(&format!(
            "  {} [<flags>] {}\n        {}\n",
            command.path.join(" "),
            command.words,
            command.summary
        ));
    }
    text.trim_end().to_owned()
}

fn unknown(path: &[&str]) -> u8 {
    let name = path.join(" ");
    let not_built = NOT_BUILT.iter().find(|known| name == **known || name.starts_with(&format!("{known} ")));
    match (not_built, path) {
        (Some(known), _) => {
            let _ = writeln!(io::stderr(), "watchfire promtool {known}: not built yet");
            EXIT_USAGE
        }
        (None, [group @ ("check" | "debug" | "push" | "query" | "test" | "tsdb")]) => {
            refuse(&format!("must select a subcommand of '{group}'"))
        }
        (None, ["tsdb", "create-blocks-from"]) => refuse("must select a subcommand of 'tsdb create-blocks-from'"),
        (None, ["tsdb", "bench"]) => refuse("must select a subcommand of 'tsdb bench'"),
        (
            None,
            ["tsdb", "create-blocks-from" | "bench", word, ..]
            | ["check" | "debug" | "push" | "query" | "test" | "tsdb", word, ..]
            | [word, ..],
        ) => refuse(&format!("expected command but got {}", go::quote(word))),
        (None, []) => EXIT_FAILURE,
    }
}

/// The language of expressions with the features that are switched on; unknown ones are told.
fn parse_options(values: &Values) -> ParseOptions {
    let mut options = ParseOptions::default();
    for name in values.list("enable-feature").iter().flat_map(|list| list.split(',')) {
        match name {
            "promql-experimental-functions" => options.experimental_functions = true,
            "promql-extended-range-selectors" => options.extended_range_selectors = true,
            "promql-binop-fill-modifiers" => options.fill_modifiers = true,
            "" | "promql-delayed-name-removal" | "promql-duration-expr" => {}
            other => {
                let _ = writeln!(io::stdout(), "  WARNING: Unknown feature passed to --enable-feature: {other}");
            }
        }
    }
    options
}

/// Errors unless all of these are files.
fn existing_files(paths: &[String]) -> Result<(), String> {
    for path in paths {
        match std::fs::metadata(path) {
            Ok(found) if found.is_dir() => return Err(format!("'{path}' is a directory")),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(format!("path '{path}' does not exist"));
            }
            Err(error) => return Err(format!("stat {path}: {}", go_reason(&error))),
        }
    }
    Ok(())
}

/// The system's words for an error, as Go prints them.
fn go_reason(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_lowercase().chain(chars).collect())
}

/// Refuses arguments as Prometheus's promtool does.
fn refuse(reason: &str) -> u8 {
    let _ = writeln!(io::stderr(), "promtool: error: {reason}, try --help");
    EXIT_FAILURE
}

fn print(text: &str) -> u8 {
    let _ = writeln!(io::stdout(), "{text}");
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(args: &str, path: &[&str], rest: &[&str]) {
        let args: Vec<String> = args.split_whitespace().map(str::to_owned).collect();
        let found = split(&args);
        assert_eq!(
            (found.path.as_slice(), found.rest.iter().map(String::as_str).collect::<Vec<_>>()),
            (path, rest.to_vec())
        );
        assert_eq!(
            found.command.is_some(),
            matches!(path, ["test", "promql"] | ["check", "config"] | ["tsdb", "list"])
        );
    }

    #[test]
    fn flags_may_stand_between_the_words_of_a_command() {
        check("test promql a b --run x", &["test", "promql"], &["a", "b", "--run", "x"]);
        check(
            "--enable-feature x test --junit y promql a",
            &["test", "promql"],
            &["--enable-feature", "x", "--junit", "y", "a"],
        );
        check(
            "--experimental test --junit=y promql -- a",
            &["test", "promql"],
            &["--experimental", "--junit=y", "--", "a"],
        );
        check("test -h", &["test"], &["-h"]);
        check("check --query.lookback-delta 3m config x", &["check", "config"], &["--query.lookback-delta", "3m", "x"]);
        check("tsdb list x", &["tsdb", "list"], &["x"]);
        check("promql format x", &["promql", "format", "x"], &[]);
    }

    #[test]
    fn the_tables_are_sound() {
        for command in COMMANDS {
            let names: Vec<&str> = command.flags.iter().map(|flag| flag.name).collect();
            assert!((1..names.len()).all(|at| !names[at..].contains(&names[at - 1])), "{names:?}");
            assert!(command.usage().starts_with("usage: promtool "));
            assert!(flag_parser::parse_with_words(command.flags, &[]).is_ok());
        }
    }
}
