//! A web service that reads its database through caches: one near, in each process, and one in the cluster, which all
//! processes share. Start it twice, with different ports and the same file:
//!
//! `cargo run -p scatterhoard-example-web -- 127.0.0.1:8080 articles.sqlite 127.0.0.1:7001`
//!
//! `docs/client.md` shows what to ask it, and what it answers.

mod database;
mod service;

use std::sync::Arc;
use std::time::Duration;

use scatterhoard_client::Cache;
use scatterhoard_client::level::{HoardLevel, LevelConfig};
use scatterhoard_client::stats::Table;
use tokio::net::TcpListener;

use database::Database;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let mut args = std::env::args().skip(1);
    let (Some(listen), Some(file)) = (args.next(), args.next()) else {
        return Err("usage: web LISTEN DATABASE [NODE…]".into());
    };
    let mut nodes: Vec<_> = args.collect();
    if nodes.is_empty() {
        nodes.push("127.0.0.1:7001".to_owned());
    }
    let level = HoardLevel::connect(LevelConfig::new(nodes)).await?;
    let articles = Cache::builder("article")
        .near_bytes(64 << 20)
        .cluster(Arc::new(level))
        // Nothing is served for longer than ten minutes, and after one it is loaded anew while it is served.
        .ttl(Duration::from_secs(600))
        .soft_ttl(Duration::from_secs(60))
        // That there is no such article counts for so long, unless it is written.
        .not_found_ttl(Duration::from_secs(30))
        .timeout_hard(Duration::from_secs(5))
        .report_to(Table::each(Duration::from_secs(60)))
        .build()?
        .over(Database::open(file)?);
    let listener = TcpListener::bind(listen).await?;
    println!("http://{}", listener.local_addr()?);
    axum::serve(listener, service::routes(articles)).await?;
    Ok(())
}
