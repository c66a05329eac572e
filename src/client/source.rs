//! Where a secret or a setting of TLS comes from, and how its file is read without holding anybody up.

use std::fs::File;
use std::io::{self, Read as _};
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use crate::client::Failure;
use crate::model::secret::Secret;

/// Largest file with a secret.
const FILE_LEN_MAX: u64 = 64 * 1024;
/// Requests of a client whose files are read at the same time. A file system that hangs holds as many threads, no more;
/// the other requests wait for their turn and end at their deadlines.
const READS_MAX: usize = 4;

/// A text as it stands, or a file that is read again for each use.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Source {
    Text(Secret<String>),
    File(String),
}

impl Source {
    /// The file if there is one, else the text, which may be empty.
    pub(super) fn new(text: &Secret<String>, file: &str) -> Self {
        if file.is_empty() { Self::Text(text.clone()) } else { Self::File(file.to_owned()) }
    }

    pub(super) fn is_file(&self) -> bool {
        matches!(self, Self::File(_))
    }

    /// The path of a file.
    pub(super) fn path(&self) -> Option<&str> {
        match self {
            Self::Text(_) => None,
            Self::File(path) => Some(path),
        }
    }

    /// The content, or the path and the reason why it cannot be read.
    pub(super) fn read(&self) -> Result<Vec<u8>, (&str, String)> {
        self.read_len(FILE_LEN_MAX)
    }

    fn read_len(&self, len_max: u64) -> Result<Vec<u8>, (&str, String)> {
        match self {
            Self::Text(text) => Ok(text.expose().as_bytes().to_vec()),
            Self::File(path) => read_file(path, len_max).map_err(|reason| (path.as_str(), reason)),
        }
    }

    /// The content; an error says what it was needed for.
    pub(super) fn read_as(&self, what: &str) -> Result<Vec<u8>, Failure> {
        self.read_up_to(FILE_LEN_MAX, what)
    }

    /// The same with another limit.
    pub(super) fn read_up_to(&self, len_max: u64, what: &str) -> Result<Vec<u8>, Failure> {
        self.read_len(len_max).map_err(|(path, reason)| {
            Failure::Other(format!("unable to read {what}: unable to read file {path}: {reason}"))
        })
    }
}

/// The file's content without surrounding white space, or the reason in Go's words.
fn read_file(path: &str, len_max: u64) -> Result<Vec<u8>, String> {
    let in_go = |action: &str, error: &io::Error| {
        let reason = match error.kind() {
            io::ErrorKind::NotFound => "no such file or directory".to_owned(),
            io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
            io::ErrorKind::IsADirectory => "is a directory".to_owned(),
            _ => error.to_string(),
        };
        format!("{action} {path}: {reason}")
    };
    let file = File::open(path).map_err(|error| in_go("open", &error))?;
    let mut content = Vec::new();
    file.take(len_max + 1).read_to_end(&mut content).map_err(|error| in_go("read", &error))?;
    if len_max < content.len() as u64 {
        return Err(format!("read {path}: larger than {len_max} bytes"));
    }
    Ok(content.trim_ascii().to_vec())
}

/// Runs what reads files on threads that may block, a few at a time.
#[derive(Clone)]
pub(super) struct Reader {
    turns: Arc<Semaphore>,
}

impl Reader {
    pub(super) fn new() -> Self {
        Self { turns: Arc::new(Semaphore::new(READS_MAX)) }
    }

    /// What `job` answers. Reading may block, on a network file system for long, and this is the thread of actors: threads
    /// of the runtime's own are there for that. The turn goes along and comes back when the job is done.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        deadline: Instant,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Failure> {
        let turn = timeout_at(deadline, Arc::clone(&self.turns).acquire_owned()).await;
        let turn = turn.map_err(|_| Failure::Deadline)?;
        let reading = tokio::task::spawn_blocking(move || {
            let read = job();
            drop(turn);
            read
        });
        let read = timeout_at(deadline, reading).await.map_err(|_| Failure::Deadline)?;
        read.map_err(|error| Failure::Other(format!("reading credentials has failed: {error}")))
    }

    #[cfg(test)]
    pub(super) fn turns_left(&self) -> usize {
        self.turns.available_permits()
    }
}
