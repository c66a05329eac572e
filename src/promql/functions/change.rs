//! How often values change: `changes` and `resets`. Events are counted once per series, windows take differences.

use crate::model::read::FloatColumn;
use crate::promql::functions::window::{Window, WindowKernel};

/// Counts the samples of a window that differ from the sample before them in some way.
#[derive(Debug)]
pub(crate) struct EventCount {
    is_event: fn(f64, f64) -> bool,
    /// Events at or before each sample.
    up_to: Vec<u32>,
}

impl EventCount {
    /// `changes`: another value, where one NaN is as good as another.
    pub(crate) fn changes() -> Self {
        Self { is_event: |before, value| value != before && !(value.is_nan() && before.is_nan()), up_to: Vec::new() }
    }

    /// `resets`: a smaller value.
    pub(crate) fn resets() -> Self {
        Self { is_event: |before, value| value < before, up_to: Vec::new() }
    }
}

impl WindowKernel for EventCount {
    fn load(&mut self, column: &FloatColumn) {
        self.up_to.clear();
        self.up_to.push(0);
        let mut events = 0;
        for pair in column.values.windows(2) {
            events += u32::from((self.is_event)(pair[0], pair[1]));
            self.up_to.push(events);
        }
    }

    fn value(&mut self, window: Window<'_>) -> Option<f64> {
        Some(f64::from(self.up_to[window.to - 1] - self.up_to[window.from]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::promql::functions::window::testing;

    #[test]
    fn counts_inside_the_window_only() {
        let column = testing::column(1, &[1.0, 2.0, 2.0, 0.0, f64::NAN, f64::NAN, 1.0]);
        let of = |mut kernel| testing::slide(&mut kernel, &column, 3).into_iter().flatten().collect::<Vec<_>>();
        assert_eq!(of(EventCount::changes()), [0.0, 1.0, 1.0, 1.0, 2.0, 1.0, 1.0]);
        assert_eq!(of(EventCount::resets()), [0.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0]);
    }
}
