//! Queries from a seed: all of the language, over the series of `samples`, mostly such that something comes out.

use crate::dice::Dice;
use crate::samples::{COUNT, START_MS, STEP_MS};

/// When a query is asked.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Times {
    Instant(i64),
    Range { start_ms: i64, end_ms: i64, step_ms: i64 },
}

/// A query with its parameters.
#[derive(Clone, Debug)]
pub(crate) struct Query {
    pub(crate) text: String,
    pub(crate) times: Times,
    pub(crate) lookback_ms: i64,
}

/// Query number `index` of a seed.
pub(crate) fn query(seed: u64, index: u64) -> Query {
    let mut dice = Dice::new(seed.wrapping_mul(0x0100_0000_01b3) ^ index.wrapping_mul(0x9e37_79b9));
    dice.next();
    let mut text = Grammar { dice: &mut dice, parts: Vec::new(), plain: Vec::new() }.root();
    if dice.chance(2) {
        text = damaged(&mut dice, &text);
    }
    let at = |dice: &mut Dice| {
        let at_ms = START_MS + dice.between(-2, COUNT + 12) * STEP_MS;
        if dice.chance(30) { at_ms + dice.between(-7_000, 7_000) } else { at_ms }
    };
    let at_ms = at(&mut dice);
    let times = if dice.chance(50) {
        Times::Instant(at_ms)
    } else {
        let step_ms =
            [1_000, 15_000, 15_000, 30_000, 60_000, 60_000, 61_003, 300_000][usize::try_from(dice.below(8)).unwrap()];
        let end_ms = at_ms + step_ms * dice.between(0, 20) + if dice.chance(20) { step_ms / 3 } else { 0 };
        Times::Range { start_ms: at_ms, end_ms, step_ms }
    };
    let lookback_ms =
        if dice.chance(80) { 300_000 } else { [15_000, 61_000, 900_000][usize::try_from(dice.below(3)).unwrap()] };
    Query { text, times, lookback_ms }
}

/// The text with a piece taken out, doubled or exchanged.
fn damaged(dice: &mut Dice, text: &str) -> String {
    let mut chars: Vec<char> = text.chars().collect();
    for _ in 0..=dice.below(2) {
        if chars.is_empty() {
            break;
        }
        let at = usize::try_from(dice.below(chars.len() as u64)).unwrap();
        match dice.below(3) {
            0 => drop(chars.remove(at)),
            1 => chars.insert(at, chars[at]),
            _ => {
                chars[at] = dice
                    .pick(&["(", ")", "{", "]", "\"", ",", "@", ":", "x", "5", "-", "é", "\u{fffd}", "\n", "#", "'"])
                    .chars()
                    .next()
                    .unwrap()
            }
        }
    }
    chars.into_iter().collect()
}

struct Grammar<'a> {
    dice: &'a mut Dice,
    /// Vectors so far.
    parts: Vec<String>,
    /// Selectors without modifiers so far.
    plain: Vec<String>,
}

/// Families with equal labels but for their names.
const GAUGES: [&str; 4] = ["gauge", "steps", "gauge", "nh"];
const BY_JOB: [&str; 8] =
    ["sparse", "whole_total", "switch", "times", "nh_float", "nh_gauge", "nh_listed", "lat_count"];
const OTHERS: [&str; 12] = [
    "req_total",
    "req_total",
    "lat_bucket",
    "lat_sum",
    "special",
    "mixed",
    "nh_varied",
    "nh_nan",
    "target_info",
    "build_info",
    "{\"utf8.metric é\"}",
    "missing",
];
/// Functions of floats.
const TRANSCENDENTAL: [&str; 11] =
    ["acos", "acosh", "asin", "asinh", "atanh", "cos", "cosh", "sin", "sinh", "tan", "tanh"];
const MAPS: [&str; 22] = [
    "abs",
    "ceil",
    "floor",
    "sgn",
    "sqrt",
    "deg",
    "rad",
    "exp",
    "ln",
    "log2",
    "log10",
    "atan",
    "day_of_month",
    "day_of_week",
    "day_of_year",
    "days_in_month",
    "hour",
    "minute",
    "month",
    "year",
    "timestamp",
    "timestamp",
];
const OVER_TIME: [&str; 22] = [
    "avg_over_time",
    "count_over_time",
    "first_over_time",
    "last_over_time",
    "mad_over_time",
    "max_over_time",
    "min_over_time",
    "present_over_time",
    "stddev_over_time",
    "stdvar_over_time",
    "sum_over_time",
    "ts_of_first_over_time",
    "ts_of_last_over_time",
    "ts_of_max_over_time",
    "ts_of_min_over_time",
    "absent_over_time",
    "changes",
    "resets",
    "deriv",
    "idelta",
    "irate",
    "delta",
];
const RATES: [&str; 5] = ["rate", "increase", "delta", "rate", "increase"];
const FOLDS: [&str; 8] = ["sum", "avg", "min", "max", "count", "group", "stddev", "stdvar"];
const NUMBERS: [&str; 16] =
    ["0", "1", "2", "0.5", "-1", "3.7", "100", "1e3", "0x1f", "NaN", "Inf", "-Inf", "5m", "1e-7", "0.1", "1e300"];
const DURATIONS: [&str; 16] =
    ["15s", "30s", "1m", "1m", "2m", "5m", "5m", "10m", "47s", "1h", "90", "300", "1m30s", "12m", "75.5", "1s"];

impl Grammar<'_> {
    fn one_in(&mut self, n: u64) -> bool {
        self.dice.below(n) == 0
    }

    fn root(&mut self) -> String {
        let depth = [1, 2, 2, 3, 3, 4][usize::try_from(self.dice.below(6)).unwrap()];
        match self.dice.below(100) {
            0..=3 => {
                let (function, inner) = (self.dice.pick(&TRANSCENDENTAL), self.vector(depth));
                if self.dice.chance(60) {
                    format!("{function}({inner})")
                } else {
                    format!("sum by (job) ({function}({inner}))")
                }
            }
            4..=8 => self.select_k(depth),
            9..=11 => {
                let sort = self.dice.pick(&["sort", "sort_desc"]);
                format!("{sort}({})", self.vector(depth))
            }
            12..=13 => {
                let sort = self.dice.pick(&["sort_by_label", "sort_by_label_desc"]);
                let labels = self.dice.pick(&["\"job\"", "\"instance\", \"job\"", "\"le\"", "\"code\", \"missing\""]);
                format!("{sort}({}, {labels})", self.vector(depth))
            }
            14..=16 => self.scalar(depth),
            17..=19 => {
                let ranged = self.ranged(depth);
                if self.dice.chance(70) {
                    ranged
                } else {
                    format!("{ranged} {}", self.dice.pick(&["anchored", "smoothed"]))
                }
            }
            20 => self.dice.pick(&["\"text\"", "'a\\n<b>'", "`raw`"]).to_owned(),
            _ => self.vector(depth),
        }
    }

    fn number(&mut self) -> String {
        if self.dice.chance(70) {
            self.dice.pick(&NUMBERS).to_owned()
        } else {
            format!("{}", self.dice.between(-400, 4000) as f64 / 16.0)
        }
    }

    fn scalar(&mut self, depth: u32) -> String {
        match self.dice.below(if depth == 0 { 10 } else { 20 }) {
            0..=6 => self.number(),
            7 => "time()".to_owned(),
            8 => self.dice.pick(&["pi()", "start()", "end()", "step()", "range()"]).to_owned(),
            9 => format!("scalar({})", self.selector()),
            10..=12 => format!("scalar({})", self.vector(depth - 1)),
            13 => format!("-{}", self.scalar(depth - 1)),
            14..=15 => {
                let (f, a, b) = (self.dice.pick(&["max_of", "min_of"]), self.scalar(depth - 1), self.scalar(depth - 1));
                format!("{f}({a}, {b})")
            }
            _ => {
                let op =
                    self.dice.pick(&["+", "-", "*", "/", "%", "^", "atan2", "== bool", "< bool", ">= bool", "!= bool"]);
                let (a, b) = (self.scalar(depth - 1), self.scalar(depth - 1));
                format!("({a} {op} {b})")
            }
        }
    }

    fn family(&mut self) -> &'static str {
        match self.dice.below(3) {
            0 => self.dice.pick(&GAUGES),
            1 => self.dice.pick(&BY_JOB),
            _ => self.dice.pick(&OTHERS),
        }
    }

    fn matchers(&mut self) -> String {
        let all = [
            "job=\"a\"",
            "job=~\"a|b\"",
            "job!=\"c\"",
            "instance=~\"[01]\"",
            "instance!~\"1|2\"",
            "code=~\"[24]..\"",
            "code!=\"404\"",
            "le!=\"+Inf\"",
            "missing=\"\"",
            "instance=\"0\"",
            "kind!~\"nan|.*inf\"",
            "job=~\".*\"",
            "job=\"\"",
            "le=~\"0.*|1|.Inf\"",
        ];
        let mut texts = vec![self.dice.pick(&all).to_owned()];
        if self.one_in(3) {
            texts.push(self.dice.pick(&all).to_owned());
        }
        if self.one_in(4) {
            let (label, op) =
                (self.dice.pick(&["job", "instance", "code", "le", "kind"]), self.dice.pick(&["=~", "!~"]));
            texts.push(format!("{label}{op}`{}`", self.pattern()));
        }
        texts.join(", ")
    }

    /// A regular expression, not always a right one.
    fn pattern(&mut self) -> String {
        const PIECES: [&str; 40] = [
            "a",
            "b",
            "c",
            "0",
            "1",
            "2",
            "00",
            ".",
            ".*",
            ".+",
            "[abc]",
            "[^a]",
            "[0-9]",
            "\\d",
            "\\w",
            "(a|b)",
            "(0|1)",
            "(?i)A",
            "x?",
            "a{1,2}",
            "[[:alpha:]]",
            "\\pL",
            "(?P<n>.)",
            "|",
            "|",
            "inf",
            "^",
            "$",
            "\\b",
            "(.*)",
            "(.)",
            "()",
            "\\Qa\\E",
            "\\.",
            "[^[:^digit:]]",
            "(?s:.)",
            "(?-s:.)",
            "\\x61",
            "404",
            "nan",
        ];
        const WRONG: [&str; 14] = [
            "(",
            ")",
            "[",
            "*",
            "a**",
            "\\8",
            "(?z)",
            "a{2,1}",
            "[b-a]",
            "\\",
            "(?P<1>a)",
            "[[:foo:]]",
            "\\pX",
            "a{1001}",
        ];
        let count = 1 + self.dice.below(3);
        let mut pattern: String = (0..count).map(|_| self.dice.pick(&PIECES)).collect();
        if self.one_in(12) {
            pattern.push_str(self.dice.pick(&WRONG));
        }
        pattern
    }

    /// A selector without modifiers.
    fn plain(&mut self) -> String {
        if !self.plain.is_empty() && self.one_in(3) {
            return self.again(false);
        }
        let plain = self.new_plain();
        self.plain.push(plain.clone());
        plain
    }

    /// Something that is in the query already, mostly as it was written there.
    fn again(&mut self, is_part: bool) -> String {
        let known = if is_part { &self.parts } else { &self.plain };
        let at = usize::try_from(self.dice.below(known.len() as u64)).unwrap();
        let text = known[at].clone();
        match self.dice.below(6) {
            0 if is_part => format!("({text})"),
            1 if is_part => text.replace(" by (", "\n  by (").replacen('(', "( ", 1),
            _ => text,
        }
    }

    fn new_plain(&mut self) -> String {
        let family = self.family();
        let is_quoted = family.starts_with('{');
        match self.dice.below(10) {
            0 => {
                let pattern =
                    self.dice.pick(&["gauge|steps", "nh.*", "lat_.*", "(req|whole)_total", "mixed|sparse", ".*h_.*"]);
                format!("{{__name__=~\"{pattern}\"}}")
            }
            1..=4 if !is_quoted => format!("{family}{{{}}}", self.matchers()),
            _ => family.to_owned(),
        }
    }

    fn duration(&mut self) -> String {
        match self.dice.below(14) {
            0 => {
                let (a, b) = (self.dice.pick(&DURATIONS), self.dice.pick(&DURATIONS));
                let op = self.dice.pick(&["+", "-", "*", "/", "%", "^"]);
                format!("({a} {op} {b})")
            }
            1 => format!("max_of(step(), {})", self.dice.pick(&DURATIONS)),
            2 if self.one_in(3) => "range()".to_owned(),
            _ => self.dice.pick(&DURATIONS).to_owned(),
        }
    }

    fn modifiers(&mut self) -> String {
        if self.dice.chance(70) {
            return String::new();
        }
        let at = match self.dice.below(6) {
            0 => " @ start()".to_owned(),
            1 => " @ end()".to_owned(),
            2 => format!(" @ {}", (START_MS + self.dice.between(0, COUNT * STEP_MS)) as f64 / 1000.0),
            _ => String::new(),
        };
        let offset = match self.dice.below(5) {
            0 => format!(" offset -{}", self.dice.pick(&DURATIONS)),
            1 | 2 => format!(" offset {}", self.duration()),
            _ => String::new(),
        };
        if self.dice.chance(50) { format!("{at}{offset}") } else { format!("{offset}{at}") }
    }

    fn selector(&mut self) -> String {
        let (plain, modifiers) = (self.plain(), self.modifiers());
        let smoothed = if self.one_in(25) { " smoothed" } else { "" };
        format!("{plain}{smoothed}{modifiers}")
    }

    /// A range vector.
    fn ranged(&mut self, depth: u32) -> String {
        if depth == 0 || self.dice.chance(75) {
            let (plain, duration, modifiers) = (self.plain(), self.duration(), self.modifiers());
            return format!("{plain}[{duration}]{modifiers}");
        }
        let (inner, duration, modifiers) = (self.vector(depth - 1), self.duration(), self.modifiers());
        let step = match self.dice.below(3) {
            0 => String::new(),
            1 => self.dice.pick(&["15s", "20s", "1m", "47s"]).to_owned(),
            _ => self.duration(),
        };
        format!("({inner})[{duration}:{step}]{modifiers}")
    }

    fn grouping(&mut self) -> String {
        match self.dice.below(10) {
            0..=3 => String::new(),
            4 => " by ()".to_owned(),
            5 | 6 => format!(
                " by ({})",
                self.dice.pick(&["job", "instance", "job, instance", "code", "le", "missing", "__name__", "job, le"])
            ),
            _ => format!(
                " without ({})",
                self.dice.pick(&["job", "instance", "code", "le", "code, instance", "__name__", "kind"])
            ),
        }
    }

    fn select_k(&mut self, depth: u32) -> String {
        let (op, grouping) = (self.dice.pick(&["topk", "bottomk", "limitk", "limit_ratio"]), self.grouping());
        let k = match (op, self.dice.below(10)) {
            ("limit_ratio", 0..=7) => self.dice.pick(&["0.5", "-0.5", "0.1", "-0.9", "1", "2", "-1.5"]).to_owned(),
            (_, 0..=7) => self.dice.pick(&["1", "2", "3", "5", "0", "-1", "2.9"]).to_owned(),
            _ => self.scalar(1),
        };
        format!("{op}{grouping} ({k}, {})", self.vector(depth))
    }

    fn aggregation(&mut self, depth: u32) -> String {
        let grouping = self.grouping();
        match self.dice.below(20) {
            0 | 1 => {
                let q = if self.dice.chance(80) {
                    self.dice.pick(&["0.5", "0.9", "0", "1", "0.25", "-0.1", "1.5"]).to_owned()
                } else {
                    self.scalar(1)
                };
                format!("quantile{grouping} ({q}, {})", self.vector(depth))
            }
            2 => format!(
                "count_values{grouping} (\"{}\", {})",
                self.dice.pick(&["value", "job", "é"]),
                self.vector(depth)
            ),
            3 => {
                let fold = self.dice.pick(&["sum", "count", "max", "min"]);
                format!("{fold}({})", self.select_k(depth.saturating_sub(1)))
            }
            _ => {
                let (fold, inner) = (self.dice.pick(&FOLDS), self.vector(depth));
                if self.dice.chance(50) {
                    format!("{fold}{grouping} ({inner})")
                } else {
                    format!("{fold}({inner}){grouping}")
                }
            }
        }
    }

    fn range_function(&mut self, depth: u32) -> String {
        match self.dice.below(20) {
            0..=5 => format!("{}({})", self.dice.pick(&RATES), self.ranged(depth)),
            6 | 7 => {
                let function = self.dice.pick(&["rate", "increase", "delta", "changes", "resets"]);
                let extension = self.dice.pick(&["anchored", "anchored", "smoothed"]);
                let (plain, duration, modifiers) = (self.plain(), self.duration(), self.modifiers());
                format!("{function}({plain}[{duration}] {extension}{modifiers})")
            }
            8 => format!(
                "quantile_over_time({}, {})",
                self.dice.pick(&["0.5", "0.9", "0", "1", "-0.1", "NaN"]),
                self.ranged(depth)
            ),
            9 => format!("predict_linear({}, {})", self.ranged(depth), self.scalar(1)),
            10 => {
                let (level, trend) =
                    (self.dice.pick(&["0.5", "0.1", "0.9", "1"]), self.dice.pick(&["0.5", "0.2", "0.01", "0"]));
                format!("double_exponential_smoothing({}, {level}, {trend})", self.ranged(depth))
            }
            _ => format!("{}({})", self.dice.pick(&OVER_TIME), self.ranged(depth)),
        }
    }

    fn function(&mut self, depth: u32) -> String {
        let inner = self.vector(depth);
        match self.dice.below(24) {
            0 => format!("round({inner})"),
            1 => format!("round({inner}, {})", self.dice.pick(&["0.1", "10", "0.25", "0", "-3", "5"])),
            2 => format!("clamp({inner}, {}, {})", self.scalar(0), self.scalar(0)),
            3 => format!("{}({inner}, {})", self.dice.pick(&["clamp_min", "clamp_max"]), self.scalar(1)),
            4 => format!("absent({inner})"),
            5 => {
                let source = self.dice.pick(&["job", "instance", "code", "__name__", "le", "missing"]);
                let target = self.dice.pick(&["new", "job", "instance", "__name__", "é"]);
                let replacement =
                    self.dice.pick(&["$1", "x-$1-y", "${1}", "", "$2", "fixed", "$n", "$$1", "$0", "${n}x", "$1x"]);
                let pattern = if self.dice.chance(40) {
                    self.pattern()
                } else {
                    self.dice.pick(&["(.*)", "(.+)", "([a-b])", "(\\d)(.*)", "x?"]).to_owned()
                };
                format!("label_replace({inner}, \"{target}\", \"{replacement}\", \"{source}\", `{pattern}`)")
            }
            6 => {
                let sources =
                    self.dice.pick(&["\"job\"", "\"job\", \"instance\"", "\"missing\"", "\"__name__\", \"code\""]);
                format!("label_join({inner}, \"{}\", \"-\", {sources})", self.dice.pick(&["new", "job", "__name__"]))
            }
            7 => format!("vector({})", self.scalar(depth)),
            8 => self.dice.pick(&["hour()", "day_of_month()", "month()", "year()", "minute()"]).to_owned(),
            9 => {
                let selector = self.dice.pick(&[
                    "",
                    ", {version=~\".+\"}",
                    ", {__name__=\"build_info\"}",
                    ", {__name__=~\".*_info\"}",
                    ", {region=\"north\", rev!=\"x\"}",
                ]);
                format!("info({inner}{selector})")
            }
            10 | 11 => {
                let part = self.dice.pick(&["count", "sum", "avg", "stddev", "stdvar"]);
                format!("histogram_{part}({})", self.histograms(depth))
            }
            12 => format!("{}({inner})", self.dice.pick(&TRANSCENDENTAL)),
            _ => format!("{}({inner})", self.dice.pick(&MAPS)),
        }
    }

    /// Native histograms, or something else.
    fn histograms(&mut self, depth: u32) -> String {
        let family = self.dice.pick(&["nh", "nh_float", "nh_listed", "nh_gauge", "nh_nan", "nh_varied", "mixed"]);
        match self.dice.below(8) {
            0 => self.vector(depth),
            1 => format!("{}({family}[{}])", self.dice.pick(&RATES), self.duration()),
            2 => format!(
                "{}({family}[{}])",
                self.dice.pick(&["sum_over_time", "avg_over_time", "irate", "last_over_time"]),
                self.duration()
            ),
            3 | 4 => format!("{}{} ({family})", self.dice.pick(&["sum", "avg"]), self.grouping()),
            5 => format!(
                "{family} {} on (job) {}",
                self.dice.pick(&["+", "-", "=="]),
                self.dice.pick(&["nh_float", "nh_listed", "nh_gauge", "whole_total"])
            ),
            6 => format!("({family} {} {})", self.dice.pick(&["*", "/", "+"]), self.number()),
            _ => format!("{family}{}", self.modifiers()),
        }
    }

    fn histogram(&mut self, depth: u32) -> String {
        let inner = match self.dice.below(6) {
            0 => self.dice.pick(&["lat_bucket", "lat_bucket", "twice_bucket"]).to_owned(),
            1 => format!("rate(lat_bucket[{}])", self.duration()),
            2 => format!("sum by ({}) (rate(lat_bucket[5m]))", self.dice.pick(&["le", "le, job", "job"])),
            _ => self.histograms(depth),
        };
        let q = self.dice.pick(&["0.5", "0.9", "0.99", "0", "1", "-1", "1.1", "NaN", "0.05"]).to_owned();
        match self.dice.below(10) {
            0..=4 => format!("histogram_quantile({q}, {inner})"),
            5 => format!("histogram_quantile({}, {inner})", self.scalar(1)),
            6..=7 => {
                let (lower, upper) =
                    (self.dice.pick(&["0", "-Inf", "0.2", "-1"]), self.dice.pick(&["1", "2.2", "+Inf", "0.1", "NaN"]));
                format!("histogram_fraction({lower}, {upper}, {inner})")
            }
            8 => format!(
                "histogram_quantiles({}, \"{}\", {q}, 0.75)",
                inner.replace("twice", "lat"),
                self.dice.pick(&["q", "job", "quantile"])
            ),
            _ => format!(
                "{inner} {} {}",
                self.dice.pick(&["</", ">/"]),
                self.dice.pick(&["0.9", "2", "-1", "NaN", "Inf"])
            ),
        }
    }

    fn with_scalar(&mut self, depth: u32) -> String {
        let op = self.dice.pick(&[
            "+", "-", "*", "/", "%", "^", "atan2", "==", "!=", "<", ">", "<=", ">=", "== bool", "> bool", "!= bool",
            "</", ">/",
        ]);
        let (vector, scalar) = (self.vector(depth), self.scalar(depth.min(1)));
        if self.dice.chance(70) { format!("({vector}) {op} {scalar}") } else { format!("{scalar} {op} ({vector})") }
    }

    /// Two vectors that have a chance to match.
    fn with_vector(&mut self, depth: u32) -> String {
        let op = self
            .dice
            .pick(&["+", "-", "*", "/", "%", "^", "atan2", "==", "!=", "<", ">", "<=", ">=", "== bool", "> bool"]);
        let fill = match self.dice.below(12) {
            0 => " fill (0)",
            1 => " fill_left (1)",
            2 => " fill_right (-2.5)",
            3 => " fill_left (1) fill_right (2)",
            _ => "",
        };
        match self.dice.below(10) {
            0..=2 => {
                let families: &[&str] = if self.dice.chance(50) { &GAUGES } else { &BY_JOB };
                let (a, b) = (self.dice.pick(families), self.dice.pick(families));
                let (m, n) = (self.modifiers(), self.modifiers());
                format!("{a}{m} {op}{fill} {b}{n}")
            }
            3 => {
                let rest = self.vector(depth);
                format!("({rest}) {op}{fill} ({rest})")
            }
            4 => {
                let (fold, other) = (self.dice.pick(&FOLDS), self.dice.pick(&FOLDS));
                let (a, b) = (self.vector(depth), self.vector(depth));
                format!("{fold} by (job) ({a}) {op}{fill} {other} by (job) ({b})")
            }
            5 => {
                let (include, one) = (
                    self.dice.pick(&["", "version", "region, version", "missing"]),
                    self.dice.pick(&["target_info", "target_info{region=\"north\"}"]),
                );
                format!("gauge {op} on (job, instance) group_left ({include}){fill} {one}")
            }
            6 => {
                let (a, b) = (self.dice.pick(&["req_total", "gauge", "lat_bucket"]), self.dice.pick(&BY_JOB));
                format!("{a} {op} on (job) group_left{fill} {b}")
            }
            7 => {
                let many = self.vector(depth);
                format!(
                    "sum by (job) (gauge) {op} on (job) group_right ({}){fill} ({many})",
                    self.dice.pick(&["", "instance", "code"])
                )
            }
            _ => {
                let labels = self.dice.pick(&["job", "job, instance", "job, instance, code", "job, le", ""]);
                let (how, a, b) = (self.dice.pick(&["on", "on", "ignoring"]), self.vector(depth), self.vector(depth));
                format!("({a}) {op} {how} ({labels}){fill} ({b})")
            }
        }
    }

    fn set_operation(&mut self, depth: u32) -> String {
        let (op, a, b) = (self.dice.pick(&["and", "or", "unless"]), self.vector(depth), self.vector(depth));
        let matching = self.dice.pick(&["", "", " on (job)", " ignoring (instance)", " on ()", " on (job, instance)"]);
        format!("({a}) {op}{matching} ({b})")
    }

    /// An instant vector.
    fn vector(&mut self, depth: u32) -> String {
        if depth == 0 {
            return if self.one_in(20) { format!("vector({})", self.number()) } else { self.selector() };
        }
        if !self.parts.is_empty() && self.one_in(6) {
            return self.again(true);
        }
        let part = self.new_vector(depth - 1);
        self.parts.push(part.clone());
        part
    }

    fn new_vector(&mut self, depth: u32) -> String {
        match self.dice.below(100) {
            0..=9 => self.selector(),
            10..=24 => self.function(depth),
            25..=46 => self.range_function(depth),
            47..=62 => self.aggregation(depth),
            63..=72 => self.histogram(depth),
            73..=82 => self.with_scalar(depth),
            83..=92 => self.with_vector(depth),
            93..=96 => self.set_operation(depth),
            97 => format!("-{}", self.selector()),
            98 => format!("+({})", self.vector(depth)),
            _ => format!("({})", self.vector(depth)),
        }
    }
}
