//! Pages for people, rendered here, without script: query, alerts, rules, targets, actors, configuration, flags, status.
//!
//! Each page asks the same ports as the API and writes through `html`, which escapes. The content security policy
//! allows nothing but our own style sheet and images.

mod html;
mod query;
mod system;
mod watching;

use actix_web::http::StatusCode;

use self::html::Html;
use crate::http::error::{ApiError, ErrorKind};
use crate::http::request::Context;
use crate::http::response::Response;
use crate::http::state::{HttpState, Ready};
use crate::model::labels::Labels;

pub(super) use self::html::escape_into;
pub(super) use self::query::query;
pub(super) use self::system::{actors, config, flags, status};
pub(super) use self::watching::{alerts, rules, targets};

const STYLE: &str = include_str!("style.css");
const ICON: &str = include_str!("favicon.svg");
const HTML: &str = "text/html; charset=utf-8";
const SVG: &str = "image/svg+xml";

/// What a page may load and do: nothing but its own style, its own image, its own form.
const POLICY: &str = "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; \
                      frame-ancestors 'none'";

/// Pages of the navigation: path and name.
const PAGES: [(&str, &str); 8] = [
    ("/query", "Query"),
    ("/alerts", "Alerts"),
    ("/rules", "Rules"),
    ("/targets", "Targets"),
    ("/actors", "Actors"),
    ("/config", "Configuration"),
    ("/flags", "Flags"),
    ("/status", "Status"),
];

/// `GET /assets/<name>`.
pub(super) async fn asset(context: Context) -> Result<Response, ApiError> {
    match context.path_parameter.as_deref() {
        Some("style.css") => Ok(cached("text/css; charset=utf-8", STYLE)),
        _ => Ok(Response::not_found()),
    }
}

/// `GET /favicon.svg`.
pub(super) async fn favicon(_: Context) -> Result<Response, ApiError> {
    Ok(cached(SVG, ICON))
}

fn cached(content_type: &str, body: &'static str) -> Response {
    Response::ok(content_type, body).with("Cache-Control", "max-age=300")
}

/// Adds the headers that every page has besides those of every answer.
pub(super) fn with_security_headers(response: Response) -> Response {
    response.with("Content-Security-Policy", POLICY).with("X-Frame-Options", "DENY")
}

/// A page that says what went wrong.
pub(super) fn failure(state: &HttpState, error: &ApiError) -> Response {
    let mut response = page(state, "", "Something went wrong", |html| note(html, "error", &error.message));
    response.status = match error.kind {
        ErrorKind::BadData => StatusCode::BAD_REQUEST,
        ErrorKind::Timeout | ErrorKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    response
}

/// A whole page: head, navigation, and what `body` writes.
fn page(state: &HttpState, path: &str, heading: &str, body: impl FnOnce(&mut Html)) -> Response {
    let base = &state.settings.external_url.path;
    let mut html = Html::default();
    html.raw("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>");
    html.text(heading).raw(" – ").text(&state.settings.page_title).raw("</title>");
    html.raw(
        "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><link rel=\"stylesheet\" href=\"",
    );
    html.text(base).raw("/assets/style.css\"><link rel=\"icon\" href=\"").text(base).raw("/favicon.svg\"></head>");
    html.raw("<body><header><strong>Watchfire</strong>");
    for (target, name) in PAGES {
        html.raw("<a href=\"").text(base).text(target).raw("\"");
        if target == path {
            html.raw(" aria-current=\"page\"");
        }
        html.raw(">").text(name).raw("</a>");
    }
    html.raw("</header><main><h1>").text(heading).raw("</h1>");
    match &*state.readiness.get() {
        Ready::Yes => {}
        Ready::NotYet => note(&mut html, "wait", "The server is starting; data may be incomplete."),
        Ready::Stopping => note(&mut html, "wait", "The server is stopping."),
        Ready::Impaired(reason) => note(&mut html, "error", reason),
    }
    body(&mut html);
    html.raw("</main></body></html>\n");
    Response::ok(HTML, html.into_bytes()).with("Cache-Control", "no-store")
}

fn note(html: &mut Html, kind: &'static str, text: &str) {
    html.raw("<p class=\"note ").raw(kind).raw("\" role=\"status\">").text(text).raw("</p>");
}

/// A label set in PromQL's form, with the metric name ahead.
fn series_name(labels: &Labels) -> String {
    let name = labels.metric_name();
    let rest = labels.without(&[crate::model::labels::METRIC_NAME]);
    if rest.is_empty() && !name.is_empty() { name.to_owned() } else { format!("{name}{rest}") }
}

/// Seconds in a form for people: `1.5 s`, `3 ms`.
fn seconds(value: f64) -> String {
    if value < 0.001 {
        format!("{:.0} µs", value * 1e6)
    } else if value < 1.0 {
        format!("{:.1} ms", value * 1e3)
    } else {
        format!("{value:.2} s")
    }
}
