//! What a peer says first, kept while a TLS handshake is tried: its failure then tells a peer that speaks HTTP from any other.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, ReadBuf};

use crate::client::watched::Watch;

/// How many bytes are kept: those of a record's header, or `HTTP/`.
const LEN_MAX: usize = 5;

/// The first bytes that a peer has sent so far.
#[derive(Clone, Debug, Default)]
pub(super) struct FirstBytes(Arc<Mutex<Vec<u8>>>);

impl FirstBytes {
    /// Who notes them.
    pub(super) fn noting(&self) -> Noting {
        Noting(Some(self.clone()))
    }

    /// True if they begin an answer of HTTP.
    pub(super) fn are_http(&self) -> bool {
        self.0.lock().as_slice() == b"HTTP/"
    }
}

/// Notes the first bytes as they are read; none once all are there.
pub(super) struct Noting(Option<FirstBytes>);

impl Watch for Noting {
    fn read<W: AsyncRead + Unpin>(
        &mut self,
        wire: &mut W,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(wire).poll_read(cx, buf))?;
        if let Some(first) = &self.0 {
            let mut noted = first.0.lock();
            let read = buf.filled().get(before..).unwrap_or_default();
            let room = LEN_MAX - noted.len().min(LEN_MAX);
            noted.extend(read.iter().take(room));
            if noted.len() == LEN_MAX {
                drop(noted);
                self.0 = None;
            }
        }
        Poll::Ready(Ok(()))
    }
}
