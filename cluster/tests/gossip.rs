//! Gossip over real sockets: nodes see each other, hear news, and notice who is gone.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use scatterhoard_cluster::{
    Advert, Gossip, GossipConfig, Leadership, Network, Secret, SystemNet, View,
};
use scatterhoard_ring::{
    ClusterId, Endpoints, Epoch, Generation, GroupId, NodeId, PartitionId, Standing,
};
use tokio::sync::watch;

const LOCAL: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

/// Far more than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

fn advert(name: &str) -> Advert {
    Advert {
        name: name.to_owned(),
        zone: "z".to_owned(),
        version: "0.1.0".to_owned(),
        endpoints: Endpoints { peer: LOCAL, listen: LOCAL, any_key: LOCAL, http: LOCAL },
        epoch: Epoch::default(),
        leaderships: Vec::new(),
        budget_bytes: 0,
        standing: Standing::Active,
    }
}

fn config(node: u64, seeds: &[SocketAddr]) -> GossipConfig {
    GossipConfig {
        cluster: ClusterId::new(1),
        node: NodeId::new(node),
        incarnation_ms: 1,
        advertise: LOCAL,
        listen: LOCAL,
        seeds: seeds.to_vec(),
        // Quicker than in earnest, so that the tests are quick.
        interval: Duration::from_millis(40),
        secret: Secret::parse(b"test").ok(),
    }
}

async fn start(config: GossipConfig) -> Gossip {
    let name = format!("n{}", config.node.number());
    Gossip::start(Arc::new(SystemNet), config, advert(&name)).await.unwrap()
}

async fn until(views: &mut watch::Receiver<Arc<View>>, what: impl Fn(&View) -> bool) -> Arc<View> {
    let seen = tokio::time::timeout(PATIENCE, views.wait_for(|view| what(view))).await;
    Arc::clone(&seen.expect("it is seen in time").unwrap())
}

fn nodes(view: &View) -> Vec<u64> {
    view.alive.keys().map(|node| node.number()).collect()
}

#[tokio::test]
async fn nodes_see_each_other_hear_news_and_notice_who_is_gone() {
    let first = start(config(1, &[])).await;
    let seeds = [first.local_addr()];
    let (second, third) = (start(config(2, &seeds)).await, start(config(3, &seeds)).await);
    assert_eq!(nodes(&second.views().borrow()), [2], "a node sees itself from the start");
    for gossip in [&first, &second, &third] {
        let view = until(&mut gossip.views(), |view| view.alive.len() == 3).await;
        let names: Vec<_> = view.alive.values().map(|seen| seen.advert.name.as_str()).collect();
        assert_eq!(names, ["n1", "n2", "n3"]);
    }

    let mut news = advert("n2");
    news.epoch = Epoch { generation: Generation::new(1), index: 9 };
    news.leaderships = vec![Leadership {
        group: GroupId::Partition(PartitionId::new(3)),
        generation: Generation::new(1),
        term: 4,
    }];
    news.standing = Standing::Leaving;
    second.publish(&news);
    let heard = |view: &View| view.alive.get(&NodeId::new(2)).is_some_and(|s| s.advert == news);
    until(&mut third.views(), heard).await;
    until(&mut second.views(), heard).await;

    let mut views = third.views();
    first.stop().await;
    until(&mut views, |view| nodes(view) == [2, 3]).await;
    drop(second);
    until(&mut views, |view| nodes(view) == [3]).await;
    third.stop().await;
}

#[tokio::test]
async fn a_node_that_says_goodbye_is_gone_before_silence_would_tell() {
    let patient = |node, seeds: &[SocketAddr]| GossipConfig {
        interval: Duration::from_millis(200),
        ..config(node, seeds)
    };
    let first = start(patient(1, &[])).await;
    let second = start(patient(2, &[first.local_addr()])).await;
    let mut views = second.views();
    until(&mut views, |view| view.alive.len() == 2).await;
    until(&mut first.views(), |view| view.alive.len() == 2).await;
    let stopped = tokio::time::Instant::now();
    first.stop().await;
    until(&mut views, |view| nodes(view) == [2]).await;
    // Silence is forgiven for ten intervals: two seconds.
    assert!(stopped.elapsed() < Duration::from_millis(1500), "{:?}", stopped.elapsed());
}

#[tokio::test]
async fn strangers_datagrams_are_dropped() {
    let first = start(config(1, &[])).await;
    let seeds = [first.local_addr()];
    let other_cluster = GossipConfig { cluster: ClusterId::new(2), ..config(2, &seeds) };
    let other_secret = GossipConfig { secret: None, ..config(3, &seeds) };
    let strangers = [start(other_cluster).await, start(other_secret).await];
    let socket = SystemNet.bind_udp(LOCAL).await.unwrap();
    for garbage in [&b""[..], b"\0", b"Hrdg", b"Hrdg\x01", &[0xff; 1400]] {
        socket.send_to(garbage, first.local_addr()).await.unwrap();
    }
    // By the time that a friend is seen, the strangers would have been.
    let friend = start(config(4, &seeds)).await;
    let view = until(&mut first.views(), |view| view.alive.len() > 1).await;
    assert_eq!(nodes(&view), [1, 4]);
    drop((strangers, friend));
}
