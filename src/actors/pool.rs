//! The compute pool: threads for work that would hold an actor's thread for over a millisecond. Each lane has a bounded
//! queue and threads that no other lane can take, so dashboards cannot keep rules or storage waiting. Where cores are short its threads
//! stand back behind those that scrape, append and answer: these need little, and soon.
//!
//! Invariants: a job runs in at most one thread, and not at all once its deadline has passed or its caller has gone; no
//! panic leaves a job; a thread that is lost all the same is replaced.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;
use tokio::time::sleep_until;

#[cfg(debug_assertions)]
use crate::actors::failpoint::{self, Point};
use crate::actors::lane::LaneMetrics;
pub use crate::actors::lane::{Lane, LaneOptions, PoolOptions};
use crate::actors::panics::catch;
use crate::telemetry::metrics::{Counter, Registry};

/// How much lower the threads' priority is than that of the process, in the system's steps: each is worth a quarter more time.
pub const NICENESS: i32 = 10;
/// The lowest priority that there is.
const NICENESS_MAX: i32 = 19;

/// Why a job has no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PoolError {
    /// The lane's queue is full; the job was not taken.
    #[error("the {} lane of the compute pool is full", lane.as_str())]
    Full {
        /// The lane.
        lane: Lane,
    },
    /// The deadline passed before the job was done. It may still run until it looks at its [`Cancel`].
    #[error("the job was not done in time")]
    Deadline,
    /// The job panicked.
    #[error("the job panicked: {text}")]
    Panicked {
        /// Text and place of the panic.
        text: String,
    },
    /// The pool has ended, or a thread was lost with the job.
    #[error("the compute pool has ended")]
    Closed,
}

/// Tells a job that its result is no longer wanted; long jobs look at it now and then.
#[derive(Debug)]
pub struct Cancel {
    cancelled: AtomicBool,
    deadline: Instant,
}

impl Cancel {
    /// Whether the caller has gone or the deadline has passed.
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed) || self.deadline <= Instant::now()
    }
}

/// Threads for computation; they end when this is dropped and their jobs are done.
pub struct ComputePool {
    shared: Arc<Shared>,
}

impl ComputePool {
    /// Starts the threads. Errors when the system gives none.
    pub fn start(options: PoolOptions, metrics: &Registry) -> io::Result<Self> {
        // Threads begin with the priority of the one that starts them, and a lost one's successor is started by itself.
        let own = rustix::process::getpriority_process(None).unwrap_or(0);
        let shared = Arc::new(Shared {
            options,
            niceness: own.saturating_add(NICENESS).min(NICENESS_MAX),
            state: Mutex::default(),
            wanted: Condvar::new(),
            next_thread: AtomicUsize::new(0),
            metrics: Lane::ALL.map(|lane| LaneMetrics::new(metrics, lane)),
            replaced: metrics.counter(
                "watchfire_pool_threads_replaced_total",
                "Threads of the compute pool lost.",
                &[],
            ),
        });
        let pool = Self { shared };
        for _ in 0..options.threads() {
            Shared::start_thread(&pool.shared)?;
        }
        Ok(pool)
    }

    /// Queues a job, at once, and returns its result to come. Dropping the result cancels the job. Nothing is done after
    /// `Full`, and after `Deadline` unless the job had begun.
    pub fn run<T, F>(
        &self,
        lane: Lane,
        deadline: tokio::time::Instant,
        job: F,
    ) -> impl Future<Output = Result<T, PoolError>> + Send + use<T, F>
    where
        T: Send + 'static,
        F: FnOnce(&Cancel) -> T + Send + 'static,
    {
        let cancel = Arc::new(Cancel { cancelled: AtomicBool::new(false), deadline: deadline.into_std() });
        let (result_to, result) = oneshot::channel();
        let queued = self.shared.push(lane, into_work(job, Arc::clone(&cancel), result_to));
        let on_drop = CancelOnDrop(cancel);
        async move {
            let _on_drop = on_drop;
            queued?;
            tokio::select! {
                biased;
                result = result => result.unwrap_or(Err(PoolError::Closed)),
                () = sleep_until(deadline) => Err(PoolError::Deadline),
            }
        }
    }
}

/// Runs a job on a thread of its own, which has the priority of the thread that asks: for what everything waits for, as at a start.
pub async fn run_apart<T, F>(name: &str, job: F) -> Result<T, PoolError>
where
    T: Send + 'static,
    F: FnOnce() -> T + Send + 'static,
{
    let (result_to, result) = oneshot::channel();
    let work = move || {
        // The caller may be gone, and needs no answer then.
        let _ = result_to.send(catch(job).map_err(|text| PoolError::Panicked { text }));
    };
    std::thread::Builder::new().name(name.to_owned()).spawn(work).map_err(|_| PoolError::Closed)?;
    result.await.unwrap_or(Err(PoolError::Closed))
}

impl Drop for ComputePool {
    fn drop(&mut self) {
        let waiting = {
            let mut state = self.shared.state.lock();
            state.closed = true;
            std::mem::take(&mut state.queues)
        };
        self.shared.wanted.notify_all();
        // Their callers learn that the pool has ended.
        drop(waiting);
    }
}

struct CancelOnDrop(Arc<Cancel>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancelled.store(true, Ordering::Relaxed);
    }
}

/// What became of a job, for the counters.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Done,
    Expired,
    Panicked,
}

type Work = Box<dyn FnOnce() -> Outcome + Send>;

fn into_work<T, F>(job: F, cancel: Arc<Cancel>, result_to: oneshot::Sender<Result<T, PoolError>>) -> Work
where
    T: Send + 'static,
    F: FnOnce(&Cancel) -> T + Send + 'static,
{
    Box::new(move || {
        if cancel.is_cancelled() {
            // The caller may be gone, and needs no answer then.
            let _ = result_to.send(Err(PoolError::Deadline));
            return Outcome::Expired;
        }
        let (result, outcome) = match catch(|| job(&cancel)) {
            Ok(result) => (Ok(result), Outcome::Done),
            Err(text) => (Err(PoolError::Panicked { text }), Outcome::Panicked),
        };
        let _ = result_to.send(result);
        outcome
    })
}

struct Job {
    work: Work,
    queued_at: Instant,
}

#[derive(Default)]
struct State {
    queues: [VecDeque<Job>; 4],
    running: [usize; 4],
    /// The lane that is looked at first; moves on with each job, so that lanes share the shared threads evenly.
    turn: usize,
    closed: bool,
}

struct Shared {
    options: PoolOptions,
    niceness: i32,
    state: Mutex<State>,
    wanted: Condvar,
    next_thread: AtomicUsize,
    metrics: [LaneMetrics; 4],
    replaced: Counter,
}

impl Shared {
    fn count(&self, lane: usize, outcome: Outcome) {
        let metrics = &self.metrics[lane];
        match outcome {
            Outcome::Done => metrics.done.inc(),
            Outcome::Expired => metrics.expired.inc(),
            Outcome::Panicked => metrics.panicked.inc(),
        }
    }

    fn push(&self, lane: Lane, work: Work) -> Result<(), PoolError> {
        let index = lane as usize;
        let (options, metrics) = (&self.options.lanes[index], &self.metrics[index]);
        let mut state = self.state.lock();
        if state.closed {
            return Err(PoolError::Closed);
        }
        let queue = &mut state.queues[index];
        if options.queue_max <= queue.len() {
            metrics.refused.inc();
            return Err(PoolError::Full { lane });
        }
        queue.push_back(Job { work, queued_at: Instant::now() });
        metrics.queue_length.set(queue.len() as f64);
        drop(state);
        // All threads are alike: when this job may run, any idle one will do; when it may not, the thread that ends a job
        // looks again.
        self.wanted.notify_one();
        Ok(())
    }

    /// Waits for a job that this thread may run. None when the pool has ended.
    fn next(&self) -> Option<(usize, Job)> {
        let mut state = self.state.lock();
        loop {
            if state.closed {
                return None;
            }
            if let Some((lane, job)) = state.take(&self.options) {
                let metrics = &self.metrics[lane];
                metrics.queue_length.set(state.queues[lane].len() as f64);
                metrics.running.set(state.running[lane] as f64);
                return Some((lane, job));
            }
            self.wanted.wait(&mut state);
        }
    }

    fn done(&self, lane: usize) {
        let mut state = self.state.lock();
        state.running[lane] -= 1;
        self.metrics[lane].running.set(state.running[lane] as f64);
    }

    fn start_thread(shared: &Arc<Self>) -> io::Result<()> {
        let number = shared.next_thread.fetch_add(1, Ordering::Relaxed);
        let worker = Worker { shared: Arc::clone(shared) };
        std::thread::Builder::new().name(format!("{}-{number}", shared.options.name)).spawn(move || worker.run())?;
        Ok(())
    }
}

impl State {
    /// The next job of a lane that may start one: on a thread of its own, or on one of the shared.
    fn take(&mut self, options: &PoolOptions) -> Option<(usize, Job)> {
        let used = |(running, lane): (&usize, &LaneOptions)| running.saturating_sub(lane.reserved_threads);
        let shared_used: usize = self.running.iter().zip(&options.lanes).map(used).sum();
        for step in 0..self.queues.len() {
            let lane = (self.turn + step) % self.queues.len();
            let own_free = self.running[lane] < options.lanes[lane].reserved_threads;
            if (own_free || shared_used < options.shared_threads)
                && let Some(job) = self.queues[lane].pop_front()
            {
                self.running[lane] += 1;
                self.turn = lane + 1;
                return Some((lane, job));
            }
        }
        None
    }
}

/// A thread of the pool. Dropped by a panic, it starts its successor.
struct Worker {
    shared: Arc<Shared>,
}

impl Worker {
    fn run(self) {
        // Of this thread alone, and of those that its jobs start. It needs no permission; without it jobs run as well.
        let _ = rustix::process::setpriority_process(None, self.shared.niceness);
        while let Some((lane, job)) = self.shared.next() {
            let running = Running { shared: &self.shared, lane };
            let metrics = &self.shared.metrics[lane];
            #[cfg(debug_assertions)]
            failpoint::hit("compute_pool", self.shared.options.name, Point::Handler);
            let started = Instant::now();
            metrics.wait_seconds.observe((started - job.queued_at).as_secs_f64());
            // The job catches its own panic; what remains are destructors of a result that nobody took.
            self.shared.count(lane, catch(job.work).unwrap_or(Outcome::Panicked));
            metrics.run_seconds.observe(started.elapsed().as_secs_f64());
            drop(running);
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        self.shared.replaced.inc();
        if let Err(error) = Shared::start_thread(&self.shared) {
            tracing::error!(component = "actors", %error, "cannot replace a thread of the compute pool");
        }
    }
}

struct Running<'a> {
    shared: &'a Shared,
    lane: usize,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.shared.done(self.lane);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    fn options(shared_threads: usize, queue_max: usize, reserved: [usize; 4]) -> PoolOptions {
        let lanes = reserved.map(|reserved_threads| LaneOptions { queue_max, reserved_threads });
        PoolOptions { name: "pool_test", shared_threads, lanes }
    }

    fn soon() -> tokio::time::Instant {
        tokio::time::Instant::now() + Duration::from_secs(30)
    }

    fn wait<T>(result: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(result)
    }

    /// Occupies a thread until the returned sender is dropped; returns once the job runs.
    fn block(
        pool: &ComputePool,
        lane: Lane,
    ) -> (mpsc::Sender<()>, impl Future<Output = Result<(), PoolError>> + use<>) {
        let (hold, held) = mpsc::channel::<()>();
        let (running, runs) = mpsc::channel();
        let result = pool.run(lane, soon(), move |_| {
            running.send(()).unwrap();
            let _ = held.recv();
        });
        runs.recv().unwrap();
        (hold, result)
    }

    #[test]
    fn a_job_returns_its_result_and_a_panic_is_an_error() {
        let metrics = Registry::default();
        let pool = ComputePool::start(options(1, 4, [0; 4]), &metrics).unwrap();
        assert_eq!(wait(pool.run(Lane::Queries, soon(), |_| 6 * 7)), Ok(42));
        let panicked = wait(pool.run(Lane::Rules, soon(), |_| -> u8 { panic!("poison") }));
        assert!(matches!(panicked, Err(PoolError::Panicked { text }) if text.starts_with("poison")));
        assert_eq!(wait(pool.run(Lane::Storage, soon(), |_| 1)), Ok(1), "the only thread lives on");
    }

    #[test]
    fn its_threads_stand_back_and_others_do_not() {
        let own = || rustix::process::getpriority_process(None).unwrap();
        let before = own();
        let pool = ComputePool::start(options(1, 4, [0; 4]), &Registry::default()).unwrap();
        let helpers = move |_: &Cancel| (own(), std::thread::spawn(own).join().unwrap());
        let lower = (before + NICENESS).min(NICENESS_MAX);
        assert_eq!(wait(pool.run(Lane::Queries, soon(), helpers)), Ok((lower, lower)));
        assert_eq!((own(), wait(run_apart("apart", own))), (before, Ok(before)));
        let panicked = wait(run_apart("apart", || -> u8 { panic!("poison") }));
        assert!(matches!(panicked, Err(PoolError::Panicked { text }) if text.starts_with("poison")));
    }

    #[test]
    fn a_full_lane_refuses_and_the_others_do_not() {
        let metrics = Registry::default();
        let pool = ComputePool::start(options(1, 2, [0; 4]), &metrics).unwrap();
        let (hold, blocked) = block(&pool, Lane::Queries);
        let waiting: Vec<_> = (0..2).map(|n| pool.run(Lane::Queries, soon(), move |_| n)).collect();
        let full = Err(PoolError::Full { lane: Lane::Queries });
        assert_eq!(wait(pool.run(Lane::Queries, soon(), |_| 9)), full);
        let other = pool.run(Lane::Storage, soon(), |_| 5);
        drop(hold);
        assert_eq!(wait(blocked), Ok(()));
        assert_eq!(waiting.into_iter().map(wait).collect::<Vec<_>>(), [Ok(0), Ok(1)]);
        assert_eq!(wait(other), Ok(5));
        let refused = metrics.counter("watchfire_pool_refused_total", "", &[("lane", "queries")]);
        assert_eq!(refused.get(), 1);
    }

    #[test]
    fn queries_cannot_take_the_thread_of_the_rules() {
        let pool = ComputePool::start(options(2, 8, [0, 1, 0, 0]), &Registry::default()).unwrap();
        let held: Vec<_> = (0..2).map(|_| block(&pool, Lane::Queries)).collect();
        let third = pool.run(Lane::Queries, soon(), |_| 3);
        for n in 0..100 {
            assert_eq!(wait(pool.run(Lane::Rules, soon(), move |_| n)), Ok(n));
        }
        let (hold, rule) = block(&pool, Lane::Rules);
        drop((hold, held));
        assert_eq!((wait(rule), wait(third)), (Ok(()), Ok(3)));
    }

    #[test]
    fn lanes_share_the_shared_threads_in_turn() {
        let pool = ComputePool::start(options(1, 8, [0; 4]), &Registry::default()).unwrap();
        let (hold, blocked) = block(&pool, Lane::Storage);
        let order = Arc::new(Mutex::new(Vec::new()));
        let lanes = [Lane::Queries, Lane::Queries, Lane::Queries, Lane::Rules];
        let results: Vec<_> = lanes
            .into_iter()
            .map(|lane| {
                let order = Arc::clone(&order);
                pool.run(lane, soon(), move |_| order.lock().push(lane))
            })
            .collect();
        drop(hold);
        wait(blocked).unwrap();
        results.into_iter().for_each(|result| wait(result).unwrap());
        assert_eq!(*order.lock(), [Lane::Queries, Lane::Rules, Lane::Queries, Lane::Queries]);
    }

    #[test]
    fn late_and_abandoned_jobs_do_not_begin_and_running_ones_learn_of_it() {
        let metrics = Registry::default();
        let pool = ComputePool::start(options(1, 8, [0; 4]), &metrics).unwrap();
        let ran = Arc::new(AtomicUsize::new(0));
        let count = |ran: &Arc<AtomicUsize>| {
            let ran = Arc::clone(ran);
            move |_: &Cancel| ran.fetch_add(1, Ordering::SeqCst)
        };
        let (hold, blocked) = block(&pool, Lane::Queries);
        let late = pool.run(Lane::Queries, tokio::time::Instant::now(), count(&ran));
        drop(pool.run(Lane::Queries, soon(), count(&ran)));
        drop(hold);
        wait(blocked).unwrap();
        assert_eq!(wait(late), Err(PoolError::Deadline));

        let (began, begins) = mpsc::channel();
        let (ended, ends) = mpsc::channel();
        let endless = pool.run(Lane::Queries, soon(), move |cancel| {
            began.send(()).unwrap();
            while !cancel.is_cancelled() {
                std::thread::yield_now();
            }
            ended.send(()).unwrap();
        });
        begins.recv().unwrap();
        drop(endless);
        assert_eq!(ends.recv_timeout(Duration::from_secs(30)), Ok(()));
        assert_eq!(ran.load(Ordering::SeqCst), 0);
        assert_eq!(metrics.counter("watchfire_pool_expired_total", "", &[("lane", "queries")]).get(), 2);
    }

    #[test]
    fn a_result_that_panics_when_nobody_takes_it_costs_no_thread() {
        struct Bomb;
        impl Drop for Bomb {
            fn drop(&mut self) {
                panic!("nobody took me");
            }
        }
        let pool = ComputePool::start(options(1, 8, [0; 4]), &Registry::default()).unwrap();
        let (began, begins) = mpsc::channel();
        let (go, gone) = mpsc::channel::<()>();
        let result = pool.run(Lane::Queries, soon(), move |_| {
            began.send(()).unwrap();
            let _ = gone.recv();
            Bomb
        });
        begins.recv().unwrap();
        drop(result);
        drop(go);
        assert_eq!(wait(pool.run(Lane::Queries, soon(), |_| 1)), Ok(1));
    }

    #[cfg(debug_assertions)]
    #[test]
    fn a_lost_thread_is_replaced_and_its_caller_learns_of_it() {
        let metrics = Registry::default();
        let options = PoolOptions { name: "lossy_pool", ..options(1, 8, [0; 4]) };
        let pool = ComputePool::start(options, &metrics).unwrap();
        let armed = failpoint::arm("compute_pool", Some("lossy_pool"), Point::Handler, 1);
        assert_eq!(wait(pool.run(Lane::Queries, soon(), |_| 1)), Err(PoolError::Closed));
        assert_eq!(armed.left(), 0);
        let lower = (rustix::process::getpriority_process(None).unwrap() + NICENESS).min(NICENESS_MAX);
        let own = |_: &Cancel| rustix::process::getpriority_process(None).unwrap();
        assert_eq!(wait(pool.run(Lane::Queries, soon(), own)), Ok(lower));
        assert_eq!(metrics.counter("watchfire_pool_threads_replaced_total", "", &[]).get(), 1);
    }

    #[test]
    fn jobs_that_wait_when_the_pool_ends_are_told() {
        let pool = ComputePool::start(options(1, 8, [0; 4]), &Registry::default()).unwrap();
        let (hold, _blocked) = block(&pool, Lane::Queries);
        let waiting = pool.run(Lane::Queries, soon(), |_| 1);
        drop(pool);
        assert_eq!(wait(waiting), Err(PoolError::Closed));
        drop(hold);
    }
}
