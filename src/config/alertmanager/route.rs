//! The routing tree as it is written.

use std::collections::BTreeMap;

use crate::config::alertmanager::matchers::{self, AlertMatcher};
use crate::config::alertmanager::unbuilt::set_beside;
use crate::config::yaml::block::{Preset, block};
use crate::config::yaml::{Abort, Decoded, Decoder, Kind, Node, Out, Yaml, text_of};
use crate::model::duration::PromDuration;
use crate::model::go;
use crate::model::labels::is_legacy_label_name;
use crate::model::matcher::MatchOp;

/// Stands in `group_by` for all labels.
pub const ALL_LABELS: &str = "...";

block! {
    /// A node of the routing tree.
    pub struct Route("config.Route", "config.plain") {
        /// Who is notified; the parent's unless set.
        pub receiver: String = "receiver", omitempty;
        /// Labels that alerts of one group have in common; the parent's unless set, and none if the list is empty.
        pub group_by: Option<Vec<String>> = "group_by", omitempty;
        /// Older spelling of matchers with `=`.
        pub match_equal: BTreeMap<String, String> = "match", omitempty;
        /// Older spelling of matchers with `=~`.
        pub match_regexp: BTreeMap<String, MatchRegexp> = "match_re", omitempty;
        /// What an alert has to fulfil to come here.
        pub matchers: Matchers = "matchers", omitempty;
        mute_time_intervals: Vec<String> = "mute_time_intervals", omitempty;
        active_time_intervals: Vec<String> = "active_time_intervals", omitempty;
        /// Whether later siblings are looked at as well.
        pub continues: bool = "continue", always;
        /// Nodes below, in their order.
        pub routes: Vec<Option<Route>> = "routes", omitempty;
        /// How long a new group waits for more alerts; the parent's unless set.
        pub group_wait: Option<PromDuration> = "group_wait", omitempty;
        /// How long a group waits between two messages; the parent's unless set.
        pub group_interval: Option<PromDuration> = "group_interval", omitempty;
        /// After what time a message is repeated; the parent's unless set.
        pub repeat_interval: Option<PromDuration> = "repeat_interval", omitempty;
        labels: BTreeMap<String, String> = "labels", omitempty;
    }
}

impl Preset for Route {
    fn check(&mut self) -> Result<(), String> {
        let bad_name = |name: &String| format!("invalid label name {}", go::quote(name));
        if let Some(name) = self.match_equal.keys().find(|name| !is_legacy_label_name(name)) {
            return Err(bad_name(name));
        }
        for (name, value) in &self.match_regexp {
            if !is_legacy_label_name(name) {
                return Err(bad_name(name));
            }
            if value.0.is_none() {
                return Err(format!("invalid regexp value for {}", go::quote(name)));
            }
        }
        if let Some(name) = self.labels.keys().find(|name| name.is_empty()) {
            return Err(format!("invalid label name {} in route labels", go::quote(name)));
        }
        self.check_group_by()?;
        if self.group_interval.is_some_and(PromDuration::is_zero) {
            return Err("group_interval cannot be zero".to_owned());
        }
        if self.repeat_interval.is_some_and(PromDuration::is_zero) {
            return Err("repeat_interval cannot be zero".to_owned());
        }
        if self.routes.contains(&None) {
            // Alertmanager crashes here.
            return Err("empty or null entry in routes".to_owned());
        }
        Ok(())
    }
}

impl Route {
    /// A root that only groups.
    pub(super) fn silent(receiver: &str) -> Self {
        let group_by = Some(vec!["alertname".to_owned()]);
        Self { receiver: receiver.to_owned(), group_by, ..Self::default() }
    }

    fn check_group_by(&self) -> Result<(), String> {
        let names: Vec<&String> = self.group_by.iter().flatten().filter(|name| *name != ALL_LABELS).collect();
        let all = self.group_by.iter().flatten().any(|name| name == ALL_LABELS);
        if names.iter().any(|name| name.is_empty()) {
            return Err("invalid label name \"\" in group_by list".to_owned());
        }
        if all && !names.is_empty() {
            return Err("cannot have wildcard group_by (`...`) and other labels at the same time".to_owned());
        }
        let twice = names.iter().enumerate().find(|(at, name)| names.get(..*at).is_some_and(|n| n.contains(name)));
        match twice {
            Some((_, name)) => Err(format!("duplicated label {} in group_by", go::quote(name))),
            None => Ok(()),
        }
    }

    pub(super) fn check_root(&self) -> Result<(), String> {
        let matches = !(self.match_equal.is_empty() && self.match_regexp.is_empty() && self.matchers.0.is_empty());
        let wrong = if self.receiver.is_empty() {
            "root route must specify a default receiver"
        } else if matches {
            "root route must not have any matchers"
        } else if !self.mute_time_intervals.is_empty() {
            "root route must not have any mute time intervals"
        } else if !self.active_time_intervals.is_empty() {
            "root route must not have any active time intervals"
        } else {
            return Ok(());
        };
        Err(wrong.to_owned())
    }

    /// The nodes below.
    pub fn children(&self) -> impl Iterator<Item = &Self> {
        self.routes.iter().flatten()
    }

    pub(super) fn check_receivers(&self, names: &[&str]) -> Result<(), String> {
        self.children().try_for_each(|route| route.check_receivers(names))?;
        if self.receiver.is_empty() || names.contains(&self.receiver.as_str()) {
            return Ok(());
        }
        Err(format!("undefined receiver {} used in route", go::quote(&self.receiver)))
    }

    pub(super) fn check_intervals(&self, names: &[&str]) -> Result<(), String> {
        self.children().try_for_each(|route| route.check_intervals(names))?;
        let mut used = self.active_time_intervals.iter().chain(&self.mute_time_intervals);
        match used.find(|name| !names.contains(&name.as_str())) {
            Some(name) => Err(format!("undefined time interval {} used in route", go::quote(name))),
            None => Ok(()),
        }
    }

    pub(super) fn not_built(&self, place: &str, found: &mut Vec<String>) {
        const BUILT: [&str; 10] = [
            "receiver",
            "group_by",
            "match",
            "match_re",
            "matchers",
            "continue",
            "routes",
            "group_wait",
            "group_interval",
            "repeat_interval",
        ];
        set_beside(self, &BUILT, place, found);
        for (index, route) in self.children().enumerate() {
            route.not_built(&format!("{place}.routes[{index}]"), found);
        }
    }

    /// All matchers of the node, in their order.
    pub fn all_matchers(&self) -> Vec<AlertMatcher> {
        let equal = self.match_equal.iter().map(|(name, value)| AlertMatcher::equal(name, value));
        let regexps = self.match_regexp.iter().filter_map(|(name, value)| {
            let (_, matcher) = value.0.as_ref()?;
            Some(matcher.clone().renamed(name))
        });
        let mut all: Vec<AlertMatcher> = equal.chain(regexps).chain(self.matchers.0.iter().cloned()).collect();
        all.sort();
        all
    }
}

/// The value of an entry of `match_re`: as written, and as a matcher without a name. `None` for a null.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MatchRegexp(Option<(String, AlertMatcher)>);

impl Yaml for MatchRegexp {
    fn go_type() -> String {
        "common.Regexp".to_owned()
    }
    fn go_map_type() -> String {
        "common.plain".to_owned()
    }
    fn decode(&mut self, node: &Node, decoder: &mut Decoder) -> Decoded {
        let Some(text) = text_of(node, decoder, "string")? else { return Ok(false) };
        // The anchors count as part of the value, in keys of groups as well.
        let matcher = AlertMatcher::new(MatchOp::Regex, "", &format!("^(?:{text})$"));
        let matcher = matcher.map_err(|error| Abort::at(node, error))?;
        self.0 = Some((text.to_owned(), matcher));
        Ok(true)
    }
    fn encode(&self) -> Out {
        self.0.as_ref().map_or(Out::Null, |(text, _)| Out::Text(text.clone()))
    }
    fn is_zero(&self) -> bool {
        self.0.is_none()
    }
}

/// A list of texts, each with any number of matchers; sorted.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Matchers(pub Vec<AlertMatcher>);

impl Yaml for Matchers {
    fn go_type() -> String {
        "common.Matchers".to_owned()
    }
    fn decode(&mut self, node: &Node, decoder: &mut Decoder) -> Decoded {
        let mut lines: Vec<String> = Vec::new();
        if !matches!(node.kind, Kind::Sequence(_)) {
            return Ok(decoder.mismatch(node, "[]string"));
        }
        let good = lines.decode(node, decoder)?;
        self.0.clear();
        for line in &lines {
            self.0.extend(matchers::parse_list(line).map_err(|error| Abort::at(node, error))?);
        }
        self.0.sort();
        Ok(good)
    }
    fn encode(&self) -> Out {
        Out::Sequence(self.0.iter().map(|matcher| Out::Text(matcher.to_string())).collect())
    }
    fn is_zero(&self) -> bool {
        self.0.is_empty()
    }
}
