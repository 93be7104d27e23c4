//! Where the process itself gets chance: from the seed.
//!
//! Libraries below the product draw from the operating system by one call: the keys of std's hash maps (and so their order), the branch
//! that tokio's `select!` looks at first, the order in which its watch channel wakes. This program defines that call.

use std::cell::Cell;

thread_local! {
    static STATE: Cell<u64> = const { Cell::new(0) };
}

/// What the system gives from now on follows from this. There is one thread.
pub fn seed(seed: u64) {
    STATE.set(seed);
}

fn next() -> u64 {
    let state = STATE.get().wrapping_add(0x9E37_79B9_7F4A_7C15);
    STATE.set(state);
    let mut mixed = state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

/// In place of the C library's `getrandom(2)`.
///
/// # Safety
/// As the C library's: `buffer` points to `length` bytes that may be written.
#[allow(unsafe_code, reason = "the one symbol by which chance enters a process has C's form")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getrandom(buffer: *mut u8, length: usize, _flags: u32) -> isize {
    // SAFETY: the caller gives a buffer of this length, as for the function that this stands for.
    let bytes = unsafe { std::slice::from_raw_parts_mut(buffer, length) };
    for chunk in bytes.chunks_mut(8) {
        chunk.copy_from_slice(&next().to_le_bytes()[..chunk.len()]);
    }
    isize::try_from(length).unwrap_or(isize::MAX)
}
