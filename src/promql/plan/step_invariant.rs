//! Which parts of an expression have the same value at every step (Prometheus's `preprocessExprHelper`).

use crate::promql::plan::node::{Node, Selector};

/// What is known about a node's value from step to step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Invariance {
    /// The value is the same at every step.
    pub(crate) is_invariant: bool,
    /// It is worth to evaluate the node once. Not so for literals, and not possible for range vectors, whose samples
    /// have times of their own.
    wrap: bool,
}

impl Invariance {
    /// Differs from step to step.
    pub(crate) const NONE: Self = Self { is_invariant: false, wrap: false };
    /// A literal.
    pub(crate) const OF_LITERAL: Self = Self { is_invariant: true, wrap: false };
    /// An operation whose operands are the same at every step.
    pub(crate) const OF_OPERATION: Self = Self { is_invariant: true, wrap: true };

    /// An instant selector: the same at every step if it is pinned.
    pub(crate) fn of_selector(selector: &Selector) -> Self {
        if selector.pinned_ms.is_some() { Self::OF_OPERATION } else { Self::NONE }
    }

    /// A range vector.
    pub(crate) fn of_range(pinned: bool) -> Self {
        Self { is_invariant: pinned, wrap: false }
    }

    /// The node, evaluated once if it is worth that.
    pub(crate) fn wrap(self, node: Node) -> Node {
        if self.wrap { node.into_step_invariant() } else { node }
    }
}
