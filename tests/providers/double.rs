//! Servers that say what a test tells them to, and a provider at work.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::timeout;
use url::Url;
use watchfire::config::{LoadOptions, load_str};
use watchfire::discovery::surroundings::Surroundings;
use watchfire::discovery::{Provider, ProviderKit, Providers, TargetGroup};
use watchfire::model::clock::SystemClock;
use watchfire::model::labels::Labels;
use watchfire::telemetry::metrics::{MetricValue, Registry};

/// Longest wait for anything; generous, as machines are slow at times.
const PATIENCE: Duration = Duration::from_secs(60);

/// A request.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) query: Vec<(String, String)>,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Asked {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn param(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }
}

/// An answer.
pub(crate) enum Reply {
    Whole {
        status: u16,
        headers: Vec<(String, String)>,
        body: String,
    },
    /// Pieces as they come, until the sender is dropped.
    Stream(Receiver<String>),
}

/// A JSON document.
pub(crate) fn json(body: impl Into<String>) -> Reply {
    let headers = vec![("Content-Type".to_owned(), "application/json".to_owned())];
    Reply::Whole { status: 200, headers, body: body.into() }
}

/// A refusal.
pub(crate) fn refusal(status: u16, body: &str) -> Reply {
    Reply::Whole { status, headers: Vec::new(), body: body.to_owned() }
}

type Handler = dyn Fn(&Asked) -> Reply + Send + Sync;

/// A server on a port of its own, or on a socket in the file system.
pub(crate) struct Double {
    /// `host:port`; empty for a socket in the file system.
    pub(crate) addr: String,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Double {
    pub(crate) fn start(handler: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap().to_string();
        let asked = Arc::<Mutex<Vec<Asked>>>::default();
        let (kept, handler) = (Arc::clone(&asked), Arc::new(handler) as Arc<Handler>);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (kept, handler) = (Arc::clone(&kept), Arc::clone(&handler));
                std::thread::spawn(move || serve(stream.ok()?, &kept, &*handler));
            }
        });
        Self { addr, asked }
    }

    pub(crate) fn at(path: &Path, handler: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
        let listener = UnixListener::bind(path).unwrap();
        let asked = Arc::<Mutex<Vec<Asked>>>::default();
        let (kept, handler) = (Arc::clone(&asked), Arc::new(handler) as Arc<Handler>);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (kept, handler) = (Arc::clone(&kept), Arc::clone(&handler));
                std::thread::spawn(move || serve(stream.ok()?, &kept, &*handler));
            }
        });
        Self { addr: String::new(), asked }
    }

    /// All requests so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

/// One request and its answer.
fn serve(mut stream: impl Read + Write, kept: &Mutex<Vec<Asked>>, handler: &Handler) -> Option<()> {
    let asked = read(&mut stream)?;
    kept.lock().unwrap().push(asked.clone());
    match handler(&asked) {
        Reply::Whole { status, headers, body } => {
            let mut head =
                format!("HTTP/1.1 {status} Status\r\nConnection: close\r\nContent-Length: {}\r\n", body.len());
            for (name, value) in headers {
                head.push_str(&format!("{name}: {value}\r\n"));
            }
            stream.write_all(format!("{head}\r\n{body}").as_bytes()).ok()?;
        }
        Reply::Stream(pieces) => {
            let head = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: application/json\r\n";
            stream.write_all(format!("{head}Transfer-Encoding: chunked\r\n\r\n").as_bytes()).ok()?;
            for piece in pieces {
                stream.write_all(format!("{:x}\r\n{piece}\r\n", piece.len()).as_bytes()).ok()?;
                stream.flush().ok()?;
            }
            stream.write_all(b"0\r\n\r\n").ok()?;
        }
    }
    stream.flush().ok()
}

fn read(stream: &mut impl Read) -> Option<Asked> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split(' ');
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let url = Url::parse(&format!("http://x{target}")).ok()?;
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let len = headers.iter().find(|(name, _)| name == "content-length").and_then(|(_, len)| len.parse().ok());
    let mut body = vec![0; len.unwrap_or(0)];
    reader.read_exact(&mut body).ok()?;
    let query = url.query_pairs().map(|(name, value)| (name.into_owned(), value.into_owned())).collect();
    let body = String::from_utf8(body).ok()?;
    Some(Asked { method, path: url.path().to_owned(), query, headers, body })
}

/// A provider at work.
pub(crate) struct Running {
    provider: Box<dyn Provider>,
    registry: Arc<Registry>,
}

/// Starts the provider of a job's configuration; must be called in a runtime.
pub(crate) fn start(job: &str) -> Running {
    start_in(job, &Surroundings::default(), &[])
}

/// The same in other surroundings, going on from `last`.
pub(crate) fn start_in(job: &str, surroundings: &Surroundings, last: &[TargetGroup]) -> Running {
    let text = format!("scrape_configs:\n- {{job_name: found, {job}}}\n");
    let loaded = load_str("prometheus.yml", &text, &LoadOptions::default()).unwrap_or_else(|e| panic!("{e}\n{text}"));
    let Providers { built, not_built } = Providers::from(&loaded.scrape_configs[0].discovery);
    assert!(built.len() == 1 && not_built.is_empty(), "{built:?} {not_built:?}");
    let (registry, clock) = (Registry::shared(), SystemClock::shared());
    let kit = ProviderKit { surroundings: surroundings.clone(), ..ProviderKit::new(&registry, &clock) };
    Running { provider: built[0].start(&kit, "found", last).unwrap(), registry }
}

impl Running {
    /// The groups of the next look without a failure.
    pub(crate) async fn groups(&mut self) -> Vec<TargetGroup> {
        let good = async {
            loop {
                let look = self.provider.next().await;
                match (look.groups, look.failure) {
                    (Some(groups), None) => return groups,
                    (_, failure) => eprintln!("{failure:?}"),
                }
            }
        };
        timeout(PATIENCE, good).await.expect("a look is good")
    }

    /// Looks until the groups satisfy the condition.
    pub(crate) async fn until(&mut self, condition: impl Fn(&[TargetGroup]) -> bool) -> Vec<TargetGroup> {
        loop {
            let groups = self.groups().await;
            if condition(&groups) {
                return groups;
            }
            eprintln!("{groups:?}");
        }
    }

    /// The next failure, with the groups that came along.
    pub(crate) async fn failure(&mut self) -> (String, Option<Vec<TargetGroup>>) {
        let bad = async {
            loop {
                let look = self.provider.next().await;
                if let Some(failure) = look.failure {
                    return (failure, look.groups);
                }
            }
        };
        timeout(PATIENCE, bad).await.expect("a look fails")
    }

    /// The sum of a metric's values; a summary's value is its count.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let family = self.registry.gather().into_iter().find(|family| family.name == name);
        let value = |value: &MetricValue| match value {
            MetricValue::Number(number) => *number,
            MetricValue::Summary { count, .. } | MetricValue::Histogram { count, .. } => *count as f64,
        };
        family.unwrap_or_else(|| panic!("no {name}")).metrics.iter().map(|(_, found)| value(found)).sum()
    }
}

/// Compares label sets as texts, one label a line.
#[track_caller]
pub(crate) fn assert_labels(found: &Labels, expected: &[(&str, &str)]) {
    let lines = |labels: &Labels| labels.iter().map(|(n, v)| format!("{n}={v}")).collect::<Vec<_>>().join("\n");
    let expected = Labels::from_pairs(expected.iter().copied());
    assert_eq!(lines(found), lines(&expected));
}

/// The address of each target of all groups.
pub(crate) fn addresses(groups: &[TargetGroup]) -> Vec<&str> {
    groups.iter().flat_map(|group| &group.targets).filter_map(|target| target.get("__address__")).collect()
}
