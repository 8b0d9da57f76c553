//! Patterns match what they match in Redis, in bounded time.

use proptest::prelude::*;
use scatterhoard_command::Glob;

#[test]
fn patterns_match_as_in_redis() {
    let recorded = include_str!("redis-7.0.15-globs.txt");
    for line in recorded.lines().filter(|line| !line.starts_with('#')) {
        let [pattern, text, matches] = line.split(' ').collect::<Vec<_>>()[..] else {
            panic!("{line} has three words")
        };
        let text = if text == "\"\"" { "" } else { text };
        let matched = Glob::new(pattern.as_bytes()).matches(text.as_bytes());
        assert_eq!(matched, matches == "yes", "{line}");
    }
}

#[test]
fn what_patterns_are_for() {
    let check = |pattern: &str, text: &str, expected: bool| {
        let glob = Glob::new(pattern.as_bytes());
        assert_eq!(glob.matches(text.as_bytes()), expected, "{pattern} on {text}");
    };
    check("user:*:name", "user:17:name", true);
    check("user:*:name", "user:17:names", false);
    check("h?llo", "hello", true);
    check("h[ae]llo", "hillo", false);
    check("h[^e]llo", "hallo", true);
    check("h[a-b]llo", "hbllo", true);
    check("h[b-a]llo", "hbllo", true);
    check("\\*", "*", true);
    check("\\*", "a", false);
    check("", "", true);
    check("", "a", false);
    check("*", "", true);
}

#[test]
fn case_matters_unless_told() {
    let glob = Glob::new(b"Max[M-P]*");
    assert!(!glob.matches(b"maxmemory"));
    assert!(glob.matches_ignoring_case(b"maxmemory"));
    assert!(glob.matches_ignoring_case(b"MAXPOLICY"));
    assert!(!glob.matches_ignoring_case(b"maxagents"));
}

#[test]
fn only_stars_match_everything() {
    assert!(Glob::new(b"*").is_everything() && Glob::new(b"***").is_everything());
    assert!(!Glob::new(b"").is_everything() && !Glob::new(b"*a").is_everything());
}

#[test]
fn many_stars_do_not_take_for_ever() {
    // Redis's own matcher would take more than 10^30 steps for this.
    let pattern = b"a*".repeat(50);
    let text = b"a".repeat(20_000);
    assert!(!Glob::new(&[&pattern[..], b"b"].concat()).matches(&text));
    assert!(Glob::new(&pattern).matches(&text));
}

/// What a pattern without classes means, as it would be explained.
fn explained(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern, text) {
        ([], _) => text.is_empty(),
        ([b'*', rest @ ..], _) => (0..=text.len()).any(|taken| explained(rest, &text[taken..])),
        ([b'\\', literal, rest @ ..], [byte, after @ ..]) => {
            literal == byte && explained(rest, after)
        }
        ([b'?', rest @ ..], [_, after @ ..]) => explained(rest, after),
        ([literal, rest @ ..], [byte, after @ ..]) => literal == byte && explained(rest, after),
        (_, []) => false,
    }
}

proptest! {
    #[test]
    fn stars_mean_what_they_should(pattern in "[ab*?\\\\]{0,8}", text in "[ab*]{0,8}") {
        let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
        prop_assert_eq!(Glob::new(pattern).matches(text), explained(pattern, text));
    }

    #[test]
    fn nothing_panics(pattern: Vec<u8>, text: Vec<u8>) {
        let glob = Glob::new(&pattern);
        if glob.matches(&text) {
            prop_assert!(glob.matches_ignoring_case(&text) || pattern.contains(&b'^'));
        }
    }
}
