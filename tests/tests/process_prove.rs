//! `hoard prove` as a person runs it, on loopback, where it needs no rights.

use std::fs;
use std::path::PathBuf;

use scatterhoard_tests::process::hoard;
use scatterhoard_tests::process::tool::{Finished, run};

/// A directory that is gone when it goes out of scope.
struct Out(PathBuf);

impl Out {
    fn new(name: &str) -> Self {
        Self(std::env::temp_dir().join(format!("hoard-proof-{}-{name}", std::process::id())))
    }

    fn prove(&self, words: &str) -> Finished {
        let out = ["--out", self.0.to_str().expect("temporary directories have plain names")];
        run(hoard(), ["prove", "--loopback"].into_iter().chain(words.split(' ')).chain(out))
    }

    fn campaign(&self) -> serde_json::Value {
        let written = fs::read(self.0.join("campaign.json")).expect("it was written");
        serde_json::from_slice(&written).expect("it is JSON")
    }
}

impl Drop for Out {
    fn drop(&mut self) {
        let _not_there = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_campaign_ends_with_a_verdict_and_a_report() {
    let out = Out::new("good");
    let said = out.prove("--seed 5 --minutes 0.2 --faults kill,pause").well();
    assert!(said.contains("lost writes: 0") && said.contains("PROVEN"), "{said}");
    assert!(
        said.contains("replay: hoard prove --seed 5 --minutes 0.2 --faults kill,pause"),
        "{said}"
    );
    let campaign = out.campaign();
    assert_eq!(campaign["verdict"]["complaints"], serde_json::json!([]));
    let kinds: Vec<_> =
        campaign["faults"].as_array().unwrap().iter().map(|it| it["kind"].clone()).collect();
    assert!(kinds.contains(&"kill".into()) && kinds.contains(&"pause".into()), "{kinds:?}");
    assert!(campaign["verdict"]["operations"].as_u64().unwrap() > 1000);
    let report = fs::read_to_string(out.0.join("report.html")).unwrap();
    assert!(report.contains("hoard prove --seed 5"), "{report:.2000}");
    assert!(!out.0.join("nodes").exists(), "what nodes logged is kept only if something is wrong");
}

#[test]
fn a_fault_that_never_happened_fails_the_campaign() {
    let out = Out::new("untested");
    let finished = out.prove("--seed 1 --minutes 0.001 --faults kill,cut");
    assert_eq!(finished.status, Some(1), "{finished:?}");
    for said in ["not tested: kill was planned and never happened", "cut was asked for and cannot"]
    {
        assert!(finished.out.contains(said), "{said}: {}", finished.out);
    }
    assert!(finished.out.ends_with("FAILED\n") && out.0.join("nodes/n1/log").exists());
}
