//! Decodes the samples of a histogram chunk one by one.

use crate::model::histogram::{CounterResetHint, FloatHistogram};
use crate::model::sample::is_stale;
use crate::storage::chunk::ChunkError;
use crate::storage::chunk::bits::{BitReader, WordSource};
use crate::storage::chunk::histogram::ResetHeader;
use crate::storage::chunk::histogram::field::Xor;
use crate::storage::chunk::histogram::layout::{Layout, bucket_count};
use crate::storage::chunk::histogram::starts::STARTED_SAMPLES_MAX;
use crate::storage::chunk::histogram::state::{Counts, Native};
use crate::storage::chunk::starts::StartDecoder;

/// Finest resolution that is handed out; finer ones, of later versions, are reduced to it.
const SCHEMA_MAX: i32 = 8;

/// Decodes samples one by one.
#[derive(Debug)]
pub struct HistogramDecoder<'a, S: WordSource + ?Sized, H: Native> {
    bits: BitReader<'a, S>,
    count: u16,
    read: u16,
    header: ResetHeader,
    has_starts: bool,
    /// Set from the first sample on, if there are start times.
    starts: Option<StartDecoder>,
    t: i64,
    t_change: i64,
    /// Set from the first sample on.
    sample: Option<Sample<H>>,
}

#[derive(Debug)]
struct Sample<H: Native> {
    layout: Layout,
    counts: H::Counts,
    sum: Xor,
}

impl<'a, S: WordSource + ?Sized, H: Native> HistogramDecoder<'a, S, H> {
    /// A decoder of `count` samples in the first `bit_len` bits of `source`, which begins behind the sample count.
    pub fn new(source: &'a S, bit_len: usize, count: u16) -> Self {
        let bits = BitReader::new(source, bit_len);
        let (has_starts, starts) = (false, None);
        Self { bits, count, read: 0, header: ResetHeader::Unknown, has_starts, starts, t: 0, t_change: 0, sample: None }
    }

    /// The same for a chunk with start times, whose `count` says more than that.
    pub fn with_starts(source: &'a S, bit_len: usize, count: u16) -> Self {
        let header = ResetHeader::from_bits(u64::from(count >> 14));
        Self { header, has_starts: true, ..Self::new(source, bit_len, count & STARTED_SAMPLES_MAX) }
    }

    /// When the current sample began to count; 0 if that is not known.
    pub fn start(&self) -> i64 {
        self.starts.as_ref().map_or(0, StartDecoder::start)
    }

    /// Time of the first sample, from a decoder that has read none.
    pub fn first_t(mut self) -> Result<i64, ChunkError> {
        self.read_head().map(|(_, t)| t).ok_or(ChunkError::Truncated { samples: 0 })
    }

    /// Goes on to the next sample and returns its time, or `None` after the last. After an error there is nothing more to read.
    pub fn advance(&mut self) -> Result<Option<i64>, ChunkError> {
        if self.read == self.count {
            return Ok(None);
        }
        let before = self.t;
        let read = if self.sample.is_none() { self.read_first() } else { self.read_next() };
        let read = read.and_then(|()| match &mut self.starts {
            Some(starts) => starts.read(&mut self.bits, self.read, self.t, before),
            None => Some(()),
        });
        read.ok_or(ChunkError::Truncated { samples: self.read })?;
        self.read += 1;
        Ok(Some(self.t))
    }

    /// What the header says.
    pub fn header(&self) -> ResetHeader {
        self.header
    }

    /// The current sample; a marker before the first. What it says of counter resets is true if the sample before it in the
    /// chunk counts as well.
    pub fn histogram(&self) -> H {
        match &self.sample {
            Some(sample) if !is_stale(sample.sum.value()) => {
                sample.counts.build(&sample.layout, sample.sum.value(), self.hint())
            }
            sample => H::marker(sample.as_ref().map_or(0.0, |sample| sample.sum.value())),
        }
    }

    /// The current sample with float counts.
    pub fn float_histogram(&self) -> FloatHistogram {
        match &self.sample {
            Some(sample) if !is_stale(sample.sum.value()) => {
                let mut built = sample.counts.build_float(&sample.layout, sample.sum.value(), self.hint());
                built.reduce_resolution(SCHEMA_MAX);
                built
            }
            sample => FloatHistogram::marker(sample.as_ref().map_or(0.0, |sample| sample.sum.value())),
        }
    }

    /// As a reset always begins a chunk, only the first sample of one leaves it open.
    fn hint(&self) -> CounterResetHint {
        match (self.header, self.read) {
            (ResetHeader::Gauge, _) => CounterResetHint::Gauge,
            (_, 0 | 1) => CounterResetHint::Unknown,
            _ => CounterResetHint::NotReset,
        }
    }

    fn read_head(&mut self) -> Option<(Layout, i64)> {
        let header = self.bits.read(8)?;
        if self.has_starts {
            self.starts = Some(StartDecoder::new(u8::try_from(header).ok()?));
        } else {
            self.header = ResetHeader::from_bits(header >> 6);
        }
        let layout = Layout::read(&mut self.bits)?;
        Some((layout, self.bits.read_varbit_int()?))
    }

    fn read_first(&mut self) -> Option<()> {
        let (layout, t) = self.read_head()?;
        self.t = t;
        let mut counts = H::Counts::read_first(&mut self.bits)?;
        let sum = Xor::read_first(&mut self.bits)?;
        let [positive, negative] = &layout.spans;
        // Bounded by the bits that are left.
        let wanted = [usize::try_from(bucket_count(positive)).ok()?, usize::try_from(bucket_count(negative)).ok()?];
        counts.read_first_buckets(wanted, &mut self.bits)?;
        self.sample = Some(Sample { layout, counts, sum });
        Some(())
    }

    fn read_next(&mut self) -> Option<()> {
        self.t_change = self.t_change.wrapping_add(self.bits.read_varbit_int()?);
        self.t = self.t.wrapping_add(self.t_change);
        let sample = self.sample.as_mut()?;
        sample.counts.read(&mut self.bits)?;
        sample.sum.read(&mut self.bits)?;
        if is_stale(sample.sum.value()) {
            return Some(());
        }
        sample.counts.read_buckets(&mut self.bits)
    }
}
