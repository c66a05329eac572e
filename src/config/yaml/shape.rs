//! The guard between the two parsers: they follow different versions of YAML, and a document on whose structure they
//! disagree is refused instead of being read in one of two ways.

use std::fmt;

use serde::de::{Deserialize, Deserializer, EnumAccess, MapAccess, SeqAccess, VariantAccess, Visitor};

use super::node::{Kind, Node};

/// Nodes, aliases followed, from which on a document is not compared; reading it fails for its aliases or its size.
const NODES_MAX: usize = 1 << 20;

/// True if serde_yaml sees another structure in the first document than `root` has.
pub(super) fn differs(text: &str, root: &Node) -> bool {
    let mut ours = Ours::default();
    ours.add(root);
    let Some(first) = serde_yaml::Deserializer::from_str(text).next() else { return true };
    match Shape::deserialize(first) {
        _ if ours.too_large => false,
        Ok(theirs) => theirs.0 != ours.shape,
        // An alias inside of its own anchor never ends there.
        Err(error) if error.to_string().starts_with("recursion limit exceeded") => !ours.cycle,
        // Values with tags that do not fit are errors there; what becomes of them is decided when they are read.
        Err(_) => false,
    }
}

/// The structure: `s` for a scalar, brackets and braces around lists and mappings.
#[derive(Default)]
struct Ours {
    shape: String,
    cycle: bool,
    too_large: bool,
}

impl Ours {
    fn add(&mut self, node: &Node) {
        if self.shape.len() >= NODES_MAX {
            self.too_large = true;
            return;
        }
        match &node.resolved().kind {
            Kind::Sequence(items) => {
                self.shape.push('[');
                items.iter().for_each(|item| self.add(item));
                self.shape.push(']');
            }
            Kind::Mapping(pairs) => {
                self.shape.push('{');
                for (key, value) in pairs {
                    self.add(key);
                    self.add(value);
                }
                self.shape.push('}');
            }
            Kind::Cycle(_) => self.cycle = true,
            Kind::Scalar { .. } | Kind::Alias(_) => self.shape.push('s'),
        }
    }
}

struct Shape(String);

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ShapeVisitor)
    }
}

struct ShapeVisitor;

impl<'de> Visitor<'de> for ShapeVisitor {
    type Value = Shape;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }
    fn visit_bool<E>(self, _: bool) -> Result<Shape, E> {
        Ok(Shape("s".to_owned()))
    }
    fn visit_i64<E>(self, _: i64) -> Result<Shape, E> {
        Ok(Shape("s".to_owned()))
    }
    fn visit_u64<E>(self, _: u64) -> Result<Shape, E> {
        Ok(Shape("s".to_owned()))
    }
    fn visit_i128<E>(self, _: i128) -> Result<Shape, E> {
        Ok(Shape("s".to_owned()))
    }
    fn visit_u128<E>(self, _: u128) -> Result<Shape, E> {
        Ok(Shape("s".to_owned()))
    }
    fn visit_f64<E>(self, _: f64) -> Result<Shape, E> {
        Ok(Shape("s".to_owned()))
    }
    fn visit_str<E>(self, _: &str) -> Result<Shape, E> {
        Ok(Shape("s".to_owned()))
    }
    fn visit_unit<E>(self) -> Result<Shape, E> {
        Ok(Shape("s".to_owned()))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Shape, A::Error> {
        let mut shape = "[".to_owned();
        while let Some(item) = items.next_element::<Shape>()? {
            shape.push_str(&item.0);
        }
        shape.push(']');
        Ok(Shape(shape))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut pairs: A) -> Result<Shape, A::Error> {
        let mut shape = "{".to_owned();
        while let Some((key, value)) = pairs.next_entry::<Shape, Shape>()? {
            shape.push_str(&key.0);
            shape.push_str(&value.0);
        }
        shape.push('}');
        Ok(Shape(shape))
    }
    /// Values with a tag of their own arrive like this.
    fn visit_enum<A: EnumAccess<'de>>(self, access: A) -> Result<Shape, A::Error> {
        let (_, content) = access.variant::<Shape>()?;
        content.newtype_variant::<Shape>()
    }
}
