//! The system's randomness, from a seed.
//!
//! chitchat and the keys of std's hash maps draw from the system. Both end in the C function `getrandom`,
//! which this file defines in libc's place: on a thread that has a seed it counts on from there, on any
//! other it asks the system.

use std::cell::Cell;
use std::io::Read;

thread_local! {
    /// The state of this thread's generator, if it has a seed.
    static STATE: Cell<Option<u64>> = const { Cell::new(None) };
}

/// From here on this thread's system randomness follows from a seed. Hash maps keep the keys that their
/// thread has drawn before: a run that is to be repeated exactly needs a thread of its own, see [`alone`].
pub fn seed(seed: u64) {
    STATE.set(Some(seed));
}

/// Runs something on a thread of its own that has drawn no chance yet, and draws it from a seed.
///
/// # Panics
/// If `run` does.
pub fn alone<T: Send + 'static>(number: u64, run: impl FnOnce() -> T + Send + 'static) -> T {
    elsewhere(move || {
        seed(number);
        run()
    })
}

/// Runs something on a thread of its own, so that what it draws is not missed here.
#[expect(
    clippy::disallowed_methods,
    reason = "a simulation owns its thread; nothing runs beside it"
)]
pub(super) fn elsewhere<T: Send + 'static>(run: impl FnOnce() -> T + Send + 'static) -> T {
    match std::thread::spawn(run).join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// The next number. SplitMix64: Steele, Lea and Flood, "Fast splittable pseudorandom number generators".
fn next(state: u64) -> (u64, u64) {
    let state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut mixed = state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    (state, mixed ^ (mixed >> 31))
}

fn fill(buffer: &mut [u8]) -> bool {
    match STATE.get() {
        Some(mut state) => {
            for chunk in buffer.chunks_mut(8) {
                let (after, number) = next(state);
                state = after;
                chunk.copy_from_slice(&number.to_le_bytes()[..chunk.len()]);
            }
            STATE.set(Some(state));
            true
        }
        None => std::fs::File::open("/dev/urandom")
            .and_then(|mut source| source.read_exact(buffer))
            .is_ok(),
    }
}

/// libc's `getrandom(2)`, for this binary. The flags make no difference: it never blocks.
///
/// # Safety
/// As in C: `buffer` points to `length` bytes that may be written.
#[expect(unsafe_code, reason = "the only way to seed what draws from the system by itself")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getrandom(buffer: *mut u8, length: usize, _flags: u32) -> isize {
    if length == 0 {
        return 0;
    }
    // SAFETY: the caller's promise, which is that of the C function.
    let buffer = unsafe { std::slice::from_raw_parts_mut(buffer, length) };
    buffer.fill(0);
    if fill(buffer) { isize::try_from(length).unwrap_or(isize::MAX) } else { -1 }
}

#[cfg(test)]
mod tests {
    use std::hash::{BuildHasher, RandomState};

    use super::*;

    #[test]
    fn a_seed_decides_what_the_system_says() {
        let draw = |number| alone(number, || RandomState::new().hash_one("key"));
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }
}
