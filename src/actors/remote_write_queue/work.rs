//! What a queue does all the time: reads the log into its shards, decides how many there are, writes its cursor.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::future::join_all;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use crate::actors::pool::{Lane, PoolError};
use crate::actors::registry::Entry;
use crate::actors::remote_write_queue::{Order, QueueDeps, RemoteLog};
use crate::remote::send::queue::Flight;
use crate::remote::send::reader::{LogReader, Progress, STEP_ITEMS};
use crate::remote::send::reshard::{DECIDE_EVERY, Load, Rate, ShardBounds, desired};
use crate::storage::wal::WalError;
use crate::storage::wal::cursor::{self, Cursor};
use crate::storage::wal::writer::Position;

/// How long a job may wait for the compute pool and take.
const JOB_WITHIN: Duration = Duration::from_secs(600);
/// After a failure to read the log, or without room in the compute pool.
const AGAIN_AFTER: Duration = Duration::from_secs(5);
const POOL_AGAIN_AFTER: Duration = Duration::from_millis(200);
/// So long the log may grow before it is looked at again: one look for many scrapes.
const GATHER_FOR: Duration = Duration::from_millis(10);
/// How often to look even if the log does not grow: for new checkpoints.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How often the cursor is written, if it has moved.
const SAVE_EVERY: Duration = Duration::from_secs(1);
/// How long requests under way may take when settings change.
const FINISH_WITHIN: Duration = Duration::from_secs(2);

/// How shards end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Closing {
    No,
    /// When all that waits is sent.
    Flush,
    /// When what is under way is.
    Finish,
}

/// How long a queue whose destination fails goes on when it ends.
const FAILING_WITHIN: Duration = Duration::from_secs(2);

/// Why the shards were ended.
enum Ended {
    Ordered,
    Reshard(usize),
}

impl QueueDeps {
    /// Reads and sends until another order comes.
    pub(super) async fn run(self: Arc<Self>, entry: Arc<Entry>) {
        let mut order = self.order.subscribe();
        loop {
            let failure = tokio::select! {
                opened = self.open() => match opened {
                    Ok(()) => break,
                    Err(failure) => failure,
                },
                _ = order.wait_for(|order| *order != Order::Run) => return,
            };
            entry.set_failing(Some(&failure));
            self.complain("Reading the log failed", &failure);
            sleep(AGAIN_AFTER).await;
        }
        entry.set_failing(None);
        while let Ended::Reshard(count) = self.generation(&entry).await {
            self.reshard(count);
        }
        if *self.order.borrow() == Order::Restart {
            // Everything that was not sent is read again, with the new settings.
            self.save().await;
            *self.reader.lock() = None;
            let cursor = self.flight.lock().take().map(|flight| flight.cursor());
            if cursor.is_some() {
                *self.saved.lock() = cursor;
            }
        } else {
            self.save().await;
            let this = Arc::clone(&self);
            // Without room in the pool it is not told.
            let _ = self.run_job(move || this.tell_unsent()).await;
        }
    }

    /// One set of shards, from beginning to end.
    async fn generation(self: &Arc<Self>, entry: &Arc<Entry>) -> Ended {
        let count = self.with_flight(|flight| flight.shard_count()).unwrap_or(1);
        self.active.load().metrics.shards.set(count as f64);
        let (close, closing) = watch::channel(Closing::No);
        let shards = join_all((0..count).map(|index| self.shard(index, closing.clone(), entry)));
        tokio::pin!(shards);
        let mut order = self.order.subscribe();
        let ended = {
            let always = async { tokio::join!(self.pump(None), self.keep_saving(), self.describe()) };
            tokio::pin!(always);
            tokio::select! {
                biased;
                _ = order.wait_for(|order| *order != Order::Run) => Ended::Ordered,
                count = self.decide(count) => Ended::Reshard(count),
                _ = &mut always => Ended::Ordered,
                _ = &mut shards => Ended::Ordered,
            }
        };
        if let Ended::Reshard(_) = ended {
            let flush = async {
                let read = self.with_flight(|flight| flight.read().position());
                tokio::select! {
                    () = self.pump(read) => {}
                    _ = &mut shards => return,
                }
                close.send_replace(Closing::Flush);
                (&mut shards).await;
            };
            tokio::select! {
                biased;
                _ = order.wait_for(|order| *order != Order::Run) => {}
                () = flush => return ended,
                () = self.keep_saving() => {}
            }
        }
        let order = *self.order.borrow();
        match order {
            Order::End(deadline) => {
                // A destination that fails is not waited for: what it does not get now, it gets after the next start.
                let soon = Instant::now() + FAILING_WITHIN;
                let deadline = if self.failing.load(Ordering::Relaxed) { deadline.min(soon) } else { deadline };
                let all = async {
                    let until = self.runtime.log.get().map(|log| *log.written.borrow());
                    tokio::select! {
                        () = self.pump(until) => {}
                        _ = &mut shards => return,
                    }
                    close.send_replace(Closing::Flush);
                    shards.await;
                };
                // What is left is sent after the next start.
                let _ = timeout_at(deadline, all).await;
            }
            Order::Run | Order::Restart => {
                close.send_replace(Closing::Finish);
                let _ = timeout_at(Instant::now() + FINISH_WITHIN, shards).await;
            }
        }
        Ended::Ordered
    }

    /// Makes `count` shards of those that have nothing any more.
    fn reshard(&self, count: usize) {
        let capacity = self.capacity();
        let mut flight = self.flight.lock();
        if let Some(flight) = flight.as_mut().filter(|flight| flight.is_empty()) {
            let from = flight.shard_count();
            let cursor = flight.cursor();
            *flight = Flight::new(count, capacity, &cursor);
            let active = self.active.load();
            let (remote_name, url) = (active.to.name.as_str(), active.to.url.as_str());
            tracing::info!(component = "remote", remote_name, url, from, to = count, "Remote storage resharding");
        }
    }

    fn capacity(&self) -> usize {
        let queue = &self.active.load().to.config.queue_config;
        usize::try_from(queue.capacity.max(queue.max_samples_per_send)).unwrap_or(usize::MAX)
    }

    fn bounds(&self) -> ShardBounds {
        let queue = &self.active.load().to.config.queue_config;
        let number = |count: i64| usize::try_from(count).unwrap_or(1).max(1);
        ShardBounds { min: number(queue.min_shards), max: number(queue.max_shards) }
    }

    /// Finds out where to begin, unless something is in hand from an earlier life.
    async fn open(self: &Arc<Self>) -> Result<(), String> {
        let this = Arc::clone(self);
        let open = move || -> Result<(), WalError> {
            let Some(log) = this.runtime.log.get() else { return Ok(()) };
            let mut reader = this.reader.lock();
            let read = this.flight.lock().as_ref().map(Flight::read);
            let cursor = match (read, reader.is_some()) {
                (Some(_), true) => return Ok(()),
                (Some(read), false) => Cursor::at(read),
                (None, _) => this.first_cursor(log)?,
            };
            let active = this.active.load_full();
            let (to, metrics) = (Arc::clone(&active.to), Arc::clone(&active.metrics));
            if read.is_none() {
                let bounds = this.bounds();
                let count = match cursor.shards.len() {
                    0 => bounds.min,
                    count => count.clamp(bounds.min, bounds.max),
                };
                *this.flight.lock() = Some(Flight::new(count, this.capacity(), &cursor));
            }
            *reader = Some(LogReader::open(log.files.clone(), to, metrics, cursor)?);
            Ok(())
        };
        if self.runtime.log.get().is_none() {
            return Err("the log is not open yet".to_owned());
        }
        match self.run_job(open).await {
            Ok(opened) => opened.map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Where it was, as far as the log goes; without that where the log ends now.
    fn first_cursor(&self, log: &RemoteLog) -> Result<Cursor, WalError> {
        let path = self.cursor_path(log);
        let folder = log.data_dir.join(super::CURSOR_DIR);
        log.files.fs().create_dir_all(&folder).map_err(|source| WalError::Io {
            action: "create",
            path: folder,
            source,
        })?;
        let kept = self.saved.lock().clone();
        let kept = match kept {
            Some(cursor) => Some(cursor),
            None => cursor::load(log.files.fs(), &path)?,
        };
        let active = self.active.load();
        let (remote_name, url) = (active.to.name.as_str(), active.to.url.as_str());
        let end = *log.written.borrow();
        let cursor = match kept {
            Some(cursor) if cursor.start().position() <= end => cursor,
            other => {
                if other.is_some() {
                    let text = "The cursor belongs to another log; sending begins at the end of this one";
                    tracing::warn!(component = "remote", remote_name, url, "{text}");
                }
                Cursor::at(end.into())
            }
        };
        let first = log.files.segments()?.first().map(|file| file.segment);
        let wanted = cursor.start().segment;
        if let Some(first) = first.filter(|first| wanted < *first) {
            let text = "The log does not reach back to what was sent last; what lies between is not sent";
            tracing::warn!(component = "remote", remote_name, url, wanted, first, "{text}");
        }
        if self.saved.lock().as_ref() != Some(&cursor) {
            cursor::save(log.files.fs(), &path, &cursor)?;
            *self.saved.lock() = Some(cursor.clone());
        }
        Ok(cursor)
    }

    /// Runs a job on the compute pool, when it has room.
    pub(super) async fn run_job<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, PoolError> {
        self.runtime.pool.run(Lane::Storage, Instant::now() + JOB_WITHIN, move |_| job()).await
    }

    /// Reads the log into the shards: for ever, or until all up to `until` is there.
    async fn pump(self: &Arc<Self>, until: Option<Position>) {
        let Some(log) = self.runtime.log.get() else { return std::future::pending().await };
        let mut written = log.written.clone();
        loop {
            let room = self.room.notified();
            let distributed = self.with_flight(|flight| flight.distribute(Instant::now())).unwrap_or(true);
            self.bell.notify_waiters();
            if !distributed {
                self.active.load().metrics.enqueue_retries.inc();
                room.await;
                continue;
            }
            let end = until.unwrap_or_else(|| *written.borrow_and_update());
            match self.read(end).await {
                Ok(Progress::More) => {}
                Ok(Progress::CaughtUp) if until.is_some() => return,
                Ok(Progress::CaughtUp) => {
                    tokio::select! {
                        changed = written.changed() => match changed {
                            Ok(()) => sleep(GATHER_FOR).await,
                            // The log is closed.
                            Err(_) => sleep(LOOK_EVERY).await,
                        },
                        () = sleep(LOOK_EVERY) => {}
                    }
                }
                Err(None) => sleep(POOL_AGAIN_AFTER).await,
                Err(Some(error)) => {
                    self.complain("Reading the log failed", &error);
                    sleep(AGAIN_AFTER).await;
                }
            }
        }
    }

    /// One step of reading, on the compute pool. The error is nothing if the pool has no room.
    async fn read(self: &Arc<Self>, until: Position) -> Result<Progress, Option<String>> {
        let this = Arc::clone(self);
        let step = move || {
            let mut reader = this.reader.lock();
            let Some(open) = reader.as_mut() else { return Ok(Progress::CaughtUp) };
            let (now, monotonic) = (this.runtime.clock.now(), this.runtime.clock.monotonic());
            let (mut items, items_max) = (Vec::new(), this.capacity().min(STEP_ITEMS));
            let read = open.step(until, (now, monotonic), items_max, &mut items);
            // After an error as well: the reader is behind what it has given out.
            let place = open.place();
            this.with_flight(|flight| flight.take(&mut items, place, Instant::now()));
            read
        };
        let stepped = self.run_job(step).await;
        self.bell.notify_waiters();
        match stepped {
            Ok(read) => read.map_err(|error| Some(error.to_string())),
            Err(PoolError::Panicked { text }) => {
                // What it was at is read again.
                let this = Arc::clone(self);
                let reopened = self.run_job(move || this.reopen()).await;
                Err(Some(reopened.ok().flatten().unwrap_or(text)))
            }
            Err(_) => Err(None),
        }
    }

    /// Begins to read anew behind what is in hand; returns why it cannot.
    fn reopen(&self) -> Option<String> {
        let log = self.runtime.log.get()?;
        let cursor = Cursor::at(self.flight.lock().as_ref().map(Flight::read)?);
        let active = self.active.load_full();
        let (to, metrics) = (Arc::clone(&active.to), Arc::clone(&active.metrics));
        match LogReader::open(log.files.clone(), to, metrics, cursor) {
            Ok(reader) => {
                *self.reader.lock() = Some(reader);
                None
            }
            Err(error) => Some(error.to_string()),
        }
    }

    /// Returns a number of shards when another one is needed.
    async fn decide(&self, count: usize) -> usize {
        let (mut incoming, mut outgoing, mut dropped, mut sending) =
            (Rate::default(), Rate::default(), Rate::default(), Rate::default());
        // What was before counts for nothing.
        let totals = || {
            let (out, seconds) = self.sent_so_far();
            let metrics = Arc::clone(&self.active.load().metrics);
            (self.runtime.intake.total() as f64, out, metrics.without_series() as f64, seconds)
        };
        let first = totals();
        let mut due = Instant::now();
        loop {
            due += DECIDE_EVERY;
            sleep_until(due).await;
            let now = totals();
            let metrics = Arc::clone(&self.active.load().metrics);
            let load = Load {
                incoming: incoming.tick(now.0 - first.0),
                outgoing: outgoing.tick(now.1 - first.1),
                dropped: dropped.tick(now.2 - first.2),
                sending: sending.tick(now.3 - first.3),
                delay: self.runtime.intake.highest().as_secs_f64().floor() - metrics.highest_sent.get(),
            };
            let Some((shown, wanted)) = desired(load, count, self.bounds()) else { continue };
            metrics.shards_desired.set(shown);
            let now_ms = self.runtime.clock.now().0;
            let answered = self.answered_at.load(Ordering::Relaxed);
            let recently = now_ms.saturating_sub(answered) <= DECIDE_EVERY.as_millis() as i64;
            if wanted != count && recently && self.settled_until.load(Ordering::Relaxed) <= now_ms {
                return wanted;
            }
        }
    }

    async fn keep_saving(self: &Arc<Self>) {
        loop {
            sleep(SAVE_EVERY).await;
            self.save().await;
        }
    }

    /// Writes down how far it is, if that has changed.
    async fn save(self: &Arc<Self>) {
        let this = Arc::clone(self);
        let save = move || -> Result<(), WalError> {
            let Some(log) = this.runtime.log.get() else { return Ok(()) };
            // Held while the file is written: one after the other.
            let mut saved = this.saved.lock();
            let Some(cursor) = this.flight.lock().as_ref().map(Flight::cursor) else { return Ok(()) };
            if saved.as_ref() != Some(&cursor) {
                cursor::save(log.files.fs(), &this.cursor_path(log), &cursor)?;
                *saved = Some(cursor);
            }
            Ok(())
        };
        if let Ok(Err(error)) = self.run_job(save).await {
            self.complain("The cursor cannot be written", &error.to_string());
        }
    }

    /// Says at the end what was not sent.
    fn tell_unsent(&self) {
        let pending: u64 = self.flight.lock().as_ref().map_or(0, |flight| flight.pending().iter().sum());
        if pending == 0 {
            return;
        }
        let active = self.active.load();
        let (remote_name, url) = (active.to.name.as_str(), active.to.url.as_str());
        let first = self.runtime.log.get().and_then(|log| log.files.segments().ok()?.first().map(|file| file.segment));
        let missed = self.doomed(first.unwrap_or(0));
        active.metrics.missed.add(missed);
        let text = "Not all was sent by the deadline; what the log keeps is sent after the next start";
        tracing::warn!(component = "remote", remote_name, url, pending, missed, "{text}");
    }
}
