//! Heap profiles: what is in use and what was ever allocated since the start, by the stack that allocated it. The allocator
//! notes one in 512 KiB, as Go does; figures are scaled up from that.
//!
//! ```text
//! heap_v2/524288
//!   t*: 28: 106496 [40: 212992]          all: objects, bytes in use [ever]
//! @ 0x5f1 0x6f2 …                        a stack, innermost first
//!   t*: 1: 2048 [2: 4096]                its sum; lines of threads follow
//! MAPPED_LIBRARIES:
//! ```

use std::collections::HashMap;
use std::ffi::c_void;
use std::time::{Duration, Instant, SystemTime};

use crate::http::profile::wire::{Frame, Writer};
use crate::telemetry::allocator::{self, AllocatorError};

/// Functions that belong to the allocator, innermost of each stack.
const OF_ALLOCATOR: [&str; 6] = ["_rjem_", "je_", "prof_", "imalloc", "malloc_default", "do_rallocx"];
/// Deepest stack that is read; the allocator's own are no deeper.
const DEPTH_MAX: usize = 256;

/// Objects and bytes, in use and ever.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Counts([i64; 4]);

/// Samples at a moment.
pub(super) struct Snapshot {
    began: SystemTime,
    at: Instant,
    period: u64,
    stacks: HashMap<Vec<usize>, Counts>,
}

impl Snapshot {
    /// Takes one; blocks for some milliseconds.
    pub(super) fn take() -> Result<Self, AllocatorError> {
        let (began, at) = (SystemTime::now(), Instant::now());
        let text = allocator::samples()?;
        let (period, stacks) = parse(&String::from_utf8_lossy(&text));
        Ok(Self { began, at, period, stacks })
    }

    /// As the allocator writes them.
    pub(super) fn text() -> Result<Vec<u8>, AllocatorError> {
        allocator::samples()
    }

    /// The profile: since the start, or what has changed since `before`. `shown` is the type that is shown first.
    pub(super) fn profile(&self, before: Option<&Self>, shown: &str) -> std::io::Result<Vec<u8>> {
        let types = [
            ("alloc_objects", "count"),
            ("alloc_space", "bytes"),
            ("inuse_objects", "count"),
            ("inuse_space", "bytes"),
        ];
        let mut writer = Writer::new(&types);
        let mut known: HashMap<usize, (bool, u64)> = HashMap::new();
        let mut stacks: Vec<_> = self.stacks.iter().collect();
        stacks.sort_unstable_by_key(|(stack, _)| *stack);
        for (stack, counts) in stacks {
            let was = before.and_then(|before| before.stacks.get(stack)).copied().unwrap_or_default();
            let [objects, bytes, ever_objects, ever_bytes] = counts.0;
            let [was_objects, was_bytes, was_ever_objects, was_ever_bytes] = was.0;
            let values = [
                ever_objects - was_ever_objects,
                ever_bytes - was_ever_bytes,
                objects - was_objects,
                bytes - was_bytes,
            ];
            if values == [0; 4] {
                continue;
            }
            let mut places = Vec::with_capacity(stack.len());
            for address in stack {
                let (is_own, place) = *known.entry(*address).or_insert_with(|| {
                    let frames = frames(*address);
                    let is_own = frames.iter().any(|frame| OF_ALLOCATOR.iter().any(|own| frame.name.starts_with(own)));
                    (is_own, writer.location(&frames))
                });
                // The allocator itself is of interest to nobody.
                if !is_own || !places.is_empty() {
                    places.push(place);
                }
            }
            writer.sample(&places, &values, &[]);
        }
        let took = before.map_or(Duration::ZERO, |before| self.at.saturating_duration_since(before.at));
        let began = before.map_or(self.began, |before| before.began);
        writer.finish(began, took, ("space", "bytes", self.period), shown)
    }
}

/// What stands at a return address: the call before it, with those into which it was inlined.
fn frames(address: usize) -> Vec<Frame> {
    let mut frames = Vec::new();
    let call = address.saturating_sub(1);
    backtrace::resolve(std::ptr::without_provenance_mut::<c_void>(call), |symbol| {
        let name = symbol.name();
        frames.push(Frame {
            name: name.as_ref().map_or_else(|| format!("{call:#x}"), |name| format!("{name:#}")),
            system_name: name.as_ref().and_then(|name| name.as_str()).unwrap_or_default().to_owned(),
            file: symbol.filename().map(|file| file.display().to_string()).unwrap_or_default(),
            line: symbol.lineno().unwrap_or(0),
        });
    });
    if frames.is_empty() {
        frames.push(Frame { name: format!("{call:#x}"), ..Frame::default() });
    }
    frames
}

/// Distance of samples in bytes, and counts by stack. Lines that are none of the known kinds are passed over.
fn parse(text: &str) -> (u64, HashMap<Vec<usize>, Counts>) {
    let mut lines = text.lines();
    let period = lines.next().and_then(|line| line.strip_prefix("heap_v2/")?.trim().parse().ok()).unwrap_or(1);
    let mut stacks: HashMap<Vec<usize>, Counts> = HashMap::new();
    let mut stack = None;
    for line in lines {
        if line.starts_with("MAPPED_LIBRARIES") {
            break;
        }
        if let Some(addresses) = line.strip_prefix('@') {
            let hex = |word: &str| usize::from_str_radix(word.strip_prefix("0x")?, 16).ok();
            stack = Some(addresses.split_whitespace().filter_map(hex).take(DEPTH_MAX).collect::<Vec<_>>());
        } else if let Some(sum) = line.trim_start().strip_prefix("t*:")
            && let Some(stack) = stack.take()
        {
            let mut numbers = sum.split(|c: char| !c.is_ascii_digit()).filter_map(|word| word.parse::<u64>().ok());
            let mut next = || numbers.next().unwrap_or(0);
            let (objects, bytes) = scaled(next(), next(), period);
            let (ever_objects, ever_bytes) = scaled(next(), next(), period);
            let counts = stacks.entry(stack).or_default();
            for (sum, more) in counts.0.iter_mut().zip([objects, bytes, ever_objects, ever_bytes]) {
                *sum = sum.saturating_add(more);
            }
        }
    }
    (period, stacks)
}

/// What samples stand for: an object of `n` bytes is noted with the chance `1 - exp(-n / period)`.
fn scaled(objects: u64, bytes: u64, period: u64) -> (i64, i64) {
    if objects == 0 || bytes == 0 {
        return (0, 0);
    }
    let mean = bytes as f64 / objects as f64;
    let scale = 1.0 / -(-mean / period as f64).exp_m1();
    // Casts of floats saturate.
    ((objects as f64 * scale).round() as i64, (bytes as f64 * scale).round() as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_scaled_to_what_they_stand_for() {
        let text = "heap_v2/524288\n  t*: 3: 5 [0: 0]\n  t0: 3: 5 [0: 0]\n@ 0x10 0x20\n  t*: 1: 1024 [2: 2048]\n  \
                    t0: 1: 1024 [2: 2048]\n@ 0x10\n  t*: 1: 104857600 [1: 104857600]\n@ 0x30\n  t*: 0: 0 [0: 0]\n\n\
                    MAPPED_LIBRARIES:\n@ 0x99\n  t*: 1: 1 [1: 1]\n";
        let (period, stacks) = parse(text);
        assert_eq!((period, stacks.len()), (524_288, 3));
        // A kilobyte is noted once in 512 times.
        assert_eq!(stacks[&vec![0x10, 0x20]], Counts([513, 524_800, 1_025, 1_049_600]));
        assert_eq!(stacks[&vec![0x10]], Counts([1, 104_857_600, 1, 104_857_600]));
        assert_eq!(stacks[&vec![0x30]], Counts::default());
        for text in ["", "heap_v2/x", "@ 0x", "heap_v2/1\n@ 1\nt*: x", "t*: 1: 2 [3: 4]"] {
            parse(text);
        }
    }

    #[test]
    fn every_address_has_a_name() {
        // What it is depends on what the build keeps of names.
        let frames = frames(every_address_has_a_name as fn() as usize + 1);
        assert!(frames.iter().all(|frame| !frame.name.is_empty()) && !frames.is_empty(), "{frames:?}");
        assert_eq!(super::frames(1)[0].name, "0x0");
    }
}
