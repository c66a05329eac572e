//! Which of several samples of one series and one time stamp stays: the one that stays in Prometheus.
//!
//! It has no rule that could be said in a sentence. Sources are kept in a heap by the time of their next sample; the one that is
//! read is changed when another has a sample that is not newer, and samples of the time that was last taken are passed over.
//! Among equals the heap's moves decide, so both are repeated here move by move.

/// A heap that keeps the order of Go's `container/heap` among equals. `less` is the same for all calls.
#[derive(Debug)]
pub(crate) struct GoHeap<T>(Vec<T>);

impl<T> Default for GoHeap<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> GoHeap<T> {
    /// Adds one.
    pub(crate) fn push(&mut self, one: T, less: impl Fn(&T, &T) -> bool) {
        self.0.push(one);
        let mut at = self.0.len() - 1;
        while at > 0 {
            let parent = (at - 1) / 2;
            if !self.is_less(at, parent, &less) {
                break;
            }
            self.0.swap(at, parent);
            at = parent;
        }
    }

    /// Takes one of the least.
    pub(crate) fn pop(&mut self, less: impl Fn(&T, &T) -> bool) -> Option<T> {
        let last = self.0.len().checked_sub(1)?;
        self.0.swap(0, last);
        let mut at = 0;
        loop {
            let mut child = 2 * at + 1;
            if last <= child {
                break;
            }
            if child + 1 < last && self.is_less(child + 1, child, &less) {
                child += 1;
            }
            if !self.is_less(child, at, &less) {
                break;
            }
            self.0.swap(at, child);
            at = child;
        }
        self.0.pop()
    }

    /// The one that [`Self::pop`] would take.
    pub(crate) fn first(&self) -> Option<&T> {
        self.0.first()
    }

    fn is_less(&self, a: usize, b: usize, less: &impl Fn(&T, &T) -> bool) -> bool {
        matches!((self.0.get(a), self.0.get(b)), (Some(a), Some(b)) if less(a, b))
    }
}

/// Where a sample comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pick {
    /// Number of the source.
    pub(crate) source: usize,
    /// Number of the sample in it.
    pub(crate) index: usize,
    /// True if the sample before it comes from the same source, without a look at others.
    pub(crate) is_consecutive: bool,
}

/// A sample that a source has come to.
#[derive(Clone, Copy, Debug)]
struct Cursor {
    source: usize,
    index: usize,
    t: i64,
}

/// The samples that a reader sees who goes from one to the next. `times` are those of each source, ascending, in the order in which
/// Prometheus has the sources, those without samples included: the first one is not looked at before the others are.
pub(crate) fn picks(times: &[&[i64]]) -> Vec<Pick> {
    let less = |a: &Cursor, b: &Cursor| a.t < b.t;
    let cursor = |source: usize, index: usize| Some(Cursor { source, index, t: *times.get(source)?.get(index)? });
    let mut heap = GoHeap::default();
    (1..times.len()).filter_map(|source| cursor(source, 0)).for_each(|first| heap.push(first, less));
    let mut picks = Vec::with_capacity(times.iter().map(|times| times.len()).max().unwrap_or(0));
    // The source that is read, and the number of its next sample.
    let (mut source, mut next) = (0, 0);
    let (mut last, mut has_changed) = (None, true);
    loop {
        let picked = loop {
            if let Some(found) = cursor(source, next) {
                next += 1;
                if last == Some(found.t) {
                    continue;
                }
                if heap.first().is_none_or(|first| found.t < first.t) {
                    break found;
                }
                heap.push(found, less);
            }
            let Some(other) = heap.pop(less) else { return picks };
            (source, next, has_changed) = (other.source, other.index + 1, true);
            if last != Some(other.t) {
                break other;
            }
        };
        last = Some(picked.t);
        let is_consecutive = !std::mem::take(&mut has_changed);
        picks.push(Pick { source: picked.source, index: picked.index, is_consecutive });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sources of the samples that are seen.
    fn sources(times: &[&[i64]]) -> Vec<(i64, usize)> {
        picks(times).into_iter().map(|pick| (times[pick.source][pick.index], pick.source)).collect()
    }

    #[test]
    fn of_two_sources_with_the_same_times_the_second_stays() {
        let times: &[i64] = &[1, 2, 3, 4];
        assert_eq!(sources(&[times, times]), [(1, 1), (2, 1), (3, 1), (4, 1)]);
        assert_eq!(sources(&[times, &[]]), [(1, 0), (2, 0), (3, 0), (4, 0)]);
        assert_eq!(sources(&[]), []);
    }

    #[test]
    fn a_source_that_waits_at_a_time_is_taken_before_the_one_that_comes_to_it() {
        assert_eq!(sources(&[&[1, 2, 3], &[3, 4]]), [(1, 0), (2, 0), (3, 1), (4, 1)]);
        assert_eq!(sources(&[&[1, 3], &[2, 3]]), [(1, 0), (2, 1), (3, 0)]);
        assert_eq!(sources(&[&[5, 6], &[1, 2]]), [(1, 1), (2, 1), (5, 0), (6, 0)]);
    }

    #[test]
    fn every_time_is_seen_once() {
        let times: [&[i64]; 4] = [&[1, 4, 6, 9], &[2, 4, 5, 6, 7], &[1, 2, 3, 9, 10], &[4, 6]];
        let seen: Vec<i64> = sources(&times).into_iter().map(|(t, _)| t).collect();
        assert_eq!(seen, (1..=7).chain(9..=10).collect::<Vec<_>>());
    }
}
