//! Syntax tree of a Go regular expression, and what can be read off it: literal sets, prefixes, the program's input.

use regex_syntax::hir::{Capture, Class, ClassUnicode, Hir, Look, Repetition};

use super::class;

/// Most members that a set of texts may get by multiplying out; written alternatives do not count.
const PRODUCT_MAX: usize = 256;
/// Most bytes in a set of texts.
const SET_BYTES_MAX: usize = 4 << 20;

/// A node. Letter case is resolved: what folds is a class.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Ast {
    Empty,
    Literal(char),
    Class(ClassUnicode),
    /// Any character, line feeds included.
    AnyChar,
    AnyCharNotNl,
    Look(Look),
    /// Group number from 1 on.
    Capture(u32, Box<Ast>),
    Repeat {
        min: u32,
        max: Option<u32>,
        greedy: bool,
        sub: Box<Ast>,
    },
    Concat(Vec<Ast>),
    Alternate(Vec<Ast>),
}

impl Ast {
    pub(super) fn concat(mut parts: Vec<Self>) -> Self {
        match parts.len() {
            0 => Self::Empty,
            1 => parts.remove(0),
            _ => Self::Concat(parts),
        }
    }

    pub(super) fn alternate(mut parts: Vec<Self>) -> Self {
        if parts.len() == 1 { parts.remove(0) } else { Self::Alternate(parts) }
    }

    /// A literal, or the class of its case variants.
    pub(super) fn literal(rune: u32, fold: bool) -> Self {
        Self::class(class::range(rune, rune, fold))
    }

    /// A class; one of a single character is a literal.
    pub(super) fn class(class: ClassUnicode) -> Self {
        match class.ranges() {
            [only] if only.start() == only.end() => Self::Literal(only.start()),
            _ => Self::Class(class),
        }
    }

    /// Size of the program that Go would build, in instructions (`regexp/syntax` `calcSize`).
    pub(super) fn program_len(&self) -> u64 {
        let len = match self {
            Self::Capture(_, sub) => 2 + sub.program_len(),
            Self::Repeat { min, max, sub, .. } => {
                let sub = sub.program_len();
                let (min, max) = (u64::from(*min), max.map(u64::from));
                match max {
                    None if min == 0 => sub.saturating_add(2),
                    None => sub.saturating_mul(min).saturating_add(1),
                    Some(max) => sub.saturating_mul(max).saturating_add(max.saturating_sub(min)),
                }
            }
            Self::Concat(parts) => parts.iter().fold(0, |sum: u64, p| sum.saturating_add(p.program_len())),
            Self::Alternate(parts) => {
                parts.iter().fold(parts.len() as u64 - 1, |sum, p| sum.saturating_add(p.program_len()))
            }
            _ => 1,
        };
        len.max(1)
    }

    /// True unless counted repetitions multiply to more than `n` copies of something (`repeatIsValid`).
    pub(super) fn repeats_at_most(&self, n: u32) -> bool {
        match self {
            Self::Capture(_, sub) => sub.repeats_at_most(n),
            Self::Repeat { min, max, sub, .. } => {
                let copies = match max {
                    Some(0) => return true,
                    Some(max) => *max,
                    None => *min,
                };
                // `*`, `+` and `?` are no counted repetitions.
                if copies <= 1 {
                    return sub.repeats_at_most(n);
                }
                copies <= n && sub.repeats_at_most(n / copies)
            }
            Self::Concat(parts) | Self::Alternate(parts) => parts.iter().all(|p| p.repeats_at_most(n)),
            _ => true,
        }
    }

    /// The form that the automaton is built from.
    pub(super) fn to_hir(&self) -> Hir {
        match self {
            Self::Empty => Hir::empty(),
            Self::Literal(c) => Hir::literal(c.to_string().into_bytes()),
            Self::Class(class) => Hir::class(Class::Unicode(class.clone())),
            Self::AnyChar => Hir::class(Class::Unicode(class::range(0, u32::from(char::MAX), false))),
            Self::AnyCharNotNl => {
                let mut class = class::range(u32::from('\n'), u32::from('\n'), false);
                class.negate();
                Hir::class(Class::Unicode(class))
            }
            Self::Look(look) => Hir::look(*look),
            Self::Capture(index, sub) => {
                // Names stay outside: Go allows one name twice, the automaton does not.
                Hir::capture(Capture { index: *index, name: None, sub: Box::new(sub.to_hir()) })
            }
            Self::Repeat { min, max, greedy, sub } => {
                Hir::repetition(Repetition { min: *min, max: *max, greedy: *greedy, sub: Box::new(sub.to_hir()) })
            }
            Self::Concat(parts) => Hir::concat(parts.iter().map(Self::to_hir).collect()),
            Self::Alternate(parts) => Hir::alternation(parts.iter().map(Self::to_hir).collect()),
        }
    }

    /// The tree without groups, which do not matter for yes or no, and with its concatenations flat.
    pub(super) fn simplified(&self) -> Self {
        match self {
            Self::Capture(_, sub) => sub.simplified(),
            Self::Repeat { min, max, greedy, sub } => {
                Self::Repeat { min: *min, max: *max, greedy: *greedy, sub: Box::new(sub.simplified()) }
            }
            Self::Concat(parts) => {
                let mut flat = Vec::with_capacity(parts.len());
                for part in parts {
                    match part.simplified() {
                        Self::Concat(inner) => flat.extend(inner),
                        Self::Empty => {}
                        other => flat.push(other),
                    }
                }
                Self::concat(flat)
            }
            Self::Alternate(parts) => Self::alternate(parts.iter().map(Self::simplified).collect()),
            other => other.clone(),
        }
    }

    /// All texts that match, if they are few and no position is asked for; without repeats, in order of preference.
    pub(super) fn finite_set(&self) -> Option<Vec<String>> {
        let mut set = self.texts()?;
        let mut seen = std::collections::HashSet::with_capacity(set.len());
        set.retain(|text| seen.insert(text.clone()));
        Some(set)
    }

    fn texts(&self) -> Option<Vec<String>> {
        match self {
            Self::Empty => Some(vec![String::new()]),
            Self::Literal(c) => Some(vec![c.to_string()]),
            Self::Class(class) => class_texts(class),
            Self::Capture(_, sub) => sub.texts(),
            Self::Repeat { min, max: Some(max), sub, .. } if *max <= 8 => {
                let once = sub.texts()?;
                let mut all = Vec::new();
                for count in *min..=*max {
                    let mut texts = vec![String::new()];
                    for _ in 0..count {
                        texts = product(&texts, &once)?;
                    }
                    all.extend(texts);
                    if all.len() > PRODUCT_MAX {
                        return None;
                    }
                }
                Some(all)
            }
            Self::Concat(parts) => {
                let mut texts = vec![String::new()];
                for part in parts {
                    texts = product(&texts, &part.texts()?)?;
                }
                Some(texts)
            }
            Self::Alternate(parts) => {
                let mut all = Vec::with_capacity(parts.len());
                let mut bytes = 0;
                for part in parts {
                    let texts = part.texts()?;
                    bytes += texts.iter().map(String::len).sum::<usize>();
                    if bytes > SET_BYTES_MAX || all.len() + texts.len() > parts.len() + PRODUCT_MAX {
                        return None;
                    }
                    all.extend(texts);
                }
                Some(all)
            }
            _ => None,
        }
    }

    /// A text that every match starts with, and whether it is the whole of the match.
    pub(super) fn literal_prefix(&self) -> (String, bool) {
        match self {
            Self::Empty => (String::new(), true),
            Self::Literal(c) => (c.to_string(), true),
            Self::Capture(_, sub) => sub.literal_prefix(),
            Self::Concat(parts) => {
                let mut prefix = String::new();
                for part in parts {
                    let (text, whole) = part.literal_prefix();
                    prefix.push_str(&text);
                    if !whole {
                        return (prefix, false);
                    }
                }
                (prefix, true)
            }
            Self::Alternate(parts) => {
                let mut common: Option<String> = None;
                for part in parts {
                    let (text, _) = part.literal_prefix();
                    common = Some(match common {
                        None => text,
                        Some(before) => {
                            before.chars().zip(text.chars()).take_while(|(a, b)| a == b).map(|(a, _)| a).collect()
                        }
                    });
                }
                (common.unwrap_or_default(), false)
            }
            Self::Repeat { min, sub, .. } if *min > 0 => (sub.literal_prefix().0, false),
            _ => (String::new(), false),
        }
    }
}

fn class_texts(class: &ClassUnicode) -> Option<Vec<String>> {
    let count: u32 = class.ranges().iter().map(|r| u32::from(r.end()) - u32::from(r.start()) + 1).sum();
    if usize::try_from(count).ok()? > PRODUCT_MAX {
        return None;
    }
    Some(class.ranges().iter().flat_map(|r| r.start()..=r.end()).map(String::from).collect())
}

fn product(left: &[String], right: &[String]) -> Option<Vec<String>> {
    let count = left.len() * right.len();
    // A single text before or after a set does not make it larger.
    if count > PRODUCT_MAX && left.len() > 1 && right.len() > 1 {
        return None;
    }
    let bytes: usize = left.iter().map(|l| l.len() * right.len()).sum::<usize>()
        + right.iter().map(|r| r.len() * left.len()).sum::<usize>();
    if bytes > SET_BYTES_MAX {
        return None;
    }
    Some(left.iter().flat_map(|l| right.iter().map(move |r| format!("{l}{r}"))).collect())
}
