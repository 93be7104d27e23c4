//! Panics of the product: each is a finding by itself, whatever survives it.

use std::sync::{Mutex, PoisonError};

static SEEN: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Keeps every panic from now on, and prints it as before.
pub fn record() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        SEEN.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(panic.to_string());
        before(panic);
    }));
}

/// Those since the last call.
pub fn take() -> Vec<String> {
    std::mem::take(&mut *SEEN.lock().unwrap_or_else(PoisonError::into_inner))
}
