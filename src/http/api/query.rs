//! `/api/v1/query` and `/api/v1/query_range`.

use std::time::Duration;

use crate::http::api::TRUNCATED;
use crate::http::api::types::{InstantQuery, QueryAnswer, QueryStats, RangeQuery, RequestOrigin};
use crate::http::envelope;
use crate::http::error::ApiError;
use crate::http::json::{Json, Object};
use crate::http::params::{Params, parse_duration};
use crate::http::pieces::PIECE_LEN;
use crate::http::render::{self, ValueScript};
use crate::http::request::Context;
use crate::http::response::Response;
use crate::model::go;
use crate::model::time::TimestampMs;

/// Most points of a series in the answer to a range query, less one.
const POINTS_MAX: i128 = 11_000;

/// `GET` and `POST /api/v1/query`.
pub(crate) async fn instant(context: Context) -> Result<Response, ApiError> {
    let limit = context.params.limit()?;
    let query = instant_query(&context.params, context.state.clock.now(), &context.origin)?;
    let answer = context.state.ports.query_instant(query).await?;
    respond(answer, limit, context.params.get("stats"))
}

/// `GET` and `POST /api/v1/query_range`.
pub(crate) async fn range(context: Context) -> Result<Response, ApiError> {
    let limit = context.params.limit()?;
    let query = range_query(&context.params, &context.origin)?;
    let answer = context.state.ports.query_range(query).await?;
    respond(answer, limit, context.params.get("stats"))
}

fn instant_query(params: &Params, now: TimestampMs, origin: &RequestOrigin) -> Result<InstantQuery, ApiError> {
    let (at, timeout, lookback) = (params.time_or("time", now)?, params.timeout()?, params.lookback()?);
    check_timeout(timeout)?;
    Ok(InstantQuery {
        at,
        timeout,
        lookback,
        per_step_stats: params.get("stats") == "all",
        query: params.get("query").to_owned(),
        origin: origin.clone(),
    })
}

fn range_query(params: &Params, origin: &RequestOrigin) -> Result<RangeQuery, ApiError> {
    let start = params.time("start")?;
    let end = params.time("end")?;
    if end < start {
        return Err(ApiError::invalid_parameter("end", "end timestamp must not be before start time"));
    }
    let step_nanos = parse_duration(params.get("step")).map_err(|error| ApiError::invalid_parameter("step", error))?;
    // Storage counts in milliseconds: a shorter step would never get on.
    if step_nanos < 1_000_000 {
        let text = "zero or negative query resolution step widths are not accepted. Try a positive integer";
        return Err(ApiError::invalid_parameter("step", text));
    }
    let range_nanos = (i128::from(end.0) - i128::from(start.0)) * 1_000_000;
    if POINTS_MAX < range_nanos / i128::from(step_nanos) {
        let text = "exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the query resolution \
                    (?step=XX)";
        return Err(ApiError::bad_data(text));
    }
    let (timeout, lookback) = (params.timeout()?, params.lookback()?);
    check_timeout(timeout)?;
    Ok(RangeQuery {
        start,
        end,
        step_ms: step_nanos / 1_000_000,
        timeout,
        lookback,
        per_step_stats: params.get("stats") == "all",
        query: params.get("query").to_owned(),
        origin: origin.clone(),
    })
}

/// A timeout that is over before the query is read is an error of the request.
fn check_timeout(timeout: Option<Duration>) -> Result<(), ApiError> {
    if timeout == Some(Duration::ZERO) {
        return Err(ApiError::invalid_parameter("query", "context deadline exceeded"));
    }
    Ok(())
}

fn respond(mut answer: QueryAnswer, limit: usize, stats: &str) -> Result<Response, ApiError> {
    // What is written and not sent yet.
    answer.held.grow(2 * PIECE_LEN).map_err(ApiError::execution)?;
    if 0 < limit && render::truncate(&mut answer.value, limit) {
        answer.annotations.warnings.push(TRUNCATED.to_owned());
    }
    if !matches!(stats, "" | "true" | "all") {
        answer.annotations.warnings.push(format!(
            "value {} for parameter \"stats\" is deprecated and will be rejected in the next major release, use \
             \"true\" or \"all\"",
            go::quote(stats)
        ));
    }
    let mut tail = Json::new();
    if !stats.is_empty() {
        tail.raw(",\"stats\":");
        write_stats(&mut tail, &answer.stats);
    }
    let script = ValueScript::new(answer.value, tail.into_text(), answer.held);
    Ok(envelope::streamed(&answer.annotations, script))
}

fn write_stats(json: &mut Json, stats: &QueryStats) {
    let mut object = json.object();
    let mut timings = object.key("timings").object();
    timings
        .number("evalTotalTime", stats.eval_total)
        .number("resultSortTime", stats.result_sort)
        .number("queryPreparationTime", stats.preparation)
        .number("innerEvalTime", stats.inner_eval)
        .number("execQueueTime", stats.queue)
        .number("execTotalTime", stats.exec_total);
    timings.end();
    let mut samples = object.key("samples").object();
    per_step(&mut samples, "totalQueryableSamplesPerStep", stats.queryable_samples_per_step.as_deref());
    samples.integer("totalQueryableSamples", stats.queryable_samples);
    per_step(&mut samples, "samplesReadPerStep", stats.samples_read_per_step.as_deref());
    samples.integer("samplesRead", stats.samples_read);
    samples.integer("peakSamples", stats.peak_samples);
    samples.end();
    object.end();
}

fn per_step(object: &mut Object<'_>, name: &str, steps: Option<&[(TimestampMs, i64)]>) {
    let Some(steps) = steps.filter(|steps| !steps.is_empty()) else { return };
    let mut array = object.key(name).array();
    for (at, count) in steps {
        let json = array.item();
        json.raw("[");
        json.number(at.0 as f64 / 1000.0);
        json.raw(",");
        json.integer(*count);
        json.raw("]");
    }
    array.end();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_range(query: &str, expected: Result<(i64, i64, i64), &str>) {
        let got = range_query(&Params::read(query.as_bytes(), b"").unwrap(), &RequestOrigin::default());
        let got = got.map(|query| (query.start.0, query.end.0, query.step_ms)).map_err(|error| error.message);
        assert_eq!(got, expected.map_err(str::to_owned));
    }

    #[test]
    fn ranges_are_checked_in_prometheus_order() {
        check_range("start=1&end=3&step=1", Ok((1_000, 3_000, 1_000)));
        check_range("start=1&end=11001&step=1", Ok((1_000, 11_001_000, 1_000)));
        check_range("query=1", Err("invalid parameter \"start\": cannot parse \"\" to a valid timestamp"));
        check_range(
            "start=1&end=0&step=1",
            Err("invalid parameter \"end\": end timestamp must not be before start time"),
        );
        check_range("start=1&end=2", Err("invalid parameter \"step\": cannot parse \"\" to a valid duration"));
        let step = "invalid parameter \"step\": zero or negative query resolution step widths are not accepted. Try \
                    a positive integer";
        check_range("start=1&end=2&step=0", Err(step));
        check_range("start=1&end=2&step=-5", Err(step));
        check_range("start=1&end=2&step=0.0001", Err(step));
        check_range(
            "start=1&end=11002&step=1",
            Err("exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the query resolution \
                 (?step=XX)"),
        );
        check_range(
            "start=-1e300&end=1e300&step=1e9",
            Err("exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the query resolution \
             (?step=XX)"),
        );
    }

    #[test]
    fn a_timeout_of_nothing_is_refused() {
        for timeout in ["0", "-1", "-5m"].iter().filter(|text| parse_duration(text).is_ok()) {
            let params =
                Params::read(format!("query=up&start=1&end=2&step=1&timeout={timeout}").as_bytes(), b"").unwrap();
            let text = "invalid parameter \"query\": context deadline exceeded";
            let origin = RequestOrigin::default();
            assert_eq!(instant_query(&params, TimestampMs(0), &origin).unwrap_err().message, text);
            assert_eq!(range_query(&params, &origin).unwrap_err().message, text);
        }
    }

    #[test]
    fn an_instant_query_is_asked_now_unless_told() {
        let now = TimestampMs(42);
        let params = Params::read(b"query=up&timeout=2s&lookback_delta=1m&stats=all", b"").unwrap();
        let query = instant_query(&params, now, &RequestOrigin::default()).unwrap();
        assert_eq!((query.at, query.timeout.unwrap().as_secs(), query.per_step_stats), (now, 2, true));
        assert_eq!(query.lookback.unwrap().as_ms(), 60_000);
    }
}
