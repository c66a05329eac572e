//! File names in configuration files: relative ones count from the folder of the file that names them.

use std::ops::Deref;

use super::yaml::{Decoded, Decoder, Node, Out, Yaml};

/// A file name or a pattern; empty if none is set.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FilePath(String);

impl FilePath {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<T: Into<String>> From<T> for FilePath {
    fn from(text: T) -> Self {
        Self(text.into())
    }
}

impl Deref for FilePath {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

/// Puts `dir` before a relative `path` and tidies the result, as Go's `filepath.Join` does. Empty and absolute paths
/// stay as they are.
pub fn join(dir: &str, path: &str) -> String {
    if path.is_empty() || path.starts_with('/') {
        return path.to_owned();
    }
    clean(&if dir.is_empty() { path.to_owned() } else { format!("{dir}/{path}") })
}

/// The folder part of a file name (`filepath.Dir`): `.` if there is none.
pub fn dir_of(file: &str) -> String {
    match file.rfind('/') {
        Some(at) => clean(file.get(..=at).unwrap_or(file)),
        None => ".".to_owned(),
    }
}

/// The shortest equal path (`filepath.Clean`), without looking at any file.
fn clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => drop(parts.pop()),
            ".." if rooted => {}
            _ => parts.push(part),
        }
    }
    let joined = parts.join("/");
    match (rooted, joined.is_empty()) {
        (true, _) => format!("/{joined}"),
        (false, true) => ".".to_owned(),
        (false, false) => joined,
    }
}

impl Yaml for FilePath {
    fn go_type() -> String {
        String::go_type()
    }
    fn decode(&mut self, node: &Node, decoder: &mut Decoder) -> Decoded {
        self.0.decode(node, decoder)
    }
    fn encode(&self) -> Out {
        self.0.encode()
    }
    fn is_zero(&self) -> bool {
        self.0.is_empty()
    }
    fn resolve_paths(&mut self, dir: &str) {
        self.0 = join(dir, &self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joins_like_go() {
        assert_eq!(join("/etc/prom", "rules/*.yml"), "/etc/prom/rules/*.yml");
        assert_eq!(join("a/./b", "../c"), "a/c");
        assert_eq!(join(".", "c"), "c");
        assert_eq!(join("..", "../c"), "../../c");
        assert_eq!(join("/a", "/b"), "/b");
        assert_eq!(join("/a", ""), "");
        assert_eq!(dir_of("prometheus.yml"), ".");
        assert_eq!(dir_of("/prometheus.yml"), "/");
        assert_eq!(dir_of("a/b/c.yml"), "a/b");
    }
}
