//! From discovered labels to a target: defaults, relabelling, checks, URL. Texts and order as in Prometheus
//! `scrape/target.go`; the results stand on the targets page and in the API.

use std::collections::BTreeMap;

use url::Url;

use crate::exposition::protobuf::NativePart;
use crate::model::duration::{DurationError, PromDuration};
use crate::model::labels::{INSTANCE, JOB, Labels, LabelsBuilder};
use crate::model::{go, go_url};
use crate::scrape::schedule::target_hash;
use crate::scrape::settings::ClassicPart;

/// Label that holds `host:port`.
pub const ADDRESS: &str = "__address__";
/// Label that holds `http` or `https`.
pub const SCHEME: &str = "__scheme__";
/// Label that holds the path.
pub const METRICS_PATH: &str = "__metrics_path__";
/// Label that holds the scrape interval.
pub const SCRAPE_INTERVAL: &str = "__scrape_interval__";
/// Label that holds the scrape timeout.
pub const SCRAPE_TIMEOUT: &str = "__scrape_timeout__";
/// Label that holds the path of a socket over which the target is asked.
pub const UNIX_SOCKET: &str = "__unix_socket__";
/// Prefix of labels that hold URL parameters.
pub const PARAM_PREFIX: &str = "__param_";
const META_PREFIX: &str = "__meta_";
const CONVERT_NHCB: &str = "__convert_classic_histograms_to_nhcb__";
const ALWAYS_CLASSIC: &str = "__always_scrape_classic_histograms__";
const NATIVE_HISTOGRAMS: &str = "__scrape_native_histograms__";

/// What a job gives to each of its targets.
#[derive(Clone, Debug, PartialEq)]
pub struct TargetDefaults {
    /// The `job` label.
    pub job_name: String,
    /// Scrape interval.
    pub scrape_interval: PromDuration,
    /// Scrape timeout.
    pub scrape_timeout: PromDuration,
    /// Path of the exposition.
    pub metrics_path: String,
    /// `http` or `https`.
    pub scheme: String,
    /// URL parameters.
    pub params: Vec<(String, Vec<String>)>,
    /// `convert_classic_histograms_to_nhcb`
    pub convert_classic_histograms_to_nhcb: bool,
    /// `always_scrape_classic_histograms`
    pub always_scrape_classic_histograms: bool,
    /// `scrape_native_histograms`
    pub scrape_native_histograms: bool,
}

/// Why discovered labels make no target.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// `__address__` is empty after relabelling.
    #[error("no address")]
    NoAddress,
    /// `__address__` has a path.
    #[error("{} is not a valid hostname", go::quote(.0))]
    NotAHostname(String),
    /// `__scrape_interval__` or `__scrape_timeout__` is no duration.
    #[error("error parsing scrape {which}: {source}")]
    BadDuration {
        /// `interval` or `timeout`.
        which: &'static str,
        /// What is wrong with it.
        source: DurationError,
    },
    /// `__scrape_interval__` or `__scrape_timeout__` is zero.
    #[error("scrape {0} cannot be 0")]
    ZeroDuration(&'static str),
    /// The timeout is longer than the interval.
    #[error("scrape timeout cannot be greater than scrape interval ({} > {})", go::quote(.timeout), go::quote(.interval))]
    TimeoutOverInterval {
        /// As written.
        timeout: String,
        /// As written.
        interval: String,
    },
    /// A switch label holds no boolean.
    #[error("error parsing {what}: strconv.ParseBool: parsing {}: invalid syntax", go::quote(.value))]
    BadBool {
        /// Which switch, in words.
        what: &'static str,
        /// As written.
        value: String,
    },
    /// Address, scheme and path make no URL.
    #[error("invalid target URL {}: {reason}", go::quote(.url))]
    BadUrl {
        /// What was put together.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// A target that can be scraped.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    /// As discovered, before relabelling; for the API.
    pub discovered: Labels,
    /// The labels of its series: all that do not begin with `__`.
    pub labels: Labels,
    /// All labels after relabelling, `__…` included; part of the identity.
    pub private_labels: Labels,
    /// Where to scrape.
    pub url: Url,
    /// The address names the port that the scheme has anyway, which `url` does not show.
    pub has_usual_port: bool,
    /// The same as Prometheus writes it, part of the identity: the port stays even where it is the scheme's own.
    pub scrape_url: String,
    /// How often.
    pub interval: PromDuration,
    /// How long a scrape may take.
    pub timeout: PromDuration,
}

impl Target {
    /// Equal for targets that are the same for the schedule and for deduplication: labels and URL.
    pub fn hash(&self) -> u64 {
        target_hash(&self.private_labels, &self.scrape_url)
    }
}

/// What became of discovered labels.
#[derive(Clone, Debug, PartialEq)]
pub enum Resolved {
    /// A target.
    Target(Box<Target>),
    /// Relabelling dropped it.
    Dropped {
        /// As discovered, for the API.
        discovered: Labels,
    },
}

/// The labels of a discovered target before relabelling: its own, its group's where it has none, the job's defaults where
/// both have none.
pub fn discovered_labels(defaults: &TargetDefaults, target: &Labels, group: &Labels) -> Labels {
    let mut labels = group.to_builder();
    for (name, value) in target {
        labels.set(name, value);
    }
    let interval = defaults.scrape_interval.to_string();
    let timeout = defaults.scrape_timeout.to_string();
    let text = |switch: bool| if switch { "true" } else { "false" };
    let preset = [
        (JOB, defaults.job_name.as_str()),
        (SCRAPE_INTERVAL, &interval),
        (SCRAPE_TIMEOUT, &timeout),
        (METRICS_PATH, &defaults.metrics_path),
        (SCHEME, &defaults.scheme),
        (CONVERT_NHCB, text(defaults.convert_classic_histograms_to_nhcb)),
        (ALWAYS_CLASSIC, text(defaults.always_scrape_classic_histograms)),
        (NATIVE_HISTOGRAMS, text(defaults.scrape_native_histograms)),
    ];
    for (name, value) in preset {
        set_if_absent(&mut labels, name, value);
    }
    for (key, values) in &defaults.params {
        if let Some(first) = values.first() {
            set_if_absent(&mut labels, &format!("{PARAM_PREFIX}{key}"), first);
        }
    }
    labels.build()
}

fn set_if_absent(labels: &mut LabelsBuilder, name: &str, value: &str) {
    if labels.get(name).is_empty() {
        labels.set(name, value);
    }
}

/// Relabels discovered labels and checks what is left. `relabel` answers `None` for a target that is to be dropped.
pub fn resolve(
    defaults: &TargetDefaults,
    discovered: Labels,
    relabel: impl Fn(Labels) -> Option<Labels>,
) -> Result<Resolved, TargetError> {
    let Some(labels) = relabel(discovered.clone()) else { return Ok(Resolved::Dropped { discovered }) };
    let address = labels.get(ADDRESS).unwrap_or("");
    if address.is_empty() {
        return Err(TargetError::NoAddress);
    }
    if address.contains('/') {
        return Err(TargetError::NotAHostname(address.to_owned()));
    }
    let interval = duration(&labels, SCRAPE_INTERVAL, "interval")?;
    let timeout = duration(&labels, SCRAPE_TIMEOUT, "timeout")?;
    if interval < timeout {
        let written = |name| labels.get(name).unwrap_or("").to_owned();
        return Err(TargetError::TimeoutOverInterval {
            timeout: written(SCRAPE_TIMEOUT),
            interval: written(SCRAPE_INTERVAL),
        });
    }
    let switches = [
        (CONVERT_NHCB, "convert classic histograms to nhcb"),
        (ALWAYS_CLASSIC, "always scrape classic histograms"),
        (NATIVE_HISTOGRAMS, "scrape native histograms"),
    ];
    for (name, what) in switches {
        check_bool(labels.get(name).unwrap_or(""), what)?;
    }
    let mut kept = labels.to_builder();
    kept.retain(|name, _| !name.starts_with(META_PREFIX));
    set_if_absent(&mut kept, INSTANCE, address);
    let private_labels = kept.build();
    let scrape_url = scrape_url(defaults, &private_labels);
    let url = parse(&scrape_url)?;
    let has_usual_port = url.port().is_none() && {
        let written = private_labels.get(ADDRESS).and_then(|address| address.rsplit_once(':'));
        written.and_then(|(_, port)| port.parse().ok()) == url.port_or_known_default()
    };
    kept.retain(|name, _| !name.starts_with("__"));
    Ok(Resolved::Target(Box::new(Target {
        discovered,
        labels: kept.build(),
        private_labels,
        url,
        has_usual_port,
        scrape_url,
        interval,
        timeout,
    })))
}

impl Target {
    fn is_on(&self, name: &str, default: bool) -> bool {
        match self.private_labels.get(name).unwrap_or("") {
            "" => default,
            value => TRUES.contains(&value),
        }
    }

    /// What becomes of its classic histograms: as its labels say after relabelling, else as the job does.
    pub fn classic_part(&self, of_job: ClassicPart) -> ClassicPart {
        let keeps = self.is_on(ALWAYS_CLASSIC, of_job == ClassicPart::KeptAndConverted);
        match (self.is_on(CONVERT_NHCB, of_job != ClassicPart::Kept), keeps) {
            (false, _) => ClassicPart::Kept,
            (true, false) => ClassicPart::Converted,
            (true, true) => ClassicPart::KeptAndConverted,
        }
    }

    /// What becomes of the native part of its histograms: as its labels say after relabelling, else as the job does.
    pub fn native_part(&self, of_job: NativePart) -> NativePart {
        let is_on = |name, default| self.is_on(name, default);
        if !is_on(NATIVE_HISTOGRAMS, of_job != NativePart::Ignored) {
            NativePart::Ignored
        } else if is_on(ALWAYS_CLASSIC, of_job == NativePart::WithClassic) {
            NativePart::WithClassic
        } else {
            NativePart::Wanted
        }
    }
}

/// What Go's `strconv.ParseBool` takes for true.
const TRUES: [&str; 6] = ["1", "t", "T", "TRUE", "true", "True"];

fn duration(labels: &Labels, name: &str, which: &'static str) -> Result<PromDuration, TargetError> {
    let parsed = PromDuration::parse(labels.get(name).unwrap_or(""));
    let parsed = parsed.map_err(|source| TargetError::BadDuration { which, source })?;
    if parsed.is_zero() { Err(TargetError::ZeroDuration(which)) } else { Ok(parsed) }
}

/// Accepts what Go's `strconv.ParseBool` does.
fn check_bool(value: &str, what: &'static str) -> Result<(), TargetError> {
    const BOOLS: [&str; 13] = ["", "1", "t", "T", "TRUE", "true", "True", "0", "f", "F", "FALSE", "false", "False"];
    if BOOLS.contains(&value) { Ok(()) } else { Err(TargetError::BadBool { what, value: value.to_owned() }) }
}

/// `scheme://address/path?params` with Go's escapes; a `__param_x` label replaces the first value of the parameter `x`.
fn scrape_url(defaults: &TargetDefaults, labels: &Labels) -> String {
    let part = |name| labels.get(name).unwrap_or("");
    let mut params: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (key, values) in &defaults.params {
        params.insert(key, values.iter().map(String::as_str).collect());
    }
    for (name, value) in labels {
        if let Some(key) = name.strip_prefix(PARAM_PREFIX) {
            let values = params.entry(key).or_default();
            match values.first_mut() {
                Some(first) => *first = value,
                None => values.push(value),
            }
        }
    }
    go_url::join(part(SCHEME), part(ADDRESS), part(METRICS_PATH), &params)
}

fn parse(scrape_url: &str) -> Result<Url, TargetError> {
    let bad = |reason: String| TargetError::BadUrl { url: scrape_url.to_owned(), reason };
    let url = Url::parse(scrape_url).map_err(|e| bad(e.to_string()))?;
    match url.scheme() {
        "http" | "https" => Ok(url),
        other => Err(bad(format!("unsupported protocol scheme {}", go::quote(other)))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn defaults() -> TargetDefaults {
        TargetDefaults {
            job_name: "node".into(),
            scrape_interval: PromDuration::from_secs(60),
            scrape_timeout: PromDuration::from_secs(10),
            metrics_path: "/metrics".into(),
            scheme: "http".into(),
            params: vec![("match".into(), vec!["a b".into(), "c".into()])],
            convert_classic_histograms_to_nhcb: false,
            always_scrape_classic_histograms: false,
            scrape_native_histograms: false,
        }
    }

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        Labels::from_pairs(pairs.iter().copied())
    }

    fn target(pairs: &[(&str, &str)]) -> Target {
        let discovered = discovered_labels(&defaults(), &labels(pairs), &Labels::empty());
        match resolve(&defaults(), discovered, Some) {
            Ok(Resolved::Target(target)) => *target,
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    fn check_error(pairs: &[(&str, &str)], text: &str) {
        let discovered = discovered_labels(&defaults(), &labels(pairs), &Labels::empty());
        assert_eq!(resolve(&defaults(), discovered, Some).unwrap_err().to_string(), text);
    }

    #[test]
    fn a_target_takes_the_jobs_defaults() {
        let target = target(&[(ADDRESS, "host:9100"), ("__meta_x", "1"), ("env", "prod")]);
        assert_eq!(target.labels, labels(&[("env", "prod"), ("instance", "host:9100"), ("job", "node")]));
        assert_eq!(target.url.as_str(), "http://host:9100/metrics?match=a+b&match=c");
        assert!(target.private_labels.contains(SCRAPE_INTERVAL) && !target.private_labels.contains("__meta_x"));
        assert!(target.discovered.contains("__meta_x"));
    }

    #[test]
    fn labels_override_path_parameters_and_times() {
        let target = target(&[
            (ADDRESS, "[::1]:80"),
            (METRICS_PATH, "probe"),
            ("__param_match", "z"),
            ("__param_module", "http"),
            (SCRAPE_INTERVAL, "5s"),
            (SCRAPE_TIMEOUT, "500ms"),
            ("instance", "i"),
        ]);
        assert_eq!(target.url.as_str(), "http://[::1]/probe?match=z&match=c&module=http");
        assert!(target.has_usual_port);
        assert_eq!(target.scrape_url, "http://[::1]:80/probe?match=z&match=c&module=http");
        assert_eq!((target.interval.as_ms(), target.timeout.as_ms()), (5_000, 500));
        assert_eq!(target.labels.get("instance"), Some("i"));
    }

    #[test]
    fn the_identity_holds_the_url_as_prometheus_writes_it() {
        let with_port = target(&[(ADDRESS, "h:80"), ("instance", "i")]);
        assert_eq!(with_port.hash(), target_hash(&with_port.private_labels, "http://h:80/metrics?match=a+b&match=c"));
        let odd = target(&[(ADDRESS, "h:1"), (METRICS_PATH, "/a b'(c)*é%2f?x"), ("__param_match", "~*'é")]);
        assert_eq!(
            odd.scrape_url, "http://h:1/a%20b%27%28c%29%2A%C3%A9%252f%3Fx?match=~%2A%27%C3%A9&match=c",
            "Go escapes more than browsers do"
        );
        assert_eq!(odd.url.as_str(), odd.scrape_url, "what is shown is what is asked for");
    }

    #[test]
    fn an_address_with_userinfo_is_no_host() {
        let text = "invalid target URL \"http://user:pass%40h:1/metrics?match=a+b&match=c\": invalid port number";
        check_error(&[(ADDRESS, "user:pass@h:1")], text);
    }

    #[test]
    fn a_group_gives_what_the_target_lacks() {
        let group = labels(&[("env", "prod"), ("zone", "a")]);
        let found = discovered_labels(&defaults(), &labels(&[(ADDRESS, "h"), ("zone", "b")]), &group);
        assert_eq!((found.get("env"), found.get("zone"), found.get("job")), (Some("prod"), Some("b"), Some("node")));
    }

    #[test]
    fn errors_read_as_in_prometheus() {
        check_error(&[], "no address");
        check_error(&[(ADDRESS, "h/metrics")], "\"h/metrics\" is not a valid hostname");
        check_error(&[(ADDRESS, "h"), (SCRAPE_INTERVAL, "0s")], "scrape interval cannot be 0");
        let text = "error parsing scrape timeout: not a valid duration string: \"x\"";
        check_error(&[(ADDRESS, "h"), (SCRAPE_TIMEOUT, "x")], text);
        let text = "scrape timeout cannot be greater than scrape interval (\"10s\" > \"5s\")";
        check_error(&[(ADDRESS, "h"), (SCRAPE_INTERVAL, "5s")], text);
        let text = "error parsing scrape native histograms: strconv.ParseBool: parsing \"maybe\": invalid syntax";
        check_error(&[(ADDRESS, "h"), (NATIVE_HISTOGRAMS, "maybe")], text);
    }

    #[test]
    fn relabelling_drops() {
        let discovered = discovered_labels(&defaults(), &labels(&[(ADDRESS, "h")]), &Labels::empty());
        assert_eq!(resolve(&defaults(), discovered.clone(), |_| None), Ok(Resolved::Dropped { discovered }));
    }
}
