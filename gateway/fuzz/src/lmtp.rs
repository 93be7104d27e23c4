//! libFuzzer makes LMTP command lines; the gateway's own parser reads them.

#![no_main]
#![allow(dead_code, reason = "only the parser of the room is entered here")]

#[path = "../../src/lmtp/mod.rs"]
mod lmtp;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| lmtp::read_any(bytes));
