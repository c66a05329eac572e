//! Takes remote write: decodes a request, has storage append it, and answers when it is durable. No actor: it has neither
//! a timer nor a mailbox. Bound: the memory of requests in flight; one that finds none is refused. Failure: a panic is the
//! request's own. Shutdown: with the HTTP server.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::actors::pool::{ComputePool, Lane};
use crate::actors::storage_client::StorageClient;
use crate::actors::storage_shard::Refusals;
use crate::model::append::{AppendReport, SampleRejection};
use crate::model::clock::SharedClock;
use crate::remote::receive::budget::{Budget, Held};
use crate::remote::receive::cache::SeriesCache;
use crate::remote::receive::{
    Accepted, DECODED_LEN_MAX, DecodeError, Decoded, Format, Lookup, Message, Packing, ReceiveMetrics, Reply,
    UnpackError, decode, decoded_len, of_report, refuse_histograms, unpack,
};

/// Requests up to this many bytes are decoded where they were read: it takes well below a millisecond.
const INLINE_LEN_MAX: usize = 1 << 20;
/// How long a request may wait for the compute pool, and for a shard to take it.
const STORE_WITHIN: Duration = Duration::from_secs(30);
/// Buffers that are kept for the next requests, each of at most [`INLINE_LEN_MAX`] bytes.
const SPARE_BUFFERS_MAX: usize = 8;

/// One request, as HTTP has read it.
#[derive(Debug)]
pub struct Incoming {
    /// The header `Content-Encoding`.
    pub content_encoding: Option<String>,
    /// The header `Content-Type`.
    pub content_type: Option<String>,
    /// The body.
    pub body: Vec<u8>,
    /// What the body holds of the budget.
    pub held: Held,
}

/// What the receiver is given.
pub struct ReceiverDeps {
    /// Where samples go.
    pub storage: StorageClient,
    /// Where long requests are decoded.
    pub pool: Arc<ComputePool>,
    /// Tells which samples lie in the future.
    pub clock: SharedClock,
    /// Messages that are accepted.
    pub accepted: Accepted,
    /// Memory for requests in flight.
    pub budget: Arc<Budget>,
    /// Counters.
    pub metrics: ReceiveMetrics,
}

/// The receiver, shared by all connections.
pub struct RemoteReceiver {
    deps: ReceiverDeps,
    cache: SeriesCache,
    spare: Mutex<Vec<Vec<u8>>>,
}

/// A request on its way.
struct Work {
    format: Format,
    packed: Vec<u8>,
    declared: Option<usize>,
    /// The message, longer than it is.
    buffer: Vec<u8>,
    len: usize,
    held: Held,
}

impl Work {
    fn message(&self) -> &[u8] {
        self.buffer.get(..self.len).unwrap_or_default()
    }
}

enum Undecodable {
    Unpack(UnpackError),
    Decode(DecodeError),
}

impl RemoteReceiver {
    /// A receiver that knows no series yet.
    pub fn new(deps: ReceiverDeps) -> Arc<Self> {
        Arc::new(Self { deps, cache: SeriesCache::new(), spare: Mutex::default() })
    }

    /// A permit for a request that begins; its body is to be charged as it comes.
    pub fn permit(&self) -> Held {
        self.deps.budget.permit()
    }

    /// Stores a request. It is visible and durable when this answers with success.
    pub async fn receive(self: &Arc<Self>, incoming: Incoming) -> Reply {
        let reply = self.try_receive(incoming).await.unwrap_or_else(|refusal| refusal);
        if reply.status == 503 || reply.status == 413 {
            self.deps.metrics.refused.inc();
            tracing::warn!(
                component = "web",
                status = reply.status,
                err = reply.text,
                "A remote write request is refused"
            );
        } else if 400 <= reply.status {
            tracing::debug!(
                component = "web",
                status = reply.status,
                err = reply.text,
                "A remote write request has faults"
            );
        }
        reply
    }

    async fn try_receive(self: &Arc<Self>, incoming: Incoming) -> Result<Reply, Reply> {
        let Incoming { content_encoding, content_type, body: packed, mut held } = incoming;
        let unsupported = |text: String| Reply::refused(415, None, text);
        let packing = Packing::of(content_encoding.as_deref()).map_err(unsupported)?;
        let declared = decoded_len(packing, &packed).map_err(|error| Reply::packed(&error))?;
        held.add(declared.unwrap_or(DECODED_LEN_MAX) as u64).map_err(Reply::no_room)?;
        let format = match Format::of(packing, content_type.as_deref(), &self.deps.accepted) {
            Ok(format) => format,
            // As in Prometheus a body that cannot be decompressed is told first.
            Err(text) => match unpack(packing, &packed, declared, &mut Vec::new()) {
                Ok(_) => return Err(unsupported(text)),
                Err(error) => return Err(Reply::packed(&error)),
            },
        };
        let buffer = self.spare.lock().pop().unwrap_or_default();
        let work = Work { format, packed, declared, buffer, len: 0, held };
        let (mut work, mut decoded) = self.decode(work, Known::ByCache).await?;
        self.deps.metrics.decoded(format.message, &decoded);
        let refused = refuse_histograms(format.message, work.message(), &mut decoded);
        self.deps.metrics.histograms_refused.add(refused);
        let mut report = self.store(format.message, &mut decoded).await?;
        if report.rejected.iter().any(|(_, rejection)| *rejection == SampleRejection::UnknownSeries) {
            // The head has dropped series that the cache still has; nothing was stored.
            self.deps.metrics.looked_up_again.inc();
            (work, decoded) = self.decode(work, Known::ByNone).await?;
            refuse_histograms(format.message, work.message(), &mut decoded);
            report = self.store(format.message, &mut decoded).await?;
        }
        let reply = of_report(format.message, work.message(), &decoded, &report);
        if 0 < report.appended {
            decoded.enter(&self.cache, &report, self.deps.storage.series_count());
        }
        self.keep(work.buffer);
        Ok(reply)
    }

    async fn store(&self, message: Message, decoded: &mut Decoded) -> Result<AppendReport, Reply> {
        let refusals = match message {
            Message::V1 => Refusals::Whole,
            Message::V2 => Refusals::UnknownSeries,
        };
        let batch = std::mem::take(&mut decoded.batch);
        let stored = self.deps.storage.append_durably(batch, refusals, Instant::now() + STORE_WITHIN).await;
        stored.map_err(|failure| Reply::unavailable(message, failure.to_string()))
    }

    /// Unpacks and reads a request: here if that is quick, else on the compute pool.
    async fn decode(self: &Arc<Self>, work: Work, known: Known) -> Result<(Work, Decoded), Reply> {
        let message = work.format.message;
        let decoded = if work.declared.is_some_and(|len| len <= INLINE_LEN_MAX) {
            self.decode_now(work, known)
        } else {
            let this = Arc::clone(self);
            let job = move |_: &_| this.decode_now(work, known);
            let ran = self.deps.pool.run(Lane::Storage, Instant::now() + STORE_WITHIN, job).await;
            ran.map_err(|error| Reply::unavailable(message, error.to_string()))?
        };
        decoded.map_err(|error| match error {
            Undecodable::Unpack(error) => Reply::packed(&error),
            Undecodable::Decode(error) => Reply::undecodable(message, &error),
        })
    }

    fn decode_now(&self, mut work: Work, known: Known) -> Result<(Work, Decoded), Undecodable> {
        if !work.packed.is_empty() {
            let unpacked = unpack(work.format.packing, &work.packed, work.declared, &mut work.buffer);
            work.len = unpacked.map_err(Undecodable::Unpack)?;
            work.packed = Vec::new();
        }
        let lookup = match known {
            Known::ByCache => Lookup::Cached(&self.cache),
            Known::ByNone => Lookup::ByLabels(&self.cache),
        };
        let message = work.buffer.get(..work.len).unwrap_or_default();
        let decoded = decode(work.format.message, message, self.deps.clock.now(), lookup, &mut work.held);
        decoded.map(|decoded| (work, decoded)).map_err(Undecodable::Decode)
    }

    fn keep(&self, buffer: Vec<u8>) {
        let mut spare = self.spare.lock();
        if buffer.len() <= INLINE_LEN_MAX && spare.len() < SPARE_BUFFERS_MAX {
            spare.push(buffer);
        }
    }
}

/// Which series are named by references.
#[derive(Clone, Copy)]
enum Known {
    ByCache,
    ByNone,
}
