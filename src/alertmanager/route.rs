//! The routing tree: which nodes an alert comes to, and which group it belongs to there.

use std::fmt::Write as _;
use std::sync::Arc;

use crate::config::alertmanager::matchers::AlertMatcher;
use crate::config::alertmanager::{ALL_LABELS, Config, Route};
use crate::model::duration::PromDuration;
use crate::model::go;
use crate::model::labels::Labels;

/// Which labels the alerts of a group have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GroupBy {
    /// All: each alert is a group.
    All,
    /// These; none make one group for the route.
    Labels(Vec<String>),
}

/// What a node says of its groups, its parents' words included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteOptions {
    /// Who is notified.
    pub receiver: String,
    /// How alerts are grouped.
    pub group_by: GroupBy,
    /// How long a new group waits.
    pub group_wait: PromDuration,
    /// How long a group waits after a message.
    pub group_interval: PromDuration,
    /// After what time a message is repeated.
    pub repeat_interval: PromDuration,
}

/// A node of the tree.
#[derive(Debug)]
pub struct RouteNode {
    /// The matchers on the way down, with the places among siblings: no other node has it.
    pub id: String,
    /// The matchers on the way down; siblings may share it.
    pub key: String,
    /// What it says of its groups.
    pub options: Arc<RouteOptions>,
    matchers: Vec<AlertMatcher>,
    continues: bool,
    children: Vec<RouteNode>,
}

/// The tree.
#[derive(Debug)]
pub struct RouteTree {
    root: RouteNode,
}

impl Default for RouteOptions {
    fn default() -> Self {
        Self {
            receiver: String::new(),
            group_by: GroupBy::Labels(Vec::new()),
            group_wait: PromDuration::from_secs(30),
            group_interval: PromDuration::from_secs(5 * 60),
            repeat_interval: PromDuration::from_secs(4 * 3600),
        }
    }
}

impl RouteOptions {
    /// These options with what a node below says.
    fn below(&self, route: &Route) -> Self {
        let mut options = self.clone();
        if !route.receiver.is_empty() {
            options.receiver.clone_from(&route.receiver);
        }
        if let Some(names) = &route.group_by {
            options.group_by = match names.iter().any(|name| name == ALL_LABELS) {
                true => GroupBy::All,
                false => GroupBy::Labels(names.clone()),
            };
        }
        options.group_wait = route.group_wait.unwrap_or(options.group_wait);
        options.group_interval = route.group_interval.unwrap_or(options.group_interval);
        options.repeat_interval = route.repeat_interval.unwrap_or(options.repeat_interval);
        options
    }

    /// The labels that name an alert's group.
    pub fn group_labels(&self, labels: &Labels) -> Labels {
        match &self.group_by {
            GroupBy::All => labels.clone(),
            GroupBy::Labels(names) => labels.keep_only(&names.iter().map(String::as_str).collect::<Vec<_>>()),
        }
    }
}

impl RouteTree {
    /// The tree of a checked configuration.
    pub fn new(config: &Config) -> Self {
        let root = config.route.clone().unwrap_or_default();
        Self { root: RouteNode::new(&root, &RouteOptions::default(), None) }
    }

    /// The nodes that an alert comes to, from left to right; at least one.
    pub fn matching(&self, labels: &Labels) -> Vec<&RouteNode> {
        let mut found = Vec::new();
        self.root.collect(labels, &mut found);
        found
    }

    /// Names of the receivers that some node names.
    pub fn receivers(&self) -> Vec<&str> {
        let mut names = Vec::new();
        self.root.walk(&mut |node| names.push(node.options.receiver.as_str()));
        names.sort_unstable();
        names.dedup();
        names
    }
}

impl RouteNode {
    fn new(route: &Route, parent: &RouteOptions, above: Option<(&str, &str, usize)>) -> Self {
        let matchers = route.all_matchers();
        let own = print_matchers(&matchers);
        let (id, key) = match above {
            None => (own.clone(), own),
            Some((id, key, index)) => (format!("{id}/{own}/{index}"), format!("{key}/{own}")),
        };
        let options = parent.below(route);
        let below = |(index, child)| Self::new(child, &options, Some((&id, &key, index)));
        let children = route.children().enumerate().map(below).collect();
        Self { id, key, matchers, continues: route.continues, children, options: Arc::new(options) }
    }

    /// True if the alert has come to this node or to one below.
    fn collect<'t>(&'t self, labels: &Labels, found: &mut Vec<&'t Self>) -> bool {
        if !self.matchers.iter().all(|matcher| matcher.matches_labels(labels)) {
            return false;
        }
        let before = found.len();
        for child in &self.children {
            if child.collect(labels, found) && !child.continues {
                break;
            }
        }
        if found.len() == before {
            found.push(self);
        }
        true
    }

    fn walk<'t>(&'t self, visit: &mut impl FnMut(&'t Self)) {
        visit(self);
        self.children.iter().for_each(|child| child.walk(visit));
    }

    /// The key of a group of this node, as receivers see it.
    pub fn group_key(&self, group_labels: &Labels) -> String {
        format!("{}:{}", self.key, print_labels(group_labels))
    }

    /// Identity of a group of this node: differs from those of all other groups.
    pub fn group_id(&self, group_labels: &Labels) -> String {
        format!("{}:{}", self.id, print_labels(group_labels))
    }
}

fn print_matchers(matchers: &[AlertMatcher]) -> String {
    let printed: Vec<String> = matchers.iter().map(ToString::to_string).collect();
    format!("{{{}}}", printed.join(","))
}

/// `{a="b", c="d"}`: values quoted as in Go, names as they are.
fn print_labels(labels: &Labels) -> String {
    let mut out = "{".to_owned();
    for (index, (name, value)) in labels.iter().enumerate() {
        let comma = if index == 0 { "" } else { ", " };
        let _ = write!(out, "{comma}{name}={}", go::quote(value));
    }
    out.push('}');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::alertmanager::parse;

    fn tree(route: &str) -> RouteTree {
        let yaml = format!("route: {route}\nreceivers: [{{name: a}}, {{name: b}}, {{name: c}}]\n");
        RouteTree::new(&parse(&yaml).unwrap())
    }

    #[test]
    fn keys_are_byte_exact() {
        let tree = tree("{receiver: a, group_by: [alertname], routes: [{match: {bad: '500'}, match_re: {x: 'a|b'}}]}");
        let labels = Labels::from_pairs([("alertname", "F5\n"), ("bad", "500"), ("x", "b"), ("é", "1")]);
        let [node] = tree.matching(&labels)[..] else { panic!("one node") };
        let group = node.options.group_labels(&labels);
        assert_eq!(node.group_key(&group), r#"{}/{bad="500",x=~"^(?:a|b)$"}:{alertname="F5\n"}"#);
        assert_eq!(node.group_id(&group), r#"{}/{bad="500",x=~"^(?:a|b)$"}/0:{alertname="F5\n"}"#);
        let other = Labels::from_pairs([("é", "1")]);
        let root = tree.matching(&other)[0];
        assert_eq!(root.group_key(&root.options.group_labels(&other)), "{}:{}");
        assert_eq!(root.group_key(&other), "{}:{é=\"1\"}");
    }

    #[test]
    fn options_come_from_above() {
        let tree = tree(
            "{receiver: a, group_by: ['...'], group_wait: 1s, routes: [{matchers: [x=1], receiver: b, group_by: [k]}, \
             {matchers: [x=2], continue: true, group_interval: 2m}, {matchers: ['x=~2|3'], receiver: c, group_by: []}]}",
        );
        let of = |x: &str| {
            let found = tree.matching(&Labels::from_pairs([("x", x)]));
            found.iter().map(|node| RouteOptions::clone(&node.options)).collect::<Vec<_>>()
        };
        let [b] = &of("1")[..] else { panic!("one node") };
        assert_eq!((b.receiver.as_str(), &b.group_by), ("b", &GroupBy::Labels(vec!["k".to_owned()])));
        assert_eq!((b.group_wait, b.repeat_interval), (PromDuration::from_secs(1), PromDuration::from_secs(4 * 3600)));
        let [first, second] = &of("2")[..] else { panic!("two nodes") };
        assert_eq!((&first.group_by, first.group_interval), (&GroupBy::All, PromDuration::from_secs(120)));
        assert_eq!((second.receiver.as_str(), &second.group_by), ("c", &GroupBy::Labels(Vec::new())));
        assert_eq!(of("9")[0].receiver, "a");
        assert_eq!(tree.receivers(), ["a", "b", "c"]);
    }
}
