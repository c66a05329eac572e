//! What start timestamps tell about two samples of a counter.

use crate::promql::functions::window::TimedSample;

/// True if the counter began anew between the two samples, as the start of the later one says. A start at the time of the
/// sample before it is a reset only if that one's own start is known: then the samples are differences.
pub(crate) fn is_reset(before: &TimedSample<'_>, now: &TimedSample<'_>) -> bool {
    let start_ms = now.start_ms;
    if start_ms == 0 || start_ms >= now.at_ms || start_ms < before.at_ms {
        return false;
    }
    if start_ms > before.at_ms {
        return true;
    }
    before.start_ms != 0 && before.start_ms < before.at_ms
}

/// True if the later sample began before the earlier one was taken, and not with it.
pub(crate) fn overlaps(before: &TimedSample<'_>, now: &TimedSample<'_>) -> bool {
    now.start_ms != 0 && now.start_ms < before.at_ms && now.start_ms != before.start_ms
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::promql::functions::window::SampleValue;

    #[track_caller]
    fn check(before: (i64, i64), now: (i64, i64), expected: (bool, bool)) {
        let sample = |(start_ms, at_ms)| TimedSample { at_ms, start_ms, value: SampleValue::Float(1.0) };
        let (before, now) = (sample(before), sample(now));
        assert_eq!((is_reset(&before, &now), overlaps(&before, &now)), expected);
    }

    #[test]
    fn starts_tell_resets_from_overlaps() {
        check((0, 100), (0, 200), (false, false));
        check((50, 100), (50, 200), (false, false));
        check((50, 100), (150, 200), (true, false));
        check((50, 100), (100, 200), (true, false));
        // The start of the first is not known, or it is no start at all.
        check((0, 100), (100, 200), (false, false));
        check((100, 100), (100, 200), (false, false));
        check((160, 100), (100, 200), (false, false));
        check((50, 100), (60, 200), (false, true));
        check((50, 100), (200, 200), (false, false));
    }
}
