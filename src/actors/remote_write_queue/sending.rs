//! How the shards of a queue send: batch by batch, each until it is answered for.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use crate::actors::pool::PoolError;
use crate::actors::registry::Entry;
use crate::actors::remote_write_queue::work::Closing;
use crate::actors::remote_write_queue::{Active, QueueDeps};
use crate::remote::send::encode::{encode, encode_descriptions};
use crate::remote::send::metrics::{CLASSES, Class, Counts, Reason};
use crate::remote::send::post::Outcome;
use crate::remote::send::queue::{Batch, Item, Next};

/// How long encoding waits when the compute pool has no room.
const POOL_AGAIN_AFTER: Duration = Duration::from_millis(200);
/// A shard without anything looks again after this long at the latest.
const IDLE_FOR: Duration = Duration::from_secs(60);

/// A batch on its way.
struct Letter {
    batch: Arc<Batch>,
    /// Items before this time are left out, as they became too old.
    from: i64,
    counts: Counts,
    body: Option<Bytes>,
}

impl QueueDeps {
    /// Sends what shard `index` gets, until it is to end.
    pub(super) async fn shard(
        self: &Arc<Self>,
        index: usize,
        mut closing: watch::Receiver<Closing>,
        entry: &Arc<Entry>,
    ) {
        loop {
            let bell = self.bell.notified();
            tokio::pin!(bell);
            // From here on no ringing is missed.
            bell.as_mut().enable();
            let close = *closing.borrow_and_update();
            let (len_max, patience) = {
                let active = self.active.load();
                let queue = &active.to.config.queue_config;
                (usize::try_from(queue.max_samples_per_send).unwrap_or(usize::MAX), queue.batch_send_deadline.to_std())
            };
            if close == Closing::Finish {
                return;
            }
            let now = Instant::now();
            let next = self.with_flight(|flight| flight.next(index, len_max, patience, now, close == Closing::Flush));
            match next {
                Some(Next::Send(batch)) => {
                    self.room.notify_one();
                    self.deliver(batch, entry).await;
                    self.with_flight(|flight| flight.finish(index));
                    self.room.notify_one();
                }
                Some(Next::Wait(_)) | None if close == Closing::Flush => return,
                Some(Next::Wait(due)) => {
                    tokio::select! {
                        () = bell => {}
                        () = sleep_until(due.unwrap_or(now + IDLE_FOR)) => {}
                        // One that was dropped is an order to nobody.
                        changed = closing.changed() => if changed.is_err() { return },
                    }
                }
                None => sleep(POOL_AGAIN_AFTER).await,
            }
        }
    }

    /// Sends a batch until it is answered for, or until there is nothing left in it that is young enough.
    async fn deliver(self: &Arc<Self>, batch: Arc<Batch>, entry: &Arc<Entry>) {
        let active = self.active.load_full();
        let queue = &active.to.config.queue_config;
        let (began, newest) = (self.runtime.clock.monotonic(), batch.items.iter().map(|item| item.t).max());
        let mut letter = Letter { counts: batch.counts(), batch, from: i64::MIN, body: None };
        let (mut attempt, mut backoff) = (0, queue.min_backoff.to_std());
        loop {
            self.drop_old(&active, &mut letter);
            if letter.counts == [0; 3] {
                return;
            }
            let Some(body) = self.body(&active, &mut letter).await else { return };
            let len = body.len() as u64;
            let metrics = &active.metrics;
            add(&metrics.sent, letter.counts);
            let sent_at = Instant::now();
            let outcome = active.endpoint.post(body, attempt, self.runtime.clock.now()).await;
            metrics.seconds.observe(sent_at.elapsed().as_secs_f64());
            let (after, error) = match outcome {
                Outcome::Again { after, error } => (after, error),
                Outcome::Taken(written) => {
                    metrics.bytes.add(len);
                    self.taken(&active, letter.counts, written);
                    break;
                }
                Outcome::Refused { written, error } => {
                    metrics.bytes.add(len);
                    self.refused(&active, letter.counts, written, &error);
                    break;
                }
            };
            let wait = if after.is_zero() { backoff } else { after };
            self.settle_for(wait);
            self.failing.store(true, Ordering::Relaxed);
            entry.set_failing(Some(&error));
            self.complain("Failed to send batch, retrying", &error);
            sleep(wait).await;
            add(&metrics.retried, letter.counts);
            backoff = wait.saturating_mul(2).min(queue.max_backoff.to_std());
            attempt += 1;
        }
        if self.failing.swap(false, Ordering::Relaxed) {
            entry.set_failing(None);
            let (remote_name, url) = (active.to.name.as_str(), active.to.url.as_str());
            if self.errors.lock().succeeded() {
                tracing::info!(component = "remote", remote_name, url, "Samples are sent again");
            }
        }
        let took = self.runtime.clock.monotonic().saturating_sub(began);
        self.out.fetch_add(letter.counts.iter().sum(), Ordering::Relaxed);
        self.sending_nanos.fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
        self.answered_at.store(self.runtime.clock.now().0, Ordering::Relaxed);
        active.metrics.delivered(newest.unwrap_or(0));
    }

    /// Leaves out what has become older than `sample_age_limit`.
    fn drop_old(&self, active: &Active, letter: &mut Letter) {
        let limit = active.to.config.queue_config.sample_age_limit.as_ms_i64();
        if limit == 0 {
            return;
        }
        let bound = self.runtime.clock.now().0.saturating_sub(limit);
        let mut old = [0; 3];
        for item in letter.batch.items.iter().filter(|item| letter.from <= item.t && item.t < bound) {
            old[item.class() as usize] += 1;
        }
        if old != [0; 3] {
            letter.from = bound;
            letter.body = None;
            for class in CLASSES {
                active.metrics.dropped(class, Reason::TooOld, old[class as usize]);
                letter.counts[class as usize] -= old[class as usize];
            }
        }
    }

    /// The request, encoded on the compute pool; `None` for one that cannot be encoded.
    async fn body(self: &Arc<Self>, active: &Active, letter: &mut Letter) -> Option<Bytes> {
        loop {
            if let Some(body) = &letter.body {
                return Some(body.clone());
            }
            let (batch, from, version_2) = (Arc::clone(&letter.batch), letter.from, active.to.config.is_version_2());
            let job = move || encode(batch.items.iter().filter(|item: &&Item| from <= item.t), version_2);
            match self.run_job(job).await {
                Ok(body) => letter.body = Some(Bytes::from(body)),
                Err(PoolError::Panicked { text }) => {
                    self.refused(active, letter.counts, [0; 3], &text);
                    return None;
                }
                Err(_) => sleep(POOL_AGAIN_AFTER).await,
            }
        }
    }

    fn taken(&self, active: &Active, counts: Counts, written: Option<Counts>) {
        let version_2 = active.to.config.is_version_2();
        if version_2 && written.unwrap_or([0; 3]) == [0; 3] {
            let [samples, exemplars, histograms] = counts;
            let error = format!(
                "sent v2 request with {samples} samples, {histograms} histograms and {exemplars} exemplars; got 2xx, but \
                 PRW 2.0 response header statistics indicate 0 samples, 0 histograms and 0 exemplars were accepted; \
                 assumining failure e.g. the target only supports PRW 1.0 prometheus.WriteRequest, but does not check \
                 the Content-Type header correctly"
            );
            return self.refused(active, counts, [0; 3], &error);
        }
        let Some(written) = written else { return };
        let lost = missing(counts, written);
        if lost != [0; 3] {
            add(&active.metrics.failed, lost);
            let text = "we got 2xx status code from the Receiver yet statistics indicate some data was not written; \
                        investigation needed";
            self.complain(text, "");
        }
    }

    fn refused(&self, active: &Active, counts: Counts, written: Counts, error: &str) {
        let lost = missing(counts, written);
        add(&active.metrics.failed, lost);
        let samples: u64 = lost.iter().sum();
        if active.to.config.failed_request_logging {
            let remote_name = active.to.name.as_str();
            tracing::debug!(
                component = "remote",
                remote_name,
                samples,
                err = error,
                "Failed to send remote write request"
            );
        }
        self.complain("non-recoverable error", error);
    }

    /// While a destination asks for time, it gets no more shards.
    fn settle_for(&self, wait: Duration) {
        let twice = i64::try_from(wait.as_millis()).unwrap_or(i64::MAX).saturating_mul(2);
        let until = self.runtime.clock.now().0.saturating_add(twice);
        self.settled_until.fetch_max(until, Ordering::Relaxed);
    }

    /// Sends what targets say of their metrics, each `send_interval`; in version 1 only.
    pub(super) async fn describe(self: &Arc<Self>) {
        let active = self.active.load_full();
        let config = &active.to.config.metadata_config;
        if !config.send || active.to.config.is_version_2() {
            return std::future::pending().await;
        }
        let every = config.send_interval.to_std().max(Duration::from_millis(1));
        let len_max = usize::try_from(config.max_samples_per_send).unwrap_or(0).max(1);
        let mut due = Instant::now();
        loop {
            due = (due + every).max(Instant::now());
            sleep_until(due).await;
            let runtime = Arc::clone(&self.runtime);
            let gather = move || {
                let all = (runtime.descriptions)();
                all.chunks(len_max).map(|part| (part.len() as u64, encode_descriptions(part))).collect::<Vec<_>>()
            };
            for (count, body) in self.run_job(gather).await.unwrap_or_default() {
                self.send_descriptions(&active, count, Bytes::from(body)).await;
            }
        }
    }

    async fn send_descriptions(&self, active: &Active, count: u64, body: Bytes) {
        let queue = &active.to.config.queue_config;
        let [sent, failed, retried] = &active.metrics.metadata;
        let (mut attempt, mut backoff) = (0, queue.min_backoff.to_std());
        loop {
            let begun = Instant::now();
            let outcome = active.endpoint.post(body.clone(), attempt, self.runtime.clock.now()).await;
            active.metrics.seconds.observe(begun.elapsed().as_secs_f64());
            match outcome {
                Outcome::Taken(_) => {
                    sent.add(count);
                    active.metrics.metadata_bytes.add(body.len() as u64);
                    return;
                }
                Outcome::Refused { error, .. } => {
                    failed.add(count);
                    return self.complain("non-recoverable error while sending metadata", &error);
                }
                Outcome::Again { after, error } => {
                    let wait = if after.is_zero() { backoff } else { after };
                    self.complain("Failed to send batch, retrying", &error);
                    sleep(wait).await;
                    retried.add(count);
                    backoff = wait.saturating_mul(2).min(queue.max_backoff.to_std());
                    attempt += 1;
                }
            }
        }
    }
}

fn add(counters: &[crate::telemetry::metrics::Counter; 3], counts: Counts) {
    counters.iter().zip(counts).filter(|(_, count)| 0 < *count).for_each(|(counter, count)| counter.add(count));
}

/// What was sent and is not written.
fn missing(sent: Counts, written: Counts) -> Counts {
    let of = |class: Class| sent[class as usize].saturating_sub(written[class as usize]);
    CLASSES.map(of)
}
