//! No request, however odd, makes the grammar panic; and what it lets through can be written.

use proptest::prelude::*;
use scatterhoard_command::{
    Command, CommandSpec, ServerCommand, commands, encode_error, keys_of_read, parse, split_read,
    split_write, write_help, write_query,
};
use scatterhoard_resp::{Args, Encoder, Protocol};
use scatterhoard_store::UnixMillis;

/// A command with about as many arguments as it takes, or something else.
fn request() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let specs: Vec<&'static CommandSpec> =
        commands().flat_map(|spec| std::iter::once(spec).chain(spec.subcommands)).collect();
    let words = || prop::collection::vec(word(), 12);
    let known =
        (prop::sample::select(specs), words(), 0..5_usize).prop_map(|(spec, rest, more)| {
            let mut words: Vec<_> =
                spec.name.split('|').map(|word| word.as_bytes().to_vec()).collect();
            // With an exact number of arguments, one too many now and then.
            let more = if spec.arity > 0 { more.saturating_sub(3) } else { more };
            let count = usize::from(spec.arity.unsigned_abs()) + more;
            words.extend(rest);
            words.truncate(count);
            words
        });
    prop_oneof![9 => known, 1 => prop::collection::vec(word(), 0..5)]
}

/// What some grammar gives a meaning to, and numbers at the edges.
const KNOWN: &[&str] = &[
    "",
    "NX",
    "XX",
    "GT",
    "LT",
    "GET",
    "EX",
    "PX",
    "EXAT",
    "PXAT",
    "KEEPTTL",
    "PERSIST",
    "DB",
    "REPLACE",
    "MATCH",
    "COUNT",
    "TYPE",
    "string",
    "LEASE",
    "STALE",
    "NEGATIVE",
    "SOFT",
    "TAGS",
    "TAG",
    "PREFIX",
    "EXPANSION",
    "NONSCALING",
    "0.01",
    "ASYNC",
    "SYNC",
    "AUTH",
    "SETNAME",
    "ID",
    "ADDR",
    "SKIPME",
    "yes",
    "no",
    "on",
    "off",
    "skip",
    "normal",
    "FILTERBY",
    "ACLCAT",
    "PATTERN",
    "FORCE",
    "SAMPLES",
    "LIB-NAME",
    "get",
    "mset",
    "0",
    "-0",
    "1",
    "-1",
    "2",
    "3",
    "16383",
    "65535",
    "4294967296",
    "9223372036854775807",
    "-9223372036854775808",
    "9223372036854775808",
    "1e400",
    "nan",
    "inf",
    "*[",
    "[^-]",
    "\\",
];

fn word() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => prop::sample::select(KNOWN).prop_map(|word| word.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..20),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn no_request_panics(
        words in request(),
        now in prop_oneof![Just(0), Just(1_700_000_000_000), any::<u64>()],
    ) {
        let mut out = Vec::new();
        let mut encoder = Encoder::new(&mut out, Protocol::Resp3);
        match parse(Args::from(&words), UnixMillis::new(now)) {
            Ok(Command::Read(read)) => drop(split_read(read)),
            Ok(Command::Write(write)) => drop(split_write(write)),
            Ok(Command::Server(ServerCommand::Command(query))) => write_query(&mut encoder, &query),
            Ok(Command::Server(ServerCommand::Help(topic))) => write_help(&mut encoder, topic),
            Ok(Command::Load(load)) => {
                prop_assert_eq!(keys_of_read(&load.read()).next(), Some(load.key()));
            }
            Ok(Command::Server(_) | Command::Session(_) | Command::Span(_)) => {}
            Err(error) => {
                encode_error(&mut encoder, &error);
                let lines = out.iter().filter(|&&byte| matches!(byte, b'\r' | b'\n')).count();
                prop_assert_eq!(lines, 2, "an error is one line");
            }
        }
    }
}
