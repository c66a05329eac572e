//! From a loaded configuration to the specifications that actors work by.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::actors::scrape_pool::{JobSpec, TargetGroup};
use crate::cli::flags::ServerFlags;
use crate::client::HttpClient;
use crate::config::inactive::Kind;
use crate::config::{ByteSize, FlagDefaults, LoadedConfig, ScrapeConfig, ScrapeProtocol, ValidationScheme, relabel};
use crate::exposition::content_type::Format;
use crate::model::labels::Labels;
use crate::scrape::settings::{MetricRelabel, NameScheme, ScrapeSettings};
use crate::scrape::target::{ADDRESS, TargetDefaults};
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
        extra_scrape_metrics: flags.features.is_enabled("extra-scrape-metrics"),
        ..FlagDefaults::default()
    }
}

/// Refuses what protects and is not built; warns of what adds and is not built, and shows it as a metric.
pub(super) fn check_built(loaded: &LoadedConfig, registry: &Registry) -> Result<(), String> {
    let (protective, additive): (Vec<_>, Vec<_>) =
        loaded.inactive().into_iter().partition(|setting| setting.kind == Kind::Protective);
    if let Some(setting) = protective.first() {
        return Err(format!("{} is set and not built yet: {}", setting.places.join(", "), setting.why));
    }
    for setting in &additive {
        let (field, places) = (setting.field.as_str(), setting.places.join(", "));
        tracing::warn!(component = "main", field, places, why = setting.why, "This setting has no effect yet");
        let help = "Settings of the configuration that have no effect yet.";
        registry.gauge("watchfire_config_inactive", help, &[("field", field)]).set(setting.places.len() as f64);
    }
    Ok(())
}

/// The jobs of a configuration, all of them new.
pub(super) fn specs(loaded: &LoadedConfig) -> Vec<JobSpec> {
    loaded.scrape_configs.iter().map(spec).collect()
}

fn spec(job: &ScrapeConfig) -> JobSpec {
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let rules = job.metric_relabel_configs.clone();
    let metric_relabel: Option<Arc<MetricRelabel>> =
        if rules.is_empty() { None } else { Some(Arc::new(move |labels: Labels| relabel(labels, &rules))) };
    JobSpec {
        name: job.job_name.clone(),
        revision: number,
        generation: number,
        removed: false,
        defaults: defaults(job),
        settings: Arc::new(settings(job)),
        relabel: job.relabel_configs.clone().into(),
        metric_relabel,
        client: HttpClient::from_config(build_info::user_agent(), &job.http),
        target_limit: job.target_limit,
        keep_dropped: job.keep_dropped_targets,
        groups: static_groups(job),
    }
}

fn defaults(job: &ScrapeConfig) -> TargetDefaults {
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
    let group = |group: &crate::config::TargetGroup| TargetGroup {
        source: group.source.clone(),
        targets: group.targets.iter().map(|address| Labels::from_pairs([(ADDRESS, address)])).collect(),
        labels: Labels::from_pairs(group.labels.0.iter()),
    };
    job.discovery.static_configs.iter().map(group).collect()
}
