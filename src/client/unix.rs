//! Requests over a socket in the file system, as Docker's daemon takes them: one connection for each.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper::header::{HOST, HeaderValue, USER_AGENT};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::time::{Instant, timeout_at};

use crate::client::{ClientError, Failure, Request, Response, ResponseBody};

/// Makes requests to one socket.
#[derive(Clone, Debug)]
pub struct UnixClient {
    path: Arc<Path>,
    user_agent: Arc<str>,
}

impl UnixClient {
    /// A client of the server that listens at `path`.
    pub fn new(path: PathBuf, user_agent: String) -> Self {
        Self { path: path.into(), user_agent: user_agent.into() }
    }

    /// Sends the request and waits for the head of the answer; the body must be read by the same deadline. The host of the
    /// URL is sent and decides nothing.
    pub async fn send(&self, request: Request, deadline: Instant) -> Result<Response, ClientError> {
        let answered = timeout_at(deadline, self.exchange(&request, deadline)).await;
        answered.unwrap_or(Err(Failure::Deadline)).map_err(|failure| ClientError::new(&request, failure))
    }

    async fn exchange(&self, request: &Request, deadline: Instant) -> Result<Response, Failure> {
        let dial = |error: std::io::Error| {
            let reason = match error.kind() {
                std::io::ErrorKind::NotFound => "no such file or directory".to_owned(),
                std::io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
                std::io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
                _ => error.to_string(),
            };
            Failure::Other(format!("dial unix {}: connect: {reason}", self.path.display()))
        };
        let stream = UnixStream::connect(&self.path).await.map_err(dial)?;
        let broken = |error: hyper::Error| Failure::of_body(&error);
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        // It ends with the answer's body, or when that is dropped; its errors are those of the body.
        tokio::spawn(connection);
        let answer = sender.send_request(self.message(request)?).await.map_err(broken)?;
        let (head, incoming) = answer.into_parts();
        Ok(Response::new(head, ResponseBody { incoming, deadline }))
    }

    fn message(&self, request: &Request) -> Result<hyper::Request<Full<Bytes>>, Failure> {
        let invalid = |text: String| Failure::Other(text);
        let mut message = hyper::Request::new(Full::new(request.body.clone()));
        *message.method_mut() = request.method.clone();
        let target = match request.url.query() {
            Some(query) => format!("{}?{query}", request.url.path()),
            None => request.url.path().to_owned(),
        };
        *message.uri_mut() = target.parse().map_err(|e: hyper::http::uri::InvalidUri| invalid(e.to_string()))?;
        for (name, value) in &request.headers {
            message.headers_mut().append(name.clone(), value.clone());
        }
        let host = HeaderValue::from_str(request.url.host_str().unwrap_or("localhost"));
        message.headers_mut().insert(HOST, host.map_err(|e| invalid(e.to_string()))?);
        let agent = HeaderValue::from_str(&self.user_agent).map_err(|e| invalid(e.to_string()))?;
        message.headers_mut().entry(USER_AGENT).or_insert(agent);
        Ok(message)
    }
}
