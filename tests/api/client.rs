//! A server under test with a tiny client: one request per connection, answers as they come.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use watchfire::http::notices::Notices;
use watchfire::http::state::{HttpSettings, Readiness, Ready};
use watchfire::http::{HttpOptions, HttpState, ServeError, serve};
use watchfire::model::clock::ManualClock;
use watchfire::model::external_url::{external_url, route_prefix};
use watchfire::model::regexp::Regexp;
use watchfire::model::time::TimestampMs;
use watchfire::telemetry::metrics::{MetricValue, Registry};

use crate::fake::FakePorts;
use crate::support::unchunk;

/// The clock of every server under test stands here.
pub(crate) const NOW_MS: i64 = 1_435_781_451_781;

/// How a server under test differs from the usual one.
pub(crate) struct Setup {
    pub external_url: &'static str,
    pub route_prefix: &'static str,
    pub enable_lifecycle: bool,
    pub cors_origin: &'static str,
    pub hosts: Option<&'static str>,
    pub ready: Ready,
    pub header_len_max: Option<u64>,
    pub body_len_max: Option<u64>,
    pub read_timeout: Duration,
    pub connections_max: usize,
    pub web_config: Option<String>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            external_url: "http://vm:9090",
            route_prefix: "",
            enable_lifecycle: false,
            cors_origin: ".*",
            hosts: None,
            ready: Ready::Yes,
            header_len_max: Some(64 << 10),
            body_len_max: Some(1 << 20),
            read_timeout: Duration::from_secs(60),
            connections_max: 64,
            web_config: None,
        }
    }
}

/// A running server.
pub(crate) struct TestServer {
    pub address: SocketAddr,
    pub readiness: Readiness,
    pub ports: Arc<FakePorts>,
    pub clock: Arc<ManualClock>,
    pub notices: Notices,
    registry: Arc<Registry>,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

/// An answer.
pub(crate) struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<String> {
        let values: Vec<&str> =
            self.headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str()).collect();
        (!values.is_empty()).then(|| values.join(", "))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    pub(crate) fn text_lossy(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl TestServer {
    pub(crate) fn start(setup: Setup) -> Self {
        Self::try_start(setup).unwrap()
    }

    pub(crate) fn try_start(setup: Setup) -> Result<Self, ServeError> {
        let registry = Registry::shared();
        let readiness = Readiness::new(&registry);
        readiness.set(setup.ready);
        let ports = Arc::new(FakePorts::default());
        let external_url = external_url(setup.external_url, "vm", ":9090").unwrap();
        let settings = HttpSettings {
            is_agent: false,
            route_prefix: route_prefix(setup.route_prefix, &external_url),
            external_url,
            cors_origin: Regexp::anchored(setup.cors_origin).unwrap(),
            hosts: setup.hosts.map(|hosts| Regexp::anchored(hosts).unwrap()),
            enable_lifecycle: setup.enable_lifecycle,
            enable_admin_api: setup.enable_lifecycle,
            enable_pprof: setup.enable_lifecycle,
            search_limit_max: setup.enable_lifecycle.then_some(50),
            page_title: "A <title>".to_owned(),
            listen_address: "0.0.0.0:9090".to_owned(),
        };
        let clock = ManualClock::at(TimestampMs(NOW_MS));
        let notices = Notices::new(2, clock.clone(), &registry);
        let state =
            HttpState::new(ports.clone(), readiness.clone(), settings, notices.clone(), clock.clone(), &registry);
        let options = HttpOptions {
            listen_addresses: vec!["127.0.0.1:0".to_owned()],
            connections_max: setup.connections_max,
            read_timeout: setup.read_timeout,
            write_timeout: Duration::from_millis(500),
            header_len_max: setup.header_len_max,
            body_len_max: setup.body_len_max,
            workers: 1,
            web_config: setup.web_config,
        };
        let (tell, told) = mpsc::channel();
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let thread = std::thread::spawn(move || {
            actix_web::rt::System::new().block_on(async move {
                let server = match serve(&options, Vec::new(), state) {
                    Ok(server) => server,
                    Err(error) => return tell.send(Err(error)).unwrap(),
                };
                tell.send(Ok(server.addresses[0])).unwrap();
                let running = actix_web::rt::spawn(server.finished);
                let _ = stopped.await;
                server.handle.stop(false).await;
                running.await.unwrap().unwrap();
            });
        });
        let address = told.recv().unwrap()?;
        Ok(Self { address, readiness, ports, clock, registry, notices, stop: Some(stop), thread: Some(thread) })
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.request("GET", path, &[], "")
    }

    pub(crate) fn post_form(&self, path: &str, form: &str) -> Answer {
        self.request("POST", path, &[("Content-Type", "application/x-www-form-urlencoded")], form)
    }

    pub(crate) fn request(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let mut text = format!("{method} {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n");
        for (name, value) in headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        if !body.is_empty() {
            text.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        text.push_str("\r\n");
        text.push_str(body);
        self.raw(text.as_bytes())
    }

    pub(crate) fn raw(&self, request: &[u8]) -> Answer {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        stream.write_all(request).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        parse(&answer)
    }

    /// How many series the server's own metrics have.
    pub(crate) fn series(&self) -> usize {
        self.registry.gather().iter().map(|family| family.metrics.len()).sum()
    }

    /// The value of a counter or gauge, 0 if there is none.
    pub(crate) fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let families = self.registry.gather();
        let family = families.iter().find(|family| family.name == name);
        let found = family.and_then(|family| {
            family.metrics.iter().find(|(set, _)| labels.iter().all(|(n, v)| set.get(n) == Some(*v)))
        });
        match found {
            Some((_, MetricValue::Number(value))) => *value,
            Some((_, MetricValue::Histogram { count, .. })) => *count as f64,
            _ => 0.0,
        }
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        if let (Some(stop), Some(thread)) = (self.stop.take(), self.thread.take()) {
            let _ = stop.send(());
            let _ = thread.join();
        }
    }
}

pub(crate) fn parse(raw: &[u8]) -> Answer {
    let end = raw.windows(4).position(|window| window == b"\r\n\r\n").unwrap_or_else(|| {
        panic!("no header in {:?}", String::from_utf8_lossy(raw));
    });
    let head = String::from_utf8(raw[..end].to_vec()).unwrap();
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let headers: Vec<(String, String)> =
        lines.map(|line| line.split_once(": ").unwrap()).map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
    let is_chunked = headers.iter().any(|(name, value)| name == "Transfer-Encoding" && value == "chunked");
    let body = &raw[end + 4..];
    let body = if is_chunked { unchunk(body).unwrap() } else { body.to_vec() };
    Answer { status, headers, body }
}
