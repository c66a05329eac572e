//! DNS messages (RFC 1035, 2782, 3596, 6891): questions out, answers in.

#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

use std::net::{Ipv4Addr, Ipv6Addr};

/// Largest answer that is asked for over UDP.
pub(super) const UDP_LEN_MAX: usize = 4096;
const HEADER_LEN: usize = 12;
/// Jumps within one name at most; a name has 127 labels at most.
const JUMPS_MAX: usize = 128;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    A,
    Ns,
    Mx,
    Aaaa,
    Srv,
}

impl Kind {
    fn number(self) -> u16 {
        match self {
            Self::A => 1,
            Self::Ns => 2,
            Self::Mx => 15,
            Self::Aaaa => 28,
            Self::Srv => 33,
        }
    }
}

/// A record of an answer. Names end with a dot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Record {
    A(Ipv4Addr),
    Aaaa(Ipv6Addr),
    Srv {
        target: String,
        port: u16,
    },
    Mx(String),
    Ns(String),
    /// An alias, which comes along with the addresses of what it stands for.
    Cname,
    /// Of another type, by its number.
    Other(u16),
}

/// An answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) id: u16,
    pub(super) code: u8,
    /// It did not fit; over TCP it may.
    pub(super) truncated: bool,
    pub(super) records: Vec<Record>,
}

/// Why a message makes no sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum WireError {
    /// It ends within something.
    #[error("the message is cut off")]
    Short,
    /// It is a question.
    #[error("the message is no answer")]
    NoAnswer,
    /// A name that cannot be written.
    #[error("the name is no domain name")]
    Name,
}

/// The question for the records of `name`, which may or may not end with a dot.
pub(super) fn question(id: u16, name: &str, kind: Kind, extended: bool) -> Result<Vec<u8>, WireError> {
    let mut message = Vec::with_capacity(64);
    for word in [id, 0x0100, 1, 0, 0, u16::from(extended)] {
        message.extend(word.to_be_bytes());
    }
    let name = name.strip_suffix('.').unwrap_or(name);
    let start = message.len();
    for label in name.split('.').filter(|_| !name.is_empty()) {
        let len = u8::try_from(label.len()).ok().filter(|len| 1 <= *len && *len <= 63).ok_or(WireError::Name)?;
        message.push(len);
        message.extend(label.as_bytes());
    }
    message.push(0);
    if 255 < message.len() - start {
        return Err(WireError::Name);
    }
    message.extend(kind.number().to_be_bytes());
    message.extend(1u16.to_be_bytes());
    if extended {
        // The root, type OPT, our buffer's size as the class, no flags, no options.
        message.push(0);
        message.extend(41u16.to_be_bytes());
        message.extend(u16::try_from(UDP_LEN_MAX).unwrap_or(u16::MAX).to_be_bytes());
        message.extend([0; 6]);
    }
    Ok(message)
}

/// Reads an answer.
pub(super) fn answer(message: &[u8]) -> Result<Answer, WireError> {
    let mut reader = Reader { message, at: 0 };
    let (id, flags) = (reader.word()?, reader.word()?);
    let (questions, answers) = (reader.word()?, reader.word()?);
    if flags & 0x8000 == 0 {
        return Err(WireError::NoAnswer);
    }
    reader.at = HEADER_LEN;
    let truncated = flags & 0x0200 != 0;
    let code = u8::try_from(flags & 0xf).unwrap_or(0);
    let mut records = Vec::new();
    if truncated {
        // What did fit is of no use.
        return Ok(Answer { id, code, truncated, records });
    }
    for _ in 0..questions {
        reader.name()?;
        reader.take(4)?;
    }
    for _ in 0..answers {
        records.push(reader.record()?);
    }
    Ok(Answer { id, code, truncated, records })
}

struct Reader<'a> {
    message: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], WireError> {
        let taken = self.message.get(self.at..).and_then(|rest| rest.get(..len)).ok_or(WireError::Short)?;
        self.at += len;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        self.take(N)?.try_into().map_err(|_| WireError::Short)
    }

    fn word(&mut self) -> Result<u16, WireError> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    fn record(&mut self) -> Result<Record, WireError> {
        self.name()?;
        let kind = self.word()?;
        // Class and time to live.
        self.take(6)?;
        let len = usize::from(self.word()?);
        let end = self.at + len;
        if self.message.len() < end {
            return Err(WireError::Short);
        }
        let record = match kind {
            1 => Record::A(self.array::<4>()?.into()),
            2 => Record::Ns(self.name()?),
            5 => Record::Cname,
            15 => {
                self.word()?;
                Record::Mx(self.name()?)
            }
            28 => Record::Aaaa(self.array::<16>()?.into()),
            33 => {
                self.take(4)?;
                let port = self.word()?;
                Record::Srv { target: self.name()?, port }
            }
            other => Record::Other(other),
        };
        self.at = end;
        Ok(record)
    }

    /// A name, its end after the first jump being where reading goes on.
    fn name(&mut self) -> Result<String, WireError> {
        let (mut text, mut jumps, mut goes_on) = (String::new(), 0, None);
        loop {
            let [len] = self.array::<1>()?;
            match len {
                0 => break,
                1..=63 => {
                    push_label(&mut text, self.take(usize::from(len))?);
                    if 1024 < text.len() {
                        return Err(WireError::Name);
                    }
                }
                0xc0..=0xff => {
                    let [low] = self.array::<1>()?;
                    goes_on.get_or_insert(self.at);
                    jumps += 1;
                    if JUMPS_MAX < jumps {
                        return Err(WireError::Name);
                    }
                    self.at = usize::from(len & 0x3f) << 8 | usize::from(low);
                }
                _ => return Err(WireError::Name),
            }
        }
        self.at = goes_on.unwrap_or(self.at);
        if text.is_empty() {
            text.push('.');
        }
        Ok(text)
    }
}

/// Appends a label and a dot; what would be taken for something else is escaped.
fn push_label(text: &mut String, label: &[u8]) {
    for byte in label {
        match byte {
            b'.' | b' ' | b'\'' | b'@' | b';' | b'(' | b')' | b'"' | b'\\' => {
                text.push('\\');
                text.push(char::from(*byte));
            }
            0x21..=0x7e => text.push(char::from(*byte)),
            other => text.push_str(&format!("\\{other:03}")),
        }
    }
    text.push('.');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// An answer to a question for `a.b` with these records, each a kind and its data.
    fn message(flags: u16, records: &[(u16, &[u8])]) -> Vec<u8> {
        let mut message = question(7, "a.b", Kind::Srv, false).unwrap();
        message[2..4].copy_from_slice(&flags.to_be_bytes());
        message[6..8].copy_from_slice(&u16::try_from(records.len()).unwrap().to_be_bytes());
        for (kind, data) in records {
            // The name of the question, class and time to live.
            message.extend([0xc0, 12]);
            message.extend(kind.to_be_bytes());
            message.extend([0, 1, 0, 0, 0, 60]);
            message.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
            message.extend(*data);
        }
        message
    }

    #[test]
    fn records_of_all_kinds_are_read() {
        let records: &[(u16, &[u8])] = &[
            (1, &[10, 0, 0, 1]),
            (28, &[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]),
            (33, &[0, 1, 0, 2, 0x1f, 0x90, 1, b'x', 0xc0, 12]),
            (15, &[0, 10, 4, b'm', b'.', b'a', 7, 0]),
            (2, &[0xc0, 14]),
            (5, &[0xc0, 12]),
            (16, &[3, b't', b'x', b't']),
        ];
        let answer = answer(&message(0x8180, records)).unwrap();
        let expected = [
            Record::A([10, 0, 0, 1].into()),
            Record::Aaaa("2001:db8::1".parse().unwrap()),
            Record::Srv { target: "x.a.b.".to_owned(), port: 8080 },
            Record::Mx("m\\.a\\007.".to_owned()),
            Record::Ns("b.".to_owned()),
            Record::Cname,
            Record::Other(16),
        ];
        assert_eq!((answer.id, answer.code, answer.truncated), (7, 0, false));
        assert_eq!(answer.records, expected);
    }

    #[test]
    fn what_is_wrong_is_refused() {
        assert_eq!(answer(&message(0x0100, &[])), Err(WireError::NoAnswer));
        assert_eq!(answer(&message(0x8183, &[])).unwrap().code, 3);
        assert!(answer(&message(0x8380, &[(1, &[1])])).unwrap().truncated);
        assert_eq!(answer(&message(0x8180, &[(1, &[1])])), Err(WireError::Short));
        // A name that refers to itself.
        let own = u8::try_from(message(0x8180, &[]).len() + 12).unwrap();
        assert_eq!(answer(&message(0x8180, &[(2, &[0xc0, own])])), Err(WireError::Name));
        for name in ["a..b", &"x".repeat(64), &"abcdefg.".repeat(40)] {
            assert_eq!(question(1, name, Kind::A, true), Err(WireError::Name), "{name}");
        }
        assert_eq!(question(1, ".", Kind::Ns, false).unwrap().len(), HEADER_LEN + 5);
    }

    proptest! {
        #[test]
        fn never_panics(message in proptest::collection::vec(any::<u8>(), 0..80)) {
            let mut message = message;
            if let Some(flags) = message.get_mut(2) {
                *flags |= 0x80;
            }
            let _ = answer(&message);
        }
    }
}
