//! Stack for deeply nested expressions. Planning and evaluation recurse, a few stack frames for each level; what a usual
//! thread's stack holds is enough for every query that people write, and not for all that the parser accepts.

use std::panic::resume_unwind;
use std::thread;

use crate::promql::ast::Expr;
use crate::promql::eval::EngineOptions;
use crate::promql::eval::error::EvalError;

/// Levels that fit the stack of any thread that evaluates.
const LEVELS_IN_PLACE: usize = 48;
/// Stack for one level; frames of unoptimised builds are the largest.
const STACK_PER_LEVEL: usize = 48 << 10;
/// Stack for everything else.
const STACK_BASE: usize = 1 << 20;

/// Runs `work`, which recurses over `expr`: in place, or for deep expressions on a thread with enough stack, for which the
/// caller waits.
pub(crate) fn with_stack_for<T: Send>(
    expr: &Expr,
    opts: &EngineOptions,
    work: impl FnOnce() -> Result<T, EvalError> + Send,
) -> Result<T, EvalError> {
    let levels = height(expr);
    if levels > opts.max_depth {
        let limit = opts.max_depth;
        return Err(EvalError::BadQuery(format!("expression is nested more than {limit} levels deep")));
    }
    if levels <= LEVELS_IN_PLACE {
        return work();
    }
    let stack_len = STACK_BASE + levels * STACK_PER_LEVEL;
    let builder = thread::Builder::new().name("promql-deep".to_owned()).stack_size(stack_len);
    thread::scope(|scope| {
        let spawned = builder.spawn_scoped(scope, work);
        let worker = spawned.map_err(|error| {
            EvalError::Execution(format!("cannot start a thread with {stack_len} bytes of stack: {error}"))
        })?;
        // A panic in there is the caller's: supervision counts it where the query was admitted.
        worker.join().unwrap_or_else(|panic| resume_unwind(panic))
    })
}

/// Whether the expression is evaluated on the thread that asks.
pub fn is_shallow(expr: &Expr) -> bool {
    height(expr) <= LEVELS_IN_PLACE
}

/// Levels of an expression; found without recursion.
fn height(root: &Expr) -> usize {
    let mut highest = 0;
    let mut open = vec![(root, 1)];
    while let Some((expr, level)) = open.pop() {
        highest = highest.max(level);
        open.extend(expr.children().into_iter().map(|child| (child, level + 1)));
    }
    highest
}
