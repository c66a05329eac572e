//! URLs as Go's `url.URL` prints them. Browsers, and crates that follow them, escape fewer characters and drop default
//! ports; the text is part of a target's identity and stands in the API.

use std::collections::BTreeMap;
use std::fmt::Write as _;

/// `scheme://host/path?query` from unescaped parts; `params` are written in order of their keys.
pub fn join(scheme: &str, host: &str, path: &str, params: &BTreeMap<&str, Vec<&str>>) -> String {
    let mut url = format!("{scheme}://");
    escape(&mut url, host, |byte| matches!(byte, b'!'..=b'"' | b'$' | b'&'..=b',' | b':'..=b'>' | b'[' | b']'));
    if !path.is_empty() && !path.starts_with('/') {
        url.push('/');
    }
    // Go leaves a path of one asterisk as it is: the target of `OPTIONS *`.
    let keeps = |byte| matches!(byte, b'$' | b'&' | b'+' | b',' | b'/' | b':' | b';' | b'=' | b'@');
    escape(&mut url, path, |byte| keeps(byte) || path == "*");
    let pairs = params.iter().flat_map(|(key, values)| values.iter().map(move |value| (key, value)));
    for (index, (key, value)) in pairs.enumerate() {
        url.push(if index == 0 { '?' } else { '&' });
        query(&mut url, key);
        url.push('=');
        query(&mut url, value);
    }
    url
}

/// A text as part of a query or of a form, as Go's `url.QueryEscape` writes it.
pub fn query_escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    query(&mut escaped, text);
    escaped
}

fn query(url: &mut String, text: &str) {
    for (index, word) in text.split(' ').enumerate() {
        if 0 < index {
            url.push('+');
        }
        escape(url, word, |_| false);
    }
}

/// Percent-encodes all but letters, digits, `-_.~`, and what `keeps` says.
fn escape(url: &mut String, text: &str, keeps: impl Fn(u8) -> bool) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') || keeps(byte) {
            url.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(url, "%{byte:02X}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(host: &str, path: &str, params: &[(&'static str, &[&'static str])], url: &str) {
        let params = params.iter().map(|(key, values)| (*key, values.to_vec())).collect();
        assert_eq!(join("http", host, path, &params), url);
    }

    /// Expected texts are what Go prints.
    #[test]
    fn parts_are_escaped_as_in_go() {
        check("h:9100", "/metrics", &[], "http://h:9100/metrics");
        check("h", "", &[], "http://h");
        check("[fe80::1]:80", "m", &[], "http://[fe80::1]:80/m");
        let kept = "/$&+,/:;=@-_.~";
        check("h", kept, &[], &format!("http://h{kept}"));
        check("h", "/!\"#%'()*<>?[\\]^`{|}", &[], "http://h/%21%22%23%25%27%28%29%2A%3C%3E%3F%5B%5C%5D%5E%60%7B%7C%7D");
        check("h", "/a b\u{e9}", &[], "http://h/a%20b%C3%A9");
        check("h", "*", &[], "http://h/*");
        check("u@h", "/", &[], "http://u%40h/");
        check(
            "h",
            "/m",
            &[("b", &["1 2", "~*'"]), ("a[]", &["/&="]), ("c", &[])],
            "http://h/m?a%5B%5D=%2F%26%3D&b=1+2&b=~%2A%27",
        );
        check("h", "/m", &[("", &[""])], "http://h/m?=");
    }
}
