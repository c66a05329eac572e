//! HTTP/2, on connections whose TLS has settled on it. The frames are the business of `h2`, which gets bounds for all that a
//! client can pile up: streams, headers, windows, answers that it does not take, resets. What a request is answered is the
//! business of the same service as with HTTP/1, and so are sign-in, limits and errors.
//!
//! A connection is one task: its streams are futures in it, so that they end with it, and a request ends when its client
//! resets the stream. Idle connections are closed after the time that holds for HTTP/1, slow ones by the same rules.

mod message;
mod targets;

use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use actix_http::body::{BodySize, BoxBody, MessageBody};
use actix_http::{ConnectionType, Request, Response};
use actix_service::Service;
use actix_web::dev::Extensions;
use bytes::Bytes;
use futures::StreamExt as _;
use futures::future::poll_fn;
use futures::stream::FuturesUnordered;
use h2::server::{Builder, SendResponse};
use h2::{Reason, RecvStream, SendStream};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep, timeout};

/// Streams of a connection that may be open at a time; further ones are refused.
const STREAMS_MAX: u32 = 64;
/// Bytes of a request's body that may come before somebody reads them.
const STREAM_WINDOW_LEN: u32 = 64 << 10;
/// The same for all bodies of a connection.
const CONNECTION_WINDOW_LEN: u32 = 256 << 10;
/// Bytes of an answer that wait for their turn on the connection.
const SEND_BUFFER_LEN: usize = 16 << 10;
/// Most bytes of the names and values of a request's head, whatever the limit of the settings.
const HEADER_LEN_MAX: usize = 128 << 10;
/// Streams that were reset and are still remembered.
const RESET_STREAMS_MAX: usize = 20;
/// Faults of single streams after which the connection goes.
const FAULTS_MAX: usize = 256;
/// Requests that a client may give up, more than it has let be answered, before the connection goes.
const ABANDONED_MAX: usize = 100;
/// How long the end of a connection may take once all is answered.
const DISCONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Bounds of a connection in bytes and time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Largest header of a request.
    pub(super) header_len_max: usize,
    /// Longest time until the first request.
    pub(super) first_within: Duration,
    /// Longest time without a request.
    pub(super) idle_max: Duration,
    /// Longest time for which a client may take nothing of an answer.
    pub(super) stalled_max: Duration,
}

/// What the requests of a connection have in common.
#[derive(Clone)]
pub(super) struct Caller {
    pub(super) peer: Option<SocketAddr>,
    /// What the connection's requests carry; with HTTP/1 the HTTP library keeps it.
    pub(super) shared: Rc<Extensions>,
}

/// How a stream has ended.
enum End {
    Answered,
    /// The answer asks for the end of the connection.
    Last,
    /// The client gave it up, or was cut off.
    Abandoned,
}

/// Serves a connection until its end. `stopping` tells that no further requests are wanted.
pub(super) async fn serve<T, S, B>(
    io: T,
    limits: Limits,
    caller: Caller,
    service: Rc<S>,
    stopping: impl Future<Output = ()>,
) where
    T: AsyncRead + AsyncWrite + Unpin,
    S: Service<Request>,
    S::Error: Into<Response<BoxBody>>,
    S::Response: Into<Response<B>>,
    B: MessageBody,
{
    let begun = timeout(limits.first_within, builder(&limits).handshake::<_, Bytes>(targets::escaped(io))).await;
    let Ok(Ok(mut connection)) = begun else { return };
    let mut stopping = pin!(stopping);
    // Runs out when there has been no stream for too long.
    let mut idle = pin!(sleep(limits.first_within));
    let mut is_ending = false;
    let mut abandoned = 0_usize;
    // Declared behind the connection, so that streams end before it.
    let mut streams = FuturesUnordered::new();
    loop {
        tokio::select! {
            biased;
            Some(end) = streams.next(), if !streams.is_empty() => {
                match end {
                    End::Answered => abandoned = abandoned.saturating_sub(1),
                    End::Abandoned => abandoned += 1,
                    End::Last if !is_ending => {
                        is_ending = true;
                        connection.graceful_shutdown();
                    }
                    End::Last => {}
                }
                if ABANDONED_MAX < abandoned {
                    tracing::debug!(component = "web", "A client of HTTP/2 gives up its requests again and again");
                    streams.clear();
                    abandoned = 0;
                    is_ending = true;
                    connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
                }
                if streams.is_empty() {
                    idle.as_mut().reset(Instant::now() + if is_ending { DISCONNECT_TIMEOUT } else { limits.idle_max });
                }
            }
            accepted = connection.accept() => match accepted {
                Some(Ok((request, respond))) => {
                    streams.push(answer(request, respond, caller.clone(), Rc::clone(&service), limits.stalled_max));
                }
                Some(Err(error)) => {
                    tracing::debug!(component = "web", err = %error, "A connection of HTTP/2 has ended");
                    return;
                }
                None => return,
            },
            () = &mut stopping, if !is_ending => {
                is_ending = true;
                connection.graceful_shutdown();
                idle.as_mut().reset(Instant::now() + DISCONNECT_TIMEOUT);
            }
            () = &mut idle, if streams.is_empty() => {
                if is_ending {
                    return;
                }
                is_ending = true;
                connection.graceful_shutdown();
                idle.as_mut().reset(Instant::now() + DISCONNECT_TIMEOUT);
            }
        }
    }
}

fn builder(limits: &Limits) -> Builder {
    // The limit of the settings has an answer with a text; what goes far beyond it is refused before.
    let header_len = HEADER_LEN_MAX.min(limits.header_len_max.saturating_mul(2));
    let mut builder = Builder::new();
    builder
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(u32::try_from(header_len).unwrap_or(u32::MAX))
        .initial_window_size(STREAM_WINDOW_LEN)
        .initial_connection_window_size(CONNECTION_WINDOW_LEN)
        .max_send_buffer_size(SEND_BUFFER_LEN)
        .max_concurrent_reset_streams(RESET_STREAMS_MAX)
        .max_pending_accept_reset_streams(RESET_STREAMS_MAX)
        .max_local_error_reset_streams(Some(FAULTS_MAX));
    builder
}

/// Answers the request of a stream.
async fn answer<S, B>(
    request: http::Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    caller: Caller,
    service: Rc<S>,
    stalled_max: Duration,
) -> End
where
    S: Service<Request>,
    S::Error: Into<Response<BoxBody>>,
    S::Response: Into<Response<B>>,
    B: MessageBody,
{
    let (head, body) = request.into_parts();
    let is_head = head.method == http::Method::HEAD;
    let waits = head.headers.get(http::header::EXPECT).is_some_and(|value| value == "100-continue");
    let request = match message::request(head, body, &caller) {
        Ok(request) => request,
        Err(status) => return send(Response::with_body(status, BoxBody::new(())), respond, is_head, stalled_max).await,
    };
    if waits && respond.send_informational(message::go_on()).is_err() {
        return End::Abandoned;
    }
    let answered = tokio::select! {
        biased;
        _ = poll_fn(|cx| respond.poll_reset(cx)) => return End::Abandoned,
        answered = service.call(request) => answered,
    };
    match answered {
        Ok(response) => send(response.into(), respond, is_head, stalled_max).await,
        Err(error) => send(error.into(), respond, is_head, stalled_max).await,
    }
}

async fn send<B: MessageBody>(
    response: Response<B>,
    mut respond: SendResponse<Bytes>,
    is_head: bool,
    stalled_max: Duration,
) -> End {
    let end = match response.head().connection_type() {
        ConnectionType::Close => End::Last,
        ConnectionType::KeepAlive | ConnectionType::Upgrade => End::Answered,
    };
    let (response, body) = response.into_parts();
    let size = message::size(&response, body.size());
    let is_whole = is_head || size.is_eof();
    let Ok(mut stream) = respond.send_response(message::head(&response, size), is_whole) else {
        return End::Abandoned;
    };
    if is_whole {
        return end;
    }
    let left = if let BodySize::Sized(len) = size { Some(len) } else { None };
    match pour(body, left, &mut stream, stalled_max).await {
        Ok(()) => end,
        Err(Some(reason)) => {
            stream.send_reset(reason);
            End::Abandoned
        }
        Err(None) => End::Abandoned,
    }
}

/// Sends a body as its client takes it. An error is why the stream is to be reset; none where it is over already.
async fn pour<B: MessageBody>(
    body: B,
    mut left: Option<u64>,
    stream: &mut SendStream<Bytes>,
    stalled_max: Duration,
) -> Result<(), Option<Reason>> {
    let mut body = pin!(body);
    loop {
        let piece = tokio::select! {
            biased;
            _ = poll_fn(|cx| stream.poll_reset(cx)) => return Err(None),
            piece = poll_fn(|cx| body.as_mut().poll_next(cx)) => piece,
        };
        let mut piece = match piece {
            None => return stream.send_data(Bytes::new(), true).map_err(|_| None),
            Some(Err(_)) => return Err(Some(Reason::INTERNAL_ERROR)),
            Some(Ok(piece)) => piece,
        };
        while !piece.is_empty() {
            stream.reserve_capacity(piece.len().min(SEND_BUFFER_LEN));
            let room = timeout(stalled_max, poll_fn(|cx| poll_room(stream, cx))).await;
            let room = room.map_err(|_| Some(Reason::CANCEL))?.ok_or(None)?;
            let now = piece.split_to(room.min(piece.len()));
            left = left.map(|left| left.saturating_sub(now.len() as u64));
            let is_last = left == Some(0);
            stream.send_data(now, is_last).map_err(|_| None)?;
            if is_last {
                return Ok(());
            }
        }
    }
}

/// Bytes that may be sent, more than none; `None` when the stream is over.
fn poll_room(stream: &mut SendStream<Bytes>, cx: &mut Context<'_>) -> Poll<Option<usize>> {
    loop {
        // It is told once: what was left over then is asked for.
        let room = stream.capacity();
        if 0 < room {
            return Poll::Ready(Some(room));
        }
        match ready!(stream.poll_capacity(cx)) {
            Some(Ok(0)) => {}
            Some(Ok(room)) => return Poll::Ready(Some(room)),
            Some(Err(_)) | None => return Poll::Ready(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use actix_service::fn_service;
    use tokio::sync::oneshot;

    use super::*;

    const LIMITS: Limits = Limits {
        header_len_max: 1 << 10,
        first_within: Duration::from_secs(10),
        idle_max: Duration::from_secs(300),
        stalled_max: Duration::from_secs(60),
    };

    /// A connection within the process: the client's side, and the server's side of it as a future.
    fn pair<S>(service: S, stopping: oneshot::Receiver<()>) -> (tokio::io::DuplexStream, impl Future<Output = ()>)
    where
        S: Service<Request, Response = Response<BoxBody>, Error = actix_http::Error>,
    {
        let (ours, theirs) = tokio::io::duplex(1 << 20);
        let caller = Caller { peer: None, shared: Rc::new(Extensions::new()) };
        let stopping = async { drop(stopping.await) };
        (theirs, serve(ours, LIMITS, caller, Rc::new(service), stopping))
    }

    fn get(path: &str) -> http::Request<()> {
        http::Request::builder().uri(format!("https://a{path}")).body(()).expect("a request")
    }

    #[tokio::test(start_paused = true)]
    async fn an_end_in_order_lets_open_requests_end() {
        let (finish, finished) = oneshot::channel::<()>();
        let finished = Rc::new(RefCell::new(Some(finished)));
        let service = fn_service(move |_: Request| {
            let finished = finished.borrow_mut().take();
            async move {
                if let Some(finished) = finished {
                    let _ = finished.await;
                }
                Ok::<_, actix_http::Error>(Response::ok().set_body(BoxBody::new("done")))
            }
        });
        let (stop, stopping) = oneshot::channel();
        let (stream, server) = pair(service, stopping);
        let client = async {
            let (mut send, connection) = h2::client::handshake(stream).await.unwrap();
            let mut connection = pin!(connection);
            let (answer, _) = send.send_request(get("/"), true).unwrap();
            let mut answer = pin!(answer);
            // The request is under way when the end begins.
            for _ in 0..100 {
                assert!(futures::poll!(&mut connection).is_pending());
                tokio::task::yield_now().await;
            }
            assert!(futures::poll!(&mut answer).is_pending());
            stop.send(()).unwrap();
            for _ in 0..100 {
                assert!(futures::poll!(&mut connection).is_pending());
                tokio::task::yield_now().await;
            }
            assert!(send.send_request(get("/"), true).is_err(), "a farewell was said");
            finish.send(()).unwrap();
            let work = async {
                let mut body = answer.await.unwrap().into_body();
                assert_eq!(body.data().await.unwrap().unwrap(), "done");
                drop((send, body));
            };
            let (ended, ()) = futures::join!(connection, work);
            ended.unwrap();
        };
        let within = timeout(Duration::from_secs(5), async { futures::join!(server, client) }).await;
        assert!(within.is_ok(), "the connection is over at once");
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_without_requests_ends_in_time() {
        for requests in 0..3 {
            let service = fn_service(|_: Request| async {
                Ok::<_, actix_http::Error>(Response::ok().set_body(BoxBody::new("a")))
            });
            let (_stop, stopping) = oneshot::channel();
            let (stream, server) = pair(service, stopping);
            let begun = Instant::now();
            let client = async {
                let (mut send, connection) = h2::client::handshake(stream).await.unwrap();
                let work = async {
                    for _ in 0..requests {
                        assert_eq!(send.send_request(get("/"), true).unwrap().0.await.unwrap().status(), 200);
                    }
                };
                let (ended, ()) = futures::join!(connection, work);
                drop((ended, send));
            };
            futures::join!(server, client);
            let expected = if requests == 0 { LIMITS.first_within } else { LIMITS.idle_max };
            let took = begun.elapsed();
            assert!(expected <= took && took <= expected + 2 * DISCONNECT_TIMEOUT, "{requests}: {took:?}");
        }
    }
}
