//! Matching without an automaton, for the expressions that selectors and relabelling mostly hold: literals, lists of
//! literals, and literals with `.*` or `.+` on either side.

use hashbrown::HashSet;
use memchr::memmem::Finder;
use regex_syntax::hir::Look;

use super::ast::Ast;

/// Up to this many texts are compared one by one; more are looked up by hash.
const LINEAR_MAX: usize = 8;
/// Most alternatives that are tried one after the other.
const ALTERNATIVES_MAX: usize = 32;

/// A complete decision procedure for an expression that is anchored on both sides.
#[derive(Debug)]
pub(super) enum Fast {
    /// The whole text is one of these; in order of the expression, without repeats.
    OneOf { texts: Vec<String>, lookup: Option<HashSet<String>> },
    /// The text holds one of these, with at least so many characters before it and behind it.
    Around { before: Wild, texts: Vec<Finder<'static>>, behind: Wild },
    /// One of these matches.
    Any(Vec<Fast>),
}

/// What may stand beside a literal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wild {
    Nothing,
    /// `.*`
    Some,
    /// `.+`
    AtLeastOne,
}

impl Fast {
    /// The procedure for `inner`, the simplified tree between the anchors, if there is one.
    pub(super) fn new(inner: &Ast) -> Option<Self> {
        if let Some(texts) = inner.finite_set() {
            let lookup = (texts.len() > LINEAR_MAX).then(|| texts.iter().cloned().collect());
            return Some(Self::OneOf { texts, lookup });
        }
        match inner {
            Ast::Alternate(parts) if parts.len() <= ALTERNATIVES_MAX => {
                parts.iter().map(Self::new).collect::<Option<Vec<_>>>().map(Self::Any)
            }
            Ast::Concat(parts) => Self::around(parts),
            other => Self::around(std::slice::from_ref(other)),
        }
    }

    fn around(parts: &[Ast]) -> Option<Self> {
        let (before, parts) = match parts {
            [first, rest @ ..] if wild(first) != Wild::Nothing => (wild(first), rest),
            _ => (Wild::Nothing, parts),
        };
        let (behind, parts) = match parts {
            [rest @ .., last] if wild(last) != Wild::Nothing => (wild(last), rest),
            _ => (Wild::Nothing, parts),
        };
        let texts = Ast::concat(parts.to_vec()).finite_set()?;
        if texts.len() > ALTERNATIVES_MAX {
            return None;
        }
        let texts = texts.iter().map(|text| Finder::new(text).into_owned()).collect();
        Some(Self::Around { before, texts, behind })
    }

    /// True if the text matches.
    pub(super) fn is_match(&self, text: &str) -> bool {
        match self {
            Self::OneOf { lookup: Some(lookup), .. } => lookup.contains(text),
            Self::OneOf { texts, lookup: None } => texts.iter().any(|t| t == text),
            Self::Around { before, texts, behind } => is_around(*before, texts, *behind, text),
            Self::Any(parts) => parts.iter().any(|p| p.is_match(text)),
        }
    }

    /// All texts that match, if the expression is a list.
    pub(super) fn set(&self) -> Option<&[String]> {
        match self {
            Self::OneOf { texts, .. } => Some(texts),
            _ => None,
        }
    }
}

/// The tree between `^` and `$`, if the expression has the form `^…$`.
pub(super) fn between_anchors(simplified: &Ast) -> Option<Ast> {
    let Ast::Concat(parts) = simplified else { return None };
    let starts = parts.iter().take_while(|p| **p == Ast::Look(Look::Start)).count();
    let inner = parts.get(starts..)?;
    let ends = inner.iter().rev().take_while(|p| **p == Ast::Look(Look::End)).count();
    let inner = inner.get(..inner.len() - ends)?;
    (0 < starts && 0 < ends).then(|| Ast::concat(inner.to_vec()))
}

fn wild(part: &Ast) -> Wild {
    match part {
        Ast::Repeat { min: 0, max: None, sub, .. } if **sub == Ast::AnyChar => Wild::Some,
        Ast::Repeat { min: 1, max: None, sub, .. } if **sub == Ast::AnyChar => Wild::AtLeastOne,
        _ => Wild::Nothing,
    }
}

fn is_around(before: Wild, texts: &[Finder<'static>], behind: Wild, text: &str) -> bool {
    // Taking the obliged characters off both ends leaves what the literal and the optional rest share.
    let mut chars = text.chars();
    if before == Wild::AtLeastOne && chars.next().is_none() || behind == Wild::AtLeastOne && chars.next_back().is_none()
    {
        return false;
    }
    let rest = chars.as_str().as_bytes();
    texts.iter().any(|finder| match (before, behind) {
        (Wild::Nothing, _) => rest.starts_with(finder.needle()),
        (_, Wild::Nothing) => rest.ends_with(finder.needle()),
        _ => finder.find(rest).is_some(),
    })
}
