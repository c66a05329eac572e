//! Query results as JSON: `resultType` and `result`, written sample by sample into the answer's buffer.

use crate::http::json::{Json, Object};
use crate::model::go;
use crate::model::histogram::{Bucket, FloatHistogram};
use crate::model::result::{Point, QueryValue};
use crate::model::time::TimestampMs;

/// Writes `"resultType":…,"result":…` into an open object.
pub fn query_value(object: &mut Object<'_>, value: &QueryValue) {
    object.string("resultType", type_name(value));
    let json = object.key("result");
    match value {
        QueryValue::Scalar(point) => {
            // A scalar alone is printed without exponents, whatever its size, and its time as a plain number.
            json.raw("[");
            json.number(point.at.as_seconds());
            json.raw(",\"");
            json.raw(&go::format_float_f(point.value));
            json.raw("\"]");
        }
        QueryValue::Text { at, text } => {
            json.raw("[");
            json.number(at.as_seconds());
            json.raw(",");
            json.string(text);
            json.raw("]");
        }
        QueryValue::Vector(elements) => {
            let mut array = json.array();
            for element in elements {
                let json = array.item();
                json.raw("{\"metric\":");
                json.labels(&element.labels);
                match &element.histogram {
                    Some(found) => {
                        json.raw(",\"histogram\":");
                        histogram_point(json, element.point.at, found);
                    }
                    None => {
                        json.raw(",\"value\":");
                        point(json, &element.point);
                    }
                }
                json.raw("}");
            }
            array.end();
        }
        QueryValue::Matrix(series) => {
            json.reserve(point_count(value).saturating_mul(POINT_LEN));
            let mut array = json.array();
            for one in series {
                let json = array.item();
                json.raw("{\"metric\":");
                json.labels(&one.labels);
                if !one.points.is_empty() {
                    json.raw(",\"values\":");
                    let mut points = json.array();
                    one.points.iter().for_each(|p| point(points.item(), p));
                    points.end();
                }
                if !one.histograms.is_empty() {
                    json.raw(",\"histograms\":");
                    let mut points = json.array();
                    one.histograms.iter().for_each(|p| histogram_point(points.item(), p.at, &p.histogram));
                    points.end();
                }
                json.raw("}");
            }
            array.end();
        }
    }
}

/// How much there is to write: points, and one for each series.
pub fn point_count(value: &QueryValue) -> usize {
    match value {
        QueryValue::Scalar(_) | QueryValue::Text { .. } => 1,
        QueryValue::Vector(elements) => elements.len(),
        QueryValue::Matrix(series) => series.iter().map(|one| one.points.len() + 1).sum(),
    }
}

/// The name of the value's type, as the API and PromQL call it.
pub fn type_name(value: &QueryValue) -> &'static str {
    match value {
        QueryValue::Scalar(_) => "scalar",
        QueryValue::Text { .. } => "string",
        QueryValue::Vector(_) => "vector",
        QueryValue::Matrix(_) => "matrix",
    }
}

/// Cuts a vector or matrix to its first `limit` elements. True if there were more.
pub fn truncate(value: &mut QueryValue, limit: usize) -> bool {
    match value {
        QueryValue::Vector(elements) if limit < elements.len() => elements.truncate(limit),
        QueryValue::Matrix(series) if limit < series.len() => series.truncate(limit),
        _ => return false,
    }
    true
}

/// Bytes that a point takes, about: time, digits, brackets.
const POINT_LEN: usize = 32;

fn point(json: &mut Json, point: &Point) {
    json.raw("[");
    json.sample_time(point.at);
    json.raw(",");
    json.sample_value(point.value);
    json.raw("]");
}

fn histogram_point(json: &mut Json, at: TimestampMs, value: &FloatHistogram) {
    json.raw("[");
    json.sample_time(at);
    json.raw(",");
    histogram(json, value);
    json.raw("]");
}

/// Count, sum and filled buckets: a number for the bounds that belong to the bucket, the bounds, the count.
fn histogram(json: &mut Json, value: &FloatHistogram) {
    let mut object = json.object();
    object.key("count").sample_value(value.count);
    object.key("sum").sample_value(value.sum);
    let buckets: Vec<Bucket> = value.buckets().into_iter().filter(|bucket| bucket.count != 0.0).collect();
    if !buckets.is_empty() {
        let mut array = object.key("buckets").array();
        for bucket in buckets {
            let json = array.item();
            let bounds = match (bucket.lower_inclusive, bucket.upper_inclusive) {
                (false, true) => 0,
                (true, false) => 1,
                (false, false) => 2,
                (true, true) => 3,
            };
            json.raw("[");
            json.integer(bounds);
            for number in [bucket.lower, bucket.upper, bucket.count] {
                json.raw(",");
                json.sample_value(number);
            }
            json.raw("]");
        }
        array.end();
    }
    object.end();
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::histogram::Span;
    use crate::model::labels::Labels;
    use crate::model::result::{HistogramPoint, MatrixSeries, VectorElement};

    fn at(ms: i64, value: f64) -> Point {
        Point { at: TimestampMs(ms), value }
    }

    #[track_caller]
    fn check(value: &QueryValue, expected: &str) {
        let mut json = Json::new();
        let mut object = json.object();
        query_value(&mut object, value);
        object.end();
        assert_eq!(String::from_utf8(json.into_bytes()).unwrap(), expected);
    }

    #[test]
    fn scalars_and_strings() {
        check(&QueryValue::Scalar(at(1_500, 1e-7)), r#"{"resultType":"scalar","result":[1.5,"0.0000001"]}"#);
        let text = QueryValue::Text { at: TimestampMs(1_000), text: "a<b>&".to_owned() };
        check(&text, r#"{"resultType":"string","result":[1,"a\u003cb\u003e\u0026"]}"#);
    }

    #[test]
    fn vectors_and_matrices() {
        check(&QueryValue::Vector(vec![]), r#"{"resultType":"vector","result":[]}"#);
        let labels = Labels::from_pairs([("__name__", "up"), ("job", "<a>")]);
        let vector = QueryValue::Vector(vec![
            VectorElement { labels: labels.clone(), point: at(500, f64::INFINITY), histogram: None },
            VectorElement { labels: Labels::empty(), point: at(2_000, 1e-7), histogram: None },
        ]);
        let want = concat!(
            r#"{"resultType":"vector","result":[{"metric":{"__name__":"up","job":"<a>"},"value":[0.500,"+Inf"]},"#,
            r#"{"metric":{},"value":[2,"1e-07"]}]}"#
        );
        check(&vector, want);
        let matrix = QueryValue::Matrix(vec![
            MatrixSeries { labels: Labels::empty(), points: vec![at(1_000, 1.0), at(2_000, 2.5)], histograms: vec![] },
            MatrixSeries { labels, points: vec![], histograms: vec![] },
        ]);
        let want = concat!(
            r#"{"resultType":"matrix","result":[{"metric":{},"values":[[1,"1"],[2,"2.5"]]},"#,
            r#"{"metric":{"__name__":"up","job":"<a>"}}]}"#
        );
        check(&matrix, want);
    }

    #[test]
    fn histograms_have_their_filled_buckets() {
        let histogram = Arc::new(FloatHistogram {
            count: 6.0,
            sum: 1.5,
            zero_threshold: 0.001,
            zero_count: 1.0,
            positive_spans: vec![Span { offset: 0, length: 3 }],
            positive_buckets: vec![2.0, 0.0, 2.0],
            negative_spans: vec![Span { offset: 1, length: 1 }],
            negative_buckets: vec![1.0],
            ..FloatHistogram::default()
        });
        let shown = concat!(
            r#"[1,{"count":"6","sum":"1.5","buckets":[[1,"-2","-1","1"],[3,"-0.001","0.001","1"],"#,
            r#"[0,"0.5","1","2"],[0,"2","4","2"]]}]"#
        );
        let point = at(1_000, f64::NAN);
        let element = VectorElement { labels: Labels::empty(), point, histogram: Some(Arc::clone(&histogram)) };
        let want = format!(r#"{{"resultType":"vector","result":[{{"metric":{{}},"histogram":{shown}}}]}}"#);
        check(&QueryValue::Vector(vec![element]), &want);
        let histograms = vec![HistogramPoint { at: TimestampMs(1_000), histogram }];
        let series = MatrixSeries { labels: Labels::empty(), points: vec![at(0, 2.0)], histograms };
        let want = format!(
            r#"{{"resultType":"matrix","result":[{{"metric":{{}},"values":[[0,"2"]],"histograms":[{shown}]}}]}}"#
        );
        check(&QueryValue::Matrix(vec![series]), &want);
    }

    #[test]
    fn a_limit_cuts_series_and_elements_alone() {
        let mut vector = QueryValue::Vector(vec![
            VectorElement { labels: Labels::empty(), point: at(0, 0.0), histogram: None },
            VectorElement { labels: Labels::empty(), point: at(0, 1.0), histogram: None },
        ]);
        assert!(!truncate(&mut vector, 2));
        assert!(truncate(&mut vector, 1));
        assert!(matches!(vector, QueryValue::Vector(elements) if elements.len() == 1));
        assert!(!truncate(&mut QueryValue::Scalar(at(0, 0.0)), 0));
    }
}
