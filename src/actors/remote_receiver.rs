//! Takes remote write and OTLP metrics: decodes a request, has storage append it, and answers when it is durable. No actor: it has neither
//! a timer nor a mailbox. Bound: the memory of requests in flight; one that finds none is refused. Failure: a panic is the
//! request's own. Shutdown: with the HTTP server.

use std::io::Read as _;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::actors::pool::{ComputePool, Lane};
use crate::actors::storage_client::StorageClient;
use crate::actors::storage_shard::Refusals;
use crate::config::OtlpConfig;
use crate::model::append::{AppendReport, SampleRejection};
use crate::model::clock::SharedClock;
use crate::remote::otlp::{self, BodyFormat, BodyPacking, Converted, DeltaMode, OtlpError, OtlpMetrics, Settings};
use crate::remote::receive::budget::{Budget, Held};
use crate::remote::receive::cache::SeriesCache;
use crate::remote::receive::{
    Accepted, DECODED_LEN_MAX, DecodeError, Decoded, Extras, Format, Lookup, Message, Packing, ReceiveMetrics, Reply,
    UnpackError, decode, decoded_len, of_report, unpack,
};
use crate::telemetry::repeat::{RepeatLimiter, Verdict};

/// Requests up to this many bytes are decoded where they were read: it takes well below a millisecond.
const INLINE_LEN_MAX: usize = 1 << 20;
/// OTLP requests up to this many bytes are translated where they were read.
const OTLP_INLINE_LEN_MAX: usize = 32 << 10;
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
    /// What is taken in beside samples.
    pub extras: Extras,
    /// For OTLP.
    pub otlp: OtlpDeps,
}

/// What the receiver needs for OTLP.
pub struct OtlpDeps {
    /// The rules for names and labels in effect.
    pub config: ArcSwap<OtlpConfig>,
    /// `--query.lookback-delta`.
    pub lookback_ms: i64,
    /// Counters; `None` while it is switched off.
    pub metrics: Option<OtlpMetrics>,
    /// What becomes of deltas.
    pub deltas: DeltaMode,
}

/// The receiver, shared by all connections.
pub struct RemoteReceiver {
    deps: ReceiverDeps,
    cache: SeriesCache,
    spare: Mutex<Vec<Vec<u8>>>,
    refused: Mutex<RepeatLimiter>,
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
        Arc::new(Self { deps, cache: SeriesCache::new(), spare: Mutex::default(), refused: Mutex::default() })
    }

    /// A permit for a request that begins; its body is to be charged as it comes.
    pub fn permit(&self) -> Held {
        self.deps.budget.permit()
    }

    /// Stores a request. It is visible and durable when this answers with success.
    pub async fn receive(self: &Arc<Self>, incoming: Incoming) -> Reply {
        let reply = self.try_receive(incoming).await.unwrap_or_else(|refusal| refusal);
        self.tell(&reply, "remote write");
        reply
    }

    /// Counts and logs what is wrong with a request. Faults of its own are the sender's to log; what repeats is told once.
    fn tell(&self, reply: &Reply, protocol: &'static str) {
        let (status, err) = (reply.status, reply.text.as_str());
        if status != 503 && status != 413 {
            if 400 <= status {
                tracing::debug!(component = "web", protocol, status, err, "A request has faults");
            }
            return;
        }
        self.deps.metrics.refused.inc();
        if let Verdict::Log { repeated } = self.refused.lock().failed(err, self.deps.clock.monotonic()) {
            tracing::warn!(component = "web", protocol, status, err, repeated, "A request is refused");
        }
    }

    /// From now on OTLP is translated by these rules.
    pub fn set_otlp(&self, config: OtlpConfig) {
        self.deps.otlp.config.store(Arc::new(config));
    }

    /// Stores OTLP metrics: a whole request, or nothing of it. It is visible and durable when this answers with success.
    pub async fn receive_otlp(self: &Arc<Self>, incoming: Incoming) -> Reply {
        let reply = self.try_receive_otlp(incoming).await.unwrap_or_else(|refusal| refusal);
        self.tell(&reply, "OTLP");
        reply
    }

    async fn try_receive_otlp(self: &Arc<Self>, incoming: Incoming) -> Result<Reply, Reply> {
        let Incoming { content_encoding, content_type, body, mut held } = incoming;
        let bad_request = |text: String| Reply::refused(400, None, text);
        let format = BodyFormat::of(content_type.as_deref()).map_err(bad_request)?;
        let packing = BodyPacking::of(content_encoding.as_deref()).map_err(bad_request)?;
        let is_short = body.len() <= OTLP_INLINE_LEN_MAX && packing == BodyPacking::None;
        let this = Arc::clone(self);
        // What is held is kept until the answer.
        let job = move || -> (Result<Converted, OtlpError>, Held) {
            let converted = inflate(packing, body, &mut held).and_then(|body| {
                let config = this.deps.otlp.config.load();
                let settings = Settings {
                    config: &config,
                    lookback_ms: this.deps.otlp.lookback_ms,
                    now: this.deps.clock.now(),
                    extras: this.deps.extras,
                    deltas: this.deps.otlp.deltas.at(this.deps.clock.monotonic()),
                };
                otlp::convert(format, &body, settings, &mut held)
            });
            (converted, held)
        };
        let (converted, _held) = if is_short {
            job()
        } else {
            let ran = self.deps.pool.run(Lane::Storage, Instant::now() + STORE_WITHIN, move |_: &_| job()).await;
            ran.map_err(|error| Reply::refused(503, None, error.to_string()))?
        };
        let mut converted = converted.map_err(|error| Reply::from(&error))?;
        if let Some(metrics) = &self.deps.otlp.metrics {
            metrics.converted(&converted, self.deps.extras, &self.deps.otlp.deltas);
        }
        if let Some(refusal) = converted.refusal() {
            return Err(refusal);
        }
        let (batch, deadline) = (std::mem::take(&mut converted.batch), Instant::now() + STORE_WITHIN);
        let stored = self.deps.storage.append_durably(batch, Refusals::Whole, deadline).await;
        let report = stored.map_err(|failure| Reply::refused(503, None, failure.to_string()))?;
        if let Some(metrics) = &self.deps.otlp.metrics {
            metrics.stored(&converted, &report);
        }
        Ok(otlp::of_report(&converted, &report))
    }

    /// The answer to a form, of which the body is gone: what its headers deserve.
    pub fn refusal_of_form(&self, content_encoding: Option<&str>, content_type: Option<&str>) -> Reply {
        let packing = Packing::of(content_encoding);
        let format = packing.and_then(|packing| Format::of(packing, content_type, &self.deps.accepted));
        Reply::refused(415, None, format.err().unwrap_or_default())
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
        self.deps.metrics.decoded(format.message, &decoded, self.deps.extras);
        let mut report = self.store(format.message, &mut decoded).await?;
        if report.rejected.iter().any(|(_, rejection)| *rejection == SampleRejection::UnknownSeries) {
            // The head has dropped series that the cache still has; nothing was stored.
            self.deps.metrics.looked_up_again.inc();
            (work, decoded) = self.decode(work, Known::ByNone).await?;
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
        let (now, extras) = (self.deps.clock.now(), self.deps.extras);
        let decoded = decode(work.format.message, message, now, lookup, extras, &mut work.held);
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

/// Decompresses an OTLP body, at most [`DECODED_LEN_MAX`] bytes.
fn inflate(packing: BodyPacking, body: Vec<u8>, held: &mut Held) -> Result<Vec<u8>, OtlpError> {
    /// Decompressed and paid for at a time.
    const STEP_LEN: usize = 64 << 10;
    let too_long = || OtlpError::Malformed(format!("request body exceeds the {DECODED_LEN_MAX} bytes limit"));
    if packing == BodyPacking::None {
        return if body.len() <= DECODED_LEN_MAX { Ok(body) } else { Err(too_long()) };
    }
    let mut reader = flate2::read::MultiGzDecoder::new(body.as_slice());
    let (mut out, mut len) = (Vec::new(), 0);
    loop {
        if out.len() <= len {
            if DECODED_LEN_MAX < len {
                return Err(too_long());
            }
            held.add(out.len().max(STEP_LEN) as u64)?;
            out.resize((2 * len).max(STEP_LEN), 0);
        }
        let read = reader.read(out.get_mut(len..).unwrap_or_default());
        match read.map_err(|error| OtlpError::Malformed(format!("gzip: {error}")))? {
            0 => break,
            read => len += read,
        }
    }
    out.truncate(len);
    if len <= DECODED_LEN_MAX { Ok(out) } else { Err(too_long()) }
}
