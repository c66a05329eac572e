//! Our answers in the form of the API.

use std::sync::Arc;

use serde_json::{Value as Json, json};
use watchfire::http::json::Json as Writer;
use watchfire::http::render;
use watchfire::model::read::{ReadView, SampleColumn};
use watchfire::model::time::TimestampMs;
use watchfire::promql::eval::{EngineOptions, EvalError, QueryContext, evaluate_instant, evaluate_range};
use watchfire::promql::parser::{ParseOptions, parse_expr};
use watchfire::promqltest::{MemoryStorage, TestStorage};

use crate::grammar::{Query, Times};
use crate::samples::{Series, Value};

/// The series in plain maps.
pub(crate) fn view_of(all: &[Series]) -> Arc<dyn ReadView> {
    let mut storage = MemoryStorage::new();
    for series in all {
        let mut column = SampleColumn::default();
        for (at_ms, value) in &series.samples {
            match value {
                Value::Float(value) => column.push_float(*at_ms, 0, *value),
                Value::Histogram(histogram) => column.push_histogram(*at_ms, 0, Arc::clone(histogram)),
            }
        }
        storage.append_all(&series.labels, &column).unwrap();
    }
    storage.queryable().view().unwrap()
}

/// The answer to a query: what the API would say.
pub(crate) fn of(view: &dyn ReadView, query: &Query, opts: &EngineOptions) -> Json {
    with_figures(view, query, opts).0
}

/// The answer with its figures: samples looked at, read, and held at most.
pub(crate) fn with_figures(view: &dyn ReadView, query: &Query, opts: &EngineOptions) -> (Json, [u64; 3]) {
    let failure = |kind: &str, text: String| json!({ "status": "error", "errorType": kind, "error": text });
    let bad_query = |text: String| failure("bad_data", format!("invalid parameter \"query\": {text}"));
    let parsed = match parse_expr(&query.text, &ParseOptions::ALL) {
        Ok(parsed) => parsed,
        Err(errors) => return (bad_query(errors.to_string()), [0; 3]),
    };
    let opts = EngineOptions { lookback_ms: query.lookback_ms, ..opts.clone() };
    let ctx = QueryContext::unlimited(query.text.clone());
    let evaluated = match query.times {
        Times::Instant(at_ms) => evaluate_instant(&parsed, view, TimestampMs(at_ms), &opts, &ctx),
        Times::Range { start_ms, end_ms, step_ms } => {
            evaluate_range(&parsed, view, TimestampMs(start_ms), TimestampMs(end_ms), step_ms, &opts, &ctx)
        }
    };
    match evaluated {
        Err(EvalError::BadQuery(text)) => (bad_query(text), [0; 3]),
        Err(error) => (failure("execution", error.to_string()), [0; 3]),
        Ok(evaluated) => {
            let mut writer = Writer::new();
            let mut object = writer.object();
            render::query_value(&mut object, &evaluated.value);
            object.end();
            let data: Json = serde_json::from_slice(&writer.into_bytes()).unwrap();
            let mut answer = json!({ "status": "success", "data": data });
            for (name, texts) in
                [("warnings", &evaluated.annotations.warnings), ("infos", &evaluated.annotations.infos)]
            {
                if !texts.is_empty() {
                    answer[name] = json!(texts);
                }
            }
            let stats = evaluated.stats;
            (answer, [stats.total_samples, stats.samples_read, stats.peak_samples as u64])
        }
    }
}

/// The parameters by which the API is asked the same.
pub(crate) fn form(query: &Query) -> (&'static str, Vec<(&'static str, String)>) {
    let seconds = |ms: i64| format!("{}.{:03}", ms / 1000, ms % 1000);
    let mut form = vec![("query", query.text.clone()), ("lookback_delta", format!("{}ms", query.lookback_ms))];
    match query.times {
        Times::Instant(at_ms) => {
            form.push(("time", seconds(at_ms)));
            ("/api/v1/query", form)
        }
        Times::Range { start_ms, end_ms, step_ms } => {
            form.extend([("start", seconds(start_ms)), ("end", seconds(end_ms)), ("step", seconds(step_ms))]);
            ("/api/v1/query_range", form)
        }
    }
}
