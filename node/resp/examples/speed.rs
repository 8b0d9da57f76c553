//! Nanoseconds per command of the decoder and the encoder. Run it in release mode:
//! `cargo run --release -p scatterhoard-resp --example speed`.
//!
//! On one of two cores of a shared x86-64 machine it printed 19 ns for GET, 24 for SET, 29 with 1 KiB,
//! 7.7 per key of MGET, 34 for an inline SET; and 2 to encode a short string, 22 with 1 KiB.

use std::hint::black_box;
use std::time::{Duration, Instant};

use scatterhoard_resp::{Args, Decoded, Decoder, Encoder, Limits, Protocol};

/// Commands in one buffer: a deep pipeline.
const PIPELINE: usize = 64;
/// Rounds over that buffer; the fastest of [`REPEATS`] counts.
const ROUNDS: usize = 2_000;
const REPEATS: usize = 7;

fn main() {
    let key = b"key:000000012345".as_slice();
    let kilobyte = vec![b'x'; 1024];
    let many: Vec<&[u8]> = std::iter::once(b"MGET".as_slice()).chain([key; 100]).collect();
    let cases: [(&str, &[&[u8]]); 4] = [
        ("GET", &[b"GET", key]),
        ("SET, 3 bytes", &[b"SET", key, b"xxx"]),
        ("SET, 1 KiB", &[b"SET", key, &kilobyte]),
        ("MGET, 100 keys", &many),
    ];
    for (name, args) in cases {
        let mut bytes = Vec::new();
        for _ in 0..PIPELINE {
            Encoder::new(&mut bytes, Protocol::Resp2).request(Args::from(args));
        }
        report(&format!("decode {name}"), || decode(&bytes, args.len()));
    }
    let inline = b"SET key:000000012345 xxx\r\n".repeat(PIPELINE);
    report("decode inline SET", || decode(&inline, 3));
    let quoted = b"SET key:000000012345 \"x x\"\r\n".repeat(PIPELINE);
    report("decode inline SET, quoted", || decode(&quoted, 3));

    let mut out = Vec::new();
    report("encode bulk, 3 bytes", || encode(&mut out, |encoder| encoder.bulk(b"xxx")));
    report("encode bulk, 1 KiB", || encode(&mut out, |encoder| encoder.bulk(&kilobyte)));
    report("encode integer, 7 digits", || encode(&mut out, |encoder| encoder.integer(1_234_567)));
    report("encode OK", || encode(&mut out, |encoder| encoder.ok()));
}

fn decode(bytes: &[u8], args_count: usize) {
    // As a session has it: one decoder for all that a connection sends.
    thread_local! {
        static DECODER: std::cell::RefCell<Decoder> =
            std::cell::RefCell::new(Decoder::new(Limits::DEFAULT));
    }
    DECODER.with_borrow_mut(|decoder| {
        let mut start = 0;
        while let Ok(Decoded::Request(request)) = decoder.decode(&bytes[start..]) {
            assert_eq!(request.args().len(), args_count);
            for arg in request.args() {
                black_box(arg);
            }
            start += request.bytes_consumed();
        }
        assert_eq!(start, bytes.len());
    });
}

fn encode(out: &mut Vec<u8>, reply: impl Fn(&mut Encoder<'_>)) {
    out.clear();
    let mut encoder = Encoder::new(out, Protocol::Resp3);
    for _ in 0..PIPELINE {
        reply(black_box(&mut encoder));
    }
    black_box(out);
}

fn report(name: &str, mut round: impl FnMut()) {
    let fastest = (0..REPEATS).map(|_| time(&mut round)).min().expect("there are repeats");
    let nanos = fastest.as_nanos() as f64 / (ROUNDS * PIPELINE) as f64;
    println!("{name:28} {nanos:7.1} ns");
}

#[expect(clippy::disallowed_methods, reason = "what is measured is real time")]
fn time(round: &mut impl FnMut()) -> Duration {
    let start = Instant::now();
    for _ in 0..ROUNDS {
        round();
    }
    start.elapsed()
}
