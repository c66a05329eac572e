//! Bodies of protobuf: read metric by metric as bytes come; series are compared with those of the last scrape like lines.
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

use std::sync::Arc;

use crate::exposition::protobuf::{HELD_LEN_MAX, Item};
use crate::scrape::error::ScrapeError;
use crate::scrape::reader::Reader;
use crate::scrape::sequence::Role;

impl Reader<'_> {
    /// Takes the next bytes of a body; reads the metrics that are whole.
    pub(super) fn feed_frames(&mut self, piece: &[u8]) -> Result<(), ScrapeError> {
        if self.carry.is_empty() {
            let read = self.metrics(piece)?;
            self.carry.extend_from_slice(piece.get(read..).unwrap_or_default());
        } else {
            let mut carry = std::mem::take(&mut self.carry);
            carry.extend_from_slice(piece);
            let read = self.metrics(&carry)?;
            carry.drain(..read);
            self.carry = carry;
        }
        let limit = self.line_len_max.max(HELD_LEN_MAX);
        if limit < self.carry.len() { Err(ScrapeError::MetricTooLong { limit }) } else { Ok(()) }
    }

    /// Takes the end of a body.
    pub(super) fn finish_frames(&self) -> Result<(), ScrapeError> {
        self.families.finish(&self.carry).map_err(ScrapeError::from)
    }

    /// Reads the metrics at the start of `buf`; answers how many bytes they took.
    fn metrics(&mut self, buf: &[u8]) -> Result<usize, ScrapeError> {
        let previous = Arc::clone(&self.previous);
        let old = &previous.sequence;
        let native = self.plan.settings.native;
        let mut families = std::mem::take(&mut self.families);
        let mut sink = |item: Item<'_>| match item {
            Item::Help { raw } => self.metadata(old, raw, Role::Help),
            Item::Unit { raw } => self.metadata(old, raw, Role::Unit),
            Item::Type { kind, raw } => {
                self.parser.set_kind(kind);
                self.metadata(old, raw, Role::Type)
            }
            Item::Series(line) => self.series(old, line),
            Item::Native(sample) => self.native_series(old, sample),
        };
        let mut at = 0;
        while let Some(rest) = buf.get(at..).filter(|rest| !rest.is_empty()) {
            match families.step(rest, native, &mut sink)? {
                Some(read) => at += read,
                None => break,
            }
        }
        self.families = families;
        Ok(at)
    }
}
