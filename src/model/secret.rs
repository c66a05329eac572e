//! Values that no log, no API answer and no error message may show.

use std::fmt;

/// What can be overwritten before its memory is given back.
pub trait Wipe {
    /// Overwrites it.
    fn wipe(&mut self);
}

impl Wipe for String {
    fn wipe(&mut self) {
        // Whoever is shown them may look: so the zeros are written.
        std::hint::black_box(zeroed(std::mem::take(self)));
    }
}

/// The memory of a text, overwritten to its end.
fn zeroed(text: String) -> Vec<u8> {
    let mut bytes = text.into_bytes();
    let room = bytes.capacity();
    bytes.clear();
    bytes.resize(room, 0);
    bytes
}

/// A value that prints and serialises as `<secret>`; only [`Secret::expose`] gives it away. Its memory is overwritten when it is
/// dropped.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret<T: Wipe>(T);

impl<T: Wipe> Drop for Secret<T> {
    fn drop(&mut self) {
        self.0.wipe();
    }
}

impl<T: Wipe> Secret<T> {
    /// Hides `value`.
    pub fn new(value: T) -> Self {
        Self(value)
    }

    /// The value, for the place that has to send it.
    pub fn expose(&self) -> &T {
        &self.0
    }
}

impl<T: Wipe> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<secret>")
    }
}

impl<T: Wipe> fmt::Display for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<secret>")
    }
}

impl<T: Wipe> serde::Serialize for Secret<T> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("<secret>")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_itself_to_nobody() {
        let secret = Secret::new("hunter2".to_owned());
        assert_eq!(format!("{secret} {secret:?}"), "<secret> <secret>");
        assert_eq!(serde_json::to_string(&secret).unwrap(), "\"<secret>\"");
        assert_eq!(secret.expose(), "hunter2");
    }

    #[test]
    fn its_memory_is_overwritten() {
        let mut text = String::with_capacity(100);
        text.push_str("a longer one that was cut");
        text.truncate(3);
        let place = text.as_ptr();
        let bytes = zeroed(text);
        assert_eq!((bytes.as_ptr(), bytes.len()), (place, bytes.capacity()));
        assert!(bytes.iter().all(|byte| *byte == 0));
        let mut text = "hunter2".to_owned();
        text.wipe();
        assert_eq!(text, "");
    }
}
