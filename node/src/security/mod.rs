//! Who is at the other end, and what they may do.
//!
//! There is no plaintext between malle processes: [`accept`] and [`connect`] are the only places that open sockets, and both speak
//! mTLS with the configurations that [`tls`] holds. [`identity`] reads who a certificate is for; [`roles`] is the table of who may
//! call what; [`token`], [`password`] and [`bearer`] are about users, [`provider`] fetches the keys that [`bearer`] believes; [`audit`] writes down what was refused.
//!
//! Every service asks [`permit`] first, and [`permit_token`] where the table wants a token. Both write the refusal down, once;
//! the service only turns it into an answer. What is absent: any exception for a peer that is "inside", and any reading of mail by
//! an operator.

pub mod accept;
pub mod audit;
pub mod bearer;
pub mod connect;
pub mod identity;
pub mod password;
pub mod provider;
pub mod roles;
#[cfg(test)]
mod tests;
pub mod tls;
pub mod token;

use std::net::SocketAddr;

use malle_machine::directory::TokenKey;

pub use identity::{GatewayRoles, Identity};
pub use roles::{Call, Rule};
pub use token::{Proof, Token, TokenError};

/// The other end of a connection, as tonic gives it to a service (`request.extensions().get::<Peer>()`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// From its certificate.
    pub identity: Identity,
    /// From its socket.
    pub address: SocketAddr,
}

/// Why a call is not permitted. Written down already.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// The caller's role may not.
    #[error("{identity} may not call {call}")]
    Role {
        /// Who asked.
        identity: String,
        /// For what.
        call: &'static str,
    },
    /// The call needs a login token.
    #[error("{0} needs a login token")]
    NoToken(&'static str),
    /// The token does not open the account.
    #[error(transparent)]
    Token(#[from] TokenError),
}

/// May this peer make this call at all? With [`Rule::WithToken`] the caller still has to ask [`permit_token`].
///
/// # Errors
/// [`Denied::Role`].
pub fn permit(peer: &Peer, call: Call) -> Result<Rule, Denied> {
    match roles::rule(&peer.identity, call) {
        Rule::Denied => {
            let denied = Denied::Role {
                identity: peer.identity.to_string(),
                call: call.name(),
            };
            audit::call_refused(peer, call, &denied);
            Err(denied)
        }
        rule => Ok(rule),
    }
}

/// May this peer make this call with this token? The token where one was needed: of which account it is, and whether what opened it still
/// holds, the caller still has to look.
///
/// # Errors
/// A [`Denied`]. One for [`TokenError::Expired`] is the normal end of a token and is not written down.
pub fn permit_token(
    peer: &Peer,
    call: Call,
    token: &[u8],
    keys: &[TokenKey],
    now_ms: u64,
) -> Result<Option<Token>, Denied> {
    if permit(peer, call)? == Rule::Allowed {
        return Ok(None);
    }
    let verdict = match &peer.identity {
        _ if token.is_empty() => Err(Denied::NoToken(call.name())),
        Identity::Gateway { name, .. } => Token::open(token, keys, now_ms, name).map_err(Denied::Token),
        // The table gives no WithToken to others; a token says nothing about them.
        Identity::Node(_) | Identity::Operator { .. } => Err(Denied::Token(TokenError::OtherGateway)),
    };
    match verdict {
        Ok(token) => Ok(Some(token)),
        Err(denied) => {
            if denied != Denied::Token(TokenError::Expired) {
                audit::call_refused(peer, call, &denied);
            }
            Err(denied)
        }
    }
}
