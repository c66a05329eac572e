//! Fields of protobuf messages, one after the other, without copying. Error texts are those of Go's generated code.
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

/// Groups within groups that are stepped over.
const GROUP_DEPTH_MAX: usize = 64;

/// Why bytes are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The message ends within a field.
    #[error("unexpected EOF")]
    Cut,
    /// A length above 2⁶³.
    #[error("proto: negative length found during unmarshaling")]
    NegativeLength,
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
pub enum Value<'a> {
    /// A number.
    Varint(u64),
    /// Eight bytes.
    Fixed64(u64),
    /// Text, bytes, a message, or numbers that are packed.
    Bytes(&'a [u8]),
    /// Four bytes, which nobody asks for.
    Fixed32,
    /// The start of a group, or a wire type that does not exist; nothing was read.
    Odd(u8),
}

impl<'a> Value<'a> {
    #[cold]
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

    /// The number that the field `field` holds.
    #[inline]
    pub fn varint(self, field: &'static str) -> Result<u64, WireError> {
        match self {
            Self::Varint(value) => Ok(value),
            other => Err(other.wrong(field)),
        }
    }

    /// The float that it holds.
    #[inline]
    pub fn double(self, field: &'static str) -> Result<f64, WireError> {
        match self {
            Self::Fixed64(bits) => Ok(f64::from_bits(bits)),
            other => Err(other.wrong(field)),
        }
    }

    /// The bytes that it holds.
    #[inline]
    pub fn bytes(self, field: &'static str) -> Result<&'a [u8], WireError> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            other => Err(other.wrong(field)),
        }
    }

    /// Gives each number of a field to `take`: one, or many that are packed.
    #[inline]
    pub fn varints(self, field: &'static str, mut take: impl FnMut(u64)) -> Result<(), WireError> {
        match self {
            Self::Varint(value) => take(value),
            Self::Bytes(mut packed) => {
                while !packed.is_empty() {
                    take(varint(&mut packed)?);
                }
            }
            other => return Err(other.wrong(field)),
        }
        Ok(())
    }

    /// How many numbers a field holds that may be packed: each ends with a byte whose first bit is clear.
    pub fn varint_count(self, field: &'static str) -> Result<u64, WireError> {
        match self {
            Self::Bytes(packed) => Ok(packed.iter().filter(|byte| **byte < 0x80).count() as u64),
            Self::Varint(_) => Ok(1),
            other => Err(other.wrong(field)),
        }
    }

    /// How many floats a field holds that may be packed.
    pub fn double_count(self, field: &'static str) -> Result<u64, WireError> {
        match self {
            Self::Bytes(packed) => Ok(packed.len() as u64 / 8),
            Self::Fixed64(_) => Ok(1),
            other => Err(other.wrong(field)),
        }
    }
}

/// Gives each of the numbers of a field to `take` that have eight bytes: one, or many that are packed.
#[inline]
pub fn fixed64s(value: Value<'_>, field: &'static str, mut take: impl FnMut(u64)) -> Result<(), WireError> {
    match value {
        Value::Fixed64(bits) => take(bits),
        Value::Bytes(packed) => {
            let (whole, rest) = packed.as_chunks::<8>();
            if !rest.is_empty() {
                return Err(WireError::Cut);
            }
            whole.iter().for_each(|raw| take(u64::from_le_bytes(*raw)));
        }
        other => return Err(other.wrong(field)),
    }
    Ok(())
}

/// The fields of one message.
#[derive(Clone, Copy, Debug)]
pub struct Fields<'a> {
    message: &'static str,
    rest: &'a [u8],
    /// The wire type of the last field, if it is odd and nothing of it was read.
    odd: Option<u8>,
}

impl<'a> Fields<'a> {
    /// The fields of `bytes`; errors name the message.
    #[inline]
    pub fn new(message: &'static str, bytes: &'a [u8]) -> Self {
        Self { message, rest: bytes, odd: None }
    }

    /// Bytes that were not read.
    #[inline]
    pub fn rest_len(&self) -> usize {
        self.rest.len()
    }

    /// Number and value of the next field. What nobody took of the last one is stepped over.
    #[inline]
    #[expect(clippy::should_implement_trait, reason = "it fails")]
    pub fn next(&mut self) -> Result<Option<(i32, Value<'a>)>, WireError> {
        self.step_over()?;
        if self.rest.is_empty() {
            return Ok(None);
        }
        let tag = varint(&mut self.rest)?;
        // Go keeps the lowest 32 bits of a field number.
        let (field, wire) = ((tag >> 3) as i32, (tag & 7) as u8);
        if wire == 4 {
            return Err(WireError::EndGroup { message: self.message });
        }
        if field <= 0 {
            return Err(WireError::IllegalTag { message: self.message, field, tag });
        }
        let value = value(&mut self.rest, wire)?;
        if let Value::Odd(wire) = value {
            self.odd = Some(wire);
        }
        Ok(Some((field, value)))
    }

    /// Steps over what was not read of the last field.
    #[inline]
    pub fn step_over(&mut self) -> Result<(), WireError> {
        match self.odd.take() {
            None => Ok(()),
            Some(3) => skip_group(&mut self.rest),
            Some(wire) => Err(WireError::IllegalType(wire)),
        }
    }
}

fn skip_group(rest: &mut &[u8]) -> Result<(), WireError> {
    let mut depth = 1;
    while 0 < depth {
        let wire = (varint(rest)? & 7) as u8;
        match wire {
            4 => depth -= 1,
            _ => match value(rest, wire)? {
                Value::Odd(3) if depth < GROUP_DEPTH_MAX => depth += 1,
                Value::Odd(3) => return Err(WireError::TooDeep),
                Value::Odd(wire) => return Err(WireError::IllegalType(wire)),
                _ => {}
            },
        }
    }
    Ok(())
}

#[inline]
fn value<'a>(rest: &mut &'a [u8], wire: u8) -> Result<Value<'a>, WireError> {
    Ok(match wire {
        0 => Value::Varint(varint(rest)?),
        1 => Value::Fixed64(u64::from_le_bytes(array(rest)?)),
        2 => Value::Bytes(bytes(rest)?),
        5 => {
            array::<4>(rest)?;
            Value::Fixed32
        }
        odd => Value::Odd(odd),
    })
}

/// A length and as many bytes.
#[inline]
pub fn bytes<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], WireError> {
    let len = usize::try_from(varint(rest)?.cast_signed()).map_err(|_| WireError::NegativeLength)?;
    let (bytes, after) = rest.split_at_checked(len).ok_or(WireError::Cut)?;
    *rest = after;
    Ok(bytes)
}

#[inline]
fn array<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], WireError> {
    let (array, after) = rest.split_first_chunk::<N>().ok_or(WireError::Cut)?;
    *rest = after;
    Ok(*array)
}

/// The next number.
#[inline]
pub fn varint(rest: &mut &[u8]) -> Result<u64, WireError> {
    match rest.split_first() {
        Some((&byte, after)) if byte < 0x80 => {
            *rest = after;
            Ok(u64::from(byte))
        }
        _ => long_varint(rest),
    }
}

fn long_varint(rest: &mut &[u8]) -> Result<u64, WireError> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, after) = rest.split_first().ok_or(WireError::Cut)?;
        *rest = after;
        value |= u64::from(byte & 0x7f) << shift;
        if *byte < 0x80 {
            return Ok(value);
        }
    }
    Err(WireError::Overflow)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walk(raw: &[u8]) -> Result<Vec<i32>, String> {
        let mut fields = Fields::new("Sample", raw);
        let mut found = Vec::new();
        while let Some((field, _)) = fields.next().map_err(|e| e.to_string())? {
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
        assert_eq!(error(b"\x12\x05ab"), "unexpected EOF");
        assert_eq!(error(b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"), "proto: integer overflow");
        assert_eq!(error(b"\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01").split(' ').nth(1), Some("negative"));
        assert_eq!(error(b"\x01"), "proto: Sample: illegal tag 0 (wire type 1)");
        assert_eq!(error(b"\x0c"), "proto: Sample: wiretype end group for non-group");
        assert_eq!(error(b"\x0f"), "proto: illegal wireType 7");
        let odd = Fields::new("Sample", b"\x0f").next().unwrap().unwrap().1;
        assert_eq!(odd.varint("X").unwrap_err().to_string(), "proto: wrong wireType = 7 for field X");
        assert_eq!(Value::Fixed32.bytes("X").unwrap_err().to_string(), "proto: wrong wireType = 5 for field X");
    }

    #[test]
    fn numbers_may_be_packed() {
        let mut found = Vec::new();
        Value::Bytes(b"\x01\x96\x01").varints("X", |n| found.push(n)).unwrap();
        Value::Varint(7).varints("X", |n| found.push(n)).unwrap();
        assert_eq!(found, [1, 150, 7]);
        assert!(Value::Bytes(b"\x80").varints("X", |_| ()).is_err());
    }
}
