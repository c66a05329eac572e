//! Start times within chunks: one header byte, and behind each sample what tells its start.
//! ```text
//! header      first known (1) │ first change (7): number of the sample from which on starts are written, 0 for none
//! sample 0    varint(t − start), if the first is known
//! at the first change     varbit(t of the sample before − start)
//! behind it               varbit(the change of that difference)
//! ```
//! At the latest, sample 127 counts as the first change: the header cannot name a later one.

use crate::storage::chunk::bits::{BitReader, LongBits, WordSource};

const FIRST_KNOWN: u8 = 0x80;
/// The last sample that the header can name.
const FIRST_CHANGE_MAX: u16 = 0x7f;

/// Reads start times.
#[derive(Clone, Debug)]
pub(super) struct StartDecoder {
    is_first_known: bool,
    first_change: u16,
    start: i64,
    difference: i64,
}

impl StartDecoder {
    pub(super) fn new(header: u8) -> Self {
        let first_change = u16::from(header) & FIRST_CHANGE_MAX;
        Self { is_first_known: header & FIRST_KNOWN != 0, first_change, start: 0, difference: 0 }
    }

    /// The start of the sample that was read last; 0 if it is not known.
    pub(super) fn start(&self) -> i64 {
        self.start
    }

    /// Reads what stands behind sample `number`, which is at `t`; `None` if the bits end.
    pub(super) fn read<S: WordSource + ?Sized>(
        &mut self,
        bits: &mut BitReader<'_, S>,
        number: u16,
        t: i64,
        before: i64,
    ) -> Option<()> {
        if number == 0 {
            if self.is_first_known {
                self.start = t.wrapping_sub(bits.read_varint()?);
            }
            return Some(());
        }
        if self.first_change == 0 || number < self.first_change {
            return Some(());
        }
        let read = bits.read_varbit_int()?;
        self.difference = if number == self.first_change { read } else { self.difference.wrapping_add(read) };
        self.start = before.wrapping_sub(self.difference);
        Some(())
    }
}

/// Writes start times.
#[derive(Clone, Debug, Default)]
pub(super) struct StartEncoder {
    header: u8,
    first_change: u16,
    start: i64,
    difference: i64,
}

impl StartEncoder {
    /// The header byte of the samples so far.
    pub(super) fn header(&self) -> u8 {
        self.header
    }

    /// Writes what stands behind sample `number`, which is at `t`.
    pub(super) fn write(&mut self, bits: &mut LongBits, number: u16, t: i64, before: i64, start: i64) {
        if number == 0 {
            if start != 0 {
                bits.push_varint(t.wrapping_sub(start));
                self.header = FIRST_KNOWN;
            }
        } else if self.first_change != 0 {
            let difference = before.wrapping_sub(start);
            bits.push_varbit_int(difference.wrapping_sub(self.difference));
            self.difference = difference;
        } else if start != self.start || number == FIRST_CHANGE_MAX {
            self.difference = before.wrapping_sub(start);
            bits.push_varbit_int(self.difference);
            self.first_change = number;
            // Until the last that the header can name, one is written at the latest.
            self.header |= u8::try_from(number & FIRST_CHANGE_MAX).unwrap_or(0);
        }
        self.start = start;
    }
}
