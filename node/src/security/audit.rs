//! What was refused, to whom, and why, and what operators did to sessions: one line each, under the target `audit`, so that it can be kept apart.
//!
//! No line carries a password, a token, or anything of a mail.

use std::fmt::Display;
use std::net::SocketAddr;

use malle_proto::AccountId;

use super::Peer;
use super::roles::Call;

/// A call was refused.
pub fn call_refused(peer: &Peer, call: Call, reason: &dyn Display) {
    tracing::warn!(
        target: "audit",
        identity = %peer.identity,
        address = %peer.address,
        call = call.name(),
        %reason,
        "call refused"
    );
}

/// A connection was closed before its first call.
pub fn connection_refused(address: SocketAddr, reason: &dyn Display) {
    tracing::warn!(target: "audit", %address, %reason, "connection refused");
}

/// Someone gave a wrong password, or logged in to an account that may not be used.
pub fn login_refused(peer: &Peer, login: &str, reason: &dyn Display) {
    let login: String = login.chars().take(80).flat_map(char::escape_debug).collect();
    tracing::warn!(target: "audit", identity = %peer.identity, %login, %reason, "login refused");
}

/// An operator ended sessions of an account.
pub fn sessions_ended(peer: &Peer, account: AccountId, sessions: usize) {
    tracing::info!(target: "audit", identity = %peer.identity, %account, sessions, "sessions ended");
}

/// A guest asked about an account that has not granted it.
pub fn guest_refused(peer: &Peer, call: Call, guest: AccountId, account: AccountId, reason: &dyn Display) {
    tracing::warn!(
        target: "audit",
        identity = %peer.identity,
        call = call.name(),
        %guest,
        %account,
        %reason,
        "guest refused"
    );
}
