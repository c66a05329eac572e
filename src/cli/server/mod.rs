//! The server: who is started with what, in which order, and how it ends.
//!
//! Order that users observe, as in Prometheus: flags → configuration (exit 2) → listening (exit 1) → storage → ready. Targets are
//! scraped while storage opens; what they say waits for it. It ends by SIGTERM, SIGINT or `/-/quit`: everything drains, sources
//! first, within 30 s; a second signal ends it at once.

mod admin;
mod alerting;
mod alerting_external;
mod blocks;
mod discovery;
mod feature_list;
mod head_metrics;
pub(super) mod jobs;
mod parts;
mod ports;
mod reload;
mod remote;
mod remote_write;
mod rules;
mod running;
mod storage;
mod upkeep;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use futures::future::Either;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::actors::config_reloader::{RunReload, Trigger};
use crate::actors::remote_reads::repeated;
use crate::actors::root::RootEnd;
use crate::actors::threads;
use crate::cli::flags::ServerFlags;
use crate::cli::run_bare::{self, ConfigSource};
use crate::cli::sd_listen;
use crate::cli::sd_notify::{Notifier, State};
pub(in crate::cli) use crate::cli::server::jobs::defaults as target_defaults;
use crate::cli::server::parts::Parts;
use crate::cli::server::reload::{Checked, ConfigText, Planned, ServerReload};
use crate::cli::server::running::Running;
use crate::cli::signals::{Request, Signals};
use crate::cli::{EXIT_FAILURE, EXIT_USAGE};
use crate::client;
use crate::config::{LoadOptions, load_file, load_str};
use crate::http::notices::{Notice, Notices};
use crate::http::server::{HttpOptions, RunningServer, serve};
use crate::http::state::{HttpSettings, HttpState, Readiness, Ready};
use crate::model::clock::{SharedClock, SystemClock};
use crate::model::go_time;
use crate::telemetry::limits::{cpu_count, raise_file_limit};
use crate::telemetry::logging::{self, LogGuard};
use crate::telemetry::metrics::Registry;
use crate::telemetry::{allocator, build_info, process};

/// Longest time for which a client may take nothing of its answer.
const WRITE_WITHIN: Duration = Duration::from_secs(60);
/// Longest time that an orderly end may take.
const DRAIN_WITHIN: Duration = Duration::from_secs(30);

/// Why the server did not start; each is logged before the process ends.
#[derive(Debug, thiserror::Error)]
enum StartError {
    /// The configuration is not good.
    #[error("Error loading config (--config.file={file})")]
    Config {
        file: String,
        #[source]
        source: LoadError,
    },
    /// An address cannot be listened on.
    #[error(transparent)]
    Listen(#[from] crate::http::server::ServeError),
    /// What the service manager hands over is no socket to listen on.
    #[error("{0}")]
    Sockets(String),
    /// The data directory cannot be used.
    #[error("opening storage failed: {0}")]
    Storage(String),
    /// The log of queries cannot be written.
    #[error("{0}")]
    QueryLog(String),
    /// The system refuses something that the server cannot do without.
    #[error("cannot {action}: {source}")]
    System {
        action: &'static str,
        #[source]
        source: std::io::Error,
    },
}

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    /// It is not good.
    #[error(transparent)]
    Bad(#[from] crate::config::ConfigError),
    /// It asks for protection that is not built.
    #[error("{0}")]
    NotBuilt(String),
    /// Its destinations of remote write cannot be told apart.
    #[error("{0}")]
    Remote(String),
    /// It asks one remote storage twice for the same.
    #[error("{0}")]
    Repeated(String),
    /// `alertmanager.yml` is not good, or asks for what is not built.
    #[error("--alertmanager.config.file={file}: {reason}")]
    Alertmanager { file: String, reason: String },
}

impl StartError {
    /// Says it in the words that Prometheus has for it.
    fn log(&self) {
        match self {
            Self::Config { file, source } => {
                let path = std::path::absolute(file).map_or_else(|_| file.clone(), |path| path.display().to_string());
                tracing::error!(component = "main", file = path, err = %source, "{self}");
            }
            Self::Listen(error) => tracing::error!(component = "main", err = %error, "Unable to start web listener"),
            Self::Sockets(_) | Self::Storage(_) | Self::QueryLog(_) | Self::System { .. } => {
                tracing::error!(component = "main", err = %self, "Fatal error");
            }
        }
    }

    fn exit_code(&self) -> u8 {
        match self {
            Self::Config { .. } => EXIT_USAGE,
            Self::Listen(_) | Self::Sockets(_) | Self::Storage(_) | Self::QueryLog(_) | Self::System { .. } => {
                EXIT_FAILURE
            }
        }
    }
}

/// Runs the server until it is told to end.
pub fn run(flags: ServerFlags) -> ExitCode {
    let sampling = if flags.web.enable_pprof { allocator::sample_from_the_start() } else { Ok(()) };
    let registry = Registry::shared();
    let log = match logging::install(flags.log_format, flags.log_level) {
        Ok(log) => log,
        Err(error) => {
            use std::io::Write as _;
            let _ = writeln!(std::io::stderr(), "watchfire: {error}");
            return ExitCode::from(EXIT_FAILURE);
        }
    };
    log.register(&registry);
    crate::actors::panics::install_hook();
    #[cfg(debug_assertions)]
    let _armed = match crate::actors::failpoint::arm_from_env() {
        Ok(armed) => armed,
        Err(error) => {
            tracing::error!(component = "main", err = %error, "Bad failpoints");
            return ExitCode::from(EXIT_USAGE);
        }
    };
    if let Err(err) = sampling {
        tracing::warn!(component = "main", %err, "There are no profiles of memory");
    }
    build_info::register(&registry);
    process::register(&registry);
    // Prometheus's name for connections of nobody in particular.
    client::show_dialer(&registry, "default");
    let code = match threads::run(start(Arc::new(flags), registry)) {
        Ok(code) => code,
        Err(error) => {
            error.log();
            ExitCode::from(error.exit_code())
        }
    };
    flush(&log);
    code
}

fn flush(log: &LogGuard) {
    // A reader that does not take the last lines must not keep the process.
    let _ = log.flush();
}

/// Reads and checks a configuration with its rule files: a file, or `text` as if it stood in `file`.
fn load(flags: &ServerFlags, file: &str, text: Option<&str>) -> Result<Checked, LoadError> {
    let loaded = rules::with_checks(flags, |checks| {
        let options = LoadOptions {
            agent_mode: flags.agent.is_some(),
            defaults: jobs::flag_defaults(flags),
            rules: Some(checks),
            built_in_rules: if text.is_some() { &[run_bare::RULES] } else { &[] },
            ..LoadOptions::default()
        };
        match text {
            Some(text) => load_str(file, text, &options),
            None => load_file(file, &options),
        }
    })?;
    let inactive = jobs::check_built(&loaded).map_err(LoadError::NotBuilt)?;
    remote_write::check(&loaded).map_err(LoadError::Remote)?;
    storage::check_starts(flags, &loaded.config.storage).map_err(LoadError::NotBuilt)?;
    repeated(&loaded.config.remote_read).map_or(Ok(()), |text| Err(LoadError::Repeated(text)))?;
    let notifies = flags.alerts.config_file.as_deref();
    let digest = alerting::digest(notifies);
    let alertmanager = alerting::load(notifies).map_err(|reason| LoadError::Alertmanager {
        file: notifies.map(|file| file.display().to_string()).unwrap_or_default(),
        reason,
    })?;
    Ok(Checked { loaded, inactive, alertmanager, digest, query_log: None })
}

async fn start(flags: Arc<ServerFlags>, registry: Arc<Registry>) -> Result<ExitCode, StartError> {
    let system = |action| move |source| StartError::System { action, source };
    let mut signals = Signals::listen().map_err(system("listen for signals"))?;
    announce(&flags);
    let load = |text: &ConfigText| {
        text.load(&flags).map_err(|source| StartError::Config { file: text.name().to_owned(), source })
    };
    // A file that is no good ends the start before anything listens; the built-in one needs to know where we listen.
    let from_file = match &flags.config {
        ConfigSource::File(path) => {
            let text = ConfigText::File(path.to_string_lossy().into_owned());
            Some((load(&text)?, text))
        }
        ConfigSource::BuiltIn => None,
    };
    let clock = SystemClock::shared();
    let parts = Arc::new(Parts::start(&flags, &registry, &clock).map_err(system("start threads"))?);
    let running = Arc::new(Running::new(clock.as_ref(), &registry));
    let (quit, mut quit_asked) = watch::channel(false);
    let readiness = Readiness::new(&registry);
    let ports = parts.ports(&flags, &registry, &running, quit);
    let notices = Notices::new(flags.web.notification_listeners_max, SharedClock::clone(&clock), &registry);
    notices.add(Notice::StartingUp);
    let settings = http_settings(&flags);
    let for_http = SharedClock::clone(&clock);
    let state = HttpState::new(ports.clone(), readiness.clone(), settings, notices.clone(), for_http, &registry);
    let inherited = sd_listen::inherited().map_err(StartError::Sockets)?;
    let RunningServer { addresses, handle, finished } = serve(&http_options(&flags), inherited, state)?;
    let mut finished = actix_rt::spawn(finished);
    let own = addresses[0];
    let (checked, text) = match from_file {
        Some(loaded) => loaded,
        None => {
            banner(&flags, own);
            let text = ConfigText::BuiltIn(run_bare::config_text(own, &flags.web.route_prefix));
            (load(&text)?, text)
        }
    };
    parts.settle(&checked.loaded);
    let notifier = Notifier::from_environment().map_err(system("reach the service manager (NOTIFY_SOCKET)"))?;
    let reload = Arc::new(ServerReload {
        flags: Arc::clone(&flags),
        registry: Arc::clone(&registry),
        clock: SharedClock::clone(&clock),
        parts: Arc::clone(&parts),
        running: Arc::clone(&running),
        notifier,
        notices: notices.clone(),
        text,
    });
    let mut planned = reload.plan(checked);
    open_storage(&parts, &planned, &flags, &registry, &clock).await.map_err(StartError::Storage)?;
    let query_log = parts.open_query_log(&planned.checked.loaded);
    planned.checked.query_log = query_log.map_err(StartError::QueryLog)?;
    first_load(&reload, planned).await;
    let source = Arc::new(reload::Source(Arc::clone(&reload)));
    let reloader = parts.start_reloader(source, &clock, flags.auto_reload);
    // Nobody else sets it.
    let _ = ports.reloader.set(reloader.clone());
    readiness.set(Ready::Yes);
    notices.remove(Notice::StartingUp);
    let notifier = &reload.notifier;
    notifier.send(State::Ready, "Ready");
    tracing::info!(component = "main", "Server is ready to receive web requests.");
    let upkeep = actix_rt::spawn(parts.upkeep(&flags, &readiness).run());
    let mut alive = notifier.watchdog_interval().map(|interval| tokio::time::interval(interval / 2));
    let ended = loop {
        tokio::select! {
            request = signals.next() => match request {
                Request::Stop { signal } => {
                    tracing::warn!(component = "main", signal, "Received an OS signal, exiting gracefully...");
                    break Ok(());
                }
                Request::Reload => {
                    if let Err(err) = reloader.addr.try_tell(RunReload { trigger: Trigger::Signal }) {
                        tracing::error!(component = "main", %err, "Error reloading config");
                    }
                }
            },
            _ = quit_asked.wait_for(|asked| *asked) => {
                tracing::warn!(component = "main", "Received termination request via web service, exiting gracefully...");
                break Ok(());
            }
            result = &mut finished => {
                tracing::error!(component = "web", ?result, "The HTTP server has ended");
                break Err(());
            }
            () = parts.root_failed() => break Err(()),
            () = pulse(&mut alive, &parts) => notifier.send(State::Alive, ""),
        }
    };
    upkeep.abort();
    readiness.set(Ready::Stopping);
    notices.add(Notice::ShuttingDown);
    notices.close();
    notifier.send(State::Stopping, "Stopping");
    let deadline = Instant::now() + DRAIN_WITHIN;
    parts.root().drain(deadline);
    tokio::select! {
        end = parts.root().end() => {
            if let RootEnd::Drained(unfinished) = &end && !unfinished.is_empty() {
                tracing::warn!(component = "main", ?unfinished, "Some actors did not end in time");
            }
        }
        request = signals.next() => {
            tracing::warn!(component = "main", ?request, "Received a second signal, exiting at once");
            return Ok(ExitCode::from(EXIT_FAILURE));
        }
        () = tokio::time::sleep_until(deadline) => {}
    }
    tokio::select! {
        () = handle.stop(true) => {}
        _ = signals.next() => return Ok(ExitCode::from(EXIT_FAILURE)),
    }
    tokio::select! {
        () = parts.close_storage(&flags) => {}
        _ = signals.next() => return Ok(ExitCode::from(EXIT_FAILURE)),
    }
    tracing::info!(component = "main", "See you next time!");
    Ok(if ended.is_ok() { ExitCode::SUCCESS } else { ExitCode::from(EXIT_FAILURE) })
}

/// Opens storage, and scrapes meanwhile: what the log holds may take minutes to read.
async fn open_storage(
    parts: &Parts,
    planned: &Planned,
    flags: &ServerFlags,
    registry: &Arc<Registry>,
    clock: &SharedClock,
) -> Result<(), String> {
    let (opening, scraping) = (parts.open_storage(flags, registry, clock), parts.begin_scraping(planned));
    tokio::pin!(opening, scraping);
    match futures::future::select(opening, scraping).await {
        // Whoever has not confirmed is asked again when the rest of the configuration takes effect.
        Either::Left((opened, _)) => opened?,
        Either::Right(((), opening)) => opening.await?,
    }
    parts.append_waiting().await;
    Ok(())
}

/// Makes the configuration take effect for the first time. An actor that does not confirm finds it when it can.
async fn first_load(reload: &ServerReload, planned: Planned) {
    let began = reload.clock.monotonic();
    for actor in reload.apply(planned).await {
        tracing::error!(component = "main", actor, "An actor did not confirm its configuration");
    }
    reload.running.reloaded(true, reload.clock.as_ref());
    let took = go_duration(reload.clock.monotonic().saturating_sub(began));
    let filename = reload.text.name();
    tracing::info!(component = "main", filename, totalDuration = took, "Completed loading of configuration file");
}

/// A duration as Go prints it.
fn go_duration(took: Duration) -> String {
    go_time::format_duration(i64::try_from(took.as_nanos()).unwrap_or(i64::MAX))
}

/// Returns when the service manager is to hear that we live: the root has answered.
async fn pulse(interval: &mut Option<tokio::time::Interval>, parts: &Parts) {
    let Some(interval) = interval else { return std::future::pending().await };
    loop {
        interval.tick().await;
        if parts.root().is_alive(Instant::now() + interval.period()).await {
            return;
        }
    }
}

fn announce(flags: &ServerFlags) {
    tracing::info!(
        component = "main",
        version = build_info::VERSION,
        compatible = build_info::COMPATIBLE_VERSION,
        revision = build_info::REVISION,
        mode = if flags.agent.is_some() { "agent" } else { "server" },
        "Starting Watchfire Server"
    );
    let files = raise_file_limit();
    let limit = |value: Option<u64>| value.map_or_else(|| "unlimited".to_owned(), |value| value.to_string());
    let fd_limits = format!("(soft={}, hard={})", limit(files.soft), limit(files.hard));
    tracing::info!(component = "main", fd_limits, memory = flags.limits.memory, "Limits");
    flags.features.log();
    for name in &flags.inactive {
        tracing::warn!(component = "main", flag = format!("--{name}"), "This flag has no effect yet");
    }
}

fn banner(flags: &ServerFlags, own: std::net::SocketAddr) {
    use std::io::Write as _;
    let url = format!("http://{own}{}", flags.web.route_prefix);
    let data: PathBuf = std::path::absolute(&flags.storage.path).unwrap_or_else(|_| flags.storage.path.clone());
    let _ = writeln!(std::io::stdout(), "{}", run_bare::banner(&url, &data));
}

fn http_settings(flags: &ServerFlags) -> HttpSettings {
    HttpSettings {
        external_url: flags.web.external_url.clone(),
        route_prefix: flags.web.route_prefix.clone(),
        cors_origin: flags.web.cors_origin.clone(),
        hosts: flags.web.hosts.clone(),
        enable_lifecycle: flags.web.enable_lifecycle,
        enable_admin_api: flags.web.enable_admin_api,
        enable_pprof: flags.web.enable_pprof,
        search_limit_max: flags.features.is_enabled("search-api").then_some(flags.web.search_limit_max),
        page_title: flags.web.page_title.clone(),
        listen_address: flags.web.listen_addresses[0].clone(),
        is_agent: flags.agent.is_some(),
    }
}

fn http_options(flags: &ServerFlags) -> HttpOptions {
    HttpOptions {
        listen_addresses: flags.web.listen_addresses.clone(),
        connections_max: flags.web.connections_max,
        read_timeout: flags.web.read_timeout,
        write_timeout: WRITE_WITHIN,
        header_len_max: flags.limits.http_header,
        body_len_max: flags.limits.http_body,
        workers: cpu_count().clamp(1, 8),
        web_config: flags.web.config_file.clone(),
    }
}
