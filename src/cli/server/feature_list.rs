//! What `/api/v1/features` says: Prometheus's names, and whether each of them is there and switched on.

use crate::cli::flags::ServerFlags;
use crate::config::inactive::working_discovery;
use crate::promql::signatures::functions;

/// Categories with their features, both sorted.
pub(super) type FeatureList = Vec<(&'static str, Vec<(String, bool)>)>;

const OPERATORS: [&str; 33] = [
    "!=",
    "!~",
    "%",
    "*",
    "+",
    "-",
    "/",
    "<",
    "</",
    "<=",
    "==",
    "=~",
    ">",
    ">/",
    ">=",
    "@",
    "^",
    "and",
    "atan2",
    "avg",
    "bottomk",
    "count",
    "count_values",
    "group",
    "max",
    "min",
    "or",
    "quantile",
    "stddev",
    "stdvar",
    "sum",
    "topk",
    "unless",
];
const EXPERIMENTAL_OPERATORS: [&str; 2] = ["limit_ratio", "limitk"];
const TEMPLATE_FUNCTIONS: [&str; 29] = [
    "args",
    "externalURL",
    "first",
    "graphLink",
    "humanize",
    "humanize1024",
    "humanizeDuration",
    "humanizePercentage",
    "humanizeTimestamp",
    "label",
    "match",
    "now",
    "parseDuration",
    "pathPrefix",
    "query",
    "reReplaceAll",
    "safeHtml",
    "sortByLabel",
    "stripDomain",
    "stripPort",
    "strvalue",
    "tableLink",
    "title",
    "toDuration",
    "toLower",
    "toTime",
    "toUpper",
    "urlQueryEscape",
    "value",
];
const PROVIDERS: [&str; 37] = [
    "aws",
    "azure",
    "consul",
    "digitalocean",
    "dns",
    "docker",
    "dockerswarm",
    "ec2",
    "ecs",
    "elasticache",
    "eureka",
    "file",
    "gce",
    "hetzner",
    "http",
    "ionos",
    "kubernetes",
    "kuma",
    "lightsail",
    "linode",
    "marathon",
    "msk",
    "nerve",
    "nomad",
    "oci",
    "openstack",
    "outscale",
    "ovhcloud",
    "puppetdb",
    "rds",
    "scaleway",
    "serverset",
    "stackit",
    "static",
    "triton",
    "uyuni",
    "vultr",
];

/// What this server has, given its flags.
pub(super) fn features(flags: &ServerFlags) -> FeatureList {
    let on = |name: &str| flags.features.is_enabled(name);
    let extended = on("promql-extended-range-selectors");
    let fill = on("promql-binop-fill-modifiers");
    let experimental = on("promql-experimental-functions");
    let all =
        |names: &[&str], is_there: bool| names.iter().map(|name| ((*name).to_owned(), is_there)).collect::<Vec<_>>();
    let some =
        |features: &[(&str, bool)]| features.iter().map(|(name, is)| ((*name).to_owned(), *is)).collect::<Vec<_>>();
    let mut operators = all(&OPERATORS, true);
    operators.extend(all(&EXPERIMENTAL_OPERATORS, experimental));
    let functions = functions().iter().map(|f| (f.name.to_owned(), !f.experimental || experimental)).collect();
    let mut scrape = some(&[
        ("extra_scrape_metrics", true),
        ("start_timestamp_zero_ingestion", on("created-timestamp-zero-ingestion")),
        ("type_and_unit_labels", false),
    ]);
    // Listed only where it is on, as in Prometheus.
    scrape.extend(on("st-synthesis").then(|| ("st-synthesis".to_owned(), true)));
    let provider = |name: &&str| {
        let works = matches!(*name, "static" | "aws") || working_discovery(&format!("{name}_sd_configs"));
        ((*name).to_owned(), works)
    };
    let mut list = vec![
        (
            "api",
            some(&[
                ("admin", flags.web.enable_admin_api),
                ("exclude_alerts", true),
                ("label_values_match", true),
                ("lifecycle", flags.web.enable_lifecycle),
                ("openapi_3.1", true),
                ("openapi_3.2", true),
                ("otlp_write_receiver", flags.web.otlp_receiver),
                ("query_stats", true),
                ("query_warnings", true),
                ("remote_write_receiver", flags.web.remote_write_receiver),
                ("search", on("search-api")),
                ("search_fuzz_alg_jarowinkler", true),
                ("search_fuzz_alg_subsequence", true),
                ("time_range_labels", true),
                ("time_range_series", true),
            ]),
        ),
        (
            "otlp_receiver",
            some(&[
                ("delta_conversion", on("otlp-deltatocumulative")),
                ("native_delta_ingestion", on("otlp-native-delta-ingestion")),
            ]),
        ),
        (
            "prometheus",
            some(&[
                ("agent_mode", false),
                ("auto_reload_config", flags.auto_reload.is_some()),
                ("server_mode", true),
                ("stringlabels", true),
            ]),
        ),
        (
            "promql",
            some(&[
                ("anchored", extended),
                ("at_modifier", true),
                ("bool", true),
                ("by", true),
                ("delayed_name_removal", on("promql-delayed-name-removal")),
                ("duration_expr", true),
                ("fill", fill),
                ("fill_left", fill),
                ("fill_right", fill),
                ("group_left", true),
                ("group_right", true),
                ("ignoring", true),
                ("negative_offset", true),
                ("offset", true),
                ("on", true),
                ("per_query_lookback_delta", true),
                ("per_step_stats", on("promql-per-step-stats")),
                ("smoothed", extended),
                ("subqueries", true),
                ("type_and_unit_labels", false),
                ("without", true),
            ]),
        ),
        ("promql_functions", functions),
        ("promql_operators", operators),
        ("rules", some(&[("concurrent_rule_eval", false), ("keep_firing_for", true), ("query_offset", true)])),
        ("scrape", scrape),
        ("service_discovery_providers", PROVIDERS.iter().map(provider).collect()),
        ("templating_functions", all(&TEMPLATE_FUNCTIONS, true)),
        (
            "tsdb",
            some(&[
                ("delayed_compaction", false),
                ("exemplar_storage", on("exemplar-storage")),
                ("histograms_st_encoding", on("histograms-st-encoding")),
                ("isolation", true),
                ("native_histograms", true),
                ("st_storage", on("st-storage")),
                ("use_uncached_io", false),
                ("xor2_encoding", true),
            ]),
        ),
        ("ui", some(&[("ui_v2", false), ("ui_v3", false)])),
    ];
    list.iter_mut().for_each(|(_, features)| features.sort());
    list
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::flag_parser::{self, Outcome};
    use crate::cli::flag_table;

    /// The names are those that Prometheus lists, in its order.
    #[test]
    fn names_are_prometheus_s() {
        let given = std::env::var_os("WATCHFIRE_CONFORMANCE").map(std::path::PathBuf::from);
        let beside = || std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/conformance");
        let golden = given.unwrap_or_else(beside).join("api/features.json");
        let Ok(golden) = std::fs::read_to_string(golden) else { return };
        let golden: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&golden).unwrap();
        let Ok(Outcome::Values(values)) = flag_parser::parse(flag_table::FLAGS, &[]) else { panic!("no flags") };
        let own = features(&ServerFlags::from_values(&values, "prometheus", &|_| true).unwrap());
        let names = |features: &[(String, bool)]| features.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
        for ((category, features), (expected, list)) in own.iter().zip(&golden) {
            assert_eq!(category, expected);
            let listed: Vec<String> = list.as_object().unwrap().keys().cloned().collect();
            assert_eq!(names(features), listed, "{category}");
        }
        assert_eq!(own.len(), golden.len());
    }
}
