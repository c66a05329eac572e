//! `/api/v1/series`, `/api/v1/labels` and `/api/v1/label/<name>/values`.

use crate::http::api::types::{LabelValuesRequest, SelectRequest};
use crate::http::api::{cut, matchers, matchers_plain};
use crate::http::envelope;
use crate::http::error::ApiError;
use crate::http::pieces::{EachName, EachSet};
use crate::http::request::Context;
use crate::http::response::Response;
use crate::model::go;
use crate::model::matcher::Matcher;

/// `GET` and `POST /api/v1/series`.
pub(crate) async fn series(context: Context) -> Result<Response, ApiError> {
    if context.params.all("match[]").next().is_none() {
        return Err(ApiError::bad_data("no match[] parameter provided"));
    }
    let limit = context.params.limit()?;
    let range = context.params.time_range()?;
    let selectors = matchers(&context).map_err(|error| ApiError::invalid_parameter("match[]", error))?;
    let request = select(selectors, range, limit);
    let mut listed = context.state.ports.series(request).await?;
    let annotations = cut(&mut listed.items, limit, listed.warnings);
    Ok(envelope::streamed(&annotations, EachSet::new(listed.items, listed.held)))
}

/// `GET` and `POST /api/v1/labels`.
pub(crate) async fn names(context: Context) -> Result<Response, ApiError> {
    let limit = context.params.limit()?;
    let range = context.params.time_range()?;
    let request = select(matchers_plain(&context)?, range, limit);
    let mut listed = context.state.ports.label_names(request).await?;
    let annotations = cut(&mut listed.items, limit, listed.warnings);
    Ok(envelope::streamed(&annotations, EachName::new(listed.items, listed.held)))
}

/// `GET /api/v1/label/<name>/values`.
pub(crate) async fn values(context: Context) -> Result<Response, ApiError> {
    let written = context.path_parameter.as_deref().unwrap_or("");
    let name = if written.starts_with("U__") { unescape_name(written) } else { written.to_owned() };
    if name.is_empty() {
        return Err(ApiError::bad_data(format!("invalid label name: {}", go::quote(&name))));
    }
    let limit = context.params.limit()?;
    let range = context.params.time_range()?;
    let request = LabelValuesRequest { name, select: select(matchers_plain(&context)?, range, limit) };
    let mut listed = context.state.ports.label_values(request).await?;
    let annotations = cut(&mut listed.items, limit, listed.warnings);
    Ok(envelope::streamed(&annotations, EachName::new(listed.items, listed.held)))
}

fn select(
    selectors: Vec<Vec<Matcher>>,
    (start, end): (crate::model::time::TimestampMs, crate::model::time::TimestampMs),
    limit: usize,
) -> SelectRequest {
    let hint_limit = if limit == 0 { 0 } else { limit.saturating_add(1) };
    SelectRequest { selectors, start, end, hint_limit }
}

/// Undoes Prometheus's "value encoding" of names: `U__` ahead, `__` for `_`, `_<hex>_` for any other character. A text
/// that is not such an encoding is its own name.
fn unescape_name(escaped: &str) -> String {
    let decode = || {
        let mut rest = escaped.strip_prefix("U__")?;
        let mut out = String::new();
        while let Some(at) = rest.find('_') {
            let (plain, tail) = rest.split_at_checked(at)?;
            out.push_str(plain);
            let tail = tail.strip_prefix('_')?;
            if let Some(tail) = tail.strip_prefix('_') {
                out.push('_');
                rest = tail;
                continue;
            }
            let (digits, tail) = tail.split_once('_')?;
            if 6 < digits.len() {
                return None;
            }
            out.push(char::from_u32(u32::from_str_radix(digits, 16).ok()?)?);
            rest = tail;
        }
        out.push_str(rest);
        Some(out)
    };
    decode().unwrap_or_else(|| escaped.to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_unescaped() {
        for (escaped, name) in [
            ("U__a_2e_b", "a.b"),
            ("U__a__b", "a_b"),
            ("U___1f525_", "🔥"),
            ("U__a_zz_", "U__a_zz_"),
            ("U__a_2e", "U__a_2e"),
        ] {
            assert_eq!(unescape_name(escaped), name, "{escaped}");
        }
    }

    proptest! {
        #[test]
        fn any_name_is_fine(text in "U__[a-f0-9_é]{0,20}") {
            let _ = unescape_name(&text);
        }
    }
}
