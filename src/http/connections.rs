//! Who may hold a connection. Prometheus lets further ones wait until one of its 512 is over, so that a few hundred idle
//! sockets silence it. Here every connection is taken, and the one that has been idle longest goes for it, or where none is idle the
//! one whose client has had its request wait for longest, as for the rest of a body.

use std::any::Any;
use std::collections::HashMap;
use std::net::IpAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::dev::Extensions;
use actix_web::http::{StatusCode, Version};
use actix_web::{HttpMessage as _, HttpRequest, HttpResponse};
use bytes::Bytes;
use rustix::net::Shutdown;

use crate::http::service;
use crate::telemetry::metrics::{Counter, Registry};

/// Connections beyond the limit for which nobody has to go: when all others are busy, health and this machine still get an answer.
const RESERVED: usize = 16;
/// Connections whose buffer for answers may grow. The HTTP library never gives it back while the connection lasts, and it is as
/// long as the longest piece of an answer was; a thousand idle connections would keep a hundred megabytes.
const GROWN_MAX: usize = 64;
/// The longest piece that fits, behind a head, into the first of the two pages of the buffer that a connection of HTTP/1 begins
/// with: the second one is not touched, and so takes no memory.
const FITTING_LEN: usize = 3_300;
/// Connections that are looked for at once when one has to go: those behind it go for the next ones that come.
const LEAVING_MAX: usize = 64;
/// Why a request on a reserved connection is not answered.
const ALL_BUSY: &str = "all connections of --web.max-connections are busy";

/// All open connections.
pub(super) struct Connections {
    max: usize,
    /// Counts beginnings and ends of requests and connections: a clock that tells which came earlier.
    events: AtomicU64,
    open: Mutex<Open>,
    /// Connections whose buffer has grown.
    grown: AtomicUsize,
    evicted: Counter,
    refused: Counter,
}

/// The open connections by their numbers, and who goes next.
#[derive(Default)]
struct Open {
    slots: HashMap<u64, Arc<Slot>>,
    /// Those that were idle for longest when all were looked at, last ones first: when each was used last, and its number. Whoever has
    /// become idle since was used later.
    leaving: Vec<(u64, u64)>,
}

impl Open {
    /// Takes out the connection that goes for another one, unless all are busy.
    fn take_leaving(&mut self) -> Option<Arc<Slot>> {
        if let Some(id) = self.next_leaving() {
            return self.slots.remove(&id);
        }
        let ranked = self.slots.iter().filter_map(|(id, slot)| Some((slot.progress.rank()?, *id)));
        let mut idle = Vec::new();
        let mut least = None;
        for (rank, id) in ranked {
            match rank {
                (false, used) => idle.push((used, id)),
                waiting => least = least.into_iter().chain([(waiting, id)]).min(),
            }
        }
        idle.sort_unstable();
        idle.truncate(LEAVING_MAX);
        idle.reverse();
        self.leaving = idle;
        let id = self.next_leaving().or(least.map(|(_, id)| id))?;
        self.slots.remove(&id)
    }

    /// The next one that is idle as it was.
    fn next_leaving(&mut self) -> Option<u64> {
        while let Some((used, id)) = self.leaving.pop() {
            if self.slots.get(&id).is_some_and(|slot| slot.progress.rank() == Some((false, used))) {
                return Some(id);
            }
        }
        None
    }
}

/// What a connection is doing, as its reader and the others see it.
#[derive(Default)]
pub(super) struct Progress {
    /// When it was used last, in events.
    used: AtomicU64,
    /// Requests that are being answered.
    requests: AtomicU32,
    /// Of these, those that wait for their client: for the rest of a body, or until it takes more of an answer.
    waiting: AtomicU32,
    /// Requests that have begun so far, in wrapping numbers.
    begun: AtomicU32,
}

impl Progress {
    /// How many requests have begun, if none is in progress.
    pub(super) fn begun_and_over(&self) -> Option<u32> {
        let begun = self.begun.load(Ordering::Acquire);
        (self.requests.load(Ordering::Acquire) == 0).then_some(begun)
    }

    /// Who is closed for another one: first who has no request, then who waits for its client; in each case who has been so
    /// for longest.
    fn rank(&self) -> Option<(bool, u64)> {
        let (requests, waiting) = (self.requests.load(Ordering::Acquire), self.waiting.load(Ordering::Acquire));
        (requests <= waiting).then(|| (0 < requests, self.used.load(Ordering::Acquire)))
    }
}

/// One open connection, as the others see it.
struct Slot {
    /// The connection's socket, by a descriptor of our own, so that it can be closed from outside.
    socket: OwnedFd,
    progress: Arc<Progress>,
    /// It is one of those whose buffer may grow.
    may_grow: AtomicBool,
    /// Nobody went for it: it serves health and this machine alone.
    is_reserved: bool,
}

/// Lives as long as its connection.
struct Connection {
    id: u64,
    slot: Arc<Slot>,
    all: Arc<Connections>,
    closed: Counter,
}

impl Connections {
    /// At most `max` connections, besides a few that are kept for health and this machine.
    pub(super) fn new(max: usize, registry: &Registry) -> Arc<Self> {
        let evicted = "Connections closed, idle or waiting for their client, as another one came and --web.max-connections were open.";
        let refused = "Connections closed at once as all others were busy, reserved ones included.";
        Arc::new(Self {
            max,
            events: AtomicU64::new(0),
            open: Mutex::default(),
            grown: AtomicUsize::new(0),
            evicted: registry.counter("watchfire_http_connections_evicted_total", evicted, &[]),
            refused: registry.counter("watchfire_http_connections_busy_refused_total", refused, &[]),
        })
    }

    /// The most connections that the HTTP library may see, those that are about to be closed included.
    pub(super) fn backstop(&self) -> usize {
        self.max.saturating_mul(2).saturating_add(4 * RESERVED)
    }

    /// Takes a connection in; `closed` counts when it is over. Returns false if there are too many open files for it; then it is
    /// closed.
    pub(super) fn enter(self: &Arc<Self>, stream: &dyn Any, extensions: &mut Extensions, closed: Counter) -> bool {
        let Some(socket) = service::socket(stream) else { return true };
        let Ok(own) = socket.as_fd().try_clone_to_owned() else {
            closed.inc();
            close(socket.as_fd());
            return false;
        };
        let id = self.tick();
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let mut is_reserved = false;
        if self.max <= open.slots.len() {
            match open.take_leaving() {
                Some(slot) => {
                    close(slot.socket.as_fd());
                    self.evicted.inc();
                }
                None if self.max + RESERVED <= open.slots.len() => {
                    self.refused.inc();
                    close(own.as_fd());
                }
                None => is_reserved = true,
            }
        }
        let progress = service::progress(stream);
        progress.used.store(id, Ordering::Release);
        let slot = Arc::new(Slot { socket: own, progress, may_grow: AtomicBool::new(false), is_reserved });
        open.slots.insert(id, Arc::clone(&slot));
        drop(open);
        extensions.insert(Connection { id, slot, all: Arc::clone(self), closed });
        true
    }

    fn tick(&self) -> u64 {
        self.events.fetch_add(1, Ordering::Relaxed)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if self.slot.may_grow.swap(false, Ordering::AcqRel) {
            self.all.grown.fetch_sub(1, Ordering::AcqRel);
        }
        self.all.open.lock().unwrap_or_else(PoisonError::into_inner).slots.remove(&self.id);
        self.closed.inc();
    }
}

/// What the requests of a connection of HTTP/2 carry; with HTTP/1 the HTTP library knows it.
pub(super) struct Shared(pub(super) Rc<Extensions>);

/// A request that is being answered: while there is one, its connection is not idle.
pub(super) struct Busy {
    slot: Arc<Slot>,
    all: Arc<Connections>,
}

impl Busy {
    /// Marks the connection of a request as busy; an error is the answer for one that may not be served.
    pub(super) fn begin(request: &HttpRequest) -> Result<Option<Self>, Box<HttpResponse>> {
        let shared = request.extensions().get::<Shared>().map(|shared| Rc::clone(&shared.0));
        let of_http2 = || shared.as_ref().and_then(|shared| shared.get::<Connection>());
        let Some(connection) = request.conn_data::<Connection>().or_else(of_http2) else { return Ok(None) };
        let is_ours = || request.peer_addr().is_some_and(|peer| is_loopback(peer.ip()));
        let is_health = || request.path().ends_with("/-/healthy") || request.path().ends_with("/-/ready");
        if connection.slot.is_reserved && !is_health() && !is_ours() {
            let mut builder = HttpResponse::build(StatusCode::SERVICE_UNAVAILABLE);
            let answer = builder.force_close().content_type("text/plain; charset=utf-8").body(ALL_BUSY);
            return Err(Box::new(answer));
        }
        let busy = Self { slot: Arc::clone(&connection.slot), all: Arc::clone(&connection.all) };
        let client = Client { slot: Arc::clone(&busy.slot), all: Arc::clone(&busy.all) };
        busy.slot.progress.begun.fetch_add(1, Ordering::AcqRel);
        busy.slot.progress.requests.fetch_add(1, Ordering::AcqRel);
        request.extensions_mut().insert(client);
        Ok(Some(busy))
    }

    /// Keeps the connection busy until the body of an answer is with it.
    pub(super) fn until_sent(self, version: Version, answer: HttpResponse) -> HttpResponse {
        let is_buffered = version < Version::HTTP_2;
        answer.map_body(|_, body| {
            BoxBody::new(BusyBody { body, waiting: None, busy: self, is_buffered, rest: Bytes::new() })
        })
    }

    /// Whether a piece that does not fit into the connection's buffer may go there whole.
    fn may_grow(&self) -> bool {
        if self.slot.may_grow.load(Ordering::Acquire) {
            return true;
        }
        let one_more = |grown| (grown < GROWN_MAX).then_some(grown + 1);
        let may_grow = self.all.grown.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more).is_ok();
        self.slot.may_grow.store(may_grow, Ordering::Release);
        may_grow
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.slot.progress.used.store(self.all.tick(), Ordering::Release);
        self.slot.progress.requests.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Whom a request may have to wait for.
#[derive(Clone)]
pub(super) struct Client {
    slot: Arc<Slot>,
    all: Arc<Connections>,
}

impl Client {
    /// The client of a request.
    pub(super) fn of(request: &HttpRequest) -> Option<Self> {
        request.extensions().get::<Self>().cloned()
    }

    /// From now on the request waits for it.
    pub(super) fn wait(&self) -> Waiting {
        Waiting::begin(&self.slot, &self.all)
    }
}

/// A request that waits for its client.
pub(super) struct Waiting(Arc<Slot>);

impl Waiting {
    fn begin(slot: &Arc<Slot>, all: &Connections) -> Self {
        slot.progress.used.store(all.tick(), Ordering::Release);
        slot.progress.waiting.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(slot))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.progress.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}

struct BusyBody {
    body: BoxBody,
    /// Between two pieces the connection takes the last one.
    waiting: Option<Waiting>,
    busy: Busy,
    /// Whether pieces are copied to a buffer of the connection.
    is_buffered: bool,
    /// What is left of a piece.
    rest: Bytes,
}

impl MessageBody for BusyBody {
    type Error = Box<dyn std::error::Error>;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
        self.waiting = None;
        if self.rest.is_empty() {
            match ready!(Pin::new(&mut self.body).poll_next(cx)) {
                Some(Ok(piece)) => self.rest = piece,
                end => return Poll::Ready(end),
            }
        }
        let len = self.rest.len();
        let is_whole = len <= FITTING_LEN || !self.is_buffered || self.busy.may_grow();
        let piece = self.rest.split_to(if is_whole { len } else { FITTING_LEN });
        self.waiting = Some(Waiting::begin(&self.busy.slot, &self.busy.all));
        Poll::Ready(Some(Ok(piece)))
    }
}

/// Ends a connection whatever it is doing; its task notices and lets go of it.
pub(super) fn close(socket: impl rustix::fd::AsFd) {
    // One that the client has closed already needs no closing.
    let _ = rustix::net::shutdown(socket, Shutdown::Both);
}

fn is_loopback(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}
