//! How the usual types stand in YAML: texts, numbers, durations, secrets, lists, mappings.

use std::collections::BTreeMap;

use super::decode::{Abort, Decoded, Decoder, Yaml, merged, scalar_of, text_of};
use super::emit::Out;
use super::node::{Kind, Node};
use super::scalar::Scalar;
use crate::model::duration::PromDuration;
use crate::model::go;
use crate::model::secret::Secret;

impl Yaml for String {
    fn go_type() -> String {
        "string".to_owned()
    }
    fn decode(&mut self, node: &Node, decoder: &mut Decoder) -> Decoded {
        let Some(text) = text_of(node, decoder, "string")? else { return Ok(false) };
        text.clone_into(self);
        Ok(true)
    }
    fn encode(&self) -> Out {
        Out::Text(self.clone())
    }
    fn is_zero(&self) -> bool {
        self.is_empty()
    }
}

impl Yaml for bool {
    fn go_type() -> String {
        "bool".to_owned()
    }
    fn decode(&mut self, node: &Node, decoder: &mut Decoder) -> Decoded {
        match scalar_of(node) {
            Scalar::Bool(value) => *self = value,
            _ => return Ok(decoder.mismatch(node, "bool")),
        }
        Ok(true)
    }
    fn encode(&self) -> Out {
        Out::Plain(self.to_string())
    }
    fn is_zero(&self) -> bool {
        !self
    }
}

impl Yaml for u64 {
    fn go_type() -> String {
        "uint".to_owned()
    }
    fn decode(&mut self, node: &Node, decoder: &mut Decoder) -> Decoded {
        let value = match scalar_of(node) {
            Scalar::Int(value) => u64::try_from(value).ok(),
            Scalar::Uint(value) => Some(value),
            // Go cuts the fraction off.
            Scalar::Float(value) if 0.0 <= value && value <= u64::MAX as f64 => Some(value as u64),
            _ => None,
        };
        match value {
            Some(value) => *self = value,
            None => return Ok(decoder.mismatch(node, "uint")),
        }
        Ok(true)
    }
    fn encode(&self) -> Out {
        Out::Plain(self.to_string())
    }
    fn is_zero(&self) -> bool {
        *self == 0
    }
}

impl Yaml for i64 {
    fn go_type() -> String {
        "int".to_owned()
    }
    fn decode(&mut self, node: &Node, decoder: &mut Decoder) -> Decoded {
        match scalar_of(node) {
            Scalar::Int(value) => *self = value,
            Scalar::Float(value) if i64::MIN as f64 <= value && value <= i64::MAX as f64 => *self = value as i64,
            _ => return Ok(decoder.mismatch(node, "int")),
        }
        Ok(true)
    }
    fn encode(&self) -> Out {
        Out::Plain(self.to_string())
    }
    fn is_zero(&self) -> bool {
        *self == 0
    }
}

impl Yaml for f64 {
    fn go_type() -> String {
        "float64".to_owned()
    }
    fn decode(&mut self, node: &Node, decoder: &mut Decoder) -> Decoded {
        match scalar_of(node) {
            Scalar::Int(value) => *self = value as f64,
            Scalar::Uint(value) => *self = value as f64,
            Scalar::Float(value) => *self = value,
            _ => return Ok(decoder.mismatch(node, "float64")),
        }
        Ok(true)
    }
    fn encode(&self) -> Out {
        Out::Plain(match *self {
            f64::INFINITY => ".inf".to_owned(),
            f64::NEG_INFINITY => "-.inf".to_owned(),
            value if value.is_nan() => ".nan".to_owned(),
            value => go::format_float_g(value),
        })
    }
    fn is_zero(&self) -> bool {
        *self == 0.0
    }
}

impl Yaml for PromDuration {
    fn go_type() -> String {
        "model.Duration".to_owned()
    }
    fn decode(&mut self, node: &Node, decoder: &mut Decoder) -> Decoded {
        let Some(text) = text_of(node, decoder, "string")? else { return Ok(false) };
        *self = Self::parse(text).map_err(|e| Abort::at(node, e.to_string()))?;
        Ok(true)
    }
    fn encode(&self) -> Out {
        Out::Text(self.to_string())
    }
    fn is_zero(&self) -> bool {
        (*self).is_zero()
    }
}

impl Yaml for Secret<String> {
    fn go_type() -> String {
        "config.Secret".to_owned()
    }
    fn decode(&mut self, node: &Node, decoder: &mut Decoder) -> Decoded {
        let Some(text) = text_of(node, decoder, "config.plain")? else { return Ok(false) };
        *self = Self::new(text.to_owned());
        Ok(true)
    }
    fn encode(&self) -> Out {
        if self.is_zero() { Out::Null } else { Out::Text(self.to_string()) }
    }
    fn is_zero(&self) -> bool {
        self.expose().is_empty()
    }
}

impl<T: Yaml> Yaml for Option<T> {
    fn go_type() -> String {
        format!("*{}", T::go_type())
    }
    fn decode(&mut self, node: &Node, decoder: &mut Decoder) -> Decoded {
        self.get_or_insert_with(T::default).decode(node, decoder)
    }
    fn encode(&self) -> Out {
        self.as_ref().map_or(Out::Null, T::encode)
    }
    fn is_zero(&self) -> bool {
        self.is_none()
    }
    fn resolve_paths(&mut self, dir: &str) {
        if let Some(value) = self {
            value.resolve_paths(dir);
        }
    }
}

impl<T: Yaml> Yaml for Vec<T> {
    fn go_type() -> String {
        T::go_list_type()
    }
    fn decode(&mut self, node: &Node, decoder: &mut Decoder) -> Decoded {
        let Kind::Sequence(items) = &node.kind else { return Ok(decoder.mismatch(node, &Self::go_type())) };
        self.clear();
        for (index, item) in items.iter().enumerate() {
            let mut value = T::default();
            if decoder.field(&index.to_string(), item, &mut value)? {
                self.push(value);
            }
        }
        Ok(true)
    }
    fn encode(&self) -> Out {
        Out::Sequence(self.iter().map(T::encode).collect())
    }
    fn is_zero(&self) -> bool {
        self.is_empty()
    }
    fn resolve_paths(&mut self, dir: &str) {
        self.iter_mut().for_each(|item| item.resolve_paths(dir));
    }
}

impl<T: Yaml> Yaml for BTreeMap<String, T> {
    fn go_type() -> String {
        T::go_map_type()
    }
    fn decode(&mut self, node: &Node, decoder: &mut Decoder) -> Decoded {
        let Kind::Mapping(pairs) = &node.kind else { return Ok(decoder.mismatch(node, &Self::go_type())) };
        if !decoder.keys_are_unique(pairs) {
            return Ok(false);
        }
        let mut fresh: BTreeMap<String, T> = BTreeMap::new();
        for (key, value) in pairs {
            if key.is_merge() {
                for source in merged(value)? {
                    self.decode(source, decoder)?;
                }
                continue;
            }
            let mut name = String::new();
            let mut item = T::default();
            if !decoder.value(key, &mut name)? || !decoder.field(&name.clone(), value, &mut item)? {
                continue;
            }
            if fresh.contains_key(&name) && !decoder.v3 {
                decoder.errors.push(format!("line {}: key {} already set in map", value.line, go::quote(&name)));
            } else {
                fresh.insert(name, item);
            }
        }
        self.append(&mut fresh);
        Ok(true)
    }
    fn encode(&self) -> Out {
        Out::sorted_mapping(self.iter().map(|(key, value)| (key.clone(), value.encode())).collect())
    }
    fn is_zero(&self) -> bool {
        self.is_empty()
    }
    fn resolve_paths(&mut self, dir: &str) {
        self.values_mut().for_each(|item| item.resolve_paths(dir));
    }
}

impl<T: Yaml> Yaml for Box<T> {
    fn go_type() -> String {
        T::go_type()
    }
    fn decode(&mut self, node: &Node, decoder: &mut Decoder) -> Decoded {
        (**self).decode(node, decoder)
    }
    fn encode(&self) -> Out {
        (**self).encode()
    }
    fn is_zero(&self) -> bool {
        (**self).is_zero()
    }
    fn resolve_paths(&mut self, dir: &str) {
        (**self).resolve_paths(dir);
    }
}
