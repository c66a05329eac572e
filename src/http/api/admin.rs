//! `/api/v1/admin/tsdb/{delete_series,clean_tombstones,snapshot}`, behind `--web.enable-admin-api`, and `/api/v1/status/walreplay`.
//!
//! Only `POST` and `PUT` lead here, so that no link or image of another page deletes anything.

use crate::http::api::parse_selectors;
use crate::http::envelope;
use crate::http::error::{ApiError, ErrorKind};
use crate::http::request::Context;
use crate::http::response::Response;
use crate::http::state::Answer;
use crate::model::go;
use crate::model::matcher::Matcher;
use crate::model::time::TimeRange;

/// What changes stored data; there only if the operator wants it.
pub trait AdminPorts: Send + Sync {
    /// Deletes samples of a range from series that any of the selectors selects. When it answers, nobody sees them any more.
    fn delete_series(&self, selectors: Vec<Vec<Matcher>>, range: TimeRange) -> Answer<'_, ()>;
    /// Writes blocks anew without what is deleted of them.
    fn clean_tombstones(&self) -> Answer<'_, ()>;
    /// Copies blocks, and the head unless it is to be skipped, to a folder below `snapshots/`; answers its name.
    fn snapshot(&self, skip_head: bool) -> Answer<'_, String>;
}

/// How far reading the log back is: segments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WalReplay {
    /// The first that is read.
    pub min: u64,
    /// The last.
    pub max: u64,
    /// The last that was read to its end.
    pub current: u64,
}

fn admin(context: &Context) -> Result<&dyn AdminPorts, ApiError> {
    context.state.ports.admin().ok_or_else(|| ApiError::new(ErrorKind::Unavailable, "admin APIs disabled"))
}

/// `POST` and `PUT /api/v1/admin/tsdb/delete_series`.
pub(in crate::http) async fn delete_series(context: Context) -> Result<Response, ApiError> {
    let admin = admin(&context)?;
    if context.params.all("match[]").next().is_none() {
        return Err(ApiError::bad_data("no match[] parameter provided"));
    }
    let (start, end) = context.params.time_range()?;
    let selectors = parse_selectors(&context).map_err(|error| ApiError::invalid_parameter("match[]", error))?;
    // Nothing lies in a range that ends before it begins.
    if let Ok(range) = TimeRange::new(start, end) {
        admin.delete_series(selectors, range).await?;
    }
    Ok(envelope::no_content())
}

/// `POST` and `PUT /api/v1/admin/tsdb/clean_tombstones`.
pub(in crate::http) async fn clean_tombstones(context: Context) -> Result<Response, ApiError> {
    admin(&context)?.clean_tombstones().await?;
    Ok(envelope::no_content())
}

/// `POST` and `PUT /api/v1/admin/tsdb/snapshot`.
pub(in crate::http) async fn snapshot(context: Context) -> Result<Response, ApiError> {
    let admin = admin(&context)?;
    let skip_head = match context.params.get("skip_head") {
        "" | "0" | "f" | "F" | "false" | "False" | "FALSE" => false,
        "1" | "t" | "T" | "true" | "True" | "TRUE" => true,
        other => {
            let error =
                format!("unable to parse boolean: strconv.ParseBool: parsing {}: invalid syntax", go::quote(other));
            return Err(ApiError::invalid_parameter("skip_head", error));
        }
    };
    let name = admin.snapshot(skip_head).await?;
    Ok(envelope::data(|json| {
        let mut object = json.object();
        object.string("name", &name);
        object.end();
    }))
}

/// `GET /api/v1/status/walreplay`.
pub(in crate::http) async fn wal_replay(context: Context) -> Result<Response, ApiError> {
    let WalReplay { min, max, current } = context.state.ports.wal_replay()?;
    let count = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    Ok(envelope::data(|json| {
        let mut object = json.object();
        object.integer("min", count(min)).integer("max", count(max)).integer("current", count(current));
        object.end();
    }))
}
