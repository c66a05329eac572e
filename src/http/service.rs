//! How a connection becomes requests: TLS where it is on, then HTTP/1 with lenient targets, or HTTP/2 if TLS has settled on it.
//! The HTTP library's own server has no place for the former, and bounds neither the streams nor the headers of the latter.

use std::any::Any;
use std::future::Future;
use std::io::{self, IoSlice};
use std::net::{SocketAddr, TcpListener};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use actix_http::body::BoxBody;
use actix_http::error::DispatchError;
use actix_http::{HttpService, Protocol, Request, Response};
use actix_server::{Server, ServerBuilder};
use actix_service::{
    IntoService as _, IntoServiceFactory as _, Service as _, ServiceFactory, ServiceFactoryExt as _, fn_factory,
    fn_service, map_config,
};
use actix_tls::accept::rustls_0_23::{Acceptor, TlsStream};
use actix_web::dev::{AppConfig, Extensions};
use actix_web::rt::net::TcpStream;
use actix_web::{App, HttpRequest, HttpResponse, web};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::http::connections::Progress;
use crate::http::http2::{self, Caller};
use crate::http::lenient::{Lenient, Requests};
use crate::http::tls;

/// How long the end of a connection may take once all is answered.
const DISCONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// A connection, encrypted or not.
pub(super) enum Stream {
    Plain(TcpStream),
    Encrypted(Box<TlsStream<TcpStream>>),
}

/// What is served by HTTP/1.
type Connection = Lenient<Stream>;

/// Bytes of an answer that are gathered before they are written: the head and what comes with it.
const GATHERED_LEN: usize = 1 << 10;

impl Stream {
    fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Encrypted(stream) => stream.get_ref().0,
        }
    }
}

/// The socket of a connection.
pub(super) fn socket(stream: &dyn Any) -> Option<&TcpStream> {
    let http1 = stream.downcast_ref::<Connection>().map(|connection| connection.get_ref().0);
    http1.or_else(|| stream.downcast_ref::<Stream>()).map(Stream::socket)
}

/// What a connection is doing; of one of HTTP/2 its requests tell.
pub(super) fn progress(stream: &dyn Any) -> Arc<Progress> {
    let http1 = stream.downcast_ref::<Connection>().map(|connection| connection.get_ref().1);
    http1.map(|requests| Arc::clone(requests.progress())).unwrap_or_default()
}

/// What is called with a connection that begins to be served, and with what its requests will carry.
type OnConnect = Arc<dyn Fn(&dyn Any, &mut Extensions) + Send + Sync>;

/// How connections are served.
#[derive(Clone)]
pub(super) struct Serving {
    pub(super) keep_alive: Duration,
    pub(super) head_timeout: Duration,
    /// Largest header of a request.
    pub(super) header_len_max: usize,
    /// Longest time for which a client may take nothing of an answer.
    pub(super) write_timeout: Duration,
    /// Called for each connection when it begins to be served.
    pub(super) on_connect: OnConnect,
    /// Our side of TLS, if it is spoken.
    pub(super) tls: Option<ServerConfig>,
}

/// Adds a listener. Each worker calls `make` once for the function that answers its requests.
pub(super) fn listen<A, F>(
    server: ServerBuilder,
    listener: TcpListener,
    serving: &Serving,
    make: impl Fn() -> A + Clone + Send + 'static,
) -> io::Result<ServerBuilder>
where
    A: Fn(HttpRequest, web::Payload) -> F + Clone + 'static,
    F: Future<Output = HttpResponse> + 'static,
{
    let address = listener.local_addr()?;
    let name = format!("http {address}");
    let serving = serving.clone();
    let stopping = server.graceful_shutdown_signal();
    let head_within = serving.head_timeout;
    let Some(tls) = serving.tls.clone() else {
        return server.listen(name, listener, move || {
            let stopping = stopping.clone();
            let signal = move || {
                let stopping = stopping.clone();
                async move { stopping.notified().await }
            };
            fn_service(move |io: TcpStream| async move {
                let peer = io.peer_addr().ok();
                Ok::<_, ()>((Lenient::new(Stream::Plain(io), Requests::new(head_within)), Protocol::Http1, peer))
            })
            .and_then(requests(&serving, address, signal, make()).map_err(drop))
        });
    };
    server.listen(name, listener, move || {
        let stopping = stopping.clone();
        let signal = move || {
            let stopping = stopping.clone();
            async move { stopping.notified().await }
        };
        Acceptor::new(tls.clone()).map_err(drop).and_then(encrypted(&serving, address, signal, make()))
    })
}

/// Either protocol, whichever TLS has settled on.
fn encrypted<A, F, G, S>(
    serving: &Serving,
    address: SocketAddr,
    stopping: G,
    answer: A,
) -> impl ServiceFactory<TlsStream<TcpStream>, Config = (), Response = (), Error = (), InitError = ()> + use<A, F, G, S>
where
    A: Fn(HttpRequest, web::Payload) -> F + Clone + 'static,
    F: Future<Output = HttpResponse> + 'static,
    G: Fn() -> S + Clone + 'static,
    S: Future<Output = ()> + 'static,
{
    let http1 = requests(serving, address, stopping.clone(), answer.clone());
    let http2 = app(answer);
    let on_connect = Arc::clone(&serving.on_connect);
    let limits = http2::Limits {
        header_len_max: serving.header_len_max,
        first_within: serving.head_timeout,
        idle_max: serving.keep_alive,
        stalled_max: serving.write_timeout,
    };
    fn_factory(move || {
        let (http1, http2) = (http1.new_service(()), http2.new_service(()));
        let (on_connect, stopping) = (Arc::clone(&on_connect), stopping.clone());
        async move {
            let (http1, http2) = (Rc::new(http1.await?), Rc::new(http2.await?));
            let serve = move |io: TlsStream<TcpStream>| {
                let (http1, http2) = (Rc::clone(&http1), Rc::clone(&http2));
                let (on_connect, stopping) = (Arc::clone(&on_connect), stopping());
                async move {
                    let peer = io.get_ref().0.peer_addr().ok();
                    let speaks_http2 = io.get_ref().1.alpn_protocol() == Some(tls::HTTP2);
                    let stream = Stream::Encrypted(Box::new(io));
                    if !speaks_http2 {
                        let io = Lenient::new(stream, Requests::new(limits.first_within));
                        return http1.call((io, Protocol::Http1, peer)).await.map_err(drop);
                    }
                    let mut shared = Extensions::new();
                    on_connect(&stream, &mut shared);
                    let caller = Caller { peer, shared: Rc::new(shared) };
                    // On the heap, as it is larger than what serves HTTP/1, which would be as large.
                    Box::pin(http2::serve(stream, limits, caller, http2, stopping)).await;
                    Ok(())
                }
            };
            Ok::<_, ()>(serve.into_service())
        }
    })
}

/// What answers requests, whichever way they came.
fn app<A, F>(
    answer: A,
) -> impl ServiceFactory<
    Request,
    Config = (),
    Response = impl Into<Response<BoxBody>> + 'static,
    Error = impl Into<Response<BoxBody>> + 'static,
    InitError = (),
> + use<A, F>
where
    A: Fn(HttpRequest, web::Payload) -> F + Clone + 'static,
    F: Future<Output = HttpResponse> + 'static,
{
    let app = App::new().default_service(web::to(answer));
    let app = app.into_factory().map_err(|error: actix_web::Error| error.error_response());
    map_config(app, |()| AppConfig::default())
}

fn requests<A, F, G, S>(
    serving: &Serving,
    address: SocketAddr,
    stopping: G,
    answer: A,
) -> impl ServiceFactory<
    (Connection, Protocol, Option<SocketAddr>),
    Config = (),
    Response = (),
    Error = DispatchError,
    InitError = (),
> + use<A, F, G, S>
where
    A: Fn(HttpRequest, web::Payload) -> F + Clone + 'static,
    F: Future<Output = HttpResponse> + 'static,
    G: Fn() -> S + 'static,
    S: Future<Output = ()> + 'static,
{
    let on_connect = Arc::clone(&serving.on_connect);
    HttpService::build()
        .graceful_shutdown_signal(stopping)
        .keep_alive(serving.keep_alive)
        .client_request_timeout(serving.head_timeout)
        .client_disconnect_timeout(DISCONNECT_TIMEOUT)
        // A client that goes away ends its request, and with it its query.
        .h1_allow_half_closed(false)
        .h1_write_buffer_size(GATHERED_LEN)
        .local_addr(address)
        .on_connect_ext(move |stream: &Connection, extensions: &mut Extensions| on_connect(stream, extensions))
        .finish(app(answer))
}

/// A server without listeners and signals.
pub(super) fn builder(workers: usize, connections_max: usize, shutdown_secs: u64) -> ServerBuilder {
    Server::build()
        .workers(workers)
        .max_concurrent_connections(connections_max)
        .shutdown_timeout(shutdown_secs)
        .disable_signals()
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_read(cx, buf),
            Self::Encrypted(io) => Pin::new(io).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_write(cx, buf),
            Self::Encrypted(io) => Pin::new(io).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_flush(cx),
            Self::Encrypted(io) => Pin::new(io).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_shutdown(cx),
            Self::Encrypted(io) => Pin::new(io).poll_shutdown(cx),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_write_vectored(cx, bufs),
            Self::Encrypted(io) => Pin::new(io).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(io) => io.is_write_vectored(),
            Self::Encrypted(io) => io.is_write_vectored(),
        }
    }
}
