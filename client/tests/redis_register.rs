//! Registers, and what stands on them, in a real Redis: one that has no compare-and-set of its own.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use scatterhoard_client::ids::{FirstUse, Ids, IdsConfig};
use scatterhoard_client::lock::{Locks, Unlocked};
use scatterhoard_client::register::{ClusterRegister, Register, Swap};
use scatterhoard_client::{Cluster, Error};
use tokio::time::{Instant, sleep};

/// A `redis-server` that ends with the test.
struct Server {
    process: Child,
    port: u16,
}

impl Server {
    fn start() -> Self {
        let free = TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr());
        let port = free.expect("a free port").port();
        let process = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--save", "", "--bind", "127.0.0.1"])
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server starts; `scripts/test setup` installs it");
        Self { process, port }
    }

    async fn cluster(&self) -> Cluster {
        let by = Instant::now() + Duration::from_secs(20);
        loop {
            match Cluster::connect([format!("127.0.0.1:{}", self.port)]).await {
                Ok(cluster) => return cluster,
                Err(error) => assert!(Instant::now() < by, "{error}"),
            }
            sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _gone = self.process.kill();
        let _status = self.process.wait();
    }
}

const KEY: &[u8] = b"key";

fn swap<'a>(expected: Option<&'a [u8]>, new: &'a [u8]) -> Swap<'a> {
    Swap { expected, new, lives: None }
}

#[tokio::test]
async fn a_register_is_swapped_by_who_knows_what_it_has_and_counts_its_versions() {
    let server = Server::start();
    let register = ClusterRegister::new(server.cluster().await);
    assert_eq!(register.read(KEY).await, Ok(None));
    assert_eq!(register.swap(KEY, swap(Some(b""), b"one")).await, Ok(None));
    let first = register.swap(KEY, swap(None, b"one")).await.expect("an answer");
    assert_eq!(register.swap(KEY, swap(None, b"two")).await, Ok(None));
    assert_eq!(register.swap(KEY, swap(Some(b"on"), b"two")).await, Ok(None));
    let second = register.swap(KEY, swap(Some(b"one"), b"\0\r\n\xff")).await.expect("an answer");
    assert!(None < first && first < second);
    assert_eq!(register.read(KEY).await.expect("an answer").as_deref(), Some(&b"\0\r\n\xff"[..]));
    let brief = Swap { lives: Some(Duration::from_millis(1)), ..swap(Some(b"\0\r\n\xff"), b"") };
    let third = register.swap(KEY, brief).await.expect("an answer");
    while register.read(KEY).await.expect("an answer").is_some() {}
    let fourth = register.swap(KEY, swap(None, b"")).await.expect("an answer");
    assert!(second < third && third < fourth, "versions outlive their values");
}

#[tokio::test]
async fn what_is_no_register_is_refused_and_left_alone() {
    let server = Server::start();
    let cluster = server.cluster().await;
    cluster.set(KEY, "mine").await.expect("it is set");
    let register = ClusterRegister::new(cluster.clone());
    assert!(matches!(register.read(KEY).await, Err(Error::BadReply(_))));
    let locks = Locks::new(cluster.clone());
    let taken = locks.try_lock(KEY, Duration::from_secs(1)).await;
    assert!(matches!(taken, Err(Error::BadReply(_))));
    assert_eq!(cluster.get(KEY).await.expect("an answer").as_deref(), Some(&b"mine"[..]));
}

#[tokio::test]
async fn a_lock_goes_from_one_to_the_next_with_a_greater_fence() {
    let server = Server::start();
    let (one, other) = (Locks::new(server.cluster().await), Locks::new(server.cluster().await));
    let lease = Duration::from_secs(60);
    let guard = one.lock(KEY, lease).await.expect("it is free");
    assert!(other.try_lock(KEY, lease).await.expect("an answer").is_none());
    let next = tokio::spawn(async move { other.lock(KEY, lease).await });
    let fence = guard.fence();
    assert_eq!(guard.run(async { 1 }).await, Ok(1));
    assert_eq!(guard.unlock().await, Unlocked::Released);
    let next = next.await.expect("no panic").expect("it is free");
    assert!(next.fence() > fence && next.is_held());
}

#[tokio::test]
async fn generators_have_numbers_of_their_own_and_give_them_back() {
    let server = Server::start();
    let mut config = IdsConfig::new("test");
    config.first_use = FirstUse::AtOnce;
    let cluster = server.cluster().await;
    let ids = Ids::lease(cluster.clone(), config.clone()).await.expect("a number");
    let other = Ids::lease(cluster.clone(), config.clone()).await.expect("a number");
    let number = |id| config.epoch.parse(id).number;
    let (one, two) = (ids.next().await.expect("an id"), other.next().await.expect("an id"));
    assert_ne!(number(one), number(two));
    ids.close().await;
    // The one that is free and was used before is taken, and not one of a thousand others.
    let register: Arc<dyn Register> = Arc::new(ClusterRegister::new(cluster));
    let wall = scatterhoard_client::ids::SystemWall;
    let heir = Ids::lease_from(register, wall, config.clone()).await.expect("a number");
    let id = heir.next().await.expect("an id");
    assert!(number(id) == number(one) && id > one);
}
