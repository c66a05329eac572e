//! URLs in configuration files, checked as Go's `url.Parse` checks them and written back without their password.

use super::yaml::{Abort, Decoded, Decoder, Node, Out, Yaml, text_of};
use crate::model::go;

/// A URL as it stands in the file; it may be relative. The empty text is a URL as well.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ConfigUrl {
    text: Option<String>,
}

impl ConfigUrl {
    /// Parses a URL. The texts of errors are those of Go's `net/url`, without the password.
    pub fn parse(text: &str) -> Result<Self, String> {
        check(text).map_err(|reason| format!("parse {}: {reason}", go::quote(&with_password_hidden(text))))?;
        Ok(Self { text: Some(text.to_owned()) })
    }

    /// True if a URL was given, be it the empty one.
    pub fn is_set(&self) -> bool {
        self.text.is_some()
    }

    /// The whole URL, its password included. Empty if none was given.
    pub fn expose(&self) -> &str {
        self.text.as_deref().unwrap_or("")
    }

    /// The scheme in lower case, or the empty text.
    pub fn scheme(&self) -> String {
        split_scheme(self.expose()).map_or(String::new(), |(scheme, _)| scheme.to_ascii_lowercase())
    }

    /// Host and port, or the empty text.
    pub fn host(&self) -> &str {
        authority(self.expose()).map_or("", |authority| authority.rsplit('@').next().unwrap_or(""))
    }

    /// The URL with `xxxxx` for its password, and with its path escaped as Go prints it.
    pub fn redacted(&self) -> String {
        let text = self.without_password();
        let (rest, fragment) = text.split_once('#').map_or((text.as_str(), None), |(rest, f)| (rest, Some(f)));
        let (rest, query) = rest.split_once('?').map_or((rest, None), |(rest, q)| (rest, Some(q)));
        let start = authority(rest).map_or(0, |host| rest.find(host).unwrap_or(0) + host.len());
        let (head, path) = rest.split_at_checked(start).unwrap_or(("", rest));
        let mut shown = head.to_owned();
        shown.push_str(&escaped_path(path));
        if let Some(query) = query {
            shown.push('?');
            shown.push_str(query);
        }
        if let Some(fragment) = fragment.filter(|f| !f.is_empty()) {
            shown.push('#');
            shown.push_str(fragment);
        }
        shown
    }

    fn without_password(&self) -> String {
        let text = self.expose();
        let Some(authority) = authority(text) else { return text.to_owned() };
        let Some((user, host)) = authority.rsplit_once('@') else { return text.to_owned() };
        let Some((name, _)) = user.split_once(':') else { return text.to_owned() };
        text.replacen(authority, &format!("{name}:xxxxx@{host}"), 1)
    }
}

impl std::fmt::Debug for ConfigUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.redacted())
    }
}

/// The path as it stands if it is well escaped, else unescaped and escaped anew.
fn escaped_path(path: &str) -> String {
    let kept = |b: u8| b.is_ascii_alphanumeric() || b"-_.~$&+,/:;=@".contains(&b);
    if path.bytes().all(|b| kept(b) || b"!'()*[]%".contains(&b)) {
        return path.to_owned();
    }
    let mut out = String::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let [head, tail @ ..] = rest {
        let hex = |b: u8| char::from(b).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        let (byte, after) = match (head, tail) {
            (b'%', [high, low, after @ ..]) => match (hex(*high), hex(*low)) {
                (Some(high), Some(low)) => (high << 4 | low, after),
                _ => (*head, tail),
            },
            _ => (*head, tail),
        };
        if kept(byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
        rest = after;
    }
    out
}

/// What stands between `//` and the path.
fn authority(text: &str) -> Option<&str> {
    let rest = split_scheme(text).map_or(text, |(_, rest)| rest).strip_prefix("//")?;
    rest.split(['/', '?', '#']).next()
}

/// Scheme and rest, if the text starts with a scheme.
fn split_scheme(text: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = text.split_once(':')?;
    let valid = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'));
    valid.then_some((scheme, rest))
}

fn check(text: &str) -> Result<(), String> {
    if text.bytes().any(|b| b < 0x20 || b == 0x7f) {
        return Err("net/url: invalid control character in URL".to_owned());
    }
    if text.starts_with(':') {
        return Err("missing protocol scheme".to_owned());
    }
    let (text, fragment) = text.split_once('#').map_or((text, ""), |(text, fragment)| (text, fragment));
    let rest = match split_scheme(text) {
        Some((_, rest)) => rest,
        None => {
            let colon = text.split('/').next().unwrap_or("").contains(':');
            let first = text.split('/').next().unwrap_or("");
            let scheme_like = first.split(':').next().unwrap_or("");
            let bad_scheme = first.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c))
                && scheme_like.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'));
            if colon && (bad_scheme || !first.starts_with('?')) {
                return Err("first path segment in URL cannot contain colon".to_owned());
            }
            text
        }
    };
    let (path, _query) = rest.split_once('?').unwrap_or((rest, ""));
    if let Some(authority) = path.strip_prefix("//").and_then(|rest| rest.split('/').next()) {
        check_host(authority.rsplit('@').next().unwrap_or(""))?;
    }
    check_escapes(path)?;
    check_escapes(fragment)
}

fn check_host(host: &str) -> Result<(), String> {
    let (name, port) = match host.strip_prefix('[') {
        Some(rest) => {
            let (inner, after) = rest.split_once(']').ok_or("missing ']' in host")?;
            (inner, after)
        }
        None => host.find(':').map_or((host, ""), |at| host.split_at(at)),
    };
    let digits = port.strip_prefix(':').unwrap_or(port);
    if !port.is_empty() && (!port.starts_with(':') || !digits.bytes().all(|b| b.is_ascii_digit())) {
        return Err(format!("invalid port {} after host", go::quote(port)));
    }
    match name.chars().find(|c| matches!(c, ' ' | '<' | '>' | '"' | '\\' | '^' | '`' | '{' | '|' | '}')) {
        Some(c) => Err(format!("invalid character {} in host name", go::quote(&c.to_string()))),
        None => Ok(()),
    }
}

fn check_escapes(text: &str) -> Result<(), String> {
    for (at, _) in text.match_indices('%') {
        let escape = text.get(at..).unwrap_or("");
        let escape: String = escape.chars().take(3).collect();
        if escape.len() < 3 || !escape.chars().skip(1).all(|c| c.is_ascii_hexdigit()) {
            return Err(format!("invalid URL escape {}", go::quote(&escape)));
        }
    }
    Ok(())
}

/// A URL that Prometheus keeps as plain text and prints whole; here its password is not shown.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct UrlText(String);

impl UrlText {
    /// Keeps a URL as written, right or wrong.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The whole URL, its password included.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// As written, but with `xxxxx` for the password.
    pub fn redacted(&self) -> String {
        ConfigUrl { text: Some(self.0.clone()) }.without_password()
    }
}

/// A text that is no URL, with `xxxxx` for what might be meant as a password.
fn with_password_hidden(text: &str) -> String {
    let Some((before, host)) = text.rsplit_once('@') else { return text.to_owned() };
    let start = before.find("//").map_or(0, |slashes| slashes + 2);
    let (scheme, userinfo) = before.split_at_checked(start).unwrap_or(("", before));
    match userinfo.split_once(':') {
        Some((user, _)) => format!("{scheme}{user}:xxxxx@{host}"),
        None => text.to_owned(),
    }
}

impl std::fmt::Debug for UrlText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.redacted())
    }
}

impl Yaml for UrlText {
    fn go_type() -> String {
        "string".to_owned()
    }
    fn decode(&mut self, node: &Node, decoder: &mut Decoder) -> Decoded {
        let Some(text) = text_of(node, decoder, "string")? else { return Ok(false) };
        text.clone_into(&mut self.0);
        Ok(true)
    }
    fn encode(&self) -> Out {
        Out::Text(self.redacted())
    }
    fn is_zero(&self) -> bool {
        self.0.is_empty()
    }
}

impl Yaml for ConfigUrl {
    fn go_type() -> String {
        "config.URL".to_owned()
    }
    fn decode(&mut self, node: &Node, decoder: &mut Decoder) -> Decoded {
        let Some(text) = text_of(node, decoder, "string")? else { return Ok(false) };
        *self = Self::parse(text).map_err(|message| Abort::at(node, message))?;
        Ok(true)
    }
    fn encode(&self) -> Out {
        if self.is_set() { Out::Text(self.redacted()) } else { Out::Null }
    }
    fn is_zero(&self) -> bool {
        !self.is_set()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hides_the_password() {
        let url = ConfigUrl::parse("https://me:pw@host:80/a?b=me:pw@").unwrap();
        assert_eq!(url.redacted(), "https://me:xxxxx@host:80/a?b=me:pw@");
        assert_eq!((url.scheme().as_str(), url.host()), ("https", "host:80"));
        assert_eq!(format!("{url:?}"), url.redacted());
        assert_eq!(ConfigUrl::parse("http://me@host").unwrap().redacted(), "http://me@host");
    }

    #[test]
    fn plain_texts_hide_the_password_too() {
        let url = UrlText("https://me:p w@host/sd?a=b c".to_owned());
        assert_eq!(
            (url.redacted().as_str(), url.expose()),
            ("https://me:xxxxx@host/sd?a=b c", "https://me:p w@host/sd?a=b c")
        );
        assert_eq!(format!("{url:?}"), url.redacted());
        for plain in ["", "http://host/a%20b?x=y@z", "not a url", "http://me@host"] {
            assert_eq!(UrlText(plain.to_owned()).redacted(), plain);
        }
    }

    #[test]
    fn refuses_what_go_refuses() {
        let error = |text: &str| ConfigUrl::parse(text).unwrap_err();
        assert_eq!(error("http://a b/"), "parse \"http://a b/\": invalid character \" \" in host name");
        assert_eq!(error("http://h:x/"), "parse \"http://h:x/\": invalid port \":x\" after host");
        assert_eq!(error(":80"), "parse \":80\": missing protocol scheme");
        assert_eq!(error("127.0.0.1:80"), "parse \"127.0.0.1:80\": first path segment in URL cannot contain colon");
        assert_eq!(error("://me:p:w@h"), "parse \"://me:xxxxx@h\": missing protocol scheme");
        assert_eq!(error("http://h/%zz"), "parse \"http://h/%zz\": invalid URL escape \"%zz\"");
        assert!(ConfigUrl::parse("http://[::1]:80/x").is_ok());
        assert!(ConfigUrl::parse("").is_ok());
    }
}
