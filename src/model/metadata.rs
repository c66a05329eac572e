//! What a series measures, as its source says: type, unit, help.

/// Type of a metric.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum MetricType {
    /// Not said.
    #[default]
    Unknown,
    /// Only grows, until it begins anew.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Observations in buckets.
    Histogram,
    /// The same, as a gauge.
    GaugeHistogram,
    /// Quantiles, as the source computes them.
    Summary,
    /// Labels alone.
    Info,
    /// Which states hold.
    StateSet,
}

const ALL: [MetricType; 8] = [
    MetricType::Unknown,
    MetricType::Counter,
    MetricType::Gauge,
    MetricType::Histogram,
    MetricType::GaugeHistogram,
    MetricType::Summary,
    MetricType::Info,
    MetricType::StateSet,
];

impl MetricType {
    /// Its number in the log and in remote write 2.0.
    pub fn number(self) -> u8 {
        self as u8
    }

    /// The type with this number; unknown for others.
    pub fn from_number(number: u64) -> Self {
        usize::try_from(number).ok().and_then(|number| ALL.get(number)).copied().unwrap_or_default()
    }
}

/// Metadata of a series; the same for all series of a metric of one source.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct SeriesMetadata {
    /// Type.
    pub kind: MetricType,
    /// Unit; empty if there is none.
    pub unit: String,
    /// Help text; empty if there is none.
    pub help: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_name_types() {
        for kind in ALL {
            assert_eq!(MetricType::from_number(u64::from(kind.number())), kind);
        }
        assert_eq!(MetricType::from_number(8), MetricType::Unknown);
    }
}
