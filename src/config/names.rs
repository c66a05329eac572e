//! Names of labels in configuration files, and the two rules for what a name may be.

use std::collections::BTreeMap;
use std::ops::Deref;

use super::yaml::{Abort, Decoded, Decoder, Kind, Node, Out, Yaml, text_of};
use crate::model::go;
use crate::model::labels;

/// Which names of metrics and labels are valid.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ValidationScheme {
    /// Nothing was configured; never seen after loading.
    #[default]
    Unset,
    /// ASCII letters, digits and underscores, as before Prometheus 3.
    Legacy,
    /// Any UTF-8 text that is not empty.
    Utf8,
}

impl ValidationScheme {
    /// True if `name` may name a label.
    pub fn is_label_name(self, name: &str) -> bool {
        match self {
            Self::Legacy => labels::is_legacy_label_name(name),
            Self::Unset | Self::Utf8 => !name.is_empty(),
        }
    }

    /// True if `name` may name a metric.
    pub fn is_metric_name(self, name: &str) -> bool {
        match self {
            Self::Legacy => labels::is_legacy_metric_name(name),
            Self::Unset | Self::Utf8 => !name.is_empty(),
        }
    }
}

impl Yaml for ValidationScheme {
    fn go_type() -> String {
        "model.ValidationScheme".to_owned()
    }
    fn decode(&mut self, node: &Node, decoder: &mut Decoder) -> Decoded {
        let Some(text) = text_of(node, decoder, "string")? else { return Ok(false) };
        match text {
            "" => {}
            "legacy" => *self = Self::Legacy,
            "utf8" => *self = Self::Utf8,
            _ => return Err(Abort::at(node, format!("unrecognized ValidationScheme: {}", go::quote(text)))),
        }
        Ok(true)
    }
    fn encode(&self) -> Out {
        Out::Text(
            match self {
                Self::Unset => "",
                Self::Legacy => "legacy",
                Self::Utf8 => "utf8",
            }
            .to_owned(),
        )
    }
    fn is_zero(&self) -> bool {
        *self == Self::Unset
    }
}

/// The name of a label: any text that is not empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelName(String);

impl<T: Into<String>> From<T> for LabelName {
    fn from(name: T) -> Self {
        Self(name.into())
    }
}

impl Deref for LabelName {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl Yaml for LabelName {
    fn go_type() -> String {
        "model.LabelName".to_owned()
    }
    fn go_list_type() -> String {
        "model.LabelNames".to_owned()
    }
    fn decode(&mut self, node: &Node, decoder: &mut Decoder) -> Decoded {
        let Some(text) = text_of(node, decoder, "string")? else { return Ok(false) };
        if text.is_empty() {
            return Err(Abort::at(node, "\"\" is not a valid label name"));
        }
        text.clone_into(&mut self.0);
        Ok(true)
    }
    fn encode(&self) -> Out {
        self.0.encode()
    }
    fn is_zero(&self) -> bool {
        self.0.is_empty()
    }
}

/// Labels of a target group: names and values, names checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelSet(pub BTreeMap<String, String>);

impl Deref for LabelSet {
    type Target = BTreeMap<String, String>;
    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl Yaml for LabelSet {
    fn go_type() -> String {
        "model.LabelSet".to_owned()
    }
    fn decode(&mut self, node: &Node, decoder: &mut Decoder) -> Decoded {
        if !matches!(node.kind, Kind::Mapping(_)) {
            return Ok(decoder.mismatch(node, "model.LabelSet"));
        }
        let good = self.0.decode(node, decoder)?;
        if self.0.contains_key("") {
            return Err(Abort::at(node, "\"\" is not a valid label name"));
        }
        Ok(good)
    }
    fn encode(&self) -> Out {
        self.0.encode()
    }
    fn is_zero(&self) -> bool {
        self.0.is_empty()
    }
}
