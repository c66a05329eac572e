//! Values of any shape, as the claims of a signed assertion may have.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::yaml::{Decoded, Decoder, Kind, Node, Out, Yaml, json_of, text_of};

/// Claims of a signed assertion: any values, written back as they were.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Claims(BTreeMap<String, Any>);

impl Claims {
    /// The claims as JSON, with the types that YAML gives their values.
    pub fn to_json(&self) -> Map<String, Value> {
        self.0.iter().map(|(name, value)| (name.clone(), json_of(&value.0))).collect()
    }
}

impl Yaml for Claims {
    fn go_type() -> String {
        BTreeMap::<String, Any>::go_type()
    }
    fn decode(&mut self, node: &Node, decoder: &mut Decoder) -> Decoded {
        self.0.decode(node, decoder)
    }
    fn encode(&self) -> Out {
        self.0.encode()
    }
    fn is_zero(&self) -> bool {
        self.0.is_empty()
    }
}

#[derive(Clone, Debug, PartialEq)]
struct Any(Out);

impl Default for Any {
    fn default() -> Self {
        Self(Out::Null)
    }
}

impl Yaml for Any {
    fn go_type() -> String {
        "interface {}".to_owned()
    }
    fn decode(&mut self, node: &Node, decoder: &mut Decoder) -> Decoded {
        self.0 = match &node.kind {
            Kind::Scalar { text, plain: true } => Out::Plain(text.clone()),
            Kind::Sequence(_) => {
                let mut items: Vec<Self> = Vec::new();
                items.decode(node, decoder)?;
                items.encode()
            }
            Kind::Mapping(_) => {
                let mut pairs: BTreeMap<String, Self> = BTreeMap::new();
                pairs.decode(node, decoder)?;
                pairs.encode()
            }
            _ => match text_of(node, decoder, "string")? {
                Some(text) => Out::Text(text.to_owned()),
                None => return Ok(false),
            },
        };
        Ok(true)
    }
    fn encode(&self) -> Out {
        self.0.clone()
    }
    fn is_zero(&self) -> bool {
        self.0 == Out::Null
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::yaml;

    #[test]
    fn values_keep_their_types_in_json() {
        let mut claims = Claims::default();
        let text = "{a: 1, b: '1', c: true, d: [x, 1.5, 0x10], e: {f: null}, g: 18446744073709551615, h: 2001-01-01}";
        yaml::read(text, &mut claims).unwrap();
        assert_eq!(
            Value::Object(claims.to_json()).to_string(),
            r#"{"a":1,"b":"1","c":true,"d":["x",1.5,16],"e":{"f":null},"g":18446744073709551615,"h":"2001-01-01"}"#
        );
    }
}
