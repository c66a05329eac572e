//! `/api/v1/status/tsdb` and `/api/v1/status/tsdb/blocks`.

use crate::http::api::types::NameCount;
use crate::http::envelope;
use crate::http::error::ApiError;
use crate::http::json::Json;
use crate::http::request::Context;
use crate::http::response::Response;

/// Entries of each list unless `limit` says otherwise.
const LIMIT: usize = 10;
/// Largest `limit`.
const LIMIT_MAX: usize = 10_000;

/// `GET /api/v1/status/tsdb`.
pub(crate) async fn status(context: Context) -> Result<Response, ApiError> {
    let limit = match context.params.get_query("limit") {
        "" => LIMIT,
        text => match text.parse::<i64>().ok().and_then(|n| usize::try_from(n).ok()) {
            None | Some(0) => return Err(ApiError::bad_data("limit must be a positive number")),
            Some(limit) if LIMIT_MAX < limit => {
                return Err(ApiError::bad_data(format!("limit must not exceed {LIMIT_MAX}")));
            }
            Some(limit) => limit,
        },
    };
    let status = context.state.ports.tsdb_status(limit).await?;
    let count = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    Ok(envelope::data(|json| {
        let mut object = json.object();
        let mut head = object.key("headStats").object();
        head.integer("numSeries", count(status.series))
            .integer("numLabelPairs", count(status.label_pairs))
            .integer("chunkCount", count(status.chunks))
            // A head without samples begins after all times and ends before them, as in Prometheus.
            .integer("minTime", status.min_time.unwrap_or(i64::MAX))
            .integer("maxTime", status.max_time.unwrap_or(i64::MIN));
        head.end();
        write_counts(object.key("seriesCountByMetricName"), &status.series_by_metric);
        write_counts(object.key("labelValueCountByLabelName"), &status.values_by_label);
        write_counts(object.key("memoryInBytesByLabelName"), &status.bytes_by_label);
        write_counts(object.key("seriesCountByLabelValuePair"), &status.series_by_pair);
        object.end();
    }))
}

fn write_counts(json: &mut Json, counts: &[NameCount]) {
    let mut array = json.array();
    for one in counts {
        let mut object = array.item().object();
        object.string("name", &one.name);
        object.key("value").raw(&one.value.to_string());
        object.end();
    }
    array.end();
}

/// `GET /api/v1/status/tsdb/blocks`.
pub(crate) async fn blocks(context: Context) -> Result<Response, ApiError> {
    let blocks = context.state.ports.blocks().await?;
    Ok(envelope::data(|json| {
        let mut object = json.object();
        let mut array = object.key("blocks").array();
        for block in &blocks {
            array.item().raw(&block.to_string());
        }
        array.end();
        object.end();
    }))
}
