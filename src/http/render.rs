//! Query results as JSON: `resultType` and `result`, written sample by sample into the answer's buffer, or bit by bit as
//! the connection takes them.

use crate::http::held::Held;
use crate::http::json::{Json, Object};
use crate::http::pieces::{PIECE_LEN, Script};
use crate::model::go;
use crate::model::histogram::{Bucket, FloatHistogram};
use crate::model::result::{MatrixSeries, Point, QueryValue, VectorElement};
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
            elements.iter().for_each(|one| element(array.item(), one));
            array.end();
        }
        QueryValue::Matrix(series) => {
            json.reserve(point_count(value).saturating_mul(POINT_LEN));
            let mut array = json.array();
            for one in series {
                let mut progress = Progress::default();
                series_part(array.item(), one, &mut progress, usize::MAX);
            }
            array.end();
        }
    }
}

fn element(json: &mut Json, element: &VectorElement) {
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

/// How far a series is written.
#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    has_begun: bool,
    points: usize,
    histograms: usize,
}

/// Writes on until the text has `until` bytes; true once the series is complete.
fn series_part(json: &mut Json, series: &MatrixSeries, progress: &mut Progress, until: usize) -> bool {
    if !std::mem::replace(&mut progress.has_begun, true) {
        json.raw("{\"metric\":");
        json.labels(&series.labels);
    }
    while let Some(next) = series.points.get(progress.points..).filter(|left| !left.is_empty()) {
        if until <= json.len() {
            return false;
        }
        let run = next.get(..POINTS_RUN.min(next.len())).unwrap_or(next);
        for (number, one) in run.iter().enumerate() {
            json.raw(if progress.points + number == 0 { ",\"values\":[" } else { "," });
            point(json, one);
        }
        progress.points += run.len();
        if progress.points == series.points.len() {
            json.raw("]");
        }
    }
    while let Some(next) = series.histograms.get(progress.histograms) {
        if until <= json.len() {
            return false;
        }
        json.raw(if progress.histograms == 0 { ",\"histograms\":[" } else { "," });
        histogram_point(json, next.at, &next.histogram);
        progress.histograms += 1;
        if progress.histograms == series.histograms.len() {
            json.raw("]");
        }
    }
    json.raw("}");
    true
}

/// A value that is written bit by bit; what is written is let go.
pub(super) struct ValueScript {
    rest: Rest,
    /// What stands between the value and the end of the object.
    tail: String,
    is_first: bool,
    held: Held,
    held_len: usize,
}

enum Rest {
    Vector(std::vec::IntoIter<VectorElement>),
    Matrix(std::vec::IntoIter<MatrixSeries>, Option<(MatrixSeries, Progress)>),
    Short(QueryValue),
    Done,
}

impl ValueScript {
    /// An object with the value and `tail`. `held` is what the value holds of the queries' memory.
    pub(super) fn new(value: QueryValue, tail: String, held: Held) -> Self {
        let held_len = value_len(&value);
        let rest = match value {
            QueryValue::Vector(elements) => Rest::Vector(elements.into_iter()),
            QueryValue::Matrix(series) => Rest::Matrix(series.into_iter(), None),
            value => Rest::Short(value),
        };
        Self { rest, tail, is_first: true, held, held_len }
    }

    fn open(&mut self, json: &mut Json, name: &str) {
        if self.is_first {
            json.raw("{\"resultType\":\"");
            json.raw(name);
            json.raw("\",\"result\":[");
        }
    }

    fn close(&mut self, json: &mut Json) -> bool {
        json.raw("]");
        json.raw(&self.tail);
        json.raw("}");
        self.rest = Rest::Done;
        self.held.settle(2 * PIECE_LEN);
        false
    }

    /// Lets go of the account of what was written.
    fn settle(&mut self, written: usize) {
        self.held_len = self.held_len.saturating_sub(written);
        self.held.settle(self.held_len.saturating_add(2 * PIECE_LEN));
    }
}

impl Script for ValueScript {
    fn write(&mut self, json: &mut Json) -> bool {
        let until = json.len() + PIECE_LEN;
        match std::mem::replace(&mut self.rest, Rest::Done) {
            Rest::Done => false,
            Rest::Short(value) => {
                let mut object = json.object();
                query_value(&mut object, &value);
                let tail = std::mem::take(&mut self.tail);
                object.raw(&tail);
                object.end();
                false
            }
            Rest::Vector(mut elements) => {
                self.open(json, "vector");
                for one in elements.by_ref() {
                    if !std::mem::take(&mut self.is_first) {
                        json.raw(",");
                    }
                    element(json, &one);
                    if until <= json.len() {
                        self.rest = Rest::Vector(elements);
                        return true;
                    }
                }
                self.close(json)
            }
            Rest::Matrix(mut series, mut current) => {
                self.open(json, "matrix");
                loop {
                    let Some((one, mut progress)) =
                        current.take().or_else(|| Some((series.next()?, Progress::default())))
                    else {
                        return self.close(json);
                    };
                    if !progress.has_begun && !std::mem::take(&mut self.is_first) {
                        json.raw(",");
                    }
                    if !series_part(json, &one, &mut progress, until) {
                        current = Some((one, progress));
                    } else {
                        self.settle(series_len(&one));
                    }
                    if until <= json.len() {
                        self.rest = Rest::Matrix(series, current);
                        return true;
                    }
                }
            }
        }
    }

    fn take_held(&mut self) -> Held {
        std::mem::take(&mut self.held)
    }
}

fn series_len(series: &MatrixSeries) -> usize {
    let histograms: usize = series.histograms.iter().map(|point| point.histogram.memory_len()).sum();
    size_of::<MatrixSeries>() + series.labels.encoded_len() + size_of::<Point>() * series.points.len() + histograms
}

fn value_len(value: &QueryValue) -> usize {
    match value {
        QueryValue::Matrix(series) => series.iter().map(series_len).sum(),
        // Elements of a vector are let go together, at the end.
        _ => usize::MAX / 2,
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

/// Points between two looks at how much was written.
const POINTS_RUN: usize = 128;

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
    use crate::model::result::HistogramPoint;

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
        let mut json = Json::new();
        let mut script = ValueScript::new(value.clone(), String::new(), Held::default());
        while script.write(&mut json) {}
        assert_eq!(String::from_utf8(json.into_bytes()).unwrap(), expected);
    }

    #[test]
    fn long_values_are_written_bit_by_bit() {
        let points = |count: i64| (0..count).map(|n| at(n * 1_000, n as f64)).collect::<Vec<_>>();
        let histogram = Arc::new(FloatHistogram { count: 1.0, zero_count: 1.0, ..FloatHistogram::default() });
        let histograms: Vec<_> =
            (0..2_000).map(|n| HistogramPoint { at: TimestampMs(n), histogram: Arc::clone(&histogram) }).collect();
        let series = |points, histograms| MatrixSeries { labels: Labels::from_pairs([("a", "b")]), points, histograms };
        let matrix = vec![
            series(points(10_000), vec![]),
            series(points(127), histograms.clone()),
            series(vec![], histograms),
            series(points(1), vec![]),
            series(vec![], vec![]),
        ];
        let vector = points(5_000).into_iter();
        let vector = vector.map(|point| VectorElement { labels: Labels::empty(), point, histogram: None }).collect();
        for value in [QueryValue::Matrix(matrix), QueryValue::Vector(vector)] {
            let mut whole = Json::new();
            let mut object = whole.object();
            query_value(&mut object, &value);
            object.key("stats").raw("1");
            object.end();
            let mut script = ValueScript::new(value, ",\"stats\":1".to_owned(), Held::default());
            let (mut written, mut pieces) = (Vec::new(), 0);
            loop {
                let mut json = Json::new();
                let has_more = script.write(&mut json);
                assert!(json.len() < PIECE_LEN + 8_192, "{}", json.len());
                written.extend(json.into_bytes());
                pieces += 1;
                if !has_more {
                    break;
                }
            }
            assert!(5 < pieces, "{pieces}");
            assert!(written == whole.into_bytes());
        }
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
