//! What users are told as it happens: that the server starts or stops, that a reload has failed. `/api/v1/notifications` lists it,
//! `/api/v1/notifications/live` sends each change to whoever listens.

use std::sync::Arc;
use std::task::{Context, Poll};

use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::http::json::{Json, UnixNanos};
use crate::http::pieces::{CutOff, Pieces};
use crate::model::clock::SharedClock;
use crate::telemetry::metrics::{Counter, Gauge, Registry};

/// What there is to tell; the texts are Prometheus's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The log is being read.
    StartingUp,
    /// The last reload has failed.
    ReloadFailed,
    /// Everything drains.
    ShuttingDown,
}

impl Notice {
    fn text(self) -> &'static str {
        match self {
            Self::StartingUp => "Prometheus is starting and replaying the write-ahead log (WAL).",
            Self::ReloadFailed => "Configuration reload has failed.",
            Self::ShuttingDown => "Prometheus is shutting down and gracefully stopping all operations.",
        }
    }
}

/// Changes that a listener may leave unread; further ones are dropped and counted.
const UNREAD_MAX: usize = 10;

/// Notices in effect, and who listens. Clones share them.
#[derive(Clone)]
pub struct Notices {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    listeners_max: usize,
    clock: SharedClock,
    listening: Gauge,
    sent: Counter,
    dropped: Counter,
}

#[derive(Default)]
struct State {
    active: Vec<(Notice, UnixNanos)>,
    listeners: Vec<(u64, mpsc::Sender<Vec<u8>>)>,
    next_listener: u64,
    is_closed: bool,
}

impl Notices {
    /// Nothing to tell, and at most `listeners_max` who listen.
    pub fn new(listeners_max: usize, clock: SharedClock, registry: &Registry) -> Self {
        let counter = |name: &str, help: &str| registry.counter(name, help, &[]);
        let help = "The current number of active notification subscribers.";
        let listening = registry.gauge("prometheus_api_notification_active_subscribers", help, &[]);
        let help = "Total number of notification updates sent.";
        let sent = counter("prometheus_api_notification_updates_sent_total", help);
        let help = "Total number of notification updates dropped.";
        let dropped = counter("prometheus_api_notification_updates_dropped_total", help);
        let state = Mutex::default();
        Self { shared: Arc::new(Shared { state, listeners_max, clock, listening, sent, dropped }) }
    }

    /// Tells it from now on.
    pub fn add(&self, notice: Notice) {
        let at = UnixNanos(self.shared.clock.unix_nanos());
        let mut state = self.shared.state.lock();
        match state.active.iter_mut().find(|(known, _)| *known == notice) {
            Some((_, since)) => *since = at,
            None => state.active.push((notice, at)),
        }
        self.shared.tell(&state, &event(notice, at, true));
    }

    /// It is over.
    pub fn remove(&self, notice: Notice) {
        let mut state = self.shared.state.lock();
        let Some(place) = state.active.iter().position(|(known, _)| *known == notice) else { return };
        let (_, at) = state.active.remove(place);
        self.shared.tell(&state, &event(notice, at, false));
    }

    /// Lets all listeners go, once they have read what they were told.
    pub fn close(&self) {
        let mut state = self.shared.state.lock();
        state.is_closed = true;
        state.listeners.clear();
    }

    /// Writes those in effect as a JSON array.
    pub(super) fn write(&self, json: &mut Json) {
        let active = self.shared.state.lock().active.clone();
        let mut array = json.array();
        active.iter().for_each(|(notice, at)| object(array.item(), *notice, *at, true));
        array.end();
    }

    /// Listens; those in effect are told first. `None` if too many do already.
    pub(super) fn listen(&self) -> Option<Listener> {
        let (to, from) = mpsc::channel(UNREAD_MAX);
        let mut state = self.shared.state.lock();
        if state.is_closed || self.shared.listeners_max <= state.listeners.len() {
            return None;
        }
        for (notice, at) in &state.active {
            // There are fewer kinds than may be left unread.
            let _ = to.try_send(event(*notice, *at, true));
        }
        let number = state.next_listener;
        state.next_listener += 1;
        state.listeners.push((number, to));
        self.shared.listening.set(state.listeners.len() as f64);
        Some(Listener { number, from, shared: Arc::clone(&self.shared) })
    }
}

impl Shared {
    fn tell(&self, state: &State, event: &[u8]) {
        for (_, listener) in &state.listeners {
            self.sent.inc();
            if listener.try_send(event.to_vec()).is_err() {
                self.dropped.inc();
            }
        }
    }
}

fn object(json: &mut Json, notice: Notice, at: UnixNanos, is_active: bool) {
    let mut object = json.object();
    object.string("text", notice.text()).time("date", Some(at)).bool("active", is_active);
    object.end();
}

/// One event of a stream.
fn event(notice: Notice, at: UnixNanos, is_active: bool) -> Vec<u8> {
    let mut json = Json::new();
    json.raw("data: ");
    object(&mut json, notice, at, is_active);
    json.raw("\n\n");
    json.into_bytes()
}

/// Someone who listens, until this is dropped.
pub(super) struct Listener {
    number: u64,
    from: mpsc::Receiver<Vec<u8>>,
    shared: Arc<Shared>,
}

impl Pieces for Listener {
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Vec<u8>, CutOff>>> {
        self.from.poll_recv(cx).map(|event| event.map(Ok))
    }

    fn is_live(&self) -> bool {
        true
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let mut state = self.shared.state.lock();
        state.listeners.retain(|(number, _)| *number != self.number);
        self.shared.listening.set(state.listeners.len() as f64);
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;
    use crate::model::clock::ManualClock;
    use crate::model::time::TimestampMs;

    fn next(listener: &mut Listener) -> Option<String> {
        match listener.poll_piece(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Some(Ok(event))) => Some(String::from_utf8(event).unwrap()),
            Poll::Ready(None) => Some("end".to_owned()),
            Poll::Ready(Some(Err(_))) | Poll::Pending => None,
        }
    }

    #[test]
    fn listeners_hear_what_is_in_effect_and_each_change() {
        let registry = Registry::default();
        let notices = Notices::new(2, ManualClock::at(TimestampMs(1_500)), &registry);
        notices.add(Notice::StartingUp);
        let mut one = notices.listen().unwrap();
        let text = "data: {\"text\":\"Prometheus is starting and replaying the write-ahead log (WAL).\",\
                    \"date\":\"1970-01-01T00:00:01.5Z\",\"active\":true}\n\n";
        assert_eq!(next(&mut one).unwrap(), text);
        assert_eq!(next(&mut one), None);
        notices.remove(Notice::StartingUp);
        notices.remove(Notice::StartingUp);
        assert_eq!(next(&mut one).unwrap(), text.replace("true", "false"));
        let two = notices.listen().unwrap();
        assert!(notices.listen().is_none());
        drop(two);
        let mut three = notices.listen().unwrap();
        notices.add(Notice::ReloadFailed);
        notices.add(Notice::ReloadFailed);
        let mut json = Json::new();
        notices.write(&mut json);
        let listed =
            "[{\"text\":\"Configuration reload has failed.\",\"date\":\"1970-01-01T00:00:01.5Z\",\"active\":true}]";
        assert_eq!(json.into_text(), listed);
        (0..20).for_each(|_| notices.add(Notice::ShuttingDown));
        notices.close();
        let told = std::iter::from_fn(|| next(&mut three)).take_while(|event| event != "end").count();
        assert_eq!(told, UNREAD_MAX);
        assert!(notices.listen().is_none());
        let dropped = registry.counter("prometheus_api_notification_updates_dropped_total", "", &[]);
        assert!(0 < dropped.get());
    }
}
