//! The endpoints under `/api/v1`, one file a resource, and our own under `/api/watchfire/v1`.

pub(super) mod about;
pub mod admin;
pub(super) mod labels;
pub(super) mod metadata;
pub(super) mod openapi;
pub(super) mod queries;
pub(super) mod query;
pub(super) mod read;
pub(super) mod relabel_steps;
pub(super) mod rules;
pub(super) mod search;
pub(super) mod status;
pub(super) mod syntax;
pub(super) mod targets;
pub(super) mod tsdb;
pub mod types;
pub(super) mod watchfire;
pub(super) mod write;

use std::cell::Cell;
use std::rc::Rc;

use crate::http::error::ApiError;
use crate::http::request::Context;
use crate::model::matcher::Matcher;
use crate::model::names::Names;
use crate::model::regexp;
use crate::model::result::Annotations;

/// The remark on an answer that was cut.
const TRUNCATED: &str = "results truncated due to limit";

/// Most bytes that the regular expressions of all selectors take.
const REGEXPS_LEN_MAX: usize = 64 << 20;

/// Selectors of `match[]`.
fn parse_selectors(context: &Context) -> Result<Vec<Vec<Matcher>>, String> {
    let parse = || -> Result<Vec<_>, String> {
        context.params.all("match[]").map(|text| context.state.ports.parse_selector(text)).collect()
    };
    let left = Cell::new(REGEXPS_LEN_MAX);
    let take = move |bytes: usize| left.get().checked_sub(bytes).map(|less| left.set(less)).is_some();
    regexp::within(Rc::new(take), parse)
}

/// Selectors of `match[]`; each must say something about some label.
fn matchers(context: &Context) -> Result<Vec<Vec<Matcher>>, String> {
    let selectors = parse_selectors(context)?;
    if selectors.iter().any(|matchers| matchers.iter().all(Matcher::matches_empty)) {
        return Err("match[] must contain at least one non-empty matcher".to_owned());
    }
    Ok(selectors)
}

/// Cuts `items` to `limit` (0: not at all) and says so.
fn cut(items: &mut impl Cut, limit: usize, warnings: Vec<String>) -> Annotations {
    let mut annotations = Annotations { warnings, infos: Vec::new() };
    if 0 < limit && items.cut(limit) {
        annotations.warnings.push(TRUNCATED.to_owned());
    }
    annotations
}

/// A list that can be cut.
trait Cut {
    /// Keeps the first `len` items at most; whether there were more.
    fn cut(&mut self, len: usize) -> bool;
}

impl<T> Cut for Vec<T> {
    fn cut(&mut self, len: usize) -> bool {
        let has_more = len < self.len();
        self.truncate(len);
        has_more
    }
}

impl Cut for Names {
    fn cut(&mut self, len: usize) -> bool {
        let has_more = len < self.len();
        self.truncate(len);
        has_more
    }
}

/// Refuses selectors as labels endpoints do: without naming the parameter.
fn matchers_plain(context: &Context) -> Result<Vec<Vec<Matcher>>, ApiError> {
    matchers(context).map_err(ApiError::bad_data)
}
