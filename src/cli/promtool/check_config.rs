//! `promtool check config`: is a configuration sound, and is what it names there?

use std::io::{self, Write};

use super::check_rules::{Check, IGNORE_UNKNOWN_FIELDS, LINT_FATAL, Verdict};
use super::{Command, ENABLE_FEATURE, EXPERIMENTAL, Given, OWN, existing_files, flag, refuse};
use crate::cli::flag_spec::{FlagSpec, Kind};
use crate::cli::server::jobs::defaults;
use crate::config::discovery::{DiscoveryConfigs, FileSd};
use crate::config::glob::glob;
use crate::config::http_client::TlsConfig;
use crate::config::{
    AlertmanagerConfig, ConfigError, LoadOptions, LoadedConfig, ScrapeConfig, TargetGroup, load_file, relabel,
    target_groups,
};
use crate::discovery::TargetGroup as Discovered;
use crate::model::go;
use crate::notify::endpoint::endpoints;
use crate::scrape::target::{discovered_labels, resolve};

#[rustfmt::skip]
static FLAGS: [FlagSpec; 8] = [
    flag("syntax-only", Kind::Switch, "false", OWN, "Only check the config file syntax, not the files that it names."),
    flag("lint", Kind::Text, "duplicate-rules", OWN, "Linting checks to apply: all, duplicate-rules, too-long-scrape-interval or none."),
    LINT_FATAL,
    IGNORE_UNKNOWN_FIELDS,
    flag("agent", Kind::Switch, "false", OWN, "Check the config file for an agent."),
    flag("query.lookback-delta", Kind::GoDuration, "5m", OWN, "The server's lookback, which scrapes should be closer together than."),
    EXPERIMENTAL,
    ENABLE_FEATURE,
];

pub(super) static COMMAND: Command = Command {
    path: &["check", "config"],
    words: "<config-files>...",
    summary: "Check if the config files are valid or not.",
    flags: &FLAGS,
    run,
};

fn run(given: &Given) -> u8 {
    if given.words.is_empty() {
        return refuse("required argument 'config-files' not provided");
    }
    if let Err(error) = existing_files(&given.words) {
        return refuse(&error);
    }
    let values = &given.values;
    let (syntax_only, lint) = (values.bool("syntax-only"), values.text("lint"));
    let no_lint = lint.split(',').any(|option| option == "none");
    let of_rules = lint.split(',').filter(|option| *option != "too-long-scrape-interval" && !no_lint);
    let rules = Check::new(values, of_rules);
    let long_intervals = !no_lint && lint.split(',').any(|option| matches!(option, "all" | "too-long-scrape-interval"));
    let mut verdict = Verdict::default();
    for file in &given.words {
        let _ = writeln!(io::stdout(), "Checking {file}");
        let found = match check(file, values.bool("agent"), syntax_only) {
            Ok(found) => {
                if !found.rule_files.is_empty() {
                    let _ = writeln!(io::stdout(), "  SUCCESS: {} rule files found", found.rule_files.len());
                }
                let _ = writeln!(io::stdout(), " SUCCESS: {file} is valid prometheus config file syntax");
                found
            }
            Err(error) => {
                let _ = writeln!(io::stderr(), "  FAILED: {error}");
                verdict = Verdict { failed: true, has_errors: true };
                Found::default()
            }
        };
        let _ = writeln!(io::stdout());
        if syntax_only {
            continue;
        }
        let lookback = values.go_duration("query.lookback-delta");
        let too_long = |job: &&ScrapeConfig| long_intervals && lookback <= job.scrape_interval.to_std();
        if let Some(job) = found.jobs.iter().find(too_long).filter(|_| !lookback.is_zero()) {
            verdict.failed = true;
            let _ = writeln!(
                io::stderr(),
                "  FAILED: too long scrape interval found, data point will be marked as stale - job: {}, interval: {}",
                job.job_name,
                job.scrape_interval
            );
        }
        rules.files(&found.rule_files, &mut verdict);
    }
    verdict.exit_code(values.bool("lint-fatal"))
}

/// What a sound configuration leads to.
#[derive(Default)]
struct Found {
    rule_files: Vec<String>,
    jobs: Vec<ScrapeConfig>,
}

fn check(file: &str, agent_mode: bool, syntax_only: bool) -> Result<Found, String> {
    let loaded = match load_file(file, &LoadOptions { agent_mode, ..LoadOptions::default() }) {
        Ok(loaded) => loaded,
        // Other files with jobs are not part of the syntax of this one.
        Err(ConfigError::ScrapeFile { .. }) if syntax_only => return Ok(Found::default()),
        Err(error @ ConfigError::ScrapeFile { .. }) => return Err(format!("error loading scrape configs: {error}")),
        Err(error) => return Err(error.to_string()),
    };
    let LoadedConfig { config, scrape_configs, .. } = loaded;
    let mut found = Found { rule_files: Vec::new(), jobs: scrape_configs };
    if syntax_only {
        return Ok(found);
    }
    for pattern in &config.rule_files {
        let names = glob(pattern).map_err(|error| error.to_string())?;
        if names.is_empty() && !pattern.contains('*') {
            return Err(format!("{} does not point to an existing file", go::quote(pattern)));
        }
        found.rule_files.extend(names);
    }
    for job in &found.jobs {
        check_job(job)?;
    }
    for alertmanager in &config.alerting.alertmanagers {
        check_alertmanager(alertmanager)?;
    }
    Ok(found)
}

fn check_job(job: &ScrapeConfig) -> Result<(), String> {
    if let Some(authorization) = &job.http.authorization {
        let file = &authorization.credentials_file;
        exists(file).map_err(|error| {
            format!("error checking authorization credentials or bearer token file {}: {error}", go::quote(file))
        })?;
    }
    check_tls(&job.http.tls_config)?;
    for kubernetes in &job.discovery.kubernetes {
        check_tls(&kubernetes.http.tls_config)?;
    }
    for groups in groups_of_files(&job.discovery.file, &format!("scrape job {}", go::quote(&job.job_name)))? {
        check_targets(job, &groups)?;
    }
    check_targets(job, job.discovery.static_groups())
}

fn check_alertmanager(config: &AlertmanagerConfig) -> Result<(), String> {
    let DiscoveryConfigs { file, .. } = &config.discovery;
    let mut all = groups_of_files(file, "alertmanager config")?;
    all.push(config.discovery.static_groups().to_vec());
    match all.iter().find_map(|groups| endpoints(config, groups).failures.into_iter().next()) {
        Some(failure) => Err(failure.to_string()),
        None => Ok(()),
    }
}

/// The first target that is none.
fn check_targets(job: &ScrapeConfig, groups: &[TargetGroup]) -> Result<(), String> {
    let defaults = defaults(job);
    for group in groups.iter().map(Discovered::from) {
        for (index, target) in group.targets.iter().enumerate() {
            let labels = discovered_labels(&defaults, target, &group.labels);
            resolve(&defaults, labels, |labels| relabel(labels, &job.relabel_configs))
                .map_err(|error| format!("instance {index} in group {}: {error}", group.source))?;
        }
    }
    Ok(())
}

/// The groups of each file of targets that is there; those that are not are told.
fn groups_of_files(configs: &[FileSd], whose: &str) -> Result<Vec<Vec<TargetGroup>>, String> {
    let mut all = Vec::new();
    for pattern in configs.iter().flat_map(|config| &config.files) {
        let names = glob(pattern).map_err(|error| error.to_string())?;
        if names.is_empty() {
            let pattern = go::quote(pattern);
            let _ = writeln!(io::stdout(), "  WARNING: file {pattern} for file_sd in {whose} does not exist");
        }
        for name in names {
            let fail = |error: String| format!("checking SD file {}: {error}", go::quote(pattern));
            let content = std::fs::read(&name).map_err(|error| fail(format!("open {name}: {error}")))?;
            all.push(target_groups::parse(&name, &content).map_err(|error| fail(error.to_string()))?);
        }
    }
    Ok(all)
}

fn check_tls(config: &TlsConfig) -> Result<(), String> {
    let (cert, key) = (&config.cert_file, &config.key_file);
    if !cert.is_empty() && key.is_empty() {
        return Err(format!("client cert file {} specified without client key file", go::quote(cert)));
    }
    if !key.is_empty() && cert.is_empty() {
        return Err(format!("client key file {} specified without client cert file", go::quote(key)));
    }
    for (what, file) in [("cert", cert), ("key", key)] {
        exists(file).map_err(|error| format!("error checking client {what} file {}: {error}", go::quote(file)))?;
    }
    Ok(())
}

/// Errors, in Go's words, if a file is named and not there.
fn exists(file: &str) -> Result<(), String> {
    if file.is_empty() {
        return Ok(());
    }
    std::fs::metadata(file).map(drop).map_err(|error| format!("stat {file}: {}", super::go_reason(&error)))
}
