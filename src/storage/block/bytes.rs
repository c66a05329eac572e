//! Integers and strings as they stand in the files of a block: big-endian, Go's varints, length-prefixed text.

/// Appends an unsigned varint.
pub(super) fn put_uvarint(out: &mut Vec<u8>, mut value: u64) {
    while 0x80 <= value {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a signed (zigzag) varint.
pub(super) fn put_varint(out: &mut Vec<u8>, value: i64) {
    put_uvarint(out, ((value << 1) ^ (value >> 63)) as u64);
}

/// Appends a text behind its length.
pub(super) fn put_str(out: &mut Vec<u8>, text: &str) {
    put_uvarint(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

/// Bytes that a varint takes.
pub(super) fn uvarint_len(value: u64) -> u64 {
    u64::from((64 - (value | 1).leading_zeros()).div_ceil(7))
}

/// Reads from a slice, never beyond its end. `None`: the bytes end, or a varint does not.
pub(super) struct Slice<'a> {
    rest: &'a [u8],
}

impl<'a> Slice<'a> {
    pub(super) fn new(data: &'a [u8]) -> Self {
        Self { rest: data }
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        self.rest.len()
    }

    #[inline]
    pub(super) fn u8(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    #[inline]
    pub(super) fn u32(&mut self) -> Option<u32> {
        let (raw, rest) = self.rest.split_first_chunk::<4>()?;
        self.rest = rest;
        Some(u32::from_be_bytes(*raw))
    }

    #[inline]
    pub(super) fn u64(&mut self) -> Option<u64> {
        let (raw, rest) = self.rest.split_first_chunk::<8>()?;
        self.rest = rest;
        Some(u64::from_be_bytes(*raw))
    }

    #[inline]
    pub(super) fn uvarint(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..70).step_by(7) {
            let byte = self.u8()?;
            if shift == 63 && 1 < byte {
                return None;
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    /// The next `len` bytes.
    pub(super) fn take(&mut self, len: u64) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(usize::try_from(len).ok()?)?;
        self.rest = rest;
        Some(taken)
    }

    pub(super) fn varint(&mut self) -> Option<i64> {
        let raw = self.uvarint()?;
        Some((raw >> 1) as i64 ^ -((raw & 1) as i64))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn varints_round_trip(unsigned: u64, signed: i64) {
            let mut out = Vec::new();
            put_uvarint(&mut out, unsigned);
            prop_assert_eq!(out.len() as u64, uvarint_len(unsigned));
            put_varint(&mut out, signed);
            put_str(&mut out, "é");
            let mut read = Slice::new(&out);
            prop_assert_eq!((read.uvarint(), read.varint()), (Some(unsigned), Some(signed)));
            prop_assert_eq!((read.uvarint(), read.len(), read.u64()), (Some(2), 2, None));
        }
    }
}
