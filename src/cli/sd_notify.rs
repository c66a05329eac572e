//! Tells systemd how we are (`NOTIFY_SOCKET`): ready, reloading, stopping, and that we still live.

use std::io;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

/// A line to the service manager.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The server answers queries.
    Ready,
    /// The configuration is being read again.
    Reloading,
    /// The server drains.
    Stopping,
    /// The watchdog's sign of life.
    Alive,
}

/// The connection to the service manager; does nothing when there is none.
#[derive(Debug)]
pub struct Notifier {
    socket: Option<UnixDatagram>,
    watchdog: Option<Duration>,
}

impl Notifier {
    /// Connects to the socket that the environment names. Errors when it names one that cannot be reached.
    pub fn from_environment() -> io::Result<Self> {
        let variable = |name: &str| std::env::var(name).ok();
        let for_us = variable("WATCHDOG_PID").is_none_or(|pid| pid == std::process::id().to_string());
        let watchdog = variable("WATCHDOG_USEC").filter(|_| for_us);
        Self::connect(variable("NOTIFY_SOCKET").as_deref(), watchdog.as_deref())
    }

    fn connect(path: Option<&str>, watchdog_usec: Option<&str>) -> io::Result<Self> {
        let watchdog = watchdog_usec.and_then(|usec| usec.parse().ok()).map(Duration::from_micros);
        let Some(path) = path.filter(|path| !path.is_empty()) else { return Ok(Self { socket: None, watchdog: None }) };
        let socket = UnixDatagram::unbound()?;
        match path.strip_prefix('@') {
            Some(name) => socket.connect_addr(&abstract_address(name)?)?,
            None => socket.connect(path)?,
        }
        // A manager that does not read must not stop us.
        socket.set_nonblocking(true)?;
        Ok(Self { socket: Some(socket), watchdog })
    }

    /// How often to send [`State::Alive`]: half the time after which the manager would restart us.
    pub fn watchdog_interval(&self) -> Option<Duration> {
        self.watchdog.filter(|_| self.socket.is_some()).map(|timeout| timeout / 2).filter(|half| !half.is_zero())
    }

    /// Sends a state, and a line for `systemctl status`. A manager that does not listen is no reason to fail.
    pub fn send(&self, state: State, status: &str) {
        let Some(socket) = &self.socket else { return };
        let head = match state {
            State::Ready => "READY=1".to_owned(),
            // The manager waits for READY after this; the time tells it from an older one.
            State::Reloading => format!("RELOADING=1\nMONOTONIC_USEC={}", monotonic_usec()),
            State::Stopping => "STOPPING=1".to_owned(),
            State::Alive => "WATCHDOG=1".to_owned(),
        };
        let status = status.replace(['\n', '\r'], " ");
        let text = if status.is_empty() { head } else { format!("{head}\nSTATUS={status}") };
        if let Err(error) = socket.send(text.as_bytes()) {
            tracing::debug!(err = %error, "Cannot tell the service manager");
        }
    }
}

#[cfg(target_os = "linux")]
fn abstract_address(name: &str) -> io::Result<std::os::unix::net::SocketAddr> {
    use std::os::linux::net::SocketAddrExt;
    std::os::unix::net::SocketAddr::from_abstract_name(name)
}

#[cfg(not(target_os = "linux"))]
fn abstract_address(_: &str) -> io::Result<std::os::unix::net::SocketAddr> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "abstract sockets exist on Linux alone"))
}

fn monotonic_usec() -> i64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec * 1_000_000 + now.tv_nsec / 1_000
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 256];
        let len = socket.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..len].to_vec()).unwrap()
    }

    #[test]
    fn speaks_the_protocol_over_a_path() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        let notifier = Notifier::connect(path.to_str(), Some("10000000")).unwrap();
        assert_eq!(notifier.watchdog_interval(), Some(Duration::from_secs(5)));
        notifier.send(State::Ready, "two\nlines");
        assert_eq!(received(&manager), "READY=1\nSTATUS=two lines");
        notifier.send(State::Reloading, "");
        assert!(received(&manager).starts_with("RELOADING=1\nMONOTONIC_USEC="));
        notifier.send(State::Alive, "");
        assert_eq!(received(&manager), "WATCHDOG=1");
        notifier.send(State::Stopping, "");
        assert_eq!(received(&manager), "STOPPING=1");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn speaks_to_abstract_sockets() {
        let name = format!("watchfire-test-{}", std::process::id());
        let manager = UnixDatagram::bind_addr(&abstract_address(&name).unwrap()).unwrap();
        Notifier::connect(Some(&format!("@{name}")), None).unwrap().send(State::Ready, "");
        assert_eq!(received(&manager), "READY=1");
    }

    #[test]
    fn without_a_manager_nothing_happens() {
        let notifier = Notifier::connect(None, Some("1000")).unwrap();
        notifier.send(State::Ready, "");
        assert_eq!(notifier.watchdog_interval(), None);
        assert!(Notifier::connect(Some("/nonexistent/socket"), None).is_err());
    }
}
