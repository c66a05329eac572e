//! Command lines read the way Prometheus reads them (kingpin): `--flag=v`, `--flag v`, `--flag` and `--no-flag` for
//! switches, `@file` with one argument a line, `-h`. A flag that is not a list may be given once.

use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::fs;
use std::time::Duration;

use crate::cli::bytes::{self, SizeError};
use crate::cli::flag_spec::{FlagSpec, Kind};
use crate::model::duration::{DurationError, PromDuration};
use crate::model::go;
use crate::model::go_number::{self, NumberError};
use crate::model::go_time;

/// A value that has passed its kind's check.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A switch.
    Bool(bool),
    /// Text and words.
    Text(String),
    /// Lists.
    List(Vec<String>),
    /// Whole numbers.
    Integer(i64),
    /// Numbers.
    Float(f64),
    /// Durations.
    Duration(PromDuration),
    /// Go durations in nanoseconds.
    GoDuration(i64),
    /// Sizes in bytes; `None` for an automatic one.
    Size(Option<u64>),
}

/// What a command line holds.
#[derive(Debug)]
pub enum Outcome {
    /// `--help` or `-h`.
    Help,
    /// `--version`.
    Version,
    /// Values for all flags.
    Values(Values),
}

/// Values of all flags of a table.
#[derive(Clone, Debug)]
pub struct Values {
    values: BTreeMap<&'static str, Value>,
    /// Names in the order given.
    given: Vec<&'static str>,
}

/// Why a command line is refused. The texts are those that Prometheus prints.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// No such `--flag`.
    #[error("unknown long flag '{0}'")]
    UnknownLong(String),
    /// No such `-f`.
    #[error("unknown short flag '{0}'")]
    UnknownShort(String),
    /// A word that belongs to no flag.
    #[error("unexpected {0}")]
    Unexpected(String),
    /// A flag without its value.
    #[error("expected argument for flag '{0}'")]
    MissingValue(String),
    /// A single flag given twice.
    #[error("flag '{0}' cannot be repeated")]
    Repeated(String),
    /// `@` without a file name.
    #[error("expected @ file to expand arguments from")]
    NoFile,
    /// `@file` that cannot be read.
    #[error("failed to open arguments file {}: open {path}: {reason}", go::quote(.path))]
    File {
        /// The path as written.
        path: String,
        /// Why.
        reason: String,
    },
    /// Files that name each other without end.
    #[error("argument files are nested too deeply at {}", go::quote(.0))]
    FileLoop(String),
    /// Not a number.
    #[error(transparent)]
    Number(#[from] NumberError),
    /// Not a duration.
    #[error(transparent)]
    Duration(#[from] DurationError),
    /// Not a Go duration.
    #[error("time: invalid duration {}", go::quote(.0))]
    GoDuration(String),
    /// Not a size.
    #[error(transparent)]
    Size(#[from] SizeError),
    /// Not one of the words.
    #[error("enum value must be one of {options}, got '{got}'")]
    Word {
        /// The words.
        options: String,
        /// What was written.
        got: String,
    },
    /// Not a log level.
    #[error("unrecognized log level {0}")]
    LogLevel(String),
    /// Not a log format.
    #[error("unrecognized log format {0}")]
    LogFormat(String),
    /// A value that does not fit its flag. Prometheus leaves the flag's name out.
    #[error("{error} (--{flag})")]
    OfFlag {
        /// Which flag.
        flag: &'static str,
        /// What is wrong with its value.
        #[source]
        error: Box<ParseError>,
    },
    /// Not a remote-write message.
    #[error("unknown type for remote write protobuf message {got}, supported: {options}")]
    Message {
        /// The messages.
        options: String,
        /// What was written.
        got: String,
    },
}

impl ParseError {
    /// True if the words do not make a command line, whatever the values are. Prometheus then ends with another code.
    pub fn is_structural(&self) -> bool {
        match self {
            Self::UnknownLong(_)
            | Self::UnknownShort(_)
            | Self::Unexpected(_)
            | Self::MissingValue(_)
            | Self::NoFile
            | Self::File { .. }
            | Self::FileLoop(_) => true,
            Self::Repeated(_)
            | Self::Number(_)
            | Self::Duration(_)
            | Self::GoDuration(_)
            | Self::Size(_)
            | Self::Word { .. }
            | Self::LogLevel(_)
            | Self::LogFormat(_)
            | Self::OfFlag { .. }
            | Self::Message { .. } => false,
        }
    }

    fn of_flag(self, flag: &'static str) -> Self {
        Self::OfFlag { flag, error: Box::new(self) }
    }
}

/// Files that a command line may name, nested ones included.
const FILES_MAX: usize = 64;

/// Reads `args` against a table. `--version` beats everything after it, then come structural errors, then `--help`,
/// then values that do not fit. A word that belongs to no flag is an error.
pub fn parse(table: &'static [FlagSpec], args: &[String]) -> Result<Outcome, ParseError> {
    read_all(table, args, None)
}

/// Like [`parse`], but words that belong to no flag are collected, in order.
pub fn parse_with_words(table: &'static [FlagSpec], args: &[String]) -> Result<(Outcome, Vec<String>), ParseError> {
    let mut words = Vec::new();
    let outcome = read_all(table, args, Some(&mut words))?;
    Ok((outcome, words))
}

fn read_all(
    table: &'static [FlagSpec],
    args: &[String],
    mut words: Option<&mut Vec<String>>,
) -> Result<Outcome, ParseError> {
    let mut given: Vec<(&'static FlagSpec, String)> = Vec::new();
    let mut help = false;
    let mut tokens = Tokens { rest: args.iter().cloned().collect(), files: 0, only_words: false };
    loop {
        let arg = match (tokens.next()?, &mut words) {
            (None, _) => break,
            (Some(Token::Word(word)), None) => return Err(ParseError::Unexpected(word)),
            (Some(Token::Word(word)), Some(words)) => {
                words.push(word);
                continue;
            }
            (Some(Token::Flag(arg)), _) => arg,
        };
        let Some(long) = arg.strip_prefix("--") else {
            help |= short(&arg)?;
            continue;
        };
        let (name, inline) = match long.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (long, None),
        };
        match name {
            "version" | "no-version" if inline.is_none() => return Ok(Outcome::Version),
            "help" | "no-help" if inline.is_none() => {
                help = true;
                continue;
            }
            _ => {}
        }
        let (spec, inverted) = find(table, name).ok_or_else(|| ParseError::UnknownLong(format!("--{name}")))?;
        let value = match (spec.kind, inline) {
            (Kind::Switch, None) => (!inverted).to_string(),
            (Kind::Switch, Some(value)) => return Err(ParseError::Unexpected(value)),
            (_, _) if inverted => return Err(ParseError::UnknownLong(format!("--{name}"))),
            (_, Some(value)) => value,
            (_, None) => match tokens.next()? {
                Some(Token::Word(value)) => value,
                Some(Token::Flag(_)) | None => return Err(ParseError::MissingValue(format!("--{name}"))),
            },
        };
        given.push((spec, value));
    }
    if help { Ok(Outcome::Help) } else { Values::collect(table, &given).map(Outcome::Values) }
}

enum Token {
    Flag(String),
    Word(String),
}

struct Tokens {
    rest: VecDeque<String>,
    files: usize,
    /// Set by `--`.
    only_words: bool,
}

impl Tokens {
    fn next(&mut self) -> Result<Option<Token>, ParseError> {
        while let Some(arg) = self.rest.pop_front() {
            if self.only_words {
                return Ok(Some(Token::Word(arg)));
            }
            if arg == "--" {
                self.only_words = true;
                continue;
            }
            if let Some(path) = arg.strip_prefix('@') {
                self.expand(path)?;
            } else if arg.starts_with('-') && 1 < arg.len() {
                return Ok(Some(Token::Flag(arg)));
            } else {
                return Ok(Some(Token::Word(arg)));
            }
        }
        Ok(None)
    }

    fn expand(&mut self, path: &str) -> Result<(), ParseError> {
        if path.is_empty() {
            return Err(ParseError::NoFile);
        }
        self.files += 1;
        if FILES_MAX < self.files {
            return Err(ParseError::FileLoop(path.to_owned()));
        }
        let text = fs::read_to_string(path)
            .map_err(|error| ParseError::File { path: path.to_owned(), reason: go_reason(&error) })?;
        let lines = text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty());
        for line in lines.rev() {
            self.rest.push_front(line.to_owned());
        }
        Ok(())
    }
}

/// System errors in Go's words for the usual case.
fn go_reason(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "no such file or directory".to_owned(),
        std::io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => error.to_string(),
    }
}

/// `-h`, possibly followed by further letters, which do not exist.
fn short(arg: &str) -> Result<bool, ParseError> {
    match arg.chars().skip(1).find(|letter| *letter != 'h') {
        None => Ok(true),
        Some(letter) => Err(ParseError::UnknownShort(format!("-{letter}"))),
    }
}

fn find(table: &'static [FlagSpec], name: &str) -> Option<(&'static FlagSpec, bool)> {
    let exact = |name: &str| table.iter().find(|spec| spec.name == name);
    exact(name).map(|spec| (spec, false)).or_else(|| Some((exact(name.strip_prefix("no-")?)?, true)))
}

impl Values {
    fn collect(table: &'static [FlagSpec], given: &[(&'static FlagSpec, String)]) -> Result<Self, ParseError> {
        let mut values = BTreeMap::new();
        let mut names: Vec<&'static str> = Vec::new();
        for (spec, text) in given {
            let repeated = names.contains(&spec.name);
            match read(spec.kind, text).map_err(|error| error.of_flag(spec.name))? {
                Value::List(mut more) if repeated => {
                    if let Some(Value::List(list)) = values.get_mut(spec.name) {
                        list.append(&mut more);
                    }
                }
                _ if repeated => return Err(ParseError::Repeated(spec.name.to_owned())),
                value => drop(values.insert(spec.name, value)),
            }
            names.push(spec.name);
        }
        for spec in table.iter().filter(|spec| !names.contains(&spec.name)) {
            values.insert(spec.name, default(spec)?);
        }
        Ok(Self { values, given: names })
    }

    /// Names of the flags given, in order, with repetitions.
    pub fn given(&self) -> &[&'static str] {
        &self.given
    }

    /// True if the flag was given.
    pub fn is_given(&self, name: &str) -> bool {
        self.given.contains(&name)
    }

    fn value(&self, name: &str) -> &Value {
        self.values.get(name).unwrap_or_else(|| panic!("flag {name} is asked for and not in the table"))
    }

    /// The switch `name`.
    pub fn bool(&self, name: &str) -> bool {
        matches!(self.value(name), Value::Bool(true))
    }

    /// The text of `name`, empty if it is of another kind.
    pub fn text(&self, name: &str) -> &str {
        match self.value(name) {
            Value::Text(text) => text,
            other => panic!("flag {name} is no text but {other:?}"),
        }
    }

    /// The list `name`.
    pub fn list(&self, name: &str) -> &[String] {
        match self.value(name) {
            Value::List(list) => list,
            other => panic!("flag {name} is no list but {other:?}"),
        }
    }

    /// The whole number `name`.
    pub fn integer(&self, name: &str) -> i64 {
        match self.value(name) {
            Value::Integer(number) => *number,
            other => panic!("flag {name} is no whole number but {other:?}"),
        }
    }

    /// The number `name`.
    pub fn float(&self, name: &str) -> f64 {
        match self.value(name) {
            Value::Float(number) => *number,
            other => panic!("flag {name} is no number but {other:?}"),
        }
    }

    /// The duration `name`.
    pub fn duration(&self, name: &str) -> PromDuration {
        match self.value(name) {
            Value::Duration(duration) => *duration,
            other => panic!("flag {name} is no duration but {other:?}"),
        }
    }

    /// The Go duration `name`; a negative one counts as none.
    pub fn go_duration(&self, name: &str) -> Duration {
        match self.value(name) {
            Value::GoDuration(nanos) => Duration::from_nanos(u64::try_from(*nanos).unwrap_or(0)),
            other => panic!("flag {name} is no Go duration but {other:?}"),
        }
    }

    /// True if the flag has the value that it would have if it were not given.
    pub fn is_default(&self, spec: &FlagSpec) -> bool {
        default(spec).is_ok_and(|value| value == *self.value(spec.name))
    }

    /// The size `name`; `None` for an automatic one that was not given.
    pub fn size(&self, name: &str) -> Option<u64> {
        match self.value(name) {
            Value::Size(size) => *size,
            other => panic!("flag {name} is no size but {other:?}"),
        }
    }

    /// All flags with their values as `/api/v1/status/flags` prints them, sorted by name.
    pub fn printed(&self) -> Vec<(String, String)> {
        self.values.iter().map(|(name, value)| ((*name).to_owned(), print(value))).collect()
    }
}

fn default(spec: &FlagSpec) -> Result<Value, ParseError> {
    match (spec.kind, spec.default) {
        (Kind::List | Kind::Messages(_), "") => Ok(Value::List(Vec::new())),
        (Kind::List | Kind::Messages(_), list) => Ok(Value::List(list.split(',').map(str::to_owned).collect())),
        (Kind::Duration, "") => Ok(Value::Duration(PromDuration::ZERO)),
        (Kind::Size, "") => Ok(Value::Size(Some(0))),
        (Kind::Switch, "") => Ok(Value::Bool(false)),
        (kind, text) => read(kind, text),
    }
}

fn read(kind: Kind, text: &str) -> Result<Value, ParseError> {
    let owned = || text.to_owned();
    Ok(match kind {
        Kind::Switch => Value::Bool(text == "true"),
        Kind::Text => Value::Text(owned()),
        Kind::List => Value::List(vec![owned()]),
        // Go reads a float and cuts it; the cast saturates where Go's would wrap.
        Kind::Integer => Value::Integer(go_number::parse_float(text)? as i64),
        Kind::Float => Value::Float(go_number::parse_float(text)?),
        Kind::Duration => Value::Duration(PromDuration::parse(text)?),
        Kind::GoDuration => {
            Value::GoDuration(go_time::parse_duration(text).ok_or_else(|| ParseError::GoDuration(owned()))?)
        }
        Kind::AutoSize if text.is_empty() => Value::Size(None),
        Kind::Size | Kind::AutoSize => Value::Size(Some(bytes::parse(text)?)),
        Kind::Word(options) if options.contains(&text) => Value::Text(owned()),
        Kind::Word(options) => return Err(ParseError::Word { options: options.join(","), got: owned() }),
        Kind::LogLevel => match text.to_ascii_lowercase().as_str() {
            level @ ("debug" | "info" | "warn" | "error") => Value::Text(level.to_owned()),
            _ => return Err(ParseError::LogLevel(owned())),
        },
        Kind::LogFormat if matches!(text, "logfmt" | "json") => Value::Text(owned()),
        Kind::LogFormat => return Err(ParseError::LogFormat(owned())),
        Kind::Messages(options) if options.contains(&text) => Value::List(vec![owned()]),
        Kind::Messages(options) => return Err(ParseError::Message { options: options.join(", "), got: owned() }),
    })
}

fn print(value: &Value) -> String {
    match value {
        Value::Bool(on) => on.to_string(),
        Value::Text(text) => text.clone(),
        Value::List(list) => list.join(","),
        Value::Integer(number) => number.to_string(),
        Value::Float(number) => go::format_float_g(*number),
        Value::Duration(duration) => duration.to_string(),
        Value::GoDuration(nanos) => go_time::format_duration(*nanos),
        Value::Size(Some(bytes)) => bytes::format(*bytes),
        Value::Size(None) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::cli::flag_table::FLAGS;

    fn run(args: &[&str]) -> Result<Outcome, ParseError> {
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        parse(FLAGS, &args)
    }

    #[track_caller]
    fn values(args: &[&str]) -> Values {
        match run(args) {
            Ok(Outcome::Values(values)) => values,
            other => panic!("{args:?} gave {other:?}"),
        }
    }

    #[track_caller]
    fn check_error(args: &[&str], text: &str) {
        assert_eq!(run(args).unwrap_err().to_string(), text);
    }

    #[test]
    fn all_ways_to_write_a_flag() {
        assert_eq!(values(&["--query.timeout=3m"]).duration("query.timeout"), PromDuration::from_secs(180));
        assert_eq!(values(&["--query.timeout", "3m"]).duration("query.timeout"), PromDuration::from_secs(180));
        assert!(values(&["--web.enable-lifecycle"]).bool("web.enable-lifecycle"));
        assert!(!values(&["--no-storage.tsdb.wal-compression"]).bool("storage.tsdb.wal-compression"));
        assert_eq!(values(&["--query.max-samples=5e7"]).integer("query.max-samples"), 50_000_000);
        assert_eq!(values(&["--config.file="]).text("config.file"), "");
        let two = values(&["--web.listen-address=a:1", "--web.listen-address", "b:2"]);
        assert_eq!(two.list("web.listen-address"), ["a:1", "b:2"]);
        assert_eq!(values(&["--enable-feature=a,b", "--enable-feature=c"]).list("enable-feature"), ["a,b", "c"]);
    }

    #[test]
    fn error_texts_are_those_of_prometheus() {
        check_error(&["--foo"], "unknown long flag '--foo'");
        check_error(&["--no-query.timeout"], "unknown long flag '--no-query.timeout'");
        check_error(&["-x"], "unknown short flag '-x'");
        check_error(&["-hx"], "unknown short flag '-x'");
        check_error(&["foo"], "unexpected foo");
        check_error(&["--", "--agent"], "unexpected --agent");
        check_error(&["--agent=false"], "unexpected false");
        check_error(&["--query.timeout"], "expected argument for flag '--query.timeout'");
        check_error(&["--query.timeout", "--agent"], "expected argument for flag '--query.timeout'");
        check_error(&["--query.timeout=5m", "--query.timeout=3m"], "flag 'query.timeout' cannot be repeated");
        check_error(&["--query.timeout=abc"], "not a valid duration string: \"abc\" (--query.timeout)");
        check_error(
            &["--query.max-samples=abc"],
            "strconv.ParseFloat: parsing \"abc\": invalid syntax (--query.max-samples)",
        );
        check_error(
            &["--auto-gomemlimit.ratio=x"],
            "strconv.ParseFloat: parsing \"x\": invalid syntax (--auto-gomemlimit.ratio)",
        );
        check_error(&["--storage.tsdb.retention.size=5"], "units: unknown unit  in 5 (--storage.tsdb.retention.size)");
        check_error(&["--log.level=x"], "unrecognized log level x (--log.level)");
        check_error(&["--log.format=x"], "unrecognized log format x (--log.format)");
        check_error(
            &["--storage.tsdb.wal-compression-type=x"],
            "enum value must be one of snappy,zstd, got 'x' (--storage.tsdb.wal-compression-type)",
        );
        check_error(&["--scrape.timestamp-tolerance=x"], "time: invalid duration \"x\" (--scrape.timestamp-tolerance)");
        check_error(
            &["--web.remote-write-receiver.accepted-protobuf-messages=x"],
            "unknown type for remote write protobuf message x, supported: prometheus.WriteRequest, \
             io.prometheus.write.v2.Request \
             (--web.remote-write-receiver.accepted-protobuf-messages)",
        );
        check_error(
            &["@/nonexistent"],
            "failed to open arguments file \"/nonexistent\": open /nonexistent: no such file or directory",
        );
    }

    #[test]
    fn words_stand_between_flags_and_behind_two_dashes() {
        let args = ["a", "--query.timeout", "3m", "b", "--agent", "--", "--c", "@d"].map(str::to_owned);
        let (outcome, words) = parse_with_words(FLAGS, &args).unwrap();
        assert!(matches!(outcome, Outcome::Values(values) if values.bool("agent")));
        assert_eq!(words, ["a", "b", "--c", "@d"]);
    }

    #[test]
    fn argument_files_expand_and_do_not_loop() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("args");
        fs::write(&path, "# comment\n\n--query.timeout=7s\n--web.page-title\nTwo words\n").unwrap();
        let values = values(&["--agent", &format!("@{}", path.display())]);
        assert_eq!(values.duration("query.timeout"), PromDuration::from_secs(7));
        assert_eq!(values.text("web.page-title"), "Two words");
        fs::write(&path, format!("@{}\n", path.display())).unwrap();
        assert!(matches!(run(&[&format!("@{}", path.display())]), Err(ParseError::FileLoop(_))));
    }

    #[test]
    fn the_table_is_sound() {
        for (i, spec) in FLAGS.iter().enumerate() {
            assert!(default(spec).is_ok(), "{}", spec.name);
            assert!(FLAGS.iter().skip(i + 1).all(|other| other.name != spec.name), "{} is there twice", spec.name);
            assert!(!spec.name.starts_with("no-") && !spec.help.is_empty(), "{}", spec.name);
        }
    }

    proptest! {
        #[test]
        fn any_arguments_are_fine(args in proptest::collection::vec("(--)?[a-z.=@-]{0,12}", 0..6)) {
            let args: Vec<String> = args;
            let _ = parse(FLAGS, &args);
        }
    }
}
