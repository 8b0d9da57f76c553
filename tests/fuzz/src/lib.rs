//! A bounded run of a fuzz target's oracle: over its committed corpus, and over what a few thousand blind
//! mutations make of that. The same in each run.
//!
//! An *oracle* takes any bytes and panics if what must hold of them does not. Each lies in the crate whose
//! bytes it is about, in `fuzz.rs`, since it looks behind that crate's face; it is compiled for tests and
//! with `--cfg fuzzing`. `tests/fuzz/targets` hands the same oracles to libFuzzer, which follows coverage;
//! `scripts/fuzz` runs that. What libFuzzer found worth keeping is in `tests/fuzz/corpus`, and a crash that
//! was mended stays there as a file of its own.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// Mutations in one run, unless `HOARD_FUZZ_RUNS` says otherwise. All targets together take some seconds
/// in a debug build.
const RUNS: usize = 3000;

/// Bytes of a mutated input. libFuzzer's limit for inputs of its own.
const INPUT_BYTES_MAX: usize = 4096;

/// Numbers at which formats have their edges.
const EDGES: [u64; 12] = [
    0,
    1,
    0x7f,
    0x80,
    0xff,
    0x7fff,
    0xffff,
    0x4_0000,
    0x7fff_ffff,
    0xffff_ffff,
    i64::MAX as u64,
    u64::MAX,
];

/// Runs the oracle over the corpus of the target, over `seeds`, and over mutations of both.
///
/// `HOARD_FUZZ_RUNS` asks for more mutations or fewer, and `HOARD_FUZZ_SEED` for others. With
/// `HOARD_FUZZ_SEEDS=DIR` the seeds are written to `DIR/TARGET/` for libFuzzer to begin with.
///
/// # Panics
/// As the oracle does, after saying where the input lies that made it panic; or if the target has no
/// corpus, or a variable is no number.
pub fn bounded(target: &str, seeds: &[Vec<u8>], oracle: impl Fn(&[u8])) {
    write_seeds(target, seeds);
    let mut inputs = corpus(target);
    assert!(!inputs.is_empty(), "{target} has a corpus");
    inputs.extend_from_slice(seeds);
    for input in &inputs {
        check(target, input, &oracle);
    }
    let mut rng = StdRng::seed_from_u64(variable("HOARD_FUZZ_SEED").unwrap_or(6379));
    let runs = variable("HOARD_FUZZ_RUNS").map_or(RUNS, |runs| runs as usize);
    for _ in 0..runs {
        check(target, &mutated(&inputs, &mut rng), &oracle);
    }
}

/// Bytes, each after its length in two bytes, as one input: what the oracles take apart again.
///
/// # Panics
/// If one is longer than 65,535 bytes.
#[must_use]
pub fn joined<'a>(records: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut joined = Vec::new();
    for record in records {
        let length = u16::try_from(record.len()).expect("a seed is short");
        joined.extend_from_slice(&length.to_le_bytes());
        joined.extend_from_slice(record);
    }
    joined
}

fn check(target: &str, input: &[u8], oracle: &impl Fn(&[u8])) {
    let Err(panic) = catch_unwind(AssertUnwindSafe(|| oracle(input))) else { return };
    let path = std::env::temp_dir().join(format!("crash-{target}-{}", std::process::id()));
    fs::write(&path, input).expect("a temporary file can be written");
    eprintln!("{target} does not hold for: {}", input.escape_ascii());
    eprintln!("replay: scripts/fuzz --replay {} {target}", path.display());
    resume_unwind(panic);
}

fn variable(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is a number, not {text}")))
}

/// The files of the target's corpus, by name.
fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let entries = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("the corpus {}: {error}", folder.display()));
    let mut paths: Vec<PathBuf> =
        entries.map(|entry| entry.expect("a folder can be read").path()).collect();
    paths.sort_unstable();
    paths.iter().map(|path| fs::read(path).expect("a corpus is of files")).collect()
}

fn write_seeds(target: &str, seeds: &[Vec<u8>]) {
    let Some(folder) = std::env::var_os("HOARD_FUZZ_SEEDS") else { return };
    let folder = Path::new(&folder).join(target);
    fs::create_dir_all(&folder).expect("seeds can be written where one asks for them");
    for (number, seed) in seeds.iter().enumerate() {
        fs::write(folder.join(format!("seed-{number:02}")), seed).expect("seeds can be written");
    }
}

/// One of the inputs, changed in one to eight places.
fn mutated(inputs: &[Vec<u8>], rng: &mut StdRng) -> Vec<u8> {
    let mut bytes = inputs[rng.random_range(0..inputs.len())].clone();
    for _ in 0..rng.random_range(1..=8) {
        mutate(&mut bytes, inputs, rng);
        bytes.truncate(INPUT_BYTES_MAX);
    }
    bytes
}

fn mutate(bytes: &mut Vec<u8>, inputs: &[Vec<u8>], rng: &mut StdRng) {
    let at = rng.random_range(0..=bytes.len());
    let rest = bytes.len() - at;
    let count = rng.random_range(0..=rest.min(32));
    match rng.random_range(0..7) {
        0 => bytes.insert(at, rng.random()),
        1 if rest > 0 => bytes[at] ^= 1 << rng.random_range(0..8),
        2 if rest > 0 => bytes[at] = rng.random(),
        3 => drop(bytes.drain(at..at + count)),
        4 => {
            let again = bytes[at..at + count].to_vec();
            let to = rng.random_range(0..=bytes.len());
            bytes.splice(to..to, again);
        }
        5 => {
            let other = &inputs[rng.random_range(0..inputs.len())];
            let from = rng.random_range(0..=other.len());
            bytes.truncate(at);
            bytes.extend_from_slice(&other[from..]);
        }
        _ => put_edge(&mut bytes[at..], rng),
    }
}

/// Overwrites with a number of one to eight bytes, in either order of bytes.
fn put_edge(bytes: &mut [u8], rng: &mut StdRng) {
    let edge = EDGES[rng.random_range(0..EDGES.len())];
    let width = [1, 2, 4, 8][rng.random_range(0..4)].min(bytes.len());
    let (little, big) = (edge.to_le_bytes(), edge.to_be_bytes());
    let number = if rng.random() { &little[..width] } else { &big[8 - width..] };
    bytes[..width].copy_from_slice(number);
}
