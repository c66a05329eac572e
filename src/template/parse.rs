//! Builds the trees of a text: its own and those that `define` and `block` name.
//! Grammar, look-ahead and error texts are those of Go's `text/template/parse`, so that errors name the same lines.
//! Nesting is bounded, because trees are walked by recursion.

use std::mem;
use std::sync::Arc;

use super::ast::{Arg, ArgKind, Branch, BranchKind, Command, List, Node, Pipe, Tree};
use super::lexer::{Kind, Lexer, Token};
use super::literal;
use super::tokens::{Lookahead, field_name};
use crate::model::go;

/// Most levels of actions and parentheses within each other.
pub(super) const DEPTH_MAX: usize = 100;

/// Parses `text`, whose own tree gets the name `name`. The error is Go's text.
pub(super) fn parse(name: &str, text: &str, is_function: &dyn Fn(&str) -> bool) -> Result<Vec<Tree>, String> {
    let mut parser = Parser {
        parse_name: Arc::from(name),
        text: Arc::from(text),
        lexer: Lexer::new(text),
        is_function,
        state: State::new(),
        trees: Vec::new(),
        depth: 0,
    };
    let root = parser.top()?;
    parser.add(name.to_owned(), root)?;
    Ok(parser.trees)
}

/// What belongs to the template that is being parsed; a definition within it has its own.
struct State {
    tokens: Lookahead,
    variables: Vec<String>,
    action_line: usize,
    range_depth: usize,
}

impl State {
    fn new() -> Self {
        Self { tokens: Lookahead::default(), variables: vec!["$".to_owned()], action_line: 0, range_depth: 0 }
    }
}

struct Parser<'a> {
    parse_name: Arc<str>,
    text: Arc<str>,
    lexer: Lexer<'a>,
    is_function: &'a dyn Fn(&str) -> bool,
    state: State,
    trees: Vec<Tree>,
    depth: usize,
}

/// What a text or an action is.
enum Item {
    Node(Node),
    Else,
    End,
}

impl Item {
    fn shown(&self) -> &'static str {
        if matches!(self, Self::Else) { "{{else}}" } else { "{{end}}" }
    }
}

type Parsed<T> = Result<T, String>;

impl Parser<'_> {
    fn next(&mut self) -> Token {
        self.state.tokens.next(&mut self.lexer)
    }

    fn backup(&mut self) {
        self.state.tokens.backup();
    }

    fn peek(&mut self) -> Token {
        self.state.tokens.peek(&mut self.lexer)
    }

    fn next_non_space(&mut self) -> Token {
        self.state.tokens.next_non_space(&mut self.lexer)
    }

    fn peek_non_space(&mut self) -> Token {
        let token = self.next_non_space();
        self.backup();
        token
    }

    fn fail<T>(&self, text: &str) -> Parsed<T> {
        Err(format!("template: {}:{}: {text}", self.parse_name, self.state.tokens.line()))
    }

    fn unexpected<T>(&self, token: &Token, context: &str) -> Parsed<T> {
        if token.kind != Kind::Error {
            return self.fail(&format!("unexpected {token} in {context}"));
        }
        let line = self.state.action_line;
        let mut extra = String::new();
        if line != 0 && line != token.line {
            let action = if token.text.ends_with(" action") { "" } else { " in action" };
            extra = format!("{action} started at {}:{line}", self.parse_name);
        }
        self.fail(&format!("{token}{extra}"))
    }

    fn expect(&mut self, kind: Kind, context: &str) -> Parsed<Token> {
        let token = self.next_non_space();
        if token.kind == kind { Ok(token) } else { self.unexpected(&token, context) }
    }

    fn descend(&mut self) -> Parsed<()> {
        self.depth += 1;
        if DEPTH_MAX < self.depth { self.fail("max expression depth exceeded") } else { Ok(()) }
    }

    fn add(&mut self, name: String, root: List) -> Parsed<()> {
        if let Some(index) = self.trees.iter().position(|tree| tree.name == name) {
            if self.trees.get(index).is_some_and(|tree| tree.root.is_empty()) {
                self.trees.remove(index);
            } else if root.is_empty() {
                return Ok(());
            } else {
                return self.fail(&format!("template: multiple definition of template {}", go::quote(&name)));
            }
        }
        self.trees.push(Tree { name, parse_name: Arc::clone(&self.parse_name), text: Arc::clone(&self.text), root });
        Ok(())
    }

    /// The whole text; only here are definitions possible.
    fn top(&mut self) -> Parsed<List> {
        let mut nodes = Vec::new();
        while self.peek().kind != Kind::Eof {
            if self.peek().kind == Kind::LeftDelim {
                let delim = self.next();
                if self.next_non_space().kind == Kind::Define {
                    self.definition()?;
                    continue;
                }
                self.state.tokens.backup2(delim);
            }
            match self.text_or_action()? {
                Item::Node(node) => nodes.push(node),
                other => return self.fail(&format!("unexpected {}", other.shown())),
            }
        }
        Ok(List(nodes))
    }

    /// Behind `define`.
    fn definition(&mut self) -> Parsed<()> {
        const CONTEXT: &str = "define clause";
        let outer = mem::replace(&mut self.state, State::new());
        let token = self.next_non_space();
        if !matches!(token.kind, Kind::Str | Kind::RawString) {
            return self.unexpected(&token, CONTEXT);
        }
        let name = self.unquoted(&token)?;
        self.expect(Kind::RightDelim, CONTEXT)?;
        self.body(name, CONTEXT)?;
        self.state = outer;
        Ok(())
    }

    /// The inside of a definition up to its `end`.
    fn body(&mut self, name: String, context: &str) -> Parsed<()> {
        self.descend()?;
        let (root, end) = self.list()?;
        self.depth -= 1;
        if !matches!(end, Item::End) {
            return self.fail(&format!("unexpected {} in {context}", end.shown()));
        }
        self.add(name, root)
    }

    /// Texts and actions up to an `end` or `else`, which is returned as well.
    fn list(&mut self) -> Parsed<(List, Item)> {
        let mut nodes = Vec::new();
        while self.peek_non_space().kind != Kind::Eof {
            match self.text_or_action()? {
                Item::Node(node) => nodes.push(node),
                end => return Ok((List(nodes), end)),
            }
        }
        self.fail("unexpected EOF")
    }

    fn text_or_action(&mut self) -> Parsed<Item> {
        let token = self.next_non_space();
        match token.kind {
            Kind::Text => Ok(Item::Node(Node::Text { text: token.text })),
            Kind::LeftDelim => {
                self.state.action_line = token.line;
                let item = self.action()?;
                self.state.action_line = 0;
                Ok(item)
            }
            _ => self.unexpected(&token, "input"),
        }
    }

    /// Behind the left delimiter.
    fn action(&mut self) -> Parsed<Item> {
        let token = self.next_non_space();
        let node = match token.kind {
            Kind::Block => self.block()?,
            Kind::Break | Kind::Continue => self.jump(token.kind)?,
            Kind::Else => return self.else_action(),
            Kind::End => {
                self.expect(Kind::RightDelim, "end")?;
                return Ok(Item::End);
            }
            Kind::If => self.control(BranchKind::If)?,
            Kind::Range => self.control(BranchKind::Range)?,
            Kind::Template => self.template()?,
            Kind::With => self.control(BranchKind::With)?,
            _ => {
                self.backup();
                let pos = self.peek().pos;
                Node::Action { pos, pipe: self.pipeline("command", Kind::RightDelim)? }
            }
        };
        Ok(Item::Node(node))
    }

    fn jump(&mut self, kind: Kind) -> Parsed<Node> {
        let (shown, node) = match kind {
            Kind::Break => ("{{break}}", Node::Break),
            _ => ("{{continue}}", Node::Continue),
        };
        let token = self.next_non_space();
        if token.kind != Kind::RightDelim {
            return self.unexpected(&token, shown);
        }
        if self.state.range_depth == 0 {
            return self.fail(&format!("{shown} outside {{{{range}}}}"));
        }
        Ok(node)
    }

    fn else_action(&mut self) -> Parsed<Item> {
        if !matches!(self.peek_non_space().kind, Kind::If | Kind::With) {
            self.expect(Kind::RightDelim, "else")?;
        }
        Ok(Item::Else)
    }

    fn control(&mut self, kind: BranchKind) -> Parsed<Node> {
        self.descend()?;
        let declared = self.state.variables.len();
        let pipe = self.pipeline(kind.name(), Kind::RightDelim)?;
        if kind == BranchKind::Range {
            self.state.range_depth += 1;
        }
        let (list, end) = self.list()?;
        if kind == BranchKind::Range {
            self.state.range_depth -= 1;
        }
        let else_list = if matches!(end, Item::Else) { Some(self.else_list(kind)?) } else { None };
        self.state.variables.truncate(declared);
        self.depth -= 1;
        Ok(Node::Branch(Box::new(Branch { kind, pipe, list, else_list })))
    }

    /// What follows `else`: `else if` and `else with` share the `end` of what they continue.
    fn else_list(&mut self, kind: BranchKind) -> Parsed<List> {
        let ahead = self.peek().kind;
        let continues = matches!((kind, ahead), (BranchKind::If, Kind::If) | (BranchKind::With, Kind::With));
        if continues {
            self.next();
            return Ok(List(vec![self.control(kind)?]));
        }
        let (list, end) = self.list()?;
        if !matches!(end, Item::End) {
            return self.fail(&format!("expected end; found {}", end.shown()));
        }
        Ok(list)
    }

    fn block(&mut self) -> Parsed<Node> {
        const CONTEXT: &str = "block clause";
        let token = self.next_non_space();
        let name = self.template_name(&token, CONTEXT)?;
        let pipe = self.pipeline(CONTEXT, Kind::RightDelim)?;
        let outer = mem::replace(&mut self.state, State::new());
        self.body(name.clone(), CONTEXT)?;
        self.state = outer;
        Ok(Node::Template { pos: token.pos, name, pipe: Some(pipe) })
    }

    fn template(&mut self) -> Parsed<Node> {
        const CONTEXT: &str = "template clause";
        let token = self.next_non_space();
        let name = self.template_name(&token, CONTEXT)?;
        let mut pipe = None;
        if self.next_non_space().kind != Kind::RightDelim {
            self.backup();
            pipe = Some(self.pipeline(CONTEXT, Kind::RightDelim)?);
        }
        Ok(Node::Template { pos: token.pos, name, pipe })
    }

    fn template_name(&mut self, token: &Token, context: &str) -> Parsed<String> {
        match token.kind {
            Kind::Str | Kind::RawString => self.unquoted(token),
            _ => self.unexpected(token, context),
        }
    }

    fn unquoted(&self, token: &Token) -> Parsed<String> {
        literal::unquote(&token.text).or_else(|error| self.fail(&error))
    }

    /// Declarations and commands up to `end`.
    fn pipeline(&mut self, context: &str, end: Kind) -> Parsed<Pipe> {
        let pos = self.peek_non_space().pos;
        let mut pipe = Pipe { pos, is_assign: false, variables: Vec::new(), commands: Vec::new() };
        self.declarations(context, &mut pipe)?;
        loop {
            let token = self.next_non_space();
            match token.kind {
                kind if kind == end => break,
                Kind::Bool
                | Kind::CharConstant
                | Kind::Complex
                | Kind::Dot
                | Kind::Field
                | Kind::Identifier
                | Kind::Number
                | Kind::Nil
                | Kind::RawString
                | Kind::Str
                | Kind::Variable
                | Kind::LeftParen => {
                    self.backup();
                    pipe.commands.push(self.command()?);
                }
                _ => return self.unexpected(&token, context),
            }
        }
        self.check_pipeline(&pipe, context)?;
        Ok(pipe)
    }

    fn declarations(&mut self, context: &str, pipe: &mut Pipe) -> Parsed<()> {
        loop {
            let variable = self.peek_non_space();
            if variable.kind != Kind::Variable {
                return Ok(());
            }
            self.next();
            // "$x foo" is a command, which shows only at the third token.
            let behind = self.peek();
            let next = self.peek_non_space();
            match next.kind {
                Kind::Assign | Kind::Declare => {
                    pipe.is_assign = next.kind == Kind::Assign;
                    self.next_non_space();
                    self.declare(pipe, variable.text);
                    return Ok(());
                }
                Kind::Char if next.text == "," => {
                    self.next_non_space();
                    self.declare(pipe, variable.text);
                    if context != "range" || 2 <= pipe.variables.len() {
                        return self.fail(&format!("too many declarations in {context}"));
                    }
                    let ahead = self.peek_non_space().kind;
                    if !matches!(ahead, Kind::Variable | Kind::RightDelim | Kind::RightParen) {
                        return self.fail("range can only initialize variables");
                    }
                }
                _ if behind.kind == Kind::Space => {
                    self.state.tokens.backup3(variable, behind);
                    return Ok(());
                }
                _ => {
                    self.state.tokens.backup2(variable);
                    return Ok(());
                }
            }
        }
    }

    fn declare(&mut self, pipe: &mut Pipe, name: String) {
        self.state.variables.push(name.clone());
        pipe.variables.push(name);
    }

    fn check_pipeline(&self, pipe: &Pipe, context: &str) -> Parsed<()> {
        if pipe.commands.is_empty() {
            return self.fail(&format!("missing value for {context}"));
        }
        for (index, command) in pipe.commands.iter().enumerate().skip(1) {
            if command.args.first().is_some_and(|arg| arg.kind.is_constant()) {
                return self.fail(&format!("non executable command in pipeline stage {}", index + 1));
            }
        }
        Ok(())
    }

    /// Operands up to a `|`, which is consumed, or to the end of the pipeline, which is not.
    fn command(&mut self) -> Parsed<Command> {
        let pos = self.peek_non_space().pos;
        let mut args = Vec::new();
        loop {
            self.peek_non_space();
            if let Some(operand) = self.operand()? {
                args.push(operand);
            }
            let token = self.next();
            match token.kind {
                Kind::Space => {}
                Kind::RightDelim | Kind::RightParen => {
                    self.backup();
                    break;
                }
                Kind::Pipe => break,
                _ => return self.unexpected(&token, "operand"),
            }
        }
        if args.is_empty() { self.fail("empty command") } else { Ok(Command { pos, args }) }
    }

    /// A term with the fields behind it; `None` if no term follows.
    fn operand(&mut self) -> Parsed<Option<Arg>> {
        let Some(term) = self.term()? else { return Ok(None) };
        let first = self.peek();
        if first.kind != Kind::Field {
            return Ok(Some(term));
        }
        let mut names = Vec::new();
        while self.peek().kind == Kind::Field {
            names.push(field_name(&self.next()));
        }
        let kind = match term.kind {
            ArgKind::Field(mut before) => {
                before.extend(names);
                ArgKind::Field(before)
            }
            ArgKind::Variable(mut before) => {
                before.extend(names);
                ArgKind::Variable(before)
            }
            kind if kind.is_constant() => {
                let term = Arg { pos: term.pos, kind };
                return self.fail(&format!("unexpected . after term {}", go::quote(&term.to_string())));
            }
            kind => ArgKind::Chain(Box::new(Arg { pos: term.pos, kind }), names),
        };
        Ok(Some(Arg { pos: first.pos, kind }))
    }

    fn term(&mut self) -> Parsed<Option<Arg>> {
        let token = self.next_non_space();
        let kind = match token.kind {
            Kind::Identifier => {
                if !(self.is_function)(&token.text) {
                    return self.fail(&format!("function {} not defined", go::quote(&token.text)));
                }
                ArgKind::Identifier(token.text)
            }
            Kind::Dot => ArgKind::Dot,
            Kind::Nil => ArgKind::Nil,
            Kind::Variable => {
                if !self.state.variables.contains(&token.text) {
                    return self.fail(&format!("undefined variable {}", go::quote(&token.text)));
                }
                ArgKind::Variable(vec![token.text])
            }
            Kind::Field => ArgKind::Field(vec![field_name(&token)]),
            Kind::Bool => ArgKind::Bool(token.text == "true"),
            Kind::CharConstant => ArgKind::Number(literal::character(&token.text).or_else(|error| self.fail(&error))?),
            Kind::Complex | Kind::Number => {
                ArgKind::Number(literal::number(&token.text).or_else(|error| self.fail(&error))?)
            }
            Kind::LeftParen => {
                self.descend()?;
                let pipe = self.pipeline("parenthesized pipeline", Kind::RightParen)?;
                self.depth -= 1;
                ArgKind::Pipe(Box::new(pipe))
            }
            Kind::Str | Kind::RawString => {
                let text = Arc::from(self.unquoted(&token)?);
                ArgKind::Str { quoted: token.text, text }
            }
            _ => {
                self.backup();
                return Ok(None);
            }
        };
        Ok(Some(Arg { pos: token.pos, kind }))
    }
}
