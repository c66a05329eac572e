//! Where rule groups leave their alerts.

use crate::model::alert::Alert;

/// Takes alerts without ever making the caller wait. What takes them owns a bounded queue: when it is full the oldest go,
/// and a counter says so.
pub trait AlertSink: Send + Sync {
    /// Takes alerts, firing and resolved ones.
    fn send(&self, alerts: Vec<Alert>);
}
