//! An application that is a member of a cluster of real processes.

use std::time::Duration;

use scatterhoard_client::Cluster as Client;
use scatterhoard_client::peer::{NodeConfig, Peer};
use scatterhoard_tests::process::outage::slots_led_by;
use scatterhoard_tests::process::{Block, Cluster, runtime, wait_until};

const KEYS_COUNT: usize = 300;

/// Far more than it takes until a new member leads its share.
const PATIENCE: Duration = Duration::from_secs(90);

#[test]
fn an_application_takes_its_share_and_gives_it_back() {
    let mut cluster = Cluster::of(2);
    let runtime = runtime();
    let block = Block::reserve();
    let ports = block.ports(0);
    let config = NodeConfig {
        listen: ports.listen(),
        any_key: ports.any_key(),
        http: ports.http(),
        peer: ports.peer(),
        join: vec![cluster.ports(0).peer().to_string()],
        ..NodeConfig::default()
    };
    let peer = runtime.block_on(Peer::start(config)).expect("it joins");
    let asked = cluster.ports(0).listen();
    wait_until("the application leads a share", PATIENCE, || {
        !slots_led_by(asked, ports.listen()).is_empty()
    });
    let keys: Vec<_> = (0..KEYS_COUNT).map(|number| format!("k{number}")).collect();
    runtime.block_on(async {
        let pairs: Vec<_> = keys.iter().map(|key| (key, key)).collect();
        for outcome in peer.cluster().set_many(&pairs).await {
            outcome.expect("a write is done in peace");
        }
        let found = peer.cluster().get_many(&keys).await.expect("reads are answered");
        let expected = keys.iter().map(|key| Some(key.as_bytes()));
        assert!(found.iter().map(|it| it.as_deref()).eq(expected));
        peer.leave(Duration::from_secs(20)).await;
    });
    cluster.wait_ready();
    runtime.block_on(async {
        let client = Client::connect([asked.to_string()]).await.expect("two nodes are left");
        let found = client.get_many(&keys).await.expect("reads are answered");
        assert!(found.iter().all(Option::is_some), "what it held was handed over");
    });
}
