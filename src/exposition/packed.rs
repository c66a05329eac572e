//! Series and metadata of formats without lines, as bytes that can be compared and kept like lines.
//!
//! ```text
//! series     0xff name 0xff label 0xff value …        metadata     0xff family 0xff text
//! ```
//! 0xff stands in no UTF-8, so parts need no escapes, and no line of a text format begins with it in front of a name.
#![deny(clippy::indexing_slicing)]

const SEPARATOR: u8 = 0xff;

/// Starts a series or a metadata entry anew.
pub fn start(out: &mut Vec<u8>, name: &[u8], suffix: &[u8]) {
    out.clear();
    push(out, name);
    out.extend_from_slice(suffix);
}

/// Appends a part, which must be UTF-8.
pub fn push(out: &mut Vec<u8>, part: &[u8]) {
    out.push(SEPARATOR);
    out.extend_from_slice(part);
}

/// The parts in their order: name, then label names and values by turns, or family and text. `None` for a text line.
pub fn parts(raw: &[u8]) -> Option<impl Iterator<Item = &str>> {
    let rest = raw.strip_prefix(&[SEPARATOR])?;
    // Parts were checked to be UTF-8 when they were pushed.
    Some(rest.split(|b| *b == SEPARATOR).map(|part| std::str::from_utf8(part).unwrap_or_default()))
}
