//! Names that readers of old formats do not know, written so that they do. The schemes are those of Prometheus's
//! `escaping` parameter in `Accept` and `Content-Type` headers.

use std::borrow::Cow;
use std::fmt::Write as _;

use crate::model::labels::is_legacy_metric_name;

/// An escaping scheme.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Escaping {
    /// Names stand as they are, in quotes where need be.
    AllowUtf8,
    /// Each character that is not known becomes `_`.
    #[default]
    Underscores,
    /// `_` becomes `__`, a dot `_dot_`, any other character that is not known `__`.
    Dots,
    /// Names that are not known get `U__` ahead, `_` becomes `__`, and characters that are not known their number in
    /// hexadecimal between underscores.
    Values,
}

impl Escaping {
    /// The scheme of that name.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::AllowUtf8, Self::Underscores, Self::Dots, Self::Values]
            .into_iter()
            .find(|scheme| scheme.as_str() == name)
    }

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AllowUtf8 => "allow-utf-8",
            Self::Underscores => "underscores",
            Self::Dots => "dots",
            Self::Values => "values",
        }
    }

    /// The name of a metric or label in this scheme.
    pub fn escape(self, name: &str) -> Cow<'_, str> {
        let as_is = match self {
            Self::AllowUtf8 => true,
            Self::Underscores | Self::Values => is_legacy_metric_name(name),
            Self::Dots => false,
        };
        if as_is || name.is_empty() {
            return Cow::Borrowed(name);
        }
        let mut out = String::with_capacity(name.len() + 8);
        if self == Self::Values {
            out.push_str("U__");
        }
        for (at, c) in name.char_indices() {
            let known = c == '_' || c == ':' || c.is_ascii_alphabetic() || (c.is_ascii_digit() && 0 < at);
            match (self, c) {
                (Self::Dots | Self::Values, '_') => out.push_str("__"),
                (Self::Dots, '.') => out.push_str("_dot_"),
                _ if known => out.push(c),
                (Self::Dots, _) => out.push_str("__"),
                (Self::Values, _) => {
                    let _ = write!(out, "_{:x}_", u32::from(c));
                }
                (Self::Underscores | Self::AllowUtf8, _) => out.push('_'),
            }
        }
        Cow::Owned(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_scheme_has_its_own_way() {
        for (name, underscores, dots, values) in [
            ("up", "up", "up", "up"),
            ("a_b", "a_b", "a__b", "a_b"),
            ("a.b_c", "a_b_c", "a_dot_b__c", "U__a_2e_b__c"),
            ("1é", "__", "____", "U___31__e9_"),
            ("", "", "", ""),
        ] {
            assert_eq!(Escaping::AllowUtf8.escape(name), name);
            assert_eq!(Escaping::Underscores.escape(name), underscores, "{name}");
            assert_eq!(Escaping::Dots.escape(name), dots, "{name}");
            assert_eq!(Escaping::Values.escape(name), values, "{name}");
        }
    }

    #[test]
    fn names_of_schemes() {
        assert_eq!(Escaping::parse("dots"), Some(Escaping::Dots));
        assert_eq!(Escaping::parse("Dots"), None);
    }
}
