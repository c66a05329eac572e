//! Target groups: targets with common labels, written in the configuration or in files of their own.

#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

use std::collections::BTreeMap;
use std::ops::Deref;

use super::names::LabelSet;
use super::yaml::block::block;
use super::yaml::{self, Abort, Decoded, Decoder, Kind, Node, Out, Yaml, YamlError};

block! {
    /// Targets with common labels. Two groups of one provider with the same source are the same group at two times.
    pub struct TargetGroup("struct { Targets []string \"yaml:\\\"targets\\\"\"; Labels model.LabelSet \"yaml:\\\"labels\\\"\" }") {
        /// Addresses, `host:port`.
        pub targets: Vec<String> = "targets", always;
        /// Labels of each target.
        pub labels: LabelSet = "labels", omitempty;
        /// Where the group comes from.
        pub source: String = "", hidden;
    }
}

/// `static_configs`: the groups are numbered from 0 in their sources.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StaticConfigs(Vec<TargetGroup>);

impl Deref for StaticConfigs {
    type Target = [TargetGroup];
    fn deref(&self) -> &[TargetGroup] {
        &self.0
    }
}

impl From<Vec<TargetGroup>> for StaticConfigs {
    fn from(groups: Vec<TargetGroup>) -> Self {
        Self(groups)
    }
}

impl Yaml for StaticConfigs {
    fn go_type() -> String {
        "[]*targetgroup.Group".to_owned()
    }
    fn decode(&mut self, node: &Node, decoder: &mut Decoder) -> Decoded {
        let Kind::Sequence(items) = &node.kind else { return Ok(decoder.mismatch(node, &Self::go_type())) };
        self.0.clear();
        for item in items {
            if item.resolved().is_null() {
                return Err(Abort::at(item, "empty or null section in static_configs"));
            }
            let mut group = TargetGroup::default();
            if decoder.value(item, &mut group)? {
                group.source = self.0.len().to_string();
                self.0.push(group);
            }
        }
        Ok(true)
    }
    fn encode(&self) -> Out {
        self.0.encode()
    }
    fn is_zero(&self) -> bool {
        self.0.is_empty()
    }
}

/// Why a file of target groups could not be read. The texts are those that Prometheus logs.
#[derive(Debug, thiserror::Error)]
pub enum TargetGroupError {
    /// Neither `.json` nor `.yml` nor `.yaml`.
    #[error("unhandled file extension {0:?}")]
    Extension(String),
    /// Not text.
    #[error("{path} is not UTF-8")]
    NotText {
        /// The file.
        path: String,
    },
    /// Not JSON, or not of the right shape.
    #[error("{0}")]
    Json(#[from] serde_json::Error),
    /// Not YAML, or not of the right shape.
    #[error("{0}")]
    Yaml(#[from] YamlError),
    /// An entry that is null.
    #[error("nil target group item found")]
    Null,
}

/// Parses a file of target groups, JSON or YAML by its extension. Unknown fields are errors. Each group gets the source
/// `path:index` and the label `__meta_filepath`.
pub fn parse(path: &str, content: &[u8]) -> Result<Vec<TargetGroup>, TargetGroupError> {
    let extension =
        path.rsplit('/').next().and_then(|name| name.rfind('.').and_then(|at| name.get(at..))).unwrap_or("");
    let groups = match extension.to_ascii_lowercase().as_str() {
        ".json" => parse_json(content)?,
        ".yml" | ".yaml" => {
            let not_text = |_| TargetGroupError::NotText { path: path.to_owned() };
            let text = std::str::from_utf8(content).map_err(not_text)?;
            let mut groups: Vec<Option<TargetGroup>> = Vec::new();
            yaml::read(text, &mut groups)?;
            groups
        }
        _ => return Err(TargetGroupError::Extension(extension.to_owned())),
    };
    let mut finished = Vec::with_capacity(groups.len());
    for (index, group) in groups.into_iter().enumerate() {
        let mut group = group.ok_or(TargetGroupError::Null)?;
        group.source = format!("{path}:{index}");
        group.labels.0.insert("__meta_filepath".to_owned(), path.to_owned());
        finished.push(group);
    }
    Ok(finished)
}

/// Parses the answer of an HTTP endpoint: JSON, as in a file. Sources and labels that name the endpoint are the caller's.
pub fn parse_answer(content: &[u8]) -> Result<Vec<TargetGroup>, TargetGroupError> {
    parse_json(content)?.into_iter().map(|group| group.ok_or(TargetGroupError::Null)).collect()
}

/// The shape in JSON, shared by files and HTTP discovery.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct JsonGroup {
    #[serde(default)]
    targets: Option<Vec<Option<String>>>,
    #[serde(default)]
    labels: Option<BTreeMap<String, Option<String>>>,
}

fn parse_json(content: &[u8]) -> Result<Vec<Option<TargetGroup>>, serde_json::Error> {
    let groups: Option<Vec<Option<JsonGroup>>> = serde_json::from_slice(content)?;
    let finish = |group: JsonGroup| {
        let labels = group.labels.unwrap_or_default();
        if labels.contains_key("") {
            return Err(serde::de::Error::custom("\"\" is not a valid label name"));
        }
        Ok(TargetGroup {
            targets: group.targets.unwrap_or_default().into_iter().map(Option::unwrap_or_default).collect(),
            labels: LabelSet(labels.into_iter().map(|(name, value)| (name, value.unwrap_or_default())).collect()),
            source: String::new(),
        })
    };
    groups.unwrap_or_default().into_iter().map(|group| group.map(finish).transpose()).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_both_formats_alike() {
        let json = parse("/t/a.json", br#"[{"targets":["a:1","b:2"],"labels":{"x":"y"}},{"targets":[]}]"#).unwrap();
        let yaml = parse("/t/a.yml", b"- targets: [a:1, 'b:2']\n  labels: {x: y}\n- targets:\n").unwrap();
        assert_eq!(json[0].targets, ["a:1", "b:2"]);
        assert_eq!(json[0].labels.get("__meta_filepath").map(String::as_str), Some("/t/a.json"));
        assert_eq!((json[1].source.as_str(), yaml[1].source.as_str()), ("/t/a.json:1", "/t/a.yml:1"));
        assert_eq!(json[0].targets, yaml[0].targets);
    }

    #[test]
    fn is_strict() {
        for (path, content) in [
            ("a.json", r#"[{"target":["a"]}]"#),
            ("a.json", r#"[null]"#),
            ("a.json", r#"[{"labels":{"":"x"}}]"#),
            ("a.json", "["),
            ("a.yml", "- target: [a]"),
            ("a.yml", "- "),
            ("a.yml", "targets: []"),
            ("a.txt", "[]"),
            ("a.yml/b", "[]"),
        ] {
            assert!(parse(path, content.as_bytes()).is_err(), "{path}: {content}");
        }
        let error = parse("a.yml", b"- bad: 1").unwrap_err().to_string();
        assert!(error.starts_with("yaml: unmarshal errors:\n  line 1: field bad not found in type"), "{error}");
        assert_eq!(parse("a.yml", b"").unwrap(), []);
    }

    proptest! {
        #[test]
        fn never_panics(content in "[\\[\\]{}a-c:,\"\\-&*! \n]{0,60}") {
            let _ = parse("a.json", content.as_bytes());
            let _ = parse("a.yaml", content.as_bytes());
        }
    }
}
