//! What a query asks for more than once: parts of the expression, and series that several selectors look at. Both are kept
//! until they are asked for the last time, and are the first thing to go when the query reaches a limit of memory.
//!
//! Nobody can tell from an answer. A part that is not evaluated again counts as if it were: with it are kept what it did to the
//! counts of samples and what it remarked, and its remarks get the places of whoever asks.
//!
//! Invariant: whatever is in here may be gone the next time it is looked for, and is then made anew.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::promql::eval::annotations::AnnotationSet;
use crate::promql::eval::error::EvalError;
use crate::promql::eval::exec::{Exec, Selection};
use crate::promql::eval::kept::KeptSamples;
use crate::promql::eval::ledger::Spare;
use crate::promql::eval::matrix::Matrix;
use crate::promql::eval::samples::Footprint;
use crate::promql::eval::steps::Steps;
use crate::promql::eval::tally::Tally;
use crate::promql::eval::{self};
use crate::promql::plan::{Node, Selector, Share, Sharing};

/// Most bytes of samples that a query keeps for selectors that follow.
const SAMPLES_LEN_MAX: usize = 32 << 20;

/// What is kept of one query.
#[derive(Debug)]
pub(crate) struct Common<'a> {
    sharing: &'a Sharing,
    /// How often a part of each class is still asked for.
    uses_left: Vec<u32>,
    store: Arc<Store>,
}

/// What the query's ledger lets go when there is no memory left.
#[derive(Debug, Default)]
struct Store(Mutex<Contents>);

#[derive(Debug, Default)]
struct Contents {
    parts: HashMap<u32, Part>,
    reads: Vec<KeptRead>,
    /// Bytes of samples that are kept.
    samples_len: Arc<AtomicUsize>,
}

/// A selection that waits for more selectors.
#[derive(Debug, Default)]
struct KeptRead {
    selection: Option<Selection>,
    samples: Option<Arc<KeptSamples>>,
    asked: u32,
}

/// The value of a part, and what evaluating it did besides.
#[derive(Debug)]
struct Part {
    matrix: Matrix,
    steps: Steps,
    share: Share,
    /// Where it stands in the text.
    start: usize,
    footprint: Footprint,
    tally: Tally,
    annotations: AnnotationSet,
}

impl Store {
    fn lock(&self) -> MutexGuard<'_, Contents> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Spare for Store {
    fn let_go(&self) -> bool {
        // Whoever holds the lock is about to keep something, and goes on without.
        let Ok(mut contents) = self.0.try_lock() else { return false };
        let parts = std::mem::take(&mut contents.parts);
        let mut has_any = !parts.is_empty();
        for read in &mut contents.reads {
            has_any |= read.selection.take().is_some();
            if let Some(samples) = read.samples.take() {
                samples.forget();
                has_any = true;
            }
        }
        drop(contents);
        has_any
    }
}

impl<'a> Common<'a> {
    /// Keeps nothing yet. What it will keep is let go when `exec` reaches a limit.
    pub(crate) fn new(sharing: &'a Sharing, ledger: &crate::promql::eval::QueryLedger) -> Self {
        let store = Arc::new(Store::default());
        if !sharing.uses.is_empty() || !sharing.reads.is_empty() {
            let spare: Arc<dyn Spare> = store.clone();
            ledger.offer(&spare);
        }
        store.lock().reads.resize_with(sharing.reads.len(), KeptRead::default);
        Self { sharing, uses_left: sharing.uses.clone(), store }
    }

    /// Notes that a part is asked for; true if it was asked for before or will be again.
    fn asks_for(&mut self, share: Share) -> Option<Ask> {
        let class = usize::try_from(share.class).ok()?;
        if self.sharing.uses.get(class).is_none_or(|uses| *uses < 2) {
            return None;
        }
        let left = self.uses_left.get_mut(class)?;
        *left = left.saturating_sub(1);
        Some(if *left == 0 { Ask::Last } else { Ask::First })
    }
}

/// True if a part that has one selector is asked for once, and nobody else looks at the selector's series.
pub(crate) fn is_asked_once(exec: &Exec<'_>, part: &Node, selector: &Selector) -> bool {
    let sharing = exec.common.sharing;
    let uses = usize::try_from(part.share.class).ok().and_then(|class| sharing.uses.get(class));
    uses.is_none_or(|uses| *uses < 2) && sharing.read_of(selector).is_none()
}

/// Whether there will be more of the same.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ask {
    First,
    Last,
}

/// The value of a node that may have been evaluated, or may be asked for again.
pub(crate) fn eval(exec: &mut Exec<'_>, node: &Node, steps: Steps) -> Result<Matrix, EvalError> {
    let Some(ask) = exec.common.asks_for(node.share) else { return eval::operation(exec, node, steps) };
    let class = node.share.class;
    let kept = exec.common.store.lock().parts.remove(&class);
    match kept {
        Some(part) if part.serves(exec, node, steps) => part.again(exec, node, ask),
        Some(part) => {
            exec.common.store.lock().parts.insert(class, part);
            eval::operation(exec, node, steps)
        }
        None if ask == Ask::Last => eval::operation(exec, node, steps),
        None => first(exec, node, steps),
    }
}

/// Evaluates a node and keeps its value.
fn first(exec: &mut Exec<'_>, node: &Node, steps: Steps) -> Result<Matrix, EvalError> {
    let Some(tally) = exec.samples.tally.empty_copy(exec, steps)? else {
        return eval::operation(exec, node, steps);
    };
    let remarks = AnnotationSet::new(exec.charge(0)?);
    let annotations = std::mem::replace(&mut exec.annotations, remarks);
    let tally = std::mem::replace(&mut exec.samples.tally, tally);
    let mark = exec.samples.mark();
    let matrix = eval::operation(exec, node, steps)?;
    let footprint = exec.samples.footprint(mark);
    let tally = std::mem::replace(&mut exec.samples.tally, tally);
    let annotations = std::mem::replace(&mut exec.annotations, annotations);
    exec.samples.tally.add(&tally);
    exec.annotations.add_all(&annotations, 0)?;
    if let Some(copy) = matrix.spare_copy(exec) {
        let start = node.range.start;
        let part = Part { matrix: copy, steps, share: node.share, start, footprint, tally, annotations };
        exec.common.store.lock().parts.insert(node.share.class, part);
    }
    Ok(matrix)
}

impl Part {
    /// True if evaluating `node` would do the same. Remarks must get their places: those of their parts lie as far from the
    /// node's as they did.
    fn serves(&self, exec: &Exec<'_>, node: &Node, steps: Steps) -> bool {
        self.steps == steps
            && self.tally.has_steps() == exec.samples.tally.has_steps()
            && (self.annotations.is_empty() || self.share.layout == node.share.layout)
    }

    /// Does what evaluating it did, at another place.
    fn again(self, exec: &mut Exec<'_>, node: &Node, ask: Ask) -> Result<Matrix, EvalError> {
        exec.samples.leave(self.footprint)?;
        exec.samples.tally.add(&self.tally);
        let further = node.range.start.wrapping_sub(self.start);
        exec.annotations.add_all(&self.annotations, further)?;
        exec.spend(self.matrix.series.len())?;
        let copy = if ask == Ask::Last { None } else { self.matrix.spare_copy(exec) };
        let Some(copy) = copy else { return Ok(self.matrix) };
        exec.common.store.lock().parts.insert(node.share.class, self);
        Ok(copy)
    }
}

/// The selection that serves `selector` and others, if there are such; it may have series without samples for this one.
pub(crate) fn select(exec: &Exec<'_>, selector: &Selector, range_ms: (i64, i64)) -> Option<Selection> {
    let Common { sharing, store, .. } = &exec.common;
    let place = sharing.read_of(selector)?;
    let read = sharing.reads.get(place)?;
    if range_ms.0 < read.range_ms.0 || read.range_ms.1 < range_ms.1 {
        return None;
    }
    let mut contents = store.lock();
    let samples_len = Arc::clone(&contents.samples_len);
    let kept = contents.reads.get_mut(place)?;
    kept.asked = kept.asked.saturating_add(1);
    let is_last = read.selectors <= kept.asked;
    let known = if is_last { kept.selection.take() } else { kept.selection.clone() };
    if known.is_some() || is_last {
        return known;
    }
    drop(contents);
    // Whatever is wrong here shows again when the selector looks for its series alone.
    let mut selection = exec.select_alone(&selector.matchers, read.range_ms).ok()?;
    let mut samples = None;
    if 1 < read.decodes {
        let kept = KeptSamples::new(*read, Arc::clone(&exec.ctx.ledger), (samples_len, SAMPLES_LEN_MAX))?;
        selection = kept.keeping(selection)?;
        samples = Some(kept);
    }
    let mut contents = store.lock();
    if let Some(kept) = contents.reads.get_mut(place) {
        (kept.selection, kept.samples) = (Some(selection.clone()), samples);
    }
    Some(selection)
}

/// Bytes of samples that are kept, counted until this is dropped.
#[derive(Debug)]
pub(crate) struct Room {
    all: Arc<AtomicUsize>,
    bytes: usize,
}

impl Room {
    /// Room for `bytes`, if there is so much below `max`.
    pub(crate) fn take(all: &Arc<AtomicUsize>, bytes: usize, max: usize) -> Option<Self> {
        let more = |used: usize| used.checked_add(bytes).filter(|sum| *sum <= max);
        all.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Self { all: Arc::clone(all), bytes })
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.all.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
