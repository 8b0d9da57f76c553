//! `CLIENT TRACKING` beside a real `redis-server`: the same commands to both, and which keys each tells of.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use scatterhoard_tests::process::differential::RedisServer;
use scatterhoard_tests::process::resp::{Connection, Value};
use scatterhoard_tests::process::{Cluster, wait_until};

const PATIENCE: Duration = Duration::from_secs(20);

/// Who says a line of a script.
#[derive(Clone, Copy, Debug)]
enum Who {
    /// In RESP3; what it is told is compared.
    Reader,
    /// In RESP3, and told of nothing.
    Writer,
    /// In RESP2, to whom others may redirect; what it is told is compared.
    Listener,
}

use Who::{Listener, Reader, Writer};

/// Three clients of one server.
struct Clients {
    reader: Connection,
    writer: Connection,
    listener: Connection,
    /// The listener's number, which scripts call `ID`.
    id: String,
}

/// What a line came to: its reply, and the keys that were told of since the line before.
type Came = (String, BTreeSet<String>);

impl Clients {
    fn of(addr: SocketAddr) -> Self {
        let open = || Connection::open(addr, PATIENCE).expect("it listens");
        let [mut reader, mut writer, mut listener] = [open(), open(), open()];
        for connection in [&mut reader, &mut writer] {
            let hello = connection.call(&[b"HELLO", b"3"]).expect("it answers");
            assert!(matches!(hello, Value::Array(Some(_))), "{hello:?}");
        }
        let id = listener.call(&[b"CLIENT", b"ID"]).expect("it answers");
        let id = format!("{id:?}").trim_start_matches(':').to_owned();
        Self { reader, writer, listener, id }
    }

    fn say(&mut self, who: Who, line: &str) -> Came {
        let line = line.replace("ID", &self.id);
        let words: Vec<_> = line.split(' ').map(str::as_bytes).collect();
        let connection = match who {
            Reader => &mut self.reader,
            Writer => &mut self.writer,
            Listener => &mut self.listener,
        };
        let reply = connection.call(&words).expect("it answers");
        let mut reply = format!("{reply:?}");
        // Which numbers connections have is nobody's business.
        if line.starts_with("CLIENT ") {
            reply = reply.replace(&self.id, "ID");
        }
        (reply, self.told())
    }

    /// The keys that were told of. What was pushed before a `PING` comes before its reply.
    fn told(&mut self) -> BTreeSet<String> {
        let pong = self.reader.call(&[b"PING"]).expect("it answers");
        assert_eq!(pong, Value::Simple("PONG".to_owned()));
        let mut told: BTreeSet<_> = self.reader.pushed().flat_map(|push| keys_of(&push)).collect();
        let mut heard = self.listener.call(&[b"PING"]).expect("it answers");
        while let Value::Array(Some(message)) = &heard {
            if message.first() == Some(&Value::bulk("pong")) {
                break;
            }
            told.extend(keys_of(&message[1..]).into_iter().map(|key| format!("redirected {key}")));
            heard = self.listener.receive().expect("it goes on");
        }
        told
    }
}

/// The keys of an invalidation; `everything` if that is what it is about.
fn keys_of(push: &[Value]) -> Vec<String> {
    match push {
        [_, Value::Array(Some(keys))] => keys.iter().map(|key| format!("{key:?}")).collect(),
        [_, Value::Bulk(None) | Value::Array(None)] => vec!["everything".to_owned()],
        // How a subscription begins.
        other => vec![format!("{other:?}")],
    }
}

/// Gives a script to both servers, empty, and compares all that comes.
#[track_caller]
fn compare(script: &[(Who, &str)]) {
    let redis = RedisServer::start();
    let cluster = Cluster::of(1);
    let mut redis = Clients::of(redis.addr());
    let mut hoard = Clients::of(cluster.listens()[0]);
    for &(who, line) in script {
        let (ours, theirs) = (hoard.say(who, line), redis.say(who, line));
        assert_eq!(ours, theirs, "{who:?} said {line:?}; hoard is left, Redis right");
    }
}

#[test]
fn what_was_read_is_told_of_once() {
    compare(&[
        (Reader, "CLIENT TRACKING ON"),
        (Reader, "GET a"),
        (Writer, "SET a 1"),
        (Writer, "SET a 2"),
        (Reader, "MGET {t}a {t}b {t}c"),
        (Writer, "MSET {t}a 1 {t}b 2 {t}d 3"),
        (Reader, "STRLEN {t}a"),
        (Writer, "APPEND {t}a x"),
        (Reader, "EXISTS {t}a {t}b"),
        (Writer, "INCR {t}b"),
        (Writer, "RENAME {t}a {t}b"),
        (Reader, "GET {t}b"),
        (Writer, "COPY {t}b {t}c"),
        (Writer, "EXPIRE {t}b 100"),
        (Reader, "TTL {t}b"),
        (Writer, "PERSIST {t}b"),
        (Reader, "GET {t}b"),
        (Writer, "GETEX {t}b EX 100"),
        (Reader, "GET {t}b"),
        (Writer, "SET {t}b new NX"),
        (Writer, "SETRANGE {t}b 2 xyz"),
        (Reader, "GET {t}b"),
        (Writer, "GETDEL {t}b"),
        (Reader, "SET own 1"),
        (Reader, "GET own"),
        (Reader, "SET own 2"),
        (Reader, "GET own"),
        (Writer, "FLUSHALL"),
        (Reader, "CLIENT TRACKING OFF"),
        (Reader, "GET own"),
        (Writer, "SET own 3"),
    ]);
}

#[test]
fn own_writes_need_not_be_told_of() {
    compare(&[
        (Reader, "CLIENT TRACKING ON NOLOOP"),
        (Reader, "CLIENT TRACKINGINFO"),
        (Reader, "GET a"),
        (Reader, "SET a 1"),
        (Reader, "GET a"),
        (Writer, "SET a 2"),
    ]);
}

#[test]
fn prefixes_are_broadcast() {
    compare(&[
        (Reader, "CLIENT TRACKING ON BCAST PREFIX user: PREFIX item:"),
        (Reader, "CLIENT TRACKINGINFO"),
        (Writer, "SET user:1 a"),
        (Writer, "SET user:1 b"),
        (Writer, "SET other:1 b"),
        (Writer, "SET item:1 b"),
        (Writer, "DEL item:1"),
        (Reader, "SET user:2 own"),
        (Reader, "CLIENT TRACKING OFF"),
        (Reader, "CLIENT TRACKING ON BCAST"),
        (Writer, "SET any 1"),
    ]);
}

#[test]
fn caching_is_said_of_each_read() {
    compare(&[
        (Reader, "CLIENT TRACKING ON OPTIN"),
        (Reader, "GET a"),
        (Writer, "SET a 1"),
        (Reader, "CLIENT CACHING YES"),
        (Reader, "GET a"),
        (Reader, "GET b"),
        (Writer, "SET a 2"),
        (Writer, "SET b 2"),
        (Reader, "CLIENT CACHING NO"),
        (Reader, "CLIENT TRACKING OFF"),
        (Reader, "CLIENT TRACKING ON OPTOUT"),
        (Reader, "CLIENT CACHING NO"),
        (Reader, "GET a"),
        (Reader, "GET b"),
        (Writer, "SET a 3"),
        (Writer, "SET b 3"),
        (Reader, "CLIENT CACHING YES"),
        (Reader, "CLIENT TRACKINGINFO"),
    ]);
}

#[test]
fn others_listen_in_resp2() {
    compare(&[
        (Listener, "SUBSCRIBE __redis__:invalidate"),
        (Reader, "CLIENT TRACKING ON REDIRECT ID"),
        (Reader, "CLIENT GETREDIR"),
        (Reader, "CLIENT TRACKINGINFO"),
        (Reader, "GET a"),
        (Writer, "SET a 1"),
        (Reader, "GET a"),
        (Reader, "SET a 2"),
        (Reader, "CLIENT TRACKING OFF"),
        (Reader, "CLIENT GETREDIR"),
        (Reader, "CLIENT TRACKING ON REDIRECT ID BCAST PREFIX p:"),
        (Writer, "SET p:1 1"),
    ]);
}

#[test]
fn what_makes_no_sense_is_refused_in_the_same_words() {
    compare(&[
        (Reader, "CLIENT TRACKING"),
        (Reader, "CLIENT TRACKING PERHAPS"),
        (Reader, "CLIENT TRACKING ON PREFIX a"),
        (Reader, "CLIENT TRACKING ON OPTIN OPTOUT"),
        (Reader, "CLIENT TRACKING ON BCAST OPTIN"),
        (Reader, "CLIENT TRACKING ON BCAST PREFIX ab PREFIX abc"),
        (Reader, "CLIENT TRACKING ON REDIRECT 123456789"),
        (Reader, "CLIENT TRACKING ON WHATEVER"),
        (Reader, "CLIENT CACHING YES"),
        (Reader, "CLIENT CACHING PERHAPS"),
        (Reader, "CLIENT TRACKING ON OPTIN"),
        (Reader, "CLIENT TRACKING ON OPTOUT"),
        (Reader, "CLIENT TRACKING ON BCAST"),
        (Reader, "CLIENT CACHING NO"),
        (Reader, "CLIENT GETREDIR"),
        (Reader, "CLIENT TRACKING OFF"),
        (Reader, "CLIENT TRACKING OFF"),
    ]);
}

#[test]
fn pushes_outlive_a_reply_that_nobody_wants() {
    let cluster = Cluster::of(1);
    let mut reader = Clients::of(cluster.listens()[0]).reader;
    for line in [&[&b"CLIENT"[..], b"TRACKING", b"ON"][..], &[b"GET", b"k"]] {
        reader.call(line).expect("it answers");
    }
    let pipeline = b"SET k v\r\nCLIENT REPLY SKIP\r\nHOARD.PROBE\r\nPING\r\n";
    reader.send_raw(pipeline).expect("it takes them");
    for reply in ["OK", "PONG"] {
        assert_eq!(reader.receive().expect("it answers"), Value::Simple(reply.to_owned()));
    }
    reader.call(&[b"PING"]).expect("it answers");
    let told: Vec<_> = reader.pushed().flat_map(|push| keys_of(&push)).collect();
    assert_eq!(told, ["\"k\""]);
}

#[test]
fn a_deadline_that_passes_is_told_of() {
    let redis = RedisServer::start();
    let cluster = Cluster::of(1);
    for addr in [redis.addr(), cluster.listens()[0]] {
        let mut clients = Clients::of(addr);
        clients.say(Reader, "CLIENT TRACKING ON");
        clients.say(Writer, "SET a 1 PX 300");
        clients.say(Reader, "GET a");
        wait_until("its end is told", PATIENCE, || clients.told().contains("\"a\""));
    }
}
