use proptest::prelude::*;

use super::*;

#[track_caller]
fn matches(pattern: &str, yes: &[&str], no: &[&str]) {
    let re = Regexp::anchored(pattern).unwrap();
    for text in yes {
        assert!(re.is_match(text), "{pattern} should match {text:?}");
    }
    for text in no {
        assert!(!re.is_match(text), "{pattern} should not match {text:?}");
    }
}

#[track_caller]
fn fails(pattern: &str, message: &str) {
    let error = Regexp::unanchored(pattern).expect_err(pattern).to_string();
    assert_eq!(error, format!("error parsing regexp: {message}"));
}

#[test]
fn classes_are_ascii_as_in_go() {
    matches(r"\d", &["3"], &["٣"]);
    matches(r"\w+", &["a_9"], &["é"]);
    matches(r"a\s", &["a\t", "a\r"], &["a\u{a0}", "a\u{b}"]);
    matches(r"[[:space:]]", &["\u{b}"], &["\u{a0}"]);
    matches(r"[^\d]", &["a", "٣", "\n"], &["1"]);
    matches(r"é\b.*", &["éa!"], &["é!"]);
    matches(r"(?i)\w", &["ſ", "\u{212a}"], &["é"]);
}

#[test]
fn accepts_what_only_go_accepts() {
    matches(r"\Qa.b*\E+", &["a.b*", "a.b***"], &["axb*"]);
    matches(r"\101\0", &["A\0"], &["A"]);
    matches(r"a{,5}", &["a{,5}"], &["aaa"]);
    matches("{", &["{"], &[""]);
    matches("a{x}", &["a{x}"], &["ax"]);
    matches("[[a]", &["[", "a"], &["b"]);
    matches("[a&&b]", &["a", "&", "b"], &["c"]);
    matches(r"\<x\>", &["<x>"], &["x"]);
    matches(r"[\d-z]", &["5", "-", "z"], &["a"]);
    matches("[]a]", &["]", "a"], &["b"]);
    matches(r"\p{^Greek}\PN\pN", &["ax1"], &["αx1", "a11"]);
    matches(r"\p{greek}\p{lowercase-letter}\p{Cs}?", &["αa"], &["aa"]);
    matches("a(?i)*", &["", "aaa"], &["A"]);
    matches(r"\x{1F600}\x41", &["😀A"], &[]);
    matches("(?U)a+?b|c", &["aab", "c"], &["b"]);
}

#[test]
fn dots_and_anchors_are_those_of_matchers() {
    matches("a.b", &["a\nb"], &["ab"]);
    matches("(?-s)a.b", &["axb"], &["a\nb"]);
    matches("^a$|b", &["a", "b"], &["ab"]);
    matches("(?m)^a$\nb", &["a\nb"], &["a"]);
    matches(r"\Afoo\z", &["foo"], &["xfoo"]);
    matches("a$b", &[], &["ab", "a$b"]);
    matches("", &[""], &["a"]);
}

#[test]
fn errors_have_the_texts_of_go() {
    fails("a(", "missing closing ): `a(`");
    fails("a)", "unexpected ): `a)`");
    fails("[a", "missing closing ]: `[a`");
    fails("[b-a]", "invalid character class range: `b-a`");
    fails("[[:foo:]]", "invalid character class range: `[:foo:]`");
    fails("a**", "invalid nested repetition operator: `**`");
    fails("x{2}{3}", "invalid nested repetition operator: `{2}{3}`");
    fails("a|*", "missing argument to repetition operator: `*`");
    fails("+?", "missing argument to repetition operator: `+?`");
    fails("x{1001}", "invalid repeat count: `{1001}`");
    fails("x{2,1}", "invalid repeat count: `{2,1}`");
    fails("(x{100}){11}", "invalid repeat count: `{11}`");
    fails(r"\8", r"invalid escape sequence: `\8`");
    fails(r"\C", r"invalid escape sequence: `\C`");
    fails(r"\u0041", r"invalid escape sequence: `\u`");
    fails(r"\x4", r"invalid escape sequence: `\x4`");
    fails(r"[a-\d]", r"invalid escape sequence: `\d`");
    fails(r"\pX", r"invalid character class range: `\pX`");
    fails(r"\p{Uppercase}", r"invalid character class range: `\p{Uppercase}`");
    fails(r"\p{", r"invalid character class range: `\p{`");
    fails("a\\", "trailing backslash at end of expression: ``");
    fails("(?=a)", "invalid or unsupported Perl syntax: `(?=`");
    fails("(?P=n)", "invalid or unsupported Perl syntax: `(?P`");
    fails("(?x)a", "invalid or unsupported Perl syntax: `(?x`");
    fails("(?-)", "invalid or unsupported Perl syntax: `(?-)`");
    fails("(?P<n", "invalid named capture: `(?P<n`");
    fails("(?<a b>x)", "invalid named capture: `(?<a b>`");
}

#[test]
fn matchers_and_relabelling_quote_different_texts() {
    let bare = Regexp::anchored("a)(b").expect_err("unbalanced");
    assert_eq!(bare.to_string(), "error parsing regexp: unexpected ): `a)(b`");
    assert!(Regexp::wrapped("a)(b").unwrap().is_match("ab"));
    let wrapped = Regexp::wrapped("a(").expect_err("unbalanced");
    assert_eq!(wrapped.to_string(), "error parsing regexp: missing closing ): `^(?s:a()$`");
}

#[test]
fn lists_and_prefixes_are_known_to_the_index() {
    let set = |pattern: &str| Regexp::anchored(pattern).unwrap().set_matches().map(<[String]>::to_vec);
    assert_eq!(set("a|b|a|"), Some(vec!["a".to_owned(), "b".to_owned(), String::new()]));
    assert_eq!(set("^prod-(eu|us)-[12]$").map(|s| s.len()), Some(4));
    assert_eq!(set("(?i)ab").map(|s| s.len()), Some(4));
    assert_eq!(set("a.*"), None);
    let prefix = |pattern: &str| Regexp::anchored(pattern).unwrap().prefix().map(str::to_owned);
    assert_eq!(prefix("foo.*"), Some("foo".to_owned()));
    assert_eq!(prefix("^foo[0-9]+$"), Some("foo".to_owned()));
    assert_eq!(prefix("foobar.*|fool.+"), Some("foo".to_owned()));
    assert_eq!(prefix("foo?"), Some("fo".to_owned()));
    assert_eq!(prefix("(?i)foo.*"), None);
    assert_eq!(Regexp::unanchored("foo.*").unwrap().prefix(), None);
}

#[test]
fn the_usual_expressions_need_no_automaton() {
    // Not the remembered ones, which other tests use as well.
    for pattern in ["", ".*", ".+", "foo", "foo.*", ".*foo.*", ".+foo", "a|b|c", "(a|b).*", "^foo.*$", ".*a.*|.*b.*"] {
        let re = Regexp::compile_anchored(pattern).unwrap();
        assert!(re.shared.fast.is_some(), "{pattern}");
        assert_eq!(re.is_match("-"), pattern == ".*" || pattern == ".+", "{pattern}");
        assert!(re.shared.program.get().is_none(), "{pattern}");
    }
}

#[test]
fn ten_thousand_alternatives_are_looked_up() {
    let hosts = |dot: &str| (0..10_000).map(|i| format!("host-{i}{dot}example")).collect::<Vec<_>>().join("|");
    let exact = Regexp::compile_anchored(&hosts("\\.")).unwrap();
    assert!(exact.is_match("host-9999.example") && !exact.is_match("host-10000.example"));
    assert!(exact.shared.program.get().is_none());
    // A careless dot makes it an automaton, which still fits.
    let careless = Regexp::compile_anchored(&hosts(".")).unwrap();
    assert!(careless.is_match("host-9999-example") && !careless.is_match("host-9999--example"));
}

#[test]
fn groups_and_replacement() {
    let re = Regexp::wrapped("(.*):(?P<port>[0-9]+)").unwrap();
    assert_eq!(re.expand_match("host:80", "$1 ${port} $0 $$"), Some("host 80 host:80 $".to_owned()));
    assert_eq!(re.expand_match("host", "$1"), None);
    let whole = Regexp::wrapped("(.*)").unwrap();
    assert_eq!(whole.expand_match("a\nb", "<$1>"), Some("<a\nb>".to_owned()));
    assert!(whole.shared.program.get().is_none());
    let twice = Regexp::unanchored("(?P<n>a)|(?P<n>b)").unwrap();
    assert_eq!(twice.replace_all("xaybz", "<$n>"), "x<a>y<b>z");
    assert_eq!(Regexp::unanchored("a*").unwrap().replace_all("baaac", "x"), "xbxcx");
    assert_eq!(Regexp::wrapped("a|b").unwrap().replace_all("a", "$0$0"), "aa");
}

#[test]
fn invalid_bytes_count_as_one_character_each() {
    let re = Regexp::anchored("a..b").unwrap();
    assert!(re.is_match_bytes(b"a\xe2\x82b") && !re.is_match_bytes(b"a\xffb"));
    assert!(Regexp::anchored("[^a]").unwrap().is_match_bytes(b"\xff"));
}

#[test]
fn deep_and_large_patterns_are_refused() {
    fails(&format!("{}a{}", "(".repeat(300), ")".repeat(300)), &{
        format!("expression nests too deeply: `{}a{}`", "(".repeat(300), ")".repeat(300))
    });
    assert!(Regexp::unanchored(&format!("{}a{}", "(".repeat(249), ")*".repeat(249))).is_ok());
    assert!(Regexp::unanchored(r"((\pL\PL){10}){100}").is_err());
}

proptest! {
    #[test]
    fn never_panics(pattern in "[a-c.*+?|()\\[\\]{}^$\\\\0-9,:<>PQEpdwisU-]{0,24}", text in "[a-c\\n0]{0,8}") {
        if let Ok(re) = Regexp::unanchored(&pattern) {
            re.is_match(&text);
            re.replace_all(&text, "$1");
        }
        let _ = Regexp::wrapped(&pattern);
    }

    /// What the fast paths say is what the automaton says.
    #[test]
    fn fast_paths_agree_with_the_automaton(
        parts in prop::collection::vec(prop::sample::select(vec![
            "a", "b", "ab", ".*", ".+", "|", "[ab]", "(a|b)", "a?", "^", "$", "(", ")", "c{2}",
        ]), 0..6),
        texts in prop::collection::vec("[abcé]{0,6}", 8),
    ) {
        if let Ok(re) = Regexp::anchored(&parts.concat()) {
            for text in &texts {
                let program = re.shared.program().unwrap();
                prop_assert_eq!(re.is_match(text), program.is_match(text), "{:?} {:?}", re, text);
                prop_assert_eq!(re.captures(text).is_some(), program.is_match(text));
                if let Some(prefix) = re.prefix() {
                    prop_assert!(!program.is_match(text) || text.starts_with(prefix));
                }
            }
        }
    }

    /// The same over nested expressions: classes, case folding, counted repetitions, anchors inside.
    #[test]
    fn nested_expressions_agree_with_the_automaton(
        pattern in expression(),
        texts in prop::collection::vec("[abAé1.\n]{0,6}", 8),
    ) {
        let Ok(re) = Regexp::anchored(&pattern) else { return Ok(()) };
        let program = re.shared.program().unwrap();
        let wrapped = Regexp::wrapped(&pattern).unwrap();
        for text in &texts {
            let expected = program.is_match(text);
            prop_assert_eq!(re.is_match(text), expected, "{} {:?}", pattern, text);
            prop_assert_eq!(wrapped.is_match(text), expected, "{} {:?}", pattern, text);
            prop_assert_eq!(re.is_match_bytes(text.as_bytes()), expected);
            if let Some(set) = re.set_matches() {
                prop_assert_eq!(set.contains(text), expected, "{} {:?}", pattern, text);
            }
            if let Some(prefix) = re.prefix() {
                prop_assert!(!expected || text.starts_with(prefix), "{} {:?} {}", pattern, text, prefix);
            }
        }
        for text in re.set_matches().unwrap_or_default() {
            prop_assert!(program.is_match(text), "{} {:?}", pattern, text);
        }
    }

    /// Lists are their members, few that are compared one by one and many that are looked up.
    #[test]
    fn lists_are_their_members(
        members in prop::collection::vec("[a-c]{0,4}", 1..40),
        others in prop::collection::vec("[a-c]{0,4}", 8),
        around in prop::sample::select(vec![("", ""), (".*", ""), ("", ".*"), (".+", ".*"), ("x-", "")]),
    ) {
        let (before, behind) = around;
        let re = Regexp::anchored(&format!("{before}(?:{}){behind}", members.join("|"))).unwrap();
        let program = re.shared.program().unwrap();
        for text in members.iter().chain(&others) {
            for text in [text.clone(), format!("x-{text}"), format!("{text}b")] {
                prop_assert_eq!(re.is_match(&text), program.is_match(&text), "{:?} {:?}", re, text);
            }
        }
        if around == ("", "") {
            let mut distinct: Vec<&String> = Vec::new();
            for member in &members {
                if !distinct.contains(&member) {
                    distinct.push(member);
                }
            }
            prop_assert_eq!(re.set_matches().unwrap().iter().collect::<Vec<_>>(), distinct);
        }
    }

    /// Each byte that is no text counts as one character, whichever path is taken.
    #[test]
    fn bytes_agree_with_their_replacement(raw in prop::collection::vec(any::<u8>(), 0..6), pattern in expression()) {
        let Ok(re) = Regexp::anchored(&pattern) else { return Ok(()) };
        let text = replace_invalid(&raw);
        prop_assert_eq!(re.is_match_bytes(&raw), re.shared.program().unwrap().is_match(text.as_bytes()));
    }
}

/// Patterns that are mostly sound.
fn expression() -> impl Strategy<Value = String> {
    let leaf = prop::sample::select(vec![
        "a", "b", "ab", "é", "1", "", ".", ".*", ".+", "[ab]", "[^a]", r"\d", r"\w", r"\.", "(?i:a)", "(?i:ab)", "^",
        "$", r"\b", "(?-s:.)", "(?U)a*",
    ]);
    leaf.prop_map(str::to_owned).prop_recursive(4, 24, 5, |inner| {
        let repeat = prop::sample::select(vec!["*", "+", "?", "{2}", "{0,3}", "{1,}", "*?"]);
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(|parts| parts.concat()),
            prop::collection::vec(inner.clone(), 1..12).prop_map(|parts| format!("(?:{})", parts.join("|"))),
            inner.clone().prop_map(|part| format!("({part})")),
            (inner, repeat).prop_map(|(part, repeat)| format!("(?:{part}){repeat}")),
        ]
    })
}
