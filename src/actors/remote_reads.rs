//! Other servers that queries read from as well (`remote_read`). No actor: the query gateway asks them for its queries, before
//! it evaluates and without holding a turn, so that a slow one keeps nobody else waiting. Bound: requests of a query at a
//! time, and its memory. Failure: what a server does not answer is missing from the result, with a warning, as in Prometheus:
//! of all its selections in this query or of none. Shutdown: requests end with their queries.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use futures::StreamExt as _;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::config::RemoteReadConfig;
use crate::model::histogram::FloatHistogram;
use crate::model::labels::Labels;
use crate::model::matcher::Matcher;
use crate::model::names::Names;
use crate::model::read::{
    FloatColumn, Queryable, ReadBudget, ReadError, ReadView, SampleColumn, SampleSource, Scope, SelectedSeries,
};
use crate::model::time::{TimeRange, TimestampMs};
use crate::promql::eval::{Charge, OverBudget, QueryLedger};
use crate::remote::read::{AnswerError, Frames, ReadBody, ReadClient, ReadFailure, ReadMetrics, sampled};
use crate::storage::block::merged::joined;
use crate::storage::chunk::Encoding;
use crate::storage::chunk::decode::ChunkDecoder;
use crate::storage::chunk::histogram::Native;
use crate::storage::chunk::histogram::decode::HistogramDecoder;

/// Requests of one query at a time.
const REQUESTS_MAX: usize = 16;
/// Prometheus's answer where labels are listed: remote read has no such thing.
const NOT_IMPLEMENTED: &str = "not implemented";

/// From when on the local storage is complete.
type LocalStart = dyn Fn() -> i64 + Send + Sync;

/// All remote storages.
pub struct RemoteReads {
    clients: ArcSwap<Vec<Arc<ReadClient>>>,
    local_start: OnceLock<Box<LocalStart>>,
    metrics: ReadMetrics,
}

impl RemoteReads {
    /// None as yet.
    pub fn new(metrics: ReadMetrics) -> Arc<Self> {
        Arc::new(Self { clients: ArcSwap::default(), local_start: OnceLock::new(), metrics })
    }

    /// Says from when on the local storage is complete, which unless told otherwise it always is. Holds once it is said.
    pub fn set_local_start(&self, local_start: impl Fn() -> i64 + Send + Sync + 'static) {
        let _ = self.local_start.set(Box::new(local_start));
    }

    /// Asks these from now on; what is configured as before keeps its connections. `external` are the global external labels.
    pub fn set(&self, configs: &[RemoteReadConfig], external: &Labels) {
        let before = self.clients.load();
        let client = |config| match before.iter().find(|client| client.is_of(config, external)) {
            Some(client) => Arc::clone(client),
            None => Arc::new(ReadClient::new(config, external, &self.metrics)),
        };
        self.clients.store(Arc::new(configs.iter().map(client).collect()));
    }

    /// What a query needs to read from them; `None` if there are none.
    pub(super) fn reading(&self) -> Option<Arc<Reading>> {
        let clients = self.clients.load_full();
        if clients.is_empty() {
            return None;
        }
        let local_start = self.local_start.get().map_or(i64::MIN, |local_start| local_start());
        let answers = clients.iter().map(|_| Ok(BTreeMap::new())).collect();
        Some(Arc::new(Reading { clients, local_start, answers: Mutex::new(answers) }))
    }
}

/// A configuration that asks one server twice for the same, which Prometheus refuses; its text.
pub fn repeated(configs: &[RemoteReadConfig]) -> Option<String> {
    let is_again = |(at, config): &(usize, &RemoteReadConfig)| configs.iter().take(*at).any(|other| other == *config);
    let (_, config) = configs.iter().enumerate().find(is_again)?;
    let url = config.url.redacted();
    Some(format!("duplicate remote read configs are not allowed, found duplicate for URL: {url}"))
}

/// Matchers and range of a selection.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    matchers: Vec<Matcher>,
    range: TimeRange,
}

type Key = (i64, i64, String);

impl Wanted {
    pub(super) fn new(matchers: &[Matcher], range: TimeRange) -> Self {
        Self { matchers: matchers.to_vec(), range }
    }

    fn key(&self) -> Key {
        let mut text = String::new();
        for matcher in &self.matchers {
            text.push_str(matcher.name());
            text.push('\0');
            text.push_str(matcher.op().as_str());
            text.push_str(matcher.value());
            text.push('\0');
        }
        (self.range.min().0, self.range.max().0, text)
    }
}

/// Series by selection, or why there are none.
type Answers = Result<BTreeMap<Key, Vec<SelectedSeries>>, String>;

/// What one query reads from remote storages.
pub(super) struct Reading {
    clients: Arc<Vec<Arc<ReadClient>>>,
    local_start: i64,
    /// By client.
    answers: Mutex<Vec<Answers>>,
}

/// Answers that are not read yet.
pub(super) struct Fetched(Vec<(usize, Wanted, Body)>);

/// A body with what it is charged, or why there is none.
type Body = Result<(ReadBody, Charge), String>;

impl Reading {
    /// For what range a client is asked, if at all.
    fn range_of(&self, client: &ReadClient, wanted: &Wanted) -> Option<TimeRange> {
        if !client.wants(&wanted.matchers) {
            return None;
        }
        self.range_needed(client, wanted.range)
    }

    fn range_needed(&self, client: &ReadClient, range: TimeRange) -> Option<TimeRange> {
        if client.reads_recent() {
            return Some(range);
        }
        if self.local_start < range.min().0 {
            return None;
        }
        TimeRange::new(range.min(), range.max().min(TimestampMs(self.local_start))).ok()
    }

    /// Warnings of a listing of labels in `range`.
    pub(super) fn of_labels(&self, range: TimeRange) -> Vec<String> {
        let is_asked = self.clients.iter().any(|client| self.range_needed(client, range).is_some());
        if is_asked { vec![NOT_IMPLEMENTED.to_owned()] } else { Vec::new() }
    }

    /// Why clients did not answer.
    pub(super) fn warnings(&self) -> Vec<String> {
        let mut warnings: Vec<String> =
            self.answers.lock().iter().filter_map(|answers| answers.as_ref().err().cloned()).collect();
        warnings.sort_unstable();
        warnings.dedup();
        warnings
    }

    /// Asks for all selections. Errors when that takes too much memory.
    pub(super) async fn fetch(
        &self,
        wanted: Vec<Wanted>,
        deadline: Instant,
        ledger: &Arc<QueryLedger>,
    ) -> Result<Fetched, OverBudget> {
        let mut requests = Vec::new();
        for wanted in wanted {
            for (number, client) in self.clients.iter().enumerate() {
                if let Some(range) = self.range_of(client, &wanted) {
                    requests.push((number, Arc::clone(client), wanted.clone(), range));
                }
            }
        }
        let request = |(number, client, wanted, range): (usize, Arc<ReadClient>, Wanted, TimeRange)| async move {
            let mut held = ledger.charge(0)?;
            let answered = client.read(&wanted.matchers, range, deadline, |bytes| held.grow(bytes)).await;
            Ok(match answered {
                Ok(body) => (number, wanted, Ok((body, held))),
                Err(ReadFailure::Remote(text)) => (number, wanted, Err(format!("remote_read: {text}"))),
                Err(ReadFailure::Own(over)) => return Err(over),
            })
        };
        let mut answers = futures::stream::iter(requests).map(request).buffer_unordered(REQUESTS_MAX);
        let mut fetched = Vec::new();
        while let Some(answer) = answers.next().await {
            fetched.push(answer?);
        }
        Ok(Fetched(fetched))
    }

    /// Reads answers; their series are charged to `ledger` for as long as they live. A client that failed once is not used.
    pub(super) fn take(&self, Fetched(fetched): Fetched, ledger: &Arc<QueryLedger>) -> Result<(), OverBudget> {
        for (number, wanted, answer) in fetched {
            let series = match answer {
                Ok((body, _held)) => match read_body(&body, ledger) {
                    Ok(series) => Ok(series),
                    Err(Unreadable::Remote(error)) => Err(error.to_string()),
                    Err(Unreadable::Own(over)) => return Err(over),
                },
                Err(warning) => Err(warning),
            };
            let mut answers = self.answers.lock();
            let Some(answers) = answers.get_mut(number) else { continue };
            match (series, &mut *answers) {
                (Ok(series), Ok(known)) => drop(known.insert(wanted.key(), series)),
                (Err(warning), Ok(_)) => *answers = Err(warning),
                (_, Err(_)) => {}
            }
        }
        Ok(())
    }

    /// Series of a selection by client; `None` if not all clients were asked that are to be asked.
    fn selected(&self, wanted: &Wanted) -> Option<Vec<Vec<SelectedSeries>>> {
        let (key, answers) = (wanted.key(), self.answers.lock());
        let mut selected = Vec::new();
        for (client, answers) in self.clients.iter().zip(&*answers) {
            match (self.range_of(client, wanted), answers) {
                (None, _) | (_, Err(_)) => {}
                (Some(_), Ok(known)) => selected.push(known.get(&key)?.clone()),
            }
        }
        Some(selected)
    }
}

/// Asks for a selection, and waits for it.
pub(super) type FetchNow = dyn Fn(&Arc<Reading>, Wanted, &dyn ReadBudget) -> Result<(), ReadError> + Send + Sync;

/// What a view does about a selection that was not asked for.
pub(super) enum Missing {
    /// Notes it, and shows nothing meanwhile.
    Note(Mutex<Vec<Wanted>>),
    /// Asks at once, and waits.
    Fetch(Box<FetchNow>),
}

/// Storage and remote storages as one.
pub(super) struct JoinedQueryable {
    pub(super) local: Arc<dyn Queryable>,
    pub(super) reading: Arc<Reading>,
    pub(super) missing: Arc<Missing>,
}

struct JoinedView {
    local: Arc<dyn ReadView>,
    reading: Arc<Reading>,
    missing: Arc<Missing>,
}

impl JoinedQueryable {
    /// Selections that were not asked for.
    pub(super) fn take_noted(&self) -> Vec<Wanted> {
        match &*self.missing {
            Missing::Note(noted) => std::mem::take(&mut *noted.lock()),
            Missing::Fetch(_) => Vec::new(),
        }
    }

    /// Whether there are such.
    pub(super) fn has_noted(&self) -> bool {
        matches!(&*self.missing, Missing::Note(noted) if !noted.lock().is_empty())
    }
}

impl Queryable for JoinedQueryable {
    fn view(&self) -> Result<Arc<dyn ReadView>, ReadError> {
        let (reading, missing) = (Arc::clone(&self.reading), Arc::clone(&self.missing));
        Ok(Arc::new(JoinedView { local: self.local.view()?, reading, missing }))
    }
}

impl ReadView for JoinedView {
    fn select(
        &self,
        matchers: &[Matcher],
        range: TimeRange,
        budget: &dyn ReadBudget,
    ) -> Result<Vec<SelectedSeries>, ReadError> {
        let wanted = Wanted::new(matchers, range);
        let mut selected = self.reading.selected(&wanted);
        if selected.is_none() {
            match &*self.missing {
                Missing::Note(noted) => {
                    noted.lock().push(wanted);
                    return Ok(Vec::new());
                }
                Missing::Fetch(fetch) => {
                    fetch(&self.reading, wanted.clone(), budget)?;
                    selected = self.reading.selected(&wanted);
                }
            }
        }
        let mut sources = vec![self.local.select(matchers, range, budget)?];
        sources.extend(selected.unwrap_or_default());
        sources.retain(|source| !source.is_empty());
        if sources.len() <= 1 {
            return Ok(sources.pop().unwrap_or_default());
        }
        joined(sources, budget)
    }

    fn label_names(&self, scope: &Scope<'_>, budget: &dyn ReadBudget) -> Result<Names, ReadError> {
        self.local.label_names(scope, budget)
    }

    fn label_values(&self, name: &str, scope: &Scope<'_>, budget: &dyn ReadBudget) -> Result<Names, ReadError> {
        self.local.label_values(name, scope, budget)
    }
}

#[derive(Debug)]
enum Unreadable {
    Remote(AnswerError),
    Own(OverBudget),
}

impl From<AnswerError> for Unreadable {
    fn from(error: AnswerError) -> Self {
        Self::Remote(error)
    }
}

impl From<OverBudget> for Unreadable {
    fn from(over: OverBudget) -> Self {
        Self::Own(over)
    }
}

/// Samples of a series that another server has sent.
struct RemoteSamples {
    column: SampleColumn,
    _held: Charge,
}

impl SampleSource for RemoteSamples {
    fn decode(&self, range: TimeRange, out: &mut FloatColumn) -> Result<(), ReadError> {
        let within = within(&self.column.floats.timestamps, range);
        out.timestamps.extend_from_slice(self.column.floats.timestamps.get(within.clone()).unwrap_or_default());
        out.values.extend_from_slice(self.column.floats.values.get(within).unwrap_or_default());
        Ok(())
    }

    fn decode_all(&self, range: TimeRange, out: &mut SampleColumn) -> Result<(), ReadError> {
        self.decode(range, &mut out.floats)?;
        if !out.float_starts.is_empty() {
            out.float_starts.resize(out.floats.len(), 0);
        }
        let histograms = &self.column.histograms;
        for at in within(&histograms.timestamps, range) {
            if let (Some(t), Some(value)) = (histograms.timestamps.get(at), histograms.values.get(at)) {
                out.push_histogram(*t, 0, Arc::clone(value));
            }
        }
        Ok(())
    }
}

fn within(times: &[i64], range: TimeRange) -> std::ops::Range<usize> {
    times.partition_point(|t| *t < range.min().0)..times.partition_point(|t| *t <= range.max().0)
}

/// The series of an answer, sorted by labels, each once.
fn read_body(body: &ReadBody, ledger: &Arc<QueryLedger>) -> Result<Vec<SelectedSeries>, Unreadable> {
    let stripped: Vec<&str> = body.stripped.iter().map(String::as_str).collect();
    let mut found: Vec<(Labels, SampleColumn, Charge)> = Vec::new();
    let mut add = |labels: Labels, column: SampleColumn| -> Result<(), Unreadable> {
        let held = ledger.charge(labels.encoded_len() + column.memory_len() + size_of::<SelectedSeries>())?;
        match found.last_mut() {
            // The next frame of the same series.
            Some((last, samples, all)) if *last == labels => {
                samples.floats.timestamps.extend(column.floats.timestamps);
                samples.floats.values.extend(column.floats.values);
                samples.histograms.timestamps.extend(column.histograms.timestamps);
                samples.histograms.values.extend(column.histograms.values);
                all.absorb(held);
            }
            _ => found.push((labels, column, held)),
        }
        Ok(())
    };
    match body.frame_len_max {
        Some(len_max) => {
            for series in Frames::new(&body.bytes, len_max) {
                let series = series?;
                let mut column = SampleColumn::default();
                for chunk in &series.chunks {
                    append_chunk(chunk.encoding, chunk.data, &mut column)
                        .map_err(|error| AnswerError::Label(format!("cannot read a chunk: {error}")))?;
                }
                add(series.labels, column)?;
            }
        }
        None => {
            let len = snap::raw::decompress_len(&body.bytes).map_err(|_| AnswerError::Snappy)?;
            let _held = ledger.charge(len)?;
            let message = snap::raw::Decoder::new().decompress_vec(&body.bytes).map_err(|_| AnswerError::Snappy)?;
            sampled::<Unreadable>(&message, &mut add)?;
        }
    }
    let stripped_of = |labels: Labels| if stripped.is_empty() { labels } else { labels.without(&stripped) };
    let mut series: Vec<SelectedSeries> = found
        .into_iter()
        .map(|(labels, mut column, held)| {
            settle(&mut column);
            let samples: Arc<dyn SampleSource> = Arc::new(RemoteSamples { column, _held: held });
            SelectedSeries { labels: stripped_of(labels), samples }
        })
        .collect();
    series.sort_by(|a, b| a.labels.cmp(&b.labels));
    series.dedup_by(|next, kept| next.labels == kept.labels);
    Ok(series)
}

fn append_chunk(encoding: u8, data: &[u8], out: &mut SampleColumn) -> Result<(), crate::storage::chunk::ChunkError> {
    fn natives<H: Native>(
        mut decoder: HistogramDecoder<'_, [u8], H>,
        out: &mut SampleColumn,
    ) -> Result<(), crate::storage::chunk::ChunkError> {
        while let Some(t) = decoder.advance()? {
            out.histograms.push(t, Arc::new(decoder.float_histogram()));
        }
        Ok(())
    }
    match ChunkDecoder::of_chunk(Encoding::from_id(encoding)?, data)? {
        ChunkDecoder::Floats(decoder) => decoder.for_each(|t, value| {
            out.floats.push(t, value);
            true
        }),
        ChunkDecoder::StartedFloats(mut decoder) => {
            while let Some(sample) = decoder.next_sample()? {
                out.floats.push(sample.t, sample.value);
            }
            Ok(())
        }
        ChunkDecoder::Histograms(decoder) => natives(*decoder, out),
        ChunkDecoder::FloatHistograms(decoder) => natives(*decoder, out),
    }
}

/// Makes times ascend and be there once: chunks may overlap, and what others send need not be in order.
fn settle(column: &mut SampleColumn) {
    let ascends = |times: &[i64]| times.iter().zip(times.iter().skip(1)).all(|(a, b)| a < b);
    if !ascends(&column.floats.timestamps) {
        let floats = std::mem::take(&mut column.floats);
        let mut pairs: Vec<(i64, f64)> = floats.timestamps.into_iter().zip(floats.values).collect();
        pairs.sort_by_key(|(t, _)| *t);
        pairs.dedup_by_key(|(t, _)| *t);
        pairs.into_iter().for_each(|(t, value)| column.floats.push(t, value));
    }
    let histograms = &mut column.histograms;
    let is_float = |t: i64, floats: &FloatColumn| floats.timestamps.binary_search(&t).is_ok();
    if !ascends(&histograms.timestamps) || histograms.timestamps.iter().any(|t| is_float(*t, &column.floats)) {
        let taken = std::mem::take(histograms);
        let mut pairs: Vec<(i64, Arc<FloatHistogram>)> = taken.timestamps.into_iter().zip(taken.values).collect();
        pairs.sort_by_key(|(t, _)| *t);
        pairs.dedup_by_key(|(t, _)| *t);
        pairs.retain(|(t, _)| !is_float(*t, &column.floats));
        pairs.into_iter().for_each(|(t, value)| histograms.push(t, value));
    }
}

#[cfg(test)]
mod tests;
