//! Endpoints outside the API: health, lifecycle, redirects, `/metrics`, `/version`.

use actix_web::http::StatusCode;

use crate::http::api::status;
use crate::http::error::ApiError;
use crate::http::json::Json;
use crate::http::request::Context;
use crate::http::response::{Response, TEXT};
use crate::http::state::{QuitVerdict, Ready};

/// What the server is called in answers for people.
fn own_name(context: &Context) -> &'static str {
    if context.state.settings.is_agent { "Prometheus Agent" } else { "Prometheus Server" }
}

/// `GET /-/healthy`.
pub(super) async fn healthy(context: Context) -> Result<Response, ApiError> {
    Ok(Response::text(StatusCode::OK, &format!("{} is Healthy.\n", own_name(&context))))
}

/// `GET /-/ready`.
pub(super) async fn ready(context: Context) -> Result<Response, ApiError> {
    Ok(match &*context.state.readiness.get() {
        Ready::Impaired(reason) => {
            let text = format!("Service Unavailable: {reason}\n");
            Response::text(StatusCode::SERVICE_UNAVAILABLE, &text).with("X-Prometheus-Stopping", "false")
        }
        _ => Response::text(StatusCode::OK, &format!("{} is Ready.\n", own_name(&context))),
    })
}

/// `HEAD /-/healthy`.
pub(super) async fn head(_: Context) -> Result<Response, ApiError> {
    Ok(Response::empty(StatusCode::OK))
}

/// `HEAD /-/ready`.
pub(super) async fn head_ready(context: Context) -> Result<Response, ApiError> {
    let mut response = ready(context).await?;
    response.body.clear();
    response.headers.retain(|(name, _)| *name != "Content-Type");
    Ok(response)
}

/// `POST` and `PUT /-/reload`.
pub(super) async fn reload(context: Context) -> Result<Response, ApiError> {
    if let Some(refusal) = lifecycle_refusal(&context) {
        return Ok(refusal);
    }
    Ok(match context.state.ports.reload().await {
        Ok(()) => Response::empty(StatusCode::OK),
        Err(error) => Response::error(StatusCode::INTERNAL_SERVER_ERROR, &format!("failed to reload config: {error}")),
    })
}

/// `POST` and `PUT /-/quit`.
pub(super) async fn quit(context: Context) -> Result<Response, ApiError> {
    if let Some(refusal) = lifecycle_refusal(&context) {
        return Ok(refusal);
    }
    let text = match context.state.ports.quit() {
        QuitVerdict::Requested => "Requesting termination... Goodbye!",
        QuitVerdict::AlreadyStopping => "Termination already in progress.",
    };
    Ok(Response::text(StatusCode::OK, text))
}

/// `GET /-/reload` and `GET /-/quit`.
pub(super) async fn post_only(_: Context) -> Result<Response, ApiError> {
    Ok(Response::text(StatusCode::METHOD_NOT_ALLOWED, "Only POST or PUT requests allowed"))
}

fn lifecycle_refusal(context: &Context) -> Option<Response> {
    let refused = !context.state.settings.enable_lifecycle;
    refused.then(|| Response::text(StatusCode::FORBIDDEN, "Lifecycle API is not enabled."))
}

/// The path of the external URL with one slash before it: two would make its beginning a host.
fn external_path(context: &Context) -> String {
    let path = context.state.settings.external_url.path.trim_start_matches('/');
    if path.is_empty() { String::new() } else { format!("/{path}") }
}

/// `GET /`.
pub(super) async fn home(context: Context) -> Result<Response, ApiError> {
    let to = format!("{}/query", external_path(&context));
    Ok(Response::redirect(StatusCode::FOUND, &to))
}

/// `GET /graph`, where links in notifications lead.
pub(super) async fn graph(context: Context) -> Result<Response, ApiError> {
    let to = format!("{}/query?{}", external_path(&context), context.raw_query);
    Ok(Response::redirect(StatusCode::FOUND, &to))
}

/// `GET /` outside the route prefix.
pub(super) async fn to_prefix(context: Context) -> Result<Response, ApiError> {
    Ok(Response::redirect(StatusCode::FOUND, &context.state.settings.route_prefix))
}

/// `GET /version`.
pub(super) async fn version(_: Context) -> Result<Response, ApiError> {
    let mut json = Json::new();
    status::write_build(&mut json);
    json.raw("\n");
    Ok(Response::ok(TEXT, json.into_bytes()))
}

/// `GET /metrics`.
pub(super) async fn metrics(context: Context) -> Result<Response, ApiError> {
    let metrics = &context.state.metrics;
    let _in_flight = InFlight::enter(&metrics.scrapes_in_flight);
    let answer = context.state.ports.metrics(context.accept.as_deref()).await;
    metrics.scrape_served(if answer.is_ok() { "200" } else { "500" }).inc();
    Ok(match answer {
        Ok(exposition) => Response::ok(&exposition.content_type, exposition.body),
        Err(error) => {
            let text = format!("An error has occurred while serving metrics:\n\n{}", error.message);
            Response::error(StatusCode::INTERNAL_SERVER_ERROR, &text)
        }
    })
}

/// Counts a scrape in flight, also when its client goes away in the middle.
struct InFlight<'a>(&'a crate::telemetry::metrics::Gauge);

impl<'a> InFlight<'a> {
    fn enter(gauge: &'a crate::telemetry::metrics::Gauge) -> Self {
        gauge.add(1.0);
        Self(gauge)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.add(-1.0);
    }
}
