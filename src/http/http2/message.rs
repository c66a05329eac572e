//! Requests and answers as the two HTTP libraries have them: their types are those of different versions of `http`.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::SystemTime;

use actix_http::body::BodySize;
use actix_http::error::PayloadError;
use actix_http::header::{HOST, HeaderName, HeaderValue, HttpDate};
use actix_http::{HttpMessage as _, Method, Payload, Request, Response, StatusCode, Uri, Version};
use bytes::Bytes;
use futures::Stream;
use h2::RecvStream;

use crate::http::connections::Shared;
use crate::http::http2::Caller;
use crate::http::lenient;

/// Header lines of a request, as many as with HTTP/1.
const LINES_MAX: usize = 96;

/// A request as with HTTP/1; the error is the status of its refusal.
pub(super) fn request(head: http::request::Parts, body: RecvStream, caller: &Caller) -> Result<Request, StatusCode> {
    if LINES_MAX < head.headers.len() {
        return Err(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    }
    let mut request = Request::new();
    if !body.is_end_stream() {
        *request.payload() = Payload::Stream { payload: Box::pin(Body(body)) };
    }
    let bad = |_| StatusCode::BAD_REQUEST;
    // Only CONNECT has no path.
    let target = head.uri.path_and_query().ok_or(StatusCode::BAD_REQUEST)?.as_str();
    let uri = Uri::try_from(lenient::escaped(target)).map_err(|_| StatusCode::BAD_REQUEST)?;
    let method = Method::from_bytes(head.method.as_str().as_bytes()).map_err(|_| StatusCode::BAD_REQUEST)?;
    for (name, value) in &head.headers {
        let name = HeaderName::from_bytes(name.as_str().as_bytes()).map_err(|_| StatusCode::BAD_REQUEST)?;
        request.headers_mut().append(name, HeaderValue::from_bytes(value.as_bytes()).map_err(bad)?);
    }
    if let Some(authority) = head.uri.authority()
        && !request.headers().contains_key(HOST)
    {
        request.headers_mut().insert(HOST, HeaderValue::from_str(authority.as_str()).map_err(bad)?);
    }
    let into = request.head_mut();
    (into.uri, into.method, into.version, into.peer_addr) = (uri, method, Version::HTTP_2, caller.peer);
    request.extensions_mut().insert(Shared(Rc::clone(&caller.shared)));
    Ok(request)
}

/// A body that comes as it is read; what follows it is passed over.
struct Body(RecvStream);

impl Stream for Body {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(piece) = ready!(self.0.poll_data(cx)) else { return Poll::Ready(None) };
        let taken = piece.and_then(|piece| self.0.flow_control().release_capacity(piece.len()).map(|()| piece));
        Poll::Ready(Some(taken.map_err(|_| PayloadError::Incomplete(None))))
    }
}

/// What a client waits for that asks before it sends a body.
pub(super) fn go_on() -> http::Response<()> {
    let mut response = http::Response::new(());
    *response.status_mut() = http::StatusCode::CONTINUE;
    response
}

/// The size of an answer's body; there is none with some of the codes.
pub(super) fn size(response: &Response<()>, size: BodySize) -> BodySize {
    match response.status() {
        StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED => BodySize::None,
        _ => size,
    }
}

/// The head of an answer.
pub(super) fn head(response: &Response<()>, size: BodySize) -> http::Response<()> {
    let mut head = http::Response::new(());
    *head.status_mut() =
        http::StatusCode::from_u16(response.status().as_u16()).unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
    let headers = head.headers_mut();
    for (name, value) in response.headers() {
        // Those are about connections of HTTP/1, or follow below.
        if matches!(
            name.as_str(),
            "connection" | "transfer-encoding" | "upgrade" | "keep-alive" | "proxy-connection" | "content-length"
        ) {
            continue;
        }
        let pair =
            (http::HeaderName::from_bytes(name.as_str().as_bytes()), http::HeaderValue::from_bytes(value.as_bytes()));
        if let (Ok(name), Ok(value)) = pair {
            headers.append(name, value);
        }
    }
    if let BodySize::Sized(len) = size {
        headers.insert(http::header::CONTENT_LENGTH, len.into());
    }
    if !headers.contains_key(http::header::DATE)
        && let Ok(now) = http::HeaderValue::from_str(&HttpDate::from(SystemTime::now()).to_string())
    {
        headers.insert(http::header::DATE, now);
    }
    head
}
