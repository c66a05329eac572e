//! Work on series that do not depend on each other: done in blocks on the query's own thread and on helpers, handed on in the
//! order of the series, so that neither results nor errors depend on how many threads there are.
//!
//! Helpers are bounded for the whole process and are never waited for: where none is free the query goes on alone. They end
//! with the work that they were started for.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::thread;

use crate::promql::eval::Helpers;
use crate::promql::eval::error::EvalError;

/// Series that a thread takes at a time.
const BLOCK_LEN: usize = 32;

/// Threads that help queries at the moment.
static HELPERS: AtomicUsize = AtomicUsize::new(0);

/// Most of them: with the thread of one query they fill the machine.
static HELPERS_MAX: LazyLock<usize> =
    LazyLock::new(|| thread::available_parallelism().map_or(1, usize::from).clamp(1, 16) - 1);

/// A turn as a helper.
struct Turn;

impl Turn {
    fn take() -> Option<Self> {
        let free = |helpers: usize| (helpers < *HELPERS_MAX).then_some(helpers + 1);
        HELPERS.fetch_update(Ordering::Relaxed, Ordering::Relaxed, free).ok().map(|_| Self)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        HELPERS.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How many threads an operator may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Threads {
    /// The query's own.
    One,
    /// Helpers as well, where some are free; each takes so many series at a time.
    Many(usize),
}

impl Threads {
    /// Whether helpers are wanted and worth their start: for so many series, of which each has about so many samples.
    pub(crate) fn for_series(helpers: Helpers, series: usize, samples: usize) -> Self {
        let is_worth_it = series > BLOCK_LEN && series.saturating_mul(samples.saturating_add(100)) > 250_000;
        match helpers {
            Helpers::WhereWorthIt if is_worth_it => Self::Many(BLOCK_LEN),
            Helpers::Always => Self::Many(1),
            Helpers::WhereWorthIt | Helpers::Never => Self::One,
        }
    }
}

/// What a block of items gave: the results up to the first error, and the error.
type BlockResult<R> = (Vec<R>, Result<(), EvalError>);

/// Applies `work` to each item and hands the results to `take` in the order of the items, on the calling thread. Each thread
/// has a state from `begin`, which `end` gets. The error is that of the first item that has one.
pub(crate) fn in_order<T: Sync, S, R: Send>(
    items: &[T],
    threads: Threads,
    begin: impl Fn() -> Result<S, EvalError> + Sync,
    work: impl Fn(&mut S, &T) -> Result<R, EvalError> + Sync,
    end: impl Fn(S) + Sync,
    mut take: impl FnMut(&T, R) -> Result<(), EvalError>,
) -> Result<(), EvalError> {
    let block_len = match threads {
        Threads::One => items.len().max(1),
        Threads::Many(block_len) => block_len.max(1),
    };
    let helpers = (items.len().div_ceil(block_len) / 2).min(*HELPERS_MAX);
    let turns: Vec<Turn> = std::iter::from_fn(Turn::take).take(helpers).collect();
    if turns.is_empty() {
        let mut state = begin()?;
        for item in items {
            take(item, work(&mut state, item)?)?;
        }
        end(state);
        return Ok(());
    }
    let blocks: Vec<Mutex<Option<BlockResult<R>>>> = items.chunks(block_len).map(|_| Mutex::new(None)).collect();
    let next = AtomicUsize::new(0);
    // Blocks behind one with an error need not be done.
    let failed = AtomicUsize::new(usize::MAX);
    let run = || -> Result<(), EvalError> {
        let mut state = begin()?;
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let (Some(slot), Some(block)) = (blocks.get(number), items.chunks(block_len).nth(number)) else { break };
            if failed.load(Ordering::Relaxed) < number {
                break;
            }
            let mut results = Vec::with_capacity(block.len());
            let outcome = block.iter().try_for_each(|item| {
                results.push(work(&mut state, item)?);
                Ok(())
            });
            if outcome.is_err() {
                failed.fetch_min(number, Ordering::Relaxed);
            }
            *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some((results, outcome));
        }
        end(state);
        Ok(())
    };
    thread::scope(|scope| {
        let helpers: Vec<_> = turns
            .into_iter()
            .filter_map(|turn| {
                let help = || {
                    let _turn = turn;
                    run()
                };
                thread::Builder::new().name("query-helper".to_owned()).spawn_scoped(scope, help).ok()
            })
            .collect();
        let mut outcome = run();
        for helper in helpers {
            let helped = helper.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            outcome = outcome.and(helped);
        }
        outcome
    })?;
    for (block, slot) in items.chunks(block_len).zip(blocks) {
        let Some((results, outcome)) = slot.into_inner().unwrap_or_else(PoisonError::into_inner) else { break };
        for (item, result) in block.iter().zip(results) {
            take(item, result)?;
        }
        outcome?;
    }
    Ok(())
}

/// Runs jobs 0 to `count`, each once: on the calling thread, and on helpers where some are free.
pub(crate) fn each(count: usize, job: &(dyn Fn(usize) + Sync)) {
    let next = AtomicUsize::new(0);
    let run = || {
        while let Some(number) = Some(next.fetch_add(1, Ordering::Relaxed)).filter(|number| *number < count) {
            job(number);
        }
    };
    let turns: Vec<Turn> = std::iter::from_fn(Turn::take).take(count.saturating_sub(1)).collect();
    thread::scope(|scope| {
        for turn in turns {
            let help = || {
                let _turn = turn;
                run();
            };
            // Without the thread the others do its jobs. A panic in it is this thread's when the scope ends.
            let _ = thread::Builder::new().name("query-helper".to_owned()).spawn_scoped(scope, help);
        }
        run();
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_order_and_the_first_error_counts() {
        let items: Vec<usize> = (0..1000).collect();
        for threads in [Threads::One, Threads::Many(BLOCK_LEN), Threads::Many(1)] {
            for first_bad in [5, 500, 5000] {
                let mut seen = Vec::new();
                let work = |_: &mut (), item: &usize| match *item {
                    bad if first_bad <= bad => Err(EvalError::Execution(bad.to_string())),
                    good => Ok(good * 2),
                };
                let done = in_order(
                    &items,
                    threads,
                    || Ok(()),
                    work,
                    |()| {},
                    |item, result| {
                        seen.push((*item, result));
                        Ok(())
                    },
                );
                let expected: Vec<_> = items.iter().take(first_bad).map(|item| (*item, item * 2)).collect();
                assert_eq!(seen, expected);
                match done {
                    Ok(()) => assert!(items.len() <= first_bad),
                    Err(error) => {
                        assert_eq!(error.to_string(), EvalError::Execution(first_bad.to_string()).to_string())
                    }
                }
            }
        }
    }

    #[test]
    fn each_job_is_run_once() {
        for count in [0, 1, 2, 100] {
            let runs: Vec<AtomicUsize> = (0..count).map(|_| AtomicUsize::new(0)).collect();
            each(count, &|number| {
                runs[number].fetch_add(1, Ordering::Relaxed);
            });
            assert!(runs.iter().all(|runs| runs.load(Ordering::Relaxed) == 1));
        }
    }

    #[test]
    fn helpers_are_bounded_and_leave() {
        let turns: Vec<Turn> = std::iter::from_fn(Turn::take).take(100).collect();
        assert!(turns.len() <= *HELPERS_MAX);
    }

    #[test]
    #[should_panic(expected = "item 77")]
    fn a_panic_of_a_helper_is_the_querys() {
        let items: Vec<usize> = (0..1000).collect();
        let work = |_: &mut (), item: &usize| if *item == 77 { panic!("item 77") } else { Ok(()) };
        let _ = in_order(&items, Threads::Many(BLOCK_LEN), || Ok(()), work, |()| {}, |_, ()| Ok(()));
    }
}
