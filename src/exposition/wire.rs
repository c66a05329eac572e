//! Fields of protobuf messages, one after the other, without copying. Error texts are those of Go's generated code.
#![deny(clippy::indexing_slicing)]

/// Why bytes are no message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The message ends within a field.
    #[error("unexpected EOF")]
    Cut,
    /// A number of more than ten bytes.
    #[error("proto: integer overflow")]
    Overflow,
    /// Field number 0 or a wire type that is not in use.
    #[error("proto: illegal tag {field} (wire type {wire})")]
    IllegalTag {
        /// Field number.
        field: u64,
        /// Wire type.
        wire: u64,
    },
    /// A field of another type than expected.
    #[error("proto: wrong wireType = {wire} for field {field}")]
    WrongType {
        /// Wire type found.
        wire: u8,
        /// Name of the field.
        field: &'static str,
    },
}

/// The value of a field.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Value<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    Fixed32(u32),
}

impl<'a> Value<'a> {
    fn wire(self) -> u8 {
        match self {
            Self::Varint(_) => 0,
            Self::Fixed64(_) => 1,
            Self::Bytes(_) => 2,
            Self::Fixed32(_) => 5,
        }
    }

    pub(super) fn varint(self, field: &'static str) -> Result<u64, WireError> {
        match self {
            Self::Varint(value) => Ok(value),
            other => Err(WireError::WrongType { wire: other.wire(), field }),
        }
    }

    pub(super) fn double(self, field: &'static str) -> Result<f64, WireError> {
        match self {
            Self::Fixed64(bits) => Ok(f64::from_bits(bits)),
            other => Err(WireError::WrongType { wire: other.wire(), field }),
        }
    }

    pub(super) fn bytes(self, field: &'static str) -> Result<&'a [u8], WireError> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            other => Err(WireError::WrongType { wire: other.wire(), field }),
        }
    }
}

/// The fields of one message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(super) fn new(message: &'a [u8]) -> Self {
        Self { rest: message }
    }

    /// Number and value of the next field.
    pub(super) fn next(&mut self) -> Result<Option<(u64, Value<'a>)>, WireError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let (field, wire) = (tag >> 3, tag & 7);
        let value = match wire {
            _ if field == 0 => return Err(WireError::IllegalTag { field, wire }),
            0 => Value::Varint(self.varint()?),
            1 => Value::Fixed64(u64::from_le_bytes(self.array()?)),
            2 => {
                let len = usize::try_from(self.varint()?).map_err(|_| WireError::Cut)?;
                let (bytes, rest) = self.rest.split_at_checked(len).ok_or(WireError::Cut)?;
                self.rest = rest;
                Value::Bytes(bytes)
            }
            5 => Value::Fixed32(u32::from_le_bytes(self.array()?)),
            _ => return Err(WireError::IllegalTag { field, wire }),
        };
        Ok(Some((field, value)))
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
