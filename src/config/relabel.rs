//! Relabelling: rules that rewrite, keep or drop label sets.
//! Behaviour is that of Prometheus's `model/relabel`, pinned by its tables of cases.

use super::names::{LabelName, ValidationScheme};
use super::yaml::block::{Preset, block};
use super::yaml::{Abort, Decoded, Decoder, Node, Out, Yaml, text_of};
use crate::model::go;
use crate::model::labels::{Labels, LabelsBuilder};
use crate::model::regexp::Regexp;

const DEFAULT_SEPARATOR: &str = ";";
const DEFAULT_REPLACEMENT: &str = "$1";

block! {
    /// One relabelling rule.
    pub struct RelabelConfig("*relabel.Config", "relabel.plain") {
        /// Labels whose values are joined to the text that the rule looks at.
        pub source_labels: Vec<LabelName> = "source_labels", flow;
        /// What stands between the joined values; `;` unless set.
        pub separator: String = "separator", always;
        /// What the joined text, or the label name, has to match as a whole; `(.*)` unless set.
        pub regex: RelabelRegexp = "regex", omitempty;
        /// Divisor of `hashmod`.
        pub modulus: u64 = "modulus", omitempty;
        /// Label that is written, or compared; may hold group references for `replace`.
        pub target_label: String = "target_label", omitempty;
        /// What is written, with group references; `$1` unless set.
        pub replacement: String = "replacement", always;
        /// What the rule does; `replace` unless set.
        pub action: Action = "action", omitempty;
        /// What names are valid; taken from the block that holds the rule.
        pub scheme: ValidationScheme = "", hidden;
    }
}

/// What a rule does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Action {
    /// An explicit null; refused by validation.
    #[default]
    Unset,
    /// Writes the replacement to the target label if the text matches.
    Replace,
    /// Drops the set unless the text matches.
    Keep,
    /// Drops the set if the text matches.
    Drop,
    /// Drops the set unless the text equals the target label's value.
    KeepEqual,
    /// Drops the set if the text equals the target label's value.
    DropEqual,
    /// Writes the remainder of a hash of the text.
    HashMod,
    /// Copies labels whose names match to other names.
    LabelMap,
    /// Removes labels whose names match.
    LabelDrop,
    /// Removes labels whose names do not match.
    LabelKeep,
    /// Writes the text in lower case.
    Lowercase,
    /// Writes the text in upper case.
    Uppercase,
}

const ACTIONS: [(&str, Action); 11] = [
    ("replace", Action::Replace),
    ("keep", Action::Keep),
    ("drop", Action::Drop),
    ("keepequal", Action::KeepEqual),
    ("dropequal", Action::DropEqual),
    ("hashmod", Action::HashMod),
    ("labelmap", Action::LabelMap),
    ("labeldrop", Action::LabelDrop),
    ("labelkeep", Action::LabelKeep),
    ("lowercase", Action::Lowercase),
    ("uppercase", Action::Uppercase),
];

impl Action {
    /// The action of that name, whatever its case.
    pub fn parse(name: &str) -> Option<Self> {
        let lower = name.to_lowercase();
        ACTIONS.iter().find(|(known, _)| *known == lower).map(|(_, action)| *action)
    }

    /// The name in configuration files.
    pub fn as_str(self) -> &'static str {
        ACTIONS.iter().find(|(_, action)| *action == self).map_or("", |(name, _)| name)
    }
}

/// The expression of a rule. The default is told apart from the same text written out, as in Prometheus: it is not
/// written back, and `keepequal` and `dropequal` take no other.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum RelabelRegexp {
    /// An explicit null, which matches the empty text only.
    #[default]
    Null,
    /// `(.*)`, not written in the file.
    Default,
    /// As written.
    Written(Regexp),
}

impl RelabelConfig {
    /// A rule with Prometheus's defaults, to be completed in code and then [validated](Self::validate).
    pub fn with_defaults() -> Self {
        <Self as Preset>::preset()
    }

    /// Checks the rule, as loading does. The error is Prometheus's text.
    pub fn validate(&mut self, scheme: ValidationScheme) -> Result<(), String> {
        use Action::{
            DropEqual, HashMod, KeepEqual, LabelDrop, LabelKeep, LabelMap, Lowercase, Replace, Unset, Uppercase,
        };
        let (action, name) = (self.action, self.action.as_str());
        if action == Unset {
            return Err("relabel action cannot be empty".to_owned());
        }
        if action == HashMod && self.modulus == 0 {
            return Err("relabel configuration for hashmod requires non-zero modulus".to_owned());
        }
        let writes = matches!(action, Replace | HashMod | Lowercase | Uppercase | KeepEqual | DropEqual);
        if writes && self.target_label.is_empty() {
            return Err(format!("relabel configuration for {name} action requires 'target_label' value"));
        }
        if self.scheme == ValidationScheme::Unset {
            self.scheme = scheme;
        }
        let scheme = self.scheme;
        let is_template = |text: &str| match scheme {
            ValidationScheme::Legacy => is_legacy_template(text),
            _ => scheme.is_label_name(text),
        };
        let target_is_valid = match action {
            Replace if self.target_label.contains('$') => is_template(&self.target_label),
            _ => !writes || scheme.is_label_name(&self.target_label),
        };
        let plain = matches!(action, Lowercase | Uppercase | KeepEqual | DropEqual);
        if !target_is_valid {
            return Err(format!("{} is invalid 'target_label' for {name} action", go::quote(&self.target_label)));
        }
        if plain && self.replacement != DEFAULT_REPLACEMENT {
            return Err(format!("'replacement' can not be set for {name} action"));
        }
        if action == LabelMap && !is_template(&self.replacement) {
            return Err(format!("{} is invalid 'replacement' for {name} action", go::quote(&self.replacement)));
        }
        let others =
            self.modulus != 0 || self.separator != DEFAULT_SEPARATOR || self.replacement != DEFAULT_REPLACEMENT;
        if matches!(action, DropEqual | KeepEqual) && (others || self.regex != RelabelRegexp::Default) {
            return Err(format!("{name} action requires only 'source_labels' and `target_label`, and no other fields"));
        }
        let named = !self.source_labels.is_empty() || !self.target_label.is_empty();
        if matches!(action, LabelDrop | LabelKeep) && (others || named) {
            return Err(format!("{name} action requires only 'regex', and no other fields"));
        }
        Ok(())
    }
}

/// Applies the rules in order; `None` if one drops the set. A set that no rule changes is returned without copying.
pub fn relabel(labels: Labels, rules: &[RelabelConfig]) -> Option<Labels> {
    let mut subject = Subject { labels, builder: None };
    let mut text = String::new();
    for rule in rules {
        if !apply(rule, &mut subject, &mut text) {
            return None;
        }
    }
    Some(subject.finish())
}

/// Applies the rules to a set that is being built; false if one drops it.
pub fn relabel_builder(builder: &mut LabelsBuilder, rules: &[RelabelConfig]) -> bool {
    let mut subject = Subject { labels: Labels::empty(), builder: Some(std::mem::take(builder)) };
    let mut text = String::new();
    let kept = rules.iter().all(|rule| apply(rule, &mut subject, &mut text));
    *builder = subject.builder.unwrap_or_default();
    kept
}

/// The set that is worked on; a builder is made on the first change.
struct Subject {
    labels: Labels,
    builder: Option<LabelsBuilder>,
}

impl Subject {
    fn get(&self, name: &str) -> &str {
        match &self.builder {
            Some(builder) => builder.get(name),
            None => self.labels.get(name).unwrap_or(""),
        }
    }

    fn set(&mut self, name: &str, value: &str) {
        if self.get(name) != value {
            self.builder().set(name, value);
        }
    }

    fn builder(&mut self) -> &mut LabelsBuilder {
        let labels = &self.labels;
        self.builder.get_or_insert_with(|| labels.to_builder())
    }

    fn any(&self, mut check: impl FnMut(&str) -> bool) -> bool {
        match &self.builder {
            Some(builder) => builder.iter().any(|(name, _)| check(name)),
            None => self.labels.iter().any(|(name, _)| check(name)),
        }
    }

    fn finish(self) -> Labels {
        match self.builder {
            Some(builder) => builder.build(),
            None => self.labels,
        }
    }
}

/// Applies one rule; false if it drops the set. `text` is room for the text that the rule looks at.
fn apply(rule: &RelabelConfig, subject: &mut Subject, text: &mut String) -> bool {
    text.clear();
    for (index, name) in rule.source_labels.iter().enumerate() {
        if index > 0 {
            text.push_str(&rule.separator);
        }
        text.push_str(subject.get(name));
    }
    let text = text.as_str();
    match rule.action {
        Action::Keep => return rule.regex.is_match(text),
        Action::Drop => return !rule.regex.is_match(text),
        Action::KeepEqual => return subject.get(&rule.target_label) == text,
        Action::DropEqual => return subject.get(&rule.target_label) != text,
        Action::Replace => replace(rule, text, subject),
        Action::Lowercase => subject.set(&rule.target_label, &lowercase(text)),
        Action::Uppercase => subject.set(&rule.target_label, &uppercase(text)),
        Action::HashMod => {
            let remainder = hash(text).checked_rem(rule.modulus).unwrap_or(0);
            subject.set(&rule.target_label, &remainder.to_string());
        }
        Action::LabelMap => label_map(rule, subject),
        Action::LabelDrop => {
            if subject.any(|name| rule.regex.is_match(name)) {
                subject.builder().retain(|name, _| !rule.regex.is_match(name));
            }
        }
        Action::LabelKeep => {
            if subject.any(|name| !rule.regex.is_match(name)) {
                subject.builder().retain(|name, _| rule.regex.is_match(name));
            }
        }
        // Validation lets no such rule pass; it changes nothing.
        Action::Unset => {}
    }
    true
}

fn replace(rule: &RelabelConfig, text: &str, subject: &mut Subject) {
    let plain = !rule.target_label.contains('$') && !rule.replacement.contains('$');
    if text.is_empty() && rule.regex == RelabelRegexp::Default && plain {
        return subject.set(&rule.target_label, &rule.replacement);
    }
    let Some((target, value)) = rule.regex.expand(text, &rule.target_label, &rule.replacement) else { return };
    if rule.scheme.is_label_name(&target) {
        subject.set(&target, &value);
    }
}

fn label_map(rule: &RelabelConfig, subject: &mut Subject) {
    if !subject.any(|name| rule.regex.is_match(name)) {
        return;
    }
    let builder = subject.builder();
    let matching: Vec<(String, String)> = builder
        .iter()
        .filter(|(name, _)| rule.regex.is_match(name))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    for (name, value) in matching {
        builder.set(&rule.regex.replace_all(&name, &rule.replacement), &value);
    }
}

/// Go's `strings.ToLower`: character by character, without regard to their neighbours.
fn lowercase(text: &str) -> String {
    let lower = |c: char| match c {
        'İ' => 'i',
        _ => single(c.to_lowercase()).unwrap_or(c),
    };
    text.chars().map(lower).collect()
}

/// Go's `strings.ToUpper`: each character becomes one character.
fn uppercase(text: &str) -> String {
    let shifted = |c: char, by: u32| char::from_u32(u32::from(c) + by).unwrap_or(c);
    let upper = |c: char| match c {
        // Greek letters with a iota below have a capital of their own beside the two letters of the full mapping.
        '\u{1f80}'..='\u{1f87}' | '\u{1f90}'..='\u{1f97}' | '\u{1fa0}'..='\u{1fa7}' => shifted(c, 8),
        '\u{1fb3}' | '\u{1fc3}' | '\u{1ff3}' => shifted(c, 9),
        _ => single(c.to_uppercase()).unwrap_or(c),
    };
    text.chars().map(upper).collect()
}

fn single(mut chars: impl Iterator<Item = char>) -> Option<char> {
    let only = chars.next()?;
    chars.next().is_none().then_some(only)
}

/// The last 8 bytes of the MD5 sum, most significant first.
fn hash(text: &str) -> u64 {
    use md5::Digest as _;
    let sum: [u8; 16] = md5::Md5::digest(text.as_bytes()).into();
    let [_, _, _, _, _, _, _, _, tail @ ..] = sum;
    u64::from_be_bytes(tail)
}

/// `^(?:(?:[a-zA-Z_]|\$(?:\{\w+\}|\w+))+\w*)+$`: a legacy label name in which group references may stand.
fn is_legacy_template(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let mut rest = text.as_bytes();
    let mut first = true;
    if rest.is_empty() {
        return false;
    }
    while let [head, tail @ ..] = rest {
        rest = match head {
            b'$' => {
                let (name, braced) = match tail {
                    [b'{', inner @ ..] => (inner, true),
                    _ => (tail, false),
                };
                let len = name.iter().take_while(|b| word(**b)).count();
                let after = name.get(len..).unwrap_or(&[]);
                match (len, braced, after) {
                    (0, _, _) => return false,
                    (_, true, [b'}', after @ ..]) => after,
                    (_, true, _) => return false,
                    (_, false, after) => after,
                }
            }
            b if b.is_ascii_digit() && first => return false,
            b if word(*b) => tail,
            _ => return false,
        };
        first = false;
    }
    true
}

impl RelabelRegexp {
    /// Compiles an expression as it stands in a file.
    pub fn parse(text: &str) -> Result<Self, String> {
        Regexp::wrapped(text).map(Self::Written).map_err(|e| e.to_string())
    }

    /// The expression as it stands in the file.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Null => "",
            Self::Default => "(.*)",
            Self::Written(regexp) => regexp.pattern(),
        }
    }

    fn is_match(&self, text: &str) -> bool {
        match self {
            Self::Null => text.is_empty(),
            Self::Default => true,
            Self::Written(regexp) => regexp.is_match(text),
        }
    }

    fn replace_all(&self, text: &str, template: &str) -> String {
        match self {
            Self::Written(regexp) => regexp.replace_all(text, template),
            Self::Null => EMPTY.replace_all(text, template),
            Self::Default => ANYTHING.replace_all(text, template),
        }
    }

    /// Both templates with the groups of the match filled in.
    fn expand(&self, text: &str, first: &str, second: &str) -> Option<(String, String)> {
        let fill = |regexp: &Regexp| {
            let captures = regexp.captures(text)?;
            Some((captures.expand(first), captures.expand(second)))
        };
        match self {
            Self::Written(regexp) => fill(regexp),
            Self::Null => text.is_empty().then(|| fill(&EMPTY)).flatten(),
            Self::Default => fill(&ANYTHING),
        }
    }
}

static ANYTHING: std::sync::LazyLock<Regexp> =
    std::sync::LazyLock::new(|| Regexp::wrapped("(.*)").expect("the pattern is valid"));
static EMPTY: std::sync::LazyLock<Regexp> =
    std::sync::LazyLock::new(|| Regexp::wrapped("").expect("the pattern is valid"));

impl Preset for RelabelConfig {
    fn preset() -> Self {
        Self {
            separator: DEFAULT_SEPARATOR.to_owned(),
            regex: RelabelRegexp::Default,
            replacement: DEFAULT_REPLACEMENT.to_owned(),
            action: Action::Replace,
            ..Self::default()
        }
    }
}

impl Yaml for RelabelRegexp {
    fn go_type() -> String {
        "relabel.Regexp".to_owned()
    }
    fn decode(&mut self, node: &Node, decoder: &mut Decoder) -> Decoded {
        let Some(text) = text_of(node, decoder, "string")? else { return Ok(false) };
        *self = Self::parse(text).map_err(|message| Abort::at(node, message))?;
        Ok(true)
    }
    fn encode(&self) -> Out {
        match self {
            Self::Null => Out::Text(String::new()),
            Self::Default => Out::Null,
            Self::Written(regexp) => Out::Text(regexp.pattern().to_owned()),
        }
    }
    fn is_zero(&self) -> bool {
        *self == Self::Default
    }
}

impl Yaml for Action {
    fn go_type() -> String {
        "relabel.Action".to_owned()
    }
    fn decode(&mut self, node: &Node, decoder: &mut Decoder) -> Decoded {
        let Some(text) = text_of(node, decoder, "string")? else { return Ok(false) };
        match Self::parse(text) {
            Some(action) => *self = action,
            None => return Err(Abort::at(node, format!("unknown relabel action {}", go::quote(text)))),
        }
        Ok(true)
    }
    fn encode(&self) -> Out {
        Out::Text(self.as_str().to_owned())
    }
    fn is_zero(&self) -> bool {
        *self == Self::Unset
    }
}

#[cfg(test)]
mod tests;
