//! Bodies of protobuf: families are cut as bytes come, and their series compared with those of the last scrape like lines.
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

use std::sync::Arc;

use crate::exposition::protobuf::{Frame, Item, ProtobufError, frame};
use crate::scrape::error::ScrapeError;
use crate::scrape::reader::Reader;
use crate::scrape::sequence::Role;

/// A family may be as long as so many lines.
const FAMILY_LINES_MAX: usize = 16;

impl Reader<'_> {
    /// Takes the next bytes of a body; reads the families that are whole.
    pub(super) fn feed_frames(&mut self, mut piece: &[u8]) -> Result<(), ScrapeError> {
        while !self.carry.is_empty() && !piece.is_empty() {
            let missing = match frame(&self.carry)? {
                Frame::Partial { len } => usize::try_from(len).unwrap_or(usize::MAX).saturating_sub(self.carry.len()),
                // The length of a family ends somewhere within its first bytes.
                Frame::Unknown | Frame::Whole { .. } => 1,
            };
            let (part, rest) = piece.split_at(missing.min(piece.len()));
            self.carry.extend_from_slice(part);
            piece = rest;
            if let Frame::Whole { start, end } = self.checked_frame(&self.carry)? {
                let mut carry = std::mem::take(&mut self.carry);
                self.family(carry.get(start..end).unwrap_or_default())?;
                carry.clear();
                self.carry = carry;
            }
        }
        while !piece.is_empty() {
            match self.checked_frame(piece)? {
                Frame::Whole { start, end } => {
                    self.family(piece.get(start..end).unwrap_or_default())?;
                    piece = piece.get(end..).unwrap_or_default();
                }
                Frame::Partial { .. } | Frame::Unknown => {
                    self.carry.extend_from_slice(piece);
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Takes the end of a body.
    pub(super) fn finish_frames(&self) -> Result<(), ScrapeError> {
        if self.carry.is_empty() {
            return Ok(());
        }
        match frame(&self.carry)? {
            Frame::Partial { len } => Err(ProtobufError::Cut { expected: len, got: self.carry.len() }.into()),
            Frame::Unknown | Frame::Whole { .. } => Err(ProtobufError::InvalidVarint.into()),
        }
    }

    fn checked_frame(&self, buf: &[u8]) -> Result<Frame, ScrapeError> {
        let found = frame(buf)?;
        let limit = self.line_len_max.saturating_mul(FAMILY_LINES_MAX);
        match found {
            Frame::Partial { len } if (limit as u64) < len => Err(ScrapeError::FamilyTooLong { limit }),
            other => Ok(other),
        }
    }

    fn family(&mut self, message: &[u8]) -> Result<(), ScrapeError> {
        let previous = Arc::clone(&self.previous);
        let old = &previous.sequence;
        let native = self.plan.settings.native;
        let mut families = std::mem::take(&mut self.families);
        let read = families.read(message, native, &mut |item| match item {
            Item::Help { raw } => self.metadata(old, raw, Role::Help),
            Item::Unit { raw } => self.metadata(old, raw, Role::Unit),
            Item::Type { kind, raw } => {
                self.parser.set_kind(kind);
                self.metadata(old, raw, Role::Type)
            }
            Item::Series(line) => self.series(old, line),
            Item::NativeOnly => {
                self.counts.native_dropped += 1;
                Ok(())
            }
        });
        self.families = families;
        read
    }
}
