//! Several commands in one call, to a cluster whose nodes are made up.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use scatterhoard_client::{Cluster, Command, Config, Connector, Error, Stream, Value};
use scatterhoard_ring::Slot;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::io::{BufReader, DuplexStream, duplex};

/// Two nodes, at `a:1` and `b:1`. Each answers with its name and the key, but for what they were told.
#[derive(Clone, Default)]
struct Nodes {
    told: Arc<Mutex<BTreeMap<String, Does>>>,
    asked: Arc<Mutex<Vec<String>>>,
}

/// What `a:1`, which is said to lead all slots, does when it is asked for a key.
#[derive(Clone, Copy)]
enum Does {
    /// It says that `b:1` leads it.
    Redirects,
    /// It says that the key has something else.
    Refuses,
    /// It breaks the connection, this once.
    Breaks,
}

impl Nodes {
    fn told(told: impl IntoIterator<Item = (&'static str, Does)>) -> Self {
        let told = told.into_iter().map(|(key, does)| (key.to_owned(), does)).collect();
        Self { told: Arc::new(Mutex::new(told)), asked: Arc::default() }
    }

    async fn connect(&self) -> Cluster {
        let mut config = Config::new(["a:1"]);
        config.connector = Arc::new(self.clone());
        Cluster::connect_with(config).await.expect("they answer")
    }

    fn asked_count(&self, question: &str) -> usize {
        self.asked.lock().iter().filter(|it| *it == question).count()
    }

    async fn serve(self, name: String, stream: DuplexStream) {
        let mut stream = BufReader::new(stream);
        while let Ok(words) = command(&mut stream).await {
            let words: Vec<_> = words.iter().map(String::as_str).collect();
            let Some(answer) = self.answer(&name, &words) else { return };
            if stream.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
        }
    }

    /// `None`: the connection breaks.
    fn answer(&self, name: &str, words: &[&str]) -> Option<String> {
        self.asked.lock().push(words.join(" "));
        Some(match words {
            ["HELLO", ..] => "%1\r\n$5\r\nproto\r\n:3\r\n".to_owned(),
            ["CLUSTER", ..] => "*1\r\n*3\r\n:0\r\n:16383\r\n*2\r\n$1\r\na\r\n:1\r\n".to_owned(),
            ["GET" | "SET", key, ..] => {
                let does = if name == "a:1" { self.told.lock().get(*key).copied() } else { None };
                match does {
                    None => format!("+{key} of {name}\r\n"),
                    Some(Does::Redirects) => {
                        format!("-MOVED {} b:1\r\n", Slot::of(key.as_bytes()).number())
                    }
                    Some(Does::Refuses) => "-WRONGTYPE it is a list\r\n".to_owned(),
                    Some(Does::Breaks) => {
                        self.told.lock().remove(*key);
                        return None;
                    }
                }
            }
            _ => "+OK\r\n".to_owned(),
        })
    }
}

impl Connector for Nodes {
    fn connect<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Stream>>> {
        let (here, there) = duplex(1 << 16);
        tokio::spawn(self.clone().serve(address.to_owned(), there));
        async move { Ok(Box::new(here) as Box<dyn Stream>) }.boxed()
    }
}

/// An array of strings, as clients send them.
async fn command(stream: &mut BufReader<DuplexStream>) -> io::Result<Vec<String>> {
    let count = number(stream).await?;
    let mut words = Vec::new();
    for _ in 0..count {
        let mut word = vec![0; number(stream).await? + 2];
        stream.read_exact(&mut word).await?;
        words.push(String::from_utf8_lossy(&word[..word.len() - 2]).into_owned());
    }
    Ok(words)
}

/// What is behind the first byte of a line.
async fn number(stream: &mut BufReader<DuplexStream>) -> io::Result<usize> {
    let mut line = String::new();
    stream.read_line(&mut line).await?;
    let digits = line.trim_end().get(1..).unwrap_or_default();
    digits.parse().map_err(|_| io::ErrorKind::InvalidData.into())
}

fn get(key: &str) -> Command {
    Command::read("GET").key(key)
}

fn set(key: &str) -> Command {
    Command::write("SET").key(key).arg("value")
}

fn text(text: &str) -> Result<Value, Error> {
    Ok(Value::Text(text.to_owned()))
}

#[tokio::test(start_paused = true)]
async fn answers_are_in_order_also_if_some_commands_are_redirected_or_refused() {
    let nodes = Nodes::told([("moved", Does::Redirects), ("list", Does::Refuses)]);
    let cluster = nodes.connect().await;
    let commands = vec![get("first"), get("moved"), get("list"), set("moved"), get("last")];
    let answers = cluster.run_many(commands).await;
    assert_eq!(answers[0], text("first of a:1"));
    assert_eq!(answers[1], text("moved of b:1"));
    assert!(matches!(&answers[2], Err(Error::Refused { code, .. }) if code == "WRONGTYPE"));
    assert_eq!(answers[3], text("moved of b:1"));
    assert_eq!(answers[4], text("last of a:1"));
    assert_eq!(nodes.asked_count("SET moved value"), 2, "at each of them once");
    assert_eq!(nodes.asked_count("GET first"), 1, "what was served is not asked again");
}

#[tokio::test(start_paused = true)]
async fn of_what_a_broken_connection_leaves_open_reads_are_sent_again_and_writes_are_in_doubt() {
    let nodes = Nodes::told([("breaks", Does::Breaks)]);
    let cluster = nodes.connect().await;
    let commands = vec![get("first"), set("breaks"), get("breaks"), set("last")];
    let answers = cluster.run_many(commands).await;
    assert_eq!(answers[0], text("first of a:1"));
    assert!(matches!(answers[1], Err(Error::InDoubt(_))));
    assert_eq!(answers[2], text("breaks of a:1"));
    assert!(matches!(answers[3], Err(Error::InDoubt(_))));
    assert_eq!(nodes.asked_count("SET breaks value"), 1, "nobody knows whether it was done");
}

#[tokio::test(start_paused = true)]
async fn one_command_alone_is_answered_as_among_others() {
    let nodes = Nodes::told([("moved", Does::Redirects)]);
    let cluster = nodes.connect().await;
    assert_eq!(cluster.run_many(vec![get("moved")]).await, [text("moved of b:1")]);
    assert_eq!(cluster.run_many(Vec::new()).await, []);
}
