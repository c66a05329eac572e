//! `/api/v1/parse_query` and `/api/v1/format_query`, which look at a query's text alone, and `/api/v1/query_exemplars`, which
//! looks at its selectors.

use actix_web::web;
use serde_json::Value;

use crate::http::envelope;
use crate::http::error::ApiError;
use crate::http::json::Json;
use crate::http::params::{TIME_MAX, TIME_MIN};
use crate::http::request::Context;
use crate::http::response::Response;
use crate::promql::ast::Expr;
use crate::promql::parser::{ParseErrors, ParseOptions, parse_expr};
use crate::promql::printer::{LINE_LEN_MAX, prettify, to_json};

/// Longest query that is read on the worker's thread: well below a millisecond's work.
const INLINE_LEN_MAX: usize = 1_024;

/// `GET` and `POST /api/v1/parse_query`.
pub(crate) async fn parse_query(context: Context) -> Result<Response, ApiError> {
    with_query(&context, |query, options| {
        let tree = to_json(&parse(query, options)?);
        Ok(envelope::data(|json| write(json, &tree)))
    })
    .await
}

/// `GET` and `POST /api/v1/format_query`.
pub(crate) async fn format_query(context: Context) -> Result<Response, ApiError> {
    with_query(&context, |query, options| {
        let text = prettify(&parse(query, options)?, LINE_LEN_MAX);
        Ok(envelope::data(|json| json.string(&text)))
    })
    .await
}

/// `GET` and `POST /api/v1/query_exemplars`.
pub(crate) async fn query_exemplars(context: Context) -> Result<Response, ApiError> {
    let start = context.params.time_or("start", TIME_MIN)?;
    let end = context.params.time_or("end", TIME_MAX)?;
    if end < start {
        return Err(ApiError::bad_data("end timestamp must not be before start timestamp"));
    }
    let selectors = with_query(&context, |query, options| {
        let expr = parse_expr(query, options).map_err(|error| ApiError::bad_data(error.to_string()))?;
        Ok(expr.selectors().into_iter().map(|selector| selector.matchers.clone()).collect::<Vec<_>>())
    })
    .await?;
    if selectors.is_empty() {
        return Ok(envelope::no_content());
    }
    let found = context.state.ports.exemplars(selectors, start, end).await?;
    Ok(envelope::data(|json| {
        let mut array = json.array();
        for one in &found {
            let mut object = array.item().object();
            object.labels("seriesLabels", &one.series);
            let mut exemplars = object.key("exemplars").array();
            for exemplar in &one.exemplars {
                let mut object = exemplars.item().object();
                object.labels("labels", &exemplar.labels);
                object.key("value").sample_value(exemplar.value);
                object.key("timestamp").sample_time(exemplar.at);
                object.end();
            }
            exemplars.end();
            object.end();
        }
        array.end();
    }))
}

fn parse(query: &str, options: &ParseOptions) -> Result<Expr, ApiError> {
    parse_expr(query, options).map_err(|error: ParseErrors| ApiError::invalid_parameter("query", error))
}

/// Calls `answer` with the query and the language; for a long query off the worker's thread, which other requests share.
async fn with_query<T: Send + 'static>(
    context: &Context,
    answer: fn(&str, &ParseOptions) -> Result<T, ApiError>,
) -> Result<T, ApiError> {
    let options = context.state.ports.parse_options();
    let query = context.params.get("query");
    if query.len() <= INLINE_LEN_MAX {
        return answer(query, &options);
    }
    let query = query.to_owned();
    let answered = web::block(move || answer(&query, &options)).await;
    answered.unwrap_or_else(|error| Err(ApiError::internal(format!("cannot read the query: {error}"))))
}

/// Writes a value as Prometheus's encoder does.
fn write(json: &mut Json, value: &Value) {
    match value {
        Value::Null => json.raw("null"),
        Value::Bool(value) => json.raw(if *value { "true" } else { "false" }),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => json.integer(whole),
            (None, value) => json.number(value.unwrap_or(f64::NAN)),
        },
        Value::String(text) => json.string(text),
        Value::Array(items) => {
            let mut array = json.array();
            items.iter().for_each(|item| write(array.item(), item));
            array.end();
        }
        Value::Object(fields) => {
            let mut object = json.object();
            fields.iter().for_each(|(key, value)| write(object.key(key), value));
            object.end();
        }
    }
}
