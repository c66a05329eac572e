//! From nodes to Rust types, with the rules and texts of Go's yaml.v2 (and of yaml.v3 where rule files need them).

use std::collections::BTreeMap;
use std::sync::Arc;

use super::emit::Out;
use super::node::{Kind, Node};
use super::scalar::{self, Scalar};
use crate::model::go;

/// Why reading stops at once; mismatched types and unknown fields are collected instead.
#[derive(Debug)]
pub(crate) enum Abort {
    Syntax(String),
    Value {
        message: String,
        line: usize,
        /// Field names, innermost first.
        path: Vec<String>,
    },
}

impl Abort {
    /// A value at `node` that is not taken.
    pub(crate) fn at(node: &Node, message: impl Into<String>) -> Self {
        Self::Value { message: message.into(), line: node.line, path: Vec::new() }
    }

    fn under(mut self, field: &str) -> Self {
        if let Self::Value { path, .. } = &mut self {
            path.push(field.to_owned());
        }
        self
    }
}

/// Whether a value was read without a type error; errors are in [`Decoder::errors`].
pub(crate) type Decoded = Result<bool, Abort>;

/// Reads the field of that name, or says `None` if there is no such field.
pub(crate) type FieldReader<'a> = &'a mut dyn FnMut(&str, &Node, &mut Decoder) -> Result<Option<bool>, Abort>;

/// A type that stands in a YAML file. `Default` is what an explicit null sets.
pub(crate) trait Yaml: Default {
    /// The type's name in Go, for error texts.
    fn go_type() -> String;
    /// The name in Go of a list of these.
    fn go_list_type() -> String {
        format!("[]{}", Self::go_type())
    }
    /// The name in Go of a mapping of texts to these.
    fn go_map_type() -> String {
        format!("map[string]{}", Self::go_type())
    }
    /// Reads `node`, which is neither null nor an alias, over `self`.
    fn decode(&mut self, node: &Node, decoder: &mut Decoder) -> Decoded;
    /// The value as it is written back, secrets redacted.
    fn encode(&self) -> Out;
    /// True for values that `omitempty` leaves out.
    fn is_zero(&self) -> bool;
    /// Tells the value where in the file it stands: line and column, from 1.
    fn set_place(&mut self, _line: usize, _column: usize) {}
    /// Makes relative file names relative to `dir`.
    fn resolve_paths(&mut self, _dir: &str) {}
}

/// Reads one document.
#[derive(Debug)]
pub(crate) struct Decoder {
    /// One text per mismatch, with its line.
    pub errors: Vec<String>,
    /// Unknown fields are errors.
    strict: bool,
    /// yaml.v3 checks for duplicate keys by itself and words it differently.
    pub(super) v3: bool,
    decode_count: usize,
    alias_count: usize,
    alias_depth: usize,
}

impl Decoder {
    /// yaml.v2, strict.
    pub(crate) fn v2() -> Self {
        Self { errors: Vec::new(), strict: true, v3: false, decode_count: 0, alias_count: 0, alias_depth: 0 }
    }

    /// yaml.v3; unknown fields are errors if `strict`.
    pub(crate) fn v3(strict: bool) -> Self {
        Self { strict, v3: true, ..Self::v2() }
    }

    /// Reads `node` over `out`.
    pub(crate) fn value<T: Yaml>(&mut self, node: &Node, out: &mut T) -> Decoded {
        let done = self.target(node, out);
        out.set_place(node.line, node.column);
        done
    }

    /// Reads what `node` is or stands for.
    fn target<T: Yaml>(&mut self, node: &Node, out: &mut T) -> Decoded {
        self.decode_count += 1;
        if self.alias_depth > 0 {
            self.alias_count += 1;
        }
        if 100 < self.alias_count && 1000 < self.decode_count && self.aliases_too_much() {
            return Err(Abort::Syntax("document contains excessive aliasing".to_owned()));
        }
        if let Kind::Alias(target) = &node.kind {
            self.alias_depth += 1;
            let done = self.target(target, out);
            self.alias_depth -= 1;
            return done;
        }
        if let Kind::Cycle(name) = &node.kind {
            return Err(Abort::Syntax(format!("anchor '{name}' value contains itself")));
        }
        if node.is_null() {
            *out = T::default();
            return Ok(true);
        }
        out.decode(node, self)
    }

    /// Reads the value of the field `name`.
    pub(crate) fn field<T: Yaml>(&mut self, name: &str, node: &Node, out: &mut T) -> Decoded {
        self.value(node, out).map_err(|abort| abort.under(name))
    }

    /// Notes that `node` is nothing that the Go type `wanted` takes. Always false, for the caller to return.
    pub(crate) fn mismatch(&mut self, node: &Node, wanted: &str) -> bool {
        let (tag, value) = match &node.kind {
            Kind::Sequence(_) => ("!!seq", None),
            Kind::Mapping(_) => ("!!map", None),
            Kind::Scalar { text, .. } => (scalar_of(node).tag(), Some(text)),
            Kind::Alias(target) => return self.mismatch(target, wanted),
            Kind::Cycle(_) => ("!!map", None),
        };
        let tag = match node.tag.strip_prefix("tag:yaml.org,2002:") {
            Some(short) => format!("!!{short}"),
            None if !node.tag.is_empty() => node.tag.clone(),
            None => tag.to_owned(),
        };
        let value = match value {
            None => String::new(),
            // Prometheus shows how a secret in the wrong place begins.
            Some(_) if wanted.contains("Secret") => " `<secret>`".to_owned(),
            Some(text) if text.len() > 10 => {
                let cut = (0..=7).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
                format!(" `{}...`", text.get(..cut).unwrap_or(""))
            }
            Some(text) => format!(" `{text}`"),
        };
        self.errors.push(format!("line {}: cannot unmarshal {tag}{value} into {wanted}", node.line));
        false
    }

    /// Reads a mapping whose keys are fields of the Go type `name`; `field` reads one, or says that it is unknown.
    pub(crate) fn fields(&mut self, node: &Node, name: &str, field: FieldReader<'_>) -> Decoded {
        let Kind::Mapping(pairs) = &node.kind else { return Ok(self.mismatch(node, name)) };
        if !self.keys_are_unique(pairs) {
            return Ok(false);
        }
        let mut seen: Vec<String> = Vec::new();
        let mut deferred: Vec<&Node> = Vec::new();
        for (key, value) in pairs {
            if key.is_merge() {
                let mut sources = merged(value)?;
                if self.v3 {
                    // There what is merged comes last, and what came first wins.
                    sources.reverse();
                    deferred = sources;
                    continue;
                }
                for source in sources {
                    self.fields(source, name, field)?;
                }
                continue;
            }
            let mut text = String::new();
            if !self.value(key, &mut text)? {
                continue;
            }
            let repeated = seen.contains(&text);
            if repeated && !self.v3 {
                let line = key.line;
                self.errors.push(format!("line {line}: field {text} already set in type {name}"));
                continue;
            }
            if field(&text, value, self)?.is_none() && self.strict {
                self.errors.push(format!("line {}: field {text} not found in type {name}", key.line));
            } else {
                seen.push(text);
            }
        }
        for source in deferred {
            let mut fresh = Vec::new();
            self.fields(source, name, &mut |key, value, decoder| {
                if seen.iter().any(|s| s == key) {
                    return Ok(Some(true));
                }
                fresh.push(key.to_owned());
                field(key, value, decoder)
            })?;
            seen.append(&mut fresh);
        }
        Ok(true)
    }

    /// Notes repeated keys, where yaml.v3 does so before it reads a mapping.
    pub(super) fn keys_are_unique(&mut self, pairs: &[(Arc<Node>, Arc<Node>)]) -> bool {
        let errors_before = self.errors.len();
        let mut lines: BTreeMap<&str, usize> = BTreeMap::new();
        for (key, _) in pairs.iter().filter(|_| self.v3) {
            let Kind::Scalar { text, .. } = &key.kind else { continue };
            match lines.get(text.as_str()) {
                Some(first) => {
                    let text = go::quote(text);
                    self.errors.push(format!("line {}: mapping key {text} already defined at line {first}", key.line));
                }
                None => drop(lines.insert(text, key.line)),
            }
        }
        self.errors.len() == errors_before
    }

    /// Go's guard against documents that grow by aliases.
    fn aliases_too_much(&self) -> bool {
        const LOW: usize = 400_000;
        const HIGH: usize = 4_000_000;
        let allowed = if self.decode_count <= LOW {
            0.99
        } else if self.decode_count >= HIGH {
            0.10
        } else {
            0.99 - 0.89 * ((self.decode_count - LOW) as f64 / (HIGH - LOW) as f64)
        };
        self.alias_count as f64 / self.decode_count as f64 > allowed
    }
}

/// The mappings that the value of `<<` names, in the order in which they apply.
pub(super) fn merged(value: &Node) -> Result<Vec<&Node>, Abort> {
    let wrong = || Abort::Syntax("map merge requires map or sequence of maps as the value".to_owned());
    let resolved = value.resolved();
    match &resolved.kind {
        Kind::Mapping(_) => Ok(vec![resolved]),
        Kind::Sequence(items) if !matches!(value.kind, Kind::Alias(_)) => items
            .iter()
            .rev()
            .map(|item| match &item.resolved().kind {
                Kind::Mapping(_) => Ok(item.resolved()),
                _ => Err(wrong()),
            })
            .collect(),
        _ => Err(wrong()),
    }
}

pub(super) fn scalar_of(node: &Node) -> Scalar {
    let Kind::Scalar { text, plain } = &node.kind else { return Scalar::Text };
    match node.tag.strip_prefix("tag:yaml.org,2002:") {
        None if node.tag.is_empty() && *plain => scalar::resolve(text),
        None if node.tag.is_empty() => Scalar::Text,
        Some("str") => Scalar::Text,
        Some("int" | "bool" | "null" | "timestamp") => scalar::resolve(text),
        Some("float") => match scalar::resolve(text) {
            Scalar::Int(value) => Scalar::Float(value as f64),
            other => other,
        },
        _ => Scalar::Tagged,
    }
}

/// The text of a scalar, which every type but collections has; `None` after noting a mismatch with `wanted`.
pub(crate) fn text_of<'n>(node: &'n Node, decoder: &mut Decoder, wanted: &str) -> Result<Option<&'n str>, Abort> {
    let Kind::Scalar { text, .. } = &node.kind else {
        decoder.mismatch(node, wanted);
        return Ok(None);
    };
    if node.tag == "tag:yaml.org,2002:binary" {
        // The only way to write a text that is not UTF-8, which no field here takes.
        return Err(Abort::at(node, format!("{} is not valid UTF-8", go::quote_bytes(&binary(node, text)?))));
    }
    Ok(Some(text))
}

/// The bytes of a `!!binary` scalar.
pub(crate) fn binary(node: &Node, text: &str) -> Result<Vec<u8>, Abort> {
    let mut out = Vec::with_capacity(text.len());
    let mut word = 0u32;
    let mut bits = 0;
    for b in text.bytes().filter(|b| !b.is_ascii_whitespace() && *b != b'=') {
        let digit = match b {
            b'A'..=b'Z' => b - b'A',
            b'a'..=b'z' => b - b'a' + 26,
            b'0'..=b'9' => b - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return Err(Abort::at(node, "yaml: !!binary value contains invalid base64 data")),
        };
        word = (word << 6 | u32::from(digit)) & 0xff_ffff;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            out.push((word >> bits & 0xff) as u8);
        }
    }
    Ok(out)
}
