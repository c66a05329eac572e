//! YAML as Prometheus reads it: Go's yaml.v2 in strict mode, with its YAML 1.1 types, its handling of nulls, duplicate
//! keys and unknown fields, and its error texts with their lines; and its way of writing YAML.
//!
//! This is the only module that knows a YAML library. [`node`] parses, [`decode`] fills Rust types, [`block`] makes a
//! struct readable and writable, [`emit`] writes.

pub(crate) mod block;
pub(crate) mod decode;
pub(crate) mod emit;
pub(crate) mod node;
mod scalar;
mod shape;
mod style;
mod types;

pub(crate) use self::decode::{Abort, Decoded, Decoder, Yaml, text_of};
pub(crate) use self::emit::Out;
pub(crate) use self::node::{Dialect, Kind, Node};

/// Why a document could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum YamlError {
    /// Not YAML. Where a line is known, the text starts with it.
    #[error("yaml: {0}")]
    Syntax(String),
    /// Fields that do not exist, stand twice, or have values of another type; one text each, with its line.
    #[error("yaml: unmarshal errors:\n  {}", .0.join("\n  "))]
    Types(Vec<String>),
    /// A value that a field does not take.
    #[error("{message}")]
    Value {
        /// Prometheus's text.
        message: String,
        /// Line of the value or of its block.
        line: usize,
        /// Names of the fields down to the value, joined by dots.
        field: String,
    },
}

impl From<Abort> for YamlError {
    fn from(abort: Abort) -> Self {
        match abort {
            Abort::Syntax(text) => Self::Syntax(text),
            Abort::Value { message, line, path } => {
                let field = path.into_iter().rev().collect::<Vec<_>>().join(".");
                Self::Value { message, line, field }
            }
        }
    }
}

/// Reads the first document of `text` over `out`; without a document, or with an empty one, `out` stays as it is.
pub(crate) fn read<T: Yaml>(text: &str, out: &mut T) -> Result<(), YamlError> {
    let (Some(root), _) = node::parse(text, Dialect::V2)? else { return Ok(()) };
    read_node(&root, out, Decoder::v2())
}

/// Reads a parsed document.
pub(crate) fn read_node<T: Yaml>(root: &Node, out: &mut T, mut decoder: Decoder) -> Result<(), YamlError> {
    if root.is_null() {
        return Ok(());
    }
    decoder.value(root, out)?;
    if decoder.errors.is_empty() { Ok(()) } else { Err(YamlError::Types(decoder.errors)) }
}

/// A value as JSON; plain scalars get the types that Go gives them.
pub(crate) fn json_of(value: &Out) -> serde_json::Value {
    use serde_json::Value;
    match value {
        Out::Null => Value::Null,
        Out::Text(text) => text.clone().into(),
        Out::Plain(text) => match scalar::resolve(text) {
            scalar::Scalar::Null => Value::Null,
            scalar::Scalar::Bool(value) => value.into(),
            scalar::Scalar::Int(number) => number.into(),
            scalar::Scalar::Uint(number) => number.into(),
            scalar::Scalar::Float(number) => number.into(),
            scalar::Scalar::Timestamp | scalar::Scalar::Text | scalar::Scalar::Tagged => text.clone().into(),
        },
        Out::Sequence(items) | Out::Flow(items) => items.iter().map(json_of).collect(),
        Out::Mapping(pairs) => pairs.iter().map(|(name, value)| (name.clone(), json_of(value))).collect(),
    }
}

#[cfg(test)]
mod tests;
