//! Where targets come from: settings in, target groups out. One provider a file.
//!
//! Data flow: `config::discovery` says what to look at → [`ProviderConfig::start`] makes a [`Provider`], which yields a
//! [`Look`] whenever there is something to tell → an actor publishes it, the discovery manager merges the groups of a set
//! (a job) and hands them on, no more often than [`debounce`] allows.
//!
//! A further mechanism is a variant of [`ProviderConfig`] and a file with its [`Provider`].

pub mod debounce;
pub mod file;
pub mod file_watch;
pub mod metrics;

use std::io;
use std::sync::Arc;

use futures::future::BoxFuture;

use crate::config::discovery::FileSd;
use crate::discovery::file::{FileMetrics, FileProvider};
use crate::discovery::file_watch::FileWatch;
use crate::model::clock::SharedClock;
use crate::model::labels::Labels;
use crate::telemetry::metrics::Registry;

/// The label that every target has.
const ADDRESS: &str = "__address__";

/// Targets with labels in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetGroup {
    /// Where it comes from; stands in error texts.
    pub source: String,
    /// Label sets of the targets, `__address__` among them.
    pub targets: Vec<Labels>,
    /// Labels that all have.
    pub labels: Labels,
}

impl From<&crate::config::TargetGroup> for TargetGroup {
    fn from(group: &crate::config::TargetGroup) -> Self {
        Self {
            source: group.source.clone(),
            targets: group.targets.iter().map(|address| Labels::from_pairs([(ADDRESS, address)])).collect(),
            labels: Labels::from_pairs(group.labels.0.iter()),
        }
    }
}

/// What a provider has to tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// All groups that there are now; none when they are unknown, and those of the last look stay.
    pub groups: Option<Vec<TargetGroup>>,
    /// What went wrong, if anything did. The provider has logged it.
    pub failure: Option<String>,
}

/// One source of target groups at work. A failure is a [`Look`]; a panic makes a new provider from the settings and the
/// last groups.
pub trait Provider: Send {
    /// Waits until there is something to tell. Dropping the future loses nothing. The waiting time between looks, after
    /// failures as well, is the provider's.
    fn next(&mut self) -> BoxFuture<'_, Look>;
}

/// Settings of one provider.
#[derive(Clone, Debug, PartialEq)]
pub enum ProviderConfig {
    /// `file_sd_configs`.
    File(FileSd),
}

/// What providers of all kinds are given.
pub struct ProviderKit {
    /// Measures how long looks take.
    pub clock: SharedClock,
    /// Of all file providers.
    pub file: FileMetrics,
}

impl ProviderKit {
    /// Registers the metrics of all kinds of providers.
    pub fn new(registry: &Arc<Registry>, clock: &SharedClock) -> Self {
        Self { clock: SharedClock::clone(clock), file: FileMetrics::new(registry, clock) }
    }
}

impl ProviderConfig {
    /// The mechanism's name, as in the field's name.
    pub fn mechanism(&self) -> &'static str {
        match self {
            Self::File(_) => "file",
        }
    }

    /// Starts the provider. `last` are the groups that one with the same settings found last: it goes on from them. Errors
    /// when the system gives no thread.
    pub fn start(&self, kit: &ProviderKit, last: &[TargetGroup]) -> io::Result<Box<dyn Provider>> {
        match self {
            Self::File(config) => {
                let provider = FileProvider::new(config, &kit.file, &kit.clock, last);
                Ok(Box::new(FileWatch::start(provider, config.refresh_interval.to_std())?))
            }
        }
    }
}
