//! Queries at fault: what one that panics, is given up or comes too many does to the others.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::FutureExt;
use watchfire::actors::control::Drain;
use watchfire::actors::mailbox::SendError;
use watchfire::actors::query_gateway::{Listed, Listing, QueryClient, QueryFailure, RunListing, RunQuery};
use watchfire::actors::supervision::Place;
use watchfire::model::clock::ManualClock;
use watchfire::model::matcher::Matcher;
use watchfire::model::names::Names;
use watchfire::model::read::{Queryable, ReadBudget, ReadError, ReadView, Scope, SelectedSeries, may_read_files};
use watchfire::model::time::TimeRange;
use watchfire::promql::eval::EvalError;

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

    fn label_names(&self, _: &Scope<'_>, _: &dyn ReadBudget) -> Result<Names, ReadError> {
        Ok(Names::default())
    }

    fn label_values(&self, _: &str, _: &Scope<'_>, _: &dyn ReadBudget) -> Result<Names, ReadError> {
        Ok(Names::default())
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

type Look = dyn Fn(&dyn ReadBudget) -> Result<(), ReadError> + Send + Sync;

/// Storage without series; what a look at it does is up to the test.
struct Looked(Box<Look>);

struct LookedQueryable(Arc<Looked>);

impl Queryable for LookedQueryable {
    fn view(&self) -> Result<Arc<dyn ReadView>, ReadError> {
        Ok(Arc::clone(&self.0) as Arc<dyn ReadView>)
    }
}

impl ReadView for Looked {
    fn select(&self, _: &[Matcher], _: TimeRange, budget: &dyn ReadBudget) -> Result<Vec<SelectedSeries>, ReadError> {
        (self.0)(budget).map(|()| Vec::new())
    }

    fn label_names(&self, _: &Scope<'_>, budget: &dyn ReadBudget) -> Result<Names, ReadError> {
        (self.0)(budget).map(|()| ["a", "b"].into_iter().collect())
    }

    fn label_values(&self, _: &str, _: &Scope<'_>, _: &dyn ReadBudget) -> Result<Names, ReadError> {
        panic!("a poisonous listing")
    }

    fn series_estimate(&self, matchers: &[Matcher], _: TimeRange) -> Result<Option<usize>, ReadError> {
        Ok(Some(if matchers.contains(&Matcher::equal("__name__", "many")) { 100_000 } else { 1 }))
    }

    fn reads_files(&self, range: TimeRange) -> bool {
        range.max().0 == 77
    }
}

/// A client of a gateway over such storage, and its clock, which stands still unless a look moves it.
async fn looked(
    scene: &Scene,
    (name, slots): (&str, u32),
    look: impl Fn(&ManualClock, &dyn ReadBudget) -> Result<(), ReadError> + Send + Sync + 'static,
) -> QueryClient {
    let clock = ManualClock::at(scene.now());
    let its_clock = Arc::clone(&clock);
    let storage = Looked(Box::new(move |budget| look(&its_clock, budget)));
    let queryable = Arc::new(LookedQueryable(Arc::new(storage)));
    scene.spawn_queries(Place::root(&scene.tree, name).slots(slots), queryable, &clock).await
}

fn listing(listing: Listing) -> RunListing {
    RunListing { listing, selectors: Vec::new(), range: TimeRange::ALL, limit: 0 }
}

fn answered_at_once(scene: &Scene) -> u64 {
    scene.registry.counter("watchfire_queries_answered_at_once_total", "", &[]).get()
}

#[test]
fn next_to_no_work_is_done_by_who_asks() {
    live(async {
        let scene = Scene::new(&tree(), "at once");
        let client = looked(&scene, ("gateway not asked", 16), |_, budget| budget.check()).await;
        let query = |text: &str| client.query(instant(text, scene.now()), within(30));
        for _ in 0..3 {
            let fine = query("vector(6 * 7) or up").now_or_never().expect("at once").unwrap().unwrap();
            assert_eq!(values(&fine), [42.0]);
        }
        let unparsed = query("up(").now_or_never().expect("at once").unwrap();
        assert!(matches!(unparsed, Err(QueryFailure::Parse(_))), "{unparsed:?}");
        let names = client.list(listing(Listing::LabelNames), within(30)).now_or_never().expect("at once");
        assert!(matches!(names.unwrap().unwrap().listed, Listed::Names(names) if names == ["a", "b"]));
        // A panic is the request's own error.
        let panicked = client.list(listing(Listing::LabelValues("x".into())), within(30)).now_or_never();
        let panicked = panicked.expect("at once").unwrap();
        assert!(matches!(&panicked, Err(QueryFailure::Panicked(text)) if text.contains("poisonous")), "{panicked:?}");
        assert_eq!((answered_at_once(&scene), client.gateway().entry().row().handled), (6, 0));
        assert_eq!(scene.registry.gauge("prometheus_engine_queries", "", &[]).get(), 0.0);
        assert!(client.deps().running_queries().is_empty());

        // What is more goes to the gateway: by its estimate, where files would be read, and what lists all series.
        let of_file = RunQuery { ..instant("up", watchfire::model::time::TimestampMs(77)) };
        let all = listing(Listing::Series);
        assert!(query("many").now_or_never().is_none());
        assert!(client.query(of_file, within(30)).now_or_never().is_none());
        assert!(client.list(all, within(30)).now_or_never().is_none());
        let levels = format!("{}1{}", "(".repeat(60), ")".repeat(60));
        assert!(query(&levels).now_or_never().is_none(), "it takes a thread with more stack");
        assert_eq!(values(&query(&levels).await.unwrap().unwrap()), [1.0]);
        assert_eq!(answered_at_once(&scene), 6);

        // Nor is anything done beside a gateway that has ended.
        client.gateway().signal(Drain { deadline: within(30) }).unwrap();
        client.gateway().ended().await;
        assert_eq!(query("6 * 7").await.map(|_| ()), Err(SendError::Gone));
    });
}

#[test]
fn what_takes_longer_than_it_seemed_goes_to_the_gateway_and_counts_once() {
    live(async {
        let scene = Scene::new(&tree(), "not at once");
        let begun = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&begun);
        let slow = looked(&scene, ("gateway after all", 2), move |clock, budget| {
            count.fetch_add(1, Ordering::SeqCst);
            clock.advance(Duration::from_millis(1));
            budget.check()
        });
        let slow = slow.await;
        let fine = slow.query(instant("vector(7) or up", scene.now()), within(30)).await.unwrap().unwrap();
        assert_eq!((values(&fine), begun.load(Ordering::SeqCst)), (vec![7.0], 2));
        let samples = scene.registry.counter("prometheus_engine_query_samples_total", "", &[]);
        assert_eq!(samples.get(), fine.evaluated.stats.total_samples);
        let names = slow.list(listing(Listing::LabelNames), within(30)).await.unwrap().unwrap();
        assert!(matches!(names.listed, Listed::Names(names) if names == ["a", "b"]));
        assert_eq!((answered_at_once(&scene), begun.load(Ordering::SeqCst)), (0, 4));

        // The same where a file would have to be read, of which the estimate did not know.
        let filed = looked(&scene, ("gateway of files", 2), |_, _| match may_read_files() {
            true => Ok(()),
            false => Err(ReadError::Interrupted("a file".into())),
        });
        let filed = filed.await;
        let fine = filed.query(instant("vector(7) or up", scene.now()), within(30)).await.unwrap().unwrap();
        assert_eq!(values(&fine), [7.0]);
        assert!(filed.list(listing(Listing::LabelNames), within(30)).await.unwrap().is_ok());
        assert_eq!(answered_at_once(&scene), 0);
    });
}

#[test]
fn who_asks_takes_a_slot_and_can_be_ended() {
    live(async {
        let scene = Scene::new(&tree(), "ended at once");
        // Slots: those of the two that wait for a look that does not end while the test wants.
        let held = Arc::new(AtomicUsize::new(1));
        let hold = Arc::clone(&held);
        let busy = looked(&scene, ("gateway without slots", 2), move |_, budget| {
            while hold.load(Ordering::SeqCst) == 1 {
                budget.check()?;
                std::thread::yield_now();
            }
            Ok(())
        });
        let busy = busy.await;
        let waiting: Vec<_> = (0..2)
            .map(|_| {
                let (client, query) = (busy.clone(), instant("many", scene.now()));
                actix::spawn(async move { client.query(query, within(3600)).await.map(|_| ()) })
            })
            .collect();
        holds("both hold a slot", || busy.deps().running_queries().len() == 2).await;
        let refused = busy.query(instant("6 * 7", scene.now()), tokio::time::Instant::now()).await;
        assert_eq!(refused.map(|_| ()), Err(SendError::Full));
        held.store(0, Ordering::SeqCst);
        for one in waiting {
            assert_eq!(one.await.unwrap(), Ok(()));
        }

        // A query that is ended from outside while who asks evaluates it.
        let deps = Arc::new(std::sync::OnceLock::<QueryClient>::new());
        let its_deps = Arc::clone(&deps);
        let ended = looked(&scene, ("gateway of ended ones", 2), move |_, budget| {
            let client = its_deps.get().expect("it is set");
            let running = client.deps().running_queries();
            running.iter().for_each(|query| assert!(client.deps().cancel_query(query.id)));
            budget.check()
        });
        let ended = ended.await;
        assert!(deps.set(ended.clone()).is_ok());
        let canceled = ended.query(instant("up", scene.now()), within(30)).now_or_never().expect("at once").unwrap();
        assert!(matches!(canceled, Err(QueryFailure::Eval(EvalError::Canceled(_)))), "{canceled:?}");
        assert!(ended.deps().running_queries().is_empty());
    });
}
