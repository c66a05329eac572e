//! Asks the system's DNS servers, in the manner of Prometheus: each name of the search list at each server, and an answer
//! that does not fit once more over TCP.
//!
//! A name without records and a name that does not exist are answers; a server that fails is none.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use crate::discovery::dns_wire::{self, Answer, Kind, Record, UDP_LEN_MAX, WireError};
use crate::discovery::error::LookError;
use crate::discovery::surroundings::Surroundings;
use crate::model::go;
use crate::model::random::Random;

/// How long a server may take for each step.
const STEP_WITHIN: Duration = Duration::from_secs(2);
/// The longest `resolv.conf`.
const CONFIG_LEN_MAX: u64 = 1 << 20;
/// Answers to other questions that are passed over.
const STRAY_MAX: usize = 16;
const SUCCESS: u8 = 0;
const NO_SUCH_NAME: u8 = 3;

/// What `resolv.conf` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ResolvConf {
    servers: Vec<String>,
    search: Vec<String>,
    dots: usize,
    port: u16,
}

#[derive(Debug, thiserror::Error)]
enum AskError {
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("i/o timeout")]
    Timeout,
    #[error("{0}")]
    Wire(#[from] WireError),
    #[error("no answer among many")]
    Stray,
    #[error("got truncated message on TCP (64kiB limit exceeded?)")]
    Truncated,
    #[error("{0:?} is no address")]
    Address(String),
}

impl ResolvConf {
    /// Reads the file anew: it changes while we run.
    pub(super) async fn load(surroundings: &Surroundings) -> Result<Self, LookError> {
        let (path, port) = (surroundings.resolv_conf.clone(), surroundings.dns_port);
        let read = move || {
            use std::io::Read as _;
            let mut text = String::new();
            std::fs::File::open(&path)?.take(CONFIG_LEN_MAX).read_to_string(&mut text)?;
            Ok(text)
        };
        let read: Result<std::io::Result<String>, _> = tokio::task::spawn_blocking(read).await;
        let failed = |error: String| LookError::Other(format!("could not load resolv.conf: {error}"));
        let text = read.map_err(|error| failed(error.to_string()))?.map_err(|error| failed(error.to_string()))?;
        Ok(Self::parse(&text, port))
    }

    fn parse(text: &str, port: u16) -> Self {
        let mut parsed = Self { servers: Vec::new(), search: Vec::new(), dots: 1, port };
        for line in text.lines().filter(|line| !line.starts_with([';', '#'])) {
            let mut words = line.split_whitespace();
            match (words.next(), words.clone().next()) {
                (Some("nameserver"), Some(server)) => parsed.servers.push(server.to_owned()),
                (Some("domain"), Some(domain)) => parsed.search = vec![domain.to_owned()],
                (Some("search"), _) => parsed.search = words.map(str::to_owned).collect(),
                (Some("options"), _) => {
                    let dots = words.filter_map(|word| word.strip_prefix("ndots:")?.parse::<usize>().ok()).next_back();
                    parsed.dots = dots.unwrap_or(parsed.dots).min(15);
                }
                _ => {}
            }
        }
        parsed
    }

    /// The full names that `name` may stand for, in the order in which they are tried.
    fn names(&self, name: &str) -> Vec<String> {
        if name.ends_with('.') {
            return vec![name.to_owned()];
        }
        let label_count = name.split('.').filter(|label| !label.is_empty()).count();
        let full = format!("{name}.");
        let searched = self.search.iter().map(|domain| format!("{full}{}.", domain.trim_matches('.')));
        let searched = searched.map(|name| if name.ends_with("..") { full.clone() } else { name });
        if self.dots < label_count {
            [full.clone()].into_iter().chain(searched).collect()
        } else {
            searched.chain([full.clone()]).collect()
        }
    }

    /// The records of the first name that has an answer; none when all servers say that there is no such name.
    pub(super) async fn lookup(&self, name: &str, kind: Kind) -> Result<Vec<Record>, LookError> {
        let mut all_answered = true;
        for name in self.names(name) {
            match self.ask_any(&name, kind).await {
                Some(answer) if answer.code == SUCCESS => return Ok(answer.records),
                Some(_) => {}
                None => all_answered = false,
            }
        }
        if all_answered {
            return Ok(Vec::new());
        }
        let name = go::quote(name);
        let text = format!("could not resolve {name}: all servers responded with errors to at least one search domain");
        Err(LookError::Other(text))
    }

    async fn ask_any(&self, name: &str, kind: Kind) -> Option<Answer> {
        for server in &self.servers {
            match ask(server, self.port, name, kind).await {
                Ok(answer) if matches!(answer.code, SUCCESS | NO_SUCH_NAME) => return Some(answer),
                Ok(_) => {}
                Err(err) => {
                    let (component, discovery) = ("discovery", "dns");
                    tracing::warn!(component, discovery, server, name, %err, "DNS resolution failed");
                }
            }
        }
        None
    }
}

async fn ask(server: &str, port: u16, name: &str, kind: Kind) -> Result<Answer, AskError> {
    let address: IpAddr = server.parse().map_err(|_| AskError::Address(server.to_owned()))?;
    let server = SocketAddr::new(address, port);
    let mut random = Random::from_process();
    let id = u16::try_from(random.below(1 << 16)).unwrap_or(0);
    let answer = ask_udp(server, &dns_wire::question(id, name, kind, true)?, id).await?;
    if !answer.truncated {
        return Ok(answer);
    }
    let answer = ask_tcp(server, &dns_wire::question(id, name, kind, false)?).await?;
    if answer.truncated { Err(AskError::Truncated) } else { Ok(answer) }
}

async fn ask_udp(server: SocketAddr, question: &[u8], id: u16) -> Result<Answer, AskError> {
    let own: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let asked = async {
        // A port of its own for each question, which who would forge the answer has to guess.
        let socket = UdpSocket::bind((own, 0)).await?;
        socket.connect(server).await?;
        socket.send(question).await?;
        let mut buffer = vec![0; UDP_LEN_MAX];
        for _ in 0..STRAY_MAX {
            let len = socket.recv(&mut buffer).await?;
            let answer = dns_wire::answer(buffer.get(..len).unwrap_or_default())?;
            if answer.id == id {
                return Ok(answer);
            }
        }
        Err(AskError::Stray)
    };
    timeout(STEP_WITHIN, asked).await.map_err(|_| AskError::Timeout)?
}

async fn ask_tcp(server: SocketAddr, question: &[u8]) -> Result<Answer, AskError> {
    let mut stream = timeout(STEP_WITHIN, TcpStream::connect(server)).await.map_err(|_| AskError::Timeout)??;
    let asked = async {
        let mut message = u16::try_from(question.len()).unwrap_or(u16::MAX).to_be_bytes().to_vec();
        message.extend(question);
        stream.write_all(&message).await?;
        let mut buffer = vec![0; usize::from(stream.read_u16().await?)];
        stream.read_exact(&mut buffer).await?;
        Ok(dns_wire::answer(&buffer)?)
    };
    timeout(STEP_WITHIN, asked).await.map_err(|_| AskError::Timeout)?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_searched_as_the_file_says() {
        let text =
            "# c\nnameserver 10.0.0.1\nnameserver fe80::1 x\n;x\ndomain d\nsearch a.b c.\noptions rotate ndots:2\n";
        let parsed = ResolvConf::parse(text, 53);
        assert_eq!(parsed.servers, ["10.0.0.1", "fe80::1"]);
        assert_eq!(parsed.names("x.y"), ["x.y.a.b.", "x.y.c.", "x.y."]);
        assert_eq!(parsed.names("x.y.z"), ["x.y.z.", "x.y.z.a.b.", "x.y.z.c."]);
        assert_eq!(parsed.names("x."), ["x."]);
        assert_eq!(ResolvConf::parse("search .", 53).names("x"), ["x.", "x."]);
        assert_eq!(ResolvConf::parse("", 53).names("x.y"), ["x.y."]);
    }
}
