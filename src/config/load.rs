//! Loading: reading files, following what they name, and the digest that tells whether anything changed.

use std::io;

use sha2::{Digest as _, Sha256};

use super::glob::{BadPattern, glob};
use super::rules::{self, RuleChecks, RuleFile};
use super::scrape::ScrapeConfigFile;
use super::yaml::block::Preset as _;
use super::yaml::{self, Decoder, Dialect, Yaml as _, YamlError};
use super::{ByteSize, Config, ScrapeConfig, path};
use crate::model::duration::PromDuration;
use crate::model::go;

/// How to load.
#[derive(Clone, Copy)]
pub struct LoadOptions<'a> {
    /// Refuses what an agent does not do.
    pub agent_mode: bool,
    /// Defaults that flags change.
    pub defaults: FlagDefaults,
    /// Looks environment variables up, for external labels.
    pub environment: &'a dyn Fn(&str) -> Option<String>,
    /// Checks for the expressions and templates of rules; without them rule files count for the digest only.
    pub rules: Option<RuleChecks<'a>>,
    /// Names and contents of rule files that are not on disk, for a built-in configuration.
    pub built_in_rules: &'a [(&'a str, &'a str)],
}

impl Default for LoadOptions<'_> {
    /// The process's environment, no feature flags, no rule files.
    fn default() -> Self {
        let environment: &dyn Fn(&str) -> Option<String> = &|name| std::env::var(name).ok();
        Self { agent_mode: false, defaults: FlagDefaults::default(), environment, rules: None, built_in_rules: &[] }
    }
}

/// Defaults that flags change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlagDefaults {
    /// Age limit of storage without a `retention` block (`--storage.tsdb.retention.time`, 15 d for the server).
    pub retention_time: PromDuration,
    /// Size limit of storage without a `retention` block (`--storage.tsdb.retention.size`).
    pub retention_size: ByteSize,
    /// Asks for protobuf first (`created-timestamp-zero-ingestion`).
    pub proto_first: bool,
    /// `scrape_native_histograms` is on (`native-histograms`).
    pub scrape_native_histograms: bool,
    /// `extra_scrape_metrics` is on (`extra-scrape-metrics`).
    pub extra_scrape_metrics: bool,
}

/// A configuration with everything that it names.
#[derive(Clone, Debug)]
pub struct LoadedConfig {
    /// The main file.
    pub config: Config,
    /// The jobs of the main file and of the files that `scrape_config_files` names.
    pub scrape_configs: Vec<ScrapeConfig>,
    /// The rule files, in the order of their patterns; empty without checks for them.
    pub rule_files: Vec<RuleFile>,
    /// Names of all files that were read, the main file first.
    pub files: Vec<String>,
    /// SHA-256 over the content of all files, in hexadecimal; the recipe is Prometheus's.
    pub digest: String,
    /// Environment variables that external labels name and that are empty or not set.
    pub missing_variables: Vec<String>,
}

/// Why a configuration was not loaded. The texts are Prometheus's.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file that cannot be read.
    #[error("open {path}: {}", reason(.source))]
    Read {
        /// The file.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// The main file is not good.
    #[error("parsing YAML file {file}: {source}")]
    Parse {
        /// The file.
        file: String,
        /// What is wrong, where.
        source: YamlError,
    },
    /// A block that an agent does not take.
    #[error("field {0} is not allowed in agent mode")]
    Agent(&'static str),
    /// A file named by `scrape_config_files`.
    #[error("{}: {message}", go::quote(file))]
    ScrapeFile {
        /// The file, absolute.
        file: String,
        /// What is wrong.
        message: String,
    },
    /// A pattern of files.
    #[error("error retrieving {what} files for {}: {source}", go::quote(pattern))]
    Pattern {
        /// What kind of files.
        what: &'static str,
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        source: BadPattern,
    },
    /// Rule files; one text for each thing that is wrong.
    #[error("{}", .0.join("\n"))]
    Rules(Vec<String>),
}

impl ConfigError {
    /// Line and field of the fault, where one place is to blame.
    pub fn place(&self) -> Option<(usize, &str)> {
        match self {
            Self::Parse { source: YamlError::Value { line, field, .. }, .. } => Some((*line, field)),
            _ => None,
        }
    }
}

/// Loads a file and everything that it names.
pub fn load_file(file: &str, options: &LoadOptions<'_>) -> Result<LoadedConfig, ConfigError> {
    let content = std::fs::read(file).map_err(|source| ConfigError::Read { path: file.to_owned(), source })?;
    load_content(file, &content, options)
}

/// Loads a configuration from a text, as if it stood in `file`.
pub fn load_str(file: &str, text: &str, options: &LoadOptions<'_>) -> Result<LoadedConfig, ConfigError> {
    load_content(file, text.as_bytes(), options)
}

/// The digest of a configuration file and of all files that it names, as [`LoadedConfig::digest`] has it; for finding
/// out whether to load again.
pub fn digest_of(file: &str) -> Result<String, ConfigError> {
    let content = std::fs::read(file).map_err(|source| ConfigError::Read { path: file.to_owned(), source })?;
    let (mut config, _) = parse(file, &content, &LoadOptions::default())?;
    config.resolve_paths(&path::dir_of(file));
    let rules = expand(&config.rule_files, "rule")?;
    let jobs = expand(&config.scrape_config_files, "scrape config")?;
    let read = |names: Vec<(String, String)>| names.into_iter().map(|(_, name)| read_file(name)).collect();
    let (rules, jobs): (Result<Vec<_>, _>, Result<Vec<_>, _>) = (read(rules), read(jobs));
    Ok(digest(&content, &rules?, &jobs?))
}

fn load_content(file: &str, content: &[u8], options: &LoadOptions<'_>) -> Result<LoadedConfig, ConfigError> {
    let (mut config, missing_variables) = parse(file, content, options)?;
    if options.agent_mode {
        let alerting = !config.alerting.alertmanagers.is_empty() || !config.alerting.alert_relabel_configs.is_empty();
        let refused = [
            (alerting, "alerting"),
            (!config.rule_files.is_empty(), "rule_files"),
            (!config.remote_read.is_empty(), "remote_read"),
        ];
        if let Some((_, field)) = refused.into_iter().find(|(set, _)| *set) {
            return Err(ConfigError::Agent(field));
        }
    }
    config.resolve_paths(&path::dir_of(file));
    let job_files: Vec<(String, Vec<u8>)> = expand(&config.scrape_config_files, "scrape config")?
        .into_iter()
        .map(|(_, name)| {
            let wrap = |e: ConfigError| ConfigError::ScrapeFile { file: absolute(&name), message: e.to_string() };
            read_file(name.clone()).map_err(wrap)
        })
        .collect::<Result<_, _>>()?;
    let scrape_configs = all_jobs(&config, &job_files)?;
    let mut rule_contents: Vec<(String, Vec<u8>)> = Vec::new();
    let mut rule_files = Vec::new();
    let mut wrong = Vec::new();
    for (pattern, name, content) in rule_files_of(&config, options)? {
        if let Some(checks) = &options.rules {
            match rules::parse(&name, &content, config.global.metric_name_validation_scheme, checks) {
                Ok(rules) => rule_files.push(rules),
                Err(errors) => wrong.extend(errors.into_iter().map(|e| {
                    format!("parse rules from file {} (pattern: {}): {e}", go::quote(&name), go::quote(&pattern))
                })),
            }
        }
        // The digest counts them even where they are not looked into.
        rule_contents.push((name, content));
    }
    if !wrong.is_empty() {
        return Err(ConfigError::Rules(wrong));
    }
    let digest = digest(content, &rule_contents, &job_files);
    let named = rule_contents.into_iter().chain(job_files).map(|(name, _)| name);
    let files = std::iter::once(file.to_owned()).chain(named).collect();
    Ok(LoadedConfig { config, scrape_configs, rule_files, files, digest, missing_variables })
}

/// Reads and checks the main file by itself. Returns it with the environment variables that were missing.
fn parse(file: &str, content: &[u8], options: &LoadOptions<'_>) -> Result<(Config, Vec<String>), ConfigError> {
    parse_main(content, options).map_err(|source| ConfigError::Parse { file: file.to_owned(), source })
}

fn parse_main(content: &[u8], options: &LoadOptions<'_>) -> Result<(Config, Vec<String>), YamlError> {
    let text = std::str::from_utf8(content).map_err(|_| YamlError::Syntax("invalid leading UTF-8 octet".to_owned()))?;
    let mut config = Config::preset();
    let (root, _) = yaml::node::parse(text, Dialect::V2)?;
    if let Some(root) = &root {
        yaml::read_node(root, &mut config, Decoder::v2())?;
    }
    config.finish(&options.defaults).map_err(|problem| {
        let line = root.as_ref().map_or(0, |root| root.line_at(&problem.path));
        YamlError::Value { message: problem.message, line, field: problem.path.join(".") }
    })?;
    let missing = config.global.external_labels.expand(options.environment);
    let utf8 = config.global.metric_name_validation_scheme != super::ValidationScheme::Legacy;
    config.otlp.validate(utf8).map_err(|message| {
        let path = ["otlp".to_owned(), "translation_strategy".to_owned()];
        let line = root.as_ref().map_or(0, |root| root.line_at(&path));
        YamlError::Value { message, line, field: path.join(".") }
    })?;
    Ok((config, missing))
}

/// The jobs of the main file followed by those of the other files, names checked for repeats.
fn all_jobs(config: &Config, files: &[(String, Vec<u8>)]) -> Result<Vec<ScrapeConfig>, ConfigError> {
    let mut jobs = config.scrape_configs.clone();
    let mut first_seen: Vec<(String, String)> =
        jobs.iter().map(|job| (job.job_name.clone(), "main config file".to_owned())).collect();
    for (name, content) in files {
        let wrong = |message: String| ConfigError::ScrapeFile { file: absolute(name), message };
        let text = std::str::from_utf8(content).map_err(|_| wrong("yaml: invalid leading UTF-8 octet".to_owned()))?;
        let mut file = ScrapeConfigFile::default();
        yaml::read(text, &mut file).map_err(|e| wrong(e.to_string()))?;
        for mut job in file.scrape_configs {
            job.validate(&config.global).map_err(wrong)?;
            if let Some((_, place)) = first_seen.iter().find(|(seen, _)| *seen == job.job_name) {
                return Err(wrong(format!(
                    "found multiple scrape configs with job name {}, first found in {place}",
                    go::quote(&job.job_name)
                )));
            }
            first_seen.push((job.job_name.clone(), go::quote(&absolute(name))));
            job.resolve_paths(&path::dir_of(name));
            jobs.push(job);
        }
    }
    Ok(jobs)
}

/// Pattern, name and content of each rule file.
fn rule_files_of(config: &Config, options: &LoadOptions<'_>) -> Result<Vec<(String, String, Vec<u8>)>, ConfigError> {
    let built_in = options.built_in_rules;
    if !built_in.is_empty() {
        let named = |(name, text): &(&str, &str)| ((*name).to_owned(), (*name).to_owned(), text.as_bytes().to_vec());
        return Ok(built_in.iter().map(named).collect());
    }
    let read = |(pattern, name): (String, String)| read_file(name).map(|(name, content)| (pattern, name, content));
    expand(&config.rule_files, "rule")?.into_iter().map(read).collect()
}

/// Pairs of pattern and file.
fn expand(patterns: &[super::FilePath], what: &'static str) -> Result<Vec<(String, String)>, ConfigError> {
    let mut found = Vec::new();
    for pattern in patterns {
        let names = glob(pattern).map_err(|source| ConfigError::Pattern {
            what,
            pattern: pattern.as_str().to_owned(),
            source,
        })?;
        found.extend(names.into_iter().map(|name| (pattern.as_str().to_owned(), name)));
    }
    Ok(found)
}

fn read_file(name: String) -> Result<(String, Vec<u8>), ConfigError> {
    match std::fs::read(&name) {
        Ok(content) => Ok((name, content)),
        Err(source) => Err(ConfigError::Read { path: name, source }),
    }
}

/// The main file's content, then for each rule file `r`, its name and its content, each followed by a zero byte, then
/// the files with jobs, with `s`.
fn digest(main: &[u8], rules: &[(String, Vec<u8>)], jobs: &[(String, Vec<u8>)]) -> String {
    let mut hash = Sha256::new();
    hash.update(main);
    for (prefix, files) in [("r", rules), ("s", jobs)] {
        for (name, content) in files {
            hash.update(format!("{prefix}\0{name}\0"));
            hash.update(content);
            hash.update(b"\0");
        }
    }
    hash.finalize().iter().map(|b| format!("{b:02x}")).collect()
}

fn absolute(file: &str) -> String {
    let current = std::env::current_dir().ok();
    let current = current.as_deref().and_then(|dir| dir.to_str()).unwrap_or(".");
    path::join(current, file)
}

/// The system's words for an error, as Go prints them.
pub(super) fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_lowercase().chain(chars).collect())
}
