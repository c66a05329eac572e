//! Where readers find the column of a series: a pointer behind a lock of one byte, which is held for some instructions.
//!
//! A reader copies the pointer and lets go; it decodes what it holds without a lock. As every copy is counted, the writer knows
//! whether anybody reads a column, and changes one that nobody does in its place ([`ColumnSlot::change`]). A pointer that is swapped
//! without a lock would have to look at every thread of the process whenever it is stored.

use std::fmt;
use std::mem;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::storage::head::column::Column;

/// A pointer that stands at any address, so that it takes nine bytes with its lock.
#[repr(C, packed)]
struct Unaligned(Option<Arc<Column>>);

/// The column of a series, if it has any samples.
pub(super) struct ColumnSlot(Mutex<Unaligned>);

impl fmt::Debug for ColumnSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ColumnSlot").field(&self.load()).finish()
    }
}

impl ColumnSlot {
    pub(super) fn empty() -> Self {
        Self(Mutex::new(Unaligned(None)))
    }

    /// The column as it is now, and stays for as long as it is held, but for samples that are added.
    #[inline]
    pub(super) fn load(&self) -> Option<Arc<Column>> {
        let mut shown = self.0.lock();
        let Unaligned(column) = mem::replace(&mut *shown, Unaligned(None));
        let copy = column.clone();
        *shown = Unaligned(column);
        copy
    }

    /// Shows another column.
    pub(super) fn store(&self, column: Option<Arc<Column>>) {
        let before = mem::replace(&mut *self.0.lock(), Unaligned(column));
        // Freed without the lock.
        drop(before);
    }

    /// Changes the writer's own column, if nobody holds it but the writer and this place; false, and nothing is done, if somebody
    /// does. Readers that come meanwhile wait, so `change` should be short.
    #[inline]
    pub(super) fn change(&self, own: &mut Arc<Column>, change: impl FnOnce(&mut Column)) -> bool {
        let mut shown = self.0.lock();
        let Unaligned(before) = mem::replace(&mut *shown, Unaligned(None));
        let is_shown = before.is_some();
        // Not the last, as the writer has another.
        drop(before);
        let is_changed = match Arc::get_mut(own) {
            Some(column) => {
                change(column);
                true
            }
            None => false,
        };
        if is_shown {
            *shown = Unaligned(Some(Arc::clone(own)));
        }
        is_changed
    }
}
