//! What `HOARD.…` and `BF.…` mean, what they refuse, and how their answers look.

use scatterhoard_command::{
    Command, CommandError, Invalidate, Load, SessionCommand, Span, encode_reply, keys_of_write,
    parse,
};
use scatterhoard_resp::{Args, Encoder, Protocol};
use scatterhoard_store::{
    Content, Expiry, FilterField, FilterForm, FilterLayout, Read, Reply, SetAnswer, Terms, Token,
    UnixMillis, Wants, When, Write,
};

const NOW: UnixMillis = UnixMillis::new(1_700_000_000_000);

#[track_caller]
fn check(request: &str, meaning: Command<'_>) {
    let words = words(request);
    assert_eq!(parse(Args::from(&words), NOW), Ok(meaning), "{request}");
}

#[track_caller]
fn refused(request: &str, text: &str) {
    let words = words(request);
    let error = parse(Args::from(&words), NOW).map_err(|error: CommandError| error.to_string());
    assert_eq!(error, Err(text.to_owned()), "{request}");
}

fn words(request: &str) -> Vec<&[u8]> {
    request.split(' ').map(|word| if word == "\"\"" { b"" } else { word.as_bytes() }).collect()
}

fn terms(expiry: Expiry, soft_millis: Option<u64>, tags: Vec<&[u8]>) -> Terms<'_> {
    Terms { expiry, soft_millis, tags }
}

const PLAIN: Terms<'static> = Terms { expiry: Expiry::Clear, soft_millis: None, tags: Vec::new() };

#[test]
fn a_lookup_is_a_read_and_with_a_lease_it_has_two_halves() {
    let key = &b"k"[..];
    check("hoard.get k", Command::Read(Read::Lookup { key, wants: Wants::Look }));
    let load = Load::Get { key, lease_ms: 600_000, wants: Wants::LeaseOrStale };
    check("HOARD.GET k lease 600000 stale", Command::Load(load));
    assert_eq!(load.read(), Read::Lookup { key, wants: Wants::LeaseOrStale });
    let (token, wants) = (Token(7), Wants::LeaseOrStale);
    let lease = Write::Lease { key, token, millis: 600_000, wants };
    assert_eq!(load.propose(token), Some(lease));
    let load = Load::Get { key, lease_ms: 1, wants: Wants::Lease };
    check("HOARD.GET k LEASE 1", Command::Load(load));
    let wait = Load::Wait { key, timeout_ms: 1 };
    check("HOARD.WAIT k 1", Command::Load(wait));
    check("HOARD.WAIT k 0", Command::Read(wait.read()));
    assert_eq!(wait.propose(token), None);
    assert_eq!(wait.read(), Read::Lookup { key, wants: Wants::Wait });
    let range = "ERR lease is out of range, it must be between 1 and 600000 milliseconds";
    refused("HOARD.GET k LEASE 0", range);
    refused("HOARD.GET k LEASE 600001", range);
    refused("HOARD.GET k LEASE -1", range);
    refused("HOARD.GET k LEASE x", "ERR value is not an integer or out of range");
    for request in [
        "HOARD.GET k LEASE",
        "HOARD.GET k STALE",
        "HOARD.GET k LEASE 1 x",
        "HOARD.GET k LEASE 1 STALE x",
    ] {
        refused(request, "ERR syntax error");
    }
    refused("HOARD.WAIT k -1", "ERR timeout is negative");
    refused("HOARD.WAIT k x", "ERR timeout is not an integer or out of range");
}

#[test]
fn what_is_set_and_filled() {
    let (key, token, when) = (&b"k"[..], Token(u64::MAX), When::Always);
    let content = Content::Value(b"v");
    let full = || terms(Expiry::After(9), Some(3), vec![b"t", b"NX"]);
    check(
        "HOARD.FILL k 18446744073709551615 v PX 9 SOFT 3 TAGS 2 t NX",
        Command::Write(Write::Fill { key, token, content, terms: full() }),
    );
    let set = |content, terms, when| {
        Command::Write(Write::SetWith { key, content, terms, when, answer: SetAnswer::Done })
    };
    check("HOARD.SET k v TAGS 2 t NX PX 9 SOFT 3 XX", set(content, full(), When::Present));
    check("HOARD.SET k v nx", set(content, PLAIN, When::Absent));
    check("HOARD.SET k v ifeq u", set(content, PLAIN, When::Equal(b"u")));
    let (terms_of_all, answer) = (full(), SetAnswer::Version);
    let when_equal = When::Equal(b"VERSION");
    let fenced = Write::SetWith { key, content, terms: terms_of_all, when: when_equal, answer };
    check("HOARD.SET k v IFEQ VERSION PX 9 SOFT 3 VERSION TAGS 2 t NX", Command::Write(fenced));
    let soon = terms(Expiry::After(5), None, vec![]);
    check("HOARD.SET k \"\" NEGATIVE PX 5", set(Content::Negative, soon, when));
    check("HOARD.SET k NEGATIVE", set(Content::Value(b"NEGATIVE"), PLAIN, when));
    check("HOARD.SET k \"\"", set(Content::Value(b""), PLAIN, when));
    check("HOARD.RELEASE k 0", Command::Write(Write::Release { key, token: Token(0) }));
    for token in ["-1", "+1", "x", "18446744073709551616", "\"\""] {
        refused(&format!("HOARD.RELEASE k {token}"), "ERR invalid token");
    }
    for request in [
        "HOARD.SET k v NEGATIVE",
        "HOARD.SET k \"\" NEGATIVE SOFT 5",
        "HOARD.SET k v NX XX",
        "HOARD.SET k v IFEQ u NX",
        "HOARD.SET k v XX IFEQ u",
        "HOARD.SET k v IFEQ",
        "HOARD.FILL k 1 v IFEQ u",
        "HOARD.FILL k 1 v VERSION",
        "SET k v NX IFEQ u",
        "SET k v IFEQ u XX",
        "SET k v IFEQ u IFEQ u",
        "SET k v IFEQ",
        "HOARD.SET k v TAGS 2 t",
        "HOARD.SET k v TAGS 1 t TAGS 1 u",
        "HOARD.SET k v PX",
        "HOARD.SET k v EX 5",
        "HOARD.FILL k 1 v NX",
        "HOARD.INVALIDATE KEY k",
        "HOARD.INVALIDATE PREFIX a b",
    ] {
        refused(request, "ERR syntax error");
    }
    refused("HOARD.SET k v PX 0", "ERR invalid expire time in 'hoard.set' command");
    refused("HOARD.FILL k 1 v SOFT 0", "ERR invalid expire time in 'hoard.fill' command");
    let count = "ERR number of tags is out of range, it must be between 1 and 32";
    refused("HOARD.SET k v TAGS 0", count);
    refused("HOARD.SET k v TAGS 33 t", count);
}

#[test]
fn what_concerns_more_than_one_key() {
    let tags = Invalidate::Tags { tags: vec![b"a", b"b"] };
    check("HOARD.INVALIDATE tag a b", Command::Span(Span::Invalidate(tags)));
    let prefix = Invalidate::Prefix { prefix: b"user:" };
    check("HOARD.INVALIDATE PREFIX user:", Command::Span(Span::Invalidate(prefix)));
    check("HOARD.PROBE", Command::Session(SessionCommand::Probe));
    refused("HOARD.PROBE 0", "ERR wrong number of arguments for 'hoard.probe' command");
}

#[test]
fn filters_are_reserved_as_in_redis_8() {
    let reserve = |request: &str, capacity, error_bits, expansion| {
        let layout = FilterLayout { capacity, error_bits, expansion };
        check(request, Command::Write(Write::ReserveFilter { key: b"f", layout }));
    };
    reserve("BF.RESERVE f 0.01 1000", 1000, 7, 2);
    reserve("bf.reserve f 0.5 1 expansion 4", 1, 1, 4);
    reserve("BF.RESERVE f 0.001 1073741824 NONSCALING", 1 << 30, 10, 0);
    reserve("BF.RESERVE f 1e-12 5 EXPANSION 0 NONSCALING", 5, 40, 0);
    reserve("BF.RESERVE f 0.99 5 EXPANSION 32768", 5, 1, 32_768);
    for (rest, text) in [
        ("x 1", "ERR bad error rate"),
        ("0 1", "ERR error rate must be in the range (0.000000, 1.000000)"),
        ("1 1", "ERR error rate must be in the range (0.000000, 1.000000)"),
        ("inf 1", "ERR error rate must be in the range (0.000000, 1.000000)"),
        ("1e-13 1", "ERR error rate is too small, the least is 1e-12"),
        ("0.1 x", "ERR bad capacity"),
        ("0.1 0", "ERR capacity must be in the range [1, 1073741824]"),
        ("0.1 1073741825", "ERR capacity must be in the range [1, 1073741824]"),
        ("0.1 1 EXPANSION", "ERR no expansion"),
        ("0.1 1 EXPANSION x", "ERR bad expansion"),
        ("0.1 1 EXPANSION -1", "ERR expansion must be in the range [0, 32768]"),
        ("0.1 1 NONSCALING EXPANSION 2", "Nonscaling filters cannot expand"),
        ("0.1 1 WHATEVER", "ERR syntax error"),
        ("0.1", "ERR wrong number of arguments for 'bf.reserve' command"),
        ("0.1 1 2 3 4 5", "ERR wrong number of arguments for 'bf.reserve' command"),
    ] {
        refused(&format!("BF.RESERVE f {rest}"), text);
    }
}

#[test]
fn items_and_what_is_told_of_a_filter() {
    let key = &b"f"[..];
    let (one, many) = (FilterForm::One, FilterForm::Many);
    let items = || vec![&b"a"[..], b"b"];
    let madd = Write::AddToFilter { key, items: items(), form: many };
    assert_eq!(keys_of_write(&madd).collect::<Vec<_>>(), [key]);
    check("BF.MADD f a b", Command::Write(madd));
    check("BF.ADD f a", Command::Write(Write::AddToFilter { key, items: vec![b"a"], form: one }));
    check("BF.EXISTS f a", Command::Read(Read::InFilter { key, items: vec![b"a"], form: one }));
    check("BF.MEXISTS f a b", Command::Read(Read::InFilter { key, items: items(), form: many }));
    check("BF.INFO f", Command::Read(Read::FilterInfo { key, field: None }));
    let field = Some(FilterField::Items);
    check("BF.INFO f items", Command::Read(Read::FilterInfo { key, field }));
    refused("BF.INFO f bogus", "Invalid information value");
    refused("BF.INFO f a b", "ERR wrong number of arguments for 'bf.info' command");
    refused("BF.ADD f a b", "ERR wrong number of arguments for 'bf.add' command");
}

#[test]
fn answers_in_both_protocols() {
    let written = |reply: &Reply<'_>, protocol| {
        let mut out = Vec::new();
        encode_reply(&mut Encoder::new(&mut out, protocol), reply);
        String::from_utf8(out).expect("the answers here are text").replace("\r\n", " ")
    };
    for (reply, resp2, resp3) in [
        (Reply::Bool(true), ":1 ", "#t "),
        (Reply::Tuple(vec![Reply::Bool(false), Reply::Nil]), "*2 :0 $-1 ", "*2 #f _ "),
        (Reply::Map(vec![("Size", Reply::Int(3))]), "*2 +Size :3 ", "%1 +Size :3 "),
    ] {
        assert_eq!(written(&reply, Protocol::Resp2), resp2);
        assert_eq!(written(&reply, Protocol::Resp3), resp3);
    }
}
