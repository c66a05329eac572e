//! Binding, accepting, stopping. The root owns the signals; this server has none.

use std::any::Any;
use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::os::fd::AsFd as _;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix_web::body::{BodySize, MessageBody as _};
use actix_web::dev::{Extensions, Server, ServerHandle};
use actix_web::http::header::{self, HeaderName, HeaderValue};
use actix_web::http::{ConnectionType, Version};
use actix_web::{HttpRequest, HttpResponse, web};
use rustix::net::sockopt;

use crate::config::web::{ClientAuth, WebConfig};
use crate::http::connections::{self, Busy, Connections};
use crate::http::dispatch::{self, Bounds};
use crate::http::guard::Guard;
use crate::http::routes::ROUTES;
use crate::http::service::{self, Serving};
use crate::http::state::HttpState;
use crate::http::tls;
use crate::http::web_file::WebFile;
use crate::model::clock::{SharedClock, SystemClock};
use crate::remote::receive::budget::Budget;
use crate::telemetry::limits::is_one_too_many;

/// How long a client may take to send a request's header.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// What the bodies of requests may take together at least, however small one of them may be.
const BODIES_LEN_MIN: u64 = 1 << 20;
/// How long open requests may go on when the server stops.
const SHUTDOWN_SECS: u64 = 10;

/// How to listen.
#[derive(Clone, Debug)]
pub struct HttpOptions {
    /// Addresses as written: `host:port`, `:port` for all interfaces, port 0 for any free one.
    pub listen_addresses: Vec<String>,
    /// Most connections over all listeners; for a further one, the one that has been idle longest is closed.
    pub connections_max: usize,
    /// Longest time to read a request, and to keep an idle connection.
    pub read_timeout: Duration,
    /// Longest time for which a client may take nothing of what there is to send to it.
    pub write_timeout: Duration,
    /// Largest header of a request in bytes; `None` for what the HTTP library takes (128 KiB).
    pub header_len_max: Option<u64>,
    /// Largest body of a request in bytes; `None` for any.
    pub body_len_max: Option<u64>,
    /// Threads that serve requests; at least 1.
    pub workers: usize,
    /// The file of `--web.config.file`; `None` for plain HTTP that anybody may use.
    pub web_config: Option<String>,
}

/// Why the server does not start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// An address is taken, forbidden or does not exist.
    #[error("cannot listen on {address} (--web.listen-address): {source}")]
    Bind {
        /// The address as written.
        address: String,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The web configuration is no good.
    #[error("--web.config.file: {0}")]
    WebConfig(String),
    /// The HTTP library did not take a listener.
    #[error("cannot serve HTTP: {0}")]
    Setup(#[source] io::Error),
}

/// A server that accepts connections.
pub struct RunningServer {
    /// The addresses of all listeners, in the order of the options; with the real port where port 0 was asked for.
    pub addresses: Vec<SocketAddr>,
    /// Stops it: `handle.stop(true)` lets open requests end.
    pub handle: ServerHandle,
    /// Ends when the server has stopped. Must be polled (spawn it); an end that nobody asked for is a failure.
    pub finished: Server,
}

/// Checks a file of `--web.config.file` with all files that it names, as the start does. Errors have exporter-toolkit's texts where it has
/// them.
pub fn check_web_config(path: &str) -> Result<(), String> {
    let clock = SystemClock::shared();
    let file = Arc::new(WebFile::open(path, SharedClock::clone(&clock))?);
    Guard::new(Arc::clone(&file), SharedClock::clone(&clock))?;
    tls::server_config(&file, clock).map(drop)
}

/// Binds all addresses, unless there are sockets that listen already, and starts to serve. Call it inside an actix system (or
/// tokio runtime with a local set).
pub fn serve(
    options: &HttpOptions,
    inherited: Vec<TcpListener>,
    state: Arc<HttpState>,
) -> Result<RunningServer, ServeError> {
    let web_file = options.web_config.as_deref().map(|path| WebFile::open(path, SharedClock::clone(&state.clock)));
    let web_file = web_file.transpose().map_err(ServeError::WebConfig)?.map(Arc::new);
    let asks_who = web_file.as_ref().and_then(|file| file.current().ok()).is_some_and(|config| asks_who(&config));
    let (guard, tls) = match &web_file {
        None => (None, None),
        Some(file) => {
            let guard =
                Guard::new(Arc::clone(file), SharedClock::clone(&state.clock)).map_err(ServeError::WebConfig)?;
            let tls = tls::server_config(file, SharedClock::clone(&state.clock)).map_err(ServeError::WebConfig)?;
            (Some(Arc::new(guard)), tls)
        }
    };
    let mut listeners = inherited;
    if listeners.is_empty() {
        for address in &options.listen_addresses {
            let bound = bind(address);
            listeners.push(bound.map_err(|source| ServeError::Bind { address: address.clone(), source })?);
        }
    }
    let addresses: io::Result<Vec<SocketAddr>> = listeners.iter().map(TcpListener::local_addr).collect();
    let addresses = addresses.map_err(ServeError::Setup)?;
    ROUTES.iter().for_each(|route| state.metrics.announce(route.label));
    let bound = |limit: Option<u64>| limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
    let bounds = Bounds {
        header_len_max: bound(options.header_len_max),
        body_len_max: bound(options.body_len_max),
        bodies: Budget::new(options.body_len_max.map_or(0, |limit| limit.saturating_mul(2).max(BODIES_LEN_MIN))),
        read_timeout: options.read_timeout,
        write_timeout: options.write_timeout,
    };
    let header_len_max = bounds.header_len_max;
    let workers = options.workers.max(1);
    let connections = Connections::new(options.connections_max.max(1), &state.metrics.registry);
    let share = connections.backstop();
    let write_timeout = options.write_timeout;
    let closed = state.metrics.connections_closed.clone();
    let accepted = state.metrics.connections_accepted.clone();
    let refused = state.metrics.connections_refused.clone();
    let make = move || {
        let state = Arc::clone(&state);
        let bounds = Rc::new(bounds.clone());
        let guard = guard.clone();
        move |request: HttpRequest, payload: web::Payload| {
            let (state, guard, bounds) = (Arc::clone(&state), guard.clone(), Rc::clone(&bounds));
            async move {
                let version = request.version();
                let busy = match Busy::begin(&request) {
                    Ok(busy) => busy,
                    Err(refusal) => return *refusal,
                };
                let mut answer = strict(dispatch::dispatch(state, guard, bounds, request, payload).await);
                if version < Version::HTTP_11 && answer.body().size() == BodySize::Stream {
                    // These clients do not know chunks: the end of the connection is the end of the answer.
                    answer.head_mut().no_chunking(true);
                    answer.head_mut().set_connection_type(ConnectionType::Close);
                }
                match busy {
                    Some(busy) => busy.until_sent(version, answer),
                    None => answer,
                }
            }
        }
    };
    let on_connect = move |stream: &dyn Any, extensions: &mut Extensions| {
        accepted.inc();
        let is_one_too_many = refuse_one_too_many(stream);
        cut_off_stalled(stream, write_timeout);
        send_at_once(stream);
        if !connections.enter(stream, extensions, closed.clone()) || is_one_too_many {
            refused.inc();
        }
    };
    let is_tls = tls.is_some();
    let http2 = tls.as_ref().is_some_and(|tls| tls.alpn_protocols.iter().any(|name| name == tls::HTTP2));
    let serving = Serving {
        keep_alive: options.read_timeout,
        head_timeout: HEADER_TIMEOUT.min(options.read_timeout),
        header_len_max,
        write_timeout,
        on_connect: Arc::new(on_connect),
        tls,
    };
    let mut server = service::builder(workers, share, SHUTDOWN_SECS);
    for listener in listeners {
        server = service::listen(server, listener, &serving, make.clone()).map_err(ServeError::Setup)?;
    }
    let finished = server.run();
    for address in &addresses {
        tracing::info!(component = "web", %address, "Listening on");
        if options.web_config.is_some() {
            let text = if is_tls { "TLS is enabled." } else { "TLS is disabled." };
            tracing::info!(component = "web", http2, %address, "{text}");
        }
    }
    let from_elsewhere = addresses.iter().find(|address| !address.ip().to_canonical().is_loopback());
    if let Some(address) = from_elsewhere.filter(|_| !asks_who) {
        let text = "Whoever reaches this address may read all that is stored; --web.config.file asks for passwords or certificates";
        tracing::warn!(component = "web", %address, "{text}");
    }
    Ok(RunningServer { addresses, handle: finished.handle(), finished })
}

/// Whether clients have to say who they are.
fn asks_who(config: &WebConfig) -> bool {
    !config.users.is_empty() || matches!(config.tls.client_auth(), Ok(ClientAuth::RequireAndVerify))
}

/// What every answer tells browsers unless it says more itself: nothing in it runs, nobody frames it, nobody guesses its type.
const STRICT: [(HeaderName, HeaderValue); 3] = [
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'")),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
];

fn strict(mut answer: HttpResponse) -> HttpResponse {
    for (name, value) in STRICT {
        if !answer.headers().contains_key(&name) {
            answer.headers_mut().insert(name, value);
        }
    }
    answer
}

/// Closes a connection that takes one of the last open files; true if it did.
fn refuse_one_too_many(stream: &dyn Any) -> bool {
    let found = service::socket(stream).filter(|stream| is_one_too_many(stream.as_fd()));
    found.inspect(|stream| connections::close(stream)).is_some()
}

/// Has the system send each piece of an answer when it is written, rather than wait until the client has confirmed the last:
/// clients do that after 40 ms.
fn send_at_once(stream: &dyn Any) {
    let Some(stream) = service::socket(stream) else { return };
    if let Err(err) = sockopt::set_tcp_nodelay(stream, true) {
        tracing::debug!(component = "web", %err, "Pieces of answers are held back");
    }
}

/// Has the system end a connection whose client takes nothing for `within`: its answer would be held for as long as it likes.
fn cut_off_stalled(stream: &dyn Any, within: Duration) {
    let Some(stream) = service::socket(stream) else { return };
    let within_ms = u32::try_from(within.as_millis()).unwrap_or(u32::MAX);
    if let Err(err) = sockopt::set_tcp_user_timeout(stream, within_ms) {
        tracing::debug!(component = "web", %err, "Stalled connections are not cut off");
    }
}

fn bind(address: &str) -> io::Result<TcpListener> {
    let listener = match address.strip_prefix(':') {
        // All interfaces: both families where the machine has both.
        Some(port) => {
            TcpListener::bind(format!("[::]:{port}")).or_else(|_| TcpListener::bind(format!("0.0.0.0:{port}")))?
        }
        None => {
            let candidates: Vec<SocketAddr> = address.to_socket_addrs()?.collect();
            TcpListener::bind(&candidates[..])?
        }
    };
    listener.set_nonblocking(true)?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_address_is_named_with_its_flag() {
        let taken = bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let source = bind(&address).unwrap_err();
        let error = ServeError::Bind { address: address.clone(), source };
        assert!(error.to_string().starts_with(&format!("cannot listen on {address} (--web.listen-address): ")));
        assert_ne!(taken.port(), 0);
        assert!(bind("no-such-host.invalid:1").is_err());
    }
}
