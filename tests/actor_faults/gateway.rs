//! Queries at fault: what one that panics, is given up or comes too many does to the others.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use watchfire::actors::mailbox::SendError;
use watchfire::actors::query_gateway::{QueryFailure, RunQuery};
use watchfire::actors::supervision::Place;
use watchfire::model::matcher::Matcher;
use watchfire::model::read::{Queryable, ReadBudget, ReadError, ReadView, SelectedSeries};
use watchfire::model::time::TimeRange;

use crate::matrix::tree;
use crate::probe::within;
use crate::scene::{Scene, holds, instant, live, values};

/// Storage that panics or never ends, as the metric's name says. What is `misjudged` looks like little work, and has no
/// series once it was interrupted; `little` has none.
#[derive(Default)]
struct Hostile {
    begun: AtomicUsize,
    interrupted: AtomicUsize,
}

struct HostileQueryable(Arc<Hostile>);
struct HostileView(Arc<Hostile>);

impl Queryable for HostileQueryable {
    fn view(&self) -> Result<Arc<dyn ReadView>, ReadError> {
        Ok(Arc::new(HostileView(Arc::clone(&self.0))))
    }
}

impl ReadView for HostileView {
    fn select(
        &self,
        matchers: &[Matcher],
        _: TimeRange,
        budget: &dyn ReadBudget,
    ) -> Result<Vec<SelectedSeries>, ReadError> {
        assert!(!matchers.contains(&Matcher::equal("__name__", "panics")), "a poisonous query");
        let is = |name: &str| matchers.contains(&Matcher::equal("__name__", name));
        let has_ended = is("misjudged") && self.0.interrupted.load(Ordering::SeqCst) != 0;
        if is("little") || has_ended {
            return Ok(Vec::new());
        }
        self.0.begun.fetch_add(1, Ordering::SeqCst);
        loop {
            if let Err(error) = budget.check() {
                self.0.interrupted.fetch_add(1, Ordering::SeqCst);
                return Err(error);
            }
            std::thread::yield_now();
        }
    }

    fn label_names(&self, _: &[Matcher], _: TimeRange, _: &dyn ReadBudget) -> Result<Vec<String>, ReadError> {
        Ok(Vec::new())
    }

    fn label_values(&self, _: &str, _: &[Matcher], _: TimeRange, _: &dyn ReadBudget) -> Result<Vec<String>, ReadError> {
        Ok(Vec::new())
    }

    fn series_estimate(&self, matchers: &[Matcher], _: TimeRange) -> Result<Option<usize>, ReadError> {
        let is_heavy = matchers.contains(&Matcher::equal("__name__", "endless"));
        Ok((!is_heavy).then_some(1))
    }
}

#[test]
fn a_panicking_evaluation_is_an_error_of_its_query_alone() {
    live(async {
        let scene = Scene::new(&tree(), "poison");
        let queryable = Arc::new(HostileQueryable(Arc::default()));
        let gateway = scene.spawn_gateway_at(Place::root(&scene.tree, "poisoned gateway"), queryable);
        for _ in 0..3 {
            let failed = gateway.ask(instant("panics", scene.now()), within(30)).await.unwrap();
            let Err(QueryFailure::Panicked(text)) = failed else { panic!("{failed:?}") };
            assert!(text.contains("a poisonous query"), "{text}");
        }
        let fine = gateway.ask(instant("6 * 7", scene.now()), within(30)).await.unwrap().unwrap();
        assert_eq!(values(&fine), [42.0]);
        assert_eq!(gateway.entry().row().restarts, 0);
    });
}

#[test]
fn a_query_whose_client_has_gone_is_cancelled_and_more_than_slots_are_refused() {
    live(async {
        let scene = Scene::new(&tree(), "abandoned");
        let hostile = Arc::<Hostile>::default();
        let queryable = Arc::new(HostileQueryable(Arc::clone(&hostile)));
        let place = Place::root(&scene.tree, "abandoned gateway").slots(2);
        let gateway = scene.spawn_gateway_at(place, queryable);
        let clients: Vec<_> = (0..2)
            .map(|_| {
                let (gateway, query) = (gateway.clone(), instant("endless", scene.now()));
                actix::spawn(async move { gateway.ask(query, within(3600)).await.map(|_| ()) })
            })
            .collect();
        holds("both run", || hostile.begun.load(Ordering::SeqCst) == 2).await;
        let refused = gateway.ask(instant("1", scene.now()), tokio::time::Instant::now()).await.map(|_| ());
        assert_eq!((refused, gateway.entry().row().refused), (Err(SendError::Full), 1));
        clients.iter().for_each(|client| client.abort());
        holds("both are cancelled", || hostile.interrupted.load(Ordering::SeqCst) == 2).await;
        let fine = gateway.ask(instant("6 * 7", scene.now()), within(30)).await.unwrap().unwrap();
        assert_eq!(values(&fine), [42.0]);
    });
}

#[test]
fn little_work_takes_no_turn_and_heavy_work_waits_for_one() {
    live(async {
        let scene = Scene::new(&tree(), "turns");
        let hostile = Arc::<Hostile>::default();
        let queryable = Arc::new(HostileQueryable(Arc::clone(&hostile)));
        let gateway = scene.spawn_gateway_at(Place::root(&scene.tree, "gateway of turns"), queryable);
        let heavy: Vec<_> = (0..2)
            .map(|_| {
                let (gateway, query) = (gateway.clone(), instant("endless", scene.now()));
                actix::spawn(async move { gateway.ask(query, within(3600)).await.map(|_| ()) })
            })
            .collect();
        holds("both have a turn", || hostile.begun.load(Ordering::SeqCst) == 2).await;
        for _ in 0..20 {
            let fine = gateway.ask(instant("6 * 7 + count(little or vector(1))", scene.now()), within(30)).await;
            assert_eq!(values(&fine.unwrap().unwrap()), [43.0]);
        }
        let panicked = gateway.ask(instant("panics", scene.now()), within(30)).await.unwrap();
        assert!(matches!(panicked, Err(QueryFailure::Panicked(_))), "{panicked:?}");
        let unparsed = gateway.ask(instant("up(", scene.now()), within(30)).await.unwrap();
        assert!(matches!(unparsed, Err(QueryFailure::Parse(_))), "{unparsed:?}");
        // Both of these need a turn, one of them only after it had looked like little work.
        for text in ["endless", "misjudged"] {
            let timeout = Some(std::time::Duration::from_millis(200));
            let late = RunQuery { timeout, ..instant(text, scene.now()) };
            let late = gateway.ask(late, within(30)).await.unwrap();
            assert_eq!(late.map(|_| ()), Err(QueryFailure::QueueTimeout), "{text}");
        }
        assert!(hostile.interrupted.load(Ordering::SeqCst) <= 1, "the heavy ones go on");
        heavy.iter().for_each(|client| client.abort());
    });
}

#[test]
fn a_misjudged_query_begins_anew_and_counts_once() {
    live(async {
        // On a machine that is too busy to begin it in time the query is heavy from the start, and ends by its timeout.
        for attempt in 0..10 {
            let scene = Scene::new(&tree(), "misjudged");
            let hostile = Arc::<Hostile>::default();
            let queryable = Arc::new(HostileQueryable(Arc::clone(&hostile)));
            let gateway = scene.spawn_gateway_at(Place::root(&scene.tree, "misjudging gateway"), queryable);
            let timeout = Some(std::time::Duration::from_secs(3));
            let query = RunQuery { timeout, ..instant("vector(7) or misjudged", scene.now()) };
            let Ok(fine) = gateway.ask(query, within(30)).await.unwrap() else {
                eprintln!("attempt {attempt} was too late");
                continue;
            };
            assert_eq!(values(&fine), [7.0]);
            let counts = [&hostile.begun, &hostile.interrupted].map(|count| count.load(Ordering::SeqCst));
            assert_eq!(counts, [1, 1]);
            let samples = scene.registry.counter("prometheus_engine_query_samples_total", "", &[]);
            assert_eq!(samples.get(), fine.evaluated.stats.total_samples);
            return;
        }
        panic!("no attempt began in time");
    });
}
