//! Scrapes of known series, appended on the thread that has scraped them. A message to the shard and back wakes two threads
//! up, and its samples have left the processor's cache by then; where nobody else is at the partition, the thread stages and
//! applies them itself, with one of the shard's slots. So it does with the log, where nobody else is at that.
//!
//! Invariants: nothing waits here for the partition or the log, what finds one taken goes by its actor; the order of a commit is that
//! of every other (staged, logged, applied, by the queue of the partition); a panic counts as the actor's, which is restarted.

use std::time::Instant;

use super::{AppendFailure, Priority, ShardFailure, StorageClient, not_logged};
use crate::actors::current;
#[cfg(debug_assertions)]
use crate::actors::failpoint::{self, Point};
use crate::actors::log_writer::AtOnce;
use crate::actors::mailbox::{Lent, SendError};
use crate::actors::panics::catch;
use crate::actors::registry::ActorState;
use crate::actors::storage_shard::{AppendSlice, PanickedElsewhere};
#[cfg(debug_assertions)]
use crate::actors::storage_shard::{STORAGE_SHARD, may_panic_in_apply};
use crate::model::append::{AppendReport, ShardId};
use crate::model::time::TimestampMs;
use crate::storage::head::route::Slice;
use crate::storage::head::shard::Staged;
use crate::storage::wal::record::LogRecords;

/// How far the log is with a commit.
pub(super) enum Logging {
    /// It was not asked.
    Due,
    /// It was not asked; these are the records.
    Encoded(LogRecords),
    /// It has the records, or need not have them.
    Done,
}

impl StorageClient {
    /// Stages a slice that is a commit of its own: at most some thousand samples of series that are known, well below a
    /// millisecond. `None`, with nothing done, for any other, and where the actor or the partition is not free.
    pub(super) fn stage_here(
        &self,
        shard: ShardId,
        priority: Priority,
        first: Option<TimestampMs>,
        slice: &mut Slice,
    ) -> Option<Result<(Staged, Lent), AppendFailure>> {
        if !slice.is_usual() {
            return None;
        }
        let slot = self.addr(shard, priority).lend()?;
        let commit = self.head.begin(first);
        let of = &self.head.shards()[usize::from(shard.0)];
        let staged = self.at_work(shard, |_name| {
            #[cfg(debug_assertions)]
            failpoint::hit(STORAGE_SHARD.name, _name, Point::Handler);
            of.try_stage(&commit, slice)
        })?;
        Some(match staged {
            Ok(staged) => staged.map(|staged| (staged, slot)).map_err(|error| AppendFailure::Refused(error.into())),
            Err(failure) => Err(AppendFailure::Unsure(failure)),
        })
    }

    /// Writes the records of what [`Self::stage_here`] has staged, if nobody else is at the log.
    pub(super) fn log_here(&self, staged: &mut [(ShardId, Staged)]) -> Result<Logging, AppendFailure> {
        let (Some(journal), [(shard, part)]) = (self.log.get().filter(|_| self.writes_log), staged) else {
            return Ok(Logging::Due);
        };
        let records = LogRecords::of_staged(&[&*part]);
        if !records.is_empty() {
            match journal.way.write_here(records) {
                AtOnce::NotNow(records) => return Ok(Logging::Encoded(records)),
                AtOnce::Done(Err(error)) => return Err(AppendFailure::Refused(not_logged(*shard, error).into())),
                AtOnce::Done(Ok(_)) => {}
            }
        }
        part.set_logged();
        Ok(Logging::Done)
    }

    /// Applies what [`Self::stage_here`] has staged, which the log has by now; takes it out of `staged` if it does.
    pub(super) fn apply_here(&self, staged: &mut Vec<(ShardId, Staged)>) -> Option<Result<AppendReport, ShardFailure>> {
        let (shard, part) = staged.pop()?;
        let mut part = Some(part);
        let of = &self.head.shards()[usize::from(shard.0)];
        let is_running = self.addr(shard, Priority::Normal).entry().state() == ActorState::Running;
        let applied = if is_running {
            self.at_work(shard, |_name| {
                #[cfg(debug_assertions)]
                part.iter().for_each(|part| may_panic_in_apply(of, _name, part));
                let applied = of.try_apply(&mut part)?;
                #[cfg(debug_assertions)]
                failpoint::hit(STORAGE_SHARD.name, _name, Point::Step("after-apply"));
                Some(applied)
            })
        } else {
            None
        };
        staged.extend(part.map(|part| (shard, part)));
        applied.map(|applied| Ok(applied??))
    }

    /// Does a shard's work. Its panic is left to the actor, which is to repair what the panic has left.
    fn at_work<T>(&self, shard: ShardId, work: impl FnOnce(&str) -> Option<T>) -> Option<Result<T, ShardFailure>> {
        let addr = self.addr(shard, Priority::Normal);
        let entry = addr.entry();
        let began = Instant::now();
        let _scope = current::enter(entry);
        current::doing(std::any::type_name::<AppendSlice>());
        match catch(|| work(entry.name())) {
            Ok(done) => {
                let done = done?;
                entry.count_handled(began.elapsed().as_secs_f64());
                Some(Ok(done))
            }
            Err(text) => {
                // Without a slot the actor finds a torn partition by itself, and others repair one that was being staged.
                let _ = addr.try_tell(PanickedElsewhere(text));
                Some(Err(ShardFailure::of_send(shard)(SendError::Restarted)))
            }
        }
    }
}
