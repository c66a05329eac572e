//! The way of a request: route, guards, handler, headers. A panic of a handler ends here, in a 500 with its counter.

use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix_web::http::header::{HeaderName, HeaderValue};
use actix_web::http::{Method, StatusCode};
use actix_web::{HttpRequest, HttpResponse, web};
use futures::FutureExt;

use crate::http::api::types::RequestOrigin;
use crate::http::body::{Body, BodyReader};
use crate::http::compress::Encoding;
use crate::http::cors;
use crate::http::envelope;
use crate::http::error::{ApiError, ErrorKind};
use crate::http::guard::Guard;
use crate::http::page;
use crate::http::params::{Params, percent_decode};
use crate::http::paths;
use crate::http::pieces::{AnswerBody, Compressed, Measured};
use crate::http::request::Context;
use crate::http::response::Response;
use crate::http::routes::{self, Family, Gate, Match, Route};
use crate::http::state::{HttpState, Ready};
use crate::model::clock::SharedClock;
use crate::remote::receive::budget::{Budget, Held};

/// Bodies above this are compressed off the worker's thread, which other requests share.
const COMPRESS_INLINE_MAX: usize = 64 << 10;

/// Bounds of a request.
#[derive(Clone, Debug)]
pub(super) struct Bounds {
    /// Largest header in bytes.
    pub(super) header_len_max: usize,
    /// Largest body in bytes.
    pub(super) body_len_max: usize,
    /// Bytes that the bodies of all requests may take, but for those of samples, which have a limit of their own.
    pub(super) bodies: Arc<Budget>,
    /// Longest time to read a body.
    pub(super) read_timeout: Duration,
    /// Longest time that a client may take for a piece of an answer.
    pub(super) write_timeout: Duration,
}

/// Answers any request, if whoever asks may ask.
pub(super) async fn dispatch(
    state: Arc<HttpState>,
    guard: Option<Arc<Guard>>,
    bounds: Rc<Bounds>,
    request: HttpRequest,
    payload: web::Payload,
) -> HttpResponse {
    let Some(guard) = guard else { return answer(state, bounds, request, payload).await };
    let checked = guard.check(&request).await;
    let mut answer = match checked.refusal {
        Some(refusal) => finish(refusal),
        None => answer(state, bounds, request, payload).await,
    };
    for (name, value) in checked.config.iter().flat_map(|config| &config.http.headers) {
        let pair = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value));
        // What the owner asks for holds, also for pages that say something stricter by themselves.
        if let (Ok(name), Ok(value)) = pair {
            answer.headers_mut().insert(name, value);
        }
    }
    answer
}

async fn answer(
    state: Arc<HttpState>,
    bounds: Rc<Bounds>,
    request: HttpRequest,
    payload: web::Payload,
) -> HttpResponse {
    if bounds.header_len_max < header_len(&request) {
        let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        return finish(Response::error(status, "request header exceeds --watchfire.limit.http.header"));
    }
    if let (Some(hosts), Some(asked)) = (&state.settings.hosts, asked_host(&request))
        && !cors::is_own_host(hosts, asked)
    {
        let text = "this server may not be asked for by that name (--watchfire.web.hosts)";
        return finish(Response::error(StatusCode::MISDIRECTED_REQUEST, text));
    }
    let raw = request.uri().path();
    let Some(path) = percent_decode(raw.as_bytes()).filter(|_| raw.starts_with('/')) else {
        return finish(Response::text(StatusCode::BAD_REQUEST, "400 Bad Request"));
    };
    let Ok(path) = String::from_utf8(path) else { return finish(Response::not_found()) };
    if let Some(to) = paths::cleaned(&path, &api_root(&state)) {
        return finish(to_cleaned(&request, &to));
    }
    match routes::find(&state.settings.route_prefix, &path) {
        Match::Found(route, parameter) => found(state, &bounds, &request, payload, route, (path, parameter)).await,
        Match::Redirect(to) => finish(redirect(&request, &to)),
        Match::Nothing if *request.method() == Method::OPTIONS && is_api(&state, &path) => {
            finish(api_options(&state, &request))
        }
        Match::Nothing => finish(Response::not_found()),
    }
}

async fn found(
    state: Arc<HttpState>,
    bounds: &Bounds,
    request: &HttpRequest,
    payload: web::Payload,
    route: &'static Route,
    (path, path_parameter): (String, Option<String>),
) -> HttpResponse {
    let Some(handler) = route.handler(request.method()) else {
        return finish(other_method(&state, request, route));
    };
    let begun = state.clock.monotonic();
    let (params, payload, held) = match read_params(bounds, request, payload).await {
        Ok(read) => read,
        Err(refusal) => return finish(refusal),
    };
    let body = Body {
        content_encoding: header(request, "Content-Encoding").map(str::to_owned),
        content_type: header(request, "Content-Type").map(str::to_owned),
        reader: payload.map(|payload| BodyReader::new(request, payload, bounds)),
    };
    let context = Context {
        params,
        raw_query: request.query_string().to_owned(),
        path_parameter,
        origin: RequestOrigin {
            client_ip: request.peer_addr().map(|peer| peer.ip().to_string()).unwrap_or_default(),
            method: request.method().as_str().to_owned(),
            path,
        },
        accept: header(request, "Accept").map(str::to_owned),
        body,
        _held: held,
        state: Arc::clone(&state),
    };
    let response = match gate(&state, route) {
        Some(refusal) => refusal,
        None => {
            let answer = if state.settings.is_agent && route.is_missing_in_agents() {
                Ok(Err(ApiError::execution("unavailable with Prometheus Agent")))
            } else if route.is_changing() && *request.method() != Method::GET && is_foreign(&state, request) {
                Ok(Err(ApiError::new(ErrorKind::Forbidden, "cross-origin request refused")))
            } else {
                AssertUnwindSafe(handler(context)).catch_unwind().await
            };
            let answer = answer.unwrap_or_else(|_| {
                // The panic hook has logged text and place; here the request is named.
                state.metrics.panics(route.label).inc();
                tracing::error!(component = "web", handler = route.label, "panic while serving request");
                Err(ApiError::internal("the handler of this request panicked"))
            });
            dress(&state, request, route, answer).await
        }
    };
    let took = state.clock.monotonic().saturating_sub(begun);
    let size = state.metrics.served(route.label, response.status.as_str(), took);
    let (clock, piece_within) = (SharedClock::clone(&state.clock), bounds.write_timeout);
    finish_measured(response, Some(Measured { size, clock, piece_within }))
}

/// What an agent says to those who ask for what it does not have, in Prometheus's words.
fn not_of_agents(state: &HttpState, route: &Route) -> Option<Response> {
    let text = "unsupported operation with WAL-only storage";
    let refused = || Response::error(StatusCode::INTERNAL_SERVER_ERROR, text);
    (state.settings.is_agent && route.label == "/federate").then(refused)
}

/// The answer of a route that does not run before the server is ready.
fn gate(state: &HttpState, route: &Route) -> Option<Response> {
    let stopping = match (&*state.readiness.get(), route.gate) {
        (_, Gate::Open) | (Ready::Yes | Ready::Impaired(_), Gate::Ready) => return not_of_agents(state, route),
        (Ready::NotYet, Gate::Ready) => "false",
        (Ready::Stopping, Gate::Ready) => "true",
    };
    let response = Response::text(StatusCode::SERVICE_UNAVAILABLE, "Service Unavailable");
    Some(response.with("X-Prometheus-Stopping", stopping))
}

/// Gives an answer the shape, headers and compression of its family.
async fn dress(
    state: &HttpState,
    request: &HttpRequest,
    route: &Route,
    answer: Result<Response, ApiError>,
) -> Response {
    match route.family {
        Family::Api => {
            let mut response = answer.unwrap_or_else(|error| envelope::failure(&error));
            response.headers.push(("Vary", "Accept-Encoding".to_owned()));
            response.headers.extend(cors::headers(&state.settings.cors_origin, header(request, "Origin")));
            compress(Encoding::accepted(header(request, "Accept-Encoding")), response).await
        }
        Family::Plain => {
            let failed = |error: ApiError| Response::error(error.kind.status(), &error.message);
            let response = answer.unwrap_or_else(failed);
            match route.label {
                "/metrics" => compress(Encoding::negotiated(header(request, "Accept-Encoding")), response).await,
                "/federate" => {
                    let response = response.with("Vary", "Accept-Encoding");
                    compress(Encoding::accepted(header(request, "Accept-Encoding")), response).await
                }
                _ => response,
            }
        }
        Family::Page => {
            let response = answer.unwrap_or_else(|error| page::failure(state, &error));
            page::with_security_headers(response)
        }
    }
}

async fn compress(encoding: Option<Encoding>, mut response: Response) -> Response {
    let is_live = response.pieces.as_ref().is_some_and(|pieces| pieces.is_live());
    let Some(encoding) = encoding.filter(|_| !is_live) else { return response };
    if response.body.is_empty() && response.pieces.is_none() {
        return response;
    }
    if let Some(pieces) = response.pieces.take() {
        return match Compressed::begin(encoding, &response.body, pieces) {
            Ok((begun, pieces)) => {
                (response.body, response.pieces) = (begun, Some(pieces));
                response.with("Content-Encoding", encoding.name())
            }
            Err(error) => cannot_compress(&error),
        };
    }
    let body = std::mem::take(&mut response.body);
    let compressed = if body.len() < COMPRESS_INLINE_MAX {
        encoding.compress(&body)
    } else {
        web::block(move || encoding.compress(&body)).await.unwrap_or_else(|error| Err(std::io::Error::other(error)))
    };
    match compressed {
        Ok(compressed) => {
            response.body = compressed;
            response.with("Content-Encoding", encoding.name())
        }
        Err(error) => cannot_compress(&error),
    }
}

fn cannot_compress(error: &std::io::Error) -> Response {
    tracing::error!(component = "web", err = %error, "cannot compress an answer");
    Response::error(StatusCode::INTERNAL_SERVER_ERROR, "cannot compress the answer")
}

/// A method that the route does not have.
fn other_method(state: &HttpState, request: &HttpRequest, route: &Route) -> Response {
    if *request.method() != Method::OPTIONS {
        let response = Response::error(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed");
        return response.with("Allow", route.allow());
    }
    match route.family {
        Family::Api => api_options(state, request),
        Family::Plain if route.path.starts_with("/api/v1/") => api_options(state, request),
        Family::Plain | Family::Page => Response::empty(StatusCode::OK).with("Allow", route.allow()),
    }
}

/// The path under which all of the API stands.
fn api_root(state: &HttpState) -> String {
    format!("{}/api/v1/", state.settings.route_prefix.trim_end_matches('/'))
}

/// Sends a client that wrote `//` or `..` to where it meant to go, method and body included.
fn to_cleaned(request: &HttpRequest, to: &str) -> Response {
    let to = match request.query_string() {
        "" => paths::escaped(to),
        query => format!("{}?{query}", paths::escaped(to)),
    };
    let mut response = Response::redirect(StatusCode::TEMPORARY_REDIRECT, &to);
    match *request.method() {
        Method::GET => {}
        Method::HEAD => response.body.clear(),
        _ => {
            response.body.clear();
            response.headers.retain(|(name, _)| *name != "Content-Type");
        }
    }
    response
}

/// Whether a browser sends it for a page of another site.
fn is_foreign(state: &HttpState, request: &HttpRequest) -> bool {
    let source = cors::Source {
        fetch_site: header(request, "Sec-Fetch-Site"),
        origin: header(request, "Origin"),
        host: header(request, "Host"),
    };
    cors::is_foreign(&state.settings.cors_origin, source)
}

/// By which name the server is asked for. Browsers always say it.
fn asked_host(request: &HttpRequest) -> Option<&str> {
    request.uri().authority().map(|authority| authority.as_str()).or_else(|| header(request, "Host"))
}

fn is_api(state: &HttpState, path: &str) -> bool {
    path.starts_with(&api_root(state))
}

/// A browser's question before a cross-origin request, on any path of the API.
fn api_options(state: &HttpState, request: &HttpRequest) -> Response {
    let mut response = envelope::no_content().with("Vary", "Accept-Encoding");
    response.headers.extend(cors::headers(&state.settings.cors_origin, header(request, "Origin")));
    response
}

fn redirect(request: &HttpRequest, to: &str) -> Response {
    let status = match *request.method() {
        Method::GET => StatusCode::MOVED_PERMANENTLY,
        _ => StatusCode::TEMPORARY_REDIRECT,
    };
    let to = paths::escaped(to);
    match request.query_string() {
        "" => Response::redirect(status, &to),
        query => Response::redirect(status, &format!("{to}?{query}")),
    }
}

/// Parameters of the query string and, for `POST` and `PUT`, of a form. Other bodies are handed on as they came.
async fn read_params(
    bounds: &Bounds,
    request: &HttpRequest,
    payload: web::Payload,
) -> Result<(Params, Option<web::Payload>, Option<Held>), Response> {
    let query = request.query_string().as_bytes();
    let is_form = header(request, "Content-Type").is_some_and(|kind| {
        let media_type = kind.split(';').next().unwrap_or("").trim();
        media_type.eq_ignore_ascii_case("application/x-www-form-urlencoded")
    });
    let (body, payload, held) = if is_form && matches!(*request.method(), Method::POST | Method::PUT) {
        let (body, held) = BodyReader::new(request, payload, bounds).read_all().await?;
        (body, None, Some(held))
    } else {
        (Vec::new(), Some(payload), None)
    };
    match Params::read(query, &body) {
        Ok(params) => Ok((params, payload, held)),
        Err(error) => Err(Response::error(StatusCode::BAD_REQUEST, &error.to_string())),
    }
}

fn header<'a>(request: &'a HttpRequest, name: &str) -> Option<&'a str> {
    request.headers().get(name).and_then(|value| value.to_str().ok())
}

fn header_len(request: &HttpRequest) -> usize {
    let line = request.method().as_str().len() + request.uri().to_string().len();
    request.headers().iter().fold(line, |sum, (name, value)| sum + name.as_str().len() + value.len() + 4)
}

fn finish(response: Response) -> HttpResponse {
    finish_measured(response, None)
}

fn finish_measured(response: Response, measured: Option<Measured>) -> HttpResponse {
    let mut builder = HttpResponse::build(response.status);
    for (name, value) in response.headers {
        builder.append_header((name, value));
    }
    let mut answer = builder.body(AnswerBody::new(response.body, response.pieces, response.held, measured));
    // HTTP/1.1 leaves the case of names open; this is what Go writes and what careless clients look for.
    answer.head_mut().set_camel_case_headers(true);
    answer
}
