//! Tokens: their kinds, the keyword tables, and how error messages name them.

use crate::model::go;
use crate::promql::ast::{AggregateOp, BinaryOp};

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    /// End of the input.
    Eof,
    /// The lexer has failed; no token follows. The parser treats it as an end that fits nowhere.
    Failed,
    Comment,
    Identifier,
    MetricIdentifier,
    Number,
    Duration,
    Text,
    Blank,
    Colon,
    Comma,
    Equal,
    EqualRegex,
    NotEqualRegex,
    LeftBrace,
    LeftBracket,
    LeftParen,
    RightBrace,
    RightBracket,
    RightParen,
    OpenHistogram,
    CloseHistogram,
    Space,
    Times,
    At,
    Op(BinaryOp),
    Aggregate(AggregateOp),
    Keyword(Keyword),
    Descriptor(Descriptor),
    ResetHint(ResetHint),
}

/// Words with a meaning that are neither operators nor aggregations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Keyword {
    Anchored,
    Bool,
    By,
    End,
    Fill,
    FillLeft,
    FillRight,
    GroupLeft,
    GroupRight,
    Ignoring,
    MaxOf,
    MinOf,
    Offset,
    On,
    Range,
    Smoothed,
    Start,
    Step,
    Without,
}

/// Keys of a histogram in a series description.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Descriptor {
    Sum,
    Count,
    Schema,
    Offset,
    NegativeOffset,
    Buckets,
    NegativeBuckets,
    ZeroBucket,
    ZeroBucketWidth,
    CustomValues,
    CounterResetHint,
}

/// Values of the counter reset hint of a histogram in a series description.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum ResetHint {
    Unknown,
    Reset,
    NotReset,
    Gauge,
}

/// A token: its kind and its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) kind: Kind,
    pub(crate) start: usize,
    pub(crate) end: usize,
}

impl Kind {
    /// The keyword, operator, aggregation or number that `word` is in any case, or `None`.
    pub(crate) fn of_word(word: &str) -> Option<Self> {
        // Keywords are ASCII and at most 12 bytes long; longer words need no copy.
        let mut lower = [0; LONGEST_WORD];
        let lower = lower.get_mut(..word.len())?;
        lower.copy_from_slice(word.as_bytes());
        lower.make_ascii_lowercase();
        keyword(lower)
    }

    /// The keywords that may stand in a duration expression.
    pub(crate) fn of_duration_word(word: &str) -> Option<Self> {
        match Self::of_word(word)? {
            kind @ Self::Keyword(Keyword::Step | Keyword::Range | Keyword::MaxOf | Keyword::MinOf) => Some(kind),
            _ => None,
        }
    }

    /// The histogram key that `word` is, or `None`.
    pub(crate) fn of_descriptor(word: &str) -> Option<Self> {
        let lower = word.to_ascii_lowercase();
        DESCRIPTORS.iter().find(|(name, _)| *name == lower).map(|(_, kind)| Self::Descriptor(*kind))
    }

    /// The counter reset hint that `word` is, or `None`.
    pub(crate) fn of_reset_hint(word: &str) -> Option<Self> {
        let lower = word.to_ascii_lowercase();
        RESET_HINTS.iter().find(|(name, _)| *name == lower).map(|(_, kind)| Self::ResetHint(*kind))
    }

    /// True for the tokens that may be a metric name outside of braces.
    pub(crate) fn is_metric_identifier(self) -> bool {
        match self {
            Self::Identifier | Self::MetricIdentifier | Self::Aggregate(_) => true,
            Self::Op(op) => op.is_set(),
            Self::Keyword(word) => !matches!(
                word,
                Keyword::Bool | Keyword::On | Keyword::Ignoring | Keyword::GroupLeft | Keyword::GroupRight
            ),
            _ => false,
        }
    }

    /// True for the tokens that may be a label name in a grouping.
    pub(crate) fn is_grouping_label(self) -> bool {
        match self {
            Self::Identifier | Self::MetricIdentifier | Self::Aggregate(_) => true,
            Self::Op(op) => op.is_set() || op == BinaryOp::Atan2,
            Self::Keyword(word) => word != Keyword::Without,
            _ => false,
        }
    }

    /// True for `+` and `-`.
    pub(crate) fn is_sign(self) -> bool {
        matches!(self, Self::Op(BinaryOp::Add | BinaryOp::Sub))
    }

    /// True for the tokens that may begin an expression.
    pub(crate) fn starts_expr(self) -> bool {
        self.is_metric_identifier()
            || self.is_sign()
            || matches!(self, Self::Number | Self::Duration | Self::Text | Self::LeftParen | Self::LeftBrace)
    }

    /// True for the tokens that may begin a duration.
    pub(crate) fn starts_duration(self) -> bool {
        self.is_sign()
            || Self::is_duration_call(self)
            || matches!(self, Self::Number | Self::Duration | Self::LeftParen)
    }

    fn is_duration_call(self) -> bool {
        matches!(self, Self::Keyword(Keyword::Step | Keyword::Range | Keyword::MaxOf | Keyword::MinOf))
    }

    /// How an error message names a token of this kind with this text: `identifier "x"`, `<by>`, `")"`.
    pub(crate) fn describe(self, text: &str) -> String {
        match self {
            Self::Eof | Self::Failed => "end of input".to_owned(),
            Self::Identifier => format!("identifier {}", go::quote(text)),
            Self::MetricIdentifier => format!("metric identifier {}", go::quote(text)),
            Self::Text => format!("string {}", quote_short(text)),
            Self::Number => format!("number {}", quote_short(text)),
            Self::Duration => format!("duration {}", quote_short(text)),
            Self::Comment => format!("comment {}", quote_short(text)),
            Self::Op(_) | Self::At | Self::EqualRegex | Self::NotEqualRegex => format!("<op:{text}>"),
            Self::Aggregate(_) => format!("<aggr:{text}>"),
            Self::Keyword(word) if word.is_plain() => quote_short(text),
            Self::Keyword(_) => format!("<{text}>"),
            // Prometheus has no text for these kinds and shows their numbers.
            Self::Descriptor(d) => format!("\"<Item {}>\" {}", 57370 + d as u32, quote_short(text)),
            Self::ResetHint(h) => format!("\"<Item {}>\" {}", 57445 + h as u32, quote_short(text)),
            _ => quote_short(text),
        }
    }
}

impl Keyword {
    /// True for the keywords that are function names as well.
    pub(crate) fn may_be_function(self) -> bool {
        self.is_plain()
    }

    /// True for the keywords that Prometheus's messages show as text and not as keywords.
    fn is_plain(self) -> bool {
        matches!(self, Self::Start | Self::End | Self::Step | Self::Range | Self::MaxOf | Self::MinOf)
    }
}

/// Go's `%q`, or `%.10q...` when the text is longer than ten bytes.
fn quote_short(text: &str) -> String {
    if text.len() <= 10 {
        return go::quote(text);
    }
    let head: String = text.chars().take(10).collect();
    format!("{}...", go::quote(&head))
}

const LONGEST_WORD: usize = "count_values".len();

/// The keyword that a word in small letters is.
fn keyword(word: &[u8]) -> Option<Kind> {
    Some(match word {
        b"and" => Kind::Op(BinaryOp::And),
        b"or" => Kind::Op(BinaryOp::Or),
        b"unless" => Kind::Op(BinaryOp::Unless),
        b"atan2" => Kind::Op(BinaryOp::Atan2),
        b"sum" => Kind::Aggregate(AggregateOp::Sum),
        b"avg" => Kind::Aggregate(AggregateOp::Avg),
        b"count" => Kind::Aggregate(AggregateOp::Count),
        b"min" => Kind::Aggregate(AggregateOp::Min),
        b"max" => Kind::Aggregate(AggregateOp::Max),
        b"group" => Kind::Aggregate(AggregateOp::Group),
        b"stddev" => Kind::Aggregate(AggregateOp::Stddev),
        b"stdvar" => Kind::Aggregate(AggregateOp::Stdvar),
        b"topk" => Kind::Aggregate(AggregateOp::Topk),
        b"bottomk" => Kind::Aggregate(AggregateOp::Bottomk),
        b"count_values" => Kind::Aggregate(AggregateOp::CountValues),
        b"quantile" => Kind::Aggregate(AggregateOp::Quantile),
        b"limitk" => Kind::Aggregate(AggregateOp::Limitk),
        b"limit_ratio" => Kind::Aggregate(AggregateOp::LimitRatio),
        b"offset" => Kind::Keyword(Keyword::Offset),
        b"smoothed" => Kind::Keyword(Keyword::Smoothed),
        b"anchored" => Kind::Keyword(Keyword::Anchored),
        b"by" => Kind::Keyword(Keyword::By),
        b"without" => Kind::Keyword(Keyword::Without),
        b"on" => Kind::Keyword(Keyword::On),
        b"ignoring" => Kind::Keyword(Keyword::Ignoring),
        b"group_left" => Kind::Keyword(Keyword::GroupLeft),
        b"group_right" => Kind::Keyword(Keyword::GroupRight),
        b"fill" => Kind::Keyword(Keyword::Fill),
        b"fill_left" => Kind::Keyword(Keyword::FillLeft),
        b"fill_right" => Kind::Keyword(Keyword::FillRight),
        b"bool" => Kind::Keyword(Keyword::Bool),
        b"start" => Kind::Keyword(Keyword::Start),
        b"end" => Kind::Keyword(Keyword::End),
        b"step" => Kind::Keyword(Keyword::Step),
        b"range" => Kind::Keyword(Keyword::Range),
        b"max_of" => Kind::Keyword(Keyword::MaxOf),
        b"min_of" => Kind::Keyword(Keyword::MinOf),
        b"inf" => Kind::Number,
        b"nan" => Kind::Number,
        _ => return None,
    })
}

const DESCRIPTORS: [(&str, Descriptor); 11] = [
    ("sum", Descriptor::Sum),
    ("count", Descriptor::Count),
    ("schema", Descriptor::Schema),
    ("offset", Descriptor::Offset),
    ("n_offset", Descriptor::NegativeOffset),
    ("buckets", Descriptor::Buckets),
    ("n_buckets", Descriptor::NegativeBuckets),
    ("z_bucket", Descriptor::ZeroBucket),
    ("z_bucket_w", Descriptor::ZeroBucketWidth),
    ("custom_values", Descriptor::CustomValues),
    ("counter_reset_hint", Descriptor::CounterResetHint),
];

const RESET_HINTS: [(&str, ResetHint); 4] = [
    ("unknown", ResetHint::Unknown),
    ("reset", ResetHint::Reset),
    ("not_reset", ResetHint::NotReset),
    ("gauge", ResetHint::Gauge),
];
