//! One scrape as plain code, and what comes before it: which targets there are and when each is due.
//!
//! Data flow: [`target`] and [`schedule`] say what is scraped and when → [`once`] fetches, decompresses, parses and
//! labels as the bytes come → an [`AppendBatch`] goes to storage → [`cache::TargetCache::confirm`] takes the answer.
//! Only the fetch is asynchronous; nothing here knows of actors.

mod aside;
pub mod cache;
mod created;
mod decode;
pub mod error;
pub mod failure_log;
mod frames;
mod labels;
mod metadata;
pub mod metrics;
mod nhcb;
pub mod pool_metrics;
pub mod reader;
mod reference;
mod report;
pub mod request;
mod rewrite;
pub mod schedule;
mod sequence;
pub mod settings;
pub mod staging;
mod synthesis;
pub mod target;
mod usual;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use url::Url;

use crate::client::{Failure, HttpClient, Response};
use crate::exposition::content_type::{self, UnknownFormat};
use crate::model::append::AppendBatch;
use crate::model::clock::Clock;
use crate::model::time::TimestampMs;
use crate::scrape::cache::{Pending, TargetCache};
use crate::scrape::decode::Decoder;
use crate::scrape::error::ScrapeError;
use crate::scrape::metrics::ScrapeMetrics;
use crate::scrape::reader::{ReadCounts, Reader};
use crate::scrape::report::Report;
use crate::scrape::settings::{SamplePlan, ScrapeLimits};
use crate::scrape::staging::StagingBudget;

/// Bytes after which a scrape lets others on its thread go first: about half a millisecond's work. A usual body is read in one go, so
/// that scrapes which are due together use the same buffers one after the other.
const YIELD_BYTES: usize = 256 << 10;
/// Bytes of an error page that are read so that the connection can be kept.
const DRAINED_LEN_MAX: usize = 64 << 10;

/// Everything that one scrape needs.
#[derive(Clone, Copy)]
pub struct ScrapeContext<'a> {
    /// Makes the request.
    pub client: &'a HttpClient,
    /// Where to.
    pub url: &'a Url,
    /// See [`Target::has_usual_port`](target::Target::has_usual_port).
    pub has_usual_port: bool,
    /// Time for all of it, from connect to the last byte.
    pub timeout: Duration,
    /// What becomes of the samples.
    pub plan: &'a SamplePlan,
    /// What the target remembers.
    pub cache: &'a TargetCache,
    /// Memory of all scrapes in flight.
    pub staging: &'a Arc<StagingBudget>,
    /// Limits of our own.
    pub limits: ScrapeLimits,
    /// Shared counters.
    pub metrics: &'a ScrapeMetrics,
    /// Measures how long the scrape took.
    pub clock: &'a dyn Clock,
}

/// A scrape that is over, good or bad.
#[derive(Debug)]
pub struct Scraped {
    /// What to append, in one commit: samples and stale markers, then the report series.
    pub batch: AppendBatch,
    /// To be confirmed with storage's answer, see [`Pending`].
    pub pending: Pending,
    /// Why it failed, if it did: `lastError`.
    pub error: Option<ScrapeError>,
    /// The remark to log at debug level when the fallback format was used.
    pub remark: Option<UnknownFormat>,
    /// How long it took.
    pub duration: Duration,
    /// What was read.
    pub counts: ReadCounts,
}

/// Scrapes a target once and stamps its samples `at`. Never fails as a whole: a failed scrape is a commit as well, of
/// `up 0`, the other report series and stale markers. The new state is published in the cache before this returns.
pub async fn once(context: &ScrapeContext<'_>, at: TimestampMs) -> Scraped {
    let began = context.clock.monotonic();
    let mut reader = reader(context, at);
    let fetched = fetch(context, &mut reader).await;
    conclude(context, at, began, reader, fetched)
}

/// Reads a body that is at hand as [`once`] reads one from the network. Makes no request.
pub fn from_bytes(context: &ScrapeContext<'_>, at: TimestampMs, body: &[u8]) -> Scraped {
    let began = context.clock.monotonic();
    let mut reader = reader(context, at);
    let fed = check_body_len(context, body.len() as u64).and_then(|()| reader.feed(body));
    conclude(context, at, began, reader, fed.map(|()| None))
}

fn reader<'a>(context: &ScrapeContext<'a>, at: TimestampMs) -> Reader<'a> {
    Reader::new(context.plan, context.cache.load(), at, context.limits, context.staging.permit())
}

fn conclude(
    context: &ScrapeContext<'_>,
    at: TimestampMs,
    began: Duration,
    reader: Reader<'_>,
    fetched: Result<Option<UnknownFormat>, ScrapeError>,
) -> Scraped {
    let (counts, remark, read) = match fetched {
        Ok(remark) => {
            let (counts, staged) = reader.finish();
            (counts, remark, staged.map(Some))
        }
        // What an answer that broke off has told so far does not count; what was refused for its content does.
        Err(error @ (ScrapeError::Request(_) | ScrapeError::Body(_) | ScrapeError::Gzip(_))) => {
            (ReadCounts::default(), None, Err(error))
        }
        Err(error) => (reader.counts(), None, Err(error)),
    };
    let duration = context.clock.monotonic().saturating_sub(began);
    let (staged, error) = match read {
        // An empty answer is a good scrape without series.
        Ok(staged) => (staged.filter(|_| 0 < counts.body_len), None),
        Err(error) => (None, Some(error)),
    };
    context.metrics.read(&counts, context.plan.settings.extras);
    if let Some(error) = &error {
        context.metrics.failed(error);
    }
    let report = report(context, at, duration, &counts, error.as_ref());
    let (batch, pending) = match staged {
        Some(staged) => context.cache.publish(staged, &report, context.plan),
        None => context.cache.publish_stale(&report, context.plan),
    };
    Scraped { batch, pending, error, remark, duration, counts }
}

/// The batch of a target that could not be scraped at all, or whose samples could not be stored: stale markers of its
/// series, `up 0` and the other report series. Published and confirmed like a scrape.
pub fn down(cache: &TargetCache, plan: &SamplePlan, at: TimestampMs, timeout: Duration) -> (AppendBatch, Pending) {
    let report = Report {
        at,
        up: false,
        duration_seconds: 0.0,
        scraped: 0,
        post_relabel: 0,
        series_added: 0,
        timeout_seconds: timeout.as_secs_f64(),
        sample_limit: plan.settings.sample_limit,
        body_len: 0,
    };
    cache.publish_stale(&report, plan)
}

fn report(
    context: &ScrapeContext<'_>,
    at: TimestampMs,
    duration: Duration,
    counts: &ReadCounts,
    error: Option<&ScrapeError>,
) -> Report {
    let body_len = match error {
        Some(ScrapeError::BodySizeLimit | ScrapeError::BodyTooLong { .. }) => -1,
        _ => i64::try_from(counts.body_len).unwrap_or(i64::MAX),
    };
    Report {
        at,
        up: error.is_none(),
        duration_seconds: duration.as_secs_f64(),
        scraped: counts.scraped,
        post_relabel: counts.post_relabel,
        series_added: counts.series_added,
        timeout_seconds: context.timeout.as_secs_f64(),
        sample_limit: context.plan.settings.sample_limit,
        body_len,
    }
}

/// Reads the body into `reader`; answers the remark about its format.
async fn fetch(context: &ScrapeContext<'_>, reader: &mut Reader<'_>) -> Result<Option<UnknownFormat>, ScrapeError> {
    let deadline = Instant::now() + context.timeout;
    let mut request = request::request(context.url.clone(), &context.plan.settings, context.timeout);
    request.has_usual_port = context.has_usual_port;
    let mut response = context.client.send(request, deadline).await?;
    if response.status.as_u16() != 200 {
        let status = response.status_text();
        // A body that cannot be drained costs only the connection, not the scrape's verdict.
        let _ = response.body.excerpt(DRAINED_LEN_MAX).await;
        return Err(ScrapeError::Status(status));
    }
    let content_type = header(&response, "content-type").to_owned();
    let format = content_type::negotiated(&content_type, context.plan.settings.fallback);
    let mut decoder = Decoder::for_encoding(header(&response, "content-encoding"));
    // The format matters once there is something to parse: an empty body needs none.
    let mut checked: Option<Option<UnknownFormat>> = None;
    // What is refused for its content is read to its end: an answer that breaks off after that is told as such, as in
    // Prometheus, which parses when all is there; the report says how long the body is; and the connection can be kept.
    let mut refused: Option<ScrapeError> = None;
    let mut take = |bytes: &[u8]| {
        check_body_len(context, reader.counts().body_len + bytes.len() as u64)?;
        if refused.is_some() {
            reader.pass_over(bytes);
            return Ok(());
        }
        let fed = match checked {
            Some(_) => reader.feed(bytes),
            None => match format.clone() {
                Ok((format, remark)) => {
                    reader.set_format(format);
                    checked = Some(remark);
                    reader.feed(bytes)
                }
                Err(error) => {
                    reader.pass_over(bytes);
                    Err(error.into())
                }
            },
        };
        match fed {
            Err(error) if error.is_about_content() => {
                refused = Some(error);
                Ok(())
            }
            fed => fed,
        }
    };
    let mut since_yield = 0;
    while let Some(chunk) = response.body.chunk().await? {
        let mut rest = &chunk[..];
        loop {
            let step = decoder.step(rest, &mut take)?;
            rest = rest.get(step.consumed..).unwrap_or_default();
            since_yield += step.produced.max(step.consumed);
            if YIELD_BYTES <= since_yield {
                since_yield = 0;
                tokio::task::yield_now().await;
                // A body that is always ready would never let a timer fire.
                if deadline <= Instant::now() {
                    return Err(Failure::Deadline.into());
                }
            }
            if rest.is_empty() && !step.more {
                break;
            }
        }
    }
    decoder.finish()?;
    match refused {
        Some(error) => Err(error),
        None => Ok(checked.flatten()),
    }
}

fn check_body_len(context: &ScrapeContext<'_>, body_len: u64) -> Result<(), ScrapeError> {
    let configured = context.plan.settings.body_size_limit;
    if 0 < configured && configured <= body_len {
        return Err(ScrapeError::BodySizeLimit);
    }
    let limit = context.limits.body_len_max;
    if 0 < limit && limit < body_len {
        return Err(ScrapeError::BodyTooLong { limit });
    }
    Ok(())
}

fn header<'r>(response: &'r Response, name: &str) -> &'r str {
    response.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("")
}

#[cfg(test)]
mod tests;
