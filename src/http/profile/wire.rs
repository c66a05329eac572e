//! The format of profiles that `go tool pprof` opens.
//!
//! ```text
//! Profile  { 1 sample_type, 2 sample …, 4 location …, 5 function …, 6 string_table …, 9 time_nanos, 10 duration_nanos,
//!            11 period_type, 12 period, 14 default_sample_type }
//! Sample   { 1 location_id packed, 2 value packed, 3 label … }     Location { 1 id, 4 line … }     Line { 1 function_id, 2 line }
//! Function { 1 id, 2 name, 3 system_name, 4 filename }             ValueType { 1 type, 2 unit }    Label { 1 key, 2 str }
//! ```

use std::collections::HashMap;
use std::io::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use flate2::Compression;
use flate2::write::GzEncoder;

/// A function at a line of its file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Frame {
    pub(super) name: String,
    pub(super) system_name: String,
    pub(super) file: String,
    pub(super) line: u32,
}

/// A profile that is being written.
pub(super) struct Writer {
    texts: HashMap<String, u64>,
    listed: Vec<String>,
    functions: HashMap<(u64, u64), u64>,
    places: HashMap<Vec<(u64, u32)>, u64>,
    types: Vec<u8>,
    samples: Vec<u8>,
    locations: Vec<u8>,
    named: Vec<u8>,
}

impl Writer {
    /// A profile whose samples have values of these types and units.
    pub(super) fn new(types: &[(&str, &str)]) -> Self {
        let mut writer = Self {
            texts: HashMap::from([(String::new(), 0)]),
            listed: vec![String::new()],
            functions: HashMap::new(),
            places: HashMap::new(),
            types: Vec::new(),
            samples: Vec::new(),
            locations: Vec::new(),
            named: Vec::new(),
        };
        for (kind, unit) in types {
            let fields = [(1, writer.text(kind)), (2, writer.text(unit))];
            put_message(&mut writer.types, 1, &numbers(&fields));
        }
        writer
    }

    fn text(&mut self, text: &str) -> u64 {
        if let Some(number) = self.texts.get(text) {
            return *number;
        }
        let number = self.listed.len() as u64;
        self.texts.insert(text.to_owned(), number);
        self.listed.push(text.to_owned());
        number
    }

    fn function(&mut self, frame: &Frame) -> u64 {
        let (name, file) = (self.text(&frame.name), self.text(&frame.file));
        if let Some(number) = self.functions.get(&(name, file)) {
            return *number;
        }
        let number = self.functions.len() as u64 + 1;
        let fields = [(1, number), (2, name), (3, self.text(&frame.system_name)), (4, file)];
        put_message(&mut self.named, 5, &numbers(&fields));
        self.functions.insert((name, file), number);
        number
    }

    /// The number of a place in the program: a frame with those into which it was inlined, innermost first.
    pub(super) fn location(&mut self, frames: &[Frame]) -> u64 {
        let lines: Vec<(u64, u32)> = frames.iter().map(|frame| (self.function(frame), frame.line)).collect();
        let next = self.places.len() as u64 + 1;
        let Some(number) = self.places.get(&lines) else {
            let mut location = numbers(&[(1, next)]);
            for (function, line) in &lines {
                put_message(&mut location, 4, &numbers(&[(1, *function), (2, u64::from(*line))]));
            }
            put_message(&mut self.locations, 4, &location);
            self.places.insert(lines, next);
            return next;
        };
        *number
    }

    /// Adds a sample: its places, innermost first, its values in the order of their types, and its labels.
    pub(super) fn sample(&mut self, stack: &[u64], values: &[i64], labels: &[(&str, &str)]) {
        let packed = |values: &mut dyn Iterator<Item = u64>| {
            let mut out = Vec::new();
            values.for_each(|value| put_varint(&mut out, value));
            out
        };
        let mut sample = Vec::new();
        put_message(&mut sample, 1, &packed(&mut stack.iter().copied()));
        put_message(&mut sample, 2, &packed(&mut values.iter().map(|value| value.cast_unsigned())));
        for (key, value) in labels {
            let fields = [(1, self.text(key)), (2, self.text(value))];
            put_message(&mut sample, 3, &numbers(&fields));
        }
        put_message(&mut self.samples, 2, &sample);
    }

    /// The whole profile, compressed. `period` is the type, unit and distance of samples; `shown` is the type of values that is
    /// shown if nobody asks for another, or empty.
    pub(super) fn finish(
        mut self,
        began: SystemTime,
        took: Duration,
        (kind, unit, period): (&str, &str, u64),
        shown: &str,
    ) -> std::io::Result<Vec<u8>> {
        let (kind, unit, shown) = (self.text(kind), self.text(unit), self.text(shown));
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let began = began.duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut out = [self.types, self.samples, self.locations, self.named].concat();
        self.listed.iter().for_each(|text| put_message(&mut out, 6, text.as_bytes()));
        out.extend(numbers(&[(9, nanos(began)), (10, nanos(took))]));
        put_message(&mut out, 11, &numbers(&[(1, kind), (2, unit)]));
        out.extend(numbers(&[(12, period), (14, shown)]));
        let mut encoder = GzEncoder::new(Vec::new(), Compression::new(3));
        encoder.write_all(&out)?;
        encoder.finish()
    }
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while 0x80 <= value {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn numbers(fields: &[(u8, u64)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (field, value) in fields {
        put_varint(&mut out, u64::from(*field) << 3);
        put_varint(&mut out, *value);
    }
    out
}

fn put_message(out: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    put_varint(out, u64::from(field) << 3 | 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}
