use clap::Parser;

use super::*;
use scatterhoard_node::AnyKeyReads;
use scatterhoard_prove::args::one_line;

use crate::args::{Cli, Command};

/// Settings of `hoard node` with these flags. The file of `--config`, if any, has this content.
fn settings(flags: &str, file: Option<&str>) -> Result<Settings, SettingsError> {
    let Command::Node(mut args) =
        Cli::try_parse_from(words(&format!("node {flags}"))).unwrap().command
    else {
        panic!("a node was asked for")
    };
    let file = file.map(TempFile::with);
    args.config = file.as_ref().map(|file| file.0.clone());
    Settings::of(*args)
}

fn words(line: &str) -> impl Iterator<Item = &str> {
    std::iter::once("hoard").chain(line.split_whitespace())
}

/// What is printed for a command line that clap refuses.
pub(crate) fn refused_line(line: &str) -> String {
    match Cli::try_parse_from(words(line)) {
        Ok(_) => panic!("{line} is accepted"),
        Err(error) => one_line(&error),
    }
}

/// A file that is gone when it goes out of scope.
struct TempFile(PathBuf);

impl TempFile {
    fn with(content: &str) -> Self {
        use std::hash::{BuildHasher, Hasher};
        let unique = std::hash::RandomState::new().build_hasher().finish();
        let path = std::env::temp_dir().join(format!("hoard-settings-{unique:016x}.toml"));
        fs::write(&path, content).unwrap();
        Self(path)
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        let _left_behind = fs::remove_file(&self.0);
    }
}

fn refused(flags: &str, file: Option<&str>) -> (String, bool) {
    let error = settings(flags, file).unwrap_err();
    (error.to_string(), error.is_usage())
}

#[test]
fn without_settings_the_defaults_hold() {
    let settings = settings("", None).unwrap();
    assert_eq!(format!("{:?}", settings.config), format!("{:?}", Config::default()));
    assert_eq!(settings.threads, 1);
}

#[test]
fn the_other_ports_follow_the_listening_one() {
    let config = settings("--listen 10.0.0.5:7001", None).unwrap().config;
    assert_eq!(config.any_key, "10.0.0.5:8001".parse().unwrap());
    assert_eq!(config.http, "10.0.0.5:9001".parse().unwrap());
    assert_eq!(config.peer, "10.0.0.5:17001".parse().unwrap());

    let config = settings("--listen 10.0.0.5:7001 --http 80 --peer [::1]:9", None).unwrap().config;
    assert_eq!(config.http, "10.0.0.5:80".parse().unwrap());
    assert_eq!(config.peer, "[::1]:9".parse().unwrap());
}

#[test]
fn a_port_past_the_last_is_refused_until_it_is_named() {
    assert_eq!(
        refused("--listen 60000", None),
        (
            "--peer would be port 70000 (that of --listen and 10000), but the last is 65535: name one \
             with --peer, or listen on a lower port"
                .to_owned(),
            true
        )
    );
    let config = settings("--listen 60000 --peer 5000", None).unwrap().config;
    assert_eq!(config.peer.port(), 5000);
}

#[test]
fn a_flag_wins_over_the_file_and_the_file_over_the_default() {
    let file = r#"
        listen = "127.0.0.1:7001"
        zone = "b"
        join = ["10.0.0.6:17001", "cache-2:17001"]
        replicas = 5
        min-replicas = "2"
        maxmemory = "1gb"
        maxmemory-policy = "allkeys-lfu"
        max-value = 1048576
        near-cache-bytes = "1mb"
        near-max-staleness = "100ms"
        any-key-reads = "near"
        write-timeout = "200ms"
        requirepass = "from the file"
        threads = 2
        log = "debug"
    "#;
    let settings = settings("--zone a --threads 4", Some(file)).unwrap();
    let config = settings.config;
    assert_eq!(config.zone, "a");
    assert_eq!(settings.threads, 4);
    assert_eq!(config.listen.port(), 7001);
    assert_eq!(config.join, ["10.0.0.6:17001", "cache-2:17001"]);
    assert_eq!((config.replicas, config.replicas_min), (5, 2));
    assert_eq!(config.maxmemory, 1 << 30);
    assert_eq!(config.maxmemory_policy, scatterhoard_store::Policy::AllKeysLfu);
    assert_eq!(config.value_bytes_max, 1 << 20);
    assert_eq!(config.near_cache_bytes, 1 << 20);
    assert_eq!(config.near_staleness_max, Duration::from_millis(100));
    assert_eq!(config.any_key_reads, AnyKeyReads::Near);
    assert_eq!(config.write_timeout, Duration::from_millis(200));
    assert_eq!(config.requirepass.as_deref(), Some("from the file"));
    assert_eq!(config.partitions, Config::default().partitions);
}

#[test]
fn a_list_to_join_is_written_with_commas() {
    let config = settings("--join 127.0.0.1:17001,127.0.0.1:17002", None).unwrap().config;
    assert_eq!(config.join, ["127.0.0.1:17001", "127.0.0.1:17002"]);
}

#[test]
fn a_mistake_in_the_file_is_named_with_its_place() {
    let check = |file: &str, place: &str, said: &str| {
        let (line, is_usage) = refused("", Some(file));
        let (_, at) = line.split_once(".toml").unwrap();
        assert_eq!(at, format!("{place}: {said}"));
        assert!(is_usage);
    };
    check("zone = 'a'\nlissten = 7001", ":2", "unknown key `lissten`");
    check("config = 'other.toml'", ":1", "unknown key `config`");
    check("\n\nreplicas = 9", ":3", "`9`: expected a whole number from 1 to 7");
    check(
        "write-timeout = 2",
        ":1",
        "`2`: a time is a whole number and a unit, such as 200ms, 30s or 5m",
    );
    check("join = ['x']", ":1", "`x`: expected HOST:PORT, such as 10.0.0.5:16379");
    let (line, _) = refused("", Some("zone = "));
    assert!(line.contains(".toml:1: ") && !line.contains('\n'), "{line}");
}

#[test]
fn what_cannot_be_read_is_named() {
    let Command::Node(args) =
        Cli::try_parse_from(words("node --config /nowhere/a.toml")).unwrap().command
    else {
        panic!("a node was asked for")
    };
    let error = Settings::of(*args).unwrap_err();
    assert!(error.to_string().starts_with("cannot read the configuration /nowhere/a.toml: "));
    assert!(!error.is_usage());

    let (line, is_usage) = refused("--secret-file /nowhere/secret", None);
    assert!(line.starts_with("cannot read the secret /nowhere/secret: "), "{line}");
    assert!(!is_usage);
}

#[test]
fn a_secret_is_read_from_its_file_and_an_empty_one_is_refused() {
    let secret = TempFile::with("open sesame\n");
    let flags = format!("--secret-file {}", secret.0.display());
    assert!(settings(&flags, None).unwrap().config.secret.is_some());

    let empty = TempFile::with("\n");
    let (line, _) = refused(&format!("--secret-file {}", empty.0.display()), None);
    assert!(line.ends_with(": the secret is empty"), "{line}");
}

#[test]
fn what_makes_no_sense_is_refused() {
    let check = |flags: &str, said: &str| assert_eq!(refused(flags, None), (said.to_owned(), true));
    check(
        "--data-dir /var/lib/hoard",
        "--data-dir /var/lib/hoard: data directories come with a later release; this one keeps keys in \
         memory only",
    );
    check("--min-replicas 4", "--min-replicas 4 is more than --replicas 3");
    check("--max-value 1b", "--max-value 1 is not between 1kb and 512mb");
    check("--max-value 1gb", "--max-value 1gb is not between 1kb and 512mb");
    let not_between = |time| format!("--near-max-staleness {time} is not between 20ms and 60s");
    check("--near-max-staleness 19ms", &not_between("19ms"));
    check("--near-max-staleness 61s", &not_between("61s"));
    check("--write-timeout 0s", "--write-timeout is 0: every write would be in doubt");
    check(
        "--replace-after 449ms",
        "--replace-after 449ms is less than 450ms, which is how long followers may wait before they elect \
         another leader",
    );
    check(
        "--replace-after 50d",
        "--replace-after is more than 49 days, the longest that a cluster can be told",
    );
    let long = "é".repeat(33);
    check(&format!("--name {long}"), "--name has 66 bytes, and may have 64");
    check(&format!("--zone {long}"), "--zone has 66 bytes, and may have 64");
    check(
        "--listen 0.0.0.0:6379",
        "0.0.0.0:6379 listens on every address: say with --advertise which one others reach",
    );
    check("--advertise 0.0.0.0", "--advertise 0.0.0.0 is no address that others can reach");
}

#[test]
fn what_is_just_allowed_is_taken() {
    for flags in ["--replace-after 450ms", "--replace-after 49d", "--min-replicas 3"] {
        assert!(settings(flags, None).is_ok(), "{flags}");
    }
    let longest = "n".repeat(64);
    let config = settings(&format!("--name {longest} --zone {longest}"), None).unwrap().config;
    assert_eq!((config.name, config.zone), (Some(longest.clone()), longest));
}

#[test]
fn everywhere_is_fine_with_an_address_for_others() {
    let config = settings("--listen 0.0.0.0:6379 --advertise 10.0.0.5", None).unwrap().config;
    assert_eq!(config.advertise, Some(IpAddr::from([10, 0, 0, 5])));
    assert_eq!(config.peer, "0.0.0.0:16379".parse().unwrap());
}
