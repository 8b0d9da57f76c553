//! Conditions of `EXPIRE` do to a key what they do in Redis.

use scatterhoard_command::{Command, parse};
use scatterhoard_resp::Args;
use scatterhoard_ring::{Slot, SlotRange};
use scatterhoard_store::{
    DeadlineForm, Read, Reply, Step, Store, UnixMillis, encode_header, encode_step,
};

const NOW: UnixMillis = UnixMillis::new(1_700_000_000_000);

#[test]
fn every_combination_of_conditions_does_what_it_does_in_redis() {
    let recorded = include_str!("redis-7.0.15-expire.txt");
    let mut count = 0;
    for line in recorded.lines().filter(|line| !line.starts_with('#')) {
        let (asked, came) = line.split_once(" => ").expect("a case has two sides");
        let (before, request) = asked.split_once(' ').expect("a state and a request");
        let (reply, after) = came.split_once(' ').expect("a reply and a state");
        let mut keyspace = Keyspace::new();
        if before != "missing" {
            assert_eq!(keyspace.write("set k v"), Reply::Ok, "{line}");
        }
        if let Ok(deadline) = before.parse::<u64>() {
            assert_eq!(keyspace.write(&format!("pexpireat k {deadline}")), Reply::Int(1), "{line}");
        }
        let number = |word: &str| Reply::Int(word.parse().expect("a number was recorded"));
        assert_eq!(keyspace.write(request), number(reply), "{line}");
        assert_eq!(keyspace.deadline(), number(after), "{line}");
        count += 1;
    }
    assert_eq!(count, 3 * 4 * 7, "the record is whole");
}

/// A store that is told commands.
struct Keyspace {
    store: Store,
    index: u64,
}

impl Keyspace {
    fn new() -> Self {
        Self { store: Store::new(SlotRange::ALL, 42, 1 << 20), index: 0 }
    }

    fn write(&mut self, request: &str) -> Reply<'static> {
        let words: Vec<Vec<u8>> = request.split(' ').map(|word| word.into()).collect();
        let write = match parse(Args::from(&words[..]), NOW) {
            Ok(Command::Write(write)) => write,
            other => panic!("{request} means {other:?}"),
        };
        let mut entry = Vec::new();
        encode_header(&mut entry, NOW);
        encode_step(&mut entry, &Step { slot: Slot::of(b"k"), write });
        self.index += 1;
        let mut replies = Vec::new();
        self.store.apply(self.index, &entry, Some(&mut replies)).expect("we wrote it");
        replies.remove(0)
    }

    fn deadline(&self) -> Reply<'static> {
        let read = Read::Deadline { key: b"k", form: DeadlineForm::AtMilli };
        self.store.read(Slot::of(b"k"), &read, NOW).into_owned()
    }
}
