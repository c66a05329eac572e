//! `/api/v1/status/{config,flags,buildinfo,runtimeinfo}`.

use crate::http::api::types::UnixNanos;
use crate::http::envelope;
use crate::http::error::ApiError;
use crate::http::json::Json;
use crate::http::request::Context;
use crate::http::response::Response;
use crate::telemetry::{build_info, limits, process};

/// `GET /api/v1/status/config`.
pub(crate) async fn config(context: Context) -> Result<Response, ApiError> {
    let yaml = context.state.ports.config_yaml().await?;
    Ok(envelope::data(|json| {
        let mut object = json.object();
        object.string("yaml", &yaml);
        object.end();
    }))
}

/// `GET /api/v1/status/flags`.
pub(crate) async fn flags(context: Context) -> Result<Response, ApiError> {
    let flags = context.state.ports.flags();
    Ok(envelope::data(|json| {
        let mut object = json.object();
        for (name, value) in &flags {
            object.string(name, value);
        }
        object.end();
    }))
}

/// `GET /api/v1/status/buildinfo`.
pub(crate) async fn build(_: Context) -> Result<Response, ApiError> {
    Ok(envelope::data(write_build))
}

/// The build information, which `/version` shows without an envelope.
pub(crate) fn write_build(json: &mut Json) {
    let mut object = json.object();
    object
        .string("version", build_info::COMPATIBLE_VERSION)
        .string("revision", build_info::REVISION)
        .string("branch", build_info::BRANCH)
        .string("buildUser", "")
        .string("buildDate", "")
        .string("goVersion", build_info::LANGUAGE);
    object.end();
}

/// `GET /api/v1/status/runtimeinfo`.
pub(crate) async fn runtime(context: Context) -> Result<Response, ApiError> {
    let runtime = context.state.ports.runtime().await?;
    let folder = std::env::current_dir()
        .map_or_else(|_| "<error retrieving current working directory>".to_owned(), |path| path.display().to_string());
    let hostname = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let memory = limits::memory_limit().map_or(i64::MAX, |(bytes, _)| i64::try_from(bytes).unwrap_or(i64::MAX));
    let count = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    Ok(envelope::data(|json| {
        let mut object = json.object();
        object
            .time("startTime", Some(runtime.start_time))
            .string("CWD", &folder)
            .string("hostname", &hostname)
            .time("serverTime", Some(UnixNanos(context.state.clock.unix_nanos())))
            .bool("reloadConfigSuccess", runtime.reload_success)
            .time("lastConfigTime", runtime.last_config_time.map(whole_seconds))
            .integer("corruptionCount", runtime.corruption_count)
            .integer("goroutineCount", count(process::thread_count()))
            .integer("GOMAXPROCS", count(limits::cpu_count() as u64))
            .integer("GOMEMLIMIT", memory)
            .string("GOGC", "")
            .string("GODEBUG", "")
            .string("storageRetention", &runtime.storage_retention);
        object.end();
    }))
}

/// The metric from which Prometheus takes the time counts in seconds.
fn whole_seconds(at: UnixNanos) -> UnixNanos {
    UnixNanos(at.0 - at.0.rem_euclid(1_000_000_000))
}
