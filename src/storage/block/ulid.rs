//! Names of blocks: 48 bits of milliseconds and 80 random ones, as 26 characters of Crockford's base 32, so that names sort
//! by time.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::model::random::Random;
use crate::model::time::TimestampMs;

/// Characters of a name.
pub const ULID_LEN: usize = 26;

const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
const RANDOM_BITS: u32 = 80;
const TIME_MASK: u128 = (1 << 48) - 1;

/// The name of a block.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ulid(u128);

/// Text that is no name of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a ULID")]
pub struct BadUlid;

impl Ulid {
    /// A new name for a block made at `now`.
    pub fn new(now: TimestampMs, random: &mut Random) -> Self {
        let time = u128::try_from(now.0).unwrap_or(0) & TIME_MASK;
        let noise = (u128::from(random.next_u64()) << 64 | u128::from(random.next_u64())) & ((1 << RANDOM_BITS) - 1);
        Self(time << RANDOM_BITS | noise)
    }

    /// When the block was made.
    pub fn made_at(self) -> TimestampMs {
        TimestampMs(i64::try_from(self.0 >> RANDOM_BITS).unwrap_or(i64::MAX))
    }

    /// Reads a name; only capital letters and digits, as folders have.
    pub fn parse(text: &str) -> Result<Self, BadUlid> {
        // The first character holds three bits only.
        if text.len() != ULID_LEN || text.as_bytes().first().is_some_and(|first| b'7' < *first) {
            return Err(BadUlid);
        }
        let mut bits = 0u128;
        for character in text.bytes() {
            let digit = ALPHABET.iter().position(|letter| *letter == character).ok_or(BadUlid)?;
            bits = bits << 5 | digit as u128;
        }
        Ok(Self(bits))
    }
}

impl fmt::Display for Ulid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for place in (0..ULID_LEN).rev() {
            let digit = (self.0 >> (place * 5)) as usize & 31;
            let letter = ALPHABET.get(digit).copied().unwrap_or(b'0');
            fmt::Write::write_char(f, char::from(letter))?;
        }
        Ok(())
    }
}

impl fmt::Debug for Ulid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Ulid {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Ulid {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back_and_sort_by_time() {
        let name = "01BKGV7JC0RY8A6MACW02A2PJD";
        assert_eq!(Ulid::parse(name).unwrap().to_string(), name);
        let mut random = Random::seeded(7);
        let older = Ulid::new(TimestampMs(1_000), &mut random);
        let newer = Ulid::new(TimestampMs(1_001), &mut random);
        assert!(older < newer && older.to_string() < newer.to_string());
        assert_eq!(Ulid::parse(&newer.to_string()), Ok(newer));
        for bad in ["", "wal", "81BKGV7JC0RY8A6MACW02A2PJD", "01BKGV7JC0RY8A6MACW02A2PJU", "01bkgv7jc0ry8a6macw02a2pjd"]
        {
            assert_eq!(Ulid::parse(bad), Err(BadUlid), "{bad}");
        }
    }
}
