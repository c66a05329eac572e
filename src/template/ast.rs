//! The tree of a template. Nodes print as they are shown in error texts, and carry the byte at which errors place them.

use std::fmt::{Display, Formatter, Result};
use std::sync::Arc;

use crate::model::go;

/// A named template.
#[derive(Debug)]
pub(super) struct Tree {
    /// Its name, by which `template` calls it.
    pub(super) name: String,
    /// Name of the text that it stands in, for errors.
    pub(super) parse_name: Arc<str>,
    /// The text that it stands in.
    pub(super) text: Arc<str>,
    pub(super) root: List,
}

/// Nodes in order.
#[derive(Debug, Default)]
pub(super) struct List(pub(super) Vec<Node>);

impl List {
    /// True if it holds nothing but white space.
    pub(super) fn is_empty(&self) -> bool {
        self.0.iter().all(|node| matches!(node, Node::Text { text } if text.trim().is_empty()))
    }
}

/// What is executed one after the other.
#[derive(Debug)]
pub(super) enum Node {
    Text { text: String },
    Action { pos: usize, pipe: Pipe },
    Branch(Box<Branch>),
    Template { pos: usize, name: String, pipe: Option<Pipe> },
    Break,
    Continue,
}

/// `if`, `with` or `range`.
#[derive(Debug)]
pub(super) struct Branch {
    pub(super) kind: BranchKind,
    pub(super) pipe: Pipe,
    pub(super) list: List,
    pub(super) else_list: Option<List>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BranchKind {
    If,
    With,
    Range,
}

impl BranchKind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::If => "if",
            Self::With => "with",
            Self::Range => "range",
        }
    }
}

/// Commands, each of which gives its value to the next as last argument.
#[derive(Debug)]
pub(super) struct Pipe {
    pub(super) pos: usize,
    /// True if variables that exist are set.
    pub(super) is_assign: bool,
    /// Names of the variables that are declared or set, with their dollar signs.
    pub(super) variables: Vec<String>,
    pub(super) commands: Vec<Command>,
}

/// A value, or a function with its arguments.
#[derive(Debug)]
pub(super) struct Command {
    pub(super) pos: usize,
    /// Never empty.
    pub(super) args: Vec<Arg>,
}

/// A word of a command.
#[derive(Debug)]
pub(super) struct Arg {
    pub(super) pos: usize,
    pub(super) kind: ArgKind,
}

#[derive(Debug)]
pub(super) enum ArgKind {
    Bool(bool),
    Dot,
    Nil,
    /// `.A.B`
    Field(Vec<String>),
    /// `$x.A.B`; the first name is that of the variable.
    Variable(Vec<String>),
    /// `(…).A.B`
    Chain(Box<Arg>, Vec<String>),
    /// A function.
    Identifier(String),
    Number(Number),
    Str {
        quoted: String,
        text: Arc<str>,
    },
    /// `(…)`
    Pipe(Box<Pipe>),
}

impl ArgKind {
    /// True for what cannot take the value of the command before it.
    pub(super) fn is_constant(&self) -> bool {
        matches!(self, Self::Bool(_) | Self::Dot | Self::Nil | Self::Number(_) | Self::Str { .. })
    }
}

/// A number in each of the types that can hold it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Number {
    /// As written.
    pub(super) text: String,
    pub(super) int: Option<i64>,
    pub(super) uint: Option<u64>,
    pub(super) float: Option<f64>,
}

impl Display for List {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        self.0.iter().try_for_each(|node| node.fmt(f))
    }
}

impl Display for Node {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Self::Text { text } => f.write_str(text),
            Self::Action { pipe, .. } => write!(f, "{{{{{pipe}}}}}"),
            Self::Branch(branch) => {
                write!(f, "{{{{{} {}}}}}{}", branch.kind.name(), branch.pipe, branch.list)?;
                if let Some(list) = &branch.else_list {
                    write!(f, "{{{{else}}}}{list}")?;
                }
                f.write_str("{{end}}")
            }
            Self::Template { name, pipe, .. } => {
                write!(f, "{{{{template {}", go::quote(name))?;
                if let Some(pipe) = pipe {
                    write!(f, " {pipe}")?;
                }
                f.write_str("}}")
            }
            Self::Break => f.write_str("{{break}}"),
            Self::Continue => f.write_str("{{continue}}"),
        }
    }
}

impl Display for Pipe {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        if !self.variables.is_empty() {
            write!(f, "{} {} ", self.variables.join(", "), if self.is_assign { "=" } else { ":=" })?;
        }
        for (index, command) in self.commands.iter().enumerate() {
            if 0 < index {
                f.write_str(" | ")?;
            }
            command.fmt(f)?;
        }
        Ok(())
    }
}

impl Display for Command {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        for (index, arg) in self.args.iter().enumerate() {
            if 0 < index {
                f.write_str(" ")?;
            }
            arg.in_command(f)?;
        }
        Ok(())
    }
}

impl Arg {
    /// Pipelines stand in parentheses within others, but not by themselves.
    fn in_command(&self, f: &mut Formatter<'_>) -> Result {
        match &self.kind {
            ArgKind::Pipe(pipe) => write!(f, "({pipe})"),
            _ => self.fmt(f),
        }
    }
}

impl Display for Arg {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match &self.kind {
            ArgKind::Bool(value) => value.fmt(f),
            ArgKind::Dot => f.write_str("."),
            ArgKind::Nil => f.write_str("nil"),
            ArgKind::Field(names) => names.iter().try_for_each(|name| write!(f, ".{name}")),
            ArgKind::Variable(names) => f.write_str(&names.join(".")),
            ArgKind::Chain(arg, names) => {
                arg.in_command(f)?;
                names.iter().try_for_each(|name| write!(f, ".{name}"))
            }
            ArgKind::Identifier(name) => f.write_str(name),
            ArgKind::Number(number) => f.write_str(&number.text),
            ArgKind::Str { quoted, .. } => f.write_str(quoted),
            ArgKind::Pipe(pipe) => pipe.fmt(f),
        }
    }
}
