//! What can be written on the command line, and its help. Decides nothing.
//!
//! The settings of a node are one struct, read from flags, from `HOARD_…` variables (both by clap) and
//! from the file (by serde), so that the three cannot know different settings.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Parser, Subcommand};
use scatterhoard_node::AnyKeyReads;
use scatterhoard_prove::args::ProveArgs;
use serde::{Deserialize, Deserializer, de};

use crate::address::{Endpoint, Host, Remote};
use crate::measure::{Bytes, Span};

/// A peer-to-peer cache cluster that speaks the Redis protocol and keeps its promises.
///
/// `hoard node` on its own founds a cluster of one. `hoard node --join HOST:PORT` adds a node to a
/// cluster, given the peer address of any of its nodes. Placing keys, keeping copies and moving them
/// happen without further commands.
#[derive(Parser)]
#[command(name = "hoard", version, args_override_self = true, arg_required_else_help = true)]
#[command(disable_help_subcommand = true, max_term_width = 100)]
#[command(after_help = "Times are written 200ms, 30s, 5m; sizes 512kb, 64mb, 1gb. \
`hoard COMMAND --help` explains a command.")]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Run a node: found a cluster, or join one
    ///
    /// Without --join a node founds a cluster: it serves at once, alone, and others join it. With --join
    /// it asks the addresses given, joins the cluster that any of them knows, and takes over its share of
    /// the data. The list may name the node itself and everyone else, so that all nodes can be started
    /// with the same one: then the node with the lowest address founds, once all others have answered
    /// that they know no cluster, and after a restart it joins like any other.
    ///
    /// SIGTERM or SIGINT (Ctrl-C) let the node leave: it hands over what it leads and holds, and goes. A
    /// second one ends it at once.
    Node(Box<NodeArgs>),
    /// Show the members, the partitions, and what is not well
    ///
    /// Asks one node, and shows the cluster as that node sees it: the members, who leads and keeps each
    /// partition, and which partitions have fewer copies than wanted.
    Status(StatusArgs),
    /// Exit with 0 once the cluster is ready: writable, fully replicated and balanced
    ///
    /// Exits with 1 and the reasons if it is not, or has not become so within --wait.
    Ready(ReadyArgs),
    /// Let a node of the cluster leave, without losing what it holds
    ///
    /// Its leaderships and copies go to other nodes; then its process ends.
    Drain(DrainArgs),
    /// Let the asked node itself leave, without losing what it holds
    ///
    /// The same as SIGTERM: its leaderships and copies go to other nodes; then its process ends.
    Leave(AskArgs),
    /// Show which parts of the cluster have lost their quorum, and say which nodes have ended
    ///
    /// A partition, or the council, that has lost the majority of its copies waits for the nodes that
    /// are missing: silence is no proof that they have ended. It is founded anew from the best copy left
    /// once they have been started again at their addresses. If they never will be, --ended says so.
    ///
    /// Without --ended nothing is changed.
    Recover(RecoverArgs),
    /// Let a node that waits for others found a cluster without them
    ///
    /// A node with --join founds only once all others have answered that they know no cluster. This is
    /// for when some of them will not come. Two nodes that are told so found two clusters.
    Found(AskArgs),
    /// Torment a throw-away cluster of this program on this machine, and judge what clients saw
    ///
    /// Starts real nodes, lets clients write and read, and meanwhile kills, pauses, cuts off and restarts
    /// nodes, loses, delays and reorders their packets, and sets their clocks wrong. Then everything is
    /// mended, the cluster has to become whole, all is read, and the history of every key is judged: is
    /// there one order of all operations that explains all answers, and is no acknowledged write gone?
    ///
    /// Nothing outside the cluster is touched: nodes listen in networks of their own, which exist only while
    /// this runs. That takes Linux, the programs `ip`, `nsenter`, `setpriv` and `unshare` (packages iproute2
    /// and util-linux), and root or a system that lets users make namespaces. Elsewhere nodes share the
    /// loopback interface, and the faults that need networks are left out. Wrong clocks take libfaketime.
    /// What was left out is told.
    ///
    /// Exits with 0 if nothing was found wrong, and with 1 if a promise was broken or a fault that should
    /// have been tested never happened.
    Prove(ProveArgs),
    /// Print the version
    Version,
}

#[derive(Args)]
pub(crate) struct NodeArgs {
    /// Read settings from a TOML file
    ///
    /// Its keys are the names of the flags below: `listen = "10.0.0.5:6379"`, `maxmemory = "1gb"`,
    /// `join = ["10.0.0.6:16379"]`. A flag wins over its variable, the variable over the file, and the
    /// file over the default. An unknown key is an error.
    #[arg(long, env = "HOARD_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) settings: NodeSettings,
}

/// The settings of a node, each of which may be absent: one layer, to be laid over another.
#[derive(Args, Deserialize, Default)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct NodeSettings {
    /// Redis protocol for cluster clients: serves the keys that this node leads, redirects for the
    /// others. A port alone listens on 127.0.0.1 [default: 127.0.0.1:6379]
    #[arg(long, env = "HOARD_LISTEN", value_name = "IP:PORT", help_heading = ADDRESSES)]
    #[serde(deserialize_with = "written")]
    pub(crate) listen: Option<Endpoint>,

    /// Redis protocol for any client: looks like one standalone server, and forwards every key to its
    /// leader [default: port of --listen + 1000]
    #[arg(long, env = "HOARD_ANY_KEY", value_name = "IP:PORT", help_heading = ADDRESSES)]
    #[serde(deserialize_with = "written")]
    pub(crate) any_key: Option<Endpoint>,

    /// HTTP: /metrics, /health, /ready and /api. Whoever reaches it can let nodes leave
    /// [default: port of --listen + 2000]
    #[arg(long, env = "HOARD_HTTP", value_name = "IP:PORT", help_heading = ADDRESSES)]
    #[serde(deserialize_with = "written")]
    pub(crate) http: Option<Endpoint>,

    /// Other nodes: TCP for data, UDP for gossip. This is the address that --join takes
    /// [default: port of --listen + 10000]
    #[arg(long, env = "HOARD_PEER", value_name = "IP:PORT", help_heading = ADDRESSES)]
    #[serde(deserialize_with = "written")]
    pub(crate) peer: Option<Endpoint>,

    /// Where clients and other nodes reach this one, if that is not the address listened on; needed with
    /// 0.0.0.0. A name is resolved once, at start [default: the address listened on]
    #[arg(long, env = "HOARD_ADVERTISE", value_name = "HOST", help_heading = ADDRESSES)]
    #[serde(deserialize_with = "written")]
    pub(crate) advertise: Option<Host>,

    /// Peer addresses of the cluster to join; one that answers is enough. May name this node too
    #[arg(
        long, env = "HOARD_JOIN", value_name = "ADDR[,ADDR…]", value_delimiter = ',',
        help_heading = CLUSTER
    )]
    #[serde(deserialize_with = "list")]
    pub(crate) join: Option<Vec<Remote>>,

    /// What people call this node. It outlives restarts, and no two nodes share one
    /// [default: the peer address]
    #[arg(long, env = "HOARD_NAME", value_name = "NAME", help_heading = CLUSTER)]
    pub(crate) name: Option<String>,

    /// What fails together with this node, such as its rack or its data centre: copies are spread over
    /// zones [default: none]
    #[arg(long, env = "HOARD_ZONE", value_name = "ZONE", help_heading = CLUSTER)]
    pub(crate) zone: Option<String>,

    /// A secret that all nodes share, in a file: peers without it are refused, on TCP and in gossip
    /// [default: none]
    #[arg(long, env = "HOARD_SECRET_FILE", value_name = "FILE", help_heading = CLUSTER)]
    pub(crate) secret_file: Option<PathBuf>,

    /// How long SIGTERM, `hoard leave` and `hoard drain` may take to hand over what the node holds
    /// [default: 20s]
    #[arg(long, env = "HOARD_LEAVE_TIMEOUT", value_name = "TIME", help_heading = CLUSTER)]
    #[serde(deserialize_with = "written")]
    pub(crate) leave_timeout: Option<Span>,

    /// Copies of every key, 1 to 7 [default: 3]
    #[arg(long, env = "HOARD_REPLICAS", value_name = "N", help_heading = FOUNDING)]
    #[serde(deserialize_with = "written")]
    pub(crate) replicas: Option<Whole<1, 7>>,

    /// Copies below which a partition refuses writes, 1 to 7 and at most --replicas [default: 1]
    #[arg(long, env = "HOARD_MIN_REPLICAS", value_name = "N", help_heading = FOUNDING)]
    #[serde(deserialize_with = "written")]
    pub(crate) min_replicas: Option<Whole<1, 7>>,

    /// Partitions, 1 to 1024: a few per node let them balance, and fewer are faster [default: 8]
    #[arg(long, env = "HOARD_PARTITIONS", value_name = "N", help_heading = FOUNDING)]
    #[serde(deserialize_with = "written")]
    pub(crate) partitions: Option<Whole<1, 1024>>,

    /// How long a node must be gone before its copies are made anew elsewhere, 450ms to 49d
    /// [default: 30s]
    #[arg(long, env = "HOARD_REPLACE_AFTER", value_name = "TIME", help_heading = FOUNDING)]
    #[serde(deserialize_with = "written")]
    pub(crate) replace_after: Option<Span>,

    /// Memory for keys and values, the copies held for other nodes included; 0 is no limit [default: 0]
    #[arg(long, env = "HOARD_MAXMEMORY", value_name = "SIZE", help_heading = MEMORY)]
    #[serde(deserialize_with = "written")]
    pub(crate) maxmemory: Option<Bytes>,

    /// What goes when --maxmemory is used up: noeviction (writes are refused), allkeys-lru, allkeys-lfu,
    /// allkeys-random, volatile-lru, volatile-lfu, volatile-random or volatile-ttl [default: noeviction]
    #[arg(long, env = "HOARD_MAXMEMORY_POLICY", value_name = "POLICY", help_heading = MEMORY)]
    #[serde(deserialize_with = "written")]
    pub(crate) maxmemory_policy: Option<Eviction>,

    /// The largest value, and the largest argument of a command, 1kb to 512mb [default: 64mb]
    #[arg(long, env = "HOARD_MAX_VALUE", value_name = "SIZE", help_heading = MEMORY)]
    #[serde(deserialize_with = "written")]
    pub(crate) max_value: Option<Bytes>,

    /// Memory for copies of keys that other nodes lead, beside --maxmemory; used for clients that take
    /// copies alone. 0: none are kept [default: 64mb]
    #[arg(long, env = "HOARD_NEAR_CACHE_BYTES", value_name = "SIZE", help_heading = MEMORY)]
    #[serde(deserialize_with = "written")]
    pub(crate) near_cache_bytes: Option<Bytes>,

    /// Not in this release: keys live in memory, in several copies. Naming a directory is an error, so
    /// that nobody relies on one
    #[arg(long, env = "HOARD_DATA_DIR", value_name = "DIR", help_heading = MEMORY)]
    pub(crate) data_dir: Option<PathBuf>,

    /// Password that clients give with AUTH; better set as a variable or in the file than as a flag,
    /// which others on the machine can see [default: none]
    #[arg(
        long, env = "HOARD_REQUIREPASS", value_name = "PASSWORD", hide_env_values = true,
        help_heading = CLIENTS
    )]
    pub(crate) requirepass: Option<String>,

    /// Clients at a time, of both Redis ports together; fewer, with a warning, if the process may not
    /// open so many files and 256 more (ulimit -Hn) [default: 10000]
    #[arg(long, env = "HOARD_MAX_CLIENTS", value_name = "N", help_heading = CLIENTS)]
    #[serde(deserialize_with = "written")]
    pub(crate) max_clients: Option<Whole<1, 1_000_000>>,

    /// How long a write may wait for a majority before its client is told that it is in doubt
    /// [default: 2s]
    #[arg(long, env = "HOARD_WRITE_TIMEOUT", value_name = "TIME", help_heading = CLIENTS)]
    #[serde(deserialize_with = "written")]
    pub(crate) write_timeout: Option<Span>,

    /// How --any-key answers GET and MGET of keys that other nodes lead: leader (the leader is asked, and
    /// reads are linearizable) or near (from copies, which may be old by --near-max-staleness). A client
    /// chooses for itself with CLIENT NEAR ON or OFF [default: leader]
    #[arg(long, env = "HOARD_ANY_KEY_READS", value_name = "leader|near", help_heading = CLIENTS)]
    #[serde(deserialize_with = "written")]
    pub(crate) any_key_reads: Option<Reads>,

    /// How old a copy may be that is served, whatever is lost between nodes, 20ms to 60s [default: 200ms]
    #[arg(long, env = "HOARD_NEAR_MAX_STALENESS", value_name = "TIME", help_heading = CLIENTS)]
    #[serde(deserialize_with = "written")]
    pub(crate) near_max_staleness: Option<Span>,

    /// Threads that serve, 1 to 256. One costs 20 to 30 % less CPU per command than two, since nothing
    /// crosses threads and batches grow; to use more cores, first run more nodes [default: 1]
    #[arg(long, env = "HOARD_THREADS", value_name = "N", help_heading = PROCESS)]
    #[serde(deserialize_with = "written")]
    pub(crate) threads: Option<Whole<1, 256>>,

    /// What to log to stderr: error, warn, info, debug, trace or off, or a filter such as
    /// scatterhoard_cluster=debug,openraft=info [default: info]
    #[arg(long, env = "HOARD_LOG", value_name = "LEVEL|FILTER", help_heading = PROCESS)]
    #[serde(deserialize_with = "written")]
    pub(crate) log: Option<Log>,
}

const ADDRESSES: &str = "Addresses";
const CLUSTER: &str = "Cluster";
const FOUNDING: &str = "Founding (a cluster keeps what its founder was told)";
const MEMORY: &str = "Memory";
const CLIENTS: &str = "Clients";
const PROCESS: &str = "Process";

/// Which node to ask.
#[derive(Args)]
pub(crate) struct AskArgs {
    /// HTTP address of the node to ask
    #[arg(long, env = "HOARD_HTTP", value_name = "ADDR", default_value = "127.0.0.1:8379")]
    pub(crate) http: Site,
}

#[derive(Args)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    pub(crate) ask: AskArgs,

    /// Print the node's answer as it came, in JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args)]
pub(crate) struct ReadyArgs {
    #[command(flatten)]
    pub(crate) ask: AskArgs,

    /// How long to wait for it [default: ask once]
    #[arg(long, value_name = "TIME")]
    pub(crate) wait: Option<Span>,
}

#[derive(Args)]
pub(crate) struct RecoverArgs {
    #[command(flatten)]
    pub(crate) ask: AskArgs,

    /// A node whose process has ended and will not come back as it was: its name, as `hoard status`
    /// shows it. Wrong, this loses what only that node has. May be given several times
    #[arg(long, value_name = "NAME")]
    pub(crate) ended: Vec<String>,
}

#[derive(Args)]
pub(crate) struct DrainArgs {
    /// Name of the node that shall leave, as `hoard status` shows it
    #[arg(value_name = "NODE")]
    pub(crate) node: String,

    #[command(flatten)]
    pub(crate) ask: AskArgs,
}

/// The `host:port` of a node's HTTP interface; also written as a port, or with `http://` before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Site(Remote);

impl FromStr for Site {
    type Err = crate::address::AddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/');
        match text.parse::<u16>() {
            Ok(port) => format!("127.0.0.1:{port}").parse().map(Self),
            Err(_) => text.parse().map(Self),
        }
    }
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// A whole number from `MIN` to `MAX`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Whole<const MIN: u32, const MAX: u32>(u32);

impl<const MIN: u32, const MAX: u32> Whole<MIN, MAX> {
    /// The number, in a type that holds `MAX`.
    pub(crate) fn into_number<N: TryFrom<u32>>(self) -> N {
        let Ok(number) = N::try_from(self.0) else {
            unreachable!("{MAX} fits the type it is asked for in")
        };
        number
    }
}

impl<const MIN: u32, const MAX: u32> FromStr for Whole<MIN, MAX> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            Ok(number) if (MIN..=MAX).contains(&number) => Ok(Self(number)),
            _ => Err(format!("expected a whole number from {MIN} to {MAX}")),
        }
    }
}

/// A policy under Redis's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Eviction(pub(crate) scatterhoard_store::Policy);

impl FromStr for Eviction {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse().map(Self).map_err(|_| {
            let names = scatterhoard_store::Policy::ALL.map(scatterhoard_store::Policy::name);
            format!("expected one of {}", names.join(", "))
        })
    }
}

/// How the any-key port answers reads.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reads(pub(crate) AnyKeyReads);

impl FromStr for Reads {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "leader" => Ok(Self(AnyKeyReads::Leader)),
            "near" => Ok(Self(AnyKeyReads::Near)),
            _ => Err("expected leader or near".to_owned()),
        }
    }
}

/// What to log: a level for everything of ours, or a filter of tracing-subscriber's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Log(String);

impl Log {
    /// The filter, with a lone level spelled out: dependencies only warn, whatever ours do, and openraft
    /// does not even that unless ours are debugged. It warns of every message that a node which goes
    /// or comes does not answer; what follows from that is in our own log.
    pub(crate) fn directives(&self) -> String {
        match self.0.as_str() {
            level @ ("warn" | "info") => {
                format!("warn,openraft=error,hoard={level},scatterhoard={level}")
            }
            level @ ("debug" | "trace") => format!("warn,hoard={level},scatterhoard={level}"),
            other => other.to_owned(),
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self("info".to_owned())
    }
}

impl FromStr for Log {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let log = Self(text.trim().to_ascii_lowercase());
        match tracing_subscriber::EnvFilter::try_new(log.directives()) {
            Ok(_) if !log.0.is_empty() => Ok(log),
            Ok(_) => Err("expected a level or a filter".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// Reads a setting of the file as its flag is read: a string, or a bare number.
fn written<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err: fmt::Display>,
{
    struct Written;

    impl de::Visitor<'_> for Written {
        type Value = String;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a string or a number")
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<String, E> {
            Ok(text.to_owned())
        }

        fn visit_i64<E: de::Error>(self, number: i64) -> Result<String, E> {
            Ok(number.to_string())
        }
    }

    let text = deserializer.deserialize_any(Written)?;
    text.parse().map(Some).map_err(|error: T::Err| de::Error::custom(format!("`{text}`: {error}")))
}

/// Reads a list of the file: of strings, each read as its flag reads it.
fn list<'de, D>(deserializer: D) -> Result<Option<Vec<Remote>>, D::Error>
where
    D: Deserializer<'de>,
{
    let parse = |text: String| {
        text.parse().map_err(|error| de::Error::custom(format!("`{text}`: {error}")))
    };
    Vec::deserialize(deserializer)?.into_iter().map(parse).collect::<Result<_, _>>().map(Some)
}

#[cfg(test)]
mod tests;
