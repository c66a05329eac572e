//! Where alerts part: to every external Alertmanager, and to the dispatcher in process. Each has a queue of its own, so
//! none of them waits for another, and the caller for none.

use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;

use crate::actors::alert_sink::AlertSink;
use crate::actors::notifier_manager::NotifierOverview;
use crate::model::alert::Alert;
use crate::notify::prepare::AlertRules;

/// Takes the alerts of all rules. Relabelling runs on the caller's thread, which for many alerts is best one of the
/// compute pool.
pub struct AlertRouter {
    rules: ArcSwap<AlertRules>,
    notifiers: Arc<NotifierOverview>,
    dispatcher: OnceLock<Arc<dyn AlertSink>>,
}

impl AlertRouter {
    /// A router to the notifiers alone, without rules.
    pub fn new(notifiers: Arc<NotifierOverview>) -> Self {
        Self { rules: ArcSwap::default(), notifiers, dispatcher: OnceLock::new() }
    }

    /// From now on alerts get these external labels and go through these rules.
    pub fn set_rules(&self, rules: AlertRules) {
        self.rules.store(Arc::new(rules));
    }

    /// From now on alerts go to the dispatcher in process as well. The first call holds.
    pub fn set_dispatcher(&self, dispatcher: Arc<dyn AlertSink>) {
        let _ = self.dispatcher.set(dispatcher);
    }
}

impl AlertSink for AlertRouter {
    /// External labels and the global `alert_relabel_configs` hold for everybody, so they are applied once.
    fn send(&self, alerts: Vec<Alert>) {
        let alerts = self.rules.load().prepare(alerts);
        if alerts.is_empty() {
            return;
        }
        self.notifiers.push(&alerts);
        if let Some(dispatcher) = self.dispatcher.get() {
            dispatcher.send(alerts.into_iter().map(Arc::unwrap_or_clone).collect());
        }
    }
}
