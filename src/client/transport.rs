//! The connections of a client, replaced when files of its TLS settings have changed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::ThreadId;

use bytes::Bytes;
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::client::connect::Connector;
use crate::client::dialer::DialerMetrics;
use crate::client::proxy::ProxyRules;
use crate::client::resolve::AddressOrder;
use crate::client::source::Reader;
use crate::client::tls::{Material, TlsParts, TlsSettings};
use crate::client::{Failure, HEAD_LEN_MAX, HEADERS_MAX, IDLE_PER_HOST_MAX, IDLE_TIMEOUT};
use crate::client::{HTTP2_HEAD_LEN_MAX, PING_AFTER, STREAM_WINDOW, USUAL_HEADERS_MAX, WINDOW};
use crate::telemetry::metrics::Registry;

/// Connections of one kind.
pub(super) type Connections = Client<Connector, Full<Bytes>>;

/// Threads that have connections of their own; any further one uses those of another.
const LANES_MAX: usize = 64;

/// For how many headers of an answer there is room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    /// As many as answers usually have.
    Usual,
    /// As many as fit the head of an answer.
    Most,
}

/// Makes and keeps connections; clones share them.
#[derive(Clone)]
pub(super) struct Transport {
    inner: Arc<Inner>,
}

struct Inner {
    proxies: Arc<ProxyRules>,
    user_agent: String,
    unix_socket: Option<String>,
    order: AddressOrder,
    tls: TlsSettings,
    reader: Reader,
    /// Counts connections, once somebody has asked for it.
    dialer: Arc<OnceLock<DialerMetrics>>,
    current: Mutex<Option<Current>>,
    /// An answer with more headers than usual has come.
    has_wide_answers: AtomicBool,
}

#[derive(Clone)]
struct Current {
    /// What the sources of the settings held; `None` where there are none.
    material: Option<Arc<Material>>,
    lanes: Arc<Lanes>,
}

/// Connections by the thread that asks for them. A connection is driven on the thread that has made it: another one that used it
/// would be woken up for each part of an answer.
struct Lanes {
    connector: Connector,
    of_threads: Mutex<Vec<(ThreadId, Room, Connections)>>,
}

impl Lanes {
    fn of_this_thread(&self, room: Room) -> Connections {
        let id = std::thread::current().id();
        let mut lanes = self.of_threads.lock();
        let own = lanes.iter().find(|(thread, of, _)| *thread == id && *of == room);
        let full = 2 * LANES_MAX <= lanes.len();
        let found = own.or_else(|| lanes.iter().find(|(_, of, _)| full && *of == room));
        if let Some((_, _, connections)) = found {
            return connections.clone();
        }
        let new = connections(self.connector.clone(), room);
        lanes.push((id, room, new.clone()));
        new
    }
}

impl Transport {
    pub(super) fn new(proxies: ProxyRules, tls: TlsSettings, user_agent: String) -> Self {
        Self::with_parts(Arc::new(proxies), tls, user_agent, None, AddressOrder::System, Arc::default())
    }

    /// Connections of its own, with the same settings, all over one socket of the machine.
    pub(super) fn over_unix_socket(&self, path: &str) -> Self {
        let inner = &*self.inner;
        let (proxies, tls, user_agent) = (Arc::clone(&inner.proxies), inner.tls.clone(), inner.user_agent.clone());
        let dialer = Arc::clone(&inner.dialer);
        Self::with_parts(proxies, tls, user_agent, Some(path.to_owned()), inner.order, dialer)
    }

    /// Connections of its own, with the same settings, spread over all addresses of a host.
    pub(super) fn spread(&self) -> Self {
        let inner = &*self.inner;
        let (proxies, tls, user_agent) = (Arc::clone(&inner.proxies), inner.tls.clone(), inner.user_agent.clone());
        let (unix_socket, dialer) = (inner.unix_socket.clone(), Arc::clone(&inner.dialer));
        Self::with_parts(proxies, tls, user_agent, unix_socket, AddressOrder::Random, dialer)
    }

    fn with_parts(
        proxies: Arc<ProxyRules>,
        tls: TlsSettings,
        user_agent: String,
        unix_socket: Option<String>,
        order: AddressOrder,
        dialer: Arc<OnceLock<DialerMetrics>>,
    ) -> Self {
        let shared = tls.shared();
        let (reader, current) = (Reader::new(), Mutex::default());
        let has_wide_answers = AtomicBool::new(false);
        let inner = Inner { proxies, user_agent, unix_socket, order, tls, reader, dialer, current, has_wide_answers };
        let current = shared.map(|parts| Current { material: None, lanes: inner.with_tls(parts) });
        *inner.current.lock() = current;
        Self { inner: Arc::new(inner) }
    }

    /// Counts the connections from now on.
    pub(super) fn count_connections(&self, registry: &Registry, dialer: &str) {
        self.inner.dialer.get_or_init(|| DialerMetrics::new(registry, dialer));
    }

    /// The room for headers that answers have needed so far.
    pub(super) fn room(&self) -> Room {
        if self.inner.has_wide_answers.load(Ordering::Relaxed) { Room::Most } else { Room::Usual }
    }

    /// Notes that an answer had more headers than usual.
    pub(super) fn widen(&self) {
        self.inner.has_wide_answers.store(true, Ordering::Relaxed);
    }

    pub(super) fn proxies(&self) -> &ProxyRules {
        &self.inner.proxies
    }

    /// The connections that go with the files of the settings as they are now. Those made with older files end with the
    /// requests that they have.
    pub(super) async fn connections(&self, room: Room, deadline: Instant) -> Result<Connections, Failure> {
        let current = self.inner.current.lock().clone();
        if !self.inner.tls.has_files() {
            return match current {
                Some(current) => Ok(current.lanes.of_this_thread(room)),
                None => self.replaced(Arc::new(self.inner.tls.read()?), room),
            };
        }
        let known = current.as_ref().and_then(|current| current.material.clone());
        let inner = Arc::clone(&self.inner);
        let read = move || match known {
            Some(known) if inner.tls.is_current(&known) => Ok(None),
            _ => inner.tls.read().map(Some),
        };
        match (self.inner.reader.run(deadline, read).await??, current) {
            (None, Some(current)) => Ok(current.lanes.of_this_thread(room)),
            (Some(material), _) => self.replaced(Arc::new(material), room),
            (None, None) => unreachable!("files are passed over only where some were read before"),
        }
    }

    /// The connections of this material: new ones if it differs from what there was.
    fn replaced(&self, material: Arc<Material>, room: Room) -> Result<Connections, Failure> {
        let mut current = self.inner.current.lock();
        let is_same = |it: &&Current| it.material.as_ref().is_some_and(|known| known.holds_the_same(&material));
        let lanes = match current.as_ref().filter(is_same) {
            Some(same) => Arc::clone(&same.lanes),
            None => self.inner.with_tls(self.inner.tls.parts(&material)?),
        };
        *current = Some(Current { material: Some(material), lanes: Arc::clone(&lanes) });
        Ok(lanes.of_this_thread(room))
    }
}

impl Inner {
    /// New connections.
    fn with_tls(&self, tls: TlsParts) -> Arc<Lanes> {
        let (proxies, user_agent) = (Arc::clone(&self.proxies), self.user_agent.clone());
        let (unix_socket, dialer) = (self.unix_socket.clone(), Arc::clone(&self.dialer));
        let connector = Connector::new(proxies, tls, user_agent, unix_socket, self.order, dialer);
        Arc::new(Lanes { connector, of_threads: Mutex::default() })
    }
}

fn connections(connector: Connector, room: Room) -> Connections {
    let headers_max = match room {
        Room::Usual => USUAL_HEADERS_MAX,
        Room::Most => HEADERS_MAX,
    };
    Client::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE_TIMEOUT)
        .pool_max_idle_per_host(IDLE_PER_HOST_MAX)
        .http1_max_buf_size(HEAD_LEN_MAX)
        .http1_max_headers(headers_max)
        .http2_max_header_list_size(HTTP2_HEAD_LEN_MAX)
        .http2_initial_stream_window_size(STREAM_WINDOW)
        .http2_initial_connection_window_size(WINDOW)
        .http2_keep_alive_interval(PING_AFTER)
        .build(connector)
}
