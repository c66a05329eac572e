//! Endpoints outside the API.

use std::sync::atomic::Ordering;

use watchfire::http::state::Ready;

use crate::client::{Setup, TestServer};

#[track_caller]
fn check(server: &TestServer, method: &str, path: &str, status: u16, body: &str) {
    let answer = server.request(method, path, &[], "");
    assert_eq!((answer.status, answer.text().as_str()), (status, body), "{method} {path}");
}

#[test]
fn health_and_readiness() {
    let server = TestServer::start(Setup { ready: Ready::NotYet, ..Setup::default() });
    check(&server, "GET", "/-/healthy", 200, "Prometheus Server is Healthy.\n");
    check(&server, "HEAD", "/-/healthy", 200, "");
    check(&server, "GET", "/-/ready", 503, "Service Unavailable");
    let answer = server.get("/api/v1/query?query=up");
    assert_eq!((answer.status, answer.text().as_str()), (503, "Service Unavailable"));
    assert_eq!(answer.header("X-Prometheus-Stopping").as_deref(), Some("false"));
    server.readiness.set(Ready::Yes);
    check(&server, "GET", "/-/ready", 200, "Prometheus Server is Ready.\n");
    check(&server, "HEAD", "/-/ready", 200, "");
    assert_eq!(server.metric("prometheus_ready", &[]), 1.0);
    server.readiness.set(Ready::Impaired("shard 3 has failed".to_owned()));
    check(&server, "GET", "/-/ready", 503, "Service Unavailable: shard 3 has failed\n");
    assert_eq!(server.get("/api/v1/query?query=up").status, 200);
    server.readiness.set(Ready::Stopping);
    let answer = server.get("/-/ready");
    assert_eq!(answer.header("X-Prometheus-Stopping").as_deref(), Some("true"));
    check(&server, "GET", "/-/healthy", 200, "Prometheus Server is Healthy.\n");
    assert_eq!(server.metric("prometheus_ready", &[]), 0.0);
}

#[test]
fn lifecycle_is_off_unless_switched_on() {
    let server = TestServer::start(Setup::default());
    for path in ["/-/reload", "/-/quit"] {
        check(&server, "GET", path, 405, "Only POST or PUT requests allowed");
        check(&server, "POST", path, 403, "Lifecycle API is not enabled.");
        check(&server, "PUT", path, 403, "Lifecycle API is not enabled.");
        check(&server, "DELETE", path, 405, "Method Not Allowed\n");
    }
    assert_eq!(
        server.request("DELETE", "/-/quit", &[], "").header("Allow").as_deref(),
        Some("GET, OPTIONS, POST, PUT")
    );
    let answer = server.request("POST", "/api/watchfire/v1/reload", &[], "");
    let body = r#"{"status":"error","errorType":"forbidden","error":"Lifecycle API is not enabled."}"#;
    assert_eq!((answer.status, answer.text().as_str()), (403, body));
    assert_eq!(server.ports.reloads.load(Ordering::SeqCst), 0);
    assert_eq!(server.ports.quits.load(Ordering::SeqCst), 0);
}

#[test]
fn lifecycle_works_when_switched_on() {
    let server = TestServer::start(Setup { enable_lifecycle: true, ..Setup::default() });
    check(&server, "POST", "/-/reload", 200, "");
    check(&server, "PUT", "/-/reload", 200, "");
    let answer = server.request("POST", "/api/watchfire/v1/reload", &[], "");
    assert_eq!(answer.text(), r#"{"status":"success","data":{"reloaded":true}}"#);
    assert_eq!(server.ports.reloads.load(Ordering::SeqCst), 3);
    server.ports.reload_fails.store(true, Ordering::SeqCst);
    check(&server, "POST", "/-/reload", 500, "failed to reload config: one or more errors <x>\n");
    assert_eq!(server.request("POST", "/api/watchfire/v1/reload", &[], "").status, 500);
    let none = "{\"count\":0,\"first\":[]}";
    let expected = format!(
        "{{\"status\":\"success\",\"data\":{{\"trigger\":\"http\",\"startedAt\":\"1970-01-01T00:00:01Z\",\
         \"durationSeconds\":0.5,\"success\":false,\"error\":\"no \\u003cx\\u003e\",\"inProgress\":false,\"plan\":\
         [{{\"what\":\"job\",\"kept\":2,\"added\":{{\"count\":2,\"first\":[\"a\"]}},\"removed\":{none},\"changed\":{none}}}],\
         \"unconfirmed\":[\"scrape_pool a: no answer in time\"]}}}}"
    );
    assert_eq!(server.request("GET", "/api/watchfire/v1/reload", &[], "").text(), expected);
    check(&server, "POST", "/-/quit", 200, "Requesting termination... Goodbye!");
    check(&server, "PUT", "/-/quit", 200, "Termination already in progress.");
    check(&server, "GET", "/-/quit", 405, "Only POST or PUT requests allowed");
}

#[test]
fn redirects_stay_below_the_external_path() {
    let server = TestServer::start(Setup::default());
    let to = |path: &str| server.get(path).header("Location");
    check(&server, "GET", "/", 302, "<a href=\"/query\">Found</a>.\n\n");
    assert_eq!(to("/").as_deref(), Some("/query"));
    assert_eq!(to("/graph?g0.expr=up&a=b").as_deref(), Some("/query?g0.expr=up&a=b"));
    assert_eq!(to("/-/healthy/").as_deref(), Some("/-/healthy"));
    assert_eq!(server.get("/-/healthy/").status, 301);
    assert_eq!(to("/api/v1/query/?query=1").as_deref(), Some("/api/v1/query?query=1"));
    assert_eq!(to("/api/v1/label/a%20b/values/").as_deref(), Some("/api/v1/label/a%20b/values"));

    let server = TestServer::start(Setup { external_url: "https://x.org//prom//", ..Setup::default() });
    assert_eq!(server.get("/prom/").header("Location").as_deref(), Some("/prom/query"));

    let server = TestServer::start(Setup { external_url: "https://x.org/prom/", ..Setup::default() });
    let to = |path: &str| server.get(path).header("Location");
    assert_eq!(to("/").as_deref(), Some("/prom"));
    assert_eq!(to("/prom").as_deref(), Some("/prom/"));
    assert_eq!(to("/prom/").as_deref(), Some("/prom/query"));
    assert_eq!(server.get("/prom/-/ready").status, 200);
    assert_eq!(server.get("/-/ready").status, 404);
    assert_eq!(server.get("/prom/api/v1/labels").status, 200);
}

#[test]
fn unknown_paths_and_methods() {
    let server = TestServer::start(Setup::default());
    check(&server, "GET", "/nope", 404, "404 page not found\n");
    check(&server, "GET", "/api/v1/nope", 404, "404 page not found\n");
    check(&server, "GET", "/%ff", 404, "404 page not found\n");
    assert_eq!(server.get("/nope").header("X-Content-Type-Options").as_deref(), Some("nosniff"));
    for (method, path, allow) in [
        ("POST", "/", "GET, OPTIONS"),
        ("HEAD", "/metrics", "GET, OPTIONS"),
        ("POST", "/-/healthy", "GET, HEAD, OPTIONS"),
        ("PUT", "/api/v1/query", "GET, OPTIONS, POST"),
        ("HEAD", "/api/v1/query?query=1", "GET, OPTIONS, POST"),
    ] {
        let answer = server.request(method, path, &[], "");
        assert_eq!((answer.status, answer.header("Allow").as_deref()), (405, Some(allow)), "{method} {path}");
    }
    let answer = server.request("OPTIONS", "/", &[], "");
    assert_eq!((answer.status, answer.header("Allow").as_deref()), (200, Some("GET, OPTIONS")));
}

#[test]
fn metrics_and_version() {
    let server = TestServer::start(Setup::default());
    let answer = server.request("GET", "/metrics", &[("Accept", "application/openmetrics-text")], "");
    assert_eq!(answer.text(), "# accept application/openmetrics-text\nup 1\n");
    assert_eq!(answer.header("Content-Type").as_deref(), Some("text/plain; version=0.0.4; charset=utf-8"));
    assert_eq!(server.metric("promhttp_metric_handler_requests_total", &[("code", "200")]), 1.0);
    assert_eq!(server.metric("promhttp_metric_handler_requests_in_flight", &[]), 0.0);
    let version: serde_json::Value = serde_json::from_slice(&server.get("/version").body).unwrap();
    assert_eq!(version["version"], "3.14.0");
}

#[test]
fn requests_are_counted_by_handler_and_code() {
    let server = TestServer::start(Setup::default());
    let requests = |handler: &str, code: &str| {
        server.metric("prometheus_http_requests_total", &[("handler", handler), ("code", code)])
    };
    assert_eq!(requests("/api/v1/label/:name/values", "200"), 0.0);
    server.get("/api/v1/label/a/values");
    server.get("/api/v1/label/b/values");
    server.get("/api/v1/label/b/values?limit=x");
    server.get("/nope");
    server.request("PUT", "/api/v1/labels", &[], "");
    assert_eq!(
        (requests("/api/v1/label/:name/values", "200"), requests("/api/v1/label/:name/values", "400")),
        (2.0, 1.0)
    );
    assert_eq!(requests("/api/v1/labels", "405"), 0.0);
    let durations = "prometheus_http_request_duration_seconds";
    assert_eq!(server.metric(durations, &[("handler", "/api/v1/label/:name/values")]), 3.0);
    assert_eq!(server.metric("net_conntrack_listener_conn_accepted_total", &[("listener_name", "http")]), 5.0);
}
