//! `POST /api/v1/write`: remote write 1.0 and 2.0. `POST /api/v1/otlp/v1/metrics`: OTLP.

use std::sync::Arc;

use actix_web::http::StatusCode;

use crate::actors::remote_receiver::{Incoming, RemoteReceiver};
use crate::http::body::Body;
use crate::http::error::ApiError;
use crate::http::request::Context;
use crate::http::response::Response;
use crate::remote::receive::Reply;

/// What Prometheus says while the receivers are off.
const OFF: &str = "remote write receiver needs to be enabled with --web.enable-remote-write-receiver";
const OTLP_OFF: &str = "otlp write receiver needs to be enabled with --web.enable-otlp-receiver";

/// The handler of remote write.
pub(in crate::http) async fn write(context: Context) -> Result<Response, ApiError> {
    let Some(receiver) = context.state.ports.remote_write() else {
        return Ok(Response::error(StatusCode::NOT_FOUND, OFF));
    };
    if context.body.reader.is_none() {
        // A form: it was read for its parameters.
        let Body { content_encoding, content_type, .. } = context.body;
        return Ok(answer(receiver.refusal_of_form(content_encoding.as_deref(), content_type.as_deref())));
    }
    Ok(match read(&receiver, context.body).await {
        Ok(incoming) => answer(receiver.receive(incoming).await),
        Err(refusal) => refusal,
    })
}

/// The handler of OTLP.
pub(in crate::http) async fn otlp(context: Context) -> Result<Response, ApiError> {
    let Some(receiver) = context.state.ports.otlp() else {
        return Ok(Response::error(StatusCode::NOT_FOUND, OTLP_OFF));
    };
    Ok(match read(&receiver, context.body).await {
        Ok(incoming) => answer(receiver.receive_otlp(incoming).await),
        Err(refusal) => refusal,
    })
}

/// Reads the body, which is charged as it comes.
async fn read(receiver: &Arc<RemoteReceiver>, body: Body) -> Result<Incoming, Response> {
    let Body { content_encoding, content_type, reader } = body;
    let mut held = receiver.permit();
    let body = match reader {
        Some(reader) => {
            let read = reader.read(|len| held.add(len as u64)).await?;
            read.map_err(|room| answer(Reply::no_room(room)))?
        }
        // A form, which the receiver refuses for its type.
        None => Vec::new(),
    };
    Ok(Incoming { content_encoding, content_type, body, held })
}

fn answer(reply: Reply) -> Response {
    let status = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = match reply.text.as_str() {
        "" => Response::empty(status),
        text => Response::error(status, text),
    };
    if let Some(written) = reply.written {
        for (name, count) in [
            ("X-Prometheus-Remote-Write-Samples-Written", written.samples),
            ("X-Prometheus-Remote-Write-Histograms-Written", written.histograms),
            ("X-Prometheus-Remote-Write-Exemplars-Written", written.exemplars),
        ] {
            response = response.with(name, count.to_string());
        }
    }
    response
}
