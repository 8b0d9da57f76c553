#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| scatterhoard_cluster::fuzz::gossip(input));
