//! Several processes take turns. Start it more than once, kill one that has the lock, or a node:
//!
//! `cargo run -p scatterhoard-client --example locks -- 127.0.0.1:7001`

use std::time::Duration;

use scatterhoard_client::Cluster;
use scatterhoard_client::lock::Locks;
use tokio::time::{Instant, sleep};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:7001".to_owned());
    let locks = Locks::new(Cluster::connect([address]).await?);
    let me = std::process::id();
    loop {
        let began = Instant::now();
        let guard = match locks.lock("example:lock", Duration::from_secs(10)).await {
            Ok(guard) => guard,
            Err(error) => {
                println!("{me}: {error}");
                continue;
            }
        };
        let fence = guard.fence().0;
        println!("{me}: has it after {:?}, with fence {fence}", began.elapsed());
        // What the fence is for: a real resource would remember the greatest, and refuse smaller ones.
        match guard.run(sleep(Duration::from_secs(2))).await {
            Ok(()) => println!("{me}: done with {fence}, {:?}", guard.unlock().await),
            Err(lost) => println!("{me}: {lost}, {fence}"),
        }
    }
}
