//! Facts of actix 0.13 that our rules rest on. Should one of these tests fail after an update, the layer has to be read
//! again.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Context as TaskContext;
use std::time::Duration;

use actix::dev::channel::channel;
use actix::prelude::*;
use tokio::sync::Notify;

use crate::probe::paused;

#[derive(Default)]
struct Seen {
    handled: AtomicUsize,
    started: AtomicUsize,
    restarting: AtomicUsize,
    timers: AtomicUsize,
    gate: Notify,
}

fn seen(count: &AtomicUsize) -> usize {
    count.load(Ordering::SeqCst)
}

#[derive(Default)]
struct Stock {
    seen: Arc<Seen>,
    handled: usize,
    timer: SpawnHandle,
}

impl Actor for Stock {
    type Context = actix::Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.seen.started.fetch_add(1, Ordering::SeqCst);
        self.timer = ctx.run_later(Duration::from_secs(1), |stock, _| {
            stock.seen.timers.fetch_add(1, Ordering::SeqCst);
        });
    }
}

impl Supervised for Stock {
    fn restarting(&mut self, _: &mut Self::Context) {
        self.seen.restarting.fetch_add(1, Ordering::SeqCst);
    }
}

#[derive(Message)]
#[rtype(result = "usize")]
enum Do {
    Count,
    Stop,
    Panic,
    CancelAndPanic,
}

impl Handler<Do> for Stock {
    type Result = usize;

    fn handle(&mut self, what: Do, ctx: &mut Self::Context) -> usize {
        self.seen.handled.fetch_add(1, Ordering::SeqCst);
        self.handled += 1;
        match what {
            Do::Count => {}
            Do::Stop => ctx.stop(),
            Do::Panic => panic!("in a stock actor"),
            Do::CancelAndPanic => {
                ctx.cancel_future(self.timer);
                panic!("in a stock actor that cancelled");
            }
        }
        self.handled
    }
}

#[derive(Message)]
#[rtype(result = "()")]
struct PanicOutside;

impl Handler<PanicOutside> for Stock {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, _: PanicOutside, _: &mut Self::Context) -> Self::Result {
        Box::pin(async { panic!("in a response future") })
    }
}

#[derive(Message)]
#[rtype(result = "()")]
struct Wait;

impl Handler<Wait> for Stock {
    type Result = ();

    fn handle(&mut self, _: Wait, ctx: &mut Self::Context) {
        let seen = Arc::clone(&self.seen);
        ctx.wait(async move { seen.gate.notified().await }.into_actor(self));
    }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "this is why they are disallowed")]
fn do_send_ignores_the_limit_and_the_limit_counts_per_clone() {
    paused(async {
        let stock = Stock::default();
        let seen_ = Arc::clone(&stock.seen);
        let addr = stock.start();
        addr.send(Wait).await.unwrap();
        let mut taken = 0;
        while addr.try_send(Do::Count).is_ok() {
            taken += 1;
        }
        assert_eq!(taken, 16, "the default capacity");
        let clones: Vec<_> = (0..100).map(|_| addr.clone()).collect();
        assert!(clones.iter().all(|clone| clone.try_send(Do::Count).is_ok()), "each clone gets one more");
        (0..1000).for_each(|_| addr.do_send(Do::Count));
        seen_.gate.notify_one();
        addr.send(Do::Count).await.unwrap();
        assert_eq!(seen(&seen_.handled), 16 + 100 + 1000 + 1);
    });
}

#[test]
#[expect(clippy::disallowed_methods, reason = "this is why it is disallowed")]
fn the_stock_supervisor_restarts_after_a_stop_with_the_same_state_and_not_after_a_panic() {
    paused(async {
        let seen_ = Arc::new(Seen::default());
        let for_actor = Arc::clone(&seen_);
        let addr = Supervisor::start(move |_| Stock { seen: for_actor, ..Stock::default() });
        assert_eq!(addr.send(Do::Stop).await, Ok(1));
        assert_eq!(addr.send(Do::Count).await, Ok(2), "the state is the same");
        assert_eq!((seen(&seen_.restarting), seen(&seen_.started)), (1, 2));
        assert_eq!(addr.send(Do::Panic).await, Err(MailboxError::Closed));
        assert_eq!(addr.send(Do::Count).await, Err(MailboxError::Closed));
        assert!(!addr.connected());
        assert_eq!((seen(&seen_.restarting), seen(&seen_.started)), (1, 2));
    });
}

#[test]
fn the_panic_of_a_response_future_goes_unnoticed_by_its_actor() {
    paused(async {
        let stock = Stock::default();
        let seen_ = Arc::clone(&stock.seen);
        let addr = stock.start();
        assert_eq!(addr.send(PanicOutside).await, Err(MailboxError::Closed));
        assert_eq!(addr.send(Do::Count).await, Ok(1));
        assert_eq!(seen(&seen_.started), 1);
    });
}

/// Polls a stock context through one panic and restarts it, as our supervisor does.
async fn restarted(panic: Do) -> Arc<Seen> {
    let seen_ = Arc::new(Seen::default());
    let (sender, receiver) = channel(0);
    let addr = Addr::new(sender);
    let actor = Stock { seen: Arc::clone(&seen_), ..Stock::default() };
    let mut future = actix::Context::with_receiver(receiver).into_future(actor);
    let polled = |future: &mut actix::dev::ContextFut<Stock, _>, task: &mut TaskContext<'_>| {
        let poll = std::panic::AssertUnwindSafe(|| Pin::new(future).poll(task));
        std::panic::catch_unwind(poll).is_ok()
    };
    let mut request = Box::pin(addr.send(panic));
    assert!(futures::poll!(&mut request).is_pending());
    let behind = addr.send(Do::Count);
    std::future::poll_fn(|task| {
        assert!(!polled(&mut future, task));
        assert!(future.restart());
        assert!(polled(&mut future, task));
        std::task::Poll::Ready(())
    })
    .await;
    assert_eq!(behind.await, Ok(2), "the message behind the fatal one is handled, by the same value");
    tokio::time::sleep(Duration::from_secs(2)).await;
    std::future::poll_fn(|task| std::task::Poll::Ready(polled(&mut future, task))).await;
    seen_
}

#[test]
fn a_context_restarts_after_a_panic_behind_the_same_address() {
    paused(async {
        let seen_ = restarted(Do::Panic).await;
        assert_eq!((seen(&seen_.restarting), seen(&seen_.started), seen(&seen_.timers)), (1, 2, 1));
    });
}

#[test]
fn a_cancellation_survives_the_restart_and_hits_the_wrong_future() {
    paused(async {
        let seen_ = restarted(Do::CancelAndPanic).await;
        assert_eq!((seen(&seen_.started), seen(&seen_.timers)), (2, 0), "why our context cancels in its own way");
    });
}

#[test]
fn an_actor_without_addresses_lives_as_long_as_its_timers() {
    paused(async {
        let stock = Stock::default();
        let seen_ = Arc::clone(&stock.seen);
        drop(stock.start());
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(seen(&seen_.timers), 1, "why our supervisor stops the unreachable");
    });
}

struct Blocking;

impl Actor for Blocking {
    type Context = SyncContext<Self>;
}

impl Handler<Do> for Blocking {
    type Result = usize;

    fn handle(&mut self, _: Do, _: &mut Self::Context) -> usize {
        panic!("in a sync actor");
    }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "this is why it is disallowed")]
fn a_panicked_sync_arbiter_thread_is_not_replaced() {
    actix::System::new().block_on(async {
        let addr = SyncArbiter::start(1, || Blocking);
        assert_eq!(addr.send(Do::Panic).await, Err(MailboxError::Closed));
        assert_eq!(addr.send(Do::Count).await, Err(MailboxError::Closed), "nobody is left to handle it");
    });
}
