//! HTTP discovery.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::double::{Double, Reply, addresses, assert_labels, json, refusal, start};

#[tokio::test]
async fn groups_carry_the_url_and_failures_leave_what_was_found() {
    let turn = Arc::new(AtomicUsize::new(0));
    let turns = Arc::clone(&turn);
    let double = Double::start(move |_| match turns.fetch_add(1, Ordering::Relaxed) {
        0 => json(r#"[{"targets":["a:1","b:2"],"labels":{"zone":"z","empty":""}},{"targets":["c:3"]}]"#),
        1 => refusal(503, "later"),
        2 => {
            Reply::Whole { status: 200, headers: vec![("Content-Type".into(), "text/html".into())], body: "[]".into() }
        }
        3 => json("[null]"),
        4 => json("[{"),
        _ => json("[]"),
    });
    let url = format!("http://{}/sd?x=1", double.addr);
    let config = format!(
        "http_sd_configs: [{{url: '{url}', refresh_interval: 5ms, basic_auth: {{username: u, password: p}}, \
         http_headers: {{X-Key: {{secrets: [s]}}}}}}]"
    );
    let mut running = start(&config);
    let groups = running.groups().await;
    assert_eq!(addresses(&groups), ["a:1", "b:2", "c:3"]);
    assert_labels(&groups[0].labels, &[("zone", "z"), ("__meta_url", &url)]);
    assert_eq!((groups[0].source.as_str(), groups[1].source.as_str()), (&*format!("{url}:0"), &*format!("{url}:1")));
    for expected in
        ["server returned HTTP status 503", "unsupported content type \"text/html\"", "nil target group", ""]
    {
        let (failure, kept) = running.failure().await;
        assert!(failure.contains(expected) && kept.is_none(), "{failure}");
    }
    assert!(running.groups().await.is_empty(), "groups that are gone are gone");
    assert_eq!(running.metric("prometheus_sd_http_failures_total"), 4.0);
    assert_eq!(running.metric("prometheus_sd_refresh_failures_total"), 4.0);
    assert!(6.0 <= running.metric("prometheus_sd_refresh_duration_seconds"));
    assert!(6.0 <= running.metric("prometheus_sd_refresh_duration_histogram_seconds"));
    let asked = &double.asked()[0];
    assert_eq!((asked.method.as_str(), asked.path.as_str(), asked.param("x")), ("GET", "/sd", Some("1")));
    assert_eq!(asked.header("accept"), Some("application/json"));
    assert_eq!(asked.header("x-prometheus-refresh-interval-seconds"), Some("0.005"));
    assert_eq!(asked.header("authorization"), Some("Basic dTpw"));
    assert_eq!(asked.header("x-key"), Some("s"));
    assert!(asked.header("user-agent").unwrap().contains("3.14"), "{asked:?}");
}

#[tokio::test]
async fn an_endless_answer_is_cut_off_at_the_interval() {
    let (send, pieces) = std::sync::mpsc::channel();
    let pieces = std::sync::Mutex::new(Some(pieces));
    let double = Double::start(move |_| match pieces.lock().unwrap().take() {
        Some(pieces) => Reply::Stream(pieces),
        None => json(r#"[{"targets":["a:1"]}]"#),
    });
    send.send("[".to_owned()).unwrap();
    let mut running = start(&format!("http_sd_configs: [{{url: 'http://{}', refresh_interval: 300ms}}]", double.addr));
    // The first answer begins and does not end.
    let (failure, _) = running.failure().await;
    assert!(failure.contains("context deadline exceeded"), "{failure}");
    assert_eq!(addresses(&running.groups().await), ["a:1"]);
    drop(send);
}
