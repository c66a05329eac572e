//! The actor layer: the only user of actix actors. Supervision, bounded mailboxes, the tree, the compute pool; and, one
//! file each, the actors that run the plain cores.
//!
//! An actor is an actix actor in our [`Context`](context::Context). Its author writes:
//!
//! ```
//! use std::sync::Arc;
//! use actix::prelude::{Actor, ActorContext, Handler, Message, Supervised};
//! use watchfire::actors::{context::Context, control::{Control, Drain}, kind::{Kind, Rank}};
//! use watchfire::actors::{mailbox::Admitted, supervision::SupervisedActor};
//!
//! #[derive(Message)]
//! #[rtype(result = "Result<u64, Overflow>")]
//! pub struct Add(pub u64);
//! #[derive(Debug, PartialEq)]
//! pub struct Overflow;
//!
//! pub struct AdderDeps { pub start: u64 }                     // What a restart must find.
//! pub struct Adder { deps: Arc<AdderDeps>, sum: u64 }         // `deps`, kept, and state, rebuilt.
//!
//! impl Adder {
//!     pub fn new(deps: Arc<AdderDeps>) -> Self { Self { sum: deps.start, deps } }
//! }
//! impl Actor for Adder { type Context = Context<Self>; }      // Timers begin in `started`.
//! impl Supervised for Adder {
//!     fn restarting(&mut self, _: &mut Context<Self>) { self.sum = self.deps.start; }
//! }
//! impl SupervisedActor for Adder {
//!     const KIND: &'static Kind = &ADDER;
//! }
//! pub static ADDER: Kind = Kind { name: "adder", rank: Rank::SHARD, slots: 8 };
//! impl Handler<Control<Drain>> for Adder {
//!     type Result = ();
//!     fn handle(&mut self, _: Control<Drain>, ctx: &mut Context<Self>) { ctx.stop(); }
//! }
//! impl Handler<Admitted<Add>> for Adder {
//!     type Result = Result<u64, Overflow>;                    // Or `ResponseActFuture<Self, Result<…>>`.
//!     fn handle(&mut self, add: Admitted<Add>, _: &mut Context<Self>) -> Self::Result {
//!         self.sum = self.sum.checked_add(add.0).ok_or(Overflow)?;
//!         Ok(self.sum)
//!     }
//! }
//!
//! # use std::time::Duration;
//! # use tokio::time::Instant;
//! # use watchfire::actors::{policy::Policy, registry::ActorTree, supervision::{self, Place}};
//! # use watchfire::{model::clock::SystemClock, telemetry::metrics::Registry};
//! # actix::System::new().block_on(async {
//! let tree = ActorTree::new(&[&ADDER], &Registry::default(), SystemClock::shared(), 1);
//! let deps = Arc::new(AdderDeps { start: 40 });
//! let arbiter = actix::Arbiter::current();
//! let adder = supervision::spawn(&arbiter, Policy::PERMANENT, Place::root(&tree, "main"), move |_| Adder::new(deps.clone()));
//! let deadline = Instant::now() + Duration::from_secs(1);
//! assert_eq!(adder.ask(Add(2), deadline).await, Ok(Ok(42)));
//! assert_eq!(tree.rows()[0].handled, 1);
//! # });
//! ```
//!
//! A handler that goes on after it has returned moves the whole [`Admitted`](mailbox::Admitted) into its future, so that
//! the slot is taken as long as the work lasts. The rules, and the table of all messages, are in `docs/actors.md`.
//!
//! What would run outside supervision does not compile; a handler cannot answer with actix's `ResponseFuture`, which is a
//! task of its own, and a message cannot be sent without a slot:
//!
//! ```compile_fail
//! # use actix::prelude::*;
//! # use watchfire::actors::{mailbox::{Admitted, BoundedAddr}, supervision::SupervisedActor};
//! # #[derive(Message)]
//! # #[rtype(result = "()")]
//! # pub struct Work;
//! fn send<A: SupervisedActor + Handler<Admitted<Work>, Result = ResponseFuture<()>>>(addr: BoundedAddr<A>) {
//!     let _ = addr.try_tell(Work);
//! }
//! ```

pub mod children;
pub mod context;
pub mod control;
mod current;
pub mod drain;
#[cfg(debug_assertions)]
pub mod failpoint;
mod go_io;
pub mod heartbeat;
pub mod kind;
mod lane;
pub mod mailbox;
pub mod panics;
pub mod policy;
pub mod pool;
pub mod registry;
pub mod root;
pub mod supervision;
pub mod threads;

pub mod active_queries;
pub mod aggregation_group;
pub mod alert_dispatcher;
pub mod alert_router;
pub mod alert_sink;
pub mod compactor;
pub mod config_reloader;
pub mod discovery;
pub mod discovery_provider;
pub mod log_writer;
pub mod notification_log;
pub mod notifier;
pub mod notifier_manager;
pub mod opening;
pub mod query_gateway;
pub mod query_log;
mod query_metrics;
pub mod receiver;
pub mod remote_read_server;
pub mod remote_reads;
pub mod remote_receiver;
pub mod remote_write_manager;
pub mod remote_write_queue;
pub mod rule_group;
pub mod rule_manager;
pub mod scrape_manager;
pub mod scrape_pool;
pub mod scrape_target;
pub mod storage_client;
pub mod storage_shard;
pub mod tsdb_admin;
