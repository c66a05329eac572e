//! A connection of which what comes is rewritten on its way to the parser of the HTTP library. What is sent passes as it is.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// How what comes is rewritten.
pub(super) trait Rewrite {
    /// Bytes that are handed on in a row; then the parser has to look at them.
    const TURN_LEN: usize;
    /// Bytes of the parser's buffer that are left free while it has not looked at what is there; 0 where that makes no difference.
    /// A parser that makes room before it asks for more, and keeps what it has made, would have a longer buffer each time.
    const SPARE_LEN: usize = 0;

    /// Takes the next bytes. `None` if they are to be read as they are; else what is to be read in their place, which may be
    /// nothing yet.
    fn rewrite(&mut self, came: &[u8]) -> Option<Vec<u8>>;

    /// Asked while nothing comes. Once it is ready, the connection is read as if its client had closed it.
    fn poll_waiting(&mut self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Pending
    }
}

/// A connection, and how what comes on it is rewritten.
pub(super) struct Rewritten<T, R> {
    io: T,
    rewrite: R,
    /// Bytes that found no room, and how many of them were taken since.
    rest: (Vec<u8>, usize),
    /// Bytes that were handed on in this turn.
    in_turn: usize,
}

impl<T, R> Rewritten<T, R> {
    pub(super) fn new(io: T, rewrite: R) -> Self {
        Self { io, rewrite, rest: (Vec::new(), 0), in_turn: 0 }
    }

    pub(super) fn get_ref(&self) -> (&T, &R) {
        (&self.io, &self.rewrite)
    }

    /// Hands out what found no room before, at most so many bytes; false if there is nothing.
    fn give_rest(&mut self, buf: &mut ReadBuf<'_>, most: usize) -> bool {
        let (rest, taken) = &mut self.rest;
        let left = rest.get(*taken..).unwrap_or_default();
        let Some(now) = left.get(..left.len().min(most)).filter(|_| !left.is_empty()) else { return false };
        buf.put_slice(now);
        *taken += now.len();
        if *taken == rest.len() {
            self.rest = (Vec::new(), 0);
        }
        true
    }
}

impl<T: AsyncRead + Unpin, R> Rewritten<T, R> {
    /// Reads at most so many bytes.
    fn poll_some(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>, most: usize) -> Poll<io::Result<()>> {
        if buf.remaining() <= most {
            return Pin::new(&mut self.io).poll_read(cx, buf);
        }
        // Memory of the connection is touched by what comes alone: many wait for a first byte.
        SCRATCH.with_borrow_mut(|scratch| {
            if scratch.len() < most {
                scratch.resize(most, 0);
            }
            let mut part = ReadBuf::new(scratch.get_mut(..most).unwrap_or_default());
            ready!(Pin::new(&mut self.io).poll_read(cx, &mut part))?;
            buf.put_slice(part.filled());
            Poll::Ready(Ok(()))
        })
    }
}

thread_local! {
    /// What was read and is on its way to its buffer.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl<T: AsyncRead + Unpin, R: Rewrite + Unpin> AsyncRead for Rewritten<T, R> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let room = buf.remaining();
        let most = match R::SPARE_LEN {
            0 => room,
            spare if spare <= room / 2 => room - spare,
            // So little that the parser moves it to the front of its buffer, and has room again.
            _ if this.in_turn == 0 => room.div_ceil(2),
            _ => 0,
        };
        if R::TURN_LEN <= this.in_turn || (most == 0 && 0 < room) {
            this.in_turn = 0;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let begun = buf.filled().len();
        while !this.give_rest(buf, most) {
            let before = buf.filled().len();
            match this.poll_some(cx, buf, most) {
                Poll::Ready(read) => read?,
                Poll::Pending => {
                    this.in_turn = 0;
                    return this.rewrite.poll_waiting(cx).map(Ok);
                }
            }
            let came = buf.filled().get(before..).unwrap_or_default();
            if came.is_empty() {
                break;
            }
            let Some(instead) = this.rewrite.rewrite(came) else { break };
            buf.set_filled(before);
            this.rest = (instead, 0);
        }
        this.in_turn += buf.filled().len().saturating_sub(begun);
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin, R: Unpin> AsyncWrite for Rewritten<T, R> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// Doubles each byte but the dots, which it keeps back until something else comes.
    #[derive(Default)]
    struct Doubled {
        dots: usize,
        is_over: bool,
    }

    impl Rewrite for Doubled {
        const TURN_LEN: usize = 8;

        fn rewrite(&mut self, came: &[u8]) -> Option<Vec<u8>> {
            if came == b"as it is" {
                return None;
            }
            let mut out = Vec::new();
            for byte in came {
                if *byte == b'.' {
                    self.dots += 1;
                } else {
                    out.extend(std::iter::repeat_n(b'.', std::mem::take(&mut self.dots)));
                    out.extend([*byte, *byte]);
                }
            }
            Some(out)
        }

        fn poll_waiting(&mut self, _: &mut Context<'_>) -> Poll<()> {
            if self.is_over { Poll::Ready(()) } else { Poll::Pending }
        }
    }

    #[tokio::test]
    async fn what_finds_no_room_comes_later_and_what_is_kept_back_is_waited_for() {
        let (mut client, server) = tokio::io::duplex(100);
        let mut server = Rewritten::new(server, Doubled::default());
        let mut buf = [0; 3];
        client.write_all(b"abcd").await.unwrap();
        let mut read = String::new();
        while read.len() < 8 {
            let len = server.read(&mut buf).await.unwrap();
            read.push_str(std::str::from_utf8(&buf[..len]).unwrap());
        }
        assert_eq!(read, "aabbccdd");
        client.write_all(b"..").await.unwrap();
        assert!(futures::poll!(std::pin::pin!(server.read(&mut buf))).is_pending());
        client.write_all(b"e").await.unwrap();
        assert_eq!(server.read(&mut buf).await.unwrap(), 3);
        assert_eq!(&buf, b"..e");
    }

    /// Reads until nothing comes, as a parser does; how much, and whether the end has come.
    async fn take(server: &mut Rewritten<tokio::io::DuplexStream, Doubled>) -> (usize, bool) {
        poll_fn(|cx| {
            let mut count = 0;
            loop {
                let mut bytes = [0; 8];
                let mut buf = ReadBuf::new(&mut bytes);
                match Pin::new(&mut *server).poll_read(cx, &mut buf) {
                    Poll::Ready(read) => read.unwrap(),
                    Poll::Pending => return Poll::Ready((count, false)),
                }
                if buf.filled().is_empty() {
                    return Poll::Ready((count, true));
                }
                count += buf.filled().len();
            }
        })
        .await
    }

    /// Passes all.
    struct Plain;

    impl Rewrite for Plain {
        const TURN_LEN: usize = 20;
        const SPARE_LEN: usize = 4;

        fn rewrite(&mut self, _: &[u8]) -> Option<Vec<u8>> {
            None
        }
    }

    #[tokio::test]
    async fn room_is_left_in_the_buffer_of_who_has_not_looked_yet() {
        let (mut client, server) = tokio::io::duplex(1000);
        let mut server = Rewritten::new(server, Plain);
        client.write_all(&[b'a'; 1000]).await.unwrap();
        let mut read = |room: usize| {
            let mut bytes = [0; 100];
            let mut buf = ReadBuf::new(&mut bytes[..room]);
            let mut cx = Context::from_waker(futures::task::noop_waker_ref());
            let polled = Pin::new(&mut server).poll_read(&mut cx, &mut buf);
            polled.is_ready().then(|| buf.filled().len())
        };
        // A turn; then one that begins with little room and goes on with as little; then one that is over by its length.
        assert_eq!([read(16), read(4)], [Some(12), None]);
        assert_eq!([read(7), read(3), read(7)], [Some(4), None, Some(4)]);
        assert_eq!([read(30), read(30), read(30)], [Some(26), None, Some(26)]);
    }

    #[tokio::test]
    async fn a_turn_ends_after_its_bytes_and_who_waits_too_long_has_closed() {
        let (mut client, server) = tokio::io::duplex(100);
        let mut server = Rewritten::new(server, Doubled::default());
        client.write_all(b"as it isas it is").await.unwrap();
        assert_eq!(take(&mut server).await, (8, false), "there was more");
        assert_eq!(take(&mut server).await, (8, false));
        assert_eq!(take(&mut server).await, (0, false));
        client.write_all(b"ab").await.unwrap();
        assert_eq!(take(&mut server).await, (4, false));
        server.rewrite.is_over = true;
        assert_eq!(take(&mut server).await, (0, true));
    }
}
