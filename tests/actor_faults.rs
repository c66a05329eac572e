//! Faults of actors: what actix does and what our layer makes of it, and the matrix of every kind of actor times every
//! kind of panic. Mostly on a paused clock, on the test's own thread; nothing sleeps.

#[cfg(debug_assertions)]
#[path = "actor_faults/alerts.rs"]
mod alerts;
#[cfg(debug_assertions)]
#[path = "actor_faults/discovery.rs"]
mod discovery;
#[path = "actor_faults/facts.rs"]
mod facts;
#[cfg(debug_assertions)]
#[path = "actor_faults/gateway.rs"]
mod gateway;
#[cfg(debug_assertions)]
#[path = "actor_faults/log.rs"]
mod log;
#[path = "actor_faults/mailbox.rs"]
mod mailbox;
#[cfg(debug_assertions)]
#[path = "actor_faults/matrix.rs"]
mod matrix;
#[cfg(debug_assertions)]
#[path = "actor_faults/notifiers.rs"]
mod notifiers;
#[path = "actor_faults/probe.rs"]
mod probe;
#[path = "actor_faults/process.rs"]
mod process;
#[cfg(debug_assertions)]
#[path = "actor_faults/reload.rs"]
mod reload;
#[cfg(debug_assertions)]
#[path = "actor_faults/remote.rs"]
mod remote;
#[path = "actor_faults/rules.rs"]
mod rules;
#[path = "actor_faults/scene.rs"]
mod scene;
#[cfg(debug_assertions)]
#[path = "actor_faults/shard.rs"]
mod shard;
#[path = "actor_faults/supervision.rs"]
mod supervision;
#[path = "support/mod.rs"]
mod support;
#[cfg(debug_assertions)]
#[path = "actor_faults/target.rs"]
mod target;
#[path = "actor_faults/tree.rs"]
mod tree;
