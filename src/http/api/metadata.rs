//! `/api/v1/metadata` and `/api/v1/targets/metadata`: types, help texts and units that targets tell of their metrics.

use std::collections::{BTreeMap, BTreeSet};

use crate::http::api::types::{MetricMetadata, TargetMetadata};
use crate::http::envelope;
use crate::http::error::ApiError;
use crate::http::request::Context;
use crate::http::response::Response;

/// `GET /api/v1/metadata`: of each metric the different descriptions that targets give.
pub(crate) async fn metrics(context: Context) -> Result<Response, ApiError> {
    let limit = count(&context, "limit")?;
    // Upstream takes 0 for no limit here, and for none at all above.
    let per_metric = count(&context, "limit_per_metric")?.filter(|n| 0 < *n).unwrap_or(usize::MAX);
    let metric = context.params.get_query("metric");
    let targets = context.state.ports.target_metadata(metric).await?;
    let mut found: BTreeMap<&str, BTreeSet<(&str, &str, &str)>> = BTreeMap::new();
    for metadata in targets.iter().flat_map(|target| &target.metadata) {
        let known = found.entry(&metadata.family).or_default();
        if known.len() < per_metric {
            known.insert((metadata.kind, &metadata.unit, &metadata.help));
        }
    }
    Ok(envelope::data(|json| {
        let mut object = json.object();
        for (family, known) in found.iter().take(limit.unwrap_or(usize::MAX)) {
            let mut array = object.key(family).array();
            for (kind, unit, help) in known {
                let mut object = array.item().object();
                object.string("type", kind).string("unit", unit).string("help", help);
                object.end();
            }
            array.end();
        }
        object.end();
    }))
}

/// `GET /api/v1/targets/metadata`: what each target says.
pub(crate) async fn targets(context: Context) -> Result<Response, ApiError> {
    let limit = count(&context, "limit")?.unwrap_or(usize::MAX);
    let matchers = match context.params.get_query("match_target") {
        "" => Vec::new(),
        text => {
            let parsed = context.state.ports.parse_selector(text);
            parsed.map_err(|error| ApiError::invalid_parameter("match_target", error))?
        }
    };
    let metric = context.params.get_query("metric");
    let mut targets = context.state.ports.target_metadata(metric).await?;
    targets.retain(|target| matchers.iter().all(|matcher| matcher.matches_labels(&target.labels)));
    let lines = limited(&targets, limit);
    Ok(envelope::data(|json| {
        let mut array = json.array();
        for (target, metadata) in lines {
            let mut object = array.item().object();
            object.labels("target", &target.labels);
            if metric.is_empty() {
                object.string("metric", &metadata.family);
            }
            object.string("type", metadata.kind).string("help", &metadata.help).string("unit", &metadata.unit);
            object.end();
        }
        array.end();
    }))
}

/// All lines of targets, taken as long as there are fewer than `limit`: the limit ends the list between two targets.
fn limited(targets: &[TargetMetadata], limit: usize) -> Vec<(&TargetMetadata, &MetricMetadata)> {
    let mut lines = Vec::new();
    for target in targets {
        if limit <= lines.len() {
            break;
        }
        lines.extend(target.metadata.iter().map(|metadata| (target, metadata)));
    }
    lines
}

/// A limit; `None` for no limit, which a negative one is as well.
fn count(context: &Context, name: &str) -> Result<Option<usize>, ApiError> {
    match context.params.get_query(name) {
        "" => Ok(None),
        text => match text.parse::<i64>() {
            Ok(n) => Ok(usize::try_from(n).ok()),
            Err(_) => Err(ApiError::bad_data(format!("{name} must be a number"))),
        },
    }
}
