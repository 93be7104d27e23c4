//! IMAP: one session per connection, over the client crate alone.
//!
//! Enter at [`serve`]. A session is a loop: [`connection`] reads one complete command with its literals, [`parse`] makes a
//! [`parse::Command`] of it, [`state`] says whether it may come now, [`command`] does it through [`store::Account`], and the answer
//! is written by [`respond`].
//!
//! What this room owns: the protocol, sequence numbers ([`view`]), the names on the wire ([`name`]), and where others' mailboxes are ([`shared`]). What it must never do: decide who may
//! read what (the shard does, by the login token), keep a mail longer than one command, answer OK before the store did, let one
//! client's input cost another one's session, or log a credential or a mail's content.
//!
//! Absent: \Recent is never set (RECENT is always 0, as RFC 9051 drops it).

mod access;
mod binary;
mod bodies;
mod command;
mod connection;
mod date;
mod deflate;
mod gate;
mod name;
mod order;
mod parse;
mod respond;
mod roster;
mod sasl;
mod search;
mod section;
mod session;
mod shared;
mod state;
mod store;
mod structure;
mod text;
mod thread;
mod view;

#[cfg(test)]
mod tests;

pub use access::{BodyMemory, Context, Ended, SessionSettings};
pub use connection::BoxedIo;
pub use gate::{Gate, GateBounds};
pub use roster::{Ending, Roster};
pub use session::serve;
pub use store::ClientStore;

/// Reads any bytes as one command, and as what stands in commands: for `cargo xtask fuzz` and the replay of its corpus. Between two bytes 0xff is a
/// piece of the command, text and literals by turns; an odd first byte says that names are UTF-8.
///
/// # Panics
/// When the parser does, or a mailbox name does not come back as it went.
#[cfg_attr(not(test), allow(dead_code, reason = "of tests and the fuzzer"))]
pub fn read_any(bytes: &[u8]) {
    let utf8 = bytes.first().is_some_and(|byte| byte % 2 == 1);
    let mut pieces: Vec<connection::Piece> = Vec::new();
    for (number, piece) in bytes.split(|&byte| byte == 0xff).enumerate() {
        pieces.push(match number % 2 {
            0 => connection::Piece::Text(piece.to_vec()),
            _ => connection::Piece::Literal(bytes::Bytes::copy_from_slice(piece)),
        });
    }
    if pieces.len().is_multiple_of(2) {
        pieces.push(connection::Piece::Text(Vec::new()));
    }
    let mut frame = connection::Frame::of(pieces);
    frame.utf8 = utf8;
    // What it is made into matters to other tests; here it must be made into something, or refused.
    let _ = parse::parse(&frame);
    if let Some(name) = name::decode(bytes) {
        assert_eq!(name::decode(name::encode(&name).as_bytes()), Some(name));
    }
    let _ = date::parse_date_time(bytes);
}
