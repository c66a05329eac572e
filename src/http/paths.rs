//! Paths as clients write them and as Go's `ServeMux` has them: it sends a client to the path without `//`, `.` and `..`.
//! Links that were joined carelessly (`http://host//api/v1/query`) work that way.

use std::fmt::Write as _;

/// The path to go to, if `path` is not written as it should be. `root` is a folder with routes of its own, which may be
/// asked for without its slash.
pub(super) fn cleaned(path: &str, root: &str) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    let mut clean = format!("/{}", parts.join("/"));
    let is_folder = path.ends_with('/') || root.strip_suffix('/') == Some(clean.as_str());
    if is_folder && clean != "/" {
        clean.push('/');
    }
    (clean != path).then_some(clean)
}

/// A decoded path with the escapes that Go gives it.
pub(super) fn escaped(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~$&+,/:;=@".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned_as_go_does() {
        for (path, expected) in [
            ("/", None),
            ("/api/v1/query", None),
            ("/api/v1/label/a b/values", None),
            ("/-/healthy/", None),
            ("//api/v1/query", Some("/api/v1/query")),
            ("/api/v1/../v1/./query", Some("/api/v1/query")),
            ("/../..", Some("/")),
            ("//", Some("/")),
            ("/api/v1//", Some("/api/v1/")),
            ("/api/v1", Some("/api/v1/")),
            ("", Some("/")),
        ] {
            assert_eq!(cleaned(path, "/api/v1/").as_deref(), expected, "{path}");
        }
    }

    #[test]
    fn escapes_are_those_of_go() {
        assert_eq!(escaped("/a b/é?#%\"'(c)~$&+,:;=@-_."), "/a%20b/%C3%A9%3F%23%25%22%27%28c%29~$&+,:;=@-_.");
    }
}
