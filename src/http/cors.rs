//! Cross-origin headers of API answers, as Prometheus sends them.

use crate::model::regexp::Regexp;

/// Headers for a request from `origin`, if it names one. An origin that does not match gets no permission.
pub(super) fn headers(allowed: &Regexp, origin: Option<&str>) -> Vec<(&'static str, String)> {
    let mut headers = vec![("Vary", "Origin".to_owned())];
    let Some(origin) = origin.filter(|origin| !origin.is_empty()) else { return headers };
    for (name, value) in [
        ("Access-Control-Allow-Headers", "Accept, Authorization, Content-Type, Origin"),
        ("Access-Control-Allow-Methods", "GET, POST, OPTIONS"),
        ("Access-Control-Expose-Headers", "Date"),
    ] {
        headers.push((name, value.to_owned()));
    }
    if allowed.is_match(origin) {
        headers.push(("Access-Control-Allow-Origin", origin.to_owned()));
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(pattern: &str, origin: Option<&str>) -> Option<String> {
        let headers = headers(&Regexp::anchored(pattern).unwrap(), origin);
        assert_eq!(headers[0], ("Vary", "Origin".to_owned()));
        headers.into_iter().find(|(name, _)| *name == "Access-Control-Allow-Origin").map(|(_, value)| value)
    }

    #[test]
    fn matching_origins_are_echoed() {
        assert_eq!(allowed(".*", Some("http://x")).as_deref(), Some("http://x"));
        assert_eq!(allowed("https?://(a|b)\\.com", Some("https://a.com")).as_deref(), Some("https://a.com"));
        assert_eq!(allowed("https?://(a|b)\\.com", Some("https://a.com.evil.org")), None);
        assert_eq!(allowed(".*", None), None);
    }
}
