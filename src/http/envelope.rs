//! The envelope of API answers: `status`, `data`, `errorType`, `error`, `warnings`, `infos`, in this order.

use actix_web::http::StatusCode;

use crate::http::error::ApiError;
use crate::http::json::Json;
use crate::http::pieces::{Script, Scripted};
use crate::http::response::{JSON, Response};
use crate::model::result::Annotations;

/// Most warnings, and most infos, of an answer; the rest is counted.
pub const ANNOTATIONS_MAX: usize = 10;

/// Room for the beginning of an answer, which mostly is all of it.
const FIRST_ROOM: usize = 1 << 10;

/// A success with the data that `write` writes.
pub(super) fn success(annotations: &Annotations, write: impl FnOnce(&mut Json)) -> Response {
    let mut json = Json::new();
    json.raw("{\"status\":\"success\",\"data\":");
    write(&mut json);
    end(&mut json, annotations);
    Response::ok(JSON, json.into_bytes())
}

/// What follows the data.
fn end(json: &mut Json, annotations: &Annotations) {
    list(json, "warnings", &annotations.warnings, "warning");
    list(json, "infos", &annotations.infos, "info");
    json.raw("}");
}

/// A success whose data is written as the connection takes it, unless it is short.
pub(super) fn streamed(annotations: &Annotations, mut script: impl Script + 'static) -> Response {
    let mut json = Json::with_room(FIRST_ROOM);
    json.raw("{\"status\":\"success\",\"data\":");
    let has_more = script.write(&mut json);
    if !has_more {
        end(&mut json, annotations);
        let mut response = Response::ok(JSON, json.into_bytes());
        response.held = script.take_held();
        response.held.settle(response.body.capacity());
        return response;
    }
    let mut tail = Json::new();
    end(&mut tail, annotations);
    Response::ok(JSON, json.into_bytes()).followed_by(Scripted::new(Box::new(script), tail.into_bytes()))
}

/// A success without remarks.
pub(super) fn data(write: impl FnOnce(&mut Json)) -> Response {
    success(&Annotations::default(), write)
}

/// A failure.
pub(super) fn failure(error: &ApiError) -> Response {
    let mut json = Json::new();
    let mut object = json.object();
    object.string("status", "error").string("errorType", error.kind.name()).string("error", &error.message);
    object.end();
    Response::new(error.kind.status(), JSON, json.into_bytes())
}

/// A success that has nothing to say.
pub(super) fn no_content() -> Response {
    Response::empty(StatusCode::NO_CONTENT)
}

fn list(json: &mut Json, name: &str, texts: &[String], kind: &str) {
    if texts.is_empty() {
        return;
    }
    let omitted = texts.len().saturating_sub(ANNOTATIONS_MAX);
    let rest = (0 < omitted).then(|| format!("{omitted} more {kind} annotations omitted"));
    json.raw(&format!(",\"{name}\":"));
    json.strings(texts.iter().take(ANNOTATIONS_MAX).chain(rest.iter()));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(response: Response) -> String {
        String::from_utf8(response.body).unwrap()
    }

    #[test]
    fn success_and_failure() {
        assert_eq!(body(data(|json| json.raw("[]"))), r#"{"status":"success","data":[]}"#);
        let error = failure(&ApiError::bad_data("a \"b\" <c>"));
        assert_eq!(error.status, StatusCode::BAD_REQUEST);
        assert_eq!(body(error), r#"{"status":"error","errorType":"bad_data","error":"a \"b\" \u003cc\u003e"}"#);
    }

    #[test]
    fn annotations_beyond_ten_are_counted() {
        let texts: Vec<String> = (0..12).map(|n| n.to_string()).collect();
        let annotations = Annotations { warnings: texts.clone(), infos: texts[..1].to_vec() };
        let want = concat!(
            r#"{"status":"success","data":1,"warnings":["0","1","2","3","4","5","6","7","8","9","#,
            r#""2 more warning annotations omitted"],"infos":["0"]}"#
        );
        assert_eq!(body(success(&annotations, |json| json.raw("1"))), want);
    }
}
