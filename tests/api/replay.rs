//! What clients send, replayed: one file a client with its requests, as `reference` clients write them, and the answers that it
//! got. A request is a line `> METHOD PATH`, headers as `> Name: value`, and a form as `> form …`; the answer is
//! `< STATUS TYPE` and, where it matters, the body. With `REPLAY_WRITE=1` in the environment the answers are written anew, whole.

use std::fs;
use std::path::Path;

use crate::client::{Setup, TestServer};

struct Exchange {
    request: Vec<String>,
    answer: String,
}

fn read(text: &str) -> Vec<Exchange> {
    let mut exchanges: Vec<Exchange> = Vec::new();
    // A blank line stands before each request.
    let mut begins = true;
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        if line.is_empty() {
            begins = true;
            continue;
        }
        match line.strip_prefix("> ") {
            Some(line) if std::mem::take(&mut begins) => {
                exchanges.push(Exchange { request: vec![line.to_owned()], answer: String::new() });
            }
            Some(line) => exchanges.last_mut().expect("it has begun").request.push(line.to_owned()),
            None => {
                let exchange = exchanges.last_mut().expect("an answer follows a request");
                exchange.answer.push_str(line);
                exchange.answer.push('\n');
            }
        }
    }
    exchanges
}

fn ask(server: &TestServer, request: &[String]) -> String {
    let (method, path) = request[0].split_once(' ').unwrap();
    let mut form = "";
    let mut headers = Vec::new();
    for line in &request[1..] {
        match line.strip_prefix("form ") {
            Some(fields) => {
                form = fields;
                headers.push(("Content-Type", "application/x-www-form-urlencoded"));
            }
            None => headers.push(line.split_once(": ").unwrap()),
        }
    }
    let answer = server.request(method, path, &headers, form);
    let kind = answer.header("Content-Type").unwrap_or_default();
    format!("< {} {kind}\n{}\n", answer.status, answer.text().trim_end())
}

#[track_caller]
fn replay(name: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/api/replay").join(format!("{name}.txt"));
    let text = fs::read_to_string(&path).unwrap();
    let server = TestServer::start(Setup::default());
    let exchanges = read(&text);
    assert!(3 < exchanges.len());
    if std::env::var_os("REPLAY_WRITE").is_some() {
        let about: String =
            text.lines().take_while(|line| line.starts_with('#')).map(|line| format!("{line}\n")).collect();
        let written = exchanges.iter().map(|exchange| {
            let request: String = exchange.request.iter().map(|line| format!("> {line}\n")).collect();
            format!("\n{request}{}", ask(&server, &exchange.request))
        });
        return fs::write(&path, about + &written.collect::<String>()).unwrap();
    }
    for exchange in exchanges {
        let answer = ask(&server, &exchange.request);
        assert!(answer.starts_with(&exchange.answer), "{name}: {:?} {answer}", exchange.request);
    }
}

#[test]
fn grafana() {
    replay("grafana");
}

#[test]
fn keda() {
    replay("keda");
}

#[test]
fn prometheus_adapter() {
    replay("prometheus-adapter");
}

#[test]
fn thanos_and_config_reloader() {
    replay("thanos");
}
