//! What requests mean.

use scatterhoard_command::{
    ClientAttribute, ClientCommand, ClientFilter, ClientKind, ClientMatch, ClusterCommand, Command,
    CommandError, CommandFilter, CommandQuery, ConfigCommand, Credentials, FailoverMode, Flush,
    Glob, Hello, HelpTopic, LatencyCommand, MemoryCommand, PauseScope, ReplyMode, Scan, ScanKind,
    ServerCommand, SessionCommand, SlowLogCommand, Span, parse,
};
use scatterhoard_resp::{Args, Protocol};
use scatterhoard_ring::Slot;
use scatterhoard_store::{
    DeadlineForm, Expiry, Read, SetAnswer, UnixMillis, When, WhenExpire, Write,
};

const NOW: UnixMillis = UnixMillis::new(1_700_000_000_000);

#[track_caller]
fn check(request: &str, meaning: Command<'_>) {
    let words: Vec<&[u8]> =
        request.split(' ').map(|word| if word == "\"\"" { b"" } else { word.as_bytes() }).collect();
    assert_eq!(parse(Args::from(&words), NOW), Ok(meaning), "{request}");
}

#[track_caller]
fn reads(request: &str, read: Read<'_>) {
    check(request, Command::Read(read));
}

#[track_caller]
fn writes(request: &str, write: Write<'_>) {
    check(request, Command::Write(write));
}

#[track_caller]
fn spans(request: &str, span: Span<'_>) {
    check(request, Command::Span(span));
}

#[track_caller]
fn sessions(request: &str, command: SessionCommand<'_>) {
    check(request, Command::Session(command));
}

#[track_caller]
fn clients(request: &str, command: ClientCommand<'_>) {
    check(request, Command::Session(SessionCommand::Client(command)));
}

#[track_caller]
fn servers(request: &str, command: ServerCommand<'_>) {
    check(request, Command::Server(command));
}

#[track_caller]
fn clusters(request: &str, command: ClusterCommand<'_>) {
    check(request, Command::Server(ServerCommand::Cluster(command)));
}

/// `SET k v`, but for its options.
const fn set(expiry: Expiry, when: When<'static>, answer: SetAnswer) -> Write<'static> {
    Write::Set { key: b"k", value: b"v", expiry, when, answer }
}

const fn at(millis: u64) -> Expiry {
    Expiry::At(UnixMillis::new(millis))
}

#[test]
fn set_and_its_options() {
    use {SetAnswer::*, When::*};
    writes("SET k v", set(Expiry::Clear, Always, Done));
    writes("sEt k v nX", set(Expiry::Clear, Absent, Done));
    writes("SET k v XX", set(Expiry::Clear, Present, Done));
    writes("SET k v GET", set(Expiry::Clear, Always, Before));
    writes("SET k v NX GET", set(Expiry::Clear, Absent, Before));
    writes("SET k v KEEPTTL", set(Expiry::Keep, Always, Done));
    writes("SET k v EX 10", set(Expiry::After(10_000), Always, Done));
    writes("SET k v px 10 xx get", set(Expiry::After(10), Present, Before));
    writes("SET k v EXAT 10", set(at(10_000), Always, Done));
    writes("SET k v PXAT 10", set(at(10), Always, Done));
    // The last one counts, as in Redis.
    writes("SET k v EX 10 EX 20", set(Expiry::After(20_000), Always, Done));
    writes("SET k v PXAT 9223372036854775807", set(Expiry::At(UnixMillis::MAX), Always, Done));
}

#[test]
fn relatives_of_set() {
    use {SetAnswer::*, When::*};
    writes("GETSET k v", set(Expiry::Clear, Always, Before));
    writes("SETNX k v", set(Expiry::Clear, Absent, Count));
    writes("SETEX k 10 v", set(Expiry::After(10_000), Always, Done));
    writes("PSETEX k 10 v", set(Expiry::After(10), Always, Done));
    writes(
        "MSET a 1 b 2 a 3",
        Write::SetMany { pairs: vec![(b"a", b"1"), (b"b", b"2"), (b"a", b"3")] },
    );
    writes("MSETNX a 1", Write::SetManyIfAbsent { pairs: vec![(b"a", b"1")] });
}

#[test]
fn get_and_its_relatives() {
    reads("GET k", Read::Get { key: b"k" });
    reads("GET \"\"", Read::Get { key: b"" });
    reads("GETEX k", Read::Get { key: b"k" });
    writes("GETEX k PERSIST", Write::GetExpire { key: b"k", expiry: Expiry::Clear });
    writes("GETEX k EX 1", Write::GetExpire { key: b"k", expiry: Expiry::After(1_000) });
    writes("GETEX k PXAT 1", Write::GetExpire { key: b"k", expiry: at(1) });
    writes("GETDEL k", Write::GetDelete { key: b"k" });
    reads("MGET a b a", Read::GetMany { keys: vec![b"a", b"b", b"a"] });
    reads("STRLEN k", Read::Length { key: b"k" });
    reads("GETRANGE k 0 -1", Read::GetRange { key: b"k", first: 0, last: -1 });
    reads("SUBSTR k -3 2", Read::GetRange { key: b"k", first: -3, last: 2 });
}

#[test]
fn numbers_and_parts() {
    writes("INCR k", Write::Add { key: b"k", delta: 1 });
    writes("DECR k", Write::Add { key: b"k", delta: -1 });
    writes("INCRBY k -9223372036854775808", Write::Add { key: b"k", delta: i64::MIN });
    writes("DECRBY k 9223372036854775807", Write::Add { key: b"k", delta: -i64::MAX });
    for (spelled, delta) in [("1.5", 1.5), (".5", 0.5), ("5.", 5.0), ("+5e2", 500.0), ("-3", -3.0)]
    {
        writes(&format!("INCRBYFLOAT k {spelled}"), Write::AddFloat { key: b"k", delta });
    }
    // The store refuses it, with the text that Redis has.
    writes("INCRBYFLOAT k -inf", Write::AddFloat { key: b"k", delta: f64::NEG_INFINITY });
    writes("APPEND k v", Write::Append { key: b"k", value: b"v" });
    writes("SETRANGE k 3 v", Write::SetRange { key: b"k", offset: 3, value: b"v" });
    reads("SETRANGE k 99999999999 \"\"", Read::Length { key: b"k" });
}

#[test]
fn deadlines_of_keys() {
    let expire = |expiry, when| Write::Expire { key: b"k", expiry, when };
    writes("EXPIRE k 10", expire(Expiry::After(10_000), WhenExpire::Always));
    writes("PEXPIRE k 10", expire(Expiry::After(10), WhenExpire::Always));
    writes("EXPIREAT k 10", expire(at(10_000), WhenExpire::Always));
    writes("PEXPIREAT k 10", expire(at(10), WhenExpire::Always));
    writes("EXPIRE k 10 NX", expire(Expiry::After(10_000), WhenExpire::Absent));
    writes("EXPIRE k 10 xx", expire(Expiry::After(10_000), WhenExpire::Present));
    writes("EXPIRE k 10 GT", expire(Expiry::After(10_000), WhenExpire::Later));
    writes("EXPIRE k 10 XX GT", expire(Expiry::After(10_000), WhenExpire::Later));
    writes("EXPIRE k 10 LT XX", expire(Expiry::After(10_000), WhenExpire::PresentEarlier));
    writes("EXPIRE k 10 LT LT", expire(Expiry::After(10_000), WhenExpire::Earlier));
    for gone in ["EXPIRE k 0", "EXPIRE k -1", "PEXPIRE k -9223372036854775808", "EXPIREAT k -5"] {
        writes(gone, expire(at(0), WhenExpire::Always));
    }
    writes(
        "PEXPIREAT k 9223372036854775807",
        expire(Expiry::At(UnixMillis::MAX), WhenExpire::Always),
    );
    let farthest = i64::MAX as u64 - NOW.millis();
    writes(&format!("PEXPIRE k {farthest}"), expire(Expiry::After(farthest), WhenExpire::Always));

    writes("PERSIST k", Write::Persist { key: b"k" });
    reads("TTL k", Read::Deadline { key: b"k", form: DeadlineForm::SecondsLeft });
    reads("PTTL k", Read::Deadline { key: b"k", form: DeadlineForm::MillisLeft });
    reads("EXPIRETIME k", Read::Deadline { key: b"k", form: DeadlineForm::AtSecond });
    reads("PEXPIRETIME k", Read::Deadline { key: b"k", form: DeadlineForm::AtMilli });
}

#[test]
fn keys_whatever_their_values() {
    writes("DEL a b", Write::Delete { keys: vec![b"a", b"b"] });
    writes("UNLINK a", Write::Delete { keys: vec![b"a"] });
    reads("EXISTS a a", Read::Exists { keys: vec![b"a", b"a"] });
    reads("TOUCH a", Read::Touch { keys: vec![b"a"] });
    reads("TYPE k", Read::Type { key: b"k" });
    writes("RENAME a b", Write::Rename { from: b"a", to: b"b", only_if_absent: false });
    writes("RENAMENX a b", Write::Rename { from: b"a", to: b"b", only_if_absent: true });
    writes("COPY a b", Write::Copy { from: b"a", to: b"b", replace: false });
    writes("COPY a b replace DB 0", Write::Copy { from: b"a", to: b"b", replace: true });
    reads("OBJECT ENCODING k", Read::Encoding { key: b"k" });
    reads("OBJECT freq k", Read::Frequency { key: b"k" });
    reads("OBJECT IDLETIME k", Read::IdleTime { key: b"k" });
    reads("object refcount k", Read::RefCount { key: b"k" });
    reads("MEMORY USAGE k", Read::MemoryUsage { key: b"k" });
    reads("MEMORY USAGE k SAMPLES 0 SAMPLES 5", Read::MemoryUsage { key: b"k" });
}

#[test]
fn the_whole_key_space() {
    let scan = |cursor, pattern, count, kind| Span::Scan(Scan { cursor, pattern, count, kind });
    spans("DBSIZE", Span::Count);
    spans("KEYS a*", Span::Keys { pattern: Glob::new(b"a*") });
    spans("RANDOMKEY", Span::RandomKey);
    spans("SCAN 0", scan(0, None, 10, ScanKind::Any));
    spans("SCAN 007 COUNT 5 MATCH x", scan(7, Some(Glob::new(b"x")), 5, ScanKind::Any));
    spans("SCAN -1 TYPE String", scan(u64::MAX, None, 10, ScanKind::String));
    spans("SCAN 18446744073709551615 TYPE hash", scan(u64::MAX, None, 10, ScanKind::Absent));
    spans("FLUSHALL", Span::Flush(Flush::Unstated));
    spans("FLUSHDB async", Span::Flush(Flush::Async));
    spans("FLUSHALL SYNC", Span::Flush(Flush::Sync));
}

#[test]
fn the_connection() {
    sessions("PING", SessionCommand::Ping { message: None });
    sessions("PING \"\"", SessionCommand::Ping { message: Some(b"") });
    sessions("ECHO x", SessionCommand::Echo { message: b"x" });
    sessions("HELLO", SessionCommand::Hello(Hello::default()));
    let credentials = Credentials { user: Some(b"u"), password: b"p" };
    sessions(
        "HELLO 3 AUTH u p SETNAME n",
        SessionCommand::Hello(Hello {
            version: Some(Protocol::Resp3),
            credentials: Some(credentials),
            name: Some(b"n"),
            flaw: None,
        }),
    );
    let flaw = Some(CommandError::HelloOption("OPTION".to_owned()));
    sessions(
        "HELLO 3 AUTH u p OPTION",
        SessionCommand::Hello(Hello {
            version: Some(Protocol::Resp3),
            credentials: Some(credentials),
            name: None,
            flaw,
        }),
    );
    sessions(
        "hello 2",
        SessionCommand::Hello(Hello { version: Some(Protocol::Resp2), ..Hello::default() }),
    );
    sessions("AUTH p", SessionCommand::Auth(Credentials { user: None, password: b"p" }));
    sessions("AUTH u p", SessionCommand::Auth(credentials));
    sessions("SELECT -1", SessionCommand::Select { database: -1 });
    sessions("QUIT now", SessionCommand::Quit);
    sessions("RESET", SessionCommand::Reset);
    sessions("READONLY", SessionCommand::ReadOnly);
    sessions("READWRITE", SessionCommand::ReadWrite);
    sessions("ASKING", SessionCommand::Asking);
    sessions("WAIT -1 0", SessionCommand::Wait { replicas: -1, timeout_ms: 0 });
}

#[test]
fn a_password_is_not_shown() {
    let shown = format!("{:?}", Credentials { user: None, password: b"hunter2" });
    assert_eq!(shown, "Credentials { user: None, .. }");
}

#[test]
fn other_connections() {
    clients("CLIENT ID", ClientCommand::Id);
    clients("CLIENT INFO", ClientCommand::Info);
    clients("CLIENT LIST", ClientCommand::List(ClientFilter::All));
    clients("CLIENT LIST TYPE slave", ClientCommand::List(ClientFilter::Kind(ClientKind::Replica)));
    clients("CLIENT LIST ID 3 -1 4", ClientCommand::List(ClientFilter::Ids(vec![3, 4])));
    clients("CLIENT KILL 1.2.3.4:5", ClientCommand::KillAddress { address: b"1.2.3.4:5" });
    clients(
        "CLIENT KILL ID 7 SKIPME no TYPE pubsub",
        ClientCommand::Kill {
            filters: vec![ClientMatch::Id(7), ClientMatch::Kind(ClientKind::PubSub)],
            skip_me: false,
        },
    );
    clients(
        "CLIENT KILL ADDR a LADDR b USER c",
        ClientCommand::Kill {
            filters: vec![
                ClientMatch::Address(b"a"),
                ClientMatch::LocalAddress(b"b"),
                ClientMatch::User(b"c"),
            ],
            skip_me: true,
        },
    );
    clients("CLIENT SETNAME \"\"", ClientCommand::SetName { name: b"" });
    clients("CLIENT GETNAME", ClientCommand::GetName);
    clients(
        "client setinfo LIB-NAME redis-py(v1)",
        ClientCommand::SetInfo { attribute: ClientAttribute::LibraryName, value: b"redis-py(v1)" },
    );
    clients(
        "CLIENT SETINFO lib-ver 8.0.0",
        ClientCommand::SetInfo { attribute: ClientAttribute::LibraryVersion, value: b"8.0.0" },
    );
    clients("CLIENT NEAR on", ClientCommand::Near { on: true });
    clients("CLIENT NEAR off", ClientCommand::Near { on: false });
    clients("CLIENT NO-EVICT on", ClientCommand::NoEvict { on: true });
    clients("CLIENT NO-TOUCH off", ClientCommand::NoTouch { on: false });
    clients("CLIENT REPLY skip", ClientCommand::Reply(ReplyMode::Skip));
    clients("CLIENT PAUSE 5", ClientCommand::Pause { timeout_ms: 5, scope: PauseScope::All });
    clients(
        "CLIENT PAUSE 5 write",
        ClientCommand::Pause { timeout_ms: 5, scope: PauseScope::Writes },
    );
    clients("CLIENT UNPAUSE", ClientCommand::Unpause);
}

#[test]
fn the_cluster() {
    let slot = Slot::new(16_383).expect("the last slot");
    clusters("CLUSTER SLOTS", ClusterCommand::Slots);
    clusters("cluster shards", ClusterCommand::Shards);
    clusters("CLUSTER NODES", ClusterCommand::Nodes);
    clusters("CLUSTER INFO", ClusterCommand::Info);
    clusters("CLUSTER MYID", ClusterCommand::MyId);
    clusters("CLUSTER MYSHARDID", ClusterCommand::MyShardId);
    clusters("CLUSTER LINKS", ClusterCommand::Links);
    clusters("CLUSTER KEYSLOT k", ClusterCommand::KeySlot { key: b"k" });
    clusters("CLUSTER COUNTKEYSINSLOT 16383", ClusterCommand::CountKeysInSlot { slot });
    clusters("CLUSTER GETKEYSINSLOT 16383 0", ClusterCommand::GetKeysInSlot { slot, count: 0 });
    clusters("CLUSTER REPLICAS x", ClusterCommand::Replicas { node: b"x" });
    clusters("CLUSTER SLAVES x", ClusterCommand::Replicas { node: b"x" });
    clusters("CLUSTER FORGET x", ClusterCommand::Forget { node: b"x" });
    let meet = |peer_port| ClusterCommand::Meet { host: b"::1", port: 7_000, peer_port };
    clusters("CLUSTER MEET ::1 7000", meet(None));
    clusters("CLUSTER MEET ::1 7000 17000", meet(Some(17_000)));
    clusters("CLUSTER FAILOVER", ClusterCommand::Failover(FailoverMode::Agreed));
    clusters("CLUSTER FAILOVER force", ClusterCommand::Failover(FailoverMode::Force));
    clusters("CLUSTER FAILOVER TAKEOVER", ClusterCommand::Failover(FailoverMode::Takeover));
}

#[test]
fn the_node() {
    servers("INFO", ServerCommand::Info { sections: vec![] });
    servers("INFO Server memory", ServerCommand::Info { sections: vec![b"Server", b"memory"] });
    servers("TIME", ServerCommand::Time);
    let config = ServerCommand::Config;
    let patterns = vec![Glob::new(b"save"), Glob::new(b"max*")];
    servers("CONFIG GET save max*", config(ConfigCommand::Get { patterns }));
    servers(
        "CONFIG SET a 1 b 2",
        config(ConfigCommand::Set { settings: vec![(b"a", b"1"), (b"b", b"2")] }),
    );
    servers("CONFIG RESETSTAT", config(ConfigCommand::ResetStat));
    servers("CONFIG REWRITE", config(ConfigCommand::Rewrite));
    for (spelled, duration_ms) in
        [("0.0015", 2), ("1", 1_000), ("x", 0), ("-1", 0), ("inf", i64::MAX as u64)]
    {
        servers(&format!("DEBUG SLEEP {spelled}"), ServerCommand::DebugSleep { duration_ms });
    }
    let latency = ServerCommand::Latency;
    servers("LATENCY LATEST", latency(LatencyCommand::Latest));
    servers("LATENCY HISTORY x", latency(LatencyCommand::History { event: b"x" }));
    servers("LATENCY GRAPH x", latency(LatencyCommand::Graph { event: b"x" }));
    servers("LATENCY RESET x", latency(LatencyCommand::Reset { events: vec![b"x"] }));
    servers("LATENCY DOCTOR", latency(LatencyCommand::Doctor));
    servers("LATENCY HISTOGRAM", latency(LatencyCommand::Histogram { commands: vec![] }));
    let slow_log = ServerCommand::SlowLog;
    servers("SLOWLOG GET", slow_log(SlowLogCommand::Get { count: Some(10) }));
    servers("SLOWLOG GET -1", slow_log(SlowLogCommand::Get { count: None }));
    servers("SLOWLOG LEN", slow_log(SlowLogCommand::Len));
    servers("SLOWLOG RESET", slow_log(SlowLogCommand::Reset));
    servers("MEMORY DOCTOR", ServerCommand::Memory(MemoryCommand::Doctor));
    servers("MEMORY STATS", ServerCommand::Memory(MemoryCommand::Stats));
    servers("MEMORY PURGE", ServerCommand::Memory(MemoryCommand::Purge));
    servers("MEMORY MALLOC-STATS", ServerCommand::Memory(MemoryCommand::MallocStats));
}

#[test]
fn the_commands_themselves() {
    let command = ServerCommand::Command;
    servers("COMMAND", command(CommandQuery::All));
    servers("COMMAND COUNT", command(CommandQuery::Count));
    servers("COMMAND INFO get x", command(CommandQuery::Info { names: vec![b"get", b"x"] }));
    servers("COMMAND DOCS", command(CommandQuery::Docs { names: vec![] }));
    servers("COMMAND GETKEYS get x", command(CommandQuery::GetKeys { words: vec![b"get", b"x"] }));
    servers("COMMAND LIST", command(CommandQuery::List(CommandFilter::All)));
    servers("COMMAND LIST FILTERBY MODULE x", command(CommandQuery::List(CommandFilter::Module)));
    servers(
        "COMMAND LIST filterby aclcat x",
        command(CommandQuery::List(CommandFilter::Category(b"x"))),
    );
    servers(
        "COMMAND LIST FILTERBY pattern g*",
        command(CommandQuery::List(CommandFilter::Pattern(Glob::new(b"g*")))),
    );
    for (request, topic) in [
        ("CLIENT HELP", HelpTopic::Client),
        ("CLUSTER help", HelpTopic::Cluster),
        ("COMMAND HELP", HelpTopic::Command),
        ("CONFIG HELP", HelpTopic::Config),
        ("DEBUG HELP", HelpTopic::Debug),
        ("LATENCY HELP", HelpTopic::Latency),
        ("MEMORY HELP", HelpTopic::Memory),
        ("OBJECT HELP", HelpTopic::Object),
        ("SLOWLOG HELP", HelpTopic::SlowLog),
    ] {
        servers(request, ServerCommand::Help(topic));
    }
}
