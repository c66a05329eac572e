//! `promtool check rules`: are rule files sound, and does none define the same rule twice?

use std::io::{self, Read, Write};

use super::{Command, ENABLE_FEATURE, EXPERIMENTAL, Given, OWN, existing_files, flag, parse_options, refuse};
use crate::cli::EXIT_FAILURE;
use crate::cli::flag_parser::Values;
use crate::cli::flag_spec::{FlagSpec, Kind};
use crate::config::ValidationScheme;
use crate::config::rules::{self, RuleChecks, RuleFile, RuleFileError};
use crate::model::go;
use crate::model::labels::{Labels, LabelsBuilder};
use crate::promql::parser::parse_expr;
use crate::template;

/// Exit code for what is sound and not advisable, if that is to be fatal.
pub(super) const EXIT_LINT: u8 = 3;

pub(super) const LINT_FATAL: FlagSpec =
    flag("lint-fatal", Kind::Switch, "false", OWN, "Make lint errors exit with exit code 3.");
pub(super) const IGNORE_UNKNOWN_FIELDS: FlagSpec =
    flag("ignore-unknown-fields", Kind::Switch, "false", OWN, "Ignore unknown fields in the rule files.");

static FLAGS: [FlagSpec; 5] = [
    flag("lint", Kind::Text, "duplicate-rules", OWN, "Linting checks to apply: all, duplicate-rules or none."),
    LINT_FATAL,
    IGNORE_UNKNOWN_FIELDS,
    EXPERIMENTAL,
    ENABLE_FEATURE,
];

pub(super) static COMMAND: Command = Command {
    path: &["check", "rules"],
    words: "[<rule-files>...]",
    summary: "Check if the rule files are valid or not; without files, what comes from standard input.",
    flags: &FLAGS,
    run,
};

/// What the checks have found so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Verdict {
    /// Something is not as it should be.
    pub(super) failed: bool,
    /// Something is wrong, not only unadvisable.
    pub(super) has_errors: bool,
}

impl Verdict {
    /// The exit code for it.
    pub(super) fn exit_code(self, lint_fatal: bool) -> u8 {
        match self {
            Self { failed: true, has_errors: true } => EXIT_FAILURE,
            Self { failed: true, has_errors: false } if lint_fatal => EXIT_LINT,
            _ => 0,
        }
    }
}

fn run(given: &Given) -> u8 {
    if let Err(error) = existing_files(&given.words) {
        return refuse(&error);
    }
    let check = Check::new(&given.values, given.values.text("lint").split(','));
    let mut verdict = Verdict::default();
    if given.words.is_empty() {
        let _ = writeln!(io::stdout(), "Checking standard input");
        let mut content = Vec::new();
        match io::stdin().read_to_end(&mut content) {
            Ok(_) => check.content("", &content, &mut verdict),
            Err(error) => {
                let _ = writeln!(io::stderr(), "  FAILED: {error}");
                verdict = Verdict { failed: true, has_errors: true };
            }
        }
    }
    check.files(&given.words, &mut verdict);
    verdict.exit_code(given.values.bool("lint-fatal"))
}

/// How rule files are checked.
pub(super) struct Check<'a> {
    values: &'a Values,
    duplicate_rules: bool,
}

impl<'a> Check<'a> {
    /// A check with lint options, of which unknown ones are told.
    pub(super) fn new<'o>(values: &'a Values, lint: impl Iterator<Item = &'o str>) -> Self {
        let mut duplicate_rules = false;
        for option in lint {
            match option {
                "all" | "duplicate-rules" => duplicate_rules = true,
                "" | "none" => {}
                other => {
                    let _ = writeln!(io::stdout(), "WARNING: unknown lint option: {}", go::quote(other));
                }
            }
        }
        Self { values, duplicate_rules }
    }

    /// Checks files one after the other.
    pub(super) fn files(&self, files: &[String], verdict: &mut Verdict) {
        for file in files {
            let _ = writeln!(io::stdout(), "Checking {file}");
            match std::fs::read(file) {
                Ok(content) => self.content(file, &content, verdict),
                Err(error) => fail(&[format!("{file}: open {file}: {error}")], verdict),
            }
        }
    }

    fn content(&self, path: &str, content: &[u8], verdict: &mut Verdict) {
        let options = parse_options(self.values);
        let expr = |text: &str| parse_expr(text, &options).map(drop).map_err(|error| error.to_string());
        let template = |name: &str, text: &str| template::check(name, text).map_err(|error| error.to_string());
        let ignore_unknown_fields = self.values.bool("ignore-unknown-fields");
        let checks = RuleChecks { expr: &expr, template: &template, ignore_unknown_fields };
        let parsed = rules::parse(path, content, ValidationScheme::Utf8, &checks);
        let file = match parsed {
            Ok(file) => file,
            Err(errors) => {
                let shown = |error: &RuleFileError| match path {
                    "" => error.error.to_string(),
                    _ => error.to_string(),
                };
                return fail(&errors.iter().map(shown).collect::<Vec<_>>(), verdict);
            }
        };
        match self.duplicate_rules.then(|| duplicates(&file)).filter(|found| !found.is_empty()) {
            Some(found) => {
                verdict.failed = true;
                let _ = writeln!(io::stderr(), "  FAILED:\n{}", lint_text(&found));
            }
            None => {
                let count: usize = file.groups.iter().map(|group| group.rules.len()).sum();
                let _ = writeln!(io::stdout(), "  SUCCESS: {count} rules found");
            }
        }
        let _ = writeln!(io::stdout());
    }
}

fn fail(errors: &[String], verdict: &mut Verdict) {
    *verdict = Verdict { failed: true, has_errors: true };
    let _ = writeln!(io::stderr(), "  FAILED:\n{}", errors.join("\n"));
}

/// Names and labels that more than one rule has, each once.
fn duplicates(file: &RuleFile) -> Vec<(String, Labels)> {
    let mut all = Vec::new();
    for group in &file.groups {
        for rule in &group.rules {
            let mut labels = LabelsBuilder::new();
            for (name, value) in group.labels.iter().chain(&rule.labels) {
                labels.set(name, value);
            }
            all.push((rule.name().to_owned(), labels.build()));
        }
    }
    all.sort();
    let mut found: Vec<(String, Labels)> = Vec::new();
    for pair in all.windows(2) {
        if let [one, two] = pair
            && one == two
            && found.last() != Some(one)
        {
            found.push(one.clone());
        }
    }
    found
}

fn lint_text(found: &[(String, Labels)]) -> String {
    let mut text = format!("lint error {} duplicate rule(s) found.\n", found.len());
    for (metric, labels) in found {
        text.push_str(&format!("Metric: {metric}\nLabel(s):\n"));
        for (name, value) in labels {
            text.push_str(&format!("\t{name}: {value}\n"));
        }
    }
    text + "Might cause inconsistency while recording expressions"
}
