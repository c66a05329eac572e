//! An orderly end: actors are told to drain stage by stage, sources first and sinks last, within one deadline.

use std::sync::Arc;

use tokio::time::{Instant, timeout_at};

use crate::actors::control::Drain;
use crate::actors::mailbox::BoundedAddr;
use crate::actors::registry::Entry;
use crate::actors::supervision::SupervisedActor;

/// When a part of the tree is drained; earlier ones feed later ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// What starts new work from outside: reloader, discovery.
    Sources,
    /// Scrapes and rules.
    Work,
    /// Query gateway, alert dispatcher and notifiers.
    Alerts,
    /// Remote write.
    Remote,
    /// Compactor and shards.
    Shards,
    /// Log writer and chunk writer.
    Writers,
}

/// An actor that did not end in time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfinished {
    /// Its kind.
    pub kind: &'static str,
    /// Its name.
    pub name: String,
}

/// An actor of any type that can be drained.
pub trait Drainable: Send + Sync {
    /// Tells it to end.
    fn drain(&self, deadline: Instant);
    /// Its place in the tree.
    fn entry(&self) -> &Arc<Entry>;
}

impl<A: SupervisedActor> Drainable for BoundedAddr<A> {
    fn drain(&self, deadline: Instant) {
        // One that has ended already needs no telling.
        let _ = self.signal(Drain { deadline });
    }

    fn entry(&self) -> &Arc<Entry> {
        BoundedAddr::entry(self)
    }
}

/// Drains all in the order of their stages and returns those that did not end. Each stage but the last may use half of the
/// time that is left, so a stuck source never takes the sinks' time.
pub async fn in_order(parts: &[(Stage, Arc<dyn Drainable>)], deadline: Instant) -> Vec<Unfinished> {
    let mut stages: Vec<_> = parts.iter().map(|(stage, _)| *stage).collect();
    stages.sort_unstable();
    stages.dedup();
    let mut unfinished = Vec::new();
    for (index, stage) in stages.iter().enumerate() {
        let now = Instant::now();
        let last = index + 1 == stages.len();
        let stage_deadline = if last { deadline } else { now + deadline.saturating_duration_since(now) / 2 };
        let members = || parts.iter().filter(|(of, _)| of == stage).map(|(_, part)| part);
        members().for_each(|part| part.drain(stage_deadline));
        let left = wait_all(members().map(|part| part.entry()), stage_deadline).await;
        for Unfinished { kind, name } in &left {
            tracing::warn!(component = "actors", kind, actor = name, "an actor did not end in time");
        }
        unfinished.extend(left);
    }
    unfinished
}

/// Waits until all have ended, or until the deadline; returns those that have not.
pub(super) async fn wait_all<'a>(entries: impl Iterator<Item = &'a Arc<Entry>>, deadline: Instant) -> Vec<Unfinished> {
    let mut unfinished = Vec::new();
    for entry in entries {
        if timeout_at(deadline, entry.ended()).await.is_err() {
            unfinished.push(Unfinished { kind: entry.kind().name, name: entry.name().to_owned() });
        }
    }
    unfinished
}
