//! `--enable-feature`: known names switch something on or are noted as doing nothing; unknown ones are warned about.

use std::collections::BTreeSet;

use crate::telemetry::logging::LogLevel;

/// Names that are switched on, and what is to be logged about them once the log stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Features {
    enabled: BTreeSet<&'static str>,
    /// Lines to log, in order.
    pub notes: Vec<Note>,
}

/// A line to log about a feature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// Severity.
    pub level: LogLevel,
    /// The message.
    pub message: &'static str,
    /// The field `option`, where the message needs it.
    pub option: Option<String>,
}

/// Features that exclude each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot enable otlp-deltatocumulative and otlp-native-delta-ingestion features at the same time")]
pub struct Conflict;

/// What a known feature does here.
#[derive(Clone, Copy)]
enum Works {
    /// It does what its message says.
    Yes,
    /// It has nothing to switch: the message says why.
    Nothing,
    /// It is not built: its message is followed by a warning.
    NotBuilt,
}

use LogLevel::{Info, Warn};
use Works::{NotBuilt, Nothing, Yes};

const NOT_BUILT: &str = "This option for --enable-feature is known and has no effect yet.";

/// Name, severity and message of Prometheus's log line, whether it names the option, and what works here.
#[rustfmt::skip]
const KNOWN: &[(&str, LogLevel, &str, bool, Works)] = &[
    ("exemplar-storage", Info, "Experimental in-memory exemplar storage enabled", false, Yes),
    ("memory-snapshot-on-shutdown", Info, "Experimental memory snapshot on shutdown enabled", false, Yes),
    ("extra-scrape-metrics", Warn, "This option for --enable-feature is being phased out. It currently changes the default for the extra_scrape_metrics config setting to true, but will become a no-op in a future version. Stop using this option and set extra_scrape_metrics in the config instead.", true, Yes),
    ("metadata-wal-records", Info, "Experimental metadata records in WAL enabled", false, Yes),
    ("promql-per-step-stats", Info, "Experimental per-step statistics reporting", false, Yes),
    ("auto-reload-config", Warn, "This option for --enable-feature is deprecated. Use --config.auto-reload instead.", true, Yes),
    ("concurrent-rule-eval", Info, "Experimental concurrent rule evaluation enabled.", false, NotBuilt),
    ("promql-experimental-functions", Info, "Experimental PromQL functions enabled.", false, Yes),
    ("promql-duration-expr", Warn, "This option for --enable-feature is now permanently enabled and therefore a no-op.", true, Nothing),
    ("native-histograms", Warn, "This option for --enable-feature is a no-op. To scrape native histograms, set the scrape_native_histograms scrape config setting to true.", true, Nothing),
    ("ooo-native-histograms", Warn, "This option for --enable-feature is now permanently enabled and therefore a no-op.", true, Nothing),
    ("created-timestamp-zero-ingestion", Info, "Experimental start timestamp zero ingestion enabled. OpenMetrics 1.0 parsing will parse <metric>_created metrics as ST instead of normal sample. Changed default scrape_protocols to prefer PrometheusProto format.", false, Yes),
    ("xor2-encoding", Warn, "This option for --enable-feature is being phased out. It currently changes the default for the storage.tsdb.chunk_encoding.floats config setting to xor2, but will become a no-op in a future major version. Stop using this option and set storage.tsdb.chunk_encoding.floats in the config instead.", true, Yes),
    ("histograms-st-encoding", Info, "Experimental ST-capable histogram chunk encoding enabled.", false, Yes),
    ("st-synthesis", Info, "Experimental start timestamp synthesis enabled.", false, Yes),
    ("st-storage", Info, "Experimental start timestamp storage enabled. OpenMetrics 1.0 parsing will parse <metric>_created metrics as ST instead of normal sample. Changed default scrape_protocols to prefer PrometheusProto format.", false, Yes),
    ("use-start-timestamps", Info, "Experimental usage of start timestamps in PromQL engine is enabled.", false, Yes),
    ("delayed-compaction", Info, "Experimental delayed compaction is enabled.", false, NotBuilt),
    ("promql-delayed-name-removal", Info, "Experimental PromQL delayed name removal enabled.", false, Yes),
    ("promql-extended-range-selectors", Info, "Experimental PromQL extended range selectors enabled.", false, Yes),
    ("promql-binop-fill-modifiers", Info, "Experimental PromQL binary operator fill modifiers enabled.", false, Yes),
    ("old-ui", Info, "Serving previous version of the Prometheus web UI.", false, NotBuilt),
    ("otlp-deltatocumulative", Info, "Converting delta OTLP metrics to cumulative", false, Yes),
    ("otlp-native-delta-ingestion", Info, "Enabling native ingestion of delta OTLP metrics, storing the raw sample values without conversion. WARNING: Delta support is in an early stage of development. The ingestion and querying process is likely to change over time.", false, Yes),
    ("type-and-unit-labels", Info, "Experimental type and unit labels enabled", false, NotBuilt),
    ("use-uncached-io", Info, "Experimental Uncached IO is enabled.", false, NotBuilt),
    ("fast-startup", Info, "Experimental fast startup is enabled.", false, NotBuilt),
    ("search-api", Info, "Experimental search API enabled.", false, Yes),
];

impl Features {
    /// Reads the values of the flag: comma lists, in order.
    pub fn parse(lists: &[String]) -> Result<Self, Conflict> {
        let mut features = Self::default();
        for option in lists.iter().flat_map(|list| list.split(',')) {
            let Some((name, level, message, names_option, works)) = KNOWN.iter().find(|(name, ..)| *name == option)
            else {
                features.note(Warn, "Unknown option for --enable-feature", Some(option));
                continue;
            };
            features.enabled.insert(name);
            features.note(*level, message, names_option.then_some(option));
            if matches!(works, NotBuilt) {
                features.note(Warn, NOT_BUILT, Some(option));
            }
        }
        if features.is_enabled("otlp-deltatocumulative") && features.is_enabled("otlp-native-delta-ingestion") {
            return Err(Conflict);
        }
        Ok(features)
    }

    /// True if the feature was named, whether or not it works here.
    pub fn is_enabled(&self, name: &str) -> bool {
        self.enabled.contains(name)
    }

    /// Logs the notes; call once the log stands.
    pub fn log(&self) {
        for Note { level, message, option } in &self.notes {
            match (level, option) {
                (LogLevel::Warn, Some(option)) => tracing::warn!(option, "{message}"),
                (LogLevel::Warn, None) => tracing::warn!("{message}"),
                (_, Some(option)) => tracing::info!(option, "{message}"),
                (_, None) => tracing::info!("{message}"),
            }
        }
    }

    fn note(&mut self, level: LogLevel, message: &'static str, option: Option<&str>) {
        self.notes.push(Note { level, message, option: option.map(str::to_owned) });
    }
}

/// Names of features that are accepted and have no effect yet; `docs/compatibility.md` lists the same.
pub fn not_built() -> impl Iterator<Item = &'static str> {
    KNOWN.iter().filter(|(.., works)| matches!(works, NotBuilt)).map(|(name, ..)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(lists: &[&str]) -> Result<Features, Conflict> {
        Features::parse(&lists.iter().map(|list| (*list).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn known_names_are_switched_on_and_told() {
        let features = parse(&["promql-experimental-functions,native-histograms", "x"]).unwrap();
        assert!(features.is_enabled("promql-experimental-functions") && !features.is_enabled("x"));
        let note = |level, message, option: Option<&str>| Note { level, message, option: option.map(str::to_owned) };
        assert_eq!(features.notes[0], note(Info, "Experimental PromQL functions enabled.", None));
        assert_eq!(features.notes[1].option.as_deref(), Some("native-histograms"));
        assert_eq!(features.notes[2], note(Warn, "Unknown option for --enable-feature", Some("x")));
        assert_eq!(features.notes.len(), 3);
    }

    #[test]
    fn what_is_not_built_is_told() {
        let features = parse(&["fast-startup"]).unwrap();
        assert_eq!(
            features.notes[1],
            Note { level: Warn, message: NOT_BUILT, option: Some("fast-startup".to_owned()) }
        );
        assert!(not_built().any(|name| name == "fast-startup"));
    }

    #[test]
    fn delta_features_exclude_each_other() {
        let error = parse(&["otlp-deltatocumulative", "otlp-native-delta-ingestion"]).unwrap_err();
        assert!(error.to_string().starts_with("cannot enable otlp-deltatocumulative and "));
    }
}
