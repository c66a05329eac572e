//! What the tests of the built binary share: a server under test, an exporter that does as told, a small HTTP client.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

/// Longest wait for anything; generous, as machines are slow at times.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The folder with shared conformance data, if it is there.
pub fn conformance_dir() -> Option<PathBuf> {
    let given = std::env::var_os("WATCHFIRE_CONFORMANCE").map(PathBuf::from);
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/conformance");
    given.or(Some(beside)).filter(|path| path.is_dir())
}

/// Asks again and again until `check` gives an answer; panics with `what` after [`PATIENCE`].
#[track_caller]
pub fn wait_for<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = check() {
            return answer;
        }
        assert!(start.elapsed() < PATIENCE, "gave up waiting for {what}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

/// An HTTP answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }
}

/// One request on a connection of its own.
pub fn request(addr: &str, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> std::io::Result<Answer> {
    let mut stream = TcpStream::connect(addr)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str(&format!("Content-Length: {}\r\n\r\n", body.len()));
    stream.write_all(head.as_bytes())?;
    stream.write_all(body)?;
    let mut raw = Vec::new();
    stream.read_to_end(&mut raw)?;
    parse_answer(&raw).ok_or_else(|| std::io::Error::other(format!("bad answer: {:?}", String::from_utf8_lossy(&raw))))
}

fn parse_answer(raw: &[u8]) -> Option<Answer> {
    let end = raw.windows(4).position(|w| w == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&raw[..end]).ok()?;
    let mut lines = head.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let headers: Vec<(String, String)> =
        lines.filter_map(|l| l.split_once(':')).map(|(n, v)| (n.to_owned(), v.trim().to_owned())).collect();
    let chunked = headers.iter().any(|(n, v)| n.eq_ignore_ascii_case("transfer-encoding") && v == "chunked");
    let body = if chunked { unchunk(&raw[end + 4..])? } else { raw[end + 4..].to_vec() };
    Some(Answer { status, headers, body })
}

/// The body of an answer that came in chunks.
pub fn unchunk(mut raw: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line_end = raw.windows(2).position(|w| w == b"\r\n")?;
        let len = usize::from_str_radix(std::str::from_utf8(&raw[..line_end]).ok()?.trim(), 16).ok()?;
        raw = &raw[line_end + 2..];
        if len == 0 {
            return Some(body);
        }
        body.extend_from_slice(raw.get(..len)?);
        raw = raw.get(len + 2..)?;
    }
}

/// Percent-encodes a query parameter.
pub fn encode(text: &str) -> String {
    text.bytes()
        .map(|b| {
            if b.is_ascii_alphanumeric() || b"-_.~".contains(&b) {
                char::from(b).to_string()
            } else {
                format!("%{b:02X}")
            }
        })
        .collect()
}

/// A running `watchfire`, killed when dropped.
pub struct Server {
    pub child: Child,
    pub addr: String,
    pub folder: PathBuf,
    log: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// Starts the binary in `folder` with `args` on a free port and waits until it is ready.
    pub fn start(folder: &Path, args: &[&str]) -> Self {
        let server = Self::start_unready(folder, args);
        server.wait_ready();
        server
    }

    /// Starts the binary and waits only until it listens.
    pub fn start_unready(folder: &Path, args: &[&str]) -> Self {
        Self::start_with(folder, args, &[])
    }

    /// Starts the binary with environment variables and waits only until it listens.
    pub fn start_with(folder: &Path, args: &[&str], variables: &[(&str, &str)]) -> Self {
        Self::spawn(Command::new(env!("CARGO_BIN_EXE_watchfire")), folder, args, variables)
    }

    /// Starts the binary with a limit of open files and waits until it is ready.
    pub fn start_limited(folder: &Path, args: &[&str], files: u32) -> Self {
        let mut command = Command::new("sh");
        let script = format!("ulimit -n {files}; exec \"$0\" \"$@\"");
        command.args(["-c", &script, env!("CARGO_BIN_EXE_watchfire")]);
        let server = Self::spawn(command, folder, args, &[]);
        server.wait_ready();
        server
    }

    /// Starts the binary with a socket that listens already, as a service manager hands it over.
    pub fn start_on(folder: &Path, args: &[&str], socket: std::net::TcpListener) -> Self {
        let mut command = Command::new("sh");
        let script = "exec 3<&0 </dev/null; export LISTEN_FDS=1 LISTEN_PID=$$; exec \"$0\" \"$@\"";
        command.args(["-c", script, env!("CARGO_BIN_EXE_watchfire")]);
        let socket = std::os::fd::OwnedFd::from(socket);
        let server = Self::spawn_with(command, socket.into(), folder, args, &[]);
        server.wait_ready();
        server
    }

    /// Starts another binary that takes the same arguments and says the same of itself, and waits until it is ready.
    pub fn start_other(command: Command, folder: &Path, args: &[&str]) -> Self {
        let server = Self::spawn(command, folder, args, &[]);
        server.wait_ready();
        server
    }

    fn spawn(command: Command, folder: &Path, args: &[&str], variables: &[(&str, &str)]) -> Self {
        Self::spawn_with(command, Stdio::null(), folder, args, variables)
    }

    fn spawn_with(
        mut command: Command,
        stdin: Stdio,
        folder: &Path,
        args: &[&str],
        variables: &[(&str, &str)],
    ) -> Self {
        command.current_dir(folder).args(args).arg("--web.listen-address=127.0.0.1:0");
        command.envs(variables.iter().copied());
        let mut child = command.stdin(stdin).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let (tell, told) = mpsc::channel();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let lines = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                if let Some(addr) = line.contains("Listening on").then(|| field(&line, "address")).flatten() {
                    let _ = tell.send(addr);
                }
                lines.lock().unwrap().push(line);
            }
        });
        let Ok(addr) = told.recv_timeout(PATIENCE) else {
            let _ = child.kill();
            panic!("the server does not listen; its log:\n{}", log.lock().unwrap().join("\n"));
        };
        Self { child, addr, folder: folder.to_owned(), log }
    }

    pub fn wait_ready(&self) {
        wait_for("/-/ready", || request(&self.addr, "GET", "/-/ready", &[], b"").ok().filter(|a| a.status == 200));
    }

    #[track_caller]
    pub fn get(&self, path: &str) -> Answer {
        request(&self.addr, "GET", path, &[], b"").unwrap_or_else(|e| panic!("GET {path}: {e}\n{}", self.log()))
    }

    #[track_caller]
    pub fn post(&self, path: &str) -> Answer {
        request(&self.addr, "POST", path, &[], b"").unwrap_or_else(|e| panic!("POST {path}: {e}\n{}", self.log()))
    }

    /// Result of an instant query as (labels without the name, value) pairs.
    #[track_caller]
    pub fn query(&self, promql: &str) -> Vec<(serde_json::Value, String)> {
        let answer = self.get(&format!("/api/v1/query?query={}", encode(promql)));
        assert_eq!(answer.status, 200, "{promql}: {}", answer.text());
        let json = answer.json();
        let result = json["data"]["result"].as_array().cloned().unwrap_or_default();
        result.iter().map(|e| (e["metric"].clone(), e["value"][1].as_str().unwrap_or("").to_owned())).collect()
    }

    /// The value of a query that yields one element; `None` while it yields another number of them.
    #[track_caller]
    pub fn single(&self, promql: &str) -> Option<f64> {
        match self.query(promql).as_slice() {
            [(_, value)] => value.parse().ok(),
            _ => None,
        }
    }

    pub fn log(&self) -> String {
        self.log.lock().unwrap().join("\n")
    }

    pub fn signal(&self, signal: &str) {
        let status = Command::new("kill").args([&format!("-{signal}"), &self.child.id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    /// Waits for the end of the process and returns its exit code (`None` after a signal).
    pub fn wait_exit(&mut self) -> Option<i32> {
        let child = &mut self.child;
        wait_for("exit", || child.try_wait().unwrap()).code()
    }

    /// `kill -9`, then the folder's files are as the process left them.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn field(line: &str, name: &str) -> Option<String> {
    let at = line.find(&format!(" {name}="))? + name.len() + 2;
    Some(line[at..].split(' ').next()?.trim_matches('"').to_owned())
}

/// What an [`Exporter`] answers.
#[derive(Clone)]
pub enum Behaviour {
    /// A body of text format 0.0.4.
    Body(String),
    /// A body with this content type.
    Typed(String, Vec<u8>),
    /// A status line such as `500 Internal Server Error`.
    Status(String),
    /// Accepts and never answers.
    Hang,
    /// A body without end.
    Endless,
    /// The body for requests whose head has the line, 401 for all others.
    Guarded { line: String, body: String },
}

struct ExporterState {
    behaviour: Behaviour,
    requests: Vec<(String, Instant)>,
    heads: Vec<String>,
    bodies: Vec<Vec<u8>>,
    connections: usize,
}

/// An HTTP server on a port of its own that keeps what it was asked; exporter, webhook and Alertmanager in one.
pub struct Exporter {
    pub addr: String,
    state: Arc<Mutex<ExporterState>>,
}

impl Exporter {
    pub fn start(body: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap().to_string();
        let behaviour = Behaviour::Body(body.to_owned());
        let state =
            ExporterState { behaviour, requests: Vec::new(), heads: Vec::new(), bodies: Vec::new(), connections: 0 };
        let state = Arc::new(Mutex::new(state));
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let state = Arc::clone(&shared);
                state.lock().unwrap().connections += 1;
                std::thread::spawn(move || serve(stream, &state));
            }
        });
        Self { addr, state }
    }

    pub fn set(&self, behaviour: Behaviour) {
        self.state.lock().unwrap().behaviour = behaviour;
    }

    pub fn set_body(&self, body: &str) {
        self.set(Behaviour::Body(body.to_owned()));
    }

    /// Request lines so far, with the time of each.
    pub fn requests(&self) -> Vec<(String, Instant)> {
        self.state.lock().unwrap().requests.clone()
    }

    /// Headers of the requests so far, a line each.
    pub fn heads(&self) -> Vec<String> {
        self.state.lock().unwrap().heads.clone()
    }

    /// Request bodies so far.
    pub fn bodies(&self) -> Vec<Vec<u8>> {
        self.state.lock().unwrap().bodies.clone()
    }

    pub fn connections(&self) -> usize {
        self.state.lock().unwrap().connections
    }
}

/// A receiver of notifications on a port of its own.
pub struct Webhook {
    exporter: Exporter,
}

impl Webhook {
    /// One that answers 200.
    pub fn start() -> Self {
        Self { exporter: Exporter::start("") }
    }

    pub fn url(&self) -> String {
        format!("http://{}/hook", self.exporter.addr)
    }

    /// Answers with a status line such as `500 Internal Server Error` from now on.
    pub fn answer(&self, status: &str) {
        self.exporter.set(Behaviour::Status(status.to_owned()));
    }

    /// Takes messages and never answers from now on.
    pub fn hang(&self) {
        self.exporter.set(Behaviour::Hang);
    }

    /// All messages so far, refused ones as well.
    pub fn messages(&self) -> Vec<serde_json::Value> {
        self.exporter.bodies().iter().map(|body| serde_json::from_slice(body).unwrap()).collect()
    }

    /// Their statuses.
    pub fn statuses(&self) -> Vec<String> {
        self.messages().iter().map(|message| message["status"].as_str().unwrap().to_owned()).collect()
    }
}

fn serve(stream: TcpStream, state: &Mutex<ExporterState>) {
    let Ok(mut out) = stream.try_clone() else { return };
    let mut reader = BufReader::new(stream);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        let (mut len, mut head) = (0, String::new());
        loop {
            let mut header = String::new();
            if reader.read_line(&mut header).unwrap_or(0) == 0 || header == "\r\n" {
                break;
            }
            if let Some((_, value)) = header.split_once(':').filter(|(n, _)| n.eq_ignore_ascii_case("content-length")) {
                len = value.trim().parse().unwrap_or(0);
            }
            head.push_str(&header);
        }
        let mut body = vec![0; len];
        if reader.read_exact(&mut body).is_err() {
            return;
        }
        let behaviour = {
            let mut state = state.lock().unwrap();
            state.requests.push((line.trim().to_owned(), Instant::now()));
            state.heads.push(head.clone());
            state.bodies.push(body);
            state.behaviour.clone()
        };
        let behaviour = match behaviour {
            Behaviour::Guarded { line, body } if head.lines().any(|given| given == line) => Behaviour::Body(body),
            Behaviour::Guarded { .. } => Behaviour::Status("401 Unauthorized".to_owned()),
            other => other,
        };
        let written = match behaviour {
            Behaviour::Guarded { .. } => return,
            Behaviour::Body(body) => {
                let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\n";
                write!(out, "{head}Content-Length: {}\r\n\r\n{body}", body.len())
            }
            Behaviour::Typed(content_type, body) => {
                let head = format!("HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\n");
                write!(out, "{head}Content-Length: {}\r\n\r\n", body.len()).and_then(|()| out.write_all(&body))
            }
            Behaviour::Status(status) => write!(out, "HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n"),
            Behaviour::Hang => loop {
                std::thread::park();
            },
            Behaviour::Endless => endless(&mut out),
        };
        if written.is_err() {
            return;
        }
    }
}

fn endless(out: &mut TcpStream) -> std::io::Result<()> {
    write!(out, "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nTransfer-Encoding: chunked\r\n\r\n")?;
    for block in 0u64.. {
        let line = |i: u64| format!("endless_metric{{i=\"{i}\"}} 1\n");
        let lines: String = (block * 1000..(block + 1) * 1000).map(line).collect();
        out.write_all(format!("{:x}\r\n{lines}\r\n", lines.len()).as_bytes())?;
    }
    Ok(())
}
