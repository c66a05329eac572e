//! Answers other servers that read from us (`POST /api/v1/read`). No actor: selecting is the query gateway's, and pieces
//! of a streamed answer are written on the compute pool, each when the one before it was taken. Bound: requests at a time;
//! a piece of each. Failure: an error before the first piece is the answer, a later one ends the connection. Shutdown: with
//! the HTTP server.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures::future::{BoxFuture, FutureExt as _};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::actors::mailbox::{BoundedAddr, SendError};
use crate::actors::pool::{ComputePool, Lane};
use crate::actors::query_gateway::{QueryFailure, QueryGateway, RemoteRead, RunRemoteRead, Sampled};
use crate::model::labels::Labels;
use crate::model::read::{SampleColumn, SelectedSeries};
use crate::model::time::TimeRange;
use crate::promql::eval::Charge;
use crate::remote::read::{FoundChunk, Frame, ReadRequest, ResponseType};
use crate::storage::block::rewrite::of_column;
use crate::telemetry::metrics::{Gauge, Registry};

/// Bytes after which a piece is complete; one series may take it beyond.
const PIECE_LEN: usize = 128 << 10;
/// Added to the time of a query: the gateway's error is better than ours.
const ASK_MARGIN: Duration = Duration::from_secs(10);

/// Limits, those of the flags.
#[derive(Clone, Copy, Debug)]
pub struct ReadLimits {
    /// Most samples for a query (`--storage.remote.read-sample-limit`); 0 for any number.
    pub samples: usize,
    /// Requests at a time (`--storage.remote.read-concurrent-limit`); 0 for any number.
    pub concurrency: usize,
    /// Bytes of a frame (`--storage.remote.read-max-bytes-in-frame`).
    pub frame_len: usize,
    /// Longest time to select, and to write a piece.
    pub timeout: Duration,
}

/// The answering side of remote read.
pub struct RemoteReadServer {
    gateway: BoundedAddr<QueryGateway>,
    pool: Arc<ComputePool>,
    limits: ReadLimits,
    gate: Option<Arc<Semaphore>>,
    queries: Gauge,
    external: ArcSwap<Labels>,
}

/// A request's place; given back on drop.
pub struct ReadPermit {
    _turn: Option<OwnedSemaphorePermit>,
    queries: Gauge,
}

impl Drop for ReadPermit {
    fn drop(&mut self) {
        self.queries.add(-1.0);
    }
}

/// Why a request has no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadRefusal {
    /// The request is no good.
    Bad(String),
    /// It failed.
    Failed(String),
    /// There is no room or time for it now.
    Busy(String),
}

/// An answer.
pub enum ReadAnswer {
    /// All samples, packed, and what they hold.
    Samples(Vec<u8>, Charge),
    /// Frames, piece by piece.
    Streamed(ReadStream),
}

impl RemoteReadServer {
    /// A server without external labels, which come with the configuration.
    pub fn new(
        gateway: BoundedAddr<QueryGateway>,
        pool: Arc<ComputePool>,
        limits: ReadLimits,
        registry: &Registry,
    ) -> Arc<Self> {
        let name = "prometheus_remote_read_handler_queries";
        let help = "The current number of remote read queries that are either in execution or queued on the handler.";
        let queries = registry.gauge(name, help, &[]);
        let gate = (0 < limits.concurrency).then(|| Arc::new(Semaphore::new(limits.concurrency)));
        Arc::new(Self { gateway, pool, limits, gate, queries, external: ArcSwap::from_pointee(Labels::empty()) })
    }

    /// Gives series these labels from now on.
    pub fn set_external(&self, external: Labels) {
        self.external.store(Arc::new(external));
    }

    /// Waits for a place.
    pub async fn enter(&self) -> ReadPermit {
        let turn = match &self.gate {
            // It is never closed.
            Some(gate) => Arc::clone(gate).acquire_owned().await.ok(),
            None => None,
        };
        self.queries.add(1.0);
        ReadPermit { _turn: turn, queries: self.queries.clone() }
    }

    /// Answers a request, in the way that it wants.
    pub async fn answer(&self, request: ReadRequest, permit: ReadPermit) -> Result<ReadAnswer, ReadRefusal> {
        let external = self.external.load_full();
        let response_type = request.response_type().map_err(ReadRefusal::Bad)?;
        let mut selections = Vec::with_capacity(request.queries.len());
        for query in &request.queries {
            let matchers = query.local_matchers(&external);
            let matchers = matchers.map_err(|error| ReadRefusal::Failed(error.to_string()))?;
            // One that asks for nothing selects nothing, as in Prometheus.
            let range = query.range().filter(|_| !matchers.is_empty());
            selections.push((matchers, range));
        }
        let sampled = match response_type {
            ResponseType::Samples => Some(Sampled { limit: self.limits.samples, external: Labels::clone(&external) }),
            ResponseType::StreamedChunks => None,
        };
        let deadline = Instant::now() + self.limits.timeout + ASK_MARGIN;
        let read = self.gateway.read(RunRemoteRead { selections, sampled }, deadline).await;
        match read.map_err(of_send)?.map_err(of_query)? {
            RemoteRead::Samples(body, held) => Ok(ReadAnswer::Samples(body, held)),
            RemoteRead::OverLimit => Err(ReadRefusal::Bad(format!("exceeded sample limit ({})", self.limits.samples))),
            RemoteRead::Series(series, held) => {
                let left = series.into_iter().enumerate();
                let left = left.map(|(query, (range, series))| (query, range, series.into_iter())).collect();
                let (frame_len, column) = (self.limits.frame_len, SampleColumn::default());
                let state = Box::new(State { left, external, frame_len, column, held });
                let pool = Arc::clone(&self.pool);
                let timeout = self.limits.timeout;
                Ok(ReadAnswer::Streamed(ReadStream { stage: Stage::Idle(state), pool, timeout, _permit: permit }))
            }
        }
    }
}

fn of_send(error: SendError) -> ReadRefusal {
    match error {
        SendError::Full => ReadRefusal::Busy("too many queries are waiting (--query.max-concurrency)".to_owned()),
        SendError::Deadline => ReadRefusal::Busy("query timed out in query queue".to_owned()),
        SendError::Restarted | SendError::Gone => ReadRefusal::Failed(format!("query engine: {error}")),
    }
}

fn of_query(failure: QueryFailure) -> ReadRefusal {
    match failure {
        QueryFailure::QueueTimeout | QueryFailure::Overloaded(_) => ReadRefusal::Busy(failure.to_string()),
        failure => ReadRefusal::Failed(failure.to_string()),
    }
}

/// Frames on their way.
pub struct ReadStream {
    stage: Stage,
    pool: Arc<ComputePool>,
    timeout: Duration,
    _permit: ReadPermit,
}

/// What is left, and the bytes to send.
type Written = Result<(Box<State>, Vec<u8>), String>;

enum Stage {
    Idle(Box<State>),
    Writing(BoxFuture<'static, Written>),
    Done,
}

/// What is still to be written.
struct State {
    left: VecDeque<(usize, TimeRange, std::vec::IntoIter<SelectedSeries>)>,
    external: Arc<Labels>,
    frame_len: usize,
    column: SampleColumn,
    held: Charge,
}

impl ReadStream {
    /// The next frames; `None` after the last. After an error there is nothing more.
    pub fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Vec<u8>, String>>> {
        loop {
            match std::mem::replace(&mut self.stage, Stage::Done) {
                Stage::Done => return Poll::Ready(None),
                Stage::Idle(mut state) => {
                    let job = move |_: &_| state.piece().map(|piece| (state, piece));
                    let ran = self.pool.run(Lane::Queries, Instant::now() + self.timeout, job);
                    let ran = ran.map(|ran| ran.map_err(|error| error.to_string())?);
                    self.stage = Stage::Writing(ran.boxed());
                }
                Stage::Writing(mut writing) => match Pin::new(&mut writing).poll(cx) {
                    Poll::Pending => {
                        self.stage = Stage::Writing(writing);
                        return Poll::Pending;
                    }
                    Poll::Ready(Err(error)) => return Poll::Ready(Some(Err(error))),
                    Poll::Ready(Ok((state, piece))) => {
                        if !state.left.is_empty() {
                            self.stage = Stage::Idle(state);
                        }
                        if !piece.is_empty() {
                            return Poll::Ready(Some(Ok(piece)));
                        }
                    }
                },
            }
        }
    }
}

impl State {
    fn piece(&mut self) -> Result<Vec<u8>, String> {
        let mut out = Vec::new();
        while let Some((query, range, series)) = self.left.front_mut() {
            let Some(one) = series.next() else {
                self.left.pop_front();
                continue;
            };
            self.column.clear();
            one.samples.decode_all(*range, &mut self.column).map_err(|error| error.to_string())?;
            let mut frame = Frame::new(&one.labels, &self.external, *query, self.frame_len);
            for chunk in of_column(&self.column).map_err(|error| error.to_string())? {
                let (min_ms, max_ms) = (chunk.min_t, chunk.max_t);
                frame.chunk(&FoundChunk { min_ms, max_ms, encoding: chunk.encoding, data: &chunk.data }, &mut out);
            }
            frame.close(&mut out);
            if PIECE_LEN <= out.len() {
                break;
            }
        }
        // The samples of a long series and what was written of them: what a short one takes is in the margin of a query.
        let working = self.column.memory_len() + out.capacity();
        self.held.grow(working).map_err(|over| over.to_string())?;
        self.held.shrink(working);
        Ok(out)
    }
}
