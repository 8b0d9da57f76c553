//! Lays the settings of a node over one another: flag over variable over file over default; and derives
//! what follows from them. Starts nothing.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use scatterhoard_cluster::Secret;
use scatterhoard_node::Config;

use crate::address::{Endpoint, Host};
use crate::args::{Log, NodeArgs, NodeSettings, Whole};
use crate::measure::{Bytes, Span};

/// How far the other ports are from that of `--listen`, unless they are named.
const ANY_KEY_OFFSET: u16 = 1000;
const HTTP_OFFSET: u16 = 2000;
const PEER_OFFSET: u16 = 10_000;

/// Bounds of `--max-value`. Clients cannot do without short arguments; Redis, `proto-max-bulk-len`,
/// has 512mb.
const VALUE_BYTES: std::ops::RangeInclusive<u64> = 1 << 10..=512 << 20;

/// What a node needs to run: its own configuration, and its process's.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) config: Config,
    pub(crate) threads: usize,
    pub(crate) log: Log,
}

/// Why there are no settings. Nothing was started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SettingsError {
    #[error("cannot read the configuration {}: {error}", path.display())]
    ConfigUnreadable { path: PathBuf, error: std::io::Error },
    #[error("{place}: {message}")]
    Config { place: String, message: String },
    #[error("cannot read the secret {}: {error}", path.display())]
    SecretUnreadable { path: PathBuf, error: std::io::Error },
    #[error("{}: {error}", path.display())]
    Secret { path: PathBuf, error: scatterhoard_cluster::SecretError },
    #[error("cannot resolve --advertise {host}: {reason}")]
    Advertise { host: Host, reason: String },
    #[error(
        "--{flag} would be port {port} (that of --listen and {offset}), but the last is 65535: name \
         one with --{flag}, or listen on a lower port"
    )]
    PortPastLast { flag: &'static str, port: u32, offset: u16 },
    #[error("{address} listens on every address: say with --advertise which one others reach")]
    AdvertiseMissing { address: SocketAddr },
    #[error("--advertise {ip} is no address that others can reach")]
    AdvertiseUnspecified { ip: IpAddr },
    #[error("--min-replicas {minimum} is more than --replicas {replicas}")]
    MinReplicas { minimum: u8, replicas: u8 },
    #[error("--max-value {0} is not between 1kb and 512mb")]
    MaxValue(Bytes),
    #[error("--near-max-staleness {0:?} is not between 20ms and 60s")]
    NearMaxStaleness(Duration),
    #[error("--write-timeout is 0: every write would be in doubt")]
    WriteTimeout,
    #[error(
        "--replace-after {0:?} is less than {least:?}, which is how long followers may wait before they \
         elect another leader",
        least = Config::replace_after_bounds().start()
    )]
    ReplaceAfterShort(Duration),
    #[error("--replace-after is more than 49 days, the longest that a cluster can be told")]
    ReplaceAfterLong,
    #[error("--name is empty")]
    Name,
    #[error("--{flag} has {bytes} bytes, and may have {}", Config::LABEL_BYTES_MAX)]
    Label { flag: &'static str, bytes: usize },
    #[error(
        "--data-dir {}: data directories come with a later release; this one keeps keys in memory only",
        path.display()
    )]
    DataDir { path: PathBuf },
}

impl SettingsError {
    /// Whether what was asked for is wrong, rather than something that it needs.
    pub(crate) const fn is_usage(&self) -> bool {
        match self {
            Self::ConfigUnreadable { .. }
            | Self::SecretUnreadable { .. }
            | Self::Secret { .. }
            | Self::Advertise { .. } => false,
            Self::Config { .. }
            | Self::PortPastLast { .. }
            | Self::AdvertiseMissing { .. }
            | Self::AdvertiseUnspecified { .. }
            | Self::MinReplicas { .. }
            | Self::MaxValue(_)
            | Self::NearMaxStaleness(_)
            | Self::WriteTimeout
            | Self::ReplaceAfterShort(_)
            | Self::ReplaceAfterLong
            | Self::Name
            | Self::Label { .. }
            | Self::DataDir { .. } => true,
        }
    }
}

impl Settings {
    /// The settings that flags and variables (`args`) and the file that they name add up to. Reads that
    /// file and the secret's, and resolves the advertised name.
    pub(crate) fn of(args: NodeArgs) -> Result<Self, SettingsError> {
        let file = match &args.config {
            Some(path) => read(path)?,
            None => NodeSettings::default(),
        };
        let settings = args.settings.over(file);
        let threads = settings.threads.map_or(1, Whole::into_number::<u16>);
        let log = settings.log.clone().unwrap_or_default();
        Ok(Self { config: config(settings)?, threads: usize::from(threads), log })
    }
}

fn read(path: &Path) -> Result<NodeSettings, SettingsError> {
    let text = fs::read_to_string(path)
        .map_err(|error| SettingsError::ConfigUnreadable { path: path.to_owned(), error })?;
    parse(&text).map_err(|Misread { line, message }| SettingsError::Config {
        place: format!("{}:{line}", path.display()),
        message,
    })
}

/// What is wrong with a file, and where.
#[derive(Debug)]
pub(crate) struct Misread {
    /// From 1.
    pub(crate) line: usize,
    /// One line.
    pub(crate) message: String,
}

/// The settings in a file with this content.
pub(crate) fn parse(text: &str) -> Result<NodeSettings, Misread> {
    toml::from_str(text).map_err(|error| {
        let line = error.span().map_or(1, |span| {
            1 + text.bytes().take(span.start).filter(|&byte| byte == b'\n').count()
        });
        // The message goes on with all keys there are; `hoard node --help` lists them readably.
        let message = error.message().split(", expected one of").next().unwrap_or_default();
        Misread {
            line,
            message: message.replace("unknown field", "unknown key").replace('\n', " "),
        }
    })
}

impl NodeSettings {
    /// What is set here, and from `under` what is not.
    fn over(self, under: Self) -> Self {
        Self {
            listen: self.listen.or(under.listen),
            any_key: self.any_key.or(under.any_key),
            http: self.http.or(under.http),
            peer: self.peer.or(under.peer),
            advertise: self.advertise.or(under.advertise),
            join: self.join.or(under.join),
            name: self.name.or(under.name),
            zone: self.zone.or(under.zone),
            secret_file: self.secret_file.or(under.secret_file),
            leave_timeout: self.leave_timeout.or(under.leave_timeout),
            replicas: self.replicas.or(under.replicas),
            min_replicas: self.min_replicas.or(under.min_replicas),
            partitions: self.partitions.or(under.partitions),
            replace_after: self.replace_after.or(under.replace_after),
            maxmemory: self.maxmemory.or(under.maxmemory),
            maxmemory_policy: self.maxmemory_policy.or(under.maxmemory_policy),
            max_value: self.max_value.or(under.max_value),
            near_cache_bytes: self.near_cache_bytes.or(under.near_cache_bytes),
            data_dir: self.data_dir.or(under.data_dir),
            requirepass: self.requirepass.or(under.requirepass),
            max_clients: self.max_clients.or(under.max_clients),
            write_timeout: self.write_timeout.or(under.write_timeout),
            any_key_reads: self.any_key_reads.or(under.any_key_reads),
            near_max_staleness: self.near_max_staleness.or(under.near_max_staleness),
            threads: self.threads.or(under.threads),
            log: self.log.or(under.log),
        }
    }
}

/// What a node is told by these settings. Reads the secret's file, and resolves the advertised name.
pub(crate) fn config(settings: NodeSettings) -> Result<Config, SettingsError> {
    refuse(&settings)?;
    let default = Config::default();
    let span = |span: Option<Span>, default: Duration| span.map_or(default, |span| span.0);
    let addresses = Addresses::of(&settings)?;
    let value_bytes_max = match settings.max_value {
        Some(Bytes(bytes)) => usize::try_from(bytes).expect("512mb fits"),
        None => default.value_bytes_max,
    };
    Ok(Config {
        name: settings.name,
        zone: settings.zone.unwrap_or(default.zone),
        listen: addresses.listen,
        any_key: addresses.any_key,
        http: addresses.http,
        peer: addresses.peer,
        advertise: addresses.advertise,
        join: settings.join.into_iter().flatten().map(|addr| addr.into_string()).collect(),
        replicas: settings.replicas.map_or(default.replicas, Whole::into_number),
        replicas_min: settings.min_replicas.map_or(default.replicas_min, Whole::into_number),
        partitions: settings.partitions.map_or(default.partitions, Whole::into_number),
        replace_after: span(settings.replace_after, default.replace_after),
        maxmemory: settings.maxmemory.map_or(default.maxmemory, |bytes| bytes.0),
        maxmemory_policy: settings.maxmemory_policy.map_or(default.maxmemory_policy, |p| p.0),
        value_bytes_max,
        clients_max: settings
            .max_clients
            .map_or(default.clients_max, |n| n.into_number::<u32>() as usize),
        clients_limit: default.clients_limit,
        requirepass: settings.requirepass.filter(|password| !password.is_empty()),
        secret: settings.secret_file.map(secret).transpose()?,
        log_bytes_max: default.log_bytes_max,
        near_cache_bytes: settings.near_cache_bytes.map_or(default.near_cache_bytes, |it| it.0),
        near_staleness_max: span(settings.near_max_staleness, default.near_staleness_max),
        any_key_reads: settings.any_key_reads.map_or(default.any_key_reads, |it| it.0),
        write_timeout: span(settings.write_timeout, default.write_timeout),
        leave_timeout: span(settings.leave_timeout, default.leave_timeout),
    })
}

/// Refuses what each setting alone allows.
fn refuse(settings: &NodeSettings) -> Result<(), SettingsError> {
    if let Some(path) = &settings.data_dir {
        return Err(SettingsError::DataDir { path: path.clone() });
    }
    let default = Config::default();
    let replicas = settings.replicas.map_or(default.replicas, Whole::into_number);
    let minimum = settings.min_replicas.map_or(default.replicas_min, Whole::into_number);
    if minimum > replicas {
        return Err(SettingsError::MinReplicas { minimum, replicas });
    }
    if let Some(size) = settings.max_value
        && !VALUE_BYTES.contains(&size.0)
    {
        return Err(SettingsError::MaxValue(size));
    }
    if settings.write_timeout.is_some_and(|timeout| timeout.0.is_zero()) {
        return Err(SettingsError::WriteTimeout);
    }
    if let Some(Span(time)) = settings.near_max_staleness
        && !Config::near_staleness_bounds().contains(&time)
    {
        return Err(SettingsError::NearMaxStaleness(time));
    }
    if let Some(Span(time)) = settings.replace_after {
        let bounds = Config::replace_after_bounds();
        if time < *bounds.start() {
            return Err(SettingsError::ReplaceAfterShort(time));
        }
        if time > *bounds.end() {
            return Err(SettingsError::ReplaceAfterLong);
        }
    }
    if settings.name.as_deref().is_some_and(|name| name.trim().is_empty()) {
        return Err(SettingsError::Name);
    }
    for (flag, label) in [("name", &settings.name), ("zone", &settings.zone)] {
        let bytes = label.as_deref().map_or(0, str::len);
        if bytes > Config::LABEL_BYTES_MAX {
            return Err(SettingsError::Label { flag, bytes });
        }
    }
    Ok(())
}

struct Addresses {
    listen: SocketAddr,
    any_key: SocketAddr,
    http: SocketAddr,
    peer: SocketAddr,
    advertise: Option<IpAddr>,
}

impl Addresses {
    fn of(settings: &NodeSettings) -> Result<Self, SettingsError> {
        let listen = settings.listen.map_or(Config::default().listen, Endpoint::socket);
        let beside = |named: Option<Endpoint>, flag, offset| match named {
            Some(endpoint) => Ok(endpoint.on(listen.ip())),
            None => match listen.port().checked_add(offset) {
                Some(port) => Ok(SocketAddr::new(listen.ip(), port)),
                None => {
                    let port = u32::from(listen.port()) + u32::from(offset);
                    Err(SettingsError::PortPastLast { flag, port, offset })
                }
            },
        };
        let any_key = beside(settings.any_key, "any-key", ANY_KEY_OFFSET)?;
        let http = beside(settings.http, "http", HTTP_OFFSET)?;
        let peer = beside(settings.peer, "peer", PEER_OFFSET)?;
        let advertise =
            settings.advertise.as_ref().map(|host| resolve(host, listen.ip())).transpose()?;
        let everywhere = [listen, any_key, peer].into_iter().find(|at| at.ip().is_unspecified());
        match (advertise, everywhere) {
            (Some(ip), _) if ip.is_unspecified() => Err(SettingsError::AdvertiseUnspecified { ip }),
            (None, Some(address)) => Err(SettingsError::AdvertiseMissing { address }),
            _ => Ok(Self { listen, any_key, http, peer, advertise }),
        }
    }
}

fn resolve(host: &Host, like: IpAddr) -> Result<IpAddr, SettingsError> {
    let failed = |reason: String| SettingsError::Advertise { host: host.clone(), reason };
    match host.resolve(like) {
        Ok(Some(ip)) => Ok(ip),
        Ok(None) => Err(failed("it has no address".to_owned())),
        Err(error) => Err(failed(error.to_string())),
    }
}

fn secret(path: PathBuf) -> Result<Secret, SettingsError> {
    match fs::read(&path) {
        Ok(content) => {
            Secret::parse(&content).map_err(|error| SettingsError::Secret { path, error })
        }
        Err(error) => Err(SettingsError::SecretUnreadable { path, error }),
    }
}

#[cfg(test)]
pub(crate) mod tests;
