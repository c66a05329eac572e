//! Takes user names and passwords out of URLs before they reach a log.

use std::borrow::Cow;

/// `text` with the userinfo cut out of every URL in it: `http://u:p@host/x` becomes `http://host/x`.
pub fn cut_userinfo(text: &str) -> Cow<'_, str> {
    let mut out: Option<String> = None;
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (head, tail) = rest.split_at(at + 3);
        let end = authority_len(tail);
        let (authority, after) = tail.split_at(end);
        let kept = userinfo_len(authority).map_or(authority, |len| authority.split_at(len).1);
        if kept.len() < authority.len() && out.is_none() {
            out = Some(text.get(..text.len() - rest.len()).unwrap_or_default().to_owned());
        }
        if let Some(out) = &mut out {
            out.push_str(head);
            out.push_str(kept);
        }
        rest = after;
    }
    match out {
        Some(mut out) => {
            out.push_str(rest);
            Cow::Owned(out)
        }
        None => Cow::Borrowed(text),
    }
}

/// Length of the userinfo with the sign that ends it. An `@` is escaped where somebody took the userinfo for a part of
/// the host.
fn userinfo_len(authority: &str) -> Option<usize> {
    let end = |sign: &str| authority.rfind(sign).map(|at| at + sign.len());
    end("@").max(end("%40"))
}

/// Where the authority of a URL ends. A password may hold spaces when somebody wrote it unescaped; then the last `@`
/// before the path still ends it.
fn authority_len(tail: &str) -> usize {
    let hard = tail.find(['/', '?', '#', '"', '\'', '\n', '<', '>']).unwrap_or(tail.len());
    let (authority, _) = tail.split_at(hard);
    let soft = authority.find([' ', ',', ';', ')']).unwrap_or(hard);
    match authority.rfind('@') {
        Some(at) if soft < at && !authority.contains("://") => {
            let (_, host) = authority.split_at(at);
            at + host.find([' ', ',', ';', ')']).unwrap_or(host.len())
        }
        _ => soft,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &str) {
        assert_eq!(cut_userinfo(text), expected);
    }

    #[test]
    fn cuts_user_and_password() {
        check("no url", "no url");
        check("http://host/path", "http://host/path");
        check("http://u:p@host:9090/path?x=a@b", "http://host:9090/path?x=a@b");
        check("Get \"https://u@h/x\": and http://a:b@c", "Get \"https://h/x\": and http://c");
        check("http://user:pa ss@host/x", "http://host/x");
        check("http://a@b@c/", "http://c/");
        check("invalid target URL \"http://u:p%40h:1/metrics\"", "invalid target URL \"http://h:1/metrics\"");
        check("http://h/a%40b", "http://h/a%40b");
        check("see http://h and mail me@example.org", "see http://example.org");
    }

    proptest! {
        #[test]
        fn never_panics_and_leaves_no_userinfo(user in "[a-z]{1,5}", pass in "[a-zA-Z0-9:!*]{1,9}", host in "[a-z]{1,5}") {
            let text = format!("x http://{user}:{pass}@{host}/p y");
            prop_assert_eq!(cut_userinfo(&text), format!("x http://{host}/p y"));
        }
        #[test]
        fn any_text_is_fine(text in ".*") {
            let _ = cut_userinfo(&text);
        }
    }
}
