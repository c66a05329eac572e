//! An answer before it goes on the wire: status, headers, body.

use actix_web::http::StatusCode;

use crate::http::held::Held;
use crate::http::pieces::Pieces;

/// What a handler returns.
pub(super) struct Response {
    pub(super) status: StatusCode,
    pub(super) headers: Vec<(&'static str, String)>,
    /// The body, or its beginning.
    pub(super) body: Vec<u8>,
    /// What follows, if there is more.
    pub(super) pieces: Option<Box<dyn Pieces>>,
    /// What it holds of the queries' memory.
    pub(super) held: Held,
}

/// The type of plain texts.
pub(super) const TEXT: &str = "text/plain; charset=utf-8";
/// The type of API answers.
pub(super) const JSON: &str = "application/json";

impl Response {
    pub(super) fn new(status: StatusCode, content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        Self {
            status,
            headers: vec![("Content-Type", content_type.to_owned())],
            body: body.into(),
            pieces: None,
            held: Held::default(),
        }
    }

    pub(super) fn ok(content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        Self::new(StatusCode::OK, content_type, body)
    }

    pub(super) fn text(status: StatusCode, body: &str) -> Self {
        Self::new(status, TEXT, body)
    }

    pub(super) fn empty(status: StatusCode) -> Self {
        Self { status, headers: Vec::new(), body: Vec::new(), pieces: None, held: Held::default() }
    }

    /// The same with more to follow.
    pub(super) fn followed_by(mut self, pieces: impl Pieces + 'static) -> Self {
        self.pieces = Some(Box::new(pieces));
        self
    }

    pub(super) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// A redirect in the form of Go's `http.Redirect`. `to` is a path that we have made ourselves.
    pub(super) fn redirect(status: StatusCode, to: &str) -> Self {
        let reason = status.canonical_reason().unwrap_or("Found");
        let mut href = String::new();
        crate::http::page::escape_into(&mut href, to);
        let body = format!("<a href=\"{href}\">{reason}</a>.\n\n");
        Self::new(status, "text/html; charset=utf-8", body).with("Location", to)
    }

    /// An error in the form of Go's `http.Error`.
    pub(super) fn error(status: StatusCode, text: &str) -> Self {
        Self::text(status, &format!("{text}\n")).with("X-Content-Type-Options", "nosniff")
    }

    pub(super) fn not_found() -> Self {
        Self::error(StatusCode::NOT_FOUND, "404 page not found")
    }
}
