//! Requests that mean nothing get the text that Redis has for them.

use scatterhoard_command::{Command, encode_error};
use scatterhoard_command::{CommandError, CommandQuery, ServerCommand, parse, write_query};
use scatterhoard_resp::{Args, Encoder, Protocol};
use scatterhoard_store::UnixMillis;

const NOW: UnixMillis = UnixMillis::new(1_700_000_000_000);

#[test]
fn the_texts_are_those_of_redis() {
    let recorded = include_str!("redis-7.0.15-errors.txt");
    let cases = recorded.lines().filter(|line| !line.starts_with('#'));
    let mut count = 0;
    for case in cases {
        let (request, text) = case.split_once(" => ").expect("a case has two sides");
        let words: Vec<Vec<u8>> = request.split(' ').map(word).collect();
        assert_eq!(refusal(&words), spaced(text), "{request}");
        count += 1;
    }
    assert!(count > 250, "the record is there");
}

#[test]
fn what_does_not_fit_here_names_the_way() {
    for request in
        ["cluster addslots 1", "CLUSTER SETSLOT 1 NODE x", "cluster replicate x", "cluster reset"]
    {
        check(
            request,
            "ERR Scatterhoard places slots by itself; use `hoard node --join` and `hoard drain`",
        );
    }
    check(
        "cluster slot-stats",
        "ERR CLUSTER SLOT-STATS is not supported; use CLUSTER COUNTKEYSINSLOT",
    );
    check(
        "config set a b a c",
        "ERR CONFIG SET failed (possibly related to argument 'a') - duplicate parameter",
    );
}

#[test]
fn texts_of_later_versions() {
    check("client setinfo lib-foo x", "ERR Unrecognized option 'lib-foo'");
    check(
        "client setinfo lib-name a␠b",
        "ERR lib-name cannot contain spaces, newlines or special characters.",
    );
    check(
        "client setinfo lib-ver a␤b",
        "ERR lib-ver cannot contain spaces, newlines or special characters.",
    );
    check("client setinfo lib-name", "ERR wrong number of arguments for 'client|setinfo' command");
    check("client no-touch maybe", "ERR syntax error");
    check("expire k 1 a␍␤", "ERR Unsupported option a");
    check("debug reload", "ERR unknown subcommand 'reload'. Try DEBUG HELP.");
}

#[test]
fn an_error_repeats_little_of_a_long_request() {
    let long = "x".repeat(1_000);
    let text = format!("ERR unknown command '{}', with args beginning with: 'b'␠", "x".repeat(128));
    check(&format!("{long} b"), &text);

    // Recorded from redis-server 7.0.15.
    let text = format!(
        "ERR unknown command 'foo', with args beginning with: '{}' '{}'␠",
        "a".repeat(60),
        "b".repeat(65)
    );
    check(&format!("foo {} {} c", "a".repeat(60), "b".repeat(70)), &text);
}

#[test]
fn an_error_is_one_line_whatever_the_client_sent() {
    let words = [b"a\r\n+OK\r\n\xff".to_vec()];
    let error = parse(Args::from(&words[..]), NOW).expect_err("there is no such command");
    let mut out = Vec::new();
    encode_error(&mut Encoder::new(&mut out, Protocol::Resp2), &error);
    let text = String::from_utf8(out).expect("what is not UTF-8 was replaced");
    assert_eq!(text, "-ERR unknown command 'a  +OK  \u{fffd}', with args beginning with: \r\n");
}

#[test]
fn errors_that_the_caller_gives() {
    assert_eq!(CommandError::unknown_node(b"abc").to_string(), "ERR Unknown node abc");
    assert_eq!(CommandError::no_such_user(b"foo").to_string(), "ERR No such user 'foo'");
    assert_eq!(CommandError::NoSuchClient.to_string(), "ERR No such client");
    assert_eq!(
        CommandError::SelectInCluster.to_string(),
        "ERR SELECT is not allowed in cluster mode"
    );
}

/// `request` in the spelling of the record, and `text` so too.
fn check(request: &str, text: &str) {
    let words: Vec<Vec<u8>> = request.split(' ').map(word).collect();
    assert_eq!(refusal(&words), spaced(text), "{request}");
}

/// The error, be it of the grammar or in the answer to `COMMAND GETKEYS`.
fn refusal(words: &[Vec<u8>]) -> String {
    let mut out = Vec::new();
    let mut encoder = Encoder::new(&mut out, Protocol::Resp2);
    match parse(Args::from(words), NOW) {
        Err(error) => encode_error(&mut encoder, &error),
        Ok(Command::Server(ServerCommand::Command(query @ CommandQuery::GetKeys { .. }))) => {
            write_query(&mut encoder, &query);
        }
        Ok(command) => panic!("{words:?} means {command:?}"),
    }
    let text = String::from_utf8(out).expect("errors are text");
    text.trim_start_matches('-').trim_end_matches("\r\n").to_owned()
}

fn word(spelled: &str) -> Vec<u8> {
    let spelled = if spelled == "\"\"" { "" } else { spelled };
    spaced(spelled).replace('␤', "\n").replace('␍', "\r").into_bytes()
}

fn spaced(spelled: &str) -> String {
    spelled.replace('␠', " ")
}
