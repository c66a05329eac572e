//! From the text of a query to its tree, within what the query may hold: the text alone can ask for a lot of memory.

use std::cell::RefCell;
use std::rc::Rc;

use crate::model::regexp;
use crate::promql::ast::Expr;
use crate::promql::eval::QueryContext;
use crate::promql::eval::error::EvalError;
use crate::promql::eval::ledger::Charge;
use crate::promql::parser::{ParseErrors, ParseOptions, parse_expr};

/// What the tree and the plan take for each mark in the text that may begin a node, at most.
const LEN_PER_MARK: usize = 512;
/// What they take for each byte besides.
const LEN_PER_BYTE: usize = 6;

/// A query that is parsed.
#[derive(Debug)]
pub struct ParsedQuery {
    /// Its tree.
    pub expr: Expr,
    /// What the tree holds, and its plan will.
    pub held: Charge,
}

/// Why a query is not parsed.
#[derive(Debug, thiserror::Error)]
pub enum ParseFailure {
    /// It is no PromQL.
    #[error(transparent)]
    Syntax(ParseErrors),
    /// It takes too much memory.
    #[error(transparent)]
    Budget(EvalError),
}

/// Parses the context's text and charges what comes of it.
pub fn parse(options: &ParseOptions, ctx: &QueryContext) -> Result<ParsedQuery, ParseFailure> {
    let over = |over: crate::promql::eval::OverBudget| ParseFailure::Budget(EvalError::Budget(over.to_string()));
    let held = ctx.ledger.charge(tree_len(&ctx.text)).map_err(over)?;
    let (parsed, held) = charging_regexps(held, || parse_expr(&ctx.text, options));
    Ok(ParsedQuery { expr: parsed.map_err(ParseFailure::Syntax)?, held })
}

/// Runs `work` and charges the regular expressions that it compiles; those for which there is no room are refused as too
/// large.
pub(super) fn charging_regexps<T>(held: Charge, work: impl FnOnce() -> T) -> (T, Charge) {
    let held = Rc::new(RefCell::new(Some(held)));
    let account = Rc::clone(&held);
    let take = move |bytes: usize| account.borrow_mut().as_mut().is_some_and(|held| held.grow(bytes).is_ok());
    let done = regexp::within(Rc::new(take), work);
    let held = held.borrow_mut().take().expect("nobody else takes it");
    (done, held)
}

/// Most bytes that the tree and the plan of a text take, its regular expressions aside.
fn tree_len(text: &str) -> usize {
    let is_mark =
        |byte: &u8| !(byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b':' | b'.' | b'|' | b'\\' | 0x80..));
    let marks = text.bytes().filter(is_mark).count() + 1;
    marks.saturating_mul(LEN_PER_MARK).saturating_add(text.len().saturating_mul(LEN_PER_BYTE))
}
