//! Thousands of exporters in one process: each has an address of its own under 127.0.0.0/8, all share a port. The good ones
//! answer and note when they were asked; the hostile ones do harm, each after its kind.

use std::future::Future;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, UNIX_EPOCH};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What a hostile target does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    NoAnswer,
    BytePerSecond,
    EndlessBody,
    GzipBomb,
    HugeLine,
    MillionsOfSeries,
    RedirectLoop,
    TlsGarbage,
    InvalidUtf8,
    Reset,
    /// Answers well; the server is made to panic at it.
    Panic,
}

impl Kind {
    pub(crate) const ALL: [Self; 11] = [
        Self::NoAnswer,
        Self::BytePerSecond,
        Self::EndlessBody,
        Self::GzipBomb,
        Self::HugeLine,
        Self::MillionsOfSeries,
        Self::RedirectLoop,
        Self::TlsGarbage,
        Self::InvalidUtf8,
        Self::Reset,
        // The last, as not every server can be made to.
        Self::Panic,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::NoAnswer => "no-answer",
            Self::BytePerSecond => "byte-per-second",
            Self::EndlessBody => "endless-body",
            Self::GzipBomb => "gzip-bomb",
            Self::HugeLine => "line-of-1-GB",
            Self::MillionsOfSeries => "5-million-series",
            Self::RedirectLoop => "redirect-loop",
            Self::TlsGarbage => "tls-garbage",
            Self::InvalidUtf8 => "invalid-utf8",
            Self::Reset => "reset",
            Self::Panic => "panic",
        }
    }
}

/// The host of a good target.
pub(crate) fn good_host(at: usize) -> Ipv4Addr {
    host(1, at)
}

/// The host of a hostile target; its kind goes round with `at`.
pub(crate) fn hostile_host(at: usize) -> Ipv4Addr {
    host(2, at)
}

fn host(second: u8, at: usize) -> Ipv4Addr {
    // No address ends in 0 or 255.
    let (third, last) = (at / 250, at % 250 + 1);
    Ipv4Addr::new(127, second, u8::try_from(third).unwrap(), u8::try_from(last).unwrap())
}

fn number_of(address: SocketAddr) -> Option<usize> {
    let SocketAddr::V4(address) = address else { return None };
    let [_, _, third, last] = address.ip().octets();
    Some(usize::from(third) * 250 + usize::from(last).checked_sub(1)?)
}

pub(crate) fn now_nanos() -> u64 {
    u64::try_from(UNIX_EPOCH.elapsed().unwrap().as_nanos()).unwrap()
}

/// The exporters; they live as long as the process.
pub(crate) struct Crowd {
    pub(crate) good_port: u16,
    pub(crate) hostile_port: u16,
    arrivals: Arc<Mutex<Vec<Vec<u64>>>>,
}

impl Crowd {
    /// Starts them: the good ones have `series` series each, the hostile ones are of these kinds in turn.
    pub(crate) fn start(good: usize, series: usize, kinds: &'static [Kind]) -> Self {
        let arrivals = Arc::new(Mutex::new(vec![Vec::new(); good]));
        let body: String = (0..series)
            .map(|n| format!("good_metric_{}{{handler=\"/api/v1/resource/{n}\",code=\"200\"}} {n}.25\n", n % 100))
            .collect();
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\n";
        let answer: Arc<[u8]> = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes().into();
        let noted = Arc::clone(&arrivals);
        let good_port = serve(move |stream| be_good(stream, Arc::clone(&answer), Arc::clone(&noted)));
        let bomb: Arc<[u8]> = bomb().into();
        let hostile_port = serve(move |stream| be_hostile(stream, Arc::clone(&bomb), kinds));
        Self { good_port, hostile_port, arrivals }
    }

    /// When requests arrived at each of the first `good`, in nanoseconds of wall time.
    pub(crate) fn arrivals(&self, good: usize) -> Vec<Vec<u64>> {
        self.arrivals.lock().unwrap().iter().take(good).cloned().collect()
    }
}

/// Serves on all addresses of a port, by a thread of its own.
fn serve<F>(handle: impl Fn(TcpStream) -> F + Send + 'static) -> u16
where
    F: Future<Output = Option<()>> + Send + 'static,
{
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.bind((Ipv4Addr::UNSPECIFIED, 0).into()).unwrap();
            let listener: TcpListener = socket.listen(4096).unwrap();
            tell.send(listener.local_addr().unwrap().port()).unwrap();
            loop {
                if let Ok((stream, _)) = listener.accept().await {
                    let _ = stream.set_nodelay(true);
                    tokio::spawn(handle(stream));
                }
            }
        });
    });
    told.recv().unwrap()
}

/// Reads a request to the end of its head; `None` when the peer has gone.
async fn request(stream: &mut TcpStream, held: &mut Vec<u8>) -> Option<()> {
    held.clear();
    loop {
        if stream.read_buf(held).await.ok()? == 0 {
            return None;
        }
        if held.ends_with(b"\r\n\r\n") {
            return Some(());
        }
    }
}

async fn be_good(mut stream: TcpStream, answer: Arc<[u8]>, arrivals: Arc<Mutex<Vec<Vec<u64>>>>) -> Option<()> {
    let number = number_of(stream.local_addr().ok()?)?;
    let mut held = Vec::new();
    loop {
        request(&mut stream, &mut held).await?;
        arrivals.lock().unwrap().get_mut(number)?.push(now_nanos());
        stream.write_all(&answer).await.ok()?;
    }
}

const PLAIN: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nConnection: close\r\n\r\n";
const ZIPPED: &[u8] =
    b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Encoding: gzip\r\nConnection: close\r\n\r\n";

async fn be_hostile(mut stream: TcpStream, bomb: Arc<[u8]>, kinds: &[Kind]) -> Option<()> {
    let number = number_of(stream.local_addr().ok()?)?;
    let kind = *kinds.get(number % kinds.len())?;
    if kind == Kind::TlsGarbage {
        let garbage: Vec<u8> = (0..4096_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        stream.write_all(&garbage).await.ok()?;
        return until_closed(stream).await;
    }
    let mut held = Vec::new();
    loop {
        request(&mut stream, &mut held).await?;
        match kind {
            Kind::NoAnswer => return until_closed(stream).await,
            Kind::BytePerSecond => {
                stream.write_all(PLAIN).await.ok()?;
                for byte in b"slow_metric 1\n".iter().cycle() {
                    stream.write_all(&[*byte]).await.ok()?;
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
            Kind::EndlessBody => {
                stream.write_all(PLAIN).await.ok()?;
                series_forever(&mut stream, u64::MAX).await?;
            }
            Kind::MillionsOfSeries => {
                stream.write_all(PLAIN).await.ok()?;
                series_forever(&mut stream, 5_000_000).await?;
                return Some(());
            }
            Kind::GzipBomb => {
                stream.write_all(ZIPPED).await.ok()?;
                stream.write_all(&bomb).await.ok()?;
                return Some(());
            }
            Kind::HugeLine => {
                stream.write_all(PLAIN).await.ok()?;
                let part = vec![b'a'; 256 << 10];
                for _ in 0..4096 {
                    stream.write_all(&part).await.ok()?;
                }
                return Some(());
            }
            Kind::RedirectLoop => {
                let answer = b"HTTP/1.1 302 Found\r\nLocation: /metrics\r\nContent-Length: 0\r\n\r\n";
                stream.write_all(answer).await.ok()?;
            }
            Kind::InvalidUtf8 => {
                let body = b"bad{name=\"\xff\xfe\"} 1\n";
                let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\n";
                stream.write_all(format!("{head}Content-Length: {}\r\n\r\n", body.len()).as_bytes()).await.ok()?;
                stream.write_all(body).await.ok()?;
            }
            Kind::Reset => {
                stream.set_zero_linger().ok()?;
                return Some(());
            }
            Kind::Panic => {
                let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\n";
                stream.write_all(format!("{head}Content-Length: 4\r\n\r\na 1\n").as_bytes()).await.ok()?;
            }
            Kind::TlsGarbage => return None,
        }
    }
}

async fn until_closed(mut stream: TcpStream) -> Option<()> {
    let mut sink = [0; 1024];
    while 0 < stream.read(&mut sink).await.ok()? {}
    None
}

/// Different series, one a line, in pieces of 64 KiB.
async fn series_forever(stream: &mut TcpStream, count: u64) -> Option<()> {
    let mut piece = Vec::with_capacity(80 << 10);
    for n in 0..count {
        writeln!(piece, "flood{{path=\"/api/v1/resource\",number=\"{n}\"}} {n}").ok()?;
        if 64 << 10 <= piece.len() {
            stream.write_all(&piece).await.ok()?;
            piece.clear();
        }
    }
    stream.write_all(&piece).await.ok()
}

/// 1 GiB of comments, packed a thousand to one.
fn bomb() -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    let line = format!("# {}\n", "b".repeat(61)).repeat(16 << 10);
    for _ in 0..1024 {
        encoder.write_all(line.as_bytes()).unwrap();
    }
    encoder.finish().unwrap()
}
