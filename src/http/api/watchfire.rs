//! Our own endpoints under `/api/watchfire/v1`: what Prometheus does not have.

use crate::http::envelope;
use crate::http::error::{ApiError, ErrorKind};
use crate::http::request::Context;
use crate::http::response::Response;

/// `GET /api/watchfire/v1/actors`.
pub(crate) async fn actors(context: Context) -> Result<Response, ApiError> {
    let actors = context.state.ports.actors();
    let count = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    Ok(envelope::data(|json| {
        let mut object = json.object();
        let mut array = object.key("actors").array();
        for actor in &actors {
            let mut object = array.item().object();
            object
                .string("kind", &actor.kind)
                .string("name", &actor.name)
                .string("parent", &actor.parent)
                .string("state", &actor.state)
                .integer("queue", count(actor.queue))
                .integer("slots", count(actor.slots))
                .integer("refused", count(actor.refused))
                .integer("expired", count(actor.expired))
                .integer("handled", count(actor.handled))
                .integer("restarts", count(actor.restarts))
                .string_if_any("last_panic", &actor.last_panic)
                .string_if_any("failing", &actor.failing)
                .time("since", actor.since);
            object.end();
        }
        array.end();
        object.end();
    }))
}

/// `GET /api/watchfire/v1/reload`: how the last reload went.
pub(crate) async fn last_reload(context: Context) -> Result<Response, ApiError> {
    let Some(reload) = context.state.ports.last_reload() else {
        return Err(ApiError::new(ErrorKind::NotFound, "The configuration was not read again since the start."));
    };
    Ok(envelope::data(|json| {
        let mut object = json.object();
        object
            .string("trigger", &reload.trigger)
            .time("startedAt", Some(reload.started))
            .number("durationSeconds", reload.duration)
            .bool("success", reload.error.is_none())
            .string_if_any("error", reload.error.as_deref().unwrap_or_default())
            .bool("inProgress", reload.in_progress);
        let mut plan = object.key("plan").array();
        for section in &reload.plan {
            let mut object = plan.item().object();
            object.string("what", &section.what).integer("kept", number_of(section.kept));
            for (key, names) in
                [("added", &section.added), ("removed", &section.removed), ("changed", &section.changed)]
            {
                let mut named = object.key(key).object();
                named.integer("count", number_of(names.count)).key("first").strings(&names.first);
                named.end();
            }
            object.end();
        }
        plan.end();
        object.key("unconfirmed").strings(&reload.unconfirmed);
        object.end();
    }))
}

fn number_of(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// `POST /api/watchfire/v1/reload`: as `/-/reload`, with an envelope.
pub(crate) async fn reload(context: Context) -> Result<Response, ApiError> {
    if !context.state.settings.enable_lifecycle {
        return Err(ApiError::new(ErrorKind::Forbidden, "Lifecycle API is not enabled."));
    }
    match context.state.ports.reload().await {
        Ok(()) => Ok(envelope::data(|json| {
            let mut object = json.object();
            object.bool("reloaded", true);
            object.end();
        })),
        Err(error) => Err(ApiError::internal(format!("failed to reload config: {error}"))),
    }
}
