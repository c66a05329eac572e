//! Signals as a stream for the root: SIGTERM and SIGINT stop, SIGHUP reloads, SIGPIPE is ignored (a log reader that goes
//! away must not take the server with it; Rust's runtime sees to that at the start of the process).

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Drain and exit 0; the second time exit 1 at once.
    Stop {
        /// The signal's name, for the log.
        signal: &'static str,
    },
    /// Read the configuration again.
    Reload,
}

/// The signals of the process. Made inside a tokio runtime.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    /// Takes the signals over from their default actions. Errors when the system refuses.
    pub fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for the next signal. Safe to cancel: none is lost.
    pub async fn next(&mut self) -> Request {
        // `None` comes only when the runtime's driver has gone, and nobody waits then.
        tokio::select! {
            biased;
            _ = self.terminate.recv() => Request::Stop { signal: "SIGTERM" },
            _ = self.interrupt.recv() => Request::Stop { signal: "SIGINT" },
            _ = self.hangup.recv() => Request::Reload,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[actix_web::test]
    async fn a_hangup_asks_for_a_reload() {
        let mut signals = Signals::listen().unwrap();
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::HUP).unwrap();
        assert_eq!(signals.next().await, Request::Reload);
    }
}
