//! What must hold of any commands, however odd, on their way through the grammar, the log, the store and
//! back to the wire. For tests and fuzzers only.

use std::collections::BTreeSet;

use scatterhoard_resp::{
    Args, Decoded, Decoder, Encoder, Limits, Protocol, ReplyLimits, Standing, Value,
};
use scatterhoard_ring::{Slot, SlotRange};
use scatterhoard_store::{
    Cursor, DeadlineForm, Entry, Logged, Policy, Read, Reply, Step, Store, Token, UnixMillis,
    Wants, Write, encode_flush, encode_header, encode_invalidate_prefix, encode_invalidate_tag,
    encode_step,
};

use crate::{
    Command, CommandError, CrossSlot, Glob, Invalidate, Load, ServerCommand, Span, Split,
    encode_error, encode_reply, keys_of_read, keys_of_write, parse, resolve, split_read,
    split_write, write_help, write_query,
};

const SEED: u64 = 42;
const VALUE_BYTES_MAX: usize = 100_000;
/// Few, so that most keys share one, and snapshots are short.
const SLOTS: u16 = 4;
const START: UnixMillis = UnixMillis::new(1_700_000_000_000);

const LIMITS: Limits = Limits {
    bulk_bytes_max: VALUE_BYTES_MAX,
    args_count_max: 1024,
    inline_bytes_max: 4096,
    request_bytes_max: 1 << 20,
    standing: Standing::Authenticated,
};

/// Commands as a client sends them, given to a leader. Besides, an inline `@N` lets N milliseconds pass.
///
/// Nothing panics. Every answer is one well-formed reply in either protocol. What was refused changed
/// nothing. After each write the memory accounts say what a recount says. A follower with the same log, one
/// that begins from a snapshot taken while writes went on, and the leader agree on every value.
pub fn commands(input: &[u8]) {
    let mut decoder = Decoder::new(LIMITS);
    let mut partition = Partition::new();
    let mut start = 0;
    while let Ok(Decoded::Request(request)) = decoder.decode(&input[start..]) {
        let bytes = request.bytes_consumed();
        match request.args()[0].strip_prefix(b"@") {
            Some(millis) => partition.wait(millis),
            None => partition.run(request.args()),
        }
        start += bytes;
    }
    partition.finish();
}

/// A leader and those who follow it.
struct Partition {
    leader: Store,
    /// Sweeps at other times than the leader.
    follower: Store,
    /// Is sent a snapshot, one piece before each write, from the fifth on.
    receiver: Option<Receiver>,
    log: Vec<Vec<u8>>,
    now: UnixMillis,
}

struct Receiver {
    store: Store,
    position: Option<u64>,
    /// Entries of the log before the snapshot.
    log_start: usize,
}

impl Partition {
    fn new() -> Self {
        let (leader, follower) = (store(), store());
        Self { leader, follower, receiver: None, log: Vec::new(), now: START }
    }

    fn wait(&mut self, millis: &[u8]) {
        let millis = str::from_utf8(millis).ok().and_then(|text| text.parse::<u32>().ok());
        self.now = self.now.plus(millis.unwrap_or(1).into());
        self.leader.sweep(usize::MAX);
    }

    fn run(&mut self, args: Args<'_>) {
        let known = resolve(args);
        match parse(args, self.now) {
            Ok(command) => {
                assert!(known.is_ok(), "what has a meaning has a name");
                self.execute(command);
            }
            Err(error) => refuse(&error),
        }
    }

    fn execute(&mut self, command: Command<'_>) {
        match command {
            Command::Read(read) => self.read(read),
            Command::Write(write) => self.write(write),
            Command::Load(load) => self.load(load),
            Command::Span(span) => self.span(&span),
            Command::Server(ServerCommand::Command(query)) => {
                one_reply(|encoder| write_query(encoder, &query));
            }
            Command::Server(ServerCommand::Help(topic)) => {
                one_reply(|encoder| write_help(encoder, topic));
            }
            Command::Server(_) | Command::Session(_) => {}
        }
    }

    fn read(&self, read: Read<'_>) {
        let keys: BTreeSet<_> = keys_of_read(&read).map(<[u8]>::to_vec).collect();
        let answer = |slot, read: &Read<'_>| {
            assert!(keys_of_read(read).all(|key| Slot::of(key) == slot && keys.contains(key)));
            self.leader.read(folded(slot), read, self.now).into_owned()
        };
        let reply = match split_read(read) {
            Split::Whole { slot, op } => answer(slot, &op),
            Split::Parts { parts, merge } => {
                merge.merge(parts.iter().map(|(slot, op)| answer(*slot, op)).collect())
            }
        };
        one_reply(|encoder| encode_reply(encoder, &reply));
    }

    fn write(&mut self, write: Write<'_>) {
        let keys: BTreeSet<_> = keys_of_write(&write).map(<[u8]>::to_vec).collect();
        let reply = match split_write(write) {
            Err(CrossSlot) => return,
            Ok(Split::Whole { slot, op }) => self.apply(slot, op),
            Ok(Split::Parts { parts, merge }) => {
                let apply = |(slot, op): (Slot, Write<'_>)| {
                    assert!(keys_of_write(&op).all(|key| keys.contains(key)));
                    self.apply(slot, op)
                };
                merge.merge(parts.into_iter().map(apply).collect())
            }
        };
        one_reply(|encoder| encode_reply(encoder, &reply));
    }

    /// Reads, and writes only where the read has no answer. Tokens are told by the length of the log.
    fn load(&mut self, load: Load<'_>) {
        let slot = folded(Slot::of(load.key()));
        let lookup = self.leader.lookup(slot, load.key(), self.now);
        let answer = lookup.answer(load.wants());
        let is_answered = answer.is_some();
        self.read(load.read());
        if let (false, Some(write)) = (is_answered, load.propose(Token(self.log.len() as u64))) {
            self.write(write);
        }
    }

    fn apply(&mut self, slot: Slot, write: Write<'_>) -> Reply<'static> {
        assert!(keys_of_write(&write).all(|key| Slot::of(key) == slot));
        let step = Step { slot: folded(slot), write };
        let mut entry = self.entry();
        encode_step(&mut entry, &step);
        let steps: Vec<_> = Entry::parse(&entry).expect("we wrote it").steps().collect();
        assert_eq!(steps, [Ok(Logged::Write(step))], "a step is read as it was written");
        self.log(entry)
    }

    fn log(&mut self, entry: Vec<u8>) -> Reply<'static> {
        self.send_piece();
        let before = contents(&self.leader, self.now);
        let index = self.log.len() as u64 + 1;
        let mut replies = Vec::new();
        self.leader.apply(index, &entry, Some(&mut replies)).expect("we wrote it");
        assert_eq!(self.leader.tally(), self.leader.recount(), "the leader's books");
        self.follower.apply(index, &entry, None).expect("we wrote it");
        self.follower.sweep(1);
        assert_eq!(self.follower.tally(), self.follower.recount(), "the follower's books");
        self.log.push(entry);
        let [reply] = <[_; 1]>::try_from(replies).expect("one step has one answer");
        if matches!(reply, Reply::Error(_)) {
            assert_eq!(contents(&self.leader, self.now), before, "what was refused: {reply:?}");
        }
        reply
    }

    fn entry(&self) -> Vec<u8> {
        let mut entry = Vec::new();
        encode_header(&mut entry, self.now);
        entry
    }

    fn span(&mut self, span: &Span<'_>) {
        match span {
            Span::Count => assert_eq!(self.leader.keys_count(), self.leader.recount().keys_count),
            Span::Keys { pattern } => self.keys(pattern, 1),
            Span::Scan(scan) => {
                let everything = Glob::new(b"*");
                let count = usize::try_from(scan.count).unwrap_or(usize::MAX);
                self.keys(scan.pattern.as_ref().unwrap_or(&everything), count);
            }
            Span::RandomKey => {
                let key = self.leader.random_key(self.now.millis(), self.now);
                let all = self.leader.keys(&|_| true, self.now, usize::MAX);
                assert!(key.is_none_or(|key| all.contains(&key)));
            }
            Span::Flush(_) => {
                let mut entry = self.entry();
                encode_flush(&mut entry, range());
                assert_eq!(self.log(entry), Reply::Ok);
                assert_eq!(self.leader.tally(), store().tally(), "nothing is left");
            }
            Span::Invalidate(Invalidate::Tags { tags }) => {
                for tag in tags {
                    let mut entry = self.entry();
                    encode_invalidate_tag(&mut entry, range(), tag);
                    assert_eq!(self.log(entry), Reply::Ok);
                }
            }
            Span::Invalidate(Invalidate::Prefix { prefix }) => {
                let mut entry = self.entry();
                encode_invalidate_prefix(&mut entry, range(), prefix);
                let begins = |key: &[u8]| key.starts_with(prefix);
                let there = self.leader.keys(&begins, self.now, usize::MAX).len();
                assert_eq!(self.log(entry), Reply::Int(there as i64));
                assert!(self.leader.keys(&begins, self.now, usize::MAX).is_empty());
            }
        }
    }

    /// A scan to its end finds what `KEYS` finds.
    fn keys(&self, pattern: &Glob<'_>, count: usize) {
        let matches = |key: &[u8]| pattern.matches(key);
        let all: BTreeSet<_> =
            self.leader.keys(&matches, self.now, usize::MAX).into_iter().collect();
        let (mut scanned, mut cursor) = (BTreeSet::new(), Cursor::START);
        loop {
            let page = self.leader.scan(cursor, count, &matches, self.now);
            scanned.extend(page.keys);
            cursor = page.next;
            if cursor == Cursor::START {
                break;
            }
        }
        assert_eq!(scanned, all);
    }

    fn send_piece(&mut self) {
        if self.log.len() == 4 {
            let log_start = self.log.len();
            self.receiver = Some(Receiver { store: store(), position: Some(0), log_start });
        }
        let Some(receiver) = &mut self.receiver else { return };
        if let Some(position) = receiver.position {
            let mut piece = Vec::new();
            receiver.position = self.leader.piece(position, &mut piece);
            receiver.store.install_piece(&piece).expect("we wrote it");
        }
    }

    fn finish(mut self) {
        self.evict();
        let expected = contents(&self.leader, self.now);
        assert_eq!(contents(&self.follower, self.now), expected, "the follower's values");
        while self.receiver.as_ref().is_some_and(|receiver| receiver.position.is_some()) {
            self.send_piece();
        }
        if let Some(Receiver { store: mut received, log_start, .. }) = self.receiver {
            for (index, entry) in self.log.iter().enumerate().skip(log_start) {
                received.apply(index as u64 + 1, entry, None).expect("we wrote it");
            }
            assert_eq!(contents(&received, self.now), expected, "the receiver's values");
            assert_eq!(received.tally(), received.recount(), "the receiver's books");
            assert_eq!(received.stamp(), self.leader.stamp());
        }
    }

    /// Evicts until nothing is left that may go.
    fn evict(&mut self) {
        let mut roll = self.log.len() as u64;
        let mut rolls = || {
            roll = roll.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            roll.rotate_left(32)
        };
        let bytes = self.leader.bytes() / 2;
        let victims = self.leader.victims(Policy::VolatileTtl, bytes, &mut rolls, self.now);
        for victim in victims {
            let mut entry = self.entry();
            let write = Write::Evict { keys: vec![&victim.key] };
            encode_step(&mut entry, &Step { slot: victim.slot, write });
            let entries = |store: &Store| store.tally().keys_count + store.tally().negatives_count;
            let held = entries(&self.leader);
            self.log(entry);
            assert_eq!(entries(&self.leader), held - 1, "a victim was there");
        }
    }
}

fn range() -> SlotRange {
    SlotRange::new(0, SLOTS).expect("there are so many slots")
}

fn store() -> Store {
    Store::new(range(), SEED, VALUE_BYTES_MAX)
}

/// One of the few slots that our stores have.
fn folded(slot: Slot) -> Slot {
    Slot::new(slot.number() % SLOTS).expect("there are so many slots")
}

fn refuse(error: &CommandError) {
    one_reply(|encoder| encode_error(encoder, error));
}

/// What is written is one whole reply, in either protocol.
fn one_reply(write: impl Fn(&mut Encoder<'_>)) {
    for protocol in [Protocol::Resp2, Protocol::Resp3] {
        let mut out = Vec::new();
        write(&mut Encoder::new(&mut out, protocol));
        let read = Value::decode(&out, ReplyLimits::DEFAULT).expect("a reply is well formed");
        assert_eq!(read.map(|(_, bytes)| bytes), Some(out.len()), "a reply is one reply");
    }
}

/// Every key that has not expired, with value, deadline and more, in order.
fn contents(store: &Store, now: UnixMillis) -> Vec<(Vec<u8>, [Reply<'static>; 5])> {
    let mut keys = store.keys(&|_| true, now, usize::MAX);
    keys.sort_unstable();
    let tell = |key: &[u8]| {
        let form = DeadlineForm::AtMilli;
        let reads = [
            Read::Get { key },
            Read::Deadline { key, form },
            Read::Encoding { key },
            Read::Lookup { key, wants: Wants::Look },
            Read::FilterInfo { key, field: None },
        ];
        reads.map(|read| store.read(folded(Slot::of(key)), &read, now).into_owned())
    };
    keys.into_iter().map(|key| (key.to_vec(), tell(key))).collect()
}

#[cfg(test)]
mod tests {
    use scatterhoard_fuzz::bounded;

    use super::*;
    use crate::commands as all_commands;

    /// Lines as a person would type them; most kinds of keys, values and options.
    const STORY: [&str; 16] = [
        "SET k 12 EX 5\nINCR k\n@2000\nTTL k\nGETEX k PERSIST\nAPPEND k 3\nGET k\nDEL k\n",
        "SET {t}a 1\nSET {t}b 2 NX GET\nRENAME {t}a {t}b\nCOPY {t}b {t}a REPLACE\nMGET {t}a b\n",
        "SETRANGE big 90000 x\nSETRANGE large 90000 y\nSETRANGE more 90000 z\nSET a 1\nSET b 2\n",
        "MSET a 1 b 2 c 3\nMSETNX d 1 e 2\nEXISTS a b c a\nTOUCH a z\nUNLINK a b\nDBSIZE\n",
        "INCRBYFLOAT f 1.5e2\nINCRBYFLOAT f -0.1\nSET f \"3.0e3\"\nINCRBYFLOAT f 1e400\nSTRLEN f\n",
        "PSETEX k 10 v\n@11\nGET k\nSETNX k w\nPEXPIREAT k 1700000000500\n@1000\nPTTL k\nKEYS *\n",
        "EXPIRE k 100\nSET k v\nEXPIRE k 100 NX\nEXPIRE k 50 GT\nEXPIRE k 10 LT\nEXPIRETIME k\n",
        "SCAN 0 MATCH [ab]* COUNT 1 TYPE string\nRANDOMKEY\nOBJECT ENCODING k\nFLUSHALL\nSET k v\n",
        "GETRANGE k -3 -1\nSUBSTR k 0 2\nGETSET k x\nGETDEL k\nDECRBY n 9223372036854775807\n",
        "COMMAND INFO get\nCOMMAND COUNT\nCOMMAND GETKEYS MSET a 1 b 2\nCONFIG HELP\nOBJECT HELP\n",
        "SET n 9223372036854775807\nINCR n\nDECR n\nINCRBY n -5\nSET m \" 1\"\nINCR m\nLCS a b\n",
        "HOARD.GET k LEASE 50\nHOARD.GET k LEASE 50\nHOARD.FILL k 0 v PX 9 SOFT 3 TAGS 2 t u\nGET k\n",
        "HOARD.SET k v TAGS 1 t\nHOARD.SET {k}2 \"\" NEGATIVE PX 5\nHOARD.INVALIDATE TAG t s\nDBSIZE\n",
        "SET a 1\nHOARD.GET b LEASE 9 STALE\nHOARD.RELEASE b 1\nHOARD.WAIT b 0\nHOARD.INVALIDATE PREFIX a\n",
        "BF.RESERVE f 0.3 1 EXPANSION 3\nBF.MADD f a b c d e\nBF.MEXISTS f a z\nBF.INFO f SIZE\nGET f\n",
        "FOO bar\nGET\nSET k v EX 0\nSET k v PX -1 NX XX\nEXPIRE k abc\nCLIENT KILL x\nDEBUG SLEEP 0\n",
    ];

    #[test]
    fn any_commands_are_understood_and_executed_soundly() {
        let mut seeds = STORY.map(|lines| lines.as_bytes().to_vec()).to_vec();
        // Each command once, with as many arguments as it takes at least.
        let lines = all_commands().map(|spec| {
            let rest = " 1".repeat(usize::from(spec.arity.unsigned_abs()) - 1);
            format!("{}{rest}\n", spec.name)
        });
        let lines: Vec<_> = lines.collect();
        seeds.extend(lines.chunks(20).map(|lines| lines.concat().into_bytes()));
        bounded("commands", &seeds, commands);
    }
}
