//! Panics on demand, for the fault tests: named points that exist in debug builds only.
//!
//! A test arms a point with [`arm`]; for the binary the environment variable `WATCHFIRE_FAILPOINTS` does, as in
//! `scrape_target.timer=panic:1,rule_group/node.rules.started=panic:12`: kind, name of one actor if it is to be one, point,
//! and how many of the next passes panic.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};

use parking_lot::Mutex;

/// Where an actor can be made to panic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// While it handles a message.
    Handler,
    /// While a timer of it fires.
    Timer,
    /// While a future that it spawned is polled.
    Future,
    /// While it starts, after its creation as after a restart.
    Started,
    /// While its state is rebuilt after a panic.
    Restarting,
    /// While a future of it is dropped.
    Drop,
    /// At a step of its own work, one of [`STEPS`].
    Step(&'static str),
}

/// Steps of the work of single kinds, next to the points that all have: kind and step.
pub const STEPS: [(&str, &str); 11] = [
    ("scrape_target", "parse"),
    ("storage_shard", "before-apply"),
    ("storage_shard", "in-apply"),
    ("storage_shard", "after-apply"),
    ("log_writer", "before-write"),
    ("log_writer", "in-write"),
    ("log_writer", "after-write"),
    ("log_writer", "before-sync"),
    ("log_writer", "in-sync"),
    ("log_writer", "after-sync"),
    ("query_gateway", "evaluate"),
];

impl Point {
    /// The points of every actor; the fault matrix is this list times the kinds.
    pub const ALL: [Self; 6] = [Self::Handler, Self::Timer, Self::Future, Self::Started, Self::Restarting, Self::Drop];

    /// The word in `WATCHFIRE_FAILPOINTS`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Handler => "handler",
            Self::Timer => "timer",
            Self::Future => "future",
            Self::Started => "started",
            Self::Restarting => "restarting",
            Self::Drop => "drop",
            Self::Step(step) => step,
        }
    }

    fn parse(kind: &str, word: &str) -> Option<Self> {
        let step = STEPS.iter().find(|(of, step)| *of == kind && *step == word);
        step.map(|(_, step)| Self::Step(step)).or_else(|| Self::ALL.into_iter().find(|point| point.as_str() == word))
    }
}

struct Charge {
    kind: String,
    /// None for all of the kind.
    name: Option<String>,
    point: Point,
    left: AtomicUsize,
}

/// A point that will panic; disarmed when dropped.
pub struct Armed {
    charge: Arc<Charge>,
}

impl Armed {
    /// How many panics are still to come.
    pub fn left(&self) -> usize {
        self.charge.left.load(Ordering::SeqCst)
    }
}

impl Drop for Armed {
    fn drop(&mut self) {
        let mut charges = CHARGES.lock();
        charges.retain(|charge| !Arc::ptr_eq(charge, &self.charge));
        COUNT.store(charges.len(), Ordering::SeqCst);
    }
}

/// Read first and mostly 0: an unarmed point costs one load.
static COUNT: AtomicUsize = AtomicUsize::new(0);
static CHARGES: LazyLock<Mutex<Vec<Arc<Charge>>>> = LazyLock::new(Mutex::default);

/// Why `WATCHFIRE_FAILPOINTS` was refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("bad failpoint {0:?}: want kind[/name].point=panic:count")]
pub struct BadFailpoint(String);

/// Lets the next `times` passes of the point in any actor of this kind, or in the one of this name, panic.
#[must_use = "the point is disarmed when this is dropped"]
pub fn arm(kind: &str, name: Option<&str>, point: Point, times: usize) -> Armed {
    let name = name.map(str::to_owned);
    let charge = Arc::new(Charge { kind: kind.to_owned(), name, point, left: AtomicUsize::new(times) });
    let mut charges = CHARGES.lock();
    charges.push(Arc::clone(&charge));
    COUNT.store(charges.len(), Ordering::SeqCst);
    Armed { charge }
}

/// Arms what `WATCHFIRE_FAILPOINTS` lists; the points stay armed as long as the result lives.
pub fn arm_from_env() -> Result<Vec<Armed>, BadFailpoint> {
    parse(&std::env::var("WATCHFIRE_FAILPOINTS").unwrap_or_default())
}

fn parse(list: &str) -> Result<Vec<Armed>, BadFailpoint> {
    let one = |item: &str| {
        let (place, action) = item.split_once('=')?;
        let (who, word) = place.trim().rsplit_once('.')?;
        let (kind, name) = who.split_once('/').map_or((who, None), |(kind, name)| (kind, Some(name)));
        let point = Point::parse(kind, word)?;
        let times = action.trim().strip_prefix("panic:")?.parse().ok()?;
        Some(arm(kind, name, point, times))
    };
    let items = list.split(',').filter(|item| !item.trim().is_empty());
    items.map(|item| one(item).ok_or_else(|| BadFailpoint(item.to_owned()))).collect()
}

/// Panics if the point is armed for this actor, or for another part of the layer of this kind and name.
pub(super) fn hit(kind: &str, name: &str, point: Point) {
    assert!(!take(kind, name, point), "failpoint {kind}/{name}.{}", point.as_str());
}

/// Whether the point is to panic now; whoever asks does it.
pub(super) fn take(kind: &str, name: &str, point: Point) -> bool {
    if COUNT.load(Ordering::Relaxed) == 0 {
        return false;
    }
    let take = |left: usize| left.checked_sub(1);
    CHARGES.lock().iter().any(|charge| {
        let meant =
            charge.point == point && charge.kind == kind && charge.name.as_ref().is_none_or(|only| only == name);
        meant && charge.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take).is_ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_names_kind_point_and_count() {
        let armed = parse("parse_a.timer=panic:2, parse_b/x/y.z.drop=panic:1,").unwrap();
        assert_eq!(armed.iter().map(Armed::left).collect::<Vec<_>>(), [2, 1]);
        assert_eq!(armed[1].charge.name.as_deref(), Some("x/y.z"));
        let steps = parse("storage_shard.in-apply=panic:1,log_writer/log.before-sync=panic:2").unwrap();
        let points: Vec<_> = steps.iter().map(|armed| armed.charge.point).collect();
        assert_eq!(points, [Point::Step("in-apply"), Point::Step("before-sync")]);
        for bad in
            ["parse_a.in-apply=panic:1", "x", "a.b=panic:1", "a.timer=sleep:1", "a.timer=panic:", "timer=panic:1"]
        {
            assert_eq!(parse(bad).err(), Some(BadFailpoint(bad.to_owned())));
        }
    }

    #[test]
    fn an_armed_point_panics_as_often_as_asked_and_only_for_its_kind() {
        const KIND: &str = "fp_test";
        let panics = |kind: &'static str| crate::actors::panics::catch(|| hit(kind, "a", Point::Timer)).is_err();
        let armed = arm(KIND, None, Point::Timer, 2);
        assert!(!panics("fp_other"));
        assert_eq!([panics(KIND), panics(KIND), panics(KIND)], [true, true, false]);
        assert_eq!(armed.left(), 0);
        drop(arm(KIND, None, Point::Timer, 1));
        assert!(!panics(KIND));
        let other = arm(KIND, Some("b"), Point::Timer, 1);
        assert!(!panics(KIND));
        drop(other);
        let _this = arm(KIND, Some("a"), Point::Timer, 1);
        assert!(panics(KIND));
    }
}
