//! Executes trees over a value, within bounds on time, output and nesting.
//! Order of evaluation, places in errors and their texts are those of Go's `text/template`.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::ast::{Arg, Branch, BranchKind, Command, List, Node, Pipe, Tree};
use super::call::Functions;
use super::format;
use super::value::Value;
use super::{OUTPUT_LEN_MAX, STEPS_MAX};
use crate::model::go;

/// Most levels of actions, templates and parentheses within each other while executing.
const DEPTH_MAX: usize = 250;

/// What stands for a key that a map does not have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MissingKey {
    /// Nothing, which prints as `<no value>`; Go's default.
    Invalid,
    /// The zero of the map's type (`missingkey=zero`), as Prometheus and Alertmanager ask for.
    #[default]
    Zero,
    /// An error (`missingkey=error`).
    Error,
}

/// Named trees that call each other.
#[derive(Clone, Debug, Default)]
pub(super) struct TreeSet(BTreeMap<String, Arc<Tree>>);

impl TreeSet {
    /// Adds trees. One that is empty does not replace one of the same name.
    pub(super) fn add(&mut self, trees: Vec<Tree>) {
        for tree in trees {
            if !tree.root.is_empty() || !self.0.contains_key(&tree.name) {
                self.0.insert(tree.name.clone(), Arc::new(tree));
            }
        }
    }

    pub(super) fn get(&self, name: &str) -> Option<&Tree> {
        self.0.get(name).map(|tree| &**tree)
    }
}

/// Why execution leaves what it is in.
pub(super) enum Stop {
    Break,
    Continue,
    /// The text of the error.
    Failed(String),
}

pub(super) type Done<T> = Result<T, Stop>;

/// The node that errors name.
#[derive(Clone, Copy)]
pub(super) enum Place<'t> {
    None,
    Node(&'t Node, usize),
    Pipe(&'t Pipe),
    Command(&'t Command),
    Arg(&'t Arg),
}

pub(super) struct Executor<'t> {
    trees: &'t TreeSet,
    pub(super) functions: &'t dyn Functions,
    pub(super) missing_key: MissingKey,
    tree: &'t Tree,
    place: Place<'t>,
    variables: Vec<(&'t str, Value)>,
    out: String,
    depth: usize,
    steps: usize,
}

/// Executes a tree of the set. The error is Go's text.
pub(super) fn execute(
    tree: &Tree,
    trees: &TreeSet,
    functions: &dyn Functions,
    missing_key: MissingKey,
    data: &Value,
) -> Result<String, String> {
    let mut executor = Executor {
        trees,
        functions,
        missing_key,
        tree,
        place: Place::None,
        variables: vec![("$", data.clone())],
        out: String::new(),
        depth: 0,
        steps: 0,
    };
    match executor.list(data, &tree.root) {
        Ok(()) => Ok(executor.out),
        Err(Stop::Failed(text)) => Err(text),
        // The parser lets these stand within `range` only.
        Err(Stop::Break | Stop::Continue) => Err("template: break or continue outside range".to_owned()),
    }
}

impl<'t> Executor<'t> {
    pub(super) fn at(&mut self, place: Place<'t>) {
        self.place = place;
    }

    pub(super) fn at_arg(&mut self, arg: &'t Arg) {
        self.place = Place::Arg(arg);
    }

    /// An error at the current place.
    pub(super) fn fail<T>(&self, text: &str) -> Done<T> {
        let (pos, context) = match self.place {
            Place::None => return Err(Stop::Failed(format!("template: {}: {text}", self.tree.name))),
            Place::Node(node, pos) => (pos, node.to_string()),
            Place::Pipe(pipe) => (pipe.pos, pipe.to_string()),
            Place::Command(command) => (command.pos, command.to_string()),
            Place::Arg(arg) => (arg.pos, arg.to_string()),
        };
        let before = self.tree.text.get(..pos).unwrap_or("");
        let line = 1 + before.matches('\n').count();
        let column = pos - before.rfind('\n').map_or(0, |at| at + 1);
        let (file, name) = (&self.tree.parse_name, go::quote(&self.tree.name));
        Err(Stop::Failed(format!("template: {file}:{line}:{column}: executing {name} at <{context}>: {text}")))
    }

    /// Counts work; an error once there was too much.
    pub(super) fn spend(&mut self, steps: usize) -> Done<()> {
        self.steps = self.steps.saturating_add(steps);
        if STEPS_MAX < self.steps {
            return self.fail(&format!("exceeded the limit of {STEPS_MAX} steps"));
        }
        Ok(())
    }

    pub(super) fn descend(&mut self) -> Done<()> {
        self.depth += 1;
        if DEPTH_MAX < self.depth {
            self.fail(&format!("exceeded maximum template depth ({DEPTH_MAX})"))
        } else {
            Ok(())
        }
    }

    pub(super) fn ascend(&mut self) {
        self.depth -= 1;
    }

    fn write(&mut self, text: &str) -> Done<()> {
        if OUTPUT_LEN_MAX < self.out.len() + text.len() {
            return self.fail(&format!("output exceeds the limit of {OUTPUT_LEN_MAX} bytes"));
        }
        self.out.push_str(text);
        Ok(())
    }

    fn list(&mut self, dot: &Value, list: &'t List) -> Done<()> {
        self.descend()?;
        for node in &list.0 {
            self.node(dot, node)?;
        }
        self.ascend();
        Ok(())
    }

    fn node(&mut self, dot: &Value, node: &'t Node) -> Done<()> {
        self.spend(1)?;
        match node {
            Node::Text { text } => self.write(text),
            Node::Action { pos, pipe } => {
                self.at(Place::Node(node, *pos));
                let value = self.pipe(dot, pipe)?;
                if !pipe.variables.is_empty() {
                    return Ok(());
                }
                self.at(Place::Node(node, *pos));
                match format::printed(&value) {
                    Some(text) => self.write(&text),
                    None => self.fail(&format!("output exceeds the limit of {OUTPUT_LEN_MAX} bytes")),
                }
            }
            Node::Branch(branch) if branch.kind == BranchKind::Range => self.range(dot, branch),
            Node::Branch(branch) => self.if_or_with(dot, branch),
            Node::Template { pos, name, pipe } => {
                self.at(Place::Node(node, *pos));
                self.template(dot, name, pipe.as_ref())
            }
            Node::Break => Err(Stop::Break),
            Node::Continue => Err(Stop::Continue),
        }
    }

    fn if_or_with(&mut self, dot: &Value, branch: &'t Branch) -> Done<()> {
        let mark = self.variables.len();
        let value = self.pipe(dot, &branch.pipe)?;
        if value.is_true() {
            let inner = if branch.kind == BranchKind::With { &value } else { dot };
            self.list(inner, &branch.list)?;
        } else if let Some(list) = &branch.else_list {
            self.list(dot, list)?;
        }
        self.variables.truncate(mark);
        Ok(())
    }

    fn range(&mut self, dot: &Value, branch: &'t Branch) -> Done<()> {
        let outer = self.variables.len();
        let depth = self.depth;
        let value = self.pipe(dot, &branch.pipe)?;
        let ran = match self.iterations(&value, branch) {
            Err(Stop::Break) => true,
            other => other?,
        };
        self.depth = depth;
        if !ran && let Some(list) = &branch.else_list {
            self.list(dot, list)?;
        }
        self.variables.truncate(outer);
        Ok(())
    }

    /// Runs the body for each element; false if there was none.
    fn iterations(&mut self, value: &Value, branch: &'t Branch) -> Done<bool> {
        match value.indirect() {
            Value::Int(_) | Value::Uint(_) | Value::Byte(_) | Value::Duration(_) | Value::Named { .. }
                if 1 < branch.pipe.variables.len() =>
            {
                let shown = format::printed(value).unwrap_or_default();
                self.fail(&format!("can't use {shown} to iterate over more than one variable"))
            }
            Value::Int(count) => self.count(*count, Value::Int, branch),
            Value::Duration(count) => self.count(*count, Value::Duration, branch),
            Value::Named { number, .. } => self.count(*number, Value::Int, branch),
            Value::Byte(count) => self.count(i64::from(*count), Value::Int, branch),
            Value::Uint(count) => self.count(i64::try_from(*count).unwrap_or(i64::MAX), Value::Int, branch),
            Value::List(list) => {
                for (index, item) in (0..).zip(list.items.iter()) {
                    self.iteration(Value::Int(index), item, branch)?;
                }
                Ok(!list.items.is_empty())
            }
            Value::Map(map) => {
                for (key, item) in map.entries.iter() {
                    self.iteration(Value::Str(Arc::clone(key)), item, branch)?;
                }
                Ok(!map.entries.is_empty())
            }
            Value::Nil | Value::NilInterface => Ok(false),
            other => {
                let shown = format::printed(other).unwrap_or_default();
                self.fail(&format!("range can't iterate over {shown}"))
            }
        }
    }

    fn count(&mut self, count: i64, wrap: fn(i64) -> Value, branch: &'t Branch) -> Done<bool> {
        for number in 0..count {
            self.iteration(Value::Nil, &wrap(number), branch)?;
        }
        Ok(0 < count)
    }

    fn iteration(&mut self, index: Value, item: &Value, branch: &'t Branch) -> Done<()> {
        self.spend(1)?;
        let (mark, depth) = (self.variables.len(), self.depth);
        match (&*branch.pipe.variables, branch.pipe.is_assign) {
            ([], _) => {}
            ([only], true) => self.set_variable(only, item.clone())?,
            ([first, second, ..], true) => {
                self.set_variable(first, index)?;
                self.set_variable(second, item.clone())?;
            }
            // The pipeline has pushed the variables.
            ([_], false) => self.set_top(1, item.clone()),
            ([..], false) => {
                self.set_top(1, item.clone());
                self.set_top(2, index);
            }
        }
        match self.list(item, &branch.list) {
            Err(Stop::Continue) => self.depth = depth,
            other => other?,
        }
        self.variables.truncate(mark);
        Ok(())
    }

    fn set_top(&mut self, from_end: usize, value: Value) {
        let index = self.variables.len().checked_sub(from_end);
        if let Some((_, slot)) = index.and_then(|index| self.variables.get_mut(index)) {
            *slot = value;
        }
    }

    fn set_variable(&mut self, name: &str, value: Value) -> Done<()> {
        match self.variables.iter_mut().rev().find(|(known, _)| *known == name) {
            Some((_, slot)) => {
                *slot = value;
                Ok(())
            }
            None => self.fail(&format!("undefined variable: {name}")),
        }
    }

    pub(super) fn variable(&self, name: &str) -> Done<Value> {
        match self.variables.iter().rev().find(|(known, _)| *known == name) {
            Some((_, value)) => Ok(value.clone()),
            None => self.fail(&format!("undefined variable: {name}")),
        }
    }

    fn template(&mut self, dot: &Value, name: &str, pipe: Option<&'t Pipe>) -> Done<()> {
        let Some(tree) = self.trees.get(name) else {
            return self.fail(&format!("template {} not defined", go::quote(name)));
        };
        self.descend()?;
        let inner = match pipe {
            Some(pipe) => self.pipe(dot, pipe)?,
            None => Value::Nil,
        };
        let outer = std::mem::replace(&mut self.variables, vec![("$", inner.clone())]);
        let caller = std::mem::replace(&mut self.tree, tree);
        self.list(&inner, &tree.root)?;
        (self.tree, self.variables) = (caller, outer);
        self.ascend();
        Ok(())
    }

    /// The value of a pipeline; its variables are set.
    pub(super) fn pipe(&mut self, dot: &Value, pipe: &'t Pipe) -> Done<Value> {
        self.at(Place::Pipe(pipe));
        let mut value = None;
        for command in &pipe.commands {
            let result = self.command(dot, command, value)?;
            value = Some(if matches!(result, Value::NilInterface) { Value::Nil } else { result });
        }
        let value = value.unwrap_or(Value::Nil);
        for name in &pipe.variables {
            if pipe.is_assign {
                self.set_variable(name, value.clone())?;
            } else {
                self.variables.push((name, value.clone()));
            }
        }
        Ok(value)
    }
}
