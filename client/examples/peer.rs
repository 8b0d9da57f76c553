//! Applications that are the cluster: each holds a share of the keys, and reads and writes through the same cache.
//! Start it three times:
//!
//! ```text
//! peers=127.0.0.1:17001,127.0.0.1:17002,127.0.0.1:17003
//! for i in 1 2 3; do
//!     cargo run -p scatterhoard-client --features peer --example peer -- 127.0.0.1:700$i 127.0.0.1:1700$i $peers &
//! done
//! redis-cli -c -p 7001 DEL rate:EUR
//! ```
//!
//! The first address is for clients, such as `redis-cli`; the second is for the other members, of which the third
//! argument names some. Ctrl-C lets one hand over what it holds, and leave.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use scatterhoard_client::Cache;
use scatterhoard_client::cache::Load;
use scatterhoard_client::level::{HoardLevel, LevelConfig};
use scatterhoard_client::peer::{NodeConfig, Peer};
use tokio::time::sleep;

const CURRENCIES: [&str; 4] = ["CHF", "EUR", "GBP", "JPY"];

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<_> = std::env::args().skip(1).collect();
    let [listen, peer, join] = &args[..] else {
        return Err("usage: peer LISTEN PEER JOIN,…".into());
    };
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let config = NodeConfig {
        listen: listen.parse()?,
        peer: peer.parse()?,
        join: join.split(',').map(str::to_owned).collect(),
        // Of three members two have to have what is written before it is acknowledged.
        replicas_min: 2,
        any_key: any,
        http: any,
        ..NodeConfig::default()
    };
    let peer = Peer::start(config).await?;
    println!("{listen}: is a member");
    // The first is alone, and nothing can be written yet.
    while let Err(error) = peer.cluster().set("rate:member", listen).await {
        println!("{listen}: waits for others: {error}");
        sleep(Duration::from_secs(1)).await;
    }
    let level = HoardLevel::connect(LevelConfig::over(peer.connections().clone())).await?;
    let rates = Cache::<String, f64>::builder("rate")
        .near_bytes(1 << 20)
        .cluster(Arc::new(level))
        .ttl(Duration::from_secs(60))
        .build()?;
    tokio::select! {
        failed = show(&rates, listen) => failed?,
        interrupted = tokio::signal::ctrl_c() => interrupted?,
    }
    println!("{listen}: leaves");
    peer.leave(Duration::from_secs(20)).await;
    Ok(())
}

/// Looks at all rates each second. What none of the members has, one of them loads.
async fn show(rates: &Cache<String, f64>, here: &str) -> Result<(), Box<dyn std::error::Error>> {
    let mut shown = Vec::new();
    loop {
        let mut found = Vec::new();
        for currency in CURRENCIES {
            let source = format!("{here}: loads {currency}");
            let loader = async move || {
                println!("{source}");
                Ok::<_, String>(Some(f64::from(rand::random_range(50..200_u32)) / 100.0))
            };
            let rate = rates.get_or_load(&currency.to_owned(), Load::new(), loader).await?;
            found.push(rate.map_or(0.0, |rate| *rate));
        }
        if found != shown {
            println!("{here}: {found:?}");
            shown = found;
        }
        sleep(Duration::from_secs(1)).await;
    }
}
