//! Targets from Kubernetes, as in Prometheus `discovery/kubernetes`: the objects of a role and those that they refer to are
//! listed and watched; a change makes the groups anew that depend on it.
//!
//! Nothing is told before everything was listed once, and no more often than [`TELL_GAP`]. A list or a watch that fails
//! leaves the objects as they were.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt};
use tokio::time::{Instant, sleep_until};

use crate::config::discovery::KubernetesSd;
use crate::config::http_client::HttpClientConfig;
use crate::config::kubeconfig;
use crate::discovery::api::{self, ApiClient};
use crate::discovery::error::LookError;
use crate::discovery::kubernetes_api::{Cluster, News, Reflector, Topic};
use crate::discovery::kubernetes_groups::{Attach, Maker, Store, depends};
use crate::discovery::kubernetes_objects::{Kind, Object};
use crate::discovery::metrics::SourceMetrics;
use crate::discovery::surroundings::Surroundings;
use crate::discovery::watching::{BackOff, Watching};
use crate::discovery::{Look, Provider, TargetGroup};
use crate::model::clock::SharedClock;
use crate::telemetry::repeat::{RepeatLimiter, Verdict};

/// The shortest time between two looks.
const TELL_GAP: Duration = Duration::from_millis(200);
/// Changes of objects that others refer to; after more of them everything is made anew.
const SEARCHES_MAX: usize = 64;
/// Groups that are made before others have their turn.
const MADE_AT_ONCE: usize = 64;
/// Waits after a cluster could not be reached for want of settings.
const START_MIN: Duration = Duration::from_secs(1);
const START_MAX: Duration = Duration::from_secs(30);

/// The objects of one configuration.
pub struct KubernetesProvider {
    config: KubernetesSd,
    set: String,
    surroundings: Surroundings,
    metrics: Arc<SourceMetrics>,
    clock: SharedClock,
    main: Kind,
    attach: Attach,
    watching: Watching<Reflector>,
    started: bool,
    start_at: Instant,
    back_off: BackOff,
    /// What has not been listed yet.
    unlisted: BTreeSet<Topic>,
    store: Store,
    /// The groups of the main objects, by their keys.
    groups: BTreeMap<String, TargetGroup>,
    stale: Stale,
    failures: BTreeMap<Topic, String>,
    repeats: RepeatLimiter,
    changed: bool,
    told_at: Option<Instant>,
}

/// Which groups have to be made anew.
enum Stale {
    All,
    Some { keys: BTreeSet<String>, searches: usize },
}

impl KubernetesProvider {
    /// A provider that has not asked yet.
    pub fn new(
        config: &KubernetesSd,
        set: &str,
        surroundings: &Surroundings,
        metrics: &Arc<SourceMetrics>,
        clock: &SharedClock,
    ) -> Self {
        let attach = &config.attach_metadata;
        Self {
            set: set.to_owned(),
            surroundings: surroundings.clone(),
            metrics: Arc::clone(metrics),
            clock: SharedClock::clone(clock),
            main: match config.role.as_str() {
                "node" => Kind::Node,
                "service" => Kind::Service,
                "endpoints" => Kind::Endpoints,
                "endpointslice" => Kind::EndpointSlice,
                "ingress" => Kind::Ingress,
                _ => Kind::Pod,
            },
            attach: Attach {
                node: attach.node,
                namespace: attach.namespace,
                deployment: attach.deployment,
                job: attach.job,
                cronjob: attach.cronjob,
            },
            config: config.clone(),
            watching: Watching::default(),
            started: false,
            start_at: Instant::now(),
            back_off: BackOff::new(START_MIN, START_MAX),
            unlisted: BTreeSet::new(),
            store: Store::default(),
            groups: BTreeMap::new(),
            stale: Stale::All,
            failures: BTreeMap::new(),
            repeats: RepeatLimiter::default(),
            changed: false,
            told_at: None,
        }
    }

    /// What is listed and watched.
    fn topics(&self, namespaces: &[Option<String>]) -> Vec<Topic> {
        let (main, attach) = (self.main, self.attach);
        if main == Kind::Node {
            return vec![Topic { kind: Kind::Node, namespace: None }];
        }
        let mut topics = Vec::new();
        if attach.namespace {
            topics.push(Topic { kind: Kind::Namespace, namespace: None });
        }
        let mut namespaced = vec![main];
        if matches!(main, Kind::Endpoints | Kind::EndpointSlice) {
            namespaced.extend([Kind::Service, Kind::Pod]);
        }
        if namespaced.contains(&Kind::Pod) {
            if attach.node {
                topics.push(Topic { kind: Kind::Node, namespace: None });
            }
            if attach.deployment {
                namespaced.push(Kind::ReplicaSet);
            }
            if attach.job || attach.cronjob {
                namespaced.push(Kind::Job);
            }
        }
        for namespace in namespaces {
            topics.extend(namespaced.iter().map(|kind| Topic { kind: *kind, namespace: namespace.clone() }));
        }
        topics
    }

    async fn start(&mut self) -> Result<(), LookError> {
        sleep_until(self.start_at).await;
        let (server, http) = reach(&self.config, &self.surroundings).await?;
        let namespaces = namespaces(&self.config, &self.surroundings).await?;
        let cluster = Arc::new(Cluster {
            client: ApiClient::new(&http).counted(&self.metrics, "kubernetes_sd"),
            server: api::url(&server)?,
            metrics: Arc::clone(&self.metrics),
            clock: SharedClock::clone(&self.clock),
        });
        for topic in self.topics(&namespaces) {
            let selector = self.config.selectors.iter().find(|selector| selector.role == topic.kind.role());
            let selectors = selector.map_or(("", ""), |selector| (&selector.label, &selector.field));
            self.unlisted.insert(topic.clone());
            self.watching.add(Reflector::new(&cluster, topic, selectors));
        }
        self.started = true;
        Ok(())
    }

    fn apply(&mut self, topic: &Topic, news: Result<News, LookError>) {
        let news = match news {
            Ok(news) => news,
            Err(error) => {
                let err = error.to_string();
                self.log(topic, &err);
                self.changed |= self.failures.insert(topic.clone(), err.clone()).is_none_or(|before| before != err);
                return;
            }
        };
        match news {
            News::Listed(objects) => {
                self.replace(topic, objects);
                self.changed |= self.unlisted.remove(topic) && self.unlisted.is_empty();
            }
            News::Changed(object) => self.insert(topic.kind, object),
            News::Deleted(object) => self.remove(topic.kind, &object.key()),
            News::Well => {}
        }
        if self.failures.remove(topic).is_some() {
            self.changed = true;
            self.repeats.succeeded();
        }
    }

    /// Makes a list of what is known of a topic.
    fn replace(&mut self, topic: &Topic, objects: Vec<Object>) {
        let listed: BTreeSet<String> = objects.iter().map(Object::key).collect();
        let within = |object: &Object| topic.namespace.as_ref().is_none_or(|name| *name == object.meta().namespace);
        let known = self.store.each(topic.kind);
        let gone = known.filter(|(key, object)| within(object) && !listed.contains(*key));
        for key in gone.map(|(key, _)| key.clone()).collect::<Vec<_>>() {
            self.remove(topic.kind, &key);
        }
        objects.into_iter().for_each(|object| self.insert(topic.kind, object));
    }

    fn insert(&mut self, kind: Kind, object: Object) {
        let key = object.key();
        let same = self.store.get(kind, &key) == Some(&object);
        let before = self.store.insert(kind, object);
        self.count(kind, if before.is_some() { "update" } else { "add" });
        if !same {
            self.touch(kind, key);
        }
    }

    fn remove(&mut self, kind: Kind, key: &str) {
        if self.store.remove(kind, key).is_some() {
            self.count(kind, "delete");
            self.touch(kind, key.to_owned());
        }
    }

    fn count(&self, kind: Kind, event: &'static str) {
        let counted = match kind {
            Kind::Namespace | Kind::ReplicaSet | Kind::Job => false,
            Kind::Node => self.main == Kind::Node,
            Kind::Pod => self.main == Kind::Pod || self.main == Kind::Endpoints && event == "update",
            _ => true,
        };
        if counted {
            self.metrics.kubernetes_event(kind.role(), event);
        }
    }

    /// Notes which groups depend on an object that has changed.
    fn touch(&mut self, kind: Kind, key: String) {
        self.changed = true;
        let Stale::Some { keys, searches } = &mut self.stale else { return };
        if kind == self.main {
            keys.insert(key);
            return;
        }
        *searches += 1;
        if !self.unlisted.is_empty() || SEARCHES_MAX < *searches {
            self.stale = Stale::All;
            return;
        }
        let of_main = self.store.each(self.main).filter(|(_, object)| depends(&self.store, object, kind, &key));
        keys.extend(of_main.map(|(key, _)| key.clone()));
    }

    /// Makes the groups anew that have to be, a few at a time, so that others have their turn in between. Dropping the future
    /// leaves the rest for the next time.
    async fn make_groups(&mut self) {
        if let Stale::All = self.stale {
            let known = self.groups.keys().cloned();
            let keys = self.store.each(self.main).map(|(key, _)| key.clone()).chain(known).collect();
            self.stale = Stale::Some { keys, searches: 0 };
        }
        let mut made: usize = 0;
        while let Stale::Some { keys, searches } = &mut self.stale {
            let Some(key) = keys.pop_first() else {
                *searches = 0;
                return;
            };
            let maker = Maker { store: &self.store, attach: self.attach };
            match self.store.get(self.main, &key).and_then(|object| maker.group(object)) {
                Some(group) => drop(self.groups.insert(key, group)),
                None => drop(self.groups.remove(&key)),
            }
            made += 1;
            if made.is_multiple_of(MADE_AT_ONCE) {
                tokio::task::yield_now().await;
            }
        }
    }

    /// What there is to tell now.
    async fn look(&mut self) -> Look {
        let complete = self.unlisted.is_empty();
        if complete {
            self.make_groups().await;
        }
        self.changed = false;
        self.told_at = Some(Instant::now());
        let failure = self.failures.values().next().cloned();
        Look { groups: complete.then(|| self.groups.values().cloned().collect()), failure }
    }

    /// When to tell what has changed; there is something to tell once everything was listed or something has failed.
    fn tell_at(&self) -> Option<Instant> {
        let ready = self.changed && (self.unlisted.is_empty() || !self.failures.is_empty());
        ready.then(|| self.told_at.map_or_else(Instant::now, |at| at + TELL_GAP))
    }

    fn log(&mut self, topic: &Topic, err: &str) {
        let (component, discovery, config, role) = ("discovery", "kubernetes", self.set.as_str(), topic.kind.role());
        if let Verdict::Log { repeated } = self.repeats.failed(err, self.clock.monotonic()) {
            tracing::error!(component, discovery, config, role, err, repeated, "Failed to list or watch");
        }
    }
}

impl Provider for KubernetesProvider {
    fn next(&mut self) -> BoxFuture<'_, Look> {
        let look = async {
            if !self.started
                && let Err(error) = self.start().await
            {
                self.start_at = Instant::now() + self.back_off.failed();
                let err = error.to_string();
                self.log(&Topic { kind: self.main, namespace: None }, &err);
                return Look { groups: None, failure: Some(err) };
            }
            loop {
                let tell_at = self.tell_at();
                tokio::select! {
                    (topic, news) = self.watching.next() => {
                        self.apply(&topic, news);
                        for (topic, news) in self.watching.ready() {
                            self.apply(&topic, news);
                        }
                    }
                    () = sleep_until(tell_at.unwrap_or_else(Instant::now)), if tell_at.is_some() => {
                        return self.look().await;
                    }
                }
            }
        };
        look.boxed()
    }
}

/// The API server and the settings by which it is reached.
async fn reach(config: &KubernetesSd, surroundings: &Surroundings) -> Result<(String, HttpClientConfig), LookError> {
    if !config.kubeconfig_file.is_empty() {
        let path = config.kubeconfig_file.as_str().to_owned();
        let text = read(path.clone()).await?;
        let read = kubeconfig::parse(&path, &text).map_err(LookError::Other)?;
        return Ok((read.server, read.http));
    }
    if config.api_server.is_set() {
        return Ok((config.api_server.expose().to_owned(), config.http.clone()));
    }
    let (Some(host), Some(port)) =
        (surroundings.variable("KUBERNETES_SERVICE_HOST"), surroundings.variable("KUBERNETES_SERVICE_PORT"))
    else {
        let text = "unable to load in-cluster configuration, KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT must be \
                    defined";
        return Err(LookError::Other(text.to_owned()));
    };
    let host = crate::discovery::labels::host_port(&host, port);
    let account = surroundings.service_account.to_string_lossy();
    Ok((format!("{}://{host}", surroundings.cluster_scheme), kubeconfig::of_service_account(&account)))
}

/// The namespaces that are looked at; none stands for all.
async fn namespaces(config: &KubernetesSd, surroundings: &Surroundings) -> Result<Vec<Option<String>>, LookError> {
    let mut names: BTreeSet<String> = config.namespaces.names.iter().cloned().collect();
    if config.namespaces.own_namespace {
        let path = surroundings.service_account.join("namespace").to_string_lossy().into_owned();
        let own = read(path).await.map_err(|error| error.during("could not determine the pod's namespace"))?;
        if own.is_empty() {
            return Err(LookError::Other("could not read own namespace name (empty file)".to_owned()));
        }
        names.insert(own);
    }
    Ok(if names.is_empty() { vec![None] } else { names.into_iter().map(Some).collect() })
}

/// Reads a small file, on a thread of its own.
async fn read(path: String) -> Result<String, LookError> {
    const LEN_MAX: u64 = 4 << 20;
    let read = move || {
        use std::io::Read as _;
        let mut text = String::new();
        let read = std::fs::File::open(&path).and_then(|file| file.take(LEN_MAX).read_to_string(&mut text));
        read.map(|_| text).map_err(|error| LookError::Other(format!("open {path}: {error}")))
    };
    match tokio::task::spawn_blocking(read).await {
        Ok(read) => read,
        Err(error) => Err(LookError::Other(error.to_string())),
    }
}
