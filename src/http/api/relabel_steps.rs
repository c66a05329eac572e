//! `/api/v1/targets/relabel_steps` and `/api/v1/scrape_pools/config`: how a job is configured, and what its rules make of
//! a set of labels.

use std::sync::Arc;

use crate::config::{Config, RelabelConfig, ScrapeConfig, relabel};
use crate::http::api::types::MissingPool;
use crate::http::envelope;
use crate::http::error::ApiError;
use crate::http::go_json;
use crate::http::json::Json;
use crate::http::request::Context;
use crate::http::response::Response;
use crate::model::labels::Labels;

/// `GET /api/v1/scrape_pools/config`.
pub(crate) async fn config(context: Context) -> Result<Response, ApiError> {
    let yaml = Config::job_to_yaml(&*pool(&context)?);
    Ok(envelope::data(|json| {
        let mut object = json.object();
        object.string("yaml", &yaml);
        object.end();
    }))
}

/// `GET /api/v1/targets/relabel_steps`.
pub(crate) async fn steps(context: Context) -> Result<Response, ApiError> {
    if context.params.get("scrapePool").is_empty() {
        return Err(ApiError::bad_data("no scrapePool parameter provided"));
    }
    let labels = match context.params.get("labels") {
        "" => return Err(ApiError::bad_data("no labels parameter provided")),
        text => go_json::string_map(text),
    };
    let labels = labels.map_err(|error| ApiError::bad_data(format!("error parsing labels: {error}")))?;
    let job = pool(&context)?;
    Ok(envelope::data(|json| {
        let mut object = json.object();
        let mut array = object.key("steps").array();
        let mut kept = Some(Labels::from_pairs(&labels));
        for rule in &job.relabel_configs {
            kept = kept.and_then(|labels| relabel(labels, std::slice::from_ref(rule)));
            let mut object = array.item().object();
            write_rule(object.key("rule"), rule);
            object.labels("output", kept.as_ref().unwrap_or(&Labels::empty()));
            object.bool("keep", kept.is_some());
            object.end();
        }
        array.end();
        object.end();
    }))
}

fn pool(context: &Context) -> Result<Arc<ScrapeConfig>, ApiError> {
    let name = context.params.get("scrapePool");
    if name.is_empty() {
        return Err(ApiError::bad_data("no scrapePool parameter provided"));
    }
    let found = context.state.ports.scrape_config(name);
    found.ok_or_else(|| ApiError::bad_data(format!("error retrieving scrape config: {}", MissingPool(name))))
}

fn write_rule(json: &mut Json, rule: &RelabelConfig) {
    let mut object = json.object();
    if !rule.source_labels.is_empty() {
        object.key("source_labels").strings(rule.source_labels.iter().map(|name| &**name));
    }
    object.string("separator", &rule.separator).string("regex", rule.regex.as_str());
    if rule.modulus != 0 {
        object.key("modulus").raw(&rule.modulus.to_string());
    }
    object
        .string_if_any("target_label", &rule.target_label)
        .string("replacement", &rule.replacement)
        .string("action", rule.action.as_str());
    object.end();
}
