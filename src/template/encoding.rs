//! Base64 and URL escapes, as Alertmanager's templates have them.

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Base64 with the alphabet for URLs and padding.
pub(super) fn base64_encode(raw: &[u8]) -> String {
    let mut out = String::with_capacity(raw.len().div_ceil(3) * 4);
    for group in raw.chunks(3) {
        let byte = |index: usize| u32::from(group.get(index).copied().unwrap_or(0));
        let word = byte(0) << 16 | byte(1) << 8 | byte(2);
        for digit in 0..4_usize {
            let index = usize::try_from(word >> (18 - 6 * digit) & 63).unwrap_or(0);
            let c = ALPHABET.get(index).copied().map_or('=', char::from);
            out.push(if digit <= group.len() { c } else { '=' });
        }
    }
    out
}

/// The inverse of [`base64_encode`]; new lines are skipped.
pub(super) fn base64_decode(text: &str) -> Result<Vec<u8>, String> {
    let corrupt = |at: usize| format!("illegal base64 data at input byte {at}");
    let mut digits: Vec<u32> = Vec::new();
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    let mut input = text.bytes().enumerate().filter(|(_, byte)| !matches!(byte, b'\r' | b'\n'));
    while let Some((at, byte)) = input.next() {
        if byte == b'=' {
            let padding_fine = match digits.len() {
                2 => matches!(input.next(), Some((_, b'='))),
                3 => true,
                _ => return Err(corrupt(at)),
            };
            if !padding_fine {
                return Err(corrupt(text.len()));
            }
            if let Some((rest, _)) = input.next() {
                return Err(corrupt(rest));
            }
            push_group(&mut out, &digits);
            return Ok(out);
        }
        let digit = ALPHABET.iter().position(|known| *known == byte).ok_or_else(|| corrupt(at))?;
        digits.push(u32::try_from(digit).unwrap_or(0));
        if digits.len() == 4 {
            push_group(&mut out, &digits);
            digits.clear();
        }
    }
    if digits.is_empty() { Ok(out) } else { Err(corrupt(text.len() - digits.len())) }
}

fn push_group(out: &mut Vec<u8>, digits: &[u32]) {
    let word = digits.iter().chain(std::iter::repeat(&0)).take(4).fold(0, |word, digit| word << 6 | digit);
    let [_, bytes @ ..] = word.to_be_bytes();
    out.extend(bytes.iter().take(digits.len().saturating_sub(1)));
}

/// Go's `url.QueryUnescape`.
pub(super) fn query_unescape(text: &str) -> Result<String, String> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let (byte, tail) = match first {
            b'+' => (b' ', tail),
            b'%' => {
                let digits = tail.get(..2).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit));
                let byte = digits
                    .and_then(|digits| std::str::from_utf8(digits).ok())
                    .and_then(|digits| u8::from_str_radix(digits, 16).ok());
                let Some(byte) = byte else {
                    let shown = rest.get(..3).unwrap_or(rest);
                    return Err(format!("invalid URL escape {}", crate::model::go::quote_bytes(shown)));
                };
                (byte, tail.get(2..).unwrap_or(&[]))
            }
            byte => (*byte, tail),
        };
        out.push(byte);
        rest = tail;
    }
    Ok(String::from_utf8_lossy(&out).into_owned())
}
