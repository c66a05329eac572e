//! `/api/v1/openapi.yaml`: this API described for programs, made of one table. A test holds the table against the routes.

use std::fmt::Write as _;

use actix_web::http::Method;

use crate::http::error::ApiError;
use crate::http::request::Context;
use crate::http::response::Response;
use crate::http::routes::{ROUTES, Route};
use crate::telemetry::build_info;

/// What a parameter holds.
#[derive(Clone, Copy)]
enum Kind {
    Text,
    /// Given any number of times.
    Texts,
    Count,
    Switch,
    /// Seconds since the epoch, or RFC 3339.
    Time,
    /// Seconds, or a duration as in PromQL.
    Duration,
    /// One of a few words.
    OneOf(&'static [&'static str]),
}

struct Parameter {
    name: &'static str,
    kind: Kind,
    is_required: bool,
    about: &'static str,
}

/// What an endpoint answers with.
#[derive(Clone, Copy)]
enum Answer {
    /// An envelope with data of a schema.
    Data(&'static str),
    /// Nothing.
    Empty,
    /// Something else than JSON.
    Other(&'static str),
}

struct Endpoint {
    /// Below `/api/v1`.
    path: &'static str,
    about: &'static str,
    parameters: &'static [Parameter],
    answer: Answer,
}

const fn may(name: &'static str, kind: Kind, about: &'static str) -> Parameter {
    Parameter { name, kind, is_required: false, about }
}

const fn must(name: &'static str, kind: Kind, about: &'static str) -> Parameter {
    Parameter { is_required: true, ..may(name, kind, about) }
}

const QUERY: Parameter = must("query", Kind::Text, "Expression in PromQL.");
const TIMEOUT: Parameter =
    may("timeout", Kind::Duration, "Longest time for the query; that of the server holds as well.");
const LIMIT: Parameter = may("limit", Kind::Count, "Most results; 0 for all.");
const LOOKBACK: Parameter = may("lookback_delta", Kind::Duration, "How far selectors look back.");
const STATS: Parameter =
    may("stats", Kind::OneOf(&["true", "all"]), "Adds what the query took, with `all` step by step.");
const START: Parameter = may("start", Kind::Time, "First time of interest.");
const END: Parameter = may("end", Kind::Time, "Last time of interest.");
const MATCH: Parameter = may("match[]", Kind::Texts, "Selectors of series; a series counts if it matches any of them.");
const FROM: Parameter = must("start", Kind::Time, "First time of evaluation.");
const TO: Parameter = must("end", Kind::Time, "Last time of evaluation.");

const SEARCH: &[Parameter] = &[
    may("search[]", Kind::Texts, "What to look for; any of them."),
    MATCH,
    may("label", Kind::Text, "The label whose values are searched."),
    may("start", Kind::Time, "First time of interest; an hour ago unless given."),
    may("end", Kind::Time, "Last time of interest; now unless given."),
    may("fuzz_threshold", Kind::Count, "Least score, of 100."),
    may("fuzz_alg", Kind::OneOf(&["subsequence", "jarowinkler"]), "How texts are compared."),
    may("case_sensitive", Kind::Switch, "Whether case counts; it does unless given."),
    may("sort_by", Kind::OneOf(&["alpha", "score"]), "The order."),
    may("sort_dir", Kind::OneOf(&["asc", "dsc"]), "Its direction, by alphabet alone."),
    may("include_score", Kind::Switch, "Adds scores."),
    may("include_metadata", Kind::Switch, "Adds what targets tell of metrics."),
    LIMIT,
    may("batch_size", Kind::Count, "Results in a line."),
];

use Answer::{Data, Empty, Other};
use Kind::{Count, Duration, OneOf, Switch, Text, Texts, Time};

#[rustfmt::skip]
const ENDPOINTS: &[Endpoint] = &[
    Endpoint { path: "/query", about: "Evaluates an expression at one time.", answer: Data("QueryData"), parameters: &[QUERY, may("time", Time, "When; now unless given."), TIMEOUT, LIMIT, LOOKBACK, STATS] },
    Endpoint { path: "/query_range", about: "Evaluates an expression over a range of time.", answer: Data("QueryData"), parameters: &[QUERY, FROM, TO, must("step", Duration, "Time between two evaluations."), TIMEOUT, LIMIT, LOOKBACK, STATS] },
    Endpoint { path: "/query_exemplars", about: "Finds exemplars of the series of an expression.", answer: Data("Exemplars"), parameters: &[QUERY, START, END] },
    Endpoint { path: "/parse_query", about: "Shows an expression as a tree.", answer: Data("Node"), parameters: &[QUERY] },
    Endpoint { path: "/format_query", about: "Formats an expression.", answer: Data("Text"), parameters: &[QUERY] },
    Endpoint { path: "/series", about: "Lists label sets of series.", answer: Data("LabelSets"), parameters: &[must("match[]", Texts, "Selectors of series; a series counts if it matches any of them."), START, END, LIMIT] },
    Endpoint { path: "/labels", about: "Lists names of labels.", answer: Data("Texts"), parameters: &[MATCH, START, END, LIMIT] },
    Endpoint { path: "/label/{name}/values", about: "Lists values of a label.", answer: Data("Texts"), parameters: &[MATCH, START, END, LIMIT] },
    Endpoint { path: "/search/metric_names", about: "Searches names of metrics, if that is switched on.", answer: Other("application/x-ndjson"), parameters: SEARCH },
    Endpoint { path: "/search/label_names", about: "Searches names of labels, if that is switched on.", answer: Other("application/x-ndjson"), parameters: SEARCH },
    Endpoint { path: "/search/label_values", about: "Searches values of a label, if that is switched on.", answer: Other("application/x-ndjson"), parameters: SEARCH },
    Endpoint { path: "/targets", about: "Lists targets.", answer: Data("Targets"), parameters: &[may("state", OneOf(&["active", "dropped", "any"]), "Which of them."), may("scrapePool", Text, "Of one pool alone.")] },
    Endpoint { path: "/scrape_pools", about: "Lists names of scrape pools.", answer: Data("ScrapePools"), parameters: &[] },
    Endpoint { path: "/scrape_pools/config", about: "Shows the configuration of a pool.", answer: Data("Yaml"), parameters: &[must("scrapePool", Text, "Name of the pool.")] },
    Endpoint { path: "/targets/metadata", about: "Lists what targets tell of their metrics.", answer: Data("TargetMetadata"), parameters: &[may("match_target", Text, "Selector of targets."), may("metric", Text, "Of one metric alone."), may("limit", Count, "About how many lines.")] },
    Endpoint { path: "/targets/relabel_steps", about: "Shows what each relabelling rule of a pool makes of labels.", answer: Data("RelabelSteps"), parameters: &[must("scrapePool", Text, "Name of the pool."), must("labels", Text, "The labels, as a JSON object.")] },
    Endpoint { path: "/metadata", about: "Lists types, help texts and units by metric.", answer: Data("Metadata"), parameters: &[may("metric", Text, "Of one metric alone."), may("limit", Count, "Most metrics."), may("limit_per_metric", Count, "Most descriptions of a metric.")] },
    Endpoint { path: "/alertmanagers", about: "Lists the Alertmanagers that are told of alerts.", answer: Data("Alertmanagers"), parameters: &[] },
    Endpoint { path: "/rules", about: "Lists rule groups.", answer: Data("RuleGroups"), parameters: &[may("type", OneOf(&["alert", "record"]), "Rules of one kind alone."), may("rule_name[]", Texts, "Names of rules."), may("rule_group[]", Texts, "Names of groups."), may("file[]", Texts, "Rule files."), may("match[]", Texts, "Selectors of the rules' labels."), may("exclude_alerts", Switch, "Leaves out active alerts."), may("group_limit", Count, "Most groups; the answer then names where to go on."), may("group_next_token", Text, "Where to go on.")] },
    Endpoint { path: "/alerts", about: "Lists active alerts.", answer: Data("Alerts"), parameters: &[] },
    Endpoint { path: "/read", about: "Remote read: a packed message is asked with and answered.", answer: Other("application/x-protobuf"), parameters: &[] },
    Endpoint { path: "/write", about: "Remote write: takes a packed message, if that is switched on.", answer: Empty, parameters: &[] },
    Endpoint { path: "/otlp/v1/metrics", about: "Takes OTLP metrics, if that is switched on.", answer: Empty, parameters: &[] },
    Endpoint { path: "/status/config", about: "Shows the configuration in effect.", answer: Data("Yaml"), parameters: &[] },
    Endpoint { path: "/status/flags", about: "Lists flags and their values.", answer: Data("Labels"), parameters: &[] },
    Endpoint { path: "/status/buildinfo", about: "Says what was built, when and by whom.", answer: Data("BuildInfo"), parameters: &[] },
    Endpoint { path: "/status/runtimeinfo", about: "Says how the process is.", answer: Data("RuntimeInfo"), parameters: &[] },
    Endpoint { path: "/status/tsdb", about: "Counts series and labels of the head.", answer: Data("TsdbStatus"), parameters: &[may("limit", Count, "Entries of each list, 10 unless given, 10000 at most.")] },
    Endpoint { path: "/status/tsdb/blocks", about: "Describes the blocks.", answer: Data("Blocks"), parameters: &[] },
    Endpoint { path: "/status/self_metrics", about: "Lists the server's own metrics.", answer: Data("Families"), parameters: &[may("metric_name_pattern", Text, "Regular expression for names.")] },
    Endpoint { path: "/status/walreplay", about: "Says how far the log is read back.", answer: Data("WalReplay"), parameters: &[] },
    Endpoint { path: "/admin/tsdb/delete_series", about: "Deletes samples, if that is switched on.", answer: Empty, parameters: &[must("match[]", Texts, "Selectors of series."), START, END] },
    Endpoint { path: "/admin/tsdb/clean_tombstones", about: "Writes blocks anew without what was deleted, if that is switched on.", answer: Empty, parameters: &[] },
    Endpoint { path: "/admin/tsdb/snapshot", about: "Copies all data, if that is switched on.", answer: Data("Snapshot"), parameters: &[may("skip_head", Switch, "Leaves out what stands in no block yet.")] },
    Endpoint { path: "/features", about: "Lists features, and whether they are there and switched on.", answer: Data("Features"), parameters: &[] },
    Endpoint { path: "/notifications", about: "Lists what users should know.", answer: Data("Notifications"), parameters: &[] },
    Endpoint { path: "/notifications/live", about: "Tells what users should know as it comes.", answer: Other("text/event-stream"), parameters: &[] },
    Endpoint { path: "/openapi.yaml", about: "This description.", answer: Other("application/yaml"), parameters: &[may("openapi_version", OneOf(&["3.1", "3.2"]), "Version of the description's format.")] },
];

/// The handler.
pub(crate) async fn openapi(context: Context) -> Result<Response, ApiError> {
    let version = match context.params.get_query("openapi_version") {
        found if found.starts_with("3.2") => "3.2.0",
        _ => "3.1.0",
    };
    let response = Response::ok("application/yaml; charset=utf-8", document(version));
    Ok(response.with("Cache-Control", "no-cache, no-store, must-revalidate"))
}

/// The route of an endpoint.
fn route(endpoint: &Endpoint) -> Option<&'static Route> {
    let path = format!("/api/v1{}", endpoint.path.replace("{name}", "*"));
    ROUTES.iter().find(|route| route.path == path)
}

fn document(version: &str) -> String {
    let mut out = format!(
        "openapi: {version}\ninfo:\n  title: Watchfire API\n  description: The HTTP API of Prometheus \
         {compatible}, as far as Watchfire has it.\n  version: {own}\nservers:\n- url: /api/v1\npaths:\n",
        compatible = build_info::COMPATIBLE_VERSION,
        own = build_info::VERSION
    );
    for endpoint in ENDPOINTS {
        let Some(route) = route(endpoint) else { continue };
        let _ = writeln!(out, "  {}:", endpoint.path);
        for (method, _) in route.methods {
            operation(&mut out, endpoint, method);
        }
    }
    out.push_str(COMPONENTS);
    out
}

fn operation(out: &mut String, endpoint: &Endpoint, method: &Method) {
    let verb = method.as_str().to_lowercase();
    let words: Vec<&str> =
        endpoint.path.split(|c: char| !c.is_ascii_alphanumeric()).filter(|w| !w.is_empty()).collect();
    let summary = endpoint.about.replace('\'', "''");
    let _ = writeln!(out, "    {verb}:\n      operationId: {verb}_{}\n      summary: '{summary}'", words.join("_"));
    let takes_form = *method == Method::POST && !endpoint.parameters.is_empty();
    let in_path = endpoint.path.contains("{name}");
    if in_path || (!takes_form && !endpoint.parameters.is_empty()) {
        out.push_str("      parameters:\n");
    }
    if in_path {
        out.push_str("      - {name: name, in: path, required: true, schema: {type: string}}\n");
    }
    if takes_form {
        out.push_str("      requestBody:\n        content:\n          application/x-www-form-urlencoded:\n");
        out.push_str("            schema:\n              type: object\n");
        let required: Vec<String> =
            endpoint.parameters.iter().filter(|p| p.is_required).map(|p| format!("'{}'", p.name)).collect();
        if !required.is_empty() {
            let _ = writeln!(out, "              required: [{}]", required.join(", "));
        }
        out.push_str("              properties:\n");
        for parameter in endpoint.parameters {
            let _ = writeln!(out, "                '{}': {}", parameter.name, schema(parameter.kind));
        }
    } else {
        for Parameter { name, kind, is_required, about } in endpoint.parameters {
            let about = about.replace('\'', "''");
            let _ = writeln!(
                out,
                "      - {{name: '{name}', in: query, required: {is_required}, description: '{about}', schema: {}}}",
                schema(*kind)
            );
        }
    }
    if takes_messages(endpoint) {
        out.push_str("      requestBody: {required: true, content: {application/x-protobuf: {}}}\n");
    }
    out.push_str("      responses:\n");
    match endpoint.answer {
        Data(name) => {
            let _ = writeln!(
                out,
                "        '200':\n          description: Success.\n          content:\n            application/json:\n              \
                 schema:\n                allOf:\n                - $ref: '#/components/schemas/Success'\n                - \
                 {{type: object, required: [data], properties: {{data: {{$ref: '#/components/schemas/{name}'}}}}}}"
            );
        }
        Empty => out.push_str("        '204': {description: Taken.}\n"),
        Other(kind) => {
            let _ = writeln!(out, "        '200': {{description: Success., content: {{{kind}: {{}}}}}}");
        }
    }
    if may_be_empty(endpoint) {
        out.push_str("        '204': {description: There is nothing to tell.}\n");
    }
    for (status, about) in failures(endpoint, takes_form) {
        let text = "text/plain; charset=utf-8: {}";
        let content = match (endpoint.family(), *status) {
            (Tells::Envelopes, "400" | "422" | "499" | "500") => FAILURE.to_owned(),
            // What the server says before it is ready is no envelope.
            (Tells::Envelopes, "503") => format!("{FAILURE}, {text}"),
            (Tells::Envelopes | Tells::Texts, _) => text.to_owned(),
        };
        let _ = writeln!(out, "        '{status}': {{description: '{about}', content: {{{content}}}}}");
    }
}

const FAILURE: &str = "application/json: {schema: {$ref: '#/components/schemas/Failure'}}";

/// How an endpoint tells of failures.
enum Tells {
    Envelopes,
    Texts,
}

impl Endpoint {
    fn family(&self) -> Tells {
        if takes_messages(self) { Tells::Texts } else { Tells::Envelopes }
    }
}

/// Statuses of failures, and what each means.
fn failures(endpoint: &Endpoint, takes_form: bool) -> Vec<&'static (&'static str, &'static str)> {
    static ALL: [(&str, &str); 9] = [
        ("400", "A parameter or the body is wrong."),
        ("404", "There is no such thing, or it is switched off."),
        ("413", "The body is too long."),
        ("415", "The body is of another type."),
        ("422", "It cannot be done, as the expression or its data do not allow it."),
        ("431", "The header is too long."),
        ("499", "It was given up."),
        ("500", "The server failed, or this is switched off."),
        ("503", "The server is not ready, has too much to do, or took too long."),
    ];
    let is_there = |status: &str| match status {
        "404" => endpoint.path.contains('{') || takes_messages(endpoint),
        "413" => takes_form || takes_messages(endpoint),
        "415" => endpoint.path == "/write",
        "422" | "499" => !takes_messages(endpoint),
        _ => true,
    };
    ALL.iter().filter(|(status, _)| is_there(status)).collect()
}

fn takes_messages(endpoint: &Endpoint) -> bool {
    matches!(endpoint.path, "/read" | "/write" | "/otlp/v1/metrics")
}

fn may_be_empty(endpoint: &Endpoint) -> bool {
    matches!(endpoint.path, "/query_exemplars" | "/notifications/live")
}

fn schema(kind: Kind) -> String {
    match kind {
        Text => "{type: string}".to_owned(),
        Texts => "{type: array, items: {type: string}}".to_owned(),
        Count => "{type: integer, minimum: 0}".to_owned(),
        Switch => "{type: boolean}".to_owned(),
        Time => "{$ref: '#/components/schemas/Time'}".to_owned(),
        Duration => "{$ref: '#/components/schemas/Duration'}".to_owned(),
        OneOf(words) => format!("{{type: string, enum: ['{}']}}", words.join("', '")),
    }
}

const COMPONENTS: &str = "components:
  schemas:
    Time:
      description: Seconds since the epoch, or RFC 3339.
      oneOf: [{type: number}, {type: string, format: date-time}]
    Duration:
      description: Seconds, or a duration as in PromQL.
      oneOf: [{type: number}, {type: string}]
    Text: {type: string}
    Texts: {type: array, items: {type: string}}
    Labels: {type: object, additionalProperties: {type: string}}
    LabelSets: {type: array, items: {$ref: '#/components/schemas/Labels'}}
    Yaml: {type: object, required: [yaml], properties: {yaml: {type: string}}}
    QueryData:
      type: object
      required: [resultType, result]
      properties:
        resultType: {type: string, enum: [matrix, vector, scalar, string]}
        result: {type: array}
        stats: {type: object, required: [timings, samples]}
    Exemplars:
      type: array
      items:
        type: object
        required: [seriesLabels, exemplars]
        properties:
          seriesLabels: {$ref: '#/components/schemas/Labels'}
          exemplars:
            type: array
            items:
              type: object
              required: [labels, value, timestamp]
              properties:
                labels: {$ref: '#/components/schemas/Labels'}
                value: {type: string}
                timestamp: {type: number}
    Node: {type: object, required: [type], properties: {type: {type: string}}}
    Targets:
      type: object
      required: [activeTargets, droppedTargets]
      properties:
        activeTargets:
          type: array
          items:
            type: object
            required: [discoveredLabels, labels, scrapePool, scrapeUrl, globalUrl, lastError, lastScrape, lastScrapeDuration, health, scrapeInterval, scrapeTimeout]
            properties:
              discoveredLabels: {$ref: '#/components/schemas/Labels'}
              labels: {$ref: '#/components/schemas/Labels'}
              lastScrapeDuration: {type: number}
              health: {type: string, enum: [up, down, unknown]}
        droppedTargets:
          type: array
          items:
            type: object
            required: [discoveredLabels, scrapePool]
            properties: {discoveredLabels: {$ref: '#/components/schemas/Labels'}, scrapePool: {type: string}}
        droppedTargetCounts: {type: [object, 'null'], additionalProperties: {type: integer}}
    ScrapePools: {type: object, required: [scrapePools], properties: {scrapePools: {$ref: '#/components/schemas/Texts'}}}
    TargetMetadata:
      type: array
      items:
        type: object
        required: [target, type, help, unit]
        properties: {target: {$ref: '#/components/schemas/Labels'}, metric: {type: string}, type: {type: string}, help: {type: string}, unit: {type: string}}
    RelabelSteps:
      type: object
      required: [steps]
      properties:
        steps:
          type: array
          items:
            type: object
            required: [rule, output, keep]
            properties: {rule: {type: object}, output: {$ref: '#/components/schemas/Labels'}, keep: {type: boolean}}
    Metadata:
      type: object
      additionalProperties:
        type: array
        items:
          type: object
          required: [type, unit, help]
          properties: {type: {type: string}, unit: {type: string}, help: {type: string}}
    Alertmanagers:
      type: object
      required: [activeAlertmanagers, droppedAlertmanagers]
      properties: {activeAlertmanagers: {$ref: '#/components/schemas/Urls'}, droppedAlertmanagers: {$ref: '#/components/schemas/Urls'}}
    Urls: {type: array, items: {type: object, required: [url], properties: {url: {type: string}}}}
    RuleGroups:
      type: object
      required: [groups]
      properties:
        groupNextToken: {type: string}
        groups:
          type: array
          items:
            type: object
            required: [name, file, rules, interval, limit, evaluationTime, lastEvaluation]
            properties:
              name: {type: string}
              file: {type: string}
              interval: {type: number}
              limit: {type: integer}
              rules:
                type: array
                items:
                  type: object
                  required: [name, query, health, evaluationTime, lastEvaluation, type]
                  properties:
                    type: {type: string, enum: [alerting, recording]}
                    health: {type: string, enum: [ok, err, unknown]}
                    state: {type: string, enum: [inactive, pending, firing, unknown]}
                    labels: {$ref: '#/components/schemas/Labels'}
                    annotations: {$ref: '#/components/schemas/Labels'}
                    alerts: {type: array, items: {$ref: '#/components/schemas/Alert'}}
    Alerts: {type: object, required: [alerts], properties: {alerts: {type: array, items: {$ref: '#/components/schemas/Alert'}}}}
    Alert:
      type: object
      required: [labels, annotations, state, value]
      properties:
        labels: {$ref: '#/components/schemas/Labels'}
        annotations: {$ref: '#/components/schemas/Labels'}
        state: {type: string, enum: [inactive, pending, firing, unknown]}
        value: {type: string}
    BuildInfo:
      type: object
      required: [version, revision, branch, buildUser, buildDate, goVersion]
      additionalProperties: {type: string}
    RuntimeInfo:
      type: object
      required: [startTime, CWD, hostname, serverTime, reloadConfigSuccess, lastConfigTime, corruptionCount, goroutineCount, GOMAXPROCS, GOMEMLIMIT, GOGC, GODEBUG, storageRetention]
      properties: {reloadConfigSuccess: {type: boolean}, corruptionCount: {type: integer}, goroutineCount: {type: integer}, storageRetention: {type: string}}
    TsdbStatus:
      type: object
      required: [headStats, seriesCountByMetricName, labelValueCountByLabelName, memoryInBytesByLabelName, seriesCountByLabelValuePair]
      properties:
        headStats: {type: object, required: [numSeries, numLabelPairs, chunkCount, minTime, maxTime], additionalProperties: {type: integer}}
        seriesCountByMetricName: {$ref: '#/components/schemas/Counts'}
        labelValueCountByLabelName: {$ref: '#/components/schemas/Counts'}
        memoryInBytesByLabelName: {$ref: '#/components/schemas/Counts'}
        seriesCountByLabelValuePair: {$ref: '#/components/schemas/Counts'}
    Counts:
      type: array
      items: {type: object, required: [name, value], properties: {name: {type: string}, value: {type: integer}}}
    Blocks:
      type: object
      required: [blocks]
      properties: {blocks: {type: array, items: {type: object, required: [ulid]}}}
    Families:
      type: array
      items: {type: object, required: [name, type, metric], properties: {name: {type: string}, metric: {type: array, items: {type: object}}}}
    WalReplay:
      type: object
      required: [min, max, current]
      additionalProperties: {type: integer}
    Snapshot: {type: object, required: [name], properties: {name: {type: string}}}
    Features: {type: object, additionalProperties: {type: object, additionalProperties: {type: boolean}}}
    Notifications:
      type: array
      items: {type: object, required: [text, date, active], properties: {text: {type: string}, date: {type: string}, active: {type: boolean}}}
    Success:
      type: object
      required: [status]
      properties:
        status: {type: string, enum: [success]}
        warnings: {type: array, items: {type: string}}
        infos: {type: array, items: {type: string}}
    Failure:
      type: object
      required: [status, errorType, error]
      properties:
        status: {type: string, enum: [error]}
        errorType:
          type: string
          enum: [bad_data, execution, canceled, timeout, internal, unavailable, not_found, not_acceptable]
        error: {type: string}
";

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_route_is_described_and_no_other() {
        let described: BTreeSet<String> =
            ENDPOINTS.iter().map(|endpoint| format!("/api/v1{}", endpoint.path.replace("{name}", "*"))).collect();
        let routes: BTreeSet<String> =
            ROUTES.iter().map(|route| route.path.to_owned()).filter(|path| path.starts_with("/api/v1/")).collect();
        assert_eq!(described, routes);
    }

    #[test]
    fn the_document_is_yaml_and_names_each_method() {
        for version in ["3.1.0", "3.2.0"] {
            let parsed: serde_json::Value = serde_yaml::from_str(&document(version)).unwrap();
            assert_eq!(parsed["openapi"], version);
            for endpoint in ENDPOINTS {
                let operations = parsed["paths"][endpoint.path].as_object().unwrap();
                assert_eq!(operations.len(), route(endpoint).unwrap().methods.len(), "{}", endpoint.path);
            }
            let values = &parsed["paths"]["/label/{name}/values"]["get"]["parameters"];
            assert_eq!((&values[0]["in"], &values[1]["name"]), (&"path".into(), &"match[]".into()));
            let form =
                &parsed["paths"]["/query"]["post"]["requestBody"]["content"]["application/x-www-form-urlencoded"];
            assert_eq!(form["schema"]["required"][0], "query");
        }
    }
}
