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
                .time("since", actor.since);
            object.end();
        }
        array.end();
        object.end();
    }))
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
