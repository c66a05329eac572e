//! The values that templates work with, with the names and the rules that they have in Go.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::time::Time;
use crate::model::go;
use crate::model::histogram::FloatHistogram;
use crate::model::labels::Labels;

/// Deepest nesting of lists and maps that templates build.
const NESTING_MAX: u16 = 100;

/// A value. Clones share what is large.
#[derive(Clone, Debug)]
pub enum Value {
    /// Nothing, as Go's untyped nil. Prints as `<no value>`.
    Nil,
    /// What a map of arbitrary values has for a missing key: nothing, but of a known type.
    NilInterface,
    /// Go's `bool`.
    Bool(bool),
    /// Go's `int`.
    Int(i64),
    /// Go's `uint64`.
    Uint(u64),
    /// Go's `uint8`, an element of a string.
    Byte(u8),
    /// Go's `float64`.
    Float(f64),
    /// Go's `string`; always UTF-8 here.
    Str(Arc<str>),
    /// A slice.
    List(List),
    /// A map with texts as keys.
    Map(Map),
    /// Named fields.
    Struct(Arc<Struct>),
    /// A pointer to a value.
    Pointer(Arc<Value>),
    /// Go's `time.Time`.
    Time(Time),
    /// Go's `time.Duration`, in nanoseconds.
    Duration(i64),
    /// An integer that prints as a name, such as a month.
    Named {
        /// Its type.
        type_name: &'static str,
        /// Its number.
        number: i64,
        /// How it prints.
        name: &'static str,
    },
}

/// A slice and its type.
#[derive(Clone, Debug)]
pub struct List {
    pub(super) kind: ListKind,
    pub(super) items: Arc<Vec<Value>>,
    nesting: u16,
}

/// Types of slices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListKind {
    /// Arbitrary values.
    Any,
    /// Texts.
    Strings,
    /// Texts with `Join`, of Alertmanager.
    NamedStrings,
    /// Name and value pairs of Alertmanager.
    Pairs,
    /// Alerts with `Firing` and `Resolved`, of Alertmanager.
    Alerts,
    /// Some of these alerts.
    SomeAlerts,
    /// What `query` gives.
    QueryResult,
}

/// A map and its type.
#[derive(Clone, Debug)]
pub struct Map {
    pub(super) kind: MapKind,
    pub(super) entries: Arc<BTreeMap<Arc<str>, Value>>,
    nesting: u16,
}

/// Types of maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapKind {
    /// Arbitrary values.
    Any,
    /// Texts.
    Strings,
    /// Texts with `SortedPairs` and others, of Alertmanager.
    Kv,
}

/// Fields with their values, in order.
#[derive(Clone, Debug)]
pub struct Struct {
    pub(super) type_name: &'static str,
    pub(super) fields: Vec<(&'static str, Value)>,
    /// How it prints, if not by its fields.
    pub(super) text: Option<Arc<str>>,
}

/// The type of `*template.sample`, by which `label`, `value` and `strvalue` know their argument.
const SAMPLE: &str = "template.sample";
/// The type of the name and value pairs of Alertmanager.
pub(super) const PAIR: &str = "template.Pair";

impl Value {
    /// A text.
    pub fn text(text: impl Into<Arc<str>>) -> Self {
        Self::Str(text.into())
    }

    /// A slice.
    pub fn list(kind: ListKind, items: Vec<Value>) -> Self {
        let nesting = 1 + items.iter().map(Self::nesting).max().unwrap_or(0);
        Self::List(List { kind, items: Arc::new(items), nesting })
    }

    /// A slice of texts.
    pub fn strings<T: AsRef<str>>(kind: ListKind, items: impl IntoIterator<Item = T>) -> Self {
        Self::list(kind, items.into_iter().map(|item| Self::text(item.as_ref())).collect())
    }

    /// A map.
    pub fn map(kind: MapKind, entries: BTreeMap<Arc<str>, Value>) -> Self {
        let nesting = 1 + entries.values().map(Self::nesting).max().unwrap_or(0);
        Self::Map(Map { kind, entries: Arc::new(entries), nesting })
    }

    /// A map of texts with the labels.
    pub fn labels(kind: MapKind, labels: &Labels) -> Self {
        Self::map(kind, labels.iter().map(|(name, value)| (Arc::from(name), Self::text(value))).collect())
    }

    /// Fields in order.
    pub fn record(type_name: &'static str, fields: Vec<(&'static str, Value)>) -> Self {
        Self::Struct(Arc::new(Struct { type_name, fields, text: None }))
    }

    /// What Prometheus's `query` gives for an element: `.Labels` and `.Value`.
    pub fn sample(labels: &Labels, value: Value) -> Self {
        let fields = vec![("Labels", Self::labels(MapKind::Strings, labels)), ("Value", value)];
        Self::record(SAMPLE, fields).pointer()
    }

    /// A native histogram, which prints as Prometheus prints it.
    pub fn histogram(histogram: &FloatHistogram) -> Self {
        let fields = vec![
            ("Schema", Self::Int(i64::from(histogram.schema))),
            ("ZeroThreshold", Self::Float(histogram.zero_threshold)),
            ("ZeroCount", Self::Float(histogram.zero_count)),
            ("Count", Self::Float(histogram.count)),
            ("Sum", Self::Float(histogram.sum)),
        ];
        let text = Some(Arc::from(super::humanize::histogram(histogram)));
        Self::Struct(Arc::new(Struct { type_name: "histogram.FloatHistogram", fields, text })).pointer()
    }

    pub(super) fn pointer(self) -> Self {
        Self::Pointer(Arc::new(self))
    }

    /// The value behind pointers.
    pub(super) fn indirect(&self) -> &Self {
        let mut value = self;
        while let Self::Pointer(inner) = value {
            value = inner;
        }
        value
    }

    fn nesting(&self) -> u16 {
        match self {
            Self::List(list) => list.nesting,
            Self::Map(map) => map.nesting,
            Self::Struct(record) => 1 + record.fields.iter().map(|(_, value)| value.nesting()).max().unwrap_or(0),
            Self::Pointer(inner) => 1 + inner.nesting(),
            _ => 0,
        }
    }

    /// Refuses what is nested too deeply to be walked by recursion.
    pub(super) fn check_nesting(self) -> Result<Self, String> {
        if NESTING_MAX < self.nesting() {
            return Err(format!("lists and maps are nested more than {NESTING_MAX} levels deep"));
        }
        Ok(self)
    }

    /// Whether Go knows only at run time what type its field or element `name` has.
    pub(super) fn hides_type_of(&self, name: &str) -> bool {
        match self.indirect() {
            Self::Map(map) => map.kind == MapKind::Any,
            Self::Struct(record) => name == "Value" && record.type_name != PAIR,
            _ => false,
        }
    }

    /// The name of its type in Go.
    pub(super) fn type_name(&self) -> String {
        match self {
            Self::Nil => "<nil>",
            Self::NilInterface => "interface {}",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Uint(_) => "uint64",
            Self::Byte(_) => "uint8",
            Self::Float(_) => "float64",
            Self::Str(_) => "string",
            Self::List(list) => list.kind.type_name(),
            Self::Map(map) => map.kind.type_name(),
            Self::Struct(record) => record.type_name,
            Self::Pointer(inner) => return format!("*{}", inner.type_name()),
            Self::Time(_) => "time.Time",
            Self::Duration(_) => "time.Duration",
            Self::Named { type_name, .. } => type_name,
        }
        .to_owned()
    }

    /// Whether `if` takes it for true: all but zero, empty and nil.
    pub(super) fn is_true(&self) -> bool {
        match self {
            Self::Nil | Self::NilInterface => false,
            Self::Bool(value) => *value,
            Self::Int(value) | Self::Duration(value) => *value != 0,
            Self::Named { number, .. } => *number != 0,
            Self::Uint(value) => *value != 0,
            Self::Byte(value) => *value != 0,
            Self::Float(value) => *value != 0.0,
            Self::Str(text) => !text.is_empty(),
            Self::List(list) => !list.items.is_empty(),
            Self::Map(map) => !map.entries.is_empty(),
            Self::Struct(_) | Self::Pointer(_) | Self::Time(_) => true,
        }
    }

    pub(super) fn as_str(&self) -> Option<&str> {
        if let Self::Str(text) = self { Some(text) } else { None }
    }

    pub(super) fn is_sample(&self) -> bool {
        matches!(self, Self::Pointer(inner)
            if matches!(&**inner, Self::Struct(record) if record.type_name == SAMPLE))
    }

    /// How it prints, if its type has a `String` method.
    pub(super) fn own_text(&self) -> Option<String> {
        match self {
            Self::Time(time) => Some(time.to_string()),
            Self::Duration(nanos) => Some(crate::model::go_time::format_duration(*nanos)),
            Self::Named { name, .. } => Some((*name).to_owned()),
            Self::Struct(record) => record.text.as_deref().map(str::to_owned),
            Self::Map(map) if map.kind == MapKind::Kv => Some(pairs_text(map.sorted_pairs())),
            Self::List(list) if list.kind == ListKind::Pairs => {
                let pair = |item: &'_ Value| match item.indirect() {
                    Self::Struct(record) => (record.text_of("Name"), record.text_of("Value")),
                    _ => (String::new(), String::new()),
                };
                Some(pairs_text(list.items.iter().map(pair)))
            }
            Self::Pointer(inner) => inner.own_text(),
            _ => None,
        }
    }

    /// Roughly the bytes that a function touches which reads or makes it.
    pub(super) fn cost(&self) -> usize {
        match self {
            Self::Str(text) => text.len(),
            Self::List(list) => 32 * list.items.len(),
            Self::Map(map) => 64 * map.entries.len(),
            _ => 1,
        }
    }
}

fn pairs_text<T: AsRef<str>>(pairs: impl IntoIterator<Item = (T, T)>) -> String {
    let texts: Vec<_> =
        pairs.into_iter().map(|(name, value)| format!("{}={}", name.as_ref(), value.as_ref())).collect();
    texts.join(", ")
}

impl ListKind {
    pub(super) fn type_name(self) -> &'static str {
        match self {
            Self::Any => "[]interface {}",
            Self::Strings => "[]string",
            Self::NamedStrings => "template.Strings",
            Self::Pairs => "template.Pairs",
            Self::Alerts => "template.Alerts",
            Self::SomeAlerts => "[]template.Alert",
            Self::QueryResult => "template.queryResult",
        }
    }
}

impl MapKind {
    pub(super) fn type_name(self) -> &'static str {
        match self {
            Self::Any => "map[string]interface {}",
            Self::Strings => "map[string]string",
            Self::Kv => "template.KV",
        }
    }
}

impl Map {
    /// What stands for a key that is missing.
    pub(super) fn zero(&self) -> Value {
        match self.kind {
            MapKind::Any => Value::NilInterface,
            MapKind::Strings | MapKind::Kv => Value::text(""),
        }
    }

    /// Name and value, sorted by name but for `alertname`, which comes first.
    pub(super) fn sorted_pairs(&self) -> Vec<(&str, &str)> {
        let mut pairs: Vec<(&str, &str)> =
            self.entries.iter().map(|(name, value)| (&**name, value.as_str().unwrap_or(""))).collect();
        pairs.sort_by_key(|(name, _)| (*name != "alertname", *name));
        pairs
    }
}

impl Struct {
    pub(super) fn field(&self, name: &str) -> Option<&Value> {
        self.fields.iter().find(|(field, _)| *field == name).map(|(_, value)| value)
    }

    /// The text of a field, or an empty one.
    pub(super) fn text_of(&self, name: &str) -> String {
        self.field(name).and_then(Value::as_str).unwrap_or("").to_owned()
    }
}

/// Shows a text as an error names it in back quotes, or in quotes if it holds such.
pub(super) fn back_quoted(text: &str) -> String {
    if can_back_quote(text) { format!("`{text}`") } else { go::quote(text) }
}

/// True if a text can stand in back quotes unchanged (`strconv.CanBackquote`).
pub(super) fn can_back_quote(text: &str) -> bool {
    text.chars().all(|c| c == '\t' || (' ' <= c && c != '`' && c != '\u{7f}' && c != '\u{feff}'))
}
