//! `promtool test promql FILE…`: runs test scripts of PromQL. Prometheus's promtool has no such command; the language is
//! that of its test package, and so are the default settings.
//!
//! Stdout has a line a file, and for each evaluation that failed what was expected and what was found; stderr says which
//! files are no scripts. Exit code 0: all passed; 1: something failed; 2: a file is missing or no script.

use std::fs;
use std::io::{self, Write};
use std::time::Duration;

use super::{Command, ENABLE_FEATURE, EXPERIMENTAL, Given, OWN, flag, refuse};
use crate::cli::features::Features;
use crate::cli::flag_parser::Values;
use crate::cli::flag_spec::{FlagSpec, Kind};
use crate::cli::promtool::junit::{self, Suite};
use crate::cli::{EXIT_FAILURE, EXIT_USAGE};
use crate::model::clock::SystemClock;
use crate::model::regexp::Regexp;
use crate::promql::eval::EngineOptions;
use crate::promql::parser::ParseOptions;
use crate::promqltest::{Difference, LoadFailure, MemoryStorage, Report, Script, Settings, run_selected};
use crate::telemetry::logging::LogLevel;

/// Longest time of a query on a server.
const SERVER_TIMEOUT: Duration = Duration::from_secs(120);

#[rustfmt::skip]
static FLAGS: [FlagSpec; 7] = [
    flag("engine", Kind::Word(&["test", "server"]), "test", OWN, "Settings to start from: those of Prometheus's own tests, where all experimental features are on, or those of a server without flags."),
    flag("lookback-delta", Kind::Duration, "5m", OWN, "How far back an instant selector looks for a sample."),
    flag("max-samples", Kind::Integer, "10000", OWN, "Most samples a query may hold; 50,000,000 by default with --engine=server."),
    flag("run", Kind::List, "", OWN, "Run only evaluations whose name 'FILE:LINE: expression' has a match of this regular expression; may be repeated."),
    flag("junit", Kind::Text, "", OWN, "File to write the results to as JUnit XML."),
    EXPERIMENTAL,
    ENABLE_FEATURE,
];

pub(super) static COMMAND: Command = Command {
    path: &["test", "promql"],
    words: "<test-file>...",
    summary: "Run test scripts of PromQL.",
    flags: &FLAGS,
    run,
};

fn run(given: &Given) -> u8 {
    let settings = settings(&given.values);
    let mut filters = Vec::new();
    for pattern in given.values.list("run") {
        match Regexp::unanchored(pattern) {
            Ok(filter) => filters.push(filter),
            Err(error) => return refuse(&format!("--run: {error}")),
        }
    }
    if given.words.is_empty() {
        return refuse("required argument 'test-file' not provided");
    }
    let mut code = 0;
    let mut suites = Vec::new();
    for file in &given.words {
        let mut suite = Suite::new(file, SystemClock::shared().now());
        match load(file) {
            Ok(script) => {
                let report = run_file(file, &script, &settings, &filters);
                if !report.is_ok() {
                    code = code.max(EXIT_FAILURE);
                }
                print(file, &report, &mut suite);
            }
            Err(error) => {
                code = EXIT_USAGE;
                let _ = writeln!(io::stdout(), "FAILED {file}");
                let _ = writeln!(io::stderr(), "{error}");
                suite.abort(error);
            }
        }
        suites.push(suite);
    }
    let junit = given.values.text("junit");
    if !junit.is_empty()
        && let Err(error) = fs::write(junit, junit::document(&suites))
    {
        let _ = writeln!(io::stderr(), "cannot write {junit}: {error}");
        code = code.max(EXIT_FAILURE);
    }
    code
}

/// The settings that the flags ask for. Features add to either engine.
fn settings(values: &Values) -> Settings {
    // Features that exclude each other have nothing to do with queries.
    let features = Features::parse(values.list("enable-feature")).unwrap_or_default();
    for note in features.notes.iter().filter(|note| note.level == LogLevel::Warn && note.message.starts_with("Unknown"))
    {
        let option = note.option.as_deref().unwrap_or_default();
        let _ = writeln!(io::stderr(), "  WARNING: Unknown feature passed to --enable-feature: {option}");
    }
    let mut settings = match values.text("engine") {
        "server" => Settings {
            engine: EngineOptions::default(),
            language: ParseOptions::default(),
            timeout: SERVER_TIMEOUT,
            keep_starts: false,
        },
        _ => Settings::upstream(),
    };
    settings.keep_starts |= features.is_enabled("st-storage");
    let language = &mut settings.language;
    language.experimental_functions |= features.is_enabled("promql-experimental-functions");
    language.extended_range_selectors |= features.is_enabled("promql-extended-range-selectors");
    language.fill_modifiers |= features.is_enabled("promql-binop-fill-modifiers");
    let engine = &mut settings.engine;
    engine.delayed_name_removal |= features.is_enabled("promql-delayed-name-removal");
    engine.use_start_timestamps |= features.is_enabled("use-start-timestamps");
    engine.type_and_unit_labels |= features.is_enabled("type-and-unit-labels");
    match values.duration("lookback-delta").as_ms_i64() {
        // As everywhere, zero asks for the default.
        0 => {}
        lookback_ms => engine.lookback_ms = lookback_ms,
    }
    if values.is_given("max-samples") {
        engine.max_samples = usize::try_from(values.integer("max-samples")).unwrap_or(0);
    }
    settings
}

/// Reads a script; the error begins with the file and, where there is one, the line.
fn load(file: &str) -> Result<Script, String> {
    let text = fs::read_to_string(file).map_err(|error| format!("{file}: {error}"))?;
    Script::parse(&text).map_err(|error| format!("{file}:{}: {}", error.line, error.message))
}

fn run_file(file: &str, script: &Script, settings: &Settings, filters: &[Regexp]) -> Report {
    run_selected(script, &mut MemoryStorage::new(), settings, &|eval| {
        let name = name(file, eval.line, &eval.expr);
        filters.is_empty() || filters.iter().any(|filter| filter.is_match(&name))
    })
}

fn name(file: &str, line: usize, expr: &str) -> String {
    format!("{file}:{line}: {expr}")
}

/// Prints what became of a file, and notes it for the JUnit document.
fn print(file: &str, report: &Report, suite: &mut Suite) {
    let mut out = match report.is_ok() {
        true => format!("ok {file} ({} evals)\n", report.evals.len()),
        false => format!("FAILED {file}\n"),
    };
    let loads = report.failed_loads.iter().map(|LoadFailure { line, reason, skipped }| {
        let text = format!("  {reason}; {skipped} evals up to the next clear were not run\n");
        (*line, "load", Some(text))
    });
    let evals = report.evals.iter().map(|eval| {
        let difference = eval.result.as_ref().err();
        (eval.line, eval.expr.as_str(), difference.map(shown))
    });
    let mut cases: Vec<_> = loads.chain(evals).collect();
    cases.sort_by_key(|(line, ..)| *line);
    for (line, what, failure) in cases {
        let name = name(file, line, what);
        if let Some(failure) = &failure {
            out.push_str(&format!("{name}\n{failure}"));
        }
        suite.case(&name, failure);
    }
    // A reader that has gone away is no reason to fail.
    let _ = io::stdout().write_all(out.as_bytes());
}

/// A difference in indented lines.
fn shown(difference: &Difference) -> String {
    let Difference { reason, expected, got, variant } = difference;
    let mut text = String::new();
    for (title, part) in [("expected", expected), ("got", got), ("difference", reason)] {
        if part.is_empty() {
            continue;
        }
        match part.contains('\n') {
            true => text.push_str(&format!("  {title}:\n    {}\n", part.replace('\n', "\n    "))),
            false => text.push_str(&format!("  {title}: {part}\n")),
        }
    }
    if let Some(variant) = variant {
        text.push_str(&format!("  evaluated: {variant}\n"));
    }
    text
}
