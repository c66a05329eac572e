//! Commands and their words: fields, methods, functions, and the types of what functions are given.
//! Checks and error texts are those of Go's `text/template`, where reflection does the same.

use super::ast::{Arg, ArgKind, Command, Number};
use super::exec::{Done, Executor, MissingKey, Place};
use super::value::{ListKind, Value};
use super::{OUTPUT_LEN_MAX, builtins, methods};
use crate::model::go;

/// The type of a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Type {
    /// `interface {}`
    Any,
    /// `reflect.Value`, which the built-in functions take.
    Reflect,
    Str,
    Int,
    Duration,
    Time,
    Strings,
    Anys,
    QueryResult,
    Sample,
}

impl Type {
    fn name(self) -> &'static str {
        match self {
            Self::Any => "interface {}",
            Self::Reflect => "reflect.Value",
            Self::Str => "string",
            Self::Int => "int",
            Self::Duration => "time.Duration",
            Self::Time => "time.Time",
            Self::Strings => "[]string",
            Self::Anys => "[]interface {}",
            Self::QueryResult => "template.queryResult",
            Self::Sample => "*template.sample",
        }
    }

    fn can_be_nil(self) -> bool {
        !matches!(self, Self::Str | Self::Int | Self::Duration | Self::Time)
    }

    fn takes(self, value: &Value) -> bool {
        match self {
            Self::Any | Self::Reflect => true,
            Self::Str => matches!(value, Value::Str(_)),
            Self::Int => matches!(value, Value::Int(_)),
            Self::Duration => matches!(value, Value::Duration(_)),
            Self::Time => matches!(value, Value::Time(_)),
            Self::Strings => {
                matches!(value, Value::List(list) if matches!(list.kind, ListKind::Strings | ListKind::NamedStrings))
            }
            Self::Anys => matches!(value, Value::List(list) if list.kind == ListKind::Any),
            Self::QueryResult => matches!(value, Value::List(list) if list.kind == ListKind::QueryResult),
            Self::Sample => value.is_sample(),
        }
    }
}

/// What a function takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Signature {
    pub(super) fixed: &'static [Type],
    /// The type of any number of further arguments.
    pub(super) rest: Option<Type>,
}

impl Signature {
    pub(super) const fn new(fixed: &'static [Type]) -> Self {
        Self { fixed, rest: None }
    }

    pub(super) const fn variadic(fixed: &'static [Type], rest: Type) -> Self {
        Self { fixed, rest: Some(rest) }
    }

    fn param(&self, index: usize) -> Type {
        self.fixed.get(index).copied().or(self.rest).unwrap_or(Type::Any)
    }
}

/// Functions besides the built-in ones.
pub(super) trait Functions {
    /// What the function takes; `None` if there is no such function.
    fn signature(&self, name: &str) -> Option<Signature>;
    /// The steps that a call counts for, beyond those for the size of its arguments.
    fn steps(&self, name: &str, args: &[Value]) -> usize;
    /// Calls it with arguments that fit its signature. Where a type can be nil, the value may be nil.
    fn call(&self, name: &str, args: &[Value]) -> Result<Value, String>;
}

/// What is called.
enum Callee<'a> {
    Builtin,
    Function,
    Method(&'a Value),
}

impl<'t> Executor<'t> {
    /// The value of a command; `last` is that of the command before it.
    pub(super) fn command(&mut self, dot: &Value, command: &'t Command, last: Option<Value>) -> Done<Value> {
        let Some(first) = command.args.first() else { return self.fail("empty command") };
        let args = command.args.as_slice();
        match &first.kind {
            ArgKind::Field(names) => {
                self.at_arg(first);
                return self.field_chain(dot, dot, first, names, args, last);
            }
            ArgKind::Chain(inner, names) => return self.chain(dot, first, inner, names, args, last),
            ArgKind::Identifier(name) => {
                self.at_arg(first);
                return self.function(dot, Place::Command(command), name, args, last);
            }
            ArgKind::Variable(names) => return self.variable_chain(dot, first, names, args, last),
            ArgKind::Pipe(pipe) => {
                self.not_a_function(args, last.as_ref())?;
                self.descend()?;
                let value = self.pipe(dot, pipe)?;
                self.ascend();
                return Ok(value);
            }
            _ => {}
        }
        self.at_arg(first);
        self.not_a_function(args, last.as_ref())?;
        match &first.kind {
            ArgKind::Dot => Ok(dot.clone()),
            ArgKind::Nil => self.fail("nil is not a command"),
            _ => self.constant(first),
        }
    }

    fn not_a_function(&self, args: &[Arg], last: Option<&Value>) -> Done<()> {
        match args.first() {
            Some(first) if 1 < args.len() || last.is_some() => {
                self.fail(&format!("can't give argument to non-function {first}"))
            }
            _ => Ok(()),
        }
    }

    /// A constant where no type is asked for.
    fn constant(&mut self, arg: &'t Arg) -> Done<Value> {
        self.at_arg(arg);
        match &arg.kind {
            ArgKind::Bool(value) => Ok(Value::Bool(*value)),
            ArgKind::Str { text, .. } => Ok(Value::Str(text.clone())),
            ArgKind::Number(number) => match ideal(number) {
                Some(value) => Ok(value),
                None => self.fail(&format!("{} overflows int", number.text)),
            },
            _ => self.fail(&format!("can't handle assignment of {arg} to empty interface argument")),
        }
    }

    fn chain(
        &mut self,
        dot: &Value,
        arg: &'t Arg,
        inner: &'t Arg,
        names: &'t [String],
        args: &'t [Arg],
        last: Option<Value>,
    ) -> Done<Value> {
        self.at_arg(arg);
        if matches!(inner.kind, ArgKind::Nil) {
            return self.fail(&format!("indirection through explicit nil in {arg}"));
        }
        let value = self.argument(dot, Type::Any, inner)?;
        self.field_chain(dot, &value, arg, names, args, last)
    }

    fn variable_chain(
        &mut self,
        dot: &Value,
        arg: &'t Arg,
        names: &'t [String],
        args: &'t [Arg],
        last: Option<Value>,
    ) -> Done<Value> {
        self.at_arg(arg);
        let Some((name, fields)) = names.split_first() else { return self.fail("empty variable") };
        let value = self.variable(name)?;
        if fields.is_empty() {
            self.not_a_function(args, last.as_ref())?;
            return Ok(value);
        }
        self.field_chain(dot, &value, arg, fields, args, last)
    }

    /// Walks along the names; the last one gets the arguments.
    fn field_chain(
        &mut self,
        dot: &Value,
        receiver: &Value,
        node: &'t Arg,
        names: &'t [String],
        args: &'t [Arg],
        last: Option<Value>,
    ) -> Done<Value> {
        let Some((final_name, before)) = names.split_last() else { return self.fail("empty field") };
        let mut receiver = receiver.clone();
        let mut type_name = receiver.type_name();
        for name in before {
            let inner = self.field(dot, name, node, &[], None, (&receiver, &type_name))?;
            type_name = if receiver.hides_type_of(name) { "interface {}".to_owned() } else { inner.type_name() };
            receiver = inner;
        }
        self.field(dot, final_name, node, args, last, (&receiver, &type_name))
    }

    fn field(
        &mut self,
        dot: &Value,
        name: &'t str,
        node: &'t Arg,
        args: &'t [Arg],
        last: Option<Value>,
        (receiver, type_name): (&Value, &str),
    ) -> Done<Value> {
        if matches!(receiver, Value::Nil) {
            if self.missing_key == MissingKey::Error {
                return self.fail(&format!("nil data; no entry for key {}", go::quote(name)));
            }
            return Ok(Value::Nil);
        }
        if matches!(receiver, Value::NilInterface) {
            return self.fail(&format!("nil pointer evaluating interface {{}}.{name}"));
        }
        let inner = receiver.indirect();
        if let Some(signature) = methods::signature(inner, name) {
            return self.call(dot, Callee::Method(inner), signature, Place::Arg(node), name, args, last);
        }
        let has_args = 1 < args.len() || last.is_some();
        match inner {
            Value::Struct(record) => {
                if let Some(value) = record.field(name) {
                    if has_args {
                        return self.fail(&format!("{name} has arguments but cannot be invoked as function"));
                    }
                    return Ok(value.clone());
                }
            }
            Value::Map(map) => {
                if has_args {
                    return self.fail(&format!("{name} is not a method but has arguments"));
                }
                return match (map.entries.get(name), self.missing_key) {
                    (Some(value), _) => Ok(value.clone()),
                    (None, MissingKey::Invalid) => Ok(Value::Nil),
                    (None, MissingKey::Zero) => Ok(map.zero()),
                    (None, MissingKey::Error) => self.fail(&format!("map has no entry for key {}", go::quote(name))),
                };
            }
            _ => {}
        }
        self.fail(&format!("can't evaluate field {name} in type {type_name}"))
    }

    fn function(
        &mut self,
        dot: &Value,
        node: Place<'t>,
        name: &'t str,
        args: &'t [Arg],
        last: Option<Value>,
    ) -> Done<Value> {
        if let Some(signature) = self.functions.signature(name) {
            return self.call(dot, Callee::Function, signature, node, name, args, last);
        }
        match builtins::signature(name) {
            Some(signature) => self.call(dot, Callee::Builtin, signature, node, name, args, last),
            None => self.fail(&format!("{} is not a defined function", go::quote(name))),
        }
    }

    #[allow(clippy::too_many_arguments, reason = "the parts of a call, which Go's `evalCall` takes as well")]
    fn call(
        &mut self,
        dot: &Value,
        callee: Callee<'_>,
        signature: Signature,
        node: Place<'t>,
        name: &'t str,
        args: &'t [Arg],
        last: Option<Value>,
    ) -> Done<Value> {
        // The first word is the function itself.
        let args = args.get(1..).unwrap_or(&[]);
        let given = args.len() + usize::from(last.is_some());
        let wanted = signature.fixed.len();
        if signature.rest.is_some() && given < wanted {
            return self.fail(&format!("wrong number of args for {name}: want at least {wanted} got {}", args.len()));
        }
        if signature.rest.is_none() && given != wanted {
            return self.fail(&format!("wrong number of args for {name}: want {wanted} got {given}"));
        }
        if matches!(callee, Callee::Builtin) && matches!(name, "and" | "or") {
            return self.and_or(dot, name == "or", args, last);
        }
        let mut values = Vec::with_capacity(given);
        for (index, arg) in args.iter().enumerate() {
            values.push(self.argument(dot, signature.param(index), arg)?);
        }
        if let Some(last) = last {
            values.push(self.checked(last, signature.param(args.len()))?);
        }
        self.spend(1 + values.iter().map(Value::cost).sum::<usize>() / 64)?;
        let result = match callee {
            Callee::Builtin if name == "call" => {
                let shown = args.first().map(ToString::to_string);
                Err(builtins::call_error(shown, values.first().unwrap_or(&Value::Nil)))
            }
            Callee::Builtin => builtins::call(name, &values),
            Callee::Function => {
                self.spend(self.functions.steps(name, &values))?;
                self.functions.call(name, &values)
            }
            Callee::Method(receiver) => methods::call(receiver, name, &values),
        };
        let result = result.and_then(|value| match &value {
            Value::Str(text) if OUTPUT_LEN_MAX < text.len() => {
                Err(format!("text exceeds the limit of {OUTPUT_LEN_MAX} bytes"))
            }
            _ => Ok(value),
        });
        match result {
            Ok(value) => {
                self.spend(value.cost() / 64)?;
                Ok(value)
            }
            Err(error) => {
                self.at(node);
                self.fail(&format!("error calling {name}: {error}"))
            }
        }
    }

    /// The first argument that decides, or the last one; those behind it are not evaluated.
    fn and_or(&mut self, dot: &Value, decides: bool, args: &'t [Arg], last: Option<Value>) -> Done<Value> {
        let mut value = Value::Nil;
        for arg in args {
            value = self.argument(dot, Type::Reflect, arg)?;
            if value.is_true() == decides {
                return Ok(value);
            }
        }
        Ok(last.unwrap_or(value))
    }

    /// The value of a word that is an argument of the type.
    fn argument(&mut self, dot: &Value, wanted: Type, arg: &'t Arg) -> Done<Value> {
        self.at_arg(arg);
        let value = match &arg.kind {
            ArgKind::Dot => dot.clone(),
            ArgKind::Nil if wanted.can_be_nil() => return Ok(Value::Nil),
            ArgKind::Nil => return self.fail(&format!("cannot assign nil to {}", wanted.name())),
            ArgKind::Field(names) => self.field_chain(dot, dot, arg, names, &[], None)?,
            ArgKind::Variable(names) => self.variable_chain(dot, arg, names, &[], None)?,
            ArgKind::Pipe(pipe) => {
                self.descend()?;
                let value = self.pipe(dot, pipe)?;
                self.ascend();
                value
            }
            ArgKind::Identifier(name) => self.function(dot, Place::Arg(arg), name, &[], None)?,
            ArgKind::Chain(inner, names) => self.chain(dot, arg, inner, names, &[], None)?,
            _ => return self.typed_constant(wanted, arg),
        };
        self.checked(value, wanted)
    }

    fn typed_constant(&mut self, wanted: Type, arg: &'t Arg) -> Done<Value> {
        let number = |number: &Number| number.int;
        match (wanted, &arg.kind) {
            (Type::Any | Type::Reflect, _) => self.constant(arg),
            (Type::Str, ArgKind::Str { text, .. }) => Ok(Value::Str(text.clone())),
            (Type::Str, _) => self.fail(&format!("expected string; found {arg}")),
            (Type::Int | Type::Duration, ArgKind::Number(given)) if number(given).is_some() => {
                let value = number(given).unwrap_or(0);
                Ok(if wanted == Type::Int { Value::Int(value) } else { Value::Duration(value) })
            }
            (Type::Int | Type::Duration, _) => self.fail(&format!("expected integer; found {arg}")),
            _ => self.fail(&format!("can't handle {arg} for arg of type {}", wanted.name())),
        }
    }

    /// The value, if it fits the type, after at most one dereference.
    fn checked(&mut self, value: Value, wanted: Type) -> Done<Value> {
        match &value {
            Value::Nil if wanted.can_be_nil() => return Ok(value),
            Value::Nil => return self.fail(&format!("invalid value; expected {}", wanted.name())),
            Value::NilInterface if !matches!(wanted, Type::Any | Type::Reflect) => {}
            value if wanted.takes(value) => return Ok(value.clone()),
            Value::Pointer(inner) if wanted.takes(inner) => return Ok((**inner).clone()),
            _ => {}
        }
        self.fail(&format!("wrong type for value; expected {}; got {}", wanted.name(), value.type_name()))
    }
}

/// The value of a number by the way it is written: a float if it has a point or an exponent, else an `int`.
fn ideal(number: &Number) -> Option<Value> {
    let text = number.text.as_str();
    let lower = text.to_ascii_lowercase();
    let is_rune = text.starts_with('\'');
    let is_hex_int = lower.starts_with("0x") && 2 < lower.len() && !lower.contains('p');
    match number.float {
        Some(float) if !is_rune && !is_hex_int && text.contains(['.', 'e', 'E', 'p', 'P']) => Some(Value::Float(float)),
        _ => number.int.map(Value::Int),
    }
}
