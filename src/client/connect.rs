//! Connections: TCP as Go makes them, through a proxy if there is one, TLS by rustls.

use std::io;
use std::os::fd::AsFd as _;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt};
use hyper::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::rt::TokioIo;
use pin_project_lite::pin_project;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tower_service::Service;

use crate::client::dialer::{Attempt, DialerMetrics, Open};
use crate::client::first_bytes::{FirstBytes, Noting};
use crate::client::proxy::{Kind, Proxy, ProxyRules};
use crate::client::resolve::{AddressOrder, Resolver};
use crate::client::tls::TlsParts;
use crate::client::watched::Watched;
use crate::client::wire::{Ends, FirstHead};
use crate::client::{Failure, tunnel};
use crate::telemetry::limits::is_one_too_many;

/// Interval of TCP keep-alive probes, as in Go's default dialer.
const KEEPALIVE: Duration = Duration::from_secs(15);
/// Longest TLS handshake, as in Prometheus. Requests have deadlines of their own; connections that nobody waits for any more have this.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// Longest wait for a proxy's tunnel, as in Go.
const TUNNEL_MAX: Duration = Duration::from_secs(60);

/// Why a socket was given back.
const TOO_MANY_FILES: &str = "nine tenths of the open files that the process may have are taken; see ulimit -n";

/// Why there is no connection, on its way through hyper.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct ConnectFailed(pub(super) Failure);

/// A stream of bytes, be it TCP, TLS, or TLS within TLS.
trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

/// Connects to `http` and `https` hosts, perhaps through a proxy. Each connection carries its [`History`].
#[derive(Clone)]
pub(super) struct Connector {
    tcp: HttpConnector<Resolver>,
    parts: Arc<Parts>,
}

struct Parts {
    proxies: Arc<ProxyRules>,
    tls: TlsParts,
    user_agent: String,
    /// Whoever is asked is asked over this socket of the machine.
    unix_socket: Option<String>,
    dialer: Arc<OnceLock<DialerMetrics>>,
}

/// A connection without anything on it yet.
struct Dialed {
    wire: Box<dyn Wire>,
    /// Who is at its other end.
    peer: String,
    /// Counts its end.
    open: Option<Open>,
}

/// Whether a connection has answered a request before; shared by all that hold the connection.
#[derive(Clone, Debug, Default)]
pub(super) struct History {
    answered: Arc<AtomicBool>,
}

impl History {
    pub(super) fn answered(&self) {
        self.answered.store(true, Ordering::Relaxed);
    }

    pub(super) fn has_answered(&self) -> bool {
        self.answered.load(Ordering::Relaxed)
    }
}

impl Connector {
    pub(super) fn new(
        proxies: Arc<ProxyRules>,
        tls: TlsParts,
        user_agent: String,
        unix_socket: Option<String>,
        order: AddressOrder,
        dialer: Arc<OnceLock<DialerMetrics>>,
    ) -> Self {
        let mut tcp = HttpConnector::new_with_resolver(Resolver::new(order));
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_keepalive(Some(KEEPALIVE));
        Self { tcp, parts: Arc::new(Parts { proxies, tls, user_agent, unix_socket, dialer }) }
    }

    async fn connect(self, uri: Uri) -> Result<Traced, Failure> {
        let is_https = uri.scheme_str() == Some("https");
        let host = uri.host().unwrap_or_default();
        let port = uri.port_u16().unwrap_or(if is_https { 443 } else { 80 });
        let proxy = self.parts.proxies.choose(is_https, host, port)?;
        let Dialed { mut wire, open, .. } = match &proxy {
            None => self.dial(host, port).await?,
            Some(proxy) => self.proxied(proxy, host, port, is_https).await?,
        };
        let mut speaks_http2 = false;
        if is_https {
            let connector = TlsConnector::from(Arc::clone(&self.parts.tls.to_target));
            let tls = handshake(connector, self.parts.tls.name_of(host)?, wire).await?;
            speaks_http2 = tls.get_ref().1.alpn_protocol() == Some(b"h2");
            wire = Box::new(tls);
        }
        let takes_whole_urls = !is_https && proxy.is_some_and(|proxy| proxy.kind != Kind::Socks);
        let stream = TokioIo::new(Watched::new(wire, FirstHead::new(!speaks_http2)));
        let history = History::default();
        Ok(Traced { stream, history, takes_whole_urls, speaks_http2, _open: open })
    }

    /// A connection without anything on it yet, counted.
    async fn dial(&self, host: &str, port: u16) -> Result<Dialed, Failure> {
        let attempt = self.parts.dialer.get().map(DialerMetrics::attempt);
        match (self.dial_uncounted(host, port).await, attempt) {
            (Ok((wire, peer)), attempt) => Ok(Dialed { wire, peer, open: attempt.map(Attempt::established) }),
            (Err(failure), attempt) => {
                attempt.into_iter().for_each(|attempt| attempt.failed(&failure));
                Err(failure)
            }
        }
    }

    /// A connection, and who is at its other end. One that takes one of the last open files is given back.
    async fn dial_uncounted(&self, host: &str, port: u16) -> Result<(Box<dyn Wire>, String), Failure> {
        if let Some(path) = &self.parts.unix_socket {
            let at_socket = |reason: &str| Failure::Other(format!("dial unix {path}: {reason}"));
            let dialed = UnixStream::connect(path).await;
            let stream = dialed.map_err(|error| at_socket(&Failure::socket_reason(&error)))?;
            let too_many = is_one_too_many(stream.as_fd());
            let socket = Watched::new(stream, Ends::Unix(path.clone()));
            return if too_many { Err(at_socket(TOO_MANY_FILES)) } else { Ok((Box::new(socket), path.clone())) };
        }
        let stream = self.dial_tcp(host, port).await?;
        let ends = stream.local_addr().and_then(|own| Ok((own, stream.peer_addr()?)));
        match ends {
            Ok((own, peer)) => Ok((Box::new(Watched::new(stream, Ends::Tcp(own, peer))), peer.to_string())),
            // It is over already; who uses it will see why.
            Err(_) => Ok((Box::new(stream), format!("{host}:{port}"))),
        }
    }

    async fn dial_tcp(&self, host: &str, port: u16) -> Result<TcpStream, Failure> {
        let uri: Uri = format!("http://{host}:{port}")
            .parse()
            .map_err(|error: hyper::http::uri::InvalidUri| Failure::Other(error.to_string()))?;
        let mut tcp = self.tcp.clone();
        let dialed = tcp.call(uri).await.map_err(|error| Failure::of_dial(&error, host, port))?;
        let stream = dialed.into_inner();
        if is_one_too_many(stream.as_fd()) {
            return Err(Failure::Dial { address: format!(" {host}:{port}"), reason: TOO_MANY_FILES.to_owned() });
        }
        Ok(stream)
    }

    /// A stream to the proxy, or through it to the target where the proxy makes tunnels.
    async fn proxied(&self, proxy: &Proxy, host: &str, port: u16, is_https: bool) -> Result<Dialed, Failure> {
        let at_proxy = |failure: Failure| Failure::Proxy(Box::new(failure));
        let Dialed { mut wire, peer, open } = self.dial(&proxy.host, proxy.port).await.map_err(at_proxy)?;
        if proxy.kind == Kind::Https {
            let connector = TlsConnector::from(Arc::clone(&self.parts.tls.to_proxy));
            let name = self.parts.tls.name_of(&proxy.host).map_err(at_proxy)?;
            wire = Box::new(handshake(connector, name, wire).await.map_err(at_proxy)?);
        }
        match proxy.kind {
            Kind::Socks => {
                let target = format!("{host}:{port}");
                let asked = timeout(TUNNEL_MAX, tunnel::socks(&mut wire, proxy.user.as_ref(), host, port)).await;
                asked
                    .unwrap_or_else(|_| Err("i/o timeout".to_owned()))
                    .map_err(|reason| Failure::Other(format!("socks connect tcp {peer}->{target}: {reason}")))?;
            }
            Kind::Http | Kind::Https if is_https => {
                let headers = self.parts.proxies.connect_headers(proxy)?;
                let target = format!("{host}:{port}");
                let asked = tunnel::connect(&mut wire, &target, &self.parts.user_agent, &headers);
                timeout(TUNNEL_MAX, asked).await.map_err(|_| Failure::Deadline)??;
            }
            Kind::Http | Kind::Https => {}
        }
        Ok(Dialed { wire, peer, open })
    }
}

async fn handshake(
    connector: TlsConnector,
    name: ServerName<'static>,
    wire: Box<dyn Wire>,
) -> Result<tokio_rustls::client::TlsStream<Watched<Box<dyn Wire>, Noting>>, Failure> {
    let first = FirstBytes::default();
    let wire = Watched::new(wire, first.noting());
    let done = timeout(HANDSHAKE_MAX, connector.connect(name, wire)).await;
    let done = done.map_err(|_| Failure::Other("net/http: TLS handshake timeout".into()))?;
    done.map_err(|error| Failure::of_handshake(&error, &first))
}

impl Service<Uri> for Connector {
    type Response = Traced;
    type Error = ConnectFailed;
    type Future = BoxFuture<'static, Result<Traced, ConnectFailed>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ConnectFailed>> {
        // The TCP connector is always ready.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connecting = self.clone().connect(uri);
        async move { connecting.await.map_err(ConnectFailed) }.boxed()
    }
}

pin_project! {
    /// A connection with its history.
    pub(super) struct Traced {
        #[pin]
        stream: TokioIo<Watched<Box<dyn Wire>, FirstHead>>,
        history: History,
        takes_whole_urls: bool,
        speaks_http2: bool,
        _open: Option<Open>,
    }
}

impl Connection for Traced {
    fn connected(&self) -> Connected {
        let connected = Connected::new().proxy(self.takes_whole_urls).extra(self.history.clone());
        if self.speaks_http2 { connected.negotiated_h2() } else { connected }
    }
}

impl Read for Traced {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        self.project().stream.poll_read(cx, buf)
    }
}

impl Write for Traced {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.project().stream.poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.project().stream.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.project().stream.poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.project().stream.poll_write_vectored(cx, bufs)
    }
}
