//! What a view of blocks has met on its way.

use std::collections::BTreeSet;

use parking_lot::Mutex;

use crate::model::read::ReadError;
use crate::storage::block::catalog::OnDamage;
use crate::storage::block::read::Block;

/// Damage that a view has met, and what becomes of it.
#[derive(Default)]
pub(super) struct Notes {
    on_damage: OnDamage,
    texts: Mutex<BTreeSet<String>>,
}

/// Remarks of one view at most.
const NOTES_MAX: usize = 20;

impl Notes {
    pub(super) fn new(on_damage: OnDamage) -> Self {
        Self { on_damage, texts: Mutex::default() }
    }

    /// What was met so far, sorted.
    pub(super) fn texts(&self) -> Vec<String> {
        self.texts.lock().iter().cloned().collect()
    }

    /// Takes a remark, or is the error that it tells of.
    pub(super) fn take(&self, text: String) -> Result<(), ReadError> {
        if self.on_damage == OnDamage::Fail {
            return Err(ReadError::Corrupt(text));
        }
        let mut texts = self.texts.lock();
        if texts.len() < NOTES_MAX {
            texts.insert(text);
        }
        Ok(())
    }

    /// Takes what reading `block` ended with: an error, or else the reader goes on without what it wanted.
    pub(super) fn met(&self, block: &Block, error: ReadError) -> Result<(), ReadError> {
        let ReadError::Corrupt(text) = error else { return Err(error) };
        block.report(&text);
        self.take(format!("block {}: {text}", block.meta().ulid))
    }
}
