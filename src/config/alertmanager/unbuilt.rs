//! Fields of good files that have no effect yet: they are taken whatever they hold, and remembered.

use crate::config::yaml::block::Block;
use crate::config::yaml::{Decoded, Decoder, Kind, Node, Out, Yaml};

/// A field that is not built.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Unbuilt {
    /// It is not there, or null.
    #[default]
    Null,
    /// It is there and holds nothing.
    Empty,
    /// It asks for something.
    Set,
}

/// Whether a field asks for what is not built.
pub(super) trait Ask {
    fn asks(&self) -> bool;
}

impl Ask for Unbuilt {
    fn asks(&self) -> bool {
        *self == Self::Set
    }
}

impl Ask for Vec<Unbuilt> {
    fn asks(&self) -> bool {
        !self.is_empty()
    }
}

impl Yaml for Unbuilt {
    fn go_type() -> String {
        "any".to_owned()
    }
    fn decode(&mut self, node: &Node, _: &mut Decoder) -> Decoded {
        let empty = match &node.kind {
            Kind::Sequence(items) => items.is_empty(),
            Kind::Mapping(pairs) => pairs.is_empty(),
            Kind::Scalar { text, .. } => text.is_empty(),
            Kind::Alias(_) | Kind::Cycle(_) => false,
        };
        *self = if empty { Self::Empty } else { Self::Set };
        Ok(true)
    }
    /// What it holds may be secret.
    fn encode(&self) -> Out {
        Out::Text("<secret>".to_owned())
    }
    fn is_zero(&self) -> bool {
        *self != Self::Set
    }
}

/// Appends the fields of a block that are set and not in `built`, with `place` before their names.
pub(super) fn set_beside(block: &impl Block, built: &[&str], place: &str, found: &mut Vec<String>) {
    let mut pairs = Vec::new();
    block.encode_fields(&mut pairs);
    let others = pairs.into_iter().filter(|(name, _)| !built.contains(&name.as_str()));
    found.extend(others.map(|(name, _)| format!("{place}.{name}")));
}
