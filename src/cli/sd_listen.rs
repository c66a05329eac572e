//! Sockets that the service manager has opened for us (`LISTEN_FDS`), as with `systemd.socket(5)`: the server listens on these,
//! and not at its addresses.

use std::net::TcpListener;

use rustix::fd::OwnedFd;
use rustix::net::sockopt::socket_acceptconn;
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};

/// The first of them, as systemd numbers them.
const FIRST: i32 = 3;
/// More are not believed.
const COUNT_MAX: i32 = 64;

/// The sockets that are meant for this process; none if the service manager has opened none.
pub fn inherited() -> Result<Vec<TcpListener>, String> {
    let variable = |name: &str| std::env::var(name).ok();
    let own = getpid();
    let count = count(variable("LISTEN_PID").as_deref(), variable("LISTEN_FDS").as_deref(), own)?;
    if count == 0 {
        return Ok(Vec::new());
    }
    let process = pidfd_open(own, PidfdFlags::empty()).map_err(|error| format!("LISTEN_FDS: {error}"))?;
    let listeners = (FIRST..FIRST + count).map(|number| {
        let fail = |reason: String| format!("LISTEN_FDS: descriptor {number}: {reason}");
        let socket =
            pidfd_getfd(&process, number, PidfdGetfdFlags::empty()).map_err(|error| fail(error.to_string()))?;
        listener(socket).map_err(fail)
    });
    listeners.collect()
}

/// How many there are; none where they are meant for another process.
fn count(of: Option<&str>, text: Option<&str>, own: Pid) -> Result<i32, String> {
    let is_own = of.and_then(|pid| pid.parse().ok()) == Some(own.as_raw_nonzero().get());
    let Some(text) = text.filter(|_| is_own) else { return Ok(0) };
    let count = text.parse().ok().filter(|count| (0..=COUNT_MAX).contains(count));
    count.ok_or_else(|| format!("LISTEN_FDS: no number of sockets up to {COUNT_MAX}: {text}"))
}

fn listener(socket: OwnedFd) -> Result<TcpListener, String> {
    if !socket_acceptconn(&socket).is_ok_and(|accepts| accepts) {
        return Err("it is no socket that listens".to_owned());
    }
    let listener = TcpListener::from(socket);
    listener.local_addr().map_err(|_| "it is no socket of TCP".to_owned())?;
    listener.set_nonblocking(true).map_err(|error| error.to_string())?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_are_those_of_this_process() {
        let own = getpid().as_raw_nonzero().to_string();
        assert_eq!(count(Some(&own), Some("2"), getpid()), Ok(2));
        for (of, text) in
            [(None, Some("2")), (Some("1"), Some("2")), (Some(own.as_str()), None), (Some("x"), Some("1"))]
        {
            assert_eq!(count(of, text, getpid()), Ok(0), "{of:?} {text:?}");
        }
        for text in ["x", "-1", "65", ""] {
            assert!(count(Some(&own), Some(text), getpid()).is_err(), "{text}");
        }
    }

    #[test]
    fn sockets_must_listen() {
        let listening = TcpListener::bind("127.0.0.1:0").unwrap();
        let (client, _server) = std::os::unix::net::UnixStream::pair().unwrap();
        assert!(listener(client.into()).is_err());
        let folder = tempfile::tempdir().unwrap();
        let unix = std::os::unix::net::UnixListener::bind(folder.path().join("a")).unwrap();
        assert_eq!(listener(unix.into()).unwrap_err(), "it is no socket of TCP");
        assert!(listener(listening.into()).is_ok());
    }
}
