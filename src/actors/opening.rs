//! Scrapes before storage is open: while the log is read back, what targets say is kept here and appended afterwards, with its
//! own times and in its order, before anything that comes later. Owned by the storage client. Bound: bytes; what finds no room
//! is refused, so the scrape says so on `/targets`, and counted; `up 0` and stale markers have an eighth more. Who is told
//! that a batch was kept gets references to go on with that storage does not know: they are translated when the batches are
//! appended, and until each target has heard of the real ones.
//!
//! Only scrapes come here: what is acknowledged to somebody else has to be durable, so that waits until the server is ready.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::actors::storage_client::Priority;
use crate::model::append::{AppendBatch, AppendReport, SeriesHandle, SeriesKey, ShardId};
use crate::model::labels::Labels;
use crate::model::sample::SeriesRef;
use crate::telemetry::metrics::{Counter, Gauge, Registry};

/// How long provisional references are known after storage has opened: longer than intervals of scrapes. Later ones are unknown
/// to storage, and their samples come again by labels.
const NAMES_KEPT: Duration = Duration::from_secs(600);

/// Set in references that are none of storage's, which stay below 2^40.
const PROVISIONAL: u64 = 1 << 63;

/// What is counted.
#[derive(Clone, Debug)]
pub struct OpeningMetrics {
    /// Scrapes that were kept.
    pub staged: Counter,
    /// Scrapes for which there was no room.
    pub refused: Counter,
    /// Samples of kept scrapes that were appended.
    pub appended: Counter,
    /// Scrapes that were kept and that storage did not take.
    pub lost: Counter,
    /// Bytes that are kept.
    pub bytes: Gauge,
}

impl OpeningMetrics {
    /// The metrics of `registry`.
    pub fn new(registry: &Registry) -> Self {
        let counter = |name: &str, help: &str| registry.counter(name, help, &[]);
        Self {
            staged: counter("watchfire_opening_scrapes_total", "Scrapes kept while storage was opening."),
            refused: counter(
                "watchfire_opening_scrapes_refused_total",
                "Scrapes without room while storage was opening.",
            ),
            appended: counter(
                "watchfire_opening_samples_appended_total",
                "Samples of kept scrapes that were appended.",
            ),
            lost: counter("watchfire_opening_scrapes_lost_total", "Kept scrapes that storage did not take."),
            bytes: registry.gauge("watchfire_opening_bytes", "Bytes of scrapes kept while storage is opening.", &[]),
        }
    }
}

/// Why a batch is not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("storage is still opening, and scrapes that wait for it hold {bytes} of {limit} bytes")]
pub struct OpeningFull {
    /// Bytes that are kept.
    pub bytes: u64,
    /// Bytes that may be.
    pub limit: u64,
}

/// What becomes of a batch.
#[derive(Debug, PartialEq)]
pub enum Admission {
    /// Storage is open: it is to be appended.
    Open(AppendBatch),
    /// It is kept.
    Kept(AppendReport),
}

/// See the module's text.
#[derive(Debug)]
pub struct Opening {
    is_open: AtomicBool,
    /// Some targets still use provisional references.
    has_names: AtomicBool,
    /// 0 for no limit.
    bytes_max: u64,
    metrics: Option<OpeningMetrics>,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    batches: VecDeque<AppendBatch>,
    bytes: u64,
    names: Names,
    /// When storage has opened.
    opened: Option<Instant>,
}

/// What provisional references stand for, by their number.
#[derive(Debug, Default)]
struct Names {
    series: Vec<Name>,
    /// References of which nobody has been told yet what they are.
    untold: usize,
}

#[derive(Clone, Debug)]
enum Name {
    Labels(Labels),
    Known(SeriesHandle),
    /// Its user knows it.
    Told(SeriesHandle),
}

/// A kept batch on its way into storage.
#[derive(Debug)]
pub struct Translated {
    /// The batch, with what storage knows.
    pub batch: AppendBatch,
    /// Samples that had a provisional reference: index in the batch, and its number.
    numbers: Vec<(u32, u32)>,
}

impl Opening {
    /// Storage that is open from the beginning.
    pub fn done() -> Arc<Self> {
        Arc::new(Self {
            is_open: AtomicBool::new(true),
            has_names: AtomicBool::new(false),
            bytes_max: 0,
            metrics: None,
            waiting: Mutex::default(),
        })
    }

    /// Storage that is not open yet; up to `bytes_max` bytes are kept for it, 0 for no limit.
    pub fn begin(bytes_max: u64, metrics: OpeningMetrics) -> Arc<Self> {
        Arc::new(Self {
            is_open: AtomicBool::new(false),
            has_names: AtomicBool::new(false),
            bytes_max,
            metrics: Some(metrics),
            waiting: Mutex::default(),
        })
    }

    /// True once all that was kept has been appended.
    pub fn is_open(&self) -> bool {
        self.is_open.load(Ordering::Acquire)
    }

    /// Keeps a batch while storage is opening. The report resolves all series, provisionally.
    pub fn admit(&self, mut batch: AppendBatch, priority: Priority) -> Result<Admission, OpeningFull> {
        if self.is_open() {
            return Ok(Admission::Open(batch));
        }
        let mut waiting = self.waiting.lock();
        // Whoever opens it holds the lock.
        if self.is_open() {
            return Ok(Admission::Open(batch));
        }
        let bytes = waiting.bytes + bytes_of(&batch);
        let limit = match priority {
            Priority::Normal => self.bytes_max,
            Priority::Reserved => self.bytes_max.saturating_add(self.bytes_max / 8),
        };
        if 0 < self.bytes_max && limit < bytes {
            if let Some(metrics) = &self.metrics {
                metrics.refused.inc();
            }
            return Err(OpeningFull { bytes: waiting.bytes, limit });
        }
        let mut report =
            AppendReport { appended: u32::try_from(batch.len()).unwrap_or(u32::MAX), ..AppendReport::default() };
        for (index, key) in (0..).zip(sample_keys(&mut batch)) {
            if let SeriesKey::Labels(labels) = key {
                let labels = labels.clone();
                report.resolved.push((index, waiting.names.add(labels)));
            }
        }
        waiting.bytes = bytes;
        waiting.batches.push_back(batch);
        if let Some(metrics) = &self.metrics {
            metrics.staged.inc();
            metrics.bytes.set(bytes as f64);
        }
        Ok(Admission::Kept(report))
    }

    /// The oldest batch that is kept, for storage; `None` when there is none, and from then on storage is open.
    pub fn next(&self) -> Option<Translated> {
        let mut waiting = self.waiting.lock();
        let Some(batch) = waiting.batches.pop_front() else {
            waiting.opened = Some(Instant::now());
            self.has_names.store(0 < waiting.names.untold, Ordering::Release);
            self.is_open.store(true, Ordering::Release);
            waiting.batches = VecDeque::new();
            return None;
        };
        waiting.bytes = waiting.bytes.saturating_sub(bytes_of(&batch));
        if let Some(metrics) = &self.metrics {
            metrics.bytes.set(waiting.bytes as f64);
        }
        Some(waiting.names.translate(batch))
    }

    /// Takes what storage has said of a batch that was kept: from now on its series go by their references.
    pub fn appended(&self, numbers: &Translated, report: Option<&AppendReport>) {
        let Some(report) = report else {
            if let Some(metrics) = &self.metrics {
                metrics.lost.inc();
            }
            return;
        };
        self.waiting.lock().names.learn(&numbers.numbers, report);
        if let Some(metrics) = &self.metrics {
            metrics.appended.add(u64::from(report.appended));
        }
    }

    /// Puts what storage knows in place of provisional references, in a batch of a target that was not told yet.
    pub fn translate(&self, batch: AppendBatch) -> Translated {
        if !self.has_names.load(Ordering::Acquire) {
            return Translated { batch, numbers: Vec::new() };
        }
        let mut waiting = self.waiting.lock();
        if waiting.opened.is_some_and(|opened| NAMES_KEPT < opened.elapsed()) {
            self.forget(&mut waiting);
        }
        waiting.names.translate(batch)
    }

    fn forget(&self, waiting: &mut Waiting) {
        waiting.names = Names::default();
        self.has_names.store(false, Ordering::Release);
    }

    /// Has the report tell what provisional references of the batch were.
    pub fn tell(&self, numbers: &[(u32, u32)], report: &mut AppendReport) {
        if numbers.is_empty() {
            return;
        }
        let mut waiting = self.waiting.lock();
        waiting.names.learn(numbers, report);
        for (index, number) in numbers {
            if let Some(handle) = waiting.names.told(*number)
                && !report.rejected.iter().any(|(rejected, _)| rejected == index)
                && !report.resolved.iter().any(|(resolved, _)| resolved == index)
            {
                report.resolved.push((*index, handle));
            }
        }
        report.sort();
        if waiting.names.untold == 0 {
            self.forget(&mut waiting);
        }
    }
}

impl Translated {
    /// Parts it: the batch, and what [`Opening::tell`] needs.
    pub fn into_parts(self) -> (AppendBatch, Vec<(u32, u32)>) {
        (self.batch, self.numbers)
    }

    /// Takes the batch out.
    pub fn take_batch(&mut self) -> AppendBatch {
        std::mem::take(&mut self.batch)
    }
}

impl Names {
    fn add(&mut self, labels: Labels) -> SeriesHandle {
        let number = self.series.len() as u64;
        self.series.push(Name::Labels(labels));
        self.untold += 1;
        // The shard is not known yet, and any will do: no shard has such a reference.
        SeriesHandle { series: SeriesRef(PROVISIONAL | number), shard: ShardId(0) }
    }

    fn translate(&self, mut batch: AppendBatch) -> Translated {
        let mut numbers = Vec::new();
        for (index, key) in (0..).zip(sample_keys(&mut batch)) {
            if let Some((number, name)) = self.name_of(key) {
                numbers.push((index, number));
                *key = name;
            }
        }
        for one in &mut batch.metadata {
            if let Some((_, name)) = self.name_of(&one.series) {
                one.series = name;
            }
        }
        Translated { batch, numbers }
    }

    fn name_of(&self, key: &SeriesKey) -> Option<(u32, SeriesKey)> {
        let SeriesKey::Known(handle) = key else { return None };
        let number = usize::try_from(handle.series.0.checked_sub(PROVISIONAL)?).ok()?;
        let key = match self.series.get(number)? {
            Name::Labels(labels) => SeriesKey::Labels(labels.clone()),
            Name::Known(handle) | Name::Told(handle) => SeriesKey::Known(*handle),
        };
        Some((u32::try_from(number).ok()?, key))
    }

    /// Both are in the batch's order.
    fn learn(&mut self, numbers: &[(u32, u32)], report: &AppendReport) {
        let mut resolved = report.resolved.iter().peekable();
        for (index, number) in numbers {
            while resolved.next_if(|(at, _)| at < index).is_some() {}
            if let (Some((_, handle)), Some(name)) =
                (resolved.next_if(|(at, _)| at == index), self.series.get_mut(*number as usize))
                && let Name::Labels(_) = name
            {
                *name = Name::Known(*handle);
            }
        }
    }

    /// What a reference was, which its user hears of now.
    fn told(&mut self, number: u32) -> Option<SeriesHandle> {
        let name = self.series.get_mut(number as usize)?;
        match *name {
            Name::Labels(_) => None,
            Name::Known(handle) => {
                *name = Name::Told(handle);
                self.untold -= 1;
                Some(handle)
            }
            Name::Told(handle) => Some(handle),
        }
    }
}

/// The keys of samples and histograms, in the order in which reports count them.
fn sample_keys(batch: &mut AppendBatch) -> impl Iterator<Item = &mut SeriesKey> {
    let samples = batch.samples.iter_mut().map(|sample| &mut sample.series);
    samples.chain(batch.histograms.iter_mut().map(|histogram| &mut histogram.series))
}

/// Bytes that a batch holds, about.
fn bytes_of(batch: &AppendBatch) -> u64 {
    let key = |key: &SeriesKey| match key {
        SeriesKey::Known(_) => 0,
        // With the counts of what shares them, and their place among the names.
        SeriesKey::Labels(labels) => labels.encoded_len() + 2 * size_of::<usize>() + size_of::<Name>(),
    };
    let samples: usize = batch.samples.iter().map(|sample| size_of_val(sample) + key(&sample.series)).sum();
    let histograms = batch.histograms.iter();
    let histograms: usize = histograms.map(|one| size_of_val(one) + key(&one.series) + one.value.memory_len()).sum();
    let exemplars = batch.exemplars.iter();
    let exemplars: usize =
        exemplars.map(|one| size_of_val(one) + one.series.encoded_len() + one.exemplar.labels.encoded_len()).sum();
    let others = batch.metadata.len() * 256 + (batch.starts.samples.len() + batch.starts.histograms.len()) * 16;
    (samples + histograms + exemplars + others + size_of::<AppendBatch>()) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::append::AppendSample;
    use crate::model::time::TimestampMs;

    fn labels(name: &str) -> Labels {
        Labels::from_pairs([("__name__", name)])
    }

    fn batch(keys: impl IntoIterator<Item = SeriesKey>, at: i64) -> AppendBatch {
        let sample = |series| AppendSample { series, at: TimestampMs(at), value: 1.0 };
        AppendBatch::of_floats(keys.into_iter().map(sample).collect())
    }

    fn kept(opening: &Opening, batch: AppendBatch) -> Vec<SeriesKey> {
        match opening.admit(batch, Priority::Normal).unwrap() {
            Admission::Kept(report) => report.resolved.into_iter().map(|(_, h)| SeriesKey::Known(h)).collect(),
            Admission::Open(_) => panic!("it is not open"),
        }
    }

    fn real(series: u64) -> SeriesHandle {
        SeriesHandle { series: SeriesRef(series), shard: ShardId(1) }
    }

    #[test]
    fn batches_come_back_in_their_order_with_what_storage_knows() {
        let opening = Opening::begin(0, OpeningMetrics::new(&Registry::shared()));
        let first = kept(&opening, batch([labels("a"), labels("b")].map(SeriesKey::Labels), 1));
        assert!(kept(&opening, batch(first.clone(), 2)).is_empty());
        // The first goes out by labels, and storage names one of the two.
        let taken = opening.next().unwrap();
        assert_eq!(taken.batch, batch([labels("a"), labels("b")].map(SeriesKey::Labels), 1));
        assert!(taken.numbers.is_empty());
        // What comes meanwhile waits behind the others.
        assert!(kept(&opening, batch([first[1].clone()], 3)).is_empty());
        let taken = opening.next().unwrap();
        assert_eq!(taken.batch, batch([labels("a"), labels("b")].map(SeriesKey::Labels), 2));
        let report = AppendReport { resolved: vec![(0, real(7)), (1, real(8))], ..AppendReport::default() };
        opening.appended(&taken, Some(&report));
        let taken = opening.next().unwrap();
        assert_eq!(taken.batch, batch([SeriesKey::Known(real(8))], 3));
        opening.appended(&taken, None);
        assert!(!opening.is_open() && opening.next().is_none() && opening.is_open());
        assert_eq!(opening.metrics.as_ref().unwrap().lost.get(), 1);

        // Open: the batch is translated, and the report tells its sender what it may use from now on.
        let Admission::Open(passed) = opening.admit(batch(first, 4), Priority::Normal).unwrap() else {
            panic!("it is open")
        };
        let (passed, numbers) = opening.translate(passed).into_parts();
        assert_eq!(passed, batch([real(7), real(8)].map(SeriesKey::Known), 4));
        let mut report = AppendReport::default();
        opening.tell(&numbers, &mut report);
        assert_eq!(report.resolved, [(0, real(7)), (1, real(8))]);
        assert!(!opening.has_names.load(Ordering::Relaxed) && opening.waiting.lock().names.series.is_empty());
    }

    #[test]
    fn what_finds_no_room_is_refused_but_for_what_ends_series() {
        let one = || batch([SeriesKey::Labels(labels("a"))], 1);
        let len = bytes_of(&one());
        let opening = Opening::begin(len * 8, OpeningMetrics::new(&Registry::shared()));
        for _ in 0..8 {
            kept(&opening, one());
        }
        assert_eq!(opening.admit(one(), Priority::Normal), Err(OpeningFull { bytes: len * 8, limit: len * 8 }));
        assert!(opening.admit(one(), Priority::Reserved).is_ok());
        assert!(opening.admit(one(), Priority::Reserved).is_err());
        assert_eq!(opening.metrics.as_ref().unwrap().refused.get(), 2);
        assert!(opening.next().is_some());
        assert!(opening.admit(one(), Priority::Reserved).is_ok());
    }
}
