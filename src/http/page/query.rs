//! `/query`: a box for PromQL, a time, and the result as a table. Understands the parameters that links in notifications
//! carry (`g0.expr`).

use super::html::Html;
use super::{note, page, series_name};
use crate::http::api::types::InstantQuery;
use crate::http::error::ApiError;
use crate::http::params::parse_time;
use crate::http::render;
use crate::http::request::Context;
use crate::http::response::Response;
use crate::http::state::Ready;
use crate::model::go;
use crate::model::result::QueryValue;

/// Rows that a page shows; the API gives all.
const ROWS_MAX: usize = 1_000;
/// Points of a series that a page shows.
const POINTS_MAX: usize = 200;

/// `GET /query`.
pub(crate) async fn query(context: Context) -> Result<Response, ApiError> {
    let expr = match context.params.get("g0.expr") {
        "" => context.params.get("query"),
        expr => expr,
    };
    let time = context.params.get("g0.time").trim();
    let outcome = if expr.trim().is_empty() { None } else { Some(run(&context, expr, time).await) };
    Ok(page(&context.state, "/query", "Query", |html| {
        form(html, &context.state.settings.external_url.path, expr, time);
        match &outcome {
            None => {
                html.raw("<p class=\"muted\">Try <code>up</code>: 1 for each target that answers.</p>");
            }
            Some(Err(error)) => note(html, "error", &error.message),
            Some(Ok(answer)) => {
                answer.annotations.warnings.iter().for_each(|text| note(html, "wait", text));
                answer.annotations.infos.iter().for_each(|text| note(html, "info", text));
                value(html, &answer.value);
            }
        }
    }))
}

async fn run(context: &Context, expr: &str, time: &str) -> Result<crate::http::api::types::QueryAnswer, ApiError> {
    if matches!(*context.state.readiness.get(), Ready::NotYet | Ready::Stopping) {
        return Err(ApiError::unavailable("Service Unavailable"));
    }
    let at = match time {
        "" => context.state.clock.now(),
        text => parse_time(text).map_err(ApiError::bad_data)?,
    };
    let (query, origin) = (expr.to_owned(), context.origin.clone());
    let query = InstantQuery { query, at, timeout: None, lookback: None, per_step_stats: false, origin };
    context.state.ports.query_instant(query).await
}

fn form(html: &mut Html, base: &str, expr: &str, time: &str) {
    html.raw("<form method=\"get\" action=\"").text(base).raw("/query\">");
    html.raw("<input name=\"g0.expr\" aria-label=\"PromQL expression\" placeholder=\"PromQL expression\" autofocus ");
    html.raw("autocomplete=\"off\" spellcheck=\"false\" value=\"").text(expr).raw("\">");
    html.raw("<input name=\"g0.time\" aria-label=\"Evaluation time\" placeholder=\"now\" value=\"").text(time);
    html.raw("\"><button>Run</button></form>");
}

fn value(html: &mut Html, value: &QueryValue) {
    match value {
        QueryValue::Scalar(point) => row_table(html, value, 1, |html| {
            row(html, "scalar", &go::format_float_json(point.value));
        }),
        QueryValue::Text { text, .. } => {
            html.raw("<pre>").text(text).raw("</pre>");
        }
        QueryValue::Vector(elements) => row_table(html, value, elements.len(), |html| {
            for element in elements.iter().take(ROWS_MAX) {
                let value = match &element.histogram {
                    Some(histogram) => histogram.to_string(),
                    None => go::format_float_json(element.point.value),
                };
                row(html, &series_name(&element.labels), &value);
            }
        }),
        QueryValue::Matrix(series) => row_table(html, value, series.len(), |html| {
            for one in series.iter().take(ROWS_MAX) {
                html.raw("<tr><td><code>").text(series_name(&one.labels)).raw("</code></td><td class=\"value\">");
                for point in one.points.iter().take(POINTS_MAX) {
                    html.text(go::format_float_json(point.value)).raw(" @").text(point.at.as_seconds()).raw("<br>");
                }
                let room = POINTS_MAX.saturating_sub(one.points.len());
                for point in one.histograms.iter().take(room) {
                    html.text(&point.histogram).raw(" @").text(point.at.as_seconds()).raw("<br>");
                }
                let count = one.points.len() + one.histograms.len();
                if POINTS_MAX < count {
                    html.text(format!("… {} more", count - POINTS_MAX));
                }
                html.raw("</td></tr>");
            }
        }),
    }
}

fn row_table(html: &mut Html, value: &QueryValue, count: usize, rows: impl FnOnce(&mut Html)) {
    html.raw("<p class=\"muted\">").text(render::type_name(value)).raw(", ").text(count);
    html.raw(if count == 1 { " row" } else { " rows" });
    if ROWS_MAX < count {
        html.text(format!(" (the first {ROWS_MAX} are shown)"));
    }
    html.raw("</p><table><thead><tr><th>Series</th><th>Value</th></tr></thead><tbody>");
    rows(html);
    html.raw("</tbody></table>");
}

fn row(html: &mut Html, name: &str, value: &str) {
    html.raw("<tr><td><code>").text(name).raw("</code></td><td class=\"value\">");
    html.text(value).raw("</td></tr>");
}
