#![no_main]
#![expect(dead_code, reason = "the binary hoard cannot be linked to; these are some of its modules")]

#[path = "../../../../cli/src/address.rs"]
mod address;
#[path = "../../../../cli/src/args.rs"]
mod args;
#[path = "../../../../cli/src/fuzz.rs"]
mod fuzz;
#[path = "../../../../cli/src/measure.rs"]
mod measure;
#[path = "../../../../cli/src/settings.rs"]
mod settings;

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzz::config(input));
