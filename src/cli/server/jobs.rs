//! From a loaded configuration to the specifications that actors work by.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::actors::scrape_pool::{JobSpec, TargetGroup};
use crate::cli::flags::ServerFlags;
use crate::client::HttpClient;
use crate::config::inactive::{Inactive, Kind};
use crate::config::{ByteSize, FlagDefaults, LoadedConfig, ScrapeConfig, ScrapeProtocol, ValidationScheme, relabel};
use crate::exposition::content_type::Format;
use crate::exposition::protobuf::NativePart;
use crate::model::labels::Labels;
use crate::scrape::failure_log::{FailureFile, FailureLog};
use crate::scrape::request::accept_header;
use crate::scrape::settings::{ClassicPart, Extras, MetricRelabel, NameScheme, ScrapeSettings, schema_of_factor};
use crate::scrape::target::TargetDefaults;
use crate::telemetry::build_info;
use crate::telemetry::metrics::Registry;

/// Numbers revisions and generations of jobs.
static NEXT: AtomicU64 = AtomicU64::new(1);

/// Defaults that flags and features change.
pub(super) fn flag_defaults(flags: &ServerFlags) -> FlagDefaults {
    let (time, size) = flags.retention();
    FlagDefaults {
        retention_time: time,
        retention_size: ByteSize::new(i64::try_from(size).unwrap_or(i64::MAX)),
        proto_first: takes_starts(flags),
        extra_scrape_metrics: flags.features.is_enabled("extra-scrape-metrics"),
        ..FlagDefaults::default()
    }
}

/// What targets are asked for beside samples.
pub(super) fn extras(flags: &ServerFlags) -> Extras {
    Extras {
        exemplars: flags.features.is_enabled("exemplar-storage"),
        metadata: flags.features.is_enabled("metadata-wal-records"),
        starts: takes_starts(flags),
        synthesis: flags.features.is_enabled("st-synthesis"),
    }
}

/// Whether start times are read.
fn takes_starts(flags: &ServerFlags) -> bool {
    ["st-storage", "created-timestamp-zero-ingestion"].iter().any(|name| flags.features.is_enabled(name))
}

/// Refuses what protects and is not built; answers with what adds and is not built.
pub(super) fn check_built(loaded: &LoadedConfig) -> Result<Vec<Inactive>, String> {
    let (protective, additive): (Vec<_>, Vec<_>) =
        loaded.inactive().into_iter().partition(|setting| setting.kind == Kind::Protective);
    match protective.first() {
        Some(setting) => Err(format!("{} is set and not built yet: {}", setting.places.join(", "), setting.why)),
        None => Ok(additive),
    }
}

/// Warns of settings without effect, and shows them and no others as a metric.
pub(super) fn show_inactive(before: &[Inactive], now: &[Inactive], registry: &Registry) {
    let name = "watchfire_config_inactive";
    for gone in before.iter().filter(|gone| !now.iter().any(|setting| setting.field == gone.field)) {
        registry.remove(name, &[("field", &gone.field)]);
    }
    for setting in now {
        let (field, places) = (setting.field.as_str(), setting.places.join(", "));
        if !before.contains(setting) {
            tracing::warn!(component = "main", field, places, why = setting.why, "This setting has no effect yet");
        }
        let help = "Settings of the configuration that have no effect yet.";
        registry.gauge(name, help, &[("field", field)]).set(setting.places.len() as f64);
    }
}

/// A job as it is configured and as its pool knows it.
#[derive(Clone)]
pub(super) struct Job {
    pub(super) config: ScrapeConfig,
    pub(super) spec: JobSpec,
}

/// The jobs of a configuration. Those of `before` that have not changed keep their revision; those of which only the choice
/// of targets has changed keep their generation, and so their targets go on.
pub(super) fn jobs(before: &[Job], loaded: &LoadedConfig, extras: Extras) -> Vec<Job> {
    let mut logs: Vec<Arc<FailureFile>> = before
        .iter()
        .filter_map(|job| job.spec.settings.failure_log.as_ref())
        .map(|log| Arc::clone(log.file()))
        .collect();
    let job = |config: &ScrapeConfig| {
        let known = before.iter().find(|job| job.config.job_name == config.job_name);
        match known {
            Some(known) if known.config == *config => known.clone(),
            known => Job { config: config.clone(), spec: spec(config, known, &mut logs, extras) },
        }
    };
    loaded.scrape_configs.iter().map(job).collect()
}

/// Where a job notes failed scrapes; one file for all jobs that name it.
fn failure_log(job: &ScrapeConfig, logs: &mut Vec<Arc<FailureFile>>) -> Option<FailureLog> {
    let path = job.scrape_failure_log_file.as_str();
    if path.is_empty() {
        return None;
    }
    let file = logs.iter().find(|file| file.path() == path).cloned().unwrap_or_else(|| {
        logs.push(FailureFile::new(path));
        Arc::clone(&logs[logs.len() - 1])
    });
    Some(FailureLog::new(&job.job_name, file))
}

/// The configuration without what only decides which targets there are: labels, address and schedule of a target are part
/// of its identity.
fn of_samples(config: &ScrapeConfig) -> ScrapeConfig {
    let same = ScrapeConfig::default();
    ScrapeConfig {
        discovery: same.discovery,
        relabel_configs: same.relabel_configs,
        params: same.params,
        scheme: same.scheme,
        metrics_path: same.metrics_path,
        scrape_interval: same.scrape_interval,
        scrape_timeout: same.scrape_timeout,
        target_limit: same.target_limit,
        keep_dropped_targets: same.keep_dropped_targets,
        ..config.clone()
    }
}

fn spec(job: &ScrapeConfig, before: Option<&Job>, logs: &mut Vec<Arc<FailureFile>>, extras: Extras) -> JobSpec {
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let same_samples = before.filter(|before| of_samples(&before.config) == of_samples(job));
    let same_client = before.filter(|before| before.config.http == job.http);
    let rules = job.metric_relabel_configs.clone();
    let metric_relabel: Option<Arc<MetricRelabel>> =
        if rules.is_empty() { None } else { Some(Arc::new(move |labels: Labels| relabel(labels, &rules))) };
    JobSpec {
        name: job.job_name.clone(),
        revision: number,
        generation: same_samples.map_or(number, |before| before.spec.generation),
        removed: false,
        defaults: defaults(job),
        settings: Arc::new(ScrapeSettings { failure_log: failure_log(job, logs), extras, ..settings(job) }),
        relabel: job.relabel_configs.clone().into(),
        metric_relabel,
        client: same_client.map_or_else(
            || HttpClient::from_config(build_info::user_agent(), &job.http),
            |before| before.spec.client.clone(),
        ),
        target_limit: job.target_limit,
        keep_dropped: job.keep_dropped_targets,
        groups: static_groups(job),
    }
}

/// What a job gives to its targets.
pub(in crate::cli) fn defaults(job: &ScrapeConfig) -> TargetDefaults {
    TargetDefaults {
        job_name: job.job_name.clone(),
        scrape_interval: job.scrape_interval,
        scrape_timeout: job.scrape_timeout,
        metrics_path: job.metrics_path.clone(),
        scheme: job.scheme.clone(),
        params: job.params.iter().map(|(key, values)| (key.clone(), values.clone())).collect(),
        convert_classic_histograms_to_nhcb: job.convert_classic_histograms_to_nhcb.unwrap_or(false),
        always_scrape_classic_histograms: job.always_scrape_classic_histograms.unwrap_or(false),
        scrape_native_histograms: job.scrape_native_histograms.unwrap_or(false),
    }
}

fn settings(job: &ScrapeConfig) -> ScrapeSettings {
    let count = |limit: u64| usize::try_from(limit).unwrap_or(usize::MAX);
    ScrapeSettings {
        honor_labels: job.honor_labels,
        honor_timestamps: job.honor_timestamps,
        track_timestamps_staleness: job.track_timestamps_staleness,
        enable_compression: job.enable_compression,
        accept: accept_header(
            job.scrape_protocols.as_deref().unwrap_or(&ScrapeProtocol::default_list()),
            &job.metric_name_escaping_scheme,
        ),
        native: match (job.scrape_native_histograms, job.always_scrape_classic_histograms) {
            (Some(true), Some(true)) => NativePart::WithClassic,
            (Some(true), _) => NativePart::Wanted,
            _ => NativePart::Ignored,
        },
        classic: match (job.convert_classic_histograms_to_nhcb, job.always_scrape_classic_histograms) {
            (Some(true), Some(true)) => ClassicPart::KeptAndConverted,
            (Some(true), _) => ClassicPart::Converted,
            _ => ClassicPart::Kept,
        },
        bucket_limit: count(job.native_histogram_bucket_limit),
        schema_max: schema_of_factor(job.native_histogram_min_bucket_factor),
        fallback: fallback(&job.fallback_scrape_protocol),
        names: match job.metric_name_validation_scheme {
            ValidationScheme::Legacy => NameScheme::Legacy,
            _ => NameScheme::Utf8,
        },
        body_size_limit: u64::try_from(job.body_size_limit.bytes()).unwrap_or(0),
        sample_limit: job.sample_limit,
        label_limit: count(job.label_limit),
        label_name_length_limit: count(job.label_name_length_limit),
        label_value_length_limit: count(job.label_value_length_limit),
        extra_scrape_metrics: job.extra_scrape_metrics.unwrap_or(false),
        failure_log: None,
        // Given by the flags.
        extras: Extras::default(),
    }
}

fn fallback(protocol: &ScrapeProtocol) -> Option<Format> {
    match protocol {
        ScrapeProtocol::PrometheusProto => Some(Format::Protobuf),
        ScrapeProtocol::PrometheusText004 | ScrapeProtocol::PrometheusText100 => Some(Format::Text),
        ScrapeProtocol::OpenMetricsText001 | ScrapeProtocol::OpenMetricsText100 => Some(Format::OpenMetrics),
        ScrapeProtocol::Unknown(_) => None,
    }
}

fn static_groups(job: &ScrapeConfig) -> Arc<[TargetGroup]> {
    job.discovery.static_groups().iter().map(TargetGroup::from).collect()
}
