//! Fields of protobuf messages, one after the other, without copying. Error texts are those of Go's generated code.
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

/// Groups within groups that are stepped over.
const GROUP_DEPTH_MAX: usize = 64;

/// Why bytes are no message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The message ends within a field.
    #[error("unexpected EOF")]
    Cut,
    /// A number of more than ten bytes.
    #[error("proto: integer overflow")]
    Overflow,
    /// A group ends that did not begin.
    #[error("proto: {message}: wiretype end group for non-group")]
    EndGroup {
        /// Name of the message.
        message: &'static str,
    },
    /// A field with the number 0.
    #[error("proto: {message}: illegal tag {field} (wire type {tag})")]
    IllegalTag {
        /// Name of the message.
        message: &'static str,
        /// Field number, as the 32 bits that Go reads.
        field: i32,
        /// Field number and wire type.
        tag: u64,
    },
    /// A wire type that does not exist.
    #[error("proto: illegal wireType {0}")]
    IllegalType(u8),
    /// A field of another type than expected.
    #[error("proto: wrong wireType = {wire} for field {field}")]
    WrongType {
        /// Wire type found.
        wire: u8,
        /// Name of the field.
        field: &'static str,
    },
    /// Groups within groups within groups.
    #[error("proto: groups are nested too deeply")]
    TooDeep,
}

/// The value of a field.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Value<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    Fixed32,
    /// The start of a group, or a wire type that does not exist; nothing was read.
    Odd(u8),
}

impl<'a> Value<'a> {
    fn wrong(self, field: &'static str) -> WireError {
        let wire = match self {
            Self::Varint(_) => 0,
            Self::Fixed64(_) => 1,
            Self::Bytes(_) => 2,
            Self::Fixed32 => 5,
            Self::Odd(wire) => wire,
        };
        WireError::WrongType { wire, field }
    }

    pub(super) fn varint(self, field: &'static str) -> Result<u64, WireError> {
        match self {
            Self::Varint(value) => Ok(value),
            other => Err(other.wrong(field)),
        }
    }

    pub(super) fn double(self, field: &'static str) -> Result<f64, WireError> {
        match self {
            Self::Fixed64(bits) => Ok(f64::from_bits(bits)),
            other => Err(other.wrong(field)),
        }
    }

    pub(super) fn bytes(self, field: &'static str) -> Result<&'a [u8], WireError> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            other => Err(other.wrong(field)),
        }
    }

    /// How many varints a field holds that may be packed: each ends with a byte whose first bit is clear.
    pub(super) fn varint_count(self, field: &'static str) -> Result<u64, WireError> {
        match self {
            Self::Bytes(packed) => Ok(packed.iter().filter(|byte| **byte < 0x80).count() as u64),
            Self::Varint(_) => Ok(1),
            other => Err(other.wrong(field)),
        }
    }

    /// Calls `take` with each varint of a field that may be packed.
    pub(super) fn each_varint(self, field: &'static str, take: &mut dyn FnMut(u64)) -> Result<(), WireError> {
        match self {
            Self::Bytes(mut packed) => {
                while !packed.is_empty() {
                    let (value, len) = varint(packed)?.ok_or(WireError::Cut)?;
                    take(value);
                    packed = packed.get(len..).unwrap_or_default();
                }
                Ok(())
            }
            Self::Varint(value) => {
                take(value);
                Ok(())
            }
            other => Err(other.wrong(field)),
        }
    }

    /// Calls `take` with each double of a field that may be packed.
    pub(super) fn each_double(self, field: &'static str, take: &mut dyn FnMut(f64)) -> Result<(), WireError> {
        match self {
            Self::Bytes(packed) => {
                let (doubles, rest) = packed.as_chunks::<8>();
                doubles.iter().for_each(|raw| take(f64::from_le_bytes(*raw)));
                if rest.is_empty() { Ok(()) } else { Err(WireError::Cut) }
            }
            Self::Fixed64(bits) => {
                take(f64::from_bits(bits));
                Ok(())
            }
            other => Err(other.wrong(field)),
        }
    }

    /// How many doubles a field holds that may be packed.
    pub(super) fn double_count(self, field: &'static str) -> Result<u64, WireError> {
        match self {
            Self::Bytes(packed) => Ok(packed.len() as u64 / 8),
            Self::Fixed64(_) => Ok(1),
            other => Err(other.wrong(field)),
        }
    }
}

/// The fields of one message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fields<'a> {
    message: &'static str,
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    /// The fields of `bytes`; errors name the message.
    pub(super) fn new(message: &'static str, bytes: &'a [u8]) -> Self {
        Self { message, rest: bytes }
    }

    /// Bytes that were not read.
    pub(super) fn rest_len(&self) -> usize {
        self.rest.len()
    }

    /// Number and value of the next field. Give fields that are not known to [`Self::skip`].
    pub(super) fn next(&mut self) -> Result<Option<(i32, Value<'a>)>, WireError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        // Go keeps the lowest 32 bits of a field number.
        let (field, wire) = ((tag >> 3) as i32, (tag & 7) as u8);
        if wire == 4 {
            return Err(WireError::EndGroup { message: self.message });
        }
        if field <= 0 {
            return Err(WireError::IllegalTag { message: self.message, field, tag });
        }
        self.value(wire).map(|value| Some((field, value)))
    }

    /// Steps over what is left of a field that is not known.
    pub(super) fn skip(&mut self, value: Value<'a>) -> Result<(), WireError> {
        match value {
            Value::Odd(3) => self.skip_group(),
            Value::Odd(wire) => Err(WireError::IllegalType(wire)),
            _ => Ok(()),
        }
    }

    fn skip_group(&mut self) -> Result<(), WireError> {
        let mut depth = 1;
        while 0 < depth {
            let wire = (self.varint()? & 7) as u8;
            match wire {
                4 => depth -= 1,
                _ => match self.value(wire)? {
                    Value::Odd(3) if depth < GROUP_DEPTH_MAX => depth += 1,
                    Value::Odd(3) => return Err(WireError::TooDeep),
                    Value::Odd(wire) => return Err(WireError::IllegalType(wire)),
                    _ => {}
                },
            }
        }
        Ok(())
    }

    fn value(&mut self, wire: u8) -> Result<Value<'a>, WireError> {
        Ok(match wire {
            0 => Value::Varint(self.varint()?),
            1 => Value::Fixed64(u64::from_le_bytes(self.array()?)),
            2 => {
                let len = usize::try_from(self.varint()?).map_err(|_| WireError::Cut)?;
                let (bytes, rest) = self.rest.split_at_checked(len).ok_or(WireError::Cut)?;
                self.rest = rest;
                Value::Bytes(bytes)
            }
            5 => {
                self.array::<4>()?;
                Value::Fixed32
            }
            odd => Value::Odd(odd),
        })
    }

    fn varint(&mut self) -> Result<u64, WireError> {
        match varint(self.rest)? {
            Some((value, len)) => {
                self.rest = self.rest.get(len..).unwrap_or_default();
                Ok(value)
            }
            None => Err(WireError::Cut),
        }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let (array, rest) = self.rest.split_first_chunk::<N>().ok_or(WireError::Cut)?;
        self.rest = rest;
        Ok(*array)
    }
}

/// The number at the start of `raw` and the bytes it took; `None` if it goes on past the end.
pub(super) fn varint(raw: &[u8]) -> Result<Option<(u64, usize)>, WireError> {
    let mut value = 0_u64;
    for (index, byte) in raw.iter().enumerate() {
        let shift = u32::try_from(7 * index).unwrap_or(u32::MAX);
        if 64 <= shift {
            return Err(WireError::Overflow);
        }
        value |= u64::from(byte & 0x7f) << shift;
        if *byte < 0x80 {
            return Ok(Some((value, index + 1)));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walk(raw: &[u8]) -> Result<Vec<i32>, String> {
        let mut fields = Fields::new("Metric", raw);
        let mut found = Vec::new();
        while let Some((field, value)) = fields.next().map_err(|e| e.to_string())? {
            fields.skip(value).map_err(|e| e.to_string())?;
            found.push(field);
        }
        Ok(found)
    }

    #[test]
    fn unknown_fields_and_groups_are_stepped_over() {
        assert_eq!(walk(b"\x08\x96\x01\x12\x02ab\x1d1234"), Ok(vec![1, 2, 3]));
        assert_eq!(walk(b"\x0b\x08\x01\x13\x12\x01x\x14\x0c\x10\x00"), Ok(vec![1, 2]));
        assert_eq!(walk(&[0x0b; 100]), Err("proto: groups are nested too deeply".to_owned()));
    }

    #[test]
    fn words_errors_as_go() {
        let error = |raw: &[u8]| walk(raw).unwrap_err();
        assert_eq!(error(b"\x08"), "unexpected EOF");
        assert_eq!(error(b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"), "proto: integer overflow");
        assert_eq!(error(b"\x01"), "proto: Metric: illegal tag 0 (wire type 1)");
        assert_eq!(error(b"\x0c"), "proto: Metric: wiretype end group for non-group");
        assert_eq!(error(b"\x0f"), "proto: illegal wireType 7");
    }
}
