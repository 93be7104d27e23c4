//! libFuzzer makes IMAP commands; the gateway's own parser reads them.

#![no_main]
#![allow(dead_code, reason = "only the parser of the room is entered here")]

#[path = "../../src/imap/mod.rs"]
mod imap;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| imap::read_any(bytes));
