//! Structs that are blocks of a configuration file: one declaration gives the struct, its reading and its writing.
//!
//! ```text
//! block! {
//!     /// What it is.
//!     pub struct Queue("config.QueueConfig") {          // the type's name in Go, for error texts
//!         /// What it is, unit, default.
//!         pub capacity: i64 = "capacity", omitempty;    // left out when zero
//!         pub send: bool = "send", always;
//!         pub labels: Names = "labels", flow;           // left out when empty, else on one line
//!         pub http: HttpClientConfig = "", inline;      // its fields stand in this block
//!     }
//! }
//! ```
//!
//! A second name after the first says that the type has an `UnmarshalYAML` of its own: before reading it is set to
//! [`Preset::preset`], afterwards [`Preset::check`] runs, unless fields had wrong types.

use super::decode::{Abort, Decoded, Decoder, Yaml};
use super::emit::Out;
use super::node::Node;

/// A struct whose fields are keys of a mapping.
pub(crate) trait Block: Default {
    /// Reads the field `key`; `None` if there is no such field.
    fn decode_field(&mut self, key: &str, value: &Node, decoder: &mut Decoder) -> Result<Option<bool>, Abort>;
    /// Appends the fields as they are written.
    fn encode_fields(&self, out: &mut Vec<(String, Out)>);
    /// True if every field has the zero value.
    fn all_zero(&self) -> bool;
    /// Makes relative file names in all fields relative to `dir`.
    fn resolve_fields(&mut self, dir: &str);
}

/// Defaults and checks of a block.
pub(crate) trait Preset: Block {
    /// The values of fields that are not written in the file.
    fn preset() -> Self {
        Self::default()
    }
    /// Checks the block and fills in what follows from other fields. The error is Prometheus's text.
    fn check(&mut self) -> Result<(), String> {
        Ok(())
    }
}

/// Reads a block without defaults over what is there.
pub(crate) fn decode_plain<T: Block>(out: &mut T, node: &Node, decoder: &mut Decoder, go_type: &str) -> Decoded {
    decoder.fields(node, go_type, &mut |key, value, decoder| out.decode_field(key, value, decoder))
}

/// Reads a block with its defaults, and checks it.
pub(crate) fn decode_preset<T: Preset>(out: &mut T, node: &Node, decoder: &mut Decoder, go_type: &str) -> Decoded {
    *out = T::preset();
    let errors_before = decoder.errors.len();
    decode_plain(out, node, decoder, go_type)?;
    if decoder.errors.len() > errors_before {
        return Ok(false);
    }
    out.check().map_err(|message| Abort::at(node, message))?;
    Ok(true)
}

pub(crate) fn encode<T: Block>(block: &T) -> Out {
    let mut pairs = Vec::new();
    block.encode_fields(&mut pairs);
    Out::Mapping(pairs)
}

/// Writes one field, as its mode says.
pub(crate) fn encode_field<T: Yaml>(value: &T, key: &str, mode: Mode, out: &mut Vec<(String, Out)>) {
    if mode != Mode::Always && value.is_zero() {
        return;
    }
    let encoded = match (mode, value.encode()) {
        (Mode::Flow, Out::Sequence(items)) => Out::Flow(items),
        (_, encoded) => encoded,
    };
    out.push((key.to_owned(), encoded));
}

/// How a field is written.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Mode {
    Always,
    OmitEmpty,
    Flow,
}

macro_rules! block {
    (
        $(#[$meta:meta])*
        $vis:vis struct $name:ident($go:literal $(, $inner:literal)?) {
            $( $(#[$field_meta:meta])* $field_vis:vis $field:ident : $ty:ty = $key:literal, $mode:ident; )*
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug, Default, PartialEq)]
        $vis struct $name {
            $( $(#[$field_meta])* $field_vis $field: $ty, )*
        }

        impl $crate::config::yaml::block::Block for $name {
            #[allow(unused_variables, reason = "blocks may have no fields")]
            fn decode_field(
                &mut self,
                key: &str,
                value: &$crate::config::yaml::Node,
                decoder: &mut $crate::config::yaml::Decoder,
            ) -> Result<Option<bool>, $crate::config::yaml::Abort> {
                $( block!(@decode $mode, self.$field, key, $key, value, decoder); )*
                Ok(None)
            }
            #[allow(unused_variables, reason = "blocks may have no fields")]
            fn encode_fields(&self, out: &mut Vec<(String, $crate::config::yaml::Out)>) {
                $( block!(@encode $mode, self.$field, $key, out); )*
            }
            fn all_zero(&self) -> bool {
                true $( && block!(@zero $mode, self.$field) )*
            }
            #[allow(unused_variables, reason = "blocks may have no fields")]
            fn resolve_fields(&mut self, dir: &str) {
                $( block!(@resolve $mode, self.$field, dir); )*
            }
        }

        impl $crate::config::yaml::Yaml for $name {
            fn go_type() -> String {
                $go.to_owned()
            }
            fn decode(
                &mut self,
                node: &$crate::config::yaml::Node,
                decoder: &mut $crate::config::yaml::Decoder,
            ) -> $crate::config::yaml::Decoded {
                block!(@entry self, node, decoder, $go $(, $inner)?)
            }
            fn encode(&self) -> $crate::config::yaml::Out {
                $crate::config::yaml::block::encode(self)
            }
            fn is_zero(&self) -> bool {
                $crate::config::yaml::block::Block::all_zero(self)
            }
            fn resolve_paths(&mut self, dir: &str) {
                $crate::config::yaml::block::Block::resolve_fields(self, dir);
            }
        }
    };
    (@entry $self:ident, $node:ident, $decoder:ident, $go:literal) => {
        $crate::config::yaml::block::decode_plain($self, $node, $decoder, $go)
    };
    (@entry $self:ident, $node:ident, $decoder:ident, $go:literal, $inner:literal) => {
        $crate::config::yaml::block::decode_preset($self, $node, $decoder, $inner)
    };
    (@decode inline, $field:expr, $key:ident, $name:literal, $value:ident, $decoder:ident) => {
        if let Some(good) = $crate::config::yaml::block::Block::decode_field(&mut $field, $key, $value, $decoder)? {
            return Ok(Some(good));
        }
    };
    (@decode hidden, $field:expr, $key:ident, $name:literal, $value:ident, $decoder:ident) => {};
    (@decode $mode:ident, $field:expr, $key:ident, $name:literal, $value:ident, $decoder:ident) => {
        if $key == $name {
            return $decoder.field($name, $value, &mut $field).map(Some);
        }
    };
    (@encode inline, $field:expr, $name:literal, $out:ident) => {
        $crate::config::yaml::block::Block::encode_fields(&$field, $out);
    };
    (@encode hidden, $field:expr, $name:literal, $out:ident) => {};
    (@encode always, $field:expr, $name:literal, $out:ident) => {
        $crate::config::yaml::block::encode_field(&$field, $name, $crate::config::yaml::block::Mode::Always, $out);
    };
    (@encode omitempty, $field:expr, $name:literal, $out:ident) => {
        $crate::config::yaml::block::encode_field(&$field, $name, $crate::config::yaml::block::Mode::OmitEmpty, $out);
    };
    (@encode flow, $field:expr, $name:literal, $out:ident) => {
        $crate::config::yaml::block::encode_field(&$field, $name, $crate::config::yaml::block::Mode::Flow, $out);
    };
    (@zero inline, $field:expr) => {
        $crate::config::yaml::block::Block::all_zero(&$field)
    };
    (@zero hidden, $field:expr) => {
        true
    };
    (@zero $mode:ident, $field:expr) => {
        $crate::config::yaml::Yaml::is_zero(&$field)
    };
    (@resolve inline, $field:expr, $dir:ident) => {
        $crate::config::yaml::block::Block::resolve_fields(&mut $field, $dir)
    };
    (@resolve hidden, $field:expr, $dir:ident) => {};
    (@resolve $mode:ident, $field:expr, $dir:ident) => {
        $crate::config::yaml::Yaml::resolve_paths(&mut $field, $dir)
    };
}

pub(crate) use block;
