//! The deliberate bugs in `tests/mutants` fit the source that they are for. Whether the simulation catches
//! them is what `scripts/mutants` shows.

use std::path::{Path, PathBuf};
use std::process::Command;

/// What a bug may break: the promises that a user is given.
const PROMISES: [&str; 4] = ["Kept", "Fresh", "Honest", "One mind"];

#[test]
fn every_mutant_still_applies_to_the_source() {
    let mut failed = Vec::new();
    for patch in patches() {
        // The root may lie inside of another repository, by which git must not read the paths.
        let check = Command::new("git")
            .args(["apply", "--check"])
            .arg(&patch)
            .current_dir(root())
            .env("GIT_CEILING_DIRECTORIES", root().parent().expect("a folder lies in another"))
            .output()
            .expect("git is installed");
        if !check.status.success() {
            failed.push(format!("{}: {}", name(&patch), String::from_utf8_lossy(&check.stderr)));
        }
    }
    assert!(
        failed.is_empty(),
        "these mutants do not fit the source any more; make each anew, with the bug that its text tells \
         of:\n{}",
        failed.join("\n")
    );
}

#[test]
fn every_mutant_says_what_it_breaks() {
    for patch in patches() {
        let name = name(&patch);
        let text = std::fs::read_to_string(&patch).expect("a patch is text");
        let (header, _) = text.split_once("\ndiff --git ").expect("a patch has a diff");
        let field = |field: &str| {
            let line = header.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(": "));
            line.unwrap_or_else(|| panic!("{name} has no line {field}:"))
        };
        assert_eq!(field("Mutant"), name);
        assert!(PROMISES.contains(&field("Breaks")), "{name} breaks no promise");
        assert!(field("Bug").ends_with('.'), "{name} says what its bug is");
    }
}

#[test]
fn mutants_are_bugs_of_the_product_and_of_nothing_else() {
    for patch in patches() {
        let text = std::fs::read_to_string(&patch).expect("a patch is text");
        for file in text.lines().filter_map(|line| line.strip_prefix("+++ b/")) {
            let of_the_product = ["ring/", "cluster/", "replication/", "node/", "client/"];
            let is_source = of_the_product.iter().any(|folder| file.starts_with(folder));
            assert!(is_source && file.ends_with(".rs"), "{}: {file}", name(&patch));
        }
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests lie in the workspace")
}

fn patches() -> Vec<PathBuf> {
    let folder = std::fs::read_dir(root().join("tests/mutants")).expect("there are mutants");
    let mut patches: Vec<_> = folder
        .map(|entry| entry.expect("a folder can be read").path())
        .filter(|path| path.extension().is_some_and(|it| it == "patch"))
        .collect();
    patches.sort();
    assert!(patches.len() > 10, "there are mutants");
    patches
}

fn name(patch: &Path) -> String {
    patch.file_stem().expect("a patch has a name").to_string_lossy().into_owned()
}
