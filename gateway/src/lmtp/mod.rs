//! LMTP (RFC 2033): mail comes in, and each recipient gets an answer of their own.
//!
//! `connection` drives bytes, `session` decides what a command means, `parse` and `reply` are the grammar, `data` and `body` receive
//! a mail, `header` looks at three fields of it, `xclient` is for whom a trusted relay speaks, `deliver` hands it to malle. Enter at [`serve`]. This room reads no mailbox, keeps
//! nothing on disk and changes nothing in a mail: the bytes that were sent are stored behind one `Return-Path` line, whatever they
//! are (8-bit, NUL, bare CR, bare LF, broken MIME).

mod body;
mod connection;
mod data;
mod deliver;
mod header;
mod parse;
mod reply;
mod session;
#[cfg(test)]
mod tests;
mod xclient;

pub use body::Room;
pub use connection::{Context, Timeouts, serve};

/// Reads any bytes as a command line: for `cargo xtask fuzz` and the replay of its corpus.
///
/// # Panics
/// When the parser does.
#[cfg_attr(not(test), allow(dead_code, reason = "of tests and the fuzzer"))]
pub fn read_any(bytes: &[u8]) {
    match parse::parse(bytes) {
        Ok(parse::Command::Mail(mail)) => drop((mail.from.lookup(), mail.from.normalised())),
        Ok(parse::Command::Rcpt(path)) => drop((path.lookup(), path.normalised())),
        // What it is made into matters to other tests; here it must be made into something, or refused.
        Ok(_) | Err(_) => {}
    }
}
