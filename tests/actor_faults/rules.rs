//! Rule groups and their manager at fault: what alerts and series show of it, and what other groups notice.

use std::sync::Arc;

use watchfire::actors::failpoint::{Point, arm};
use watchfire::actors::policy::Policy;
use watchfire::actors::query_gateway::{QueryFailure, RunRule};
use watchfire::actors::registry::ActorState;
use watchfire::actors::rule_group::GroupView;
use watchfire::actors::rule_manager::ApplyRules;
use watchfire::actors::storage_client::Priority;
use watchfire::model::labels::Labels;
use watchfire::model::matcher::Matcher;
use watchfire::model::result::QueryValue;
use watchfire::model::sample::is_stale;
use watchfire::rules::alerting::AlertState;
use watchfire::rules::spec::{AlertSpec, RuleKind};
use watchfire::rules::state::Health;

use crate::matrix::tree;
use crate::probe::within;
use crate::scene::{KeptAlerts, QUICK, Scene, alert, batch, holds, instant, live, record, rule_group};

/// State and start of each alert of the rule `index`.
fn alerts(view: &GroupView, index: usize) -> Vec<(AlertState, i64)> {
    view.rules[index].alerts.values().map(|alert| (alert.state, alert.active_at)).collect()
}

/// A counter of the group `f;<name>`.
fn count(scene: &Scene, metric: &str, name: &str) -> u64 {
    scene.registry.counter(metric, "", &[("rule_group", &format!("f;{name}"))]).get()
}

const ITERATIONS: &str = "prometheus_rule_group_iterations_total";
const MISSED: &str = "prometheus_rule_group_iterations_missed_total";
const FAILURES: &str = "prometheus_rule_evaluation_failures_total";

#[test]
fn a_panicking_group_keeps_its_timers_and_its_series_and_its_sibling_misses_nothing() {
    live(async {
        let scene = Scene::new(&tree(), "timers");
        let sent = Arc::new(KeptAlerts::default());
        let runtime = scene.rules(&sent);
        let rules = vec![record("kept", "vector(1)"), alert("Pending", "vector(1)", 3_600_000)];
        let (_subject, deps) = scene.spawn_group("panicking group", rule_group("subject", 300, rules), &runtime);
        let rules = vec![record("beside", "vector(1)")];
        let (_sibling, _) = scene.spawn_group("its sibling", rule_group("sibling", 300, rules), &runtime);
        holds("both are evaluated", || deps.view().evaluated_at.is_some() && scene.last("beside") == [1.0]).await;
        let before = alerts(&deps.view(), 1);
        assert_eq!(before[0].0, AlertState::Pending);
        let iterations = count(&scene, ITERATIONS, "sibling");
        for point in [Point::Timer, Point::Future, Point::Timer] {
            let armed = arm("rule_group", Some("panicking group"), point, 1);
            holds("the group panics", || armed.left() == 0).await;
        }
        let evaluated = deps.view().evaluated_at;
        holds("it is evaluated again", || deps.view().evaluated_at != evaluated).await;
        assert_eq!(alerts(&deps.view(), 1), before, "no `for` begins anew");
        let samples = scene.samples(&[Matcher::equal("__name__", "kept")]).unwrap();
        assert!(samples[0].1.values.iter().all(|value| *value == 1.0), "no stale marker between");
        holds("the sibling goes on", || iterations + 3 <= count(&scene, ITERATIONS, "sibling")).await;
        assert_eq!(count(&scene, MISSED, "sibling"), 0);
        assert!(sent.0.lock().is_empty());
    });
}

#[test]
fn no_alert_changes_while_a_shard_is_being_rebuilt() {
    const RESTING: Policy = Policy { delay_first_ms: 60_000, delay_max_ms: 60_000, ..QUICK };
    live(async {
        let scene = Scene::with_shards(&tree(), "rebuilding", 1, RESTING);
        let sent = Arc::new(KeptAlerts::default());
        let runtime = scene.rules(&sent);
        scene.storage.append(batch("here", 0..1, scene.now(), 1.0), Priority::Normal, within(30)).await.unwrap();
        let rules = vec![
            alert("Firing", "here == 1", 0),
            alert("Absent", "absent(here)", 0),
            alert("Nothing", "absent(nothing)", 0),
        ];
        let (_group, deps) = scene.spawn_group("group", rule_group("g", 100, rules), &runtime);
        let states = || [0, 1, 2].map(|index| alerts(&deps.view(), index));
        holds("the alerts fire", || states()[2].len() == 1).await;
        let before = states();
        assert_eq!(before.each_ref().map(|alerts| alerts.len()), [1, 0, 1]);

        let armed = arm("storage_shard", Some(&scene.shard_name(0)), Point::Restarting, 1);
        scene.head.shards()[0].tear_next();
        // The shard panics inside the marks, then once more, and rests.
        let torn = scene.storage.append(batch("here", 0..2, scene.now(), 2.0), Priority::Normal, within(1)).await;
        assert!(torn.is_err());
        holds("the shard rests", || armed.left() == 0).await;
        holds("rules fail", || deps.view().rules.iter().all(|rule| rule.health == Health::Bad)).await;
        let failures = count(&scene, FAILURES, "g");
        holds("ten evaluations fail", || failures + 30 <= count(&scene, FAILURES, "g")).await;
        assert!(deps.view().rules[0].last_error.contains("shard 0 is not available"));
        assert_eq!(states(), before);
        assert_eq!(scene.shards[0].entry().state(), ActorState::BackingOff, "it rested all the time");
        assert!(sent.0.lock().iter().all(|alert| !alert.is_resolved_at(scene.now())));
    });
}

#[test]
fn a_poisonous_rule_is_its_own_error_and_users_cannot_take_the_slot_of_another() {
    live(async {
        let scene = Scene::new(&tree(), "poisoned");
        let gateway = scene.spawn_gateway("poisoned queries");
        let own = gateway.reserve();
        let poison = RunRule::new(|_| -> u8 { panic!("poison") });
        let answer = own.read(poison, within(30)).await;
        assert!(matches!(answer, Ok(Err(QueryFailure::Panicked(text))) if text.contains("poison")));
        assert_eq!(gateway.entry().row().restarts, 0);

        while gateway.try_tell(instant("1", scene.now())).is_ok() {}
        let at = scene.now();
        let rule = RunRule::new(move |queries| queries.instant("6 * 7", at).map(|queried| queried.value));
        let Ok(Ok(Ok(QueryValue::Scalar(point)))) = own.read(rule, within(30)).await else { panic!("no answer") };
        assert_eq!(point.value, 42.0);
        let unknown = RunRule::new(move |queries| queries.instant("no_such(x)", at).map(|queried| queried.value));
        let Ok(Ok(Err(error))) = own.read(unknown, within(30)).await else { panic!("no error") };
        assert!(error.text.contains("unknown function with name \"no_such\"") && !error.canceled, "{error}");
    });
}

#[test]
fn a_failed_group_says_so_and_keeps_its_alerts_until_a_try_succeeds() {
    live(async {
        let scene = Scene::new(&tree(), "failing");
        let runtime = scene.rules(&Arc::new(KeptAlerts::default()));
        let groups = vec![
            rule_group("fails", 100, vec![alert("A", "vector(1)", 3_600_000)]),
            rule_group("works", 100, vec![record("beside", "1")]),
        ];
        let (_manager, deps) = scene.spawn_rule_manager("manager of failing groups", groups, &runtime);
        let view = |index: usize| deps.overview.groups().remove(index);
        let health = || view(0).rules[0].health;
        holds("it is evaluated", || deps.overview.groups().len() == 2 && health() == Health::Good).await;
        let before = alerts(&view(0), 0);
        let armed = arm("rule_group", Some("f;fails"), Point::Timer, usize::MAX);
        holds("it has failed", || health() == Health::Bad).await;
        let text = view(0).rules[0].last_error.clone();
        assert!(text.starts_with("the group's actor has failed: failpoint"), "{text}");
        assert_eq!(alerts(&view(0), 0), before);
        let iterations = count(&scene, ITERATIONS, "works");
        holds("its sibling goes on", || iterations + 3 <= count(&scene, ITERATIONS, "works")).await;
        drop(armed);
        scene.tree.retry_failed();
        holds("it is back", || health() == Health::Good).await;
        assert_eq!(alerts(&view(0), 0), before);
    });
}

#[test]
fn reloads_touch_what_has_changed_and_a_removed_group_ends_with_stale_markers() {
    live(async {
        let scene = Scene::new(&tree(), "reloading");
        let runtime = scene.rules(&Arc::new(KeptAlerts::default()));
        let changing = rule_group("changing", 100, vec![alert("A", "vector(1)", 3_600_000), record("dropped", "1")]);
        let gone = rule_group("gone", 100, vec![record("ending", "1")]);
        let same = rule_group("same", 100, vec![record("going_on", "1")]);
        let groups = vec![changing.clone(), gone, same.clone()];
        let (manager, deps) = scene.spawn_rule_manager("reloading manager", groups, &runtime);
        let armed = arm("rule_manager", Some("reloading manager"), Point::Handler, 1);
        assert!(manager.ask(ApplyRules, within(30)).await.is_err());
        drop(armed);
        assert_eq!(manager.ask(ApplyRules, within(30)).await, Ok(Vec::new()));
        assert_eq!(scene.count("rule_group"), 3, "neither orphaned nor doubled");
        let written = |metric: &str| scene.last(metric) == [1.0];
        holds("all are evaluated", || written("ending") && written("dropped") && written("going_on")).await;
        let view = |index: usize| deps.overview.groups().remove(index);
        let before = alerts(&view(0), 0);
        let untouched = view(2).spec;

        let mut changed = changing;
        changed.rules.truncate(1);
        let RuleKind::Alerting(rule) = &mut changed.rules[0].kind else { panic!("an alert") };
        *rule = AlertSpec { annotations: Labels::from_pairs([("new", "text")]), ..rule.clone() };
        *deps.groups.lock() = vec![same, changed.clone()];
        assert_eq!(manager.ask(ApplyRules, within(30)).await, Ok(Vec::new()));
        assert_eq!(*view(0).spec, changed);
        assert!(Arc::ptr_eq(&view(1).spec, &untouched));
        assert_eq!(alerts(&view(0), 0), before);
        let evaluated = view(0).evaluated_at;
        holds("the changed group is evaluated", || evaluated < view(0).evaluated_at).await;
        assert_eq!(alerts(&view(0), 0), before, "no `for` begins anew");
        let ended = |metric: &str| is_stale(scene.last(metric)[0]);
        holds("series of a rule that is gone end", || ended("dropped")).await;
        holds("series of a group that is gone end", || ended("ending")).await;
        holds("its actor has ended", || scene.count("rule_group") == 2).await;
        assert!(written("going_on"));
    });
}
