//! A float that is written as its difference in bits to the one before.

use crate::storage::chunk::bits::{BitReader, LongBits, WordSource};

/// Marks that no window of significant bits has been written yet.
const NO_WINDOW: u8 = 0xff;

/// The last value, and the window in which its bits differed from the one before.
#[derive(Clone, Copy, Debug)]
pub(super) struct Xor {
    bits: u64,
    leading: u8,
    trailing: u8,
}

impl Xor {
    /// What a writer knows after the first value.
    pub(super) fn written(value: f64) -> Self {
        Self { bits: value.to_bits(), leading: NO_WINDOW, trailing: 0 }
    }

    /// Reads the first value.
    pub(super) fn read_first<S: WordSource + ?Sized>(from: &mut BitReader<'_, S>) -> Option<Self> {
        Some(Self { bits: from.read(64)?, leading: 0, trailing: 0 })
    }

    pub(super) fn value(self) -> f64 {
        f64::from_bits(self.bits)
    }

    /// Writes the next value.
    pub(super) fn write(&mut self, value: f64, out: &mut LongBits) {
        let xor = value.to_bits() ^ self.bits;
        self.bits = value.to_bits();
        if xor == 0 {
            return out.push(0, 1);
        }
        // At most 64, so both fit; leading zeros are held at what five bits can say.
        let leading = (xor.leading_zeros() as u8).min(31);
        let trailing = xor.trailing_zeros() as u8;
        if self.leading != NO_WINDOW && self.leading <= leading && self.trailing <= trailing {
            out.push(0b10, 2);
            return out.push(xor >> self.trailing, 64 - u32::from(self.leading) - u32::from(self.trailing));
        }
        (self.leading, self.trailing) = (leading, trailing);
        let significant = 64 - u32::from(leading) - u32::from(trailing);
        out.push(0b11, 2);
        out.push(u64::from(leading), 5);
        out.push(u64::from(significant), 6);
        out.push(xor >> trailing, significant);
    }

    /// Reads the next value; `None` if the bits end or make no sense.
    pub(super) fn read<S: WordSource + ?Sized>(&mut self, from: &mut BitReader<'_, S>) -> Option<()> {
        if !from.read_bit()? {
            return Some(());
        }
        if from.read_bit()? {
            let (leading, significant) = (from.read(5)? as u8, from.read(6)? as u8);
            let significant = if significant == 0 { 64 } else { significant };
            (self.leading, self.trailing) = (leading, 64u8.checked_sub(leading + significant)?);
        }
        let bits = from.read(64 - u32::from(self.leading) - u32::from(self.trailing))?;
        self.bits ^= bits << self.trailing;
        Some(())
    }
}
