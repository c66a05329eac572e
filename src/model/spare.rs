//! Lists that a thread keeps from one scrape for its next. They are too long for the allocator's store of a thread: given back to it,
//! their memory goes to the system before it is wanted again, and is cleared when it comes back.
//!
//! Bound: two lists for each thread that scrapes or appends, of [`ROOM_MAX`] elements.

use std::cell::Cell;

use crate::model::append::AppendSample;

/// Longer lists are not kept.
const ROOM_MAX: usize = 8192;

thread_local! {
    static SAMPLES: Cell<Vec<AppendSample>> = const { Cell::new(Vec::new()) };
}

/// A list of one thread.
pub type Spare<T> = std::thread::LocalKey<Cell<Vec<T>>>;

/// An empty list with room for `room` samples, and not for many more.
pub fn samples(room: usize) -> Vec<AppendSample> {
    list(&SAMPLES, room)
}

/// Keeps a list whose samples have gone.
pub fn keep_samples(list: Vec<AppendSample>) {
    keep(&SAMPLES, list);
}

/// An empty list with room for `room` elements, and not for many more.
pub fn list<T>(spare: &'static Spare<T>, room: usize) -> Vec<T> {
    let kept = spare.take();
    if (room..=2 * room).contains(&kept.capacity()) {
        return kept;
    }
    spare.set(kept);
    Vec::with_capacity(room)
}

/// Keeps a list that is not needed any more, if it is worth more than the one that is kept.
pub fn keep<T>(spare: &'static Spare<T>, mut list: Vec<T>) {
    list.clear();
    if list.capacity() <= ROOM_MAX {
        // A thread that is ending keeps nothing.
        let _ = spare.try_with(|spare| {
            let kept = spare.take();
            spare.set(if kept.capacity() < list.capacity() { list } else { kept });
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_used_again_where_its_room_fits() {
        thread_local! {
            static BYTES: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
        }
        let mut first = list(&BYTES, 1000);
        first.push(1);
        let place = first.as_ptr();
        keep(&BYTES, first);
        let small = list(&BYTES, 10);
        assert!(small.as_ptr() != place && small.capacity() < 1000, "a small one gets none of the large one's room");
        keep(&BYTES, small);
        let again = list(&BYTES, 900);
        assert_eq!((again.as_ptr(), again.len()), (place, 0));
        keep(&BYTES, again);
        keep(&BYTES, Vec::with_capacity(ROOM_MAX + 1));
        let again = list(&BYTES, 1000);
        assert_eq!(again.as_ptr(), place, "a list that is too long is not kept");
    }
}
