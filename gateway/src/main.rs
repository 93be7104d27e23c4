#[allow(dead_code, unused_imports)] // Until main wires the listeners.
mod imap;

fn main() {}
