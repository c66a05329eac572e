//! `/debug/pprof/*`: where the process spends its time, in the format that `go tool pprof` opens. Off unless
//! `--watchfire.web.enable-pprof` is given. One profile is taken at a time; nothing is sampled while none is.
//!
//! ```text
//! Profile  { 1 sample_type, 2 sample …, 4 location …, 5 function …, 6 string_table …, 9 time_nanos, 10 duration_nanos,
//!            11 period_type, 12 period }
//! Sample   { 1 location_id packed, 2 value packed, 3 label … }     Location { 1 id, 4 line … }     Line { 1 function_id, 2 line }
//! Function { 1 id, 2 name, 3 system_name, 4 filename }             ValueType { 1 type, 2 unit }    Label { 1 key, 2 str }
//! ```

use std::collections::HashMap;
use std::io::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::web;
use flate2::Compression;
use flate2::write::GzEncoder;
use pprof::{ProfilerGuardBuilder, Report};

use crate::http::error::ApiError;
use crate::http::request::Context;
use crate::http::response::{Response, TEXT};

/// Samples in a second of processor time, as in Go.
const FREQUENCY: i32 = 100;
/// Seconds that a profile takes unless it is told.
const SECONDS: u64 = 30;
/// Seconds that it takes at most.
const SECONDS_MAX: u64 = 300;
/// Libraries whose stacks are not walked: a signal may come while they hold what walking needs.
const NOT_WALKED: [&str; 4] = ["libc", "libgcc", "pthread", "vdso"];

/// Whether a profile is being taken.
static IS_TAKEN: AtomicBool = AtomicBool::new(false);

/// The right to take a profile.
struct Turn;

impl Turn {
    fn take() -> Option<Self> {
        (!IS_TAKEN.swap(true, Ordering::AcqRel)).then_some(Self)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        IS_TAKEN.store(false, Ordering::Release);
    }
}

/// `GET /debug/pprof/`.
pub(super) async fn index(context: Context) -> Result<Response, ApiError> {
    if !context.state.settings.enable_pprof {
        return Ok(Response::not_found());
    }
    let text = "/debug/pprof/profile?seconds=N  time spent on processors\n/debug/pprof/cmdline  the command line\n";
    Ok(Response::text(StatusCode::OK, text))
}

/// `GET /debug/pprof/<name>`.
pub(super) async fn named(context: Context) -> Result<Response, ApiError> {
    if !context.state.settings.enable_pprof {
        return Ok(Response::not_found());
    }
    match context.path_parameter.as_deref().unwrap_or_default() {
        "profile" => profile(context.params.get("seconds")).await,
        "cmdline" => Ok(Response::ok(TEXT, std::env::args().collect::<Vec<_>>().join("\0"))),
        "symbol" => Ok(Response::ok(TEXT, "num_symbols: 0\n")),
        "heap" | "allocs" | "goroutine" | "block" | "mutex" | "threadcreate" | "trace" | "fgprof" => {
            Ok(Response::error(StatusCode::NOT_IMPLEMENTED, "this profile is not taken here"))
        }
        name => Ok(Response::error(StatusCode::NOT_FOUND, &format!("Unknown profile: {name}"))),
    }
}

async fn profile(seconds: &str) -> Result<Response, ApiError> {
    let seconds = match seconds {
        "" => SECONDS,
        text => match text.parse() {
            Ok(0) => SECONDS,
            Ok(seconds) if seconds <= SECONDS_MAX => seconds,
            _ => {
                let text = format!("seconds must be a number up to {SECONDS_MAX}");
                return Ok(Response::error(StatusCode::BAD_REQUEST, &text));
            }
        },
    };
    let cannot = |why: &str| {
        Ok(Response::error(StatusCode::INTERNAL_SERVER_ERROR, &format!("Could not enable CPU profiling: {why}")))
    };
    let Some(turn) = Turn::take() else { return cannot("cpu profiling already in use") };
    // It waits on a thread of the HTTP library's pool for the sampling, never on one that serves.
    let guard = match ProfilerGuardBuilder::default().frequency(FREQUENCY).blocklist(&NOT_WALKED).build() {
        Ok(guard) => guard,
        Err(error) => return cannot(&error.to_string()),
    };
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let written = web::block(move || {
        let _turn = turn;
        let report = guard.report().build().map_err(|error| error.to_string())?;
        drop(guard);
        packed(&encode(&report)).map_err(|error| error.to_string())
    });
    match written.await.map_err(|error| error.to_string()).and_then(|written| written) {
        Ok(body) => {
            let response = Response::ok("application/octet-stream", body);
            Ok(response.with("Content-Disposition", "attachment; filename=\"profile\""))
        }
        Err(error) => cannot(&error),
    }
}

fn packed(message: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::new(3));
    encoder.write_all(message)?;
    encoder.finish()
}

/// Texts, each once, by number; the first is empty.
struct Texts {
    numbers: HashMap<String, u64>,
    listed: Vec<String>,
}

impl Texts {
    fn number(&mut self, text: &str) -> u64 {
        if let Some(number) = self.numbers.get(text) {
            return *number;
        }
        let number = self.listed.len() as u64;
        self.numbers.insert(text.to_owned(), number);
        self.listed.push(text.to_owned());
        number
    }
}

fn encode(report: &Report) -> Vec<u8> {
    let mut texts = Texts { numbers: HashMap::from([(String::new(), 0)]), listed: vec![String::new()] };
    let (mut out, mut functions, mut places) = (Vec::new(), HashMap::new(), HashMap::new());
    let period_nanos = 1_000_000_000 / i64::from(FREQUENCY);
    for (kind, unit) in [("samples", "count"), ("cpu", "nanoseconds")] {
        let (kind, unit) = (texts.number(kind), texts.number(unit));
        put_message(&mut out, 1, &numbers(&[(1, kind), (2, unit)]));
    }
    let thread = texts.number("thread");
    let (mut samples, mut locations, mut named) = (Vec::new(), Vec::new(), Vec::new());
    for (frames, count) in &report.data {
        let mut stack = Vec::new();
        for symbol in frames.frames.iter().flatten() {
            let (name, file) = (symbol.name(), symbol.filename().into_owned());
            let next = functions.len() as u64 + 1;
            let function = *functions.entry((name.clone(), file.clone())).or_insert_with(|| {
                let fields = [
                    (1, next),
                    (2, texts.number(&name)),
                    (3, texts.number(&symbol.sys_name())),
                    (4, texts.number(&file)),
                ];
                put_message(&mut named, 5, &numbers(&fields));
                next
            });
            let next = places.len() as u64 + 1;
            let line = u64::from(symbol.lineno());
            let place = *places.entry((function, line)).or_insert_with(|| {
                let mut location = numbers(&[(1, next)]);
                put_message(&mut location, 4, &numbers(&[(1, function), (2, line)]));
                put_message(&mut locations, 4, &location);
                next
            });
            put_varint(&mut stack, place);
        }
        let count = i64::try_from(*count).unwrap_or(0);
        let mut values = Vec::new();
        put_varint(&mut values, count.cast_unsigned());
        put_varint(&mut values, count.saturating_mul(period_nanos).cast_unsigned());
        let mut sample = Vec::new();
        put_message(&mut sample, 1, &stack);
        put_message(&mut sample, 2, &values);
        let name = texts.number(&frames.thread_name);
        put_message(&mut sample, 3, &numbers(&[(1, thread), (2, name)]));
        put_message(&mut samples, 2, &sample);
    }
    let (cpu, nanoseconds) = (texts.number("cpu"), texts.number("nanoseconds"));
    out.extend(samples);
    out.extend(locations);
    out.extend(named);
    texts.listed.iter().for_each(|text| put_message(&mut out, 6, text.as_bytes()));
    let began = report.timing.start_time.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    out.extend(numbers(&[(9, nanos(began)), (10, nanos(report.timing.duration))]));
    put_message(&mut out, 11, &numbers(&[(1, cpu), (2, nanoseconds)]));
    out.extend(numbers(&[(12, period_nanos.unsigned_abs())]));
    out
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
