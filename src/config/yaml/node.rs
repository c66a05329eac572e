//! A YAML document as a tree with positions.
//!
//! Two parsers read the text. serde_yaml's is a port of libyaml, as Go's is: it decides what is well-formed and words
//! the complaint. saphyr's gives the events with their positions, from which the tree is built.

use std::collections::HashMap;
use std::sync::Arc;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Span, Tag};
use serde::de::{Deserialize as _, IgnoredAny};

use super::{YamlError, shape};

/// Deepest nesting of a document.
const DEPTH_MAX: usize = 128;
/// Deepest nesting with aliases followed.
const HEIGHT_MAX: usize = 1000;

/// A value with its place. Children are shared: an alias points to the node of its anchor.
#[derive(Debug)]
pub(crate) struct Node {
    pub kind: Kind,
    /// The tag as written, in long form for `!!` ones (`tag:yaml.org,2002:str`); empty if there is none.
    pub tag: String,
    /// Line and column, both from 1.
    pub line: usize,
    pub column: usize,
    /// Nodes on the longest way down, aliases followed.
    height: usize,
}

#[derive(Debug)]
pub(crate) enum Kind {
    Scalar {
        text: String,
        /// Without quotes, so that the text decides the type.
        plain: bool,
    },
    Sequence(Vec<Arc<Node>>),
    Mapping(Vec<(Arc<Node>, Arc<Node>)>),
    Alias(Arc<Node>),
    /// An alias inside of its own anchor, by name; an error where its value counts.
    Cycle(String),
}

impl Node {
    /// The node itself, or what the alias stands for.
    pub(crate) fn resolved(&self) -> &Self {
        match &self.kind {
            Kind::Alias(target) => target.resolved(),
            _ => self,
        }
    }

    /// The line of the value at `path`, or of the last node on the way that exists.
    pub(crate) fn line_at(&self, path: &[String]) -> usize {
        let Some((step, rest)) = path.split_first() else { return self.line };
        let child = match &self.resolved().kind {
            Kind::Sequence(items) => step.parse::<usize>().ok().and_then(|index| items.get(index)),
            Kind::Mapping(pairs) => pairs
                .iter()
                .find(|(key, _)| matches!(&key.kind, Kind::Scalar { text, .. } if text == step))
                .map(|(_, value)| value),
            _ => None,
        };
        child.map_or(self.line, |child| child.line_at(rest))
    }

    /// True for `null`, `~` and nothing.
    pub(crate) fn is_null(&self) -> bool {
        if self.tag == "tag:yaml.org,2002:null" {
            return true;
        }
        match &self.kind {
            Kind::Scalar { text, plain: true } => {
                self.tag.is_empty() && matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL")
            }
            _ => false,
        }
    }

    /// True for the key `<<`.
    pub(crate) fn is_merge(&self) -> bool {
        matches!(&self.kind, Kind::Scalar { text, plain } if text == "<<" && (*plain || self.tag == "tag:yaml.org,2002:merge"))
    }
}

/// Which of Go's YAML packages is imitated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// Configuration files.
    V2,
    /// Rule files.
    V3,
}

/// The first document of `text`, or `None` if there is none, and whether more follow.
pub(crate) fn parse(text: &str, dialect: Dialect) -> Result<(Option<Arc<Node>>, bool), YamlError> {
    let mut documents = serde_yaml::Deserializer::from_str(text);
    if let Some(first) = documents.next() {
        IgnoredAny::deserialize(first).map_err(|e| libyaml_error(&e, text, dialect))?;
    }
    let (root, more) = build(text)?;
    if root.as_ref().is_some_and(|root| shape::differs(text, root)) {
        return Err(YamlError::Syntax("this text means different things in different versions of YAML".to_owned()));
    }
    Ok((root, more))
}

fn build(text: &str) -> Result<(Option<Arc<Node>>, bool), YamlError> {
    let mut builder = Builder { events: Parser::new_from_str(text), text, anchors: HashMap::new() };
    builder.document()
}

/// Puts a complaint of serde_yaml into the words of Go's port of the same library.
fn libyaml_error(error: &serde_yaml::Error, text: &str, dialect: Dialect) -> YamlError {
    let debug = format!("{error:?}");
    if debug.starts_with("Error(") {
        let place = error.location();
        if error.to_string().starts_with("unknown anchor") {
            let name = place.map(|p| anchor_name(text, p.index())).unwrap_or_default();
            return YamlError::Syntax(format!("unknown anchor '{name}' referenced"));
        }
        return YamlError::Syntax(error.to_string());
    }
    let scanner = debug.contains("kind: SCANNER");
    // Lines are counted from 0 there; 0 means unknown in Go, and errors of the scanner are counted from 1.
    let shift = |line: usize| if scanner && line != 0 { line + 1 } else { line };
    let line_of = |field: &str| -> usize {
        let (_, after) = debug.split_once(&format!("{field}: Mark {{ line: ")).unwrap_or(("", "1"));
        after.split(|c: char| !c.is_ascii_digit()).next().and_then(|n| n.parse::<usize>().ok()).unwrap_or(1) - 1
    };
    let (first, second) = match dialect {
        Dialect::V2 => ("problem_mark", "context_mark"),
        Dialect::V3 => ("context_mark", "problem_mark"),
    };
    let line = match (line_of(first), dialect) {
        (0, Dialect::V2) => line_of(second),
        (0, Dialect::V3) => shift(line_of(second)),
        (line, _) => shift(line),
    };
    let shown = error.to_string();
    let problem = [" at line ", " at position ", ", while "].iter().filter_map(|cut| shown.find(cut)).min();
    let problem = shown.get(..problem.unwrap_or(shown.len())).unwrap_or(&shown);
    match line {
        0 => YamlError::Syntax(problem.to_owned()),
        _ => YamlError::Syntax(format!("line {line}: {problem}")),
    }
}

/// The name after `*` or `&` at byte `at`.
fn anchor_name(text: &str, at: usize) -> String {
    let rest = text.get(at..).unwrap_or("").trim_start_matches(['*', '&']);
    rest.chars().take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_')).collect()
}

struct Builder<'a> {
    events: Parser<'a, saphyr_parser::StrInput<'a>>,
    text: &'a str,
    anchors: HashMap<usize, Arc<Node>>,
}

impl Builder<'_> {
    fn document(&mut self) -> Result<(Option<Arc<Node>>, bool), YamlError> {
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamEnd => return Ok((None, false)),
                Event::DocumentStart(_) => break,
                Event::Nothing | Event::StreamStart => {}
                _ => return Err(unexpected(span)),
            }
        }
        let root = self.node(0)?;
        // What follows the first document need not be well-formed.
        let mut more = false;
        while let Some(Ok((event, _))) = self.events.next_event() {
            match event {
                Event::DocumentStart(_) => more = true,
                Event::DocumentEnd => continue,
                _ => {}
            }
            break;
        }
        Ok((Some(root), more))
    }

    fn next(&mut self) -> Result<(Event<'_>, Span), YamlError> {
        match self.events.next_event() {
            Some(Ok(found)) => Ok(found),
            Some(Err(error)) => Err(YamlError::Syntax(format!(
                "line {}: {}",
                error.marker().line(),
                error.info().trim_end_matches('.')
            ))),
            None => Ok((Event::StreamEnd, Span::empty(Marker::default()))),
        }
    }

    fn node(&mut self, depth: usize) -> Result<Arc<Node>, YamlError> {
        let (event, span) = self.next()?;
        let block_scalar = matches!(event, Event::Scalar(_, ScalarStyle::Literal | ScalarStyle::Folded, ..));
        let owned = match event {
            Event::Alias(id) => Start::Alias(id),
            Event::Scalar(text, style, anchor, tag) => {
                let plain = style == ScalarStyle::Plain;
                Start::Scalar(text.into_owned(), plain, anchor, long_tag(tag.as_deref()))
            }
            Event::SequenceStart(anchor, tag) => Start::Sequence(anchor, long_tag(tag.as_deref())),
            Event::MappingStart(anchor, tag) => Start::Mapping(anchor, long_tag(tag.as_deref())),
            _ => return Err(unexpected(span)),
        };
        if depth >= DEPTH_MAX {
            return Err(YamlError::Syntax(format!("line {}: exceeded max depth of {DEPTH_MAX}", span.start.line())));
        }
        let (kind, tag, anchor) = match owned {
            Start::Alias(id) => {
                let kind = match self.anchors.get(&id) {
                    Some(target) => Kind::Alias(Arc::clone(target)),
                    // The anchor is known to the parser, so it is one that is still open.
                    None => Kind::Cycle(anchor_name(self.text, byte_index(self.text, span.start.index()))),
                };
                (kind, String::new(), 0)
            }
            Start::Scalar(text, plain, anchor, tag) => (Kind::Scalar { text, plain }, tag, anchor),
            Start::Sequence(anchor, tag) => {
                let mut items = Vec::new();
                while !self.at_end()? {
                    items.push(self.node(depth + 1)?);
                }
                (Kind::Sequence(items), tag, anchor)
            }
            Start::Mapping(anchor, tag) => {
                let mut pairs = Vec::new();
                while !self.at_end()? {
                    let key = self.node(depth + 1)?;
                    pairs.push((key, self.node(depth + 1)?));
                }
                (Kind::Mapping(pairs), tag, anchor)
            }
        };
        let below = match &kind {
            Kind::Scalar { .. } | Kind::Cycle(_) => 0,
            Kind::Alias(target) => target.height,
            Kind::Sequence(items) => items.iter().map(|item| item.height).max().unwrap_or(0),
            Kind::Mapping(pairs) => pairs.iter().map(|(key, value)| key.height.max(value.height)).max().unwrap_or(0),
        };
        if below >= HEIGHT_MAX {
            return Err(YamlError::Syntax("document contains excessive aliasing".to_owned()));
        }
        // Where nothing is written, the parser gives the place of the colon before it, Go's the one behind that.
        let nothing = matches!(&kind, Kind::Scalar { text, plain: true } if text.is_empty());
        let (line, column) = match block_scalar {
            true => self.header_of(span.start.index()).unwrap_or((span.start.line(), span.start.col() + 1)),
            false => (span.start.line(), span.start.col() + 1 + usize::from(nothing)),
        };
        let node = Arc::new(Node { kind, tag, line, column, height: below + 1 });
        if anchor != 0 {
            self.anchors.insert(anchor, Arc::clone(&node));
        }
        Ok(node)
    }

    /// Line and column of the `|` or `>` before the content that starts at character `content`. The parser gives the
    /// place of the content; Go's gives that of the indicator.
    fn header_of(&self, content: usize) -> Option<(usize, usize)> {
        // Only blank lines stand between the header's line and the content.
        let before = self.text.get(..byte_index(self.text, content))?.trim_end();
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let header = before.get(line_start..)?;
        let header = header.split(" #").next().unwrap_or(header);
        let indicator = header.rfind(['|', '>'])?;
        let line = before.get(..line_start)?.matches('\n').count() + 1;
        Some((line, header.get(..indicator)?.chars().count() + 1))
    }

    /// True, and the event taken, if the collection ends here.
    fn at_end(&mut self) -> Result<bool, YamlError> {
        let ends = matches!(self.events.peek(), Some(Ok((Event::SequenceEnd | Event::MappingEnd, _))));
        if ends {
            self.next()?;
        }
        Ok(ends)
    }
}

enum Start {
    Alias(usize),
    Scalar(String, bool, usize, String),
    Sequence(usize, String),
    Mapping(usize, String),
}

fn unexpected(span: Span) -> YamlError {
    YamlError::Syntax(format!("line {}: did not find expected node content", span.start.line()))
}

fn long_tag(tag: Option<&Tag>) -> String {
    tag.map(|t| format!("{}{}", t.handle, t.suffix)).unwrap_or_default()
}

/// The byte at which character number `index` stands.
fn byte_index(text: &str, index: usize) -> usize {
    text.char_indices().nth(index).map_or(text.len(), |(at, _)| at)
}
