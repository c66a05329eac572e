//! `POST /api/v1/read`: remote read.

use std::task::{Context as TaskContext, Poll};

use actix_web::http::StatusCode;

use crate::actors::remote_read_server::{ReadAnswer, ReadRefusal, ReadStream};
use crate::http::error::ApiError;
use crate::http::held::{AnswerMemory, Held};
use crate::http::pieces::{CutOff, Pieces};
use crate::http::request::Context;
use crate::http::response::Response;
use crate::promql::eval::Charge;
use crate::remote::read::{SAMPLED_TYPE, STREAMED_TYPE, decode_request};

/// The handler.
pub(in crate::http) async fn read(context: Context) -> Result<Response, ApiError> {
    let Some(server) = context.state.ports.remote_read() else { return Ok(Response::not_found()) };
    // Before the turn: who sends slowly keeps nobody waiting.
    let (body, held) = match context.body.reader {
        Some(reader) => match reader.read_all().await {
            Ok((body, held)) => (body, Some(held)),
            Err(refusal) => return Ok(refusal),
        },
        None => (Vec::new(), None),
    };
    let permit = server.enter().await;
    let request = match decode_request(&body) {
        Ok(request) => request,
        Err(error) => return Ok(Response::error(StatusCode::BAD_REQUEST, &error.to_string())),
    };
    drop((body, held));
    Ok(match server.answer(request, permit).await {
        Ok(ReadAnswer::Samples(body, held)) => {
            let mut response = Response::ok(SAMPLED_TYPE, body).with("Content-Encoding", "snappy");
            response.held = Held::new(Answered(held));
            response
        }
        Ok(ReadAnswer::Streamed(stream)) => {
            let mut stream = Streamed(stream);
            // An error of the first piece still has a status.
            match std::future::poll_fn(|cx| stream.poll_piece(cx)).await {
                None => Response::ok(STREAMED_TYPE, Vec::new()),
                Some(Ok(first)) => Response::ok(STREAMED_TYPE, first).followed_by(stream),
                Some(Err(error)) => Response::error(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
            }
        }
        Err(ReadRefusal::Bad(text)) => Response::error(StatusCode::BAD_REQUEST, &text),
        Err(ReadRefusal::Failed(text)) => Response::error(StatusCode::INTERNAL_SERVER_ERROR, &text),
        Err(ReadRefusal::Busy(text)) => Response::error(StatusCode::SERVICE_UNAVAILABLE, &text),
    })
}

struct Streamed(ReadStream);

impl Pieces for Streamed {
    fn poll_piece(&mut self, cx: &mut TaskContext<'_>) -> Poll<Option<Result<Vec<u8>, CutOff>>> {
        self.0.poll_piece(cx).map(|piece| piece.map(|piece| piece.map_err(CutOff::new)))
    }
}

/// What an answer holds until it is sent.
struct Answered(Charge);

impl AnswerMemory for Answered {
    fn grow(&mut self, bytes: usize) -> Result<(), String> {
        self.0.grow(bytes).map_err(|over| over.to_string())
    }

    fn settle(&mut self, bytes: usize) {
        self.0.shrink(self.0.bytes().saturating_sub(bytes));
    }
}
