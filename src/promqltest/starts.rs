//! Lines of start timestamps in `load`: `metric{labels}@st -1m -30s+10sx3 _ _x2`, one offset from its sample each.

use crate::model::duration::PromDuration;
use crate::model::labels::Labels;
use crate::promql::parser::{SEQUENCE_LEN_MAX, SeriesDescription, parse_series_desc};

/// A line of start timestamps; the line behind it has the samples.
pub(crate) struct StartLine {
    labels: Labels,
    offsets_ms: Vec<Option<i64>>,
}

impl StartLine {
    /// Parses a line; `None` if it is another one.
    pub(crate) fn parse(line: &str) -> Option<Result<Self, String>> {
        let (head, offsets) = line.trim().split_once([' ', '\t'])?;
        let metric = head.strip_suffix("@st")?;
        Some(Self::parse_parts(metric, offsets))
    }

    fn parse_parts(metric: &str, offsets: &str) -> Result<Self, String> {
        let labels = parse_series_desc(&format!("{metric} _"))
            .map_err(|error| format!("invalid @st line metric {metric:?}: {error}"))?
            .labels;
        let mut offsets_ms = Vec::new();
        for item in offsets.split_whitespace() {
            let (values, step_ms, count) =
                parse_item(item).map_err(|error| format!("invalid @st sequence: invalid ST item {item:?}: {error}"))?;
            if SEQUENCE_LEN_MAX < count.saturating_add(offsets_ms.len() as u64) {
                return Err(format!("@st line stands for more than {SEQUENCE_LEN_MAX} values"));
            }
            let mut offset_ms = values;
            for _ in 0..count {
                offsets_ms.push(offset_ms);
                offset_ms = offset_ms.map(|offset_ms| offset_ms.saturating_add(step_ms));
            }
        }
        Ok(Self { labels, offsets_ms })
    }

    /// The offsets, if this line belongs to the series.
    pub(crate) fn for_series(self, series: &SeriesDescription) -> Result<Vec<Option<i64>>, String> {
        if series.labels != self.labels {
            return Err("@st metric does not match the following sample line metric".to_owned());
        }
        let (starts, samples) = (self.offsets_ms.len(), series.values.len());
        if starts != samples {
            return Err(format!("@st line has {starts} values but sample line has {samples}"));
        }
        Ok(self.offsets_ms)
    }
}

/// First offset, its growth, and how often.
fn parse_item(item: &str) -> Result<(Option<i64>, i64, u64), String> {
    if item == "_" {
        return Ok((None, 0, 1));
    }
    if let Some(count) = item.strip_prefix("_x") {
        let count: u64 = count.parse().ok().filter(|count| *count > 0).ok_or("invalid repeat count")?;
        return Ok((None, 0, count));
    }
    let (base_ms, rest) = duration_prefix(item)?;
    let repeats = |text: &str| text.parse::<u64>().map_err(|_| "invalid repeat count".to_owned());
    if rest.is_empty() {
        return Ok((Some(base_ms), 0, 1));
    }
    if let Some(count) = rest.strip_prefix('x') {
        return Ok((Some(base_ms), 0, repeats(count)?.saturating_add(1)));
    }
    if !rest.starts_with(['+', '-']) {
        return Err("unexpected text after duration".to_owned());
    }
    let (step_ms, rest) = duration_prefix(rest)?;
    let count = rest.strip_prefix('x').ok_or("expected 'x<count>' after step duration")?;
    Ok((Some(base_ms), step_ms, repeats(count)?.saturating_add(1)))
}

/// A duration in milliseconds, with or without a sign, and what follows.
fn duration_prefix(text: &str) -> Result<(i64, &str), String> {
    let (sign, body) = match text.strip_prefix('-') {
        Some(body) => (-1, body),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let is_part = |c: char| c.is_ascii_digit() || "ywdhms".contains(c);
    let end = body.find(|c| !is_part(c)).unwrap_or(body.len());
    let (duration, rest) = body.split_at(end);
    let parsed = PromDuration::parse(duration).map_err(|error| error.to_string())?;
    Ok((sign * parsed.as_ms_i64(), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_repeat_and_grow() {
        let line = StartLine::parse("x{a=\"b\"}@st _ _x2 -30s 1m-1mx2 0x1").unwrap().unwrap();
        let expected = [None, None, None, Some(-30_000), Some(60_000), Some(0), Some(-60_000), Some(0), Some(0)];
        assert_eq!(
            (line.labels.metric_name(), line.labels.get("a"), line.offsets_ms.as_slice()),
            ("x", Some("b"), &expected[..])
        );
        assert!(StartLine::parse("x 1 2").is_none());
        assert!(StartLine::parse("x@st 5").unwrap().is_err());
        assert!(StartLine::parse("x@st 1m+1m").unwrap().is_err());
    }

    #[test]
    fn a_line_belongs_to_its_series() {
        let starts = || StartLine::parse("x@st 0 0").unwrap().unwrap();
        assert!(starts().for_series(&parse_series_desc("x 1 2").unwrap()).is_ok());
        assert!(starts().for_series(&parse_series_desc("x 1").unwrap()).is_err());
        assert!(starts().for_series(&parse_series_desc("y 1 2").unwrap()).is_err());
    }
}
