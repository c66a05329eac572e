//! Kubernetes's API: each kind of objects is listed, page by page, and watched from there. A watch that ends is taken up where
//! it was; one whose beginning the server has forgotten (410) begins with a new list.

use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt};
use tokio::time::{Instant, sleep_until, timeout};
use url::Url;

use crate::client::{Failure, ResponseBody};
use crate::discovery::api::{self, ApiClient, json_request};
use crate::discovery::error::LookError;
use crate::discovery::kubernetes_objects::{Kind, Object, WatchHead, page, watched};
use crate::discovery::metrics::SourceMetrics;
use crate::discovery::watching::{BackOff, Watched};
use crate::model::clock::SharedClock;

/// Objects on a page.
const PAGE_LEN: usize = 500;
/// How long a page, or the beginning of a watch, may take.
const PAGE_WITHIN: Duration = Duration::from_secs(60);
/// How long a watch is asked to go on.
const WATCH_FOR: Duration = Duration::from_secs(480);
/// How long it may take beyond that.
const WATCH_MARGIN: Duration = Duration::from_secs(30);
/// The longest line of a watch.
const LINE_LEN_MAX: usize = 16 << 20;
/// Waits after failures.
const RETRY_MIN: Duration = Duration::from_millis(800);
const RETRY_MAX: Duration = Duration::from_secs(30);
/// A watch that has lasted so long was none of those that end at once.
const WATCH_WORTH: Duration = Duration::from_secs(1);
const GONE: u16 = 410;

/// A cluster, as its API server shows it.
pub(super) struct Cluster {
    pub(super) client: ApiClient,
    pub(super) server: Url,
    pub(super) metrics: Arc<SourceMetrics>,
    pub(super) clock: SharedClock,
}

/// Objects that are listed and watched together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Topic {
    pub(super) kind: Kind,
    /// All namespaces unless it names one.
    pub(super) namespace: Option<String>,
}

/// News of a topic.
pub(super) enum News {
    /// All objects that there are.
    Listed(Vec<Object>),
    /// A new or a changed object.
    Changed(Object),
    /// An object that is gone.
    Deleted(Object),
    /// It is watched, or is known up to now.
    Well,
}

/// A topic that is listed and watched.
pub(super) struct Reflector {
    cluster: Arc<Cluster>,
    topic: Topic,
    label_selector: String,
    field_selector: String,
    /// Up to where it is known; none before it was listed.
    version: Option<String>,
    watch: Option<Watch>,
    due: Instant,
    back_off: BackOff,
}

/// A watch under way.
struct Watch {
    body: ResponseBody,
    /// Bytes that have come, and how many of them have no line's end.
    buffer: Vec<u8>,
    searched: usize,
    since: Instant,
}

impl Watch {
    /// The next line; none at the end.
    async fn line(&mut self) -> Result<Option<Vec<u8>>, LookError> {
        loop {
            let fresh = self.buffer.get(self.searched..).unwrap_or_default();
            if let Some(at) = memchr::memchr(b'\n', fresh) {
                let rest = self.buffer.split_off(self.searched + at + 1);
                self.searched = 0;
                return Ok(Some(std::mem::replace(&mut self.buffer, rest)));
            }
            self.searched = self.buffer.len();
            if LINE_LEN_MAX < self.buffer.len() {
                return Err(LookError::TooLong { limit: LINE_LEN_MAX });
            }
            match self.body.chunk().await? {
                Some(chunk) => self.buffer.extend_from_slice(&chunk),
                None => return Ok(None),
            }
        }
    }
}

impl Reflector {
    pub(super) fn new(cluster: &Arc<Cluster>, topic: Topic, (label, field): (&str, &str)) -> Self {
        Self {
            cluster: Arc::clone(cluster),
            topic,
            label_selector: label.to_owned(),
            field_selector: field.to_owned(),
            version: None,
            watch: None,
            due: Instant::now(),
            back_off: BackOff::new(RETRY_MIN, RETRY_MAX),
        }
    }

    fn url(&self) -> Url {
        let (group, list) = self.topic.kind.path();
        let mut url = self.cluster.server.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(group.split('/'));
            if let Some(namespace) = &self.topic.namespace {
                segments.push("namespaces").push(namespace);
            }
            segments.push(list);
        }
        for (name, value) in [("labelSelector", &self.label_selector), ("fieldSelector", &self.field_selector)] {
            if !value.is_empty() {
                url.query_pairs_mut().append_pair(name, value);
            }
        }
        url
    }

    /// All objects, and up to where they are known.
    async fn list(&self) -> Result<(Vec<Object>, String), LookError> {
        let (mut objects, mut more) = (Vec::new(), String::new());
        loop {
            let mut url = self.url();
            url.query_pairs_mut().append_pair("limit", &PAGE_LEN.to_string());
            if !more.is_empty() {
                url.query_pairs_mut().append_pair("continue", &more);
            }
            let (began, path) = (self.cluster.clock.monotonic(), url.path().to_owned());
            let read = self.cluster.client.read(json_request(url), Instant::now() + PAGE_WITHIN).await;
            let took = self.cluster.clock.monotonic().saturating_sub(began);
            let code = read.as_ref().map_or_else(|error| error.status_code(), |_| Some(200));
            self.cluster.metrics.kubernetes_request(&path, code, took.as_secs_f64());
            let kind = self.topic.kind;
            let read = api::parse(read?, move |content| page(kind, content)).await?;
            objects.extend(read.objects);
            more = read.meta.more;
            if more.is_empty() {
                return Ok((objects, read.meta.version));
            }
        }
    }

    async fn open(&self, version: &str) -> Result<Watch, LookError> {
        let mut url = self.url();
        url.query_pairs_mut()
            .append_pair("watch", "true")
            .append_pair("allowWatchBookmarks", "true")
            .append_pair("resourceVersion", version)
            .append_pair("timeoutSeconds", &WATCH_FOR.as_secs().to_string());
        let deadline = Instant::now() + WATCH_FOR + WATCH_MARGIN;
        let asked = timeout(PAGE_WITHIN, self.cluster.client.ask(json_request(url), deadline)).await;
        let response = asked.map_err(|_| LookError::Body(Failure::Deadline))??;
        Ok(Watch { body: response.body, buffer: Vec::new(), searched: 0, since: Instant::now() })
    }

    /// Waits for news.
    async fn news(&mut self) -> Result<News, LookError> {
        loop {
            let Some(version) = self.version.clone() else {
                sleep_until(self.due).await;
                let (objects, version) = self.list().await?;
                self.version = Some(version);
                self.due = Instant::now();
                self.back_off.succeeded();
                return Ok(News::Listed(objects));
            };
            let Some(watch) = &mut self.watch else {
                sleep_until(self.due).await;
                self.watch = Some(self.open(&version).await?);
                return Ok(News::Well);
            };
            let Some(line) = watch.line().await? else {
                // The server ends watches when their time is over, and also when it is about to stop.
                let lasted = watch.since.elapsed();
                self.watch = None;
                self.due = Instant::now() + WATCH_WORTH.saturating_sub(lasted);
                continue;
            };
            if line.trim_ascii().is_empty() {
                continue;
            }
            let head: WatchHead = serde_json::from_slice(&line)?;
            if head.kind == "ERROR" {
                let (status, code, excerpt) = (head.object.code.to_string(), head.object.code, head.object.message);
                return Err(LookError::Status { status, code, excerpt });
            }
            if !head.object.meta.version.is_empty() {
                self.version = Some(head.object.meta.version);
            }
            self.back_off.succeeded();
            match head.kind.as_str() {
                "ADDED" | "MODIFIED" => return Ok(News::Changed(watched(self.topic.kind, &line)?)),
                "DELETED" => return Ok(News::Deleted(watched(self.topic.kind, &line)?)),
                // A bookmark: nothing has changed up to its version.
                _ => {}
            }
        }
    }
}

impl Watched for Reflector {
    type Key = Topic;
    type Event = Result<News, LookError>;

    fn key(&self) -> Topic {
        self.topic.clone()
    }

    fn step(mut self) -> BoxFuture<'static, (Self, Self::Event)> {
        let step = async move {
            let news = self.news().await;
            if let Err(error) = &news {
                self.watch = None;
                if error.status_code() == Some(GONE) {
                    // Listed anew at once: this is no failure, but the way of the world.
                    let again = std::mem::take(&mut self.version).is_some();
                    self.due = Instant::now() + if again { Duration::ZERO } else { self.back_off.failed() };
                    return (self, Ok(News::Well));
                }
                self.cluster.metrics.kubernetes_failures.inc();
                self.due = Instant::now() + self.back_off.failed();
            }
            (self, news)
        };
        step.boxed()
    }
}
