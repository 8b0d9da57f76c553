//! What people already have works unchanged: `redis-cli`, `redis-benchmark`, and the `redis` crate, on
//! the cluster port with a cluster client and on the any-key port with a plain one.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use redis::{Commands, cluster::ClusterClient, cluster::cluster_pipe};
use scatterhoard_tests::process::Cluster;
use scatterhoard_tests::process::client::{Attempt, Client};
use scatterhoard_tests::process::resp::Value;
use scatterhoard_tests::process::tool::{Finished, run};

/// Keys in a batch: enough to meet every partition.
const KEYS_COUNT: u32 = 100;

#[test]
fn redis_cli_follows_redirections_and_finds_the_cluster_whole() {
    let cluster = Cluster::of(3);
    let port = port(cluster.listens()[0]);
    for number in 0..20 {
        let key = format!("key:{number}");
        assert_eq!(cli(&["-c", "-p", &port, "SET", &key, &number.to_string()]), "OK");
        assert_eq!(cli(&["-c", "-p", &port, "GET", &key]), number.to_string());
    }
    assert_eq!(cli(&["-c", "-p", &port, "INCR", "counter"]), "1");
    assert_eq!(cli(&["-c", "-p", &port, "DEL", "counter"]), "1");
    let errors = cli(&["-p", &port, "INFO", "errorstats"]);
    assert!(errors.contains("errorstat_MOVED:count="), "redirections are counted: {errors}");

    let check = redis_cli(&["--cluster", "check", &format!("127.0.0.1:{port}")]).well();
    assert!(check.contains("[OK] All nodes agree about slots configuration."), "{check}");
    assert!(check.contains("[OK] All 16384 slots covered."), "{check}");
    assert!(check.contains("[OK] 20 keys in 3 masters."), "{check}");
}

#[test]
fn redis_benchmark_runs_over_the_whole_cluster() {
    let cluster = Cluster::of(3);
    let port = port(cluster.listens()[0]);
    let words = "--cluster -q -n 4000 -c 20 -P 4 -r 1000 -t ping,set,get,incr,mset -p";
    let done = run("redis-benchmark", words.split(' ').chain([port.as_str()]));
    assert!(!done.err.contains("Error") && !done.err.contains("ERR"), "{}", done.err);
    let out = done.well();
    assert!(out.contains("3 master nodes detected") || out.contains("Cluster has 3"), "{out}");
    for test in ["PING_INLINE", "PING_MBULK", "SET", "GET", "INCR", "MSET (10 keys)"] {
        let figures = out.lines().filter(|line| line.contains("requests per second"));
        assert!(
            figures.into_iter().any(|line| line.contains(test)),
            "no figures for {test}: {out}"
        );
    }
    assert!(!out.contains("Error") && !out.contains("ERR"), "{out}");
}

#[test]
fn the_redis_crate_s_cluster_client_works_unchanged() {
    let cluster = Cluster::of(3);
    let urls: Vec<_> = cluster.listens().into_iter().take(1).map(url).collect();
    let mut connection = ClusterClient::new(urls).unwrap().get_connection().unwrap();
    for number in 0..KEYS_COUNT {
        let () = connection.set(key(number), number).unwrap();
    }
    let got: u32 = connection.get(key(7)).unwrap();
    assert_eq!(got, 7);
    let missing: Option<String> = connection.get("missing").unwrap();
    assert_eq!(missing, None);
    let many: Vec<Option<u32>> =
        connection.mget((0..KEYS_COUNT).map(key).collect::<Vec<_>>()).unwrap();
    assert_eq!(many, (0..KEYS_COUNT).map(Some).collect::<Vec<_>>());

    let mut pipe = cluster_pipe();
    for number in 0..KEYS_COUNT {
        pipe.incr(key(number), 1000).get(key(number));
    }
    let answers: Vec<u32> = pipe.query(&mut connection).unwrap();
    let expected: Vec<_> = (0..KEYS_COUNT).flat_map(|number| [number + 1000; 2]).collect();
    assert_eq!(answers, expected);

    let () = connection.set_ex("fleeting", "value", 100).unwrap();
    let ttl: i64 = connection.ttl("fleeting").unwrap();
    assert!((90..=100).contains(&ttl), "{ttl}");
    let is_new: bool = connection.set_nx(key(0), "other").unwrap();
    assert!(!is_new);
    let deleted: u32 = connection.del((0..KEYS_COUNT).map(key).collect::<Vec<_>>()).unwrap();
    assert_eq!(deleted, KEYS_COUNT);
    let error = connection.incr::<_, _, i64>("fleeting", 1).unwrap_err();
    assert!(error.to_string().contains("not an integer"), "{error}");
}

#[test]
fn the_any_key_port_looks_like_one_server_to_a_plain_client() {
    let cluster = Cluster::of(3);
    let mut connections: Vec<_> = cluster.any_keys().into_iter().map(plain).collect();
    let pairs: Vec<_> = (0..KEYS_COUNT).map(|number| (key(number), number)).collect();
    let () = connections[0].mset(&pairs).unwrap();
    for connection in &mut connections {
        let keys: Vec<_> = (0..KEYS_COUNT).map(key).collect();
        let many: Vec<Option<u32>> = connection.mget(&keys).unwrap();
        assert_eq!(many, (0..KEYS_COUNT).map(Some).collect::<Vec<_>>());
        let size: u32 = redis::cmd("DBSIZE").query(connection).unwrap();
        assert_eq!(size, KEYS_COUNT);
        let scanned: BTreeSet<String> = connection.scan().unwrap().map(Result::unwrap).collect();
        assert_eq!(scanned, keys.into_iter().collect::<BTreeSet<_>>());
        let matched: BTreeSet<String> =
            connection.scan_match("key:1?").unwrap().map(Result::unwrap).collect();
        assert_eq!(matched.len(), 10, "{matched:?}");
    }

    let exist: u32 = connections[1].exists(&[key(1), key(2), "missing".to_owned()]).unwrap();
    assert_eq!(exist, 2);
    let deleted: u32 = connections[1].del(&[key(1), key(2), "missing".to_owned()]).unwrap();
    assert_eq!(deleted, 2);

    let mut pipe = redis::pipe();
    for number in 10..20 {
        pipe.set(key(number), "piped").ignore().get(key(number));
    }
    let piped: Vec<String> = pipe.query(&mut connections[2]).unwrap();
    assert_eq!(piped, ["piped"; 10]);

    let () = redis::cmd("FLUSHALL").query(&mut connections[2]).unwrap();
    for connection in &mut connections {
        let size: u32 = redis::cmd("DBSIZE").query(connection).unwrap();
        assert_eq!(size, 0);
        let gone: Option<String> = connection.get(key(15)).unwrap();
        assert_eq!(gone, None);
    }
}

#[test]
fn both_ports_show_the_same_keys() {
    let cluster = Cluster::of(2);
    let urls: Vec<_> = cluster.listens().into_iter().map(url).collect();
    let mut clustered = ClusterClient::new(urls).unwrap().get_connection().unwrap();
    let mut plain = plain(cluster.any_keys()[1]);
    for number in 0..KEYS_COUNT {
        let () = clustered.set(key(number), "clustered").unwrap();
        let before: String = plain.getset(key(number), "plain").unwrap();
        assert_eq!(before, "clustered");
        let after: String = clustered.get(key(number)).unwrap();
        assert_eq!(after, "plain");
    }
}

#[test]
fn a_cluster_that_says_it_is_ready_takes_every_write() {
    for nodes_count in 1..=3 {
        let mut cluster = Cluster::of(nodes_count);
        let mut client = cluster.client();
        let mut any_key = Client::new(cluster.any_keys());
        for number in 0..KEYS_COUNT {
            for client in [&mut client, &mut any_key] {
                let written = client.ask(&[b"SET", key(number).as_bytes(), b"value"]);
                assert_eq!(written, Attempt::Answered(Value::ok()), "{nodes_count} nodes");
            }
        }
        cluster.assert_alive();
    }
}

fn key(number: u32) -> String {
    format!("key:{number}")
}

fn url(addr: SocketAddr) -> String {
    format!("redis://{addr}/")
}

fn port(addr: SocketAddr) -> String {
    addr.port().to_string()
}

fn plain(addr: SocketAddr) -> redis::Connection {
    let client = redis::Client::open(url(addr)).expect("a valid address");
    client.get_connection().expect("the port is open")
}

fn redis_cli(args: &[&str]) -> Finished {
    run("redis-cli", args)
}

/// What `redis-cli` prints, without the end of the line.
#[track_caller]
fn cli(args: &[&str]) -> String {
    redis_cli(args).well().trim_end().to_owned()
}
