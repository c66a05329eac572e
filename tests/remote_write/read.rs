//! Remote read through the front door, both ways: what a server answers, and what another one makes of it.

use std::fs;

use watchfire::model::labels::Labels;
use watchfire::remote::read::{AnswerError, Frames, ReadMatcher, ReadQuery, ReadRequest, encode_request, sampled};

use super::{ON, now_ms, series, start, v1, write_v1};
use crate::support::{Answer, Server, request, wait_for};

fn read(server: &Server, query: ReadQuery, accepted: &[i32]) -> Answer {
    let body = encode_request(&ReadRequest { queries: vec![query], accepted: accepted.to_vec() });
    request(&server.addr, "POST", "/api/v1/read", &[("Content-Type", "application/x-protobuf")], &body).unwrap()
}

fn named(name: &str, kind: i32, value: &str, end_ms: i64) -> ReadQuery {
    let matcher = ReadMatcher { kind, name: name.to_owned(), value: value.to_owned() };
    ReadQuery { start_ms: end_ms - 600_000, end_ms, matchers: vec![matcher] }
}

fn message(answer: &Answer) -> Vec<u8> {
    snap::raw::Decoder::new().decompress_vec(&answer.body).unwrap()
}

/// Labels and samples of an answer of either kind.
fn found(answer: &Answer) -> Vec<(Labels, usize)> {
    let mut found = Vec::new();
    match answer.header("Content-Type").unwrap() {
        "application/x-protobuf" => {
            assert_eq!(answer.header("Content-Encoding"), Some("snappy"));
            sampled::<AnswerError>(&message(answer), |labels, column| {
                found.push((labels, column.len()));
                Ok(())
            })
            .unwrap();
        }
        "application/x-streamed-protobuf; proto=prometheus.ChunkedReadResponse" => {
            for series in Frames::new(&answer.body, 1 << 20) {
                let series = series.unwrap();
                let samples = |data: &[u8]| usize::from(u16::from_be_bytes([data[0], data[1]]));
                assert!(series.chunks.iter().all(|chunk| chunk.encoding == 1));
                found.push((series.labels, series.chunks.iter().map(|chunk| samples(chunk.data)).sum()));
            }
        }
        other => panic!("{other}"),
    }
    found
}

#[test]
fn series_are_read_by_another_server_and_merged_with_its_own() {
    let (source, folder) = start(&[ON, "--storage.remote.read-sample-limit=300", "--web.enable-lifecycle"]);
    fs::write(folder.path().join("prometheus.yml"), "global: {external_labels: {region: eu}}\n").unwrap();
    assert_eq!(source.post("/-/reload").status, 200);
    let now = now_ms();
    let samples: Vec<(i64, f64)> = (0..200).map(|n| (now - 200_000 + n * 1_000, n as f64)).collect();
    let of = |instance: &str| series(&[("__name__", "m"), ("instance", instance)], &samples);
    assert_eq!(write_v1(&source, &v1(vec![of("a"), of("b")])).status, 204);

    // Sampled and streamed, with external labels; one that asks for them finds them.
    let a = Labels::from_pairs([("__name__", "m"), ("instance", "a"), ("region", "eu")]);
    for accepted in [&[][..], &[0], &[7, 1, 0]] {
        assert_eq!(found(&read(&source, named("instance", 0, "a", now), accepted)), [(a.clone(), 200)]);
    }
    assert_eq!(found(&read(&source, named("region", 0, "eu", now), &[1])).len(), 2);
    assert_eq!(found(&read(&source, named("region", 0, "us", now), &[1])).len(), 0);
    let said = |answer: &Answer| (answer.status, answer.text());
    let over = (400, "exceeded sample limit (300)\n".to_owned());
    assert_eq!(said(&read(&source, named("__name__", 0, "m", now), &[0])), over);
    assert_eq!(found(&read(&source, named("__name__", 0, "m", now), &[1])).len(), 2, "streams have no such limit");
    let broken = (500, "error parsing regexp: missing closing ): `(`\n".to_owned());
    assert_eq!(said(&read(&source, named("__name__", 2, "(", now), &[0])), broken);
    let (status, text) = said(&read(&source, named("__name__", 0, "m", now), &[9]));
    assert_eq!(status, 400);
    assert!(text.starts_with("server does not support any of the requested response types: [9]"), "{text}");
    let raw = |body: &[u8]| said(&request(&source.addr, "POST", "/api/v1/read", &[], body).unwrap());
    assert_eq!(raw(b"no"), (400, "snappy: corrupt input\n".to_owned()));

    // Another server asks it: for what it lacks, stripped of the labels that it added itself.
    let reader = |remotes: &str| {
        let folder = tempfile::tempdir().unwrap();
        let config = format!("global: {{external_labels: {{region: eu}}}}\nremote_read:\n{remotes}");
        fs::write(folder.path().join("prometheus.yml"), config).unwrap();
        (Server::start(folder.path(), &["--config.file=prometheus.yml", ON]), folder)
    };
    let remote = format!(
        "- {{url: 'http://{}/api/v1/read', read_recent: true, required_matchers: {{instance: a}}}}\n",
        source.addr
    );
    let (server, _folder) = reader(&remote);
    let own = series(&[("__name__", "m"), ("instance", "a")], &[(now, 1000.0)]);
    assert_eq!(write_v1(&server, &v1(vec![own])).status, 204);
    let query = "count_over_time(m{instance=\"a\"}[10m])";
    assert_eq!(server.single(query), Some(201.0), "{}", server.log());
    assert_eq!(server.query(query)[0].0["region"], serde_json::Value::Null);
    assert_eq!(
        server.single("max_over_time(m{instance=\"a\"}[10m]) - min_over_time(m{instance=\"a\"}[10m])"),
        Some(1000.0)
    );
    assert_eq!(server.single("count(m{instance=~\"a|b\"})"), Some(1.0), "it is not asked without a required matcher");
    let series = server.get(&format!("/api/v1/series?match[]={}", crate::support::encode("m{instance=\"a\"}"))).json();
    assert_eq!(series["data"].as_array().unwrap().len(), 1, "{series}");
    let labels = server.get("/api/v1/labels").json();
    assert_eq!(labels["warnings"][0], "not implemented");
    let metrics = server.get("/metrics").text();
    assert!(metrics.contains("prometheus_remote_read_client_queries_total{"), "{metrics}");
    assert!(metrics.contains("response_type=\"chunked\""), "{metrics}");

    // One that is down is missing, with a warning; what is there is answered.
    let address = source.addr.clone();
    source.kill();
    wait_for("the source to be gone", || std::net::TcpStream::connect(&address).err());
    let answer = server.get(&format!("/api/v1/query?query={}", crate::support::encode(query))).json();
    assert_eq!(answer["data"]["result"][0]["value"][1], "1", "{answer}");
    let warning = answer["warnings"][0].as_str().unwrap();
    assert!(warning.starts_with("remote_read: error sending request: Post \"http://"), "{warning}");
}
