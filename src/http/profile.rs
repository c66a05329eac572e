//! `/debug/pprof/*`: where the process spends its time and its memory, in the format that `go tool pprof` opens. Off unless
//! `--watchfire.web.enable-pprof` is given, and nothing is sampled without it. Processor time is sampled while its profile is
//! taken, one at a time; memory from the start on.

mod heap;
mod threads;
mod wire;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::web;
use pprof::{ProfilerGuard, ProfilerGuardBuilder, Report};

use self::heap::Snapshot;
use self::wire::{Frame, Writer};
use crate::http::error::ApiError;
use crate::http::request::Context;
use crate::http::response::{Response, TEXT};
use crate::telemetry::allocator::AllocatorError;

/// Samples in a second of processor time, as in Go.
const FREQUENCY: i32 = 100;
/// Seconds that a profile takes unless it is told.
const SECONDS: u64 = 30;
/// Seconds that it takes at most.
const SECONDS_MAX: u64 = 300;
/// Libraries whose stacks are not walked: a signal may come while they hold what walking needs.
const NOT_WALKED: [&str; 4] = ["libc", "libgcc", "pthread", "vdso"];

/// What is there, for people and for who asks for something else.
const INDEX: &str = "\
/debug/pprof/profile?seconds=N  time spent on processors
/debug/pprof/heap               memory in use, by who allocated it; with ?seconds=N what changes in that time
/debug/pprof/allocs             the same, all that was ever allocated first
/debug/pprof/goroutine          threads, which stand for goroutines, by name; with ?debug=1 one by one
/debug/pprof/threadcreate       the same
/debug/pprof/cmdline            the command line
";

/// Whether a profile is being taken: of time, of memory.
static IS_TAKEN: [AtomicBool; 2] = [AtomicBool::new(false), AtomicBool::new(false)];
const TIME: usize = 0;
const MEMORY: usize = 1;

/// Processor time of this process is being sampled.
pub(crate) struct Sampling(ProfilerGuard<'static>);

impl Sampling {
    /// Begins; errors if it is being sampled already.
    pub(crate) fn begin() -> std::io::Result<Self> {
        let guard = ProfilerGuardBuilder::default().frequency(FREQUENCY).blocklist(&NOT_WALKED).build();
        guard.map(Self).map_err(std::io::Error::other)
    }

    /// The profile since then, as `go tool pprof` opens it.
    pub(crate) fn finish(self) -> std::io::Result<Vec<u8>> {
        let report = self.0.report().build().map_err(std::io::Error::other)?;
        drop(self.0);
        encode(&report)
    }
}

/// The right to take a profile.
struct Turn(&'static AtomicBool);

impl Turn {
    fn take(kind: usize) -> Option<Self> {
        let is_taken = IS_TAKEN.get(kind)?;
        (!is_taken.swap(true, Ordering::AcqRel)).then_some(Self(is_taken))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// `GET /debug/pprof/`.
pub(super) async fn index(context: Context) -> Result<Response, ApiError> {
    if !context.state.settings.enable_pprof {
        return Ok(Response::not_found());
    }
    Ok(Response::text(StatusCode::OK, INDEX))
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
        "heap" => memory(&context, "heap", "inuse_space").await,
        "allocs" => memory(&context, "allocs", "alloc_space").await,
        name @ ("goroutine" | "threadcreate" | "threads") => match context.params.get("debug") {
            "" | "0" => Ok(attached(name, threads::profile())),
            _ => Ok(Response::ok(TEXT, threads::text())),
        },
        name @ ("block" | "mutex" | "trace" | "fgprof") => {
            let text = format!("there is no profile {name} of this program; there are:\n\n{INDEX}");
            Ok(Response::error(StatusCode::NOT_IMPLEMENTED, text.trim_end()))
        }
        name => Ok(Response::error(StatusCode::NOT_FOUND, &format!("Unknown profile: {name}"))),
    }
}

/// The parameter `seconds`; the error is the answer.
fn seconds(text: &str) -> Result<Option<u64>, Response> {
    match text.parse() {
        _ if text.is_empty() => Ok(None),
        Ok(0) => Ok(None),
        Ok(seconds) if seconds <= SECONDS_MAX => Ok(Some(seconds)),
        _ => {
            let text = format!("seconds must be a number up to {SECONDS_MAX}");
            Err(Response::error(StatusCode::BAD_REQUEST, &text))
        }
    }
}

fn attached(name: &str, written: std::io::Result<Vec<u8>>) -> Response {
    match written {
        Ok(body) => {
            let response = Response::ok("application/octet-stream", body);
            response.with("Content-Disposition", format!("attachment; filename=\"{name}\""))
        }
        Err(error) => Response::error(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

async fn profile(text: &str) -> Result<Response, ApiError> {
    let seconds = match seconds(text) {
        Ok(seconds) => seconds.unwrap_or(SECONDS),
        Err(refusal) => return Ok(refusal),
    };
    let cannot = |why: &str| {
        Ok(Response::error(StatusCode::INTERNAL_SERVER_ERROR, &format!("Could not enable CPU profiling: {why}")))
    };
    let Some(turn) = Turn::take(TIME) else { return cannot("cpu profiling already in use") };
    // It waits on a thread of the HTTP library's pool for the sampling, never on one that serves.
    let sampling = match Sampling::begin() {
        Ok(sampling) => sampling,
        Err(error) => return cannot(&error.to_string()),
    };
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let written = web::block(move || {
        let _turn = turn;
        sampling.finish()
    });
    Ok(attached("profile", written.await.map_err(std::io::Error::other).and_then(|written| written)))
}

/// A profile of memory: since the start, or what changes in some seconds.
async fn memory(context: &Context, name: &'static str, shown: &'static str) -> Result<Response, ApiError> {
    let seconds = match seconds(context.params.get("seconds")) {
        Ok(seconds) => seconds,
        Err(refusal) => return Ok(refusal),
    };
    let Some(turn) = Turn::take(MEMORY) else {
        return Ok(Response::error(StatusCode::SERVICE_UNAVAILABLE, "a profile of memory is being taken"));
    };
    let cannot = |error: &AllocatorError| {
        let status = match error {
            AllocatorError::NotSampling => StatusCode::NOT_IMPLEMENTED,
            AllocatorError::Refused { .. } | AllocatorError::Io(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Response::error(status, &error.to_string())
    };
    let gone = |error: actix_web::error::BlockingError| ApiError::internal(error.to_string());
    let as_text = !matches!(context.params.get("debug"), "" | "0");
    if as_text {
        let written = web::block(Snapshot::text).await.map_err(gone)?;
        return Ok(written.map_or_else(|error| cannot(&error), |text| Response::ok(TEXT, text)));
    }
    let mut before = None;
    if let Some(seconds) = seconds {
        match web::block(Snapshot::take).await.map_err(gone)? {
            Ok(snapshot) => before = Some(snapshot),
            Err(error) => return Ok(cannot(&error)),
        }
        tokio::time::sleep(Duration::from_secs(seconds)).await;
    }
    let written = web::block(move || {
        let _turn = turn;
        Snapshot::take().map(|snapshot| snapshot.profile(before.as_ref(), shown))
    });
    Ok(match written.await.map_err(gone)? {
        Ok(written) => attached(name, written),
        Err(error) => cannot(&error),
    })
}

fn encode(report: &Report) -> std::io::Result<Vec<u8>> {
    let period_nanos = 1_000_000_000 / FREQUENCY.unsigned_abs();
    let mut writer = Writer::new(&[("samples", "count"), ("cpu", "nanoseconds")]);
    for (frames, count) in &report.data {
        let place = |symbol: &pprof::Symbol| Frame {
            name: symbol.name(),
            system_name: symbol.sys_name().into_owned(),
            file: symbol.filename().into_owned(),
            line: symbol.lineno(),
        };
        let stack: Vec<u64> = frames.frames.iter().flatten().map(|symbol| writer.location(&[place(symbol)])).collect();
        let count = i64::try_from(*count).unwrap_or(0);
        let values = [count, count.saturating_mul(i64::from(period_nanos))];
        writer.sample(&stack, &values, &[("thread", &frames.thread_name)]);
    }
    let timing = &report.timing;
    writer.finish(timing.start_time, timing.duration, ("cpu", "nanoseconds", u64::from(period_nanos)), "")
}
