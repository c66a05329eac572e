//! `promtool check service-discovery`: what a job's discovery finds within a time, before and after relabelling.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::Duration;

use serde_json::{Map, Value};
use tokio::time::Instant;

use crate::cli::EXIT_FAILURE;
use crate::cli::server::target_defaults;
use crate::config::{LoadOptions, ScrapeConfig, load_file, relabel};
use crate::discovery::once::{Collected, collect};
use crate::discovery::{ProviderKit, TargetGroup};
use crate::model::clock::SystemClock;
use crate::model::labels::Labels;
use crate::scrape::target::{Resolved, discovered_labels, resolve};
use crate::telemetry::metrics::Registry;

/// Prints what the discovery of the job finds until the time is over; gives the exit code. Why something was not found is
/// written to `err`.
pub fn check_service_discovery(
    file: &str,
    job_name: &str,
    within: Duration,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> u8 {
    let jobs = match load_file(file, &LoadOptions::default()) {
        Ok(loaded) => loaded.scrape_configs,
        Err(error) => return fail(err, &format!("Cannot load config {error}")),
    };
    let Some(job) = jobs.iter().find(|job| job.job_name == job_name) else {
        let names: String = jobs.iter().map(|job| format!("\n\t{}", job.job_name)).collect();
        return fail(err, &format!("Job {job_name} not found. Select one of:{names}"));
    };
    let collected = match collected(job, within) {
        Ok(collected) => collected,
        Err(error) => return fail(err, &format!("Could not create new discoverer {error}")),
    };
    for field in &collected.not_built {
        let _ = writeln!(err, "{field}: this discovery is not built yet");
    }
    for failure in &collected.failures {
        let _ = writeln!(err, "Unable to refresh target groups: {failure}");
    }
    let results = Value::Array(results(job, &collected.groups));
    let text = serde_json::to_string_pretty(&results).unwrap_or_default();
    // As Go's encoder, which escapes what means something in HTML.
    let escaped = text.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026");
    match write!(out, "{escaped}") {
        Ok(()) => 0,
        Err(_) => EXIT_FAILURE,
    }
}

fn fail(err: &mut dyn Write, text: &str) -> u8 {
    let _ = writeln!(err, "{text}");
    EXIT_FAILURE
}

/// Runs the job's providers for a while.
fn collected(job: &ScrapeConfig, within: Duration) -> std::io::Result<Collected> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let kit = ProviderKit::new(&Registry::shared(), &SystemClock::shared());
    let deadline = within;
    let found =
        runtime.block_on(async { collect(&job.discovery, &job.job_name, &kit, Instant::now() + deadline).await });
    // What a file system or a name server holds up must not hold us up.
    runtime.shutdown_background();
    found
}

/// One object for each target, those of a source that are the same once.
fn results(job: &ScrapeConfig, groups: &[TargetGroup]) -> Vec<Value> {
    let defaults = target_defaults(job);
    let mut by_source: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
    for group in groups {
        let known = by_source.entry(&group.source).or_default();
        for target in &group.targets {
            let discovered = discovered_labels(&defaults, target, &group.labels);
            let resolved = resolve(&defaults, discovered.clone(), |labels| relabel(labels, &job.relabel_configs));
            let mut result = Map::new();
            result.insert("discoveredLabels".to_owned(), object(&discovered));
            let labels = match &resolved {
                Ok(Resolved::Target(target)) => object(&target.private_labels),
                Ok(Resolved::Dropped { .. }) | Err(_) => object(&Labels::empty()),
            };
            result.insert("labels".to_owned(), labels);
            if let Err(error) = resolved {
                result.insert("error".to_owned(), Value::String(error.to_string()));
            }
            let result = Value::Object(result);
            if !known.contains(&result) {
                known.push(result);
            }
        }
    }
    by_source.into_values().flatten().collect()
}

fn object(labels: &Labels) -> Value {
    Value::Object(labels.iter().map(|(name, value)| (name.to_owned(), Value::String(value.to_owned()))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(config: &str, job: &str) -> (u8, String, String) {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        std::fs::write(path("t.json"), r#"[{"targets":["a:1","b:2","a/b"],"labels":{"zone":"<z>"}}]"#).unwrap();
        std::fs::write(path("p.yml"), config).unwrap();
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let code = check_service_discovery(&path("p.yml"), job, Duration::from_millis(500), &mut out, &mut err);
        (code, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
    }

    const CONFIG: &str = "
scrape_configs:
- job_name: other
- job_name: files
  file_sd_configs: [{files: [t.json]}]
  static_configs: [{targets: ['s:1', 's:1']}]
  nomad_sd_configs: [{}]
  relabel_configs: [{source_labels: [__address__], regex: 'b:2', action: drop}]
";

    #[test]
    fn each_target_is_shown_before_and_after_relabelling() {
        let (code, out, err) = check(CONFIG, "files");
        assert_eq!((code, err.as_str()), (0, "nomad_sd_configs: this discovery is not built yet\n"));
        assert!(out.contains("\\u003cz\\u003e"), "{out}");
        let results: Vec<Value> = serde_json::from_str(&out).unwrap();
        let of = |address: &str| {
            results.iter().filter(|result| result["discoveredLabels"]["__address__"] == address).collect::<Vec<_>>()
        };
        assert_eq!((of("s:1").len(), of("a:1").len()), (1, 1), "the same ones are shown once");
        let first = of("a:1")[0];
        assert_eq!((&first["labels"]["instance"], &first["labels"]["zone"]), (&"a:1".into(), &"<z>".into()));
        assert_eq!(first["labels"]["__scheme__"], "http");
        assert!(first["labels"].get("__meta_filepath").is_none());
        assert!(first["discoveredLabels"]["__meta_filepath"].as_str().unwrap().ends_with("t.json"));
        assert_eq!(of("b:2")[0]["labels"], Value::Object(Map::new()));
        assert_eq!(of("a/b")[0]["error"], "\"a/b\" is not a valid hostname");
    }

    #[test]
    fn what_is_wrong_is_said() {
        let (code, out, err) = check(CONFIG, "gone");
        let expected = (1, "", "Job gone not found. Select one of:\n\tother\n\tfiles\n");
        assert_eq!((code, out.as_str(), err.as_str()), expected);
        let (code, _, err) = check("x: 1", "gone");
        assert!(code == 1 && err.starts_with("Cannot load config "), "{err}");
    }
}
