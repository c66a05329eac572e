//! Classic histograms turned into native ones with listed bounds while a body is read
//! (`convert_classic_histograms_to_nhcb`).
//!
//! The series of one histogram stand together. Its parts are collected until another series or family comes; then the native
//! series is read like one of protobuf, known again by its packed name and labels.
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

use std::borrow::Cow;

use crate::exposition::float::parse_float;
use crate::exposition::packed;
use crate::exposition::text::{FamilyKind, SeriesLine, TextParser};
use crate::model::append::HistogramValue;
use crate::model::exemplar::Exemplar;
use crate::model::histogram::classic::ClassicHistogram;
use crate::model::labels::{BUCKET, METRIC_NAME};

/// Parts of the histogram that is being read.
#[derive(Debug, Default)]
pub(super) struct Collector {
    /// Name of the family whose type was told last.
    family: Vec<u8>,
    state: State,
    /// The native series that the parts make: packed name and labels.
    series: Vec<u8>,
    parts: ClassicHistogram,
    /// One of the parts was no good.
    is_broken: bool,
    timestamp_ms: Option<i64>,
    start_ms: Option<i64>,
    /// Those of the parts.
    exemplars: Vec<Exemplar>,
    /// Of the series at hand: its native series, packed.
    candidate: Vec<u8>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Idle,
    /// There are parts of `series`.
    Collecting,
    /// `series` came as an exponential histogram: its classic part is not converted.
    Inhibited,
}

/// A histogram that is whole.
pub(super) struct Converted {
    pub(super) series: Vec<u8>,
    pub(super) histogram: HistogramValue,
    pub(super) timestamp_ms: Option<i64>,
    pub(super) start_ms: Option<i64>,
    pub(super) exemplars: Vec<Exemplar>,
}

/// What a series is to the collector.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Part {
    /// No part of a classic histogram of the family.
    None,
    Bucket(f64),
    Count,
    Sum,
}

impl Collector {
    /// A family begins.
    pub(super) fn begin_family(&mut self, name: &[u8]) {
        name.clone_into(&mut self.family);
    }

    /// True while there are parts.
    pub(super) fn is_collecting(&self) -> bool {
        self.state == State::Collecting
    }

    /// A native histogram came for a series, packed: its classic part, which follows, is left alone.
    pub(super) fn inhibit(&mut self, series: &[u8]) {
        // Labels may be in another order than they will be in the classic part.
        let mut pairs: Vec<(Cow<'_, str>, Cow<'_, str>)> = Vec::new();
        let Some(name) = unpack(series, &mut pairs) else { return };
        pack(&name, &mut pairs, &mut self.series);
        self.state = State::Inhibited;
    }

    /// Looks at a series: says what part it is, and whether the parts collected so far are of another one.
    pub(super) fn look(&mut self, raw: &[u8], kind: FamilyKind) -> (Part, bool) {
        if kind != FamilyKind::Histogram {
            return (Part::None, self.state == State::Collecting);
        }
        let mut pairs: Vec<(Cow<'_, str>, Cow<'_, str>)> = Vec::with_capacity(16);
        let name = match unpack(raw, &mut pairs) {
            Some(name) => name,
            None => {
                TextParser::new().series_labels(raw, kind, &mut pairs);
                match pairs.iter().position(|(name, _)| name == METRIC_NAME) {
                    Some(at) => pairs.remove(at).1,
                    None => return (Part::None, self.state == State::Collecting),
                }
            }
        };
        let suffixes = [("_bucket", Part::Bucket(f64::NAN)), ("_sum", Part::Sum), ("_count", Part::Count)];
        let found = suffixes.iter().find_map(|(suffix, part)| Some((name.strip_suffix(suffix)?, *part)));
        let (base, part) = found.unwrap_or((&name, Part::None));
        let bound = pairs.iter().find(|(label, _)| label == BUCKET).and_then(|(_, le)| parse_float(le.as_bytes()).ok());
        let part = match part {
            Part::Bucket(_) => bound.filter(|bound| !bound.is_nan()).map_or(Part::None, Part::Bucket),
            part => part,
        };
        let part = if base.as_bytes() == self.family { part } else { Part::None };
        let base = base.to_owned();
        pairs.retain(|(label, _)| label != BUCKET);
        pack(&base, &mut pairs, &mut self.candidate);
        let is_other = self.candidate != self.series;
        match self.state {
            State::Collecting => (part, is_other),
            State::Inhibited if !is_other => (Part::None, false),
            State::Inhibited | State::Idle => (part, false),
        }
    }

    /// Takes the part that [`Self::look`] found with its exemplar, after what was collected for another series has been taken out.
    pub(super) fn take_part(&mut self, part: Part, line: &SeriesLine<'_>, exemplar: Option<Exemplar>) {
        let value = line.value;
        if self.state != State::Collecting {
            self.state = State::Collecting;
            self.series.clone_from(&self.candidate);
            self.parts = ClassicHistogram::default();
            self.is_broken = false;
            self.start_ms = line.start_ms;
            self.exemplars.clear();
        }
        self.exemplars.extend(exemplar);
        self.timestamp_ms = line.timestamp_ms;
        let taken = match part {
            Part::None => Ok(()),
            Part::Bucket(bound) => self.parts.set_bucket(bound, value),
            Part::Count => self.parts.set_count(value),
            Part::Sum => {
                self.parts.set_sum(value);
                Ok(())
            }
        };
        self.is_broken |= taken.is_err();
    }

    /// A `_created` line tells when the histogram that is being collected has begun to count, if it is one of its labels.
    pub(super) fn take_created(&mut self, raw: &[u8], start_ms: i64) {
        if self.state != State::Collecting {
            return;
        }
        let mut pairs: Vec<(Cow<'_, str>, Cow<'_, str>)> = Vec::with_capacity(16);
        TextParser::new().series_labels(raw, FamilyKind::Unknown, &mut pairs);
        pairs.retain(|(label, _)| label != METRIC_NAME);
        let Ok(family) = std::str::from_utf8(&self.family) else { return };
        pack(family, &mut pairs, &mut self.candidate);
        if self.candidate == self.series {
            self.start_ms = Some(start_ms);
        }
    }

    /// Ends the collection; the histogram, if its parts make one. As in Prometheus, one that is no good is left out silently.
    pub(super) fn end(&mut self) -> Option<Converted> {
        if self.state != State::Collecting {
            return None;
        }
        self.state = State::Idle;
        let parts = std::mem::take(&mut self.parts);
        if self.is_broken {
            return None;
        }
        let histogram = parts.convert().ok().filter(|histogram| histogram.validate().is_ok())?;
        Some(Converted {
            series: self.series.clone(),
            histogram,
            timestamp_ms: self.timestamp_ms,
            start_ms: self.start_ms,
            exemplars: std::mem::take(&mut self.exemplars),
        })
    }
}

/// Splits a packed series into its name and labels; `None` for a text line.
fn unpack<'a>(raw: &'a [u8], pairs: &mut Vec<(Cow<'a, str>, Cow<'a, str>)>) -> Option<Cow<'a, str>> {
    let mut parts = packed::parts(raw)?;
    let name = parts.next()?;
    while let (Some(label), Some(value)) = (parts.next(), parts.next()) {
        pairs.push((Cow::Borrowed(label), Cow::Borrowed(value)));
    }
    Some(Cow::Borrowed(name))
}

fn pack(name: &str, pairs: &mut [(Cow<'_, str>, Cow<'_, str>)], out: &mut Vec<u8>) {
    pairs.sort();
    packed::start(out, name.as_bytes(), b"");
    for (label, value) in pairs.iter() {
        packed::push(out, label.as_bytes());
        packed::push(out, value.as_bytes());
    }
}
