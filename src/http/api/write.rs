//! `POST /api/v1/write`: remote write 1.0 and 2.0.

use actix_web::http::StatusCode;

use crate::actors::remote_receiver::Incoming;
use crate::http::body::Body;
use crate::http::error::ApiError;
use crate::http::request::Context;
use crate::http::response::Response;
use crate::remote::receive::Reply;

/// What Prometheus says while the receiver is off.
const OFF: &str = "remote write receiver needs to be enabled with --web.enable-remote-write-receiver";

/// The handler.
pub(in crate::http) async fn write(context: Context) -> Result<Response, ApiError> {
    let Some(receiver) = context.state.ports.remote_write() else {
        return Ok(Response::error(StatusCode::NOT_FOUND, OFF));
    };
    let Body { content_encoding, content_type, reader } = context.body;
    let mut held = receiver.permit();
    let body = match reader {
        Some(reader) => match reader.read(|len| held.add(len as u64)).await {
            Ok(Ok(body)) => body,
            Ok(Err(room)) => return Ok(answer(Reply::no_room(room))),
            Err(refusal) => return Ok(refusal),
        },
        // A form, which the receiver refuses for its type.
        None => Vec::new(),
    };
    Ok(answer(receiver.receive(Incoming { content_encoding, content_type, body, held }).await))
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
