//! `/api/v1/search/{metric_names,label_names,label_values}`, with `--enable-feature=search-api`: names and values that look like
//! what was typed, as lines of JSON.

mod filter;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_web::web;

use crate::http::api::matchers_plain;
use crate::http::api::search::filter::{Algorithm, Filter, Stop, StopOnDrop};
use crate::http::api::types::{LabelValuesRequest, Listed, MetricMetadata, SelectRequest};
use crate::http::error::{ApiError, ErrorKind};
use crate::http::held::Held;
use crate::http::json::Json;
use crate::http::params::{Params, parse_time};
use crate::http::pieces::{PIECE_LEN, Script, Scripted};
use crate::http::request::Context;
use crate::http::response::Response;
use crate::model::go;
use crate::model::go_number;
use crate::model::labels::METRIC_NAME;
use crate::model::names::Names;
use crate::model::time::TimestampMs;

/// Results, and results in a line, unless the client says otherwise.
const LIMIT: usize = 100;
/// Most texts to search for.
const TERMS_MAX: usize = 32;
/// Longest text to search for, in bytes.
const TERM_LEN_MAX: usize = 4 << 10;
/// Longest time to look for them.
const SEARCH_WITHIN: Duration = Duration::from_secs(30);
/// How far back is looked unless the client says otherwise.
const BACK_MS: i64 = 3_600_000;
const NDJSON: &str = "application/x-ndjson; charset=utf-8";

/// The order of results.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Ascending,
    Descending,
    /// Best first; of equals the first by value.
    Score,
}

/// A request, checked.
struct Search {
    select: SelectRequest,
    filter: Filter,
    order: Order,
    has_scores: bool,
    limit: usize,
    batch_len: usize,
}

/// What is searched.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Among {
    MetricNames,
    LabelNames,
    LabelValues,
}

/// `GET` and `POST /api/v1/search/metric_names`.
pub(crate) async fn metric_names(context: Context) -> Result<Response, ApiError> {
    search(context, Among::MetricNames).await
}

/// `GET` and `POST /api/v1/search/label_names`.
pub(crate) async fn label_names(context: Context) -> Result<Response, ApiError> {
    search(context, Among::LabelNames).await
}

/// `GET` and `POST /api/v1/search/label_values`.
pub(crate) async fn label_values(context: Context) -> Result<Response, ApiError> {
    search(context, Among::LabelValues).await
}

async fn search(context: Context, among: Among) -> Result<Response, ApiError> {
    let Some(limit_max) = context.state.settings.search_limit_max else {
        return Err(ApiError::unavailable("search API disabled"));
    };
    let now = context.state.clock.now();
    let waiting = StopOnDrop(Stop::at(Instant::now() + SEARCH_WITHIN));
    let stop = Arc::clone(&waiting.0);
    let Search { select, filter, order, has_scores, limit, batch_len } =
        parse(&context, among, (now, stop), limit_max)?;
    let mut with_metadata = false;
    let (ports, name) = (&context.state.ports, context.params.get("label").to_owned());
    let listed = match among {
        Among::MetricNames => {
            with_metadata = boolean(&context.params, "include_metadata", false)?;
            ports.label_values(LabelValuesRequest { name: METRIC_NAME.to_owned(), select }).await?
        }
        Among::LabelNames => ports.label_names(select).await?,
        Among::LabelValues if name.is_empty() => {
            return Err(ApiError::bad_data("missing required parameter \"label\""));
        }
        Among::LabelValues => ports.label_values(LabelValuesRequest { name, select }).await?,
    };
    let Listed { items, warnings, held } = listed;
    // A million names take longer to score than a worker's thread should be held.
    let found = web::block(move || ranked(&items, filter, order)).await;
    let found = found.map_err(|error| ApiError::internal(format!("cannot search: {error}")))?;
    drop(waiting);
    let mut found = found.ok_or_else(|| ApiError::new(ErrorKind::Timeout, "the search has taken too long"))?;
    let has_more = limit < found.len();
    found.truncate(limit);
    let metadata = if with_metadata && !found.is_empty() { first_metadata(&context).await? } else { HashMap::new() };
    let key = if among == Among::LabelValues { "value" } else { "name" };
    let lines = Lines {
        found: found.into_iter(),
        metadata,
        key,
        has_scores,
        batch_len,
        has_more,
        warnings,
        is_first: true,
        held,
    };
    Ok(respond(lines))
}

/// What the first target that tells of a metric says of it.
async fn first_metadata(context: &Context) -> Result<HashMap<String, MetricMetadata>, ApiError> {
    let mut first = HashMap::new();
    for target in context.state.ports.target_metadata("").await? {
        for metadata in target.metadata {
            first.entry(metadata.family.clone()).or_insert(metadata);
        }
    }
    Ok(first)
}

fn respond(mut lines: Lines) -> Response {
    let mut json = Json::new();
    let has_more = lines.write(&mut json);
    let mut response = Response::ok(NDJSON, json.into_bytes());
    if has_more {
        return response.followed_by(Scripted::new(Box::new(lines), Vec::new()));
    }
    response.held = lines.take_held();
    response.held.settle(response.body.capacity());
    response
}

/// Those that are found, in order; `None` if the search was given up.
fn ranked(items: &Names, mut filter: Filter, order: Order) -> Option<Vec<(String, f64)>> {
    let mut found: Vec<(String, f64)> = Vec::new();
    for item in items.iter() {
        if filter.is_over() {
            return None;
        }
        found.extend(filter.score(item).map(|score| (item.to_owned(), score)));
    }
    if filter.is_over() {
        return None;
    }
    match order {
        // They come sorted.
        Order::Ascending => {}
        Order::Descending => found.reverse(),
        Order::Score => found.sort_by(|a, b| b.1.total_cmp(&a.1)),
    }
    Some(found)
}

fn parse(
    context: &Context,
    among: Among,
    (now, stop): (TimestampMs, Arc<Stop>),
    limit_max: usize,
) -> Result<Search, ApiError> {
    let params = &context.params;
    let time = |name: &str, default: TimestampMs| match params.get(name) {
        "" => Ok(default),
        text => {
            parse_time(text).map_err(|error| ApiError::bad_data(format!("invalid time value for '{name}': {error}")))
        }
    };
    let start = time("start", TimestampMs(now.0.saturating_sub(BACK_MS)))?;
    let end = time("end", now)?;
    if end < start {
        return Err(ApiError::bad_data("end timestamp must not be before start timestamp"));
    }
    let selectors = matchers_plain(context)?;
    let terms: Vec<String> = params.all("search[]").map(str::to_owned).collect();
    if TERMS_MAX < terms.len() {
        let text = format!("too many search[] terms: got {}, maximum is {TERMS_MAX}", terms.len());
        return Err(ApiError::bad_data(text));
    }
    if let Some(long) = terms.iter().find(|term| TERM_LEN_MAX < term.len()) {
        let text = format!("search[] term too long: {} bytes, maximum is {TERM_LEN_MAX}", long.len());
        return Err(ApiError::bad_data(text));
    }
    let threshold = match params.get("fuzz_threshold") {
        "" => 0,
        text => go_number::atoi(text)
            .ok()
            .filter(|n| (0..=100).contains(n))
            .ok_or_else(|| ApiError::bad_data(format!("invalid fuzz_threshold {}: must be 0-100", go::quote(text))))?,
    };
    let algorithm = match params.get("fuzz_alg") {
        "" | "subsequence" => Algorithm::Subsequence,
        "jarowinkler" => Algorithm::JaroWinkler,
        other => {
            let text = "must be one of [subsequence jarowinkler]";
            return Err(ApiError::bad_data(format!("unsupported fuzz_alg {}: {text}", go::quote(other))));
        }
    };
    let case_sensitive = boolean(params, "case_sensitive", true)?;
    let has_scores = boolean(params, "include_score", false)?;
    let order = order(params, among, !terms.is_empty())?;
    let (limit, batch_len) = limits(params, limit_max)?;
    let filter = Filter::new(&terms, threshold as f64 / 100.0, algorithm, case_sensitive, stop);
    let select = SelectRequest { selectors, start, end, hint_limit: 0 };
    Ok(Search { select, filter, order, has_scores, limit, batch_len })
}

fn order(params: &Params, among: Among, has_terms: bool) -> Result<Order, ApiError> {
    let (by, direction) = (params.get("sort_by"), params.get("sort_dir"));
    let wrong = match (by, direction) {
        ("", direction) if !direction.is_empty() => "sort_dir is only valid when sort_by is set".to_owned(),
        ("score", direction) if !direction.is_empty() => "sort_dir is not supported for sort_by=score".to_owned(),
        (_, direction) if !matches!(direction, "" | "asc" | "dsc") => {
            format!("invalid sort_dir {}: must be \"asc\" or \"dsc\"", go::quote(direction))
        }
        ("score", _) if !has_terms => "sort_by=score requires search[] to be set".to_owned(),
        ("", _) => return Ok(Order::Ascending),
        ("score", _) => return Ok(Order::Score),
        ("alpha", "dsc") => return Ok(Order::Descending),
        ("alpha", _) => return Ok(Order::Ascending),
        (by, _) => {
            let endpoint = match among {
                Among::MetricNames => "metric_names",
                Among::LabelNames => "label_names",
                Among::LabelValues => "label_values",
            };
            format!("invalid sort_by {} for {endpoint}: must be \"alpha\" or \"score\"", go::quote(by))
        }
    };
    Err(ApiError::bad_data(wrong))
}

/// Most results, and results in a line.
fn limits(params: &Params, limit_max: usize) -> Result<(usize, usize), ApiError> {
    let positive = |name: &str, default: usize| match params.get(name) {
        "" => Ok(default),
        text => match go_number::atoi(text).ok().and_then(|n| usize::try_from(n).ok()) {
            Some(number) if 0 < number => Ok(number),
            _ => Err(ApiError::bad_data(format!("invalid {name} {}: must be a positive integer", go::quote(text)))),
        },
    };
    let cap = if limit_max == 0 { usize::MAX } else { limit_max };
    let limit = positive("limit", LIMIT.min(cap))?;
    if cap < limit {
        let text = format!("limit {limit} exceeds the configured maximum ({limit_max}, see --web.search.max-limit)");
        return Err(ApiError::bad_data(text));
    }
    Ok((limit, positive("batch_size", LIMIT)?))
}

/// As Go reads truth values.
fn boolean(params: &Params, name: &str, default: bool) -> Result<bool, ApiError> {
    match params.get(name) {
        "" => Ok(default),
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
        text => Err(ApiError::bad_data(format!("invalid {name} {}: must be boolean", go::quote(text)))),
    }
}

/// Lines with results, and a last one that says whether there would be more.
struct Lines {
    found: std::vec::IntoIter<(String, f64)>,
    metadata: HashMap<String, MetricMetadata>,
    key: &'static str,
    has_scores: bool,
    batch_len: usize,
    has_more: bool,
    warnings: Vec<String>,
    is_first: bool,
    held: Held,
}

impl Lines {
    fn batch(&mut self, json: &mut Json) {
        let mut object = json.object();
        let mut array = object.key("results").array();
        for (text, score) in self.found.by_ref().take(self.batch_len) {
            let mut object = array.item().object();
            object.string(self.key, &text);
            if self.has_scores {
                object.number("score", score);
            }
            if let Some(metadata) = self.metadata.get(&text) {
                object
                    .string_if_any("type", metadata.kind)
                    .string_if_any("help", &metadata.help)
                    .string_if_any("unit", &metadata.unit);
            }
            object.end();
        }
        array.end();
        let warnings = std::mem::take(&mut self.warnings);
        if !warnings.is_empty() {
            object.key("warnings").strings(warnings);
        }
        object.end();
        json.raw("\n");
    }
}

impl Script for Lines {
    fn write(&mut self, json: &mut Json) -> bool {
        let until = json.len() + PIECE_LEN;
        // The first line comes even if there is nothing in it.
        while std::mem::take(&mut self.is_first) || self.found.len() != 0 {
            self.batch(json);
            if until <= json.len() {
                return true;
            }
        }
        let mut object = json.object();
        object.string("status", "success").bool("has_more", self.has_more);
        object.end();
        json.raw("\n");
        false
    }

    fn take_held(&mut self) -> Held {
        std::mem::take(&mut self.held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_with_one_that_says_whether_there_is_more() {
        let mut lines = Lines {
            found: vec![("a<".to_owned(), 1.0), ("b".to_owned(), 0.5), ("c".to_owned(), 0.25)].into_iter(),
            metadata: HashMap::new(),
            key: "name",
            has_scores: true,
            batch_len: 2,
            has_more: true,
            warnings: vec!["w".to_owned()],
            is_first: true,
            held: Held::default(),
        };
        let mut json = Json::new();
        assert!(!lines.write(&mut json));
        let expected = concat!(
            r#"{"results":[{"name":"a\u003c","score":1},{"name":"b","score":0.5}],"warnings":["w"]}"#,
            "\n",
            r#"{"results":[{"name":"c","score":0.25}]}"#,
            "\n",
            r#"{"status":"success","has_more":true}"#,
            "\n"
        );
        assert_eq!(json.into_text(), expected);
    }

    #[test]
    fn a_search_that_is_given_up_finds_nothing() {
        let names: Names = ["a", "b"].into_iter().collect();
        let search = |until| {
            let filter = Filter::new(&[], 0.0, Algorithm::Subsequence, true, Stop::at(until));
            ranked(&names, filter, Order::Ascending).map(|found| found.len())
        };
        assert_eq!(search(Instant::now()), None);
        assert_eq!(search(Instant::now() + SEARCH_WITHIN), Some(2));
    }

    #[test]
    fn parameters_are_refused_in_prometheus_s_words() {
        let text = |query: &str| {
            let params = Params::read(query.as_bytes(), b"").unwrap();
            let ordered = order(&params, Among::LabelNames, !params.get("search[]").is_empty()).map(drop);
            let limited = limits(&params, 50).map(drop);
            let truth = boolean(&params, "case_sensitive", true).map(drop);
            ordered.and(limited).and(truth).err().map(|error| error.message).unwrap_or_default()
        };
        for (query, expected) in [
            ("sort_by=alpha&sort_dir=dsc&limit=50&case_sensitive=f", ""),
            ("sort_dir=asc", "sort_dir is only valid when sort_by is set"),
            ("sort_by=score&sort_dir=asc", "sort_dir is not supported for sort_by=score"),
            ("sort_by=alpha&sort_dir=x", "invalid sort_dir \"x\": must be \"asc\" or \"dsc\""),
            ("sort_by=score", "sort_by=score requires search[] to be set"),
            ("sort_by=y", "invalid sort_by \"y\" for label_names: must be \"alpha\" or \"score\""),
            ("limit=0", "invalid limit \"0\": must be a positive integer"),
            ("limit=51", "limit 51 exceeds the configured maximum (50, see --web.search.max-limit)"),
            ("batch_size=-1", "invalid batch_size \"-1\": must be a positive integer"),
            ("case_sensitive=yes", "invalid case_sensitive \"yes\": must be boolean"),
        ] {
            assert_eq!(text(query), expected, "{query}");
        }
    }
}
