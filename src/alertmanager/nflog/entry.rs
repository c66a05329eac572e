//! Entries of the notification log, in Alertmanager's encoding (`nflog.proto`).
//!
//! ```text
//! file      │ len uvarint │ MeshEntry │ len uvarint │ MeshEntry │ …      later entries replace earlier ones of the same key
//! MeshEntry   1 entry Entry, 2 expires_at Timestamp
//! Entry       1 group_key bytes, 2 receiver, 3 group_hash, 4 resolved (both old), 5 timestamp,
//!             6 firing_alerts and 7 resolved_alerts packed u64, 8 receiver_data map
//! ```
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

use std::collections::BTreeMap;

use prost::Message;

use crate::alertmanager::dedup::Hashes;

/// Longest entry; Alertmanager reads no longer ones.
pub const ENTRY_LEN_MAX: usize = 4 << 20;

/// A time in UTC.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Timestamp {
    /// Whole seconds since the epoch.
    #[prost(int64, tag = "1")]
    pub seconds: i64,
    /// Nanoseconds of that second.
    #[prost(int32, tag = "2")]
    pub nanos: i32,
}

/// One integration of a receiver.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Message)]
pub struct Receiver {
    /// Name of the receiver.
    #[prost(string, tag = "1")]
    pub group_name: String,
    /// Kind of integration, as `webhook`.
    #[prost(string, tag = "2")]
    pub integration: String,
    /// Its number among those of its kind.
    #[prost(uint32, tag = "3")]
    pub idx: u32,
}

/// What an integration wants to remember.
#[derive(Clone, PartialEq, Message)]
pub struct ReceiverDataValue {
    /// The value.
    #[prost(oneof = "DataValue", tags = "1, 2, 3")]
    pub value: Option<DataValue>,
}

/// A value of one of three types.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum DataValue {
    /// A text.
    #[prost(string, tag = "1")]
    Text(String),
    /// A whole number.
    #[prost(int64, tag = "2")]
    Int(i64),
    /// A number.
    #[prost(double, tag = "3")]
    Double(f64),
}

/// What a receiver was told last of a group.
#[derive(Clone, PartialEq, Message)]
pub struct Entry {
    /// Key of the group.
    #[prost(bytes = "vec", tag = "1")]
    pub group_key: Vec<u8>,
    /// Who was told.
    #[prost(message, optional, tag = "2")]
    pub receiver: Option<Receiver>,
    /// Of old versions.
    #[prost(bytes = "vec", tag = "3")]
    pub group_hash: Vec<u8>,
    /// Of old versions.
    #[prost(bool, tag = "4")]
    pub resolved: bool,
    /// When.
    #[prost(message, optional, tag = "5")]
    pub timestamp: Option<Timestamp>,
    /// Hashes of alerts that fired.
    #[prost(uint64, repeated, tag = "6")]
    pub firing_alerts: Vec<u64>,
    /// Hashes of alerts that were over.
    #[prost(uint64, repeated, tag = "7")]
    pub resolved_alerts: Vec<u64>,
    /// What the integration remembers.
    #[prost(btree_map = "string, message", tag = "8")]
    pub receiver_data: BTreeMap<String, ReceiverDataValue>,
}

/// An entry with its end.
#[derive(Clone, PartialEq, Message)]
pub struct MeshEntry {
    /// The entry.
    #[prost(message, optional, tag = "1")]
    pub entry: Option<Entry>,
    /// When it may be forgotten.
    #[prost(message, optional, tag = "2")]
    pub expires_at: Option<Timestamp>,
}

/// Key of an entry.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryKey {
    /// Key of the group.
    pub group_key: String,
    /// Who is told.
    pub receiver: Receiver,
}

impl Timestamp {
    /// From nanoseconds since the epoch.
    pub fn of_nanos(nanos: i64) -> Self {
        let (seconds, rest) = (nanos.div_euclid(1_000_000_000), nanos.rem_euclid(1_000_000_000));
        Self { seconds, nanos: i32::try_from(rest).unwrap_or(0) }
    }

    /// Nanoseconds since the epoch, held at the ends of the range.
    pub fn nanos_since_epoch(&self) -> i64 {
        self.seconds.saturating_mul(1_000_000_000).saturating_add(i64::from(self.nanos))
    }
}

impl MeshEntry {
    /// What was told now.
    pub fn told(key: &EntryKey, hashes: &Hashes, now_nanos: i64, keep_nanos: i64) -> Self {
        let entry = Entry {
            group_key: key.group_key.clone().into_bytes(),
            receiver: Some(key.receiver.clone()),
            timestamp: Some(Timestamp::of_nanos(now_nanos)),
            firing_alerts: hashes.firing.clone(),
            resolved_alerts: hashes.resolved.clone(),
            ..Entry::default()
        };
        Self { entry: Some(entry), expires_at: Some(Timestamp::of_nanos(now_nanos.saturating_add(keep_nanos))) }
    }

    /// Its key; `None` for one that says nothing.
    pub fn key(&self) -> Option<EntryKey> {
        let entry = self.entry.as_ref()?;
        let group_key = String::from_utf8_lossy(&entry.group_key).into_owned();
        Some(EntryKey { group_key, receiver: entry.receiver.clone()? })
    }

    /// Whether it may be forgotten.
    pub fn has_expired(&self, now_nanos: i64) -> bool {
        self.expires_at.as_ref().is_none_or(|at| at.nanos_since_epoch() <= now_nanos)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Bytes written by Alertmanager 0.34 for the same entry.
    #[test]
    fn the_encoding_is_alertmanagers() {
        let receiver = Receiver { group_name: "r".to_owned(), integration: "webhook".to_owned(), idx: 1 };
        let key = EntryKey { group_key: "{}:{}".to_owned(), receiver };
        let hashes = Hashes { firing: vec![1, 300], resolved: vec![2] };
        let entry = MeshEntry::told(&key, &hashes, 1_000_000_002, 10);
        let inner = [
            &b"\x0a\x05{}:{}"[..],
            b"\x12\x0e\x0a\x01r\x12\x07webhook\x18\x01",
            b"\x2a\x04\x08\x01\x10\x02",
            b"\x32\x03\x01\xac\x02",
            b"\x3a\x01\x02",
        ]
        .concat();
        let mut expected = vec![0x0a, u8::try_from(inner.len()).unwrap()];
        expected.extend(inner);
        expected.extend(b"\x12\x04\x08\x01\x10\x0c");
        assert_eq!(entry.encode_to_vec(), expected);
        assert_eq!(entry.key(), Some(key));
        assert!(!entry.has_expired(1_000_000_011) && entry.has_expired(1_000_000_012));
    }

    proptest! {
        #[test]
        fn times_come_back(nanos in any::<i64>()) {
            prop_assert_eq!(Timestamp::of_nanos(nanos).nanos_since_epoch(), nanos);
        }

        #[test]
        fn never_panics(raw: Vec<u8>) {
            let _ = MeshEntry::decode(raw.as_slice()).map(|entry| entry.key());
        }
    }
}
