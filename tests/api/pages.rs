//! Pages for people: they show what is there, and nothing in them can be injected.

use watchfire::http::state::Ready;

use crate::client::{Answer, Setup, TestServer};

const PATHS: [&str; 8] =
    ["/query?g0.expr=up", "/alerts", "/rules", "/targets", "/actors", "/config", "/flags", "/status"];

fn assert_safe(answer: &Answer, path: &str) {
    assert_eq!(answer.header("Content-Type").as_deref(), Some("text/html; charset=utf-8"), "{path}");
    let policy = answer.header("Content-Security-Policy").unwrap();
    assert!(policy.starts_with("default-src 'none'; style-src 'self';") && !policy.contains("unsafe"), "{policy}");
    assert_eq!(answer.header("X-Content-Type-Options").as_deref(), Some("nosniff"));
    assert_eq!(answer.header("X-Frame-Options").as_deref(), Some("DENY"));
    let text = answer.text();
    for bad in ["<script", "<img", "style=", "onerror", "<title>A <title>", "<b>\"", "<1>", "<y>", "<j>"] {
        assert!(!text.contains(bad), "{path} contains {bad}");
    }
}

#[test]
fn pages_show_their_data_and_escape_it() {
    let server = TestServer::start(Setup::default());
    for (path, shown) in PATHS.iter().zip([
        "up{instance=&#34;a:1&#34;, job=&#34;&lt;j&gt;&amp;&#34;}",
        "hi &lt;1&gt;",
        "vector(1) &gt; 0",
        "http://other:1/m?a=&lt;script&gt;",
        "p/&lt;img src=x&gt;",
        "x: &lt;secret&gt;",
        "--web.cors.origin",
        "15d or 1GiB",
    ]) {
        let answer = server.get(path);
        assert_eq!(answer.status, 200, "{path}");
        assert_safe(&answer, path);
        assert!(answer.text().contains(shown), "{path} does not show {shown}:\n{}", answer.text());
        assert!(answer.text().contains("A &lt;title&gt;</title>"), "{path}");
    }
}

#[test]
fn what_is_typed_cannot_become_markup() {
    let server = TestServer::start(Setup::default());
    let evil = "%22%3E%3Cscript%3Ealert(1)%3C/script%3E";
    for path in
        [format!("/query?g0.expr={evil}"), format!("/query?g0.expr=up&g0.time={evil}"), format!("/query?query={evil}")]
    {
        let answer = server.get(&path);
        assert_safe(&answer, &path);
        assert!(answer.text().contains("&#34;&gt;&lt;script&gt;"), "{path}");
    }
    let answer = server.get("/query?g0.expr=up&g0.time=x");
    assert!(answer.text().contains("cannot parse &#34;x&#34; to a valid timestamp"));
}

#[test]
fn the_query_page_shows_all_kinds_of_results() {
    let server = TestServer::start(Setup::default());
    for (expr, shown) in [
        ("1e-7", "1e-07"),
        ("text", "<pre>&lt;b&gt;</pre>"),
        ("none", "vector, 0 rows"),
        ("remarks", "PromQL warning: &lt;w&gt;"),
        ("big", "5000 rows (the first 1000 are shown)"),
        ("timeout", "query timed out in expression evaluation"),
    ] {
        let text = server.get(&format!("/query?g0.expr={expr}")).text();
        assert!(text.contains(shown), "{expr} does not show {shown}:\n{text}");
    }
    assert!(server.ports.instant.lock().unwrap().len() == 6);
    server.get("/query");
    assert!(server.ports.instant.lock().unwrap().len() == 6, "an empty box asks nothing");
}

#[test]
fn pages_work_below_a_prefix_and_before_the_server_is_ready() {
    let setup = Setup { external_url: "https://x.org/prom", ready: Ready::NotYet, ..Setup::default() };
    let server = TestServer::start(setup);
    let answer = server.get("/prom/targets");
    assert_eq!(answer.status, 200);
    assert!(answer.text().contains("href=\"/prom/assets/style.css\"") && answer.text().contains("is starting"));
    let style = server.get("/prom/assets/style.css");
    assert_eq!((style.status, style.header("Content-Type").as_deref()), (200, Some("text/css; charset=utf-8")));
    assert_eq!(server.get("/prom/assets/nope.css").status, 404);
    assert_eq!(server.get("/prom/favicon.svg").header("Content-Type").as_deref(), Some("image/svg+xml"));
    assert!(server.get("/prom/query?g0.expr=up").text().contains("Service Unavailable"));
    assert!(server.ports.instant.lock().unwrap().is_empty());
}

#[test]
fn the_page_of_alerts_shows_whom_the_dispatcher_tells() {
    let server = TestServer::start(Setup::default());
    let text = server.get("/alerts").text();
    for shown in ["{alertname=&#34;Al&lt;b&gt;&#34;}", "team", "no &lt;y&gt;"] {
        assert!(text.contains(shown), "{shown} is not in\n{text}");
    }
}
