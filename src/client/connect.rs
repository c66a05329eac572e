//! Connections: TCP as Go makes them, TLS by rustls with the system's roots.

use std::io;
use std::os::fd::AsFd as _;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt};
use hyper::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::rt::TokioIo;
use pin_project_lite::pin_project;
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tower_service::Service;

use crate::telemetry::limits::is_one_too_many;

/// Interval of TCP keep-alive probes, as in Go's default dialer.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// Why a socket was given back.
const TOO_MANY_FILES: &str = "nine tenths of the open files that the process may have are taken; see ulimit -n";

type Stream = MaybeHttpsStream<TokioIo<TcpStream>>;
type ConnectError = Box<dyn std::error::Error + Send + Sync>;

/// Connects to `http` and `https` hosts. Each connection carries its [`History`].
#[derive(Clone)]
pub(super) struct Connector {
    inner: HttpsConnector<Bounded>,
}

/// Connects by TCP, and gives a socket back that takes one of the last open files.
#[derive(Clone)]
struct Bounded(HttpConnector);

impl Service<Uri> for Bounded {
    type Response = TokioIo<TcpStream>;
    type Error = ConnectError;
    type Future = BoxFuture<'static, Result<TokioIo<TcpStream>, ConnectError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        self.0.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connecting = self.0.call(uri);
        async move {
            let stream = connecting.await?;
            if is_one_too_many(stream.inner().as_fd()) {
                return Err(TOO_MANY_FILES.into());
            }
            Ok(stream)
        }
        .boxed()
    }
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

/// The TLS configuration that all clients share; the system's roots are read at its first use.
static TLS: LazyLock<Arc<ClientConfig>> = LazyLock::new(|| {
    let mut roots = rustls::RootCertStore::empty();
    // A machine without roots can still scrape plain HTTP; HTTPS then fails with "unknown authority".
    for root in rustls_native_certs::load_native_certs().certs {
        let _ = roots.add(root);
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring supports the default protocol versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
});

/// The connector of a new client.
pub(super) fn connector() -> Connector {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_keepalive(Some(KEEPALIVE));
    let config = ClientConfig::clone(&TLS);
    let inner = HttpsConnectorBuilder::new()
        .with_tls_config(config)
        .https_or_http()
        .enable_http1()
        .wrap_connector(Bounded(tcp));
    Connector { inner }
}

impl Service<Uri> for Connector {
    type Response = Traced;
    type Error = ConnectError;
    type Future = BoxFuture<'static, Result<Traced, ConnectError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connecting = self.inner.call(uri);
        async move { Ok(Traced { stream: connecting.await?, history: History::default() }) }.boxed()
    }
}

pin_project! {
    /// A connection with its history.
    pub(super) struct Traced {
        #[pin]
        stream: Stream,
        history: History,
    }
}

impl Connection for Traced {
    fn connected(&self) -> Connected {
        self.stream.connected().extra(self.history.clone())
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
