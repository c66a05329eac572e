//! Query results as JSON: `resultType` and `result`, written sample by sample into the answer's buffer.

use crate::http::json::{Json, Object};
use crate::model::go;
use crate::model::result::{Point, QueryValue};

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
                json.raw(",\"value\":");
                point(json, &element.point);
                json.raw("}");
            }
            array.end();
        }
        QueryValue::Matrix(series) => {
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

fn point(json: &mut Json, point: &Point) {
    json.raw("[");
    json.sample_time(point.at);
    json.raw(",");
    json.sample_value(point.value);
    json.raw("]");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::labels::Labels;
    use crate::model::result::{MatrixSeries, VectorElement};
    use crate::model::time::TimestampMs;

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
            VectorElement { labels: labels.clone(), point: at(500, f64::INFINITY) },
            VectorElement { labels: Labels::empty(), point: at(2_000, 1e-7) },
        ]);
        let want = concat!(
            r#"{"resultType":"vector","result":[{"metric":{"__name__":"up","job":"<a>"},"value":[0.500,"+Inf"]},"#,
            r#"{"metric":{},"value":[2,"1e-07"]}]}"#
        );
        check(&vector, want);
        let matrix = QueryValue::Matrix(vec![
            MatrixSeries { labels: Labels::empty(), points: vec![at(1_000, 1.0), at(2_000, 2.5)] },
            MatrixSeries { labels, points: vec![] },
        ]);
        let want = concat!(
            r#"{"resultType":"matrix","result":[{"metric":{},"values":[[1,"1"],[2,"2.5"]]},"#,
            r#"{"metric":{"__name__":"up","job":"<a>"}}]}"#
        );
        check(&matrix, want);
    }

    #[test]
    fn a_limit_cuts_series_and_elements_alone() {
        let mut vector = QueryValue::Vector(vec![
            VectorElement { labels: Labels::empty(), point: at(0, 0.0) },
            VectorElement { labels: Labels::empty(), point: at(0, 1.0) },
        ]);
        assert!(!truncate(&mut vector, 2));
        assert!(truncate(&mut vector, 1));
        assert!(matches!(vector, QueryValue::Vector(elements) if elements.len() == 1));
        assert!(!truncate(&mut QueryValue::Scalar(at(0, 0.0)), 0));
    }
}
