//! What a handler gets: the shared state and the request, taken apart.

use std::sync::Arc;

use crate::http::api::types::RequestOrigin;
use crate::http::body::Body;
use crate::http::params::Params;
use crate::http::state::HttpState;
use crate::remote::receive::budget::Held;

/// One request, ready for its handler.
pub(super) struct Context {
    pub(super) state: Arc<HttpState>,
    /// Parameters of the query string and of a form body.
    pub(super) params: Params,
    /// The query string as written.
    pub(super) raw_query: String,
    /// The variable part of the path, decoded.
    pub(super) path_parameter: Option<String>,
    /// Whom it comes from.
    pub(super) origin: RequestOrigin,
    /// The header `Accept`.
    pub(super) accept: Option<String>,
    /// What is left of the body; nothing after a form.
    pub(super) body: Body,
    /// What the parameters of a form take of the memory for bodies.
    pub(super) _held: Option<Held>,
}
