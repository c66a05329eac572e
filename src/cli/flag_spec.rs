//! What a flag is: name, kind, default, scope, and what works behind it.

/// How a flag's text is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// On or off, without a value of its own.
    Switch,
    /// Any text.
    Text,
    /// Any text, repeatable.
    List,
    /// A whole number; exponent forms as `5e7` are fine.
    Integer,
    /// A number.
    Float,
    /// A Prometheus duration.
    Duration,
    /// A Go duration.
    GoDuration,
    /// A size with its unit.
    Size,
    /// A size, or nothing for "as fits this machine".
    AutoSize,
    /// One of these words.
    Word(&'static [&'static str]),
    /// A log level.
    LogLevel,
    /// A log format.
    LogFormat,
    /// Remote-write message types, repeatable; the first one given replaces the default.
    Messages(&'static [&'static str]),
}

/// Which mode a flag belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Both.
    Any,
    /// Refused with `--agent`.
    Server,
    /// Refused without `--agent`.
    Agent,
}

/// What works today behind a flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It does what it says.
    Works,
    /// It has nothing to do here and needs no remark.
    Nothing,
    /// Protective and not built: the server refuses to start with it.
    Refused,
    /// Additive and not built: one warning at the start.
    Warned,
}

/// One flag.
#[derive(Clone, Copy, Debug)]
pub struct FlagSpec {
    /// Name without the dashes.
    pub name: &'static str,
    /// How its text is read.
    pub kind: Kind,
    /// Text when not given. For lists: comma separated.
    pub default: &'static str,
    /// Which mode it belongs to.
    pub scope: Scope,
    /// True if `--help` leaves it out.
    pub hidden: bool,
    /// What works behind it.
    pub effect: Effect,
    /// Heading in `--help`.
    pub group: &'static str,
    /// Explanation in `--help`.
    pub help: &'static str,
}
