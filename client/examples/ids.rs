//! Makes ids, and says what they are made of:
//!
//! `cargo run -p scatterhoard-client --example ids -- 127.0.0.1:7001`

use std::time::Duration;

use scatterhoard_client::Cluster;
use scatterhoard_client::ids::{Ids, IdsConfig};
use tokio::time::sleep;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:7001".to_owned());
    let config = IdsConfig::new("example");
    let epoch = config.epoch;
    let ids = Ids::lease(Cluster::connect([address]).await?, config).await?;
    for _ in 0..20 {
        match ids.next().await {
            Ok(id) => println!("{id}: {:?}", epoch.parse(id)),
            Err(error) => println!("no id: {error}"),
        }
        sleep(Duration::from_secs(1)).await;
    }
    ids.close().await;
    Ok(())
}
