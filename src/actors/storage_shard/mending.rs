//! Has head chunks that were found damaged read again from the log. One shard does it for all: the files are common to them, and the
//! log is read once.

use std::sync::Arc;
use std::time::Duration;

use actix::{ActorFutureExt, AsyncContext, WrapFuture};
use tokio::time::Instant;

use crate::actors::context::Context;
use crate::actors::pool::Lane;
use crate::actors::storage_shard::StorageShard;
use crate::storage::head_chunk_mending::{Mended, mend};

/// How long it may wait and take; what is left then is found by the next read.
const MEND_WITHIN: Duration = Duration::from_secs(600);
/// How long nothing is tried after the log could not be read.
const MEND_PAUSE: Duration = Duration::from_secs(30);

/// What a shard knows of it.
#[derive(Debug, Default)]
pub(super) struct Mending {
    pub(super) is_busy: bool,
    /// Until when nothing is tried.
    pause: Option<Instant>,
}

impl StorageShard {
    pub(super) fn mend_chunks(&mut self, ctx: &mut Context<Self>) {
        let deps = &self.deps;
        let is_ours = deps.shard.id().0 == 0 && deps.log.get().is_some();
        let waits = self.mending.is_busy || self.mending.pause.is_some_and(|until| Instant::now() < until);
        if !is_ours || waits || !deps.head.has_damaged_chunks() {
            return;
        }
        self.mending.is_busy = true;
        let job_deps = Arc::clone(deps);
        let job = move |_: &_| {
            let Some(journal) = job_deps.log.get() else { return Ok(Mended::default()) };
            let _files = journal.files.lock();
            mend(&job_deps.head)
        };
        let mended = deps.pool.run(Lane::Storage, Instant::now() + MEND_WITHIN, job);
        ctx.spawn(mended.into_actor(self).map(|mended, actor, _| {
            actor.mending.is_busy = false;
            // What was not mended is still known to be damaged.
            let failed = |error: String| {
                tracing::error!(
                    component = "tsdb",
                    err = error,
                    "Damaged head chunks cannot be read again from the log"
                )
            };
            match mended {
                Ok(Ok(_)) => return,
                Ok(Err(error)) => failed(error.to_string()),
                Err(error) => failed(error.to_string()),
            }
            actor.mending.pause = Some(Instant::now() + MEND_PAUSE);
        }));
    }
}
