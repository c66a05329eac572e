//! `/api/watchfire/v1/queries`: the queries under way, and an end for those that nobody wants any more.

use crate::http::api::types::UnixNanos;
use crate::http::envelope;
use crate::http::error::{ApiError, ErrorKind};
use crate::http::request::Context;
use crate::http::response::Response;

/// `GET /api/watchfire/v1/queries`.
pub(crate) async fn list(context: Context) -> Result<Response, ApiError> {
    let (queries, now) = (context.state.ports.running_queries(), context.state.clock.unix_nanos());
    Ok(envelope::data(|json| {
        let mut object = json.object();
        let mut array = object.key("queries").array();
        for query in &queries {
            let mut object = array.item().object();
            object.string("id", &query.id.to_string()).string("query", &query.text).string("kind", query.kind);
            for (key, at) in [("start", query.start), ("end", query.end)] {
                object.key(key).sample_time(at);
            }
            if 0 < query.step_ms {
                object.number("step", query.step_ms as f64 / 1000.0);
            }
            let took = now.saturating_sub(query.since.0).max(0);
            object
                .time("startedAt", Some(UnixNanos(query.since.0)))
                .number("durationSeconds", took as f64 / 1e9)
                .string_if_any("clientIP", &query.client_ip);
            object.end();
        }
        array.end();
        object.end();
    }))
}

/// `POST /api/watchfire/v1/queries/<id>/cancel` and `DELETE /api/watchfire/v1/queries/<id>`.
pub(crate) async fn cancel(context: Context) -> Result<Response, ApiError> {
    if !context.state.settings.enable_admin_api {
        return Err(ApiError::new(ErrorKind::Forbidden, "admin APIs disabled"));
    }
    let id = context.path_parameter.as_deref().unwrap_or_default();
    let is_ended = id.parse().is_ok_and(|id| context.state.ports.cancel_query(id));
    if is_ended { Ok(envelope::no_content()) } else { Err(ApiError::new(ErrorKind::NotFound, "no such query")) }
}
