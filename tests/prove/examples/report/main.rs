//! Writes reports on made-up campaigns, to look at while their looks are changed.
//!
//! `cargo run -p scatterhoard-prove --example report -- FOLDER`

mod sample;

use std::{env, fs, path::PathBuf};

use scatterhoard_prove::report;

fn main() -> Result<(), std::io::Error> {
    let folder = PathBuf::from(env::args_os().nth(1).unwrap_or_else(|| "target/reports".into()));
    fs::create_dir_all(&folder)?;
    let hour = sample::Shape { minutes: 60, nodes_count: 9, partitions_count: 64, loses: false };
    let failed = sample::Shape { loses: true, ..sample::Shape::SHORT };
    let campaigns = [
        ("short", sample::campaign(sample::Shape::SHORT, 7)),
        ("failed", sample::campaign(failed, 8)),
        ("hour", sample::campaign(hour, 9)),
        ("empty", sample::empty()),
    ];
    for (name, campaign) in &campaigns {
        fs::write(folder.join(format!("{name}.html")), report::html(campaign))?;
    }
    let [(_, short), (_, failed), ..] = campaigns;
    let both = [short, failed];
    fs::write(folder.join("compared.html"), report::compare(&both))?;
    fs::write(folder.join("compared.md"), report::markdown(&both))
}
