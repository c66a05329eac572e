//! The samples that both engines get: floats of all kinds, resets, gaps, stale markers, classic and native histograms.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use watchfire::model::histogram::{CUSTOM_BUCKETS_SCHEMA, CounterResetHint, FloatHistogram, Span};
use watchfire::model::labels::Labels;
use watchfire::model::sample::stale_nan;

use crate::dice::Dice;

/// Time of the first sample.
pub(crate) const START_MS: i64 = 1_700_000_040_000;
/// Usual distance of samples.
pub(crate) const STEP_MS: i64 = 15_000;
/// Number of usual sample times: an hour of them.
pub(crate) const COUNT: i64 = 240;
/// Sample times of one request; a series has samples of one type in it.
pub(crate) const BLOCK: i64 = 20;

/// One value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Float(f64),
    Histogram(Arc<FloatHistogram>),
}

/// One series; samples ascending by time. Each has a sample in the first block, so that series come into being in the order
/// of their labels.
#[derive(Clone, Debug)]
pub(crate) struct Series {
    pub(crate) labels: Labels,
    pub(crate) samples: Vec<(i64, Value)>,
    /// Whether histograms have whole numbers and are sent as such.
    pub(crate) is_whole: bool,
}

/// All series, in the order of their labels.
pub(crate) fn dataset(seed: u64) -> Vec<Series> {
    let mut builder = Builder { dice: Dice::new(seed ^ 0x5eed_da7a), series: BTreeMap::new() };
    builder.floats();
    builder.infos();
    builder.classic_histograms();
    builder.native_histograms();
    builder.series.into_values().collect()
}

/// A number that changes when any sample does.
#[expect(deprecated, reason = "the one hasher of the standard library whose results are fixed")]
pub(crate) fn fingerprint(all: &[Series]) -> u64 {
    let mut hasher = std::hash::SipHasher::new();
    for series in all {
        series.labels.to_string().hash(&mut hasher);
        for (at_ms, value) in &series.samples {
            at_ms.hash(&mut hasher);
            match value {
                Value::Float(value) => value.to_bits().hash(&mut hasher),
                Value::Histogram(histogram) => format!("{histogram:?}").hash(&mut hasher),
            }
        }
    }
    hasher.finish()
}

struct Builder {
    dice: Dice,
    series: BTreeMap<Labels, Series>,
}

/// What a series of floats does from sample to sample.
#[derive(Clone, Copy)]
enum Shape {
    Gauge,
    Counter,
    Whole,
    Steps,
    Switch,
    Times,
    Special,
}

impl Builder {
    fn add(&mut self, name: &str, labels: &[(&str, &str)], samples: Vec<(i64, Value)>, is_whole: bool) {
        let pairs = labels.iter().copied().chain([("__name__", name)]);
        let labels = Labels::from_pairs(pairs);
        assert!(samples.first().is_some_and(|(at_ms, _)| *at_ms < START_MS + BLOCK * STEP_MS), "{labels}");
        self.series.insert(labels.clone(), Series { labels, samples, is_whole });
    }

    fn floats(&mut self) {
        for job in ["a", "b", "c"] {
            for instance in ["0", "1", "2"] {
                let own: &[_] = &[("job", job), ("instance", instance)];
                let gauge = self.walk(Shape::Gauge, 3);
                self.add("gauge", own, gauge, false);
                if job != "c" {
                    let steps = self.walk(Shape::Steps, 2);
                    self.add("steps", own, steps, false);
                    for code in ["200", "404", "500"] {
                        let counter = self.walk(Shape::Counter, 2);
                        self.add("req_total", &[("job", job), ("instance", instance), ("code", code)], counter, false);
                    }
                }
            }
            let sparse = self.sparse();
            self.add("sparse", &[("job", job)], sparse, false);
            for (name, shape) in [("whole_total", Shape::Whole), ("switch", Shape::Switch), ("times", Shape::Times)] {
                let samples = self.walk(shape, 1);
                self.add(name, &[("job", job)], samples, false);
            }
            let special = self.walk(Shape::Special, 4);
            self.add("special", &[("job", job), ("kind", "x")], special, false);
        }
        let constants = [
            ("nan", f64::NAN),
            ("inf", f64::INFINITY),
            ("minus_inf", f64::NEG_INFINITY),
            ("zero", 0.0),
            ("minus_zero", -0.0),
            ("huge", 1.7e308),
            ("minus_huge", -1.7e308),
            ("tiny", 5e-324),
            ("third", 1.0 / 3.0),
        ];
        for (kind, value) in constants {
            let samples = (0..COUNT).map(|i| (START_MS + i * STEP_MS, Value::Float(value))).collect();
            self.add("special", &[("kind", kind)], samples, false);
        }
        let odd = self.walk(Shape::Gauge, 0);
        self.add("utf8.metric é", &[("label.name", "é\n\"x\""), ("job", "a")], odd, false);
    }

    fn walk(&mut self, shape: Shape, gap_percent: u64) -> Vec<(i64, Value)> {
        let dice = &mut self.dice;
        let is_jittered = dice.chance(25);
        let mut value = match shape {
            Shape::Times => 1_700_000_000.0,
            _ => dice.below(1000) as f64 / 8.0,
        };
        let mut samples = Vec::new();
        let mut gap = 0;
        for i in 0..COUNT {
            let unit = dice.unit();
            match shape {
                Shape::Gauge => value += (unit - 0.5) * 10.0,
                Shape::Counter if dice.chance(4) => value = if dice.chance(50) { 0.0 } else { unit },
                Shape::Counter => value += unit * 7.0,
                Shape::Whole if dice.chance(3) => value = 0.0,
                Shape::Whole => value += (unit * 20.0).floor(),
                Shape::Steps if dice.chance(15) => value = (unit * 6.0).floor() - 2.0,
                Shape::Steps => {}
                Shape::Switch => value = f64::from(unit < 0.7),
                Shape::Times => value += (unit - 0.4) * 4_000_000.0,
                Shape::Special => value = special(dice),
            }
            if 0 < gap {
                gap -= 1;
                continue;
            }
            let jitter_ms = if is_jittered { dice.between(-120, 120) } else { 0 };
            let at_ms = START_MS + i * STEP_MS + if i == 0 { 0 } else { jitter_ms };
            if 0 < i && dice.chance(gap_percent) {
                gap = dice.below(24);
                if dice.chance(60) {
                    samples.push((at_ms, Value::Float(stale_nan())));
                }
                continue;
            }
            samples.push((at_ms, Value::Float(value)));
        }
        samples
    }

    fn sparse(&mut self) -> Vec<(i64, Value)> {
        let (dice, mut at_ms) = (&mut self.dice, START_MS);
        let mut samples = Vec::new();
        while at_ms < START_MS + COUNT * STEP_MS {
            samples.push((at_ms, Value::Float(dice.below(90) as f64)));
            at_ms += dice.between(60_000, 420_000);
        }
        samples
    }

    fn infos(&mut self) {
        let times = |from: i64, to: i64| -> Vec<(i64, Value)> {
            (from..to).map(|i| (START_MS + i * STEP_MS, Value::Float(1.0))).collect()
        };
        for (job, instance, version) in
            [("a", "0", "1"), ("a", "1", "1"), ("b", "0", "2"), ("b", "1", "2"), ("c", "0", "3")]
        {
            let own = [("job", job), ("instance", instance), ("version", version), ("region", "north")];
            self.add("target_info", &own, times(0, COUNT), false);
            self.add("build_info", &[("job", job), ("instance", instance), ("rev", "r1")], times(0, 130), false);
        }
        // A new version: both are there until the old one is stale.
        let late = [("job", "a"), ("instance", "2"), ("version", "9"), ("region", "south")];
        self.add("target_info", &late, times(5, 100), false);
    }

    fn classic_histograms(&mut self) {
        const BOUNDS: [&str; 7] = ["0.1", "0.5", "1", "2.5", "5", "10", "+Inf"];
        for job in ["a", "b", "c"] {
            let dice = &mut self.dice;
            let mut counts = [0.0; 7];
            let (mut total, mut buckets) = (0.0, vec![Vec::new(); 7]);
            let (mut sums, mut totals) = (Vec::new(), Vec::new());
            for i in 0..COUNT {
                let at_ms = START_MS + i * STEP_MS;
                if dice.chance(2) {
                    (counts, total) = ([0.0; 7], 0.0);
                }
                let mut below = 0.0;
                for (place, count) in counts.iter_mut().enumerate() {
                    below += dice.below(4) as f64;
                    *count += below;
                    // In one job some buckets lag behind those below them.
                    let lag = if job == "c" && place == 4 && dice.chance(30) { 6.0 } else { 0.0 };
                    buckets[place].push((at_ms, Value::Float((*count - lag).max(0.0))));
                }
                total += below * dice.unit() * 3.0;
                sums.push((at_ms, Value::Float(total)));
                totals.push((at_ms, Value::Float(counts[6])));
            }
            for (bound, samples) in BOUNDS.iter().zip(buckets) {
                if !(job == "b" && *bound == "+Inf") {
                    self.add("lat_bucket", &[("job", job), ("le", bound)], samples, false);
                }
            }
            self.add("lat_sum", &[("job", job)], sums, false);
            self.add("lat_count", &[("job", job)], totals, false);
        }
        let odd: Vec<_> = (0..COUNT).map(|i| (START_MS + i * STEP_MS, Value::Float(i as f64))).collect();
        self.add("lat_bucket", &[("job", "b"), ("le", "many")], odd.clone(), false);
        self.add("twice_bucket", &[("job", "a"), ("le", "1")], odd.clone(), false);
        self.add("twice_bucket", &[("job", "a"), ("le", "1.0")], odd.clone(), false);
        self.add("twice_bucket", &[("job", "a"), ("le", "+Inf")], odd, false);
    }

    fn native_histograms(&mut self) {
        for job in ["a", "b", "c"] {
            for instance in ["0", "1"] {
                let schema = if instance == "0" { 1 } else { 2 };
                let samples = self.grow(&Growth { schema, ..Growth::default() });
                self.add("nh", &[("job", job), ("instance", instance)], samples, true);
            }
            let samples = self.grow(&Growth { fraction: 0.25, has_negative: job == "b", ..Growth::default() });
            self.add("nh_float", &[("job", job)], samples, false);
            let samples = self.grow(&Growth { is_gauge: true, has_negative: true, ..Growth::default() });
            self.add("nh_gauge", &[("job", job)], samples, true);
            let bounds: &[f64] = if job == "c" { &[0.5, 1.0, 5.0] } else { &[0.1, 1.0, 2.5, 5.0] };
            let samples = self.grow(&Growth { bounds: Some(bounds), ..Growth::default() });
            self.add("nh_listed", &[("job", job)], samples, true);
        }
        let samples = self.grow(&Growth { changes_schema: true, ..Growth::default() });
        self.add("nh_varied", &[("job", "a")], samples, true);
        let samples = self.grow(&Growth { alternates_bounds: true, ..Growth::default() });
        self.add("nh_varied", &[("job", "b")], samples, true);
        let samples = self.grow(&Growth { sees_nan: true, ..Growth::default() });
        self.add("nh_nan", &[("job", "a")], samples, true);
        for job in ["a", "b"] {
            let samples = self.grow(&Growth { alternates_floats: true, ..Growth::default() });
            self.add("mixed", &[("job", job)], samples, true);
        }
        // Beside the classic histogram of the same name.
        let samples = self.grow(&Growth::default());
        self.add("lat_bucket", &[("job", "a")], samples, true);
    }

    fn grow(&mut self, growth: &Growth<'_>) -> Vec<(i64, Value)> {
        let dice = &mut self.dice;
        let mut state = Observed::new(growth);
        let mut samples = Vec::new();
        let mut gap = 0;
        for i in 0..COUNT {
            let at_ms = START_MS + i * STEP_MS;
            if i % BLOCK == 0 && 0 < i {
                let block = i / BLOCK;
                if growth.changes_schema {
                    state = Observed::new(growth);
                    state.schema = [0, 3, -1, 2][usize::try_from(block % 4).unwrap()];
                }
                if growth.alternates_bounds {
                    let bounds: &[f64] = if block % 3 == 0 { &[1.0, 2.0] } else { &[0.5, 1.0, 2.0] };
                    state = Observed::new(&Growth { bounds: (block % 3 != 2).then_some(bounds), ..Growth::default() });
                }
            }
            state.observe(dice, growth);
            if 0 < gap {
                gap -= 1;
                continue;
            }
            let is_float = growth.alternates_floats && i / BLOCK % 3 == 1;
            if 0 < i && dice.chance(2) {
                gap = dice.below(24);
                if !growth.alternates_floats && dice.chance(60) {
                    let stale = FloatHistogram { sum: stale_nan(), ..FloatHistogram::default() };
                    samples.push((at_ms, Value::Histogram(Arc::new(stale))));
                    continue;
                }
            }
            let value = if is_float {
                Value::Float(state.count())
            } else {
                Value::Histogram(Arc::new(state.histogram(growth)))
            };
            samples.push((at_ms, value));
        }
        samples
    }
}

fn special(dice: &mut Dice) -> f64 {
    const SPECIAL: [f64; 14] = [
        f64::NAN,
        f64::INFINITY,
        f64::NEG_INFINITY,
        0.0,
        -0.0,
        1e308,
        -1e308,
        5e-324,
        1e-7,
        0.1,
        1.0,
        1e21,
        -2.5,
        1e15,
    ];
    SPECIAL[usize::try_from(dice.below(14)).unwrap()]
}

/// How a series of native histograms grows.
struct Growth<'a> {
    schema: i32,
    bounds: Option<&'a [f64]>,
    fraction: f64,
    is_gauge: bool,
    has_negative: bool,
    changes_schema: bool,
    alternates_bounds: bool,
    alternates_floats: bool,
    sees_nan: bool,
}

impl Default for Growth<'_> {
    fn default() -> Self {
        Self {
            schema: 0,
            bounds: None,
            fraction: 1.0,
            is_gauge: false,
            has_negative: false,
            changes_schema: false,
            alternates_bounds: false,
            alternates_floats: false,
            sees_nan: false,
        }
    }
}

/// What has been observed since the last reset.
struct Observed {
    schema: i32,
    bounds: Vec<f64>,
    positive: BTreeMap<i32, f64>,
    negative: BTreeMap<i32, f64>,
    zero: f64,
    sum: f64,
    nan: f64,
}

impl Observed {
    fn new(growth: &Growth<'_>) -> Self {
        let schema = if growth.bounds.is_some() { CUSTOM_BUCKETS_SCHEMA } else { growth.schema };
        Self {
            schema,
            bounds: growth.bounds.unwrap_or_default().to_vec(),
            positive: BTreeMap::new(),
            negative: BTreeMap::new(),
            zero: 0.0,
            sum: 0.0,
            nan: 0.0,
        }
    }

    fn is_custom(&self) -> bool {
        self.schema == CUSTOM_BUCKETS_SCHEMA
    }

    /// Goes on by one sample. Which buckets there are is decided when a life begins: storage gives the histograms of a chunk
    /// the same buckets, and empty ones show in the digits of some functions.
    fn observe(&mut self, dice: &mut Dice, growth: &Growth<'_>) {
        if growth.is_gauge && !self.positive.is_empty() {
            self.positive.values_mut().chain(self.negative.values_mut()).for_each(|count| *count = 1.0);
            (self.zero, self.sum) = (1.0, 0.0);
        } else if dice.chance(2) && self.positive.values().sum::<f64>() > 100.0 {
            (self.positive, self.negative) = (BTreeMap::new(), BTreeMap::new());
            (self.zero, self.sum, self.nan) = (0.0, 0.0, 0.0);
        }
        let highest = if self.is_custom() { self.bounds.len() as i64 } else { 9 };
        let lowest = if self.is_custom() { 0 } else { -4 };
        if self.positive.is_empty() {
            for index in lowest..=highest {
                let index = i32::try_from(index).unwrap();
                if index == 0 || dice.chance(60) {
                    self.positive.insert(index, growth.fraction);
                }
                if growth.has_negative && (index == 0 || dice.chance(40)) {
                    self.negative.insert(index, growth.fraction);
                }
            }
        }
        for (index, count) in &mut self.positive {
            let more = if dice.chance(40) { dice.below(6) as f64 * growth.fraction } else { 0.0 };
            *count += more;
            self.sum += more * f64::from(index + 5) * 0.75;
        }
        for count in self.negative.values_mut() {
            let more = if dice.chance(30) { dice.below(4) as f64 * growth.fraction } else { 0.0 };
            *count += more;
            self.sum -= more * 1.25;
        }
        if !self.is_custom() && dice.chance(40) {
            self.zero += dice.below(3) as f64 * growth.fraction;
        }
        if growth.sees_nan && dice.chance(10) {
            self.nan += 1.0;
        }
    }

    fn count(&self) -> f64 {
        self.positive.values().chain(self.negative.values()).sum::<f64>() + self.zero + self.nan
    }

    fn histogram(&self, growth: &Growth<'_>) -> FloatHistogram {
        let (positive_spans, positive_buckets) = spans(&self.positive);
        let (negative_spans, negative_buckets) = spans(&self.negative);
        let hint = if growth.is_gauge { CounterResetHint::Gauge } else { CounterResetHint::Unknown };
        FloatHistogram {
            counter_reset_hint: hint,
            schema: self.schema,
            zero_threshold: if self.is_custom() { 0.0 } else { 0.001 },
            zero_count: self.zero,
            count: self.count(),
            sum: if 0.0 < self.nan { f64::NAN } else { self.sum },
            positive_spans,
            positive_buckets,
            negative_spans,
            negative_buckets,
            custom_values: self.bounds.clone(),
        }
    }
}

fn spans(buckets: &BTreeMap<i32, f64>) -> (Vec<Span>, Vec<f64>) {
    let indexes: BTreeSet<i32> = buckets.keys().copied().collect();
    let (mut spans, mut end): (Vec<Span>, i32) = (Vec::new(), 0);
    for index in indexes {
        match spans.last_mut() {
            Some(last) if index == end => last.length += 1,
            _ => spans.push(Span { offset: index - end, length: 1 }),
        }
        end = index + 1;
    }
    (spans, buckets.values().copied().collect())
}
