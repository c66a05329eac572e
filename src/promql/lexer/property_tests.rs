//! Properties of the lexer on any text.

use proptest::prelude::*;

use super::*;

fn pieces() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "foo", "a:b", "{", "}", "{{", "}}", "(", ")", "[", "]", "\"", "'", "`", "\\", "\\x4", "\\u", "#", "\n", " ",
        "1", "0x", "1e", "1_", "5m", "1d2", ".", "=~", "!", "=", "<", "/", ">", "@", ":", "-", "é", "\u{0}",
        "\u{feff}", "x3", "_", "stale", "fill", "inf",
    ]);
    prop::collection::vec(piece, 0..30).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn tokens_follow_one_another_and_end(text in prop_oneof![pieces(), any::<String>()], is_series: bool) {
        let mut lexer = if is_series { Lexer::for_series(&text) } else { Lexer::new(&text) };
        let mut end = 0;
        // Each token takes at least a byte but for the last one.
        for _ in 0..text.len() + 2 {
            match lexer.next_token() {
                Ok(token) => {
                    prop_assert!(end <= token.start && token.start <= token.end, "{text:?}: {token:?} after {end}");
                    prop_assert!(text.get(token.start..token.end).is_some(), "{text:?}: {token:?}");
                    end = token.end;
                    if token.kind == Kind::Eof {
                        return Ok(());
                    }
                }
                Err(error) => {
                    prop_assert!(error.start <= text.len() && !error.message.is_empty(), "{text:?}");
                    return Ok(());
                }
            }
        }
        prop_assert!(false, "{text:?} does not end");
    }
}
