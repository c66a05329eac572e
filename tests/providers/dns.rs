//! DNS discovery, against a server that speaks DNS over UDP and TCP.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, UdpSocket};
use std::sync::{Arc, Mutex};

use watchfire::discovery::TargetGroup;
use watchfire::discovery::surroundings::Surroundings;
use watchfire::model::labels::Labels;

use crate::double::{Running, addresses, assert_labels, start_in};

const A: u16 = 1;
const NS: u16 = 2;
const CNAME: u16 = 5;
const MX: u16 = 15;
const AAAA: u16 = 28;
const SRV: u16 = 33;

/// What the server knows of a question.
#[derive(Clone)]
enum Known {
    /// Type and data of records.
    Records(Vec<(u16, Vec<u8>)>),
    /// The same, but over UDP it does not fit.
    OverTcp(Vec<(u16, Vec<u8>)>),
    Fails,
}

type Zone = Arc<Mutex<BTreeMap<(String, u16), Known>>>;

struct DnsServer {
    zone: Zone,
    surroundings: Surroundings,
    _folder: tempfile::TempDir,
}

impl DnsServer {
    /// A server that knows nothing; the domain `sd.test` is searched.
    fn start() -> Self {
        let (udp, tcp, port) = loop {
            let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
            let port = udp.local_addr().unwrap().port();
            // Somebody else may have the same port for TCP.
            if let Ok(tcp) = TcpListener::bind(("127.0.0.1", port)) {
                break (udp, tcp, port);
            }
        };
        let zone = Zone::default();
        let known = Arc::clone(&zone);
        std::thread::spawn(move || {
            let mut buffer = [0; 512];
            while let Ok((len, from)) = udp.recv_from(&mut buffer) {
                let answer = answer(&known, &buffer[..len], true);
                let _ = udp.send_to(&answer, from);
            }
        });
        let known = Arc::clone(&zone);
        std::thread::spawn(move || {
            for stream in tcp.incoming() {
                let mut stream = stream.unwrap();
                let mut len = [0; 2];
                stream.read_exact(&mut len).unwrap();
                let mut question = vec![0; usize::from(u16::from_be_bytes(len))];
                stream.read_exact(&mut question).unwrap();
                let answer = answer(&known, &question, false);
                stream.write_all(&u16::try_from(answer.len()).unwrap().to_be_bytes()).unwrap();
                stream.write_all(&answer).unwrap();
            }
        });
        let folder = tempfile::tempdir().unwrap();
        let resolv_conf = folder.path().join("resolv.conf");
        std::fs::write(&resolv_conf, "nameserver 127.0.0.1\nsearch sd.test\n").unwrap();
        let surroundings = Surroundings { resolv_conf, dns_port: port, ..Surroundings::default() };
        Self { zone, surroundings, _folder: folder }
    }

    fn set(&self, name: &str, kind: u16, known: Known) {
        self.zone.lock().unwrap().insert((name.to_owned(), kind), known);
    }

    fn provider(&self, config: &str, last: &[TargetGroup]) -> Running {
        start_in(&format!("dns_sd_configs: [{{refresh_interval: 5ms, {config}}}]"), &self.surroundings, last)
    }
}

/// A name in a message.
fn wire(name: &str) -> Vec<u8> {
    let labels = name.split('.').filter(|label| !label.is_empty());
    let mut raw: Vec<u8> =
        labels.flat_map(|label| [&[u8::try_from(label.len()).unwrap()], label.as_bytes()].concat()).collect();
    raw.push(0);
    raw
}

fn srv(target: &str, port: u16) -> (u16, Vec<u8>) {
    (SRV, [&[0, 1, 0, 2][..], &port.to_be_bytes(), &wire(target)].concat())
}

fn answer(zone: &Zone, question: &[u8], over_udp: bool) -> Vec<u8> {
    let (mut name, mut at) = (String::new(), 12);
    while question[at] != 0 {
        let len = usize::from(question[at]);
        name.push_str(std::str::from_utf8(&question[at + 1..=at + len]).unwrap());
        name.push('.');
        at += len + 1;
    }
    let end = at + 5;
    let kind = u16::from_be_bytes([question[at + 1], question[at + 2]]);
    let zone = zone.lock().unwrap();
    let (flags, records) = match zone.get(&(name.clone(), kind)) {
        Some(Known::OverTcp(_)) if over_udp => (0x8380u16, &[][..]),
        Some(Known::Records(records) | Known::OverTcp(records)) => (0x8180, &records[..]),
        Some(Known::Fails) => (0x8182, &[][..]),
        None if zone.keys().any(|(known, _)| *known == name) => (0x8180, &[][..]),
        None => (0x8183, &[][..]),
    };
    let mut message = question[..2].to_vec();
    for word in [flags, 1, u16::try_from(records.len()).unwrap(), 0, 0] {
        message.extend(word.to_be_bytes());
    }
    message.extend(&question[12..end]);
    for (kind, data) in records {
        message.extend([0xc0, 12]);
        message.extend(kind.to_be_bytes());
        message.extend([0, 1, 0, 0, 0, 1]);
        message.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
        message.extend(data);
    }
    message
}

#[tokio::test]
async fn records_of_all_types_become_targets() {
    let server = DnsServer::start();
    server.set("_web._tcp.sd.test.", SRV, Known::OverTcp(vec![srv("h1.sd.test", 9100), srv("h2.sd.test", 81)]));
    server.set("h1.sd.test.", A, Known::Records(vec![(CNAME, wire("x.")), (A, vec![10, 0, 0, 1])]));
    server.set(
        "h1.sd.test.",
        AAAA,
        Known::Records(vec![(AAAA, "2001:db8::1".parse::<std::net::Ipv6Addr>().unwrap().octets().to_vec())]),
    );
    server.set("sd.test.", MX, Known::Records(vec![(MX, [&[0, 5][..], &wire("mail.sd.test")].concat())]));
    server.set("sd.test.", NS, Known::Records(vec![(NS, wire("ns.sd.test")), (16, vec![0])]));

    let groups = server.provider("names: ['_web._tcp.sd.test', '_web._tcp']", &[]).groups().await;
    assert_eq!(groups.len(), 2);
    assert_eq!((groups[0].source.as_str(), &groups[0].labels), ("_web._tcp.sd.test", &Labels::empty()));
    let expected = [
        ("__address__", "h1.sd.test:9100"),
        ("__meta_dns_name", "_web._tcp.sd.test"),
        ("__meta_dns_srv_record_target", "h1.sd.test."),
        ("__meta_dns_srv_record_port", "9100"),
    ];
    assert_labels(&groups[0].targets[0], &expected);
    assert_eq!(addresses(&groups[1..]), ["h1.sd.test:9100", "h2.sd.test:81"], "the search list is used");

    let a = server.provider("names: [h1.sd.test], type: a, port: 80", &[]).groups().await;
    assert_labels(&a[0].targets[0], &[("__address__", "10.0.0.1:80"), ("__meta_dns_name", "h1.sd.test")]);
    assert_eq!(a[0].targets.len(), 1, "an alias is no target");
    let aaaa = server.provider("names: [h1.sd.test], type: AAAA, port: 80", &[]).groups().await;
    assert_eq!(addresses(&aaaa), ["[2001:db8::1]:80"]);
    let mx = server.provider("names: [sd.test], type: MX, port: 25", &[]).groups().await;
    let expected = [
        ("__address__", "mail.sd.test:25"),
        ("__meta_dns_name", "sd.test"),
        ("__meta_dns_mx_record_target", "mail.sd.test."),
    ];
    assert_labels(&mx[0].targets[0], &expected);
    let ns = server.provider("names: [sd.test.], type: NS, port: 53", &[]).groups().await;
    let expected = [
        ("__address__", "ns.sd.test:53"),
        ("__meta_dns_name", "sd.test."),
        ("__meta_dns_ns_record_target", "ns.sd.test."),
    ];
    assert_labels(&ns[0].targets[0], &expected);
}

#[tokio::test]
async fn a_name_that_fails_keeps_its_records_and_one_that_is_gone_has_none() {
    let server = DnsServer::start();
    for name in ["a.sd.test.", "b.sd.test."] {
        server.set(name, SRV, Known::Records(vec![srv(name, 1)]));
    }
    let mut running = server.provider("names: [a.sd.test, b.sd.test]", &[]);
    let both = running.groups().await;
    assert_eq!(addresses(&both), ["a.sd.test:1", "b.sd.test:1"]);
    server.set("a.sd.test.", SRV, Known::Fails);
    server.set("b.sd.test.", SRV, Known::Records(vec![srv("c", 2)]));
    let (failure, groups) = running.failure().await;
    let expected = "could not resolve \"a.sd.test\": all servers responded with errors to at least one search domain";
    assert_eq!(failure, expected);
    assert_eq!(addresses(&groups.unwrap()), ["a.sd.test:1", "c:2"]);
    assert!(1.0 <= running.metric("prometheus_sd_dns_lookup_failures_total"));
    assert!(4.0 <= running.metric("prometheus_sd_dns_lookups_total"));
    assert_eq!(running.metric("prometheus_sd_refresh_failures_total"), 0.0, "as in Prometheus");

    // One that goes on from there knows the records of the name that fails.
    let mut after = server.provider("names: [a.sd.test, b.sd.test]", &both);
    assert_eq!(addresses(&after.failure().await.1.unwrap()), ["a.sd.test:1", "c:2"]);
    server.zone.lock().unwrap().clear();
    assert!(addresses(&running.groups().await).is_empty());
}
